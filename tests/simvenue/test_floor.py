"""What an order may ask, and what happens to it."""

import pytest

from dea_daemon.domain.orders import TimeInForce
from dea_daemon.simvenue.orders import CLOSED_KEPT_NS, FILLS_KEPT_NS
from dea_daemon.simvenue.scenarios import Scenario
from dea_daemon.simvenue.words import Filled, OrderChanged, Refused
from tests.simvenue.venues import BUY, INVERSE, LINEAR, MS, SELL, START_NS, S, order, recorded_venue, running_venue


@pytest.fixture
def venue():
    """Ten lots at each of 998, 999 | 1001, 1002."""
    venue = recorded_venue()
    for ticks in (998, 999):
        venue.set_level(INVERSE, BUY, ticks, 10)
    for ticks in (1_001, 1_002):
        venue.set_level(INVERSE, SELL, ticks, 10)
    return venue


def refused(code: str):
    return pytest.raises(Refused, match=f"^{code}")


def test_a_market_order_takes_the_book_and_never_rests(venue):
    placed, fills = order(venue, BUY, 25, None)
    assert [(f.price_ticks, f.lots, f.is_maker) for f in fills] == [(1_001, 10, False), (1_002, 10, False)]
    assert (placed.state, placed.filled_lots, placed.filled_value) == ("cancelled", 20, 20_030.0)
    assert venue.open_orders("a") == []


def test_a_market_order_stops_at_the_price_band(venue):
    venue.set_level(INVERSE, SELL, 1_031, 10)
    placed, _ = order(venue, BUY, 30, None)
    assert placed.filled_lots == 20


def test_a_limit_order_rests_with_what_it_could_not_take(venue):
    placed, fills = order(venue, BUY, 15, 1_001)
    assert (len(fills), placed.state, placed.left_lots) == (1, "open", 5)
    assert venue.book(INVERSE, 1).bids == [(1_001, 5)]


def test_an_ioc_order_is_cancelled_with_what_it_could_not_take(venue):
    placed, _ = order(venue, BUY, 15, 1_001, time_in_force=TimeInForce.IOC)
    assert (placed.state, placed.filled_lots, placed.cancel_reason) == ("cancelled", 10, "immediate_or_cancel")


def test_post_only_that_would_take_is_refused(venue):
    with refused("post_only_reject"):
        order(venue, BUY, 1, 1_001, post_only=True)


def test_post_only_that_may_move_goes_one_tick_outside(venue):
    placed, _ = order(venue, BUY, 1, 1_002, post_only=True, reject_post_only=False)
    assert (placed.price_ticks, placed.state) == (1_000, "open")


def test_post_only_moves_to_the_wide_grid_above_a_tick_step():
    venue = running_venue()
    name = next(name for name, i in venue.instruments.items() if i.tick_steps and i.underlying == "ETH")
    edge = venue.book(name, 1).asks[0][0]
    placed, _ = order(venue, BUY, 1, edge, instrument=name, post_only=True, reject_post_only=False)
    assert placed.price_ticks < edge
    assert venue.instruments[name].on_grid(placed.price_ticks)


def test_a_price_off_the_grid_is_refused():
    venue = running_venue()
    name = next(name for name, i in venue.instruments.items() if i.tick_steps and i.underlying == "ETH")
    ticks = venue.instruments[name].price_to_ticks(3_001)
    with refused("invalid_price"):
        order(venue, BUY, 1, ticks + 1, instrument=name)


def test_a_price_beyond_the_band_is_refused_and_one_far_behind_is_not(venue):
    with refused("price_too_far"):
        order(venue, BUY, 1, 1_031)
    with refused("price_too_far"):
        order(venue, SELL, 1, 969)
    assert order(venue, BUY, 1, 500)[0].state == "open"


def test_an_order_that_would_meet_its_own_is_refused_before_any_fill(venue):
    order(venue, SELL, 5, 1_002)
    with refused("self_trade"):
        order(venue, BUY, 25, 1_002)
    assert venue.fills("a") == []
    assert order(venue, BUY, 20, 1_002)[0].state == "filled"  # ends in front of its own


