"""What goes wrong around the daemon, seen from outside: a message or a safe state, the right exit code."""

import asyncio
import contextlib
import gzip
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dea_daemon.shell.clock import Clock
from dea_daemon.shell.tape import DecisionTaken, TapeHeader, TapeWriter, decode_decision, encode_decision
from dea_daemon.shell.tape_reader import read_tape
from dea_daemon.shell.venue_server import VenueServer
from dea_daemon.simvenue import scenarios
from dea_daemon.simvenue.deribit import Deribit, Key
from dea_daemon.simvenue.exchange import Exchange
from tests.wiring.processes import CLI, Venue, config, wait_for

pytestmark = pytest.mark.timeout(120)

# The command with a shorter drain: 30 s of a venue that is gone are no longer informative than 3.
SHORT_DRAIN = "import dea_daemon.wiring.live as live; live.DRAIN_S = 3.0; from dea_daemon.cli import main; main()"


def call(
    *arguments: str, environ: dict[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """One command to its end. However it ends, it shows no traceback, and JSON alone where JSON was asked for."""
    done = subprocess.run([*CLI, *arguments], capture_output=True, text=True, timeout=timeout, env=environ)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    if "--json" in arguments:
        assert_json(done.stdout)
    return done


def assert_json(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


class Run:
    """`dea-daemon run --json`, whose output goes through a pipe: limits on its files are not limits on its log."""

    def __init__(self, path: Path, environ: dict[str, str], state: Path, *, drain_s: float = 30.0) -> None:
        self.output, self.state = state.with_suffix(".out"), state
        command = CLI if drain_s == 30.0 else [sys.executable, "-c", SHORT_DRAIN]
        with self.output.open("ab") as file:
            self._cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
        self.process = subprocess.Popen(
            [*command, "run", "-c", str(path), "--json"],
            stdout=self._cat.stdin,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ, "STATE_DIRECTORY": str(state)},
        )
        assert self._cat.stdin is not None
        self._cat.stdin.close()

    def stop(self, timeout: float = 45) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout)
        self._cat.wait(5)
        return code

    def events(self) -> list[dict[str, Any]]:
        """The whole lines told up to now."""
        lines = self.output.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def finished(self) -> dict[str, Any]:
        last = assert_json(self.output.read_text())[-1]
        assert last["event"] == "run.finished"
        return last

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self._cat.wait(5)

    def heard(self, event: str) -> list[dict[str, Any]]:
        return [told for told in self.events() if told["event"] == event]

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def creates(events: list[dict[str, Any]]) -> list[str]:
    decisions = [event for event in events if event["event"] == "decision.made"]
    return [order for decision in decisions for order in decision["orders"] if order.startswith("create")]


def inside_bands(run: Run) -> bool:
    decisions = [event for event in run.events()[-60:] if event["event"] == "decision.made"]
    if not decisions or decisions[-1]["orders"]:
        return False
    lines = decisions[-1]["exposure"].values()
    return all(
        line["actual_usd"] and abs(line["actual_usd"] - line["target_usd"]) <= line["band_usd"] for line in lines
    )


def assert_nothing_left(log: Path) -> None:
    """No order is open at the venue, by the venue's own log."""
    left: dict[str, float] = {}
    for record in assert_json(log.read_text()):
        match record["event"]:
            case "order.accepted":
                left[record["order_id"]] = float(record["amount"])
            case "order.filled":
                left[record["order_id"]] -= float(record["amount"])
            case "order.cancelled":
                left[record["order_id"]] = 0.0
    assert left
    assert not [order for order, amount in left.items() if amount > 1e-9]


def recorded(state: Path) -> set[str]:
    """Client order ids of the intents in a ledger that may be in use."""
    with contextlib.closing(sqlite3.connect(state / "ledger.sqlite")) as db:
        return {key for (key,) in db.execute("SELECT client_order_id FROM intents")}


@pytest.fixture
def fast(tmp_path) -> Path:
    """A configuration that gets to its target within seconds."""
    return config(tmp_path, cross_after_ms="700", query_every_ms="300", reconcile_every_ms="2_000", timeout_ms="2_000")


@pytest.fixture
def venue(tmp_path) -> Iterator[Venue]:
    with opened(tmp_path) as one:
        yield one


@contextlib.contextmanager
def opened(folder: Path, *faults: str) -> Iterator[Venue]:
    one = Venue(folder, faults=faults)
    try:
        yield one
    finally:
        one.process.kill()
        one.close()


@contextlib.contextmanager
def running(path: Path, environ: dict[str, str], state: Path, *, drain_s: float = 30.0) -> Iterator[Run]:
    one = Run(path, environ, state, drain_s=drain_s)
    try:
        yield one
    finally:
        one.end()


def trading(run: Run, venue: Venue) -> None:
    wait_for(lambda: venue.records("order.accepted"), 30, "an order")


# --- configuration and key ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "content", "told"),
    [
        ("check", b"armed: [\n", r":2:1: error: not YAML"),
        ("run", b"\xff\xfe\x00", r":1:1: error: not UTF-8"),
        ("check", b"- a\n", r":1:1: error: the file must be a mapping"),
        ("run", b"", r": error: "),
        ("run", b"armed: maybe\nvenues: {}\n", r":1:8: error: armed: must be true or false"),
    ],
    ids=["not YAML", "binary", "a list", "empty", "wrong types"],
)
def test_a_malformed_configuration_is_refused_by_place(tmp_path, command, content, told):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    done = call(command, "-c", str(path))
    assert done.returncode == 78 and re.search(told, done.stderr), done.stderr
    assert done.stdout == ""


