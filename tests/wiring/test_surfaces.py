"""Who fits surfaces in each kind of run: a process aside where time is real, the venue's side where it is virtual."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dea_daemon.domain.commands import CancelOrder, FitModel, FitSurface, Outgoing
from dea_daemon.domain.events import ModelFitted, SurfaceFitted
from dea_daemon.domain.models import Lessons, Trees
from dea_daemon.domain.numbers import NS_PER_MS, NS_PER_S
from dea_daemon.domain.surfaces import Rung, Smile
from dea_daemon.pricing.surface import fit as surface_fit
from dea_daemon.research import trees
from dea_daemon.shell.tape_reader import read_tape
from dea_daemon.wiring.live import sink
from dea_daemon.wiring.paper import FIT_NS, GROW_NS, PaperVenue
from dea_daemon.wiring.replay import replay
from dea_daemon.wiring.simulate import chain
from dea_daemon.wiring.simulate.chain import surfaces_told
from dea_daemon.wiring.simulate.faults import BY_NAME, Faults
from dea_daemon.wiring.simulate.run import Plan, live
from dea_daemon.wiring.simulate.world import World
from tests.shell.surface_stub import question
from tests.wiring.processes import CLI, wait_for
from tests.wiring.test_watchdog import processes_of

SURFACE_FAULTS = tuple(name for name in BY_NAME if name.startswith("surface-"))
SMILE = Smile(7, 90_000.0, (0.04, 0.01, 0.04), Rung.FITTED, -0.1, 0.1)
FITTED = SurfaceFitted(0, "BTC", 1, 0.1, (SMILE,))


@pytest.fixture
def asked(monkeypatch) -> list[FitSurface]:
    """Every question; each is answered with one smile."""
    questions: list[FitSurface] = []

    def fit(of, max_iv_spread):
        questions.append(FitSurface(of, max_iv_spread))
        return SurfaceFitted(0, of.underlying, of.utc_ns, 0.1, (SMILE,))

    monkeypatch.setattr(surface_fit, "fit", fit)
    return questions


# --- where time is virtual ------------------------------------------------------------------------------------


def test_in_virtual_time_a_surface_comes_as_much_later_as_a_fit_takes(asked):
    world = World(1, storm=0.0)
    venue = PaperVenue(world.exchange, world.universe, 0, 5 * NS_PER_MS)
    venue.send(question("BTC", 3), NS_PER_S)
    assert [command.chain.underlying for command in asked] == ["BTC"]
    due_ns = NS_PER_S + FIT_NS + 5 * NS_PER_MS
    assert venue.run_until(due_ns - 1) == []
    (told,) = venue.run_until(due_ns)
    assert isinstance(told, SurfaceFitted)
    assert (told.ts_recv_ns, told.chain_utc_ns, told.smiles) == (due_ns, 3, (SMILE,))


def test_in_virtual_time_trees_come_a_minute_later_under_the_name_of_the_question(monkeypatch):
    grown = ModelFitted(0, "", 0, Trees((0,) * 7, (1.0,) * 7, (0.5,) * 8), 300, 0.01)
    monkeypatch.setattr(trees, "grow", lambda lessons: grown)
    world = World(1, storm=0.0)
    venue = PaperVenue(world.exchange, world.universe, 0, 5 * NS_PER_MS)
    venue.send(FitModel("trees_5d", 77, Lessons(5.0, 0, b"", b"", b"")), NS_PER_S)
    due_ns = NS_PER_S + GROW_NS + 5 * NS_PER_MS
    assert venue.run_until(due_ns - 1) == []
    assert venue.run_until(due_ns) == [replace(grown, ts_recv_ns=due_ns, name="trees_5d", asked_utc_ns=77)]


def test_a_surface_needs_no_venue_and_dies_with_the_process_that_asked(asked):
    world = World(1, storm=0.0)
    world.run(0.5)
    world.venue.away_until_ns = world.now_ns + 10 * NS_PER_S  # in maintenance
    for crashes in (False, True):
        world.venue.run_until(world.now_ns)
        world.venue.send(question("BTC"), world.now_ns)
        if crashes:
            world.venue.forget_us()
        told = world.venue.run_until(world.now_ns + NS_PER_S)
        assert any(isinstance(event, SurfaceFitted) for event in told) is not crashes


def test_each_fault_of_a_surface_does_what_it_is_called():
    def told(name: str) -> list[tuple[int, SurfaceFitted]]:
        return surfaces_told(FITTED, Faults(1, (name,), 0.0))

    def struck(name: str) -> list[tuple[int, SurfaceFitted]]:
        faults = Faults(1, (name,), 1.0)
        faults.rates[name] = 1.0
        return surfaces_told(FITTED, faults)

    assert told("surface-lost") == [(0, FITTED)] != struck("surface-lost") == []
    ((late_ns, late),) = struck("surface-late")
    assert late_ns >= 0.5 * NS_PER_S and late == FITTED
    assert [fitted for _, fitted in struck("surface-repeated")] == [FITTED, FITTED]
    ((_, refused),) = struck("surface-refused")
    assert refused.why and not refused.smiles
    ((_, jumped),) = struck("surface-jumps")
    ratio = {round(after / before, 9) for after, before in zip(jumped.smiles[0].variance, SMILE.variance, strict=True)}
    assert ratio <= {round(factor**2, 9) for factor in chain.JUMPS} and len(ratio) == 1


def test_a_history_meets_them_all_and_is_the_same_again():
    outcomes = [live(Plan(2, SURFACE_FAULTS, 20.0, 4.0, True), story=True) for _ in range(2)]
    assert not outcomes[0].why, outcomes[0].why
    assert outcomes[0].struck.keys() == set(SURFACE_FAULTS)
    assert any("SurfaceFitted" in line for line in outcomes[0].story)
    assert outcomes[0].story == outcomes[1].story


# --- where it is real -----------------------------------------------------------------------------------------


def test_questions_for_surfaces_and_models_go_to_who_fits_them_and_all_else_to_its_venue():
    venue: list[Outgoing] = []
    surfaces: list[FitSurface] = []
    models: list[FitModel] = []

    class Venues:
        send = staticmethod(venue.append)

    class Surfaces:
        ask = staticmethod(surfaces.append)

    class Models:
        ask = staticmethod(models.append)

    asked, lessons = question("BTC"), FitModel("trees_1d", 1, Lessons(1.0, 0, b"", b"", b""))
    cancel: Outgoing = CancelOrder("key", 0, "", "test")
    send = sink(Venues(), Surfaces(), Models())  # type: ignore[arg-type]
    for command in (asked, lessons, cancel):
        send(command)
    assert (surfaces, models) == ([asked], [lessons])
    assert venue == [cancel]


class Demo:
    """`dea-daemon demo` as a process; whatever it starts bears its state directory."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.state, self.tape, self.output = folder / "state", folder / "demo.tape", folder / "demo.out"
        command = ["demo", "--seconds", str(seconds), "--json", "--tape", str(self.tape)]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*CLI, *command],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "STATE_DIRECTORY": str(self.state)},
            )

    def said(self, event: str) -> list[dict[str, Any]]:
        lines = self.output.read_text().splitlines()
        return [line for text in lines if text.endswith("}") and (line := json.loads(text))["event"] == event]

    def left(self) -> list[int]:
        return processes_of(str(self.state))

    def workers(self) -> list[int]:
        """The processes that fit."""
        commands = {pid: Path(f"/proc/{pid}/cmdline") for pid in self.left()}
        return [pid for pid, file in commands.items() if file.exists() and b"aside:SURFACES" in file.read_bytes()]


