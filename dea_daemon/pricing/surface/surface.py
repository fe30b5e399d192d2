"""A fitted surface: total variance of every expiry as a cubic spline over the lattice, and what it says between."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY
from dea_daemon.domain.surfaces import Smile
from dea_daemon.pricing.surface.lattice import Lattice, lattice

YEAR_NS = DAYS_PER_YEAR * NS_PER_DAY
BEYOND_SD = 0.1  # so far outside its quotes, in σ√τ, a smile is still known: further out the venue's mark is better
TELLING = 3  # quotes: fewer do not tell a smile


class Looked(NamedTuple):
    """What a surface says of M options: volatility, its slope dσ/dk, and whether their quotes or their neighbours'
    say so (False: extrapolated, or of an expiry nobody quotes)."""

    iv: FloatArray
    slope: FloatArray
    known: BoolArray


class Surface:
    """Smiles of one underlying as they stood at `utc_ns`, in order of expiry, at least one. Immutable.

    variance [S, NODES] total variance; tau_years, forward, atm [S]; expiry_ns [S]; told [S]: by enough quotes.
    """

    def __init__(self, utc_ns: int, scale: float, smiles: Sequence[Smile]) -> None:
        self.utc_ns = utc_ns
        self.grid: Lattice = lattice(scale)
        self.smiles = tuple(smiles)
        self.variance: FloatArray = np.array([smile.variance for smile in smiles])
        self.expiry_ns: IntArray = np.array([smile.expiry_ns for smile in smiles], dtype=np.int64)
        self.tau_years: FloatArray = (self.expiry_ns - utc_ns) / YEAR_NS
        self.forward: FloatArray = np.array([smile.forward for smile in smiles])
        self.atm: FloatArray = np.sqrt(self.variance[:, len(self.grid.k) // 2] / self.tau_years)
        room = BEYOND_SD * self.atm * np.sqrt(self.tau_years)
        self._low = np.array([smile.low for smile in smiles]) - room
        self._high = np.array([smile.high for smile in smiles]) + room
        self.told: BoolArray = np.array([smile.quotes >= TELLING for smile in smiles])
        # [4, NODES - 1, S]: highest power first, in u from each node's left.
        self._pieces: FloatArray = self.grid.cardinal @ self.variance.T

    def total_variance(self, smile: IntArray, k: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """w, dw/dk and d²w/dk² [M] of smiles [M] at k [M]; flat beyond the lattice."""
        grid = self.grid
        u, place, d = grid.place(k)
        a, b, c, e = self._pieces[:, place, smile]
        stretch = grid.scale * np.cosh(u)  # dk/du
        first = ((3.0 * a * d + 2.0 * b) * d + c) / stretch
        second = (6.0 * a * d + 2.0 * b - first * grid.scale * np.sinh(u)) / stretch**2
        return ((a * d + b) * d + c) * d + e, first, second

    def look_up(self, expiry_ns: IntArray, k: FloatArray) -> Looked:
        """Of M options at k = ln(K/F), F the forward the caller has moved the smile with, or left it at.

        An expiry of its own is its smile; between two, total variance is linear in time at one k; before the first
        and behind the last volatility is theirs.
        """
        right = np.minimum(np.searchsorted(self.expiry_ns, expiry_ns), len(self.smiles) - 1)
        exact = self.expiry_ns[right] == expiry_ns
        beside = (expiry_ns > self.expiry_ns[right]) | (right == 0)  # flat in time, or exact
        left = np.where(exact | beside, right, right - 1)
        tau = np.where(exact | beside, self.tau_years[right], (expiry_ns - self.utc_ns) / YEAR_NS)
        w, dw, _ = self.total_variance(right, k)
        inner = left != right
        if inner.any():
            w_left, dw_left, _ = self.total_variance(left, k)
            gap = np.where(inner, self.tau_years[right] - self.tau_years[left], 1.0)
            share = np.where(inner, (self.tau_years[right] - tau) / gap, 0.0)
            w, dw = w + share * (w_left - w), dw + share * (dw_left - dw)
        iv = np.sqrt(w / tau)
        known = exact & self.told[right] & (k >= self._low[right]) & (k <= self._high[right])
        return Looked(iv, dw / (2.0 * iv * tau), known)
