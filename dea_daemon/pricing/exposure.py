"""What one lot of each contract is exposed to, and what the coins in the account are.

Exposure E = X·q + e0: X [K, N] USD per lot, q [N] lots, e0 [K] USD of what the account holds. Rows as in
`domain.factors`. Everything follows from one sum, the account's worth W = Σ equity_c · price_c over its currencies,
where a coin's equity counts unrealised PnL and options at their value. Source: Deribit, "your delta is Equity +
DeltaTotal"; the letters below are m lot_value, S index of the underlying, F the contract's own forward (its mark for
all but options), P the settle currency's price, c = V/F an option's value in coin.

- delta = S ∂W/∂S. The part through equity is e0; what is left for X is S ∂(equity)/∂S at the settle price: linear
  and quanto m·F·P, inverse m·S/F, coin-quoted option m·S·(Δ − c), USD-settled option m·F·Δ·P.
- gamma = S² ∂²W/∂S² / 100, equity held or not: the change of the dollar delta for 1 %, beyond that of coins merely
  held. Nothing for futures; m·S·F·Γ/100 in coin, m·F²·Γ·P/100 in USD.
- vega, theta: ∂W by volatility and time at fixed F; carry: what funding and the forwards' way to the index add.

A spot row is the marginal exposure of buying a lot: what is held already stands in e0, so callers leave spot out
of X·q. Stablecoins are priced by P alone: that a depeg also moves prices quoted in them is not seen here.
"""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, get_args

import numpy as np

from dea_daemon.domain.errors import check
from dea_daemon.domain.factors import BUCKETS, FactorIndex
from dea_daemon.domain.instruments import FloatArray, IntArray, Universe
from dea_daemon.domain.numbers import DAYS_PER_YEAR

Convention = Literal["premium_adjusted", "black"]
"""Where the coin value of coin-quoted options is counted: in e0, as the venue does, or in X (e0 is then cash)."""

CONVENTIONS: Final = get_args(Convention)
FUNDINGS_PER_DAY = 3.0
_BUCKET_ENDS = np.array([days for _, days in BUCKETS])


class Marks(NamedTuple):
    """Prices and Greeks of all rows, [N] each; NaN where unknown, and anything where a kind of contract has none.

    mark_price in quote currency; spot_price (index of the underlying), settle_price (of the settle currency) USD;
    forward_price of options, in their strike's unit (a stablecoin's or USD). funding_rate_8h a fraction; tau_years
    to expiry, not below 0; weight in [0, 1] the share of the settlement average still to come, 1 before it.
    delta, gamma, vega, theta: `black.Greeks` per coin of underlying: dV/dF, d²V/dF², USD per 1.00 of volatility, USD
    per year. coin_value = V/F of coin-quoted options.
    """

    mark_price: FloatArray
    spot_price: FloatArray
    forward_price: FloatArray
    settle_price: FloatArray
    funding_rate_8h: FloatArray
    tau_years: FloatArray
    weight: FloatArray
    delta: FloatArray
    gamma: FloatArray
    vega: FloatArray
    theta: FloatArray
    coin_value: FloatArray


def term_weight(days: FloatArray) -> FloatArray:
    """Weight of a vol point at so many days against one at 30: (30/d)^p, p = .30 below 30 days, .13 above.

    Days count as one at least: nearer to expiry realised moves rule, not implied ones. Source: the volatility
    shocks of Deribit's portfolio margin.
    """
    days = np.maximum(days, 1.0)
    return np.asarray((30.0 / days) ** np.where(days < 30.0, 0.30, 0.13))


def notional_per_lot(universe: Universe, mark_price: FloatArray, spot_price: FloatArray) -> FloatArray:
    """USD per lot [N], positive: face value for inverse contracts, size times index for options, and size times
    mark for the others. NaN stays."""
    if universe.plain:
        return universe.lot_value * mark_price
    price = np.where(universe.option, spot_price, mark_price)
    return np.where(universe.inverse, universe.lot_value, universe.lot_value * price)


