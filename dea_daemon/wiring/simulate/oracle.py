"""What must hold at every step of every history, judged from the venue's side."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dea_daemon.domain.commands import Approved, CreateOrder
from dea_daemon.domain.decisions import Decision, IvSource, View
from dea_daemon.domain.events import (
    AccountReported,
    AnyEvent,
    DecisionDue,
    FeedAlive,
    FeedClosed,
    FeedOpened,
    FillReceived,
    IndexUpdated,
    InstrumentsListed,
    MarkUpdated,
    Operator,
    OperatorSpoke,
    OrderEvidence,
    PoolUpdated,
    VenueStateChanged,
    WatchdogChanged,
)
from dea_daemon.domain.instruments import IntArray, Side
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.domain.orders import is_own
from dea_daemon.state.view import working_lots
from dea_daemon.state.windows import lengthened
from dea_daemon.wiring.paper import ACCOUNT
from dea_daemon.wiring.simulate.promises import PromiseBroken, promise
from dea_daemon.wiring.simulate.refusals import Refusals
from dea_daemon.wiring.simulate.truth import Truth

if TYPE_CHECKING:
    from dea_daemon.wiring.simulate.world import World

LOOK_BACK_S = 16.0  # no figure older than an option's may be and still count as fresh
STABLECOIN = "USDC"
BINDING = ("net", "instrument", "underlying", "venue", "gross")
APART = 1.5  # a volatility by the surface against the venue's own: a short option's is told by few ticks
ROUNDING = 0.03  # of the options' notional: our volatilities come from quotes, the venue's from its smile


class Oracle:
    """Compares both sides of a World."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.creates = 0
        self.rebased = 0
        self.truth = Truth(world.exchange, world.universe, LOOK_BACK_S)
        self.rows: dict[str, int] = {}
        self.liquidated = False  # and nobody has said go on
        self._told: dict[type, Callable[[Any], None]] = {
            InstrumentsListed: self._contracts_told,
            MarkUpdated: self._mark_told,
            IndexUpdated: self._index_told,
            FeedAlive: self._heartbeat_told,
            PoolUpdated: self._heartbeat_told,
            FeedOpened: self._feed_told,
            FeedClosed: self._feed_told,
            VenueStateChanged: self._state_told,
            WatchdogChanged: self._watchdog_told,
            OperatorSpoke: self._operator_told,
            FillReceived: self._fills_told,
            AccountReported: self._fills_told,
            OrderEvidence: self._fills_told,
        }
        self._expected: IntArray = np.zeros(0, dtype=np.int64)

    def began(self) -> None:
        """A run starts with nothing known of the market."""
        n = len(self.world.universe)
        self.rows = {i.name: r for r, i in enumerate(self.world.universe.instruments)}
        self.mark = np.full(n, np.nan)
        self.index: dict[str, float] = {}
        self.mark_ns = np.full(n, -(1 << 62))
        self._expected = self.world.state.account.position_lots.copy()
        # A ledger that failed kept neither halt nor fill: the fill is told again, and halts again.
        self.liquidated &= self.world.ledger.mode is Mode.HALTED
        self.public = self.private = False
        self.closed: set[str] = set()  # underlyings in which the venue takes no orders; "": none at all
        self.regridded: set[int] = set()
        self.watched = True
        self.refusals = Refusals()
        self.heard_ns = -(1 << 62)
        self.inside_ns: dict[str, int] = {}

    def look(self) -> None:
        """The venue moved on. Without options its deltas are what we are told."""
        if self.world.universe.option.any():
            self.truth.look(self.world.now_ns)

    def _view(self) -> View:
        """What the decision at hand was made from."""
        view = self.world.state.view
        if view is None:
            raise PromiseBroken("a decision without a view")
        return view

    def _grow(self) -> None:
        """Contracts joined."""
        n = len(self.world.universe)
        self.rows = {i.name: r for r, i in enumerate(self.world.universe.instruments)}
        self.mark, self.mark_ns = lengthened(self.mark, n, np.nan), lengthened(self.mark_ns, n, -(1 << 62))
        self._expected = lengthened(self._expected, n, 0)

    # --- each step -------------------------------------------------------------------------------

    def before(self, event: AnyEvent) -> None:
        """What we are about to be told, as an outsider understands it."""
        told = self._told.get(type(event))
        if told is not None:
            told(event)

    def _mark_told(self, event: MarkUpdated) -> None:
        self.mark[event.row], self.mark_ns[event.row] = event.mark_price, event.ts_recv_ns

    def _index_told(self, event: IndexUpdated) -> None:
        if 0 < event.price < np.inf:
            self.index[event.currency] = event.price

    def _heartbeat_told(self, event: FeedAlive | PoolUpdated) -> None:
        if isinstance(event, PoolUpdated) or event.private:
            self.heard_ns = event.ts_recv_ns

    def _feed_told(self, event: FeedOpened | FeedClosed) -> None:
        up = isinstance(event, FeedOpened)
        if not event.private:
            self.public = up
            return
        self.private = up
        if up:
            self.heard_ns = event.ts_recv_ns

    def _contracts_told(self, event: InstrumentsListed) -> None:
        self._grow()
        self.regridded |= {self.rows[instrument.name] for instrument in event.changed}

    def _state_told(self, event: VenueStateChanged) -> None:
        (self.closed.discard if event.open else self.closed.add)(event.currency)

    def _watchdog_told(self, event: WatchdogChanged) -> None:
        self.watched = event.alive

    def _operator_told(self, event: OperatorSpoke) -> None:
        if event.command in (Operator.NORMAL, Operator.REDUCE_ONLY, Operator.FLATTEN):
            self.liquidated = False

    def _fills_told(self, event: FillReceived | AccountReported | OrderEvidence) -> None:
        fills = (event,) if isinstance(event, FillReceived) else event.fills
        seen = self.world.state.account.fills_seen
        self.liquidated |= any(f.liquidation and (0, f.trade_id) not in seen for f in fills)

    def after(self, event: AnyEvent, decision: Decision) -> None:
        account = self.world.state.account
        self._positions(decision)
        if self.liquidated:
            promise(account.mode is Mode.HALTED, f"{account.mode.name} after a liquidation")
        self.refusals.look(event, account.orders)
        creates = [c.order for c in decision.commands if isinstance(c, Approved)]
        if isinstance(event, DecisionDue):
            self._arrays()
            self._known()
            self._near()
            self._remember(decision)
            if account.ready:
                self._contained()
        for order in creates:
            self.creates += 1
            self._allowed(order)
            self._no_hedge_by_option(order)
            self._not_on_guesses(order)
            self._smaller(order)
            self._never_through_flat(order)
            self.refusals.judge(order, self.world.now_ns, self.world.params.execution)
        if creates:
            self._bounded(creates)

    def _positions(self, decision: Decision) -> None:
        """Positions move by fills told, or by a correction that says so."""
        account = self.world.state.account
        for note in decision.notes:
            if note.event == "order.filled":
                row = self.rows[str(note.fields["instrument"])]
                if (0, note.fields["instrument"]) in account.deliveries.settled:
                    continue  # told late: what was settled holds nothing
                sign = 1 if note.fields["side"] == "buy" else -1
                self._expected[row] += sign * int(note.fields["lots"])
            elif note.event == "position.settled":
                self._expected[self.rows[str(note.fields["instrument"])]] = 0
            elif note.event in ("account.adopted", "account.drift_confirmed"):
                self.rebased += 1
                self._expected[:] = account.position_lots
        # Whole numbers, compared at every step: bytes are quicker.
        same = self._expected.tobytes() == account.position_lots.tobytes()
        promise(same, "a position moved without a fill")

    def _remember(self, decision: Decision) -> None:
        """When each factor was last inside its band, or held outside it by a limit."""
        if decision.record is None:
            raise PromiseBroken("a decision without a record")
        clipped = any(clip.limit in BINDING for clip in decision.record.clips)
        for line in decision.record.factors[: len(self.world.universe.underlyings)]:  # the others have no band
            if clipped or abs(line.actual_usd - line.target_usd) <= line.band_usd:
                self.inside_ns[line.factor] = self.world.now_ns

    def _arrays(self) -> None:
        account = self.world.state.account
        for order in account.orders.own.values():
            if not (order.in_flight_lots * order.side.sign >= 0 and 0 <= order.filled_lots <= order.lots):
                raise PromiseBroken(f"more filled than asked for: {order}")
        promise(not np.isnan(account.peak_equity_usd), "the equity peak is unknown")
        for figure in (window.total for window in account.budgets.windows):
            promise(figure >= 0.0, f"a figure of the last hour is {figure}")

    def _known(self) -> None:
        """Nothing that is said of an option leaves us without a figure: exposure has one wherever the index, the
        pools, and the marks of what is held but options do."""
        view, account = self._view(), self.world.state.account
        plain = (view.position_lots != 0) & ~view.universe.option
        plain &= (view.universe.expiry_ns == 0) | (view.universe.expiry_ns > view.utc_ns)
        unpriced = np.unique(view.universe.underlying[plain & ~np.isfinite(view.mark_price)])
        for u, name in enumerate(view.universe.underlyings):
            if u in unpriced or not np.isfinite(view.underlying_price[u]) or not account.adopted[0]:
                continue
            for k, factor in enumerate(view.factors.names):
                if factor.split(":")[1] == name and not factor.startswith("carry"):
                    promise(np.isfinite(view.exposure_usd[k]), f"{factor} is unknown")

    def _near(self) -> None:
        """Where no ticker told nonsense, what is valued from a surface is near the venue's own volatility."""
        if self.world.venue.tickers.spells:
            return
        view, contracts = self._view(), self.world.exchange.contracts
        for row in np.flatnonzero(view.iv_source == IvSource.SURFACE).tolist():
            name, iv = view.universe.instruments[row].name, float(view.iv[row])
            contract = contracts.get(name)
            if contract is not None and contract.quote is not None:
                true = contract.quote.mark_iv
                promise(1.0 / APART < iv / true < APART, f"{name}: {iv:.3f} by its surface, in truth {true:.3f}")

    def _own_at_venue(self) -> tuple[IntArray, IntArray, IntArray]:
        """True position without hands not yet heard of, and own lots to buy and sell: open there or on the wire."""
        world, n = self.world, len(self.world.universe)
        position, buys, sells = (np.zeros(n, dtype=np.int64) for _ in range(3))
        for held in world.exchange.positions(ACCOUNT):
            position[self.rows[held.instrument]] = held.lots
        for fill in world.venue.foreign_fills:
            if (0, fill.trade_id) not in world.state.account.fills_seen:
                position[self.rows[fill.instrument]] -= fill.side.sign * fill.lots
        for order in world.exchange.open_orders(ACCOUNT):
            if is_own(order.label):
                (buys if order.side is Side.BUY else sells)[self.rows[order.instrument]] += order.left_lots
        for wired in world.venue.wire.values():
            if wired.valid_until_ms * NS_PER_MS >= world.now_ns:
                (buys if wired.side is Side.BUY else sells)[wired.row] += wired.lots
        return position, buys, sells

    def _contained(self) -> None:
        """Whatever may happen at the venue by our orders, we count with it."""
        account = self.world.state.account
        position, buys, sells = self._own_at_venue()
        our_buys, our_sells = working_lots(account, len(self.world.universe))
        expired = np.array([0 < i.expiry_ns <= self.world.now_ns for i in self.world.universe.instruments])
        high = account.position_lots + our_buys >= position + buys
        low = account.position_lots - our_sells <= position - sells
        for row in np.flatnonzero(~(high & low) & ~expired):
            raise PromiseBroken(
                f"{self.world.universe.instruments[row].name}: venue {position[row]} +{buys[row]} -{sells[row]}, "
                f"ours {account.position_lots[row]} +{our_buys[row]} -{our_sells[row]}"
            )

    def _allowed(self, order: CreateOrder) -> None:
        """No condition forbade this order."""
        world, row = self.world, order.row
        account, params = world.state.account, world.params
        name = world.universe.instruments[row].name
        promise(account.armed, "sent while disarmed")
        promise(not account.draining, "sent while draining")
        promise(account.mode is not Mode.HALTED, "sent while halted")
        promise(account.recording, "sent while the ledger fails")
        promise(account.ready, "sent before the account was reconciled")
        promise(self.public, f"{name}: sent while the market's stream is down")
        promise(not self.liquidated, f"{name}: sent after a liquidation, by nobody's word")
        promise(row not in self.regridded, f"{name}: sent though its grid changed")
        promise(not self.closed & {"", world.universe.instruments[row].underlying}, f"{name}: sent to a closed venue")
        option, now_ns = bool(world.universe.option[row]), world.now_ns
        if not option:
            self._true_book(row)
        stale_ms = params.state.stale_option_ms if option else params.state.stale_mark_ms
        promise(now_ns - self.mark_ns[row] <= stale_ms * NS_PER_MS, f"{name}: stale mark")
        promise(0 < self.mark[row] < np.inf, f"{name}: mark {self.mark[row]}")
        held = int(account.position_lots[row])
        shrinks = held * order.side.sign < 0 and order.lots <= abs(held)
        if not shrinks:
            promise(self.private, f"{name}: grows while the private stream is down")
            silent_ms = (now_ns - self.heard_ns) / NS_PER_MS
            promise(silent_ms <= params.state.stale_private_ms, f"{name}: grows, the private stream is silent")
            promise(account.mode is not Mode.FLATTENING, f"{name}: grows while flattening")
            promise(not account.quarantined[row], f"{name}: grows in quarantine")
            promise(self.watched, f"{name}: grows while nobody watches")
            stable = self.index.get(world.universe.instruments[row].settle_currency, 1.0)
            pegged = world.universe.instruments[row].settle_currency != STABLECOIN
            pegged = pegged or abs(stable - 1.0) <= params.guards.max_depeg
            promise(pegged, f"{name}: grows in a stablecoin worth {stable}")
            self._sane(order)

    def _never_through_flat(self, order: CreateOrder) -> None:
        """One that is to reduce only does so by itself: the venue's word for it may be forgotten."""
        account, side = self.world.state.account, order.side
        working = sum(
            abs(o.in_flight_lots) for o in account.orders.live() if o.row == order.row and o.side is side
        )  # it is among them
        held = -side.sign * int(account.position_lots[order.row])
        name = self.world.universe.instruments[order.row].name
        promise(not order.reduce_only or working <= held, f"{name}: {working} lots to reduce {held}")

    def _true_book(self, row: int) -> None:
        """Our best prices are the venue's as of the change we say we hold; before its first change a quote is what
        there is."""
        if not self.world.state.market.has_book[row]:
            return
        instrument, book = self.world.universe.instruments[row], self.world.state.market.books[row]
        top = self.world.venue.tops.get((row, book.last))
        bid, bid_amount, ask, ask_amount = book.best()
        ours = tuple(
            [(instrument.price_to_ticks(p), instrument.amount_to_lots(a))] if a > 0.0 else []
            for p, a in ((bid, bid_amount), (ask, ask_amount))
        )
        promise(book.usable, f"{instrument.name}: sent on a broken book")
        promise(top is None or top == ours, f"{instrument.name}: book {ours}, the venue's was {top}")

    def _sane(self, order: CreateOrder) -> None:
        """Nothing grows on a price of its underlying that cannot be true."""
        world = self.world
        underlying = world.universe.instruments[order.row].underlying
        told, true = self.index[underlying], world.exchange.index_price(underlying)
        promise(abs(told / true - 1.0) < 0.2, f"{underlying}: index told {told}, is {true}")
        for row in np.flatnonzero(world.state.account.position_lots):
            instrument = world.universe.instruments[row]
            if world.universe.option[row]:
                continue  # its delta rests on its forward and volatility
            if instrument.underlying == underlying and instrument.name in world.exchange.contracts:
                true = world.exchange.contracts[instrument.name].mark
                wrong = f"{instrument.name} is held: mark told {self.mark[row]}, is {true}"
                promise(abs(self.mark[row] / true - 1.0) < 0.2, wrong)

    def _no_hedge_by_option(self, order: CreateOrder) -> None:
        """An option is only ever traded towards flat, for its own sake."""
        world, row = self.world, order.row
        if not world.universe.option[row]:
            return
        view, limits = self._view(), world.params.guards
        name, held = world.universe.instruments[row].name, int(view.position_lots[row])
        promise(held * order.side.sign < 0 and order.lots <= abs(held), f"{name}: an option grows")
        usd = np.abs(view.position_lots) * view.notional_per_lot_usd
        too_much = usd[row] > limits.max_instrument_usd or _sum(usd) > limits.max_gross_usd
        flattening = world.state.account.mode is Mode.FLATTENING
        promise(flattening or too_much or view.pinned[row], f"{name}: an option traded for its delta")

    def _not_on_guesses(self, order: CreateOrder) -> None:
        """Where a held option's Greeks are modelled or contradicted, the delta measured does not grow."""
        view = self._view()
        u = view.universe.underlying[order.row]
        guessed = (view.position_lots != 0) & (view.modelled | view.greeks_off) & (view.universe.underlying == u)
        if not guessed.any() or self.world.state.account.mode is Mode.FLATTENING or view.universe.option[order.row]:
            return
        now, change = float(view.delta_usd[u]), order.side.sign * order.lots * float(view.delta_per_lot[order.row])
        name = view.universe.instruments[order.row].name
        why = f"{name}: {change:+,.0f} on a delta of {now:,.0f} of which options are guessed"
        promise(abs(now + change) <= abs(now) + 1.0, why)

    def _smaller(self, order: CreateOrder) -> None:
        """In reduce-only the delta of its underlying, as measured, comes down, or the position does."""
        view, account, row = self._view(), self.world.state.account, order.row
        held = int(account.position_lots[row])
        if account.mode is not Mode.REDUCE_ONLY or (held * order.side.sign < 0 and order.lots <= abs(held)):
            return
        name, u = view.universe.instruments[row].name, view.universe.underlying[row]
        now, change = float(view.delta_usd[u]), order.side.sign * order.lots * float(view.delta_per_lot[row])
        promise(abs(now + change) <= abs(now) + 1.0, f"{name}: {change:+,.0f} on {now:,.0f} in reduce-only")

    def _bounded(self, creates: list[CreateOrder]) -> None:
        """Whatever of our orders fills, no limit is passed that was not passed before and is not worsened."""
        world, limits = self.world, self.world.params.guards
        universe, market = world.universe, world.state.market
        position, buys, sells = self._own_at_venue()
        for foreign in world.state.account.orders.foreign.values():
            (buys if foreign.side is Side.BUY else sells)[foreign.row] += foreign.lots
        prices = market.underlying_prices(world.now_ns)[universe.underlying]
        mark = market.mark
        unit = np.where(universe.option, prices, mark)
        notional = np.where(universe.inverse, universe.lot_value, universe.lot_value * unit)
        with np.errstate(over="ignore"):  # where options are, others measure
            delta = np.where(universe.inverse, universe.lot_value * prices / mark, universe.lot_value * mark)
        pools = world.state.account.pools
        for order in creates:
            before = (position.copy(), buys.copy(), sells.copy())
            (buys if order.side is Side.BUY else sells)[order.row] += order.lots
            name = universe.instruments[order.row].name
            k = universe.underlying[order.row]
            coin = pools.get((0, universe.underlyings[k]))
            base = coin.equity * prices[order.row] if coin is not None else 0.0
            mine = universe.underlying == k

            def net(p: IntArray, b: IntArray, s: IntArray) -> tuple[float, float]:
                return (
                    _sum(delta[mine] * (p + b)[mine]) + base,  # noqa: B023
                    -_sum(delta[mine] * (p - s)[mine]) - base,  # noqa: B023
                )

            if universe.option.any():
                over_net = self._net_in_truth(order.row, before, (position, buys, sells))
            else:
                over_net = False
                for was, now in zip(net(*before), net(position, buys, sells), strict=True):
                    over_net |= was > limits.max_net_usd
                    why = f"{name}: net {now:,.0f} from {was:,.0f}"
                    promise(now <= max(limits.max_net_usd, was) + 1.0 + 1e-4 * limits.max_net_usd, why)
            if over_net:
                continue  # an order against a breach of the net is excused below it
            was_usd, now_usd = _worst(*before) * notional, _worst(position, buys, sells) * notional
            r = order.row
            promise(
                now_usd[r] <= max(limits.max_instrument_usd, was_usd[r]) + 1.0, f"{name}: instrument {now_usd[r]:,.0f}"
            )
            excused = was_usd[r] > limits.max_instrument_usd
            for limit, rows, most in (
                ("underlying", mine, limits.max_underlying_usd),
                ("venue", slice(None), limits.max_venue_usd),
                ("gross", slice(None), limits.max_gross_usd),
            ):
                was_sum, now_sum, cap = _sum(was_usd[rows]), _sum(now_usd[rows]), most or np.inf
                promise(excused or now_sum <= max(cap, was_sum) + 1.0, f"{name}: {limit} {now_sum:,.0f}")
                excused |= was_sum > cap

    def _net_in_truth(
        self, row: int, before: tuple[IntArray, IntArray, IntArray], after: tuple[IntArray, IntArray, IntArray]
    ) -> bool:
        """The net limit at the venue's own prices and our own Black, at the kindest of the recent moments. Returns
        whether it was broken before at any of them."""
        world, universe = self.world, self.world.universe
        k, limit = int(universe.underlying[row]), world.params.guards.max_net_usd
        mine = universe.option & (universe.underlying == k)
        lots = (np.abs(after[0]) + after[1] + after[2])[mine]
        spot = world.exchange.index_price(universe.underlyings[k])
        room = 1.0 + 1e-4 * limit + ROUNDING * spot * float(universe.lot_value[mine] @ lots)
        was, now = self.truth.extremes(k, *before), self.truth.extremes(k, *after)
        excess = now - np.maximum(limit, was)
        why = f"{universe.instruments[row].name}: true net {now[-1]} from {was[-1]}, room {room:,.0f}"
        promise((excess <= room).any(axis=0).all(), why)
        return bool((was > limit - room).any())


def _worst(position: IntArray, buys: IntArray, sells: IntArray) -> IntArray:
    return np.asarray(np.maximum(np.abs(position - sells), np.abs(position + buys)), dtype=np.int64)


def _sum(figures: np.ndarray) -> float:
    """Rows that nobody holds or trades count nothing, whatever their price."""
    return float(np.nansum(figures))
