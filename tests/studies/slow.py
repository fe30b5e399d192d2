"""Recorded slow factors for studies: what was told when, by the daemon's own rules (state/factors.py).

The records are present values without release dates. Each is told `lag_h` after the beginning of the day it is about,
as docs/learning.md has it, as if asked for from the start; that it stood then as it stands now is an assumption. A
series that trends is told as its change.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.decisions import Slow
from dea_daemon.domain.events import FactorObserved
from dea_daemon.domain.instruments import IntArray
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.domain.parameters import SlowFactor
from dea_daemon.state.effects import Effects
from dea_daemon.state.factors import SlowFactors

NS_PER_HOUR = 3_600 * NS_PER_S


class Series(NamedTuple):
    """A column of a file; `change_rows` not 0: the logarithm's change over so many rows (of a rate: its own)."""

    file: str
    column: str
    lag_h: int
    change_rows: int = 0
    of_rate: bool = False


CHAIN, FRED = "coinmetrics_btc.csv", "fred_{}.csv"
GROUPS: dict[str, dict[str, Series]] = {
    "on-chain": {
        "mvrv": Series(CHAIN, "CapMVRVCur", 48),
        "addresses_30d": Series(CHAIN, "AdrActCnt", 48, 30),
        "hash_rate_30d": Series(CHAIN, "HashRate", 48, 30),
        "on_exchanges_30d": Series(CHAIN, "SplyExNtv", 48, 30),
    },
    "sentiment": {"fear_greed": Series("fear_greed.csv", "fng", 24)},
    "macro": {
        "vix": Series(FRED.format("VIXCLS"), "value", 96),
        "high_yield_spread": Series(FRED.format("BAMLH0A0HYM2"), "value", 96),
        "dgs10_20d": Series(FRED.format("DGS10"), "value", 96, 20, True),
        "dollar_20d": Series(FRED.format("DTWEXBGS"), "value", 192, 20),
        "fed_assets_13w": Series(FRED.format("WALCL"), "value", 192, 13),
    },
}


def told(folder: Path, groups: dict[str, dict[str, Series]]) -> list[FactorObserved]:
    """Every value of every factor, in the order of publication."""
    events = [event for group in groups.values() for name, one in group.items() for event in _told(folder, name, one)]
    return sorted(events, key=lambda event: event.publish_ns)


def _told(folder: Path, name: str, series: Series) -> Iterator[FactorObserved]:
    rows = list(_rows(folder / series.file, series.column))
    values = np.array([value for _, value in rows])
    if series.change_rows:
        level = values if series.of_rate else np.log(values)
        values = np.append(
            np.full(series.change_rows, np.nan), level[series.change_rows :] - level[: -series.change_rows]
        )
    for (about_ns, _), value in zip(rows, values.tolist(), strict=True):
        if np.isfinite(value):
            publish_ns = about_ns + series.lag_h * NS_PER_HOUR
            yield FactorObserved(publish_ns, name, about_ns, publish_ns, value)


def _rows(file: Path, column: str) -> Iterator[tuple[int, float]]:
    """(ns UTC, value) of the rows that have one, and not 0."""
    with file.open(newline="") as text:
        for row in csv.DictReader(text):
            day = row.get("time") or row["date"]
            if (value := row[column]) not in {"", "."} and float(value) != 0.0:
                yield int(np.datetime64(day, "ns").astype(np.int64)), float(value)


def known(folder: Path, groups: dict[str, dict[str, Series]], at_ns: IntArray) -> Iterator[Slow]:
    """`View.slow` at each of these times, in order."""
    events = told(folder, groups)
    factors = SlowFactors({name: SlowFactor() for group in groups.values() for name in group})
    effects, k = Effects(), 0
    for now_ns in at_ns.tolist():
        while k < len(events) and events[k].publish_ns <= now_ns:
            factors.fold(events[k], effects)
            k += 1
        effects.notes.clear()
        yield factors.at(now_ns, effects)
