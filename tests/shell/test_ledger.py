"""The ledger: what it keeps, what it gives back, and who may hold it."""

import math
import os
import sqlite3
import subprocess
import sys
import threading
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dea_daemon.domain.errors import InvariantViolation, LedgerError
from dea_daemon.domain.events import PoolReport
from dea_daemon.domain.instruments import Side, Universe
from dea_daemon.domain.models import Court, Kept, Standing, Track
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.orders import TERMINAL, OrderState, TimeInForce, client_order_id
from dea_daemon.shell.ledger import Batch, Ledger
from dea_daemon.shell.ledger_schema import MIGRATIONS, migrate
from dea_daemon.shell.recovery import KEPT
from tests.shell.ledger_samples import BTC, ETH, HOUR, MAIN, NOW, OTHER, UNIVERSE, S, booked, instrument, order, record


def rows(ledger: Ledger, query: str) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(ledger.path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
def ledger(path):
    opened = Ledger.open(path)
    yield opened
    opened.close()


def reopened(ledger: Ledger) -> Ledger:
    ledger.close()
    return Ledger.open(ledger.path)


# --- orders --------------------------------------------------------------------------------------------


def test_a_fresh_ledger_knows_nothing(ledger):
    recovered = ledger.recover(UNIVERSE, NOW)
    assert recovered.restored == recovered.fills_seen == recovered.orphans == ()
    assert (recovered.mode, recovered.peak_equity_usd) == (Mode.NORMAL, 0.0)
    assert recovered.trade_cursor_ms == NOW // 10**6 - 60_000
    assert ledger.torn == ""


def test_an_intent_is_restored_as_unknown_with_all_it_said(ledger):
    sent = order(1, row=1, side=Side.SELL, time_in_force=TimeInForce.IOC, post_only=False, reduce_only=True)
    ledger.write(Batch(intents=[sent]), UNIVERSE, NOW)
    (restored,) = reopened(ledger).recover(UNIVERSE, NOW).restored
    assert restored == replace(sent, state=OrderState.UNKNOWN)


def test_an_order_keeps_its_latest_state(ledger):
    placed = order(1)
    ledger.write(Batch(intents=[placed]), UNIVERSE, NOW)
    placed.state, placed.venue_order_id, placed.filled_lots = OrderState.OPEN, "ETH-77", 4
    placed.venue_filled_lots = 5
    ledger.write(Batch(orders={placed.client_order_id: placed}), UNIVERSE, NOW)
    (restored,) = ledger.recover(UNIVERSE, NOW).restored
    assert (restored.venue_order_id, restored.filled_lots, restored.venue_filled_lots) == ("ETH-77", 4, 5)
    assert restored.state is OrderState.UNKNOWN


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_an_ended_order_is_not_restored(ledger, state):
    ledger.write(Batch(intents=[order(1, state=state, filled_lots=10, venue_filled_lots=10)]), UNIVERSE, NOW)
    assert ledger.recover(UNIVERSE, NOW).restored == ()


def test_an_ended_order_whose_fills_have_not_come_is_restored_for_a_day(ledger):
    late = order(1, state=OrderState.FILLED, filled_lots=4, venue_filled_lots=10)
    ledger.write(Batch(intents=[late]), UNIVERSE, NOW)
    (restored,) = ledger.recover(UNIVERSE, NOW + 24 * HOUR).restored
    assert (restored.filled_lots, restored.venue_filled_lots) == (4, 10)
    assert ledger.recover(UNIVERSE, NOW + 26 * HOUR).restored == ()


def test_a_client_order_id_is_never_recorded_twice(ledger):
    ledger.write(Batch(intents=[order(1)]), UNIVERSE, NOW)
    with pytest.raises(InvariantViolation):
        ledger.write(Batch(intents=[order(2), order(1)]), UNIVERSE, NOW)
    assert len(ledger.recover(UNIVERSE, NOW).restored) == 1


def test_the_end_of_an_order_whose_intent_could_not_be_written_is_kept(ledger):
    unsent = order(1, state=OrderState.REJECTED, reason="ledger")
    ledger.write(Batch(orders={unsent.client_order_id: unsent}), UNIVERSE, NOW)
    assert rows(ledger, "SELECT state, reason FROM order_states") == [("rejected", "ledger")]
    assert ledger.recover(UNIVERSE, NOW).restored == ()


def test_orders_keep_their_instrument_when_rows_move(ledger):
    ledger.write(Batch(intents=[order(1, row=0), order(2, row=1), order(3, row=2)]), UNIVERSE, NOW)
    moved = Universe((OTHER, MAIN), ((1, ETH), (0, BTC), (1, BTC)))
    recovered = ledger.recover(moved, NOW)
    assert [o.row for o in recovered.restored] == [2, 0, 1]
    assert recovered.orphans == ()


def test_an_order_on_a_contract_no_longer_listed_is_an_orphan(ledger):
    ledger.write(Batch(intents=[order(1, row=1), order(2, row=2)]), UNIVERSE, NOW)
    recovered = ledger.recover(Universe((MAIN,), ((0, BTC),)), NOW)
    assert recovered.restored == ()
    assert recovered.orphans == (
        f"{client_order_id(0, 7, 1)}: deribit/main ETH-PERPETUAL",
        f"{client_order_id(0, 7, 2)}: deribit/other BTC-PERPETUAL",
    )


def test_an_order_is_restated_in_todays_lots_and_ticks(ledger):
    ledger.write(Batch(intents=[order(1, lots=10, price_ticks=100_002, filled_lots=2)]), UNIVERSE, NOW)
    finer = Universe((MAIN,), ((0, instrument("BTC-PERPETUAL", lot_size="5", tick_size="1")),))
    (restored,) = ledger.recover(finer, NOW).restored
    assert (restored.lots, restored.filled_lots, restored.price_ticks) == (20, 4, 50_001)
    coarser = Universe((MAIN,), ((0, instrument("BTC-PERPETUAL", lot_size="30")),))
    recovered = ledger.recover(coarser, NOW)
    assert (recovered.restored, len(recovered.orphans)) == ((), 1)


def test_a_venues_strange_words_are_kept_within_bounds(ledger):
    strange = order(1, reason="\ud800" + "x" * 10_000)
    ledger.write(Batch(intents=[strange]), UNIVERSE, NOW)
    (restored,) = ledger.recover(UNIVERSE, NOW).restored
    assert restored.reason == "?" + "x" * 499


# --- fills ---------------------------------------------------------------------------------------------


def test_a_fill_is_kept_once(ledger):
    ledger.write(Batch(fills=[booked("t1"), booked("t1"), booked("t1", account=1, row=2)]), UNIVERSE, NOW)
    ledger.write(Batch(fills=[booked("t1", usd=99.0)]), UNIVERSE, NOW)
    recovered = ledger.recover(UNIVERSE, NOW)
    assert recovered.fills_seen == ((0, "t1"), (1, "t1"))
    assert recovered.hour_turnover_usd == 60.0


def test_the_hour_counts_fills_of_the_last_hour_by_the_venues_time(ledger):
    old, new = booked("old", NOW - HOUR, usd=1_000.0), booked("new", NOW - HOUR + S, usd=30.0, fee_usd=-0.01)
    undated = booked("undated", 0, usd=5.0, fee_usd=0.02)  # falls back to our own clock
    ledger.write(Batch(fills=[old, new, undated]), UNIVERSE, NOW)
    recovered = ledger.recover(UNIVERSE, NOW)
    assert recovered.hour_turnover_usd == 35.0
    assert recovered.hour_fees_usd == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("unknown", "expected"),
    [({"fee_usd": math.nan}, (60.0, math.inf)), ({"usd": math.nan}, (math.inf, 0.1))],
)
def test_a_fill_of_unknown_worth_shuts_the_hours_limits(ledger, unknown, expected):
    ledger.write(Batch(fills=[booked("a"), booked("b", **unknown)]), UNIVERSE, NOW)
    recovered = ledger.recover(UNIVERSE, NOW)
    assert (recovered.hour_turnover_usd, recovered.hour_fees_usd) == expected


