"""The interior point method and the polish by themselves: as near as Clarabel, where Newton's method never ran."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dea_daemon.allocator.certificate import dual_value, objective, violation
from dea_daemon.allocator.interior import interior, rescue
from dea_daemon.allocator.polish import polish
from dea_daemon.allocator.problem import Multipliers, Problem
from dea_daemon.allocator.solver import solve, widen
from dea_daemon.domain.errors import ProblemError
from tests.allocator import problems
from tests.allocator.oracle import beyond, oracle, terms

NEAR, WITHIN = 1e-9, 1e-8
Answer = tuple[np.ndarray, Multipliers]


def gap(problem: Problem, answer: Answer) -> float:
    """By the sizes of the terms that the cost and its bound are sums of."""
    x, prices = answer
    side = np.where(prices.y > 0.0, problem.g_upper, problem.g_lower)
    used = prices.y != 0.0
    bound = float(np.abs(prices.y[used]) @ np.abs(side[used])) + float(prices.nu @ np.abs(problem.gross_limit))
    size = float(np.abs(terms(problem, x)).sum()) + bound
    return abs(objective(problem, x) - dual_value(problem, prices)) / (size + 1e-300)


def certified(problem: Problem, answer: Answer) -> bool:
    return gap(problem, answer) <= NEAR and violation(problem, answer[0]) <= WITHIN


def answered(problem: Problem) -> Answer:
    """By these two methods alone."""
    best: list[Answer] = []

    def right(answer: Answer) -> bool:
        best.append(answer)
        return certified(problem, answer)

    assert not rescue(problem, None, right).any()
    return best[-1]


# --- as near as the oracle -------------------------------------------------------------------------------------


@pytest.mark.parametrize("twist", problems.TWISTS, ids=lambda twist: twist.__name__)
def test_the_interior_point_method_alone_answers_what_is_hard(twist: problems.Twist) -> None:
    for seed in range(10):
        problem = problems.spoiled(seed, twist)
        answer, best = answered(problem), oracle(problem)
        assert certified(problem, answer), (seed, gap(problem, answer))
        if best.status == "Solved":
            size = float(np.abs(terms(problem, best.x)).sum()) + 1.0
            assert objective(problem, answer[0]) <= best.objective + NEAR * size, seed


def test_nor_do_several_things_at_once_stop_it() -> None:
    for seed in range(120):
        case = problems.any_of_them(seed)
        assert certified(case.problem, answered(case.problem)), case.name


def rescaled(seed: int) -> Problem:
    """Each position counted in another unit, each row and gross limit in another, 1e-9 … 1e9."""
    p, dice = problems.spoiled(seed, problems.soft_rows, problems.gross), np.random.default_rng([seed, 7])
    c, r, q = (10.0 ** dice.uniform(-9.0, 9.0, size) for size in (len(p.mu), len(p.G), len(p.gross)))
    columns = {name: getattr(p, name) * c for name in ("x0", "lower", "upper")}
    columns |= {name: getattr(p, name) / c for name in ("mu", "cost")}
    rows = {"g_lower": p.g_lower * r, "g_upper": p.g_upper * r, "row_price": p.row_price / r}
    weights = {"G": p.G * r[:, None] / c, "gross": p.gross * q[:, None] / c, "gross_limit": p.gross_limit * q}
    return replace(p, B=p.B / c[:, None], d=p.d / c**2, **columns, **rows, **weights)


def every_position_twice(seed: int) -> Problem:
    p = problems.spoiled(seed, problems.no_d, problems.equality_rows, problems.gross)
    twice = np.repeat(np.arange(len(p.mu)), 2)
    columns = {name: getattr(p, name)[twice] for name in ("mu", "B", "d", "cost", "x0", "lower", "upper")}
    return replace(p, G=p.G[:, twice], gross=p.gross[:, twice], **columns)


def nothing_may_be_held(seed: int) -> Problem:
    p = problems.spoiled(seed, problems.gross, problems.no_rows)
    return replace(p, gross_limit=0.0 * p.gross_limit, lower=np.minimum(p.lower, 0.0), upper=np.maximum(p.upper, 0.0))


def x0_far_outside(seed: int) -> Problem:
    p = problems.spoiled(seed, problems.soft_rows, problems.gross)
    return replace(p, x0=p.x0 + 1e9 * np.random.default_rng(seed).normal(size=len(p.x0)))


def empty_rows(seed: int) -> Problem:
    p = problems.spoiled(seed, problems.soft_rows, problems.many_rows)
    return replace(p, G=0.0 * p.G, g_lower=np.minimum(p.g_lower, 0.0), g_upper=np.maximum(p.g_upper, 0.0))


def huge_returns(seed: int) -> Problem:
    p = problems.spoiled(seed, problems.soft_rows, problems.gross, problems.tiny_d)
    return replace(p, mu=1e12 * p.mu)


def linear(seed: int) -> Problem:
    twists = (problems.no_factors, problems.no_d, problems.soft_rows, problems.duplicate_rows, problems.gross)
    return problems.spoiled(seed, *twists)


ATTACKS = (rescaled, every_position_twice, nothing_may_be_held, x0_far_outside, empty_rows, huge_returns, linear)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_no_scale_and_no_tie_stops_it(attack: Callable[[int], Problem]) -> None:
    for seed in range(10):
        problem = attack(seed)
        assert certified(problem, answered(problem)), seed
        assert solve(problem).status == "optimal", seed


# --- what cannot be met, what has no end -----------------------------------------------------------------------


@pytest.mark.parametrize("twist", problems.HOPELESS, ids=lambda twist: twist.__name__)
def test_limits_that_cannot_be_met_are_found_and_what_is_left_is_answered(twist: problems.Twist) -> None:
    for seed in range(20):
        problem = problems.spoiled(seed, twist)
        unmet = interior(problem).unmet
        assert unmet.any(), seed
        while unmet.any():
            problem = widen(problem, unmet)
            unmet = interior(problem).unmet
        assert oracle(problem).status != "PrimalInfeasible", seed
        assert certified(problem, answered(problem)), seed


def test_limits_that_can_be_met_never_count_as_impossible() -> None:
    """`inside` is within all of them; some leave nothing else."""
    for seed in range(60):
        twists = (problems.equality_rows, problems.fixed, problems.gross, problems.neutral)
        assert not interior(problems.spoiled(seed, *twists)).unmet.any(), seed


def far_from_the_origin(width: float) -> Problem:
    """One row that asks for what only the far end of the box has; nothing held today."""
    one, nothing = np.ones(1), np.zeros(0)
    return Problem(
        mu=one, B=np.zeros((1, 0)), omega=np.zeros((0, 0)), d=1e-9 * one, cost=one, x0=0.0 * one, lower=0.0 * one,
        upper=width * one, G=np.ones((1, 1)), g_lower=3e7 * one, g_upper=4e7 * one, row_price=np.inf * one,
        gross=np.zeros((0, 1)), gross_limit=nothing,
    )  # fmt: skip


@pytest.mark.parametrize("width", [1e8, np.inf])
def test_a_box_wider_than_all_that_is_held_is_no_proof_of_anything(width: float) -> None:
    found = solve(far_from_the_origin(width))
    assert (found.status, found.widened) == ("optimal", ())
    assert found.x == pytest.approx([3e7], rel=1e-9)
    assert not interior(far_from_the_origin(width)).unmet.any()


def test_a_return_without_end_is_refused_by_name() -> None:
    """Rows that leave a way out between them: more than a look at each column can tell."""
    plain = problems.spoiled(5, problems.no_rows, problems.no_factors, problems.no_d, problems.no_cost, n=2)
    hedged = replace(plain, mu=np.array([1.0, 0.5]), lower=np.full(2, -np.inf), upper=np.full(2, np.inf))
    ends = {"g_lower": np.zeros(1), "g_upper": np.zeros(1), "row_price": np.full(1, np.inf)}
    with pytest.raises(ProblemError, match="no lower end"):
        interior(replace(hedged, G=np.array([[1.0, -1.0]]), **ends))


# --- polish ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [1e-8, 1e-6])
def test_polish_makes_an_answer_nearly_right_exact(off: float) -> None:
    exact = 0
    for seed in range(50):
        problem, dice = problems.spoiled(seed, problems.gross), np.random.default_rng(seed)
        found = solve(problem)
        prices = found.multipliers
        shaken = Multipliers(
            prices.u, prices.y * (1.0 + off * dice.normal(size=prices.y.shape)), prices.nu * (1.0 + off)
        )
        near = (np.clip(found.x + off * dice.normal(size=found.x.shape), problem.lower, problem.upper), shaken)
        assert gap(problem, near) > 0.0
        best = min(
            (answer for answer in polish(problem, near) if beyond(problem, answer[0]) <= WITHIN),
            key=lambda answer: gap(problem, answer),
            default=near,
        )
        exact += gap(problem, best) <= 1e-13
    assert exact >= 48


def test_the_same_problem_has_the_same_answer_bit_for_bit() -> None:
    problem = problems.any_of_them(11).problem
    first, again = interior(problem).answer, interior(problem).answer
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].y.tobytes() == again[1].y.tobytes()
