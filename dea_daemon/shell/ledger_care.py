"""Care for a ledger from outside the run that writes it: copy, check, shrink.

Copying and checking only read, so they work beside a running daemon. Shrinking needs the ledger to itself.
"""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dea_daemon.domain.errors import DataError, LedgerError
from dea_daemon.shell.explain import reading
from dea_daemon.shell.ledger_schema import APPLICATION_ID, MIGRATIONS
from dea_daemon.shell.lock import InstanceLock

PAGES_AT_ONCE = 2_000  # 8 MB
OPERATIONS_AT_ONCE = 100_000
_DAY_NS = 86_400_000_000_000

Advance = Callable[[int], object]


def backup(path: Path, to: Path, advance: Advance = lambda pages: None) -> None:
    """One consistent copy, 0600, replacing `to` only when whole. `advance` is told of pages copied.

    Raises FileNotFoundError where there is no ledger, LedgerError where it cannot be copied.
    """
    if to.exists() and path.exists() and to.samefile(path):
        raise LedgerError(f"backup to {to}: that is the ledger itself")
    part = to.with_name(to.name + ".part")
    try:
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with reading(path) as source, closing(sqlite3.connect(part)) as copy:
            # A snapshot held all along: without it every commit of a running daemon would start the copy anew.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            _copy(source, copy, advance)
            copy.execute("PRAGMA journal_mode = DELETE").fetchone()
        part.replace(to)
    except (OSError, sqlite3.Error, LedgerError) as error:
        part.unlink(missing_ok=True)
        if isinstance(error, FileNotFoundError) and not path.exists():
            raise
        raise LedgerError(f"backup to {to}: {error}") from error


def dated_name() -> str:
    """A name for a copy made now."""
    return time.strftime("ledger-%Y%m%d-%H%M%S.sqlite", time.gmtime())


def _copy(source: sqlite3.Connection, copy: sqlite3.Connection, advance: Advance) -> None:
    done = 0

    def told(_: int, left: int, total: int) -> None:
        nonlocal done
        advance(total - left - done)
        done = total - left

    source.backup(copy, pages=PAGES_AT_ONCE, progress=told, sleep=0)


@dataclass(frozen=True, slots=True)
class Checked:
    """A ledger that is whole: its size in bytes with its log, schema, and number of rows by table."""

    size: int
    schema: int
    rows: dict[str, int]


def check(path: Path, advance: Advance = lambda operations: None) -> Checked:
    """Read every page and every reference. Raises DataError with what is wrong, FileNotFoundError, LedgerError."""
    with reading(path) as db:
        db.set_progress_handler(_ticking(advance), OPERATIONS_AT_ONCE)
        try:
            schema = _schema(db, path)
            wrong = [row[0] for row in db.execute("PRAGMA integrity_check(5)") if row[0] != "ok"]
            wrong += [f"{row[0]} without its {row[2]}" for row in db.execute("PRAGMA foreign_key_check")]
            if wrong:
                raise DataError(f"{path} is damaged: " + "; ".join(wrong[:5]))
            tables = [
                name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
            ]
            rows = {name: _count(db, name) for name in tables}
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # it cannot be read now; that says nothing of its pages
                raise
            raise DataError(f"{path} is damaged: {error}") from error
    return Checked(size_of(path), schema, rows)


def _ticking(advance: Advance) -> Callable[[], int]:
    """A progress handler of SQLite's: 0 lets it go on."""

    def tick() -> int:
        advance(1)
        return 0

    return tick


def _count(db: sqlite3.Connection, table: str) -> int:
    (count,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - a name from its own schema
    return int(count)


def _schema(db: sqlite3.Connection, path: Path) -> int:
    """The number of migration steps it has seen."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise DataError(f"{path}: not a ledger")
    if version > len(MIGRATIONS):
        newer = f"schema {version} was written by a newer release; this one knows {len(MIGRATIONS)}"
        raise DataError(f"{path}: {newer}")
    return int(version)


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """Sizes in bytes, and how many decisions went."""

    before: int
    after: int
    pruned: int


def vacuum(path: Path, decisions_older_than_days: float | None, advance: Advance = lambda operations: None) -> Vacuumed:
    """Give back unused pages, and forget old decisions if asked; all else is kept for ever.

    Raises LedgerError while a daemon holds the ledger, or where the disk has no room for a second copy.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    lock = InstanceLock(path.with_name(path.name + ".lock"))
    try:
        before = size_of(path)
        with closing(sqlite3.connect(path, timeout=2.0, isolation_level=None)) as db:
            _schema(db, path)
            db.set_progress_handler(_ticking(advance), OPERATIONS_AT_ONCE)
            pruned = 0 if decisions_older_than_days is None else _prune(db, decisions_older_than_days)
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return Vacuumed(before, size_of(path), pruned)
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}") from error
    finally:
        lock.release()


def _prune(db: sqlite3.Connection, days: float) -> int:
    """The newest decision stays, however old: it is what `explain` tells."""
    before_ns = time.time_ns() - int(days * _DAY_NS)
    newest = db.execute("SELECT epoch, seq FROM decisions ORDER BY epoch DESC, seq DESC LIMIT 1").fetchone()
    if newest is None:
        return 0
    return db.execute("DELETE FROM decisions WHERE ts_ns < ? AND (epoch, seq) != (?, ?)", (before_ns, *newest)).rowcount


def size_of(path: Path) -> int:
    """Bytes on disk, the log that was not copied back yet among them."""
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
