"""An `Exchange` in process that answers commands with events: the sink of backtest and paper runs.

Commands reach it, and its answers reach us, after a latency each way, in virtual time: it knows only the time
it is told. What it says goes through the same events as a real venue's replies.
"""

import heapq
from collections.abc import Callable
from functools import partial

import msgspec

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
)
from dea_daemon.domain.events import (
    AccountReported,
    AnyEvent,
    CancelRefused,
    CreateRefused,
    FeedAlive,
    FeedOpened,
    FillReceived,
    InstrumentsListed,
    ModelFitted,
    OrderEvidence,
    OrderSeen,
    PoolReport,
    PoolUpdated,
    PositionReport,
    Settlement,
    SurfaceFitted,
    VenueOrderState,
)
from dea_daemon.domain.instruments import Universe
from dea_daemon.domain.numbers import NS_PER_MS, NS_PER_S
from dea_daemon.pricing.surface import fit as surface_fit
from dea_daemon.research import trees
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.words import (
    Filled,
    OrderChanged,
    OrderRequest,
    PortfolioChanged,
    Refused,
    Settled,
    Summary,
    VenueEvent,
    VenueFill,
    VenueOrder,
)

ACCOUNT = "main"
FEED = "paper.private"
HEARTBEAT_NS = 5 * NS_PER_S
FIT_NS = 100 * NS_PER_MS  # what a fit aside takes, in virtual time
GROW_NS = 60 * NS_PER_S  # and trees

Answer = Callable[[int], list[AnyEvent]]


