"""One expiry: the local variance since the one before that takes its smile through its quotes.

v = v_min + e^{Bp}: B [NODES, P] values of a natural cubic spline in z = k/√w_atm with knots where the quotes are, flat
outside. p minimises, over quotes, 0.35 Huber((σ − mid)/error) + smooth L1 of what is beyond 85 % of the half-spread,
in errors; plus a penalty on the curvature of ln v and a weak pull to p0. By Levenberg–Marquardt with weights that are
renewed at every step.
"""

from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.pricing.black import INV_SQRT_2PI
from dea_daemon.pricing.implied import implied_volatility
from dea_daemon.pricing.surface.lattice import NODES, Lattice
from dea_daemon.pricing.surface.step import Bands, by_local, step

STEPS_MAX = 25
FLOOR = 0.002  # of the expiry's variance at the money: the least local variance
LEAST_GROWTH = 0.02  # likewise, what p0 takes the step's to be at least
BAND = 0.85  # of the half-spread: beyond it a quote pulls
MID_WEIGHT, HUBER, CORNER = 0.35, 1.5, 0.1
SMOOTH, PULL = 0.01, 1e-4
KNOTS_MIN, KNOTS_MAX, QUOTES_PER_KNOT = 6, 16, 1.8
BY_QUOTES = 0.6  # of the knots stand at quantiles of the quotes, the others evenly
BESIDE = 1.5  # of a standard deviation: the knots outside the quotes
MARGIN = 8  # nodes beyond the quotes that a spline through them still feels
LIFT = 1.0  # steps longer than this, in ln v, are cut


class Points(NamedTuple):
    """What a smile should pass, [Q] each, in order of k: volatility, how exact, the half-width within which it may
    lie as it likes; of `ceiling` points only what is above counts, and only as squares."""

    k: FloatArray
    iv: FloatArray
    error: FloatArray
    half: FloatArray
    ceiling: FloatArray  # 1.0 or 0.0


class Knots(NamedTuple):
    basis: FloatArray  # B [NODES, P]
    penalty: FloatArray  # [P, P]: p'·penalty·p is the integral of (d² ln v/dz²)² dz


class Stepped(NamedTuple):
    """A step's end: time value and local variance [NODES]."""

    value: FloatArray
    local: FloatArray


def calibrate(
    grid: Lattice, before: FloatArray, atm: float, growth: float, tau_years: float, points: Points, count: int
) -> Stepped:
    """From time value `before` [NODES] through `points`. atm: total variance at the money, growth: by how much more
    than the expiry before; count: quotes, which decide how many knots there are."""
    root = float(np.sqrt(atm))
    knots = make_knots(grid, points.k[points.ceiling == 0.0], root, count)
    problem = _Problem(grid, before, FLOOR * atm, tau_years, points, knots)
    p0 = np.full(knots.basis.shape[1], np.log(max(growth, LEAST_GROWTH * atm)))
    return problem.solve(p0)


def make_knots(grid: Lattice, k: FloatArray, root: float, count: int) -> Knots:
    """60 % at quantiles of k [Q], the others evenly between its ends, and one beyond each."""
    n = int(np.clip(np.round(count / QUOTES_PER_KNOT), KNOTS_MIN, KNOTS_MAX)) - 2
    quantiles = int(round(BY_QUOTES * n))
    low, high = min(float(k[0]), 0.0), max(float(k[-1]), 0.0)
    inner = np.concatenate(
        (
            np.quantile(k, np.linspace(0.0, 1.0, quantiles)),
            np.linspace(low, high, n - quantiles + 2)[1:-1],
            (low - BESIDE * root, high + BESIDE * root, low, high),
        )
    )
    z = _apart(np.sort(inner) / root)
    spline = CubicSpline(z, np.eye(len(z)), bc_type="natural")
    at = np.clip(grid.k / root, z[0], z[-1])
    second = spline(z, 2)  # [P knots, P]: piecewise linear between them
    width = np.diff(z)[:, None, None]
    a, b = second[:-1, :, None], second[1:, :, None]
    at_left, at_right = second[:-1, None, :], second[1:, None, :]
    penalty = (width / 6.0 * (2.0 * a * at_left + a * at_right + b * at_left + 2.0 * b * at_right)).sum(axis=0)
    return Knots(spline(at), penalty)


def _apart(z: FloatArray) -> FloatArray:
    """Knots in order, those nearer than a twentieth of a standard deviation to the last one kept left out."""
    kept = [float(z[0])]
    for value in z[1:].tolist():
        if value - kept[-1] > 0.05:
            kept.append(value)
    return np.array(kept)


