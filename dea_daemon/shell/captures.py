"""Recorded websocket streams, read line by line: memory does not grow with the file.

The line formats, gzipped or not (`{…}` is a venue's message, times are ours):

    <recv_ns> {…}                        one message
    <unix_recv>: {…}                     one message
    wss://… <-> <unix>                   a connection was made
    wss://… <- <unix>: {…}               we sent this
    https://… -> <unix>: {…}             an HTTP answer
    configuration: {…}                   what the recorder was asked for
"""

import gzip
import heapq
import re
import zlib
from collections.abc import Iterable, Iterator
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

from dea_daemon.domain.events import AnyEvent
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.feeds.codec import Codec, refused

LINE_BYTES_MAX = 1 << 26  # an exchangeInfo answer is 2 MB; anything near this is no capture
_GZIP = b"\x1f\x8b"
_HTTP_BODY = b'{"lastUpdateId"'  # a Binance HTTP book among the messages of its stream


class Kind(Enum):
    MESSAGE = "message"
    CONNECTED = "connected"
    SENT = "sent"
    HTTP = "http"
    UNREADABLE = "unreadable"


class Frame(NamedTuple):
    """One recorded line; `url` is empty on messages, `payload` on connections."""

    ts_recv_ns: int
    kind: Kind
    url: str
    payload: bytes


_SHAPES = (
    (Kind.MESSAGE, re.compile(rb"()([0-9.]+):? ([{\[].*|pong)", re.DOTALL)),
    (Kind.HTTP, re.compile(rb"(https?://\S+) -> ([0-9.]+): (.*)", re.DOTALL)),
    (Kind.SENT, re.compile(rb"(wss?://\S+) <- ([0-9.]+): (.*)", re.DOTALL)),
    (Kind.CONNECTED, re.compile(rb"(wss?://\S+) <-> ([0-9.]+)()")),
)


def frames(path: Path) -> Iterator[Frame]:
    """The lines of one file, in its order. A torn or foreign line is an UNREADABLE frame.

    Raises OSError where the file cannot be read; torn gzip ends it with an UNREADABLE frame.
    """
    ts_recv_ns = 0
    with _open(path) as file:
        while True:
            try:
                line = file.readline(LINE_BYTES_MAX)
            except (EOFError, gzip.BadGzipFile, zlib.error):
                yield Frame(ts_recv_ns, Kind.UNREADABLE, "", b"torn gzip")
                return
            if not line:
                return
            text = line.strip()
            if not text or text.startswith(b"configuration: "):
                continue
            frame = _frame(text, ts_recv_ns)
            ts_recv_ns = frame.ts_recv_ns
            yield frame


def merged(paths: Iterable[Path]) -> Iterator[Frame]:
    """Several files of one recording as one stream, in order of receipt."""
    return heapq.merge(*(frames(path) for path in paths), key=attrgetter("ts_recv_ns"))


def events(paths: Iterable[Path], codec: Codec) -> Iterator[list[AnyEvent]]:
    """What a codec makes of a recording: one list a message, empty ones left out.

    An HTTP answer is a book of the row its URL names, or of the codec's only row.
    """
    for frame in merged(paths):
        out: list[AnyEvent] = []
        if frame.kind is Kind.MESSAGE:
            codec.decode(frame.payload, frame.ts_recv_ns, out)
        elif frame.kind is Kind.HTTP:
            row = _row_of(frame.url, codec)
            if row is not None:
                codec.snapshot(frame.payload, row, frame.ts_recv_ns, out)
        elif frame.kind is Kind.UNREADABLE:
            out.append(refused(codec.feed, "not a line of a capture", frame.payload, frame.ts_recv_ns))
        if out:
            yield out


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP
    return cast(BinaryIO, gzip.open(path, "rb")) if zipped else path.open("rb")


def _frame(text: bytes, last_ns: int) -> Frame:
    for kind, shape in _SHAPES:
        match = shape.fullmatch(text)
        if match is not None:
            url, stamp, payload = match.groups()
            if kind is Kind.MESSAGE and payload.startswith(_HTTP_BODY):
                kind = Kind.HTTP
            try:
                return Frame(_nanoseconds(stamp), kind, url.decode(), payload)
            except ValueError:
                break
    return Frame(last_ns, Kind.UNREADABLE, "", text)


def _nanoseconds(stamp: bytes) -> int:
    """`1626992741.06217` seconds or `1723161255030314667` ns, exactly."""
    return int(Decimal(stamp.decode()) * NS_PER_S) if b"." in stamp else int(stamp)


def _row_of(url: str, codec: Codec) -> int | None:
    """The row whose snapshot this URL asks for, by comparison with what the codec itself would ask."""
    if not url:
        return codec.rows[0] if len(codec.rows) == 1 else None
    asked = urlsplit(url)
    for row in codec.rows:
        path = codec.snapshot_path(row)
        if path is None:
            continue
        own = urlsplit(path)
        if own.path == asked.path and parse_qs(own.query)["symbol"] == parse_qs(asked.query).get("symbol"):
            return row
    return None
