"""Commands that start a run, or look at a configuration or a recording. The bodies are in `wiring`."""

import contextlib
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dea_daemon import __version__
from dea_daemon.cli.base import FILE, cli, config_option, json_option
from dea_daemon.cli.protections import unprotected

if TYPE_CHECKING:
    from dea_daemon.shell.settings import Settings

_seed = click.option("--seed", default=7, show_default=True, help="Seed of the simulated market.")
_scenario = click.option("--scenario", default="default", show_default=True, help="Simulated market.")
_demo_scenario = click.option("--scenario", default="options", show_default=True, help="Simulated market.")
_tape = click.option("--tape", type=FILE, help="Record every event here, for replay.")
_view = click.option(
    "--view/--no-view",
    default=None,
    help="The live view, by default on a terminal; the log goes to dea-daemon.log in the state directory meanwhile.",
)


@cli.command()
@config_option(required=True)
def check(config: Path) -> None:
    """Would `run` start with this configuration? Prints what it says."""
    from dea_daemon.shell.output import say
    from dea_daemon.shell.settings import load, warnings

    settings = load(config)
    say(f"{config}: ok", *(f"  {name:<10} {text}" for name, text in summary(settings)))
    options = any(getattr(section, "options", ()) for section in settings.venues.sections)
    if off := unprotected(settings.guards.model_dump(), options):
        say(f"  {'off':<10} {off}")
    for warning in warnings(settings):
        click.echo(f"warning: {warning}", err=True)


def summary(settings: "Settings") -> list[tuple[str, str]]:
    """What is configured, as (name, text) lines."""
    allocator, guards, execution = settings.allocator, settings.guards, settings.execution
    armed = "armed: orders are sent" if settings.armed else "observe: decisions are recorded, nothing is sent"
    lines = [("mode", armed), ("state in", str(settings.state_dir.absolute()))]
    for section in settings.venues.sections:
        where = f" at {section.http_url}" if section.http_url else ""
        lines.append(("venue", f"{section.venue}/{section.account}, {section.environment}{where}"))
        lines.append(("", ", ".join(section.patterns)))
    for underlying, target in allocator.targets.items():
        if target.kind == "fixed":
            band = "by cost" if isinstance(target.band_usd, str) else f"{target.band_usd:,.15g}"
            aim = f"delta {target.delta_usd:,.15g} USD ± {band}"
        elif target.kind == "volatility":
            aim = f"volatility, weight {target.weight:g}"
        else:
            aim = f"best for what is expected, {allocator.kelly:g} of Kelly"
        lines.append(("target", f"{underlying}: {aim}"))
    lines += [("", f"{name} {kept.usd:,.15g} ± {kept.band_usd:,.15g}") for name, kept in allocator.factors.items()]
    if any(target.kind != "fixed" for target in allocator.targets.values()):
        together = f"volatility and return targets together {allocator.annual_vol:.3g} of equity a year"
        lines.append(("", f"{together}, leverage up to {allocator.max_leverage:g}"))
    defaults = {name: field.default for name, field in type(guards).model_fields.items() if not field.is_required()}
    others = [(name, value) for name, value in guards if name in defaults and value != defaults[name]]
    if allocator.max_drawdown is not None:
        lines.append(("", f"shrunk as equity falls, to nothing {allocator.max_drawdown:.0%} below its peak"))
    return [
        *lines,
        ("limits", f"USD: gross {guards.max_gross_usd:,.15g}, net {guards.max_net_usd:,.15g} per underlying"),
        ("", f"contract {guards.max_instrument_usd:,.15g}, order {guards.max_order_usd:,.15g}"),
        ("", f"in an hour: turnover {guards.max_turnover_usd_per_hour:,.15g}"),
        ("", f"in an hour: fees {guards.max_fees_usd_per_hour:,.15g}"),
        *(("", f"{name} {value:,.15g}") for name, value in others if value is not None),
        ("execution", f"{execution.order_type}, in slices of {execution.slice_usd:,.15g} USD"),
    ]


@cli.command()
def schema() -> None:
    """The configuration's JSON Schema, for editors."""
    import json

    from dea_daemon.shell.output import say
    from dea_daemon.shell.settings import Settings

    say(json.dumps(Settings.model_json_schema(), indent=2, ensure_ascii=False))


@cli.command()
@click.option("--seconds", default=45.0, show_default=True, type=click.FloatRange(min=0, min_open=True))
@_seed
@_demo_scenario
@_tape
@json_option
@click.option("--log", "venue_log", type=FILE, help="The simulated venue's own account of every order.")
@click.option("--state-dir", type=FILE, help="Keep the ledger here; a run again goes on from it.")
@click.option("--http", "http_port", type=click.IntRange(0, 65_535), help="Serve the web view on this port.")
@_view
def demo(
    seconds: float,
    seed: int,
    scenario: str,
    tape: Path | None,
    json_lines: bool,
    venue_log: Path | None,
    state_dir: Path | None,
    http_port: int | None,
    view: bool | None,
) -> int:
    """Trade against a simulated venue over real sockets."""
    from dea_daemon.wiring.demo import run_demo

    return run_demo(
        seconds=seconds,
        seed=seed,
        scenario=scenario,
        tape=tape,
        json_lines=json_lines,
        venue_log=venue_log,
        state_dir=state_dir,
        http_port=http_port,
        view=_wants_view(view, json_lines),
    )


