"""Options in a history: the chain, the book held before the run, and what goes wrong with all of it."""

import random
from dataclasses import dataclass, field, replace

import msgspec

from dea_daemon.domain.events import AnyEvent, MarkUpdated, OptionUpdated, QuoteUpdated, Settlement, SurfaceFitted
from dea_daemon.domain.instruments import Instrument, Kind, Side, Universe
from dea_daemon.domain.orders import TimeInForce
from dea_daemon.domain.surfaces import Smile
from dea_daemon.simvenue import scenarios
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.scenarios import Scenario
from dea_daemon.simvenue.words import OrderRequest, Settled, Ticker
from dea_daemon.wiring.paper import ACCOUNT
from dea_daemon.wiring.simulate.faults import Faults

SCENES = ("options", "expiry")  # in both the nearest expiry ends while the history lasts
EXPIRY_S = 12.0  # when it does
NAN = float("nan")
JUMPS = (0.5, 0.8, 1.25, 2.0)  # of volatility
Told = tuple[int, list[AnyEvent]]  # after how many ns, what


def scene(name: str) -> Scenario:
    """Two expiries with five strikes each are enough to go wrong; all of them are hundreds of rows."""
    return replace(
        scenarios.load(name),
        option_expiries=2,
        option_strikes=5,
        nearest_expiry_s=EXPIRY_S,
        settlement_window_s=6.0,
    )


def trade_book(exchange: Exchange, dice: random.Random) -> None:
    """The account's book, traded by hand before the daemon comes: a call and a put at the money of each expiry, as
    a straddle or, with much delta, one bought against the other."""
    options = [i for i in exchange.instruments.values() if i.kind is Kind.OPTION]
    for series in dict.fromkeys((i.underlying, i.settle_currency, i.expiry_ns) for i in options):
        mates = [i for i in options if (i.underlying, i.settle_currency, i.expiry_ns) == series]
        spot = exchange.index_price(series[0])
        strike = min({i.strike for i in mates}, key=lambda k: abs(k - spot))
        usd, side = dice.uniform(30_000.0, 120_000.0), dice.choice((Side.BUY, Side.SELL))
        straddle = dice.random() < 0.5
        for leg in (i for i in mates if i.strike == strike):
            way = side if straddle or leg.is_call else side.opposite
            lots = leg.amount_to_lots(usd / spot)
            price = crossing(exchange, leg, way)
            exchange.place(OrderRequest(ACCOUNT, leg.name, way, lots, price, TimeInForce.IOC, label="by hand"))


def crossing(exchange: Exchange, instrument: Instrument, side: Side) -> int:
    """A price in ticks that takes what is there, within the venue's limits."""
    low, high = exchange.band(exchange.contracts[instrument.name])
    mark = exchange.contracts[instrument.name].mark
    return max(instrument.price_to_ticks(max(0.5 * (mark + (high if side is Side.BUY else low)), 0.0), side), 1)


# --- tickers ------------------------------------------------------------------------------------------


def _nothing(mark: MarkUpdated, quote: QuoteUpdated, option: OptionUpdated, x: float) -> list[AnyEvent]:
    return [
        change(mark, mark_price=NAN),
        change(quote, bid=NAN, ask=NAN),
        change(option, mark_iv=NAN, underlying_price=NAN, delta=NAN, vega=NAN),
    ]


def _zeros(mark: MarkUpdated, quote: QuoteUpdated, option: OptionUpdated, x: float) -> list[AnyEvent]:
    return [
        change(mark, mark_price=0.0),
        change(quote, bid=0.0, ask=0.0),
        change(option, mark_iv=0.0, bid_iv=0.0, ask_iv=0.0, underlying_price=0.0, delta=0.0, vega=0.0),
    ]


def _crossed(mark: MarkUpdated, quote: QuoteUpdated, option: OptionUpdated, x: float) -> list[AnyEvent]:
    return [mark, change(quote, bid=quote.ask, ask=quote.bid), option]


def _one_sided(mark: MarkUpdated, quote: QuoteUpdated, option: OptionUpdated, x: float) -> list[AnyEvent]:
    return [mark, change(quote, ask=NAN) if x < 0.5 else change(quote, bid=NAN), option]


def _below_intrinsic(mark: MarkUpdated, quote: QuoteUpdated, option: OptionUpdated, x: float) -> list[AnyEvent]:
    bid, ask = 1e-3 * quote.bid, 1e-3 * quote.ask
    return [change(mark, mark_price=1e-3 * mark.mark_price), change(quote, bid=bid, ask=ask), option]


def _huge_iv(mark: MarkUpdated, quote: QuoteUpdated, option: OptionUpdated, x: float) -> list[AnyEvent]:
    iv = (50.0, 1e6, 1e300, float("inf"))[int(4 * x)]
    return [mark, change(quote, ask=50.0 * quote.ask), change(option, mark_iv=iv, ask_iv=iv)]


def _wrong_greeks(mark: MarkUpdated, quote: QuoteUpdated, option: OptionUpdated, x: float) -> list[AnyEvent]:
    return [mark, quote, change(option, delta=-option.delta if x < 0.5 else 1e9, vega=10.0 * option.vega)]


