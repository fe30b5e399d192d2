"""Subscription channels: from the venue's events to what each stream says next.

A channel is the same for all its subscribers. Raw ones speak at every publication, the others every 100 ms.
Source: docs.deribit.com, Subscriptions; the book's change_id chain as in recorded streams.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from dea_daemon.domain.instruments import Side
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.simvenue.deribit import encodings, options
from dea_daemon.simvenue.deribit.call import Market
from dea_daemon.simvenue.deribit.contract import Contract
from dea_daemon.simvenue.deribit.encodings import ms
from dea_daemon.simvenue.deribit.session import Json
from dea_daemon.simvenue.words import (
    BookChanged,
    Filled,
    IndexChanged,
    InstrumentChanged,
    Liquidated,
    OrderChanged,
    PortfolioChanged,
    Settled,
    Ticker,
    TickerChanged,
    Traded,
    TradingLocked,
    VenueEvent,
)  # fmt: skip

PERIOD_NS = 100 * NS_PER_MS
Wanted = Callable[[Contract], bool]
Topic = tuple[str, str]
EVERY = "*"  # of a topic: whatever the instrument, those listed later too


def topics(event: VenueEvent) -> tuple[Topic, ...]:
    """What an event is about; channels listen to topics."""
    match event:
        case BookChanged(instrument=name):
            return (("BookChanged", name),)
        case TickerChanged(ticker=ticker):
            return ("TickerChanged", ticker.instrument), ("TickerChanged", EVERY)
        case Traded(instrument=name):
            return ("Traded", name), ("Traded", EVERY)
        case InstrumentChanged():
            return (("InstrumentChanged", EVERY),)
        case TradingLocked():
            return (("TradingLocked", EVERY),)
        case IndexChanged(currency=currency):
            return (("IndexChanged", currency),)
        case OrderChanged(order=order):
            return (("user", order.account),)
        case Filled(fill=fill):
            return (("user", fill.account),)
        case PortfolioChanged(account=account) | Settled(account=account) | Liquidated(account=account):
            return (("user", account),)
    return ()


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
        return self.first() if stale else []

    def first(self) -> list[Json]:
        if not self._market.lists(self._contract):
            return []
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
        self._latest: Ticker | None = None

    def absorb(self, event: VenueEvent) -> None:
        if isinstance(event, TickerChanged):
            self._latest = event.ticker

    def drain(self) -> list[Json]:
        latest, self._latest = self._latest, None
        listed = self._market.lists(self._contract)
        return [self._market.ticker(self._contract, latest)] if latest and listed else []

    def first(self) -> list[Json]:
        if not self._market.lists(self._contract):
            return []
        return [self._market.ticker(self._contract, self._market.exchange.ticker(self._contract.instrument.name))]


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
        before, now = self._told, self.first() if stale else []
        same = now and before is not None and now[0] | {"timestamp": 0} == before | {"timestamp": 0}
        return [] if same else now

    def first(self) -> list[Json]:
        if not self._market.lists(self._contract):
            return []
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

    def __init__(self, name: str, interval: str, market: Market, wanted: Wanted, about: str) -> None:
        super().__init__(name, interval)
        self._market, self._wanted = market, wanted
        self.topics = (("Traded", about),)
        self._trades: list[Json] = []

    def absorb(self, event: VenueEvent) -> None:
        if isinstance(event, Traded) and self._wanted(self._market.contracts[event.instrument]):
            self._trades.append(self._market.trade(event))

    def drain(self) -> list[Json]:
        trades, self._trades = self._trades, []
        return [trades] if trades else []


class ListingChannel(Channel):
    """instrument.state.{kind}.{currency}: contracts that come and go. A new one is created and started at once."""

    topics = (("InstrumentChanged", EVERY),)

    def __init__(self, name: str, market: Market, wanted: Wanted) -> None:
        super().__init__(name, "raw")
        self._market, self._wanted = market, wanted
        self._said: list[Json] = []

    def absorb(self, event: VenueEvent) -> None:
        if not isinstance(event, InstrumentChanged) or event.state == "regridded":  # which the venue does not say here
            return
        if self._wanted(self._market.contracts[event.instrument.name]):
            for state in ("created", "started") if event.state == "created" else (event.state,):
                named = {"instrument_name": event.instrument.name}
                self._said.append({"timestamp": ms(event.ts_ns), "state": state} | named)

    def drain(self) -> list[Json]:
        said, self._said = self._said, []
        return said


class PlatformChannel(Channel):
    """platform_state: each index whose contracts stop being traded, or are traded again. Nothing for a newcomer: the
    venue has public/status for that."""

    topics = (("TradingLocked", EVERY),)

    def __init__(self, name: str, market: Market) -> None:
        super().__init__(name, "raw")
        self._market = market
        self._said: list[Json] = []

    def absorb(self, event: VenueEvent) -> None:
        if isinstance(event, TradingLocked):
            names = self._market.indices(event.currency)
            self._said += [{"price_index": name, "locked": event.locked} for name in names]

    def drain(self) -> list[Json]:
        said, self._said = self._said, []
        return said


class MarksChannel(Channel):
    """markprice.options.{index_name}: marks and volatilities, those told since the last time."""

    topics = (("TickerChanged", EVERY),)

    def __init__(self, name: str, market: Market, index: str) -> None:
        super().__init__(name, "100ms")
        self._market, self._index = market, index
        self._latest: dict[str, Ticker] = {}

    def absorb(self, event: VenueEvent) -> None:
        if isinstance(event, TickerChanged) and event.ticker.option:
            self._latest[event.ticker.instrument] = event.ticker

    def drain(self) -> list[Json]:
        latest, self._latest = self._latest, {}
        contracts = self._market.contracts
        rows = [
            options.mark(contracts[name], ticker, ticker.option)
            for name, ticker in latest.items()
            if ticker.option and contracts[name].index_name == self._index
        ]
        return [rows] if rows else []
