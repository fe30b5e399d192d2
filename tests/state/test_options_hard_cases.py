"""Options in the core, attacked: each of these once went wrong."""

import math

import numpy as np
import pytest

from dea_daemon.allocator.allocate import flattened
from dea_daemon.domain.commands import QueryInstruments, Resubscribe
from dea_daemon.domain.decisions import IvSource, Licence
from dea_daemon.domain.events import (
    DecisionDue,
    FeedClosed,
    FillReceived,
    InstrumentsListed,
    ListingChanged,
    MarkUpdated,
    Operator,
    OperatorSpoke,
    QuoteUpdated,
    Settlement,
    VenueOrderState,
)
from dea_daemon.domain.instruments import Kind, Payoff, Side
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.orders import TimeInForce
from dea_daemon.guards.guard import guard
from tests.guards.views import extremes, whole
from tests.house import BTC_FUTURE, BTC_PERP, START_NS, S, creates, instrument
from tests.state.test_options import ATM_CALL, DAY, FIRST, STRIKES, Desk, option

NEAR = tuple(option(s, True, START_NS + DAY, f"BTC-NEAR-{s:.0f}-C") for s in STRIKES)


def delivered(row: int, lots: int) -> Settlement:
    return Settlement(0, row, START_NS + DAY, lots, 80_000.0, 0.0, "BTC")


@pytest.mark.parametrize("convention", ["premium_adjusted", "black"])
def test_the_net_bound_of_a_bought_put_is_what_buying_it_leaves_whatever_the_convention(convention):
    desk, put = Desk(pricing={"delta_convention": convention}), FIRST + 9  # in the money: worth an eighth of a coin
    desk.settle()
    book = whole(desk.view, desk.params.guards)
    book.add(put, Side.BUY, 100)
    low, _ = extremes(book, "net")
    desk.state.account.position_lots[put] = 100  # filled: a premium left the cash, and equity is as it was
    assert low[0] == pytest.approx(desk.view.delta_usd[0], rel=1e-9)


def test_a_fill_that_comes_after_the_delivery_was_delivered_with_the_rest():
    desk = Desk(chain=NEAR)
    desk.positions = {FIRST: 100}
    desk.settle()
    desk.now_ns = START_NS + DAY + S
    desk.decide()
    desk.positions = {}
    desk.report(settlements=(delivered(FIRST, 100),))
    desk.feed(FillReceived(desk.now_ns, 0, 0, FIRST, "late", "V", "", Side.BUY, 1, 1_000, 0.0, "BTC", True))
    desk.decide()
    assert desk.state.account.position_lots[FIRST] == 0
    assert desk.view.delivered_since_ms == (0,)


def test_a_delivery_from_before_the_positions_were_adopted_is_no_surprise():
    desk = Desk(chain=NEAR)
    desk.now_ns = START_NS + DAY + S
    desk.positions = {FIRST: 100}  # its neighbour is gone from the positions already
    desk.settle()
    desk.positions = {}
    desk.report(settlements=(delivered(FIRST, 100), delivered(FIRST + 1, 50)))
    assert desk.state.account.mode is Mode.NORMAL


@pytest.mark.parametrize("bid", [0.0, math.nan])
def test_an_option_that_was_sold_and_nobody_bids_for_is_bought_back_when_all_must_go(bid):
    desk, row = Desk(), FIRST + 8
    desk.positions = {row: -10}
    desk.settle()
    desk.skip = {row}
    desk.feed(OperatorSpoke(desk.now_ns, Operator.FLATTEN, "test"))
    sent = []
    for _ in range(60):
        desk.pass_time(100)
        desk.quote()
        desk.ticker(row, bid=bid, ask=0.0065)
        desk.report()
        sent += creates(desk.tick())
    ask = desk.rows[row].price_to_ticks(0.0065)
    assert sent and sent[0].side is Side.BUY and sent[0].price_ticks >= ask
    assert sent[0].time_in_force is TimeInForce.IOC
    assert desk.view.iv_source[row] == IvSource.MARK  # half an ask is no mid


def test_an_option_without_a_bid_is_not_opened():
    desk = Desk()
    desk.settle()
    desk.skip = {ATM_CALL}
    desk.pass_time(100)
    desk.quote()
    desk.ticker(ATM_CALL, bid=0.0)
    desk.tick()
    v = desk.state.view
    assert v is not None and v.fresh[ATM_CALL]
    assert guard(v, v.position_lots, desk.params.guards).licence[ATM_CALL] == Licence.SHRINK_POSITION