@contextlib.contextmanager
def demo(folder: Path, seconds: float) -> Iterator[Demo]:
    one = Demo(folder, seconds)
    try:
        yield one
    finally:
        for pid in one.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        one.process.wait(10)


@pytest.mark.timeout(150)
def test_a_demo_fits_aside_loses_a_worker_ends_with_no_process_left_and_can_be_replayed(tmp_path):
    with demo(tmp_path, 12.0) as run:
        wait_for(lambda: run.said("surface.trusted"), 60, "a surface")
        (worker,) = run.workers()
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: len(run.said("surface_worker.started")) == 2, 60, "another worker")
        assert run.process.wait(90) == 0, run.output.read_text()[-2_000:]
        assert run.left() == []
        assert [line["why"] for line in run.said("surface_worker.lost")] == ["the worker died"]
    steps = [event for event, _ in read_tape(run.tape).steps()]
    fitted = [event for event in steps if isinstance(event, SurfaceFitted)]
    published = Counter(event.underlying for event in fitted if event.smiles)
    assert set(published) == {"BTC", "ETH"} and min(published.values()) >= 1
    assert all(event.quality.fit_ms > 0.0 and event.ts_recv_ns > event.chain_utc_ns for event in fitted if event.smiles)
    assert replay(read_tape(run.tape))["differences"] == 0


@pytest.mark.timeout(150)
def test_a_daemon_that_is_killed_leaves_no_worker(tmp_path):
    with demo(tmp_path, 60.0) as run:
        wait_for(run.workers, 60, "a worker")
        run.process.kill()
        run.process.wait(10)
        gone = time.monotonic()
        wait_for(lambda: not run.workers(), 10, "the worker to end")
        assert time.monotonic() - gone < 10
