"""Recorded streams: each line format, and the real recordings end to end."""

import gzip
import tracemalloc
from bisect import bisect_right
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from dea_daemon.domain.events import BookDelta, BookSnapshot, MessageRefused
from dea_daemon.domain.instruments import AccountKey, Universe
from dea_daemon.feeds.binance import Binance
from dea_daemon.feeds.codec import Codec
from dea_daemon.feeds.deribit import Deribit
from dea_daemon.feeds.observed import contracts_in, trade_stream
from dea_daemon.shell.captures import Frame, Kind, events, frames, merged
from dea_daemon.state.books import Book, Change
from tests.shared_data import shared

Top = tuple[int, tuple[float, float, float, float]]  # number of the change; bid, amount, ask, amount

LINES = """\
wss://fstream.example/stream <-> 1626992740.179554
wss://fstream.example/stream <- 1626992740.2: {"method":"SUBSCRIBE"}
1626992741.06217: {"stream":"x"}
1723161255030314667 {"stream":"y"}
1723161255319702566 {"lastUpdateId":5}
https://fapi.example/fapi/v1/depth?symbol=BTCUSDT&limit=1000 -> 1723161256.5: {"lastUpdateId":6}
configuration: {"trades":[]}

what is this
"""


def test_every_line_format_is_read_with_its_time_to_the_nanosecond(tmp_path: Path):
    file = tmp_path / "capture"
    file.write_text(LINES)
    assert list(frames(file)) == [
        Frame(1_626_992_740_179_554_000, Kind.CONNECTED, "wss://fstream.example/stream", b""),
        Frame(1_626_992_740_200_000_000, Kind.SENT, "wss://fstream.example/stream", b'{"method":"SUBSCRIBE"}'),
        Frame(1_626_992_741_062_170_000, Kind.MESSAGE, "", b'{"stream":"x"}'),
        Frame(1_723_161_255_030_314_667, Kind.MESSAGE, "", b'{"stream":"y"}'),
        Frame(1_723_161_255_319_702_566, Kind.HTTP, "", b'{"lastUpdateId":5}'),
        Frame(
            1_723_161_256_500_000_000,
            Kind.HTTP,
            "https://fapi.example/fapi/v1/depth?symbol=BTCUSDT&limit=1000",
            b'{"lastUpdateId":6}',
        ),
        Frame(1_723_161_256_500_000_000, Kind.UNREADABLE, "", b"what is this"),
    ]


def test_gzip_is_known_by_its_content_and_a_torn_tail_is_told(tmp_path: Path):
    whole = gzip.compress("".join(f"{i} {{}}\n" for i in range(1_000, 6_000)).encode())
    file = tmp_path / "capture"
    file.write_bytes(whole)
    assert sum(frame.kind is Kind.MESSAGE for frame in frames(file)) == 5_000
    file.write_bytes(whole[: len(whole) // 2])
    kinds = [frame.kind for frame in frames(file)]
    assert kinds[-1] is Kind.UNREADABLE
    assert kinds.count(Kind.MESSAGE) > 100


def test_files_of_one_recording_are_read_in_order_of_receipt(tmp_path: Path):
    (tmp_path / "a").write_text("1000 {}\n3000 {}\n")
    (tmp_path / "b").write_text("2000 {}\n4000 {}\n")
    assert [f.ts_recv_ns for f in merged([tmp_path / "a", tmp_path / "b"])] == [1_000, 2_000, 3_000, 4_000]


def test_reading_takes_no_more_memory_for_a_longer_file(tmp_path: Path):
    peaks = []
    for lines in (1_000, 50_000):
        file = tmp_path / str(lines)
        file.write_bytes(gzip.compress(b"1723161255030314667 {}\n" * lines))
        tracemalloc.start()
        assert sum(1 for _ in frames(file)) == lines
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]


# --- the real ones ----------------------------------------------------------------------------------


def universe(files: list[Path], venue: str) -> tuple[Universe, list[bytes]]:
    sample = [frame.payload for frame in islice(frames(files[0]), 3_000)]
    rows = tuple((0, contract) for contract in contracts_in(sample, venue))
    return Universe((AccountKey(venue, "main"),), rows), sample


def played(files: list[Path], codec: Codec, rows: int) -> tuple[Counter[Any], list[Book], list[Top]]:
    """Event types and changes, the books, and the first row's top after each change with its number."""
    books = [Book() for _ in range(rows)]
    count: Counter[Any] = Counter()
    tops: list[Top] = []
    for out in events(files, codec):
        for event in out:
            count[type(event)] += 1
            if isinstance(event, BookDelta | BookSnapshot):
                book = books[event.row]
                change = book.apply(event)
                count[change] += 1
                best = book.best()
                count["crossed"] += best[0] >= best[2]
                if change is Change.APPLIED and event.row == 0:
                    tops.append((book.last, best))
    return count, books, tops


def quotes(file: Path) -> list[Top]:
    """The venue's own bookTicker, which carries the number of the change it reports."""
    told = []
    for frame in frames(file):
        if b'"bookTicker"' in frame.payload:
            q = msgspec.json.decode(frame.payload)["data"]
            told.append((q["u"], (float(q["b"]), float(q["B"]), float(q["a"]), float(q["A"]))))
    return sorted(told)


def test_93_954_recorded_binance_messages_have_no_gap_and_never_cross():
    files = [shared("ws/usdm_btcusdt_20240808.gz")]
    rows, sample = universe(files, "binanceusdm")
    assert trade_stream(sample) == "trade"
    assert sum(1 for _ in frames(files[0])) == 93_954
    count, (book,), tops = played(files, Binance(rows, 0, trades="trade"), 1)
    assert count[MessageRefused] == count[Change.GAP] == count[Change.IGNORED] == count["crossed"] == 0
    # Six deltas came before the snapshot, and one of them was its bridge.
    assert (count[BookDelta], count[Change.BUFFERED], count[BookSnapshot]) == (6_551, 6, 1)
    assert count[Change.APPLIED] == 6_551 - 6 + 1
    assert book.usable
    # After each change the top is what the venue itself quoted as of that change, amounts and all.
    told = quotes(files[0])
    numbers = [number for number, _ in told]
    assert all(told[bisect_right(numbers, last) - 1][1] == best for last, best in tops)


def test_four_recorded_binance_books_bridge_their_http_snapshots():
    files = [shared("ws/BINANCE_FUTURES.ws.1.0.gz"), shared("ws/BINANCE_FUTURES.http.0.0.gz")]
    rows, sample = universe(files, "binanceusdm")
    assert trade_stream(sample) == "aggTrade"
    count, books, _ = played(files, Binance(rows, 0), 4)
    assert count[MessageRefused] == count[Change.GAP] == count["crossed"] == 0
    assert count[BookSnapshot] == 4
    assert all(book.usable for book in books)


def test_ten_recorded_deribit_option_books_are_unbroken():
    files = [shared("ws/DERIBIT.ws.1.0.gz")]
    rows, _ = universe(files, "deribit")
    assert len(rows) == 10
    count, books, _ = played(files, Deribit(rows, 0, interval="raw"), len(rows))
    assert count[Change.GAP] == count[Change.IGNORED] == count[Change.BUFFERED] == count["crossed"] == 0
    assert all(book.usable for book in books)
