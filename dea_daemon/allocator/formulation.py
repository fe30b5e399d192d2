"""From a view and what is wanted of its exposures to the problem: which contracts may move, what each costs and earns,
and the rows that say how far the book may go.

x [n] is what is held in each contract that may move, USD of notional, signed. Costs, carry and risk count over one
horizon, `allocator.expected_hold_h`. The wish is soft, at a price above any cost; limits are hard, each widened to what
is held already, so that holding still is always possible.
"""

from typing import NamedTuple

import numpy as np

from dea_daemon.allocator.band import cheapest, hedges, risk_aversion
from dea_daemon.allocator.problem import Problem
from dea_daemon.domain.decisions import Forecast, View
from dea_daemon.domain.factors import BUCKETS
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import AllocatorParameters, FactorTarget, GuardParameters
from dea_daemon.pricing.revaluation import GRID, gain_per_lot, scenarios

MOST_OPTIONS = 32  # besides those held: the cheapest for what they bring
ANOTHER = 1e-4  # USD per USD: one contract more is one order more, which spreading a trifle of risk is not worth
LEAST_RESIDUAL = 0.01  # of the underlying's variance: no contract is exactly another


class Goal(NamedTuple):
    """Of the deltas, [U] USD: `reach` is where each is to be after this decision (NaN: not ours to move), `aim` what
    is wanted in the end, `low` to `high` its band. `active`: it is on its way."""

    reach: FloatArray
    aim: FloatArray
    low: FloatArray
    high: FloatArray
    active: BoolArray


class Choice(NamedTuple):
    """The n contracts that may move, all [n]: their rows in the universe, underlying, USD of notional a lot, USD of
    delta per USD of that, and what is held, USD. What a dollar held is expected to earn over the horizon (`carry`), and
    one traded to cost (`fee`); `mu` and `cost` are these as they count in the choice. Risk per USD²; and the box."""

    rows: IntArray
    underlying: IntArray
    lot_usd: FloatArray
    delta: FloatArray
    x0: FloatArray
    carry: FloatArray
    fee: FloatArray
    mu: FloatArray
    cost: FloatArray
    d: FloatArray
    lower: FloatArray
    upper: FloatArray


class Row(NamedTuple):
    """One two-sided row of the problem: its limit or wish, of what, its coefficients [n] and bounds."""

    limit: str
    subject: str
    each: FloatArray
    lower: float
    upper: float
    soft: bool


class Sum(NamedTuple):
    """One limit on Σ weight |x|."""

    limit: str
    subject: str
    weight: FloatArray
    most: float


def choice(
    view: View,
    forecast: Forecast,
    goal: Goal,
    cost: FloatArray,
    params: AllocatorParameters,
    limits: GuardParameters,
) -> Choice:
    """What may move, and what it is worth. `cost` [N] USD per USD traded. Options move only while one of the other
    factors wanted is outside its band, where there is something to hedge them with."""
    universe = view.universe
    ours = np.isfinite(goal.reach)[universe.underlying]
    rows = np.flatnonzero(hedges(view) & ours & np.isfinite(cost))
    if params.factors:
        rows = rows[_measured(view, rows, params)]
        hedged = np.isin(universe.underlying, universe.underlying[rows])
        if astray(view, params):
            found = options(view, ours & hedged, cost, params)
            rows = np.concatenate((rows, found[_measured(view, found, params)]))
    u, lot_usd = universe.underlying[rows], view.notional_per_lot_usd[rows]
    option = universe.option[rows]
    x0, fee, delta = view.position_lots[rows] * lot_usd, cost[rows], view.delta_per_lot[rows] / lot_usd
    days = params.expected_hold_h / 24.0
    carry = _days_left(view, rows, days) * forecast.carry[rows]
    if option.any():
        carry[option] = days * time_value(view, forecast, rows[option])
        # The delta that comes with it is hedged away one day: an option is no cheaper way to a delta.
        fee = fee + np.where(option, np.nan_to_num(cheapest(view, cost))[u] * np.abs(delta), 0.0)
    mu = carry if params.carry_trades else np.where(option, 0.0, carry)
    paid, favour = _at_work(view, rows, fee, params)
    paid += ANOTHER * _additional(u, paid - mu * np.sign(goal.reach - view.delta_usd)[u], (x0 != 0.0) | (favour != 0.0))
    variance = forecast.annual_vol[u] ** 2 / DAYS_PER_YEAR
    residual = np.fmax(forecast.residual_variance[rows], LEAST_RESIDUAL * variance)
    lower, upper = _box(view, goal, rows, u, lot_usd, x0, params, limits)
    return Choice(
        rows=rows,
        underlying=u,
        lot_usd=lot_usd,
        delta=delta,
        x0=x0,
        carry=carry,
        fee=fee,
        mu=mu + favour,
        cost=paid,
        d=days * aversion(view, params, limits) * residual,
        lower=lower,
        upper=upper,
    )


