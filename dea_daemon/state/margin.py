"""How near each margin pool is to being liquidated."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.events import PoolReport
from dea_daemon.domain.instruments import FloatArray, IntArray, Universe


class Margin(NamedTuple):
    """worst: the largest maintenance margin over equity of any pool; row [N]: of the pool a row is margined in.
    distance: the smallest move, as a fraction, that would liquidate a pool; infinite where nothing can."""

    worst: float
    row: FloatArray
    distance: float


def use(pool: PoolReport) -> float:
    """Maintenance margin over equity: 0 without positions, infinite without equity, NaN where it is not said."""
    if pool.maintenance_margin == 0.0:
        return 0.0
    if pool.equity != pool.equity:
        return float("nan")
    return pool.maintenance_margin / pool.equity if pool.equity > 0.0 else float("inf")


def margin(
    universe: Universe,
    pools: dict[tuple[int, str], PoolReport],
    price: Sequence[float],
    lots: IntArray,
    delta_per_lot: FloatArray,
    gamma_per_lot: FloatArray,
) -> Margin:
    """`price` USD of each pool of `universe.pools`; delta [N] USD per lot, gamma [N] USD of delta per lot and 1 %.

    In a pool every underlying is taken to move against it at once; losses are those of delta and of short gamma.
    The venue's margin is taken to stay as it is, and volatility too: at the edge it is nearer than this says.
    """
    used = np.array([use(pools[key]) if key in pools else 0.0 for key in universe.pools])
    others = [use(pool) for key, pool in pools.items() if key not in universe.pools]
    worst = float(np.max([0.0, *used.tolist(), *others]))
    distance = float("inf")
    held = np.flatnonzero(lots)
    for p, key in enumerate(universe.pools):
        rows = held[universe.pool[held] == p]
        if len(rows) and key in pools:
            coin = key[1] in universe.underlyings
            at = _distance(universe, pools[key], price[p], rows, lots, delta_per_lot, gamma_per_lot, coin)
            distance = float(np.minimum(distance, at))  # NaN stays
    return Margin(worst, used[universe.pool], distance)


def _distance(
    universe: Universe,
    pool: PoolReport,
    price: float,
    rows: IntArray,
    lots: IntArray,
    delta_per_lot: FloatArray,
    gamma_per_lot: FloatArray,
    coin: bool,
) -> float:
    of, n = universe.underlying[rows], len(universe.underlyings)
    delta = np.bincount(of, delta_per_lot[rows] * lots[rows], n)
    gamma = np.bincount(of, 100.0 * gamma_per_lot[rows] * lots[rows], n)
    slope, bend = float(np.abs(delta).sum()), float(np.maximum(-gamma, 0.0).sum())
    room = (pool.equity - pool.maintenance_margin) * price
    if not room > 0.0:
        return 0.0 if room == room else room
    if slope == 0.0 and bend == 0.0:
        return float("inf")
    move = 2.0 * room / (slope + np.sqrt(slope * slope + 2.0 * bend * room))  # slope·m + ½ bend·m² = room
    # A coin's margin is in coin: as it falls, a long position loses more and more of it.
    return float(move / (1.0 + move) if coin and delta.sum() > 0.0 else move)
