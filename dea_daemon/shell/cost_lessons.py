"""What the last measured orders cost, from the ledger: so that the next run need not learn it again."""

import sqlite3

from dea_daemon.domain.lessons import CostLesson

LESSONS_MOST = 5_000  # an order counts for half after 350 others: what is older says nothing
_COLUMNS = frozenset({"beyond_usd", "day_vol_bp"})  # of orders measured by an earlier release nobody knows them
_LAST = """SELECT ended_ns, account, shortfalls.underlying, kind, placed, asked_usd, filled_usd, beyond_usd, day_vol_bp
    FROM shortfalls JOIN instruments USING (account, instrument)
    WHERE beyond_usd IS NOT NULL AND day_vol_bp IS NOT NULL AND asked_usd IS NOT NULL AND filled_usd IS NOT NULL
    ORDER BY ended_ns DESC LIMIT ?"""


def last_lessons(db: sqlite3.Connection, most: int = LESSONS_MOST) -> tuple[CostLesson, ...]:
    """The newest, oldest of them first. Raises sqlite3.Error."""
    if not {name for _, name, *_ in db.execute("PRAGMA table_info(shortfalls)")} >= _COLUMNS:
        return ()
    return tuple(CostLesson(*row) for row in reversed(db.execute(_LAST, (most,)).fetchall()))
