"""Panels one above the other along one axis of days, as an SVG by itself; looks as those of `chart` do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from dea_daemon.domain.instruments import FloatArray
from tests.studies.chart import LEFT, RIGHT, STYLE, WIDTH

FIRST, GAP, FOOT = 86, 44, 55  # above the first panel, between two, below the last
FILLED = """
.area { fill: var(--ink); stroke: none; fill-opacity: .55 } .edge { stroke: var(--ink); stroke-dasharray: 4 4 }
.zero { stroke: #8b96a4 } .event { stroke: #8b96a4; stroke-dasharray: 2 4 }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """`name` stands above it; an axis upwards from `low` to `high` with lines at `ticks`, written as `form` has it;
    `days` is how long all of them are, `top` and `height` where this one stands."""

    name: str
    days: float
    top: float
    height: float
    low: float
    high: float
    ticks: Sequence[float]
    form: str

    def up(self, at: FloatArray | float) -> FloatArray:
        share = (np.asarray(at) - self.low) / (self.high - self.low)
        return np.asarray(np.round(self.top + self.height * (1.0 - share), 1))

    def across(self, day: FloatArray | float) -> FloatArray:
        return np.asarray(np.round(LEFT + np.asarray(day) / self.days * (WIDTH - LEFT - RIGHT), 1))

    def line(self, day: FloatArray, at: FloatArray, ink: str) -> str:
        """Through points [P]."""
        return f'<g class="{ink}"><polyline points="{self._points(day, at)}"/></g>'

    def area(self, day: FloatArray, low: FloatArray, high: FloatArray, ink: str) -> str:
        """Between two lines through points [P]."""
        around = self._points(np.concatenate((day, day[::-1])), np.concatenate((high, low[::-1])))
        return f'<g class="{ink}"><polygon class="area" points="{around}"/></g>'

    def edges(self, at: Iterable[float], ink: str) -> str:
        """Dashed lines all the way along."""
        lines = "".join(self._level("edge", height) for height in at)
        return f'<g class="{ink}">{lines}</g>'

    def legend(self, names: Sequence[str], inks: Sequence[str]) -> list[str]:
        """Of areas, above it, at its right end."""
        parts, left, y = [], WIDTH - RIGHT - 175 * len(names), self.top - 19
        for k, (name, ink) in enumerate(zip(names, inks, strict=True)):
            x = left + 175 * k
            parts.append(f'<g class="{ink}"><rect class="area" x="{x}" y="{y}" width="12" height="12"/></g>')
            parts.append(f'<text class="small" x="{x + 17}" y="{y + 10}">{escape(name)}</text>')
        return parts

    def frame(self, events: Iterable[float]) -> list[str]:
        """Its name, ticks, and a line at each of the days something happened."""
        parts = [f'<text class="small" x="{LEFT}" y="{self.top - 9}">{escape(self.name)}</text>']
        for tick in self.ticks:
            parts.append(self._level("grid" if tick else "zero", tick))
            place = f'x="{LEFT - 8}" y="{self.up(tick) + 4}" text-anchor="end"'
            parts.append(f'<text class="dim small" {place}>{self.form.format(tick)}</text>')
        for day in events:
            x = self.across(day)
            parts.append(f'<line class="event" x1="{x}" x2="{x}" y1="{self.top}" y2="{self.top + self.height}"/>')
        return parts

    def foot(self) -> list[str]:
        """The days, below the last panel."""
        y = self.top + self.height + 18
        days = (f'x="{self.across(day)}" y="{y}">{day}</text>' for day in range(int(self.days) + 1))
        middle = (LEFT + WIDTH - RIGHT) / 2
        named = f'<text x="{middle}" y="{y + 22}" text-anchor="middle">days</text>'
        return [*(f'<text class="dim small" text-anchor="middle" {day}' for day in days), named]

    def _level(self, kind: str, at: float) -> str:
        y = self.up(at)
        return f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'

    def _points(self, day: FloatArray, at: FloatArray) -> str:
        return " ".join(f"{x},{y}" for x, y in zip(self.across(day).tolist(), self.up(at).tolist(), strict=True))


def tops(heights: Sequence[float]) -> list[float]:
    """Where panels so high stand."""
    return [FIRST + sum(heights[:k]) + GAP * k for k in range(len(heights))]


def svg(title: str, about: str, bottom: float, parts: Iterable[str]) -> str:
    """The picture as text, around panels that end at `bottom`. `about` is also what a screen reader says."""
    height = bottom + FOOT
    box = f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(about)}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
            f"<style>{STYLE}{FILLED}</style>",
            f'<rect class="ground" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="10"/>',
            f'<text class="title" x="{LEFT}" y="28">{escape(title)}</text>',
            f'<text class="dim small" x="{LEFT}" y="46">{escape(about)}</text>',
            *parts,
            "</svg>",
            "",
        )
    )
