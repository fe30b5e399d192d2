"""Forecasts made by hand."""

import numpy as np

from dea_daemon.domain.decisions import Forecast
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR


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
    )
