"""The judge of what guards let through: every limit measured anew, by enumeration and none of the guards' own code.

A book is what is held and, by row and side, what may still fill. `Judge` lays out every combination of those filling
or not (partial fills lie between, and every measure here is convex in lots, so none of them is worse), measures each
limit on all of them and keeps the worst. An order is judged by the worst before and after it.

To add a limit: one line in LIMITS, at its rank.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from dea_daemon.domain.commands import CreateOrder
from dea_daemon.domain.decisions import View
from dea_daemon.domain.factors import BUCKETS
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.parameters import GuardParameters
from dea_daemon.pricing import worst_days

SLACK = 1e-9  # of rounding: sums are added up here in another order
MOVES = [-0.16 + 0.04 * k for k in range(9)]
VOLS = (0.5, 0.0, -0.25)


class Working(NamedTuple):
    """What may still fill: signed lots of one row."""

    row: int
    lots: int


class Limit(NamedTuple):
    """`measure` gives [M, subjects] USD of M books [M, N]; `cap` USD, infinite where it is not set."""

    name: str
    measure: "Callable[[Judge, IntArray], FloatArray]"
    cap: Callable[[GuardParameters, float], float]


class Judge:
    """One view, one set of limits; the book grows with each order judged."""

    def __init__(self, view: View, working: Iterable[Working], params: GuardParameters) -> None:
        self.view, self.params = view, params
        self.held = view.position_lots
        self.flow: dict[tuple[int, bool], int] = {}
        for row, lots in working:
            self._let(row, lots)
        self.creates = 0

    def _let(self, row: int, lots: int) -> None:
        if lots:
            self.flow[row, lots > 0] = self.flow.get((row, lots > 0), 0) + lots

    # --- every combination of fills -----------------------------------------------------------------

    def books(self) -> IntArray:
        """[M, N] every book that some of what is working can leave."""
        flow = np.zeros((len(self.flow), len(self.held)), dtype=np.int64)
        for k, ((row, _), lots) in enumerate(self.flow.items()):
            flow[k, row] = lots
        filled = np.array(list(itertools.product((0, 1), repeat=len(flow))), dtype=np.int64)
        return self.held + filled @ flow if len(flow) else self.held[None]

    def worst(self, limit: Limit) -> FloatArray:
        """[subjects] the most any of them makes of a limit; NaN if one cannot be measured."""
        return np.asarray(limit.measure(self, self.books()).max(axis=0))

    # --- measures -------------------------------------------------------------------------------------

    def notional(self, books: IntArray) -> FloatArray:
        """[M, N]"""
        return np.where(books != 0, np.abs(books) * self.view.notional_per_lot_usd, 0.0)

    def grouped(self, books: IntArray, group: IntArray) -> FloatArray:
        """[M, groups] notional added up by `group` [N]."""
        one_hot = (group[:, None] == np.arange(int(group.max()) + 1)).astype(float)
        return np.asarray(self.notional(books) @ one_hot)

    def factors(self, books: IntArray, names: Sequence[str]) -> FloatArray:
        """[M, 2·names] both signs of the named exposures, each for itself: a breach of one side excuses none of the
        other. What moves it is only what is traded, so rows at rest that cannot be priced do not spoil it."""
        k = [self.view.factors.names.index(name) for name in names]
        moved = books - self.held
        delta = names[0].startswith("delta")
        rows = np.flatnonzero(moved.any(axis=0))
        u, per_lot = self.view.universe.underlying, self.view.exposure_per_lot[k][:, rows]
        if delta:  # an option's premium is paid in coin: the trade's own delta is what counts
            per_lot = np.where(u[rows] == np.arange(len(k))[:, None], self.view.delta_per_lot[rows], 0.0)
        value = self.view.exposure_usd[k] + moved[:, rows] @ per_lot.T
        return np.concatenate((value, -value), axis=1)

    def kinds(self, books: IntArray, kind: str, buckets: bool = False) -> FloatArray:
        names = [
            f"{kind}:{u}{bucket}"
            for u in self.view.universe.underlyings
            for bucket in ([f":{b}" for b, _ in BUCKETS] if buckets else [""])
        ]
        return self.factors(books, names)

    def outcomes(self, books: IntArray, moves: FloatArray, vols: FloatArray) -> FloatArray:
        """[M, S, U] USD made where each underlying moves by `moves` [S, U] and volatility by `vols` [S]."""
        about = self.view.universe
        made = np.empty((len(books), *moves.shape))
        for u in range(len(about.underlyings)):
            rows = [int(row) for row in np.flatnonzero((about.underlying == u) & books.any(axis=0))]
            gain = [[self._gain(row, m, v) for row in rows] for m, v in zip(moves[:, u], vols, strict=True)]
            coins = moves[:, u] * self.view.exposure_base_usd[u]
            made[:, :, u] = books[:, rows] @ np.array(gain).reshape(len(moves), len(rows)).T + coins
        return made

    def _gain(self, row: int, move: float, vol: float) -> float:
        view, about = self.view, self.view.universe
        if not about.option[row]:
            return move * float(view.delta_per_lot[row])
        days = (about.expiry_ns[row] - view.utc_ns) / 86_400e9
        shock = 1.0 + vol * (30.0 / max(days, 1.0)) ** (0.30 if days < 30.0 else 0.13)
        forward, iv = float(view.forward_price[row]), float(view.iv[row])
        now = self._black(row, forward, iv, days / 365.0)
        then = self._black(row, forward * (1.0 + move), max(iv * shock, 0.01), days / 365.0)
        if not about.coin_quoted[row]:
            return float(about.lot_value[row] * (then - now))
        spot = float(view.underlying_price[about.underlying[row]]) * (1.0 + move)
        return float(about.lot_value[row] * spot * (then / (forward * (1.0 + move)) - now / forward))

    def _black(self, row: int, forward: float, iv: float, years: float) -> float:
        about = self.view.universe
        strike, sign = float(about.strike[row]), 1.0 if about.call[row] else -1.0
        s = iv * years**0.5
        d1 = np.log(forward / strike) / s + 0.5 * s
        return float(sign * (forward * ndtr(sign * d1) - strike * ndtr(sign * (d1 - s))))

    def scenario(self, books: IntArray) -> FloatArray:
        """[M, 1] each underlying moves to its own worst point of the grid."""
        grid = np.repeat(np.repeat(MOVES, len(VOLS))[:, None], len(self.view.universe.underlyings), axis=1)
        made = self.outcomes(books, grid, np.tile(VOLS, len(MOVES)))
        return np.asarray(np.maximum(-made.min(axis=1), 0.0).sum(axis=1, keepdims=True))

    def stress(self, books: IntArray) -> FloatArray:
        """[M, 1] history's worst days, all underlyings together."""
        days = np.asarray(worst_days.moves(self.view.universe.underlyings))
        made = self.outcomes(books, days, np.full(len(days), VOLS[0])).sum(axis=2)
        return np.asarray(np.maximum(-made.min(axis=1), 0.0)[:, None])

    def tail(self, books: IntArray, deviations: float) -> FloatArray:
        """[M, 1] before moves were seen: a normal day, the underlyings together against the book, and what they make
        drawn through the points of the grid."""
        grid = np.repeat(np.array(MOVES)[:, None], len(self.view.universe.underlyings), axis=1)
        made = self.outcomes(books, grid, np.zeros(len(grid)))
        move = deviations * self.params.var_annual_vol / 365.0**0.5
        least = np.array([[self._worse(curve, move) for curve in of.T] for of in made])
        return np.asarray(np.maximum(-least, 0.0).sum(axis=1, keepdims=True))

    def _worse(self, curve: FloatArray, move: float) -> float:
        return min(float(np.interp(m, MOVES, curve, left=np.nan, right=np.nan)) for m in (-move, move))

    # --- the verdict ----------------------------------------------------------------------------------

    def objections(self, order: CreateOrder) -> list[str]:
        """Why this order should not have been let through; it is in the book from here on."""
        sign = order.side.sign
        towards_flat = self._towards_flat(order)
        why = [*self._validity(order), *self._budgets(order), *self._reduce_only(order)]
        equity = self.view.equity_usd
        before = [
            (limit, cap, self.worst(limit)) for limit in LIMITS if (cap := limit.cap(self.params, equity)) != np.inf
        ]
        filled = self.held.copy()
        filled[order.row] += sign * order.lots
        self._let(order.row, sign * order.lots)
        self.creates += 1
        reduces = False
        for limit, cap, was in before:
            now = self.worst(limit)
            room = np.maximum(cap, was) if cap == cap else was
            over = ~(now <= room + SLACK * (1.0 + np.abs(room)))
            over &= ~(now == was)  # what it does not touch
            unknown = np.isnan(now) & np.isnan(was)
            if unknown.any():  # what is not known may still be left, and does not hinder what has no part in it
                over &= ~(unknown & (towards_flat | ~self._touched(limit, order)))
            if over.any() and not reduces:
                why.append(f"{limit.name}: {was[over]} becomes {now[over]}, allowed {cap}")
            alone = limit.measure(self, filled[None])[0] < limit.measure(self, self.held[None])[0]
            reduces = reduces or bool((alone & (was > cap)).any())
        return why

    def _touched(self, limit: Limit, order: CreateOrder) -> BoolArray:
        """[subjects] those that an order is part of, in a book without anything else."""
        view = self.view
        nothing = replace(
            view,
            position_lots=np.zeros_like(self.held),
            exposure_usd=np.zeros_like(view.exposure_usd),
            exposure_base_usd=np.zeros_like(view.exposure_base_usd),
        )
        book = np.zeros((2, len(self.held)), dtype=np.int64)
        book[1, order.row] = order.side.sign * order.lots
        without, alone = limit.measure(Judge(nothing, (), self.params), book)
        return np.asarray(alone != without)

    def _validity(self, order: CreateOrder) -> list[str]:
        view, row = self.view, order.row
        contract = view.universe.instruments[row]
        ended = 0 < contract.expiry_ns <= view.utc_ns
        price = order.price_ticks * float(contract.tick_size)
        share = 0.25 + 1.0 if contract.strike else self.params.collar_bp * 1e-4
        bid, mark, ask = view.bid_price[row], view.mark_price[row], view.ask_price[row]
        beside = [mark] if contract.strike else [mark, (bid + ask) / 2.0]
        through = max(order.side.sign * (price / level - 1.0) for level in beside)
        ours = [o for o in view.orders if o.row == row and not o.state.is_terminal and o.side is not order.side]
        halted = view.mode in (Mode.HALTED, Mode.PAUSED)
        facts = (
            (view.armed and not halted, "disarmed, halted or paused"),
            (not view.draining and view.ready and view.recording, "draining, not ready or not recording"),
            (view.fresh[row] and not ended and contract.tradable, "stale, ended or not to be traded"),
            (not view.shut[row], "the venue takes none"),
            (np.isfinite([mark, ask, float(view.notional_per_lot_usd[row])]).all(), "unpriced"),
            (order.lots >= contract.min_lots and contract.on_grid(order.price_ticks), "off the venue's grid"),
            (order.valid_until_ms * 1_000_000 > view.utc_ns, "after its deadline"),
            (contract.strike or through <= share * (1.0 + SLACK), "beyond the collar"),
            (all((order.price_ticks - o.price_ticks) * order.side.sign < 0 for o in ours), "would meet our own"),
        )
        return [why for holds, why in facts if not holds]

    def _budgets(self, order: CreateOrder) -> list[str]:
        view, params, about = self.view, self.params, self.view.universe
        fee = np.maximum(about.maker_fee, about.taker_fee)
        usd = order.lots * float(view.notional_per_lot_usd[order.row])
        at_stake = [(abs(lots) * view.notional_per_lot_usd[r], fee[r]) for (r, _), lots in self.flow.items()]
        at_stake.append((usd, fee[order.row]))
        turnover, fees = sum(v for v, _ in at_stake), sum(v * f for v, f in at_stake)
        most = 1.0 + SLACK
        facts = (
            (usd <= params.max_order_usd * most, "one order too large"),
            (view.creates_last_minute + self.creates + 1 <= params.max_orders_per_minute, "too many in a minute"),
            (view.turnover_hour_usd + turnover <= params.max_turnover_usd_per_hour * most, "too much turnover"),
            (view.turnover_day_usd + turnover <= (params.max_turnover_usd_per_day or np.inf), "too much in a day"),
            (view.fees_hour_usd + fees <= params.max_fees_usd_per_hour * most, "too much in fees"),
            (view.fees_day_usd + fees <= (params.max_fees_usd_per_day or np.inf), "too much in fees of a day"),
        )
        return [why for holds, why in facts if not holds]

    def _towards_flat(self, order: CreateOrder) -> bool:
        """And not through it, though all that works on its side fills."""
        held = int(self.held[order.row]) * order.side.sign
        same = abs(self.flow.get((order.row, order.side.sign > 0), 0)) + order.lots
        return held < 0 and same <= -held

    def _reduce_only(self, order: CreateOrder) -> list[str]:
        """In any mode but normal, and where our own account cannot be relied upon, only what shrinks."""
        view, row, sign = self.view, order.row, order.side.sign
        if self._towards_flat(order):
            return []
        blind = not (view.account_fresh and np.isfinite(view.equity_usd) and view.equity_usd > 0.0)
        blind |= bool(view.outside) or not view.margin_use <= self.params.max_margin_danger
        blind |= not np.isfinite(view.delta_usd).all() or bool(view.quarantined[row]) or not view.watched
        blind |= not abs(view.peg[row] - 1.0) <= self.params.max_depeg
        if blind or view.mode is Mode.FLATTENING:
            return ["grows a position where only positions may shrink"]
        near = self.params.min_liquidation_distance
        far_enough = near is None or view.liquidation_distance >= near
        if view.mode is Mode.NORMAL and view.margin_use <= self.params.max_margin_use and far_enough:
            return []
        u = int(view.universe.underlying[row])
        x, delta = sign * float(view.delta_per_lot[row]), float(view.delta_usd[u])
        along = sum(
            abs(lots * float(view.delta_per_lot[r]))
            for (r, _), lots in self.flow.items()
            if view.universe.underlying[r] == u and lots * view.delta_per_lot[r] * x > 0.0
        )
        room = abs(delta) * (1.0 + SLACK)
        if not view.universe.option[row] and x * delta < 0.0 and along + abs(x) * order.lots <= room:
            return []  # against the delta, and not through zero
        return ["adds exposure while it may only shrink"]


