"""How near each margin pool is to being liquidated."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.events import PoolReport
from dea_daemon.domain.instruments import FloatArray, IntArray, Universe
from dea_daemon.pricing import black
from dea_daemon.state.options import Valued

_MOVES = np.linspace(0.01, 0.99, 99)


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
    valued: Valued | None,
) -> Margin:
    """`price` USD of each pool of `universe.pools`; `delta_per_lot` [N] USD. Without `valued` nobody asked for the
    distance: it is infinite.

    In a pool every underlying is taken to move against it at once; options are valued anew along the way. The
    venue's margin is taken to stay as it is, and volatility too: at the edge it is nearer than this says.
    """
    used = [use(pools[key]) if key in pools else 0.0 for key in universe.pools]
    others = [use(pool) for key, pool in pools.items() if key not in universe.pools]
    distance = float("inf")
    for p, key in enumerate(universe.pools):
        if valued is None and key in pools:
            continue
        rows = ((lots != 0) & (universe.pool == p)).nonzero()[0]
        if not len(rows):
            continue
        if key not in pools:  # held there, and nobody said what backs it
            used[p] = distance = float("nan")
            continue
        if valued is not None:
            coin = key[1] in universe.underlyings
            backed = _Backed(universe, rows, lots, delta_per_lot, pools[key], price[p], coin)
            distance = float(np.minimum(distance, _distance(backed, valued)))  # NaN stays
    every = (0.0, *used, *others)
    worst = float("nan") if any(each != each for each in every) else max(every)
    return Margin(worst, np.array(used)[universe.pool], distance)


class _Backed(NamedTuple):
    """What is held in one pool."""

    universe: Universe
    rows: IntArray
    lots: IntArray
    delta_per_lot: FloatArray
    pool: PoolReport
    price: float
    coin: bool


def _distance(b: _Backed, valued: Valued) -> float:
    room = (b.pool.equity - b.pool.maintenance_margin) * b.price
    if not room > 0.0:
        return 0.0 if room == room else room
    if b.universe.option[b.rows].any():
        return _by_revaluation(b, valued, room)
    slope = np.bincount(b.universe.underlying[b.rows], b.delta_per_lot[b.rows] * b.lots[b.rows])
    steep = float(np.abs(slope).sum())
    if steep == 0.0:
        return float("inf")
    # A coin's margin is in coin: as it falls, a long position loses more and more of it.
    return float(room / (steep + room) if b.coin and slope.sum() > 0.0 else room / steep)


def _by_revaluation(b: _Backed, valued: Valued, room: float) -> float:
    """The first of _MOVES, and a part of the step before it, at which the pool's losses eat its room; infinite
    beyond the last."""
    loss = np.zeros(len(_MOVES))
    for u in np.unique(b.universe.underlying[b.rows]):
        rows = b.rows[b.universe.underlying[b.rows] == u]
        loss -= np.minimum(_gain(b, valued, rows, -_MOVES), _gain(b, valued, rows, _MOVES))
    if np.isnan(loss).any():
        return float("nan")
    fatal = np.flatnonzero(loss >= room)
    if not len(fatal):
        return float("inf")
    k = int(fatal[0])
    low, before = (float(_MOVES[k - 1]), float(loss[k - 1])) if k else (0.0, 0.0)
    return low + (float(_MOVES[k]) - low) * (room - before) / (float(loss[k]) - before)


def _gain(b: _Backed, valued: Valued, rows: IntArray, move: FloatArray) -> FloatArray:
    """[G] what `rows` of one underlying make in the pool's money at its price now, USD, at each `move` [G]."""
    universe, option = b.universe, b.universe.option[rows]
    others, options = rows[~option], rows[option & (valued.weight[rows] > 0.0)]  # what has ended is fixed
    linear = float((b.delta_per_lot[others] * b.lots[others]).sum())
    made = linear * (move / (1.0 + move) if b.coin else move)
    if not len(options):
        return made
    scale = 1.0 + move[:, None]
    forward, strike = valued.forward[options], universe.strike[options]
    tau = valued.tau_years[options]
    now = black.price(forward, strike, tau, valued.iv[options], universe.call[options])
    then = black.price(forward * scale, strike, tau, valued.iv[options], universe.call[options])
    each = (then / scale - now) * (b.price / forward) if b.coin else then - now
    return np.asarray(made + each @ (b.lots[options] * universe.lot_value[options]), dtype=np.float64)
