"""The report's drawings, as what plotly draws: plain dictionaries, so that no import of its Python side is needed.

Colours are names ("@blue") that the page puts in by its theme. Long series are thinned for drawing, their extremes
kept.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.research.performance import TOLERANCE, attribution, cut, days, drawdowns, parts, rolling_vol, until_ruin
from dea_daemon.research.record import Record

BUCKETS = 500  # twice to four times as many points are drawn: about what a screen has in columns
LOG_FROM = 3.0  # a series that grew more than this is told by its ratios,
LOG_DECADES = 50.0  # and more than this by its decades
COLOURS = ("@blue", "@amber", "@violet", "@green", "@pink", "@dim")
_HEIGHT = 300
_FLOOR = 0.2  # of the least the run was worth: below that nothing is drawn
_CLOSE_DAYS = 15
_TWO_LINES = {"l": 62, "r": 14, "t": 56, "b": 34}  # room above for a legend of two

Chart = dict[str, Any]


def charts(records: Sequence[Record]) -> dict[str, Chart]:
    """By the id of the element that shows it; the run is the first of the records."""
    run = records[0]
    drawn = {"equity": equity(records), "parts": made(run), "parts-time": made_over_time(run)}
    drawn |= {f"exposure-{u}": exposure(run, u) for u in range(len(run.underlyings))}
    drawn |= {"turnover": turnover(run), "cost": cost(run)}
    drawn |= {f"close-{u}": exposure(close_up(run), u) for u in range(len(run.underlyings))}
    if len(rolling_vol(run)[0]):
        drawn["risk"] = risk(run)
    if run.limits:
        drawn["limits"] = limits(run)
    return drawn


# --- thinning --------------------------------------------------------------------------------------------


def extremes(*series: FloatArray, buckets: int = BUCKETS) -> IntArray:
    """The rows [M] worth drawing of series [T]: the lowest and the highest of each in every bucket, the first and the
    last; NaN is no extreme."""
    t = len(series[0])
    if t <= 2 * buckets:
        return np.arange(t)
    edges = np.linspace(0, t, buckets + 1).astype(np.int64)
    kept = {0, t - 1}
    for values in series:
        low, high = np.where(np.isnan(values), np.inf, values), np.where(np.isnan(values), -np.inf, values)
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            kept.add(first + int(np.argmin(low[first:last])))
            kept.add(first + int(np.argmax(high[first:last])))
    return np.array(sorted(kept))


def numbers(values: FloatArray) -> list[float | None]:
    """Five digits each; None where there is no number."""
    return [float(f"{x:.5g}") if np.isfinite(x) else None for x in values.tolist()]


def dates(at_ns: IntArray) -> list[str]:
    """UTC, to the minute."""
    stamps = np.datetime_as_string(at_ns.astype("datetime64[ns]"), unit="m")
    return [str(text).replace("T", " ") for text in stamps]


def line(at_ns: IntArray, values: FloatArray, name: str, colour: str, **more: Any) -> Chart:
    """One line of [T], thinned."""
    rows = extremes(values)
    width = more.pop("width", 1.4)
    return _drawn(at_ns[rows], values[rows], name, colour, width, **more)


def _drawn(at_ns: IntArray, values: FloatArray, name: str, colour: str, width: float = 1.4, **more: Any) -> Chart:
    style = {"color": colour, "width": width} | more.pop("line", {})
    return {
        "type": "scatter",
        "mode": "lines",
        "x": dates(at_ns),
        "y": numbers(values),
        "name": name,
        "line": style,
    } | more


def _chart(traces: list[Chart], height: int = _HEIGHT, **layout: Any) -> Chart:
    return {"traces": traces, "layout": {"height": height} | layout}


def _axis(title: str, **more: Any) -> Chart:
    return {"title": {"text": title}} | more


# --- the drawings ----------------------------------------------------------------------------------------


def equity(records: Sequence[Record]) -> Chart:
    """Equity of all, and below it the drawdown of each."""
    solvent = [until_ruin(record)[0] for record in records]
    floor = _FLOOR * float(solvent[0].equity_usd.clip(min=1.0).min())  # one book's ruin must not flatten the others
    traces: list[Chart] = []
    for n, record in enumerate(solvent):
        worth = np.where(record.equity_usd > floor, record.equity_usd, np.nan)
        style = {"width": 2.2 if n == 0 else 1.2, "legendgroup": record.name, "legendrank": n + 1}
        colour = COLOURS[n % len(COLOURS)]
        below = -100.0 * np.minimum(drawdowns(record.equity_usd), 1.0)
        lower = {"yaxis": "y2", "showlegend": False, "hovertemplate": "%{y:.1f} %"}
        both = [
            line(record.at_ns, worth, record.name, colour, hovertemplate="$%{y:,.0f}", **style),
            line(record.at_ns, below, record.name, colour, **(style | lower | {"width": 1.6 if n == 0 else 0.9})),
        ]
        traces = both + traces  # the run is drawn last, above the rest
    most = max(float(record.equity_usd.max()) for record in solvent)
    growth = most / max(floor, min(float(record.equity_usd.min()) for record in solvent))
    log = growth > LOG_FROM
    dollars = _axis("equity, USD (log)" if log else "equity, USD", domain=[0.36, 1.0], tickprefix="$", tickformat="~s")
    if log:
        dollars |= {"type": "log", "dtick": "D2" if growth < LOG_DECADES else 1}
    below_axis = _axis("below peak, %", domain=[0.0, 0.28])
    return _chart(traces, 470, yaxis=dollars, yaxis2=below_axis, xaxis={"anchor": "y2"})


def exposure(run: Record, u: int) -> Chart:
    """One underlying: what was held against the target and its band, % of equity."""
    scale = 100.0 / np.where(run.equity_usd > 0.0, run.equity_usd, np.nan)
    held, target = run.exposure_usd[:, u] * scale, run.target_usd[:, u] * scale
    band = np.where(np.isfinite(run.band_usd[:, u]), run.band_usd[:, u], 0.0) * scale
    rows = extremes(held, target)
    at_ns, low, high = run.at_ns[rows], (target - band)[rows], (target + band)[rows]
    silent: Chart = {"hoverinfo": "skip", "connectgaps": False}
    traces = [
        _drawn(at_ns, low, "low", "@clear", 0.0, showlegend=False, **silent),
        _drawn(at_ns, high, "band", "@clear", 0.0, fill="tonexty", fillcolor="@band", **silent),
        _drawn(at_ns, target[rows], "target", "@amber", 1.0, hovertemplate="%{y:.1f} %"),
        _drawn(at_ns, held[rows], "held", "@blue", 1.5, hovertemplate="%{y:.1f} %", line={"shape": "hv"}),
    ]
    if not np.isfinite(target).any():
        traces = traces[-1:]
    return _chart(traces, 260, yaxis=_axis("% of equity", rangemode="tozero"))


def close_up(run: Record) -> Record:
    """The weeks around the worst day: there the band is at work."""
    spans = days(run)
    worst_ns = run.at_ns[spans.last[int(np.argmin(spans.returns(run.equity_usd)))]]
    near = np.flatnonzero(np.abs(run.at_ns - worst_ns) <= _CLOSE_DAYS * NS_PER_DAY)
    return cut(run, int(near[0]), int(near[-1]))


def risk(run: Record) -> Chart:
    """Realised volatility of 30 days against the one aimed at and ± 25 % of it."""
    at_ns, vol = rolling_vol(run)
    traces = [line(at_ns, 100.0 * vol, "realised over 30 days", "@blue", width=1.8, hovertemplate="%{y:.1f} %")]
    layout: Chart = {"yaxis": _axis("% a year", rangemode="tozero")}
    if run.target_vol > 0.0:
        target = 100.0 * run.target_vol
        ends = at_ns[[0, -1]]
        low, high = target * (1.0 - TOLERANCE), target * (1.0 + TOLERANCE)
        silent: Chart = {"hoverinfo": "skip"}
        traces = [
            _drawn(ends, np.full(2, low), "low", "@clear", 0.0, showlegend=False, **silent),
            _drawn(ends, np.full(2, high), "target ± 25 %", "@clear", 0.0, fill="tonexty", fillcolor="@band", **silent),
            _drawn(ends, np.full(2, target), "target", "@amber", 1.2, **silent),
            *traces,
        ]
    return _chart(traces, **layout)


def made(run: Record) -> Chart:
    """What made the change of equity, % of the capital."""
    rows = attribution(run)["parts"][::-1]
    shares = np.array([100.0 * row["share"] for row in rows])
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": numbers(shares),
        "y": [row["name"] for row in rows],
        "text": [f"{share:+z,.2f} %".replace("-", "−") for share in shares.tolist()],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": ["@green" if share >= 0.0 else "@red" for share in shares.tolist()]},
        "hovertemplate": "%{text}<extra></extra>",
    }
    low, high = min(shares.min(), 0.0), max(shares.max(), 0.0)
    room = 0.3 * max(high - low, 1e-6)  # for the numbers beside the bars
    across = _axis("% of the capital", range=[low - room * (low < 0.0), high + room], type="linear")
    return _chart([bars], xaxis=across, yaxis={"automargin": True}, hovermode="closest", showlegend=False)


def made_over_time(run: Record) -> Chart:
    """The same, adding up over time."""
    traces = [
        line(run.at_ns, 100.0 * sums / run.capital_usd, name, COLOURS[n % len(COLOURS)], hovertemplate="%{y:+.2f} %")
        for n, (name, sums) in enumerate(parts(run).items())
    ]
    return _chart(traces, yaxis=_axis("% of the capital"), margin=_TWO_LINES)


def months(run: Record) -> tuple[list[str], IntArray, IntArray]:
    """(name [M], first decision [M], last decision [M]) of the calendar months."""
    number = (run.at_ns - 1).astype("datetime64[ns]").astype("datetime64[M]")
    last = np.flatnonzero(np.append(number[1:] != number[:-1], True))
    return [str(month) for month in number[last]], np.append(0, last[:-1]), last


def _monthly(run: Record, sums: FloatArray, scale: float) -> FloatArray:
    """[M] what a sum [T] grew by, over the mean equity of the month. The first month has what there was at once."""
    _, first, last = months(run)
    starts = sums[first].copy()
    starts[0] = 0.0
    edges = zip(first.tolist(), last.tolist(), strict=True)
    mean = np.array([float(np.mean(run.equity_usd[a : b + 1])) for a, b in edges])
    return np.asarray(scale * (sums[last] - starts) / np.where(mean > 0.0, mean, np.nan))


def _bars(run: Record, name: str, values: FloatArray, colour: str, hover: str) -> Chart:
    """Named by the month's first day, drawn over it."""
    names = [f"{month}-01" for month in months(run)[0]]
    bar: Chart = {"type": "bar", "x": names, "y": numbers(values), "name": name, "marker": {"color": colour}}
    return bar | {"hovertemplate": hover, "xperiod": "M1", "xperiodalignment": "middle"}


