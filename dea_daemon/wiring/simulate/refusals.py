"""The same refusal again and again: a contract in which it happens is left alone for a while."""

from dea_daemon.domain.commands import CreateOrder
from dea_daemon.domain.events import AnyEvent, CreateRefused, FillReceived, OrderSeen, VenueOrderState
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.domain.parameters import ExecutionParameters
from dea_daemon.state.orders import OrderBookkeeping
from dea_daemon.wiring.simulate.promises import promise

QUIET = "post_only"  # the market moved: no fault of the order


class Refusals:
    """Of one run, as an outsider counts them: a sign of life of any order in a contract ends a count."""

    def __init__(self) -> None:
        self._in_a_row: dict[int, int] = {}
        self._last_ns: dict[int, int] = {}
        self._counted: set[str] = set()

    def look(self, event: AnyEvent, orders: OrderBookkeeping) -> None:
        """An event was folded."""
        match event:
            case CreateRefused(client_order_id=label, sent=True, reason=reason) if QUIET not in reason:
                order = orders.own.get(label)
                if order is not None and label not in self._counted:
                    self._counted.add(label)
                    self._in_a_row[order.row] = self._in_a_row.get(order.row, 0) + 1
                    self._last_ns[order.row] = event.ts_recv_ns
            case OrderSeen(state=state, row=row) if state is not VenueOrderState.REJECTED:
                self._in_a_row.pop(row, None)
            case FillReceived(row=row):
                self._in_a_row.pop(row, None)

    def judge(self, order: CreateOrder, now_ns: int, params: ExecutionParameters) -> None:
        """An order is sent."""
        if self._in_a_row.get(order.row, 0) >= params.reject_limit:
            rested = now_ns - self._last_ns[order.row] >= params.reject_pause_ms * NS_PER_MS
            promise(rested, f"sent after {self._in_a_row[order.row]} refusals in a row")
