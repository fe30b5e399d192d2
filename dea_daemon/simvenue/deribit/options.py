"""What Deribit says of options beyond what it says of every contract: volatilities in percent, Greeks, forwards.

Rounded as the venue rounds: volatilities to 0.01 %, Greeks to five decimals (a BTC gamma keeps one digit).
Source: docs.deribit.com, public/ticker, public/get_instruments, private/get_positions; recorded tickers.
"""

import math
from collections.abc import Container
from datetime import UTC, datetime, timedelta

from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_S
from dea_daemon.simvenue.deribit.contract import Contract
from dea_daemon.simvenue.deribit.session import Json
from dea_daemon.simvenue.options import implied_vol
from dea_daemon.simvenue.words import OptionQuote, Ticker, Traded, VenueFill, VenuePosition

_FRIDAY = 4
_BLOCK_AMOUNT_MIN = {"BTC": 25.0, "ETH": 250.0}


def percent(iv: float) -> float:
    """An annual fraction in percent; 0.0 where there is no quote."""
    return 0.0 if math.isnan(iv) else round(100.0 * iv, 2)


def instrument(contract: Contract) -> Json:
    """The fields of get_instruments that differ from a future's."""
    i = contract.instrument
    return {
        "kind": "option",
        "instrument_type": "reversed" if contract.coin_quoted else "linear",
        "option_type": "call" if i.is_call else "put",
        "strike": i.strike,
        "counter_currency": "USD" if contract.coin_quoted else i.quote_currency,
        "settlement_period": _period(i.expiry_ns),
        "contract_size": 1.0,
        "block_trade_min_trade_amount": _BLOCK_AMOUNT_MIN.get(i.underlying, 25.0),
        "block_trade_tick_size": 0.0001 if contract.coin_quoted else float(i.tick_size),
    }


def _period(expiry_ns: int) -> str:
    """By the day it ends: a month's last Friday, another Friday, another day."""
    end = datetime.fromtimestamp(expiry_ns // NS_PER_S, UTC)
    if end.weekday() != _FRIDAY:
        return "day"
    return "month" if (end + timedelta(days=7)).month != end.month else "week"


def underlying_index(contract: Contract, listed: Container[str]) -> str:
    """The future that ends with it, or the synthetic one where none is listed."""
    future = contract.instrument.name.rsplit("-", 2)[0]
    return future if future in listed else f"SYN.{future}"


def _forward(quote: OptionQuote, future: str) -> Json:
    return {"underlying_price": round(quote.underlying_price, 4), "underlying_index": future, "interest_rate": 0.0}


def ticker(contract: Contract, t: Ticker, quote: OptionQuote, future: str) -> Json:
    """The fields of a ticker that only options have. `future` is the underlying index."""
    return _forward(quote, future) | {
        "mark_iv": percent(quote.mark_iv),
        "bid_iv": percent(quote.bid_iv),
        "ask_iv": percent(quote.ask_iv),
        "greeks": {
            "delta": round(quote.delta, 5),
            "gamma": round(quote.gamma, 5),
            "vega": round(quote.vega, 5),
            "theta": round(quote.theta, 5),
            "rho": round(_rho(contract, t, quote), 5),
        },
    }


def _rho(contract: Contract, t: Ticker, quote: OptionQuote) -> float:
    """USD per 1 % of interest at a given index: ± K τ N(±d2) / 100, which is (F delta − price) τ / 100."""
    forward = quote.underlying_price
    return _years(contract, t.ts_ns) * (forward * quote.delta - contract.usd(t.mark_price, forward)) / 100.0


def _years(contract: Contract, ts_ns: int) -> float:
    """From then to its expiry."""
    return max(contract.instrument.expiry_ns - ts_ns, 0) / NS_PER_DAY / DAYS_PER_YEAR


def book_summary(quote: OptionQuote, future: str) -> Json:
    """The fields of a book summary that only options have."""
    return _forward(quote, future) | {"mark_iv": percent(quote.mark_iv)}


def mark(contract: Contract, t: Ticker, quote: OptionQuote) -> Json:
    """One row of markprice.options; here, alone, the volatility is a fraction."""
    return {"instrument_name": contract.instrument.name, "iv": round(quote.mark_iv, 4), "mark_price": t.mark_price}


def traded(contract: Contract, trade: Traded | VenueFill, quote: OptionQuote | None) -> Json:
    """The fields of a trade that only options have; without a quote (it expired) there is no volatility."""
    if quote is None:
        return {"iv": None, "underlying_price": None}
    i, forward = contract.instrument, quote.underlying_price
    worth = contract.usd(contract.price(trade.price_ticks), forward)
    iv = implied_vol(worth, 1 if i.is_call else -1, forward, i.strike, _years(contract, trade.ts_ns))
    return {"iv": percent(iv), "underlying_price": round(forward, 4)}


def position(contract: Contract, p: VenuePosition, t: Ticker | None, floating: float) -> Json:
    """The fields of a position that only options have: Greeks of all of it, and figures in USD at today's index."""
    size, index = contract.amount(p.lots), t.index_price if t is not None else 0.0
    quote = t.option if t is not None else None
    greeks = {name: round(size * getattr(quote, name), 6) if quote else 0.0 for name in _GREEKS}
    return greeks | {
        "average_price_usd": contract.usd(p.entry_price, index),
        "floating_profit_loss_usd": contract.usd(floating, index),
    }


_GREEKS = ("delta", "gamma", "vega", "theta")
