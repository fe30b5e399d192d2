"""The nodes all smiles of a surface stand on: k = ln(K/F) = a sinh(u), u uniform, one of them at the money.

Dense about the money and ever coarser outwards; `scale` a is where that begins. It follows the shortest expiry, whose
smile is the narrowest.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline

from dea_daemon.domain.instruments import FloatArray, IntArray

NODES = 161
K_MAX = 4.0  # far outside what is published (|k| ≤ 1.5): boundary values are no one's volatility
SCALE_MAX = 0.1


class Lattice(NamedTuple):
    """k [NODES] and x = e^k; u uniform with `step`; for the second difference in x: below, at and above [NODES] are
    x² times its three weights (0 at the ends, where time value is nothing). cardinal [4, NODES - 1, NODES] are the
    pieces of the natural cubic spline that is 1 at one node and 0 at the others."""

    scale: float
    u_max: float
    step: float
    u: FloatArray
    k: FloatArray
    x: FloatArray
    below: FloatArray
    at: FloatArray
    above: FloatArray
    cardinal: FloatArray

    def place(self, k: FloatArray) -> tuple[FloatArray, IntArray, FloatArray]:
        """(u, interval, distance from its left node) [M] of k [M], no further than the ends."""
        u = np.arcsinh(np.clip(k, -K_MAX, K_MAX) / self.scale)
        interval = np.minimum(((u + self.u_max) / self.step).astype(np.int64), NODES - 2)
        return u, interval, u - self.u[interval]

    def spline(self, k: FloatArray) -> FloatArray:
        """[M, NODES]: what takes values at the nodes to those at k [M], by a natural cubic spline in u."""
        _, interval, d = self.place(k)
        a, b, c, e = self.cardinal[:, interval]
        away = d[:, None]
        return np.asarray(((a * away + b) * away + c) * away + e)


@lru_cache(maxsize=16)
def lattice(scale: float = SCALE_MAX) -> Lattice:
    """The nodes of one scale. Arrays are shared: not to be written."""
    u_max = float(np.arcsinh(K_MAX / scale))
    u = np.linspace(-u_max, u_max, NODES)
    u[NODES // 2] = 0.0
    k = scale * np.sinh(u)
    x = np.exp(k)
    below, at, above = (np.zeros(NODES) for _ in range(3))
    left, right = np.diff(x)[:-1], np.diff(x)[1:]
    square = x[1:-1] ** 2
    below[1:-1] = 2.0 * square / (left * (left + right))
    above[1:-1] = 2.0 * square / (right * (left + right))
    at[1:-1] = -(below + above)[1:-1]
    cardinal = CubicSpline(u, np.eye(NODES), bc_type="natural").c
    grid = Lattice(scale, u_max, 2.0 * u_max / (NODES - 1), u, k, x, below, at, above, cardinal)
    for array in grid[3:]:
        array.setflags(write=False)
    return grid


def scale_for(first_sd: float) -> float:
    """The scale for a surface whose shortest smile is `first_sd` = σ√τ wide: a few nodes to each of its standard
    deviations. In powers of √2, so that few are ever made."""
    wanted = max(2.5 * first_sd, 1e-3)
    return float(min(SCALE_MAX, 2.0 ** (np.floor(2.0 * np.log2(wanted)) / 2.0)))
