"""What one order cost: its implementation shortfall, split into parts that add up, and what the price did after.

A lot that was filled cost the way of the price from the decision (when its lane's difference first arose) to the
fill: delay until the order left, impact until the fill, spread from the mid price of that moment to the price paid.
Lots that were not filled cost nothing here when a later order of the same work takes them over: its own delay counts
from the same decision. Only what nobody took over is an opportunity cost, at the mid price when the order ended. So
the orders of one piece of work add up to its shortfall against the decision, and nothing counts twice. Source: Perold
1988; Kissell, The Science of Algorithmic Trading and Portfolio Management, 2013, chapter 3.

USD are lots times the worth of a step of the price when the order left; bp are of the notional filled.
"""

from dataclasses import dataclass, field

import msgspec
import numpy as np

from dea_daemon.domain.decisions import View
from dea_daemon.domain.instruments import FloatArray, Side
from dea_daemon.domain.numbers import NS_PER_S

NAN = float("nan")
MARKOUTS_S = (1, 10, 60)
SETTLED_NS = MARKOUTS_S[-1] * NS_PER_S  # after its end an order is watched for this long


class Shortfall(msgspec.Struct, frozen=True, gc=False):
    """One order's costs in USD, positive when they were lost; NaN where not known.

    delay + impact + spread + fee + opportunity = total, against `decision_mid`. Markouts are the move of the mid price
    in our favour after each fill, counted from the fill's own price. `rest_usd` is the notional nobody filled or took
    over; `waited_usd` what the rest that was taken over moved against us while this order stood.
    """

    client_order_id: str
    account: str
    instrument: str
    underlying: str
    side: str
    placed: str  # post, cross; restored: from before the start, of which no mid price is known
    decided_ns: int
    sent_ns: int
    ended_ns: int
    lots: int
    filled_lots: int
    asked_usd: float
    filled_usd: float
    rest_usd: float
    decision_mid: float
    arrival_mid: float
    price: float
    end_mid: float
    delay_usd: float
    impact_usd: float
    spread_usd: float
    fee_usd: float
    opportunity_usd: float
    waited_usd: float
    total_usd: float
    markout_1s_usd: float
    markout_10s_usd: float
    markout_60s_usd: float

    def bp(self, usd: float) -> float:
        """Of the notional filled; NaN where nothing was."""
        return usd / self.filled_usd * 1e4 if self.filled_usd > 0.0 else NAN


@dataclass(slots=True, eq=False)
class Measurement:
    """One order while it is measured. `lane` and `since_ns` name the piece of work it belongs to; `step_usd` is what
    one unit of the price is worth per lot, `lot_usd` a lot's notional, `half_spread` in the price's own unit."""

    client_order_id: str
    row: int
    side: Side
    lots: int
    placed: str
    lane: int
    since_ns: int
    sent_ns: int
    decision_mid: float
    arrival_mid: float
    half_spread: float
    lot_usd: float
    step_usd: float
    filled_lots: int = 0
    paid: float = 0.0  # lots · price, over the fills
    mids: float = 0.0  # lots · mid price at the fill
    fee_usd: float = 0.0
    markouts: list[float] = field(default_factory=lambda: [0.0] * len(MARKOUTS_S))  # lots · move
    ended_ns: int = 0
    end_mid: float = NAN
    rest_usd: float = 0.0  # once ended: neither filled nor taken over yet
    taken_usd: float = 0.0  # taken over by later orders

    def filled(self, lots: int, price: float, mid_price: float, fee_usd: float) -> None:
        self.filled_lots += lots
        self.paid += lots * price
        self.mids += lots * mid_price
        self.fee_usd += fee_usd
        if self.ended_ns:  # heard of late
            self.rest_usd = max(self.rest_usd - lots * self.lot_usd, 0.0)

    def marked(self, horizon: int, lots: int, price: float, mid_price: float) -> None:
        """The mid price so long after one fill."""
        self.markouts[horizon] += lots * self.side.sign * (mid_price - price)

    def ended(self, now_ns: int, mid_price: float) -> None:
        self.ended_ns, self.end_mid = now_ns, mid_price
        self.rest_usd = (self.lots - self.filled_lots) * self.lot_usd

    def is_work(self, lane: int, since_ns: int, side: Side) -> bool:
        return (self.lane, self.since_ns) == (lane, since_ns) and self.side is side

    def take_over(self, usd: float) -> float:
        """A later order of the same work does up to `usd` of the rest; what is left of it for others."""
        taken = min(usd, self.rest_usd)
        self.rest_usd -= taken
        self.taken_usd += taken
        return usd - taken

    def lost_usd(self, lots: float, start: float, end: float) -> float:
        """What so many lots lose while the price goes from start to end, USD; nothing is lost of nothing."""
        return lots * self.side.sign * (end - start) * self.step_usd if lots else 0.0

    def shortfall(self, view: View, *, going_on: bool, watched: bool) -> Shortfall:
        """The whole account of it. While its work is `going_on` the rest is still somebody's to do; an order not
        `watched` for long enough has unknown markouts."""
        universe, lots = view.universe, self.filled_lots
        if going_on:
            self.take_over(self.rest_usd)
        price = self.paid / lots if lots else NAN
        mid_price = self.mids / lots if lots else NAN
        rest, taken = self.rest_usd / self.lot_usd, self.taken_usd / self.lot_usd
        opportunity = self.lost_usd(rest, self.decision_mid, self.end_mid)
        marked = [m * self.step_usd if watched or not lots else NAN for m in self.markouts]
        return Shortfall(
            client_order_id=self.client_order_id,
            account=str(universe.accounts[universe.account[self.row]]),
            instrument=universe.instruments[self.row].name,
            underlying=universe.instruments[self.row].underlying,
            side=self.side.value,
            placed=self.placed,
            decided_ns=self.since_ns,
            sent_ns=self.sent_ns,
            ended_ns=self.ended_ns,
            lots=self.lots,
            filled_lots=lots,
            asked_usd=self.lots * self.lot_usd,
            filled_usd=lots * self.lot_usd,
            rest_usd=self.rest_usd,
            decision_mid=self.decision_mid,
            arrival_mid=self.arrival_mid,
            price=price,
            end_mid=self.end_mid,
            delay_usd=self.lost_usd(lots, self.decision_mid, self.arrival_mid),
            impact_usd=self.lost_usd(lots, self.arrival_mid, mid_price),
            spread_usd=self.lost_usd(lots, mid_price, price),
            fee_usd=self.fee_usd,
            opportunity_usd=opportunity,
            waited_usd=self.lost_usd(taken, self.arrival_mid, self.end_mid),
            total_usd=self.lost_usd(lots, self.decision_mid, price) + self.fee_usd + opportunity,
            markout_1s_usd=marked[0],
            markout_10s_usd=marked[1],
            markout_60s_usd=marked[2],
        )


def mid_prices(view: View) -> FloatArray:
    """[N] between best bid and ask; NaN where either is missing, or where the row's data are not to be believed."""
    bid, ask = view.bid_price, view.ask_price
    sound = view.fresh & (bid > 0.0) & (ask > bid)
    return np.where(sound, 0.5 * (bid + ask), np.nan)


def step_usd(view: View, row: int, mid_price: float) -> float:
    """USD that one lot gains when its price rises by one unit. An inverse contract's by first order."""
    universe = view.universe
    if universe.coin_quoted[row]:
        return float(view.notional_per_lot_usd[row])
    if universe.inverse[row]:
        price = mid_price if mid_price > 0.0 else float(view.mark_price[row])
        return float(universe.lot_value[row]) / price
    return float(universe.lot_value[row])
