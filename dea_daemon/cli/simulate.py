"""`dea-daemon simulate`: histories of faults, judged step by step."""

import os
import re

import click

from dea_daemon.cli.base import cli, json_option


def _seeds(ctx: click.Context, param: click.Parameter, value: str) -> range:
    """A:B, from A up to but not B; or one seed."""
    if (told := re.fullmatch(r"(\d+)(?::(\d+))?", value)) is None:
        raise click.BadParameter(f"{value!r}: expected A:B, two whole numbers.")
    first = int(told[1])
    if not (seeds := range(first, int(told[2]) if told[2] else first + 1)):
        raise click.BadParameter(f"{value!r}: no seed is from {first} up to but not {told[2]}.")
    return seeds


@cli.command()
@click.option(
    "--seeds", callback=_seeds, metavar="A:B", required=True, help="From A up to but not B; each is one history."
)
@click.option("--faults", default="all", show_default=True, metavar="NAME,…", help="Which may strike.")
@click.option("--hours", default=0.0125, show_default=True, type=click.FloatRange(min=0, min_open=True),
              help="How long each history lasts, of its own time; then a minute without faults.")  # fmt: skip
@click.option("--storm", type=click.FloatRange(min=0), help="Multiplies every fault's rate.  [default: by seed]")
@click.option("--options/--no-options", default=None, help="With an option book or without.  [default: by seed]")
@click.option("--pairs", default=0, metavar="N", type=click.IntRange(min=0),
              help="Then go on, aiming, until each fault met each state of orders N times.")  # fmt: skip
@click.option("--jobs", default=lambda: os.cpu_count() or 1, type=click.IntRange(min=1),
              help="Processes.  [default: one a CPU]")  # fmt: skip
@click.option("--story", is_flag=True, help="Tell all that happened.")
@json_option
def simulate(
    seeds: range,
    faults: str,
    hours: float,
    storm: float | None,
    options: bool | None,
    pairs: int,
    jobs: int,
    story: bool,
    json_lines: bool,
) -> int:
    """Live through seeded faults in virtual time and check every promise at every step. Exit 1 where one broke."""
    from dea_daemon.domain.errors import ConfigError
    from dea_daemon.wiring.simulate.faults import chosen
    from dea_daemon.wiring.simulate.run import Asked, run_simulate

    if story and json_lines:
        raise click.UsageError("--story writes text, --json JSON: not both.")
    try:
        names = chosen(faults)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    return run_simulate(Asked(seeds, names, hours, storm, options, jobs, json_lines, story, pairs))
