"""What fills really cost beside what is configured of costs: a robust mean over days, and whether it differs.

Orders of a day meet the same market, so a day is one observation, and one wild day is not to speak for all: the mean
is trimmed by a tenth at each end, its standard error from the winsorised days (Tukey and McLaughlin 1963).
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.numbers import NS_PER_DAY

LEAST_DAYS = 20
TRIM = 0.1


class Filled(NamedTuple):
    """Measured orders that were filled: ended_ns [R], USD [R]. `beyond_usd` is delay, impact and spread."""

    ended_ns: IntArray
    filled_usd: FloatArray
    fee_usd: FloatArray
    beyond_usd: FloatArray


class Measured(NamedTuple):
    """bp of the notional filled, and one standard error."""

    mean_bp: float
    error_bp: float
    days: int

    def above(self, configured_bp: float) -> tuple[float, float]:
        """(t, p two-sided) of more than that; Student's t of the days that were not trimmed away."""
        freedom = self.days - 2 * int(TRIM * self.days) - 1
        t = (self.mean_bp - configured_bp) / self.error_bp
        return t, float(2.0 * stats.t.sf(abs(t), freedom))


def measured(filled: Filled, cost_usd: FloatArray) -> Measured:
    """Of `cost_usd` [R]. DataError for fewer days than LEAST_DAYS, or days that do not differ."""
    day, place = np.unique(filled.ended_ns // NS_PER_DAY, return_inverse=True)
    if len(day) < LEAST_DAYS:
        raise DataError(f"{len(filled.ended_ns):,} measured orders on {len(day)} days: {LEAST_DAYS} days at least")
    of_day = 1e4 * np.bincount(place, cost_usd) / np.bincount(place, filled.filled_usd)
    if not np.isfinite(of_day).all():
        raise DataError("a measured cost is no number")
    limits = (TRIM, TRIM)
    error = float(stats.mstats.trimmed_stde(of_day, limits=limits))
    if not error > 0.0:
        raise DataError("the measured costs of all days are the same")
    return Measured(float(stats.mstats.trimmed_mean(of_day, limits=limits)), error, len(day))
