"""The stationary bootstrap against what is known of independent and of autoregressive series."""

import numpy as np
import pytest

from dea_daemon.domain.errors import DataError
from dea_daemon.research import bootstrap
from dea_daemon.research.bootstrap import (
    block_length,
    controlled_falls,
    deepest_falls,
    drawdown_falls,
    indices,
    resampled,
    sharpe_difference,
    sharpe_interval,
)


def independent(length, seed, mean=0.0005, vol=0.01):
    return np.random.default_rng(seed).normal(mean, vol, length)


def autoregressive(length, seed, rho):
    shocks = np.random.default_rng(seed).standard_normal(length + 200)
    series = np.zeros(length + 200)
    for t in range(1, len(series)):
        series[t] = rho * series[t - 1] + shocks[t]
    return series[200:]


def test_blocks_run_on_and_wrap_and_are_as_long_as_asked():
    drawn = indices(500, 20.0, 200, np.random.default_rng(1))
    follows = (drawn[:, 1:] == (drawn[:, :-1] + 1) % 500).mean()
    assert follows == pytest.approx(1 - 1 / 20 + 1 / 20 / 500, abs=0.003)
    assert drawn.min() == 0 and drawn.max() == 499
    assert np.bincount(drawn.ravel(), minlength=500).std() / 200 < 0.35  # every day is drawn about as often


def test_blocks_of_one_are_independent_draws():
    drawn = indices(1_000, 1.0, 50, np.random.default_rng(1))
    assert (drawn[:, 1:] == drawn[:, :-1] + 1).mean() < 0.005


def test_the_seed_decides_everything():
    returns = independent(300, 1)
    first, again = (sharpe_interval(returns, 365, seed=7, paths=200) for _ in range(2))
    assert first == again
    assert first != sharpe_interval(returns, 365, seed=8, paths=200)


def test_many_short_batches_draw_as_one_long_one_does(monkeypatch):
    returns = independent(300, 1)
    whole = sharpe_interval(returns, 365, seed=7, paths=4_000, block=5)
    monkeypatch.setattr(bootstrap, "_CELLS", 300 * 100)
    pieces = sharpe_interval(returns, 365, seed=7, paths=4_000, block=5)
    assert pieces.paths == whole.paths == 4_000
    assert pieces.low == pytest.approx(whole.low, abs=0.2) and pieces.high == pytest.approx(whole.high, abs=0.2)


@pytest.mark.parametrize("rho", [0.3, 0.5, 0.7])
def test_block_length_of_an_autoregression_is_the_known_optimum(rho):
    """For AR(1) the best mean block is (2ρ / (1 − ρ²))^⅔ T^⅓."""
    known = (2 * rho / (1 - rho**2)) ** (2 / 3) * 4_000 ** (1 / 3)
    chosen = np.median([block_length(autoregressive(4_000, seed, rho)) for seed in range(15)])
    assert chosen == pytest.approx(known, rel=0.2)


def test_independent_returns_ask_for_hardly_any_block():
    assert np.median([block_length(independent(2_000, seed)) for seed in range(15)]) < 4


def test_a_constant_series_asks_for_no_block():
    assert block_length(np.ones(100)) == 1.0


def test_volatility_that_clusters_asks_for_blocks_though_returns_do_not():
    size = np.exp(0.5 * autoregressive(3_000, 1, 0.97) * np.sqrt(1 - 0.97**2))
    returns = 0.01 * size * np.random.default_rng(2).standard_normal(3_000)
    assert bootstrap.common_block(returns[None, :]) > 2 * block_length(returns)


def test_the_deviation_of_a_mean_is_right_only_in_blocks():
    series = autoregressive(2_000, 3, 0.6)
    known = 1 / (1 - 0.6) / np.sqrt(2_000)

    def deviation(block):
        means, _ = resampled(series[None, :], lambda r: r[0].mean(axis=-1), seed=1, block=block)
        return means.std()

    assert deviation(None) == pytest.approx(known, rel=0.25)
    assert deviation(1.0) < 0.65 * known


def test_sharpe_interval_of_independent_returns_is_as_wide_as_lo_says():
    """Lo (2002): the standard error of a Sharpe ratio is √((1 + SR²/2) / T)."""
    returns = independent(2_000, 5)
    told = sharpe_interval(returns, 365, seed=1, block=1.0, paths=4_000)
    daily = told.estimate / np.sqrt(365)
    error = np.sqrt((1 + daily**2 / 2) / 2_000 * 365)
    assert (told.high - told.low) / (2 * 1.96) == pytest.approx(error, rel=0.06)


def test_interval_of_a_difference_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        draws = np.random.default_rng(seed)
        common = draws.normal(0, 0.01, 250)
        first = 0.001 + common + draws.normal(0, 0.005, 250)
        second = 0.0 + common + draws.normal(0, 0.005, 250)
        truth = 0.001 / np.hypot(0.01, 0.005) * np.sqrt(365)
        told = sharpe_difference(first, second, 365, seed=seed, block=1.0, paths=300)
        covered += told.low <= truth <= told.high
    assert 0.90 <= covered / 200 <= 0.985


def test_a_series_beside_its_own_multiple_differs_by_nothing_on_every_path():
    returns = independent(300, 1)
    told = sharpe_difference(returns, 3.0 * returns, 365, seed=1, paths=200)
    assert (told.estimate, told.low, told.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-9)


def test_gains_alone_never_fall():
    told = drawdown_falls(np.full(200, 0.01), seed=1, paths=100)
    assert (told.happened, told.p99, told.worse) == (0.0, 0.0, 0.0)


def test_a_first_loss_is_a_fall_from_the_start():
    assert deepest_falls(np.array([-0.1, 0.05])) == pytest.approx(0.1)
    assert deepest_falls(np.array([[0.1, -0.5, 0.2], [0.0, 0.0, 0.0]])) == pytest.approx([0.5, 0.0])


def test_quantiles_of_falls_are_in_order_and_surround_what_is_typical():
    told = drawdown_falls(independent(1_000, 4), seed=1)
    assert 0 < told.median < told.p90 < told.p95 < told.p99 < 1
    assert 0.02 < told.worse < 0.98


def test_losses_that_come_together_fall_deeper_than_scattered_ones():
    returns = np.tile(np.repeat([0.01, -0.01], 40), 10)
    together, scattered = drawdown_falls(returns, seed=1, block=40), drawdown_falls(returns, seed=1, block=1)
    assert together.median > 1.3 * scattered.median


@pytest.mark.parametrize("returns", [np.zeros(5), np.append(np.zeros(20), np.nan)])
def test_too_few_returns_or_one_that_is_no_number_are_refused(returns):
    with pytest.raises(DataError):
        drawdown_falls(returns, seed=1)


def test_a_book_that_is_scaled_by_its_distance_from_a_fall_stays_within_it_on_every_path():
    daily = independent(1_500, 9, vol=0.01)
    wealth = np.ones(1)
    made = []
    peak = 1.0
    for r in daily:  # a controlled book's own returns
        m = max((wealth[-1] - 0.85 * peak) / (0.15 * wealth[-1]), 0.0)
        made.append(m * r)
        wealth = np.append(wealth, wealth[-1] * (1.0 + m * r))
        peak = max(peak, wealth[-1])
    controlled = controlled_falls(np.array(made), 0.15, seed=1)
    free = drawdown_falls(daily, seed=1)
    assert controlled.p99 < 0.15 < free.p99
    assert controlled.happened == pytest.approx(float(deepest_falls(np.array(made))))
    assert controlled.median < free.median
