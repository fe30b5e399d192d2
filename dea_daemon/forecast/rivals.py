"""Models of variance on trial: the one that trades, and those that would.

At each turn of a UTC day every model's forecast of the day that ends is held against what was realised, by QLIKE. The
slow one, weights of ten days, is the baseline: a traded model whose loss rises against it, or that it beats, gives way
to `cautious`, the larger of both. Source of the loss: Patton (2011).
"""

from collections.abc import Mapping

import numpy as np

from dea_daemon.domain.decisions import Contender
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.domain.parameters import ForecastParameters
from dea_daemon.forecast import trial

SLOW_HALF_LIFE_S = 598_931.0  # weights whose mean age is ten days
COVERED_DAYS = 0.5  # of a day: less is no outcome
SLOW = trial.SLOW


class RivalMemory:
    """What was expected at the last day's turn, by model, [U] 1/day; `day` counts from 1970-01-01."""

    def __init__(self) -> None:
        self.day = -1
        self.expected: dict[str, FloatArray] = {}


def names(params: ForecastParameters) -> tuple[str, ...]:
    """The models there are: HAR as configured, both exponential weights."""
    return ("harq" if params.model == "harq" else "har", "ewma", SLOW)


def traded(memory: trial.TrialMemory, params: ForecastParameters) -> str:
    """The one that trades: what was ruled, where that is there, else what is configured."""
    there = (*names(params), trial.CAUTIOUS)
    return next((name for name in there if name in memory.standings), params.model)


def tried(memory: trial.TrialMemory, params: ForecastParameters) -> tuple[str, ...]:
    """Those on trial."""
    champion = traded(memory, params)
    return names(params) if champion in names(params) else (*names(params), champion)


def turned(memory: RivalMemory, utc_ns: int) -> bool:
    """Whether another day has begun."""
    return utc_ns // NS_PER_DAY != memory.day


def observe(
    memory: RivalMemory,
    trials: trial.TrialMemory,
    utc_ns: int,
    forecasts: Mapping[str, FloatArray],
    came: FloatArray,
    alpha: float,
    params: ForecastParameters,
) -> None:
    """At a day's turn, judge what was expected at the last one: `came` [U] 1/day, NaN where unknown."""
    day = utc_ns // NS_PER_DAY
    champion = traded(trials, params)
    lost = {name: trial.qlike(expected, came) for name, expected in memory.expected.items()}
    if day == memory.day + 1 and champion in lost and SLOW in lost:
        slow = lost[SLOW]
        rounds = {
            name: trial.Round(lost[champion], own, slow if name == champion else lost[champion], own, slow)
            for name, own in lost.items()
        }
        offered = {name: 1.0 for name in rounds if name != champion}
        trial.hear(trials, trial.VARIANCE, champion, rounds, offered, alpha, utc_ns, params.learners.trial)
    # What is said in the middle of a day (a start, days slept through, a clock set back) knows half of what comes.
    waiting = forecasts if day == memory.day + 1 else {}
    memory.day, memory.expected = day, {name: np.array(variance) for name, variance in waiting.items()}


def contenders(memory: trial.TrialMemory, params: ForecastParameters) -> tuple[Contender, ...]:
    """How each is on trial now."""
    champion = traded(memory, params)
    return tuple(
        trial.contender(memory, trial.VARIANCE, name, float(name == champion), 1.0) for name in tried(memory, params)
    )
