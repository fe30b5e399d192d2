"""How good forecasts were, kept as they mature: sums whose size is the horizon's, not the run's.

Everything is in standard deviations of the horizon, as forecast when the forecast was made: a calm year counts as much
as a wild one. Better than zero is what counts: half of all returns have the sign of any constant.
Source: Diebold and Mariano (1995); Harvey, Leybourne and Newbold (1997) for short samples and horizons beyond one step.
"""

import numpy as np

from dea_daemon.domain.instruments import FloatArray

LEAST_HORIZONS = 10  # of forecasts, below which no t is told
PRIOR_HORIZONS = 20.0  # the prior error of one standard deviation is worth so many


class Scores:
    """Of M learners and U underlyings at one horizon of `steps` samples.

    count [U] outcomes; error, gain [M, U] sums of squared error and of what zero's was more; base [U] zero's; right,
    called [M, U] how often the sign was, and how often one was told. recent [steps, M, U] are the last gains, for the
    sums over pairs at each lag (`both` [steps, U] counts them) that autocovariances are made of.
    """

    def __init__(self, steps: int, learners: int, underlyings: int) -> None:
        shape = (learners, underlyings)
        self.steps, self.at = steps, 0
        self.count, self.base = np.zeros(underlyings), np.zeros(underlyings)
        self.error, self.gain, self.right, self.called = (np.zeros(shape) for _ in range(4))
        self.recent, self.seen = np.zeros((steps, *shape)), np.zeros((steps, underlyings))
        self.products, self.newer, self.older = (np.zeros((steps, *shape)) for _ in range(3))
        self.both = np.zeros((steps, underlyings))

    def add(self, said: FloatArray, outcome: FloatArray) -> None:
        """One step on: what was said [M, U], and what came [U], NaN where that is unknown. Every step, known or not."""
        known = np.isfinite(outcome)
        came = np.where(known, outcome, 0.0)
        error = np.where(known, (said - came) ** 2, 0.0)
        gain = came**2 - error
        self.count += known
        self.base += came**2
        self.error += error
        self.gain += gain
        called = known & (said != 0.0) & (came != 0.0)
        self.called += called
        self.right += called & (np.sign(said) == np.sign(came))
        self._pair(gain, known.astype(np.float64))

    def pass_over(self, steps: int) -> None:
        """So many steps on, of none of which anything is known."""
        steps = min(steps, self.steps)
        rows = (self.at + 1 + np.arange(steps)) % self.steps
        self.recent[rows], self.seen[rows] = 0.0, 0.0
        self.at = (self.at + steps) % self.steps

    def _pair(self, gain: FloatArray, known: FloatArray) -> None:
        self.at = (self.at + 1) % self.steps
        self.recent[self.at], self.seen[self.at] = gain, known
        lagged = (self.at - np.arange(self.steps)) % self.steps
        past, both = self.recent[lagged], self.seen[lagged] * known
        self.products += gain * past
        self.newer += gain * both[:, None]
        self.older += past * known
        self.both += both

    def r_squared(self) -> FloatArray:
        """[M, U] 1 − squared error over zero's; NaN before there is any."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.gain / self.base)

    def hit_rate(self) -> FloatArray:
        """[M, U] share of signs that were right; NaN where none was told."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.right / self.called)

    def deviation(self) -> FloatArray:
        """[M, U] root mean squared error, in standard deviations."""
        prior = PRIOR_HORIZONS * self.steps
        return np.asarray(np.sqrt((self.error + prior) / (self.count + prior)))

    def t(self) -> FloatArray:
        """[M, U] Diebold and Mariano's against zero, positive where better; NaN before ten horizons, and of zero.

        The variance is that of overlapping forecasts, `steps` - 1 lags of equal weight; where that is not positive,
        Bartlett's weights.
        """
        n, h = np.maximum(self.count, 1.0), self.steps
        mean = self.gain / n
        products = self.products - mean * (self.newer + self.older) + mean**2 * self.both[:, None]
        twice = np.where(np.arange(h) == 0, 1.0, 2.0)
        variance = np.tensordot(twice, products, 1)
        falling = np.tensordot(twice * (1.0 - np.arange(h) / h), products, 1)
        variance = np.where(variance > 0.0, variance, falling) / n**2
        short = (n + 1.0 - 2.0 * h + h * (h - 1.0) / n) / n
        enough = (self.count >= LEAST_HORIZONS * h) & (variance > 0.0)
        return np.where(enough, mean * np.sqrt(np.maximum(short, 0.0) / np.where(enough, variance, 1.0)), np.nan)
