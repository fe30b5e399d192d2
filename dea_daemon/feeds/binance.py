"""Binance USD-M futures: public market data.

Since 2026-04 the sockets are routed: depth and bookTicker on /public, trades and markPrice on /market. The
stream has no book snapshot: it is asked for over HTTP and bridged to the deltas (U, u, pu) by the state room.

Source: Binance USD-M futures documentation, "WebSocket market streams", "How to manage a local order book".
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Literal

import msgspec

from dea_daemon.domain.errors import InvariantViolation, VenueError
from dea_daemon.domain.events import (
    AnyEvent,
    BookDelta,
    BookSnapshot,
    FeedOpened,
    Level,
    MarkUpdated,
    QuoteUpdated,
    TradePrinted,
)
from dea_daemon.domain.instruments import Instrument, Kind, Payoff, Side, Universe
from dea_daemon.domain.numbers import NS_PER_MS, as_decimal, ms_to_ns, to_lots
from dea_daemon.feeds.codec import NAN, Socket, refused

TradeStream = Literal["trade", "aggTrade"]
BOOK_DEPTH = 1_000  # levels a side in a snapshot: the most Binance gives
_SUBSCRIBE_ID = 1
_EIGHT_HOURS: Mapping[str, float] = MappingProxyType({})


class Depth(msgspec.Struct, tag_field="e", tag="depthUpdate", gc=False):
    symbol: str = msgspec.field(name="s")
    first: int = msgspec.field(name="U")
    last: int = msgspec.field(name="u")
    previous: int = msgspec.field(name="pu")
    bids: list[Level] = msgspec.field(name="b")
    asks: list[Level] = msgspec.field(name="a")
    ts_ms: int = msgspec.field(name="T")  # of the transaction, as in the snapshot; E is when it was sent


class BookTicker(msgspec.Struct, tag_field="e", tag="bookTicker", gc=False):
    symbol: str = msgspec.field(name="s")
    bid: float = msgspec.field(name="b")
    bid_amount: float = msgspec.field(name="B")
    ask: float = msgspec.field(name="a")
    ask_amount: float = msgspec.field(name="A")
    ts_ms: int = msgspec.field(name="T")


class Trade(msgspec.Struct, tag_field="e", tag="trade", gc=False):
    symbol: str = msgspec.field(name="s")
    trade_id: int = msgspec.field(name="t")
    price: float = msgspec.field(name="p")
    amount: float = msgspec.field(name="q")
    buyer_is_maker: bool = msgspec.field(name="m")
    ts_ms: int = msgspec.field(name="T")


class AggTrade(msgspec.Struct, tag_field="e", tag="aggTrade", gc=False):
    symbol: str = msgspec.field(name="s")
    trade_id: int = msgspec.field(name="a")
    price: float = msgspec.field(name="p")
    amount: float = msgspec.field(name="q")
    buyer_is_maker: bool = msgspec.field(name="m")
    ts_ms: int = msgspec.field(name="T")


class MarkPrice(msgspec.Struct, tag_field="e", tag="markPriceUpdate", gc=False):
    symbol: str = msgspec.field(name="s")
    mark_price: float = msgspec.field(name="p")
    index_price: float = msgspec.field(name="i")
    ts_ms: int = msgspec.field(name="E")
    funding_rate: float | Literal[""] = msgspec.field(name="r", default="")  # "" on contracts without funding


class _Unused(msgspec.Struct, tag_field="e", gc=False):
    """Base of messages that are known and of no use here: neither events nor refused."""


class Kline(_Unused, tag="kline"): ...


class ContinuousKline(_Unused, tag="continuous_kline"): ...


class Ticker(_Unused, tag="24hrTicker"): ...


class MiniTicker(_Unused, tag="24hrMiniTicker"): ...


class Liquidation(_Unused, tag="forceOrder"): ...


class ContractInfo(_Unused, tag="contractInfo"): ...


AnyMessage = (
    Depth | BookTicker | Trade | AggTrade | MarkPrice
    | Kline | ContinuousKline | Ticker | MiniTicker | Liquidation | ContractInfo
)  # fmt: skip


class Combined(msgspec.Struct, gc=False):
    """The envelope of a combined stream: {"stream": …, "data": …}."""

    data: AnyMessage


class Reply(msgspec.Struct):
    """Answer to SUBSCRIBE: {"result": null, "id": 1}, or an error."""

    id: int | None = None
    result: list[str] | None = None
    error: dict[str, int | str] | None = None
    code: int | None = None
    msg: str = ""


class Snapshot(msgspec.Struct):
    """GET /fapi/v1/depth."""

    sequence: int = msgspec.field(name="lastUpdateId")
    bids: list[Level]
    asks: list[Level]
    ts_ms: int = msgspec.field(name="T", default=0)


_combined = msgspec.json.Decoder(Combined, strict=False).decode
_bare = msgspec.json.Decoder(AnyMessage, strict=False).decode
_reply = msgspec.json.Decoder(Reply).decode
_snapshot = msgspec.json.Decoder(Snapshot, strict=False).decode


class Binance:
    """One Binance USD-M socket. Implements feeds.codec.Codec.

    `streams` are the suffixes to subscribe for every row. Trades come from one of `trade` and `aggTrade`,
    which report the same executions; the other is passed over. `funding_hours` is the interval of the
    contracts that do not pay every 8 hours (GET /fapi/v1/fundingInfo): a rate is per interval.
    """

    private = False
    heartbeat = None

    def __init__(
        self,
        universe: Universe,
        account: int,
        *,
        streams: Iterable[str] = ("depth@100ms", "bookTicker"),
        trades: TradeStream = "aggTrade",
        funding_hours: Mapping[str, float] = _EIGHT_HOURS,
        feed: str = "binanceusdm",
    ) -> None:
        self.feed = feed
        self.account = account
        self.ready = False
        mine = [row for row in range(len(universe)) if universe.account[row] == account]
        self._row = {universe.instruments[row].name: row for row in mine}
        self._name = {row: name for name, row in self._row.items()}
        self._streams = tuple(streams)
        self._funding_scale = {row: 8.0 / funding_hours.get(name, 8.0) for row, name in self._name.items()}
        self._trade = Trade if trades == "trade" else AggTrade
        self.rows = tuple(mine) if any(s.startswith("depth") for s in self._streams) else ()

    def hello(self, utc_ms: int, nonce: str) -> list[bytes]:
        self.ready = False
        names = [f"{name.lower()}@{stream}" for name in self._row for stream in self._streams]
        return [msgspec.json.encode({"method": "SUBSCRIBE", "params": names, "id": _SUBSCRIBE_ID})]

    def resubscribe(self, row: int) -> list[bytes]:
        return []

    def join(self, rows: Iterable[int]) -> list[bytes]:
        return []  # its contracts are listed at the start only

    def leave(self, rows: Iterable[int]) -> None:
        """Nothing ends here while a run lasts."""

    def snapshot_path(self, row: int) -> str | None:
        return f"/fapi/v1/depth?symbol={self._name[row]}&limit={BOOK_DEPTH}" if row in self.rows else None

    def snapshot(self, raw: bytes | str, row: int, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        try:
            book = _snapshot(raw)
        except (msgspec.MsgspecError, RecursionError) as error:
            out.append(refused(self.feed, f"unreadable snapshot: {error}", raw, ts_recv_ns))
            return
        out.append(BookSnapshot(ts_recv_ns, book.ts_ms * NS_PER_MS, row, book.sequence, book.bids, book.asks))

    def decode(self, raw: bytes | str, ts_recv_ns: int, out: list[AnyEvent]) -> bytes | None:
        raw = raw.encode() if isinstance(raw, str) else raw
        try:
            if raw.startswith(b'{"stream"'):
                message = _combined(raw).data
            elif b'"e":' in raw:
                message = _bare(raw)
            else:
                self._answered(raw, ts_recv_ns, out)
                return None
        except (msgspec.MsgspecError, RecursionError) as error:
            out.append(refused(self.feed, str(error), raw, ts_recv_ns))
            return None
        if isinstance(message, _Unused):
            return None
        row = self._row.get(message.symbol)
        if row is None:
            out.append(refused(self.feed, f"not subscribed: {message.symbol}", raw, ts_recv_ns))
            return None
        event = self._event(message, row, ts_recv_ns)
        if event is not None:
            out.append(event)
        return None

    def _event(
        self, message: Depth | BookTicker | Trade | AggTrade | MarkPrice, row: int, ts_recv_ns: int
    ) -> AnyEvent | None:
        # The commonest first: this is the hot path.
        ts_ns = message.ts_ms * NS_PER_MS
        if type(message) is BookTicker:
            m = message
            return QuoteUpdated(ts_recv_ns, ts_ns, row, m.bid or NAN, m.bid_amount, m.ask or NAN, m.ask_amount)
        if type(message) is Depth:
            d = message
            return BookDelta(ts_recv_ns, ts_ns, row, d.first, d.last, d.previous, d.bids, d.asks)
        if type(message) is MarkPrice:
            rate = message.funding_rate
            rate_8h = rate * self._funding_scale[row] if isinstance(rate, float) else NAN
            return MarkUpdated(ts_recv_ns, ts_ns, row, message.mark_price, message.index_price, rate_8h)
        if type(message) is self._trade:
            side = Side.SELL if message.buyer_is_maker else Side.BUY
            return TradePrinted(ts_recv_ns, ts_ns, row, str(message.trade_id), side, message.price, message.amount)
        return None

    def _answered(self, raw: bytes | str, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        reply = _reply(raw)
        if reply.id == _SUBSCRIBE_ID and reply.error is None and reply.code is None:
            self.ready = True
            out.append(FeedOpened(ts_recv_ns, self.feed, self.account, False, self.rows))
        else:
            out.append(refused(self.feed, "not an answer we expect", raw, ts_recv_ns))


def sockets(universe: Universe, account: int, feed: str = "binanceusdm") -> list[Socket]:
    """The two connections of one account's market data, one a routed class."""
    book = Binance(universe, account, streams=("depth@100ms", "bookTicker"), feed=f"{feed}.public")
    rest = Binance(universe, account, streams=("aggTrade", "markPrice@1s"), feed=f"{feed}.market")
    return [Socket("/public/stream", book), Socket("/market/stream", rest)]


