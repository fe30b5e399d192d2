"""The process that does slow work: it answers in turn, may die at any moment, and never holds the daemon up."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import numpy as np
import pytest
import structlog
import uvloop

from dea_daemon.domain.commands import FitModel
from dea_daemon.domain.events import ModelFitted
from dea_daemon.domain.models import Lessons, Trees
from dea_daemon.research.trees import grow
from dea_daemon.shell import worker
from dea_daemon.shell.aside import MODELS, SURFACES
from dea_daemon.shell.worker import Kind, Worker
from tests.shell import model_stub
from tests.shell.surface_stub import FUNCTION, question

NOW_NS = 42
WITHIN_S = 20.0  # a new interpreter on a busy machine
ALONE = """
import asyncio
from dea_daemon.shell.aside import SURFACES
from dea_daemon.shell.worker import Worker
from tests.shell.surface_stub import FUNCTION, question

async def main():
    fits = Worker(SURFACES, lambda: 0, FUNCTION)
    fits.ask(question("PLAIN"))
    def answered(events):
        fits.ask(question("HANG"))
        asyncio.get_running_loop().call_later(0.2, lambda: print("worker", fits.pid, flush=True))
    await fits.run(answered, lambda: 600.0)

asyncio.run(main())
"""


class Desk:
    """One who asks, and what was heard."""

    def __init__(self, function: str, answer_s: float, kind: Kind[Any, Any]) -> None:
        self.fits = Worker(kind, lambda: NOW_NS, function)
        self.heard: list[Any] = []
        self.at_s: list[float] = []
        self.answer_s = answer_s

    def emit(self, events: Iterable[Any]) -> None:
        self.heard += events
        self.at_s.append(time.monotonic())

    async def until(self, count: int) -> list[Any]:
        """The answers, once there are so many."""
        await self.wait(lambda: len(self.heard) >= count)
        return self.heard

    async def wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():  # noqa: ASYNC110 there is no bell for it
                await asyncio.sleep(0.005)

    async def begun(self) -> int:
        """The process, at work on what was asked last."""
        await asyncio.sleep(0.1)
        await self.wait(lambda: self.fits.pid is not None)
        return self.fits.pid or 0


@contextlib.asynccontextmanager
async def opened(
    function: str = FUNCTION, answer_s: float = WITHIN_S, kind: Kind[Any, Any] = SURFACES
) -> AsyncIterator[Desk]:
    desk = Desk(function, answer_s, kind)
    running = asyncio.create_task(desk.fits.run(desk.emit, lambda: desk.answer_s))
    try:
        yield desk
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(worker, "PAUSE_S", 0.0)


# --- questions and answers ------------------------------------------------------------------------------------


async def test_a_chain_arrives_whole_and_its_answer_bears_our_clock_and_the_time_it_took():
    asked = question("SLOW", 7)
    async with opened() as desk:
        desk.fits.ask(asked)
        (fitted,) = await desk.until(1)
    assert (fitted.underlying, fitted.chain_utc_ns, fitted.ts_recv_ns) == ("SLOW", 7, NOW_NS)
    assert fitted.why == f"{asked.chain} {asked.max_iv_spread}"
    assert 300.0 <= fitted.quality.fit_ms < 5_000.0


async def test_without_a_question_there_is_no_process():
    async with opened() as desk:
        await asyncio.sleep(0.1)
        assert desk.fits.pid is None


async def test_of_each_underlying_the_latest_question_is_asked_and_each_has_its_turn():
    async with opened() as desk:
        desk.fits.ask(question("PLAIN"))
        await desk.until(1)
        desk.fits.ask(question("SLOW", 1))
        await desk.begun()
        for number in (2, 3, 4):
            desk.fits.ask(question("SLOW", number))
            desk.fits.ask(question("PLAIN", number))
        answers = await desk.until(4)
        await asyncio.sleep(0.4)
    assert [(f.underlying, f.chain_utc_ns) for f in answers[1:]] == [("SLOW", 1), ("SLOW", 4), ("PLAIN", 4)]


async def test_arithmetic_that_fails_is_why_there_is_none_and_no_reason_to_begin_anew():
    async with opened() as desk:
        desk.fits.ask(question("ODD"))
        await desk.until(1)
        before = desk.fits.pid
        desk.fits.ask(question("PLAIN"))
        odd, plain = await desk.until(2)
        assert desk.fits.pid == before
    assert odd.why == "ZeroDivisionError: nobody quotes"
    assert plain.why.startswith("Chain(")


async def test_what_a_library_prints_is_no_answer():
    async with opened() as desk:
        desk.fits.ask(question("LOUD"))
        desk.fits.ask(question("PLAIN"))
        answers = await desk.until(2)
    assert all(fitted.why.startswith("Chain(") for fitted in answers)


async def test_it_is_niced_has_one_thread_of_arithmetic_and_loads_no_venues_client():
    async with opened() as desk:
        desk.fits.ask(question("WORLD"))
        (fitted,) = await desk.until(1)
    nice = min(os.getpriority(os.PRIO_PROCESS, 0) + worker.NICE, 19)
    assert fitted.why == f"nice {nice}, 1 thread, set()"


# --- one that is lost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("at_work", [True, False])
def test_one_that_is_killed_says_so_and_another_answers(at_once, run, at_work):
    run(_killed(at_work))


async def _killed(at_work: bool) -> None:
    async with opened() as desk:
        desk.fits.ask(question("PLAIN"))
        await desk.until(1)
        if at_work:
            desk.fits.ask(question("HANG", 5))
        killed = await desk.begun()
        os.kill(killed, signal.SIGKILL)
        if not at_work:
            await asyncio.sleep(0.2)
            desk.fits.ask(question("HANG", 5))
        fitted = (await desk.until(2))[1]
        assert (fitted.underlying, fitted.chain_utc_ns, fitted.why) == ("HANG", 5, "the worker died")
        assert not fitted.smiles and not alive(killed)
        desk.fits.ask(question("PLAIN"))
        assert (await desk.until(3))[2].why.startswith("Chain(")
        assert desk.fits.pid != killed


async def test_one_that_does_not_answer_in_time_is_killed_and_another_answers(at_once):
    async with opened() as desk:
        desk.fits.ask(question("PLAIN"))
        await desk.until(1)
        desk.answer_s = 0.3
        desk.fits.ask(question("HANG"))
        silent = await desk.begun()
        assert (await desk.until(2))[1].why == "no answer in 0.3 s"
        assert not alive(silent)
        desk.answer_s = WITHIN_S
        desk.fits.ask(question("PLAIN"))
        assert (await desk.until(3))[2].why.startswith("Chain(")


async def test_one_that_always_dies_is_begun_ever_less_often(monkeypatch):
    monkeypatch.setattr(worker, "PAUSE_S", 0.2)
    async with opened() as desk:
        for number in range(4):
            desk.fits.ask(question("DIE", number))
            await desk.until(number + 1)
    gaps = [after - before for before, after in zip(desk.at_s, desk.at_s[1:], strict=False)]
    assert all(gap >= least for gap, least in zip(gaps, (0.2, 0.4, 0.8), strict=True)), gaps


async def test_the_pause_has_an_end_and_is_forgotten_with_an_answer(monkeypatch):
    monkeypatch.setattr(worker, "PAUSE_S", 100.0)
    monkeypatch.setattr(worker, "PAUSE_MAX_S", 0.1)
    with structlog.testing.capture_logs() as said:
        async with opened() as desk:
            for number, what in enumerate(("DIE", "DIE", "PLAIN", "DIE")):
                desk.fits.ask(question(what))
                await desk.until(number + 1)
    assert [line["in_a_row"] for line in said if line["event"] == "surface_worker.lost"] == [1, 2, 1]


async def test_one_that_cannot_be_started_is_why_there_is_none(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    async with opened() as desk:
        desk.fits.ask(question("PLAIN"))
        (fitted,) = await desk.until(1)
    assert fitted.why.startswith("no worker could be started: ")


# --- the daemon goes on ---------------------------------------------------------------------------------------


async def test_the_loop_goes_on_while_a_fit_takes_all_of_another_processor():
    late_s = []
    async with opened() as desk:
        desk.fits.ask(question("PLAIN"))
        await desk.until(1)
        desk.fits.ask(question("BUSY"))
        while len(desk.heard) < 2:
            before = time.perf_counter()
            await asyncio.sleep(0.002)
            late_s.append(time.perf_counter() - before)
    assert desk.heard[1].quality.fit_ms >= 1_000.0
    assert len(late_s) > 20
    assert max(late_s) < 0.5  # the fit takes one second


async def test_signals_for_the_daemon_do_not_end_it():
    async with opened() as desk:
        desk.fits.ask(question("PLAIN"))
        await desk.until(1)
        desk.fits.ask(question("SLOW"))
        pid = await desk.begun()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        assert (await desk.until(2))[1].why.startswith("Chain(")
        assert desk.fits.pid == pid


async def test_the_end_of_the_run_waits_for_no_fit():
    async with opened() as desk:
        desk.fits.ask(question("HANG"))
        pid = await desk.begun()
        began = time.monotonic()
    assert time.monotonic() - began < 2.0
    assert not alive(pid)


def test_a_daemon_killed_in_the_middle_of_a_fit_leaves_no_process():
    daemon = subprocess.Popen([sys.executable, "-c", ALONE], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    try:
        with daemon.stdout:
            pid = int(next(line for line in daemon.stdout if line.startswith("worker")).split()[1])
        assert alive(pid)
    finally:
        daemon.kill()
        daemon.wait(10)
    deadline = time.monotonic() + 10.0
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- models: a process each -----------------------------------------------------------------------------------


def models(answer_s: float = WITHIN_S) -> contextlib.AbstractAsyncContextManager[Desk]:
    return opened(model_stub.FUNCTION, answer_s, MODELS)


async def test_a_models_process_ends_with_its_answer_and_the_next_has_another():
    async with models() as desk:
        pids = []
        for number in (1, 2):
            desk.fits.ask(model_stub.question(number=number, name=f"trees_{number}d"))
            pids.append(await desk.begun())
            await desk.until(number)
            assert desk.fits.pid is None and not alive(pids[-1])
    assert pids[0] != pids[1]
    assert [(f.name, f.asked_utc_ns, f.ts_recv_ns, f.why) for f in desk.heard] == [
        ("trees_1d", 1, NOW_NS, ""),
        ("trees_2d", 2, NOW_NS, ""),
    ]
    assert all((f.trees, f.lessons, f.gain) == (model_stub.TREES, 400_000, 0.5) and f.fit_ms > 0.0 for f in desk.heard)


async def test_after_an_answer_there_is_no_pause_though_the_process_is_gone(monkeypatch):
    monkeypatch.setattr(worker, "PAUSE_S", 1_000.0)
    monkeypatch.setattr(worker, "PAUSE_MAX_S", 1_000.0)
    async with models() as desk:
        for name in ("trees_1d", "trees_5d"):
            desk.fits.ask(model_stub.question(name=name))
        assert [fitted.name for fitted in await desk.until(2)] == ["trees_1d", "trees_5d"]


async def test_a_model_that_is_killed_in_the_middle_is_why_there_is_none_and_the_next_is_grown(at_once):
    with structlog.testing.capture_logs() as said:
        async with models() as desk:
            desk.fits.ask(model_stub.question(model_stub.HANG, 5))
            os.kill(await desk.begun(), signal.SIGKILL)
            (killed,) = await desk.until(1)
            desk.fits.ask(model_stub.question(number=6))
            answered = (await desk.until(2))[1]
    assert killed == ModelFitted(NOW_NS, "trees_1d", 5, why="the worker died", gain=killed.gain)
    assert (answered.asked_utc_ns, answered.why) == (6, "")
    assert [line["event"] for line in said] == ["model_worker.started", "model_worker.lost", "model_worker.started"]


@pytest.mark.parametrize(
    ("what", "answer_s", "why"),
    [
        (model_stub.DIE, WITHIN_S, "the worker died"),
        (model_stub.ODD, WITHIN_S, "ValueError: of nothing"),
        (model_stub.HANG, 1.0, "no answer in 1 s"),
    ],
)
async def test_whatever_goes_wrong_with_a_model_is_why_there_is_none_and_no_process_stays(at_once, what, answer_s, why):
    async with models(answer_s) as desk:
        desk.fits.ask(model_stub.question(what, 5))
        (fitted,) = await desk.until(1)
        assert (fitted.name, fitted.asked_utc_ns, fitted.why, fitted.trees) == ("trees_1d", 5, why, Trees())
        assert desk.fits.pid is None


async def test_lightgbm_itself_grows_trees_aside_the_same_as_here():
    draws = np.random.default_rng(1)
    x = draws.standard_normal((1_000, 4)).astype("<f4")
    y = (0.8 * x[:, 1] + draws.standard_normal(1_000)).astype("<f4")
    lessons = Lessons(1.0, 4, x.tobytes(), y.tobytes(), np.arange(1_000, dtype="<f4").tobytes())
    async with opened("", kind=MODELS) as desk:
        desk.fits.ask(FitModel("trees_1d", 7, lessons))
        (fitted,) = await desk.until(1)
    here = grow(lessons)
    assert here.trees.leaf and (fitted.why, fitted.trees, fitted.gain) == ("", here.trees, here.gain)
