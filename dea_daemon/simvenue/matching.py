"""One contract's order book: price first, then time, exactly.

Each level is a queue of client orders and anonymous background lots, interleaved as they came. Background
is set as an absolute amount: growth joins at the back, shrinkage leaves from the back (cancellations come
from behind us, the pessimistic reading of a recorded book). A change that trades returns its matches; the
caller exhausts them, and may cancel or cut any order between two of them.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from dea_daemon.domain.errors import check
from dea_daemon.domain.instruments import Side
from dea_daemon.simvenue.words import VenueOrder

Match = tuple[VenueOrder | None, int, int]  # the resting order (None: background), its price ticks, lots
Levels = tuple[tuple[int, int], ...]


class Entry:
    """A place in a level's queue; without an order it is background."""

    __slots__ = ("lots", "order", "side", "ticks")

    def __init__(self, lots: int, order: VenueOrder | None, side: Side, ticks: int) -> None:
        self.lots = lots
        self.order = order
        self.side = side
        self.ticks = ticks


class Level:
    """lots counts everything, background its anonymous part. The queue is empty while no client rests here:
    background alone needs no order of arrival, and most levels are that."""

    __slots__ = ("background", "clients", "lots", "queue")

    def __init__(self, background: int = 0) -> None:
        self.lots = background
        self.background = background
        self.clients = 0
        self.queue: deque[Entry] = deque()


class Half:
    """One side of a book. keys are sign times ticks, ascending, so the best is last on both sides."""

    __slots__ = ("changed", "keys", "levels", "side", "sign")

    def __init__(self, side: Side) -> None:
        self.side = side
        self.sign = side.sign
        self.keys: list[int] = []
        self.levels: dict[int, Level] = {}
        self.changed: set[int] = set()

    def level(self, ticks: int) -> Level:
        """The level at a price, made if absent."""
        level = self.levels.get(ticks)
        if level is None:
            level = self.levels[ticks] = Level()
            insort(self.keys, self.sign * ticks)
        return level

    def replace(self, levels: dict[int, int]) -> None:
        """Background at these prices and nowhere else; only while no client rests here."""
        self.changed.update(self.levels, levels)
        self.levels = {ticks: Level(lots) for ticks, lots in levels.items() if lots}
        self.keys = [self.sign * ticks for ticks in self.levels]
        self.keys.sort()

    def drop_if_empty(self, ticks: int, level: Level) -> None:
        if level.lots == 0:
            del self.levels[ticks]
            del self.keys[bisect_left(self.keys, self.sign * ticks)]

    def reached_by(self, limit_ticks: int) -> bool:
        """Whether an order of the other side limited at this price meets the best level."""
        return bool(self.keys) and self.keys[-1] >= self.sign * limit_ticks

    def top(self, depth: int | None) -> list[tuple[int, int]]:
        """(price ticks, lots), best first."""
        return [(key * self.sign, self.levels[key * self.sign].lots) for key in islice(reversed(self.keys), depth)]

    def take_changes(self) -> Levels:
        """Levels changed since last asked, with their lots now (0: gone), best first."""
        ordered = sorted(self.changed, reverse=self.sign > 0)
        self.changed = set()
        return tuple((t, self.levels[t].lots if t in self.levels else 0) for t in ordered)


