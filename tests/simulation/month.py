"""A month of a short straddle book, hedged by the daemon, beside a twin that never hedges.

`python -m tests.simulation.month SEED [--days 30] [--steady]` prints the days and what hedging took away. Time is
virtual and coarse: the real engine decides every five minutes at a synthetic venue without faults, takes what it
wants at once and is told all by the events a live feed would bring. A person sells an at-the-money straddle in each
expiry that is listed (but the daily ones), in both accounts; both hold it until it is delivered.

`Books` is the daemon's side of the money, from its events alone: what it must agree with is the venue's account.
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from dea_daemon.domain.commands import Approved, Outgoing, QueryInstruments
from dea_daemon.domain.decisions import DecisionRecord
from dea_daemon.domain.events import (
    AccountReported,
    AnyEvent,
    DecisionDue,
    FeedAlive,
    FeedOpened,
    FillReceived,
    IndexUpdated,
    InstrumentsListed,
    ListingChanged,
    MarkUpdated,
    OptionUpdated,
    QuoteUpdated,
    RunStarted,
    Settlement,
)
from dea_daemon.domain.instruments import AccountKey, Instrument, Kind, Side, Universe
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_MS, NS_PER_S
from dea_daemon.domain.orders import is_own
from dea_daemon.domain.parameters import Parameters
from dea_daemon.engine import begin, step
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.scenarios import Scenario, Underlying
from dea_daemon.simvenue.words import InstrumentChanged, OrderRequest, VenueEvent
from dea_daemon.wiring.paper import ACCOUNT, FEED, PaperVenue

START_NS = 1_788_768_000 * NS_PER_S  # a Monday, 00:00 UTC
STEP_NS = 300 * NS_PER_S
ROUND_NS = 100 * NS_PER_MS  # between a decision and the next within one step
ROUNDS = 4
EIGHT_HOURS_NS = 8 * 3_600 * NS_PER_S
TWIN = "twin"
DEPOSITS = {"BTC": 10.0, "ETH": 200.0, "USDC": 300_000.0}
STRADDLE_COINS = {("BTC", "BTC"): 1.0, ("ETH", "ETH"): 20.0, ("BTC", "USDC"): 0.5}  # by coin and settlement
BANDS_USD = {"BTC": 5_000.0, "ETH": 3_000.0}
LIFE_MIN_NS = 3 * NS_PER_DAY  # expiries nearer than this when listed are not traded, and have no rows

SCENARIO = Scenario(
    "month",
    coins={
        "BTC": Underlying(start_price=65_000.0, annual_vol=0.55),
        "ETH": Underlying(start_price=3_000.0, annual_vol=0.70, im_per_coin=0.000_002),
    },
    step_ms=STEP_NS // NS_PER_MS,
    vol_of_vol=0.3,
    vol_half_life_s=86_400.0,
    jumps_per_day=0.2,
    premium_half_life_s=3_600.0,
    premium_ema_s=STEP_NS / NS_PER_S,
    basis_half_life_s=86_400.0,
    depth_levels=5,
    level_usd=100_000.0,
    takers_per_s=0.001,
    ticker_every_ms=86_400_000,  # asked for, not waited for
    index_every_ms=86_400_000,
    portfolio_every_ms=86_400_000,
    option_expiries=3,  # the next morning, a Friday, a month's last
    option_strikes=3,
    option_step_ms=STEP_NS // NS_PER_MS,
    option_ticker_ms=86_400_000,
    option_level_half_life_s=86_400.0,
    option_level_sd=0.04,
    option_depth=1,
    option_level_usd=1_000_000.0,
    option_takers_per_s=0.001,
    deposits=DEPOSITS,
)

TARGETS_USD = {coin: DEPOSITS[coin] * about.start_price for coin, about in SCENARIO.coins.items()}
STEADY = replace(
    SCENARIO,
    name="steady",
    vol_of_vol=0.0,
    jumps_per_day=0.0,
    option_vol_premium=1.0,
    option_level_sd=0.0,
    option_skew=0.0,
    option_skew_sd=0.0,
    option_convexity=0.0,
)
"""The same month where volatility never changes: what is left then is not for want of a vega hedge."""


def parameters() -> Parameters:
    """The coins are the exposure wanted, in dollars of the first day; limits do not bind."""
    patient_ms = 3 * STEP_NS // NS_PER_MS
    targets = {
        coin: {"kind": "fixed", "delta_usd": usd, "band_usd": BANDS_USD[coin]} for coin, usd in TARGETS_USD.items()
    }
    stale = ("stale_book_ms", "stale_mark_ms", "stale_account_ms", "stale_option_ms", "stale_private_ms")
    return Parameters.model_validate(
        {
            "state": dict.fromkeys(stale, patient_ms),
            "forecast": {"sample_every_s": STEP_NS / NS_PER_S},
            "allocator": {"targets": targets, "pinned": "hold"},
            # Every decision is later than a surface would last: each would wait for a fit that nothing here needs.
            "pricing": {"surface": {"enabled": False}},
            "execution": {"order_type": "taker", "slice_usd": 200_000},
            "guards": {
                "max_gross_usd": 20e6,
                "max_net_usd": 10e6,
                "max_instrument_usd": 10e6,
                "max_order_usd": 1e6,
                "max_turnover_usd_per_hour": 50e6,
                "max_fees_usd_per_hour": 50_000,
            },
        }
    )


def listed_for_us(instrument: Instrument, now_ns: int) -> bool:
    """What a configuration's patterns would select: no option that ends within days."""
    return instrument.kind is not Kind.OPTION or instrument.expiry_ns - now_ns >= LIFE_MIN_NS


