"""Forecasts into one: weights that follow who was right lately, and the operator's own.

Source: Herbster and Warmuth (1998), "Tracking the best expert", fixed share. With squared errors in standard
deviations and a rate of ½ the weights are the probabilities of the forecasters, were their errors normal; a share goes
back to the first weights each day, so that whoever was wrong once can return.
"""

import numpy as np

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR

RATE = 0.5
SHARE_A_DAY = 1.0 / 365.0
MOST = 3.0  # standard deviations: one crash is not to choose the forecaster


def first_weights(learners: int) -> FloatArray:
    """[M]: half for zero, which is the first; what the others have, they have earned."""
    return np.array([0.5, *np.full(learners - 1, 0.5 / (learners - 1))])


def shared(weights: FloatArray, said: FloatArray, outcome: FloatArray, part: float, days: float) -> FloatArray:
    """[M] weights after one more outcome, the same for all underlyings.

    `said` [M, U], `outcome` [U] in standard deviations, NaN where unknown; `part` is what of a horizon has passed since
    the last outcome: overlapping ones tell the same thing many times. `days` since then.
    """
    known = np.isfinite(outcome)
    if known.any():
        came = np.clip(outcome[known], -MOST, MOST)
        loss = ((said[:, known] - came) ** 2).mean(axis=1)
        weights = weights * np.exp(-RATE * part * (loss - loss.min()))
        weights = weights / weights.sum()
    share = min(SHARE_A_DAY * days, 1.0)
    return np.asarray((1.0 - share) * weights + share * first_weights(len(weights)))


def capped(returns: FloatArray, vol: FloatArray, max_sharpe: float) -> FloatArray:
    """[H, U] 1/day, scaled down where all horizons together promise more than `max_sharpe` a year; `vol` [U] 1/√day."""
    most = max_sharpe * vol / np.sqrt(DAYS_PER_YEAR)
    total = np.abs(returns).sum(axis=0)
    return np.asarray(returns * np.minimum(1.0, most / np.maximum(total, 1e-300)))
