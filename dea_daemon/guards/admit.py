"""The last door: every planned order checked by itself, in order, at the worst combination of all before it.

`admit` is the only maker of `Approved`. It trusts neither allocator nor plan: it measures again.
"""

from collections.abc import Iterator, Sequence
from copy import copy

import numpy as np

from dea_daemon.domain.commands import Approved, CreateOrder, Outgoing
from dea_daemon.domain.decisions import Clip, Licence, Permit, View
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.domain.orders import Order, TimeInForce
from dea_daemon.domain.parameters import GuardParameters
from dea_daemon.guards.conditions import cancel_ratio
from dea_daemon.guards.limits import LOSSES, Book, active, caps

Planned = Outgoing | CreateOrder


def admit(
    permit: Permit, commands: Sequence[Planned], params: GuardParameters
) -> tuple[tuple[Outgoing, ...], tuple[Clip, ...]]:
    """Approve or refuse each create; everything else adds no risk and passes. Returns what may leave, and refusals."""
    creates = [command for command in commands if isinstance(command, CreateOrder)]
    if not creates:
        return tuple(command for command in commands if not isinstance(command, CreateOrder)), ()
    wanted = np.zeros(len(permit.view.universe), dtype=np.bool_)
    wanted[[order.row for order in creates]] = True
    book = Book(permit.view, caps(permit.view, params), active(permit.view, wanted))
    approved: list[CreateOrder] = []
    out: list[Outgoing] = []
    refusals: list[Clip] = []
    for command in commands:
        if not isinstance(command, CreateOrder):
            out.append(command)
            continue
        refusal = _refuse(permit, book, command, approved, params)
        if refusal is None:
            book.add(book.at[command.row], command.side, command.lots)
            approved.append(command)
            out.append(Approved(command))
        else:
            refusals.append(refusal)
    return tuple(out), tuple(refusals)


def _refuse(
    permit: Permit, book: Book, order: CreateOrder, approved: list[CreateOrder], params: GuardParameters
) -> Clip | None:
    """The first reason against an order: validity, collar, rate, then exposure by priority."""
    return (
        _invalid(permit, order, approved)
        or _beyond_collar(permit, order, params)
        or _too_much(permit, book, order, len(approved), params)
        or _unlicensed(permit, book, order)
        or _over_exposed(permit, book, order)
    )


def _clip(permit: Permit, order: CreateOrder, limit: str, wanted: float, allowed: float, why: str) -> Clip:
    return Clip(limit, permit.view.universe.instruments[order.row].name, wanted, allowed, why)


def _invalid(permit: Permit, order: CreateOrder, approved: list[CreateOrder]) -> Clip | None:
    view = permit.view
    instrument = view.universe.instruments[order.row]
    others: list[Order | CreateOrder] = [*view.orders, *approved]
    why = ""
    if not view.armed:
        why = "observing: not armed"
    elif permit.licence[order.row] == Licence.NOTHING:
        why = "no licence to trade this contract now"
    elif order.lots < instrument.min_lots:
        why = "fewer lots than the venue takes"
    elif not instrument.on_grid(order.price_ticks):
        why = "price off the tick grid"
    elif order.valid_until_ms * NS_PER_MS <= view.utc_ns:
        why = "its deadline has passed"
    elif any(order.client_order_id == other.client_order_id for other in others):
        why = "its client order id is taken"
    elif any(_crosses(order, other) for other in others):
        why = "would trade with our own order"
    return _clip(permit, order, "validity", float(order.lots), 0.0, why) if why else None


def _crosses(order: CreateOrder, other: Order | CreateOrder) -> bool:
    ended = isinstance(other, Order) and other.state.is_terminal
    if other.row != order.row or other.side is order.side or ended:
        return False
    return (order.price_ticks - other.price_ticks) * order.side.sign >= 0


def _beyond_collar(permit: Permit, order: CreateOrder, params: GuardParameters) -> Clip | None:
    """A limit price through both mark and mid by more than the collar buys too dear or sells too cheap."""
    view, i = permit.view, order.row
    price = order.price_ticks * float(view.universe.tick_size[i])
    mid = 0.5 * (view.bid_price[i] + view.ask_price[i])
    nobody_bids = view.universe.option[i] and not view.bid_price[i] > 0.0
    beside = [view.mark_price[i]] if nobody_bids else [view.mark_price[i], mid]  # half an ask is no mid
    worst = float((order.side.sign * (price / np.array(beside) - 1.0)).max())
    allowed = _option_collar(view, i, params) if view.universe.option[i] else params.collar_bp * 1e-4
    if not worst <= allowed:
        return _clip(permit, order, "collar", worst * 1e4, allowed * 1e4, "bp through mark or mid")
    return None


def _option_collar(view: View, row: int, params: GuardParameters) -> float:
    """As a fraction of the mark: the share allowed, two ticks, or what the volatility allowed is worth."""
    u, n = int(view.universe.underlying[row]), len(view.universe.underlyings)
    buckets = slice(view.factors.first("vega", 0) + u, view.factors.first("basis", 0), n)
    vega_usd = float(np.abs(view.exposure_per_lot[buckets, row]).sum())  # per lot and vol point
    unit_usd = view.underlying_price[u] if view.universe.coin_quoted[row] else 1.0
    worth_usd = float(view.mark_price[row] * unit_usd * view.universe.lot_value[row])
    by_vol = params.option_collar_vol * 100.0 * vega_usd / worth_usd
    share = max(params.option_collar, float(2.0 * view.universe.tick_size[row] / view.mark_price[row]))
    return max(share, by_vol) if by_vol == by_vol else share


