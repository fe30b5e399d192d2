"""The venue's memory of orders and fills, with a venue's retention: 30 minutes and 24 hours."""

from collections import defaultdict, deque
from collections.abc import Iterator
from copy import copy

from dea_daemon.domain.instruments import Side
from dea_daemon.simvenue.words import Refused, VenueFill, VenueOrder

CLOSED_KEPT_NS = 30 * 60 * 1_000_000_000
FILLS_KEPT_NS = 24 * 3_600 * 1_000_000_000


class Orders:
    """Orders by id, account and label. What leaves here is a copy; the live order stays the venue's own."""

    def __init__(self) -> None:
        self._by_id: dict[str, VenueOrder] = {}
        self._open: dict[str, dict[str, VenueOrder]] = defaultdict(dict)
        self._closed: dict[str, deque[VenueOrder]] = defaultdict(deque)
        self._by_label: dict[tuple[str, str], list[VenueOrder]] = defaultdict(list)
        self._fills: dict[str, deque[VenueFill]] = defaultdict(deque)

    def add(self, order: VenueOrder) -> None:
        self._by_id[order.order_id] = order
        self._open[order.account][order.order_id] = order
        if order.label:
            self._by_label[order.account, order.label].append(order)

    def close(self, order: VenueOrder, state: str, reason: str = "") -> None:
        """End an order; it stays readable for the retention."""
        order.state = state
        order.cancel_reason = reason
        del self._open[order.account][order.order_id]
        self._closed[order.account].append(order)

    def get(self, account: str, order_id: str) -> VenueOrder:
        """The live order. Refused: order_not_found (also another account's, or forgotten)."""
        order = self._by_id.get(order_id)
        if order is None or order.account != account:
            raise Refused("order_not_found", order_id)
        return order

    def open(self, account: str, instrument: str | None = None) -> Iterator[VenueOrder]:
        """Live open orders, oldest first."""
        orders = list(self._open[account].values())
        return (order for order in orders if instrument is None or order.instrument == instrument)

    def open_count(self, account: str) -> int:
        return len(self._open[account])

    def all_open(self, instrument: str) -> list[VenueOrder]:
        """Live open orders of every account in one instrument."""
        return [o for orders in self._open.values() for o in orders.values() if o.instrument == instrument]

    def working(self, account: str, except_id: str = "") -> dict[str, tuple[int, int]]:
        """By instrument, lots left to buy and to sell."""
        sums: dict[str, tuple[int, int]] = {}
        for order in self._open[account].values():
            if order.order_id != except_id:
                buys, sells = sums.get(order.instrument, (0, 0))
                left = order.left_lots
                sums[order.instrument] = (buys + left, sells) if order.side is Side.BUY else (buys, sells + left)
        return sums

    def buys(self, account: str, except_id: str = "") -> dict[str, float]:
        """By instrument, lots left to buy times their price in ticks."""
        sums: dict[str, float] = {}
        for order in self._open[account].values():
            if order.side is Side.BUY and order.order_id != except_id:
                sums[order.instrument] = sums.get(order.instrument, 0.0) + order.left_lots * order.price_ticks
        return sums

    def by_label(self, account: str, label: str) -> list[VenueOrder]:
        return [copy(order) for order in self._by_label.get((account, label), ())]

    def history(self, account: str) -> list[VenueOrder]:
        """Closed ones, newest first."""
        return [copy(order) for order in reversed(self._closed[account])]

    def record(self, fill: VenueFill) -> None:
        self._fills[fill.account].append(fill)

    def fills(self, account: str, instrument: str | None, since_ns: int, until_ns: int | None) -> list[VenueFill]:
        return [
            fill
            for fill in self._fills[account]
            if fill.ts_ns >= since_ns
            and (until_ns is None or fill.ts_ns <= until_ns)
            and (instrument is None or fill.instrument == instrument)
        ]

    def prune(self, now_ns: int) -> None:
        """Forget what a venue forgets."""
        for closed in self._closed.values():
            while closed and closed[0].updated_ns < now_ns - CLOSED_KEPT_NS:
                self._forget(closed.popleft())
        for fills in self._fills.values():
            while fills and fills[0].ts_ns < now_ns - FILLS_KEPT_NS:
                fills.popleft()

    def _forget(self, order: VenueOrder) -> None:
        del self._by_id[order.order_id]
        if order.label:
            same = self._by_label[order.account, order.label]
            same.remove(order)
            if not same:
                del self._by_label[order.account, order.label]