def test_what_is_missing_is_named(tmp_path, fast):
    gone = call("run", "-c", str(tmp_path / "none.yaml"), "--json")
    assert gone.returncode == 66 and "none.yaml: error: no such file" in gone.stderr
    bare = {name: value for name, value in os.environ.items() if not name.startswith("DEA_")}
    unset = call("run", "-c", str(fast), "--json", environ=bare)
    assert unset.returncode == 78 and "environment variable DEA_SIMVENUE_CLIENT_SECRET" in unset.stderr
    assert call("run", "--json").returncode == 64


def test_a_wrong_key_is_a_matter_of_configuration(tmp_path, fast, venue):
    for name in ("DEA_SIMVENUE_CLIENT_ID", "DEA_SIMVENUE_CLIENT_SECRET"):
        environ = {**os.environ, **venue.environ, name: "somebody-else's", "STATE_DIRECTORY": str(tmp_path / "state")}
        done = call("run", "-c", str(fast), "--json", environ=environ)
        assert done.returncode == 78
        assert "deribit/main at http://127.0.0.1" in done.stderr and "refused the key" in done.stderr
        assert "somebody-else's" not in done.stderr


async def test_an_armed_run_needs_a_key_that_may_trade(tmp_path, fast):
    chosen, clock = scenarios.load("default"), Clock()
    exchange = Exchange(chosen, 7, clock.now_ns())
    exchange.open_account("main", dict(chosen.deposits))
    key = Key("reader", "only-looks-never-touches", "main", "account:read trade:read wallet:read")
    async with VenueServer(Deribit(exchange, [key]), clock=clock.now_ns) as server:
        environ = {
            **os.environ,
            "DEA_SIMVENUE_HTTP_URL": server.http_url,
            "DEA_SIMVENUE_WS_URL": server.ws_url,
            "DEA_SIMVENUE_CLIENT_ID": key.client_id,
            "DEA_SIMVENUE_CLIENT_SECRET": key.client_secret,
            "STATE_DIRECTORY": str(tmp_path / "state"),
        }
        done = await asyncio.to_thread(call, "run", "-c", str(fast), "--json", environ=environ)
    assert done.returncode == 78
    assert "expected the scope trade:read_write, found" in done.stderr


