"""A problem in the solver's coordinates: factors of unit risk, rows and gross limits of one size."""

import numpy as np
from scipy.linalg.lapack import dpstrf, dtrtrs

from dea_daemon.allocator.problem import Multipliers, Problem
from dea_daemon.domain.errors import ProblemError
from dea_daemon.domain.instruments import FloatArray

TINY = 1e-300


class Scaled:
    """At [n, p]: Fᵀ [n, k'] with FᵀF = BΩBᵀ, k' the rank of Ω; then the rows G and the gross limits, each divided by
    `scale` [m + q], its norm by the curvature d or, where that is less, firm · stiffness. `up`, `down` [m + q] are
    their limits, `least` ≤ y ≤ `most` how far their multipliers may go."""

    def __init__(self, problem: Problem, firm: float) -> None:
        root = self.root = Root(problem)
        self.k, m, q = root.rank, len(problem.g_lower), len(problem.gross_limit)
        split = self.k + m
        self.At = At = np.empty((len(problem.mu), split + q))
        At[:, : self.k] = root.Ft
        if m:
            At[:, self.k : split] = problem.G.T
        if q:
            At[:, split:] = problem.gross.T
        self.smooth, self.gross, rows = At[:, :split], At[:, split:], At[:, self.k :]
        self.stiffness = _stiffness(problem, root.curvature)
        inverse = 1.0 / np.maximum(problem.d, firm * self.stiffness)
        self.scale = np.sqrt(inverse.dot(rows * rows))
        if np.count_nonzero((self.scale > 0.0) & (self.scale < np.inf)) < len(self.scale):
            self.scale[~((self.scale > 0.0) & (self.scale < np.inf))] = 1.0
        rows /= self.scale
        self._limits(problem)
        self.kinks, self.side = (np.minimum(problem.x0, 0.0), np.maximum(problem.x0, 0.0)), np.sign(problem.x0)

    def _limits(self, problem: Problem) -> None:
        """A gross limit is a row without a lower side."""
        q = len(problem.gross_limit)
        self.price = np.concatenate((problem.row_price, np.full(q, np.inf)))
        self.up = np.concatenate((problem.g_upper, problem.gross_limit)) / self.scale
        self.down = np.concatenate((problem.g_lower, np.full(q, -np.inf))) / self.scale
        self.soft = self.price < np.inf
        self.most = np.where(self.up < np.inf, self.price * self.scale, 0.0)
        self.least = np.where(self.down > -np.inf, -self.price * self.scale, 0.0)
        self.equal = self.up == self.down
        self.any_equal, self.any_soft = bool(np.count_nonzero(self.equal)), bool(np.count_nonzero(self.soft))
        self.rows = len(problem.g_lower)

    def dual(self, start: Multipliers | None) -> FloatArray:
        """λ [p]; zeros where there is no start, or it is of another problem."""
        dual = np.zeros(self.At.shape[1])
        if start is None or (len(start.u), len(start.y)) != (len(self.root.size), self.rows):
            return dual
        if len(start.nu) != len(self.up) - self.rows:
            return dual
        dual[: self.k] = self.root.to_scaled(start.u)
        rows = np.concatenate((start.y, start.nu)) * self.scale
        dual[self.k :] = np.minimum(np.maximum(rows, self.least), self.most)
        return dual if np.isfinite(dual).all() else np.zeros(self.At.shape[1])

    def multipliers(self, dual: FloatArray) -> Multipliers:
        """Dividing may round beyond a row's price: cut."""
        rows = dual[self.k :] / self.scale
        rows = np.minimum(np.maximum(rows, -self.price), self.price)
        return Multipliers(self.root.to_exposures(dual[: self.k]), rows[: self.rows], rows[self.rows :])


class Root:
    """Ft [n, k'] with Ft Ftᵀ = BΩBᵀ, by a pivoted Cholesky factor of Ω with B's columns brought to one size.
    ProblemError where Ω is not symmetric positive semidefinite."""

    def __init__(self, problem: Problem) -> None:
        k = len(problem.omega)
        self.rank, self.size = 0, np.ones(k)
        self.Ft, self.curvature = np.zeros((len(problem.mu), 0)), np.zeros(len(problem.mu))
        self.F = self.Ft.T
        if not problem.B.size:
            return
        self.size = np.maximum.reduce(np.abs(problem.B), axis=0)
        self.size[self.size == 0.0] = 1.0
        omega = problem.omega * self.size[:, None] * self.size
        factor, pivot, self.rank, _ = dpstrf(omega, lower=1)
        self.pivot = pivot - 1
        lower = (factor * np.tri(k))[:, : self.rank]
        self.root = np.empty((k, self.rank))
        self.root[self.pivot] = lower
        off = np.abs(omega - self.root.dot(self.root.T))
        if not np.maximum.reduce(off, axis=None) <= 1e-10 * float(np.maximum.reduce(np.abs(omega), axis=None)):
            raise ProblemError("omega is not symmetric positive semidefinite")
        self.lower = np.asfortranarray(lower[: self.rank])
        self.Ft = (problem.B / self.size).dot(self.root)
        self.F = self.Ft.T
        self.curvature = np.add.reduce(self.Ft * self.Ft, axis=1)

    def to_scaled(self, u: FloatArray) -> FloatArray:
        """F's coordinates [k'] of the exposures u [k]."""
        scaled: FloatArray = (u / self.size) @ self.root if self.rank else np.zeros(0)
        return scaled

    def to_exposures(self, u: FloatArray) -> FloatArray:
        """Exposures [k] of which these are F's coordinates; Ω's null space is left at zero."""
        found = np.zeros(len(self.size))
        if self.rank:
            found[self.pivot[: self.rank]] = dtrtrs(self.lower, u, lower=1, trans=1)[0]
            found *= self.size
        return found


def _stiffness(problem: Problem, curvature: FloatArray) -> FloatArray:
    """The curvature [n] beside which d may be called small: the factors', or what turns the slope across the box."""
    width = problem.upper - problem.lower
    largest = max(float(width[width < np.inf].max(initial=0.0)), float(np.abs(problem.x0).max(initial=0.0)))
    width = np.minimum(np.maximum(width, 1e-6 * largest), largest) if largest > 0.0 else np.ones_like(width)
    slope = np.abs(problem.mu) + problem.cost
    stiffness: FloatArray = np.maximum(curvature + problem.d, slope / width) + TINY
    return stiffness
