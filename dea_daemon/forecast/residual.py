"""What a contract's price does beyond its underlying's: the risk that is left between a perpetual and a future.

Squared changes of log(mark / index), per day, weighted as slowly as correlations are. The grid is HAR's: on a finer one
the noise of two prices that were not taken together would pass for risk. A basis that returns is so counted in full,
which errs towards caution.
"""

import numpy as np

from dea_daemon.domain.decisions import View
from dea_daemon.domain.instruments import FloatArray, Universe
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters

FLOOR_SHARE, PRIOR_SHARE = 0.01, 0.02  # of the underlying's variance


class ResidualMemory:
    """`log_ratio` [N] at the last grid point; `squares`, `days` [N]: its weighted squared changes, and their time."""

    def __init__(self) -> None:
        self.last_ns = 0
        self.log_ratio: FloatArray = np.zeros(0)
        self.squares: FloatArray = np.zeros(0)
        self.days: FloatArray = np.zeros(0)


def observe(memory: ResidualMemory, view: View, variance: FloatArray, params: ForecastParameters) -> bool:
    """Take a change of every contract if the grid's next point has come; whether it had.

    `variance` [U] 1/day, of the underlyings. A price that is not fresh makes no change, nor does a gap beyond a day.
    """
    elapsed_ns = view.now_ns - memory.last_ns
    if elapsed_ns < params.har_every_s * NS_PER_S:
        return False
    universe = view.universe
    _grow(memory, len(universe))
    tracked = view.fresh & ~universe.option & ~universe.spot
    usd = np.where(tracked & (view.mark_price > 0.0), view.mark_price * view.peg, np.nan)
    log_ratio = np.log(usd / view.underlying_price[universe.underlying])
    days = elapsed_ns / NS_PER_DAY
    change = log_ratio - memory.log_ratio
    known = np.isfinite(change) & (days <= 1.0)
    most = params.jump_clip**2 * residual_variance(memory, universe, variance, params) * days
    keep = 0.5 ** (elapsed_ns / NS_PER_S / params.correlation_half_life_s)
    memory.squares = memory.squares * keep + np.minimum(np.where(known, change, 0.0) ** 2, most)
    memory.days = memory.days * keep + known * days
    memory.last_ns, memory.log_ratio = view.now_ns, log_ratio
    return True


def _grow(memory: ResidualMemory, rows: int) -> None:
    """Contracts listed later join at the end."""
    new = rows - len(memory.days)
    if new > 0:
        memory.log_ratio = np.append(memory.log_ratio, np.full(new, np.nan))
        memory.squares = np.append(memory.squares, np.zeros(new))
        memory.days = np.append(memory.days, np.zeros(new))


def residual_variance(
    memory: ResidualMemory, universe: Universe, variance: FloatArray, params: ForecastParameters
) -> FloatArray:
    """[N] 1/day, shrunk to its prior and floored, as shares of the underlying's `variance` [U]; 0 of options, spot."""
    of_underlying = variance[universe.underlying]
    squares, days = np.zeros(len(universe)), np.zeros(len(universe))
    squares[: len(memory.days)], days[: len(memory.days)] = memory.squares, memory.days
    prior_days = params.prior_samples * params.har_every_s * NS_PER_S / NS_PER_DAY
    found = (squares + PRIOR_SHARE * of_underlying * prior_days) / (days + prior_days)
    return np.where(universe.option | universe.spot, 0.0, np.maximum(found, FLOOR_SHARE * of_underlying))
