"""The watchdog on real processes: what becomes of a daemon's orders when it dies or hangs, and of a daemon whose
watchdog does."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dea_daemon.domain.orders import is_own
from dea_daemon.shell import watchdog
from dea_daemon.shell.lock import InstanceLock
from dea_daemon.shell.settings import load
from dea_daemon.shell.watchdog import Brief
from dea_daemon.wiring.cancel_all import holder
from dea_daemon.wiring.watchdog import brief_for
from tests.wiring import processes
from tests.wiring.processes import Venue, config, wait_for
from tests.wiring.test_cancel_all import Desk, own

pytestmark = pytest.mark.timeout(120)
# BTC is far below its target all the time: orders to buy rest, and whatever is cancelled is wanted again at once.
RESTING = {"delta_usd": "900_000", "cross_after_ms": "60_000", "valid_for_ms": "5_000", "reprice_ticks": "1_000"}


def children(pid: int) -> list[int]:
    """Processes started by `pid` that live."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(status.parent.name))
    return found


def processes_of(state: str) -> list[int]:
    """Every process whose environment names this state directory: the daemon, its watchdog and what that starts."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"STATE_DIRECTORY={state}\0".encode() in environ.read_bytes():
                found.append(int(environ.parent.name))
    return found


class Daemon(processes.Daemon):
    """`before`: what is put in front of the command."""

    def __init__(self, path: Path, venue: Venue, state: Path, before: Sequence[str] = ()) -> None:
        plain = processes.CLI
        processes.CLI = [*before, *plain]
        try:
            super().__init__(path, venue, state)
        finally:
            processes.CLI = plain


class Scene:
    """A venue, a daemon there whose orders rest, and an order placed by hand."""

    def __init__(self, folder: Path, after_s: float = 15.0, before: Sequence[str] = ()) -> None:
        self.venue = Venue(folder, scenario="calm")
        self.desk = Desk(self.venue)
        self.path = config(folder, watchdog=f"{{after_s: {after_s}}}", **RESTING)
        self.state = folder / "state"
        self.daemon = Daemon(self.path, self.venue, self.state, before)
        self.desk.buy("by hand")
        wait_for(self.resting, 40, "an order of the daemon's")

    def resting(self) -> list[str]:
        return [label for label in self.desk.labels() if is_own(label)]

    def heard(self, event: str) -> list[dict[str, Any]]:
        lines = self.daemon.output.read_text().splitlines()
        told = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [line for line in told if line["event"] == event]

    def watchdog(self) -> int:
        (pid,) = children(self.daemon.process.pid)
        return pid

    def processes(self) -> list[int]:
        return processes_of(str(self.state))

    def close(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.daemon.process.wait(10)
        self.daemon.kill()
        self.venue.close()


@contextlib.contextmanager
def scene(folder: Path, **options: Any) -> Iterator[Scene]:
    one = Scene(folder, **options)
    try:
        yield one
    finally:
        one.close()


def test_orders_of_a_killed_daemon_are_cancelled_and_those_placed_by_hand_stay(tmp_path):
    with scene(tmp_path) as stage:
        ours = stage.resting()
        stage.daemon.process.kill()
        stage.daemon.process.wait(10)
        assert holder(stage.state) is None  # a restart can have the lock at once: the watchdog has no share in it
        wait_for(lambda: not stage.resting(), 15, "its orders to be gone")
        assert stage.desk.labels() == ["by hand"]
        wait_for(lambda: stage.heard("watchdog.fired"), 10, "word of it")
        (fired,) = stage.heard("watchdog.fired")
        assert fired["cancelled"] == len(ours) and fired["left"] == []
        assert "without a goodbye" in fired["why"]
        wait_for(lambda: not stage.processes(), 5, "the watchdog to end")


def test_orders_of_a_daemon_that_hangs_are_cancelled_after_a_while_and_it_goes_on_when_it_wakes(tmp_path):
    with scene(tmp_path, after_s=2.0) as stage:
        stage.daemon.process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        wait_for(lambda: not stage.resting(), 20, "its orders to be gone")
        assert time.monotonic() - stopped >= 1.5  # not before its time
        assert stage.desk.labels() == ["by hand"]
        wait_for(lambda: stage.heard("watchdog.fired"), 10, "word of it")
        assert "no decision for 2 s" in stage.heard("watchdog.fired")[0]["why"]

        stage.daemon.process.send_signal(signal.SIGCONT)
        wait_for(lambda: stage.heard("daemon.resumed"), 10, "the watchdog to hear it again")
        wait_for(stage.resting, 30, "its orders to rest again")
        assert stage.daemon.stop() == 0
        assert len(stage.heard("watchdog.fired")) == 1
        assert stage.processes() == []


def test_a_clean_stop_leaves_no_process_and_no_word_of_the_watchdog(tmp_path):
    with scene(tmp_path) as stage:
        watchdog = stage.watchdog()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(watchdog, number)  # as a service manager or a terminal does, to all
        assert stage.daemon.stop() == 0
        assert stage.processes() == []
        assert stage.desk.labels() == ["by hand"]
        assert not [event for event in stage.daemon.events() if event["event"].startswith(("watchdog.", "daemon."))]


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_daemon_without_its_watchdog_risks_nothing_new_until_there_is_another(tmp_path, number):
    with scene(tmp_path) as stage:
        lost = stage.watchdog()
        os.kill(lost, number)
        wait_for(lambda: stage.heard("watchdog.lost"), 30, "the daemon to notice")
        stage.desk.ask("private/cancel_all")  # else nothing would have to be sent
        wait_for(lambda: stage.heard("watchdog.started"), 40, "another")
        assert stage.watchdog() != lost
        wait_for(stage.resting, 20, "orders to be sent again")
        events = stage.daemon.events()
        names = [event["event"] for event in events]
        gap = events[names.index("watchdog.lost") : names.index("watchdog.started")]
        decisions = [event for event in gap if event["event"] == "decision.made"]
        assert len(decisions) >= 4  # it goes on deciding
        assert not [order for decision in decisions for order in decision["orders"] if order.startswith("create buy")]

        stage.daemon.process.kill()  # and the new one does its work
        wait_for(lambda: not stage.resting(), 15, "its orders to be gone")
        wait_for(lambda: stage.heard("watchdog.fired"), 10, "word of it")


def test_a_restarted_daemon_is_left_to_see_to_the_orders(tmp_path):
    with scene(tmp_path) as stage:
        stage.venue.process.send_signal(signal.SIGSTOP)  # so that the watchdog is not done before the next is there
        stage.daemon.kill()
        stage.daemon = Daemon(stage.path, stage.venue, stage.state)
        wait_for(lambda: holder(stage.state) == stage.daemon.process.pid, 20, "the next daemon to have the lock")
        time.sleep(1.0)
        stage.venue.process.send_signal(signal.SIGCONT)
        wait_for(stage.resting, 40, "orders of the next daemon's")
        assert stage.daemon.stop() == 0
        assert stage.desk.labels() == ["by hand"]


def test_in_a_container_the_first_process_outlives_the_daemon_until_its_orders_are_cancelled(tmp_path):
    alone = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("may not make a namespace")
    with scene(tmp_path, before=alone) as stage:
        (first,) = children(stage.daemon.process.pid)
        (daemon,) = children(first)
        os.kill(daemon, signal.SIGKILL)
        assert stage.daemon.process.wait(20) == 128 + signal.SIGKILL
        assert stage.desk.labels() == ["by hand"]
        assert stage.heard("watchdog.fired")
        stage.daemon.kill()

        stage.daemon = Daemon(stage.path, stage.venue, stage.state, before=alone)
        wait_for(stage.resting, 40, "an order of the next daemon's")
        (first,) = children(stage.daemon.process.pid)
        os.kill(first, signal.SIGTERM)  # as `docker stop`
        assert stage.daemon.process.wait(45) == 0
        assert stage.desk.labels() == ["by hand"]
        assert stage.daemon.finished()["drained"]


RUN = """
import asyncio, sys
from dea_daemon.shell.watchdog import Brief
from dea_daemon.wiring.watchdog import Watchdog

