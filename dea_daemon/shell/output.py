"""JSON lines on stdout: the machine-readable side of a command."""

import os
import sys
from collections.abc import Mapping
from typing import Any

import msgspec


def emit(fields: Mapping[str, Any]) -> None:
    """Write one compact JSON line and flush it. NaN becomes null.

    When the reader goes away the rest is dropped: nobody listening is no reason to stop trading.
    """
    line = msgspec.json.encode(fields, enc_hook=_plain)
    try:
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        silence_stdout()


def silence_stdout() -> None:
    """What is written to stdout from here on goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _plain(value: Any) -> Any:
    """numpy's scalars and arrays as Python's; anything else as its text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
