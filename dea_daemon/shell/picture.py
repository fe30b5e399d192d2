"""A daemon's status as a picture for a terminal of any size: pure, one status in, lines of styled text out.

The lines are made by hand rather than by rich's tables: a picture is drawn in the trading loop, and tables cost ten
times as much. What a venue or a file said passes `fit`, which lets no control character through.
"""

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from dea_daemon.shell.figures import (
    BOLD,
    DIM,
    GREEN,
    RED,
    YELLOW,
    Line,
    Span,
    Status,
    age,
    duration,
    finite,
    fit,
    listed,
    number,
    percent,
    plain,
    time_of_day,
)
from dea_daemon.shell.limit_text import shut
from dea_daemon.shell.sections import LEFT, NARROW, RIGHT, Section

_WIDE = 150  # from here on there are two columns
_MODES = {"normal": "black on green", "halted": "bold white on red"}


class Picture:
    """What rich prints. `notice` says why the status is old: then all the rest is dimmed, and the header says of when.

    It fills the console, or has all it can tell where `height` is 0.
    """

    def __init__(self, status: Status, title: str, *, hint: str = "", notice: str = "", height: int | None = None):
        self._status, self._title, self._hint, self._notice, self._height = status, title, hint, notice, height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.size.height if self._height is None else self._height
        status = self._status | {"old": bool(self._notice)}
        lines = picture(status, self._title, self._hint, options.max_width, height or 10_000)
        if self._notice:
            dimmed = [[(text, DIM) for text, _ in line] for line in lines]
            lines = [[(fit(self._notice, options.max_width), "bold white on red")], *dimmed][: height or None]
        for i, line in enumerate(lines):
            if i:
                yield Segment.line()
            for text, style in line:
                yield Segment(text, Style.parse(style))


def picture(status: Status, title: str, hint: str, width: int, height: int) -> list[Line]:
    """At most `height` lines of at most `width` cells."""
    head = header(status, title, hint, width)
    left = height - len(head)
    if width < _WIDE:
        sections = [make(status, width) for make in NARROW]
        return [*head, *_stack(sections, left)][:height]
    half = (width - 2) // 2
    columns = [_stack([make(status, half) for make in makers], left) for makers in (LEFT, RIGHT)]
    return [*head, *_abreast(columns[0], columns[1], half)][:height]


# --- the header ------------------------------------------------------------------------------------------------


def header(status: Status, title: str, hint: str, width: int) -> list[Line]:
    """What to know first, in as many lines as the width asks for. Of an old status nothing that may have ended."""
    mode = str(status.get("mode"))
    now = [(f"as it was at {time_of_day(status.get('now_utc_ns'))} UTC", YELLOW)]
    if not status.get("old"):
        now = [
            (f" {mode.replace('_', ' ')} ", _MODES.get(mode, "black on yellow")),
            ("armed", GREEN) if status.get("armed") else ("observe: nothing is sent", YELLOW),
            *_conditions(status),
        ]
    pieces = [
        (title, BOLD),
        (", ".join(sorted({str(row["account"]) for row in listed(status, "instruments")})), BOLD),
        *now,
        (f"up {duration(status.get('uptime_s'))}", ""),
        (f"equity {number(status.get('equity_usd'))} USD", BOLD),
        (f"drawdown {percent(status.get('drawdown'), 2)}", ""),
        (f"fees {number(status.get('fees_usd'), 2)}", ""),
        (f"decision {number(status.get('seq'))}, {age(status.get('decision_age_s'))} ago", ""),
        (f"event to order {_latency(status)}", ""),
        (hint, DIM),
    ]
    if mode != "normal" and status.get("mode_why"):
        pieces.append((f"{mode.replace('_', ' ')} because {status['mode_why']}", YELLOW))
    return _flow([(plain(text), style) for text, style in pieces if text], width)


def _conditions(status: Status) -> list[Span]:
    """Whether all is well, and what is not."""
    wrong = [
        ("draining", YELLOW, status.get("draining")),
        ("not ready", YELLOW, not status.get("ready")),
        ("not recording", RED, not status.get("recording")),
        *((text, YELLOW, True) for text in shut(status)),
    ]
    said = [(text, style) for text, style, so in wrong if so]
    if status.get("healthy"):
        return [("healthy", GREEN), *said]
    return [("unhealthy: " + ", ".join(str(why) for why in status.get("unhealthy") or ["?"]), RED), *said]


def _latency(status: Status) -> str:
    """Median and 99th percentile, in ms."""
    measured = (status.get("latency") or {}).get("event_to_order_us") or {}
    p50, p99 = (number(measured[name] / 1_000, 1) if finite(measured.get(name)) else "-" for name in ("p50", "p99"))
    return f"{p50} ms, p99 {p99} ms"


def _flow(pieces: Iterable[Span], width: int) -> list[Line]:
    """Pieces side by side, on the next line where one does not fit."""
    lines: list[Line] = [[]]
    used = 0
    for text, style in pieces:
        cells = min(cell_len(text), width)
        if used and used + 2 + cells > width:
            lines.append([])
            used = 0
        if used:
            lines[-1].append(("  ", ""))
        lines[-1].append((fit(text, cells), style))
        used += cells + (2 if used else 0)
    return lines


# --- how they share the height ---------------------------------------------------------------------------------


def _stack(sections: Sequence[Section], height: int) -> list[Line]:
    """Each its least number of rows, then one more in turn while there is room."""
    all_rows = [len(section.rows) for section in sections]
    least = [min(section.least, rows) for section, rows in zip(sections, all_rows, strict=True)]
    shown = [0] * len(sections)
    headed = [section.least > 0 for section in sections]
    room = height - sum(headed)
    for enough in (least, all_rows):
        growing = True
        while growing:
            growing = False
            for i, most in enumerate(enough):
                cost = 1 if headed[i] else 2  # a row, and the headline where there is none yet
                if shown[i] < most and cost <= room:
                    room -= cost
                    shown[i] += 1
                    headed[i] = growing = True
    lines: list[Line] = []
    for section, rows, head in zip(sections, shown, headed, strict=True):
        if head:
            lines += [_headline(section, rows), *section.rows[:rows]]
    return lines[: max(height, 0)]


def _headline(section: Section, shown: int) -> Line:
    """Says how many rows there was no room for."""
    hidden = len(section.rows) - shown
    if not hidden:
        return section.head
    (title, style), *rest = section.head
    more = f"+{hidden} "
    columns = "".join(text for text, _ in rest)
    return [(title, style), (more, YELLOW), (columns[len(more) :], DIM)]


def _abreast(left: list[Line], right: list[Line], half: int) -> list[Line]:
    """Two columns as one."""
    lines = []
    for i in range(max(len(left), len(right))):
        first = left[i] if i < len(left) else []
        used = sum(cell_len(text) for text, _ in first)
        lines.append([*first, (" " * (half - used + 2), ""), *(right[i] if i < len(right) else [])])
    return lines
