"""What measured orders teach outlives the run in the ledger."""

import sqlite3
from contextlib import closing

import pytest

from dea_daemon.domain.lessons import CostLesson
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.domain.parameters import ExecutionParameters
from dea_daemon.execution.estimates import Estimates
from dea_daemon.execution.shortfall import Shortfall
from dea_daemon.shell.cost_lessons import last_lessons
from dea_daemon.shell.ledger import Batch, Ledger
from dea_daemon.shell.ledger_schema import migrate
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


def traded(*groups):
    """A ledger whose every (underlying, orders a day, days until now) cost 8 bp beyond what is configured."""
    db = sqlite3.connect(":memory:")
    migrate(db)
    for underlying, a_day, days in groups:
        db.execute(
            "INSERT INTO instruments VALUES ('a', ?, 'perpetual', '', ?, '', '', '1', '1', '1', 0)", [underlying] * 2
        )
        every_ns = NS_PER_DAY // a_day
        db.executemany(
            "INSERT INTO shortfalls (client_order_id, account, instrument, underlying, side, placed, decided_ns, "
            "sent_ns, ended_ns, lots, filled_lots, asked_usd, filled_usd, beyond_usd, day_vol_bp) "
            "VALUES (?, 'a', ?, ?, 'buy', 'cross', 0, 0, ?, 1, 1, 8e3, 8e3, 6.4, 300.0)",
            [(f"{underlying}{n}", underlying, underlying, NOW - n * every_ns) for n in range(a_day * days)],
        )
    return db


def told_bp(db):
    """By underlying, what the allocator is told after a restart."""
    estimates = Estimates()
    estimates.recall(last_lessons(db), NOW, ExecutionParameters())
    return {key[1]: known.told_bp for key, known in estimates.by_key.items()}


def test_who_trades_often_does_not_make_forget_who_trades_rarely():
    assert told_bp(traded(("ETH", 10, 60), ("BTC", 200, 60)))["ETH"] == pytest.approx(
        told_bp(traded(("ETH", 10, 60)))["ETH"]
    )


def test_after_busy_days_what_is_told_does_not_begin_again_at_nothing():
    assert told_bp(traded(("BTC", 2_500, 12)))["BTC"] > 7.0  # the last 5,000 are of two days, worth a fifth of the cap
