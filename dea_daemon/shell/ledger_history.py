"""What the ledger keeps so that a statement can be drawn up years later, without the venue.

The contracts' terms once a run; each pool's equity, cash and pending funding once a minute, at a day's turn,
around a settlement of funding, first and last of a run; positions whenever they were taken from the venue's
report rather than from fills.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dea_daemon.domain.events import AccountReported, PoolReport
from dea_daemon.domain.instruments import Universe
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S

if TYPE_CHECKING:
    from dea_daemon.shell.ledger import Batch

EVERY_NS = 60 * NS_PER_S
Pools = Mapping[tuple[int, str], PoolReport]


@dataclass(frozen=True, slots=True)
class History:
    """What has been written so far in this run. A value: a transaction that fails leaves the old one standing.

    `seen` are the pools of the last write and `seen_ns` its time, `kept_ns` when a row of them was last kept.
    """

    universe: Universe | None = None
    kept_ns: int = 0
    seen_ns: int = 0
    seen: Pools = field(default_factory=dict)

    def is_due(self, now_ns: int) -> bool:
        return now_ns - self.kept_ns >= EVERY_NS or now_ns // NS_PER_DAY != self.kept_ns // NS_PER_DAY

    def put(self, db: sqlite3.Connection, batch: "Batch", universe: Universe, now_ns: int) -> "History":
        """Write what is due, in the caller's transaction; the history with that in it."""
        after = self
        if self.universe is not universe:
            _put_instruments(db, universe)
            after = replace(after, universe=universe)
        _put_adoptions(db, batch.adopted, universe)
        if not batch.pools:
            return after
        settled = funding_settled(self.seen, batch.pools)
        if settled and self.seen_ns > self.kept_ns:  # what was pending until then
            _put_pools(db, self.seen, universe, self.seen_ns)
        if settled or batch.closing or self.is_due(now_ns):
            _put_pools(db, batch.pools, universe, now_ns, batch.closing)
            after = replace(after, kept_ns=now_ns)
        return replace(after, seen_ns=now_ns, seen=dict(batch.pools))


def funding_settled(before: Pools, after: Pools) -> bool:
    """Whether the venue moved some pool's pending funding into its cash: it creeps, it never halves by itself."""
    return any(
        abs(pool.session_funding) < 0.5 * abs(before[key].session_funding)
        for key, pool in after.items()
        if key in before
    )


def _put_instruments(db: sqlite3.Connection, universe: Universe) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO instruments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (str(universe.accounts[account]), i.name, i.kind.value, i.payoff.value, i.underlying, i.quote_currency,
             i.settle_currency, str(i.contract_size), str(i.lot_size), str(i.tick_size), i.expiry_ns)
            for account, i in zip(universe.account.tolist(), universe.instruments, strict=True)
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