def test_a_future_that_fades_in_its_settlement_is_not_sold_for_its_delta():
    desk = Desk(target=300_000.0)
    desk.pools = {"USDC": 500_000.0}
    ending = instrument(
        "BTC-NEAR", "BTC", Payoff.INVERSE, "10", "0.5", kind=Kind.FUTURE, expiry_ns=START_NS + DAY, taker_fee=0.0005
    )
    desk.feed(InstrumentsListed(desk.now_ns, 0, (ending,)))
    row = len(desk.rows)
    desk.rows.append(ending)
    desk.now_ns = START_NS + DAY - 20 * S
    desk.positions = {row: 20_000, BTC_PERP: 32_000}
    desk.settle()
    desk.pass_time(100)
    desk.quote()
    desk.feed(MarkUpdated(desk.now_ns, 0, row, 80_000.0, 80_000.0))
    desk.feed(QuoteUpdated(desk.now_ns, 0, row, 79_999.5, 10.0, 80_000.5, 10.0))
    assert [o.row for o in creates(desk.tick())] == [BTC_PERP]


def test_the_book_of_a_contract_that_ended_is_not_asked_for_again():
    desk = Desk()
    desk.settle()
    desk.feed(FeedClosed(desk.now_ns, "book", 0, False, (BTC_FUTURE, BTC_PERP), "gone"))
    desk.now_ns = START_NS + 61 * DAY
    again = desk.feed(DecisionDue(desk.now_ns, desk.now_ns, "timer")).commands
    assert [c.row for c in again if isinstance(c, Resubscribe)] == [BTC_PERP]


def test_a_listing_that_failed_is_asked_for_again_but_not_at_once_and_trading_begun_counts_as_news():
    desk = Desk()
    desk.settle()
    desk.feed(ListingChanged(desk.now_ns, 0, "BTC-9OCT26-80000-C", "started"))
    asked = 0
    for _ in range(40):
        desk.pass_time(1_000)
        desk.quote()
        if QueryInstruments(0) in desk.tick().commands:
            asked += 1
            desk.feed(InstrumentsListed(desk.now_ns, 0, (), "timeout"))
    assert asked == 2


@pytest.mark.parametrize("iv", [50.0, math.inf, -0.5, 0.0])
def test_a_mark_volatility_beyond_belief_is_none(iv):
    desk = Desk()
    desk.positions = {ATM_CALL: -10}
    desk.settle()
    desk.skip = {ATM_CALL}
    desk.pass_time(100)
    desk.quote()
    desk.ticker(ATM_CALL, bid=math.nan, iv=iv)
    v = desk.view
    assert v.iv_source[ATM_CALL] > IvSource.MARK and v.modelled[ATM_CALL]
    assert abs(v.iv[ATM_CALL] - 0.6) < 0.02 and np.isfinite(v.exposure_usd).all()


def test_flattening_keeps_the_hedges_of_an_option_nobody_buys_and_no_more():
    desk = Desk()
    desk.positions = {ATM_CALL: 100, BTC_PERP: -60_000}  # ten calls, and more sold against them than they need
    desk.settle()
    options = float(desk.view.delta_per_lot[ATM_CALL]) * 100
    lots = flattened(desk.view)
    assert lots[ATM_CALL] == 0 and 0 < -lots[BTC_PERP] < 60_000
    assert abs(float(desk.view.delta_per_lot[BTC_PERP]) * lots[BTC_PERP] + options) < 20.0
    desk = Desk()
    desk.positions = {ATM_CALL: -100, BTC_PERP: -10_000}  # nothing there offsets anything
    desk.settle()
    assert not flattened(desk.view).any()


def test_an_option_nobody_bids_for_is_offered_and_not_crossed_without_end():
    desk = Desk(execution={"cross_after_ms": 0})
    desk.positions = {ATM_CALL: 5}
    desk.settle()
    desk.feed(OperatorSpoke(desk.now_ns, Operator.FLATTEN, "test"))
    desk.skip = {ATM_CALL}
    desk.pass_time(100)
    desk.ticker(ATM_CALL, bid=math.nan)
    offered = [o for o in creates(desk.decide()) if o.row == ATM_CALL]
    assert [(o.side, o.post_only, o.lots) for o in offered] == [(Side.SELL, True, 5)]


def test_a_crossing_order_that_found_nothing_is_not_sent_again_at_once():
    desk = Desk(execution={"order_type": "taker"})
    desk.positions = {ATM_CALL: 10}
    desk.settle()
    desk.feed(OperatorSpoke(desk.now_ns, Operator.FLATTEN, "test"))
    (first,) = [o for o in creates(desk.decide()) if o.row == ATM_CALL]
    desk.seen(first, VenueOrderState.CANCELLED)
    assert not creates(desk.tick("order ended"))
    desk.pass_time(251)
    desk.quote()
    assert [o.row for o in creates(desk.tick())] == [ATM_CALL]
