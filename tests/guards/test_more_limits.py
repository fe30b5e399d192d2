"""Limits of groups, buckets, days and tails; conditions of the venue; and what is done when margin is in danger."""

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.domain.decisions import Licence
from dea_daemon.domain.instruments import AccountKey, Universe
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.orders import TimeInForce
from dea_daemon.guards.guard import guard
from dea_daemon.guards.scenarios import tail_losses
from dea_daemon.guards.uses import uses
from dea_daemon.pricing.revaluation import MOVES
from dea_daemon.pricing.worst_days import DAYS
from tests.guards.test_options_guards import admitted, bases, held, order, positions, view
from tests.guards.test_relative_and_greek_limits import limits
from tests.guards.views import COIN_CALL, USDC_CALL, WITH_OPTIONS, loss, whole
from tests.house import BTC_FUTURE, BTC_LINEAR, BTC_PERP, ETH_PERP


def used(v, params, limit):
    return {use.subject: (use.used, use.allowed) for use in uses(whole(v, params), params) if use.limit == limit}


# --- groups ---------------------------------------------------------------------------------------------------


def test_contracts_on_one_underlying_share_its_limit_and_another_has_its_own():
    params = limits(max_underlying_usd=50_000.0)
    v = view(held(perp=3_000))  # 30,000 USD
    planned = [order(BTC_LINEAR, 3_000), order(BTC_LINEAR, 2_000, 2), order(ETH_PERP, 40_000, 3)]
    let, refusals = admitted(v, planned, params)
    assert [o.row for o in let] == [BTC_LINEAR, ETH_PERP]
    assert [r.limit for r in refusals] == ["underlying"]
    assert used(v, params, "underlying") == {"BTC": (30_000.0, 50_000.0), "ETH": (0.0, 50_000.0)}


def test_a_wanted_book_is_cut_to_its_groups_limit_by_what_would_grow():
    params = limits(max_underlying_leverage=0.05)
    v = view(held(perp=3_000))
    wanted = v.position_lots.copy()
    wanted[BTC_LINEAR], wanted[ETH_PERP] = 4_000, 1_000
    permit = guard(v, wanted, params)
    usd = np.abs(permit.position_lots) * v.notional_per_lot_usd
    assert usd[WITH_OPTIONS.underlying == 0].sum() <= 50_000.0
    assert permit.position_lots[BTC_PERP] == 3_000 and 0 < permit.position_lots[BTC_LINEAR] < 4_000
    assert permit.position_lots[ETH_PERP] == 1_000
    assert {clip.limit for clip in permit.clips} == {"underlying"}


def test_venues_have_limits_of_their_own():
    two = Universe(
        (AccountKey("deribit", "main"), AccountKey("elsewhere", "main")),
        tuple((int(i.name.startswith("ETH")), i) for i in WITH_OPTIONS.instruments),
    )
    v = replace(view(held(perp=3_000)), universe=two)
    params = limits(max_venue_usd=40_000.0)
    let, refusals = admitted(v, [order(BTC_LINEAR, 2_000), order(ETH_PERP, 30_000, 2)], params)
    assert [o.row for o in let] == [ETH_PERP] and refusals[0].limit == "venue"
    assert used(v, params, "venue").keys() == {"deribit", "elsewhere"}


def test_vega_in_one_bucket_is_limited_though_the_sum_is_not():
    v = view(held(coin_call=-40))
    name = next(f for f in v.factors.names if f.startswith("vega:BTC:") and v.exposure_usd[v.factors.names.index(f)])
    now = abs(float(v.exposure_usd[v.factors.names.index(name)]))
    params = limits(max_bucket_vega_usd_1pt=1.05 * now)
    let, refusals = admitted(v, [order(COIN_CALL, -1), order(COIN_CALL, -10, 2)], params)
    assert [o.lots for o in let] == [1] and [r.limit for r in refusals] == ["bucket_vega"]
    assert [o.lots for o in admitted(v, [order(COIN_CALL, 10)], params)[0]] == [10]
    assert used(v, params, "bucket_vega")[name] == (pytest.approx(now), pytest.approx(1.05 * now))


# --- losses ---------------------------------------------------------------------------------------------------


