"""What trading has cost, order by order, and what it is therefore expected to cost beyond fee and half spread.

Every create that leaves is measured from its decision to a minute after its end (`shortfall.py`), then told as
`order.measured` and learned from (`estimates.py`). Orders refused or proved absent never lived: what takes their place
counts from the same decision. Mid prices are those of the first decision at or after the moment, but at a fill those
of its receipt. Bounded: the oldest measurements end early, their markouts unknown.
"""

from collections import deque
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np

from dea_daemon.domain.commands import Approved, CreateOrder, Outgoing
from dea_daemon.domain.decisions import Forecast, Note, View
from dea_daemon.domain.events import FillReceived
from dea_daemon.domain.instruments import FloatArray, IntArray, Universe
from dea_daemon.domain.lessons import CostLesson
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.domain.orders import NEVER_LIVED, Order
from dea_daemon.domain.parameters import ExecutionParameters
from dea_daemon.execution.estimates import Estimates, lesson
from dea_daemon.execution.plan import ExecutionMemory, lanes
from dea_daemon.execution.shortfall import MARKOUTS_S, NAN, SETTLED_NS, Measurement, Shortfall, mid_prices, step_usd

OPEN_MOST = 4_096  # measurements at once: more than is ever created in two minutes
DUE_MOST = 65_536  # fills awaiting a markout; those beyond have none
LATE_NS = 2 * NS_PER_S  # of a fill heard of later than this nobody knows the mid price at that moment

_Due = tuple[int, Measurement, int, float]  # when, whose, lots, price


class CostMemory:
    """`open` are the orders being measured, by client_order_id, oldest first; `decision_mid` [N] the mid prices when
    each row's lane began, `since_ns` [2U] which beginning that was; `due` the markouts to come, by horizon."""

    def __init__(self) -> None:
        self.open: dict[str, Measurement] = {}
        self.since_ns: IntArray = np.zeros(0, dtype=np.int64)
        self.decision_mid: FloatArray = np.zeros(0)
        self.due: tuple[deque[_Due], ...] = tuple(deque() for _ in MARKOUTS_S)
        self.estimates = Estimates()


def filled(memory: CostMemory, fill: FillReceived, fee_usd: float, bid: float, ask: float, universe: Universe) -> None:
    """One execution counted for the first time, with the book as it stood when it was heard of."""
    measurement = memory.open.get(fill.client_order_id)
    if measurement is None:
        return
    late = fill.ts_event_ns > 0 and fill.ts_recv_ns - fill.ts_event_ns > LATE_NS
    mid_price = 0.5 * (bid + ask) if 0.0 < bid < ask < np.inf and not late else NAN
    price = float(universe.instruments[fill.row].ticks_to_price(fill.price_ticks))
    measurement.filled(fill.lots, price, mid_price, fee_usd)
    for horizon, seconds in enumerate(MARKOUTS_S):
        if late or len(memory.due[horizon]) >= DUE_MOST:
            measurement.marked(horizon, fill.lots, price, NAN)
        else:
            memory.due[horizon].append((fill.ts_recv_ns + seconds * NS_PER_S, measurement, fill.lots, price))


def observe(
    memory: CostMemory,
    execution: ExecutionMemory,
    view: View,
    forecast: Forecast,
    outgoing: Iterable[Outgoing],
    orders: Mapping[str, Order],
    params: ExecutionParameters,
) -> tuple[Note, ...]:
    """Fold one decision: `outgoing` is what it sends, `orders` what became of ours. What was measured is told."""
    creates = [command.order for command in outgoing if isinstance(command, Approved)]
    memory.estimates.advance(view, params)
    execution.losing = memory.estimates.losing
    if not (memory.open or creates or view.orders or execution.since_ns.any()):
        memory.since_ns = execution.since_ns
        return ()
    mid = mid_prices(view)
    _decided(memory, execution, view, mid)
    _mark(memory, view.now_ns, mid)
    _end(memory, orders, view.now_ns, mid)
    for create in creates:
        _arrive(memory, execution, view, create, float(mid[create.row]))
    _adopt(memory, view)
    return tuple(_finish(memory, execution, view, forecast, params))


def recall(memory: CostMemory, lessons: Iterable[CostLesson], now_ns: int, params: ExecutionParameters) -> None:
    """Before the first decision: what orders of earlier runs cost, oldest first."""
    memory.estimates.recall(lessons, now_ns, params)


def surcharge(memory: CostMemory, view: View, params: ExecutionParameters) -> FloatArray:
    """[N] USD per USD of notional, beyond taker fee and half spread; negative where resting orders have saved some.

    Never more saved than a resting order can: half spread and the difference of fees, on the share that was filled so.
    """
    return memory.estimates.surcharge(view, params)


