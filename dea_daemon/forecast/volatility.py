"""Covariance of the underlyings: volatilities by HAR above a fast estimate, correlations by a slow one.

cov = D C D. The fast variances are exponentially weighted squared returns on a fixed time grid, shrunk towards a prior
worth a stated number of samples. Source: J.P. Morgan, RiskMetrics (1996). HAR (see har.py) takes over during its first
week and is never believed far below the fast one; C is in correlation.py. `observe` makes the forecast anew when a
sample was taken, and only then: `predict` hands it out.
"""

from typing import get_origin, get_type_hints

import numpy as np

from dea_daemon.domain.commands import FitModel
from dea_daemon.domain.decisions import Forecast, Note, View
from dea_daemon.domain.events import ForecasterRuled, ModelFitted, PricesRecalled
from dea_daemon.domain.instruments import FloatArray, Universe
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters
from dea_daemon.forecast import carry, correlation, features, har, learners, residual, rivals, trial
from dea_daemon.forecast.factors import MOST_FACTORS, factor_form
from dea_daemon.forecast.signals import signals

HAR_AFTER_DAYS = 7.0  # covered: until then HAR has the share of this that it has seen, in logarithms
FAST_SHARE = 0.7  # volatility is never below this share of the fast estimate's: HAR hears of a crash too late
TARGET_HALF_LIFE_DAYS = 30.0
PRIOR_TARGET_VARIANCE = 0.02  # 1/day, worth a day
ARRAYS = tuple(name for name, kind in get_type_hints(Forecast).items() if get_origin(kind) is np.ndarray)
RECALLED_LEAST = 24  # bars: of fewer the prior knows as much
RECALLED_BARS = 24.0  # half-life of the fast estimate while bars are recalled, where its own is shorter


class VolatilityMemory:
    """Weighted sums over U underlyings; variances are per day.

    `variance_weight` [U] counts effective samples, so an underlying with no price yet keeps its prior; `fast` [U] is
    what the estimate was at the last sample. `log_risk` [U] is log(volatility · price) at HAR's last grid point;
    `target_sum`, `target_days` [U] are the weighted squares of its changes and the time they span.
    `slow_sum`, `slow_weight` [U] are those of ten days, for a model that is on trial. `forecast` is the last one made,
    with `params`.
    """

    def __init__(self, underlyings: int) -> None:
        self.trial = trial.TrialMemory()
        self.residual = residual.ResidualMemory()
        self.carry = carry.CarryMemory()
        self.forecast: Forecast | None = None
        self.params: ForecastParameters | None = None
        self.begin(underlyings)

    def begin(self, underlyings: int) -> None:
        """Know nothing of the underlyings."""
        u = underlyings
        self.last_price: FloatArray = np.full(u, np.nan)
        self.last_ns = 0
        self.variance_sum, self.variance_weight = np.zeros(u), np.zeros(u)
        self.slow_sum, self.slow_weight = np.zeros(u), np.zeros(u)
        self.fast: FloatArray = np.full(u, np.nan)
        self.correlation = correlation.CorrelationMemory(u)
        self.har = har.HarMemory(u)
        self.learners = learners.LearnerMemory(u, self.trial)
        self.rivals = rivals.RivalMemory()
        self.log_risk: FloatArray = np.full(u, np.nan)
        self.target_sum, self.target_days = np.zeros(u), np.zeros(u)


def observe(memory: VolatilityMemory, view: View, params: ForecastParameters) -> tuple[Note, ...]:
    """Learn from a decision's prices what is due, and make the forecast where anything was. What is worth a note."""
    learned = sample(memory, view.now_ns, view.underlying_price, params)
    learned |= residual.observe(memory.residual, view, memory.fast, params)
    learned |= carry.observe(memory.carry, view, params)
    if rivals.turned(memory.rivals, view.utc_ns):
        _try_models(memory, view, params)
        memory.learners.told_ns = 0  # told with this decision, and kept with it
        learned = True
    if learners.due(memory.learners, view.now_ns, params.learners):
        earned = features.perpetual_carry(view, memory.carry.per_usd)
        _sample_learners(memory, view.now_ns, view.underlying_price, view, earned, params)
        memory.learners.told_ns = 0
    if not memory.learners.told_ns and memory.learners.past.slot >= 0:
        _tell(memory, view.universe, params, view.now_ns)
        learned = True
    if learned or not _is_current(memory, view.universe, params):
        memory.forecast, memory.params = _forecast(memory, view.universe, params), params
    return memory.trial.drained()


def _tell(memory: VolatilityMemory, universe: Universe, params: ForecastParameters, now_ns: int) -> None:
    """What all forecasters say, and how they and the models of variance are on trial; 0: the next decision says it."""
    learners.tell(memory.learners, universe, params.learners, now_ns)
    memory.learners.contenders += rivals.contenders(memory.trial, params)


def asked(memory: VolatilityMemory, view: View, params: ForecastParameters) -> FitModel | None:
    """The model that is to be fitted aside now, if one is; looked at when the forecasters have just spoken."""
    if memory.learners.told_ns != view.now_ns:
        return None
    return learners.asked(memory.learners, view.now_ns, view.utc_ns, params.learners)


