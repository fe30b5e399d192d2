"""The report of a backtest: one page that needs nothing beside it, and the same figures as JSON.

`facts` computes, `page` shows; whoever calls writes the files. The page carries plotly's JavaScript and draws without a
network.
"""

import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from dea_daemon.domain.errors import DataError
from dea_daemon.research import bootstrap, report_words
from dea_daemon.research.benchmarks import compared
from dea_daemon.research.foresight import foresight
from dea_daemon.research.performance import cut, daily_returns, figures, until_ruin
from dea_daemon.research.record import Record
from dea_daemon.research.report_charts import charts
from dea_daemon.research.report_style import SCRIPT, STYLE
from dea_daemon.research.report_words import number, percent, usd

VERSION = 1  # of the JSON's shape


def facts(
    records: Sequence[Record],
    *,
    command: str = "",
    configuration: str = "",
    seed: int = 0,
    paths: int = bootstrap.PATHS,
    max_drawdown: float | None = None,
) -> dict[str, Any]:
    """Everything the page tells in numbers, ready for JSON. The run is the first of the records, the rest stand beside
    it. `max_drawdown`: its exposure was scaled by its distance from that fall, and is so on the bootstrap's paths."""
    run = records[0]
    told = figures(run)
    falls = None
    if told["ruined"] is None and len(daily_returns(run)) >= bootstrap.LEAST:
        daily = daily_returns(run)
        found = (
            bootstrap.drawdown_falls(daily, seed=seed, paths=paths)
            if max_drawdown is None
            else bootstrap.controlled_falls(daily, max_drawdown, seed=seed, paths=paths)
        )
        falls = found._asdict() | {"limit": max_drawdown}
    plain: dict[str, Any] = _plain(
        {
            "version": VERSION,
            "figures": told,
            "beside": compared(run, records[1:], seed=seed, paths=paths),
            "drawdowns": falls,
            "foresight": foresight(until_ruin(run)[0]),
            "seed": seed,
            "command": command,
            "configuration": configuration,
        }
    )
    return plain


def _plain(value: Any) -> Any:
    """What is not a number is None: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def page(records: Sequence[Record], told: dict[str, Any]) -> str:
    """The page of the same records, and of the facts about them."""
    end = len(until_ruin(records[0])[0].at_ns) - 1
    drawn = charts([cut(record, 0, end) for record in records])
    title = f"{told['figures']['name']}: {told['figures']['start'][:10]} to {told['figures']['end'][:10]}"
    body = "\n".join(_sections(told, drawn))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="charts">{_json(drawn)}</script>
<script>{_plotly()}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _json(value: Any) -> str:
    """Safe inside a script element: no `</` can end it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as e:
        raise DataError("the report draws with plotly, which is not installed: pip install plotly") from e
    return str(get_plotlyjs())


# --- sections --------------------------------------------------------------------------------------------


def _sections(told: dict[str, Any], drawn: dict[str, Any]) -> Iterable[str]:
    f = told["figures"]
    yield _header(f)
    if warnings := report_words.warnings(f):
        items = "".join(f"<li>{escape(text)}</li>" for text in warnings)
        yield f'<article class="warn"><h2>Read this first</h2><ul>{items}</ul></article>'
    yield _tiles(report_words.tiles(told))
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in report_words.summary(told))
    yield f'<article class="words">{paragraphs}</article>'
    yield _article("Equity and drawdown", report_words.EQUITY, _chart("equity"))
    yield _article("Beside doing nothing clever", report_words.BESIDE, _beside(told["beside"]))
    yield _exposures(f)
    if "risk" in drawn:
        yield _article("Risk realised against risk aimed at", report_words.RISK, _chart("risk"))
    yield from _foresight(told["foresight"])
    yield _article("What made it", report_words.MADE, _two(_chart("parts"), _chart("parts-time")), _parts(f))
    yield _article("Turnover and cost", report_words.COST, _two(_chart("turnover"), _chart("cost")))
    if "limits" in drawn:
        yield _article("Limits used", report_words.LIMITS, _chart("limits"), _limits(f))
    yield _article("The worst days", report_words.WORST, _worst(f))
    yield _article("Year by year", report_words.YEARS, _years(f))
    if told["drawdowns"]:
        yield _article("How deep it could have been", report_words.falls(told["drawdowns"]), "")
    yield _made_by(told)
    yield "<footer>dea_daemon. Times are UTC. Past results of a model of a venue; not what anybody will earn.</footer>"


