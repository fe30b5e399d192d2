"""The operator's commands as processes, against a real daemon that trades on a simulated venue."""

import json
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.wiring.processes import CLI, Daemon, Venue, config, wait_for

pytestmark = pytest.mark.timeout(120)


class Desk:
    """One daemon at one venue, and an operator in front of it."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        # Small slices that cross at once: a burst of orders.
        self.config = config(folder, slice_usd="2_000", order_type="taker", band_usd="500")
        self.venue = Venue(folder)
        self.daemon = Daemon(self.config, self.venue, self.state)
        self.cpu_s = 0.0

    def call(self, *arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """A command to its end; never longer than its time-outs."""
        environ = environ or {**os.environ, "STATE_DIRECTORY": str(self.state)}
        before = _children_s()
        done = subprocess.run(
            [*CLI, *arguments, "-c", str(self.config)], env=environ, capture_output=True, text=True, timeout=20
        )
        self.cpu_s = _children_s() - before
        assert "Traceback" not in done.stderr
        return done

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.call("status", "--json").stdout)
        return told

    def start_again(self) -> None:
        self.daemon = Daemon(self.config, self.venue, self.state)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        wait_for(lambda: (self.state / "control.sock").exists(), 20, "the control socket")
        wait_for(lambda: self.call("status", "--health").returncode == 0, 20, "health")

    def close(self) -> None:
        if self.daemon.process.poll() is None:
            self.daemon.kill()
        self.venue.close()


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Iterator[Desk]:
    """One for all tests here, in their order: each leaves a daemon that runs, in the mode normal and armed."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    try:
        desk.wait_until_ready()
        yield desk
    finally:
        desk.close()


def test_halt_during_a_burst_ends_it_at_once(desk):
    wait_for(lambda: len(desk.venue.records("order.accepted")) > 10, 20, "a burst")
    done = desk.call("halt", "--why", "drill")
    answered_ms = time.time() * 1_000
    assert done.returncode == 0 and done.stdout.startswith("halted: no new orders")
    wait_for(lambda: desk.status()["orders"] == [], 10, "the working orders to end")
    time.sleep(1)
    # 100 ms: what had left before the answer may arrive after it.
    late = [r for r in desk.venue.records("order.accepted") if r["ts"] > answered_ms + 100]
    assert late == []
    assert desk.status()["mode"] == "halted"
    asked = [event for event in desk.daemon.events() if event["event"] == "operator.asked"]
    assert (asked[-1]["command"], asked[-1]["uid"]) == ("halt", os.getuid())


def test_resume_goes_on(desk):
    before = len(desk.venue.records("order.accepted"))
    assert desk.call("resume").stdout == "normal: orders are sent\n"
    wait_for(lambda: len(desk.venue.records("order.accepted")) > before, 20, "orders again")