class ListedContract(msgspec.Struct):
    """One row of GET /fapi/v1/exchangeInfo, `symbols`."""

    symbol: str
    contract_type: str = msgspec.field(name="contractType")
    status: str
    base: str = msgspec.field(name="baseAsset")
    quote: str = msgspec.field(name="quoteAsset")
    margin: str = msgspec.field(name="marginAsset")
    delivery_ms: int = msgspec.field(name="deliveryDate")
    filters: list[dict[str, str | int | bool]]


def instrument_from(info: Mapping[str, object], venue: str = "binanceusdm") -> Instrument:
    """One contract from a row of exchangeInfo. Fees are not in it: they stay 0.

    Raises VenueError if the row cannot be read.
    """
    try:
        listed = msgspec.convert(info, ListedContract, strict=False)
        limits = {str(f["filterType"]): f for f in listed.filters}
        lot_size = as_decimal(limits["LOT_SIZE"]["stepSize"])
        tick_size = as_decimal(limits["PRICE_FILTER"]["tickSize"])
        least = as_decimal(limits["LOT_SIZE"]["minQty"])
    except (msgspec.ValidationError, KeyError, InvariantViolation) as error:
        raise VenueError(f"unreadable contract: {error}") from error
    perpetual = "PERPETUAL" in listed.contract_type
    return Instrument(
        venue=venue,
        name=listed.symbol,
        kind=Kind.PERPETUAL if perpetual else Kind.FUTURE,
        payoff=Payoff.LINEAR,
        underlying=listed.base,
        quote_currency=listed.quote,
        settle_currency=listed.margin,
        margin_pool=listed.margin,
        contract_size=Decimal(1),
        lot_size=lot_size,
        tick_size=tick_size,
        min_lots=max(1, to_lots(least, lot_size, "up")),
        expiry_ns=0 if perpetual else ms_to_ns(listed.delivery_ms),
        tradable=listed.status == "TRADING",
    )
