"""The ledger: what must survive anything. SQLite, write-ahead log, synchronous=FULL, one writer.

Everything that happened since the last write goes in as one transaction, inline: an order's intent is on
disk before its bytes leave. A write that fails leaves the ledger as it was, and may be tried again.
"""

import hashlib
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog

from dea_daemon import __version__
from dea_daemon.domain.decisions import DecisionRecord
from dea_daemon.domain.errors import InvariantViolation, LedgerError
from dea_daemon.domain.events import AccountReported, PoolReport, Settlement
from dea_daemon.domain.instruments import Universe
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.orders import Order, epoch_of
from dea_daemon.execution.shortfall import Shortfall
from dea_daemon.shell.ledger_care import backup
from dea_daemon.shell.ledger_history import History, put_settlements
from dea_daemon.shell.ledger_schema import MIGRATIONS, is_outdated, migrate
from dea_daemon.shell.lock import InstanceLock
from dea_daemon.shell.plain import plain
from dea_daemon.shell.recovery import Recovered, recover
from dea_daemon.state.account import BookedFill

log = structlog.get_logger()
_BUSY_S = 0.05  # how long another process's lock may hold up trading
_EPOCHS = 32**5
_EPOCH_ZERO_S = 1_577_836_800  # 2020-01-01: minutes since then fit an epoch until 2083
_TEXT_MAX = 500
_COST_COLUMNS = (*Shortfall.__struct_fields__, "beyond_usd", "day_vol_bp")
_PUT_SHORTFALL = (
    f"INSERT OR REPLACE INTO shortfalls ({', '.join(_COST_COLUMNS)}) "  # noqa: S608 - names of our own
    f"VALUES ({', '.join(':' + name for name in _COST_COLUMNS)})"
)


@dataclass(slots=True)
class Batch:
    """What happened since the last write. `Ledger.write` empties it once all of it is on disk, not before.

    `intents` are orders about to be sent, `orders` any whose state changed (by client_order_id, latest wins).
    `settlements` are positions that ended with their contract, each with its proof ("venue record" or
    "position report"). `marks` are the marks of options held, by row, for the statement. `measured` are the fields of
    `order.measured`: what an order cost.
    """

    intents: list[Order] = field(default_factory=list)
    orders: dict[str, Order] = field(default_factory=dict)
    fills: list[BookedFill] = field(default_factory=list)
    settlements: list[tuple[Settlement, str]] = field(default_factory=list)
    pools: dict[tuple[int, str], PoolReport] = field(default_factory=dict)  # by account and currency
    marks: dict[int, float] = field(default_factory=dict)
    decisions: list[DecisionRecord] = field(default_factory=list)
    measured: list[dict[str, str | int | float | bool]] = field(default_factory=list)
    modes: list[tuple[Mode, str]] = field(default_factory=list)  # each change, and why
    peak_equity_usd: float = 0.0  # 0: unchanged
    day: int = 0  # UTC, days since 1970, and its first equity; 0: unchanged
    day_equity_usd: float = 0.0
    parameters: str = ""  # JSON, after a reload
    checkpoints: dict[str, bytes] = field(default_factory=dict)
    adopted: dict[int, AccountReported] = field(default_factory=dict)  # by account: positions taken over as reported
    closing: bool = False  # the run's last: its pools are kept however young the last ones are

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__)

    def clear(self) -> None:
        for name in self.__slots__:
            if isinstance(value := getattr(self, name), list | dict):
                value.clear()
        self.peak_equity_usd, self.day, self.day_equity_usd = 0.0, 0, 0.0
        self.parameters, self.closing = "", False


