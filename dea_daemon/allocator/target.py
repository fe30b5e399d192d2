"""The target law: wanted dollar delta and no-trade band per factor."""

import numpy as np

from dea_daemon.domain.decisions import Forecast, View
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.domain.parameters import AllocatorParameters, FixedTarget, VolTarget


def aim(view: View, forecast: Forecast, params: AllocatorParameters) -> tuple[FloatArray, FloatArray]:
    """(exposure_usd [U], band_usd [U]); NaN where an underlying is not targeted, or cannot be for want of data."""
    n = len(view.universe.underlyings)
    exposure, band, weights = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n)
    for u, underlying in enumerate(view.universe.underlyings):
        match params.targets.get(underlying):
            case FixedTarget() as fixed:
                exposure[u], band[u] = fixed.delta_usd, fixed.band_usd
            case VolTarget() as share:
                weights[u] = share.weight
    sized = volatility_targeted(weights, forecast, view.equity_usd, params)
    for u, underlying in enumerate(view.universe.underlyings):
        wanted = params.targets.get(underlying)
        if isinstance(wanted, VolTarget):
            exposure[u] = sized[u]
            band[u] = max(wanted.band * abs(sized[u]), wanted.min_band_usd)
    return exposure, band + pin_uncertainty(view)


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
    if risk == 0.0:
        return np.zeros_like(weights)
    exposure = shape * (params.annual_vol * equity_usd / risk)
    gross = float(np.abs(exposure).sum())
    cap = params.max_leverage * equity_usd
    return exposure * min(1.0, cap / gross) if gross > 0.0 else exposure
