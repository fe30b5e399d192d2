"""Forecasters of returns: they learn what is there, from outcomes only, and trade only what weight they are given."""

from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError

from dea_daemon.domain.decisions import Slow
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import ForecasterName, ForecastParameters, LearnerParameters
from dea_daemon.forecast import features, learners
from dea_daemon.forecast.volatility import observe, predict
from tests.forecast.test_recall import bars, end_ns, recalled, seen
from tests.guards.views import view

DAILY = LearnerParameters(every_s=86_400)
VOL = 0.03  # a day
RIDGE = learners.LEARNERS.index("ridge")


def learned(returns, params=DAILY, memory=None, earned=None, first=20_000):
    """The learners after daily `returns` [T, U] of known volatility."""
    price = 100.0 * np.exp(np.cumsum(returns, axis=0))
    memory = memory or learners.LearnerMemory(returns.shape[1])
    earned = np.full(returns.shape[1], np.nan) if earned is None else earned
    for k, now in enumerate(price):
        variance = np.full(returns.shape[1], VOL**2)
        learners.observe(memory, (first + k) * NS_PER_DAY, now, variance, None, earned, params)
    return memory


def walk(days, u, seed):
    return VOL * np.random.default_rng(seed).standard_normal((days, u))


def reverting(days, u, seed, strength):
    """Each day gives back a share of the week before: `strength` standard deviations for each of the week's."""
    returns = walk(days, u, seed)
    for k in range(7, days):
        week = returns[k - 7 : k].sum(axis=0) / (VOL * np.sqrt(7.0))
        returns[k] -= strength * VOL * np.clip(week, -3.0, 3.0)
    return returns


def said(memory, h, learner):
    horizon = memory.horizons[h]
    return horizon.said[memory.past.slot % (horizon.steps + 1), learners.LEARNERS.index(learner)]


def test_ridge_finds_what_the_past_week_tells_and_earns_the_weight():
    memory = learned(reverting(1_500, 2, 1, 0.25))
    scores = memory.horizons[0].scores
    assert (scores.t()[RIDGE] > 2.0).all() and (scores.r_squared()[RIDGE] > 0.01).all()
    assert (memory.horizons[0].beta[:, 1 + features.NAMES.index("return_7d")] < -0.1).all()
    assert memory.horizons[0].weights.argmax() == RIDGE


def test_in_a_market_that_trends_the_prior_and_momentum_are_better_than_zero():
    memory = learned(walk(1_200, 2, 2) + 0.25 * VOL)
    prior, momentum = (learners.LEARNERS.index(name) for name in ("prior", "momentum"))
    assert (memory.horizons[0].scores.t()[[prior, momentum]] > 2.0).all()


def test_on_a_random_walk_nobody_earns_weight():
    memory = learned(walk(1_200, 12, 3))
    for horizon in memory.horizons:
        assert horizon.weights[0] > 0.42 and horizon.weights[1:].max() < 0.2
        assert np.nanmean(horizon.scores.t()[RIDGE]) < 1.0
        assert np.mean(horizon.scores.r_squared()[RIDGE]) < 0.002


def test_ridge_forgets_what_is_no_longer_so():
    quick = LearnerParameters(every_s=86_400, half_life_days=120.0)
    returns = np.concatenate([reverting(900, 2, 4, 0.3), reverting(900, 2, 5, -0.15)])
    beta = learned(returns, quick).horizons[0].beta[:, 1 + features.NAMES.index("return_7d")]
    assert (beta > 0.03).all()


def test_ridge_is_the_batch_solution_of_matured_outcomes_alone():
    """Normal equations of every pair whose outcome is known, solved at once; the last few days are of no use yet."""
    returns, never = walk(150, 1, 6), LearnerParameters(every_s=86_400, half_life_days=1e7)
    price = 100.0 * np.exp(np.cumsum(returns, axis=0))
    memory, asked = learners.LearnerMemory(1), []
    for k, now in enumerate(price):
        learners.observe(memory, (k + 9) * NS_PER_DAY, now, np.full(1, VOL**2), None, np.full(1, np.nan), never)
        asked.append(memory.horizons[1].asked[memory.past.slot % 6, 0].copy())
    h = 5
    x, y = np.array(asked)[:-h], np.log(price[h:, 0] / price[:-h, 0]) / (VOL * np.sqrt(h))
    gram = learners.RIDGE * np.eye(x.shape[1]) + x.T @ x / h
    expected = np.linalg.solve(gram, x.T @ np.clip(y, -4.0, 4.0) / h)
    assert memory.horizons[1].beta[0] == pytest.approx(expected, abs=1e-6)


