"""What measured orders teach outlives the run in the ledger."""

import sqlite3
from contextlib import closing

import pytest

from dea_daemon.domain.lessons import CostLesson
from dea_daemon.execution.shortfall import Shortfall
from dea_daemon.shell.cost_lessons import last_lessons
from dea_daemon.shell.ledger import Batch, Ledger
from tests.shell.ledger_samples import NOW, UNIVERSE, S

NAN = float("nan")
COLUMNS = ("beyond_usd", "day_vol_bp")


@pytest.fixture
def ledger(tmp_path):
    with closing(Ledger.open(tmp_path / "ledger.sqlite")) as opened:
        opened.next_epoch()
        opened.start_run("run", NOW, "{}")
        yield opened


def with_columns(db):
    """As a ledger is that knows what orders taught."""
    there = {name for _, name, *_ in db.execute("PRAGMA table_info(shortfalls)")}
    for name in COLUMNS:
        if name not in there:
            db.execute(f"ALTER TABLE shortfalls ADD COLUMN {name} REAL")


def measured(ledger, number, **changes):
    """One order in the ledger, and what it taught."""
    fields = dict.fromkeys(Shortfall.__struct_fields__, NAN) | {
        "client_order_id": f"d0000007{number:08}", "account": "deribit/main", "instrument": "BTC-PERPETUAL",
        "underlying": "BTC", "side": "buy", "placed": "cross", "decided_ns": NOW, "sent_ns": NOW,
        "ended_ns": NOW + number * S, "lots": 10, "filled_lots": 10, "asked_usd": 100.0, "filled_usd": 90.0,
    }  # fmt: skip
    taught = {"beyond_usd": 0.01 * number, "day_vol_bp": 300.0} | changes
    ledger.write(Batch(measured=[fields | taught]), UNIVERSE, NOW)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as db:
        with_columns(db)
        row = (taught["beyond_usd"], taught["day_vol_bp"], fields["client_order_id"])
        db.execute("UPDATE shortfalls SET beyond_usd = ?, day_vol_bp = ? WHERE client_order_id = ?", row)


def read(ledger, **options):
    with closing(sqlite3.connect(ledger.path)) as db:
        return last_lessons(db, **options)


def test_the_last_orders_are_told_oldest_first(ledger):
    for number in (3, 1, 2, 4):
        measured(ledger, number)
    told = read(ledger, most=3)
    assert [lesson.ended_ns for lesson in told] == [NOW + number * S for number in (2, 3, 4)]
    assert told[0] == CostLesson(NOW + 2 * S, "deribit/main", "BTC", "perpetual", "cross", 100.0, 90.0, 0.02, 300.0)


def test_orders_of_which_it_is_not_known_are_left_out(ledger):
    measured(ledger, 1)
    measured(ledger, 2, beyond_usd=None)
    measured(ledger, 3, day_vol_bp=None)
    assert [lesson.ended_ns for lesson in read(ledger)] == [NOW + S]


def test_a_ledger_of_an_earlier_release_teaches_nothing(ledger):
    measured(ledger, 1)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as db:
        for name in COLUMNS:
            db.execute(f"ALTER TABLE shortfalls DROP COLUMN {name}")
    assert read(ledger) == ()
