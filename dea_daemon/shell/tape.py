"""The tape: every event the core folded and what it decided then, for replay and study.

A file is a run of blocks: a head (length, CRC-32 of the body, CRC-32 of those two; u32 little-endian), then the
body, zlib over items (u32 length, MessagePack). The first block is the header, in JSON. Nothing is synced: a
crash may cost the last second. The caller only encodes; a thread compresses, writes, starts segments and
removes old ones. A failure never reaches the caller: the stretch is missing, and a TapeGap and the log say so.
"""

import os
import platform
import queue
import struct
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import structlog

from dea_daemon import __version__
from dea_daemon.domain.decisions import Decision
from dea_daemon.domain.errors import DeaError
from dea_daemon.domain.events import SCHEMA_VERSION, AnyEvent
from dea_daemon.shell.plain import plain

HEAD = struct.Struct("<III")
LENGTH = struct.Struct("<I")
_BLOCK_BYTES = 32_768  # before compression
_BLOCK_NS = 1_000_000_000
_QUEUE_BLOCKS = 256
_CLOSE_S = 10.0
_THREADS_OF_BLAS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

log = structlog.get_logger()


class TapeError(DeaError):
    """A tape that cannot be written at all, or cannot be read as a run."""


class TapeHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What wrote this, as far as it can change a float; and which part of which run it is."""

    schema: int
    version: str
    python: str
    numpy: str
    machine: str
    cpu_features: tuple[str, ...]
    blas: str
    blas_threads: str
    run_id: str
    segment: int = 0
    first_segment: int = 0  # where the run starts
    events_before: int = 0  # in its earlier segments

    @classmethod
    def here(cls, run_id: str) -> "TapeHeader":
        """The header of a tape made by this process."""
        build = np.show_config(mode="dicts") or {}
        blas = build.get("Build Dependencies", {}).get("blas", {})
        return cls(
            schema=SCHEMA_VERSION,
            version=__version__,
            python=platform.python_version(),
            numpy=np.__version__,
            machine=platform.machine(),
            cpu_features=tuple(build.get("SIMD Extensions", {}).get("found", ())),
            blas=f"{blas.get('name', '?')} {blas.get('version', '?')}",
            blas_threads=" ".join(f"{name}={os.environ.get(name, '')}" for name in _THREADS_OF_BLAS),
            run_id=run_id,
        )

    def differences(self, other: "TapeHeader") -> tuple[str, ...]:
        """Why two builds may not agree to the last bit; nothing where they must."""
        names = ("schema", "version", "python", "numpy", "machine", "cpu_features", "blas", "blas_threads")
        return tuple(
            f"{name}: {getattr(self, name)} / {getattr(other, name)}"
            for name in names
            if getattr(self, name) != getattr(other, name)
        )


class DecisionTaken(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The decision on the event before it, as `encode_decision` gives it. Missing where there was none."""

    encoded: bytes


