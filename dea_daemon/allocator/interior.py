"""The interior point method: slower than the solver's Newton method, and at a loss at less.

With f = Fx, FᵀF = BΩBᵀ, and a variable for what each kink costs (t ≥ |x − x0|, w ≥ |x|, a soft row's distance s ≥ 0),
the problem is a quadratic programme: minimise ½ vᵀPv + qᵀv with Av + slack = b, slack 0 or ≥ 0. Its homogeneous
embedding always has a solution: one with τ > 0 is the answer, one with τ = 0 the proof that the limits cannot be met or
that nothing bounds the return. Predictor and corrector share one sparse factorisation a step.

Sources: Mehrotra 1992; Goulart & Chen 2024 (the embedding).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from dea_daemon.allocator.polish import Answer, Units, polish
from dea_daemon.allocator.problem import Problem
from dea_daemon.allocator.scaled import TINY, Root
from dea_daemon.domain.errors import ProblemError
from dea_daemon.domain.instruments import BoolArray, FloatArray

STEPS, PATIENCE, PATIENCE_NEAR = 150, 40, 4
EXACT, NEAR = 1e-14, 1e-9  # of the programme's residuals, beside the terms they are sums of
PROVEN = 1e-9  # of a ray, beside the terms it is a sum of
SHIFT = 1e-10  # keeps the linear equations solvable; refinement takes it back
REFINEMENTS = 4
SHORT = 0.3  # a step
FAR = 1e6  # where an open box ends in a proof, beside all that is seen


@dataclass(frozen=True, slots=True)
class Found:
    """The answer, uncertified; or which limits [m + q] it proves cannot be met together, of those that the book held
    is beyond."""

    answer: Answer
    unmet: BoolArray


def rescue(problem: Problem, near: Answer | None, right: Callable[[Answer], bool]) -> BoolArray:
    """What another method left undone, from its best answer `near`, until an answer is `right`: which limits [m + q]
    cannot be met, none where they can or nobody knows. ProblemError where the return has no upper end."""
    none = np.zeros(len(problem.row_price) + len(problem.gross_limit), bool)
    if near is not None and any(map(right, polish(problem, near))):
        return none
    found = interior(problem)
    if not found.unmet.any() and not right(found.answer):
        any(map(right, polish(problem, found.answer)))
    return found.unmet


def interior(problem: Problem) -> Found:
    """The problem's answer, by the embedding. ProblemError where its return has no upper end."""
    with np.errstate(all="ignore"):
        units = Units(problem)
        programme = _Programme(units.small)
        try:
            end = _Embedding(programme).run()
        except RuntimeError:  # not even its first equations can be solved in float64
            end = _End(np.zeros(len(programme.q)), np.zeros(len(programme.b)), np.inf)
        if end.endless and programme.endless(end.v):
            raise ProblemError("the problem has no lower end: return beyond cost, without risk or limit")
        x, y, nu = programme.read(end.v, end.z)
        unmet = np.zeros(len(y) + len(nu), bool)
        if end.unmet:
            unmet = _unmet(units.small, y, nu)
        return Found(units.answer(x, y, nu), unmet)


