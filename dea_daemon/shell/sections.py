"""The parts of the picture: one function a section, each from a status to a headline and rows of one width."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len

from dea_daemon.shell.figures import (
    BOLD,
    DIM,
    RED,
    YELLOW,
    Line,
    Span,
    Status,
    age,
    amount,
    band_bar,
    duration,
    exposure_style,
    finite,
    fit,
    light,
    limit_bar,
    limit_style,
    listed,
    number,
    percent,
    price,
    prices,
    share,
    side_style,
    time_of_day,
)
from dea_daemon.shell.greeks import curved
from dea_daemon.shell.limit_text import cut_words, used_allowed


class Section(NamedTuple):
    """A headline, its rows, and how many of them are shown where there is little room."""

    head: Line
    rows: list[Line]
    least: int


class Column(NamedTuple):
    """A title and a width in cells; 0 takes what the others leave. Numbers stand right."""

    title: str
    width: int
    right: bool = False


Cell = Span | Line  # a Line has its width already


def _section(title: str, columns: Sequence[Column], rows: list[list[Cell]], width: int, least: int) -> Section:
    """The title stands in the place of the first column's; where there are no rows it stands alone."""
    if not rows:
        return Section([(fit(f"{title}: none", width), "bold cyan")], [], least)
    head = _line(columns, [("" if i == 0 else column.title, DIM) for i, column in enumerate(columns)], width)
    taken = cell_len(title) + 1
    rest = "".join(text for text, _ in head)[taken:]
    headline = [(fit(title, min(taken, width)), "bold cyan"), (fit(rest, max(width - taken, 0)), DIM)]
    return Section(headline, [_line(columns, row, width) for row in rows], least)


def _line(columns: Sequence[Column], cells: Sequence[Cell], width: int) -> Line:
    rest = remainder(columns, width)
    line: Line = []
    for column, cell in zip(columns, cells, strict=True):
        if line:
            line.append((" ", ""))
        if isinstance(cell, list):
            line.extend(cell)
        else:
            line.append((fit(cell[0], column.width or rest, column.right), cell[1]))
    return line


def remainder(columns: Sequence[Column], width: int) -> int:
    """The cells left for the column that has no width of its own."""
    return max(width - sum(column.width for column in columns) - len(columns) + 1, 1)


def show_exposure(status: Status, width: int) -> Section:
    numbers = [Column(title, 11, True) for title in ("held", "wanted", "± band")]
    columns = [Column("", 9), *numbers, Column("   wanted │, band ━, held ●", 0)]
    rows: list[list[Cell]] = []
    for line in listed(status, "factors"):  # dollar deltas only
        held, wanted, band = line["actual_usd"], line["target_usd"], line["band_usd"]
        style = exposure_style(held, wanted, band)
        figures: list[Cell] = [(number(amount), style) for amount in (held, wanted, band)]
        bar = band_bar(held, wanted, band, remainder(columns, width))
        rows.append([(str(line["factor"]).removeprefix("delta:"), BOLD), *figures, bar])
    return _section("exposure USD", columns, rows, width, 3)


def show_greeks(status: Status, width: int) -> Section:
    """What options add to the deltas, by underlying; nothing where none are held."""
    titles = ("gamma 1 %", "vega pt", "theta day", "carry day")
    keys = ("gamma_usd_1pct", "vega_usd_1pt", "theta_usd_day", "carry_usd_day")
    columns = [Column("", 9), *(Column(title, 11, True) for title in titles), Column("   vega by expiry", 0)]
    rows: list[list[Cell]] = []
    for underlying, line in curved(status.get("greeks") or {}).items():
        figures: list[Cell] = [(amount(line[key]), side_style("sell" if _loses(line[key]) else "")) for key in keys]
        by_expiry = "  ".join(f"{bucket} {amount(usd)}" for bucket, usd in line["vega_by_expiry"].items())
        rows.append([(underlying, BOLD), *figures, ("   " + by_expiry, DIM)])
    return _section("options USD", columns, rows, width, 2 if rows else 0)


def _loses(usd: Any) -> bool:
    return finite(usd) and usd < 0