def _wrong_forward(mark: MarkUpdated, quote: QuoteUpdated, option: OptionUpdated, x: float) -> list[AnyEvent]:
    return [mark, quote, change(option, underlying_price=option.underlying_price * (0.8 if x < 0.5 else 1.2))]


NONSENSE = (
    _nothing, _zeros, _crossed, _one_sided, _below_intrinsic, _huge_iv, _wrong_greeks, _wrong_forward,
)  # fmt: skip


class Tickers:
    """Tickers of options as they arrive: some do not, some late, some twice, some tell nonsense for a while."""

    def __init__(self, universe: Universe, faults: Faults) -> None:
        self.universe, self.faults = universe, faults
        self.spells = 0
        self._spell: dict[object, tuple[int, int, float]] = {}  # row or series: until, number of nonsense, its x

    def told(self, t: Ticker, row: int, now_ns: int) -> list[Told]:
        """What reaches us of one ticker, and after how long."""
        faults, option = self.faults, t.option
        if option is None:
            return []
        mark = MarkUpdated(0, t.ts_ns, row, t.mark_price, t.index_price)
        quote = QuoteUpdated(0, t.ts_ns, row, t.best_bid, t.best_bid_amount, t.best_ask, t.best_ask_amount)
        greeks = OptionUpdated(
            0, t.ts_ns, row, option.mark_iv, option.bid_iv, option.ask_iv, option.underlying_price,
            option.delta, option.gamma, option.vega, option.theta,
        )  # fmt: skip
        events: list[AnyEvent] = [mark, quote, greeks]
        for key, name in ((row, "option-nonsense"), (self._series(row), "series-nonsense")):
            if faults.strikes(name):
                dice = faults.dice(name)
                until_ns = now_ns + faults.ns(name, 0.0, 12.0)
                self._spell[key] = (until_ns, dice.randrange(len(NONSENSE)), dice.random())
                self.spells += 1
            until_ns, number, x = self._spell.get(key, (0, 0, 0.0))
            if now_ns < until_ns and faults.any:
                events = NONSENSE[number](mark, quote, greeks, x)
        if faults.strikes("option-lost"):
            return []
        late_ns = faults.ns("option-late", 0.2, 5.0) if faults.strikes("option-late") else 0
        again = [(faults.ns("option-repeated", 0.0, 2.0), events)] if faults.strikes("option-repeated") else []
        return [(late_ns, events), *again]

    def _series(self, row: int) -> str:
        return self.universe.instruments[row].name.rsplit("-", 2)[0]


# --- surfaces ---------------------------------------------------------------------------------------


def surfaces_told(fitted: SurfaceFitted, faults: Faults) -> list[tuple[int, SurfaceFitted]]:
    """What reaches us of one fit, and after how many ns more: nothing, late, twice, or wrong."""
    strikes = faults.strikes
    if strikes("surface-lost"):
        return []
    if strikes("surface-refused"):
        fitted = change(fitted, smiles=(), tenors=(), why="the worker died")
    if strikes("surface-jumps"):
        fitted = change(fitted, smiles=_scaled(fitted.smiles, faults.dice("surface-jumps").choice(JUMPS)))
    late_ns = faults.ns("surface-late", 0.5, 8.0) if strikes("surface-late") else 0
    again = [(faults.ns("surface-repeated", 0.0, 8.0), fitted)] if strikes("surface-repeated") else []
    return [(late_ns, fitted), *again]


def _scaled(smiles: tuple[Smile, ...], factor: float) -> tuple[Smile, ...]:
    """With so many times their volatility."""
    return tuple(change(s, variance=tuple(factor**2 * w for w in s.variance)) for s in smiles)


# --- settlements --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Fate:
    """How one delivery is told: its record from then on, with such lots; the position lingers in reports."""

    lots: int
    recorded_ns: int
    shown_until_ns: int
    lots_told: int


@dataclass
class Deliveries:
    """The venue's records of deliveries, by contract: late, early, or of another size."""

    faults: Faults
    fates: dict[str, Fate] = field(default_factory=dict)

    def ended(self, s: Settled, now_ns: int) -> None:
        faults = self.faults
        late_ns = faults.ns("settlement-late", 0.5, 20.0) if faults.strikes("settlement-late") else 0
        shown_ns = faults.ns("settlement-early", 0.5, 6.0) if faults.strikes("settlement-early") else 0
        told = (
            s.lots * faults.dice("settlement-wrong").choice((2, -1)) if faults.strikes("settlement-wrong") else s.lots
        )
        self.fates[s.instrument] = Fate(s.lots, now_ns + late_ns, now_ns + shown_ns, told)

    def records(self, settled: tuple[Settlement, ...], names: list[str], now_ns: int) -> tuple[Settlement, ...]:
        """Those already written down, as the venue has them."""
        told = []
        for settlement, name in zip(settled, names, strict=True):
            fate = self.fates.get(name)
            if fate is None:
                told.append(settlement)
            elif fate.recorded_ns <= now_ns:
                told.append(change(settlement, lots=fate.lots_told))
        return tuple(told)

    def lingering(self, now_ns: int) -> dict[str, int]:
        """Positions that have ended and still show."""
        return {name: fate.lots for name, fate in self.fates.items() if now_ns < fate.shown_until_ns}


change = msgspec.structs.replace


def is_option(instrument: Instrument) -> bool:
    return instrument.kind is Kind.OPTION
