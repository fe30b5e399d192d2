"""Guards with options in the book: deltas of either sign, premiums in coin, Greeks in doubt."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.domain.commands import Approved, CreateOrder
from dea_daemon.domain.decisions import Licence, View
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.orders import TimeInForce
from dea_daemon.guards.admit import admit
from dea_daemon.guards.conditions import agreement
from dea_daemon.guards.guard import guard
from tests.guards import views
from tests.guards.views import (
    COIN_CALL,
    COIN_PUT,
    EXPIRY_NS,
    USDC_CALL,
    USDC_PUT,
    WITH_OPTIONS,
    extremes,
    greeks_of,
    whole,
)
from tests.house import BTC_LINEAR, BTC_PERP, ETH_PERP, START_NS, parameters

GUARDS = parameters().guards
N = len(WITH_OPTIONS)
OPTIONS = (COIN_CALL, COIN_PUT, USDC_CALL, USDC_PUT)
# Lots worth about a thousand dollars of notional in futures, and eight thousand in options, their least.
UNIT = np.array([100, 100, 125, 1_000, 1, 1, 10, 10])
DEADLINE_MS = START_NS // 1_000_000 + 2_000

futures = st.integers(-400, 400)
chain = st.integers(-40, 40)
positions = st.tuples(*[futures] * 4, *[chain] * 4).map(lambda t: tuple(np.array(t) * UNIT))
bases = st.tuples(st.floats(-5e5, 5e5), st.floats(-5e5, 5e5))


def view(position=(), **changes) -> View:
    return views.view(position, universe=WITH_OPTIONS, **changes)


def held(**lots: int) -> tuple[int, ...]:
    """A book by the names of its rows."""
    rows = {"perp": BTC_PERP, "coin_call": COIN_CALL, "coin_put": COIN_PUT, "usdc_put": USDC_PUT}
    book = [0] * N
    for name, count in lots.items():
        book[rows[name]] = count
    return tuple(book)


MARK = view().mark_price


def order(row: int, lots: int, n: int = 1, price: float | None = None) -> CreateOrder:
    """A signed count of lots at the far touch."""
    side = Side.BUY if lots > 0 else Side.SELL
    instrument = WITH_OPTIONS.instruments[row]
    half = float(instrument.tick_size) if WITH_OPTIONS.option[row] else 1.0
    ticks = instrument.price_to_ticks(float(MARK[row]) + side.sign * half if price is None else price)
    return CreateOrder(f"o{n}", row, side, abs(lots), ticks, TimeInForce.IOC, False, False, DEADLINE_MS, 1, "test")


def admitted(v: View, orders, params=GUARDS):
    out, refusals = admit(guard(v, v.position_lots, params), orders, params)
    return [c.order for c in out if isinstance(c, Approved)], refusals


def each_row_both_ways() -> list[CreateOrder]:
    return [order(row, sign * int(UNIT[row]), 2 * row + (sign > 0)) for row in range(N) for sign in (-1, 1)]


@st.composite
def orders_in(draw, most=6):
    rows = st.integers(0, N - 1)
    sizes = st.integers(1, 12)  # up to a hundred thousand dollars of options
    return [
        order(row, draw(st.sampled_from([-1, 1])) * draw(sizes) * int(UNIT[row]), k)
        for k, row in enumerate(draw(st.lists(rows, max_size=most)))
    ]


def outcomes(v: View, orders):
    """Every book a subset of fills can leave: (net [U], gross, instrument [N])."""
    for chosen in itertools.product((0, 1), repeat=len(orders)):
        lots = v.position_lots.copy()
        for take, o in zip(chosen, orders, strict=True):
            lots[o.row] += take * o.side.sign * o.lots
        notional = np.abs(lots) * v.notional_per_lot_usd
        yield (v.exposure_per_lot @ lots + v.exposure_base_usd)[:2], notional.sum(), notional


# --- bounds ------------------------------------------------------------------------------------------


def test_the_book_of_these_tests_has_rows_whose_delta_is_negative_and_beyond_one():
    x = view().delta_per_lot
    assert (x[[COIN_CALL, USDC_CALL]] > 0.0).all() and (x[[COIN_PUT, USDC_PUT]] < 0.0).all()
    assert x[COIN_PUT] < -1.2 * view().notional_per_lot_usd[COIN_PUT]  # its delta, and the coins it is worth


@given(positions, bases, orders_in())
@settings(max_examples=150, deadline=None)
def test_each_bound_is_reached_by_some_subset_of_fills_and_passed_by_none(position, base, orders):
    v = view(position, base=base)
    book = whole(v, GUARDS, orders)
    nets, grosses, instruments = (np.array(each) for each in zip(*outcomes(v, orders), strict=True))
    low, high = extremes(book, "net")
    np.testing.assert_allclose(high, nets.max(axis=0), atol=1e-6)
    np.testing.assert_allclose(low, nets.min(axis=0), atol=1e-6)
    assert book.instrument_usd().sum() == pytest.approx(grosses.max())
    np.testing.assert_allclose(book.instrument_usd(), instruments.max(axis=0), atol=1e-6)


@given(positions, bases, orders_in())
@settings(max_examples=150, deadline=None)
def test_no_subset_of_admitted_orders_exceeds_a_limit_or_worsens_a_breach(position, base, orders):
    v = view(position, base=base)
    let, _ = admitted(v, orders)
    net0, gross0, instrument0 = next(outcomes(v, []))
    for net, gross, instrument in outcomes(v, let):
        assert (np.abs(net) <= np.maximum(GUARDS.max_net_usd, np.abs(net0)) + 1e-6).all()
        # Limits of lower priority give way only to orders that reduce a breach of higher priority.
        if not (np.abs(net0) > GUARDS.max_net_usd).any():
            assert (instrument <= np.maximum(GUARDS.max_instrument_usd, instrument0) + 1e-6).all()
            if not (instrument0 > GUARDS.max_instrument_usd).any():
                assert gross <= max(GUARDS.max_gross_usd, gross0) + 1e-6


@given(orders_in())
@settings(max_examples=60, deadline=None)
def test_no_fill_costs_more_than_the_fees_at_stake_whatever_the_premium(orders):
    v, paid = view(), 0.0
    for o in orders:
        i = WITH_OPTIONS.instruments[o.row]
        unit = 80_000.0 if WITH_OPTIONS.coin_quoted[o.row] else 1.0
        premium_usd = float(i.ticks_to_price(o.price_ticks)) * i.lot_value * unit
        cap = i.fee_cap * premium_usd if i.fee_cap else math.inf
        paid += o.lots * min(i.taker_fee * float(v.notional_per_lot_usd[o.row]), cap)
    assert paid <= whole(v, GUARDS, orders).stake_usd()[1] + 1e-9


def test_a_working_sale_of_puts_counts_as_delta_bought():
    v = view(sells=held(coin_put=10))
    per_lot = -float(v.delta_per_lot[COIN_PUT])
    assert extremes(whole(v, GUARDS), "net")[1][0] == pytest.approx(10 * per_lot)
    params = parameters(guards={"max_net_usd": 11 * per_lot}).guards
    assert not admitted(v, [order(BTC_PERP, int(2 * per_lot / 10))], params)[0]
    assert admitted(v, [order(BTC_PERP, int(per_lot / 20))], params)[0]


# --- what is not known -------------------------------------------------------------------------------


@given(positions, st.sampled_from(OPTIONS), st.sampled_from([-1, 1]))
@settings(max_examples=60, deadline=None)
def test_an_option_of_unknown_delta_is_neither_bought_nor_sold(position, row, sign):
    wide = parameters(guards={"max_gross_usd": 1e9, "max_instrument_usd": 1e9}).guards
    v = view(position)
    x = v.exposure_per_lot.copy()
    x[:, row] = math.nan
    known = 0.0 if v.position_lots[row] == 0 else math.nan
    v = replace(v, exposure_per_lot=x, delta_per_lot=x[WITH_OPTIONS.underlying, np.arange(N)])
    v = replace(v, exposure_usd=v.exposure_usd + np.where(np.arange(len(v.exposure_usd)) == 0, known, 0.0))
    wanted = v.position_lots.copy()
    wanted[row] += sign * int(UNIT[row])
    assert guard(v, wanted, wide).position_lots[row] == v.position_lots[row]
    assert not admitted(v, [order(row, sign * int(UNIT[row]))], wide)[0]


def test_a_wish_for_an_option_of_unknown_delta_leaves_the_rest_of_the_book_alone():
    v = view(held(perp=1_000))
    x = v.delta_per_lot.copy()
    x[COIN_CALL] = math.nan
    wanted = np.array(held(perp=1_000, coin_call=3))
    permit = guard(replace(v, delta_per_lot=x), wanted, GUARDS)
    assert permit.position_lots.tolist() == v.position_lots.tolist()


@pytest.mark.parametrize("what", ["mark_price", "ask_price"])
def test_an_option_without_a_price_to_compare_with_is_refused_by_the_collar(what):
    price = getattr(view(), what).copy()
    price[COIN_CALL] = math.nan
    v = view(held(coin_call=10), **{what: price})
    let, refusals = admitted(v, [order(COIN_CALL, -1)])
    assert not let and refusals[0].limit == "collar"


# --- reduce-only, doubts and guesses -----------------------------------------------------------------


def shrinks(v: View, let: list[CreateOrder], row: int) -> bool:
    """Whether all on the side towards flat, filled together, stop at flat, and nothing goes the other way."""
    lots = int(v.position_lots[row])
    there = [o for o in let if o.row == row]
    total = sum(o.lots for o in there)
    return all(o.side.sign * lots < 0 for o in there) and total <= abs(lots)


@given(positions, bases, orders_in())
@settings(max_examples=150, deadline=None)
def test_while_only_exposure_may_shrink_no_option_is_opened_or_grown(position, base, orders):
    v = view(position, base=base, mode=Mode.REDUCE_ONLY)
    let, _ = admitted(v, orders)
    assert all(shrinks(v, let, row) for row in OPTIONS)


@given(positions, positions, bases)
@settings(max_examples=150, deadline=None)
def test_a_permitted_book_that_may_only_shrink_has_no_option_more(position, wanted, base):
    v = view(position, base=base, mode=Mode.REDUCE_ONLY)
    lots = guard(v, np.array(wanted), GUARDS).position_lots
    for row in OPTIONS:
        assert lots[row] * v.position_lots[row] >= 0 and abs(lots[row]) <= abs(v.position_lots[row])


@given(positions, bases)
@settings(max_examples=100, deadline=None)
def test_an_option_is_never_sold_for_the_delta_of_its_underlying(position, base):
    wide = parameters(guards={"max_gross_usd": 1e9, "max_instrument_usd": 1e9, "max_net_usd": 1_000}).guards
    v = view(position, base=base)
    lots = guard(v, v.position_lots, wide).position_lots
    assert lots[list(OPTIONS)].tolist() == v.position_lots[list(OPTIONS)].tolist()


@pytest.mark.parametrize("doubt", ["modelled", "greeks_off"])
def test_guessed_greeks_of_a_held_option_let_its_underlying_only_shrink_and_no_other(doubt):
    flags = np.arange(N) == COIN_CALL
    v = view(held(coin_call=-10), base=(2e5, 0.0), **{doubt: flags})
    sells, buys = order(BTC_PERP, -100), order(BTC_PERP, 100)
    assert v.delta_usd[0] > 0.0
    assert admitted(v, [sells])[0] and not admitted(v, [buys])[0]
    assert admitted(v, [order(ETH_PERP, 100)])[0]
    assert admitted(view(base=(2e5, 0.0), **{doubt: flags}), [buys])[0]  # nobody holds it


IN_DOUBT = np.array([True, False])  # [U] BTC, which all options here are on


@given(positions, positions, bases)
@settings(max_examples=50, deadline=None)
def test_while_its_surface_is_in_doubt_no_option_grows_nor_turns_and_each_may_be_closed(position, wanted, base):
    v = view(position, base=base, surface_doubt=IN_DOUBT)
    now, lots = v.position_lots, guard(v, np.array(wanted), GUARDS).position_lots
    options = list(OPTIONS)
    assert (np.abs(lots) <= np.abs(now))[options].all() and (lots * now >= 0)[options].all()
    let, _ = admitted(v, each_row_both_ways())
    for o in let:
        assert o.row not in OPTIONS or shrinks(v, [o], o.row)
    sure = view(position, base=base)
    for row in np.flatnonzero(WITH_OPTIONS.option & (np.abs(now) >= UNIT)).tolist():
        closing = [order(row, -int(np.sign(now[row]) * UNIT[row]))]
        assert admitted(v, closing) == admitted(sure, closing)


@given(positions, positions, bases)
@settings(max_examples=50, deadline=None)
def test_a_surface_in_doubt_is_no_matter_to_what_is_no_option_nor_to_other_underlyings(position, wanted, base):
    wanted = np.where(WITH_OPTIONS.option, view(position).position_lots, np.array(wanted))
    orders = [o for o in each_row_both_ways() if o.row not in OPTIONS]
    sure = view(position, base=base)
    for doubt in (IN_DOUBT, ~IN_DOUBT):
        v = view(position, base=base, surface_doubt=doubt)
        assert (guard(v, wanted, GUARDS).position_lots == guard(sure, wanted, GUARDS).position_lots).all()
        assert admitted(v, orders) == admitted(sure, orders)
    elsewhere = view(position, base=base, surface_doubt=~IN_DOUBT)
    assert admitted(elsewhere, each_row_both_ways()) == admitted(sure, each_row_both_ways())


def test_what_a_surface_in_doubt_takes_from_a_target_is_said_and_the_hedge_beside_it_stays():
    v = view(held(coin_call=-10), base=(2e5, 0.0), surface_doubt=IN_DOUBT)
    wanted = v.position_lots.copy()
    wanted[[COIN_CALL, COIN_PUT, BTC_PERP]] = [-20, 5, -1_000]
    permit = guard(v, wanted, GUARDS)
    assert permit.position_lots[[COIN_CALL, COIN_PUT, BTC_PERP]].tolist() == [-10, 0, -1_000]
    names = WITH_OPTIONS.instruments
    assert [(clip.limit, clip.subject, clip.wanted, clip.allowed) for clip in permit.clips] == [
        ("surface", names[COIN_CALL].name, -20.0, -10.0),
        ("surface", names[COIN_PUT].name, 5.0, 0.0),
    ]
    wanted[[COIN_CALL, COIN_PUT]] = [-4, 0]  # less of it: nothing to say
    permit = guard(v, wanted, GUARDS)
    assert permit.position_lots[COIN_CALL] == -4 and permit.clips == ()


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("factor", [0.5, 1.5, math.nan])
def test_a_held_options_forward_far_from_the_index_stops_all_hedging_of_its_underlying(factor, fresh):
    quoted = (np.arange(N) != COIN_CALL) | fresh  # what is held counts in the delta, its book fresh or not
    v = view(held(coin_call=-10, perp=1_000), base=(2e5, 0.0), fresh=quoted)
    forward = v.forward_price.copy()
    forward[COIN_CALL] *= factor
    v = replace(v, forward_price=forward)
    let, _ = admitted(v, each_row_both_ways())
    assert {o.row for o in let if WITH_OPTIONS.underlying[o.row] == 0} <= {BTC_PERP, COIN_CALL}
    assert shrinks(v, let, BTC_PERP) and shrinks(v, let, COIN_CALL)
    assert ETH_PERP in {o.row for o in let}


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_a_false_mark_of_an_option_stops_that_option_and_not_the_hedging_of_its_delta(factor):
    v = view(held(coin_call=-10), base=(2e5, 0.0))
    mark = v.mark_price.copy()
    mark[COIN_CALL] *= factor
    v = replace(v, mark_price=mark)
    permit = guard(v, v.position_lots, GUARDS)
    assert permit.licence[COIN_CALL] == Licence.SHRINK_POSITION
    assert not permit.doubted.any() and admitted(v, [order(BTC_PERP, -100)])[0]


def test_a_contract_that_has_ended_is_neither_doubted_nor_traded():
    v = view(held(coin_call=-10), utc_ns=EXPIRY_NS + 1, base=(2e5, 0.0))
    forward = np.where(WITH_OPTIONS.option, math.nan, v.forward_price)
    v = replace(v, forward_price=forward)
    assert not agreement(v, GUARDS).doubted.any()
    assert (guard(v, v.position_lots, GUARDS).licence[list(OPTIONS)] == Licence.NOTHING).all()


# --- the collar --------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [COIN_CALL, USDC_CALL])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("vol", [0.01, 0.4])
def test_the_collar_of_an_option_is_a_share_of_its_mark_or_some_volatility(row, sign, vol):
    v, params = view(), parameters(guards={"option_collar_vol": vol}).guards
    g = greeks_of(WITH_OPTIONS, v.forward_price)
    share = max(params.option_collar, vol * float(g.vega[row] / g.price[row]))
    assert (share == params.option_collar) is (vol == 0.01)
    for reach, passes in ((0.95, True), (1.05, False)):
        price = float(MARK[row]) * (1.0 + sign * share * reach)
        let, refusals = admitted(v, [order(row, sign * int(UNIT[row]), price=price)], params)
        assert bool(let) is passes and [r.limit for r in refusals] == ([] if passes else ["collar"])


def test_options_and_perpetuals_keep_their_own_collars():
    v = view()
    assert admitted(v, [order(COIN_CALL, 1, price=float(MARK[COIN_CALL]) * 1.2)])[0]
    assert not admitted(v, [order(BTC_LINEAR, 125, price=80_000 * 1.006)])[0]
