"""What a book would lose at once, or in a day: its rows revalued under moves of the underlyings and of volatility.

- The grid: Deribit's standard portfolio margin, ±16 % in nine steps, volatility up σ (1 + .5 (30/d)^p), as it is, and
  down σ (1 − .25 (30/d)^p), p = .30 below 30 days and .13 above. The underlyings move each to its own worst point, so
  the sum bounds every joint move within the grid.
- Stress: history's worst days, joint as they were, with volatility up.
- VaR and ES of a day: the joint moves seen (`View.day_returns`), scaled up where they were quieter than is allowed to
  be assumed; with too few of them, all underlyings together against the book, normally. Values between the points of
  the grid are interpolated, beyond it prolonged.
"""

from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from dea_daemon.domain.decisions import View
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY
from dea_daemon.guards import history
from dea_daemon.pricing.exposure import term_weight

MOVES = np.linspace(-0.16, 0.16, 9)
VOLS = np.array([0.5, 0.0, -0.25])
SEEN_LEAST = 200  # hours, before losses are judged by what was seen
NORMAL_VAR_99, NORMAL_ES_975 = 2.3263, 2.3378  # standard deviations
_LEAST_YEARS = 0.5 / 24 / DAYS_PER_YEAR  # an option's last half hour is settled by an average
_STEP = float(MOVES[1] - MOVES[0])
_GRID, _SAME = len(MOVES) * len(VOLS), slice(1, len(MOVES) * len(VOLS), len(VOLS))


class Moves(NamedTuple):
    """The grid first, then history's days: [S, U] moves of the underlyings, their ln(1 + move), and [S, 1] shocks of
    volatility."""

    move: FloatArray
    log: FloatArray
    shock: FloatArray


@lru_cache(maxsize=8)
def scenarios(underlyings: tuple[str, ...]) -> Moves:
    grid = np.repeat(np.repeat(MOVES, len(VOLS))[:, None], len(underlyings), axis=1)
    days = history.moves(underlyings)
    shocks = np.concatenate((np.tile(VOLS, len(MOVES)), np.full(len(days), VOLS[0])))
    move = np.vstack((grid, days))
    return Moves(move, np.log1p(move), shocks[:, None])


class Scenarios:
    """Some rows of one view revalued; nothing is computed before a limit asks."""

    def __init__(self, view: View, rows: IntArray) -> None:
        self.view, self.rows = view, rows

    @cached_property
    def gain(self) -> FloatArray:
        """[S, M] of a lot."""
        return gain_per_lot(self.view, self.rows)

    @cached_property
    def coins(self) -> FloatArray:
        """[S, U] what the coins held make."""
        move = scenarios(self.view.universe.underlyings).move
        return np.asarray(move * self.view.exposure_base_usd[: move.shape[1]], dtype=np.float64)

    @cached_property
    def _of(self) -> FloatArray:
        """[M, U] 1 where a row is on an underlying. What has no value spoils every sum: nothing grows by it."""
        universe = self.view.universe
        return np.eye(len(universe.underlyings))[universe.underlying[self.rows]]

    def outcomes(self, lots: IntArray, buys: IntArray | None = None, sells: IntArray | None = None) -> FloatArray:
        """[S, U] the least that `lots` [M] and any subset of working `buys` and `sells` would make in each scenario,
        USD; coins held included. NaN where something cannot be valued."""
        least = self.gain * lots
        if buys is not None and sells is not None:
            least += np.minimum(self.gain * buys, 0.0) - np.maximum(self.gain * sells, 0.0)
        return np.asarray(self.coins + least @ self._of, dtype=np.float64)


def grid_loss(outcomes: FloatArray) -> float:
    """USD ≥ 0 at the worst point of the grid, each underlying at its own."""
    return float(np.maximum(-outcomes[:_GRID].min(axis=0), 0.0).sum())


def stress_loss(outcomes: FloatArray) -> float:
    """USD ≥ 0 on the worst of history's days."""
    return float(np.maximum(-outcomes[_GRID:].sum(axis=1).min(), 0.0))


def tail_losses(outcomes: FloatArray, day_returns: FloatArray, annual_vol: float) -> tuple[float, float]:
    """(VaR 99 %, ES 97.5 %) of a day, USD ≥ 0. `day_returns` [H, U]."""
    curve = outcomes[_SAME]  # [9, U], volatility as it is
    sd = annual_vol / np.sqrt(DAYS_PER_YEAR)
    seen = day_returns.std(axis=0) if len(day_returns) >= SEEN_LEAST else np.zeros(1)
    if not (seen >= 0.1 * sd).all():  # too little was seen, or one that stood still
        return _together(curve, NORMAL_VAR_99 * sd), _together(curve, NORMAL_ES_975 * sd)
    moves = day_returns * np.maximum(sd / seen, 1.0)
    loss = np.zeros(len(moves))
    for u in range(curve.shape[1]):
        loss -= _along(curve[:, u], moves[:, u])
    if np.isnan(loss).any():
        return float("nan"), float("nan")
    loss.sort()
    worst = loss[-max(int(np.ceil(0.025 * len(loss))), 1) :]
    return max(_quantile(loss, 0.99), 0.0), max(float(worst.mean()), 0.0)


def _quantile(ascending: FloatArray, share: float) -> float:
    """Linear between the two nearest, as numpy has it, of what is sorted already."""
    below, part = divmod(share * (len(ascending) - 1), 1.0)
    low, high = ascending[int(below)], ascending[min(int(below) + 1, len(ascending) - 1)]
    return float(low + part * (high - low))


def _together(curve: FloatArray, move: float) -> float:
    """Every underlying moves by as much, each to the side that costs more."""
    least = np.minimum(_at(curve, -move), _at(curve, move))
    return float(np.maximum(-least, 0.0).sum())


def _at(curve: FloatArray, move: float) -> FloatArray:
    """The profit [U] at one `move` by the curve [9, U]; beyond its ends it goes on as steeply."""
    at = (move - MOVES[0]) / _STEP
    below = min(max(int(at // 1.0), 0), len(MOVES) - 2)
    return np.asarray(curve[below] + (curve[below + 1] - curve[below]) * (at - below), dtype=np.float64)


def _along(curve: FloatArray, moves: FloatArray) -> FloatArray:
    """Likewise of one underlying, [9], at each of `moves` [H]."""
    at = (moves - MOVES[0]) / _STEP
    below = np.clip(np.floor(at), 0, len(MOVES) - 2).astype(np.int64)
    return np.asarray(curve[below] + (curve[below + 1] - curve[below]) * (at - below), dtype=np.float64)


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
