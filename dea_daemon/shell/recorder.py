"""Captures: every public message as it came, gzipped, for `backtest --capture`. See shell/captures.py for the lines.

The trading loop only appends to a queue; a thread writes, compresses, and deletes what is too old. A queue that
is full drops and a new file begins, a disk that fails is told once: neither disturbs trading. Nothing that may hold
a key or a token is written.
"""

import contextlib
import gzip
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import structlog

from dea_daemon.domain.numbers import NS_PER_S

log = structlog.get_logger()
WAITING_BYTES_MAX = 1 << 24
WAITING_LINES_MAX = 100_000
WRITE_EVERY_S = 0.25
RETRY_AFTER_S = 10.0  # after the disk refused
FILES_AT_LEAST = 16  # how finely the allowance is cut: the oldest goes first
HOUR_NS = 3_600 * NS_PER_S
SECRETS = (b"token", b"signature", b"secret", b"passphrase", b"/auth", b'"login"')


class _Line(NamedTuple):
    name: str
    head: str  # before the time
    tail: str  # after it
    payload: bytes | str
    ts_ns: int


class SocketTap:
    """What one socket tells the recorder. Times are ns, UTC. Never blocks, never raises."""

    __slots__ = ("_name", "_put")

    def __init__(self, name: str, put: Callable[[_Line], None]) -> None:
        self._name = name
        self._put = put

    def __call__(self, raw: bytes | str, ts_recv_ns: int) -> None:
        self._put(_Line(self._name, "", ": ", raw, ts_recv_ns))

    def sent(self, url: str, message: bytes, ts_ns: int) -> None:
        self._put(_Line(self._name, f"{url} <- ", ": ", message, ts_ns))

    def connected(self, url: str, ts_ns: int) -> None:
        self._put(_Line(self._name, f"{url} <-> ", "", b"", ts_ns))


class _File:
    """One gzip file in the making. Raises OSError as the disk does."""

    def __init__(self, path: Path, utc_ns: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self.began_ns = utc_ns
        self._zip = gzip.open(path, "xb", compresslevel=4)  # noqa: SIM115 closed by close

    def write(self, lines: bytes) -> None:
        """Written is readable, though the process dies: the stream is flushed."""
        self._zip.write(lines)
        self._zip.flush()

    def size(self) -> int:
        return self.path.stat().st_size

    def close(self) -> None:
        self._zip.close()


class CaptureWriter:
    """Writes captures into a directory that never holds much more than `max_mb`. Opens its thread at once."""

    def __init__(self, directory: Path, max_mb: int, utc_ns: Callable[[], int]) -> None:
        self._directory = directory
        self._bytes_max = max_mb * 1_000_000
        self._utc_ns = utc_ns
        self._waiting: deque[_Line] = deque()
        self._put_bytes = 0  # written by the loop alone
        self._taken_bytes = 0  # written by the thread alone
        self._lossy: set[str] = set()  # names whose next line must begin a file
        self._files: dict[str, _File] = {}
        self._count = 0
        self._failing = False
        self._told_full = False
        self._retry_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="captures", daemon=True)
        self._thread.start()

    def tap(self, name: str) -> SocketTap:
        """For one socket with public data; `name` begins its files' names."""
        return SocketTap(f"{name}.ws", self._put)

    def http(self, name: str, url: str, body: bytes, ts_ns: int) -> None:
        """An HTTP answer, such as the list of contracts."""
        self._put(_Line(f"{name}.http", f"{url} -> ", ": ", body, ts_ns))

    def close(self) -> None:
        """Write what waits, and end the files. Blocks for that long."""
        self._stop.set()
        self._thread.join()

    # --- in the trading loop ---------------------------------------------------------------------

    def _put(self, line: _Line) -> None:
        waiting = self._put_bytes - self._taken_bytes
        if waiting > WAITING_BYTES_MAX or len(self._waiting) >= WAITING_LINES_MAX:
            self._lossy.add(line.name)
            return
        self._put_bytes += len(line.payload)
        self._waiting.append(line)

    # --- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.wait(WRITE_EVERY_S):
            self._turn()
        self._retry_s = 0.0
        self._turn()
        self._close_files(list(self._files))

    def _turn(self) -> None:
        """Write what has come. A failure costs these lines, and begins new files."""
        lossy = list(self._lossy)
        self._lossy.difference_update(lossy)
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
        self._taken_bytes += sum(len(line.payload) for line in lines)
        if lossy and not self._told_full:
            self._told_full = True
            log.warning("capture.dropped", why="the disk is slower than the feeds", feeds=lossy)
        if time.monotonic() < self._retry_s:
            return
        try:
            self._write(lines)
            self._close_files([*lossy, *self._full()])
            self._prune()
            self._failing = self._failing and not lines  # nothing written is no proof that the disk is well
        except OSError as error:
            if not self._failing:
                log.error("capture.failed", why=str(error))
            self._failing = True
            self._retry_s = time.monotonic() + RETRY_AFTER_S
            self._close_files(list(self._files))

    def _write(self, lines: Iterable[_Line]) -> None:
        chunks: dict[str, list[bytes]] = {}
        for line in lines:
            if (text := _text(line)) is not None:
                chunks.setdefault(line.name, []).append(text)
        for name, texts in chunks.items():
            if name not in self._files:
                self._files[name] = self._open(name)
            self._files[name].write(b"".join(texts))

    def _open(self, name: str) -> _File:
        utc_ns = self._utc_ns()
        self._count += 1
        stamp = datetime.fromtimestamp(utc_ns / NS_PER_S, UTC).strftime("%Y%m%dT%H%M%S")
        return _File(self._directory / f"{stamp}-{self._count:04d}.{name}.gz", utc_ns)

    def _full(self) -> list[str]:
        """Files that are large enough, or of an hour that is over."""
        hour, size_max = self._utc_ns() // HOUR_NS, self._bytes_max // FILES_AT_LEAST
        return [n for n, file in self._files.items() if file.began_ns // HOUR_NS != hour or file.size() >= size_max]

    def _close_files(self, names: Iterable[str]) -> None:
        for name in names:
            if (file := self._files.pop(name, None)) is not None:
                with contextlib.suppress(OSError):
                    file.close()

    def _prune(self) -> None:
        """The oldest files go; their names begin with their time."""
        sizes = {path: path.stat().st_size for path in sorted(self._directory.glob("*.gz"))}
        at_work = {file.path for file in self._files.values()}
        total = sum(sizes.values())
        for path, size in sizes.items():
            if total <= self._bytes_max:
                return
            if path not in at_work:
                path.unlink()
                total -= size


def _text(line: _Line) -> bytes | None:
    """As one line; None where it may hold what nobody should read."""
    payload = line.payload.encode() if isinstance(line.payload, str) else line.payload
    if any(secret in payload for secret in SECRETS):
        return None
    seconds, rest = divmod(line.ts_ns, NS_PER_S)
    # A line end within JSON is only space between its parts.
    flat = payload.replace(b"\n", b" ").replace(b"\r", b" ")
    return f"{line.head}{seconds}.{rest:09d}{line.tail}".encode() + flat + b"\n"
