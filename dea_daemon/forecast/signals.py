"""Expected returns: an operator's own views and the forecasters that were given weight, and how fast each fades."""

import numpy as np

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.domain.parameters import ForecastParameters
from dea_daemon.forecast import learners


def signals(
    underlyings: tuple[str, ...], memory: learners.LearnerMemory, params: ForecastParameters
) -> tuple[FloatArray, FloatArray]:
    """(return [S, U] 1/day, decay [S] 1/day: 0 of what does not fade): one for each view, then the learned ones."""
    views = params.views
    named = np.array([[name == u for u in underlyings] for name in views], dtype=np.float64)
    annual = np.array([view.annual_return for view in views.values()])
    lives = [view.half_life_days for view in views.values()]
    decay = np.array([0.0 if life is None else np.log(2.0) / life for life in lives])
    viewed = named.reshape(len(views), len(underlyings)) * (annual / DAYS_PER_YEAR)[:, None]
    learned, fades = learners.signals(memory, params.learners)
    return np.concatenate([viewed, learned]), np.concatenate([decay, fades])