def _series(option: Instrument) -> tuple[str, str, int]:
    return option.underlying, option.settle_currency, option.expiry_ns


class Venue(PaperVenue):
    """PaperVenue without latency, that announces its listings and tells them when asked."""

    def __init__(self, exchange: Exchange, universe: Universe) -> None:
        super().__init__(exchange, universe, 0, 0)
        self._new: list[Instrument] = []

    def _publish(self, event: VenueEvent, now_ns: int) -> None:
        match event:
            case InstrumentChanged(instrument=i, state=state) if listed_for_us(i, now_ns):
                if state == "created":
                    self._new.append(i)
                self._tell(now_ns, lambda at: [ListingChanged(at, 0, i.name, state)])
            case _:
                super()._publish(event, now_ns)

    def _perform(self, command: Outgoing, now_ns: int) -> None:
        if not isinstance(command, QueryInstruments):
            super()._perform(command, now_ns)
            return
        new, self._new = tuple(self._new), []
        self._row |= {i.name: len(self.universe) + k for k, i in enumerate(new)}
        self._tell(now_ns, lambda at: [InstrumentsListed(at, 0, new)])


class Books:
    """What an account is worth by what the daemon was told: fills with fees, deliveries, funding rates, marks.

    A position is worth lots · unit(mark) − cost, where cost is the same sum at the prices of its fills: for options
    that is their value less the premium, for futures their profit. Its own arithmetic, by event.
    """

    def __init__(self, universe: Universe) -> None:
        self.universe = universe
        self.cash: dict[str, float] = {}
        self.lots: Counter[int] = Counter()
        self.cost: dict[int, float] = {}
        self.mark: dict[int, MarkUpdated] = {}
        self.seen: set[object] = set()
        self.hedge_fees = dict.fromkeys(DEPOSITS, 0.0)
        self.hedges = self.deliveries = 0

    def fold(self, event: AnyEvent) -> None:
        """Count one event, once."""
        match event:
            case FillReceived() if event.trade_id not in self.seen:
                self.seen.add(event.trade_id)
                self._filled(event)
            case MarkUpdated():
                self._marked(event)
            case AccountReported():
                if not self.cash:
                    self.cash = {pool.currency: pool.equity for pool in event.pools}
                for fill in event.fills:
                    self.fold(fill)
                for settlement in event.settlements:
                    self._delivered(settlement)

    def equity(self, currency: str) -> float:
        """Of one margin pool, in its currency."""
        pools = self.universe.instruments
        worth = (
            self.lots[row] * self._unit(row, self.mark[row].mark_price) - cost
            for row, cost in self.cost.items()
            if pools[row].margin_pool == currency
        )
        return self.cash[currency] + sum(worth)

    def _unit(self, row: int, price: float) -> float:
        """What one lot adds at a price, in its pool's currency; of an inverse contract up to a constant."""
        lot_value = float(self.universe.lot_value[row])
        return -lot_value / price if self.universe.inverse[row] else lot_value * price

    def _filled(self, fill: FillReceived) -> None:
        row, lots = fill.row, fill.side.sign * fill.lots
        price = float(self.universe.instruments[row].ticks_to_price(fill.price_ticks))
        self.lots[row] += lots
        self.cost[row] = self.cost.get(row, 0.0) + lots * self._unit(row, price)
        self.cash[fill.fee_currency] -= fill.fee
        if is_own(fill.client_order_id):
            self.hedges += 1
            self.hedge_fees[fill.fee_currency] += fill.fee

    def _marked(self, event: MarkUpdated) -> None:
        """Funding of the time since the last mark is at the rate of this one: longs pay a positive rate."""
        row, before = event.row, self.mark.get(event.row)
        self.mark[row] = event
        if before is None or not np.isfinite(event.funding_rate_8h) or not self.lots[row]:
            return
        share = event.funding_rate_8h * (event.ts_event_ns - before.ts_event_ns) / EIGHT_HOURS_NS
        lot_value = float(self.universe.lot_value[row])
        notional = lot_value / event.index_price if self.universe.inverse[row] else lot_value * event.index_price
        self.cash[self.universe.instruments[row].margin_pool] -= self.lots[row] * notional * share

    def _delivered(self, s: Settlement) -> None:
        """An option moves the cash of its record, fee and all; a future ends at the price."""
        if (s.row, s.ts_event_ns) in self.seen:
            return
        self.seen.add((s.row, s.ts_event_ns))
        self.deliveries += 1
        ended = s.profit if self.universe.option[s.row] else self.lots[s.row] * self._unit(s.row, s.price)
        self.cash[s.currency] += ended - self.cost.pop(s.row)
        del self.lots[s.row]


