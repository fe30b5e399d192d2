"""`dea-daemon backtest --history`: a run over years of candles, what it recorded, and its report."""

import datetime as dt
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from dea_daemon.domain.decisions import Contender, DecisionRecord, Forecaster
from dea_daemon.domain.errors import ConfigError, DataError
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import NS_PER_MS, NS_PER_S
from dea_daemon.domain.parameters import VolTarget
from dea_daemon.research import report, report_words
from dea_daemon.research.benchmarks import carry, cash, funding_between, static, static_at_vol
from dea_daemon.research.candles import History, Market
from dea_daemon.research.performance import figures, stamp
from dea_daemon.research.record import Record, Trade
from dea_daemon.shell.history import find_series, interval_ns, open_history
from dea_daemon.shell.output import emit, say
from dea_daemon.shell.progress import progress
from dea_daemon.shell.settings import Settings
from dea_daemon.wiring.candles import Bar, CandleRun, bars_of, span, venue_of
from dea_daemon.wiring.summary import summary

log = structlog.get_logger()
KINDS = ("perp", "mark", "spot")
OF_BOOK = ("equity_usd", "turnover_usd", "fees_usd", "funding_usd", "slippage_usd")  # columns of Record [T]
OF_EACH = ("price", "market_usd", "exposure_usd", "target_usd", "band_usd", "annual_vol")  # and [T, U]
LIMITS = 16  # columns of `used` to begin with
NAME = "run"
CARRY = 0.8  # of equity on each side: the rest is the perpetual's margin
FIGURES = (
    "annual_return", "annual_vol", "target_vol", "vol_ratio", "windows_within_25pct", "sharpe", "max_drawdown",
    "cost_per_year", "turnover_per_year",
)  # fmt: skip


