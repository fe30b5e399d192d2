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
of it is fewer rounds of the loop, more of it easier ones; near the answer ε alone falls on. Sources: Rockafellar 1976,
Bertsekas 1982 (projected Newton), Banjac et al. 2019 (proofs of infeasibility).
"""

from dataclasses import dataclass, replace
from math import inf, nan, sqrt

import numpy as np
from scipy.linalg.lapack import dposv

from dea_daemon.allocator.certificate import Certificate, certify, objective, violation
from dea_daemon.allocator.interior import rescue
from dea_daemon.allocator.problem import Multipliers, Problem, Solution
from dea_daemon.allocator.scaled import TINY, Scaled
from dea_daemon.domain.instruments import BoolArray, FloatArray

FIRM_COLD, FIRM_WARM, FIRM_LEAST, FIRM_AFTER_TROUBLE = 1.0, 1e-8, 1e-8, 1e-2
PATIENCE = 30  # Newton steps in one round of the proximal loop before it is made firmer
INNER = 0.1  # of the tolerance: how far a round goes at first
HALVINGS = 40
WARM_MOST = 60  # steps from the last tick's multipliers before they are called misleading
HUGE = 1e300
LOOSE_LEAST = 1e-15  # of ε
EARLY = 0.1  # of the tolerance: a certificate that ends the search before nothing moves


def solve(problem: Problem, start: Multipliers | None = None, *, tolerance: float = 1e-9, most: int = 200) -> Solution:
    """The cheapest book, in about `most` Newton steps at most; `start`: the last tick's multipliers. Where limits
    cannot be met together those the book held breaks are widened, as `widen` does; the certificate is for what is left.
    `tolerance`: gap by the size of the objective's terms; ten times it: violation. ProblemError: see Problem."""
    problem.validated()
    widened = np.zeros(len(problem.g_lower) + len(problem.gross_limit), np.bool_)
    used = 0
    with np.errstate(all="ignore"):  # what overflows ends as "failed"
        while True:
            search = _Search(problem, start, tolerance, most - used)
            unmet = search.run()
            used += search.steps
            if not np.count_nonzero(unmet) and not search.done():
                if start is not None and used < most:
                    start = None  # it was misleading
                    continue
                best = search.best
                unmet = rescue(problem, None if best is None else (best.x, best.multipliers), search.tried) & ~widened
            if not np.count_nonzero(unmet):
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


Slopes = tuple[FloatArray, FloatArray | None]  # μ − Fᵀu − Gᵀy [n], grossᵀν [n]


@dataclass(slots=True)
class _Point:
    """λ [p] and what follows from it: x [n], z [p] = (Fx, Gx, gross |x|), the slopes x was found by, D's gradient [p],
    the value of D once it was asked for."""

    dual: FloatArray
    x: FloatArray
    z: FloatArray
    slopes: Slopes
    gradient: FloatArray
    value: float | None = None


@dataclass(slots=True)
class _Best:
    x: FloatArray
    multipliers: Multipliers
    worth: Certificate


