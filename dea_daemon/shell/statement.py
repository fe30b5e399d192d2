"""A day's statement, from the ledger alone: fills, profit, fees, funding, and whether they explain the venue's cash.

A day (UTC) is what lies between its two cuts: the last cash figures recorded before its midnights, a minute or
less away while the daemon runs. So each fill is in one day, and days add up. All sums are exact decimals in the
currency that was paid.

Profit is realised against the average cost of the position. Positions taken over from the venue bring the
venue's own entry price. A future or perpetual pays its profit into cash when closed; an option is paid for when
bought. Where a venue moves profit into the balance only at its daily settlement (Deribit: 08:00 UTC) cash
follows a session later, and the remainder says how much is on its way.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

from dea_daemon.shell.explain import reading

ZERO = Decimal(0)
DAY_NS = 86_400_000_000_000
QUIET_NS = 2_000_000_000  # the venue's word on cash may come so much later than the fill that changed it
CENT, COIN_DUST = Decimal("0.005"), Decimal("0.00000001")


@dataclass(frozen=True, slots=True)
class Terms:
    """How a contract pays."""

    kind: str
    payoff: str
    quote_currency: str
    settle_currency: str
    contract_size: Decimal

    def profit(self, amount: Decimal, entry: Decimal, price: Decimal) -> Decimal:
        """In settle_currency, of a signed amount from `entry` to `price`."""
        if self.payoff == "inverse":
            return amount * self.contract_size * (1 / entry - 1 / price)
        return amount * self.contract_size * (price - entry)


@dataclass(slots=True)
class Holding:
    """A signed amount and its average cost; `entry` None: not known, so neither is the profit of closing it."""

    amount: Decimal = ZERO
    entry: Decimal | None = ZERO

    def trade(self, terms: Terms, amount: Decimal, price: Decimal) -> Decimal | None:
        """Take in a fill of a signed amount. Returns the profit it realised, None where that is not known."""
        held, entry = self.amount, self.entry
        self.amount = held + amount
        if held == 0 or (held > 0) == (amount > 0):
            self.entry = price if held == 0 else _blended(terms, held, entry, amount, price)
            return ZERO
        closed = min(abs(amount), abs(held)).copy_sign(held)
        if abs(amount) > abs(held):
            self.entry = price
        return None if entry is None else terms.profit(closed, entry, price)


def _blended(terms: Terms, held: Decimal, entry: Decimal | None, more: Decimal, price: Decimal) -> Decimal | None:
    """Harmonic for inverse contracts, whose worth in coins goes with 1/price."""
    if entry is None:
        return None
    if terms.payoff == "inverse":
        return (held + more) / (held / entry + more / price)
    return (held * entry + more * price) / (held + more)


@dataclass(slots=True)
class ContractLine:
    """One contract's day. bought, sold, held are amounts; realised and fees in the currencies named."""

    account: str
    contract: str
    settle_currency: str
    fee_currency: str = ""
    fills: int = 0
    bought: Decimal = ZERO
    sold: Decimal = ZERO
    turnover_usd: float = 0.0
    fees: Decimal = ZERO
    fees_usd: float = 0.0
    realised: Decimal = ZERO
    held: Decimal = ZERO


@dataclass(slots=True)
class PoolLine:
    """One currency's day: start + realised + premiums + funding − fees = expected; `unexplained` is the rest.

    funding is what the venue paid into cash, pending what it has still to pay (its change is in equity already).
    None where the ledger lacks what it takes.
    """

    account: str
    currency: str
    cash_start: Decimal | None = None
    cash_end: Decimal | None = None
    equity_start: Decimal | None = None
    equity_end: Decimal | None = None
    realised: Decimal = ZERO
    premiums: Decimal = ZERO  # options and spot, paid or received at once
    funding: Decimal = ZERO
    pending_start: Decimal = ZERO
    pending_end: Decimal = ZERO
    fees: Decimal = ZERO

    @property
    def expected(self) -> Decimal | None:
        if self.cash_start is None:
            return None
        return self.cash_start + self.realised + self.premiums + self.funding - self.fees

    @property
    def unexplained(self) -> Decimal | None:
        expected = self.expected
        return None if expected is None or self.cash_end is None else self.cash_end - expected

    @property
    def reconciled(self) -> bool:
        """To the cent, or to a coin's eighth decimal."""
        rest = self.unexplained
        return rest is not None and abs(rest) <= (CENT if "USD" in self.currency else COIN_DUST)


@dataclass(slots=True)
class Statement:
    """`from_ns` and `to_ns` are the cuts. `notes` say in words what the figures cannot hold."""

    day: date
    from_ns: int
    to_ns: int
    contracts: list[ContractLine] = field(default_factory=list)
    pools: list[PoolLine] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def reconciled(self) -> bool:
        return bool(self.pools) and all(pool.reconciled for pool in self.pools)


