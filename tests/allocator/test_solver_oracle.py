"""The solver beside Clarabel at 1e-12: thousands of problems, plain, degenerate and adversarial.

How near is near: an objective within 1e-9 of the sum of its terms' sizes (at the oracle's answer and at today's book),
limits within 1e-8 of theirs. The oracle itself is good to 1e-12 in units in which everything is of order one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.allocator.certificate import dual_value, objective
from dea_daemon.allocator.problem import Multipliers, Problem, Solution
from dea_daemon.allocator.solver import solve
from dea_daemon.domain.errors import DeaError
from dea_daemon.domain.instruments import FloatArray
from tests.allocator import problems
from tests.allocator.oracle import Answer, beyond, in_cvxpy, natural_units, oracle, terms

NEAR, ORACLE_NEAR, WITHIN = 1e-9, 1e-11, 1e-8
SEEDS = st.integers(0, 2**32)


@dataclass
class Tally:
    """What was compared, and what was found wrong."""

    wrong: list[str] = field(default_factory=list)
    unsure: int = 0  # the oracle was: our own certificate must do
    seen: int = 0

    def add(self, name: str, problem: Problem, found: Solution) -> None:
        self.seen += 1
        answer = oracle(problem)
        self.unsure += answer.status != "Solved"
        self.wrong += [f"{name}: {what}" for what in complaints(problem, found, answer)]

    def check(self) -> None:
        told = f"{len(self.wrong)} of {self.seen} ({self.unsure} of which the oracle is unsure of)"
        assert not self.wrong, "\n".join([told, *self.wrong[:20]])
        assert self.unsure <= 0.05 * self.seen, told


def complaints(problem: Problem, found: Solution, answer: Answer) -> list[str]:
    """All that is wrong with an answer that claims to be optimal."""
    if found.status != "optimal":
        return [f"{found.status}, gap {found.gap:.1e}, violation {found.violation:.1e}, {found.iterations} iterations"]
    size, rounding = scales(problem, found.x, answer)
    cost, far = float(np.sum(terms(problem, found.x))), beyond(problem, found.x)
    best = answer.objective
    checks = {
        f"beyond a limit by {far:.1e}": far <= WITHIN,
        f"tells {found.objective}, costs {cost}": abs(found.objective - cost) <= 1e-12 * size,
        f"gap {found.gap:.1e} of {size:.1e}": 0.0 <= found.gap <= NEAR * size + rounding,
    }
    if answer.status == "Solved":
        checks[f"costs {cost}, not {best}: {(cost - best) / size:.1e}"] = cost - best <= NEAR * size + rounding
        lied = cost - best - found.gap
        checks[f"the gap is {found.gap:.1e}, but {lied:.1e} more was to be had"] = lied <= 1e-12 * size + rounding
    return [what for what, holds in checks.items() if not holds]


def scales(problem: Problem, x: FloatArray, answer: Answer) -> tuple[float, float]:
    """The sum of the terms' sizes, of the oracle's book or ours and of today's; and what the oracle may be off by."""
    held = np.clip(problem.x0, problem.lower, problem.upper)
    there = answer.x if answer.status == "Solved" else x
    size = float(np.abs(terms(problem, there)).sum() + np.abs(terms(problem, held)).sum())
    return size + 1e-300, ORACLE_NEAR * natural_units(problem)[1]


def compared(cases: Iterable[tuple[str, Problem]]) -> None:
    tally = Tally()
    for name, problem in cases:
        tally.add(name, problem, solve(problem))
    tally.check()


# --- the oracle ------------------------------------------------------------------------------------------------


def test_the_oracle_in_its_standard_form_and_in_the_words_of_cvxpy_is_the_same():
    for seed in range(40):
        case = problems.any_of_them(seed)
        if "units" in case.name:
            continue  # cvxpy does not change units
        programme, *_ = in_cvxpy(case.problem)
        programme.solve(solver="CLARABEL", tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11, max_iter=500)
        size = float(np.abs(terms(case.problem, case.inside)).sum()) + 1.0
        assert programme.value == pytest.approx(oracle(case.problem).objective, abs=1e-8 * size), case.name


# --- as near as the oracle -------------------------------------------------------------------------------------


@pytest.mark.parametrize("twist", problems.TWISTS, ids=lambda twist: twist.__name__)
def test_no_book_is_cheaper_than_the_solvers(twist):
    compared((f"{seed}", problems.spoiled(seed, twist)) for seed in range(50))


@pytest.mark.parametrize("block", range(4))
def test_nor_where_several_things_are_hard_at_once(block):
    compared((case.name, case.problem) for case in map(problems.any_of_them, range(500 * block, 500 * (block + 1))))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", range(4))
def test_nor_in_sixteen_thousand(block):
    seeds = range(10_000 + 4_000 * block, 14_000 + 4_000 * block)
    compared((case.name, case.problem) for case in map(problems.any_of_them, seeds))


def test_nor_of_two_hundred_positions():
    twists = (problems.twins, problems.tiny_d, problems.gross, problems.soft_rows, problems.duplicate_rows)
    compared((t.__name__, problems.spoiled(seed, t, n=200)) for t in twists for seed in range(3))


def test_nor_of_one():
    compared((f"{t.__name__} {seed}", problems.spoiled(seed, t, n=1)) for t in problems.TWISTS for seed in range(8))


def test_a_wrong_start_costs_time_and_nothing_else():
    tally = Tally()
    for seed in range(300):
        case = problems.any_of_them(seed)
        start = some_multipliers(case.problem, seed, spread=6.0)
        tally.add(f"from a wrong start, {case.name}", case.problem, solve(case.problem, start))
    tally.check()


