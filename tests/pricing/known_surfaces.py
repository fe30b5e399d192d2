"""Surfaces whose truth is known, and chains quoted about them: clean, noisy, wrong, one-sided, sparse or stale."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import structs

from dea_daemon.domain.instruments import BoolArray, FloatArray
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.domain.surfaces import Chain
from dea_daemon.pricing import black
from dea_daemon.pricing.implied import implied_volatility
from dea_daemon.pricing.surface.surface import YEAR_NS

UTC_NS = 1_767_225_600_000_000_000  # 2026-01-01
NODES, WEIGHTS = np.polynomial.legendre.leggauss(1024)
Complex = npt.NDArray[np.complexfloating]


class Known(Protocol):
    """A surface without arbitrage: volatility at k = ln(K/F) [M] of one maturity."""

    def iv(self, k: FloatArray, tau_years: float) -> FloatArray: ...


class Ssvi(NamedTuple):
    """w(k, θ) = θ/2 (1 + ρφk + √((φk + ρ)² + 1 − ρ²)), φ = η θ^−γ (1 + θ)^(γ − 1); θ reverts from one variance to
    another. Without arbitrage as η (1 + |ρ|) ≤ 2 and 0 < γ ≤ ½. Source: Gatheral & Jacquier 2014, section 4."""

    now: float = 0.45  # volatility at the money, of the shortest
    later: float = 0.55
    speed: float = 4.0
    rho: float = -0.25
    eta: float = 1.3
    gamma: float = 0.45

    def theta(self, tau_years: float) -> float:
        reverted = -np.expm1(-self.speed * tau_years) / self.speed
        return float(self.later**2 * tau_years + (self.now**2 - self.later**2) * reverted)

    def iv(self, k: FloatArray, tau_years: float) -> FloatArray:
        theta = self.theta(tau_years)
        phi = self.eta * theta**-self.gamma * (1.0 + theta) ** (self.gamma - 1.0)
        w = theta / 2.0 * (1.0 + self.rho * phi * k + np.sqrt((phi * k + self.rho) ** 2 + 1.0 - self.rho**2))
        volatility: FloatArray = np.sqrt(w / tau_years)
        return volatility


class Heston(NamedTuple):
    """Variance reverts to `later` at `speed`, with its own volatility and a correlation to the forward. Prices by
    Lewis's integral; the characteristic function in the form of Albrecher et al. 2007 that has no jump of branch."""

    now: float = 0.30
    later: float = 0.28
    speed: float = 2.5
    of_variance: float = 1.1
    rho: float = -0.3

    def characteristic(self, u: Complex, tau_years: float) -> Complex:
        """E e^{iu ln(S/F)} at complex u."""
        xi, drift = self.of_variance, self.speed - self.rho * self.of_variance * 1j * u
        root = np.sqrt(drift**2 + xi**2 * (1j * u + u**2))
        ratio, decay = (drift - root) / (drift + root), np.exp(-root * tau_years)
        level = (drift - root) * tau_years - 2.0 * np.log((1.0 - ratio * decay) / (1.0 - ratio))
        now = (drift - root) * (1.0 - decay) / (1.0 - ratio * decay)
        expected: Complex = np.exp(self.speed * self.later / xi**2 * level + self.now / xi**2 * now)
        return expected

    def out_of_the_money(self, k: FloatArray, tau_years: float) -> FloatArray:
        """Value over the forward, of the put where k < 0 and of the call elsewhere; within about 1e-11."""
        reach = 2.0 ** np.arange(1, 16)
        gone = np.abs(self.characteristic(reach - 0.5j, tau_years)) < 1e-17
        top = reach[np.argmax(gone)] if gone.any() else reach[-1]
        u = (NODES + 1.0) * top / 2.0
        weight = WEIGHTS * top / 2.0 * self.characteristic(u - 0.5j, tau_years) / (u**2 + 0.25)
        value = np.minimum(1.0, np.exp(k)) - np.exp(k / 2.0) / np.pi * np.real(np.exp(-1j * np.outer(k, u)) @ weight)
        positive: FloatArray = np.maximum(value, 0.0)
        return positive

    def iv(self, k: FloatArray, tau_years: float) -> FloatArray:
        """NaN so far out that the value is lost in rounding."""
        value = self.out_of_the_money(k, tau_years)
        return implied_volatility(np.where(value > 1e-10, value, np.nan), 1.0, np.exp(k), tau_years, k >= 0.0)


def ladder(surface: Known, tau_years: float, forward: float, count: int = 25, reach_sd: float = 2.5) -> FloatArray:
    """`count` strikes as a venue would list them, to so many standard deviations from the money; [≤ count] USD."""
    sd = float(surface.iv(np.zeros(1), tau_years)[0]) * np.sqrt(tau_years)
    k, step = np.linspace(-reach_sd, reach_sd, count), 10.0 ** np.floor(np.log10(forward * sd / count))
    return np.unique(np.round(forward * np.exp(k * sd) / step) * step)