def _header(f: dict[str, Any]) -> str:
    line = (
        f"{f['start']} to {f['end']} · {', '.join(f['underlyings'])} · {f['bars']:,} decisions · {f['trades']:,} trades"
    )
    return (
        f"<header><h1>{escape(f['name'])}</h1><p>{escape(line)}</p>"
        '<button id="theme" type="button">light / dark</button></header>'
        "<noscript>The drawings need JavaScript; the tables do not.</noscript>"
    )


def _article(title: str, about: str, *parts: str) -> str:
    return f'<article><h2>{escape(title)}</h2><p class="about">{escape(about)}</p>{"".join(parts)}</article>'


def _two(*parts: str) -> str:
    return f'<div class="two">{"".join(parts)}</div>'


def _chart(name: str) -> str:
    return f'<div id="{name}" role="img" aria-label="{name}"></div>'


def _tiles(rows: Sequence[tuple[str, str, str]]) -> str:
    tiles = (
        f"<div><span>{escape(label)}</span><b>{escape(value)}</b><small>{escape(note)}</small></div>"
        for label, value, note in rows
    )
    return f'<section id="tiles">{"".join(tiles)}</section>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, own: int | None = None) -> str:
    """The first `left` columns are words, the rest numbers; row `own` is the run's."""

    def cells(row: Sequence[str], tag: str) -> str:
        kinds = ("" if n < left else ' class="num"' for n in range(len(row)))
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    kind = {own: ' class="own"'}
    body = "".join(f"<tr{kind.get(n, '')}>{cells(row, 'td')}</tr>" for n, row in enumerate(rows))
    return f'<div class="scroll"><table><thead><tr>{cells(head, "th")}</tr></thead><tbody>{body}</tbody></table></div>'


# --- tables ----------------------------------------------------------------------------------------------


def _beside(rows: Sequence[dict[str, Any]]) -> str:
    """The run first. The gap's interval says whether the difference could be chance."""
    head = (
        "",
        "return a year",
        "volatility",
        "Sharpe [95 %]",
        "run − this [95 %]",
        "deepest fall",
        "leverage",
        "cost a year",
    )
    cells = [
        (
            row["name"] + (f" (ruined {row['ruined'][:10]})" if row["ruined"] else ""),
            percent(row["annual_return"]),
            percent(row["annual_vol_daily"]),
            report_words.interval(row["sharpe_interval"], row["sharpe"]),
            report_words.interval(row["sharpe_gap"], None, sign=True),
            percent(row["max_drawdown"]),
            f"{number(row['leverage'])}×",
            percent(row["cost_per_year"], 2),
        )
        for row in rows
    ]
    noted: dict[str, list[str]] = {}
    for row in rows[1:]:
        for note in row["notes"]:
            noted.setdefault(note, []).append(row["name"])
    notes = "<br>".join(f"{escape('; '.join(names))}: {escape(note)}." for note, names in noted.items())
    return _table(head, cells, own=0) + f"<small>{notes}</small>"


def _exposures(f: dict[str, Any]) -> str:
    names = [*enumerate(f["underlyings"])]
    whole = "".join(f"<h3>{escape(name)}</h3>{_chart(f'exposure-{u}')}" for u, name in names)
    close = [f"<div><h3>{escape(name)} around the worst day</h3>{_chart(f'close-{u}')}</div>" for u, name in names]
    return _article("Exposure against target", report_words.exposure(f), whole, _two(*close))


def _foresight(told: dict[str, Any]) -> Iterable[str]:
    """Tables of what could be judged; nothing where nothing could."""
    judged = (
        (_volatility, "volatility"),
        (_var, "var"),
        (_returns, "returns"),
        (_trials, "trials"),
        (_changes, "changes"),
    )
    if tables := [table(told[name]) for table, name in judged if told[name]]:
        yield _article("How good the forecasts were", report_words.foresight(told), *tables)


