"""The certificate: what a book costs, how far it is beyond its limits, and a bound below which no book can cost.

Weak duality, with the exposures u, the rows' prices y and the gross limits' prices ν of `Multipliers`. For every x in
its box and within its limits, as Ω is PSD, σ(y) = max over z in [g_lower, g_upper] of y z, and |y| ≤ row_price:

    f(x) ≥ uᵀΩBᵀx − ½uᵀΩu + yᵀGx − σ(y) + νᵀ(gross |x| − gross_limit) + Σ ½ d x² − μ x + cost |x − x0|

whose least value over the box alone is a closed form, coordinate by coordinate: D(u, y, ν) ≤ f(x). All is computed
afresh from the problem as given, whatever a solver did inside.
"""

from dataclasses import dataclass
from math import isfinite

import numpy as np

from dea_daemon.allocator.problem import Multipliers, Problem
from dea_daemon.domain.instruments import FloatArray

OF_BOUND = 0.1  # of its terms counts, for their rounding
ROUNDING = 64 * float(np.finfo(np.float64).eps)  # of a sum, as a share of the sum of its terms' sizes


@dataclass(frozen=True, slots=True)
class Certificate:
    """`cost` of a book, `gap` ≥ 0 to the bound its multipliers give (∞ where they give none), its `violation`, and
    `size`: what the terms of its cost are in sum, and for rounding a tenth of what those of the bound are."""

    cost: float
    gap: float
    violation: float
    size: float


class _Book:
    """x [n] and what more than one term is made of: its exposures [k], trades [n], rows [m], and how far those are
    beyond their limits, ≤ 0 within."""

    __slots__ = ("beyond", "exposure", "risk", "rows", "soft", "traded", "x")

    def __init__(self, problem: Problem, x: FloatArray) -> None:
        self.x, self.exposure, self.traded = x, x.dot(problem.B), np.abs(x - problem.x0)
        self.risk = float(self.exposure.dot(problem.omega.dot(self.exposure)))
        if problem.row_price.size:
            self.rows = problem.G.dot(x)
            self.beyond = np.maximum(self.rows - problem.g_upper, problem.g_lower - self.rows)
            self.soft = problem.row_price < np.inf

    def cost(self, problem: Problem) -> float:
        x, outside = self.x, 0.0
        if problem.row_price.size and np.count_nonzero(self.soft):
            outside = float(problem.row_price[self.soft].dot(np.maximum(self.beyond[self.soft], 0.0)))
        smooth = 0.5 * (self.risk + float(x.dot(problem.d * x))) - float(problem.mu.dot(x))
        return smooth + float(problem.cost.dot(self.traded)) + outside

    def violation(self, problem: Problem) -> float:
        x = self.x
        worst = _furthest(np.maximum(x - problem.upper, problem.lower - x), problem.upper, problem.lower, x)
        if problem.row_price.size:
            beyond = np.where(self.soft, 0.0, self.beyond)
            worst = max(worst, _furthest(beyond, problem.g_upper, problem.g_lower, self.rows))
        if problem.gross_limit.size:
            held = problem.gross.dot(np.abs(x))
            worst = max(worst, _furthest(held - problem.gross_limit, problem.gross_limit, problem.gross_limit, held))
        return worst


def objective(problem: Problem, x: FloatArray) -> float:
    """What the book x [n] costs, the prices of the soft rows it leaves included; the limits are not looked at."""
    return _Book(problem, x).cost(problem)


def violation(problem: Problem, x: FloatArray) -> float:
    """The furthest x [n] is beyond its box, a hard row or a gross limit, as a share of max(1, |limit|); 0 if within."""
    return _Book(problem, x).violation(problem)


def certify(problem: Problem, x: FloatArray, multipliers: Multipliers) -> Certificate:
    """All of a book [n] and its multipliers at once."""
    book = _Book(problem, x)
    cost, (bound, terms) = book.cost(problem), _bound(problem, multipliers)
    gap = cost - bound
    size = book.risk + float(problem.cost.dot(book.traded) + problem.d.dot(x * x) + np.abs(problem.mu).dot(np.abs(x)))
    gap = max(gap, 0.0) if gap < np.inf else np.inf
    return Certificate(cost, gap, book.violation(problem), size + OF_BOUND * terms)


def _furthest(beyond: FloatArray, upper: FloatArray, lower: FloatArray, at: FloatArray) -> float:
    """An infinite limit is never passed: −∞ / max(1, ∞) would be NaN, so only what is beyond is divided."""
    if np.count_nonzero(beyond <= 0.0) == len(beyond):
        return 0.0
    over = ~(beyond <= 0.0)
    limit = np.where(at > upper, upper, lower)[over]
    return float((beyond[over] / np.maximum(1.0, np.abs(limit))).max())


