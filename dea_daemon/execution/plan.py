"""One tick's commands: cancels first, then creates, then questions. At most one order a contract.

A difference is worked passively while it is young, then crossed. An order without an outcome blocks its
contract until the venue has answered: it is asked for, never guessed.
"""

import numpy as np

from dea_daemon.domain.commands import CancelOrder, CreateOrder, QueryAccount, QueryInstruments, QueryOrder
from dea_daemon.domain.decisions import Licence, Permit, View
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray, Side
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.domain.orders import Order, OrderState, TimeInForce, client_order_id
from dea_daemon.domain.parameters import ExecutionParameters
from dea_daemon.execution.placement import price_ticks, should_cross

Question = QueryOrder | QueryAccount | QueryInstruments
Planned = CancelOrder | CreateOrder | Question

# Trades are asked for from this far before the newest known: the venue's index may lag its matching.
CURSOR_OVERLAP_MS = 60_000
LEAVING_MS = 200  # between account questions once nothing works any more and only the last word is missing


class ExecutionMemory:
    """since_ns [2U]: since when a lane's differences have added up to the same side; 0 while there are none.
    losing [N]: where waiting has been measured to cost more than it saves (`costs.py` writes it; empty: nowhere).

    A lane is an underlying's hedges, or (behind all of those) its options: by lane and not by contract, so that
    work that moves to another contract does not begin anew.
    """

    def __init__(self, underlyings: int) -> None:
        self.since_ns: IntArray = np.zeros(2 * underlyings, dtype=np.int64)
        self.sign: IntArray = np.zeros(2 * underlyings, dtype=np.int64)
        self.losing: BoolArray = np.zeros(0, dtype=np.bool_)


def lanes(view: View) -> IntArray:
    """[N] each row's lane."""
    universe = view.universe
    return np.asarray(universe.underlying + universe.option * len(universe.underlyings), dtype=np.int64)


def observe(memory: ExecutionMemory, permit: Permit, params: ExecutionParameters) -> None:
    """Start, keep or end the age of each lane's difference. While only observing none ages: who arms begins anew,
    passively, and does not cross what he has watched for a day."""
    view = permit.view
    wanted = differences(permit, params)
    rows = np.flatnonzero(wanted)
    if not (len(rows) and view.armed):
        memory.since_ns, memory.sign = np.zeros_like(memory.since_ns), np.zeros_like(memory.sign)
        return
    # Lots stand in where exposure is not known: what closes a position must still grow impatient. Options are
    # worked each for itself, so any difference counts.
    x = np.where(view.universe.option[rows], np.sign(wanted[rows]), np.nan_to_num(view.delta_per_lot[rows], nan=1.0))
    total = np.bincount(lanes(view)[rows], x * wanted[rows], len(memory.since_ns))
    sign = np.sign(total).astype(np.int64)
    going_on = (sign == memory.sign) & (memory.since_ns > 0)
    memory.since_ns = np.where(sign == 0, 0, np.where(going_on, memory.since_ns, view.now_ns))
    memory.sign = sign


def differences(permit: Permit, params: ExecutionParameters) -> IntArray:
    """Lots [N] from what is held to what is permitted; dust, and what the venue would refuse as too small, is zero."""
    view = permit.view
    difference = permit.position_lots - view.position_lots
    if not difference.any():
        return difference
    with np.errstate(invalid="ignore"):
        worth = np.abs(difference) * view.notional_per_lot_usd
    keep = (worth >= params.dust_usd) & (np.abs(difference) >= view.universe.min_lots)
    return np.where(keep, difference, 0)


