"""Covariance of the underlyings: volatilities by HAR above a fast estimate, correlations by a slow one.

cov = D C D. The fast variances and the correlations are exponentially weighted squared returns on a fixed time grid,
each with its half-life, both shrunk towards a prior worth a stated number of samples. Source: J.P. Morgan,
RiskMetrics (1996). HAR (see har.py) takes over during its first week and is never believed far below the fast one.
"""

import numpy as np

from dea_daemon.domain.decisions import Forecast, View
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters
from dea_daemon.forecast import har

HAR_AFTER_DAYS = 7.0  # covered: until then HAR has the share of this that it has seen, in logarithms
FAST_SHARE = 0.7  # volatility is never below this share of the fast estimate's: HAR hears of a crash too late
TARGET_HALF_LIFE_DAYS = 30.0
PRIOR_TARGET_VARIANCE = 0.02  # 1/day, worth a day


class VolatilityMemory:
    """Weighted sums over U underlyings; variances are per day.

    `variance_weight` [U] counts effective samples, so an underlying with no price yet keeps its prior.
    `log_risk` [U] is log(volatility · price) at HAR's last grid point; `target_sum`, `target_days` [U] are the weighted
    squares of its changes and the time they span.
    """

    def __init__(self, underlyings: int) -> None:
        u = underlyings
        self.last_price: FloatArray = np.full(u, np.nan)
        self.last_ns = 0
        self.variance_sum, self.variance_weight = np.zeros(u), np.zeros(u)
        self.cross_sum = np.zeros((u, u))
        self.har = har.HarMemory(u)
        self.log_risk: FloatArray = np.full(u, np.nan)
        self.target_sum, self.target_days = np.zeros(u), np.zeros(u)


def observe(memory: VolatilityMemory, now_ns: int, price: FloatArray, params: ForecastParameters) -> None:
    """Take a sample if the grid's next point has come. `price` [U] USD; NaN skips that underlying."""
    elapsed_ns = now_ns - memory.last_ns
    if elapsed_ns < params.sample_every_s * NS_PER_S:
        return
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
        memory.cross_sum *= 0.5 ** (elapsed_ns / NS_PER_S / params.correlation_half_life_s)
        memory.cross_sum += np.outer(returns, returns)
    memory.last_ns = now_ns
    memory.last_price = price  # after a gap the next return is unknown: its interval would be the wrong one
    if step_ns := har.observe(memory.har, now_ns, price, most, params):
        _observe_target(memory, step_ns / NS_PER_DAY, price, params)


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
    total = memory.variance_sum + params.prior_samples * _prior(params)
    return _bounded(total / (memory.variance_weight + params.prior_samples), params)


def expected_variance(memory: VolatilityMemory, params: ForecastParameters) -> FloatArray:
    """[U] 1/day, what is traded on: the model's, floored and capped."""
    fast = daily_variance(memory, params)
    if params.model == "ewma":
        return fast
    share = np.minimum(memory.har.covered_days / HAR_AFTER_DAYS, 1.0)
    slow = fast * np.where(share > 0.0, memory.har.variance / fast, 1.0) ** share
    return _bounded(np.maximum(slow, FAST_SHARE**2 * fast), params)


def _bounded(variance: FloatArray, params: ForecastParameters) -> FloatArray:
    floor, cap = params.vol_floor**2 / DAYS_PER_YEAR, params.vol_cap**2 / DAYS_PER_YEAR
    return np.clip(variance, floor, cap)


def predict(view: View, memory: VolatilityMemory, params: ForecastParameters) -> Forecast:
    """mean_return is zero (no forecaster has earned a weight yet); covariance [U, U] 1/day², PSD."""
    u = len(view.universe.underlyings)
    # A sum of outer products plus a diagonal: PSD by construction. The prior adds uncorrelated samples.
    cross = memory.cross_sum + params.prior_samples * _prior(params) * np.eye(u)
    scale = 1.0 / np.sqrt(np.diag(cross))
    correlation = cross * scale[:, None] * scale[None, :]
    vol = np.sqrt(expected_variance(memory, params))
    return Forecast(
        signal_return=np.zeros((0, u)),
        signal_decay=np.zeros(0),
        covariance=correlation * vol[:, None] * vol[None, :],
        annual_vol=vol * np.sqrt(DAYS_PER_YEAR),
        target_variance=target_variance(memory),
        residual_variance=np.zeros(len(view.universe)),
    )
