"""Drawings as SVG: small, without script, in the colours of the page they stand in, so that they follow its theme."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.instruments import FloatArray

STYLE = """
svg.plot { display: block; width: 100%; height: auto; }
svg text { fill: var(--dim); font: 11px system-ui, sans-serif; } svg .end { text-anchor: end; }
svg .mid { text-anchor: middle; } svg text.head { fill: var(--text); font-weight: 600; font-size: 12px; }
svg text.bad { fill: var(--red); }
svg path { fill: none; stroke-width: 1.5; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
svg .grid { stroke: var(--grid); stroke-width: 1; } svg .zero { stroke: var(--dim); stroke-width: 1; }
svg .edge { stroke: var(--red); stroke-width: 1.2; stroke-dasharray: 5 4; }
svg .c0 { stroke: var(--blue); } svg .c1 { stroke: var(--amber); } svg .c2 { stroke: var(--violet); }
svg .c3 { stroke: var(--green); } svg .c4 { stroke: var(--pink); }
svg .bar { stroke: var(--text); stroke-width: 1.6; opacity: .6; } svg .out { stroke: var(--red); stroke-width: 2; }
svg .gone { stroke: var(--amber); stroke-width: 2; } svg .step { stroke: var(--amber); stroke-width: 1.6; }
svg .dot { fill: var(--blue); } svg a:hover path { stroke-width: 5; } svg .d0 { fill: var(--blue); }
svg .d1 { fill: var(--amber); } svg .d2 { fill: var(--violet); } svg .d3 { fill: var(--green); }
svg .d4 { fill: var(--pink); }
.panels { display: grid; gap: 10px 14px; grid-template-columns: repeat(auto-fill, minmax(280px, 1fr)); }
.key { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12px; color: var(--dim); }
.key i { display: inline-block; width: 14px; height: 3px; margin-right: 5px; vertical-align: middle; }
"""

RAMP = ((125, 79, 208), (40, 120, 235), (26, 160, 120), (200, 145, 35), (214, 72, 72))  # on light and on dark alike
_NAMED = ("blue", "amber", "violet", "green", "pink") * 8


class Plot(NamedTuple):
    """A picture of width × height whose inner part stands for x0…x1 and y0…y1."""

    x0: float
    x1: float
    y0: float
    y1: float
    width: int = 600
    height: int = 250
    left: int = 46
    top: int = 12
    right: int = 12
    bottom: int = 34

    def x(self, value: FloatArray) -> FloatArray:
        wide = self.width - self.left - self.right
        return np.asarray(self.left + wide * (value - self.x0) / (self.x1 - self.x0))

    def y(self, value: FloatArray) -> FloatArray:
        high = self.height - self.top - self.bottom
        return np.asarray(self.top + high * (self.y1 - value) / (self.y1 - self.y0))

    def clip(self, y: FloatArray) -> FloatArray:
        """What lies outside is drawn just outside, where nobody sees it: a number never gets absurd."""
        room = 0.02 * (self.y1 - self.y0)
        return np.clip(y, self.y0 - room, self.y1 + room)


def picture(plot: Plot, *parts: str, label: str = "") -> str:
    """The picture."""
    box = f"0 0 {plot.width} {plot.height}"
    return f'<svg class="plot" viewBox="{box}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def inner(plot: Plot, *parts: str) -> str:
    """Cut at the edges of the plot: an svg in the svg."""
    wide, high = plot.width - plot.left - plot.right, plot.height - plot.top - plot.bottom
    box = f"{plot.left} {plot.top} {wide} {high}"
    place = f'x="{plot.left}" y="{plot.top}" width="{wide}" height="{high}"'
    return f'<svg {place} viewBox="{box}">{"".join(parts)}</svg>'


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from low to high, about so many."""
    rough = (high - low) / wanted
    if not (rough > 0.0 and np.isfinite(rough)):
        return []
    ten = 10.0 ** np.floor(np.log10(rough))
    step = float(next(ten * m for m in (1.0, 2.0, 5.0, 10.0) if ten * m >= rough))
    return [float(n * step) for n in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def short(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def axes(
    plot: Plot, x_title: str, y_title: str, x_ticks: Sequence[tuple[float, str]] | None = None, unit: str = ""
) -> str:
    """Lines and numbers at round values, and what they are."""
    across = x_ticks if x_ticks is not None else [(v, short(v)) for v in ticks(plot.x0, plot.x1)]
    bottom = plot.height - plot.bottom
    drawn = []
    for v in ticks(plot.y0, plot.y1):
        y = float(plot.y(np.array(v)))
        drawn.append(f'<path class="grid" d="M{plot.left} {y:.1f}H{plot.width - plot.right}"/>')
        drawn.append(f'<text class="end" x="{plot.left - 5}" y="{y + 4:.1f}">{short(v)}{unit}</text>')
    for v, text in across:
        x = float(plot.x(np.array(v)))
        drawn.append(f'<path class="grid" d="M{x:.1f} {plot.top}V{bottom}"/>')
        drawn.append(f'<text class="mid" x="{x:.1f}" y="{bottom + 14}">{escape(text)}</text>')
    drawn.append(f'<text class="end" x="{plot.width - plot.right}" y="{plot.height - 4}">{escape(x_title)}</text>')
    drawn.append(f'<text x="4" y="{plot.height - 4}">{escape(y_title)}</text>')
    return "".join(drawn)


def curve(plot: Plot, x: FloatArray, y: FloatArray, kind: str = "c0", colour: str = "") -> str:
    """A line through points; broken where there is no number."""
    parts, start = [], True
    for a, b in zip(plot.x(x).tolist(), plot.y(plot.clip(y)).tolist(), strict=True):
        if b != b:
            start = True
            continue
        parts.append(f"{'M' if start else 'L'}{a:.1f} {b:.1f}")
        start = False
    style = f' style="stroke:{colour}"' if colour else ""
    return f'<path class="{kind}"{style} d="{"".join(parts)}"/>' if parts else ""


def ramp(share: float, stops: Sequence[tuple[int, int, int]] = RAMP) -> str:
    """A colour from the first stop at 0 to the last at 1."""
    at = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    n = min(int(at), len(stops) - 2)
    mixed = (round(a + (at - n) * (b - a)) for a, b in zip(stops[n], stops[n + 1], strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def colours(count: int) -> list[str]:
    return [ramp(n / max(count - 1, 1)) for n in range(count)]


def key(names: Sequence[str], shades: Sequence[str]) -> str:
    """What the colours mean."""
    marks = (
        f'<span><i style="background:{shade}"></i>{escape(name)}</span>'
        for name, shade in zip(names, shades, strict=True)
    )
    return f'<div class="key">{"".join(marks)}</div>'


# --- over time --------------------------------------------------------------------------------------------------


class Series(NamedTuple):
    """Values [T] at times [T] ns, each with a page to go to; without pages a mere line."""

    name: str
    at_ns: Sequence[int]
    values: FloatArray
    pages: Sequence[str]


def over_time(
    series: Sequence[Series], unit: str, top: float | None = None, tell: Callable[[float], str] = short
) -> str:
    """Lines over time; points lead to their surfaces."""
    series = [one for one in series if np.isfinite(one.values).any()]
    if not series:
        return "<p>none known</p>"
    every = np.concatenate([one.values for one in series])
    every = every[np.isfinite(every)]
    low, high = float(every.min()), float(every.max()) if top is None else top
    room = 0.06 * (high - low) + 0.005 * abs(high)
    at = np.array([ns for one in series for ns in one.at_ns], dtype=np.float64)
    first, last = float(at.min()), float(at.max())
    edge = 0.015 * (last - first) or 3.6e12
    plot = Plot(first - edge, last + edge, low - room, high + room, right=26)
    shown = [_series(plot, one, n % 5, tell) for n, one in enumerate(series)]
    names = key([one.name for one in series], [f"var(--{c})" for c in _NAMED[: len(series)]])
    return names + picture(plot, axes(plot, "", unit, dates(plot.x0, plot.x1)), inner(plot, *shown), label=unit)


def _series(plot: Plot, one: Series, n: int, tell: Callable[[float], str]) -> str:
    at = np.array(one.at_ns, dtype=np.float64)
    across, up = plot.x(at).tolist(), plot.y(plot.clip(one.values)).tolist()
    dots = [
        f'<a href="{escape(page)}"><circle class="d{n}" cx="{x:.1f}" cy="{y:.1f}" r="2.4">'
        f"<title>{escape(one.name)} {_minute(ns)}: {tell(value)}</title></circle></a>"
        for x, y, value, ns, page in zip(across, up, one.values.tolist(), one.at_ns, one.pages, strict=False)
        if value == value
    ]
    return curve(plot, at, one.values, f"c{n}") + "".join(dots)


def _minute(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%d %H:%M}"


def dates(first_ns: float, last_ns: float) -> list[tuple[float, str]]:
    """At most seven round moments (ns, name): beginnings of months, midnights UTC, or hours where days are few."""
    hours = (last_ns - first_ns) / 3.6e12
    steps = (1, 2, 6, 12, 24, 48, 24 * 7, 24 * 14)
    if (step := next((h for h in steps if hours / h <= 6), None)) is None:
        return _months(first_ns, last_ns)
    numbers = range(int(np.ceil(first_ns / (step * 3.6e12))), int(last_ns // (step * 3.6e12)) + 1)
    moments = [n * step * 3.6e12 for n in numbers]
    whens = [datetime.fromtimestamp(ns / 1e9, UTC) for ns in moments]
    names = [f"{w:%H:%M}" if step < 24 and w.hour else f"{w.day} {w:%b}" for w in whens]
    return list(zip(moments, names, strict=True))


def _months(first_ns: float, last_ns: float) -> list[tuple[float, str]]:
    """Beginnings of months, or of every second, third, … where that would be more than seven."""
    first, last = (np.datetime64(int(ns), "ns") for ns in (first_ns, last_ns))
    months = np.arange(first.astype("datetime64[M]") + 1, last.astype("datetime64[M]") + 1)
    months = months[:: -(-len(months) // 7)] if len(months) else months
    starts = months.astype("datetime64[ns]").astype(np.int64).tolist()
    return [(ns, f"{datetime.fromtimestamp(ns // 10**9, UTC):%b %y}") for ns in starts]
