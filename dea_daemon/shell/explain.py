"""A decision told to a person: what was seen, wanted, cut and why, sent. Standard library only.

A record is a DecisionRecord as JSON gives it: numbers, texts, lists of dicts; None stands for NaN. The ledger
keeps only decisions that acted or were cut in a new way, so a number in between has neighbours, not a record.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dea_daemon.domain.errors import LedgerError
from dea_daemon.domain.modes import Mode
from dea_daemon.shell.forecaster_text import WORDS, added, forecast_rows, others_line, spoke
from dea_daemon.shell.greeks import DELTA, by_underlying, curved
from dea_daemon.shell.limit_text import BUDGETS, amount, cut_words, legend, used_allowed

_CAUSES = {
    "timer": "the regular tick",
    "fill": "an order was filled",
    "operator": "the operator spoke",
    "reload": "the configuration changed",
}
_STOPPED = {
    Mode.HALTED: "halted: no new orders until an operator resumes",
    Mode.PAUSED: "paused by the operator",
}
_BAR = 20  # characters
_LIMITS_SHOWN = 8
_WORDS_NS = 25 * 3_600 * 10**9  # how far back words are looked for: a day holds some

Record = dict[str, Any]


# --- reading ------------------------------------------------------------------------------------------------


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A ledger opened for reading only: beside a running daemon, and after a crash with its log not copied back.

    Raises FileNotFoundError, or LedgerError where it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=2.0)) as db:
            yield db
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}") from error


def from_ledger(path: Path, seq: int | None, run: str | None = None) -> Record | None:
    """The newest run's (or the named run's) decision `seq`, or its last; None where the ledger has none."""
    with reading(path) as db:
        epoch = _epoch(db, run)
        where = "epoch = ?" if seq is None else "epoch = ? AND seq = ?"
        values = (epoch,) if seq is None else (epoch, seq)
        row = db.execute(
            f"SELECT json FROM decisions WHERE {where} ORDER BY seq DESC LIMIT 1",  # noqa: S608 - question marks
            values,
        ).fetchone()
        record = json.loads(row[0]) if row else None
        return record and _with_words(db, epoch, record)


def _with_words(db: sqlite3.Connection, epoch: int, record: Record) -> Record:
    """The record with what the forecasters had said last, where a decision that was kept told it: they speak hourly."""
    if spoke(record):
        return record
    kept = "SELECT json FROM decisions WHERE epoch = ? AND seq < ? AND ts_ns > ? ORDER BY seq DESC"
    for (text,) in db.execute(kept, (epoch, record["seq"], record["ts_recv_ns"] - _WORDS_NS)):
        if any(f'"{name}":[{{' in text for name in WORDS):
            said = json.loads(text)
            return record | {name: said[name] for name in WORDS} | {"said_seq": said["seq"]}
    return record


def neighbours(path: Path, seq: int, run: str | None = None) -> tuple[int | None, int | None]:
    """The nearest decisions kept before and after `seq`."""
    with reading(path) as db:
        epoch = _epoch(db, run)
        (before,) = db.execute("SELECT max(seq) FROM decisions WHERE epoch = ? AND seq < ?", (epoch, seq)).fetchone()
        (after,) = db.execute("SELECT min(seq) FROM decisions WHERE epoch = ? AND seq > ?", (epoch, seq)).fetchone()
    return before, after


def _epoch(db: sqlite3.Connection, run: str | None) -> int:
    """-1 where there is no such run."""
    if run is None:
        row = db.execute("SELECT max(epoch) FROM runs").fetchone()
    else:
        row = db.execute("SELECT epoch FROM runs WHERE run_id = ?", (run,)).fetchone()
    return -1 if row is None or row[0] is None else int(row[0])


# --- telling ------------------------------------------------------------------------------------------------


def render(record: Record) -> str:
    """The whole record as text, without a newline at its end."""
    tellers = (_head, _exposures, _forecasts, _greeks, _allocation, _limits, _cuts, _sent, _notes)
    return "\n\n".join("\n".join(block) for tell in tellers if (block := list(tell(record))))


def _head(record: Record) -> Iterator[str]:
    when = datetime.fromtimestamp(record["utc_ns"] / 1e9, UTC)
    armed = "armed" if record["armed"] else "observing: nothing is sent"
    yield f"decision {record['seq']}, {when:%Y-%m-%d %H:%M:%S}.{record['utc_ns'] // 1_000_000 % 1_000:03d} UTC"
    yield f"  because  {_CAUSES.get(record['cause'], record['cause'])}"
    yield f"  mode     {_mode(record).name.lower().replace('_', '-')}, {armed}"
    yield f"  equity   {_usd(record['equity_usd'])} USD"


def _exposures(record: Record) -> Iterator[str]:
    """Per risk factor: price, volatility and return expected, exposure held, wanted and reached by the book asked for,
    and whether that calls for anything."""
    rows = [("exposure, USD", "price", "vol", "return", "held", "wanted", "band", "reaches", "")]
    for line in _deltas(record):
        vol = line["annual_vol"]
        rows.append(
            (
                "  " + line["factor"],
                _number(line["price"], ",.2f"),
                _number(vol, ".0%"),
                _number(line.get("annual_return"), "+.1%"),
                _usd(line["actual_usd"]),
                _usd(line["target_usd"]),
                "-" if line["band_usd"] is None else f"±{_usd(line['band_usd'])}",
                _usd(line.get("reached_usd")),
                _verdict(line),
            )
        )
    return columns(rows) if len(rows) > 1 else iter(())


def _forecasts(record: Record) -> Iterator[str]:
    """What the forecasters had said last, how that entered the returns the targets rest on, and who is on trial."""
    if not spoke(record):
        return
    rows = forecast_rows(record)
    if rows:
        yield from columns([("forecasters", "say", "±", "weight", "a year", "state"), *rows])
        expected = {line["factor"].removeprefix(DELTA): line.get("annual_return") for line in _deltas(record)}
        for underlying, annual in added(record).items():
            whole = _number(expected.get(underlying), "+.1%")
            yield f"  {underlying}: {annual:+.1%} a year by them; {whole} with your views, after the cap of max_sharpe"
    else:
        yield "forecasters: none has weight, so no target rests on what they say"
    if others := others_line(record):
        yield f"  {others}"
    if (said := record.get("said_seq")) is not None:
        yield f"  last said with decision {said}"


def _deltas(record: Record) -> list[Record]:
    return [line for line in record["factors"] if line["factor"].startswith(DELTA)]


def _greeks(record: Record) -> Iterator[str]:
    """What options add to the deltas; nothing where none are held."""
    found = curved(by_underlying((line["factor"], line["actual_usd"]) for line in record["factors"]))
    rows: list[tuple[str, ...]] = [
        ("options, USD", "gamma per 1 %", "vega per point", "theta per day", "vega by expiry")
    ]
    for underlying, line in found.items():
        greeks = (amount(line[name]) for name in ("gamma_usd_1pct", "vega_usd_1pt", "theta_usd_day"))
        by_expiry = ", ".join(f"{bucket} {amount(usd)}" for bucket, usd in line["vega_by_expiry"].items())
        rows.append((f"  {underlying}", *greeks, by_expiry))
    return columns(rows) if len(rows) > 1 else iter(())


def _allocation(record: Record) -> Iterator[str]:
    """How the book asked for was found: what moves and why, what it costs and brings, what held it back."""
    found = record.get("allocation") or {"status": "none"}
    if found["status"] == "none" or not (found["moves"] or found["prices"]):
        return
    yield f"allocation, over the horizon: {_certificate(found)}"
    rows = [("  moves", "lots", "", "USD", "cost", "carry")]
    for move in found["moves"]:
        lots = (f"{move['from_lots']:,}", f"to {move['to_lots']:,}")
        usd = (f"{move['usd']:+,.0f}", f"{move['cost_usd']:,.2f}", f"{move['carry_usd']:+,.2f}")
        rows.append((f"  {move['instrument']}", *lots, *usd))
    if found["moves"]:
        yield from columns(rows, left=(0, 2))
        earned = f"carry and risk better by {found['benefit_usd']:,.2f}"
        lost = f", whole lots cost {found['rounding_usd']:,.2f}" if found["rounding_usd"] >= 0.005 else ""
        yield f"  in all: costs {found['cost_usd']:,.2f} USD, {earned}{lost}"
    for price in found["prices"]:
        saved = f"{price['usd_per_unit']:.4g} USD"
        yield f"  {price['limit']} {price['subject']} binds: a unit more of it would save {saved}"


def _certificate(found: Record) -> str:
    if found["status"] == "held":
        return "no answer could be relied upon: the book is held as it is"
    better = f"no other book is better by more than {found['gap_usd']:.2g} USD ({found['iterations']} iterations)"
    return better if found["status"] == "certified" else f"within the limits, not the best: {better}"


def _verdict(line: Record) -> str:
    held, wanted, band = line["actual_usd"], line["target_usd"], line["band_usd"]
    if band is None or wanted is None:
        return "no target"
    if held is None:
        return "not known"
    away = held - wanted
    return "inside" if abs(away) <= band else f"{_usd(abs(away))} too {'high' if away > 0 else 'low'}"


def _limits(record: Record) -> Iterator[str]:
    """The most used first, those breached with what they mean; those beyond the first few only counted."""
    used = sorted(record["uses"], key=lambda use: -float("inf") if (share := _share(use)) is None else -share)
    rows = [("limits used", "", "", "")]
    for use in used[:_LIMITS_SHOWN]:
        share = _share(use)
        full = 0 if share is None else min(_BAR, round(share * _BAR))
        of = " of ".join(used_allowed(use))
        percent = "not known" if share is None else f"{share:.0%}"
        rows.append((f"  {use['limit']} {use['subject']}", "#" * full + "." * (_BAR - full), percent, of))
    if len(rows) > 1:
        yield from columns(rows, left=(0, 1))
    if len(used) > _LIMITS_SHOWN:
        yield f"  and {len(used) - _LIMITS_SHOWN} more, less used"
    yield from _legends(use["limit"] for use in _breached(record))


def _legends(limits: Iterable[str]) -> Iterator[str]:
    """What each means, once."""
    yield from (f"    {words}" for words in map(legend, dict.fromkeys(limits)) if words)


def _breached(record: Record) -> list[Record]:
    """Limits used beyond what they allow, by what is held or could still fill."""
    return [use for use in record["uses"] if use["limit"] not in BUDGETS and (_share(use) or 0.0) > 1.0]


def _share(use: Record) -> float | None:
    """None where it is not known."""
    if use["used"] is None or not use["allowed"]:
        return None
    return float(use["used"] / use["allowed"])


def _cuts(record: Record) -> Iterator[str]:
    if record["clips"]:
        yield "cut by limits"
    for clip in record["clips"]:
        yield f"  {clip['limit']} {clip['subject']}: from {cut_words(clip)}: {clip['why']}"
    yield from _legends(clip["limit"] for clip in record["clips"])


def _sent(record: Record) -> Iterator[str]:
    if not record["orders"]:
        yield f"nothing sent: {_why_nothing(record)}"
        return
    yield "sent" if record["armed"] else "asked for"
    for order in record["orders"]:
        if order["action"] == "cancel":
            yield f"  cancel  {order['instrument']}  {order['client_order_id']}: {order['why']}"
        else:
            worth = _usd(order.get("notional_usd"))
            yield (
                f"  {order['side']:<6}  {order['instrument']}  {order['lots']:,} lots at {order['price']}"
                f" ({worth} USD)  {order['client_order_id']}: {order['why']}"
            )


def _why_nothing(record: Record) -> str:
    """The plainest reason first: what stops everything, then what was cut, then that all is well."""
    mode = _mode(record)
    if mode in _STOPPED:
        return _STOPPED[mode]
    if not record["armed"]:
        return "it only observes"
    held_back = [clip for clip in record["clips"] if clip["limit"] == "licence"]
    if held_back:
        over = ", ".join(f"{use['limit']} {use['subject']}" for use in _breached(record))
        return "; ".join(dict.fromkeys(clip["why"] for clip in held_back)) + (f" (beyond: {over})" if over else "")
    if record["clips"]:
        return f"limits left nothing to do: {', '.join(dict.fromkeys(clip['limit'] for clip in record['clips']))}"
    aimed = [line for line in _deltas(record) if line["band_usd"] is not None]
    if not aimed:
        return "there is no target"
    outside = [line["factor"] for line in aimed if _verdict(line) != "inside"]
    if mode is Mode.FLATTENING:
        return "what could be closed is closed, or has an order; the rest is collateral, or nobody trades it now"
    if not outside:
        return "every exposure is inside its band"
    return f"{', '.join(outside)} outside the band, but orders are working already or a contract cannot be traded now"


def _notes(record: Record) -> Iterator[str]:
    if record["notes"]:
        yield "also happened"
        yield from (f"  {note}" for note in record["notes"])


# --- words --------------------------------------------------------------------------------------------------


def _mode(record: Record) -> Mode:
    """From its number, as on disk, or its name."""
    mode = record["mode"]
    return Mode[mode.upper()] if isinstance(mode, str) else Mode(mode)


def _number(value: float | None, how: str) -> str:
    return "?" if value is None else format(value, how)


def _usd(value: float | None) -> str:
    return _number(value, ",.0f")


def columns(rows: Iterable[tuple[str, ...]], left: tuple[int, ...] = (0, -1)) -> Iterator[str]:
    """Aligned: the named columns to the left, the others to the right."""
    rows = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lefts = {number % len(widths) for number in left}
    for row in rows:
        cells = (
            cell.ljust(width) if number in lefts else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
