"""Limits on gamma and vega, limits that breathe with equity, and margin: each at its worst, each with its reason."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings

from dea_daemon.domain.decisions import Licence, View
from dea_daemon.domain.modes import Mode
from dea_daemon.guards import cuts
from dea_daemon.guards.conditions import licences
from dea_daemon.guards.guard import guard
from dea_daemon.guards.limits import caps
from dea_daemon.guards.uses import uses
from tests.guards.test_options_guards import admitted, bases, held, order, orders_in, positions, view
from tests.guards.views import COIN_CALL, extremes, whole
from tests.house import BTC_PERP, parameters

WIDE: dict[str, object] = {"max_gross_usd": 1e9, "max_net_usd": 1e9, "max_instrument_usd": 1e9, "max_order_usd": 1e9}


def limits(**changes: float):
    return parameters(guards=WIDE | changes).guards


def greek(v: View, lots, kind: str) -> np.ndarray:
    """[U] of a book, by the matrix itself."""
    first = v.factors.first(kind)
    return np.asarray((v.exposure_per_lot @ lots + v.exposure_base_usd)[first : first + 2])


@given(positions, bases, orders_in())
@settings(max_examples=80, deadline=None)
def test_no_subset_of_admitted_orders_exceeds_gamma_or_vega_or_worsens_a_breach_of_them(position, base, orders):
    v = view(position, base=base)
    params = limits(max_gamma_usd_1pct=20_000.0, max_vega_usd_1pt=500.0)
    let, _ = admitted(v, orders, params)
    caps_of = {"gamma": 20_000.0, "vega": 500.0}
    net_breached = bool((np.abs(v.delta_usd) > params.max_net_usd).any())
    vega_breached = bool((np.abs(greek(v, v.position_lots, "vega")) > 500.0).any())
    for chosen in itertools.product((0, 1), repeat=len(let)):
        lots = v.position_lots.copy()
        for take, o in zip(chosen, let, strict=True):
            lots[o.row] += take * o.side.sign * o.lots
        for kind, cap in caps_of.items():
            if kind == "gamma" and vega_breached:
                continue  # one of lower priority gives way to an order that ends the other's breach
            now, after = np.abs(greek(v, v.position_lots, kind)), np.abs(greek(v, lots, kind))
            assert net_breached or (after <= np.maximum(cap, now) + 1e-6).all()


@given(positions, bases, orders_in(most=4))
@settings(max_examples=40, deadline=None)
def test_the_worst_gamma_and_vega_are_reached_by_some_subset_and_passed_by_none(position, base, orders):
    v = view(position, base=base)
    book = whole(v, limits(max_gamma_usd_1pct=1.0, max_vega_usd_1pt=1.0), orders)
    for kind in ("gamma", "vega"):
        found = []
        for chosen in itertools.product((0, 1), repeat=len(orders)):
            lots = v.position_lots.copy()
            for take, o in zip(chosen, orders, strict=True):
                lots[o.row] += take * o.side.sign * o.lots
            found.append(greek(v, lots, kind))
        low, high = extremes(book, kind)
        np.testing.assert_allclose(high, np.max(found, axis=0), atol=1e-6)
        np.testing.assert_allclose(low, np.min(found, axis=0), atol=1e-6)


def test_a_short_gamma_beyond_its_limit_lets_options_be_bought_back_and_hedged_but_nothing_grow():
    v = view(held(coin_call=-40, perp=-3_000), base=(300_000.0, 0.0))
    params = limits(max_gamma_usd_1pct=1_000.0)
    permit = guard(v, v.position_lots, params)
    assert set(permit.licence.tolist()) == {int(Licence.SHRINK_EXPOSURE)}
    let, refusals = admitted(v, [order(COIN_CALL, 10), order(COIN_CALL, -10, 2)], params)
    assert [(o.row, o.side.sign) for o in let] == [(COIN_CALL, 1)]
    assert refusals and "gamma:BTC" in {use.subject for use in uses(whole(v, params), params) if use.limit == "gamma"}


def test_without_such_limits_there_is_neither_use_nor_cap():
    v = view(held(coin_call=-40))
    assert {use.limit for use in uses(whole(v, limits()), limits())} & {"gamma", "vega"} == set()
    assert caps(v, limits()).gamma == caps(v, limits()).vega == math.inf


@pytest.mark.parametrize(
    ("option", "limit"),
    [("max_gross_leverage", "gross"), ("max_net_leverage", "net"), ("max_instrument_leverage", "instrument")],
)
def test_a_limit_in_equities_shrinks_with_them_and_the_lesser_counts(option, limit):
    params = limits(**{option: 0.5, f"max_{limit}_usd": 400_000.0})
    assert getattr(caps(view(equity_usd=1e6), params), limit) == 400_000.0
    assert getattr(caps(view(equity_usd=1e5), params), limit) == 50_000.0
    assert math.isnan(getattr(caps(view(equity_usd=math.nan), params), limit))
    let, _ = admitted(view(equity_usd=1e5), [order(BTC_PERP, 4_000)], params)
    assert [o.lots for o in let] == [4_000]  # 40,000 USD
    assert not admitted(view(equity_usd=1e5), [order(BTC_PERP, 6_000)], params)[0]


@pytest.mark.parametrize(
    ("use", "licence"),
    [
        (0.5, Licence.ANYTHING),
        (0.65, Licence.SHRINK_EXPOSURE),
        (0.8, Licence.SHRINK_POSITION),
        (math.inf, Licence.SHRINK_POSITION),
        (math.nan, Licence.SHRINK_POSITION),
    ],
)
def test_margin_in_use_takes_away_one_liberty_after_the_other(use, licence):
    v = view(margin_use=use)
    none = np.zeros(len(v.universe), dtype=np.bool_)
    found, why = licences(v, v.mode, False, none, none, limits())
    assert found[BTC_PERP] == licence
    assert licence is Licence.ANYTHING or "margin" in why


@pytest.mark.parametrize(
    ("equity_usd", "mode"),
    [(0.98e6, Mode.NORMAL), (0.96e6, Mode.REDUCE_ONLY), (0.94e6, Mode.HALTED), (1.1e6, Mode.NORMAL)],
)
def test_a_days_loss_leads_to_reduce_only_and_then_to_a_halt(equity_usd, mode):
    params = limits(max_daily_loss=0.03, halt_daily_loss=0.05)
    v = view(equity_usd=equity_usd, day_equity_usd=1e6)
    permit = guard(v, v.position_lots, params)
    assert permit.mode is mode
    assert mode is Mode.NORMAL or "loss of the day" in permit.mode_why
    assert ("daily_loss" in {use.limit for use in permit.uses}) and guard(
        v, v.position_lots, limits()
    ).mode is Mode.NORMAL


def test_a_halt_for_a_days_loss_comes_from_reduce_only_too_and_nothing_leads_back():
    params = limits(max_daily_loss=0.03, halt_daily_loss=0.05)
    v = view(equity_usd=0.94e6, day_equity_usd=1e6, mode=Mode.REDUCE_ONLY)
    assert guard(v, v.position_lots, params).mode is Mode.HALTED
    v = view(equity_usd=1e6, day_equity_usd=1e6, mode=Mode.HALTED)
    assert guard(v, v.position_lots, params).mode is Mode.HALTED


def test_a_limit_in_equities_that_are_not_known_lets_positions_only_shrink():
    params = limits(max_gross_leverage=3.0, max_net_leverage=1.5, max_instrument_leverage=1.0, max_scenario_loss=0.1)
    v = view(held(perp=1_000, coin_call=-40), equity_usd=math.nan, day_equity_usd=1e6)
    wanted = v.position_lots.copy()
    wanted[BTC_PERP], wanted[COIN_CALL] = 500, -80
    everything = np.ones(len(v.universe), dtype=np.bool_)
    lots = wanted.copy()
    for _ in cuts.cuts(whole(v, params), lots, everything, params):
        pass
    assert (lots[BTC_PERP], lots[COIN_CALL]) == (500, -40)