def delta_per_lot(universe: Universe, marks: Marks, convention: Convention = "premium_adjusted") -> FloatArray:
    """Dollar delta of one lot on its own underlying, [N] USD, signed (puts are negative).

    In the settlement average the forward is (1 − w)·A + w·S, A what is fixed and w the weight still to come, so
    dF/dS = w, and ∂F/∂lnS = w·S, which is w·F but for the index's move since the averaging began: delta is multiplied
    by w, gamma by w². That holds for what moves with F; the coin value itself stays worth S.
    """
    check(convention in CONVENTIONS, f"no such convention: {convention!r}")
    with np.errstate(all="ignore"):
        if not universe.series_count:
            return _linear(universe, marks)
        delta = _delta(universe, marks, _usd_per_value(universe, marks))
        return delta if convention == "premium_adjusted" else delta + _option_value(universe, marks)


def exposure_per_lot(
    universe: Universe, factors: FactorIndex, marks: Marks, convention: Convention = "premium_adjusted"
) -> FloatArray:
    """X [K, N]: exposure of one lot to each factor, USD as `FactorIndex` says. All but delta is the same in both
    conventions. NaN stands only in the rows whose inputs are NaN."""
    check(convention in CONVENTIONS, f"no such convention: {convention!r}")
    check(factors.underlyings == universe.underlyings, "factors are not the universe's")
    if not universe.series_count:
        return _endless(universe, factors, marks)
    with np.errstate(all="ignore"):
        scale = _usd_per_value(universe, marks)
        delta = _delta(universe, marks, scale)
        days = np.maximum(marks.tau_years, 0.0) * DAYS_PER_YEAR
        weight, forward = marks.weight, marks.forward_price
        gamma = np.where(universe.option, scale * forward**2 * marks.gamma * weight**2 / 100.0, 0.0)
        vega = np.where(universe.option, scale * marks.vega / 100.0, 0.0)
        theta = np.where(universe.option, scale * marks.theta / DAYS_PER_YEAR, 0.0)
        total = np.where(universe.option, vega * term_weight(days), 0.0)
        basis = np.where(universe.expiry_ns > 0, delta * days / DAYS_PER_YEAR * 0.01, 0.0)
        carry = _carry(universe, marks, delta, days)
        if convention == "black":
            delta = delta + _option_value(universe, marks)
    matrix = np.zeros((len(factors), len(universe)))
    _by_underlying(universe, matrix, (delta, gamma, total, theta, carry))
    _by_bucket(universe, factors, matrix, vega, basis, days)
    return matrix


def _endless(universe: Universe, factors: FactorIndex, marks: Marks) -> FloatArray:
    """X [K, N] where nothing ends: there are no options and no forwards, so it is all delta and funding."""
    with np.errstate(all="ignore"):
        delta = _linear(universe, marks)
        paid = -FUNDINGS_PER_DAY * marks.funding_rate_8h * delta
        if not universe.plain:
            paid = np.where(universe.spot, 0.0, paid)
    matrix = np.zeros((len(factors), len(universe)))
    flat = matrix.reshape(-1)
    flat[universe.place] = delta
    flat[factors.first("carry") * len(universe) + universe.place] = paid
    return matrix


def collateral_exposure(
    factors: FactorIndex, equity_by_currency: Mapping[str, float], price_by_currency: Mapping[str, float]
) -> FloatArray:
    """e0 [K] USD, premium-adjusted: equity in each currency, unrealised PnL and option value included, at its price.

    Coins that are underlyings stand in their delta rows, `factors.currencies` in their cash rows. A missing price
    gives NaN, never zero, and only where something is held.
    """
    base = np.zeros(len(factors))
    for first, currencies in ((0, factors.underlyings), (factors.first("cash"), factors.currencies)):
        for k, currency in enumerate(currencies, first):
            if (held := equity_by_currency.get(currency, 0.0)) != 0.0:
                base[k] = held * price_by_currency.get(currency, np.nan)
    return base


