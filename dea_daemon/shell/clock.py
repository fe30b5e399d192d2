"""The two clocks of the house. Nothing else in it asks the system for the time."""

import time


class Clock:
    """`now_ns` never steps; `utc_ns` is whatever the system says. Both int64 ns since 1970."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """UTC when this clock was made plus the monotonic time since: every event's `ts_recv_ns`."""
        return self._offset_ns + time.monotonic_ns()

    def utc_ns(self) -> int:
        """The wall clock: expiry, deadlines, what a venue will compare with its own."""
        return time.time_ns()
