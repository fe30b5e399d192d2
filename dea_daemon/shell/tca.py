"""What trading cost, from the ledger alone: the shortfalls of measured orders, summed by contract and way of placing.

An order's costs are told by `execution/shortfall.py`. Here they are weighted by notional: a line's bp is the sum of its
orders' USD over the sum of what they filled, so lines add up, and its standard error that of such a ratio (Cochran
1977, chapter 6). Orders of which a part is not known are counted, and left out of every sum.
"""

import math
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dea_daemon.shell.explain import reading

PARTS = ("delay", "impact", "spread", "fee", "opportunity")
MARKOUTS = ("1s", "10s", "60s")
DAY_NS = 86_400_000_000_000
NO_TABLE = "an earlier release wrote this ledger and measured no orders: that begins with the next run"


@dataclass(slots=True)
class CostLine:
    """Orders of one contract, placed one way. bp of the notional filled, positive when lost; None where not known.

    `asked_usd` and `filled_usd` are of all its orders, and of those measured whole the sums in USD; `unknown` is the
    number of the others. Markouts are in bp, positive when the price went our way after the fill.
    """

    underlying: str
    contract: str
    placed: str
    orders: int = 0
    unknown: int = 0
    asked_usd: float = 0.0
    filled_usd: float = 0.0
    known_usd: float = 0.0
    total_usd: float = 0.0
    parts_usd: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    marked_usd: dict[str, float] = field(default_factory=lambda: dict.fromkeys(MARKOUTS, 0.0))
    marked_of_usd: dict[str, float] = field(default_factory=lambda: dict.fromkeys(MARKOUTS, 0.0))
    pairs: list[tuple[float, float]] = field(default_factory=list)  # each order's total and filled USD

    def add(self, row: sqlite3.Row) -> None:
        self.orders += 1
        self.asked_usd += row["asked_usd"] or 0.0
        self.filled_usd += row["filled_usd"] or 0.0
        for name in MARKOUTS:
            if (usd := row[f"markout_{name}_usd"]) is not None and row["filled_usd"]:
                self.marked_usd[name] += usd
                self.marked_of_usd[name] += row["filled_usd"]
        known = ["filled_usd", "total_usd", *(f"{name}_usd" for name in PARTS)]
        if any(row[name] is None for name in known):
            self.unknown += 1
            return
        for name in PARTS:
            self.parts_usd[name] += row[f"{name}_usd"]
        self.total_usd += row["total_usd"]
        self.known_usd += row["filled_usd"]
        self.pairs.append((row["total_usd"], row["filled_usd"]))

    @property
    def filled_share(self) -> float | None:
        return _over(self.filled_usd, self.asked_usd)

    def bp(self, part: str) -> float | None:
        return _bp(self.parts_usd[part], self.known_usd)

    @property
    def total_bp(self) -> float | None:
        return _bp(self.total_usd, self.known_usd)

    @property
    def error_bp(self) -> float | None:
        """One standard error of the total."""
        n = sum(filled > 0.0 or total != 0.0 for total, filled in self.pairs)  # the others say nothing
        if n < 2 or not self.known_usd > 0.0:
            return None
        ratio = self.total_usd / self.known_usd
        squares = sum((total - ratio * filled) ** 2 for total, filled in self.pairs)
        return math.sqrt(squares * n / (n - 1)) / self.known_usd * 1e4

    def markout_bp(self, name: str) -> float | None:
        return _bp(self.marked_usd[name], self.marked_of_usd[name])


@dataclass(slots=True)
class Costs:
    """`from_ns` and `to_ns` are the first and last end of an order in it; 0 where there is none. `unmeasured` orders
    live still, ended within the last minute, or the daemon died before theirs was over."""

    lines: list[CostLine] = field(default_factory=list)
    whole: CostLine = field(default_factory=lambda: CostLine("all", "", ""))
    from_ns: int = 0
    to_ns: int = 0
    unmeasured: int = 0
    notes: list[str] = field(default_factory=list)


def costs(path: Path, since_ns: int = 0) -> Costs:
    """Of orders that ended since then. Raises FileNotFoundError, or LedgerError where the ledger cannot be read."""
    with reading(path) as db:
        db.row_factory = sqlite3.Row
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'shortfalls'").fetchone():
            return Costs(notes=[NO_TABLE])
        found = _summed(db.execute("SELECT * FROM shortfalls WHERE ended_ns >= ? ORDER BY ended_ns", (since_ns,)))
        (found.unmeasured,) = db.execute(_UNMEASURED, (since_ns,)).fetchone()
    return found


def ago_ns(days: float) -> int:
    """So many days before now."""
    return time.time_ns() - int(days * DAY_NS) if days == days else 0


def _summed(rows: Iterable[sqlite3.Row]) -> Costs:
    found = Costs()
    lines: dict[tuple[str, str, str], CostLine] = {}
    for row in rows:
        key = (row["underlying"], row["instrument"], row["placed"])
        for line in (lines.setdefault(key, CostLine(*key)), found.whole):
            line.add(row)
        found.from_ns, found.to_ns = found.from_ns or row["ended_ns"], row["ended_ns"]
    found.lines = [lines[key] for key in sorted(lines)]
    return found


_UNMEASURED = """SELECT count(*) FROM intents JOIN order_states USING (client_order_id)
    WHERE created_ns >= ? AND state NOT IN ('rejected', 'absent')
    AND client_order_id NOT IN (SELECT client_order_id FROM shortfalls)"""


def _over(part: float, whole: float) -> float | None:
    return part / whole if whole > 0.0 else None


def _bp(usd: float, of_usd: float) -> float | None:
    share = _over(usd, of_usd)
    return None if share is None else share * 1e4