def test_the_trade_cursor_stands_before_the_newest_fill(ledger):
    ledger.write(Batch(fills=[booked("a", NOW - 3 * HOUR), booked("b", NOW - 2 * HOUR)]), UNIVERSE, NOW)
    assert ledger.recover(UNIVERSE, NOW).trade_cursor_ms == (NOW - 2 * HOUR) // 10**6 - 60_000


def test_the_trade_cursor_stands_before_the_oldest_order_that_may_have_filled(ledger):
    waiting = order(1, created_ns=NOW - 5 * HOUR)
    ledger.write(Batch(intents=[waiting], fills=[booked("a", NOW - HOUR)]), UNIVERSE, NOW)
    assert ledger.recover(UNIVERSE, NOW).trade_cursor_ms == (NOW - 5 * HOUR) // 10**6 - 60_000


@settings(max_examples=25, deadline=None)
@given(ages_s=st.lists(st.integers(0, 30 * 3600), max_size=8), order_age_s=st.integers(0, 90 * 3600))
def test_every_fill_a_backfill_may_bring_again_is_known(tmp_path_factory, ages_s, order_age_s):
    ledger = Ledger.open(tmp_path_factory.mktemp("ledger") / "ledger.sqlite")
    fills = [booked(str(n), NOW - age * S) for n, age in enumerate(ages_s)]
    ledger.write(Batch(intents=[order(1, created_ns=NOW - order_age_s * S)], fills=fills), UNIVERSE, NOW)
    recovered = ledger.recover(UNIVERSE, NOW)
    ledger.close()
    again = {str(n) for n, age in enumerate(ages_s) if NOW - age * S >= recovered.trade_cursor_ms * 10**6}
    assert again <= {trade_id for _, trade_id in recovered.fills_seen}


