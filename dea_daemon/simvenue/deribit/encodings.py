"""The venue's words as Deribit's JSON: amounts and prices as numbers, times in ms, NaN as null or 0 as it does."""

import math
from dataclasses import dataclass, field
from decimal import Decimal

from dea_daemon.domain.instruments import Instrument, Kind, Payoff, Side
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_MS, from_steps
from dea_daemon.domain.orders import TimeInForce
from dea_daemon.simvenue.deribit.errors import invalid
from dea_daemon.simvenue.deribit.session import Json
from dea_daemon.simvenue.scenarios import Scenario
from dea_daemon.simvenue.words import (
    Book,
    Summary,
    Ticker,
    Traded,
    VenueFill,
    VenueOrder,
    VenuePosition,
)  # fmt: skip

NEVER_MS = 32_503_708_800_000  # a perpetual's expiry: the year 3000
TIMES_IN_FORCE = {TimeInForce.GTC: "good_til_cancelled", TimeInForce.IOC: "immediate_or_cancel"}
_FAR_NS = round(DAYS_PER_YEAR) * NS_PER_DAY


def ms(ns: int) -> int:
    """Nanoseconds as the venue's milliseconds."""
    return ns // NS_PER_MS


def or_zero(number: float) -> float:
    """Deribit says 0.0 for a side of the book that is empty."""
    return 0.0 if math.isnan(number) else number


@dataclass(slots=True)
class Contract:
    """An instrument with its scales, kept after it expired: its orders and fills still want them."""

    instrument: Instrument
    number: int
    created_ns: int
    stats: "Stats" = field(init=False)
    _tick: tuple[int, int] = field(init=False)
    _lot: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self._tick = self.instrument.tick_size.as_integer_ratio()
        self._lot = self.instrument.lot_size.as_integer_ratio()
        self.stats = Stats()

    @property
    def inverse(self) -> bool:
        return self.instrument.payoff is Payoff.INVERSE

    @property
    def index_name(self) -> str:
        return f"{self.instrument.underlying}_{self.instrument.quote_currency}".lower()

    def price(self, ticks: int) -> float:
        """The float nearest to the decimal price: a quotient of integers rounds once."""
        return ticks * self._tick[0] / self._tick[1]

    def amount(self, lots: int) -> float:
        return lots * self._lot[0] / self._lot[1]

    def near_price(self, price: float) -> float:
        """A float price of the venue's, without the noise of having been multiplied; NaN stays."""
        return price if math.isnan(price) else self.price(round(price * self._tick[1] / self._tick[0]))

    def near_amount(self, amount: float) -> float:
        """Likewise an amount."""
        return amount if math.isnan(amount) else self.amount(round(amount * self._lot[1] / self._lot[0]))

    def to_lots(self, amount: Decimal) -> int:
        """An order's amount, exactly on the grid."""
        lots, rest = divmod(amount, self.instrument.lot_size)
        if rest or lots < self.instrument.min_lots:
            raise invalid("amount", "must be a multiple of contract size" if rest else "amount too low")
        return int(lots)

    def to_ticks(self, price: Decimal) -> int:
        """An order's price, exactly on the grid in force there."""
        ticks, rest = divmod(price, self.instrument.tick_size)
        if rest or not self.instrument.on_grid(int(ticks)):
            raise invalid("price", "must conform to tick size")
        return int(ticks)

    def coins(self, amount: float, price: float) -> float:
        """An amount in the underlying."""
        return amount / price if self.inverse else amount


@dataclass(slots=True)
class Stats:
    """What was traded since the venue started (Deribit: in 24 h). Volume in coins, notional in the quote."""

    first: float = math.nan
    low: float = math.nan
    high: float = math.nan
    volume: float = 0.0
    notional: float = 0.0

    def add(self, contract: Contract, trade: Traded) -> None:
        price, amount = contract.price(trade.price_ticks), contract.amount(trade.lots)
        self.first = price if math.isnan(self.first) else self.first
        self.low, self.high = min(price, self.low), max(price, self.high)  # NaN loses: it stands second
        self.volume += contract.coins(amount, price)
        self.notional += amount if contract.inverse else amount * price

    def encode(self, last: float) -> Json:
        return {
            "volume": self.volume,
            "volume_usd": self.notional,
            "volume_notional": self.notional,
            "price_change": round(100.0 * (last / self.first - 1.0), 4),
            "low": self.low,
            "high": self.high,
        }


