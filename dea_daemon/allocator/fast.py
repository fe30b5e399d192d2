"""The solver, compiled: the mathematics of solver.py in one function of plain arrays, from scaling to certificate.

What comes out is certified, by the formulas of certificate.py, or not used: for a problem that makes no sense, limits
that cannot all be met, or a search that ends without an answer, solver.py begins anew, and refuses, widens or despairs.
Importing this compiles it, once for this machine and this numba (`cache`), so that no tick does. Sums are made in
another order than numpy's: answers agree to the certificate's tolerance, not bit by bit; in every run they are the
same. It needs numba, and memory that is writable and executable.
"""

# mypy: no-warn-return-any, allow-untyped-defs
# What is compiled has the types that numba infers; those written are for the reader.

from collections import namedtuple
from collections.abc import Callable
from math import inf, sqrt
from typing import Any

import numpy as np
from numba import njit, types

from dea_daemon.allocator import solver
from dea_daemon.allocator.problem import Multipliers, Problem, Solution
from dea_daemon.domain.instruments import FloatArray, IntArray

FIRM_COLD, FIRM_WARM, FIRM_LEAST, FIRM_AFTER_TROUBLE = 1.0, 1e-8, 1e-8, 1e-2
PATIENCE, INNER, HALVINGS = 30, 0.1, 40
TINY, EPS, LARGEST = 1e-300, float(np.finfo(np.float64).eps), float(np.finfo(np.float64).max)
NOTHING = Multipliers(np.zeros(0), np.zeros(0), np.zeros(0))

# Dividing by nothing ends as infinity or NaN, as in numpy, and infinity or NaN is never certified.
compiled: Callable[..., Any] = njit(error_model="numpy")

# The problem as given, with what Ω comes to: as scaled.Root. Then what scaled.Scaled holds; a round of the proximal
# loop: its centres, the terms they lead to, room to work in; and a point, as solver._Point.
_Given = namedtuple("_Given", "mu B omega d cost x0 lower upper G g_lower g_upper price gross gross_limit")
_Root = namedtuple("_Root", "size root pivot rank")
_Scaled = namedtuple("_Scaled", "A rank split scale price up down most least stiffness")
_Round = namedtuple("_Round", "centre x_centre d inverse root reward slope weight move")
_Point = namedtuple("_Point", "dual x z gradient low high")


def solve(problem: Problem, start: Multipliers | None = None, *, tolerance: float = 1e-9, most: int = 200) -> Solution:
    """As solver.solve."""
    p, from_, m = problem, start or NOTHING, len(problem.g_lower)
    arrays = p.mu, p.B, p.omega, p.d, p.cost, p.x0, p.lower, p.upper
    limits = p.G, p.g_lower, p.g_upper, p.row_price, p.gross, p.gross_limit
    firm = FIRM_COLD if start is None else FIRM_WARM
    try:
        found = _certified(*arrays, *limits, from_.u, from_.y, from_.nu, firm, tolerance, most)
    except TypeError:  # arrays of another dtype or number of dimensions than it is compiled for
        return solver.solve(problem, start, tolerance=tolerance, most=most)
    solved, x, cost, gap, violation, steps, u, rows = found
    if not solved:
        return solver.solve(problem, start, tolerance=tolerance, most=most)
    return Solution("optimal", x, cost, gap, violation, steps, Multipliers(u, rows[:m], rows[m:]))


# --- the problem, scaled -----------------------------------------------------------------------------------------


@compiled
def _all_in(array: FloatArray, low: float, high: float) -> bool:
    bad = False
    for value in array.ravel():
        bad |= not (low <= value <= high)
    return not bad


