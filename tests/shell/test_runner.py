"""The heartbeat: step, record, send, in that order, and nothing new leaves unrecorded."""

import asyncio
from collections.abc import Iterable

import msgspec
import pytest

from dea_daemon.domain.commands import Approved, CreateOrder, Outgoing
from dea_daemon.domain.decisions import Decision
from dea_daemon.domain.errors import InvariantViolation, LedgerError
from dea_daemon.domain.events import DecisionDue, ForecasterRuled, Operator
from dea_daemon.domain.instruments import Universe
from dea_daemon.domain.models import Kept, Standing
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.orders import OrderState
from dea_daemon.shell.ledger import Batch
from dea_daemon.shell.recovery import KEPT
from dea_daemon.shell.runner import Runner
from tests.house import MS, Run, creates, parameters


class HandClock:
    now = 0

    def now_ns(self) -> int:
        return self.now

    utc_ns = now_ns


class Disk:
    """A ledger that remembers its intents, and is full when told so."""

    def __init__(self) -> None:
        self.full = False
        self.broken: Exception | None = None
        self.intents: list[str] = []
        self.modes: list[tuple[Mode, str]] = []
        self.parameters: list[str] = []
        self.checkpoints: dict[str, bytes] = {}

    def wants_pools(self, now_ns: int) -> bool:
        return False

    def write(self, batch: Batch, universe: Universe, now_ns: int) -> None:
        if self.broken is not None:
            raise self.broken
        if self.full and batch:
            raise LedgerError("no space left")
        self.intents += [order.client_order_id for order in batch.intents]
        self.modes += batch.modes
        self.parameters += [batch.parameters] if batch.parameters else []
        self.checkpoints |= batch.checkpoints
        batch.clear()


class Desk:
    """A Runner fed by the house's hand-made events; `sent` is what left, `recorded` what was on disk then."""

    def __init__(self) -> None:
        self.house, self.clock, self.disk = Run(), HandClock(), Disk()
        self.sent: list[Outgoing] = []
        self.recorded: list[tuple[str, ...]] = []
        self.runner = Runner(self.house.started, self._send, clock=self.clock, ledger=self.disk)  # type: ignore[arg-type]
        self.told = 0

    def _send(self, command: Outgoing) -> None:
        self.sent.append(command)
        self.recorded.append(tuple(self.disk.intents))

    def play(self) -> None:
        """What the house has seen since, to the runner."""
        for event in self.house.events[self.told :]:
            self.clock.now = event.ts_recv_ns
            self.runner.emit([event])
        self.told = len(self.house.events)

    @property
    def orders(self) -> list[CreateOrder]:
        return [command.order for command in self.sent if isinstance(command, Approved)]


@pytest.fixture
async def desk() -> Desk:
    made = Desk()
    made.house.settle()
    return made


def labels(orders: Iterable[CreateOrder]) -> list[str]:
    return [order.client_order_id for order in orders]


async def test_an_intent_is_on_disk_when_its_order_leaves(desk):
    wanted = creates(desk.house.decide())
    desk.play()
    assert wanted and labels(desk.orders) == labels(wanted)
    for command, recorded in zip(desk.sent, desk.recorded, strict=True):
        assert not isinstance(command, Approved) or command.order.client_order_id in recorded


async def test_what_cannot_be_recorded_does_not_leave_and_questions_do(desk):
    desk.disk.full = True
    desk.house.decide()
    desk.play()
    assert desk.sent and desk.orders == []
    account = desk.runner.state.account
    assert not account.recording
    assert [order.state for order in account.orders.own.values()] == [OrderState.REJECTED]


async def test_once_it_can_be_recorded_again_orders_leave(desk):
    desk.disk.full = True
    desk.house.decide()
    desk.play()
    desk.disk.full = False
    for _ in range(3):
        desk.clock.now = desk.house.now_ns = desk.house.now_ns + 250 * MS
        desk.house.quote()
        desk.play()
        desk.runner.emit([DecisionDue(desk.clock.now, desk.clock.now, "timer")])
    assert desk.runner.state.account.recording
    assert len(desk.orders) == 1
    assert desk.orders[0].client_order_id in desk.disk.intents


async def test_a_ledger_that_contradicts_itself_ends_the_run(desk):
    desk.disk.broken = InvariantViolation("used before")
    desk.house.decide()
    desk.play()
    assert desk.orders == []
    with pytest.raises(InvariantViolation):
        await desk.runner.tick_forever()


async def test_an_error_while_folding_is_the_runs_and_not_the_sockets(desk, monkeypatch):
    monkeypatch.setattr("dea_daemon.shell.runner.step", lambda *_: 1 / 0)
    desk.house.quote()
    desk.play()  # does not raise
    with pytest.raises(ZeroDivisionError):
        await desk.runner.tick_forever()


async def test_the_operators_halt_is_on_disk_before_the_call_returns(desk):
    desk.play()
    desk.runner.operator(Operator.HALT, "alice", "alarm")
    assert desk.disk.modes == [(Mode.HALTED, "operator alice: alarm")]


async def test_a_halt_the_daemon_gives_itself_is_on_disk_too(desk):
    desk.house.positions = {0: 50}
    desk.house.report()
    desk.house.pass_time(10)
    desk.house.report()
    desk.play()
    assert [mode for mode, _ in desk.disk.modes] == [Mode.HALTED]


async def test_what_the_operator_ruled_of_a_forecaster_is_on_disk_before_the_call_returns(desk):
    desk.runner.emit([ForecasterRuled(desk.clock.now, "prior_5d", 0.3, "uid 7", "drill")])
    (ruled,) = msgspec.msgpack.decode(desk.disk.checkpoints[KEPT], type=Kept).standings
    assert (ruled.name, ruled.weight, ruled.who) == ("prior_5d", 0.3, "uid 7")
    desk.runner.emit([ForecasterRuled(desk.clock.now, "nobody", 0.3, "uid 7")])
    assert msgspec.msgpack.decode(desk.disk.checkpoints[KEPT], type=Kept).standings == (ruled,)


async def test_a_run_begins_with_what_was_ruled_before(desk):
    ruled = Standing("prior_5d", 0.3, "uid 7", "drill", 1)
    started = msgspec.structs.replace(desk.house.started, kept=Kept((ruled,)))
    runner = Runner(started, desk.sent.append, clock=desk.clock)
    assert runner.state.memory.forecast.trial.standings == {"prior_5d": ruled}


async def test_reloaded_parameters_are_used_and_recorded(desk):
    desk.play()
    tighter = parameters(guards={"max_order_usd": 7_000})
    desk.runner.reload(tighter, "alice", ("guards.max_order_usd: 100000 to 7000",))
    desk.runner.emit([DecisionDue(desk.clock.now, desk.clock.now, "timer")])
    assert desk.runner.params.guards.max_order_usd == 7_000
    assert desk.disk.parameters == [tighter.model_dump_json()]


async def test_a_listener_that_fails_is_dropped_and_the_others_hear_on(desk):
    heard: list[Decision] = []
    desk.runner.listeners += [lambda decision: 1 / 0, heard.append]
    for _ in range(2):
        desk.house.decide()
        desk.play()
        await asyncio.sleep(0)
    assert len(desk.runner.listeners) == 1
    assert sum(decision.record is not None for decision in heard) == 2