def test_the_same_problem_again_is_answered_at_once_from_where_the_first_ended():
    for seed in range(100):
        problem = problems.spoiled(seed)
        first = solve(problem)
        again = solve(problem, first.multipliers)
        assert again.iterations <= 2
        size = float(np.abs(terms(problem, first.x)).sum() + np.abs(terms(problem, problem.x0)).sum())
        assert again.objective == pytest.approx(first.objective, abs=2 * NEAR * size)


# --- what cannot be met ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("twist", problems.HOPELESS, ids=lambda twist: twist.__name__)
def test_rows_that_cannot_be_met_are_widened_to_today_and_the_rest_is_solved(twist):
    tally = Tally()
    for seed in range(60):
        problem = problems.spoiled(seed, twist)
        assert oracle(problem).status == "PrimalInfeasible", seed
        found = solve(problem)
        if found.status != "widened" or not found.widened:
            tally.wrong.append(f"{seed}: {found.status}, widened {found.widened}")
            continue
        tally.add(f"{seed}", widened(problem, found.widened), replace(found, status="optimal"))
    tally.check()


def widened(problem: Problem, rows: tuple[int, ...]) -> Problem:
    """With today's book, cut to its box, within these rows (and gross limits, counted on from the rows)."""
    today, m = np.clip(problem.x0, problem.lower, problem.upper), len(problem.G)
    g, gross = problem.G @ today, problem.gross @ np.abs(today)
    chosen = np.isin(np.arange(m + len(gross)), rows)
    return replace(
        problem,
        g_lower=np.where(chosen[:m], np.minimum(problem.g_lower, g), problem.g_lower),
        g_upper=np.where(chosen[:m], np.maximum(problem.g_upper, g), problem.g_upper),
        gross_limit=np.where(chosen[m:], np.maximum(problem.gross_limit, gross), problem.gross_limit),
    )


@pytest.mark.parametrize("name", problems.FIELDS)
def test_not_a_number_is_refused_wherever_it_stands(name):
    problem = problems.spoiled(3, problems.equality_rows, problems.gross, n=6)
    array = getattr(problem, name).copy()
    array.flat[-1] = np.nan
    with pytest.raises(DeaError, match=name):
        solve(replace(problem, **{name: array}))


def test_what_no_limit_holds_is_refused_or_told():
    """Return without risk, cost or limit: as much as there is. Whatever the solver says, it is not "optimal"."""
    plain = problems.spoiled(5, problems.no_rows, problems.no_factors, problems.no_d, problems.no_cost, n=4)
    try:
        found = solve(replace(plain, upper=np.full(4, np.inf), mu=np.ones(4)))
    except DeaError:
        return
    assert found.status != "optimal"


# --- the certificate -------------------------------------------------------------------------------------------


def some_multipliers(problem: Problem, seed: int, spread: float = 2.0) -> Multipliers:
    """Any at all, of the right signs and sizes for what they price."""
    dice = np.random.default_rng([seed, 2])
    unit, money = natural_units(problem)
    k, m, q = problem.B.shape[1], len(problem.G), len(problem.gross)
    price = money / unit * 10.0 ** dice.uniform(-spread, spread)
    y = dice.normal(0.0, price, m)
    y = np.where(np.isinf(problem.g_upper), np.minimum(y, 0.0), y)
    y = np.where(np.isinf(problem.g_lower), np.maximum(y, 0.0), y)
    y = np.clip(y, -problem.row_price, problem.row_price)
    u = np.asarray(dice.normal(0.0, unit, k))
    return Multipliers(u, y, np.abs(dice.normal(0.0, price, q)))


@settings(max_examples=300, deadline=None)
@given(seed=SEEDS)
def test_whatever_the_multipliers_no_book_within_the_limits_costs_less_than_their_dual_value(seed):
    case = problems.any_of_them(seed)
    bound = dual_value(case.problem, some_multipliers(case.problem, seed))
    size = float(np.abs(terms(case.problem, case.inside)).sum())
    assert bound <= objective(case.problem, case.inside) + 1e-12 * size + 1e-12 * abs(bound)


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS, off=st.floats(-12.0, -1.0))
def test_nor_of_multipliers_nearly_right(seed, off):
    case = problems.any_of_them(seed)
    answer = oracle(case.problem)
    if answer.status != "Solved":
        return
    right = solve(case.problem).multipliers
    dice = np.random.default_rng([seed, 3])

    def shaken(prices: FloatArray, least: FloatArray | float, most: FloatArray | float) -> FloatArray:
        off_by: FloatArray = 10.0**off * dice.normal(size=prices.shape)
        return np.asarray(np.clip(prices + prices * off_by, least, most))

    worth = case.problem.row_price
    nearly = Multipliers(
        shaken(right.u, -np.inf, np.inf), shaken(right.y, -worth, worth), shaken(right.nu, 0.0, np.inf)
    )
    size, rounding = scales(case.problem, answer.x, answer)
    assert dual_value(case.problem, nearly) <= answer.objective + 1e-12 * size + rounding


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS, most=st.integers(1, 4))
def test_the_certificate_holds_for_an_answer_broken_off_as_well(seed, most):
    case = problems.any_of_them(seed)
    answer, found = oracle(case.problem), solve(case.problem, most=most)
    size, rounding = scales(case.problem, answer.x, answer)
    assert found.objective == pytest.approx(float(np.sum(terms(case.problem, found.x))), abs=1e-12 * size, rel=1e-12)
    if found.status in ("optimal", "feasible") and answer.status == "Solved":
        assert found.gap >= found.objective - answer.objective - 1e-12 * size - rounding
        assert beyond(case.problem, found.x) <= WITHIN
