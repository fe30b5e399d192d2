"""The whole line from outside: commands, their output, and the venue's own log as witness."""

import json
import random
import subprocess
import time
from collections import Counter
from typing import Any

import pytest

from tests.wiring.processes import CLI, Daemon, Venue, config, ledger_fills, wait_for

pytestmark = pytest.mark.timeout(240)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *arguments], capture_output=True, text=True, timeout=120)


def assert_one_order_a_label(venue: Venue) -> None:
    labels = Counter(record["label"] for record in venue.records("order.accepted"))
    assert labels, "nothing was traded"
    assert max(labels.values()) == 1, f"a label twice: {labels.most_common(1)}"


def assert_no_fill_lost(venue: Venue, state) -> None:
    at_venue = {record["trade_id"] for record in venue.records("order.filled")}
    assert at_venue and at_venue == set(ledger_fills(state))


def assert_on_target(finished: dict[str, Any]) -> None:
    for underlying, line in finished["exposure"].items():
        assert abs(line["actual_usd"] - line["target_usd"]) <= 1.5 * line["band_usd"], (underlying, line)


def test_the_demo_ends_on_target_reconciled_and_its_tape_replays_bit_for_bit(tmp_path):
    tape = tmp_path / "demo.tape"
    done = run("demo", "--seconds", "5", "--seed", "7", "--scenario", "default", "--json", "--tape", str(tape))
    assert done.returncode == 0, done.stderr[-2_000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    finished = lines[-1]
    assert finished["event"] == "run.finished"
    assert finished["reconciled"] and finished["open_orders"] == 0 and finished["limits_breached"] == 0
    assert finished["orders_sent"] > 0 and finished["fills"] > 0
    for line in finished["exposure"].values():
        assert abs(line["actual_usd"] - line["target_usd"]) <= line["band_usd"]
    replayed = run("replay", str(tape), "--json")
    assert replayed.returncode == 0, replayed.stdout
    told = json.loads(replayed.stdout.splitlines()[-1])
    assert told["differences"] == 0 and told["decisions"] == finished["decisions"]


def test_the_demos_option_book_is_hedged_through_an_expiry_and_a_listing(tmp_path):
    tape = tmp_path / "demo.tape"
    done = run("demo", "--seconds", "32", "--json", "--tape", str(tape))
    assert done.returncode == 0, done.stderr[-2_000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    settled = [line for line in lines if line["event"] == "position.settled"]
    assert len(settled) == 4 and all(line["proof"] == "venue record" for line in settled)
    assert any(line["event"] == "instruments.joined" for line in lines)
    assert not any(line["event"].startswith("greeks.") for line in lines)  # ours are the venue's
    made = [line for line in lines if line["event"] == "decision.made" and line["mode"] == "normal"]
    outside = [
        abs(line["exposure"]["delta:BTC"]["actual_usd"] - line["exposure"]["delta:BTC"]["target_usd"]) > 10_000
        for line in made[len(made) // 3 :]
    ]
    assert sum(outside) < 0.25 * len(outside)  # straddles with seconds to live: a basis point is thousands
    finished = lines[-1]
    assert finished["reconciled"] and finished["open_orders"] == 0 and finished["limits_breached"] == 0
    assert not [name for name in finished["position_lots"] if name in {line["instrument"] for line in settled}]
    assert finished["greeks"]["BTC"]["gamma_usd_1pct"] != 0.0
    replayed = run("replay", str(tape), "--json")
    assert json.loads(replayed.stdout.splitlines()[-1])["differences"] == 0


def inside_bands(daemon: Daemon) -> bool:
    """Whether the last decision in the daemon's log is on target, with nothing left to do."""
    decisions = [e for e in daemon.events()[-50:] if e["event"] == "decision.made"]
    if not decisions or decisions[-1]["orders"]:
        return False
    lines = decisions[-1]["exposure"].values()
    return all(
        line["actual_usd"] and abs(line["actual_usd"] - line["target_usd"]) <= line["band_usd"] for line in lines
    )


def trade_through_kills(tmp_path, kills: int, rng) -> None:
    venue = Venue(tmp_path, scenario="volatile")
    state = tmp_path / "state"
    # Tight bands in a wild market: there is always something to do, and something in flight.
    # Without a past to recall, each start finds another volatility, and so another target.
    blind = {"recall": "{enabled: false}"}
    path = config(tmp_path, band_usd="400", band="0.01", min_band_usd="300", cross_after_ms="400", **blind)
    try:
        for kill in range(kills):
            daemon = Daemon(path, venue, state)
            before = len(venue.records("order.accepted"))
            wait_for(lambda seen=before: len(venue.records("order.accepted")) > seen, 30, f"an order after kill {kill}")
            time.sleep(rng.uniform(0.0, 1.0))
            daemon.kill()
        last = Daemon(config(tmp_path, cross_after_ms="500"), venue, state)
        wait_for(lambda: inside_bands(last), 60, "exposure back on target")
        assert last.stop() == 0, last.output.read_text()[-2_000:]
        assert_one_order_a_label(venue)
        assert_no_fill_lost(venue, state)
        assert_on_target(last.finished())
        assert last.finished()["reconciled"]
    finally:
        venue.close()


def test_three_kills_duplicate_no_order_and_lose_no_fill(tmp_path):
    trade_through_kills(tmp_path, 3, random.Random(1))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_kills_duplicate_no_order_and_lose_no_fill(tmp_path):
    trade_through_kills(tmp_path, 20, random.Random(2))


# late: it reaches the matching engine only after its deadline, and after we have proved it absent.
@pytest.mark.parametrize(
    "fault",
    [
        "hang_after",
        "late:6000",
        pytest.param("hang_before", marks=pytest.mark.slow),
        pytest.param("drop_after", marks=pytest.mark.slow),
        pytest.param("http_500_after", marks=pytest.mark.slow),
    ],
)
def test_a_create_without_an_answer_makes_one_order(tmp_path, fault):
    """Two of the first creates go astray, accepted or not: every intent ends as at most one order."""
    venue = Venue(tmp_path, faults=(f"private/buy={fault}:0.4", f"private/sell={fault}:0.4"))
    state = tmp_path / "state"
    try:
        lively = config(tmp_path, band_usd="400", band="0.01", min_band_usd="300")
        daemon = Daemon(lively, venue, state)
        wait_for(lambda: any(e["event"] == "order.outcome_unknown" for e in daemon.events()), 60, "an unknown outcome")
        wait_for(lambda: venue.records("order.filled"), 60, "a fill")
        time.sleep(5)
        assert daemon.stop() == 0, daemon.output.read_text()[-2_000:]
        assert_one_order_a_label(venue)
        assert_no_fill_lost(venue, state)
        assert daemon.finished()["unknown_outcomes"] > 0 and daemon.finished()["reconciled"]
    finally:
        venue.close()


def test_a_balance_in_a_coin_that_is_not_traded_is_priced_and_does_not_stop_trading(tmp_path):
    venue = Venue(tmp_path)
    only_btc = config(tmp_path)
    text = only_btc.read_text().replace("[BTC-*, BTC_USDC-PERPETUAL, ETH-*, ETH_USDC-PERPETUAL]", "[BTC-PERPETUAL]")
    start = text.index("    ETH:\n")
    end = text.index("weight", start)
    end = text.index("\n\n", end)
    only_btc.write_text(text[:start] + text[end + 1 :])
    try:
        daemon = Daemon(only_btc, venue, tmp_path / "state")
        wait_for(lambda: venue.records("order.filled"), 30, "a fill")
        assert daemon.stop() == 0, daemon.output.read_text()[-2_000:]
        assert daemon.finished()["equity_usd"] > 900_000
    finally:
        venue.close()


def test_a_lost_ledger_repeats_no_label(tmp_path):
    venue = Venue(tmp_path)
    try:
        for life in range(3):
            before = len(venue.records("order.accepted"))
            daemon = Daemon(config(tmp_path, band_usd="400"), venue, tmp_path / f"state{life}")
            wait_for(lambda seen=before: len(venue.records("order.accepted")) > seen, 30, "an order")
            daemon.kill()
        assert_one_order_a_label(venue)
    finally:
        venue.close()
