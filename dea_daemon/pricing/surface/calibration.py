"""One expiry: the local variance since the one before that takes its smile through its quotes.

v = v_min + e^{Bp}: B [NODES, P] values of a natural cubic spline in z = k/√w_atm with knots where the quotes are, flat
outside. p minimises, over quotes, 0.35 Huber((σ − mid)/error) + smooth L1 of what is beyond 85 % of the half-spread,
in errors; plus a penalty on the curvature of ln v and a weak pull to p0. By Levenberg–Marquardt with weights that are
renewed at every step.
"""

from typing import NamedTuple

import numpy as np

from dea_daemon.domain.instruments import BoolArray, FloatArray
from dea_daemon.pricing.black import INV_SQRT_2PI
from dea_daemon.pricing.surface.lattice import NODES, Lattice
from dea_daemon.pricing.surface.step import Bands, by_local, refined_sd, step

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
DAMPING = 1e-2  # to begin with
LIFT = 3.0  # steps longer than this, in ln v, are cut
TRIES_MAX = 6  # to find a step that helps
SETTLED = 1e-2  # of the cost
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
    before_sd: FloatArray,
    points: Points,
    tau_years: float,
    atm: float,
    growth: float,
    count: int,
    smooth: float = 1.0,
) -> Trial:
    """From time value `before` [NODES], of `before_sd` = σ√τ [NODES], through `points`.

    atm: total variance at the money, growth: by how much more than the expiry before; count: points that are no
    ceiling, which decide how many knots there are; smooth: times the usual penalty.
    """
    root = float(np.sqrt(atm))
    knots = make_knots(grid, points.k[~points.ceiling], root, count)
    p0 = np.full(knots.basis.shape[1], np.log(max(growth, LEAST_GROWTH * atm)))
    return _Problem(grid, before, FLOOR * atm, tau_years, points, knots, p0, smooth).solve(
        np.sqrt(before_sd**2 + max(growth, LEAST_GROWTH * atm))
    )


def make_knots(grid: Lattice, k: FloatArray, root: float, count: int) -> Knots:
    """60 % at quantiles of k [Q], the others evenly between its ends, and one beyond each."""
    n = int(np.clip(np.round(count / QUOTES_PER_KNOT), KNOTS_MIN, KNOTS_MAX)) - 2
    quantiles = round(BY_QUOTES * n)
    low, high = min(float(k[0]), 0.0), max(float(k[-1]), 0.0)
    ends = (low - BESIDE * root, low, high, high + BESIDE * root)
    at_quotes = np.interp(np.linspace(0.0, len(k) - 1.0, quantiles), np.arange(len(k)), k)
    even = np.linspace(low, high, n - quantiles + 2)[1:-1]
    z = _apart(np.sort(np.concatenate((at_quotes, even, ends))) / root)
    return _natural(z, np.clip(grid.k / root, z[0], z[-1]))


def _natural(z: FloatArray, at: FloatArray) -> Knots:
    """Cardinal natural cubic splines with knots z [P], at points `at` [M] between them; the second derivatives are
    linear between knots, so the integral of their squares is exact."""
    width = np.diff(z)
    inner, last = np.arange(len(z) - 2), len(z) - 1
    slopes = np.zeros((last - 1, last + 1))  # what is to bend: differences of the slopes
    slopes[inner, inner], slopes[inner, inner + 2] = 1.0 / width[:-1], 1.0 / width[1:]
    slopes[inner, inner + 1] = -slopes[inner, inner] - slopes[inner, inner + 2]
    bands = np.zeros((last - 1, last + 1))
    bands[inner, inner], bands[inner, inner + 1], bands[inner, inner + 2] = (
        width[:-1] / 6.0, (width[:-1] + width[1:]) / 3.0, width[1:] / 6.0,
    )  # fmt: skip
    second = np.zeros((last + 1, last + 1))
    second[1:-1] = np.linalg.solve(bands[:, 1:-1], slopes)
    place = np.minimum(np.searchsorted(z, at, side="right") - 1, last - 1)
    h, right = width[place], at - z[place]
    share = right / h
    rest = 1.0 - share
    basis = ((rest**3 - rest)[:, None] * second[place] + (share**3 - share)[:, None] * second[place + 1]) * (
        h * h / 6.0
    )[:, None]
    row = np.arange(len(at))
    basis[row, place] += rest
    basis[row, place + 1] += share
    return Knots(basis, second[1:-1].T @ slopes)


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

    def solve(self, guess: FloatArray) -> Trial:
        """Levenberg–Marquardt from p0, its weights those of the loss where it stands. `guess` [NODES] of σ√τ there."""
        now, damping = self._try(self._p0, guess[self._span]), DAMPING
        for _ in range(STEPS_MAX):
            by_p = self._variance_by_p(now)
            slope, normal = self._normal(now, by_p)
            for _ in range(TRIES_MAX):
                move = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -slope)
                move *= min(1.0, LIFT / max(float(np.abs(move).max()), LIFT))
                w = now.sd * now.sd
                then = self._try(now.p + move, np.sqrt(np.maximum(w + by_p @ move, 0.25 * w)))
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

    def _try(self, p: FloatArray, guess: FloatArray) -> Trial:
        """`guess` [n] of σ√τ at the nodes about the quotes."""
        local = self._floor + np.exp(np.minimum(self._basis @ p, MOST_LOG))
        value, matrix = step(self._grid, self._before, local)
        sd = refined_sd(self._k, value[self._span], guess)
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

    def _normal(self, now: Trial, by_p: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Gradient [P] and Gauss and Newton's Hessian [P, P]."""
        points = self._points
        off, beyond = self._residuals(now.iv)
        mid = MID_WEIGHT * np.minimum(1.0, HUBER / np.maximum(np.abs(off), HUBER))
        mid = np.where(points.ceiling, off > 0.0, mid)
        out = np.where(points.ceiling, 0.0, 1.0 / np.sqrt(beyond * beyond + CORNER**2))
        weight = (mid + out * (beyond != 0.0)) / points.error**2
        jacobian = (self._to_points @ by_p) / (2.0 * now.iv * self._tau)[:, None]
        slope = jacobian.T @ ((mid * off + out * beyond) / points.error)
        away = now.p - self._p0
        return slope + 2.0 * self._penalty @ away, (jacobian.T * weight) @ jacobian + 2.0 * self._penalty

    def _variance_by_p(self, now: Trial) -> FloatArray:
        """∂w/∂p [n, P] at the nodes about the quotes: ∂o/∂p · 2 σ√τ / vega."""
        half = 0.5 * (now.local - self._floor) * by_local(self._grid, now.value, now.matrix)
        moved = now.matrix.solve(self._basis * half[:, None])[self._span]
        d1 = 0.5 * now.sd - self._k / now.sd
        # So deep that vega is no number any more, a node is far beyond the quotes: what it is taken for hardly counts.
        vega = np.maximum(INV_SQRT_2PI * np.exp(-0.5 * d1 * d1), LEAST_VEGA)
        return np.asarray(moved * (2.0 * now.sd / vega)[:, None])