def test_the_worst_of_historys_days_is_joint_as_it_was():
    params = limits(max_stress_loss=0.5)
    v = view(base=(100_000.0, 100_000.0))
    expected = max(-(100_000.0 * btc + 100_000.0 * eth) for _, btc, eth, _ in DAYS)
    assert used(v, params, "stress") == {"book": (pytest.approx(expected), 500_000.0)}
    # Against each other only what they parted by is lost.
    v = view(base=(100_000.0, -100_000.0))
    assert used(v, params, "stress")["book"][0] == pytest.approx(max(-1e5 * (b - e) for _, b, e, _ in DAYS))


def test_beyond_the_stress_limit_nothing_grows():
    params = limits(max_stress_loss=0.02)
    v = view(base=(100_000.0, 0.0))
    let, _ = admitted(v, [order(BTC_PERP, 100), order(BTC_PERP, -1_000, 2)], params)
    assert [o.side.sign for o in let] == [-1]


def test_without_a_past_a_days_loss_is_judged_by_the_volatility_assumed():
    params = limits(max_var=0.5, max_es=0.5, var_annual_vol=0.8)
    v = view(base=(100_000.0, -50_000.0))
    sd = 0.8 / math.sqrt(365.0)
    assert used(v, params, "var")["book"][0] == pytest.approx(2.3263 * sd * 150_000.0, rel=1e-9)
    assert used(v, params, "es")["book"][0] == pytest.approx(2.3378 * sd * 150_000.0, rel=1e-9)


@given(bases, st.integers(0, 1_000))
@settings(max_examples=40, deadline=None)
def test_with_a_past_var_and_es_are_those_of_the_book_revalued_hour_by_hour(base, seed):
    """Linear books: an oracle by one product. Seen wilder than assumed, nothing is scaled."""
    seen = np.random.default_rng(seed).standard_t(4, (400, 2)) * 0.06
    params = limits(max_var=0.5, max_es=0.5, var_annual_vol=0.1)
    v = view(held(perp=1_000), base=base, day_returns=seen)
    lost = -(seen @ v.delta_usd)
    assert used(v, params, "var")["book"][0] == pytest.approx(max(np.quantile(lost, 0.99), 0.0), rel=1e-9, abs=1e-6)
    assert used(v, params, "es")["book"][0] == pytest.approx(max(np.sort(lost)[-10:].mean(), 0.0), rel=1e-9, abs=1e-6)


def test_a_quiet_past_is_scaled_to_the_volatility_assumed():
    seen = np.random.default_rng(3).normal(0.0, 0.01, (400, 2))
    params = limits(max_var=0.5, var_annual_vol=0.8)
    calm = used(view(base=(1e5, 0.0), day_returns=seen), params, "var")["book"][0]
    assert calm == pytest.approx(np.quantile(-seen[:, 0], 0.99) / seen[:, 0].std() * 0.8 / math.sqrt(365) * 1e5)


def test_a_convex_book_loses_what_its_revaluation_says_between_the_points_of_the_grid():
    outcomes = np.zeros((35, 1))
    outcomes[1:27:3, 0] = -1e6 * MOVES**2
    moves = np.full((300, 1), 0.04)
    var, _ = tail_losses(outcomes, moves * np.sign(np.arange(300) % 2 - 0.5)[:, None], 1e-6)
    assert var == pytest.approx(1e6 * 0.04**2)


@given(positions, bases)
@settings(max_examples=30, deadline=None)
def test_the_limits_on_losses_hold_whatever_the_allocator_wants(position, base):
    params = limits(max_stress_loss=0.2, max_var=0.03, max_es=0.04, max_scenario_loss=0.1)
    v = view(held(perp=500), base=base)
    permit = guard(v, np.array(position), params)
    before, after = whole(v, params).held_losses_usd, whole(v, params).losses_of(permit.position_lots)
    for kind, cap in (("stress", 2e5), ("var", 3e4), ("es", 4e4), ("scenario", 1e5)):
        assert after[kind] <= max(cap, before[kind]) + 1e-6, kind


# --- margin ---------------------------------------------------------------------------------------------------


def test_in_danger_a_pools_positions_come_down_alike_at_once_and_others_stay():
    use = np.where([i.margin_pool == "BTC" for i in WITH_OPTIONS.instruments], 0.9, 0.1)
    v = view(held(perp=9_000, coin_call=-90), margin_use=0.9, row_margin_use=use)
    permit = guard(v, v.position_lots, limits())
    assert permit.position_lots[BTC_PERP] == 6_000 and permit.position_lots[COIN_CALL] == -60
    assert permit.urgent.tolist() == [True, False]
    assert {clip.limit for clip in permit.clips} == {"margin"}
    let, _ = admitted(v, [order(BTC_PERP, -3_000), order(COIN_CALL, 30, 2), order(ETH_PERP, 100, 3)], limits())
    assert [o.row for o in let] == [BTC_PERP, COIN_CALL]