class Ledger:
    """The one writer. Use from the thread that opened it, except `backup` and `tidy`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: InstanceLock, torn: str) -> None:
        self.path = path
        self.torn = torn  # not empty: the last run's unfinished tail was dropped, and this says how much
        self._db = connection
        self._lock = lock
        self._history = History()
        self._encode = msgspec.json.Encoder(enc_hook=plain).encode
        found = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
        self._epoch: int = found[0] if found else 0

    @classmethod
    def open(cls, path: Path) -> "Ledger":
        """Make or open the ledger (directory 0700, file 0600) and hold it. Raises LedgerError."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError as error:
            raise LedgerError(f"{path.parent}: not a directory") from error
        except OSError as error:
            raise LedgerError(f"{path.parent}: {error.strerror}") from error
        lock = InstanceLock(path.with_name(path.name + ".lock"))
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            path.chmod(0o600)
            claimed = _claimed_frames(path.with_name(path.name + "-wal"))
            connection = _connect(path)
            _, frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if is_outdated(connection):
                before = path.with_name(f"{path.name}.before-{len(MIGRATIONS)}")
                if not before.exists():  # the way back, should the new release not please
                    backup(path, before)
            migrate(connection)
            lost = max(0, claimed - max(0, frames))
            torn = f"{lost} unfinished pages after the last whole transaction were dropped" if lost else ""
            return cls(path, connection, lock, torn)
        except (OSError, sqlite3.Error) as error:
            lock.release()
            raise LedgerError(f"{path}: {error}") from error
        except LedgerError as error:
            lock.release()
            raise LedgerError(f"{path}: {error}") from error

    def close(self) -> None:
        """Write the log back into the file and let go. Never raises: all that mattered is committed."""
        with suppress(sqlite3.Error):
            self._db.close()
        self._lock.release()

    # --- the start of a run ---------------------------------------------------------------------------

    def next_epoch(self, at_least: int = 0) -> int:
        """A number no client order id carries yet, on disk before it is returned.

        Above every epoch this ledger gave out, above `at_least` (the highest seen at the venues), and not
        below the minutes since 2020, so that a lost or a restored ledger repeats none. (UTC seconds would
        not fit its five digits.)
        """
        minutes = int(time.time() - _EPOCH_ZERO_S) // 60
        epoch = max(self._epoch + 1, at_least + 1, minutes)
        if not 0 < epoch < _EPOCHS:
            raise LedgerError(f"no epoch left: {epoch} does not fit five base-32 digits (is the clock right?)")
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (epoch,))
        self._epoch = epoch
        return epoch

    def start_run(self, run_id: str, utc_ns: int, parameters: str) -> None:
        """Note that a run began, in the newest epoch, with these parameters (JSON)."""
        with self._transaction() as db:
            db.execute("INSERT INTO runs VALUES (?, ?, ?, ?)", (self._epoch, run_id, utc_ns, __version__))
            self._put_parameters(parameters, utc_ns)

    def recover(self, universe: Universe, now_ns: int) -> Recovered:
        """What earlier runs left behind. Raises LedgerError where the file cannot be read."""
        with self._reading() as db:
            return recover(db, universe, now_ns)

    # --- while it runs --------------------------------------------------------------------------------

    def write(self, batch: Batch, universe: Universe, now_ns: int) -> None:
        """All of the batch in one transaction, on disk when this returns; an empty one costs nothing.

        Raises LedgerError when it cannot be written: then nothing of it is, its intents must not be sent, and
        the batch is kept for another try (but for its decisions and costs: explanations, which must not pile up).
        Raises InvariantViolation when a client order id was used before, or the record contradicts itself.
        """
        if not batch:
            return
        try:
            with self._transaction() as db:
                self._put_orders(batch, universe, now_ns)
                self._put_fills(batch.fills, universe)
                repeated = put_settlements(db, batch.settlements, universe, now_ns)
                db.executemany(
                    "INSERT OR REPLACE INTO pools VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [
                        (str(universe.accounts[account]), currency, now_ns,
                         p.equity, p.cash, p.initial_margin, p.maintenance_margin)
                        for (account, currency), p in batch.pools.items()
                    ],
                )  # fmt: skip
                history = self._history.put(db, batch, universe, now_ns)
                db.executemany(
                    "INSERT OR REPLACE INTO decisions VALUES (?, ?, ?, ?)",
                    [(self._epoch, d.seq, d.ts_recv_ns, self._encode(d).decode()) for d in batch.decisions],
                )
                db.executemany(_PUT_SHORTFALL, batch.measured)
                db.executemany(
                    "INSERT INTO modes (ts_ns, mode, why) VALUES (?, ?, ?)",
                    [(now_ns, int(mode), _text(why)) for mode, why in batch.modes],
                )
                if 0.0 < batch.peak_equity_usd < math.inf:
                    peak = float(batch.peak_equity_usd)
                    db.execute("INSERT OR REPLACE INTO meta VALUES ('peak_equity_usd', ?)", (peak,))
                if 0.0 < batch.day_equity_usd < math.inf:
                    first = (("day", batch.day), ("day_equity_usd", float(batch.day_equity_usd)))
                    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", first)
                if batch.parameters:
                    self._put_parameters(batch.parameters, now_ns)
                db.executemany(
                    "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)",
                    [(key, now_ns, data) for key, data in batch.checkpoints.items()],
                )
        except LedgerError:
            batch.decisions.clear()
            batch.measured.clear()
            raise
        self._history = history
        batch.clear()
        for what in repeated:
            log.warning("settlement.repeated", what=what, why="this position's end is in the ledger already")

    def wants_pools(self, now_ns: int) -> bool:
        """Whether the pools should be written even if nothing else happened: once a minute, and at a day's turn."""
        return self._history.is_due(now_ns)

    def checkpoint(self, key: str) -> bytes | None:
        """The last checkpoint saved under `key`."""
        with self._reading() as db:
            row = db.execute("SELECT data FROM checkpoints WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    # --- care -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Read every page and every reference. Raises LedgerError with what is wrong."""
        try:
            wrong = [row[0] for row in self._db.execute("PRAGMA integrity_check(5)") if row[0] != "ok"]
            wrong += [f"{row[0]} without its {row[2]}" for row in self._db.execute("PRAGMA foreign_key_check")]
        except sqlite3.Error as error:
            wrong = [str(error)]
        if wrong:
            raise LedgerError(f"{self.path} is damaged: " + "; ".join(wrong[:5]))

    def backup(self, to: Path) -> None:
        """One consistent copy, 0600, replacing `to` only when whole. From any thread, while writes go on."""
        backup(self.path, to)

    def tidy(self) -> None:
        """Copy the log back into the file, so that no write has to. From any thread, every minute or so."""
        try:
            db = sqlite3.connect(self.path, timeout=_BUSY_S)
            try:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            finally:
                db.close()
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}") from error

    # --- inside ---------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and every failure in the house's words."""
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except BaseException as error:
            if db.in_transaction:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
            if isinstance(error, sqlite3.IntegrityError):
                raise InvariantViolation(f"{self.path}: {error}") from error
            if isinstance(error, sqlite3.Error | OverflowError | TypeError | ValueError):
                raise LedgerError(f"{self.path}: {error}") from error
            raise

    def _put_orders(self, batch: Batch, universe: Universe, now_ns: int) -> None:
        # A changed order may be new here too: its intent failed to be written, so it was never sent.
        changed = {**{order.client_order_id: order for order in batch.intents}, **batch.orders}
        into_intents = "INTO intents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        intents = [_intent_row(order, universe) for order in batch.intents]
        others = [_intent_row(order, universe) for order in batch.orders.values()]
        self._db.executemany("INSERT " + into_intents, intents)
        self._db.executemany("INSERT OR IGNORE " + into_intents, others)
        self._db.executemany(
            "INSERT OR REPLACE INTO order_states VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (o.client_order_id, o.state.value, o.venue_order_id, o.filled_lots, o.venue_filled_lots,
                 _text(o.reason), o.state.is_terminal and o.venue_filled_lots <= o.filled_lots, now_ns)
                for o in changed.values()
            ],
        )  # fmt: skip

    def _put_fills(self, fills: Iterable[BookedFill], universe: Universe) -> None:
        rows = []
        for fill, turnover_usd, fee_usd in fills:
            instrument = universe.instruments[fill.row]
            rows.append((
                str(universe.accounts[fill.account]), fill.trade_id, fill.ts_event_ns or fill.ts_recv_ns,
                fill.ts_recv_ns, instrument.name, str(instrument.lot_size), str(instrument.tick_size),
                fill.venue_order_id, fill.client_order_id, fill.side.value, fill.lots, fill.price_ticks,
                fill.fee, fill.fee_currency, fill.is_maker, float(turnover_usd), float(fee_usd),
            ))  # fmt: skip
        self._db.executemany(
            "INSERT OR IGNORE INTO fills VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
        )

    def _put_parameters(self, parameters: str, now_ns: int) -> None:
        """Only a change is a row."""
        digest = hashlib.blake2b(parameters.encode(), digest_size=16).hexdigest()
        last = self._db.execute("SELECT hash FROM parameters ORDER BY id DESC LIMIT 1").fetchone()
        if last is None or last[0] != digest:
            row = (now_ns, digest, parameters)
            self._db.execute("INSERT INTO parameters (ts_ns, hash, json) VALUES (?, ?, ?)", row)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, cached_statements=64)
    try:
        (journal,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if journal != "wal":
            raise LedgerError(f"no write-ahead log here, but {journal}: not a local disk?")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA wal_autocheckpoint = 4000")  # the bound, should nobody call `tidy`: 16 MB
    except BaseException:
        db.close()
        raise
    return db


def _claimed_frames(wal: Path) -> int:
    """How many frames a write-ahead log says it holds, whole or not. SQLite itself says how many were good.

    Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log. Frames of an earlier round have other
    salts and are not counted.
    """
    try:
        data = wal.read_bytes()
    except FileNotFoundError:
        return 0
    if len(data) <= 32:
        return 0
    page_size, salts = int.from_bytes(data[8:12], "big"), data[16:24]
    frame = 24 + page_size
    count = 0
    for start in range(32, len(data), frame):
        if data[start + 8 : start + 16] != salts[: max(0, len(data) - start - 8)]:
            break
        count += 1
    return max(count, 1)


def _text(text: str) -> str:
    """What SQLite takes of a venue's words: bounded, and no half surrogates."""
    return text[:_TEXT_MAX].encode("utf-8", "replace").decode()


def _intent_row(order: Order, universe: Universe) -> tuple[str | int, ...]:
    instrument = universe.instruments[order.row]
    return (
        order.client_order_id, epoch_of(order.client_order_id), order.cause_seq,
        str(universe.accounts[universe.account[order.row]]), instrument.name,
        str(instrument.lot_size), str(instrument.tick_size), order.side.value, order.lots, order.price_ticks,
        order.time_in_force.value, order.post_only, order.reduce_only, order.valid_until_ms, order.created_ns,
    )  # fmt: skip
