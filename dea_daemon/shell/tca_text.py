"""Trading costs as a table for people, and as JSON."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from dea_daemon.shell.explain import columns
from dea_daemon.shell.tca import MARKOUTS, PARTS, CostLine, Costs

_HEAD = (
    "contract", "placed", "orders", "filled", "USD", "delay", "impact", "spread", "fees", "missed", "total", "±",
    "1 s", "10 s", "60 s",
)  # fmt: skip
_PLACED = {"post": "rested", "cross": "crossed", "restored": "restored"}


def lines(found: Costs) -> Iterator[str]:
    """For people."""
    if found.whole.orders:
        span = " to ".join(_time(ns) for ns in (found.from_ns, found.to_ns))
        yield f"costs of orders that ended {span} UTC, in bp of what was filled (positive: lost)"
        yield ""
        yield from columns([_HEAD, *map(_row, found.lines), _row(found.whole)], left=(0, 1))
        yield ""
        yield "delay: decision to order; impact: order to fill; missed: what nobody filled; the parts add up to total"
        yield "±: one standard error; 1, 10, 60 s: how far the price went our way after a fill"
    else:
        yield "no order was measured yet: that takes a minute after its end"
    if found.whole.unknown:
        yield f"note: {found.whole.unknown:,} orders are in no sum, as a price of theirs is not known"
    if found.unmeasured:
        why = "alive, just ended, of a daemon that died, or of an older release"
        yield f"note: {found.unmeasured:,} orders not measured: {why}"
    yield from (f"note: {note}" for note in found.notes)


def as_json(found: Costs) -> dict[str, Any]:
    return {
        "event": "tca",
        "from_ns": found.from_ns,
        "to_ns": found.to_ns,
        "unmeasured": found.unmeasured,
        "lines": [_fields(line) for line in found.lines],
        "all": _fields(found.whole),
        "notes": found.notes,
    }


def _row(line: CostLine) -> tuple[str, ...]:
    none = "-" if line.filled_usd == 0.0 else "?"  # of nothing there is no share, rather than an unknown one
    bp = (*(line.bp(part) for part in PARTS), line.total_bp, line.error_bp, *map(line.markout_bp, MARKOUTS))
    return (
        line.contract or line.underlying,
        _PLACED.get(line.placed, line.placed),
        f"{line.orders:,}",
        "?" if line.filled_share is None else f"{line.filled_share:.0%}",
        f"{line.filled_usd:,.0f}",
        *(none if value is None else _bp(value) for value in bp),
    )


def _fields(line: CostLine) -> dict[str, Any]:
    """bp where the name says so; null is not known."""
    return {
        "underlying": line.underlying,
        "contract": line.contract,
        "placed": line.placed,
        "orders": line.orders,
        "unknown": line.unknown,
        "asked_usd": line.asked_usd,
        "filled_usd": line.filled_usd,
        "filled_share": line.filled_share,
        **{f"{part}_bp": line.bp(part) for part in PARTS},
        "total_bp": line.total_bp,
        "error_bp": line.error_bp,
        "total_usd": line.total_usd,
        **{f"markout_{name}_bp": line.markout_bp(name) for name in MARKOUTS},
    }


def _bp(value: float) -> str:
    text = f"{value:,.2f}"
    return text.removeprefix("-") if text == "-0.00" else text


def _time(ts_ns: int) -> str:
    return f"{datetime.fromtimestamp(ts_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S}"
