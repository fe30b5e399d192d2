"""HAR: the regression that it says it is, blind to the future, whole after gaps."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters
from dea_daemon.forecast import har
from dea_daemon.forecast.volatility import (
    VolatilityMemory,
    daily_variance,
    expected_variance,
    predict,
    sample,
    target_variance,
)
from tests.guards.views import view
from tests.shared_data import shared

HOUR_NS = 3_600 * NS_PER_S
START_NS = 500_000 * HOUR_NS
HOURLY = ForecastParameters(sample_every_s=3_600, half_life_s=86_400, correlation_half_life_s=864_000)
NO_CLIP = HOURLY.model_copy(update={"jump_clip": 1e6, "vol_floor": 1e-6, "vol_cap": 1e6})


def restless(days, seed=1):
    """[hours, 2] prices whose volatility wanders."""
    rng = np.random.default_rng(seed)
    n = days * 24
    log_vol = np.log(0.6 / np.sqrt(DAYS_PER_YEAR * 24)) + np.cumsum(0.02 * rng.standard_normal((n, 2)), axis=0)
    return 1_000.0 * np.exp(np.cumsum(np.exp(log_vol) * rng.standard_normal((n, 2)), axis=0))


def steady(days, annual_vol=0.5, seed=2):
    z = np.random.default_rng(seed).standard_normal((days * 24, 2))
    return 1_000.0 * np.exp(np.cumsum(annual_vol / np.sqrt(DAYS_PER_YEAR * 24) * z, axis=0))


def learn(prices, params=HOURLY, memory=None, first=0):
    """The memory after an hour for each price, and what it expected after each of them, [hours, 2]."""
    memory = memory or VolatilityMemory(2)
    expected = np.empty(prices.shape)
    for k, price in enumerate(prices):
        sample(memory, START_NS + (first + k) * HOUR_NS, price, params)
        expected[k] = expected_variance(memory, params)
    return memory, expected


def by_least_squares(price, params):
    """(weights, variance) for one underlying from all its hourly prices at once."""
    squares = np.diff(np.log(price)) ** 2
    total, fourths = (np.concatenate([[0.0], np.cumsum(squares**power)]) for power in (1, 2))
    prior = params.prior_annual_vol**2 / DAYS_PER_YEAR

    def regressors(hour):  # after `hour` returns; of a month not yet whole, what there is
        spans = [min(span, hour) for span in (24, 168, 720)]
        rates = [(total[hour] - total[hour - span]) / (span / 24) for span in spans]
        logs = np.log(np.array(rates) / prior)
        first = hour - spans[0]
        rq = len(squares[first:hour]) / 3.0 * (fourths[hour] - fourths[first])  # realised quarticity
        error = np.sqrt(2.0 * rq / len(squares[first:hour])) / (total[hour] - total[first])
        return np.array([1.0, *logs, error * logs[0] if params.model == "harq" else 0.0])

    hours = range(1 + 24 * 15, len(squares) + 1, 24)  # the first is asked after one return, and from the 15th day on
    x = np.array([regressors(h) for h in hours])
    y = x[1:, 1]
    stack = np.sqrt(har.RIDGE)
    weights, used, smear = har.PRIOR_WEIGHTS, [], [har.PRIOR_SMEAR] * int(har.SMEAR_DAYS)
    for k in range(len(y)):
        used.append(weights)
        design = np.vstack([x[: k + 1], stack * np.eye(5)])
        outcome = np.concatenate([y[: k + 1], stack * har.PRIOR_WEIGHTS])
        weights = np.linalg.lstsq(design, outcome, rcond=None)[0]
        smear.append(min(np.exp(y[k] - x[k] @ used[k]), har.SMEAR_MOST))
    return weights, np.exp(regressors(len(squares)) @ weights) * np.mean(smear) * prior


@pytest.mark.parametrize("model", ["har", "harq"])
def test_its_weights_and_its_forecast_are_those_of_least_squares_on_the_whole_history(model):
    params = NO_CLIP.model_copy(update={"model": model})
    prices = restless(90)
    memory, _ = learn(prices, params)
    for u in range(2):
        weights, variance = by_least_squares(prices[:, u], params)
        assert memory.har.weights[u] == pytest.approx(weights, rel=1e-6, abs=1e-9)
        assert memory.har.variance[u] == pytest.approx(variance, rel=1e-6)
        assert np.abs(memory.har.weights[u] - har.PRIOR_WEIGHTS).max() > 0.01  # it did learn
        assert (memory.har.weights[u, 4] != 0.0) == (model == "harq")


def test_of_a_steady_walk_it_expects_the_volatility_there_is():
    _, expected = learn(steady(300))
    assert np.sqrt(expected[-2_400:].mean(axis=0) * DAYS_PER_YEAR) == pytest.approx([0.5, 0.5], rel=0.06)


@pytest.mark.parametrize("cut", [100, 700, 1_000])
def test_what_comes_later_changes_nothing_before(cut):
    prices = restless(50)
    _, before = learn(prices)
    other = prices.copy()
    other[cut:] *= np.exp(0.05 * np.random.default_rng(9).standard_normal(other[cut:].shape))
    _, after = learn(other)
    assert (before[:cut] == after[:cut]).all() and not (before[cut:] == after[cut:]).any()


def test_of_a_day_made_by_one_jump_it_knows_that_it_knows_little():
    steps = steady(40)
    memory, _ = learn(steps)
    usual = har.relative_error(memory.har)
    assert usual == pytest.approx([np.sqrt(2.0 / 24.0)] * 2, rel=0.5)  # of 24 normal returns
    sample(memory, START_NS + 40 * 24 * HOUR_NS, steps[-1] * 1.5, HOURLY.model_copy(update={"jump_clip": 50.0}))
    assert (har.relative_error(memory.har) > 0.75).all() and (har.relative_error(memory.har) < np.sqrt(2 / 3)).all()


def test_harq_leans_less_on_a_day_of_which_it_knows_little():
    """Every other day, on average, is one return that says little; the others' 24 equal ones say all there is."""
    rng = np.random.default_rng(5)
    log_vol, returns = 0.0, [0.0]
    for day in range(250):
        log_vol = 0.9 * log_vol + 0.3 * rng.standard_normal()
        scale = 0.6 / np.sqrt(DAYS_PER_YEAR) * np.exp(log_vol)
        sizes = np.full(24, scale / np.sqrt(24.0)) if rng.random() < 0.5 else np.full(24, scale / 50.0)
        sizes[day % 24] += 0.0 if sizes[0] > scale / 10.0 else scale * np.exp(0.8 * rng.standard_normal())
        returns += list(sizes * rng.choice([-1.0, 1.0], 24))
    price = 1_000.0 * np.exp(np.cumsum(returns))
    params = HOURLY.model_copy(update={"model": "harq", "jump_clip": 1e3})
    memory, _ = learn(np.column_stack([price, price]), params)
    assert (memory.har.weights[:, 4] < -0.2).all() and (memory.har.weights[:, 1] > 0.4).all()


