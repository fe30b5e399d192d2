"""Smiles of three parameters, for expiries whose own quotes say too little: eSSVI, and what neighbours make likely.

w(k) = θ/2 (1 + ρφk + √((φk + ρ)² + 1 − ρ²)), k = ln(K/F). In z = k/√θ, skew and curvature are of ρ and c = φ√θ alone,
and these vary slowly in time. A smile is three unbounded coordinates: ln θ, atanh ρ and the logit of c over the most
that keeps butterflies free. Every rung below FITTED is one and the same fit: Huber's least squares through what quotes
there are, and through what the neighbours make likely, as firmly as they are near in time. Sources: Gatheral & Jacquier
2014, theorem 4.2. How firmly was measured on recorded chains, by leaving
quotes out: one to five random quotes of an expiry, error on its others.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.pricing.surface.quotes import Quotes

MODEL_ERROR = 0.01  # of a volatility: so far off three parameters are anyhow
HUBER = 1.5
STEPS_MAX = 30
SETTLED = 1e-3  # in coordinates: 0.05 % of the volatility
DIAGONAL = (slice(None), (0, 1, 2), (0, 1, 2))
EDGE = 0.995  # of the bound on c is used
USUAL = (-0.2, 0.8)  # ρ and c of coins' options, most days: where neither quotes nor neighbours know better
LOOSE = np.array([2.0, 0.4, 0.7])  # standard deviations of the coordinates about these
NEAR = np.array([0.1, 0.05, 0.15])  # and about a neighbour's
PER_LOG_TIME = np.array([0.15, 0.025, 0.1])  # more, for each unit of ln τ it is away


class Shape(NamedTuple):
    """One smile: total variance at the money θ > 0, correlation ρ in (−1, 1), φ > 0."""

    theta: float
    rho: float
    phi: float

    def total_variance(self, k: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """w, dw/dk and d²w/dk² at k = ln(K/F), of k's shape."""
        theta, rho, phi = self
        moved = phi * k + rho
        root = np.sqrt(moved**2 + 1.0 - rho**2)
        w = 0.5 * theta * (1.0 + rho * phi * k + root)
        return w, 0.5 * theta * phi * (rho + moved / root), 0.5 * theta * phi**2 * (1.0 - rho**2) / root**3


class Neighbour(NamedTuple):
    """The shape of another expiry of the same surface."""

    tau_years: float
    shape: Shape


def fit_shapes(slices: Sequence[Quotes]) -> list[Shape]:
    """Of each slice that which its own quotes say, one at least. All at once: much faster than one by one."""
    start = np.array([_usual(quotes) for quotes in slices])
    return [_shape(x) for x in _fitted(slices, start, np.tile(LOOSE, (len(slices), 1)))] if slices else []


def fit_shape(quotes: Quotes) -> Shape:
    """`fit_shapes` of one slice."""
    return fit_shapes([quotes])[0]


def lean(quotes: Quotes, neighbours: Sequence[Neighbour]) -> Shape:
    """Of a slice with few quotes, or none: what its neighbours (in order of expiry) say, moved by what its quotes do.

    One quote moves the level and little else; five outweigh the neighbours. Without neighbours, `fit_shape`. Raises
    ValueError where there are neither.
    """
    if not len(quotes.k):
        return shape_between(quotes.tau_years, neighbours)
    if not neighbours:
        return fit_shape(quotes)
    away = min(abs(np.log(neighbour.tau_years / quotes.tau_years)) for neighbour in neighbours)
    prior = _coordinates(shape_between(quotes.tau_years, neighbours))
    return _shape(_fitted([quotes], prior[None], (NEAR + PER_LOG_TIME * away)[None])[0])


def shape_between(tau_years: float, neighbours: Sequence[Neighbour]) -> Shape:
    """What neighbours, in order of expiry, say of a maturity: θ and the two coordinates of shape are linear in time;
    before the first and behind the last the volatility of each z is theirs."""
    if not neighbours:
        raise ValueError("no neighbour to take a shape from")
    taus = np.array([neighbour.tau_years for neighbour in neighbours])
    every = np.array([_coordinates(neighbour.shape) for neighbour in neighbours])
    theta, *rest = (np.interp(tau_years, taus, column) for column in (np.exp(every[:, 0]), every[:, 1], every[:, 2]))
    return _shape(np.array([np.log(theta * tau_years / np.clip(tau_years, taus[0], taus[-1])), *rest]))


def most_c(theta: FloatArray | float, rho: FloatArray | float) -> FloatArray:
    """The greatest φ√θ at which no butterfly is negative, less a little; Gatheral & Jacquier 2014, theorem 4.2."""
    near = 1.0 + np.abs(rho)
    return np.asarray(EDGE * np.minimum(2.0 / np.sqrt(near), 4.0 / (np.sqrt(theta) * near)))


def _usual(quotes: Quotes) -> FloatArray:
    """Where a fit starts: a usual shape at the level of the quotes nearest the money."""
    nearest = np.argsort(np.abs(quotes.k))[:3]
    theta = float(np.median(quotes.iv[nearest])) ** 2 * quotes.tau_years
    rho, c = USUAL
    return _coordinates(Shape(theta, rho, c / np.sqrt(theta)))


def _coordinates(shape: Shape) -> FloatArray:
    theta, rho, phi = shape
    share = np.clip(phi * np.sqrt(theta) / most_c(theta, rho), 0.01, 0.99)
    return np.array([np.log(theta), np.arctanh(np.clip(rho, -0.99, 0.99)), np.log(share / (1.0 - share))])


