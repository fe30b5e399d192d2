"""The command line. Each command only reads its options and hands over: the bodies are in `wiring`.

Everything heavy is imported inside the commands, so that `--help` and completion answer in 50 ms.
"""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from dea_daemon import __version__
from dea_daemon.domain.errors import (
    ConfigError,
    DataError,
    DeaError,
    InvariantViolation,
    LedgerError,
    OutcomeUnknown,
    RateLimited,
    VenueError,
)

if TYPE_CHECKING:
    from dea_daemon.shell.settings import Settings

USAGE, DATA, NO_INPUT, UNAVAILABLE, INTERNAL, TEMPORARY, PERMISSION, CONFIG = 64, 65, 66, 69, 70, 75, 77, 78
INTERRUPTED = 130


def exit_code(error: BaseException) -> int | None:
    """The exit code an error stands for; None for a bug. The first class that fits counts."""
    from dea_daemon.shell.yaml_errors import ConfigForbidden, ConfigMissing

    forbidden = isinstance(error.__cause__, PermissionError)
    codes: tuple[tuple[type[BaseException], int], ...] = (
        (ConfigMissing, NO_INPUT),
        (ConfigForbidden, PERMISSION),
        (ConfigError, CONFIG),
        (RateLimited, TEMPORARY),
        (OutcomeUnknown, TEMPORARY),
        (VenueError, UNAVAILABLE),
        (DataError, PERMISSION if forbidden else DATA),
        (LedgerError, PERMISSION if forbidden else TEMPORARY),
        (InvariantViolation, INTERNAL),
        (FileNotFoundError, NO_INPUT),
        (IsADirectoryError, NO_INPUT),
        (PermissionError, PERMISSION),
        (ConnectionError, UNAVAILABLE),
        (OSError, TEMPORARY),  # no space left, too many files
        (DeaError, INTERNAL),
    )
    return next((code for kind, code in codes if isinstance(error, kind)), None)


class Commands(click.Group):
    """A group that ends with the house's exit codes, and shows a traceback only for bugs."""

    debug = False

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs) or 0
        except click.UsageError as error:
            error.show()
            code = USAGE
        except click.ClickException as error:
            error.show()
            code = NO_INPUT if isinstance(error, click.FileError) else USAGE
        except click.Abort:
            code = INTERRUPTED
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:  # noqa: BLE001 the last place before the user
            return report(error)


def report(error: Exception) -> int:
    """Tell the user what went wrong and return the exit code."""
    told = list(_leaves(error))
    codes = [exit_code(e) for e in told]
    if None in codes:
        return _report_bug(told[codes.index(None)])
    if cli.debug:
        _tell("".join(traceback.format_exception(error)).rstrip())
    for one in told:
        text = str(one)
        placed = ": error: " in text.partition("\n")[0]  # a configuration's problems come finished
        _tell(text if placed else f"error: {text}")
    return codes[0] or INTERNAL


def _report_bug(error: BaseException) -> int:
    """A short line for the user, the traceback for the log (stderr where none is configured yet)."""
    import logging

    logging.getLogger("dea_daemon").critical("run.crashed", exc_info=error)
    _tell(f"error: internal: {type(error).__name__}: {error} (a bug in dea-daemon)")
    return INTERNAL


def _tell(text: str) -> None:
    """To stderr, without what an exception may have carried along. A reader that is gone changes no exit code."""
    from dea_daemon.shell.redaction import clean, scrub

    with contextlib.suppress(OSError):
        click.echo(scrub(clean(text).encode("utf-8", "replace")).decode(), err=True)


def _leaves(error: BaseException) -> list[BaseException]:
    """The errors in an exception group, or the one."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


# --- commands -----------------------------------------------------------------------------------------------

FILE = click.Path(path_type=Path)
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _config(required: bool) -> Callable[[_Command], _Command]:
    return click.option("-c", "--config", type=FILE, required=required, help="Configuration, YAML.")


_json = click.option("--json", "json_lines", is_flag=True, help="JSON lines on stdout.")
_seed = click.option("--seed", default=7, show_default=True, help="Seed of the simulated market.")
_scenario = click.option("--scenario", default="default", show_default=True, help="Simulated market.")
_tape = click.option("--tape", type=FILE, help="Record every event here, for replay.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Dynamic Exposure Allocation for crypto derivatives."""
    cli.debug = debug


@cli.command()
@_config(required=True)
def check(config: Path) -> None:
    """Would `run` start with this configuration? Prints what it says."""
    from dea_daemon.shell.output import say
    from dea_daemon.shell.settings import load, warnings

    settings = load(config)
    say(f"{config}: ok", *(f"  {name:<10} {text}" for name, text in summary(settings)))
    for warning in warnings(settings):
        click.echo(f"warning: {warning}", err=True)