class Recorder:
    """Columns of a Record, a line a decision from the first that is traded on. Room for all is taken at the start."""

    def __init__(self, run: CandleRun, symbols: tuple[str, ...]) -> None:
        self._run, self._symbols = run, symbols
        grid = run.bars.grid
        most = int((grid.open_ns + grid.step_ns >= run.live_ns).sum())
        self._told = 0
        self._at_ns = np.zeros(most, dtype=np.int64)
        self._line = np.zeros((most, len(OF_BOOK) + len(OF_EACH) * len(symbols)))
        self._used = np.zeros((most, LIMITS))
        self._lot = run.universe.lot_value.tolist()
        self._trades: list[Trade] = []
        self._sums = {"turnover": 0.0, "fees": 0.0, "funding": 0.0, "slippage": 0.0}  # as in OF_BOOK
        self._market = [0.0] * len(symbols)
        self._before: Bar | None = None
        self._funding = 0.0
        self._limits: dict[str, int] = {}
        self._forecasters: tuple[Forecaster, ...] = ()
        self._contenders: dict[str, Contender] = {}
        self._changes: list[tuple[int, str, str, str]] = []
        self._liquidations = 0

    def take(self, t: int) -> None:
        """After the decision at the close of bar `t`. What comes before the run trades moves nothing."""
        run = self._run
        now = run.bar(t)
        before = self._before
        if before is not None and not all(
            map(math.isfinite, now.price)
        ):  # what has no candle is worth what it last was
            price = [at if math.isfinite(at) else last for at, last in zip(now.price, before.price, strict=True)]
            now = now._replace(price=price)
        if now.at_ns < run.live_ns:
            run.run.fills.clear()
            self._before, self._funding = now, run.funding_usd
            return
        record = run.run.stats.last
        if before is not None:
            self._settle(before, now)
        if record is not None:
            self._tell(now, record)
        self._before = now

    def _settle(self, before: Bar, now: Bar) -> None:
        """What the bar made: by the market with what was held and traded, by fees, spread and impact, by funding. What
        is left of the venue's equity is what a liquidation charged, or a bankruptcy wrote off."""
        lots, price, known = self._lot, now.price, before.price
        held, made = [0] * len(lots), [0.0] * len(lots)
        fees = slippage = 0.0
        for booked in self._run.run.fills:
            fill = booked.fill
            row, sign = fill.row, fill.side.sign
            paid = float(self._run.universe.instruments[row].ticks_to_price(fill.price_ticks))
            amount = fill.lots * lots[row]
            arrival = known[row]
            held[row] += sign * fill.lots
            made[row] += sign * amount * (price[row] - arrival)
            slippage += sign * amount * (paid - arrival)
            fees += booked.fee_usd
            self._sums["turnover"] += booked.turnover_usd
            self._liquidations += fill.liquidation
            self._trades.append(
                Trade(fill.ts_event_ns, self._symbols[row], sign, amount, paid, amount * paid, booked.fee_usd, arrival)
            )
        self._run.run.fills.clear()
        for row, lot in enumerate(lots):
            if (move := price[row] - known[row]) == move:
                made[row] += (now.lots[row] - held[row]) * lot * move
            self._market[row] += made[row]
        self._sums["fees"] += fees
        self._sums["slippage"] += slippage
        self._sums["funding"] += self._run.funding_usd - self._funding
        self._funding = self._run.funding_usd

    def _tell(self, now: Bar, record: DecisionRecord) -> None:
        lines, t = record.factors[: len(self._run.universe.underlyings)], self._told
        self._at_ns[t] = now.at_ns
        self._line[t] = (
            now.equity_usd, *self._sums.values(), *now.price, *self._market,
            *[line.actual_usd for line in lines], *[line.target_usd for line in lines],
            *[line.band_usd for line in lines], *[line.annual_vol for line in lines],
        )  # fmt: skip
        self._forecasters = record.forecasters or self._forecasters
        for one in record.contenders:
            was = self._contenders.get(one.name)
            if was is not None and was.state != one.state:
                self._changes.append((record.utc_ns, one.name, one.state, one.why))
            self._contenders[one.name] = one
        used: dict[str, float] = {}
        for use in record.uses:
            share = use.used / use.allowed if use.allowed > 0.0 else math.nan
            worst = used.get(use.limit, 0.0)
            used[use.limit] = share if share != share or share > worst else worst  # NaN stays: it is above nothing
        self._use(t, used)
        self._told += 1

    def _use(self, t: int, used: dict[str, float]) -> None:
        """A column a limit, in the order they were first heard of."""
        for limit in used:
            self._limits.setdefault(limit, len(self._limits))
        if len(self._limits) > self._used.shape[1]:
            self._used = np.hstack((self._used, np.zeros_like(self._used)))
        for limit, share in used.items():
            self._used[t, self._limits[limit]] = share

    def record(self, name: str, settings: Settings, to_ns: int) -> Record:
        """DataError where nothing was traded on."""
        if self._told < 2:
            raise DataError("fewer than two bars to trade in")
        columns = self._columns()
        targets = settings.allocator.targets.values()
        aims = any(isinstance(target, VolTarget) for target in targets)
        return Record(
            name=name,
            underlyings=self._run.universe.underlyings,
            limits=tuple(self._limits),
            capital_usd=float(columns["equity_usd"][0]),
            target_vol=settings.allocator.annual_vol if aims else 0.0,
            step_ns=self._run.bars.grid.step_ns,
            at_ns=self._at_ns[: self._told].copy(),
            peak_usd=np.maximum.accumulate(columns["equity_usd"]),
            used=self._used[: self._told, : len(self._limits)].copy(),
            trades=tuple(self._trades),
            notes=tuple(self._notes(settings, to_ns)),
            forecasters=self._forecasters,
            contenders=tuple(self._contenders.values()),
            changes=tuple(self._changes),
            **columns,
        )

    def _columns(self) -> dict[str, FloatArray]:
        """Those of OF_BOOK [T] and OF_EACH [T, U], as `_tell` wrote them side by side."""
        lines, u = self._line[: self._told], len(self._symbols)
        found = {name: lines[:, k].copy() for k, name in enumerate(OF_BOOK)}
        for k, name in enumerate(OF_EACH):
            first = len(OF_BOOK) + k * u
            found[name] = lines[:, first : first + u].copy()
        return found

    def _notes(self, settings: Settings, to_ns: int) -> list[str]:
        """What is not as it should be, or rules the figures, in words."""
        bars, found = self._run.bars, []
        first, last = int(bars.grid.open_ns[0]), int(bars.grid.open_ns[-1]) + bars.grid.step_ns
        if last < to_ns:
            found.append(f"the history ends at {stamp(last)}, before {stamp(to_ns)}")
        if first > self._run.live_ns:
            found.append(f"the history begins at {stamp(first)}, after {stamp(self._run.live_ns)}")
        if (most := settings.allocator.max_drawdown) is not None:
            found.append(
                f"exposure shrinks as equity falls, to nothing {most:.0%} below its peak (allocator.max_drawdown): "
                "volatility is then below its target on purpose"
            )
        traded = bars.grid.open_ns >= self._run.live_ns
        if gaps := int((~bars.grid.valid[traded].all(axis=1)).sum()):
            found.append(f"{gaps:,} of {int(traded.sum()):,} bars lack a candle: nothing was traded there")
        if self._liquidations:
            found.append(f"the venue liquidated in {self._liquidations} trades")
        return found


