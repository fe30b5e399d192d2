"""Slow factors in the core: what was told, what of it is believed, and how far it is from its own past.

A value counts from the moment it has been received *and* published, never from the time it is about; a restatement
changes nothing that came before it. One out of bounds is refused; so is one that jumped, until the next agrees with it.
From the second refusal in a row on each doubles what is usual, so that no factor stays dark for good.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping
from math import sqrt

import numpy as np

from dea_daemon.domain.decisions import NO_FACTORS, Slow
from dea_daemon.domain.events import FactorObserved
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.domain.parameters import SlowFactor
from dea_daemon.state.effects import Effects

KEPT = 1_500  # values of one factor: four years of days
LEAST = 30  # values, or changes, before a deviation means something
STILL = 1e-4  # of its level: a change that is usual even of a factor that never moved
FADING = 250.0  # changes that the usual one is the mean of
WAITING = 64  # values of one factor that were told before their publication
Z_MOST = 5.0


class SlowFactors:
    """All factors of the configuration; `fold` is the only writer."""

    def __init__(self, specs: Mapping[str, SlowFactor]) -> None:
        self.names = tuple(sorted(specs))
        self._of = {name: _Past(specs[name]) for name in self.names}
        self._half_life_days = np.array([specs[name].half_life_days for name in self.names])
        self._stale_days = np.array([specs[name].stale_days for name in self.names])
        self._waiting: dict[str, list[FactorObserved]] = {name: [] for name in self.names}
        self._z = np.zeros(0)
        self._event_ns = np.zeros(0, dtype=np.int64)
        self._known = np.zeros(0, dtype=np.bool_)
        self._changed = True

    def fold(self, event: FactorObserved, effects: Effects) -> None:
        """Take what is public; what is not yet waits until it is. A name nobody configured is nobody's business."""
        if event.name not in self._of:
            return
        if event.publish_ns <= event.ts_recv_ns:
            self._take(event, event.ts_recv_ns, effects)
            return
        waiting = self._waiting[event.name]
        if len(waiting) < WAITING:
            insort(waiting, event, key=lambda told: told.publish_ns)
        else:
            effects.note(
                "factor.refused", factor=event.name, value=event.value, why="too many before their publication"
            )

    def at(self, utc_ns: int, effects: Effects) -> Slow:
        """What is known of each factor at this moment of the wall clock."""
        if not self.names:
            return NO_FACTORS
        for waiting in self._waiting.values():
            while waiting and waiting[0].publish_ns <= utc_ns:
                self._take(waiting.pop(0), utc_ns, effects)
        if self._changed:
            self._refresh()
        age_days = np.where(self._known, (utc_ns - self._event_ns) / NS_PER_DAY, np.inf)
        valid = self._known & (age_days <= self._stale_days)
        z = np.where(valid, self._z * np.exp2(-np.maximum(age_days, 0.0) / self._half_life_days), 0.0)
        for array in (z, age_days, valid):
            array.setflags(write=False)
        return Slow(self.names, z, age_days, valid)

    def _take(self, event: FactorObserved, now_ns: int, effects: Effects) -> None:
        """Believe it, or say why not; of what is long past nothing is said. `now_ns`: of its receipt or, where it had
        to wait, of the tick, whose wall clock may have been set forward since."""
        past = self._of[event.name]
        before = past.value.get(event.event_ns)
        why = past.take(event, now_ns)
        self._changed = True
        if event.ts_recv_ns - event.event_ns > past.spec.stale_days * NS_PER_DAY:
            return
        if why:
            effects.note("factor.refused", factor=event.name, value=event.value, about_ns=event.event_ns, why=why)
        elif before is not None and before != past.value.get(event.event_ns):
            effects.note(
                "factor.restated", factor=event.name, about_ns=event.event_ns, before=before, after=event.value
            )

    def _refresh(self) -> None:
        told = [past.deviation() for past in self._of.values()]
        self._known = np.isfinite(told)
        self._z = np.where(self._known, told, 0.0)
        self._event_ns = np.array([past.at_ns[-1] if past.at_ns else 0 for past in self._of.values()], dtype=np.int64)
        self._changed = False


