"""Live volatility surfaces (`shell.surface_figures`) as tables for a person, and as single lines."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from dea_daemon.shell.figures import age, as_text, finite, number, percent, plain

Told = dict[str, Any]
RUNGS = {
    "fitted": "its quotes",
    "shaped": "five quotes",
    "leaning": "few quotes",
    "lifted": "one quote",
    "between": "no quote",
}
"""What a smile rests on (`domain.surfaces.Rung`), for people: the fewer, the more on its neighbours."""


def table(told: Told, title: str, *, on_terminal: bool) -> str:
    """All of it as text, in colours and as wide as the screen where it goes to a terminal."""
    return as_text(_parts(told, title), on_terminal=on_terminal)


def _parts(told: Told, title: str) -> Iterator[RenderableType]:
    when = datetime.fromtimestamp(told["utc_ns"] / 1e9, UTC)
    yield Text(f"{plain(title)}, {when:%Y-%m-%d %H:%M:%S} UTC")
    if told["why"]:
        yield Text(f"no surface: {told['why']}")
    for line in told["surfaces"]:
        yield Text()
        yield Text.assemble((plain(line["underlying"]), "bold cyan"), "  ", trust(line))
        if line["smiles"]:
            yield Text(quality_words(line), "bright_black")
            yield _tenors(line["tenors"])
            yield _smiles(line["smiles"])
    if told["refused"]:
        yield Text(f"{told['refused']} fits were not published in this run", "yellow")


def trust(line: Told) -> Text:
    """Whether it is relied upon, or why not, and how old it is."""
    aged = f", asked for {age(line['age_s'])} ago" if finite(line["age_s"]) else ""
    if line["relied"]:
        return Text(f"relied upon{aged}", "green")
    return Text(f"NOT relied upon ({plain(line['why'])}){aged}: no new vega risk", "red")


def quality_words(line: Told) -> str:
    """How good the fit is, in one line."""
    dropped = f" ({line['dropped']} dropped)" if line["dropped"] else ""
    fallback = f", {line['fallback_slices']} of sparse quotes" if line["fallback_slices"] else ""
    jump = f"last change {line['jump_z']:.1f} deviations, " if finite(line["jump_z"]) else ""
    return (
        f"{line['expiries']} expiries{fallback}, {number(line['quotes'])} quotes{dropped}, "
        f"{percent(line['inside'], 1)} inside bid and ask, off their mids by {number(line['rmse_vol_pts'], 2)} points "
        f"({number(line['spread_ratio'], 2)} of half the spread), g at least {number(line['min_g'], 3)}, "
        f"{line['calendar_violations']} calendar violations, {jump}"
        f"fitted in {number(line['fit_ms'])} ms"
    )


def points(value: Any) -> str:
    """A difference of volatilities, in points with its sign."""
    return f"{100 * value:+.1f}" if finite(value) else "-"


def _table(title: str, *right: str) -> Table:
    made = Table(title=title, title_justify="left", title_style="", header_style="bright_black")
    made.add_column("", no_wrap=True)
    for name in right:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def _terms(line: Told) -> tuple[str, ...]:
    return percent(line["atm"], 1), points(line["risk_reversal"]), points(line["butterfly"])


def _tenors(tenors: list[Told]) -> Table:
    made = _table("at constant maturities, of 25 delta", "ATM", "risk reversal", "butterfly")
    for tenor in tenors:
        made.add_row(f"{tenor['days']:g} d", *_terms(tenor))
    return made


def _smiles(smiles: list[Told]) -> Table:
    made = _table("smiles", "days", "forward", "ATM", "RR", "BF", "quotes", "dropped", "inside", "rests on")
    for line in smiles:
        inside = percent(line["inside"] / line["quotes"]) if line["quotes"] else "-"
        made.add_row(
            Text(plain(line["expiry"]), "bold"),
            number(line["days"], 1),
            number(line["forward"], 1),
            *_terms(line),
            number(line["quotes"]),
            number(line["dropped"]) if line["dropped"] else Text("·", "bright_black"),
            inside,
            Text(RUNGS.get(line["rung"], plain(line["rung"])), "" if line["rung"] == "fitted" else "yellow"),
        )
    return made
