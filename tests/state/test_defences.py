"""What stands between a fault and the book, each by itself: a test here fails when its defence is taken away."""

import msgspec
import numpy as np
import pytest

from dea_daemon.domain.commands import Resubscribe
from dea_daemon.domain.decisions import View
from dea_daemon.domain.events import (
    AccountReported,
    BookDelta,
    BookSnapshot,
    CancelUnknown,
    CreateUnknown,
    FillReceived,
    IndexUpdated,
    InstrumentsListed,
    MarkUpdated,
    Operator,
    OperatorSpoke,
    OrderSeen,
    PoolReport,
    PoolUpdated,
    VenueOrderState,
    VenueStateChanged,
    WatchdogChanged,
)
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.orders import OrderState
from dea_daemon.state.account import FILL_MEMORY
from dea_daemon.state.windows import RollingSum
from tests.house import BTC_FUTURE, BTC_LINEAR, BTC_PERP, ETH_PERP, INSTRUMENTS, MS, Run, cancels, creates, parameters
from tests.house import questions as asked

OPEN, CANCELLED = VenueOrderState.OPEN, VenueOrderState.CANCELLED


def aiming_at(**delta_usd: float) -> Run:
    """A settled run with these targets, by underlying."""
    targets = {name: {"kind": "fixed", "delta_usd": usd, "band_usd": 1_000} for name, usd in delta_usd.items()}
    return Run(parameters(allocator={"targets": targets})).settle()


def view(run: Run) -> View:
    assert run.state.view is not None
    return run.state.view


def rows(decision) -> set[int]:
    return {order.row for order in creates(decision)}


# --- orders -------------------------------------------------------------------------------------------


def test_an_order_in_doubt_has_no_second_beside_it():
    run = Run().settle()
    (order,) = creates(run.decide())
    run.feed(CreateUnknown(run.now_ns, order.client_order_id, "timeout"))
    for _ in range(5):
        assert order.row not in rows(run.decide())


def test_a_cancel_without_an_answer_leaves_its_order_counted_and_asked_for():
    run = Run(parameters(execution={"cross_after_ms": 500})).settle()
    (order,) = creates(run.decide())
    run.seen(order, OPEN)
    while not cancels(run.decide()):
        pass
    run.feed(CancelUnknown(run.now_ns, order.client_order_id, "timeout"))
    decision = run.decide()
    assert not creates(decision)
    assert view(run).working_buy_lots[order.row] == order.lots
    assert order.client_order_id in [getattr(q, "client_order_id", "") for q in asked(decision)]


def test_an_order_is_replaced_only_when_its_end_is_known():
    run = Run(parameters(execution={"cross_after_ms": 500})).settle()
    (order,) = creates(run.decide())
    run.seen(order, OPEN)
    while not cancels(run.decide()):
        pass
    for _ in range(3):
        assert not creates(run.decide())
        assert view(run).working_buy_lots[order.row] == order.lots
    run.seen(order, CANCELLED)
    assert creates(run.decide())


def test_work_that_is_still_in_flight_is_not_taken_over_by_another_contract():
    """Its book goes stale while an order works there: the others wait until that order is gone."""
    run = aiming_at(BTC=40_000)  # in one slice
    (order,) = creates(run.decide())
    run.seen(order, OPEN)
    for _ in range(3):
        run.decide()
        run.state.market.quote_ns[order.row] -= 5_000 * MS
        assert not creates(run.tick())
    run.seen(order, CANCELLED)
    (other,) = creates(run.tick())
    assert other.row != order.row


def test_somebody_elses_order_is_counted_and_left_alone():
    run = Run().settle()
    seen = OrderSeen(run.now_ns, run.now_ns, 0, BTC_PERP, "by hand", "F1", OPEN, Side.BUY, 700, 200, 160_000)
    run.feed(seen)
    for _ in range(5):
        assert not [c for c in cancels(run.decide()) if c.venue_order_id == "F1"]
    own = sum(order.in_flight_lots for order in view(run).orders if order.row == BTC_PERP)
    assert view(run).working_buy_lots[BTC_PERP] == own + 500