class TapeGap(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Events are missing here: what follows cannot be replayed."""

    events_lost: int
    why: str


_NOTHING = Decision()
_encoder = msgspec.msgpack.Encoder(enc_hook=plain)


def encode_decision(decision: Decision) -> bytes:
    """MessagePack of all it says, the same bytes for the same decision; nothing for one that asks nothing."""
    return b"" if decision == _NOTHING else _encoder.encode(decision)


decode_decision = msgspec.msgpack.Decoder(Decision).decode


class _Block(NamedTuple):
    items: bytes
    events: int


class TapeWriter:
    """Records a run: `event` before each step, `decision` after it. Neither waits for anything."""

    def __init__(self, writer: "_Writer") -> None:
        self._queue: queue.Queue[_Block | None] = queue.Queue(_QUEUE_BLOCKS)
        self._buffer = bytearray()
        self._events = 0
        self._events_lost = 0
        self._due_ns = time.monotonic_ns() + _BLOCK_NS
        self._thread = threading.Thread(target=writer.run, args=(self._queue,), name="dea_daemon-tape", daemon=True)
        self._thread.start()

    @classmethod
    def to_file(cls, path: Path, header: TapeHeader) -> "TapeWriter":
        """One file, replacing what was there. Raises TapeError where it cannot be made."""
        return cls(_Writer(header, path))

    @classmethod
    def to_directory(
        cls, directory: Path, header: TapeHeader, max_bytes: int = 4 << 30, max_age_s: float = 30 * 86_400.0
    ) -> "TapeWriter":
        """Segments `NNNNNN.tape`, the oldest removed beyond `max_bytes` in all or `max_age_s`; a run so old
        that its start is gone can no longer be replayed. Raises TapeError where none can be made."""
        return cls(_SegmentWriter(header, directory, max_bytes, max_age_s))

    def event(self, event: AnyEvent) -> None:
        """What the core is about to fold. Never raises."""
        # Blocks end here only, so an event and its decision are never parted.
        if len(self._buffer) >= _BLOCK_BYTES or time.monotonic_ns() >= self._due_ns:
            self._flush()
        self._put(event)
        self._events += 1

    def decision(self, decision: Decision) -> None:
        """What the core made of it. Never raises."""
        if decision is not _NOTHING and decision != _NOTHING:
            self._put(decision)

    def close(self) -> None:
        """Write what is held and stop. Waits ten seconds at most."""
        if not self._thread.is_alive():
            return
        self._flush()
        with suppress(queue.Full):
            self._queue.put(None, timeout=_CLOSE_S)
        self._thread.join(_CLOSE_S)

    def _put(self, item: AnyEvent | Decision | TapeGap) -> None:
        buffer = self._buffer
        start = len(buffer)
        try:
            buffer += b"\0\0\0\0"
            if isinstance(item, Decision):
                item = DecisionTaken(_encoder.encode(item))
            _encoder.encode_into(item, buffer, -1)
            LENGTH.pack_into(buffer, start, len(buffer) - start - 4)
        except (TypeError, ValueError, OverflowError) as error:
            del buffer[start:]
            log.error("tape.event_refused", type=type(item).__name__, why=str(error))
            self._put(TapeGap(1, f"{type(item).__name__}: {error}"))

    def _flush(self) -> None:
        self._due_ns = time.monotonic_ns() + _BLOCK_NS
        if self._events_lost and not self._queue.full():
            held, self._buffer = self._buffer, bytearray()
            self._put(TapeGap(self._events_lost, "the disk could not keep up"))
            self._buffer += held
            self._events_lost = 0
        if not self._buffer:
            return
        try:
            self._queue.put_nowait(_Block(bytes(self._buffer), self._events))
        except queue.Full:
            if not self._events_lost:
                log.error("tape.overflowed", blocks=_QUEUE_BLOCKS)
            self._events_lost += self._events
        self._buffer.clear()
        self._events = 0


class _Writer:
    """One file, written by one thread. A block is there whole, or not at all."""

    def __init__(self, header: TapeHeader, path: Path) -> None:
        self._header = header
        self._fd = -1
        self._bytes = 0  # good ones: what a failed write left behind them is cut off
        self._events = 0
        self._events_lost = 0
        self._why = ""
        try:
            self._start(path)
        except OSError as error:
            raise TapeError(f"{path}: {error.strerror}") from error

    def run(self, blocks: "queue.Queue[_Block | None]") -> None:
        while (block := blocks.get()) is not None:
            try:
                self._write(block)
            except OSError as error:
                if not self._events_lost:
                    log.error("tape.write_failed", why=str(error))
                self._events_lost += block.events
                self._why = str(error)
        with suppress(OSError):
            os.close(self._fd)

    def _start(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._bytes = fd, 0
        self._append(_item(msgspec.json.encode(self._header)))

    def _write(self, block: _Block) -> None:
        if self._events_lost:
            self._append(_item(_encoder.encode(TapeGap(self._events_lost, self._why))))
            log.warning("tape.write_resumed", events_lost=self._events_lost)
            self._events_lost = 0
        self._append(block.items)
        self._events += block.events

    def _append(self, items: bytes) -> None:
        body = zlib.compress(items, 1)
        head = LENGTH.pack(len(body)) + LENGTH.pack(zlib.crc32(body))
        data = memoryview(head + LENGTH.pack(zlib.crc32(head)) + body)
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._fd, data[done:], self._bytes + done)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._bytes)
            raise
        self._bytes += len(data)


class _SegmentWriter(_Writer):
    """Segments in a directory: a new one for every run and every sixteenth of the space."""

    def __init__(self, header: TapeHeader, directory: Path, max_bytes: int, max_age_s: float) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        first = max((number for number, _ in segments(directory)), default=0) + 1
        header = msgspec.structs.replace(header, segment=first, first_segment=first)
        super().__init__(header, directory / segment_name(first))

    def _write(self, block: _Block) -> None:
        if self._bytes >= self._max_bytes // 16:
            before, number = self._header, self._header.segment + 1
            self._header = msgspec.structs.replace(before, segment=number, events_before=self._events)
            try:
                self._start(self._directory / segment_name(number))
            except OSError:
                self._header = before
                raise
        super()._write(block)

    def _start(self, path: Path) -> None:
        super()._start(path)
        self._prune()

    def _prune(self) -> None:
        """Remove the oldest. The space of the segment being written counts as if it were full."""
        sizes = {path: path.stat() for _, path in segments(self._directory)[:-1]}
        total = sum(stat.st_size for stat in sizes.values()) + self._max_bytes // 16
        for path, stat in sizes.items():
            if total <= self._max_bytes and time.time() - stat.st_mtime <= self._max_age_s:
                break
            path.unlink()
            total -= stat.st_size
            log.info("tape.segment_removed", segment=path.name)


def segment_name(number: int) -> str:
    return f"{number:06d}.tape"


def segments(directory: Path) -> list[tuple[int, Path]]:
    """The segments of a directory, oldest first."""
    return sorted((int(path.stem), path) for path in directory.glob("*.tape") if path.stem.isdigit())


def _item(encoded: bytes) -> bytes:
    return LENGTH.pack(len(encoded)) + encoded
