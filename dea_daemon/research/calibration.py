"""Which parameters of the risk model foretell the next day best, and does that hold on days they were not chosen by.

Every trial is the forecast the daemon itself makes (`forecast/volatility.py`), price by price; what is judged is what
it expected at each midnight of the day to come. Choosing is judged as a procedure, by walk-forward: the trial taken at
the end must not be the witness of its own quality.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY
from dea_daemon.domain.parameters import ForecastParameters
from dea_daemon.forecast import correlation
from dea_daemon.forecast.volatility import VolatilityMemory, expected_variance, sample
from dea_daemon.research.overfitting import overfitting
from dea_daemon.research.record import Record
from dea_daemon.research.validation import (
    Significance,
    christoffersen,
    christoffersen_independence,
    diebold_mariano,
    filtered_var,
    kupiec,
    qlike,
)
from dea_daemon.research.walk_forward import Chosen, chosen_forward, walk_forward

TRIED = ("model", "half_life_s", "jump_clip", "vol_floor", "prior_annual_vol")  # of `forecast`; the others stay
_WIDE = TRIED[1:]  # those that may differ within a batch
MODELS: tuple[Literal["har", "harq", "ewma"], ...] = ("har", "harq", "ewma")
EWMA_10_DAYS_S = 10 * 86_400 * float(np.log(2.0))  # half-life of weights whose mean age is ten days
WARM_DAYS = 60  # judged from then on: a month of HAR, and as much again of learning
LEAST_DAYS, FOLD_DAYS, EMBARGO_DAYS = 365, 91, 5
LAGS = 10  # of Diebold and Mariano's variance, days
SIGNIFICANT = 0.05  # two-sided, and in the right direction
TAIL, VAR_LEAST, VAR_WINDOW = 0.01, 250, 1_000
SHARPE = 1.0  # a year: what standing off costs is judged as if the target earned so much, as the band does
CORRELATION_DAYS = (1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)  # half-lives tried beside the configuration's
_NO_CORRELATION_S = 9e8  # nobody asks for it there, and it costs the square of the batch


class Prices(NamedTuple):
    """T moments, ascending, and what each of U underlyings was worth then: usd [T, U], NaN where unknown. carry [T, U]
    1/day is what a long had earned of funding over the day before; None where nobody looked."""

    at_ns: IntArray
    usd: FloatArray
    underlyings: tuple[str, ...]
    carry: FloatArray | None = None


class Days(NamedTuple):
    """D days, each from the midnight at_ns[d] to the next: realised [D, U] variance and returns [D, U], both of
    logarithms; NaN where a price within the day is missing."""

    at_ns: IntArray
    realised: FloatArray
    returns: FloatArray


def days_of(prices: Prices) -> Days:
    """What the forecasts are judged by. DataError where fewer than two midnights have a price."""
    midnight = np.flatnonzero(prices.at_ns % NS_PER_DAY == 0)
    if len(midnight) < 2:
        raise DataError("no day of prices from midnight to midnight")
    whole = np.diff(prices.at_ns[midnight]) == NS_PER_DAY
    steps = np.diff(np.log(prices.usd), axis=0)
    sums = np.add.reduceat(steps**2, midnight[:-1])
    sums[-1] = (steps[midnight[-2] : midnight[-1]] ** 2).sum(axis=0)
    moved = np.log(prices.usd[midnight[1:]] / prices.usd[midnight[:-1]])
    parts = np.diff(midnight)
    usual = whole & (parts == np.median(parts[whole]) if whole.any() else whole)
    known = usual[:, None] & np.isfinite(sums)
    return Days(prices.at_ns[midnight[:-1]], np.where(known, sums, np.nan), np.where(known, moved, np.nan))


# --- trials ------------------------------------------------------------------------------------------------


def trials_of(incumbent: ForecastParameters, count: int, seed: int) -> list[ForecastParameters]:
    """The incumbent, then `count` drawn at random: model evenly, volatilities and times evenly in logarithms."""
    draws = np.random.default_rng(seed)

    def one() -> dict[str, Any]:
        return {
            "model": MODELS[int(draws.integers(len(MODELS)))],
            "half_life_s": _drawn(draws, 6 * 3_600.0, 20 * 86_400.0),
            "jump_clip": _drawn(draws, 3.0, 20.0),
            "vol_floor": _drawn(draws, 0.05, 0.20),
            "prior_annual_vol": _drawn(draws, 0.30, 1.20),
        }

    return [incumbent, *(incumbent.model_copy(update=one()) for _ in range(count))]


def _drawn(draws: np.random.Generator, low: float, high: float) -> float:
    """Three digits: no more are known of it."""
    return float(f"{np.exp(draws.uniform(np.log(low), np.log(high))):.3g}")


def batches(trials: Sequence[ForecastParameters], size: int) -> list[list[int]]:
    """Indices of trials that may run side by side: of one model, `size` at most."""
    found = []
    for model in MODELS:
        of = [n for n, trial in enumerate(trials) if trial.model == model]
        found += [of[k : k + size] for k in range(0, len(of), size)]
    return found


def foretold(prices: Prices, trials: Sequence[ForecastParameters]) -> FloatArray:
    """[N, D, U] 1/day: what each trial, all of one model, expected at each midnight but the last.

    One memory holds U·N underlyings, each trial's parameters on its own U of them: everything the estimate does is
    element by element, so this is the daemon's own code at the cost of one trial.
    """
    params, n, u = _side_by_side(trials, prices.usd.shape[1]), len(trials), prices.usd.shape[1]
    memory = VolatilityMemory(n * u)
    wide = np.tile(prices.usd, (1, n))
    expected = []
    for now_ns, usd in zip(prices.at_ns.tolist(), wide, strict=True):
        sample(memory, now_ns, usd, params)
        if now_ns % NS_PER_DAY == 0:
            expected.append(expected_variance(memory, params))
    return np.stack(expected[:-1]).reshape(-1, n, u).transpose(1, 0, 2)


def _side_by_side(trials: Sequence[ForecastParameters], underlyings: int) -> ForecastParameters:
    """One set of parameters whose numbers are arrays [N·U]."""
    if len({trial.model for trial in trials}) != 1:
        raise DataError("trials side by side are of one model")
    wide = {name: np.repeat([getattr(trial, name) for trial in trials], underlyings) for name in _WIDE}
    told = trials[0].model_dump() | wide | {"correlation_every_s": _NO_CORRELATION_S}
    return ForecastParameters.model_construct(**told)


# --- how they move together --------------------------------------------------------------------------------


def correlation_trials(incumbent: ForecastParameters) -> list[ForecastParameters]:
    """The incumbent, then those that forget correlations slower or faster."""
    return [
        incumbent,
        *(incumbent.model_copy(update={"correlation_half_life_s": d * 86_400}) for d in CORRELATION_DAYS),
    ]


def foretold_together(prices: Prices, trials: Sequence[ForecastParameters]) -> tuple[FloatArray, FloatArray]:
    """([N, D] of each trial, [D, U] 1/day) expected at each midnight but the last: the mean of the correlation matrix,
    which is the variance of a book that holds one standard deviation of each underlying over their number, and the
    underlyings' variances, which are the same for all trials."""
    alone = trials[0].model_copy(update={"correlation_every_s": _NO_CORRELATION_S})
    u = prices.usd.shape[1]
    memory, pairs = VolatilityMemory(u), [correlation.CorrelationMemory(u) for _ in trials]
    means, variance = [], []
    for now_ns, usd in zip(prices.at_ns.tolist(), prices.usd, strict=True):
        for each, trial in zip(pairs, trials, strict=True):
            correlation.observe(each, now_ns, usd, memory.fast, trial)
        sample(memory, now_ns, usd, alone)
        if now_ns % NS_PER_DAY == 0:
            means.append([correlation.correlation(each, t).mean() for each, t in zip(pairs, trials, strict=True)])
            variance.append(expected_variance(memory, alone))
    return np.array(means[:-1]).T, np.array(variance[:-1])


