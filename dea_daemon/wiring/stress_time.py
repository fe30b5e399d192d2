"""The daemon in a crisis: the engine bar by bar at a venue with bad days, and what it did there, counted."""

from collections import Counter

import msgspec
import numpy as np

from dea_daemon.domain.decisions import DecisionRecord
from dea_daemon.domain.events import IndexUpdated, MarkUpdated, OptionUpdated, QuoteUpdated, RunStarted
from dea_daemon.domain.instruments import FloatArray, Kind, Side, Universe
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_MS, NS_PER_S
from dea_daemon.pricing import black
from dea_daemon.research.stress import Holdings
from dea_daemon.research.stress_course import Course, marked, worth
from dea_daemon.research.stress_report import Driven
from dea_daemon.shell.settings import Settings
from dea_daemon.simvenue.accounts import Holding
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.words import OptionQuote, OrderRequest, Refused, VenuePosition
from dea_daemon.wiring.candles import ANY_LOTS, CandleRun, contract
from dea_daemon.wiring.paper import ACCOUNT, PaperVenue
from dea_daemon.wiring.stress_book import Stage
from dea_daemon.wiring.stress_trials import HOUR_NS, Trial

OUTAGE_NS = 60 * NS_PER_S  # what a call waits for while the venue does not answer
DEPTH_BP = np.array([0.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 200.0])
DEPTH_USD = np.array([0.3, 0.7, 1.0, 2.0, 4.0, 5.0, 7.0, 10.0]) * 1e6
"""A side of the book, USD at each distance: 20 million within 1 %, as press had of BTC's in October 2025; the shape is
assumed, and the same for every contract."""
OPTION_SPREAD = 0.02  # of an option's price, half of it each way, and no less than a tick: assumed


