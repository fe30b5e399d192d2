"""Our orders and how they live: the table of `domain.orders` applied, and nothing decided."""

import msgspec

from dea_daemon.domain.commands import CancelOrder, CreateOrder
from dea_daemon.domain.events import FillReceived, OrderSeen, VenueOrderState
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.domain.orders import (
    LIFE,
    NEVER_LIVED,
    NEXT,
    TERMINAL,
    ForeignOrder,
    Order,
    OrderInput,
    OrderState,
    TimeInForce,
)
from dea_daemon.state.effects import Effects

KEEP_ENDED_NS = 600 * 1_000_000_000  # ended orders stay this long, for their late fills
FORGET_EVERY_NS = KEEP_ENDED_NS // 60
_SEEN = {
    VenueOrderState.OPEN: OrderInput.SEEN_OPEN,
    VenueOrderState.FILLED: OrderInput.SEEN_FILLED,
    VenueOrderState.CANCELLED: OrderInput.SEEN_CANCELLED,
    VenueOrderState.REJECTED: OrderInput.SEEN_REJECTED,
}


class OrderBookkeeping:
    """All orders of the run by client_order_id, foreign ones by (account, venue_order_id).

    `changed` collects the ids whose ledger row is out of date; the shell empties it with each commit.
    `surprised` collects rows with a (state, input) pair outside the table.
    """

    def __init__(self) -> None:
        self.own: dict[str, Order] = {}
        self.foreign: dict[tuple[int, str], ForeignOrder] = {}
        self.changed: set[str] = set()
        self.surprised: set[int] = set()
        self._moving: dict[str, Order] = {}  # every live order, and those that ended since last asked
        self._forgot_ns = 0

    def live(self) -> tuple[Order, ...]:
        """Own orders that may still fill, or whose reported fills are still to come."""
        live = {key: o for key, o in self._moving.items() if o.state not in TERMINAL or o.in_flight_lots}
        self._moving = live  # the ended ones, thousands in a busy hour, are not looked at again
        return tuple(live.values())

    def keep(self, order: Order) -> None:
        """An order is ours from here on: sent, restored or adopted."""
        self.own[order.client_order_id] = self._moving[order.client_order_id] = order

    def advance(self, order: Order, what: OrderInput, now_ns: int, effects: Effects, reason: str = "") -> bool:
        """One step along the table. False, and the row surprised, where the table has no such step."""
        self._moving[order.client_order_id] = order
        after = NEXT.get((order.state, what))
        if after is None:
            self.surprised.add(order.row)
            if order.state in NEVER_LIVED and what in LIFE:
                order.state, order.ended_ns = OrderState.UNKNOWN, 0
                self.changed.add(order.client_order_id)
            effects.note(
                "order.surprised", client_order_id=order.client_order_id, state=order.state.value, input=what.value
            )
            return False
        if reason:
            order.reason = reason
        if after is not order.state:
            order.state = after
            order.ended_ns = now_ns if after in TERMINAL else 0
        self.changed.add(order.client_order_id)
        return True

    def sent(self, command: CreateOrder, now_ns: int) -> Order:
        """A decision made this order: it is in flight before it leaves."""
        order = Order(
            client_order_id=command.client_order_id,
            row=command.row,
            side=command.side,
            lots=command.lots,
            price_ticks=command.price_ticks,
            time_in_force=command.time_in_force,
            post_only=command.post_only,
            reduce_only=command.reduce_only,
            valid_until_ms=command.valid_until_ms,
            cause_seq=command.cause_seq,
            created_ns=now_ns,
        )
        self.keep(order)
        self.changed.add(order.client_order_id)
        return order

    def cancel_sent(self, command: CancelOrder, now_ns: int, effects: Effects) -> None:
        order = self.own.get(command.client_order_id)
        if order is not None:
            order.cancel_sent_ns = now_ns
            self.advance(order, OrderInput.CANCEL_SENT, now_ns, effects)

    def seen(self, event: OrderSeen, effects: Effects) -> None:
        """The venue's word about one order: ours advance, others are counted."""
        order = self.own.get(event.client_order_id)
        if order is None:
            self._seen_foreign(event)
            return
        order.venue_order_id = order.venue_order_id or event.venue_order_id
        order.venue_filled_lots = max(order.venue_filled_lots, event.filled_lots)
        order.doubted = False
        # News of an open order that arrives after its end is old news, and the table says so.
        self.advance(order, _SEEN[event.state], event.ts_recv_ns, effects, event.reason)

    def _seen_foreign(self, event: OrderSeen) -> None:
        key = (event.account, event.venue_order_id)
        if event.state is VenueOrderState.OPEN and event.lots > event.filled_lots:
            left = event.lots - event.filled_lots
            self.foreign[key] = ForeignOrder(
                event.account, event.row, event.side, left, event.venue_order_id, event.ts_recv_ns
            )
        else:
            self.foreign.pop(key, None)

    def adopt(self, event: OrderSeen, now_ns: int) -> Order:
        """An open order with our label that the ledger does not know (it was lost or restored): ours again."""
        order = Order(
            client_order_id=event.client_order_id,
            row=event.row,
            side=event.side,
            lots=event.lots,
            price_ticks=event.price_ticks,
            time_in_force=TimeInForce.GTC,
            post_only=False,
            reduce_only=False,
            valid_until_ms=0,
            cause_seq=0,
            created_ns=now_ns,
            state=OrderState.OPEN,
            venue_order_id=event.venue_order_id,
            filled_lots=event.filled_lots,
            venue_filled_lots=event.filled_lots,
        )
        self.keep(order)
        self.foreign.pop((event.account, event.venue_order_id), None)  # heard of before the report that names it
        self.changed.add(order.client_order_id)
        return order

    def filled(self, event: FillReceived, effects: Effects) -> None:
        """One new execution of an order in the account; the caller has made sure it is new."""
        order = self.own.get(event.client_order_id)
        if order is None:
            key = (event.account, event.venue_order_id)
            if (foreign := self.foreign.get(key)) is not None:
                left = foreign.lots - event.lots
                if left > 0:
                    self.foreign[key] = msgspec.structs.replace(foreign, lots=left, seen_ns=event.ts_recv_ns)
                else:
                    del self.foreign[key]
            return
        order.venue_order_id = order.venue_order_id or event.venue_order_id
        order.filled_lots += event.lots
        order.venue_filled_lots = max(order.venue_filled_lots, order.filled_lots)
        last = order.filled_lots >= order.lots
        self.advance(order, OrderInput.LAST_FILL if last else OrderInput.FILL, event.ts_recv_ns, effects)

    def overdue(self, now_ns: int, unknown_after_ms: int, effects: Effects) -> None:
        """A create or cancel too long without an answer is unknown: a timeout is not a failure."""
        limit = unknown_after_ms * NS_PER_MS
        for order in self.live():
            if order.state is OrderState.PENDING and now_ns - order.created_ns > limit:
                self.advance(order, OrderInput.CREATE_UNKNOWN, now_ns, effects, "no answer in time")
                effects.note("order.outcome_unknown", client_order_id=order.client_order_id, why="no answer in time")
            elif order.state is OrderState.CANCELLING and now_ns - order.cancel_sent_ns > limit:
                self.advance(order, OrderInput.CANCEL_UNKNOWN, now_ns, effects, "no answer in time")
                order.doubted = True

    def forget(self, now_ns: int) -> None:
        """Drop orders long ended and settled."""
        if now_ns - self._forgot_ns < FORGET_EVERY_NS:
            return
        self._forgot_ns = now_ns
        old = [
            key
            for key, o in self.own.items()
            if o.state in TERMINAL and not o.in_flight_lots and now_ns - o.ended_ns > KEEP_ENDED_NS
        ]
        for key in old:
            if key not in self.changed:
                del self.own[key]
