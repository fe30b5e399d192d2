"""Warm-up: after the prices of before the run it knows what it would have known; and what predict hands out."""

import dataclasses
import tracemalloc

import numpy as np
import pytest

from dea_daemon.domain.events import PricesRecalled
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters, LearnerParameters, ReturnView
from dea_daemon.forecast import rivals
from dea_daemon.forecast.scores import Scores
from dea_daemon.forecast.volatility import (
    VolatilityMemory,
    daily_variance,
    model_variance,
    observe,
    predict,
    recall,
    sample,
)
from tests.guards.views import WITH_OPTIONS, view

HOUR_NS = 3_600 * NS_PER_S
START_NS = 500_000 * HOUR_NS
PARAMS = ForecastParameters()
HOURLY = ForecastParameters(sample_every_s=3_600, har_every_s=3_600, half_life_s=86_400, prior_samples=24)
VIEW = view()


def bars(days, vols=(0.3, 0.9), rho=0.8, seed=1):
    """[hours, 2] closes."""
    z = np.random.default_rng(seed).standard_normal((days * 24, 2))
    z[:, 1] = rho * z[:, 0] + np.sqrt(1.0 - rho**2) * z[:, 1]
    return np.array([80_000.0, 3_000.0]) * np.exp(np.cumsum(np.asarray(vols) / np.sqrt(DAYS_PER_YEAR * 24) * z, axis=0))


def recalled(closes, params=PARAMS, memory=None):
    memory = memory or VolatilityMemory(2)
    at_ns = tuple(START_NS + k * HOUR_NS for k in range(len(closes)))
    recall(memory, PricesRecalled(START_NS, at_ns, tuple(map(tuple, closes.tolist()))), params)
    return memory


def seen(now_ns, price):
    return dataclasses.replace(VIEW, now_ns=now_ns, underlying_price=np.asarray(price))


def end_ns(closes):
    return START_NS + (len(closes) - 1) * HOUR_NS


def correlation_of(forecast):
    vol = np.sqrt(np.diag(forecast.covariance))
    return float(forecast.covariance[0, 1] / vol[0] / vol[1])


def test_after_a_month_of_bars_it_knows_volatility_and_correlation():
    forecast = predict(VIEW, recalled(bars(40)), PARAMS)
    assert forecast.annual_vol == pytest.approx([0.3, 0.9], rel=0.2)
    assert correlation_of(forecast) == pytest.approx(0.8, abs=0.12)
    blind = predict(VIEW, VolatilityMemory(2), PARAMS)
    assert blind.annual_vol == pytest.approx([0.6, 0.6]) and correlation_of(blind) == 0.0


def test_it_is_as_if_the_daemon_had_run_where_it_decides_by_the_same_bars():
    closes = bars(50)
    memory, ran = recalled(closes, HOURLY), VolatilityMemory(2)
    for k, price in enumerate(closes):
        observe(ran, seen(START_NS + k * HOUR_NS, price), HOURLY)
    ours, theirs = predict(VIEW, memory, HOURLY), predict(VIEW, ran, HOURLY)
    assert ours.covariance == pytest.approx(theirs.covariance, rel=1e-12)
    assert ours.target_variance == pytest.approx(theirs.target_variance, rel=1e-12)


def test_learners_on_a_finer_grid_take_one_step_a_bar_and_none_between(monkeypatch):
    steps = []
    add = Scores.add

    def counted(self, *given):
        steps.append(self)
        return add(self, *given)

    monkeypatch.setattr(Scores, "add", counted)
    fine = PARAMS.model_copy(update={"learners": LearnerParameters(every_s=300)})
    memory = recalled(bars(8), fine)
    assert len(steps) == 2 * 8 * 24 and memory.learners.horizons[0].scores.count.tolist() == [7 * 24] * 2


def test_the_fast_estimate_begins_at_the_last_days_volatility_and_forgets_it_within_hours():
    memory = recalled(bars(40))
    assert np.sqrt(daily_variance(memory, PARAMS) * DAYS_PER_YEAR) == pytest.approx([0.3, 0.9], rel=0.3)
    full = PARAMS.half_life_s / np.log(2.0) / PARAMS.sample_every_s
    assert memory.variance_weight == pytest.approx([full, full], rel=0.05)
    now, price = end_ns(bars(40)), bars(40)[-1]
    step = 0.6 * np.sqrt(5.0 / 86_400.0 / DAYS_PER_YEAR)
    for k in range(1, 5_000):
        sample(memory, now + k * 5 * NS_PER_S, price * np.exp(step * (k % 2)), PARAMS)
    assert np.sqrt(daily_variance(memory, PARAMS) * DAYS_PER_YEAR) == pytest.approx([0.6, 0.6], rel=0.05)


@pytest.mark.parametrize("gap_s", [5, 600, 3_000])
def test_the_way_from_the_last_close_to_the_first_price_is_one_return_over_its_time(gap_s):
    """A move as large as is usual in so long changes next to nothing."""
    closes = bars(40)
    memory, now = recalled(closes), end_ns(closes) + gap_s * NS_PER_S
    before = predict(VIEW, memory, PARAMS)
    usual = np.array([0.3, 0.9]) * np.sqrt(gap_s / 86_400.0 / DAYS_PER_YEAR)
    observe(memory, seen(now, closes[-1] * np.exp(usual)), PARAMS)
    after = predict(VIEW, memory, PARAMS)
    assert after.annual_vol == pytest.approx(before.annual_vol, rel=0.02)
    assert correlation_of(after) == pytest.approx(correlation_of(before), abs=0.01)