@compiled
def _sound(g: _Given) -> bool:
    """False where Problem.validated refuses, or might."""
    n, k, m, q = len(g.mu), len(g.omega), len(g.g_lower), len(g.gross_limit)
    if not (len(g.d) == len(g.cost) == len(g.x0) == len(g.lower) == len(g.upper) == n):
        return False
    if not (g.B.shape == (n, k) and g.omega.shape == (k, k) and len(g.g_upper) == len(g.price) == m):
        return False
    if not (g.G.shape == (m, n) and g.gross.shape == (q, n) and _all_in(g.price, 0.0, inf)):
        return False
    if not (_all_in(g.d, 0.0, LARGEST) and _all_in(g.cost, 0.0, LARGEST) and _all_in(g.gross, 0.0, LARGEST)):
        return False
    for vector in (g.mu, g.x0):
        if not _all_in(vector, -LARGEST, LARGEST):
            return False
    for matrix in (g.B, g.omega, g.G):
        if not _all_in(matrix, -LARGEST, LARGEST):
            return False
    good = _all_in(g.gross_limit, -LARGEST, inf)
    for j in range(n):
        good &= g.lower[j] <= g.upper[j] and g.lower[j] < inf and g.upper[j] > -inf
        end = g.upper[j] if g.mu[j] > 0.0 else -g.lower[j]
        good &= g.d[j] > 0.0 or abs(g.mu[j]) <= g.cost[j] or end < inf
    for i in range(m):
        good &= g.g_lower[i] <= g.g_upper[i] and g.g_lower[i] < inf and g.g_upper[i] > -inf
    return good


@compiled
def _add(total: FloatArray, weights: FloatArray, rows: FloatArray) -> None:
    """total [c] += weights [r] · rows [r, c]."""
    for r in range(len(weights)):
        weight = weights[r]
        if weight != 0.0:
            for c in range(len(total)):
                total[c] += weight * rows[r, c]


@compiled
def _root(B: FloatArray, omega: FloatArray) -> _Root:
    """A pivoted Cholesky factor root [k, k'] of Ω, with B's columns brought to one size; k' < 0: Ω is not PSD."""
    k = len(omega)
    size, root, pivot, rank = np.zeros(k), np.zeros((k, k)), np.zeros(k, np.int64), 0
    for j in range(len(B)):
        for i in range(k):
            size[i] = max(size[i], abs(B[j, i]))
    for i in range(k):
        size[i] = size[i] if size[i] > 0.0 else 1.0
    unit = omega * size * size.reshape(-1, 1)
    rest, left = unit.copy(), np.diag(unit).copy()
    floor = k * EPS * left.max() if k else 0.0
    for at in range(k):
        best = left.argmax()
        if not left[best] > floor:
            break
        pivot[at], root[best, at], left[best] = best, sqrt(left[best]), -inf
        rank += 1
        for i in range(k):
            if left[i] > -inf:
                root[i, at] = rest[i, best] / root[best, at]
                left[i] -= root[i, at] ** 2
        for i in range(k if at < k - 1 else 0):
            weight = root[i, at]
            if weight != 0.0 and left[i] > -inf:
                for j in range(k):
                    rest[i, j] -= weight * root[j, at]
    worst, largest = 0.0, 0.0
    again = np.dot(root, root.T)
    for i in range(k):
        for j in range(k):
            worst, largest = max(worst, abs(unit[i, j] - again[i, j])), max(largest, abs(unit[i, j]))
    return _Root(size, root[:, :rank].copy(), pivot[:rank], rank if worst <= 1e-10 * largest else -1)


@compiled
def _scaled(g: _Given, of: _Root, firm: float) -> _Scaled:
    n, m, q, rank = len(g.mu), len(g.g_lower), len(g.gross_limit), of.rank
    A = np.empty((rank + m + q, n))
    A[rank : rank + m], A[rank + m :] = g.G, g.gross
    np.dot((of.root / of.size.reshape(-1, 1)).T, g.B.T, A[:rank])
    stiffness = _stiffness(g, A[:rank])
    inverse = 1.0 / np.maximum(g.d, firm * stiffness)
    scale = np.sqrt(np.dot(A[rank:] * A[rank:], inverse))
    price, up, down = np.full(m + q, inf), np.empty(m + q), np.full(m + q, -inf)
    price[:m], up[:m], up[m:], down[:m] = g.price, g.g_upper, g.gross_limit, g.g_lower
    most, least = np.zeros(m + q), np.zeros(m + q)
    for i in range(m + q):
        if not 0.0 < scale[i] < inf:
            scale[i] = 1.0
        up[i], down[i] = up[i] / scale[i], down[i] / scale[i]
        most[i] = price[i] * scale[i] if up[i] < inf else 0.0
        least[i] = -price[i] * scale[i] if down[i] > -inf else 0.0
        for j in range(n):
            A[rank + i, j] /= scale[i]
    return _Scaled(A, rank, rank + m, scale, price, up, down, most, least, stiffness)


