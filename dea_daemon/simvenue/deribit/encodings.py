"""The venue's words as Deribit's JSON: amounts and prices as numbers, times in ms, NaN as null or 0 as it does."""

import math

from dea_daemon.domain.instruments import Kind, Side
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_MS, from_steps
from dea_daemon.domain.orders import TimeInForce
from dea_daemon.simvenue.deribit import options
from dea_daemon.simvenue.deribit.contract import Contract
from dea_daemon.simvenue.deribit.session import Json
from dea_daemon.simvenue.words import (
    Book,
    OptionQuote,
    Summary,
    Ticker,
    Traded,
    VenueFill,
    VenueOrder,
    VenuePosition,
)  # fmt: skip

NEVER_MS = 32_503_708_800_000  # a perpetual's expiry: the year 3000
TIMES_IN_FORCE = {TimeInForce.GTC: "good_til_cancelled", TimeInForce.IOC: "immediate_or_cancel"}


def ms(ns: int) -> int:
    """Nanoseconds as the venue's milliseconds."""
    return ns // NS_PER_MS


def or_zero(number: float) -> float:
    """Deribit says 0.0 for a side of the book that is empty."""
    return 0.0 if math.isnan(number) else number


def instrument(contract: Contract, listed: bool) -> Json:
    """One row of get_instruments; one that is not listed has expired."""
    i = contract.instrument
    of_kind = options.instrument(contract) if contract.kind == "option" else _of_future(contract)
    return of_kind | {
        "instrument_name": i.name,
        "instrument_id": contract.number,
        "base_currency": i.underlying,
        "quote_currency": i.quote_currency,
        "settlement_currency": i.settle_currency,
        "price_index": contract.index_name,
        "min_trade_amount": float(from_steps(i.min_lots, i.lot_size)),
        "tick_size": float(contract.least_tick),
        "tick_size_steps": [
            {"above_price": float(s.above_price), "tick_size": float(s.tick_size)}
            for s in i.tick_steps
            if s.above_price > 0
        ],
        "maker_commission": i.maker_fee,
        "taker_commission": i.taker_fee,
        "block_trade_commission": i.taker_fee / 2,
        "expiration_timestamp": ms(i.expiry_ns) if i.expiry_ns else NEVER_MS,
        "creation_timestamp": ms(contract.created_ns),
        "is_active": listed,
        "state": "open" if listed else "closed",
        "rfq": False,
    }


def _of_future(contract: Contract) -> Json:
    i = contract.instrument
    kind = "reversed" if contract.inverse else "linear"
    return {
        "kind": "future",
        "instrument_type": kind,
        "future_type": kind,
        "counter_currency": i.quote_currency,
        "settlement_period": "perpetual" if i.kind is Kind.PERPETUAL else _period(i.expiry_ns, contract.created_ns),
        "contract_size": float(i.lot_size),
        "block_trade_min_trade_amount": 200_000,
        "block_trade_tick_size": 0.01,
        "max_leverage": 50,
        "max_liquidation_commission": 0.0075,
    }


def _period(expiry_ns: int, created_ns: int) -> str:
    """By how far away it is: the venue's own naming goes by the kind of expiry day."""
    return "week" if expiry_ns - created_ns < 10 * NS_PER_DAY else "month"


def ticker(contract: Contract, t: Ticker, band: tuple[float, float], future: str) -> Json:
    """public/ticker, and the ticker channel. `band` are the lowest and highest price of an order, `future` is an
    option's underlying index."""
    i = contract.instrument
    low, high = band
    reply = {
        "timestamp": ms(t.ts_ns),
        "stats": contract.stats.encode(t.last_price),
        "state": "open",
        "settlement_price": 0.0 if t.option else t.index_price,
        "open_interest": contract.near_amount(t.open_interest),
        "min_price": round(low, 4),
        "max_price": round(high, 4),
        "mark_price": round(t.mark_price, 8),
        "last_price": contract.near_price(t.last_price),
        "instrument_name": i.name,
        "index_price": t.index_price,
        "estimated_delivery_price": _delivery_price(t),
        "best_bid_price": or_zero(contract.near_price(t.best_bid)),
        "best_bid_amount": or_zero(contract.near_amount(t.best_bid_amount)),
        "best_ask_price": or_zero(contract.near_price(t.best_ask)),
        "best_ask_amount": or_zero(contract.near_amount(t.best_ask_amount)),
    }
    if t.option:
        reply |= options.ticker(contract, t, t.option, future)
    if i.kind is Kind.PERPETUAL:
        reply |= {
            "funding_8h": t.funding_rate_8h,
            "current_funding": t.current_funding,
            "interest_value": t.funding_rate_8h,
        }
    return reply


