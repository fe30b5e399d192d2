"""`dea-daemon allocate`: the solver by itself, on problems in files."""

from pathlib import Path
from typing import Any

import click

from dea_daemon.cli.base import FILE, cli, json_option, report

FAILED = 1


@cli.command()
@click.option("--problem", "files", type=FILE, multiple=True, help="A problem, npz; may be given again.")
@click.argument("more", type=FILE, nargs=-1, metavar="[FILE]...")
@json_option
def allocate(files: tuple[Path, ...], more: tuple[Path, ...], json_lines: bool) -> int:
    """Solve allocation problems in FILEs, a line each: the cheapest book within all limits, and how sure that is.

    Exit code 1 where one of them cannot be read or has no answer; the others are solved all the same.
    """
    if not files and not more:
        raise click.UsageError("give a problem: --problem FILE.npz")
    return max([_solved(path, json_lines) for path in files + more])


def _solved(path: Path, json_lines: bool) -> int:
    """One file's line; 1 where there is none, or no answer in it."""
    from dea_daemon.domain.errors import DeaError
    from dea_daemon.shell.output import emit, say
    from dea_daemon.shell.problems import answer

    try:
        found = answer(path)
    except (DeaError, OSError) as error:
        report(error)
        return FAILED
    if found["unknown"]:
        click.echo(f"note: {path}: passed over {', '.join(found['unknown'])}: no problem has these", err=True)
    if json_lines:
        emit(found)
    else:
        say(_line(found))
    return FAILED if found["status"] == "failed" else 0


def _line(found: dict[str, Any]) -> str:
    x = " ".join(f"{value:.9g}" for value in found["x"])
    told = f"{found['file']}: {found['status']}, objective {found['objective']:.12g}, gap {found['gap']:.3g}"
    return f"{told}, max_violation {found['max_violation']:.3g}, iterations {found['iterations']}, x {x}"