class PaperVenue:
    """One account (index `account` of the universe) at an in-process exchange, `latency_ns` away each way."""

    def __init__(self, exchange: Exchange, universe: Universe, account: int, latency_ns: int) -> None:
        self.exchange = exchange
        self.universe = universe
        self._account = account
        self._latency_ns = latency_ns
        self._agenda: list[tuple[int, int, Callable[[int], None]]] = []  # when, its number, what
        self._number = 0
        self._out: list[AnyEvent] = []
        self._row = {i.name: r for r, i in enumerate(universe.instruments) if universe.account[r] == account}

    def open(self, now_ns: int, beats: bool = True) -> None:
        """The private stream comes up, and lives; without `beats` only where somebody calls `beat`."""
        self._tell(now_ns, lambda at: [FeedOpened(at, FEED, self._account, True)])
        if beats:
            self._heartbeat(now_ns)

    def beat(self, now_ns: int) -> None:
        """The private stream is alive."""
        self._tell(now_ns, lambda at: [FeedAlive(at, FEED, self._account, True)])

    def send(self, command: Outgoing, now_ns: int) -> None:
        """Put a command on the wire at `now_ns`. What is done aside is no venue's: it is done here at once, and told
        when it would be done."""
        match command:
            case FitSurface():
                self._fitted(surface_fit.fit(command.chain, command.max_iv_spread), now_ns)
            case FitModel(name=name, asked_utc_ns=asked_ns):
                grown = msgspec.structs.replace(trees.grow(command.lessons), name=name, asked_utc_ns=asked_ns)
                self._aside(grown, now_ns + GROW_NS)
            case _:
                self._at(now_ns + self._latency_ns, lambda at: self._perform(command, at))

    def _fitted(self, fitted: SurfaceFitted, now_ns: int) -> None:
        self._aside(fitted, now_ns + FIT_NS)

    def _aside(self, answer: SurfaceFitted | ModelFitted, done_ns: int) -> None:
        self._tell(done_ns, lambda at: [msgspec.structs.replace(answer, ts_recv_ns=at)])

    def be_away(self, latency_ns: int) -> None:
        """From now on it is this far away, each way."""
        self._latency_ns = latency_ns

    def next_ns(self) -> int | None:
        """When the next thing happens here."""
        return self._agenda[0][0] if self._agenda else None

    def run_until(self, now_ns: int) -> list[AnyEvent]:
        """Everything that reaches us by `now_ns`, in order of receipt."""
        while self._agenda and self._agenda[0][0] <= now_ns:
            at_ns, _, act = heapq.heappop(self._agenda)
            act(at_ns)
            self.drain(at_ns)
        out, self._out = self._out, []
        return out

    def drain(self, now_ns: int) -> None:
        """What the exchange has to say leaves for us now."""
        for event in self.exchange.events():
            self._publish(event, now_ns)

    def _publish(self, event: VenueEvent, now_ns: int) -> None:
        """What concerns our account; market data comes from elsewhere."""
        match event:
            case OrderChanged(order=order) if order.account == ACCOUNT:
                self._tell(now_ns, partial(self._changed, order))
            case Filled(fill=fill) if fill.account == ACCOUNT:
                self._tell(now_ns, partial(self._filled, fill))
            case PortfolioChanged(account=account, summary=summary) if account == ACCOUNT:
                self._tell(now_ns, partial(self._portfolio, summary))

    # --- the agenda ------------------------------------------------------------------------------

    def _at(self, at_ns: int, act: Callable[[int], None]) -> None:
        self._number += 1
        heapq.heappush(self._agenda, (at_ns, self._number, act))

    def _tell(self, now_ns: int, answer: Answer) -> None:
        self._at(now_ns + self._latency_ns, lambda at: self._out.extend(answer(at)))

    def _heartbeat(self, now_ns: int) -> None:
        self._tell(now_ns, lambda at: [FeedAlive(at, FEED, self._account, True)])
        self._at(now_ns + HEARTBEAT_NS, self._heartbeat)

    # --- the venue's side ------------------------------------------------------------------------

    def _perform(self, command: Outgoing, now_ns: int) -> None:
        self.exchange.set_time(now_ns)
        match command:
            case Approved(order=order):
                self._place(order, now_ns)
            case CancelOrder():
                self._cancel(command, now_ns)
            case QueryOrder(client_order_id=label):
                orders = self.exchange.orders_by_label(ACCOUNT, label)
                fills = [f for f in self.exchange.fills(ACCOUNT) if f.label == label]
                self._tell(now_ns, lambda at: [self._evidence(label, now_ns, orders, fills, at)])
            case QueryAccount(trades_since_ms=since_ms, settled_since_ms=settled_ms):
                report = self._report(now_ns, since_ms * NS_PER_MS)
                settled = self._settled(settled_ms * NS_PER_MS) if settled_ms else ()
                self._tell(
                    now_ns, (lambda at: [_with_settlements(e, settled) for e in report(at)]) if settled else report
                )
            case QueryInstruments():  # its contracts are those it began with
                self._tell(now_ns, lambda at: [InstrumentsListed(at, self._account, ())])

    def _place(self, order: CreateOrder, now_ns: int) -> None:
        request = OrderRequest(
            account=ACCOUNT,
            instrument=self.universe.instruments[order.row].name,
            side=order.side,
            lots=order.lots,
            price_ticks=order.price_ticks,
            time_in_force=order.time_in_force,
            post_only=order.post_only,
            reduce_only=order.reduce_only,
            label=order.client_order_id,
            valid_until_ms=order.valid_until_ms,
        )
        try:
            self.exchange.place(request)
        except Refused as refused:
            reason = str(refused)
            self._tell(now_ns, lambda at: [CreateRefused(at, order.client_order_id, True, reason)])

    def _cancel(self, command: CancelOrder, now_ns: int) -> None:
        try:
            found = self.exchange.orders_by_label(ACCOUNT, command.client_order_id)
            order_id = command.venue_order_id or (found[0].order_id if found else "")
            self.exchange.cancel(ACCOUNT, order_id)
        except Refused as refused:
            reason = str(refused)
            self._tell(now_ns, lambda at: [CancelRefused(at, command.client_order_id, reason)])

    def _evidence(
        self, label: str, asked_ns: int, orders: list[VenueOrder], fills: list[VenueFill], at: int
    ) -> OrderEvidence:
        seen = tuple(self._order(o, at) for o in orders)
        left_ns = asked_ns - self._latency_ns
        return OrderEvidence(at, label, left_ns, True, seen, tuple(self._fill(f, at) for f in fills), "", left_ns)

    def _report(self, now_ns: int, since_ns: int) -> Answer:
        venue = self.exchange
        fills = venue.fills(ACCOUNT, since_ns=since_ns)
        orders = venue.open_orders(ACCOUNT)
        positions = tuple(
            PositionReport(self._row[p.instrument], p.lots, p.entry_price) for p in venue.positions(ACCOUNT) if p.lots
        )
        pools = tuple(pool(venue.summary(ACCOUNT, currency)) for currency in venue.currencies())

        def answer(at: int) -> list[AnyEvent]:
            seen = tuple(self._order(o, at) for o in orders)
            got = tuple(self._fill(f, at) for f in fills)
            return [AccountReported(at, self._account, now_ns - self._latency_ns, True, got, seen, positions, pools)]

        return answer

    def _settled(self, since_ns: int) -> tuple[Settlement, ...]:
        venue = self.exchange
        told = (s for currency in venue.currencies() for s in venue.settlements(ACCOUNT, currency, since_ns))
        return tuple(self._settlement(s) for s in told)

    def _settlement(self, s: Settled) -> Settlement:
        row = self._row[s.instrument]
        return Settlement(self._account, row, s.ts_ns, s.lots, s.settlement_price, s.cash - s.fee, s.pool)

    def _changed(self, order: VenueOrder, at: int) -> list[AnyEvent]:
        return [self._order(order, at)]

    def _filled(self, fill: VenueFill, at: int) -> list[AnyEvent]:
        return [self._fill(fill, at)]

    def _portfolio(self, summary: Summary, at: int) -> list[AnyEvent]:
        return [PoolUpdated(at, self._account, pool(summary))]

    # --- its words in ours -----------------------------------------------------------------------

    def _order(self, o: VenueOrder, at: int) -> OrderSeen:
        return OrderSeen(
            at,
            o.updated_ns,
            self._account,
            self._row[o.instrument],
            o.label,
            o.order_id,
            VenueOrderState(o.state),
            o.side,
            o.lots,
            o.filled_lots,
            o.price_ticks,
            o.cancel_reason,
        )

    def _fill(self, f: VenueFill, at: int) -> FillReceived:
        row = self._row[f.instrument]
        return FillReceived(
            at,
            f.ts_ns,
            self._account,
            row,
            f.trade_id,
            f.order_id,
            f.label,
            f.side,
            f.lots,
            f.price_ticks,
            f.fee,
            self.universe.instruments[row].settle_currency,
            f.is_maker,
            f.liquidation and not f.is_maker,  # it was the taker who was liquidated
        )


def _with_settlements(event: AnyEvent, settled: tuple[Settlement, ...]) -> AnyEvent:
    return msgspec.structs.replace(event, settlements=settled) if isinstance(event, AccountReported) else event


def pool(s: Summary) -> PoolReport:
    """A margin pool as its venue's summary tells it."""
    return PoolReport(s.currency, s.equity, s.cash, s.initial_margin, s.maintenance_margin, s.session_funding)
