"""The certificate: what a book costs, how far it is beyond its limits, and a bound below which no book can cost.

Weak duality, with the exposures u, the rows' prices y and the gross limits' prices ν of `Multipliers`. For every x in
its box and within its limits, as Ω is PSD, σ(y) = max over z in [g_lower, g_upper] of y z, and |y| ≤ row_price:

    f(x) ≥ uᵀΩBᵀx − ½uᵀΩu + yᵀGx − σ(y) + νᵀ(gross |x| − gross_limit) + Σ ½ d x² − μ x + cost |x − x0|

whose least value over the box alone is a closed form, coordinate by coordinate: D(u, y, ν) ≤ f(x). All is computed
afresh from the problem as given, whatever a solver did inside.
"""

import numpy as np

from dea_daemon.allocator.problem import Multipliers, Problem
from dea_daemon.domain.instruments import FloatArray

ROUNDING = 64 * float(np.finfo(np.float64).eps)  # of a sum, as a share of the sum of its terms' sizes


def objective(problem: Problem, x: FloatArray) -> float:
    """What the book x [n] costs, the prices of the soft rows it leaves included; the limits are not looked at."""
    smooth, trading, outside = _costs(problem, x)
    return float(smooth + trading + outside)


def _costs(problem: Problem, x: FloatArray) -> tuple[float, float, float]:
    exposure = x @ problem.B
    smooth = 0.5 * (exposure @ problem.omega @ exposure + x @ (problem.d * x)) - problem.mu @ x
    outside = 0.0
    if problem.row_price.size:
        soft = problem.row_price < np.inf
        outside = float(problem.row_price[soft] @ _beyond(problem, x)[soft])
    return float(smooth), float(problem.cost @ np.abs(x - problem.x0)), outside


def _beyond(problem: Problem, x: FloatArray) -> FloatArray:
    rows = problem.G @ x
    distance: FloatArray = np.maximum(rows - problem.g_upper, problem.g_lower - rows)
    return np.maximum(distance, 0.0, out=distance)


def violation(problem: Problem, x: FloatArray) -> float:
    """The furthest x [n] is beyond its box, a hard row or a gross limit, as a share of max(1, |limit|); 0 if within."""
    worst = max(_furthest(x - problem.upper, problem.upper), _furthest(problem.lower - x, problem.lower))
    if problem.row_price.size:
        hard = problem.row_price == np.inf
        rows = problem.G @ x
        worst = max(worst, _furthest((rows - problem.g_upper)[hard], problem.g_upper[hard]))
        worst = max(worst, _furthest((problem.g_lower - rows)[hard], problem.g_lower[hard]))
    if problem.gross_limit.size:
        worst = max(worst, _furthest(problem.gross @ np.abs(x) - problem.gross_limit, problem.gross_limit))
    return worst


def _furthest(beyond: FloatArray, limit: FloatArray) -> float:
    """An infinite limit is never passed: −∞ / max(1, ∞) would be NaN, so only what is beyond is divided."""
    if not (over := ~(beyond <= 0.0)).any():
        return 0.0
    return float((beyond[over] / np.maximum(1.0, np.abs(limit[over]))).max())


def dual_value(problem: Problem, multipliers: Multipliers) -> float:
    """D(u, y, ν): no book within the limits costs less, up to rounding. −∞ where the multipliers bound nothing."""
    y, nu = multipliers.y, multipliers.nu
    if not ((np.abs(y) <= problem.row_price).all() and (nu >= 0.0).all()):
        return -np.inf
    held = _row_support(problem, y)
    if problem.gross_limit.size:
        priced = nu > 0.0
        held += float(nu[priced] @ problem.gross_limit[priced])
    if not held < np.inf:
        return -np.inf
    priced_exposure = problem.omega @ multipliers.u
    return _least(problem, priced_exposure, y, nu) - 0.5 * float(multipliers.u @ priced_exposure) - held


def _row_support(problem: Problem, y: FloatArray) -> float:
    """σ(y); y = 0 of an infinite limit is 0, not NaN."""
    up, down = y > 0.0, y < 0.0
    return float(y[up] @ problem.g_upper[up] + y[down] @ problem.g_lower[down])


def _least(problem: Problem, priced_exposure: FloatArray, y: FloatArray, nu: FloatArray) -> float:
    """The least Σ ½ d x² − reward x + cost |x − x0| + weight |x| over the box; −∞ where nothing bounds it."""
    reward, weight = problem.mu - problem.B @ priced_exposure, np.zeros_like(problem.mu)
    if y.size:
        reward -= y @ problem.G
    if nu.size:
        weight = nu @ problem.gross
    x = least_point(problem, reward, weight)
    if not np.isfinite(x).all():
        terms = np.abs(problem.mu) + np.abs(problem.B) @ np.abs(priced_exposure)
        if y.size:
            terms += np.abs(y) @ np.abs(problem.G)
        reward = _without_rounding(reward, problem.cost + weight, ROUNDING * (terms + problem.cost + weight))
        x = least_point(problem, reward, weight)
    if not np.isfinite(x).all():
        return -np.inf
    return float(x @ (0.5 * problem.d * x - reward) + problem.cost @ np.abs(x - problem.x0) + weight @ np.abs(x))


def _without_rounding(reward: FloatArray, bound: FloatArray, rounding: FloatArray) -> FloatArray:
    """A reward no further than rounding beyond the ± bound at which a position without risk or limit is worth nothing
    more is that bound: the exact multipliers cannot be written in float64."""
    size: FloatArray = np.abs(reward)
    return np.where((size > bound) & (size <= bound + rounding), np.copysign(bound, reward), reward)


def least_point(problem: Problem, reward: FloatArray, weight: FloatArray) -> FloatArray:
    """The x [n] in the box of the least ½ d x² − reward x + cost |x − x0| + weight |x|.

    The slope rises with x and jumps at x0 and at 0, so x is where it crosses zero: above both kinks, between them or
    below both. Without d it crosses at a kink or nowhere (±∞, cut by the box); 0 / 0, NaN, is a slope of nothing, and
    fmin, fmax then stay at the kink.
    """
    d, x0, step = problem.d, problem.x0, problem.cost + weight
    with np.errstate(divide="ignore", invalid="ignore"):
        above, below = (reward - step) / d, (reward + step) / d
        between = (reward - np.sign(x0) * (weight - problem.cost)) / d
    x: FloatArray = np.fmax(between, np.fmin(np.minimum(x0, 0.0), below))
    x = np.fmax(above, np.fmin(np.maximum(x0, 0.0), x))
    return np.minimum(np.maximum(x, problem.lower), problem.upper)
