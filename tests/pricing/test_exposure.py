"""Exposure: deltas by finite differences of what positions and coins are worth."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.pricing.exposure import collateral_delta, delta_per_lot, notional_per_lot
from tests.guards.views import FACTORS, UNIVERSE
from tests.house import BTC_LINEAR, BTC_PERP

INDEX = np.array([80_000.0, 3_000.0])
BASIS = np.array([1.001, 1.02, 0.999, 1.0])  # mark over index
lots = st.lists(st.integers(-5_000, 5_000), min_size=4, max_size=4).map(np.array)
coins = st.tuples(st.floats(0.0, 10.0), st.floats(0.0, 100.0))


def marks(index):
    return BASIS * index[UNIVERSE.underlying]


def worth_usd(position, cash, entry, index) -> float:
    """USD worth of coins and unrealised PnL, coin PnL converted at the index."""
    mark = marks(index)
    spot = index[UNIVERSE.underlying]
    inverse = position * UNIVERSE.lot_value * (1.0 / entry - 1.0 / mark) * spot
    linear = position * UNIVERSE.lot_value * (mark - entry)
    return float(np.where(UNIVERSE.inverse, inverse, linear).sum() + cash @ index)


def exposure(position, cash, entry, index):
    """X·q + e0, with unrealised coin PnL in the equity as e0 wants it."""
    mark = marks(index)
    pnl = np.where(UNIVERSE.inverse, position * UNIVERSE.lot_value * (1.0 / entry - 1.0 / mark), 0.0)
    equity = {u: float(cash[k] + pnl[UNIVERSE.underlying == k].sum()) for k, u in enumerate(UNIVERSE.underlyings)}
    base = collateral_delta(FACTORS, equity, dict(zip(UNIVERSE.underlyings, index.tolist(), strict=True)))
    return delta_per_lot(UNIVERSE, FACTORS, mark, index) @ position + base


@given(lots, coins, st.floats(0.8, 1.25))
def test_delta_is_the_derivative_of_what_the_account_is_worth(position, cash, entered_at):
    cash, entry = np.array(cash), entered_at * marks(INDEX)
    measured = exposure(position, cash, entry, INDEX)
    for k in range(len(FACTORS)):
        h = 1e-5
        up, down = INDEX.copy(), INDEX.copy()
        up[k] *= 1.0 + h
        down[k] *= 1.0 - h
        slope = (worth_usd(position, cash, entry, up) - worth_usd(position, cash, entry, down)) / (2.0 * h)
        assert abs(measured[k] - slope) <= 1e-4 * (1.0 + abs(slope) + 1e6 * 1e-3)


def test_an_inverse_short_of_face_equal_to_equity_has_no_delta():
    index = np.array([80_000.0, 3_000.0])
    mark = index[UNIVERSE.underlying].copy()
    position = np.array([-40_000, 0, 0, 0])  # 400,000 USD of face
    cash = np.array([5.0, 0.0])  # 5 BTC
    assert abs(exposure(position, cash, mark / BASIS * BASIS, index)[0]) < 1_500.0
    x = delta_per_lot(UNIVERSE, FACTORS, mark, index)
    base = collateral_delta(FACTORS, {"BTC": 5.0}, {"BTC": 80_000.0})
    assert (x @ position + base)[0] == 0.0


def test_a_linear_lot_is_its_size_times_the_mark():
    x = delta_per_lot(UNIVERSE, FACTORS, marks(INDEX), INDEX)
    assert np.isclose(x[0, BTC_LINEAR], 0.0001 * 80_000.0 * BASIS[BTC_LINEAR])
    assert x[1, BTC_LINEAR] == 0.0


def test_inverse_notional_is_face_whatever_the_mark():
    notional = notional_per_lot(UNIVERSE, np.array([np.nan, 1.0, np.nan, 5.0]))
    assert notional[BTC_PERP] == 10.0
    assert np.isnan(notional[BTC_LINEAR])


def test_a_coin_without_a_price_is_unknown_and_no_coin_needs_none():
    assert np.isnan(collateral_delta(FACTORS, {"BTC": 1.0}, {})[0])
    assert collateral_delta(FACTORS, {"BTC": 0.0, "USDC": 5.0}, {})[0] == 0.0
