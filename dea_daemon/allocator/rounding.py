"""Whole lots: towards what is held, then lot by lot as near as the rows allow, never over a goal or a limit."""

from dataclasses import replace

import numpy as np

from dea_daemon.allocator.certificate import objective
from dea_daemon.allocator.problem import Problem
from dea_daemon.domain.instruments import FloatArray, IntArray

WHOLE = 1e-9  # of a lot: nearer than this to a whole one is a whole one


def to_lots(problem: Problem, x: FloatArray, lot_usd: FloatArray) -> IntArray:
    """Lots [n] near x [n] USD. Each position moves from x0 towards x by whole lots, rounded down; then those that lost
    most of one take a last lot more while that makes the book better, passes no soft row's interval from one side to
    the other, and breaks no limit further than x0 does. So what a row is to keep the sign of, keeps it."""
    held = np.rint(problem.x0 / lot_usd)
    wanted = (x - problem.x0) / lot_usd
    moved = np.trunc(wanted + np.sign(wanted) * WHOLE)
    lots = held + moved
    left = np.where(np.abs(wanted - moved) > WHOLE, np.sign(wanted), 0.0)
    while (candidates := np.flatnonzero(left)).size:
        best = _best_lot(problem, lots * lot_usd, left[candidates] * lot_usd[candidates], candidates)
        if best is None:
            break
        lots[best] += left[best]
        left[best] = 0.0
    return lots.astype(np.int64)


def _best_lot(problem: Problem, x: FloatArray, step: FloatArray, at: IntArray) -> int | None:
    """Which of the contracts `at` [c], each by its `step` [c] USD, improves the book most; None: none does."""
    after = x[at] + step
    better = _gain(problem, x, step, at)
    allowed = (after >= problem.lower[at]) & (after <= problem.upper[at])
    before, then = problem.G @ x, problem.G[:, at] * step
    then += before[:, None]  # [m, c]
    low, high = problem.g_lower[:, None], problem.g_upper[:, None]
    soft = (problem.row_price < np.inf)[:, None]
    outside_before = _outside(problem, x)[:, None]
    outside = np.maximum(np.maximum(then - high, low - then), 0.0)
    slack = 1e-9 * np.maximum(1.0, np.abs(before))[:, None]
    crosses = ((before[:, None] < high) & (then > high + slack)) | ((before[:, None] > low) & (then < low - slack))
    allowed &= ~((soft & crosses) | (~soft & (outside > outside_before + slack))).any(axis=0)
    if problem.gross_limit.size:
        grows = problem.gross[:, at] * (np.abs(after) - np.abs(x[at]))
        total = (problem.gross @ np.abs(x))[:, None] + grows
        allowed &= ~((total > problem.gross_limit[:, None] * (1.0 + 1e-12)) & (grows > 0.0)).any(axis=0)
    with np.errstate(invalid="ignore"):  # of a hard row: ∞ · 0
        better += np.where(soft, problem.row_price[:, None] * (outside_before - outside), 0.0).sum(axis=0)
    better = np.where(allowed, better, -np.inf)
    best = int(np.argmax(better))
    return int(at[best]) if better[best] > 0.0 else None


def _gain(problem: Problem, x: FloatArray, step: FloatArray, at: IntArray) -> FloatArray:
    """[c] by how much each step lowers cost and risk, rows aside."""
    slope = problem.B @ (problem.omega @ (problem.B.T @ x)) + problem.d * x - problem.mu
    curvature = np.einsum("ck,kl,cl->c", problem.B[at], problem.omega, problem.B[at]) + problem.d[at]
    trade = problem.cost[at] * (np.abs(x[at] + step - problem.x0[at]) - np.abs(x[at] - problem.x0[at]))
    return np.asarray(-(slope[at] * step + 0.5 * curvature * step**2 + trade))


def rounding_loss(problem: Problem, x: FloatArray, rounded: FloatArray, prices: FloatArray) -> float:
    """USD ≥ 0 by which the rounded book is worse than x: cost and risk, and what it is further from its rows at their
    shadow `prices` [m]."""
    rows_apart = replace(problem, row_price=np.full(len(problem.row_price), np.inf))
    lost = objective(rows_apart, rounded) - objective(rows_apart, x)
    further = _outside(problem, rounded) - _outside(problem, x)
    return max(float(lost + np.abs(prices) @ np.maximum(further, 0.0)), 0.0)


def _outside(problem: Problem, x: FloatArray) -> FloatArray:
    """[m] how far each row is beyond its interval."""
    rows = problem.G @ x
    return np.maximum(np.maximum(rows - problem.g_upper, problem.g_lower - rows), 0.0)
