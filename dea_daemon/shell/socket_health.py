"""How one socket fares: counters the reader keeps, and what a look once a second makes of them."""

import statistics
from collections import deque
from typing import Any

from dea_daemon.domain.events import AnyEvent
from dea_daemon.domain.numbers import NS_PER_MS, NS_PER_S

RATE_SAMPLES = 10  # looks that a rate spans
OFFSET_SAMPLES = 60  # looks that the offset's median is taken over


class SocketHealth:
    """Counters of one socket since start. `last_recv_ns` is our clock, 0 before the first message.

    `gaps` counts books that the core had and asked for again: a hole, a wrong checksum, a crossed book.
    `last_event` is the newest event handed on; the reader only leaves it here, `look` does the arithmetic.
    """

    __slots__ = (
        "_looks", "_offsets_ms", "_seen", "bytes", "connects", "gaps", "last_error", "last_event", "last_recv_ns",
        "messages", "refused",
    )  # fmt: skip

    def __init__(self) -> None:
        self.connects = 0
        self.messages = 0
        self.bytes = 0
        self.refused = 0
        self.gaps = 0
        self.last_recv_ns = 0
        self.last_error = ""
        self.last_event: AnyEvent | None = None
        self._seen: AnyEvent | None = None
        self._looks: deque[tuple[int, int]] = deque(maxlen=RATE_SAMPLES)  # our clock in ns, messages till then
        self._offsets_ms: deque[float] = deque(maxlen=OFFSET_SAMPLES)

    def look(self, now_ns: int) -> None:
        """Take a sample. About once a second; the more seldom, the wider the window of the rate."""
        self._looks.append((now_ns, self.messages))
        event = self.last_event
        # The same event again tells nothing new, and heartbeats carry no time of the venue's.
        if event is not None and event is not self._seen and (event_ns := getattr(event, "ts_event_ns", 0)):
            self._offsets_ms.append((event.ts_recv_ns - event_ns) / NS_PER_MS)
        self._seen = event

    @property
    def offset_ms(self) -> float | None:
        """Our receipt time less the venue's own, the median of the last minute: delay and both clocks' error."""
        return statistics.median(self._offsets_ms) if self._offsets_ms else None

    def rate_per_s(self, now_ns: int) -> float:
        """Messages a second over the last ten looks; 0 before the first."""
        if not self._looks:
            return 0.0
        since_ns, before = self._looks[0]
        return (self.messages - before) * NS_PER_S / max(now_ns - since_ns, 1)

    def line(self, now_ns: int) -> dict[str, Any]:
        """As JSON: seconds, bytes, messages a second, ms; None where nothing is known yet."""
        return {
            "age_s": (now_ns - self.last_recv_ns) / NS_PER_S if self.last_recv_ns else None,
            "messages": self.messages,
            "bytes": self.bytes,
            "rate_per_s": self.rate_per_s(now_ns),
            "connects": self.connects,
            "refused": self.refused,
            "gaps": self.gaps,
            "offset_ms": self.offset_ms,
            "last_error": self.last_error,
        }
