"""The venue's own view of options: a smile, and Black-76 on the forward of the expiry.

Nothing here is shared with the daemon, so that an error of either shows. Values are USD per coin of the
underlying, undiscounted; volatilities are annual fractions; Greeks as Deribit publishes them: plain Black.
Source: Black (1976); the average of the settlement window as a sum of normal increments.
"""

from dataclasses import dataclass
from math import erfc, log, nan, sqrt

import numpy as np
import numpy.typing as npt

from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.simvenue.process import Reversion, Rows, generator
from dea_daemon.simvenue.scenarios import Scenario

Floats = npt.NDArray[np.float64]

_ROOT_HALF = sqrt(0.5)
_ROOT_TAU = sqrt(2.0 * np.pi)
_Z_MAX = 5.0  # standard deviations of log moneyness beyond which the smile is flat
_IV_MIN, _IV_MAX = 0.05, 3.0
_DAY = 1.0 / DAYS_PER_YEAR
_WEEK = 7.0 * _DAY
_BISECTIONS = 60
_SD_MAX = 20.0


def normal_cdf(x: Floats) -> Floats:
    """Exact to rounding in both tails."""
    return np.array([0.5 * erfc(v) for v in (x * -_ROOT_HALF).tolist()])


@dataclass(frozen=True, slots=True)
class Priced:
    """Columns [N]. value USD; delta by the forward; gamma per USD; vega USD per vol point, theta USD per day."""

    value: Floats
    delta: Floats
    gamma: Floats
    vega: Floats
    theta: Floats


def price(sign: Floats, forward: Floats, strike: Floats, sd: Floats, tau_years: Floats) -> Priced:
    """Black-76 with standard deviation `sd` of the log forward over a life of `tau_years`; sign 1 calls, -1 puts."""
    d1 = np.log(forward / strike) / sd + 0.5 * sd
    both = normal_cdf(np.concatenate((sign * d1, sign * (d1 - sd))))
    first, second = both[: len(d1)], both[len(d1) :]
    density = np.exp(-0.5 * d1 * d1) / _ROOT_TAU
    per_sd = forward * density
    return Priced(
        value=np.maximum(sign * (forward * first - strike * second), 0.0),
        delta=sign * first,
        gamma=density / (forward * sd),
        vega=per_sd * np.sqrt(tau_years) / 100.0,
        theta=-per_sd * sd / (2.0 * tau_years) / DAYS_PER_YEAR,
    )


def implied_vol(value: float, sign: int, forward: float, strike: float, tau_years: float) -> float:
    """Annual fraction at which Black-76 is worth `value` USD; NaN at or beyond the bounds of any volatility."""
    out = value - max(sign * (forward - strike), 0.0)  # by parity, of the one out of the money
    if not (tau_years > 0.0 and 0.0 < out < min(forward, strike)):
        return nan
    moneyness, put = log(forward / strike), -1.0 if forward >= strike else 1.0
    sd, low, high = _first_guess(out, forward, strike), 0.0, _SD_MAX
    for _ in range(_BISECTIONS):
        d1 = moneyness / sd + 0.5 * sd
        worth = 0.5 * put * (forward * erfc(-put * d1 * _ROOT_HALF) - strike * erfc(-put * (d1 - sd) * _ROOT_HALF))
        low, high = (sd, high) if worth < out else (low, sd)
        slope = forward * np.exp(-0.5 * d1 * d1).item() / _ROOT_TAU
        step = (out - worth) / slope if slope > 0.0 else high
        if abs(step) < 1e-10 * sd:
            break
        sd = sd + step if low < sd + step < high else 0.5 * (low + high)
    return sd / sqrt(tau_years)


def _first_guess(out: float, forward: float, strike: float) -> float:
    """Where value is steepest in sd, from which Newton's steps never overshoot twice."""
    return max(sqrt(2.0 * abs(log(forward / strike))), 2.5 * out / min(forward, strike), 1e-6)


def averaged(life_s: float, window_s: float) -> float:
    """Seconds of variance in the average of the last `window_s` of a life, `life_s` before its end.

    Before the window the index moves freely and then a third of it counts; inside, what is left has the weight
    life/window and a third of its own variance.
    """
    if life_s >= window_s:
        return life_s - 2.0 * window_s / 3.0
    return life_s * (life_s / window_s) ** 2 / 3.0


class Smile:
    """One coin's volatilities: a level and a skew that revert, around the coin's own variance.

    σ(z) = atm · (1 + skew z + convexity (√(1 + z²) − 1)), z = ln(K/F) / (atm √max(τ, a day)). Near expiries carry
    the volatility of now, far ones its long run.
    """

    def __init__(self, scenario: Scenario, coin: str, seed: int, number: int) -> None:
        step_s = scenario.option_step_ms / 1_000
        self._s = scenario
        self._variance = scenario.coins[coin].annual_vol ** 2
        self._reversion_s = scenario.vol_half_life_s / log(2.0)
        self._level = Reversion(scenario.option_level_sd, scenario.option_level_half_life_s, step_s)
        self._skew = Reversion(scenario.option_skew_sd, scenario.option_level_half_life_s, step_s)
        self._normals = Rows(generator(seed, 8, number).standard_normal, 2)

    def step(self) -> None:
        """One step of `option_step_ms`."""
        z_level, z_skew = self._normals.next()
        self._level.step(z_level)
        self._skew.step(z_skew)

    def vols(self, strike: Floats, forward: Floats, tau_years: Floats, heat: float) -> Floats:
        """Annual volatilities [N]; heat is the coin's volatility over its own mean."""
        s, life = self._s, np.maximum(tau_years, _DAY)
        aged = tau_years * DAYS_PER_YEAR * 86_400.0 / self._reversion_s
        variance = self._variance * (1.0 + (heat * heat - 1.0) * -np.expm1(-aged) / aged)
        moved = self._level.x * np.minimum(_WEEK / life, 1.0) ** 0.3
        atm = np.clip(np.sqrt(variance) * s.option_vol_premium * np.exp(moved), _IV_MIN, _IV_MAX)
        z = np.clip(np.log(strike / forward) / (atm * np.sqrt(life)), -_Z_MAX, _Z_MAX)
        skew = s.option_skew + self._skew.x
        vols: Floats = atm * (1.0 + skew * z + s.option_convexity * (np.sqrt(1.0 + z * z) - 1.0))
        return np.clip(vols, _IV_MIN, _IV_MAX, out=vols)
