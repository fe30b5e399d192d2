"""The venue as our orders and questions meet it: it loses, delays, refuses, repeats and garbles."""

from collections.abc import Callable
from functools import partial

from dea_daemon.domain.commands import (
    Approved,
    CancelOrder,
    CreateOrder,
    FitModel,
    FitSurface,
    Outgoing,
    QueryAccount,
    QueryInstruments,
    QueryOrder,
    Resubscribe,
)
from dea_daemon.domain.events import (
    AccountReported,
    AnyEvent,
    CancelRefused,
    CancelUnknown,
    CreateRefused,
    CreateUnknown,
    FillReceived,
    InstrumentsListed,
    OrderEvidence,
    PositionReport,
    Settlement,
    SurfaceFitted,
)
from dea_daemon.domain.instruments import Side, Universe
from dea_daemon.domain.orders import TimeInForce, is_own
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.words import (
    Filled,
    OrderChanged,
    OrderRequest,
    Refused,
    Settled,
    Summary,
    VenueEvent,
    VenueFill,
    VenueOrder,
)
from dea_daemon.wiring.paper import ACCOUNT, Answer
from dea_daemon.wiring.simulate.chain import Deliveries, crossing, is_option, surfaces_told
from dea_daemon.wiring.simulate.faults import Faults
from dea_daemon.wiring.simulate.market import LATENCY_NS, FaultyMarket, replace_event
from dea_daemon.wiring.simulate.promises import promise

STRANGER = "stranger"  # has money enough for anything
BY_HAND, UNHEARD, BY_VENUE = "by hand", "unheard", ""  # labels of what is not ours
LIQUIDATION = "liquidation"
CASH_LEAST = 0.5  # of what was deposited
UNAUTHORIZED = "unauthorized (13009)"


