"""Forecasters and what is on trial, in words and rows for people: `status`, `explain`, `promote`. Standard library.

A contender and a forecaster are domain.decisions' structs as JSON gives them; None stands for NaN.
"""

from collections.abc import Iterable, Iterator
from typing import Any

Told = dict[str, Any]
WORDS = ("forecasters", "contenders")  # what a record holds of them
HEAD = ("", "state", "weight", "rounds", "p", "drift", "gain", "R²", "t", "")
SLOW_HEAD = ("", "z", "days old", "")
_SPENT = ("zero",)  # says nothing, whatever its weight


def spoke(record: Told) -> bool:
    """Whether the forecasters spoke anew in a decision."""
    return any(record.get(name) for name in WORDS)


def best(name: str, forecasters: Iterable[Told]) -> Told:
    """R² and t of a forecaster where it was best; None where nothing was scored."""
    scored = [line for line in forecasters if line["name"] == name and line["r_squared"] is not None]
    found = max(scored, key=lambda line: float(line["r_squared"]), default=None)
    return {"r_squared": found["r_squared"], "t": found["t"]} if found else {"r_squared": None, "t": None}


def contender_rows(status: Told) -> Iterator[tuple[str, ...]]:
    """A row of HEAD for each contender."""
    for line in status.get("contenders") or ():
        scores = best(line["name"], status.get("forecasters") or ())
        figures = (line["p"], ".3f"), (line["drift"], ".2f"), (line["net_gain"], "+.4f")
        told = (_number(value, how) for value, how in (*figures, (scores["r_squared"], "+.2%"), (scores["t"], "+.1f")))
        yield line["name"], line["state"], f"{line['weight']:.2f}", f"{line['rounds']:,}", *told, line["why"]


def slow_rows(status: Told) -> Iterator[tuple[str, ...]]:
    """A row of SLOW_HEAD for each slow factor."""
    for line in status.get("slow_factors") or ():
        age = "?" if line["age_days"] is None else f"{line['age_days']:.1f}"
        yield line["name"], f"{line['z']:+.2f}", age, "valid" if line["valid"] else f"says nothing: {line['why']}"


def after_ruling(told: Told) -> str:
    """One line: {name, weight: what was ruled, contender: its line by now, None where it has not spoken yet, heard:
    whether any target takes what forecasters of returns say}."""
    line = told["contender"]
    if line is None:
        ruled = "as configured" if told["weight"] is None else f"weight {told['weight']:g}"
        return f"{told['name']}: {ruled}, from its next forecast on"
    why = f" ({line['why']})" if line["why"] else ""
    unheard = line["kind"] == "return" and line["weight"] and not told["heard"]
    vain = "; no target is of kind return, so nothing it says changes an exposure" if unheard else ""
    return f"{line['name']}: {line['state']}, weight {line['weight']:g}{why}{vain}"


# --- in a decision --------------------------------------------------------------------------------------------------


def forecast_rows(record: Told) -> list[tuple[str, ...]]:
    """What each forecaster that trades said of each underlying, and what that adds to the return expected a year."""
    states = {line["name"]: line["state"] for line in record.get("contenders") or ()}
    return [
        (
            f"  {line['underlying']} {line['name']}",
            _number(line["expected_return"], "+.2%"),
            _number(line["deviation"], ".2%"),
            f"{line['weight']:.2f}",
            _number(_annual(line), "+.1%"),
            states.get(line["name"], ""),
        )
        for line in record.get("forecasters") or ()
        if _trades(line)
    ]


def others_line(record: Told) -> str:
    """Those on trial that do not trade, by state; of a model of variance, also the one that does."""
    by_state: dict[str, list[str]] = {}
    traded = {line["name"] for line in record.get("forecasters") or () if _trades(line)}
    for line in record.get("contenders") or ():
        if line["name"] not in traded:
            kind = "variance by" if line["kind"] == "variance" and line["state"] == "traded" else line["state"]
            by_state.setdefault(kind, []).append(line["name"])
    return "; ".join(f"{state} {', '.join(names)}" for state, names in by_state.items())


def added(record: Told) -> dict[str, float]:
    """By underlying, what the forecasters with weight expect together, a year; before `max_sharpe` caps it."""
    found: dict[str, float] = {}
    for line in record.get("forecasters") or ():
        if _trades(line) and (annual := _annual(line)) is not None:
            found[line["underlying"]] = found.get(line["underlying"], 0.0) + annual
    return found


def _trades(line: Told) -> bool:
    return bool(line["weight"]) and not line["name"].startswith(_SPENT)


def _annual(line: Told) -> float | None:
    """weight · said, of a year: "ridge_5d" speaks of five days."""
    days, said = line["name"].rpartition("_")[2].removesuffix("d"), line["expected_return"]
    return None if said is None else float(line["weight"] * said) * 365.0 / float(days)


def _number(value: float | None, how: str) -> str:
    return "?" if value is None else format(value, how)
