"""What stands around a run: control socket, web view, metrics, alerts, the service manager. None of it can hold
trading up: each listens after a decision was sent, and answers between two events."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from dea_daemon.domain.decisions import Decision, Note
from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.events import ForecasterRuled, Operator
from dea_daemon.shell.alerts import Alerts
from dea_daemon.shell.control import ControlServer
from dea_daemon.shell.control_client import control_path
from dea_daemon.shell.explain import from_ledger
from dea_daemon.shell.metrics import Metrics
from dea_daemon.shell.monitor import Monitor
from dea_daemon.shell.notify import Notifier
from dea_daemon.shell.reload import changes
from dea_daemon.shell.runner import Runner
from dea_daemon.shell.settings import Settings, load
from dea_daemon.shell.web import WebServer
from dea_daemon.wiring.venues import Venues

log = structlog.get_logger()


@dataclass
class Actions:
    """What the control socket may ask for. `config` is None where there is no file to load again."""

    runner: Runner
    settings: Settings
    config: Path | None
    environ: Mapping[str, str]
    notifier: Notifier
    now_ns: Callable[[], int]

    def operator(self, command: Operator, who: str, why: str) -> None:
        """Folded before this returns."""
        self.runner.operator(command, who, why)

    async def reload(self, who: str, *, dry_run: bool, allow_loosen: bool) -> dict[str, Any]:
        """Read the configuration again. ConfigError where it is wrong, asks for a restart, or loosens unasked."""
        if self.config is None:
            raise ConfigError("this run has no configuration file to load again")
        fresh = load(self.config, self.environ)
        # `--observe` and the operator's arm and disarm are not the file's business.
        fresh = fresh.model_copy(update={"armed": self.settings.armed, "state_dir": self.settings.state_dir})
        found = changes(self.settings, fresh)
        loosening = [str(change) for change in found if change.loosens]
        if loosening and not allow_loosen and not dry_run:
            told = "\n".join(f"  {change}" for change in loosening)
            raise ConfigError(f"this loosens limits; nothing was applied (--allow-loosen consents):\n{told}")
        applied = bool(found) and not dry_run
        if applied:
            self.notifier.reloading()
            self.runner.reload(fresh.parameters, who, tuple(str(change) for change in found))
            self.settings = fresh
            self.notifier.ready("reloaded")
            log.warning("run.reloaded", who=who, changed=[str(c) for c in found], loosened=bool(loosening))
        return {"changed": [asdict(change) for change in found], "applied": applied}

    def heard(self) -> bool:
        """Whether any target takes what forecasters of returns say."""
        return any(target.kind == "return" for target in self.runner.params.allocator.targets.values())

    async def rule(self, name: str, weight: float | None, who: str, why: str) -> str:
        """A forecaster's weight from now on, folded; why that was refused, or ""."""
        notes: list[Note] = []

        def listen(decision: Decision) -> None:
            notes.extend(decision.notes)

        self.runner.listeners.append(listen)
        try:
            self.runner.emit([ForecasterRuled(self.now_ns(), name, weight, who, why)])
            await asyncio.sleep(0)  # listeners are told once the loop turns
        finally:
            self.runner.listeners.remove(listen)
        return next((str(note.fields["why"]) for note in notes if note.event == "forecaster.refused"), "")


@asynccontextmanager
async def watching(
    runner: Runner,
    venues: Venues,
    settings: Settings,
    *,
    run_id: str,
    config: Path | None,
    now_ns: Callable[[], int],
    utc_ns: Callable[[], int],
    environ: Mapping[str, str] = os.environ,
) -> AsyncIterator[Monitor]:
    """Open all that is configured; close it when the run is over."""
    ledger = settings.state_dir / "ledger.sqlite"
    monitor = Monitor(
        runner,
        venues.sockets,
        now_ns=now_ns,
        utc_ns=utc_ns,
        state_dir=settings.state_dir,
        config=config,
        run_id=run_id,
        stored=lambda seq: from_ledger(ledger, seq),
    )
    notifier = Notifier.from_environ(environ)
    async with AsyncExitStack() as stack:
        tasks: list[asyncio.Task[Any]] = []
        stack.push_async_callback(_stopped, tasks)
        actions = Actions(runner, settings, config, environ, notifier, now_ns)
        control = ControlServer(control_path(settings.state_dir, environ), monitor, actions)
        await stack.enter_async_context(control)
        log.info("control.listening", socket=str(control.path.absolute()), state_dir=str(ledger.parent.absolute()))
        if settings.http.enabled:
            metrics = Metrics(monitor)
            runner.listeners.append(metrics.decided)
            http = WebServer(settings.http.host, settings.http.port, monitor, metrics.exposition)
            web = await stack.enter_async_context(http)
            log.info("web.listening", url=web.url)
        if settings.alerts.webhook or settings.alerts.telegram:
            alerts = Alerts(settings.alerts, f"{socket.gethostname()} {config.stem if config else 'demo'}")
            runner.listeners.append(alerts.tell)
            tasks.append(asyncio.create_task(alerts.run()))
            stack.push_async_callback(alerts.close)
            alerts.note(Note("run.started", {"armed": settings.armed}))
            stack.push(partial(_ended, alerts))
        tasks.append(asyncio.create_task(notifier.feed(lambda: runner.stats.decisions)))
        notifier.ready("trading" if settings.armed else "observing")
        stack.callback(notifier.stopping)
        yield monitor


def _ended(alerts: Alerts, _: object, error: BaseException | None, __: object) -> None:
    """The run's end, as an alert."""
    failed = isinstance(error, Exception)
    alerts.note(Note("run.failed", {"why": str(error)}) if failed else Note("run.ended", {}))


async def _stopped(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
