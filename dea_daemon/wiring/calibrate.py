"""`dea-daemon calibrate`: parameters of the risk model, then of the bands, by walk-forward over a history.

Two stages. The first tries many risk models on nothing but prices, through the daemon's own forecast. The second runs
the whole backtest for a few bands. What does not beat the configuration as given on days it was not chosen by, stays.
"""

import datetime as dt
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from dea_daemon import __version__
from dea_daemon.domain.errors import ConfigError, DataError
from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_MS, NS_PER_S
from dea_daemon.domain.parameters import FixedTarget, ForecastParameters
from dea_daemon.research import calibration
from dea_daemon.research.calibration import Days, Prices, Verdict
from dea_daemon.research.overfitting import deflated_sharpe, sharpe_ratio
from dea_daemon.research.performance import daily_returns, stamp
from dea_daemon.research.validation import Significance, diebold_mariano
from dea_daemon.shell import calibration_file
from dea_daemon.shell.output import emit, say
from dea_daemon.shell.progress import progress
from dea_daemon.shell.settings import Settings
from dea_daemon.wiring.candles import bars_of, underlying_of
from dea_daemon.wiring.history import backtest_history, candles_in
from dea_daemon.wiring.spread import spread

BATCH = 20  # trials side by side: forty underlyings cost little more than two
BANDS: tuple[float | str, ...] = ("cube_root", 0.05, 0.10, 0.20, 0.30)
LOG = ".trials.jsonl"
UNKNOWN = "unknown"
EVER, NEVER = 0, 1 << 62


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says. `made` is the date the file carries; today where it is empty."""

    history: Path
    out: Path
    made: str
    from_ns: int = EVER
    to_ns: int = NEVER
    trials: int = 200
    workers: int = 1
    ray: bool = False
    bands: bool = True
    seed: int = 7
    json_lines: bool = False
    command: str = ""


class RiskTask(NamedTuple):
    """Trials side by side, and where they stand among all."""

    prices: Prices
    trials: tuple[ForecastParameters, ...]
    places: tuple[int, ...]


class BandTask(NamedTuple):
    """One backtest."""

    history: Path
    settings: Settings
    from_ns: int
    to_ns: int
    seed: int


class Traded(NamedTuple):
    """What is judged of a backtest: [D] losses and returns of days."""

    losses: FloatArray
    returns: FloatArray


class Trials:
    """The log of every trial, JSON lines beside the file to be written, added to what earlier calls left there:
    whoever searches twice has looked twice, and the deflated Sharpe ratio counts it."""

    def __init__(self, file: IO[str], earlier: int) -> None:
        self._file = file
        self.earlier, self.count = earlier, 0

    def tell(self, stage: str, trial: int, parameters: dict[str, Any], loss: float, **other: Any) -> None:
        line = {"stage": stage, "trial": trial, "parameters": parameters, "loss": loss, **other}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self.count += 1


def run_calibrate(asked: Asked, settings: Settings) -> int:
    """Exit code. Interrupted, it leaves the trials made so far in the log. Raises ConfigError, DataError, OSError."""
    prices = prices_in(asked, settings)
    days = calibration.days_of(prices)
    with _logged(asked.out) as trials:
        risk, forecast = _risk_stage(asked, settings, prices, days, trials)
        bands, band = _band_stage(asked, settings, forecast, prices, trials)
        provenance = _provenance(asked, settings, prices, trials)
    found = {
        "provenance": provenance,
        "evidence": {"risk": risk, "bands": bands},
        calibration_file.PARAMETERS: _parameters(settings, forecast, band),
    }
    calibration_file.write(asked.out, found)
    if asked.json_lines:
        emit({"event": "calibrate.finished", "file": str(asked.out), **found})
    else:
        say(*_told(found, asked.out))
    return 0


@contextmanager
def _logged(out: Path) -> Iterator[Trials]:
    log = out.with_name(out.name + LOG)
    earlier = len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0
    with log.open("a", encoding="utf-8") as file:
        trials = Trials(file, earlier)
        try:
            yield trials
        except (KeyboardInterrupt, SystemExit):
            sys.stderr.write(f"interrupted: {trials.count:,} trials are in {log}\n")
            raise


def prices_in(asked: Asked, settings: Settings) -> Prices:
    """What the engine would be told of the underlyings, at each close: marks where they were recorded."""
    symbols = _symbols(settings)
    decide_ns = settings.decide_every_ms * NS_PER_MS
    bars = bars_of(candles_in(asked.history, symbols, decide_ns), symbols, asked.from_ns, asked.to_ns, decide_ns)
    names = tuple(underlying_of(symbol) for symbol in symbols)
    return Prices(bars.grid.open_ns + bars.grid.step_ns, bars.mark, names)


def _symbols(settings: Settings) -> tuple[str, ...]:
    if settings.venues.binanceusdm is None:
        raise ConfigError("venues.binanceusdm: missing: its perpetuals are what a history of candles is of")
    return settings.venues.binanceusdm.instruments


# --- the risk model ----------------------------------------------------------------------------------------


def foretold(task: RiskTask) -> tuple[tuple[int, ...], FloatArray]:
    """A batch, in whatever process."""
    return task.places, calibration.foretold(task.prices, task.trials)


def _risk_stage(
    asked: Asked, settings: Settings, prices: Prices, days: Days, log: Trials
) -> tuple[dict[str, Any], ForecastParameters]:
    """(evidence, the parameters to go on with)."""
    candidates = calibration.trials_of(settings.forecast, asked.trials, asked.seed)
    rival = settings.forecast.model_copy(update={"model": "ewma", "half_life_s": calibration.EWMA_10_DAYS_S})
    everyone = [*candidates, rival]
    variance = np.full((len(everyone), *days.realised.shape), np.nan)
    tasks = [
        RiskTask(prices, tuple(everyone[n] for n in batch), tuple(batch))
        for batch in calibration.batches(everyone, BATCH)
    ]
    with (
        progress("risk models", not asked.json_lines, len(everyone)) as advance,
        spread(foretold, tasks, workers=asked.workers, ray=asked.ray) as made,
    ):
        for places, found in made:
            variance[list(places)] = found
            losses = calibration.risk_losses(days, found)
            for k, n in enumerate(places):
                if n < len(candidates):
                    log.tell("risk", n, _tried(everyone[n]), float(losses[:, :, k].mean()))
            advance(len(places))
    losses = calibration.risk_losses(days, variance)
    told = calibration.verdict(losses[:, :, :-1].mean(axis=1))
    evidence = _risk_evidence(prices, days, variance, losses, told)
    evidence |= {"best": _tried(candidates[told.best]), "adopted": told.improves}
    return evidence, candidates[told.best] if told.improves else settings.forecast


def _tried(params: ForecastParameters) -> dict[str, Any]:
    return {name: getattr(params, name) for name in calibration.TRIED}


def _risk_evidence(
    prices: Prices, days: Days, variance: FloatArray, losses: FloatArray, told: Verdict
) -> dict[str, Any]:
    """`losses` [J, U, N + 1], the last column EWMA's; trial 0 the incumbent's."""
    test = told.forward.test
    ahead = calibration.risk_losses(days, calibration.forward_variance(days, variance, told)[None])[test, :, 0]
    rows = {}
    for u, name in enumerate(prices.underlyings):
        own = losses[:, u]
        rows[name] = {
            "qlike_all_days": _means(best=own[:, told.best], incumbent=own[:, 0], ewma_10d=own[:, -1]),
            "qlike_unseen_days": _means(chosen=ahead[:, u], incumbent=own[test, 0], ewma_10d=own[test, -1]),
            "incumbent_over_ewma_10d": _test(diebold_mariano(own[:, -1], own[:, 0], lags=calibration.LAGS)),
            "chosen_over_ewma_10d": _test(diebold_mariano(own[test, -1], ahead[:, u], lags=calibration.LAGS)),
            "chosen_over_incumbent": _test(diebold_mariano(own[test, 0], ahead[:, u], lags=calibration.LAGS)),
        }
    by_incumbent = calibration.var_backtest(days, variance[0])
    by_chosen = calibration.var_backtest(days, calibration.forward_variance(days, variance, told))
    for name, given, chosen in zip(prices.underlyings, by_incumbent, by_chosen, strict=False):
        rows[name] |= {"var_99_incumbent": given, "var_99_chosen": chosen}
    return {
        "days": len(losses),
        "unseen_days": len(test),
        "chosen_over_incumbent": _test(told.against),
        "overfitting": told.overfit,
        "by_underlying": rows,
    }


def _means(**columns: FloatArray) -> dict[str, float]:
    return {name: round(float(column.mean()), 5) for name, column in columns.items()}


def _test(found: Significance) -> dict[str, float]:
    return {"t": round(found.statistic, 3), "p": round(found.p, 5)}


# --- the bands ---------------------------------------------------------------------------------------------


def traded(task: BandTask) -> Traded:
    """One backtest, in whatever process."""
    decide_ns = task.settings.decide_every_ms * NS_PER_MS
    history = candles_in(task.history, _symbols(task.settings), decide_ns)
    record, _ = backtest_history(
        history, task.settings, task.from_ns, task.to_ns, seed=task.seed, tape=None, show=False
    )
    return Traded(calibration.band_losses(record), daily_returns(record))


def with_band(settings: Settings, forecast: ForecastParameters, band: float | str | None) -> Settings:
    """The configuration with another risk model, and another band (None: its own) for each target that has one."""
    targets = {
        name: target if band is None or isinstance(target, FixedTarget) else target.model_copy(update={"band": band})
        for name, target in settings.allocator.targets.items()
    }
    allocator = settings.allocator.model_copy(update={"targets": targets})
    return settings.model_copy(update={"forecast": forecast, "allocator": allocator})


def _band_stage(
    asked: Asked, settings: Settings, forecast: ForecastParameters, prices: Prices, log: Trials
) -> tuple[dict[str, Any], float | str | None]:
    """(evidence, the band to set or None)."""
    own = {target.band for target in settings.allocator.targets.values() if not isinstance(target, FixedTarget)}
    if not asked.bands or not own:
        return {"skipped": "no target has a band to choose" if asked.bands else "not asked for"}, None
    bands: list[float | str | None] = [None, *(band for band in BANDS if own != {band})]
    from_ns = int(prices.at_ns[0]) + calibration.WARM_DAYS * NS_PER_DAY
    to_ns = int(prices.at_ns[-1])
    tasks = [BandTask(asked.history, with_band(settings, forecast, band), from_ns, to_ns, asked.seed) for band in bands]
    done: list[Traded] = []
    with (
        progress("bands", not asked.json_lines, len(tasks)) as advance,
        spread(traded, tasks, workers=asked.workers, ray=asked.ray) as made,
    ):
        for one, band in zip(made, bands, strict=True):
            ratio = sharpe_ratio(one.returns)
            log.tell("bands", len(done), {"band": band or "as configured"}, float(one.losses.mean()), sharpe_day=ratio)
            done.append(one)
            advance(1)
    told = calibration.verdict(np.column_stack([one.losses for one in done]))
    taken = told.best if told.improves else 0
    return _band_evidence(done, bands, told, taken, log), bands[taken]


def _band_evidence(
    done: Sequence[Traded], bands: Sequence[float | str | None], told: Verdict, taken: int, log: Trials
) -> dict[str, Any]:
    ratios = np.array([sharpe_ratio(one.returns) for one in done])
    count = log.earlier + log.count
    return {
        "loss_bp_a_day": {
            str(band or "as configured"): round(1e4 * float(one.losses.mean()), 4)
            for band, one in zip(bands, done, strict=True)
        },
        "chosen_over_incumbent": _test(told.against),
        "overfitting": told.overfit,
        "best": bands[told.best] or "as configured",
        "adopted": taken != 0,
        "trials": count,
        "sharpe_year": round(float(ratios[taken] * np.sqrt(365.0)), 4),
        "deflated_sharpe": _deflated(done[taken].returns, count, float(np.std(ratios, ddof=1))),
    }


def _deflated(returns: FloatArray, trials: int, deviation: float) -> float | str:
    """A figure that cannot be told is no reason to lose what the backtests found."""
    try:
        return round(deflated_sharpe(returns, trials, deviation), 4)
    except DataError:
        return UNKNOWN


# --- what is written ---------------------------------------------------------------------------------------


def _parameters(settings: Settings, forecast: ForecastParameters, band: float | str | None) -> dict[str, Any]:
    """What differs from the configuration, nested as in it; nothing where nothing improved. What an earlier calibration
    changed there is carried forward: this file takes that one's place."""
    found: dict[str, Any] = {}
    earlier = {line.partition(".")[0] for line in settings.calibrated}
    if forecast is not settings.forecast or "forecast" in earlier:
        found["forecast"] = _tried(forecast)
    if band is not None or "allocator" in earlier:
        targets = with_band(settings, forecast, band).allocator.targets.items()
        banded = {name: {"band": target.band} for name, target in targets if not isinstance(target, FixedTarget)}
        found["allocator"] = {"targets": banded}
    return found


