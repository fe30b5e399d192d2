"""What the last measured orders cost, from the ledger: so that the next run need not learn it again."""

import sqlite3

from dea_daemon.domain.lessons import CostLesson

LESSONS_MOST = 5_000  # of all, shared by those that trade alike
RECENT = 1_000  # of those that trade alike; older ones weigh an eighth together, and of them one an hour will do
_COLUMNS = frozenset({"beyond_usd", "day_vol_bp"})  # of orders measured by an earlier release nobody knows them
_LAST = """WITH known AS (
    SELECT ended_ns, account, shortfalls.underlying AS underlying, kind, placed, asked_usd, filled_usd, beyond_usd,
        day_vol_bp, client_order_id,
        row_number() OVER (PARTITION BY account, shortfalls.underlying, kind ORDER BY ended_ns DESC) AS age,
        row_number() OVER (PARTITION BY account, shortfalls.underlying, kind, ended_ns / 3600000000000
            ORDER BY ended_ns DESC) AS of_hour
    FROM shortfalls JOIN instruments USING (account, instrument)
    WHERE beyond_usd IS NOT NULL AND day_vol_bp IS NOT NULL AND asked_usd IS NOT NULL AND filled_usd IS NOT NULL),
    taken AS (
    SELECT *, row_number() OVER (PARTITION BY account, underlying, kind ORDER BY age) AS turn
    FROM known WHERE age <= ? OR of_hour = 1 ORDER BY turn, ended_ns DESC LIMIT ?)
    SELECT ended_ns, account, underlying, kind, placed, asked_usd, filled_usd, beyond_usd, day_vol_bp
    FROM taken ORDER BY ended_ns, client_order_id"""


def last_lessons(db: sqlite3.Connection, most: int = LESSONS_MOST) -> tuple[CostLesson, ...]:
    """The newest of each account, underlying and kind, oldest of all first: who trades rarely must not be forgotten for
    who trades often, nor what is told begin again at nothing after a busy day. Raises sqlite3.Error."""
    if not {name for _, name, *_ in db.execute("PRAGMA table_info(shortfalls)")} >= _COLUMNS:
        return ()
    return tuple(CostLesson(*row) for row in db.execute(_LAST, (RECENT, most)))
