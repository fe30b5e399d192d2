"""`dea-daemon calibrate`: parameters from a history, with the evidence for them."""

import os
from pathlib import Path

import click

from dea_daemon.cli.base import FILE, cli, config_option, json_option


@cli.command()
@config_option(required=True)
@click.option("--history", type=FILE, required=True, help="Folder of candles and funding, as `data` makes them.")
@click.option("--out", type=FILE, required=True, help="The YAML file to write; the log of trials goes beside it.")
@click.option("--trials", default=200, show_default=True, type=click.IntRange(1, 100_000), help="Risk models to try.")
@click.option("--workers", default=lambda: os.cpu_count() or 1, type=click.IntRange(min=1),
              help="Processes.  [default: one a CPU]")  # fmt: skip
@click.option("--ray", is_flag=True, help="On the Ray cluster at $RAY_ADDRESS, or on one of this machine.")
@click.option("--seed", default=7, show_default=True, help="Of the draws; any number of workers finds the same.")
@click.option("--from", "from_date", metavar="DATE", help="First day looked at, UTC.  [default: all there are]")
@click.option("--to", "to_date", metavar="DATE", help="The day it ends at the beginning of.")
@click.option("--forecasters/--no-forecasters", default=True, help="Also options of the forecasters of returns.")
@click.option("--bands/--no-bands", default=True, help="Also choose the band, by a few whole backtests.")
@click.option("--state-dir", type=FILE, help="Of a run: what its fills cost is told beside what is assumed.")
@click.option("--date", "made", metavar="DATE", help="When the file says it was made.  [default: today]")
@json_option
def calibrate(
    config: Path,
    history: Path,
    out: Path,
    trials: int,
    workers: int,
    ray: bool,
    seed: int,
    from_date: str | None,
    to_date: str | None,
    forecasters: bool,
    bands: bool,
    state_dir: Path | None,
    made: str | None,
    json_lines: bool,
) -> int:
    """Choose parameters by a history, and say how well that works on days they were not chosen by.

    What does not beat the configuration significantly stays. `calibration: FILE` in a configuration takes the result.
    """
    import shlex
    import sys

    from dea_daemon.domain.errors import ConfigError
    from dea_daemon.shell.settings import load

    settings = load(config)
    if not history.is_dir():
        raise FileNotFoundError(f"{history}: no such folder")
    from dea_daemon.cli.records import ledger_path
    from dea_daemon.wiring.calibrate import run_calibrate
    from dea_daemon.wiring.calibrate_trials import EVER, NEVER, Asked
    from dea_daemon.wiring.history import moment

    from_ns, to_ns = moment(from_date) if from_date else EVER, moment(to_date) if to_date else NEVER
    if to_ns <= from_ns:
        raise ConfigError(f"--to {to_date} is not after --from {from_date}")
    asked = Asked(
        history=history,
        out=out,
        made=made or "",
        from_ns=from_ns,
        to_ns=to_ns,
        trials=trials,
        workers=workers,
        ray=ray,
        forecasters=forecasters,
        bands=bands,
        ledger=None if state_dir is None else ledger_path(None, state_dir),
        seed=seed,
        json_lines=json_lines,
        command=shlex.join(["dea-daemon", *sys.argv[1:]]),
    )
    return run_calibrate(asked, settings)
