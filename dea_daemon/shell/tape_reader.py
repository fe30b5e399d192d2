"""Reading a tape back, from the start of a run to the last whole block."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from dea_daemon.domain.events import AnyEvent
from dea_daemon.shell.tape import (
    HEAD,
    LENGTH,
    DecisionTaken,
    TapeError,
    TapeGap,
    TapeHeader,
    segment_name,
    segments,
)

TapeItem = AnyEvent | DecisionTaken | TapeGap

_decode = msgspec.msgpack.Decoder(TapeItem).decode
_decode_header = msgspec.json.Decoder(TapeHeader).decode


class TapeReader:
    """One run: a file, or the last run in a directory of segments. Iterate for its items, or `steps`.

    `header` says what wrote it. After iteration `torn` is empty, or says that the tape ends in half a block:
    what a crash leaves, and the run is whole up to there. Raises TapeError, with the offset, for damage
    anywhere else, and for a run whose start is gone.
    """

    def __init__(self, path: Path) -> None:
        self.torn = ""
        if path.is_dir():
            found = segments(path)
            if not found:
                raise TapeError(f"{path}: no tape here")
            header = _header(found[-1][1])
            path = path / segment_name(header.first_segment)
            if not path.exists():
                raise TapeError(f"{path} is gone, and run {header.run_id} began in it: no replay")
        self._path = path
        self.header = _header(path)
        if self.header.segment != self.header.first_segment:
            first = segment_name(self.header.first_segment)
            raise TapeError(f"{path} is the middle of run {self.header.run_id}, which began in {first}")

    def __iter__(self) -> Iterator[TapeItem]:
        """Every event, decision and gap, in order, over all segments of the run."""
        events, path, header = 0, self._path, self.header
        while True:
            for item in self._items(path):
                events += not isinstance(item, DecisionTaken | TapeGap)
                yield item
            path = path.with_name(segment_name(header.segment + 1))
            if not header.segment or not path.exists():
                return
            header = _header(path)
            if header.run_id != self.header.run_id:
                return
            if header.events_before != events:
                lost = header.events_before - events
                raise TapeError(f"{path}: {lost} events are missing before this segment {self.torn}")

    def steps(self) -> Iterator[tuple[AnyEvent, bytes]]:
        """Each event with its encoded decision (b"": it asked for nothing). Raises TapeError at a gap."""
        last: AnyEvent | None = None
        encoded = b""
        for item in self:
            if isinstance(item, TapeGap):
                if last is not None:
                    yield last, encoded
                raise TapeError(f"{item.events_lost} events are missing here ({item.why}): replay ends")
            if isinstance(item, DecisionTaken):
                encoded = item.encoded
            else:
                if last is not None:
                    yield last, encoded
                last, encoded = item, b""
        if last is not None:
            yield last, encoded

    def _items(self, path: Path) -> Iterator[TapeItem]:
        with path.open("rb") as file:
            _block(file, path)
            while (block := self._next(file, path)) is not None:
                start = 0
                while start < len(block):
                    (length,) = LENGTH.unpack_from(block, start)
                    start += 4 + length
                    yield _decode(block[start - length : start])

    def _next(self, file: BinaryIO, path: Path) -> memoryview | None:
        """The next block; None at the end, torn or not."""
        offset = file.tell()
        try:
            return _block(file, path)
        except EOFError as error:
            if str(error):
                self.torn = f"{path}: {error} at byte {offset}: the tape ends there"
            return None


def read_tape(path: Path) -> TapeReader:
    """The run in a file, or the last one in a directory of segments. Raises TapeError."""
    return TapeReader(path)


def _block(file: BinaryIO, path: Path) -> memoryview:
    """The items of the next block. Raises EOFError at the end, saying what was torn, if anything was."""
    offset = file.tell()
    head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError(f"{len(head)} bytes of a block head" if head else "")
    length, crc, crc_of_head = HEAD.unpack(head)
    if zlib.crc32(head[:8]) != crc_of_head:
        # A power cut may leave a tail of zeros: space the file was given and never wrote.
        if not head.strip(b"\0") and not _rest_has_data(file):
            raise EOFError("only zeros")
        raise TapeError(f"{path}: damaged at byte {offset}")
    body = file.read(length)
    if len(body) < length:
        raise EOFError(f"{len(body)} of {length} bytes of a block")
    if zlib.crc32(body) != crc:
        if not file.read(1):
            raise EOFError("a garbled last block")
        raise TapeError(f"{path}: damaged at byte {offset}")
    return memoryview(zlib.decompress(body))


def _rest_has_data(file: BinaryIO) -> bool:
    while chunk := file.read(1 << 20):
        if chunk.strip(b"\0"):
            return True
    return False


def _header(path: Path) -> TapeHeader:
    try:
        with path.open("rb") as file:
            return _decode_header(_block(file, path)[LENGTH.size :])
    except OSError as error:
        raise TapeError(f"{path}: {error.strerror}") from error
    except (EOFError, msgspec.DecodeError) as error:
        raise TapeError(f"{path}: not a tape") from error
