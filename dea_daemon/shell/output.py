"""What commands write to stdout. When its reader goes away the rest is dropped: nobody listening is no reason to
stop trading, and `dea-daemon schema | head` no error.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

import msgspec


def emit(fields: Mapping[str, Any]) -> None:
    """One compact JSON line, flushed. NaN becomes null."""
    _write(msgspec.json.encode(fields, enc_hook=_plain) + b"\n")


def say(*lines: str) -> None:
    """Lines of text for people, flushed."""
    _write("".join(f"{line}\n" for line in lines).encode(sys.stdout.encoding, "replace"))


def _write(data: bytes) -> None:
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _plain(value: Any) -> Any:
    """numpy's scalars and arrays as Python's; anything else as its text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
