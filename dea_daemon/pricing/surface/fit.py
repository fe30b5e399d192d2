"""Fit a surface to a chain: quotes in, smiles out, each a step of local variance after the one before.

So no smile holds a butterfly and no two a calendar spread for free, whatever the quotes. Between the nodes a spline
interpolates; what is published passed the gate there. Source: Andreasen & Huge 2011, Volatility interpolation.
"""

from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from scipy.optimize import brentq
from scipy.special import ndtri

from dea_daemon.domain.events import SurfaceFitted
from dea_daemon.domain.instruments import BoolArray, FloatArray
from dea_daemon.domain.surfaces import Chain, Quality, Rung, Smile
from dea_daemon.pricing.surface.calibration import Trial, calibrate
from dea_daemon.pricing.surface.gate import check
from dea_daemon.pricing.surface.guides import ENOUGH, Guide, guides, points_of
from dea_daemon.pricing.surface.lattice import Lattice, lattice, scale_for
from dea_daemon.pricing.surface.outliers import contradicted
from dea_daemon.pricing.surface.quotes import LEAST_ERROR, Quotes, prepare
from dea_daemon.pricing.surface.step import MIDDLE, lognormal, step, total_sd
from dea_daemon.pricing.surface.surface import Surface
from dea_daemon.pricing.surface.tenors import tenors

SMOOTHER = (1.0, 10.0, 100.0, 1_000.0)  # times the usual penalty, until the gate lets it pass
FAR = 5.0  # errors: a quote further than this from its own fit is left out of a second
HEAD = 0.5  # of the first variance at the money stands already before the first step
NONE: BoolArray = np.zeros(0, dtype=np.bool_)
LEAST_SHARE, FURTHEST = 1e-6, 1e3  # of a step, between two expiries and behind the last


class _Stepped(NamedTuple):
    """An expiry: its time value and σ√τ [NODES], and which of its quotes [Q] were used."""

    value: FloatArray
    sd: FloatArray
    used: BoolArray


def fit(chain: Chain, max_iv_spread: float = 0.5) -> SurfaceFitted:
    """The surface of a chain. Never raises for what quotes say: `why` is not empty where there is none to publish.

    A spread of `max_iv_spread` in volatility or more is no quote. ts_recv_ns and quality.fit_ms are the caller's to
    fill in: nothing here reads a clock.
    """
    wanted = prepare(chain, max_iv_spread)
    clean = [q.keep(~contradicted(q)) for q in wanted]
    told = SurfaceFitted(0, chain.underlying, chain.utc_ns)
    if not any(len(q.k) for q in clean):
        return replace(told, why="no expiry has a quote" if wanted else "no expiry is left")
    answer = told
    for smooth in SMOOTHER:
        try:
            answer = _gated(told, wanted, guides(clean), smooth)
        except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
            answer = replace(told, why=f"not solved: {error}")
        if not answer.why:
            break
    return answer


def _gated(told: SurfaceFitted, wanted: list[Quotes], along: list[Guide], smooth: float) -> SurfaceFitted:
    """One try: steps, smiles, gate."""
    grid = lattice(scale_for(float(np.sqrt(along[0].atm))))
    fitted = _steps(grid, along, smooth)
    bare = [
        Smile(g.quotes.expiry_ns, 1.0, tuple((one.sd**2).tolist()), g.rung, *g.ends)
        for g, one in zip(along, fitted, strict=True)
    ]
    surface = Surface(told.chain_utc_ns, grid.scale, bare)
    checked = check(surface)
    smiles, quality = _judged(surface, wanted, along, fitted)
    quality = replace(quality, min_g=checked.min_g, calendar_violations=checked.calendar)
    if not checked.free:
        why = f"an arbitrage: least g {checked.min_g:.1e}, {checked.calendar} calendar violations"
        return replace(told, quality=quality, why=why)
    return replace(told, scale=grid.scale, smiles=smiles, tenors=tenors(surface), quality=quality)


# --- steps -------------------------------------------------------------------------------------------


def _steps(grid: Lattice, along: list[Guide], smooth: float) -> list[_Stepped]:
    """Every expiry: those that are guided in order, the others between or behind them."""
    atm = HEAD * along[0].atm
    before = _stepped(grid, lognormal(grid, atm))
    local = before.value
    out: list[_Stepped] = []
    waiting: list[Guide] = []
    for n, guide in enumerate(along):
        if guide.rung is Rung.BETWEEN:
            waiting.append(guide)
            continue
        end, used = _guided(grid, before, atm, guide, along[n + 1 :], smooth)
        out += [_between(grid, before.value, end.local, one.atm, 1.0) for one in waiting]
        waiting.clear()
        before, atm, local = _stepped(grid, end.value, used), guide.atm, end.local
        out.append(before)
    return out + [_between(grid, before.value, local, one.atm, FURTHEST) for one in waiting]


