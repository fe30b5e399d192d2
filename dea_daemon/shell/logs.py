"""The log: JSON lines, or text on a terminal (`console`). Configured once, by the command line.

`structlog.get_logger()` anywhere in the shell writes here, and so do warnings of the libraries that use logging.
Nothing here raises into its caller: a line that cannot be written is dropped and counted.
"""

import atexit
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, MutableMapping
from functools import lru_cache
from typing import IO, Any

import msgspec
import structlog

from dea_daemon.domain.decisions import Clip, DecisionRecord, LimitUse, Note, OrderLine
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.shell import console
from dea_daemon.shell.greeks import DELTA, UNITS
from dea_daemon.shell.redaction import HIDDEN, clean, hides, register_secret, scrub
from dea_daemon.shell.sink import Sink

__all__ = ["configure", "flush", "log_decision", "log_note", "register_secret"]

Fields = MutableMapping[str, Any]

BURST = 100  # lines of one event in one second; the rest is counted
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# Notes carry no level: these verbs are bad news.
_BAD_NEWS = (
    "failed", "refused", "rejected", "unknown", "circuit_opened", "confirmed", "found", "closed", "incomplete", "lost",
    "breached", "quarantined", "liquidated", "regridded", "doubted", "demoted", "allocation.held", "order.adopted",
    "mode.changed",
)  # fmt: skip
COUNTED = ("contracts.left_out",)  # events that metrics tell though no decision notes them
lines: Counter[str] = Counter()  # of each of them, in this process

log = structlog.get_logger()
_sink = Sink()
atexit.register(_sink.flush)


def configure(level: str = "info", format: str = "auto", stream: IO[Any] | None = None) -> None:  # noqa: A002 as configured
    """Send the log to `stream` (stderr): as `json`, as `console` text, or `auto`: text where it is a terminal."""
    stream = stream or sys.stderr
    _sink.attach(stream)
    _Lines.console = format == "console" or (format == "auto" and stream.isatty())
    _Lines.colour = stream.isatty() and not os.environ.get("NO_COLOR")
    structlog.configure(
        processors=_PROCESSORS,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _Libraries)]
    root.addHandler(_Libraries())
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)


def flush() -> None:
    """Give a slow reader a second to take what is held."""
    _sink.flush()


def log_decision(record: DecisionRecord) -> None:
    """The one line of a decision: what was held, wanted, cut and sent. On a terminal, idle ones are debug."""
    idle = _Lines.console and not (record.orders or record.notes)
    write = log.debug if idle else log.info
    tightest = max(record.uses, key=_share, default=None)
    write(
        "decision.made",
        seq=record.seq,
        ts=record.ts_recv_ns,
        cause=record.cause,
        mode=record.mode.name.lower(),
        armed=record.armed,
        equity_usd=round(record.equity_usd, 2),
        exposure={
            line.factor: {
                "actual_usd": round(line.actual_usd, 2),
                "target_usd": round(line.target_usd, 2),
                "band_usd": round(line.band_usd, 2),
            }
            for line in record.factors
            if line.factor.startswith(DELTA)
        },
        **_greeks(record),
        tightest=None if tightest is None else f"{_share(tightest):.0%} of {tightest.limit} {tightest.subject}",
        clips=[_clip(clip) for clip in record.clips],
        orders=[_order(line) for line in record.orders],
    )


def _greeks(record: DecisionRecord) -> Fields:
    """{"greeks": {"gamma:BTC": …}} to four figures, what is zero and what is by expiry left out; {} where none is."""
    told = {
        line.factor: float(f"{line.actual_usd:.4g}")
        for line in record.factors
        if line.factor.partition(":")[0] in UNITS and not line.factor.startswith(DELTA) and line.factor.count(":") == 1
    }
    return {"greeks": told} if told else {}


def log_note(note: Note) -> None:
    """An event the core reports; bad news as a warning."""
    bad = note.event.endswith(_BAD_NEWS) and note.fields.get("why") != "stopped"  # by ourselves: no news
    write = log.warning if bad else log.info
    write(note.event, **{_FIELD_NAMES.get(name, name): value for name, value in note.fields.items()})


_FIELD_NAMES = {"event": "of_event", "level": "of_level", "timestamp": "of_timestamp"}  # ours on every line


def _share(use: LimitUse) -> float:
    """How much of a limit is used; all of it where that is not a number."""
    share = abs(use.used) / use.allowed if use.allowed else float("inf")
    return share if share == share else float("inf")


