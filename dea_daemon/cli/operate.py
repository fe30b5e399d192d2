"""Commands for a daemon that runs: they speak over its control socket.

The modes can be set while none runs, too: the next run starts so.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dea_daemon.cli.base import FILE, UNAVAILABLE, cli, config_option, json_option

if TYPE_CHECKING:
    from dea_daemon.shell.control_client import NotRunning, Place

_Command = TypeVar("_Command", bound=Callable[..., Any])


def where(command: _Command) -> _Command:
    """-c FILE or --socket PATH; $RUNTIME_DIRECTORY without either."""
    at = click.option("--socket", "at", type=FILE, help="Its control socket, if not where FILE says.")
    return config_option(required=False)(at(command))


_why = click.option("--why", default="", metavar="TEXT", help="For the log and the ledger.")


def _place(config: Path | None, at: Path | None) -> "Place":
    from dea_daemon.shell.control_client import find

    place = find(config, at)
    if place is None:
        raise click.UsageError("which daemon? Give -c FILE or --socket PATH, or set $RUNTIME_DIRECTORY.")
    return place


def _say(lines: Iterable[str]) -> None:
    """Venues' words are among them: nothing a terminal would obey."""
    from dea_daemon.shell.output import say

    say(*("".join(c if c.isprintable() else " " for c in line) for line in lines))


def _say_json(fields: Any) -> None:
    import json

    from dea_daemon.shell.output import say

    say(json.dumps(fields, separators=(",", ":")))


# --- looking --------------------------------------------------------------------------------------------------


@cli.command()
@where
@json_option
@click.option("--health", is_flag=True, help="One line; exit code 0 if healthy, 1 if not.")
def status(config: Path | None, at: Path | None, json_lines: bool, health: bool) -> int:
    """What a running daemon does; what is left of one that is gone."""
    from dea_daemon.cli.status_text import status_lines
    from dea_daemon.shell.control_client import NotRunning, get

    place = _place(config, at)
    if health:
        told = get(place, "/health")
        _say(["healthy" if told["healthy"] else "unhealthy: " + "; ".join(told["unhealthy"])])
        return 0 if told["healthy"] else 1
    try:
        found = get(place, "/status")
    except NotRunning as error:
        return _gone(place, error, json_lines)
    if json_lines:
        _say_json(found)
    else:
        _say(status_lines(found))
    return 0


def _gone(place: "Place", error: "NotRunning", json_lines: bool) -> int:
    """What the ledger still tells."""
    from dea_daemon.cli.status_text import last_words_lines
    from dea_daemon.shell.control_client import last_words

    told = last_words(place)
    if json_lines:
        _say_json({"running": False, "crashed": error.crashed, "ledger": told})
    if told is None or json_lines:
        raise error
    click.echo(f"error: {error}", err=True)
    _say(last_words_lines(told))
    return UNAVAILABLE


@cli.command()
@where
def top(config: Path | None, at: Path | None) -> int:
    """Watch a running daemon in the terminal."""
    from dea_daemon.shell.control_client import get

    place = _place(config, at)
    get(place, "/health")  # says what is wrong before the screen is taken
    from dea_daemon.wiring.top import run_top

    return run_top(lambda: get(place, "/status"))


@cli.command()
@where
@json_option
def exposure(config: Path | None, at: Path | None, json_lines: bool) -> None:
    """Delta, gamma, vega, theta and basis by underlying, expiry and contract.

    Of a running daemon, or of a portfolio: FILE with prices, cash and positions (config/portfolio.yaml).
    """
    told, title = _exposure(config, at)
    if json_lines:
        return _say_json(told)
    import sys

    from dea_daemon.shell.exposure_text import table
    from dea_daemon.shell.output import say

    return say(table(told, title, on_terminal=sys.stdout.isatty()))