@dataclass
class Result:
    """What a month came to. P&L is per day, USD, less what the exposure wanted earned by itself: the coins for the
    twin, the fixed dollars of the target for the hedged account. gap_usd is the worst difference between
    our books and the venue's account at any step."""

    index: list[dict[str, float]] = field(default_factory=list)
    hedged: list[float] = field(default_factory=list)
    unhedged: list[float] = field(default_factory=list)
    gap_usd: float = 0.0
    fees_usd: float = 0.0
    hedges: int = 0
    deliveries: int = 0
    straddles: int = 0
    steps: int = 0
    outside: int = 0
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def removed(self) -> float:
        """The share of the daily deviation that hedging took away."""
        return 1.0 - float(np.std(self.hedged) / np.std(self.unhedged))


class Month:
    """One history, from one seed."""

    def __init__(self, seed: int, scenario: Scenario = SCENARIO) -> None:
        self.now_ns = START_NS
        self.exchange = Exchange(scenario, seed, START_NS)
        for account in (ACCOUNT, TWIN):
            self.exchange.open_account(account, dict(DEPOSITS))
        instruments = [i for i in self.exchange.instruments.values() if listed_for_us(i, START_NS)]
        self.params = parameters()
        started = RunStarted(
            ts_recv_ns=START_NS,
            run_id="month",
            utc_ns=START_NS,
            epoch=1,
            armed=True,
            accounts=(AccountKey("deribit", ACCOUNT),),
            rows=tuple((0, i) for i in instruments),
            parameters=self.params.model_dump_json(),
        )
        self.state, _ = begin(started)
        self.universe = self.state.market.universe
        self.venue = Venue(self.exchange, self.universe)
        self.books = Books(self.universe)
        self.result = Result()
        self.record: DecisionRecord | None = None
        self.sold: set[tuple[str, str, int]] = set()
        self.wanted_usd = {ACCOUNT: 0.0, TWIN: 0.0}  # what the exposure wanted has earned
        self.prices = self._prices()
        self.fold(FeedOpened(self.now_ns, FEED, 0, True))

    def run(self, days: float) -> Result:
        """Live so long."""
        at_start = self._profits()
        for n in range(1, round(days * NS_PER_DAY / STEP_NS) + 1):
            self._step()
            if n * STEP_NS % NS_PER_DAY == 0:
                now = self._profits()
                self.result.hedged.append(now[ACCOUNT] - at_start[ACCOUNT])
                self.result.unhedged.append(now[TWIN] - at_start[TWIN])
                self.result.index.append(dict(self.prices))
                at_start = now
        result, books = self.result, self.books
        result.hedges, result.deliveries = books.hedges, books.deliveries
        result.fees_usd = sum(fee * self._usd(currency) for currency, fee in books.hedge_fees.items())
        return result

    # --- five minutes ----------------------------------------------------------------------------

    def _step(self) -> None:
        """The market moves, the daemon hears of it and acts, a person trades, the books are compared."""
        self.now_ns = self.now_ns // STEP_NS * STEP_NS + STEP_NS
        self.result.steps += 1
        self.exchange.advance(self.now_ns)
        before, self.prices = self.prices, self._prices()
        for coin, price in self.prices.items():
            self.wanted_usd[ACCOUNT] += TARGETS_USD[coin] * (price / before[coin] - 1.0)
            self.wanted_usd[TWIN] += DEPOSITS[coin] * (price - before[coin])
        self._tell_market()
        self.venue.drain(self.now_ns)
        self._hear()
        for _ in range(ROUNDS):
            if not self._decide():
                break
        self.result.outside += self._outside()
        self._sell_straddles()
        self.result.gap_usd = max(self.result.gap_usd, self.gap_usd())

    def _outside(self) -> bool:
        """Whether the last decision left a delta beyond its band."""
        if self.record is None:
            return True
        targeted = [f for f in self.record.factors if f.band_usd == f.band_usd]
        return not all(abs(f.actual_usd - f.target_usd) <= f.band_usd for f in targeted)

    def _tell_market(self) -> None:
        now = self.now_ns
        self.fold(FeedAlive(now, FEED, 0, True))
        for coin, price in self.prices.items():
            self.fold(IndexUpdated(now, now, 0, coin, price))
        held = self.state.account.position_lots
        for row, instrument in enumerate(self.universe.instruments):
            if instrument.name in self.exchange.contracts and (held[row] or not self.universe.option[row]):
                self._tell_ticker(row)

    def _tell_ticker(self, row: int) -> None:
        now, t = self.now_ns, self.exchange.ticker(self.universe.instruments[row].name)
        self.fold(MarkUpdated(now, t.ts_ns, row, t.mark_price, t.index_price, t.current_funding))
        self.fold(QuoteUpdated(now, t.ts_ns, row, t.best_bid, t.best_bid_amount, t.best_ask, t.best_ask_amount))
        if (o := t.option) is not None:
            self.fold(
                OptionUpdated(
                    now, t.ts_ns, row, o.mark_iv, o.bid_iv, o.ask_iv, o.underlying_price, o.delta, o.gamma, o.vega,
                    o.theta,
                )
            )  # fmt: skip

    def _decide(self) -> bool:
        """One tick and what comes of it. Whether it sent orders."""
        self.now_ns += ROUND_NS
        return self.fold(DecisionDue(self.now_ns, self.now_ns, "timer"))

    def fold(self, event: AnyEvent) -> bool:
        """The books and the engine hear of it; what the engine wants reaches the venue at once."""
        self.books.fold(event)
        decision = step(self.state, event, self.params)
        self.record = decision.record or self.record
        self.result.notes.update(note.event for note in decision.notes)
        for command in decision.commands:
            self.venue.send(command, self.now_ns)
            self._hear()
        return any(isinstance(command, Approved) for command in decision.commands)

    def _hear(self) -> None:
        for event in self.venue.run_until(self.now_ns):
            self.fold(event)

    # --- a person --------------------------------------------------------------------------------

    def _sell_straddles(self) -> None:
        """In each expiry that has none yet, nearest the money, in both accounts at the same prices."""
        for chain in self._chains_to_sell():
            about = chain[0]
            strike = min((i.strike for i in chain), key=lambda strike: abs(strike - self.prices[about.underlying]))
            legs = [i for i in chain if i.strike == strike]
            lots = about.amount_to_lots(STRADDLE_COINS[about.underlying, about.settle_currency])
            if all(self._bid_lots(leg) >= 2 * lots for leg in legs):  # else in five minutes
                for leg in legs:
                    self._sell(leg, lots)
                self.sold.add(_series(about))
                self.result.straddles += 1

    def _chains_to_sell(self) -> list[list[Instrument]]:
        """The options of each expiry that is listed, alive and not sold yet."""
        chains: dict[tuple[str, str, int], list[Instrument]] = {}
        for i in self.universe.instruments:
            if i.kind is Kind.OPTION and i.expiry_ns > self.now_ns and _series(i) not in self.sold:
                chains.setdefault(_series(i), []).append(i)
        return list(chains.values())

    def _bid_lots(self, instrument: Instrument) -> int:
        return sum(lots for _, lots in self.exchange.book(instrument.name, 1).bids)

    def _sell(self, instrument: Instrument, lots: int) -> None:
        row = self.universe.row(0, instrument.name)
        assert row is not None
        self._tell_ticker(row)
        for account in (ACCOUNT, TWIN):
            self.exchange.place(OrderRequest(account, instrument.name, Side.SELL, lots, None, label="desk"))
        self.venue.drain(self.now_ns)
        self._hear()

    # --- money -----------------------------------------------------------------------------------

    def _prices(self) -> dict[str, float]:
        return {coin: self.exchange.index_price(coin) for coin in SCENARIO.coins}

    def _usd(self, currency: str) -> float:
        return self.prices.get(currency, 1.0)

    def _venues(self, account: str, currency: str) -> float:
        """The venue's own figure of equity."""
        return self.exchange.accounts.equity(self.exchange.account(account), currency)

    def _profits(self) -> dict[str, float]:
        """USD by account, less what the exposure wanted has earned."""
        return {
            account: sum(self._venues(account, c) * self._usd(c) for c in DEPOSITS) - earned
            for account, earned in self.wanted_usd.items()
        }

    def gap_usd(self) -> float:
        """Our books beside the venue's account, over all pools."""
        return sum(abs(self.books.equity(c) - self._venues(ACCOUNT, c)) * self._usd(c) for c in DEPOSITS)


