"""`dea-daemon stress`: what a book loses at once, and what the daemon does as it lives through episodes and paths.

At once: the book of a file, or the one that the configuration's targets ask for. In time: the engine that trades,
stepped bar by bar at the simulated venue (`wiring.candles`), in perpetuals on the configuration's targets.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.errors import ConfigError, DataError
from dea_daemon.domain.events import IndexUpdated, MarkUpdated, QuoteUpdated
from dea_daemon.domain.instruments import BoolArray, FloatArray, Side
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_MS, NS_PER_S
from dea_daemon.domain.parameters import FixedTarget, VolTarget
from dea_daemon.research import paths as drawn
from dea_daemon.research import stress, stress_report
from dea_daemon.research.candles import Aligned
from dea_daemon.research.episodes import EPISODES, Episode, course
from dea_daemon.research.report_words import percent, usd
from dea_daemon.research.stress_report import Driven, Told
from dea_daemon.shell.output import emit, say
from dea_daemon.shell.portfolio import STABLE, load_portfolio
from dea_daemon.shell.progress import progress
from dea_daemon.shell.settings import Settings
from dea_daemon.simvenue.words import OrderRequest, Refused
from dea_daemon.wiring.candles import ANY_LOTS, CASH, Bars, CandleRun, bars_of
from dea_daemon.wiring.exposure import Valued, value
from dea_daemon.wiring.history import candles_in
from dea_daemon.wiring.paper import ACCOUNT

START_NS = 1_767_225_600 * NS_PER_S  # a midnight: nothing depends on which
MINUTE_NS, HOUR_NS = 60 * NS_PER_S, 3_600 * NS_PER_S
OUTAGE_NS = 60 * NS_PER_S  # what a call waits for while the venue does not answer
PRICES = {"BTC": 65_000.0, "ETH": 3_000.0}  # where paths begin; only ticks and lots depend on it
OTHER_PRICE = 100.0
CORRELATION = 0.8  # assumed, without a history
EPISODE_WARM_H, PATH_WARM_H, PATH_DAYS = 12.0, 240.0, 30.0
NOISE = 2.0  # of the prior's volatility, around an episode's course: assumed
HESTON = {"kappa": 5.0, "xi": 1.5, "rho": -0.3}  # assumed
BATES = {"jumps": 12.0, "jump_mean": -0.04, "jump_sd": 0.06}  # a year: assumed
DEPTH_BP = np.array([0.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 200.0])
DEPTH_USD = np.array([0.3, 0.7, 1.0, 2.0, 4.0, 5.0, 7.0, 10.0]) * 1e6
"""A side of the book, USD at each distance: 20 million within 1 %, as press had of BTC's in October 2025; the shape is
assumed, and the same for every contract."""
HOURLY_VOLUME_USD = 1e8  # assumed: what resting orders can be filled from


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says. `portfolio`, `history`, `out` None: without."""

    portfolio: Path | None = None
    history: Path | None = None
    out: Path | None = None
    seed: int = 7
    paths: int = 10
    json_lines: bool = False
    command: str = ""


def run_stress(asked: Asked, settings: Settings) -> int:
    """All of it; a line a scenario and path, and the page in `out`. Raises ConfigError, DataError."""
    targets = tuple(settings.allocator.targets)
    returns = None
    if asked.history is not None:
        if not targets:
            raise ConfigError("allocator.targets: missing: nothing is lived through without, so no --history is of use")
        returns = hourly_returns(asked.history, targets)
    book, notes = _book(asked, settings, returns)
    vol, correlation = _moments(book.underlyings, targets, returns, settings)
    scenarios = stress.scenarios(book, vol, correlation)
    outcomes = [stress.outcome(book, scenario, settings.guards) for scenario in scenarios]
    driven = _live_through(asked, settings, targets, returns, book.equity_usd) if targets else []
    if not targets:
        notes.append("the configuration has no targets: nothing was lived through")
    words = asked.portfolio.name if asked.portfolio is not None else "the configured targets"
    told = Told(words, book.equity_usd, outcomes, driven, notes, asked.command)
    _tell(asked, told)
    return 0


