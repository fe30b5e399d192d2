"""Correlations of the underlyings, whose prices do not tick together, by a slow estimate.

Each underlying has returns of its own, from one new price to the first that is seen `correlation_every_s` later,
counted in its own standard deviations. Two are multiplied wherever their times overlap, so that a price which stands
still while another moves hides nothing (the Epps effect). Source: Hayashi and Yoshida (2005), Bernoulli 11(2).
Shrunk towards equal correlations: Ledoit and Wolf (2004), "Honey, I shrunk the sample covariance matrix".
"""

import numpy as np

from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters

LEAST_EIGENVALUE = 1e-6
NOTHING = 1e-12  # days


class CorrelationMemory:
    """Weighted sums over U underlyings, and where each one's present return began.

    at_ns, price [U]: there. path [U]: all its returns so far added up, √days; path_then [U, U]: row i is `path` when
    i's present return began. cross [U, U] days: sums of products; days [U, U]: time over which both were known;
    days_squared [U]: sums of squared lengths of returns, so that days²/days_squared counts effective ones.
    `matrix` [U, U] is the estimate, None until it is asked for again.
    """

    def __init__(self, underlyings: int) -> None:
        u = underlyings
        self.seen: FloatArray = np.full(u, np.nan)  # by the last decision
        self.due_ns, self.last_ns = 0, 0
        self.at_ns: IntArray = np.zeros(u, dtype=np.int64)
        self.price: FloatArray = np.full(u, np.nan)
        self.path, self.path_then = np.zeros(u), np.zeros((u, u))
        self.cross, self.days, self.days_squared = np.zeros((u, u)), np.zeros((u, u)), np.zeros(u)
        self.matrix: FloatArray | None = None


def observe(
    memory: CorrelationMemory, now_ns: int, price: FloatArray, variance: FloatArray, params: ForecastParameters
) -> bool:
    """End the returns that are long enough and whose price has just changed; whether there were any.

    `price` [U] USD, NaN where unknown; `variance` [U] 1/day, known before.
    """
    before, memory.seen = memory.seen, price
    if now_ns < memory.due_ns:
        return False
    every_ns = round(params.correlation_every_s * NS_PER_S)
    ended = (price != before) & np.isfinite(price) & (memory.at_ns + every_ns <= now_ns)
    if not ended.any():
        return False
    _count(memory, now_ns, ended, np.log(price / memory.price) / np.sqrt(variance), params)
    memory.at_ns[ended] = now_ns
    memory.price = np.where(ended, price, memory.price)
    memory.path_then[ended] = memory.path
    memory.due_ns = int(memory.at_ns.min()) + every_ns
    return True


def _count(
    memory: CorrelationMemory, now_ns: int, ended: BoolArray, returns: FloatArray, params: ForecastParameters
) -> None:
    """`returns` [U] 1 where one standard deviation of a day; of a gap beyond a day one return tells next to nothing."""
    lasted = (now_ns - memory.at_ns) / NS_PER_DAY
    alive = lasted <= 1.0
    known = ended & alive & np.isfinite(returns)
    days = np.where(known, lasted, 0.0)
    most = params.jump_clip * np.sqrt(days)
    z = np.clip(np.where(known, returns, 0.0), -most, most)
    memory.path += z
    # What the others' returns that ended meanwhile came to. Two that end together find each other: counted once.
    half = z[:, None] * (memory.path - memory.path_then)
    keep = 0.5 ** ((now_ns - memory.last_ns) / NS_PER_S / params.correlation_half_life_s)
    memory.cross *= keep
    memory.cross += half + half.T - np.outer(z, z)
    together = np.outer(days, alive)
    memory.days *= keep
    memory.days += 0.5 * (together + together.T)
    memory.days_squared *= keep**2
    memory.days_squared += days**2
    memory.last_ns, memory.matrix = now_ns, None


def correlation(memory: CorrelationMemory, params: ForecastParameters) -> FloatArray:
    """[U, U], PSD, 1 on the diagonal; 0 where nothing is known. The prior is uncorrelated returns, so many of them."""
    if memory.matrix is None:
        memory.matrix = _estimate(memory, params)
    return memory.matrix


def _estimate(memory: CorrelationMemory, params: ForecastParameters) -> FloatArray:
    own = np.maximum(np.diag(memory.days), NOTHING)
    scale = 1.0 / np.sqrt(np.maximum(np.diag(memory.cross) / own, NOTHING))
    found = memory.cross / np.maximum(memory.days, NOTHING) * scale[:, None] * scale
    found = np.clip(found, -1.0, 1.0)
    count = own**2 / np.maximum(memory.days_squared, NOTHING**2)
    count = np.minimum(count[:, None], count) * np.clip(memory.days / np.sqrt(own[:, None] * own), 0.0, 1.0)
    found *= count / (count + params.prior_samples)
    np.fill_diagonal(found, 1.0)
    return _positive(shrunk(found, count))


def shrunk(found: FloatArray, count: FloatArray) -> FloatArray:
    """Towards their mean by the error there is in them over the spread there is.

    The variance of a correlation from n returns is taken as (1 − ρ²)²/n, and its covariance with the mean's as nothing
    (Schäfer and Strimmer 2005, target F). `found`, `count` [U, U].
    """
    u = len(found)
    if u < 3:
        return found
    off = ~np.eye(u, dtype=np.bool_)
    mean = found[off].mean()
    spread = np.sum((found[off] - mean) ** 2)
    error = np.sum((1.0 - found[off] ** 2) ** 2 / np.maximum(count[off], 1.0))
    share = min(error / spread, 1.0) if spread > 0.0 else 0.0
    return np.where(off, (1.0 - share) * found + share * mean, 1.0)


def _positive(found: FloatArray) -> FloatArray:
    """Sums over overlaps need not make a PSD matrix: as much of the identity as it takes."""
    if len(found) < 3:  # of two nothing can be inconsistent
        return found
    least = float(np.linalg.eigvalsh(found)[0])
    if least >= LEAST_EIGENVALUE:
        return found
    share = (LEAST_EIGENVALUE - least) / (1.0 - least)
    mended = (1.0 - share) * found
    np.fill_diagonal(mended, 1.0)
    return mended
