"""Deribit's objects in our words: contracts, orders, fills, positions, pools.

The same fields come by websocket and by HTTP, so the codec and the gateway share these. Each function takes
the venue's own JSON object (a dict) and returns None where the contract is not in the universe; it raises
VenueError where the object cannot be read. Amounts are Deribit's: USD for inverse contracts, coins otherwise.

Source: Deribit API v2, private/get_order_state, private/get_user_trades_by_order, private/get_positions,
private/get_account_summary, private/get_settlement_history_by_currency, public/get_instruments.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, TypeVar

import msgspec

from dea_daemon.domain.errors import InvariantViolation, VenueError
from dea_daemon.domain.events import (
    FillReceived,
    OrderSeen,
    PoolReport,
    PositionReport,
    Settlement,
    VenueOrderState,
)
from dea_daemon.domain.instruments import Instrument, Kind, Payoff, Side, TickStep, Universe
from dea_daemon.domain.numbers import as_decimal, ms_to_ns, to_lots
from dea_daemon.feeds.codec import NAN

# Deribit takes no more than this share of an option's premium as fee. Source: its schedule of fees.
OPTION_FEE_CAP = 0.125

Info = Mapping[str, Any]
T = TypeVar("T")

_STATES = {
    "open": VenueOrderState.OPEN,
    "untriggered": VenueOrderState.OPEN,  # a stop that waits: live all the same
    "triggered": VenueOrderState.OPEN,
    "filled": VenueOrderState.FILLED,
    "cancelled": VenueOrderState.CANCELLED,
    "rejected": VenueOrderState.REJECTED,
}


class _Order(msgspec.Struct):
    instrument_name: str
    order_id: str
    order_state: str
    direction: Side
    amount: float
    price: float | str = 0.0  # "market_price" on market orders
    filled_amount: float = 0.0
    label: str = ""
    last_update_timestamp: int = 0
    cancel_reason: str = ""
    reject_reason: str = ""


class _Trade(msgspec.Struct):
    instrument_name: str
    trade_id: str
    order_id: str
    direction: Side
    amount: float
    price: float
    fee: float
    fee_currency: str
    timestamp: int
    liquidity: str = ""  # M maker, T taker, MT both (a trade with oneself)
    label: str = ""
    liquidation: str | None = None  # the side that was liquidated: M, T, or MT


class _Position(msgspec.Struct):
    instrument_name: str
    size: float  # signed; USD for inverse futures, coins otherwise
    average_price: float = 0.0


class _Delivery(msgspec.Struct):
    instrument_name: str
    timestamp: int
    position: float  # signed, as a position's size
    index_price: float
    profit_loss: float


class _Pool(msgspec.Struct):
    currency: str
    equity: float | None = None
    balance: float | None = None
    initial_margin: float | None = None
    maintenance_margin: float | None = None
    session_funding: float | None = None


class _TickStep(msgspec.Struct):
    above_price: float
    tick_size: float


class _Contract(msgspec.Struct):
    instrument_name: str
    kind: str
    base_currency: str
    quote_currency: str
    contract_size: float
    min_trade_amount: float
    tick_size: float
    tick_size_steps: list[_TickStep] = []
    settlement_period: str = ""
    settlement_currency: str = ""
    instrument_type: str = ""
    maker_commission: float = 0.0
    taker_commission: float = 0.0
    expiration_timestamp: int = 0
    strike: float = 0.0
    option_type: Literal["call", "put", ""] = ""
    is_active: bool = True
    state: str = "open"


def _read(info: Info, shape: type[T]) -> T:
    try:
        return msgspec.convert(info, shape, strict=False)
    except msgspec.ValidationError as error:
        raise VenueError(f"unreadable {shape.__name__[1:].lower()}: {error}") from error


def order_from(info: Info, universe: Universe, account: int, ts_recv_ns: int) -> OrderSeen | None:
    """The venue's word about one order; `label` is our client_order_id."""
    order = _read(info, _Order)
    row = universe.row(account, order.instrument_name)
    if row is None:
        return None
    state = _STATES.get(order.order_state)
    if state is None:
        raise VenueError(f"unknown order_state: {order.order_state}")
    instrument = universe.instruments[row]
    try:
        lots = instrument.amount_to_lots(order.amount)
        filled_lots = instrument.amount_to_lots(order.filled_amount)
        ticks = 0 if isinstance(order.price, str) else instrument.price_to_ticks(order.price)
    except InvariantViolation as error:
        raise VenueError(f"unreadable order: {error}") from error
    return OrderSeen(
        ts_recv_ns,
        ms_to_ns(order.last_update_timestamp),
        account,
        row,
        client_order_id=order.label,
        venue_order_id=order.order_id,
        state=state,
        side=order.direction,
        lots=lots,
        filled_lots=filled_lots,
        price_ticks=ticks,
        reason=order.reject_reason or order.cancel_reason,
    )


