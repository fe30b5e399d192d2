"""From wanted exposure to positions: trade only outside the band, in the cheapest contracts, reducing legs first."""

import numpy as np

from dea_daemon.allocator.band import crossing_cost, hedge_rows
from dea_daemon.allocator.target import aim
from dea_daemon.domain.decisions import Forecast, Target, View
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.domain.parameters import AllocatorParameters


def allocate(
    view: View,
    forecast: Forecast,
    rebalancing: BoolArray,
    params: AllocatorParameters,
    *,
    instrument_cap_usd: float,
) -> Target:
    """The whole book wanted. `rebalancing` [U] is the last target's: a trade begun goes on to its inner goal.
    Options are held as they are and hedged with what has no strike; pinned ones are closed, if so configured.

    `instrument_cap_usd` bounds |notional| per contract so that what one cannot hold goes to the next.
    """
    exposure, band, inner = aim(view, forecast, params)
    distance = view.delta_usd - exposure
    outside = np.abs(distance) > band
    active = outside | (rebalancing & (np.abs(distance) > inner))
    change = np.where(active, np.copysign(inner, distance) - distance, 0.0)
    lots = view.position_lots.copy()
    for u in np.flatnonzero(active & np.isfinite(change)):
        lots += distribute(view, int(u), float(change[u]), params, instrument_cap_usd)
    if params.pinned == "reduce":
        lots[view.pinned & view.fresh] = 0
    return Target(exposure_usd=exposure, band_usd=band, position_lots=lots, rebalancing=active)


def flattened(view: View) -> IntArray:
    """Nothing held, [N] lots; but of an underlying's hedges as much stays as offsets the options still held there:
    an option that nobody buys must not be left naked. Where a delta is unknown, all goes."""
    universe, lots = view.universe, np.zeros_like(view.position_lots)
    for u in range(len(universe.underlyings)):
        rows = np.flatnonzero((universe.underlying == u) & (view.position_lots != 0))
        option, worth = universe.option[rows], view.delta_per_lot[rows] * view.position_lots[rows]
        hedges, options = float(worth[~option].sum()), float(worth[option].sum())
        if hedges * options < 0.0:
            share = min(1.0, abs(options / hedges))
            lots[rows] = np.where(option, 0, np.trunc(view.position_lots[rows] * share))
    return lots


def cost_per_usd(view: View, direction: float, params: AllocatorParameters) -> FloatArray:
    """What it costs [N] to put on one dollar of exposure: taker fee, half spread, and funding while held.

    Moving away from a contract that has an order at work costs `switch_bp`: its place in the queue, and the
    churn of contracts that are the cheapest in turn.
    The cost of crossing, even for passive orders: those that are not filled cross in the end, and a wide
    spread is no bargain because it could be earned.
    """
    rate_8h = np.where(np.isnan(view.funding_rate_8h), 0.0, view.funding_rate_8h)
    funding = rate_8h * direction * params.expected_hold_h / 8.0
    at_work = (view.working_buy_lots if direction > 0 else view.working_sell_lots) > 0
    return crossing_cost(view) + funding - at_work * (params.switch_bp * 1e-4)


def distribute(
    view: View, u: int, change_usd: float, params: AllocatorParameters, instrument_cap_usd: float
) -> IntArray:
    """Signed lots [N] whose delta in underlying u adds up to `change_usd`, or as near as room and lots allow.

    First contracts whose position shrinks by it, then the others, each by cost; rounded towards less.
    """
    direction = 1 if change_usd > 0 else -1
    rows = hedge_rows(view, u)
    rows = rows[np.argsort(cost_per_usd(view, direction, params)[rows], kind="stable")]
    per_lot, towards = view.delta_per_lot[rows], view.position_lots[rows] * direction
    expiry = view.universe.expiry_ns[rows]
    too_late = (expiry > 0) & (expiry - view.utc_ns < params.avoid_expiry_h * 3_600 * NS_PER_S)
    cap = np.where(too_late, 0.0, np.floor(instrument_cap_usd / view.notional_per_lot_usd[rows]))
    lots = np.zeros(len(view.position_lots), dtype=np.int64)
    left = abs(change_usd)
    for room in (np.maximum(-towards, 0), np.maximum(cap - np.maximum(towards, 0), 0.0)):
        taken = _fill(left, per_lot, room)
        lots[rows] += taken
        left -= float(taken @ per_lot)
    return lots * direction


def _fill(amount_usd: float, per_lot_usd: FloatArray, room_lots: FloatArray | IntArray) -> IntArray:
    """Pour `amount_usd` into contracts in order, each up to its room; whole lots, never more than the amount."""
    worth = per_lot_usd * room_lots
    before = np.cumsum(worth) - worth
    share = np.minimum(np.maximum(amount_usd - before, 0.0), worth)
    return np.floor(share / per_lot_usd + 1e-9).astype(np.int64)