def _delivery_price(t: Ticker) -> float:
    """The average of the settlement window so far, outside of it the index."""
    return t.index_price if math.isnan(t.delivery_price) else t.delivery_price


def quote(contract: Contract, book: Book) -> Json:
    """The quote channel: the top of the book."""
    bid, ask = (book.bids or [(0, 0)])[0], (book.asks or [(0, 0)])[0]
    return {
        "timestamp": ms(book.ts_ns),
        "instrument_name": contract.instrument.name,
        "best_bid_price": contract.price(bid[0]),
        "best_bid_amount": contract.amount(bid[1]),
        "best_ask_price": contract.price(ask[0]),
        "best_ask_amount": contract.amount(ask[1]),
    }


def levels(contract: Contract, side: list[tuple[int, int]]) -> list[Json]:
    """[price, amount] pairs."""
    return [[contract.price(ticks), contract.amount(lots)] for ticks, lots in side]


def book_summary(contract: Contract, t: Ticker, future: str) -> Json:
    """One row of get_book_summary_by_currency. A price is null where there is none."""
    i = contract.instrument
    stats = contract.stats.encode(t.last_price)
    row = {
        "instrument_name": i.name,
        "base_currency": i.underlying,
        "quote_currency": i.quote_currency,
        "creation_timestamp": ms(t.ts_ns),
        "bid_price": contract.near_price(t.best_bid),
        "ask_price": contract.near_price(t.best_ask),
        "mid_price": round((t.best_bid + t.best_ask) / 2, 6),
        "last": contract.near_price(t.last_price),
        "mark_price": round(t.mark_price, 8),
        "open_interest": contract.near_amount(t.open_interest),
        "estimated_delivery_price": _delivery_price(t),
        **stats,
    }
    if t.option:
        row |= options.book_summary(t.option, future)
    if i.kind is Kind.PERPETUAL:
        row |= {"funding_8h": t.funding_rate_8h, "current_funding": t.current_funding}
    return row


def trade(contract: Contract, t: Traded, quote: OptionQuote | None) -> Json:
    """A public trade; `quote` is an option's now, None where it has expired."""
    reply = {
        "trade_id": t.trade_id,
        "trade_seq": t.trade_seq,
        "timestamp": ms(t.ts_ns),
        "tick_direction": 0 if t.side is Side.BUY else 2,
        "price": contract.price(t.price_ticks),
        "mark_price": t.mark_price,
        "index_price": t.index_price,
        "instrument_name": contract.instrument.name,
        "direction": str(t.side),
        "amount": contract.amount(t.lots),
        "contracts": contract.contracts(t.lots),
    }
    liquidated = {"liquidation": "T"} if t.liquidation else {}
    return reply | liquidated | (options.traded(contract, t, quote) if contract.kind == "option" else {})


def order(contract: Contract, o: VenueOrder) -> Json:
    """An order, in replies and in user.orders."""
    reply = {
        "order_id": o.order_id,
        "order_state": o.state,
        "order_type": _type(o),
        "instrument_name": o.instrument,
        "direction": str(o.side),
        "price": contract.price(o.price_ticks),
        "amount": contract.amount(o.lots),
        "contracts": contract.contracts(o.lots),
        "filled_amount": contract.amount(o.filled_lots),
        "average_price": _average(o),
        "commission": o.commission,
        "time_in_force": TIMES_IN_FORCE[o.time_in_force],
        "post_only": o.post_only,
        "reduce_only": o.reduce_only,
        "label": o.label,
        "replaced": o.replaced,
        "max_show": contract.amount(o.lots),
        "creation_timestamp": ms(o.created_ns),
        "last_update_timestamp": ms(o.updated_ns),
        "api": True,
        "web": False,
        "mmp": False,
        "risk_reducing": False,
        "is_liquidation": o.is_liquidation,
        "profit_loss": 0.0,
    }
    return reply | ({"cancel_reason": o.cancel_reason} if o.cancel_reason else {})


def _type(o: VenueOrder) -> str:
    return "liquidation" if o.is_liquidation else "market" if o.is_market else "limit"


def _average(o: VenueOrder) -> float:
    """filled_value sums price times lots."""
    return round(o.filled_value / o.filled_lots, 8) if o.filled_lots else 0.0


