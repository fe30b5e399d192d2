"""The ledger's tables, as the steps that led to them.

A released step is never edited: a change is a new step at the end. `PRAGMA user_version` counts the steps a
file has seen. Accounts are "venue/account" and instruments their names, as row numbers mean something in one
run only; lots and ticks stand beside the sizes they count. Times are ns UTC. A float that was NaN is NULL.
`adoptions.positions` is JSON: {instrument: [amount as text, entry price]}; what it does not name is flat.
`settlements.ts_ns` is the venue's time of the delivery, price in USD, profit the cash it moved. `marks` holds each
UTC day's last one of an instrument, in its quote currency; `day` counts from 1970-01-01. `shortfalls` is
execution.shortfall.Shortfall, word for word, and what it taught (domain.lessons).
"""

import sqlite3

from dea_daemon.domain.errors import LedgerError

APPLICATION_ID = 0x0DEADAE0  # in the file's header: refuses somebody else's database

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID",
        """CREATE TABLE runs (
            epoch INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, started_utc_ns INTEGER NOT NULL,
            version TEXT NOT NULL) STRICT""",
        """CREATE TABLE parameters (
            id INTEGER PRIMARY KEY, ts_ns INTEGER NOT NULL, hash TEXT NOT NULL, json TEXT NOT NULL) STRICT""",
        """CREATE TABLE intents (
            client_order_id TEXT PRIMARY KEY, epoch INTEGER NOT NULL, cause_seq INTEGER NOT NULL,
            account TEXT NOT NULL, instrument TEXT NOT NULL, lot_size TEXT NOT NULL, tick_size TEXT NOT NULL,
            side TEXT NOT NULL, lots INTEGER NOT NULL, price_ticks INTEGER NOT NULL,
            time_in_force TEXT NOT NULL, post_only INTEGER NOT NULL, reduce_only INTEGER NOT NULL,
            valid_until_ms INTEGER NOT NULL, created_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
        """CREATE TABLE order_states (
            client_order_id TEXT PRIMARY KEY REFERENCES intents, state TEXT NOT NULL,
            venue_order_id TEXT NOT NULL, filled_lots INTEGER NOT NULL, venue_filled_lots INTEGER NOT NULL,
            reason TEXT NOT NULL, settled INTEGER NOT NULL, ts_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
        "CREATE INDEX orders_unsettled ON order_states (client_order_id) WHERE settled = 0",
        """CREATE TABLE fills (
            account TEXT NOT NULL, trade_id TEXT NOT NULL, ts_ns INTEGER NOT NULL,
            ts_recv_ns INTEGER NOT NULL, instrument TEXT NOT NULL, lot_size TEXT NOT NULL,
            tick_size TEXT NOT NULL, venue_order_id TEXT NOT NULL, client_order_id TEXT NOT NULL,
            side TEXT NOT NULL, lots INTEGER NOT NULL, price_ticks INTEGER NOT NULL, fee REAL,
            fee_currency TEXT NOT NULL, is_maker INTEGER NOT NULL, turnover_usd REAL, fee_usd REAL,
            PRIMARY KEY (account, trade_id)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX fills_by_time ON fills (ts_ns)",
        """CREATE TABLE pools (
            account TEXT NOT NULL, currency TEXT NOT NULL, ts_ns INTEGER NOT NULL, equity REAL, cash REAL,
            initial_margin REAL, maintenance_margin REAL,
            PRIMARY KEY (account, currency)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE modes (
            id INTEGER PRIMARY KEY, ts_ns INTEGER NOT NULL, mode INTEGER NOT NULL,
            why TEXT NOT NULL) STRICT""",
        """CREATE TABLE decisions (
            epoch INTEGER NOT NULL, seq INTEGER NOT NULL, ts_ns INTEGER NOT NULL, json TEXT NOT NULL,
            PRIMARY KEY (epoch, seq)) STRICT""",
        """CREATE TABLE checkpoints (
            key TEXT PRIMARY KEY, ts_ns INTEGER NOT NULL, data BLOB NOT NULL) STRICT, WITHOUT ROWID""",
    ),
    (  # 2: what a statement needs: contracts' terms, cash over time, positions that no fill explains
        """CREATE TABLE instruments (
            account TEXT NOT NULL, instrument TEXT NOT NULL, kind TEXT NOT NULL, payoff TEXT NOT NULL,
            underlying TEXT NOT NULL, quote_currency TEXT NOT NULL, settle_currency TEXT NOT NULL,
            contract_size TEXT NOT NULL, lot_size TEXT NOT NULL, tick_size TEXT NOT NULL,
            expiry_ns INTEGER NOT NULL, PRIMARY KEY (account, instrument)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE pool_history (
            ts_ns INTEGER NOT NULL, account TEXT NOT NULL, currency TEXT NOT NULL, equity REAL, cash REAL,
            session_funding REAL, closing INTEGER NOT NULL,
            PRIMARY KEY (ts_ns, account, currency)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE adoptions (
            account TEXT NOT NULL, ts_ns INTEGER NOT NULL, positions TEXT NOT NULL,
            PRIMARY KEY (account, ts_ns)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX fills_by_receipt ON fills (ts_recv_ns)",
    ),
    (  # 3: positions that ended with their contract, once each and how that is known; what open options are worth
        """CREATE TABLE settlements (
            account TEXT NOT NULL, instrument TEXT NOT NULL, ts_ns INTEGER NOT NULL, recorded_ns INTEGER NOT NULL,
            lots INTEGER NOT NULL, lot_size TEXT NOT NULL, price REAL, profit REAL, currency TEXT NOT NULL,
            proof TEXT NOT NULL, PRIMARY KEY (account, instrument)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX settlements_by_time ON settlements (ts_ns)",
        """CREATE TABLE marks (
            day INTEGER NOT NULL, account TEXT NOT NULL, instrument TEXT NOT NULL, ts_ns INTEGER NOT NULL,
            mark_price REAL, PRIMARY KEY (day, account, instrument)) STRICT, WITHOUT ROWID""",
    ),
    (  # 4: what each order cost, a minute after its end
        """CREATE TABLE shortfalls (
            client_order_id TEXT PRIMARY KEY, account TEXT NOT NULL, instrument TEXT NOT NULL,
            underlying TEXT NOT NULL, side TEXT NOT NULL, placed TEXT NOT NULL, decided_ns INTEGER NOT NULL,
            sent_ns INTEGER NOT NULL, ended_ns INTEGER NOT NULL, lots INTEGER NOT NULL, filled_lots INTEGER NOT NULL,
            asked_usd REAL, filled_usd REAL, rest_usd REAL, decision_mid REAL, arrival_mid REAL, price REAL,
            end_mid REAL, delay_usd REAL, impact_usd REAL, spread_usd REAL, fee_usd REAL, opportunity_usd REAL,
            waited_usd REAL, total_usd REAL, markout_1s_usd REAL, markout_10s_usd REAL, markout_60s_usd REAL)
            STRICT, WITHOUT ROWID""",
        "CREATE INDEX shortfalls_by_time ON shortfalls (ended_ns)",
    ),
    (  # 5: what it taught, so that the next run need not learn it again
        "ALTER TABLE shortfalls ADD COLUMN beyond_usd REAL",
        "ALTER TABLE shortfalls ADD COLUMN day_vol_bp REAL",
    ),
)


def is_outdated(connection: sqlite3.Connection) -> bool:
    """Whether this is a ledger of ours that an earlier release wrote, so that `migrate` will change it."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    return bool(application == APPLICATION_ID and version < len(MIGRATIONS))


def migrate(connection: sqlite3.Connection, steps: tuple[tuple[str, ...], ...] = MIGRATIONS) -> None:
    """Bring a file to the newest schema, all or nothing. Raises LedgerError where it is newer or not ours."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application != APPLICATION_ID:
        raise LedgerError("a database, but not a ledger")
    if version > len(steps):
        raise LedgerError(f"schema {version} was written by a newer release; this one knows {len(steps)}")
    if version == len(steps):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in steps[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(steps)}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        connection.execute("ROLLBACK")
        raise
