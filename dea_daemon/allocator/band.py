"""What trading costs, and how far exposure may stray before it is worth that: the no-trade band, cubic in its width."""

from typing import NamedTuple

import numpy as np

from dea_daemon.domain.decisions import Forecast, View
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY
from dea_daemon.domain.parameters import AllocatorParameters

UNIT_SHARPE = 1.0  # per √year: what the target is taken to be the best answer to
WANDER_HALF_LIFE_DAYS = 7.0
MOST_OF_TARGET = 0.5  # the band is never wider than this: half of what is wanted is always held


def crossing_cost(view: View) -> FloatArray:
    """[N] USD per USD of notional traded at once: taker fee and half spread; NaN where nobody quotes.

    Of an option, whose notional is the underlying's: fee and spread are shares of that, the fee capped by premium.
    """
    universe = view.universe
    mid = 0.5 * (view.bid_price + view.ask_price)
    with np.errstate(invalid="ignore", divide="ignore"):  # an option nobody quotes
        half_spread = 0.5 * (view.ask_price - view.bid_price) / mid
        if not universe.option.any():
            return np.asarray(universe.taker_fee + half_spread)
        price = np.where(universe.coin_quoted, 1.0, view.underlying_price[universe.underlying])
        premium = np.where(universe.option, mid / price, 1.0)  # of the notional
        fee = np.where(universe.option, np.minimum(universe.taker_fee, universe.fee_cap * premium), universe.taker_fee)
        return np.asarray(fee + half_spread * premium)


def hedges(view: View) -> BoolArray:
    """[N] what delta can be traded in now: fresh, open, without a strike, and not fading in its settlement average,
    where the whole fee buys a part of the delta, which is gone soon."""
    universe = view.universe
    may = universe.tradable & ~universe.option & ~universe.spot & ~view.shut & ~view.quarantined
    # Fresh rows are priced, so nothing of them is NaN.
    return np.asarray(may & view.fresh & (view.delta_per_lot > 0) & (view.settling > 0.5))


def hedge_rows(view: View, u: int) -> IntArray:
    """The rows underlying u's delta can be traded in now."""
    return np.flatnonzero(hedges(view) & (view.universe.underlying == u))


def cheapest(view: View, cost: FloatArray) -> FloatArray:
    """[U] the least of `cost` [N] among each underlying's hedges; NaN where there is none."""
    least = np.full(len(view.universe.underlyings), np.inf)
    rows = np.flatnonzero(hedges(view))
    np.minimum.at(least, view.universe.underlying[rows], cost[rows])
    return np.where(np.isfinite(least), least, np.nan)


def risk_aversion(equity_usd: float, params: AllocatorParameters) -> float:
    """γ, 1/USD: at which a book of `annual_vol` with a Sharpe ratio of one is the best there is.

    Whoever maximises μx − ½γσ²x² with return μ = Sσ holds x = S / (γσ); that risks σ* W where γ = S / (σ* W). S / σ* is
    the same per day as per year. Infinite without equity.
    """
    budget_usd = params.annual_vol * equity_usd
    return UNIT_SHARPE / budget_usd if budget_usd > 0.0 else np.inf


class Wander(NamedTuple):
    """How the exposures wanted have moved, [U], the last week or so counting most: `squares` USD² of changes and
    `sizes` USD² · days, over `days`; `exposure_usd` at `at_ns` the last of them."""

    at_ns: int
    exposure_usd: FloatArray
    squares: FloatArray
    sizes: FloatArray
    days: FloatArray

    @classmethod
    def begin(cls, underlyings: int) -> "Wander":
        none = np.zeros(underlyings)
        return cls(0, np.full(underlyings, np.nan), none, none, none)

    def after(self, now_ns: int, exposure_usd: FloatArray) -> "Wander":
        """One more. NaN is no change, and what comes after it is none either."""
        days = (now_ns - self.at_ns) / NS_PER_DAY if self.at_ns else 0.0
        change = exposure_usd - self.exposure_usd
        known, keep = change == change, 0.5 ** (days / WANDER_HALF_LIFE_DAYS)
        squares = keep * self.squares + np.where(known, change, 0.0) ** 2
        sizes = keep * self.sizes + np.where(known, exposure_usd, 0.0) ** 2 * days
        return Wander(now_ns, exposure_usd, squares, sizes, keep * self.days + known * days)

    @property
    def variance(self) -> FloatArray:
        """[U] USD²/day; 0 where nothing was seen yet."""
        return np.asarray(self.squares / np.maximum(self.days, 1e-9) * (self.days > 0.0))

    @property
    def size_usd(self) -> FloatArray:
        """[U] root of the mean square."""
        return np.asarray(np.sqrt(self.sizes / np.maximum(self.days, 1e-9)))


def target_band(
    view: View,
    forecast: Forecast,
    exposure_usd: FloatArray,
    cost: FloatArray,
    params: AllocatorParameters,
    budget: float,
    wander: Wander | None = None,
) -> FloatArray:
    """Half-width h [U] USD = (3 c s² / 2κ)^⅓ around volatility and return targets; NaN where there is no contract to
    trade in.

    c = `cost` [U], USD per USD. s², USD²/day: the variance rate of the target, which is target_variance · exposure².
    κ, 1/(USD · day): standing off the target by d costs ½ κ d² USD a day, κ = γ σ² with the aversion that makes the
    target the best answer; `budget` scales σ* W in it, and so h, with the drawdown control's multiplier.

    Underlyings that share the budget stray together, as what moves their targets is mostly one thing: standing off d
    in one, d/σ alike in all, costs ½ γ σ² Σ|ρ| d² in each, so κ is that many times larger.

    A target that follows what is expected moves with that, too: where `wander` has seen more, s² is what was seen, and
    h may be half of its usual size, though it be near 0 now.

    Source: Whalley and Wilmott (1997), Rogers (2004) for the cube root.
    """
    variance = forecast.annual_vol**2 / DAYS_PER_YEAR
    together = _straying_together(forecast, exposure_usd)
    curvature = risk_aversion(view.equity_usd * budget, params) * variance * together
    moves, size_usd = forecast.target_variance * exposure_usd**2, np.abs(exposure_usd)
    if wander is not None:
        moves, size_usd = np.fmax(moves, wander.variance), np.fmax(size_usd, wander.size_usd)
    width = half_width(cost, moves, curvature)
    return np.where(size_usd == 0.0, 0.0, np.minimum(width, MOST_OF_TARGET * size_usd))


def hedge_band(
    view: View, forecast: Forecast, wanted_usd: FloatArray, cost: FloatArray, params: AllocatorParameters
) -> FloatArray:
    """Half-width h [U] USD around fixed deltas `wanted_usd` [U], which the market moves instead, by gamma and as a
    delta in dollars grows with the price: s² = (Γ$ + wanted)² σ², Γ$ = S² Γ the gamma for 100 %, and κ = γ σ², so
    h = (3 c (Γ$ + wanted)² / 2γ)^⅓.

    Source: Whalley and Wilmott (1997): in contracts (1.5 λ S Γ² / γ)^⅓, λ the cost per USD.
    """
    moved = 100.0 * view.factor_usd("gamma") + wanted_usd
    variance = forecast.annual_vol**2 / DAYS_PER_YEAR
    return half_width(cost, moved**2 * variance, risk_aversion(view.equity_usd, params) * variance)


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
