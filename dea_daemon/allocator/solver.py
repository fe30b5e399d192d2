"""The solver: dual projected semismooth Newton within a proximal loop.

With FᵀF = BΩBᵀ and Lagrange multipliers λ = (u, y, ν) of z = Fx, of the rows and of the gross limits, the least
Lagrangian over the box is a closed form, coordinate by coordinate, with kinks at x0 and at 0:

    D(λ) = min over the box of ½ d x² − (μ − Fᵀu − Gᵀy) x + c |x − x0| + (grossᵀν) |x|,  − ½‖u‖² − σ(y) − νᵀ limit

D is concave with a gradient (Fx − u, Gx − side, gross |x| − limit) that is piecewise linear in λ, so Newton's method
ends in a few steps: H = A_free diag(1/d) A_freeᵀ + diag(1, ε) over the coordinates off kink and bound. Here λ is
bounded: y by the row's price, and by 0 on the side of a limit it is not at; ν by 0.

The proximal loop adds ½ ρ (x − x̄)² to f where d is tiny beside its scale, and −½ ε ‖(y, ν) − (ȳ, ν̄)‖² to D, and moves
the centres to the last answer until nothing moves: x and λ stay well defined with parallel rows and without d, and
where the limits cannot all be met y − ȳ tends to the proof of it. One number, the firmness, sets both ρ and ε: less
of it is fewer rounds of the loop, more of it easier ones. Sources: Rockafellar 1976, Bertsekas 1982 (projected
Newton), Banjac et al. 2019 (proofs of infeasibility).
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg.lapack import dposv

from dea_daemon.allocator.certificate import dual_value, objective, violation
from dea_daemon.allocator.interior import rescue
from dea_daemon.allocator.problem import Multipliers, Problem, Solution
from dea_daemon.allocator.scaled import TINY, Scaled
from dea_daemon.domain.instruments import BoolArray, FloatArray

FIRM_COLD, FIRM_WARM, FIRM_LEAST, FIRM_AFTER_TROUBLE = 1.0, 1e-8, 1e-8, 1e-2
PATIENCE = 30  # Newton steps in one round of the proximal loop before it is made firmer
INNER = 0.1  # of the tolerance: how far a round goes at first
HALVINGS = 40


def solve(problem: Problem, start: Multipliers | None = None, *, tolerance: float = 1e-9, most: int = 200) -> Solution:
    """The cheapest book, in about `most` Newton steps at most; `start`: the last tick's multipliers. Where limits
    cannot be met together those the book held breaks are widened, as `widen` does; the certificate is for what is left.
    `tolerance`: gap by the size of the objective's terms; ten times it: violation. ProblemError: see Problem."""
    problem.validated()
    widened = np.zeros(len(problem.g_lower) + len(problem.gross_limit), bool)
    used = 0
    with np.errstate(all="ignore"):  # what overflows ends as "failed"
        while True:
            search = _Search(problem, start, tolerance, most - used)
            unmet = search.run()
            used += search.steps
            if not unmet.any() and not search.done():
                best = search.best
                unmet = rescue(problem, None if best is None else (best.x, best.multipliers), search.tried) & ~widened
            if not unmet.any():
                return search.solution(used, widened)
            problem, widened = widen(problem, unmet), widened | unmet


def widen(problem: Problem, rows: BoolArray) -> Problem:
    """The problem with the limits `rows` [m + q] wide enough for x0 cut to its box: never worsen a breach."""
    m = len(problem.g_lower)
    exposure, gross = _held(problem)
    return replace(
        problem,
        g_lower=np.where(rows[:m], np.minimum(problem.g_lower, exposure), problem.g_lower),
        g_upper=np.where(rows[:m], np.maximum(problem.g_upper, exposure), problem.g_upper),
        gross_limit=np.where(rows[m:], np.maximum(problem.gross_limit, gross), problem.gross_limit),
    )