def test_nothing_is_learned_before_the_first_outcome_is_known():
    memory = learned(walk(5, 1, 7))
    assert (memory.horizons[1].beta == 0.0).all() and memory.horizons[1].scores.count[0] == 0
    assert (memory.horizons[0].beta != 0.0).any() and memory.horizons[0].scores.count[0] == 4
    later = learned(walk(6, 1, 7))
    assert (later.horizons[1].beta != 0.0).any() and later.horizons[1].scores.count[0] == 1


def test_a_missing_price_makes_no_outcome_and_no_forecast_and_stops_nobody():
    returns = walk(60, 2, 8)
    returns[30:33, 0] = np.nan
    price = 100.0 * np.exp(np.nancumsum(returns, axis=0))
    price[30:33, 0] = np.nan
    memory = learners.LearnerMemory(2)
    for k, now in enumerate(price):
        learners.observe(memory, (k + 9) * NS_PER_DAY, now, np.full(2, VOL**2), None, np.full(2, np.nan), DAILY)
        if k == 31:
            assert said(memory, 0, "prior")[0] == 0.0 and said(memory, 0, "prior")[1] > 0.0
    assert memory.horizons[0].scores.count.tolist() == [55, 59]
    assert np.isfinite(memory.horizons[0].beta).all() and np.isfinite(memory.horizons[0].weights).all()


def test_days_nobody_decided_on_are_no_outcomes():
    memory = learned(walk(20, 1, 9), first=1_000)
    learned(walk(20, 1, 10), memory=memory, first=1_023)
    assert memory.horizons[0].scores.count[0] == 19 + 19 and memory.horizons[1].scores.count[0] == 15 + 17


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e308])
def test_a_forecaster_that_is_no_number_says_nothing_and_ridge_begins_anew_for_that_underlying(bad):
    weighed = LearnerParameters(every_s=86_400, weights={"momentum_5d": 0.2})
    returns = walk(120, 2, 12)
    memory = learned(returns, weighed)
    other = memory.horizons[1].beta[1].copy()
    memory.horizons[1].spread[0] = bad
    memory.horizons[1].beta[0] = bad
    memory = learned(np.concatenate([np.zeros((1, 2)), walk(1, 2, 13)]), weighed, memory, first=20_120)
    horizon = memory.horizons[1]
    assert np.isfinite(horizon.said).all() and np.isfinite(horizon.beta).all() and np.isfinite(horizon.spread).all()
    assert np.isfinite(learners.signals(memory, weighed)[0]).all() and np.isfinite(horizon.weights).all()
    assert np.abs(horizon.beta[0]).max() < 0.1 and horizon.beta[1] == pytest.approx(other, abs=0.02)


def test_an_absurd_price_scores_as_four_deviations():
    returns = np.zeros((30, 1))
    returns[20] = np.log(10.0)
    scores = learned(returns).horizons[0].scores
    assert scores.base[0] == pytest.approx(16.0) and (scores.error[:, 0] < 30.0).all()


def test_ridge_forgets_no_faster_than_in_ten_days():
    assert LearnerParameters(half_life_days=10.0).half_life_days == 10.0
    for days in (9.9, 0.02, float("inf")):
        with pytest.raises(ValidationError):
            LearnerParameters(half_life_days=days)


def test_carry_expects_the_price_to_do_what_holding_earns():
    earned = np.array([0.001, np.nan])
    memory = learned(walk(10, 2, 11), earned=earned)
    assert said(memory, 0, "carry") == pytest.approx([0.001 / VOL, 0.0])
    assert said(memory, 1, "carry") == pytest.approx([0.001 * np.sqrt(5.0) / VOL, 0.0])


def test_momentum_counts_what_is_known_and_no_more_than_two_deviations():
    rising = np.full((200, 1), 0.01)
    a_day = 0.5 / np.sqrt(DAYS_PER_YEAR)
    assert said(learned(rising[:9]), 0, "momentum")[0] == pytest.approx(0.01 * 7.0 / (VOL * np.sqrt(7.0)) * a_day)
    capped = (0.01 / VOL * np.sqrt(7.0) + 0.01 / VOL * np.sqrt(28.0) + 2.0) / 3.0
    assert said(learned(rising), 0, "momentum")[0] == pytest.approx(capped * a_day)
    assert said(learned(rising[:5]), 0, "momentum")[0] == 0.0


# --- in the daemon's forecast ------------------------------------------------------------------------------------


def forecast_with(memory, closes, **options):
    params = ForecastParameters(learners=LearnerParameters(**options))
    now = seen(end_ns(closes) + 3_600 * NS_PER_S, closes[-1])
    observe(memory, now, params)
    return predict(now, memory, params)


def test_without_weight_they_are_told_and_scored_and_expect_nothing():
    closes = bars(40)
    forecast = forecast_with(recalled(closes), closes)
    assert forecast.signal_return.shape == (0, 2)
    assert [line.name for line in forecast.forecasters[::2]] == list(learners.FORECASTERS)
    assert all(line.weight == 0.0 for line in forecast.forecasters)
    assert forecast.forecasters[0].scored == 40 * 24 + 1 - 24  # all that was recalled, but for the last day