def book_losses(prices: Prices, days: Days, means: FloatArray, variance: FloatArray) -> FloatArray:
    """[J, N] QLIKE of the variance of the book of equal risks, of the days that count; arguments as
    `foretold_together` gives them. It is what a volatility target scales by, and asks no inverse of anything."""
    midnight = np.flatnonzero(prices.at_ns % NS_PER_DAY == 0)
    steps = np.diff(np.log(prices.usd), axis=0)
    spans = zip(midnight[:-1], midnight[1:], np.sqrt(variance), strict=True)
    realised = np.array([((steps[first:last] / vol).mean(axis=1) ** 2).sum() for first, last, vol in spans])
    count = judged(days) & (realised > 0.0)
    return np.asarray(qlike(realised, means)[:, count].T)


# --- judging -----------------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """Of N trials judged by losses [T, N], trial 0 the incumbent: the `best` of all days, and what choosing by the past
    alone came to, against the incumbent (t > 0: better), with the probability that the choice was overfitted."""

    best: int
    forward: Chosen
    against: Significance
    overfit: float | None  # None where there are too few days or trials

    @property
    def improves(self) -> bool:
        """Whether the best may replace the incumbent."""
        return self.best != 0 and self.against.statistic > 0.0 and self.against.p < SIGNIFICANT


def verdict(losses: FloatArray, horizon: int = 1) -> Verdict:
    """`losses` [T, N] a day, known `horizon` days later; less is better. DataError for fewer days than a walk-forward
    takes."""
    length = len(losses)
    least = min(LEAST_DAYS, length // 2)
    folds = max((length - least - EMBARGO_DAYS) // FOLD_DAYS, 2)
    splits = walk_forward(length, folds, least=least, horizon=horizon, embargo=EMBARGO_DAYS)
    forward = chosen_forward(losses, splits)
    against = diebold_mariano(losses[forward.test, 0], forward.loss, lags=LAGS)
    enough = losses.shape[1] > 1 and length >= 16 * 2
    return Verdict(
        int(np.argmin(losses.mean(axis=0))), forward, against, overfitting(-losses).probability if enough else None
    )


def judged(days: Days) -> BoolArray:
    """[D] whether a day counts: beyond the warm-up, all prices there, and none stood still."""
    late = np.arange(len(days.at_ns)) >= WARM_DAYS
    return np.asarray((np.isfinite(days.realised) & (days.realised > 0.0)).all(axis=1) & late)


def risk_losses(days: Days, variance: FloatArray) -> FloatArray:
    """[J, U, N] QLIKE of the days that count; `variance` [N, D, U]."""
    count = judged(days)
    return np.asarray(qlike(days.realised[None], variance)[:, count].transpose(1, 2, 0))


def forward_variance(days: Days, variance: FloatArray, told: Verdict) -> FloatArray:
    """[D, U] of the trial that choosing by the past had taken on each day; before the first choice, that one's."""
    trial = np.full(len(days.at_ns), int(told.forward.trial[0]))
    count = np.flatnonzero(judged(days))
    for first, taken in zip(told.forward.first, told.forward.trial, strict=True):
        trial[count[first] :] = taken
    return np.asarray(variance[trial, np.arange(len(trial))])


