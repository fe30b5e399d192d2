"""From a permit to commands: price, size, patience, and which order goes."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.domain.commands import CancelOrder, CreateOrder, QueryAccount, QueryOrder
from dea_daemon.domain.decisions import Licence, Permit
from dea_daemon.domain.instruments import AccountKey, Payoff, Side, TickStep, Universe
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.orders import Order, OrderState, TimeInForce, client_order_id
from dea_daemon.domain.parameters import ExecutionParameters
from dea_daemon.execution.placement import price_ticks
from dea_daemon.execution.plan import ExecutionMemory, observe, plan
from tests.guards.views import MARK, view
from tests.house import BTC_LINEAR, BTC_PERP, ETH_PERP, INSTRUMENTS, MS, START_NS, instrument

PARAMS = ExecutionParameters()


def permit(v, wanted, licence=Licence.ANYTHING, urgent=(False, False), resting=True):
    lots = v.position_lots.copy()
    for row, count in wanted.items():
        lots[row] = count
    return Permit(v, lots, np.full(4, licence), np.array(urgent), np.zeros(4, dtype=bool), resting, v.mode, "", (), ())


def planned(v, wanted, params=PARAMS, since_ms=0, **options):
    """The plan after a difference has stood for `since_ms`."""
    memory = ExecutionMemory(len(v.universe.underlyings))
    observe(memory, permit(replace(v, now_ns=v.now_ns - since_ms * MS), wanted, **options), params)
    p = permit(v, wanted, **options)
    observe(memory, p, params)
    return plan(p, memory, params)


def creates(commands):
    return [c for c in commands if isinstance(c, CreateOrder)]


def cancels(commands):
    return [c for c in commands if isinstance(c, CancelOrder)]


def own(row, side, lots, price, state=OrderState.OPEN, **more):
    ticks = INSTRUMENTS[row].price_to_ticks(price)
    return Order(client_order_id(0, 1, 99), row, side, lots, ticks, TimeInForce.GTC, True, False, 0, 1,
                 START_NS - 100 * MS, state=state, venue_order_id="V", **more)  # fmt: skip


def working(order, **changes):
    buys, sells = np.zeros(4, dtype=np.int64), np.zeros(4, dtype=np.int64)
    (buys if order.side is Side.BUY else sells)[order.row] = abs(order.in_flight_lots)
    return replace(view(**changes), orders=(order,), working_buy_lots=buys, working_sell_lots=sells)


def test_a_young_difference_is_posted_at_its_own_touch():
    for lots, price in ((500, 79_999.0), (-500, 80_001.0)):
        (order,) = creates(planned(view(), {BTC_PERP: lots}))
        assert order.post_only and order.time_in_force is TimeInForce.GTC
        assert INSTRUMENTS[BTC_PERP].ticks_to_price(order.price_ticks) == Decimal(str(price))
        assert (order.side, order.lots) == (Side.BUY if lots > 0 else Side.SELL, 500)


def test_an_old_one_crosses_with_a_limit_beyond_the_far_touch():
    (order,) = creates(planned(view(), {BTC_PERP: 500}, since_ms=6_000))
    assert not order.post_only and order.time_in_force is TimeInForce.IOC
    price = float(INSTRUMENTS[BTC_PERP].ticks_to_price(order.price_ticks))
    assert 80_001.0 <= price <= 80_001.0 * 1.0005


@pytest.mark.parametrize("why", ["taker", "breach", "post-only rejects"])
def test_it_crosses_at_once_when(why):
    v = view()
    match why:
        case "taker":
            commands = planned(v, {BTC_PERP: 500}, ExecutionParameters(order_type="taker"))
        case "breach":
            commands = planned(v, {BTC_PERP: 500}, urgent=(True, False))
        case _:
            commands = planned(replace(v, post_only_rejects=np.array([3, 0, 0, 0])), {BTC_PERP: 500})
    assert creates(commands)[0].time_in_force is TimeInForce.IOC


def test_the_deadline_is_soon_by_the_clock_that_is_behind():
    for shift_ms in (-10_000, 0, 10_000):
        v = replace(view(), utc_ns=START_NS + shift_ms * MS)
        (order,) = creates(planned(v, {BTC_PERP: 500}))
        assert order.valid_until_ms == START_NS // MS + min(shift_ms, 0) + PARAMS.valid_for_ms


def test_dust_and_less_than_the_venue_takes_is_left_alone():
    assert not creates(planned(view(), {BTC_PERP: 1}))  # 10 USD
    assert creates(planned(view(), {BTC_PERP: 2}))


def test_a_large_difference_goes_in_slices_and_one_order_a_contract():
    (order,) = creates(planned(view(), {BTC_PERP: 30_000}))
    assert order.lots == 5_000  # 50,000 USD of 10 each
    assert not creates(planned(working(own(BTC_PERP, Side.BUY, 100, 79_999.0)), {BTC_PERP: 30_000}))


def test_orders_of_one_decision_have_ids_of_their_own():
    orders = creates(planned(view(), {BTC_PERP: 500, BTC_LINEAR: 900, ETH_PERP: -5_000}))
    assert len({o.client_order_id for o in orders}) == len(orders) == 3


def test_reducing_legs_go_first():
    v = view(position=(0, 0, 0, 8_000))
    orders = creates(planned(v, {BTC_PERP: 500, ETH_PERP: 2_000}))
    assert [o.row for o in orders] == [ETH_PERP, BTC_PERP]


def test_without_a_two_sided_book_there_is_no_price():
    bid = MARK - 1
    bid[BTC_PERP] = np.nan
    assert not creates(planned(view(bid_price=bid), {BTC_PERP: 500}))
    bid[BTC_PERP] = 80_002.0  # crossed
    assert not creates(planned(view(bid_price=bid), {BTC_PERP: 500}))


@pytest.mark.parametrize(
    ("price", "wanted", "why"),
    [
        (79_999.0, -500, "no longer wanted"),
        (79_999.0, 0, "no longer wanted"),
        (79_999.0, 100, "more than wanted"),
        (79_997.0, 500, "left behind by the touch"),
        (79_999.0, 500, ""),
    ],
)
def test_a_working_order_is_cancelled_when(price, wanted, why):
    gone = cancels(planned(working(own(BTC_PERP, Side.BUY, 500, price)), {BTC_PERP: wanted}))
    assert [c.why for c in gone] == ([why] if why else [])


def test_an_order_is_not_cancelled_twice_nor_before_its_create_was_answered():
    for state in (OrderState.PENDING, OrderState.CANCELLING, OrderState.UNKNOWN):
        assert not cancels(planned(working(own(BTC_PERP, Side.BUY, 500, 79_999.0, state)), {BTC_PERP: -500}))


@pytest.mark.parametrize("doubt", ["unknown", "doubted", "sound"])
def test_when_everything_must_go_orders_in_doubt_go_too(doubt):
    state = OrderState.UNKNOWN if doubt == "unknown" else OrderState.OPEN
    v = working(own(BTC_PERP, Side.BUY, 500, 79_999.0, state, doubted=doubt == "doubted"), mode=Mode.HALTED)
    assert cancels(planned(v, {BTC_PERP: 500}))


def test_an_order_in_doubt_is_asked_for_and_not_more_often_than_told():
    order = own(BTC_PERP, Side.BUY, 500, 79_999.0, OrderState.UNKNOWN)
    asked = [c for c in planned(working(order), {}) if isinstance(c, QueryOrder)]
    assert [c.client_order_id for c in asked] == [order.client_order_id]
    order.query_sent_ns = START_NS - 10 * MS
    assert not [c for c in planned(working(order), {}) if isinstance(c, QueryOrder)]


def test_the_account_is_asked_often_until_it_agrees_and_then_at_leisure():
    for agreed, asked in ((False, True), (True, False)):
        v = replace(view(), account_agreed=(agreed,), account_asked_ns=(START_NS - 2_000 * MS,))
        assert bool([c for c in planned(v, {}) if isinstance(c, QueryAccount)]) is asked


def test_a_closing_order_under_the_tightest_licence_is_reduce_only_at_the_venue_too():
    v = view(position=(900, 0, 0, 0))
    assert creates(planned(v, {BTC_PERP: 0}, licence=Licence.SHRINK_POSITION))[0].reduce_only
    assert not creates(planned(v, {BTC_PERP: 0}))[0].reduce_only


def test_a_position_is_closed_where_its_exposure_is_not_known():
    """The index is stale while the operator flattens."""
    x = view().exposure_per_lot.copy()
    x[0] = np.nan
    v = view(position=(900, 0, 0, 0), exposure_per_lot=x, exposure_usd=np.full(2, np.nan))
    for since_ms, tif in ((0, TimeInForce.GTC), (6_000, TimeInForce.IOC)):
        (order,) = creates(planned(v, {BTC_PERP: 0}, since_ms=since_ms, licence=Licence.SHRINK_POSITION))
        assert (order.side, order.lots, order.time_in_force) == (Side.SELL, 900, tif)


STEPPED = instrument("X", "BTC", Payoff.LINEAR, "0.001", "0.5", tick_steps=(TickStep(Decimal(1_000), Decimal(5)),))
ONE = Universe((AccountKey("deribit", "main"),), ((0, STEPPED),))


@given(st.integers(2, 4_000), st.integers(1, 200), st.sampled_from(list(Side)), st.booleans(), st.floats(0.0, 50.0))
def test_every_price_is_on_the_grid_never_worse_than_its_cap_and_reaches_the_touch_it_crosses(
    bid_ticks, width, side, crossing, slippage_bp
):
    bid_ticks = STEPPED.price_to_ticks(STEPPED.ticks_to_price(bid_ticks), Side.BUY)
    ask_ticks = STEPPED.price_to_ticks(STEPPED.ticks_to_price(bid_ticks + width), Side.SELL)
    bid, ask = (float(STEPPED.ticks_to_price(t)) for t in (bid_ticks, ask_ticks))
    v = replace(view(), universe=ONE, bid_price=np.array([bid]), ask_price=np.array([ask]))
    ticks = price_ticks(v, 0, side, crossing, ExecutionParameters(slippage_bp=slippage_bp))
    assert ticks is not None and STEPPED.on_grid(ticks)
    own_touch, far = (bid_ticks, ask_ticks) if side is Side.BUY else (ask_ticks, bid_ticks)
    if not crossing:
        assert ticks == own_touch
    else:
        assert (ticks - far) * side.sign >= 0
        cap = float(STEPPED.ticks_to_price(far)) * (1.0 + side.sign * slippage_bp * 1e-4)
        assert (float(STEPPED.ticks_to_price(ticks)) - cap) * side.sign <= 1e-6 or ticks == far


def test_a_difference_that_went_away_for_a_moment_is_young_again():
    v, memory = view(), ExecutionMemory(2)
    now = permit(v, {BTC_PERP: 500})
    for age_ms, wanted in ((6_000, {BTC_PERP: 500}), (3_000, {})):
        observe(memory, permit(replace(v, now_ns=v.now_ns - age_ms * MS), wanted), PARAMS)
    observe(memory, now, PARAMS)
    (order,) = creates(plan(now, memory, PARAMS))
    assert order.post_only


def test_a_difference_watched_without_being_armed_is_young_when_it_is():
    memory = ExecutionMemory(2)
    watching = permit(view(armed=False), {BTC_PERP: 500})
    for ms in (0, 60_000):
        observe(
            memory, replace(watching, view=replace(watching.view, now_ns=START_NS + ms * MS)), ExecutionParameters()
        )
    armed = permit(view(now_ns=START_NS + 60_250 * MS), {BTC_PERP: 500})
    observe(memory, armed, ExecutionParameters())
    assert creates(plan(armed, memory, ExecutionParameters()))[0].post_only


# --- one contract in another's place ----------------------------------------------------------------------------


def exchanged(delta_usd=0.0, urgent=False, band=(-10_000.0, 10_000.0)):
    """(lots bought in the perpetual, sold in the linear one) of an exchange worth 50,000 USD, by this tick."""
    v = view(position=(-5_000, 0, 0, 0), base=(50_000.0 + delta_usd, 0.0))
    p = permit(v, {BTC_PERP: 0, BTC_LINEAR: -6_250}, urgent=(urgent, False))
    memory = ExecutionMemory(2)
    observe(memory, p, PARAMS)
    edges = (np.array([band[0], np.nan]), np.array([band[1], np.nan]))
    lots = {c.row: c.lots for c in creates(plan(p, memory, PARAMS, band=edges))}
    return lots.get(BTC_PERP, 0), lots.get(BTC_LINEAR, 0)


def test_neither_side_of_an_exchange_carries_delta_beyond_the_band():
    assert exchanged() == (1_000, 1_250)
    assert exchanged(9_000.0) == (100, 2_375)
    assert exchanged(-9_000.0) == (1_900, 125)


def test_what_brings_delta_back_into_the_band_goes_first_and_alone():
    bought, sold = exchanged(20_000.0)
    assert bought == 0 and sold > 0


def test_in_a_breach_and_without_a_band_each_side_goes_as_it_can():
    assert exchanged(urgent=True) == (5_000, 6_250)
    assert exchanged(band=(np.nan, np.nan)) == (5_000, 6_250)
