"""The engine and a venue in one process and one virtual time: what every backtest runs on."""

import time
from pathlib import Path

from dea_daemon.domain.decisions import NOTHING, Decision
from dea_daemon.domain.events import AnyEvent, DecisionDue, RunStarted
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.engine import begin, step
from dea_daemon.shell.stats import Stats
from dea_daemon.shell.tape import TapeHeader, TapeWriter
from dea_daemon.state.account import BookedFill
from dea_daemon.wiring.paper import PaperVenue

NEVER_NS = 1 << 62


class InProcess:
    """One run: events are folded, commands reach `paper`, its answers come back when they are due.

    Regular ticks come every `decide_every_ms`, or, without `regular`, only as the caller has them.
    """

    def __init__(
        self, started: RunStarted, paper: PaperVenue, tape: Path | None = None, *, regular: bool = True
    ) -> None:
        self.paper = paper
        self.stats = Stats()
        self.state, self.params = begin(started)
        self.fills: list[BookedFill] = []  # since somebody last emptied it
        self._regular = regular
        self._tick_ns = self._next_tick_ns(started.ts_recv_ns)
        self._last_tick_ns = 0
        self._wake: tuple[int, str, int] | None = None
        self._tape = TapeWriter(tape, TapeHeader.here(started.run_id)) if tape is not None else None
        if self._tape is not None:
            self._tape.event(started)

    def catch_up(self, now_ns: int) -> None:
        """Everything due up to now, in order: replies, early ticks, regular ticks."""
        while (due := self._next()) <= now_ns:
            if self.paper.next_ns() == due:
                for event in self.paper.run_until(due):
                    self.fold(event)
            elif self._wake is not None and self._wake[0] == due:
                self.tick(due, *self._wake[1:])
            else:
                self.tick(due, "timer")

    def _next(self) -> int:
        """When the next thing is due."""
        reply_ns = self.paper.next_ns()
        due_ns = self._tick_ns if reply_ns is None else min(self._tick_ns, reply_ns)
        return due_ns if self._wake is None else min(due_ns, self._wake[0])

    def _next_tick_ns(self, now_ns: int) -> int:
        return now_ns + self.params.decide_every_ms * NS_PER_MS if self._regular else NEVER_NS

    def tick(self, now_ns: int, cause: str, trigger_ns: int = 0) -> Decision:
        """A decision, now; the next regular one comes after `decide_every_ms`."""
        self._wake = None
        self._tick_ns = self._next_tick_ns(now_ns)
        self._last_tick_ns = now_ns
        return self.fold(DecisionDue(now_ns, now_ns, cause, trigger_ns))

    def fold(self, event: AnyEvent) -> Decision:
        """One step of the engine, as the live runner takes it: step, record, send."""
        if self._tape is not None:
            self._tape.event(event)
        before = time.perf_counter_ns() if isinstance(event, DecisionDue) else 0
        decision = step(self.state, event, self.params)
        self.stats.events += 1
        if self._tape is not None:
            self._tape.decision(decision)
        account = self.state.account
        if account.new_fills or account.orders.changed:
            self.stats.fills += len(account.new_fills)
            self.fills += account.new_fills
            account.new_fills.clear()
            account.orders.changed.clear()
        if decision is NOTHING:  # as of nearly all events
            return decision
        if isinstance(event, DecisionDue):
            after = time.perf_counter_ns()
            self.stats.decided(event, decision.commands, before, after, after)
        self.stats.observe(decision)
        for command in decision.commands:
            self.paper.send(command, event.ts_recv_ns)
        if decision.wake and self._wake is None:
            rate_ns = self.params.decide_at_most_every_ms * NS_PER_MS
            at_ns = max(event.ts_recv_ns, self._last_tick_ns + rate_ns)
            self._wake = (at_ns, decision.wake, event.ts_recv_ns)
        return decision

    def close(self) -> None:
        """The tape ends."""
        if self._tape is not None:
            self._tape.close()