def var_backtest(days: Days, variance: FloatArray) -> list[dict[str, Any]]:
    """A line an underlying: 99 % VaR of a long position over a day, by filtered historical simulation, against what
    came. `variance` [D, U]. Empty where there are too few days."""
    found = []
    for returns, per_day in zip(days.returns.T, variance.T, strict=True):
        var = filtered_var(returns, np.sqrt(per_day), TAIL, least=VAR_LEAST, window=VAR_WINDOW)
        known = np.isfinite(var) & np.isfinite(returns)
        if known.sum() < VAR_LEAST:
            return []
        hits = -returns[known] > var[known]
        found.append(
            {
                "days": len(hits),
                "failures": int(hits.sum()),
                "kupiec_p": kupiec(hits, TAIL).p,
                "independence_p": christoffersen_independence(hits).p,
                "christoffersen_p": christoffersen(hits, TAIL).p,
            }
        )
    return found


def band_losses(record: Record) -> FloatArray:
    """[D] of each UTC day, as a share of equity: fees and slippage paid, and what standing off the target costs.

    The latter as the band itself counts it (docs/volatility.md): ½ S (Σ σ |gap|)² / (σ* W²) a year, the underlyings
    taken to move together. Where there is no target there is no gap.
    """
    paid = np.diff(record.fees_usd + record.slippage_usd) / record.equity_usd[:-1]
    gap = np.nan_to_num(record.exposure_usd - record.target_usd, nan=0.0)
    risk = (record.annual_vol * np.abs(gap)).sum(axis=1) / record.equity_usd
    aim = record.target_vol or 0.20
    standing = 0.5 * SHARPE * risk**2 / aim * (record.step_ns / (DAYS_PER_YEAR * NS_PER_DAY))
    day = (record.at_ns[1:] - 1) // NS_PER_DAY
    first = np.flatnonzero(np.append(True, np.diff(day) != 0))
    return np.asarray(np.add.reduceat(paid + standing[1:], first))
