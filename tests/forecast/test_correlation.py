"""Correlations: true where prices do not tick together, pulled together where little is known, PSD always."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters
from dea_daemon.forecast.correlation import LEAST_EIGENVALUE, CorrelationMemory, correlation, observe, shrunk

START_NS = 10**18
DAILY = 0.36 / DAYS_PER_YEAR  # variance
PARAMS = ForecastParameters(prior_samples=1.0)


def ticks(rho, seconds, every_s, seed=1):
    """[seconds, 2] last prices seen each second of two correlated walks; ticks come at random, `every_s` [2] apart."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((seconds, 2))
    z[:, 1] = rho * z[:, 0] + np.sqrt(1.0 - rho**2) * z[:, 1]
    true = 1_000.0 * np.exp(np.cumsum(np.sqrt(DAILY / 86_400.0) * z, axis=0))
    ticked = rng.random((seconds, 2)) < 1.0 / np.asarray(every_s)
    ticked[0] = True
    last = np.maximum.accumulate(np.where(ticked, np.arange(seconds)[:, None], 0), axis=0)
    return np.take_along_axis(true, last, axis=0)


def learned(prices, params=PARAMS, step_ns=NS_PER_S, variance=DAILY):
    u = prices.shape[1]
    memory = CorrelationMemory(u)
    for k, price in enumerate(prices):
        observe(memory, START_NS + k * step_ns, price, np.full(u, variance), params)
    return memory


def hayashi_yoshida(first, second):
    """By the definition: the sum over pairs of returns whose times overlap. Each a list of (time, log price)."""
    total = 0.0
    for (s0, p0), (s1, p1) in pairwise(first):
        for (t0, q0), (t1, q1) in pairwise(second):
            total += (p1 - p0) * (q1 - q0) * (min(s1, t1) > max(s0, t0))
    return total


@pytest.mark.parametrize("every_s", [(5.0, 5.0), (2.0, 30.0), (40.0, 40.0)])
def test_prices_that_tick_apart_show_the_correlation_that_five_second_returns_hide(every_s):
    rho, prices = 0.8, ticks(0.8, 200_000, every_s)
    found = correlation(learned(prices), PARAMS)[0, 1]
    naive = np.corrcoef(np.diff(np.log(prices[::5]), axis=0).T)[0, 1]
    assert found == pytest.approx(rho, abs=0.035)  # twice the standard error or so
    assert naive < 0.62


def test_its_sums_are_those_of_the_definition():
    rng = np.random.default_rng(3)
    params = ForecastParameters(correlation_every_s=1e-6, correlation_half_life_s=1e15, jump_clip=1e9)
    prices, price = [], np.full(2, 100.0)
    for _ in range(200):
        price = np.where(rng.random(2) < 0.4, price * np.exp(0.01 * rng.standard_normal(2)), price)
        prices.append(price)
    memory = learned(np.array(prices), params, variance=1.0)
    path = [[(0, np.log(prices[0][u]))] for u in range(2)]
    for k in range(1, 200):
        for u in range(2):
            if prices[k][u] != prices[k - 1][u]:
                path[u].append((k, np.log(prices[k][u])))
    assert memory.cross[0, 1] == pytest.approx(hayashi_yoshida(*path), rel=1e-9)
    assert memory.cross[0, 0] == pytest.approx(hayashi_yoshida(path[0], path[0]), rel=1e-9)
    assert memory.cross[0, 1] == memory.cross[1, 0]


def test_where_prices_tick_together_it_is_the_weighted_correlation_of_their_returns():
    rng = np.random.default_rng(2)
    returns = rng.standard_normal((300, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]]) * 0.003
    prices = 100.0 * np.exp(np.vstack([[0.0, 0.0], np.cumsum(returns, axis=0)]))
    params = ForecastParameters(correlation_half_life_s=86_400.0, prior_samples=1e-9)
    found = correlation(learned(prices, params, 3_600 * NS_PER_S), params)
    weights = 0.5 ** (np.arange(299, -1, -1) / 24.0)
    sums = (returns * weights[:, None]).T @ returns
    assert found[0, 1] == pytest.approx(sums[0, 1] / np.sqrt(sums[0, 0] * sums[1, 1]), rel=1e-6)


def test_a_price_that_was_away_for_a_month_is_not_taken_for_one_that_stood_still():
    rng = np.random.default_rng(4)
    z = np.repeat(rng.standard_normal((3_000, 1)), 2, axis=1) + 0.1 * rng.standard_normal((3_000, 2))
    prices = 100.0 * np.exp(np.cumsum(0.004 * z, axis=0))
    prices[200:2_000, 1] = np.nan
    params = ForecastParameters(correlation_half_life_s=1e7, prior_samples=1.0)
    found = correlation(learned(prices, params, 3_600 * NS_PER_S), params)[0, 1]
    assert found == pytest.approx(0.99, abs=0.02)


