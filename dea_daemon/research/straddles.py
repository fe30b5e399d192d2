"""Straddles sold at recorded quotes and hedged at the chains that follow: how much of the deviation each hedge removes.

A straddle is worth its mid: twice its out-of-the-money option's and |F − K|, by put-call parity. It is sold at the mid
and bought back at the last that is known. The hedge is the perpetual, taken to be worth the forward of the nearest
expiry; it is traded where a chain was recorded and nowhere between. Left out: funding, the options' own fees and
spread, the coin that premiums are paid in (as if sold at once). Source of the comparison: Matic, Packham & Härdle 2023.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from dea_daemon.domain.events import SurfaceFitted
from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.domain.surfaces import Chain
from dea_daemon.pricing import black
from dea_daemon.pricing.implied import implied_volatility
from dea_daemon.pricing.surface.surface import YEAR_NS, Surface
from dea_daemon.research import bootstrap
from dea_daemon.research.hedging import band_coins

FURTHEST = 2.0  # an expiry this many times nearer or further than wanted is another straddle
COST = 5e-4  # of what is traded of the hedge


class Panel(NamedTuple):
    """One underlying's straddles M at its chains T. at_ns, perpetual [T]; expiry_ns, strike [M]; of one coin each, NaN
    where nobody quotes both sides: forward, value (USD), iv, delta (coins), gamma (coins per USD), and `lean`, what the
    smile adds to delta if it moves with the forward (0 where no surface tells its slope) [T, M]."""

    at_ns: IntArray
    perpetual: FloatArray
    expiry_ns: IntArray
    strike: FloatArray
    forward: FloatArray
    value: FloatArray
    iv: FloatArray
    delta: FloatArray
    gamma: FloatArray
    lean: FloatArray


class Policy(NamedTuple):
    """Which delta is hedged, and to the edge of which band: `width` coins either way, or the allocator's own at a
    `risk_aversion` (times what a coin is worth)."""

    name: str
    delta: Literal["none", "black", "sticky"] = "black"
    width: float = 0.0
    risk_aversion: float | None = None


class Sold(NamedTuple):
    """A straddle sold at chain `first` and bought back at `last`: column `m` of the panel."""

    m: int
    first: int
    last: int


class Course(NamedTuple):
    """What became of it in the step that ends at each chain [T], 0 where it was not held: pnl (net of cost) and cost
    per premium, turnover in coins a straddle."""

    pnl: FloatArray
    cost: FloatArray
    turnover: FloatArray


# --- quotes ----------------------------------------------------------------------------------------------


def panel(chains: Sequence[Chain], surfaces: Sequence[SurfaceFitted]) -> Panel:
    """Chains of one underlying in order of time, and the surface fitted to each."""
    keys = sorted({key for chain in chains for key in zip(chain.expiry_ns, chain.strike, strict=True)})
    column = {key: m for m, key in enumerate(keys)}
    shape = (len(chains), len(keys))
    forward, mid, slope = (np.full(shape, np.nan) for _ in range(3))
    perpetual = np.array([_nearest_forward(chain) for chain in chains])
    expiry, strike = np.array([key[0] for key in keys], dtype=np.int64), np.array([key[1] for key in keys])
    for t, (chain, fitted) in enumerate(zip(chains, surfaces, strict=True)):
        at, level, price = _out_of_the_money(chain, column)
        forward[t, at], mid[t, at] = level, price
        slope[t, at] = _slopes(fitted, expiry[at], np.log(strike[at] / level))
    at_ns = np.array([chain.utc_ns for chain in chains], dtype=np.int64)
    return _greeks(at_ns, perpetual, expiry, strike, forward, mid, slope)


def _nearest_forward(chain: Chain) -> float:
    expiry = np.array(chain.expiry_ns)
    return float(np.median(np.array(chain.forward)[expiry == expiry.min()]))


def _out_of_the_money(chain: Chain, column: dict[tuple[int, float], int]) -> tuple[IntArray, FloatArray, FloatArray]:
    """(columns, forwards, mids) [Q] of the options out of the money with both sides quoted."""
    forward, strike = np.array(chain.forward), np.array(chain.strike)
    bid, ask = np.array(chain.bid), np.array(chain.ask)
    good = (np.array(chain.call) == (strike >= forward)) & (bid > 0.0) & (ask >= bid)
    rows = np.flatnonzero(good).tolist()
    at = np.array([column[chain.expiry_ns[row], chain.strike[row]] for row in rows], dtype=np.int64)
    return at, forward[rows], 0.5 * (bid + ask)[rows]


def _slopes(fitted: SurfaceFitted, expiry_ns: IntArray, k: FloatArray) -> FloatArray:
    """dσ/dk [Q]; NaN where the surface was refused or does not know."""
    if not fitted.smiles:
        return np.full(len(k), np.nan)
    looked = Surface(fitted.chain_utc_ns, fitted.scale, fitted.smiles).look_up(expiry_ns, k)
    return np.where(looked.known, looked.slope, np.nan)


def _greeks(
    at_ns: IntArray,
    perpetual: FloatArray,
    expiry: IntArray,
    strike: FloatArray,
    forward: FloatArray,
    mid: FloatArray,
    slope: FloatArray,
) -> Panel:
    """Of the straddle: both options have one gamma and one vega, the deltas differ by one. A smile that moves with the
    forward leaves σ a function of k = ln(K/F): dσ/dF = −slope / F."""
    tau = (expiry - at_ns[:, None]) / YEAR_NS
    call = strike >= forward
    iv = implied_volatility(mid, forward, strike, tau, call)
    of_call = black.greeks(forward, strike, tau, iv, True)
    value = np.where(np.isfinite(iv), 2.0 * mid + np.abs(forward - strike), np.nan)
    lean = np.nan_to_num(-2.0 * of_call.vega * slope / forward)
    return Panel(
        at_ns,
        perpetual,
        expiry,
        strike,
        forward,
        value,
        iv,
        2.0 * of_call.delta - 1.0,
        2.0 * of_call.gamma,
        lean,
    )


# --- what is sold ----------------------------------------------------------------------------------------


def sold_at(told: Panel, t: int, days: float) -> Sold | None:
    """At chain `t`, the straddle nearest to `days` and, of that expiry, nearest to the money; None where there is none
    that is also quoted later."""
    quoted = np.flatnonzero(np.isfinite(told.value[t]))
    off = np.abs(np.log((told.expiry_ns[quoted] - told.at_ns[t]) / (days * NS_PER_DAY)))
    if not len(quoted) or not off.min() <= np.log(FURTHEST):
        return None
    same = quoted[told.expiry_ns[quoted] == told.expiry_ns[quoted[np.argmin(off)]]]
    m = int(same[np.argmin(np.abs(np.log(told.strike[same] / told.forward[t, same])))])
    last = int(np.flatnonzero(np.isfinite(told.value[:, m]))[-1])
    return Sold(m, t, last) if last > t else None


def at_each_chain(told: Panel, days: float) -> list[Sold]:
    """One sold at every chain: they overlap."""
    found = (sold_at(told, t, days) for t in range(len(told.at_ns) - 1))
    return [one for one in found if one is not None]


def one_at_a_time(told: Panel, days: float) -> list[Sold]:
    """The next is sold where the last was bought back."""
    out: list[Sold] = []
    t = 0
    while t < len(told.at_ns) - 1:
        one = sold_at(told, t, days)
        if one is not None:
            out.append(one)
        t = t + 1 if one is None else one.last
    return out


# --- the hedge -------------------------------------------------------------------------------------------


def course(told: Panel, one: Sold, policy: Policy, cost: float = COST) -> Course:
    """Sold, hedged at every chain that quotes it, and all closed at the last."""
    rows = one.first + np.flatnonzero(np.isfinite(told.value[one.first : one.last + 1, one.m]))
    wanted, width = _wanted(told, one.m, rows, policy)
    price = told.perpetual[rows]
    held = np.zeros(len(rows))  # after each chain's trade; the last closes
    for n in range(len(rows) - 1):
        before = held[n - 1] if n else 0.0
        held[n] = np.clip(before, wanted[n] - width[n], wanted[n] + width[n])
    traded = np.abs(np.diff(held, prepend=0.0))
    value = told.value[rows, one.m]
    premium = value[0]
    made = held[:-1] * np.diff(price) - np.diff(value)
    out = Course(*(np.zeros(len(told.at_ns)) for _ in range(3)))
    out.cost[rows[1:]] = _by_step(cost * traded * price) / premium
    out.turnover[rows[1:]] = _by_step(traded)
    out.pnl[rows[1:]] = made / premium - out.cost[rows[1:]]
    return out


def _by_step(at_chains: FloatArray) -> FloatArray:
    """[R − 1] what a chain's trade comes to counts in the step it begins; the last one's in the step it ends."""
    steps = at_chains[:-1].copy()
    steps[-1] += at_chains[-1]
    return steps


def _wanted(told: Panel, m: int, rows: IntArray, policy: Policy) -> tuple[FloatArray, FloatArray]:
    """(coins to hold against a straddle sold, half-width of the band) [R]."""
    if policy.delta == "none":
        return np.zeros(len(rows)), np.zeros(len(rows))
    wanted = told.delta[rows, m] + (told.lean[rows, m] if policy.delta == "sticky" else 0.0)
    if policy.risk_aversion is None:
        return wanted, np.full(len(rows), policy.width)
    forward = told.forward[rows, m]
    aversion = np.asarray(policy.risk_aversion / forward)
    return wanted, band_coins(COST, told.gamma[rows, m], forward, told.iv[rows, m], aversion)


def book(told: Panel, sold: Sequence[Sold], policy: Policy, cost: float = COST) -> Course:
    """The mean over all straddles open at each step, of the steps at which one is [≤ T]."""
    courses = [course(told, one, policy, cost) for one in sold]
    count = np.zeros(len(told.at_ns))
    for one in sold:
        count[one.first + 1 : one.last + 1] += 1.0
    open_ = count > 0.0
    return Course(
        *(np.sum([getattr(each, name) for each in courses], axis=0)[open_] / count[open_] for name in Course._fields)
    )


# --- what came of it -------------------------------------------------------------------------------------


def deviation_removed(hedged: FloatArray, bare: FloatArray, *, seed: int) -> bootstrap.Interval:
    """1 − the hedged deviation over the unhedged, of P&L [T] of the same steps: percentile interval at 95 %."""
    return _interval(np.stack([hedged, bare]), lambda sd: np.asarray(1.0 - sd[0] / sd[1]), seed)


def deviation_beside(one: FloatArray, other: FloatArray, *, seed: int) -> bootstrap.Interval:
    """The deviation of `one` over that of `other`, less 1: below zero is in favour of `one`. Of several pairs [P, T],
    the mean of their logarithms."""
    pairs = np.atleast_2d(one), np.atleast_2d(other)
    count = len(pairs[0])
    return _interval(
        np.concatenate(pairs), lambda sd: np.expm1(np.mean(np.log(sd[:count]) - np.log(sd[count:]), axis=0)), seed
    )


def mean_of(pnl: FloatArray, *, seed: int) -> bootstrap.Interval:
    """Of a step's P&L [T]."""
    drawn, block = bootstrap.resampled(pnl[None, :], lambda r: np.asarray(np.mean(r[0], axis=-1)), seed=seed)
    return _told(float(np.mean(pnl)), drawn, block)


def _interval(series: FloatArray, of_deviations: Callable[[FloatArray], FloatArray], seed: int) -> bootstrap.Interval:
    """Of what the deviations of series [S, T] come to, the same steps drawn for all."""
    drawn, block = bootstrap.resampled(series, lambda r: of_deviations(np.std(r, axis=-1, ddof=1)), seed=seed)
    return _told(float(of_deviations(np.std(series, axis=-1, ddof=1))), drawn, block)


def _told(estimate: float, drawn: FloatArray, block: float) -> bootstrap.Interval:
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    return bootstrap.Interval(estimate, low, high, float(np.mean(drawn > 0.0)), 0.95, block, len(drawn))
