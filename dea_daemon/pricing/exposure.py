"""What one lot of each contract is exposed to, and what the coins in the account are.

Exposure E = X·q + e0: X [K, N] USD per lot, q [N] lots, e0 [K] USD of what the daemon holds but does not
trade. Source: the conventions of Deribit's "your delta is Equity + DeltaTotal".
"""

import numpy as np

from dea_daemon.domain.factors import FactorIndex
from dea_daemon.domain.instruments import FloatArray, Universe


def notional_per_lot(universe: Universe, mark_price: FloatArray) -> FloatArray:
    """USD per lot [N], positive: face value for inverse contracts, size times mark for the others. NaN stays."""
    return np.where(universe.inverse, universe.lot_value, universe.lot_value * mark_price)


def delta_per_lot(
    universe: Universe, factors: FactorIndex, mark_price: FloatArray, underlying_price: FloatArray
) -> FloatArray:
    """Dollar delta of one lot, X [K, N] USD. `mark_price` [N], `underlying_price` [U] USD.

    Linear: size · mark. Inverse: face · index / mark, which is right only where the coin equity in e0 counts
    unrealised PnL: then a short with face = equity in USD has exactly no delta.
    """
    spot = underlying_price[universe.underlying]
    per_lot = np.where(universe.inverse, universe.lot_value * spot / mark_price, universe.lot_value * mark_price)
    matrix = np.zeros((len(factors), len(universe)))
    rows = np.array([factors.delta(u) for u in universe.underlyings], dtype=np.int64)
    matrix[rows[universe.underlying], np.arange(len(universe))] = per_lot
    return matrix


def collateral_delta(
    factors: FactorIndex, equity_by_currency: dict[str, float], price_by_currency: dict[str, float]
) -> FloatArray:
    """e0 [K] USD: equity held in an underlying's own coin, unrealised PnL included, at its index.

    Currencies that are not an underlying carry no delta. A missing price gives NaN, never zero.
    """
    base = np.zeros(len(factors))
    for k, underlying in enumerate(factors.underlyings):
        if (coins := equity_by_currency.get(underlying, 0.0)) != 0.0:
            base[k] = coins * price_by_currency.get(underlying, np.nan)
    return base
