"""A daemon with slow factors: told by the simulated venue, kept over a kill, replayed; none of them stops it."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dea_daemon.cli import cli
from dea_daemon.domain.events import FactorObserved
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.shell.tape_reader import read_tape
from dea_daemon.wiring.replay import replay
from tests.wiring.processes import Daemon, Venue, config, wait_for

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def venue(tmp_path):
    running = Venue(tmp_path, scenario="calm")
    yield running
    running.close()


@pytest.fixture
def silent():
    """The URL of somebody who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def configured(folder: Path, factors: dict[str, Any]) -> Path:
    path = config(folder, recall="{enabled: false}")
    path.write_text(path.read_text() + f"\nfactors: {json.dumps(factors)}\n")
    return path


def lines(daemon: Daemon, event: str) -> list[dict[str, Any]]:
    return [line for line in daemon.events() if line["event"] == event]


def observed(state: Path) -> list[FactorObserved]:
    return [event for event, _ in read_tape(state / "tape").steps() if isinstance(event, FactorObserved)]


def test_factors_are_told_kept_over_a_kill_and_replayed_while_bad_sources_stop_nothing(tmp_path, venue, silent):
    url, state = venue.listening["http_url"], tmp_path / "state"
    page = venue.listening["http_url"] + "/graph/fredgraph.csv"
    path = configured(
        tmp_path,
        {
            "mvrv": {"kind": "coinmetrics", "asset": "btc", "metric": "CapMVRVCur", "url": url},
            "vix": {"kind": "fred", "series": "VIXCLS", "url": url, "history_days": 300},
            "hanging": {"kind": "fear_greed", "url": silent, "timeout_s": 1.0},
            "nobody": {"kind": "csv", "url": "http://127.0.0.1:9/none.csv"},
            "wrong": {"kind": "http_json", "url": page, "query": {"id": "X"}},
            "missing": {"kind": "file", "path": str(tmp_path / "none.csv")},
        },
    )
    first = Daemon(path, venue, state)
    bad = {"hanging", "nobody", "wrong", "missing"}
    wait_for(lambda: {line["factor"] for line in lines(first, "factor.failed")} == bad, 60, "the bad ones are told of")
    decided = len(lines(first, "decision.made"))
    wait_for(lambda: len(lines(first, "decision.made")) > decided + 8, 60, "it goes on deciding")
    first.kill()
    told = observed(state)
    assert {event.name for event in told} == {"mvrv", "vix"} and not lines(first, "factor.recalled")
    assert all(event.event_ns < event.publish_ns <= event.ts_recv_ns for event in told)
    again = Daemon(path, venue, state)
    wait_for(lambda: len(lines(again, "decision.made")) > 8, 60, "decisions after the kill")
    assert again.stop() == 0, again.output.read_text()[-2_000:]
    (recalled,) = lines(again, "factor.recalled")
    assert recalled["factors"] == 2 and recalled["values"] == len(told)
    kept = [(event.name, event.event_ns, event.publish_ns, event.value) for event in observed(state)]
    assert sorted(kept) == sorted((event.name, event.event_ns, event.publish_ns, event.value) for event in told)
    replayed = replay(read_tape(state / "tape"))
    assert replayed["differences"] == 0, replayed["first_difference"]


def called(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["data", "factors", *map(str, arguments)])


def test_the_store_is_shown_checked_and_given_a_past(tmp_path):
    file = tmp_path / "past.csv"
    file.write_text("day,level\n" + "".join(f"2024-01-{day:02},{day}\n" for day in range(1, 21)))
    missing = called("show", "--state-dir", tmp_path)
    assert missing.exit_code == 66
    added = called("import", "mine", file, "--state-dir", tmp_path, "--lag-h", 12, "--json")
    assert json.loads(added.stdout) == {"factor": "mine", "added": 20, "left_out": 0, "new": True}
    again = called("import", "mine", file, "--state-dir", tmp_path)
    assert "0 values added, 20 are not older" in again.stdout
    shown = json.loads(called("show", "--state-dir", tmp_path, "--json").stdout)
    assert (shown["name"], shown["values"], shown["restated"]) == ("mine", 20, 0)
    assert shown["last_ns"] - shown["first_ns"] == 19 * NS_PER_DAY
    assert "mine" in called("show", "--state-dir", tmp_path).stdout
    checked = called("check", "--state-dir", tmp_path)
    assert checked.exit_code == 0 and checked.stdout == "mine: clean\n"
    file.write_text("day,level\n2023-01-01,1\n2100-01-01,2\n")
    mistyped = called("import", "mien", file, "--state-dir", tmp_path).stdout
    assert "1 are of a time still to come" in mistyped and "mien is new; there were mine" in mistyped


def test_records_that_would_look_ahead_are_found(tmp_path):
    import sqlite3

    file = tmp_path / "past.csv"
    file.write_text("day,level\n2024-01-01,1\n2024-01-02,2\n")
    called("import", "mine", file, "--state-dir", tmp_path)
    with sqlite3.connect(tmp_path / "factors.sqlite") as db:
        db.execute("UPDATE vintages SET known_ns = event_ns WHERE value = 2")
    db.close()
    checked = called("check", "--state-dir", tmp_path)
    assert checked.exit_code == 1 and checked.stdout == "mine: 1 known before their publication\n"


def test_sources_made_to_fail_at_the_venues_command_line_are_told_of_and_stop_nothing(tmp_path):
    faults = ("factors/fng=html", "factors/graph/*=redirect:1", "factors/own.csv=future", "factors/own.json=gone:0:2")
    venue, state = Venue(tmp_path, scenario="calm", faults=faults), tmp_path / "state"
    url = venue.listening["http_url"]
    sources = {
        "greed": {"kind": "fear_greed", "url": url},
        "vix": {"kind": "fred", "series": "VIXCLS", "url": url},
        "own": {"kind": "csv", "url": url + "/own.csv"},
        "mvrv": {"kind": "coinmetrics", "asset": "btc", "metric": "CapMVRVCur", "url": url},
    }
    path = configured(tmp_path, {name: {**source, "every_s": 1.0} for name, source in sources.items()})
    daemon = Daemon(path, venue, state)
    try:
        failing = {"greed": "HTML instead of data", "vix": "status 302, a redirect"}
        told = lambda: {line["factor"]: line["why"] for line in lines(daemon, "factor.failed")}  # noqa: E731
        wait_for(lambda: told() == failing, 60, "two that fail")
        wait_for(lambda: lines(daemon, "factor.refused"), 60, "one that tells of the future")
        decided = len(lines(daemon, "decision.made"))
        wait_for(lambda: len(lines(daemon, "decision.made")) > decided + 8, 60, "it goes on deciding")
        refused = lines(daemon, "factor.refused")
        assert [(line["factor"], line["values"]) for line in refused] == [
            ("own", 1)
        ]  # asked again and again, said once
        assert daemon.stop() == 0, daemon.output.read_text()[-2_000:]
    finally:
        venue.close()
    assert {event.name for event in observed(state)} == {"own", "mvrv"}
