"""One expiry: the local variance since the one before that takes its smile through its quotes.

v = v_min + e^{Bp}: B [NODES, P] values of a natural cubic spline in z = k/√w_atm with knots where the quotes are, flat
outside. p minimises, over quotes, 0.35 Huber((σ − mid)/error) + smooth L1 of what is beyond 85 % of the half-spread,
in errors; plus a penalty on the curvature of ln v and a weak pull to p0. By Levenberg–Marquardt with weights that are
renewed at every step.
"""

from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline

from dea_daemon.domain.instruments import BoolArray, FloatArray
from dea_daemon.pricing.black import INV_SQRT_2PI
from dea_daemon.pricing.surface.lattice import NODES, Lattice
from dea_daemon.pricing.surface.step import Bands, by_local, step, total_sd

STEPS_MAX = 25
FLOOR = 0.002  # of the expiry's variance at the money: the least local variance
LEAST_GROWTH = 0.02  # likewise, what p0 takes the step's to be at least
BAND = 0.75  # of the half-spread: beyond it a quote pulls
MID_WEIGHT, HUBER, CORNER = 0.35, 1.5, 0.1
SMOOTH, PULL = 0.01, 1e-4
KNOTS_MIN, KNOTS_MAX, QUOTES_PER_KNOT = 6, 16, 1.8
BY_QUOTES = 0.6  # of the knots stand at quantiles of the quotes, the others evenly
BESIDE = 1.0  # standard deviations: the knots outside the quotes
MARGIN = 6  # nodes beyond the quotes that a spline through them still feels
LIFT = 1.0  # steps longer than this, in ln v, are cut
TRIES_MAX = 6  # to find a step that helps
SETTLED = 5e-3  # of the cost
LEAST_APART = 0.05  # knots, in standard deviations
LEAST_VEGA, MOST_LOG = 1e-100, 20.0


class Points(NamedTuple):
    """What a smile should pass, [Q] each, in order of k: volatility, how exact, the half-width within which it may
    lie as it likes; of `ceiling` points only what is above counts, and only as squares."""

    k: FloatArray
    iv: FloatArray
    error: FloatArray
    half: FloatArray
    ceiling: BoolArray


class Knots(NamedTuple):
    basis: FloatArray  # B [NODES, P]
    penalty: FloatArray  # [P, P]: p'·penalty·p is the integral of (d² ln v/dz²)² dz


class Trial(NamedTuple):
    """Where p leads: local variance and time value [NODES], the step's matrix, σ√τ at the nodes about the quotes, σ at
    the points [Q], and what it costs."""

    p: FloatArray
    local: FloatArray
    value: FloatArray
    matrix: Bands
    sd: FloatArray
    iv: FloatArray
    cost: float


def calibrate(
    grid: Lattice,
    before: FloatArray,
    points: Points,
    tau_years: float,
    atm: float,
    growth: float,
    count: int,
    smooth: float = 1.0,
) -> Trial:
    """From time value `before` [NODES] through `points`. atm: total variance at the money, growth: by how much more
    than the expiry before; count: points that are no ceiling, which decide how many knots there are; smooth: times
    the usual penalty.
    """
    root = float(np.sqrt(atm))
    knots = make_knots(grid, points.k[~points.ceiling], root, count)
    p0 = np.full(knots.basis.shape[1], np.log(max(growth, LEAST_GROWTH * atm)))
    return _Problem(grid, before, FLOOR * atm, tau_years, points, knots, p0, smooth).solve()


def make_knots(grid: Lattice, k: FloatArray, root: float, count: int) -> Knots:
    """60 % at quantiles of k [Q], the others evenly between its ends, and one beyond each."""
    n = int(np.clip(np.round(count / QUOTES_PER_KNOT), KNOTS_MIN, KNOTS_MAX)) - 2
    quantiles = round(BY_QUOTES * n)
    low, high = min(float(k[0]), 0.0), max(float(k[-1]), 0.0)
    ends = (low - BESIDE * root, low, high, high + BESIDE * root)
    even = np.linspace(low, high, n - quantiles + 2)[1:-1]
    z = _apart(np.sort(np.concatenate((np.quantile(k, np.linspace(0.0, 1.0, quantiles)), even, ends))) / root)
    spline = CubicSpline(z, np.eye(len(z)), bc_type="natural")
    second, width = spline(z, 2), np.diff(z)[:, None, None]  # linear between knots: its square is integrated exactly
    a, b = second[:-1], second[1:]
    left, right = a[:, :, None] * a[:, None, :], b[:, :, None] * b[:, None, :]
    cross = a[:, :, None] * b[:, None, :]
    penalty = (width / 3.0 * (left + right + 0.5 * (cross + cross.transpose(0, 2, 1)))).sum(axis=0)
    return Knots(spline(np.clip(grid.k / root, z[0], z[-1])), penalty)


