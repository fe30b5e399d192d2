"""The report of recorded chains: a page of them all, and a page a surface. Each needs nothing beside it but the other.

Pictures are SVG in the page; the one script chooses light or dark.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from dea_daemon.domain.surfaces import Rung
from dea_daemon.research import surface_charts as charts
from dea_daemon.research import svg
from dea_daemon.research.chains import COLUMNS, Study, Told, cells, summary, tenor, volatilities, within
from dea_daemon.research.chains import line as line_of
from dea_daemon.research.report_style import STYLE, article, document, header
from dea_daemon.research.report_words import number, percent

SCRIPT = """
const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
const draw = () => { root.dataset.theme = chosen || (dark.matches ? "dark" : "light"); };
document.getElementById("theme").onclick = () => {
  chosen = root.dataset.theme === "dark" ? "light" : "dark"; draw();
};
dark.addEventListener("change", draw);
draw();
"""
_STYLE = """
a { color: var(--blue); text-decoration: none; } a:hover { text-decoration: underline; }
td.bad { color: var(--red); font-weight: 650; } nav { display: flex; gap: 16px; font-size: 13px; }
#tiles { grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); }
"""
RUNGS = {
    Rung.FITTED: "its own",
    Rung.SHAPED: "its own, eSSVI",
    Rung.LEANING: "level its own, shape the neighbours'",
    Rung.LIFTED: "one quote lifts the neighbours' shape",
    Rung.BETWEEN: "between its neighbours",
}
SUMMARY = (
    "Quotes: out of the money, both sides quoted. Inside: between bid and ask, quotes the fit dropped counted as "
    "outside; worst: the surface with the lowest share. Left out: every fourth quote, found again by a fit that never "
    "saw it. Butterflies and calendars: smiles and adjacent pairs with an arbitrage on |k| ≤ 1.5, at 3,001 points."
)
SMILES = (
    "Bars reach from bid to ask: grey where the surface is inside, red where it misses, crossed in amber what the fit "
    "left out as contradicting the rest."
)
TERM = "Volatility at the money of each expiry. Steps: the forward volatility between two, √(Δw/Δτ)."
RESIDUALS = "Surface less mid, over half the spread: between the dashed lines it is inside bid and ask."
HEAT = (
    "What volatility would be there and then (Dupire): ∂w/∂τ over Gatheral's g, between each expiry and the one "
    "before. Colours go by ratios, their ends are the 2nd and 98th percentile."
)
BUTTERFLY = "The density of each expiry over a positive factor; below zero is a butterfly arbitrage. Least: "
CALENDAR = "Growth of total variance from one expiry to the next; below zero is a calendar arbitrage. Pairs that fall: "


def index(surfaces: Sequence[Told], *, command: str = "", notes: Sequence[str] = ()) -> str:
    """The page of all surfaces, in order of time. Raises nothing where there are none."""
    first, last = (surfaces[n].line["timestamp"][:16].replace("T", " ") for n in (0, -1)) if surfaces else ("", "")
    names = ", ".join(sorted({each.line["underlying"] for each in surfaces}))
    about = f"{len(surfaces):,} surfaces of {names or 'nothing'} · {first} to {last} UTC"
    body = [header("Volatility surfaces", about)]
    if notes:
        body.append(f'<article class="warn"><ul>{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul></article>')
    body.append(article("How good they are", SUMMARY, _table(COLUMNS, [cells(row) for row in summary(surfaces)])))
    body += _over_time(surfaces)
    body.append(
        article(
            "Every surface",
            "A row leads to its page. Mark and SVI: shares inside; arbitrages: smiles and pairs in which SVI has one.",
            _surfaces(surfaces),
        )
    )
    if command:
        body.append(article("How to make it again", "", f"<pre>{escape(command)}</pre>"))
    return _page("Volatility surfaces", body)


def page(study: Study, before: str = "", after: str = "") -> str:
    """One surface's page; `before` and `after`: the files of its neighbours in time."""
    fitted = study.fitted
    told = line_of(study)
    when = told["timestamp"].replace("T", " ").rstrip("Z").partition(".")[0]
    title = f"{fitted.underlying} {when} UTC"
    body = [header(title, f"{told['quotes']:,} quotes of {told['expiries']} expiries"), _ways(before, after)]
    if fitted.why:
        body.append(f'<article class="warn"><p>Not published: {escape(fitted.why)}</p></article>')
    body.append(_tiles(study, told))
    body.append(article("Smiles", SMILES, charts.smiles(study)))
    if fitted.smiles:
        body += _drawings(study, told)
    body.append(article("Expiry by expiry", "", _expiries(study)))
    return _page(title, body)


