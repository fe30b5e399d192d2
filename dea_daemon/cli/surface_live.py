"""`surface` of a running daemon: what it fits, and how far that is relied upon."""

from pathlib import Path


def run(config: Path | None, at: Path | None, *, json_lines: bool, underlying: str | None) -> int:
    """Ask the daemon that `-c FILE` or `--socket PATH` names; print its surfaces. Returns the exit code.

    Raises click.UsageError where no daemon is named or no such underlying is there, and what `control_client` raises.
    """
    import sys

    import click

    from dea_daemon.cli.operate import _place, _say_json
    from dea_daemon.shell.control_client import get
    from dea_daemon.shell.output import say

    place = _place(config, at)
    told = get(place, "/surface")
    names = [line["underlying"] for line in told["surfaces"]]
    if underlying is not None and names:
        told["surfaces"] = [line for line in told["surfaces"] if line["underlying"].lower() == underlying.lower()]
        if not told["surfaces"]:
            raise click.UsageError(f"no options on {underlying!r} are followed; there are {', '.join(names)}")
    if json_lines:
        _say_json(told)
    else:
        from dea_daemon.shell.surface_text import table

        say(table(told, f"the daemon at {place.socket}", on_terminal=sys.stdout.isatty()))
    return 0
