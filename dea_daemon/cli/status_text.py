"""`status` for people: what a daemon says of itself, or its ledger once it is gone, as a few aligned lines."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from dea_daemon.shell.forecaster_text import HEAD, SLOW_HEAD, contender_rows, slow_rows
from dea_daemon.shell.limit_text import cut_words, shut, used_allowed

Told = dict[str, Any]
SHOWN = 12  # orders and limits

MODES = {
    "normal": "normal: orders are sent",
    "reduce_only": "reduce-only: only orders that shrink exposure",
    "flattening": "flattening: every position is closed, coins held stay; orders only shrink",
    "halted": "halted: no new orders",
    "paused": "paused: no new orders until `resume`",
}


def after_command(state: Told, command: str = "") -> str:
    """One line: {armed, mode, mode_why, unhealthy, orders: how many are live}. To `arm`, what holds it back still."""
    if command == "arm" and state["armed"]:
        return _armed(state)
    text = MODES.get(state["mode"], str(state["mode"]))
    if state["mode"] in ("halted", "paused"):
        left = state["orders"]
        return f"{text}; " + (f"working orders are being cancelled ({left} left)" if left else "none is working")
    if not state["armed"]:
        return f"{text.partition(':')[0]}, but disarmed: decisions are recorded, nothing is sent"
    return text


def _armed(state: Told) -> str:
    mode = str(state["mode"])
    if mode != "normal":
        why = f" ({state['mode_why']})" if state.get("mode_why") else ""
        name, _, sent = MODES.get(mode, mode).partition(":")
        return f"armed, but {name}{why}:{sent.removesuffix(' until `resume`')}; `resume` ends that"
    if ill := state.get("unhealthy"):
        return f"armed, but unhealthy: {'; '.join(ill)}"
    return "armed, normal: orders are sent"


def change_lines(result: Told, dry_run: bool, allow_loosen: bool = False) -> Iterator[str]:
    """What a reload changed, or would, and whether it would be refused."""
    for change in result["changed"]:
        loosens = " (loosens a limit)" if change["loosens"] else ""
        yield f"{change['option']}: {change['before']} to {change['after']}{loosens}"
    if not result["changed"]:
        yield "nothing has changed"
    else:
        yield "reloaded" if result["applied"] else f"nothing was changed{': a dry run' if dry_run else ''}"
    loosening = [str(change["option"]) for change in result["changed"] if change["loosens"]]
    if dry_run and loosening and not allow_loosen:
        yield f"without --allow-loosen it would be refused, because of {', '.join(loosening)}"


def status_lines(status: Told) -> Iterator[str]:
    """A running daemon."""
    yield from _columns(_head(status))
    yield from _table("exposure", ("", "actual USD", "target", "band", "price"), _factors(status["factors"]))
    yield from _table("options, USD", ("", "gamma 1 %", "vega pt", "theta day", "carry day"), _greeks(status))
    head = ("", "ATM 30 d", "RR", "BF", "inside", "age", "")
    yield from _table("volatility, points", head, _surfaces(status.get("surfaces") or ()))
    yield from _table("forecasters", HEAD, contender_rows(status))
    yield from _table("slow factors", SLOW_HEAD, slow_rows(status))
    yield from _table("positions", ("", "lots", "USD", "mark"), _positions(status["instruments"]))
    yield from _table("limits", ("", "used", "allowed", ""), _limits(status["limits"]))
    yield from _table("orders", ("", "", "lots", "filled", "price", "state"), _orders(status["orders"]))
    yield from _table("feeds", ("", "", "age s", "per s", "gaps", "ms off", ""), _feeds(status["feeds"]))


def last_words_lines(told: Told) -> Iterator[str]:
    """A daemon that is gone: what `control_client.last_words` found."""
    run, mode, decision, fill = (told[name] for name in ("run", "mode", "decision", "fill"))
    lines = [("last run", f"{run['run_id']}, started {_time(run['started_utc_ns'])}" if run else "none")]
    why = f" ({mode['why']}, {_time(mode['ts_ns'])})" if mode else ""
    lines.append(("mode", f"{mode['mode'] if mode else 'normal'}{why}; the next run starts so"))
    lines.append(("orders", f"{told['open_orders']} without a known end: see cancel-all"))
    if decision:
        lines.append(("decision", f"{decision['seq']}, the last one kept, {_time(decision['ts_ns'])}"))
    if fill:
        lines.append(("fill", f"{fill['side']} {fill['lots']} lots {fill['instrument']}, {_time(fill['ts_ns'])}"))
    yield from _columns(lines)


def positions(status: Told) -> str:
    """What flattening would close, in words."""
    held = [f"{i['position_lots']:+d} lots {i['instrument']} ({_usd(i['notional_usd'])} USD)" for i in _held(status)]
    return "; ".join(held) or "nothing is held in the configured contracts"


def _head(status: Told) -> Iterator[tuple[str, str]]:
    why = f" ({status['mode_why']})" if status["mode_why"] else ""
    yield "mode", f"{status['mode']}{why}, {'armed' if status['armed'] else 'disarmed: nothing is sent'}"
    yield "health", "healthy" if status["healthy"] else "UNHEALTHY: " + "; ".join(status["unhealthy"])
    if closed := shut(status):
        yield "shut", ", ".join(closed)
    yield "running", f"{_age(status['uptime_s'])}, process {status['pid']}, run {status['run_id']}, {status['version']}"
    yield "files", f"state in {status['state_dir']}, configured by {status['config'] or 'no file'}"
    yield "decision", f"{status['seq']}, {_number(status['decision_age_s'], '.1f')} s ago"
    drawdown = _number(status["drawdown"], ".2%")
    yield "equity", f"{_usd(status['equity_usd'])} USD, {drawdown} below its peak of {_usd(status['peak_equity_usd'])}"
    counts = status["counts"]
    told = ("orders_sent", "cancels_sent", "fills", "rejects", "unknown_outcomes", "gaps")
    yield "counts", ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in told)
    options = status.get("option_counts") or {}
    if options.get("listed"):
        modelled, off = options["modelled"], options["greeks_off"]
        yield "options", f"{options['listed']}, {modelled} modelled, {off} with Greeks the venue contradicts"
    for clip in status["clips"][:SHOWN]:
        yield "clipped", f"{clip['limit']} {clip['subject']}: {cut_words(clip)} ({clip['why']})"


def _factors(factors: Iterable[Told]) -> Iterator[tuple[str, ...]]:
    for line in factors:
        band = "" if line["band_usd"] is None else f"± {_usd(line['band_usd'])}"
        yield line["factor"], _usd(line["actual_usd"]), _usd(line["target_usd"]), band, _usd(line["price"])


def _greeks(status: Told) -> Iterator[tuple[str, ...]]:
    """Where there are options; what they rest on, where that is not the venue's fresh word."""
    from dea_daemon.shell.greeks import curved

    names = ("gamma_usd_1pct", "vega_usd_1pt", "theta_usd_day", "carry_usd_day")
    for underlying, line in curved(status.get("greeks") or {}).items():
        yield underlying, *(_usd(_rounded(line[name])) for name in names)