def _exposure(config: Path | None, at: Path | None) -> tuple[dict[str, Any], str]:
    """What is held, and where that was read."""
    from dea_daemon.shell.control_client import get
    from dea_daemon.shell.portfolio import is_portfolio

    if at is None and config is not None and is_portfolio(config):
        from dea_daemon.wiring.exposure import portfolio_exposure

        return portfolio_exposure(config), str(config)
    place = _place(config, at)
    return get(place, "/exposure"), f"the daemon at {place.socket}"


@cli.command()
@click.argument("seq", default="last", metavar="[SEQ|last]")
@where
@json_option
def explain(seq: str, config: Path | None, at: Path | None, json_lines: bool) -> None:
    """One decision: what was seen, wanted, cut and why, and sent."""
    if seq != "last" and not seq.isdecimal():
        raise click.UsageError(f"{seq!r} is no decision's number; numbers, or 'last'.")
    record = _decision(_place(config, at), None if seq == "last" else int(seq))
    if record is None:
        raise FileNotFoundError("no decision is recorded" if seq == "last" else f"decision {seq} is not recorded")
    if json_lines:
        return _say_json(record)
    from dea_daemon.shell.explain import render

    return _say(render(record).splitlines())


def _decision(place: "Place", seq: int | None) -> dict[str, Any] | None:
    """From the daemon, which knows more, or from its ledger."""
    from dea_daemon.shell.control_client import Refused, get
    from dea_daemon.shell.explain import from_ledger

    try:
        found: dict[str, Any] = get(place, "/decision" if seq is None else f"/decision?seq={seq}")
        return found
    except Refused as error:
        if error.status != 404:
            raise
        return None
    except (ConnectionError, TimeoutError) as error:
        if not place.ledger.exists():
            raise
        click.echo(f"from the ledger: {error}", err=True)
    return from_ledger(place.ledger, seq)


@cli.command()
@where
@click.option("--out", type=FILE, required=True, help="Where to write it, npz.")
def problem(config: Path | None, at: Path | None, out: Path) -> None:
    """Save the last allocation problem of a running daemon: `dea-daemon allocate` solves it again."""
    import os
    from base64 import b64decode

    from dea_daemon.shell.control_client import get

    told = get(_place(config, at), "/problem")
    # It tells positions and limits; and a file that is there is somebody's.
    with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(b64decode(told["npz"]))
    _say([f"{out}: the problem of decision {told['seq']}"])


# --- commanding -----------------------------------------------------------------------------------------------


def _command(place: "Place", command: str, why: str) -> None:
    """Ask, and print the state after it."""
    from dea_daemon.cli.status_text import after_command
    from dea_daemon.shell.control_client import post

    _say([after_command(post(place, "/operator", command=command, why=why), command)])


def _switch(place: "Place", command: str, why: str) -> None:
    """arm, disarm: these are a run's, so not for one that has not begun."""
    from dea_daemon.shell.control_client import NotRunning

    try:
        _command(place, command, why)
    except NotRunning as error:
        raise NotRunning(f"{error}; whether the next one is armed says `armed:` in its configuration") from error


def _set_mode(place: "Place", command: str, mode: str, why: str) -> None:
    """Ask the daemon, or where none runs write the mode for the next one."""
    from dea_daemon.shell.control_client import NotRunning

    try:
        return _command(place, command, why)
    except NotRunning as error:
        gone = error
    from dea_daemon.domain.modes import Mode
    from dea_daemon.shell.control_client import set_mode_at_rest

    found = set_mode_at_rest(place, Mode[mode], f"operator {_user()}" + (f": {why}" if why else ""))
    return _say([f"{gone}; the next one starts {found.name.lower().replace('_', '-')}"])


def _user() -> str:
    """As the daemon names one: "uid 1000 (alice)"."""
    import os
    import pwd

    uid = os.getuid()
    try:
        return f"uid {uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"uid {uid}"


@cli.command()
@where
@_why
def arm(config: Path | None, at: Path | None, why: str) -> None:
    """Send orders from now on."""
    _switch(_place(config, at), "arm", why)


