"""The compiled solver answers as the other does, from certificate to refusal."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="no numba: the extra `fast` is not installed")

from dea_daemon.allocator import fast, solver
from dea_daemon.allocator.certificate import dual_value, objective, violation
from dea_daemon.allocator.problem import Multipliers, Problem, Solution
from dea_daemon.domain.errors import ProblemError
from tests.allocator import problems
from tests.allocator.oracle import terms

pytestmark = pytest.mark.timeout(300)  # where nothing is compiled yet, that comes first


@pytest.fixture
def begun_anew(monkeypatch) -> list[Problem]:
    """The problems that the compiled solver leaves to the other."""
    seen: list[Problem] = []

    def solve(problem: Problem, *args: Any, **options: Any) -> Solution:
        seen.append(problem)
        return solver.solve(problem, *args, **options)

    monkeypatch.setattr(fast, "solver", type("Watched", (), {"solve": staticmethod(solve)}))
    return seen


def size(problem: Problem, x: np.ndarray) -> float:
    """Of the objective's terms, at the answer and at today's book cut to its box."""
    held = np.clip(problem.x0, problem.lower, problem.upper)
    return float(np.abs(terms(problem, x)).sum() + np.abs(terms(problem, held)).sum()) + 1e-300


def disagreements(problem: Problem, found: Solution, other: Solution) -> list[str]:
    """Where the compiled solver's answer is not the other's, or its certificate not numpy's. Either may be beyond a
    limit by 1e-8 of it, and cost that much less."""
    unit = size(problem, found.x)
    gap = max(found.objective - dual_value(problem, found.multipliers), 0.0)
    holds = {
        f"{found.status}, not {other.status}": found.status == other.status,
        f"{found.objective}, not {other.objective}": abs(found.objective - other.objective) <= 5e-8 * unit,
        "another objective than numpy's": abs(found.objective - objective(problem, found.x)) <= 1e-12 * unit,
        "another gap than numpy's": found.status != "optimal" or abs(found.gap - gap) <= 1e-12 * unit,
        "another violation than numpy's": abs(found.violation - violation(problem, found.x)) <= 1e-12,
    }
    return [what for what, true in holds.items() if not true]


@pytest.mark.parametrize("twist", problems.TWISTS, ids=lambda twist: twist.__name__)
def test_it_finds_the_book_that_the_other_finds_and_tells_of_it_what_numpy_would(twist, begun_anew):
    wrong = []
    for seed in range(12):
        problem = problems.spoiled(seed, twist)
        other = solver.solve(problem)
        if other.status == "optimal":
            wrong += [f"{seed}: {what}" for what in disagreements(problem, fast.solve(problem), other)]
    assert not wrong
    assert len(begun_anew) <= 2


def test_it_does_so_where_several_things_are_hard_at_once(begun_anew):
    wrong = []
    for seed in range(200):
        case = problems.any_of_them(seed)
        other = solver.solve(case.problem)
        if other.status == "optimal":
            wrong += [f"{case.name}: {what}" for what in disagreements(case.problem, fast.solve(case.problem), other)]
    assert not wrong
    assert len(begun_anew) <= 10


def test_from_where_the_last_tick_ended_it_takes_a_step_or_two(begun_anew):
    for seed in range(30):
        problem = problems.spoiled(seed, n=30)
        first = fast.solve(problem)
        again = fast.solve(problem, first.multipliers)
        assert again.iterations <= 2
        assert again.objective == pytest.approx(first.objective, abs=2e-9 * size(problem, first.x))
    assert not begun_anew


@pytest.mark.parametrize("twist", problems.HOPELESS, ids=lambda twist: twist.__name__)
def test_what_cannot_be_met_is_left_to_the_other_and_widened_there(twist, begun_anew):
    for seed in range(5):
        problem = problems.spoiled(seed, twist)
        found, other = fast.solve(problem), solver.solve(problem)
        assert found.widened == other.widened and found.x.tobytes() == other.x.tobytes()
    assert len(begun_anew) == 5


def test_the_same_problem_gives_the_same_bits():
    problem = problems.spoiled(5, problems.gross)
    first, second = fast.solve(problem), fast.solve(problem)
    assert first.x.tobytes() == second.x.tobytes() and first.gap == second.gap


def test_nothing_given_is_written_to():
    problem = problems.spoiled(6, problems.gross, problems.soft_rows)
    before = {name: getattr(problem, name).tobytes() for name in problems.FIELDS}
    found = fast.solve(problem)
    start = found.multipliers.u.tobytes(), found.multipliers.y.tobytes(), found.multipliers.nu.tobytes()
    fast.solve(problem, found.multipliers)
    assert before == {name: getattr(problem, name).tobytes() for name in problems.FIELDS}
    assert start == (found.multipliers.u.tobytes(), found.multipliers.y.tobytes(), found.multipliers.nu.tobytes())


# --- refusals --------------------------------------------------------------------------------------------------


def said(solve: Any, problem: Problem) -> str:
    """The words of a refusal, else the answer's status."""
    try:
        return str(solve(problem).status)
    except ProblemError as refused:
        return str(refused)


