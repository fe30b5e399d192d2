"""Variance of the next day from the realised variance of the last day, week and month (HAR).

log RV(t, t + 1 d) = b0 + (b1 + bQ q) log RV_1d + b7 log RV_7d + b30 log RV_30d, fitted online, a regression for each
underlying; bQ is 0 but for `model: harq`, where q is the relative standard error of RV_1d.
Source: Corsi (2009), in logarithms, with crypto's week of 7 and month of 30 days; Duan (1983) for the way back from
the mean of a logarithm to the mean; Bollerslev, Patton and Quaedvlieg (2016) for bQ: there √RQ RV, the error
of RV times RV; of a logarithm the error is √RQ / RV.
"""

import numpy as np

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters

BLOCK_NS = 3_600 * NS_PER_S
A_DAY, A_WEEK, A_MONTH = 24, 168, 720  # blocks
PRIOR_WEIGHTS = np.array([0.0, 0.4, 0.35, 0.2, 0.0])  # what is published is near; the rest goes to the prior volatility
RIDGE = 50.0  # strength of these, in days seen at one unit of each regressor
PRIOR_SMEAR, SMEAR_DAYS, SMEAR_MOST = 1.3, 30.0, 10.0  # mean of outcome over exp(fit); a day counts as no more than so
LEARN_FROM_DAYS = 15.0  # covered of the month
CLIP = 2.0  # times what the fast estimate lets a return count: there a jump rules an hour, here it is one of many


class HarMemory:
    """A month of hourly blocks of U underlyings, and the regressions.

    seen [720, 3, U]: squared returns, the days they span, and their fourth powers; block b lies in row b % 720.
    gram [U, 5, 5] and moment [U, 5] are the normal equations of `weights` [U, 5] (constant, day, week, month, day by
    its error). `asked` [U, 5] holds yesterday's regressors, NaN where not to be learned from, until the outcome is
    known. `variance` [U] is the forecast, 1/day; `covered_days` [U] is how much of the last month was seen.
    """

    def __init__(self, underlyings: int) -> None:
        u, k = underlyings, len(PRIOR_WEIGHTS)
        self.last_price: FloatArray = np.full(u, np.nan)
        self.last_ns, self.block = 0, 0
        self.seen = np.zeros((A_MONTH, 3, u))
        self.asked, self.asked_block = np.full((u, k), np.nan), 0
        self.gram = np.tile(RIDGE * np.eye(k), (u, 1, 1))
        self.moment = np.tile(RIDGE * PRIOR_WEIGHTS, (u, 1))
        self.weights = np.tile(PRIOR_WEIGHTS, (u, 1))
        self.smear_sum, self.smear_days = np.full(u, SMEAR_DAYS * PRIOR_SMEAR), np.full(u, SMEAR_DAYS)
        self.variance: FloatArray = np.full(u, np.nan)
        self.covered_days = np.zeros(u)


def observe(memory: HarMemory, now_ns: int, price: FloatArray, most: FloatArray, params: ForecastParameters) -> int:
    """Take a return if the grid's next point has come: its time since the last one, ns, else 0.

    `price` [U] USD, NaN where unknown: no return is made across it. `most` [U] bounds |return|, 1/√day.
    """
    elapsed_ns = now_ns - memory.last_ns
    if elapsed_ns < params.har_every_s * NS_PER_S:
        return 0
    if memory.last_ns:
        _count(memory, now_ns, elapsed_ns, np.log(price / memory.last_price), most)
        rates, covered = realised(memory, params)
        now = _regressors(memory, rates, params)
        _learn(memory, now, covered)
        memory.variance, memory.covered_days = _variance(memory, now, params), covered[2]
    else:
        elapsed_ns = 0
    memory.last_ns, memory.last_price = now_ns, price
    return elapsed_ns