def _volatility(told: Sequence[dict[str, Any]]) -> str:
    losses = ("qlike", "ewma_qlike")
    rows = (
        (row["name"], f"{row['days']:,}", *(number(row[loss], 3) for loss in losses), number(row["t"], 1))
        for row in told
    )
    return _table(("next day's volatility", "days", "QLIKE", "EWMA 10 days", "t"), rows)


def _var(told: Sequence[dict[str, Any]]) -> str:
    chances = ("kupiec_p", "christoffersen_p")
    counts = ((row, (f"{row['days']:,}", number(row["expected"], 1), f"{row['exceeded']}")) for row in told)
    rows = ((row["name"], *count, *(number(row[chance]) for chance in chances)) for row, count in counts)
    head = ("loss of 99 days in 100", "days", "beyond it, expected", "beyond it", "p (how many)", "p (in clusters)")
    return _table(head, rows)


def _returns(told: Sequence[dict[str, Any]]) -> str:
    rows = (
        (
            f"{row['underlying']}, {row['name'].replace('_', ' ')}",
            percent(row["weight"], 0),
            f"{row['scored']:,}",
            percent(row["hit_rate"]),
            percent(row["r_squared"], 2, sign=True),
            number(row["t"], 1, sign=True),
        )
        for row in told
    )
    return _table(("returns", "traded weight", "outcomes", "right in sign", "R² against zero", "t"), rows)


def _trials(told: Sequence[dict[str, Any]]) -> str:
    rows = (
        (
            row["name"].replace("_", " "),
            row["state"],
            f"{row['outcomes']:,}",
            number(row["p"], 3),
            number(row["against"], 3),
            percent(row["drift"], 0),
            "" if row["net_gain"] is None else number(row["net_gain"], 2, sign=True),
        )
        for row in told
    )
    head = ("on trial", "is", "outcomes", "p (better with it)", "p (better without)", "drift", "net gain")
    return _table(head, rows, left=2)


def _changes(told: Sequence[dict[str, Any]]) -> str:
    rows = ((row["date"], row["name"].replace("_", " "), row["became"], row["why"]) for row in told)
    return _table(("on trial, changed", "who", "became", "why"), rows, left=4)


def _parts(f: dict[str, Any]) -> str:
    """By part, and by what was decided where there were targets."""
    found = f["attribution"]
    return "".join(_made_of(found[cut], f) for cut in ("parts", "sources") if found[cut])


def _made_of(parts: Sequence[dict[str, Any]], f: dict[str, Any]) -> str:
    rows = [(row["name"], usd(row["usd"], 2), percent(row["share"], 2, sign=True)) for row in parts]
    change = f["attribution"]["change_usd"]
    rows.append(("change of equity", usd(change, 2), percent(change / f["capital_usd"], 2, sign=True)))
    return _table(("part", "USD", "of the capital"), rows, own=len(rows) - 1)


def _limits(f: dict[str, Any]) -> str:
    rows = (
        (row["name"], percent(row["max"]), row["at"], percent(row["mean"]), percent(row["above"], 2))
        for row in f["limits"]
    )
    return _table(("limit", "most used", "when", "mean used", "time above the limit"), rows)


def _worst(f: dict[str, Any]) -> str:
    rows = ((row["date"], row["why"], percent(row["return"], 2, sign=True)) for row in f["worst_days"])
    return _table(("day", "what made it", "return"), rows, left=2)


def _years(f: dict[str, Any]) -> str:
    head = ("year", "return", "volatility", "deepest fall", "turnover", "fees and slippage", "funding")
    rows = (
        (
            row["year"],
            percent(row["return"], sign=True),
            percent(row["vol"]),
            percent(row["max_drawdown"]),
            f"{number(row['turnover'], 1)}×",
            percent(row["cost"], 2),
            percent(row["funding"], 2, sign=True),
        )
        for row in f["calendar_years"]
    )
    return _table(head, rows)


def _made_by(told: dict[str, Any]) -> str:
    command = f"<pre>{escape(told['command'])}</pre>" if told["command"] else ""
    text = told["configuration"]
    folded = f"<details><summary>Configuration</summary><pre>{escape(text)}</pre></details>" if text else ""
    about = f"The bootstrap drew from seed {told['seed']}. The same command over the same data gives the same page."
    article = _article("How to make it again", about, command, folded)
    return article.replace("<article>", '<article class="long">', 1)
