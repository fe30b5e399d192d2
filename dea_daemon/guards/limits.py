"""The limits measured: what a book uses of each at the worst combination of working and unknown orders.

With p held, and up to B lots still to be bought and S to be sold, a subset of fills leaves anything from
p − S to p + B in a row. Every bound here but the last is the exact maximum over all subsets:
- instrument: max(|p − S|, |p + B|) · notional;
- underlying, venue, gross: the sums of those, as rows fill independently;
- net, vega, gamma, buckets: E is linear in fills, so its extremes are E + Σ (X⁺·B + X⁻·S) and E − Σ (X⁺·S + X⁻·B),
  where X⁺ and X⁻ are the positive and negative parts of what a lot adds (a bought put lowers delta);
- scenario, stress: at each scenario everything fills that loses there; VaR, ES: likewise, which bounds them from above.
Turnover and fees are bounded by everything working filling, at the taker fee.
"""

from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.decisions import View
from dea_daemon.domain.factors import BUCKETS, FactorIndex
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray, Side
from dea_daemon.domain.parameters import GuardParameters
from dea_daemon.guards.conditions import in_use
from dea_daemon.guards.scenarios import Scenarios, grid_loss, stress_loss, tail_losses


class Caps(NamedTuple):
    """The limits in force at this equity, USD; infinite where none is set, NaN where equity is not known."""

    gross: float
    net: float
    instrument: float
    underlying: float
    venue: float
    gamma: float
    vega: float
    bucket_vega: float
    bucket_basis: float
    scenario: float
    stress: float
    var: float
    es: float
    var_annual_vol: float


def caps(view: View, params: GuardParameters) -> Caps:
    """Absolute limits, or as many times equity as configured, whichever is less."""

    def least(usd: float | None, leverage: float | None = None) -> float:
        absolute = np.inf if usd is None else usd
        if leverage is None:
            return float(absolute)
        return float(np.minimum(absolute, np.maximum(leverage * view.equity_usd, 0.0)))  # NaN stays

    return Caps(
        gross=least(params.max_gross_usd, params.max_gross_leverage),
        net=least(params.max_net_usd, params.max_net_leverage),
        instrument=least(params.max_instrument_usd, params.max_instrument_leverage),
        underlying=least(params.max_underlying_usd, params.max_underlying_leverage),
        venue=least(params.max_venue_usd, params.max_venue_leverage),
        gamma=least(params.max_gamma_usd_1pct),
        vega=least(params.max_vega_usd_1pt),
        bucket_vega=least(params.max_bucket_vega_usd_1pt),
        bucket_basis=least(params.max_bucket_basis_usd_1pct),
        scenario=least(None, params.max_scenario_loss),
        stress=least(None, params.max_stress_loss),
        var=least(None, params.max_var),
        es=least(None, params.max_es),
        var_annual_vol=params.var_annual_vol,
    )


LINEAR = ("net", "vega", "gamma", "bucket_vega", "bucket_basis")  # by priority; all are fields of Caps
SUMS = ("underlying", "venue", "gross")
LOSSES = ("scenario", "stress", "var", "es")


class Lines(NamedTuple):
    """The linear limits in force, one line each: what it is called, of what, and its row of X (of net: of delta)."""

    limit: tuple[str, ...]
    subject: tuple[str, ...]
    row: IntArray


@lru_cache(maxsize=64)
def lines(underlyings: tuple[str, ...], kinds: tuple[str, ...]) -> Lines:
    """Of each kind, a line an underlying (and bucket). Rows of X do not depend on its currencies."""
    factors, n = FactorIndex(underlyings), len(underlyings)
    limit: list[str] = []
    row: list[int] = []
    for kind in kinds:
        if kind.startswith("bucket_"):
            first = factors.first(kind.removeprefix("bucket_"), 0)
            rows = range(first, first + n * len(BUCKETS))
        else:
            first = factors.first("delta" if kind == "net" else kind)
            rows = range(first, first + n)
        limit += [kind] * len(rows)
        row += rows
    return Lines(tuple(limit), tuple(factors.names[k] for k in row), np.array(row, dtype=np.int64))


class Groups(NamedTuple):
    """Sums of |notional| in force: what each is called, of what, and the number of its underlying or venue (of gross,
    which is of all, 0)."""

    limit: tuple[str, ...]
    subject: tuple[str, ...]
    number: tuple[int, ...]


@lru_cache(maxsize=64)
def groups(underlyings: tuple[str, ...], venues: tuple[str, ...], kinds: tuple[str, ...]) -> Groups:
    members = {"underlying": underlyings, "venue": venues, "gross": ("book",)}
    each = [(kind, name, number) for kind in kinds for number, name in enumerate(members[kind])]
    limit, subject, number = zip(*each, strict=True)
    return Groups(limit, subject, number)


class LaidOut(NamedTuple):
    """What a Book measures under its caps."""

    lines: Lines
    line_cap: FloatArray
    sums: Groups
    sum_cap: FloatArray
    losses: tuple[str, ...]


@lru_cache(maxsize=4)
def _laid_out(underlyings: tuple[str, ...], venues: tuple[str, ...], cap: Caps) -> LaidOut:
    """Of limits in USD the same at every tick; of those in equity each time another."""
    line = lines(underlyings, _set(cap, LINEAR))
    group = groups(underlyings, venues, _set(cap, SUMS))
    line_cap, sum_cap = (np.array([getattr(cap, kind) for kind in each.limit]) for each in (line, group))
    for each in (line.row, line_cap, sum_cap):
        each.flags.writeable = False
    return LaidOut(line, line_cap, group, sum_cap, _set(cap, LOSSES))


