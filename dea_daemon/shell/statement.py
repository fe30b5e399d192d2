"""A day's statement, from the ledger alone: fills, profit, deliveries, fees, funding, and whether they explain the
venue's cash.

A day (UTC) is what lies between its two cuts: the last cash figures recorded before its midnights, a minute or
less away while the daemon runs. So each fill is in one day, and days add up. All sums are exact decimals in the
currency that was paid.

Profit is realised against the average cost of the position. Positions taken over from the venue bring the venue's
own entry price. A future or perpetual pays its profit into cash when closed; an option is paid for when bought, in
coin where it is quoted in coin. A position held to its contract's expiry ends with a delivery: the cash the venue's
own record says it moved, at the venue's time, however late the daemon heard of it. Where a venue moves profit into
the balance only at its daily settlement (Deribit: 08:00 UTC) cash follows a session later, and the remainder says
how much is on its way.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

from dea_daemon.shell.explain import reading

ZERO = Decimal(0)
DAY_NS = 86_400_000_000_000
QUIET_NS = 2_000_000_000  # the venue's word on cash may come so much later than the fill that changed it
REPORT_NS = 50_000_000  # fills heard of as shortly before an adoption came with it, and had happened before
LATE_NS = 1_000_000_000  # a fill heard of later than this was asked for: it counts at the venue's time
MARK_NS = 300_000_000_000  # an older mark is no value of today's end
_RANK = {"fill": 0, "settlement": 1, "adoption": 2}  # of one moment, as the daemon took them in
CENT, COIN_DUST = Decimal("0.005"), Decimal("0.00000001")


@dataclass(frozen=True, slots=True)
class Terms:
    """How a contract pays."""

    kind: str
    payoff: str
    quote_currency: str
    settle_currency: str
    contract_size: Decimal
    underlying: str = ""
    expiry_ns: int = 0

    @property
    def is_option(self) -> bool:
        return self.kind == "option"

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
    """One contract's day. bought, sold, held are amounts; fees in fee_currency, all else in settle_currency.

    premiums are cash paid (negative) and received for an option, settled the cash of its delivery, the venue's
    delivery fee taken off; realised is profit against average cost, a delivery's included. value_end is what an
    option still held is worth at the mark, None where the ledger has no mark: equity contains it, cash does not.
    """

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
    kind: str = ""
    underlying: str = ""
    premiums: Decimal = ZERO
    settled: Decimal = ZERO
    value_end: Decimal | None = ZERO


@dataclass(slots=True)
class OptionsLine:
    """An underlying's options in one account, as far as they are paid in one currency: sums of their lines."""

    account: str
    underlying: str
    currency: str
    premiums: Decimal = ZERO
    settled: Decimal = ZERO
    fees: Decimal = ZERO
    value_end: Decimal | None = ZERO


