"""Hypothesis as adversary: allocator, plan, venue, prices and operator in one, against guards and `admit`.

The judge of `tests.guards.adversary` enumerates what may fill and measures for itself. Two attacks: on the guards
alone, with any orders on any book; and on the whole core, with any history.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dea_daemon.domain.commands import Approved, CancelOrder, CreateOrder
from dea_daemon.domain.decisions import View
from dea_daemon.domain.events import (
    AccountReported,
    BookDelta,
    BookSnapshot,
    CancelRefused,
    CancelUnknown,
    CreateRefused,
    CreateUnknown,
    FeedClosed,
    FeedOpened,
    FillReceived,
    IndexUpdated,
    MarkUpdated,
    Operator,
    OperatorSpoke,
    OrderEvidence,
    OrderSeen,
    ParametersReloaded,
    PoolReport,
    PoolUpdated,
    RecordFailed,
    RecordRestored,
    VenueOrderState,
)
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.orders import Order, OrderState, TimeInForce
from dea_daemon.domain.parameters import GuardParameters, Parameters
from dea_daemon.engine import reload
from dea_daemon.guards.admit import admit
from dea_daemon.guards.guard import guard
from tests.guards.adversary import Judge, Working
from tests.guards.views import COIN_PUT, MARK, SPOT, UNIVERSE, WITH_OPTIONS, view
from tests.house import INSTRUMENTS, MS, START_NS, Run, parameters

# --- the guards alone --------------------------------------------------------------------------------------

UNIT = (1_000, 1_000, 1_250, 10_000, 1, 1, 12, 12)  # lots, each about ten thousand dollars of its contract
DEADLINE_MS = START_NS // MS + 2_000
USD = st.sampled_from([2.5e4, 5e4, 1e5, 1e6, 3e6, 3e6])
GREEK = st.none() | st.sampled_from([20.0, 100.0, 500.0, 5_000.0])
NAN = float("nan")
LOSS = st.none() | st.sampled_from([0.005, 0.02, 0.1])
RARE_LIMITS = {
    "max_stress_loss": LOSS,
    "max_var": LOSS,
    "max_es": LOSS,
    "max_underlying_usd": st.none() | USD,
    "max_underlying_leverage": st.none() | st.sampled_from([0.05, 0.2]),
    "max_venue_usd": st.none() | USD,
    "max_bucket_vega_usd_1pt": GREEK,
    "max_bucket_basis_usd_1pct": GREEK,
    "min_liquidation_distance": st.none() | st.just(0.1),
}
RARELY = st.integers(0, 4).map(lambda k: k == 4)


@st.composite
def limits(draw) -> GuardParameters:
    """Most hold a few of the lots below, so that books are inside, at, and beyond them."""
    changes: dict[str, Any] = {
        "max_net_usd": draw(USD),
        "max_gross_usd": draw(USD),
        "max_instrument_usd": draw(USD),
        "max_order_usd": 1e7,
        "max_gamma_usd_1pct": draw(GREEK),
        "max_vega_usd_1pt": draw(GREEK),
        "max_scenario_loss": draw(LOSS),
        "max_net_leverage": draw(st.none() | st.sampled_from([0.05, 0.2])),
        "max_turnover_usd_per_hour": 1e8,
        "max_fees_usd_per_hour": 1e6,
        "max_orders_per_minute": 1_000,
    }
    if draw(RARELY):
        changes |= {name: draw(values) for name, values in RARE_LIMITS.items()}
    if draw(RARELY):
        changes["max_order_usd"] = draw(st.sampled_from([2e4, 1e5]))
        changes["max_turnover_usd_per_hour"] = 1e5
        changes["max_fees_usd_per_hour"] = draw(st.sampled_from([30.0, 1e6]))
        changes["max_orders_per_minute"] = draw(st.sampled_from([2, 1_000]))
    return parameters(guards=changes).guards


@st.composite
def lots_of(draw, rows: int, most: int = 6, spread: int = 4) -> np.ndarray:
    """Signed lots in a few of the rows."""
    out = np.zeros(rows, dtype=np.int64)
    for row in draw(st.lists(st.integers(0, rows - 1), max_size=spread, unique=True)):
        out[row] = draw(st.integers(-most, most)) * UNIT[row] + draw(st.sampled_from([0, 0, 1, -1]))
    return out


def ticks(row: int, price: float) -> int:
    return max(WITH_OPTIONS.instruments[row].price_to_ticks(price), 1)


@st.composite
def orders_for(draw, v: View, count: int) -> list[CreateOrder]:
    """Any row, side, size and price, most of them such as an honest plan could make."""
    out = []
    for k in range(count):
        row, side = draw(st.integers(0, len(v.universe) - 1)), draw(st.sampled_from(Side))
        size = draw(st.integers(1, 6)) * UNIT[row] if draw(st.booleans()) else draw(st.integers(1, 3))
        if draw(st.integers(0, 3)) == 0:  # just what is held
            size = abs(int(v.position_lots[row])) or size
        mark = float(v.mark_price[row])
        odd = draw(RARELY)
        skew = draw(st.sampled_from([0.001, -0.001, 0.2, -0.2])) if odd else 0.0
        price = ticks(row, mark * (1.0 + skew)) if mark == mark else 1_000
        name, alive_ms = draw(st.sampled_from([f"d{k}", "d0"])) if odd else f"d{k}", -5_000 * (odd and draw(RARELY))
        out.append(
            CreateOrder(
                name, row, side, size, price, TimeInForce.IOC, False, False, DEADLINE_MS + alive_ms, 1, "attack"
            )
        )
    return out


ODD = {
    "mode": st.sampled_from([Mode.NORMAL, *Mode]),
    "margin_use": st.sampled_from([0.0] * 6 + [0.65, 0.9, NAN]),
    "equity_usd": st.sampled_from([1e6] * 5 + [1e5, 0.0, -5.0, NAN]),
    **{name: st.sampled_from([True] * 7 + [False]) for name in ("armed", "ready", "account_fresh", "recording")},
    "draining": st.sampled_from([False] * 7 + [True]),
    "outside": st.sampled_from([()] * 7 + [("SOL-PERPETUAL",)]),
    "watched": st.sampled_from([True] * 7 + [False]),
    "liquidation_distance": st.sampled_from([1.0] * 5 + [0.05, 0.0, NAN]),
    "creates_last_minute": st.sampled_from([0, 0, 0, 119]),
    "turnover_hour_usd": st.sampled_from([0.0, 0.0, 5e4]),
}


@st.composite
def books(draw) -> tuple[View, list[Working]]:
    """What is held and working, at prices that may be missing or absurd."""
    universe = draw(st.sampled_from([UNIVERSE, WITH_OPTIONS]))
    n = len(universe)
    held = draw(lots_of(n))
    working = [Working(row, int(lots)) for _ in range(2) for row, lots in enumerate(draw(lots_of(n, 3, 2))) if lots]
    buys, sells = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for row, lots in working:
        (buys if lots > 0 else sells)[row] += abs(lots)
    mark = MARK.copy()
    odd = draw(RARELY)
    if odd:
        mark[draw(st.integers(0, 3))] *= draw(st.sampled_from([NAN, 1.5, 0.1, 1e6, 1.004]))
    changes = {name: draw(values) for name, values in ODD.items()} if draw(RARELY) else {}
    base = [draw(st.sampled_from([0.0, 0.0, 4e4, -2e4, 2e5])) for _ in SPOT]
    made = view(held, buys, sells, base, mark, universe=universe, **changes)
    flags: dict[str, Any] = {
        name: np.array([draw(st.sampled_from([usual] * 9 + [not usual])) for _ in range(n)])
        if odd
        else np.full(n, usual)
        for name, usual in (("fresh", True), ("quarantined", False), ("shut", False))
    }
    if odd:
        flags["peg"] = np.array([draw(st.sampled_from([1.0, 1.0, 1.0, 0.98, 1.02])) for _ in range(n)])
    ours = tuple(_own(draw, universe, k, w) for k, w in enumerate(working) if draw(st.booleans()))
    return replace(made, orders=ours, **flags), working


def _own(draw, universe, k: int, working: Working) -> Order:
    side = Side.BUY if working.lots > 0 else Side.SELL
    price = float(np.append(MARK, [0.05, 0.4, 4_000.0, 6_000.0])[working.row]) * draw(
        st.sampled_from([1.0, 0.99, 1.01])
    )
    state = draw(st.sampled_from([OrderState.OPEN, OrderState.UNKNOWN, OrderState.PENDING]))
    return Order(
        f"w{k}", working.row, side, abs(working.lots), ticks(working.row, price), TimeInForce.GTC, False, False,
        DEADLINE_MS, 1, START_NS, state,
    )  # fmt: skip


@st.composite
def attacks(draw):
    made, working = draw(books())
    wanted = draw(lots_of(len(made.universe), 40, 6))
    return made, working, wanted, draw(orders_for(made, draw(st.integers(1, 4)))), draw(limits())


def judged(attack) -> list[CreateOrder]:
    """What got through; each against the book that all before it leave."""
    made, working, wanted, orders, params = attack
    permit = guard(made, wanted, params)
    out, refusals = admit(permit, orders, params)
    approved = [command.order for command in out if isinstance(command, Approved)]
    assert len(approved) + len(refusals) == len(orders)
    assert len({o.client_order_id for o in approved}) == len(approved)
    judge = Judge(made, working, params)
    for order in approved:
        assert not (why := judge.objections(order)), (order, why)
    return approved


@pytest.mark.timeout(240)
@settings(max_examples=700, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(attacks())
def test_no_order_on_any_book_gets_past_a_limit_or_worsens_a_breach(attack):
    judged(attack)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@settings(max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(attacks())
def test_thousands_of_attacks_on_any_book(attack):
    judged(attack)


# --- what it found, smallest ---------------------------------------------------------------------------------

OPEN_LIMITS: dict[str, Any] = {
    "max_gross_usd": 3e6, "max_net_usd": 1e6, "max_instrument_usd": 1e6, "max_order_usd": 1e7,
    "max_turnover_usd_per_hour": 1e8, "max_fees_usd_per_hour": 1e6,
}  # fmt: skip


def crossing(row: int, side: Side, lots: int, price_ticks: int) -> CreateOrder:
    return CreateOrder("d0", row, side, lots, price_ticks, TimeInForce.IOC, False, False, DEADLINE_MS, 1, "attack")


def test_a_breach_on_one_side_of_a_limit_excuses_nothing_on_the_other():
    """Gamma is too long as held, and too short should the calls at work be sold: selling a put worsens the latter."""
    made = view((0, 0, 0, 0, -6, 6, 0, 59), sells=(0, 0, 0, 0, 0, 0, 0, 36), universe=WITH_OPTIONS)
    params = parameters(guards=OPEN_LIMITS | {"max_gamma_usd_1pct": 100.0}).guards
    order = crossing(COIN_PUT, Side.SELL, 1, 3_750)
    assert not judged((made, [Working(7, -36)], made.position_lots, [order], params))


def test_a_breach_that_an_order_does_not_reduce_excuses_nothing():
    """The scenario's breach is that of a put at work; closing the short future makes the book lose more, not less."""
    made = view((-6_000, 0, 0, 0, 2, -2), buys=(0, 0, 0, 0, 0, 1), universe=WITH_OPTIONS)
    limits_usd = {"max_scenario_loss": 0.005, "max_net_usd": 25e3, "max_gross_usd": 25e3, "max_instrument_usd": 25e3}
    params = parameters(guards=OPEN_LIMITS | limits_usd).guards
    order = crossing(0, Side.BUY, 6_000, 160_000)
    assert not judged((made, [Working(5, 1)], made.position_lots, [order], params))


