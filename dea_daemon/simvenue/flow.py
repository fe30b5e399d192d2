"""Background liquidity of one contract: makers around fair value, and takers who come at random.

Makers quote whole multiples of a gap, so that their levels stay while fair value wanders: each step moves the
edge of the ladder and touches a few sizes in it. All draws are made every step, used or not, so that what a
client does never shifts what comes after.
"""

from dataclasses import dataclass
from math import exp, floor, log

from dea_daemon.domain.instruments import Side
from dea_daemon.simvenue.accounts import Contract
from dea_daemon.simvenue.process import Rows, generator
from dea_daemon.simvenue.scenarios import Scenario

_SIZE_SIGMA = 0.6  # of log sizes at a level
_ARRIVALS = 2  # takers a step at most


@dataclass(frozen=True, slots=True)
class Quote:
    """Make the background at a level so many lots."""

    side: Side
    ticks: int
    lots: int


@dataclass(frozen=True, slots=True)
class Taker:
    """An aggressor with a limit."""

    side: Side
    limit_ticks: int
    lots: int


class Flow:
    """Makers and takers of one contract."""

    def __init__(self, scenario: Scenario, contract: Contract, seed: int, number: int) -> None:
        instrument = contract.instrument
        self._s = scenario
        self._contract = contract
        self._liquidity = scenario.dated_liquidity if instrument.expiry_ns else 1.0
        depth = scenario.depth_levels
        self._sizes = Rows(generator(seed, 4, number).standard_normal, 2 * depth)
        self._chances = Rows(generator(seed, 5, number).random, 2 * depth)
        self._takers = Rows(generator(seed, 6, number).standard_normal, _ARRIVALS)
        self._arrivals = Rows(generator(seed, 7, number).random, 2 * _ARRIVALS)
        price = scenario.coins[instrument.underlying].start_price
        step = max([int(s.tick_size / instrument.tick_size) for s in instrument.tick_steps], default=1)
        wanted = scenario.level_gap_bp * 1e-4 * price / contract.tick / self._liquidity
        self._gap = max(round(wanted / step), 1) * step  # always on the wider grid
        self._ladder = {side: range(0) for side in Side}  # multiples of the gap quoted now

    def makers(self, fair: float, heat: float) -> list[Quote]:
        """What is left behind first, then what is new, came back or changed."""
        s = self._s
        half_spread = s.half_spread_bp * 1e-4 * fair / self._liquidity * max(heat, 1.0) ** s.spread_per_vol
        unit = self._gap * self._contract.tick
        bid = floor((fair - half_spread) / unit)
        ask = max(-floor(-(fair + half_spread) / unit), bid + 1)
        ladders = {
            Side.BUY: range(bid, max(bid - s.depth_levels, 0), -1),
            Side.SELL: range(ask, ask + s.depth_levels),
        }
        quotes = [q for side, ladder in ladders.items() for q in self._left_behind(side, ladder)]
        sizes, chances = self._sizes.next(), self._chances.next()
        for k, (side, ladder) in enumerate(ladders.items()):
            at = k * s.depth_levels
            quotes += self._quoted(side, ladder, fair, sizes[at : at + len(ladder)], chances[at:])
        self._ladder = ladders
        return quotes

    def _left_behind(self, side: Side, ladder: range) -> list[Quote]:
        old = self._ladder[side]
        if old == ladder:
            return []
        return [Quote(side, step * self._gap, 0) for step in old if step not in ladder]

    def _quoted(self, side: Side, ladder: range, fair: float, sizes: list[float], chances: list[float]) -> list[Quote]:
        old, gap, refill, churn = self._ladder[side], self._gap, self._s.refill, self._s.churn
        levels = self._contract.book.half(side).levels
        quotes = []
        for depth, step in enumerate(ladder):
            chance = chances[depth]
            if step in old:
                if chance >= refill:
                    continue
                level = levels.get(step * gap)
                if level is not None and level.background and chance >= churn:
                    continue
            quotes.append(Quote(side, step * gap, self._lots(depth, fair, sizes[depth])))
        return quotes

    def _lots(self, depth: int, fair: float, z: float) -> int:
        """The touch is thin, and the book thickens behind it."""
        usd = self._s.level_usd * self._liquidity * min(0.3 + 0.1 * depth, 1.5) * exp(_SIZE_SIGMA * z)
        return self._to_lots(usd, fair)

    def _to_lots(self, usd: float, fair: float) -> int:
        lot_usd = self._contract.lot_value * (1.0 if self._contract.inverse else fair)
        return max(round(usd / lot_usd), 1)

    def takers(self, fair: float, heat: float) -> list[Taker]:
        """Who comes in this step; more of them when it is hot."""
        s = self._s
        normals, arrivals = self._takers.next(), self._arrivals.next()
        chance = s.takers_per_s * self._liquidity * heat * s.step_ms / 1_000 / _ARRIVALS
        reach = s.taker_reach_bp * 1e-4 / self._liquidity
        came = []
        for k in range(_ARRIVALS):
            if arrivals[2 * k] < chance:
                side = Side.BUY if arrivals[2 * k + 1] < 0.5 else Side.SELL
                usd = exp(log(s.taker_usd_median * self._liquidity) + s.taker_usd_sigma * normals[k])
                limit = floor(fair * (1.0 + side.sign * reach) / self._contract.tick)
                came.append(Taker(side, limit, self._to_lots(usd, fair)))
        return came
