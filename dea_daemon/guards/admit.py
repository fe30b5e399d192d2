"""The last door: every planned order checked by itself, in order, at the worst combination of all before it.

`admit` is the only maker of `Approved`. It trusts neither allocator nor plan: it measures again.
"""

from collections.abc import Sequence

import numpy as np

from dea_daemon.domain.commands import Approved, CreateOrder, Outgoing
from dea_daemon.domain.decisions import Clip, Licence, Permit, View
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.domain.orders import Order
from dea_daemon.domain.parameters import GuardParameters
from dea_daemon.guards.limits import Caps, Exposed, caps, exposed

Planned = Outgoing | CreateOrder


def admit(
    permit: Permit, commands: Sequence[Planned], params: GuardParameters
) -> tuple[tuple[Outgoing, ...], tuple[Clip, ...]]:
    """Approve or refuse each create; everything else adds no risk and passes. Returns what may leave, and refusals."""
    book, cap = exposed(permit.view), caps(permit.view, params)
    approved: list[CreateOrder] = []
    out: list[Outgoing] = []
    refusals: list[Clip] = []
    for command in commands:
        if not isinstance(command, CreateOrder):
            out.append(command)
            continue
        refusal = _refuse(permit, book, command, approved, params, cap)
        if refusal is None:
            (book.buys if command.side is Side.BUY else book.sells)[command.row] += command.lots
            approved.append(command)
            out.append(Approved(command))
        else:
            refusals.append(refusal)
    return tuple(out), tuple(refusals)


def _refuse(
    permit: Permit, book: Exposed, order: CreateOrder, approved: list[CreateOrder], params: GuardParameters, cap: Caps
) -> Clip | None:
    """The first reason against an order: validity, collar, rate, then exposure by priority."""
    return (
        _invalid(permit, order, approved)
        or _beyond_collar(permit, order, params)
        or _too_much(permit, book, order, len(approved), params)
        or _unlicensed(permit, book, order)
        or _over_exposed(permit, book, order, cap)
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


def _too_much(permit: Permit, book: Exposed, order: CreateOrder, creates: int, params: GuardParameters) -> Clip | None:
    """Size of one order, rate, turnover and fees: budgets that no breach excuses."""
    view, i = permit.view, order.row
    notional = order.lots * float(view.notional_per_lot_usd[i])
    fee = notional * max(float(view.universe.taker_fee[i]), float(view.universe.maker_fee[i]))
    rate = view.creates_last_minute + creates + 1
    for limit, wanted, allowed, why in (
        ("order_size", notional, params.max_order_usd, "notional of one order"),
        ("order_rate", rate, params.max_orders_per_minute, "creates in a rolling minute"),
        ("turnover", book.turnover_usd() + notional, params.max_turnover_usd_per_hour, "USD in a rolling hour"),
        ("fees", book.fees_usd() + fee, params.max_fees_usd_per_hour, "USD in a rolling hour, all filled"),
    ):
        if not wanted <= allowed:
            return _clip(permit, order, limit, float(wanted), float(allowed), why)
    return None


def shrinks_position(book: Exposed, order: CreateOrder) -> bool:
    """Towards flat in its contract, and not through it even if everything on its side fills."""
    held = int(book.view.position_lots[order.row])
    same_side = int((book.buys if order.side is Side.BUY else book.sells)[order.row])
    return held * order.side.sign < 0 and same_side + order.lots <= abs(held)


def shrinks_exposure(book: Exposed, order: CreateOrder) -> bool:
    """Against the underlying's dollar delta, and not through zero even if everything on its side fills. An option
    brings other risks along: it is no hedge of delta."""
    view = book.view
    if view.universe.option[order.row]:
        return False
    u, x = int(view.universe.underlying[order.row]), float(view.delta_per_lot[order.row])
    now = float(view.delta_usd[u])
    (low, high), change = book.net_usd(), order.side.sign * order.lots * x
    working = (high[u] - now) if change > 0.0 else (now - low[u])
    return now * change < 0.0 and float(working) + abs(change) <= abs(now)


def _unlicensed(permit: Permit, book: Exposed, order: CreateOrder) -> Clip | None:
    licence = permit.licence[order.row]
    if licence >= Licence.ANYTHING or shrinks_position(book, order):
        return None
    if licence == Licence.SHRINK_EXPOSURE and shrinks_exposure(book, order):
        return None
    return _clip(permit, order, "reduce_only", float(order.lots), 0.0, "only reducing orders now")


def _over_exposed(permit: Permit, book: Exposed, order: CreateOrder, cap: Caps) -> Clip | None:
    """Scenario, net, vega, gamma, instrument, gross in order of priority: none newly exceeded, no breach worsened.

    An order that reduces a breach is not refused by a limit of lower priority.
    """
    view = permit.view
    i, k = order.row, int(view.universe.underlying[order.row])
    after = Exposed(view, book.buys.copy(), book.sells.copy())
    (after.buys if order.side is Side.BUY else after.sells)[i] += order.lots
    linear = [("net", book.net_usd(), after.net_usd(), cap.net, shrinks_exposure)]
    if view.universe.option[i]:  # nothing else has any
        linear += [
            (kind, book.greek_usd(kind), after.greek_usd(kind), most, shrinks_position)
            for kind, most in (("vega", cap.vega), ("gamma", cap.gamma))
        ]
    measured = []
    if cap.scenario != np.inf:
        before, wanted = book.scenario_loss_usd(cap.grid), after.scenario_loss_usd(cap.grid)
        measured.append(("scenario", before, wanted, cap.scenario, shrinks_position))
    measured += [
        (limit, before, wanted, allowed, reduces)
        for limit, (low0, high0), (low1, high1), allowed, reduces in linear
        for before, wanted in ((high0[k], high1[k]), (-low0[k], -low1[k]))
    ]
    measured += [
        ("instrument", book.instrument_usd()[i], after.instrument_usd()[i], cap.instrument, shrinks_position),
        ("gross", book.gross_usd(), after.gross_usd(), cap.gross, shrinks_position),
    ]
    excused = False
    for limit, before, wanted, allowed, reduces in measured:
        # `<=` twice, so that NaN on either side refuses.
        if not (wanted <= allowed or wanted <= before) and not excused:
            return _clip(permit, order, limit, float(wanted), float(allowed), "worst combination of working orders")
        excused = excused or (before > allowed and reduces(book, order))
    return None
