"""The same problem for solvers of others: as a standard quadratic programme, and in the words of cvxpy.

Positions alone do not make it quadratic: t [n] ≥ |x − x0| where trading costs, s [m'] ≥ 0 how far a soft row is missed,
w [n] ≥ |x| where a gross limit counts it.
"""

from dataclasses import dataclass
from typing import Any

import clarabel
import cvxpy
import numpy as np
from scipy import sparse

from dea_daemon.allocator.problem import Problem
from dea_daemon.domain.instruments import FloatArray
from tests.allocator.problems import in_units

TOLERANCE = 1e-12


@dataclass(frozen=True)
class Standard:
    """minimise ½ zᵀPz + qᵀz subject to l ≤ Az ≤ u; the first n of z are x. Rows of A that bind nothing are left out."""

    P: Any
    q: FloatArray
    A: Any
    l: FloatArray  # noqa: E741 as in everybody's manual
    u: FloatArray


@dataclass(frozen=True)
class Answer:
    """An oracle's: status as Clarabel has it, x [n], objectives of its primal and dual."""

    status: str
    x: FloatArray
    objective: float
    dual: float


def standard(p: Problem, factored: bool = False) -> Standard:
    """z = x, t, s, w, and if `factored` f = Bᵀx, which leaves P sparse."""
    n = len(p.mu)
    soft, dear, counted = np.isfinite(p.row_price), p.cost > 0.0, p.gross.any(axis=0)
    one, weights = np.eye(n), p.gross[:, counted]
    dear_one, counted_one = one[dear], one[counted]
    t, s, w = (np.eye(int(chosen.sum())) for chosen in (dear, soft, counted))
    low, high = np.full(n, -np.inf), np.full(n, np.inf)
    blocks: list[tuple[dict[str, FloatArray], FloatArray, FloatArray]] = [
        ({"x": one}, p.lower, p.upper),
        ({"x": dear_one, "t": -t}, low[dear], p.x0[dear]),
        ({"x": dear_one, "t": t}, p.x0[dear], high[dear]),
        ({"s": s}, np.zeros(len(s)), np.full(len(s), np.inf)),
        ({"x": p.G[~soft]}, p.g_lower[~soft], p.g_upper[~soft]),
        ({"x": p.G[soft], "s": -s}, np.full(len(s), -np.inf), p.g_upper[soft]),
        ({"x": p.G[soft], "s": s}, p.g_lower[soft], np.full(len(s), np.inf)),
        ({"x": counted_one, "w": -w}, low[counted], np.zeros(len(w))),
        ({"x": counted_one, "w": w}, np.zeros(len(w)), high[counted]),
        ({"w": weights}, np.full(len(weights), -np.inf), p.gross_limit),
    ]
    k = p.B.shape[1] if factored else 0
    blocks.append(({"x": p.B.T[:k], "f": -np.eye(k)}, np.zeros(k), np.zeros(k)))
    sizes = {"x": n, "t": len(t), "s": len(s), "w": len(w), "f": k}
    A = np.vstack([_row(parts, sizes, len(bound)) for parts, bound, _ in blocks])
    l, u = (np.concatenate([block[k] for block in blocks]) for k in (1, 2))  # noqa: E741
    binding = np.isfinite(l) | np.isfinite(u)
    P = np.zeros((A.shape[1],) * 2)
    P[:n, :n] = np.diag(p.d) if factored else p.B @ p.omega @ p.B.T + np.diag(p.d)
    P[len(P) - k :, len(P) - k :] = p.omega[:k, :k]
    q = np.concatenate((-p.mu, p.cost[dear], p.row_price[soft], np.zeros(len(w) + k)))
    return Standard(sparse.csc_matrix(P), q, sparse.csc_matrix(A[binding]), l[binding], u[binding])


def _row(parts: dict[str, FloatArray], sizes: dict[str, int], height: int) -> FloatArray:
    return np.hstack([parts.get(name, np.zeros((height, size))) for name, size in sizes.items()])


def cones(given: Standard) -> tuple[Any, FloatArray, list[Any]]:
    """(A, b, cones) as Clarabel wants them: equalities first, then A z ≤ b."""
    equal = given.l == given.u
    high, low = ~equal & np.isfinite(given.u), ~equal & np.isfinite(given.l)
    A = sparse.vstack([given.A[equal], given.A[high], -given.A[low]], format="csc")
    b = np.concatenate((given.u[equal], given.u[high], -given.l[low]))
    return A, b, [clarabel.ZeroConeT(int(equal.sum())), clarabel.NonnegativeConeT(int(high.sum() + low.sum()))]