def test_a_margin_that_is_not_known_cuts_nothing_and_lets_nothing_grow():
    n = len(WITH_OPTIONS)
    v = view(held(perp=9_000), margin_use=math.nan, row_margin_use=np.full(n, math.nan))
    permit = guard(v, v.position_lots, limits())
    assert permit.position_lots[BTC_PERP] == 9_000
    assert (permit.licence == Licence.SHRINK_POSITION).all()


@pytest.mark.parametrize(("distance", "licence"), [(0.3, 3), (0.1, 2), (0.0, 2), (math.nan, 2), (math.inf, 3)])
def test_near_a_liquidation_exposure_only_shrinks(distance, licence):
    params = limits(min_liquidation_distance=0.2)
    v = view(held(perp=1_000), liquidation_distance=distance)
    permit = guard(v, v.position_lots, params)
    assert permit.licence[BTC_PERP] == licence
    ((share, allowed),) = used(v, params, "liquidation").values()
    assert (not share <= allowed) is (licence == 2)


# --- losses of the account --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equity_usd", "mode"),
    [(0.97e6, Mode.NORMAL), (0.88e6, Mode.REDUCE_ONLY), (0.82e6, Mode.FLATTENING), (0.7e6, Mode.HALTED)],
)
def test_a_drawdown_leads_from_reduce_only_over_flattening_to_a_halt(equity_usd, mode):
    params = limits(max_drawdown=0.1, flatten_drawdown=0.15, halt_drawdown=0.25)
    v = view(equity_usd=equity_usd, peak_equity_usd=1e6, day_equity_usd=0.0)
    permit = guard(v, v.position_lots, params)
    assert permit.mode is mode and (mode is Mode.NORMAL or "drawdown" in permit.mode_why)


def test_a_days_loss_flattens_between_reduce_only_and_a_halt():
    params = limits(max_daily_loss=0.03, flatten_daily_loss=0.04, halt_daily_loss=0.05)
    for lost, mode in ((0.035, Mode.REDUCE_ONLY), (0.045, Mode.FLATTENING), (0.055, Mode.HALTED)):
        v = view(equity_usd=1e6 * (1.0 - lost), peak_equity_usd=1e6, day_equity_usd=1e6)
        assert guard(v, v.position_lots, params).mode is mode


@pytest.mark.parametrize("mode", [Mode.PAUSED, Mode.HALTED, Mode.FLATTENING])
def test_a_loss_never_leads_to_a_milder_mode(mode):
    params = limits(max_drawdown=0.1, flatten_drawdown=0.15)
    v = view(equity_usd=0.8e6, peak_equity_usd=1e6, day_equity_usd=0.0, mode=mode)
    assert guard(v, v.position_lots, params).mode is mode


# --- conditions -------------------------------------------------------------------------------------------------


def test_off_its_peg_what_settles_in_a_stablecoin_only_shrinks_and_proves_no_loss():
    usdc = np.array([i.settle_currency == "USDC" for i in WITH_OPTIONS.instruments])
    book = tuple(100 * (np.arange(8) == BTC_LINEAR))
    v = view(book, peg=np.where(usdc, 0.99, 1.0), equity_usd=0.1e6, peak_equity_usd=1e6)
    permit = guard(v, v.position_lots, limits(max_drawdown=0.2, halt_drawdown=0.3))
    assert permit.mode is Mode.NORMAL
    assert (permit.licence[usdc] == Licence.SHRINK_POSITION).all()
    assert (permit.licence[~usdc] == Licence.SHRINK_EXPOSURE).all()  # by the drawdown
    assert used(v, limits(), "depeg") == {"USDC": (pytest.approx(0.01), 0.005)}
    let, _ = admitted(v, [order(BTC_LINEAR, -10), order(BTC_LINEAR, 10, 2), order(USDC_CALL, 1, 3)], limits())
    assert [(o.row, o.side.sign) for o in let] == [(BTC_LINEAR, -1)]
    assert (guard(replace(v, peg=np.full(len(usdc), math.nan)), v.position_lots, limits()).licence < 2).all()


