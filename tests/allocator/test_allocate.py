"""The allocator: when to trade, where, and how much."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.allocator.allocate import AllocatorMemory, allocate, observe
from dea_daemon.allocator.target import volatility_targeted
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.domain.parameters import AllocatorParameters, GuardParameters
from tests.allocator.forecasts import WIDE, forecast
from tests.allocator.forecasts import wanted as wanted_with
from tests.guards.views import COIN_CALL, MARK, WITH_OPTIONS, view
from tests.house import BTC_FUTURE, BTC_LINEAR, BTC_PERP, ETH_PERP

FORECAST = forecast(np.array([0.5, 0.9]), target_variance=np.full(2, 0.01))


def fixed(delta_usd=100_000.0, band_usd=10_000.0, **options):
    target = {"kind": "fixed", "delta_usd": delta_usd, "band_usd": band_usd}
    return AllocatorParameters.model_validate({"targets": {"BTC": target}, "band_inner": 0.5} | options)


FIXED = fixed()


def wanted(v, params=FIXED, rebalancing=(False, False), **limits):
    return wanted_with(v, FORECAST, params, rebalancing, **limits)


def exposure(v, lots):
    return v.exposure_per_lot @ lots + v.exposure_base_usd


# --- when and how much ------------------------------------------------------------------------------------------


def test_inside_the_band_nothing_moves():
    for held in (90_500.0, 100_000.0, 109_500.0):
        v = view(base=(held, 0.0))
        target = wanted(v)
        assert (target.position_lots == v.position_lots).all() and not target.rebalancing.any()


def test_outside_the_band_it_trades_to_the_inner_goal_and_no_further():
    for held, goal in ((0.0, 95_000.0), (200_000.0, 105_000.0)):
        v = view(base=(held, 0.0))
        target = wanted(v)
        assert target.rebalancing[0] and target.allocation.status == "certified"
        assert abs(exposure(v, target.position_lots)[0] - goal) <= 20.0  # two lots


def test_a_trade_begun_goes_on_inside_the_band_until_the_inner_goal():
    v = view(base=(92_000.0, 0.0))
    assert (wanted(v).position_lots == 0).all()
    going_on = wanted(v, rebalancing=(True, False))
    assert abs(exposure(v, going_on.position_lots)[0] - 95_000.0) <= 20.0
    arrived = wanted(view(base=(95_500.0, 0.0)), rebalancing=(True, False))
    assert not arrived.rebalancing.any() and (arrived.position_lots == 0).all()


def test_an_underlying_without_a_target_is_held_as_it_is():
    v = view(position=(0, 0, 0, 7_000), base=(100_000.0, 50_000.0))
    target = wanted(v)
    assert target.position_lots[ETH_PERP] == 7_000 and np.isnan(target.exposure_usd[1])


def test_unknown_exposure_or_equity_holds_everything():
    v = view(position=(100, 0, 0, 5), base=(np.nan, 0.0))
    assert (wanted(v).position_lots == v.position_lots).all()
    vol = AllocatorParameters.model_validate({"targets": {"BTC": {"kind": "volatility"}}})
    v = view(position=(100, 0, 0, 5), equity_usd=float("nan"))
    assert (wanted(v, vol).position_lots == v.position_lots).all()


def test_a_fixed_target_is_hedged_whether_equity_is_known_or_not():
    v = view(base=(200_000.0, 0.0), equity_usd=float("nan"))
    assert abs(exposure(v, wanted(v).position_lots)[0] - 105_000.0) <= 20.0


# --- where ------------------------------------------------------------------------------------------------------


def test_the_cheapest_contract_is_taken():
    funding = np.array([0.0, np.nan, -0.001, 0.0])  # being long the linear one is paid
    lots = wanted(view(funding_rate_8h=funding)).position_lots
    assert lots[BTC_LINEAR] > 0 and lots[BTC_PERP] == lots[BTC_FUTURE] == 0
    assert wanted(view(funding_rate_8h=-funding)).position_lots[BTC_LINEAR] == 0


def test_what_is_held_moves_to_another_contract_when_that_is_worth_two_trades_and_not_before():
    """95,000 USD long in the perpetual; leaving it costs some 5 bp, and entering another as much again."""
    held = view(position=(9_500, 0, 0, 0), funding_rate_8h=np.array([0.0003, 0.0, 0.0, 0.0]))
    assert (wanted(held).position_lots == held.position_lots).all()  # 9 bp a day
    dear = view(position=(9_500, 0, 0, 0), funding_rate_8h=np.array([0.0010, 0.0, 0.0, 0.0]))
    target = wanted(dear)
    assert target.position_lots[BTC_PERP] < 2_000 and not target.rebalancing.any()
    assert abs(exposure(dear, target.position_lots)[0] - 95_000.0) <= 30.0
    assert target.allocation.benefit_usd > target.allocation.cost_usd > 0.0


def test_a_basis_or_funding_beyond_belief_moves_nothing():
    held = {"position": (9_500, 0, 0, 0)}
    cheap_future = MARK * np.array([1.0, 0.97, 1.0, 1.0])  # 3 % below in 60 days: some 18 % a year, to be believed
    assert wanted(view(mark=cheap_future, **held), fixed(expected_hold_h=240)).position_lots[BTC_FUTURE] > 0
    assert (wanted(view(mark=MARK * np.array([1, 0.9, 1, 1]), **held)).position_lots[:2] == (9_500, 0)).all()
    false_index = MARK * np.array([1.05, 1.05, 1.05, 1.0])
    v = view(mark=cheap_future, index_price=false_index, **held)
    assert wanted(v, fixed(expected_hold_h=240)).position_lots[BTC_FUTURE] == 0
    absurd = view(funding_rate_8h=np.array([0.02, 0.0, 0.0, 0.0]), **held)
    assert (wanted(absurd).position_lots == absurd.position_lots).all()


def test_no_contract_is_held_against_another_for_its_carry_unless_that_is_asked_for():
    funding = np.array([0.004, 0.0, -0.004, 0.0])  # short the coin-settled, long the linear one: 2.4 % a day
    v = view(base=(100_000.0, 0.0), funding_rate_8h=funding)
    assert (wanted(v).position_lots == 0).all()
    lots = wanted(v, fixed(carry_trades=True), max_instrument_usd=50_000.0).position_lots
    assert lots[BTC_PERP] < 0 < lots[BTC_LINEAR] and abs(exposure(v, lots)[0] - 100_000.0) <= 20.0


def test_a_hedge_grows_where_it_is_and_does_not_spread_over_every_contract():
    v = view(position=(9_500, 0, 0, 0))
    target = wanted(v, fixed(150_000.0))
    assert target.position_lots[BTC_PERP] > 9_500 and (target.position_lots[[BTC_FUTURE, BTC_LINEAR]] == 0).all()
    moved = target.allocation.moves[0]
    assert moved.cost_usd == pytest.approx(moved.usd * (0.0005 + 1.0 / 80_000), rel=1e-3) and moved.carry_usd == 0.0


def test_what_is_on_the_wrong_side_may_shrink_and_never_grows():
    funding = np.array([0.0, 0.0, -0.004, 0.0])
    v = view(position=(-2_000, 0, 0, 0), funding_rate_8h=funding)
    lots = wanted(v).position_lots
    assert lots[BTC_LINEAR] > 0 and -2_000 <= lots[BTC_PERP] <= 0


def test_what_one_contract_cannot_hold_goes_to_the_next():
    v = view()
    lots = wanted(v, max_instrument_usd=40_000.0).position_lots
    worth = lots * v.exposure_per_lot[0]
    assert (worth <= 40_000.0 + 1e-6).all() and (worth[:3] > 0).all()
    assert abs(worth.sum() - 95_000.0) <= 30.0


def test_limits_are_kept_even_where_the_goal_is_beyond_them():
    for limits in ({"max_gross_usd": 50_000.0}, {"max_net_usd": 50_000.0}, {"max_underlying_usd": 50_000.0}):
        v = view()
        target = wanted(v, **limits)
        worth = np.abs(target.position_lots) * v.notional_per_lot_usd
        assert 49_900.0 < worth.sum() <= 50_000.0
        assert target.allocation.status == "certified"
        assert next(iter(limits)).split("_")[1] in {price.limit for price in target.allocation.prices}


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_losses_in_scenarios_and_on_historys_days_are_kept_too(side):
    v = view()
    for limit, least in (("max_scenario_loss", 0.16), ("max_stress_loss", 0.465 if side > 0.0 else 0.348)):
        share = 50_000.0 * least / v.equity_usd
        target = wanted(v, fixed(side * 100_000.0), **{limit: share})
        worth = v.exposure_per_lot[0] @ target.position_lots
        assert 49_900.0 < side * worth <= 50_000.0 + 1e-6
        assert limit.split("_")[1] in {price.limit for price in target.allocation.prices}


def test_a_problem_that_makes_no_sense_moves_nothing_and_says_so():
    broken = forecast(np.array([0.5, 0.9]), covariance=np.array([[np.nan, 0.0], [0.0, 1e-3]]))
    target = wanted_with(view(), broken, FIXED)
    assert target.allocation.status == "held" and (target.position_lots == 0).all()


def test_a_limit_that_is_broken_already_is_not_broken_further():
    v = view(position=(9_000, 0, 0, 0))
    lots = wanted(v, max_gross_usd=50_000.0).position_lots
    assert np.abs(lots) @ v.notional_per_lot_usd <= 90_000.0


def test_a_margin_pool_is_not_filled_beyond_what_is_allowed():
    v = view(position=(4_000, 0, 0, 0), row_margin_use=np.array([0.5, 0.5, 0.0, 0.0]), margin_use=0.5)
    funding = np.array([-0.001, -0.001, 0.0, 0.0])  # the coin's pool would be the cheapest
    v = view(position=(4_000, 0, 0, 0), row_margin_use=v.row_margin_use, margin_use=0.5, funding_rate_8h=funding)
    lots = wanted(v).position_lots
    in_pool = np.abs(lots[[BTC_PERP, BTC_FUTURE]]) @ v.notional_per_lot_usd[[BTC_PERP, BTC_FUTURE]]
    assert in_pool <= 48_000.0 + 1e-6 and lots[BTC_LINEAR] > 0  # 40,000 · .6 / .5


@pytest.mark.parametrize("closed", ["fresh", "shut", "quarantined"])
def test_a_contract_that_cannot_be_relied_upon_is_not_used(closed):
    flags = np.array([True, False, False, False])
    v = view(**{closed: ~flags if closed == "fresh" else flags})
    assert wanted(v).position_lots[BTC_PERP] == 0


def test_nothing_new_is_put_on_just_before_expiry_but_it_may_still_shrink():
    late = fixed(avoid_expiry_h=24 * 365)
    v = view(position=(0, -1_000, 0, 0))
    assert wanted(v, late, max_instrument_usd=45_000.0).position_lots[BTC_FUTURE] > -1_000
    assert wanted(view(), late).position_lots[BTC_FUTURE] == 0


def test_a_contract_with_an_order_at_work_is_not_left_for_a_trifle():
    a_little = np.array([0.00002, 0.0, 0.0, 0.0])
    assert wanted(view(funding_rate_8h=a_little)).position_lots[BTC_PERP] == 0
    working = view(funding_rate_8h=a_little, buys=(1_000, 0, 0, 0))
    assert wanted(working).position_lots[BTC_PERP] == 9_500


def test_what_trading_was_measured_to_cost_chooses_too():
    surcharge = np.array([0.0010, 0.0010, 0.0, 0.0])
    v = view()
    lots = wanted_with(v, FORECAST, FIXED, surcharge=surcharge).position_lots
    assert lots[BTC_LINEAR] > 0 and lots[BTC_PERP] == lots[BTC_FUTURE] == 0


def test_lots_of_marks_that_are_no_numbers_are_not_wanted():
    mark = MARK.copy()
    mark[BTC_LINEAR] = np.nan
    v = view(mark=mark, fresh=np.array([True, True, False, True]))
    assert wanted(v).position_lots[BTC_LINEAR] == 0


# --- other factors ----------------------------------------------------------------------------------------------


def with_factor(name, **target):
    return fixed(0.0, 5_000.0, factors={name: target})


@pytest.mark.parametrize(("name", "kind"), [("vega:BTC", "vega"), ("gamma:BTC", "gamma")])
def test_options_bring_a_factor_into_its_band_and_the_delta_they_bring_is_hedged(name, kind):
    v = view(position=(0,) * 4 + (-300,), universe=WITH_OPTIONS)  # 30 calls short
    now = v.factor_usd(kind)[0]
    band = 0.2 * abs(now)
    target = wanted_with(v, wide_forecast(), with_factor(name, band_usd=band))
    after = v.exposure_per_lot @ target.position_lots + v.exposure_base_usd
    k = v.factors.names.index(name)
    step = np.abs(v.exposure_per_lot[k]).max()
    assert now < -band and -band - step <= after[k] <= band
    assert abs(after[0]) <= 5_000.0 + 30.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_while_the_surface_is_in_doubt_a_factor_target_shrinks_held_options_and_opens_none(sign):
    held = (0,) * 4 + (int(-300 * sign),)
    sure = view(position=held, universe=WITH_OPTIONS)
    now = sure.factor_usd("vega")[0]
    doubt = np.array([True, False])
    in_doubt = view(position=held, universe=WITH_OPTIONS, surface_doubt=doubt)
    less = wanted_with(in_doubt, wide_forecast(), with_factor("vega:BTC", band_usd=0.2 * abs(now)))
    assert 0 < sign * -less.position_lots[COIN_CALL] < 300 and (less.position_lots[5:] == 0).all()
    k = sure.factors.names.index("vega:BTC")
    after = in_doubt.exposure_per_lot[k] @ less.position_lots
    assert abs(after) <= 0.2 * abs(now) + np.abs(in_doubt.exposure_per_lot[k]).max()
    # More of it, or the other way: nothing of what would be refused is wanted, nor a hedge of it.
    for usd in (3.0 * now, -now):
        params = with_factor("vega:BTC", usd=usd, band_usd=0.2 * abs(now))
        grown = wanted_with(sure, wide_forecast(), params).position_lots
        assert grown[COIN_CALL] * held[4] < 0 or abs(grown[COIN_CALL]) > 300 or (grown[5:] != 0).any()
        kept = wanted_with(in_doubt, wide_forecast(), params).position_lots
        assert 0 <= kept[COIN_CALL] * -sign <= 300 and (kept[5:] == 0).all()


def test_inside_its_band_a_factor_calls_for_nothing():
    v = view(position=(0,) * 4 + (-300,), universe=WITH_OPTIONS)
    params = with_factor("vega:BTC", band_usd=2.0 * abs(v.factor_usd("vega")[0]))
    target = wanted_with(v, wide_forecast(), params)
    assert target.position_lots[COIN_CALL] == -300


def test_a_delta_is_no_reason_to_trade_options_nor_is_another_underlyings_trade():
    params = with_factor("vega:BTC", band_usd=1e6)
    v = view(base=(-200_000.0, 0.0), universe=WITH_OPTIONS)
    target = wanted_with(v, wide_forecast(), params)
    assert (target.position_lots[4:] == 0).all() and (target.position_lots[:3] != 0).any()
    stale = np.array([False] * 3 + [True] * 5)
    unhedged = wanted_with(view(base=(-200_000.0, 0.0), universe=WITH_OPTIONS, fresh=stale), wide_forecast(), params)
    assert (unhedged.position_lots == 0).all()


def test_without_a_target_for_them_options_are_held_as_they_are():
    v = view(position=(0,) * 4 + (-300,), universe=WITH_OPTIONS)
    target = wanted_with(v, wide_forecast(), fixed(0.0, 5_000.0))
    assert (target.position_lots[4:] == v.position_lots[4:]).all() and (target.position_lots[:4] != 0).any()


def wide_forecast():
    return forecast(np.array([0.5, 0.9]), target_variance=np.full(2, 0.01), rows=8)


# --- always -----------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(*[st.integers(-20_000, 20_000)] * 4),
    st.floats(-5e5, 5e5),
    st.floats(1e3, 2e5),
    st.tuples(*[st.floats(-0.01, 0.01)] * 4),
    st.booleans(),
)
def test_the_delta_only_comes_nearer_and_nothing_grows_over_a_cap(position, delta, most, funding, trades):
    v = view(position=position, funding_rate_8h=np.array(funding))
    target = wanted(v, fixed(delta, 1_000.0, carry_trades=trades), max_instrument_usd=most)
    lots = target.position_lots
    before, after = v.delta_usd[0] - delta, exposure(v, lots)[0] - delta
    assert abs(after) <= max(abs(before), 1_000.0) + 10.0
    assert after * before >= 0.0 or abs(after) <= 20.0  # never over the goal
    worth, held = np.abs(lots) * v.notional_per_lot_usd, np.abs(v.position_lots) * v.notional_per_lot_usd
    assert (worth <= np.maximum(held, most) + 1e-6).all()
    assert lots[ETH_PERP] == position[ETH_PERP]
    assert target.allocation.status == "certified"


def test_a_second_decision_of_the_same_starts_where_the_first_ended():
    v, memory, guards = view(), AllocatorMemory(2), GuardParameters.model_validate(WIDE)
    first = allocate(v, FORECAST, memory, FIXED, guards)
    observe(memory, first, v)
    again = allocate(v, FORECAST, memory, FIXED, guards)
    assert (again.target.position_lots == first.target.position_lots).all()
    assert again.target.allocation.iterations < first.target.allocation.iterations


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


def test_a_return_target_does_not_jump_when_another_market_is_silent_for_a_moment():
    covariance = np.outer([0.5, 0.9], [0.5, 0.9]) * np.array([[1.0, 0.8], [0.8, 1.0]]) / DAYS_PER_YEAR
    expected = forecast(
        np.array([0.5, 0.9]), covariance=covariance, mean_return=np.array([0.20, 0.22]) / DAYS_PER_YEAR,
        target_variance=np.full(2, 0.01),
    )  # fmt: skip
    params = AllocatorParameters.model_validate({"targets": {coin: {"kind": "return"} for coin in ("BTC", "ETH")}})
    both = wanted_with(view(), expected, params)
    one = wanted_with(view(fresh=np.array([True, True, True, False])), expected, params)
    assert both.exposure_usd == pytest.approx(one.exposure_usd)
    assert one.position_lots[ETH_PERP] == 0 and one.position_lots[BTC_PERP] == both.position_lots[BTC_PERP]