# --- parts ------------------------------------------------------------------------------------------------------


def _page(title: str, body: Sequence[str]) -> str:
    footer = "dea_daemon. Times are UTC, volatilities a year of 365 days."
    return document(title, STYLE + svg.STYLE + _STYLE, body, footer, SCRIPT)


def _two(*parts: str) -> str:
    return f'<div class="two">{"".join(parts)}</div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], bad: Sequence[Sequence[bool]] = ()) -> str:
    """The first column is words (HTML as it is), the rest numbers; `bad` ones are red."""
    heads = "".join(f"<th{' class=num' if n else ''}>{escape(name)}</th>" for n, name in enumerate(head))
    body = []
    for r, row in enumerate(rows):
        marks = bad[r] if bad else [False] * len(row)
        kinds = (f"{'num' if n else 'keep'}{' bad' if mark else ''}" for n, mark in enumerate(marks))
        body.append("".join(f'<td class="{kind}">{cell}</td>' for kind, cell in zip(kinds, row, strict=True)))
    lines = "".join(f"<tr>{cells_}</tr>" for cells_ in body)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'


def _known(value: float, digits: int = 2) -> str:
    return number(None if value != value else value, digits)


def _share(value: float, digits: int = 1) -> str:
    return percent(None if value != value else value, digits)


# --- all of them ------------------------------------------------------------------------------------------------


def _over_time(surfaces: Sequence[Told]) -> list[str]:
    names = sorted({each.line["underlying"] for each in surfaces})
    of = {name: [each for each in surfaces if each.line["underlying"] == name] for name in names}

    def lines(field: str, scale: float = 100.0) -> list[svg.Series]:
        return [_series(name, of[name], field, scale) for name in names]

    def ways(name: str, field: str, scale: float) -> list[svg.Series]:
        told = (("this surface", ""), ("the venue's mark", "mark_"), ("SVI", "svi_"))
        return [_series(way, of[name], prefix + field, scale) for way, prefix in told]

    inside = [
        f"<div><h3>{escape(n)}</h3>{svg.over_time(ways(n, 'inside_bid_ask', 100.0), '%', 100.0)}</div>" for n in names
    ]
    rmse = [f"<div><h3>{escape(n)}</h3>{svg.over_time(ways(n, 'rmse_vol_pts', 1.0), 'points')}</div>" for n in names]
    level = svg.over_time(lines("atm_30d"), "% a year")
    skew = svg.over_time(lines("risk_reversal_30d"), "points, call less put")
    about = "Beside it the venue's mark and SVI through the same quotes."
    good = article("Share of quotes inside bid and ask", about, _two(*inside))
    far = article("Error", "Root mean square of surface less mid, in volatility points, wide quotes too.", _two(*rmse))
    by_month = _two(
        article("At the money, 30 days", "Every point leads to its surface.", level),
        article("Risk reversal of 25 delta, 30 days", "Below zero puts are dearer.", skew),
    )
    return [_two(good, far), by_month] if len(names) == 1 else [good, far, by_month]


def _series(name: str, of: Sequence[Told], field: str, scale: float) -> svg.Series:
    values = [each.line[field] for each in of]
    numbers = np.array([np.nan if value is None else scale * value for value in values])
    pages = [] if field.startswith(("mark_", "svi_")) else ["surfaces/" + each.line["page"] for each in of]
    return svg.Series(name, [each.utc_ns for each in of], numbers, pages)


def _surfaces(surfaces: Sequence[Told]) -> str:
    head = (
        "surface", "expiries", "quotes", "dropped", "inside", "left out", "RMSE pts", "min g", "calendars",
        "fallbacks", "mark", "SVI", "arbitrages", "fit ms",
    )  # fmt: skip
    rows = [_surface_row(each) for each in surfaces]
    return _table(head, [row for row, _ in rows], [bad for _, bad in rows])


