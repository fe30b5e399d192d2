"""The venue as one object: a seeded world that drives a trading floor, and everything one may ask of it.

`Exchange(scenario, seed, start_ns)` is a synthetic market; `Exchange.replayed(instruments, start_ns)` the same
accounts, matching, fees and margin on a recorded one, fed level by level. Time moves by `advance` alone.
"""

from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from decimal import Decimal

import msgspec

from dea_daemon.domain.errors import check
from dea_daemon.domain.instruments import Instrument, Kind, Payoff, Side, TickStep
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_MS, NS_PER_S
from dea_daemon.simvenue.accounts import HOUSE, Contract
from dea_daemon.simvenue.chain import Chain, Series
from dea_daemon.simvenue.floor import Floor
from dea_daemon.simvenue.flow import Flow
from dea_daemon.simvenue.history import HOURS_BEFORE, Candle, FundingHour, hours_before
from dea_daemon.simvenue.listing import initial_instruments, successor
from dea_daemon.simvenue.options import implied_vol
from dea_daemon.simvenue.process import Carry, Index, prices_before
from dea_daemon.simvenue.scenarios import Scenario
from dea_daemon.simvenue.series import calendar, chains, initial_expiries, ladder, option, strike_step
from dea_daemon.simvenue.words import (
    Book,
    FundingPaid,
    IndexChanged,
    InstrumentChanged,
    OptionQuote,
    Refused,
    Settled,
    Summary,
    Ticker,
    TickerChanged,
    Traded,
    TradingLocked,
    VenueFill,
    VenueOrder,
    VenuePosition,
)  # fmt: skip

_PRUNE_EVERY_NS = 60 * NS_PER_S
_OPTION_FORWARDS = 10_000  # numbers of the forwards no future carries
_STABLE = ("USDC", "USDT")
_NAN = float("nan")


