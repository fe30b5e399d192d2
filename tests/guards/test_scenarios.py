"""The loss in the worst scenario: as an account revalued by other means would lose, and never more than allowed."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from vollib.black import undiscounted_black  # type: ignore[import-untyped]

from dea_daemon.domain.decisions import Licence, View
from dea_daemon.guards.guard import guard
from dea_daemon.guards.uses import uses
from dea_daemon.pricing.revaluation import MOVES, VOLS, gain_per_lot
from tests.guards.test_options_guards import admitted, bases, held, order, orders_in, positions, view
from tests.guards.test_relative_and_greek_limits import limits
from tests.guards.views import (
    COIN_CALL,
    COIN_PUT,
    SPOT,
    USDC_CALL,
    USDC_PUT,
    VOL,
    WITH_OPTIONS,
    YEARS,
    loss,
    whole,
)
from tests.house import BTC_LINEAR, BTC_PERP, ETH_PERP

UP = (30.0 / 10.0) ** 0.30  # the options of these views live ten days
ROWS = range(len(WITH_OPTIONS))
ANY_LOSS = limits(max_scenario_loss=1.0)


def worth(row: int, spot: float, vol: float) -> tuple[float, float]:
    """(coins, USD) that a lot held long since the price of the view is worth, by the contract's own terms."""
    i, now = WITH_OPTIONS.instruments[row], float(SPOT[WITH_OPTIONS.underlying[row]])
    size = i.lot_value
    if i.strike:
        value = undiscounted_black(spot, i.strike, vol, YEARS, "c" if i.is_call else "p")
        return (size * value / spot, 0.0) if i.quote_currency == "BTC" else (0.0, size * value)
    if i.payoff.value == "inverse":
        return size * (1.0 / now - 1.0 / spot), 0.0
    return 0.0, size * (spot - now)


def loss_by_hand(lots, base) -> float:
    """Of a book and coins worth `base` [U] USD (options and all), each underlying at its own worst."""
    total = 0.0
    for u, now in enumerate(SPOT.tolist()):
        outcomes = []
        for move, shock in itertools.product(MOVES, VOLS):
            spot, vol = now * (1.0 + move), VOL * (1.0 + shock * UP)
            change = base[u] * move
            for row in ROWS:
                if WITH_OPTIONS.underlying[row] == u and lots[row]:
                    (coins0, usd0), (coins1, usd1) = worth(row, now, VOL), worth(row, spot, vol)
                    change += lots[row] * ((coins1 - coins0) * spot + usd1 - usd0)
            outcomes.append(change)
        total += max(-min(outcomes), 0.0)
    return total


@given(positions, bases)
@settings(max_examples=60, deadline=None)
def test_the_loss_is_that_of_the_account_revalued_by_its_contracts_terms(position, base):
    v = view(position, base=base)
    found = loss(v, v.position_lots, ANY_LOSS)
    assert found == pytest.approx(loss_by_hand(v.position_lots, base), rel=1e-6, abs=0.5)


@pytest.mark.parametrize(
    ("book", "gains_by"),
    [({"perp": 1_000}, "a fall"), ({"coin_call": -40}, "a rise"), ({"coin_put": -10}, "a fall")],
)
def test_each_kind_of_position_has_a_worst_case(book, gains_by):
    v = view(held(**book))
    assert loss(v, v.position_lots, ANY_LOSS) > 0.0, gains_by


@given(positions, bases, orders_in(most=4))
@settings(max_examples=25, deadline=None)
def test_no_subset_of_working_orders_loses_more_than_the_worst_that_is_told(position, base, orders):
    v = view(position, base=base)
    told = whole(v, ANY_LOSS, orders).losses_usd()["scenario"]
    for chosen in itertools.product((0, 1), repeat=len(orders)):
        lots = v.position_lots.copy()
        for take, o in zip(chosen, orders, strict=True):
            lots[o.row] += take * o.side.sign * o.lots
        assert loss(v, lots, ANY_LOSS) <= told + 1e-6


@given(positions, bases, orders_in(most=4))
@settings(max_examples=25, deadline=None)
def test_no_subset_of_admitted_orders_exceeds_the_limit_or_worsens_a_breach(position, base, orders):
    v = view(position, base=base, equity_usd=1e6)
    params = limits(max_scenario_loss=0.05)
    now = loss(v, v.position_lots, ANY_LOSS)
    let, _ = admitted(v, orders, params)
    for chosen in itertools.product((0, 1), repeat=len(let)):
        lots = v.position_lots.copy()
        for take, o in zip(chosen, let, strict=True):
            lots[o.row] += take * o.side.sign * o.lots
        assert loss(v, lots, ANY_LOSS) <= max(50_000.0, now) + 1e-6


def test_a_book_beyond_its_scenario_limit_may_only_reduce_and_says_how_far_it_is():
    v = view(held(coin_call=-40), base=(400_000.0, 0.0), equity_usd=500_000.0)
    params = limits(max_scenario_loss=0.05)
    permit = guard(v, v.position_lots, params)
    assert set(permit.licence.tolist()) == {int(Licence.SHRINK_EXPOSURE)}
    (use,) = [use for use in uses(whole(v, params), params) if use.limit == "scenario"]
    assert use.allowed == 25_000.0 and use.used > 25_000.0
    # A fall is the worst of it: calls bought back would lose more there, coins sold less.
    let, _ = admitted(v, [order(BTC_PERP, 2_000), order(COIN_CALL, 10, 2), order(BTC_PERP, -2_000, 3)], params)
    assert [(o.row, o.side.sign) for o in let] == [(BTC_PERP, -1)]


@pytest.mark.parametrize("row", [BTC_PERP, BTC_LINEAR, ETH_PERP, COIN_CALL, COIN_PUT, USDC_CALL, USDC_PUT])
def test_what_cannot_be_valued_lets_nothing_grow(row):
    v = unvalued(view(held(perp=10)), row)
    params = limits(max_scenario_loss=10.0)
    assert not admitted(v, [order(row, 10)], params)[0]


def unvalued(v: View, row: int) -> View:
    """A view that does not know what this row moves by."""
    per_lot, iv = v.delta_per_lot.copy(), v.iv.copy()
    per_lot[row], iv[row] = math.nan, math.nan
    return view(tuple(v.position_lots), delta_per_lot=per_lot, iv=iv)


def test_in_the_settlement_window_only_what_is_left_to_settle_moves():
    v = view(held(perp=1_000, coin_call=10))
    half = np.full(len(ROWS), 0.5)
    perp, call = np.array([BTC_PERP]), np.array([COIN_CALL])
    # A dated future's delta holds the share already; an option's does not enter its revaluation.
    future = view(held(perp=1_000, coin_call=10), settling=half, delta_per_lot=v.delta_per_lot * 0.5)
    np.testing.assert_allclose(gain_per_lot(future, perp), 0.5 * gain_per_lot(v, perp))
    option = view(held(perp=1_000, coin_call=10), settling=half)
    assert (np.abs(gain_per_lot(option, call)) <= np.abs(gain_per_lot(v, call)) + 1e-9)[:27][
        np.tile(VOLS, 9) == 0.0
    ].all()
