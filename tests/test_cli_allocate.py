"""`dea-daemon allocate` from outside: problems in files, a line each."""

import json
import pickle
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from dea_daemon.allocator.problem import Problem
from dea_daemon.cli import cli
from dea_daemon.domain.errors import DataError
from dea_daemon.shell.problems import load, save
from tests.allocator import problems

REQUIRED = ("mu", "B", "omega", "d", "cost", "x0", "lower", "upper")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["allocate", *map(str, arguments)])


def told(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def one_position(**changed) -> dict[str, Any]:
    """½ 2 x² − 3 x + |x| over [−5, 5]: the answer is x = 1."""
    arrays: dict[str, Any] = {
        "mu": [3.0],
        "B": np.zeros((1, 0)),
        "omega": np.zeros((0, 0)),
        "d": [2.0],
        "cost": [1.0],
        "x0": [0.0],
    }
    return arrays | {"lower": [-5.0], "upper": [5.0]} | changed


@pytest.fixture
def written(tmp_path):
    def write(name: str = "problem.npz", **changed):
        arrays = {name: array for name, array in one_position(**changed).items() if array is not None}
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    return write


# --- answers ---------------------------------------------------------------------------------------------------


def test_a_problem_without_rows_or_factors_is_solved(written):
    result = call("--problem", written(), "--json")
    (found,) = told(result)
    assert result.exit_code == 0
    assert found["status"] == "optimal"
    assert found["x"] == pytest.approx([1.0], abs=1e-9)
    assert found["objective"] == pytest.approx(1.0 - 3.0 + 1.0)
    assert 0.0 <= found["gap"] <= 1e-8 and found["max_violation"] == 0.0 and found["iterations"] >= 0


def test_people_get_a_line_with_the_same(written):
    result = call("--problem", written())
    (line,) = result.stdout.splitlines()
    for word in ("problem.npz", "optimal", "objective -1", "gap", "max_violation 0", "iterations", "x 1"):
        assert word in line


def test_rows_limit_and_those_with_a_price_give_way(written):
    row = {"G": [[2.0]], "g_lower": [-np.inf], "g_upper": [1.0]}
    (hard,) = told(call("--problem", written(**row), "--json"))
    assert hard["x"] == pytest.approx([0.5], abs=1e-9)
    (soft,) = told(call("--problem", written(**row, row_price=[0.25]), "--json"))
    assert soft["x"] == pytest.approx([0.75], abs=1e-9)  # 2x − 3 + 1 + 2·.25 = 0


def test_one_number_limits_the_sum_of_all_sizes_and_weights_count_as_told(written):
    (plain,) = told(call("--problem", written(gross_limit=0.5), "--json"))
    assert plain["x"] == pytest.approx([0.5], abs=1e-9)
    (weighted,) = told(call("--problem", written(gross_limit=[0.5], gross=[[2.0]]), "--json"))
    assert weighted["x"] == pytest.approx([0.25], abs=1e-9)


def test_what_cannot_be_met_is_widened_and_that_is_told(written):
    (found,) = told(call("--problem", written(G=[[1.0]], g_lower=[9.0], g_upper=[np.inf]), "--json"))
    assert found["status"] == "widened" and found["widened"] == [0]


def test_files_are_answered_in_their_order(written):
    files = [written(f"{k}.npz", mu=[1.0 + 2.0 * k]) for k in range(3)]
    found = told(call("--problem", files[0], "--problem", files[1], files[2], "--json"))
    assert [line["file"] for line in found] == [str(file) for file in files]
    assert [line["x"][0] for line in found] == pytest.approx([0.0, 1.0, 2.0], abs=1e-9)


# --- files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("twist", [problems.gross, problems.soft_rows, problems.no_rows, problems.no_factors])
def test_what_is_saved_is_what_is_loaded(tmp_path, twist):
    problem = problems.spoiled(7, twist)
    save(tmp_path / "saved", problem)
    again = load(tmp_path / "saved")
    for field in fields(Problem):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(problem, field.name))


