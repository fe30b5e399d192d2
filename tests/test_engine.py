"""The engine from outside: events in, decisions out."""

from typing import Any

import msgspec
import pytest

from dea_daemon.domain.decisions import Decision, DecisionRecord
from dea_daemon.domain.errors import ProblemError
from dea_daemon.domain.events import (
    CancelRefused,
    CreateRefused,
    CreateUnknown,
    FeedClosed,
    Operator,
    OperatorSpoke,
    OrderEvidence,
    ParametersReloaded,
    PoolReport,
    PoolUpdated,
    RecordFailed,
    VenueOrderState,
)
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.orders import OrderState
from dea_daemon.engine import begin, reload, step
from tests.house import BTC_PERP, MS, Run, cancels, creates, parameters, questions

OPEN, CANCELLED, FILLED = VenueOrderState.OPEN, VenueOrderState.CANCELLED, VenueOrderState.FILLED


def told(decision: Decision) -> DecisionRecord:
    assert decision.record is not None
    return decision.record


def test_a_settled_run_posts_towards_its_target_and_says_why():
    run = Run().settle()
    decision = run.decide()
    (order,) = creates(decision)
    assert order.side is Side.BUY and order.post_only
    line = told(decision).factors[0]
    assert (line.factor, line.target_usd, line.band_usd, line.actual_usd) == ("delta:BTC", 100_000, 5_000, 0.0)
    assert told(decision).orders[0].client_order_id == order.client_order_id


def test_it_trades_until_inside_the_band_and_then_rests():
    run = Run().settle()
    for _ in range(20):
        for order in creates(run.decide()):
            run.seen(order, OPEN)
            run.fill(order, order.lots)
    line = told(run.decisions[-1]).factors[0]
    assert abs(line.actual_usd - line.target_usd) <= line.band_usd
    assert not creates(run.decide())


def test_nothing_is_sent_before_the_account_agrees_with_the_venue():
    run = Run()
    run.quote()
    assert not creates(run.decide())
    run.report()
    assert not creates(run.decide())


def test_observing_records_the_refused_order_and_sends_nothing():
    run = Run(armed=False).settle()
    decision = run.decide()
    assert not creates(decision)
    assert any("not armed" in clip.why for clip in told(decision).clips)
    run.feed(OperatorSpoke(run.now_ns, Operator.ARM, "test"))
    assert creates(run.decide())


def test_a_sent_order_is_in_flight_at_once_and_is_not_sent_again():
    run = Run().settle()
    assert len(creates(run.decide())) == 1
    assert not any(creates(run.decide()) for _ in range(5))


def test_an_unknown_order_blocks_its_contract_until_proved_absent_then_one_is_sent_again():
    run = Run().settle()
    (order,) = creates(run.decide())
    run.feed(CreateUnknown(run.now_ns, order.client_order_id, "timeout"))
    decision = run.decide()
    assert not creates(decision)
    assert order.client_order_id in [q.client_order_id for q in questions(decision) if hasattr(q, "client_order_id")]
    empty = OrderEvidence(run.now_ns, order.client_order_id, run.now_ns, True, (), ())
    run.feed(empty)  # asked before the deadline: the create may still arrive, so this proves nothing
    assert not creates(run.decide())
    for incomplete in (True, False):
        run.pass_time(4_000)
        run.quote()
        run.report()
        run.feed(msgspec.structs.replace(empty, asked_utc_ns=run.now_ns, complete=not incomplete))
        sent = creates(run.tick())
        assert bool(sent) is not incomplete
        if sent:
            assert sent[0].client_order_id != order.client_order_id


def test_an_unknown_order_the_venue_did_take_is_found_and_not_sent_again():
    run = Run().settle()
    (order,) = creates(run.decide())
    run.feed(CreateUnknown(run.now_ns, order.client_order_id, "timeout"))
    run.seen(order, OPEN)
    assert run.state.account.orders.own[order.client_order_id].state is OrderState.OPEN
    assert not creates(run.decide())


