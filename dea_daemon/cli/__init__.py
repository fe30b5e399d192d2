"""The command line: `base` holds the group and its exit codes, each other module some of its commands.

Each command only reads its options and hands over: the bodies are in `wiring` and `shell`.
"""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from dea_daemon.cli import allocate, calibrate, data, operate, records, rescue, runs, simulate, stress, surface
from dea_daemon.cli.base import cli, exit_code

__all__ = [
    "allocate", "calibrate", "cli", "data", "exit_code", "main", "operate", "records", "rescue",
    "runs", "simulate", "stress", "surface",
]  # fmt: skip


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    """SIGTERM outside a loop: unwind as Ctrl-C does."""
    sys.exit(128 + number)


def _fill_standard_streams() -> None:
    """A stream we were started without is /dev/null: else the next file opened becomes it, and uvloop aborts."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, mode))  # noqa: SIM115 for as long as the process lives


def main() -> None:
    """Entry point of `dea-daemon`."""
    _fill_standard_streams()
    signal.signal(signal.SIGTERM, _terminate)
    cli.main(prog_name="dea-daemon")
