"""What a person should hear of at once: chosen from the core's notes and limits, sent to a webhook and to Telegram.

Trading is never held up: `tell` only puts an alert on each sink's short queue. The same alert goes again only after
`repeat_after_s`, with how often it was held back. A sink gets at most `per_hour`; a fifth of that is kept for what
is critical. Warnings beyond it are left out and counted, critical ones wait for their turn.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import aiohttp

from dea_daemon.domain.decisions import Decision, DecisionRecord, Note
from dea_daemon.shell.alert_sinks import Alert, Sink, telegram, webhook
from dea_daemon.shell.limit_text import BUDGETS, used_allowed
from dea_daemon.shell.redaction import clean
from dea_daemon.shell.watch_settings import AlertSettings

CLOSE_S = 2.0
KNOWN = 1_000  # alerts remembered, to tell a repeat


@dataclass(frozen=True, slots=True)
class Kind:
    """How one event alerts. `subject` names the field that tells one such alert from another."""

    level: str
    text: str  # with the note's fields in braces
    subject: str = ""
    state: str = ""  # events of one state (fields in braces) replace each other: a change of it is never a repeat
    ends: str = ""  # it is news only after this event of its state


KINDS = {
    "run.started": Kind("warning", "started, armed: {armed}"),
    "run.ended": Kind("warning", "ended"),
    "run.failed": Kind("critical", "ended by an error: {why}"),
    "mode.changed": Kind("critical", "mode is {after}, was {before}: {why}", "after", "mode"),
    "operator.spoke": Kind("warning", "operator {who}: {command} {why}", "command"),
    "limit.breached": Kind("critical", "limit {limit} {subject}: {said}", "name"),
    "ledger.failed": Kind("critical", "the ledger refuses writes, no new orders: {why}", state="ledger"),
    "ledger.restored": Kind("warning", "the ledger accepts writes again", state="ledger"),
    "position.liquidated": Kind(
        "critical", "the venue liquidated {lots} lots ({side}) of {instrument}: halted", "instrument"
    ),
    "watchdog.lost": Kind("critical", "the watchdog is gone, positions only shrink: {why}", state="watchdog"),
    "watchdog.started": Kind("warning", "there is a watchdog again", state="watchdog", ends="watchdog.lost"),
    "venue.closed": Kind("warning", "the venue takes no orders {currency}: {why}", state="venue {currency}"),
    "venue.opened": Kind(
        "warning", "the venue takes orders again {currency}: {why}", state="venue {currency}", ends="venue.closed"
    ),
    "instrument.regridded": Kind(
        "warning", "{instrument} has other lots or ticks now ({lot_size}, {tick_size}): shut until a restart"
    ),
    "account.drift_confirmed": Kind(
        "critical", "{instrument}: {ours_lots} lots, the venue has {venue_lots}", "instrument"
    ),
    "account.outside_found": Kind("warning", "positions in contracts that are not configured: {contracts}"),
    "account.report_failed": Kind("warning", "account {account} cannot be read: {why}", "account"),
    "allocation.held": Kind("warning", "no book could be chosen: held as it is (decision {seq})"),
    "feed.message_refused": Kind("warning", "feed {feed} sent what makes no sense: {why}", "feed"),
    "forecaster.demoted": Kind("warning", "{name} trades no longer: {why}", "name", state="forecaster {name}"),
    "forecaster.proposed": Kind(
        "warning",
        "{name} would have improved what trades: promote it at {weight}, or leave it",
        "name",
        state="forecaster {name}",
    ),
    "greeks.diverged": Kind(
        "warning", "{instrument}: the venue's delta is {venue_delta}, ours {delta}", "instrument", "greeks"
    ),
    "instruments.unlisted": Kind("warning", "account {account}: its contracts cannot be listed: {why}", "account"),
    "order.circuit_opened": Kind("warning", "{instrument}: orders refused in a row, paused: {why}", "instrument"),
    "order.outcome_unknown": Kind("warning", "an order went without an answer: {why}"),
    "order.orphaned": Kind("critical", "an order of ours has no place here: {order} {why}", "order"),
    "order.surprised": Kind("warning", "order {client_order_id}: {input} while {state}"),
    "surface.doubted": Kind(
        "warning", "the volatility surface of {underlying} is not relied upon: {why}", state="surface {underlying}"
    ),
    "surface.trusted": Kind(
        "warning",
        "the volatility surface of {underlying} is relied upon again",
        state="surface {underlying}",
        ends="surface.doubted",
    ),
}


class Alerts:
    """Sends alerts as configured; `source` says who speaks. Give `tell` to the runner, `run` to a task."""

    def __init__(self, settings: AlertSettings, source: str) -> None:
        self._settings, self._source = settings, source
        self._told: dict[tuple[str, str], tuple[str, float]] = {}  # of each alert: its value and when it was last sent
        self._held: dict[tuple[str, str], int] = {}  # how often it was held back since
        self._closing = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None
        self._sinks: list[Sink] = []
        if settings.webhook is not None:
            self._sinks.append(webhook(settings.webhook.reveal(), settings.per_hour, self._closing))
        if settings.telegram is not None:
            chat = settings.telegram
            self._sinks.append(telegram(chat.token.reveal(), chat.chat_id, settings.per_hour, self._closing))

    # --- in --------------------------------------------------------------------------------------

    def tell(self, decision: Decision) -> None:
        """Queue what a decision gives reason for. Never waits."""
        if not self._sinks:
            return
        for note in decision.notes:
            self.note(note)
        if decision.record is not None:
            for breach in _breaches(decision.record):
                self.note(breach)

    def note(self, note: Note) -> None:
        """Queue one note, if it is of a kind that alerts and no repeat. For the core's and the shell's own."""
        kind = KINDS.get(note.event)
        if kind is None or not _is_news(note):
            return
        level, now_s = _level(kind, note), monotonic()
        subject = str(note.fields.get(kind.subject, "")) if kind.subject else ""
        state = kind.state.format_map(_Fields(note.fields))
        key, value = ((state, ""), note.event + subject) if state else ((note.event, subject), "")
        if level == "warning" and self._settings.min_level == "critical":
            if kind.state:  # it is left all the same: to come back to it is news
                self._told.pop(key, None)
            return
        before = self._told.get(key)
        if kind.ends and (before is None or before[0] != kind.ends):  # every run starts with it
            return
        if before is not None and before[0] == value and now_s - before[1] < self._settings.repeat_after_s:
            self._held[key] = self._held.get(key, 0) + 1
            return
        self._remember(key, value, now_s)
        alert = self._alert(note, kind, level, self._held.pop(key, 0))
        for sink in self._sinks:
            sink.offer(alert)

    def _remember(self, key: tuple[str, str], value: str, now_s: float) -> None:
        self._told.pop(key, None)
        self._told[key] = (value, now_s)
        if len(self._told) > KNOWN:  # the one longest ago
            oldest = next(iter(self._told))
            del self._told[oldest]
            self._held.pop(oldest, None)

    def _alert(self, note: Note, kind: Kind, level: str, held: int) -> Alert:
        fields = clean(note.fields)
        text = kind.text.format_map(_Fields(fields)) + (f" ({held} more since the last message)" if held else "")
        utc = datetime.now(UTC).isoformat(timespec="milliseconds")
        return Alert(self._source, level, note.event, text, fields, utc)

    # --- out -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send until closed. A sink that fails is its own trouble."""
        self._task = asyncio.current_task()
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for sink in self._sinks:
                group.create_task(sink.run(session))

    async def close(self) -> None:
        """Try for two seconds to send what is queued; what fails now is not tried again."""
        self._closing.set()
        for sink in self._sinks:
            sink.wake()
        running = self._task
        if running is None or running.done():  # the task was ended before us: what it left is still queued
            running = asyncio.create_task(self.run())
        await asyncio.wait({running}, timeout=CLOSE_S)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class _Fields(dict[str, Any]):
    """A field that a note has not is no reason to lose the alert."""

    def __missing__(self, key: str) -> str:
        return ""


def _level(kind: Kind, note: Note) -> str:
    """A mode in which trading goes on, or that an operator chose for a while, is no alarm."""
    calm = note.event == "mode.changed" and note.fields.get("after") not in ("halted", "reduce_only")
    return "warning" if calm else kind.level


def _is_news(note: Note) -> bool:
    """The shell's own command to drain is told by `run.ended`."""
    return not (note.event == "operator.spoke" and note.fields.get("who") == "shell")


def _breaches(record: DecisionRecord) -> Iterator[Note]:
    """Limits used beyond what they allow. What cannot be measured stops orders, and is told by the mode or a feed."""
    for use in record.uses:
        if use.used > use.allowed and use.limit not in BUDGETS:
            name = f"{use.limit} {use.subject}"
            said = " used of ".join(used_allowed({"limit": use.limit, "used": use.used, "allowed": use.allowed}))
            fields: dict[str, str | int | float | bool] = {
                "limit": use.limit, "subject": use.subject, "used": round(use.used, 4), "allowed": use.allowed,
                "name": name, "said": said, "seq": record.seq,
            }  # fmt: skip
            yield Note("limit.breached", fields)
