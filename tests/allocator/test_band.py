"""The band by cost and risk, and the drawdown control it shrinks with."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dea_daemon.allocator.band import (
    MOST_OF_TARGET,
    Wander,
    cheapest,
    crossing_cost,
    half_width,
    hedge_band,
    target_band,
)
from dea_daemon.allocator.target import aim, risk_budget, volatility_targeted
from dea_daemon.domain.parameters import AllocatorParameters, FixedTarget
from tests.allocator.forecasts import forecast, wanted
from tests.guards.views import WITH_OPTIONS, view
from tests.house import BTC_FUTURE, BTC_LINEAR, BTC_PERP, START_NS

VOL = np.array([0.5, 0.9])
FORECAST = forecast(VOL, target_variance=np.array([0.01, 0.02]))


def by_cost(**options):
    target = {"kind": "volatility", "band": "cube_root", "min_band_usd": 1.0}
    return AllocatorParameters.model_validate({"targets": {"BTC": target}} | options)


PARAMS = by_cost()


def aimed(v, expected, params):
    return aim(v, expected, crossing_cost(v), params)


def width_of(v, exposure):
    return target_band(v, FORECAST, exposure, cheapest(v, crossing_cost(v)), PARAMS, 1.0)


def long_run_loss(width, *, cost, variance, curvature, days=400, paths=64, steps=100):
    """USD a day, cost and penalty, of a target that walks with `variance` and is followed to the edge of a band."""
    rng = np.random.default_rng(3)
    gap, traded, penalty, n = np.zeros(paths), 0.0, 0.0, days * steps
    for _ in range(n):
        gap += np.sqrt(variance / steps) * rng.standard_normal(paths)
        kept = np.clip(gap, -width, width)
        traded += np.abs(gap - kept).mean()
        gap = kept
        penalty += 0.5 * curvature * (gap**2).mean() / steps
    return (cost * traded + penalty) / days


def test_no_other_width_costs_less_in_the_long_run():
    world = {"cost": 0.01, "variance": 4.0, "curvature": 0.001}
    best = float(half_width(np.array(world["cost"]), np.array(world["variance"]), world["curvature"]))
    loss = {k: long_run_loss(k * best, **world) for k in (0.6, 0.8, 1.0, 1.25, 1.6)}
    assert loss[1.0] < min(loss[0.6], loss[1.6])
    assert loss[1.0] <= 1.02 * min(loss.values())
    assert loss[1.0] == pytest.approx(world["curvature"] * best**2 / 2, rel=0.1)  # a third penalty, two thirds cost


def test_it_grows_with_the_cube_root_of_cost_and_of_variance_and_shrinks_with_that_of_the_penalty():
    one = half_width(np.array(1e-3), np.array(5.0), 0.01)
    assert half_width(np.array(8e-3), np.array(5.0), 0.01) == pytest.approx(2 * one)
    assert half_width(np.array(1e-3), np.array(40.0), 0.01) == pytest.approx(2 * one)
    assert half_width(np.array(1e-3), np.array(5.0), 0.08) == pytest.approx(one / 2)
    assert half_width(np.array(0.0), np.array(5.0), 0.01) == 0.0


def test_it_is_what_the_formula_gives_by_hand():
    v = view()
    exposure = np.array([400_000.0, np.nan])
    fee = min(v.universe.taker_fee[row] + 1.0 / v.mark_price[row] for row in (BTC_PERP, BTC_FUTURE, BTC_LINEAR))
    variance_usd2 = 0.01 * 400_000.0**2
    curvature = (0.25 / 365.0) / (0.20 * 1e6)  # Sharpe 1 · σ² a day / (σ* · equity)
    by_hand = (3.0 * fee * variance_usd2 / (2.0 * curvature)) ** (1 / 3)
    band = width_of(v, exposure)
    assert band[0] == pytest.approx(by_hand, rel=1e-12) and np.isnan(band[1])
    assert 0.05 < band[0] / 400_000.0 < 0.3


def test_the_cheapest_contract_that_is_fresh_sets_the_cost():
    exposure = np.array([400_000.0, 0.0])
    spread = np.array([1.0, 100.0, 400.0, 1.0])
    v = view()
    wide = {"bid_price": v.mark_price - spread, "ask_price": v.mark_price + spread}
    first = width_of(view(**wide), exposure)
    stale = np.array([False, True, True, True])
    second = width_of(view(fresh=stale, **wide), exposure)
    assert second[0] > first[0] > 0.0 and first[1] == 0.0


def test_without_a_fresh_contract_nothing_moves():
    v = view(position=(100, 0, 0, 0), fresh=np.array([False, False, False, True]))
    target = wanted(v, FORECAST, PARAMS, rebalancing=(True, True))
    assert np.isnan(target.band_usd[0]) and (target.position_lots == v.position_lots).all()


def test_outside_it_trades_to_the_edge_whatever_the_inner_goal_of_others():
    params = by_cost(band_inner=0.0)
    v = view()
    target = wanted(v, FORECAST, params)
    reached = float((v.exposure_per_lot @ target.position_lots)[0])
    assert reached == pytest.approx(target.exposure_usd[0] - target.band_usd[0], abs=30.0)
    near = target.exposure_usd[0] - 0.9 * target.band_usd[0]
    still = wanted(view(base=(near, 0.0)), FORECAST, params, rebalancing=(True, True))
    assert (still.position_lots == 0).all()


def test_a_target_that_will_not_stand_still_is_held_by_half_at_least():
    restless = replace(FORECAST, target_variance=np.array([10.0, 10.0]))
    exposure, band, inner = aimed(view(), restless, PARAMS)
    assert band[0] == inner[0] == MOST_OF_TARGET * exposure[0]


def test_it_is_never_narrower_than_the_least():
    least = {"kind": "volatility", "band": "cube_root", "min_band_usd": 90_000.0}
    band = aimed(view(), FORECAST, AllocatorParameters.model_validate({"targets": {"BTC": least}})).band
    assert band[0] == 90_000.0


def test_a_width_that_is_neither_a_fraction_nor_by_cost_is_refused():
    for band in ("cube_rot", 0.0, 1.5):
        with pytest.raises(ValidationError):
            AllocatorParameters.model_validate({"targets": {"BTC": {"kind": "volatility", "band": band}}})


def test_around_a_hedge_it_is_that_of_whalley_and_wilmott():
    """In contracts: (1.5 λ S Γ² / γ)^⅓, Γ of the book, γ the aversion per dollar."""
    v = view(position=(0, 0, 0, 0, 50, 0, 0, 0), universe=WITH_OPTIONS)
    wanted_usd = np.array([1e4, np.nan])
    spot = v.underlying_price[0]
    gamma = (100.0 * v.factor_usd("gamma")[0] + wanted_usd[0]) / spot**2  # a delta in dollars grows with the price
    aversion = 1.0 / (PARAMS.annual_vol * v.equity_usd)
    cost = cheapest(v, crossing_cost(v))
    by_hand = spot * (1.5 * cost[0] * spot * gamma**2 / aversion) ** (1 / 3)
    assert hedge_band(v, FORECAST, wanted_usd, cost, PARAMS)[0] == pytest.approx(by_hand, rel=1e-12)


def test_a_fixed_delta_may_have_its_band_by_cost_and_trades_to_the_edge():
    fixed = AllocatorParameters(targets={"BTC": FixedTarget(delta_usd=0.0, band_usd="cube_root")})
    v = view(position=(0, 0, 0, 0, -20, 0, 0, 0), base=(200_000.0, 0.0), universe=WITH_OPTIONS)
    exposure, band, inner = aimed(v, FORECAST, fixed)
    assert exposure[0] == 0.0 and 500.0 < band[0] == inner[0] < 100_000.0
    target = wanted(v, forecast(VOL, rows=8), fixed)
    reached = float((v.exposure_per_lot @ target.position_lots + v.exposure_base_usd)[0])
    assert v.delta_usd[0] > band[0] and reached == pytest.approx(band[0], abs=30.0)
    assert aimed(view(), FORECAST, fixed).band[0] == 500.0  # nothing moves it: the least


def test_a_target_that_keeps_changing_its_mind_has_a_wider_band_than_its_size_now():
    wander, day_ns = Wander.begin(2), 86_400 * 10**9
    for hour in range(24 * 30):
        wander = wander.after(START_NS + hour * day_ns // 24, np.array([100_000.0 * (-1) ** hour, 0.0]))
    assert wander.variance[0] == pytest.approx(24 * 200_000.0**2, rel=0.02) and wander.variance[1] == 0.0
    assert wander.size_usd[0] == pytest.approx(100_000.0, rel=0.01)
    v, small = view(), np.array([1_000.0, 0.0])
    cost = cheapest(v, crossing_cost(v))
    assert target_band(v, FORECAST, small, cost, PARAMS, 1.0)[0] <= 500.0
    assert target_band(v, FORECAST, small, cost, PARAMS, 1.0, wander)[0] == pytest.approx(50_000.0, rel=0.01)
    unknown = wander.after(START_NS + 31 * day_ns, np.full(2, np.nan))
    assert np.isfinite(unknown.variance).all()


# --- drawdown control ---------------------------------------------------------------------------------------


@given(st.floats(0.01, 1.0), st.floats(0.0, 1.0), st.floats(1e3, 1e9))
def test_the_budget_is_whole_at_the_peak_nothing_at_the_limit_and_a_multiple_of_the_cushion(most, drawdown, peak):
    params = AllocatorParameters(max_drawdown=most)
    equity = peak * (1.0 - drawdown)
    budget = risk_budget(equity, peak, params)
    assert 0.0 <= budget <= 1.0
    if drawdown >= most * (1 + 1e-6):
        assert budget == 0.0
    elif equity > 0.0:
        # Money at risk, budget · W, falls in a straight line from the whole at the peak to nothing at the limit.
        assert budget * equity == pytest.approx(peak * (1.0 - drawdown / most), abs=1e-6 * peak)
    assert risk_budget(peak, peak, params) == 1.0


def test_without_a_limit_a_drawdown_changes_nothing_and_unknown_equity_gives_no_target():
    assert risk_budget(50.0, 100.0, AllocatorParameters()) == 1.0
    assert np.isnan(risk_budget(float("nan"), 100.0, AllocatorParameters(max_drawdown=0.2)))
    assert risk_budget(-5.0, 100.0, AllocatorParameters(max_drawdown=1.0)) == 0.0


@given(st.floats(0.01, 0.19))
def test_target_and_band_shrink_together(drawdown):
    v = view(equity_usd=1e6, peak_equity_usd=1e6 / (1.0 - drawdown))
    budget = risk_budget(v.equity_usd, v.peak_equity_usd, by_cost(max_drawdown=0.2))
    exposure, band, _ = aimed(v, FORECAST, PARAMS)
    less, narrower, _ = aimed(v, FORECAST, by_cost(max_drawdown=0.2))
    assert 0.0 < budget < 1.0
    assert less[0] == pytest.approx(budget * exposure[0])
    assert narrower[0] == pytest.approx(max(budget * band[0], 1.0))


def test_at_the_limit_volatility_targets_are_flat_and_fixed_ones_stay():
    eth = {"ETH": FixedTarget(delta_usd=100_000, band_usd=10_000)}
    params = PARAMS.model_copy(update={"targets": PARAMS.targets | eth, "max_drawdown": 0.2})
    exposure, band, _ = aimed(view(equity_usd=7e5, peak_equity_usd=1e6), FORECAST, params)
    assert exposure.tolist() == [0.0, 100_000.0] and band.tolist() == [1.0, 10_000.0]


def test_lost_equity_wants_nothing():
    assert (volatility_targeted(np.ones(2), FORECAST, -1e5, PARAMS) == 0.0).all()
