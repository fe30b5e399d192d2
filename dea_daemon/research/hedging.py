"""What it costs to hedge sold options with a perpetual, and how far the result still strays, by when one trades.

Monte Carlo of the option's forward from the sale to the expiry, every policy on the same paths; interest, funding and
the spread of volatility are left out, so a hedge that is perfect and free would make exactly nothing. The bands are the
allocator's own (`allocator/band.py`). One coin is sold, so that coins are shares of the book: n coins behave alike at a
risk aversion n times smaller.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dea_daemon.allocator.band import half_width
from dea_daemon.domain.errors import check
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.pricing.black import greeks

RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class World:
    """How the forward moves, a martingale: `annual_vol` between jumps; jumps a year, each of `jump_vol` in logarithm.

    Source of the jumps: Merton (1976).
    """

    annual_vol: float = 0.60
    jumps_a_year: float = 0.0
    jump_vol: float = 0.0
    days: float = 30.0
    steps_a_day: int = 96

    @property
    def steps(self) -> int:
        return round(self.days * self.steps_a_day)

    @property
    def step_years(self) -> float:
        return 1.0 / (self.steps_a_day * DAYS_PER_YEAR)


@dataclass(frozen=True, slots=True)
class Sold:
    """Options on one coin sold at `iv`, and hedged by its Greeks; `cost` USD per USD of the hedge traded."""

    calls: float = 1.0
    puts: float = 0.0
    strike: float = 100_000.0
    forward: float = 100_000.0
    iv: float = 0.60
    cost: float = 5e-4

    def greeks(self, forward: FloatArray | float, tau_years: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(worth USD, delta coins, gamma coins per USD) of what was sold; a put is a call less the forward."""
        of_call = greeks(forward, self.strike, tau_years, self.iv, True)
        both = self.calls + self.puts
        worth = both * of_call.price - self.puts * (np.asarray(forward) - self.strike)
        return worth, both * of_call.delta - self.puts, both * of_call.gamma


@dataclass(frozen=True, slots=True)
class Policy:
    """When the hedge is traded, and how far: at each `every`th step, where it is further than the band from the delta.

    The band is the allocator's at `risk_aversion` (1/USD), or `width` coins either way; `inner` of it is traded back to
    (1: its edge); whole `lot` coins, rounded towards less. `modified` is Zakamouline's hedge instead.
    """

    name: str
    every: int = 1
    risk_aversion: float | None = None
    width: float = 0.0
    inner: float = 1.0
    lot: float = 0.0
    modified: bool = False


