"""`dea-daemon backtest --history`: a run over years of candles, what it recorded, and its report."""

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from dea_daemon.domain.decisions import DecisionRecord
from dea_daemon.domain.errors import ConfigError, DataError
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.parameters import VolTarget
from dea_daemon.research.candles import FundingRates, History
from dea_daemon.research.record import Record, Trade
from dea_daemon.shell.progress import progress
from dea_daemon.shell.settings import Settings
from dea_daemon.wiring.candles import Bar, CandleRun, bars_of, missing, span
from dea_daemon.wiring.summary import summary


class Recorder:
    """Columns of a Record, a line a decision from the first that is traded on."""

    def __init__(self, run: CandleRun, symbols: tuple[str, ...]) -> None:
        self._run, self._symbols = run, symbols
        self._lines: list[dict[str, Any]] = []
        self._trades: list[Trade] = []
        self._sums = {"turnover": 0.0, "fees": 0.0, "funding": 0.0, "slippage": 0.0}
        self._market = np.zeros(len(symbols))
        self._before: Bar | None = None
        self._limits: dict[str, None] = {}
        self._liquidations = 0

    def take(self, t: int) -> None:
        """After the decision at the close of bar `t`. What comes before the run trades moves nothing."""
        run = self._run
        now = run.bar(t)
        if now.at_ns < run.live_ns:
            run.run.fills.clear()
            return
        before, record = self._before, run.run.stats.last
        if before is not None:
            self._settle(before, now)
        if record is not None:
            self._line(now, record)
        self._before = now

    def _settle(self, before: Bar, now: Bar) -> None:
        """What the bar made: by the market with what was held and traded, by fees, spread and impact; what is left of
        the venue's equity is funding."""
        lots = np.array([i.lot_value for i in self._run.universe.instruments])
        held = np.zeros(len(lots), dtype=np.int64)
        price = np.where(np.isfinite(now.price), now.price, before.price)
        known = np.where(np.isfinite(before.price), before.price, price)
        made = np.zeros(len(lots))
        fees = slippage = 0.0
        for booked in self._run.run.fills:
            fill = booked.fill
            row, sign = fill.row, fill.side.sign
            paid = float(self._run.universe.instruments[row].ticks_to_price(fill.price_ticks))
            amount = fill.lots * float(lots[row])
            arrival = float(known[row])
            held[row] += sign * fill.lots
            made[row] += sign * amount * (float(price[row]) - arrival)
            slippage += sign * amount * (paid - arrival)
            fees += booked.fee_usd
            self._sums["turnover"] += booked.turnover_usd
            self._liquidations += fill.liquidation
            self._trades.append(
                Trade(fill.ts_event_ns, self._symbols[row], sign, amount, paid, amount * paid, booked.fee_usd, arrival)
            )
        self._run.run.fills.clear()
        made += (now.lots - held) * lots * np.nan_to_num(price - known)
        self._market += made
        self._sums["fees"] += fees
        self._sums["slippage"] += slippage
        change = now.equity_usd - before.equity_usd
        self._sums["funding"] += change - float(made.sum()) + fees + slippage

    def _line(self, now: Bar, record: DecisionRecord) -> None:
        lines = record.factors[: len(self._run.universe.underlyings)]
        used: dict[str, float] = {}
        for use in record.uses:
            share = use.used / use.allowed if use.allowed > 0.0 else float("nan")
            used[use.limit] = max(used.get(use.limit, 0.0), share)
        self._limits |= dict.fromkeys(used)
        self._lines.append(
            {
                "at_ns": now.at_ns,
                "equity": now.equity_usd,
                "price": now.price,
                "exposure": [line.actual_usd for line in lines],
                "target": [line.target_usd for line in lines],
                "band": [line.band_usd for line in lines],
                "vol": [line.annual_vol for line in lines],
                "market": self._market.copy(),
                "used": used,
                **self._sums,
            }
        )

    def record(self, name: str, settings: Settings) -> Record:
        """DataError where nothing was traded on."""
        if len(self._lines) < 2:
            raise DataError("fewer than two bars to trade in")

        def column(key: str) -> FloatArray:
            return np.array([line[key] for line in self._lines], dtype=np.float64)

        equity = column("equity")
        targets = settings.allocator.targets.values()
        aims = any(isinstance(target, VolTarget) for target in targets)
        return Record(
            name=name,
            underlyings=self._run.universe.underlyings,
            limits=tuple(self._limits),
            capital_usd=float(equity[0]),
            target_vol=settings.allocator.annual_vol if aims else 0.0,
            step_ns=self._run.bars.step_ns,
            at_ns=np.array([line["at_ns"] for line in self._lines], dtype=np.int64),
            equity_usd=equity,
            peak_usd=np.maximum.accumulate(equity),
            price=column("price"),
            exposure_usd=column("exposure"),
            target_usd=column("target"),
            band_usd=column("band"),
            annual_vol=column("vol"),
            turnover_usd=column("turnover"),
            fees_usd=column("fees"),
            funding_usd=column("funding"),
            slippage_usd=column("slippage"),
            market_usd=column("market"),
            used=np.array([[line["used"].get(name, 0.0) for name in self._limits] for line in self._lines]),
            trades=tuple(self._trades),
            notes=tuple(self._notes()),
        )

    def _notes(self) -> list[str]:
        """What is not as it should be, in words."""
        bars, found = self._run.bars, []
        if gaps := int(missing(bars).sum()):
            found.append(f"{gaps:,} of {len(bars.open_ns):,} bars lack a candle: nothing was traded there")
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
    bars = bars_of(history, symbols, span(settings, from_ns), to_ns)
    funding = {symbol: rates for symbol in symbols if (rates := _funding(history, symbol)) is not None}
    run = CandleRun(bars, funding, settings, symbols, from_ns, seed=seed, tape=tape)
    recorder = Recorder(run, symbols)
    began_s = time.perf_counter()
    with progress("bars", show, len(bars.open_ns)) as advance:
        for t in run.live():
            recorder.take(t)
            advance(1)
    run.run.close()
    seconds = time.perf_counter() - began_s
    finished = summary(run.run.state, run.run.stats, run.universe, drained=True)
    finished |= {"bars": len(bars.open_ns), "bars_per_s": round(len(bars.open_ns) / seconds, 1)}
    return recorder.record("run", settings), finished | {"seconds": round(seconds, 3)}


def _funding(history: History, symbol: str) -> FundingRates | None:
    return next((rates for (_, of), rates in history.funding.items() if of == symbol), None)


def write(folder: Path, page: str, figures: dict[str, Any]) -> None:
    """report.html and report.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(figures, indent=1, default=float) + "\n", encoding="utf-8")


def command() -> str:
    """As it was typed."""
    return shlex.join(["dea-daemon", *sys.argv[1:]])
