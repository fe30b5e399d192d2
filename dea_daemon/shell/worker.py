"""Slow work is done aside: a process that answers one question at a time, and the daemon's side of it.

`python -m dea_daemon.shell.worker MODULE:KIND MODULE:FUNCTION` is that process. Questions come on its stdin and answers
go out on its stdout, each as four bytes of length and MessagePack. It ends with its stdin, however the daemon ended.
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
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from dea_daemon.domain.commands import Command
from dea_daemon.domain.events import Event

NICE = 10  # decisions come first
LENGTH = 4
PAUSE_S, PAUSE_MAX_S = 1.0, 60.0  # before one that was lost is begun anew: doubled each time, so long at most
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the daemon sees to them, and ends us

Question = TypeVar("Question", bound=Command)
Answer = TypeVar("Answer", bound=Event)
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Kind(Generic[Question, Answer]):
    """A kind of slow work; `where` is this constant's own place, "module:NAME", for the process to find it.

    `about` names a question: of each name one waits at most. `function`, "module:name", does the work, and `call` asks
    it. `none` is the answer where there is none, and why; `timed` puts in how many ms it took. `started` and `lost` are
    log events. `once`: a process ends with its first answer, and holds no memory until the next question.
    """

    where: str
    started: str
    lost: str
    function: str
    question: type[Question]
    answer: type[Answer]
    about: Callable[[Question], str]
    call: Callable[[Callable[..., Any], Question], Answer]
    none: Callable[[Question, str], Answer]
    timed: Callable[[Answer, float], Answer]
    once: bool = False


def _framed(message: Command | Event) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH) + body


class Worker(Generic[Question, Answer]):
    """Asks a process of its own, begun with the first question. Of what is about the same one question waits at most:
    a newer one takes its place. `function` is called instead of the kind's own, where given."""

    def __init__(self, kind: Kind[Question, Answer], now_ns: Callable[[], int], function: str = "") -> None:
        self._kind, self._now_ns, self._function = kind, now_ns, function or kind.function
        self._waiting: dict[str, Question] = {}
        self._asked = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._lost = 0  # in a row

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        return self._process.pid if self._process is not None else None

    def ask(self, asked: Question) -> None:
        """Answer this next, in place of what was asked about the same and not begun. Never waits."""
        self._waiting[self._kind.about(asked)] = asked
        self._asked.set()

    async def run(self, emit: Callable[[Iterable[Answer]], None], answer_s: Callable[[], float]) -> None:
        """For ever: every question begun is answered, by why there is no answer where its process is lost or silent
        for `answer_s`. Cancelled, it ends the process."""
        try:
            while True:
                await self._asked.wait()
                answer = await self._answer(self._next(), answer_s())
                emit([msgspec.structs.replace(answer, ts_recv_ns=self._now_ns())])
                if self._lost:
                    await asyncio.sleep(min(PAUSE_S * 2.0 ** min(self._lost - 1, 10), PAUSE_MAX_S))
        finally:
            await self._end()

    def _next(self) -> Question:
        """The one that waits longest."""
        asked = self._waiting.pop(next(iter(self._waiting)))
        if not self._waiting:
            self._asked.clear()
        return asked

    async def _answer(self, asked: Question, answer_s: float) -> Answer:
        try:
            async with asyncio.timeout(answer_s):
                answer = await self._exchange(asked)
            self._lost = 0
            if self._kind.once:
                await self._end()
            return answer
        except TimeoutError:
            why = f"no answer in {answer_s:g} s"
        except (EOFError, OSError, msgspec.MsgspecError) as error:
            why = "the worker died" if self._process is not None else f"no worker could be started: {error}"
        await self._end()
        self._lost += 1
        log.warning(self._kind.lost, about=self._kind.about(asked), why=why, in_a_row=self._lost)
        return self._kind.none(asked, why)

    async def _exchange(self, asked: Question) -> Answer:
        """Its answer. Raises EOFError, OSError or MsgspecError where there is none that can be read."""
        process = self._process = self._process or await self._start()
        if process.stdin is None or process.stdout is None or process.stdin.is_closing():
            raise EOFError("no channel")  # else uvloop would say RuntimeError
        process.stdin.write(_framed(asked))
        await process.stdin.drain()
        length = int.from_bytes(await process.stdout.readexactly(LENGTH))
        return msgspec.msgpack.decode(await process.stdout.readexactly(length), type=self._kind.answer)

    async def _start(self) -> asyncio.subprocess.Process:
        """A new interpreter: it shares no lock and no terminal's signals with us, and none of our memory."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dea_daemon.shell.worker", self._kind.where, self._function),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=os.environ | ONE_THREAD,
        )
        log.info(self._kind.started, pid=process.pid)
        return process

    async def _end(self) -> None:
        """At once, whatever it is at."""
        if (process := self._process) is not None:
            self._process = None
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


# --- the process ------------------------------------------------------------------------------------------------


def main(kind: str, function: str) -> None:
    """Answer what is asked, until nobody can ask any more."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(PermissionError):  # where it may not be nicer, it is as it is
        os.nice(NICE)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    work: Kind[Any, Any] = _found(kind)
    questions: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(questions, work.question), daemon=True).start()
    does = _found(function)
    while True:
        answers.write(_framed(_answered(work, does, questions.get())))
        answers.flush()


def _found(place: str) -> Any:
    """What is at "module:name"."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _answered(work: Kind[Question, Answer], does: Callable[..., Any], asked: Question) -> Answer:
    """The answer and the time it took; why there is none where the question was beyond all arithmetic."""
    began_ns = time.perf_counter_ns()
    try:
        answer = work.call(does, asked)
    except (ArithmeticError, LookupError, ValueError) as error:
        answer = work.none(asked, f"{type(error).__name__}: {error}")
    return work.timed(answer, (time.perf_counter_ns() - began_ns) / 1e6)


def _listen(questions: "queue.SimpleQueue[Question]", question: type[Question]) -> None:
    """Take questions in. The end of them ends the process, in the middle of one, too."""
    with os.fdopen(0, "rb") as stdin:
        while len(head := stdin.read(LENGTH)) == LENGTH:
            questions.put(msgspec.msgpack.decode(stdin.read(int.from_bytes(head)), type=question))
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
