"""The drawings of a surface's page: smiles, term structure, residuals, local volatility, arbitrage.

What belongs to an expiry has a colour of its own, from the shortest to the longest.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import groupby

import numpy as np

from dea_daemon.domain.instruments import BoolArray, FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.research.chains import K_MAX, Study, local_volatility, volatilities, within
from dea_daemon.research.svg import Plot, axes, colours, curve, inner, key, picture, ramp, short, ticks

_HEAT = ((48, 32, 110), (45, 110, 180), (40, 170, 140), (230, 190, 60), (225, 85, 50))
BAR_LEAST = 1.6  # pixels: half of what is drawn of the narrowest quote
_Z = np.linspace(-3.0, 3.0, 61)


def expiry_name(ns: int) -> str:
    when = datetime.fromtimestamp(ns // 10**9, UTC)
    return f"{when.day} {when:%b %y}"


def expiries_key(study: Study) -> str:
    names = [expiry_name(smile.expiry_ns) for smile in study.fitted.smiles]
    return key(names, colours(len(names)))


# --- smiles -----------------------------------------------------------------------------------------------------


def smiles(study: Study) -> str:
    """A panel an expiry: quotes as bars from bid to ask, red where the surface misses them, and the surface."""
    return f'<div class="panels">{"".join(_panel(study, n) for n in range(len(study.quotes)))}</div>'


def _panel(study: Study, n: int) -> str:
    q = study.quotes[n]
    fitted = {smile.expiry_ns: s for s, smile in enumerate(study.fitted.smiles)}.get(q.expiry_ns)
    sd = float(np.median(q.iv)) * np.sqrt(q.tau_years) if len(q.k) else np.nan
    if fitted is not None:
        sd = float(np.sqrt(np.interp(0.0, study.curves.k, study.curves.w[fitted])))
    low, high = (min(q.k[0], -sd), max(q.k[-1], sd)) if len(q.k) else (-2.0 * sd, 2.0 * sd)
    low, high = (float(v) for v in (low - 0.06 * (high - low), high + 0.06 * (high - low)))
    k = np.linspace(low, high, 90)
    drawn = np.zeros(0)
    if fitted is not None:
        drawn = volatilities(study.fitted, [q._replace(k=k)])[0] if len(q.k) else _smile_of(study, fitted, k)
    every = 100.0 * np.concatenate((q.iv, drawn))
    bottom, top = (float(every.min()), float(every.max())) if len(every) else (0.0, 100.0)
    room = 0.12 * (top - bottom) + 0.5
    plot = Plot(low, high, bottom - room, top + room, width=300, height=196, left=34, top=22, right=8)
    bars = "".join(_bars(plot, q.k[rows], q.low[rows], q.high[rows], kind) for kind, rows in _kinds(study, n))
    line = curve(plot, k, 100.0 * drawn) if len(drawn) else ""
    return picture(plot, axes(plot, "k = ln(K/F)", "% a year"), inner(plot, line, bars), _head(study, n), label="smile")


def _smile_of(study: Study, s: int, k: FloatArray) -> FloatArray:
    w = np.interp(k, study.curves.k, study.curves.w[s])
    return np.asarray(np.sqrt(w / study.curves.tau_years[s]))


def _kinds(study: Study, n: int) -> Iterator[tuple[str, BoolArray]]:
    """Quotes of an expiry by how they are drawn."""
    q, gone = study.quotes[n], study.dropped[n]
    good = within(volatilities(study.fitted, [q])[0], q)
    yield "bar", good & ~gone
    yield "out", ~good & ~gone
    yield "gone", gone


def _bars(plot: Plot, k: FloatArray, low: FloatArray, high: FloatArray, kind: str) -> str:
    """From bid to ask; what was left out is crossed besides."""
    parts = []
    bottom, top = plot.y(plot.clip(100.0 * low)).tolist(), plot.y(plot.clip(100.0 * high)).tolist()
    for x, a, b in zip(plot.x(k).tolist(), bottom, top, strict=True):
        mid, half = 0.5 * (a + b), max(0.5 * (a - b), BAR_LEAST)
        parts.append(f"M{x:.1f} {mid + half:.1f}V{mid - half:.1f}")
        if kind == "gone":
            parts.append(f"M{x - 4:.1f} {mid - 4:.1f}l8 8m0 -8l-8 8")
    return f'<path class="{kind}" d="{"".join(parts)}"/>' if parts else ""


def _head(study: Study, n: int) -> str:
    q = study.quotes[n]
    gone = int(study.dropped[n].sum())
    inside = int((within(volatilities(study.fitted, [q])[0], q) & ~study.dropped[n]).sum())
    told = f"{inside} of {len(q.k)} inside" + (f", {gone} dropped" if gone else "")
    days = q.tau_years * DAYS_PER_YEAR
    bad = ' class="bad"' if inside < len(q.k) else ""
    return (
        f'<text class="head" x="4" y="13">{expiry_name(q.expiry_ns)} · {days:.{1 if days < 10 else 0}f} d</text>'
        f'<text{bad} x="292" y="13" text-anchor="end">{told if len(q.k) else "nobody quotes it"}</text>'
    )


# --- term structure, residuals ----------------------------------------------------------------------------------


def term_structure(study: Study) -> str:
    """Volatility at the money of each expiry, and the forward volatility that lies between two."""
    tau = study.curves.tau_years
    w = study.curves.w[:, study.curves.w.shape[1] // 2]
    root = np.sqrt(DAYS_PER_YEAR * tau)
    ahead = 100.0 * np.sqrt(np.maximum(np.diff(w, prepend=0.0) / np.diff(tau, prepend=0.0), 0.0))
    atm = 100.0 * np.sqrt(w / tau)
    low, high = float(min(atm.min(), ahead.min())), float(max(atm.max(), ahead.max()))
    room = 0.1 * (high - low) + 0.5
    plot = Plot(0.0, float(root[-1]) * 1.03, low - room, high + room)
    across = [(float(np.sqrt(d)), f"{d:g} d") for d in (1, 7, 30, 90, 180, 365, 730) if np.sqrt(d) <= plot.x1]
    edges = np.concatenate(([0.0], root))
    steps = curve(plot, np.repeat(edges, 2)[1:-1], np.repeat(ahead, 2), "step")
    dots = "".join(
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escape(name)}: {v:.2f} %</title></circle>'
        for x, y, v, name in zip(
            plot.x(root).tolist(),
            plot.y(atm).tolist(),
            atm.tolist(),
            [expiry_name(s.expiry_ns) for s in study.fitted.smiles],
            strict=True,
        )
    )
    drawn = inner(plot, steps, curve(plot, root, atm), dots)
    names = key(("at the money", "forward, between expiries"), ("var(--blue)", "var(--amber)"))
    return names + picture(plot, axes(plot, "time to expiry (√)", "% a year", across), drawn, label="term structure")


def residuals(study: Study) -> str:
    """How far the surface is from each mid, in half-spreads, against k: inside is between −1 and 1."""
    reach = 2.5
    every = np.concatenate([q.k for q in study.quotes])
    if not len(every):
        return "<p>nobody quotes anything</p>"
    edge = min(float(np.abs(every).max()) * 1.04, 2.5)
    plot = Plot(-edge, edge, -reach, reach)
    parts = [f'<path class="edge" d="M{plot.left} {plot.y(np.array(v)):.1f}H{plot.width}"/>' for v in (-1.0, 1.0)]
    for q, iv, colour in zip(
        study.quotes, volatilities(study.fitted, study.quotes), colours(len(study.quotes)), strict=True
    ):
        off = np.clip((iv - q.iv) / np.maximum(0.5 * (q.high - q.low), 1e-6), -0.985 * reach, 0.985 * reach)
        dots = "".join(
            f"M{x:.1f} {y:.1f}h0" for x, y in zip(plot.x(q.k).tolist(), plot.y(off).tolist(), strict=True) if y == y
        )
        parts.append(f'<path style="stroke:{colour};stroke-width:4.5;stroke-linecap:round;opacity:.8" d="{dots}"/>')
    return picture(plot, axes(plot, "k = ln(K/F)", "half-spreads"), inner(plot, *parts), label="residuals")


# --- local volatility, arbitrage --------------------------------------------------------------------------------


def heat(study: Study) -> str:
    """Local volatility: a row between two expiries, the nearest below."""
    found = 100.0 * local_volatility(study.fitted, _Z)
    rows = len(found)
    known = found[found > 0.0]
    if not len(known):
        return "<p>none</p>"
    low, high = (float(v) for v in np.quantile(known, (0.02, 0.98)))
    plot = Plot(-3.0, 3.0, 0.0, float(rows), width=1200, height=50 + 24 * rows, left=74, right=66)
    shades = [[_shade(v, low, high) for v in row] for row in found.tolist()]
    cells = "".join(_row(plot, s, row) for s, row in enumerate(shades))
    middle = plot.y(np.arange(0.5, rows)).tolist()
    names = "".join(
        f'<text class="end" x="{plot.left - 6}" y="{y + 4:.1f}">{expiry_name(smile.expiry_ns)}</text>'
        for y, smile in zip(middle, study.fitted.smiles, strict=True)
    )
    across = "".join(
        f'<text class="mid" x="{plot.x(np.array(z)):.1f}" y="{plot.height - plot.bottom + 14}">{short(z)}</text>'
        for z in ticks(-3.0, 3.0, 6)
    )
    title = f'<text class="end" x="{plot.width - plot.right}" y="{plot.height - 4}">k in deviations σ√τ</text>'
    return picture(plot, cells, names, across, title, _scale(plot, low, high), label="local volatility")


def _shade(value: float, low: float, high: float) -> str:
    """By ratios: a crash's wing must not make one colour of all the rest."""
    if not value > 0.0:
        return "none"
    return ramp(float(np.log(value / low) / max(np.log(high / low), 1e-9)), _HEAT)


