"""How the underlyings have moved together: what losses of a day are judged by."""

import numpy as np

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import NS_PER_S

EVERY_NS = 3_600 * NS_PER_S
KEPT = 720  # a month of hours
_TO_A_DAY = float(np.sqrt(24.0))


class Returns:
    """Joint hourly moves of the underlyings, the last month of them. A run starts with those that are recalled."""

    def __init__(self, underlyings: int) -> None:
        self._moves: FloatArray = np.zeros((0, underlyings))
        self._price: FloatArray = np.full(underlyings, np.nan)
        self._at_ns = 0

    def due(self, now_ns: int) -> bool:
        """Whether an hour has passed."""
        return now_ns - self._at_ns >= EVERY_NS

    def observe(self, now_ns: int, price: FloatArray) -> None:
        """Once an hour `price` [U] is remembered; an hour in which one of them is unknown counts for none, nor does a
        longer time between two."""
        if not self.due(now_ns):
            return
        on_time = now_ns - self._at_ns < 2 * EVERY_NS
        move = price / self._price - 1.0
        if on_time and np.isfinite(move).all():
            moves = np.vstack((self._moves, move * _TO_A_DAY))[-KEPT:]
            moves.flags.writeable = False
            self._moves = moves
        self._price, self._at_ns = price.copy(), now_ns

    def recall(self, at_ns: tuple[int, ...], price: FloatArray) -> None:
        """The hours before the run, as if observed: `price` [T, U] known at `at_ns` [T], oldest first. No move leads
        from them to the run's own prices, which are of the index and may be of another venue."""
        for now_ns, row in zip(at_ns, price, strict=True):
            self.observe(now_ns, row)
        self._price = np.full_like(self._price, np.nan)

    @property
    def of_a_day(self) -> FloatArray:
        """[H, U] moves, each scaled from an hour to a day by the square root of time; read-only."""
        return self._moves
