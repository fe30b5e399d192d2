"""Quotes as a fit wants them: of each expiry the options out of the money with both sides quoted, in volatility."""

from typing import NamedTuple

import numpy as np

from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.surfaces import Chain
from dea_daemon.pricing import black
from dea_daemon.pricing.implied import implied_volatility, iv_uncertainty
from dea_daemon.pricing.surface.surface import YEAR_NS

LEAST_ERROR, MOST_ERROR = 1e-4, 1.0  # of a volatility: no quote is exacter, and a vaguer one says nothing
AGE_S = 60.0  # a quote's error grows by e in so long: its weight halves about every 20 s
AGE_MAX_S = 300.0  # older ones say nothing


class Quotes(NamedTuple):
    """Of one expiry, in order of k = ln(K/F) [Q]: mid volatility iv between bid and ask (`low`, `high`; mid is of
    volatilities), how exact it is (`error`, σ), and its row in the chain. `forward` is their median."""

    expiry_ns: int
    tau_years: float
    forward: float
    k: FloatArray
    iv: FloatArray
    low: FloatArray
    high: FloatArray
    error: FloatArray
    row: IntArray

    def keep(self, these: BoolArray | IntArray) -> "Quotes":
        """Only some of them, in the same order."""
        at = (self.k[these], self.iv[these], self.low[these], self.high[these], self.error[these], self.row[these])
        return Quotes(self.expiry_ns, self.tau_years, self.forward, *at)


def prepare(chain: Chain, max_iv_spread: float = 0.5) -> list[Quotes]:
    """Of every expiry wanted that is not over, in order; those nobody quotes are empty, their forward NaN.

    Each quote by its own forward. A side that has no volatility, or a spread of more than `max_iv_spread`, counts as
    not quoted.
    """
    forward, strike = np.array(chain.forward), np.array(chain.strike)
    expiry = np.array(chain.expiry_ns, dtype=np.int64)
    tau, call = (expiry - chain.utc_ns) / YEAR_NS, np.array(chain.call, dtype=np.bool_)
    bid, ask = np.array(chain.bid), np.array(chain.ask)
    with np.errstate(all="ignore"):
        k = np.log(strike / forward)
        low = implied_volatility(bid, forward, strike, tau, call)
        high = implied_volatility(ask, forward, strike, tau, call)
        age = np.array(chain.age_s)
        good = (call == (k >= 0.0)) & (high >= low) & (high - low < max_iv_spread) & (age <= AGE_MAX_S)
        iv = 0.5 * (low + high)
        vega = black.greeks(forward, strike, tau, iv, call).vega
        error = 0.5 * (high - low) + iv_uncertainty(2.0 * np.array(chain.tick), vega) + LEAST_ERROR
        error = error * np.exp(np.maximum(age, 0.0) / AGE_S)
        good &= error < MOST_ERROR
    out = []
    for end in sorted(set(chain.expiries)):
        if end <= chain.utc_ns:
            continue
        rows = np.flatnonzero(good & (expiry == end))
        rows = rows[np.argsort(k[rows], kind="stable")]
        level = float(np.median(forward[expiry == end])) if (expiry == end).any() else float("nan")
        years = (end - chain.utc_ns) / YEAR_NS
        out.append(Quotes(end, years, level, k[rows], iv[rows], low[rows], high[rows], error[rows], rows))
    return out