def _shape(x: FloatArray) -> Shape:
    theta, rho, c, _ = _unfolded(x)
    return Shape(float(theta), float(rho), float(c / np.sqrt(theta)))


def _unfolded(x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """θ, ρ, c and c's share of its most, of coordinates [..., 3]; so far out that it is no smile's, no further."""
    theta, rho = np.exp(np.clip(x[..., 0], -25.0, 5.0)), np.tanh(np.clip(x[..., 1], -3.0, 3.0))
    share = 1.0 / (1.0 + np.exp(-np.clip(x[..., 2], -6.0, 12.0)))
    return theta, rho, share * most_c(theta, rho), share


class _Task(NamedTuple):
    """Quotes of S slices, padded with weight 0 to [S, Q]; tau [S, 1]; what is believed of each, and 1/sd² [S, 3]."""

    k: FloatArray
    tau: FloatArray
    mid: FloatArray
    weight: FloatArray
    prior: FloatArray
    precision: FloatArray


class _Point(NamedTuple):
    """Of coordinates x [S, 3]: residuals in errors [S, Q], their derivatives [S, Q, 3], and the cost [S]."""

    x: FloatArray
    off: FloatArray
    slope: FloatArray
    cost: FloatArray


def _fitted(slices: Sequence[Quotes], prior: FloatArray, sd: FloatArray) -> FloatArray:
    """Coordinates [S, 3] of least cost, from `prior` on: Levenberg and Marquardt's method, all slices in step."""
    task = _task(slices, prior, sd)
    best = _look(task, prior)
    damping = np.full(len(slices), 1e-3)
    open_ = np.ones(len(slices), dtype=np.bool_)
    for _ in range(STEPS_MAX):
        step = _step(task, best, damping)
        tried = _look(task, best.x + step)
        better = tried.cost <= best.cost
        columns = zip(tried, best, strict=True)
        best = _Point(*(np.where(better.reshape(-1, *[1] * (b.ndim - 1)), a, b) for a, b in columns))
        open_ &= np.where(better, np.abs(step).max(axis=1) > SETTLED, damping < 1e6)
        if not open_.any():
            break
        damping = np.where(better, damping * 0.2, damping * 8.0)
    return best.x


def _task(slices: Sequence[Quotes], prior: FloatArray, sd: FloatArray) -> _Task:
    k, mid, weight = (np.zeros((len(slices), max(len(quotes.k) for quotes in slices))) for _ in range(3))
    for i, quotes in enumerate(slices):
        n = len(quotes.k)
        k[i, :n], mid[i, :n], weight[i, :n] = quotes.k, quotes.iv, 1.0 / np.hypot(quotes.error, MODEL_ERROR)
    tau = np.array([[quotes.tau_years] for quotes in slices])
    return _Task(k, tau, mid, weight, prior, sd**-2.0)


def _look(task: _Task, x: FloatArray) -> _Point:
    iv, slope = _volatility(x, task.k, task.tau)
    off = task.weight * (iv - task.mid)
    size = np.abs(off)
    loss = np.where(size <= HUBER, 0.5 * size**2, HUBER * (size - 0.5 * HUBER)).sum(axis=1)
    belief = 0.5 * (task.precision * (x - task.prior) ** 2).sum(axis=1)
    return _Point(x, off, slope * task.weight[..., None], loss + belief)


def _step(task: _Task, at: _Point, damping: FloatArray) -> FloatArray:
    """Where a slice would go next, in no coordinate further than 1; [S, 3]."""
    trust = HUBER / np.maximum(np.abs(at.off), HUBER)
    weighted = (at.slope * trust[..., None]).transpose(0, 2, 1)
    normal = weighted @ at.slope
    normal[DIAGONAL] += task.precision
    normal[DIAGONAL] *= 1.0 + damping[:, None]
    downhill = -(weighted @ at.off[..., None])[..., 0] - task.precision * (at.x - task.prior)
    return np.clip(np.linalg.solve(normal, downhill[..., None])[..., 0], -1.0, 1.0)


def _volatility(x: FloatArray, k: FloatArray, tau: FloatArray) -> tuple[FloatArray, FloatArray]:
    """σ [S, Q] of shapes at coordinates x [S, 3], and its derivatives by them [S, Q, 3]."""
    theta, rho, c, share = (column[:, None] for column in _unfolded(x))
    z = k / np.sqrt(theta)
    moved = c * z + rho
    root = np.sqrt(moved**2 + 1.0 - rho**2)
    w = 0.5 * theta * (1.0 + rho * c * z + root)
    by_c = 0.5 * theta * c * z * (rho + moved / root)  # by ln c
    capped = np.sqrt(theta * (1.0 + np.abs(rho))) > 2.0  # the second bound of c is the lower: it falls with θ
    by_theta = w - np.where(capped, 1.0, 0.5) * by_c
    by_rho = (
        0.5 * theta * c * z * (1.0 + 1.0 / root)
        - np.sign(rho) * np.where(capped, 1.0, 0.5) / (1.0 + np.abs(rho)) * by_c
    )
    by_x = np.stack((by_theta, by_rho * (1.0 - rho**2), by_c * (1.0 - share)), axis=-1)
    iv = np.sqrt(w / tau)
    return iv, by_x / (2.0 * iv * tau)[..., None]