# --- the rest ------------------------------------------------------------------------------------------


def test_mode_peak_and_checkpoint_survive(ledger):
    ledger.write(
        Batch(
            modes=[(Mode.HALTED, "drawdown"), (Mode.REDUCE_ONLY, "operator")],
            peak_equity_usd=123.5,
            day=20_000,
            day_equity_usd=99.5,
            checkpoints={"forecast": b"\x00\x01"},
        ),
        UNIVERSE,
        NOW,
    )
    again = reopened(ledger)
    recovered = again.recover(UNIVERSE, NOW)
    assert (recovered.mode, recovered.peak_equity_usd) == (Mode.REDUCE_ONLY, 123.5)
    assert (recovered.day, recovered.day_equity_usd) == (20_000, 99.5)
    assert (again.checkpoint("forecast"), again.checkpoint("other")) == (b"\x00\x01", None)
    again.close()


def test_a_decision_can_be_read_back(ledger):
    epoch = ledger.next_epoch()
    ledger.write(Batch(decisions=[record(5, equity_usd=math.nan)]), UNIVERSE, NOW)
    ((kept_epoch, seq, text),) = rows(ledger, "SELECT epoch, seq, json FROM decisions")
    told = msgspec.json.decode(text)
    assert (kept_epoch, seq, told["seq"], told["notes"]) == (epoch, 5, 5, ["a note"])
    assert told["equity_usd"] is None


def test_only_a_change_of_parameters_is_a_row(ledger):
    for number, parameters in enumerate(["{1}", "{1}", "{2}", "{1}"]):
        ledger.next_epoch()
        ledger.start_run(f"run-{number}", NOW, parameters)
    ledger.write(Batch(parameters="{3}"), UNIVERSE, NOW)
    kept = rows(ledger, "SELECT json FROM parameters ORDER BY id")
    assert kept == [("{1}",), ("{2}",), ("{1}",), ("{3}",)]
    assert len(rows(ledger, "SELECT * FROM runs")) == 4


def test_a_pools_latest_report_is_kept_and_nan_is_null(ledger):
    for cash in (1.0, 2.0):
        pool = PoolReport("BTC", 3.0, cash, math.nan, 0.0)
        ledger.write(Batch(pools={(1, "BTC"): pool}), UNIVERSE, NOW)
    kept = rows(ledger, "SELECT account, currency, equity, cash, initial_margin FROM pools")
    assert kept == [("deribit/other", "BTC", 3.0, 2.0, None)]


