"""What finding the cheapest book costs, tick by tick, beside solvers of others on the same problems.

From one tick to the next expected returns wander and the book moves a third of the way to the last answer; risk, costs
and limits stay. Everybody starts where it ended before, as far as it can, and may prepare what does not change. Asked
for: ours a certified gap of 1e-9; the others 1e-8 in their own terms, the same book within 1e-5 of its costs.
"""

import gc
import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import clarabel
import daqp
import msgspec
import numpy as np
import osqp
import piqp
from scipy import sparse

from dea_daemon.allocator.certificate import objective
from dea_daemon.allocator.problem import Multipliers, Problem
from dea_daemon.allocator.solver import solve
from dea_daemon.domain.errors import InvariantViolation, check
from dea_daemon.domain.events import IndexUpdated, MarkUpdated, QuoteUpdated
from dea_daemon.domain.instruments import FloatArray, Instrument, Kind, Payoff
from dea_daemon.engine import begin
from tests.allocator.oracle import Standard, cones, in_cvxpy, standard, terms
from tests.house import START_NS, Run, S, instrument, parameters

SIZES = (50, 200, 500)
TICKS, PEER_TICKS = 500, 40
WARM_UP = 5
BUDGET_S = 6.0  # of one peer at one size
TOLERANCE = 1e-8

Path = list[tuple[FloatArray, FloatArray]]  # mu and x0 of every tick
Tick = Callable[[FloatArray, FloatArray], FloatArray]  # mu, x0 → x


def rows(sizes: tuple[int, ...] = SIZES, ticks: int = TICKS) -> list[dict[str, Any]]:
    """name, ours, peer, peer_name, unit, ratio."""
    found = [row for n in sizes for row in of_size(n, ticks)]
    return found + whole_decision(ticks)


def of_size(n: int, ticks: int) -> Iterator[dict[str, Any]]:
    problem, path = drifting(n, ticks)
    ours_us, last = timed(ours(problem, solve), path)
    p50 = float(np.median(ours_us))
    for name, make in PEERS.items():
        short = path[: WARM_UP + PEER_TICKS]
        peer_us, theirs = timed(make(problem), short, BUDGET_S)
        same_book(problem, path[len(theirs) - 1], theirs[-1], last[len(theirs) - 1], name)
        yield _row(f"solver, a warm tick, n = {n}", p50, float(np.median(peer_us)), name)
    yield {
        "name": f"solver, p99 over p50, n = {n}",
        "ours": round(float(np.percentile(ours_us, 99)) / p50, 2),
        "unit": "×",
    }
    yield from _fast(problem, path, n)


def _fast(problem: Problem, path: Path, n: int) -> Iterator[dict[str, Any]]:
    """The compiled solver, where it and numba are."""
    try:
        compiled = importlib.import_module("dea_daemon.allocator.fast").solve
    except ImportError:
        return
    us, books = timed(ours(problem, compiled), path)
    name = next(iter(PEERS))
    peer_us, theirs = timed(PEERS[name](problem), path[: WARM_UP + PEER_TICKS], BUDGET_S)
    same_book(problem, path[len(theirs) - 1], theirs[-1], books[len(theirs) - 1], name)
    yield _row(f"solver, compiled, a warm tick, n = {n}", float(np.median(us)), float(np.median(peer_us)), name)


def _row(name: str, ours_us: float, peer_us: float, peer: str) -> dict[str, Any]:
    told = {"ours": round(ours_us, 1), "peer": round(peer_us, 1), "ratio": round(peer_us / ours_us, 1)}
    return {"name": name, **told, "peer_name": peer, "unit": "us"}


def timed(tick: Tick, path: Path, budget_s: float = np.inf) -> tuple[FloatArray, list[FloatArray]]:
    """us of every tick but the first few, which warm up; the books. Ends early where that takes too long."""
    taken, books, ends_s = [], [], time.perf_counter() + budget_s
    gc.collect()
    for mu, x0 in path:
        began_ns = time.perf_counter_ns()
        books.append(tick(mu, x0))
        taken.append(time.perf_counter_ns() - began_ns)
        if time.perf_counter() > ends_s and len(taken) > WARM_UP:
            break
    return np.array(taken[WARM_UP:]) / 1e3, books


def same_book(problem: Problem, at: tuple[FloatArray, FloatArray], x: FloatArray, y: FloatArray, name: str) -> None:
    """Refuse to compare solvers that answer differently."""
    there = replace(problem, mu=at[0], x0=at[1])
    off = abs(objective(there, x) - objective(there, y)) / float(np.abs(terms(there, y)).sum())
    check(off <= 1e-5, f"{name} found another book: its objective is off by {off:.1e}")


# --- problems --------------------------------------------------------------------------------------------------


