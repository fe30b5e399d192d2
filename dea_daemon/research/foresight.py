"""How good a run's own forecasts were: the next day's volatility, the loss that one day in a hundred should exceed,
what its forecasters said of returns, and how all were on trial.

Everything is judged by what was recorded before its day began. Days are UTC; what was not forecast, or is too short
to be judged, has no row.
"""

from typing import Any

import numpy as np

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY
from dea_daemon.research import validation
from dea_daemon.research.performance import daily_returns, days, stamp
from dea_daemon.research.record import Record

EWMA_DAYS = 10.0  # mean age of the weights that stand for knowing nothing but the past
BEGIN_DAYS = 30  # of the run, before which these know too little to be compared with
LAGS = 10  # days that losses are taken to remember
TAIL = 0.01
VAR_LEAST, VAR_WINDOW = 250, 1_000  # days: fewer have no hundredth to speak of


def foresight(run: Record) -> dict[str, Any]:
    """Rows for JSON: `volatility` by underlying, `var` by underlying (of holding it) and of the whole book, `returns`
    by forecaster, `trials` by contender, and each change of a contender's state in `changes`."""
    return {
        "volatility": [row for u in range(len(run.underlyings)) if (row := _volatility(run, u)) is not None],
        "var": [row for name, *told in _held(run) if (row := _var(name, *told)) is not None],
        "returns": [
            {
                "name": one.name,
                "underlying": one.underlying,
                "weight": one.weight,
                "scored": one.scored,
                "hit_rate": one.hit_rate,
                "r_squared": one.r_squared,
                "t": one.t,
            }
            for one in run.forecasters
            if np.isfinite(one.hit_rate)  # who says nothing is not judged
        ],
        "trials": [
            {
                "name": one.name,
                "state": one.state,
                "outcomes": one.rounds,
                "p": one.p,
                "against": one.against,
                "drift": one.drift,
                "net_gain": one.net_gain if np.isfinite(one.net_gain) else None,
            }
            for one in run.contenders
            if one.rounds
        ],
        "changes": [
            {"date": stamp(at_ns)[:10], "name": name, "became": state, "why": why}
            for at_ns, name, state, why in run.changes
        ],
    }


# --- volatility ------------------------------------------------------------------------------------------


def realised_variance(run: Record) -> FloatArray:
    """[D, U] squared logarithmic returns between decisions, summed over each day."""
    spans = days(run)
    squares = np.diff(np.log(run.price), axis=0) ** 2
    sums = np.vstack([np.zeros(run.price.shape[1]), np.cumsum(squares, axis=0)])
    return np.asarray(sums[spans.last] - sums[spans.first])


def daily_vol(run: Record) -> FloatArray:
    """[D, U] of the day, as forecast when it began."""
    return np.asarray(run.annual_vol[days(run).first] / np.sqrt(DAYS_PER_YEAR))


def ewma_variance(run: Record) -> FloatArray:
    """[D, U] from the run's own returns before each day, exponential weights; NaN before the first."""
    spans = days(run)
    squares = np.diff(np.log(run.price), axis=0) ** 2
    gap_days = np.diff(run.at_ns) / NS_PER_DAY
    total, weight = np.zeros_like(run.price), np.zeros(len(run.price))
    for t, keep in enumerate(np.exp(-gap_days / EWMA_DAYS).tolist()):
        total[t + 1] = keep * total[t] + squares[t]
        weight[t + 1] = keep * weight[t] + gap_days[t]
    with np.errstate(invalid="ignore"):
        return np.asarray(total[spans.first] / weight[spans.first, None])


def _volatility(run: Record, u: int) -> dict[str, Any] | None:
    """One underlying's; t > 0 is in favour of the run's forecast."""
    realised, ewma = realised_variance(run)[:, u], ewma_variance(run)[:, u]
    own, plain = validation.qlike(realised, daily_vol(run)[:, u] ** 2), validation.qlike(realised, ewma)
    judged = np.isfinite(own) & np.isfinite(plain) & (np.arange(len(own)) >= BEGIN_DAYS)
    if int(judged.sum()) < validation.LEAST + LAGS:
        return None
    own, plain = own[judged], plain[judged]
    found = validation.diebold_mariano(plain, own, lags=LAGS)
    return {
        "name": run.underlyings[u],
        "days": len(own),
        "qlike": float(own.mean()),
        "ewma_qlike": float(plain.mean()),
        "t": found.statistic,
        "p": found.p,
    }


# --- value at risk ---------------------------------------------------------------------------------------


def _held(run: Record) -> list[tuple[str, FloatArray, FloatArray]]:
    """(name, daily returns, what scaled them, as known before) of each underlying held long, and of the book: there
    the sum of |exposure| times volatility over equity. A scale need only be right up to a factor."""
    spans, vol = days(run), daily_vol(run)
    held = [(name, spans.returns(run.price[:, u]), vol[:, u]) for u, name in enumerate(run.underlyings)]
    exposure = np.abs(run.exposure_usd[spans.first]) / run.equity_usd[spans.first, None]
    return [*held, ("the book", daily_returns(run), np.nansum(exposure * vol, axis=1))]


def _var(name: str, returns: FloatArray, scale: FloatArray) -> dict[str, Any] | None:
    """Days on which more was lost than the filtered historical VaR of 99 % said before. Days without a position are
    none."""
    foretold = np.where(scale > 1e-9, scale, np.nan)
    var = validation.filtered_var(returns, foretold, TAIL, least=VAR_LEAST, window=VAR_WINDOW)
    judged = np.isfinite(var) & np.isfinite(returns)
    if int(judged.sum()) < validation.LEAST:
        return None
    hits = -returns[judged] > var[judged]
    return {
        "name": name,
        "days": len(hits),
        "expected": TAIL * len(hits),
        "exceeded": int(hits.sum()),
        "kupiec_p": validation.kupiec(hits, TAIL).p,
        "christoffersen_p": validation.christoffersen_independence(hits).p,
    }