def _wants_view(view: bool | None, json_lines: bool) -> bool:
    """As asked; unasked, where a person sits at a terminal."""
    if json_lines:
        if view:
            raise click.UsageError("--view draws, --json writes lines: not both.")
        return False
    from dea_daemon.shell.screen import usable

    return usable() if view is None else view


@cli.command()
@click.option("--port", default=0, show_default=True, type=click.IntRange(0, 65_535), help="0: any that is free.")
@_seed
@_scenario
@click.option("--log", type=FILE, help="A JSON line for every order accepted, edited, cancelled, filled.")
@click.option("--fault", "faults", multiple=True, metavar="SPEC", help="private/buy=hang_after:0.05, factors/*=html, …")
@click.option("--until-eof", is_flag=True, help="Stop when standard input ends, too.")
def venue(port: int, seed: int, scenario: str, log: Path | None, faults: tuple[str, ...], until_eof: bool) -> None:
    """Serve a simulated Deribit on loopback, until stopped."""
    import uvloop

    from dea_daemon.shell.output import emit
    from dea_daemon.wiring.venue import serve_venue

    serving = serve_venue(port=port, seed=seed, scenario=scenario, log=log, faults=faults, emit=emit)
    uvloop.run(_until_stopped(serving, until_eof))


async def _until_stopped(work: Coroutine[Any, Any, None], until_eof: bool) -> None:
    """Run until it ends, or SIGINT or SIGTERM asks it to, or the parent that holds our stdin is gone."""
    import asyncio

    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    if until_eof:
        loop.add_reader(0, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


@cli.command()
@config_option(required=True)
@click.option("--observe", is_flag=True, help="Send no orders, even if the configuration is armed.")
@click.option("--resume", is_flag=True, help="Lift a halt or reduce-only left by the last run, by your word.")
@json_option
@_view
def run(config: Path, observe: bool, resume: bool, json_lines: bool, view: bool | None) -> int:
    """Trade, or observe unless the configuration is armed."""
    if os.getpid() == 1:
        from dea_daemon.shell.watchdog import outlive

        outlive()
    from dea_daemon.shell.settings import load, warnings

    settings = load(config)
    if observe:
        settings = settings.model_copy(update={"armed": False})
    for warning in warnings(settings):
        click.echo(f"warning: {warning}", err=True)
    from dea_daemon.wiring.live import run_live  # after the settings: their errors come without ccxt's delay

    return run_live(settings, json_lines, resume, config, _wants_view(view, json_lines))


@cli.command()
@click.option("--history", type=FILE, help="Folder of candles and funding, as `data` makes them.")
@click.option("--from", "from_date", metavar="DATE", help="First day traded on, UTC: 2020-01-01.")
@click.option("--to", "to_date", metavar="DATE", help="The day it ends at the beginning of.")
@click.option("--out", type=FILE, help="Folder for report.html and report.json.")
@click.option("--capture", "captures", type=FILE, multiple=True, help="Or: a recorded stream; repeatable.")
@click.argument("more", type=FILE, nargs=-1)
@click.option("--venue", type=click.Choice(["binanceusdm", "deribit", "okx"]), help="Whose stream.")
@config_option(required=False)
@_seed
@_tape
@json_option
def backtest(
    history: Path | None,
    from_date: str | None,
    to_date: str | None,
    out: Path | None,
    captures: tuple[Path, ...],
    more: tuple[Path, ...],
    venue: str | None,
    config: Path | None,
    seed: int,
    tape: Path | None,
    json_lines: bool,
) -> int:
    """Drive the engine with the past, against an in-process venue: candles (--history) or a stream (--capture)."""
    from dea_daemon.shell.settings import load

    if history is None:
        if not captures or venue is None:
            raise click.UsageError("either --history, -c, --from and --to, or --capture and --venue.")
        settings = load(config) if config else None
        files = [_readable(path) for path in captures + more]
        from dea_daemon.wiring.backtest import run_capture

        return run_capture(files, venue, settings, json_lines, tape)
    if captures or more or config is None or from_date is None or to_date is None:
        raise click.UsageError("with --history: -c, --from and --to, and no stream.")
    import shlex
    import sys

    settings = load(config)
    from dea_daemon.domain.errors import ConfigError
    from dea_daemon.wiring.history import Asked, moment, run_history

    if moment(to_date) <= moment(from_date):
        raise ConfigError(f"--to {to_date} is not after --from {from_date}")

    asked = Asked(
        config=config,
        history=_readable(history, directory=True),
        from_ns=moment(from_date),
        to_ns=moment(to_date),
        out=out,
        tape=tape,
        seed=seed,
        json_lines=json_lines,
        command=shlex.join(["dea-daemon", *sys.argv[1:]]),
    )
    return run_history(asked, settings)


@cli.command()
@click.argument("tape", type=FILE)
@json_option
def replay(tape: Path, json_lines: bool) -> int:
    """Run a tape's events through the engine again and compare every decision."""
    _readable(tape, directory=True)
    from dea_daemon.wiring.replay import run_replay

    return run_replay(tape, json_lines)


@cli.command()
def version() -> None:
    """The version."""
    click.echo(f"dea-daemon {__version__}")


def _readable(path: Path, directory: bool = False) -> Path:
    """The path, or FileNotFoundError before any work is done."""
    if not (path.is_file() or (directory and path.is_dir())):
        raise FileNotFoundError(f"{path}: no such file")
    return path
