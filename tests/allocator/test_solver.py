"""The solver finds the cheapest book, says how far from it it may be, and refuses what makes no sense."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dea_daemon.allocator.certificate import dual_value, objective, violation
from dea_daemon.allocator.problem import Multipliers, Problem
from dea_daemon.allocator.solver import solve, widen
from dea_daemon.domain.errors import ProblemError


def problem(n: int = 1, **fields: Any) -> Problem:
    """½ ‖x‖² with nothing in its way, but for `fields`."""
    base: dict[str, Any] = {
        "mu": np.zeros(n),
        "B": np.zeros((n, 0)),
        "omega": np.zeros((0, 0)),
        "d": np.ones(n),
        "cost": np.zeros(n),
        "x0": np.zeros(n),
        "lower": np.full(n, -np.inf),
        "upper": np.full(n, np.inf),
        "G": np.zeros((0, n)),
        "g_lower": np.zeros(0),
        "g_upper": np.zeros(0),
        "row_price": np.zeros(0),
        "gross": np.zeros((0, n)),
        "gross_limit": np.zeros(0),
    }
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in fields.items()}
    return Problem(**{**base, **arrays})


def row(lower: float, upper: float, price: float = np.inf, G: object = None, n: int = 1) -> dict[str, Any]:
    return {"G": np.ones((1, n)) if G is None else G, "g_lower": [lower], "g_upper": [upper], "row_price": [price]}


def random_problem(seed: int, n: int = 8) -> Problem:
    """Every kind of limit at once, met by some book."""
    rng = np.random.default_rng(seed)
    B, root, G = rng.normal(size=(n, 3)), rng.normal(size=(3, 3)), rng.normal(size=(5, n))
    inside, gross = rng.uniform(-1, 1, n), rng.uniform(0, 1, (2, n))
    return problem(
        n,
        mu=rng.normal(size=n),
        B=B,
        omega=root @ root.T,
        d=rng.uniform(0.01, 1, n),
        cost=rng.uniform(0, 0.3, n),
        x0=rng.normal(size=n),
        lower=-rng.uniform(1, 2, n),
        upper=rng.uniform(1, 2, n),
        G=G,
        g_lower=G @ inside - 0.1,
        g_upper=G @ inside + 0.1,
        row_price=[np.inf, np.inf, 0.5, 0.5, np.inf],
        gross=gross,
        gross_limit=gross @ np.abs(inside) + 0.1,
    )


@pytest.mark.parametrize(
    ("one", "x"),
    [
        (problem(mu=[2]), 2.0),
        (problem(mu=[2], upper=[1]), 1.0),
        (problem(mu=[2], cost=[0.5]), 1.5),
        (problem(mu=[2], cost=[0.5], x0=[1.8]), 1.8),
        (problem(mu=[2], cost=[0.5], x0=[3]), 2.5),
        (problem(x0=[5], lower=[-1], upper=[1], cost=[9]), 1.0),
        (problem(mu=[2], lower=[0.3], upper=[0.3]), 0.3),
        (problem(mu=[2], **row(-1, 1)), 1.0),
        (problem(mu=[2], **row(1, 1)), 1.0),
        (problem(mu=[2], **row(-1, 1, price=0.25)), 1.75),
        (problem(mu=[2], **row(-1, 1, price=5)), 1.0),
        (problem(mu=[2], **row(0.5, 4, G=[[2]])), 2.0),
        (problem(mu=[2], gross=[[2]], gross_limit=[3]), 1.5),
        (problem(mu=[-2], gross=[[2]], gross_limit=[3], x0=[-1.7], cost=[0.1]), -1.5),
        (problem(mu=[2], B=[[2]], omega=[[1]]), 0.4),
        (problem(mu=[2], d=[0], lower=[-7], upper=[7]), 7.0),
        (problem(mu=[2], d=[0], cost=[2.5], x0=[3], lower=[-7], upper=[7]), 3.0),
    ],
)
def test_solver_finds_what_algebra_gives_for_one_instrument(one: Problem, x: float) -> None:
    found = solve(one)
    assert found.status == "optimal"
    np.testing.assert_allclose(found.x, [x], rtol=1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_no_book_within_the_limits_is_cheaper_than_the_certificate_says(seed: int) -> None:
    one = random_problem(seed)
    found = solve(one)
    assert found.status == "optimal"
    assert found.objective == objective(one, found.x)
    assert violation(one, found.x) == found.violation <= 1e-8
    assert found.objective - dual_value(one, found.multipliers) <= found.gap <= 1e-8
    rng = np.random.default_rng(seed)
    for size in 10.0 ** -np.arange(6):
        other = np.clip(found.x + rng.normal(size=8) * size, one.lower, one.upper)
        if violation(one, other) == 0.0:
            assert objective(one, other) >= found.objective - found.gap - 1e-12


@pytest.mark.parametrize("seed", range(40))
def test_any_multipliers_bound_every_book_from_below(seed: int) -> None:
    one, rng = random_problem(seed), np.random.default_rng(seed + 1000)
    best = solve(one)
    y = np.clip(rng.normal(size=5), -one.row_price, one.row_price)
    bound = dual_value(one, Multipliers(rng.normal(size=3), y, np.abs(rng.normal(size=2))))
    assert -np.inf < bound <= best.objective + 1e-9


def test_multipliers_beyond_a_rows_price_bound_nothing() -> None:
    one = problem(**row(-1, 1, price=0.5))
    assert dual_value(one, Multipliers(np.zeros(0), np.array([0.6]), np.zeros(0))) == -np.inf


def test_the_last_ticks_multipliers_save_steps_and_change_nothing_else() -> None:
    one = random_problem(3, n=40)
    cold = solve(one)
    drifted = replace(one, mu=one.mu + 1e-4)
    warm, again = solve(drifted, cold.multipliers), solve(drifted)
    assert warm.iterations <= 4 < again.iterations
    np.testing.assert_allclose(warm.x, again.x, atol=1e-7)


def test_the_same_problem_gives_the_same_bits() -> None:
    first, second = solve(random_problem(5)), solve(random_problem(5))
    assert first.x.tobytes() == second.x.tobytes()


def test_a_row_that_cannot_be_met_is_widened_to_what_is_held_and_no_further() -> None:
    one = problem(mu=[2], x0=[0.5], lower=[-1], upper=[1], **row(4, 5))
    found = solve(one)
    assert (found.status, found.widened) == ("widened", (0,))
    assert found.x[0] == pytest.approx(1.0)
    wide = widen(one, np.array([True]))
    assert (wide.g_lower[0], wide.g_upper[0]) == (0.5, 5.0)


def test_rows_that_contradict_each_other_are_widened_only_where_the_book_held_breaks_them() -> None:
    rows: dict[str, Any] = {"G": [[1.0, 1.0], [2.0, 2.0]], "g_lower": [-np.inf, 6.0], "g_upper": [1.0, np.inf]}
    found = solve(problem(2, x0=[0.2, 0.2], row_price=[np.inf, np.inf], lower=[-9, -9], upper=[9, 9], **rows))
    assert (found.status, found.widened) == ("widened", (1,))
    assert found.x.sum() <= 1.0 + 1e-8


def test_a_gross_limit_that_cannot_be_met_is_widened_and_numbered_after_the_rows() -> None:
    one = problem(x0=[3], lower=[2], upper=[4], gross=[[1]], gross_limit=[1], **row(-9, 9))
    found = solve(one)
    assert (found.status, found.widened) == ("widened", (1,))
    assert found.x[0] == pytest.approx(2.0)


def test_soft_rows_are_never_widened() -> None:
    found = solve(problem(lower=[-1], upper=[1], **row(4, 5, price=2)))
    assert (found.status, found.widened, found.x[0]) == ("optimal", (), 1.0)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e9])
def test_the_unit_of_account_changes_nothing(scale: float) -> None:
    one = random_problem(7)
    lengths = {
        name: getattr(one, name) * scale for name in ("x0", "lower", "upper", "g_lower", "g_upper", "gross_limit")
    }
    slopes = {name: getattr(one, name) / scale for name in ("mu", "cost", "row_price", "B")}
    other = solve(replace(one, **lengths, **slopes, d=one.d / scale**2))
    assert other.status == "optimal"
    np.testing.assert_allclose(other.x / scale, solve(one).x, atol=1e-6)


def test_two_contracts_alike_but_for_their_cost_go_to_the_cheaper() -> None:
    """Perp and dated future of one coin: hardly any risk of their own."""
    one = problem(2, mu=[0.02, 0.02], d=[1e-9, 1e-9], B=[[1], [1]], omega=[[1]], cost=[0.002, 0.001])
    np.testing.assert_allclose(solve(one).x, [0.0, 0.019], atol=1e-8)


def test_when_steps_run_out_another_method_answers_or_nothing_is_called_optimal() -> None:
    best = solve(random_problem(1))
    found = solve(random_problem(1), most=1)
    assert found.status != "optimal" or found.objective == pytest.approx(best.objective, rel=1e-8)


@pytest.mark.parametrize(
    "name", ["mu", "B", "omega", "d", "cost", "x0", "lower", "upper", "G", "g_lower", "gross_limit"]
)
def test_nan_anywhere_is_refused(name: str) -> None:
    one = random_problem(2)
    array = getattr(one, name).copy()
    array.flat[0] = np.nan
    with pytest.raises(ProblemError):
        solve(replace(one, **{name: array}))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"mu": [1.0, 2.0]}, "shape"),
        ({"lower": [1], "upper": [0]}, "lower and upper"),
        ({"cost": [-1]}, "cost"),
        ({"d": [-1]}, "d has"),
        ({"B": [[1]], "omega": [[-1]]}, "omega"),
        ({"d": [0], "mu": [1], "cost": [0.5]}, "no lower end"),
        (row(2, 1), "g_lower and g_upper"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ProblemError, match=why):
        solve(problem(**fields))
