"""A monitor to watch, by hand: its past grows when told to."""

from typing import Any

from tests.shell.status_sample import status

START_NS = 1_790_000_000_000_000_000
S = 1_000_000_000


class Watched:
    """What a web server needs of a Monitor, with one point, and now and then a decision and a fill, a step."""

    def __init__(self, run_id: str = "run1", points: int = 0, **now: Any) -> None:
        """`now` goes into the status."""
        self.run_id, self.now = run_id, now
        self.surfaces: dict[str, Any] = dict(utc_ns=START_NS, why="no options are followed", refused=0, surfaces=[])
        self.surfaces_told = 0
        self.padding = ""  # makes each new point larger
        self._points: list[dict[str, Any]] = []
        self._decisions: list[dict[str, Any]] = []
        self._fills: list[dict[str, Any]] = []
        self.grow(points)

    def grow(self, points: int = 1) -> None:
        for _ in range(points):
            seq = 4 * (len(self._points) + 1)
            self._points.append(self._point(seq))
            if len(self._points) % 5 == 0:
                self._decisions.append(record(seq))
                self._fills.append(fill(len(self._fills) + 1))

    def _point(self, seq: int) -> dict[str, Any]:
        point = dict(
            seq=seq,
            utc_ns=START_NS + seq * S // 4,
            equity_usd=500_000.0 + seq,
            drawdown=0.001,
            mode="normal",
            factors={"delta:BTC": [90_000.0 + seq, 100_000.0, 5_000.0], "delta:ETH": [0.0, None, None]},
            limits={"net delta:BTC": 0.25},
        )
        return point | ({"padding": self.padding} if self.padding else {})

    def status(self) -> dict[str, Any]:
        sent = {"seq": 4, "utc_ns": START_NS, **order()}
        return status(run_id=self.run_id, recent_orders=[sent], **self.now)

    def surface(self) -> dict[str, Any]:
        self.surfaces_told += 1
        return self.surfaces

    def points(self, after: int) -> list[dict[str, Any]]:
        return [point for point in self._points if point["seq"] > after]

    def decisions(self, after: int) -> list[dict[str, Any]]:
        return [decision for decision in self._decisions if decision["seq"] > after]

    def decision(self, seq: int | None) -> dict[str, Any] | None:
        found = [d for d in self._decisions if seq is None or d["seq"] == seq]
        return found[-1] if found else None

    def fills(self, after: int) -> list[dict[str, Any]]:
        return [fill for fill in self._fills if fill["n"] > after]


def order() -> dict[str, Any]:
    return dict(
        action="create", instrument="BTC-PERPETUAL", client_order_id="d0100001", side="buy", lots=12, price="80000.5",
        why="rebalance", notional_usd=120.0,
    )  # fmt: skip


def record(seq: int) -> dict[str, Any]:
    factor = dict(
        factor="delta:BTC", price=80_000.0, annual_vol=0.5, actual_usd=9e4, target_usd=1e5, band_usd=5e3
    )  # fmt: skip
    return dict(
        seq=seq, ts_recv_ns=START_NS, utc_ns=START_NS + seq * S // 4, cause="timer", mode=0, armed=True,
        equity_usd=500_000.0, factors=[factor], orders=[order()], notes=["order.filled"],
        clips=[dict(limit="order", subject="<b>BTC</b>", wanted=2e5, allowed=1e5, why="one order's most")],
        uses=[dict(limit="net", subject="delta:BTC", used=9.5e4, allowed=4e5)],
    )  # fmt: skip


def fill(n: int) -> dict[str, Any]:
    return dict(
        n=n, utc_ns=START_NS + n * S, instrument="BTC-PERPETUAL", side="buy", lots=12, price=80_000.5, fee_usd=0.06,
        maker=True, client_order_id="d0100001", position_lots=12 * n,
    )  # fmt: skip
