"""Subscription channels: from the venue's events to what each stream says next.

A channel is the same for all its subscribers. Raw ones speak at every publication, the others every 100 ms.
Source: docs.deribit.com, Subscriptions; the book's change_id chain as in recorded streams.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from dea_daemon.domain.instruments import Side
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.simvenue.deribit import encodings
from dea_daemon.simvenue.deribit.call import Market
from dea_daemon.simvenue.deribit.encodings import Contract, ms
from dea_daemon.simvenue.deribit.session import Json
from dea_daemon.simvenue.words import (
    BookChanged,
    Filled,
    IndexChanged,
    Liquidated,
    OrderChanged,
    PortfolioChanged,
    Settled,
    TickerChanged,
    Traded,
    VenueEvent,
)  # fmt: skip

PERIOD_NS = 100 * NS_PER_MS
INTERVALS = ("raw", "100ms", "agg2")
Topic = tuple[str, str]


def topic(event: VenueEvent) -> Topic:
    """What an event is about; channels listen to topics."""
    match event:
        case BookChanged(instrument=name) | Traded(instrument=name):
            return type(event).__name__, name
        case TickerChanged(ticker=ticker):
            return "TickerChanged", ticker.instrument
        case IndexChanged(currency=currency):
            return "IndexChanged", currency
        case OrderChanged(order=order):
            return "user", order.account
        case Filled(fill=fill):
            return "user", fill.account
        case PortfolioChanged(account=account) | Settled(account=account) | Liquidated(account=account):
            return "user", account
    return "", ""


class Channel(ABC):
    """One stream. `absorb` events of its topics, `drain` what to say; `first` is for a newcomer."""

    topics: tuple[Topic, ...]

    def __init__(self, name: str, interval: str) -> None:
        self.name = name
        self.raw = interval == "raw"

    def first(self) -> list[Json]:
        """The state of things, where the venue tells it at once."""
        return []

    @abstractmethod
    def absorb(self, event: VenueEvent) -> None:
        """Take in what it says of this channel's topics."""

    @abstractmethod
    def drain(self) -> list[Json]:
        """What to say since the last time."""


class BookChannel(Channel):
    """book.{instrument}.{interval}: a snapshot, then changes. It keeps the book as its subscribers have it."""

    def __init__(self, name: str, interval: str, market: Market, contract: Contract) -> None:
        super().__init__(name, interval)
        self._contract = contract
        book = market.exchange.book(contract.instrument.name)
        self.topics = (("BookChanged", book.instrument),)
        self._sides: dict[Side, dict[int, int]] = {Side.BUY: dict(book.bids), Side.SELL: dict(book.asks)}
        self._before: dict[tuple[Side, int], int] = {}  # touched levels, as last told
        self._told_id, self._change_id, self._ts_ns = book.change_id, book.change_id, book.ts_ns
        self._ready: list[Json] = []

    def absorb(self, event: VenueEvent) -> None:
        if not isinstance(event, BookChanged) or event.change_id <= self._change_id:
            return
        for side, changes in ((Side.BUY, event.bids), (Side.SELL, event.asks)):
            lots_at = self._sides[side]
            for ticks, lots in changes:
                self._before.setdefault((side, ticks), lots_at.get(ticks, 0))
                if lots:
                    lots_at[ticks] = lots
                else:
                    lots_at.pop(ticks, None)
        self._change_id, self._ts_ns = event.change_id, event.ts_ns
        if self.raw:
            self._ready.append(self._change())

    def drain(self) -> list[Json]:
        if self._before:
            self._ready.append(self._change())
        ready, self._ready = self._ready, []
        return ready

    def first(self) -> list[Json]:
        bids = sorted(self._sides[Side.BUY].items(), reverse=True)
        asks = sorted(self._sides[Side.SELL].items())
        sides = {
            "bids": [["new", *level] for level in encodings.levels(self._contract, bids)],
            "asks": [["new", *level] for level in encodings.levels(self._contract, asks)],
        }
        return [self._head("snapshot") | sides]

    def _head(self, kind: str) -> Json:
        return {
            "type": kind,
            "timestamp": ms(self._ts_ns),
            "instrument_name": self._contract.instrument.name,
            "change_id": self._change_id,
        }

    def _change(self) -> Json:
        """All levels that differ from what was told; the message also moves the chain where none does."""
        told: dict[Side, list[Json]] = {Side.BUY: [], Side.SELL: []}
        for (side, ticks), before in self._before.items():
            lots = self._sides[side].get(ticks, 0)
            if lots != before:
                action = "delete" if not lots else "change" if before else "new"
                told[side].append([action, self._contract.price(ticks), self._contract.amount(lots)])
        change = self._head("change") | {"prev_change_id": self._told_id}
        self._before.clear()
        self._told_id = self._change_id
        return change | {"bids": told[Side.BUY], "asks": told[Side.SELL]}