def test_a_create_without_an_answer_becomes_unknown_by_itself():
    run = Run().settle()
    (order,) = creates(run.decide())
    run.pass_time(3_500)
    decision = run.decide()
    assert run.state.account.orders.own[order.client_order_id].state is OrderState.UNKNOWN
    assert "order.outcome_unknown" in told(decision).notes


def test_a_fill_counts_once_whatever_way_it_comes():
    run = Run().settle()
    (order,) = creates(run.decide())
    run.fill(order, 10, "same")
    run.fill(order, 10, "same")
    assert run.state.account.position_lots[order.row] == 10


def test_a_fill_before_its_ack_and_an_ack_after_its_fill_lose_nothing():
    run = Run().settle()
    (order,) = creates(run.decide())
    run.fill(order, order.lots)
    run.seen(order, OPEN)
    own = run.state.account.orders.own[order.client_order_id]
    assert own.state is OrderState.FILLED and own.in_flight_lots == 0
    assert not run.state.account.quarantined.any()


def test_lots_the_venue_says_are_filled_stay_in_flight_until_their_fills_come():
    run = Run().settle()
    (order,) = creates(run.decide())
    run.seen(order, FILLED, order.lots)
    own = run.state.account.orders.own[order.client_order_id]
    assert own.in_flight_lots == order.lots
    assert not creates(run.decide())
    run.fill(order, order.lots)
    assert own.in_flight_lots == 0


def test_a_passive_order_too_old_is_cancelled_and_then_crossed():
    run = Run(parameters(execution={"cross_after_ms": 1_000})).settle()
    (order,) = creates(run.decide())
    run.seen(order, OPEN)
    while not (gone := cancels(run.decide())):
        pass
    assert gone[0].why == "waited long enough"
    run.seen(order, CANCELLED)
    (second,) = creates(run.decide())
    assert second.time_in_force == "ioc" and not second.post_only


def test_a_refused_cancel_leaves_the_order_working_and_asks():
    run = Run(parameters(execution={"cross_after_ms": 500})).settle()
    (order,) = creates(run.decide())
    run.seen(order, OPEN)
    while not cancels(run.decide()):
        pass
    run.feed(CancelRefused(run.now_ns, order.client_order_id, "not_open_order"))
    own = run.state.account.orders.own[order.client_order_id]
    assert own.state is OrderState.OPEN and own.doubted
    assert any(getattr(q, "client_order_id", "") == order.client_order_id for q in questions(run.decide()))


def test_repeated_rejects_open_the_circuit():
    run = Run(parameters(execution={"reject_limit": 3, "reject_pause_ms": 5_000})).settle()
    sent = 0
    for _ in range(20):
        for order in creates(run.decide()):
            sent += 1
            run.feed(CreateRefused(run.now_ns, order.client_order_id, True, "not_enough_funds"))
    assert sent == 3
    run.pass_time(5_000)
    run.report()
    run.pass_time(1)
    run.report()
    assert creates(run.decide())


@pytest.mark.parametrize("event", ["feed", "record", "halt", "reduce"])
def test_no_new_risk_on(event):
    run = Run().settle()
    match event:
        case "feed":
            run.feed(FeedClosed(run.now_ns, "private", 0, True, (), "cut"))
        case "record":
            run.feed(RecordFailed(run.now_ns, "disk full"))
        case "halt":
            run.feed(OperatorSpoke(run.now_ns, Operator.HALT, "test"))
        case "reduce":
            run.feed(OperatorSpoke(run.now_ns, Operator.REDUCE_ONLY, "test"))
    assert not creates(run.decide())


def test_halt_cancels_what_works():
    run = Run().settle()
    (order,) = creates(run.decide())
    run.seen(order, OPEN)
    run.feed(OperatorSpoke(run.now_ns, Operator.HALT, "test"))
    assert [c.client_order_id for c in cancels(run.decide())] == [order.client_order_id]


def speak(run: Run, command: Operator, why: str = "") -> None:
    run.feed(OperatorSpoke(run.now_ns, command, "test", why))