def fitted(memory: VolatilityMemory, event: ModelFitted, params: ForecastParameters) -> tuple[Note, ...]:
    """Fold the answer."""
    learners.fitted(memory.learners, event, params.learners)
    return memory.trial.drained()


def ruled(
    memory: VolatilityMemory, event: ForecasterRuled, utc_ns: int, universe: Universe, params: ForecastParameters
) -> tuple[Note, ...]:
    """Fold the operator's word; it counts from the next decision on."""
    trial.spoken(memory.trial, event, utc_ns, rulable(memory, params))
    _tell(memory, universe, params, 0)
    memory.forecast = None
    return memory.trial.drained()


def rulable(memory: VolatilityMemory, params: ForecastParameters) -> dict[str, float]:
    """Who may be ruled on, and the most weight each may be given: what the others leave; 1 of a model of variance."""
    room = learners.room(memory.learners, params.learners)
    return room | dict.fromkeys((*rivals.names(params), trial.CAUTIOUS), 1.0)


def _try_models(memory: VolatilityMemory, view: View, params: ForecastParameters) -> None:
    """At a day's turn: what each model expected of it against what came."""
    forecasts = {name: model_variance(memory, name, params) for name in rivals.tried(memory.trial, params)}
    rates, covered = har.realised(memory.har, params)
    came = np.where(covered[0] >= rivals.COVERED_DAYS, rates[0], np.nan)
    alpha = learners.level(memory.learners, params.learners)
    rivals.observe(memory.rivals, memory.trial, view.utc_ns, forecasts, came, alpha, params)


def predict(view: View, memory: VolatilityMemory, params: ForecastParameters) -> Forecast:
    """Signals are the operator's views and the forecasters with weight; covariance [U, U] 1/day², PSD. Arrays are
    read-only."""
    if memory.forecast is not None and _is_current(memory, view.universe, params):
        return memory.forecast
    return _forecast(memory, view.universe, params)


def recall(memory: VolatilityMemory, event: PricesRecalled, params: ForecastParameters) -> None:
    """Begin with the past: as if the daemon had run through these bars.

    What little was seen before is forgotten; who has run for a day learns nothing from this. The way from the last
    close to the next price is a return like any other (beyond a day, no return but to the fast estimate). Bars longer
    than `half_life_s` say little of so short a past: the fast estimate then has a half-life of 24 bars, and afterwards
    the weight it would have had.
    """
    if len(event.at_ns) < RECALLED_LEAST or memory.har.covered_days.max(initial=0.0) >= 1.0:
        return
    bar_s = float(np.median(np.diff(event.at_ns))) / NS_PER_S
    half_life_s = max(params.half_life_s, RECALLED_BARS * bar_s)
    slower = params.model_copy(update={"half_life_s": half_life_s})
    memory.begin(len(memory.last_price))
    unknown = np.full(len(memory.last_price), np.nan)
    for now_ns, usd in zip(event.at_ns, event.usd, strict=True):
        price = np.where(np.array(usd) > 0.0, usd, np.nan)
        sample(memory, now_ns, price, slower)
        if learners.due(memory.learners, now_ns, params.learners):
            _sample_learners(memory, now_ns, price, None, unknown, slower)
    weight = params.half_life_s / params.sample_every_s / (half_life_s / max(bar_s, params.sample_every_s))
    memory.variance_sum *= weight
    memory.variance_weight *= weight
    samples = max(bar_s / params.sample_every_s, 1.0)  # a bar counts as many as there would have been
    memory.slow_sum *= samples
    memory.slow_weight *= samples
    memory.fast, memory.forecast = daily_variance(memory, params), None


def _sample_learners(
    memory: VolatilityMemory,
    now_ns: int,
    price: FloatArray,
    view: View | None,
    earned: FloatArray,
    params: ForecastParameters,
) -> None:
    variance = expected_variance(memory, params)
    utc_ns = 0 if view is None else view.utc_ns
    learners.observe(memory.learners, now_ns, price, variance, view, earned, params.learners, utc_ns)


def sample(memory: VolatilityMemory, now_ns: int, price: FloatArray, params: ForecastParameters) -> bool:
    """Take a sample if the grid's next point has come, and whatever else is due; whether anything was.

    `price` [U] USD, kept; NaN skips that underlying.
    """
    ticked = correlation.observe(memory.correlation, now_ns, price, memory.fast, params)
    elapsed_ns = now_ns - memory.last_ns
    if elapsed_ns < params.sample_every_s * NS_PER_S:
        return ticked
    # A jump counts as a large return, not as the whole estimate: one second must not rule an hour.
    most = params.jump_clip * np.sqrt(daily_variance(memory, params))
    if memory.last_ns:
        returns = np.log(price / memory.last_price) / np.sqrt(elapsed_ns / NS_PER_DAY)
        known = np.isfinite(returns)
        returns = np.clip(np.where(known, returns, 0.0), -most, most)
        keep = 0.5 ** (elapsed_ns / NS_PER_S / params.half_life_s)
        memory.variance_sum *= keep
        memory.variance_sum += returns**2
        memory.variance_weight *= keep
        memory.variance_weight += known
        keep = 0.5 ** (elapsed_ns / NS_PER_S / rivals.SLOW_HALF_LIFE_S)
        memory.slow_sum = memory.slow_sum * keep + returns**2
        memory.slow_weight = memory.slow_weight * keep + known
    memory.last_ns = now_ns
    memory.last_price = price  # after a gap the next return is unknown: its interval would be the wrong one
    if step_ns := har.observe(memory.har, now_ns, price, most, params):
        _observe_target(memory, step_ns / NS_PER_DAY, price, params)
    memory.fast = daily_variance(memory, params)
    return True


