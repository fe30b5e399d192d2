"""Two real runs on one simulated venue, the second with other targets: the statement explains the venue's cash."""

import json
import subprocess

from tests.wiring.processes import CLI, Daemon, Venue, config, wait_for


def trade_to(folder, venue, state, delta_usd):
    """A run until it is at rest beside its target; its last word."""
    path = config(folder, delta_usd=str(delta_usd), band_usd="2_000")
    daemon = Daemon(path, venue, state)
    try:
        wait_for(lambda: any(event["event"] == "order.filled" for event in daemon.events()), 40, "a fill")
        wait_for(lambda: sum(event["event"] == "decision.made" for event in daemon.events()) > 20, 40, "decisions")
    finally:
        code = daemon.stop()
    assert code == 0
    return daemon.finished()


def test_profit_fees_and_cash_of_two_runs_reconcile_to_the_cent(tmp_path):
    venue, state = Venue(tmp_path), tmp_path / "state"
    try:
        fills = [trade_to(tmp_path, venue, state, delta)["fills"] for delta in (250_000, 330_000)]
    finally:
        venue.close()
    arguments = ["statement", "--ledger", str(state), "--json"]
    told = json.loads(subprocess.run([*CLI, *arguments], capture_output=True, text=True, check=True).stdout)
    assert told["reconciled"], told
    assert sum(line["fills"] for line in told["contracts"]) == sum(fills)
    assert any(float(line["realised"]) != 0 for line in told["contracts"]), told["contracts"]
    assert any(float(line["fees"]) > 0 for line in told["contracts"])
    assert told["notes"] == []
