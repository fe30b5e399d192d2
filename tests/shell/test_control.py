"""The control socket from both ends: a real server and the real client, with a stand-in for the run behind it."""

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.events import Operator
from dea_daemon.shell import control_client
from dea_daemon.shell.control import ControlServer, listen
from dea_daemon.shell.control_client import Busy, Crashed, NoAnswer, NotRunning, Place, Refused, find, get, post
from tests.shell.status_sample import contender

MODES = {Operator.HALT: "halted", Operator.PAUSE: "paused", Operator.NORMAL: "normal", Operator.FLATTEN: "flattening"}


class Daemon:
    """Monitor and actions in one: remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Operator, str, str]] = []
        self.mode, self.armed, self.healthy = "normal", True, True
        self.posed: dict[str, Any] | None = None
        self.reload_begun, self.reloading = asyncio.Event(), asyncio.Event()
        self.weights = {"ridge_5d": 0.0, "momentum_5d": 0.2, "prior_1d": 0.0}
        self.ruled: list[tuple[str, float | None, str, str]] = []

    def status(self) -> dict[str, Any]:
        orders = [{"client_order_id": "d1"}, {"client_order_id": "d2"}]
        unhealthy = [] if self.healthy else ["no decision for 9 s"]
        mode = {"mode": self.mode, "mode_why": "test", "armed": self.armed, "orders": orders}
        offered = {"ridge_5d": 0.25, "prior_1d": 0.0}
        contenders = [contender(name, weight=w, offered=offered.get(name, w)) for name, w in self.weights.items()]
        return {**mode, "equity_usd": float("nan"), "healthy": self.healthy, "unhealthy": unhealthy} | {
            "contenders": contenders
        }

    def problem(self) -> dict[str, Any] | None:
        return self.posed

    def exposure(self) -> dict[str, Any] | None:
        return {"greeks": {}, "equity_usd": float("nan")} if self.armed else None

    def surface(self) -> dict[str, Any]:
        return {"why": "no options are followed", "surfaces": []}

    def points(self, after: int) -> list[dict[str, Any]]:
        return [{"seq": seq} for seq in range(1, 4) if seq > after]

    decisions = points

    def fills(self, after: int) -> list[dict[str, Any]]:
        return [{"n": n} for n in range(1, 4) if n > after]

    def decision(self, seq: int | None) -> dict[str, Any] | None:
        return {"seq": seq or 3} if seq in (None, 1, 2, 3) else None

    def operator(self, command: Operator, who: str, why: str) -> None:
        self.told.append((command, who, why))
        self.mode = MODES.get(command, self.mode)
        self.armed = {Operator.ARM: True, Operator.DISARM: False}.get(command, self.armed)

    def heard(self) -> bool:
        return False

    async def rule(self, name: str, weight: float | None, who: str, why: str) -> str:
        if name not in self.weights:
            return "there is none"
        self.ruled.append((name, weight, who, why))
        self.weights[name] = 0.1 if weight is None else weight
        return ""

    async def reload(self, who: str, *, dry_run: bool, allow_loosen: bool) -> dict[str, Any]:
        self.reload_begun.set()
        await self.reloading.wait()
        if not allow_loosen:
            raise ConfigError("c.yaml:3:5: error: guards.max_net_usd: loosens")
        return {"changed": [], "applied": not dry_run}


@pytest.fixture
def daemon():
    return Daemon()


@pytest.fixture
async def place(tmp_path, daemon):
    async with ControlServer(tmp_path / "control.sock", daemon, daemon):
        yield Place(tmp_path / "control.sock", tmp_path)


async def ask(place: Place, path: str) -> Any:
    return await asyncio.to_thread(get, place, path)


async def command(place: Place, name: str, **more: Any) -> Any:
    return await asyncio.to_thread(lambda: post(place, "/operator", command=name, **more))


async def raw(place: Place, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(place.socket)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


# --- questions ------------------------------------------------------------------------------------------------


async def test_status_is_what_the_monitor_says_and_nan_is_null(place):
    told = await ask(place, "/status")
    assert told["mode"] == "normal" and len(told["orders"]) == 2 and told["equity_usd"] is None


async def test_health_is_503_when_unhealthy_and_still_an_answer(place, daemon):
    assert (await ask(place, "/health"))["healthy"]
    daemon.healthy = False
    assert await ask(place, "/health") == {"healthy": False, "unhealthy": ["no decision for 9 s"]}
    assert b" 503 " in await raw(place, b"GET /health HTTP/1.0\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "count"), [("/points?after=1", 2), ("/decisions?after=2", 1), ("/fills?after=3", 0), ("/points", 3)]
)
async def test_histories_start_after_what_was_seen(place, path, count):
    assert len(await ask(place, path)) == count


async def test_the_surfaces_are_told_even_where_there_are_none(place):
    assert (await ask(place, "/surface"))["why"] == "no options are followed"


async def test_the_exposure_is_told_once_there_is_a_decision(place, daemon):
    assert await ask(place, "/exposure") == {"greeks": {}, "equity_usd": None}
    daemon.armed = False  # the stand-in's word for a daemon that has not decided yet
    with pytest.raises(Refused, match="no decision yet"):
        await ask(place, "/exposure")


async def test_one_decision_by_number_or_the_last(place):
    assert await ask(place, "/decision") == {"seq": 3}
    assert await ask(place, "/decision?seq=2") == {"seq": 2}
    with pytest.raises(Refused, match="no decision 99") as refused:
        await ask(place, "/decision?seq=99")
    assert refused.value.status == 404


async def test_the_last_problem_is_told_once_there_was_one(place, daemon):
    with pytest.raises(Refused, match="anything to choose"):
        await ask(place, "/problem")
    daemon.posed = {"seq": 3, "npz": "UEs="}
    assert await ask(place, "/problem") == {"seq": 3, "npz": "UEs="}


@pytest.mark.parametrize("path", ["/points?after=x", "/decision?seq=1.5", "/points?after=" + "9" * 40, "/nothing"])
async def test_a_wrong_question_is_refused_in_json(place, path):
    with pytest.raises(Refused):
        await ask(place, path)


async def test_a_bug_in_an_answer_ends_that_answer_only(place, daemon):
    good, daemon.status = daemon.status, dict
    with capture_logs() as logs, pytest.raises(Refused, match="KeyError"):
        await ask(place, "/health")
    assert [line["event"] for line in logs] == ["control.failed"]
    daemon.status = good
    assert (await ask(place, "/health"))["healthy"]


# --- commands -------------------------------------------------------------------------------------------------


async def test_a_command_is_obeyed_before_it_is_answered_and_logged_with_who(place, daemon):
    with capture_logs() as logs:
        after = await command(place, "halt", why="fire drill")
    assert after == {"armed": True, "mode": "halted", "mode_why": "test", "unhealthy": [], "orders": 2}
    [(told, who, why)] = daemon.told
    assert (told, why) == (Operator.HALT, "fire drill")
    assert who.startswith(f"uid {os.getuid()}")
    [line] = [line for line in logs if line["event"] == "operator.asked"]
    assert (line["command"], line["uid"], line["pid"]) == ("halt", os.getuid(), os.getpid())


async def test_a_command_obeyed_says_so_even_if_no_status_can_be_had(place, daemon):
    daemon.status = dict
    with capture_logs(), pytest.raises(Refused, match="halt was done"):
        await command(place, "halt")
    assert daemon.told[0][0] is Operator.HALT


@pytest.mark.parametrize(("name", "guess"), [("halted", "did you mean 'halt'"), ("drain", "unknown"), ("", "unknown")])
async def test_an_unknown_command_is_refused_with_a_guess(place, daemon, name, guess):
    with pytest.raises(Refused, match=guess):
        await command(place, name)
    assert daemon.told == []


@pytest.mark.parametrize("body", [b"halt", b"[]", b'{"command": "halt"', b"\xff"])
async def test_a_body_that_is_no_object_does_nothing(place, daemon, body):
    answer = await raw(place, b"POST /operator HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert b" 400 " in answer and b'"error"' in answer
    assert daemon.told == []


async def test_a_body_too_large_is_refused(place, daemon):
    with pytest.raises(Refused) as refused:
        await command(place, "halt", why="x" * 5_000)
    assert refused.value.status == 413
    assert daemon.told == []


@pytest.mark.parametrize(("name", "obeyed"), [("arm", False), ("flatten", False), ("normal", False), ("halt", True)])
async def test_what_was_asked_too_long_ago_is_obeyed_only_if_it_halts(place, daemon, name, obeyed):
    late = json.dumps({"command": name, "valid_until_ns": time.monotonic_ns() - 1}).encode()
    answer = await raw(place, b"POST /operator HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(late), late))
    assert (b" 200 " in answer) is obeyed
    assert bool(daemon.told) is obeyed


async def test_a_wrong_reload_is_a_configuration_error_with_its_places(place, daemon):
    daemon.reloading.set()
    with pytest.raises(ConfigError, match=r"c\.yaml:3:5"):
        await asyncio.to_thread(lambda: post(place, "/reload", dry_run=False, allow_loosen=False))
    done = await asyncio.to_thread(lambda: post(place, "/reload", dry_run=True, allow_loosen=True))
    assert done == {"changed": [], "applied": False}


async def test_two_reloads_do_not_overlap(place, daemon):
    first = asyncio.create_task(asyncio.to_thread(lambda: post(place, "/reload", dry_run=False, allow_loosen=True)))
    await asyncio.wait_for(daemon.reload_begun.wait(), 5)
    with pytest.raises(Busy, match="under way"):
        await asyncio.to_thread(lambda: post(place, "/reload", dry_run=False, allow_loosen=True))
    daemon.reloading.set()
    assert (await first)["applied"]


async def test_a_client_that_stays_silent_holds_nobody_up(place):
    _, silent = await asyncio.open_unix_connection(place.socket)
    silent.write(b"POST /operator HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
    await silent.drain()
    assert (await command(place, "halt"))["mode"] == "halted"
    silent.close()


# --- forecasters ----------------------------------------------------------------------------------------------


async def rule(place: Place, name: str, **more: Any) -> Any:
    return await asyncio.to_thread(lambda: post(place, "/forecaster", name=name, **more))


@pytest.mark.parametrize(
    ("asked", "weight", "after"),
    [({"weight": 0.4}, 0.4, 0.4), ({"weight": 0}, 0, 0), ({"weight": None}, None, 0.1), ({}, 0.25, 0.25)],
    ids=["given", "demoted", "as configured", "offered"],
)
async def test_a_ruling_is_folded_before_it_is_answered_with_the_new_line(place, daemon, asked, weight, after):
    with capture_logs() as logs:
        told = await rule(place, "ridge_5d", why="it earned it", **asked)
    assert (told["weight"], told["contender"]["weight"], told["heard"]) == (weight, after, False)
    [(name, ruled, who, why)] = daemon.ruled
    assert (name, ruled, why) == ("ridge_5d", weight, "it earned it") and who.startswith(f"uid {os.getuid()}")
    [line] = [line for line in logs if line["event"] == "operator.asked"]
    assert (line["command"], line["forecaster"]) == ("demote" if weight == 0 else "promote", "ridge_5d")


@pytest.mark.parametrize(
    ("name", "asked", "why"),
    [
        ("ridge_5", {"weight": 0.1}, "ridge_5: there is none .did you mean 'ridge_5d'.*nothing was changed"),
        ("ridge_5", {}, "unknown forecaster 'ridge_5' .did you mean 'ridge_5d'"),
        ("prior_1d", {}, "offered no weight"),
        *(("ridge_5d", {"weight": w}, "is no weight") for w in (1.5, -0.1, "all", True, [1])),
    ],
)
async def test_a_ruling_that_makes_no_sense_is_refused_with_why(place, daemon, name, asked, why):
    with pytest.raises(Refused, match=why) as refused:
        await rule(place, name, **asked)
    assert refused.value.status == 400 and daemon.ruled == []


@pytest.mark.parametrize(
    ("asked", "obeyed"), [({"weight": 0.1}, False), ({"weight": None}, False), ({}, False), ({"weight": 0}, True)]
)
async def test_of_rulings_asked_too_long_ago_only_a_demotion_is_obeyed(place, daemon, asked, obeyed):
    late = json.dumps({"name": "ridge_5d", "valid_until_ns": time.monotonic_ns() - 1} | asked).encode()
    answer = await raw(place, b"POST /forecaster HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(late), late))
    assert (b" 200 " in answer) is obeyed is bool(daemon.ruled)


# --- the socket -----------------------------------------------------------------------------------------------


async def test_user_and_group_may_open_the_socket_and_no_one_else(place):
    assert stat.S_IMODE(place.socket.stat().st_mode) == 0o660


async def test_files_made_later_have_the_modes_they_had(place, tmp_path):
    (tmp_path / "before").mkdir()
    assert stat.S_IMODE((tmp_path / "before").stat().st_mode) & 0o700 == 0o700


async def test_the_socket_is_gone_after_the_run(tmp_path, daemon):
    path = tmp_path / "run" / "control.sock"
    async with ControlServer(path, daemon, daemon):
        assert path.is_socket()
    assert not path.exists()
    with pytest.raises(NotRunning, match="no daemon runs here"):
        await ask(Place(path, tmp_path), "/status")


async def test_the_socket_of_a_living_daemon_is_left_alone(place, daemon):
    with pytest.raises(ConfigError, match="another process answers there"):
        await ControlServer(place.socket, daemon, daemon).__aenter__()
    assert (await ask(place, "/status"))["mode"] == "normal"


async def test_the_socket_of_a_dead_daemon_is_replaced(tmp_path, daemon):
    path = tmp_path / "control.sock"
    listen(path).close()
    with pytest.raises(Crashed, match="crashed or was killed"):
        await ask(Place(path, tmp_path), "/status")
    async with ControlServer(path, daemon, daemon):
        assert (await ask(Place(path, tmp_path), "/status"))["mode"] == "normal"


def test_a_file_that_is_no_socket_is_not_removed(tmp_path):
    path = tmp_path / "control.sock"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="no socket"):
        listen(path)
    assert path.read_text() == "mine"


async def test_a_path_longer_than_the_kernel_takes_works(tmp_path, daemon):
    folder = tmp_path / ("x" * 120)
    async with ControlServer(folder / "control.sock", daemon, daemon):
        assert (await ask(Place(folder / "control.sock", folder), "/status"))["mode"] == "normal"


# --- a daemon that is in no state to answer -------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(control_client, "CONNECT_S", 0.3)
    monkeypatch.setattr(control_client, "ANSWER_S", 0.3)


@pytest.mark.parametrize("backlog", [5, 0], ids=["hung", "hung, and others wait"])
def test_a_silent_daemon_is_given_up_with_its_process_named(tmp_path, impatient, backlog):
    place = Place(tmp_path / "control.sock", tmp_path)
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as waits:
        silent.bind(str(place.socket))
        silent.listen(backlog)
        waits.connect(str(place.socket))
        before = time.monotonic()
        with pytest.raises(NoAnswer, match="does not answer") as given_up:
            get(place, "/status")
        assert time.monotonic() - before < 1.5
        assert backlog == 0 or f"process {os.getpid()} exists" in str(given_up.value)


@pytest.mark.parametrize("said", [b"", b"what?\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
async def test_a_daemon_that_ends_in_the_middle_is_told_as_such(tmp_path, said):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said)
        writer.close()

    place = Place(tmp_path / "control.sock", tmp_path)
    async with await asyncio.start_unix_server(serve, place.socket):
        with pytest.raises(ConnectionError, match="ended before") as ended:
            await ask(place, "/status")
    assert not isinstance(ended.value, NotRunning)


def test_a_ledger_held_without_a_socket_is_not_taken_for_no_daemon(tmp_path):
    lock = "from pathlib import Path; from dea_daemon.shell.lock import InstanceLock; import sys, time;"
    lock += f"held = InstanceLock(Path({str(tmp_path / 'ledger.sqlite.lock')!r})); print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", lock], stdin=-1, stdout=-1) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        holder.stdout.readline()
        with pytest.raises(NoAnswer, match=f"process {holder.pid} holds"):
            get(Place(tmp_path / "control.sock", tmp_path), "/status")
        holder.stdin.write(b"\n")
    with pytest.raises(NotRunning):
        get(Place(tmp_path / "control.sock", tmp_path), "/status")


# --- where ----------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("armed: false\nstate_dir: data/here  # and\nvenues: {deribit: {x: !odd 1}}\n")
    return path


def test_the_state_directory_is_the_files_relative_to_where_we_are(config):
    assert find(config, None, {}) == Place(Path("data/here/control.sock"), Path("data/here"))


def test_a_configuration_without_a_state_directory_has_the_settings_default(config):
    config.write_text("armed: false\n")
    place = find(config, None, {})
    assert place is not None and place.state_dir == Path("var")


def test_systemds_directories_win(config):
    environ = {"STATE_DIRECTORY": "/var/lib/d:/other", "RUNTIME_DIRECTORY": "/run/d"}
    assert find(config, None, environ) == Place(Path("/run/d/control.sock"), Path("/var/lib/d"))
    assert find(None, None, environ) == find(config, None, environ)


def test_a_socket_named_is_the_one(config):
    environ = {"RUNTIME_DIRECTORY": "/run/d"}
    assert find(None, Path("/x/s.sock"), environ) == Place(Path("/x/s.sock"), Path("/x"))
    assert find(config, Path("/x/s.sock"), environ) == Place(Path("/x/s.sock"), Path("data/here"))


def test_without_a_word_there_is_no_place():
    assert find(None, None, {}) is None


def test_a_configuration_that_is_no_yaml_says_what_to_do(config):
    config.write_text("a: [1\nb: {")
    with pytest.raises(ConfigError, match="--socket PATH"):
        find(config, None, {})
    with pytest.raises(FileNotFoundError, match=r"missing\.yaml: no such file"):
        find(config.with_name("missing.yaml"), None, {})
