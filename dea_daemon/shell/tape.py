"""The tape: every event the core folded and what it decided then, for replay and study.

A file is a run of blocks: a head (length, CRC-32 of the body, CRC-32 of those two; u32 little-endian), then the
body, zlib over items (u32 length, MessagePack). The first block is the header, in JSON. Nothing is synced: a power
cut may cost what the system had not yet written. A failure never reaches the caller: the stretch is missing, and a
TapeGap and the log say so.

Blocks are compressed and written inline, a quarter of a millisecond each: a thread would wait for the interpreter
behind a busy loop, and was seen to fall behind for good.
"""

import os
import platform
import struct
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import structlog

from dea_daemon import __version__
from dea_daemon.domain.decisions import NOTHING, Decision
from dea_daemon.domain.errors import DataError
from dea_daemon.domain.events import SCHEMA_VERSION, AnyEvent
from dea_daemon.shell.plain import plain

HEAD = struct.Struct("<III")
LENGTH = struct.Struct("<I")
_BLOCK_BYTES = 16_384  # before compression
_BLOCK_NS = 1_000_000_000
_THREADS_OF_BLAS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

log = structlog.get_logger()


class TapeError(DataError):
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
        build: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
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


_encoder = msgspec.msgpack.Encoder(enc_hook=plain)
_encode_header = msgspec.json.Encoder().encode

decode_decision = msgspec.msgpack.Decoder(Decision).decode


def encode_decision(decision: Decision) -> bytes:
    """MessagePack of all it says, the same bytes for the same decision; nothing for one that asks nothing."""
    return b"" if decision == NOTHING else _encoder.encode(decision)


class TapeWriter:
    """Records a run: `event` before each step, `decision` after it. Neither raises."""

    @staticmethod
    def to_file(path: Path, header: TapeHeader) -> "TapeWriter":
        """One file, replacing what was there. Raises TapeError where it cannot be made."""
        return TapeWriter(path, header)

    @staticmethod
    def to_directory(directory: Path, header: TapeHeader, max_bytes: int, max_age_s: float) -> "TapeWriter":
        """`NNNNNN.tape`, a new one for every run and every sixteenth of the space. The oldest are removed beyond
        `max_bytes` in all, or untouched for `max_age_s`; a run whose start is gone can no longer be replayed.
        Raises TapeError where none can be made."""
        return _SegmentedTapeWriter(directory, header, max_bytes, max_age_s)

    def __init__(self, path: Path, header: TapeHeader) -> None:
        self._header = header
        self._fd = -1
        self._bytes = 0  # good ones: what a failed write left behind them is cut off
        self._buffer = bytearray()
        self._due_ns = 0
        self._events = 0  # on the tape
        self._events_held = 0  # in the buffer
        self._events_lost = 0  # since the last block that could be written
        self._why = ""
        try:
            self._start(path)
        except OSError as error:
            raise TapeError(f"{path}: {error.strerror}") from error

    def event(self, event: AnyEvent) -> None:
        """What the core is about to fold."""
        # Blocks end here only, so an event and its decision are never parted.
        if len(self._buffer) >= _BLOCK_BYTES or time.monotonic_ns() >= self._due_ns:
            self.flush()
        self._put(event)
        self._events_held += 1

    def decision(self, decision: Decision) -> None:
        """What the core made of the event. One that asks nothing takes no space."""
        if decision is not NOTHING:
            try:
                encoded = encode_decision(decision)
            except (TypeError, ValueError, OverflowError) as error:
                self._refuse("decision", error)
            else:
                if encoded:
                    self._put(DecisionTaken(encoded))

    def flush(self) -> None:
        """Hand what is held to the system, between two events: every 16 kB, every second, and at the end."""
        self._due_ns = time.monotonic_ns() + _BLOCK_NS
        if not self._buffer:
            return
        try:
            self._write_block()
            self._events += self._events_held
        except OSError as error:
            if not self._events_lost:
                log.error("tape.write_failed", why=str(error))
            self._events_lost += self._events_held
            self._why = str(error)
        self._buffer.clear()
        self._events_held = 0

    def close(self) -> None:
        """Write what is held and stop. Safe to call twice."""
        if self._fd >= 0:
            self.flush()
            os.close(self._fd)
            self._fd = -1

    def _put(self, item: AnyEvent | DecisionTaken | TapeGap) -> None:
        buffer = self._buffer
        start = len(buffer)
        buffer += b"\0\0\0\0"
        try:
            _encoder.encode_into(item, buffer, -1)
            LENGTH.pack_into(buffer, start, len(buffer) - start - 4)
        except (TypeError, ValueError, OverflowError) as error:
            del buffer[start:]
            self._refuse(type(item).__name__, error)

    def _refuse(self, what: str, error: Exception) -> None:
        """Something MessagePack has no word for: our bug, and no reason to stop trading."""
        log.error("tape.item_refused", item=what, why=str(error))
        self._put(TapeGap(1, f"{what}: {error}"))

    def _start(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = self._fd, self._bytes
        self._fd, self._bytes = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), 0
        try:
            self._append(_item(_encode_header(self._header)))
        except OSError:
            os.close(self._fd)
            path.unlink(missing_ok=True)
            self._fd, self._bytes = before
            raise
        if before[0] >= 0:
            os.close(before[0])

    def _write_block(self) -> None:
        if not self._events_lost:
            self._append(self._buffer)
            return
        self._append(_item(_encoder.encode(TapeGap(self._events_lost, self._why))) + self._buffer)
        log.warning("tape.write_resumed", events_lost=self._events_lost)
        self._events_lost = 0

    def _append(self, items: bytes | bytearray) -> None:
        """One block, whole or not at all."""
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


class _SegmentedTapeWriter(TapeWriter):
    def __init__(self, directory: Path, header: TapeHeader, max_bytes: int, max_age_s: float) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        first = max((number for number, _ in segments(directory)), default=0) + 1
        header = msgspec.structs.replace(header, segment=first, first_segment=first)
        super().__init__(directory / segment_name(first), header)

    def _start(self, path: Path) -> None:
        super()._start(path)
        self._prune()

    def _write_block(self) -> None:
        if self._bytes >= self._max_bytes // 16:
            self._turn()
        super()._write_block()

    def _turn(self) -> None:
        """On to the next segment; this one stays in use until that one is there."""
        before, number = self._header, self._header.segment + 1
        self._header = msgspec.structs.replace(before, segment=number, events_before=self._events)
        try:
            self._start(self._directory / segment_name(number))
        except OSError:
            self._header = before
            raise

    def _prune(self) -> None:
        """Remove the oldest. The segment being written counts as if it were full."""
        try:
            sizes = {path: path.stat() for _, path in segments(self._directory)[:-1]}
            total = sum(stat.st_size for stat in sizes.values()) + self._max_bytes // 16
            for path, stat in sizes.items():
                if total <= self._max_bytes and time.time() - stat.st_mtime <= self._max_age_s:
                    break
                path.unlink()
                total -= stat.st_size
                log.info("tape.segment_removed", segment=path.name)
        except OSError as error:
            log.error("tape.segment_not_removed", why=str(error))


def segment_name(number: int) -> str:
    return f"{number:06d}.tape"


def segments(directory: Path) -> list[tuple[int, Path]]:
    """The segments of a directory, oldest first."""
    return sorted((int(path.stem), path) for path in directory.glob("*.tape") if path.stem.isdigit())


def _item(encoded: bytes) -> bytes:
    return LENGTH.pack(len(encoded)) + encoded
