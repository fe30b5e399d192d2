"""The one way out: commands queue here by priority and leave within the venue's budgets.

Cancel, then reduce-only create, then create, then query. A slow answer holds up nothing but its own kind:
every lane has its own number of requests that may be in flight.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import Any, Protocol

from asyncio_throttle import Throttler

from dea_daemon.domain.commands import Approved, CancelOrder, Outgoing, QueryAccount, QueryInstruments, QueryOrder
from dea_daemon.domain.errors import InvariantViolation, check
from dea_daemon.domain.events import (
    AccountReported,
    AnyEvent,
    CancelRefused,
    CancelUnknown,
    CreateRefused,
    CreateUnknown,
    InstrumentsListed,
    OrderEvidence,
)
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.shell.ccxt_client import Budget

RETRY_INTERVAL_S = 0.002


class Lane(IntEnum):
    """Priority: a lower lane leaves first."""

    CANCEL = 0
    REDUCE = 1
    CREATE = 2
    QUERY = 3


QUEUED_MAX = {Lane.CANCEL: 4_096, Lane.REDUCE: 64, Lane.CREATE: 64, Lane.QUERY: 256}
IN_FLIGHT_MAX = {Lane.CANCEL: 24, Lane.REDUCE: 16, Lane.CREATE: 16, Lane.QUERY: 4}


class Pool(Throttler):  # type: ignore[misc]  # asyncio-throttle has no types
    """asyncio-throttle's sliding log, also asked without waiting: a waiter inside `acquire` would hold its
    place against a cancel that came later. Waiting is done by whoever asks."""

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget.burst, budget.burst / budget.per_s, RETRY_INTERVAL_S)

    def take(self, keep: int = 0) -> bool:
        """Spend one request now, unless no more than `keep` are left."""
        self.flush()
        if len(self._task_logs) >= self.rate_limit - keep:
            return False
        self._task_logs.append(time.monotonic())
        return True


class Performer(Protocol):
    """What carries a command out: the gateway."""

    def perform(self, command: Outgoing) -> Coroutine[Any, Any, list[AnyEvent]]: ...


def lane_of(command: Outgoing) -> Lane:
    """The lane a command leaves by."""
    match command:
        case CancelOrder():
            return Lane.CANCEL
        case Approved():
            return Lane.REDUCE if command.order.reduce_only else Lane.CREATE
        case QueryOrder() | QueryAccount() | QueryInstruments():
            return Lane.QUERY
        case _:
            raise InvariantViolation(f"{type(command).__name__} is not for a gateway")


def _key(command: Outgoing) -> str:
    """What a queue holds once: a second cancel of an order, or the same question, adds nothing."""
    match command:
        case Approved():
            return command.order.client_order_id
        case CancelOrder() | QueryOrder():
            return command.client_order_id
        case QueryAccount():
            return f"account {command.account}"
        case _:
            return f"instruments {command.account}" if isinstance(command, QueryInstruments) else ""


class Dispatcher:
    """Queues, budgets and requests in flight of one venue account.

    Every command ends in events handed to `emit`: its answer, a refusal before sending, or "unknown" if it
    was cut off. `emit` may be called from inside `submit`, so it must only queue.
    """

    def __init__(
        self,
        gateway: Performer,
        emit: Callable[[list[AnyEvent]], None],
        *,
        orders: Pool,
        cancel_reserve: int,
        now_ns: Callable[[], int],
        utc_ns: Callable[[], int],
    ) -> None:
        """`orders` is the budget of creates and cancels; the gateway paces each request of a query itself."""
        check(0 < cancel_reserve < orders.rate_limit, "the cancel reserve must leave something for creates")
        self._gateway, self._emit = gateway, emit
        self._orders, self._reserve = orders, cancel_reserve
        self._now_ns, self._utc_ns = now_ns, utc_ns
        self._queues: dict[Lane, dict[str, Outgoing]] = {lane: {} for lane in Lane}
        self._in_flight: dict[Lane, dict[asyncio.Task[list[AnyEvent]], str]] = {lane: {} for lane in Lane}
        # While the venue's own limit bites, cancels draw on this instead of the whole budget.
        self._while_paused = Pool(Budget(per_s=cancel_reserve, burst=cancel_reserve))
        self._paused_until_ns = 0
        self._closing = False
        self._wake = asyncio.Event()
        self._failure: BaseException | None = None

    def submit(self, command: Outgoing) -> None:
        """Queue a command, and start it at once if nothing is in its way. Never waits."""
        lane, key = lane_of(command), _key(command)
        queue = self._queues[lane]
        if self._closing and lane is not Lane.CANCEL:
            self._emit(self._unsent(command, "closing"))
        elif key not in queue and len(queue) >= QUEUED_MAX[lane]:
            self._emit(self._unsent(command, "queue full"))
        else:
            queue[key] = command
            self._pump()  # here, not in run(): a turn of the loop is time an order waits

    def pause(self, retry_after_ms: int) -> None:
        """The venue said "too many": creates and queries wait, cancels keep their reserve."""
        until_ns = self._now_ns() + retry_after_ms * NS_PER_MS
        self._paused_until_ns = max(self._paused_until_ns, until_ns)

    async def run(self) -> None:
        """Send what had to wait, as budgets and time allow. Raises what a gateway's task raised: our bug."""
        while True:
            self._wake.clear()
            if self._failure is not None:
                raise self._failure
            self._pump()
            waiting = any(self._queues.values())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_INTERVAL_S if waiting else None):
                    await self._wake.wait()

    async def close(self, grace_s: float) -> None:
        """Take no more creates, let cancels and requests in flight finish, cut off the rest after `grace_s`.

        What is cut off ends as unknown. Works with or without `run()`.
        """
        self._closing = True
        for lane in (Lane.REDUCE, Lane.CREATE, Lane.QUERY):
            self._refuse_queued(lane)
        deadline = time.monotonic() + grace_s
        while (self._queues[Lane.CANCEL] or self._tasks()) and time.monotonic() < deadline:
            await asyncio.sleep(RETRY_INTERVAL_S)
            self._pump()
        self._refuse_queued(Lane.CANCEL)
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _refuse_queued(self, lane: Lane) -> None:
        queued, self._queues[lane] = self._queues[lane], {}
        self._emit([event for command in queued.values() for event in self._unsent(command, "closing")])

    def _tasks(self) -> list[asyncio.Task[list[AnyEvent]]]:
        return [task for tasks in self._in_flight.values() for task in tasks]

    def _pump(self) -> None:
        """Start everything that may start now, highest lane first."""
        self._drop_stale()
        for lane in Lane:
            in_flight = self._in_flight[lane]
            for key in list(self._queues[lane]):
                if lane is Lane.QUERY and key in in_flight.values():
                    continue  # the same question is still out
                if len(in_flight) >= IN_FLIGHT_MAX[lane] or not self._affordable(lane):
                    break
                self._start(lane, key)

    def _affordable(self, lane: Lane) -> bool:
        """Whether the lane may send one request now; takes it from the budget."""
        paused = self._now_ns() < self._paused_until_ns
        if lane is Lane.CANCEL:
            return self._while_paused.take() if paused else self._orders.take()
        if lane is Lane.QUERY:
            return not paused
        return not paused and self._orders.take(keep=self._reserve)

    def _start(self, lane: Lane, key: str) -> None:
        command = self._queues[lane].pop(key)
        task = asyncio.get_running_loop().create_task(self._gateway.perform(command))
        self._in_flight[lane][task] = key
        task.add_done_callback(lambda ended: self._finish(lane, command, ended))

    def _finish(self, lane: Lane, command: Outgoing, task: asyncio.Task[list[AnyEvent]]) -> None:
        # A callback and not a try around the call: a task cut off before its first step runs no code at all.
        del self._in_flight[lane][task]
        self._wake.set()
        if task.cancelled():
            self._emit(self._cut_off(command))
        elif (failure := task.exception()) is not None:
            self._failure = failure
            self._emit(self._cut_off(command))
        else:
            self._emit(task.result())

    def _drop_stale(self) -> None:
        """An intent the venue would have to refuse is not worth a request: the core decides anew."""
        utc_ms = self._utc_ns() // NS_PER_MS
        for lane in (Lane.REDUCE, Lane.CREATE):
            for key, command in list(self._queues[lane].items()):
                if isinstance(command, Approved) and command.order.valid_until_ms <= utc_ms:
                    self._queues[lane].pop(key)
                    self._emit(self._unsent(command, "stale"))

    def _unsent(self, command: Outgoing, why: str) -> list[AnyEvent]:
        now_ns = self._now_ns()
        match command:
            case Approved():
                return [CreateRefused(now_ns, command.order.client_order_id, sent=False, reason=why)]
            case CancelOrder():
                return [CancelRefused(now_ns, command.client_order_id, f"not sent: {why}")]
            case _:
                return self._unanswered(command, why)

    def _cut_off(self, command: Outgoing) -> list[AnyEvent]:
        now_ns = self._now_ns()
        match command:
            case Approved():
                return [CreateUnknown(now_ns, command.order.client_order_id, "cut off")]
            case CancelOrder():
                return [CancelUnknown(now_ns, command.client_order_id, "cut off")]
            case _:
                return self._unanswered(command, "cut off")

    def _unanswered(self, command: Outgoing, why: str) -> list[AnyEvent]:
        """Answers that prove nothing, so that no question is left hanging."""
        now_ns = self._now_ns()
        match command:
            case QueryOrder():
                order_id, utc_ns = command.client_order_id, self._utc_ns()
                return [OrderEvidence(now_ns, order_id, utc_ns, complete=False, orders=(), fills=(), why=why)]
            case QueryAccount():
                return [AccountReported(now_ns, command.account, now_ns, False, (), (), (), (), why)]
            case QueryInstruments():
                return [InstrumentsListed(now_ns, command.account, (), why)]
            case _:
                return []