def plan(
    permit: Permit,
    memory: ExecutionMemory,
    params: ExecutionParameters,
    *,
    order_cap_usd: float = np.inf,
    band: tuple[FloatArray, FloatArray] | None = None,
) -> list[Planned]:
    """Cancels, creates and questions for this tick. No slice is larger than `order_cap_usd` would let through.

    `band` is (lowest, highest) [U] USD of delta: where one contract takes another's place, neither side runs ahead of
    the other beyond it.
    """
    slice_usd = min(params.slice_usd, order_cap_usd)
    view = permit.view
    wanted = differences(permit, params)
    if not (view.orders or wanted.any()):
        return [*_questions(view, params)]
    crossing = should_cross(permit, memory.since_ns[lanes(view)], memory.losing, params)
    cancels = [c for order in view.orders if (c := _cancel(permit, order, wanted, crossing, params)) is not None]
    busy = {order.row for order in view.orders}
    rows = [int(i) for i in np.flatnonzero(wanted) if int(i) not in busy and _open_for_business(permit, int(i))]
    # Reducing legs first: they free limits and margin for the others.
    rows.sort(key=lambda i: wanted[i] * view.position_lots[i] >= 0)
    creates: list[CreateOrder] = []
    left_usd = _left_to_do(permit, wanted, band)
    for i in rows:
        u, x = int(view.universe.underlying[i]), float(view.delta_per_lot[i])
        side = 0 if wanted[i] > 0 else 1
        room = np.inf if view.universe.option[i] or x == 0.0 else max(left_usd[side, u], 0.0) / x
        # Unpriced, the work of others cannot be weighed: what is still permitted then only closes positions.
        most = int(room + 1e-9) if np.isfinite(room) else abs(int(wanted[i]))
        lots = min(abs(int(wanted[i])), most) * int(np.sign(wanted[i]))
        sequence = view.sequence + len(creates) + 1
        create = _create(permit, i, lots, slice_usd, bool(crossing[i]), sequence, params)
        if create is not None:
            left_usd[side, u] -= 0.0 if view.universe.option[i] else create.lots * x
            creates.append(create)
    return [*cancels, *creates, *_questions(view, params)]


def _left_to_do(permit: Permit, wanted: IntArray, band: tuple[FloatArray, FloatArray] | None) -> FloatArray:
    """Delta wanted on each side in what hedges, less what is in flight there already, [2, U] USD (buys, sells).

    An order that is being cancelled in one contract may still fill, so another contract does not take its work
    over before it is gone.
    """
    view, universe = permit.view, permit.view.universe
    left = np.zeros((2, len(universe.underlyings)))
    for i in np.flatnonzero((wanted != 0) & ~universe.option):
        left[0 if wanted[i] > 0 else 1, universe.underlying[i]] += view.delta_per_lot[i] * abs(wanted[i])
    if band is not None:
        left = np.minimum(left, _room(permit, left, band))
    for order in view.orders:
        if not universe.option[order.row]:
            in_flight = order.in_flight_lots
            usd = view.delta_per_lot[order.row] * abs(in_flight)
            left[0 if in_flight > 0 else 1, universe.underlying[order.row]] -= usd
    return left


def _room(permit: Permit, left: FloatArray, band: tuple[FloatArray, FloatArray]) -> FloatArray:
    """How far delta may go up and down, [2, U] USD, if the other side finds nobody: within the band, or not beyond
    where it is and is to be. Any way in a breach, and where no band is known."""
    now = permit.view.delta_usd
    end = now + left[0] - left[1]
    room = np.array((np.maximum(np.maximum(now, end), band[1]) - now, now - np.minimum(np.minimum(now, end), band[0])))
    room[:, permit.urgent] = np.inf
    return np.where(np.isfinite(room), room, np.inf)


def _open_for_business(permit: Permit, row: int) -> bool:
    return permit.licence[row] > Licence.NOTHING and not permit.view.paused[row]


def _create(
    permit: Permit,
    row: int,
    wanted: int,
    slice_usd: float,
    crossing: bool,
    sequence: int,
    params: ExecutionParameters,
) -> CreateOrder | None:
    """One order towards the permitted book, at most a slice (but one the venue takes);
    None where its price cannot be known."""
    view = permit.view
    instrument = view.universe.instruments[row]
    side = Side.BUY if wanted > 0 else Side.SELL
    ticks = price_ticks(view, row, side, crossing, params)
    notional = float(view.notional_per_lot_usd[row])
    if ticks is None or not notional > 0.0:
        return None
    lots = min(abs(wanted), max(int(slice_usd / notional), instrument.min_lots))
    if lots < instrument.min_lots or lots * notional < params.dust_usd:
        return None
    held = int(view.position_lots[row])
    account = int(view.universe.account[row])
    return CreateOrder(
        client_order_id=client_order_id(account, view.epoch, sequence),
        row=row,
        side=side,
        lots=lots,
        price_ticks=ticks,
        time_in_force=TimeInForce.IOC if crossing else TimeInForce.GTC,
        post_only=not crossing,
        # The venue's own reduce-only is a second lock, usable where the order cannot leave flat behind.
        reduce_only=bool(permit.licence[row] == Licence.SHRINK_POSITION and held * side.sign < 0 and lots <= abs(held)),
        # By the clock that is behind: where the wall clock has stepped, an order may expire too early, never late.
        valid_until_ms=min(view.utc_ns, view.now_ns) // NS_PER_MS + params.valid_for_ms,
        cause_seq=view.seq,
        why="cross" if crossing else "post",
    )