def test_a_reduce_only_order_is_cut_to_the_position(venue):
    order(venue, BUY, 5, None)
    placed, _ = order(venue, SELL, 9, None, reduce_only=True)
    assert (placed.lots, placed.state, venue.position("a", INVERSE).lots) == (5, "filled", 0)


def test_a_reduce_only_order_without_a_position_to_reduce_is_refused(venue):
    with refused("reduce_only_reject"):
        order(venue, SELL, 1, None, reduce_only=True)
    order(venue, BUY, 5, None)
    with refused("reduce_only_reject"):
        order(venue, BUY, 1, None, reduce_only=True)


def test_resting_reduce_only_orders_shrink_with_the_position(venue):
    order(venue, BUY, 5, None)
    first, _ = order(venue, SELL, 5, 1_010, reduce_only=True)
    second, _ = order(venue, SELL, 4, 1_011, reduce_only=True)
    order(venue, SELL, 3, None)
    left = {o.order_id: o.left_lots for o in venue.open_orders("a")}
    assert left == {first.order_id: 2, second.order_id: 2}
    venue.set_level(INVERSE, BUY, 1_020, 50)
    assert venue.position("a", INVERSE).lots == 0
    assert venue.order("a", second.order_id).cancel_reason == "reduce_only"


def test_a_deadline_that_passed_is_refused_and_one_that_is_now_is_not(venue):
    now_ms = START_NS // MS
    with refused("expired_request"):
        order(venue, BUY, 1, 990, valid_until_ms=now_ms - 1)
    assert order(venue, BUY, 1, 990, valid_until_ms=now_ms)[0].state == "open"


def test_an_amount_below_the_smallest_and_an_unknown_instrument_are_refused(venue):
    with refused("invalid_amount"):
        order(venue, BUY, 0, 990)
    with refused("instrument_not_found"):
        order(venue, BUY, 1, 990, instrument="DOGE-PERPETUAL")


def test_one_order_too_many_is_refused():
    venue = recorded_venue(Scenario("few", coins={}, orders_max=2))
    for _ in range(2):
        order(venue, BUY, 1, 990)
    with refused("too_many_orders"):
        order(venue, BUY, 1, 990)


def test_a_contract_without_a_mark_takes_no_order():
    venue = recorded_venue()
    venue.contracts[LINEAR].mark = float("nan")
    with refused("price_too_far"):
        order(venue, BUY, 1, 990, instrument=LINEAR)


def test_an_edit_to_fewer_lots_at_the_same_price_keeps_its_place(venue):
    mine, _ = order(venue, BUY, 5, 999)
    order(venue, BUY, 5, 999, account="b")
    edited, _ = venue.edit("a", mine.order_id, 3, 999)
    venue.set_level(INVERSE, BUY, 999, 0)
    venue.public_trade(INVERSE, SELL, 999, 4)
    assert (edited.replaced, edited.order_id) == (True, mine.order_id)
    assert [venue.position(name, INVERSE).lots for name in "ab"] == [3, 1]


@pytest.mark.parametrize(("lots", "ticks"), [(6, 999), (5, 998)])
def test_an_edit_to_more_lots_or_another_price_loses_its_place(venue, lots, ticks):
    mine, _ = order(venue, BUY, 5, 999)
    order(venue, BUY, 5, ticks, account="b")
    venue.edit("a", mine.order_id, lots, ticks)
    for at in (998, 999):
        venue.set_level(INVERSE, BUY, at, 0)
    venue.public_trade(INVERSE, SELL, ticks, 5)
    assert [venue.position(name, INVERSE).lots for name in "ab"] == [0, 5]


def test_an_edit_may_trade_and_counts_what_was_filled_before(venue):
    mine, _ = order(venue, BUY, 15, 1_001)
    edited, fills = venue.edit("a", mine.order_id, 18, 1_002)
    assert ([f.lots for f in fills], edited.state, edited.filled_lots) == ([8], "filled", 18)


