"""Forecasts made by hand, and the allocator asked with them."""

from dataclasses import replace

import numpy as np

from dea_daemon.allocator.allocate import AllocatorMemory, allocate
from dea_daemon.domain.decisions import Forecast, Target, View
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.domain.parameters import AllocatorParameters, GuardParameters
from dea_daemon.forecast.carry import carry_per_usd


def forecast(
    annual_vol: FloatArray,
    *,
    covariance: FloatArray | None = None,
    target_variance: FloatArray | None = None,
    mean_return: FloatArray | None = None,
    residual_variance: FloatArray | None = None,
    rows: int = 4,
) -> Forecast:
    """Of U underlyings, uncorrelated unless `covariance` [U, U] says otherwise, with one signal that does not fade."""
    u = len(annual_vol)
    return Forecast(
        signal_return=np.zeros((1, u)) if mean_return is None else mean_return[None, :],
        signal_decay=np.zeros(1),
        covariance=np.diag(annual_vol) ** 2 / DAYS_PER_YEAR if covariance is None else covariance,
        annual_vol=annual_vol,
        target_variance=np.zeros(u) if target_variance is None else target_variance,
        residual_variance=np.full(rows, 1e-6) if residual_variance is None else residual_variance,
        carry=np.zeros(rows),
    )


WIDE = dict.fromkeys(
    (
        "max_gross_usd",
        "max_net_usd",
        "max_instrument_usd",
        "max_order_usd",
        "max_turnover_usd_per_hour",
        "max_fees_usd_per_hour",
    ),
    1e9,
)


def wanted(
    v: View,
    expected: Forecast,
    params: AllocatorParameters,
    rebalancing: tuple[bool, ...] = (False, False),
    surcharge: FloatArray | float = 0.0,
    **limits: float,
) -> Target:
    """The target, with limits beyond reach but for those given, and carry expected to stay as it is."""
    expected = replace(expected, carry=np.nan_to_num(carry_per_usd(v)))
    memory = AllocatorMemory(len(rebalancing))
    memory.rebalancing = np.array(rebalancing)
    guards = GuardParameters.model_validate(WIDE | limits)
    return allocate(v, expected, memory, params, guards, surcharge).target