class GroupedBookChannel(Channel):
    """book.{instrument}.{group}.{depth}.{interval}: the top of the book, prices rounded outward to a group."""

    def __init__(self, name: str, market: Market, contract: Contract, group: str, depth: int) -> None:
        super().__init__(name, "100ms")
        self._market, self._contract, self._depth = market, contract, depth
        self.topics = (("BookChanged", contract.instrument.name),)
        tick = float(contract.instrument.tick_size)
        unit = 100.0 if contract.instrument.underlying == "ETH" else 1.0
        self._ticks = 1 if group == "none" else max(round(int(group) / unit / tick), 1)
        self._stale = False

    def absorb(self, event: VenueEvent) -> None:
        self._stale = True

    def drain(self) -> list[Json]:
        stale, self._stale = self._stale, False
        return self.first() if stale and self._market.lists(self._contract) else []

    def first(self) -> list[Json]:
        book = self._market.exchange.book(self._contract.instrument.name)
        return [
            {
                "timestamp": ms(book.ts_ns),
                "instrument_name": book.instrument,
                "change_id": book.change_id,
                "bids": encodings.levels(self._contract, self._grouped(book.bids, up=False)),
                "asks": encodings.levels(self._contract, self._grouped(book.asks, up=True)),
            }
        ]

    def _grouped(self, side: list[tuple[int, int]], *, up: bool) -> list[tuple[int, int]]:
        grouped: dict[int, int] = {}
        for ticks, lots in side:
            price = (-(-ticks // self._ticks) if up else ticks // self._ticks) * self._ticks
            if price not in grouped and len(grouped) == self._depth:
                break
            grouped[price] = grouped.get(price, 0) + lots
        return list(grouped.items())


class TickerChannel(Channel):
    """ticker.{instrument}.{interval}: the latest ticker."""

    def __init__(self, name: str, interval: str, market: Market, contract: Contract) -> None:
        super().__init__(name, interval)
        self._market, self._contract = market, contract
        self.topics = (("TickerChanged", contract.instrument.name),)
        self._latest: list[Json] = []

    def absorb(self, event: VenueEvent) -> None:
        if isinstance(event, TickerChanged):
            self._latest = [encodings.ticker(self._contract, event.ticker, self._market.exchange.scenario)]

    def drain(self) -> list[Json]:
        latest, self._latest = self._latest, []
        return latest

    def first(self) -> list[Json]:
        exchange = self._market.exchange
        return [encodings.ticker(self._contract, exchange.ticker(self._contract.instrument.name), exchange.scenario)]


class QuoteChannel(Channel):
    """quote.{instrument}: the top of the book, when it changed."""

    def __init__(self, name: str, market: Market, contract: Contract) -> None:
        super().__init__(name, "raw")
        self._market, self._contract = market, contract
        self.topics = (("BookChanged", contract.instrument.name),)
        self._told: Json = None
        self._stale = False

    def absorb(self, event: VenueEvent) -> None:
        self._stale = True

    def drain(self) -> list[Json]:
        stale, self._stale = self._stale, False
        if not stale or not self._market.lists(self._contract):
            return []
        before, now = self._told, self.first()
        same = before is not None and now[0] | {"timestamp": 0} == before | {"timestamp": 0}
        return [] if same else now

    def first(self) -> list[Json]:
        self._told = encodings.quote(self._contract, self._market.exchange.book(self._contract.instrument.name, 1))
        return [self._told]


class IndexChannel(Channel):
    """deribit_price_index.{index_name}."""

    def __init__(self, name: str, market: Market, currency: str) -> None:
        super().__init__(name, "raw")
        self._market, self._currency = market, currency
        self.topics = (("IndexChanged", currency),)
        self._latest: list[Json] = []

    def _said(self, ts_ns: int, price: float) -> list[Json]:
        return [{"timestamp": ms(ts_ns), "price": price, "index_name": self.name.partition(".")[2]}]

    def absorb(self, event: VenueEvent) -> None:
        if isinstance(event, IndexChanged):
            self._latest = self._said(event.ts_ns, event.price)

    def drain(self) -> list[Json]:
        latest, self._latest = self._latest, []
        return latest

    def first(self) -> list[Json]:
        exchange = self._market.exchange
        return self._said(exchange.now_ns, exchange.index_price(self._currency))


class TradesChannel(Channel):
    """trades.{instrument}.{interval} and trades.{kind}.{currency}.{interval}: a list of public trades."""

    def __init__(self, name: str, interval: str, contracts: Iterable[Contract]) -> None:
        super().__init__(name, interval)
        self._contracts = {contract.instrument.name: contract for contract in contracts}
        self.topics = tuple(("Traded", instrument) for instrument in self._contracts)
        self._trades: list[Json] = []

    def absorb(self, event: VenueEvent) -> None:
        if isinstance(event, Traded):
            self._trades.append(encodings.trade(self._contracts[event.instrument], event))

    def drain(self) -> list[Json]:
        trades, self._trades = self._trades, []
        return [trades] if trades else []


class PortfolioChannel(Channel):
    """user.portfolio.{currency}: one margin pool's summary, or each one's."""

    def __init__(self, name: str, market: Market, account: str, currency: str) -> None:
        super().__init__(name, "raw")
        self._market, self._account = market, account
        every = market.exchange.currencies()
        self._currencies = every if currency == "any" else [one for one in every if one == currency]
        self.topics = (("user", account),)
        self._latest: dict[str, Json] = {}

    def absorb(self, event: VenueEvent) -> None:
        if isinstance(event, PortfolioChanged) and event.summary.currency in self._currencies:
            self._latest[event.summary.currency] = encodings.summary(event.summary)

    def drain(self) -> list[Json]:
        latest, self._latest = self._latest, {}
        return list(latest.values())

    def first(self) -> list[Json]:
        exchange = self._market.exchange
        return [encodings.summary(exchange.summary(self._account, one)) for one in self._currencies]


@dataclass(slots=True)
class Changes:
    """What happened to an account in one contract since it was last told."""

    orders: list[Json] = field(default_factory=list)
    trades: list[Json] = field(default_factory=list)
    moved: bool = False


class UserChannel(Channel):
    """user.orders, user.trades and user.changes, of one contract or of a kind and currency.

    Orders come one by one when raw, else as a list; trades as a list; changes by contract, with the position
    where it moved.
    """

    def __init__(
        self, name: str, interval: str, market: Market, account: str, wanted: Callable[[Contract], bool]
    ) -> None:
        super().__init__(name, interval)
        self._market, self._account, self._wanted = market, account, wanted
        self._kind = name.split(".")[1]
        self.topics = (("user", account),)
        self._changes: dict[str, Changes] = {}

    def absorb(self, event: VenueEvent) -> None:
        match event:
            case OrderChanged(order=order):
                if changes := self._of(order.instrument):
                    changes.orders.append(encodings.order(self._market.contracts[order.instrument], order))
            case Filled(fill=fill):
                if changes := self._of(fill.instrument):
                    of_fill = self._market.order(self._account, fill.order_id)
                    changes.trades.append(encodings.fill(self._market.contracts[fill.instrument], fill, of_fill))
                    changes.moved = True
            case Settled(instrument=name) | Liquidated(instrument=name):
                if changes := self._of(name):
                    changes.moved = True

    def _of(self, name: str) -> Changes | None:
        if not self._wanted(self._market.contracts[name]):
            return None
        return self._changes.setdefault(name, Changes())

    def drain(self) -> list[Json]:
        changes, self._changes = self._changes, {}
        if self._kind == "changes":
            return [self._told(name, change) for name, change in changes.items()]
        if self._kind == "trades":
            trades = [trade for change in changes.values() for trade in change.trades]
            return [trades] if trades else []
        orders = [order for change in changes.values() for order in change.orders]
        return orders if self.raw or not orders else [orders]

    def _told(self, name: str, change: Changes) -> Json:
        positions = []
        if change.moved:
            positions = [self._market.position(self._account, name)]
        return {"instrument_name": name, "orders": change.orders, "trades": change.trades, "positions": positions}


def is_raw(name: str) -> bool:
    """Whether a channel is of the kind that the public gets only with a key."""
    return name.endswith(".raw")


def open_channel(name: str, market: Market, account: str) -> Channel | None:
    """The channel of that name for this account, None where there is no such."""
    head, *rest = name.split(".")
    live = {known: market.contracts[known] for known in market.exchange.instruments}
    match [head, *rest]:
        case ["book", known, interval] if known in live and interval in INTERVALS:
            return BookChannel(name, interval, market, live[known])
        case ["book", known, group, depth, "100ms" | "agg2"] if known in live and depth in ("1", "10", "20"):
            if group in ("none", "1", "2", "5", "10", "25", "100", "250"):
                return GroupedBookChannel(name, market, live[known], group, int(depth))
        case ["ticker", known, interval] if known in live and interval in INTERVALS:
            return TickerChannel(name, interval, market, live[known])
        case ["quote", known] if known in live:
            return QuoteChannel(name, market, live[known])
        case ["deribit_price_index", index]:
            for contract in live.values():
                if contract.index_name == index:
                    return IndexChannel(name, market, contract.instrument.underlying)
        case ["trades", *which, interval] if interval in INTERVALS and (wanted := _selection(which)):
            return TradesChannel(name, interval, [c for c in live.values() if wanted(c)])
        case ["user", "portfolio", currency] if account:
            return PortfolioChannel(name, market, account, currency.upper() if currency != "any" else currency)
        case ["user", "orders" | "trades" | "changes", *which, interval] if account and interval in INTERVALS:
            if wanted := _selection(which):
                return UserChannel(name, interval, market, account, wanted)
    return None


def _selection(which: list[str]) -> Callable[[Contract], bool] | None:
    """[instrument], or [kind, currency] with "any" allowed for both."""
    match which:
        case [name]:
            return lambda contract: contract.instrument.name == name
        case ["future" | "any", currency]:
            return lambda contract: currency in ("any", contract.instrument.settle_currency)
        case [_, _]:
            return lambda contract: False
    return None
