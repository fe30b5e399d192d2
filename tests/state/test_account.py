"""What the account believes, and whose word it takes for it."""

import msgspec
import pytest

from dea_daemon.domain.events import (
    AccountReported,
    CreateUnknown,
    FeedAlive,
    FeedClosed,
    FeedOpened,
    FillReceived,
    IndexUpdated,
    MarkUpdated,
    OrderEvidence,
    OrderSeen,
    PoolReport,
    Settlement,
    VenueOrderState,
)
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.orders import OrderState, client_order_id
from tests.house import BTC_FUTURE, BTC_LINEAR, BTC_PERP, MS, Run, creates, parameters

OPEN, CANCELLED = VenueOrderState.OPEN, VenueOrderState.CANCELLED
POOLS = (PoolReport("USDC", 500_000.0, 500_000.0, 0.0, 0.0),)


def foreign_seen(run: Run, state=OPEN, lots=100) -> OrderSeen:
    return OrderSeen(run.now_ns, run.now_ns, 0, BTC_PERP, "by hand", "F1", state, Side.BUY, lots, 0, 160_000)


def reported(run: Run, asked_ns: int, fills=(), complete=True) -> AccountReported:
    return AccountReported(run.now_ns, 0, asked_ns, complete, fills, (), (), POOLS)


def filled(run: Run, trade: str, ts_ms: int) -> FillReceived:
    return FillReceived(run.now_ns, ts_ms * MS, 0, BTC_PERP, trade, "V", "", Side.BUY, 1, 160_000, 0.0, "BTC", True)


def evidence(run: Run, label: str, **changes: object) -> OrderEvidence:
    found = OrderEvidence(run.now_ns, label, run.now_ns, True, (), (), "", run.now_ns)
    return msgspec.structs.replace(found, **changes)


def test_replies_to_requests_do_not_revive_a_dead_private_stream():
    run = Run().settle()
    (order,) = creates(run.decide())
    run.feed(FeedClosed(run.now_ns, "private", 0, True, (), "cut"))
    run.seen(order, CANCELLED)  # the reply to a cancel, or evidence asked for
    run.pass_time(10)
    run.report()
    assert not creates(run.decide())
    run.feed(FeedOpened(run.now_ns, "private", 0, True))
    assert not creates(run.decide())  # what it missed is not known yet
    run.report()
    assert creates(run.decide())


def test_a_report_asked_before_the_stream_was_up_again_does_not_tell_what_it_missed():
    run = Run().settle()
    run.feed(FeedClosed(run.now_ns, "private", 0, True, (), "cut"))
    asked_ns = run.now_ns
    run.pass_time(100)
    run.feed(FeedOpened(run.now_ns, "private", 0, True), reported(run, asked_ns))
    assert not creates(run.decide())
    run.feed(reported(run, run.now_ns))
    assert creates(run.decide())


def test_a_silent_private_stream_holds_increases_and_a_heartbeat_is_enough():
    run = Run().settle()
    run.pass_time(25_000)
    run.report()
    assert not creates(run.decide())
    run.feed(FeedAlive(run.now_ns, "private", 0, True))
    assert creates(run.decide())


def test_only_a_complete_report_moves_the_cursor_of_trades():
    run = Run().settle()
    start = run.state.account.trade_cursor_ms
    run.feed(filled(run, "T1", 1_000))
    run.feed(reported(run, run.now_ns, (filled(run, "T2", 2_000),), complete=False))
    assert run.state.account.trade_cursor_ms == start
    run.feed(reported(run, run.now_ns, (filled(run, "T2", 2_000),)))
    assert run.state.account.trade_cursor_ms == max(start, 2_000)


def test_a_false_index_at_the_moment_of_a_fill_does_not_use_up_the_hours_fees():
    run = Run().settle()
    run.feed(IndexUpdated(run.now_ns, run.now_ns, 0, "BTC", 1e12))
    run.feed(msgspec.structs.replace(filled(run, "T1", 1_000), fee=0.001))
    assert run.state.account.budgets.fees_hour.total == pytest.approx(80.0)


def test_a_foreign_order_younger_than_the_question_is_not_dropped_by_its_answer():
    run = Run().settle()
    asked_ns = run.now_ns
    run.pass_time(10)
    run.feed(foreign_seen(run), reported(run, asked_ns))
    assert len(run.state.account.orders.foreign) == 1
    run.pass_time(10)
    run.feed(reported(run, run.now_ns))
    assert not run.state.account.orders.foreign


def test_an_order_of_ours_that_the_ledger_lost_is_counted_once():
    run = Run().settle()
    label = client_order_id(0, 77, 1)
    seen = msgspec.structs.replace(foreign_seen(run), client_order_id=label)
    run.feed(seen, msgspec.structs.replace(reported(run, run.now_ns), orders=(seen,)))
    account = run.state.account
    assert label in account.orders.own and not account.orders.foreign