def statement(path: Path, day: date) -> Statement:
    """Raises FileNotFoundError, or LedgerError where the ledger cannot be read."""
    with reading(path) as db:
        db.row_factory = sqlite3.Row
        start_ns = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000_000
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'pool_history'").fetchone():
            why = "an earlier release wrote this ledger and kept no cash figures: they begin with the next run"
            return Statement(day, start_ns, start_ns + DAY_NS, notes=[why])
        return _Books(db, day, start_ns).close()


def day_of(text: str) -> date | None:
    """2026-01-31, or today (UTC); None for anything else."""
    if text == "today":
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def days(path: Path) -> list[date]:
    """The days the ledger has cash figures of."""
    with reading(path) as db:
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'pool_history'").fetchone():
            return []
        found = db.execute(f"SELECT DISTINCT ts_ns / {DAY_NS} FROM pool_history ORDER BY 1")  # noqa: S608 a number
        return [datetime.fromtimestamp(number * DAY_NS / 1e9, UTC).date() for (number,) in found]


class _Books:
    """One day's books in the making."""

    def __init__(self, db: sqlite3.Connection, day: date, start_ns: int) -> None:
        self.db = db
        self.notes: list[str] = []
        from_ns = self._cut(start_ns) or self._first_cut(start_ns)
        to_ns = self._cut(start_ns + DAY_NS)
        self.whole = from_ns is not None and to_ns is not None and to_ns > from_ns
        self.from_ns, self.to_ns = from_ns or start_ns, (to_ns or 0) if self.whole else start_ns + DAY_NS
        self.result = Statement(day, self.from_ns, self.to_ns, notes=self.notes)
        self.terms = {
            (row["account"], row["instrument"]): Terms(
                row["kind"], row["payoff"], row["quote_currency"], row["settle_currency"], Decimal(row["contract_size"])
            )
            for row in db.execute("SELECT * FROM instruments")
        }
        self.expiry = {(r[0], r[1]): r[2] for r in db.execute("SELECT account, instrument, expiry_ns FROM instruments")}
        self.holdings: dict[tuple[str, str], Holding] = defaultdict(Holding)
        self.adopted: set[str] = set()
        self.contracts: dict[tuple[str, str], ContractLine] = {}
        self.pools: dict[tuple[str, str], PoolLine] = {}

    def _cut(self, at_ns: int) -> int | None:
        """The last cash figures at or before `at_ns` that no fill was just changing."""
        query = (
            "SELECT ts_ns, max(closing) FROM pool_history WHERE ts_ns <= ? GROUP BY ts_ns ORDER BY ts_ns DESC LIMIT 10"
        )
        found = self.db.execute(query, (at_ns,)).fetchall()
        for ts_ns, closing in found:
            near = "SELECT 1 FROM fills WHERE ts_recv_ns > ? AND ts_recv_ns <= ? LIMIT 1"
            # A run's last figures were reported after its last order had ended.
            if closing or not self.db.execute(near, (ts_ns - QUIET_NS, ts_ns)).fetchone():
                return int(ts_ns)
        return int(found[0][0]) if found else None

    def _first_cut(self, from_ns: int) -> int | None:
        """The first cash figures of a day before which there are none."""
        day = (from_ns, from_ns + DAY_NS)
        (first,) = self.db.execute("SELECT min(ts_ns) FROM pool_history WHERE ts_ns BETWEEN ? AND ?", day).fetchone()
        return None if first is None else int(first)

    def close(self) -> Statement:
        """Everything in the ledger that matters, in the order it was learnt."""
        if not self.whole:
            self.notes.append("the ledger has no cash figures of this day: nothing can be reconciled")
        for ts_ns, kind, row in self._events():
            if kind == "adoption":
                self._adopt(row, ts_ns > self.from_ns)
            else:
                self._fill(row, ts_ns > self.from_ns)
        if self.whole:
            self._cash()
        self.result.contracts = [self.contracts[key] for key in sorted(self.contracts)]
        for line in self.result.contracts:
            line.held = self.holdings[line.account, line.contract].amount
        self.result.pools = [self.pools[key] for key in sorted(self.pools)]
        self._expiries()
        return self.result

    def _events(self) -> Iterator[tuple[int, str, sqlite3.Row]]:
        """Adoptions and fills up to the second cut; of one moment the fills first, as the daemon took them in.

        An adoption tells all positions, so what was before each account's last one at the first cut is left out.
        """
        adoptions = self.db.execute("SELECT * FROM adoptions WHERE ts_ns <= ? ORDER BY ts_ns", (self.to_ns,)).fetchall()
        since: dict[str, int] = {}
        for row in adoptions:
            if row["ts_ns"] <= self.from_ns:
                since[row["account"]] = row["ts_ns"]
        oldest = min(since.values(), default=0) if len(since) == len({r["account"] for r in adoptions}) else 0
        fills = self.db.execute(
            "SELECT * FROM fills WHERE ts_recv_ns > ? AND ts_recv_ns <= ? ORDER BY ts_recv_ns, ts_ns, trade_id",
            (oldest, self.to_ns),
        )
        found = [(row["ts_recv_ns"], "fill", row) for row in fills]
        found += [(row["ts_ns"], "adoption", row) for row in adoptions]
        found = [one for one in found if one[0] >= since.get(one[2]["account"], 0)]
        return iter(sorted(found, key=lambda one: (one[0], one[1] == "adoption")))

    def _adopt(self, row: sqlite3.Row, in_day: bool) -> None:
        """The venue's positions replace ours; within the day, what differs is told."""
        account, told = row["account"], json.loads(row["positions"])
        ours = {name for (owner, name), holding in self.holdings.items() if owner == account and holding.amount}
        for name in sorted(ours | set(told)):
            text, entry = told.get(name, ["0", None])
            amount, holding = Decimal(text), self.holdings[account, name]
            if amount != holding.amount and in_day and account in self.adopted:
                change = f"{amount - holding.amount:+f}"
                self.notes.append(f"{account} {name} changed by {change} without a fill of ours: not in realised")
            self.holdings[account, name] = Holding(amount, None if entry is None else Decimal(repr(entry)))
        self.adopted.add(account)

    def _fill(self, row: sqlite3.Row, in_day: bool) -> None:
        key = (row["account"], row["instrument"])
        terms = self.terms.get(key)
        amount = Decimal(row["lots"]) * Decimal(row["lot_size"])
        price = Decimal(row["price_ticks"]) * Decimal(row["tick_size"])
        signed = amount if row["side"] == "buy" else -amount
        if terms is None:
            if in_day:
                self._note_once(f"{key[0]} {key[1]}: its terms are not in this ledger: not in realised")
            return
        realised = self.holdings[key].trade(terms, signed, price)
        if not in_day:
            return
        line = self.contracts.setdefault(key, ContractLine(*key, terms.settle_currency))
        line.fills += 1
        line.turnover_usd += row["turnover_usd"] or 0.0
        line.fees_usd += row["fee_usd"] or 0.0
        fee = Decimal(repr(row["fee"] or 0.0))
        line.fees, line.fee_currency = line.fees + fee, row["fee_currency"]
        line.bought, line.sold = line.bought + max(signed, ZERO), line.sold + max(-signed, ZERO)
        if realised is None:
            self._note_once(f"{key[0]} {key[1]}: the cost of what was held before is not known: realised is too low")
        line.realised += realised or ZERO
        self._pool(key[0], row["fee_currency"]).fees += fee
        self._paid(key, terms, signed, price, realised or ZERO)

    def _paid(self, key: tuple[str, str], terms: Terms, signed: Decimal, price: Decimal, realised: Decimal) -> None:
        """What a fill moved in cash, by the kind of contract."""
        worth = signed * terms.contract_size * price
        if terms.kind == "option":
            self._pool(key[0], terms.settle_currency).premiums -= worth
        elif terms.kind == "spot":
            self._pool(key[0], terms.quote_currency).premiums -= worth
            self._pool(key[0], key[1].replace("-", "_").partition("_")[0]).premiums += signed
        else:
            self._pool(key[0], terms.settle_currency).realised += realised

    def _pool(self, account: str, currency: str) -> PoolLine:
        return self.pools.setdefault((account, currency), PoolLine(account, currency))

    def _cash(self) -> None:
        """Start, end and funding of every pool, from the figures between the cuts."""
        rows = self.db.execute(
            "SELECT * FROM pool_history WHERE ts_ns BETWEEN ? AND ? ORDER BY ts_ns", (self.from_ns, self.to_ns)
        )
        last: dict[tuple[str, str], Decimal] = {}
        for row in rows:
            key = (row["account"], row["currency"])
            pool, pending = self._pool(*key), _decimal(row["session_funding"]) or ZERO
            if key not in last:
                pool.cash_start, pool.equity_start = _decimal(row["cash"]), _decimal(row["equity"])
                pool.pending_start = pending
            elif abs(pending) < abs(last[key]) / 2:  # the venue paid it: it creeps, it never halves by itself
                pool.funding += last[key]
            pool.cash_end, pool.equity_end, pool.pending_end = _decimal(row["cash"]), _decimal(row["equity"]), pending
            last[key] = pending
        for line in self.pools.values():
            if line.cash_end is None:
                self.notes.append(f"{line.account} {line.currency}: the venue told no cash figure")

    def _expiries(self) -> None:
        for (account, name), holding in sorted(self.holdings.items()):
            if holding.amount and self.from_ns < self.expiry.get((account, name), 0) <= self.to_ns:
                self.notes.append(f"{account} {name} expired holding {holding.amount:f}: its settlement is unexplained")

    def _note_once(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _decimal(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(repr(value))