def test_a_written_batch_is_empty_and_an_empty_one_writes_nothing(ledger):
    batch = Batch(intents=[order(1)], fills=[booked("a")], peak_equity_usd=1.0, parameters="{}")
    batch.checkpoints["a"] = b"b"
    assert batch
    ledger.write(batch, UNIVERSE, NOW)
    assert not batch
    assert batch == Batch()
    before = ledger.path.with_name("ledger.sqlite-wal").stat().st_size
    ledger.write(batch, UNIVERSE, NOW)
    assert ledger.path.with_name("ledger.sqlite-wal").stat().st_size == before


def test_an_epoch_is_above_all_seen_and_on_disk(ledger):
    first = ledger.next_epoch()
    second = ledger.next_epoch(at_least=first + 100)
    assert second > first + 100
    again = reopened(ledger)
    assert again.next_epoch() > second
    again.close()


def test_a_lost_ledger_repeats_no_epoch_of_an_earlier_minute(path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_770_000_000.0)
    ledger = Ledger.open(path)
    before = [ledger.next_epoch() for _ in range(3)]
    ledger.close()
    for file in path.parent.iterdir():
        file.unlink()
    monkeypatch.setattr("time.time", lambda: 1_770_000_300.0)
    fresh = Ledger.open(path)
    assert fresh.next_epoch() > max(before)
    fresh.close()


def test_an_epoch_beyond_five_digits_is_refused(ledger):
    with pytest.raises(LedgerError, match="five base-32 digits"):
        ledger.next_epoch(at_least=32**5 - 1)


# --- who may hold it, and care -----------------------------------------------------------------------------