# --- no venue -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def mute() -> Iterator[str]:
    """A port that accepts and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def web_site() -> Iterator[str]:
    """A port that answers everything with a page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<!DOCTYPE html>\n<html>\n<body>\nWelcome!\n</body>\n</html>\n")

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("place", [nobody, mute, web_site])
def test_without_a_venue_the_run_ends_soon_and_says_where_it_looked(tmp_path, fast, place):
    with place() as address:
        environ = {
            **os.environ,
            "DEA_SIMVENUE_HTTP_URL": f"http://{address}",
            "DEA_SIMVENUE_WS_URL": f"ws://{address}",
            "DEA_SIMVENUE_CLIENT_ID": "sim",
            "DEA_SIMVENUE_CLIENT_SECRET": "secret-of-sim",
            "STATE_DIRECTORY": str(tmp_path / "state"),
        }
        done = call("run", "-c", str(fast), "--json", environ=environ, timeout=15)
    assert done.returncode == 69
    assert f"deribit/main at http://{address}: asking the time: " in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_venue_that_dies_stops_trading_but_not_the_daemon(tmp_path, venue):
    # Orders that rest: one is open when the venue goes.
    path = config(tmp_path, cross_after_ms="60_000")
    with running(path, venue.environ, tmp_path / "state", drain_s=3.0) as run:
        trading(run, venue)
        wait_for(lambda: run.heard("decision.made")[-1]["orders"] == [], 10, "a quiet moment")
        venue.process.kill()
        wait_for(lambda: run.heard("feed.closed"), 5, "the loss")
        before, cpu_s = len(run.events()), run.cpu_s()
        time.sleep(5)
        after = run.events()[before:]
        assert run.process.poll() is None
        assert creates(after) == []
        assert run.cpu_s() - cpu_s < 1.25, "it spins"
        # Each of two sockets tries at intervals that double.
        assert 2 <= len([event for event in after if event["event"] == "feed.closed"]) <= 16
        assert len(after) < 100
        assert run.stop(timeout=10) == 75
        told = assert_json(run.output.read_text())
        open_at_venue = {r["label"] for r in venue.records("order.accepted")}
        failed = run.heard("run.drain_failed")[-1]
        assert failed["live_orders"] and set(failed["live_orders"]) <= open_at_venue
        assert told[-1]["event"] == "run.finished"
        assert not told[-1]["drained"] and not told[-1]["reconciled"] and told[-1]["limits_breached"] == 0