def _decided(memory: CostMemory, execution: ExecutionMemory, view: View, mid: FloatArray) -> None:
    """Where a lane's work has just begun, its rows are decided at this moment's mid price."""
    joined = len(mid) - len(memory.decision_mid)
    if joined:  # contracts listed since: unknown until their lane begins anew
        memory.decision_mid = np.append(memory.decision_mid, np.full(joined, np.nan))
    if len(memory.since_ns) != len(execution.since_ns):
        memory.since_ns = np.zeros_like(execution.since_ns)
    if (memory.since_ns != execution.since_ns).any():
        began = (memory.since_ns != execution.since_ns)[lanes(view)]
        memory.decision_mid = np.where(began, mid, memory.decision_mid)
        memory.since_ns = execution.since_ns


def _mark(memory: CostMemory, now_ns: int, mid: FloatArray) -> None:
    for horizon, due in enumerate(memory.due):
        while due and due[0][0] <= now_ns:
            _, measurement, lots, price = due.popleft()
            measurement.marked(horizon, lots, price, float(mid[measurement.row]))


def _end(memory: CostMemory, orders: Mapping[str, Order], now_ns: int, mid: FloatArray) -> None:
    for key, measurement in list(memory.open.items()):
        order = orders.get(key)
        if measurement.ended_ns or (order is not None and (not order.state.is_terminal or order.in_flight_lots)):
            continue
        if order is not None and order.state in NEVER_LIVED and not measurement.filled_lots:
            del memory.open[key]
            continue
        measurement.ended(now_ns, float(mid[measurement.row]))


def _arrive(memory: CostMemory, execution: ExecutionMemory, view: View, create: CreateOrder, mid_price: float) -> None:
    """An order leaves: it takes over what earlier ones of the same work left undone, oldest first."""
    row = create.row
    lane = int(lanes(view)[row])
    since_ns, lot_usd = int(execution.since_ns[lane]), float(view.notional_per_lot_usd[row])
    usd = create.lots * lot_usd
    for earlier in memory.open.values() if since_ns else ():
        if earlier.ended_ns and earlier.is_work(lane, since_ns, create.side) and usd > 0.0:
            usd = earlier.take_over(usd)
    memory.open[create.client_order_id] = Measurement(
        client_order_id=create.client_order_id,
        row=row,
        side=create.side,
        lots=create.lots,
        placed="cross" if create.why == "cross" else "post",
        lane=lane,
        since_ns=since_ns,
        sent_ns=view.now_ns,
        decision_mid=float(memory.decision_mid[row]) if since_ns else mid_price,
        arrival_mid=mid_price,
        half_spread=0.5 * float(view.ask_price[row] - view.bid_price[row]),
        lot_usd=lot_usd,
        step_usd=step_usd(view, row, mid_price),
    )


def _adopt(memory: CostMemory, view: View) -> None:
    """Orders from before the start: nobody knows what the mid price was when they were decided, or left."""
    for order in view.orders:
        if order.client_order_id in memory.open or order.state.is_terminal:
            continue
        memory.open[order.client_order_id] = Measurement(
            client_order_id=order.client_order_id,
            row=order.row,
            side=order.side,
            lots=order.lots - order.filled_lots,
            placed="restored",
            lane=-1,
            since_ns=0,
            sent_ns=order.created_ns,
            decision_mid=NAN,
            arrival_mid=NAN,
            half_spread=NAN,
            lot_usd=float(view.notional_per_lot_usd[order.row]),
            step_usd=step_usd(view, order.row, NAN),
        )


def _finish(
    memory: CostMemory, execution: ExecutionMemory, view: View, forecast: Forecast, params: ExecutionParameters
) -> Iterable[Note]:
    """Orders watched for long enough; all of them when the run ends, the oldest where there are too many."""
    leaving = view.draining and not view.orders
    too_many = len(memory.open) - OPEN_MOST
    for key, measurement in list(memory.open.items()):
        watched = 0 < measurement.ended_ns <= view.now_ns - SETTLED_NS
        if not watched and not (measurement.ended_ns and (leaving or too_many > 0)):
            continue
        del memory.open[key]
        too_many -= 1
        lane, since_ns = measurement.lane, measurement.since_ns
        going_on = since_ns > 0 and int(execution.since_ns[lane]) == since_ns and not leaving
        found = measurement.shortfall(view, going_on=going_on, watched=watched)
        learned = lesson(measurement, found, view, forecast)
        memory.estimates.learn(learned, params)
        yield _note(found, learned)
    if not memory.open:
        for due in memory.due:
            due.clear()


def _note(found: Shortfall, learned: CostLesson) -> Note:
    """All of it, its parts in bp of the notional filled, and what it taught."""
    fields = msgspec.structs.asdict(found)
    bp = {f"{name.removesuffix('_usd')}_bp": found.bp(fields[name]) for name in _IN_BP}
    taught = {"beyond_usd": learned.beyond_usd, "day_vol_bp": learned.day_vol_bp}
    return Note("order.measured", fields | bp | taught)


_IN_BP = (
    "delay_usd", "impact_usd", "spread_usd", "fee_usd", "total_usd",
    "markout_1s_usd", "markout_10s_usd", "markout_60s_usd",
)  # fmt: skip