def show_options(status: Status, width: int) -> Section:
    """The options held, the next to expire first."""
    titles = (("lots", 6), ("iv", 5), ("delta", 9), ("gamma", 7), ("vega", 7), ("expires", 8))
    columns = [Column("", 0), *(Column(title, cells, True) for title, cells in titles)]
    rows: list[list[Cell]] = []
    for row in sorted(listed(status, "options"), key=lambda row: row["days"] if finite(row["days"]) else 0.0):
        style = RED if row["greeks_off"] else YELLOW if row["modelled"] else ""
        greeks: list[Cell] = [(amount(row[key]), "") for key in ("delta_usd", "gamma_usd_1pct", "vega_usd_1pt")]
        iv = percent(row["iv"], 1).removesuffix(" %")
        figures: list[Cell] = [
            (number(row["position_lots"]), BOLD),
            (iv, style),
            *greeks,
            (_countdown(row["days"]), ""),
        ]
        rows.append([(str(row["instrument"]), style), *figures])
    return _section("options held", columns, rows, width, 2 if rows else 0)


def _countdown(days: Any) -> str:
    """Days, and near the end hours, minutes and seconds."""
    if not finite(days):
        return "-"
    return f"{days:.1f} d" if days >= 2 else duration(max(days, 0) * 86_400)


def show_surfaces(status: Status, width: int) -> Section:
    """What options are valued from, by underlying, in points at 30 days; nothing where none are followed."""
    titles = (("atm 30 d", 8), ("rr", 6), ("bf", 6), ("inside", 8), ("age", 7))
    columns = [Column("", 9), *(Column(title, cells, True) for title, cells in titles), Column("   relied upon", 0)]
    rows: list[list[Cell]] = []
    for line in listed(status, "surfaces"):
        style = "" if line["relied"] else YELLOW
        terms = [_points(line["atm"], ".1f"), *(_points(line[key], "+.1f") for key in ("risk_reversal", "butterfly"))]
        figures: list[Cell] = [(text, style) for text in (*terms, percent(line["inside"], 1), age(line["age_s"]))]
        trust = "yes" if line["relied"] else f"no: {line['why']}"
        rows.append([(str(line["underlying"]), BOLD), *figures, (f"   {trust}", style or DIM)])
    return _section("volatility", columns, rows, width, 2 if rows else 0)


def _points(value: Any, how: str) -> str:
    return format(100 * value, how) if finite(value) else "-"


def show_limits(status: Status, width: int) -> Section:
    columns = [Column("", 12), Column("of", 19), Column("", 0), Column("", 6, True), Column("used / allowed", 21, True)]
    uses = sorted(listed(status, "limits"), key=lambda use: -round(100 * share(use)))  # in steps, so that rows stay put
    rows: list[list[Cell]] = []
    for use in uses:
        of = " / ".join(used_allowed(use, unknown="-"))
        bar = limit_bar(share(use), remainder(columns, width))
        how_much = (percent(share(use)), limit_style(share(use)))
        rows.append([(str(use["limit"]), ""), (str(use["subject"]), ""), bar, how_much, (of, DIM)])
    return _section("limits used", columns, rows, width, 2)


def show_cuts(status: Status, width: int) -> Section:
    rows: list[list[Cell]] = [
        [(f"{clip['limit']} {clip['subject']}: cut {cut_words(clip)} because {clip['why']}", YELLOW)]
        for clip in listed(status, "clips")
    ]
    return _section("cut by limits in the last decision", [Column("", 0)], rows, width, 1 if rows else 0)


def show_prices(status: Status, width: int) -> Section:
    numbers = [Column(title, 10, True) for title in ("bid", "ask", "mark", "position", "USD")]
    columns = [Column("", 1), Column("", 0), *numbers]
    several = len({row["account"] for row in listed(status, "instruments")}) > 1
    rows: list[list[Cell]] = []
    for row in sorted(listed(status, "instruments"), key=lambda row: not row["position_lots"]):
        style = "" if row["fresh"] else YELLOW
        name = f"{row['account']} {row['instrument']}" if several else str(row["instrument"])
        quoted: list[Cell] = [(text, style) for text in prices(row["bid"], row["ask"], row["mark"])]
        held = row["position_lots"]
        position: list[Cell] = [
            (number(held), BOLD if held else DIM),
            (number(row["notional_usd"]), "" if held else DIM),
        ]
        rows.append([light(row["fresh"]), (name, style), *quoted, *position])
    return _section("prices", columns, rows, width, 3)


