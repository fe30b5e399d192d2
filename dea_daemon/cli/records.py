"""Commands that read what a daemon wrote: ledger, statement, costs. All but `ledger vacuum` work while it runs."""

from pathlib import Path
from typing import Any

import click

from dea_daemon.cli.base import FILE, NO_INPUT, cli, config_option, json_option

_ledger_option = click.option("--ledger", "ledger_file", type=FILE, help="The ledger itself, or its directory.")


def ledger_path(config: Path | None, ledger_file: Path | None) -> Path:
    """Where the ledger is. Raises UsageError unless one of the two tells, FileNotFoundError where none is."""
    if ledger_file is None and config is not None:
        from dea_daemon.shell.control_client import find

        place = find(config, None)
        ledger_file = place.state_dir if place else config
    elif ledger_file is None or config is not None:
        raise click.UsageError("give one of -c FILE and --ledger PATH")
    path = ledger_file / "ledger.sqlite" if ledger_file.is_dir() else ledger_file
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no ledger here (no run has begun yet?)")
    return path


@cli.group()
def ledger() -> None:
    """Copy, check and shrink a ledger."""


@ledger.command()
@config_option(required=False)
@_ledger_option
@click.argument("to", type=FILE)
def backup(config: Path | None, ledger_file: Path | None, to: Path) -> None:
    """Copy the ledger TO a file, or into a directory under a name with the time. The daemon may run."""
    from dea_daemon.shell.ledger_care import backup, dated_name, size_of
    from dea_daemon.shell.output import say
    from dea_daemon.shell.progress import progress

    path = ledger_path(config, ledger_file)
    if to.is_dir():
        to = to / dated_name()
    with progress("copying pages", show=True) as advance:
        backup(path, to, advance)
    say(f"{to}: {_mb(size_of(to))}, a whole copy of {path}")


@ledger.command()
@config_option(required=False)
@_ledger_option
@json_option
def check(config: Path | None, ledger_file: Path | None, json_lines: bool) -> None:
    """Read every page. Exit code 65 where it is damaged. The daemon may run."""
    from dea_daemon.shell.ledger_care import check
    from dea_daemon.shell.output import emit, say
    from dea_daemon.shell.progress import progress

    path = ledger_path(config, ledger_file)
    with progress("checking", show=True) as advance:
        found = check(path, advance)
    if json_lines:
        emit({"ledger": str(path), "whole": True, "bytes": found.size, "schema": found.schema, "rows": found.rows})
        return
    say(f"{path}: whole, {_mb(found.size)}, schema {found.schema}")
    say(*(f"  {name:<13} {count:>12,}" for name, count in found.rows.items()))


@ledger.command()
@config_option(required=False)
@_ledger_option
@click.option("--decisions-older-than", "days", type=click.FloatRange(min=0), help="Forget decisions, in days.")
def vacuum(config: Path | None, ledger_file: Path | None, days: float | None) -> None:
    """Give unused space back to the disk. Refused while a daemon runs. Orders, fills and cash are kept for ever."""
    from dea_daemon.shell.ledger_care import vacuum
    from dea_daemon.shell.output import say
    from dea_daemon.shell.progress import progress

    path = ledger_path(config, ledger_file)
    with progress("rewriting", show=True) as advance:
        done = vacuum(path, days, advance)
    forgotten = f", {done.pruned:,} decisions forgotten" if days is not None else ""
    say(f"{path}: {_mb(done.before)} before, {_mb(done.after)} after{forgotten}")


@cli.command()
@config_option(required=False)
@_ledger_option
@click.option("--day", default="today", show_default=True, metavar="YYYY-MM-DD", help="Which day, UTC.")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values, a line for each contract and currency.")
def statement(config: Path | None, ledger_file: Path | None, day: str, json_lines: bool, as_csv: bool) -> int | None:
    """A day's fills, profit, fees and funding, and whether they explain the venue's cash. The daemon may run."""
    from dea_daemon.shell import statement, statement_text
    from dea_daemon.shell.output import emit, say

    if json_lines and as_csv:
        raise click.UsageError("give one of --json and --csv")
    path, wanted = ledger_path(config, ledger_file), statement.day_of(day)
    if wanted is None:
        raise click.UsageError(f"--day {day}: not a day such as 2026-01-31, nor today")
    found = statement.statement(path, wanted)
    if not found.pools and not found.contracts and day != "today":
        kept = statement.days(path)
        have = f"it has {kept[0]} to {kept[-1]}" if kept else "it has none"
        click.echo(f"error: {path}: nothing on {wanted}: {have}", err=True)
        return NO_INPUT
    if json_lines:
        fields: dict[str, Any] = statement_text.as_json(found)
        emit(fields)
    elif as_csv:
        say(*statement_text.csv_lines(found))
    else:
        say(*statement_text.lines(found))
    return None


@cli.command()
@config_option(required=False)
@_ledger_option
@click.option("--days", type=click.FloatRange(0, 36_500), help="Only of the last so many days.")
@json_option
def tca(config: Path | None, ledger_file: Path | None, days: float | None, json_lines: bool) -> None:
    """What trading cost, by contract: delay, impact, spread, fees, and the price after. The daemon may run."""
    from dea_daemon.shell import tca, tca_text
    from dea_daemon.shell.output import emit, say

    found = tca.costs(ledger_path(config, ledger_file), 0 if days is None else tca.ago_ns(days))
    if json_lines:
        fields: dict[str, Any] = tca_text.as_json(found)
        emit(fields)
    else:
        say(*tca_text.lines(found))


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
