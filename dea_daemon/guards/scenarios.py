"""What a book would lose at once: revalued on a grid of moves of each underlying and of its volatility.

The underlyings move each to its own worst point, so the sum bounds every joint move within the grid.
Source of the grid: Deribit, standard portfolio margin: ±16 % in nine steps, volatility up σ (1 + .5 (30/d)^p), as it
is, and down σ (1 − .25 (30/d)^p), p = .30 below 30 days and .13 above.
"""

import numpy as np

from dea_daemon.domain.decisions import View
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY
from dea_daemon.pricing import black
from dea_daemon.pricing.exposure import term_weight

MOVES = np.linspace(-0.16, 0.16, 9)
VOLS = np.array([0.5, 0.0, -0.25])
_MOVE = np.repeat(MOVES, len(VOLS))  # [S]
_VOL = np.tile(VOLS, len(MOVES))
_LEAST_YEARS = 0.5 / 24 / DAYS_PER_YEAR  # an option's last half hour is settled by an average


class Grid:
    """One view revalued, once for the rows that matter: those held or working, and others as they are asked for."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._known: BoolArray | None = None  # nothing is laid out before a limit asks
        self._gain = np.zeros((len(_MOVE), 0))

    def worst_loss_usd(self, lots: IntArray, buys: IntArray | None = None, sells: IntArray | None = None) -> float:
        """The most that `lots` [N] and any subset of working `buys` and `sells` [N] would lose, USD ≥ 0; NaN where
        what is held or working cannot be valued."""
        universe, nothing = self._view.universe, np.zeros_like(lots)
        buys, sells = nothing if buys is None else buys, nothing if sells is None else sells
        rows = np.flatnonzero((lots != 0) | (buys != 0) | (sells != 0))
        gain = self._of(rows)
        outcome = gain * lots[rows]
        if buys.any() or sells.any():
            outcome += np.minimum(gain * buys[rows], 0.0) + np.minimum(-gain * sells[rows], 0.0)
        total = 0.0
        for u in range(len(universe.underlyings)):
            of = universe.underlying[rows] == u
            worst = (_MOVE * self._view.exposure_base_usd[u] + outcome[:, of].sum(axis=1)).min()
            total += float(np.maximum(-worst, 0.0))
        return total

    def _of(self, rows: IntArray) -> FloatArray:
        if self._known is None:
            self._known = np.zeros(len(self._view.universe), dtype=np.bool_)
            self._gain = np.zeros((len(_MOVE), len(self._view.universe)))
        new = rows[~self._known[rows]]
        if len(new):
            self._gain[:, new] = gain_per_lot(self._view, new)
            self._known[new] = True
        return self._gain[:, rows]


def gain_per_lot(view: View, rows: IntArray) -> FloatArray:
    """Profit [S, M] USD of one lot of each of `rows` [M], beyond what the coins of e0 make by the move themselves."""
    universe = view.universe
    gain: FloatArray = _MOVE[:, None] * view.delta_per_lot[rows]  # a dated future's holds what is left to settle
    at = np.flatnonzero(universe.option[rows] & (universe.expiry_ns[rows] > view.utc_ns))
    if len(at):
        gain[:, at] = _options(view, rows[at])
    # Black deltas stand beside e0 without the options' worth in coin: its move belongs to them then.
    own = view.exposure_per_lot[universe.underlying[rows], rows] - view.delta_per_lot[rows]
    return np.asarray(gain + _MOVE[:, None] * np.where(universe.option[rows], own, 0.0), dtype=np.float64)


def _options(view: View, rows: IntArray) -> FloatArray:
    """Revalued [S, M]: the forward moves with what of the index is left to settle, the volatility by the grid."""
    universe, move = view.universe, _MOVE[:, None] * view.settling[rows]
    days = (universe.expiry_ns[rows] - view.utc_ns) / NS_PER_DAY
    years = np.maximum(days / DAYS_PER_YEAR, _LEAST_YEARS)
    forward, strike, call = view.forward_price[rows], universe.strike[rows], universe.call[rows]
    shocked = view.iv[rows] * (1.0 + _VOL[:, None] * term_weight(days))
    now = black.price(forward, strike, years, view.iv[rows], call)
    then = black.price(forward * (1.0 + move), strike, years, np.maximum(shocked, 0.01), call)
    spot = view.underlying_price[universe.underlying[rows]]
    in_coin = spot * (1.0 + _MOVE[:, None]) * (then / (forward * (1.0 + move)) - now / forward)
    gain = np.where(universe.coin_quoted[rows], in_coin, then - now)
    return np.asarray(universe.lot_value[rows] * gain, dtype=np.float64)