def _measured(view: View, rows: IntArray, params: AllocatorParameters) -> BoolArray:
    """[n] contracts of which every factor wanted is known."""
    factors = np.array([k for k, _, _ in kept(view, params)], dtype=np.int64)
    return np.asarray(np.isfinite(view.exposure_per_lot[np.ix_(factors, rows)]).all(axis=0))


def _days_left(view: View, rows: IntArray, days: float) -> FloatArray:
    """[n] of the horizon, no longer than the contract lives."""
    expiry = view.universe.expiry_ns[rows]
    return np.where(expiry > 0, np.minimum(np.maximum((expiry - view.utc_ns) / NS_PER_DAY, 0.0), days), days)


def aversion(view: View, params: AllocatorParameters, limits: GuardParameters) -> float:
    """γ of `risk_aversion`, 1/USD; where equity is not known, or gone, the gross limit stands in for it, and next to
    nothing counts as a hundredth of that: hedges must still be chosen."""
    least_usd = 0.01 * limits.max_gross_usd
    return risk_aversion(max(view.equity_usd, least_usd) if view.equity_usd > 0.0 else limits.max_gross_usd, params)


def options(view: View, ours: BoolArray, cost: FloatArray, params: AllocatorParameters) -> IntArray:
    """The options that may move: those held, and of those that both sides quote now the cheapest for what they add to
    the wanted factors; where no surface is relied upon only those held, to shrink (`_box`)."""
    universe = view.universe
    sure = universe.option & universe.tradable & ours & view.fresh & ~view.shut & ~view.quarantined & ~view.pinned
    sure &= ~view.modelled & ~view.greeks_off & (view.settling == 1.0) & np.isfinite(view.delta_per_lot)
    sure &= np.isfinite(cost) & (view.bid_price > 0.0)
    held = sure & (view.position_lots != 0)
    quoted = np.flatnonzero(sure & ~held & ~view.surface_doubt[universe.underlying])
    brings = (
        np.abs(view.exposure_per_lot[[k for k, _, _ in kept(view, params)]][:, quoted])
        / view.notional_per_lot_usd[quoted]
    )
    scale = brings.max(axis=1, initial=0.0)
    worth = (brings[scale > 0.0] / scale[scale > 0.0, None]).max(axis=0, initial=0.0)
    quoted = quoted[worth > 0.0]
    dear = cost[quoted] / worth[worth > 0.0]
    return np.concatenate((np.flatnonzero(held), quoted[np.argsort(dear, kind="stable")[:MOST_OPTIONS]]))


def time_value(view: View, forecast: Forecast, rows: IntArray) -> FloatArray:
    """[n] what a dollar of an option's notional is expected to earn a day, its delta hedged: theta, and gamma at the
    volatility forecast instead of the one it is quoted at."""
    u = view.universe.underlying[rows]
    variance = forecast.annual_vol[u] ** 2 / DAYS_PER_YEAR
    gamma, theta = (view.exposure_per_lot[view.factors.first(kind) + u, rows] for kind in ("gamma", "theta"))
    return np.asarray(np.nan_to_num((theta + 50.0 * gamma * variance) / view.notional_per_lot_usd[rows]))


def _at_work(
    view: View, rows: IntArray, cost: FloatArray, params: AllocatorParameters
) -> tuple[FloatArray, FloatArray]:
    """(cost, return) per USD: going on where an order is at work is cheaper by `switch_bp`, its place in the queue.

    A cost of c − s to buy and c to sell is one of c − s/2 both ways and a return of s/2.
    """
    side = np.sign((view.working_buy_lots - view.working_sell_lots)[rows])
    cheaper = 0.5 * np.minimum(params.switch_bp * 1e-4, cost)
    return cost - cheaper * (side != 0), cheaper * side


