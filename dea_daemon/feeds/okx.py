"""OKX: public market data, API v5.

Books come as a snapshot of 400 levels and updates linked by prevSeqId; a fresh snapshot is had by subscribing
again. Where the venue sends a checksum (0 since 2026, and then it says nothing), each update is proved by it. A
book that fails is told to the core as a level that is no number, which no book takes.

Source: OKX API v5, "WebSocket: order book channel", "mark price channel", "funding rate channel", "option summary".
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from dea_daemon.domain.errors import InvariantViolation
from dea_daemon.domain.events import (
    AnyEvent,
    BookDelta,
    BookSnapshot,
    FeedAlive,
    FeedOpened,
    IndexUpdated,
    Level,
    MarkUpdated,
    QuoteUpdated,
    TradePrinted,
)
from dea_daemon.domain.instruments import Instrument, Kind, Side, Universe
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.feeds.codec import NAN, Socket, refused
from dea_daemon.feeds.okx_checksum import Words, checksum

PATH = "/ws/v5/public"
EIGHT_HOURS_MS = 8 * 3_600_000
_NOTHING = msgspec.Raw()


class Arg(msgspec.Struct, rename="camel", gc=False):
    """What a message belongs to."""

    channel: str = ""
    inst_id: str = ""
    inst_family: str = ""


class Message(msgspec.Struct, gc=False):
    """Data of a channel, or the answer to something we sent (`event`)."""

    arg: Arg | None = None
    data: msgspec.Raw = _NOTHING
    action: str = ""
    event: str = ""
    code: str = ""
    msg: str = ""


class PriceLevel(msgspec.Struct, array_like=True, gc=False):
    """[price, amount, …]; what follows (liquidated and all orders there) is passed over."""

    price: str
    amount: str


class BookData(msgspec.Struct, rename="camel", gc=False):
    asks: list[PriceLevel]
    bids: list[PriceLevel]
    ts: int
    checksum: int = 0
    seq_id: int | None = None  # recordings before 2023 have neither
    prev_seq_id: int | None = None


class BookMessage(msgspec.Struct, gc=False):
    arg: Arg
    action: str = ""
    data: list[BookData] = []


class TickerData(msgspec.Struct, rename="camel", gc=False):
    """Empty text on a side without an order."""

    ts: int
    bid_px: str = ""
    bid_sz: str = ""
    ask_px: str = ""
    ask_sz: str = ""


class TradeData(msgspec.Struct, rename="camel", gc=False):
    trade_id: str
    px: float
    sz: float
    side: Side
    ts: int


class MarkData(msgspec.Struct, rename="camel", gc=False):
    mark_px: float
    ts: int


class IndexData(msgspec.Struct, rename="camel", gc=False):
    idx_px: float
    ts: int


class FundingData(msgspec.Struct, rename="camel", gc=False):
    funding_rate: str
    funding_time: int
    next_funding_time: str = ""


class Summary(msgspec.Struct, rename="camel"):
    """The venue's own view of one option. Volatilities are fractions a year, delta in coin; empty: none."""

    inst_id: str
    ts: int
    delta: str = ""
    gamma: str = ""
    vega: str = ""
    theta: str = ""
    mark_vol: str = ""
    bid_vol: str = ""
    ask_vol: str = ""
    fwd_px: str = ""


def _reader(shape: type) -> Callable[[msgspec.Raw], Any]:
    return msgspec.json.Decoder(list[shape], strict=False).decode  # type: ignore[valid-type]


_message = msgspec.json.Decoder(Message).decode
_book_message = msgspec.json.Decoder(BookMessage, strict=False).decode
_BOOK_HEAD = b'{"arg":{"channel":"books",'  # nearly all messages; any other order of keys takes the general way

Handler = Callable[[Any, Any, int, list[AnyEvent]], None]
Route = tuple[Callable[[msgspec.Raw], Any], Handler, Any]


