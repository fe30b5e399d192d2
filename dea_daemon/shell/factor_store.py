"""What slow factors were told, and when: every vintage of every value, in one SQLite file beside the ledger.

Of each vintage: the time it is about, its publication, its receipt, its revision, and from when on it counts as known.
What was received live is known from its receipt (or its publication, if that is later). What the first answer told of
the past is known a margin after its publication: nobody here saw it then, and that it stood like that is an assumption.
It is no part of the ledger: its failure costs a factor, never an order.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from heapq import nlargest
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Self

from dea_daemon.domain.errors import DataError
from dea_daemon.shell.factor_formats import Row

FILE_NAME = "factors.sqlite"  # in the state directory
SCHEMA = 1
VALUES_MOST = 20_000  # of one factor: the oldest go
REVISIONS_MOST = 100  # of one value: a source that goes to and fro must not fill the disk
_CREATE = """CREATE TABLE IF NOT EXISTS vintages (
    name TEXT NOT NULL, event_ns INTEGER NOT NULL, revision INTEGER NOT NULL, publish_ns INTEGER NOT NULL,
    receive_ns INTEGER NOT NULL, known_ns INTEGER NOT NULL, value REAL NOT NULL,
    PRIMARY KEY (name, event_ns, revision)) STRICT, WITHOUT ROWID"""
_COLUMNS = "event_ns, revision, publish_ns, receive_ns, known_ns, value"
_LAST = "SELECT event_ns, max(revision), publish_ns, value FROM vintages WHERE name = ? AND event_ns >= ? GROUP BY 1"
# Beside max() SQLite takes the other columns from the row of the maximum.
_KNOWN = """SELECT event_ns, max(revision), publish_ns, receive_ns, known_ns, value FROM vintages
    WHERE name = ? AND known_ns <= ? GROUP BY event_ns ORDER BY event_ns DESC LIMIT ?"""
_TIMES = "SELECT DISTINCT event_ns FROM vintages WHERE name = ? ORDER BY 1 DESC LIMIT ?"
_TABLE = """SELECT name, count(DISTINCT event_ns), min(event_ns), max(event_ns), sum(revision > 0), max(receive_ns)
    FROM vintages GROUP BY name ORDER BY name"""
_PRUNE = """DELETE FROM vintages WHERE name = ?1 AND event_ns <= (
    SELECT event_ns FROM vintages WHERE name = ?1 GROUP BY event_ns ORDER BY event_ns DESC LIMIT 1 OFFSET ?2)"""


class Vintage(NamedTuple):
    """One value as it was told once; times in ns UTC."""

    event_ns: int
    revision: int
    publish_ns: int
    receive_ns: int
    known_ns: int
    value: float


class Policy(NamedTuple):
    """When a value counts as published where its source does not tell, and whether it may be restated."""

    lag_ns: int
    backfill_lag_ns: int
    restated: bool = True


class Held(NamedTuple):
    """What there is of one factor."""

    name: str
    values: int
    first_ns: int
    last_ns: int
    restated: int
    receive_ns: int


class FactorStore:
    """Thread-safe. All methods raise DataError where the file cannot be read or written."""

    def __init__(self, path: Path | None) -> None:
        """None: in memory, for as long as the run lasts."""
        self._lock = Lock()
        self._where = str(path or ":memory:")
        try:
            self._db = sqlite3.connect(self._where, timeout=5.0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise DataError(f"{self._where}: {error}") from error
        try:
            self._open()
        except (sqlite3.Error, DataError) as error:
            self._db.close()
            raise DataError(f"{self._where}: {error}") from error

    def _open(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA:
            raise DataError(f"schema {version} was written by a newer release; this one knows {SCHEMA}")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(_CREATE)
        self._db.execute(f"PRAGMA user_version = {SCHEMA}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for whoever writes, then close."""
        with self._lock:
            self._db.close()

    def record(self, name: str, rows: Sequence[Row], receive_ns: int, policy: Policy) -> list[Vintage]:
        """Keep what is new in an answer, and return it in order of publication. The first answer is the past.

        What is older than the VALUES_MOST newest is neither kept nor returned."""
        return self._add(name, rows, receive_ns, policy, backfill=self.newest_ns(name) is None)

    def backfill(self, name: str, rows: Iterable[Row], receive_ns: int, policy: Policy) -> list[Vintage]:
        """Keep a past older than everything there is: what is there already was seen, and stays."""
        oldest = next((held.first_ns for held in self.held() if held.name == name), None)
        older = [row for row in rows if oldest is None or row.event_ns < oldest]
        return self._add(name, older, receive_ns, policy, backfill=True)

    def newest_ns(self, name: str) -> int | None:
        """The latest time a value of it is about; None where there is none."""
        ((newest,),) = self._all("SELECT max(event_ns) FROM vintages WHERE name = ?", (name,))
        return newest if newest is None else int(newest)

    def known(self, name: str, at_ns: int, most: int) -> list[Vintage]:
        """The last `most` values, oldest first, each as it was known at `at_ns`: received and published by then."""
        return [Vintage(*row) for row in reversed(self._all(_KNOWN, (name, at_ns, most)))]

    def as_of(self, name: str, at_ns: int) -> Vintage | None:
        """The newest value known at that moment, as it was known."""
        return next(iter(self.known(name, at_ns, 1)), None)

    def unpublished(self, name: str, at_ns: int) -> list[Vintage]:
        """Received, and not public yet: in order of publication."""
        query = f"SELECT {_COLUMNS} FROM vintages WHERE name = ? AND known_ns > ? ORDER BY known_ns"  # noqa: S608 ours
        return [Vintage(*row) for row in self._all(query, (name, at_ns))]

    def vintages(self, name: str) -> list[Vintage]:
        """All there are, by time and revision."""
        query = f"SELECT {_COLUMNS} FROM vintages WHERE name = ? ORDER BY event_ns, revision"  # noqa: S608 ours
        return [Vintage(*row) for row in self._all(query, (name,))]

    def held(self) -> list[Held]:
        """What there is of each factor, by name."""
        return [Held(*row) for row in self._all(_TABLE, ())]

    def flaws(self, name: str) -> list[str]:
        """What cannot be in the records of a factor: anything here would let a test look ahead."""
        kept = self.vintages(name)
        wrong = {
            "known before their publication": sum(vintage.known_ns < vintage.publish_ns for vintage in kept),
            "received before the time they are about": sum(vintage.receive_ns < vintage.event_ns for vintage in kept),
            "restated before they were told": sum(
                after.revision > 0 and after.known_ns < before.known_ns for before, after in pairwise(kept)
            ),
        }
        return [f"{count} {what}" for what, count in wrong.items() if count]

    def _add(self, name: str, rows: Sequence[Row], receive_ns: int, policy: Policy, *, backfill: bool) -> list[Vintage]:
        if not rows:
            return []
        told = self._all(_LAST, (name, min(row.event_ns for row in rows)))
        last = {event_ns: (revision, publish_ns, value) for event_ns, revision, publish_ns, value in told}
        new = []
        for row in sorted(rows, key=lambda row: (row.publish_ns, row.event_ns)):
            vintage = _vintage(row, last.get(row.event_ns), receive_ns, policy, backfill)
            if vintage is not None:
                last[row.event_ns] = (vintage.revision, vintage.publish_ns, vintage.value)
                new.append(vintage)
        new = self._lasting(name, new)
        self._write(name, new)
        return sorted(new, key=lambda vintage: (vintage.publish_ns, vintage.event_ns, vintage.revision))

    def _lasting(self, name: str, new: list[Vintage]) -> list[Vintage]:
        """Those that would not be pruned at once, and so told again with each answer."""
        held = self._all(_TIMES, (name, VALUES_MOST)) if new else []
        times = nlargest(VALUES_MOST, {at_ns for (at_ns,) in held} | {vintage.event_ns for vintage in new})
        return [vintage for vintage in new if vintage.event_ns >= times[-1]]

    def _write(self, name: str, new: Sequence[Vintage]) -> None:
        """All of them, or none."""
        if not new:
            return
        insert = f"INSERT INTO vintages (name, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 ours
        with self._lock:
            try:
                try:
                    self._db.execute("BEGIN IMMEDIATE")
                    self._db.executemany(insert, [(name, *vintage) for vintage in new])
                    self._db.execute(_PRUNE, (name, VALUES_MOST))
                    self._db.execute("COMMIT")
                finally:  # whatever went wrong: all sources share the connection
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
            except (sqlite3.Error, OverflowError) as error:
                raise DataError(f"{self._where}: {error}") from error

    def _all(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except (sqlite3.Error, OverflowError) as error:
                raise DataError(f"{self._where}: {error}") from error


def _vintage(
    row: Row, last: tuple[int, int, float] | None, receive_ns: int, policy: Policy, backfill: bool
) -> Vintage | None:
    """What this row adds to the last vintage of its time; None if nothing.

    Published: as the source says; else by the lag, or when it was received, if that was sooner. A restatement is
    published when it is received: nobody can have known it before.
    """
    revision, published_ns, value = last or (-1, -1, row.value)
    if last is not None:
        again = row.value == value or (row.publish_ns and row.publish_ns <= published_ns)
        if again or not policy.restated or revision + 1 >= REVISIONS_MOST:
            return None
    publish_ns = row.publish_ns or min(row.event_ns + policy.lag_ns, receive_ns)
    if last is not None and not row.publish_ns:
        publish_ns = receive_ns
    seen_ns = min(receive_ns, publish_ns + policy.backfill_lag_ns) if backfill else receive_ns
    return Vintage(row.event_ns, revision + 1, publish_ns, receive_ns, max(seen_ns, publish_ns), row.value)