def refusal(solve: Any, problem: Problem) -> str:
    with pytest.raises(ProblemError) as refused:
        solve(problem)
    return str(refused.value)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", problems.FIELDS)
def test_what_is_no_number_is_refused_in_the_same_words_or_is_none_to_either(name, number):
    problem = problems.spoiled(2, problems.gross, problems.soft_rows, n=6)
    array = getattr(problem, name).copy()
    array.flat[0] = number
    spoiled = replace(problem, **{name: array})
    assert said(fast.solve, spoiled) == said(solver.solve, spoiled)


@pytest.mark.parametrize(
    "fields",
    [
        {"mu": np.zeros(5)},
        {"lower": np.full(4, 2.0), "upper": np.full(4, 1.0)},
        {"cost": np.full(4, -1.0)},
        {"d": np.full(4, -1.0)},
        {"B": np.ones((4, 1)), "omega": -np.ones((1, 1))},
        {"B": np.ones((4, 2)), "omega": np.array([[1.0, 0.5], [0.0, 1.0]])},
        {"G": np.ones((1, 4)), "g_lower": np.ones(1), "g_upper": np.zeros(1), "row_price": np.ones(1)},
        {"G": np.ones((2, 4))[:, :3], "g_lower": np.zeros(2), "g_upper": np.ones(2), "row_price": np.ones(2)},
    ],
)
def test_what_makes_no_sense_is_refused_in_the_same_words(fields):
    bare = problems.spoiled(1, problems.no_factors, problems.no_rows, n=4)
    spoiled = replace(bare, **fields)
    assert refusal(fast.solve, spoiled) == refusal(solver.solve, spoiled)


def test_a_position_that_nothing_limits_is_refused_in_the_same_words():
    bare = problems.spoiled(1, problems.no_factors, problems.no_rows, n=4)
    endless = replace(bare, d=np.zeros(4), cost=np.zeros(4), lower=np.full(4, -np.inf), upper=np.full(4, np.inf))
    assert refusal(fast.solve, endless) == refusal(solver.solve, endless)


# --- what it is given ------------------------------------------------------------------------------------------


def test_a_start_of_another_problem_changes_nothing_but_the_way(begun_anew):
    problem = problems.spoiled(3, problems.gross, n=10)
    of_other = Multipliers(np.ones(7), np.full(9, np.nan), np.zeros(0))
    found, other = fast.solve(problem, of_other), solver.solve(problem, of_other)
    assert not disagreements(problem, found, other) and not begun_anew


def test_a_start_that_is_no_number_changes_nothing_but_the_way(begun_anew):
    problem = problems.spoiled(3, problems.gross, n=10)
    start = fast.solve(problem).multipliers
    found = fast.solve(problem, replace(start, y=np.full_like(start.y, np.nan)))
    assert not disagreements(problem, found, solver.solve(problem)) and not begun_anew


def test_arrays_in_any_order_read_only_or_of_whole_numbers_will_do(begun_anew):
    problem = problems.spoiled(4, problems.whole_numbers, problems.gross, n=8)
    found = fast.solve(problem)
    B, G, mu = np.asfortranarray(problem.B), np.asfortranarray(problem.G), problem.mu.repeat(2)[::2]
    turned = replace(problem, B=B, G=G, mu=mu)
    for name in problems.FIELDS:
        getattr(turned, name).flags.writeable = False
    assert fast.solve(turned).x.tobytes() == found.x.tobytes()
    assert not begun_anew
    whole = fast.solve(replace(problem, mu=problem.mu.astype(np.int64)))
    assert not disagreements(problem, whole, found) and len(begun_anew) == 1


def test_it_is_compiled_once_for_whatever_it_is_given():
    for problem in (problems.spoiled(1, n=1), problems.spoiled(2, problems.no_factors, problems.no_rows, n=5)):
        fast.solve(problem)
        fast.solve(replace(problem, B=np.asfortranarray(problem.B), gross=np.zeros((0, 0))))
    assert len(fast._certified.signatures) == 1


def test_without_it_nothing_of_the_daemon_asks_for_numba():
    """The extra is nobody's need: the core is imported without numba."""
    asked = "import sys; import dea_daemon.engine; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0