def test_until_it_has_seen_a_week_the_fast_estimate_has_a_share():
    prices = restless(4)
    memory, _ = learn(prices[: 24 * 3 + 12 + 1])
    fast, slow = daily_variance(memory, HOURLY), memory.har.variance
    assert memory.har.covered_days == pytest.approx([3.5, 3.5])
    between = np.maximum(np.sqrt(fast * slow), 0.49 * fast)
    assert expected_variance(memory, HOURLY) == pytest.approx(between, rel=1e-12)
    first = VolatilityMemory(2)
    assert (expected_variance(first, HOURLY) == daily_variance(first, HOURLY)).all()


def test_it_is_not_believed_far_below_the_fast_estimate():
    prices = steady(60, 0.3)
    params = HOURLY.model_copy(update={"half_life_s": 7_200, "prior_samples": 0.1, "jump_clip": 50.0})
    crash = prices[-1] * np.exp(np.cumsum(np.tile([[0.03], [-0.03]], (6, 2)), axis=0))
    memory, expected = learn(np.vstack([prices, crash]), params)
    fast = daily_variance(memory, params)
    assert (memory.har.variance < 0.49 * fast).all()
    assert expected[-1] == pytest.approx(0.49 * fast)


def test_the_fast_estimate_alone_is_there_for_the_asking():
    ewma = HOURLY.model_copy(update={"model": "ewma"})
    memory, expected = learn(restless(40), ewma)
    assert (expected[-1] == daily_variance(memory, ewma)).all()


