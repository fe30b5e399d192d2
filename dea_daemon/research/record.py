"""What a backtest recorded: one line a decision, as columns."""

from typing import NamedTuple

import numpy as np

from dea_daemon.domain.decisions import Contender, Forecaster
from dea_daemon.domain.instruments import FloatArray, IntArray


class Trade(NamedTuple):
    """One execution. `side` is +1 or −1; `arrival` is the mid when its order was decided, `fee_usd` positive when
    paid."""

    at_ns: int
    symbol: str
    side: int
    amount: float
    price: float
    notional_usd: float
    fee_usd: float
    arrival: float


class Record(NamedTuple):
    """One run over T decisions and U underlyings.

    at_ns [T]; equity_usd, peak_usd [T]; price, exposure_usd, target_usd, band_usd, annual_vol [T, U] (target and band
    NaN where there is none). Sums since the start [T], USD: turnover_usd, fees_usd (paid), funding_usd (received),
    slippage_usd (paid beside the mid). market_usd [T, U]: what moves of the underlying made. used [T, L]: share of
    each of `limits`. capital_usd is what the account began with, target_vol the volatility it aimed at (0: none).
    `forecasters` and `contenders` as they stood when they last spoke; `changes` are those of a contender's state: when
    it was told (UTC, ns), of whom, what it became, and why.
    """

    name: str
    underlyings: tuple[str, ...]
    limits: tuple[str, ...]
    capital_usd: float
    target_vol: float
    step_ns: int
    at_ns: IntArray
    equity_usd: FloatArray
    peak_usd: FloatArray
    price: FloatArray
    exposure_usd: FloatArray
    target_usd: FloatArray
    band_usd: FloatArray
    annual_vol: FloatArray
    turnover_usd: FloatArray
    fees_usd: FloatArray
    funding_usd: FloatArray
    slippage_usd: FloatArray
    market_usd: FloatArray
    used: FloatArray
    trades: tuple[Trade, ...] = ()
    notes: tuple[str, ...] = ()
    forecasters: tuple[Forecaster, ...] = ()
    contenders: tuple[Contender, ...] = ()
    changes: tuple[tuple[int, str, str, str], ...] = ()

    @property
    def years(self) -> float:
        return float((self.at_ns[-1] - self.at_ns[0]) / (365.0 * 86_400e9))

    @property
    def returns(self) -> FloatArray:
        """[T − 1] of equity, simple."""
        return np.diff(self.equity_usd) / self.equity_usd[:-1]