def backtest_history(
    history: History, settings: Settings, from_ns: int, to_ns: int, *, seed: int, tape: Path | None, show: bool
) -> tuple[Record, dict[str, Any]]:
    """The run's Record, and `run.finished` without its figures of performance."""
    if settings.venues.binanceusdm is None:
        raise ConfigError("venues.binanceusdm: missing: its perpetuals are what a history of candles is of")
    symbols = settings.venues.binanceusdm.instruments
    bars = bars_of(history, symbols, span(settings, from_ns), to_ns, settings.decide_every_ms * NS_PER_MS)
    of = ((symbol, history.funding.get((venue_of(history, symbols), symbol))) for symbol in symbols)
    funding = {symbol: rates for symbol, rates in of if rates is not None}
    run = CandleRun(bars, funding, settings, symbols, from_ns, seed=seed, tape=tape)
    recorder = Recorder(run, symbols)
    began_s = time.perf_counter()
    with progress("bars", show, len(bars.grid.open_ns)) as advance:
        for t in run.live():
            recorder.take(t)
            advance(1)
    run.run.close()
    seconds = time.perf_counter() - began_s
    finished = summary(run.run.state, run.run.stats, run.universe, drained=True)
    finished |= {"bars": bars.candles, "bars_per_s": round(bars.candles / seconds, 1)}
    return recorder.record(NAME, settings, to_ns), finished | {"seconds": round(seconds, 3)}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says. `tape` and `out` None: not written."""

    config: Path
    history: Path
    from_ns: int
    to_ns: int
    out: Path | None = None
    tape: Path | None = None
    seed: int = 7
    json_lines: bool = False
    command: str = ""


def run_history(asked: Asked, settings: Settings) -> int:
    """The run, its report in `out`, and its last line. Raises ConfigError, DataError."""
    section = settings.venues.binanceusdm
    if section is None:
        raise ConfigError("venues.binanceusdm: missing: its perpetuals are what a history of candles is of")
    symbols = section.instruments
    history = candles_in(asked.history, symbols, settings.decide_every_ms * NS_PER_MS)
    record, finished = backtest_history(
        history, settings, asked.from_ns, asked.to_ns, seed=asked.seed, tape=asked.tape, show=not asked.json_lines
    )
    records = [record, *beside(record, history, symbols, settings)]
    configuration = asked.config.read_text(encoding="utf-8")
    told = report.facts(
        records,
        command=asked.command,
        configuration=configuration,
        seed=asked.seed,
        max_drawdown=settings.allocator.max_drawdown,
    )
    if asked.out is not None:
        write(asked.out, report.page(records, told), told)
        finished |= {"report": str(asked.out / "report.html")}
    finished |= {name: told["figures"][name] for name in FIGURES}
    if asked.json_lines:
        emit(finished)
    else:
        tell(finished, told)
    return 0


def candles_in(folder: Path, symbols: tuple[str, ...], decide_ns: int) -> History:
    """The perpetuals' candles of the coarsest interval that divides a decision's (else the finest there is), with
    marks, spot and funding where there are some. DataError."""
    there = [s for s in find_series(folder) if s.kind in KINDS and s.symbol in symbols]
    intervals = sorted({s.interval for s in there if s.kind == "perp"}, key=interval_ns)
    if not intervals:
        raise DataError(f"{folder}: no candles of the perpetuals {', '.join(symbols)}")
    interval = ([each for each in intervals if decide_ns % interval_ns(each) == 0] or intervals[:1])[-1]
    return open_history(folder, {s.market for s in there if s.interval == interval}, interval=interval)


def beside(run: Record, history: History, symbols: tuple[str, ...], settings: Settings) -> list[Record]:
    """What doing nothing, or nothing clever, would have come to: none where a price is missing."""
    venue = venue_of(history, symbols)
    funding = funding_between(run.at_ns, [history.funding.get((venue, symbol)) for symbol in symbols])
    cost = (settings.backtest.taker_bp + settings.backtest.half_spread_bp) * 1e-4
    made = [cash(run)]
    try:
        made.append(static(run, funding, 1.0, cost=cost))
        if vol := figures(run)["annual_vol_daily"]:
            made.append(static_at_vol(run, funding, vol, cost=cost))
        if (spot := _spot(run, history, symbols)) is not None:
            made.append(carry(run, spot, funding, CARRY, cost=cost))
    except DataError as error:
        log.warning("backtest.not_compared", why=str(error))
    return made


def _spot(run: Record, history: History, symbols: tuple[str, ...]) -> FloatArray | None:
    """[T, U] spot closes at each decision, NaN where there is none; None where a market is not in the history."""
    columns = []
    for symbol in symbols:
        candles = history.candles.get(Market(venue_of(history, symbols), "spot", symbol))
        if candles is None:
            return None
        at = np.clip(np.searchsorted(candles.close_ns, run.at_ns), 0, len(candles.close_ns) - 1)
        columns.append(np.where(candles.close_ns[at] == run.at_ns, candles.close[at], np.nan))
    return np.stack(columns, axis=1)


def tell(finished: dict[str, Any], told: dict[str, Any]) -> None:
    """For people: the figures one asks for first."""
    say(*tiles_as_text(told))
    if where := finished.get("report"):
        say(f"report: {where}")


def tiles_as_text(told: dict[str, Any]) -> list[str]:
    """The page's headline figures, a line each."""
    return [f"{title:<28} {value:>14}   {what}" for title, value, what in report_words.tiles(told)]


def write(folder: Path, page: str, figures: dict[str, Any]) -> None:
    """report.html and report.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def moment(text: str) -> int:
    """2020-01-01 or 2020-01-01T08:00, UTC, as ns. ConfigError."""
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text}: no date like 2020-01-01 or 2020-01-01T08:00") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=dt.UTC)
    return int(found.timestamp()) * NS_PER_S