def test_what_is_missing_of_one_underlying_leaves_the_other_alone():
    prices = restless(50)
    _, whole = learn(prices)
    prices[300:400, 1] = np.nan
    memory, holed = learn(prices)
    assert (holed[:, 0] == whole[:, 0]).all()
    assert np.isfinite(holed).all()
    assert memory.har.covered_days[0] == pytest.approx(30.0)


def test_a_stretch_without_prices_is_no_calm_and_its_end_no_jump():
    prices = steady(60)
    prices[1_200:1_260] = np.nan
    prices[1_260:] *= 2.0  # it moved meanwhile
    memory, expected = learn(prices)
    vol = np.sqrt(expected[1_199:1_300] * DAYS_PER_YEAR)
    assert vol == pytest.approx(np.full((101, 2), 0.5), rel=0.35)
    assert memory.har.covered_days == pytest.approx([30.0 - 61 / 24] * 2)


def test_a_stop_of_two_months_leaves_nothing_old_in_the_windows():
    memory, _ = learn(steady(40))
    weights = memory.har.weights.copy()
    sample(memory, START_NS + 100 * 24 * HOUR_NS, np.array([5e4, 10.0]), HOURLY)
    assert (memory.har.covered_days == 0.0).all() and (memory.har.weights == weights).all()
    assert (expected_variance(memory, HOURLY) == daily_variance(memory, HOURLY)).all()


def test_what_came_after_a_stop_is_not_learned_as_the_day_that_was_asked_for():
    prices = steady(60)
    memory, _ = learn(prices[: 24 * 40 + 22])
    weights, age = memory.har.weights.copy(), memory.har.block - memory.har.asked_block
    last = START_NS + (24 * 40 + 21) * HOUR_NS
    assert 12 < age < 24  # so after 18 hours more the outcome is overdue, and most of the last day is covered
    sample(memory, last + 18 * HOUR_NS, prices[24 * 42] * 1.1, HOURLY)
    assert (memory.har.weights == weights).all() and memory.har.asked_block == memory.har.block


def test_a_candle_known_a_little_early_or_late_counts_in_its_own_hour():
    params = HOURLY.model_copy(update={"sample_every_s": 300.0})
    prices = restless(20)
    exact, shaken = VolatilityMemory(2), VolatilityMemory(2)
    for k, price in enumerate(prices):
        sample(exact, START_NS + k * HOUR_NS, price, params)
        sample(shaken, START_NS + k * HOUR_NS + (k % 3 - 1) * NS_PER_S, price, params)
    assert shaken.har.seen[:, 0] == pytest.approx(exact.har.seen[:, 0], rel=1e-12)
    assert shaken.har.seen[:, 1] == pytest.approx(exact.har.seen[:, 1], rel=1e-3)


def test_one_absurd_price_does_not_rule_the_month():
    prices = steady(60)
    _, clean = learn(prices)
    prices[1_000] *= 10.0
    _, spoilt = learn(prices)
    vol = np.sqrt(spoilt / clean)
    assert 1.0 < vol[1_002].max() < 5.0
    assert vol[1_002 + 24 * 8 :].max() < 1.6  # a week later it is a large return among 720


def test_prices_between_the_points_of_its_grid_change_nothing_in_it():
    params = HOURLY.model_copy(update={"sample_every_s": 60.0, "har_every_s": 3_600.0})
    prices = restless(20)
    fine, coarse = VolatilityMemory(2), VolatilityMemory(2)
    for k, price in enumerate(prices):
        sample(coarse, START_NS + k * HOUR_NS, price, params)
        for minute in range(0, 60, 20):
            noise = 1.0 if minute == 0 else 1.001
            sample(fine, START_NS + k * HOUR_NS + minute * 60 * NS_PER_S, price * noise, params)
    assert fine.har.seen == pytest.approx(coarse.har.seen, rel=1e-12)