@compiled
def _stiffness(g: _Given, F: FloatArray) -> FloatArray:
    """As scaled._stiffness."""
    n, largest = len(g.mu), 0.0
    stiffness = g.d.copy()
    for j in range(n):
        width = g.upper[j] - g.lower[j]
        largest = max(largest, abs(g.x0[j]), width if width < inf else 0.0)
    for r in range(len(F)):
        for j in range(n):
            stiffness[j] += F[r, j] * F[r, j]
    for j in range(n):
        width = min(max(g.upper[j] - g.lower[j], 1e-6 * largest), largest) if largest > 0.0 else 1.0
        stiffness[j] = max(stiffness[j], (abs(g.mu[j]) + g.cost[j]) / width) + TINY
    return stiffness


@compiled
def _dual(s: _Scaled, of: _Root, u: FloatArray, y: FloatArray, nu: FloatArray) -> FloatArray:
    """λ [p]; zeros where there is no start, or it is of another problem."""
    rank, m = s.rank, s.split - s.rank
    dual = np.zeros(len(s.A))
    if len(u) != len(of.size) or len(y) != m or len(nu) != len(s.up) - m:
        return dual
    dual[:rank] = np.dot(u / of.size, of.root)
    for i in range(len(s.up)):
        worth = (y[i] if i < m else nu[i - m]) * s.scale[i]
        dual[rank + i] = min(max(worth, s.least[i]), s.most[i])
    return dual if _all_in(dual, -LARGEST, LARGEST) else np.zeros(len(dual))


@compiled
def _multipliers(s: _Scaled, of: _Root, dual: FloatArray) -> tuple[FloatArray, FloatArray]:
    """u [k], and y with ν [m + q]."""
    rank, u = s.rank, np.zeros(len(of.size))
    for r in range(rank - 1, -1, -1):
        rest = dual[r]
        for later in range(r + 1, rank):
            rest -= of.root[of.pivot[later], r] * u[of.pivot[later]]
        u[of.pivot[r]] = rest / of.root[of.pivot[r], r]
    return u * of.size, np.minimum(np.maximum(dual[rank:] / s.scale, -s.price), s.price)


# --- the search --------------------------------------------------------------------------------------------------


@compiled
def _evaluate(g: _Given, s: _Scaled, r: _Round, firm: float, at: _Point) -> float:
    """x, z and the gradient at λ, into `at`; the value of D."""
    value, split, gross = 0.0, s.split, s.split < len(s.A)
    r.slope[:] = 0.0
    _add(r.slope, at.dual[:split], s.A[:split])
    if gross:
        r.weight[:] = 0.0
        _add(r.weight, at.dual[split:], s.A[split:])
    for j in range(len(at.x)):
        x0, weight, inverse, reward = g.x0[j], r.weight[j], r.inverse[j], r.reward[j] - r.slope[j]
        step, turn = g.cost[j] + weight, weight - g.cost[j]
        turn = turn if x0 > 0.0 else -turn if x0 < 0.0 else 0.0
        x = max((reward - turn) * inverse, min(min(x0, 0.0), (reward + step) * inverse))
        x = max((reward - step) * inverse, min(max(x0, 0.0), x))
        at.x[j] = min(max(x, g.lower[j]), g.upper[j])
    for j in range(len(at.x)):
        x, reward = at.x[j], r.reward[j] - r.slope[j]
        value += x * (0.5 * r.d[j] * x - reward) + g.cost[j] * abs(x - g.x0[j]) + r.weight[j] * abs(x)
    np.dot(s.A, at.x, at.z)
    if gross:
        at.z[split:] = np.dot(s.A[split:], np.abs(at.x))
    return value + _priced(s, r, firm, at)