def turnover(run: Record) -> Chart:
    """Traded each month, as a multiple of equity."""
    bars = _bars(run, "turnover", _monthly(run, run.turnover_usd, 1.0), "@blue", "%{y:.2f} × equity<extra></extra>")
    return _chart([bars], 240, yaxis=_axis("× equity a month"), showlegend=False)


def cost(run: Record) -> Chart:
    """Fees and slippage each month, and funding beside them, hundredths of a per cent of equity."""
    named = (("fees", run.fees_usd, "@amber"), ("slippage", run.slippage_usd, "@pink"))
    bars = [_bars(run, name, _monthly(run, sums, 1e4), colour, "%{y:.1f} bp") for name, sums, colour in named]
    return _chart(bars, 240, yaxis=_axis("bp of equity a month"), barmode="stack")


def limits(run: Record) -> Chart:
    """How much of each limit was used, %."""
    traces = [
        line(run.at_ns, 100.0 * run.used[:, n], name, COLOURS[n % len(COLOURS)], width=1.1, hovertemplate="%{y:.0f} %")
        for n, name in enumerate(run.limits)
    ]
    full = _drawn(run.at_ns[[0, -1]], np.full(2, 100.0), "the limit", "@red", 1.2, hoverinfo="skip")
    return _chart([*traces, full | {"line": {"color": "@red", "width": 1.2, "dash": "dash"}}], yaxis=_axis("% used"))