def displaced_rows(count: int, share: float, seed: int) -> BoolArray:
    """Which of a chain's rows `chain_of` displaces; [count]."""
    rows = np.zeros(count, dtype=np.bool_)
    rows[np.random.default_rng((seed, 1)).permutation(count)[: round(share * count)]] = True
    return rows


def chain_of(
    surface: Known,
    expiries_days: Sequence[float] = (1.0, 3.0, 8.0, 22.0, 50.0, 85.0, 176.0, 267.0),
    strikes: Sequence[float] | int = 25,
    spot: float = 80_000.0,
    half_spread_vol: float = 0.01,
    seed: int = 0,
    *,
    noise: float = 0.5,
    displaced: float = 0.0,
    displaced_by: float = 8.0,
    carry: float = 0.05,
    tick_coin: float = 1e-4,
    underlying: str = "BTC",
) -> Chain:
    """A call and a put at every strike (or at so many of a `ladder`), bid and ask `half_spread_vol` either side of a
    mid that is off the truth by up to `noise` of that, rounded outwards to the tick (0: not at all).

    A share `displaced` of the rows has bid and ask together moved by ±`displaced_by` half-spreads. A bid that rounds
    to nothing is 0. Forwards are the spot's at `carry` a year.
    """
    random = np.random.default_rng((seed, 0))
    expiry_ns, forward, strike, call, iv = [], [], [], [], []
    for days in expiries_days:
        tau = days * NS_PER_DAY / YEAR_NS
        level = spot * np.exp(carry * tau)
        listed = ladder(surface, tau, level, strikes) if isinstance(strikes, int) else np.asarray(strikes, dtype=float)
        truth = surface.iv(np.log(listed / level), tau)
        listed, truth = listed[np.isfinite(truth)], truth[np.isfinite(truth)]
        for side in (True, False):
            expiry_ns += [UTC_NS + round(days * NS_PER_DAY)] * len(listed)
            forward += [level] * len(listed)
            call += [side] * len(listed)
            strike += listed.tolist()
            iv += truth.tolist()
    F, K, rows = np.array(forward), np.array(strike), len(strike)
    tau_years = (np.array(expiry_ns) - UTC_NS) / YEAR_NS
    wrong = np.where(displaced_rows(rows, displaced, seed), displaced_by * random.choice([-1.0, 1.0], rows), 0.0)
    mid = np.array(iv) + half_spread_vol * (noise * random.uniform(-1.0, 1.0, rows) + wrong)
    tick = tick_coin * F
    bid = black.price(F, K, tau_years, np.maximum(mid - half_spread_vol, 0.0), call)
    ask = black.price(F, K, tau_years, np.maximum(mid + half_spread_vol, 0.0), call)
    if tick_coin > 0.0:
        bid, ask = np.floor(bid / tick) * tick, np.ceil(ask / tick) * tick
    bids, asks, ticks, ages = (tuple(column.tolist()) for column in (bid, ask, tick, np.zeros(rows)))
    ends, listed_all = tuple(dict.fromkeys(expiry_ns)), (tuple(expiry_ns), tuple(forward), tuple(strike), tuple(call))
    return Chain(underlying, UTC_NS, ends, *listed_all, bids, asks, ticks, ages)


def only(chain: Chain, rows: BoolArray) -> Chain:
    """The same chain with some of its rows; smiles are still wanted of all its expiries."""
    names = ("expiry_ns", "forward", "strike", "call", "bid", "ask", "tick", "age_s")
    kept = {name: tuple(cell for cell, row in zip(getattr(chain, name), rows, strict=True) if row) for name in names}
    return structs.replace(chain, **kept)


def of_expiry(chain: Chain, expiry: int) -> BoolArray:
    """Which rows are of the chain's `expiry`-th expiry (-1: the last); [M]."""
    rows: BoolArray = np.array(chain.expiry_ns) == chain.expiries[expiry]
    return rows


def quoted_out_of_the_money(chain: Chain) -> BoolArray:
    """Which rows a fit looks at, if both their sides have a volatility; [M]."""
    rows: BoolArray = np.array(chain.call) == (np.array(chain.strike) >= np.array(chain.forward))
    return rows


def sparse(chain: Chain, expiry: int, count: int, seed: int = 0) -> Chain:
    """Of one expiry only `count` options out of the money that have a bid, any."""
    here = of_expiry(chain, expiry)
    some = np.flatnonzero(here & quoted_out_of_the_money(chain) & (np.array(chain.bid) > 0.0))
    kept = np.random.default_rng((seed, 2)).permutation(some)[:count]
    return only(chain, ~here | np.isin(np.arange(len(here)), kept))


def one_sided(chain: Chain, expiry: int, call: bool) -> Chain:
    """Of one expiry only the calls, or only the puts, and of these only those out of the money."""
    wanted = (np.array(chain.call) == call) & quoted_out_of_the_money(chain)
    return only(chain, ~of_expiry(chain, expiry) | wanted)


def aged(chain: Chain, rows: BoolArray, age_s: float) -> Chain:
    """The same chain with the quotes of some rows heard `age_s` ago."""
    return structs.replace(chain, age_s=tuple(np.where(rows, age_s, np.array(chain.age_s)).tolist()))