# --- market data --------------------------------------------------------------------------------------


def test_a_book_that_broke_is_asked_for_at_once():
    run = Run().settle()
    book = run.state.market.books[BTC_PERP]
    run.pass_time(2_000)
    late = BookDelta(run.now_ns, run.now_ns, BTC_PERP, book.last + 9, book.last + 9, book.last + 8, [], [])
    assert Resubscribe(BTC_PERP) in run.feed(late).commands


@pytest.mark.parametrize("side", ["bids", "asks"])
def test_an_emptied_side_stops_its_contract_alone(side):
    run = aiming_at(BTC=50_000, ETH=50_000)
    run.pass_time(100)
    run.quote()
    left = [(run.prices["ETH"], 1e6)]
    bids, asks = ([], left) if side == "bids" else (left, [])
    run.feed(BookSnapshot(run.now_ns, run.now_ns, ETH_PERP, run.now_ns + 1, bids, asks))
    sent = rows(run.tick())
    assert sent and ETH_PERP not in sent
    assert view(run).fresh.tolist() == [row != ETH_PERP for row in range(len(INSTRUMENTS))]


@pytest.mark.parametrize("price", [float("nan"), float("inf"), 0.0, -80_000.0])
def test_a_mark_that_is_no_price_is_no_mark(price):
    run = Run().settle()
    run.feed(MarkUpdated(run.now_ns, run.now_ns, BTC_PERP, price, 80_000.0, 0.0))
    assert np.isnan(run.state.market.mark[BTC_PERP])
    assert BTC_PERP not in rows(run.tick())


# --- account ------------------------------------------------------------------------------------------


def test_no_positions_while_margin_is_in_use_is_no_report():
    run = Run()
    run.positions = {BTC_PERP: 50}
    run.settle()
    before_ns = run.state.account.reported_ns[0]
    run.pass_time(10)
    pools = (PoolReport("USDC", 500_000.0, 500_000.0, 60.0, 30.0),)
    run.feed(AccountReported(run.now_ns, 0, run.now_ns, True, (), (), (), pools))
    account = run.state.account
    assert account.reported_ns[0] == before_ns and not account.drift
    assert account.position_lots[BTC_PERP] == 50


def test_a_liquidation_is_booked_like_any_fill_and_halts():
    run = Run()
    run.positions = {BTC_PERP: 500}
    run.settle()
    taken = FillReceived(
        run.now_ns, run.now_ns, 0, BTC_PERP, "L1", "V", "", Side.SELL, 200, 160_000, 0.0, "BTC", False, liquidation=True
    )
    run.feed(taken, taken)
    account = run.state.account
    assert account.position_lots[BTC_PERP] == 300
    assert account.mode is Mode.HALTED and "liquidated" in account.mode_why
    assert not creates(run.decide())


def test_funding_is_income_once_and_moves_no_position():
    run = Run().settle()
    account = run.state.account
    held = account.position_lots.copy()
    run.feed(IndexUpdated(run.now_ns, run.now_ns, 0, "BTC", 80_000.0))
    for pending in (0.0, 0.001, 0.002, 0.0, 0.001):  # the venue settles between the third and the fourth
        run.feed(PoolUpdated(run.now_ns, 0, PoolReport("BTC", 1.0, 1.0, 0.0, 0.0, pending)))
    assert account.total_funding_usd == pytest.approx(0.003 * 80_000.0)
    assert (account.position_lots == held).all()


def test_a_balance_that_drops_leads_to_reduce_only_with_the_next_decision():
    run = Run(parameters(guards={"max_drawdown": 0.2})).settle()
    assert creates(run.decide())
    run.feed(PoolUpdated(run.now_ns, 0, PoolReport("USDC", 300_000.0, 300_000.0, 0.0, 0.0)))
    assert not creates(run.decide())
    assert run.state.account.mode is Mode.REDUCE_ONLY
    assert view(run).equity_usd == 300_000.0


