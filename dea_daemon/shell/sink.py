"""Where log lines go: a descriptor that may be slow, full or gone, which is no reason to stop trading."""

import os
import select
import threading
import time
from typing import IO, Any

_BACKLOG_MAX = 1 << 20
_CHUNK = 4_096  # what a pipe or socket that says it is writable takes without making us wait


class Sink:
    """Writes whole lines, never raises and never waits. What a slow reader leaves is held up to a megabyte; beyond
    that, and when the descriptor fails, lines are dropped and counted in `dropped`."""

    def __init__(self) -> None:
        self.dropped = 0
        self._fd = 2
        self._stream: IO[Any] | None = None
        self._backlog = bytearray()
        self._lock = threading.Lock()
        self._poll = select.poll()

    def attach(self, stream: IO[Any]) -> None:
        """Write to this stream's descriptor from here on, or to the stream itself where it has none (a test's)."""
        self.flush()
        with self._lock:
            self._backlog.clear()
            self._poll = select.poll()
            try:
                self._fd = stream.fileno()
                self._stream = None
                self._poll.register(self._fd, select.POLLOUT)
            except (OSError, ValueError):  # io.UnsupportedOperation is both
                self._stream = getattr(stream, "buffer", stream)

    def write(self, line: bytes) -> None:
        with self._lock:
            if len(self._backlog) + len(line) <= _BACKLOG_MAX:
                self._backlog += line
            else:
                self.dropped += 1
            self._drain(0.0)

    def flush(self, timeout_s: float = 1.0) -> None:
        """Give a slow reader this long to take what is held."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while self._backlog and (left_s := deadline - time.monotonic()) > 0:
                self._drain(left_s)

    def _drain(self, wait_s: float) -> None:
        """As much as is taken without waiting longer than this for the first byte."""
        while self._backlog:
            try:
                done = self._write_some(wait_s)
            except (OSError, ValueError):
                self.dropped += self._backlog.count(b"\n")
                self._backlog.clear()
                return
            if not done:
                return
            del self._backlog[:done]

    def _write_some(self, wait_s: float) -> int:
        if self._stream is not None:
            self._stream.write(bytes(self._backlog))
            self._stream.flush()
            return len(self._backlog)
        if not self._poll.poll(wait_s * 1_000):
            return 0
        return os.write(self._fd, self._backlog[:_CHUNK])
