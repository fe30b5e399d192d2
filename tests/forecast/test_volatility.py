"""The covariance estimate: recovers what made the prices, and never leaves its bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters
from dea_daemon.forecast.volatility import VolatilityMemory, predict, sample
from tests.guards.views import view

VIEW = view()  # only its underlyings are read
PARAMS = ForecastParameters()
STEP_S = 5.0
YEAR_S = DAYS_PER_YEAR * 86_400.0


def walk(vols, correlation, n, seed=1):
    """[n, 2] prices of a geometric Brownian motion, one every 5 s."""
    z = np.random.default_rng(seed).standard_normal((n, 2))
    z[:, 1] = correlation * z[:, 0] + np.sqrt(1.0 - correlation**2) * z[:, 1]
    steps = np.asarray(vols) * np.sqrt(STEP_S / YEAR_S) * z
    return np.array([80_000.0, 3_000.0]) * np.exp(np.cumsum(steps, axis=0))


def estimate(prices, params=PARAMS, memory=None, start_s=1e6):
    memory = memory or VolatilityMemory(2)
    for k, price in enumerate(prices):
        sample(memory, int((start_s + k * STEP_S) * NS_PER_S), price, params)
    return predict(VIEW, memory, params), memory


def test_it_recovers_the_volatilities_and_the_correlation_of_a_random_walk():
    # A short prior and a long memory: a sample of 4,000 has a standard error of 1.1 %.
    params = ForecastParameters(
        half_life_s=1e6, correlation_every_s=STEP_S, correlation_half_life_s=1e6, prior_samples=1.0
    )
    forecast, _ = estimate(walk((0.5, 0.9), 0.8, 4_000), params)
    assert forecast.annual_vol == pytest.approx([0.5, 0.9], rel=0.04)
    d = forecast.annual_vol / np.sqrt(DAYS_PER_YEAR)
    assert forecast.covariance[0, 1] / (d[0] * d[1]) == pytest.approx(0.8, abs=0.03)


def test_before_data_it_is_the_prior_uncorrelated():
    forecast, _ = estimate([])
    assert forecast.annual_vol == pytest.approx([PARAMS.prior_annual_vol] * 2)
    assert forecast.covariance[0, 1] == 0.0
    assert (forecast.mean_return == 0.0).all()


def test_a_price_that_is_missing_leaves_that_underlying_at_its_prior_and_the_other_alone():
    prices = walk((0.3, 0.9), 0.0, 2_000)
    whole, _ = estimate(prices)
    prices[:, 1] = np.nan
    half, _ = estimate(prices)
    assert half.annual_vol[0] == whole.annual_vol[0]
    assert half.annual_vol[1] == pytest.approx(PARAMS.prior_annual_vol, rel=1e-9)
    assert np.isfinite(half.covariance).all()


def test_ticks_between_the_grid_points_change_nothing():
    prices = walk((0.5, 0.9), 0.5, 50)
    slow, _ = estimate(prices)
    memory = VolatilityMemory(2)
    for k, price in enumerate(prices):
        for late_s in (0.0, 1.0, 4.9):
            sample(memory, int((1e6 + k * STEP_S + late_s) * NS_PER_S), price, PARAMS)
    assert (predict(VIEW, memory, PARAMS).covariance == slow.covariance).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.one_of(st.floats(1e-6, 1e9), st.just(float("nan")))] * 2), max_size=30))
def test_the_covariance_is_psd_and_within_floor_and_cap_whatever_the_prices(prices):
    forecast, _ = estimate(np.array(prices, dtype=np.float64).reshape(-1, 2))
    assert np.isfinite(forecast.covariance).all()
    assert np.linalg.eigvalsh(forecast.covariance).min() >= -1e-12
    assert (forecast.annual_vol >= PARAMS.vol_floor - 1e-12).all()
    assert (forecast.annual_vol <= PARAMS.vol_cap + 1e-12).all()
