"""What trading costs, and how far exposure may stray before it is worth that: the no-trade band, cubic in its width."""

import numpy as np

from dea_daemon.domain.decisions import Forecast, View
from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.domain.parameters import AllocatorParameters

UNIT_SHARPE = 1.0  # per √year: what the target is taken to be the best answer to
MOST_OF_TARGET = 0.5  # the band is never wider than this: half of what is wanted is always held


def crossing_cost(view: View) -> FloatArray:
    """[N] USD per USD of notional traded at once: taker fee and half spread; NaN where nobody quotes."""
    mid = 0.5 * (view.bid_price + view.ask_price)
    with np.errstate(invalid="ignore", divide="ignore"):  # an option nobody quotes
        return np.asarray(view.universe.taker_fee + 0.5 * (view.ask_price - view.bid_price) / mid)


def hedge_rows(view: View, u: int) -> IntArray:
    """The rows that underlying u's delta can be traded in now: fresh, without a strike, and not fading in their
    settlement average, where the whole fee buys a part of the delta, which is gone soon."""
    universe = view.universe
    hedges = universe.tradable & (universe.underlying == u) & ~universe.option & ~universe.spot
    # Fresh rows are priced, so nothing of them is NaN.
    return np.flatnonzero(hedges & view.fresh & (view.delta_per_lot > 0) & (view.settling > 0.5))


def cube_root_band(
    view: View, forecast: Forecast, exposure_usd: FloatArray, params: AllocatorParameters, budget: float
) -> FloatArray:
    """Half-width h [U] USD = (3 c s² / 2κ)^⅓ around a volatility target; NaN where there is no contract to trade it in.

    c, USD per USD: the cheapest fresh contract's crossing cost. s², USD²/day: the variance rate of the target, which is
    target_variance · exposure². κ, 1/(USD · day): standing off the target by d costs ½ κ d² USD a day.

    κ needs a price of risk, which a volatility target does not name. Take the one at which it is optimal: whoever
    maximises μ x − ½ γ σ² x² with return μ = S σ holds x = S / (γ σ); that is the target σ* W / σ where γ = S / (σ* W),
    so κ = γ σ² = S σ² / (σ* W), with S of a Sharpe ratio of one a year (σ² per day; S / σ* is then the same
    per day as per year). `budget` scales σ* W, and so h, with the drawdown control's multiplier.

    Underlyings that share the budget stray together, as what moves their targets is mostly one thing: standing off d
    in one, d/σ alike in all, costs ½ γ σ² Σ|ρ| d² in each, so κ is that many times larger.

    Source: Whalley and Wilmott (1997), Rogers (2004) for the cube root.
    """
    cost = np.full(len(exposure_usd), np.nan)
    each = crossing_cost(view)
    for u in np.flatnonzero(np.isfinite(exposure_usd) & (exposure_usd != 0.0)):
        cost[u] = min(each[hedge_rows(view, int(u))], default=np.nan)
    variance = forecast.annual_vol**2 / DAYS_PER_YEAR
    risk_budget_usd = params.annual_vol * view.equity_usd * budget
    together = _straying_together(forecast, exposure_usd)
    curvature = UNIT_SHARPE * variance * together / risk_budget_usd if risk_budget_usd > 0.0 else np.inf
    width = half_width(cost, forecast.target_variance * exposure_usd**2, curvature)
    return np.where(exposure_usd == 0.0, 0.0, np.minimum(width, MOST_OF_TARGET * np.abs(exposure_usd)))


def _straying_together(forecast: Forecast, exposure_usd: FloatArray) -> FloatArray:
    """[U] Σ|ρ| of each with all that are targeted, itself included."""
    vol = np.sqrt(np.diag(forecast.covariance))
    targeted = np.isfinite(exposure_usd) & (exposure_usd != 0.0)
    correlation = np.abs(forecast.covariance) / np.outer(vol, vol)
    return np.asarray(np.maximum(correlation @ targeted, 1.0), dtype=np.float64)


def half_width(cost: FloatArray, target_variance_usd2: FloatArray, curvature: FloatArray | float) -> FloatArray:
    """(3 c s² / 2κ)^⅓, USD: what is least in the long run of ½ κ h²/3, the penalty of a gap anywhere within ± h, plus
    c s² / 2h, the cost of holding a walk of variance rate s² there by trades at the edges.

    cost [U] USD per USD; target_variance_usd2 [U] USD²/day; curvature 1/(USD · day).
    """
    return np.asarray(np.cbrt(1.5 * cost * target_variance_usd2 / curvature))