def _tell(asked: Asked, told: Told) -> None:
    """Lines, or tables for people; the page."""
    where = None
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        where = asked.out / "stress.html"
        where.write_text(stress_report.page(told), encoding="utf-8")
    if asked.json_lines:
        for line in stress_report.lines(told):
            emit(line)
        worst = max(told.outcomes, key=lambda one: one.loss_usd)
        emit(
            {
                "event": "run.finished",
                "equity_usd": told.equity_usd,
                "scenarios": len(told.outcomes),
                "paths": len(told.driven),
                "worst": worst.name,
                "worst_loss_usd": worst.loss_usd,
                "beyond_limits": sum(bool(one.hits) for one in told.outcomes),
                "notes": list(told.notes),
                **({"report": str(where)} if where is not None else {}),
            }
        )
        return
    say(*_text(told))
    if where is not None:
        say(f"report: {where}")


def _text(told: Told) -> Iterator[str]:
    """The same in columns."""
    yield f"{told.book}, equity {usd(told.equity_usd)}"
    yield from (f"note: {note}" for note in told.notes)
    yield f"\n{'at once':<50}{'loss':>14}{'of equity':>11}  limits"
    for one in told.outcomes:
        limits = ", ".join(dict.fromkeys(hit.limit for hit in one.hits))
        yield f"{one.title:<50}{usd(one.loss_usd):>14}{percent(one.loss_share):>11}  {limits}".rstrip()
    if told.driven:
        yield f"\n{'lived through':<34}{'loss':>14}{'left alone':>14}{'deepest':>9}{'orders':>8}  beyond limits"
    for path in told.driven:
        limits = ", ".join(f"{name} {hours:.3g} h" for name, hours in path.limits.items())
        losses = f"{usd(path.loss_usd):>14}{usd(path.still_loss_usd):>14}{percent(path.deepest):>9}"
        yield f"{path.name:<34}{losses}{path.orders:>8}  {limits}".rstrip()


# --- the book ---------------------------------------------------------------------------------------------------


def _book(asked: Asked, settings: Settings, returns: FloatArray | None) -> tuple[stress.Holdings, list[str]]:
    """What is revalued, and what a reader should know of it."""
    if asked.portfolio is not None:
        told = load_portfolio(asked.portfolio)
        note = (
            "the portfolio is revalued at once; lived through is what the configuration's targets ask for, in "
            "perpetuals settled in USDT, with the portfolio's equity as capital"
        )
        return holdings(value(told), told.prices), [note]
    notes = ["the book: perpetuals settled in USDT of the size that the targets ask for, on backtest.capital_usd"]
    left_out = [
        u for u, target in settings.allocator.targets.items() if not isinstance(target, FixedTarget | VolTarget)
    ]
    if left_out:
        notes.append(f"{', '.join(left_out)}: a target by expected return has no size without a forecast, so it is 0")
    return targeted(settings, returns), notes


def holdings(valued: Valued, prices: dict[str, float]) -> stress.Holdings:
    """A valued portfolio as the stress wants it. Coins that nothing is held on are underlyings, too."""
    universe = valued.universe
    named = (*universe.underlyings, *valued.factors.currencies)
    underlyings = tuple(name for name in named if name not in STABLE)
    price = np.array([prices[name] for name in named])
    first = valued.factors.first("cash")
    base = valued.exposure_base_usd
    worth = np.concatenate((base[: len(universe.underlyings)], base[first:]))
    n, instruments = len(universe), universe.instruments
    years = np.where(universe.expiry_ns > 0, universe.expiry_ns - valued.utc_ns, 0) / NS_PER_DAY / DAYS_PER_YEAR
    return stress.Holdings(
        underlyings=underlyings,
        names=tuple(i.name for i in instruments),
        currencies=named,
        underlying=np.array([underlyings.index(i.underlying) for i in instruments], dtype=np.int64),
        settle=np.array([named.index(i.settle_currency) for i in instruments], dtype=np.int64),
        amount=valued.position_lots * universe.lot_value,
        inverse=universe.inverse,
        option=universe.option,
        coin_quoted=universe.coin_quoted,
        call=universe.call,
        perpetual=universe.expiry_ns == 0,
        strike=universe.strike,
        forward=np.where(universe.option, valued.forward_price, valued.mark_price) if n else np.zeros(0),
        iv=valued.iv,
        tau_years=years,
        spot=np.array([prices[name] for name in underlyings]),
        coin=np.array([underlyings.index(c) if c in underlyings else -1 for c in named], dtype=np.int64),
        equity=worth / price,
        price=price,
        backing=np.ones(len(named)),
    )