def drifting(n: int, ticks: int) -> tuple[Problem, Path]:
    """n positions, a factor for every ten up to twenty, ten rows, and the path of `ticks` ticks after a warm-up."""
    dice = np.random.default_rng(n)
    k, m = max(1, min(20, n // 10)), 10
    held = dice.normal(0.0, 0.3, n)
    G = dice.normal(size=(m, n)) / np.sqrt(n)
    problem = Problem(
        mu=dice.normal(0.0, 1.0, n),
        B=dice.normal(size=(n, k)),
        omega=np.diag(dice.lognormal(-1.0, 0.5, k)),
        d=dice.lognormal(0.0, 0.5, n),
        cost=dice.lognormal(-2.0, 0.5, n),
        x0=held,
        lower=np.full(n, -1.5),
        upper=np.full(n, 1.5),
        G=G,
        g_lower=G @ held - 0.1,
        g_upper=G @ held + 0.1,
        row_price=np.full(m, np.inf),
    )
    path: Path = []
    mu, x0, start = problem.mu, problem.x0, None
    for _ in range(WARM_UP + ticks):
        path.append((mu, x0))
        found = solve(replace(problem, mu=mu, x0=x0), start)
        start = found.multipliers
        mu, x0 = mu + dice.normal(0.0, 0.02, n), x0 + (found.x - x0) / 3.0
    return problem, path


# --- solvers ---------------------------------------------------------------------------------------------------


def ours(problem: Problem, method: Callable[..., Any]) -> Tick:
    start: Multipliers | None = None

    def tick(mu: FloatArray, x0: FloatArray) -> FloatArray:
        nonlocal start
        found = method(replace(problem, mu=mu, x0=x0), start)
        start = found.multipliers
        return np.asarray(found.x)

    return tick


def by_cvxpy(problem: Problem) -> Tick:
    programme, x, mu_now, x0_now = in_cvxpy(problem)

    def tick(mu: FloatArray, x0: FloatArray) -> FloatArray:
        mu_now.value, x0_now.value = mu, x0
        programme.solve(solver="CLARABEL", warm_start=True, enforce_dpp=True)
        return np.asarray(x.value)

    return tick


class _Standard:
    """The standard form as mu and x0 change: q, l and u anew, the rest as it was."""

    def __init__(self, problem: Problem, factored: bool) -> None:
        self.given: Standard = standard(problem, factored)
        self.n = len(problem.mu)
        self.dear = np.flatnonzero(problem.cost > 0.0)
        self.at_x0 = slice(self.n, self.n + len(self.dear)), slice(self.n + len(self.dear), self.n + 2 * len(self.dear))

    def move(self, mu: FloatArray, x0: FloatArray) -> Standard:
        self.given.q[: self.n] = -mu
        self.given.u[self.at_x0[0]] = x0[self.dear]
        self.given.l[self.at_x0[1]] = x0[self.dear]
        return self.given


def by_clarabel(problem: Problem) -> Tick:
    form = _Standard(problem, factored=True)
    settings = clarabel.DefaultSettings()
    settings.verbose = settings.presolve_enable = False
    solver = clarabel.DefaultSolver(sparse.triu(form.given.P, format="csc"), form.given.q, *cones(form.given), settings)

    def tick(mu: FloatArray, x0: FloatArray) -> FloatArray:
        given = form.move(mu, x0)
        solver.update(q=given.q, b=cones(given)[1])
        return np.asarray(solver.solve().x[: form.n])

    return tick


def by_osqp(problem: Problem) -> Tick:
    form = _Standard(problem, factored=True)
    given, solver = form.given, osqp.OSQP()
    precision = dict(eps_abs=TOLERANCE, eps_rel=TOLERANCE, max_iter=100_000)
    solver.setup(sparse.triu(given.P, format="csc"), given.q, given.A, given.l, given.u, verbose=False, **precision)

    def tick(mu: FloatArray, x0: FloatArray) -> FloatArray:
        given = form.move(mu, x0)
        solver.update(q=given.q, l=given.l, u=given.u)
        return np.asarray(solver.solve(raise_error=True).x[: form.n])

    return tick


def by_piqp(problem: Problem) -> Tick:
    form = _Standard(problem, factored=True)
    given, solver = form.given, piqp.SparseSolver()
    solver.settings.eps_abs = solver.settings.eps_rel = TOLERANCE
    equal = given.l == given.u
    A, G = sparse.csc_matrix(given.A[equal]), sparse.csc_matrix(given.A[~equal])
    solver.setup(given.P, given.q, A, given.u[equal], G, given.l[~equal], given.u[~equal])

    def tick(mu: FloatArray, x0: FloatArray) -> FloatArray:
        given = form.move(mu, x0)
        solver.update(c=given.q, h_l=given.l[~equal], h_u=given.u[~equal])
        solver.solve()
        return np.asarray(solver.result.x[: form.n])

    return tick


def by_daqp(problem: Problem) -> Tick:
    """An active-set method: dense, and strictly convex but for a proximal term."""
    form = _Standard(problem, factored=False)
    given, solver = form.given, daqp.Model()
    solver.settings = {"primal_tol": TOLERANCE, "dual_tol": TOLERANCE, "iter_limit": 100_000}
    solver.setup(given.P.toarray(), given.q, np.ascontiguousarray(given.A.toarray()), given.u, given.l)

    def tick(mu: FloatArray, x0: FloatArray) -> FloatArray:
        given = form.move(mu, x0)
        solver.update(f=given.q, bupper=given.u, blower=given.l)
        return np.asarray(solver.solve()[0][: form.n])

    return tick


PEERS: dict[str, Callable[[Problem], Tick]] = {
    "cvxpy, parametrised, Clarabel": by_cvxpy,
    "Clarabel": by_clarabel,
    "OSQP": by_osqp,
    "PIQP": by_piqp,
    "DAQP": by_daqp,
}


# --- the whole decision ----------------------------------------------------------------------------------------

COINS = ("BTC", "ETH", "SOL", "XRP", "BNB", "ADA", "DOGE", "AVAX", "LINK", "LTC")
EXPIRIES_DAYS = (30, 60, 90, 180)


def whole_decision(ticks: int) -> list[dict[str, Any]]:
    """A decision of the core over 50 contracts, all of which may trade, beside cvxpy on the problem in its midst."""
    decisions_us, problem = Desk().decided(ticks)
    name, path = next(iter(PEERS)), [(problem.mu, problem.x0)] * (WARM_UP + PEER_TICKS)
    peer_us, theirs = timed(PEERS[name](problem), path, BUDGET_S)
    same_book(problem, path[0], theirs[-1], solve(problem).x, name)
    peer = f"one solution of the same problem, of {len(problem.mu)} contracts, by {name}"
    return [
        _row(
            "solver, the whole decision, 50 contracts", float(np.median(decisions_us)), float(np.median(peer_us)), peer
        )
    ]


class Desk(Run):
    """A perpetual and four futures of ten coins each, every coin far from where it is wanted; orders never fill."""

    def __init__(self) -> None:
        wide: dict[str, object] = dict.fromkeys(
            ("max_gross_usd", "max_net_usd", "max_instrument_usd", "max_order_usd"), 1e8
        )
        turnover: dict[str, object] = dict.fromkeys(("max_turnover_usd_per_hour", "max_fees_usd_per_hour"), 1e12)
        targets = {coin: {"kind": "fixed", "delta_usd": 50_000, "band_usd": 1_000} for coin in COINS}
        super().__init__(parameters(guards=wide | turnover, allocator={"targets": targets}))
        self.contracts = tuple(contract for coin in COINS for contract in _contracts(coin))
        self.prices = dict.fromkeys(COINS, 100.0)
        self.dice = np.random.default_rng(1)
        rows = tuple((0, contract) for contract in self.contracts)
        self.started = msgspec.structs.replace(self.started, rows=rows)
        self.state, self.params = begin(self.started)

    def quote(self, spread: float = 0.04, amount: float = 1e6) -> None:
        """A tick's worth of news: every price a little elsewhere."""
        for coin, price in self.prices.items():
            self.prices[coin] = price * float(np.exp(self.dice.normal(0.0, 1e-4)))
            self.feed(IndexUpdated(self.now_ns, self.now_ns, 0, coin, self.prices[coin]))
        for row, contract in enumerate(self.contracts):
            mid = round(self.prices[contract.underlying] * (1.0 + 0.0005 * (row % 5)), 2)
            self.feed(
                QuoteUpdated(self.now_ns, self.now_ns, row, mid - spread / 2, amount, mid + spread / 2, amount),
                MarkUpdated(self.now_ns, self.now_ns, row, mid, self.prices[contract.underlying], 1e-5),
            )

    def decided(self, ticks: int) -> tuple[FloatArray, Problem]:
        """us of each decision, and the last problem solved. Every one of them solves one."""
        self.settle()
        taken: list[int] = []
        solved: list[Problem | None] = [None]
        for _ in range(ticks):
            self.pass_time(100)
            self.quote()
            began_ns = time.perf_counter_ns()
            self.tick()
            taken.append(time.perf_counter_ns() - began_ns)
            solved.append(self.state.memory.allocator.problem)
            check(solved[-1] is not solved[-2], "a decision that solved a problem")
        if (last := solved[-1]) is None:
            raise InvariantViolation("no decisions")
        return np.array(taken[WARM_UP:]) / 1e3, last


def _contracts(coin: str) -> Iterator[Instrument]:
    linear: dict[str, Any] = dict(payoff=Payoff.LINEAR, lot="0.001", tick="0.01")
    yield instrument(f"{coin}_USDC-PERPETUAL", coin, **linear)
    for days in EXPIRIES_DAYS:
        expiry_ns = START_NS + days * 86_400 * S
        yield instrument(f"{coin}_USDC-{days}D", coin, **linear, kind=Kind.FUTURE, expiry_ns=expiry_ns)