def test_every_commit_waits_for_the_disk(ledger):
    # Only a power cut could show the difference: 2 is FULL.
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_directory_and_the_files_are_private(path):
    previous = os.umask(0)
    try:
        ledger = Ledger.open(path)
        ledger.next_epoch()
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
        ledger.close()
    finally:
        os.umask(previous)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert modes.keys() >= {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite.lock"}
    assert set(modes.values()) == {0o600}


def test_a_second_instance_is_told_who_holds_it(ledger):
    with pytest.raises(LedgerError, match=f"held by process {os.getpid()}"):
        Ledger.open(ledger.path)
    script = "import sys, pathlib; from dea_daemon.shell.ledger import Ledger; Ledger.open(pathlib.Path(sys.argv[1]))"
    other = subprocess.run(
        [sys.executable, "-c", script, str(ledger.path)], capture_output=True, text=True, check=False
    )
    assert other.returncode == 1
    assert f"held by process {os.getpid()}" in other.stderr


def test_closing_lets_the_next_one_in(ledger):
    again = reopened(ledger)
    again.close()
    again.close()  # twice is no harm


def test_a_failed_opening_keeps_no_lock(path):
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(LedgerError, match="not a database"):
        Ledger.open(path)
    path.unlink()
    Ledger.open(path).close()


def test_somebody_elses_database_is_refused(path):
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(LedgerError, match="not a ledger"):
        Ledger.open(path)


def test_a_backup_is_whole_and_taken_while_writing(ledger, tmp_path):
    to = tmp_path / "copy.sqlite"
    ledger.write(Batch(intents=[order(n) for n in range(500)]), UNIVERSE, NOW)
    thread = threading.Thread(target=ledger.backup, args=(to,))
    thread.start()
    for n in range(500, 600):
        ledger.write(Batch(intents=[order(n)]), UNIVERSE, NOW)
    thread.join()
    assert to.stat().st_mode & 0o777 == 0o600
    copy = Ledger.open(to)
    copy.check()
    assert 500 <= len(copy.recover(UNIVERSE, NOW).restored) <= 600
    copy.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.sqlite", "copy.sqlite.lock", "state"]


def test_a_backup_that_fails_leaves_the_last_one(ledger, tmp_path):
    to = tmp_path / "none" / "copy.sqlite"
    with pytest.raises(LedgerError, match="backup"):
        ledger.backup(to)


def test_tidying_leaves_the_next_writes_no_log_to_copy(ledger):
    for n in range(50):
        ledger.write(Batch(intents=[order(n)]), UNIVERSE, NOW)
    size = ledger.path.with_name("ledger.sqlite-wal").stat().st_size
    thread = threading.Thread(target=ledger.tidy)
    thread.start()
    thread.join()
    for n in range(50, 90):
        ledger.write(Batch(intents=[order(n)]), UNIVERSE, NOW)
    assert ledger.path.with_name("ledger.sqlite-wal").stat().st_size == size  # the log started over
    assert len(ledger.recover(UNIVERSE, NOW).restored) == 90


# --- migrations ------------------------------------------------------------------------------------------


def old_ledger(path) -> sqlite3.Connection:
    """Schema 1, as the first release wrote it, with an order in it."""
    path.parent.mkdir(exist_ok=True)
    db = sqlite3.connect(path, isolation_level=None)
    migrate(db, MIGRATIONS[:1])
    db.execute(
        "INSERT INTO intents VALUES ('d0000007000000a1', 7, 1, 'deribit/main', 'BTC-PERPETUAL', '10', '0.5',"
        " 'buy', 10, 100001, 'gtc', 1, 0, 99, 98)"
    )
    db.execute("INSERT INTO order_states VALUES ('d0000007000000a1', 'open', 'v1', 2, 3, '', 0, 97)")
    db.execute("INSERT INTO meta VALUES ('epoch', 7)")
    return db


def test_a_ledger_of_schema_1_opens_in_this_release(path):
    old_ledger(path).close()
    ledger = Ledger.open(path)
    ledger.check()
    (restored,) = ledger.recover(UNIVERSE, NOW).restored
    assert (restored.client_order_id, restored.venue_order_id, restored.lots) == ("d0000007000000a1", "v1", 10)
    assert ledger.next_epoch() > 7
    ledger.close()


def test_a_migration_step_keeps_what_is_there(path):
    db = old_ledger(path)
    steps = (*MIGRATIONS, ("ALTER TABLE intents ADD COLUMN strategy TEXT NOT NULL DEFAULT ''",))
    migrate(db, steps)
    migrate(db, steps)  # a second time is nothing
    assert db.execute("SELECT client_order_id, strategy FROM intents").fetchall() == [("d0000007000000a1", "")]
    assert db.execute("PRAGMA user_version").fetchone() == (len(steps),)
    db.close()


def test_a_migration_that_fails_changes_nothing(path):
    db = old_ledger(path)
    steps = (*MIGRATIONS, ("ALTER TABLE intents ADD COLUMN strategy TEXT", "ALTER TABLE nowhere ADD COLUMN x"))
    with pytest.raises(sqlite3.OperationalError):
        migrate(db, steps)
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert "strategy" not in [row[1] for row in db.execute("PRAGMA table_info(intents)")]
    db.close()


def test_a_ledger_of_a_newer_release_is_refused(path):
    db = old_ledger(path)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(LedgerError, match="newer release"):
        Ledger.open(path)


def test_how_forecasters_stood_comes_back_and_what_cannot_be_read_is_no_licence(ledger):
    """A demotion that is forgotten would trade again."""
    kept = Kept((Standing("ridge_1d", 0.0, "the trial", "its loss has drifted", 5),), (Court("1d", "", (Track("x"),)),))
    assert ledger.recover(UNIVERSE, NOW).kept == Kept()
    ledger.write(Batch(checkpoints={KEPT: msgspec.msgpack.encode(kept)}), UNIVERSE, NOW)
    assert ledger.recover(UNIVERSE, NOW).kept == kept
    ledger.write(Batch(checkpoints={KEPT: b"\xc1"}), UNIVERSE, NOW)
    with pytest.raises(LedgerError, match="ruled of forecasters"):
        ledger.recover(UNIVERSE, NOW)
