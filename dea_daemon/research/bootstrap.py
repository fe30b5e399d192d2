"""The stationary bootstrap: what else could have come of the same returns, had their months come in another order.

Blocks of geometric length, wrapped around the end, one index for all series so that what happened together stays
together. Source: Politis & Romano (1994), The Stationary Bootstrap. The mean block is given, or chosen by Politis &
White (2004) as corrected by Patton, Politis & White (2009). Every answer is a function of the seed.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.instruments import FloatArray, IntArray

PATHS = 2_000
LEAST = 10  # returns; with fewer there is nothing to draw from
_CELLS = 4_000_000  # of one batch of paths: 32 MB an array


class Interval(NamedTuple):
    """An estimate, its percentile interval at `level`, and the share of paths in which it was above zero."""

    estimate: float
    low: float
    high: float
    above_zero: float
    level: float
    block: float
    paths: int


class Falls(NamedTuple):
    """The deepest drawdown: what happened, and quantiles of what could have (share of the peak)."""

    happened: float
    median: float
    p90: float
    p95: float
    p99: float
    worse: float  # share of paths that fell deeper than what happened
    block: float
    paths: int


# --- the index -------------------------------------------------------------------------------------------


def indices(length: int, mean_block: float, paths: int, draws: np.random.Generator) -> IntArray:
    """[paths, length] of 0 … length − 1: from a random start, the next one follows with chance 1 − 1/mean_block, else
    a new start is drawn."""
    steps = np.arange(length)
    restart = draws.random((paths, length)) < 1.0 / mean_block
    starts = draws.integers(0, length, (paths, length))
    since = np.maximum.accumulate(
        np.where(restart, steps, 0), axis=1
    )  # where the block under way began; at 0 without one
    begun = np.take_along_axis(starts, since, axis=1)
    return np.asarray((begun + steps - since) % length, dtype=np.int64)


def block_length(series: FloatArray) -> float:
    """The mean block that makes the bootstrap's variance of the mean best, ≥ 1; `series` [T].

    (2 G² / D)^⅓ T^⅓, with G = Σ λ(k/M) |k| R(k), D = 2 (Σ λ(k/M) R(k))², λ the flat-top window and R the
    autocovariance. M is twice the lag after which max(5, log10 T) correlations in a row are insignificant.
    Source: Politis & White (2004), section 3; D as in Patton, Politis & White (2009).
    """
    t = len(series)
    most = float(np.ceil(min(3.0 * np.sqrt(t), t / 3.0)))
    run = max(5, int(np.log10(t)))
    lags = min(int(np.ceil(np.sqrt(t))) + run, t - 1)
    covariance = _autocovariance(series, lags)
    if not covariance[0] > 0.0:
        return 1.0
    half = _last_significant(covariance[1:] / covariance[0], 2.0 * np.sqrt(np.log10(t) / t), run)
    k = np.arange(1, min(2 * half, lags) + 1)
    weight = np.clip(2.0 * (1.0 - k / max(len(k), 1)), 0.0, 1.0)
    g = 2.0 * np.sum(weight * k * covariance[k])
    total = covariance[0] + 2.0 * np.sum(weight * covariance[k])
    if not total > 0.0:
        return 1.0
    return float(np.clip((g**2 / total**2) ** (1.0 / 3.0) * t ** (1.0 / 3.0), 1.0, max(most, 1.0)))


def _autocovariance(series: FloatArray, lags: int) -> FloatArray:
    """[lags + 1]."""
    x, t = series - np.mean(series), len(series)
    return np.array([float(x[: t - k] @ x[k:]) / t for k in range(lags + 1)])


def _last_significant(correlation: FloatArray, bound: float, run: int) -> int:
    """The lag after which `run` correlations lie within the bound; the last one outside where there is no such run."""
    outside = np.abs(correlation) >= bound
    for lag in range(len(outside) - run + 1):
        if not outside[lag : lag + run].any():
            return lag
    return int(np.flatnonzero(outside)[-1]) + 1 if outside.any() else 0


def common_block(returns: FloatArray) -> float:
    """The longest that any of the series [S, T] asks for, by itself or by its absolute value: returns hardly remember,
    their size does, and drawdowns come of that."""
    return max(block_length(x) for series in returns for x in (series, np.abs(series)))


# --- what is asked of it ---------------------------------------------------------------------------------


def resampled(
    returns: FloatArray,
    statistic: Callable[[FloatArray], FloatArray],
    *,
    seed: int,
    block: float | None = None,
    paths: int = PATHS,
) -> tuple[FloatArray, float]:
    """(`statistic` of every path [paths], the mean block used). `returns` [S, T]; `statistic` takes [S, paths, T].

    Raises DataError for fewer than LEAST returns or one that is not a number.
    """
    length = returns.shape[1]
    if length < LEAST or not np.isfinite(returns).all():
        raise DataError(f"a bootstrap needs {LEAST} returns or more, all of them numbers")
    mean_block = common_block(returns) if block is None else max(float(block), 1.0)
    draws = np.random.default_rng(seed)
    batches = [statistic(returns[:, indices(length, mean_block, count, draws)]) for count in _batches(paths, length)]
    return np.concatenate(batches), mean_block


def _batches(paths: int, length: int) -> Iterator[int]:
    each = max(_CELLS // length, 1)
    for done in range(0, paths, each):
        yield min(each, paths - done)


def sharpe_ratios(returns: FloatArray, per_year: float) -> FloatArray:
    """Of the last axis, annual; 0 where nothing moved."""
    mean, vol = np.mean(returns, axis=-1), np.std(returns, axis=-1, ddof=1)
    still = vol <= 1e-12
    return np.asarray(np.where(still, 0.0, mean / np.where(still, 1.0, vol)) * np.sqrt(per_year))


def deepest_falls(returns: FloatArray) -> FloatArray:
    """Of the last axis: the deepest drawdown of the path that the simple returns compound to."""
    wealth = np.cumprod(1.0 + returns, axis=-1)
    peak = np.maximum.accumulate(np.maximum(wealth, 1.0), axis=-1)
    return np.asarray(np.max(1.0 - wealth / peak, axis=-1))


def sharpe_interval(
    returns: FloatArray,
    per_year: float,
    *,
    seed: int,
    level: float = 0.95,
    block: float | None = None,
    paths: int = PATHS,
) -> Interval:
    """Of the annual Sharpe ratio of one series [T]."""
    one = returns[None, :]
    drawn, used = resampled(one, lambda r: sharpe_ratios(r[0], per_year), seed=seed, block=block, paths=paths)
    return _interval(float(sharpe_ratios(returns, per_year)), drawn, level, used)


def sharpe_difference(
    returns: FloatArray,
    other: FloatArray,
    per_year: float,
    *,
    seed: int,
    level: float = 0.95,
    block: float | None = None,
    paths: int = PATHS,
) -> Interval:
    """Of the annual Sharpe ratio of `returns` [T] minus that of `other` [T], the same days drawn for both."""

    def gap(r: FloatArray) -> FloatArray:
        ratios = sharpe_ratios(r, per_year)
        return np.asarray(ratios[0] - ratios[1])

    both = np.stack([returns, other])
    drawn, used = resampled(both, gap, seed=seed, block=block, paths=paths)
    return _interval(float(gap(both)), drawn, level, used)


def drawdown_falls(returns: FloatArray, *, seed: int, block: float | None = None, paths: int = PATHS) -> Falls:
    """How deep the deepest drawdown of the same returns [T] could have been. At the steps of `returns`: daily returns
    do not see what recovered within a day."""
    drawn, used = resampled(returns[None, :], lambda r: deepest_falls(r[0]), seed=seed, block=block, paths=paths)
    return _falls(returns, drawn, used)


def controlled_falls(
    returns: FloatArray, limit: float, *, seed: int, block: float | None = None, paths: int = PATHS
) -> Falls:
    """Likewise of a book whose exposure is scaled by (W − αM) / ((1 − α) W), α = 1 − `limit`, W its wealth and M the
    highest it was (Grossman and Zhou 1993): the control is taken out of `returns` [T] (daily), the days are drawn
    anew, and it acts on each path from day to day. Where it had all but closed the book, what a day would have made
    is not known: such days count as they were."""
    wealth = np.cumprod(1.0 + returns)
    before = np.append(1.0, wealth[:-1])
    acted = _multiplier(before, np.maximum.accumulate(before), limit)
    free = np.where(acted > 0.05, returns / np.maximum(acted, 0.05), returns)
    drawn, used = resampled(free[None, :], lambda r: _controlled(r[0], limit), seed=seed, block=block, paths=paths)
    return _falls(returns, drawn, used)


def _falls(returns: FloatArray, drawn: FloatArray, used: float) -> Falls:
    """What happened, beside the falls of the paths."""
    happened = float(deepest_falls(returns))
    median, p90, p95, p99 = np.quantile(drawn, (0.5, 0.9, 0.95, 0.99)).tolist()
    return Falls(happened, median, p90, p95, p99, float(np.mean(drawn > happened)), used, len(drawn))


def _controlled(free: FloatArray, limit: float) -> FloatArray:
    """[paths] deepest falls of the controlled book on each path of `free` [paths, T]."""
    wealth = peak = np.ones(len(free))
    fall = np.zeros(len(free))
    for of_day in free.T:
        wealth = wealth * (1.0 + _multiplier(wealth, peak, limit) * of_day)
        peak = np.maximum(peak, wealth)
        fall = np.maximum(fall, 1.0 - wealth / peak)
    return fall


def _multiplier(wealth: FloatArray, peak: FloatArray, limit: float) -> FloatArray:
    return np.asarray(np.maximum((wealth - (1.0 - limit) * peak) / (limit * wealth), 0.0), dtype=np.float64)


def _interval(estimate: float, drawn: FloatArray, level: float, block: float) -> Interval:
    tail = 0.5 * (1.0 - level)
    low, high = np.quantile(drawn, (tail, 1.0 - tail)).tolist()
    return Interval(estimate, low, high, float(np.mean(drawn > 0.0)), level, block, len(drawn))