def _apart(z: FloatArray) -> FloatArray:
    """Knots in order, without those nearer than a twentieth of a standard deviation to the last one kept."""
    kept = [float(z[0])]
    for value in z[1:].tolist():
        if value - kept[-1] > LEAST_APART:
            kept.append(value)
    return np.array(kept)


class _Problem:
    """The cost of one expiry as a function of p, and its least."""

    def __init__(
        self,
        grid: Lattice,
        before: FloatArray,
        floor: float,
        tau_years: float,
        points: Points,
        knots: Knots,
        p0: FloatArray,
        smooth: float,
    ) -> None:
        self._grid, self._before, self._floor, self._tau = grid, before, floor, tau_years
        self._points, self._p0 = points, p0
        first, last = np.searchsorted(grid.k, (points.k[0], points.k[-1])).tolist()
        span = slice(max(first - MARGIN, 1), min(last + MARGIN, NODES - 1))
        self._span, self._k = span, grid.k[span]
        self._to_points = grid.spline(points.k)[:, span]
        self._basis = knots.basis
        self._penalty = SMOOTH * smooth * knots.penalty + PULL * np.eye(len(p0))

    def solve(self) -> Trial:
        """Levenberg–Marquardt from p0, its weights those of the loss where it stands."""
        now, damping = self._try(self._p0), 1e-2
        for _ in range(STEPS_MAX):
            slope, normal = self._normal(now)
            for _ in range(TRIES_MAX):
                move = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -slope)
                move *= min(1.0, LIFT / max(float(np.abs(move).max()), LIFT))
                then = self._try(now.p + move)
                if then.cost < now.cost:
                    break
                damping *= 8.0
            else:
                return now
            settled = now.cost - then.cost < SETTLED * (SETTLED + then.cost)
            now, damping = then, max(damping / 5.0, 1e-7)
            if settled:
                break
        return now

    def _try(self, p: FloatArray) -> Trial:
        local = self._floor + np.exp(np.minimum(self._basis @ p, MOST_LOG))
        value, matrix = step(self._grid, self._before, local)
        sd = total_sd(self._k, value[self._span])
        iv = np.sqrt(np.maximum(self._to_points @ (sd * sd), 1e-12) / self._tau)
        return Trial(p, local, value, matrix, sd, iv, self._cost(iv, p))

    def _cost(self, iv: FloatArray, p: FloatArray) -> float:
        off, beyond = self._residuals(iv)
        size = np.abs(off)
        huber = np.where(size <= HUBER, 0.5 * size * size, HUBER * (size - 0.5 * HUBER))
        quoted = MID_WEIGHT * huber + np.sqrt(beyond * beyond + CORNER**2) - CORNER
        above = 0.5 * np.maximum(off, 0.0) ** 2
        away = p - self._p0
        return float(np.where(self._points.ceiling, above, quoted).sum() + away @ self._penalty @ away)

    def _residuals(self, iv: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(from mid, beyond the band) [Q], signed, in errors."""
        points = self._points
        off = iv - points.iv
        beyond = np.copysign(np.maximum(np.abs(off) - BAND * points.half, 0.0), off)
        return off / points.error, beyond / points.error

    def _normal(self, now: Trial) -> tuple[FloatArray, FloatArray]:
        """Gradient [P] and Gauss and Newton's Hessian [P, P]."""
        points = self._points
        off, beyond = self._residuals(now.iv)
        mid = MID_WEIGHT * np.minimum(1.0, HUBER / np.maximum(np.abs(off), HUBER))
        mid = np.where(points.ceiling, off > 0.0, mid)
        out = np.where(points.ceiling, 0.0, 1.0 / np.sqrt(beyond * beyond + CORNER**2))
        weight = (mid + out * (beyond != 0.0)) / points.error**2
        jacobian = self._jacobian(now)
        slope = jacobian.T @ ((mid * off + out * beyond) / points.error)
        away = now.p - self._p0
        return slope + 2.0 * self._penalty @ away, (jacobian.T * weight) @ jacobian + 2.0 * self._penalty

    def _jacobian(self, now: Trial) -> FloatArray:
        """∂σ/∂p [Q, P], through ∂w/∂o = 2 σ√τ / vega at the nodes."""
        half = 0.5 * (now.local - self._floor) * by_local(self._grid, now.value, now.matrix)
        moved = now.matrix.solve(self._basis * half[:, None])[self._span]
        d1 = 0.5 * now.sd - self._k / now.sd
        # So deep that vega is no number any more, a node is far beyond the quotes: what it is taken for hardly counts.
        vega = np.maximum(INV_SQRT_2PI * np.exp(-0.5 * d1 * d1), LEAST_VEGA)
        by_p = self._to_points @ (moved * (2.0 * now.sd / vega)[:, None])
        return np.asarray(by_p / (2.0 * now.iv * self._tau)[:, None])