def _surfaces(surfaces: Iterable[Told]) -> Iterator[tuple[str, ...]]:
    """At 30 days: at the money, risk reversal and butterfly of 25 delta; and whether the surface is relied upon."""
    for line in surfaces:
        terms = (line["atm"], ".1f"), (line["risk_reversal"], "+.1f"), (line["butterfly"], "+.1f")
        told = (_number(value if value is None else 100.0 * value, how) for value, how in terms)
        aged = "?" if line["age_s"] is None else _age(line["age_s"])
        trust = "relied upon" if line["relied"] else f"NOT relied upon: {line['why']}"
        yield line["underlying"], *told, _number(line["inside"], ".1%"), aged, trust


def _rounded(usd: float | None) -> float | None:
    return usd if usd is None else round(usd, 2)


def _held(status: Told) -> list[Told]:
    return [line for line in status["instruments"] if line["position_lots"]]


def _positions(instruments: Iterable[Told]) -> Iterator[tuple[str, ...]]:
    for line in instruments:
        if line["position_lots"]:
            lots, usd = f"{line['position_lots']:+d}", _usd(line["notional_usd"])
            yield line["instrument"], lots, usd, _number(line["mark"], ",.10g") + ("" if line["fresh"] else " (stale)")


def _limits(limits: list[Told]) -> Iterator[tuple[str, ...]]:
    """The tightest first."""
    for line in sorted(limits, key=_share, reverse=True)[:SHOWN]:
        share = _share(line)
        told = f"{share:.0%}" if share != float("inf") else "?"
        yield f"{line['limit']} {line['subject']}".strip(), *used_allowed(line), told


def _share(line: Told) -> float:
    if line["used"] is None or not line["allowed"]:
        return float("inf")
    return abs(float(line["used"])) / float(line["allowed"])


def _orders(orders: list[Told]) -> Iterator[tuple[str, ...]]:
    for line in orders[:SHOWN]:
        what = (line["instrument"], line["side"], str(line["lots"]), str(line["filled_lots"]))
        yield *what, line["price"], f"{line['state']}, {_age(line['age_s'])}"
    if len(orders) > SHOWN:
        yield f"and {len(orders) - SHOWN} more", *[""] * 5


def _feeds(feeds: Iterable[Told]) -> Iterator[tuple[str, ...]]:
    for line in feeds:
        numbers = (line["age_s"], ".1f"), (line["rate_per_s"], ".0f"), (line["gaps"], "d"), (line["offset_ms"], ".0f")
        error = "" if line["ready"] else f"  {line['last_error'] or ''}"
        told = (_number(value, how) for value, how in numbers)
        yield line["feed"], "ready" if line["ready"] else "DOWN", *told, error


# --- words ----------------------------------------------------------------------------------------------------


def _number(value: float | None, how: str) -> str:
    return "?" if value is None else format(value, how)


def _usd(value: float | None) -> str:
    return _number(value, ",.0f" if value is not None and abs(value) >= 100 else ",.6g")


def _age(seconds: float) -> str:
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7_200 else f"{whole // 3_600} h"


def _time(utc_ns: int) -> str:
    return datetime.fromtimestamp(utc_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _columns(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, text in pairs:
        yield f"{name:<10}{text}"


def _table(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Aligned columns, the first one left; nothing where there are no rows."""
    found = list(rows)
    if not found:
        return
    lines = [(title, *head[1:]), *(("  " + row[0], *row[1:]) for row in found)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = [line[0].ljust(widths[0])] + [
            cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)
        ]
        yield "  ".join(cells).rstrip()
