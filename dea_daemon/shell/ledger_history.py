"""What the ledger keeps so that a statement can be drawn up years later, without the venue.

The contracts' terms once a run, and of those listed later when they join; each pool's equity, cash and pending
funding once a minute, at a day's turn, around a settlement of funding, first and last of a run, and with them the
marks of options held; positions whenever they were taken from the venue's report rather than from fills; and every
position that ended with its contract, once.
"""

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dea_daemon.domain.events import AccountReported, PoolReport, Settlement
from dea_daemon.domain.instruments import Universe
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S

if TYPE_CHECKING:
    from dea_daemon.shell.ledger import Batch

EVERY_NS = 60 * NS_PER_S
VENUE_RECORD, POSITION_REPORT = "venue record", "position report"  # how a delivery is known
Pools = Mapping[tuple[int, str], PoolReport]


@dataclass(frozen=True, slots=True)
class History:
    """What has been written so far in this run. A value: a transaction that fails leaves the old one standing.

    `seen` are the pools of the last write and `seen_ns` its time, `kept_ns` when a row of them was last kept;
    `rows` is how many of the universe's contracts are written: it grows.
    """

    universe: Universe | None = None
    rows: int = 0
    kept_ns: int = 0
    seen_ns: int = 0
    seen: Pools = field(default_factory=dict)

    def is_due(self, now_ns: int) -> bool:
        return now_ns - self.kept_ns >= EVERY_NS or now_ns // NS_PER_DAY != self.kept_ns // NS_PER_DAY

    def put(self, db: sqlite3.Connection, batch: "Batch", universe: Universe, now_ns: int) -> "History":
        """Write what is due, in the caller's transaction; the history with that in it."""
        after = self
        known = self.rows if self.universe is universe else 0
        if known < len(universe):
            _put_instruments(db, universe, known)
            after = replace(after, universe=universe, rows=len(universe))
        _put_adoptions(db, batch.adopted, universe)
        if not batch.pools:
            return after
        settled = funding_settled(self.seen, batch.pools)
        if settled and self.seen_ns > self.kept_ns:  # what was pending until then
            _put_pools(db, self.seen, universe, self.seen_ns)
        if settled or batch.closing or self.is_due(now_ns):
            _put_pools(db, batch.pools, universe, now_ns, batch.closing)
            _put_marks(db, batch.marks, universe, now_ns)
            after = replace(after, kept_ns=now_ns)
        return replace(after, seen_ns=now_ns, seen=dict(batch.pools))


def funding_settled(before: Pools, after: Pools) -> bool:
    """Whether the venue moved some pool's pending funding into its cash: it creeps, it never halves by itself."""
    return any(
        abs(pool.session_funding) < 0.5 * abs(before[key].session_funding)
        for key, pool in after.items()
        if key in before
    )


def put_settlements(
    db: sqlite3.Connection, settlements: Iterable[tuple[Settlement, str]], universe: Universe, now_ns: int
) -> list[str]:
    """Each with its proof, in the caller's transaction. A position ends once: a second word on the same changes
    nothing, but that the venue's record completes what was known from a position report. Returns, in words, what
    was left out."""
    repeated = []
    for told, proof in settlements:
        account, instrument = str(universe.accounts[told.account]), universe.instruments[told.row]
        row = (
            account, instrument.name, told.ts_event_ns or instrument.expiry_ns or now_ns, now_ns,
            told.lots, str(instrument.lot_size), _finite(told.price), _finite(told.profit),
            told.currency or instrument.settle_currency, proof,
        )  # fmt: skip
        if not db.execute(_PUT_SETTLEMENT, (*row, POSITION_REPORT, VENUE_RECORD)).rowcount:
            repeated.append(f"{account} {instrument.name}: {told.lots} lots by {proof}")
    return repeated


_PUT_SETTLEMENT = """INSERT INTO settlements VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (account, instrument) DO UPDATE SET
        ts_ns = excluded.ts_ns, lots = excluded.lots, lot_size = excluded.lot_size, price = excluded.price,
        profit = excluded.profit, currency = excluded.currency, proof = excluded.proof
    WHERE proof = ? AND excluded.proof = ?"""


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _put_instruments(db: sqlite3.Connection, universe: Universe, first: int) -> None:
    accounts = universe.account.tolist()[first:]
    db.executemany(
        "INSERT OR REPLACE INTO instruments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (str(universe.accounts[account]), i.name, i.kind.value, i.payoff.value, i.underlying, i.quote_currency,
             i.settle_currency, str(i.contract_size), str(i.lot_size), str(i.tick_size), i.expiry_ns)
            for account, i in zip(accounts, universe.instruments[first:], strict=True)
        ],
    )  # fmt: skip


def _put_pools(db: sqlite3.Connection, pools: Pools, universe: Universe, ts_ns: int, closing: bool = False) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO pool_history VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (ts_ns, str(universe.accounts[account]), currency, pool.equity, pool.cash, pool.session_funding, closing)
            for (account, currency), pool in pools.items()
        ],
    )


def _put_marks(db: sqlite3.Connection, marks: Mapping[int, float], universe: Universe, ts_ns: int) -> None:
    """A row a day and contract: the last before midnight stays."""
    db.executemany(
        "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?)",
        [
            (ts_ns // NS_PER_DAY, str(universe.accounts[universe.account[row]]), universe.instruments[row].name,
             ts_ns, _finite(mark_price))
            for row, mark_price in marks.items()
        ],
    )  # fmt: skip


def _put_adoptions(db: sqlite3.Connection, adopted: Mapping[int, AccountReported], universe: Universe) -> None:
    rows = []
    for account, report in adopted.items():
        held = {}
        for position in report.positions:
            instrument = universe.instruments[position.row]
            if position.lots:
                entry = float(position.entry_price)
                held[instrument.name] = [str(instrument.lots_to_amount(position.lots)), entry if entry > 0 else None]
        rows.append((str(universe.accounts[account]), report.ts_recv_ns, json.dumps(held)))
    db.executemany("INSERT OR REPLACE INTO adoptions VALUES (?, ?, ?)", rows)
