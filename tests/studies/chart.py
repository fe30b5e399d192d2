"""A chart of curves on two logarithmic axes, as an SVG by itself: no script, no font, light or dark as its reader."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from dea_daemon.domain.instruments import FloatArray

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 74, 24, 56, 56
STYLE = """
.ground { fill: #ffffff; stroke: #e1e5ea } .grid { stroke: #e8ebef }
text { fill: #1c2430; font: 13px system-ui, sans-serif }
.dim { fill: #66717f } .title { font-size: 16px; font-weight: 600 } .small { font-size: 11.5px }
.blue { --ink: #1f6feb } .amber { --ink: #b7791f } .green { --ink: #1a8a3f } .violet { --ink: #7d4fd0 }
polyline { fill: none; stroke: var(--ink); stroke-width: 2 } circle { fill: var(--ink) } text.ink { fill: var(--ink) }
@media (prefers-color-scheme: dark) {
  .ground { fill: #161b22; stroke: #262d37 } .grid { stroke: #222933 } text { fill: #d7dde5 } .dim { fill: #8b96a4 }
  .blue { --ink: #58a6ff } .amber { --ink: #e0a93a } .green { --ink: #3fb950 } .violet { --ink: #b083f0 }
}
"""


@dataclass(frozen=True, slots=True)
class Curve:
    """Points x, y [P] > 0, joined in their order; a label by each, none where it is empty. `ink`: blue, amber, green or
    violet. `side`: labels stand above and to the right of the points, or below and to the left."""

    name: str
    ink: str
    x: FloatArray
    y: FloatArray
    labels: Sequence[str]
    side: str = "right"
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A logarithmic axis from `low` to `high`, with lines at `ticks` written as `form` has it."""

    name: str
    low: float
    high: float
    ticks: Sequence[float]
    form: str = "{:g}"

    def share(self, at: FloatArray | float) -> FloatArray:
        """Of the way along. Raises ValueError beyond either end."""
        along = np.asarray(np.log(np.asarray(at) / self.low) / np.log(self.high / self.low))
        if not ((along >= 0.0) & (along <= 1.0)).all():
            raise ValueError(f"outside the axis {self.name}: {at}")
        return along


def svg(title: str, about: str, x: Axis, y: Axis, curves: Sequence[Curve]) -> str:
    """The picture as text. `about` is also what a screen reader says. Raises ValueError where a point is outside."""
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(about)}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10"/>',
        f'<text class="title" x="{LEFT}" y="28">{escape(title)}</text>',
        f'<text class="dim small" x="{LEFT}" y="46">{escape(about)}</text>',
        *_grid(x, y),
        *_legend(curves),
    ]
    for curve in curves:
        parts += _drawn(curve, x, y)
    return "\n".join([*parts, "</svg>", ""])


def _across(axis: Axis, at: FloatArray | float) -> FloatArray:
    return np.round(LEFT + axis.share(at) * (WIDTH - LEFT - RIGHT), 1)


def _up(axis: Axis, at: FloatArray | float) -> FloatArray:
    return np.round(HEIGHT - BOTTOM - axis.share(at) * (HEIGHT - TOP - BOTTOM), 1)


def _grid(x: Axis, y: Axis) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in x.ticks:
        at = _across(x, tick)
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="dim" x="{at}" y="{bottom + 18}" text-anchor="middle">{x.form.format(tick)}</text>')
    for tick in y.ticks:
        at = _up(y, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="dim" x="{LEFT - 8}" y="{at + 4}" text-anchor="end">{y.form.format(tick)}</text>')
    middle = (TOP + bottom) / 2
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 14}" text-anchor="middle">{escape(x.name)}</text>')
    turned = f'x="20" y="{middle}" text-anchor="middle" transform="rotate(-90 20 {middle})"'
    return [*parts, f"<text {turned}>{escape(y.name)}</text>"]


def _legend(curves: Sequence[Curve]) -> list[str]:
    """Top right, in the order given."""
    left, parts = WIDTH - RIGHT - 190, []
    for row, curve in enumerate(curves):
        at = TOP + 22 + 20 * row
        dash = ' stroke-dasharray="4 5"' if curve.dashed else ""
        parts.append(f'<g class="{curve.ink}"><polyline points="{left},{at} {left + 26},{at}"{dash}/>')
        parts.append(f'<circle cx="{left + 13}" cy="{at}" r="4"/></g>')
        parts.append(f'<text x="{left + 34}" y="{at + 4}">{escape(curve.name)}</text>')
    return parts


def _drawn(curve: Curve, x: Axis, y: Axis) -> list[str]:
    across, up = _across(x, curve.x).tolist(), _up(y, curve.y).tolist()
    dash = ' stroke-dasharray="4 5"' if curve.dashed else ""
    points = " ".join(f"{a},{b}" for a, b in zip(across, up, strict=True))
    parts = [f'<g class="{curve.ink}"><polyline points="{points}"{dash}/>']
    anchor, off, below = ("start", 9, -5) if curve.side == "right" else ("end", -9, 14)
    for a, b, label in zip(across, up, curve.labels, strict=True):
        place = f'x="{a + off:.1f}" y="{b + below:.1f}" text-anchor="{anchor}"'
        parts.append(f'<circle cx="{a}" cy="{b}" r="4"/>')
        parts += [f'<text class="ink small" {place}>{escape(label)}</text>'] if label else []
    return [*parts, "</g>"]