class Exchange(Floor):
    """A venue. Same scenario, seed, start and calls: the same venue, bit for bit."""

    def __init__(self, scenario: Scenario, seed: int, start_ns: int) -> None:
        super().__init__(scenario, start_ns, publishes=True)
        self._seed = seed
        self._step_ns = scenario.step_ms * NS_PER_MS
        self._start_ns = start_ns
        self._stepped_ns = start_ns  # the last point of the grid
        self._before: dict[str, list[float]] = {}  # prices of before the start
        self._listed = 0
        self._option_forwards = 0
        self._index = Index(scenario, seed)
        self._carry: dict[str, Carry] = {}  # of all contracts but options
        self._forwards: dict[tuple[str, int], Carry] = {}  # by coin and expiry; a future and its options share one
        self._flow: dict[str, Flow] = {}
        self._chain = Chain(scenario, seed)
        self._recorded = False
        self._peg: dict[str, float] = {}
        for instrument in initial_instruments(scenario, start_ns):
            self._list(instrument)
        for coin, settles in chains(scenario):
            self._list_series(coin, settles, initial_expiries(scenario, start_ns))
        self._look_at_options()
        self._peg = {coin: 1.0 for coin in self.currencies() if coin in _STABLE}
        self.events()  # what is there at the start is asked for, not announced

    @classmethod
    def replayed(cls, instruments: Iterable[Instrument], start_ns: int, scenario: Scenario | None = None) -> "Exchange":
        """A venue without a world of its own: books, trades and marks come from a recording, by set_level,
        replace_book, public_trade, set_mark and set_time. It publishes accounts' events, no market data."""
        self = cls.__new__(cls)
        Floor.__init__(self, scenario or Scenario("replayed", coins={}), start_ns, publishes=False)
        self._recorded = True
        self._carry, self._forwards, self._peg = {}, {}, {}
        for instrument in instruments:
            self.open_book(instrument)
        return self

    # --- time ----------------------------------------------------------------------------------------

    def advance(self, to_ns: int) -> None:
        """Run the world up to `to_ns`; nothing if that is past."""
        check(not self._recorded, "a replayed venue moves by set_time")
        while self._stepped_ns + self._step_ns <= to_ns:
            self._stepped_ns += self._step_ns
            self.now_ns = self._stepped_ns
            self._step()
        self.now_ns = max(self.now_ns, to_ns)

    def _step(self) -> None:
        self._index.step()
        for (coin, _), carry in self._forwards.items():
            carry.step(self.now_ns, self._index.price[coin])
        for contract in [self.contracts[name] for name in self._flow]:
            self._reprice(contract)
            if contract.instrument.underlying not in self.locked:
                self._trade_background(contract)
            if 0 < contract.instrument.expiry_ns <= self.now_ns:
                self._settle(contract)
        self._step_options()
        self._forwards = {key: carry for key, carry in self._forwards.items() if key[1] > self.now_ns}
        self._each_interval()

    def _reprice(self, contract: Contract) -> None:
        """Index, mark and funding of one contract; funding of the step is at the rate it ends with."""
        carry, index = self._carry[contract.name], self._index.price[contract.instrument.underlying]
        if not contract.instrument.expiry_ns:
            carry.step(self.now_ns, index)
        contract.index, contract.mark = index, carry.mark
        if not contract.instrument.expiry_ns:
            contract.funding_rate = carry.funding_rate(index)
            contract.accrue(self._step_ns)
            self.history[contract.name].add_funding(self.now_ns, self._step_ns, contract.funding_rate, index)

    def _trade_background(self, contract: Contract) -> None:
        flow, fair = self._flow[contract.name], self._carry[contract.name].fair
        heat = self._index.heat[contract.instrument.underlying]
        for quote in flow.makers(fair, heat):
            self.set_background(contract, quote.side, quote.ticks, quote.lots)
        for taker in flow.takers(fair, heat):
            self.background_taker(contract, taker.side, taker.limit_ticks, taker.lots)
        self.publish_book(contract)

    def _each_interval(self) -> None:
        """What happens every so often: funding into cash, liquidations, tickers, indices, portfolios."""
        s = self.scenario
        if self._every(s.funding_every_s * 1_000):
            self._pay_funding()
        self._liquidate_short()
        if self._every(s.ticker_every_ms):
            for name in self._flow:
                self.emit(TickerChanged(self.ticker(name)))
        shares = max(s.option_ticker_ms // s.step_ms, 1)
        for contract in self._chain.contracts[self.now_ns // self._step_ns % shares :: shares]:
            self.emit(TickerChanged(self.ticker(contract.name)))
        if self._every(s.index_every_ms):
            for coin, price in (*self._index.price.items(), *self._peg.items()):
                self.emit(IndexChanged(coin, self.now_ns, price))
        if self._every(s.portfolio_every_ms):
            for account in self.accounts.clients():
                for pool in self.currencies():
                    self.publish_portfolio(account, pool)
        if self.now_ns % _PRUNE_EVERY_NS < self._step_ns:
            self.orders.prune(self.now_ns)

    def _every(self, interval_ms: int) -> bool:
        """Whether this step is the first one in an interval of UTC."""
        interval_ns = interval_ms * NS_PER_MS
        return self.now_ns // interval_ns > (self.now_ns - self._step_ns) // interval_ns

    def _pay_funding(self) -> None:
        for contract in self.contracts.values():
            for account, amount in self.accounts.settle_funding(contract):
                if account not in HOUSE:
                    self.emit(FundingPaid(account, contract.name, self.now_ns, amount))

    def _liquidate_short(self) -> None:
        if self.locked:  # nothing is traded, and in no doubt whose pool it would be
            return
        for account in list(self.accounts.clients()):
            if account.holdings:
                for pool in self._pools:
                    if self.margin.is_short(account, pool):
                        self.liquidate(account, pool)

    # --- listing and settlement ----------------------------------------------------------------------

    def _list(self, instrument: Instrument) -> None:
        contract = self.open_book(instrument)
        self._listed += 1
        self._carry[instrument.name] = self._new_carry(instrument)
        self._flow[instrument.name] = Flow(self.scenario, contract, self._seed, self._listed)
        self.emit(InstrumentChanged(instrument, self.now_ns, "created"))
        carry = self._carry[instrument.name]
        contract.index = self._index.price[instrument.underlying]
        contract.mark = carry.mark
        self._trade_background(contract)

    def _new_carry(self, instrument: Instrument) -> Carry:
        """Of a contract listed now, stepped once; a future's is its options' too, where they came first."""
        index = self._index.price[instrument.underlying]
        if not instrument.expiry_ns:
            carry = Carry(self.scenario, instrument, self._seed, self._listed)
            carry.step(self.now_ns, index)
            return carry
        key = (instrument.underlying, instrument.expiry_ns)
        if key not in self._forwards:
            self._forwards[key] = Carry(self.scenario, instrument, self._seed, self._listed)
            self._forwards[key].step(self.now_ns, index)
        return self._forwards[key]

    def _settle(self, contract: Contract) -> None:
        """End a dated future and list another one."""
        self.end_contract(contract, self._carry[contract.name].settlement_price)
        del self._carry[contract.name], self._flow[contract.name]
        self.emit(InstrumentChanged(contract.instrument, self.now_ns, "closed"))
        taken = {*self.instruments, *self.delisted}
        self._list(successor(self.scenario, contract.instrument, self.now_ns, taken))

    # --- what befalls it -------------------------------------------------------------------------------

    def lock(self, coin: str = "", *, locked: bool = True) -> None:
        """Stop trading in all contracts on a coin, or let it go on; "" is all of the venue: maintenance."""
        coins = [coin] if coin else list(self._index.price)
        self.maintenance = self.maintenance if coin else locked
        for one in coins:
            (self.locked.add if locked else self.locked.discard)(one)
            self.emit(TradingLocked(one, self.now_ns, locked))

    def set_peg(self, currency: str, price: float) -> None:
        """Move a stablecoin, in USD. What is quoted in it does not follow."""
        check(currency in self._peg and price > 0, f"{currency} at {price}: stablecoins are {', '.join(self._peg)}")
        self._peg[currency] = price
        self.emit(IndexChanged(currency, self.now_ns, price))

    def change_tick(self, name: str, tick_size: Decimal) -> None:
        """From now on prices of a future or perpetual are multiples of `tick_size`, itself one of the tick it was
        listed with: ticks are counted in that one still. Its background moves; orders at rest stay where they are."""
        contract, known = self.contract(name), self.instruments[name]
        check(name in self._flow and tick_size % known.tick_size == 0, f"{name}: no tick of {tick_size}")
        wider = (step for step in known.tick_steps if step.above_price > 0 and step.tick_size > tick_size)
        steps = (TickStep(Decimal(0), tick_size), *wider)
        contract.instrument = self.instruments[name] = msgspec.structs.replace(known, tick_steps=steps)
        for side in Side:
            for ticks in list(contract.book.half(side).levels):
                self.set_background(contract, side, ticks, 0)
        self._listed += 1
        self._flow[name] = Flow(self.scenario, contract, self._seed, self._listed)
        self.emit(InstrumentChanged(contract.instrument, self.now_ns, "regridded"))

    # --- options -------------------------------------------------------------------------------------

    def _step_options(self) -> None:
        """Expiries and listings as they come due, and a look at every option each `option_step_ms`."""
        chain, looks = self._chain, self._every(self.scenario.option_step_ms)
        ended = [series for series in chain.series if series.expiry_ns <= self.now_ns]
        for series in ended:
            self._settle_series(series)
        if looks:
            chain.step()
            for series in chain.series:
                self._extend_ladder(series)
        if chain.series and (looks or ended):
            self._look_at_options()

    def _look_at_options(self) -> None:
        chain = self._chain
        if not chain.series:
            return
        chain.reprice(self.now_ns, self._index.price, self._index.heat)
        if self.locked:  # quotes stand still, of all coins
            return
        for contract, quotes in chain.makers():
            for quote in quotes:
                self.set_background(contract, quote.side, quote.ticks, quote.lots)
            self.publish_book(contract)
        if (came := chain.taker()) is not None:
            contract, taker = came
            self.background_taker(contract, taker.side, taker.limit_ticks, taker.lots)
            self.publish_book(contract)

    def _settle_series(self, series: Series) -> None:
        """End an expiry of a chain and list what the calendar now wants."""
        for contract in series.contracts:
            self.end_contract(contract, series.carry.settlement_price)
            self.emit(InstrumentChanged(contract.instrument, self.now_ns, "closed"))
        self._chain.series.remove(series)
        listed = {s.expiry_ns for s in self._chain.series if (s.coin, s.settles) == (series.coin, series.settles)}
        wanted = calendar(self.now_ns, self.scenario.option_expiries)
        self._list_series(series.coin, series.settles, [e for e in wanted if e not in listed])

    def _list_series(self, coin: str, settles: str, expiries: list[int]) -> None:
        """Expiries of one chain, each with its ladder around the index."""
        s, index = self.scenario, self._index.price[coin]
        for expiry_ns in expiries:
            step = strike_step(s, coin, expiry_ns - self.now_ns, index)
            strikes = ladder(index, step, s.option_strikes)
            first = option(s, coin, settles, expiry_ns, strikes[0], is_call=True)
            key = (coin, expiry_ns)
            if key not in self._forwards:
                self._option_forwards += 1
                number = _OPTION_FORWARDS + self._option_forwards
                self._forwards[key] = Carry(s, first, self._seed, number)
                self._forwards[key].step(self.now_ns, index)
            series = Series(coin, settles, first.expiry_ns, self._forwards[key], step)
            self._chain.series.append(series)
            self._list_strikes(series, strikes)

    def _extend_ladder(self, series: Series) -> None:
        missing = series.missing(self._index.price[series.coin], self.scenario.option_strikes)
        if missing and series.expiry_ns - self.now_ns > self.scenario.settlement_window_s * NS_PER_S:
            self._list_strikes(series, missing)

    def _list_strikes(self, series: Series, strikes: list[int]) -> None:
        for strike in strikes:
            for is_call in (True, False):
                instrument = option(self.scenario, series.coin, series.settles, series.expiry_ns, strike, is_call)
                series.contracts.append(self.open_book(instrument))
                self.emit(InstrumentChanged(instrument, self.now_ns, "created"))
        series.strikes = sorted({*series.strikes, *strikes})
        self._chain.relisted()

    # --- a recording ---------------------------------------------------------------------------------

    def set_time(self, now_ns: int) -> None:
        """Venue time of what follows; it never goes back."""
        if now_ns // _PRUNE_EVERY_NS > self.now_ns // _PRUNE_EVERY_NS:
            self.orders.prune(now_ns)
        self.now_ns = max(self.now_ns, now_ns)

    def set_level(self, instrument: str, side: Side, price_ticks: int, lots: int) -> None:
        """The recorded amount at a price; it trades with client orders it crosses."""
        self.set_background(self.contracts[instrument], side, price_ticks, lots)

    def replace_book(self, instrument: str, bids: Iterable[tuple[int, int]], asks: Iterable[tuple[int, int]]) -> None:
        """A recorded snapshot: background elsewhere goes, client orders stay and keep their place in line."""
        contract = self.contracts[instrument]
        wanted_bids, wanted_asks = dict(bids), dict(asks)
        if contract.book.replace(wanted_bids, wanted_asks):
            return
        wanted = {Side.BUY: wanted_bids, Side.SELL: wanted_asks}
        for side, levels in wanted.items():
            for ticks in [t for t in contract.book.half(side).levels if t not in levels]:
                self.set_background(contract, side, ticks, 0)
        for side, levels in wanted.items():
            for ticks, lots in levels.items():
                self.set_background(contract, side, ticks, lots)

    def public_trade(self, instrument: str, side: Side, price_ticks: int, lots: int) -> None:
        """A recorded trade, `side` the taker's: fills the client orders it would have met."""
        contract = self.contracts[instrument]
        contract.last_price = price_ticks * contract.tick
        self.recorded_taker(contract, side, price_ticks, lots)

    def set_mark(self, instrument: str, mark_price: float, index_price: float) -> None:
        """Recorded mark and index, in quote currency; accounts short of margin are liquidated a step."""
        contract = self.contracts[instrument]
        marked = mark_price > 0 or (contract.option and mark_price == 0)
        check(marked and index_price > 0, f"{instrument}: mark {mark_price}, index {index_price}")
        contract.mark, contract.index = mark_price, index_price
        self._liquidate_short()

    def pay_funding(self, instrument: str, rate: float) -> list[tuple[str, float]]:
        """Recorded funding, paid now: longs pay a positive `rate` of the value at the mark. (account, amount received)
        of those it concerned."""
        contract = self.contracts[instrument]
        contract.funding_sum += rate * contract.notional(1, contract.mark)
        paid = self.accounts.settle_funding(contract)
        for account, amount in paid:
            if account not in HOUSE:
                self.emit(FundingPaid(account, instrument, self.now_ns, amount))
        return paid

    def set_quote(self, instrument: str, quote: OptionQuote) -> None:
        """Recorded volatilities and Greeks of an option."""
        self.contracts[instrument].quote = quote

    # --- accounts ------------------------------------------------------------------------------------

    def open_account(self, account: str, deposits: dict[str, float]) -> None:
        """A new account with cash by currency."""
        self.accounts.open(account, deposits)

    def order(self, account: str, order_id: str) -> VenueOrder:
        """Refused: order_not_found."""
        return copy(self.orders.get(account, order_id))

    def orders_by_label(self, account: str, label: str) -> list[VenueOrder]:
        """Open and recently closed, oldest first."""
        return self.orders.by_label(account, label)

    def open_orders(self, account: str, instrument: str | None = None) -> list[VenueOrder]:
        """Oldest first."""
        if not self.orders.open_count(account):
            return []
        return [copy(order) for order in self.orders.open(account, instrument)]

    def order_history(self, account: str) -> list[VenueOrder]:
        """Closed ones of the last 30 minutes, newest first."""
        return self.orders.history(account)

    def fills(
        self, account: str, instrument: str | None = None, since_ns: int = 0, until_ns: int | None = None
    ) -> list[VenueFill]:
        """Of the last 24 hours, oldest first, both ends included."""
        return self.orders.fills(account, instrument, since_ns, until_ns)

    def positions(self, account: str) -> list[VenuePosition]:
        """Of every listed contract the account has ever touched, flat ones too."""
        return [holding.position.copied() for holding in self.account(account).holdings.values()]

    def position(self, account: str, instrument: str) -> VenuePosition:
        """Flat where never touched, or delisted. Refused: instrument_not_found."""
        if instrument not in self.delisted:
            self.contract(instrument)
        holding = self.account(account).holdings.get(instrument)
        return holding.position.copied() if holding is not None else VenuePosition(instrument)

    def settlements(self, account: str, currency: str, since_ns: int = 0) -> list[Settled]:
        """What ended in one margin pool of an account since then, of the last two days, oldest first."""
        return [s for s in self._settled if s.account == account and s.pool == currency and s.ts_ns >= since_ns]

    def summary(self, account: str, currency: str) -> Summary:
        """One margin pool of an account."""
        return self.margin.summary(self.account(account), currency)

    def currencies(self) -> list[str]:
        """The margin pools."""
        return list(self._pools)

    # --- the public market ---------------------------------------------------------------------------

    def book(self, instrument: str, depth: int | None = None) -> Book:
        contract = self.contract(instrument)
        bids, asks = contract.book.bids.top(depth), contract.book.asks.top(depth)
        return Book(instrument, contract.change_id, self.now_ns, bids, asks)

    def ticker(self, instrument: str) -> Ticker:
        """Amounts, open interest (of clients) and 24 h volume in the instrument's own amount unit; funding as
        a fraction of notional, of the last 8 h and the 8 h rate now; NaN where there is nothing."""
        contract, history = self.contract(instrument), self.history[instrument]
        lot = float(contract.instrument.lot_size)
        (bid, bid_lots), (ask, ask_lots) = (
            next(iter(half.top(1)), (_NAN, _NAN)) for half in (contract.book.bids, contract.book.asks)
        )
        perpetual = contract.instrument.expiry_ns == 0
        held = sum(abs(account.lots(instrument)) for account in self.accounts.clients())
        return Ticker(
            instrument=instrument,
            ts_ns=self.now_ns,
            mark_price=contract.mark,
            index_price=contract.index,
            last_price=contract.last_price,
            best_bid=bid * contract.tick,
            best_bid_amount=bid_lots * lot,
            best_ask=ask * contract.tick,
            best_ask_amount=ask_lots * lot,
            funding_rate_8h=history.funding_8h() if perpetual else _NAN,
            current_funding=contract.funding_rate if perpetual else _NAN,
            open_interest=held * lot,
            volume=history.volume,
            delivery_price=self._delivery_price(contract),
            option=self._option_quote(contract, bid * contract.tick, ask * contract.tick),
        )

    def _delivery_price(self, contract: Contract) -> float:
        instrument = contract.instrument
        carry = self._forwards.get((instrument.underlying, instrument.expiry_ns))
        return carry.delivery_price(contract.index) if carry is not None else _NAN

    def _option_quote(self, contract: Contract, bid: float, ask: float) -> OptionQuote | None:
        """With the volatilities of the best bid and ask."""
        quote, instrument = contract.quote, contract.instrument
        if quote is None:
            return None
        forward, sign = quote.underlying_price, 1 if instrument.is_call else -1
        unit = forward if contract.coin_quoted else 1.0
        tau_years = (instrument.expiry_ns - self.now_ns) / NS_PER_DAY / DAYS_PER_YEAR
        bid_iv, ask_iv = (implied_vol(p * unit, sign, forward, instrument.strike, tau_years) for p in (bid, ask))
        return replace(quote, bid_iv=bid_iv, ask_iv=ask_iv)

    def index_price(self, currency: str) -> float:
        """USD. Stablecoins are at 1, unless `set_peg` says otherwise. Refused: instrument_not_found."""
        if currency in ("USD", *_STABLE):
            return self._peg.get(currency, 1.0)
        for contract in self.contracts.values():
            if contract.instrument.underlying == currency:
                return contract.index
        raise Refused("instrument_not_found", f"no index of {currency}")

    def stablecoins(self) -> list[str]:
        """Those it settles in."""
        return list(self._peg)

    def trades(self, instrument: str, count: int = 100) -> list[Traded]:
        """Newest last, at most the 1,000 kept."""
        self.contract(instrument)
        return list(self.history[instrument].trades)[-count:] if count > 0 else []

    def candles(self, instrument: str, start_ns: int, end_ns: int, step_s: int) -> list[Candle]:
        """(start ns, open, high, low, close, amount) that begin within [start, end]; step_s a multiple of 60. A
        perpetual's hours go back to before the venue opened."""
        contract = self.contract(instrument)
        before = self._hours_before(contract) if step_s == 3_600 else []
        own = self.history[instrument].candles(start_ns, end_ns, step_s)
        return [candle for candle in before if start_ns <= candle[0] <= end_ns] + own

    def _hours_before(self, contract: Contract) -> list[Candle]:
        """Made when first asked for: most worlds are never asked."""
        scenario, instrument = self.scenario, contract.instrument
        if self._recorded or instrument.kind is not Kind.PERPETUAL:
            return []
        if not self._before:
            self._before = prices_before(scenario, self._seed, HOURS_BEFORE)
        usd = scenario.takers_per_s * 3_600.0 * scenario.taker_usd_median
        return hours_before(
            self._start_ns, self._before[instrument.underlying], usd, instrument.payoff is Payoff.INVERSE
        )

    def funding_history(self, instrument: str, start_ns: int, end_ns: int) -> list[FundingHour]:
        """(hour's end ns, index, funding of that hour, funding of eight), as fractions of notional."""
        self.contract(instrument)
        return self.history[instrument].funding_hours(start_ns, end_ns)
