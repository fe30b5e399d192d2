"""The independent witness: what happened at the venue, one line an event, written by the venue alone.

Prices in the quote currency, amounts in the venue's unit (signed in position_after), times in ms.
"""

from dea_daemon.domain.instruments import Side
from dea_daemon.simvenue.deribit.call import Call
from dea_daemon.simvenue.deribit.contract import Contract
from dea_daemon.simvenue.deribit.encodings import ms
from dea_daemon.simvenue.deribit.errors import ApiError
from dea_daemon.simvenue.deribit.session import Json
from dea_daemon.simvenue.words import (
    Filled,
    FundingPaid,
    Liquidated,
    OrderChanged,
    Settled,
    VenueEvent,
)  # fmt: skip


def line(event: VenueEvent, contracts: dict[str, Contract]) -> Json:
    """The line of an event, None for those nobody needs a witness for."""
    match event:
        case OrderChanged(what=what) if what != "filled":
            return _order(event, contracts[event.order.instrument])
        case Filled():
            return _fill(event, contracts[event.fill.instrument])
        case Settled(ts_ns=ts_ns, account=account, instrument=name):
            ended = {"amount": contracts[name].amount(event.lots), "price": event.settlement_price, "pnl": event.pnl}
            return _head("position.settled", ts_ns, account, name) | ended | {"position_after": 0.0}
        case Liquidated(ts_ns=ts_ns, account=account, instrument=name):
            return _head("position.liquidated", ts_ns, account, name) | {"amount": contracts[name].amount(event.lots)}
        case FundingPaid(ts_ns=ts_ns, account=account, instrument=name):
            return _head("funding.paid", ts_ns, account, name) | {"amount": event.amount}
    return None


def rejected(call: Call, side: Side, error: ApiError) -> Json:
    """A create that was refused; label, amount and price as they came."""
    asked = {name: call.params.shown(name) for name in ("label", "amount", "price")}
    head = _head("order.rejected", call.now_ns, call.account, call.params.shown("instrument_name"))
    return head | asked | {"side": str(side), "code": error.code, "why": error.message}


def _head(event: str, ts_ns: int, account: str, instrument: str) -> Json:
    return {"ts": ms(ts_ns), "event": event, "account": account, "instrument": instrument}


def _order(event: OrderChanged, contract: Contract) -> Json:
    order = event.order
    return _head(f"order.{event.what}", order.updated_ns, order.account, order.instrument) | {
        "label": order.label,
        "order_id": order.order_id,
        "side": str(order.side),
        "amount": contract.amount(order.lots),
        "filled_amount": contract.amount(order.filled_lots),
        "price": contract.price(order.price_ticks),
        "position_after": contract.amount(event.position_after),
    }


def _fill(event: Filled, contract: Contract) -> Json:
    fill = event.fill
    return _head("order.filled", fill.ts_ns, fill.account, fill.instrument) | {
        "label": fill.label,
        "order_id": fill.order_id,
        "trade_id": fill.trade_id,
        "side": str(fill.side),
        "amount": contract.amount(fill.lots),
        "price": contract.price(fill.price_ticks),
        "fee": fill.fee,
        "position_after": contract.amount(event.position_after),
    }
