"""What an order cost: its parts, what nobody filled, what the price did after, and what is not known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.domain.commands import Approved, CreateOrder
from dea_daemon.domain.events import FillReceived
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.orders import Order, OrderState, TimeInForce
from dea_daemon.domain.parameters import ExecutionParameters
from dea_daemon.execution import costs
from dea_daemon.execution.costs import CostMemory
from dea_daemon.execution.plan import ExecutionMemory
from tests.allocator.forecasts import forecast
from tests.guards.views import COIN_CALL, WITH_OPTIONS, view
from tests.house import BTC_LINEAR, BTC_PERP, MS, START_NS, S

FORECAST = forecast(np.array([0.6, 0.8]))
PARTS = ("delay_usd", "impact_usd", "spread_usd", "fee_usd", "opportunity_usd")


class Desk:
    """Decisions given by hand: when work began, at which mid price, what left, what became of it."""

    def __init__(self, **changes):
        self.memory, self.execution, self.changes = CostMemory(), ExecutionMemory(2), changes
        self.orders: dict[str, Order] = {}
        self.now_ns, self.mid, self.half = START_NS, 80_000.0, 1.0
        self.told: list[dict[str, str | int | float | bool]] = []

    def view(self):
        v = view(now_ns=self.now_ns, **self.changes)
        bid, ask = v.bid_price.copy(), v.ask_price.copy()
        bid[:3], ask[:3] = self.mid - self.half, self.mid + self.half
        live = tuple(o for o in self.orders.values() if not o.state.is_terminal)
        return replace(v, bid_price=bid, ask_price=ask, orders=live)

    def work(self, begins: bool):
        """The lane of BTC's hedges has something to do from now on, or no longer."""
        self.execution.since_ns = np.array([self.now_ns if begins else 0, 0, 0, 0])

    def decide(self, *creates, after_ms=0, mid=None, v=None):
        self.now_ns += after_ms * MS
        self.mid = self.mid if mid is None else mid
        approved = [Approved(c) for c in creates]
        v = v or self.view()
        for c in creates:
            self.orders[c.client_order_id] = Order(
                c.client_order_id, c.row, c.side, c.lots, c.price_ticks, c.time_in_force, c.post_only, False, 0, 1,
                self.now_ns, state=OrderState.OPEN,
            )  # fmt: skip
        notes = costs.observe(self.memory, self.execution, v, FORECAST, approved, self.orders, ExecutionParameters())
        self.told += [note.fields for note in notes]
        return self.told

    def fill(self, order, lots, price, fee_usd=0.0, late_ms=0):
        instrument = self.view().universe.instruments[order.row]
        ticks = instrument.price_to_ticks(price)
        fill = FillReceived(
            self.now_ns, self.now_ns - late_ms * MS, 0, order.row, f"T{self.now_ns}{lots}", "V",
            order.client_order_id, order.side, lots, ticks, 0.0, "BTC", True,
        )  # fmt: skip
        v = self.view()
        bid, ask = float(v.bid_price[order.row]), float(v.ask_price[order.row])
        costs.filled(self.memory, fill, fee_usd, bid, ask, v.universe)
        known = self.orders[order.client_order_id]
        known.filled_lots = known.venue_filled_lots = known.filled_lots + lots
        if known.filled_lots == known.lots:
            known.state = OrderState.FILLED
        return float(instrument.ticks_to_price(ticks))

    def cancelled(self, order, state=OrderState.CANCELLED):
        self.orders[order.client_order_id].state = state


def create(number, row=BTC_LINEAR, side=Side.BUY, lots=1_000, why="post"):
    return CreateOrder(f"d{number}", row, side, lots, 160_000, TimeInForce.GTC, why == "post", False, 0, 1, why)


def usd(found, lots, start, end):
    """Of BTC_LINEAR, whose lot is a ten-thousandth of a coin."""
    return lots * 1e-4 * (end - start) * (1 if found["side"] == "buy" else -1)


