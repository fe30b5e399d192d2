"""Is it free of arbitrage, between the nodes too? Nothing is published before this says so."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.pricing.surface.lattice import lattice
from dea_daemon.pricing.surface.surface import Surface

K_CHECKED = 1.5
BETWEEN = 8  # points in each interval of the lattice
LEAST_G = 1e-8  # a margin for what lies between the points


class Checked(NamedTuple):
    """min_g: least of Gatheral's g over smiles and points; calendar: adjacent pairs whose total variance falls."""

    min_g: float
    calendar: int

    @property
    def free(self) -> bool:
        return self.min_g >= LEAST_G and self.calendar == 0  # NaN is not


def check(surface: Surface) -> Checked:
    """Butterflies of every smile, and every adjacent pair in time, on |k| ≤ 1.5."""
    k = _points(surface.grid.scale)
    count = len(surface.smiles)
    smile = np.repeat(np.arange(count), len(k))
    w, first, second = (column.reshape(count, -1) for column in surface.total_variance(smile, np.tile(k, count)))
    least = butterfly(k, w, first, second).min()
    falls = ~(np.diff(w, axis=0) >= 0.0)
    return Checked(float(least), int(falls.any(axis=1).sum()))


def butterfly(k: FloatArray, w: FloatArray, first: FloatArray, second: FloatArray) -> FloatArray:
    """g(k): the density is g times something positive. Source: Gatheral & Jacquier 2014, eq. 2.2."""
    return np.asarray((1.0 - 0.5 * k * first / w) ** 2 - 0.25 * first**2 * (1.0 / w + 0.25) + 0.5 * second)


@lru_cache(maxsize=64)
def _points(scale: float) -> FloatArray:
    """k [·] at the nodes of a lattice and between them, up to 1.5."""
    grid = lattice(scale)
    u = (grid.u[:-1, None] + grid.step * np.arange(BETWEEN) / BETWEEN).ravel()
    k = scale * np.sinh(u)
    return np.concatenate(([-K_CHECKED], k[np.abs(k) < K_CHECKED], [K_CHECKED]))
