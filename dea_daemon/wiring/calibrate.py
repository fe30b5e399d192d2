"""`dea-daemon calibrate`: parameters of risk model, forecasters, bands and costs, by walk-forward over a history.

One stage after another, each with what the one before adopted: costs from own fills; many risk models on nothing but
prices, through the daemon's own forecast; how fast correlations are forgotten, and forecasters of returns
(calibrate_more.py); then whole backtests for a few bands. What does not beat the configuration as given, on days it was
not chosen by, stays.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dea_daemon import __version__
from dea_daemon.domain.errors import ConfigError, DataError
from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_MS, NS_PER_S
from dea_daemon.domain.parameters import FixedTarget, ForecastParameters
from dea_daemon.research import calibration, forecaster_trials
from dea_daemon.research.calibration import Days, Prices, Verdict
from dea_daemon.research.candles import FundingRates
from dea_daemon.research.overfitting import deflated_sharpe, sharpe_ratio
from dea_daemon.research.performance import daily_returns, stamp
from dea_daemon.research.validation import diebold_mariano
from dea_daemon.shell import calibration_file
from dea_daemon.shell.output import emit, say
from dea_daemon.shell.progress import progress
from dea_daemon.shell.settings import Settings
from dea_daemon.wiring.calibrate_more import correlation_stage, cost_stage, forecaster_stage
from dea_daemon.wiring.calibrate_trials import Asked, Trials, choice, logged, significance
from dea_daemon.wiring.calibrate_words import UNKNOWN, told
from dea_daemon.wiring.candles import bars_of, underlying_of, venue_of
from dea_daemon.wiring.history import backtest_history, candles_in
from dea_daemon.wiring.spread import spread

BATCH = 20  # trials side by side: forty underlyings cost little more than two
BANDS: tuple[float | str, ...] = ("cube_root", 0.05, 0.10, 0.20, 0.30)


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


def run_calibrate(asked: Asked, settings: Settings) -> int:
    """Exit code. Interrupted, it leaves the trials made so far in the log. Raises ConfigError, DataError, OSError."""
    prices = prices_in(asked, settings)
    days = calibration.days_of(prices)
    with logged(asked.out) as trials:
        costs, tuned = cost_stage(asked, settings)  # first: a ledger that cannot be read costs no trials
        risk, tuned = _risk_stage(asked, tuned, prices, days, trials)
        correlation, tuned = correlation_stage(tuned, prices, days, trials)
        forecasters, tuned = forecaster_stage(asked, tuned, prices, trials)
        bands, tuned = _band_stage(asked, tuned, prices, trials)
        provenance = _provenance(asked, settings, prices, trials)
    evidence = {"risk": risk, "correlation": correlation, "forecasters": forecasters, "costs": costs, "bands": bands}
    found = {
        "provenance": provenance,
        "evidence": evidence,
        calibration_file.PARAMETERS: _parameters(settings, tuned),
    }
    calibration_file.write(asked.out, found)
    if asked.json_lines:
        emit({"event": "calibrate.finished", "file": str(asked.out), **found})
    else:
        say(*told(found, asked.out))
    return 0


def prices_in(asked: Asked, settings: Settings) -> Prices:
    """What the engine would be told of the underlyings, at each close: marks where they were recorded; and funding."""
    symbols = _symbols(settings)
    decide_ns = settings.decide_every_ms * NS_PER_MS
    history = candles_in(asked.history, symbols, decide_ns)
    bars = bars_of(history, symbols, asked.from_ns, asked.to_ns, decide_ns)
    names = tuple(underlying_of(symbol) for symbol in symbols)
    at_ns, venue = bars.grid.open_ns + bars.grid.step_ns, venue_of(history, symbols)
    carry = np.stack([earned(history.funding.get((venue, symbol)), at_ns) for symbol in symbols], axis=1)
    return Prices(at_ns, bars.mark, names, carry)


def earned(rates: FundingRates | None, at_ns: IntArray) -> FloatArray:
    """[T] 1/day: what a long had earned of funding over the day before; NaN where nothing was paid in it."""
    if rates is None:
        return np.full(len(at_ns), np.nan)
    paid = np.append(0.0, np.cumsum(rates.rate))
    last, first = (np.searchsorted(rates.at_ns, at_ns - before, side="right") for before in (0, NS_PER_DAY))
    return np.where(last > first, paid[first] - paid[last], np.nan)


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
) -> tuple[dict[str, Any], Settings]:
    """(evidence, the configuration to go on with)."""
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
    best = candidates[told.best]
    evidence |= choice(told, _tried(best), told.improves)
    return evidence, settings.model_copy(update={"forecast": best}) if told.improves else settings


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
            "incumbent_over_ewma_10d": significance(diebold_mariano(own[:, -1], own[:, 0], lags=calibration.LAGS)),
            "chosen_over_ewma_10d": significance(diebold_mariano(own[test, -1], ahead[:, u], lags=calibration.LAGS)),
            "chosen_over_incumbent": significance(diebold_mariano(own[test, 0], ahead[:, u], lags=calibration.LAGS)),
        }
    by_incumbent = calibration.var_backtest(days, variance[0])
    by_chosen = calibration.var_backtest(days, calibration.forward_variance(days, variance, told))
    for name, given, chosen in zip(prices.underlyings, by_incumbent, by_chosen, strict=False):
        rows[name] |= {"var_99_incumbent": given, "var_99_chosen": chosen}
    return {
        "days": len(losses),
        "unseen_days": len(test),
        "by_underlying": rows,
    }


def _means(**columns: FloatArray) -> dict[str, float]:
    return {name: round(float(column.mean()), 5) for name, column in columns.items()}


# --- the bands ---------------------------------------------------------------------------------------------


def traded(task: BandTask) -> Traded:
    """One backtest, in whatever process."""
    decide_ns = task.settings.decide_every_ms * NS_PER_MS
    history = candles_in(task.history, _symbols(task.settings), decide_ns)
    record, _ = backtest_history(
        history, task.settings, task.from_ns, task.to_ns, seed=task.seed, tape=None, show=False
    )
    return Traded(calibration.band_losses(record), daily_returns(record))


def with_band(settings: Settings, band: float | str | None) -> Settings:
    """The configuration with another band (None: its own) for each target that has one."""
    targets = {
        name: target if band is None or isinstance(target, FixedTarget) else target.model_copy(update={"band": band})
        for name, target in settings.allocator.targets.items()
    }
    return settings.model_copy(update={"allocator": settings.allocator.model_copy(update={"targets": targets})})


def _band_stage(asked: Asked, settings: Settings, prices: Prices, log: Trials) -> tuple[dict[str, Any], Settings]:
    """(evidence, the configuration with the band to set)."""
    own = {target.band for target in settings.allocator.targets.values() if not isinstance(target, FixedTarget)}
    if not asked.bands or not own:
        return {"skipped": "no target has a band to choose" if asked.bands else "not asked for"}, settings
    bands: list[float | str | None] = [None, *(band for band in BANDS if own != {band})]
    from_ns = int(prices.at_ns[0]) + calibration.WARM_DAYS * NS_PER_DAY
    to_ns = int(prices.at_ns[-1])
    tasks = [BandTask(asked.history, with_band(settings, band), from_ns, to_ns, asked.seed) for band in bands]
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
    return _band_evidence(done, bands, told, taken, log), with_band(settings, bands[taken])


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
        **choice(told, bands[told.best] or "as configured", taken != 0),
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


def _parameters(settings: Settings, tuned: Settings) -> dict[str, Any]:
    """What differs from the configuration, nested as in it, with all that was chosen at once beside it; nothing where
    nothing improved. What an earlier calibration changed there is carried forward: this file takes that one's place."""
    earlier = {line.partition(":")[0] for line in settings.calibrated}
    before, after = (dict(calibration_file.leaves(each.parameters.model_dump())) for each in (settings, tuned))
    bands = tuple(option for option in after if option.startswith("allocator.") and calibration_file.may_set(option))
    together = (
        tuple(f"forecast.{name}" for name in calibration.TRIED),
        ("forecast.correlation_half_life_s",),
        *((f"forecast.learners.{option}",) for option in forecaster_trials.VALUES),
        ("forecast.learners.trial.cost_bp",),
        bands,
    )
    found: dict[str, Any] = {}
    for options in together:
        if any(after[option] != before[option] or option in earlier for option in options):
            for option in options:
                found = calibration_file.laid_over(found, nested(option, after[option]))
    return found


def nested(option: str, value: Any) -> dict[str, Any]:
    """("a.b", 1) → {"a": {"b": 1}}."""
    for name in reversed(option.split(".")):
        value = {name: value}
    return dict(value)


def data_hash(prices: Prices) -> str:
    """SHA-256 of the moments, the prices, the funding and whose they are."""
    found = hashlib.sha256(json.dumps([prices.underlyings, prices.usd.shape]).encode())
    at_ns: IntArray = np.ascontiguousarray(prices.at_ns, dtype="<i8")
    found.update(at_ns.tobytes())
    for each in (prices.usd, prices.carry):
        found.update(b"" if each is None else np.ascontiguousarray(each, dtype="<f8").tobytes())
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
