"""A synthetic venue that loses, delays, repeats and garbles, by chances drawn from one seed."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import msgspec

from dea_daemon.domain.commands import (
    Approved,
    CancelOrder,
    CreateOrder,
    Outgoing,
    QueryAccount,
    QueryInstruments,
    QueryOrder,
    Resubscribe,
)
from dea_daemon.domain.events import (
    AccountReported,
    AnyEvent,
    BookDelta,
    BookSnapshot,
    CancelRefused,
    CancelUnknown,
    CreateRefused,
    CreateUnknown,
    FeedAlive,
    FeedClosed,
    FeedOpened,
    FillReceived,
    IndexUpdated,
    InstrumentsListed,
    Level,
    ListingChanged,
    MarkUpdated,
    OrderEvidence,
    PositionReport,
    QuoteUpdated,
    Settlement,
)
from dea_daemon.domain.instruments import Instrument, Side, Universe
from dea_daemon.domain.numbers import NS_PER_MS, NS_PER_S
from dea_daemon.domain.orders import TimeInForce, is_own
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.words import (
    BookChanged,
    IndexChanged,
    InstrumentChanged,
    OrderChanged,
    OrderRequest,
    Refused,
    Settled,
    Summary,
    TickerChanged,
    VenueEvent,
    VenueFill,
    VenueOrder,
)
from dea_daemon.wiring.paper import ACCOUNT, FEED, Answer, PaperVenue
from tests.simulation.chain import Deliveries, OptionChances, Tickers, crossing, is_option

PUBLIC = "public"
LATENCY_NS = 3 * NS_PER_MS
GARBAGE = (float("nan"), -1.0, 0.0, float("inf"), 1e12, 1e-9)
SCALES = (0.01, 0.5, 1.5, 10.0)  # finite, positive, and wrong


@dataclass(frozen=True, slots=True)
class Chances:
    """What goes wrong with one message or command, each by itself."""

    create_lost: float = 0.05
    create_late: float = 0.05
    create_unanswered: float = 0.08
    cancel_lost: float = 0.06
    cancel_unanswered: float = 0.06
    question_lost: float = 0.05
    question_incomplete: float = 0.05
    question_slow: float = 0.10
    report_empty: float = 0.03
    fill_repeated: float = 0.15
    news_delayed: float = 0.15
    news_lost: float = 0.02
    delta_lost: float = 0.002
    book_crossed: float = 0.0005
    mark_garbage: float = 0.002
    index_garbage: float = 0.001

    def times(self, storm: float) -> "Chances":
        return Chances(**{name: min(storm * getattr(self, name), 0.5) for name in self.__dataclass_fields__})


class FaultyVenue(PaperVenue):
    """PaperVenue with a market of its own and faults between it and us.

    `accepted` counts the orders the venue took by label, `wire` holds creates that may still reach it.
    """

    def __init__(
        self,
        exchange: Exchange,
        universe: Universe,
        rng: random.Random,
        chances: Chances,
        dice: random.Random,
        option_chances: OptionChances,
    ) -> None:
        super().__init__(exchange, universe, 0, LATENCY_NS)
        self.rng = rng
        self.chances = chances
        self.dice = dice  # of what concerns options, listings and settlements
        self.option_chances = option_chances
        self.tickers = Tickers(universe, dice)
        self.deliveries = Deliveries(dice)
        self.accepted: dict[str, int] = {}
        self.wire: dict[str, CreateOrder] = {}
        self.public_open = self.private_open = False
        self.utc_offset_ns = 0  # our wall clock minus the venue's
        self.tops: dict[tuple[int, int], object] = {}  # (row, change_id) -> best bid and ask, ticks and lots
        self._opened = 0
        self._generation = 0  # what was on its way to a process that died never arrives
        self._muted_until: dict[str, int] = {}  # by label
        self._sizes: list[tuple[float, float]] = []
        self.number()

    def number(self) -> None:
        """The rows of the universe, those that joined it included."""
        self._row = {i.name: row for row, i in enumerate(self.universe.instruments)}
        self._sizes = [(float(i.tick_size), float(i.lot_size)) for i in self.universe.instruments]

    def unlisted(self) -> tuple[Instrument, ...]:
        """The contracts that have no row yet."""
        return tuple(i for name, i in self.exchange.instruments.items() if name not in self._row)

    def open_heartbeat(self, now_ns: int) -> None:
        self._heartbeat(now_ns)

    # --- links -----------------------------------------------------------------------------------

    def open_public(self, now_ns: int) -> None:
        """The market data socket comes up, books first."""
        self.public_open = True
        self._opened += 1
        rows = tuple(self._row.values())
        self._tell(now_ns, lambda at: [FeedOpened(at, PUBLIC, 0, False, rows)])
        for row in rows:
            self.snapshot(row, now_ns)

    def open_private(self, now_ns: int) -> None:
        self.private_open = True
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

    def snapshot(self, row: int, now_ns: int) -> None:
        name = self.universe.instruments[row].name
        if name in self.exchange.contracts and self.public_open and not self.universe.option[row]:
            book = self.exchange.book(name)
            bids, asks = self._levels(row, book.bids), self._levels(row, book.asks)
            self._tell(now_ns, lambda at: [BookSnapshot(at, book.ts_ns, row, book.change_id, bids, asks)])

    # --- commands --------------------------------------------------------------------------------

    def send(self, command: Outgoing, now_ns: int) -> None:
        c, strike = self.chances, self._strike
        match command:
            case Approved(order=order):
                self.wire[order.client_order_id] = order
                if strike(c.create_lost):
                    del self.wire[order.client_order_id]
                    self._never_answered(now_ns, partial(_create_unknown, order.client_order_id))
                    return
                late = self._seconds(0.2, 6.0) if strike(c.create_late) else 0
                # A request that is slow on its way is often given up on before it arrives.
                if strike(c.create_unanswered) or (late and strike(0.5)):
                    self._mute(order.client_order_id, now_ns)
                    self._never_answered(now_ns, partial(_create_unknown, order.client_order_id))
                self._at(now_ns + self._latency_ns + late, lambda at: self._perform(command, at))
            case CancelOrder():
                if strike(c.cancel_lost):
                    self._never_answered(now_ns, partial(_cancel_unknown, command.client_order_id))
                    return
                if strike(c.cancel_unanswered):
                    self._mute(command.client_order_id, now_ns)
                    self._never_answered(now_ns, partial(_cancel_unknown, command.client_order_id))
                super().send(command, now_ns)
            case QueryOrder() | QueryAccount():
                if not strike(c.question_lost):
                    super().send(command, now_ns)
            case QueryInstruments() if not self._struck(self.option_chances.listing_lost):
                late_ns = self._drawn(0.5, 8.0) if self._struck(self.option_chances.listing_late) else 0
                self._at(now_ns + self._latency_ns + late_ns, lambda at: self._perform(command, at))
            case Resubscribe(row=row):
                self._at(now_ns + self._latency_ns, lambda at: self.snapshot(row, at))

    def _perform(self, command: Outgoing, now_ns: int) -> None:
        self.exchange.advance(now_ns)
        if isinstance(command, Approved):
            self.wire.pop(command.order.client_order_id)
        if isinstance(command, QueryInstruments):
            failed = "timed out" if self._struck(self.option_chances.listing_failed) else ""
            listed = () if failed else self.unlisted()
            self._tell(now_ns, lambda at: [InstrumentsListed(at, 0, listed, failed)])
        else:
            super()._perform(command, now_ns)

    def _settled(self, since_ns: int) -> tuple[Settlement, ...]:
        settled = super()._settled(since_ns)
        names = [self.universe.instruments[s.row].name for s in settled]
        return self.deliveries.records(settled, names, self.exchange.now_ns)

    def trade_by_hand(self, row: int, side: Side, lots: int, *, rests: bool, now_ns: int) -> None:
        """Somebody else uses the account."""
        instrument = self.universe.instruments[row]
        if instrument.name not in self.exchange.contracts:
            return
        ticker = self.exchange.ticker(instrument.name)
        far = 1.0 - side.sign * 0.002 if rests else 1.0 + side.sign * 0.01
        ticks = instrument.price_to_ticks(ticker.mark_price * far, side)
        if is_option(instrument):
            wide = crossing(self.exchange, instrument, side.opposite if rests else side)
            ticks = wide if not rests else max(instrument.price_to_ticks(0.5 * ticker.mark_price, side), 1)
        time_in_force = TimeInForce.GTC if rests else TimeInForce.IOC
        request = OrderRequest(ACCOUNT, instrument.name, side, lots, ticks, time_in_force, label="by hand")
        self.exchange.advance(now_ns)
        try:
            self.exchange.place(request)
        except Refused:
            return
        finally:
            self.drain(now_ns)

    def cancel_by_hand(self, now_ns: int) -> None:
        for order in self.exchange.open_orders(ACCOUNT):
            if not is_own(order.label):
                self.exchange.cancel(ACCOUNT, order.order_id)
        self.drain(now_ns)

    # --- what it says ----------------------------------------------------------------------------

    def _publish(self, event: VenueEvent, now_ns: int) -> None:
        match event:
            case BookChanged(instrument=name) if name in self._row:
                if not self.universe.option[self._row[name]]:
                    self._book(event, self._row[name], now_ns)
            case TickerChanged(ticker=t) if t.option is not None:
                if t.instrument in self._row and self.public_open:
                    for late_ns, events in self.tickers.told(t, self._row[t.instrument], now_ns, self.option_chances):
                        self._public(now_ns, *events, late_ns=late_ns)
            case InstrumentChanged(instrument=instrument, state=state):
                if self.public_open and not self._struck(self.option_chances.announcement_lost):
                    self._public(now_ns, ListingChanged(0, 0, instrument.name, state))
            case Settled(account=account) if account == ACCOUNT:
                self.deliveries.ended(event, now_ns, self.option_chances)
            case TickerChanged(ticker=t) if t.instrument in self._row and self.public_open:
                row = self._row[t.instrument]
                mark, index = self._spoilt(t.mark_price), t.index_price
                mark_event = MarkUpdated(0, t.ts_ns, row, mark, index, t.current_funding)
                quote = QuoteUpdated(0, t.ts_ns, row, t.best_bid, t.best_bid_amount, t.best_ask, t.best_ask_amount)
                self._public(now_ns, mark_event, quote)
            case IndexChanged() if self.public_open:
                price = self._spoilt(event.price, self.chances.index_garbage)
                self._public(now_ns, IndexUpdated(0, event.ts_ns, 0, event.currency, price))
            case _:
                self._note(event)
                super()._publish(event, now_ns)

    def _note(self, event: VenueEvent) -> None:
        """The witness: every own order accepted, every trade of the account that is not ours."""
        match event:
            case OrderChanged(what="accepted", order=order) if is_own(order.label):
                self.accepted[order.label] = self.accepted.get(order.label, 0) + 1

    def _public(self, now_ns: int, *events: AnyEvent, late_ns: int = 0) -> None:
        """On the public socket that is open now; what is late is lost with it."""
        opened = self._opened

        def answer(at: int) -> list[AnyEvent]:
            cut = late_ns and (opened != self._opened or not self.public_open)
            return [] if cut else [msgspec.structs.replace(e, ts_recv_ns=at) for e in events]

        self._tell(now_ns + late_ns, answer)

    def _book(self, event: BookChanged, row: int, now_ns: int) -> None:
        contract = self.exchange.contracts.get(event.instrument)
        if contract is not None and contract.change_id == event.change_id:
            book = self.exchange.book(event.instrument, 1)
            self.tops[row, event.change_id] = (book.bids[:1], book.asks[:1])
        if not self.public_open or self._strike(self.chances.delta_lost):
            return
        bids, asks = self._levels(row, event.bids), self._levels(row, event.asks)
        if self._strike(self.chances.book_crossed) and asks:
            bids = [*bids, (asks[0][0] * 1.001, 1.0)]
        last, before = event.change_id, event.previous_change_id
        self._public(now_ns, BookDelta(0, event.ts_ns, row, last, last, before, bids, asks))

    def _changed(self, order: VenueOrder, at: int) -> list[AnyEvent]:
        return self._news(order.label, super()._changed(order, at), at)

    def _filled(self, fill: VenueFill, at: int) -> list[AnyEvent]:
        return self._news(fill.label, super()._filled(fill, at), at)

    def _portfolio(self, summary: Summary, at: int) -> list[AnyEvent]:
        return super()._portfolio(summary, at) if self.private_open else []

    def _news(self, label: str, events: list[AnyEvent], at: int) -> list[AnyEvent]:
        """The private stream: mute, lossy, late and repetitive."""
        c = self.chances
        if not self.private_open or at < self._muted_until.get(label, 0) or self._strike(c.news_lost):
            return []
        if isinstance(events[0], FillReceived) and self._strike(c.fill_repeated):
            self._later(at, self._seconds(0.0, 10.0), events)
        if self._strike(c.news_delayed):
            self._later(at, self._seconds(0.0, 8.0), events)
            return []
        return events

    def _evidence(
        self, label: str, asked_ns: int, orders: list[VenueOrder], fills: list[VenueFill], at: int
    ) -> OrderEvidence:
        evidence = super()._evidence(label, asked_ns, orders, fills, at)
        evidence = replace_event(evidence, asked_utc_ns=evidence.asked_ns + self.utc_offset_ns)
        if self._strike(self.chances.question_incomplete):
            evidence = replace_event(evidence, complete=False, orders=(), why="cut short")
        return evidence

    def _report(self, now_ns: int, since_ns: int) -> Answer:
        answer = super()._report(now_ns, since_ns)

        def spoilt(at: int) -> list[AnyEvent]:
            (report,) = answer(at)
            assert isinstance(report, AccountReported)
            if self._strike(self.chances.question_incomplete):
                report = replace_event(report, complete=False, orders=(), positions=(), settlements=(), why="cut short")
            elif self._strike(self.chances.report_empty) and any(p.maintenance_margin > 0 for p in report.pools):
                report = replace_event(report, positions=())
            elif shown := self.deliveries.lingering(now_ns):
                ended = tuple(PositionReport(self._row[name], lots, 0.0) for name, lots in shown.items())
                report = replace_event(report, positions=report.positions + ended)
            return [report]

        return spoilt

    # --- chance ----------------------------------------------------------------------------------

    def _heartbeat(self, now_ns: int) -> None:
        if self.private_open:
            self._tell(now_ns, lambda at: [FeedAlive(at, FEED, self._account, True)])
        self._at(now_ns + 5 * NS_PER_S, self._heartbeat)

    def _tell(self, now_ns: int, answer: Answer) -> None:
        generation = self._generation

        def arrive(at: int) -> None:
            if generation == self._generation:
                self._out.extend(e for e in answer(at) if not self._hangs(e, at))

        self._at(now_ns + self._latency_ns, arrive)

    def _later(self, now_ns: int, delay_ns: int, events: list[AnyEvent]) -> None:
        self._tell(now_ns + delay_ns, lambda at: [replace_event(e, ts_recv_ns=at) for e in events])

    def _never_answered(self, now_ns: int, answer: Callable[[int], AnyEvent]) -> None:
        """The request hangs: told after its timeout, or never."""
        if self.rng.random() < 0.7:
            timeout_ns = self._seconds(0.1, 1.0) if self.rng.random() < 0.5 else self._seconds(1.0, 12.0)
            self._tell(now_ns + timeout_ns, lambda at: [answer(at)])

    def _hangs(self, event: AnyEvent, at: int) -> bool:
        """A request that hangs hears nothing, a refusal included."""
        if not isinstance(event, CreateRefused | CancelRefused):
            return False
        return at < self._muted_until.get(event.client_order_id, 0)

    def _mute(self, label: str, now_ns: int) -> None:
        self._muted_until[label] = now_ns + self._seconds(0.5, 15.0)

    def _seconds(self, low: float, high: float) -> int:
        return int(self.rng.uniform(low, high) * NS_PER_S)

    def _drawn(self, low: float, high: float) -> int:
        return int(self.dice.uniform(low, high) * NS_PER_S)

    def _struck(self, chance: float) -> bool:
        return chance > 0.0 and self.dice.random() < chance

    def _strike(self, chance: float) -> bool:
        return chance > 0.0 and self.rng.random() < chance

    def _spoilt(self, price: float, chance: float | None = None) -> float:
        if not self._strike(self.chances.mark_garbage if chance is None else chance):
            return price
        if self.rng.random() < 0.5:
            return self.rng.choice(GARBAGE)
        return price * self.rng.choice(SCALES)

    def _levels(self, row: int, counts: Iterable[tuple[int, int]]) -> list[Level]:
        tick, lot = self._sizes[row]
        return [(ticks * tick, lots * lot) for ticks, lots in counts]


replace_event = msgspec.structs.replace


def _create_unknown(label: str, at: int) -> AnyEvent:
    return CreateUnknown(at, label, "timed out")


def _cancel_unknown(label: str, at: int) -> AnyEvent:
    return CancelUnknown(at, label, "timed out")
