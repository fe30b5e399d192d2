"""Prometheus is told what the status says, with bounded labels, quickly."""

import re
import subprocess
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dea_daemon.domain.decisions import Decision, DecisionRecord, Note
from dea_daemon.domain.modes import Mode
from dea_daemon.shell.logs import lines
from dea_daemon.shell.metrics import CONTENDER_STATES, CONTRACTS, NOTES, Metrics
from tests.shell.status_sample import (
    contender,
    doubted_surface,
    instrument,
    slow_factor,
    status,
    still_monitor,
    surface,
)
from tests.shell.test_monitor import Watched

STATE = Path(__file__).parents[2] / "dea_daemon" / "state"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(metrics: Metrics) -> Samples:
    """Name and labels → value, as the library's own parser reads them; each only once."""
    text = metrics.exposition().decode()
    found = [s for family in text_string_to_metric_families(text) for s in family.samples]
    read = {(s.name, frozenset(s.labels.items())): s.value for s in found}
    assert len(read) == len(found), "the same series twice"
    return read


def value(read: Samples, metric: str, **labels: str) -> float:
    return read[metric, frozenset(labels.items())]


def shown(**status) -> Samples:
    return samples(Metrics(still_monitor(**status)))


def record(utc_ns: int) -> DecisionRecord:
    return DecisionRecord(1, 0, utc_ns, "timer", Mode.NORMAL, True, 5e5, (), (), (), (), ())


# --- what is told -------------------------------------------------------------------------------------------


def test_the_status_is_told_with_units():
    read = shown()
    assert value(read, "dea_equity_usd") == 500_000
    assert value(read, "dea_orders_sent_total") == 40
    assert value(read, "dea_exposure_target_usd", factor="delta:BTC") == 100_000
    assert value(read, "dea_limit_allowed", limit="net", subject="delta:BTC") == 400_000
    assert value(read, "dea_position_lots", account="deribit/main", contract="BTC-PERPETUAL") == -12
    assert value(read, "dea_feed_offset_seconds", account="deribit/main", feed="deribit-main-books") == 0.0125
    assert value(read, "dea_latency_p99_seconds", stage="event_to_order") == pytest.approx(0.0041)
    assert value(read, "dea_pool_maintenance_margin", account="deribit/main", currency="BTC") == 0.25
    assert value(read, "dea_start_time_seconds") == 1_790_000_000


def test_exactly_one_mode_is_hot():
    read = shown(mode="halted")
    modes = {dict(labels)["mode"]: hot for (name, labels), hot in read.items() if name == "dea_mode"}
    assert modes == {mode.name.lower(): float(mode is Mode.HALTED) for mode in Mode}


@pytest.mark.parametrize("name", ["armed", "healthy", "ready", "recording"])
def test_truths_are_one_or_zero(name):
    assert value(shown(**{name: True}), f"dea_{name}") == 1
    assert value(shown(**{name: False}), f"dea_{name}") == 0


def test_what_is_not_known_is_not_a_number_rather_than_zero():
    read = shown(equity_usd=None)
    unknown = value(read, "dea_equity_usd")
    assert unknown != unknown
    untargeted = value(read, "dea_exposure_target_usd", factor="delta:ETH")
    assert untargeted != untargeted


def test_greeks_are_told_by_underlying_and_beside_the_deltas():
    read = shown()
    assert value(read, "dea_gamma_usd_1pct", underlying="BTC") == 1_250
    assert value(read, "dea_vega_usd_1pt", underlying="BTC") == -310.5
    assert value(read, "dea_theta_usd_day", underlying="ETH") == 0
    assert value(read, "dea_options_modelled") == 4
    assert value(read, "dea_greeks_off") == 1
    assert {dict(labels)["factor"] for name, labels in read if name == "dea_exposure_usd"} == {"delta:BTC", "delta:ETH"}


def test_a_surface_is_told_by_underlying_and_one_there_never_was_is_doubted_and_not_a_number():
    jumped = surface("BTC", relied=False, why="jumped: 11 deviations")
    read = shown(surfaces=[jumped, surface("ETH"), doubted_surface("SOL")])
    assert [value(read, "dea_surface_doubted", underlying=name) for name in ("BTC", "ETH", "SOL")] == [1, 0, 1]
    assert value(read, "dea_surface_age_seconds", underlying="ETH") == 2.5
    assert value(read, "dea_surface_inside_ratio", underlying="BTC") == 0.997
    assert value(read, "dea_surface_rmse_vol_points", underlying="BTC") == 0.21
    assert value(read, "dea_surface_fit_seconds", underlying="BTC") == pytest.approx(0.048)
    never = value(read, "dea_surface_age_seconds", underlying="SOL")
    assert never != never