def targeted(settings: Settings, returns: FloatArray | None) -> stress.Holdings:
    """The perpetuals that the targets ask for, before any data but `returns`: volatility targets by the allocator's
    formula, ∝ weight / volatility and together annual_vol of capital."""
    targets, capital = settings.allocator.targets, settings.backtest.capital_usd
    names = tuple(targets)
    vol, correlation = _moments(names, names, returns, settings)
    weights = np.array([t.weight if isinstance(t, VolTarget) else 0.0 for t in targets.values()])
    shape = weights / vol
    risk = float(np.sqrt(shape @ (correlation * np.outer(vol, vol)) @ shape))
    held = shape * settings.allocator.annual_vol * capital / risk if risk > 0.0 else shape
    gross = float(np.abs(held).sum())
    held = held * min(1.0, settings.allocator.max_leverage * capital / gross) if gross > 0.0 else held
    held = held + np.array([t.delta_usd if isinstance(t, FixedTarget) else 0.0 for t in targets.values()])
    price, n = np.array([PRICES.get(name, OTHER_PRICE) for name in names]), len(names)
    none, each = np.zeros(n), np.arange(n, dtype=np.int64)
    no, yes = np.zeros(n, dtype=np.bool_), np.ones(n, dtype=np.bool_)
    return stress.Holdings(
        underlyings=names,
        names=tuple(f"{name}{CASH}" for name in names),
        currencies=(*names, CASH),
        underlying=each,
        settle=np.full(n, n),
        amount=held / price,
        inverse=no,
        option=no,
        coin_quoted=no,
        call=no,
        perpetual=yes,
        strike=none,
        forward=price,
        iv=np.full(n, np.nan),
        tau_years=none,
        spot=price,
        coin=np.append(each, -1),
        equity=np.append(none, capital),
        price=np.append(price, 1.0),
        backing=np.ones(n + 1),
    )


def _moments(
    underlyings: tuple[str, ...], seen: tuple[str, ...], returns: FloatArray | None, settings: Settings
) -> tuple[FloatArray, FloatArray]:
    """(annual_vol [U], correlation [U, U]): of `returns` [T, seen] where they tell it, else the prior's and 0.8."""
    u = len(underlyings)
    vol = np.full(u, settings.forecast.prior_annual_vol)
    correlation = np.full((u, u), CORRELATION) + (1.0 - CORRELATION) * np.eye(u)
    if returns is None:
        return vol, correlation
    known = [(k, seen.index(name)) for k, name in enumerate(underlyings) if name in seen]
    deviations = returns.std(axis=0) * np.sqrt(drawn.HOURS_PER_YEAR)
    measured = np.atleast_2d(np.corrcoef(returns.T))
    for k, a in known:
        vol[k] = deviations[a]
        for j, b in known:
            correlation[k, j] = measured[a, b]
    return vol, correlation


def hourly_returns(folder: Path, underlyings: tuple[str, ...]) -> FloatArray:
    """[T, U] log returns of the perpetuals' hourly closes; hours that one of them lacks are left out. DataError."""
    symbols = tuple(f"{name}{CASH}" for name in underlyings)
    history = candles_in(folder, symbols, HOUR_NS)
    closes = bars_of(history, symbols, 0, 1 << 62, HOUR_NS).grid.close
    with np.errstate(invalid="ignore"):
        returns = np.diff(np.log(closes), axis=0)
    return np.asarray(returns[np.isfinite(returns).all(axis=1)])


# --- a path as bars ---------------------------------------------------------------------------------------------


class Conditions(NamedTuple):
    """What befalls the venue, bar by bar [T]: the perpetuals' premium over the index, what USDT is worth, factors on
    depth and spread, whether it answers, and whether it closes the shorts."""

    premium: FloatArray
    peg: FloatArray
    depth: FloatArray
    spread: FloatArray
    outage: BoolArray
    adl: BoolArray


class Trial(NamedTuple):
    """One path: bars, with what befalls the venue; the first `warm` bars come before it."""

    name: str
    title: str
    kind: str
    bars: Bars
    conditions: Conditions
    warm: int


def calm(length: int) -> Conditions:
    """Nothing befalls it."""
    zero, no = np.zeros(length), np.zeros(length, dtype=np.bool_)
    return Conditions(zero, zero + 1.0, zero + 1.0, zero + 1.0, no, no.copy())