@pytest.mark.parametrize("limit", ["gross", "net", "instrument", "underlying", "venue"])
@pytest.mark.parametrize("held", [0, -3_000])
@pytest.mark.parametrize("equity_usd", [-5.0, -1e5])
def test_a_limit_of_so_many_times_a_negative_equity_lets_positions_only_shrink(limit, held, equity_usd):
    made = view((held, 0, 0, 0), equity_usd=equity_usd)
    params = parameters(guards={f"max_{limit}_leverage": 0.05}).guards
    permit = guard(made, np.array([1_000, 0, 0, 0]), params)
    assert held <= permit.position_lots[0] <= 0
    assert not permit.position_lots[1:].any()


# --- the whole core ----------------------------------------------------------------------------------------

WILD = {"max_order_usd": 400_000, "max_turnover_usd_per_hour": 1e9, "max_fees_usd_per_hour": 1e7}


def wild(btc_usd: float, eth_usd: float, guards: dict[str, Any], **execution: Any) -> Parameters:
    targets = {u: {"kind": "fixed", "delta_usd": d, "band_usd": 500} for u, d in (("BTC", btc_usd), ("ETH", eth_usd))}
    return parameters(guards=WILD | guards, allocator={"targets": targets}, execution={"slice_usd": 3e5} | execution)