def test_nothing_is_sent_where_the_venue_is_shut_not_even_what_reduces():
    shut = np.arange(len(WITH_OPTIONS)) == BTC_PERP
    v = view(held(perp=1_000), shut=shut)
    let, _ = admitted(v, [order(BTC_PERP, -100), order(BTC_LINEAR, 10, 2)], limits())
    assert [o.row for o in let] == [BTC_LINEAR]


def test_without_a_watchdog_positions_only_shrink():
    v = view(held(perp=1_000), watched=False)
    let, _ = admitted(v, [order(BTC_PERP, 100), order(BTC_PERP, -100, 2), order(BTC_FUTURE, -100, 3)], limits())
    assert [(o.row, o.side.sign) for o in let] == [(BTC_PERP, -1)]


# --- budgets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "limit"), [("turnover", "turnover"), ("fees", "fees")])
def test_a_day_has_its_budget_beside_the_hours(option, limit):
    params = limits(**{f"max_{option}_usd_per_day": 1_000.0, f"max_{option}_usd_per_hour": 1e9})
    v = view(**{f"{option}_day_usd": 999.9999})
    let, refusals = admitted(v, [order(BTC_PERP, 100)], params)
    assert not let and refusals[0].limit == limit and "24" in refusals[0].why
    assert admitted(view(), [order(BTC_PERP, 10)], params)[0]
    assert used(v, params, limit)["day"] == (pytest.approx(999.9999), 1_000.0)


def test_where_nearly_all_is_taken_back_orders_cross_or_wait():
    params = limits(max_cancel_ratio=5.0)
    v = view(creates_last_hour=100, cancels_last_hour=600)
    resting = msgspec.structs.replace(order(BTC_PERP, 100), time_in_force=TimeInForce.GTC)
    let, refusals = admitted(v, [resting, order(BTC_PERP, 100, 2)], params)
    assert [o.time_in_force for o in let] == [TimeInForce.IOC]
    assert [r.limit for r in refusals] == ["cancel_ratio"]
    assert not guard(v, v.position_lots, params).resting
    few = view(creates_last_hour=10, cancels_last_hour=600)
    assert guard(few, few.position_lots, params).resting and admitted(few, [resting], params)[0]


def test_losses_are_told_once_for_what_is_held_and_again_for_what_works():
    params = limits(max_scenario_loss=0.5)
    v = view(held(perp=1_000), buys=held(perp=1_000))
    book = whole(v, params)
    assert book.held_losses_usd["scenario"] == pytest.approx(loss(v, v.position_lots, params))
    assert book.losses_usd()["scenario"] == pytest.approx(2 * book.held_losses_usd["scenario"])


def test_what_cannot_be_valued_does_not_keep_the_rest_from_getting_smaller():
    """A loss that nobody can tell must not stop a flattening, nor the cut of a pool in danger."""
    per_lot = view().delta_per_lot.copy()
    per_lot[ETH_PERP] = math.nan
    lots = tuple(1_000 * ((np.arange(8) == BTC_PERP) | (np.arange(8) == ETH_PERP)))
    v = view(lots, delta_per_lot=per_lot, mode=Mode.FLATTENING)
    params = limits(max_scenario_loss=0.1, max_stress_loss=0.1, max_var=0.1)
    assert guard(v, np.zeros(8, dtype=np.int64), params).position_lots[BTC_PERP] == 0
    assert [o.row for o in admitted(v, [order(BTC_PERP, -1_000)], params)[0]] == [BTC_PERP]


def test_an_index_that_stood_still_is_not_taken_for_one_without_risk():
    still = np.zeros((400, 2))
    params = limits(max_var=0.5, max_es=0.5)
    blind = used(view(base=(1e5, 0.0)), params, "var")["book"][0]
    assert used(view(base=(1e5, 0.0), day_returns=still), params, "var")["book"][0] == blind > 0.0


def test_a_stablecoin_nobody_holds_hides_no_loss():
    usdc = np.array([i.settle_currency == "USDC" for i in WITH_OPTIONS.instruments])
    params = limits(halt_daily_loss=0.1)
    peg = np.where(usdc, 0.99, 1.0)
    v = view(held(perp=1_000), peg=peg, equity_usd=3e5, day_equity_usd=1e6)
    assert guard(v, v.position_lots, params).mode is Mode.HALTED
    holds = view(tuple(100 * (np.arange(8) == BTC_LINEAR)), peg=peg, equity_usd=3e5, day_equity_usd=1e6)
    assert guard(holds, holds.position_lots, params).mode is Mode.NORMAL
