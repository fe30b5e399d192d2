"""Recovery: what a run must know of the ones before it, read from the ledger and nothing else."""

import math
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from dea_daemon.domain.errors import LedgerError
from dea_daemon.domain.instruments import Instrument, Kind, Payoff, Side, Universe
from dea_daemon.domain.lessons import CostLesson
from dea_daemon.domain.models import Kept
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.numbers import NS_PER_MS, NS_PER_S, from_steps, to_steps
from dea_daemon.domain.orders import TERMINAL, Order, OrderState, TimeInForce
from dea_daemon.shell.cost_lessons import last_lessons

_HOUR_NS = 3_600 * NS_PER_S
_MINUTE_NS = 60 * NS_PER_S
_FILLS_SEEN_NS = 25 * _HOUR_NS  # venues answer for 24 h; every fill a back-fill can bring must be known
_BACKFILL_MAX_NS = 24 * _HOUR_NS
_SETTLED_NS = 7 * 24 * _HOUR_NS  # how far back a venue is asked for deliveries, at most
KEPT = "forecasters"  # the checkpoint's key
_OVERLAP_NS = 60 * NS_PER_S  # clock differences, and trades a venue lists late


@dataclass(frozen=True, slots=True)
class Recovered:
    """All that a run must know of the ones before it, in this run's row and account numbers.

    `restored` orders have no end yet, or wait for fills the venue reported; they come as UNKNOWN.
    `fills_seen` covers every fill that a back-fill from `trade_cursor_ms` may bring. What an hour and a day traded
    and paid is infinite where one fill's is not known. `orphans` are open orders without a row: their instrument or
    account is gone, or its lots or ticks changed size. `settled` are the contracts, by account, whose delivery was
    recorded in the last week: nothing is expected of those any more. `ended` are contracts that expired in the
    last week without such a record, as rows that only wait for one. `kept` is how forecasters stood,
    `lessons` what the last orders cost.
    """

    restored: tuple[Order, ...]
    fills_seen: tuple[tuple[int, str], ...]
    trade_cursor_ms: int
    mode: Mode
    mode_why: str
    mode_before: Mode
    peak_equity_usd: float
    day: int
    day_equity_usd: float
    hour_turnover_usd: float
    hour_fees_usd: float
    day_turnover_usd: float
    day_fees_usd: float
    minute_creates: int
    orphans: tuple[str, ...]
    settled: tuple[tuple[int, str], ...]
    ended: tuple[tuple[int, Instrument], ...]
    kept: Kept
    lessons: tuple[CostLesson, ...]


def recover(db: sqlite3.Connection, universe: Universe, now_ns: int) -> Recovered:
    """Raises sqlite3.Error where the file cannot be read."""
    accounts = {str(key): account for account, key in enumerate(universe.accounts)}
    restored: list[Order] = []
    orphans: list[str] = []
    delivered, expired = _delivered(db), _expired(db, now_ns)
    for found in _unsettled(db, now_ns - _FILLS_SEEN_NS):
        contract = (found["account"], found["instrument"])
        if contract in delivered:
            continue
        row = universe.row(accounts.get(found["account"], -1), found["instrument"])
        order = None if row is None else _restored(found, row, universe.instruments[row])
        if row is None and contract in expired:
            continue
        if order is None:
            orphans.append("{client_order_id}: {account} {instrument}".format_map(dict(found)))
        else:
            restored.append(order)
    peak = db.execute("SELECT value FROM meta WHERE key = 'peak_equity_usd'").fetchone()
    day = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('day', 'day_equity_usd')").fetchall())
    mode = db.execute("SELECT mode, why FROM modes ORDER BY id DESC LIMIT 1").fetchone()
    paused = (int(Mode.PAUSED),)
    before = db.execute("SELECT mode FROM modes WHERE mode != ? ORDER BY id DESC LIMIT 1", paused).fetchone()
    hour_turnover_usd, hour_fees_usd = _traded_since(db, now_ns - _HOUR_NS)
    day_turnover_usd, day_fees_usd = _traded_since(db, now_ns - 24 * _HOUR_NS)
    return Recovered(
        restored=tuple(restored),
        fills_seen=tuple(_fills_seen(db, accounts, now_ns - _FILLS_SEEN_NS)),
        trade_cursor_ms=_trade_cursor_ns(db, restored, now_ns) // NS_PER_MS,
        mode=Mode(mode[0]) if mode else Mode.NORMAL,
        mode_why=mode[1] if mode else "",
        mode_before=Mode(before[0]) if before else Mode.NORMAL,
        peak_equity_usd=peak[0] if peak else 0.0,
        day=int(day.get("day", 0)),
        day_equity_usd=float(day.get("day_equity_usd", 0.0)),
        hour_turnover_usd=hour_turnover_usd,
        hour_fees_usd=hour_fees_usd,
        day_turnover_usd=day_turnover_usd,
        day_fees_usd=day_fees_usd,
        minute_creates=_last_minute(db, now_ns),
        orphans=tuple(orphans),
        settled=tuple(
            (accounts[account], name)
            for (account, name), ts_ns in delivered.items()
            if account in accounts and ts_ns >= now_ns - _SETTLED_NS
        ),
        ended=tuple(_ended(db, universe, accounts, set(delivered), now_ns)),
        kept=_kept(db),
        lessons=last_lessons(db),
    )


