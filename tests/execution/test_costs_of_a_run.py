"""The costs of a run through the real engine: told once an order, whatever else happens."""

import pytest

from dea_daemon.domain.events import FillReceived, Operator, OperatorSpoke, VenueOrderState
from dea_daemon.domain.lessons import CostLesson
from dea_daemon.execution.estimates import Estimates
from tests.house import MS, Run, creates, parameters


def measured(run, order):
    told = [n.fields for d in run.decisions for n in d.notes if n.event == "order.measured"]
    return [fields for fields in told if fields["client_order_id"] == order.client_order_id]


def stay(run, seconds):
    """On fresh quotes and reports, a decision a second."""
    for _ in range(seconds):
        run.pass_time(900)
        run.report()
        run.decide()


def resting():
    """A run whose first order rests in the book; what went out beside it is filled."""
    run = Run(parameters(execution={"cross_after_ms": 10**6})).settle()
    order, *others = creates(run.decide())
    run.seen(order, VenueOrderState.OPEN)
    for other in others:
        run.seen(other, VenueOrderState.OPEN)
        run.fill(other, other.lots)
    return run, order


def test_an_order_is_told_once_with_all_its_costs_a_minute_after_its_end():
    run, order = resting()
    price = order.price_ticks * 0.5
    run.fill(order, order.lots)
    stay(run, 59)
    assert not measured(run, order)
    stay(run, 3)
    (found,) = measured(run, order)
    assert found["client_order_id"] == order.client_order_id and found["filled_lots"] == order.lots
    assert found["price"] == price and found["arrival_mid"] == found["decision_mid"] == 80_000.0
    assert found["spread_usd"] < 0.0 and found["total_usd"] == found["spread_usd"] + found["fee_usd"]
    stay(run, 61)
    assert len(measured(run, order)) == 1


def test_a_decision_that_only_measured_is_not_kept_as_one_that_acted():
    run, order = resting()
    run.fill(order, order.lots)
    stay(run, 62)
    deciding = [d for d in run.decisions if any(n.event == "order.measured" for n in d.notes)]
    assert deciding and not any("order.measured" in d.record.notes for d in deciding)


def test_a_fill_is_counted_though_its_event_halts_the_run():
    run, order = resting()
    run.feed(
        FillReceived(
            run.now_ns, run.now_ns, 0, order.row, "L1", "V" + order.client_order_id, order.client_order_id,
            order.side, order.lots, order.price_ticks, 0.0, "BTC", True, True,
        )
    )  # fmt: skip
    run.state.account.new_fills.clear()  # as the shell does, which records a halt at once
    stay(run, 62)
    (found,) = measured(run, order)
    assert found["filled_lots"] == order.lots


def test_when_the_run_ends_what_it_measured_so_far_is_told():
    run, order = resting()
    run.fill(order, order.lots)
    run.feed(OperatorSpoke(run.now_ns + MS, Operator.DRAIN, "test"))
    run.decide()
    (found,) = measured(run, order)
    assert found["filled_lots"] == order.lots and found["markout_60s_usd"] != found["markout_60s_usd"]


def test_the_same_events_give_the_same_costs():
    told = []
    for _ in range(2):
        run, order = resting()
        run.prices["BTC"] = 80_010.0
        run.decide()
        run.fill(order, order.lots)
        stay(run, 62)
        told.append(repr(measured(run, order)))
    assert told[0] == told[1] and "total_usd" in told[0]


def test_what_a_run_learned_can_be_learned_again_from_what_it_told():
    run, order = resting()
    run.fill(order, order.lots)
    stay(run, 62)
    told = [n.fields for d in run.decisions for n in d.notes if n.event == "order.measured"]
    lessons = [
        CostLesson(
            f["ended_ns"], f["account"], f["underlying"], "perpetual", f["placed"], f["asked_usd"], f["filled_usd"],
            f["beyond_usd"], f["day_vol_bp"],
        )
        for f in told
    ]  # fmt: skip
    learned, again = run.state.memory.costs.estimates, Estimates()
    again.recall(lessons, run.now_ns, run.params.execution)
    ((key, one),), ((same, other),) = learned.by_key.items(), again.by_key.items()
    assert key == same == ("deribit/main", "BTC", "perpetual") and one.orders == other.orders == len(told)
    assert one.bp == pytest.approx(other.bp) != 0.0 and one.posted_bp == pytest.approx(other.posted_bp)
