"""`dea-daemon run`: venue sockets and timers in, ccxt out."""

import asyncio
import contextlib
import gc
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog
import uvloop

from dea_daemon.domain.commands import FitModel, FitSurface, Outgoing
from dea_daemon.domain.errors import LedgerError, check
from dea_daemon.domain.events import ModelFitted, Operator, RunStarted, SurfaceFitted, WatchdogChanged
from dea_daemon.shell import logs
from dea_daemon.shell.aside import MODELS, SURFACES
from dea_daemon.shell.clock import Clock
from dea_daemon.shell.factor_store import FILE_NAME
from dea_daemon.shell.factors import Factors
from dea_daemon.shell.ledger import Ledger
from dea_daemon.shell.runner import Runner
from dea_daemon.shell.settings import DeribitSection, Settings
from dea_daemon.shell.tape import TapeError, TapeHeader, TapeWriter
from dea_daemon.shell.worker import Worker
from dea_daemon.wiring.summary import summary
from dea_daemon.wiring.venues import Venues
from dea_daemon.wiring.watch import watching
from dea_daemon.wiring.watchdog import Watchdog, brief_for

log = structlog.get_logger()
DRAIN_S = 30.0
COLLECT_AT = (150, 10, 10)  # small and often: by Python's own figures a pause was 2.5 ms
DELIVERY_S = 5.0
POLL_S = 0.05
TIDY_S = 60.0

Stop = Callable[[Runner], Awaitable[None]]
SurfaceWorker = Worker[FitSurface, SurfaceFitted]
ModelWorker = Worker[FitModel, ModelFitted]


class Beside(NamedTuple):
    """What runs beside the venues; a worker begins its process with its first question."""

    surfaces: SurfaceWorker
    models: ModelWorker
    factors: Factors


def run_live(
    settings: Settings, json_lines: bool, resume: bool = False, config: Path | None = None, view: bool = False
) -> int:
    """Trade until SIGTERM or SIGINT, then drain. Exit code 0, or 75 where draining found no end.

    `resume` is the operator's word that a halt or reduce-only left by the last run is over.
    A signal before the run has begun ends it at once, with 0: nothing was sent. SIGHUP ends nothing.
    """
    start_logs(settings, json_lines)
    try:
        finished = uvloop.run(_live(settings, resume, config, view))
    except asyncio.CancelledError:
        log.info("run.stopped_early", why="signal")
        return 0
    if json_lines:
        finish(finished)
    return 0 if finished["drained"] else 75


def start_logs(settings: Settings, json_lines: bool) -> None:
    """With --json everything is a JSON line on stdout; else the log goes to stderr as configured."""
    if json_lines:
        logs.configure(settings.log.level, "json", sys.stdout)
    else:
        logs.configure(settings.log.level, settings.log.format)
    for section in settings.venues.sections:
        if isinstance(section, DeribitSection):
            logs.register_secret(section.client_secret.reveal())


def finish(finished: dict[str, Any]) -> None:
    """The last line on stdout, after all others."""
    from dea_daemon.shell.output import emit

    logs.flush()
    emit(finished)


async def _live(settings: Settings, resume: bool, config: Path | None, view: bool) -> dict[str, Any]:
    cancelled_by_signals()
    # The terminal it was started from may go: the positions stay.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, log.warning, "run.hangup_ignored")

    async def until(runner: Runner) -> None:
        if resume:
            runner.operator(Operator.NORMAL, "command line", "--resume")
        await until_signalled(runner)

    return await trade(settings, until, config=config, view=view)