def fill(contract: Contract, f: VenueFill, o: VenueOrder | None, quote: OptionQuote | None) -> Json:
    """A user trade; `o` is its order, None when the venue forgot it; `quote` as of a public trade."""
    i = contract.instrument
    reply = {
        "trade_id": f.trade_id,
        "trade_seq": f.trade_seq,
        "timestamp": ms(f.ts_ns),
        "tick_direction": 0 if f.side is Side.BUY else 2,
        "order_id": f.order_id,
        "order_type": _type(o) if o else "limit",
        "state": o.state if o else "archive",
        "instrument_name": i.name,
        "direction": str(f.side),
        "price": contract.price(f.price_ticks),
        "amount": contract.amount(f.lots),
        "contracts": contract.contracts(f.lots),
        "fee": f.fee,
        "fee_currency": i.settle_currency,
        "liquidity": "M" if f.is_maker else "T",
        "mark_price": f.mark_price,
        "index_price": f.index_price,
        "profit_loss": f.pnl,
        "post_only": bool(o and o.post_only),
        "reduce_only": bool(o and o.reduce_only),
        "self_trade": False,
        "matching_id": None,
        "api": True,
        "mmp": False,
        "risk_reducing": False,
    }
    if f.liquidation:
        reply["liquidation"] = "T"  # M, T or MT: which side was liquidated; the maker is told it, too
    if contract.kind == "option":
        reply |= options.traded(contract, f, quote)
    return reply | ({"label": f.label} if f.label else {})


def position(
    contract: Contract, p: VenuePosition, t: Ticker | None, margins: tuple[float, float], leverage: int
) -> Json:
    """A position: `size` in USD (inverse) or coins, signed. `t` None where the contract is gone; `margins` are
    initial and maintenance."""
    size, mark, index = contract.amount(p.lots), p.entry_price, p.entry_price
    if t is not None:
        mark, index = t.mark_price, t.index_price
    floating, coins = 0.0, 0.0
    if p.lots:
        coins = contract.coins(size, mark)
        floating = size / p.entry_price - size / mark if contract.inverse else size * (mark - p.entry_price)
    reply = {
        "instrument_name": p.instrument,
        "kind": contract.kind,
        "direction": "buy" if p.lots > 0 else "sell" if p.lots < 0 else "zero",
        "size": size,
        "average_price": p.entry_price,
        "mark_price": mark,
        "index_price": index,
        "settlement_price": index,
        "floating_profit_loss": floating,
        "realized_profit_loss": p.realised_pnl,
        "total_profit_loss": floating + p.realised_pnl,
        "initial_margin": margins[0],
        "maintenance_margin": margins[1],
        "open_orders_margin": 0.0,
    }
    if contract.kind == "option":
        return reply | options.position(contract, p, t, floating)
    return reply | {
        "size_currency": coins,
        "delta": coins,
        "realized_funding": -p.funding_paid,
        "estimated_liquidation_price": None,
        "leverage": leverage,
    }


def summary(s: Summary) -> Json:
    """One margin pool: user.portfolio, and the core of get_account_summary. Options back no margin."""
    backing = s.equity - s.options_value
    return {
        "currency": s.currency,
        "balance": s.cash,
        "equity": s.equity,
        "margin_balance": backing,
        "available_funds": max(backing - s.initial_margin, 0.0),
        "available_withdrawal_funds": max(min(s.cash, backing) - s.initial_margin, 0.0),
        "initial_margin": s.initial_margin,
        "maintenance_margin": s.maintenance_margin,
        "projected_initial_margin": s.initial_margin,
        "projected_maintenance_margin": s.maintenance_margin,
        "session_upl": s.unrealised_pnl,
        "session_funding": s.session_funding,
        "futures_session_upl": s.unrealised_pnl,
        "futures_pl": s.unrealised_pnl,
        "total_pl": s.unrealised_pnl,
        "delta_total": s.delta_total,
        "projected_delta_total": s.delta_total,
        "fee_balance": 0.0,
        "spot_reserve": 0.0,
        "additional_reserve": 0.0,
        "options_value": s.options_value,
        "options_pl": 0.0,
        "options_session_upl": 0.0,
        "options_delta": s.options_delta,
        "options_gamma": s.options_gamma,
        "options_vega": s.options_vega,
        "options_theta": s.options_theta,
        "margin_model": "segregated_sm",
        "portfolio_margining_enabled": False,
        "cross_collateral_enabled": False,
    }
