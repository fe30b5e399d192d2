"""What we hold and have asked for: positions, margin pools, orders, fills, windows, mode.

Positions move by fills alone, each counted once by its trade id. The venue's own report is compared with
them, never blended in: it is adopted at start, agreement makes the daemon ready, and a difference that two
reports in a row confirm halts it.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from dea_daemon.domain.commands import (
    Approved,
    CancelOrder,
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
    FeedAlive,
    FeedClosed,
    FeedOpened,
    FillReceived,
    InstrumentsListed,
    ListingChanged,
    Operator,
    OperatorSpoke,
    OrderEvidence,
    OrderSeen,
    ParametersReloaded,
    PoolReport,
    PoolUpdated,
    RecordFailed,
    RecordRestored,
    RunStarted,
    Settlement,
    VenueStateChanged,
    WatchdogChanged,
)
from dea_daemon.domain.instruments import BoolArray, IntArray, Universe
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.domain.orders import Order, OrderInput, OrderState, TimeInForce, epoch_of, is_own
from dea_daemon.domain.parameters import Parameters
from dea_daemon.state.budgets import Budgets
from dea_daemon.state.effects import Effects
from dea_daemon.state.expiries import UNPROVED_NS, Deliveries, Listings
from dea_daemon.state.market import Market
from dea_daemon.state.orders import OrderBookkeeping
from dea_daemon.state.windows import NEVER, lengthened

FILL_MEMORY = 100_000  # trade ids remembered against duplicates; the ledger remembers all
_MODES = {
    Operator.NORMAL: Mode.NORMAL,
    Operator.REDUCE_ONLY: Mode.REDUCE_ONLY,
    Operator.PAUSE: Mode.PAUSED,
    Operator.HALT: Mode.HALTED,
    Operator.FLATTEN: Mode.FLATTENING,
}


class BookedFill(NamedTuple):
    """A fill counted for the first time, and what it came to in USD (NaN where that is not known)."""

    fill: FillReceived
    turnover_usd: float
    fee_usd: float


class Account:
    """One per run, over all accounts. `fold` is the only writer; the shell drains `new_fills`."""

    def __init__(self, universe: Universe, started: RunStarted, params: Parameters) -> None:
        n, accounts = len(universe), len(universe.accounts)
        self.universe = universe
        self.params = params
        self.position_lots: IntArray = np.zeros(n, dtype=np.int64)
        self.last_fill_ns: IntArray = np.full(n, NEVER, dtype=np.int64)
        self.quarantined: BoolArray = np.zeros(n, dtype=np.bool_)
        self.pools: dict[tuple[int, str], PoolReport] = {}
        self.orders = OrderBookkeeping()
        self.fills_seen: dict[tuple[int, str], None] = dict.fromkeys(started.fills_seen)
        self.new_fills: list[BookedFill] = []
        self.deliveries = Deliveries(universe, started)
        self.listings = Listings(accounts, started)
        self.budgets = Budgets(started)
        self.total_fees_usd = self.total_funding_usd = 0.0
        self.mode = started.mode
        self.mode_why = started.mode_why
        self.mode_before = started.mode_before
        self.armed = started.armed
        self.draining = False
        self.recording = True
        self.watched = True
        self.peak_equity_usd = started.peak_equity_usd
        self.day, self.day_equity_usd = started.day, started.day_equity_usd
        self.epoch, self.sequence = started.epoch, 0
        self.trade_cursor_ms = started.trade_cursor_ms
        # which accounts the daemon trades in, and what it last heard of them
        self.traded = sorted({int(a) for a, ok in zip(universe.account, universe.tradable, strict=True) if ok})
        self.adopted = [False] * accounts
        self.adopted_ns = [NEVER] * accounts
        self.agreed = [False] * accounts
        self.agreed_since_ns = [NEVER] * accounts  # when the last report that agreed was asked for
        self.reported_ns = [NEVER] * accounts
        self.report_failing = [False] * accounts
        self.outside: list[tuple[str, ...]] = [()] * accounts  # positions in contracts that are not configured
        # Heard on the private stream itself. Orders and fills do not count: replies to requests bring them too.
        self.private_ns = [NEVER] * accounts
        self.opened_ns = [NEVER] * accounts  # since when it has been up; reports asked before miss what it missed
        self.asked_ns = [NEVER] * accounts
        self.drift: dict[int, tuple[int, int]] = {}  # row -> venue's lots, when first asked
        self.drift_told: dict[int, int] = {}  # row -> venue's lots, so that a lasting one is told once
        self.rejects_in_a_row: IntArray = np.zeros(n, dtype=np.int64)
        self.post_only_rejects: IntArray = np.zeros(n, dtype=np.int64)
        self.last_reject_ns: IntArray = np.full(n, NEVER, dtype=np.int64)
        self.last_miss_ns: IntArray = np.full(n, NEVER, dtype=np.int64)  # a crossing order was not filled whole
        for order in started.restored:
            # A copy: the event is history. What it was in the middle of, nobody knows now.
            self.orders.keep(msgspec.structs.replace(order, state=OrderState.UNKNOWN))
        self._fold: dict[type, Callable[[Any, Market, Effects], None]] = {
            OrderSeen: self._order_seen,
            FillReceived: self._fill_received,
            CreateRefused: self._create_refused,
            CreateUnknown: self._create_unknown,
            CancelRefused: self._cancel_refused,
            CancelUnknown: self._cancel_unknown,
            OrderEvidence: self._evidence,
            PoolUpdated: self._pool,
            AccountReported: self._reported,
            FeedOpened: self._feed,
            FeedAlive: self._feed,
            FeedClosed: self._feed_closed,
            OperatorSpoke: self._operator,
            ParametersReloaded: self._reloaded,
            ListingChanged: self._listing_changed,
            InstrumentsListed: self._listed,
            RecordFailed: self._record_failed,
            RecordRestored: self._record_restored,
            WatchdogChanged: self._watchdog,
            VenueStateChanged: self._venue_state,
        }

    def fold(self, event: AnyEvent, market: Market, effects: Effects) -> None:
        """Apply one event about orders, account or operator; others are not this room's business."""
        handler = self._fold.get(type(event))
        if handler is not None:
            handler(event, market, effects)
            for row in self.orders.surprised:
                self.quarantined[row] = True
            self.orders.surprised.clear()

    def tick(self, now_ns: int, effects: Effects) -> None:
        """Time passed: answers are overdue, windows roll."""
        self.orders.overdue(now_ns, self.params.execution.unknown_after_ms, effects)
        self.orders.forget(now_ns)
        self.budgets.prune(now_ns)
        while len(self.fills_seen) > FILL_MEMORY:
            del self.fills_seen[next(iter(self.fills_seen))]

    def sent(self, commands: Iterable[Outgoing], planned: int, now_ns: int, effects: Effects) -> None:
        """Fold a decision: what it sends is in flight before it leaves; ids planned are never used again."""
        self.sequence += planned
        for command in commands:
            match command:
                case Approved(order=create):
                    self.orders.sent(create, now_ns)
                    self.budgets.created(now_ns)
                case CancelOrder():
                    self.budgets.cancelled(now_ns)
                    self.orders.cancel_sent(command, now_ns, effects)
                case QueryOrder():
                    self.orders.own[command.client_order_id].query_sent_ns = now_ns
                case QueryAccount():
                    self.asked_ns[command.account] = now_ns
                case QueryInstruments():
                    self.listings.asked_ns[command.account] = now_ns
                case Resubscribe():
                    pass

    def paused(self, now_ns: int) -> BoolArray:
        """[N] rows to leave alone now: the circuit is open (too many rejects in a row, too short ago), or crossing
        has just found too little there."""
        execution = self.params.execution
        paused = now_ns - self.last_miss_ns < execution.recross_ms * NS_PER_MS
        if np.count_nonzero(self.rejects_in_a_row):
            recently = now_ns - self.last_reject_ns < execution.reject_pause_ms * NS_PER_MS
            paused |= (self.rejects_in_a_row >= execution.reject_limit) & recently
        return np.asarray(paused, dtype=np.bool_)

    # --- orders ----------------------------------------------------------------------------------

    def _order_seen(self, event: OrderSeen, market: Market, effects: Effects) -> None:
        order = self.orders.own.get(event.client_order_id)
        was = order.state if order is not None else None
        self.orders.seen(event, effects)
        if order is not None and order.state is not was:
            if order.state is OrderState.REJECTED:
                self._rejected(order.row, event.ts_recv_ns, event.reason, effects)
            elif was is OrderState.PENDING:
                self.rejects_in_a_row[order.row] = 0
                self.post_only_rejects[order.row] = 0
            if order.state.is_terminal:
                effects.wake = "order ended"
                if order.time_in_force is TimeInForce.IOC and order.filled_lots < order.lots:
                    self.last_miss_ns[order.row] = event.ts_recv_ns

    def _create_refused(self, event: CreateRefused, market: Market, effects: Effects) -> None:
        if (order := self.orders.own.get(event.client_order_id)) is None:
            return
        known = order.state is OrderState.REJECTED  # the private stream may have told it first
        self.orders.advance(order, OrderInput.CREATE_REFUSED, event.ts_recv_ns, effects, event.reason)
        if event.sent and not known:
            self._rejected(order.row, event.ts_recv_ns, event.reason, effects)
        effects.note("order.rejected", client_order_id=event.client_order_id, why=event.reason, sent=event.sent)

    def _rejected(self, row: int, now_ns: int, reason: str, effects: Effects) -> None:
        self.last_reject_ns[row] = now_ns
        if "post_only" in reason:  # the market moved under a passive order: no fault, but it is counted
            self.post_only_rejects[row] += 1
            return
        self.rejects_in_a_row[row] += 1
        if self.rejects_in_a_row[row] == self.params.execution.reject_limit:
            name = self.universe.instruments[row].name
            effects.note("order.circuit_opened", instrument=name, why=reason)

    def _create_unknown(self, event: CreateUnknown, market: Market, effects: Effects) -> None:
        if (order := self.orders.own.get(event.client_order_id)) is not None:
            self.orders.advance(order, OrderInput.CREATE_UNKNOWN, event.ts_recv_ns, effects, event.reason)
            effects.note("order.outcome_unknown", client_order_id=event.client_order_id, why=event.reason)
            effects.wake = "outcome unknown"

    def _cancel_refused(self, event: CancelRefused, market: Market, effects: Effects) -> None:
        if (order := self.orders.own.get(event.client_order_id)) is not None:
            self.orders.advance(order, OrderInput.CANCEL_REFUSED, event.ts_recv_ns, effects)
            # It may have ended already, or be one the venue never saw: ask.
            order.doubted = not order.state.is_terminal

    def _cancel_unknown(self, event: CancelUnknown, market: Market, effects: Effects) -> None:
        if (order := self.orders.own.get(event.client_order_id)) is not None:
            self.orders.advance(order, OrderInput.CANCEL_UNKNOWN, event.ts_recv_ns, effects)
            order.doubted = not order.state.is_terminal

    def _evidence(self, event: OrderEvidence, market: Market, effects: Effects) -> None:
        for fill in event.fills:
            self._fill_received(fill, market, effects)
        for seen in event.orders:
            self._order_seen(seen, market, effects)
        order = self.orders.own.get(event.client_order_id)
        if order is not None and event.complete and not event.orders and not order.state.is_terminal:
            self._not_found(order, event, effects)

    def _not_found(self, order: Order, event: OrderEvidence, effects: Effects) -> None:
        """The venue knows no such order, open or ended. Asked after its deadline, on both clocks, that is proof:
        it never lived, or it ended and was forgotten since."""
        asked_ns = min(event.asked_utc_ns, event.asked_ns or event.asked_utc_ns)
        deadline_ns = max(order.valid_until_ms * NS_PER_MS, order.created_ns)
        if asked_ns <= deadline_ns + self.params.execution.skew_margin_ms * NS_PER_MS:
            return
        lived = bool(order.filled_lots or order.venue_order_id)
        if lived and (order.doubted or order.state is OrderState.UNKNOWN):
            self.orders.advance(order, OrderInput.SEEN_CANCELLED, event.ts_recv_ns, effects, "the venue forgot it")
            effects.note("order.forgotten", client_order_id=order.client_order_id)
            effects.wake = "order forgotten"
        elif not lived and order.state is OrderState.UNKNOWN and order.valid_until_ms > 0:
            self.orders.advance(order, OrderInput.PROVED_ABSENT, event.ts_recv_ns, effects, "proved absent")
            effects.note("order.proved_absent", client_order_id=order.client_order_id)
            effects.wake = "order proved absent"

    # --- fills and pools -------------------------------------------------------------------------

    def _fill_received(self, event: FillReceived, market: Market, effects: Effects) -> None:
        key = (event.account, event.trade_id)
        if key in self.fills_seen:
            return
        self.fills_seen[key] = None
        row, now_ns = event.row, event.ts_recv_ns
        # A coin bought is a balance, and comes with the pool; a fill told after its contract's delivery went with it.
        if not (self.universe.spot[row] or self.deliveries.known(event.account, row)):
            self.position_lots[row] += event.side.sign * event.lots
        self.last_fill_ns[row] = now_ns
        self.post_only_rejects[row] = 0
        self.orders.filled(event, effects)
        instrument = self.universe.instruments[row]
        price = float(instrument.ticks_to_price(event.price_ticks))
        if self.universe.option[row]:  # its price is a premium. Bounded: a false index would shut the hour's limit
            strike = instrument.strike
            price_of = min(max(market.currency_price.get(instrument.underlying, strike), 0.5 * strike), 2.0 * strike)
        else:
            price_of = price
        turnover = event.lots * instrument.lot_value * (1.0 if self.universe.inverse[row] else price_of)
        if event.fee_currency in self.params.state.stable_currencies:
            paid_in = 1.0
        elif event.fee_currency == instrument.underlying:
            paid_in = price_of  # somebody paid it: an index may be missing or false, and would shut the hour's limit
        else:
            paid_in = market.currency_price.get(event.fee_currency, float("nan"))
        fee_usd = event.fee * paid_in
        self.budgets.filled(now_ns, turnover, fee_usd)
        self.total_fees_usd += fee_usd
        self.new_fills.append(BookedFill(event, turnover, fee_usd))
        effects.note(
            "order.filled",
            client_order_id=event.client_order_id,
            instrument=instrument.name,
            side=event.side.value,
            lots=event.lots,
            price=price,
            maker=event.is_maker,
            fee_usd=fee_usd,
            position_lots=int(self.position_lots[row]),
        )
        effects.wake = "fill"
        if event.liquidation:
            effects.note("position.liquidated", instrument=instrument.name, side=event.side.value, lots=event.lots)
            self.set_mode(Mode.HALTED, f"the venue liquidated {event.lots} lots of {instrument.name}", effects)

    def _pool(self, event: PoolUpdated, market: Market, effects: Effects) -> None:
        self.private_ns[event.account] = event.ts_recv_ns
        self._put_pool(event.account, event.pool, market)

    def _put_pool(self, account: int, pool: PoolReport, market: Market) -> None:
        """Replace a pool; what its funding moved by is income or cost of this run."""
        before = self.pools.get((account, pool.currency))
        self.pools[account, pool.currency] = pool
        if before is None:
            return
        moved = pool.session_funding - before.session_funding
        if abs(pool.session_funding) < 0.5 * abs(before.session_funding):
            # The venue's settlement moved it into cash and began again: it creeps, it never halves by itself.
            moved = pool.session_funding
        stable = pool.currency in self.params.state.stable_currencies
        price = 1.0 if stable else market.currency_price.get(pool.currency)
        if moved == moved and price is not None:
            self.total_funding_usd += moved * price

    # --- reports ---------------------------------------------------------------------------------

    def _reported(self, event: AccountReported, market: Market, effects: Effects) -> None:
        for fill in event.fills:
            self._fill_received(fill, market, effects)
        useless = event.why or "incomplete" if not event.complete else ""
        if not event.positions and any(pool.maintenance_margin > 0 for pool in event.pools):
            useless = useless or "no positions, yet margin is in use"
        if useless:
            if not self.report_failing[event.account]:  # told once, not every second the venue is away
                effects.note("account.report_failed", account=event.account, why=useless)
            self.report_failing[event.account] = True
            return
        self.report_failing[event.account] = False
        # Only a complete answer moves it: a stream that goes on after losing a fill must not step over it.
        newest_ns = max((fill.ts_event_ns for fill in event.fills), default=0)
        self.trade_cursor_ms = max(self.trade_cursor_ms, newest_ns // NS_PER_MS)
        if event.asked_ns >= self.opened_ns[event.account]:
            self.reported_ns[event.account] = event.asked_ns
        for pool in event.pools:
            self._put_pool(event.account, pool, market)
        if event.outside != self.outside[event.account]:
            self.outside[event.account] = event.outside
            effects.note("account.outside_found", contracts=", ".join(event.outside))
        self._orders_reported(event, effects)
        for settlement in event.settlements:
            self._settled(settlement, "venue record", effects)
        self._positions_reported(event, effects)

    def _orders_reported(self, event: AccountReported, effects: Effects) -> None:
        """Open orders at the venue against ours: adopt, count, or doubt."""
        mentioned = set()
        for seen in event.orders:
            mentioned.add(seen.venue_order_id)
            if seen.client_order_id not in self.orders.own and is_own(seen.client_order_id):
                self.orders.adopt(seen, event.ts_recv_ns)
                effects.note("order.adopted", client_order_id=seen.client_order_id)
            else:
                self.orders.seen(seen, effects)
        for key, foreign in list(self.orders.foreign.items()):
            # One heard of since the question left may be too young for the answer.
            if key[0] == event.account and key[1] not in mentioned and foreign.seen_ns < event.asked_ns:
                del self.orders.foreign[key]
        for order in self.orders.live():
            mine = self.universe.account[order.row] == event.account
            if mine and order.state is OrderState.OPEN and order.created_ns < event.asked_ns:
                order.doubted = order.doubted or order.venue_order_id not in mentioned

    def _positions_reported(self, event: AccountReported, effects: Effects) -> None:
        """Positions at the venue against ours, row by row."""
        account = event.account
        theirs = {
            report.row: report.lots for report in event.positions if not self.deliveries.known(account, report.row)
        }
        rows = (self.universe.account == account).nonzero()[0].tolist()
        if not self.adopted[account]:
            for row in rows:
                self.position_lots[row] = theirs.get(row, 0)
            self.adopted[account], self.adopted_ns[account] = True, event.asked_ns
            effects.note("account.adopted", account=str(self.universe.accounts[account]), positions=len(theirs))
            return
        agreed, filled_ns, held = True, self.last_fill_ns.tolist(), self.position_lots.tolist()
        for row in rows:
            if filled_ns[row] >= event.asked_ns:
                agreed = False  # moved while the question travelled: this report cannot tell
            elif theirs.get(row, 0) == held[row]:
                self.drift.pop(row, None)
                self.drift_told.pop(row, None)
            else:
                agreed = False
                self._drifted(row, theirs.get(row, 0), bool(theirs), event, effects)
        if agreed and not self.agreed[account]:
            effects.note("account.reconciled", account=str(self.universe.accounts[account]))
        if agreed:
            self.agreed[account] = True
            self.agreed_since_ns[account] = event.asked_ns

    def _drifted(self, row: int, theirs: int, has_any: bool, event: AccountReported, effects: Effects) -> None:
        """A difference: a fill may be on its way, so only a second report of the same confirms it.

        A contract past its expiry was settled: that its position is gone is the venue's word, and no surprise; its
        record of the settlement says at what price, and is waited for.
        """
        instrument = self.universe.instruments[row]
        if theirs == 0 and 0 < instrument.expiry_ns <= event.asked_ns:
            if event.asked_ns - instrument.expiry_ns > UNPROVED_NS:
                lots, nan = int(self.position_lots[row]), float("nan")
                unproved = Settlement(
                    event.account, row, instrument.expiry_ns, lots, nan, nan, instrument.settle_currency
                )
                self._settled(unproved, "position report", effects)
            return
        before = self.drift.get(row)
        if before is None or before[0] != theirs or self.last_fill_ns[row] >= before[1]:
            self.drift[row] = (theirs, event.asked_ns)
            return
        ours = int(self.position_lots[row])
        name = instrument.name
        if self.drift_told.get(row) != theirs:
            effects.note("account.drift_confirmed", instrument=name, ours_lots=ours, venue_lots=theirs)
        self.drift_told[row] = theirs
        del self.drift[row]
        # An empty report is not taken for flat: it halts, and the operator's word (--resume) takes it over.
        if has_any or not self.agreed[event.account] or abs(theirs - ours) <= 1:
            self.position_lots[row] = theirs
        if self.agreed[event.account] and abs(theirs - ours) > 1:
            self.set_mode(Mode.HALTED, f"unexplained position difference in {name}", effects)

    def _settled(self, settlement: Settlement, proof: str, effects: Effects) -> None:
        """A delivery ends a position, once. What the venue delivered beyond what we held is a drift like any."""
        row, name = settlement.row, self.universe.instruments[settlement.row].name
        if not self.deliveries.take(settlement, proof):
            return
        ours = int(self.position_lots[row])
        self.position_lots[row] = 0
        effects.note(
            "position.settled",
            instrument=name,
            lots=ours,
            venue_lots=settlement.lots,
            price=settlement.price,
            profit=settlement.profit,
            currency=settlement.currency,
            proof=proof,
        )
        # What ended before the venue's positions were adopted may have been gone from them already.
        gone = ours == 0 and settlement.ts_event_ns <= self.adopted_ns[settlement.account]
        if abs(settlement.lots - ours) > 1 and self.agreed[settlement.account] and not gone:
            self.set_mode(Mode.HALTED, f"unexplained position difference in {name} at its settlement", effects)

    # --- contracts that come ---------------------------------------------------------------------

    def _listing_changed(self, event: ListingChanged, market: Market, effects: Effects) -> None:
        if event.state in ("created", "started"):
            self.listings.due[event.account] = True

    def _listed(self, event: InstrumentsListed, market: Market, effects: Effects) -> None:
        """Market has extended the universe: a place for each new row here, too."""
        n = len(self.universe)
        self.listings.answered(event)
        for name in ("position_lots", "rejects_in_a_row", "post_only_rejects"):
            setattr(self, name, lengthened(getattr(self, name), n, 0))
        for name in ("last_fill_ns", "last_reject_ns", "last_miss_ns"):
            setattr(self, name, lengthened(getattr(self, name), n, NEVER))
        self.quarantined = lengthened(self.quarantined, n, False)

    # --- conditions ------------------------------------------------------------------------------

    def _feed(self, event: FeedOpened | FeedAlive, market: Market, effects: Effects) -> None:
        if event.private:
            self.private_ns[event.account] = event.ts_recv_ns
            if isinstance(event, FeedOpened):  # what happened meanwhile must be asked for
                self.opened_ns[event.account] = event.ts_recv_ns
                self.reported_ns[event.account] = NEVER
                self.listings.due[event.account] = self.adopted[event.account]  # at the start they were just listed

    def _feed_closed(self, event: FeedClosed, market: Market, effects: Effects) -> None:
        if event.private:
            self.private_ns[event.account] = NEVER

    def _operator(self, event: OperatorSpoke, market: Market, effects: Effects) -> None:
        effects.note("operator.spoke", command=event.command.value, who=event.who, why=event.why)
        effects.wake = "operator"
        if event.command in (Operator.ARM, Operator.DISARM):
            self.armed = event.command is Operator.ARM
        elif event.command is Operator.DRAIN:
            self.draining = True
        else:
            why = f"operator {event.who}: {event.why}" if event.why else f"operator {event.who}"
            self._operators_mode(event.command, why, effects)

    def _operators_mode(self, command: Operator, why: str, effects: Effects) -> None:
        """A pause ends where it began; anything else that ends with NORMAL ends with a reset."""
        mode = _MODES[command]
        if command is Operator.NORMAL and self.mode is Mode.PAUSED:
            mode = self.mode_before
        elif command is Operator.NORMAL:
            self._reset()
        elif command is Operator.PAUSE and self.mode is Mode.HALTED:
            return  # a halt is more
        self.set_mode(mode, why, effects)

    def _reset(self) -> None:
        """The operator takes the present for right: positions as the venue says, quarantines lifted."""
        self.quarantined[:] = False
        self.peak_equity_usd = self.day_equity_usd = 0.0
        for account in self.traded:
            self.adopted[account] = self.agreed[account] = False

    def _reloaded(self, event: ParametersReloaded, market: Market, effects: Effects) -> None:
        effects.note("parameters.reloaded", who=event.who, changed="; ".join(event.changed))
        effects.wake = "reload"

    def _record_failed(self, event: RecordFailed, market: Market, effects: Effects) -> None:
        self.recording = False
        effects.note("ledger.failed", why=event.why)

    def _record_restored(self, event: RecordRestored, market: Market, effects: Effects) -> None:
        self.recording = True
        effects.note("ledger.restored")

    def _watchdog(self, event: WatchdogChanged, market: Market, effects: Effects) -> None:
        self.watched = event.alive
        effects.note("watchdog.started" if event.alive else "watchdog.lost", why=event.why)

    def _venue_state(self, event: VenueStateChanged, market: Market, effects: Effects) -> None:
        """It is open again: what it says from here on is asked for before anything grows."""
        if event.open:
            self.reported_ns[event.account] = NEVER
            self.opened_ns[event.account] = event.ts_recv_ns

    def set_mode(self, mode: Mode, why: str, effects: Effects) -> None:
        """The only place a mode changes."""
        if mode is not self.mode:
            effects.note("mode.changed", before=self.mode.name.lower(), after=mode.name.lower(), why=why)
            if mode is Mode.PAUSED:
                self.mode_before = self.mode
            self.mode, self.mode_why = mode, why

    @property
    def ready(self) -> bool:
        """Every traded account agreed with its venue once, and every restored order has an outcome."""
        return all(self.agreed[a] for a in self.traded) and not any(
            o.state is OrderState.UNKNOWN and epoch_of(o.client_order_id) != self.epoch for o in self.orders.live()
        )
