"""The venue's public side as it reaches us: its streams break, fall silent, leave out, repeat and garble."""

from collections.abc import Iterable

import msgspec

from dea_daemon.domain.events import (
    AnyEvent,
    BookDelta,
    BookSnapshot,
    FeedAlive,
    FeedClosed,
    FeedOpened,
    IndexUpdated,
    Level,
    ListingChanged,
    MarkUpdated,
    QuoteUpdated,
    VenueStateChanged,
)
from dea_daemon.domain.instruments import Instrument, Universe
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.words import (
    BookChanged,
    IndexChanged,
    InstrumentChanged,
    TickerChanged,
    VenueEvent,
)
from dea_daemon.wiring.paper import FEED, HEARTBEAT_NS, Answer, PaperVenue
from dea_daemon.wiring.simulate.chain import Tickers
from dea_daemon.wiring.simulate.faults import Faults

PUBLIC = "public"
LATENCY_NS = 3 * NS_PER_MS
GARBAGE = (float("nan"), -1.0, 0.0, float("inf"), 1e12, 1e-9)
SCALES = (0.01, 0.5, 1.5, 10.0)  # finite, positive, and wrong
APART = (0.7, 0.9, 1.1, 1.3)  # a mark by its index
FLOOD = 100
STABLECOIN = "USDC"
STABLE_EVERY_NS = 1_000 * NS_PER_MS

replace_event = msgspec.structs.replace


