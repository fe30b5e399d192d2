"""Contracts as a recording shows them, where no listing is at hand.

The tick is the coarsest power of ten, 1 at most, that all prices seen are multiples of; likewise the lot.
"""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Literal

import msgspec

from dea_daemon.domain.instruments import Instrument, Kind, Payoff
from dea_daemon.domain.numbers import NS_PER_S, as_decimal
from dea_daemon.feeds.deribit_mapping import OPTION_FEE_CAP

_BINANCE_QUOTES = ("USDT", "USDC", "FDUSD", "BUSD")


class _Levels(msgspec.Struct):
    symbol: str = msgspec.field(name="s", default="")
    instrument_name: str = ""
    # Binance: [[price, amount]]; Deribit: [[action, price, amount]].
    b: list[tuple[str, str]] | str = ""
    a: list[tuple[str, str]] | str = ""
    bids: list[tuple[str, float, float]] | None = None
    asks: list[tuple[str, float, float]] | None = None
    # Of a Deribit ticker; 0 or absent where there is none.
    best_bid_price: float | None = None
    best_bid_amount: float | None = None
    best_ask_price: float | None = None
    best_ask_amount: float | None = None

    @property
    def touch(self) -> list[tuple[str, float, float]]:
        """The quotes a ticker tells, as levels."""
        quotes = ((self.best_bid_price, self.best_bid_amount), (self.best_ask_price, self.best_ask_amount))
        return [("", price, amount) for price, amount in quotes if price and amount]


class _Inner(msgspec.Struct):
    channel: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _Outer(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw(b"{}")  # Binance
    params: _Inner = msgspec.field(default_factory=_Inner)  # Deribit


def contracts_in(payloads: Iterable[bytes], venue: str) -> tuple[Instrument, ...]:
    """The contracts whose books (an option's: or tickers) are among these messages, by order of appearance; a few
    thousand are enough.

    `venue` is "binanceusdm" or "deribit". Fees are unknown: 0; an expiry is known where the name tells it
    (Deribit). A book that stayed empty shows no grid: 1.
    """
    outer, levels = msgspec.json.Decoder(_Outer).decode, msgspec.json.Decoder(_Levels).decode
    prices: dict[str, set[Decimal]] = {}
    amounts: dict[str, set[Decimal]] = {}
    for payload in payloads:
        try:
            message = outer(payload)
            seen = levels(message.params.data if message.params.channel else message.data)
        except msgspec.MsgspecError:
            continue  # trades, tickers, answers: not books
        name = seen.instrument_name if venue == "deribit" else seen.symbol
        sides = [side for side in (seen.b, seen.a, seen.bids, seen.asks) if isinstance(side, list)]
        if not sides and _is_option(name):  # live, an option's ticker is all that is heard of it
            sides = [seen.touch] if message.params.channel.startswith("ticker.") else []
        if name and sides:
            prices.setdefault(name, set()).update(as_decimal(level[-2]) for side in sides for level in side)
            amounts.setdefault(name, set()).update(as_decimal(level[-1]) for side in sides for level in side)
    make = _deribit if venue == "deribit" else _binance
    return tuple(make(name, venue, _grid(amounts[name]), _grid(prices[name])) for name in prices)


def _is_option(name: str) -> bool:
    """By its name, as Deribit writes them."""
    return name.count("-") == 3


def _grid(numbers: set[Decimal]) -> Decimal:
    exponents = (number.normalize().as_tuple().exponent for number in numbers if number)
    return Decimal(1).scaleb(min((e for e in exponents if isinstance(e, int) and e < 0), default=0))


def _binance(name: str, venue: str, lot_size: Decimal, tick_size: Decimal) -> Instrument:
    pair, _, expiry = name.partition("_")
    quote = next((q for q in _BINANCE_QUOTES if pair.endswith(q)), "USDT")
    return Instrument(
        venue=venue,
        name=name,
        kind=Kind.FUTURE if expiry else Kind.PERPETUAL,
        payoff=Payoff.LINEAR,
        underlying=pair.removesuffix(quote),
        quote_currency=quote,
        settle_currency=quote,
        margin_pool=quote,
        contract_size=Decimal(1),
        lot_size=lot_size,
        tick_size=tick_size,
    )


def _deribit(name: str, venue: str, lot_size: Decimal, tick_size: Decimal) -> Instrument:
    pair, *rest = name.split("-")  # BTC-PERPETUAL, BTC_USDC-PERPETUAL, BTC-24SEP21, BTC-24SEP21-8000-P
    base, _, quote = pair.partition("_")
    option = len(rest) == 3
    inverse = not quote and not option
    settle = quote or base
    return Instrument(
        venue=venue,
        name=name,
        kind=Kind.OPTION if option else Kind.PERPETUAL if rest == ["PERPETUAL"] else Kind.FUTURE,
        payoff=Payoff.INVERSE if inverse else Payoff.LINEAR,
        underlying=base,
        quote_currency="USD" if inverse else settle,
        settle_currency=settle,
        margin_pool=settle,
        contract_size=Decimal(1),
        lot_size=lot_size,
        tick_size=tick_size,
        strike=float(rest[1].replace("d", ".")) if option else 0.0,
        is_call=option and rest[2] == "C",
        fee_cap=OPTION_FEE_CAP if option else 0.0,
        expiry_ns=_expiry_ns(rest[0]) if rest != ["PERPETUAL"] else 0,
    )


def _expiry_ns(day: str) -> int:
    """08:00 UTC of a day as Deribit writes it (24SEP21), ns; 0 where it is none."""
    try:
        at = datetime.strptime(f"{day} 08:00 +0000", "%d%b%y %H:%M %z")
    except ValueError:
        return 0
    return int(at.timestamp()) * NS_PER_S


def trade_stream(payloads: Iterable[bytes]) -> Literal["trade", "aggTrade"]:
    """Which of Binance's two reports of one execution a recording holds; aggTrade where it holds both."""
    seen = {stream for payload in payloads for stream in (b'"aggTrade"', b'"trade"') if stream in payload}
    return "trade" if seen == {b'"trade"'} else "aggTrade"
