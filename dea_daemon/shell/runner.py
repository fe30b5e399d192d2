"""The daemon's heartbeat: events in, one `step` each, the decision recorded, then sent.

Events are folded the moment they are emitted, in the emitting task: there is no queue to overflow but the
sockets' own, whose bound pushes back on the venue. The runner has no policy; it keeps this order:
tape, step, ledger, send.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable

import msgspec
import numpy as np
import structlog

from dea_daemon.domain.commands import Approved, Outgoing
from dea_daemon.domain.decisions import NOTHING, Decision, DecisionRecord
from dea_daemon.domain.errors import LedgerError
from dea_daemon.domain.events import (
    AccountReported,
    AnyEvent,
    CreateRefused,
    DecisionDue,
    Operator,
    OperatorSpoke,
    ParametersReloaded,
    RecordFailed,
    RecordRestored,
    RunStarted,
)
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_MS
from dea_daemon.domain.parameters import Parameters
from dea_daemon.engine import begin, reload, step
from dea_daemon.shell.clock import Clock
from dea_daemon.shell.ledger import Batch, Ledger
from dea_daemon.shell.logs import log_decision, log_note
from dea_daemon.shell.recovery import KEPT
from dea_daemon.shell.stats import Stats
from dea_daemon.shell.tape import TapeWriter

log = structlog.get_logger()
HELD = frozenset({"mode.changed", "forecaster.promoted", "forecaster.demoted"})
# A report that said one of these moved positions without a fill: a statement must know.
TAKEN_OVER = frozenset({"account.adopted", "account.drift_confirmed"})


class Runner:
    """One run of the engine. `send` takes every command a decision lets out; it must not wait.

    `failed` is set by an error that ends the run: a contradiction in our own accounts, or a bug.
    """

    def __init__(
        self,
        started: RunStarted,
        send: Callable[[Outgoing], None],
        *,
        clock: Clock,
        ledger: Ledger | None = None,
        tape: TapeWriter | None = None,
    ) -> None:
        self.state, self.params = begin(started)
        self.stats = Stats()
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._send = send
        self._clock = clock
        self._ledger, self._tape = ledger, tape
        self.listeners: list[Callable[[Decision], None]] = []  # told of a decision once it has been sent
        self._batch = Batch()
        self._inbox: deque[AnyEvent] = deque()
        self._folding = False
        self._last_tick_ns = 0
        self._early: asyncio.TimerHandle | None = None
        self._told_clips: frozenset[tuple[str, str]] = frozenset()
        self._told_stood: tuple[object, ...] = ()
        if tape is not None:
            tape.event(started)

    # --- in --------------------------------------------------------------------------------------

    def emit(self, events: Iterable[AnyEvent]) -> None:
        """Fold events now; those emitted while others are folded come after them. Never raises."""
        self._inbox.extend(events)
        if self._folding or self.failed.done():
            return
        self._folding = True
        try:
            while self._inbox:
                self._fold(self._inbox.popleft())
        except Exception as error:  # noqa: BLE001 the emitting socket is not to blame: the run ends
            if not self.failed.done():
                self.failed.set_exception(error)
        finally:
            self._folding = False

    def operator(self, command: Operator, who: str, why: str) -> None:
        """The operator's word, folded now."""
        self.emit([OperatorSpoke(self._clock.now_ns(), command, who, why)])

    def reload(self, params: Parameters, who: str, changed: tuple[str, ...]) -> None:
        """Step with these parameters from now on. They are in the ledger with the next decision."""
        self.emit([ParametersReloaded(self._clock.now_ns(), params.model_dump_json(), who, changed)])

    async def tick_forever(self) -> None:
        """The regular DecisionDue. Raises what ended the run."""
        while True:
            done, _ = await asyncio.wait({self.failed}, timeout=self.params.decide_every_ms / 1_000)
            if done:
                self.failed.result()
            # An early tick puts the regular one off.
            if self._clock.now_ns() - self._last_tick_ns >= self.params.decide_every_ms * NS_PER_MS // 2:
                self._tick("timer", 0)

    def _tick(self, cause: str, trigger_recv_ns: int) -> None:
        self._last_tick_ns = self._clock.now_ns()
        self.emit([DecisionDue(self._last_tick_ns, self._clock.utc_ns(), cause, trigger_recv_ns)])

    def _wake(self, cause: str, trigger_recv_ns: int) -> None:
        """An early tick: at once, or as soon as the rate limit allows."""
        if self._early is not None:
            return
        wait_ns = self._last_tick_ns + self.params.decide_at_most_every_ms * NS_PER_MS - self._clock.now_ns()
        if wait_ns <= 0:
            self._tick(cause, trigger_recv_ns)
            return

        def due() -> None:
            self._early = None
            self._tick(cause, trigger_recv_ns)

        self._early = self._loop.call_later(wait_ns / 1e9, due)

    # --- one event -------------------------------------------------------------------------------

    def _fold(self, event: AnyEvent) -> None:
        if self._tape is not None:
            self._tape.event(event)
        before_ns = self._clock.now_ns() if isinstance(event, DecisionDue) else 0
        if isinstance(event, ParametersReloaded):
            self.params = reload(self.state, event)
            self._batch.parameters = event.parameters
        decision = step(self.state, event, self.params)
        self.stats.events += 1
        if decision is NOTHING:
            return
        if isinstance(event, AccountReported) and any(note.event in TAKEN_OVER for note in decision.notes):
            self._batch.adopted[event.account] = event
        if self._tape is not None:
            self._tape.decision(decision)
        self.stats.observe(decision)
        sendable = decision.commands
        if isinstance(event, DecisionDue):
            decided_ns = self._clock.now_ns()
            sendable = self._record(decision)
            self.stats.decided(event, sendable, before_ns, decided_ns, self._clock.now_ns())
        elif any(note.event in HELD for note in decision.notes):
            self._record(decision)  # a halt holds after a crash, too
        for command in sendable:
            self._send(command)
        # Later, behind the orders' own first steps: to write these lines takes a tenth of a decision.
        self._loop.call_soon(self._tell, decision)
        if decision.wake:
            self._wake(decision.wake, event.ts_recv_ns)

    def _record(self, decision: Decision) -> tuple[Outgoing, ...]:
        """Commit what the decision rests on and asks for. What may be sent: without a record, no create."""
        record, batch, account = decision.record, self._batch, self.state.account
        if record is not None and self._worth_keeping(record):
            batch.decisions.append(record)
        intents = {c.order.client_order_id for c in decision.commands if isinstance(c, Approved)}
        batch.intents += [account.orders.own[key] for key in sorted(intents)]
        for key in account.orders.changed - intents:
            batch.orders[key] = account.orders.own[key]
        account.orders.changed.clear()
        batch.fills += account.new_fills
        self.stats.fills += len(account.new_fills)
        account.new_fills.clear()
        batch.settlements += account.deliveries.new
        account.deliveries.new.clear()
        for note in decision.notes:
            if note.event == "mode.changed":
                batch.modes.append((Mode[str(note.fields["after"]).upper()], str(note.fields["why"])))
            elif note.event == "order.measured":
                batch.measured.append(note.fields)
        if (record is not None and record.contenders) or any(note.event in HELD for note in decision.notes):
            batch.checkpoints[KEPT] = msgspec.msgpack.encode(self.state.memory.forecast.trial.kept)
        ledger_due = self._ledger is not None and self._ledger.wants_pools(self._clock.now_ns())
        if batch or ledger_due:
            batch.pools |= account.pools
            batch.marks |= self._option_marks()
            batch.peak_equity_usd = account.peak_equity_usd
            batch.day, batch.day_equity_usd = account.day, account.day_equity_usd
        try:
            if self._ledger is not None:
                self._ledger.write(batch, self.state.market.universe, self._clock.now_ns())
            else:
                batch.clear()
        except LedgerError as error:
            return self._unrecorded(decision, str(error))
        if not account.recording:
            self._inbox.append(RecordRestored(self._clock.now_ns()))
        return decision.commands

    def close_books(self) -> None:
        """The run's last figures of cash, for its statement. A ledger that fails now loses only those."""
        self._batch.closing = True
        self._batch.pools |= self.state.account.pools
        self._batch.marks |= self._option_marks()
        if self._ledger is not None:
            with contextlib.suppress(LedgerError):
                self._ledger.write(self._batch, self.state.market.universe, self._clock.now_ns())

    def _option_marks(self) -> dict[int, float]:
        """Of the options held: what they are worth is part of equity, and no fill tells it."""
        market, account = self.state.market, self.state.account
        rows = np.flatnonzero(market.universe.option & (account.position_lots != 0)).tolist()
        return {row: float(market.mark[row]) for row in rows}

    def _unrecorded(self, decision: Decision, why: str) -> tuple[Outgoing, ...]:
        """The ledger failed: creates do not leave, all else does."""
        now_ns = self._clock.now_ns()
        for command in decision.commands:
            if isinstance(command, Approved):
                self._inbox.append(CreateRefused(now_ns, command.order.client_order_id, False, "not recorded"))
        if self.state.account.recording:
            self._inbox.append(RecordFailed(now_ns, why))
        return tuple(c for c in decision.commands if not isinstance(c, Approved))

    def _worth_keeping(self, record: DecisionRecord) -> bool:
        """Whether a decision goes into the ledger: it acted, it is clipped in a way the last was not, or a forecaster
        stands otherwise than it did; the forecasters' words at least once a day."""
        clips = frozenset((clip.limit, clip.subject) for clip in record.clips)
        stood = (record.utc_ns // NS_PER_DAY, *((one.name, one.state, one.weight) for one in record.contenders))
        news = clips != self._told_clips or (bool(record.contenders) and stood != self._told_stood)
        self._told_clips, self._told_stood = clips, stood if record.contenders else self._told_stood
        return bool(news or record.orders or record.notes)

    # --- out -------------------------------------------------------------------------------------

    def _tell(self, decision: Decision) -> None:
        """Notes and the decision's own line into the log."""
        for note in decision.notes:
            log_note(note)
        if decision.record is not None:
            log_decision(decision.record)
        for listener in tuple(self.listeners):
            try:
                listener(decision)
            except Exception:
                log.exception("listener.failed", listener=repr(listener))
                self.listeners.remove(listener)
