"""The target law: wanted dollar delta and no-trade band per factor."""

import numpy as np

from dea_daemon.domain.decisions import Forecast, View
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.domain.parameters import AllocatorParameters, FixedTarget, VolTarget


def aim(view: View, forecast: Forecast, params: AllocatorParameters) -> tuple[FloatArray, FloatArray]:
    """(exposure_usd [K], band_usd [K]); NaN where a factor is not targeted, or cannot be for want of data."""
    exposure, band = np.full(len(view.factors), np.nan), np.full(len(view.factors), np.nan)
    weights = np.zeros(len(view.universe.underlyings))
    for u, underlying in enumerate(view.universe.underlyings):
        match params.targets.get(underlying):
            case FixedTarget() as fixed:
                k = view.factors.delta(underlying)
                exposure[k], band[k] = fixed.delta_usd, fixed.band_usd
            case VolTarget() as share:
                weights[u] = share.weight
    sized = volatility_targeted(weights, forecast, view.equity_usd, params)
    for u, underlying in enumerate(view.universe.underlyings):
        wanted = params.targets.get(underlying)
        if isinstance(wanted, VolTarget):
            k = view.factors.delta(underlying)
            exposure[k] = sized[u]
            band[k] = max(wanted.band * abs(sized[u]), wanted.min_band_usd)
    return exposure, band


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
