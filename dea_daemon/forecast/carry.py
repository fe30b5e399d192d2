"""What a contract is expected to earn by being held: funding and basis, the mean of the last while.

A rate that swings says little, at any moment, of the day to come: each sample counts half as much after
`carry_half_life_h`. What is not known, or not to be believed, changes nothing.
"""

import numpy as np

from dea_daemon.domain.decisions import View
from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters

BELIEVED_BASIS, BELIEVED_FUNDING = 0.0015, 0.015  # a day: 55 % a year, and the most a venue charges
BELIEVED_APART = 0.01  # a perpetual and its index: beyond, the index itself is in doubt, and every basis with it


class CarryMemory:
    """`per_usd` [N] 1/day, NaN where nothing was ever known; `known_ns` [N] when it last was."""

    def __init__(self) -> None:
        self.last_ns = 0
        self.per_usd: FloatArray = np.zeros(0)
        self.known_ns: IntArray = np.zeros(0, dtype=np.int64)


def observe(memory: CarryMemory, view: View, params: ForecastParameters) -> bool:
    """Take what each contract earns now, if the grid's next point has come; whether it had."""
    elapsed_ns = view.now_ns - memory.last_ns
    if elapsed_ns < params.sample_every_s * NS_PER_S:
        return False
    now = carry_per_usd(view)
    new = len(now) - len(memory.per_usd)
    was, since_ns = np.append(memory.per_usd, np.full(new, np.nan)), np.append(memory.known_ns, np.zeros(new, np.int64))
    kept = 0.5 ** ((view.now_ns - since_ns) / NS_PER_S / (3_600.0 * params.carry_half_life_h))
    mean = np.where(np.isnan(was), now, was * kept + now * (1.0 - kept))
    unknown = np.isnan(now)
    memory.per_usd, memory.known_ns = np.where(unknown, was, mean), np.where(unknown, since_ns, view.now_ns)
    memory.last_ns = view.now_ns
    return True


def expected(memory: CarryMemory, rows: int) -> FloatArray:
    """[N] 1/day of the universe's `rows`; 0 where nothing was ever known."""
    known = np.append(memory.per_usd, np.zeros(rows - len(memory.per_usd)))
    return np.where(known == known, known, 0.0)


def carry_per_usd(view: View) -> FloatArray:
    """[N] 1/day, what a dollar of notional held long earns now; NaN where that is unknown, stale, or beyond belief: a
    false index makes a fortune of every basis. 0 of spot; of options their forward's slide alone."""
    universe = view.universe
    u, dated = universe.underlying, universe.expiry_ns > 0
    perpetual = ~dated & ~universe.spot
    with np.errstate(invalid="ignore", divide="ignore"):
        carry = view.factor_per_lot("carry") / view.notional_per_lot_usd
        apart = np.abs(view.mark_price / view.index_price - 1.0)
        doubted = np.bincount(
            u[perpetual & view.fresh & ~(apart <= BELIEVED_APART)], minlength=len(universe.underlyings)
        )
        most = np.where(dated, BELIEVED_BASIS, BELIEVED_FUNDING)
        believed = view.fresh & (np.abs(carry) <= most) & ~(dated & (doubted > 0)[u])
    return np.where(believed, carry, np.nan)