class Book:
    """The rows that matter [M] with what is held and in flight there, and every limit measured on them.

    buys, sells [M] lots ≥ 0; `add` takes one more order in. A row left out has neither position nor orders.
    """

    def __init__(self, view: View, cap: Caps, rows: IntArray) -> None:
        universe = view.universe
        self.view, self.cap, self.rows = view, cap, rows
        self.held = view.position_lots[rows]
        self.buys, self.sells = view.working_buy_lots[rows], view.working_sell_lots[rows]
        self.working = bool(
            np.count_nonzero(self.buys) or np.count_nonzero(self.sells)
        )  # whether anything is in flight
        self.notional = view.notional_per_lot_usd[rows]
        self.held_usd = self.usd(self.held)  # [M] |notional| held
        self.delta = view.delta_per_lot[rows]
        self.underlying = universe.underlying[rows]
        self.scenarios = Scenarios(view, rows)
        # linear limits [L]: what a lot adds [L, M], what there is, and how much is allowed; sums [Q] of rows [Q, M]
        self.lines, self.line_cap, self.sums, self.sum_cap, self.losses = _laid_out(
            universe.underlyings, universe.venues, cap
        )
        self.now = view.exposure_usd[self.lines.row]
        # net comes first, and always: a trade pays its premium, whatever X is told in
        u = np.arange(len(universe.underlyings))
        self.per_lot = np.where(self.underlying == u[:, None], self.delta, 0.0)
        if len(self.lines.row) > len(u):
            others = view.exposure_per_lot[self.lines.row[len(u) :, None], rows]
            self.per_lot = np.concatenate((self.per_lot, others))

    @cached_property
    def at(self) -> dict[int, int]:
        """The place of each row."""
        return {row: m for m, row in enumerate(self.rows.tolist())}

    @cached_property
    def option(self) -> BoolArray:
        return self.view.universe.option[self.rows]

    @cached_property
    def member(self) -> BoolArray:
        """[Q, M] which rows each sum is of."""
        of = {
            "underlying": self.underlying,
            "venue": self.view.universe.venue[self.rows],
            "gross": np.zeros(len(self.rows), dtype=np.int64),
        }
        return np.array([of[kind] == k for kind, k in zip(self.sums.limit, self.sums.number, strict=True)])

    def add(self, m: int, side: Side, lots: int) -> None:
        """An order more in row `rows[m]`."""
        (self.buys if side is Side.BUY else self.sells)[m] += lots
        self.working = True

    # --- the worst that fills can leave ----------------------------------------------------------

    def usd(self, lots: IntArray) -> FloatArray:
        """[M] |notional| of `lots`; none uses nothing, priced or not."""
        return np.where(lots != 0, np.abs(lots) * self.notional, 0.0)

    def worst_lots(self) -> IntArray:
        """[M] the largest |position|."""
        return np.asarray(np.maximum(np.abs(self.held - self.sells), np.abs(self.held + self.buys)), dtype=np.int64)

    def instrument_usd(self) -> FloatArray:
        """[M] worst |notional|."""
        return self.usd(self.worst_lots()) if self.working else self.held_usd

    def sums_usd(self, instrument_usd: FloatArray) -> FloatArray:
        """[Q] of those, in each group."""
        if len(self.sum_cap) == 1:  # gross alone
            return np.array([instrument_usd.sum()])
        return np.asarray(np.where(self.member, instrument_usd, 0.0).sum(axis=1), dtype=np.float64)

    def extremes(self) -> tuple[FloatArray, FloatArray]:
        """(lowest, highest) [L] of the linear limits, USD."""
        if not self.working:
            return self.now, self.now
        # What is not priced counts only where it works.
        x = np.where((self.buys != 0) | (self.sells != 0), self.per_lot, 0.0)
        up, down = np.maximum(x, 0.0), np.maximum(-x, 0.0)
        return self.now - (up @ self.sells + down @ self.buys), self.now + (up @ self.buys + down @ self.sells)

    def losses_usd(self) -> dict[str, float]:
        """The most the book may lose by each of `losses`, whatever of what works fills."""
        if not (self.losses and self.working):
            return self.held_losses_usd
        return self._losses(self.scenarios.outcomes(self.held, self.buys, self.sells))

    @cached_property
    def held_losses_usd(self) -> dict[str, float]:
        """Likewise of what is held alone."""
        return self.losses_of(self.held)

    def losses_of(self, lots: IntArray) -> dict[str, float]:
        """Likewise of other `lots` [M]."""
        return self._losses(self.scenarios.outcomes(lots)) if self.losses else {}

    def _losses(self, outcomes: FloatArray) -> dict[str, float]:
        found = {"scenario": grid_loss(outcomes), "stress": stress_loss(outcomes)}
        if "var" in self.losses or "es" in self.losses:
            found["var"], found["es"] = tail_losses(outcomes, self.view.day_returns, self.cap.var_annual_vol)
        return {kind: found[kind] for kind in self.losses}

    # --- budgets ---------------------------------------------------------------------------------

    def stake_usd(self) -> tuple[float, float]:
        """(turnover, fees) if everything working filled, on both sides."""
        if not self.working:
            return 0.0, 0.0
        usd, universe = self.usd(self.buys + self.sells), self.view.universe
        fee = np.maximum(universe.taker_fee[self.rows], universe.maker_fee[self.rows])
        return float(usd.sum()), float((usd * fee).sum())


def _set(cap: Caps, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `kinds` that are limited; one that cannot be known now is."""
    return tuple(kind for kind in kinds if getattr(cap, kind) != np.inf)


def active(view: View, others: BoolArray) -> IntArray:
    """Rows held or working, and those of `others` [N]."""
    return np.asarray((in_use(view) | others).nonzero()[0])