class OrderBook:
    """FIFO queues of client orders and background, by price. Never crossed."""

    __slots__ = ("asks", "bids", "entries")

    def __init__(self) -> None:
        self.bids = Half(Side.BUY)
        self.asks = Half(Side.SELL)
        self.entries: dict[str, Entry] = {}

    def half(self, side: Side) -> Half:
        return self.bids if side is Side.BUY else self.asks

    def opposite(self, side: Side) -> Half:
        return self.asks if side is Side.BUY else self.bids

    def best(self, side: Side) -> int | None:
        """Best price ticks of a side, or None."""
        half = self.half(side)
        return half.keys[-1] * half.sign if half.keys else None

    def background(self, side: Side, ticks: int) -> int:
        """Anonymous lots at a price."""
        level = self.half(side).levels.get(ticks)
        return level.background if level is not None else 0

    def take_changes(self) -> tuple[Levels, Levels]:
        """Changed bids and asks since last asked."""
        return self.bids.take_changes(), self.asks.take_changes()

    # --- background ----------------------------------------------------------------------------------

    def set_level(self, side: Side, ticks: int, lots: int) -> Iterable[Match]:
        """Make the background at a price `lots`. Matches follow where it grew across client orders; where it
        crosses older background of the other side, that background is gone (a maker moved, nobody traded)."""
        half = self.bids if side is Side.BUY else self.asks
        level = half.levels.get(ticks)
        growth = lots if level is None else lots - level.background
        if growth > 0:
            if self.opposite(side).reached_by(ticks):
                return self._cross(side, ticks, growth)
            self._grow(half, ticks, growth)
        elif growth < 0 and level is not None:
            check(lots >= 0, f"negative background: {lots}")
            self._shrink(half, ticks, level, -growth)
        return ()

    def replace(self, bids: dict[int, int], asks: dict[int, int]) -> bool:
        """All background at once, lots by price, where that is nobody's trade. False, and nothing done, where a client
        rests or the new book is crossed: then level after level has to be set."""
        if self.entries or (bids and asks and not max(bids) < min(asks)):
            return False
        check(not bids or min(bids.values()) >= 0, "negative background")
        check(not asks or min(asks.values()) >= 0, "negative background")
        self.bids.replace(bids)
        self.asks.replace(asks)
        return True

    def _grow(self, half: Half, ticks: int, lots: int) -> None:
        level = half.level(ticks)
        level.lots += lots
        level.background += lots
        if level.queue:
            if level.queue[-1].order is None:
                level.queue[-1].lots += lots
            else:
                level.queue.append(Entry(lots, None, half.side, ticks))
        half.changed.add(ticks)

    def _shrink(self, half: Half, ticks: int, level: Level, lots: int) -> None:
        level.lots -= lots
        level.background -= lots
        if level.queue:
            for entry in reversed(level.queue):
                if entry.order is None:
                    cut = min(lots, entry.lots)
                    entry.lots -= cut
                    lots -= cut
            level.queue = deque(entry for entry in level.queue if entry.lots)
        half.drop_if_empty(ticks, level)
        half.changed.add(ticks)

    def _cross(self, side: Side, ticks: int, lots: int) -> Iterator[Match]:
        """New background meets client orders first; what is left joins its own level."""
        other = self.opposite(side)
        while lots and other.reached_by(ticks):
            best = other.keys[-1] * other.sign
            level = other.levels[best]
            if level.background:
                self._shrink(other, best, level, level.background)
                continue
            match = self._take_first(other, best, lots)
            lots -= match[2]
            yield match
        if lots:
            self._grow(self.half(side), ticks, lots)

    # --- trading -------------------------------------------------------------------------------------

    def sweep(self, side: Side, limit_ticks: int, lots: int) -> Iterator[Match]:
        """An aggressor of `side` takes up to `lots` at `limit_ticks` or better, first come first served."""
        other = self.opposite(side)
        while lots and other.reached_by(limit_ticks):
            match = self._take_first(other, other.keys[-1] * other.sign, lots)
            lots -= match[2]
            yield match

    def recorded_trade(self, side: Side, ticks: int, lots: int) -> Iterator[Match]:
        """A trade the record says happened at this price: fills the client orders it would have met.

        Orders of clients at better prices come first. Background in front of ours is passed by rejoining
        at the back, so that the displayed book stays the recorded one: depth messages alone change it, and
        may come before or after the trade they belong to.
        """
        other = self.opposite(side)
        met = {
            e.ticks for e in self.entries.values() if e.side is other.side and e.ticks * side.sign <= ticks * side.sign
        }
        for price in sorted(met, reverse=side is Side.SELL):
            level = other.levels.get(price)
            while lots and level is not None and level.clients:
                first = level.queue[0]
                if first.order is None:
                    passed = min(first.lots, lots) if price == ticks else first.lots
                    first.lots -= passed
                    self._rejoin(level, passed, other.side, price)
                    lots -= passed if price == ticks else 0
                    continue
                match = self._take_first(other, price, lots)
                lots -= match[2]
                yield match
                level = other.levels.get(price)

    def _rejoin(self, level: Level, lots: int, side: Side, ticks: int) -> None:
        if level.queue[0].lots == 0:
            level.queue.popleft()
        if level.queue[-1].order is None:
            level.queue[-1].lots += lots
        else:
            level.queue.append(Entry(lots, None, side, ticks))

    def _take_first(self, half: Half, ticks: int, lots: int) -> Match:
        """Up to `lots` from the head of a level's queue."""
        level = half.levels[ticks]
        order: VenueOrder | None = None
        if level.queue:
            first = level.queue[0]
            order = first.order
            taken = min(lots, first.lots)
            first.lots -= taken
            if first.lots == 0:
                level.queue.popleft()
                if order is not None:
                    self._forget(level, order)
        else:
            taken = min(lots, level.lots)
        level.lots -= taken
        level.background -= taken if order is None else 0
        half.drop_if_empty(ticks, level)
        half.changed.add(ticks)
        return order, ticks, taken

    def _forget(self, level: Level, order: VenueOrder) -> None:
        del self.entries[order.order_id]
        level.clients -= 1
        if level.clients == 0:
            level.queue.clear()

    def meets_own(self, side: Side, limit_ticks: int, lots: int, account: str, except_id: str = "") -> bool:
        """Whether a sweep would reach a resting order of the same account (other than `except_id`)."""
        other = self.opposite(side)
        for key in reversed(other.keys):
            if lots <= 0 or key < other.sign * limit_ticks:
                return False
            level = other.levels[key * other.sign]
            if level.clients == 0:
                lots -= level.lots
                continue
            for entry in level.queue:
                if lots <= 0:
                    return False
                if entry.order is not None and entry.order.account == account and entry.order.order_id != except_id:
                    return True
                lots -= entry.lots
        return False

    # --- client orders -------------------------------------------------------------------------------

    def join(self, order: VenueOrder) -> None:
        """Rest what is left of an order at the back of its level. It must not cross."""
        half = self.half(order.side)
        ticks = order.price_ticks
        check(not self.opposite(order.side).reached_by(ticks), f"{order.order_id} would rest across the book")
        level = half.level(ticks)
        if level.background and not level.queue:
            level.queue.append(Entry(level.background, None, order.side, ticks))
        entry = Entry(order.left_lots, order, order.side, ticks)
        level.queue.append(entry)
        level.lots += entry.lots
        level.clients += 1
        self.entries[order.order_id] = entry
        half.changed.add(ticks)

    def leave(self, order: VenueOrder) -> None:
        """Take a resting order out; nothing if it does not rest."""
        self.cut(order, 0)

    def cut(self, order: VenueOrder, lots: int) -> None:
        """Reduce a resting order to `lots`, keeping its place."""
        entry = self.entries.get(order.order_id)
        if entry is None:
            return
        half = self.half(entry.side)
        level = half.levels[entry.ticks]
        check(0 <= lots <= entry.lots, f"{order.order_id}: cannot cut {entry.lots} lots to {lots}")
        level.lots -= entry.lots - lots
        entry.lots = lots
        if lots == 0:
            level.queue.remove(entry)
            self._forget(level, order)
        half.drop_if_empty(entry.ticks, level)
        half.changed.add(entry.ticks)