@compiled
def _priced(s: _Scaled, r: _Round, firm: float, at: _Point) -> float:
    """As solver.priced: the gradient, how far y may go, and what λ itself adds to D."""
    value = 0.0
    for p in range(s.rank):
        at.gradient[p], at.low[p], at.high[p] = at.z[p] - at.dual[p], -inf, inf
        value -= 0.5 * at.dual[p] * at.dual[p]
    for p in range(s.rank, len(at.dual)):
        i, y, moved = p - s.rank, at.dual[p], at.dual[p] - r.centre[p]
        inner = at.z[p] - firm * moved
        over, under, equal = inner - s.up[i], inner - s.down[i], s.up[i] == s.down[i]
        above, below = y > 0.0 or (y == 0.0 and over > 0.0), y < 0.0 or (y == 0.0 and under < 0.0)
        value -= 0.5 * firm * moved * moved + (y * s.up[i] if y > 0.0 else y * s.down[i] if y < 0.0 else 0.0)
        at.high[p], at.low[p] = s.most[i] if above or equal else 0.0, s.least[i] if below or equal else 0.0
        slope = over if above else under if below else 0.0
        stuck = (y >= at.high[p] and slope > 0.0) or (y <= at.low[p] and slope < 0.0)
        at.gradient[p] = 0.0 if stuck else slope
    return value


@compiled
def _largest(array: FloatArray, least: float) -> float:
    """Infinite where a number is NaN."""
    for value in array:
        if not abs(value) <= least:
            least = min(inf, abs(value))
    return least


@compiled
def _reach(s: _Scaled, at: _Point) -> float:
    return max(_largest(at.z, TINY), _largest(at.dual[: s.rank], TINY))


@compiled
def _drift(s: _Scaled, r: _Round, firm: float, at: _Point) -> float:
    worst = 0.0
    for p in range(s.rank, len(at.dual)):
        worst = max(worst, abs(at.dual[p] - r.centre[p]))
    return firm * worst


@compiled
def _curvature(g: _Given, s: _Scaled, r: _Round, firm: float, at: _Point, live: IntArray) -> FloatArray:
    """H over the rows `live`."""
    free, root, gross = np.empty(len(at.x), np.uint64), np.empty(len(at.x)), s.split < len(at.dual)
    count = 0
    for j in range(len(at.x)):
        x = at.x[j]
        free[count], root[count] = j, r.root[j]
        count += g.lower[j] < x < g.upper[j] and x != g.x0[j] and not (gross and x == 0.0)
    rows = np.empty((len(live), count))
    for a in range(len(live)):
        row = s.A[live[a]]
        for b in range(count):
            rows[a, b] = row[free[b]] * root[b]
        for b in range(count if live[a] >= s.split else 0):
            rows[a, b] = rows[a, b] if at.x[free[b]] > 0.0 else -rows[a, b]
    H = np.dot(rows, rows.T)
    for a in range(len(live)):
        H[a, a] += 1.0 if live[a] < s.rank else firm
    return H


@compiled
def _solved(U: FloatArray, b: FloatArray) -> bool:
    """b becomes H⁻¹ b; H, above its diagonal, its Cholesky factor. False where H is not positive definite."""
    size = len(b)
    for a in range(size):
        if not U[a, a] > 0.0:
            return False
        inverse = 1.0 / sqrt(U[a, a])
        b[a] *= inverse
        for e in range(a, size):
            U[a, e] *= inverse
        for c in range(a + 1, size):
            weight = U[a, c]
            b[c] -= weight * b[a]
            for e in range(c, size):
                U[c, e] -= weight * U[a, e]
    for a in range(size - 1, -1, -1):
        rest = b[a]
        for e in range(a + 1, size):
            rest -= U[a, e] * b[e]
        b[a] = rest / U[a, a]
    return True


