"""The live engine on years of candles, against the simulated venue in process.

One bar after another. At its open the venue's books stand around the open; what was decided at the last close arrives
there, as late as orders are. Within the bar prices go to the extreme that costs the position first, then to the other:
margin is judged there, and resting orders fill where the price went through them. The engine hears of the bar at its
close, an hour after its stamp, not before; funding is paid at its exact time, before the decision there.
"""

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.commands import QueryAccount
from dea_daemon.domain.errors import ConfigError, DataError
from dea_daemon.domain.events import (
    IndexUpdated,
    MarkUpdated,
    Operator,
    OperatorSpoke,
    QuoteUpdated,
    RunStarted,
)
from dea_daemon.domain.instruments import (
    AccountKey,
    FloatArray,
    Instrument,
    IntArray,
    Kind,
    Payoff,
    Side,
    Universe,
)
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_MS
from dea_daemon.research.candles import Aligned, Candles, FundingRates, History, Market, aligned, resampled
from dea_daemon.shell.backtest_settings import BacktestSettings
from dea_daemon.shell.settings import Settings
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.wiring.in_process import InProcess
from dea_daemon.wiring.paper import ACCOUNT, PaperVenue

CASH = "USDT"
ANY_LOTS = 1 << 50
SHARES = np.array([1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0])  # of an hour's volume, a level of the book each
LISTED = {"BTCUSDT": ("0.1", "0.001"), "ETHUSDT": ("0.01", "0.001")}  # tick and lot, as Binance lists them
QUOTES = ("USDT", "USDC", "USD")
STRESSED_RANGE = 4.0  # usual ranges
FUNDING_NS = NS_PER_DAY // 3  # an interval of funding, where none was seen


class Bars(NamedTuple):
    """N contracts on one grid of T bars, one a decision. mark [T, N] is of the close; `candles` counts those that the
    bars were made from."""

    grid: Aligned
    mark: FloatArray
    candles: int


def underlying_of(symbol: str) -> str:
    """BTC of BTCUSDT. ConfigError where it cannot be told."""
    for quote in QUOTES:
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return symbol[: -len(quote)]
    raise ConfigError(f"venues.binanceusdm.instruments: {symbol}: not a symbol like BTCUSDT")


def contract(symbol: str, price: float, settings: BacktestSettings) -> Instrument:
    """A linear perpetual. Where nothing is known of it a lot is worth about a dollar, a tick a millionth of it."""
    magnitude = math.floor(math.log10(price))
    tick, lot = LISTED.get(symbol, (f"1e{magnitude - 5}", f"1e{-magnitude}"))
    return Instrument(
        venue="binanceusdm",
        name=symbol,
        kind=Kind.PERPETUAL,
        payoff=Payoff.LINEAR,
        underlying=underlying_of(symbol),
        quote_currency=CASH,
        settle_currency=CASH,
        margin_pool=CASH,
        contract_size=Decimal(1),
        lot_size=Decimal(lot),
        tick_size=Decimal(tick),
        maker_fee=settings.maker_bp * 1e-4,
        taker_fee=settings.taker_bp * 1e-4,
    )


def bars_of(history: History, symbols: Sequence[str], from_ns: int, to_ns: int, decide_ns: int = 0) -> Bars:
    """The perpetuals' candles on one grid. Candles finer than `decide_ns` are joined: between two decisions nothing is
    decided, so only their ends and extremes matter. DataError where there are none, or they do not fit together."""
    venue = venue_of(history, symbols)
    perps = [history.candles.get(Market(venue, "perp", symbol)) for symbol in symbols]
    found = [c for c in perps if c is not None]
    if len(found) < len(symbols):
        lacking = [symbol for symbol, c in zip(symbols, perps, strict=True) if c is None]
        there = sorted(market.symbol for market in history.candles if market.kind == "perp")
        raise DataError(f"no candles of the perpetual {', '.join(lacking)}; there are {', '.join(there) or 'none'}")
    first = max(from_ns, min(int(c.open_ns[0]) for c in found))
    last = min(to_ns, max(int(c.close_ns[-1]) for c in found))
    if last <= first:
        raise DataError(f"no candle of {', '.join(symbols)} within the time asked for")
    fine = aligned(found, first, last)
    joined = [resampled(c, decide_ns) if decide_ns > c.step_ns else c for c in found]
    grid = fine if joined == found else aligned(joined, first, last)
    for symbol, column in zip(symbols, grid.close.T, strict=True):
        if np.isnan(column).all():
            raise DataError(f"no candle of {symbol} within the time asked for")
    of = (history.candles.get(Market(venue, "mark", symbol)) for symbol in symbols)
    marks = [_mark(candles, grid.open_ns, grid.step_ns, grid.close[:, n]) for n, candles in enumerate(of)]
    return Bars(grid, np.stack(marks, axis=1), len(fine.open_ns))