class StressRun(CandleRun):
    """A candle run whose venue has bad days: thin books, wide spreads, calls that time out, shorts closed by it.
    Beside the daemon's perpetuals it holds the portfolio, in its own pools."""

    def __init__(self, trial: Trial, stage: Stage, settings: Settings, seed: int) -> None:
        self.stage, self.conditions, self.course = stage, trial.conditions, trial.course
        self._now, self._as_usual = 0, settings.backtest
        self.deleveraged, self.deleveraged_usd, self.unheard = 0, 0.0, 0
        live_ns = int(trial.bars.grid.open_ns[trial.warm // 2])
        super().__init__(trial.bars, {}, settings, stage.perpetuals, live_ns, seed=seed)

    def _started(self, settings: Settings, now_ns: int) -> RunStarted:
        """The venue anew, as a run over candles lists perpetuals in USDT alone: the same in the stage's stablecoin,
        what the portfolio holds, and its cash in its own pools."""
        book, stage = self.stage.book, self.stage
        money = book.currencies[stage.money]
        first = self.bars.grid.close[0].tolist()
        perpetuals = [
            msgspec.structs.replace(
                contract(name, price, settings.backtest),
                quote_currency=money,
                settle_currency=money,
                margin_pool=money,
                underlying=underlying,
            )
            for name, price, underlying in zip(stage.perpetuals, first, book.underlyings, strict=True)
        ]
        listed = (*perpetuals, *(held.instrument for held in stage.held))
        self.universe = Universe(self.universe.accounts, tuple((0, instrument) for instrument in listed))
        self.exchange = Exchange.replayed(listed, now_ns)
        self.exchange.open_account(ACCOUNT, stage.cash)
        self._take_over()
        self.paper = PaperVenue(self.exchange, self.universe, 0, int(settings.backtest.latency_ms * NS_PER_MS))
        stable = tuple(c for c in book.currencies if c not in book.underlyings)
        return msgspec.structs.replace(super()._started(settings, now_ns), currencies=stable)

    def _take_over(self) -> None:
        """The account holds the portfolio from the first bar on; without an entry price its profit is cash."""
        self._mark_held(self.course.at(0))
        account = self.exchange.account(ACCOUNT)
        for held in self.stage.held:
            name = held.instrument.name
            told = held.entry_price or self._price_told(name)
            account.holdings[name] = Holding(VenuePosition(name, held.lots, told))

    def _price_told(self, name: str) -> float:
        """What a contract stood at when the portfolio was told."""
        return float(self.stage.book.forward[self.stage.book.names.index(name, len(self.stage.perpetuals))])

    # --- a bar ---------------------------------------------------------------------------------------------------

    def _bar(self, t: int) -> None:
        conditions, self._now = self.conditions, t
        half = self._as_usual.half_spread_bp * float(conditions.spread[t])
        if half != self.assumed.half_spread_bp:
            self.assumed = self._as_usual.model_copy(update={"half_spread_bp": half})
        if conditions.adl[t]:
            self._deleverage(t)
        if conditions.outage[t] and self.bars.grid.step_ns <= OUTAGE_NS:
            self._unheard_bar(t)
        else:
            super()._bar(t)

    def _latency_ns(self, t: int) -> int:
        """A call in an outage waits for the venue; of a bar longer than that, what is sent at its beginning does."""
        usual = super()._latency_ns(t)
        return min(OUTAGE_NS, self.bars.grid.step_ns // 20) if self.conditions.outage[t] else usual

    def _extremes(self, t: int) -> tuple[list[float], list[float]]:
        """The prices of perpetuals that cost what is held of them, and the other ends: both come."""
        grid, held = self.bars.grid, self.run.state.account.position_lots[: len(self.names)]
        low, high = grid.low[t], grid.high[t]
        return np.where(held >= 0, low, high).tolist(), np.where(held >= 0, high, low).tolist()

    def _unheard_bar(self, t: int) -> None:
        """The market moves on, and judges margin; nothing of it is heard, and what is sent arrives a minute late."""
        grid, run = self.bars.grid, self.run
        open_ns, step_ns = int(grid.open_ns[t]), grid.step_ns
        self.unheard += 1
        self.paper.be_away(OUTAGE_NS)
        run.catch_up(open_ns)
        self.exchange.set_time(open_ns)
        self._quote(grid.open[t].tolist())
        for k, price in enumerate(self._extremes(t), 1):
            run.catch_up(open_ns + k * step_ns // 3)
            self.exchange.set_time(open_ns + k * step_ns // 3)
            self._trade_through(t, price)
        run.catch_up(open_ns + step_ns - 1)
        self.exchange.set_time(open_ns + step_ns - 1)
        self._quote(grid.close[t].tolist())
        self._pay_funding(open_ns + step_ns - 1)
        self.paper.drain(open_ns + step_ns - 1)
        run.tick(open_ns + step_ns, "timer")

    def _deleverage(self, t: int) -> None:
        """The venue closes every short but options at the price it stands at, without asking and without a fee of its
        own."""
        now_ns = int(self.bars.grid.open_ns[t])
        self.run.catch_up(now_ns)
        self.exchange.set_time(now_ns)
        self._quote(self.bars.grid.open[t].tolist())
        for name, listed in self.exchange.contracts.items():
            lots = self.exchange.account(ACCOUNT).lots(name)
            if lots >= 0 or listed.option:
                continue
            ticks = max(round(listed.mark / listed.tick), 1)
            self.exchange.replace_book(name, (), [(ticks, -lots)])
            try:
                self.exchange.place(OrderRequest(ACCOUNT, name, Side.BUY, -lots, None, reduce_only=True))
            except Refused:  # an order of ours stands in its way: this time it takes another's
                continue
            self.deleveraged += 1
            usd = listed.index if listed.inverse else self._usd(listed.pool)  # a coin's price moves within the bar
            self.deleveraged_usd += listed.notional(-lots, listed.mark) * usd
        self.paper.drain(now_ns)

    def _pay_funding(self, now_ns: int) -> None:
        """What is due at this bar's close, of every perpetual; and what ends by now is settled."""
        rates = self.course.funding[self._now].tolist()
        for name, listed in list(self.exchange.contracts.items()):
            instrument = listed.instrument
            if instrument.expiry_ns:
                if now_ns >= instrument.expiry_ns:
                    self.exchange.end_contract(listed, listed.index)
            elif rate := rates[self.stage.book.underlyings.index(instrument.underlying)]:
                paid = self.exchange.pay_funding(name, rate)
                usd = self._usd(listed.pool)
                self.funding_usd += usd * sum(amount for account, amount in paid if account == ACCOUNT)

    # --- what is quoted ------------------------------------------------------------------------------------------

    def _quote(self, price: list[float]) -> None:
        """What is held moves first, as margin is judged at each perpetual's mark."""
        if self.stage.held:
            self._mark_held(self._course_at(price))
        super()._quote(price)

    def _trade_through(self, t: int, price: list[float]) -> None:
        if self.stage.held:
            self._mark_held(self._course_at(price))
        super()._trade_through(t, price)

    def _course_at(self, price: list[float]) -> Course:
        """This bar's, with the indices at which perpetuals cost `price`."""
        now, by = self._now, self.course
        dear = (1.0 + float(by.premium[now])) / float(by.price[now, self.stage.money])
        index = np.array(price) / dear
        coin = self.stage.book.coin
        worth_usd = np.where(coin >= 0, index[np.maximum(coin, 0)], by.price[now])
        return by.at(now, index)._replace(price=worth_usd[None])

    def _mark_held(self, by: Course) -> None:
        """Marks, books and Greeks of what is held and has not ended."""
        book, first = self.stage.book, len(self.stage.perpetuals)
        self._marks = marks = marked(book, by)
        for n, held in enumerate(self.stage.held, first):
            listed = self.exchange.contracts.get(held.instrument.name)
            if listed is None:
                continue
            usd = by.spot[0, book.underlying[n]]
            money = 1.0 if book.inverse[n] or book.coin_quoted[n] else by.price[0, book.settle[n]]
            listed.mark, listed.index = float(marks.price[0, n]), float(usd / money)
            bid, ask = self._sides(n)
            lots = abs(held.lots)
            self.exchange.replace_book(listed.name, [(bid, lots)] if bid else (), [(ask, lots)])
            if listed.option:
                self.exchange.set_quote(listed.name, self._greeks(n))

    def _sides(self, n: int) -> tuple[int, int]:
        """Ticks of the best bid (0: nobody's) and ask of a held row."""
        option, tick = self.stage.book.option[n], float(self.universe.tick_size[n])
        half = 0.5 * OPTION_SPREAD if option else self.assumed.half_spread_bp * 1e-4
        half *= float(self.conditions.spread[self._now]) if option else 1.0
        price = float(self._marks.price[0, n]) / tick
        bid = max(int(np.floor(price * (1.0 - half))), 0)
        return bid, max(int(np.ceil(price * (1.0 + half))), bid + 1)

    def _greeks(self, n: int) -> OptionQuote:
        book, marks = self.stage.book, self._marks
        f, tau, iv = (float(column[0, n]) for column in (marks.forward, marks.tau_years, marks.iv))
        g = black.greeks(f, float(book.strike[n]), tau, iv, bool(book.call[n]))
        nan, vega, theta = float("nan"), float(g.vega) / 100.0, float(g.theta) / DAYS_PER_YEAR
        return OptionQuote(iv, nan, nan, f, float(g.delta), float(g.gamma), vega, theta)

    def _levels(self, n: int, bid: int, ask: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """DEPTH_USD at DEPTH_BP from the touch, times what there is of depth."""
        lot_usd = bid * self._tick[n] * self._lot[n]
        lots = np.maximum(DEPTH_USD * self.conditions.depth[self._now] / lot_usd, 1.0).astype(np.int64).tolist()
        away = DEPTH_BP * 1e-4
        bids = np.maximum(np.floor(bid * (1.0 - away)), 1).astype(np.int64).tolist()
        asks = np.ceil(ask * (1.0 + away)).astype(np.int64).tolist()
        return list(dict(zip(bids, lots, strict=True)).items()), list(dict(zip(asks, lots, strict=True)).items())

    def _tell(self, t: int, now_ns: int) -> None:
        """The close, as the engine hears of it: index in USD, mark in the stablecoin, and what that is worth."""
        course, run, book = self.course, self.run, self.stage.book
        for c in np.flatnonzero(book.coin < 0).tolist():
            run.fold(IndexUpdated(now_ns, now_ns, 0, book.currencies[c], float(course.price[t, c])))
        premium, half = float(course.premium[t]), self.assumed.half_spread_bp * 1e-4
        for n, close in enumerate(self.bars.grid.close[t].tolist()):
            tick = self._tick[n]
            bid = max(np.floor(close * (1.0 - half) / tick + 1e-9), 1.0) * tick
            ask = max(np.ceil(close * (1.0 + half) / tick - 1e-9) * tick, bid + tick)
            run.fold(IndexUpdated(now_ns, now_ns, 0, book.underlyings[n], float(course.spot[t, n])))
            run.fold(MarkUpdated(now_ns, now_ns, n, close, close / (1.0 + premium)))
            run.fold(QuoteUpdated(now_ns, now_ns, n, float(bid), float(ANY_LOTS), float(ask), float(ANY_LOTS)))
        for n in range(len(self.names), len(self.universe)):
            self._tell_held(n, now_ns)

    def _tell_held(self, n: int, now_ns: int) -> None:
        """One held row, as its venue would."""
        instrument = self.universe.instruments[n]
        listed = self.exchange.contracts.get(instrument.name)
        if listed is None:
            return
        bid, ask = (ticks * listed.tick for ticks in self._sides(n))
        self.run.fold(MarkUpdated(now_ns, now_ns, n, listed.mark, listed.index))
        self.run.fold(QuoteUpdated(now_ns, now_ns, n, bid, float(ANY_LOTS), ask, float(ANY_LOTS)))
        if instrument.kind is Kind.OPTION and (q := listed.quote) is not None:
            told = (q.mark_iv, q.bid_iv, q.ask_iv, q.underlying_price, q.delta, q.gamma, q.vega, q.theta)
            self.run.fold(OptionUpdated(now_ns, now_ns, n, *told))

    # --- what it came to -----------------------------------------------------------------------------------------

    def _usd(self, currency: str) -> float:
        """What one is worth at this bar's close."""
        return float(self.course.price[self._now, self.stage.book.currencies.index(currency)])

    def equity(self) -> FloatArray:
        """[C] of every pool, by the venue."""
        account, accounts = self.exchange.account(ACCOUNT), self.exchange.accounts
        return np.array([accounts.equity(account, currency) for currency in self.stage.book.currencies])

    def fees(self) -> FloatArray:
        """[C] paid by now."""
        paid = self.exchange.account(ACCOUNT).fees_paid
        return np.array([paid.get(currency, 0.0) for currency in self.stage.book.currencies])

    def usd(self, amount: FloatArray) -> float:
        """What so much of each currency [C] is worth at this bar's close."""
        return float(amount @ self.course.price[self._now])

    def standing(self) -> Holdings:
        """The book as it stands now: the perpetuals the daemon holds, and what is held."""
        account = self.exchange.account(ACCOUNT)
        lots = np.array([account.lots(instrument.name) for instrument in self.universe.instruments])
        return self.stage.book._replace(amount=lots * self.universe.lot_value, equity=self.equity())


class Tally:
    """What the daemon did since `begin`, bar by bar."""

    def __init__(self, run: StressRun, step_h: float) -> None:
        self._run, self._step_h = run, step_h
        self.cuts, self.modes, self.beyond = Counter[str](), Counter[str](), Counter[str]()
        self.changes: list[tuple[float, str]] = []
        self._mode, self._fees, self.liquidations = "normal", run.fees(), 0
        self.begin()

    def begin(self) -> None:
        stats = self._run.run.stats
        self._sent, self._filled, self._funding_usd = stats.orders_sent, stats.fills, self._run.funding_usd
        self.turnover_usd, self.fees_usd = 0.0, 0.0
        self.liquidated_before, self.liquidations = self.liquidations, 0

    def fills(self) -> None:
        """Those heard of in this bar, and all fees that were paid in it."""
        booked, fees = self._run.run.fills, self._run.fees()
        self.liquidations += sum(one.fill.liquidation for one in booked)
        self.turnover_usd += sum(one.turnover_usd for one in booked)
        self.fees_usd += self._run.usd(fees - self._fees)
        self._fees = fees
        booked.clear()

    def take(self, bar: int, record: DecisionRecord) -> None:
        """The decision at the close of the bar so numbered, from 1."""
        mode = record.mode.name.lower()
        if mode != self._mode:
            self.changes.append((self._step_h * bar, mode))
        self._mode = mode
        self.cuts.update({clip.limit for clip in record.clips})
        self.modes[mode] += 1
        self.beyond.update({use.limit for use in record.uses if not use.used <= use.allowed})

    def driven(
        self, trial: Trial, equity_usd: FloatArray, still_usd: FloatArray, bare_usd: FloatArray | None
    ) -> Driven:
        """All of it, beside the paths."""
        stats, run = self._run.run.stats, self._run
        return Driven(
            name=trial.name,
            title=trial.title,
            kind=trial.kind,
            hours=self._step_h * np.arange(len(equity_usd), dtype=np.float64),
            equity_usd=equity_usd,
            still_usd=still_usd,
            bare_usd=bare_usd,
            orders=stats.orders_sent - self._sent,
            fills=stats.fills - self._filled,
            turnover_usd=self.turnover_usd,
            fees_usd=self.fees_usd,
            funding_usd=run.funding_usd - self._funding_usd,
            liquidations=self.liquidations,
            liquidated_before=self.liquidated_before,
            deleveraged=run.deleveraged,
            deleveraged_usd=run.deleveraged_usd,
            unheard_bars=run.unheard,
            outages=trial.outages,
            bars=len(equity_usd) - 1,
            cuts=dict(self.cuts),
            changes=tuple(self.changes),
            modes={mode: bars * self._step_h for mode, bars in self.modes.items()},
            limits={limit: bars * self._step_h for limit, bars in self.beyond.items()},
        )


def live_through(trial: Trial, stage: Stage, settings: Settings, seed: int) -> Driven:
    """The daemon on one path, from its warm-up's end."""
    run = StressRun(trial, stage, settings, seed)
    equity, held = np.zeros(len(trial.bars.grid.open_ns) - trial.warm + 1), stage.book
    tally = Tally(run, trial.bars.grid.step_ns / HOUR_NS)
    for t in run.live():
        tally.fills()
        if (k := t - trial.warm + 1) < 0:
            continue
        equity[k] = float(run.equity() @ trial.course.price[t])
        if k == 0:
            held = run.standing()
            tally.begin()
        elif (record := run.run.stats.last) is not None:
            tally.take(k, record)
    run.run.close()
    after = Course(*(column[trial.warm - 1 :] for column in trial.course))
    alone = np.where(np.arange(len(held.amount)) < len(stage.perpetuals), 0.0, held.amount)
    bare = worth(held._replace(amount=alone), after) if stage.held else None
    return tally.driven(trial, equity, worth(held, after), bare)