@compiled
def _within(H: FloatArray, at: _Point, live: IntArray, move: FloatArray) -> bool:
    """As solver._within, into `move` [p]; False where H is not positive definite in float64."""
    left, block, slope, room = np.arange(len(live)), H.copy(), np.empty(len(live)), np.empty(len(live))
    move[:] = 0.0
    for a in range(len(live)):
        slope[a] = at.gradient[live[a]]
    while len(left) and _solved(block, slope):
        t = inf
        for a in range(len(left)):
            p, step = live[left[a]], max(abs(slope[a]), TINY)
            up, down = at.high[p] - at.dual[p] - move[p], at.low[p] - at.dual[p] - move[p]
            room[a] = up / step if slope[a] > up else -down / step if slope[a] < down else inf
            t = min(t, room[a])
        kept = 0
        for a in range(len(left)):
            p = live[left[a]]
            ahead = move[p] + min(t, 1.0) * slope[a]
            move[p] = min(max(ahead, at.low[p] - at.dual[p]), at.high[p] - at.dual[p])
            left[kept] = left[a]
            kept += room[a] > t
        if t == inf:
            return True
        left = left[:kept]
        _rest(H, at, live, left, move, block, slope)
        block, slope = block[:kept, :kept], slope[:kept]
    return len(left) == 0


@compiled
def _rest(
    H: FloatArray, at: _Point, live: IntArray, left: IntArray, move: FloatArray, block: FloatArray, slope: FloatArray
) -> None:
    """What is left of H, of the rows `left` of `live`, and of the gradient after `move`."""
    for a in range(len(left)):
        slope[a] = at.gradient[live[left[a]]]
        for b in range(len(live)):
            slope[a] -= H[left[a], b] * move[live[b]]
        for b in range(a, len(left)):
            block[a, b] = H[left[a], left[b]]


@compiled
def _step(g: _Given, s: _Scaled, r: _Round, firm: float, here: _Point, value: float, there: _Point) -> float:
    """Newton's step and the search along it, from `here` to `there`: the value of D, NaN where it does not rise."""
    live, count, u = np.empty(len(here.dual), np.int64), 0, here.dual[: s.rank]
    for p in range(len(live)):
        live[count] = p
        count += here.gradient[p] != 0.0 or here.low[p] < here.dual[p] < here.high[p]
    live = live[:count]
    found = _within(_curvature(g, s, r, firm, here, live), here, live, r.move)
    t, rise, slack = 1.0, np.dot(here.gradient, r.move), 1e-14 * (abs(value) + np.dot(u, u))
    for _ in range(HALVINGS if found and rise > 0.0 else 0):
        for p in range(len(here.dual)):
            there.dual[p] = min(max(here.dual[p] + t * r.move[p], here.low[p]), here.high[p])
        ahead = _evaluate(g, s, r, firm, there)
        slope = np.dot(there.gradient, r.move)
        if slope >= 0.0 or ahead >= value + 1e-4 * t * rise - slack:
            return ahead
        t *= min(max(rise / (rise - slope), 0.05), 0.7)
    return np.nan


@compiled
def _newton(
    g: _Given, s: _Scaled, r: _Round, firm: float, inner: float, here: _Point, there: _Point, steps: int, most: int
) -> tuple[_Point, _Point, int, bool]:
    """As solver.newton, from here.dual on: where it ends, the other point, steps, whether settled."""
    value, last, least, stalled = _evaluate(g, s, r, firm, here), min(most, steps + PATIENCE), inf, 0
    while True:
        worst, reach = _largest(here.gradient, 0.0), _reach(s, here)
        stalled = stalled + 1 if worst > 0.5 * least else 0
        least = min(least, worst)
        if worst <= max(inner * reach, 0.01 * _drift(s, r, firm, here)) or (stalled >= 2 and worst <= 1e-6 * reach):
            return here, there, steps, True
        if steps >= last:
            return here, there, steps, worst <= 1e-7 * reach
        steps += 1
        ahead = _step(g, s, r, firm, here, value, there)
        if not abs(ahead) <= LARGEST:
            return here, there, steps, True
        here, there, value = there, here, ahead


