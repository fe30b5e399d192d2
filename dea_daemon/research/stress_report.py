"""The page of a stress: what each scenario costs, what the daemon did on each path, and which limits were hit.

`lines` are the same facts as plain data, one a scenario or path; the page needs nothing beside it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.research import svg
from dea_daemon.research.report_style import STYLE, article, document, header
from dea_daemon.research.report_words import percent, usd
from dea_daemon.research.stress import Hit, Outcome, Pool

FOOTER = "dea_daemon. Losses are of a model of the book and of a venue; the next crisis has read neither."
_STYLE = """
td.bad { color: var(--red); } td.name { white-space: nowrap; } p.key { margin: 2px 0 8px; }
svg .loss { fill: var(--red); stroke: none; opacity: .78; }
svg .gain { fill: var(--green); stroke: none; opacity: .78; }
svg text.label { fill: var(--text); font-size: 12px; text-anchor: end; } svg text.told { fill: var(--text); }
svg .still { stroke: var(--dim); stroke-dasharray: 4 3; } svg .many { stroke-width: 1; opacity: .55; }
#tiles { grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); }
.panels { grid-template-columns: repeat(auto-fill, minmax(min(360px, 100%), 1fr)); margin-bottom: 8px; }
svg.wide { min-width: 640px; }
h3 + p.about { margin-top: 2px; } article > h3 { margin-top: 16px; }
"""
_SCRIPT = """
const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
const draw = () => { root.dataset.theme = chosen || (dark.matches ? "dark" : "light"); };
document.getElementById("theme").onclick = () => {
  chosen = root.dataset.theme === "dark" ? "light" : "dark"; draw();
};
dark.addEventListener("change", draw);
draw();
"""
AT_ONCE = (
    "Every contract valued again under the moves, all at once and nobody trading. In the grids each underlying stands "
    "at its own worst point. Margin is the standard grid's worst loss of what is left over the equity that backs it, "
    "the worst pool's. Limits: those of the configuration beyond which the book would stand."
)
POOLS = (
    "Each settle currency backs its own contracts, as without cross-collateral: what each pool loses, and the margin "
    "used in it after. Beyond 100 % the venue would liquidate there, whatever the other pools hold."
)
PATHS = (
    "The engine itself, bar by bar at the simulated venue, funding paid. Beside it the book as it stood when the path "
    "began, left alone: no trade, no margin call, expiries settled."
)
BARE = "The portfolio alone is what the file holds, without the daemon's perpetuals."
EPISODE_PICTURES = "Equity over what it was when the episode began: blue the daemon, dashed the book left alone."
DID = (
    "Decisions cut: those at a bar's close in which a limit clipped what was wanted. The venue's doing: fills of a "
    "liquidation, shorts closed by auto-deleveraging, and outages, with the bars in which nothing was heard."
)
RANDOM_PICTURES = (
    "Equity over what it was at the start, each path a line; dashed: the same path, left alone, at the median."
)
SOURCES = "What begins with “assumed” is a round figure of the right size that nobody here measured."


class Driven(NamedTuple):
    """The daemon on one path of T bars: hours [T] since it began; equity_usd, still_usd [T] of the daemon and of the
    book left alone, bare_usd [T] of the portfolio without the daemon's perpetuals (None: there is no portfolio).

    Counts of what it did: fees_usd paid, funding_usd received;
    liquidations are fills, liquidated_before those before the path began; deleveraged contracts the venue closed.
    cuts: of `bars` decisions at a close, those in which a limit clipped something; changes: (hour, mode
    entered); modes, limits: hours in each mode, and beyond each limit. unheard_bars are those outages took whole."""

    name: str
    title: str
    kind: str
    hours: FloatArray
    equity_usd: FloatArray
    still_usd: FloatArray
    bare_usd: FloatArray | None
    orders: int
    fills: int
    turnover_usd: float
    fees_usd: float
    funding_usd: float
    liquidations: int
    deleveraged: int
    deleveraged_usd: float
    unheard_bars: int
    outages: int
    bars: int
    cuts: dict[str, int]
    changes: tuple[tuple[float, str], ...]
    modes: dict[str, float]
    limits: dict[str, float]
    liquidated_before: int = 0

    @property
    def loss_usd(self) -> float:
        """At the end; positive is lost."""
        return float(self.equity_usd[0] - self.equity_usd[-1])

    @property
    def still_loss_usd(self) -> float:
        return float(self.still_usd[0] - self.still_usd[-1])

    @property
    def worst_loss_usd(self) -> float:
        """The most that was lost since the beginning, at any bar."""
        return float(self.equity_usd[0] - self.equity_usd.min())

    @property
    def worst_hour(self) -> float:
        return float(self.hours[int(self.equity_usd.argmin())])

    @property
    def bare_loss_usd(self) -> float | None:
        """The portfolio's, without the daemon's perpetuals."""
        return None if self.bare_usd is None else float(self.bare_usd[0] - self.bare_usd[-1])

    @property
    def deepest(self) -> float:
        """The deepest fall below a peak, as a share of it."""
        return _deepest(self.equity_usd)


def _deepest(equity: FloatArray) -> float:
    peak = np.maximum.accumulate(equity)
    return float(np.max(1.0 - equity / np.where(peak > 0.0, peak, np.nan)))


class Told(NamedTuple):
    """All there is to show. `book` in words, `notes` what a reader should know first."""

    book: str
    equity_usd: float
    outcomes: Sequence[Outcome]
    driven: Sequence[Driven]
    notes: Sequence[str] = ()
    command: str = ""


# --- as data ----------------------------------------------------------------------------------------------------


def lines(told: Told) -> list[dict[str, Any]]:
    """One a scenario, then one a path; USD and shares, losses positive."""
    return [_scenario(one) for one in told.outcomes] + [_path(one) for one in told.driven]


def _scenario(one: Outcome) -> dict[str, Any]:
    return {
        "event": "stress.scenario",
        "name": one.name,
        "loss_usd": round(one.loss_usd, 2),
        "loss_share": one.loss_share,
        "worst": one.worst,
        "parts_usd": {name: round(part, 2) for name, part in one.parts_usd.items()},
        "moves": one.moves,
        "equity_usd": round(one.equity_usd, 2),
        "margin_use": one.margin_use if math.isfinite(one.margin_use) else None,
        "pools": {pool.currency: _pool(pool) for pool in one.pools},
        "hits": [hit._asdict() for hit in one.hits],
        "source": one.source,
    }


def _pool(pool: Pool) -> dict[str, Any]:
    use = pool.margin_use if math.isfinite(pool.margin_use) else None
    return {"loss_usd": round(pool.loss_usd, 2), "equity_usd": round(pool.equity_usd, 2), "margin_use": use}


def _path(one: Driven) -> dict[str, Any]:
    return {
        "event": "stress.path",
        "name": one.name,
        "kind": one.kind,
        "loss_usd": round(one.loss_usd, 2),
        "still_loss_usd": round(one.still_loss_usd, 2),
        **({"portfolio_loss_usd": round(bare, 2)} if (bare := one.bare_loss_usd) is not None else {}),
        "worst_loss_usd": round(one.worst_loss_usd, 2),
        "worst_hour": one.worst_hour,
        "deepest_fall": one.deepest,
        "still_deepest_fall": _deepest(one.still_usd),
        "orders": one.orders,
        "fills": one.fills,
        "turnover_usd": round(one.turnover_usd, 2),
        "fees_usd": round(one.fees_usd, 2),
        "funding_usd": round(one.funding_usd, 2),
        "liquidations": one.liquidations,
        "liquidated_before": one.liquidated_before,
        "deleveraged": one.deleveraged,
        "deleveraged_usd": round(one.deleveraged_usd, 2),
        "outages": one.outages,
        "unheard_bars": one.unheard_bars,
        "bars": one.bars,
        "cuts": one.cuts,
        "modes_entered": [{"hour": hour, "mode": mode} for hour, mode in one.changes],
        "mode_hours": one.modes,
        "limit_hours": one.limits,
    }


# --- as a page --------------------------------------------------------------------------------------------------


def page(told: Told) -> str:
    """One HTML file."""
    body = [header("Stress", f"{told.book} · equity {_usd(told.equity_usd)}")]
    if told.notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in told.notes)
        body.append(f'<article class="warn"><h2>Read this first</h2><ul>{items}</ul></article>')
    body.append(_tiles(told))
    body.append(article("At once: what each scenario costs", AT_ONCE, _bars(told.outcomes), _outcomes(told.outcomes)))
    if len({pool.currency for one in told.outcomes for pool in one.pools}) > 1:
        body.append(article("At once: each pool by itself", POOLS, _pools(told.outcomes)))
    episodes = [one for one in told.driven if one.kind == "episode"]
    if episodes:
        body.append(_episodes(episodes))
    kinds = list(dict.fromkeys(one.kind for one in told.driven if one.kind != "episode"))
    if kinds:
        body.append(_random(told, kinds))
    body.append(article("Where the figures come from", SOURCES, _sources(told.outcomes)))
    if told.command:
        body.append(article("How to make it again", "", f"<pre>{escape(told.command)}</pre>"))
    return document("Stress", STYLE + svg.STYLE + _STYLE, body, FOOTER, _SCRIPT)


def _tiles(told: Told) -> str:
    worst = max(told.outcomes, key=lambda one: one.loss_usd)
    hit = [one for one in told.outcomes if one.hits]
    rows = [
        ("Worst at once", percent(worst.loss_share), f"{worst.title}: {_usd(worst.loss_usd)}"),
        ("Scenarios beyond a limit", f"{len(hit)} of {len(told.outcomes)}", "of the configuration, if nobody trades"),
        ("Wiped out", str(sum(one.equity_usd <= 0.0 for one in told.outcomes)), "scenarios that leave no equity"),
    ]
    if told.driven:
        deepest = max(told.driven, key=lambda one: one.deepest)
        saved = sum(one.still_loss_usd - one.loss_usd for one in told.driven) / len(told.driven)
        beyond = sum(bool(one.limits) for one in told.driven)
        rows += [
            ("Deepest fall lived through", percent(deepest.deepest), deepest.title),
            (
                "Against doing nothing",
                f"{'+' if saved >= 0 else '−'}{_usd(abs(saved))}",
                "a path, in the mean; + is saved",
            ),
            ("Paths beyond a limit", f"{beyond} of {len(told.driven)}", "at some bar, orders at their worst"),
        ]
    tiles = "".join(
        f"<div><span>{escape(a)}</span><b>{escape(b)}</b><small>{escape(c)}</small></div>" for a, b, c in rows
    )
    return f'<section id="tiles">{tiles}</section>'


def _bars(outcomes: Sequence[Outcome]) -> str:
    """Loss over equity of each scenario, one bar each; beyond a whole equity the bar is cut, its figure is not."""
    shown = [one for one in outcomes if one.name != "as_it_is"]
    shares = np.array([one.loss_share for one in shown])
    if not (len(shown) and np.isfinite(shares).all()):
        return "<p>there is no equity to compare with</p>"
    most = float(np.clip(np.abs(shares).max(), 0.01, 1.2))
    least = float(np.clip(shares.min() * 1.3, -most, 0.0))
    row, left, wide = 21, 290, 960
    scale = (wide - left - 230) / (most - least)  # beside the bars their figures
    zero = left + 70 - scale * least
    parts = [f'<path class="zero" d="M{zero:.1f} 4V{row * len(shown) + 6}"/>']
    for n, (one, share) in enumerate(zip(shown, shares.tolist(), strict=True)):
        y, length = 8 + row * n, scale * max(min(share, most), least)
        x, kind = (zero, "loss") if share >= 0.0 else (zero + length, "gain")
        parts.append(f'<text class="label" x="{left}" y="{y + 11}">{escape(one.title)}</text>')
        parts.append(f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{abs(length):.1f}" height="14" rx="2"/>')
        text, anchor = percent(-share, sign=True), "told" if share >= 0.0 else "told end"
        edge = zero + length + (6 if share >= 0.0 else -6)
        mark = f" · {len(one.hits)} limits" if len(one.hits) > 1 else " · 1 limit" if one.hits else ""
        parts.append(f'<text class="{anchor}" x="{edge:.1f}" y="{y + 11}">{escape(text + mark)}</text>')
    high = row * len(shown) + 14
    drawn = f'<svg class="plot wide" viewBox="0 0 {wide} {high}" role="img" aria-label="losses">{"".join(parts)}</svg>'
    return f'<div class="scroll">{drawn}</div>'


def _outcomes(outcomes: Sequence[Outcome]) -> str:
    head = ("scenario", "loss", "of equity", "worst", "moves", "margin used after", "limits beyond which the book is")
    rows = [
        [
            (one.title, "name"),
            (_usd(one.loss_usd), "num"),
            (percent(one.loss_share), "num bad" if one.loss_share >= 1.0 else "num"),
            (one.worst or "none", ""),
            (", ".join(f"{name} {percent(move, 0, sign=True)}" for name, move in one.moves.items() if move), ""),
            (percent(one.margin_use, 0) if math.isfinite(one.margin_use) else "nothing backs it", "num"),
            (_hits(one.hits), "bad"),
        ]
        for one in outcomes
    ]
    return _table(head, rows)


def _hits(hits: Sequence[Hit]) -> str:
    """Each limit once, with its worst subject."""
    worst: dict[str, Hit] = {}
    for hit in hits:
        if hit.limit not in worst or not hit.used <= worst[hit.limit].used:
            worst[hit.limit] = hit
    return ", ".join(f"{hit.limit}{'' if hit.subject == 'book' else ' ' + hit.subject}" for hit in worst.values())


def _pools(outcomes: Sequence[Outcome]) -> str:
    """Two columns a pool."""
    names = list(dict.fromkeys(pool.currency for one in outcomes for pool in one.pools))
    rows = []
    for one in outcomes:
        of = {pool.currency: pool for pool in one.pools}
        cells = [(one.title, "name")]
        for name in names:
            cells.append((_usd(of[name].loss_usd), "num"))
            cells.append(_used(of[name].margin_use))
        rows.append(cells)
    return _table(("scenario", *(f"{name}: {word}" for name in names for word in ("loss", "margin"))), rows)


def _used(margin: float) -> tuple[str, str]:
    text = percent(margin, 0) if math.isfinite(margin) else "nothing backs it"
    return text, "num" if margin < 1.0 else "num bad"


def _episodes(episodes: Sequence[Driven]) -> str:
    panels = "".join(f"<div><h3>{escape(one.title)}</h3>{_equity([one])}</div>" for one in episodes)
    drawn = f'<div class="panels">{panels}</div>'
    bare = BARE if episodes[0].bare_usd is not None else ""
    about = f"{PATHS} {EPISODE_PICTURES} {bare}".rstrip()
    did = f'<h3>What the daemon did</h3><p class="about">{escape(DID)}</p>{_did([(e.title, [e]) for e in episodes])}'
    return article("Lived through: episodes", about, drawn, _came_to(episodes), did)


def _came_to(driven: Sequence[Driven]) -> str:
    """Losses at the end, at the worst, and without the daemon."""
    portfolio = driven[0].bare_usd is not None
    head = (
        "path", "loss", "left alone", *(("portfolio alone",) if portfolio else ()), "worst, at hour",
        "deepest fall", "left alone", "hours beyond a limit",
    )  # fmt: skip
    rows = [
        [
            (one.title, "name"),
            (_usd(one.loss_usd), "num"),
            (_usd(one.still_loss_usd), "num"),
            *(((_usd(bare), "num"),) if (bare := one.bare_loss_usd) is not None else ()),
            (f"{_usd(one.worst_loss_usd)}, {one.worst_hour:.3g}", "num"),
            (percent(one.deepest), "num"),
            (percent(_deepest(one.still_usd)), "num"),
            (_hours(one.limits), "bad"),
        ]
        for one in driven
    ]
    return _table(head, rows)


def _did(groups: Sequence[tuple[str, Sequence[Driven]]]) -> str:
    """A row a group, in the mean of its paths."""
    head = (
        "path", "orders", "fills", "turnover", "fees", "funding", "decisions cut", "modes entered", "liquidated",
        "closed by the venue", "outages",
    )  # fmt: skip
    rows = []
    for title, of in groups:
        many = len(of)
        cuts, modes = Counter[str](), [change for one in of for change in one.changes]
        for one in of:
            cuts.update(one.cuts)
        liquidated, closed = sum(one.liquidations for one in of), sum(one.deleveraged for one in of)
        taken = _usd(sum(one.deleveraged_usd for one in of) / many)
        unheard = sum(one.unheard_bars for one in of)
        rows.append(
            [
                (title, "name"),
                *((f"{sum(getattr(one, name) for one in of) / many:,.0f}", "num") for name in ("orders", "fills")),
                *(
                    (_usd(sum(getattr(one, name) for one in of) / many), "num")
                    for name in ("turnover_usd", "fees_usd", "funding_usd")
                ),
                (_cut(cuts, sum(one.bars for one in of)), ""),
                (_entered(modes, many) or "none", "bad" if modes else ""),
                (str(liquidated), "num bad" if liquidated else "num"),
                (f"{closed}: {taken}" if closed else "0", "num"),
                (_outages(sum(one.outages for one in of), unheard), ""),
            ]
        )
    return _table(head, rows)


def _cut(cuts: dict[str, int], of: int) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in cuts.items()) + f" of {of:,}" if cuts else "none"


def _entered(changes: Sequence[tuple[float, str]], paths: int) -> str:
    """Of one path with the hour, of several how often."""
    if paths == 1 and len(changes) <= 6:
        return ", ".join(f"{_mode(mode)} at {hour:.3g} h" for hour, mode in changes)
    return ", ".join(f"{_mode(mode)} × {count}" for mode, count in Counter(mode for _, mode in changes).items())


def _mode(mode: str) -> str:
    return mode.replace("_", "-")


def _outages(count: int, unheard: int) -> str:
    return f"{count}, {unheard} bars unheard" if unheard else str(count)


def _hours(of: dict[str, float]) -> str:
    return ", ".join(f"{name} {hours:.3g} h" for name, hours in of.items())


def _random(told: Told, kinds: Sequence[str]) -> str:
    """Paths drawn from a model or from history: a picture a kind, and quantiles."""
    pictures, rows = [], []
    for kind in kinds:
        of = [one for one in told.driven if one.kind == kind]
        pictures.append(f"<div><h3>{escape(of[0].title)}</h3>{_equity(of)}</div>")
        loss = np.array([one.loss_usd / one.equity_usd[0] for one in of])
        still = np.array([one.still_loss_usd / one.still_usd[0] for one in of])
        falls = np.array([one.deepest for one in of])
        beyond: dict[str, float] = {}
        for one in of:
            for name, hours in one.limits.items():
                beyond[name] = beyond.get(name, 0.0) + hours / len(of)
        rows.append(
            [
                (of[0].title, "name"),
                (str(len(of)), "num"),
                *((percent(float(np.quantile(x, q))), "num") for x in (loss, still) for q in (0.5, 0.95, 1.0)),
                (percent(float(falls.max())), "num"),
                (_hours(beyond), "bad"),
            ]
        )
    head = (
        "paths", "number", "loss, median", "19 of 20 below", "worst", "left alone: median", "19 of 20 below", "worst",
        "deepest fall", "hours beyond a limit, in the mean",
    )  # fmt: skip
    drawn = f'<div class="panels">{"".join(pictures)}</div>'
    groups = [([one for one in told.driven if one.kind == kind]) for kind in kinds]
    did = f"<h3>What the daemon did, a path in the mean</h3>{_did([(of[0].title, of) for of in groups])}"
    return article("Lived through: paths drawn", f"{PATHS} {RANDOM_PICTURES}", drawn, _table(head, rows), did)


def _equity(of: Sequence[Driven]) -> str:
    """Equity over its start."""
    shares = [one.equity_usd / one.equity_usd[0] for one in of]
    still = np.median(np.stack([one.still_usd / one.still_usd[0] for one in of]), axis=0)
    every = np.concatenate([*shares, still])
    low, high = 100.0 * float(every.min()), 100.0 * float(every.max())
    room = max(0.05 * (high - low), 0.1)
    hours = of[0].hours
    days = hours[-1] - hours[0] > 120.0
    across, unit = (hours / 24.0, "days") if days else (hours, "hours")
    plot = svg.Plot(float(across[0]), float(across[-1]), low - room, high + room, width=420, height=230)
    kind = "c0" if len(of) == 1 else "c0 many"
    drawn = [svg.curve(plot, *_thinned(across, 100.0 * share), kind) for share in shares]
    left_alone = svg.curve(plot, *_thinned(across, 100.0 * still), "still")
    return svg.picture(
        plot, svg.axes(plot, unit, "% of its start"), svg.inner(plot, *drawn, left_alone), label="equity"
    )


def _thinned(x: FloatArray, y: FloatArray, most: int = 300) -> tuple[FloatArray, FloatArray]:
    """About so many points; the lowest of each stretch, as that is what is looked for."""
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), most + 1).astype(np.int64)
    kept = [first + int(np.argmin(y[first:last])) for first, last in pairwise(edges.tolist())]
    kept = sorted({0, *kept, len(x) - 1})
    return x[kept], y[kept]


def _sources(outcomes: Sequence[Outcome]) -> str:
    rows = [[(one.title, "name"), (one.source, "")] for one in outcomes if one.source]
    return _table(("scenario", "source"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Cells with their class."""
    first = rows[0] if rows else []
    kinds = ["num" if "num" in kind else "" for _, kind in first] or [""] * len(head)
    top = "".join(f'<th class="{kind}">{escape(cell)}</th>' for cell, kind in zip(head, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f'<td class="{kind}">{escape(cell)}</td>' for cell, kind in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _usd(amount: float) -> str:
    return usd(amount)