def test_a_venue_that_comes_back_as_another_world_halts_trading(tmp_path, fast, venue):
    port = venue.listening["http_url"].rsplit(":", 1)[1]
    with running(fast, venue.environ, tmp_path / "state", drain_s=3.0) as run:
        wait_for(lambda: venue.records("order.filled") and inside_bands(run), 40, "the target")
        venue.process.kill()
        venue.process.wait(5)
        log = tmp_path / "other.jsonl"
        options = ("--seed", "7", "--port", port, "--log", str(log), "--until-eof")
        other = subprocess.Popen([*CLI, "venue", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            wait_for(lambda: run.heard("mode.changed"), 30, "the halt")
            changed = run.heard("mode.changed")[-1]
            assert changed["after"] == "halted" and "position difference" in changed["why"]
            before = len(run.events())
            time.sleep(2)
            assert creates(run.events()[before:]) == []
            assert log.read_text() == ""
            run.stop()
            assert run.finished()["mode"] == "halted"
        finally:
            _, _ = other.communicate(timeout=10)  # closes stdin: that ends it
            assert other.returncode == 0


@pytest.mark.slow
def test_while_the_venue_is_frozen_nothing_is_sent_and_then_it_goes_on(tmp_path, venue):
    # Narrow bands: there is always something to do.
    changes = {"band_usd": "300", "band": "0.005", "min_band_usd": "300", "cross_after_ms": "300"}
    path = config(tmp_path, **changes, stale_book_ms="1_000")
    with running(path, venue.environ, tmp_path / "state") as run:
        trading(run, venue)
        venue.process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)  # more than stale
        before = len(run.events())
        time.sleep(3)
        frozen = run.events()[before:]
        venue.process.send_signal(signal.SIGCONT)
        assert creates(frozen) == []
        accepted = len(venue.records("order.accepted"))
        wait_for(lambda: len(venue.records("order.accepted")) > accepted, 30, "an order after the thaw")
        assert run.stop() == 0, run.output.read_text()[-2_000:]
        assert run.finished()["reconciled"] and run.finished()["limits_breached"] == 0
        assert_nothing_left(venue.log)


# --- a bad wire -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "shown"),
    [
        (("ws=garbage:0.1", "book.*=gap:0.02"), "gaps"),
        pytest.param(("ws=garbage:0.3",), "", marks=pytest.mark.slow),
        pytest.param(("book.*=gap:0.05",), "gaps", marks=pytest.mark.slow),
        pytest.param(("ws=close:0.003",), "", marks=pytest.mark.slow),
        pytest.param(("ws=silent:BTC-PERPETUAL",), "", marks=pytest.mark.slow),
        pytest.param(("private/*=slow:300:0.3",), "", marks=pytest.mark.slow),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else value,
)
def test_a_bad_wire_still_leads_to_the_target(tmp_path, fast, faults, shown):
    with opened(tmp_path, *faults) as venue, running(fast, venue.environ, tmp_path / "state") as run:
        wait_for(lambda: venue.records("order.filled") and inside_bands(run), 60, "the target")
        if shown == "gaps":
            wait_for(lambda: "feed.gap_found" in run.output.read_text(), 60, "a gap")
        assert run.stop() == 0, run.output.read_text()[-2_000:]
        finished = assert_json(run.output.read_text())[-1]
        assert finished["reconciled"] and finished["limits_breached"] == 0
        assert not shown or finished[shown] > 0
        assert_nothing_left(venue.log)


@pytest.mark.slow
def test_a_private_stream_that_says_nothing_loses_no_fill(tmp_path, fast):
    with opened(tmp_path, "ws=mute_private") as venue, running(fast, venue.environ, tmp_path / "state") as run:
        wait_for(lambda: len(venue.records("order.filled")) > 3, 60, "fills")
        time.sleep(5)
        assert run.stop() == 0, run.output.read_text()[-2_000:]
        assert run.finished()["fills"] == len(venue.records("order.filled"))
        assert run.finished()["reconciled"] and run.finished()["limits_breached"] == 0


# --- state on disk --------------------------------------------------------------------------------------------


def test_a_second_instance_is_refused_and_the_first_goes_on(tmp_path, fast, venue):
    state = tmp_path / "state"
    with running(fast, venue.environ, state) as run:
        wait_for(lambda: run.heard("run.started"), 20, "the first")
        environ = {**os.environ, **venue.environ, "STATE_DIRECTORY": str(state)}
        done = call("run", "-c", str(fast), "--json", environ=environ)
        assert done.returncode == 75
        assert f"held by process {run.process.pid}" in done.stderr
        trading(run, venue)
        # The terminal goes: no reason to stop.
        run.process.send_signal(signal.SIGHUP)
        made = run.output.read_bytes().count(b"decision.made")
        wait_for(lambda: run.output.read_bytes().count(b"decision.made") > made + 5, 20, "decisions after SIGHUP")
        # Nor is the end of whoever reads the log.
        run._cat.kill()
        run._cat.wait(5)
        time.sleep(1)
        assert run.process.poll() is None
        # A second signal does not cut the drain short.
        run.process.send_signal(signal.SIGINT)
        assert run.stop() == 0
        assert_nothing_left(venue.log)


def test_a_state_directory_that_cannot_be_used_is_named(tmp_path, fast, venue):
    environ = {**os.environ, **venue.environ}
    (tmp_path / "file").write_text("")
    done = call("run", "-c", str(fast), "--json", environ={**environ, "STATE_DIRECTORY": str(tmp_path / "file")})
    assert done.returncode == 75 and f"{tmp_path / 'file'}: not a directory" in done.stderr
    done = call("run", "-c", str(fast), "--json", environ={**environ, "STATE_DIRECTORY": "/proc/1/task"})
    assert done.returncode in (75, 77) and "error: /proc/1/task/ledger.sqlite" in done.stderr


@pytest.mark.slow
def test_without_a_tape_trading_goes_on(tmp_path, fast, venue):
    state = tmp_path / "state"
    state.mkdir()
    (state / "tape").write_text("not a directory")
    with running(fast, venue.environ, state) as run:
        trading(run, venue)
        assert run.heard("tape.failed")
        assert run.stop() == 0


def test_a_full_disk_stops_new_orders_and_space_lets_them_go_on(tmp_path, venue):
    changes = {"band_usd": "300", "band": "0.005", "min_band_usd": "300", "cross_after_ms": "300"}
    state = tmp_path / "state"
    with running(config(tmp_path, **changes), venue.environ, state) as run:
        trading(run, venue)
        unlimited = resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (4_096, resource.RLIM_INFINITY))
        wait_for(lambda: run.heard("ledger.failed"), 20, "the ledger's failure")
        time.sleep(1)
        # What could not be recorded did not leave either.
        assert {record["label"] for record in venue.records("order.accepted")} <= recorded(state)
        accepted, before = len(venue.records("order.accepted")), len(run.events())
        time.sleep(3)
        assert len(venue.records("order.accepted")) == accepted
        stopped = run.events()[before:]
        assert stopped and creates(stopped) == []
        assert len([event for event in stopped if event["event"] == "ledger.failed"]) <= 1
        assert run.heard("tape.write_failed")
        resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, unlimited)
        wait_for(lambda: len(venue.records("order.accepted")) > accepted, 30, "an order with space again")
        assert run.heard("ledger.restored")
        resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (4_096, resource.RLIM_INFINITY))
        wait_for(lambda: len(run.heard("ledger.failed")) > 1, 20, "the second failure")
        assert run.stop() == 0, run.output.read_text()[-2_000:]
        assert_json(run.output.read_text())
        assert_nothing_left(venue.log)


