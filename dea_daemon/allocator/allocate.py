"""From wanted exposure to positions: outside its band each delta goes to its goal, in the contracts that reach it at
the least cost within every limit, and the answer says how good it is."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dea_daemon.allocator.band import Wander, crossing_cost
from dea_daemon.allocator.formulation import Choice, Goal, aversion, choice, formulate, rows_of, sums_of
from dea_daemon.allocator.problem import Multipliers, Problem, Solution
from dea_daemon.allocator.rounding import rounding_loss, to_lots
from dea_daemon.allocator.solver import solve
from dea_daemon.allocator.target import Aim, aim
from dea_daemon.domain.decisions import Allocation, Forecast, Move, ShadowPrice, Target, View
from dea_daemon.domain.errors import ConfigError, ProblemError
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.parameters import AllocatorParameters, GuardParameters

CERTIFIED = 1e-6  # gap, as a share of what the book costs
LEAST_COST = 1e-6  # USD per USD: nothing is traded for nothing
PRICES_TOLD = 8


class AllocatorMemory:
    """rebalancing [U]: trades under way. The last problem's multipliers, and what it was about, for a warm start."""

    def __init__(self, underlyings: int) -> None:
        self.rebalancing: BoolArray = np.zeros(underlyings, dtype=np.bool_)
        self.wander = Wander.begin(underlyings)
        self.multipliers: Multipliers | None = None
        self.about: tuple[object, ...] = ()
        self.problem: Problem | None = None  # for those who look on, and of which decision it was
        self.seq = 0
        self.held = False  # whether the last decision found no answer


@dataclass(frozen=True, slots=True)
class Answer:
    """What `allocate` found: the target, and for the memory what it was about and solved by."""

    target: Target
    problem: Problem | None = None
    about: tuple[object, ...] = ()
    multipliers: Multipliers | None = None


def observe(memory: AllocatorMemory, answer: Answer, view: View) -> None:
    """Keep of a decision what the next one begins with."""
    memory.rebalancing = answer.target.rebalancing
    memory.wander = memory.wander.after(view.now_ns, answer.target.exposure_usd)
    memory.held = answer.target.allocation.status == "held"
    if answer.problem is not None:
        memory.problem, memory.seq = answer.problem, view.seq
        memory.about, memory.multipliers = answer.about, answer.multipliers


def solver(params: AllocatorParameters) -> Callable[[Problem, Multipliers | None], Solution]:
    """The one asked for. The compiled one is imported when it is first asked for: a second, or a minute to compile.
    Raises ConfigError where it cannot be had."""
    if not params.fast:
        return solve
    try:
        from dea_daemon.allocator import fast
    except ImportError as error:
        raise ConfigError(f"allocator.fast needs numba (pip install 'dea-daemon[fast]'): {error}") from error
    return fast.solve


def allocate(
    view: View,
    forecast: Forecast,
    memory: AllocatorMemory,
    params: AllocatorParameters,
    limits: GuardParameters,
    surcharge: FloatArray | float = 0.0,
) -> Answer:
    """The whole book wanted. Options are held as they are and hedged with what has no strike, unless
    `allocator.factors` asks for more; pinned ones are closed, if so configured.

    `limits` are what guards will enforce, by their own measure: here they keep the wish from what they would cut.
    `surcharge` [N], USD per USD, is what trading was measured to cost beyond fee and half spread; it may be negative.
    """
    cost = np.maximum(crossing_cost(view) + surcharge, LEAST_COST)
    wanted = aim(view, forecast, cost, params, memory.wander)
    goal, rebalancing = _goal(view, wanted, memory.rebalancing)
    book = choice(view, forecast, goal, cost, params, limits)
    lots = view.position_lots.copy()
    if params.pinned == "reduce":
        lots[view.pinned & view.fresh] = 0
    target = Target(wanted.exposure, wanted.band, lots, rebalancing)
    if not len(book.rows):
        return Answer(target)
    if not (goal.active.any() or view.universe.option[book.rows].any()) and _nothing_to_gain(book):
        return Answer(replace(target, allocation=Allocation("certified")))
    return _solved(view, forecast, goal, book, target, memory, params, limits)


def _goal(view: View, wanted: Aim, rebalancing: BoolArray) -> tuple[Goal, BoolArray]:
    """Where the deltas are to be, and which are on their way: from leaving the band until the inner goal is reached."""
    distance = view.delta_usd - wanted.exposure
    outside = np.abs(distance) > wanted.band
    active = outside | (rebalancing & (np.abs(distance) > wanted.inner))
    reach = np.where(active, wanted.exposure + np.copysign(wanted.inner, distance), view.delta_usd)
    reach = np.where(np.isfinite(wanted.band) & np.isfinite(wanted.exposure), reach, np.nan)
    goal = Goal(reach, wanted.exposure, wanted.exposure - wanted.band, wanted.exposure + wanted.band, active)
    return goal, active | (rebalancing & np.isnan(reach))  # what is not known for a moment does not end a trade


