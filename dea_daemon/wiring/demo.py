"""`dea-daemon demo`: a simulated venue in a process of its own, and the daemon trading there over real sockets."""

import asyncio
import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import structlog
import uvloop

from dea_daemon.domain.errors import ConfigError, VenueError
from dea_daemon.shell.control_client import control_path
from dea_daemon.shell.runner import Runner
from dea_daemon.shell.settings import load
from dea_daemon.shell.watch_settings import HttpSettings
from dea_daemon.simvenue.scenarios import load as load_scenario
from dea_daemon.wiring.demo_book import trade_book
from dea_daemon.wiring.live import POLL_S, cancelled_by_signals, finish, start_logs, trade, until_signalled
from dea_daemon.wiring.summary import within_bands

log = structlog.get_logger()
SETTLE_S = 30.0  # after its time is up the demo may take so long to come to rest
CONFIG = "demo.yaml"
CONFIG_REFUSED, INTERRUPTED = 78, 130  # exit codes


def run_demo(
    seconds: float,
    seed: int,
    scenario: str,
    tape: Path | None,
    json_lines: bool,
    venue_log: Path | None,
    state_dir: Path | None,
    http_port: int | None = None,
    view: bool = False,
) -> int:
    """0 if the demo ended reconciled, inside its bands and without open orders; else 1. Of one that a signal cut
    short the bands are not asked; 130 if it had not begun."""
    with tempfile.TemporaryDirectory(prefix="dea-demo-") as scratch:
        demo = _demo(seconds, seed, scenario, tape, venue_log, state_dir or Path(scratch), json_lines, http_port, view)
        try:
            finished, whole = uvloop.run(demo)
        except asyncio.CancelledError:
            return INTERRUPTED
    if json_lines:
        finish(finished)
    else:
        from dea_daemon.wiring.tables import show

        show(finished)
    at_target = within_bands(finished) or not whole
    return 0 if finished["reconciled"] and at_target and not finished["open_orders"] else 1


async def _demo(
    seconds: float,
    seed: int,
    scenario: str,
    tape: Path | None,
    venue_log: Path | None,
    state_dir: Path,
    json_lines: bool,
    http_port: int | None,
    view: bool,
) -> tuple[dict[str, Any], bool]:
    """What `run.finished` says, and whether its bands must still be asked: all its time was up, and no rest."""
    cancelled_by_signals()
    arguments = ["--seed", str(seed), "--scenario", scenario]
    if venue_log is not None:
        arguments += ["--log", str(venue_log)]
    async with _venue(arguments) as listening:
        environ = {**os.environ, "STATE_DIRECTORY": str(state_dir), **venue_environment(listening)}
        settings = load(config_file(CONFIG), environ)
        if http_port is not None:
            settings = settings.model_copy(update={"http": HttpSettings(enabled=True, port=http_port)})
        window_s = load_scenario(scenario).settlement_window_s  # the demo knows its venue
        pricing = settings.pricing.model_copy(update={"settlement_window_s": window_s})
        settings = settings.model_copy(update={"pricing": pricing})
        start_logs(settings, json_lines)
        if not (json_lines or view):
            from dea_daemon.wiring.tables import introduce

            introduce(scenario, seed, seconds, control_path(state_dir, environ))

        if settings.venues.deribit is not None and settings.venues.deribit.options:
            await trade_book(settings.venues.deribit)
        whole = False

        async def until(runner: Runner) -> None:
            nonlocal whole
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(until_signalled(runner), seconds)
                return
            log.info("demo.settling")
            whole = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    while not at_rest(runner):  # noqa: ASYNC110 the runner has no bell for it
                        await asyncio.sleep(POLL_S)
                whole = False  # it came to rest inside its bands; where the target drifts while draining is no matter

        return await trade(settings, until, tape, view=view), whole


def at_rest(runner: Runner) -> bool:
    """Inside every band, and nothing working."""
    last = runner.stats.last
    if last is None or runner.state.account.orders.live():
        return False
    aimed = [line for line in last.factors if not math.isnan(line.band_usd)]
    return all(abs(line.actual_usd - line.target_usd) <= line.band_usd for line in aimed)


def venue_environment(listening: dict[str, str]) -> dict[str, str]:
    """What config/simvenue.yaml and config/demo.yaml look up, from `venue.listening`."""
    return {
        "DEA_SIMVENUE_HTTP_URL": listening["http_url"],
        "DEA_SIMVENUE_WS_URL": listening["ws_url"],
        "DEA_SIMVENUE_CLIENT_ID": listening["client_id"],
        "DEA_SIMVENUE_CLIENT_SECRET": listening["client_secret"],
    }


def config_file(name: str) -> Path:
    """A shipped configuration: in the checkout, or inside an installed package."""
    package = Path(__file__).resolve().parent.parent
    found = [path for folder in (package.parent / "config", package / "config") if (path := folder / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{name}: not shipped with this installation")
    return found[0]


@contextlib.asynccontextmanager
async def _venue(arguments: list[str]) -> AsyncIterator[dict[str, str]]:
    """A venue process; what its first line says. It is stopped at the end, and ends by itself if we are killed.

    Its own session keeps a terminal's Ctrl-C from it: we still have orders to cancel there.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dea_daemon.cli", "venue", "--until-eof", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        if process.stdout is None:
            raise VenueError("the simulated venue has no output")
        line = await process.stdout.readline()
        if not line:
            code = await process.wait()
            kind = ConfigError if code == CONFIG_REFUSED else VenueError
            raise kind(f"the simulated venue did not start (exit {code})")
        yield json.loads(line)
    finally:
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 5)
        if process.returncode is None:
            process.kill()
            await process.wait()
