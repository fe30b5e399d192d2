"""One row's order book, and the rules that say when it may be believed.

A delta says which change it follows, so a hole in the stream is seen at the next message. Anything that
cannot be explained (a hole, a crossed book, a number that is none) empties the book: it stays unusable until
a snapshot, and no level from before survives. Deltas that arrive meanwhile are kept, for a snapshot may come
after the delta that bridges it (Binance).
"""

from bisect import bisect_left, insort
from collections import deque
from enum import Enum

import numpy as np

from dea_daemon.domain.events import BookDelta, BookSnapshot, Level
from dea_daemon.domain.instruments import FloatArray

BUFFERED_DELTAS_MAX = 1_024  # ten seconds of a busy book; the oldest go first, and then the bridge fails
_INF = float("inf")
_NAN = float("nan")


class Change(Enum):
    """What one message did to a book."""

    APPLIED = "applied"
    IGNORED = "ignored"  # old news: a duplicate, a reordering, a snapshot the stream has overtaken
    BUFFERED = "buffered"  # unusable, and waiting for a snapshot
    GAP = "gap"  # unusable from here on: ask for a snapshot


class Side:
    """Price levels of one side. `sign` +1 for bids, -1 for asks: the best level is last in `keys`."""

    __slots__ = ("amounts", "keys", "sign")

    def __init__(self, sign: float) -> None:
        self.sign = sign
        self.keys: list[float] = []  # sign * price, ascending
        self.amounts: dict[float, float] = {}  # by price

    def clear(self) -> None:
        self.keys.clear()
        self.amounts.clear()

    def apply(self, levels: list[Level]) -> bool:
        """Set each level's amount; False at the first number that is not a positive price and an amount."""
        keys, amounts, sign = self.keys, self.amounts, self.sign
        for price, amount in levels:
            if 0.0 < amount < _INF:
                if price not in amounts:
                    if not 0.0 < price < _INF:
                        return False
                    insort(keys, sign * price)
                amounts[price] = amount
            elif amount == 0.0:
                if price in amounts:
                    del amounts[price]
                    del keys[bisect_left(keys, sign * price)]
            else:
                return False
        return True

    def top(self, n: int) -> FloatArray:
        """[m, 2] price and amount of the best m ≤ n levels, best first."""
        prices = [self.sign * key for key in self.keys[: -n - 1 : -1]]
        return np.array([(price, self.amounts[price]) for price in prices], dtype=np.float64).reshape(-1, 2)


class Book:
    """A synchronised book. Prices in quote currency, amounts in the venue's unit.

    `last` is the number of the last change held, `ts_event_ns` the venue's time of it, `ts_recv_ns` ours.
    """

    __slots__ = ("_fresh", "_waiting", "asks", "bids", "last", "ts_event_ns", "ts_recv_ns", "usable")

    def __init__(self) -> None:
        self.bids = Side(1.0)
        self.asks = Side(-1.0)
        self._waiting: deque[BookDelta] = deque(maxlen=BUFFERED_DELTAS_MAX)
        self.close()

    def close(self) -> None:
        """Forget everything: the stream it came from is gone."""
        self.usable = False
        self._fresh = False  # no delta has been applied since the snapshot
        self.last = 0
        self.ts_event_ns = 0
        self.ts_recv_ns = 0
        self.bids.clear()
        self.asks.clear()
        self._waiting.clear()

    def apply(self, event: BookSnapshot | BookDelta) -> Change:
        """Take one message in. Never raises on what a venue may send."""
        if isinstance(event, BookSnapshot):
            return self._snapshot(event)
        if not self.usable:
            self._waiting.append(event)
            return Change.BUFFERED
        change = self._delta(event)
        if change is Change.GAP:
            self.close()
            self._waiting.append(event)
        return change

    def best(self) -> tuple[float, float, float, float]:
        """bid, bid_amount, ask, ask_amount; a side that is empty or not to be believed is NaN, 0."""
        bids, asks = self.bids, self.asks
        bid = bids.keys[-1] if bids.keys else _NAN
        ask = -asks.keys[-1] if asks.keys else _NAN
        return bid, bids.amounts.get(bid, 0.0), ask, asks.amounts.get(ask, 0.0)

    def top(self, n: int) -> tuple[FloatArray, FloatArray]:
        """Bids and asks, each [m ≤ n, 2] of price and amount, best first."""
        return self.bids.top(n), self.asks.top(n)

    def _delta(self, event: BookDelta) -> Change:
        last = self.last
        if event.last <= last:
            # Old by its number. If it is new by the venue's own clock, the numbering began again.
            return Change.GAP if event.ts_event_ns > self.ts_event_ns else Change.IGNORED
        # The first after a snapshot may also straddle it: first ≤ last + 1 ≤ event.last.
        if event.previous != last and not (self._fresh and event.first <= last + 1):
            return Change.GAP
        if not (self.bids.apply(event.bids) and self.asks.apply(event.asks)) or self._crossed():
            return Change.GAP
        self._fresh = False
        self._stamp(event.last, event)
        return Change.APPLIED

    def _snapshot(self, event: BookSnapshot) -> Change:
        if self.usable and event.sequence < self.last and event.ts_event_ns <= self.ts_event_ns:
            return Change.IGNORED
        # Out of order they may have come: by number they are in order again.
        waiting = sorted(self._waiting, key=lambda delta: delta.last)
        self.close()
        if not (self.bids.apply(event.bids) and self.asks.apply(event.asks)) or self._crossed():
            return self._broken()
        self.usable = self._fresh = True
        self._stamp(event.sequence, event)
        for delta in waiting:
            if delta.last > self.last and self._delta(delta) is Change.GAP:
                return self._broken()
        return Change.APPLIED

    def _broken(self) -> Change:
        """This snapshot did not do: the next one finds its own bridge among the deltas still to come."""
        self.close()
        return Change.GAP

    def _stamp(self, last: int, event: BookSnapshot | BookDelta) -> None:
        self.last = last
        self.ts_event_ns = event.ts_event_ns
        self.ts_recv_ns = event.ts_recv_ns

    def _crossed(self) -> bool:
        bids, asks = self.bids.keys, self.asks.keys
        return bool(bids and asks) and bids[-1] >= -asks[-1]