def _too_much(permit: Permit, book: Book, order: CreateOrder, creates: int, params: GuardParameters) -> Clip | None:
    """Size of one order, rate, cancels, turnover and fees: budgets that no breach excuses."""
    view, i = permit.view, order.row
    notional = order.lots * float(view.notional_per_lot_usd[i])
    fee = notional * max(float(view.universe.taker_fee[i]), float(view.universe.maker_fee[i]))
    turnover, fees = (at_stake + more for at_stake, more in zip(book.stake_usd(), (notional, fee), strict=True))
    rate = view.creates_last_minute + creates + 1
    resting = 0.0 if order.time_in_force is TimeInForce.IOC else cancel_ratio(view)
    for limit, wanted, allowed, why in (
        ("order_size", notional, params.max_order_usd, "notional of one order"),
        ("order_rate", rate, params.max_orders_per_minute, "creates in a rolling minute"),
        ("cancel_ratio", resting, params.max_cancel_ratio, "cancels per order in a rolling hour"),
        ("turnover", view.turnover_hour_usd + turnover, params.max_turnover_usd_per_hour, "USD in a rolling hour"),
        ("turnover", view.turnover_day_usd + turnover, params.max_turnover_usd_per_day, "USD in 24 rolling hours"),
        ("fees", view.fees_hour_usd + fees, params.max_fees_usd_per_hour, "USD in a rolling hour, all filled"),
        ("fees", view.fees_day_usd + fees, params.max_fees_usd_per_day, "USD in 24 rolling hours, all filled"),
    ):
        if allowed is not None and not wanted <= allowed:
            return _clip(permit, order, limit, float(wanted), float(allowed), why)
    return None


def shrinks_position(book: Book, order: CreateOrder) -> bool:
    """Towards flat in its contract, and not through it even if everything on its side fills."""
    m = book.at[order.row]
    held = int(book.held[m])
    same_side = int((book.buys if order.side is Side.BUY else book.sells)[m])
    return held * order.side.sign < 0 and same_side + order.lots <= abs(held)


def shrinks_exposure(book: Book, order: CreateOrder) -> bool:
    """Against the underlying's dollar delta, and not through zero even if everything on its side fills. An option
    brings other risks along: it is no hedge of delta."""
    view = book.view
    if view.universe.option[order.row]:
        return False
    u, x = int(view.universe.underlying[order.row]), float(view.delta_per_lot[order.row])
    now = float(view.delta_usd[u])
    (low, high), change = book.extremes(), order.side.sign * order.lots * x
    working = (high[u] - now) if change > 0.0 else (now - low[u])
    return now * change < 0.0 and float(working) + abs(change) <= abs(now)


def _unlicensed(permit: Permit, book: Book, order: CreateOrder) -> Clip | None:
    licence = permit.licence[order.row]
    if licence >= Licence.ANYTHING or shrinks_position(book, order):
        return None
    if licence == Licence.SHRINK_EXPOSURE and shrinks_exposure(book, order):
        return None
    return _clip(permit, order, "reduce_only", float(order.lots), 0.0, "only reducing orders now")


def _over_exposed(permit: Permit, book: Book, order: CreateOrder) -> Clip | None:
    """Losses, then net, vega, gamma and buckets, then the instrument, its underlying, venue, and gross, in order of
    priority: none newly exceeded, no breach worsened.

    An order that reduces a breach is not refused by a limit of lower priority.
    """
    excused, reduces, last = False, False, ""
    for limit, before, wanted, allowed, falls in _measured(book, order):
        if limit != last:  # a breach of one side excuses nothing on the other
            excused, last = excused or reduces, limit
        # A loss that cannot be told now stops nothing from getting smaller: something else cannot be valued.
        untold = limit in LOSSES and before != before and shrinks_position(book, order)
        # `<=` twice, so that NaN on either side refuses.
        if not (wanted <= allowed or wanted <= before or untold) and not excused:
            return _clip(permit, order, limit, wanted, allowed, "worst combination of working orders")
        nearer = shrinks_exposure if limit == "net" else shrinks_position
        reduces = reduces or (before > allowed and falls and nearer(book, order))
    return None


def _measured(book: Book, order: CreateOrder) -> Iterator[tuple[str, float, float, float, bool]]:
    """(limit, use before, use with the order, allowed), in order of priority; of lines, those it bears on."""
    m, sign = book.at[order.row], order.side.sign
    losses = book.losses_usd()
    low, high = book.extremes()
    usd = book.instrument_usd()
    sums = book.sums_usd(usd)
    after = copy(book)
    after.buys, after.sells = book.buys.copy(), book.sells.copy()
    after.add(m, order.side, order.lots)
    filled = book.held.copy()
    filled[m] += sign * order.lots
    alone = book.losses_of(filled)  # by itself, as an excuse must be
    for limit, wanted in after.losses_usd().items():
        falls = alone[limit] < book.held_losses_usd[limit]
        yield limit, losses[limit], wanted, float(getattr(book.cap, limit)), falls
    for at in np.flatnonzero(book.per_lot[:, m] != 0.0):
        change, cap = sign * order.lots * float(book.per_lot[at, m]), float(book.line_cap[at])
        limit = book.lines.limit[at]
        yield limit, float(high[at]), float(high[at] + np.maximum(change, 0.0)), cap, change < 0.0
        yield limit, -float(low[at]), -float(low[at] + np.minimum(change, 0.0)), cap, change > 0.0
    then_usd = after.instrument_usd()
    yield "instrument", float(usd[m]), float(then_usd[m]), book.cap.instrument, True
    then = after.sums_usd(then_usd)
    for at in np.flatnonzero(book.member[:, m]):
        yield book.sums.limit[at], float(sums[at]), float(then[at]), float(book.sum_cap[at]), True