@dataclass(slots=True)
class PoolLine:
    """One currency's day: start + realised + premiums + settled + funding − fees = expected; `unexplained` is the rest.

    realised is what closing futures and perpetuals brought, settled the deliveries of contracts that expired.
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
    settled: Decimal = ZERO
    funding: Decimal = ZERO
    pending_start: Decimal = ZERO
    pending_end: Decimal = ZERO
    fees: Decimal = ZERO
    options_end: Decimal | None = ZERO  # what options still held are worth, in equity_end

    @property
    def expected(self) -> Decimal | None:
        if self.cash_start is None:
            return None
        return self.cash_start + self.realised + self.premiums + self.settled + self.funding - self.fees

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
    options: list[OptionsLine] = field(default_factory=list)

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
                row["kind"], row["payoff"], row["quote_currency"], row["settle_currency"],
                Decimal(row["contract_size"]), row["underlying"], row["expiry_ns"],
            )
            for row in db.execute("SELECT * FROM instruments")
        }  # fmt: skip
        self.settlements: dict[tuple[str, str], sqlite3.Row] = {}
        if self._has("settlements"):  # an earlier release's ledger has none until the daemon opens it
            every = db.execute("SELECT * FROM settlements WHERE ts_ns <= ?", (self.to_ns,))
            self.settlements = {(row["account"], row["instrument"]): row for row in every}
        self.holdings: dict[tuple[str, str], Holding] = defaultdict(Holding)
        self.adopted: set[str] = set()
        self.contracts: dict[tuple[str, str], ContractLine] = {}
        self.pools: dict[tuple[str, str], PoolLine] = {}

    def _has(self, table: str) -> bool:
        return self.db.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)).fetchone() is not None

    def _cut(self, at_ns: int) -> int | None:
        """The last cash figures at or before `at_ns` that no fill and no delivery was just changing."""
        query = (
            "SELECT ts_ns, max(closing) FROM pool_history WHERE ts_ns <= ? GROUP BY ts_ns ORDER BY ts_ns DESC LIMIT 10"
        )
        found = self.db.execute(query, (at_ns,)).fetchall()
        for ts_ns, closing in found:
            # A run's last figures were reported after its last order had ended.
            if closing or not self._moving(ts_ns):
                return int(ts_ns)
        return int(found[0][0]) if found else None

    def _moving(self, ts_ns: int) -> bool:
        """Whether a fill or a delivery was so near that the venue's word on cash may not contain it yet."""
        if self._near("fills", "ts_recv_ns", ts_ns) or self._near("fills", "ts_ns", ts_ns):
            return True
        return self._has("settlements") and self._near("settlements", "ts_ns", ts_ns)

    def _near(self, table: str, column: str, ts_ns: int) -> bool:
        near = f"SELECT 1 FROM {table} WHERE {column} > ? AND {column} <= ? LIMIT 1"  # noqa: S608 - our own names
        return self.db.execute(near, (ts_ns - QUIET_NS, ts_ns)).fetchone() is not None

    def _first_cut(self, from_ns: int) -> int | None:
        """The first cash figures of a day before which there are none."""
        day = (from_ns, from_ns + DAY_NS)
        (first,) = self.db.execute("SELECT min(ts_ns) FROM pool_history WHERE ts_ns BETWEEN ? AND ?", day).fetchone()
        return None if first is None else int(first)

    def close(self) -> Statement:
        """Everything in the ledger that matters, in the order it was learnt."""
        if not self.whole:
            self.notes.append("the ledger has no cash figures of this day: nothing can be reconciled")
        take = {"adoption": self._adopt, "settlement": self._deliver, "fill": self._fill}
        for at_ns, kind, row in self._events():
            take[kind](row, at_ns > self.from_ns)
        if self.whole:
            self._cash()
        self._open_options()
        self.result.contracts = [self.contracts[key] for key in sorted(self.contracts)]
        for line in self.result.contracts:
            line.held = self.holdings[line.account, line.contract].amount
        self.result.pools = [self.pools[key] for key in sorted(self.pools)]
        self.result.options = _by_underlying(self.result.contracts)
        self._expiries()
        return self.result

    def _events(self) -> Iterable[tuple[int, str, sqlite3.Row]]:
        """Adoptions, fills and deliveries up to the second cut, in the order they happened to the positions.

        An adoption tells all positions, so what was before each account's last one at the first cut is left out.
        A fill heard of late counts when the venue says it was; one heard of after its contract was delivered still
        came before the delivery.
        """
        adoptions = self.db.execute("SELECT * FROM adoptions WHERE ts_ns <= ? ORDER BY ts_ns", (self.to_ns,)).fetchall()
        since: dict[str, int] = {}
        for row in adoptions:
            if row["ts_ns"] <= self.from_ns:
                since[row["account"]] = row["ts_ns"]
        oldest = min(since.values(), default=0) if len(since) == len({r["account"] for r in adoptions}) else 0
        fills = self.db.execute(
            f"SELECT *, iif(ts_recv_ns - ts_ns > {LATE_NS}, ts_ns, ts_recv_ns) AS at_ns FROM fills"  # noqa: S608 - a number
            " WHERE ts_recv_ns > ? AND at_ns <= ? ORDER BY at_ns, ts_ns, trade_id",
            (oldest, self.to_ns),
        )
        reports = {(row["account"], row["ts_ns"] // REPORT_NS) for row in adoptions}
        found = [(_counts_at(row, reports), "fill", row) for row in fills]
        found += [(row["ts_ns"], "settlement", row) for row in self.settlements.values()]
        found += [(row["ts_ns"], "adoption", row) for row in adoptions]
        kept = [one for one in found if one[0] >= since.get(one[2]["account"], 0)]
        return sorted(kept, key=self._when)

    def _when(self, one: tuple[int, str, sqlite3.Row]) -> tuple[int, int]:
        ts_ns, kind, row = one
        ended = self.settlements.get((row["account"], row["instrument"])) if kind == "fill" else None
        return ts_ns if ended is None else min(ts_ns, ended["ts_ns"]), _RANK[kind]

    def _adopt(self, row: sqlite3.Row, in_day: bool) -> None:
        """The venue's positions replace ours; within the day, what differs is told."""
        account, told = row["account"], json.loads(row["positions"])
        ours = {name for (owner, name), holding in self.holdings.items() if owner == account and holding.amount}
        for name in sorted(ours | set(told)):
            text, entry = told.get(name, ["0", None])
            amount, holding = Decimal(text), self.holdings[account, name]
            if amount != holding.amount and in_day and account in self.adopted:
                self.notes.append(self._changed((account, name), amount, holding.amount, row["ts_ns"]))
            self.holdings[account, name] = Holding(amount, None if entry is None else Decimal(repr(entry)))
        self.adopted.add(account)

    def _changed(self, key: tuple[str, str], amount: Decimal, was: Decimal, now_ns: int) -> str:
        terms = self.terms.get(key)
        if amount == 0 and terms is not None and 0 < terms.expiry_ns <= now_ns:
            return f"{key[0]} {key[1]} expired holding {was:f}: no record of its delivery, its cash is unexplained"
        return f"{key[0]} {key[1]} changed by {amount - was:+f} without a fill of ours: not in realised"

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
        line = self._line(key, terms)
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

    def _line(self, key: tuple[str, str], terms: Terms) -> ContractLine:
        made = ContractLine(*key, terms.settle_currency, terms.settle_currency)
        made.kind, made.underlying = terms.kind, terms.underlying
        return self.contracts.setdefault(key, made)

    def _deliver(self, row: sqlite3.Row, in_day: bool) -> None:
        """A contract expired: its position is gone, and what the venue paid for it is cash."""
        key = (row["account"], row["instrument"])
        terms, was = self.terms.get(key), self.holdings.pop(key, Holding())
        if not in_day:
            return
        if terms is None:
            self._note_once(f"{key[0]} {key[1]}: its terms are not in this ledger: its delivery is not told")
            return
        amount = Decimal(row["lots"]) * Decimal(row["lot_size"])
        if amount != was.amount and key[0] in self.adopted:
            self.notes.append(f"{key[0]} {key[1]} was delivered at {amount:f}, and {was.amount:f} was counted here")
        profit = _decimal(row["profit"])
        if profit is None:
            self.notes.append(
                f"{key[0]} {key[1]} expired holding {amount:f}, known by {row['proof']}: its cash is unexplained"
            )
        line = self._line(key, terms)
        line.settled += profit or ZERO
        self._pool(key[0], row["currency"]).settled += profit or ZERO
        line.realised += (profit or ZERO) - self._cost(key, terms, was)

    def _cost(self, key: tuple[str, str], terms: Terms, was: Holding) -> Decimal:
        """What was paid for an option that expires; a future's delivery is profit already."""
        if not terms.is_option or was.amount == 0:
            return ZERO
        if was.entry is None:
            self._note_once(f"{key[0]} {key[1]}: the cost of what was held before is not known: realised is too high")
            return ZERO
        return was.amount * terms.contract_size * was.entry

    def _paid(self, key: tuple[str, str], terms: Terms, signed: Decimal, price: Decimal, realised: Decimal) -> None:
        """What a fill moved in cash, by the kind of contract."""
        worth = signed * terms.contract_size * price
        if terms.is_option:
            self._pool(key[0], terms.settle_currency).premiums -= worth
            self.contracts[key].premiums -= worth
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

    def _open_options(self) -> None:
        """A line for each option still held, with what it is worth at the last marks before the second cut."""
        marks: dict[tuple[str, str], Decimal | None] = {}
        if self._has("marks"):
            of_day = (self.to_ns // DAY_NS, self.to_ns - MARK_NS)
            found = self.db.execute("SELECT * FROM marks WHERE day = ? AND ts_ns >= ?", of_day)
            marks = {(row["account"], row["instrument"]): _decimal(row["mark_price"]) for row in found}
        for key, holding in sorted(self.holdings.items()):
            terms = self.terms.get(key)
            if terms is None or not terms.is_option or not holding.amount:
                continue
            mark = marks.get(key)
            value = None if mark is None else holding.amount * terms.contract_size * mark
            pool, line = self._pool(key[0], terms.settle_currency), self._line(key, terms)
            line.value_end, pool.options_end = value, _sum(pool.options_end, value)

    def _expiries(self) -> None:
        for (account, name), holding in sorted(self.holdings.items()):
            terms = self.terms.get((account, name))
            if holding.amount and terms is not None and self.from_ns < terms.expiry_ns <= self.to_ns:
                self.notes.append(f"{account} {name} expired holding {holding.amount:f}: its settlement is unexplained")

    def _note_once(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _counts_at(fill: sqlite3.Row, reports: set[tuple[str, int]]) -> int:
    """When a fill counts, ns: when it was heard of; at the venue's time if that was late, or by a report."""
    slot = fill["ts_recv_ns"] // REPORT_NS
    by_report = (fill["account"], slot) in reports or (fill["account"], slot + 1) in reports
    return int(min(fill["ts_ns"], fill["ts_recv_ns"]) if by_report else fill["at_ns"])


def _by_underlying(contracts: list[ContractLine]) -> list[OptionsLine]:
    """Fees may be paid in another currency than the rest, so each amount goes to its own."""
    lines: dict[tuple[str, str, str], OptionsLine] = {}

    def line(of: ContractLine, currency: str) -> OptionsLine:
        key = (of.account, of.underlying, currency)
        return lines.setdefault(key, OptionsLine(*key))

    for contract in contracts:
        if contract.kind == "option":
            own = line(contract, contract.settle_currency)
            own.premiums, own.settled = own.premiums + contract.premiums, own.settled + contract.settled
            own.value_end = _sum(own.value_end, contract.value_end)
            line(contract, contract.fee_currency).fees += contract.fees
    return [lines[key] for key in sorted(lines)]


def _sum(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    """None is not known, and neither is a sum with it."""
    return None if one is None or other is None else one + other


def _decimal(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(repr(value))