def test_a_fill_told_after_the_delivery_moves_nothing():
    run = Run(settled=((0, INSTRUMENTS[BTC_FUTURE].name),))
    run.settle()
    late = FillReceived(run.now_ns, run.now_ns, 0, BTC_FUTURE, "late", "V", "", Side.BUY, 3, 160_000, 0.0, "BTC", False)
    run.feed(late)
    assert run.state.account.position_lots[BTC_FUTURE] == 0


def test_a_contract_of_another_grid_is_shut():
    run = Run().settle()
    changed = msgspec.structs.replace(INSTRUMENTS[BTC_LINEAR])
    run.feed(InstrumentsListed(run.now_ns, 0, (), changed=(changed,)))
    run.decide()
    assert view(run).shut.tolist() == [row == BTC_LINEAR for row in range(len(INSTRUMENTS))]


def test_a_venue_that_announced_its_maintenance_is_shut_until_it_says_otherwise():
    run = Run().settle()
    run.feed(VenueStateChanged(run.now_ns, 0, False, "maintenance"))
    run.decide()
    assert view(run).shut.all()
    run.feed(VenueStateChanged(run.now_ns, 0, True, "over"))
    run.decide()
    assert not view(run).shut.any()


def test_after_a_maintenance_nothing_grows_before_a_fresh_report():
    run = Run().settle()
    run.feed(VenueStateChanged(run.now_ns, 0, False, "maintenance"))
    run.feed(VenueStateChanged(run.now_ns, 0, True, "over"))
    assert not creates(run.decide())
    run.report()
    assert creates(run.decide())


# --- process ------------------------------------------------------------------------------------------


def test_a_halt_sends_nothing_not_even_what_reduces():
    run = Run()
    run.positions = {BTC_PERP: 25_000}  # 250,000 USD, and 100,000 are wanted
    run.settle()
    run.feed(OperatorSpoke(run.now_ns, Operator.HALT, "test"))
    assert not creates(run.decide())
    run.feed(OperatorSpoke(run.now_ns, Operator.REDUCE_ONLY, "test"))
    assert creates(run.decide())


def test_without_its_watchdog_nothing_grows_until_there_is_another():
    run = Run().settle()
    run.feed(WatchdogChanged(run.now_ns, False, "killed"))
    assert not creates(run.decide())
    run.feed(WatchdogChanged(run.now_ns, True, "started"))
    assert creates(run.decide())


def test_a_step_of_the_wall_clock_is_told_to_the_guards():
    run = Run().settle()
    for shift_ms, step_ms in ((0, 0), (10_000, 10_000), (10_000, 0), (-10_000, -20_000)):
        run.pass_time(100)
        run.tick(utc_shift_ms=shift_ms)
        assert view(run).clock_step_ns == step_ms * MS


def test_an_order_that_ended_is_forgotten_after_ten_minutes():
    run = Run().settle()
    (order,) = creates(run.decide())
    run.seen(order, OPEN)
    run.seen(order, CANCELLED)
    own, changed = run.state.account.orders.own, run.state.account.orders.changed
    changed.clear()  # as when its end is on disk
    run.pass_time(590_000)
    run.decide()
    assert own[order.client_order_id].state is OrderState.CANCELLED
    run.pass_time(30_000)
    changed.clear()
    run.decide()
    assert order.client_order_id not in own


def test_trade_ids_are_remembered_up_to_a_bound():
    run = Run(fills_seen=tuple((0, f"T{k}") for k in range(FILL_MEMORY + 500)))
    run.settle()
    run.decide()
    seen = run.state.account.fills_seen
    assert len(seen) == FILL_MEMORY
    assert (0, "T0") not in seen and (0, f"T{FILL_MEMORY + 499}") in seen


def test_a_rolling_sum_stays_small_however_much_is_added():
    hour_ns = 3_600 * 10**9
    window = RollingSum(hour_ns)
    for k in range(20_000):
        window.add(k * 500 * MS, 1.0)
        window.prune(k * 500 * MS)
    assert window.total == pytest.approx(7_200, abs=4)
    assert len(window._entries) <= 3_602