@pytest.mark.parametrize(
    ("command", "says", "mode"),
    [
        (["pause"], "paused", "paused"),
        (["resume"], "normal", "normal"),
        (["reduce-only", "--why", "x\x1b[31m"], "reduce-only", "reduce_only"),
        (["disarm"], "reduce-only, but disarmed", "reduce_only"),
        (["arm"], "armed, but reduce-only (operator uid ", "reduce_only"),
        (["flatten", "--confirm"], "flattening", "flattening"),
        (["resume", "--why", "enough"], "normal", "normal"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_each_command_answers_with_the_state_after_it(desk, command, says, mode):
    done = desk.call(*command)
    assert done.returncode == 0 and done.stdout.startswith(says)
    told = desk.status()
    assert told["mode"] == mode and told["armed"] is (command != ["disarm"])


def test_status_tells_people_and_programs_the_same_in_little_cpu(desk):
    wait_for(lambda: desk.call("status", "--health").stdout == "healthy\n", 10, "reconciliation")
    told, text = desk.status(), desk.call("status")
    assert desk.cpu_s < 0.4  # 0.12 where nothing else runs
    assert text.returncode == 0
    for part in (f"process {told['pid']}", "mode      normal", ", armed", "delta:BTC", "deribit.private", "gross book"):
        assert part in text.stdout


def test_flatten_wants_to_be_confirmed_and_says_what_it_would_close(desk):
    done = desk.call("flatten")
    assert done.returncode == 64
    assert "--confirm" in done.stderr and re.search(r"Held now: .+ lots .+USD", done.stderr)
    assert desk.status()["mode"] == "normal"


def test_a_reload_that_is_wrong_changes_nothing_and_says_where(desk):
    whole = desk.config.read_text()
    desk.config.write_text(whole.replace("max_order_usd:", "max_ordre_usd:"))
    done = desk.call("reload")
    desk.config.write_text(whole)
    assert done.returncode == 78 and "did you mean 'max_order_usd'" in done.stderr
    assert desk.call("reload", "--dry-run").stdout == "nothing has changed\n"


def test_a_reload_that_loosens_wants_consent(desk):
    whole = desk.config.read_text()
    desk.config.write_text(re.sub(r"max_gross_usd: [\d_]+", "max_gross_usd: 3_000_000", whole))
    dry, refused, done = (desk.call("reload", *o) for o in (["--dry-run"], [], ["--allow-loosen"]))
    assert "max_gross_usd" in dry.stdout and "loosens" in dry.stdout and "dry run" in dry.stdout
    assert dry.stdout.endswith("without --allow-loosen it would be refused, because of guards.max_gross_usd\n")
    assert refused.returncode == 78 and "--allow-loosen" in refused.stderr
    assert done.returncode == 0 and done.stdout.endswith("reloaded\n")
    wait_for(lambda: any(u["allowed"] == 3_000_000 for u in desk.status()["limits"]), 5, "the new limit")


def test_explain_tells_of_the_last_decision_and_of_one_by_number(desk):
    assert desk.call("explain").stdout.startswith("decision ")
    seq = desk.status()["seq"]
    assert json.loads(desk.call("explain", str(seq), "--json").stdout)["seq"] == seq
    assert desk.call("explain", "999999999").returncode == 66
    assert desk.call("explain", "first").returncode == 64


def weight_of(desk, name):
    return next(line["weight"] for line in desk.status()["contenders"] if line["name"] == name)


def test_a_forecaster_is_promoted_and_demoted_by_name_and_the_answer_is_its_new_line(desk):
    done = desk.call("promote", "prior_5d", "--weight", "0.3", "--why", "drill")
    assert done.returncode == 0 and done.stdout.startswith("prior_5d: traded, weight 0.3 (uid ")
    assert weight_of(desk, "prior_5d") == 0.3
    wait_for(lambda: "BTC prior_5d" in desk.call("explain").stdout, 10, "a decision with it")
    assert "prior_5d" in desk.call("status").stdout
    done = desk.call("demote", "prior_5d")
    assert done.returncode == 0 and "weight 0" in done.stdout and weight_of(desk, "prior_5d") == 0.0
    assert desk.call("promote", "prior_5d", "--as-configured").returncode == 0
    noted = [event["event"] for event in desk.daemon.events() if event["event"].startswith("forecaster.")]
    assert noted[-3:] == ["forecaster.promoted", "forecaster.demoted", "forecaster.promoted"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["promote", "prior_5"], "did you mean 'prior_5d'"),
        (["demote", "ridge5d"], "did you mean 'ridge_5d'"),
        (["promote", "prior_5d", "--weight", "1.5"], "1.5"),
        (["promote", "prior_5d", "--weight", "0.1", "--as-configured"], "give one of"),
        (["demote", "har"], "promote another"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_ruling_that_cannot_be_is_wrong_usage_and_changes_nothing(desk, arguments, why):
    before = [(line["name"], line["weight"]) for line in desk.status()["contenders"]]
    done = desk.call(*arguments)
    assert done.returncode == 64 and why in done.stderr
    assert [(line["name"], line["weight"]) for line in desk.status()["contenders"]] == before


def test_weights_that_add_up_to_more_than_one_are_refused(desk):
    assert desk.call("promote", "prior_5d", "--weight", "0.7").returncode == 0
    done = desk.call("promote", "carry_5d", "--weight", "0.5")
    assert done.returncode == 64 and "nothing was changed" in done.stderr
    assert weight_of(desk, "carry_5d") == 0.0
    desk.call("promote", "prior_5d", "--as-configured")


def test_a_stopped_daemon_is_told_as_stopped_in_time_and_goes_on_when_it_wakes(desk):
    pid = desk.daemon.process.pid
    desk.daemon.process.send_signal(signal.SIGSTOP)
    try:
        before = time.monotonic()
        done = desk.call("arm")
        assert time.monotonic() - before < 8
    finally:
        desk.daemon.process.send_signal(signal.SIGCONT)
    assert done.returncode == 75
    assert f"process {pid} exists, stopped" in done.stderr
    assert "ask again" in done.stderr
    assert desk.status()["mode"] == "normal"


def test_a_halt_holds_over_a_crash_that_follows_at_once_and_status_still_tells(desk):
    desk.call("halt", "--why", "smoke")
    desk.daemon.kill()
    done = desk.call("status")
    assert done.returncode == 69
    assert "crashed or was killed" in done.stderr
    assert re.search(r"mode +halted \(operator uid \d+.*smoke", done.stdout)
    assert json.loads(desk.call("status", "--json").stdout)["ledger"]["mode"]["mode"] == "halted"
    assert desk.call("explain").stdout.startswith("decision ")


def test_arm_and_reload_want_a_daemon(desk):
    for command in (["arm"], ["disarm"], ["reload"], ["promote", "prior_5d"]):
        done = desk.call(*command)
        assert done.returncode == 69 and "crashed" in done.stderr
    assert "`armed:`" in desk.call("arm").stderr


def test_a_mode_set_while_none_runs_is_the_next_runs(desk):
    assert "starts halted" in desk.call("pause").stdout  # a pause does not lift a halt
    assert "starts normal" in desk.call("resume").stdout
    assert "starts reduce-only" in desk.call("reduce-only", "--why", "after the crash").stdout
    desk.start_again()
    told = desk.status()
    assert told["mode"] == "reduce_only" and "after the crash" in told["mode_why"]
    desk.call("resume")


def test_after_a_clean_stop_no_daemon_runs(desk):
    assert desk.daemon.stop() == 0
    done = desk.call("status", "--health")
    assert done.returncode == 69 and "no daemon runs here" in done.stderr
    assert "last run" in desk.call("status").stdout


def test_where_nothing_ever_ran_no_mode_can_be_set(desk, tmp_path):
    done = desk.call("halt", environ={**os.environ, "STATE_DIRECTORY": str(tmp_path)})
    assert done.returncode == 69 and "none has" in done.stderr
    assert list(tmp_path.iterdir()) == []