def test_a_refused_edit_leaves_the_order_as_it_was(venue):
    mine, _ = order(venue, BUY, 5, 999)
    for lots, ticks, code in (
        (5, 2_000, "price_too_far"),
        (10**7, 999, "not_enough_funds"),
        (0, 999, "invalid_amount"),
    ):
        with refused(code):
            venue.edit("a", mine.order_id, lots, ticks)
    with refused("post_only_reject"):
        venue.edit("a", mine.order_id, 5, 1_001, post_only=True)
    assert venue.order("a", mine.order_id) == mine


def test_a_cancelled_or_filled_order_is_closed_and_a_strangers_is_not_found(venue):
    mine, _ = order(venue, BUY, 5, 999)
    with refused("order_not_found"):
        venue.cancel("b", mine.order_id)
    assert venue.cancel("a", mine.order_id).state == "cancelled"
    with refused("order_closed"):
        venue.cancel("a", mine.order_id)
    with refused("order_closed"):
        venue.edit("a", mine.order_id, 5, 999)
    assert venue.book(INVERSE, 1).bids == [(999, 10)]


def test_labels_find_every_order_that_wears_them_open_or_closed(venue):
    one, _ = order(venue, BUY, 5, 999, label="x")
    two, _ = order(venue, BUY, 5, 998, label="x")
    venue.cancel("a", one.order_id)
    assert [(o.order_id, o.state) for o in venue.orders_by_label("a", "x")] == [
        (one.order_id, "cancelled"),
        (two.order_id, "open"),
    ]
    assert venue.orders_by_label("b", "x") == venue.orders_by_label("a", "y") == []


def test_closed_orders_are_forgotten_after_30_minutes_and_fills_after_24_hours(venue):
    gone, _ = order(venue, BUY, 5, None, label="gone")
    stays, _ = order(venue, BUY, 5, 990, label="stays")
    venue.set_time(START_NS + CLOSED_KEPT_NS + 61 * S)
    assert venue.order_history("a") == venue.orders_by_label("a", "gone") == []
    with refused("order_not_found"):
        venue.order("a", gone.order_id)
    assert venue.order("a", stays.order_id).state == "open"
    assert len(venue.fills("a")) == 1
    venue.set_time(START_NS + FILLS_KEPT_NS + 61 * S)
    assert venue.fills("a") == []


def test_fills_are_told_by_instrument_and_time(venue):
    order(venue, BUY, 1, None)
    venue.set_time(START_NS + S)
    order(venue, SELL, 1, None)
    assert [f.side for f in venue.fills("a")] == [BUY, SELL]
    assert [f.side for f in venue.fills("a", since_ns=START_NS + S)] == [SELL]
    assert [f.side for f in venue.fills("a", until_ns=START_NS)] == [BUY]
    assert venue.fills("a", LINEAR) == venue.fills("b") == []


def test_two_clients_trade_with_each_other_at_the_makers_price_and_pay_their_own_fee(venue):
    order(venue, SELL, 4, 1_000, account="b", label="rests")
    _, fills = order(venue, BUY, 4, 1_001)
    maker = venue.fills("b")[0]
    assert (fills[0].price_ticks, maker.is_maker, maker.label) == (1_000, True, "rests")
    assert fills[0].trade_id == maker.trade_id
    assert fills[0].fee == pytest.approx(4 * 10 / 1_000 * 0.0005)
    assert maker.fee == pytest.approx(4 * 10 / 1_000 * 0.0001)


def test_what_is_handed_out_is_a_copy(venue):
    mine, _ = order(venue, BUY, 5, 999)
    mine.lots = 77
    venue.open_orders("a")[0].lots = 77
    venue.positions("a")
    assert venue.order("a", mine.order_id).lots == 5


def test_events_tell_an_orders_story_in_order(venue):
    venue.events()
    mine, _ = order(venue, BUY, 15, 1_001, label="story")
    venue.edit("a", mine.order_id, 12, 1_001)
    venue.cancel("a", mine.order_id)
    told = [
        (e.what, e.order.state, e.order.filled_lots, e.position_after) if isinstance(e, OrderChanged) else e.fill.lots
        for e in venue.events()
        if isinstance(e, OrderChanged | Filled)
    ]
    assert told == [
        ("accepted", "open", 0, 0),
        10,
        ("filled", "open", 10, 10),
        ("edited", "open", 10, 10),
        ("cancelled", "cancelled", 10, 10),
    ]