def _additional(u: IntArray, price: FloatArray, engaged: BoolArray) -> BoolArray:
    """[n] contracts neither held nor worked in; where there is none else, the one of the best `price` [n] excepted."""
    more = ~engaged
    idle = np.flatnonzero(more & ~np.isin(u, u[engaged]))
    if len(idle):
        idle = idle[np.lexsort((price[idle], u[idle]))]
        more[idle[np.unique(u[idle], return_index=True)[1]]] = False
    return more


def _box(
    view: View,
    goal: Goal,
    rows: IntArray,
    u: IntArray,
    lot_usd: FloatArray,
    x0: FloatArray,
    params: AllocatorParameters,
    limits: GuardParameters,
) -> tuple[FloatArray, FloatArray]:
    """(lower, upper) [n] USD. Without `carry_trades` no hedge is opened against the others: what is on the wrong side
    may only shrink. Nothing is opened shortly before its end, nor beyond what one contract may hold."""
    universe, option = view.universe, view.universe.option[rows]
    most = np.floor(cap(limits.max_instrument_usd, limits.max_instrument_leverage, view.equity_usd) / lot_usd) * lot_usd
    expiry = universe.expiry_ns[rows]
    late = (expiry > 0) & (expiry - view.utc_ns < params.avoid_expiry_h * 3_600 * NS_PER_S)
    most = np.where(late, 0.0, most)
    lower, upper = -most, most
    if not params.carry_trades:
        held = np.bincount(u, np.where(option, 0.0, view.delta_per_lot[rows] / lot_usd * x0), len(goal.reach))
        wanted = (goal.reach - view.delta_usd + held)[u]  # of all hedges together
        lower = np.where(~option & (wanted >= 0.0), 0.0, lower)
        upper = np.where(~option & (wanted < 0.0), 0.0, upper)
    doubted = option & view.surface_doubt[view.universe.underlying[rows]]
    lower, upper = np.where(doubted, 0.0, lower), np.where(doubted, 0.0, upper)
    return np.minimum(lower, x0), np.maximum(upper, x0)


def cap(usd: float | None, leverage: float | None, equity_usd: float) -> float:
    """A limit in force: infinite where none is set; 0, so that nothing grows, where it cannot be known."""
    least = np.inf if usd is None else usd
    if leverage is not None:
        least = min(least, leverage * equity_usd) if equity_usd > 0.0 else 0.0
    return float(least)


def rows_of(
    view: View, goal: Goal, book: Choice, params: AllocatorParameters, limits: GuardParameters
) -> tuple[Row, ...]:
    """Every two-sided row: first the deltas wanted, then the other factors wanted, then limits, but for those that hold
    wherever in its box the book is."""
    wishes = (*_deltas(view, goal, book), *factor_rows(view, book, params))
    hard = (*_limits(view, book, limits), *_losses(view, goal, book, limits))
    return (*wishes, *(row for row in hard if _may_break(row, book)))


def _may_break(row: Row, book: Choice) -> bool:
    ends = row.each * np.array((book.lower, book.upper))
    return not (ends.min(axis=0).sum() >= row.lower and ends.max(axis=0).sum() <= row.upper)


def _deltas(view: View, goal: Goal, book: Choice) -> list[Row]:
    """Each delta goes where it is to be; where options move it anyway, anywhere within its band will do."""
    free = np.zeros(len(goal.reach), dtype=np.bool_)
    free[book.underlying[view.universe.option[book.rows]]] = True
    found = []
    for u in np.unique(book.underlying):
        each = np.where(book.underlying == u, book.delta, 0.0)
        offset = float(each @ book.x0 - view.delta_usd[u])
        anywhere = free[u] and not goal.active[u]
        low, high = (goal.low[u], goal.high[u]) if anywhere else (goal.reach[u], goal.reach[u])
        name = view.factors.names[u]
        found.append(Row("band", name, each, float(low) + offset, float(high) + offset, soft=True))
    return found


def kept(view: View, params: AllocatorParameters) -> list[tuple[int, str, FactorTarget]]:
    """(row of X, name, target) of each other factor that is to be kept in a band."""
    names = view.factors.names
    return [(names.index(name), name, target) for name, target in params.factors.items() if name in names]


