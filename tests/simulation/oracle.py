"""What must hold at every step of every history, judged from the venue's side."""

from typing import TYPE_CHECKING

import numpy as np

from dea_daemon.domain.commands import Approved, CreateOrder
from dea_daemon.domain.decisions import Decision
from dea_daemon.domain.events import (
    AnyEvent,
    DecisionDue,
    FeedClosed,
    FeedOpened,
    IndexUpdated,
    InstrumentsListed,
    MarkUpdated,
)
from dea_daemon.domain.instruments import IntArray, Side
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.domain.orders import OrderState, is_own
from dea_daemon.state.view import working_lots
from dea_daemon.state.windows import lengthened
from dea_daemon.wiring.paper import ACCOUNT
from tests.simulation.truth import Truth

if TYPE_CHECKING:
    from tests.simulation.world import World

LOOK_BACK_S = 16.0  # no figure older than an option's may be and still count as fresh
ROUNDING = 0.03  # of the options' notional: our volatilities come from quotes, the venue's from its smile


class Oracle:
    """Compares both sides of a World."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.creates = 0
        self.rebased = 0
        self.truth = Truth(world.exchange, world.universe, LOOK_BACK_S)
        self.rows: dict[str, int] = {}
        self._expected: IntArray = np.zeros(0, dtype=np.int64)

    def began(self) -> None:
        """A run starts with nothing known of the market."""
        n = len(self.world.universe)
        self.rows = {i.name: r for r, i in enumerate(self.world.universe.instruments)}
        self.mark = np.full(n, np.nan)
        self.index: dict[str, float] = {}
        self.mark_ns = np.full(n, -(1 << 62))
        self._expected = self.world.state.account.position_lots.copy()
        self.public = self.private = False
        self.inside_ns: dict[str, int] = {}

    def look(self) -> None:
        """The venue moved on. Without options its deltas are what we are told."""
        if self.world.universe.option.any():
            self.truth.look(self.world.now_ns)

    def _grow(self) -> None:
        """Contracts joined."""
        n = len(self.world.universe)
        self.rows = {i.name: r for r, i in enumerate(self.world.universe.instruments)}
        self.mark, self.mark_ns = lengthened(self.mark, n, np.nan), lengthened(self.mark_ns, n, -(1 << 62))
        self._expected = lengthened(self._expected, n, 0)

    # --- each step -------------------------------------------------------------------------------

    def before(self, event: AnyEvent) -> None:
        """What we are about to be told, as an outsider understands it."""
        match event:
            case InstrumentsListed():
                self._grow()
            case MarkUpdated(row=row):
                self.mark[row], self.mark_ns[row] = event.mark_price, event.ts_recv_ns
            case IndexUpdated(currency=currency) if 0 < event.price < np.inf:
                self.index[currency] = event.price
            case FeedClosed(private=True):
                self.private = False
            case FeedOpened(private=True):
                self.private = True
            case FeedClosed(private=False):
                self.public = False
            case FeedOpened(private=False):
                self.public = True

    def after(self, event: AnyEvent, decision: Decision) -> None:
        account = self.world.state.account
        self._positions(decision)
        creates = [c.order for c in decision.commands if isinstance(c, Approved)]
        if isinstance(event, DecisionDue):
            self._arrays()
            self._known()
            self._remember(decision)
            if account.ready:
                self._contained()
        for order in creates:
            self.creates += 1
            self._allowed(order)
            self._no_hedge_by_option(order)
            self._not_on_guesses(order)
        if creates:
            self._bounded(creates)
        for label, times in self.world.venue.accepted.items():
            assert times == 1, f"{label} was taken {times} times"

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
        assert (self._expected == account.position_lots).all(), "a position moved without a fill"

    def _remember(self, decision: Decision) -> None:
        """When each factor was last inside its band, or held outside it by a limit."""
        assert decision.record is not None
        clipped = any(clip.limit in ("net", "instrument", "gross") for clip in decision.record.clips)
        for line in decision.record.factors[: len(self.world.universe.underlyings)]:  # the others have no band
            if clipped or abs(line.actual_usd - line.target_usd) <= line.band_usd:
                self.inside_ns[line.factor] = self.world.now_ns

    def _arrays(self) -> None:
        account = self.world.state.account
        for order in account.orders.own.values():
            assert order.in_flight_lots * order.side.sign >= 0, order
            assert 0 <= order.filled_lots <= order.lots, order
        assert not np.isnan(account.peak_equity_usd)
        for figure in (account.turnover.total, account.fees.total, account.creates.total):
            assert figure >= 0.0

    def _known(self) -> None:
        """Nothing that is said of an option leaves us without a figure: exposure has one wherever the index, the
        pools, and the marks of what is held but options do."""
        view, account = self.world.state.view, self.world.state.account
        assert view is not None
        plain = (view.position_lots != 0) & ~view.universe.option
        plain &= (view.universe.expiry_ns == 0) | (view.universe.expiry_ns > view.utc_ns)
        unpriced = np.unique(view.universe.underlying[plain & ~np.isfinite(view.mark_price)])
        for u, name in enumerate(view.universe.underlyings):
            if u in unpriced or not np.isfinite(view.underlying_price[u]) or not account.adopted[0]:
                continue
            for k, factor in enumerate(view.factors.names):
                if factor.split(":")[1] == name and not factor.startswith("carry"):
                    assert np.isfinite(view.exposure_usd[k]), f"{factor} is unknown"

    def _own_at_venue(self) -> tuple[IntArray, IntArray, IntArray]:
        """True position without hands not yet heard of, and own lots to buy and sell: open there or on the wire."""
        world, n = self.world, len(self.world.universe)
        position, buys, sells = (np.zeros(n, dtype=np.int64) for _ in range(3))
        for held in world.exchange.positions(ACCOUNT):
            position[self.rows[held.instrument]] = held.lots
        for fill in world.exchange.fills(ACCOUNT):
            if not is_own(fill.label) and (0, fill.trade_id) not in world.state.account.fills_seen:
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
            raise AssertionError(
                f"{self.world.universe.instruments[row].name}: venue {position[row]} +{buys[row]} -{sells[row]}, "
                f"ours {account.position_lots[row]} +{our_buys[row]} -{our_sells[row]}"
            )

    def _allowed(self, order: CreateOrder) -> None:
        """No condition forbade this order."""
        world, row = self.world, order.row
        account, params = world.state.account, world.params
        name = world.universe.instruments[row].name
        assert account.armed, "sent while disarmed"
        assert not account.draining, "sent while draining"
        assert account.mode is not Mode.HALTED, "sent while halted"
        assert account.recording, "sent while the ledger fails"
        assert account.ready, "sent before the account was reconciled"
        assert self.public, f"{name}: sent while the market's stream is down"
        option, now_ns = bool(world.universe.option[row]), world.now_ns
        if not option:
            self._true_book(row)
        stale_ms = params.state.stale_option_ms if option else params.state.stale_mark_ms
        assert now_ns - self.mark_ns[row] <= stale_ms * NS_PER_MS, f"{name}: stale mark"
        assert 0 < self.mark[row] < np.inf, f"{name}: mark {self.mark[row]}"
        held = int(account.position_lots[row])
        shrinks = held * order.side.sign < 0 and order.lots <= abs(held)
        if not shrinks:
            assert self.private, f"{name}: grows while the private stream is down"
            assert account.mode is not Mode.FLATTENING, f"{name}: grows while flattening"
            assert not account.quarantined[row], f"{name}: grows in quarantine"
            self._sane(order)

    def _true_book(self, row: int) -> None:
        """Our best prices are the venue's as of the change we say we hold."""
        instrument, book = self.world.universe.instruments[row], self.world.state.market.books[row]
        top = self.world.venue.tops.get((row, book.last))
        bid, _, ask, _ = book.best()
        ours = tuple(
            [(instrument.price_to_ticks(p), instrument.amount_to_lots(a))]
            for p, a in ((bid, book.bids.amounts[bid]), (ask, book.asks.amounts[ask]))
        )
        assert book.usable, f"{instrument.name}: sent on a broken book"
        assert top is None or top == ours, f"{instrument.name}: book {ours}, the venue's was {top}"

    def _sane(self, order: CreateOrder) -> None:
        """Nothing grows on a price of its underlying that cannot be true."""
        world = self.world
        underlying = world.universe.instruments[order.row].underlying
        told, true = self.index[underlying], world.exchange.index_price(underlying)
        assert abs(told / true - 1.0) < 0.2, f"{underlying}: index told {told}, is {true}"
        for row in np.flatnonzero(world.state.account.position_lots):
            instrument = world.universe.instruments[row]
            if world.universe.option[row]:
                continue  # its delta rests on its forward and volatility
            if instrument.underlying == underlying and instrument.name in world.exchange.contracts:
                true = world.exchange.contracts[instrument.name].mark
                wrong = f"{instrument.name} is held: mark told {self.mark[row]}, is {true}"
                assert abs(self.mark[row] / true - 1.0) < 0.2, wrong

    def _no_hedge_by_option(self, order: CreateOrder) -> None:
        """An option is only ever traded towards flat, for its own sake."""
        world, row = self.world, order.row
        if not world.universe.option[row]:
            return
        view, limits = world.state.view, world.params.guards
        assert view is not None
        name, held = world.universe.instruments[row].name, int(view.position_lots[row])
        assert held * order.side.sign < 0 and order.lots <= abs(held), f"{name}: an option grows"
        usd = np.abs(view.position_lots) * view.notional_per_lot_usd
        too_much = usd[row] > limits.max_instrument_usd or _sum(usd) > limits.max_gross_usd
        flattening = world.state.account.mode is Mode.FLATTENING
        assert flattening or too_much or view.pinned[row], f"{name}: an option traded for its delta"

    def _not_on_guesses(self, order: CreateOrder) -> None:
        """Where a held option's Greeks are modelled or contradicted, the delta measured does not grow."""
        view = self.world.state.view
        assert view is not None
        u = view.universe.underlying[order.row]
        guessed = (view.position_lots != 0) & (view.modelled | view.greeks_off) & (view.universe.underlying == u)
        if not guessed.any() or self.world.state.account.mode is Mode.FLATTENING or view.universe.option[order.row]:
            return
        now, change = float(view.delta_usd[u]), order.side.sign * order.lots * float(view.delta_per_lot[order.row])
        name = view.universe.instruments[order.row].name
        why = f"{name}: {change:+,.0f} on a delta of {now:,.0f} of which options are guessed"
        assert abs(now + change) <= abs(now) + 1.0, why

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
                    assert now <= max(limits.max_net_usd, was) + 1.0 + 1e-4 * limits.max_net_usd, why
            if over_net:
                continue  # an order against a breach of the net is excused below it
            was_usd, now_usd = _worst(*before) * notional, _worst(position, buys, sells) * notional
            r = order.row
            assert now_usd[r] <= max(limits.max_instrument_usd, was_usd[r]) + 1.0, (
                f"{name}: instrument {now_usd[r]:,.0f}"
            )
            gross_was, gross = _sum(was_usd), _sum(now_usd)
            held_over = was_usd[r] > limits.max_instrument_usd
            assert held_over or gross <= max(limits.max_gross_usd, gross_was) + 1.0, f"{name}: gross {gross:,.0f}"

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
        assert (excess <= room).any(axis=0).all(), why
        return bool((was > limit - room).any())

    # --- the end ---------------------------------------------------------------------------------

    def settled(self) -> None:
        """Both sides agree, nothing is in doubt, and exposure is where it should be."""
        world = self.world
        account = world.state.account
        assert account.ready and account.mode is Mode.NORMAL, f"ready {account.ready}, {account.mode.name}"
        theirs = np.zeros(len(self.rows), dtype=np.int64)
        for held in world.exchange.positions(ACCOUNT):
            theirs[self.rows[held.instrument]] = held.lots
        working = {o.row for o in account.orders.live()}
        for name, row in self.rows.items():
            if row not in working:
                assert theirs[row] == account.position_lots[row], (
                    f"{name}: {account.position_lots[row]}, venue {theirs[row]}"
                )
        self._joined()
        self._true_delta()
        assert not account.quarantined.any(), [
            i.name for i, q in zip(world.universe.instruments, account.quarantined, strict=True) if q
        ]
        unknown = [o for o in account.orders.own.values() if o.state is OrderState.UNKNOWN]
        assert not [o for o in unknown if world.now_ns - o.created_ns > 10_000 * NS_PER_MS], unknown
        open_there = {o.label for o in world.exchange.open_orders(ACCOUNT)}
        ours = {o.client_order_id for o in account.orders.live()}
        assert open_there <= ours, f"open at the venue, not with us: {open_there - ours}"
        stuck = [
            o
            for o in account.orders.live()
            if world.now_ns - o.created_ns > 20_000 * NS_PER_MS and o.client_order_id not in open_there
        ]
        assert not stuck, f"live with us, not at the venue: {stuck}"
        assert not account.orders.foreign, account.orders.foreign
        for factor, last_ns in self.inside_ns.items():
            assert world.now_ns - last_ns < 20_000 * NS_PER_MS, f"{factor} is outside its band"
        for currency in world.exchange.currencies():
            equity = world.exchange.summary(ACCOUNT, currency).equity
            ours_equity = account.pools[0, currency].equity
            assert abs(ours_equity - equity) <= 0.02 * abs(equity) + 1e-9, (currency, ours_equity, equity)

    def _true_delta(self) -> None:
        """What we believe to be exposed to was the venue's truth a moment ago."""
        universe, view = self.world.universe, self.world.state.view
        if view is None:
            return  # contracts joined this very moment, and nothing was decided since
        none = np.zeros(len(universe), dtype=np.int64)
        for k, name in enumerate(universe.underlyings if universe.option.any() else ()):
            mine = universe.option & (universe.underlying == k)
            coins = float(universe.lot_value[mine] @ np.abs(view.position_lots[mine]))
            true = self.truth.extremes(k, view.position_lots, none, none)[:, 0]
            room = 0.002 * abs(true[-1]) + ROUNDING * coins * self.world.exchange.index_price(name)
            off = np.abs(true - view.delta_usd[k]).min()
            assert off <= room, f"{name}: delta {view.delta_usd[k]:,.0f}, in truth {true[-1]:,.0f}"

    def _joined(self) -> None:
        """Every contract of the venue has a row, and a price that is the venue's."""
        world = self.world
        for name, contract in world.exchange.contracts.items():
            assert name in self.rows, f"{name} never joined"
            told = world.state.market.mark[self.rows[name]]
            off = abs(told - contract.mark)
            near = off <= 0.05 * contract.mark + 20.0 * contract.tick
            assert near, f"{name}: mark {told}, the venue's is {contract.mark}"


def _worst(position: IntArray, buys: IntArray, sells: IntArray) -> IntArray:
    return np.asarray(np.maximum(np.abs(position - sells), np.abs(position + buys)), dtype=np.int64)


def _sum(figures: np.ndarray) -> float:
    """Rows that nobody holds or trades count nothing, whatever their price."""
    return float(np.nansum(figures))
