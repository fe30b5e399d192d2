"""The risk factors: the K rows of the exposure matrix, by name."""

import msgspec


class FactorIndex(msgspec.Struct, frozen=True):
    """Names of the K factor rows, in order. Row k of X and e0 is `names[k]`.

    Only dollar delta per underlying so far ("delta:BTC"); gamma, vega, basis and funding rows are
    added behind these, never between them.
    """

    underlyings: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"delta:{underlying}" for underlying in self.underlyings)

    def __len__(self) -> int:
        return len(self.underlyings)

    def delta(self, underlying: str) -> int:
        """The row of an underlying's dollar delta."""
        return self.underlyings.index(underlying)
