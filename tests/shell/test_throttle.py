"""The way out: who goes first, what waits, and what happens to what cannot go."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.domain.commands import CancelOrder, Outgoing, QueryAccount, QueryInstruments, QueryOrder, Resubscribe
from dea_daemon.domain.errors import InvariantViolation
from dea_daemon.domain.events import (
    AccountReported,
    AnyEvent,
    CancelRefused,
    CancelUnknown,
    CreateRefused,
    CreateUnknown,
    FeedAlive,
    InstrumentsListed,
    OrderEvidence,
)
from dea_daemon.shell.ccxt_client import Budget
from dea_daemon.shell.throttle import IN_FLIGHT_MAX, QUEUED_MAX, Dispatcher, Lane, Pool, lane_of
from tests.shell.deribit_stub import UTC_NS, create

VALID_MS = UTC_NS // 1_000_000 + 2_000


def make(number: int, reduce_only: bool = False, valid_until_ms: int = VALID_MS) -> Outgoing:
    return create(client_order_id=f"create {number}", reduce_only=reduce_only, valid_until_ms=valid_until_ms)


def cancel(number: int) -> CancelOrder:
    return CancelOrder(f"cancel {number}", 0, "", "test")


def name(command: Outgoing) -> str:
    match command:
        case CancelOrder() | QueryOrder():
            return command.client_order_id
        case QueryAccount():
            return f"account {command.account}"
        case QueryInstruments():
            return f"instruments {command.account}"
        case _:
            return command.order.client_order_id  # type: ignore[union-attr]


class Rig:
    """A dispatcher whose gateway answers when it is let, and clocks that move when told."""

    def __init__(self, burst: int = 100, per_s: float = 100.0, reserve: int = 2, answering: bool = True) -> None:
        self.started: list[str] = []
        self.events: list[AnyEvent] = []
        self.now_ns = 0
        self.utc_ns = UTC_NS
        self.answer = asyncio.Event()
        if answering:
            self.answer.set()
        self.dispatcher = Dispatcher(
            self,
            self.events.extend,
            orders=Pool(Budget(per_s, burst)),
            cancel_reserve=reserve,
            now_ns=lambda: self.now_ns,
            utc_ns=lambda: self.utc_ns,
        )

    def perform(self, command: Outgoing) -> Coroutine[Any, Any, list[AnyEvent]]:
        self.started.append(name(command))

        async def answer() -> list[AnyEvent]:
            await self.answer.wait()
            return [FeedAlive(1, name(command), 0, True)]

        return answer()

    def submit(self, *commands: Outgoing) -> None:
        for command in commands:
            self.dispatcher.submit(command)

    @property
    def answered(self) -> list[str]:
        return [event.feed for event in self.events if isinstance(event, FeedAlive)]

    async def running(self, seconds: float) -> None:
        """Let it run for a while, then stop."""
        run = asyncio.create_task(self.dispatcher.run())
        await asyncio.sleep(seconds)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


async def test_a_command_leaves_at_once_and_its_answer_is_emitted():
    rig = Rig()
    rig.submit(make(1))
    assert rig.started == ["create 1"]  # without a turn of the loop, and without run()
    await asyncio.sleep(0.01)
    assert rig.answered == ["create 1"]


async def test_what_waits_leaves_by_priority():
    rig = Rig(burst=4, per_s=40.0, reserve=2)
    rig.dispatcher.pause(1_000)
    for number in range(3):  # two cancels spend the pause's reserve; all else waits
        rig.submit(make(number), make(10 + number, reduce_only=True), QueryOrder(f"query {number}", 0), cancel(number))
    assert rig.started == ["cancel 0", "cancel 1"]
    rig.started.clear()
    rig.now_ns = 2 * 10**9
    await rig.running(0.35)
    orders = [started for started in rig.started if not started.startswith("query")]
    assert orders[0] == "cancel 2"
    assert orders[1:] == ["create 10", "create 11", "create 12", "create 0", "create 1", "create 2"]


async def test_creates_leave_the_reserve_to_cancels():
    rig = Rig(burst=10, per_s=1.0, reserve=4)
    rig.submit(*(make(i) for i in range(20)))
    assert len(rig.started) == 6
    rig.submit(*(cancel(i) for i in range(20)))
    assert rig.started[6:] == [f"cancel {i}" for i in range(4)]


async def test_reduce_only_creates_leave_it_too():
    rig = Rig(burst=10, per_s=1.0, reserve=4)
    rig.submit(*(make(i, reduce_only=True) for i in range(20)))
    assert len(rig.started) == 6


async def test_cancels_may_use_the_whole_budget():
    rig = Rig(burst=10, per_s=1.0, reserve=4)
    rig.submit(*(cancel(i) for i in range(20)))
    assert len(rig.started) == 10


async def test_a_cancel_overtakes_creates_that_wait_for_budget():
    rig = Rig(burst=3, per_s=30.0, reserve=1)
    rig.submit(*(make(i) for i in range(4)))
    assert rig.started == ["create 0", "create 1"]
    rig.submit(cancel(0))
    assert rig.started[2:] == ["cancel 0"]
    await rig.running(0.3)
    assert rig.started[3:] == ["create 2", "create 3"]


async def test_a_pause_stops_creates_and_questions_and_leaves_cancels_their_reserve():
    rig = Rig(reserve=2)
    rig.dispatcher.pause(500)
    rig.submit(make(1), make(2, reduce_only=True), QueryAccount(0, 0), *(cancel(i) for i in range(5)))
    assert rig.started == ["cancel 0", "cancel 1"]
    rig.now_ns = 500 * 10**6
    await rig.running(0.01)
    assert set(rig.started[2:]) == {"cancel 2", "cancel 3", "cancel 4", "create 2", "create 1", "account 0"}


async def test_a_shorter_pause_does_not_end_a_longer_one():
    rig = Rig()
    rig.dispatcher.pause(500)
    rig.dispatcher.pause(100)
    rig.now_ns = 200 * 10**6
    rig.submit(make(1))
    assert rig.started == []


async def test_an_intent_that_is_stale_when_its_turn_comes_is_dropped_unsent():
    rig = Rig()
    rig.dispatcher.pause(500)
    rig.submit(make(1), make(2, reduce_only=True), make(3, valid_until_ms=VALID_MS + 10_000))
    rig.utc_ns = (VALID_MS + 1) * 1_000_000
    await rig.running(0.01)
    assert rig.started == []  # told while it still waits, not only once the pause is over
    assert rig.events == [
        CreateRefused(0, "create 2", sent=False, reason="stale"),
        CreateRefused(0, "create 1", sent=False, reason="stale"),
    ]
    rig.now_ns = 10**9
    await rig.running(0.01)
    assert rig.started == ["create 3"]


async def test_a_slow_question_holds_up_neither_creates_nor_cancels():
    rig = Rig(answering=False)
    rig.submit(*(QueryOrder(f"query {i}", 0) for i in range(50)))
    assert len(rig.started) == IN_FLIGHT_MAX[Lane.QUERY]
    rig.submit(make(1), cancel(1))
    assert rig.started[-2:] == ["create 1", "cancel 1"]


async def test_slow_creates_do_not_hold_up_cancels():
    rig = Rig(answering=False)
    rig.submit(*(make(i) for i in range(50)))
    assert len(rig.started) == IN_FLIGHT_MAX[Lane.CREATE]
    rig.submit(cancel(1))
    assert rig.started[-1] == "cancel 1"


async def test_an_answer_makes_room_for_the_next():
    rig = Rig(answering=False)
    rig.submit(*(QueryOrder(f"query {i}", 0) for i in range(6)))
    rig.answer.set()
    await rig.running(0.02)
    assert len(rig.answered) == 6


async def test_the_same_question_is_asked_once_at_a_time():
    rig = Rig(answering=False)
    rig.submit(*(QueryAccount(0, since_ms) for since_ms in (1, 2, 3)))
    assert rig.started == ["account 0"]
    rig.answer.set()
    await rig.running(0.02)
    assert rig.started == ["account 0", "account 0"]  # one of the two that waited


async def test_contracts_are_listed_once_at_a_time_and_behind_all_else():
    rig = Rig(answering=False)
    for _ in range(3):
        rig.dispatcher.submit(QueryInstruments(0))
    rig.dispatcher.submit(cancel(1))
    assert rig.started == ["instruments 0", "cancel 1"]
    assert lane_of(QueryInstruments(0)) is Lane.QUERY
    await rig.dispatcher.close(0.0)
    (unlisted, *_) = [event for event in rig.events if isinstance(event, InstrumentsListed)]
    assert unlisted.instruments == ()
    assert unlisted.why


async def test_a_full_queue_refuses_creates_and_says_so():
    rig = Rig()
    rig.dispatcher.pause(500)
    rig.submit(*(make(i) for i in range(QUEUED_MAX[Lane.CREATE] + 1)))
    (event,) = rig.events
    assert isinstance(event, CreateRefused)
    assert (event.client_order_id, event.sent, event.reason) == (
        f"create {QUEUED_MAX[Lane.CREATE]}",
        False,
        "queue full",
    )


async def test_a_flood_of_cancels_is_taken_up_to_its_bound():
    rig = Rig(reserve=2)
    rig.dispatcher.pause(500)
    rig.submit(*(cancel(i) for i in range(QUEUED_MAX[Lane.CANCEL] + 3)))  # two leave on the reserve
    (event,) = rig.events
    assert isinstance(event, CancelRefused)


async def test_a_full_queue_still_takes_what_it_already_holds():
    rig = Rig()
    rig.dispatcher.pause(500)
    rig.submit(*(QueryOrder(f"query {i}", 0) for i in range(QUEUED_MAX[Lane.QUERY])), QueryOrder("query 0", 0, 7))
    assert rig.events == []
    rig.submit(QueryOrder("one more", 0))
    (event,) = rig.events
    assert isinstance(event, OrderEvidence)
    assert not event.complete


async def test_closing_lets_cancels_out_and_refuses_the_rest():
    rig = Rig(burst=4, per_s=40.0, reserve=2)
    rig.submit(*(make(i) for i in range(4)), *(cancel(i) for i in range(4)), QueryAccount(0, 0))
    rig.dispatcher.pause(1)
    rig.submit(QueryOrder("query", 0))
    rig.now_ns = 10**9
    await rig.dispatcher.close(1.0)
    assert [started for started in rig.started if "cancel" in started] == [f"cancel {i}" for i in range(4)]
    refused = {event.client_order_id: event for event in rig.events if isinstance(event, CreateRefused)}
    assert set(refused) == {"create 2", "create 3"}
    assert not any(event.sent for event in refused.values())
    rig.submit(make(9))
    assert isinstance(rig.events[-1], CreateRefused)


async def test_what_is_cut_off_at_the_end_is_unknown():
    rig = Rig(answering=False)
    rig.submit(make(1), cancel(1), QueryOrder("query", 0), QueryAccount(0, 0))
    await rig.dispatcher.close(0.02)
    assert {type(event) for event in rig.events} == {
        CreateUnknown,
        CancelUnknown,
        OrderEvidence,
        AccountReported,
    }
    assert not any(getattr(event, "complete", False) for event in rig.events)


async def test_an_order_cut_off_before_its_first_step_is_unknown_too():
    rig = Rig(answering=False)
    rig.submit(make(1))
    await rig.dispatcher.close(0.0)  # not one turn of the loop since it started
    assert rig.events == [CreateUnknown(0, "create 1", "cut off")]


async def test_a_gateway_that_raises_ends_the_run_and_leaves_the_order_unknown():
    class Broken(Rig):
        def perform(self, command: Outgoing) -> Coroutine[Any, Any, list[AnyEvent]]:
            async def fail() -> list[AnyEvent]:
                raise InvariantViolation("our bug")

            return fail()

    rig = Broken()
    rig.submit(make(1))
    with pytest.raises(InvariantViolation, match="our bug"):
        await asyncio.wait_for(rig.dispatcher.run(), 1)
    assert isinstance(rig.events[0], CreateUnknown)


async def test_an_idle_dispatcher_sleeps():
    rig = Rig()
    pumps = 0
    pump = rig.dispatcher._pump

    def count() -> None:
        nonlocal pumps
        pumps += 1
        pump()

    rig.dispatcher._pump = count  # type: ignore[method-assign]
    await rig.running(0.05)
    assert pumps == 1


def test_only_what_a_gateway_can_do_has_a_lane():
    with pytest.raises(InvariantViolation):
        lane_of(Resubscribe(0))


@given(st.lists(st.booleans(), max_size=60), st.integers(2, 20), st.data())
def test_no_mix_of_takers_spends_more_than_the_budget_or_the_reserve(cancels, burst, data):
    reserve = data.draw(st.integers(1, burst - 1))
    pool = Pool(Budget(per_s=1e-3, burst=burst))  # nothing comes back while this runs
    taken = [pool.take(keep=0 if is_cancel else reserve) for is_cancel in cancels]
    assert sum(taken) <= burst
    creates = sum(t for t, is_cancel in zip(taken, cancels, strict=True) if not is_cancel)
    assert creates <= burst - reserve
    refused_cancels = [not t for t, is_cancel in zip(taken, cancels, strict=True) if is_cancel]
    assert not any(refused_cancels) or sum(taken) == burst  # a cancel is refused only by an empty pool


async def test_a_pool_refills_as_it_was_spent():
    pool = Pool(Budget(per_s=50.0, burst=2))
    assert [pool.take() for _ in range(3)] == [True, True, False]
    await asyncio.sleep(0.05)
    assert pool.take()