class Okx:
    """One OKX socket. Implements feeds.codec.Codec.

    `summaries` is the newest opt-summary by row: no event carries a venue's Greeks, ours come from the books.
    """

    private = False
    heartbeat = b"ping"  # after 30 s without a message the venue closes

    def __init__(self, universe: Universe, account: int, *, feed: str = "okx") -> None:
        self.feed = feed
        self.account = account
        self.ready = False
        self.summaries: dict[int, Summary] = {}
        mine = {row: i for row, i in enumerate(universe.instruments) if universe.account[row] == account}
        self.rows = tuple(mine)
        self._row = {instrument.name: row for row, instrument in mine.items()}
        self._name = {row: name for name, row in self._row.items()}
        self._index_of = {row: _index(instrument) for row, instrument in mine.items()}
        self._index_price: dict[str, float] = {}
        self._funding_8h: dict[int, float] = {}
        self._last: dict[int, int] = {}  # number of the last book message, as we gave it on
        self._shift: dict[int, int] = {}  # ours less the venue's, since it began again at a lower number
        self._words: dict[int, tuple[Words, Words]] = {}
        self._routes = self._by_channel(mine)
        self._channels = [("books", name) for name in self._row] + list(self._routes)
        self._granted: set[tuple[str, str]] = set()
        self._denied = 0
        self._shut = False  # a book was refused later on: this connection is of no more use

    def _by_channel(self, mine: dict[int, Instrument]) -> dict[tuple[str, str], Route]:
        """By channel and contract (index, family), books apart: what reads the data, who takes it, what he must
        know."""
        routes: dict[tuple[str, str], Route] = {}
        for row, instrument in mine.items():
            name = instrument.name
            routes["tickers", name] = (_reader(TickerData), self._ticker, row)
            routes["trades", name] = (_reader(TradeData), self._trades, row)
            if instrument.kind is not Kind.SPOT:
                routes["mark-price", name] = (_reader(MarkData), self._mark, row)
            if instrument.kind is Kind.PERPETUAL:
                routes["funding-rate", name] = (_reader(FundingData), self._funding, row)
            if instrument.kind is Kind.OPTION:
                routes["opt-summary", self._index_of[row]] = (_reader(Summary), self._summary, None)
        for underlying in dict.fromkeys(instrument.underlying for instrument in mine.values()):
            for index in dict.fromkeys((f"{underlying}-USD", *self._index_of.values())):
                if index.startswith(f"{underlying}-"):
                    routes["index-tickers", index] = (_reader(IndexData), self._index, index)
        return routes

    # --- what we send ----------------------------------------------------------------------------

    def hello(self, utc_ms: int, nonce: str) -> list[bytes]:
        self.ready = False
        self._last.clear()
        self._shift.clear()
        self._words.clear()
        self._granted.clear()
        self._denied, self._shut = 0, False
        return [_request("subscribe", self._channels)]

    def resubscribe(self, row: int) -> list[bytes]:
        if row not in self._name:
            return []
        book = [("books", self._name[row])]
        return [_request("unsubscribe", book), _request("subscribe", book)]

    def join(self, rows: Iterable[int]) -> list[bytes]:
        return []  # its contracts are listed at the start only

    def leave(self, rows: Iterable[int]) -> None:
        """Nothing ends here while a run lasts."""

    def snapshot_path(self, row: int) -> str | None:
        return None

    def snapshot(self, raw: bytes | str, row: int, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        out.append(refused(self.feed, "books come by the stream", raw, ts_recv_ns))

    # --- what we hear ----------------------------------------------------------------------------

    def decode(self, raw: bytes | str, ts_recv_ns: int, out: list[AnyEvent]) -> bytes | None:
        raw = raw.encode() if isinstance(raw, str) else raw
        try:
            if raw.startswith(_BOOK_HEAD) and self._books(_book_message(raw), ts_recv_ns, out):
                return None
            if raw == b"pong":
                out.append(FeedAlive(ts_recv_ns, self.feed, self.account, False))
            else:
                self._other(_message(raw), raw, ts_recv_ns, out)
        except (msgspec.MsgspecError, InvariantViolation, ValueError, RecursionError) as error:
            out.append(refused(self.feed, str(error), raw, ts_recv_ns))
        return None

    def _other(self, message: Message, raw: bytes, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        if message.event:
            self._answered(message, raw, ts_recv_ns, out)
            return
        arg = message.arg or Arg()
        route = self._routes.get((arg.channel, arg.inst_id or arg.inst_family))
        if route is not None:
            read, handler, known = route
            handler(read(message.data), known, ts_recv_ns, out)
        elif arg.channel != "books" or not self._books(_book_message(raw), ts_recv_ns, out):
            out.append(refused(self.feed, f"not subscribed: {arg.channel} {arg.inst_id}", raw, ts_recv_ns))

    def _answered(self, message: Message, raw: bytes, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        """A channel that is not granted must not cost us the others; a book that cannot be had again shuts all."""
        if message.event == "subscribe" and message.arg is not None:
            self._granted.add((message.arg.channel, message.arg.inst_id or message.arg.inst_family))
        elif message.event in ("error", "notice"):
            out.append(refused(self.feed, f"{message.event}: {message.code} {message.msg}", raw, ts_recv_ns))
        if message.event == "error":
            self._denied += 1
            self._shut = self._shut or self.ready
            self.ready = False
        elif not (self.ready or self._shut) and len(self._granted) + self._denied >= len(self._channels):
            self.ready = True
            rows = tuple(row for row in self.rows if ("books", self._name[row]) in self._granted)
            out.append(FeedOpened(ts_recv_ns, self.feed, self.account, False, rows))

    # --- books -----------------------------------------------------------------------------------

    def _books(self, message: BookMessage, ts_recv_ns: int, out: list[AnyEvent]) -> bool:
        """False where it is no book of ours."""
        row = self._row.get(message.arg.inst_id)
        if row is None or not message.data:
            return False
        snapshot = message.action == "snapshot"
        for book in message.data:
            ts_ns = book.ts * NS_PER_MS
            last, previous = self._numbers(book, snapshot, row)
            if last == previous == self._last.get(row) and not snapshot:  # nothing moved for a minute
                out.append(FeedAlive(ts_recv_ns, self.feed, self.account, False))
                continue
            self._last[row] = last
            bids, asks = self._levels(book, snapshot, row)
            if snapshot:
                out.append(BookSnapshot(ts_recv_ns, ts_ns, row, last, bids, asks))
            else:
                out.append(BookDelta(ts_recv_ns, ts_ns, row, last, last, previous, bids, asks))
        return True

    def _numbers(self, book: BookData, snapshot: bool, row: int) -> tuple[int, int]:
        """Numbers of this change and of the one before it, ever growing.

        After maintenance the venue's begin again: then seqId is below the prevSeqId it still names, and the
        chain goes on. Recordings without numbers are taken as complete.
        """
        if book.seq_id is None or book.prev_seq_id is None:
            before = self._last.get(row, 0)
            return before + 1, before
        if snapshot:
            self._shift[row] = 0
            return book.seq_id, book.prev_seq_id
        shift = self._shift.get(row, 0)
        previous = book.prev_seq_id + shift
        if book.seq_id < book.prev_seq_id:
            shift = self._shift[row] = previous + 1 - book.seq_id
        return book.seq_id + shift, previous

    def _levels(self, book: BookData, snapshot: bool, row: int) -> tuple[list[Level], list[Level]]:
        """Bids and asks as numbers; no number where the checksum disproves the book they lead to."""
        bids = [(float(level.price), float(level.amount)) for level in book.bids]
        asks = [(float(level.price), float(level.amount)) for level in book.asks]
        if snapshot:
            self._words.pop(row, None)
            if book.checksum:
                self._words[row] = Words(1.0), Words(-1.0)
        words = self._words.get(row)
        if words is None:
            return bids, asks
        for side, levels, told in ((words[0], bids, book.bids), (words[1], asks, book.asks)):
            for (price, amount), level in zip(levels, told, strict=True):
                side.put(price, amount, f"{level.price}:{level.amount}")
        if book.checksum and checksum(*words) != book.checksum:
            del self._words[row]  # what follows is not to be proved until a snapshot
            return [(NAN, NAN)], []
        return bids, asks

    # --- the rest --------------------------------------------------------------------------------

    def _ticker(self, data: list[TickerData], row: int, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        for t in data:
            bid, bid_amount, ask, ask_amount = (float(text or 0.0) for text in (t.bid_px, t.bid_sz, t.ask_px, t.ask_sz))
            ts_ns = t.ts * NS_PER_MS
            out.append(QuoteUpdated(ts_recv_ns, ts_ns, row, bid or NAN, bid_amount, ask or NAN, ask_amount))

    def _trades(self, data: list[TradeData], row: int, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        out.extend(TradePrinted(ts_recv_ns, t.ts * NS_PER_MS, row, t.trade_id, t.side, t.px, t.sz) for t in data)

    def _mark(self, data: list[MarkData], row: int, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        """Index and funding come by channels of their own, and go on with the next mark."""
        index = self._index_price.get(self._index_of[row], NAN)
        funding = self._funding_8h.get(row, NAN)
        out.extend(MarkUpdated(ts_recv_ns, m.ts * NS_PER_MS, row, m.mark_px, index, funding) for m in data)

    def _funding(self, data: list[FundingData], row: int, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        for f in data:
            interval_ms = int(f.next_funding_time or 0) - f.funding_time
            per_8h = EIGHT_HOURS_MS / interval_ms if interval_ms > 0 else 1.0
            self._funding_8h[row] = float(f.funding_rate) * per_8h if f.funding_rate else NAN

    def _index(self, data: list[IndexData], name: str, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        for i in data:
            self._index_price[name] = i.idx_px
            currency, _, quote = name.partition("-")
            if quote == "USD":
                out.append(IndexUpdated(ts_recv_ns, i.ts * NS_PER_MS, self.account, currency, i.idx_px))

    def _summary(self, data: list[Summary], _: None, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        for summary in data:
            row = self._row.get(summary.inst_id)
            if row is not None:  # the channel brings the whole family
                self.summaries[row] = summary


def _request(op: str, channels: Iterable[tuple[str, str]]) -> bytes:
    args = [{"channel": c, "instFamily" if c == "opt-summary" else "instId": name} for c, name in channels]
    return msgspec.json.encode({"op": op, "args": args})


def _index(instrument: Instrument) -> str:
    """Name of the index a contract settles by, which for options is their family, too."""
    quote = "USD" if instrument.kind is Kind.OPTION else instrument.quote_currency
    return f"{instrument.underlying}-{quote}"


def sockets(universe: Universe, account: int, feed: str = "okx") -> list[Socket]:
    """The one connection of an account's market data."""
    return [Socket(PATH, Okx(universe, account, feed=feed))]
