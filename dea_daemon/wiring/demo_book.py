"""The demo's option book: a few straddles traded by hand, as it were, before the daemon comes to hedge them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from dea_daemon.domain.errors import VenueError
from dea_daemon.domain.instruments import Instrument, Kind
from dea_daemon.shell.ccxt_client import Client, ask, close_client, open_client
from dea_daemon.shell.settings import DeribitSection
from dea_daemon.shell.venue_calls import load_instruments

log = structlog.get_logger()
LABEL = "demo book"
TRIES, PAUSE_S = 5, 0.3  # its makers come back between


@dataclass(frozen=True, slots=True)
class Straddle:
    """`coins` of call and put each (negative: sold), at the money, of the expiry with this number."""

    coin: str
    expiry: int
    coins: float


BOOK = (
    Straddle("BTC", 0, 0.3),
    Straddle("BTC", 1, -3.0),
    Straddle("BTC", 2, 2.0),
    Straddle("ETH", 0, 4.0),
    Straddle("ETH", 2, -20.0),
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
    spot = float(
        (await ask(client, "public_get_get_index_price", {"index_name": f"{coin.lower()}_usd"}))["index_price"]
    )
    mates = [i for i in chain if i.expiry_ns == expiries[straddle.expiry]]
    strike = min((i.strike for i in mates), key=lambda k: abs(k - spot))
    return [i for i in mates if i.strike == strike]


async def _trade(client: Client, instrument: Instrument, coins: float) -> bool:
    """One leg, crossing the spread as far as the venue's price limits let it; a few times while some is left."""
    method = f"private_get_{'buy' if coins > 0.0 else 'sell'}"
    left = instrument.amount_to_lots(abs(coins))
    for _ in range(TRIES):
        limits = await ask(client, "public_get_ticker", {"instrument_name": instrument.name})
        mark, edge = float(limits["mark_price"]), float(limits["max_price" if coins > 0.0 else "min_price"])
        ticks = instrument.price_to_ticks(0.5 * (mark + edge))  # not to the edge: it moves with the market
        order = {
            "instrument_name": instrument.name,
            "amount": float(instrument.lots_to_amount(left)),
            "type": "limit",
            "price": float(instrument.ticks_to_price(max(ticks, 1))),
            "time_in_force": "immediate_or_cancel",
            "label": LABEL,
        }
        told = (await ask(client, method, order))["order"]
        left -= instrument.amount_to_lots(told["filled_amount"])
        if left <= 0:
            return True
        await asyncio.sleep(PAUSE_S)
    log.warning("demo.leg_unfilled", contract=instrument.name, left=float(instrument.lots_to_amount(left)))
    return False