def _nothing_to_gain(book: Choice) -> bool:
    """Whether, every delta staying, no exchange of one contract for another is worth its cost: exactly then are there
    prices y of the deltas at which each contract's marginal gain r − y·delta is within its cost of trading.

    The optimality of holding still, by the problem's own conditions; of a book of hedges, whose deltas are positive.
    """
    gain, cost = (book.mu - book.d * book.x0) / book.delta, book.cost / book.delta
    buys, sells = book.upper > book.x0, book.lower < book.x0
    n = int(book.underlying.max()) + 1
    least, most = np.full(n, -np.inf), np.full(n, np.inf)
    np.maximum.at(least, book.underlying[buys], (gain - cost)[buys])
    np.minimum.at(most, book.underlying[sells], (gain + cost)[sells])
    return bool((least <= most).all())


def _solved(
    view: View,
    forecast: Forecast,
    goal: Goal,
    book: Choice,
    target: Target,
    memory: AllocatorMemory,
    params: AllocatorParameters,
    limits: GuardParameters,
) -> Answer:
    rows, sums = rows_of(view, goal, book, params, limits), sums_of(view, book, limits)
    days_aversion = params.expected_hold_h / 24.0 * aversion(view, params, limits)
    problem = formulate(view, forecast, goal, book, rows, sums, days_aversion)
    names = (*((row.limit, row.subject) for row in rows), *((each.limit, each.subject) for each in sums))
    about = (tuple(book.rows.tolist()), *names)
    try:
        solution = solver(params)(problem, memory.multipliers if about == memory.about else None)
    except ProblemError:  # numbers no book can be chosen by: as is, and the daemon goes on
        return Answer(replace(target, allocation=Allocation("held")), problem, about)
    status = _status(solution)
    if status == "held":
        found = Allocation(status, iterations=solution.iterations)
        return Answer(replace(target, allocation=found), problem, about)
    whole = to_lots(problem, solution.x, book.lot_usd)
    lots = target.position_lots.copy()
    lots[book.rows] = whole
    found = Allocation(
        status=status,
        gap_usd=solution.gap,
        violation=solution.violation,
        iterations=solution.iterations,
        rounding_usd=rounding_loss(problem, solution.x, whole * book.lot_usd, solution.multipliers.y),
        cost_usd=float(book.fee @ np.abs(whole * book.lot_usd - problem.x0)),
        benefit_usd=_benefit(problem, book, whole * book.lot_usd),
        prices=_prices(solution, names),
        moves=_moves(view, book, whole),
    )
    return Answer(replace(target, position_lots=lots, allocation=found), problem, about, solution.multipliers)


def _status(solution: Solution) -> str:
    """certified, feasible, or held: the chain of what may still be relied upon."""
    if solution.status == "failed" or not solution.violation <= 1e-6:
        return "held"
    scale = max(1.0, abs(solution.objective))
    return "certified" if solution.gap <= CERTIFIED * scale else "feasible"


def _benefit(problem: Problem, book: Choice, x: FloatArray) -> float:
    """USD by which carry and risk are better at x than at x0; what it brings towards the goals is not in dollars."""
    x0 = problem.x0
    gradient = problem.mu - book.mu + book.carry - problem.d * x0 - problem.B @ (problem.omega @ (problem.B.T @ x0))
    step = x - x0
    exposure = step @ problem.B
    return float(gradient @ step - 0.5 * (step @ (problem.d * step) + exposure @ problem.omega @ exposure))


def _prices(solution: Solution, names: tuple[tuple[str, str], ...]) -> tuple[ShadowPrice, ...]:
    """Those that bind, the dearest first."""
    price = np.concatenate((np.abs(solution.multipliers.y), solution.multipliers.nu))
    dearest = [int(i) for i in np.argsort(-price, kind="stable")[:PRICES_TOLD] if price[i] > 1e-12]
    return tuple(ShadowPrice(*names[i], float(price[i])) for i in dearest)


def _moves(view: View, book: Choice, lots: IntArray) -> tuple[Move, ...]:
    found = []
    held = view.position_lots[book.rows]
    for i in np.flatnonzero(lots != held):
        usd = float((lots[i] - held[i]) * book.lot_usd[i])
        found.append(
            Move(
                instrument=view.universe.instruments[book.rows[i]].name,
                from_lots=int(held[i]),
                to_lots=int(lots[i]),
                usd=usd,
                cost_usd=float(book.fee[i] * abs(usd)),
                carry_usd=float(book.carry[i] * lots[i] * book.lot_usd[i]),
            )
        )
    return tuple(found)


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