def _clip(clip: Clip) -> str:
    return f"{clip.limit} {clip.subject}: {clip.wanted:.10g} to {clip.allowed:.10g}: {clip.why}"


def _order(line: OrderLine) -> str:
    wanted = f" {line.side} {line.lots} lots ({line.notional_usd:,.0f} USD) at {line.price}" if line.side else ""
    return f"{line.action}{wanted} {line.instrument} {line.client_order_id}: {line.why}"


# --- from an event to a line -----------------------------------------------------------------------------------


class _Repeats:
    """Lets the first BURST lines of an event in a second through, and tells how many it held back."""

    def __init__(self) -> None:
        self._second = 0
        self._counts: dict[str, int] = {}

    def __call__(self, logger: Any, method: str, fields: Fields) -> Fields:
        second = int(time.monotonic())
        if second != self._second:
            self._tell()
            self._second = second
        event = fields["event"]
        if event in COUNTED:
            lines[event] += 1
        count = self._counts[event] = self._counts.get(event, 0) + 1
        if count > BURST:
            raise structlog.DropEvent
        return fields

    def _tell(self) -> None:
        held_back = {event: count - BURST for event, count in self._counts.items() if count > BURST}
        self._counts.clear()
        for event, count in held_back.items():
            _Lines().warning(_render(None, "warning", _begin(None, "warning", _repeated(event, count))))
        if dropped := _sink.dropped:
            _sink.dropped = 0
            lost: Fields = {"event": "log.lines_dropped", "count": dropped}
            _Lines().warning(_render(None, "warning", _begin(None, "warning", lost)))


def _repeated(event: str, count: int) -> Fields:
    return {"event": "log.repeats_dropped", "of_event": event, "count": count}


@lru_cache(2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _timestamp(utc_ns: int) -> str:
    """ISO 8601 to the microsecond; a third of datetime's cost."""
    seconds, ns = divmod(utc_ns, NS_PER_S)
    return f"{_second(seconds)}.{ns // 1_000:06d}Z"


def _begin(_: Any, method: str, fields: Fields) -> Fields:
    """Time, level and event first; secrets out."""
    started: Fields = {
        "timestamp": _timestamp(time.time_ns()),
        "level": "error" if method == "exception" else method,
        "event": fields.pop("event"),
    }
    for name, value in fields.items():
        started[name] = HIDDEN if hides(name) else clean(value)
    return started


def _text(value: Any) -> Any:
    """What JSON has no word for: a numpy number as a number, anything else as its repr."""
    return value.item() if hasattr(value, "item") else repr(value)


_to_json: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=_text).encode


def _render(_: Any, method: str, fields: Fields) -> bytes:
    """The finished line. Whatever is in it, there is one."""
    try:
        text = console.text(fields, _Lines.colour).encode("utf-8", "replace") if _Lines.console else b""
        line = text or _to_json(fields)
    except Exception:  # noqa: BLE001 somebody's __repr__, half a surrogate, an integer of 40 digits
        try:
            line = json.dumps(fields, default=_repr, skipkeys=True).encode()
        except Exception as error:  # noqa: BLE001 likewise
            line = b'{"level":"error","event":"log.line_unprintable","why":"%s"}' % type(error).__name__.encode()
    return scrub(line)


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 somebody's __repr__
        return f"<{type(value).__name__}: {type(error).__name__} in its repr>"


class _Lines:
    """The logger structlog ends in: a finished line to the sink."""

    console = False
    colour = False

    def __init__(self, *_: Any) -> None: ...

    def msg(self, line: bytes) -> None:
        _sink.write(line + b"\n")

    debug = info = warning = error = critical = exception = msg


_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    _Repeats(),
    structlog.processors.format_exc_info,
    _begin,
    _render,
]


class _Libraries(logging.Handler):
    """The libraries' warnings, as events of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            ours = record.name.partition(".")[0] == "dea_daemon"
            fields = {} if ours else {"logger": record.name, "message": record.getMessage()}
            event = record.getMessage() if ours else "library.warned"
            log.log(min(record.levelno, 50) // 10 * 10, event, exc_info=record.exc_info or None, **fields)
        except Exception:  # noqa: BLE001 a library's broken format string is its problem
            log.warning("library.warned", logger=record.name, message=str(record.msg))
