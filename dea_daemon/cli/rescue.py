"""Commands for when the daemon hangs or is gone: they go round it."""

from pathlib import Path

import click

from dea_daemon.cli.base import cli, config_option, json_option


@cli.command("cancel-all")
@config_option(required=True)
@click.option(
    "--timeout",
    "timeout_s",
    default=20.0,
    show_default=True,
    type=click.FloatRange(min=1.0, max=600.0),
    help="Seconds; then it ends, whatever the venue does.",
)
@json_option
def cancel_all(config: Path, timeout_s: float, json_lines: bool) -> int:
    """Cancel our own orders at the venue, without the daemon. Orders placed by hand stay.

    Exit code 0: the venue says that none is left; 75: some may be left; 69: the venue cannot be reached.
    """
    from dea_daemon.wiring.cancel_all import holder, load, run_cancel_all

    rescue = load(config)
    if (pid := holder(rescue.state_dir)) is not None:
        click.echo(f"warning: the daemon, process {pid}, has not ended: armed, it places orders again", err=True)
    return run_cancel_all(rescue, timeout_s, json_lines)