def test_a_weight_makes_a_signal_that_fades_with_its_horizon():
    closes = bars(40)
    forecast = forecast_with(recalled(closes), closes, weights={"prior_5d": 0.4})
    assert forecast.signal_decay == pytest.approx([1.0 / 5.0])
    expected = 0.4 * 0.5 * forecast.annual_vol / DAYS_PER_YEAR  # weight times the prior's Sharpe ratio
    assert forecast.mean_return == pytest.approx(expected, rel=1e-2)


def test_all_together_never_expect_more_than_the_cap():
    closes = bars(40)
    options = {"weights": {"prior_1d": 0.5, "prior_5d": 0.5}, "prior_sharpe": 4.0, "max_sharpe": 0.7}
    forecast = forecast_with(recalled(closes), closes, **options)
    assert forecast.mean_return * DAYS_PER_YEAR == pytest.approx(0.7 * forecast.annual_vol, rel=1e-2)


def test_what_was_earned_is_traded_only_where_that_is_asked_for():
    closes = bars(40)
    forecast = forecast_with(recalled(closes), closes, combine="hedge")
    assert forecast.signal_decay == pytest.approx([1.0, 1.0 / 5.0])
    lines = forecast.forecasters[::2]
    assert sum(line.weight for line in lines) == pytest.approx(1.0)
    assert [line.weight for line in lines] == pytest.approx([line.earned / 2.0 for line in lines])


def test_the_words_say_return_and_uncertainty_over_the_horizon():
    closes = bars(40)
    forecast = forecast_with(recalled(closes), closes)
    told = {(line.name, line.underlying): line for line in forecast.forecasters}
    vol = forecast.annual_vol[0] / np.sqrt(DAYS_PER_YEAR)
    line = told["prior_5d", "BTC"]
    assert line.expected_return == pytest.approx(0.5 * 5.0 * vol / np.sqrt(DAYS_PER_YEAR), rel=1e-2)
    assert line.deviation == pytest.approx(vol * np.sqrt(5.0), rel=0.3)


def test_names_of_the_configuration_are_the_forecasters_and_weights_are_a_share():
    grown = {f"trees_{days:g}d" for days in learners.HORIZON_DAYS}
    assert set(get_args(ForecasterName)) == {n for n in learners.FORECASTERS if not n.startswith("zero")} | grown
    with pytest.raises(ValidationError, match="not enabled"):
        LearnerParameters.model_validate({"weights": {"trees_1d": 0.1}})
    for wrong in ({"ridge_2d": 0.1}, {"ridge_1d": -0.1}, {"ridge_1d": 0.6, "prior_1d": 0.6}, {"ridge_1d": np.nan}):
        with pytest.raises(ValidationError):
            LearnerParameters.model_validate({"weights": wrong})


def test_ridge_learns_of_a_slow_factor_that_joins_while_it_runs_and_bears_its_silence():
    dice, memory = np.random.default_rng(13), learners.LearnerMemory(2)
    z = dice.standard_normal(700)
    price = 100.0 * np.exp(np.cumsum(VOL * (dice.standard_normal((700, 2)) + 0.3 * np.append(0.0, z[:-1])[:, None]), 0))
    for k, now in enumerate(price):
        slow = Slow(("mood",) if 50 <= k < 690 else (), z[k : k + (50 <= k < 690)], np.zeros(0), np.zeros(0, np.bool_))
        variance, unknown = np.full(2, VOL**2), np.full(2, np.nan)
        learners.observe(memory, (9 + k) * NS_PER_DAY, now, variance, view(slow=slow), unknown, DAILY)
    assert (memory.horizons[0].beta[:, -1] > 0.1).all() and (memory.horizons[0].scores.t()[RIDGE] > 2.0).all()


def test_another_grid_begins_anew():
    memory = learned(walk(30, 2, 12))
    hourly = LearnerParameters()
    now_ns = 30_000 * NS_PER_DAY
    assert learners.due(memory, now_ns, hourly)
    learners.observe(memory, now_ns, np.ones(2), np.full(2, VOL**2), None, np.full(2, np.nan), hourly)
    assert memory.horizons[0].scores.count.tolist() == [0, 0] and memory.horizons[0].steps == 24
    assert not learners.due(memory, now_ns + 3_599 * NS_PER_S, hourly)


def test_a_run_with_the_same_past_says_the_same():
    closes = bars(40)
    first, second = (forecast_with(recalled(closes), closes, combine="hedge") for _ in range(2))
    assert repr(first.forecasters) == repr(second.forecasters)
    assert (first.signal_return == second.signal_return).all()
