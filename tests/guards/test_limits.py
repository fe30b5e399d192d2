"""Each limit's bound is the exact worst case, and nothing gets past it."""

import itertools
import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.domain.commands import Approved, CreateOrder
from dea_daemon.domain.decisions import Licence
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.orders import TimeInForce
from dea_daemon.guards.admit import admit
from dea_daemon.guards.guard import guard
from tests.guards.views import MARK, UNIVERSE, extremes, view, whole
from tests.house import BTC_FUTURE, BTC_LINEAR, BTC_PERP, ETH_PERP, START_NS, parameters

GUARDS = parameters().guards
# Lots worth about a thousand dollars in each contract, so that sizes compare.
UNIT = np.array([100, 100, 125, 1_000])
ANY = np.array([Licence.ANYTHING] * 4)

DEADLINE_MS = START_NS // 1_000_000 + 2_000

sizes = st.integers(0, 400)
positions = st.tuples(*[st.integers(-400, 400)] * 4).map(lambda t: tuple(np.array(t) * UNIT))
bases = st.tuples(st.floats(-5e5, 5e5), st.floats(-5e5, 5e5))


def order(row: int, lots: int, n: int = 1, price: float | None = None, side: Side | None = None) -> CreateOrder:
    """A signed count of lots at the far touch."""
    side = side or (Side.BUY if lots > 0 else Side.SELL)
    instrument = UNIVERSE.instruments[row]
    ticks = instrument.price_to_ticks(float(MARK[row]) + side.sign if price is None else price)
    return CreateOrder(f"o{n}", row, side, abs(lots), ticks, TimeInForce.IOC, False, False, DEADLINE_MS, 1, "test")


def admitted(v, orders, params=GUARDS):
    permit = guard(v, v.position_lots, params)
    out, refusals = admit(permit, orders, params)
    return [c.order for c in out if isinstance(c, Approved)], refusals


@st.composite
def orders_in(draw, most=6):
    count = draw(st.integers(0, most))
    return [
        order(row, sign * size * int(UNIT[row]), k)
        for k in range(count)
        for row, sign, size in [(draw(st.integers(0, 3)), draw(st.sampled_from([-1, 1])), draw(st.integers(1, 100)))]
    ]


def outcomes(v, orders):
    """Every book a subset of fills can leave: (net [K], gross, instrument [N])."""
    for chosen in itertools.product((0, 1), repeat=len(orders)):
        lots = v.position_lots.copy()
        for take, o in zip(chosen, orders, strict=True):
            lots[o.row] += take * o.side.sign * o.lots
        notional = np.abs(lots) * v.notional_per_lot_usd
        yield (v.exposure_per_lot @ lots + v.exposure_base_usd)[:2], notional.sum(), notional


@given(positions, bases, orders_in())
@settings(max_examples=150, deadline=None)
def test_each_bound_is_reached_by_some_subset_of_fills_and_passed_by_none(position, base, orders):
    v = view(position, base=base)
    book = whole(v, GUARDS, orders)
    all_outcomes = list(outcomes(v, orders))
    low, high = extremes(book, "net")
    nets = np.array([net for net, _, _ in all_outcomes])
    np.testing.assert_allclose(high, nets.max(axis=0), atol=1e-6)
    np.testing.assert_allclose(low, nets.min(axis=0), atol=1e-6)
    assert book.instrument_usd().sum() == pytest.approx(max(gross for _, gross, _ in all_outcomes))
    np.testing.assert_allclose(book.instrument_usd(), np.max([n for _, _, n in all_outcomes], axis=0), atol=1e-6)


@given(positions, bases, orders_in())
@settings(max_examples=150, deadline=None)
def test_no_subset_of_admitted_orders_exceeds_a_limit_or_worsens_a_breach(position, base, orders):
    v = view(position, base=base)
    let, _ = admitted(v, orders)
    (net0, gross0, instrument0) = next(outcomes(v, []))
    net_breached = np.abs(net0) > GUARDS.max_net_usd
    for net, gross, instrument in outcomes(v, let):
        assert (np.abs(net) <= np.maximum(GUARDS.max_net_usd, np.abs(net0)) + 1e-6).all()
        # Limits of lower priority give way only to orders that reduce a breach of higher priority.
        if not net_breached.any():
            held_too_much = instrument0 > GUARDS.max_instrument_usd
            assert (instrument <= np.maximum(GUARDS.max_instrument_usd, instrument0) + 1e-6).all()
            if not held_too_much.any():
                assert gross <= max(GUARDS.max_gross_usd, gross0) + 1e-6


@given(positions, bases, st.lists(st.sampled_from(["mark", "equity", "base"]), min_size=1, max_size=2, unique=True))
@settings(max_examples=60, deadline=None)
def test_nan_never_passes(position, base, spoiled):
    v = view(
        position,
        base=(math.nan, math.nan) if "base" in spoiled else base,
        mark=np.full(4, math.nan) if "mark" in spoiled else MARK,
        equity_usd=math.nan if "equity" in spoiled else 1e6,
    )
    growing = [order(row, (1 if v.position_lots[row] >= 0 else -1) * int(UNIT[row]), row) for row in range(4)]
    let, refusals = admitted(v, growing)
    assert not let and len(refusals) == 4


@given(positions, positions, bases)
@settings(max_examples=150, deadline=None)
def test_a_permitted_book_keeps_every_limit_that_positions_can_keep(position, wanted, base):
    v = view(position, base=base)
    permit = guard(v, np.array(wanted), GUARDS)
    lots = permit.position_lots
    notional = np.abs(lots) * v.notional_per_lot_usd
    held = np.abs(v.position_lots) * v.notional_per_lot_usd
    assert (notional <= np.maximum(GUARDS.max_instrument_usd, held) + 1e-6).all()
    assert notional.sum() <= max(GUARDS.max_gross_usd, held.sum()) + 1e-6


