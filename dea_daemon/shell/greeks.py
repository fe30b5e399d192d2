"""Factor lines gathered by underlying: what a book of options does besides its dollar delta. Standard library only.

A factor's name says what it is (`domain.factors`): "delta:BTC", "gamma:BTC", "vega:BTC:7d", "cash:USDC". Records
leave out rows that are zero; None and NaN are not known, which is not zero.
"""

from collections.abc import Iterable
from typing import Any

DELTA = "delta:"
BUCKETS = ("1d", "7d", "30d", "90d", "1y")  # those of domain.factors, which would bring numpy here
UNITS = {
    "delta": "delta_usd",
    "gamma": "gamma_usd_1pct",
    "vega": "vega_usd_1pt",
    "theta": "theta_usd_day",
    "carry": "carry_usd_day",
}
BY_EXPIRY = {"vega": "vega_by_expiry", "basis": "basis_by_expiry"}

Greeks = dict[str, dict[str, Any]]


def by_underlying(factors: Iterable[tuple[str, float | None]]) -> Greeks:
    """Exposures by factor name → by underlying: one figure a Greek, in `UNITS`, and by expiry those not zero."""
    found: Greeks = {}
    for name, usd in factors:
        kind, _, rest = name.partition(":")
        underlying, _, bucket = rest.partition(":")
        if kind not in UNITS and kind not in BY_EXPIRY:
            continue  # cash is nobody's underlying
        line = found.setdefault(underlying, _nothing())
        if bucket and usd == 0:
            continue
        if bucket:
            line[BY_EXPIRY[kind]][bucket] = usd
        else:
            line[UNITS[kind]] = usd
    return found


def _nothing() -> dict[str, Any]:
    return {**dict.fromkeys(UNITS.values(), 0.0), **{name: {} for name in BY_EXPIRY.values()}}


def curved(greeks: Greeks) -> Greeks:
    """Those underlyings on which there is more than delta and carry: where options are held."""
    options = (UNITS["gamma"], UNITS["vega"], UNITS["theta"])
    return {underlying: line for underlying, line in greeks.items() if any(line[name] != 0 for name in options)}