def summary(settings: "Settings") -> list[tuple[str, str]]:
    """What is configured, as (name, text) lines."""
    allocator, guards, execution = settings.allocator, settings.guards, settings.execution
    armed = "armed: orders are sent" if settings.armed else "observe: decisions are recorded, nothing is sent"
    lines = [("mode", armed), ("state in", str(settings.state_dir))]
    for section in settings.venues.sections:
        where = f" at {section.http_url}" if section.http_url else ""
        lines.append(("venue", f"{section.venue}/{section.account}, {section.environment}{where}"))
        lines.append(("", ", ".join(section.instruments)))
    for underlying, target in allocator.targets.items():
        if target.kind == "fixed":
            aim = f"delta {target.delta_usd:,.15g} USD ± {target.band_usd:,.15g}"
        else:
            aim = f"volatility, weight {target.weight:g}"
        lines.append(("target", f"{underlying}: {aim}"))
    if any(target.kind == "volatility" for target in allocator.targets.values()):
        together = f"volatility targets together {allocator.annual_vol:.3g} of equity a year"
        lines.append(("", f"{together}, leverage up to {allocator.max_leverage:g}"))
    return [
        *lines,
        ("limits", f"USD: gross {guards.max_gross_usd:,.15g}, net {guards.max_net_usd:,.15g} per underlying"),
        ("", f"contract {guards.max_instrument_usd:,.15g}, order {guards.max_order_usd:,.15g}"),
        ("", f"in an hour: turnover {guards.max_turnover_usd_per_hour:,.15g}"),
        ("", f"in an hour: fees {guards.max_fees_usd_per_hour:,.15g}"),
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
@click.option("--seconds", default=30.0, show_default=True, type=click.FloatRange(min=0, min_open=True))
@_seed
@_scenario
@_tape
@_json
@click.option("--log", "venue_log", type=FILE, help="The simulated venue's own account of every order.")
@click.option("--state-dir", type=FILE, help="Keep the ledger here; a run again goes on from it.")
def demo(
    seconds: float,
    seed: int,
    scenario: str,
    tape: Path | None,
    json_lines: bool,
    venue_log: Path | None,
    state_dir: Path | None,
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
    )


@cli.command()
@click.option("--port", default=0, show_default=True, type=click.IntRange(0, 65_535), help="0: any that is free.")
@_seed
@_scenario
@click.option("--log", type=FILE, help="A JSON line for every order accepted, edited, cancelled, filled.")
@click.option("--fault", "faults", multiple=True, metavar="SPEC", help="Such as private/buy=hang_after:0.05.")
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
@_config(required=True)
@click.option("--observe", is_flag=True, help="Send no orders, even if the configuration is armed.")
@click.option("--resume", is_flag=True, help="Lift a halt or reduce-only left by the last run, by your word.")
@_json
def run(config: Path, observe: bool, resume: bool, json_lines: bool) -> int:
    """Trade, or observe unless the configuration is armed."""
    from dea_daemon.shell.settings import load, warnings

    settings = load(config)
    if observe:
        settings = settings.model_copy(update={"armed": False})
    for warning in warnings(settings):
        click.echo(f"warning: {warning}", err=True)
    from dea_daemon.wiring.live import run_live  # after the settings: their errors come without ccxt's delay

    return run_live(settings, json_lines, resume)


@cli.command()
@click.option("--capture", "captures", type=FILE, multiple=True, required=True, help="Recorded stream; repeatable.")
@click.argument("more", type=FILE, nargs=-1)
@click.option("--venue", required=True, type=click.Choice(["binanceusdm", "deribit"]), help="Whose stream it is.")
@_config(required=False)
@_tape
@_json
def backtest(
    captures: tuple[Path, ...],
    more: tuple[Path, ...],
    venue: str,
    config: Path | None,
    tape: Path | None,
    json_lines: bool,
) -> int:
    """Drive the engine with a recorded stream (--capture FILE [FILE...]) against an in-process venue."""
    from dea_daemon.shell.settings import load

    settings = load(config) if config else None
    files = [_readable(path) for path in captures + more]
    from dea_daemon.wiring.backtest import run_capture

    return run_capture(files, venue, settings, json_lines, tape)


@cli.command()
@click.argument("tape", type=FILE)
@_json
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


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    """SIGTERM outside a loop: unwind as Ctrl-C does."""
    sys.exit(128 + number)


def _fill_standard_streams() -> None:
    """A stream we were started without is /dev/null: else the next file opened becomes it, and uvloop aborts."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, mode))  # noqa: SIM115 for as long as the process lives


def main() -> None:
    """Entry point of `dea-daemon`."""
    _fill_standard_streams()
    signal.signal(signal.SIGTERM, _terminate)
    cli.main(prog_name="dea-daemon")


if __name__ == "__main__":
    main()
