"""What a lot makes if the market moves: rows revalued at the points of a grid and on history's worst days.

The grid is Deribit's standard portfolio margin: ±16 % in nine steps, volatility up σ (1 + .5 (30/d)^p), as it is, and
down σ (1 − .25 (30/d)^p), p = .30 below 30 days and .13 above. History's days are joint as they were, volatility up.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from dea_daemon.domain.decisions import View
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY
from dea_daemon.pricing import worst_days
from dea_daemon.pricing.exposure import term_weight

MOVES = np.linspace(-0.16, 0.16, 9)
VOLS = np.array([0.5, 0.0, -0.25])
GRID = len(MOVES) * len(VOLS)  # the first so many scenarios; the others are history's
_LEAST_YEARS = 0.5 / 24 / DAYS_PER_YEAR  # an option's last half hour is settled by an average


class Moves(NamedTuple):
    """The grid first, then history's days: [S, U] moves of the underlyings, their ln(1 + move), and [S, 1] shocks of
    volatility."""

    move: FloatArray
    log: FloatArray
    shock: FloatArray


@lru_cache(maxsize=8)
def scenarios(underlyings: tuple[str, ...]) -> Moves:
    grid = np.repeat(np.repeat(MOVES, len(VOLS))[:, None], len(underlyings), axis=1)
    days = worst_days.moves(underlyings)
    shocks = np.concatenate((np.tile(VOLS, len(MOVES)), np.full(len(days), VOLS[0])))
    move = np.vstack((grid, days))
    return Moves(move, np.log1p(move), shocks[:, None])


def gain_per_lot(view: View, rows: IntArray) -> FloatArray:
    """Profit [S, M] USD of one lot of each of `rows` [M], beyond what the coins of e0 make by the move themselves."""
    universe = view.universe
    u, option = universe.underlying[rows], universe.option[rows]
    moves = scenarios(universe.underlyings)
    move = moves.move[:, u]
    gain: FloatArray = move * view.delta_per_lot[rows]  # a dated future's holds what is left to settle
    if not option.any():
        return gain
    at = np.flatnonzero(option & (universe.expiry_ns[rows] > view.utc_ns))
    if len(at):
        gain[:, at] = _options(view, rows[at], u[at], moves)
    # Black deltas stand beside e0 without the options' worth in coin: its move belongs to them then.
    own = np.where(option, view.exposure_per_lot[u, rows] - view.delta_per_lot[rows], 0.0)
    return gain + move * own if own.any() else gain


def _options(view: View, rows: IntArray, u: IntArray, moves: Moves) -> FloatArray:
    """Revalued [S, M]: the forward moves with what of the index is left to settle, the volatility by the shock.

    Black 1976, undiscounted. The digits of cents that `pricing.black` keeps in the deep wings are not worth their
    time here.
    """
    universe, left, iv = view.universe, view.settling[rows], view.iv[rows]
    days = (universe.expiry_ns[rows] - view.utc_ns) / NS_PER_DAY
    root = np.sqrt(np.maximum(days / DAYS_PER_YEAR, _LEAST_YEARS))
    forward, strike, put = view.forward_price[rows], universe.strike[rows], ~universe.call[rows]
    with np.errstate(invalid="ignore", divide="ignore"):
        level = np.log(forward / strike)
        now = _black(forward, strike, level, iv * root, put)
        spot_move = moves.move[:, u]
        whole = bool((left == 1.0).all())
        scale = 1.0 + spot_move if whole else 1.0 + spot_move * left
        log_scale = moves.log[:, u] if whole else np.log(scale)
        sd = np.maximum(iv * root * (1.0 + moves.shock * term_weight(days)), 0.01 * root)
        then = _black(forward * scale, strike, level + log_scale, sd, put)
    coin = universe.coin_quoted[rows]
    if not coin.any():
        return np.asarray(universe.lot_value[rows] * (then - now), dtype=np.float64)
    # Worth spot·V/F in coin: both move.
    worth = np.where(coin, view.underlying_price[u] / forward, 1.0) * universe.lot_value[rows]
    drift = (1.0 + spot_move) / scale
    return np.asarray(worth * (np.where(coin, drift * then, then) - np.where(coin, (1.0 + spot_move) * now, now)))


def _black(forward: FloatArray, strike: FloatArray, level: FloatArray, sd: FloatArray, put: BoolArray) -> FloatArray:
    """Value, USD; `level` is ln(forward/strike), `sd` volatility times root of time."""
    d1 = level / sd + 0.5 * sd
    call = forward * ndtr(d1) - strike * ndtr(d1 - sd)
    return np.asarray(call - put * (forward - strike), dtype=np.float64)
