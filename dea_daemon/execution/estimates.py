"""Costs beyond fee and half spread, estimated from what orders cost, by account, underlying and kind of contract.

Crossing: slippage beyond the half spread = a + Y·σ·√(Q/V) bp, Q the order's notional and σ a day's volatility in bp, by
recursive least squares with Huber's weights and a prior of none. V is one figure for all (USD a day; a market's own is
in its Y). Resting: what an order that was posted lost or saved against having crossed at once, the wait of its unfilled
rest included, likewise shrunk to none. Nothing measured leaves the allocator's costs as they are. What is told to it
moves by no more than a tenth of `execution.surcharge_most_bp` a day, and never beyond that. Where resting has lost by
two standard errors, orders cross at once until some days have let that fade. Sources: Almgren, Thum,
Hauptmann, Li 2005 (the square root); Huber 1964 (the weights).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from dea_daemon.domain.decisions import Forecast, View
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray, Universe
from dea_daemon.domain.lessons import CostLesson
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import ExecutionParameters
from dea_daemon.execution.shortfall import Measurement, Shortfall

PRIOR_ORDERS = 50.0  # what the belief that there is nothing beyond fee and half spread is worth
KEPT = 0.998  # of the past's weight with each order: the last five hundred count
VOLUME_USD = 1e9
HUBER = 1.345
SCALE_BP = 2.0  # of residuals, before any
OUTLIER = 3.0  # one resting order counts no more than so many times the cap
CHANGE_A_DAY = 0.1  # of the cap
LOSING_ORDERS = 30.0  # at least so many posted ones say that waiting loses
LOSING_ERRORS = 2.0
ADVANCE_NS = 60 * NS_PER_S
YEAR_DAYS = 365.0

Key = tuple[str, str, str]  # account, underlying, kind


@dataclass(slots=True, eq=False)
class Estimate:
    """One group of contracts. `told_bp` is what the allocator is told, on its way to `bp`."""

    orders: int = 0
    crossed_usd: float = 0.0  # filled at once, and
    rested_usd: float = 0.0  # by waiting
    rested_cost_usd: float = 0.0  # of orders that were posted, beyond having crossed at once
    sqrt_size: float = 0.0  # mean √(Q/V) of crossing orders, once there are some
    day_vol_bp: float = 0.0
    normal: FloatArray = field(default_factory=lambda: PRIOR_ORDERS * np.eye(2))  # of the regression, prior included
    moment: FloatArray = field(default_factory=lambda: np.zeros(2))
    scale_bp: float = SCALE_BP
    told_bp: float = 0.0
    posted: float = 0.0  # resting orders, half of them forgotten in a day: mean loss and sum of its squared deviations
    posted_bp: float = 0.0
    posted_squares: float = 0.0

    @property
    def losing(self) -> bool:
        """Whether resting orders have cost more than crossing at once would have, beyond doubt."""
        if self.posted < LOSING_ORDERS:
            return False
        return self.posted_bp > LOSING_ERRORS * float(np.sqrt(self.posted_squares)) / self.posted

    @property
    def impact(self) -> tuple[float, float]:
        """a in bp, and Y."""
        (one, both), (_, two) = self.normal.tolist()
        first, second = self.moment.tolist()
        whole = one * two - both * both
        return (two * first - both * second) / whole, (one * second - both * first) / whole

    @property
    def rested(self) -> float:
        """The share of what was filled that was filled by waiting."""
        whole = self.crossed_usd + self.rested_usd
        return self.rested_usd / whole if whole > 0.0 else 0.0

    @property
    def bp(self) -> float:
        """What a dollar of work costs beyond taker fee and half spread."""
        whole = self.crossed_usd + self.rested_usd
        if not whole > 0.0:
            return 0.0
        a, y = self.impact
        crossing = (1.0 - self.rested) * (a + y * self.day_vol_bp * self.sqrt_size)
        return float(crossing + self.rested_cost_usd / whole * 1e4 * self.orders / (self.orders + PRIOR_ORDERS))

    def crossed(self, slippage_bp: float, usd: float) -> None:
        """One order that crossed and was filled: one step of the regression."""
        root = np.sqrt(usd / VOLUME_USD)
        x = np.array([1.0, self.day_vol_bp * root])
        off = slippage_bp - float(x @ np.array(self.impact))
        weight = min(1.0, HUBER * self.scale_bp / abs(off)) if off else 1.0
        prior = PRIOR_ORDERS * np.eye(2)
        self.normal = prior + KEPT * (self.normal - prior) + weight * np.outer(x, x)
        self.moment = KEPT * self.moment + weight * slippage_bp * x
        self.scale_bp += 0.02 * (min(1.2533 * abs(off), 10.0 * self.scale_bp) - self.scale_bp)
        self.sqrt_size += (root - self.sqrt_size) * (0.01 if self.sqrt_size else 1.0)
        self.crossed_usd += usd

    def rest(self, cost_usd: float, filled_usd: float, asked_usd: float) -> None:
        """One order that was posted, and what it cost against having crossed at once."""
        self.rested_cost_usd += cost_usd
        self.rested_usd += filled_usd
        bp = cost_usd / asked_usd * 1e4
        self.posted += 1.0
        off = bp - self.posted_bp
        self.posted_bp += off / self.posted
        self.posted_squares += off * (bp - self.posted_bp)

    def forget(self) -> None:
        self.crossed_usd *= KEPT
        self.rested_usd *= KEPT
        self.rested_cost_usd *= KEPT

    def age(self, days: float) -> None:
        self.posted *= 0.5**days
        self.posted_squares *= 0.5**days


class Estimates:
    """All groups, and what each row's is: `group` [N] numbers them, `told` [G] bp."""

    def __init__(self) -> None:
        self.by_key: dict[Key, Estimate] = {}
        self.group: IntArray = np.zeros(0, dtype=np.int64)
        self.told: FloatArray = np.zeros(0)
        self.rested: FloatArray = np.zeros(0)
        self.losing: BoolArray = np.zeros(0, dtype=np.bool_)  # [N]
        self.advanced_ns = 0

    def learn(self, lesson: CostLesson, params: ExecutionParameters) -> None:
        """Take in one measured order; what is not known teaches nothing."""
        crossed = lesson.placed == "cross" and lesson.filled_usd > 0.0
        posted = lesson.placed == "post" and lesson.asked_usd > 0.0
        if not (np.isfinite(lesson.beyond_usd) and np.isfinite(lesson.day_vol_bp) and (crossed or posted)):
            return
        known = self.by_key.setdefault((lesson.account, lesson.underlying, lesson.kind), Estimate())
        known.orders += 1
        known.day_vol_bp = lesson.day_vol_bp
        known.forget()
        if crossed:
            known.crossed(lesson.beyond_usd / lesson.filled_usd * 1e4, lesson.filled_usd)
        else:
            most_usd = OUTLIER * params.surcharge_most_bp * 1e-4 * lesson.asked_usd
            known.rest(min(max(lesson.beyond_usd, -most_usd), most_usd), lesson.filled_usd, lesson.asked_usd)

    def recall(self, lessons: Iterable[CostLesson], now_ns: int, params: ExecutionParameters) -> None:
        """Learn, before a run, from what earlier ones measured, oldest first, each at its own time: what is told has
        moved as slowly as if the run had gone on."""
        for lesson in lessons:
            self._pass(min(lesson.ended_ns, now_ns), params)
            self.learn(lesson, params)
        self._pass(now_ns, params)

    def advance(self, view: View, params: ExecutionParameters) -> None:
        """What is told goes towards what is estimated, a tenth of the cap a day."""
        if view.now_ns - self.advanced_ns < ADVANCE_NS and len(self.group) == len(view.universe):
            return
        self._pass(view.now_ns, params)
        known_of = list(self.by_key.values())
        if len(self.group) != len(view.universe) or len(self.told) != len(known_of) + 1:
            number = {key: g for g, key in enumerate(self.by_key)}
            rows = range(len(view.universe))
            self.group = np.array([number.get(_key(view.universe, row), -1) for row in rows], dtype=np.int64)
        # The last belongs to rows of no group.
        self.told = np.array([*(known.told_bp for known in known_of), 0.0])
        self.rested = np.array([*(known.rested for known in known_of), 0.0])
        self.losing = np.array([*(known.losing for known in known_of), False])[self.group]

    def _pass(self, now_ns: int, params: ExecutionParameters) -> None:
        days = (now_ns - self.advanced_ns) / NS_PER_DAY if self.advanced_ns else 0.0
        self.advanced_ns = now_ns
        most = params.surcharge_most_bp
        step = CHANGE_A_DAY * most * max(days, 0.0)
        for known in self.by_key.values():
            known.age(days)
            bp = known.bp
            aim = min(max(bp, -most), most) if np.isfinite(bp) else 0.0
            known.told_bp += min(max(aim - known.told_bp, -step), step)
            known.told_bp = min(max(known.told_bp, -most), most)

    def surcharge(self, view: View, params: ExecutionParameters) -> FloatArray:
        """[N] USD per USD of notional."""
        universe = view.universe
        if not self.told.any() or len(self.group) != len(universe):
            return np.zeros(len(universe))
        bid, ask = view.bid_price, view.ask_price
        most = params.surcharge_most_bp  # it may have been lowered just now
        told = np.minimum(np.maximum(self.told, -most), most)[self.group] * 1e-4
        with np.errstate(invalid="ignore", divide="ignore"):
            half = np.where(universe.option | ~(ask + bid > 0.0), 0.0, (ask - bid) / (ask + bid))
        saved = np.maximum(half, 0.0) + universe.taker_fee - universe.maker_fee
        return np.asarray(np.maximum(told, -np.maximum(saved, 0.0) * self.rested[self.group]), dtype=np.float64)


def lesson(order: Measurement, found: Shortfall, view: View, forecast: Forecast) -> CostLesson:
    """What one measured order teaches."""
    universe, row = view.universe, order.row
    half = order.half_spread * order.step_usd / order.lot_usd
    beyond_usd = found.impact_usd + found.spread_usd - half * found.filled_usd
    if order.placed == "post":
        beyond_usd += found.fee_usd - float(universe.taker_fee[row]) * found.filled_usd + found.waited_usd
    return CostLesson(
        found.ended_ns,
        *_key(universe, row),
        order.placed,
        found.asked_usd,
        found.filled_usd,
        beyond_usd,
        day_vol_bp=float(forecast.annual_vol[universe.underlying[row]]) / YEAR_DAYS**0.5 * 1e4,
    )


def _key(universe: Universe, row: int) -> Key:
    """Contracts of one account and underlying that trade alike."""
    instrument = universe.instruments[row]
    return str(universe.accounts[universe.account[row]]), instrument.underlying, instrument.kind.value
