"""The log for a person at a terminal: the time, the event, and what it says; a decision's orders below it.

A line shows less than its JSON (no run_id, no date, no level but by colour). What a venue said is shown escaped
where it is not plain text: it must not be able to move the cursor.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any

_BOLD, _DIM, _RED, _GREEN, _YELLOW, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"
_LEVELS = {"debug": _DIM, "warning": _YELLOW, "error": _RED, "critical": _RED}
_SHOWN_ELSEWHERE = frozenset({"timestamp", "level", "event", "run_id", "seq", "ts", "exception"})
_INDENT = " " * 14


def text(fields: Mapping[str, Any], colour: bool) -> str:
    """One event as text, without its last newline. `timestamp` is ISO 8601."""
    paint = _painted if colour else _unpainted
    level, event = fields["level"], _plain(fields["event"])
    time_of_day = str(fields["timestamp"])[11:23]
    said = _TELL.get(event, _pairs)
    try:
        body = said(fields, paint)
    except (KeyError, TypeError, ValueError, AttributeError):  # another event of the same name
        body = _pairs(fields, paint)
    line = f"{paint(time_of_day, _DIM)}  {paint(f'{event:<20}', _LEVELS.get(level, _BOLD))} {body}".rstrip()
    trace = fields.get("exception")
    return f"{line}\n{trace}" if trace else line


def _painted(words: str, style: str) -> str:
    return f"{style}{words}{_PLAIN}" if style else words


def _unpainted(words: str, style: str) -> str:
    return words


def _plain(value: Any) -> str:
    words = value if isinstance(value, str) else repr(value)
    return words if words.isprintable() else repr(words)


def _pairs(fields: Mapping[str, Any], paint: Any) -> str:
    """What an event says, as name=value."""
    told = ((name, value) for name, value in fields.items() if name not in _SHOWN_ELSEWHERE)
    return "  ".join(f"{paint(f'{_plain(name)}=', _DIM)}{_plain(value)}" for name, value in told)


def _decision(fields: Mapping[str, Any], paint: Any) -> str:
    """Held → wanted ± band of each underlying, green inside the band; then what was cut and sent."""
    parts = [_exposure(factor, line, paint) for factor, line in fields["exposure"].items()]
    parts += _greeks(fields.get("greeks") or {}, paint)
    if fields["mode"] != "normal":
        parts.append(paint(_plain(fields["mode"]), _RED))
    if not fields["armed"]:
        parts.append(paint("observe: nothing is sent", _YELLOW))
    lines = ["  ".join([*parts, paint(f"#{fields['seq']} {_plain(fields['cause'])}", _DIM)])]
    lines += [_INDENT + paint(f"cut     {_plain(clip)}", _YELLOW) for clip in fields["clips"]]
    lines += [_INDENT + paint(_plain(order), _DIM if order.startswith("cancel") else "") for order in fields["orders"]]
    return "\n".join(lines)


def _exposure(factor: str, line: Mapping[str, Any], paint: Any) -> str:
    held, wanted, band = (_usd(line[name]) for name in ("actual_usd", "target_usd", "band_usd"))
    if "?" in (wanted, band):
        return f"{_plain(factor.removeprefix('delta:'))} {held}, no target"
    inside = abs(line["actual_usd"] - line["target_usd"]) <= line["band_usd"]
    figures = paint(f"{held} → {wanted} ± {band}", _GREEN if inside else _YELLOW)
    return f"{_plain(factor.removeprefix('delta:'))} {figures}"


def _greeks(greeks: Mapping[str, float | None], paint: Any) -> list[str]:
    """What options add, by underlying: gamma in USD per 1 %, vega in USD per vol point."""
    told: dict[str, list[str]] = {}
    for factor, usd in greeks.items():
        kind, _, underlying = factor.partition(":")
        if kind in ("gamma", "vega"):
            told.setdefault(underlying, []).append(f"{kind} {_usd(usd)}")
    return [paint(f"{_plain(underlying)} {' '.join(parts)}", _DIM) for underlying, parts in told.items()]


def _usd(amount: float | None) -> str:
    return "?" if amount is None or not isfinite(amount) else f"{amount:,.0f}"


def _fill(fields: Mapping[str, Any], paint: Any) -> str:
    how = "maker" if fields["maker"] else "taker"
    moved = f"{fields['side']} {fields['lots']:,} lots {_plain(fields['instrument'])} at {_plain(fields['price'])}"
    after = f"position {fields['position_lots']:,}"
    return "  ".join([f"{moved}, {after}", paint(f"{how} {_plain(fields['client_order_id'])}", _DIM)])


def _measured(fields: Mapping[str, Any], paint: Any) -> str:
    """What an order cost, in bp of what it filled."""
    done = f"{_usd(fields['filled_usd'])} of {_usd(fields['asked_usd'])} USD"
    parts = " ".join(f"{part} {_bp(fields[part + '_bp'])}" for part in ("delay", "impact", "spread", "fee"))
    whole = f"{fields['side']} {_plain(fields['instrument'])}, {done}, cost {_bp(fields['total_bp'])} bp"
    return "  ".join([whole, paint(f"{parts}  {_plain(fields['placed'])} {_plain(fields['client_order_id'])}", _DIM)])


def _bp(value: float | None) -> str:
    return "?" if value is None or not isfinite(value) else f"{value:.2f}"


_TELL = {"decision.made": _decision, "order.filled": _fill, "order.measured": _measured}
