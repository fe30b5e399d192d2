"""How good would the best of many look by luck alone: deflated Sharpe ratio, probability of backtest overfitting."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy import stats

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.research.validation import numbers

SPLITS = 16  # 12,870 ways to halve them


def sharpe_ratio(returns: FloatArray) -> float:
    """Per step; 0 where nothing moved. `returns` [T]."""
    numbers(returns)
    spread = float(np.std(returns, ddof=1))
    return float(np.mean(returns)) / spread if spread > 1e-12 else 0.0


def probabilistic_sharpe(ratio: float, bar: float, length: int, skew: float = 0.0, kurtosis: float = 3.0) -> float:
    """The chance that the true Sharpe ratio is above `bar`, both per step, seen over `length` steps; `kurtosis` 3 is
    the normal one's. Source: Bailey & López de Prado (2012), The Sharpe ratio efficient frontier."""
    spread = 1.0 - skew * ratio + 0.25 * (kurtosis - 1.0) * ratio**2
    if not (spread > 0.0 and length > 1):
        raise DataError("a Sharpe ratio of too few steps, or of moments no returns have")
    return float(stats.norm.cdf((ratio - bar) * np.sqrt((length - 1.0) / spread)))


def expected_best(trials: float, deviation: float) -> float:
    """The best Sharpe ratio to expect of `trials` independent ones without skill, `deviation` the standard deviation
    among them; 0 for one. Source: Bailey & López de Prado (2014), The deflated Sharpe ratio, eq. 1."""
    if not (trials >= 1.0 and deviation >= 0.0):
        raise DataError("a trial at least, and a standard deviation that is not negative")
    if trials == 1.0:
        return 0.0
    first, second = stats.norm.ppf(1.0 - 1.0 / trials), stats.norm.ppf(1.0 - 1.0 / (trials * np.e))
    return float(deviation * ((1.0 - np.euler_gamma) * first + np.euler_gamma * second))


def deflated_sharpe(returns: FloatArray, trials: float, deviation: float) -> float:
    """The chance that `returns` [T] have a Sharpe ratio above what the best of `trials` shows by luck; `deviation` is
    that of the trials' ratios per step. Source: Bailey & López de Prado (2014), eq. 2."""
    ratio = sharpe_ratio(returns)
    moments = float(stats.skew(returns)), float(stats.kurtosis(returns, fisher=False))
    if not np.isfinite(moments).all():  # nothing moved
        moments = 0.0, 3.0
    return probabilistic_sharpe(ratio, expected_best(trials, deviation), len(returns), *moments)


class Overfit(NamedTuple):
    """`probability` that the best in sample is below the median out of it; `logits` [C] of its relative rank there."""

    probability: float
    logits: FloatArray


def overfitting(performance: FloatArray, splits: int = SPLITS) -> Overfit:
    """Probability of backtest overfitting by combinatorially symmetric cross-validation.

    `performance` [T, N] of N trials, more is better, judged by its mean; T is cut to a multiple of `splits` (its
    beginning is left out). Every half of the blocks chooses, the other half judges. Ranks among equals are halved.
    Source: Bailey, Borwein, López de Prado & Zhu (2017), The probability of backtest overfitting.
    """
    t, n = performance.shape
    if splits % 2 or splits < 2 or t < splits or n < 2 or not np.isfinite(performance).all():
        raise DataError(f"overfitting needs two trials, {splits} steps (an even number) or more, all of them numbers")
    block = t // splits
    sums = performance[t - block * splits :].reshape(splits, block, n).sum(axis=1)
    halves = np.array(list(combinations(range(splits), splits // 2)))
    chosen = np.zeros((len(halves), splits))
    np.put_along_axis(chosen, halves, 1.0, axis=1)
    inside = chosen @ sums
    outside = sums.sum(axis=0) - inside
    best = np.argmax(inside, axis=1)[:, None]
    got = np.take_along_axis(outside, best, axis=1)
    below, same = (outside < got).sum(axis=1), (outside == got).sum(axis=1)
    rank = (below + 0.5 * (same + 1.0)) / (n + 1.0)
    logits = np.log(rank / (1.0 - rank))
    return Overfit(float(np.mean(logits <= 0.0)), logits)