# --- observing, secrets ---------------------------------------------------------------------------------------


def test_a_run_that_only_observes_sends_nothing_keeps_no_secret_and_its_tape_replays(tmp_path, venue):
    path, state = config(tmp_path, armed="false", level="debug"), tmp_path / "state"
    environ = {**os.environ, **venue.environ, "STATE_DIRECTORY": str(state)}
    output = tmp_path / "out"
    with output.open("wb") as file:
        command = [*CLI, "--debug", "run", "-c", str(path), "--json"]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environ)
        try:
            wait_for(lambda: output.read_bytes().count(b"decision.made") > 6, 30, "decisions")
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
    finished = assert_json(output.read_text())[-1]
    assert finished["event"] == "run.finished"
    assert finished["armed"] is False and finished["orders_sent"] == 0 and finished["decisions"] > 6
    assert venue.records("order.accepted") == []
    files = [output, *(path for path in state.rglob("*") if path.is_file())]
    assert len(files) > 2
    for path in files:
        assert venue.listening["client_secret"].encode() not in path.read_bytes(), path
    replayed = call("replay", str(state / "tape"), "--json")
    assert replayed.returncode == 0, replayed.stdout
    told = json.loads(replayed.stdout)
    assert told["decisions"] == finished["decisions"] and told["differences"] == 0


# --- signals --------------------------------------------------------------------------------------------------


def venues_of(log: Path) -> str:
    """Processes that write this log."""
    listed = subprocess.run(["ps", "-eo", "pid,stat,args"], capture_output=True, text=True, check=True).stdout
    return "\n".join(line for line in listed.splitlines() if " venue " in line and str(log) in line)


@pytest.mark.parametrize(
    ("number", "delay_s"),
    [
        (signal.SIGTERM, 0.8),
        (signal.SIGINT, 4.0),
        pytest.param(signal.SIGTERM, 0.2, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 0.4, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 1.5, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 2.0, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 6.0, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, 4.0, marks=pytest.mark.slow),
    ],
)
def test_a_demo_cut_short_leaves_no_process_behind(tmp_path, number, delay_s):
    log = tmp_path / "venue.jsonl"
    demo = [*CLI, "demo", "--seconds", "60", "--json", "--log", str(log)]
    # In a session of its own, and the whole group is told: what Ctrl-C does in a terminal.
    process = subprocess.Popen(demo, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    time.sleep(delay_s)
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=30)
    assert "Traceback" not in output + errors
    lines = assert_json(output) if number != signal.SIGKILL else []
    if lines and lines[-1]["event"] == "run.finished":
        assert process.returncode == 0 and lines[-1]["reconciled"] and lines[-1]["open_orders"] == 0
        if lines[-1]["orders_sent"]:
            assert_nothing_left(log)
    else:
        assert process.returncode in (130, 143, -number)
    wait_for(lambda: not venues_of(log), 5, f"the end of {venues_of(log)}")


@pytest.mark.parametrize(
    "delay_s", [0.9, pytest.param(0.3, marks=pytest.mark.slow), pytest.param(1.3, marks=pytest.mark.slow)]
)
def test_a_run_stopped_while_it_starts_ends_at_once(tmp_path, fast, venue, delay_s):
    with running(fast, venue.environ, tmp_path / "state") as run:
        time.sleep(delay_s)
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(10) in (0, 143)
        assert_json(run.output.read_text())


# --- tapes and captures ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tape")
    path = folder / "demo.tape"
    assert call("demo", "--seconds", "2", "--json", "--tape", str(path)).returncode == 0
    return path


