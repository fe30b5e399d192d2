"""Covariance of the underlyings by exponentially weighted squared returns on a fixed time grid.

cov = D C D: variances with one half-life, correlations with a slower one, both shrunk towards a prior worth a
stated number of samples. Source: J.P. Morgan, RiskMetrics (1996).
"""

import numpy as np

from dea_daemon.domain.decisions import Forecast, View
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters


class VolatilityMemory:
    """Weighted sums over U underlyings; variances are per day.

    `variance_weight` [U] counts effective samples, so an underlying with no price yet keeps its prior.
    """

    def __init__(self, underlyings: int) -> None:
        u = underlyings
        self.last_price: FloatArray = np.full(u, np.nan)
        self.last_ns = 0
        self.variance_sum, self.variance_weight = np.zeros(u), np.zeros(u)
        self.cross_sum = np.zeros((u, u))


def observe(memory: VolatilityMemory, now_ns: int, price: FloatArray, params: ForecastParameters) -> None:
    """Take a sample if the grid's next point has come. `price` [U] USD; NaN skips that underlying."""
    elapsed_ns = now_ns - memory.last_ns
    if elapsed_ns < params.sample_every_s * NS_PER_S:
        return
    if memory.last_ns:
        returns = np.log(price / memory.last_price) / np.sqrt(elapsed_ns / NS_PER_DAY)
        known = np.isfinite(returns)
        # A jump counts as a large return, not as the whole estimate: one second must not rule an hour.
        most = params.jump_clip * np.sqrt(daily_variance(memory, params))
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


def _prior(params: ForecastParameters) -> float:
    return params.prior_annual_vol**2 / DAYS_PER_YEAR


def daily_variance(memory: VolatilityMemory, params: ForecastParameters) -> FloatArray:
    """[U] 1/day², shrunk to the prior, floored and capped."""
    total = memory.variance_sum + params.prior_samples * _prior(params)
    floor, cap = params.vol_floor**2 / DAYS_PER_YEAR, params.vol_cap**2 / DAYS_PER_YEAR
    return np.clip(total / (memory.variance_weight + params.prior_samples), floor, cap)


def predict(view: View, memory: VolatilityMemory, params: ForecastParameters) -> Forecast:
    """mean_return is zero (no forecaster has earned a weight yet); covariance [U, U] 1/day², PSD."""
    u = len(view.universe.underlyings)
    # A sum of outer products plus a diagonal: PSD by construction. The prior adds uncorrelated samples.
    cross = memory.cross_sum + params.prior_samples * _prior(params) * np.eye(u)
    scale = 1.0 / np.sqrt(np.diag(cross))
    correlation = cross * scale[:, None] * scale[None, :]
    vol = np.sqrt(daily_variance(memory, params))
    return Forecast(
        mean_return=np.zeros(u),
        covariance=correlation * vol[:, None] * vol[None, :],
        annual_vol=vol * np.sqrt(DAYS_PER_YEAR),
    )
