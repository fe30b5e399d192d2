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
from dea_daemon.pricing.implied import implied_volatility
from dea_daemon.pricing.surface.lattice import NODES, Lattice

MIDDLE = NODES // 2
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


def total_sd(grid: Lattice, value: FloatArray) -> FloatArray:
    """σ√τ [NODES] of time value; where that is too small to have one, the nearest node's that has."""
    sd = implied_volatility(value, _FORWARD, grid.x, _YEAR, grid.k >= 0.0)
    if np.isnan(sd).any():
        known = np.flatnonzero(np.isfinite(sd))
        if not len(known):
            raise ArithmeticError("no node has a volatility")
        sd = np.interp(np.arange(NODES), known, sd[known])
    return sd


def _source(grid: Lattice) -> float:
    """x² δxx (1 − x)⁺ at x = 1: its slope goes from −1 to 0 there."""
    return float(grid.below[MIDDLE] * (grid.x[MIDDLE] - grid.x[MIDDLE - 1]))