def _bars(shares: FloatArray, each_ns: int, step_ns: int, start: FloatArray) -> Bars:
    """Bars of `step_ns` from shares [M + 1, U] every `each_ns`; a bar's ends and extremes are those it passed."""
    many = step_ns // each_ns
    whole = (len(shares) - 1) // many
    price = shares[: whole * many + 1] * start
    at = np.arange(whole)[:, None] * many + np.arange(many + 1)
    within = price[at]  # [T, many + 1, U]
    opened, close = within[:, 0], within[:, -1]
    volume = HOURLY_VOLUME_USD * step_ns / HOUR_NS / close
    open_ns = START_NS + step_ns * np.arange(whole, dtype=np.int64)
    valid = np.ones(close.shape, dtype=np.bool_)
    grid = Aligned(step_ns, open_ns, opened, within.max(axis=1), within.min(axis=1), close, volume, valid)
    return Bars(grid, close, whole)


def episode_trial(episode: Episode, underlyings: tuple[str, ...], settings: Settings, seed: int) -> Trial:
    """The episode by minutes, or by the engine's own rhythm where that is slower, after half a day's calm."""
    step_ns = _step_ns(settings, MINUTE_NS)
    warm_h = max(EPISODE_WARM_H, 60.0 * step_ns / HOUR_NS)
    hours, shares = course(episode, underlyings)
    vol = settings.forecast.prior_annual_vol
    quiet = drawn.along(np.array([0.0, warm_h]), np.ones((2, len(underlyings))), 1 / 60, vol, seed=seed)
    storm = drawn.along(hours, shares, 1 / 60, NOISE * vol, seed=seed + 1)
    path = np.concatenate((quiet, storm[1:]))
    start = np.array([PRICES.get(name, OTHER_PRICE) for name in underlyings])
    bars = _bars(path, MINUTE_NS, step_ns, start)
    warm = round(warm_h * HOUR_NS / step_ns)
    open_h = (np.arange(len(bars.grid.open_ns)) - warm) * step_ns / HOUR_NS
    conditions = _conditions(episode, open_h, step_ns / HOUR_NS)
    dear = ((1.0 + conditions.premium) / conditions.peg)[:, None]  # what a perpetual costs in USDT
    return Trial(f"episode.{episode.name}", episode.title, "episode", _scaled(bars, dear), conditions, warm)


