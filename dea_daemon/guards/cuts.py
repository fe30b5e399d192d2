"""Cuts: each takes a wanted book and returns one inside its limit, rounded inward to whole lots.

They undo the change from the present that pushes into the limit first; what is then still over is a breach
made by prices, and positions themselves are shrunk.
"""

import numpy as np

from dea_daemon.domain.decisions import Licence, View
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.parameters import GuardParameters


def by_licence(view: View, lots: IntArray, licence: IntArray) -> IntArray:
    """Rows keep only the kind of change their licence allows."""
    held = view.position_lots
    shrunk = np.clip(lots, np.minimum(held, 0), np.maximum(held, 0))
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


def to_instrument(view: View, lots: IntArray, params: GuardParameters) -> IntArray:
    """|notional| of each contract within max_instrument_usd; an unpriced row stays where it is."""
    with np.errstate(invalid="ignore"):
        cap = np.floor(params.max_instrument_usd / view.notional_per_lot_usd)
    known = np.isfinite(cap)
    cap = np.where(known, cap, 0.0).astype(np.int64)
    return np.where(known, np.clip(lots, -cap, cap), view.position_lots)


def to_net(view: View, lots: IntArray, params: GuardParameters) -> IntArray:
    """|dollar delta| of each underlying within max_net_usd. Where it is unknown, all stays as it is."""
    out = lots.copy()
    universe = view.universe
    for u in range(len(universe.underlyings)):
        rows = np.flatnonzero((universe.underlying == u) & ((lots != 0) | (view.position_lots != 0)))
        x, held = view.delta_per_lot[rows], view.position_lots[rows]
        moved = out[rows] != held
        wanted = float(view.delta_usd[u]) + float(x[moved] @ (out[rows] - held)[moved])
        if not np.isfinite(wanted):
            out[rows] = held
        elif abs(wanted) > params.max_net_usd:
            excess = abs(wanted) - params.max_net_usd
            out[rows] = _undo(held, out[rows], x, ~universe.option[rows], np.sign(wanted), excess)
    return out


def to_gross(view: View, lots: IntArray, params: GuardParameters) -> IntArray:
    """Sum of |notional| within max_gross_usd."""
    rows = np.flatnonzero((lots != 0) | (view.position_lots != 0))
    notional = view.notional_per_lot_usd[rows]
    wanted, held = lots[rows], view.position_lots[rows]
    gross = float(np.abs(wanted) @ notional)
    out = lots.copy()
    if not np.isfinite(gross):
        out[rows] = held
    elif gross > params.max_gross_usd:
        growth = np.maximum(np.abs(wanted) - np.abs(held), 0) * notional
        excess = gross - params.max_gross_usd
        share = max(0.0, 1.0 - excess / growth.sum()) if growth.sum() > 0.0 else 0.0
        kept = np.where(growth > 0, held + _toward_zero(wanted - held, share), wanted)
        left = float(np.abs(kept) @ notional)
        if left > params.max_gross_usd:
            kept = _toward_zero(kept, params.max_gross_usd / left)
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


def _toward_zero(lots: IntArray, share: float) -> IntArray:
    """`share` of each count, rounded towards zero."""
    return np.asarray(np.trunc(lots * share), dtype=np.int64)
