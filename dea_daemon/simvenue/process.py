"""Where prices come from: correlated coins with stochastic volatility and jumps, and what contracts carry.

Log price: d ln S = (μ − v/2) dt + √v dW + J. Log variance is an Ornstein–Uhlenbeck process around the coin's
own, so v stays positive and E[v] = vol². Premium and basis are Ornstein–Uhlenbeck too, stepped exactly.
Everything is drawn from generators of its own, a fixed number of draws a step: nothing a client does, and no
slicing of time, moves a price.
"""

from collections.abc import Callable
from dataclasses import replace
from math import exp, sqrt

import numpy as np

from dea_daemon.domain.instruments import Instrument
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY
from dea_daemon.simvenue.scenarios import Scenario

_YEAR_S = DAYS_PER_YEAR * 86_400.0
_YEAR_NS = DAYS_PER_YEAR * NS_PER_DAY
_BLOCK = 256
_PAST = 11  # a stream of its own: the past disturbs no future

Draw = Callable[[tuple[int, int]], np.ndarray]


def generator(seed: int, purpose: int, number: int = 0) -> np.random.Generator:
    """An independent stream for one purpose of one seed."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, number)))


class Rows:
    """Random rows of a fixed width, drawn a block at a time and handed out as lists: scalars are then cheap."""

    def __init__(self, draw: Draw, width: int) -> None:
        self._draw = draw
        self._width = width
        self._rows: list[list[float]] = []

    def next(self) -> list[float]:
        if not self._rows:
            self._rows = self._draw((_BLOCK, self._width))[::-1].tolist()
        return self._rows.pop()


class Reversion:
    """An Ornstein–Uhlenbeck process with mean 0, stepped exactly: x ← a x + sd √(1 − a²) z."""

    def __init__(self, sd: float, half_life_s: float, step_s: float) -> None:
        self._a = 0.5 ** (step_s / half_life_s)
        self._noise = sd * sqrt(1.0 - self._a**2)
        self.x = 0.0

    def step(self, z: float) -> float:
        self.x = self._a * self.x + self._noise * z
        return self.x


class Index:
    """The coins' index prices in USD and `heat`, each coin's volatility over its own mean."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._s = scenario
        self._coins = list(scenario.coins)
        step_s = scenario.step_ms / 1_000
        self._dt = step_s / _YEAR_S
        self._drift = scenario.drift_per_hour * step_s / 3_600
        self._jump_chance = scenario.jumps_per_day * step_s / 86_400
        n = len(self._coins)
        self._normals = Rows(generator(seed, 0).standard_normal, 2 * n + 1)
        self._jumps = Rows(generator(seed, 1).standard_normal, n + 1)
        self._chances = Rows(generator(seed, 2).random, 1)
        self._log_variance = [Reversion(scenario.vol_of_vol, scenario.vol_half_life_s, step_s) for _ in self._coins]
        self.price = {coin: scenario.coins[coin].start_price for coin in self._coins}
        self.heat = dict.fromkeys(self._coins, 1.0)

    def step(self) -> None:
        """One step of `step_ms`."""
        s, normals, jumps = self._s, self._normals.next(), self._jumps.next()
        common, own = sqrt(s.correlation), sqrt(1.0 - s.correlation)
        jumped = self._chances.next()[0] < self._jump_chance
        for k, coin in enumerate(self._coins):
            about = s.coins[coin]
            x = self._log_variance[k].step(normals[2 * k + 2])
            self.heat[coin] = exp((x - s.vol_of_vol**2 / 2.0) / 2.0)
            sd = about.annual_vol * self.heat[coin] * sqrt(self._dt)
            move = self._drift - sd * sd / 2.0 + sd * (common * normals[0] + own * normals[2 * k + 1])
            if jumped:
                move += about.jump_mean + about.jump_sd * (common * jumps[0] + own * jumps[k + 1])
            self.price[coin] *= exp(move)


def prices_before(scenario: Scenario, seed: int, hours: int) -> dict[str, list[float]]:
    """[hours + 1] index prices of each coin, an hour apart, oldest first; one more hour leads to its start price. Their
    volatility and correlation are the scenario's; its drift and jumps begin with the run."""
    quiet = replace(scenario, step_ms=3_600_000, drift_per_hour=0.0, jumps_per_day=0.0)
    index = Index(quiet, int(generator(seed, _PAST).integers(2**63)))
    path = []
    for _ in range(hours + 1):
        path.append(dict(index.price))
        index.step()
    scale = {coin: about.start_price / index.price[coin] for coin, about in scenario.coins.items()}
    return {coin: [was[coin] * by for was in path] for coin, by in scale.items()}


class Carry:
    """What one contract is worth over its index: fair value, which makers quote around, and mark.

    A perpetual's premium reverts to a mean; the mark follows it by an exponential average, clipped. A dated
    future carries an annualised basis that dies with its life; in the settlement window its reference turns
    from the index to the average already fixed.
    """

    def __init__(self, scenario: Scenario, instrument: Instrument, seed: int, number: int) -> None:
        step_s = scenario.step_ms / 1_000
        self._s = scenario
        self._expiry_ns = instrument.expiry_ns
        self._normals = Rows(generator(seed, 3, number).standard_normal, 2)
        self._premium = Reversion(scenario.premium_sd_bp * 1e-4, scenario.premium_half_life_s, step_s)
        self._mean = 0.0 if self._expiry_ns else scenario.premium_mean_bp * 1e-4
        self._basis = Reversion(scenario.basis_sd, scenario.basis_half_life_s, step_s)
        self._basis_mean = scenario.coins[instrument.underlying].annual_basis
        self._ema_weight = min(step_s / scenario.premium_ema_s, 1.0)
        self._ema = self._mean
        self._fixings = 0
        self._fixed = 0.0  # average of the index over the settlement window so far
        self.fair = float("nan")
        self.mark = float("nan")

    def step(self, now_ns: int, index: float) -> None:
        """Fair value and mark at an index price."""
        z_premium, z_basis = self._normals.next()
        premium = self._mean + self._premium.step(z_premium)
        self._ema += self._ema_weight * (premium - self._ema)
        basis = self._basis_mean + self._basis.step(z_basis)
        reference = index
        if self._expiry_ns:
            reference = self._reference(now_ns, index) * exp(basis * max(self._expiry_ns - now_ns, 0) / _YEAR_NS)
        clip = self._s.premium_clip
        self.fair = reference * (1.0 + premium)
        self.mark = reference * (1.0 + min(max(self._ema, -clip), clip))

    def _reference(self, now_ns: int, index: float) -> float:
        window_ns = self._s.settlement_window_s * 1e9
        gone = 1.0 - (self._expiry_ns - now_ns) / window_ns
        if gone <= 0.0:
            return index
        self._fixings += 1
        self._fixed += (index - self._fixed) / self._fixings
        gone = min(gone, 1.0)
        return gone * self._fixed + (1.0 - gone) * index

    @property
    def settlement_price(self) -> float:
        """The average index of the settlement window so far."""
        return self._fixed

    def delivery_price(self, index: float) -> float:
        """The settlement price as published: the average so far, before the window the index."""
        return self._fixed if self._fixings else index

    def funding_rate(self, index: float) -> float:
        """Deribit's 8 h rate: max(0.025 %, P) + min(−0.025 %, P), P = mark/index − 1, capped."""
        if self._expiry_ns:
            return 0.0
        premium, dead = self.mark / index - 1.0, 0.00025
        rate = max(dead, premium) + min(-dead, premium)
        return min(max(rate, -self._s.funding_cap), self._s.funding_cap)