def _step_ns(settings: Settings, least_ns: int) -> int:
    """The engine's rhythm in whole minutes, and at least so long."""
    asked_ns = settings.decide_every_ms * NS_PER_MS
    return max(least_ns, asked_ns // MINUTE_NS * MINUTE_NS)


def _scaled(bars: Bars, by: FloatArray) -> Bars:
    """Every price of bar t times by[t]; each opens where the last closed."""
    g = bars.grid
    close = g.close * by
    opened = np.concatenate((g.open[:1] * by[:1], close[:-1]))
    high, low = np.maximum(g.high * by, opened), np.minimum(g.low * by, opened)
    return Bars(g._replace(open=opened, high=high, low=low, close=close), close, bars.candles)


def _conditions(of: Episode, open_h: FloatArray, step_h: float) -> Conditions:
    """The venue, bar by bar. Premium and peg are worst through the crisis, come and go within two hours."""
    first, last = of.crisis
    ramp = np.interp(open_h, (first - 1.0, first, last, last + 2.0), (0.0, 1.0, 1.0, 0.0))
    within = (open_h >= first) & (open_h < last)
    outage = np.zeros(len(open_h), dtype=np.bool_)
    for hour, minutes in of.outages:
        outage |= (open_h < hour + minutes / 60.0 - 1e-9) & (open_h + step_h > hour + 1e-9)
    adl = np.zeros(len(open_h), dtype=np.bool_)
    if of.adl is not None:
        adl |= (open_h <= of.adl + 1e-9) & (open_h + step_h > of.adl + 1e-9)
    return Conditions(
        premium=of.premium * ramp,
        peg=1.0 - of.depeg.get(CASH, 0.0) * ramp,
        depth=np.where(within, of.depth, 1.0),
        spread=np.where(within, of.spread, 1.0),
        outage=outage,
        adl=adl,
    )


def path_trials(
    asked: Asked, settings: Settings, underlyings: tuple[str, ...], returns: FloatArray | None
) -> list[Trial]:
    """Thirty days by hours each: Heston's, Bates's and, with a history, its hours drawn anew."""
    hours, u, many = round(24 * PATH_DAYS), len(underlyings), asked.paths
    vol, correlation = _moments(underlyings, underlyings, returns, settings)
    rho = float(np.mean(correlation[~np.eye(u, dtype=np.bool_)])) if u > 1 else 0.0
    plain = tuple(drawn.Heston(v0=v * v, theta=v * v, **HESTON) for v in vol.tolist())
    jumping = tuple(model._replace(**BATES) for model in plain)
    kinds: dict[str, tuple[str, Callable[[], FloatArray]]] = {
        "heston": ("Heston, 30 days", lambda: _heston(plain, hours, many, asked.seed, rho)),
        "bates": ("Bates, 30 days: Heston with jumps", lambda: _heston(jumping, hours, many, asked.seed + 1, rho)),
    }
    if returns is not None:
        title = f"history's hours drawn anew, 30 days of {len(returns):,}"
        kinds["bootstrap"] = (title, lambda: drawn.drawn(returns, hours, many, seed=asked.seed + 2))
    start = np.array([PRICES.get(name, OTHER_PRICE) for name in underlyings])
    found = []
    for kind, (title, make) in kinds.items():
        for n, shares in enumerate(make()):
            found.append(_path_trial(f"{kind}.{n}", title, kind, shares, start, settings, asked.seed + n))
    return found


def _heston(models: tuple[drawn.Heston, ...], hours: int, many: int, seed: int, rho: float) -> FloatArray:
    return drawn.heston(models, hours / drawn.HOURS_PER_YEAR, hours, many, seed=seed, correlation=rho)


def _path_trial(
    name: str, title: str, kind: str, shares: FloatArray, start: FloatArray, settings: Settings, seed: int
) -> Trial:
    """Ten days of calm, then the path."""
    vol, warm_h = settings.forecast.prior_annual_vol, PATH_WARM_H
    quiet = drawn.along(np.array([0.0, warm_h]), np.ones((2, len(start))), 1.0, vol, seed=seed)
    step_ns = _step_ns(settings, HOUR_NS) // HOUR_NS * HOUR_NS
    bars = _bars(np.concatenate((quiet, shares[1:])), HOUR_NS, step_ns, start)
    length = len(bars.grid.open_ns)
    if length < 2 or not (warm := round(warm_h * HOUR_NS / step_ns)):
        raise ConfigError(f"decide_every_ms: {settings.decide_every_ms:,}: too rare for paths of {PATH_DAYS:g} days")
    return Trial(name, title, kind, bars, calm(length), warm)


# --- living through it -------------------------------------------------------------------------------------------


class StressRun(CandleRun):
    """A candle run whose venue has bad days: thin books, wide spreads, calls that time out, shorts closed by it."""

    def __init__(self, trial: Trial, settings: Settings, symbols: Sequence[str], seed: int) -> None:
        self.conditions, self._now, self._as_usual = trial.conditions, 0, settings.backtest
        self.deleveraged_usd, self.unheard = 0.0, 0
        live_ns = int(trial.bars.grid.open_ns[trial.warm // 2])
        super().__init__(trial.bars, {}, settings, symbols, live_ns, seed=seed)

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
        self.paper.drain(open_ns + step_ns - 1)
        run.tick(open_ns + step_ns, "timer")

    def _deleverage(self, t: int) -> None:
        """The venue closes every short at the price it stands at, without asking and without a fee of its own."""
        grid, now_ns = self.bars.grid, int(self.bars.grid.open_ns[t])
        self.run.catch_up(now_ns)
        self.exchange.set_time(now_ns)
        for n, name in enumerate(self.names):
            lots = self.exchange.account(ACCOUNT).lots(name)
            if lots >= 0:
                continue
            price = float(grid.open[t, n])
            ticks = max(round(price / self._tick[n]), 1)
            self.exchange.replace_book(name, (), [(ticks, -lots)])
            self.exchange.set_mark(name, price, price)
            try:
                self.exchange.place(OrderRequest(ACCOUNT, name, Side.BUY, -lots, None, reduce_only=True))
            except Refused:  # an order of ours stands in its way: this time it takes another's
                continue
            self.deleveraged_usd += -lots * self._lot[n] * price
        self.paper.drain(now_ns)

    def _levels(self, n: int, bid: int, ask: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """DEPTH_USD at DEPTH_BP from the touch, times what there is of depth."""
        lot_usd = bid * self._tick[n] * self._lot[n]
        lots = np.maximum(DEPTH_USD * self.conditions.depth[self._now] / lot_usd, 1.0).astype(np.int64).tolist()
        away = DEPTH_BP * 1e-4
        bids = np.maximum(np.floor(bid * (1.0 - away)), 1).astype(np.int64).tolist()
        asks = np.ceil(ask * (1.0 + away)).astype(np.int64).tolist()
        return list(dict(zip(bids, lots, strict=True)).items()), list(dict(zip(asks, lots, strict=True)).items())

    def _tell(self, t: int, now_ns: int) -> None:
        """The close, as the engine hears of it: index in USD, mark in USDT, and what USDT is worth."""
        conditions, run, half = self.conditions, self.run, self.assumed.half_spread_bp * 1e-4
        peg, premium = float(conditions.peg[t]), float(conditions.premium[t])
        run.fold(IndexUpdated(now_ns, now_ns, 0, CASH, peg))
        for n, close in enumerate(self.bars.grid.close[t].tolist()):
            index, tick = close / (1.0 + premium), self._tick[n]
            bid = max(np.floor(close * (1.0 - half) / tick + 1e-9), 1.0) * tick
            ask = max(np.ceil(close * (1.0 + half) / tick - 1e-9) * tick, bid + tick)
            run.fold(IndexUpdated(now_ns, now_ns, 0, self.universe.instruments[n].underlying, index * peg))
            run.fold(MarkUpdated(now_ns, now_ns, n, close, index))
            run.fold(QuoteUpdated(now_ns, now_ns, n, float(bid), float(ANY_LOTS), float(ask), float(ANY_LOTS)))


def live_through(trial: Trial, settings: Settings, underlyings: tuple[str, ...], seed: int) -> Driven:
    """The daemon on one path, from its warm-up's end."""
    symbols = [f"{name}{CASH}" for name in underlyings]
    run = StressRun(trial, settings, symbols, seed)
    length = len(trial.bars.grid.open_ns) - trial.warm + 1
    equity, held = np.zeros(length), np.zeros(len(symbols))
    cuts, modes, beyond = Counter[str](), Counter[str](), Counter[str]()
    liquidations = sent = filled = 0
    for t in run.live():
        liquidations += sum(booked.fill.liquidation for booked in run.run.fills)
        run.run.fills.clear()
        if t < trial.warm - 1:
            continue
        bar = run.bar(t)
        k = t - trial.warm + 1
        equity[k] = bar.equity_usd * float(trial.conditions.peg[t])
        if k == 0:
            held = np.array(bar.lots) * np.array(run._lot)
            sent, filled, liquidations = run.run.stats.orders_sent, run.run.stats.fills, 0
            continue
        if (record := run.run.stats.last) is not None:
            cuts.update({clip.limit for clip in record.clips})
            modes[record.mode.name.lower()] += 1
            beyond.update({use.limit for use in record.uses if not use.used <= use.allowed})
    run.run.close()
    rows = slice(trial.warm - 1, None)
    close, peg = trial.bars.grid.close[rows], trial.conditions.peg[rows]
    step_h = trial.bars.grid.step_ns / HOUR_NS
    return Driven(
        name=trial.name,
        title=trial.title,
        kind=trial.kind,
        hours=step_h * np.arange(length, dtype=np.float64),
        equity_usd=equity,
        still_usd=(equity[0] / peg[0] + (close - close[0]) @ held) * peg,
        orders=run.run.stats.orders_sent - sent,
        fills=run.run.stats.fills - filled,
        liquidations=liquidations,
        deleveraged_usd=run.deleveraged_usd,
        unheard_bars=run.unheard,
        cuts=dict(cuts),
        modes={mode: bars * step_h for mode, bars in modes.items()},
        limits={limit: bars * step_h for limit, bars in beyond.items()},
    )


def _live_through(
    asked: Asked, settings: Settings, underlyings: tuple[str, ...], returns: FloatArray | None, equity_usd: float
) -> list[Driven]:
    """Every episode, then every path."""
    if not equity_usd > 0.0:
        raise DataError(f"the book's equity is {equity_usd:,.2f} USD: nothing can be lived through with that")
    funded = settings.model_copy(
        update={"backtest": settings.backtest.model_copy(update={"capital_usd": equity_usd, "impact": 0.0})}
    )
    trials = [episode_trial(episode, underlyings, funded, asked.seed) for episode in EPISODES]
    if asked.paths:
        trials += path_trials(asked, funded, underlyings, returns)
    bars = sum(len(trial.bars.grid.open_ns) for trial in trials)
    found = []
    with progress("bars", not asked.json_lines, bars) as advance:
        for trial in trials:
            found.append(live_through(trial, funded, underlyings, asked.seed))
            advance(len(trial.bars.grid.open_ns))
    return found