class FaultyVenue(FaultyMarket):
    """FaultyMarket that takes orders, and does not always say so.

    `accepted` counts the orders the venue took by label, `wire` holds creates that may still reach it,
    `foreign_fills` are those of our account that no order of ours made.
    """

    def __init__(self, exchange: Exchange, universe: Universe, faults: Faults) -> None:
        super().__init__(exchange, universe, faults)
        self.deliveries = Deliveries(faults)
        self.accepted: dict[str, int] = {}
        self.foreign_fills = [f for f in exchange.fills(ACCOUNT) if not is_own(f.label)]
        self.wire: dict[str, CreateOrder] = {}
        self.utc_offset_ns = 0  # our wall clock minus the venue's
        self.refuses_until_ns = self.away_until_ns = self.revoked_until_ns = 0
        self._late_ns = 0  # by which the answer being made is late
        self._muted_until: dict[str, int] = {}  # by label
        self._forgotten: dict[str, int] = {}  # orders that the venue forgets may only reduce, and since when

    def calm(self) -> None:
        super().calm()
        self.refuses_until_ns = self.away_until_ns = self.revoked_until_ns = 0
        self.locked = (0, "")

    # --- commands --------------------------------------------------------------------------------

    def send(self, command: Outgoing, now_ns: int) -> None:
        """Put a command on the wire; much can happen to it."""
        strikes = self.faults.strikes
        if isinstance(command, FitSurface | FitModel):
            super().send(command, now_ns)
            return
        if now_ns < self.away_until_ns:
            self._turned_away(command, now_ns)
            return
        if now_ns < self.revoked_until_ns and self._unauthorized(command, now_ns):
            return
        match command:
            case Approved(order=order):
                self._create(command, order, now_ns)
            case CancelOrder(client_order_id=label):
                if strikes("cancel-lost", label):
                    self._never_answered("cancel-lost", now_ns, partial(_cancel_unknown, label))
                    return
                if strikes("cancel-unanswered", label):
                    self._mute("cancel-unanswered", label, now_ns)
                    self._never_answered("cancel-unanswered", now_ns, partial(_cancel_unknown, label))
                if strikes("cancel-races-fill", label):
                    self._at(now_ns + LATENCY_NS, lambda at: self._take(label, at))
                super().send(command, now_ns)
            case QueryOrder() | QueryAccount():
                label = getattr(command, "client_order_id", "")
                if not strikes("question-lost", label):
                    late_ns = self.faults.ns("answer-late", 0.3, 6.0) if strikes("answer-late", label) else 0
                    self._at(now_ns + LATENCY_NS, lambda at: self._answer(command, at, late_ns))
            case QueryInstruments() if not strikes("listing-lost"):
                late_ns = self.faults.ns("listing-late", 0.5, 8.0) if strikes("listing-late") else 0
                self._at(now_ns + LATENCY_NS + late_ns, lambda at: self._perform(command, at))
            case Resubscribe(row=row):
                self._at(now_ns + LATENCY_NS, lambda at: self.snapshot(row, at))

    def _fitted(self, fitted: SurfaceFitted, now_ns: int) -> None:
        for late_ns, told in surfaces_told(fitted, self.faults):
            super()._fitted(told, now_ns + late_ns)

    def _turned_away(self, command: Outgoing, now_ns: int) -> None:
        """The venue is in maintenance: an error page for orders, silence for questions."""
        match command:
            case Approved(order=order):
                self._tell(now_ns, lambda at: [_create_unknown(order.client_order_id, at)])
            case CancelOrder(client_order_id=label):
                self._tell(now_ns, lambda at: [_cancel_unknown(label, at)])

    def _unauthorized(self, command: Outgoing, now_ns: int) -> bool:
        """The key is revoked: a definite no to whatever needs one. Whether this does."""
        match command:
            case Approved(order=order):
                self._tell(now_ns, lambda at: [CreateRefused(at, order.client_order_id, True, UNAUTHORIZED)])
            case CancelOrder(client_order_id=label):
                self._tell(now_ns, lambda at: [CancelRefused(at, label, UNAUTHORIZED)])
            case QueryOrder(client_order_id=label):
                asked_utc_ns = now_ns + self.utc_offset_ns
                self._tell(
                    now_ns,
                    lambda at: [OrderEvidence(at, label, asked_utc_ns, False, (), (), UNAUTHORIZED, now_ns)],
                )
            case QueryAccount():
                self._tell(now_ns, lambda at: [AccountReported(at, 0, now_ns, False, (), (), (), (), UNAUTHORIZED)])
            case _:
                return False
        return True

    def _answer(self, command: Outgoing, now_ns: int, late_ns: int) -> None:
        """What is true now, told so much later."""
        self._late_ns = late_ns
        self._perform(command, now_ns)
        self._late_ns = 0

    def _tell(self, now_ns: int, answer: Answer) -> None:
        super()._tell(now_ns + self._late_ns, answer)

    def _create(self, command: Approved, order: CreateOrder, now_ns: int) -> None:
        faults, label, late_ns = self.faults, order.client_order_id, 0
        if refusal := self._refusal(order, now_ns):
            self._tell(now_ns + LATENCY_NS, lambda at: [CreateRefused(at, label, True, refusal)])
            return
        unknown = partial(_create_unknown, label)
        if faults.strikes("create-lost", label):
            self._never_answered("create-lost", now_ns, unknown)
            return
        if faults.strikes("create-garbled", label):
            self._mute("create-garbled", label, now_ns)
            self._tell(now_ns + LATENCY_NS, lambda at: [unknown(at)])
            if faults.dice("create-garbled").random() < 0.5:
                return
        if faults.strikes("create-late", label):
            late_ns = faults.ns("create-late", 0.2, 6.0)
            # A request that is slow on its way is often given up on before it arrives.
            if faults.dice("create-late").random() < 0.5:
                self._mute("create-late", label, now_ns)
                self._never_answered("create-late", now_ns, unknown)
        elif faults.strikes("create-unanswered", label):
            self._mute("create-unanswered", label, now_ns)
            self._never_answered("create-unanswered", now_ns, unknown)
        if order.reduce_only and faults.strikes("reduce-only-ignored", label):
            self._forgotten[label] = now_ns
        self.wire[label] = order
        self._at(now_ns + LATENCY_NS + late_ns, lambda at: self._perform(command, at))

    def _refusal(self, order: CreateOrder, now_ns: int) -> str:
        """Why the venue does not take an order it could take; "" where it does."""
        strikes, label = self.faults.strikes, order.client_order_id
        if now_ns < self.refuses_until_ns:
            return "not_enough_funds"
        if self.is_locked(order.row, now_ns):
            return "settlement_in_progress"
        if strikes("one-refused", label):
            return "price_too_far"
        if order.post_only and strikes("post-only-refused", label):
            return "post_only_reject"
        return "too_many_requests" if strikes("rate-limited", label) else ""

    def _perform(self, command: Outgoing, now_ns: int) -> None:
        self.exchange.advance(now_ns)
        if isinstance(command, Approved):
            self.wire.pop(command.order.client_order_id, None)
        if isinstance(command, QueryInstruments):
            failed = "timed out" if self.faults.strikes("listing-failed") else ""
            listed = () if failed else self.unlisted()
            self._tell(now_ns, lambda at: [InstrumentsListed(at, 0, listed, failed)])
        else:
            super()._perform(command, now_ns)

    def _place(self, order: CreateOrder, now_ns: int) -> None:
        forgotten = order.client_order_id in self._forgotten
        super()._place(replace_event(order, reduce_only=False) if forgotten else order, now_ns)

    def _never_flips(self, fill: VenueFill) -> None:
        """What the venue forgot to reduce only has reduced all the same, where nobody else's hand was there."""
        since_ns = self._forgotten[fill.label]
        fills = [f for f in self.exchange.fills(ACCOUNT, fill.instrument, since_ns) if f.label != fill.label]
        after = self.exchange.position(ACCOUNT, fill.instrument).lots * fill.side.sign
        promise(fills or after <= 0, f"{fill.instrument}: an order that was to reduce left {after} lots")

    def _take(self, label: str, now_ns: int) -> None:
        """A stranger takes what rests under this label, or a part of it."""
        dice = self.faults.dice("cancel-races-fill")
        for order in self.exchange.orders_by_label(ACCOUNT, label):
            if order.state == "open":
                instrument = self.exchange.instruments[order.instrument]
                lots = order.left_lots if dice.random() < 0.3 else dice.randint(1, order.left_lots)
                lots = max(lots, instrument.min_lots)
                request = OrderRequest(
                    STRANGER, order.instrument, order.side.opposite, lots, order.price_ticks,
                    TimeInForce.IOC,
                )  # fmt: skip
                self._try(request, now_ns)

    # --- the account in other hands --------------------------------------------------------------

    def trade_by_hand(self, row: int, side: Side, lots: int, *, rests: bool, now_ns: int, label: str = BY_HAND) -> None:
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
        request = OrderRequest(ACCOUNT, instrument.name, side, lots, ticks, time_in_force, label=label)
        self.exchange.advance(now_ns)
        self._try(request, now_ns)

    def _try(self, request: OrderRequest, now_ns: int) -> None:
        try:
            self.exchange.place(request)
        except Refused:
            return
        finally:
            self.drain(now_ns)

    def cancel_by_hand(self, now_ns: int) -> None:
        """Whoever placed orders by hand takes them back."""
        for order in self.exchange.open_orders(ACCOUNT):
            if not is_own(order.label):
                self.exchange.cancel(ACCOUNT, order.order_id)
        self.drain(now_ns)

    def take_cash(self, share: float) -> None:
        """A part of the cash of every pool is gone; where much has gone already, all of it is back."""
        cash, whole = self.exchange.accounts.by_name[ACCOUNT].cash, self.exchange.scenario.deposits
        for currency, amount in cash.items():
            short = amount < CASH_LEAST * whole.get(currency, 0.0)
            cash[currency] = whole[currency] if short else amount - share * max(amount, 0.0)

    # --- what it says of us ----------------------------------------------------------------------

    def _publish(self, event: VenueEvent, now_ns: int) -> None:
        match event:
            case Settled(account=account) if account == ACCOUNT:
                self.deliveries.ended(event, now_ns)
            case OrderChanged(what="accepted", order=order) if is_own(order.label):  # for the witness
                self.accepted[order.label] = self.accepted.get(order.label, 0) + 1
                promise(self.accepted[order.label] == 1, f"{order.label} was taken twice")
                super()._publish(event, now_ns)
            case Filled(fill=fill) if fill.account == ACCOUNT:
                if not is_own(fill.label):
                    self.foreign_fills.append(fill)
                elif fill.label in self._forgotten:
                    self._never_flips(fill)
                super()._publish(event, now_ns)
            case _:
                super()._publish(event, now_ns)

    def _changed(self, order: VenueOrder, at: int) -> list[AnyEvent]:
        return self._news(order.label, super()._changed(order, at), at)

    def _filled(self, fill: VenueFill, at: int) -> list[AnyEvent]:
        return self._news(fill.label, super()._filled(fill, at), at)

    def _fill(self, f: VenueFill, at: int) -> FillReceived:
        fill = super()._fill(f, at)
        return replace_event(fill, liquidation=True) if f.label == LIQUIDATION else fill

    def _portfolio(self, summary: Summary, at: int) -> list[AnyEvent]:
        return super()._portfolio(summary, at) if self._told(at) else []

    def _news(self, label: str, events: list[AnyEvent], at: int) -> list[AnyEvent]:
        """The private stream: mute, lossy, late and repetitive."""
        faults = self.faults
        if not self._told(at) or at < self._muted_until.get(label, 0) or label == UNHEARD:
            return []
        label = label or BY_HAND
        if faults.strikes("news-lost", label):
            return []
        fill = isinstance(events[0], FillReceived)
        if fill and faults.strikes("fill-repeated", label):
            self._again(label, at + faults.ns("fill-repeated", 0.0, 10.0), events)
        late = "fill-late" if fill else "news-late"
        if faults.strikes(late, label):
            self._again(label, at + faults.ns(late, 0.0, 8.0), events)
            return []
        return events

    def _again(self, label: str, at_ns: int, events: list[AnyEvent]) -> None:
        """Told later, on the stream there is then, with all that may happen there."""
        self._tell(at_ns, lambda at: self._news(label, [replace_event(e, ts_recv_ns=at) for e in events], at))

    def _evidence(
        self, label: str, asked_ns: int, orders: list[VenueOrder], fills: list[VenueFill], at: int
    ) -> OrderEvidence:
        evidence = super()._evidence(label, asked_ns, orders, fills, at)
        evidence = replace_event(evidence, asked_utc_ns=evidence.asked_ns + self.utc_offset_ns)
        if self.faults.strikes("evidence-cut-short", label):
            evidence = replace_event(evidence, complete=False, orders=(), why="cut short")
        return evidence

    def _report(self, now_ns: int, since_ns: int) -> Answer:
        answer, strikes = super()._report(now_ns, since_ns), self.faults.strikes

        def spoilt(at: int) -> list[AnyEvent]:
            (report,) = answer(at)
            if not isinstance(report, AccountReported):
                return [report]
            if strikes("report-cut-short"):
                report = replace_event(report, complete=False, orders=(), positions=(), settlements=(), why="cut short")
            elif any(p.maintenance_margin > 0 for p in report.pools) and strikes("report-empty"):
                report = replace_event(report, positions=())
            elif shown := self.deliveries.lingering(now_ns):
                ended = tuple(PositionReport(self._row[name], lots, 0.0) for name, lots in shown.items())
                report = replace_event(report, positions=report.positions + ended)
            return [report]

        return spoilt

    def _settled(self, since_ns: int) -> tuple[Settlement, ...]:
        settled = super()._settled(since_ns)
        names = [self.universe.instruments[s.row].name for s in settled]
        return self.deliveries.records(settled, names, self.exchange.now_ns)

    # --- requests that hang ----------------------------------------------------------------------

    def _never_answered(self, fault: str, now_ns: int, answer: Callable[[int], AnyEvent]) -> None:
        """The request hangs: told after its timeout, or never."""
        dice = self.faults.dice(fault)
        if dice.random() < 0.7:
            within = (0.1, 1.0) if dice.random() < 0.5 else (1.0, 12.0)
            self._tell(now_ns + self.faults.ns(fault, *within), lambda at: [answer(at)])

    def _hangs(self, event: AnyEvent, at: int) -> bool:
        """A request that hangs hears nothing, a refusal included."""
        if not isinstance(event, CreateRefused | CancelRefused):
            return False
        return at < self._muted_until.get(event.client_order_id, 0)

    def _mute(self, fault: str, label: str, now_ns: int) -> None:
        within = (0.05, 1.5) if self.faults.dice(fault).random() < 0.3 else (0.5, 15.0)
        self._muted_until[label] = now_ns + self.faults.ns(fault, *within)


def _create_unknown(label: str, at: int) -> AnyEvent:
    return CreateUnknown(at, label, "timed out")


def _cancel_unknown(label: str, at: int) -> AnyEvent:
    return CancelUnknown(at, label, "timed out")