def dual_value(problem: Problem, multipliers: Multipliers) -> float:
    """D(u, y, ν): no book within the limits costs less, up to rounding. −∞ where the multipliers bound nothing."""
    return _bound(problem, multipliers)[0]


def _bound(problem: Problem, multipliers: Multipliers) -> tuple[float, float]:
    """D(u, y, ν), and the sum of the sizes of the terms in which x does not occur."""
    y, nu = multipliers.y, multipliers.nu
    if np.count_nonzero(np.abs(y) <= problem.row_price) + np.count_nonzero(nu >= 0.0) < len(y) + len(nu):
        return -np.inf, 0.0
    held, terms = _held(y, problem.g_upper, problem.g_lower)
    if nu.size:
        gross = _held(nu, problem.gross_limit, problem.gross_limit)
        held, terms = held + gross[0], terms + gross[1]
    if not held < np.inf:
        return -np.inf, terms
    priced_exposure = problem.omega.dot(multipliers.u)
    risk = float(multipliers.u.dot(priced_exposure))
    return _least(problem, priced_exposure, y, nu) - 0.5 * risk - held, terms + risk


def _held(price: FloatArray, upper: FloatArray, lower: FloatArray) -> tuple[float, float]:
    """σ of these prices, and the sum of its terms' sizes; 0 of an infinite limit is 0, not NaN."""
    priced = price.nonzero()[0]
    if not len(priced):
        return 0.0, 0.0
    price = price.take(priced)
    worth = price * np.where(price > 0.0, upper.take(priced), lower.take(priced))
    return float(np.add.reduce(worth)), float(np.add.reduce(np.abs(worth)))


def _least(problem: Problem, priced_exposure: FloatArray, y: FloatArray, nu: FloatArray) -> float:
    """The least Σ ½ d x² − reward x + cost |x − x0| + weight |x| over the box; −∞ where nothing bounds it."""
    reward, weight = problem.mu - problem.B.dot(priced_exposure), None
    if y.size:
        reward -= y.dot(problem.G)
    if nu.size:
        weight = nu.dot(problem.gross)
    x = least_point(problem, reward, weight)
    if not isfinite(np.add.reduce(x)):
        terms = np.abs(problem.mu) + np.abs(problem.B) @ np.abs(priced_exposure)
        if y.size:
            terms += np.abs(y) @ np.abs(problem.G)
        bound = problem.cost if weight is None else problem.cost + weight
        reward = _without_rounding(reward, bound, ROUNDING * (terms + bound))
        x = least_point(problem, reward, weight)
    if not np.isfinite(x).all():
        return -np.inf
    least = x.dot(0.5 * problem.d * x - reward) + problem.cost.dot(np.abs(x - problem.x0))
    return float(least if weight is None else least + weight.dot(np.abs(x)))


def _without_rounding(reward: FloatArray, bound: FloatArray, rounding: FloatArray) -> FloatArray:
    """A reward no further than rounding beyond the ± bound at which a position without risk or limit is worth nothing
    more is that bound: the exact multipliers cannot be written in float64."""
    size: FloatArray = np.abs(reward)
    return np.where((size > bound) & (size <= bound + rounding), np.copysign(bound, reward), reward)


def least_point(problem: Problem, reward: FloatArray, weight: FloatArray | None) -> FloatArray:
    """The x [n] in the box of the least ½ d x² − reward x + cost |x − x0| + weight |x|; None is no weight.

    The slope rises with x and jumps at x0 and at 0, so x is where it crosses zero: above both kinks, between them or
    below both. Without d it crosses at a kink or nowhere (±∞, cut by the box); 0 / 0, NaN, is a slope of nothing, and
    fmin, fmax then stay at the kink.
    """
    d, x0, cost = problem.d, problem.x0, problem.cost
    with np.errstate(divide="ignore", invalid="ignore"):
        if weight is None:
            x: FloatArray = np.fmax((reward - cost) / d, np.fmin(x0, (reward + cost) / d))
        else:
            step = cost + weight
            between = (reward - np.sign(x0) * (weight - cost)) / d
            x = np.fmax(between, np.fmin(np.minimum(x0, 0.0), (reward + step) / d))
            x = np.fmax((reward - step) / d, np.fmin(np.maximum(x0, 0.0), x))
    return np.minimum(np.maximum(x, problem.lower), problem.upper)
