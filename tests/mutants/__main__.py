"""`python -m tests.mutants [--only 2,16]`: every defence taken away in turn, in a copy of the tree; exit 1 where a
test does not notice."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.mutants.judge import Verdict, judge, mutated, run
from tests.mutants.mutant import Mutant
from tests.mutants.table import MUTANTS, WITHOUT

ROOT = Path(__file__).resolve().parents[2]
# Shows that tests import the copy and not the tree they were copied from.
CANARY = Mutant(
    0,
    "nothing: shows that the copy is what is tested",
    "dea_daemon/shell/clock.py",
    "return self._offset_ns + time.monotonic_ns()",
    'raise AssertionError("the copy")',
    ("tests/shell/test_clock.py::test_the_receipt_clock_ignores_a_step_of_the_wall_clock",),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", type=_numbers, default=frozenset(), help="faults by number, with commas between")
    only = parser.parse_args().only
    chosen = [m for m in MUTANTS if not only or m.fault in only]
    console = Console(width=None if sys.stdout.isatty() else 160)
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        copy = Path(directory) / "tree"
        copy_tree(ROOT, copy)
        if why := unfit(chosen, copy):
            console.print(why, style="red", markup=False, soft_wrap=True)
            return 1
        verdicts = []
        for mutant in chosen:
            verdicts.append(judge(mutant, copy))
            _tell(verdicts[-1])
    survived = [v for v in verdicts if not v.killed]
    console.print(_table(verdicts))
    for fault, why in WITHOUT.items():
        if not only or fault in only:
            console.print(f"fault {fault} has none: {why}", markup=False)
    console.print(
        f"{len(verdicts)} defences of {len({v.mutant.fault for v in verdicts})} faults removed,"
        f" {len(survived)} not noticed, {sum(v.seconds for v in verdicts):.0f} s"
    )
    return 1 if survived else 0


def _numbers(text: str) -> frozenset[int]:
    return frozenset(int(number) for number in text.split(","))


def copy_tree(root: Path, copy: Path) -> None:
    """What git knows of, and new files it does not ignore, with their times."""
    listed = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)


def unfit(chosen: list[Mutant], copy: Path) -> str:
    """Why nothing can be shown here, or "": a defence that is not where the table says, a test that fails anyway, or
    tests that do not look at the copy."""
    if missing := [why for mutant in chosen if (why := _missing(mutant, copy))]:
        return "\n".join(missing)
    tests = sorted({test for mutant in chosen for test in mutant.tests})
    ends, last = run(tests, copy)
    if wrong := {node: end for node, end in ends.items() if end}:
        return "these fail with every defence in its place:\n" + "\n".join(f"{n}: {e}" for n, e in wrong.items())
    if not ends:
        return f"no test was run: {last}"
    canary = judge(CANARY, copy)
    return "" if canary.killed else f"the copy is not what is tested: {canary.why}"


def _missing(mutant: Mutant, copy: Path) -> str:
    try:
        mutated(mutant, (copy / mutant.file).read_text())
    except ValueError as error:
        return str(error)
    return ""


def _tell(verdict: Verdict) -> None:
    """A line of progress, beside the table that comes at the end."""
    word = "killed  " if verdict.killed else "SURVIVED"
    line = f"{verdict.mutant.fault:3d} {word} {verdict.seconds:5.1f} s  {verdict.mutant.removed}"
    told = f"{line}\n    {verdict.why}" if verdict.why else line
    Console(stderr=True).print(told, markup=False, highlight=False, soft_wrap=True)


def _table(verdicts: list[Verdict]) -> Table:
    table = Table("fault", "defence removed", "file")
    table.add_column("noticed by", overflow="fold")
    table.add_column("s", justify="right")
    for v in verdicts:
        noticed = "\n".join(test.rpartition("::")[2] for test in v.mutant.tests) if v.killed else f"nobody: {v.why}"
        table.add_row(
            str(v.mutant.fault), v.mutant.removed, v.mutant.file.removeprefix("dea_daemon/"), noticed,
            f"{v.seconds:.1f}", style="" if v.killed else "red",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    sys.exit(main())
