"""`dea-daemon surface`: the volatility surfaces of a running daemon, or those of recorded chains."""

import os
from pathlib import Path

import click

from dea_daemon.cli.base import FILE, cli, json_option
from dea_daemon.cli.operate import where


@cli.command()
@click.option("--chain", "file", type=FILE, help="Recorded chains, Parquet: fit every snapshot.")
@click.option("--out", type=FILE, help="Folder for index.html, a page a surface, and surfaces.jsonl.")
@click.option("--underlying", "underlyings", multiple=True, metavar="BTC", help="Only this; may be given again.")
@click.option("--from", "from_date", metavar="DATE", help="First moment taken, UTC: 2026-02-05 or 2026-02-05T08:00.")
@click.option("--to", "to_date", metavar="DATE", help="Up to, but not this moment.")
@click.option("--min-days", default=1.0, show_default=True, type=click.FloatRange(min=0.0),
              help="Options that live shorter are left alone.")  # fmt: skip
@click.option("--max-iv-spread", default=0.5, show_default=True, type=click.FloatRange(min=0.0, min_open=True),
              help="Quotes further apart than this in volatility are none.")  # fmt: skip
@click.option("--workers", default=lambda: os.cpu_count() or 1, type=click.IntRange(min=1),
              help="Processes.  [default: one a CPU]")  # fmt: skip
@where
@json_option
@click.pass_context
def surface(
    ctx: click.Context,
    file: Path | None,
    out: Path | None,
    underlyings: tuple[str, ...],
    from_date: str | None,
    to_date: str | None,
    min_days: float,
    max_iv_spread: float,
    workers: int,
    config: Path | None,
    at: Path | None,
    json_lines: bool,
) -> int:
    """Volatility surfaces: how well they meet the quotes, and that there is no arbitrage in them.

    Of a running daemon; with --chain of recorded chains, through the same fit: a table, with --json a line a surface,
    with --out a report. Exit 1 where a surface was not published or has an arbitrage.
    """
    if file is None:
        return _live(ctx, config, at, json_lines, underlyings)
    if config is not None or at is not None:
        raise click.UsageError("--chain reads a file; -c and --socket name a running daemon: not both.")
    import shlex
    import sys

    from dea_daemon.domain.errors import ConfigError
    from dea_daemon.wiring.chains import Asked, run_chains
    from dea_daemon.wiring.history import moment

    from_ns, to_ns = (moment(date) if date else None for date in (from_date, to_date))
    if from_ns is not None and to_ns is not None and to_ns <= from_ns:
        raise ConfigError(f"--to {to_date} is not after --from {from_date}")
    asked = Asked(
        file=file,
        out=out,
        underlyings=tuple(name.upper() for name in underlyings),
        from_ns=from_ns,
        to_ns=to_ns,
        min_days=min_days,
        max_iv_spread=max_iv_spread,
        workers=workers,
        json_lines=json_lines,
        command=shlex.join(["dea-daemon", *sys.argv[1:]]),
    )
    return run_chains(asked)


def _live(
    ctx: click.Context, config: Path | None, at: Path | None, json_lines: bool, underlyings: tuple[str, ...]
) -> int:
    offline = {"out": "--out", "from_date": "--from", "to_date": "--to", "min_days": "--min-days",
               "max_iv_spread": "--max-iv-spread", "workers": "--workers"}  # fmt: skip
    given = click.core.ParameterSource.COMMANDLINE
    if wrong := [option for name, option in offline.items() if ctx.get_parameter_source(name) == given]:
        raise click.UsageError(f"{', '.join(wrong)}: only with --chain FILE.")
    if len(underlyings) > 1:
        raise click.UsageError("of a running daemon: one --underlying, or none for all.")
    from dea_daemon.cli.surface_live import run

    return run(config, at, json_lines=json_lines, underlying=underlyings[0] if underlyings else None)