class _Problem:
    """The residuals of one expiry as functions of p."""

    def __init__(
        self, grid: Lattice, before: FloatArray, floor: float, tau_years: float, points: Points, knots: Knots
    ) -> None:
        self._grid, self._before, self._floor, self._tau = grid, before, floor, tau_years
        self._points, self._knots = points, knots
        at = np.searchsorted(grid.k, (points.k[0], points.k[-1]))
        self._span = slice(max(int(at[0]) - MARGIN, 1), min(int(at[1]) + MARGIN, NODES - 1))
        n = self._span.stop - self._span.start
        u = np.arcsinh(points.k / grid.scale)
        # A spline is linear in its values: [Q, n] takes those at nodes to the quotes.
        self._to_points = CubicSpline(grid.u[self._span], np.eye(n), bc_type="natural")(u)
        self._basis = np.asfortranarray(knots.basis)
        size = knots.basis.shape[1]
        self._regular = 2.0 * (SMOOTH * knots.penalty + PULL * np.eye(size))

    def solve(self, p0: FloatArray) -> Stepped:
        """Levenberg–Marquardt from p0."""
        p, damping = p0, 1e-2
        value, local, matrix, sd = self._step(p)
        sigma = self._volatility(sd)
        cost = self._cost(sigma, p, p0)
        for _ in range(STEPS_MAX):
            slope, curvature = self._normal(sigma, self._jacobian(value, local, matrix, sd, sigma))
            slope = slope + self._regular @ p - 2.0 * PULL * p0
            curvature = curvature + self._regular
            better = False
            for _ in range(6):
                damped = curvature + damping * np.diag(np.diag(curvature))
                move = -np.linalg.solve(damped, slope)
                move *= min(1.0, LIFT / float(np.abs(move).max()))
                new = p + move
                new_value, new_local, new_matrix, new_sd = self._step(new)
                new_sigma = self._volatility(new_sd)
                new_cost = self._cost(new_sigma, new, p0)
                if new_cost < cost:
                    better = True
                    break
                damping *= 8.0
            if not better:
                break
            gain = cost - new_cost
            p, value, local, matrix, sd, sigma, cost = (
                new, new_value, new_local, new_matrix, new_sd, new_sigma, new_cost,
            )  # fmt: skip
            damping = max(damping / 5.0, 1e-7)
            if gain < 1e-3 * (1e-3 + cost) or np.abs(move).max() < 1e-4:
                break
        return Stepped(value, local)

    def _step(self, p: FloatArray) -> tuple[FloatArray, FloatArray, Bands, FloatArray]:
        local = self._floor + np.exp(self._knots.basis @ p)
        value, matrix = step(self._grid, self._before, local)
        k = self._grid.k[self._span]
        ones = np.ones(len(k))
        sd = implied_volatility(value[self._span], ones, self._grid.x[self._span], ones, k >= 0.0)
        return value, local, matrix, sd

    def _volatility(self, sd: FloatArray) -> FloatArray:
        """σ at the points [Q]."""
        return np.asarray(np.sqrt(np.maximum(self._to_points @ (sd * sd), 1e-12) / self._tau))

    def _jacobian(
        self, value: FloatArray, local: FloatArray, matrix: Bands, sd: FloatArray, sigma: FloatArray
    ) -> FloatArray:
        """∂σ/∂p [Q, P]."""
        half = 0.5 * (local - self._floor) * by_local(self._grid, value, matrix)
        moved = matrix.solve(self._basis * half[:, None])[self._span]
        k = self._grid.k[self._span]
        d1 = 0.5 * sd - k / sd
        vega = INV_SQRT_2PI * np.exp(-0.5 * d1 * d1)
        by_p = moved * (2.0 * sd / np.maximum(vega, 1e-300))[:, None]
        return np.asarray(self._to_points @ by_p) / (2.0 * sigma * self._tau)[:, None]

    def _parts(self, sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(from mid, beyond the band) in errors, signed [Q]."""
        points = self._points
        off = sigma - points.iv
        beyond = np.sign(off) * np.maximum(np.abs(off) - BAND * points.half, 0.0) / points.error
        return off / points.error, beyond

    def _cost(self, sigma: FloatArray, p: FloatArray, p0: FloatArray) -> float:
        r, beyond = self._parts(sigma)
        ceiling = self._points.ceiling
        small = np.abs(r)
        huber = np.where(small <= HUBER, 0.5 * r * r, HUBER * small - 0.5 * HUBER**2)
        quoted = MID_WEIGHT * huber + np.sqrt(beyond**2 + CORNER**2) - CORNER
        above = 0.5 * np.maximum(r, 0.0) ** 2
        cost = float(((1.0 - ceiling) * quoted + ceiling * above).sum())
        away = p - p0
        return cost + float(SMOOTH * p @ self._knots.penalty @ p + PULL * away @ away)

    def _normal(self, sigma: FloatArray, jacobian: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Gradient [P] and approximate Hessian [P, P] of the quotes' part."""
        points = self._points
        r, beyond = self._parts(sigma)
        ceiling = points.ceiling
        mid = MID_WEIGHT * np.minimum(1.0, HUBER / np.maximum(np.abs(r), 1e-12)) * (1.0 - ceiling)
        mid = mid + ceiling * (r > 0.0)
        out = (1.0 - ceiling) / np.sqrt(beyond**2 + CORNER**2)
        pull = (mid * r + out * beyond) / points.error
        weight = (mid + out * (beyond != 0.0)) / points.error**2
        return jacobian.T @ pull, (jacobian * weight[:, None]).T @ jacobian