def astray(view: View, params: AllocatorParameters) -> bool:
    """Whether one of them is known to be outside its band."""
    return any(abs(view.exposure_usd[k] - wanted.usd) > wanted.band_usd for k, _, wanted in kept(view, params))


def factor_rows(view: View, book: Choice, params: AllocatorParameters) -> list[Row]:
    """Without those that nothing that may move changes, and those not known."""
    found = []
    for k, name, target in kept(view, params):
        each, now = view.exposure_per_lot[k, book.rows] / book.lot_usd, float(view.exposure_usd[k])
        if (each != 0.0).any() and now == now:
            centre = target.usd + float(each @ book.x0) - now
            found.append(Row("band", name, each, centre - target.band_usd, centre + target.band_usd, soft=True))
    return found


def _limits(view: View, book: Choice, limits: GuardParameters) -> list[Row]:
    """The linear limits, of what may move; a delta's by what a trade changes, its premium counted."""
    most = {
        "net": cap(limits.max_net_usd, limits.max_net_leverage, view.equity_usd),
        "gamma": cap(limits.max_gamma_usd_1pct, None, 0.0),
        "vega": cap(limits.max_vega_usd_1pt, None, 0.0),
        "bucket_vega": cap(limits.max_bucket_vega_usd_1pt, None, 0.0),
        "bucket_basis": cap(limits.max_bucket_basis_usd_1pct, None, 0.0),
    }
    found = []
    for limit, allowed in most.items():
        if allowed == np.inf:
            continue
        for k, subject in _lines(view, limit):
            if limit == "net":
                each = np.where(book.underlying == k, book.delta, 0.0)
            else:
                each = view.exposure_per_lot[k, book.rows] / book.lot_usd
            now = float(view.exposure_usd[k])
            if not ((each != 0.0).any() and np.isfinite(each).all() and now == now):
                continue
            offset = float(each @ book.x0) - now
            found.append(Row(limit, subject, each, min(-allowed, now) + offset, max(allowed, now) + offset, False))
    return found


def _lines(view: View, limit: str) -> list[tuple[int, str]]:
    """(row of X, name) of each thing a limit is on."""
    n, names = len(view.universe.underlyings), view.factors.names
    if limit.startswith("bucket_"):
        first = view.factors.first(limit.removeprefix("bucket_"), 0)
        return [(k, names[k]) for k in range(first, first + n * len(BUCKETS))]
    first = view.factors.first("delta" if limit == "net" else limit)
    return [(k, names[k]) for k in range(first, first + n)]


def _losses(view: View, goal: Goal, book: Choice, limits: GuardParameters) -> list[Row]:
    """Losses are linear in what is held, scenario by scenario: that of history's days, and that of the grid with each
    underlying at its own worst point, as guards take it: the worst of now, and of the book with every delta reached."""
    most = {"scenario": limits.max_scenario_loss, "stress": limits.max_stress_loss}
    if all(share is None for share in most.values()):
        return []
    held, n = np.flatnonzero(view.position_lots), len(view.universe.underlyings)
    rows = np.union1d(held, book.rows)
    gain = gain_per_lot(view, rows)
    of = np.eye(n)[view.universe.underlying[rows]]
    coins = scenarios(view.universe.underlyings).move * view.exposure_base_usd[:n]
    now = (gain * view.position_lots[rows]) @ of + coins  # [S, U]
    each = gain[:, np.searchsorted(rows, book.rows)] / book.lot_usd
    if np.isnan(now).any() or np.isnan(each).any():
        return []  # what cannot be valued is for the guards to judge
    to_go = np.where(np.isfinite(goal.reach), goal.reach - view.delta_usd, 0.0)
    then = now[:GRID] + scenarios(view.universe.underlyings).move[:GRID] * to_go
    found = []
    if most["scenario"] is not None:
        for at in {tuple(outcome.argmin(axis=0).tolist()): None for outcome in (now[:GRID], then)}:
            cells = each[np.array(at)[book.underlying], np.arange(len(book.rows))]
            outcome = float(now[at, np.arange(n)].sum())
            found.append(_loss("scenario", cells, outcome, most["scenario"], view, book))
    if most["stress"] is not None:
        found += [_loss("stress", cells, float(total), most["stress"], view, book)
                  for cells, total in zip(each[GRID:], now[GRID:].sum(axis=1), strict=True)]  # fmt: skip
    return found


