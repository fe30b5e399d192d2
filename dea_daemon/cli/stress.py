"""`dea-daemon stress`: what would be lost, and what the daemon would do about it."""

import shlex
import sys
from pathlib import Path

import click

from dea_daemon.cli.base import FILE, cli, config_option, json_option


@cli.command()
@config_option(required=True)
@click.option("--portfolio", type=FILE, help="A portfolio by hand.  [default: what the targets ask for]")
@click.option("--history", type=FILE, help="Folder of hourly candles: its hours are drawn anew, too.")
@click.option("--out", type=FILE, help="Folder for stress.html.")
@click.option("--seed", default=7, show_default=True, type=click.IntRange(min=0), help="Of all that is drawn.")
@click.option("--paths", default=10, show_default=True, type=click.IntRange(min=0), help="Drawn of each kind.")
@click.option("--one-pool", is_flag=True, help="All equity backs everything: with cross-collateral.")
@json_option
def stress(
    config: Path,
    portfolio: Path | None,
    history: Path | None,
    out: Path | None,
    seed: int,
    paths: int,
    one_pool: bool,
    json_lines: bool,
) -> int:
    """Revalue a book under the venues' grids and history's worst days, and run the engine through crises."""
    from dea_daemon.shell.settings import load

    settings = load(config)
    from dea_daemon.wiring.stress import Asked, run_stress

    command = shlex.join(["dea-daemon", *sys.argv[1:]])
    return run_stress(Asked(portfolio, history, out, seed, paths, one_pool, json_lines, command), settings)
