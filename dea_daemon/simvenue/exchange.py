"""The venue as one object: a seeded world that drives a trading floor, and everything one may ask of it.

`Exchange(scenario, seed, start_ns)` is a synthetic market; `Exchange.replayed(instruments, start_ns)` the same
accounts, matching, fees and margin on a recorded one, fed level by level. Time moves by `advance` alone.
"""

from collections.abc import Iterable
from copy import copy

from dea_daemon.domain.errors import check
from dea_daemon.domain.instruments import Instrument, Side
from dea_daemon.domain.numbers import NS_PER_MS, NS_PER_S
from dea_daemon.simvenue.accounts import HOUSE, Contract
from dea_daemon.simvenue.floor import Floor
from dea_daemon.simvenue.flow import Flow
from dea_daemon.simvenue.history import Candle, FundingHour
from dea_daemon.simvenue.listing import initial_instruments, successor
from dea_daemon.simvenue.process import Carry, Index
from dea_daemon.simvenue.scenarios import Scenario
from dea_daemon.simvenue.words import (
    Book,
    FundingPaid,
    IndexChanged,
    InstrumentChanged,
    Refused,
    Settled,
    Summary,
    Ticker,
    TickerChanged,
    Traded,
    VenueFill,
    VenueOrder,
    VenuePosition,
)  # fmt: skip

_PRUNE_EVERY_NS = 60 * NS_PER_S
_NAN = float("nan")


class Exchange(Floor):
    """A venue. Same scenario, seed, start and calls: the same venue, bit for bit."""

    def __init__(self, scenario: Scenario, seed: int, start_ns: int) -> None:
        super().__init__(scenario, start_ns, publishes=True)
        self._seed = seed
        self._step_ns = scenario.step_ms * NS_PER_MS
        self._stepped_ns = start_ns  # the last point of the grid
        self._listed = 0
        self._index = Index(scenario, seed)
        self._carry: dict[str, Carry] = {}
        self._flow: dict[str, Flow] = {}
        self._recorded = False
        for instrument in initial_instruments(scenario, start_ns):
            self._list(instrument)
        self.events()  # what is there at the start is asked for, not announced

    @classmethod
    def replayed(cls, instruments: Iterable[Instrument], start_ns: int, scenario: Scenario | None = None) -> "Exchange":
        """A venue without a world of its own: books, trades and marks come from a recording, by set_level,
        replace_book, public_trade, set_mark and set_time. It publishes accounts' events, no market data."""
        self = cls.__new__(cls)
        Floor.__init__(self, scenario or Scenario("replayed", coins={}), start_ns, publishes=False)
        self._recorded = True
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
        for contract in list(self.contracts.values()):
            self._reprice(contract)
            self._trade_background(contract)
            if 0 < contract.instrument.expiry_ns <= self.now_ns:
                self._settle(contract)
        self._each_interval()

    def _reprice(self, contract: Contract) -> None:
        """Index, mark and funding of one contract; funding of the step is at the rate it ends with."""
        carry, index = self._carry[contract.name], self._index.price[contract.instrument.underlying]
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
            for name in self.contracts:
                self.emit(TickerChanged(self.ticker(name)))
        if self._every(s.index_every_ms):
            for coin, price in self._index.price.items():
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
        for account in list(self.accounts.clients()):
            if account.holdings:
                for pool in self.currencies():
                    if self.margin.is_short(account, pool):
                        self.liquidate(account, pool)

    # --- listing and settlement ----------------------------------------------------------------------

    def _list(self, instrument: Instrument) -> None:
        contract = self.open_book(instrument)
        self._listed += 1
        self._carry[instrument.name] = Carry(self.scenario, instrument, self._seed, self._listed)
        self._flow[instrument.name] = Flow(self.scenario, contract, self._seed, self._listed)
        self.emit(InstrumentChanged(instrument, self.now_ns, "created"))
        carry = self._carry[instrument.name]
        contract.index = self._index.price[instrument.underlying]
        carry.step(self.now_ns, contract.index)
        contract.mark = carry.mark
        self._trade_background(contract)

    def _settle(self, contract: Contract) -> None:
        """End a dated future: orders cancelled, positions closed at the average index, another one listed."""
        price = self._carry[contract.name].settlement_price
        self.cancel_all(contract, "settlement")
        contract.mark = price
        for account, lots, pnl in self.accounts.settle(contract, price):
            if account not in HOUSE:
                self.emit(Settled(account, contract.name, self.now_ns, lots, price, pnl))
                self.publish_portfolio(self.account(account), contract.pool)
        self.close_book(contract)
        del self._carry[contract.name], self._flow[contract.name]
        self.emit(InstrumentChanged(contract.instrument, self.now_ns, "closed"))
        taken = {*self.instruments, *self.delisted}
        self._list(successor(self.scenario, contract.instrument, self.now_ns, taken))

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
        wanted = {Side.BUY: dict(bids), Side.SELL: dict(asks)}
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
        check(mark_price > 0 and index_price > 0, f"{instrument}: mark {mark_price}, index {index_price}")
        contract.mark, contract.index = mark_price, index_price
        self._liquidate_short()

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
        return [copy(holding.position) for holding in self.account(account).holdings.values()]

    def position(self, account: str, instrument: str) -> VenuePosition:
        """Flat where never touched, or delisted. Refused: instrument_not_found."""
        if instrument not in self.delisted:
            self.contract(instrument)
        holding = self.account(account).holdings.get(instrument)
        return copy(holding.position) if holding is not None else VenuePosition(instrument)

    def summary(self, account: str, currency: str) -> Summary:
        """One margin pool of an account."""
        return self.margin.summary(self.account(account), currency)

    def currencies(self) -> list[str]:
        """The margin pools."""
        return list(dict.fromkeys(contract.pool for contract in self.contracts.values()))

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
        )

    def index_price(self, currency: str) -> float:
        """USD. Stablecoins are at 1. Refused: instrument_not_found."""
        if currency in ("USD", "USDC", "USDT"):
            return 1.0
        for contract in self.contracts.values():
            if contract.instrument.underlying == currency:
                return contract.index
        raise Refused("instrument_not_found", f"no index of {currency}")

    def trades(self, instrument: str, count: int = 100) -> list[Traded]:
        """Newest last, at most the 1,000 kept."""
        self.contract(instrument)
        return list(self.history[instrument].trades)[-count:] if count > 0 else []

    def candles(self, instrument: str, start_ns: int, end_ns: int, step_s: int) -> list[Candle]:
        """(start ns, open, high, low, close, amount) that begin within [start, end]; step_s a multiple of 60."""
        self.contract(instrument)
        return self.history[instrument].candles(start_ns, end_ns, step_s)

    def funding_history(self, instrument: str, start_ns: int, end_ns: int) -> list[FundingHour]:
        """(hour's end ns, index, funding of that hour, funding of eight), as fractions of notional."""
        self.contract(instrument)
        return self.history[instrument].funding_hours(start_ns, end_ns)
