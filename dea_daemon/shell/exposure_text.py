"""An exposure (`shell.exposure`) as tables for a person."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from dea_daemon.shell.figures import age, amount, as_text, finite, number, percent, plain
from dea_daemon.shell.greeks import BUCKETS, BY_EXPIRY, UNITS, curved

Told = dict[str, Any]
_GREEKS = {"gamma 1 %": "gamma", "vega pt": "vega", "theta day": "theta", "carry day": "carry"}
_BY_EXPIRY = {"vega": "vega per point", "basis": "basis per 1 % a year"}
_RESTS_ON = {
    "surface": "the surface", "quotes": "its quotes", "mark": "the mark", "price": "its price",
    "extrapolated": "its wings", "last": "before", "neighbour": "others",
}  # fmt: skip


def table(told: Told, title: str, *, on_terminal: bool) -> str:
    """All of it as text, in colours and as wide as the screen where it goes to a terminal."""
    return as_text(_parts(told, title), on_terminal=on_terminal)


def _parts(told: Told, title: str) -> Iterator[RenderableType]:
    when = datetime.fromtimestamp(told["utc_ns"] / 1e9, UTC)
    yield Text(f"{plain(title)}, {when:%Y-%m-%d %H:%M:%S} UTC, equity {number(told['equity_usd'])} USD")
    yield _underlyings(told)
    if any(line[name] for line in told["greeks"].values() for name in BY_EXPIRY.values()):
        yield _expiries(told["greeks"])
    if told["positions"]:
        yield _positions(told["positions"])
    yield from _options(told["options"])


def _table(title: str, left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    made = Table(title=title, title_justify="left", title_style="bold cyan", header_style="bright_black")
    for name in left:
        made.add_column(name, overflow="fold")
    for name in right:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def _underlyings(told: Told) -> Table:
    """Delta in its parts and the Greeks of each underlying, and what is in currencies that are none."""
    working = any(line["working_least_usd"] or line["working_most_usd"] for line in told["factors"])
    options = bool(curved(told["greeks"]))
    greeks = _GREEKS if options else {"carry day": "carry"}
    may_fill = ("working",) if working else ()
    made = _table("exposure, USD", ("",), ("held in coin", "positions", "delta", *may_fill, *greeks))
    lines = {line["factor"]: line for line in told["factors"]}
    for factor, line in lines.items():
        kind, _, name = factor.partition(":")
        if kind not in ("delta", "cash") or (kind == "cash" and line["exposure_usd"] == 0):
            continue
        cells = [_usd(line[key]) for key in ("base_usd", "positions_usd")]
        cells.append(Text(number(line["exposure_usd"]), "bold") if kind == "delta" else _nothing())
        if working:
            cells.append(Text(f"{number(line['working_least_usd'])} … +{number(line['working_most_usd'])}"))
        cells += [_fine(lines[f"{greek}:{name}"]["exposure_usd"]) if kind == "delta" else _nothing()
                  for greek in greeks.values()]  # fmt: skip
        made.add_row(Text(plain(name), "bold"), *cells)
    return made


def _expiries(greeks: dict[str, Told]) -> Table:
    """Vega and basis by days to expiry."""
    made = _table("by expiry, USD", ("", ""), (*(f"to {bucket}" for bucket in BUCKETS[:-1]), "later"))
    for underlying, line in greeks.items():
        for kind, name in BY_EXPIRY.items():
            if any(line[name].values()):
                cells = (_fine(line[name].get(bucket, 0.0)) for bucket in BUCKETS)
                made.add_row(Text(plain(underlying), "bold"), _BY_EXPIRY[kind], *cells)
    return made


def _positions(rows: list[Told]) -> Table:
    options = any(row["kind"] == "option" for row in rows)
    greeks = ("gamma", "vega", "theta") if options else ()
    extra = ("days", "forward", "iv", "from") if options else ()
    made = _table("positions, USD", ("contract",), ("amount", "price", *extra, "delta", *greeks, "notional"))
    for row in rows:
        optional = _option_cells(row) if options else ()
        exposures = (_fine(row[UNITS[greek]]) for greek in greeks)
        style = "red" if row["greeks_off"] else "yellow" if row["modelled"] else ""
        in_coin = finite(row["mark"]) and row["mark"] < 1
        made.add_row(
            Text(plain(row["instrument"]), style),
            f"{row['amount']:,.10g}",
            number(row["mark"], 4 if in_coin else 2),
            *optional,
            _usd(row["delta_usd"]),
            *exposures,
            _usd(row["notional_usd"]),
        )
    return made


def _option_cells(row: Told) -> tuple[str, ...]:
    if not finite(row["days"]):
        return "", "", "", ""
    days = f"{row['days']:.1f}" if row["days"] >= 1 else age(max(row["days"], 0.0) * 86_400)
    if row["kind"] != "option":
        return days, "", "", ""
    source = str(row["iv_source"])
    return days, number(row["forward"], 1), percent(row["iv"], 1), _RESTS_ON.get(source, source)


def _options(counts: Told) -> Iterator[Text]:
    """What all options rest on: one line, and one for those the venue contradicts."""
    if not counts["listed"]:
        return
    sources = ", ".join(f"{count} {_RESTS_ON.get(name, name)}" for name, count in counts["iv_sources"].items())
    yield Text(f"{counts['listed']} options; volatility from: {sources}; {counts['modelled']} modelled")
    if counts["greeks_off"]:
        shown = ", ".join(plain(name) for name in counts["greeks_off"][:12])
        yield Text(f"the venue's Greeks differ from ours in {len(counts['greeks_off'])}: {shown}", "red")


def _usd(value: Any) -> Text:
    return Text(number(value), "red" if finite(value) and value < 0 else "")


def _fine(value: Any) -> Text:
    """Cents where they are all there is; zero is a dot."""
    if value == 0:
        return Text("·", "bright_black")
    return Text(amount(value), "red" if finite(value) and value < 0 else "")


def _nothing() -> Text:
    return Text("")