def _observe_target(memory: VolatilityMemory, days: float, price: FloatArray, params: ForecastParameters) -> None:
    """One more change of log(volatility · price); a jump counts as a large change."""
    log_risk = np.log(np.sqrt(expected_variance(memory, params)) * price)
    change = log_risk - memory.log_risk
    known = np.isfinite(change)
    most = params.jump_clip**2 * target_variance(memory) * days
    keep = 0.5 ** (days / TARGET_HALF_LIFE_DAYS)
    memory.target_sum = memory.target_sum * keep + np.minimum(np.where(known, change, 0.0) ** 2, most)
    memory.target_days = memory.target_days * keep + known * days
    memory.log_risk = log_risk


def target_variance(memory: VolatilityMemory) -> FloatArray:
    """[U] 1/day, of log(volatility · price), shrunk to its prior."""
    return (memory.target_sum + PRIOR_TARGET_VARIANCE) / (memory.target_days + 1.0)


def _prior(params: ForecastParameters) -> float:
    return params.prior_annual_vol**2 / DAYS_PER_YEAR


def daily_variance(memory: VolatilityMemory, params: ForecastParameters) -> FloatArray:
    """[U] 1/day, the fast estimate, shrunk to the prior, floored and capped."""
    return _shrunk(memory.variance_sum, memory.variance_weight, params)


def _shrunk(total: FloatArray, weight: FloatArray, params: ForecastParameters) -> FloatArray:
    return _bounded((total + params.prior_samples * _prior(params)) / (weight + params.prior_samples), params)


def expected_variance(memory: VolatilityMemory, params: ForecastParameters) -> FloatArray:
    """[U] 1/day, what is traded on: the model's, floored and capped."""
    return model_variance(memory, rivals.traded(memory.trial, params), params)


def model_variance(memory: VolatilityMemory, model: str, params: ForecastParameters) -> FloatArray:
    """[U] 1/day, what a model expects: "har" (or "harq"), "ewma" as configured, that of ten days, or "cautious", the
    larger of the configured model's and that of ten days."""
    if model == rivals.SLOW:
        return _shrunk(memory.slow_sum, memory.slow_weight, params)
    if model == trial.CAUTIOUS:
        return np.maximum(model_variance(memory, params.model, params), model_variance(memory, rivals.SLOW, params))
    fast = daily_variance(memory, params)
    if model == "ewma":
        return fast
    share = np.minimum(memory.har.covered_days / HAR_AFTER_DAYS, 1.0)
    slow = fast * np.where(share > 0.0, memory.har.variance / fast, 1.0) ** share
    return _bounded(np.maximum(slow, FAST_SHARE**2 * fast), params)


def _bounded(variance: FloatArray, params: ForecastParameters) -> FloatArray:
    floor, cap = params.vol_floor**2 / DAYS_PER_YEAR, params.vol_cap**2 / DAYS_PER_YEAR
    return np.minimum(np.maximum(variance, floor), cap)


def _is_current(memory: VolatilityMemory, universe: Universe, params: ForecastParameters) -> bool:
    """Whether the forecast made last was with these parameters, for these rows."""
    made = memory.forecast
    return made is not None and memory.params is params and len(made.residual_variance) == len(universe)


def _forecast(memory: VolatilityMemory, universe: Universe, params: ForecastParameters) -> Forecast:
    """All anew, from the memory."""
    signal_return, signal_decay = signals(universe.underlyings, memory.learners, params)
    variance = expected_variance(memory, params)
    vol = np.sqrt(variance)
    covariance = correlation.correlation(memory.correlation, params) * vol[:, None] * vol
    if len(vol) > MOST_FACTORS:  # what many pairs seem to have in common beyond that is mostly noise
        common, omega, own = factor_form(covariance)
        covariance = common @ omega @ common.T + np.diag(own)
    made = Forecast(
        signal_return=signal_return,
        signal_decay=signal_decay,
        covariance=covariance,
        annual_vol=vol * np.sqrt(DAYS_PER_YEAR),
        target_variance=target_variance(memory),
        residual_variance=residual.residual_variance(memory.residual, universe, variance, params),
        carry=carry.expected(memory.carry, len(universe)),
        forecasters=memory.learners.told,
        contenders=memory.learners.contenders,
        told_ns=memory.learners.told_ns,
    )
    for name in ARRAYS:
        getattr(made, name).setflags(write=False)
    return made