def _unmet(problem: Problem, y: FloatArray, nu: FloatArray) -> BoolArray:
    """Which limits [m + q] the prices prove impossible together and x0, cut to its box, is beyond: over the whole box
    y · Gx + ν · gross |x| is more than the limits allow."""
    y = np.where(problem.row_price < np.inf, 0.0, y)
    side = np.where(y > 0.0, problem.g_upper, np.where(y < 0.0, problem.g_lower, 0.0))
    size = np.abs(y) * (np.abs(problem.G).sum(axis=1) + np.abs(side))
    size_nu = nu * (problem.gross.sum(axis=1) + np.abs(problem.gross_limit))
    little = 1e-7 * max(float(size.max(initial=TINY)), float(size_nu.max(initial=TINY)))
    y, nu = np.where(size > little, y, 0.0), np.where(size_nu > little, nu, 0.0)
    slope, weights = y @ problem.G, nu @ problem.gross
    seen = np.abs(np.concatenate((problem.x0, problem.lower, problem.upper, problem.g_lower, problem.g_upper)))
    far = FAR * float(seen[seen < np.inf].max(initial=1.0))
    low = np.where(problem.lower > -np.inf, problem.lower, -far)
    high = np.where(problem.upper < np.inf, problem.upper, far)
    least = np.minimum(slope * low + weights * np.abs(low), slope * high + weights * np.abs(high))
    least = np.where((low <= 0.0) & (high >= 0.0), np.minimum(least, 0.0), least)
    allowed = np.concatenate(((y * side)[y != 0.0], (nu * problem.gross_limit)[nu > 0.0]))
    if not float(least.sum() - allowed.sum()) > PROVEN * float(np.abs(least).sum() + np.abs(allowed).sum()):
        return np.zeros(len(y) + len(nu), bool)
    held = np.minimum(np.maximum(problem.x0, problem.lower), problem.upper)
    rows, gross = problem.G @ held, problem.gross @ np.abs(held)
    beyond: BoolArray = np.concatenate(
        ((rows > problem.g_upper) | (rows < problem.g_lower), gross > problem.gross_limit)
    )
    beyond &= np.concatenate((y, nu)) != 0.0
    return beyond


# --- the quadratic programme ---------------------------------------------------------------------------------------