class FaultyMarket(PaperVenue):
    """PaperVenue with a market of its own, and faults between it and us."""

    def __init__(self, exchange: Exchange, universe: Universe, faults: Faults) -> None:
        super().__init__(exchange, universe, 0, LATENCY_NS)
        self.faults = faults
        self.tickers = Tickers(universe, faults)
        self.public_open = self.private_open = False
        self.tops: dict[tuple[int, int], object] = {}  # (row, change_id) -> best bid and ask, ticks and lots
        self.silent_until: dict[object, int] = {}  # row, or PUBLIC, or FEED
        self._opened = 0
        self._generation = 0  # what was on its way to a process that died never arrives
        self._emptied_until: dict[int, int] = {}  # row: its book is told to be empty
        self._apart_until: dict[int, tuple[int, float]] = {}  # row: its mark is off by so much
        self._sizes: list[tuple[float, float]] = []
        self.stablecoin_usd = 1.0
        self._stable_ns = 0  # when its price is told next
        self.locked: tuple[int, str] = (0, "")  # until when the venue takes no orders, and in which underlying's
        self._said_locked: str | None = None  # what we were told of that
        self.number()

    def number(self) -> None:
        """The rows of the universe, those that joined it included."""
        self._row = {i.name: row for row, i in enumerate(self.universe.instruments)}
        self._sizes = [(float(i.tick_size), float(i.lot_size)) for i in self.universe.instruments]

    def unlisted(self) -> tuple[Instrument, ...]:
        """The contracts that have no row yet."""
        return tuple(i for name, i in self.exchange.instruments.items() if name not in self._row)

    # --- links -----------------------------------------------------------------------------------

    def open_public(self, now_ns: int) -> None:
        """The market data socket comes up, books first."""
        self.public_open = True
        self.silent_until.pop(PUBLIC, None)
        self._opened += 1
        rows = tuple(self._row.values())
        self._tell(now_ns, lambda at: [FeedOpened(at, PUBLIC, 0, False, rows)])
        self.say_state(now_ns)  # it is asked for with every connection
        for row in rows:
            self.snapshot(row, now_ns)

    def open_private(self, now_ns: int) -> None:
        """The account's socket comes up."""
        self.private_open = True
        self.silent_until.pop(FEED, None)
        self._tell(now_ns, lambda at: [FeedOpened(at, FEED, 0, True)])

    def close(self, now_ns: int, *, private: bool) -> None:
        """A socket breaks: we hear of it at once, and of nothing else until it is up again."""
        rows = () if private else tuple(self._row.values())
        if private:
            self.private_open = False
        else:
            self.public_open = False
        self._tell(now_ns, lambda at: [FeedClosed(at, FEED if private else PUBLIC, 0, private, rows, "cut")])

    def forget_us(self) -> None:
        """Our process died: nothing that was on its way to it arrives."""
        self._generation += 1
        self.public_open = self.private_open = False
        self._said_locked = None

    def snapshot(self, row: int, now_ns: int) -> None:
        """A book whole, as after a subscription."""
        name = self.universe.instruments[row].name
        if name not in self.exchange.contracts or not self._heard(now_ns, row) or self.universe.option[row]:
            return
        if now_ns < self._emptied_until.get(row, 0):
            return  # it is empty; what comes next is a gap
        book = self.exchange.book(name)
        bids, asks = self._levels(row, book.bids), self._levels(row, book.asks)
        self._tell(now_ns, lambda at: [BookSnapshot(at, book.ts_ns, row, book.change_id, bids, asks)])

    def open_heartbeat(self, now_ns: int) -> None:
        """From here on the account's stream says now and then that it lives."""
        self._heartbeat(now_ns)

    def calm(self) -> None:
        """Whatever fault lasts ends."""
        self.silent_until.clear()
        self._emptied_until.clear()
        self.stablecoin_usd = 1.0
        self._apart_until.clear()

    # --- what it says ----------------------------------------------------------------------------

    def lock(self, now_ns: int, until_ns: int, underlying: str) -> None:
        """The venue takes no orders until then in contracts on this (all where it is ""), and says so."""
        self.locked = (until_ns, underlying)
        self.say_state(now_ns)
        self._at(until_ns, self.say_state)

    def is_locked(self, row: int, now_ns: int) -> bool:
        until_ns, underlying = self.locked
        return now_ns < until_ns and underlying in ("", self.universe.instruments[row].underlying)

    def say_state(self, now_ns: int) -> None:
        """Whether the venue takes orders, where that is not what we heard last."""
        until_ns, underlying = self.locked
        locked = underlying if now_ns < until_ns else None
        if not self._heard(now_ns) or locked == self._said_locked:
            return
        if self._said_locked is not None:
            self._public(now_ns, VenueStateChanged(0, 0, True, "open", self._said_locked))
        if locked is not None:
            self._public(now_ns, VenueStateChanged(0, 0, False, "maintenance", locked))
        self._said_locked = locked

    def say_stablecoin(self, now_ns: int) -> None:
        """Its price, now and then."""
        if now_ns >= self._stable_ns and self._heard(now_ns):
            self._stable_ns = now_ns + STABLE_EVERY_NS
            self._public(now_ns, IndexUpdated(0, now_ns, 0, STABLECOIN, self.stablecoin_usd))

    def _publish(self, event: VenueEvent, now_ns: int) -> None:
        match event:
            case BookChanged(instrument=name) if name in self._row:
                if not self.universe.option[self._row[name]]:
                    self._book(event, self._row[name], now_ns)
            case TickerChanged() if event.ticker.instrument in self._row:
                row = self._row[event.ticker.instrument]
                if self._heard(now_ns, row):
                    self._ticker(event, row, now_ns)
            case InstrumentChanged(instrument=instrument, state=state):
                if self._heard(now_ns) and not self.faults.strikes("announcement-lost"):
                    self._public(now_ns, ListingChanged(0, 0, instrument.name, state))
            case IndexChanged() if self._heard(now_ns):
                price = self._spoilt(event.price, "index-garbage")
                self._public(now_ns, IndexUpdated(0, event.ts_ns, 0, event.currency, price))
            case _:
                super()._publish(event, now_ns)

    def _ticker(self, event: TickerChanged, row: int, now_ns: int) -> None:
        t = event.ticker
        if t.option is not None:
            for late_ns, events in self.tickers.told(t, row, now_ns):
                self._public(now_ns, *events, late_ns=late_ns)
            return
        if self.faults.strikes("mark-diverges"):
            until_ns = now_ns + self.faults.ns("mark-diverges", 0.5, 8.0)
            self._apart_until[row] = (until_ns, self.faults.dice("mark-diverges").choice(APART))
        until_ns, factor = self._apart_until.get(row, (0, 1.0))
        mark = t.mark_price * (factor if now_ns < until_ns else 1.0)
        mark_event = MarkUpdated(
            0, t.ts_ns, row, self._spoilt(mark, "mark-garbage"), t.index_price, t.current_funding
        )  # fmt: skip
        quote = QuoteUpdated(0, t.ts_ns, row, t.best_bid, t.best_bid_amount, t.best_ask, t.best_ask_amount)
        self._public(now_ns, mark_event, quote)

    def flood(self, now_ns: int) -> None:
        """Every contract's quote and mark, again and again, at once."""
        for name, row in self._row.items():
            if name in self.exchange.contracts and self._heard(now_ns, row) and not self.universe.option[row]:
                t = self.exchange.ticker(name)
                mark = MarkUpdated(0, t.ts_ns, row, t.mark_price, t.index_price, t.current_funding)
                quote = QuoteUpdated(0, t.ts_ns, row, t.best_bid, t.best_bid_amount, t.best_ask, t.best_ask_amount)
                self._public(now_ns, *(mark, quote) * FLOOD)

    def _book(self, event: BookChanged, row: int, now_ns: int) -> None:
        contract, faults = self.exchange.contracts.get(event.instrument), self.faults
        if contract is not None and contract.change_id == event.change_id:
            book = self.exchange.book(event.instrument, 1)
            self.tops[row, event.change_id] = (book.bids[:1], book.asks[:1])
        if not self._heard(now_ns, row) or now_ns < self._emptied_until.get(row, 0) or faults.strikes("delta-lost"):
            return
        bids, asks = self._levels(row, event.bids), self._levels(row, event.asks)
        last, before = event.change_id, event.previous_change_id
        if faults.strikes("book-empty"):
            self._emptied_until[row] = now_ns + faults.ns("book-empty", 0.3, 4.0)
            self.tops[row, last] = ([], [])
            self._public(now_ns, BookSnapshot(0, event.ts_ns, row, last, [], []))
            return
        if faults.strikes("book-crossed") and asks:
            bids = [*bids, (asks[0][0] * 1.001, 1.0)]
        delta = BookDelta(0, event.ts_ns, row, last, last, before, bids, asks)
        self._public(now_ns, delta, late_ns=faults.ns("delta-late", 0.05, 0.5) if faults.strikes("delta-late") else 0)
        if faults.strikes("delta-repeated"):
            self._public(now_ns, delta, late_ns=faults.ns("delta-repeated", 0.0, 0.5))

    def _public(self, now_ns: int, *events: AnyEvent, late_ns: int = 0) -> None:
        """On the public socket that is open now; what is late is lost with it."""
        opened = self._opened

        def answer(at: int) -> list[AnyEvent]:
            cut = late_ns and (opened != self._opened or not self._heard(at))
            return [] if cut else [replace_event(e, ts_recv_ns=at) for e in events]

        self._tell(now_ns + late_ns, answer)

    # --- how it reaches us -----------------------------------------------------------------------

    def _heard(self, now_ns: int, row: int = -1) -> bool:
        """Whether the public stream is open and says something, of this row too."""
        silent = self.silent_until
        return self.public_open and now_ns >= max(silent.get(PUBLIC, 0), silent.get(row, 0))

    def _told(self, now_ns: int) -> bool:
        """Whether the account's stream is open and says something."""
        return self.private_open and now_ns >= self.silent_until.get(FEED, 0)

    def _heartbeat(self, now_ns: int) -> None:
        if self._told(now_ns):
            self._tell(now_ns, lambda at: [FeedAlive(at, FEED, self._account, True)])
        self._at(now_ns + HEARTBEAT_NS, self._heartbeat)

    def _tell(self, now_ns: int, answer: Answer) -> None:
        generation = self._generation

        def arrive(at: int) -> None:
            if generation == self._generation:
                self._out.extend(e for e in answer(at) if not self._hangs(e, at))

        self._at(now_ns + LATENCY_NS, arrive)

    def _hangs(self, event: AnyEvent, at: int) -> bool:
        """Whether an event is of a request that hears nothing."""
        return False

    def _spoilt(self, price: float, name: str) -> float:
        if not self.faults.strikes(name):
            return price
        dice = self.faults.dice(name)
        return dice.choice(GARBAGE) if dice.random() < 0.5 else price * dice.choice(SCALES)

    def _levels(self, row: int, counts: Iterable[tuple[int, int]]) -> list[Level]:
        tick, lot = self._sizes[row]
        return [(ticks * tick, lots * lot) for ticks, lots in counts]