def clarabel_solver(given: Standard, tolerance: float = TOLERANCE) -> Any:
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tolerance
    settings.max_iter = 500
    return clarabel.DefaultSolver(sparse.triu(given.P, format="csc"), given.q, *cones(given), settings)


def oracle(problem: Problem) -> Answer:
    """Clarabel at 1e-12, in units where positions and money are of order one."""
    unit, money = natural_units(problem)
    found = clarabel_solver(standard(in_units(problem, 1.0 / unit, 1.0 / money))).solve()
    x = np.asarray(found.x[: len(problem.mu)]) * unit
    return Answer(str(found.status), x, found.obj_val * money, found.obj_val_dual * money)


def terms(p: Problem, x: FloatArray) -> FloatArray:
    """What a book costs, item by item: their sum is the objective.

    Rounding of any method is a share of the sum of their sizes.
    """
    exposure, rows = p.B.T @ x, p.G @ x
    soft = np.isfinite(p.row_price)
    missed = np.maximum(np.maximum(rows - p.g_upper, p.g_lower - rows), 0.0)[soft]
    risk = 0.5 * float(exposure @ p.omega @ exposure)
    return np.concatenate(([risk], 0.5 * p.d * x**2, -p.mu * x, p.cost * np.abs(x - p.x0), p.row_price[soft] * missed))


def beyond(p: Problem, x: FloatArray) -> float:
    """The furthest x is beyond a limit, as a share of the limit and of what is added up to reach it, a position being
    no less than its natural unit."""
    hard = np.isinf(p.row_price)
    each = np.abs(x) + natural_units(p)[0]
    G, size = p.G[hard], np.abs(p.G[hard]) @ each
    gross = p.gross @ np.abs(x)
    pairs = (
        (x - p.upper, p.upper, each),
        (p.lower - x, p.lower, each),
        (G @ x - p.g_upper[hard], p.g_upper[hard], size),
        (p.g_lower[hard] - G @ x, p.g_lower[hard], size),
        (gross - p.gross_limit, p.gross_limit, p.gross @ each),
    )
    over = [(far[far > 0.0], (np.abs(limit) + size)[far > 0.0]) for far, limit, size in pairs]
    return max((float((far / size).max()) for far, size in over if len(far)), default=0.0)


def natural_units(p: Problem) -> tuple[float, float]:
    """Powers of two, so that nothing is rounded: of a position, and of money."""
    seen = np.abs(np.concatenate((p.x0, p.lower, p.upper, p.g_lower, p.g_upper)))
    seen = seen[np.isfinite(seen) & (seen > 0.0)]
    unit = _power(float(np.median(seen))) if len(seen) else 1.0
    return unit, _power(unit * float(np.max(np.abs(p.mu) + p.cost))) if np.any(p.mu) or np.any(p.cost) else unit


def _power(value: float) -> float:
    return float(2.0 ** np.round(np.log2(value)))


def in_cvxpy(p: Problem) -> tuple[Any, Any, Any, Any]:
    """(programme, x, mu, x0): of a disciplined parametrised programme, so the last two may be set anew."""
    x, mu, x0 = (make(len(p.mu)) for make in (cvxpy.Variable, cvxpy.Parameter, cvxpy.Parameter))
    mu.value, x0.value = p.mu, p.x0
    risk = cvxpy.sum_squares(_root(p.omega).T @ p.B.T @ x) if p.B.shape[1] else 0.0
    objective = 0.5 * (risk + cvxpy.sum_squares(cvxpy.multiply(np.sqrt(p.d), x))) - mu @ x + p.cost @ cvxpy.abs(x - x0)
    limits = [x[k] >= p.lower[k] for k in _finite(p.lower)] + [x[k] <= p.upper[k] for k in _finite(p.upper)]
    if np.isfinite(p.lower).all() and np.isfinite(p.upper).all():
        limits = [x >= p.lower, x <= p.upper]
    hard = np.isinf(p.row_price)
    for low, sign in ((p.g_lower, 1.0), (-p.g_upper, -1.0)):
        for chosen in (hard & np.isfinite(low), ~hard & np.isfinite(low)):
            if not chosen.any():
                continue
            short = low[chosen] - (sign * p.G[chosen]) @ x
            if hard[chosen].all():
                limits.append(short <= 0.0)
            else:
                objective = objective + p.row_price[chosen] @ cvxpy.pos(short)
    if len(p.gross):
        limits.append(p.gross @ cvxpy.abs(x) <= p.gross_limit)
    return cvxpy.Problem(cvxpy.Minimize(objective), limits), x, mu, x0


def _finite(bounds: FloatArray) -> Any:
    return np.flatnonzero(np.isfinite(bounds))


def _root(omega: FloatArray) -> FloatArray:
    """R with R Rᵀ = omega."""
    values, vectors = np.linalg.eigh(omega)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
