"""Deribit: market data and the account's own stream, JSON-RPC over a websocket.

Books come as a snapshot and changes linked by prev_change_id; a fresh snapshot is had by subscribing again.
A connection that is authenticated may ask for raw books; others get changes each 100 ms. Of an option we ask for
the ticker only (a chain has a thousand of them, and a ticker has what prices it); recorded books are read all the same.

Source: Deribit API v2, "Subscriptions", "Heartbeat", public/auth (grant_type client_signature).
"""

import hashlib
import hmac
from collections.abc import Callable, Collection, Iterable
from itertools import islice
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
    ListingChanged,
    MarkUpdated,
    OptionUpdated,
    PoolUpdated,
    QuoteUpdated,
    TradePrinted,
    VenueStateChanged,
)
from dea_daemon.domain.instruments import Kind, Universe
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.feeds.codec import NAN, Socket, refused
from dea_daemon.feeds.deribit_mapping import fill_from, order_from, pool_from
from dea_daemon.feeds.deribit_words import (
    AT_ONCE,
    HEAD,
    KIND,
    BookData,
    ChangesData,
    GreeksData,
    IndexData,
    Message,
    PlatformData,
    StateData,
    TickerData,
    TradeData,
    read_book,
    read_changes,
    read_index,
    read_message,
    read_names,
    read_object,
    read_platform,
    read_state,
    read_status,
    read_ticker,
    read_trades,
)

HEARTBEAT_S = 10  # the least Deribit allows
CHANNELS_MAX = 500  # in one request to subscribe
LISTINGS = ("instrument.state.future.any", "instrument.state.option.any")
PLATFORM = "platform_state"
REFUSED_KEY = (10000, 13004, 13009)  # authorization_required, invalid_credentials, unauthorized
Interval = Literal["raw", "100ms"]

_HEARTBEAT, _AUTH, _SUBSCRIBE, _TEST, _AGAIN, _STATUS, _STILL = 1, 2, 3, 4, 5, 6, 7  # ids of what we send
_NO_GREEKS = GreeksData()