FREE = wild(150_000, -60_000, {})


@st.composite
def reloads(draw) -> Parameters:
    """Any target, however absurd, and limits that come and go."""
    aim = st.sampled_from([0.0, 1e5, -1e5, 3e5, -3e5, 1e7, -1e9])
    guards = {
        "max_net_usd": draw(st.sampled_from([5e3, 8e4, 2e5, 4e5])),
        "max_gross_usd": draw(st.sampled_from([2e4, 3e5, 1e6])),
        "max_instrument_usd": draw(st.sampled_from([5e3, 1e5, 3e5])),
        "max_scenario_loss": draw(st.none() | st.sampled_from([0.001, 0.05, 0.2])),
        "max_net_leverage": draw(st.none() | st.sampled_from([0.1, 1.0])),
        "max_order_usd": draw(st.sampled_from([2e4, 4e5])),
        "max_daily_loss": draw(st.none() | st.just(0.05)),
    }
    order_type = draw(st.sampled_from(["passive", "taker"]))
    return wild(draw(aim), draw(aim), guards, order_type=order_type, slice_usd=draw(st.sampled_from([2e4, 1e6])))


class Core(RuleBasedStateMachine):
    """Any history of one run. What is known of orders and positions is kept here a second time, from the events
    alone; each order that leaves is judged by it."""

    def __init__(self) -> None:
        super().__init__()
        self.run = Run(FREE)
        self.params = FREE
        self.sent: dict[str, CreateOrder] = {}
        self.filled: dict[str, int] = {}  # lots heard of in fills
        self.told: dict[str, int] = {}  # lots the venue said were filled
        self.ended: set[str] = set()
        self.refused: set[str] = set()  # said never to have lived
        self.foreign: dict[str, Working] = {}
        self.position = np.zeros(len(INSTRUMENTS), dtype=np.int64)
        self.armed, self.stopped, self.number = True, False, 0
        self.quiet = False

    @initialize(pools=st.sampled_from([{"USDC": 500_000.0}, {"USDC": 50_000.0, "BTC": 2.0}]))
    def start(self, pools):
        self.run.pools = dict(pools)
        self.run.settle()

    # --- what is known, a second time

    def working(self) -> list[Working]:
        """By what was sent and heard of: all that is left while it may live, else what is said to be coming."""
        out = list(self.foreign.values())
        for key, order in self.sent.items():
            got, ended = self.filled.get(key, 0), key in self.ended
            left = max(self.told.get(key, 0) - got, 0) if ended else order.lots - got
            out.append(Working(order.row, order.side.sign * left))
        return out

    def feed(self, event):
        self.heed(self.run.feed(event))

    def heed(self, decision):
        """Positions are taken over from the venue where the core says that it did; orders, where it judged so."""
        for note in decision.notes:
            if note.event in ("account.adopted", "account.drift_confirmed"):
                self.position = self.run.state.account.position_lots.copy()
            if note.event in ("order.forgotten", "order.proved_absent"):
                self.ended.add(note.fields["client_order_id"])

    # --- time and decisions

    @invariant()
    def decide(self, utc_shift_ms=0):
        """After every event a tick, the verdict on whatever it sends, and new prices unless the feed is quiet."""
        self.run.pass_time(50)
        mode = self.run.state.account.mode
        decision = self.run.tick(utc_shift_ms=utc_shift_ms)
        self.heed(decision)
        self.judge(decision, mode)
        if not self.quiet:
            self.run.quote()

    @rule(milliseconds=st.sampled_from([300, 2_500, 4_000, 16_000]), quiet=st.booleans())
    def wait(self, milliseconds, quiet):
        self.run.pass_time(milliseconds)
        self.quiet = quiet
        self.decide()

    @rule(by_ms=st.sampled_from([700, -3_000]))
    def clock_steps(self, by_ms):
        self.decide(by_ms)

    def judge(self, decision, mode) -> None:
        account, seen = self.run.state.account, self.run.state.view
        assert seen is not None
        assert (account.position_lots == self.position).all()
        judge = Judge(replace(seen, position_lots=self.position), self.working(), self.params.guards)
        for command in decision.commands:
            if isinstance(command, CancelOrder):
                assert command.client_order_id in self.sent, "somebody else's order is cancelled"
            if isinstance(command, Approved):
                order = command.order
                assert order.client_order_id not in self.sent
                assert self.armed and not self.stopped and mode not in (Mode.HALTED, Mode.PAUSED)
                assert not (why := judge.objections(order)), (order, why)
                self.sent[order.client_order_id] = order

    @rule(data=st.data())
    def prices(self, data):
        """All fresh, after a move."""
        for currency in self.run.prices:
            move = data.draw(st.sampled_from([0.0, 0.002, -0.002, 0.06, -0.06, 0.3, -0.25]))
            self.run.prices[currency] = round(self.run.prices[currency] * (1.0 + move), 1)
        self.run.quote()

    @rule(row=st.integers(0, 3), mark=st.sampled_from([NAN, 0.0, -1.0, float("inf"), 1e9, 1.0, 82_000.0, 3_100.0]))
    def absurd_mark(self, row, mark):
        self.feed(MarkUpdated(self.run.now_ns, self.run.now_ns, row, mark, NAN, NAN))

    @rule(currency=st.sampled_from(["BTC", "ETH", "USDC"]), price=st.sampled_from([NAN, 0.0, 1e9, 0.97, 1.0, 60_000.0]))
    def absurd_index(self, currency, price):
        self.feed(IndexUpdated(self.run.now_ns, self.run.now_ns, 0, currency, price))

    @rule(row=st.integers(0, 3), what=st.sampled_from(["gap", "crossed", "empty", "closed"]))
    def absurd_book(self, row, what):
        now = self.run.now_ns
        match what:
            case "gap":
                self.feed(BookDelta(now, now, row, 5, 5, 4, [(1.0, 1.0)], []))
            case "closed":
                self.feed(FeedClosed(now, "public", 0, False, (row,), "test"))
            case _:
                bids, asks = ([(100.0, 1.0)], [(90.0, 1.0)]) if what == "crossed" else ([], [])
                self.feed(BookSnapshot(now, now, row, now, bids, asks))

    # --- our orders

    def one(self, data) -> CreateOrder:
        return self.sent[data.draw(st.sampled_from(sorted(self.sent)))]

    @precondition(lambda self: set(self.sent) - self.ended)
    @rule(share=st.sampled_from([1.0, 0.5]))
    def work_fills(self, share):
        for key in sorted(set(self.sent) - self.ended):
            self._fill(self.sent[key], share)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), share=st.sampled_from([1.0, 0.1]))
    def late_fill(self, data, share):
        """Even of an order that was said to be over."""
        self._fill(self.one(data), share)

    def _fill(self, order, share) -> None:
        key = order.client_order_id
        lots = min(max(int(order.lots * share), 1), order.lots - self.filled.get(key, 0))
        if not lots:
            return
        self.filled[key] = self.filled.get(key, 0) + lots
        self.position[order.row] += order.side.sign * lots
        if self.filled[key] == order.lots:
            self.ended.add(key)
        elif key in self.refused:
            self.ended.discard(key)
            self.refused.discard(key)
        self.heed(self.run.fill(order, lots))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), state=st.sampled_from(VenueOrderState), ahead=st.sampled_from([0.0, 0.5, 1.0]))
    def tell(self, data, state, ahead):
        """The venue's word on an order; it knows of at least the fills that it told."""
        order = self.one(data)
        key = order.client_order_id
        if (key in self.ended) != (state is not VenueOrderState.OPEN) and key in self.ended:
            return  # old news, which the lifecycle's own tests shuffle
        got = self.filled.get(key, 0)
        told = max(got, int(order.lots * ahead), self.told.get(key, 0))
        if state is VenueOrderState.FILLED:
            told = order.lots
        elif state is VenueOrderState.REJECTED and (told or key in self.ended):
            return
        self.told[key] = told
        if state is not VenueOrderState.OPEN:
            self.ended.add(key)
            if state is VenueOrderState.REJECTED:
                self.refused.add(key)
        self.heed(self.run.seen(order, state, told))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), what=st.sampled_from([CreateUnknown, CancelUnknown, CancelRefused]))
    def no_answer(self, data, what):
        self.feed(what(self.run.now_ns, self.one(data).client_order_id, "lost"))

    @precondition(lambda self: set(self.sent) - self.ended - set(self.filled) - set(self.told))
    @rule(data=st.data())
    def refuse(self, data):
        """A definite no; an order it is not believed of lives on."""
        key = data.draw(st.sampled_from(sorted(set(self.sent) - self.ended - set(self.filled) - set(self.told))))
        state = self.run.state.account.orders.own[key].state
        if state in (OrderState.PENDING, OrderState.UNKNOWN):
            self.ended.add(key)
            self.refused.add(key)
        self.feed(CreateRefused(self.run.now_ns, key, True, "no"))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), complete=st.booleans(), late_ms=st.sampled_from([0, 4_000]))
    def ask_for_one(self, data, complete, late_ms):
        """The venue knows of no such order."""
        now_ns = self.run.now_ns
        self.run.pass_time(late_ms)
        key = self.one(data).client_order_id
        self.feed(OrderEvidence(self.run.now_ns, key, now_ns + late_ms * MS, complete, (), (), asked_ns=now_ns))

    # --- the account

    @rule(row=st.integers(0, 3), size=st.integers(-5, 5), known=st.booleans(), liquidated=st.integers(0, 9))
    def somebody_trades(self, row, size, known, liquidated):
        """By hand, or the venue; heard of, or only to be found in the next report."""
        if not (lots := size * UNIT[row]):
            return
        self.run.positions[row] = self.run.positions.get(row, 0) + lots
        if known:
            self.number += 1
            side, now = Side.BUY if lots > 0 else Side.SELL, self.run.now_ns
            self.position[row] += lots
            trade = (f"H{self.number}", f"V{self.number}", "", side, abs(lots), 100, 0.0, "BTC", False, not liquidated)
            self.feed(FillReceived(now, now, 0, row, *trade))

    @rule(row=st.integers(0, 3), size=st.integers(-5, 5), name=st.sampled_from("ab"), is_open=st.booleans())
    def somebody_orders(self, row, size, name, is_open):
        if not (lots := size * UNIT[row]):
            return
        side, now = Side.BUY if lots > 0 else Side.SELL, self.run.now_ns
        state = VenueOrderState.OPEN if is_open else VenueOrderState.CANCELLED
        self.feed(OrderSeen(now, now, 0, row, "", name, state, side, abs(lots), 0, 100))
        self.foreign.pop(name, None)
        if is_open:
            self.foreign[name] = Working(row, lots)

    @rule(kind=st.sampled_from(["true", "true", "true", "empty", "incomplete"]))
    def report(self, kind):
        """The venue's positions and pools; orders of others that it does not name are over. Ours that were said to
        be over it does not contradict."""
        self.run.pass_time(1)
        if kind == "empty":
            now, pools = self.run.now_ns, [PoolReport(c, e, e, 0.0, 0.0) for c, e in self.run.pools.items()]
            self.feed(AccountReported(now, 0, now, True, (), (), (), tuple(pools)))
        else:
            self.heed(self.run.report(complete=kind == "true"))
        if kind != "incomplete":
            self.foreign.clear()

    @rule(share=st.sampled_from([1.0, 0.9, 0.4, -0.1, 3.0]), margin=st.sampled_from([0.0, 0.3, 0.65, 0.9, NAN]))
    def equity(self, share, margin):
        for currency, was in self.run.pools.items():
            self.run.pools[currency] = now = was * share if was > 0.0 else 300_000.0
            self.feed(PoolUpdated(self.run.now_ns, 0, PoolReport(currency, now, now, margin * now, margin * now)))

    @rule()
    def silence_ends(self):
        self.feed(FeedOpened(self.run.now_ns, "private", 0, True))

    @rule(what=st.sampled_from(["private", "ledger", "ledger back"]))
    def trouble(self, what):
        now = self.run.now_ns
        match what:
            case "private":
                self.feed(FeedClosed(now, "private", 0, True, (), "test"))
            case "ledger":
                self.feed(RecordFailed(now, "full"))
            case _:
                self.feed(RecordRestored(now))

    # --- the operator

    @rule(command=st.sampled_from([o for o in Operator if o is not Operator.DRAIN]))
    def operator(self, command):
        self.feed(OperatorSpoke(self.run.now_ns, command, "adversary"))
        if command in (Operator.ARM, Operator.DISARM):
            self.armed = command is Operator.ARM
        elif command in (Operator.HALT, Operator.PAUSE):
            self.stopped = True
        else:
            self.stopped = self.run.state.account.mode in (Mode.HALTED, Mode.PAUSED)

    @rule()
    def back_to_normal(self):
        """Armed, resumed, quoted and agreed: or most histories would end in a halt."""
        self.operator(Operator.ARM)
        for _ in range(2 if self.run.state.account.mode is Mode.PAUSED else 1):
            self.operator(Operator.NORMAL)
        self.trouble("ledger back")
        self.silence_ends()
        self.quiet = False
        self.run.quote()
        self.report("true")
        self.report("true")

    @rule(changes=reloads())
    def reload(self, changes):
        event = ParametersReloaded(self.run.now_ns, changes.model_dump_json(), "adversary")
        self.params = self.run.params = reload(self.run.state, event)
        self.feed(event)


def fought(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Core,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(240)
def test_no_history_of_a_run_gets_an_order_past_a_limit_or_worsens_a_breach():
    fought(25, 30)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_thousands_of_histories():
    fought(1_500, 50)
