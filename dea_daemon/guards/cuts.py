"""Cuts: each takes a wanted book and returns one inside its limit, rounded inward to whole lots.

They undo the change from the present that pushes into the limit first; what is then still over is a breach
made by prices, and positions themselves are shrunk. Where a limit is not known (so many times an equity that is
not) positions may only shrink.
"""

import numpy as np

from dea_daemon.domain.decisions import Licence, View
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.guards.limits import Caps


def by_licence(view: View, lots: IntArray, licence: IntArray) -> IntArray:
    """Rows keep only the kind of change their licence allows."""
    held = view.position_lots
    shrunk = _shrunk(view, lots)
    out = np.where(licence == Licence.NOTHING, held, np.where(licence == Licence.SHRINK_POSITION, shrunk, lots))
    hedging = licence == Licence.SHRINK_EXPOSURE
    if not hedging.any():
        return out
    for u in range(len(view.universe.underlyings)):
        rows = hedging & (view.universe.underlying == u)
        x, delta = view.delta_per_lot, float(view.delta_usd[u])
        against = rows & ~view.universe.option & ((lots - held) * x * np.sign(delta) < 0)
        # Changes with the exposure may only close positions; changes against it may go as far as zero.
        out[rows & ~against] = shrunk[rows & ~against]
        worth = float(np.abs(x[against] * (lots - held)[against]).sum())
        share = min(1.0, abs(delta) / worth) if worth > 0.0 else 0.0
        out[against] = held[against] + _toward_zero((lots - held)[against], share)
    return out


def to_instrument(view: View, lots: IntArray, caps: Caps) -> IntArray:
    """|notional| of each contract within its limit; an unpriced row stays where it is."""
    if np.isnan(caps.instrument):
        return _shrunk(view, lots)
    with np.errstate(invalid="ignore"):
        cap = np.floor(caps.instrument / view.notional_per_lot_usd)
    known = np.isfinite(cap)
    cap = np.where(known, cap, 0.0).astype(np.int64)
    return np.where(known, np.clip(lots, -cap, cap), view.position_lots)


def to_net(view: View, lots: IntArray, caps: Caps) -> IntArray:
    """|dollar delta| of each underlying within its limit: an option is not sold for its delta."""
    return _to_factor(view, lots, view.delta_usd, view.delta_per_lot, caps.net, ~view.universe.option)


def to_gamma(view: View, lots: IntArray, caps: Caps) -> IntArray:
    """|gamma| of each underlying: no change adds to it beyond its limit."""
    return _to_greek(view, lots, "gamma", caps.gamma)


def to_vega(view: View, lots: IntArray, caps: Caps) -> IntArray:
    """|vega| of each underlying, weighted to 30 days: likewise."""
    return _to_greek(view, lots, "vega", caps.vega)


def _to_greek(view: View, lots: IntArray, kind: str, cap: float) -> IntArray:
    if cap == np.inf:
        return lots
    nothing = np.zeros(len(view.universe), dtype=np.bool_)
    return _to_factor(view, lots, view.factor_usd(kind), view.factor_per_lot(kind), cap, nothing)


def _to_factor(
    view: View, lots: IntArray, now: FloatArray, per_lot: FloatArray, cap: float, shrinkable: BoolArray
) -> IntArray:
    """One exposure of each underlying, `now` [U] and `per_lot` [N] USD, within `cap`. Changes that push into it are
    undone; what is held shrinks where `shrinkable` [N]. Where it is unknown, all stays as it is."""
    if np.isnan(cap):
        return _shrunk(view, lots)
    out = lots.copy()
    universe = view.universe
    for u in range(len(universe.underlyings)):
        rows = np.flatnonzero((universe.underlying == u) & ((lots != 0) | (view.position_lots != 0)))
        x, held = per_lot[rows], view.position_lots[rows]
        moved = out[rows] != held
        wanted = float(now[u]) + float(x[moved] @ (out[rows] - held)[moved])
        if not np.isfinite(wanted):
            out[rows] = held
        elif not abs(wanted) <= cap:
            excess = abs(wanted) - cap
            out[rows] = _undo(held, out[rows], x, shrinkable[rows], np.sign(wanted), excess)
    return out


def to_scenario(view: View, lots: IntArray, caps: Caps) -> IntArray:
    """The loss in the worst scenario within its limit: what would be beyond it, and worse than now, keeps only the
    changes that shrink positions."""
    if caps.scenario == np.inf or (lots == view.position_lots).all():
        return lots
    held = view.position_lots
    now, then = caps.grid.worst_loss_usd(held), caps.grid.worst_loss_usd(lots)
    if then <= caps.scenario or then <= now:
        return lots
    return _shrunk(view, lots)


def to_gross(view: View, lots: IntArray, caps: Caps) -> IntArray:
    """Sum of |notional| within its limit."""
    if np.isnan(caps.gross):
        return _shrunk(view, lots)
    rows = np.flatnonzero((lots != 0) | (view.position_lots != 0))
    notional = view.notional_per_lot_usd[rows]
    wanted, held = lots[rows], view.position_lots[rows]
    gross = float(np.abs(wanted) @ notional)
    out = lots.copy()
    if not np.isfinite(gross):
        out[rows] = held
    elif gross > caps.gross:
        growth = np.maximum(np.abs(wanted) - np.abs(held), 0) * notional
        excess = gross - caps.gross
        share = max(0.0, 1.0 - excess / growth.sum()) if growth.sum() > 0.0 else 0.0
        kept = np.where(growth > 0, held + _toward_zero(wanted - held, share), wanted)
        left = float(np.abs(kept) @ notional)
        if left > caps.gross:
            kept = _toward_zero(kept, caps.gross / left)
        out[rows] = kept
    return out


def _undo(
    held: IntArray, wanted: IntArray, x: FloatArray, hedges: BoolArray, sign: float, excess_usd: float
) -> IntArray:
    """Take `excess_usd` of delta of `sign` out of a wanted book: its own change first, then what is held in
    `hedges`: an option is not sold for its delta."""
    change = wanted - held
    pushing = change * x * sign > 0
    push = float(np.abs(x * change)[pushing].sum())
    share = max(0.0, 1.0 - excess_usd / push) if push > 0.0 else 0.0
    out = np.where(pushing, held + _toward_zero(change, share), wanted)
    rest = excess_usd - push
    if rest > 0.0:
        same = hedges & (out * x * sign > 0)
        worth = float(np.abs(x * out)[same].sum())
        if worth > 0.0:
            out = np.where(same, _toward_zero(out, max(0.0, 1.0 - rest / worth)), out)
    return out


def _shrunk(view: View, lots: IntArray) -> IntArray:
    """Only the changes that bring a position nearer to flat, and none through it."""
    held = view.position_lots
    return np.clip(lots, np.minimum(held, 0), np.maximum(held, 0))


def _toward_zero(lots: IntArray, share: float) -> IntArray:
    """`share` of each count, rounded towards zero."""
    return np.asarray(np.trunc(lots * share), dtype=np.int64)
