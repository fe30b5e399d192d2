"""The limits measured: what a book uses of each at the worst combination of working and unknown orders.

With p held, and up to B lots still to be bought and S to be sold, a subset of fills leaves anything from
p − S to p + B in a row. Every bound here is the exact maximum over all subsets:
- instrument: max(|p − S|, |p + B|) · notional;
- gross: the sum of those, as rows fill independently;
- net, gamma, vega: E is linear in fills, so its extremes are E + Σ (X⁺·B + X⁻·S) and E − Σ (X⁺·S + X⁻·B), where
  X⁺ and X⁻ are the positive and negative parts of what a lot adds (a bought put lowers delta).
Turnover and fees are bounded by everything working filling, at the taker fee.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.decisions import LimitUse, View
from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.parameters import GuardParameters
from dea_daemon.guards.scenarios import Grid


class Caps(NamedTuple):
    """The limits in force at this equity, USD; infinite where none is set, NaN where equity is not known."""

    gross: float
    net: float
    instrument: float
    gamma: float
    vega: float
    scenario: float
    grid: Grid


def caps(view: View, params: GuardParameters) -> Caps:
    """Absolute limits, or as many times equity as configured, whichever is less."""

    def least(usd: float | None, leverage: float | None = None) -> float:
        absolute = np.inf if usd is None else usd
        return float(absolute if leverage is None else np.minimum(absolute, leverage * view.equity_usd))

    return Caps(
        gross=least(params.max_gross_usd, params.max_gross_leverage),
        net=least(params.max_net_usd, params.max_net_leverage),
        instrument=least(params.max_instrument_usd, params.max_instrument_leverage),
        gamma=least(params.max_gamma_usd_1pct),
        vega=least(params.max_vega_usd_1pt),
        scenario=least(None, params.max_scenario_loss),
        grid=Grid(view),
    )


@dataclass(slots=True)
class Exposed:
    """A book with orders in flight. buys, sells [N] lots ≥ 0; mutated as orders are admitted one by one."""

    view: View
    buys: IntArray
    sells: IntArray

    def worst_lots(self) -> IntArray:
        """[N] the largest |position| any subset of fills can leave."""
        p = self.view.position_lots
        return np.asarray(np.maximum(np.abs(p - self.sells), np.abs(p + self.buys)), dtype=np.int64)

    def instrument_usd(self) -> FloatArray:
        """[N] worst |notional|; a row with neither position nor orders uses nothing, priced or not."""
        lots = self.worst_lots()
        return np.where(lots > 0, lots * self.view.notional_per_lot_usd, 0.0)

    def gross_usd(self) -> float:
        return float(self.instrument_usd().sum())

    def net_usd(self) -> tuple[FloatArray, FloatArray]:
        """(lowest, highest) dollar delta [U] any subset of fills can leave."""
        return self._extremes(self.view.delta_usd, self.view.delta_per_lot)

    def greek_usd(self, kind: str) -> tuple[FloatArray, FloatArray]:
        """Likewise of the factors "gamma" or "vega" (weighted to 30 days)."""
        return self._extremes(self.view.factor_usd(kind), self.view.factor_per_lot(kind))

    def _extremes(self, now: FloatArray, per_lot: FloatArray) -> tuple[FloatArray, FloatArray]:
        return now - self._swing(per_lot, self.sells, self.buys), now + self._swing(per_lot, self.buys, self.sells)

    def _swing(self, per_lot: FloatArray, along: IntArray, against: IntArray) -> FloatArray:
        """[U] Σ (X⁺·along + X⁻·against); unpriced rows count only if they have lots."""
        universe = self.view.universe
        rows = np.flatnonzero(along + against)
        x = per_lot[rows]
        swing = np.where(x < 0.0, -x * against[rows], x * along[rows])
        total = np.bincount(universe.underlying[rows], swing, len(universe.underlyings))
        return np.asarray(total, dtype=np.float64)

    def scenario_loss_usd(self, grid: Grid) -> float:
        """The most the book may lose in one of the scenarios, whatever of what works fills."""
        return grid.worst_loss_usd(self.view.position_lots, self.buys, self.sells)

    def working_usd(self) -> FloatArray:
        """[N] notional of everything in flight, both sides."""
        lots = self.buys + self.sells
        return np.where(lots > 0, lots * self.view.notional_per_lot_usd, 0.0)

    def turnover_usd(self) -> float:
        return self.view.turnover_hour_usd + float(self.working_usd().sum())

    def fees_usd(self) -> float:
        universe = self.view.universe
        fee = np.maximum(universe.taker_fee, universe.maker_fee)
        return self.view.fees_hour_usd + float((self.working_usd() * fee).sum())


def exposed(view: View) -> Exposed:
    """The book as it is now, with its working orders."""
    return Exposed(view, view.working_buy_lots.copy(), view.working_sell_lots.copy())


def uses(book: Exposed, params: GuardParameters, cap: Caps | None = None) -> tuple[LimitUse, ...]:
    """How much of every limit is used, for the record and the screen; `cap` where it is known already."""
    view = book.view
    cap = caps(view, params) if cap is None else cap
    per_row = book.instrument_usd()
    lines = _factor_uses(view, "net", "delta", book.net_usd(), cap.net)
    for kind, allowed in (("gamma", cap.gamma), ("vega", cap.vega)):
        if allowed != np.inf:
            lines += _factor_uses(view, kind, kind, book.greek_usd(kind), allowed)
    lines += [
        LimitUse("instrument", view.universe.instruments[i].name, float(per_row[i]), cap.instrument)
        for i in np.flatnonzero(per_row)
    ]
    lines.append(LimitUse("gross", "book", float(per_row.sum()), cap.gross))
    lines.append(LimitUse("turnover", "hour", book.turnover_usd(), params.max_turnover_usd_per_hour))
    lines.append(LimitUse("fees", "hour", book.fees_usd(), params.max_fees_usd_per_hour))
    lines.append(LimitUse("orders", "minute", view.creates_last_minute, params.max_orders_per_minute))
    if cap.scenario != np.inf:
        lines.append(LimitUse("scenario", "book", book.scenario_loss_usd(cap.grid), cap.scenario))
    lines.append(LimitUse("margin", "pool", view.margin_use, params.max_margin_use))
    if (most := params.max_daily_loss or params.halt_daily_loss) is not None:
        lines.append(LimitUse("daily_loss", "book", daily_loss(view), most))
    lines.append(LimitUse("drawdown", "book", drawdown(view), params.max_drawdown))
    return tuple(lines)


def _factor_uses(
    view: View, limit: str, kind: str, extremes: tuple[FloatArray, FloatArray], allowed: float
) -> list[LimitUse]:
    """One line an underlying: the larger of its extremes."""
    low, high = extremes
    worst = np.maximum(np.abs(low), np.abs(high)).tolist()
    first = view.factors.first(kind)
    names = view.factors.names[first : first + len(worst)]
    return [LimitUse(limit, name, used, allowed) for name, used in zip(names, worst, strict=True)]


def daily_loss(view: View) -> float:
    """Fraction of the day's first equity lost; 0 before there is one, NaN where equity is unknown."""
    return 1.0 - view.equity_usd / view.day_equity_usd if view.day_equity_usd > 0.0 else 0.0


def drawdown(view: View) -> float:
    """Fraction of the peak lost; 0 before there is a peak, NaN where equity is unknown."""
    if not view.peak_equity_usd > 0.0:
        return 0.0
    return 1.0 - view.equity_usd / view.peak_equity_usd