def _stepped(grid: Lattice, value: FloatArray, used: BoolArray = NONE) -> _Stepped:
    return _Stepped(value, total_sd(grid.k, value), used)


def _guided(
    grid: Lattice, before: _Stepped, atm: float, guide: Guide, later: list[Guide], smooth: float
) -> tuple[Trial, BoolArray]:
    """One expiry that has something to follow, and which of its quotes were used: those far from the first answer are
    left out of a second. `atm`: total variance at the money before."""
    used = np.ones(len(guide.quotes.k), dtype=np.bool_)
    end, off = _calibrated(grid, before, atm, guide, used, later, smooth)
    near = off <= FAR
    if not near.all() and near.sum() >= ENOUGH:
        used = near
        end, _ = _calibrated(grid, before, atm, guide, used, later, smooth)
    return end, used


def _calibrated(
    grid: Lattice, before: _Stepped, atm: float, guide: Guide, used: BoolArray, later: list[Guide], smooth: float
) -> tuple[Trial, FloatArray]:
    """The step through the quotes used, and how far it is from each of them, in errors."""
    points, quoted = points_of(guide, used, later)
    q, count = guide.quotes, int((~points.ceiling).sum())
    end = calibrate(grid, before.value, before.sd, points, q.tau_years, guide.atm, guide.atm - atm, count, smooth)
    return end, np.abs(end.iv[quoted] - q.iv[used]) / q.error[used]


def _between(grid: Lattice, before: FloatArray, local: FloatArray, atm: float, most: float) -> _Stepped:
    """After the share θ ≤ most of a step at which the variance at the money is `atm`: still free of arbitrage."""

    def excess(log_share: float) -> float:
        value, _ = step(grid, before, np.exp(log_share) * local)
        return float(4.0 * ndtri(0.5 * (1.0 + value[MIDDLE])) ** 2 - atm)  # c(1) = 2 N(s/2) − 1

    low, high = np.log(LEAST_SHARE), np.log(most)
    if excess(low) >= 0.0:
        share = low
    elif excess(high) <= 0.0:
        share = high
    else:
        share = brentq(excess, low, high, xtol=1e-6)
    return _stepped(grid, step(grid, before, np.exp(share) * local)[0])


# --- what is told ------------------------------------------------------------------------------------


def _judged(
    surface: Surface, wanted: list[Quotes], along: list[Guide], fitted: list[_Stepped]
) -> tuple[tuple[Smile, ...], Quality]:
    """Smiles with what their quotes say of them, and all of them together."""
    smiles, off, half = [], [], []
    forwards = _forwards(wanted)
    for n, (smile, guide, one, q) in enumerate(zip(surface.smiles, along, fitted, wanted, strict=True)):
        used = guide.quotes.keep(one.used)
        w, _, _ = surface.total_variance(np.full(len(used.k), n), used.k)
        iv = np.sqrt(w / used.tau_years)
        inside = int(((iv >= used.low) & (iv <= used.high)).sum())
        count = len(used.k)
        smiles.append(replace(smile, forward=float(forwards[n]), quotes=count, dropped=len(q.k) - count, inside=inside))
        off.append(iv - used.iv)
        half.append(0.5 * (used.high - used.low))
    error, spread = np.concatenate(off), np.concatenate(half)
    count = len(error)
    return tuple(smiles), Quality(
        quotes=count,
        dropped=sum(smile.dropped for smile in smiles),
        inside=sum(smile.inside for smile in smiles) / count,
        rmse_vol_pts=100.0 * float(np.sqrt(np.mean(error**2))),
        spread_ratio=float(np.sqrt(np.mean((error / np.maximum(spread, LEAST_ERROR)) ** 2))),
        fallback_slices=sum(smile.rung is not Rung.FITTED for smile in smiles),
    )


def _forwards(wanted: list[Quotes]) -> FloatArray:
    """[S] of each expiry; where none is known, its neighbours'."""
    forward, tau = np.array([q.forward for q in wanted]), np.array([q.tau_years for q in wanted])
    known = np.isfinite(forward)
    return np.where(known, forward, np.interp(tau, tau[known], forward[known]))