@cli.command()
@where
@_why
def disarm(config: Path | None, at: Path | None, why: str) -> None:
    """Send no orders from now on; go on deciding."""
    _switch(_place(config, at), "disarm", why)


@cli.command()
@where
@_why
def pause(config: Path | None, at: Path | None, why: str) -> None:
    """Send no orders until `resume`, which goes back to the mode before."""
    _set_mode(_place(config, at), "pause", "PAUSED", why)


@cli.command()
@where
@_why
def resume(config: Path | None, at: Path | None, why: str) -> None:
    """End a pause; or lift a halt, reduce-only or flatten, and take the present for right."""
    _set_mode(_place(config, at), "normal", "NORMAL", why)


@cli.command()
@where
@_why
def reduce_only(config: Path | None, at: Path | None, why: str) -> None:
    """Send only orders that shrink exposure."""
    _set_mode(_place(config, at), "reduce_only", "REDUCE_ONLY", why)


@cli.command()
@where
@_why
def halt(config: Path | None, at: Path | None, why: str) -> None:
    """Send no new orders, and cancel those working."""
    _set_mode(_place(config, at), "halt", "HALTED", why)


@cli.command()
@where
@_why
@click.option("--confirm", is_flag=True, help="Yes, trade until nothing is held.")
def flatten(config: Path | None, at: Path | None, why: str, confirm: bool) -> None:
    """Trade until no exposure is left."""
    place = _place(config, at)
    if not confirm:
        raise click.UsageError(f"flatten trades until nothing is held: say so with --confirm.{_held(place)}")
    _set_mode(place, "flatten", "FLATTENING", why)


def _held(place: "Place") -> str:
    """What would be closed, where a daemon tells."""
    from dea_daemon.cli.status_text import positions
    from dea_daemon.shell.control_client import get

    try:
        return f" Held now: {positions(get(place, '/status'))}."
    except OSError:
        return ""


def _rule(place: "Place", name: str, why: str, **weight: float | None) -> None:
    """Ask, and print the forecaster's line after it."""
    from dea_daemon.shell.control_client import Refused, post
    from dea_daemon.shell.forecaster_text import after_ruling

    try:
        _say([after_ruling(post(place, "/forecaster", name=name, why=why, **weight))])
    except Refused as error:
        if error.status != 400:
            raise
        raise click.UsageError(str(error)) from error


@cli.command()
@click.argument("name")
@where
@click.option("--weight", type=click.FloatRange(0, 1), help="What of its forecast is traded; else what it is offered.")
@click.option("--as-configured", is_flag=True, help="Lift what was ruled: the configuration's weight counts again.")
@_why
def promote(
    name: str, config: Path | None, at: Path | None, weight: float | None, as_configured: bool, why: str
) -> None:
    """Trade what a forecaster says, or let a model of variance trade, from now on and after restarts."""
    if as_configured and weight is not None:
        raise click.UsageError("give one of --weight and --as-configured")
    given: dict[str, float | None] = {} if weight is None and not as_configured else {"weight": weight}
    _rule(_place(config, at), name, why, **given)


@cli.command()
@click.argument("name")
@where
@_why
def demote(name: str, config: Path | None, at: Path | None, why: str) -> None:
    """Trade nothing of what a forecaster says, from now on and after restarts."""
    _rule(_place(config, at), name, why, weight=0.0)


@cli.command()
@where
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--allow-loosen", is_flag=True, help="Limits may be loosened.")
def reload(config: Path | None, at: Path | None, dry_run: bool, allow_loosen: bool) -> None:
    """Let a running daemon read its configuration again. Where that is wrong, the old one stays."""
    from dea_daemon.cli.status_text import change_lines
    from dea_daemon.shell.control_client import post

    place = _place(config, at)
    result = post(place, "/reload", dry_run=dry_run, allow_loosen=allow_loosen)
    _say(change_lines(result, dry_run, allow_loosen))