def instrument(contract: Contract, now_ns: int) -> Json:
    """One row of get_instruments."""
    i = contract.instrument
    perpetual = i.kind is Kind.PERPETUAL
    kind = "reversed" if contract.inverse else "linear"
    return {
        "instrument_name": i.name,
        "instrument_id": contract.number,
        "kind": "future",
        "instrument_type": kind,
        "future_type": kind,
        "base_currency": i.underlying,
        "quote_currency": i.quote_currency,
        "counter_currency": i.quote_currency,
        "settlement_currency": i.settle_currency,
        "settlement_period": "perpetual" if perpetual else _period(i.expiry_ns, contract.created_ns),
        "price_index": contract.index_name,
        "contract_size": float(i.lot_size),
        "min_trade_amount": float(from_steps(i.min_lots, i.lot_size)),
        "tick_size": float(i.tick_size),
        "tick_size_steps": [
            {"above_price": float(s.above_price), "tick_size": float(s.tick_size)} for s in i.tick_steps
        ],
        "maker_commission": i.maker_fee,
        "taker_commission": i.taker_fee,
        "block_trade_commission": i.taker_fee / 2,
        "block_trade_min_trade_amount": 200_000,
        "block_trade_tick_size": 0.01,
        "max_leverage": 50,
        "max_liquidation_commission": 0.0075,
        "expiration_timestamp": NEVER_MS if perpetual else ms(i.expiry_ns),
        "creation_timestamp": ms(contract.created_ns),
        "is_active": i.expiry_ns == 0 or now_ns < i.expiry_ns,
        "state": "open",
        "rfq": False,
    }


def _period(expiry_ns: int, created_ns: int) -> str:
    """By how far away it is: the venue's own naming goes by the kind of expiry day."""
    return "week" if expiry_ns - created_ns < 10 * NS_PER_DAY else "month"


def ticker(contract: Contract, t: Ticker, scenario: Scenario) -> Json:
    """public/ticker, and the ticker channel."""
    i = contract.instrument
    reply = {
        "timestamp": ms(t.ts_ns),
        "stats": contract.stats.encode(t.last_price),
        "state": "open",
        "settlement_price": t.index_price,
        "open_interest": contract.near_amount(t.open_interest),
        "min_price": round(t.mark_price * (1.0 - scenario.price_band), 4),
        "max_price": round(t.mark_price * (1.0 + scenario.price_band), 4),
        "mark_price": t.mark_price,
        "last_price": contract.near_price(t.last_price),
        "instrument_name": i.name,
        "index_price": t.index_price,
        "estimated_delivery_price": t.index_price,
        "best_bid_price": or_zero(contract.near_price(t.best_bid)),
        "best_bid_amount": or_zero(contract.near_amount(t.best_bid_amount)),
        "best_ask_price": or_zero(contract.near_price(t.best_ask)),
        "best_ask_amount": or_zero(contract.near_amount(t.best_ask_amount)),
    }
    if i.kind is Kind.PERPETUAL:
        reply |= {
            "funding_8h": t.funding_rate_8h,
            "current_funding": t.current_funding,
            "interest_value": t.funding_rate_8h,
        }
    return reply


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


def book_summary(contract: Contract, t: Ticker) -> Json:
    """One row of get_book_summary_by_currency."""
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
        "mark_price": t.mark_price,
        "open_interest": contract.near_amount(t.open_interest),
        "estimated_delivery_price": t.index_price,
        **stats,
    }
    if i.kind is Kind.PERPETUAL:
        row |= {"funding_8h": t.funding_rate_8h, "current_funding": t.current_funding}
    return row


def trade(contract: Contract, t: Traded) -> Json:
    """A public trade."""
    amount = contract.amount(t.lots)
    return {
        "trade_id": t.trade_id,
        "trade_seq": t.trade_seq,
        "timestamp": ms(t.ts_ns),
        "tick_direction": 0 if t.side is Side.BUY else 2,
        "price": contract.price(t.price_ticks),
        "mark_price": t.mark_price,
        "index_price": t.index_price,
        "instrument_name": contract.instrument.name,
        "direction": str(t.side),
        "amount": amount,
        "contracts": float(t.lots),
    }


