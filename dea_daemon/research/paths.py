"""Paths that prices might take: Heston's and Bates's, history's hours drawn anew, and a course with noise around it.

All are shares of the price at the start, [P, T + 1, U] with 1 first, and the same for the same seed.
"""

from typing import NamedTuple

import numpy as np

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.research import bootstrap

HOURS_PER_YEAR = 24.0 * DAYS_PER_YEAR
FUNDING_SD, FUNDING_KEPT, FUNDING_HOURS = 3e-4, 0.8, 8
"""Of Binance's BTC and ETH perpetuals, 2020 to 2023: deviations of .00026 and .00034, .79 and .78 from one rate to the
next. Their means, .00014 and .00017, are left out."""


class Heston(NamedTuple):
    """dS/S = μ dt + √v dW + dJ, dv = κ (θ − v) dt + ξ √v dZ, corr(dW, dZ) = ρ; a year is the unit of time.

    With `jumps` > 0 a year it is Bates's: ln(1 + J) normal with `jump_mean` and `jump_sd`, and the drift is lowered by
    what jumps add, so that E[S] = e^{μt} in both. Sources: Heston 1993; Bates 1996.
    """

    v0: float
    theta: float
    kappa: float = 5.0
    xi: float = 1.5
    rho: float = -0.3
    mu: float = 0.0
    jumps: float = 0.0
    jump_mean: float = 0.0
    jump_sd: float = 0.0

    @property
    def drift_of_jumps(self) -> float:
        """λ E[J], what jumps add to the drift."""
        return float(self.jumps * np.expm1(self.jump_mean + 0.5 * self.jump_sd**2))


def heston(
    models: tuple[Heston, ...], years: float, steps: int, paths: int, *, seed: int, correlation: float = 0.8
) -> FloatArray:
    """Shares [paths, steps + 1, U], an underlying a model. Prices' and variances' noises each have `correlation` among
    the underlyings, and jumps come to all at once, by the first model's rate.

    Full truncation: v⁺ wherever a root or a drift wants v. Source: Lord, Koekkoek and van Dijk 2010.
    """
    draws, dt, u = np.random.default_rng(seed), years / steps, len(models)
    each = {name: np.array([getattr(m, name) for m in models]) for name in Heston._fields}
    root = np.linalg.cholesky(np.full((u, u), correlation) + (1.0 - correlation) * np.eye(u))
    v = np.tile(each["v0"], (paths, 1))
    log = np.zeros((paths, steps + 1, u))
    lowered = each["mu"] - np.array([m.drift_of_jumps for m in models])
    for t in range(steps):
        price = draws.standard_normal((paths, u)) @ root.T
        own = draws.standard_normal((paths, u)) @ root.T
        noise = each["rho"] * price + np.sqrt(1.0 - each["rho"] ** 2) * own
        count = draws.poisson(each["jumps"][0] * dt, (paths, 1))
        jump = count * each["jump_mean"] + np.sqrt(count) * each["jump_sd"] * draws.standard_normal((paths, u))
        held = np.maximum(v, 0.0)
        log[:, t + 1] = log[:, t] + (lowered - 0.5 * held) * dt + np.sqrt(held * dt) * price + jump
        v = v + each["kappa"] * (each["theta"] - held) * dt + each["xi"] * np.sqrt(held * dt) * noise
    return np.exp(log)


def characteristic(model: Heston, years: float, u: FloatArray) -> np.ndarray[tuple[int, ...], np.dtype[np.complex128]]:
    """E[exp(iu ln(S_t/S_0))] at `u` [...]. Source: Heston 1993 in the form without the branch cut, Albrecher et al.
    2007; jumps as in Bates 1996."""
    iu = 1j * np.asarray(u, dtype=np.float64)
    m = model
    b = m.kappa - m.rho * m.xi * iu
    d = np.sqrt(b * b + m.xi**2 * (iu + u**2))
    g = (b - d) / (b + d)
    decay = np.exp(-d * years)
    level = m.kappa * m.theta / m.xi**2 * ((b - d) * years - 2.0 * np.log((1.0 - g * decay) / (1.0 - g)))
    start = m.v0 / m.xi**2 * (b - d) * (1.0 - decay) / (1.0 - g * decay)
    jumps = m.jumps * years * np.expm1(m.jump_mean * iu - 0.5 * m.jump_sd**2 * u**2)
    return np.asarray(np.exp(iu * (m.mu - m.drift_of_jumps) * years + level + start + jumps))


def mean_variance(model: Heston, years: float) -> float:
    """E[v_t] = θ + (v0 − θ) e^{−κt}."""
    return float(model.theta + (model.v0 - model.theta) * np.exp(-model.kappa * years))


def drawn(returns: FloatArray, length: int, paths: int, *, seed: int) -> FloatArray:
    """Shares [paths, length + 1, U] from log returns [T, U] by the stationary bootstrap, all underlyings by one index:
    what happened together stays together. Source: Politis and Romano 1994; blocks as `bootstrap.common_block` has them.

    Raises DataError where there are fewer returns than a path is long, or one is no number.
    """
    if len(returns) < max(length, bootstrap.LEAST) or not np.isfinite(returns).all():
        raise DataError(f"the bootstrap wants {max(length, bootstrap.LEAST)} returns or more, all of them numbers")
    block = bootstrap.common_block(returns.T)
    index = bootstrap.indices(len(returns), block, paths, np.random.default_rng(seed))[:, :length]
    log = np.concatenate((np.zeros((paths, 1, returns.shape[1])), np.cumsum(returns[index], axis=1)), axis=1)
    return np.exp(log)


def along(
    hours: FloatArray, shares: FloatArray, step_hours: float, annual_vol: float, *, seed: int, correlation: float = 0.8
) -> FloatArray:
    """A course's shares [K, U] at `hours` [K], on a grid [T + 1, U]: ln linear between its points, with a Brownian
    bridge of `annual_vol` on top, which is nothing at each of them."""
    grid = np.arange(round(float(hours[-1]) / step_hours) + 1) * step_hours
    u = shares.shape[1]
    line = np.stack([np.interp(grid, hours, np.log(column)) for column in shares.T], axis=1)
    root = np.linalg.cholesky(np.full((u, u), correlation) + (1.0 - correlation) * np.eye(u))
    steps = np.random.default_rng(seed).standard_normal((len(grid) - 1, u)) @ root.T
    walk = (
        np.concatenate((np.zeros((1, u)), np.cumsum(steps, axis=0))) * annual_vol * np.sqrt(step_hours / HOURS_PER_YEAR)
    )
    pinned = np.stack([np.interp(grid, hours, np.interp(hours, grid, column)) for column in walk.T], axis=1)
    return np.asarray(np.exp(line + walk - pinned))


def funding(hours: int, underlyings: int, *, seed: int) -> FloatArray:
    """[hours, U] rates that longs pay at each hour's end: zero but each eighth, there an autoregression around zero,
    an underlying its own, whatever prices do."""
    count = hours // FUNDING_HOURS
    noise = np.random.default_rng((seed, 1)).standard_normal((count, underlyings)) * FUNDING_SD
    rate = np.zeros(underlyings)
    out = np.zeros((hours, underlyings))
    for n in range(count):
        rate = FUNDING_KEPT * rate + np.sqrt(1.0 - FUNDING_KEPT**2) * noise[n] if n else noise[n]
        out[(n + 1) * FUNDING_HOURS - 1] = rate
    return out
