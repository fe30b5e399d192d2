"""Copying, checking and shrinking a ledger, and taking over one that the first release wrote."""

import sqlite3
import threading
import typing
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from click.testing import CliRunner

from dea_daemon.cli import cli
from dea_daemon.domain.errors import DataError, LedgerError
from dea_daemon.domain.events import Settlement
from dea_daemon.domain.modes import Mode
from dea_daemon.execution.shortfall import Shortfall
from dea_daemon.shell import ledger_care
from dea_daemon.shell.ledger import Batch, Ledger
from dea_daemon.shell.ledger_care import backup, check, vacuum
from dea_daemon.shell.ledger_schema import MIGRATIONS, migrate
from dea_daemon.shell.statement import statement
from tests.shell.ledger_samples import HOUR, NOW, UNIVERSE, S, booked, order, record

# What release 0.1.0 made, word for word: never edited, whatever becomes of ledger_schema.
RELEASE_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE runs (
    epoch INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, started_utc_ns INTEGER NOT NULL,
    version TEXT NOT NULL) STRICT;
CREATE TABLE parameters (
    id INTEGER PRIMARY KEY, ts_ns INTEGER NOT NULL, hash TEXT NOT NULL, json TEXT NOT NULL) STRICT;
CREATE TABLE intents (
    client_order_id TEXT PRIMARY KEY, epoch INTEGER NOT NULL, cause_seq INTEGER NOT NULL,
    account TEXT NOT NULL, instrument TEXT NOT NULL, lot_size TEXT NOT NULL, tick_size TEXT NOT NULL,
    side TEXT NOT NULL, lots INTEGER NOT NULL, price_ticks INTEGER NOT NULL,
    time_in_force TEXT NOT NULL, post_only INTEGER NOT NULL, reduce_only INTEGER NOT NULL,
    valid_until_ms INTEGER NOT NULL, created_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE order_states (
    client_order_id TEXT PRIMARY KEY REFERENCES intents, state TEXT NOT NULL,
    venue_order_id TEXT NOT NULL, filled_lots INTEGER NOT NULL, venue_filled_lots INTEGER NOT NULL,
    reason TEXT NOT NULL, settled INTEGER NOT NULL, ts_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX orders_unsettled ON order_states (client_order_id) WHERE settled = 0;
CREATE TABLE fills (
    account TEXT NOT NULL, trade_id TEXT NOT NULL, ts_ns INTEGER NOT NULL,
    ts_recv_ns INTEGER NOT NULL, instrument TEXT NOT NULL, lot_size TEXT NOT NULL,
    tick_size TEXT NOT NULL, venue_order_id TEXT NOT NULL, client_order_id TEXT NOT NULL,
    side TEXT NOT NULL, lots INTEGER NOT NULL, price_ticks INTEGER NOT NULL, fee REAL,
    fee_currency TEXT NOT NULL, is_maker INTEGER NOT NULL, turnover_usd REAL, fee_usd REAL,
    PRIMARY KEY (account, trade_id)) STRICT, WITHOUT ROWID;
CREATE INDEX fills_by_time ON fills (ts_ns);
CREATE TABLE pools (
    account TEXT NOT NULL, currency TEXT NOT NULL, ts_ns INTEGER NOT NULL, equity REAL, cash REAL,
    initial_margin REAL, maintenance_margin REAL,
    PRIMARY KEY (account, currency)) STRICT, WITHOUT ROWID;
CREATE TABLE modes (
    id INTEGER PRIMARY KEY, ts_ns INTEGER NOT NULL, mode INTEGER NOT NULL,
    why TEXT NOT NULL) STRICT;
CREATE TABLE decisions (
    epoch INTEGER NOT NULL, seq INTEGER NOT NULL, ts_ns INTEGER NOT NULL, json TEXT NOT NULL,
    PRIMARY KEY (epoch, seq)) STRICT;
CREATE TABLE checkpoints (
    key TEXT PRIMARY KEY, ts_ns INTEGER NOT NULL, data BLOB NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA application_id = 233495264;
PRAGMA user_version = 1;
"""
ROWS_1 = """
INSERT INTO meta VALUES ('epoch', 7), ('peak_equity_usd', 1234.5);
INSERT INTO runs VALUES (7, 'ab12', 5, '0.1.0');
INSERT INTO intents VALUES ('d0000007000000a1', 7, 1, 'deribit/main', 'BTC-PERPETUAL', '10', '0.5',
    'buy', 10, 100001, 'gtc', 1, 0, 1770000000000, @NOW);
INSERT INTO order_states VALUES ('d0000007000000a1', 'open', 'v1', 2, 3, '', 0, @NOW);
INSERT INTO fills VALUES ('deribit/main', 't1', @NOW, @NOW, 'BTC-PERPETUAL', '10', '0.5', 'v1', 'd1', 'buy',
    2, 100000, 0.1, 'BTC', 1, 20.0, 0.5);
INSERT INTO modes VALUES (1, 4, 3, 'operator: unsure');
INSERT INTO decisions VALUES (7, 1, 5, '{}');
""".replace("@NOW", str(NOW))

# What the second schema added, word for word, likewise.
RELEASE_2 = """
CREATE TABLE instruments (
    account TEXT NOT NULL, instrument TEXT NOT NULL, kind TEXT NOT NULL, payoff TEXT NOT NULL,
    underlying TEXT NOT NULL, quote_currency TEXT NOT NULL, settle_currency TEXT NOT NULL,
    contract_size TEXT NOT NULL, lot_size TEXT NOT NULL, tick_size TEXT NOT NULL,
    expiry_ns INTEGER NOT NULL, PRIMARY KEY (account, instrument)) STRICT, WITHOUT ROWID;
CREATE TABLE pool_history (
    ts_ns INTEGER NOT NULL, account TEXT NOT NULL, currency TEXT NOT NULL, equity REAL, cash REAL,
    session_funding REAL, closing INTEGER NOT NULL,
    PRIMARY KEY (ts_ns, account, currency)) STRICT, WITHOUT ROWID;
CREATE TABLE adoptions (
    account TEXT NOT NULL, ts_ns INTEGER NOT NULL, positions TEXT NOT NULL,
    PRIMARY KEY (account, ts_ns)) STRICT, WITHOUT ROWID;
CREATE INDEX fills_by_receipt ON fills (ts_recv_ns);
PRAGMA user_version = 2;
"""
ROWS_2 = """
INSERT INTO instruments VALUES ('deribit/main', 'BTC-PERPETUAL', 'perpetual', 'inverse', 'BTC', 'USD', 'BTC', '1',
    '10', '0.5', 0);
INSERT INTO adoptions VALUES ('deribit/main', @BEFORE, '{"BTC-PERPETUAL": ["100", 50000.0]}');
INSERT INTO pool_history VALUES (@BEFORE, 'deribit/main', 'BTC', 1.0, 1.0, 0.0, 0);
INSERT INTO pool_history VALUES (@AFTER, 'deribit/main', 'BTC', 0.9, 0.9, 0.0, 1);
""".replace("@BEFORE", str(NOW - HOUR)).replace("@AFTER", str(NOW + HOUR))
# And what the third did.
RELEASE_3 = """
CREATE TABLE settlements (
    account TEXT NOT NULL, instrument TEXT NOT NULL, ts_ns INTEGER NOT NULL, recorded_ns INTEGER NOT NULL,
    lots INTEGER NOT NULL, lot_size TEXT NOT NULL, price REAL, profit REAL, currency TEXT NOT NULL,
    proof TEXT NOT NULL, PRIMARY KEY (account, instrument)) STRICT, WITHOUT ROWID;
CREATE INDEX settlements_by_time ON settlements (ts_ns);
CREATE TABLE marks (
    day INTEGER NOT NULL, account TEXT NOT NULL, instrument TEXT NOT NULL, ts_ns INTEGER NOT NULL,
    mark_price REAL, PRIMARY KEY (day, account, instrument)) STRICT, WITHOUT ROWID;
PRAGMA user_version = 3;
"""
ROWS_3 = """
INSERT INTO settlements VALUES ('deribit/main', 'BTC-25SEP26', @NOW, @NOW, 10, '10', 60000.0, 0.25, 'BTC',
    'venue record');
INSERT INTO marks VALUES (20000, 'deribit/main', 'BTC-27NOV26-65000-P', @NOW, 0.04);
""".replace("@NOW", str(NOW))


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger.open(tmp_path / "ledger.sqlite")
    opened.write(Batch(intents=[order(1)], decisions=[record(1)], fills=[booked("t1")]), UNIVERSE, NOW)
    yield opened
    opened.close()


def run(*arguments):
    return CliRunner().invoke(cli, ["ledger", *map(str, arguments)])


def mode_of(path):
    return oct(path.stat().st_mode & 0o777)


# --- copying ------------------------------------------------------------------------------------------------


def test_a_copy_is_whole_though_another_thread_writes_all_the_while(ledger, tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_care, "PAGES_AT_ONCE", 1)
    ledger.write(Batch(intents=[order(n, reason="x" * 400) for n in range(2, 2_000)]), UNIVERSE, NOW)
    told: list[int] = []
    copied: list[bool] = []

    def copy():
        backup(ledger.path, tmp_path / "copy.sqlite", told.append)
        copied.append(True)

    thread = threading.Thread(target=copy)
    thread.start()
    number = 2_000
    while thread.is_alive():
        ledger.write(Batch(intents=[order(number)]), UNIVERSE, NOW)
        number += 1
    thread.join()
    assert copied and number > 2_001
    assert sum(told) > 100
    found = check(tmp_path / "copy.sqlite")
    assert 1_999 <= found.rows["intents"] <= number - 1
    assert mode_of(tmp_path / "copy.sqlite") == "0o600"


def test_a_copy_onto_the_ledger_itself_is_refused(ledger):
    with pytest.raises(LedgerError, match="the ledger itself"):
        backup(ledger.path, ledger.path.parent / "." / "ledger.sqlite")
    assert check(ledger.path).rows["intents"] == 1


def test_a_copy_of_nothing_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        backup(tmp_path / "none.sqlite", tmp_path / "copy.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_the_command_copies_beside_a_running_daemon_into_a_directory(ledger, tmp_path):
    (tmp_path / "backups").mkdir()
    done = run("backup", "--ledger", tmp_path, tmp_path / "backups")
    assert done.exit_code == 0, done.output
    (copy,) = (tmp_path / "backups").iterdir()
    assert copy.name.startswith("ledger-20") and "a whole copy" in done.output
    restored = Ledger.open(copy)
    assert len(restored.recover(UNIVERSE, NOW).restored) == 1
    restored.close()


# --- checking -----------------------------------------------------------------------------------------------


def test_a_whole_ledger_is_told_by_table_while_it_is_held(ledger, tmp_path):
    done = run("check", "--ledger", ledger.path)
    assert done.exit_code == 0 and "whole" in done.output
    assert any(line.split() == ["fills", "1"] for line in done.output.splitlines())


def test_a_damaged_ledger_is_exit_65(ledger):
    ledger.write(Batch(intents=[order(n, reason="x" * 400) for n in range(2, 200)]), UNIVERSE, NOW)
    ledger.close()
    data = bytearray(ledger.path.read_bytes())
    data[3 * 4096 : 20 * 4096] = bytes(17 * 4096)
    ledger.path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        check(ledger.path)
    assert run("check", "--ledger", ledger.path).exit_code == 65


def test_what_is_no_ledger_is_said_to_be_none(tmp_path):
    assert run("check", "--ledger", tmp_path / "none.sqlite").exit_code == 66
    assert run("check").exit_code == 64
    sqlite3.connect(tmp_path / "other.sqlite").execute("CREATE TABLE t (x)").connection.close()
    done = run("check", "--ledger", tmp_path / "other.sqlite")
    assert done.exit_code == 65 and "not a ledger" in done.output


# --- shrinking ----------------------------------------------------------------------------------------------


def test_shrinking_waits_for_the_daemon_to_end(ledger):
    done = run("vacuum", "--ledger", ledger.path)
    assert done.exit_code == 75 and "held by process" in done.output
    ledger.close()
    assert run("vacuum", "--ledger", ledger.path).exit_code == 0


def test_shrinking_forgets_old_decisions_but_the_last_and_nothing_else(ledger):
    old = [record(n, ts_recv_ns=NOW, notes=("x" * 2_000,)) for n in range(2, 500)]
    ledger.write(Batch(decisions=old), UNIVERSE, NOW)
    ledger.close()
    kept = vacuum(ledger.path, None)
    assert kept.pruned == 0
    done = vacuum(ledger.path, 1.0)
    assert done.pruned == 498 and done.after < done.before / 3
    rows = check(ledger.path).rows
    assert (rows["decisions"], rows["intents"], rows["fills"]) == (1, 1, 1)
    Ledger.open(ledger.path).close()  # the lock was let go


# --- a ledger of the first release --------------------------------------------------------------------------


def released(path, *more):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    for script in (RELEASE_1, ROWS_1, *more):
        db.executescript(script)
    db.close()
    return path


def test_a_ledger_of_the_first_release_opens_with_all_it_held(tmp_path):
    path = released(tmp_path / "ledger.sqlite")
    ledger = Ledger.open(path)
    found = ledger.recover(UNIVERSE, NOW + HOUR // 2)
    (restored,) = found.restored
    assert (restored.venue_order_id, restored.lots, restored.filled_lots) == ("v1", 10, 2)
    assert (found.mode, found.mode_why, found.peak_equity_usd) == (Mode.HALTED, "operator: unsure", 1234.5)
    assert found.fills_seen == ((0, "t1"),) and found.hour_turnover_usd == 20.0
    assert ledger.next_epoch() > 7
    ledger.write(Batch(intents=[order(9)], fills=[booked("t2")]), UNIVERSE, NOW)
    ledger.close()
    assert check(path).rows["fills"] == 2


def test_before_a_migration_the_old_ledger_is_set_aside_once(tmp_path):
    path = released(tmp_path / "ledger.sqlite")
    Ledger.open(path).close()
    aside = tmp_path / "ledger.sqlite.before-5"
    assert check(aside).schema == 1 and check(aside).rows["intents"] == 1
    assert mode_of(aside) == "0o600"
    before = aside.read_bytes()
    Ledger.open(path).close()
    assert aside.read_bytes() == before
    assert not any(".part" in file.name for file in tmp_path.iterdir())


def test_a_ledger_of_the_second_schema_opens_with_all_it_held_and_takes_deliveries(tmp_path):
    path = released(tmp_path / "ledger.sqlite", RELEASE_2, ROWS_2)
    day = datetime.fromtimestamp(NOW / 1e9, UTC).date()
    before = statement(path, day)
    ledger = Ledger.open(path)
    found = ledger.recover(UNIVERSE, NOW + HOUR // 2)
    assert len(found.restored) == 1 and found.fills_seen == ((0, "t1"),) and found.settled == ()
    assert statement(path, day) == before and before.contracts[0].fills == 1
    ended = Settlement(0, 0, NOW, 10, 60_000.0, 0.25, "BTC")
    ledger.write(Batch(settlements=[(ended, "venue record")]), UNIVERSE, NOW + S)
    assert ledger.recover(UNIVERSE, NOW + S).settled == ((0, "BTC-PERPETUAL"),)
    ledger.close()
    assert statement(path, day).pools[0].settled == Decimal("0.25")
    aside = check(tmp_path / "ledger.sqlite.before-5")
    assert aside.schema == 2 and "settlements" not in aside.rows and check(path).schema == 5


def test_a_ledger_of_the_third_schema_opens_with_all_it_held_and_takes_costs(tmp_path):
    path = released(tmp_path / "ledger.sqlite", RELEASE_2 + RELEASE_3, ROWS_2 + ROWS_3)
    assert check(path).schema == 3 and "shortfalls" not in check(path).rows
    ledger = Ledger.open(path)
    found = ledger.recover(UNIVERSE, NOW + HOUR // 2)
    assert len(found.restored) == 1 and found.settled == ((0, "BTC-25SEP26"),)
    ledger.write(Batch(measured=[_measured("d0000007000000a1")]), UNIVERSE, NOW + S)
    ledger.close()
    assert check(path).rows["shortfalls"] == 1 and check(path).rows["marks"] == 1
    assert check(tmp_path / "ledger.sqlite.before-5").schema == 3


def _measured(client_order_id):
    """What `order.measured` tells of an order of which next to nothing is known."""
    kinds = typing.get_type_hints(Shortfall)
    unknown = {name: {str: "", int: 0, float: float("nan")}[kinds[name]] for name in Shortfall.__struct_fields__}
    return unknown | {"client_order_id": client_order_id, "beyond_usd": float("nan"), "day_vol_bp": float("nan")}


def test_a_ledger_of_the_fourth_schema_teaches_nothing_and_learns(tmp_path):
    """Orders that an earlier release measured lack what is learned from; those measured from now on have it."""
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as db:
        migrate(db, MIGRATIONS[:4])
        names = [*_measured("d0000007000000a1")][:-2]
        places = ", ".join("?" * len(names))
        values = [_measured("d0000007000000a1")[name] for name in names]
        db.execute(f"INSERT INTO shortfalls ({', '.join(names)}) VALUES ({places})", values)  # noqa: S608
    db.close()
    ledger = Ledger.open(path)
    assert ledger.recover(UNIVERSE, NOW).lessons == ()
    row = UNIVERSE.instruments[0]
    known = {"account": str(UNIVERSE.accounts[0]), "instrument": row.name, "underlying": row.underlying}
    figures = {"asked_usd": 100.0, "filled_usd": 100.0, "beyond_usd": 0.2, "day_vol_bp": 300.0, "placed": "cross"}
    ledger.write(Batch(intents=[order(1)], measured=[_measured("d0000007000000a2") | known | figures]), UNIVERSE, NOW)
    (lesson,) = ledger.recover(UNIVERSE, NOW).lessons
    assert (lesson.beyond_usd, lesson.day_vol_bp, lesson.placed) == (0.2, 300.0, "cross")
    ledger.close()


def test_the_tables_of_a_migrated_ledger_are_those_of_a_new_one(tmp_path, ledger):
    path = released(tmp_path / "old.sqlite", RELEASE_2, ROWS_2)
    Ledger.open(path).close()

    def columns(file):
        with sqlite3.connect(file) as db:
            tables = db.execute("SELECT type, name FROM sqlite_schema ORDER BY type, name").fetchall()
            found = [(*table, db.execute(f"PRAGMA table_xinfo({table[1]})").fetchall()) for table in tables]
        db.close()
        return found

    assert columns(path) == columns(ledger.path)


def test_a_new_ledger_sets_nothing_aside(ledger):
    assert not any("before" in file.name for file in ledger.path.parent.iterdir())


def test_a_newer_ledger_is_refused_by_every_reader_that_would_change_it(ledger):
    ledger.close()
    with sqlite3.connect(ledger.path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(LedgerError, match="newer release"):
        Ledger.open(ledger.path)
    with pytest.raises(DataError, match="newer release"):
        vacuum(ledger.path, None)


def test_a_ledger_not_migrated_yet_still_tells_what_it_can(tmp_path):
    path = released(tmp_path / "ledger.sqlite")
    assert "begin with the next run" in statement(path, date(2026, 2, 2)).notes[0]
    assert check(path).schema == 1
