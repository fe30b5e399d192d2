"""One mutant: change the copy, run its tests, see how they fail, change it back."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.mutants.mutant import Mutant

TIMEOUT_S = 600
# How a test says that it expected something else: a failed assertion, pytest.raises and time-outs, hypothesis, the
# oracle of the histories, and the house's `(order,) = creates(decision)`.
ASSERTED = (
    "assert", "AssertionError", "Failed:", "TimeoutError", "hypothesis.", "ExceptionGroup: Hypothesis",
    "dea_daemon.wiring.simulate.oracle.PromiseBroken", "ValueError: not enough values to unpack",
    "ValueError: too many values to unpack",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """`killed` only where every named test failed by an assertion; else `why` says what happened instead."""

    mutant: Mutant
    killed: bool
    seconds: float
    why: str


def judge(mutant: Mutant, copy: Path) -> Verdict:
    """Take the defence away in the copy of the tree, and put it back whatever happens. Raises ValueError where its
    snippet is not found exactly once."""
    began = time.monotonic()
    path = copy / mutant.file
    whole = path.read_text()
    try:
        path.write_text(mutated(mutant, whole))
        why = _survived(mutant, *run(mutant.tests, copy))
    finally:
        path.write_text(whole)
    return Verdict(mutant, not why, time.monotonic() - began, why)


def mutated(mutant: Mutant, whole: str) -> str:
    """The file's text without the defence. Raises ValueError where the snippet is not found exactly once."""
    if (found := whole.count(mutant.old)) != 1:
        raise ValueError(f"fault {mutant.fault}: {mutant.file} has this {found} times, not once: {mutant.old!r}")
    return whole.replace(mutant.old, mutant.new)


def run(tests: Iterable[str], copy: Path) -> tuple[dict[str, str], str]:
    """How each test case ended, by node id: "" for passed, else its failure's first line, "error: …" where it did
    not come to its assertions. And what pytest said at the end, for where there is no case."""
    told = copy / "mutants.xml"
    told.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "--hypothesis-seed=0", f"--junitxml={told}"]
    # The copy first on the path, in processes that tests start, too: installed is the tree it is from. And nothing
    # compiled is kept, lest it outlive the change it was compiled from.
    environ = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, *tests], cwd=copy, env=environ, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return {}, f"no end after {TIMEOUT_S} s"
    last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:] or [f"exit {done.returncode}"]
    return (_ends(told) if told.exists() else {}), last[0]


def _ends(told: Path) -> dict[str, str]:
    ends: dict[str, str] = {}
    for case in ElementTree.parse(told).iter("testcase"):  # noqa: S314 pytest has just written it
        node = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        # A test that failed may leave a mess that fails its teardown, too: the failure is what counts.
        wrong = [str(e.get("message")) for e in case.findall("failure")]
        wrong += [f"error: {e.get('message')}" for e in case.findall("error")]
        ends[node] = ends.get(node) or (wrong[0].splitlines()[0] if wrong else "")
    return ends


def _survived(mutant: Mutant, ends: dict[str, str], last: str) -> str:
    """Why this mutant cannot count as killed, or ""."""
    for test in mutant.tests:
        cases = [end for node, end in ends.items() if node == test or node.startswith(f"{test}[")]
        if not cases:
            return f"{test} was not run: {last}"
        failed = [end for end in cases if end]
        if not failed:
            return f"{test} passes without it"
        if strange := [end for end in failed if not end.startswith((*ASSERTED, mutant.raises or "assert"))]:
            return f"{test} fails, but by no assertion: {strange[0]}"
    return ""