@pytest.mark.parametrize("command", [Operator.PAUSE, Operator.DISARM])
def test_pausing_and_disarming_cancel_what_works_and_send_nothing(command):
    run = Run().settle()
    (order,) = creates(run.decide())
    run.seen(order, OPEN)
    speak(run, command)
    decision = run.decide()
    assert [c.client_order_id for c in cancels(decision)] == [order.client_order_id]
    assert not creates(decision)


@pytest.mark.parametrize("before", [Operator.NORMAL, Operator.REDUCE_ONLY, Operator.FLATTEN])
def test_a_pause_ends_where_it_began_and_keeps_the_peak(before):
    run = Run().settle()
    run.decide()
    speak(run, before)
    mode = run.state.account.mode
    run.state.account.peak_equity_usd = 900_000.0
    speak(run, Operator.PAUSE)
    speak(run, Operator.PAUSE)
    assert run.state.account.mode is Mode.PAUSED
    speak(run, Operator.NORMAL)
    assert run.state.account.mode is mode
    assert run.state.account.peak_equity_usd == 900_000.0


def test_a_halt_is_more_than_a_pause():
    run = Run().settle()
    speak(run, Operator.HALT, "alarm")
    speak(run, Operator.PAUSE)
    assert run.state.account.mode is Mode.HALTED
    assert run.state.account.mode_why == "operator test: alarm"


def test_a_pause_survives_a_restart_and_what_was_before_it_does():
    run = Run(mode=Mode.PAUSED, mode_before=Mode.REDUCE_ONLY).settle()
    assert not creates(run.decide())
    speak(run, Operator.NORMAL)
    assert run.state.account.mode is Mode.REDUCE_ONLY


def test_reloaded_parameters_hold_from_the_next_decision():
    run = Run().settle()
    assert creates(run.decide())
    tighter = parameters(guards={"max_order_usd": 5_000}, state={"stale_book_ms": 77}, execution={"reject_limit": 9})
    event = ParametersReloaded(run.now_ns, tighter.model_dump_json(), "test", ("guards.max_order_usd",))
    run.params = reload(run.state, event)
    note, *_ = run.feed(event).notes
    assert note.event == "parameters.reloaded"
    assert run.params.guards.max_order_usd == 5_000
    assert run.state.market.params.state.stale_book_ms == 77
    assert run.state.account.params.execution.reject_limit == 9


def test_flatten_goes_to_flat_and_never_through_it():
    run = Run(parameters(execution={"order_type": "taker"}))
    run.positions = {BTC_PERP: 5_000}
    run.settle()
    run.feed(OperatorSpoke(run.now_ns, Operator.FLATTEN, "test"))
    for _ in range(10):
        for order in creates(run.decide()):
            assert order.side is Side.SELL and order.reduce_only
            run.fill(order, order.lots)
    assert run.state.account.position_lots[BTC_PERP] == 0
    assert run.state.account.mode is Mode.FLATTENING


def test_a_difference_two_reports_confirm_halts_but_one_alone_does_not():
    run = Run().settle()
    run.positions = {BTC_PERP: 50}
    run.report()
    modes = [run.state.account.mode]
    run.pass_time(10)
    run.report()
    modes.append(run.state.account.mode)
    assert modes == [Mode.NORMAL, Mode.HALTED]
    assert run.state.account.position_lots[BTC_PERP] == 50


def test_an_empty_report_while_margin_is_in_use_is_not_taken_as_flat():
    run = Run()
    run.positions = {BTC_PERP: 50}
    run.settle()
    run.positions = {}
    for _ in range(3):
        run.pass_time(10)
        run.report()
    assert run.state.account.position_lots[BTC_PERP] == 50
    assert run.state.account.mode is Mode.HALTED


def test_stale_books_stop_orders_in_that_contract_alone():
    run = Run(parameters(allocator={"targets": {"ETH": {"kind": "fixed", "delta_usd": 50_000, "band_usd": 1_000},
              "BTC": {"kind": "fixed", "delta_usd": 50_000, "band_usd": 1_000}}})).settle()  # fmt: skip
    run.pass_time(2_500)
    run.quote()
    run.report()
    run.state.market.quote_ns[3] -= 2_500 * MS
    names = {order.row for order in creates(run.tick())}
    assert names and 3 not in names