def _row(plot: Plot, s: int, shades: Sequence[str]) -> str:
    """Cells of one colour side by side are one rectangle."""
    edge = np.concatenate((_Z - 0.05, [_Z[-1] + 0.05])).clip(-3.0, 3.0)
    x, top = plot.x(edge).tolist(), float(plot.y(np.array(s + 1.0)))
    height = float(plot.y(np.array(float(s)))) - top
    drawn, at = [], 0
    for shade, run in groupby(shades):
        end = at + len(list(run))
        place = f'x="{x[at]:.1f}" y="{top:.1f}" width="{x[end] - x[at] + 0.3:.1f}" height="{height - 1:.1f}"'
        drawn.append(f'<rect {place} fill="{shade}"/>')
        at = end
    return "".join(drawn)


def _scale(plot: Plot, low: float, high: float) -> str:
    """What the colours mean, at the right."""
    x, count = plot.width - plot.right + 14, 24
    tall = (plot.height - plot.top - plot.bottom) / count
    bars = "".join(
        f'<rect x="{x}" y="{plot.top + n * tall:.1f}" width="12" height="{tall + 0.4:.1f}" '
        f'fill="{ramp(1.0 - n / (count - 1), _HEAT)}"/>'
        for n in range(count)
    )
    ends = ((plot.top + 9, high), (plot.height - plot.bottom, low))
    return bars + "".join(f'<text x="{x + 16}" y="{y}">{value:.0f} %</text>' for y, value in ends)


def butterfly(study: Study) -> str:
    """Gatheral's g of every expiry: below zero is an arbitrage."""
    return _lines(study, study.curves.g, (-0.15, 2.0), "g", study.curves.g.shape[0])


def calendar(study: Study) -> str:
    """By which share of itself total variance grows from one expiry to the next: below zero is an arbitrage."""
    w = study.curves.w
    return _lines(study, np.diff(w, axis=0) / w[1:], (-0.08, 1.0), "(w₂ − w₁) / w₂", w.shape[0], first=1)


def _lines(study: Study, of: FloatArray, reach: tuple[float, float], name: str, count: int, first: int = 0) -> str:
    plot = Plot(-K_MAX, K_MAX, *reach)
    thin = slice(None, None, 20)
    zero = f'<path class="edge" d="M{plot.left} {plot.y(np.array(0.0)):.1f}H{plot.width}"/>'
    shades = colours(count)[first:]
    parts = [curve(plot, study.curves.k[thin], row[thin], "", shade) for row, shade in zip(of, shades, strict=True)]
    return picture(plot, axes(plot, "k = ln(K/F)", name), inner(plot, zero, *parts), label=name)
