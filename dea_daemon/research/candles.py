"""Candles and funding as arrays: what a history is made of."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray


class Candles(NamedTuple):
    """One market, T candles, strictly ascending. `open_ns` is the stamp: a candle is known `step_ns` later, not before.
    Volumes are in the venue's own unit, 0 where it tells none."""

    step_ns: int
    open_ns: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray

    @property
    def close_ns(self) -> IntArray:
        """When each is known."""
        return self.open_ns + self.step_ns


class FundingRates(NamedTuple):
    """What longs pay to shorts at `at_ns`, as a fraction of the position's value at the mark; strictly ascending."""

    at_ns: IntArray
    rate: FloatArray


class Market(NamedTuple):
    """One symbol (`BTCUSDT`) of one kind ("spot", "perp" or "mark") at one venue."""

    venue: str
    kind: str
    symbol: str


class History(NamedTuple):
    """Everything of one folder. Funding is by (venue, symbol)."""

    candles: dict[Market, Candles]
    funding: dict[tuple[str, str], FundingRates]


class Finding(NamedTuple):
    """Something wrong with a series: what (`gap`, `duplicate`, `unsorted`, `absurd`, …), how often, where first, and
    in words. `fatal`: a backtest over it would be a lie."""

    what: str
    count: int  # type: ignore[assignment]  # a tuple's method of that name is of no use here
    first_ns: int
    why: str
    fatal: bool = False


class Aligned(NamedTuple):
    """N markets on one grid of T candles. open … volume [T, N], NaN where a market has no candle: `valid` [T, N] says
    so. Nothing is filled in."""

    step_ns: int
    open_ns: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    valid: BoolArray


def resampled(candles: Candles, step_ns: int, share_min: float = 1.0) -> Candles:
    """Longer candles on the UTC grid of `step_ns`, a multiple of the candles' own step.

    One is left out, a gap, where less than `share_min` of its parts are there: of a day whose last hour is missing
    nobody knows the close. Raises DataError where the step does not fit.
    """
    if step_ns < candles.step_ns or step_ns % candles.step_ns:
        raise DataError(f"candles of {candles.step_ns:,} ns do not join into candles of {step_ns:,} ns")
    if not candles.open_ns.size:
        return candles._replace(step_ns=step_ns)
    group = candles.open_ns // step_ns
    first = np.concatenate(([0], np.flatnonzero(np.diff(group)) + 1))
    after = np.append(first[1:], group.size)
    whole = after - first >= share_min * (step_ns // candles.step_ns)
    return Candles(
        step_ns,
        (group[first] * step_ns)[whole],
        candles.open[first][whole],
        np.maximum.reduceat(candles.high, first)[whole],
        np.minimum.reduceat(candles.low, first)[whole],
        candles.close[after - 1][whole],
        np.add.reduceat(candles.volume, first)[whole],
    )


def from_trades(at_ns: IntArray, price: FloatArray, amount: FloatArray, step_ns: int) -> Candles:
    """Candles of trades, in order of time [T], on the UTC grid. Where nobody traded there is none: a gap. The first and
    the last are left out: nobody knows whether all of their trades are here."""
    group = at_ns // step_ns
    first = np.concatenate(([0], np.flatnonzero(np.diff(group)) + 1))[: len(at_ns)]
    last = np.append(first[1:], len(at_ns)) - 1
    whole = slice(1, -1)
    columns = (
        price[first],
        np.maximum.reduceat(price, first) if len(first) else price,
        np.minimum.reduceat(price, first) if len(first) else price,
        price[last] if len(first) else price,
        np.add.reduceat(amount, first) if len(first) else amount,
    )
    return Candles(step_ns, group[first][whole] * step_ns, *(column[whole] for column in columns))


def aligned(series: Sequence[Candles], start_ns: int, end_ns: int) -> Aligned:
    """The candles that open within [start, end), side by side. Raises DataError unless all have one step and lie on
    its grid."""
    steps = {candles.step_ns for candles in series}
    if len(steps) != 1:
        raise DataError(f"only candles of one step can be aligned, found {sorted(steps) or 'none'}")
    (step_ns,) = steps
    first_ns = -(-start_ns // step_ns) * step_ns
    # Counted in whole numbers: arange would count in floats, which have too few digits for such times.
    open_ns = first_ns + step_ns * np.arange(max(-(-(end_ns - first_ns) // step_ns), 0), dtype=np.int64)
    columns = np.full((5, open_ns.size, len(series)), np.nan)
    valid = np.zeros((open_ns.size, len(series)), dtype=np.bool_)
    for n, candles in enumerate(series):
        inside = slice(*np.searchsorted(candles.open_ns, (start_ns, end_ns)))
        at_ns = candles.open_ns[inside]
        if (at_ns % step_ns).any():
            raise DataError(f"candle series {n} is off the grid of {step_ns:,} ns: `dea-daemon data check` tells where")
        if not at_ns.size:
            continue
        rows = (at_ns - open_ns[0]) // step_ns
        valid[rows, n] = True
        for column, values in zip(columns, candles[2:], strict=True):
            column[rows, n] = values[inside]
    opened, high, low, close, volume = columns
    return Aligned(step_ns, open_ns, opened, high, low, close, volume, valid)
