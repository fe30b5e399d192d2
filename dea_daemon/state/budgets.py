"""What was traded, paid, sent and cancelled within rolling stretches of time."""

from dea_daemon.domain.events import RunStarted
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.state.windows import RollingSum

MINUTE_NS, HOUR_NS, DAY_NS = 60 * NS_PER_S, 3_600 * NS_PER_S, 86_400 * NS_PER_S


class Budgets:
    """Turnover and fees in USD, creates and cancels in numbers. A run starts with what the last ones used."""

    def __init__(self, started: RunStarted) -> None:
        self.turnover_hour, self.turnover_day = RollingSum(HOUR_NS), RollingSum(DAY_NS)
        self.fees_hour, self.fees_day = RollingSum(HOUR_NS), RollingSum(DAY_NS)
        self.creates_minute, self.creates_hour = RollingSum(MINUTE_NS), RollingSum(HOUR_NS)
        self.cancels_hour = RollingSum(HOUR_NS)
        for window, used in (
            (self.turnover_hour, started.hour_turnover_usd),
            (self.turnover_day, max(started.day_turnover_usd, started.hour_turnover_usd)),
            (self.fees_hour, started.hour_fees_usd),
            (self.fees_day, max(started.day_fees_usd, started.hour_fees_usd)),
            (self.creates_minute, float(started.minute_creates)),
            (self.creates_hour, float(started.minute_creates)),
        ):
            window.add(started.ts_recv_ns, used)

    @property
    def windows(self) -> tuple[RollingSum, ...]:
        return tuple(vars(self).values())

    def prune(self, now_ns: int) -> None:
        for window in self.windows:
            window.prune(now_ns)

    def filled(self, now_ns: int, turnover_usd: float, fee_usd: float) -> None:
        """An execution; what it earned in fees gives nothing back."""
        for window in (self.turnover_hour, self.turnover_day):
            window.add(now_ns, turnover_usd)
        for window in (self.fees_hour, self.fees_day):
            window.add(now_ns, max(fee_usd, 0.0))

    def created(self, now_ns: int) -> None:
        self.creates_minute.add(now_ns, 1.0)
        self.creates_hour.add(now_ns, 1.0)

    def cancelled(self, now_ns: int) -> None:
        self.cancels_hour.add(now_ns, 1.0)
