"""The table of mutants does not rot. That their tests notice them, `python -m tests.mutants` shows."""

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.mutants.judge import mutated
from tests.mutants.mutant import Mutant
from tests.mutants.table import FAULTS, MUTANTS, WITHOUT

ROOT = Path(__file__).resolve().parents[1]


@cache
def defined_in(path: Path) -> frozenset[str]:
    defined = ast.walk(ast.parse(path.read_text()))
    return frozenset(node.name for node in defined if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.fault}: {m.removed}")
def test_each_defence_stands_in_the_code_once_and_names_tests_that_exist(mutant: Mutant):
    text = mutated(mutant, (ROOT / mutant.file).read_text())  # raises unless it is there once
    ast.parse(text)  # else a test would fail by the syntax
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert name.partition("[")[0] in defined_in(ROOT / file), test


def test_every_fault_has_a_mutant_or_a_reason_why_not():
    with_one = {mutant.fault for mutant in MUTANTS}
    assert with_one | set(WITHOUT) == set(FAULTS)
    assert not with_one & set(WITHOUT)
    assert all(WITHOUT.values())


def test_a_snippet_that_is_gone_or_there_twice_is_told():
    mutant = Mutant(1, "", "file.py", "a = 1\n", "", ())
    for text in ("b = 1\n", "a = 1\na = 1\n"):
        with pytest.raises(ValueError, match=r"file\.py"):
            mutated(mutant, text)
