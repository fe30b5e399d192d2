"""What a run did, counted: the figures of `run.finished`."""

from collections import Counter, deque
from collections.abc import Iterable
from itertools import islice, pairwise

import numpy as np

from dea_daemon.domain.commands import Approved, CancelOrder, Outgoing
from dea_daemon.domain.decisions import Decision, DecisionRecord
from dea_daemon.domain.events import DecisionDue
from dea_daemon.shell.limit_text import BUDGETS

SAMPLES = 100_000
LEAVING = 1_000  # orders decided and not sent yet
NOT_OURS = BUDGETS | {"depeg"}  # budgets end at their bound by design, and a stablecoin's price is nobody's breach


class Stats:
    """Counters and latency samples, ns. Stages of an order: trigger → tick → decided → committed → sent."""

    def __init__(self) -> None:
        self.events = 0
        self.decisions = 0
        self.orders_sent = 0
        self.cancels_sent = 0
        self.fills = 0
        self.limits_breached = 0
        self.notes: Counter[str] = Counter()
        self.decision_ns: deque[int] = deque(maxlen=SAMPLES)
        self.stages_ns: deque[tuple[int, int, int, int]] = deque(maxlen=SAMPLES)
        self.last: DecisionRecord | None = None
        self._leaving: dict[str, tuple[int, int, int, int]] = {}

    def observe(self, decision: Decision) -> None:
        self.notes.update(note.event for note in decision.notes)
        record = decision.record
        if record is None:
            return
        self.decisions += 1
        self.last = record
        # NaN is no breach: what cannot be measured (the venue is gone) stops orders, and is told by them.
        self.limits_breached += sum(u.limit not in NOT_OURS and u.used > u.allowed for u in record.uses)

    def decided(
        self, due: DecisionDue, sendable: Iterable[Outgoing], before_ns: int, decided_ns: int, committed_ns: int
    ) -> None:
        """Times of one decision, and of each order it sends."""
        self.decision_ns.append(decided_ns - before_ns)
        trigger_ns = due.trigger_recv_ns or due.ts_recv_ns
        for command in sendable:
            if isinstance(command, Approved):
                self.orders_sent += 1
                stages = (trigger_ns, before_ns, decided_ns, committed_ns)
                self._leaving[command.order.client_order_id] = stages
                if len(self._leaving) > LEAVING:  # what was never sent
                    del self._leaving[next(iter(self._leaving))]
            elif isinstance(command, CancelOrder):
                self.cancels_sent += 1

    def sent(self, client_order_id: str, sent_ns: int) -> None:
        """The order's bytes are being written."""
        stages = self._leaving.pop(client_order_id, None)
        if stages is not None:
            marks = (*stages, sent_ns)
            wait, decide, commit, send = (later - earlier for earlier, later in pairwise(marks))
            self.stages_ns.append((wait, decide, commit, send))

    def latencies(self, last: int = SAMPLES) -> dict[str, dict[str, float]]:
        """p50 and p99 in µs of a decision, of trigger to bytes, and of each stage in between; of the last so many."""
        stages = np.array(list(islice(reversed(self.stages_ns), last)), dtype=np.float64).reshape(-1, 4)
        decisions = np.array(list(islice(reversed(self.decision_ns), last)), dtype=np.float64)
        names = ("wait_us", "decide_us", "commit_us", "send_us")
        return {
            "decision_us": percentiles(decisions),
            "event_to_order_us": percentiles(stages.sum(axis=1)),
            **{name: percentiles(stages[:, k]) for k, name in enumerate(names)},
        }


def percentiles(samples_ns: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> dict[str, float]:
    """{p50, p99} in µs; NaN without samples."""
    if not len(samples_ns):
        return {"p50": float("nan"), "p99": float("nan")}
    p50, p99 = np.percentile(samples_ns, (50, 99)) / 1_000
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}
