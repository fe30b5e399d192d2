"""OKX's proof of a book: a CRC-32 of its best levels, in the venue's own words."""

from bisect import bisect_left, insort
from itertools import chain
from zlib import crc32

LEVELS = 25


class Words:
    """One side's levels as OKX wrote them. `sign` +1 for bids, -1 for asks: the best level is last in `keys`."""

    __slots__ = ("keys", "sign", "words")

    def __init__(self, sign: float) -> None:
        self.sign = sign
        self.keys: list[float] = []
        self.words: dict[float, str] = {}  # by key: "price:amount"

    def put(self, price: float, amount: float, words: str) -> None:
        """Set a level; amount 0 removes it."""
        key = self.sign * price
        if amount:
            if key not in self.words:
                insort(self.keys, key)
            self.words[key] = words
        elif self.words.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]

    def best(self) -> list[str]:
        """The best 25, best first."""
        return [self.words[key] for key in self.keys[: -LEVELS - 1 : -1]]


def checksum(bids: Words, asks: Words) -> int:
    """bid:ask:bid:ask…, what one side has more than the other at the end; a signed 32-bit number."""
    best_bids, best_asks = bids.best(), asks.best()
    both = min(len(best_bids), len(best_asks))
    pairs = chain.from_iterable(zip(best_bids, best_asks, strict=False))
    found = crc32(":".join((*pairs, *best_bids[both:], *best_asks[both:])).encode())
    return found - (1 << 32) if found >= 1 << 31 else found