prices = st.integers(-2_000, 2_000).map(lambda half_usd: 80_000 + half_usd / 2)


@settings(max_examples=60)
@given(
    st.sampled_from(Side), prices, prices,
    st.lists(st.tuples(st.integers(1, 500), prices, prices, st.floats(-1, 1)), min_size=1, max_size=4),
)  # fmt: skip
def test_the_parts_add_up_to_the_way_from_the_decision_to_the_fills_and_their_fees(side, decided, arrived, fills):
    desk, order = Desk(), create(1, side=side, lots=sum(lots for lots, *_ in fills))
    desk.work(True)
    desk.decide(mid=decided)
    desk.decide(order, after_ms=100, mid=arrived)
    expected = 0.0
    for lots, price, mid, fee in fills:
        desk.mid = mid
        paid = desk.fill(order, lots, price, fee)
        expected += lots * 1e-4 * (paid - decided) * side.sign + fee
    desk.decide(after_ms=100)
    (found,) = desk.decide(after_ms=60_000)
    assert sum(found[part] for part in PARTS) == pytest.approx(found["total_usd"], abs=1e-6)
    assert found["total_usd"] == pytest.approx(expected, abs=1e-6)
    assert found["delay_usd"] == pytest.approx(order.lots * 1e-4 * (arrived - decided) * side.sign, abs=1e-6)
    assert found["opportunity_usd"] == 0.0 and found["filled_lots"] == order.lots


def test_a_crossing_order_pays_half_the_spread_and_a_resting_one_earns_it():
    for why, price, spread in (("cross", 80_001.0, 0.1), ("post", 79_999.0, -0.1)):
        desk, order = Desk(), create(1, why=why)
        desk.work(True)
        desk.decide(order)
        desk.fill(order, 1_000, price)
        desk.decide()
        (found,) = desk.decide(after_ms=60_000)
        assert found["spread_usd"] == pytest.approx(spread) and found["placed"] == why
        assert found["spread_bp"] == pytest.approx(spread / 8_000 * 1e4)
        assert found["impact_usd"] == found["delay_usd"] == found["fee_usd"] == 0.0


def test_orders_that_follow_each_other_add_up_to_what_the_whole_work_cost():
    desk, first, second = Desk(), create(1), create(2, lots=700, why="cross")
    desk.work(True)
    desk.decide(first, mid=80_000.0)
    desk.fill(first, 300, 79_999.0, 0.5)
    desk.cancelled(first)
    desk.decide(after_ms=5_000, mid=80_040.0)
    desk.decide(second, mid=80_050.0)
    desk.fill(second, 700, 80_051.0, 2.0)
    desk.work(False)
    desk.decide(after_ms=100)
    resting, crossing = desk.decide(after_ms=60_000)
    whole = 1e-4 * (300 * (79_999 - 80_000) + 700 * (80_051 - 80_000)) + 2.5
    assert resting["total_usd"] + crossing["total_usd"] == pytest.approx(whole)
    assert resting["opportunity_usd"] == 0.0 and crossing["delay_usd"] == pytest.approx(700 * 1e-4 * 50)
    assert resting["waited_usd"] == pytest.approx(700 * 1e-4 * 40)  # told, though another order's delay contains it


def test_what_nobody_filled_or_took_over_is_costed_at_the_mid_price_of_its_end():
    desk, first, second = Desk(), create(1), create(2, lots=400)
    desk.work(True)
    desk.decide(mid=79_950.0)
    desk.decide(first, mid=80_000.0)
    desk.cancelled(first)
    desk.decide(after_ms=1_000, mid=80_100.0)
    desk.decide(second)
    desk.fill(second, 400, 80_099.0)
    desk.work(False)  # and 600 lots are no longer wanted
    desk.decide(after_ms=100, mid=80_500.0)
    missed, taken = desk.decide(after_ms=60_000)
    assert missed["filled_lots"] == 0 and missed["opportunity_usd"] == pytest.approx(600 * 1e-4 * 150)
    assert missed["rest_usd"] == pytest.approx(600 * 1e-4 * 80_000)
    assert np.isnan(missed["total_bp"]) and taken["opportunity_usd"] == 0.0