class _Programme:
    """P, q, A, b of v = (x, f, t, w, s), equalities first, each row and column brought to one size: `stretch` of the
    columns, `lift` of the rows, powers of two."""

    def __init__(self, problem: Problem) -> None:
        p = self.problem = problem
        n, F = len(p.mu), Root(p).F
        soft, dear, counted = p.row_price < np.inf, p.cost > 0.0, p.gross.any(axis=0)
        sizes = (n, len(F), int(dear.sum()), int(counted.sum()), int(soft.sum()))
        self.n, self.at = n, np.concatenate(([0], np.cumsum(sizes)))
        one, zero = sparse.identity(n, format="csr"), np.zeros(n)
        f, t, w, s = (-sparse.identity(size, format="csr") for size in sizes[1:])
        rows = [  # (columns of x, f, t, w, s), lower, upper, row of the problem's multipliers
            (one, None, None, None, None, p.lower, p.upper),
            (F, f, None, None, None, np.zeros(len(F)), np.zeros(len(F))),
            (one[dear], None, t, None, None, None, p.x0[dear]),
            (-one[dear], None, t, None, None, None, -p.x0[dear]),
            (one[counted], None, None, w, None, None, zero[counted]),
            (-one[counted], None, None, w, None, None, zero[counted]),
            (None, None, None, None, s, None, np.zeros(sizes[4])),
            (p.G[~soft], None, None, None, None, p.g_lower[~soft], p.g_upper[~soft]),
            (p.G[soft], None, None, None, s, None, p.g_upper[soft]),
            (-p.G[soft], None, None, None, s, None, -p.g_lower[soft]),
            (None, None, None, p.gross[:, counted], None, None, p.gross_limit),
        ]
        self._lay(rows, sizes)
        curvature = np.concatenate((p.d, np.ones(len(F)), np.zeros(sum(sizes[2:]))))
        self.P = curvature
        self.q = np.concatenate((-p.mu, np.zeros(len(F)), p.cost[dear], np.zeros(sizes[3]), p.row_price[soft]))
        self._equilibrate()

    def _lay(self, blocks: list[Any], sizes: tuple[int, ...]) -> None:
        """Rows with both sides finite and equal are equalities; else each finite side is a row. `origin`: the block
        and row it is of, `sign`: which side."""
        stacks, bounds, keys, signs, equal = [], [], [], [], []
        for key, (*columns, low, high) in enumerate(blocks):
            block = sparse.hstack(
                [
                    sparse.csr_matrix((len(high), size)) if c is None else sparse.csr_matrix(c)
                    for c, size in zip(columns, sizes, strict=True)
                ],
                format="csr",
            )
            low = np.full(len(high), -np.inf) if low is None else low
            same = low == high
            for chosen, sign, bound in ((high < np.inf, 1.0, high), ((low > -np.inf) & ~same, -1.0, -low)):
                stacks.append(sign * block[chosen])
                bounds.append(bound[chosen])
                keys.append(np.stack((np.full(int(chosen.sum()), key), np.flatnonzero(chosen)), axis=1))
                signs.append(np.full(int(chosen.sum()), sign))
                equal.append(same[chosen])
        same = np.concatenate(equal)
        order = np.argsort(~same, kind="stable")
        self.A = sparse.vstack(stacks, format="csr")[order]
        self.b, self.origin = np.concatenate(bounds)[order], np.concatenate(keys)[order]
        self.sign, self.equalities = np.concatenate(signs)[order], int(same.sum())

    def _equilibrate(self) -> None:
        m, n = self.A.shape
        self.stretch, self.lift = np.ones(n), np.ones(m)
        size = abs(self.A)
        for _ in range(10):
            now = sparse.diags(self.lift) @ size @ sparse.diags(self.stretch)
            rows = now.max(axis=1).toarray().ravel() if m else np.zeros(0)
            columns = np.maximum(self.P * self.stretch**2, now.max(axis=0).toarray().ravel() if m else 0.0)
            self.lift /= np.sqrt(np.where(rows > 0.0, rows, 1.0))
            self.stretch /= np.sqrt(np.where(columns > 0.0, columns, 1.0))
        self.lift, self.stretch = (2.0 ** np.round(np.log2(each)) for each in (self.lift, self.stretch))
        self.A = (sparse.diags(self.lift) @ self.A @ sparse.diags(self.stretch)).tocsr()
        self.At = self.A.T.tocsr()
        self.P, self.q, self.b = self.P * self.stretch**2, self.q * self.stretch, self.b * self.lift

    def read(self, v: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The book, and the rows' and gross limits' prices."""
        problem, z = self.problem, z * self.lift * self.sign
        y, soft = np.zeros(len(problem.row_price)), np.flatnonzero(problem.row_price < np.inf)
        hard = np.flatnonzero(problem.row_price == np.inf)
        for key, rows, sign in ((7, hard, 1.0), (8, soft, 1.0), (9, soft, -1.0)):
            chosen = self.origin[:, 0] == key
            np.add.at(y, rows[self.origin[chosen, 1]], sign * z[chosen])
        y = np.minimum(np.maximum(y, -problem.row_price), problem.row_price)
        y[((y > 0.0) & (problem.g_upper == np.inf)) | ((y < 0.0) & (problem.g_lower == -np.inf))] = 0.0
        nu, chosen = np.zeros(len(problem.gross_limit)), self.origin[:, 0] == 10
        nu[self.origin[chosen, 1]] = np.maximum(z[chosen], 0.0)
        return (v * self.stretch)[: self.n], y, nu

    def endless(self, v: FloatArray) -> bool:
        """Whether the way v earns for ever: no curvature, however little, and no limit ahead."""
        v = np.where(np.abs(v) > 1e-7 * np.abs(v).max(initial=0.0), v, 0.0)
        size = float(np.abs(v).max(initial=TINY))
        rows = self.A @ v
        rows[self.equalities :] = np.maximum(rows[self.equalities :], 0.0)
        met = float(np.abs(rows).max(initial=0.0)) <= 1e-7 * size
        earned = -float(self.q @ v)
        return met and not (self.P[v != 0.0] > 0.0).any() and earned > 1e-6 * size * float(np.abs(self.q).max())


# --- its homogeneous embedding -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _End:
    """v and z are the answer; of which, `unmet`: z proves that no v is, `endless`: v proves that no z is."""

    v: FloatArray
    z: FloatArray
    error: float
    unmet: bool = False
    endless: bool = False


class _Embedding:
    """A point (v, z, slack, τ, κ) on its way; the slack of the equalities is zero and not moved."""

    def __init__(self, programme: _Programme) -> None:
        g = self.g = programme
        m, n = g.A.shape
        self.free, self.n = slice(g.equalities, m), n
        corner = sparse.diags(np.concatenate((g.P + 1.0, -np.ones(m))))
        self.K = (corner + sparse.bmat([[None, g.At], [g.A, None]] if m else [[sparse.csr_matrix((n, n))]])).tocsc()
        column = np.repeat(np.arange(n + m), np.diff(self.K.indptr))
        self.corner = np.flatnonzero(self.K.indices == column)
        self.tau, self.kappa = 1.0, 1.0
        self.factorise(np.concatenate((np.zeros(g.equalities), np.ones(m - g.equalities))))
        self.v, self.z = self.solve(-g.q, g.b)
        self.slack = np.zeros(m)
        self.slack[self.free] = _positive(-self.z[self.free])
        self.z[self.free] = _positive(self.z[self.free])

    def factorise(self, ratio: FloatArray) -> None:
        """K = [[P, Aᵀ], [A, −ratio]], a little shifted."""
        self.diagonal = np.concatenate((self.g.P, -ratio))
        shift = np.concatenate((np.full(self.n, SHIFT), np.full(len(ratio), -SHIFT)))
        self.K.data[self.corner] = self.diagonal + shift
        self.factor = splu(self.K, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=1e-3)

    def solve(self, first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
        """K without its shift, by refinement."""
        wanted, n = np.concatenate((first, second)), self.n
        found, least = np.zeros_like(wanted), np.inf
        left, trial = wanted, found
        for _ in range(REFINEMENTS + 1):
            trial = trial + self.factor.solve(left)
            left = wanted - self.diagonal * trial
            left[:n] -= self.g.At @ trial[n:]
            left[n:] -= self.g.A @ trial[:n]
            error = float(np.abs(left).max(initial=0.0))
            if not error < least:
                break
            found, least = trial, error
        return found[:n], found[n:]

    def run(self) -> _End:
        """Until exact, or proven to be impossible, or no better for a while."""
        best, since = self.end(), 0
        for _ in range(STEPS):
            patience = PATIENCE_NEAR if best.error <= NEAR else PATIENCE
            if best.unmet or best.endless or best.error <= EXACT or since >= patience:
                break
            try:
                self.step()
            except RuntimeError:  # singular in float64
                break
            now = self.end()
            if not np.isfinite(now.error):
                break
            since = since + 1 if now.error > 0.9 * best.error else 0
            if now.unmet or now.endless or now.error <= best.error:
                best = now
        return best

    def residuals(self) -> tuple[FloatArray, FloatArray, float]:
        g, v, z, tau = self.g, self.v, self.z, self.tau
        self.curved = float(v @ (g.P * v))
        self.earned, self.held = float(g.q @ v), float(g.b @ z)
        dual = g.P * v + g.At @ z + g.q * tau
        primal = g.A @ v + self.slack - g.b * tau
        return dual, primal, self.kappa + self.curved / tau + self.earned + self.held

    def end(self) -> _End:
        """This point as an end: how far it is from an answer, and what it proves."""
        g, tau = self.g, self.tau
        dual, primal, _ = self.residuals()
        v, z = self.v / tau, self.z / tau
        one = 1.0 + float(np.abs(v).max(initial=0.0))
        other = 1.0 + float(np.abs(z).max(initial=0.0))
        curved, earned, held = self.curved / tau**2, self.earned / tau, self.held / tau
        gap = abs(curved + earned + held) / (1.0 + abs(earned) + abs(held) + curved)
        error = max(
            float(np.abs(dual).max(initial=0.0)) / tau / other, float(np.abs(primal).max(initial=0.0)) / tau / one
        )
        away = float(np.abs(g.At @ self.z).max(initial=0.0))
        unmet = self.held < 0.0 and away <= PROVEN * min(-self.held, float(np.abs(self.z).max(initial=TINY)))
        apart = max(
            float(np.abs(g.A @ self.v + self.slack).max(initial=0.0)), float((g.P * np.abs(self.v)).max(initial=0.0))
        )
        endless = self.earned < 0.0 and apart <= PROVEN * min(-self.earned, float(np.abs(self.v).max(initial=TINY)))
        if unmet or endless:
            v, z = self.v, self.z
        return _End(v, z, max(error, gap), unmet, endless)

    def step(self) -> None:
        """Mehrotra's: the predictor tells how much to centre, the corrector also mends what it bends."""
        g, free = self.g, self.free
        residuals, slack, z = self.residuals(), self.slack[free], self.z[free]
        ratio = np.zeros_like(self.z)
        ratio[free] = slack / z
        self.factorise(ratio)
        constant = self.solve(-g.q, g.b)
        middle = (float(slack @ z) + self.tau * self.kappa) / (len(z) + 1)
        products, last = slack * z, self.tau * self.kappa
        ahead = self.direction(constant, residuals, 1.0, products, last)
        centre = (1.0 - min(self.room(ahead), 1.0)) ** 3
        bend, bend_last = ahead[2][free] * ahead[1][free] - centre * middle, ahead[3] * ahead[4] - centre * middle
        found = self.direction(constant, residuals, 1.0 - centre, products + bend, last + bend_last)
        t = min(1.0, 0.995 * self.room(found))
        left = float((slack + t * found[2][free]) @ (z + t * found[1][free]))
        if t < SHORT or left > 0.9 * float(slack @ z) + last:  # too bent to be mended: back to the middle first
            found = self.direction(constant, residuals, 0.2, products - 0.8 * middle, last - 0.8 * middle)
            t = min(1.0, 0.995 * self.room(found))
        self.v, self.z, self.slack = self.v + t * found[0], self.z + t * found[1], self.slack + t * found[2]
        self.tau, self.kappa = self.tau + t * found[3], self.kappa + t * found[4]
        size = max(self.tau, self.kappa, 1e-300)
        self.v, self.z, self.slack = self.v / size, self.z / size, self.slack / size
        self.tau, self.kappa = self.tau / size, self.kappa / size

    def direction(
        self, constant: tuple[FloatArray, FloatArray], residuals: Any, share: float, products: FloatArray, last: float
    ) -> tuple[FloatArray, FloatArray, FloatArray, float, float]:
        """Newton's step that takes `share` of the residuals and all of the products slack · z, τκ away."""
        g, free, tau = self.g, self.free, self.tau
        dual, primal, rest = residuals
        wanted = -share * primal
        wanted[free] += products / self.z[free]
        v, z = self.solve(-share * dual, wanted)
        there = self.v / tau
        slope = g.q + 2.0 * g.P * there
        steep = float(slope @ constant[0] + g.b @ constant[1]) - float(there @ (g.P * there)) - self.kappa / tau
        dtau = (-share * rest + last / tau - float(slope @ v + g.b @ z)) / steep
        v, z = v + dtau * constant[0], z + dtau * constant[1]
        slack = np.zeros_like(z)
        slack[free] = -(products + self.slack[free] * z[free]) / self.z[free]
        return v, z, slack, dtau, (-last - self.kappa * dtau) / tau

    def room(self, found: tuple[FloatArray, FloatArray, FloatArray, float, float]) -> float:
        """How far one can go until a product is zero."""
        now = np.concatenate((self.z[self.free], self.slack[self.free], (self.tau, self.kappa)))
        move = np.concatenate((found[1][self.free], found[2][self.free], found[3:]))
        return float((now / np.maximum(-move, TINY)).min())


def _positive(guess: FloatArray) -> FloatArray:
    """Mehrotra's start: shifted to be so."""
    least = float(guess.min(initial=np.inf))
    return guess if least > 1e-3 else guess + (1.0 - least)
