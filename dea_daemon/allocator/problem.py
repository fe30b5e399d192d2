"""The problem: the cheapest book within all limits, as numbers.

minimise ½ xᵀ B Ω Bᵀ x + ½ xᵀ diag(d) x − μᵀx + cᵀ|x − x0|  over x [n], subject to
lower ≤ x ≤ upper,  g_lower ≤ G x ≤ g_upper (or, of a row with a price p < ∞, − p · distance in the objective instead),
and gross |x| ≤ gross_limit.
"""

from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from dea_daemon.domain.errors import ProblemError
from dea_daemon.domain.instruments import FloatArray


@dataclass(frozen=True, slots=True)
class Problem:
    """mu, d, cost, x0, lower, upper [n]; B [n, k], omega [k, k] PSD; G [m, n], g_lower, g_upper, row_price [m];
    gross [q, n] ≥ 0, gross_limit [q]. Bounds may be infinite; cost, d ≥ 0. row_price is what a unit outside a row
    costs, infinite where the row is hard."""

    mu: FloatArray
    B: FloatArray
    omega: FloatArray
    d: FloatArray
    cost: FloatArray
    x0: FloatArray
    lower: FloatArray
    upper: FloatArray
    G: FloatArray
    g_lower: FloatArray
    g_upper: FloatArray
    row_price: FloatArray
    gross: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    gross_limit: FloatArray = field(default_factory=lambda: np.zeros(0))

    def validated(self) -> "Problem":
        """Itself; ProblemError where shapes disagree, a number is NaN, bounds leave nothing between them, or a
        position that nothing limits earns more than it costs."""
        _refuse_shapes(self)
        _refuse_numbers(self)
        _refuse_endless(self)
        return self


@dataclass(frozen=True, slots=True)
class Multipliers:
    """A solver's dual variables, for the next start: u [k], the exposures Bᵀx that risk is priced at; what a unit of
    each row is worth, y [m], positive at g_upper, negative at g_lower; of each gross limit, nu [q] ≥ 0."""

    u: FloatArray
    y: FloatArray
    nu: FloatArray


@dataclass(frozen=True, slots=True)
class Solution:
    """x [n] and its certificate: `objective` at x; `gap` ≥ 0, how much better any x within the limits could be;
    `violation`, the furthest x is beyond a limit, as a share of max(1, |limit|); `iterations` of the inner method.

    status: "optimal" (gap and violation within tolerance), "feasible" (violation within tolerance, gap not),
    "widened" (optimal, but some rows could not be met and were widened to include x0: `widened` [m + q] says which),
    "failed" (nothing to be relied upon: x is x0).
    """

    status: str
    x: FloatArray
    objective: float
    gap: float
    violation: float
    iterations: int
    multipliers: Multipliers
    widened: tuple[int, ...] = ()


def _refuse_shapes(problem: Problem) -> None:
    n, k, m, q = len(problem.mu), len(problem.omega), len(problem.g_lower), len(problem.gross_limit)
    by_shape = {
        (n,): ("mu", "d", "cost", "x0", "lower", "upper"),
        (n, k): ("B",),
        (k, k): ("omega",),
        (m, n): ("G",) if m else (),
        (m,): ("g_lower", "g_upper", "row_price"),
        (q, n): ("gross",) if q else (),
        (q,): ("gross_limit",),
    }
    for shape, names in by_shape.items():
        for name in names:
            if (found := getattr(problem, name).shape) != shape:
                raise ProblemError(f"{name} has shape {found}, not {shape}")


def _refuse_numbers(problem: Problem) -> None:
    """Every comparison is one that NaN fails; one number that is not finite makes a sum that is not."""
    for name in ("mu", "B", "omega", "d", "cost", "x0", "G", "gross"):
        if not isfinite(np.add.reduce(getattr(problem, name), axis=None)):
            raise ProblemError(f"{name} has a number that is not finite")
    for name in ("d", "cost", "row_price", "gross"):
        if not np.minimum.reduce(getattr(problem, name), axis=None, initial=0.0) >= 0.0:
            raise ProblemError(f"{name} has a number that is not ≥ 0")
    for low, high in (("lower", "upper"), ("g_lower", "g_upper")):
        under, over = getattr(problem, low), getattr(problem, high)
        if not ((under <= over) & (under < np.inf) & (over > -np.inf)).all():
            raise ProblemError(f"{low} and {high} leave nothing between them")
    if not (problem.gross_limit > -np.inf).all():
        raise ProblemError("gross_limit has a number that is no limit")


def _refuse_endless(problem: Problem) -> None:
    earns = (problem.d == 0.0) & (np.abs(problem.mu) > problem.cost)
    if not earns.any():
        return
    endless = earns & (np.where(problem.mu > 0.0, problem.upper, -problem.lower) == np.inf)
    for weights in (problem.B.T, problem.G, problem.gross):
        if weights.size:
            endless &= ~weights.any(axis=0)
    if endless.any():
        raise ProblemError("the problem has no lower end: return beyond cost, without risk or limit")
