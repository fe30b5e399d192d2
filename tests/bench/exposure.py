"""What a decision pays to know its exposure: Greeks and the matrix X of a book of options, and its forwards.

The yardstick is one pass of scipy's normal distribution over as many numbers: what a single Black delta of the chain
costs at the least. Rounds of all are interleaved in one process, medians taken.
"""

import statistics
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
from scipy.special import ndtr

from dea_daemon.domain.factors import FactorIndex
from dea_daemon.domain.instruments import AccountKey, Instrument, Kind, Payoff, Universe
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.pricing import black
from dea_daemon.pricing.exposure import Marks, exposure_per_lot
from dea_daemon.pricing.forwards import forwards

OPTIONS = 1_000
EXPIRIES_DAYS = (1, 2, 7, 14, 30, 60, 90, 180, 270, 360)
SPOT_USD = {"BTC": 80_000.0, "ETH": 3_000.0}
ROUNDS = 500


def rows(options: int = OPTIONS, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """name, ours, peer, peer_name, unit, ratio: peer over ours, as everywhere, so a fraction here."""
    book = Book(options)
    normal = np.linspace(-3.0, 3.0, options)
    costs = _medians_us(
        {
            "normal": lambda: ndtr(normal),
            "Greeks": book.greeks,
            "exposure matrix": book.matrix,
            "Greeks and exposure matrix": lambda: book.matrix(*book.greeks()),
            "forwards": book.forwards,
        },
        rounds,
    )
    peer = costs.pop("normal")
    yardstick = f"scipy ndtr over {options:,} numbers"
    return [
        {
            "name": f"{name} of {options:,} options",
            "ours": round(cost, 1),
            "peer": round(peer, 2),
            "peer_name": yardstick,
            "unit": "us",
            "ratio": round(peer / cost, 4),
        }
        for name, cost in costs.items()
    ]


def _medians_us(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    taken: dict[str, list[int]] = {name: [] for name in work}
    for _ in range(rounds + 10):
        for name, run in work.items():
            began_ns = time.perf_counter_ns()
            run()
            taken[name].append(time.perf_counter_ns() - began_ns)
    return {name: statistics.median(costs[10:]) / 1e3 for name, costs in taken.items()}  # the first warm it up


class Book:
    """So many coin-quoted options on BTC and ETH over ten expiries, every second of which has a future; and perpetuals.

    Everything that does not change between decisions is made here.
    """

    def __init__(self, options: int) -> None:
        contracts = _contracts(options)
        self.universe = universe = Universe((AccountKey("deribit", "main"),), tuple((0, c) for c in contracts))
        self.factors = FactorIndex(universe.underlyings, ("USDC",))
        self.spot = np.array([SPOT_USD[c.underlying] for c in contracts])
        self.tau = universe.expiry_ns / NS_PER_DAY / 365.0
        self.forward = self.spot * np.exp(0.05 * self.tau)
        self.iv = np.full(len(universe), 0.6)
        self.mine = np.flatnonzero(universe.option)
        mid, _ = self._priced()
        self.mid = np.where(universe.option, mid / self.forward, self.forward)
        self.synthetic = np.where(universe.option, self.forward, np.nan)

    def _priced(self) -> tuple[np.ndarray, black.Greeks]:
        mine, universe = self.mine, self.universe
        g = black.greeks(self.forward[mine], universe.strike[mine], self.tau[mine], self.iv[mine], universe.call[mine])
        value = np.zeros(len(universe))
        value[mine] = g.price
        return value, g

    def greeks(self) -> tuple[np.ndarray, black.Greeks]:
        return self._priced()

    def matrix(self, value: np.ndarray | None = None, g: black.Greeks | None = None) -> np.ndarray:
        """X from Greeks of the options; from zeros where there are none, which costs the same."""
        n = len(self.universe)
        value = np.zeros(n) if value is None else value
        columns = np.zeros((4, n))
        if g is not None:
            columns[:, self.mine] = g.delta, g.gamma, g.vega, g.theta
        delta, gamma, vega, theta = columns
        ones, rate = np.ones(n), np.full(n, 1e-4)
        marks = Marks(
            self.mid, self.spot, self.forward, self.spot, rate, self.tau, ones, delta, gamma, vega, theta,
            value / self.forward,
        )  # fmt: skip
        return exposure_per_lot(self.universe, self.factors, marks)

    def forwards(self) -> object:
        half = np.where(self.universe.option, 0.0005, 1.0)
        fresh = np.ones(len(self.universe), dtype=np.bool_)
        return forwards(
            self.universe, self.mid, self.mid - half, self.mid + half, fresh, self.synthetic, self.spot, self.tau
        )


def _contracts(options: int) -> list[Instrument]:
    strikes = max(options // (2 * 2 * len(EXPIRIES_DAYS)), 1)  # two underlyings, a call and a put at each
    contracts = []
    for coin, spot in SPOT_USD.items():
        contracts.append(_contract(coin, f"{coin}-PERPETUAL", Kind.PERPETUAL, 0))
        for k, days in enumerate(EXPIRIES_DAYS):
            if k % 2 == 0:
                contracts.append(_contract(coin, f"{coin}-{days}D", Kind.FUTURE, days))
            for strike in np.linspace(0.7, 1.4, strikes) * spot:
                for call in (True, False):
                    name = f"{coin}-{days}D-{strike:.3f}-{'C' if call else 'P'}"
                    contracts.append(_contract(coin, name, Kind.OPTION, days, float(strike), call))
    return contracts


def _contract(coin: str, name: str, kind: Kind, days: int, strike: float = 0.0, call: bool = False) -> Instrument:
    option = kind is Kind.OPTION
    return Instrument(
        venue="deribit",
        name=name,
        kind=kind,
        payoff=Payoff.LINEAR if option else Payoff.INVERSE,
        underlying=coin,
        quote_currency=coin if option else "USD",
        settle_currency=coin,
        margin_pool=coin,
        contract_size=Decimal(1),
        lot_size=Decimal("0.1") if option else Decimal(10),
        tick_size=Decimal("0.0001"),
        expiry_ns=days * NS_PER_DAY,
        strike=strike,
        is_call=call,
    )