def _kept(db: sqlite3.Connection) -> Kept:
    """How forecasters stood. Raises LedgerError where that cannot be read: a demotion must not be forgotten."""
    found = db.execute("SELECT data FROM checkpoints WHERE key = ?", (KEPT,)).fetchone()
    try:
        return Kept() if found is None else msgspec.msgpack.decode(found[0], type=Kept)
    except msgspec.MsgspecError as error:
        raise LedgerError(f"what was ruled of forecasters cannot be read: {error}") from error


def _delivered(db: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """When a position in a contract was delivered, by account and contract, oldest first."""
    rows = db.execute("SELECT account, instrument, ts_ns FROM settlements ORDER BY ts_ns, account, instrument")
    return {(account, instrument): ts_ns for account, instrument, ts_ns in rows}


def _expired(db: sqlite3.Connection, now_ns: int) -> set[tuple[str, str]]:
    """Contracts whose time is over: the venue cancelled every order in them."""
    rows = db.execute("SELECT account, instrument FROM instruments WHERE expiry_ns BETWEEN 1 AND ?", (now_ns,))
    return {(account, instrument) for account, instrument in rows}


def _ended(
    db: sqlite3.Connection, universe: Universe, accounts: dict[str, int], delivered: set[tuple[str, str]], now_ns: int
) -> Iterator[tuple[int, Instrument]]:
    """Contracts that expired since they were last traded or found held. Their terms as the ledger has them; what a
    dead contract needs no more is left out."""
    cursor = db.cursor()
    cursor.row_factory = sqlite3.Row
    rows = cursor.execute(
        """SELECT * FROM instruments i WHERE expiry_ns BETWEEN ? AND ? AND (
            EXISTS (SELECT 1 FROM fills f WHERE f.account = i.account AND f.instrument = i.instrument)
            OR EXISTS (SELECT 1 FROM adoptions a, json_each(a.positions) p
                       WHERE a.account = i.account AND p.key = i.instrument))
        ORDER BY expiry_ns, account, instrument""",
        (now_ns - _SETTLED_NS, now_ns),
    )
    for found in rows:
        account = accounts.get(found["account"], -1)
        known = found["underlying"] in universe.underlyings and universe.row(account, found["instrument"]) is None
        if account >= 0 and known and (found["account"], found["instrument"]) not in delivered:
            yield account, _dead(found, universe.accounts[account].venue)


def _dead(found: sqlite3.Row, venue: str) -> Instrument:
    return Instrument(
        venue=venue,
        name=found["instrument"],
        kind=Kind(found["kind"]),
        payoff=Payoff(found["payoff"]),
        underlying=found["underlying"],
        quote_currency=found["quote_currency"],
        settle_currency=found["settle_currency"],
        margin_pool=found["settle_currency"],
        contract_size=Decimal(found["contract_size"]),
        lot_size=Decimal(found["lot_size"]),
        tick_size=Decimal(found["tick_size"]),
        expiry_ns=found["expiry_ns"],
        strike=1.0,  # of an option that has ended nothing is computed any more
        tradable=False,
    )


def _traded_since(db: sqlite3.Connection, since_ns: int) -> tuple[float, float]:
    """Turnover and fees in USD."""
    turnover, fees, count, turnovers_known, fees_known = db.execute(
        "SELECT total(turnover_usd), total(fee_usd), count(*), count(turnover_usd), count(fee_usd)"
        " FROM fills WHERE ts_ns > ?",
        (since_ns,),
    ).fetchone()
    return (turnover if turnovers_known == count else math.inf, fees if fees_known == count else math.inf)


def _last_minute(db: sqlite3.Connection, now_ns: int) -> int:
    """Creates that may have left."""
    since_ns = now_ns - _MINUTE_NS
    (count,) = db.execute("SELECT count(*) FROM intents WHERE created_ns > ?", (since_ns,)).fetchone()
    return int(count)


def _fills_seen(db: sqlite3.Connection, accounts: dict[str, int], since_ns: int) -> Iterator[tuple[int, str]]:
    rows = db.execute(
        "SELECT account, trade_id FROM fills WHERE ts_ns >= ? ORDER BY ts_ns, account, trade_id", (since_ns,)
    )
    return ((accounts[account], trade_id) for account, trade_id in rows if account in accounts)


def _trade_cursor_ns(db: sqlite3.Connection, restored: list[Order], now_ns: int) -> int:
    """Every fill not in the ledger is younger than this: the newest one recorded, or the oldest order that
    may still have some, whichever came first. Knowing neither, there is nothing of ours to look for."""
    (newest_ns,) = db.execute("SELECT max(ts_ns) FROM fills").fetchone()
    since_ns = min([newest_ns or now_ns, *(order.created_ns for order in restored)])
    return max(since_ns - _OVERLAP_NS, now_ns - _BACKFILL_MAX_NS)


def _unsettled(db: sqlite3.Connection, since_ns: int) -> Iterable[sqlite3.Row]:
    """Orders without an end, and ended ones whose fills have not all come: a venue forgets those in a day."""
    terminal = sorted(state.value for state in TERMINAL)
    cursor = db.cursor()
    cursor.row_factory = sqlite3.Row
    return cursor.execute(
        f"""SELECT * FROM order_states s JOIN intents i USING (client_order_id)
        WHERE settled = 0 AND (state NOT IN ({", ".join("?" * len(terminal))}) OR s.ts_ns >= ?)
        ORDER BY client_order_id""",  # noqa: S608 - question marks
        (*terminal, since_ns),
    )


def _restored(found: sqlite3.Row, row: int, instrument: Instrument) -> Order | None:
    """An order in today's lots and ticks, UNKNOWN until the venue speaks; None where it does not fit them."""
    counts = [
        _regrid(found["price_ticks"], found["tick_size"], instrument.tick_size),
        *(
            _regrid(found[name], found["lot_size"], instrument.lot_size)
            for name in ("lots", "filled_lots", "venue_filled_lots")
        ),
    ]
    whole = [count for count in counts if count is not None]
    if len(whole) < len(counts):
        return None
    price_ticks, lots, filled_lots, venue_filled_lots = whole
    return Order(
        client_order_id=found["client_order_id"],
        row=row,
        side=Side(found["side"]),
        lots=lots,
        price_ticks=price_ticks,
        time_in_force=TimeInForce(found["time_in_force"]),
        post_only=bool(found["post_only"]),
        reduce_only=bool(found["reduce_only"]),
        valid_until_ms=found["valid_until_ms"],
        cause_seq=found["cause_seq"],
        created_ns=found["created_ns"],
        state=OrderState.UNKNOWN,
        venue_order_id=found["venue_order_id"],
        filled_lots=filled_lots,
        venue_filled_lots=venue_filled_lots,
        reason=found["reason"],
    )


def _regrid(count: int, old: str, new: Decimal) -> int | None:
    """A count of old steps in new ones; None where it does not come out whole."""
    if Decimal(old) == new:
        return count
    amount = from_steps(count, Decimal(old))
    steps = to_steps(amount, new)
    return steps if from_steps(steps, new) == amount else None
