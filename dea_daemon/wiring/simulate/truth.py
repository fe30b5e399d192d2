"""The true dollar delta of each underlying, from the venue's own state: Black written once more, a number at a time.

A daemon sees the venue a moment ago, an option's ticker some seconds ago: what it does is judged by the kindest of
the recent truths.
"""

from collections import deque
from math import erf, isfinite, log, sqrt

import numpy as np

from dea_daemon.domain.instruments import FloatArray, IntArray, Universe
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_S
from dea_daemon.simvenue.accounts import Contract
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.wiring.paper import ACCOUNT

YEAR_NS = DAYS_PER_YEAR * NS_PER_DAY


def cdf(x: float) -> float:
    return 0.5 * (1.0 + erf(x / sqrt(2.0)))


def black(forward: float, strike: float, sd: float, is_call: bool) -> tuple[float, float]:
    """Undiscounted value and delta; sd is volatility times root of time."""
    sd = max(sd, 1e-9)
    d1 = log(forward / strike) / sd + 0.5 * sd
    call = forward * cdf(d1) - strike * cdf(d1 - sd)
    return (call, cdf(d1)) if is_call else (call - forward + strike, cdf(d1) - 1.0)


def delta_usd(contract: Contract, now_ns: int, window_s: float) -> float:
    """What one lot moves by, in USD, as its underlying moves by 100 %, the coins in equity apart."""
    instrument, spot, lot = contract.instrument, contract.index, contract.lot_value
    left_ns = instrument.expiry_ns - now_ns
    weight = min(max(left_ns / (window_s * NS_PER_S), 0.0), 1.0) if instrument.expiry_ns else 1.0
    if not contract.option:
        return weight * (lot * spot / contract.mark if contract.inverse else lot * contract.mark)
    if (quote := contract.quote) is None:
        return float("nan")
    forward = quote.underlying_price
    sd = quote.mark_iv * sqrt(max(left_ns, 1) / YEAR_NS)
    value, delta = black(forward, instrument.strike, sd, instrument.is_call)
    if contract.coin_quoted:
        return weight * lot * spot * (delta - value / forward)
    return weight * lot * forward * delta


class Truth:
    """The recent past of the venue: deltas of a lot [N] and of the coins held [U], newest last."""

    def __init__(self, exchange: Exchange, universe: Universe, look_back_s: float) -> None:
        self.exchange, self.universe = exchange, universe
        self._back_ns = int(look_back_s * NS_PER_S)
        self._past: deque[tuple[int, FloatArray, FloatArray]] = deque()

    def look(self, now_ns: int) -> None:
        """Once a step."""
        x = np.zeros(len(self.universe))
        window_s = self.exchange.scenario.settlement_window_s
        for row, instrument in enumerate(self.universe.instruments):
            contract = self.exchange.contracts.get(instrument.name)
            if contract is not None:
                each = delta_usd(contract, now_ns, window_s)
                x[row] = each if isfinite(each) else 0.0
        self._past.append((now_ns, x, self._coins()))
        while self._past[0][0] < now_ns - self._back_ns:
            self._past.popleft()

    def _coins(self) -> FloatArray:
        venue = self.exchange
        pools = set(venue.currencies())
        return np.array(
            [
                venue.summary(ACCOUNT, coin).equity * venue.index_price(coin) if coin in pools else 0.0
                for coin in self.universe.underlyings
            ]
        )

    def extremes(self, k: int, position: IntArray, buys: IntArray, sells: IntArray) -> FloatArray:
        """[T, 2] the highest delta of underlying k that any fills can leave, and minus the lowest, at each of the
        recent moments."""
        n = len(self.universe)
        x = np.array([np.pad(each, (0, n - len(each))) for _, each, _ in self._past])
        x[:, self.universe.underlying != k] = 0.0
        coins = np.array([base[k] for _, _, base in self._past])
        held, up, down = x @ position + coins, np.maximum(x, 0.0), np.maximum(-x, 0.0)
        return np.stack((held + up @ buys + down @ sells, -(held - up @ sells - down @ buys)), axis=1)

    def now(self, k: int, position: IntArray) -> float:
        none = np.zeros_like(position)
        return float(self.extremes(k, position, none, none)[-1, 0])
