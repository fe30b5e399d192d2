"""The group every command hangs on: the house's exit codes, and what the user is told when something fails.

Everything heavy is imported inside the commands, so that `--help` and completion answer in 50 ms.
"""

import contextlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

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


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Dynamic Exposure Allocation for crypto derivatives."""
    cli.debug = debug


# --- options that several commands have ---------------------------------------------------------------------

FILE = click.Path(path_type=Path)
_Command = TypeVar("_Command", bound=Callable[..., Any])


def config_option(required: bool) -> Callable[[_Command], _Command]:
    """-c FILE."""
    return click.option("-c", "--config", type=FILE, required=required, help="Configuration, YAML.")


json_option = click.option("--json", "json_lines", is_flag=True, help="JSON lines on stdout.")
