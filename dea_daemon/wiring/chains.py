"""`dea-daemon surface --chain`: recorded chains through the fit the daemon uses, in processes; pages and lines."""

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import msgspec
from rich.console import Console
from rich.table import Table

from dea_daemon.pricing.surface.fit import fit
from dea_daemon.pricing.surface.quotes import prepare
from dea_daemon.research import surface_report
from dea_daemon.research.chains import (
    COLUMNS,
    Told,
    cells,
    left_out,
    page_name,
    studied,
    summary,
    svi_of,
    told,
    without,
)
from dea_daemon.shell.chain_files import RecordedChain, RecordedChains, read_chains
from dea_daemon.shell.output import emit, say
from dea_daemon.shell.plain import plain
from dea_daemon.shell.progress import progress
from dea_daemon.wiring.spread import spread

UNSOUND = 1  # exit code where a surface was not published, or has an arbitrage in it
WIDTH = 150  # cells, where the table goes to no terminal
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says. `out` None: no pages."""

    file: Path
    out: Path | None = None
    underlyings: tuple[str, ...] = ()
    from_ns: int | None = None
    to_ns: int | None = None
    min_days: float = 1.0
    max_iv_spread: float = 0.5
    workers: int = 1
    json_lines: bool = False
    command: str = ""


class Task(msgspec.Struct, frozen=True):
    """One chain, and where its page goes and what stands beside it."""

    recorded: RecordedChain
    max_iv_spread: float
    folder: Path | None
    before: str
    after: str


def run_chains(asked: Asked) -> int:
    """Exit code. What is finished when it is interrupted keeps its pages, and an index. Raises DataError, OSError."""
    recorded = read_chains(
        asked.file,
        underlyings=asked.underlyings,
        from_ns=asked.from_ns,
        to_ns=asked.to_ns,
        min_days=asked.min_days,
    )
    done: list[Told] = []
    try:
        with (
            _lines(asked.out) as file,
            # What was begun is finished: no page is half written.
            spread(study, _tasks(asked, recorded), workers=asked.workers, finish=True) as fitted,
            progress("surfaces", not asked.json_lines, len(recorded.chains)) as advance,
        ):
            for surface in fitted:
                done.append(surface)
                _tell(surface, file, asked.json_lines)
                advance(1)
    finally:
        if asked.out is not None and done:
            _end(asked, asked.out, recorded, done)
    if not asked.json_lines:
        _show(done, asked.out)
    return UNSOUND if any(each.line["why"] or each.own.violations for each in done) else 0


# --- one chain --------------------------------------------------------------------------------------------------


def study(task: Task) -> Told:
    """Fit a chain, judge it, write its page."""
    chain, most = task.recorded.chain, task.max_iv_spread
    quotes = prepare(chain, most)
    fitted, fit_ms = _timed(lambda: fit(chain, most))
    svi, svi_ms = _timed(lambda: svi_of(quotes))
    again = fit(without(chain, left_out(quotes)), most)
    found = studied(quotes, task.recorded.mark_iv, fitted, again, svi, fit_ms, svi_ms)
    if task.folder is not None:
        _write(task.folder / _file(task.recorded), surface_report.page(found, task.before, task.after))
    return told(found)


def _timed(work: Callable[[], _Made]) -> tuple[_Made, float]:
    """(what it made, ms)."""
    began_s = time.perf_counter()
    made = work()
    return made, 1e3 * (time.perf_counter() - began_s)


def _file(recorded: RecordedChain) -> str:
    return page_name(recorded.chain.utc_ns, recorded.chain.underlying) + ".html"


# --- all of them ------------------------------------------------------------------------------------------------


def _tasks(asked: Asked, recorded: RecordedChains) -> list[Task]:
    """A task a chain, its neighbours those of the same underlying."""
    folder = None if asked.out is None else asked.out / "surfaces"
    tasks = []
    for n, each in enumerate(recorded.chains):
        of = each.chain.underlying
        before = next((_file(c) for c in reversed(recorded.chains[:n]) if c.chain.underlying == of), "")
        after = next((_file(c) for c in recorded.chains[n + 1 :] if c.chain.underlying == of), "")
        tasks.append(Task(each, asked.max_iv_spread, folder, before, after))
    return tasks


# --- what is told -----------------------------------------------------------------------------------------------


@contextmanager
def _lines(out: Path | None) -> Iterator[IO[bytes] | None]:
    """The folder, and surfaces.jsonl in it: what cannot be written is known before any work is done."""
    if out is None:
        yield None
        return
    (out / "surfaces").mkdir(parents=True, exist_ok=True)
    with (out / "surfaces.jsonl").open("wb") as file:
        yield file


def _tell(surface: Told, file: IO[bytes] | None, json_lines: bool) -> None:
    if file is not None:
        file.write(msgspec.json.encode(surface.line, enc_hook=plain) + b"\n")
        file.flush()
    if json_lines:
        emit(surface.line)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _end(asked: Asked, out: Path, recorded: RecordedChains, done: Sequence[Told]) -> None:
    """The page of all, also where only some were done."""
    notes = []
    if len(done) < len(recorded.chains):
        notes.append(f"Interrupted: {len(done):,} of {len(recorded.chains):,} surfaces were made.")
        _unlink(out / "surfaces")
        sys.stderr.write(f"interrupted: {len(done):,} of {len(recorded.chains):,} surfaces are in {out}\n")
    if recorded.senseless:
        notes.append(
            f"{recorded.senseless:,} of {recorded.rows:,} rows were passed over: no strike, forward, expiry or kind."
        )
    if refused := sum(bool(each.line["why"]) for each in done):
        notes.append(f"{refused:,} surfaces were not published; their rows are red.")
    _write(out / "index.html", surface_report.index(done, command=asked.command, notes=notes))


def _unlink(folder: Path) -> None:
    """Pages lead nowhere that was not made."""
    for page in folder.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        link = re.search(r'<a href="([^"/]+)">after →</a>', text)
        if link and not (folder / link[1]).exists():
            _write(page, text.replace(link[0], ""))


def _show(done: Sequence[Told], out: Path | None) -> None:
    """The summary as a table on stdout."""
    on_terminal = sys.stdout.isatty()
    console = Console(width=None if on_terminal else WIDTH, highlight=False)
    table = Table(header_style="bright_black", box=None, padding=(0, 2, 0, 0))
    for n, name in enumerate(COLUMNS):
        table.add_column(name, justify="right" if n else "left", no_wrap=True)
    for row in summary(done):
        table.add_row(*cells(row))
    with console.capture() as capture:
        console.print(table)
    say(*[line.rstrip() for line in capture.get().rstrip("\n").split("\n")])
    if out is not None:
        say(f"report: {out / 'index.html'}")
