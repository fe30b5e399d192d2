"""The problem: the cheapest book within all limits, as numbers.

minimise ½ xᵀ B Ω Bᵀ x + ½ xᵀ diag(d) x − μᵀx + cᵀ|x − x0|  over x [n], subject to
lower ≤ x ≤ upper,  g_lower ≤ G x ≤ g_upper (or, of a row with a price p < ∞, − p · distance in the objective instead),
and gross |x| ≤ gross_limit.
"""

from dataclasses import dataclass, field

import numpy as np

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


@dataclass(frozen=True, slots=True)
class Multipliers:
    """A solver's dual variables, for the next start: factors u [k], rows y [m], gross ν [q] ≥ 0."""

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