class _Search:
    """One problem's search: the scaled arrays, the proximal centres, the best certified answer."""

    def __init__(self, problem: Problem, start: Multipliers | None, tolerance: float, most: int) -> None:
        self.problem, self.tolerance, self.steps = problem, tolerance, 0
        self.most = most if start is None else min(most, WARM_MOST)
        self.firm = self.loose = FIRM_COLD if start is None else FIRM_WARM  # sets ρ; ε
        self.inner = INNER * tolerance
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
                self.firm = self.loose = min(max(10.0 * self.firm, FIRM_AFTER_TROUBLE), 1.0)
                continue
            drift = self.drift(point) / self.reach(point)
            if drift <= 10.0 * self.tolerance:
                if self.certified(point, 1.0 if drift <= self.tolerance else EARLY):
                    return none
            elif (unmet := self.unmet(point)).any():
                return unmet
            if self.steps >= self.most:
                self.certified(point)
                return none
            self.recentre(point, self.steps - before, drift <= self.tolerance)

    def recentre(self, point: _Point, used: int, near: bool) -> None:
        """Less firm the easier the last round was; where it had nothing to do, more exact. Where no position may move
        (all on a kink) multipliers creep by gradient / `loose` each round: near the answer, much less of it."""
        self.centre, self.x_centre = point.dual, point.x
        self.firm = max(self.firm * (0.1 if used <= 1 else 0.3 if used <= 6 else 1.0), FIRM_LEAST)
        self.loose = max(0.01 * self.loose, LOOSE_LEAST) if near and used <= 2 else self.firm
        if used == 0:
            self.steps += 1
            self.inner *= 0.01

    def soften(self) -> None:
        """D's quadratic terms at this firmness and these centres; the problem's own where d is nowhere tiny."""
        problem = self.problem
        rho = self.firm * self.scaled.stiffness - problem.d
        if np.count_nonzero(rho > 0.0):
            np.maximum(rho, 0.0, out=rho)
            self.d, self.reward = problem.d + rho, problem.mu + rho * self.x_centre
        else:
            self.d, self.reward = problem.d, problem.mu
        self.inverse = 1.0 / self.d
        self.halved: FloatArray | None = None

    def drift(self, point: _Point) -> float:
        """How far the rows of the problem itself are from the proximal one's."""
        return self.loose * _length(point.dual[self.k :] - self.centre[self.k :])

    def reach(self, point: _Point) -> float:
        """What an error is small beside."""
        return max(_length(point.z), _length(point.dual[: self.k]), TINY)

    def newton(self, dual: FloatArray) -> tuple[_Point, bool]:
        """The greatest D of this round, from `dual` on, and whether it is that: as exact as the round is worth, or as
        rounding lets it be."""
        point = self.evaluate(dual)
        last, least, stalled = min(self.most, self.steps + PATIENCE), inf, 0
        while True:
            worst, reach = _length(point.gradient), self.reach(point)
            if worst <= self.inner * reach or worst <= 0.01 * self.drift(point):
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
                return point, worst <= 1e-7 * reach
            point = better

    def evaluate(self, dual: FloatArray) -> _Point:
        """x and the gradient at λ."""
        problem, scaled, split = self.problem, self.scaled, self.split
        x0, cost, weight = problem.x0, problem.cost, None
        reward = self.reward - scaled.smooth.dot(dual[:split])
        if split == len(dual):
            x = np.maximum((reward - cost) * self.inverse, np.minimum(x0, (reward + cost) * self.inverse))
        else:
            weight = scaled.gross.dot(dual[split:])
            step, turn = cost + weight, scaled.side * (weight - cost)
            x = np.maximum((reward - turn) * self.inverse, np.minimum(scaled.kinks[0], (reward + step) * self.inverse))
            x = np.maximum((reward - step) * self.inverse, np.minimum(scaled.kinks[1], x))
        np.maximum(x, problem.lower, out=x)
        np.minimum(x, problem.upper, out=x)
        z = x.dot(scaled.At)
        if weight is not None:
            z[split:] = np.abs(x).dot(scaled.gross)
        return self.priced(dual, x, z, (reward, weight))

    def priced(self, dual: FloatArray, x: FloatArray, z: FloatArray, slopes: Slopes) -> _Point:
        """A row's slope at y = 0 is that of the side it is beyond, and nothing within; at its price it is nothing
        beyond."""
        scaled, k, gradient = self.scaled, self.k, z - dual
        if k < len(dual):
            y = dual[k:]
            inner = z[k:] - self.loose * (y - self.centre[k:])
            slope = np.minimum(inner - scaled.down, y * -HUGE)  # of all y but 0 this is ∓∞
            np.maximum(slope, inner - scaled.up, out=slope)
            if scaled.any_soft:
                slope[((y >= scaled.most) & (slope > 0.0)) | ((y <= scaled.least) & (slope < 0.0))] = 0.0
            gradient[k:] = slope
        return _Point(dual, x, z, slopes, gradient)

    def room(self, point: _Point) -> tuple[FloatArray, FloatArray]:
        """How far y and ν [m + q] may go, low and high, before the gradient changes its form."""
        scaled, y, slope = self.scaled, point.dual[self.k :], point.gradient[self.k :]
        up, down = (y > 0.0) | (slope > 0.0) & (y == 0.0), (y < 0.0) | (slope < 0.0) & (y == 0.0)
        if scaled.any_equal:
            up, down = up | scaled.equal, down | scaled.equal
        return np.where(down, scaled.least, 0.0), np.where(up, scaled.most, 0.0)

    def value(self, point: _Point) -> float:
        """D of this round."""
        if point.value is not None:
            return point.value
        scaled, problem, k, x, (reward, weight) = self.scaled, self.problem, self.k, point.x, point.slopes
        value = x.dot(0.5 * self.d * x - reward) + problem.cost.dot(np.abs(x - problem.x0))
        if weight is not None:
            value += weight.dot(np.abs(x))
        u, y = point.dual[:k], point.dual[k:]
        moved, above, below = y - self.centre[k:], y > 0.0, y < 0.0
        value -= 0.5 * (u.dot(u) + self.loose * moved.dot(moved))
        point.value = float(value - y[above].dot(scaled.up[above]) - y[below].dot(scaled.down[below]))
        return point.value

    def step(self, point: _Point) -> _Point | None:
        """Newton's step on the coordinates off every kink and bound, and the rows whose multiplier may move."""
        k, gradient, y, (low, high) = self.k, point.gradient, point.dual[self.k :], self.room(point)
        live = np.ones(len(gradient), np.bool_)
        np.logical_or(gradient[k:] != 0.0, (low < y) & (y < high), out=live[k:])
        H, index = self.curvature(point.x), live.nonzero()[0]
        if len(index) < len(live):
            H, gradient = H.take(index, axis=0).take(index, axis=1), gradient.take(index)
        rows = index[k:] - k
        now = y.take(rows)
        found = _within(H, gradient, low.take(rows) - now, high.take(rows) - now)
        if found is None:
            return None
        move = np.zeros(len(live))
        move[index] = found
        return self.along(point, move, low, high)

    def curvature(self, x: FloatArray) -> FloatArray:
        """H [p, p]: of all rows, where x [n] is off kinks and bounds."""
        problem = self.problem
        free = (x > problem.lower) & (x < problem.upper) & (x != problem.x0)
        if self.split < self.scaled.At.shape[1]:
            free &= x != 0.0
        index = free.nonzero()[0]
        if self.halved is None:
            self.halved = self.scaled.At * np.sqrt(self.inverse)[:, None]
        rows = self.halved.take(index, axis=0)
        if self.split < rows.shape[1]:
            rows[:, self.split :] *= np.sign(x.take(index))[:, None]
        H: FloatArray = rows.T.dot(rows)
        diagonal = H.reshape(-1)[:: len(H) + 1]
        diagonal[: self.k] += 1.0
        diagonal[self.k :] += self.loose
        return H

    def along(self, point: _Point, move: FloatArray, least: FloatArray, most: FloatArray) -> _Point | None:
        """As far along `move` as D rises. D is concave: where its slope is still up nothing else need be asked; from
        where it went too far, to where its slope, piecewise linear in t, is about zero: on the line through the last
        two such points, or a part of the way."""
        rise = float(point.gradient.dot(move))
        if not rise > 0.0:
            return None
        low, up, high, down, before, down_before = 0.0, rise, inf, 0.0, inf, 0.0  # t, and the slope there
        t, best = 1.0, None
        for _ in range(HALVINGS):
            trial = self.evaluate(_moved(point.dual, t * move, least, most))
            slope = float(trial.gradient.dot(move))
            if slope >= 0.0:
                if high == inf or slope <= 0.5 * rise:
                    return trial
                low, up, best = t, slope, trial
            else:
                if self.higher(point, trial, 1e-4 * t * rise):
                    return trial
                high, down, before, down_before = t, slope, high, down
            meets = high - down * (before - high) / (down_before - down) if down_before < down else nan
            t = meets if low < meets < high else low + (high - low) * min(max(up / (up - down), 0.05), 0.7)
            if not low < t < high:
                break
        return best

    def higher(self, point: _Point, trial: _Point, rise: float) -> bool:
        """Whether D rose by so much, up to rounding."""
        value, u = self.value(point), point.dual[: self.k]
        return self.value(trial) >= value + rise - 1e-14 * (abs(value) + float(u.dot(u)))

    def certified(self, point: _Point, share: float = 1.0) -> bool:
        """Whether this is the answer, within this share of the tolerance; the best so far is kept."""
        multipliers = self.scaled.multipliers(point.dual)
        found = _Best(point.x, multipliers, certify(self.problem, point.x, multipliers))
        if self.best is None or self.rank(found) <= self.rank(self.best):
            self.best = found
        return self.rank(found, share) == (0.0, 0.0)

    def done(self) -> bool:
        """Whether the best answer is certified, even beside limits of its own size."""
        best = self.best
        if best is None or self.rank(best) != (0.0, 0.0):
            return False
        beyond = best.worth.violation
        return beyond == 0.0 or beyond <= 2.0 * self.tolerance * min(1.0, float(np.abs(best.x).max(initial=0.0)))

    def tried(self, answer: tuple[FloatArray, Multipliers]) -> bool:
        """Whether another method's answer is this; no worse one replaces the best."""
        before, (x, multipliers) = self.best, answer
        self.certified(replace(self.evaluate(self.scaled.dual(multipliers)), x=x))
        now = self.best
        if before is not None and now is not None and self.rank(now) == self.rank(before):
            self.best = min(
                before, now, key=lambda best: max(best.worth.gap / (best.worth.size + TINY), best.worth.violation)
            )
        return self.done()

    def rank(self, found: _Best, share: float = 1.0) -> tuple[float, float]:
        """By violation, then by gap, each nothing within (this share of) its tolerance; NaN is last."""
        gap, beyond, within = found.worth.gap, found.worth.violation, share * self.tolerance
        beyond = 0.0 if beyond <= 10.0 * within else beyond
        gap = 0.0 if gap <= within * (found.worth.size + TINY) else gap
        return (beyond if beyond < inf else inf), (gap if gap < inf else inf)  # noqa: FURB136

    def solution(self, used: int, widened: BoolArray) -> Solution:
        problem, best = self.problem, self.best
        rows = tuple(widened.nonzero()[0].tolist())
        if best is not None and self.rank(best)[0] == 0.0:
            status = "feasible" if self.rank(best)[1] > 0.0 else "widened" if rows else "optimal"
            worth = best.worth
            return Solution(status, best.x, worth.cost, worth.gap, worth.violation, used, best.multipliers, rows)
        x, nothing = problem.x0, self.scaled.multipliers(self.scaled.dual(None))
        return Solution("failed", x, objective(problem, x), inf, violation(problem, x), used, nothing, rows)

    def unmet(self, point: _Point) -> BoolArray:
        """Which limits [m + q] this round's move of their multipliers proves impossible together and the book held
        is beyond: over the whole box ray · (Gx, gross |x|) is more than the limits allow."""
        scaled, k, m = self.scaled, self.k, self.split - self.k
        ray = np.minimum(np.maximum(point.dual[k:] - self.centre[k:], scaled.least), scaled.most)
        ray[scaled.soft] = 0.0
        ray /= float(np.abs(ray).max(initial=TINY))
        ray[np.abs(ray) < 1e-7] = 0.0
        priced = ray != 0.0
        least = self.least_over_box(scaled.smooth[:, k:].dot(ray[:m]), scaled.gross.dot(ray[m:]))
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
        rows = np.abs(scaled.At[:, self.k :]).max(axis=0, initial=0.0)
        ends = (problem.x0, self.x_centre, problem.lower, problem.upper, scaled.up / rows, scaled.down / rows)
        seen = np.abs(np.concatenate(ends))
        far = 1e6 * float(seen[seen < inf].max(initial=TINY))
        low = np.where(problem.lower > -inf, problem.lower, -far)
        high = np.where(problem.upper < inf, problem.upper, far)
        least = np.minimum(slope * low + weight * np.abs(low), slope * high + weight * np.abs(high))
        return np.where((low <= 0.0) & (high >= 0.0), np.minimum(least, 0.0), least)


