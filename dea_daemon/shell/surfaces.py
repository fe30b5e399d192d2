"""Volatility surfaces are fitted aside: one process that answers one question at a time, and the daemon's side of it.

`python -m dea_daemon.shell.surfaces MODULE:FUNCTION` is that process. Questions come on its stdin and answers go out on
its stdout, each as four bytes of length and MessagePack. It ends with its stdin, however the daemon ended.
"""

import asyncio
import contextlib
import importlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable

import msgspec
import structlog

from dea_daemon.domain.commands import FitSurface
from dea_daemon.domain.events import SurfaceFitted
from dea_daemon.domain.surfaces import Chain

FIT = "dea_daemon.pricing.surface.fit:fit"
NICE = 10  # decisions come first
LENGTH = 4
PAUSE_S, PAUSE_MAX_S = 1.0, 60.0  # before one that was lost is begun anew: doubled each time, so long at most
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the daemon sees to them, and ends us

Fit = Callable[[Chain, float], SurfaceFitted]
log = structlog.get_logger()


def _framed(message: FitSurface | SurfaceFitted) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH) + body


class Surfaces:
    """Asks a process of its own, begun with the first question. Of each underlying one question waits at most: a newer
    one takes its place. `function` is what the process calls, "module:name"."""

    def __init__(self, now_ns: Callable[[], int], function: str = FIT) -> None:
        self._now_ns, self._function = now_ns, function
        self._waiting: dict[str, FitSurface] = {}
        self._asked = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._lost = 0  # in a row

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        return self._process.pid if self._process is not None else None

    def ask(self, command: FitSurface) -> None:
        """Fit this next, in place of what was asked of the same underlying and not begun. Never waits."""
        self._waiting[command.chain.underlying] = command
        self._asked.set()

    async def run(self, emit: Callable[[Iterable[SurfaceFitted]], None], answer_s: Callable[[], float]) -> None:
        """For ever: every question begun is answered, by why there is no surface where its process is lost or silent
        for `answer_s`. Cancelled, it ends the process."""
        try:
            while True:
                await self._asked.wait()
                fitted = await self._answer(self._next(), answer_s())
                emit([msgspec.structs.replace(fitted, ts_recv_ns=self._now_ns())])
                if self._process is None:
                    await asyncio.sleep(min(PAUSE_S * 2.0 ** min(self._lost - 1, 10), PAUSE_MAX_S))
        finally:
            await self._end()

    def _next(self) -> FitSurface:
        """The one that waits longest."""
        command = self._waiting.pop(next(iter(self._waiting)))
        if not self._waiting:
            self._asked.clear()
        return command

    async def _answer(self, command: FitSurface, answer_s: float) -> SurfaceFitted:
        try:
            async with asyncio.timeout(answer_s):
                fitted = await self._exchange(command)
            self._lost = 0
            return fitted
        except TimeoutError:
            why = f"no answer in {answer_s:g} s"
        except (EOFError, OSError, msgspec.MsgspecError) as error:
            why = "the worker died" if self._process is not None else f"no worker could be started: {error}"
        await self._end()
        self._lost += 1
        log.warning("surface_worker.lost", underlying=command.chain.underlying, why=why, in_a_row=self._lost)
        return SurfaceFitted(0, command.chain.underlying, command.chain.utc_ns, why=why)

    async def _exchange(self, command: FitSurface) -> SurfaceFitted:
        """Its answer. Raises EOFError, OSError or MsgspecError where there is none that can be read."""
        process = self._process = self._process or await self._start()
        if process.stdin is None or process.stdout is None or process.stdin.is_closing():
            raise EOFError("no channel")  # else uvloop would say RuntimeError
        process.stdin.write(_framed(command))
        await process.stdin.drain()
        length = int.from_bytes(await process.stdout.readexactly(LENGTH))
        return msgspec.msgpack.decode(await process.stdout.readexactly(length), type=SurfaceFitted)

    async def _start(self) -> asyncio.subprocess.Process:
        """A new interpreter: it shares no lock and no terminal's signals with us, and none of our memory."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dea_daemon.shell.surfaces", self._function),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=os.environ | ONE_THREAD,
        )
        log.info("surface_worker.started", pid=process.pid)
        return process

    async def _end(self) -> None:
        """At once, whatever it is at."""
        if (process := self._process) is not None:
            self._process = None
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


# --- the process ------------------------------------------------------------------------------------------------


def main(function: str) -> None:
    """Answer what is asked, until nobody can ask any more."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(PermissionError):  # where it may not be nicer, it is as it is
        os.nice(NICE)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    questions: queue.SimpleQueue[FitSurface] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(questions,), daemon=True).start()
    module, _, name = function.partition(":")
    fit: Fit = getattr(importlib.import_module(module), name)
    while True:
        answers.write(_framed(_fitted(fit, questions.get())))
        answers.flush()


def _fitted(fit: Fit, asked: FitSurface) -> SurfaceFitted:
    """The surface and the time it took; why there is none where the quotes were beyond all arithmetic."""
    began_ns = time.perf_counter_ns()
    try:
        fitted = fit(asked.chain, asked.max_iv_spread)
    except (ArithmeticError, LookupError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
        fitted = SurfaceFitted(0, asked.chain.underlying, asked.chain.utc_ns, why=why)
    fit_ms = (time.perf_counter_ns() - began_ns) / 1e6
    return msgspec.structs.replace(fitted, quality=msgspec.structs.replace(fitted.quality, fit_ms=fit_ms))


def _listen(questions: "queue.SimpleQueue[FitSurface]") -> None:
    """Take questions in. The end of them ends the process, in the middle of a fit, too."""
    with os.fdopen(0, "rb") as stdin:
        while len(head := stdin.read(LENGTH)) == LENGTH:
            questions.put(msgspec.msgpack.decode(stdin.read(int.from_bytes(head)), type=FitSurface))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