def test_five_minute_steps_find_the_variance_of_the_day_wherever_the_hour_begins():
    rng = np.random.default_rng(4)
    step = 0.5 / np.sqrt(DAYS_PER_YEAR * 288)
    prices = 1_000.0 * np.exp(np.cumsum(step * rng.standard_normal((288 * 3, 2)), axis=0))
    memory = har.HarMemory(2)
    params, most = ForecastParameters(), np.full(2, 1.0)
    for k, price in enumerate(prices):
        har.observe(memory, START_NS + (k * 300 + 777) * NS_PER_S + k % 3, price, most, params)
    rates, covered = har.realised(memory, params)
    assert (covered[0] >= 23.0 / 24).all() and (covered[0] <= 1.0 + 1e-6).all()
    assert np.sqrt(rates * DAYS_PER_YEAR) == pytest.approx(np.full((3, 2), 0.5), rel=0.15)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 3_000), *[st.one_of(st.floats(1e-9, 1e12), st.just(float("nan")))] * 2), max_size=40
    )
)
def test_it_stays_finite_and_within_floor_and_cap_whatever_the_prices_and_the_gaps(steps):
    memory, now = VolatilityMemory(2), START_NS
    for hours, *price in steps:
        now += hours * HOUR_NS
        sample(memory, now, np.array(price), HOURLY)
        forecast = predict(view(), memory, HOURLY)
        assert np.isfinite(forecast.covariance).all() and np.isfinite(forecast.target_variance).all()
        assert (forecast.annual_vol >= HOURLY.vol_floor - 1e-12).all()
        assert (forecast.annual_vol <= HOURLY.vol_cap + 1e-12).all()


def test_the_targets_variance_is_that_of_the_price_where_the_volatility_stands_still():
    still = HOURLY.model_copy(update={"model": "ewma", "half_life_s": 1e9, "jump_clip": 50.0})
    memory, _ = learn(steady(200, 0.9), still)
    assert memory.target_sum / memory.target_days == pytest.approx([0.81 / DAYS_PER_YEAR] * 2, rel=0.1)


def test_a_jump_is_one_large_change_of_the_target_and_a_missing_price_none():
    prices = steady(60)
    calm, _ = learn(prices)
    prices[1_400:] *= 3.0
    jumped, _ = learn(prices)
    ratio = target_variance(jumped) / target_variance(calm)
    assert (ratio > 1.0).all() and (ratio < 3.0).all()
    before = jumped.target_days.copy()
    sample(jumped, START_NS + 60 * 24 * HOUR_NS, np.array([np.nan, prices[-1, 1]]), HOURLY)
    assert jumped.target_days[0] < before[0] and jumped.target_days[1] > before[1]


def test_a_tick_between_grid_points_costs_no_memory_and_a_grid_point_keeps_none():
    params = ForecastParameters()
    memory, _ = learn(steady(3), params)
    price, now = np.array([1_000.0, 1_000.0]), START_NS + 72 * HOUR_NS
    sample(memory, now, price, params)
    tracemalloc.start()
    try:
        for k in range(1_000):
            sample(memory, now + k, price, params)
        assert tracemalloc.get_traced_memory()[1] < 4_096
        for k in range(1, 300):
            sample(memory, now + k * HOUR_NS // 12, price, params)
        assert tracemalloc.get_traced_memory()[0] < 16_384
    finally:
        tracemalloc.stop()


def test_on_recorded_bitcoin_it_foretells_the_next_day_better_than_ten_days_of_weighted_squares():
    file = shared("history/binance_perp_BTCUSDT_1h.parquet")
    import polars as pl

    close = pl.read_parquet(file)["close"].to_numpy()[: 24 * 365 * 2]
    params = HOURLY.model_copy(update={"half_life_s": 10 * 86_400 * np.log(2)})
    _, expected = learn(np.column_stack([close, close]), params)
    squares = np.diff(np.log(close)) ** 2
    outcome = np.array([squares[k : k + 24].sum() for k in range(0, len(squares) - 23, 24)])[60:]
    foretold = expected[::24, 0][: 60 + len(outcome)][60:]
    ewma = learn(np.column_stack([close, close]), params.model_copy(update={"model": "ewma"}))[1][::24, 0]
    losses = [np.mean(outcome / f - np.log(outcome / f) - 1.0) for f in (foretold, ewma[60 : 60 + len(outcome)])]
    assert losses[0] < 0.93 * losses[1]