marker, does = sys.argv[1:]
command = [sys.executable, "-c", f"import pathlib; pathlib.Path({marker!r}).touch()"]
decisions = 0

async def run():
    global decisions
    async with Watchdog(Brief(0, "ab12", 2.0, command, "", {}), lambda: decisions, print) as watchdog:
        for _ in range(12):
            decisions += does != "decides nothing"
            await asyncio.sleep(0.3)
        if does in ("drains", "decides nothing"):
            watchdog.release()
        if does == "fails":
            raise OSError("a bug")
        if does == "is called off":
            raise asyncio.CancelledError

asyncio.run(run())
"""


@pytest.mark.parametrize(
    ("does", "fires"),
    [
        ("drains", False),
        ("is called off", False),  # before anything was sent
        ("decides nothing", True),  # though it lives
        ("fails", True),
        ("leaves orders", True),
    ],
)
def test_orders_are_cancelled_but_for_a_daemon_that_ended_with_none_left(tmp_path, does, fires):
    marker = tmp_path / "cancelled"
    done = subprocess.run([sys.executable, "-c", RUN, str(marker), does], capture_output=True, text=True, check=False)
    if fires:
        wait_for(marker.exists, 10, "the command to run")
    assert marker.exists() == fires  # its stderr was ours too: by now it has ended
    assert done.stdout == ""  # never lost


def told(command: str, brief: Brief = Brief(7, "ab12", 15.0, [], "", {})) -> Brief:  # noqa: B008 frozen
    return brief._replace(command=[sys.executable, "-c", command])


def noted(sleep_s: float = 0.0) -> tuple[list[float], watchdog.Over]:
    """The pauses it wants, and what gives it others."""
    pauses: list[float] = []

    def over(seconds: float) -> bool:
        pauses.append(seconds)
        time.sleep(sleep_s)
        return False

    return pauses, over


def test_it_tries_again_until_none_is_left(capfd, tmp_path):
    command = f"""