def test_a_problem_without_gross_limits_survives_a_file(tmp_path):
    problem = replace(problems.spoiled(7), gross=np.zeros((0, 0)), gross_limit=np.zeros(0))
    save(tmp_path / "saved", problem)
    assert load(tmp_path / "saved").gross.shape == (0, len(problem.mu))


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_array_is_named(written, name):
    result = call("--problem", written(**{name: None}), "--json")
    assert result.exit_code == 1 and not result.stdout
    assert f"problem.npz: {name} is missing" in result.stderr


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"cost": [np.nan]}, "cost holds NaN"),
        ({"d": [np.inf]}, "d holds an infinite number"),
        ({"lower": [np.nan]}, "lower holds NaN"),
        ({"mu": [[3.0]]}, "mu has the shape (1, 1), not [n]"),
        ({"d": [1.0, 2.0]}, "d has the shape (2,), not [n] = (1)"),
        ({"B": np.ones((1, 2))}, "omega has the shape (0, 0), not [k, k] = (2, 2)"),
        ({"omega": np.ones((0, 1))}, "omega has the shape (0, 1)"),
        ({"g_upper": [1.0]}, "G is missing"),
        ({"G": [[1.0]], "g_lower": [0.0]}, "g_upper is missing"),
        ({"G": [[1.0]], "g_lower": [0.0], "g_upper": [1.0, 2.0]}, "g_upper has the shape (2,), not [m] = (1)"),
        ({"G": [[1.0]], "g_lower": [0.0], "g_upper": [1.0], "row_price": [1.0, 1.0]}, "row_price has the shape"),
        ({"gross_limit": [1.0, 2.0]}, "gross is missing"),
        ({"gross": [[1.0]]}, "gross_limit is missing"),
        ({"mu": ["three"]}, "mu holds <U5, not real numbers"),
        ({"mu": [3j]}, "mu holds complex128, not real numbers"),
    ],
)
def test_what_does_not_fit_is_named(written, changed, why):
    result = call("--problem", written(**changed))
    assert result.exit_code == 1 and not result.stdout
    assert f"problem.npz: {why}" in result.stderr


@pytest.mark.parametrize("changed", [{"lower": [6.0]}, {"cost": [-1.0]}, {"d": [-1.0]}])
def test_what_makes_no_sense_is_refused_by_name(written, changed):
    result = call("--problem", written(**changed))
    assert result.exit_code == 1 and not result.stdout
    assert "problem.npz: " in result.stderr and next(iter(changed)) in result.stderr


class Marks:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickled_objects_are_refused_and_never_read(tmp_path):
    trap = np.array([Marks(tmp_path / "mark")], dtype=object)
    np.savez(tmp_path / "object.npz", **one_position(mu=trap))
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Marks(tmp_path / "mark")))
    result = call("--problem", tmp_path / "object.npz", "--problem", tmp_path / "bare.npz")
    assert result.exit_code == 1
    assert "object.npz: mu cannot be read" in result.stderr and "bare.npz: not an npz file" in result.stderr
    assert not (tmp_path / "mark").exists()


def test_a_bad_file_keeps_no_other_from_its_answer(written, tmp_path):
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("mu = 3")
    np.save(tmp_path / "single.npy", np.ones(3))
    cut = tmp_path / "cut.npz"
    cut.write_bytes(written().read_bytes()[:-40])
    bad = [tmp_path / name for name in ("empty.npz", "text.npz", "single.npy", "cut.npz", "nowhere.npz", "")]
    result = call(*bad, written("good.npz"), "--json")
    assert [line["file"] for line in told(result)] == [str(tmp_path / "good.npz")]
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == len(bad)
    assert all(path.name in result.stderr for path in bad)


def test_a_damaged_array_is_named(written):
    path = written()
    content = bytearray(path.read_bytes())
    content[content.index(b"NUMPY") + 125] ^= 0xFF  # the first array's number
    path.write_bytes(content)
    result = call("--problem", path)
    assert result.exit_code == 1 and "mu cannot be read" in result.stderr


def test_an_array_that_no_problem_has_is_told_for_it_may_be_a_limit_misspelt(written):
    result = call("--problem", written(gross_limits=[0.5]))
    assert result.exit_code == 0 and len(result.stdout.splitlines()) == 1
    assert "passed over gross_limits" in result.stderr


def test_without_a_file_it_is_wrong_usage():
    assert CliRunner().invoke(cli, ["allocate"]).exit_code == 64


def test_loading_names_what_is_wrong_for_other_callers_too(written):
    with pytest.raises(DataError, match="x0 is missing"):
        load(written(x0=None))
