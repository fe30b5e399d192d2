"""Candles and funding as arrays: what a history is made of."""

from typing import NamedTuple

from dea_daemon.domain.instruments import FloatArray, IntArray


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
    count: int
    first_ns: int
    why: str
    fatal: bool = False