# --- the certificate ---------------------------------------------------------------------------------------------


@compiled
def _further(worst: float, beyond: float, limit: float) -> float:
    """Infinite where `beyond` is NaN."""
    if beyond <= 0.0:
        return worst
    share = beyond / max(1.0, abs(limit))
    return max(worst, share) if share < inf else inf


@compiled
def _cost(g: _Given, x: FloatArray) -> tuple[float, float]:
    """As certificate.objective and certificate.violation."""
    value, worst, exposure, rows, gross = 0.0, 0.0, np.dot(x, g.B), np.dot(g.G, x), np.dot(g.gross, np.abs(x))
    for j in range(len(x)):
        value += x[j] * (0.5 * g.d[j] * x[j] - g.mu[j]) + g.cost[j] * abs(x[j] - g.x0[j])
        worst = _further(worst, x[j] - g.upper[j], g.upper[j])
        worst = _further(worst, g.lower[j] - x[j], g.lower[j])
    for i in range(len(rows)):
        over, under = rows[i] - g.g_upper[i], g.g_lower[i] - rows[i]
        if g.price[i] < inf:
            value += g.price[i] * max(over, under, 0.0)
        else:
            worst = _further(_further(worst, over, g.g_upper[i]), under, g.g_lower[i])
    for i in range(len(gross)):
        worst = _further(worst, gross[i] - g.gross_limit[i], g.gross_limit[i])
    return value + 0.5 * np.dot(exposure, np.dot(g.omega, exposure)), worst


@compiled
def _bound(g: _Given, u: FloatArray, rows: FloatArray) -> float:
    """As certificate.dual_value; −∞ also where only rounding keeps the multipliers from bounding anything."""
    m, priced = len(g.g_lower), np.dot(g.omega, u)
    value = -0.5 * np.dot(u, priced)
    for i in range(len(rows)):
        y, price = rows[i], g.price[i] if i < m else inf
        up, down = (g.g_upper[i], g.g_lower[i]) if i < m else (g.gross_limit[i - m], inf)
        if not abs(y) <= price:
            return -inf
        value -= y * up if y > 0.0 else y * down if y < 0.0 else 0.0
    reward, weight = g.mu - np.dot(g.B, priced), np.zeros(len(g.mu))
    _add(reward, -rows[:m], g.G)
    _add(weight, rows[m:], g.gross)
    for j in range(len(reward)):
        d, x0, step = g.d[j], g.x0[j], g.cost[j] + weight[j]
        between = (reward[j] - np.sign(x0) * (weight[j] - g.cost[j])) / d
        x = np.fmax(between, np.fmin(min(x0, 0.0), (reward[j] + step) / d))
        x = np.fmax((reward[j] - step) / d, np.fmin(max(x0, 0.0), x))
        x = min(max(x, g.lower[j]), g.upper[j])
        if not abs(x) <= LARGEST:
            return -inf
        value += x * (0.5 * d * x - reward[j]) + g.cost[j] * abs(x - x0) + weight[j] * abs(x)
    return value


@compiled
def _size(g: _Given, s: _Scaled, at: _Point) -> float:
    """Of the terms that the objective and its bound are sums of."""
    u, size = at.dual[: s.rank], TINY
    for j in range(len(at.x)):
        x = at.x[j]
        size += abs(g.mu[j] * x) + g.cost[j] * abs(x - g.x0[j]) + g.d[j] * x * x
    for i in range(len(s.up)):
        y = at.dual[s.rank + i]
        size += abs(y * s.up[i]) if y > 0.0 else abs(y * s.down[i]) if y < 0.0 else 0.0
    return size + np.dot(u, u)