def test_the_wall_clock_stepping_holds_increases_for_that_tick():
    run = Run().settle()
    run.tick()  # refused by nothing but age: establishes the offset
    run2 = Run().settle()
    run2.tick(utc_shift_ms=0)
    assert not creates(run2.tick(utc_shift_ms=10_000))


def test_the_same_events_give_the_same_decisions_bit_for_bit():
    run = Run(parameters(execution={"cross_after_ms": 700})).settle()
    for k in range(60):
        run.prices["BTC"] *= 1.0 + 0.0004 * (-1) ** k
        for order in creates(run.decide()):
            run.seen(order, OPEN)
            if k % 3:
                run.fill(order, max(1, order.lots // 2))
    state, params = begin(run.started)
    again = [d for e in run.events if (d := step(state, e, params)).record is not None]
    encode = msgspec.msgpack.encode
    assert [encode(d) for d in again] == [encode(d) for d in run.decisions]
    assert any(creates(d) for d in run.decisions) and any(cancels(d) for d in run.decisions)


def losing(**started: Any) -> Run:
    """A run that may lose three percent of the day's first equity, and halts at five."""
    return Run(parameters(guards={"max_daily_loss": 0.03, "halt_daily_loss": 0.05}), **started).settle()


def worth(run: Run, usd: float) -> Mode:
    """Its mode once the account is worth that."""
    run.pools = {"USDC": usd}
    run.report()
    run.decide()
    return run.state.account.mode


def test_the_loss_of_a_day_counts_from_its_first_equity_and_anew_the_next_day():
    run = losing()
    assert worth(run, 500_000.0) is Mode.NORMAL
    assert worth(run, 600_000.0) is Mode.NORMAL  # gains are not the measure
    assert worth(run, 490_000.0) is Mode.NORMAL
    assert worth(run, 480_000.0) is Mode.REDUCE_ONLY
    speak(run, Operator.NORMAL)
    run.report()
    run.pass_time(1)
    run.report()
    assert worth(run, 480_000.0) is Mode.NORMAL  # accepted: what follows counts from here
    run.pass_time(24 * 3_600_000)
    run.settle()
    assert worth(run, 470_000.0) is Mode.NORMAL
    assert worth(run, 440_000.0) is Mode.HALTED


def test_a_restart_does_not_forget_what_the_day_has_lost():
    today = Run().now_ns // (86_400 * 10**9)
    assert worth(losing(day=today, day_equity_usd=500_000.0), 470_000.0) is Mode.HALTED
    assert worth(losing(day=today - 1, day_equity_usd=500_000.0), 470_000.0) is Mode.NORMAL


def test_margin_in_use_is_the_worst_pools_and_unknown_is_no_licence():
    def use(*pools: PoolReport) -> float:
        run = Run().settle()
        run.feed(*(PoolUpdated(run.now_ns, 0, pool) for pool in pools))
        run.decide()
        assert run.state.view is not None
        return run.state.view.margin_use

    nan = float("nan")
    assert use(PoolReport("BTC", 2.0, 2.0, 0.5, 0.2), PoolReport("USDC", 100.0, 100.0, 60.0, 30.0)) == 0.3
    assert use(PoolReport("BTC", -1.0, 0.0, 0.5, 0.2)) == float("inf")
    assert use(PoolReport("BTC", 1.0, 1.0, nan, nan)) != use(PoolReport("BTC", 1.0, 1.0, nan, nan))  # NaN


def test_where_no_book_can_be_chosen_it_is_held_and_that_is_told_once(monkeypatch):
    def refuses(*_: object) -> None:
        raise ProblemError("mu[0] is not a number")

    monkeypatch.setattr("dea_daemon.allocator.allocate.solve", refuses)
    run = Run().settle()
    first, second = run.decide(), run.tick()
    assert not creates(first) and not creates(second)
    assert [note.event for note in first.notes].count("allocation.held") == 1
    assert "allocation.held" not in [note.event for note in second.notes]
    assert [d.record.allocation.status for d in (first, second) if d.record] == ["held", "held"]
