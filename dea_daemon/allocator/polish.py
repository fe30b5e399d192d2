"""Polish: what binds in an answer nearly right is kept, and the rest solved for as linear equations.

A proximal step says what binds: a position it leaves at a kink or a bound, a row whose price it leaves between its
ends. Source: Stellato et al. 2020, with the least change where the equations leave a choice.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.linalg import lstsq

from dea_daemon.allocator.certificate import least_point
from dea_daemon.allocator.problem import Multipliers, Problem
from dea_daemon.allocator.scaled import TINY, Scaled
from dea_daemon.domain.instruments import BoolArray, FloatArray

ROUNDS = 6
Answer = tuple[FloatArray, Multipliers]


def polish(problem: Problem, near: Answer) -> Iterator[Answer]:
    """Answers near another in which what seems to bind does so exactly, one after the other."""
    with np.errstate(all="ignore"):
        units = Units(problem)
        (x, prices), step = near, _Polish(units.small).step
        x, y, nu = x / units.x, prices.y / units.y, prices.nu / units.nu
        for _ in range(ROUNDS):
            x, y, nu = step(x, y, nu)
            if not (np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(nu).all()):
                return
            yield units.answer(x, y, nu)


class Units:
    """Of each position, x [n], of each row's and gross limit's multiplier, y [m] and nu [q], so that `small`, the same
    problem counted in them, has boxes, rows and slopes of order one. Powers of two: nothing is rounded."""

    def __init__(self, p: Problem) -> None:
        self.problem = p
        ends = np.abs(np.stack((p.x0, p.lower, p.upper)))
        ends[~((ends > 0.0) & (ends < np.inf))] = 0.0
        whole = float(np.median(ends[ends > 0.0])) if (ends > 0.0).any() else 1.0
        own = np.sort(ends, axis=0)[1]
        self.x = x = _power(np.where(own > 0.0, own, whole))
        ends = np.abs(np.stack((p.g_lower, p.g_upper)))
        ends = np.where(ends < np.inf, ends, 0.0).max(axis=0)
        rows, gross = np.abs(p.G * x).max(axis=1, initial=0.0), (p.gross * x).max(axis=1, initial=0.0)
        rows, gross = _power(np.where(rows > 0.0, rows, ends)), _power(np.where(gross > 0.0, gross, p.gross_limit))
        slope = float(np.max((np.abs(p.mu) + p.cost) * x, initial=0.0))
        if not slope > 0.0:
            slope = float(np.max((p.d + ((p.B @ p.omega) * p.B).sum(axis=1)) * x * x, initial=0.0))
        money = float(_power(np.array(slope)))
        self.y, self.nu = money / rows, money / gross
        self.small = Problem(
            mu=p.mu * x / money,
            B=p.B * x[:, None],
            omega=p.omega / money,
            d=p.d * x * x / money,
            cost=p.cost * x / money,
            x0=p.x0 / x,
            lower=p.lower / x,
            upper=p.upper / x,
            G=p.G * x / rows[:, None],
            g_lower=p.g_lower / rows,
            g_upper=p.g_upper / rows,
            row_price=p.row_price / self.y,
            gross=p.gross * x / gross[:, None],
            gross_limit=p.gross_limit / gross,
        )

    def answer(self, x: FloatArray, y: FloatArray, nu: FloatArray) -> Answer:
        """In the problem's units, within its box and prices."""
        p = self.problem
        book: FloatArray = np.minimum(np.maximum(x * self.x, p.lower), p.upper)
        rows = np.minimum(np.maximum(y * self.y, -p.row_price), p.row_price)
        return book, Multipliers(book @ p.B, rows, np.maximum(nu * self.nu, 0.0))


def _power(size: FloatArray) -> FloatArray:
    """The power of two next to it; 1 of nothing."""
    return np.asarray(2.0 ** np.clip(np.round(np.log2(np.where(size > 0.0, size, 1.0))), -300.0, 300.0))


class _Polish:
    """Newton's method on the conditions of the answer, from near it: what a proximal step leaves at a kink, a bound or
    a limit is kept there."""

    def __init__(self, problem: Problem) -> None:
        p = self.problem = problem
        scaled = Scaled(p, 1.0)
        self.curved = replace(p, d=np.maximum(scaled.stiffness, TINY))
        self.scale, self.m = scaled.scale**2, len(p.row_price)
        self.H = p.B @ p.omega @ p.B.T + np.diag(p.d)

    def step(self, x: FloatArray, y: FloatArray, nu: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        p, m = self.problem, self.m
        stiff = self.curved.d
        weight = nu @ p.gross
        near = least_point(self.curved, p.mu - self.H @ x - y @ p.G + stiff * x, weight)
        fixed = (
            (near == p.lower) | (near == p.upper) | ((near == p.x0) & (p.cost > 0.0)) | ((near == 0.0) & (weight > 0.0))
        )
        x, free = np.where(fixed, near, x), np.flatnonzero(~fixed)
        y, side, live = self.rows(x, y)
        over = nu + (p.gross @ np.abs(x) - p.gross_limit) / self.scale[m:]
        nu, counted = np.where(over > 0.0, nu, 0.0), over > 0.0
        sign, direction = np.sign(near), np.sign(near - p.x0)
        C = np.concatenate((p.G[live], p.gross[counted] * sign))
        slope = p.mu - self.H @ x - y @ p.G - p.cost * direction - (nu @ p.gross) * sign
        beyond = np.concatenate(((side - p.G @ x)[live], (p.gross_limit - p.gross @ np.abs(x))[counted]))
        move = _saddle(self.H[np.ix_(free, free)], C[:, free], slope[free], beyond)
        x[free] += move[: len(free)]
        y[live] += move[len(free) : len(free) + int(live.sum())]
        nu[counted] += move[len(free) + int(live.sum()) :]
        return x, y, nu

    def rows(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Prices [m] with those that cannot move at their ends, the side each is at, and which may move."""
        p = self.problem
        rows, firm = p.G @ x, 1.0 / self.scale[: self.m]
        up, down = y + (rows - p.g_upper) * firm, y + (rows - p.g_lower) * firm
        ahead = np.where(up > 0.0, up, np.where(down < 0.0, down, 0.0))
        equal = (p.g_lower == p.g_upper) & (p.row_price == np.inf)
        live: BoolArray = equal | ((ahead != 0.0) & (np.abs(ahead) < p.row_price))
        side = np.where(ahead > 0.0, p.g_upper, np.where(equal, p.g_upper, p.g_lower))
        return np.where(live, y, np.minimum(np.maximum(ahead, -p.row_price), p.row_price)), side, live


def _saddle(H: FloatArray, C: FloatArray, slope: FloatArray, beyond: FloatArray) -> FloatArray:
    """The least (x, y) with H x + Cᵀy = slope, C x = beyond, as nearly as can be; rows and columns of one size."""
    K = np.block([[H, C.T], [C, np.zeros((len(C), len(C)))]])
    if not K.size:
        return np.zeros(len(K))
    size = np.ones(len(K))
    for _ in range(5):
        largest = np.abs(K * size * size[:, None]).max(axis=0)
        size /= np.sqrt(np.where(largest > 0.0, largest, 1.0))
    K, wanted = K * size * size[:, None], size * np.concatenate((slope, beyond))
    if not (np.isfinite(K).all() and np.isfinite(wanted).all()):
        return np.full(len(K), np.nan)
    move = lstsq(K, wanted, cond=1e-13, lapack_driver="gelsy", check_finite=False)[0]
    move += lstsq(K, wanted - K @ move, cond=1e-13, lapack_driver="gelsy", check_finite=False)[0]
    return np.asarray(move * size)
