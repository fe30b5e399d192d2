"""Sums over a rolling stretch of time, and columns that grow with the universe."""

from collections import deque
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

NEVER = -(1 << 62)  # a receipt time that is always too old
T = TypeVar("T", bound=np.generic)


def lengthened(column: npt.NDArray[T], n: int, value: Any) -> npt.NDArray[T]:
    """The column with as many more `value` at its end as make it [n]."""
    return np.concatenate((column, np.full(n - len(column), value, dtype=column.dtype)))


class RollingSum:
    """Sum of amounts added within the last `span_ns`; one entry a second at most, so it stays small."""

    __slots__ = ("_entries", "_grain_ns", "_span_ns", "total")

    def __init__(self, span_ns: int) -> None:
        self._span_ns = span_ns
        self._grain_ns = span_ns // 3_600
        self._entries: deque[tuple[int, float]] = deque()
        self.total = 0.0

    def add(self, now_ns: int, amount: float) -> None:
        if self._entries and now_ns - self._entries[-1][0] < self._grain_ns:
            then, sofar = self._entries[-1]
            self._entries[-1] = (then, sofar + amount)
        else:
            self._entries.append((now_ns, amount))
        self.total += amount

    def prune(self, now_ns: int) -> None:
        """Forget what is older than the span (late by up to one grain, never early)."""
        oldest_ns = now_ns - self._span_ns - self._grain_ns
        if not self._entries or self._entries[0][0] >= oldest_ns:
            return
        while self._entries and self._entries[0][0] < oldest_ns:
            self._entries.popleft()
        # Summed anew: adding and subtracting floats for days would drift.
        self.total = sum(amount for _, amount in self._entries)