def test_a_price_far_from_the_last_close_is_one_large_return_and_no_more():
    closes = bars(40)
    memory = recalled(closes)
    before = predict(VIEW, memory, PARAMS)
    observe(memory, seen(end_ns(closes) + 60 * NS_PER_S, closes[-1] * 1.5), PARAMS)
    assert (predict(VIEW, memory, PARAMS).annual_vol < 1.5 * before.annual_vol).all()


def test_bars_that_ended_days_ago_leave_no_return_over_the_gap():
    closes = bars(40)
    memory = recalled(closes)
    weights, cross = memory.har.weights.copy(), memory.correlation.cross.copy()
    observe(memory, seen(end_ns(closes) + 3 * NS_PER_DAY, closes[-1] * 1.3), PARAMS)
    assert (memory.har.weights == weights).all()
    assert memory.correlation.cross == pytest.approx(cross * 0.5**0.3)


def test_what_little_was_seen_before_is_begun_anew_and_a_day_of_running_is_not():
    closes = bars(40)
    early = VolatilityMemory(2)
    for k in range(10):
        observe(early, seen(end_ns(closes) - (60 - k * 5) * NS_PER_S, closes[-1]), PARAMS)
    clean = predict(VIEW, recalled(closes), PARAMS)
    assert (predict(VIEW, recalled(closes, memory=early), PARAMS).covariance == clean.covariance).all()
    ran = recalled(closes)
    covariance = predict(VIEW, ran, PARAMS).covariance
    assert (predict(VIEW, recalled(bars(40, (1.0, 1.0)), memory=ran), PARAMS).covariance == covariance).all()


def test_bars_with_holes_or_of_one_underlying_alone_or_none_at_all_do_no_harm():
    closes = bars(40)
    closes[:, 1] = np.nan
    closes[300:340, 0] = 0.0
    forecast = predict(VIEW, recalled(closes), PARAMS)
    assert forecast.annual_vol[0] == pytest.approx(0.3, rel=0.25)
    assert forecast.annual_vol[1] == pytest.approx(0.6) and correlation_of(forecast) == 0.0
    for few in (0, 1):
        assert predict(VIEW, recalled(closes[:few]), PARAMS).annual_vol == pytest.approx([0.6, 0.6])


def test_between_samples_the_forecast_is_the_same_one_and_nobody_can_write_to_it():
    memory = recalled(bars(40))
    now = end_ns(bars(40)) + HOUR_NS
    observe(memory, seen(now, [80_000.0, 3_000.0]), PARAMS)
    first = predict(VIEW, memory, PARAMS)
    observe(memory, seen(now + NS_PER_S, [80_001.0, 3_000.0]), PARAMS)
    assert predict(VIEW, memory, PARAMS) is first
    observe(memory, seen(now + 6 * NS_PER_S, [80_002.0, 3_000.0]), PARAMS)
    assert predict(VIEW, memory, PARAMS) is not first
    for array in (first.covariance, first.residual_variance, first.carry):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


def test_new_parameters_and_new_rows_make_a_new_forecast_at_once():
    memory = recalled(bars(40))
    now = end_ns(bars(40)) + HOUR_NS
    observe(memory, seen(now, [80_000.0, 3_000.0]), PARAMS)
    other = PARAMS.model_copy(update={"vol_floor": 2.0, "vol_cap": 3.0})
    observe(memory, seen(now + 1, [80_000.0, 3_000.0]), other)
    assert predict(VIEW, memory, other).annual_vol == pytest.approx([2.0, 2.0])
    rows = dataclasses.replace(view(universe=WITH_OPTIONS), now_ns=now + 2)
    observe(memory, rows, other)
    assert predict(rows, memory, other).residual_variance.shape == (len(WITH_OPTIONS),)


def test_a_view_is_a_signal_that_fades_as_it_says():
    views = {"ETH": ReturnView(annual_return=0.73, half_life_days=10.0), "BTC": ReturnView(annual_return=-0.365)}
    forecast = predict(VIEW, VolatilityMemory(2), PARAMS.model_copy(update={"views": views}))
    assert forecast.signal_return == pytest.approx(np.array([[0.0, 0.002], [-0.001, 0.0]]))
    assert forecast.signal_decay == pytest.approx([np.log(2.0) / 10.0, 0.0])
    assert forecast.mean_return == pytest.approx([-0.001, 0.002])
    none = predict(VIEW, VolatilityMemory(2), PARAMS)
    assert none.signal_return.shape == (0, 2) and none.signal_decay.shape == (0,)


def test_decisions_between_samples_cost_no_memory():
    memory = recalled(bars(40))
    now = end_ns(bars(40)) + HOUR_NS
    price = seen(now, [80_000.0, 3_000.0])
    observe(memory, price, PARAMS)
    tracemalloc.start()
    try:
        for _ in range(1_000):
            observe(memory, price, PARAMS)
            predict(price, memory, PARAMS)
        assert tracemalloc.get_traced_memory()[1] < 4_096
    finally:
        tracemalloc.stop()


def test_ten_days_of_recalled_bars_are_not_forgotten_in_the_first_hours_of_a_run():
    """A bar weighs what the samples it stands for would have: after four quiet hours it is still those ten days."""
    closes = bars(40)
    memory = recalled(closes)
    before = model_variance(memory, rivals.SLOW, PARAMS)
    for k in range(4 * 720):
        sample(memory, end_ns(closes) + (k + 1) * 5 * NS_PER_S, closes[-1], PARAMS)
    assert (model_variance(memory, rivals.SLOW, PARAMS) > 0.97 * before).all()