def _surface_row(each: Told) -> tuple[list[str], list[bool]]:
    f: dict[str, Any] = each.line
    when = f["timestamp"][:16].replace("T", " ")
    name = f'<a href="surfaces/{escape(f["page"])}">{when} {escape(f["underlying"])}</a>'
    row = [name, *(f"{f[key]:,}" for key in ("expiries", "quotes", "dropped"))]
    row += [_share(f["inside_bid_ask"]), _share(f["inside_bid_ask_left_out"]), _known(f["rmse_vol_pts"])]
    row += [_known(f["min_g"], 3), f"{f['calendar_violations']}", f"{f['fallback_slices']}"]
    row += [_share(f["mark_inside_bid_ask"]), _share(f["svi_inside_bid_ask"])]
    row += [f"{each.svi.violations}" if each.svi.quotes else "–", _known(f["fit_ms"], 0)]
    bad = [bool(f["why"])] + [False] * (len(row) - 1)
    bad[7], bad[8] = f["butterfly_violations"] > 0, f["calendar_violations"] > 0
    return row, bad


# --- one of them ------------------------------------------------------------------------------------------------


def _ways(before: str, after: str) -> str:
    links = [("../index.html", "all surfaces"), (before, "← before"), (after, "after →")]
    shown = "".join(f'<a href="{escape(to)}">{text}</a>' for to, text in links if to)
    return f"<nav>{shown}</nav>"


def _tiles(study: Study, told: dict[str, Any]) -> str:
    month = tenor(study.fitted)
    violations = f"{study.own.butterflies} butterflies, {study.own.calendars} calendars"
    beside = f"mark {_share(told['mark_inside_bid_ask'])}, SVI {_share(told['svi_inside_bid_ask'])}"
    errors = f"mark {_known(told['mark_rmse_vol_pts'])}, SVI {_known(told['svi_rmse_vol_pts'])}"
    skew = f"risk reversal {_share(month.risk_reversal)}, butterfly {_share(month.butterfly)}"
    aside = f"{told['fallback_slices']} expiries not by their own quotes alone, {told['dropped']} quotes dropped"
    tiles = [
        ("Inside bid and ask", _share(told["inside_bid_ask"]), beside),
        ("Left out, inside", _share(told["inside_bid_ask_left_out"]), f"{study.left_out.quotes} quotes never seen"),
        ("Error", f"{_known(told['rmse_vol_pts'])} pts", errors),
        ("Arbitrage", "none" if study.sound else "found", f"{violations}; least g {_known(told['min_g'], 3)}"),
        ("At the money, 30 d", _share(month.atm), skew),
        ("Fit", f"{_known(told['fit_ms'], 0)} ms", aside),
    ]
    shown = (f"<div><span>{a}</span><b>{b}</b><small>{escape(c)}</small></div>" for a, b, c in tiles)
    return f'<section id="tiles">{"".join(shown)}</section>'


def _drawings(study: Study, told: dict[str, Any]) -> list[str]:
    least = f"{BUTTERFLY}{_known(told['min_g'], 4)}, {study.own.butterflies} of {len(study.fitted.smiles)} below."
    key = charts.expiries_key(study)
    return [
        _two(
            article("Term structure", TERM, charts.term_structure(study)),
            article("Residuals", RESIDUALS, charts.residuals(study), key),
        ),
        article("Local volatility", HEAT, charts.heat(study)),
        _two(
            article("Butterflies: g(k)", least, charts.butterfly(study), key),
            article("Calendars", f"{CALENDAR}{study.own.calendars}.", charts.calendar(study), key),
        ),
    ]


def _expiries(study: Study) -> str:
    fitted = {smile.expiry_ns: smile for smile in study.fitted.smiles}
    head = ("expiry", "days", "forward", "quotes", "dropped", "inside", "at the money", "shape")
    iv = volatilities(study.fitted, study.quotes)
    rows = []
    for q, drawn, gone in zip(study.quotes, iv, study.dropped, strict=True):
        smile = fitted.get(q.expiry_ns)
        inside = int((within(drawn, q) & ~gone).sum())
        level = np.sqrt(smile.variance[len(smile.variance) // 2] / q.tau_years) if smile else float("nan")
        days = q.tau_years * 365.0
        row = [charts.expiry_name(q.expiry_ns), f"{days:.1f}", _known(smile.forward if smile else q.forward, 2)]
        row += [
            f"{len(q.k)}",
            f"{int(gone.sum())}",
            _share(inside / len(q.k)) if len(q.k) else "–",
            _share(float(level), 2),
        ]
        rows.append([*row, RUNGS[smile.rung] if smile else "none"])
    return _table(head, rows)