def test_a_forecaster_is_told_with_one_state_and_its_scores_by_underlying():
    read = shown(contenders=[contender("ridge_5d", state="proposed", p=0.004, weight=0.0)])
    assert value(read, "dea_forecaster_weight", name="ridge_5d") == 0
    assert value(read, "dea_forecaster_p", name="ridge_5d") == 0.004
    states = {state: value(read, "dea_forecaster_state", name="ridge_5d", state=state) for state in CONTENDER_STATES}
    assert states == {"shadow": 0, "traded": 0, "proposed": 1, "demoted": 0}
    assert value(read, "dea_forecaster_r_squared", name="momentum_5d", underlying="ETH") == 0.0047
    assert ("dea_forecaster_r_squared", frozenset(dict(name="ridge_5d", underlying="ETH").items())) not in read


def test_a_slow_factor_that_says_nothing_is_told_as_such():
    silent = slow_factor("mine", z=0.0, age_days=None, valid=False, why="too little is known of it")
    read = shown(slow_factors=[slow_factor("greed"), silent])
    assert [value(read, "dea_slow_factor_valid", name=name) for name in ("greed", "mine")] == [1, 0]
    assert value(read, "dea_slow_factor_z", name="greed") == 1.25
    assert value(read, "dea_slow_factor_age_seconds", name="greed") == 2.5 * 86_400
    never = value(read, "dea_slow_factor_age_seconds", name="mine")
    assert never != never


def test_notes_are_counted_by_event_and_strangers_together():
    metrics = Metrics(still_monitor())
    metrics.decided(Decision(notes=(Note("mode.changed", {}), Note("a.b", {}), Note("c.d", {}))))
    read = samples(metrics)
    assert value(read, "dea_notes_total", event="mode.changed") == 1
    assert value(read, "dea_notes_total", event="other") == 2
    assert value(read, "dea_notes_total", event="ledger.failed") == 0  # there from the start: a rise can be seen


