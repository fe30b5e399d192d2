"""All options of the world at once: marks and Greeks from the smiles, makers' quotes around them, takers at random.

One look each `option_step_ms` prices every option in a few array operations; a book is touched only where the
rounded prices of its quotes moved. Draws are made whatever clients do.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dea_daemon.domain.instruments import Side
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_S
from dea_daemon.simvenue.accounts import Contract
from dea_daemon.simvenue.flow import Quote, Taker
from dea_daemon.simvenue.options import Floats, Priced, Smile, averaged, price
from dea_daemon.simvenue.process import Carry, generator
from dea_daemon.simvenue.scenarios import Scenario
from dea_daemon.simvenue.words import OptionQuote

Ints = npt.NDArray[np.int64]

_YEAR_S = DAYS_PER_YEAR * 86_400.0
_LIFE_MIN_S = 0.1
_NO_BID_TICKS = 2.0  # nobody bids for what is worth less
_WING = 0.25  # half spreads and sizes fade by this per squared standard deviation of moneyness
_WING_MAX = 8.0
_LEVEL_GAP = 0.7  # half spreads between levels
_SIZE_SIGMA = 0.6
_REACH_TICKS = 5  # a taker goes this far through the book


@dataclass(slots=True)
class Series:
    """One expiry of one chain, priced on one forward."""

    coin: str
    settles: str
    expiry_ns: int
    carry: Carry
    step: int  # USD between strikes
    strikes: list[int] = field(default_factory=list)
    contracts: list[Contract] = field(default_factory=list)

    def missing(self, index: float, count: int) -> list[int]:
        """Strikes to list so that a third of a ladder of `count` lies on either side of the index."""
        least, low, high = count // 3, self.strikes[0], self.strikes[-1]
        below = max(least - int((index - low) / self.step), 0)
        above = max(least - int((high - index) / self.step), 0)
        return [k for k in (low - self.step * n for n in range(below, 0, -1)) if k > 0] + [
            high + self.step * n for n in range(1, above + 1)
        ]


class Chain:
    """The options listed, as columns [N]."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._s = scenario
        self.series: list[Series] = []
        self.contracts: list[Contract] = []
        self._smiles = {coin: Smile(scenario, coin, seed, k) for k, coin in enumerate(scenario.coins)}
        self._normals = generator(seed, 9)
        self._chances = generator(seed, 10)
        self._quoted: dict[str, dict[Side, dict[int, int]]] = {}  # lots by ticks, as last wanted

    def relisted(self) -> None:
        """Read the columns anew, after series or their contracts changed."""
        self.contracts = [c for series in self.series for c in series.contracts]
        listed = [c.instrument for c in self.contracts]
        self._of = np.repeat(np.arange(len(self.series)), [len(s.contracts) for s in self.series])
        self._strike = np.array([i.strike for i in listed])
        self._sign = np.array([1.0 if i.is_call else -1.0 for i in listed])
        self._coin_quoted = np.array([c.coin_quoted for c in self.contracts], dtype=np.bool_)
        self._tick = np.array([c.tick for c in self.contracts])
        self._lot_value = np.array([c.lot_value for c in self.contracts])
        steps = [i.tick_steps[-1] if i.tick_steps else None for i in listed]
        self._wide = np.array(
            [round(float(s.tick_size) / c.tick) if s else 1 for s, c in zip(steps, self.contracts, strict=True)]
        )
        above = [round(float(s.above_price) / c.tick) if s else 0 for s, c in zip(steps, self.contracts, strict=True)]
        self._wide_above = np.array(above)
        self._quoted = {c.name: self._quoted.get(c.name, {side: {} for side in Side}) for c in self.contracts}
        self._touch = np.full((len(listed), 2 * self._s.option_depth), -1)  # price ticks now quoted

    # --- one look ------------------------------------------------------------------------------------

    def step(self) -> None:
        """The smiles move on."""
        for smile in self._smiles.values():
            smile.step()

    def reprice(self, now_ns: int, index: Mapping[str, float], heat: Mapping[str, float]) -> None:
        """Index, mark and Greeks of every contract."""
        self._index = self._each([index[s.coin] for s in self.series])
        self._forward = self._each([s.carry.mark for s in self.series])
        self._heat = self._each([heat[s.coin] for s in self.series])
        window = self._s.settlement_window_s
        life_s = [max((s.expiry_ns - now_ns) / NS_PER_S, _LIFE_MIN_S) for s in self.series]
        tau = np.array(life_s) / _YEAR_S
        live = self._each([averaged(life, window) / _YEAR_S for life in life_s])
        self._tau = tau[self._of]
        vols = self._vols(tau, heat)
        sd = vols * np.sqrt(live)
        self._priced = price(self._sign, self._forward, self._strike, sd, self._tau)
        self._unit = np.where(self._coin_quoted, self._forward, 1.0)
        self._mark = self._priced.value / self._unit
        self._moneyness = np.log(self._strike / self._forward) / (vols * np.sqrt(self._tau))
        weight = self._each([min(life / window, 1.0) for life in life_s])
        self._publish(self._priced, sd / np.sqrt(self._tau), weight)

    def _each(self, of_series: list[float]) -> Floats:
        column: Floats = np.array(of_series)[self._of]
        return column

    def _vols(self, tau: Floats, heat: Mapping[str, float]) -> Floats:
        vols = np.empty(len(self._of))
        for coin, smile in self._smiles.items():
            rows = np.array([s.coin == coin for s in self.series], dtype=np.bool_)[self._of]
            vols[rows] = smile.vols(self._strike[rows], self._forward[rows], self._tau[rows], heat[coin])
        return vols

    def _publish(self, priced: Priced, iv: Floats, weight: Floats) -> None:
        """Into the contracts. While the average is being fixed, the index moves the forward by what is left."""
        columns = (iv, self._forward, priced.delta * weight, priced.gamma * weight**2, priced.vega, priced.theta)
        rows = zip(
            self.contracts, self._index.tolist(), self._mark.tolist(), *(c.tolist() for c in columns), strict=True
        )
        nan = float("nan")
        for contract, index, mark, mark_iv, forward, delta, gamma, vega, theta in rows:
            contract.index, contract.mark = index, mark
            contract.quote = OptionQuote(mark_iv, nan, nan, forward, delta, gamma, vega, theta)

    # --- makers --------------------------------------------------------------------------------------

    def makers(self) -> Iterator[tuple[Contract, list[Quote]]]:
        """Contracts whose book changes, with what leaves it before what comes."""
        ticks = self._ladders()
        lots = self._lots()
        moved = (ticks != self._touch).any(axis=1)
        self._touch = ticks
        refilled = self._chances.random(len(ticks)) < self._s.option_refill
        depth = self._s.option_depth
        for row in np.flatnonzero(moved | refilled).tolist():
            contract = self.contracts[row]
            if moved[row]:
                prices, amounts = ticks[row].tolist(), lots[row].tolist()
                yield contract, self._requoted(contract, prices, amounts, depth)
            else:
                quoted = self._quoted[contract.name]
                yield contract, [Quote(side, t, n) for side in Side for t, n in quoted[side].items()]

    def _requoted(self, contract: Contract, prices: list[int], amounts: list[int], depth: int) -> list[Quote]:
        """Levels that stay keep their size."""
        old = self._quoted[contract.name]
        new: dict[Side, dict[int, int]] = {}
        for side, at in ((Side.BUY, 0), (Side.SELL, depth)):
            wanted = zip(prices[at : at + depth], amounts[at : at + depth], strict=True)
            new[side] = {t: old[side].get(t, n) for t, n in wanted if t > 0}
        self._quoted[contract.name] = new
        gone = [Quote(side, t, 0) for side in Side for t in old[side] if t not in new[side]]
        return gone + [Quote(side, t, n) for side in Side for t, n in new[side].items() if t not in old[side]]

    def _ladders(self) -> Ints:
        """Price ticks [N, 2 depth], bids then asks, best first; 0 where nobody quotes."""
        half, mark = self._half_spread() / self._tick, self._mark / self._tick
        bids: list[Ints] = []
        asks: list[Ints] = []
        for level in range(self._s.option_depth):
            away = half * (1.0 + _LEVEL_GAP * level)
            bid, ask = np.floor(mark - away).astype(np.int64), np.ceil(mark + away).astype(np.int64)
            if level:
                bid, ask = np.minimum(bid, bids[-1] - 1), np.maximum(ask, asks[-1] + 1)
            bids.append(self._on_grid(bid, 0))
            asks.append(self._on_grid(np.maximum(ask, 1), 1))
        bidden = mark >= _NO_BID_TICKS
        return np.stack([np.where(bidden & (b > 0), b, 0) for b in bids] + asks, axis=1)

    def _on_grid(self, ticks: Ints, up: int) -> Ints:
        """Onto whole wide ticks where those are in force."""
        wide = self._wide
        onto: Ints = np.where(ticks > self._wide_above, (ticks + up * (wide - 1)) // wide * wide, ticks)
        return onto

    def _half_spread(self) -> Floats:
        """In quote currency: points of volatility, more of them in the wings and far out, a hedge's cost, half a
        tick."""
        s, wing = self._s, np.minimum(_WING * self._moneyness**2, _WING_MAX)
        points = s.option_half_spread_points * (1.0 + wing) * (1.0 + self._tau)
        heat = np.maximum(self._heat, 1.0) ** s.spread_per_vol
        usd = heat * (points * self._priced.vega + s.option_hedge_bp * 1e-4 * np.abs(self._priced.delta) * self._index)
        return usd / self._unit + 0.5 * self._tick

    def _lots(self) -> Ints:
        """Sizes [N, 2 depth], smaller in the wings."""
        depth = self._s.option_depth
        wing = 1.0 + np.minimum(_WING * self._moneyness**2, _WING_MAX)
        usd = self._s.option_level_usd / wing
        base = (usd / (self._lot_value * self._index))[:, None]
        noise = np.exp(_SIZE_SIGMA * self._normals.standard_normal((len(self._of), 2 * depth)))
        return np.maximum(np.rint(base * noise), 1.0).astype(np.int64)

    # --- takers --------------------------------------------------------------------------------------

    def taker(self) -> tuple[Contract, Taker] | None:
        """Who comes in this look, if anyone: where the vega is, more often than not."""
        came, which, way, size = self._chances.random(4).tolist()
        chance = self._s.option_takers_per_s * self._s.option_step_ms / 1_000
        if came >= chance:
            return None
        vega = np.cumsum(self._priced.vega)
        row = min(int(np.searchsorted(vega, which * vega[-1])), len(vega) - 1)
        contract, depth = self.contracts[row], self._s.option_depth
        side = Side.BUY if way < 0.5 else Side.SELL
        touch = int(self._touch[row, depth if side is Side.BUY else 0])
        if touch == 0:
            return None
        usd = self._s.option_level_usd * size
        lots = max(round(usd / float(self._lot_value[row] * self._index[row])), 1)
        return contract, Taker(side, max(touch + side.sign * _REACH_TICKS, 1), lots)