# --- all of it ---------------------------------------------------------------------------------------------------

Answer = tuple[bool, FloatArray, float, float, float, int, FloatArray, FloatArray]


@compiled
def _search(g: _Given, s: _Scaled, of: _Root, r: _Round, firm: float, tolerance: float, most: int) -> Answer:
    """The proximal loop, as solver.run, but that what limits cannot be met is not asked."""
    n, p = len(g.mu), len(s.A)
    here = _Point(r.centre.copy(), np.empty(n), np.empty(p), np.empty(p), np.empty(p), np.empty(p))
    there = _Point(np.empty(p), np.empty(n), np.empty(p), np.empty(p), np.empty(p), np.empty(p))
    steps, inner = 0, INNER * tolerance
    while True:
        for j in range(n):
            rho = max(firm * s.stiffness[j] - g.d[j], 0.0)
            r.d[j], r.inverse[j], r.reward[j] = g.d[j] + rho, 1.0 / (g.d[j] + rho), g.mu[j] + rho * r.x_centre[j]
            r.root[j] = sqrt(r.inverse[j])
        before = steps
        here, there, steps, settled = _newton(g, s, r, firm, inner, here, there, steps, most)
        if not settled and steps < most:
            firm = min(max(10.0 * firm, FIRM_AFTER_TROUBLE), 1.0)
            continue
        if _drift(s, r, firm, here) <= tolerance * _reach(s, here) or steps >= most:
            u, rows = _multipliers(s, of, here.dual)
            cost, violation = _cost(g, here.x)
            gap, size = cost - _bound(g, u, rows), _size(g, s, here)
            solved = violation <= 10.0 * tolerance and gap <= tolerance * size and size <= LARGEST
            if solved or steps >= most:
                return solved, here.x, cost, max(gap, 0.0), violation, steps, u, rows
        r.centre[:], r.x_centre[:], used = here.dual, here.x, steps - before
        firm = max(firm * (0.1 if used <= 1 else 0.3 if used <= 6 else 1.0), FIRM_LEAST)
        if used == 0:
            steps, inner = steps + 1, 0.01 * inner


V, M = (types.Array(types.float64, ndim, "A", readonly=True) for ndim in (1, 2))
GIVEN = (V, M, M, V, V, V, V, V, M, V, V, V, M, V)


@njit((*GIVEN, V, V, V, types.float64, types.float64, types.int64), error_model="numpy", cache=True)
def _certified(mu, B, omega, d, cost, x0, lower, upper, G, low, high, price, gross, limit, u, y, nu, firm, near, most):
    """solve, of a Problem's arrays in their order and a start's: whether certified; x, objective, gap, violation,
    steps; the multipliers u, and y with ν."""
    mu, d, cost, x0, lower, upper = mu.copy(), d.copy(), cost.copy(), x0.copy(), lower.copy(), upper.copy()
    low, high, price, limit, B, omega = low.copy(), high.copy(), price.copy(), limit.copy(), B.copy(), omega.copy()
    n, nothing = len(mu), np.zeros(0)
    G, gross = G.copy() if len(low) else np.zeros((0, n)), gross.copy() if len(limit) else np.zeros((0, n))
    g = _Given(mu, B, omega, d, cost, x0, lower, upper, G, low, high, price, gross, limit)
    if not _sound(g):
        return False, nothing, 0.0, 0.0, 0.0, 0, nothing, nothing
    of = _root(B, omega)
    if of.rank < 0:
        return False, nothing, 0.0, 0.0, 0.0, 0, nothing, nothing
    s = _scaled(g, of, firm)
    held, dual, e = np.minimum(np.maximum(x0, lower), upper), _dual(s, of, u.copy(), y.copy(), nu.copy()), np.empty
    r = _Round(dual, held, e(n), e(n), e(n), e(n), e(n), np.zeros(n), e(len(dual)))
    return _search(g, s, of, r, firm, near, most)