def fill_from(info: Info, universe: Universe, account: int, ts_recv_ns: int) -> FillReceived | None:
    """One execution in our account. Told of a liquidation are both its sides: only one of them was liquidated."""
    trade = _read(info, _Trade)
    row = universe.row(account, trade.instrument_name)
    if row is None:
        return None
    instrument = universe.instruments[row]
    try:
        lots = instrument.amount_to_lots(trade.amount)
        ticks = instrument.price_to_ticks(trade.price)
    except InvariantViolation as error:
        raise VenueError(f"unreadable trade: {error}") from error
    return FillReceived(
        ts_recv_ns,
        ms_to_ns(trade.timestamp),
        account,
        row,
        trade_id=trade.trade_id,
        venue_order_id=trade.order_id,
        client_order_id=trade.label,
        side=trade.direction,
        lots=lots,
        price_ticks=ticks,
        fee=trade.fee,
        fee_currency=trade.fee_currency,
        is_maker=trade.liquidity == "M",
        liquidation=(trade.liquidity or "T") in (trade.liquidation or ()),
    )


def position_from(info: Info, universe: Universe, account: int) -> PositionReport | None:
    """One row of get_positions; lots are signed."""
    position = _read(info, _Position)
    row = universe.row(account, position.instrument_name)
    if row is None:
        return None
    try:
        lots = universe.instruments[row].amount_to_lots(position.size)
    except InvariantViolation as error:
        raise VenueError(f"unreadable position: {error}") from error
    return PositionReport(row, lots, position.average_price)


def settlement_from(info: Info, universe: Universe, account: int) -> Settlement | None:
    """One delivery of get_settlement_history_by_currency: a position that its contract's expiry ended.

    The venue says that profit_loss is in the settle currency, and not whether an option's contains the premium or the
    delivery's fee. We take it as the cash that moved: an option's payoff, or a future's result, less the fee.
    """
    delivery = _read(info, _Delivery)
    row = universe.row(account, delivery.instrument_name)
    if row is None:
        return None
    instrument = universe.instruments[row]
    try:
        lots = instrument.amount_to_lots(delivery.position)
    except InvariantViolation as error:
        raise VenueError(f"unreadable delivery: {error}") from error
    return Settlement(
        account,
        row,
        ms_to_ns(delivery.timestamp),
        lots,
        price=delivery.index_price,
        profit=delivery.profit_loss,
        currency=instrument.settle_currency,
    )


def pool_from(info: Info) -> PoolReport:
    """One currency of get_account_summary or user.portfolio; `balance` is cash."""
    pool = _read(info, _Pool)
    figures = (pool.equity, pool.balance, pool.initial_margin, pool.maintenance_margin)
    equity, cash, initial, maintenance = (NAN if figure is None else figure for figure in figures)
    return PoolReport(pool.currency, equity, cash, initial, maintenance, pool.session_funding or 0.0)


def instrument_from(info: Info, venue: str = "deribit") -> Instrument | None:
    """One row of get_instruments; None for kinds the house has no word for (combos).

    contract_size is 1 throughout: an amount is USD (inverse) or coins already. A lot is the smaller of the
    venue's contract_size and min_trade_amount. Coin-settled options ("reversed" to the venue) are linear in their
    coin price, which is their quote currency. Spot is listed, and not traded: a balance is an exposure already.
    """
    contract = _read(info, _Contract)
    perpetual = contract.settlement_period == "perpetual"
    kinds = {
        "future": Kind.PERPETUAL if perpetual else Kind.FUTURE,
        "option": Kind.OPTION,
        "spot": Kind.SPOT,
    }
    if contract.kind not in kinds:
        return None
    inverse = contract.kind == "future" and contract.quote_currency == "USD"
    settle = contract.settlement_currency or (
        contract.base_currency if inverse or contract.kind == "option" else contract.quote_currency
    )
    try:
        least = as_decimal(contract.min_trade_amount)
        lot_size = min(as_decimal(contract.contract_size), least)
        steps = tuple(TickStep(as_decimal(s.above_price), as_decimal(s.tick_size)) for s in contract.tick_size_steps)
        tick_size = as_decimal(contract.tick_size)
    except InvariantViolation as error:
        raise VenueError(f"unreadable contract: {error}") from error
    return Instrument(
        venue=venue,
        name=contract.instrument_name,
        kind=kinds[contract.kind],
        payoff=Payoff.INVERSE if inverse else Payoff.LINEAR,
        underlying=contract.base_currency,
        quote_currency=contract.quote_currency,
        settle_currency=settle,
        margin_pool=settle,
        contract_size=Decimal(1),
        lot_size=lot_size,
        tick_size=tick_size,
        tick_steps=tuple(sorted(steps, key=lambda step: step.above_price)),
        min_lots=max(1, to_lots(least, lot_size, "up")),
        maker_fee=contract.maker_commission,
        taker_fee=contract.taker_commission,
        expiry_ns=0 if perpetual or contract.kind == "spot" else ms_to_ns(contract.expiration_timestamp),
        strike=contract.strike,
        is_call=contract.option_type == "call",
        tradable=contract.kind != "spot" and contract.is_active and contract.state == "open",
        fee_cap=OPTION_FEE_CAP if contract.kind == "option" else 0.0,
    )