def _moved(dual: FloatArray, move: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Its last [len(low)] kept within low and high."""
    dual = dual + move
    last = dual[len(dual) - len(low) :]
    np.minimum(np.maximum(last, low, out=last), high, out=last)
    return dual


def _length(v: FloatArray) -> float:
    return sqrt(float(v.dot(v)))


def _within(H: FloatArray, gradient: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray | None:
    """A move [p] that raises gradient · move − ½ moveᵀ H move, its last [len(low)] within low ≤ 0 ≤ high: Newton's,
    stopped at each bound it meets and begun again without that coordinate. None where H is not positive definite in
    float64."""
    move: FloatArray
    _, move, info = dposv(H, gradient)
    if info:
        return None
    last = move[len(move) - len(low) :]
    if not np.count_nonzero((last > high) | (last < low)):
        return move
    free = np.full(len(move) - len(low), inf)
    return _stopped(H, gradient, move, np.concatenate((-free, low)), np.concatenate((free, high)))


def _stopped(
    H: FloatArray, gradient: FloatArray, step: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray | None:
    """The rest of `_within`, from its first step on."""
    move, live = np.zeros(len(step)), np.arange(len(step))
    while True:
        now, least, most = move.take(live), low.take(live), high.take(live)
        ahead = now + step
        hit = ((ahead > most) | (ahead < least)).nonzero()[0]
        if not len(hit):
            move[live] = ahead
            return move
        way = step.take(hit)
        room = (np.where(way > 0.0, most.take(hit), least.take(hit)) - now.take(hit)) / way
        t = float(np.fmin.reduce(room))
        move[live] = np.minimum(np.maximum(now + t * step, least), most)
        stays = np.ones(len(live), np.bool_)
        stays[hit[room <= t]] = False
        live = live[stays]
        if not len(live):
            return move
        rows = H.take(live, axis=0)
        _, step, info = dposv(rows.take(live, axis=1), gradient.take(live) - rows.dot(move))
        if info:
            return None