def test_while_the_work_goes_on_a_rest_is_no_loss_yet():
    desk, order = Desk(), create(1)
    desk.work(True)
    desk.decide(order)
    desk.cancelled(order)
    desk.decide(after_ms=100, mid=80_300.0)
    (found,) = desk.decide(after_ms=60_000)
    assert found["opportunity_usd"] == 0.0 and found["rest_usd"] == 0.0


def test_work_that_begins_anew_takes_nothing_over_from_the_old():
    desk, first, second = Desk(), create(1), create(2)
    desk.work(True)
    desk.decide(first, mid=80_000.0)
    desk.cancelled(first)
    desk.work(False)
    desk.decide(after_ms=100, mid=80_200.0)
    desk.now_ns += S
    desk.work(True)
    desk.decide(second, mid=81_000.0)
    desk.fill(second, 1_000, 81_000.0)
    desk.decide()
    old, new = desk.decide(after_ms=60_000)
    assert old["opportunity_usd"] == pytest.approx(1_000 * 1e-4 * 200)
    assert new["decision_mid"] == 81_000.0 and new["delay_usd"] == 0.0


def test_an_order_takes_over_no_work_of_the_other_side():
    desk, bought, sold = Desk(), create(1), create(2, row=BTC_PERP, side=Side.SELL, lots=800)
    desk.work(True)
    desk.decide(bought, mid=80_000.0)
    desk.cancelled(bought)
    desk.decide(after_ms=100, mid=80_100.0)
    desk.decide(sold)
    desk.work(False)
    desk.decide()
    (found,) = desk.decide(after_ms=60_000)
    assert found["opportunity_usd"] == pytest.approx(1_000 * 1e-4 * 100)


def test_markouts_are_the_way_of_the_mid_price_in_our_favour_after_each_fill():
    desk, order = Desk(), create(1, side=Side.SELL, lots=300)
    desk.work(True)
    desk.decide(order)
    desk.fill(order, 100, 80_001.0)
    desk.decide(after_ms=999, mid=79_000.0)  # too early to count
    desk.decide(after_ms=101, mid=79_991.0)  # 1 s after the first
    desk.fill(order, 200, 80_001.0)
    desk.decide(after_ms=1_000, mid=80_011.0)  # 1 s after the second
    desk.decide(after_ms=8_000, mid=80_021.0)
    desk.decide(after_ms=1_100, mid=80_021.0)
    (found,) = desk.decide(after_ms=60_000, mid=79_901.0)
    assert found["markout_1s_usd"] == pytest.approx(1e-4 * (100 * 10 - 200 * 10))
    assert found["markout_10s_usd"] == pytest.approx(1e-4 * -300 * 20)
    assert found["markout_60s_usd"] == pytest.approx(1e-4 * 300 * 100)


def test_of_an_order_from_before_the_start_the_costs_are_unknown_and_not_zero():
    desk, order = Desk(), create(1)
    desk.orders["d1"] = Order(
        "d1", order.row, order.side, order.lots, 1, TimeInForce.GTC, True, False, 0, 1, START_NS - S,
        state=OrderState.OPEN, filled_lots=100, venue_filled_lots=100,
    )  # fmt: skip
    desk.decide()
    desk.fill(order, 900, 79_999.0, 0.25)
    desk.decide()
    (found,) = desk.decide(after_ms=60_000)
    assert found["placed"] == "restored" and found["fee_usd"] == 0.25 and found["filled_lots"] == 900
    assert all(np.isnan(found[name]) for name in ("arrival_mid", "delay_usd", "impact_usd", "total_usd"))
    assert found["spread_usd"] == pytest.approx(-0.09)
    assert not desk.memory.estimates.by_key


