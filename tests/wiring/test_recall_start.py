"""A daemon that starts, or starts again, knows the month before: from the venue's candles, onto the tape."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dea_daemon.domain.decisions import DecisionRecord
from dea_daemon.domain.events import PricesRecalled, RunStarted
from dea_daemon.shell.tape import decode_decision
from dea_daemon.shell.tape_reader import read_tape
from dea_daemon.wiring.replay import replay
from tests.wiring.processes import Daemon, Venue, config, wait_for

pytestmark = pytest.mark.timeout(120)
CALM = 0.55 * 0.4  # BTC's in that scenario; assumed are 0.6


def made(daemon: Daemon) -> list[dict[str, Any]]:
    return [event for event in daemon.events() if event["event"] == "decision.made"]


def told(daemon: Daemon, event: str) -> dict[str, Any]:
    (line,) = [line for line in daemon.events() if line["event"] == event]
    return line


def records(state: Path) -> list[DecisionRecord]:
    found = (decode_decision(encoded).record for _, encoded in read_tape(state / "tape").steps() if encoded)
    return [record for record in found if record is not None]


def vol(record: DecisionRecord) -> float:
    return record.factors[0].annual_vol


@pytest.fixture
def calm(tmp_path):
    venue = Venue(tmp_path, scenario="calm")
    yield venue
    venue.close()


def test_the_first_decision_of_a_run_and_of_one_after_a_kill_know_the_month_before(tmp_path, calm):
    state = tmp_path / "state"
    first = Daemon(config(tmp_path), calm, state)
    wait_for(lambda: len(made(first)) > 8, 60, "decisions")
    first.kill()
    recalled = told(first, "history.recalled")
    hours = recalled["hours"]
    assert hours in (767, 768)  # an hour may end while it is asked
    assert recalled["prices"] == {"BTC": hours, "ETH": hours} and recalled["refused"] == 0
    before = records(state)
    again = Daemon(config(tmp_path), calm, state)
    wait_for(lambda: len(made(again)) > 8, 60, "decisions after the kill")
    assert again.stop() == 0, again.output.read_text()[-2_000:]
    after = records(state)
    assert vol(before[0]) == pytest.approx(CALM, rel=0.25)
    assert vol(after[0]) == pytest.approx(vol(before[-1]), rel=0.1)
    reader = read_tape(state / "tape")
    events = [event for event, _ in reader.steps()]
    assert isinstance(events[0], RunStarted) and isinstance(events[1], PricesRecalled)
    assert np.array(events[1].usd).shape in ((767, 2), (768, 2))
    assert events[0].ts_recv_ns <= events[1].ts_recv_ns and events[1].at_ns[-1] < events[0].ts_recv_ns
    replayed = replay(read_tape(state / "tape"))
    assert replayed["differences"] == 0, replayed["first_difference"]


@pytest.mark.parametrize("fault", ["hang_before", "html", "rate_limited"])
def test_a_venue_that_does_not_tell_its_past_delays_the_start_no_longer_than_is_allowed(tmp_path, fault):
    venue = Venue(tmp_path, scenario="calm", faults=(f"public/get_tradingview_chart_data={fault}",))
    try:
        daemon = Daemon(config(tmp_path, recall="{within_s: 1.5}"), venue, tmp_path / "state")
        wait_for(lambda: made(daemon), 60, "a decision")
        assert daemon.stop() == 0, daemon.output.read_text()[-2_000:]
        failed = told(daemon, "history.recall_failed")
        assert failed["level"] == "warning" and len(failed["why"]) == 2
        assert vol(records(tmp_path / "state")[0]) == pytest.approx(0.6, rel=0.02)
    finally:
        venue.close()


def test_where_it_is_not_wanted_it_is_not_asked_for(tmp_path, calm):
    path = config(tmp_path, recall="{enabled: false}")
    daemon = Daemon(path, calm, tmp_path / "state")
    wait_for(lambda: made(daemon), 60, "a decision")
    assert daemon.stop() == 0, daemon.output.read_text()[-2_000:]
    assert not [line for line in daemon.events() if line["event"].startswith("history.")]
    assert not any(isinstance(event, PricesRecalled) for event, _ in read_tape(tmp_path / "state" / "tape").steps())
