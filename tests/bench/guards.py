"""What guards cost of a decision: the share of `guard` and `admit` in a tick of the whole core.

A chain of 240 options beside four other contracts, twelve options held, a difference to trade. Each figure is the mean
of the fastest third of many ticks: what else a machine does comes on top of both alike.
"""

import time
from typing import Any

import numpy as np

from dea_daemon import engine
from dea_daemon.domain.errors import check
from dea_daemon.domain.events import DecisionDue
from dea_daemon.domain.parameters import GuardParameters
from dea_daemon.state.returns import EVERY_NS, KEPT, Returns
from tests.house import START_NS
from tests.state import test_options as chains

TICKS = 600
LINEAR: dict[str, Any] = chains.WIDE | {"max_turnover_usd_per_hour": 1e12, "max_fees_usd_per_hour": 1e12}
GROUPS = {"max_gamma_usd_1pct": 1e9, "max_vega_usd_1pt": 1e9, "max_bucket_vega_usd_1pt": 1e9, "max_venue_usd": 1e9}
LOSSES = {"max_scenario_loss": 9.0, "max_stress_loss": 9.0, "max_var": 9.0, "max_es": 9.0}
MANY = LINEAR | GROUPS | {"max_underlying_leverage": 1e4, "max_bucket_basis_usd_1pct": 1e9, "max_net_leverage": 1e4}
SETS = {
    "limits that must be set": LINEAR,
    "and groups and Greeks": MANY,
    "and every loss": MANY | LOSSES,
}


def rows(ticks: int = TICKS) -> list[dict[str, Any]]:
    """name, ours (guards, us), peer (the decision, us), and their ratio: guards over decision, a share."""
    return [row(name, limits, busy, ticks) for busy in (False, True) for name, limits in SETS.items()]


def row(name: str, limits: dict[str, Any], busy: bool, ticks: int) -> dict[str, Any]:
    guards, decision = measured(limits, busy, ticks)
    return {
        "name": f"guards, {'an order working' if busy else 'at rest'}: {name}",
        "ours": round(guards, 1),
        "peer": round(decision, 1),
        "peer_name": "the whole decision, of 244 contracts (the ratio is guards over it)",
        "unit": "us",
        "ratio": round(guards / decision, 3),
    }


def measured(limits: dict[str, Any], busy: bool, ticks: int) -> tuple[float, float]:
    """(guards, decision) in us; `busy`: a difference is being traded, by an order that works."""
    desk = chains.Desk(chain=_chain(), allocator={} if busy else {"targets": {}})
    desk.params = desk.params.model_copy(update={"guards": GuardParameters(**limits)})
    desk.positions = {chains.FIRST + 7 * k: 10 for k in range(12)}
    desk.settle()
    desk.state.market.returns = _a_month(desk.now_ns, len(desk.state.market.universe.underlyings))
    taken: dict[str, list[int]] = {"guard": [], "admit": [], "_decide": []}
    plain = {name: getattr(engine, name) for name in taken}
    try:
        for name in taken:
            setattr(engine, name, _timed(plain[name], taken[name]))
        for _ in range(ticks):
            engine.step(desk.state, DecisionDue(desk.now_ns, desk.now_ns, "bench"), desk.params)
    finally:
        for name, function in plain.items():
            setattr(engine, name, function)
    check(bool(desk.state.account.orders.live()) is busy, "orders at work")
    guard, admit, decision = (np.sort(np.array(times))[: ticks // 3].mean() / 1e3 for times in taken.values())
    return float(guard + admit), float(decision)


def _a_month(until_ns: int, underlyings: int) -> Returns:
    """Hourly moves, as many as are kept: VaR is what was seen from then on."""
    seen, dice = Returns(underlyings), np.random.default_rng(7)
    price = np.full(underlyings, 100.0)
    for hours in range(KEPT, -1, -1):
        seen.observe(until_ns - hours * EVERY_NS, price)
        price = price * np.exp(dice.normal(0.0, 0.006, underlyings))
    return seen


def _timed(function: Any, into: list[int]) -> Any:
    def call(*args: Any) -> Any:
        began = time.perf_counter_ns()
        result = function(*args)
        into.append(time.perf_counter_ns() - began)
        return result

    return call


def _chain() -> list[Any]:
    return [
        chains.option(60_000.0 + 2_000.0 * k, call, START_NS + (week + 1) * 7 * chains.DAY, f"BTC-{week}-{k}-{call}")
        for week in range(6)
        for k in range(20)
        for call in (True, False)
    ]