def test_absence_asked_on_a_wall_clock_that_stepped_ahead_proves_nothing():
    run = Run().settle()
    (order,) = creates(run.decide())
    run.feed(CreateUnknown(run.now_ns, order.client_order_id, "timeout"))
    own = run.state.account.orders.own
    run.feed(evidence(run, order.client_order_id, asked_utc_ns=run.now_ns + 10_000 * MS))
    assert own[order.client_order_id].state is OrderState.UNKNOWN
    run.pass_time(3_001)
    run.feed(evidence(run, order.client_order_id))
    assert own[order.client_order_id].state is OrderState.ABSENT


@pytest.mark.parametrize("known_by", ["its fill", "its id"])
def test_an_order_that_lived_and_that_the_venue_forgot_has_ended(known_by):
    """Hours after a crash: half filled, cancelled by hand, and past the venue's retention of orders."""
    run = Run().settle()
    (order,) = creates(run.decide())
    run.seen(order, OPEN)
    if known_by == "its fill":
        run.fill(order, 10)
    own = msgspec.structs.replace(run.state.account.orders.own[order.client_order_id])
    later = Run(restored=(own,))
    later.feed(evidence(later, order.client_order_id))
    assert later.state.account.orders.own[order.client_order_id].state is OrderState.UNKNOWN  # asked too early
    later.pass_time(4_000)
    later.feed(evidence(later, order.client_order_id, complete=False))
    assert later.state.account.orders.own[order.client_order_id].state is OrderState.UNKNOWN
    later.feed(evidence(later, order.client_order_id))
    assert later.state.account.orders.own[order.client_order_id].state is OrderState.CANCELLED


def expired() -> Run:
    """A future held, and its expiry just past: the venue's report no longer mentions it."""
    run = Run()
    run.positions = {BTC_FUTURE: 100, BTC_PERP: 1}
    run.settle()
    run.pass_time(60 * 86_400 * 1_000 + 1)
    run.positions = {BTC_PERP: 1}
    return run


def delivery(run: Run, lots: int = 100) -> Settlement:
    return Settlement(0, BTC_FUTURE, run.now_ns, lots, 80_000.0, 0.001, "BTC")


def test_a_settled_future_is_removed_once_with_the_venues_record_of_it():
    run = expired()
    for _ in range(3):
        run.pass_time(10)
        run.report(settlements=(delivery(run),))
    account = run.state.account
    assert account.position_lots[BTC_FUTURE] == 0
    assert [(s.lots, proof) for s, proof in account.deliveries.new] == [(100, "venue record")]
    assert account.mode is Mode.NORMAL


def test_without_the_venues_record_a_settled_position_waits_ten_minutes_and_then_goes_by_its_report():
    run = expired()
    run.report()
    run.report()
    account = run.state.account
    assert account.position_lots[BTC_FUTURE] == 100
    assert account.deliveries.since_ms(0, account.position_lots, run.now_ns) > 0  # and is asked for
    run.pass_time(601_000)
    run.report()
    assert account.position_lots[BTC_FUTURE] == 0
    assert [proof for _, proof in account.deliveries.new] == ["position report"]
    assert account.mode is Mode.NORMAL and account.deliveries.since_ms(0, account.position_lots, run.now_ns) == 0


def test_a_delivery_known_to_the_ledger_is_not_counted_again():
    run = Run(settled=((0, "BTC-25DEC26"),))
    run.settle()
    run.report(settlements=(delivery(run),))
    assert not run.state.account.deliveries.new


def test_a_delivery_of_another_size_than_was_held_halts():
    run = expired()
    run.report(settlements=(delivery(run, lots=40),))
    assert run.state.account.position_lots[BTC_FUTURE] == 0
    assert run.state.account.mode is Mode.HALTED


@pytest.mark.parametrize("price", [float("nan"), float("inf"), -80_000.0, 0.0, 8_000.0, 800_000.0])
def test_a_false_mark_of_what_is_held_is_not_hedged_in_other_contracts(price):
    run = Run()
    run.positions = {BTC_LINEAR: 12_500}  # 100,000 USD: on target
    run.settle()
    assert not creates(run.decide())
    run.feed(MarkUpdated(run.now_ns, run.now_ns, BTC_LINEAR, price, 80_000.0, 0.0))
    assert not [o for o in creates(run.tick()) if o.row != BTC_LINEAR]


@pytest.mark.parametrize("factor", [0.1, 0.5, 1.5, 10.0])
def test_a_false_index_trades_nothing_leaves_no_peak_and_no_mode_behind(factor):
    hedged: dict[str, object] = {"targets": {"BTC": {"kind": "fixed", "delta_usd": 0, "band_usd": 5_000}}}
    run = Run(parameters(allocator=hedged, guards={"max_instrument_usd": 1e6}))
    run.pools = {"USDC": 500_000.0, "BTC": 5.0}
    run.positions = {BTC_PERP: -40_000}  # the five coins are hedged
    run.settle()
    assert not creates(run.decide())
    peak = run.state.account.peak_equity_usd
    run.feed(IndexUpdated(run.now_ns, run.now_ns, 0, "BTC", 80_000.0 * factor))
    assert not creates(run.tick())
    run.decide()
    assert run.state.account.peak_equity_usd == peak
    assert run.state.account.mode is Mode.NORMAL