def test_every_note_of_the_core_has_a_counter():
    written = {
        event
        for path in STATE.rglob("*.py")
        for event in re.findall(r'effects\.note\(\s*"([^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert len(written) > 15 and written <= set(NOTES)


def test_what_is_closed_gone_or_off_its_peg_is_told():
    read = shown(watched=False, contracts_closed=12, contracts_regridded=2, pegs={"USDC": 0.991})
    assert value(read, "dea_watched") == 0
    assert value(read, "dea_contracts_closed") == 12
    assert value(read, "dea_contracts_regridded") == 2
    assert value(read, "dea_peg_usd", currency="USDC") == 0.991


def test_logged_lines_are_counted_from_the_runs_beginning(monkeypatch):
    monkeypatch.setitem(lines, "contracts.left_out", 5)
    metrics = Metrics(still_monitor())
    assert value(samples(metrics), "dea_log_lines_total", event="contracts.left_out") == 0
    lines["contracts.left_out"] += 2
    assert value(samples(metrics), "dea_log_lines_total", event="contracts.left_out") == 2


def test_a_decisions_time_goes_into_the_histogram():
    metrics = Metrics(still_monitor(), utc_ns=lambda: 4_000_000)
    metrics.decided(Decision(record=record(utc_ns=1_000_000)))  # 3 ms ago
    metrics.decided(Decision())  # no decision was made
    read = samples(metrics)
    assert value(read, "dea_decision_seconds_count") == 1
    assert value(read, "dea_decision_seconds_sum") == pytest.approx(0.003)
    assert value(read, "dea_decision_seconds_bucket", le="0.002") == 0
    assert value(read, "dea_decision_seconds_bucket", le="0.005") == 1


def test_two_runs_in_one_process_do_not_share_counters():
    first, second = Metrics(still_monitor()), Metrics(still_monitor())
    first.decided(Decision(notes=(Note("mode.changed", {}),)))
    assert value(samples(second), "dea_notes_total", event="mode.changed") == 0


async def test_a_real_monitor_can_be_told_of():
    watched = Watched()
    metrics = Metrics(watched.monitor, utc_ns=lambda: watched.now)
    watched.runner.listeners.append(metrics.decided)
    assert samples(metrics)["dea_decisions_total", frozenset()] == 0  # before anything was decided, too
    watched.house.settle()
    watched.house.decide()
    await watched.play()
    read = samples(metrics)
    assert value(read, "dea_decision_seconds_count") == value(read, "dea_decisions_total") > 0
    assert value(read, "dea_notes_total", event="account.adopted") == 1
    assert value(read, "dea_limit_allowed", limit="net", subject="delta:BTC") == 400_000
    told = watched.monitor.status()
    assert status().keys() == told.keys()  # the sample these tests use looks as the real one does
    for part in ("counts", "latency"):
        assert status()[part].keys() == told[part].keys()
    for table in ("factors", "limits", "instruments", "pools"):
        assert status()[table][0].keys() == told[table][0].keys(), table
    assert status()["greeks"]["BTC"].keys() == told["greeks"]["BTC"].keys()
    assert status()["option_counts"].keys() == told["option_counts"].keys()


# --- bounds -------------------------------------------------------------------------------------------------


def many(contracts: int) -> dict[str, list[dict[str, object]]]:
    names = [f"BTC-{k}" for k in range(contracts)]
    return {
        "instruments": [instrument(name, notional_usd=-10.0) for name in names],
        "limits": [dict(limit="instrument", subject=name, used=float(k), allowed=9.0) for k, name in enumerate(names)],
    }


def test_contracts_beyond_the_bound_are_told_together():
    more = many(CONTRACTS + 50)
    more["instruments"][-1]["fresh"] = False
    read = shown(**more)
    assert len([name for name, _ in read if name == "dea_price_fresh"]) == CONTRACTS + 1
    assert value(read, "dea_position_notional_usd", account="other", contract="other") == 500
    assert value(read, "dea_price_fresh", account="other", contract="other") == 0
    assert value(read, "dea_price_fresh", account="deribit/main", contract="BTC-0") == 1
    assert value(read, "dea_limit_used", limit="instrument", subject="other") == CONTRACTS + 49  # the worst


def test_one_contract_in_two_accounts_tells_the_limit_nearer_its_bound():
    twice = [dict(limit="instrument", subject="BTC-PERPETUAL", used=used, allowed=9.0) for used in (3.0, None, 8.0)]
    used = value(shown(limits=twice[::2]), "dea_limit_used", limit="instrument", subject="BTC-PERPETUAL")
    assert used == 8
    used = value(shown(limits=twice), "dea_limit_used", limit="instrument", subject="BTC-PERPETUAL")
    assert used != used  # what cannot be measured is worse


def test_no_order_id_nor_error_text_becomes_a_label():
    order = dict(client_order_id="d01abc", instrument="BTC-PERPETUAL")
    metrics = Metrics(still_monitor(orders=[order], unhealthy=["feed broke: xyzzy"], mode_why="xyzzy"))
    metrics.decided(Decision(notes=(Note("order.rejected", {"client_order_id": "d01abc", "why": "xyzzy"}),)))
    text = metrics.exposition().decode()
    assert "d01abc" not in text and "xyzzy" not in text


def test_awkward_names_are_escaped():
    name = 'say "BTC"\\\n'
    assert value(shown(instruments=[instrument(name)]), "dea_price_fresh", account="deribit/main", contract=name) == 1


def test_prometheus_own_checker_finds_no_fault():
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=Metrics(still_monitor()).exposition(), capture_output=True, timeout=20
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_scrape_of_200_contracts_holds_the_loop_for_less_than_5_ms():
    """The best of ten: the machine's other work is not ours."""
    metrics = Metrics(still_monitor(**many(200)))
    took_s = []
    for _ in range(10):
        before_s = time.perf_counter()
        metrics.exposition()
        took_s.append(time.perf_counter() - before_s)
    assert min(took_s) < 0.005


def test_to_count_a_decision_costs_next_to_nothing():
    metrics = Metrics(still_monitor())
    decision = Decision(record=record(utc_ns=time.time_ns()), notes=(Note("order.filled", {}),))
    before_s = time.perf_counter()
    for _ in range(2_000):
        metrics.decided(decision)
    assert (time.perf_counter() - before_s) / 2_000 < 50e-6
