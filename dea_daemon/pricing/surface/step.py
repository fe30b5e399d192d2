"""One implicit step of local variance: time values of one expiry from those of the one before, free of arbitrage.

With the forward 1, c(x) = o(x) + (1 − x)⁺ and a local variance v(x) ≥ 0 over the step,
(I − ½ v x² δxx) o_i = o_{i−1} + ½ v x² δxx (1 − x)⁺, whose source is nothing but at x = 1. The matrix is an M-matrix:
o stays positive, convex with the intrinsic value, and grows with time, whatever v. Working on time value alone, deep
wings keep their relative accuracy. Source: Andreasen & Huge 2011, Volatility interpolation, eq. 4 and 5.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.pricing import black
from dea_daemon.pricing.black import INV_SQRT_2PI
from dea_daemon.pricing.implied import householder, implied_volatility
from dea_daemon.pricing.surface.lattice import NODES, Lattice

MIDDLE = NODES // 2
SHALLOW = 1e-13  # of the least of forward and strike: time values above it have their volatility from the table
ROUNDS = 5  # for the others, which come to rest within three
NEAR, FAR = 0.05, 0.5  # a guess no further off is within 1e-5 after a step; or is none
REFINED = 3
_FORWARD, _YEAR = np.ones(NODES), np.ones(NODES)


class Bands(NamedTuple):
    """A = I − ½ v x² δxx by its diagonals, [NODES − 1], [NODES], [NODES − 1]."""

    below: FloatArray
    at: FloatArray
    above: FloatArray

    def solve(self, right: FloatArray) -> FloatArray:
        """A⁻¹ of [NODES] or [NODES, M]."""
        *_, x, info = lapack.dgtsv(self.below, self.at, self.above, right)
        if info != 0:
            raise ArithmeticError(f"singular step: {info}")  # not with v ≥ 0
        return np.asarray(x)


def lognormal(grid: Lattice, variance: float) -> FloatArray:
    """Time value o [NODES] of a flat smile of total variance `variance`."""
    sd = np.full(NODES, np.sqrt(variance))
    value = black.price(_FORWARD, grid.x, _YEAR, sd, grid.k >= 0.0)
    value[0] = value[-1] = 0.0
    return np.asarray(value)


def bands(grid: Lattice, local: FloatArray) -> Bands:
    """Of local variance [NODES] over the step."""
    half = 0.5 * local
    return Bands(-(half * grid.below)[1:], 1.0 - half * grid.at, -(half * grid.above)[:-1])


def step(grid: Lattice, before: FloatArray, local: FloatArray) -> tuple[FloatArray, Bands]:
    """Time value [NODES] after a step from `before` [NODES] with local variance [NODES], and the step's matrix."""
    matrix = bands(grid, local)
    right = before.copy()
    right[MIDDLE] += 0.5 * local[MIDDLE] * _source(grid)
    return matrix.solve(right), matrix


def by_local(grid: Lattice, after: FloatArray, matrix: Bands) -> FloatArray:
    """x² δxx c [NODES] of the step's result: A⁻¹ of half of it times a change of v is the change of `after`."""
    curvature = grid.at * after
    curvature[1:] += (grid.below)[1:] * after[:-1]
    curvature[:-1] += (grid.above)[:-1] * after[1:]
    curvature[MIDDLE] += _source(grid)
    return curvature


def total_sd(k: FloatArray, value: FloatArray) -> FloatArray:
    """σ√τ [M] of time values [M] at k = ln(K/F), in order; where one is nothing, as at both ends of the lattice, the
    nearest that has one."""
    sd = np.full(len(k), np.nan)
    x = np.exp(k)
    shallow = value > SHALLOW * np.minimum(x, 1.0)
    ones, strike = np.ones(int(shallow.sum())), x[shallow]
    sd[shallow] = implied_volatility(value[shallow], ones, strike, ones, strike >= 1.0)
    deep = ~shallow & (value > 0.0)
    if deep.any():
        sd[deep] = _deep(k[deep], np.log(value[deep]))
    known = np.isfinite(sd)
    if known.all():
        return sd
    if not known.any():
        raise ArithmeticError("no node has a volatility")
    at = np.arange(len(k))
    return np.asarray(np.interp(at, at[known], sd[known]))


def refined_sd(k: FloatArray, value: FloatArray, guess: FloatArray) -> FloatArray:
    """`total_sd` from a guess [M]: steps of third order on the logarithm of the price, each of whose errors is about
    the fourth power of the one before's; where that does not settle, from the beginning."""
    sd, log_value = guess, np.log(value)
    for _ in range(REFINED):
        step, moved = _stepped(k, log_value, sd)
        off = np.abs(step).max()
        if off < NEAR:
            return moved
        if not off < FAR:
            break
        sd = moved
    return total_sd(k, value)


def _deep(k: FloatArray, log_value: FloatArray) -> FloatArray:
    """σ√τ of time values too small for a table."""
    s = np.abs(k) / np.sqrt(-2.0 * (log_value - 0.5 * k))  # where only the exponent counts
    for _ in range(ROUNDS):
        s *= np.exp(np.clip(_stepped(k, log_value, s)[0], -0.5, 0.5))
    return np.asarray(s)


def _stepped(k: FloatArray, log_value: FloatArray, s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(relative step, s after it) towards the logarithm of a time value."""
    x, t = -np.abs(k), 0.5 * s
    h = x / s
    log_b = black.log_normalised(x, s)
    slope = s * INV_SQRT_2PI * np.exp(-0.5 * (h * h + t * t) - log_b)
    step = householder(log_b - log_value + 0.5 * k, slope, h, t)
    return step, s + s * step


def _source(grid: Lattice) -> float:
    """x² δxx (1 − x)⁺ at x = 1: its slope goes from −1 to 0 there."""
    return float(grid.below[MIDDLE] * (grid.x[MIDDLE] - grid.x[MIDDLE - 1]))
