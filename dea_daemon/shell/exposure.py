"""What a book is exposed to, as plain data: by risk factor, by contract, and what its options' Greeks rest on.

A decision's View is such a book, and so is a portfolio from a file (`wiring.exposure`): one answer for both.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from dea_daemon.domain.decisions import IvSource
from dea_daemon.domain.factors import BUCKETS, FactorIndex
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray, Universe
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.shell.greeks import UNITS, by_underlying


class Book(Protocol):
    """What is looked at; names, shapes and units are those of `domain.decisions.View`."""

    @property
    def utc_ns(self) -> int: ...
    @property
    def universe(self) -> Universe: ...
    @property
    def factors(self) -> FactorIndex: ...
    @property
    def mark_price(self) -> FloatArray: ...
    @property
    def forward_price(self) -> FloatArray: ...
    @property
    def iv(self) -> FloatArray: ...
    @property
    def iv_source(self) -> IntArray: ...
    @property
    def modelled(self) -> BoolArray: ...
    @property
    def greeks_off(self) -> BoolArray: ...
    @property
    def position_lots(self) -> IntArray: ...
    @property
    def working_buy_lots(self) -> IntArray: ...
    @property
    def working_sell_lots(self) -> IntArray: ...
    @property
    def notional_per_lot_usd(self) -> FloatArray: ...
    @property
    def exposure_per_lot(self) -> FloatArray: ...
    @property
    def exposure_base_usd(self) -> FloatArray: ...
    @property
    def exposure_usd(self) -> FloatArray: ...
    @property
    def equity_usd(self) -> float: ...


def exposure(book: Book) -> dict[str, Any]:
    """All of it. `factors` has every row, `positions` what is held, `options` what all options rest on."""
    return {
        "utc_ns": book.utc_ns,
        "equity_usd": book.equity_usd,
        "factors": list(_factors(book)),
        "greeks": by_underlying(zip(book.factors.names, book.exposure_usd.tolist(), strict=True)),
        "positions": positions(book, np.flatnonzero(book.position_lots)),
        "options": options(book),
    }


def _factors(book: Book) -> Iterator[dict[str, Any]]:
    """E = X·q + e0 in its two parts, and how far working orders could carry it either way."""
    least, most = _working(book)
    base, total = book.exposure_base_usd, book.exposure_usd
    columns = (base, total - base, total, least, most)
    for name, *figures in zip(book.factors.names, *(column.tolist() for column in columns), strict=True):
        keys = ("base_usd", "positions_usd", "exposure_usd", "working_least_usd", "working_most_usd")
        yield {"factor": name, **dict(zip(keys, figures, strict=True))}


def _working(book: Book) -> tuple[FloatArray, FloatArray]:
    """The most working orders can take from each factor, and add to it: [K] each, over every subset of fills."""
    rows = np.flatnonzero(book.working_buy_lots | book.working_sell_lots)
    bought = book.exposure_per_lot[:, rows] * book.working_buy_lots[rows]
    sold = -book.exposure_per_lot[:, rows] * book.working_sell_lots[rows]
    least = np.minimum(bought, 0.0).sum(axis=1) + np.minimum(sold, 0.0).sum(axis=1)
    most = np.maximum(bought, 0.0).sum(axis=1) + np.maximum(sold, 0.0).sum(axis=1)
    return least, most


def positions(book: Book, rows: IntArray) -> list[dict[str, Any]]:
    """What is held in these rows, contract by contract: by underlying, options by expiry and strike behind the others.

    Exposures are the position's own, before e0; vega is per vol point as it is, not weighted by its term.
    """
    universe = book.universe
    order = (universe.strike, universe.expiry_ns, universe.option, universe.underlying)
    rows = rows[np.lexsort([key[rows] for key in order])]
    lots = book.position_lots[rows]
    at = universe.underlying[rows]

    def usd(kind: str, bucket: int | None = None) -> FloatArray:
        found: FloatArray = lots * book.exposure_per_lot[book.factors.first(kind, bucket) + at, rows]
        return found

    columns = {
        "position_lots": lots,
        "mark": book.mark_price[rows],
        "forward": book.forward_price[rows],
        "iv": book.iv[rows],
        "days": _days(universe.expiry_ns[rows], book.utc_ns),
        "notional_usd": lots * book.notional_per_lot_usd[rows],
        **{unit: usd(kind) for kind, unit in UNITS.items() if kind != "vega"},
        "vega_usd_1pt": sum((usd("vega", bucket) for bucket in range(len(BUCKETS))), np.zeros(len(rows))),
        "modelled": book.modelled[rows],
        "greeks_off": book.greeks_off[rows],
    }
    lines = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [_contract(book, row) | dict(zip(columns, line, strict=True)) for row, line in zip(rows, lines, strict=True)]


def _contract(book: Book, row: int) -> dict[str, Any]:
    instrument = book.universe.instruments[row]
    source = IvSource(int(book.iv_source[row]))
    return {
        "instrument": instrument.name,
        "account": str(book.universe.accounts[book.universe.account[row]]),
        "kind": instrument.kind.value,
        "underlying": instrument.underlying,
        "amount": float(instrument.lots_to_amount(int(book.position_lots[row]))),
        "iv_source": source.name.lower() if source else "",
    }


def _days(expiry_ns: IntArray, utc_ns: int) -> FloatArray:
    """To expiry; NaN for what has none."""
    days: FloatArray = np.where(expiry_ns > 0, (expiry_ns - utc_ns) / NS_PER_DAY, np.nan)
    return days


def options(book: Book) -> dict[str, Any]:
    """How many options there are, what their volatilities come from, and where the venue's Greeks contradict ours."""
    listed = book.universe.option & (book.universe.expiry_ns > book.utc_ns)
    counts = np.bincount(book.iv_source[listed], minlength=len(IvSource)).tolist()
    off = np.flatnonzero(book.greeks_off & listed)
    return {
        "listed": int(listed.sum()),
        "iv_sources": {source.name.lower(): counts[source] for source in IvSource if counts[source]},
        "modelled": int((book.modelled & listed).sum()),
        "greeks_off": [book.universe.instruments[row].name for row in off],
    }


def held_options(book: Book) -> list[dict[str, Any]]:
    """The positions that are options."""
    return positions(book, np.flatnonzero(book.universe.option & (book.position_lots != 0)))