def altered(path: Path, to: Path) -> int:
    """A copy in which one decision that sends asks for one thing more; its place among the events."""
    reader = read_tape(path)
    writer = TapeWriter.to_file(to, TapeHeader.here("altered"))
    count, changed = -1, 0
    for item in reader:
        count += not isinstance(item, DecisionTaken)
        if isinstance(item, DecisionTaken) and not changed:
            decision = decode_decision(item.encoded)
            if decision.record is not None and decision.record.orders:
                changed = count
                item = DecisionTaken(encode_decision(msgspec.structs.replace(decision, wake="tampered with")))
        writer._put(item)
        writer.flush()
    writer.close()
    return changed


def test_a_tape_that_was_tampered_with_does_not_replay_and_says_where(tmp_path, tape):
    place = altered(tape, tmp_path / "altered.tape")
    assert place > 0
    done = call("replay", str(tmp_path / "altered.tape"), "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["differences"] == 1
    assert told["first_difference"]["event_number"] == place
    assert told["first_difference"]["path"] == "decision.wake"


def test_a_torn_tape_replays_to_its_last_whole_block(tmp_path, tape):
    torn = tmp_path / "torn.tape"
    torn.write_bytes(tape.read_bytes()[:-100])
    done = call("replay", str(torn), "--json")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert told["torn"].startswith(str(torn)) and told["differences"] == 0


def flipped(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (flipped, "damaged at byte"),
        (lambda data: b"", "not a tape"),
        (lambda data: b"one line of text\n" * 50, "damaged at byte 0|not a tape"),
        (lambda data: data[:6], "not a tape"),
    ],
    ids=["one bit", "empty", "foreign", "a stub"],
)
def test_what_is_no_tape_is_said_to_be_none(tmp_path, tape, spoil: Callable[[bytes], bytes], told):
    path = tmp_path / "spoilt.tape"
    path.write_bytes(spoil(tape.read_bytes()))
    done = call("replay", str(path), "--json")
    assert done.returncode == 65 and re.search(told, done.stderr) and str(path) in done.stderr, done.stderr


@pytest.mark.slow
def test_a_command_started_without_its_streams_still_works(tmp_path):
    log = tmp_path / "venue.jsonl"
    demo = " ".join([*CLI, "demo", "--seconds", "1", "--json", "--log", str(log)])
    assert subprocess.run(["sh", "-c", f"{demo} <&- >&- 2>&-"], timeout=60).returncode == 0
    assert_nothing_left(log)


def test_nothing_to_replay(tmp_path):
    assert call("replay", str(tmp_path / "none.tape"), "--json").returncode == 66
    done = call("replay", str(tmp_path), "--json")
    assert done.returncode == 65 and "no tape here" in done.stderr


DERIBIT_LINE = (
    b'1700000000000000000 {"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-PERPETUAL.100ms",'
    b'"data":{"type":"snapshot","timestamp":1700000000000,"instrument_name":"BTC-PERPETUAL","change_id":1,'
    b'"bids":[["new",37000.0,1000.0]],"asks":[["new",37000.5,1000.0]]}}}\n'
)


@pytest.mark.parametrize(
    ("content", "venue", "code"),
    [
        (b"", "binanceusdm", 65),
        (b"\x7fELF\x00\xff\xfe" * 300, "binanceusdm", 65),
        (b"once upon a time\n" * 30, "deribit", 65),
        (gzip.compress(DERIBIT_LINE * 50)[:30], "deribit", 65),
        (DERIBIT_LINE, "binanceusdm", 65),
        (b'1700000000000000000 {"stream":"btcusdt@depth","data":{"e":"depthUpdate","s":"BTCUSDT"}}\n', "deribit", 65),
    ],
    ids=["empty", "binary", "prose", "torn gzip", "deribit as binance", "binance as deribit"],
)
def test_a_capture_that_holds_nothing_for_this_venue_is_refused(tmp_path, content, venue, code):
    path = tmp_path / "capture"
    path.write_bytes(content)
    done = call("backtest", "--capture", str(path), "--venue", venue, "--json")
    assert done.returncode == code and str(path) in done.stderr, done.stderr
    assert done.stdout == ""


def test_a_capture_that_is_not_there_or_a_directory_is_named(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        done = call("backtest", "--capture", str(path), "--venue", "deribit", "--json")
        assert done.returncode == 66 and str(path) in done.stderr