import json, pathlib, sys
brief = json.load(sys.stdin)
count = pathlib.Path({str(tmp_path / "count")!r})
n = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(n))
print(json.dumps(dict(cancelled=n, left=[] if n == 3 else ["x"], why="away" * (n < 3))))
sys.exit(0 if n == 3 else 69)
"""
    pauses, over = noted()
    watchdog.cancel(told(command), "gone", over)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    names = ["daemon.lost", "watchdog.try_failed", "watchdog.try_failed", "watchdog.fired"]
    assert [line["event"] for line in lines] == names
    assert (lines[1]["code"], lines[1]["left"], lines[1]["why"]) == (69, ["x"], "away")
    assert lines[-1]["cancelled"] == 6
    assert pauses == [watchdog.PAUSE_S] * 2


def test_it_gives_up_after_a_time_and_says_so(capfd, monkeypatch):
    monkeypatch.setattr(watchdog, "GIVE_UP_S", 0.5)
    _, over = noted(0.3)
    watchdog.cancel(told("import sys; sys.exit(69)"), "gone", over)
    assert "watchdog.gave_up" in capfd.readouterr().err.splitlines()[-1]


def test_it_leaves_the_orders_to_another_daemon_that_stays(capfd):
    pauses, over = noted()
    watchdog.cancel(told("import sys; sys.exit(3)"), "gone", over)
    assert "watchdog.relieved" in capfd.readouterr().err.splitlines()[-1]
    assert sum(pauses) >= 40  # the other has a watchdog of its own by then


def test_where_another_daemon_has_the_state_directory_nothing_is_cancelled(tmp_path):
    venue = Venue(tmp_path, scenario="calm")
    try:
        desk = Desk(venue)
        desk.buy(own(1))
        settings = load(config(tmp_path, state_dir=str(tmp_path)), {**os.environ, **venue.environ})
        brief = brief_for(settings, "ab12")
        assert venue.listening["client_secret"].encode() not in brief.line()

        def run(brief: Brief) -> int:
            environ = {**os.environ, **venue.environ}
            return subprocess.run(brief.command, input=brief.line(), env=environ, check=False).returncode

        lock = InstanceLock(tmp_path / "ledger.sqlite.lock")
        try:
            assert run(brief._replace(pid=1)) == watchdog.NEWCOMER
            assert desk.labels() == [own(1)]
            assert run(brief) == watchdog.GONE  # its own daemon, which hangs
            assert desk.labels() == []
        finally:
            lock.release()
    finally:
        venue.close()


def test_a_waiting_watchdog_is_light_and_holds_nothing_of_the_daemons(tmp_path, record_property):
    with scene(tmp_path) as stage:
        pid = stage.watchdog()
        status = Path(f"/proc/{pid}/status").read_text()
        rss_kb = int(status.split("VmRSS:")[1].split()[0])
        record_property("rss_kb", rss_kb)
        assert rss_kb < 30_000
        held = {number: os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}
        assert set(held) == {"0", "1", "2"}
        command = Path(f"/proc/{pid}/cmdline").read_text()
        assert stage.venue.listening["client_secret"] not in command
        assert os.getsid(pid) == pid
        assert stage.daemon.stop() == 0
