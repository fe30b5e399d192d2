"""The risk factors: the K rows of the exposure matrix, by name."""

from functools import cached_property

import msgspec

BUCKETS: tuple[tuple[str, float], ...] = (("1d", 1.0), ("7d", 7.0), ("30d", 30.0), ("90d", 90.0), ("1y", float("inf")))
"""Expiry buckets: name, and the most days to expiry it holds."""

GREEKS = ("gamma", "vega", "theta", "carry")


class FactorIndex(msgspec.Struct, frozen=True, dict=True):
    """Names of the K factor rows, in order. Row k of X and e0 is `names[k]`, in USD:

    - `delta:BTC`: dollar delta, one row an underlying; always the first U rows, in the universe's order;
    - `gamma:BTC`: change of the dollar delta for a move of 1 %;
    - `vega:BTC`: per vol point, weighted to 30 days (`pricing.exposure.term_weight`);
    - `theta:BTC`: per day; `carry:BTC`: funding and basis earned per day, as now;
    - `vega:BTC:7d`, `basis:BTC:7d`: by expiry bucket; per vol point as it is, and per 1 % of annual basis;
    - `cash:USDC`: what is held in a currency that is nobody's underlying: stablecoins, and coins not traded here.
    """

    underlyings: tuple[str, ...]
    currencies: tuple[str, ...] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        us = self.underlyings
        return (
            *(f"delta:{u}" for u in us),
            *(f"{greek}:{u}" for greek in GREEKS for u in us),
            *(f"{kind}:{u}:{bucket}" for kind in ("vega", "basis") for bucket, _ in BUCKETS for u in us),
            *(f"cash:{currency}" for currency in self.currencies),
        )

    def __len__(self) -> int:
        return len(self.names)

    def delta(self, underlying: str) -> int:
        """The row of an underlying's dollar delta."""
        return self.underlyings.index(underlying)

    def first(self, kind: str, bucket: int | None = None) -> int:
        """The first of the U rows of a kind ("delta", "gamma", "vega", "theta", "carry", or with a bucket's
        number "vega", "basis"); the others follow by underlying. With kind "cash", of the currencies' rows."""
        u = len(self.underlyings)
        if kind == "cash":
            return len(self) - len(self.currencies)
        if bucket is not None:
            before = ("vega", "basis").index(kind) * len(BUCKETS) + bucket
            return u * (1 + len(GREEKS) + before)
        return u * ("delta", *GREEKS).index(kind)
