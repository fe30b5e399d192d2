"""What a book would lose at once, or in a day: its rows revalued under moves of the underlyings and of volatility.

- The grid (`pricing.revaluation`): the underlyings move each to its own worst point, so the sum bounds every joint move
  within the grid.
- Stress: history's worst days, joint as they were, with volatility up.
- VaR and ES of a day: the joint moves seen (`View.day_returns`), scaled up where they were quieter than is allowed to
  be assumed; with too few of them, all underlyings together against the book, normally. Values between the points of
  the grid are interpolated, beyond it prolonged.
"""

from functools import cached_property

import numpy as np

from dea_daemon.domain.decisions import View
from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.pricing.revaluation import GRID, MOVES, VOLS, gain_per_lot, scenarios

SEEN_LEAST = 200  # hours, before losses are judged by what was seen
NORMAL_VAR_99, NORMAL_ES_975 = 2.3263, 2.3378  # standard deviations
_STEP = float(MOVES[1] - MOVES[0])
_SAME = slice(1, GRID, len(VOLS))


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
    return float(np.maximum(-outcomes[:GRID].min(axis=0), 0.0).sum())


def stress_loss(outcomes: FloatArray) -> float:
    """USD ≥ 0 on the worst of history's days."""
    return float(np.maximum(-outcomes[GRID:].sum(axis=1).min(), 0.0))


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