class _Past:
    """The last values of one factor, by the time they are about, each as it was last restated."""

    def __init__(self, spec: SlowFactor) -> None:
        self.spec = spec
        self.at_ns: list[int] = []  # in order
        self.value: dict[int, float] = {}
        self._revision: dict[int, int] = {}
        self._changes, self._square = 0, 0.0  # how many, and the mean of their squares
        self._suspect: FactorObserved | None = None
        self._deviation: float | None = None  # until something changes

    def take(self, event: FactorObserved, now_ns: int) -> str:
        """Add or restate it. Returns why it was not believed, or ""."""
        self._deviation = None
        if event.event_ns > now_ns:
            return "from the future"
        if event.event_ns in self.value:
            return self._restate(event)
        if event.value != event.value or (len(self.at_ns) >= KEPT and event.event_ns < self.at_ns[0]):
            return ""  # there is none, or it is older than all that is kept
        if why := self._out_of_bounds(event.value):
            return why
        return self._add(event) if not self.at_ns or event.event_ns > self.at_ns[-1] else self._add_between(event)

    def _add(self, event: FactorObserved) -> str:
        """The newest. After a jump the next decides: it agrees with what jumped, with what was before, or with neither;
        then more is usual than was known."""
        suspect, self._suspect = self._suspect, None
        if self.at_ns:
            change = event.value - self.value[self.at_ns[-1]]
            if self._far(change):
                if suspect is None or self._far(event.value - suspect.value):
                    usual = self._usual()
                    if suspect is not None:
                        self._square = (2.0 * (usual or STILL * abs(change))) ** 2
                    self._suspect = event
                    return f"jumped by {change:.6g}, usually {usual:.3g}"
                self._put(suspect)
            else:
                self._changes += 1
                self._square += (change * change - self._square) / min(float(self._changes), FADING)
        self._put(event)
        return ""

    def _add_between(self, event: FactorObserved) -> str:
        """One that comes late, behind a newer."""
        before = bisect_left(self.at_ns, event.event_ns) - 1
        if before >= 0 and self._far(event.value - self.value[self.at_ns[before]]):
            return "jumped, and the next did not"
        self._put(event)
        return ""

    def _restate(self, event: FactorObserved) -> str:
        """A later word about the same time; NaN takes the value back."""
        if event.revision <= self._revision[event.event_ns]:
            return ""
        if event.value != event.value:
            self.at_ns.remove(event.event_ns)
            del self.value[event.event_ns], self._revision[event.event_ns]
            return ""
        if why := self._out_of_bounds(event.value):
            return why
        if self._far(event.value - self.value[event.event_ns]):
            return f"restated by {event.value - self.value[event.event_ns]:.6g}, a jump"
        self._put(event)
        return ""

    def _put(self, event: FactorObserved) -> None:
        if event.event_ns not in self.value:
            insort(self.at_ns, event.event_ns)
        self.value[event.event_ns] = event.value
        self._revision[event.event_ns] = event.revision
        if len(self.at_ns) > KEPT:
            oldest = self.at_ns.pop(0)
            del self.value[oldest], self._revision[oldest]

    def _out_of_bounds(self, value: float) -> str:
        lowest, highest = self.spec.lowest, self.spec.highest
        inside = abs(value) < np.inf and (lowest is None or value >= lowest) and (highest is None or value <= highest)
        return "" if inside else "out of bounds"

    def _far(self, change: float) -> bool:
        """Whether a change is beyond what is usual, once it is known what is."""
        return self._changes >= LEAST and not abs(change) <= self.spec.jump_sd * self._usual()

    def _usual(self) -> float:
        """The usual change, or a little of the level, whichever is more."""
        return max(sqrt(self._square), STILL * abs(self.value[self.at_ns[-1]]) if self.at_ns else 0.0)

    def deviation(self) -> float:
        """The newest value in standard deviations of those before it; NaN where they are too few, or all the same."""
        if self._deviation is None:
            self._deviation = self._measured()
        return self._deviation

    def _measured(self) -> float:
        if len(self.at_ns) <= LEAST:
            return float("nan")
        values = np.array([self.value[at_ns] for at_ns in self.at_ns])
        spread = float(values[:-1].std(ddof=1))
        if not spread > 1e-12 * float(np.abs(values).max()):
            return float("nan")
        return float(np.clip((values[-1] - values[:-1].mean()) / spread, -Z_MOST, Z_MOST))