def _cancel(
    permit: Permit, order: Order, wanted: IntArray, crossing: BoolArray, params: ExecutionParameters
) -> CancelOrder | None:
    """Whether an order should go, and why. Orders in doubt are cancelled only when everything must go."""
    view = permit.view
    leaving = view.draining or view.mode in (Mode.HALTED, Mode.PAUSED) or not view.armed
    if order.state is OrderState.UNKNOWN or (order.state is OrderState.OPEN and order.doubted):
        due = view.now_ns - order.cancel_sent_ns > params.unknown_after_ms * NS_PER_MS
        why = "leaving" if leaving and due else ""
    elif order.state is not OrderState.OPEN:
        why = ""
    elif leaving:
        why = "draining" if view.draining else view.mode.name.lower() if view.armed else "disarmed"
    else:
        why = _unwanted(permit, order, int(wanted[order.row]), bool(crossing[order.row]), params)
    return CancelOrder(order.client_order_id, order.row, order.venue_order_id, why) if why else None


def _unwanted(permit: Permit, order: Order, wanted: int, crossing: bool, params: ExecutionParameters) -> str:
    view, row = permit.view, order.row
    if not view.fresh[row]:
        return "market data is stale"
    if wanted * order.side.sign <= 0:
        return "no longer wanted"
    # A little too much is no reason to lose the place in the queue, unless limits have drawn the line.
    strict = permit.licence[row] < Licence.ANYTHING or permit.urgent[view.universe.underlying[row]]
    if abs(order.in_flight_lots) > abs(wanted) * (1.0 if strict else 1.0 + params.excess):
        return "more than wanted"
    if crossing:
        return "waited long enough"
    touch = view.bid_price[row] if order.side is Side.BUY else view.ask_price[row]
    behind = order.side.sign * (touch / view.universe.tick_size[row] - order.price_ticks)
    return "left behind by the touch" if behind >= params.reprice_ticks - 1e-6 else ""


def _sent_ms(view: View, order: Order) -> int:
    """UTC ms from which the venue may know of an order; generous, as clocks differ."""
    age_ms = (view.now_ns - order.created_ns) // NS_PER_MS
    return max(view.utc_ns // NS_PER_MS - age_ms - CURSOR_OVERLAP_MS, 0)


def _held_past_expiry(view: View) -> bool:
    universe = view.universe
    if not universe.series_count:
        return False
    past = (view.position_lots != 0) & (universe.expiry_ns > 0) & (universe.expiry_ns <= view.utc_ns)
    return bool(past.any())


def _questions(view: View, params: ExecutionParameters) -> list[Question]:
    """Ask for orders in doubt, for the account (often until it agrees, then at leisure), for new contracts."""
    out: list[Question] = []
    for order in view.orders:
        doubtful = order.state is OrderState.UNKNOWN or order.doubted or order.state.is_terminal
        if doubtful and view.now_ns - order.query_sent_ns > params.query_every_ms * NS_PER_MS:
            out.append(QueryOrder(order.client_order_id, order.row, _sent_ms(view, order)))
    for account in view.traded_accounts:
        delivered = view.delivered_since_ms[account]
        settled = view.account_agreed[account] and view.account_fresh and not _held_past_expiry(view)
        every_ms = params.reconcile_every_ms if settled else min(params.reconcile_every_ms, params.query_every_ms)
        if view.draining and not view.orders:
            every_ms = LEAVING_MS
        if view.now_ns - view.account_asked_ns[account] > every_ms * NS_PER_MS:
            out.append(QueryAccount(account, max(view.trade_cursor_ms - CURSOR_OVERLAP_MS, 0), delivered))
    out += [QueryInstruments(account) for account in view.relist]
    return out