def show_orders(status: Status, width: int) -> Section:
    columns = [
        Column("", 7), Column("lots done", 13, True), Column("contract", 19), Column("at", 10, True),
        Column("state", 9), Column("age", 6, True), Column("order", 0),
    ]  # fmt: skip
    rows: list[list[Cell]] = [
        [
            (str(row["side"]), side_style(row["side"])),
            (f"{number(row['filled_lots'])}/{number(row['lots'])}", ""),
            (str(row["instrument"]), ""),
            (price(row["price"]), ""),
            (str(row["state"]), ""),
            (age(row["age_s"]), DIM),
            (str(row["client_order_id"]), DIM),
        ]
        for row in listed(status, "orders")
    ]
    return _section("working" if rows else "working orders", columns, rows, width, 1)


def show_activity(status: Status, width: int) -> Section:
    """What was sent and what was filled, the newest first."""
    told = [(row["utc_ns"], *_sent(row)) for row in listed(status, "recent_orders")]
    told += [(row["utc_ns"], *_filled(row)) for row in listed(status, "recent_fills")]
    told.sort(key=lambda one: -one[0])
    rows: list[list[Cell]] = [[(time_of_day(utc_ns), DIM), (text, style)] for utc_ns, text, style in told]
    return _section("orders and fills", [Column("", 8), Column("", 0)], rows, width, 3)


def _sent(row: dict[str, Any]) -> Span:
    what = f" {row['side']} {number(row['lots'])} lots" if row.get("side") else ""
    at = f" at {price(row['price'])}" if row.get("price") else ""
    text = f"{row['action']}{what} {row['instrument']}{at}: {row['why']}"
    return text, DIM if row["action"] == "cancel" else ""


def _filled(row: dict[str, Any]) -> Span:
    how = "maker" if row["maker"] else "taker"
    moved = f"filled {row['side']} {number(row['lots'])} lots {row['instrument']} at {price(row['price'])}"
    return f"{moved}, {how}, position {number(row['position_lots'])}", side_style(row["side"])


def show_notes(status: Status, width: int) -> Section:
    rows: list[list[Cell]] = [
        [(time_of_day(row["utc_ns"]), DIM), (str(row["event"]), ""), (str(row["text"]), DIM)]
        for row in sorted(listed(status, "recent_notes"), key=lambda row: -row["utc_ns"])
        if row["event"] != "order.filled"  # told above
    ]
    return _section("what happened", [Column("", 8), Column("", 21), Column("", 0)], rows, width, 2)


def show_feeds(status: Status, width: int) -> Section:
    titles = (("age", 7), ("a second", 9), ("gaps", 6), ("refused", 8), ("opened", 7), ("offset", 9))
    columns = [Column("", 1), Column("", 0), *(Column(title, cells, True) for title, cells in titles)]
    rows: list[list[Cell]] = []
    for row in listed(status, "feeds"):
        gaps, refused = row["gaps"] or 0, row["refused"] or 0
        name = f"{row['feed']}{': ' + str(row['last_error']) if row.get('last_error') and not row['ready'] else ''}"
        offset = f"{number(row['offset_ms'], 1)} ms" if finite(row["offset_ms"]) else "-"
        figures: list[Cell] = [
            (age(row["age_s"]), ""), (number(row["rate_per_s"]), ""), (number(gaps), YELLOW if gaps else ""),
            (number(refused), YELLOW if refused else ""), (number(row["connects"]), ""), (offset, ""),
        ]  # fmt: skip
        rows.append([light(row["ready"]), (name, "" if row["ready"] else YELLOW), *figures])
    return _section("feeds", columns, rows, width, 1)


def show_pools(status: Status, width: int) -> Section:
    numbers = [Column(title, 13, True) for title in ("equity", "cash", "margin", "maintenance")]
    keys = ("equity", "cash", "initial_margin", "maintenance_margin")
    rows: list[list[Cell]] = [
        [(str(row["currency"]), BOLD), *((number(row[key], 4), "") for key in keys), (str(row["account"]), DIM)]
        for row in sorted(listed(status, "pools"), key=lambda row: (row["account"], row["currency"]))
    ]
    return _section("money", [Column("", 6), *numbers, Column("account", 0)], rows, width, 0)


_Show = Callable[[Status, int], Section]
LEFT: tuple[_Show, ...] = (
    show_exposure, show_greeks, show_options, show_surfaces, show_limits, show_prices, show_feeds, show_pools,
)  # fmt: skip
RIGHT: tuple[_Show, ...] = (show_cuts, show_orders, show_activity, show_notes)
NARROW: tuple[_Show, ...] = (*LEFT[:5], show_cuts, *LEFT[5:7], *RIGHT[1:], show_pools)