def _least(usd: float | None, times: float | None, equity: float) -> float:
    return float(
        np.minimum(np.inf if usd is None else usd, np.inf if times is None else np.maximum(times * equity, 0.0))
    )


LIMITS: tuple[Limit, ...] = (  # in order of rank: a breach of one excuses none of those above it
    Limit("scenario", Judge.scenario, lambda p, e: _least(None, p.max_scenario_loss, e)),
    Limit("stress", Judge.stress, lambda p, e: _least(None, p.max_stress_loss, e)),
    Limit("var", lambda j, q: j.tail(q, 2.3263), lambda p, e: _least(None, p.max_var, e)),
    Limit("es", lambda j, q: j.tail(q, 2.3378), lambda p, e: _least(None, p.max_es, e)),
    Limit("net", lambda j, q: j.kinds(q, "delta"), lambda p, e: _least(p.max_net_usd, p.max_net_leverage, e)),
    Limit("vega", lambda j, q: j.kinds(q, "vega"), lambda p, e: _least(p.max_vega_usd_1pt, None, e)),
    Limit("gamma", lambda j, q: j.kinds(q, "gamma"), lambda p, e: _least(p.max_gamma_usd_1pct, None, e)),
    Limit(
        "bucket_vega", lambda j, q: j.kinds(q, "vega", True), lambda p, e: _least(p.max_bucket_vega_usd_1pt, None, e)
    ),
    Limit(
        "bucket_basis",
        lambda j, q: j.kinds(q, "basis", True),
        lambda p, e: _least(p.max_bucket_basis_usd_1pct, None, e),
    ),
    Limit("instrument", Judge.notional, lambda p, e: _least(p.max_instrument_usd, p.max_instrument_leverage, e)),
    Limit(
        "underlying",
        lambda j, q: j.grouped(q, j.view.universe.underlying),
        lambda p, e: _least(p.max_underlying_usd, p.max_underlying_leverage, e),
    ),
    Limit(
        "venue",
        lambda j, q: j.grouped(q, np.zeros_like(q[0])),  # one venue in all of these books
        lambda p, e: _least(p.max_venue_usd, p.max_venue_leverage, e),
    ),
    Limit(
        "gross",
        lambda j, q: j.notional(q).sum(axis=1, keepdims=True),
        lambda p, e: _least(p.max_gross_usd, p.max_gross_leverage, e),
    ),
)