def _count(memory: HarMemory, now_ns: int, elapsed_ns: int, returns: FloatArray, most: FloatArray) -> None:
    """Into the block where the middle of the step lies: a return that ends with the hour belongs to it."""
    block = (now_ns - elapsed_ns // 2) // BLOCK_NS
    entered = np.arange(max(memory.block + 1, block - A_MONTH + 1), block + 1) % A_MONTH
    memory.seen[entered] = 0.0
    memory.block = block
    days = elapsed_ns / NS_PER_DAY
    known = np.isfinite(returns) & (days <= 1.0)  # of what happened in a longer gap one return tells next to nothing
    capped = np.minimum(np.abs(np.where(known, returns, 0.0)), CLIP * most * np.sqrt(days))
    memory.seen[block % A_MONTH] += (capped**2, known * days, capped**4)


def realised(memory: HarMemory, params: ForecastParameters) -> tuple[FloatArray, FloatArray]:
    """(rates, covered), both [3, U]: variance per day over the last day, week and month, and days seen in each.

    What is missing of a window counts at the rate of the next longer one: a gap thins the evidence, it is no calm.
    """
    newest = memory.seen[np.arange(memory.block, memory.block - A_WEEK, -1) % A_MONTH]
    windows = np.array([newest[:A_DAY].sum(axis=0), newest.sum(axis=0), memory.seen.sum(axis=0)])
    squares, covered = windows[:, 0], windows[:, 1]
    month = np.where(covered[2] > 0.0, squares[2] / np.maximum(covered[2], 1e-9), _prior(params))
    week = _filled(squares[1], covered[1], 7.0, month)
    rates = np.array([_filled(squares[0], covered[0], 1.0, week), week, month])
    floor, cap = params.vol_floor**2 / DAYS_PER_YEAR, params.vol_cap**2 / DAYS_PER_YEAR
    return np.clip(rates, floor, cap), covered


def _prior(params: ForecastParameters) -> float:
    return params.prior_annual_vol**2 / DAYS_PER_YEAR


def _filled(squares: FloatArray, covered: FloatArray, days: float, rate: FloatArray) -> FloatArray:
    missing = np.maximum(days - covered, 0.0)
    return (squares + missing * rate) / (covered + missing)


def relative_error(memory: HarMemory) -> FloatArray:
    """[U]: standard error of the last day's realised variance, over it: √(⅔ Σ r⁴) / Σ r², at most √⅔."""
    squares, _, fourths = memory.seen[np.arange(memory.block, memory.block - A_DAY, -1) % A_MONTH].sum(axis=0)
    return np.asarray(np.sqrt(fourths / 1.5) / np.maximum(squares, 1e-300))


def _regressors(memory: HarMemory, rates: FloatArray, params: ForecastParameters) -> FloatArray:
    """[U, 5]: one, log rates over the prior's, so that the constant has a prior of zero, and the day's by its error."""
    logs = np.log(rates / _prior(params))
    by_error = relative_error(memory) * logs[0] if params.model == "harq" else np.zeros(rates.shape[1])
    return np.column_stack([np.ones(rates.shape[1]), *logs, by_error])


def _learn(memory: HarMemory, now: FloatArray, covered: FloatArray) -> None:
    """Once a day: yesterday's regressors have their outcome, and today's begin to wait for theirs."""
    age = memory.block - memory.asked_block
    if age < A_DAY:
        return
    outcome = now[:, 1]
    due = np.isfinite(memory.asked).all(axis=1) & (covered[0] >= 0.5) & (age <= A_DAY + 1)
    for u in np.flatnonzero(due):
        x = memory.asked[u]
        ratio = np.exp(outcome[u] - x @ memory.weights[u])
        memory.smear_sum[u] += min(ratio, SMEAR_MOST)
        memory.smear_days[u] += 1.0
        memory.gram[u] += np.outer(x, x)
        memory.moment[u] += x * outcome[u]
        memory.weights[u] = np.linalg.solve(memory.gram[u], memory.moment[u])
    memory.asked = np.where((covered[2] >= LEARN_FROM_DAYS)[:, None], now, np.nan)
    memory.asked_block = memory.block


def _variance(memory: HarMemory, now: FloatArray, params: ForecastParameters) -> FloatArray:
    """[U] 1/day expected over the next day."""
    logs = np.einsum("uk,uk->u", now, memory.weights)
    smear = memory.smear_sum / memory.smear_days
    return np.asarray(np.exp(logs) * smear * _prior(params))