BAND = Policy("band")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of each policy R on each path P. `pnl_usd` is net of cost, of the option and its hedge; `cost_usd`
    without closing the hedge at expiry, which costs all of them the same; `gap_coins` [R] is the root mean square
    distance of hedge from delta, and `trades` [R] their mean count."""

    policies: tuple[Policy, ...]
    premium_usd: float
    pnl_usd: FloatArray
    cost_usd: FloatArray
    gap_coins: FloatArray
    trades: FloatArray

    def row(self, name: str) -> int:
        return [policy.name for policy in self.policies].index(name)


@dataclass(frozen=True, slots=True)
class Figures:
    """Per policy [R], as shares of the premium: standard deviation and mean of the P&L, mean cost; standard errors."""

    deviation: FloatArray
    deviation_error: FloatArray
    cost: FloatArray
    cost_error: FloatArray
    mean: FloatArray


# --- the bands -------------------------------------------------------------------------------------------


def band_coins(cost: float, gamma: FloatArray, forward: FloatArray, iv: float, risk_aversion: FloatArray) -> FloatArray:
    """The allocator's half-width in coins, of what broadcasts: gamma coins per USD, risk_aversion 1/USD.

    The target moves by its gamma, s² = (Γ F²)² σ² USD² a day; standing off it by d costs ½ γ σ² d² a day. σ falls out,
    and what is left is Whalley & Wilmott's (1997) (3 c F Γ² / 2γ)^⅓ without interest.
    """
    variance = iv**2 / DAYS_PER_YEAR
    of_target = (gamma * forward**2) ** 2 * variance
    return np.asarray(half_width(np.asarray(cost), of_target, risk_aversion * variance) / forward)


def modified_hedge(
    sold: Sold, forward: FloatArray, tau_years: float, gamma: FloatArray, aversion: float
) -> tuple[FloatArray, FloatArray]:
    """(aim, half-width) [P] coins: delta at a raised volatility, as what is sold wants, and a band that does not close
    where gamma does. To compare with; the daemon does not use it.

    Source: Zakamouline (2006), European Financial Management 12, the double asymptotic's approximation.
    """
    cost, iv = sold.cost, sold.iv
    common = iv**-0.25
    raised = 4.76 * cost**0.78 * tau_years**-0.02 * common * (aversion * forward**2 * np.abs(gamma)) ** 0.15
    width = 1.12 * cost**0.31 * tau_years**0.05 * common * np.sqrt(np.abs(gamma) / aversion)
    width += cost / (aversion * forward * iv**2 * tau_years)
    both = sold.calls + sold.puts
    aim = both * greeks(forward, sold.strike, tau_years, iv * np.sqrt(1.0 + raised), True).delta - sold.puts
    return aim, width


# --- the run ---------------------------------------------------------------------------------------------


def run(world: World, sold: Sold, policies: Sequence[Policy], *, paths: int, seed: int) -> Outcome:
    """Every policy on the same `paths`. Raises InvariantViolation where there is nothing to run."""
    check(bool(policies) and paths > 1 and world.steps > 0, "a study needs policies, paths and steps")
    draws = np.random.default_rng(seed)
    desk = _Desk(sold, tuple(policies), paths)
    forward = np.full(paths, sold.forward)
    for step in range(world.steps):
        desk.trade(step, forward, (world.steps - step) * world.step_years)
        after = forward * growth(world, paths, draws)
        desk.pnl += desk.held * (after - forward)
        forward = after
    premium = float(sold.greeks(sold.forward, world.steps * world.step_years)[0])
    settled, _, _ = sold.greeks(forward, 0.0)
    desk.pnl += premium - settled - desk.cost
    gap = np.sqrt(desk.gap_squared / (world.steps * paths))
    return Outcome(tuple(policies), premium, desk.pnl, desk.cost, gap, desk.trades / paths)


def growth(world: World, paths: int, draws: np.random.Generator) -> FloatArray:
    """[paths] by how much the forward is multiplied in one step; 1 in the mean."""
    dt = world.step_years
    log = draws.standard_normal(paths) * (world.annual_vol * np.sqrt(dt)) - 0.5 * world.annual_vol**2 * dt
    if world.jumps_a_year > 0.0:
        jumps = draws.poisson(world.jumps_a_year * dt, paths)
        log += world.jump_vol * np.sqrt(jumps) * draws.standard_normal(paths)
        log -= world.jumps_a_year * dt * np.expm1(0.5 * world.jump_vol**2)
    return np.asarray(np.exp(log))


class _Desk:
    """Hedges [R, P] of all policies, and what they came to."""

    def __init__(self, sold: Sold, policies: tuple[Policy, ...], paths: int) -> None:
        shape = (len(policies), paths)
        self.sold, self.policies = sold, policies
        self.held, self.pnl, self.cost = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.gap_squared, self.trades = np.zeros(len(policies)), np.zeros(len(policies))
        self._every = np.array([policy.every for policy in policies])
        self._inner = np.array([[policy.inner] for policy in policies])
        self._width = np.array([[policy.width] for policy in policies]) + np.zeros(shape)
        self._aim = np.zeros(shape)
        banded = [r for r, p in enumerate(policies) if p.risk_aversion is not None and not p.modified]
        self._banded = np.array(banded, dtype=np.int64)
        self._aversion = np.array([[policies[r].risk_aversion] for r in banded], dtype=np.float64)
        self._modified = [(r, p.risk_aversion or np.nan) for r, p in enumerate(policies) if p.modified]
        self._lots = [(r, p.lot) for r, p in enumerate(policies) if p.lot > 0.0]

    def trade(self, step: int, forward: FloatArray, tau_years: float) -> None:
        """Each policy whose turn it is trades what its band asks of it."""
        _, delta, gamma = self.sold.greeks(forward, tau_years)
        self._lay_out(forward, tau_years, delta, gamma)
        change = self._changes(step)
        traded = np.abs(change)
        self.trades += np.count_nonzero(traded, axis=1)
        traded *= self.sold.cost * forward
        self.cost += traded
        self.held += change
        gap = self.held - delta
        self.gap_squared += np.einsum("rp,rp->r", gap, gap)

    def _lay_out(self, forward: FloatArray, tau_years: float, delta: FloatArray, gamma: FloatArray) -> None:
        """Aims and half-widths [R, P] of this step."""
        self._aim[:] = delta
        if len(self._banded):
            sold = self.sold
            self._width[self._banded] = band_coins(sold.cost, gamma, forward, sold.iv, self._aversion)
        for r, aversion in self._modified:
            self._aim[r], self._width[r] = modified_hedge(self.sold, forward, tau_years, gamma, aversion)

    def _changes(self, step: int) -> FloatArray:
        """[R, P] coins to buy."""
        distance = self.held - self._aim
        inner = self._inner * self._width
        change = np.clip(distance, -inner, inner)
        change -= distance
        change *= np.abs(distance) > self._width
        change[step % self._every != 0] = 0.0
        for r, lot in self._lots:
            change[r] = lot * np.trunc(change[r] / lot + np.copysign(1e-9, change[r]))
        return change


# --- what came of it -------------------------------------------------------------------------------------


def figures(outcome: Outcome) -> Figures:
    """The error of a standard deviation s is s/2 · √((kurtosis − 1)/P), P&L being far from normal."""
    pnl, cost = outcome.pnl_usd / outcome.premium_usd, outcome.cost_usd / outcome.premium_usd
    paths = pnl.shape[1]
    mean, deviation = pnl.mean(axis=1), pnl.std(axis=1, ddof=1)
    kurtosis = ((pnl - mean[:, None]) ** 4).mean(axis=1) / deviation**4
    return Figures(
        deviation=deviation,
        deviation_error=0.5 * deviation * np.sqrt((kurtosis - 1.0) / paths),
        cost=cost.mean(axis=1),
        cost_error=cost.std(axis=1, ddof=1) / np.sqrt(paths),
        mean=mean,
    )


def loss(outcome: Outcome, risk_aversion: float) -> FloatArray:
    """[R] USD: mean cost and ½ γ times the variance of the P&L, what the band of that γ is meant to make least."""
    variance = outcome.pnl_usd.var(axis=1, ddof=1)
    return np.asarray(outcome.cost_usd.mean(axis=1) + 0.5 * risk_aversion * variance)


def cost_beside(outcome: Outcome, name: str, others: Sequence[str], *, seed: int) -> tuple[float, float]:
    """(ratio, standard error): the mean cost of the `others` where they stray as far as `name`, over the cost of it.

    Between the best of the others, those of which none both costs and strays less, cost is a power of deviation. NaN
    where none strays as little, or as much. The error is that of drawing the paths anew.
    """
    rows = [outcome.row(name), *(outcome.row(other) for other in others)]
    pnl, cost = outcome.pnl_usd[rows], outcome.cost_usd[rows]
    draws = np.random.default_rng(seed)
    paths = pnl.shape[1]
    counts = draws.multinomial(paths, np.full(paths, 1.0 / paths), RESAMPLES).astype(np.float64)
    drawn = [_ratio(pnl, cost, count) for count in counts]
    return _ratio(pnl, cost, np.ones(paths)), float(np.std(drawn, ddof=1))


def _ratio(pnl: FloatArray, cost: FloatArray, weight: FloatArray) -> float:
    """`weight` [P]: how often each path counts."""
    mean, square = pnl @ weight / weight.sum(), pnl**2 @ weight / weight.sum()
    deviation, mean_cost = 0.5 * np.log(square - mean**2), np.log(cost @ weight / weight.sum())
    order = 1 + np.argsort(deviation[1:])
    best = order[mean_cost[order] <= np.minimum.accumulate(mean_cost[order])]
    theirs = np.interp(deviation[0], deviation[best], mean_cost[best], left=np.nan, right=np.nan)
    return float(np.exp(theirs - mean_cost[0]))


def by_the_clock(steps_a_day: int) -> tuple[Policy, ...]:
    """Trading all of the distance every step, hour, and so on, whatever it is."""
    hours = {"hourly": 1, "every 3 hours": 3, "every 6 hours": 6, "every 12 hours": 12, "daily": 24}
    return (Policy("every step"), *(Policy(name, every=max(h * steps_a_day // 24, 1)) for name, h in hours.items()))


def by_the_band(sold: Sold, aversions: Sequence[float], kind: Policy = BAND) -> tuple[Policy, ...]:
    """Policies of a `kind` at each of `aversions`: risk aversion, times what a coin is worth at the start."""
    return tuple(replace(kind, name=f"{kind.name} {a:g}", risk_aversion=a / sold.forward) for a in aversions)
