"""The allocator: when to trade, where, and how much."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.allocator.allocate import allocate, distribute
from dea_daemon.allocator.target import volatility_targeted
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.domain.parameters import AllocatorParameters
from tests.allocator.forecasts import forecast
from tests.guards.views import MARK, view
from tests.house import BTC_FUTURE, BTC_LINEAR, BTC_PERP, ETH_PERP

FORECAST = forecast(np.array([0.5, 0.9]), target_variance=np.full(2, 0.01))
NOT_YET = np.zeros(2, dtype=bool)
FIXED = AllocatorParameters.model_validate(
    {"targets": {"BTC": {"kind": "fixed", "delta_usd": 100_000, "band_usd": 10_000}}, "band_inner": 0.5}
)
CAP = 1e9


def wanted(v, params=FIXED, rebalancing=NOT_YET, cap=CAP):
    return allocate(v, FORECAST, rebalancing, params, instrument_cap_usd=cap)


def exposure(v, lots):
    return v.exposure_per_lot @ lots + v.exposure_base_usd


def test_inside_the_band_nothing_moves():
    for held in (90_500.0, 100_000.0, 109_500.0):
        v = view(base=(held, 0.0))
        target = wanted(v)
        assert (target.position_lots == v.position_lots).all() and not target.rebalancing.any()


def test_outside_the_band_it_trades_to_the_inner_goal_and_no_further():
    for held, goal in ((0.0, 95_000.0), (200_000.0, 105_000.0)):
        v = view(base=(held, 0.0))
        target = wanted(v)
        assert target.rebalancing[0]
        assert abs(exposure(v, target.position_lots)[0] - goal) <= 20.0  # two lots


def test_a_trade_begun_goes_on_inside_the_band_until_the_inner_goal():
    v = view(base=(92_000.0, 0.0))
    assert (wanted(v).position_lots == 0).all()
    going_on = wanted(v, rebalancing=np.array([True, False]))
    assert abs(exposure(v, going_on.position_lots)[0] - 95_000.0) <= 20.0
    arrived = wanted(view(base=(95_500.0, 0.0)), rebalancing=np.array([True, False]))
    assert not arrived.rebalancing.any() and (arrived.position_lots == 0).all()


def test_an_underlying_without_a_target_is_held_as_it_is():
    v = view(position=(0, 0, 0, 7_000), base=(100_000.0, 50_000.0))
    target = wanted(v)
    assert target.position_lots[ETH_PERP] == 7_000 and np.isnan(target.exposure_usd[1])


def test_the_cheapest_contract_is_taken_first():
    funding = np.array([0.0, np.nan, -0.001, 0.0])  # being long the linear one is paid
    lots = distribute(view(funding_rate_8h=funding), 0, 50_000.0, FIXED, CAP)
    assert lots[BTC_LINEAR] > 0 and lots[BTC_PERP] == lots[BTC_FUTURE] == 0
    lots = distribute(view(funding_rate_8h=-funding), 0, 50_000.0, FIXED, CAP)
    assert lots[BTC_LINEAR] == 0


def test_a_position_that_shrinks_by_it_comes_before_a_cheaper_one_that_grows():
    funding = np.array([0.0, 0.0, -0.01, 0.0])
    v = view(position=(-2_000, 0, 0, 0), funding_rate_8h=funding)
    lots = distribute(v, 0, 50_000.0, FIXED, CAP)
    assert lots[BTC_PERP] == 2_000  # 20,000 USD bought back
    assert abs(lots[BTC_LINEAR] * v.exposure_per_lot[0, BTC_LINEAR] - 30_000.0) <= 20.0


def test_what_one_contract_cannot_hold_goes_to_the_next():
    v = view()
    lots = distribute(v, 0, 80_000.0, FIXED, 30_000.0)
    worth = lots * v.exposure_per_lot[0]
    assert (worth <= 30_000.0 + 1e-6).all() and (worth[:3] > 0).all()
    assert abs(worth.sum() - 80_000.0) <= 30.0


def test_unknown_exposure_or_equity_holds_everything():
    v = view(position=(100, 0, 0, 5), base=(np.nan, 0.0))
    assert (wanted(v).position_lots == v.position_lots).all()
    vol = AllocatorParameters.model_validate({"targets": {"BTC": {"kind": "volatility"}}})
    v = view(position=(100, 0, 0, 5), equity_usd=float("nan"))
    assert (wanted(v, vol).position_lots == v.position_lots).all()


def test_a_stale_contract_is_not_used():
    fresh = np.array([False, True, True, True])
    assert distribute(view(fresh=fresh), 0, 50_000.0, FIXED, CAP)[BTC_PERP] == 0


def test_nothing_new_is_put_on_just_before_expiry_but_it_may_still_shrink():
    late = AllocatorParameters(avoid_expiry_h=24 * 365)
    v = view(position=(0, -1_000, 0, 0))
    lots = distribute(v, 0, 50_000.0, late, CAP)
    assert lots[BTC_FUTURE] == 1_000
    assert distribute(view(), 0, 50_000.0, late, CAP)[BTC_FUTURE] == 0


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(*[st.integers(-20_000, 20_000)] * 4),
    st.floats(-5e5, 5e5),
    st.floats(1e3, 2e5),
    st.tuples(*[st.floats(-0.01, 0.01)] * 4),
)
def test_it_never_distributes_more_than_asked_nor_the_other_way_nor_over_a_cap(position, change, cap, funding):
    v = view(position=position, funding_rate_8h=np.array(funding))
    lots = distribute(v, 0, change, FIXED, cap)
    moved = float(v.exposure_per_lot[0] @ lots)
    assert (lots * np.sign(change) >= 0).all() and lots[ETH_PERP] == 0
    assert abs(moved) <= abs(change) + 1e-6
    after = np.abs(v.position_lots + lots) * v.notional_per_lot_usd
    grown = np.abs(v.position_lots + lots) > np.abs(v.position_lots)
    assert (after[grown] <= cap + 1e-6).all()
    if (after[:3] < cap - 20.0).all():
        assert abs(change) - abs(moved) <= 10.0 * 3  # less than a lot in each contract


WEIGHTS = st.integers(-300, 300).map(lambda percent: percent / 100)


@given(st.tuples(WEIGHTS, WEIGHTS), st.floats(-0.95, 0.95), st.floats(1e4, 1e7))
def test_volatility_targets_have_the_volatility_asked_for_unless_leverage_caps_them(weights, rho, equity):
    vol = np.array([0.5, 0.9])
    covariance = np.outer(vol, vol) * np.array([[1.0, rho], [rho, 1.0]]) / DAYS_PER_YEAR
    params = AllocatorParameters(annual_vol=0.2, max_leverage=2.0)
    x = volatility_targeted(np.array(weights), forecast(vol, covariance=covariance), equity, params)
    risk = np.sqrt(max(x @ covariance @ x, 0.0) * DAYS_PER_YEAR)
    assert risk <= 0.2 * equity * (1 + 1e-9)
    assert np.abs(x).sum() <= 2.0 * equity * (1 + 1e-9)
    assert (x * np.array(weights) >= 0).all()
    if np.abs(x).sum() < 1.99 * equity and any(weights):
        assert np.isclose(risk, 0.2 * equity)


def test_lots_of_marks_that_are_no_numbers_are_not_wanted():
    mark = MARK.copy()
    mark[BTC_LINEAR] = np.nan
    v = view(mark=mark, fresh=np.array([True, True, False, True]))
    assert wanted(v).position_lots[BTC_LINEAR] == 0
