"""The demo's option book: a few straddles traded by hand, as it were, before the daemon comes to hedge them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from dea_daemon.domain.errors import VenueError
from dea_daemon.domain.instruments import Instrument, Kind
from dea_daemon.shell.ccxt_client import Client, close_client, open_client
from dea_daemon.shell.settings import DeribitSection
from dea_daemon.shell.venue_calls import ask, load_instruments

log = structlog.get_logger()
LABEL = "demo book"
THROUGH = 0.25  # a limit this far through the touch, as a fraction of it: an option's own price band is wider


@dataclass(frozen=True, slots=True)
class Straddle:
    """`coins` of call and put each (negative: sold), at the money, of the expiry with this number."""

    coin: str
    expiry: int
    coins: float


BOOK = (
    Straddle("BTC", 0, -2.0),
    Straddle("BTC", 1, -3.0),
    Straddle("BTC", 2, 2.0),
    Straddle("ETH", 0, -30.0),
    Straddle("ETH", 2, 20.0),
)


async def trade_book(section: DeribitSection, book: Sequence[Straddle] = BOOK) -> int:
    """Trade the straddles at the venue. Returns how many of their legs filled whole."""
    client = open_client(section.access(), lambda key: None)
    try:
        listed = await load_instruments(client, lambda name: name[-2:] in ("-C", "-P"))
        legs = [(i, s.coins) for s in book for i in await _legs(client, listed, s)]
        filled = await asyncio.gather(*(_trade(client, instrument, coins) for instrument, coins in legs))
    finally:
        await close_client(client)
    log.info("demo.book_traded", legs=len(legs), filled=sum(filled))
    return sum(filled)


async def _legs(client: Client, listed: Sequence[Instrument], straddle: Straddle) -> list[Instrument]:
    """The call and the put nearest the money."""
    coin = straddle.coin
    chain = [i for i in listed if i.kind is Kind.OPTION and i.underlying == coin == i.settle_currency]
    expiries = sorted({i.expiry_ns for i in chain})
    if len(expiries) <= straddle.expiry:
        raise VenueError(f"the venue lists {len(expiries)} expiries of options on {coin}")
    spot = float((await ask(client, "public_get_get_index_price", {"index_name": f"{coin.lower()}_usd"}))["index_price"])
    mates = [i for i in chain if i.expiry_ns == expiries[straddle.expiry]]
    strike = min((i.strike for i in mates), key=lambda k: abs(k - spot))
    return [i for i in mates if i.strike == strike]


async def _trade(client: Client, instrument: Instrument, coins: float) -> bool:
    """One leg, crossing the spread with a limit."""
    ticker = await ask(client, "public_get_ticker", {"instrument_name": instrument.name})
    buys = coins > 0.0
    touch = float(ticker["best_ask_price" if buys else "best_bid_price"] or ticker["mark_price"])
    # Rounded to the passive side the limit stays within what was meant; far enough through, it still crosses.
    ticks = round(touch * (1.0 + (THROUGH if buys else -THROUGH)) / float(instrument.tick_size))
    price = instrument.ticks_to_price(instrument.price_to_ticks(instrument.ticks_to_price(max(ticks, 1))))
    order = {
        "instrument_name": instrument.name,
        "amount": abs(coins),
        "type": "limit",
        "price": float(price),
        "time_in_force": "immediate_or_cancel",
        "label": LABEL,
    }
    told = await ask(client, f"private_get_{'buy' if buys else 'sell'}", order)
    return str(told["order"]["order_state"]) == "filled"
