"""What a book would lose at once, or in a day: its rows revalued under moves of the underlyings and of volatility.

- The grid: Deribit's standard portfolio margin, ±16 % in nine steps, volatility up σ (1 + .5 (30/d)^p), as it is, and
  down σ (1 − .25 (30/d)^p), p = .30 below 30 days and .13 above. The underlyings move each to its own worst point, so
  the sum bounds every joint move within the grid.
- Stress: history's worst days, joint as they were, with volatility up.
- VaR and ES of a day: the joint moves seen (`View.day_returns`), scaled up where they were quieter than is allowed to
  be assumed; with too few of them, all underlyings together against the book, normally. Values between the points of
  the grid are interpolated, beyond it prolonged.
"""

from functools import lru_cache

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
_GRID, _SAME = len(MOVES) * len(VOLS), slice(1, len(MOVES) * len(VOLS), len(VOLS))


@lru_cache(maxsize=8)
def scenarios(underlyings: tuple[str, ...]) -> tuple[FloatArray, FloatArray]:
    """(moves [S, U], shocks of volatility [S, 1]): the grid first, then history's days."""
    grid = np.repeat(np.repeat(MOVES, len(VOLS))[:, None], len(underlyings), axis=1)
    days = history.moves(underlyings)
    shocks = np.concatenate((np.tile(VOLS, len(MOVES)), np.full(len(days), VOLS[0])))
    return np.vstack((grid, days)), shocks[:, None]


class Scenarios:
    """One view revalued, once for the rows that matter: those held or working, and others as they are asked for."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._move, self._shock = scenarios(view.universe.underlyings)
        self._known: BoolArray | None = None  # nothing is laid out before a limit asks
        self._gain = np.zeros((len(self._move), 0))

    def outcomes(self, rows: IntArray, lots: IntArray, buys: IntArray, sells: IntArray) -> FloatArray:
        """[S, U] the least that `lots` [M] of `rows` and any subset of working `buys` and `sells` would make in each
        scenario, USD; coins held included. NaN where something cannot be valued."""
        gain = self._of(rows)
        least = gain * lots
        if buys.any() or sells.any():
            least += np.minimum(gain * buys, 0.0) - np.maximum(gain * sells, 0.0)
        out = self._move * self.view.exposure_base_usd[: self._move.shape[1]]
        of = self.view.universe.underlying[rows]
        for u in range(out.shape[1]):
            out[:, u] += least[:, of == u].sum(axis=1)
        return out

    def _of(self, rows: IntArray) -> FloatArray:
        n = len(self.view.universe)
        if self._known is None:
            self._known, self._gain = np.zeros(n, dtype=np.bool_), np.zeros((len(self._move), n))
        new = rows[~self._known[rows]]
        if len(new):
            self._gain[:, new] = gain_per_lot(self.view, new)
            self._known[new] = True
        return self._gain[:, rows]


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
    if len(day_returns) < SEEN_LEAST:
        return _together(curve, NORMAL_VAR_99 * sd), _together(curve, NORMAL_ES_975 * sd)
    quiet = np.maximum(sd / np.maximum(day_returns.std(axis=0), 1e-9), 1.0)
    loss = np.zeros(len(day_returns))
    for u in range(curve.shape[1]):
        loss -= _along(curve[:, u], day_returns[:, u] * quiet[u])
    if np.isnan(loss).any():
        return float("nan"), float("nan")
    worst = np.sort(loss)[-max(int(np.ceil(0.025 * len(loss))), 1) :]
    return max(float(np.quantile(loss, 0.99)), 0.0), max(float(worst.mean()), 0.0)


def _together(curve: FloatArray, move: float) -> float:
    """Every underlying moves by as much, each to the side that costs more."""
    least = np.minimum(_along(curve, -move), _along(curve, move))
    return float(np.maximum(-least, 0.0).sum())


def _along(curve: FloatArray, move: FloatArray | float) -> FloatArray:
    """The profit at any `move` by the curve [9, …]; beyond its ends it goes on as steeply."""
    at = (np.asarray(move) - MOVES[0]) / (MOVES[1] - MOVES[0])
    below = np.clip(np.floor(at), 0, len(MOVES) - 2).astype(np.int64)
    return np.asarray(curve[below] + (curve[below + 1] - curve[below]) * (at - below), dtype=np.float64)


def gain_per_lot(view: View, rows: IntArray) -> FloatArray:
    """Profit [S, M] USD of one lot of each of `rows` [M], beyond what the coins of e0 make by the move themselves."""
    universe = view.universe
    moves, shock = scenarios(universe.underlyings)
    move = moves[:, universe.underlying[rows]]
    gain: FloatArray = move * view.delta_per_lot[rows]  # a dated future's holds what is left to settle
    option = universe.option[rows]
    if not option.any():
        return gain
    at = np.flatnonzero(option & (universe.expiry_ns[rows] > view.utc_ns))
    if len(at):
        gain[:, at] = _options(view, rows[at], move[:, at], shock)
    # Black deltas stand beside e0 without the options' worth in coin: its move belongs to them then.
    own = view.exposure_per_lot[universe.underlying[rows], rows] - view.delta_per_lot[rows]
    return np.asarray(gain + move * np.where(option, own, 0.0), dtype=np.float64)


def _options(view: View, rows: IntArray, spot_move: FloatArray, shock: FloatArray) -> FloatArray:
    """Revalued [S, M]: the forward moves with what of the index is left to settle, the volatility by the shock."""
    universe, move = view.universe, spot_move * view.settling[rows]
    days = (universe.expiry_ns[rows] - view.utc_ns) / NS_PER_DAY
    years = np.maximum(days / DAYS_PER_YEAR, _LEAST_YEARS)
    forward, strike, call = view.forward_price[rows], universe.strike[rows], universe.call[rows]
    shocked = view.iv[rows] * (1.0 + shock * term_weight(days))
    root = np.sqrt(years)
    now = _black(forward, strike, view.iv[rows] * root, call)
    then = _black(forward * (1.0 + move), strike, np.maximum(shocked, 0.01) * root, call)
    spot = view.underlying_price[universe.underlying[rows]]
    in_coin = spot * (1.0 + spot_move) * (then / (forward * (1.0 + move)) - now / forward)
    gain = np.where(universe.coin_quoted[rows], in_coin, then - now)
    return np.asarray(universe.lot_value[rows] * gain, dtype=np.float64)


def _black(forward: FloatArray, strike: FloatArray, sd: FloatArray, call: BoolArray) -> FloatArray:
    """Black 1976, undiscounted; `sd` is volatility times root of time. Digits of cents, which `pricing.black` keeps
    in the deep wings, are not worth their time here."""
    with np.errstate(invalid="ignore", divide="ignore"):
        d1 = np.log(forward / strike) / sd + 0.5 * sd
    value = forward * ndtr(d1) - strike * ndtr(d1 - sd)
    return np.asarray(np.where(call, value, value - forward + strike), dtype=np.float64)
