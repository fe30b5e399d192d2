"""The target law: wanted dollar delta and no-trade band per factor."""

import numpy as np

from dea_daemon.allocator.band import cube_root_band
from dea_daemon.domain.decisions import Forecast, View
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.domain.parameters import AllocatorParameters, FixedTarget, VolTarget


def aim(view: View, forecast: Forecast, params: AllocatorParameters) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(exposure_usd, band_usd, inner_usd), all [U]: what is wanted, how far from it nothing is done, and how near to it
    a trade once begun goes. NaN where an underlying is not targeted, or cannot be for want of data."""
    n = len(view.universe.underlyings)
    exposure, band, weights = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n)
    inner = np.full(n, params.band_inner)
    for u, underlying in enumerate(view.universe.underlyings):
        match params.targets.get(underlying):
            case FixedTarget() as fixed:
                exposure[u], band[u] = fixed.delta_usd, fixed.band_usd
            case VolTarget() as share:
                weights[u] = share.weight
    budget = risk_budget(view.equity_usd, view.peak_equity_usd, params)
    sized = budget * volatility_targeted(weights, forecast, view.equity_usd, params)
    optimal = None
    for u, underlying in enumerate(view.universe.underlyings):
        wanted = params.targets.get(underlying)
        if not isinstance(wanted, VolTarget):
            continue
        exposure[u] = sized[u]
        if wanted.band == "cube_root":
            optimal = cube_root_band(view, forecast, sized, params, budget) if optimal is None else optimal
            width, inner[u] = optimal[u], 1.0  # further than to the edge costs more than it is worth
        else:
            width = wanted.band * abs(sized[u])
        band[u] = np.maximum(width, wanted.min_band_usd)  # NaN stays: no trade
    band += pin_uncertainty(view)
    return exposure, band, inner * band


def risk_budget(equity_usd: float, peak_equity_usd: float, params: AllocatorParameters) -> float:
    """Share of the volatility budget that drawdown control leaves: (W − αM) / (1 − α)W with α = 1 − max_drawdown; 1 at
    the peak M, 0 at the drawdown that must not be passed. The peak never decays. NaN equity gives NaN.

    Source: Grossman and Zhou (1993), where exposure is a multiple of the cushion W − αM.
    """
    if params.max_drawdown is None or equity_usd >= peak_equity_usd:
        return 1.0
    cushion = equity_usd - (1.0 - params.max_drawdown) * peak_equity_usd
    return float(np.maximum(cushion, 0.0) / (params.max_drawdown * equity_usd)) if equity_usd != 0.0 else 0.0


def pin_uncertainty(view: View) -> FloatArray:
    """[U] USD by which the delta of pinned options may turn out different either way: half of what there still is to
    settle. Within that a hedge would only chase the last prints around a strike."""
    rows = np.flatnonzero(view.pinned & (view.position_lots != 0))
    lots = np.abs(view.position_lots[rows])
    uncertain = 0.5 * lots * view.notional_per_lot_usd[rows] * view.settling[rows]
    total = np.bincount(view.universe.underlying[rows], uncertain, len(view.universe.underlyings))
    return np.asarray(total, dtype=np.float64)


def volatility_targeted(
    weights: FloatArray, forecast: Forecast, equity_usd: float, params: AllocatorParameters
) -> FloatArray:
    """Exposures x [U] USD with xᵀ Σ x = (annual_vol · equity)², x ∝ weight / volatility, Σ|x| ≤ max_leverage · equity.

    Source: inverse-volatility weights scaled to the portfolio's ex-ante volatility (Moskowitz, Ooi,
    Pedersen 2012, with covariance). NaN equity gives NaN: no target, so no trade.
    """
    shape = weights / forecast.annual_vol
    risk = np.sqrt(shape @ forecast.covariance @ shape * DAYS_PER_YEAR)
    if risk == 0.0 or equity_usd <= 0.0:
        return np.zeros_like(weights)
    exposure = shape * (params.annual_vol * equity_usd / risk)
    gross = float(np.abs(exposure).sum())
    cap = params.max_leverage * equity_usd
    return exposure * min(1.0, cap / gross) if gross > 0.0 else exposure
