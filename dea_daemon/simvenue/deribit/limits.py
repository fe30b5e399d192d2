"""Request credits: a pool per account for matching requests, one for the rest, one for the public without a key.

Source: support.deribit.com, Rate Limits. The venue's own are 20 (100 in a burst) and 5 (20) a second; ours are
generous unless asked, so that a test meets them only on purpose.
"""

from dataclasses import dataclass

from dea_daemon.domain.numbers import NS_PER_S


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests a second, and in one burst."""

    matching_rate: float = 100.0
    matching_burst: float = 200.0
    other_rate: float = 500.0
    other_burst: float = 2_000.0


@dataclass(slots=True)
class Pool:
    """A leaky bucket of `burst` requests, refilled at `rate` a second."""

    rate: float
    burst: float
    credits: float
    updated_ns: int
    refused: int = 0

    def take(self, now_ns: int) -> bool:
        """Pay for one request, if there is credit."""
        self.credits = min(self.burst, self.credits + self.rate * (now_ns - self.updated_ns) / NS_PER_S)
        self.updated_ns = now_ns
        if self.credits < 1.0:
            self.refused += 1
            return False
        self.credits -= 1.0
        self.refused = 0
        return True

    @property
    def abused(self) -> bool:
        """A whole burst was refused without a pause: the venue ends the connection."""
        return self.refused >= self.burst


class Pools:
    """Every account's pools."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._pools: dict[tuple[str, bool], Pool] = {}

    def pool(self, account: str, matching: bool, now_ns: int) -> Pool:
        """The pool that pays; account "" is the public's."""
        key = (account, matching)
        if key not in self._pools:
            limits = self.limits
            rate, burst = (
                (limits.matching_rate, limits.matching_burst) if matching else (limits.other_rate, limits.other_burst)
            )
            self._pools[key] = Pool(rate, burst, burst, now_ns)
        return self._pools[key]
