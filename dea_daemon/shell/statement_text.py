"""A statement as text for people, as JSON, as CSV."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from dea_daemon.shell.explain import columns
from dea_daemon.shell.statement import ContractLine, OptionsLine, PoolLine, Statement

_POOL_ROWS = (
    ("cash at start", "cash_start"),
    ("+ realised", "realised"),
    ("+ premiums, spot", "premiums"),
    ("+ settled at expiry", "settled"),
    ("+ funding paid in", "funding"),
    ("- fees", "fees"),
    ("= expected", "expected"),
    ("cash at end", "cash_end"),
    ("unexplained", "unexplained"),
    ("", ""),
    ("funding not yet paid", "pending_end"),
    ("equity at start", "equity_start"),
    ("equity at end", "equity_end"),
    ("options in it", "options_end"),
)
_CONTRACT_FIELDS = (
    "account", "contract", "fills", "bought", "sold", "held", "turnover_usd", "settle_currency", "realised",
    "fee_currency", "fees", "fees_usd", "kind", "underlying", "premiums", "settled", "value_end",
)  # fmt: skip
_IN_SETTLE_CURRENCY = ("realised", "premiums", "settled", "value_end")
_CSV_FIGURES = (
    "fills", "bought", "sold", "held", "turnover_usd", "realised", "fees", "fees_usd", "premiums", "settled",
    "value_end",
)  # fmt: skip
_OPTIONS_FIELDS = ("account", "underlying", "currency", "premiums", "settled", "fees", "value_end")
_POOL_FIELDS = ("account", "currency", *(name for _, name in _POOL_ROWS if name), "pending_start")


def lines(statement: Statement) -> Iterator[str]:
    """For people."""
    yield f"statement of {statement.day} UTC, books from {_time(statement.from_ns)} to {_time(statement.to_ns)}"
    if statement.contracts:
        yield ""
        yield from _contracts(statement.contracts)
    if statement.options:
        yield ""
        yield from _options(statement)
    for account in dict.fromkeys(pool.account for pool in statement.pools):
        yield ""
        yield from _pools(account, [pool for pool in statement.pools if pool.account == account])
    yield ""
    yield from (f"note: {note}" for note in statement.notes)
    yield _verdict(statement)


def _contracts(contracts: list[ContractLine]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [
        ("contract", "fills", "bought", "sold", "held", "turnover USD", "realised", "", "fees", "")
    ]
    rows += [_contract(line) for line in contracts]
    turnover, fees = sum(line.turnover_usd for line in contracts), sum(line.fees_usd for line in contracts)
    fills = sum(line.fills for line in contracts)
    rows.append(("all", f"{fills:,}", "", "", "", f"{turnover:,.2f}", "", "", f"{fees:,.2f}", "USD"))
    return columns(rows, left=(0, 7, 9))


def _contract(line: ContractLine) -> tuple[str, ...]:
    return (
        line.contract,
        f"{line.fills:,}",
        *(_plain(amount) for amount in (line.bought, line.sold, line.held)),
        f"{line.turnover_usd:,.2f}",
        _money(line.realised, line.settle_currency),
        line.settle_currency,
        _money(line.fees, line.fee_currency),
        line.fee_currency,
    )


def _options(statement: Statement) -> Iterator[str]:
    """Each option under its underlying's sums."""
    rows: list[tuple[str, ...]] = [("options", "premiums", "settled", "fees", "value at end", "")]
    for whole in statement.options:
        key = (whole.account, whole.underlying, whole.currency)
        rows.append((whole.underlying, *_option_cells(whole, whole.currency)))
        rows += [
            (f"  {line.contract}", *_option_cells(line, line.settle_currency))
            for line in statement.contracts
            if line.kind == "option" and (line.account, line.underlying, line.settle_currency) == key
        ]
    return columns(rows, left=(0, 5))


def _option_cells(line: OptionsLine | ContractLine, currency: str) -> tuple[str, ...]:
    amounts = (line.premiums, line.settled, line.fees, line.value_end)
    return (*(_money(amount, currency) for amount in amounts), currency)


def _pools(account: str, pools: list[PoolLine]) -> Iterator[str]:
    rows = [(account, *(pool.currency for pool in pools))]
    for title, name in _POOL_ROWS:
        cells = (_money(getattr(pool, name), pool.currency) if name else "" for pool in pools)
        rows.append((f"  {title}" if title else "", *cells))
    return columns(rows, left=(0,))


def _verdict(statement: Statement) -> str:
    if statement.reconciled:
        return "reconciled: fills, deliveries, fees and funding explain the venue's cash"
    off = [
        f"{pool.currency} {_money(pool.unexplained, pool.currency)}" for pool in statement.pools if not pool.reconciled
    ]
    return f"not reconciled: {', '.join(off) or 'no cash figures'}"


def as_json(statement: Statement) -> dict[str, Any]:
    """Exact decimals are texts."""
    return {
        "event": "statement",
        "day": statement.day.isoformat(),
        "from_ns": statement.from_ns,
        "to_ns": statement.to_ns,
        "reconciled": statement.reconciled,
        "contracts": [_fields(line, _CONTRACT_FIELDS) for line in statement.contracts],
        "pools": [_fields(pool, _POOL_FIELDS) | {"reconciled": pool.reconciled} for pool in statement.pools],
        "options": [_fields(line, _OPTIONS_FIELDS) for line in statement.options],
        "notes": statement.notes,
    }


def csv_lines(statement: Statement) -> Iterator[str]:
    """One table: each contract's figures, then each currency's, as (day, account, subject, figure, value, unit)."""
    yield _csv("day", "account", "subject", "figure", "value", "unit")
    day = statement.day.isoformat()
    for line in statement.contracts:
        for name in _CSV_FIGURES:
            unit = "USD" if name.endswith("_usd") else line.fee_currency if name == "fees" else ""
            unit = line.settle_currency if name in _IN_SETTLE_CURRENCY else unit
            yield _csv(day, line.account, line.contract, name, getattr(line, name), unit)
    for pool in statement.pools:
        for name in _POOL_FIELDS[2:]:
            yield _csv(day, pool.account, pool.currency, name, getattr(pool, name), pool.currency)


def _csv(*cells: object) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([_plain(c) if isinstance(c, Decimal) else c for c in cells])
    return out.getvalue()


def _fields(line: ContractLine | PoolLine | OptionsLine, names: tuple[str, ...]) -> dict[str, Any]:
    found = {name: getattr(line, name) for name in names}
    return {name: _plain(value) if isinstance(value, Decimal) else value for name, value in found.items()}


def _plain(value: Decimal) -> str:
    """Without an exponent or trailing zeros, to 12 digits after the point."""
    text = f"{value:.12f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _money(value: Decimal | None, currency: str) -> str:
    if value is None:
        return "not known"
    text = f"{value:,.2f}" if "USD" in currency else f"{value:,.8f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text


def _time(ts_ns: int) -> str:
    return f"{datetime.fromtimestamp(ts_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S}"
