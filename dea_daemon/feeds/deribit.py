"""Deribit: market data and the account's own stream, JSON-RPC over a websocket.

Books come as a snapshot and changes linked by prev_change_id; a fresh snapshot is had by subscribing again.
A connection that is authenticated may ask for raw books; others get changes each 100 ms.

Source: Deribit API v2, "Subscriptions", "Heartbeat", public/auth (grant_type client_signature).
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

from dea_daemon.domain.errors import InvariantViolation, VenueError
from dea_daemon.domain.events import (
    AnyEvent,
    BookDelta,
    BookSnapshot,
    FeedAlive,
    FeedOpened,
    IndexUpdated,
    Level,
    MarkUpdated,
    PoolUpdated,
    QuoteUpdated,
    TradePrinted,
)
from dea_daemon.domain.instruments import Side, Universe
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.feeds.codec import NAN, Socket, refused
from dea_daemon.feeds.deribit_mapping import fill_from, order_from, pool_from

HEARTBEAT_S = 10  # the least Deribit allows
Interval = Literal["raw", "100ms"]

_NOTHING = msgspec.Raw()
_HEARTBEAT, _AUTH, _SUBSCRIBE, _TEST, _AGAIN = 1, 2, 3, 4, 5  # ids of what we send
_TEST_MESSAGE = msgspec.json.encode({"jsonrpc": "2.0", "id": _TEST, "method": "public/test", "params": {}})


class Params(msgspec.Struct, gc=False):
    channel: str = ""
    data: msgspec.Raw = _NOTHING
    type: str = ""  # of a heartbeat


class RpcError(msgspec.Struct):
    code: int
    message: str = ""


class Message(msgspec.Struct, gc=False):
    """A notification, a heartbeat, or the answer to something we sent."""

    method: str = ""
    params: Params | None = None
    id: int | None = None
    result: msgspec.Raw = _NOTHING  # a union with Raw is not a thing msgspec reads
    error: RpcError | None = None


class BookData(msgspec.Struct, gc=False):
    type: Literal["snapshot", "change"]
    timestamp: int
    change_id: int
    bids: list[tuple[str, float, float]]  # new, change or delete; price; amount
    asks: list[tuple[str, float, float]]
    prev_change_id: int | None = None


class TickerData(msgspec.Struct, gc=False):
    timestamp: int
    mark_price: float
    best_bid_price: float | None = None
    best_bid_amount: float | None = None
    best_ask_price: float | None = None
    best_ask_amount: float | None = None
    index_price: float | None = None
    current_funding: float | None = None
    funding_8h: float | None = None
    open_interest: float | None = None


class TradeData(msgspec.Struct, gc=False):
    timestamp: int
    trade_id: str
    direction: Side
    price: float
    amount: float


class IndexData(msgspec.Struct, gc=False):
    timestamp: int
    price: float


class ChangesData(msgspec.Struct):
    trades: list[dict[str, Any]] = []
    orders: list[dict[str, Any]] = []


class BookParams(msgspec.Struct, gc=False):
    channel: str
    data: BookData


class BookNotice(msgspec.Struct, gc=False):
    params: BookParams


class TickerParams(msgspec.Struct, gc=False):
    channel: str
    data: TickerData


class TickerNotice(msgspec.Struct, gc=False):
    params: TickerParams


_message = msgspec.json.Decoder(Message).decode
_book = msgspec.json.Decoder(BookData).decode
_ticker = msgspec.json.Decoder(TickerData).decode
_trades = msgspec.json.Decoder(list[TradeData]).decode
_index = msgspec.json.Decoder(IndexData).decode
_changes = msgspec.json.Decoder(ChangesData).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode
_names = msgspec.json.Decoder(list[str]).decode

# Nearly all messages are books and tickers, and begin so: their kind is known before they are decoded, and one
# pass does. Any other order of keys takes the general way, with the same outcome.
_HEAD = b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"'
_KIND = slice(len(_HEAD), len(_HEAD) + 5)
_at_once: dict[bytes, Callable[[bytes], BookNotice | TickerNotice]] = {
    b"book.": msgspec.json.Decoder(BookNotice).decode,
    b"ticke": msgspec.json.Decoder(TickerNotice).decode,
}

Handler = Callable[[Any, Any, int, list[AnyEvent]], None]
Routes = dict[str, tuple[Callable[[msgspec.Raw], Any], Handler, Any]]


class Deribit:
    """One Deribit socket. Implements feeds.codec.Codec.

    With `private` it carries the account (orders, fills, pools), else the market data of the account's rows.
    With a key it authenticates first; `interval` raw needs that.
    """

    heartbeat = None  # the venue asks, and decode answers

    def __init__(
        self,
        universe: Universe,
        account: int,
        *,
        private: bool = False,
        interval: Interval = "100ms",
        client_id: str = "",
        client_secret: str = "",
        feed: str = "deribit",
        held: Iterable[str] = (),
    ) -> None:
        self.feed = feed
        self.account = account
        self.private = private
        self.ready = False
        self._universe = universe
        self._interval = interval
        self._held = tuple(held)
        self._client_id = client_id
        self._secret = client_secret
        self._names = {
            row: instrument.name
            for row, instrument in enumerate(universe.instruments)
            if universe.account[row] == account
        }
        self.rows = () if private else tuple(self._names)
        # By channel: its decoder, who reads what that gives, and what he has to know of it.
        self._channels = self._account_channels() if private else self._market_channels()
        # Deribit answers user.portfolio.BTC with user.portfolio.btc.
        self._routes = self._channels | {name.lower(): route for name, route in self._channels.items()}

    # --- what we send ----------------------------------------------------------------------------

    def hello(self, utc_ms: int, nonce: str) -> list[bytes]:
        self.ready = False
        heartbeat = _request(_HEARTBEAT, "public/set_heartbeat", {"interval": HEARTBEAT_S})
        if not self._client_id:
            return [heartbeat, self._subscribe()]
        signed = f"{utc_ms}\n{nonce}\n".encode()
        auth = {
            "grant_type": "client_signature",
            "client_id": self._client_id,
            "timestamp": utc_ms,
            "nonce": nonce,
            "data": "",
            "signature": hmac.new(self._secret.encode(), signed, hashlib.sha256).hexdigest(),
        }
        return [heartbeat, _request(_AUTH, "public/auth", auth)]

    def resubscribe(self, row: int) -> list[bytes]:
        if row not in self.rows:
            return []
        channels = {"channels": [self._book_channel(row)]}
        return [
            _request(_AGAIN, "public/unsubscribe", channels),
            _request(_AGAIN, "public/subscribe", channels),
        ]

    def snapshot_path(self, row: int) -> str | None:
        return None

    def snapshot(self, raw: bytes | str, row: int, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        out.append(refused(self.feed, "books come by the stream", raw, ts_recv_ns))

    def _book_channel(self, row: int) -> str:
        return f"book.{self._names[row]}.{self._interval}"

    def _subscribe(self) -> bytes:
        method = "private/subscribe" if self.private else "public/subscribe"
        return _request(_SUBSCRIBE, method, {"channels": list(self._channels)})

    def _market_channels(self) -> Routes:
        routes: Routes = {}
        for row, name in self._names.items():
            routes[self._book_channel(row)] = (_book, self._book, row)
            routes[f"ticker.{name}.{self._interval}"] = (_ticker, self._ticker, row)
            routes[f"trades.{name}.{self._interval}"] = (_trades, self._trades, row)
        for index, currency in _indices(self._universe, self._names, self._held):
            routes[f"deribit_price_index.{index}"] = (_index, self._index, currency)
        return routes

    def _account_channels(self) -> Routes:
        currencies = dict.fromkeys(self._universe.instruments[row].settle_currency for row in self._names)
        routes: Routes = {}
        for currency in currencies:
            routes[f"user.changes.any.{currency}.raw"] = (_changes, self._user_changes, None)
            routes[f"user.portfolio.{currency}"] = (_object, self._portfolio, None)
        return routes

    # --- what we hear ----------------------------------------------------------------------------

    def decode(self, raw: bytes | str, ts_recv_ns: int, out: list[AnyEvent]) -> bytes | None:
        raw = raw.encode() if isinstance(raw, str) else raw
        try:
            at_once = _at_once.get(raw[_KIND]) if raw.startswith(_HEAD) else None
            if at_once is not None:
                notice = at_once(raw).params
                route = self._routes.get(notice.channel)
                if route is not None:
                    route[1](notice.data, route[2], ts_recv_ns, out)
                    return None
            message = _message(raw)
            params = message.params
            if params is None:
                return self._answered(message, raw, ts_recv_ns, out)
            route = self._routes.get(params.channel)
            if route is not None:
                read, handler, known = route
                handler(read(params.data), known, ts_recv_ns, out)
                return None
            if message.method == "heartbeat":
                out.append(FeedAlive(ts_recv_ns, self.feed, self.account, self.private))
                return _TEST_MESSAGE if params.type == "test_request" else None
            why = f"not subscribed: {params.channel}"
        except (msgspec.MsgspecError, VenueError, InvariantViolation, RecursionError) as error:
            why = str(error)
        out.append(refused(self.feed, why, raw, ts_recv_ns))
        return None

    def _answered(self, message: Message, raw: bytes | str, ts_recv_ns: int, out: list[AnyEvent]) -> bytes | None:
        if message.error is not None:
            # A book that cannot be had again (the session's token ran out): shut, so that all begins anew.
            self.ready = self.ready and message.id != _AGAIN
            what = {_AUTH: "authentication", _SUBSCRIBE: "subscription"}.get(message.id or 0, "request")
            why = f"{what} refused: {message.error.code} {message.error.message}"
            out.append(refused(self.feed, why, raw, ts_recv_ns))
        elif not bytes(message.result):
            out.append(refused(self.feed, "neither a notification nor an answer", raw, ts_recv_ns))
        elif message.id == _AUTH:
            return self._subscribe()
        elif message.id == _SUBSCRIBE:
            self._subscribed(_names(message.result), raw, ts_recv_ns, out)
        return None

    def _subscribed(self, names: list[str], raw: bytes | str, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        """The venue leaves out channels it does not grant: an expired contract's must not cost us the others,
        but an account is heard whole or not at all."""
        granted = {name.lower() for name in names}
        missing = [name for name in self._channels if name.lower() not in granted]
        if missing:
            out.append(refused(self.feed, f"{len(missing)} not granted: {missing[0]}", raw, ts_recv_ns))
        self.ready = bool(granted) and not (missing and self.private)
        if self.ready:
            rows = tuple(row for row in self.rows if self._book_channel(row).lower() in granted)
            out.append(FeedOpened(ts_recv_ns, self.feed, self.account, self.private, rows))

    def _book(self, book: BookData, row: int, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        ts_ns = book.timestamp * NS_PER_MS
        bids, asks = _levels(book.bids), _levels(book.asks)
        last = book.change_id
        if book.type == "snapshot":
            out.append(BookSnapshot(ts_recv_ns, ts_ns, row, last, bids, asks))
        elif book.prev_change_id is None:
            raise VenueError("a book change without prev_change_id")
        else:
            out.append(BookDelta(ts_recv_ns, ts_ns, row, last, last, book.prev_change_id, bids, asks))

    def _ticker(self, t: TickerData, row: int, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        ts_ns = t.timestamp * NS_PER_MS
        # current_funding is the rate now, funding_8h the mean of the last eight hours; both per 8 hours.
        funding = t.funding_8h if t.current_funding is None else t.current_funding
        out.append(
            MarkUpdated(
                ts_recv_ns,
                ts_ns,
                row,
                t.mark_price,
                NAN if t.index_price is None else t.index_price,
                NAN if funding is None else funding,
                NAN if t.open_interest is None else t.open_interest,
            )
        )
        out.append(
            QuoteUpdated(
                ts_recv_ns,
                ts_ns,
                row,
                t.best_bid_price or NAN,  # 0 where there is none
                t.best_bid_amount or 0.0,
                t.best_ask_price or NAN,
                t.best_ask_amount or 0.0,
            )
        )

    def _trades(self, trades: list[TradeData], row: int, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        for t in trades:
            ts_ns = t.timestamp * NS_PER_MS
            out.append(TradePrinted(ts_recv_ns, ts_ns, row, t.trade_id, t.direction, t.price, t.amount))

    def _index(self, index: IndexData, currency: str, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        out.append(IndexUpdated(ts_recv_ns, index.timestamp * NS_PER_MS, self.account, currency, index.price))

    def _user_changes(self, changes: ChangesData, _: None, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        """Fills first, then what became of their orders: an order's end is its last news."""
        told = [fill_from(info, self._universe, self.account, ts_recv_ns) for info in changes.trades]
        seen = [order_from(info, self._universe, self.account, ts_recv_ns) for info in changes.orders]
        known = [event for event in (*told, *seen) if event is not None]
        out.extend(known)
        if len(known) < len(told) + len(seen):
            raise VenueError("our account traded a contract outside the universe")

    def _portfolio(self, info: dict[str, Any], _: None, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        out.append(PoolUpdated(ts_recv_ns, self.account, pool_from(info)))


def _request(number: int, method: str, params: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def _levels(entries: list[tuple[str, float, float]]) -> list[Level]:
    return [(price, 0.0 if action == "delete" else amount) for action, price, amount in entries]


def _indices(universe: Universe, rows: Iterable[int], held: Iterable[str]) -> list[tuple[str, str]]:
    """Name and currency of each underlying's index: btc_usd, or sol_usdc if all its contracts are linear. `held`
    are currencies with a balance, whose worth counts although nothing is traded in them."""
    linear: dict[str, bool] = {}
    for row in rows:
        instrument = universe.instruments[row]
        linear[instrument.underlying] = linear.get(instrument.underlying, True) and (
            instrument.settle_currency == instrument.quote_currency != instrument.underlying
        )
    for currency in held:
        linear.setdefault(currency, False)
    return [
        (f"{currency.lower()}_{'usdc' if only_linear else 'usd'}", currency) for currency, only_linear in linear.items()
    ]


def sockets(
    universe: Universe,
    account: int,
    client_id: str = "",
    client_secret: str = "",
    feed: str = "deribit",
    held: Iterable[str] = (),
) -> list[Socket]:
    """One connection for market data and, with a key, one for the account; with a key books are raw."""
    if not client_id:
        return [Socket("", Deribit(universe, account, feed=feed))]

    def connection(name: str, private: bool) -> Socket:
        codec = Deribit(
            universe,
            account,
            private=private,
            interval="raw",
            client_id=client_id,
            client_secret=client_secret,
            feed=name,
            held=held,
        )
        return Socket("", codec)

    return [connection(feed, private=False), connection(f"{feed}.private", private=True)]