def _held(problem: Problem) -> tuple[FloatArray, FloatArray]:
    """What x0, cut to its box, comes to: rows [m], gross [q]."""
    held = np.minimum(np.maximum(problem.x0, problem.lower), problem.upper)
    exposure = problem.G @ held if len(problem.g_lower) else np.zeros(0)
    gross = problem.gross @ np.abs(held) if len(problem.gross_limit) else np.zeros(0)
    return exposure, gross


@dataclass(slots=True)
class _Point:
    """λ [p] and what follows from it: x [n], z [p] = (Fx, Gx, gross |x|), D's gradient [p], how far y and ν may go
    before the gradient changes its form, [m + q], the value of D."""

    dual: FloatArray
    x: FloatArray
    z: FloatArray
    gradient: FloatArray
    low: FloatArray
    high: FloatArray
    value: float


@dataclass(slots=True)
class _Best:
    x: FloatArray
    multipliers: Multipliers
    cost: float
    gap: float
    beyond: float
    size: float  # of the terms that the cost and its bound are sums of
    own: float  # of the cost's alone


class _Search:
    """One problem's search: the scaled arrays, the proximal centres, the best certified answer."""

    def __init__(self, problem: Problem, start: Multipliers | None, tolerance: float, most: int) -> None:
        self.problem, self.tolerance, self.most, self.steps = problem, tolerance, most, 0
        self.firm, self.inner = FIRM_COLD if start is None else FIRM_WARM, INNER * tolerance
        self.scaled = Scaled(problem, self.firm)
        self.k, self.split = self.scaled.k, self.scaled.k + len(problem.g_lower)
        self.centre = self.scaled.dual(start)
        self.x_centre = np.minimum(np.maximum(problem.x0, problem.lower), problem.upper)
        self.best: _Best | None = None

    def run(self) -> BoolArray:
        """The proximal loop. Which limits [m + q] cannot be met; none where `best` is the answer."""
        none = np.zeros(len(self.scaled.up), bool)
        dual = self.centre
        while True:
            self.soften()
            before = self.steps
            point, settled = self.newton(dual)
            dual = point.dual
            if not settled and self.steps < self.most:
                self.firm = min(max(10.0 * self.firm, FIRM_AFTER_TROUBLE), 1.0)
                continue
            if self.drift(point) <= self.tolerance * self.reach(point):
                if self.certified(point):
                    return none
            elif (unmet := self.unmet(point)).any():
                return unmet
            if self.steps >= self.most:
                self.certified(point)
                return none
            self.recentre(point, self.steps - before)

    def recentre(self, point: _Point, used: int) -> None:
        """Less firm the easier the last round was; where it had nothing to do, more exact."""
        self.centre, self.x_centre = point.dual, point.x
        self.firm = max(self.firm * (0.1 if used <= 1 else 0.3 if used <= 6 else 1.0), FIRM_LEAST)
        if used == 0:
            self.steps += 1
            self.inner *= 0.01

    def soften(self) -> None:
        """D's quadratic terms at this firmness and these centres."""
        rho = np.maximum(self.firm * self.scaled.stiffness - self.problem.d, 0.0)
        self.d = self.problem.d + rho
        self.inverse = 1.0 / self.d
        self.reward = self.problem.mu + rho * self.x_centre

    def drift(self, point: _Point) -> float:
        """How far the rows of the problem itself are from the proximal one's."""
        return self.firm * float(np.abs(point.dual[self.k :] - self.centre[self.k :]).max(initial=0.0))

    def reach(self, point: _Point) -> float:
        """What an error is small beside."""
        return max(float(np.abs(point.z).max(initial=TINY)), float(np.abs(point.dual[: self.k]).max(initial=TINY)))

    def newton(self, dual: FloatArray) -> tuple[_Point, bool]:
        """The greatest D of this round, from `dual` on, and whether it is that: as exact as the round is worth, or as
        rounding lets it be."""
        point = self.evaluate(dual)
        last, least, stalled = min(self.most, self.steps + PATIENCE), np.inf, 0
        while True:
            worst, reach = float(np.abs(point.gradient).max(initial=0.0)), self.reach(point)
            if worst <= max(self.inner * reach, 0.01 * self.drift(point)):
                return point, True
            stalled = stalled + 1 if worst > 0.5 * least else 0
            least = min(least, worst)
            if stalled >= 2 and worst <= 1e-6 * reach:
                return point, True
            if self.steps >= last:
                return point, worst <= 1e-7 * reach
            self.steps += 1
            better = self.step(point)
            if better is None:
                return point, True
            point = better

    def evaluate(self, dual: FloatArray) -> _Point:
        """x, the gradient and the value at λ."""
        problem, scaled, split = self.problem, self.scaled, self.split
        smooth, cost = scaled.A[:split], problem.cost
        reward, z = self.reward - dual[:split] @ smooth, np.empty_like(dual)
        if split == len(dual):
            x = np.maximum((reward - cost) * self.inverse, np.minimum(problem.x0, (reward + cost) * self.inverse))
            x = np.minimum(np.maximum(x, problem.lower), problem.upper)
            value = 0.0
        else:
            weight = dual[split:] @ scaled.A[split:]
            step, turn = cost + weight, scaled.side * (weight - cost)
            x = np.maximum((reward - turn) * self.inverse, np.minimum(scaled.kinks[0], (reward + step) * self.inverse))
            x = np.maximum((reward - step) * self.inverse, np.minimum(scaled.kinks[1], x))
            x = np.minimum(np.maximum(x, problem.lower), problem.upper)
            z[split:] = scaled.A[split:] @ (gross := np.abs(x))
            value = float(weight @ gross)
        z[:split] = smooth @ x
        value += float(x @ (0.5 * self.d * x - reward) + cost @ np.abs(x - problem.x0))
        return self.priced(dual, x, z, value)

    def priced(self, dual: FloatArray, x: FloatArray, z: FloatArray, value: float) -> _Point:
        """A row's slope at y = 0 is that of the side it is beyond, and nothing within; from there y may only grow on
        that side."""
        scaled, k = self.scaled, self.k
        u, y = dual[:k], dual[k:]
        gradient = np.empty_like(dual)
        np.subtract(z[:k], u, out=gradient[:k])
        moved = y - self.centre[k:]
        inner = z[k:] - self.firm * moved
        over, under = inner - scaled.up, inner - scaled.down
        above, below = y > 0.0, y < 0.0
        value -= 0.5 * float(u @ u) + 0.5 * self.firm * float(moved @ moved)
        value -= float(y[above] @ scaled.up[above]) + float(y[below] @ scaled.down[below])
        at_zero = y == 0.0
        above |= at_zero & (over > 0.0)
        below |= at_zero & (under < 0.0)
        slope = np.where(above, over, np.where(below, under, 0.0))
        high = np.where(above | scaled.equal, scaled.most, 0.0)
        low = np.where(below | scaled.equal, scaled.least, 0.0)
        slope[((y >= high) & (slope > 0.0)) | ((y <= low) & (slope < 0.0))] = 0.0
        gradient[k:] = slope
        return _Point(dual, x, z, gradient, low, high, value)

    def step(self, point: _Point) -> _Point | None:
        """Newton's step on the coordinates off every kink and bound, and the rows whose multiplier may move."""
        problem, k, x, gradient = self.problem, self.k, point.x, point.gradient
        free = (x > problem.lower) & (x < problem.upper) & (x != problem.x0)
        if self.split < len(gradient):
            free &= x != 0.0
        index = np.flatnonzero(free)
        rows = self.scaled.At.take(index, axis=0)
        rows *= np.sqrt(self.inverse[index])[:, None]
        if self.split < len(gradient):
            rows[:, self.split :] *= np.sign(x[index])[:, None]
        low, high = np.full_like(gradient, -np.inf), np.full_like(gradient, np.inf)
        np.subtract(point.low, point.dual[k:], out=low[k:])
        np.subtract(point.high, point.dual[k:], out=high[k:])
        live = np.flatnonzero((gradient != 0.0) | ((low < 0.0) & (high > 0.0)))
        rows = rows if len(live) == len(gradient) else rows[:, live]
        H = rows.T @ rows
        diagonal = H.reshape(-1)[:: len(H) + 1]
        diagonal += np.where(live < k, 1.0, self.firm)
        found = _within(H, gradient[live], low[live], high[live])
        if found is None:
            return None
        move = np.zeros_like(gradient)
        move[live] = found
        return self.along(point, move)

    def along(self, point: _Point, move: FloatArray) -> _Point | None:
        """As far along `move` as D rises. D is concave: where its slope is still up nothing else need be asked."""
        k, t, rise = self.k, 1.0, float(point.gradient @ move)
        if not rise > 0.0:
            return None
        slack = 1e-14 * (abs(point.value) + float(point.dual[:k] @ point.dual[:k]))
        for _ in range(HALVINGS):
            dual = point.dual + t * move
            dual[k:] = np.minimum(np.maximum(dual[k:], point.low), point.high)
            trial = self.evaluate(dual)
            slope = float(trial.gradient @ move)
            if slope >= 0.0 or trial.value >= point.value + 1e-4 * t * rise - slack:
                return trial
            t *= min(max(rise / (rise - slope), 0.05), 0.7)
        return None

    def certified(self, point: _Point) -> bool:
        """Whether this is the answer; the best so far is kept."""
        problem, x, multipliers = self.problem, point.x, self.scaled.multipliers(point.dual)
        cost = objective(problem, x)
        gap = cost - dual_value(problem, multipliers)
        gap, beyond = max(gap, 0.0) if gap < np.inf else np.inf, violation(problem, x)
        u, y, used = point.dual[: self.k], point.dual[self.k :], point.dual[self.k :] != 0.0
        side = np.where(y > 0.0, self.scaled.up, self.scaled.down)
        size = float(np.abs(problem.mu) @ np.abs(x) + problem.cost @ np.abs(x - problem.x0) + problem.d @ (x * x))
        own = size + float(u @ u) + abs(cost)
        size += float(u @ u) + float(np.abs(y[used]) @ np.abs(side[used]))
        found = _Best(x, multipliers, cost, gap, beyond, size, own)
        if self.best is None or self.rank(found) <= self.rank(self.best):
            self.best = found
        return self.rank(found) == (0.0, 0.0)

    def done(self) -> bool:
        """Whether the best answer is certified, and as exactly as asked."""
        return self.best is not None and self.rank(self.best) == (0.0, 0.0) and self.excess(self.best) <= 1.0

    def excess(self, found: _Best) -> float:
        """Gap and violation, by the tolerance beside the cost alone and beside positions less than 1."""
        gap = found.gap / (self.tolerance * (found.own + TINY))
        return max(gap, 0.1 * found.beyond / (self.tolerance * min(1.0, float(np.abs(found.x).max(initial=TINY)))))

    def tried(self, answer: tuple[FloatArray, Multipliers]) -> bool:
        """Whether another method's answer is this; no worse one replaces the best."""
        before, (x, multipliers) = self.best, answer
        self.certified(replace(self.evaluate(self.scaled.dual(multipliers)), x=x))
        if before is not None and (now := self.best) is not None and self.rank(now) == self.rank(before):
            self.best = min(before, now, key=self.excess)
        return self.done()

    def rank(self, found: _Best) -> tuple[float, float]:
        """By violation, then by gap, each nothing within its tolerance; NaN is last."""
        beyond = 0.0 if found.beyond <= 10.0 * self.tolerance else found.beyond
        gap = 0.0 if found.gap <= self.tolerance * (found.size + TINY) else found.gap
        return (beyond if beyond < np.inf else np.inf), (gap if gap < np.inf else np.inf)  # noqa: FURB136

    def solution(self, used: int, widened: BoolArray) -> Solution:
        problem, best = self.problem, self.best
        rows = tuple(int(row) for row in np.flatnonzero(widened))
        if best is not None and self.rank(best)[0] == 0.0:
            status = "feasible" if self.rank(best)[1] > 0.0 else "widened" if rows else "optimal"
            return Solution(status, best.x, best.cost, best.gap, best.beyond, used, best.multipliers, rows)
        x, nothing = problem.x0, self.scaled.multipliers(self.scaled.dual(None))
        return Solution("failed", x, objective(problem, x), np.inf, violation(problem, x), used, nothing, rows)

    def unmet(self, point: _Point) -> BoolArray:
        """Which limits [m + q] this round's move of their multipliers proves impossible together and the book held
        is beyond: over the whole box ray · (Gx, gross |x|) is more than the limits allow."""
        scaled, k, m = self.scaled, self.k, self.split - self.k
        ray = np.minimum(np.maximum(point.dual[k:] - self.centre[k:], scaled.least), scaled.most)
        ray[scaled.soft] = 0.0
        ray /= float(np.abs(ray).max(initial=TINY))
        ray[np.abs(ray) < 1e-7] = 0.0
        priced = ray != 0.0
        least = self.least_over_box(ray[:m] @ scaled.A[k : self.split], ray[m:] @ scaled.A[self.split :])
        allowed = ray[priced] * np.where(ray > 0.0, scaled.up, scaled.down)[priced]
        terms = float(np.abs(least).sum() + np.abs(allowed).sum())
        if not float(least.sum() - allowed.sum()) > 1e-9 * terms:
            return np.zeros(len(ray), bool)
        held = np.concatenate(_held(self.problem)) / scaled.scale
        beyond: BoolArray = priced & ((held > scaled.up) | (held < scaled.down))
        return beyond

    def least_over_box(self, slope: FloatArray, weight: FloatArray) -> FloatArray:
        """The least slope x + weight |x| of each coordinate; an open box ends a million times beyond all seen."""
        problem, scaled = self.problem, self.scaled
        rows = np.abs(scaled.A[self.k :]).max(axis=1, initial=0.0)
        ends = (problem.x0, self.x_centre, problem.lower, problem.upper, scaled.up / rows, scaled.down / rows)
        seen = np.abs(np.concatenate(ends))
        far = 1e6 * float(seen[seen < np.inf].max(initial=TINY))
        low = np.where(problem.lower > -np.inf, problem.lower, -far)
        high = np.where(problem.upper < np.inf, problem.upper, far)
        least = np.minimum(slope * low + weight * np.abs(low), slope * high + weight * np.abs(high))
        return np.where((low <= 0.0) & (high >= 0.0), np.minimum(least, 0.0), least)


def _within(H: FloatArray, gradient: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray | None:
    """A move that raises gradient · move − ½ moveᵀ H move within low ≤ 0 ≤ high: Newton's, stopped at each bound it
    meets and begun again without that coordinate. None where H is not positive definite in float64."""
    move = np.zeros_like(gradient)
    live = np.arange(len(gradient))
    block, slope = H, gradient
    while len(live):
        _, step, info = dposv(block, slope)
        if info:
            return None
        now, least, most = move[live], low[live], high[live]
        ahead = now + step
        over, under = ahead > most, ahead < least
        if not (over | under).any():
            move[live] = ahead
            return move
        room = np.where(over, most - now, np.where(under, now - least, np.inf)) / np.maximum(np.abs(step), TINY)
        t = float(room.min())
        move[live] = np.minimum(np.maximum(now + t * step, least), most)
        live = live[room > t]
        block = H[np.ix_(live, live)]
        slope = gradient[live] - H[live] @ move
    return move
