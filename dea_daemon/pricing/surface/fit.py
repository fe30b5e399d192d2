"""Fit a surface to a chain: quotes in, smiles out, each a step of local variance after the one before.

So no smile can hold a butterfly and no two a calendar arbitrage, whatever the quotes. Between the nodes a spline
interpolates; the gate checks what is published there. Source: Andreasen & Huge 2011, Volatility interpolation.
"""

import numpy as np
from scipy.optimize import brentq

from dea_daemon.domain.events import SurfaceFitted
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.surfaces import Chain, Rung, Smile
from dea_daemon.pricing.surface.calibration import BAND, Points, calibrate
from dea_daemon.pricing.surface.lattice import Lattice, lattice, scale_for
from dea_daemon.pricing.surface.quotes import Quotes, prepare
from dea_daemon.pricing.surface.step import MIDDLE, lognormal, step, total_sd
from dea_daemon.pricing.surface.surface import Surface

CEILING_ERROR = 0.05  # of the volatility
CEILINGS = 12  # points on each side, at most


def fit(chain: Chain, max_iv_spread: float = 0.5) -> SurfaceFitted:
    every = prepare(chain, max_iv_spread)
    every = [q for q in every if len(q.k) >= 6]
    kept = every
    atm = [float(np.interp(0.0, q.k, q.iv)) ** 2 * q.tau_years for q in kept]
    grid = lattice(scale_for(np.sqrt(atm[0])))
    value = lognormal(grid, 0.5 * atm[0])
    before = 0.5 * atm[0]
    smiles = []
    for i, q in enumerate(kept):
        points = with_ceilings(points_of(q), q, kept[i + 1 :])
        s = calibrate(grid, value, atm[i], atm[i] - before, q.tau_years, points, len(q.k))
        value = s.value
        before = atm[i]
        w = total_sd(grid, value) ** 2
        smiles.append(Smile(q.expiry_ns, q.forward, tuple(w.tolist()), Rung.FITTED, float(q.k[0]), float(q.k[-1]), len(q.k)))
    return SurfaceFitted(0, chain.underlying, chain.utc_ns, grid.scale, tuple(smiles))


def points_of(q: Quotes) -> Points:
    return Points(q.k, q.iv, q.error, 0.5 * (q.high - q.low), np.zeros(len(q.k)))


def with_ceilings(points: Points, q: Quotes, later: list[Quotes]) -> Points:
    """Outside its own quotes a smile must not rise above those of later expiries: they could not follow."""
    low, high = q.k[0], q.k[-1]
    k = np.concatenate([o.k[(o.k < low) | (o.k > high)] for o in later] or [np.zeros(0)])
    if not len(k):
        return points
    k = np.unique(k)
    side = [x[np.unique(np.linspace(0, len(x) - 1, CEILINGS).astype(int))] for x in (k[k < low], k[k > high]) if len(x)]
    k = np.concatenate(side)
    w = np.full(len(k), np.inf)
    for o in later:
        inside = (k >= o.k[0]) & (k <= o.k[-1])
        w = np.where(inside, np.minimum(w, np.interp(k, o.k, o.iv**2 * o.tau_years)), w)
    k, w = k[np.isfinite(w)], w[np.isfinite(w)]
    iv = np.sqrt(w / q.tau_years)
    all_k = np.concatenate((points.k, k))
    order = np.argsort(all_k, kind="stable")
    cols = (
        np.concatenate((points.iv, iv)),
        np.concatenate((points.error, CEILING_ERROR * iv)),
        np.concatenate((points.half, 0.0 * iv)),
        np.concatenate((points.ceiling, np.ones(len(k)))),
    )
    return Points(all_k[order], *(c[order] for c in cols))