def account_exposure(
    universe: Universe,
    factors: FactorIndex,
    marks: Marks,
    position_lots: IntArray,
    equity_by_currency: Mapping[str, float],
    price_by_currency: Mapping[str, float],
    convention: Convention = "premium_adjusted",
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """X [K, N], e0 [K] and X·q + e0 [K], all of one convention: the sum is the same in both.

    In Black's, e0 is equity less the value of coin-quoted options. A contract that cannot be priced spoils the sum
    only while it is held.
    """
    matrix = exposure_per_lot(universe, factors, marks, convention)
    base = collateral_exposure(factors, equity_by_currency, price_by_currency)
    held = ((position_lots != 0) & ~universe.spot).nonzero()[0]
    if convention == "black":
        value = _option_value(universe, marks)[held] * position_lots[held]
        base[: len(factors.underlyings)] -= np.bincount(
            universe.underlying[held], weights=value, minlength=len(factors.underlyings)
        )
    return matrix, base, matrix[:, held] @ position_lots[held] + base


def _usd_per_value(universe: Universe, marks: Marks) -> FloatArray:
    """USD per lot for each USD of an option's Black value V: coin-quoted ones pay V/F coins, worth S each."""
    worth = np.where(universe.coin_quoted, marks.spot_price / marks.forward_price, marks.settle_price)
    return np.asarray(universe.lot_value * worth)


def _option_value(universe: Universe, marks: Marks) -> FloatArray:
    """USD value of a lot of each coin-quoted option, at our volatility; 0 for all else."""
    return np.where(universe.coin_quoted, universe.lot_value * marks.spot_price * marks.coin_value, 0.0)


def _delta(universe: Universe, marks: Marks, scale: FloatArray) -> FloatArray:
    """Premium-adjusted dollar delta per lot [N]."""
    premium = np.where(universe.coin_quoted, marks.coin_value, 0.0)
    option = scale * marks.forward_price * (marks.delta - premium)
    dated = np.where(universe.expiry_ns > 0, marks.weight, 1.0)
    return np.asarray(np.where(universe.option, option, _linear(universe, marks)) * dated)


def _linear(universe: Universe, marks: Marks) -> FloatArray:
    """Dollar delta per lot [N] of what is no option, before the settlement average."""
    mark = marks.mark_price
    if universe.plain:
        return universe.lot_value * (mark * marks.settle_price)
    coins = np.where(universe.inverse, universe.lot_value / mark, universe.lot_value)
    return np.asarray(coins * np.where(universe.inverse | universe.spot, marks.spot_price, mark * marks.settle_price))


def _carry(universe: Universe, marks: Marks, delta: FloatArray, days: FloatArray) -> FloatArray:
    """USD per lot and day, as now: a long perpetual pays a positive rate, a long forward slides to the index.

    Over the coming day, or until expiry where that is sooner. Options slide with their forward, too, so that theta
    and carry together are all that time takes. In the settlement average F is not the index carried: 0 there.
    """
    forward = np.where(universe.option, marks.forward_price, marks.mark_price)
    slide = np.where(marks.weight < 1.0, 0.0, np.log(forward / marks.spot_price) / np.maximum(days, 1.0))
    rate = np.where(universe.expiry_ns > 0, slide, FUNDINGS_PER_DAY * marks.funding_rate_8h)
    return np.where(universe.spot, 0.0, -rate * delta)


def _by_underlying(universe: Universe, matrix: FloatArray, kinds: tuple[FloatArray, ...]) -> None:
    """Write the kinds [N] that come first in the matrix, one after the other, each in the row of its underlying."""
    u, n = len(universe.underlyings), len(universe)
    mine = universe.underlying == np.arange(u)[:, None]
    for k, values in enumerate(kinds):
        np.copyto(matrix[k * u : (k + 1) * u].reshape(u, n), values, where=mine)


def _by_bucket(
    universe: Universe, factors: FactorIndex, matrix: FloatArray, vega: FloatArray, basis: FloatArray, days: FloatArray
) -> None:
    """Write vega and basis [N] in the rows of their expiry bucket and underlying."""
    n = len(universe)
    bucket = np.minimum(np.searchsorted(_BUCKET_ENDS, days), len(BUCKETS) - 1)  # NaN sorts behind them all
    # Counted as one line of numbers: several times faster than by pairs of row and column.
    place = (bucket * len(universe.underlyings) + universe.underlying) * n + np.arange(n)
    flat = matrix.reshape(-1)
    flat[place + factors.first("vega", 0) * n] = vega
    flat[place + factors.first("basis", 0) * n] = basis
