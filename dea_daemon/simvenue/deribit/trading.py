"""The private methods. Each is a function of a Call; `METHODS` is the table.

Retention is the venue's: closed orders for 30 minutes, trades for 24 hours. Labels are tags: several orders may
share one, and they deduplicate nothing.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal

from dea_daemon.domain.instruments import Side
from dea_daemon.domain.orders import TimeInForce
from dea_daemon.simvenue.deribit import encodings, witness
from dea_daemon.simvenue.deribit.call import Call, Method
from dea_daemon.simvenue.deribit.contract import Contract
from dea_daemon.simvenue.deribit.errors import ApiError, invalid, refusal
from dea_daemon.simvenue.deribit.market import window_ns
from dea_daemon.simvenue.deribit.session import Json
from dea_daemon.simvenue.words import OrderRequest, Refused, VenueFill, VenueOrder

LABEL_MAX = 64
REMEMBERED_MAX = 10_000
_TIMES = {name: time for time, name in encodings.TIMES_IN_FORCE.items()}
_DIRECTIONS = ("asc", "desc", "default")


# --- orders -----------------------------------------------------------------------------------------


def _create(call: Call, side: Side) -> Json:
    """Buy or sell. A refusal is witnessed too."""
    try:
        request = _order_request(call, side)
        order, fills = call.exchange.place(request)
    except Refused as refused:
        error = refusal(refused, side)
        call.market.journal.append(witness.rejected(call, side, error))
        raise error from None
    except ApiError as error:
        call.market.journal.append(witness.rejected(call, side, error))
        raise
    _remember(call, order.order_id)
    return _executed(call, order, fills)


def _remember(call: Call, order_id: str) -> None:
    """For cancel on disconnect. A long connection forgets the ended ones."""
    orders = call.session.orders
    orders.append(order_id)
    if len(orders) > REMEMBERED_MAX:
        live = {order.order_id for order in call.exchange.open_orders(call.account)}
        orders[:] = [known for known in orders if known in live]


def _order_request(call: Call, side: Side) -> OrderRequest:
    params, contract = call.params, call.contract()
    label = params.text("label", "")
    if len(label) > LABEL_MAX:
        raise invalid("label", f"max length is {LABEL_MAX}")
    if params.has("advanced"):  # orders priced in USD or in volatility
        raise ApiError(11038 if contract.kind == "future" else 10033)
    kind, time_in_force = params.text("type", "limit"), params.text("time_in_force", "good_til_cancelled")
    if kind not in ("limit", "market") or time_in_force not in _TIMES:
        raise ApiError(10033)
    post_only = params.flag("post_only")
    if post_only and kind == "market":
        raise ApiError(11055)
    if post_only and _TIMES[time_in_force] is not TimeInForce.GTC:
        raise ApiError(11047)
    return OrderRequest(
        account=call.account,
        instrument=contract.instrument.name,
        side=side,
        lots=contract.to_lots(_amount(call, contract)),
        price_ticks=contract.to_ticks(params.decimal("price")) if kind == "limit" else None,
        time_in_force=_TIMES[time_in_force],
        post_only=post_only,
        reject_post_only=params.flag("reject_post_only"),
        reduce_only=params.flag("reduce_only"),
        label=label,
        valid_until_ms=params.integer("valid_until", 0),
    )


def _amount(call: Call, contract: Contract) -> Decimal:
    """`amount`, or `contracts`; both must agree."""
    if not call.params.has("contracts"):
        return call.params.decimal("amount")
    amount = call.params.decimal("contracts") * (1 if contract.kind == "option" else contract.instrument.lot_size)
    if call.params.has("amount") and call.params.decimal("amount") != amount:
        raise invalid("contracts", "amount and contracts do not match")
    return amount


def _executed(call: Call, order: VenueOrder, fills: Iterable[VenueFill]) -> Json:
    contract = call.market.contracts[order.instrument]
    return {
        "order": encodings.order(contract, order),
        "trades": [call.market.fill(f) for f in fills],
    }


def buy(call: Call) -> Json:
    return _create(call, Side.BUY)


def sell(call: Call) -> Json:
    return _create(call, Side.SELL)


def edit(call: Call) -> Json:
    """New amount (what is filled included) and price. post_only is as asked now, not as the order was."""
    order = _known(call)
    contract, params = call.market.contracts[order.instrument], call.params
    lots = contract.to_lots(_amount(call, contract)) if params.has("amount") or params.has("contracts") else order.lots
    ticks = contract.to_ticks(params.decimal("price")) if params.has("price") else order.price_ticks
    try:
        edited, fills = call.exchange.edit(
            call.account,
            order.order_id,
            lots,
            ticks,
            post_only=params.flag("post_only"),
            reject_post_only=params.flag("reject_post_only"),
            reduce_only=params.flag("reduce_only") if params.has("reduce_only") else None,
            valid_until_ms=params.integer("valid_until", 0),
        )
    except Refused as refused:
        raise refusal(refused, order.side) from None
    return _executed(call, edited, fills)


def _known(call: Call) -> VenueOrder:
    """The order that order_id names."""
    try:
        return call.exchange.order(call.account, call.params.text("order_id"))
    except Refused as refused:
        raise refusal(refused) from None


def cancel(call: Call) -> Json:
    order = _known(call)
    try:
        cancelled = call.exchange.cancel(call.account, order.order_id)
    except Refused as refused:
        raise ApiError(11044) if refused.code == "order_closed" else refusal(refused) from None
    return encodings.order(call.market.contracts[order.instrument], cancelled)


def _cancel_each(call: Call, orders: Iterable[VenueOrder]) -> int:
    """How many were cancelled. There are no trigger orders here, so `type` trigger_all finds none."""
    if call.params.flag("detailed"):
        raise ApiError(10033)
    if call.params.text("type", "all") not in ("all", "limit"):
        return 0
    wanted = call.of_kind()
    chosen = [order for order in orders if wanted(order.instrument)]
    return len([call.exchange.cancel(call.account, order.order_id) for order in chosen])


def cancel_all(call: Call) -> Json:
    return _cancel_each(call, call.exchange.open_orders(call.account))


def cancel_all_by_instrument(call: Call) -> Json:
    return _cancel_each(call, call.exchange.open_orders(call.account, call.contract().instrument.name))


def cancel_all_by_currency(call: Call) -> Json:
    return _cancel_each(call, _open(call, call.currency()))


def cancel_by_label(call: Call) -> Json:
    label = call.params.text("label")
    return _cancel_each(call, (order for order in _open(call, call.currency("any")) if order.label == label))


# --- what the venue knows -----------------------------------------------------------------------------


def _open(call: Call, currency: str) -> list[VenueOrder]:
    wanted = call.of_kind(currency)
    return [order for order in call.exchange.open_orders(call.account) if wanted(order.instrument)]


def _orders(call: Call, orders: Iterable[VenueOrder]) -> Json:
    wanted = call.of_kind()
    chosen = [order for order in orders if wanted(order.instrument)]
    return [encodings.order(call.market.contracts[order.instrument], order) for order in chosen]


def get_order_state(call: Call) -> Json:
    order = _known(call)
    return encodings.order(call.market.contracts[order.instrument], order)


def get_order_state_by_label(call: Call) -> Json:
    """All that carry the label, open and recently closed; [] where there is none."""
    currency = call.currency(any_allowed=False)
    orders, wanted = call.exchange.orders_by_label(call.account, call.params.text("label")), call.of_kind(currency)
    return _orders(call, (order for order in orders if wanted(order.instrument)))


def get_open_orders(call: Call) -> Json:
    return _orders(call, call.exchange.open_orders(call.account))


def get_open_orders_by_currency(call: Call) -> Json:
    return _orders(call, _open(call, call.currency()))


def get_open_orders_by_instrument(call: Call) -> Json:
    return _orders(call, call.exchange.open_orders(call.account, call.contract().instrument.name))


def get_open_orders_by_label(call: Call) -> Json:
    label = call.params.text("label", "")
    orders = _open(call, call.currency())
    return _orders(call, (order for order in orders if not label or order.label == label))


def _history(call: Call, orders: Iterable[VenueOrder]) -> Json:
    """Closed ones, newest first. Those without a fill only where include_unfilled asks for them."""
    if call.params.flag("historical"):
        return []
    unfilled, wanted = call.params.flag("include_unfilled"), call.of_kind()
    rows = [order for order in orders if (unfilled or order.filled_lots) and wanted(order.instrument)]
    offset = call.params.integer("offset", 0)
    return _orders(call, rows[offset : offset + call.params.integer("count", 20, at_most=1_000)])


def get_order_history_by_currency(call: Call) -> Json:
    wanted = call.of_kind(call.currency())
    return _history(call, (order for order in call.exchange.order_history(call.account) if wanted(order.instrument)))


def get_order_history_by_instrument(call: Call) -> Json:
    name = call.contract().instrument.name
    return _history(call, (order for order in call.exchange.order_history(call.account) if order.instrument == name))


def _trades(call: Call, fills: Iterable[VenueFill]) -> list[Json]:
    """In the asked order: newest first, unless a start is given. `historical` has nothing recent: nothing."""
    rows = [] if call.params.flag("historical") else list(fills)
    sorting = call.params.text("sorting", "default", one_of=_DIRECTIONS)
    if sorting == "desc" or (sorting == "default" and not call.params.has("start_timestamp")):
        rows = rows[::-1]
    return [call.market.fill(fill) for fill in rows]


def _page(call: Call, fills: Iterable[VenueFill]) -> Json:
    trades = _trades(call, fills)
    count = call.params.integer("count", 10, at_most=1_000)
    return {"trades": trades[:count], "has_more": len(trades) > count}


def get_user_trades_by_instrument(call: Call) -> Json:
    name = call.params.text("instrument_name")
    if name not in call.market.contracts:  # expired ones keep their trades
        raise invalid("instrument_name", "instrument not found")
    first, last = call.params.integer("start_seq", 0), call.params.integer("end_seq", 0)
    fills = call.exchange.fills(call.account, name, *window_ns(call, required=False))
    return _page(call, (f for f in fills if f.trade_seq >= first and (not last or f.trade_seq <= last)))


def get_user_trades_by_currency(call: Call) -> Json:
    wanted = call.of_kind(call.currency())
    fills = call.exchange.fills(call.account, None, *window_ns(call, required=False))
    return _page(call, (f for f in fills if wanted(f.instrument)))


def get_user_trades_by_order(call: Call) -> Json:
    """A bare list, unlike its neighbours."""
    order_id = call.params.text("order_id")
    return _trades(call, (f for f in call.exchange.fills(call.account) if f.order_id == order_id))


def get_position(call: Call) -> Json:
    return call.market.position(call.account, call.contract().instrument.name)


def get_positions(call: Call) -> Json:
    wanted = call.of_kind(call.currency("any"))
    held = [p.instrument for p in call.exchange.positions(call.account) if wanted(p.instrument)]
    return [call.market.position(call.account, name) for name in held]


def _account(call: Call) -> Json:
    return {
        "id": 1,
        "username": call.account,
        "system_name": call.account,
        "type": "main",
        "email": "",
        "login_enabled": True,
        "interuser_transfers_enabled": False,
        "self_trading_reject_mode": "cancel_maker",
        "self_trading_extended_to_subaccounts": False,
        "mmp_enabled": False,
        "creation_timestamp": 0,
    }


def _limits(call: Call) -> Json:
    limits = call.market.limits
    trading = {"rate": limits.matching_rate, "burst": limits.matching_burst}
    return {
        "limits_per_currency": False,
        "matching_engine": {"trading": {"total": trading}, "cancel_all": trading},
        "non_matching_engine": {"rate": limits.other_rate, "burst": limits.other_burst},
    }


def _summary(call: Call, currency: str) -> Json:
    contracts, realised = call.market.contracts, {"future": 0.0, "option": 0.0}
    for held in call.exchange.positions(call.account):
        contract = contracts[held.instrument]
        if contract.is_of("any", currency):
            realised[contract.kind] += held.realised_pnl
    return encodings.summary(call.exchange.summary(call.account, currency)) | {
        "session_rpl": sum(realised.values()),
        "futures_session_rpl": realised["future"],
        "options_session_rpl": realised["option"],
        "limits": _limits(call),
    }


def get_account_summary(call: Call) -> Json:
    summary = _summary(call, call.currency(any_allowed=False))
    return summary | _account(call) | {"fees": []} if call.params.flag("extended") else summary


def get_account_summaries(call: Call) -> Json:
    summaries = [_summary(call, currency) for currency in call.exchange.currencies()]
    return _account(call) | {"summaries": summaries}


_WRITES: tuple[Callable[[Call], Json], ...] = (
    buy, sell, edit, cancel, cancel_all, cancel_all_by_instrument, cancel_all_by_currency, cancel_by_label,
)  # fmt: skip
_READS: tuple[Callable[[Call], Json], ...] = (
    get_order_state, get_order_state_by_label, get_open_orders, get_open_orders_by_currency,
    get_open_orders_by_instrument, get_open_orders_by_label, get_order_history_by_currency,
    get_order_history_by_instrument, get_user_trades_by_instrument, get_user_trades_by_currency,
    get_user_trades_by_order, get_position, get_positions,
)  # fmt: skip
METHODS = (
    {f"private/{run.__name__}": Method(run, "trade:read_write", matching=True) for run in _WRITES}
    | {f"private/{run.__name__}": Method(run, "trade:read") for run in _READS}
    | {f"private/{run.__name__}": Method(run, "account:read") for run in (get_account_summary, get_account_summaries)}
    | {
        "private/get_user_trades_by_instrument_and_time": Method(get_user_trades_by_instrument, "trade:read"),
        "private/get_user_trades_by_currency_and_time": Method(get_user_trades_by_currency, "trade:read"),
    }
)
