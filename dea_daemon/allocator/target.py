"""The target law: wanted dollar delta and no-trade band of each underlying."""

from typing import NamedTuple

import numpy as np

from dea_daemon.allocator.band import Wander, cheapest, hedge_band, target_band
from dea_daemon.domain.decisions import Forecast, View
from dea_daemon.domain.instruments import BoolArray, FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.domain.parameters import AllocatorParameters, FixedTarget, ReturnTarget, VolTarget


class Aim(NamedTuple):
    """All [U], USD: what is wanted, how far from it nothing is done, and how near to it a trade once begun goes. NaN
    where an underlying is not targeted, or cannot be for want of data."""

    exposure: FloatArray
    band: FloatArray
    inner: FloatArray


def aim(
    view: View, forecast: Forecast, cost: FloatArray, params: AllocatorParameters, wander: Wander | None = None
) -> Aim:
    """`cost` [N] USD per USD traded; `wander` of the exposures wanted so far."""
    n = len(view.universe.underlyings)
    wanted = [params.targets.get(underlying) for underlying in view.universe.underlyings]
    budget = risk_budget(view.equity_usd, view.peak_equity_usd, params)
    weights = np.array([target.weight if isinstance(target, VolTarget) else 0.0 for target in wanted])
    returning = np.array([isinstance(target, ReturnTarget) for target in wanted])
    expected = np.where(returning, expected_return(view, forecast, params), 0.0) if returning.any() else np.zeros(n)
    sized = budget * sized_exposure(weights, expected, returning, forecast, view.equity_usd, params)
    fixed_at = np.array([target.delta_usd if isinstance(target, FixedTarget) else np.nan for target in wanted])
    exposure, band, inner = np.full(n, np.nan), np.full(n, np.nan), np.full(n, params.band_inner)
    by_cost: dict[str, FloatArray] = {}  # once for all of a kind
    for u, target in enumerate(wanted):
        if target is None:
            continue
        fixed = isinstance(target, FixedTarget)
        width = target.band_usd if isinstance(target, FixedTarget) else target.band
        exposure[u] = fixed_at[u] if fixed else sized[u]
        if isinstance(width, str):
            if target.kind not in by_cost:
                least, moved = cheapest(view, cost), wander if target.kind == "return" else None
                by_cost[target.kind] = (
                    hedge_band(view, forecast, fixed_at, least, params)
                    if fixed
                    else target_band(view, forecast, sized, least, params, budget, moved)
                )
            band[u], inner[u] = by_cost[target.kind][u], 1.0  # further than to the edge costs more than it is worth
        else:
            band[u] = width if fixed else width * abs(sized[u])
        if not fixed or isinstance(width, str):
            band[u] = np.maximum(band[u], target.min_band_usd)  # NaN stays: no trade
    band += pin_uncertainty(view)
    return Aim(exposure, band, inner * band)


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
    if not len(rows):
        return np.zeros(len(view.universe.underlyings))
    lots = np.abs(view.position_lots[rows])
    uncertain = 0.5 * lots * view.notional_per_lot_usd[rows] * view.settling[rows]
    total = np.bincount(view.universe.underlying[rows], uncertain, len(view.universe.underlyings))
    return np.asarray(total, dtype=np.float64)


def expected_return(view: View, forecast: Forecast, params: AllocatorParameters) -> FloatArray:
    """[U] 1/day: what a dollar of delta is expected to earn, by signals and carry.

    A signal that fades at φ is weighed by 1 / (1 + φ·hold), hold the horizon: what is left of it while the position it
    calls for is on. Carry is no forecast and does not fade: added is that of the contract best for the direction, and
    where both directions would earn, the one less the other. Whether a contract can be traded just now changes nothing.

    Source: Gârleanu and Pedersen (2013), eq. 15, whose a/γ is the time a trade takes to pay off.
    """
    universe = view.universe
    weight = 1.0 / (1.0 + forecast.signal_decay * (params.expected_hold_h / 24.0))
    signal = weight @ forecast.signal_return
    rows = np.flatnonzero(universe.tradable & ~universe.option & ~universe.spot & (view.settling > 0.5))
    long, short = np.full(len(signal), -np.inf), np.full(len(signal), np.inf)
    np.maximum.at(long, universe.underlying[rows], forecast.carry[rows])
    np.minimum.at(short, universe.underlying[rows], forecast.carry[rows])
    return np.asarray(np.maximum(signal + long, 0.0) + np.minimum(signal + short, 0.0))


def sized_exposure(
    weights: FloatArray,
    expected: FloatArray,
    returning: BoolArray,
    forecast: Forecast,
    equity_usd: float,
    params: AllocatorParameters,
) -> FloatArray:
    """Exposures [U] USD of volatility targets (`weights`, 0 elsewhere) and return targets (`expected` 1/day) together:
    both within `annual_vol` of equity ex ante, and Σ|x| ≤ max_leverage · equity. NaN equity gives NaN: no trade."""
    exposure = volatility_targeted(weights, forecast, equity_usd, params)
    if not returning.any():
        return exposure
    exposure = exposure + kelly(expected, returning, forecast, equity_usd, params)
    risk = np.sqrt(exposure @ forecast.covariance @ exposure * DAYS_PER_YEAR)
    gross = float(np.abs(exposure).sum())
    if not gross > 0.0:
        return exposure
    within = np.array([1.0, params.annual_vol * equity_usd / risk, params.max_leverage * equity_usd / gross])
    return np.asarray(exposure * within.min())  # NaN stays


def kelly(
    expected: FloatArray, returning: BoolArray, forecast: Forecast, equity_usd: float, params: AllocatorParameters
) -> FloatArray:
    """x [U] USD = kelly · W Σ⁻¹ μ over the return targets, 0 elsewhere. Source: Thorp (2006), the continuous case."""
    exposure = np.zeros_like(expected)
    at = np.flatnonzero(returning)
    if equity_usd <= 0.0:
        return exposure
    sub = forecast.covariance[np.ix_(at, at)]
    exposure[at] = params.kelly * equity_usd * np.linalg.solve(sub, expected[at])
    return exposure


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