def data_hash(prices: Prices) -> str:
    """SHA-256 of the moments, the prices and whose they are."""
    found = hashlib.sha256(json.dumps([prices.underlyings, prices.usd.shape]).encode())
    at_ns: IntArray = np.ascontiguousarray(prices.at_ns, dtype="<i8")
    found.update(at_ns.tobytes())
    found.update(np.ascontiguousarray(prices.usd, dtype="<f8").tobytes())
    return found.hexdigest()


def _provenance(asked: Asked, settings: Settings, prices: Prices, log: Trials) -> dict[str, Any]:
    return {
        "version": __version__,
        "made": asked.made or dt.datetime.now(dt.UTC).date().isoformat(),
        "command": asked.command,
        "seed": asked.seed,
        "span": [stamp(prices.at_ns[0]), stamp(prices.at_ns[-1])],
        "underlyings": list(prices.underlyings),
        "prices_every_s": int(np.median(np.diff(prices.at_ns))) / NS_PER_S,
        "sampled_every_s": settings.forecast.sample_every_s,
        "data_sha256": data_hash(prices),
        "trials": log.count,
        "earlier_trials": log.earlier,
    }


def _told(found: dict[str, Any], out: Path) -> list[str]:
    """For people."""
    risk, bands = found["evidence"]["risk"], found["evidence"]["bands"]
    lines = [f"{risk['unseen_days']:,} days the choice had not seen; QLIKE, less is better:"]
    for name, row in risk["by_underlying"].items():
        unseen, over = row["qlike_unseen_days"], row["chosen_over_ewma_10d"]
        lines.append(
            f"  {name:<6} chosen {unseen['chosen']:.4f}   as configured {unseen['incumbent']:.4f}   "
            f"EWMA 10 d {unseen['ewma_10d']:.4f} (t {over['t']:.1f})"
        )
        lines += [f"  {'':<6} 99 % VaR: {_var(row['var_99_chosen'])}"] if "var_99_chosen" in row else []
    lines.append(_outcome("risk model", risk))
    lines.append(f"bands: {bands['skipped']}" if "skipped" in bands else _outcome("bands", bands))
    if "deflated_sharpe" in bands:
        deflated = bands["deflated_sharpe"]
        lines.append(f"  Sharpe {bands['sharpe_year']:.2f} a year; deflated for {bands['trials']:,} trials: "
                     f"{deflated if deflated == UNKNOWN else format(deflated, '.2f')}")  # fmt: skip
    return [*lines, f"written: {out} (calibration: {out.name} in a configuration takes it)"]


def _var(row: dict[str, Any]) -> str:
    return (
        f"{row['failures']} failures in {row['days']:,} days, Kupiec p {row['kupiec_p']:.2f}, "
        f"Christoffersen p {row['christoffersen_p']:.2f}"
    )


def _outcome(what: str, told: dict[str, Any]) -> str:
    over = told["chosen_over_incumbent"]
    outcome = f"changed to {told['best']}" if told["adopted"] else "nothing was significantly better: it stays"
    overfit = "unknown" if told["overfitting"] is None else f"{told['overfitting']:.2f}"
    return f"{what}: {outcome} (t {over['t']:.2f}, p {over['p']:.3f}, overfitting {overfit})"
