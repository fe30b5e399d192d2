"""What the venue remembers of its public market: trades, one-minute candles, hourly funding. All bounded."""

from collections import deque
from itertools import pairwise

from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.simvenue.accounts import FUNDING_INTERVAL_NS
from dea_daemon.simvenue.words import Traded

Candle = tuple[int, float, float, float, float, float]  # start ns, open, high, low, close, amount traded
FundingHour = tuple[int, float, float, float]  # hour's end ns, index, funding of the last hour, of the last eight

MINUTE_NS = 60 * NS_PER_S
HOUR_NS = 3_600 * NS_PER_S
TRADES_MAX = 1_000
CANDLES_MAX = 24 * 60
FUNDING_HOURS_MAX = 24 * 31
HOURS_BEFORE = 24 * 32  # of the time before the venue opened, as if it had been there


class MarketHistory:
    """The public past of one contract."""

    def __init__(self) -> None:
        self.trades: deque[Traded] = deque(maxlen=TRADES_MAX)
        self.volume = 0.0  # of the candles kept: 24 hours
        self._minutes: deque[Candle] = deque()
        self._funding: deque[FundingHour] = deque(maxlen=FUNDING_HOURS_MAX)
        self._paid = 0.0  # funding as a fraction of notional, since the start
        self._marks: deque[float] = deque([0.0], maxlen=9)  # `_paid` at each hour's turn

    def add_trade(self, trade: Traded, price: float, amount: float) -> None:
        """Fold a public trade into the trades and its minute. amount in the venue's own unit."""
        self.trades.append(trade)
        self.volume += amount
        minute = trade.ts_ns // MINUTE_NS * MINUTE_NS
        if self._minutes and self._minutes[-1][0] == minute:
            _, opened, high, low, _, sold = self._minutes[-1]
            self._minutes[-1] = (minute, opened, max(high, price), min(low, price), price, sold + amount)
            return
        self._minutes.append((minute, price, price, price, price, amount))
        while self._minutes[0][0] <= minute - CANDLES_MAX * MINUTE_NS:
            self.volume -= self._minutes.popleft()[5]

    def candles(self, start_ns: int, end_ns: int, step_s: int) -> list[Candle]:
        """Candles that begin within [start, end], `step_s` a multiple of 60. Quiet ones repeat the last close."""
        step_ns = step_s * NS_PER_S
        joined: dict[int, Candle] = {}
        for minute, opened, high, low, close, amount in self._minutes:
            begin = minute // step_ns * step_ns
            if begin in joined:
                _, o, h, lo, _, sold = joined[begin]
                joined[begin] = (begin, o, max(h, high), min(lo, low), close, sold + amount)
            else:
                joined[begin] = (begin, opened, high, low, close, amount)
        return _without_holes(joined, max(start_ns, min(joined, default=end_ns)), end_ns, step_ns)

    def add_funding(self, now_ns: int, elapsed_ns: int, rate_8h: float, index: float) -> None:
        """Fold a stretch of funding; at an hour's turn it is written down."""
        self._paid += rate_8h * elapsed_ns / FUNDING_INTERVAL_NS
        if now_ns // HOUR_NS > (now_ns - elapsed_ns) // HOUR_NS:
            hour = now_ns // HOUR_NS * HOUR_NS
            last_hour = self._paid - self._marks[-1]
            self._marks.append(self._paid)
            self._funding.append((hour, index, last_hour, self.funding_8h()))

    def funding_8h(self) -> float:
        """Funding since eight hours before the last full hour, as a fraction of notional."""
        return self._paid - self._marks[0]

    def funding_hours(self, start_ns: int, end_ns: int) -> list[FundingHour]:
        return [hour for hour in self._funding if start_ns <= hour[0] <= end_ns]


def hours_before(start_ns: int, prices: list[float], usd: float, inverse: bool) -> list[Candle]:
    """Candles between `prices` [hours + 1] on the hours up to the last one before `start_ns`; `usd` traded in each."""
    begin = start_ns // HOUR_NS * HOUR_NS - (len(prices) - 1) * HOUR_NS
    return [
        (begin + n * HOUR_NS, opened, max(opened, close), min(opened, close), close, usd if inverse else usd / close)
        for n, (opened, close) in enumerate(pairwise(prices))
    ]


def _without_holes(joined: dict[int, Candle], start_ns: int, end_ns: int, step_ns: int) -> list[Candle]:
    begins = sorted(joined)
    earlier = [b for b in begins if b < start_ns]
    close = joined[earlier[-1]][4] if earlier else None
    found = []
    for begin in range(-(-start_ns // step_ns) * step_ns, end_ns + 1, step_ns):
        if begin in joined:
            close = joined[begin][4]
            found.append(joined[begin])
        elif close is not None and begins and begin <= begins[-1]:
            found.append((begin, close, close, close, close, 0.0))
    return found