def venue_of(history: History, symbols: Sequence[str]) -> str:
    """The first venue that has perpetuals of them; its marks, spot and funding belong to it."""
    return next((m.venue for m in history.candles if m.kind == "perp" and m.symbol in symbols), "")


def _mark(candles: Candles | None, open_ns: IntArray, step_ns: int, close: FloatArray) -> FloatArray:
    """[T] the venue's mark at each close; the last trade where it was not recorded."""
    if candles is None or candles.step_ns > step_ns or not len(open_ns):
        return close
    whole = resampled(candles, step_ns) if candles.step_ns < step_ns else candles
    mark = aligned([whole], int(open_ns[0]), int(open_ns[-1]) + 1).close[:, 0]
    return np.where(np.isfinite(mark), mark, close)


class Bar(NamedTuple):
    """What the engine was told at one close, and what the venue says of the account."""

    at_ns: int
    price: list[float]  # [N]
    equity_usd: float
    lots: list[int]  # [N]


class CandleRun:
    """One run over `bars`. `live_ns` is when it begins to trade; what comes before is watched."""

    def __init__(
        self,
        bars: Bars,
        funding: dict[str, FundingRates],
        settings: Settings,
        symbols: Sequence[str],
        live_ns: int,
        *,
        seed: int = 7,
        tape: Path | None = None,
    ) -> None:
        self.bars, self.live_ns, self.assumed = bars, live_ns, settings.backtest
        self._dice = np.random.default_rng(seed)
        first = [bars.grid.close[np.isfinite(bars.grid.close[:, n]), n] for n in range(len(symbols))]
        contracts = [contract(s, float(p[0]), settings.backtest) for s, p in zip(symbols, first, strict=True)]
        self.universe = Universe((AccountKey("binanceusdm", "backtest"),), tuple((0, c) for c in contracts))
        self.names = [c.name for c in contracts]
        self._tick = [float(c.tick_size) for c in contracts]
        self._lot = [c.lot_value for c in contracts]
        self._funding = [_by_time(funding.get(symbol)) for symbol in symbols]
        # Of so few markets plain numbers are several times faster than arrays.
        self._sigma = [0.01] * len(symbols)  # usual range of a bar, as a fraction
        self._volume = [0.0] * len(symbols)  # of the last bar with some
        self.funding_usd = 0.0  # received by now
        # The last rate paid, per 8 hours, stands for the next: no venue's forecast of it was recorded.
        self._paid_ns, self._rate_8h = [0] * len(symbols), [math.nan] * len(symbols)
        start_ns = int(bars.grid.open_ns[0])
        self.exchange = Exchange.replayed(contracts, start_ns)
        self.exchange.open_account(ACCOUNT, {CASH: settings.backtest.capital_usd})
        self.paper = PaperVenue(self.exchange, self.universe, 0, int(settings.backtest.latency_ms * NS_PER_MS))
        self.run = InProcess(self._started(settings, start_ns), self.paper, tape, regular=False)
        self.paper.open(start_ns, beats=False)

    def _started(self, settings: Settings, now_ns: int) -> RunStarted:
        rows = zip(self.universe.account.tolist(), self.universe.instruments, strict=True)
        return RunStarted(
            ts_recv_ns=now_ns,
            run_id="backtest",
            utc_ns=now_ns,
            epoch=1,
            armed=False,
            accounts=self.universe.accounts,
            rows=tuple(rows),
            parameters=settings.parameters.model_dump_json(),
            currencies=(CASH,),
        )

    # --- one bar after another -------------------------------------------------------------------

    def live(self) -> Iterator[int]:
        """Live through the bars; yields the index of each after its decision."""
        for t in range(len(self.bars.grid.open_ns)):
            self._bar(t)
            yield t

    def _bar(self, t: int) -> None:
        bars, exchange, run = self.bars, self.exchange, self.run
        open_ns = int(bars.grid.open_ns[t])
        close_ns = open_ns + bars.grid.step_ns
        if t:
            before = bars.grid.volume[t - 1].tolist()
            self._volume = [new if new > 0.0 else old for new, old in zip(before, self._volume, strict=True)]
        latency_ns = self._latency_ns(t)
        self.paper.be_away(latency_ns)
        before_close_ns = close_ns - 3 * latency_ns - NS_PER_MS
        exchange.set_time(open_ns)
        self._quote(bars.grid.open[t].tolist())
        if self.assumed.intrabar and self._at_stake():
            run.catch_up(open_ns + bars.grid.step_ns // 3)
            for k, price in enumerate(self._extremes(t), 1):
                run.catch_up(min(open_ns + k * bars.grid.step_ns // 3, before_close_ns))
                exchange.set_time(open_ns + k * bars.grid.step_ns // 3)
                self._trade_through(t, price)
        run.catch_up(before_close_ns)
        exchange.set_time(before_close_ns)
        self._quote(bars.grid.close[t].tolist())
        self.paper.beat(before_close_ns)
        self.paper.send(QueryAccount(0, before_close_ns // NS_PER_MS - 1), before_close_ns)
        run.catch_up(close_ns - 1)
        exchange.set_time(close_ns)
        self._pay_funding(close_ns)
        self._tell(t, close_ns)
        if close_ns >= self.live_ns and not run.state.account.armed:
            run.fold(OperatorSpoke(close_ns, Operator.ARM, "backtest"))
        run.tick(close_ns, "bar")

    def _latency_ns(self, t: int) -> int:
        """Drawn anew for each bar, longer in a wild one."""
        assumed, wild = self.assumed, False
        for n, (high, low) in enumerate(
            zip(self.bars.grid.high[t].tolist(), self.bars.grid.low[t].tolist(), strict=True)
        ):
            if high > 0.0 < low:  # there is a candle
                spread = high / low - 1.0
                wild = wild or spread > STRESSED_RANGE * self._sigma[n]
                self._sigma[n] += 0.02 * (spread - self._sigma[n])
        drawn = assumed.latency_ms * math.exp(assumed.latency_spread * self._dice.standard_normal())
        most_ns = self.bars.grid.step_ns // 20
        return min(int(drawn * (assumed.latency_stress if wild else 1.0) * NS_PER_MS), most_ns)

    def _at_stake(self) -> bool:
        """Whether anything can happen within a bar: something is held, or rests."""
        account = self.run.state.account
        return any(account.position_lots.tolist()) or bool(account.orders.live())

    def _extremes(self, t: int) -> tuple[list[float], list[float]]:
        """The prices [N] that cost what is held, and the other ends."""
        held = self.run.state.account.position_lots.tolist()
        ends = list(zip(held, self.bars.grid.low[t].tolist(), self.bars.grid.high[t].tolist(), strict=True))
        first = [low if lots >= 0 else high for lots, low, high in ends]
        return first, [high if lots >= 0 else low for lots, low, high in ends]

    # --- the venue's market ----------------------------------------------------------------------

    def _quote(self, price: list[float]) -> None:
        """Books around `price` [N], and marks there; none where there is no candle."""
        for n, at in enumerate(price):
            if at > 0.0:
                self._quote_one(n, at)
            else:
                self.exchange.replace_book(self.names[n], (), ())

    def _quote_one(self, n: int, at: float) -> None:
        half, tick = self.assumed.half_spread_bp * 1e-4, self._tick[n]
        bid = max(math.floor(at * (1.0 - half) / tick + 1e-9), 1)
        ask = max(math.ceil(at * (1.0 + half) / tick - 1e-9), bid + 1)
        bids, asks = self._levels(n, bid, ask)
        # What goes through an order of ours fills it by `_trade_through` and no more: no book stands beyond it.
        for order in self.exchange.open_orders(ACCOUNT, self.names[n]):
            if order.side is Side.BUY:
                asks = [level for level in asks if level[0] > order.price_ticks]
            else:
                bids = [level for level in bids if level[0] < order.price_ticks]
        self.exchange.replace_book(self.names[n], bids, asks)
        self.exchange.set_mark(self.names[n], at, at)

    def _levels(self, n: int, bid: int, ask: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Depth such that taking a share q of the last bar's volume costs Y·σ·√q on the average, σ a usual bar's range:
        the price at the margin is half as much again. Source: the square-root law of impact."""
        if not self.assumed.impact > 0.0:
            return [(bid, ANY_LOTS)], [(ask, ANY_LOTS)]
        volume = self._volume[n] / self._lot[n]
        if not volume > 0.0:  # nobody has traded yet
            return [], []
        lots = np.maximum(np.diff(SHARES, prepend=0.0) * volume, 1.0).astype(np.int64).tolist()
        away = 1.5 * self.assumed.impact * self._sigma[n] * np.sqrt(SHARES)
        bids = np.maximum(np.floor(bid * (1.0 - away)), 1).astype(np.int64).tolist()
        asks = np.ceil(ask * (1.0 + away)).astype(np.int64).tolist()
        return list(dict(zip(bids, lots, strict=True)).items()), list(dict(zip(asks, lots, strict=True)).items())

    def _trade_through(self, t: int, price: list[float]) -> None:
        """The price goes to `price` [N]: resting orders it went through fill, by a share of the bar's volume; one at
        that very price does not, as others stood before it. Margin is judged at the mark there."""
        for n, at in enumerate(price):
            if not at > 0.0:
                continue
            name, ticks = self.names[n], at / self._tick[n]
            if self.exchange.open_orders(ACCOUNT, name):
                share = self.assumed.max_volume_share * float(self.bars.grid.volume[t, n]) / self._lot[n]
                lots = max(int(share), 1)
                self.exchange.public_trade(name, Side.SELL, math.floor(ticks) + 1, lots)
                self.exchange.public_trade(name, Side.BUY, max(math.ceil(ticks) - 1, 1), lots)
            self._quote_one(n, at)

    def _pay_funding(self, now_ns: int) -> None:
        """What is due by now, on the close; what was due before there was a price concerned nobody."""
        for n, (times, rates) in enumerate(self._funding):
            while times and times[-1] <= now_ns:
                at_ns, rate = times.pop(), rates.pop()
                apart_ns = min(at_ns - self._paid_ns[n], FUNDING_NS)
                self._paid_ns[n], self._rate_8h[n] = at_ns, rate * FUNDING_NS / apart_ns
                if at_ns > now_ns - self.bars.grid.step_ns and self.exchange.contracts[self.names[n]].mark > 0.0:
                    paid = self.exchange.pay_funding(self.names[n], rate)
                    self.funding_usd += sum(amount for account, amount in paid if account == ACCOUNT)

    def _tell(self, t: int, now_ns: int) -> None:
        """The close, as the engine hears of it."""
        half, bars = self.assumed.half_spread_bp * 1e-4, self.bars
        for n, (close, mark) in enumerate(zip(bars.grid.close[t].tolist(), bars.mark[t].tolist(), strict=True)):
            if not close > 0.0:
                continue
            tick = self._tick[n]
            bid = max(math.floor(close * (1.0 - half) / tick + 1e-9), 1) * tick
            ask = max(math.ceil(close * (1.0 + half) / tick - 1e-9) * tick, bid + tick)
            self.run.fold(IndexUpdated(now_ns, now_ns, 0, self.universe.instruments[n].underlying, mark))
            self.run.fold(MarkUpdated(now_ns, now_ns, n, mark, mark, self._rate_8h[n]))
            self.run.fold(QuoteUpdated(now_ns, now_ns, n, bid, float(ANY_LOTS), ask, float(ANY_LOTS)))

    # --- what it came to -------------------------------------------------------------------------

    def bar(self, t: int) -> Bar:
        """The account at the close of bar `t`, by the venue."""
        account, grid = self.exchange.account(ACCOUNT), self.bars.grid
        equity, lots = self.exchange.accounts.equity(account, CASH), [account.lots(name) for name in self.names]
        return Bar(int(grid.open_ns[t]) + grid.step_ns, grid.close[t].tolist(), equity, lots)


def _by_time(rates: FundingRates | None) -> tuple[list[int], list[float]]:
    """Latest first, so that the next one is at the end."""
    if rates is None:
        return [], []
    return rates.at_ns[::-1].tolist(), rates.rate[::-1].tolist()


def span(settings: Settings, from_ns: int) -> int:
    """Where the history must begin so that the engine is warm by `from_ns`."""
    return from_ns - int(settings.backtest.warm_up_days * NS_PER_DAY)