def order(contract: Contract, o: VenueOrder) -> Json:
    """An order, in replies and in user.orders."""
    reply = {
        "order_id": o.order_id,
        "order_state": o.state,
        "order_type": "market" if o.is_market else "limit",
        "instrument_name": o.instrument,
        "direction": str(o.side),
        "price": contract.price(o.price_ticks),
        "amount": contract.amount(o.lots),
        "contracts": float(o.lots),
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
        "is_liquidation": False,
        "profit_loss": 0.0,
    }
    return reply | ({"cancel_reason": o.cancel_reason} if o.cancel_reason else {})


def _average(o: VenueOrder) -> float:
    """filled_value sums price times lots."""
    return round(o.filled_value / o.filled_lots, 8) if o.filled_lots else 0.0


def fill(contract: Contract, f: VenueFill, o: VenueOrder | None) -> Json:
    """A user trade; `o` is its order, None when the venue forgot it."""
    i = contract.instrument
    reply = {
        "trade_id": f.trade_id,
        "trade_seq": f.trade_seq,
        "timestamp": ms(f.ts_ns),
        "tick_direction": 0 if f.side is Side.BUY else 2,
        "order_id": f.order_id,
        "order_type": "liquidation" if f.liquidation else ("market" if o and o.is_market else "limit"),
        "state": o.state if o else "archive",
        "instrument_name": i.name,
        "direction": str(f.side),
        "price": contract.price(f.price_ticks),
        "amount": contract.amount(f.lots),
        "contracts": float(f.lots),
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
    return reply | ({"label": f.label} if f.label else {})


def position(contract: Contract, p: VenuePosition, t: Ticker | None, scenario: Scenario) -> Json:
    """A position: `size` in USD (inverse) or coins (linear), signed. `t` None where the contract is gone."""
    size, mark, index = contract.amount(p.lots), p.entry_price, p.entry_price
    if t is not None:
        mark, index = t.mark_price, t.index_price
    floating, coins, notional = 0.0, 0.0, 0.0  # notional in the settle currency
    if p.lots:
        coins = contract.coins(size, mark)
        notional = abs(coins) if contract.inverse else abs(size) * mark
        floating = size / p.entry_price - size / mark if contract.inverse else size * (mark - p.entry_price)
    coin_rate = scenario.coins[contract.instrument.underlying].im_per_coin * abs(coins)
    initial = notional * (scenario.initial_margin + coin_rate)
    return {
        "instrument_name": p.instrument,
        "kind": "future",
        "direction": "buy" if p.lots > 0 else "sell" if p.lots < 0 else "zero",
        "size": size,
        "size_currency": coins,
        "average_price": p.entry_price,
        "mark_price": mark,
        "index_price": index,
        "settlement_price": index,
        "delta": coins,
        "floating_profit_loss": floating,
        "realized_profit_loss": p.realised_pnl,
        "realized_funding": -p.funding_paid,
        "total_profit_loss": floating + p.realised_pnl,
        "initial_margin": initial,
        "maintenance_margin": notional * (scenario.maintenance_margin + coin_rate),
        "open_orders_margin": 0.0,
        "estimated_liquidation_price": None,
        "leverage": round(1.0 / scenario.initial_margin),
    }


def summary(s: Summary) -> Json:
    """One margin pool: user.portfolio, and the core of get_account_summary."""
    return {
        "currency": s.currency,
        "balance": s.cash,
        "equity": s.equity,
        "margin_balance": s.equity,
        "available_funds": max(s.equity - s.initial_margin, 0.0),
        "available_withdrawal_funds": max(min(s.cash, s.equity) - s.initial_margin, 0.0),
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
        "options_value": 0.0,
        "options_pl": 0.0,
        "options_delta": 0.0,
        "options_gamma": 0.0,
        "options_vega": 0.0,
        "options_theta": 0.0,
        "margin_model": "segregated_sm",
        "portfolio_margining_enabled": False,
        "cross_collateral_enabled": False,
    }
