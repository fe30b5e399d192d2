"""The small stages of `dea-daemon calibrate`: how fast correlations are forgotten, forecasters of returns, costs.

Each takes settings and gives (evidence, settings to go on with). Costs are told from an operator's own fills; what is
assumed of them may be made dearer by a calibration, never cheaper.
"""

from typing import Any, NamedTuple

import numpy as np

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.parameters import ForecastParameters
from dea_daemon.research import calibration, forecaster_trials, measured_costs
from dea_daemon.research.calibration import Days, Prices
from dea_daemon.research.validation import diebold_mariano
from dea_daemon.shell.measured_fills import filled
from dea_daemon.shell.progress import progress
from dea_daemon.shell.settings import Settings
from dea_daemon.wiring.calibrate_trials import Asked, Trials, choice, significance
from dea_daemon.wiring.spread import spread

Stage = tuple[dict[str, Any], Settings]


def with_learners(settings: Settings, changes: dict[str, Any]) -> Settings:
    """The configuration with other options of `forecast.learners`."""
    learners = settings.forecast.learners.model_copy(update=changes)
    return settings.model_copy(update={"forecast": settings.forecast.model_copy(update={"learners": learners})})


# --- correlations ------------------------------------------------------------------------------------------


def correlation_stage(settings: Settings, prices: Prices, days: Days, log: Trials) -> Stage:
    """By QLIKE of the variance of a book of equal risks, whatever the risk model."""
    if len(prices.underlyings) < 2:
        return {"skipped": "one underlying goes with no other"}, settings
    trials = calibration.correlation_trials(settings.forecast)
    losses = calibration.book_losses(prices, days, *calibration.foretold_together(prices, trials))
    means = losses.mean(axis=0)
    for n, (trial, loss) in enumerate(zip(trials, means.tolist(), strict=True)):
        log.tell("correlation", n, {"correlation_half_life_s": trial.correlation_half_life_s}, loss)
    told = calibration.verdict(losses)
    best = trials[told.best]
    evidence = {
        "unseen_days": len(told.forward.test),
        "qlike_by_half_life_days": {
            f"{trial.correlation_half_life_s / 86_400:g}": round(float(loss), 5)
            for trial, loss in zip(trials, means, strict=True)
        },
        **choice(told, {"correlation_half_life_s": best.correlation_half_life_s}, told.improves),
    }
    return evidence, settings.model_copy(update={"forecast": best}) if told.improves else settings


# --- forecasters of returns --------------------------------------------------------------------------------


class ForecasterTask(NamedTuple):
    """One run of the learners over the prices."""

    prices: Prices
    params: ForecastParameters


def erred(task: ForecasterTask) -> FloatArray:
    """In whatever process."""
    return forecaster_trials.squared_errors(task.prices, task.params)


def forecaster_stage(asked: Asked, settings: Settings, prices: Prices, log: Trials) -> Stage:
    """By squared error of returns in standard deviations, against the configuration and against saying nothing."""
    if not asked.forecasters:
        return {who: {"skipped": "not asked for"} for who in forecaster_trials.TRIED}, settings
    trials = forecaster_trials.trials_of(settings.forecast)
    tasks = [ForecasterTask(prices, trial) for trial in trials]
    with (
        progress("forecasters", not asked.json_lines, len(tasks)) as advance,
        spread(erred, tasks, workers=asked.workers, ray=asked.ray) as made,
    ):
        found = []
        for errors in made:
            found.append(errors)
            advance(1)
    every = np.array(found)  # [N, W, D]
    known = np.isfinite(every).all(axis=(0, 1)) & (np.arange(every.shape[2]) >= calibration.WARM_DAYS)
    errors_of = dict(zip(forecaster_trials.JUDGED, every[:, :, known].transpose(1, 2, 0), strict=True))
    for n, trial in enumerate(trials):
        losses = {who: float(errors[:, n].mean()) for who, errors in errors_of.items()}
        tried = {name: getattr(trial.learners, name) for name in forecaster_trials.VALUES}
        log.tell("forecasters", n, tried, losses.pop("ridge"), **losses)
    evidence: dict[str, Any] = {}
    changes: dict[str, float] = {}
    for who, option in forecaster_trials.TRIED.items():
        values = [getattr(trial.learners, option) for trial in trials]
        evidence[who], best = _judged(values, option, errors_of[who], errors_of["zero"][:, 0])
        changes |= best
    return evidence, with_learners(settings, changes) if changes else settings


def _judged(values: list[float], option: str, losses: FloatArray, zero: FloatArray) -> tuple[Any, dict[str, float]]:
    """(evidence, what to change); `losses` [J, N], `zero` [J]. Whoever is no better than nothing is not tuned."""
    told = calibration.verdict(losses, horizon=forecaster_trials.HORIZON)
    over_zero = diebold_mariano(zero[told.forward.test], told.forward.loss, lags=calibration.LAGS)
    better = over_zero.statistic > 0.0 and over_zero.p < calibration.SIGNIFICANT
    adopted, best = told.improves and better, {option: values[told.best]}
    r_squared = 100.0 * (1.0 - losses.mean(axis=0) / zero.mean())
    evidence = {
        "unseen_days": len(told.forward.test),
        f"r_squared_percent_by_{option}": {
            f"{value:g}": round(float(r), 4) for value, r in zip(values, r_squared, strict=True)
        },
        "chosen_over_zero": significance(over_zero),
        **choice(told, best, adopted),
    }
    return evidence, best if adopted else {}


# --- costs -------------------------------------------------------------------------------------------------


def cost_stage(asked: Asked, settings: Settings) -> Stage:
    """What own fills cost beside what is assumed. Only `learners.trial.cost_bp` may follow, and only upwards: whatever
    makes trading look cheaper, or the market deeper, stays the operator's to set."""
    if asked.ledger is None:
        return {"skipped": "no ledger of own fills was given (--state-dir)"}, settings
    try:
        fills = filled(asked.ledger)
        beyond = measured_costs.measured(fills, fills.beyond_usd)
        whole = measured_costs.measured(fills, fills.beyond_usd + fills.fee_usd)
    except DataError as error:
        return {"skipped": str(error)}, settings
    assumed = settings.forecast.learners.trial.cost_bp
    t, p = whole.above(assumed)
    best = {"cost_bp": float(f"{whole.mean_bp:.3g}")}
    adopted = t > 0.0 and p < calibration.SIGNIFICANT and best["cost_bp"] > assumed
    evidence = {
        "orders": len(fills.ended_ns),
        "days": beyond.days,
        "beyond_fee_bp": {"mean": round(beyond.mean_bp, 3), "error": round(beyond.error_bp, 3)},
        "with_fee_bp": {"mean": round(whole.mean_bp, 3), "error": round(whole.error_bp, 3)},
        "fee_bp": round(1e4 * float(fills.fee_usd.sum() / fills.filled_usd.sum()), 3),
        "configured": {
            "forecast.learners.trial.cost_bp": assumed,
            "execution.surcharge_most_bp": settings.execution.surcharge_most_bp,
            "backtest.half_spread_bp": settings.backtest.half_spread_bp,
            "backtest.taker_bp": settings.backtest.taker_bp,
            "backtest.impact": settings.backtest.impact,
        },
        "measured_over_configured": {"t": round(t, 3), "p": round(p, 5)},
        "best": best,
        "adopted": adopted,
    }
    if not adopted:
        return evidence, settings
    return evidence, with_learners(settings, {"trial": settings.forecast.learners.trial.model_copy(update=best)})