def on_signals(call: Callable[[], object]) -> None:
    """From here on this is what SIGINT and SIGTERM do."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, call)


def cancelled_by_signals() -> None:
    """A signal cancels the task that calls this; another does not disturb its cleaning up."""
    task = asyncio.current_task()
    check(task is not None, "no task to cancel")
    on_signals(lambda: task.cancelling() or task.cancel())  # type: ignore[union-attr]


async def until_signalled(runner: Runner) -> None:
    """A second signal changes nothing: the drain has its own limit."""
    stop = asyncio.Event()
    on_signals(stop.set)
    await stop.wait()
    log.info("run.stopping", why="signal")


async def trade(
    settings: Settings, until: Stop, tape_file: Path | None = None, config: Path | None = None, view: bool = False
) -> dict[str, Any]:
    """One run: open everything, trade until `until` returns, drain, close. Returns `run.finished`.

    Raises what ended the run early: ConfigError, VenueError, LedgerError at start; InvariantViolation or a bug
    later, after a last try to cancel what is working.
    """
    clock = Clock()
    run_id = secrets.token_hex(6)
    structlog.contextvars.bind_contextvars(run_id=run_id)
    with ExitStack() as records:
        ledger = Ledger.open(settings.state_dir / "ledger.sqlite")
        records.callback(ledger.close)
        if ledger.torn:
            log.warning("ledger.recovered", what=ledger.torn)
        async with Venues(settings, clock) as venues:
            recalled = await venues.recalled()
            epoch = ledger.next_epoch(at_least=await venues.highest_epoch())
            started = _started(settings, venues, ledger, clock, run_id, epoch)
            ledger.start_run(run_id, started.utc_ns, started.parameters)
            tape = _tape(settings, tape_file, run_id)
            if tape is not None:
                records.callback(tape.close)
            factors = Factors.open(settings.factors, settings.state_dir / FILE_NAME, clock.now_ns, clock.utc_ns)
            records.callback(factors.close)
            beside = Beside(Worker(SURFACES, clock.now_ns), Worker(MODELS, clock.now_ns), factors)
            send = sink(venues, beside.surfaces, beside.models)
            runner = Runner(started, send, clock=clock, ledger=ledger, tape=tape)
            if recalled is not None:
                runner.emit([msgspec.structs.replace(recalled, ts_recv_ns=clock.now_ns())])
            runner.emit(factors.recalled())
            venues.on_sent = runner.stats.sent
            gc.collect()
            gc.freeze()  # what is here now lives as long as the run: the collector need not walk it again
            gc.set_threshold(*COLLECT_AT)
            for held in started.kept.standings:
                log.warning("forecaster.still_ruled", name=held.name, weight=held.weight, who=held.who, why=held.why)
            if settings.calibrated:
                log.info("calibration.applied", changed=list(settings.calibrated))
            log.info(
                "run.started",
                armed=settings.armed,
                mode=started.mode.name.lower(),
                epoch=started.epoch,
                contracts=len(venues.universe),
            )
            try:
                drained = await _watched(runner, venues, beside, ledger, settings, run_id, config, until, clock, view)
            except Exception:
                await venues.cancel_all()
                raise
            runner.close_books()
            finished = summary(runner.state, runner.stats, venues.universe, drained)
    log.info("run.ended", drained=drained, armed=finished["armed"], orders_sent=finished["orders_sent"])
    return finished


def sink(venues: Venues, surfaces: SurfaceWorker, models: ModelWorker) -> Callable[[Outgoing], None]:
    """Where commands go."""

    def send(command: Outgoing) -> None:
        if isinstance(command, FitSurface):
            surfaces.ask(command)
        elif isinstance(command, FitModel):
            models.ask(command)
        else:
            venues.send(command)

    return send


def _started(settings: Settings, venues: Venues, ledger: Ledger, clock: Clock, run_id: str, epoch: int) -> RunStarted:
    """The first event: all the core must know of the past."""
    past = ledger.recover(venues.universe, clock.utc_ns())
    for orphan in past.orphans:
        log.error("order.orphaned", order=orphan, why="its contract or account is gone, or its lots changed size")
    if past.restored:
        log.warning("order.restored", orders=len(past.restored))
    venues.universe.extend(past.ended)  # rows that wait for the record of their delivery, behind all others
    accounts = range(len(venues.universe.accounts))
    rows = zip(venues.universe.account.tolist(), venues.universe.instruments, strict=True)
    return RunStarted(
        ts_recv_ns=clock.now_ns(),
        run_id=run_id,
        utc_ns=clock.utc_ns(),
        epoch=epoch,
        armed=settings.armed,
        accounts=tuple(venues.universe.accounts[a] for a in accounts),
        rows=tuple(rows),
        parameters=settings.parameters.model_dump_json(),
        restored=past.restored,
        fills_seen=past.fills_seen,
        trade_cursor_ms=past.trade_cursor_ms,
        mode=past.mode,
        mode_why=past.mode_why,
        mode_before=past.mode_before,
        peak_equity_usd=past.peak_equity_usd,
        day=past.day,
        day_equity_usd=past.day_equity_usd,
        hour_turnover_usd=past.hour_turnover_usd,
        hour_fees_usd=past.hour_fees_usd,
        day_turnover_usd=past.day_turnover_usd,
        day_fees_usd=past.day_fees_usd,
        minute_creates=past.minute_creates,
        currencies=venues.currencies,
        settled=past.settled,
        kept=past.kept,
        lessons=past.lessons,
    )


def _tape(settings: Settings, file: Path | None, run_id: str) -> TapeWriter | None:
    header = TapeHeader.here(run_id)
    if file is not None:
        return TapeWriter.to_file(file, header)
    if not settings.tape.enabled:
        return None
    directory = settings.state_dir / "tape"
    try:
        return TapeWriter.to_directory(directory, header, settings.tape.max_mb << 20, settings.tape.max_age_h * 3_600)
    except TapeError as error:  # one asked for by name must be there; this one is for study
        log.error("tape.failed", why=str(error))
        return None


async def _watched(
    runner: Runner,
    venues: Venues,
    beside: Beside,
    ledger: Ledger,
    settings: Settings,
    run_id: str,
    config: Path | None,
    until: Stop,
    clock: Clock,
    view: bool,
) -> bool:
    """The run, with all that watches it. Whether it drained."""
    around = watching(runner, venues, settings, run_id=run_id, config=config, now_ns=clock.now_ns, utc_ns=clock.utc_ns)
    async with around as monitor, contextlib.AsyncExitStack() as shown:
        if view:
            from dea_daemon.wiring.view import viewed

            await shown.enter_async_context(viewed(monitor.status, settings))
        async with _guarded(runner, settings, run_id, clock) as watchdog:
            drained = await _run(runner, venues, beside, ledger, until, clock)
            if drained and watchdog is not None:
                watchdog.release()
        return drained


def _guarded(
    runner: Runner, settings: Settings, run_id: str, clock: Clock
) -> contextlib.AbstractAsyncContextManager[Watchdog | None]:
    """A watchdog, where one is wanted and there are orders to cancel."""
    takes_orders = any(isinstance(section, DeribitSection) for section in settings.venues.sections)
    if not (settings.watchdog.enabled and takes_orders):
        return contextlib.nullcontext()

    def changed(alive: bool, why: str) -> None:
        runner.emit([WatchdogChanged(clock.now_ns(), alive, why)])

    return Watchdog(brief_for(settings, run_id), lambda: runner.stats.decisions, changed)


async def _run(runner: Runner, venues: Venues, beside: Beside, ledger: Ledger, until: Stop, clock: Clock) -> bool:
    """Everything that runs, until `until` returns and the drain is done. Whether it drained."""
    tasks: set[asyncio.Task[Any]] = set()

    def background(work: Callable[[], Any]) -> None:
        task = asyncio.ensure_future(work())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def forever() -> None:
        async with asyncio.TaskGroup() as group:
            for work in venues.connect(runner.emit, background):
                group.create_task(work())
            group.create_task(runner.tick_forever())
            group.create_task(beside.surfaces.run(runner.emit, lambda: runner.params.pricing.surface.answer_s))
            group.create_task(beside.models.run(runner.emit, lambda: runner.params.forecast.learners.trees.answer_s))
            group.create_task(beside.factors.run(runner.emit))
            group.create_task(_tidy(ledger))

    running = asyncio.create_task(forever())
    waiting = asyncio.ensure_future(until(runner))
    try:
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        waiting.result()
        return await _drain(runner, running, clock)
    finally:
        for task in (running, waiting, *tasks):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(running, waiting, *tasks, return_exceptions=True)


async def _tidy(ledger: Ledger) -> None:
    """Copy the ledger's log back now and then, so that no commit has to."""
    while True:
        await asyncio.sleep(TIDY_S)
        try:
            await asyncio.to_thread(ledger.tidy)
        except LedgerError as error:
            log.warning("ledger.tidy_failed", why=str(error))


async def _drain(runner: Runner, running: asyncio.Task[None], clock: Clock) -> bool:
    """Cancel own orders, reconcile, and say whether that was reached in time."""
    runner.operator(Operator.DRAIN, "shell", "stopping")
    deadline_ns = clock.now_ns() + int(DRAIN_S * 1e9)
    quiet_ns = 0
    while clock.now_ns() < deadline_ns:
        await asyncio.wait({running}, timeout=POLL_S)
        if running.done():
            running.result()
        account = runner.state.account
        if account.orders.live():
            quiet_ns = 0
            continue
        quiet_ns = quiet_ns or clock.now_ns()
        owed = any(len(account.deliveries.owed(a, account.position_lots, clock.utc_ns())) for a in account.traded)
        if owed and clock.now_ns() - quiet_ns < DELIVERY_S * 1e9:
            continue  # something has just expired: its record belongs to this run's books
        # Reconciled by a report asked for after the last order ended.
        if all(account.agreed_since_ns[a] > quiet_ns for a in account.traded):
            return True
    live = [order.client_order_id for order in runner.state.account.orders.live()]
    log.error("run.drain_failed", seconds=DRAIN_S, live_orders=live)
    return False