def test_of_a_fill_heard_of_late_the_total_is_known_but_not_how_it_splits():
    desk, order = Desk(), create(1)
    desk.work(True)
    desk.decide(order, mid=80_000.0)
    desk.fill(order, 1_000, 80_010.0, late_ms=3_000)
    desk.decide()
    (found,) = desk.decide(after_ms=60_000)
    assert found["total_usd"] == pytest.approx(1.0)
    assert all(np.isnan(found[name]) for name in ("spread_usd", "impact_usd", "markout_1s_usd", "markout_60s_usd"))


def test_a_price_that_is_not_to_be_believed_is_no_mid_price():
    desk, order = Desk(), create(1)
    desk.work(True)
    desk.decide(v=replace(desk.view(), fresh=np.zeros(4, dtype=bool)))
    desk.decide(order)
    desk.fill(order, 1_000, 80_001.0)
    desk.decide()
    (found,) = desk.decide(after_ms=60_000)
    assert np.isnan(found["delay_usd"]) and np.isnan(found["total_usd"]) and found["spread_usd"] > 0.0


@pytest.mark.parametrize("state", [OrderState.REJECTED, OrderState.ABSENT])
def test_an_order_that_never_lived_is_not_measured_and_its_successor_counts_from_the_same_decision(state):
    desk, first, second = Desk(), create(1), create(2)
    desk.work(True)
    desk.decide(first, mid=80_000.0)
    desk.cancelled(first, state)
    desk.decide(second, after_ms=1_000, mid=80_020.0)
    desk.fill(second, 1_000, 80_020.0)
    desk.decide()
    (found,) = desk.decide(after_ms=60_000)
    assert found["client_order_id"] == "d2" and found["delay_usd"] == pytest.approx(1_000 * 1e-4 * 20)


def test_an_order_is_told_a_minute_after_its_end_or_when_the_run_ends():
    desk, order = Desk(), create(1)
    desk.work(True)
    desk.decide(order)
    desk.fill(order, 1_000, 80_000.0)
    desk.decide()
    assert not desk.decide(after_ms=59_000)
    desk.changes = {"draining": True}
    (found,) = desk.decide(after_ms=100)
    assert np.isnan(found["markout_60s_usd"]) and found["total_usd"] == 0.0
    assert not desk.memory.open and not any(desk.memory.due)


def test_too_many_orders_are_told_early_and_the_oldest_first(monkeypatch):
    monkeypatch.setattr(costs, "OPEN_MOST", 2)
    desk = Desk()
    desk.work(True)
    for number in range(5):
        order = create(number)
        desk.decide(order, after_ms=10)
        desk.fill(order, 1_000, 80_000.0)
    desk.decide(after_ms=10)
    assert [found["client_order_id"] for found in desk.told] == ["d0", "d1", "d2"]
    assert len(desk.memory.open) == 2


def test_of_an_inverse_contract_a_step_is_worth_the_lot_over_the_price():
    desk, order = Desk(), create(1, row=BTC_PERP, lots=100)  # 1,000 USD
    desk.work(True)
    desk.decide(order, mid=80_000.0)
    desk.fill(order, 100, 80_800.0)
    desk.decide()
    (found,) = desk.decide(after_ms=60_000)
    assert found["total_usd"] == pytest.approx(10.0) and found["total_bp"] == pytest.approx(100.0)


def test_of_an_option_quoted_in_coin_a_step_of_its_price_is_worth_coins():
    desk = Desk(universe=WITH_OPTIONS)
    v = desk.view()
    assert v.universe.coin_quoted[COIN_CALL]
    order = create(1, row=COIN_CALL, lots=10)  # one coin
    desk.execution.since_ns = np.array([0, 0, desk.now_ns, 0])
    desk.decide(order)
    mid = 0.5 * float(v.bid_price[COIN_CALL] + v.ask_price[COIN_CALL])
    paid = desk.fill(order, 10, mid + 0.0005)
    desk.decide()
    (found,) = desk.decide(after_ms=60_000)
    assert found["total_usd"] == pytest.approx((paid - mid) * 80_000.0, rel=1e-6)
    assert found["filled_usd"] == pytest.approx(80_000.0)
