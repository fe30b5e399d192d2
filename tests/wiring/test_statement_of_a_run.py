"""Two real runs on one simulated venue, the second with other targets: the statement explains the venue's cash."""

import json
import subprocess

from tests.wiring.processes import CLI, Daemon, Venue, config, wait_for


def is_fill_in_btc(event):
    return event["event"] == "order.filled" and event["instrument"] == "BTC-PERPETUAL"


def trade_to(folder, venue, state, delta_usd):
    """A run that has begun to move towards this target; its last word."""
    path = config(folder, delta_usd=str(delta_usd), band_usd="2_000", instruments="[BTC-PERPETUAL, ETH_USDC-PERPETUAL]")
    daemon = Daemon(path, venue, state)
    try:
        wait_for(lambda: any(is_fill_in_btc(event) for event in daemon.events()), 40, "a fill")
    finally:
        code = daemon.stop()
    assert code == 0
    return daemon.finished()


def test_profit_and_cash_of_two_runs_reconcile_to_the_cent(tmp_path):
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
    assert told["notes"] == []