@given(positions, bases, st.integers(1, 500))
@settings(max_examples=100, deadline=None)
def test_reduce_only_never_lets_an_order_through_that_flips_or_adds(position, base, size):
    v = view(position, base=base, mode=Mode.REDUCE_ONLY)
    orders = [order(row, sign * size * int(UNIT[row]), 2 * row + (sign > 0)) for row in range(4) for sign in (-1, 1)]
    for o in admitted(v, orders)[0]:
        k = int(UNIVERSE.underlying[o.row])
        shrinks = v.position_lots[o.row] * o.side.sign < 0 and o.lots <= abs(v.position_lots[o.row])
        after = v.exposure_usd[k] + o.side.sign * o.lots * v.exposure_per_lot[k, o.row]
        hedges = abs(after) <= abs(v.exposure_usd[k]) and after * v.exposure_usd[k] >= 0
        assert shrinks or hedges


def test_orders_working_count_at_their_worst():
    v = view(buys=(29_000, 0, 0, 0))  # 290,000 of 300,000 already working
    assert not admitted(v, [order(BTC_PERP, 2_000)])[0]
    assert admitted(v, [order(BTC_PERP, 1_000)])[0]


def test_a_sell_that_might_not_fill_makes_no_room_for_a_buy():
    v = view(position=(30_000, 0, 0, 0), sells=(10_000, 0, 0, 0))
    assert not admitted(v, [order(BTC_PERP, 100)])[0]


def test_reducing_a_net_breach_is_not_refused_for_gross():
    params = parameters(guards={"max_net_usd": 100_000, "max_gross_usd": 150_000}).guards
    v = view(position=(15_000, 0, 0, 0), base=(50_000.0, 0.0))  # net 200,000, gross at its limit
    let, _ = admitted(v, [order(BTC_FUTURE, -5_000)], params)
    assert len(let) == 1
    assert not admitted(v, [order(BTC_FUTURE, 100)], params)[0]


@pytest.mark.parametrize(
    ("limit", "changes", "lots"),
    [
        ("order_size", {"max_order_usd": 5_000}, 600),
        ("turnover", {"max_turnover_usd_per_hour": 5_000}, 600),
        ("fees", {"max_fees_usd_per_hour": 2}, 600),
        ("order_rate", {"max_orders_per_minute": 1}, 600),
        ("instrument", {"max_instrument_usd": 5_000}, 600),
        ("gross", {"max_gross_usd": 5_000}, 600),
        ("net", {"max_net_usd": 5_000}, 600),
    ],
)
def test_each_limit_refuses_by_name(limit, changes, lots):
    params = parameters(guards=changes).guards
    let, refusals = admitted(view(), [order(BTC_PERP, 100, 1), order(BTC_PERP, lots, 2)], params)
    assert [o.lots for o in let] == [100]
    assert refusals[0].limit == limit and refusals[0].wanted > refusals[0].allowed


@pytest.mark.parametrize("price", [80_000 * 1.006, 1e9])
def test_the_collar_refuses_a_price_through_the_market(price):
    let, refusals = admitted(view(), [order(BTC_PERP, 100, price=price)])
    assert not let and refusals[0].limit == "collar"
    assert admitted(view(), [order(BTC_PERP, 100, price=80_000 * 0.9, side=Side.BUY)])[0]


def test_validity_is_checked_whatever_is_reduced():
    v = view(position=(1_000, 0, 0, 0))
    off_grid = replace_ticks(order(BTC_FUTURE, -100), 400_003)
    for bad in (order(BTC_PERP, 0, side=Side.SELL), off_grid):
        let, refusals = admitted(v, [bad])
        assert not let and refusals[0].limit == "validity"


def replace_ticks(o: CreateOrder, ticks: int) -> CreateOrder:
    return msgspec.structs.replace(o, price_ticks=ticks)


def test_orders_of_one_batch_neither_meet_nor_share_an_id_nor_come_too_late():
    v = view()
    buy, sell = order(BTC_PERP, 100, 1), order(BTC_PERP, -100, 2)
    twin = order(BTC_LINEAR, 10, 1)
    late = msgspec.structs.replace(order(BTC_FUTURE, 100, 3), valid_until_ms=START_NS // 1_000_000)
    let, refusals = admitted(v, [buy, sell, twin, late])
    assert let == [buy]
    assert [r.why for r in refusals] == [
        "would trade with our own order",
        "its client order id is taken",
        "its deadline has passed",
    ]


def test_a_contract_that_diverged_from_its_index_is_not_increased():
    v = view()
    index = v.index_price.copy()
    index[BTC_PERP] *= 0.98
    v = replace(v, index_price=index)
    assert not admitted(v, [order(BTC_PERP, 100)])[0]
    assert admitted(v, [order(BTC_LINEAR, 10)])[0]


def test_a_drawdown_proposes_reduce_only_and_says_so():
    v = view(equity_usd=4e5, peak_equity_usd=1e6)
    permit = guard(v, v.position_lots, GUARDS)
    assert permit.mode is Mode.REDUCE_ONLY and "drawdown" in permit.mode_why
    assert not admitted(v, [order(ETH_PERP, 100)])[0]


def test_uses_tell_every_limit_at_its_worst():
    v = view(position=(1_000, 0, 0, 0), sells=(3_000, 0, 0, 0))
    by_name = {(u.limit, u.subject): u.used for u in guard(v, v.position_lots, GUARDS).uses}
    assert by_name["gross", "book"] == 20_000
    assert by_name["net", "delta:BTC"] == 20_000
    assert whole(v, GUARDS).instrument_usd()[BTC_PERP] == 20_000
