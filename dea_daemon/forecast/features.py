"""What a return is forecast from: past prices, and what the view shows now; each in units of its usual size.

A feature is a named function that gives [U], NaN where it cannot be told: that counts as 0, and once it was ever
known an indicator says so. Nothing is filled forward. To add one, add a line to FROM_PRICES or FROM_VIEW.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from dea_daemon.domain.decisions import View
from dea_daemon.domain.instruments import BoolArray, FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR

RETURN_DAYS = (1.0, 7.0, 28.0, 84.0)
LONGEST_DAYS = max(RETURN_DAYS)
HOUR_DAYS = 1.0 / 24.0
RATIO_DAYS = 28.0  # of returns in a variance ratio
RATIO_LEAST = 0.8  # of them must be known
MOST = 3.0  # a feature further out counts as this
TENOR = 1  # of TENOR_DAYS: 30 days
USUAL_CARRY, USUAL_CHANGE = 0.2, 0.05  # a year; of open interest in a day
USUAL_PREMIUM, USUAL_REVERSAL = 0.2, 0.1  # in logarithms; of the volatility at the money


class Past:
    """Log prices [L, U] of the last 84 days on a grid of `step_days`, NaN where there was none; slot s in row s % L."""

    def __init__(self, underlyings: int, step_days: float) -> None:
        self.step_days = step_days
        self.log_price: FloatArray = np.full((round(LONGEST_DAYS / step_days) + 1, underlyings), np.nan)
        self.slot = -1

    def add(self, slot: int, price: FloatArray) -> None:
        """Prices [U] USD of a later slot; those between had none."""
        length = len(self.log_price)
        self.log_price[np.arange(max(self.slot + 1, slot - length + 1), slot) % length] = np.nan
        self.log_price[slot % length] = np.log(price)
        self.slot = slot

    def slots(self, days: float) -> int:
        """How many steps that is; at least one."""
        return max(round(days / self.step_days), 1)

    def back(self, slots: int) -> FloatArray:
        """[U] log prices of so many slots ago; NaN where unknown."""
        return np.asarray(self.log_price[(self.slot - slots) % len(self.log_price)])

    def window(self, slots: int) -> FloatArray:
        """[slots + 1, U] log prices up to now, oldest first."""
        return np.asarray(self.log_price[np.arange(self.slot - slots, self.slot + 1) % len(self.log_price)])


def scaled_return(past: Past, vol: FloatArray, days: float) -> FloatArray:
    """[U] return of the last `days` in standard deviations; `vol` [U] 1/√day. The past of before a run is hourly: on a
    finer grid it begins at the newest price of the hour that ended `days` ago."""
    slots, start = past.slots(days), np.full(len(vol), np.nan)
    for more in range(past.slots(HOUR_DAYS)):
        if slots + more < len(past.log_price):
            start = np.where(np.isfinite(start), start, past.back(slots + more))
    return np.asarray((past.back(0) - start) / (vol * np.sqrt(days)))


def variance_ratio(past: Past, vol: FloatArray) -> FloatArray:
    """[U] how much more a day varies than its parts would, in standard errors of a random walk: trending above 0.

    Source: Lo and MacKinlay (1988), the homoskedastic z; of steps of a day or longer five make the longer return.
    """
    q = past.slots(1.0) if past.slots(1.0) > 1 else 5
    window = past.window(past.slots(RATIO_DAYS))
    if len(window) <= q:
        return np.full(window.shape[1], np.nan)
    short, long = _mean_square(window[1:] - window[:-1]), _mean_square(window[q:] - window[:-q])
    error = np.sqrt(2.0 * (2 * q - 1) * (q - 1) / (3.0 * q * (len(window) - 1)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((long / (q * short) - 1.0) / error)


def _mean_square(returns: FloatArray) -> FloatArray:
    """[U]; NaN where too few are known."""
    known = np.isfinite(returns)
    count = known.sum(axis=0)
    total = np.where(known, returns, 0.0) ** 2
    return np.where(count >= RATIO_LEAST * len(returns), total.sum(axis=0) / np.maximum(count, 1), np.nan)


def perpetual_carry(view: View, carry: FloatArray) -> FloatArray:
    """[U] 1/day, the mean of what each underlying's perpetuals earn held long; NaN where none is known.

    `carry` [rows known so far] 1/day, NaN where unknown.
    """
    known = np.append(carry, np.full(len(view.universe) - len(carry), np.nan))
    return _mean(view, known, _perpetual(view))


def _perpetual(view: View) -> BoolArray:
    universe = view.universe
    return np.asarray((universe.expiry_ns <= 0) & ~universe.spot & ~universe.option)


def _mean(view: View, values: FloatArray, of: BoolArray) -> FloatArray:
    """[U] means over the rows `of` [N] where `values` [N] are known; NaN where there is none."""
    rows = np.flatnonzero(of & np.isfinite(values))
    u, count = view.universe.underlying[rows], len(view.universe.underlyings)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.bincount(u, values[rows], count) / np.bincount(u, minlength=count))


def variance_premium(view: View, vol: FloatArray) -> FloatArray:
    """[U] log of implied volatility of 30 days over the forecast one."""
    return np.asarray(np.log(view.smile[:, TENOR, 0] / (vol * np.sqrt(DAYS_PER_YEAR))) / USUAL_PREMIUM)


def risk_reversal(view: View, vol: FloatArray) -> FloatArray:
    """[U] of 30 days, as a share of the volatility at the money."""
    return np.asarray(view.smile[:, TENOR, 1] / view.smile[:, TENOR, 0] / USUAL_REVERSAL)


def basis(view: View, vol: FloatArray) -> FloatArray:
    """[U] mean of the dated contracts' a year, in units of a usual carry."""
    universe = view.universe
    return _mean(view, view.micro.basis_annual, (universe.expiry_ns > 0) & ~universe.option) / USUAL_CARRY


def open_interest(view: View, vol: FloatArray) -> FloatArray:
    """[U] change of the perpetuals' against the last day's, in units of a usual one."""
    return _mean(view, view.micro.open_interest_change, _perpetual(view)) / USUAL_CHANGE


Feature = Callable[[Past, FloatArray], FloatArray]
FROM_PRICES: dict[str, Feature] = {
    **{f"return_{days:g}d": partial(scaled_return, days=days) for days in RETURN_DAYS},
    "variance_ratio": variance_ratio,
}
FROM_VIEW: dict[str, Callable[[View, FloatArray], FloatArray]] = {
    "variance_premium": variance_premium,
    "risk_reversal": risk_reversal,
    "basis": basis,
    "open_interest": open_interest,
}
NAMES = (*FROM_PRICES, "carry", *FROM_VIEW)


def values(past: Past, vol: FloatArray, view: View | None, earned: FloatArray) -> FloatArray:
    """[F, U] all features, NaN where unknown; of before the run there is no `view`. `earned` [U] 1/day is carry."""
    unknown = np.full(len(vol), np.nan)
    told = [feature(past, vol) for feature in FROM_PRICES.values()]
    told.append(earned * (DAYS_PER_YEAR / USUAL_CARRY))
    told += [unknown if view is None else feature(view, vol) for feature in FROM_VIEW.values()]
    return np.array(told)


def regressors(told: FloatArray, ever: BoolArray) -> FloatArray:
    """[U, 1 + 2F]: one, the features, and indicators of what is unknown now and was known before (`ever` [F, U])."""
    known = np.isfinite(told)
    bounded = np.clip(np.where(known, told, 0.0), -MOST, MOST)
    return np.concatenate([np.ones((1, told.shape[1])), bounded, (ever & ~known).astype(np.float64)]).T
