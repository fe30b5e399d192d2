"""Raw SVI, one slice at a time and with nothing held: what a surface is measured against, never what is traded on.

w(k) = a + b (ρ (k − m) + √((k − m)² + s²)), total variance at k = ln(K/F). Nothing keeps butterflies or calendars free.
Sources: Gatheral 2004; Zeliade Systems 2009, Quasi-explicit calibration of Gatheral's SVI model: at a given m and s, w
is linear in the other three, so only two are searched for a start.
"""

from math import atanh, exp, log, tanh
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.pricing.surface.quotes import Quotes

STARTS = 9  # of m and of s each
TOLERANCE = 1e-6
EVALUATIONS_MAX = 40  # most need 15; the rest creep along a valley, a few percent of cost from its end
LOG_S_MAX = 5.0
LEAST_VARIANCE = 1e-12  # below it a trial has no volatility


class Svi(NamedTuple):
    """Of one slice, in total variance and k; b ≥ 0, |ρ| ≤ 1, s > 0."""

    a: float
    b: float
    rho: float
    m: float
    s: float


def svi_total_variance(svi: Svi, k: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """w, dw/dk and d²w/dk² at k, of k's shape."""
    a, b, rho, m, s = svi
    off = k - m
    root = np.sqrt(off**2 + s**2)
    return a + b * (rho * off + root), b * (rho + off / root), b * s**2 / root**3


def fit_svi(quotes: Quotes) -> Svi:
    """Least squares of volatility over each quote's error: scipy's Levenberg-Marquardt (MINPACK) with the derivatives
    given, in coordinates that need no bounds. Raises ValueError with fewer quotes
    than parameters."""
    if len(quotes.k) < 5:
        raise ValueError(f"5 quotes at least, not {len(quotes.k)}")
    unit = float(np.max(np.abs(quotes.k)))  # k is measured in it, variance in its mean: the search is then scaled
    level = float(np.mean(quotes.iv**2)) * quotes.tau_years
    k, weight = quotes.k / unit, 1.0 / quotes.error
    volatility = np.sqrt(level / quotes.tau_years)

    def off(x: FloatArray) -> FloatArray:
        w = svi_total_variance(_svi(x), k)[0]
        missed: FloatArray = (volatility * np.sqrt(np.maximum(w, LEAST_VARIANCE)) - quotes.iv) * weight
        return missed

    def slope(x: FloatArray) -> FloatArray:
        a, b, rho, m, s = _svi(x)
        away = k - m
        root = np.sqrt(away**2 + s**2)
        rise, steep = b * (rho * away + root - s), b * s**2 / root
        by = np.array(
            (np.ones_like(k), rise, b * away * (1.0 - rho**2), -b * (rho + away / root), rise + steep - b * s)
        )
        w = a + b * s + rise
        by *= 0.5 * volatility * weight / np.sqrt(np.maximum(w, LEAST_VARIANCE))
        return by.T

    start = _start(k, quotes.iv**2 * quotes.tau_years / level, weight / quotes.iv)
    found = least_squares(off, start, slope, method="lm", ftol=TOLERANCE, xtol=TOLERANCE, max_nfev=EVALUATIONS_MAX)
    a, b, rho, m, s = _svi(found.x)
    return Svi(a * level, b * level / unit, rho, m * unit, s * unit)


def _svi(x: FloatArray) -> Svi:
    """Of w(m) = a + bs, ln(b/s), atanh ρ, m and ln s: as s grows these tell a parabola, where a and b have no end."""
    middle, log_bend, twisted, m, log_s = x.tolist()
    s = exp(min(log_s, LOG_S_MAX))
    b = s * exp(min(log_bend, 30.0))
    return Svi(middle - b * s, b, tanh(twisted), m, s)


def _start(k: FloatArray, w: FloatArray, weight: FloatArray) -> FloatArray:
    """The best of a few m and s, with w = a + d (k − m) + c √((k − m)² + s²) solved for: b = c, ρ = d/c."""
    m, s = (
        grid.ravel()[:, None] for grid in np.meshgrid(np.linspace(-0.8, 0.8, STARTS), np.geomspace(0.03, 3.0, STARTS))
    )
    away = k - m
    root = np.sqrt(away**2 + s**2)
    columns = np.stack((np.ones_like(away), away, root), axis=-1) * weight[:, None]
    normal = columns.transpose(0, 2, 1) @ columns
    normal[:, (0, 1, 2), (0, 1, 2)] *= 1.0 + 1e-9
    a, d, c = np.linalg.solve(normal, columns.transpose(0, 2, 1) @ (w * weight)[:, None])[..., 0].T
    c = np.maximum(c, 1e-3)
    d = np.clip(d, -0.99 * c, 0.99 * c)
    cost = (((a[:, None] + d[:, None] * away + c[:, None] * root - w) * weight) ** 2).sum(axis=1)
    best = int(np.argmin(cost))
    return np.array(
        [
            a[best] + c[best] * s[best, 0],
            log(c[best] / s[best, 0]),
            atanh(d[best] / c[best]),
            m[best, 0],
            log(s[best, 0]),
        ]
    )
