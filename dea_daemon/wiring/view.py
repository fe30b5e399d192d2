"""The live view around a run: the log goes to a file while it is up, and what was bad in it is told afterwards."""

import contextlib
import json
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import click
import structlog

from dea_daemon.shell import console, logs
from dea_daemon.shell.settings import Settings
from dea_daemon.shell.terminal import TerminalView

log = structlog.get_logger()
LOG_FILE = "dea-daemon.log"
_LOG_BYTES_MAX = 64 << 20  # then the file becomes .1, at the start of a view
_RETOLD_MAX = 50
_BAD = frozenset({"warning", "error", "critical"})


@asynccontextmanager
async def viewed(get_status: Callable[[], dict[str, Any]], settings: Settings) -> AsyncIterator[None]:
    """Draw until the end of the block. Where the view ends before, or cannot begin, the log comes back at once."""
    path = settings.state_dir / LOG_FILE
    try:
        file = _opened(path)
    except OSError as error:
        log.warning("view.refused", why=f"its log: {error}")
        yield
        return
    start = file.tell()
    on_terminal = sys.stderr.isatty()
    logs.configure(settings.log.level, "json", file)

    def ended() -> None:
        gone = on_terminal and not sys.stderr.isatty()
        if gone:  # from here on the file is stderr, for whatever else the process has to say
            os.dup2(file.fileno(), sys.stderr.fileno())
        logs.configure(settings.log.level, "json" if gone else settings.log.format)
        file.close()
        if gone:
            return
        _retell(path, start)

    where = sorted({str(section.environment) for section in settings.venues.sections})
    async with TerminalView(get_status, f"dea-daemon, {' and '.join(where)}", ended):
        yield


def _opened(path: Path) -> IO[bytes]:
    """The log file, to append to; it never grows by more than one view beyond its size."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
    private = partial(os.open, mode=0o600)
    file = open(path, "ab", buffering=0, opener=private)  # noqa: SIM115 closed when the view ends
    file.seek(0, os.SEEK_END)
    return file


def _retell(path: Path, start: int) -> None:
    """The warnings and errors of the view, on stderr, as they would have stood there without it."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            bad, count = _bad_news(file)
        colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        if count > len(bad):
            click.echo(f"{count - len(bad)} more warnings in {path}", err=True)
        for fields in bad:
            click.echo(console.text(fields, colour), err=True)
    except OSError:
        return  # the terminal is gone, or the file: it was written all the same


def _bad_news(lines: Iterable[bytes]) -> tuple[list[dict[str, Any]], int]:
    """The last of them, and how many there were."""
    kept: deque[dict[str, Any]] = deque(maxlen=_RETOLD_MAX)
    count = 0
    for line in lines:
        with contextlib.suppress(ValueError):
            fields = json.loads(line)
            if fields["level"] in _BAD:
                kept.append(fields)
                count += 1
    return list(kept), count
