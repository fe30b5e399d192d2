"""Where to put an order: post at the touch, or cross with a limit and never a naked market order."""

import numpy as np

from dea_daemon.domain.decisions import Permit, View
from dea_daemon.domain.instruments import BoolArray, IntArray, Side
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.domain.parameters import ExecutionParameters


def should_cross(permit: Permit, since_ns: IntArray, losing: BoolArray, params: ExecutionParameters) -> BoolArray:
    """[N] cross the spread: by configuration, where no order may rest, after post-only rejects in a row, in a breach,
    where the row's work (`since_ns` [N]) has waited long enough, or where waiting has been seen to cost more than
    spread and fees it saves (`losing` [N], or empty)."""
    view = permit.view
    # Of an option nobody bids for one can only offer.
    reachable = np.where(permit.position_lots > view.position_lots, view.ask_price, view.bid_price) > 0.0
    if params.order_type == "taker" or not permit.resting:
        return np.asarray(reachable, dtype=np.bool_)
    waited = (since_ns > 0) & (view.now_ns - since_ns > params.cross_after_ms * NS_PER_MS)
    if len(losing) == len(waited):  # else contracts have joined since
        waited |= losing
    chased = view.post_only_rejects >= params.post_only_attempts
    in_breach = permit.urgent[view.universe.underlying]
    return np.asarray((waited | chased | in_breach) & reachable, dtype=np.bool_)


def price_ticks(view: View, row: int, side: Side, crossing: bool, params: ExecutionParameters) -> int | None:
    """The limit: own touch (post), or the other touch plus the slippage cap (cross). None where that
    touch is missing or the book is crossed."""
    bid, ask = float(view.bid_price[row]), float(view.ask_price[row])
    near, far = (bid, ask) if side is Side.BUY else (ask, bid)
    if not 0.0 < (far if crossing else near) < np.inf or bid >= ask:
        return None
    instrument = view.universe.instruments[row]
    if not crossing:
        return instrument.price_to_ticks(near, side)
    # Rounded to the passive side, the cap is never exceeded; on a coarse grid it must still reach the touch.
    capped = instrument.price_to_ticks(far * (1.0 + side.sign * params.slippage_bp * 1e-4), side)
    touch = instrument.price_to_ticks(far)
    return max(capped, touch) if side is Side.BUY else min(capped, touch)