def _request(number: int, method: str, params: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


_TEST_MESSAGE = _request(_TEST, "public/test", {})
_STATUS_MESSAGE = _request(_STATUS, "public/status", {})
# The least of the questions that only a session with a valid key has answered.
_STILL_MESSAGE = _request(_STILL, "private/get_cancel_on_disconnect", {})

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
        # By channel: its decoder, who reads what that gives, and what he has to know of it.
        self._routes: Routes = {}
        self._channels: dict[str, None] = {}  # those we ask for
        self._asked: set[str] = set()  # in the request that waits for its answer
        self._unasked: dict[str, None] = {}  # in requests still to come
        self._granted: set[str] = set()  # of what was asked since the feed last opened
        self._names: dict[int, str] = {}
        self._locked: frozenset[str] = frozenset()  # currencies, "" for the whole venue, as last told
        self._locked_indices: set[str] = set()
        self.rows: tuple[int, ...] = ()
        self._add(row for row in range(len(universe)) if universe.account[row] == account)

    # --- what we send ----------------------------------------------------------------------------

    def hello(self, utc_ms: int, nonce: str) -> list[bytes]:
        self.ready = False
        self._asked, self._granted, self._unasked = set(), set(), dict(self._channels)
        heartbeat = _request(_HEARTBEAT, "public/set_heartbeat", {"interval": HEARTBEAT_S})
        if not self._client_id:
            return [heartbeat, *self._subscribe()]
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
        if row not in self.rows or self._book_channel(row) not in self._channels:
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

    def join(self, rows: Iterable[int]) -> list[bytes]:
        self._unasked |= dict.fromkeys(self._add(rows))
        # Before the first answers what joined goes with the rest, or behind it.
        return self._subscribe() if self.ready and not self._asked else []

    def leave(self, rows: Iterable[int]) -> None:
        gone = [row for row in rows if self._names.pop(row, None) is not None]
        for name in (self._universe.instruments[row].name for row in gone):
            for channel in (f"{kind}.{name}.{self._interval}" for kind in ("book", "ticker", "trades")):
                self._channels.pop(channel, None)
                self._unasked.pop(channel, None)
        self.rows = () if self.private else tuple(self._names)

    def _subscribe(self) -> list[bytes]:
        """The next request: one at a time, so that a large chain neither floods the venue nor is one huge message."""
        chunk = list(islice(self._unasked, CHANNELS_MAX))
        self._asked = set(chunk)
        for channel in chunk:
            del self._unasked[channel]
        method = "private/subscribe" if self.private else "public/subscribe"
        return [_request(_SUBSCRIBE, method, {"channels": chunk})] if chunk else []

    def _add(self, rows: Iterable[int]) -> list[str]:
        """Take rows in; the channels that are new by them."""
        added = {row: self._universe.instruments[row].name for row in rows}
        self._names |= added
        self.rows = () if self.private else tuple(self._names)
        routes = self._account_routes(added) if self.private else self._market_routes(added)
        # Deribit answers user.portfolio.BTC with user.portfolio.btc.
        self._routes |= {name.lower(): route for name, route in routes.items()} | routes
        options = [name for row, name in added.items() if self._is_option(row)]
        unasked = {f"{kind}.{name}.{self._interval}" for name in options for kind in ("book", "trades")}
        new = [channel for channel in routes if channel not in self._channels and channel not in unasked]
        self._channels |= dict.fromkeys(new)
        return new

    def _is_option(self, row: int) -> bool:
        return self._universe.instruments[row].kind is Kind.OPTION

    def _market_routes(self, added: dict[int, str]) -> Routes:
        routes: Routes = {}
        for row, name in added.items():
            routes[self._book_channel(row)] = (read_book, self._book, row)
            ticker = self._option_ticker if self._is_option(row) else self._ticker
            routes[f"ticker.{name}.{self._interval}"] = (read_ticker, ticker, row)
            routes[f"trades.{name}.{self._interval}"] = (read_trades, self._trades, row)
        for index, currency in _indices(self._universe, self._names, self._held):
            routes[f"deribit_price_index.{index}"] = (read_index, self._index, currency)
        routes[PLATFORM] = (read_platform, self._platform, None)
        return routes | dict.fromkeys(LISTINGS, (read_state, self._listing, None))

    def _account_routes(self, added: dict[int, str]) -> Routes:
        currencies = dict.fromkeys(self._universe.instruments[row].settle_currency for row in added)
        routes: Routes = {}
        for currency in currencies:
            routes[f"user.changes.any.{currency}.raw"] = (read_changes, self._user_changes, None)
            routes[f"user.portfolio.{currency}"] = (read_object, self._portfolio, None)
        return routes

    # --- what we hear ----------------------------------------------------------------------------

    def decode(self, raw: bytes | str, ts_recv_ns: int, out: list[AnyEvent]) -> bytes | None:
        raw = raw.encode() if isinstance(raw, str) else raw
        try:
            at_once = AT_ONCE.get(raw[KIND]) if raw.startswith(HEAD) else None
            if at_once is not None:
                notice = at_once(raw).params
                route = self._routes.get(notice.channel)
                if route is not None:
                    route[1](notice.data, route[2], ts_recv_ns, out)
                    return None
            message = read_message(raw)
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
                if params.type == "test_request":
                    return _TEST_MESSAGE
                return _STILL_MESSAGE if self.private and self.ready else None
            why = f"not subscribed: {params.channel}"
        except (msgspec.MsgspecError, VenueError, InvariantViolation, RecursionError) as error:
            why = str(error)
        out.append(refused(self.feed, why, raw, ts_recv_ns))
        return None

    def _answered(self, message: Message, raw: bytes | str, ts_recv_ns: int, out: list[AnyEvent]) -> bytes | None:
        if message.error is not None:
            # A book that cannot be had again (the session's token ran out): shut, so that all begins anew.
            # So is a session whose key was taken away: its connection lives on, and says no more of the account.
            lost = message.id == _STILL and message.error.code in REFUSED_KEY
            self.ready = self.ready and message.id != _AGAIN and not lost
            if message.id == _SUBSCRIBE:  # rows that joined stay unheard until the next connection; others go on
                self._asked = set()
            what = {_AUTH: "authentication", _SUBSCRIBE: "subscription"}.get(message.id or 0, "request")
            why = f"{what} refused: {message.error.code} {message.error.message}"
            out.append(refused(self.feed, why, raw, ts_recv_ns))
        elif not bytes(message.result):
            out.append(refused(self.feed, "neither a notification nor an answer", raw, ts_recv_ns))
        elif message.id == _AUTH:
            return next(iter(self._subscribe()), None)
        elif message.id == _STATUS:
            self._status(message.result, ts_recv_ns, out)
        elif message.id == _SUBSCRIBE:
            return self._subscribed(read_names(message.result), raw, ts_recv_ns, out)
        return None

    def _subscribed(self, names: list[str], raw: bytes | str, ts_recv_ns: int, out: list[AnyEvent]) -> bytes | None:
        """The next request, or the feed is open: for all its rows, or for those that joined it.

        The venue leaves out channels it does not grant: an expired contract's must not cost us the others, but an
        account is heard whole or not at all."""
        granted = {name.lower() for name in names}
        missing = sorted(name for name in self._asked if name.lower() not in granted)
        if missing:
            out.append(refused(self.feed, f"{len(missing)} not granted: {missing[0]}", raw, ts_recv_ns))
        self._granted |= granted
        if self.private and missing:
            self.ready = False  # and what else there was to ask stays unasked: the socket begins anew
            return None
        if self._unasked:
            return next(iter(self._subscribe()))
        self._asked = set()
        heard, self._granted = self._granted, set()
        if heard:
            self.ready = True
            rows = tuple(row for row in self.rows if self._first_channel(row).lower() in heard)
            out.append(FeedOpened(ts_recv_ns, self.feed, self.account, self.private, rows))
        # Asked behind the subscription: no change falls between the two.
        return None if self.private else _STATUS_MESSAGE

    def _first_channel(self, row: int) -> str:
        """The one without which a row is not heard."""
        return f"ticker.{self._names[row]}.{self._interval}" if self._is_option(row) else self._book_channel(row)

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

    def _option_ticker(self, t: TickerData, row: int, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        self._ticker(t, row, ts_recv_ns, out)
        greeks = t.greeks or _NO_GREEKS
        out.append(
            OptionUpdated(
                ts_recv_ns,
                t.timestamp * NS_PER_MS,
                row,
                t.mark_iv / 100 if t.mark_iv else NAN,
                t.bid_iv / 100 if t.bid_iv else NAN,
                t.ask_iv / 100 if t.ask_iv else NAN,
                t.underlying_price or NAN,
                NAN if greeks.delta is None else greeks.delta,
                NAN if greeks.gamma is None else greeks.gamma,
                NAN if greeks.vega is None else greeks.vega,
                NAN if greeks.theta is None else greeks.theta,
            )
        )

    def _trades(self, trades: list[TradeData], row: int, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        for t in trades:
            ts_ns = t.timestamp * NS_PER_MS
            out.append(TradePrinted(ts_recv_ns, ts_ns, row, t.trade_id, t.direction, t.price, t.amount))

    def _index(self, index: IndexData, currency: str, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        out.append(IndexUpdated(ts_recv_ns, index.timestamp * NS_PER_MS, self.account, currency, index.price))

    def _listing(self, change: StateData, _: None, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        out.append(ListingChanged(ts_recv_ns, self.account, change.instrument_name, change.state))

    def _platform(self, told: PlatformData, _: None, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        """One index is locked or is not any more; or, with none, all of the venue."""
        name = told.price_index
        locked = told.locked if told.maintenance is None else told.maintenance
        if locked is None:
            raise VenueError("a platform_state that says neither locked nor maintenance")
        if locked:
            self._locked_indices.add(name)
        else:  # where one index is traded, the venue is not locked as a whole
            self._locked_indices -= {name, ""}
        self._tell_locked(ts_recv_ns, out)

    def _status(self, result: msgspec.Raw, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        """The whole of it, for who was not there when it was told. Indices by name where it names them: by these it
        tells the end."""
        status = read_status(result)
        whole = {""} if status.locked in (True, "true") else set()
        self._locked_indices = set(status.locked_indices) or whole
        self._tell_locked(ts_recv_ns, out)

    def _tell_locked(self, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        """What differs from what was told. A currency with two indices is locked while one of them is."""
        ours = ("", *self._universe.underlyings)
        now = {name.partition("_")[0].upper() for name in self._locked_indices}.intersection(ours)
        for currency in sorted(now ^ self._locked):
            is_open = currency not in now
            why = "trading is open again" if is_open else "the venue announced that trading is locked"
            out.append(VenueStateChanged(ts_recv_ns, self.account, is_open, why, currency))
        self._locked = frozenset(now)

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


def _levels(entries: list[tuple[str, float, float]]) -> list[Level]:
    return [(price, 0.0 if action == "delete" else amount) for action, price, amount in entries]


def _indices(universe: Universe, rows: Collection[int], held: Iterable[str]) -> list[tuple[str, str]]:
    """Name and currency of each underlying's index: btc_usd, or sol_usdc if all its contracts are linear; and of what
    they are settled in, usdc_usd. `held` are currencies with a balance, whose worth counts although nothing is traded
    in them. Of dollars there is none."""
    linear: dict[str, bool] = {}
    for row in rows:
        instrument = universe.instruments[row]
        linear[instrument.underlying] = linear.get(instrument.underlying, True) and (
            instrument.settle_currency == instrument.quote_currency != instrument.underlying
        )
    settled = (universe.instruments[row].settle_currency for row in rows)
    for currency in (*settled, *held):
        linear.setdefault(currency, False)
    linear.pop("USD", None)
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