def table(result: Result) -> str:
    """The days, and what they come to."""
    lines = [f"{'day':>4}{'BTC':>10}{'ETH':>9}{'hedged':>11}{'unhedged':>11}"]
    days = zip(result.index, result.hedged, result.unhedged, strict=True)
    lines += [
        f"{n:>4}{p['BTC']:>10,.0f}{p['ETH']:>9,.0f}{hedged:>11,.0f}{unhedged:>11,.0f}"
        for n, (p, hedged, unhedged) in enumerate(days, 1)
    ]
    lines += [
        f"{'sum':>4}{'':>19}{sum(result.hedged):>11,.0f}{sum(result.unhedged):>11,.0f}  USD",
        f"{'sd':>4}{'':>19}{np.std(result.hedged):>11,.0f}{np.std(result.unhedged):>11,.0f}  USD a day",
        f"hedging removed {result.removed:.1%} of the deviation",
        f"{result.hedges} fills of hedges, fees {result.fees_usd:,.0f} USD",
        f"{result.outside} of {result.steps} steps left a delta outside its band",
        f"{result.straddles} straddles sold, {result.deliveries} contracts delivered",
        f"our books and the venue's account were never further apart than {result.gap_usd:.0e} USD",
    ]
    return "\n".join(lines)


def main() -> int:
    """Exit code 1 where our books and the venue's account part by a cent."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.month")
    parser.add_argument("seed", type=int)
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--steady", action="store_true", help="volatility never changes")
    asked = parser.parse_args()
    result = Month(asked.seed, STEADY if asked.steady else SCENARIO).run(asked.days)
    sys.stdout.write(table(result) + "\n")
    return 0 if result.gap_usd < 0.01 else 1


if __name__ == "__main__":
    sys.exit(main())
