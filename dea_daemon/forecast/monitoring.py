"""Tests one may look at every day: a challenger's evidence against the champion, and an alarm when a loss drifts.

Both are a state and a function from it to the next, a few numbers each, so that they can live in a run.
"""

import numpy as np

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.models import Drift, Evidence

_BET_MOST = 0.5  # of the evidence at hand: one day can halve it, never more
_PRIOR_DAYS = 5.0  # of the moments bets are made from
_WIDE = 3.0  # mean absolute differences; beyond, one counts as that many


def bet(evidence: Evidence, champion_loss: float, challenger_loss: float) -> Evidence:
    """One more day. The bet on it, and the scale it counts in, were fixed by the days before.

    The difference counts in thrice the mean absolute difference so far, cut at ± 1: the hypothesis is that this has
    no mean above zero given the past. It needs neither independence nor thin tails; the first day only sets the
    scale. The bet is mean / (variance + mean²), within [0, ½].
    Sources: Waudby-Smith & Ramdas (2024), Estimating means of bounded random variables by betting (the bet); Choe &
    Ramdas (2024), Comparing sequential forecasters (losses of two forecasts). DataError for a loss that is no number.
    """
    gap = champion_loss - challenger_loss
    if not np.isfinite(gap):
        raise DataError("a loss is not a number")
    size = evidence.size + abs(gap)
    if not evidence.size > 0.0:
        return evidence._replace(days=evidence.days + 1, size=size)
    counted = min(max(gap / (_WIDE * evidence.size / evidence.days), -1.0), 1.0)
    seen = evidence.days + _PRIOR_DAYS
    mean, square = evidence.mean / seen, (evidence.square + _PRIOR_DAYS * 0.25) / seen
    stake = min(max(mean / square, 0.0), _BET_MOST)  # square is variance + mean²
    wealth = evidence.log_wealth + float(np.log1p(stake * counted))
    return Evidence(
        log_wealth=wealth,
        peak=max(evidence.peak, wealth),
        days=evidence.days + 1,
        size=size,
        mean=evidence.mean + counted,
        square=evidence.square + counted**2,
    )


def p_value(evidence: Evidence) -> float:
    """Of "no better", valid whenever one looks."""
    return float(np.exp(-evidence.peak))


def drift(state: Drift, value: float, *, tolerance: float, limit: float, least: int = 30) -> Drift:
    """One more value (a loss): has its mean risen? `tolerance` is what it may rise by unheard, in its own unit; no
    alarm before `least` values. A value that is no number alarms: what cannot be scored cannot be trusted.
    Source: Page (1954), Continuous inspection schemes; Mouss, Mouss, Mouss & Sefouhi (2004).
    """
    if not np.isfinite(value):
        return state._replace(alarm=True)
    seen = state.seen + 1
    mean = state.mean + (value - state.mean) / seen
    above = state.above + value - mean - tolerance
    lowest = min(state.lowest, above)
    return Drift(seen, mean, above, lowest, state.alarm or (seen >= least and above - lowest > limit))