def _loss(limit: str, each: FloatArray, now: float, share: float, view: View, book: Choice) -> Row:
    """The outcome, `now` and after, is at least −share of equity, or what it is now."""
    least = min(-cap(None, share, view.equity_usd), now)
    return Row(limit, "book", each, least + float(each @ book.x0) - now, np.inf, soft=False)


def sums_of(view: View, book: Choice, limits: GuardParameters) -> tuple[Sum, ...]:
    """The limits on sums of |notional|: of all, by underlying, by venue, and by margin pool."""
    universe, equity = view.universe, view.equity_usd
    caps = {
        "gross": cap(limits.max_gross_usd, limits.max_gross_leverage, equity),
        "underlying": cap(limits.max_underlying_usd, limits.max_underlying_leverage, equity),
        "venue": cap(limits.max_venue_usd, limits.max_venue_leverage, equity),
    }
    of = {"gross": np.zeros(len(universe), dtype=np.int64), "underlying": universe.underlying, "venue": universe.venue}
    subjects = {"gross": ("book",), "underlying": universe.underlyings, "venue": universe.venues}
    held = np.flatnonzero(view.position_lots)
    worth = np.abs(view.position_lots[held]) * view.notional_per_lot_usd[held]
    found = []
    for limit, allowed in caps.items():
        if allowed == np.inf:
            continue
        for number in np.unique(of[limit][book.rows]):
            mine = of[limit][book.rows] == number
            total = float(worth[of[limit][held] == number].sum())
            now = float(np.abs(book.x0[mine]).sum())
            # Where something held cannot be valued, nothing grows.
            most = max(allowed - (total - now), now) if total == total else now
            found.append(Sum(limit, subjects[limit][number], mine.astype(np.float64), most))
    furthest = np.maximum(-book.lower, book.upper)
    found += _pools(view, book, limits, held, worth)
    return tuple(each for each in found if each.weight @ furthest > each.most)


def _pools(view: View, book: Choice, limits: GuardParameters, held: IntArray, worth: FloatArray) -> list[Sum]:
    """Margin, taken to grow with what a pool's positions are worth; nothing is known of an empty one."""
    universe, found = view.universe, []
    for pool in np.unique(universe.pool[book.rows]):
        mine = universe.pool[book.rows] == pool
        use = float(view.row_margin_use[book.rows[mine][0]])
        total = float(worth[universe.pool[held] == pool].sum())
        if use == 0.0 or not (use > 0.0 and total > 0.0):
            continue
        now = float(np.abs(book.x0[mine]).sum())
        most = max(total * limits.max_margin_use / use - (total - now), now)
        account, currency = universe.pools[pool]
        name = f"{universe.accounts[account]} {currency}"
        found.append(Sum("margin", name, mine.astype(np.float64), most))
    return found


def formulate(
    view: View,
    forecast: Forecast,
    goal: Goal,
    book: Choice,
    rows: tuple[Row, ...],
    sums: tuple[Sum, ...],
    days_aversion: float,
) -> Problem:
    """The problem; `days_aversion` γ·days, 1/USD · day. Factor risk is of the deltas' distance from their aim, so it
    draws towards it what moves anyway."""
    n, targeted = len(book.rows), np.unique(book.underlying)
    B = np.where(book.underlying[:, None] == targeted, book.delta[:, None], 0.0)
    omega = days_aversion * forecast.covariance[np.ix_(targeted, targeted)]
    apart = view.delta_usd[targeted] - goal.aim[targeted] - B.T @ book.x0  # of the aim, were none of them held
    G = np.array([row.each for row in rows]).reshape(len(rows), n)
    reach = np.abs(G).max(axis=1, initial=0.0)
    soft = np.array([row.soft for row in rows])
    return Problem(
        mu=book.mu - B @ (omega @ apart),
        B=B,
        omega=omega,
        d=book.d,
        cost=book.cost,
        x0=book.x0,
        lower=book.lower,
        upper=book.upper,
        G=G,
        g_lower=np.array([row.lower for row in rows]),
        g_upper=np.array([row.upper for row in rows]),
        # As much as the notional of the contract that moves it most: beyond any cost, so met wherever it can be.
        row_price=np.where(soft, 1.0 / np.maximum(reach, 1e-300), np.inf),
        gross=np.array([each.weight for each in sums]).reshape(len(sums), n),
        gross_limit=np.array([each.most for each in sums]),
    )