def test_a_fall_of_everything_while_one_was_not_priced_is_seen_when_it_comes_back():
    params = ForecastParameters(prior_samples=1e-3)
    calm = ticks(0.0, 3_600, (1.0, 1.0))
    memory = learned(calm, params)
    before = correlation(memory, params)[0, 1]
    after = calm[-1] * 0.99
    for k in range(600):
        here = after if k >= 300 else np.array([after[0] * (1.0 + 1e-6 * (k % 2)), np.nan])
        observe(memory, START_NS + (3_600 + k) * NS_PER_S, here, np.full(2, DAILY), params)
    assert correlation(memory, params)[0, 1] > before + 0.2


def test_the_error_of_many_correlations_from_few_returns_is_halved_by_pulling_them_together():
    rng = np.random.default_rng(6)
    u, n = 12, 40
    true = 0.6 + 0.4 * np.eye(u)
    raw = pulled = 0.0
    for _ in range(40):
        sample = np.corrcoef((rng.standard_normal((n, u)) @ np.linalg.cholesky(true).T).T)
        raw += np.sum((sample - true) ** 2)
        pulled += np.sum((shrunk(sample, np.full((u, u), float(n))) - true) ** 2)
    assert pulled < 0.5 * raw


def test_correlations_that_do_differ_are_left_alone_where_much_is_known():
    true = np.eye(4)
    true[0, 1] = true[1, 0] = true[2, 3] = true[3, 2] = 0.9
    assert shrunk(true, np.full((4, 4), 1e5)) == pytest.approx(true, abs=1e-3)


def test_sums_that_no_prices_could_have_made_together_are_mended():
    memory = CorrelationMemory(3)
    memory.days += 100.0
    memory.days_squared += 0.1
    memory.cross += 100.0 * np.array([[1.0, 0.9, 0.9], [0.9, 1.0, -0.9], [0.9, -0.9, 1.0]])
    found = correlation(memory, PARAMS)
    assert np.linalg.eigvalsh(found)[0] == pytest.approx(LEAST_EIGENVALUE, rel=0.01)
    assert (np.diag(found) == 1.0).all() and 0.4 < found[0, 1] < 0.6 and -0.6 < found[1, 2] < -0.4


def test_nothing_is_correlated_before_data_and_little_after_one_return():
    assert (correlation(CorrelationMemory(3), PARAMS) == np.eye(3)).all()
    memory = learned(np.array([[100.0, 100.0], [101.0, 101.0]]), step_ns=3_600 * NS_PER_S)
    assert correlation(memory, ForecastParameters())[0, 1] == pytest.approx(1.0 / 61.0)


def test_a_decision_between_ticks_changes_nothing_and_a_tick_before_its_time_neither():
    memory = learned(ticks(0.5, 1_000, (1.0, 1.0)))
    before = memory.cross.copy(), memory.at_ns.copy()
    price, now = memory.seen, START_NS + 1_000 * NS_PER_S
    assert not observe(memory, int(memory.at_ns.max()) + NS_PER_S, price * 1.1, np.full(2, DAILY), PARAMS)
    memory.seen = price
    assert not observe(memory, now + 300 * NS_PER_S, price, np.full(2, DAILY), PARAMS)  # long enough, no new price
    assert (memory.cross == before[0]).all() and (memory.at_ns == before[1]).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda u: st.lists(
            st.tuples(st.integers(1, 3 * 86_400), *[st.one_of(st.floats(1e-6, 1e9), st.just(float("nan")))] * u),
            max_size=25,
        )
    )
)
def test_it_is_psd_with_ones_on_the_diagonal_whatever_the_prices(steps):
    u = len(steps[0]) - 1 if steps else 2
    memory, now = CorrelationMemory(u), START_NS
    for seconds, *price in steps:
        now += seconds * NS_PER_S
        observe(memory, now, np.array(price), np.full(u, DAILY), PARAMS)
        found = correlation(memory, PARAMS)
        assert np.isfinite(found).all() and (np.diag(found) == 1.0).all()
        assert np.linalg.eigvalsh(found)[0] >= 0.5 * LEAST_EIGENVALUE - 1e-12
    assert (np.diag(memory.days) <= (now - START_NS) / NS_PER_DAY + 1e-9).all()
