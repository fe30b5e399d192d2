"""What the venues say of options, and what follows: forwards, implied volatilities, Greeks.

Every live option has a volatility: from the surface fitted to all quotes where that is relied upon and they say
something, else from its own quotes, else from the venue's mark, else from the surface extrapolated, else the last one
known, else its neighbours', else the one assumed before data. Nothing a venue says makes it NaN; how much a figure
rests on is told beside it (IvSource). The settlement averages the index over a window: inside it a contract's forward
holds the part already fixed, and its Greeks only count by the weight still to come.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dea_daemon.domain.decisions import IvSource
from dea_daemon.domain.events import OptionUpdated
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray, Universe
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_MS, NS_PER_S
from dea_daemon.domain.parameters import PricingParameters
from dea_daemon.pricing import black
from dea_daemon.pricing.forwards import Layout, forwards, layout
from dea_daemon.pricing.implied import implied_volatility, prepare
from dea_daemon.pricing.surface.surface import Looked
from dea_daemon.state.effects import Effects
from dea_daemon.state.surfaces import CONTRADICTING, SHARE
from dea_daemon.state.windows import NEVER, lengthened

if TYPE_CHECKING:
    from dea_daemon.state.market import Market

VEGA_ROUNDING_USD = 0.1
IV_MAX = 10.0  # a mark's beyond this is no volatility: believed, it would take all delta out of an option
YEAR_NS = DAYS_PER_YEAR * NS_PER_DAY
_COLUMNS = ("mark_iv", "forward", "delta", "vega", "last_iv")


class Valued(NamedTuple):
    """Of every row [N]. Forwards in USD (perpetuals and spot: the index); tau_years never below the settlement
    window; weight is the share of the settlement average still to come. Greeks are per coin of the underlying, as
    `pricing.black` gives them, and 0 for what is no live option; coin_value is an option's worth in coin."""

    forward: FloatArray
    tau_years: FloatArray
    weight: FloatArray
    iv: FloatArray
    source: IntArray
    modelled: BoolArray
    off: BoolArray
    pinned: BoolArray
    delta: FloatArray
    gamma: FloatArray
    vega: FloatArray
    theta: FloatArray
    coin_value: FloatArray


class OptionMarket:
    """One place per universe row; NaN where the venue has not spoken. `fold` and `value` write."""

    def __init__(self) -> None:
        prepare()
        self.mark_iv, self.forward = np.zeros(0), np.zeros(0)
        self.delta, self.vega, self.last_iv = (np.zeros(0) for _ in range(3))
        self.told_ns: IntArray = np.zeros(0, dtype=np.int64)
        self.last_iv_ns: IntArray = np.zeros(0, dtype=np.int64)
        self.off_since_ns: IntArray = np.zeros(0, dtype=np.int64)  # 0: the venue's Greeks agree with ours
        self._places: Layout | None = None
        self._endless: Valued | None = None  # all but the forward, while no contract ends
        self._told: dict[str, frozenset[int]] = {"off": frozenset(), "modelled": frozenset()}

    def lengthen(self, n: int) -> None:
        for name in _COLUMNS:
            setattr(self, name, lengthened(getattr(self, name), n, np.nan))
        self.told_ns = lengthened(self.told_ns, n, NEVER)
        self.last_iv_ns = lengthened(self.last_iv_ns, n, NEVER)
        self.off_since_ns = lengthened(self.off_since_ns, n, 0)

    def fold(self, event: OptionUpdated) -> None:
        row = event.row
        self.mark_iv[row], self.forward[row] = event.mark_iv, event.underlying_price
        self.delta[row], self.vega[row] = event.delta, event.vega
        self.told_ns[row] = event.ts_recv_ns

    def value(
        self,
        market: "Market",
        now_ns: int,
        utc_ns: int,
        spot: FloatArray,
        fresh: BoolArray,
    ) -> Valued:
        """Everything an exposure needs of contracts that end. `spot` [N] USD; `fresh` [N] of the prices."""
        universe, params = market.universe, market.params
        if not universe.series_count:
            return self._without_end(spot)
        window_ns = params.pricing.settlement_window_s * NS_PER_S
        dated, left_ns = universe.expiry_ns > 0, universe.expiry_ns - utc_ns
        alive = left_ns > 0
        weight = np.where(dated, np.minimum(np.maximum(left_ns / window_ns, 0.0), 1.0), 1.0)
        tau = np.where(dated, np.maximum(left_ns, window_ns) / YEAR_NS, 0.0)
        told = now_ns - self.told_ns <= params.state.stale_option_ms * NS_PER_MS
        forward, doubtful = self._forwards(market, spot, tau, fresh & alive, told)
        valued = _unvalued(forward, tau, weight)
        rows = np.flatnonzero(universe.option & alive)
        if len(rows):
            values, slope = self._volatilities(market, valued, rows, now_ns, fresh, told)
            valued.modelled[rows] |= doubtful[rows]
            _greeks(universe, valued, rows, values, slope, params.pricing)
            near = left_ns[rows] <= params.pricing.pin_hours * 3_600 * NS_PER_S
            distance = np.abs(forward[rows] / universe.strike[rows] - 1.0)
            valued.pinned[rows] = near & (distance <= params.pricing.pin_band)
        self._compare(universe, valued, rows, now_ns, told, params.pricing)
        return valued

    def _without_end(self, spot: FloatArray) -> Valued:
        """Where no contract ends there is only the index to know; the rest never changes."""
        n = len(spot)
        if self._endless is None or len(self._endless.weight) != n:
            self._endless = _unvalued(spot, np.zeros(n), np.ones(n))
            for column in self._endless[1:]:
                column.flags.writeable = False  # it is in every view from here on
        return self._endless._replace(forward=spot)

    def tell(self, universe: Universe, valued: Valued, held: IntArray, effects: Effects) -> None:
        """A note when a held option's Greeks become, or cease to be, contradicted or modelled."""
        if not universe.series_count:
            return
        for what, column, begun, over in (
            ("off", valued.off, "greeks.diverged", "greeks.agreed"),
            ("modelled", valued.modelled, "greeks.modelled", "greeks.known"),
        ):
            now, before = frozenset(held[column[held]].tolist()), self._told[what]
            self._told[what] = now
            for event, rows in ((begun, now - before), (over, before - now)):
                if rows:
                    worst = min(rows)
                    effects.note(
                        event,
                        count=len(rows),
                        instrument=universe.instruments[worst].name,
                        iv_source=IvSource(int(valued.source[worst])).name.lower(),
                        delta=round(float(valued.delta[worst]), 4),
                        venue_delta=float(self.delta[worst]),
                    )

    def _forwards(
        self, market: "Market", spot: FloatArray, tau: FloatArray, fresh: BoolArray, told: BoolArray
    ) -> tuple[FloatArray, BoolArray]:
        """Each row's forward [N] (its index where it never ends), and whether those who say it disagree [N]."""
        universe = market.universe
        synthetic = np.where(told, self.forward, np.nan)
        if self._places is None or self._places.rows < len(universe):
            self._places = layout(universe)
        of_series, _, disagreement = forwards(
            universe, market.mark, market.bid, market.ask, fresh, synthetic, spot, tau, self._places
        )
        ends = universe.series >= 0
        forward, doubtful = spot.copy(), np.zeros(len(spot), dtype=np.bool_)
        forward[ends] = of_series[universe.series[ends]]
        doubtful[ends] = disagreement[universe.series[ends]] > market.params.pricing.forward_tolerance
        return forward, doubtful

    # --- volatilities ----------------------------------------------------------------------------

    def _volatilities(
        self, market: "Market", valued: Valued, rows: IntArray, now_ns: int, fresh: BoolArray, told: BoolArray
    ) -> tuple[black.Greeks, FloatArray | None]:
        """The ladder: each rung fills what the one before left empty. Returns the Greeks of `rows` [M] there, and the
        surface's slope dσ/dk where it is the source, NaN elsewhere (None: nowhere)."""
        universe, params = market.universe, market.params
        looked = market.surfaces.look_up(universe, valued.forward, rows, now_ns, params.pricing)
        iv, values, source = self._from_surface_or_quotes(market, valued, rows, fresh, looked)
        if not source.all():
            kept = now_ns - self.last_iv_ns[rows] <= params.pricing.keep_iv_s * NS_PER_S
            beyond = np.zeros(0) if looked is None else looked.iv
            for rung, candidate, known in (
                (IvSource.MARK, self.mark_iv[rows], told[rows]),
                (IvSource.EXTRAPOLATED, beyond, True),
                (IvSource.LAST, self.last_iv[rows], kept),
            ):
                if len(candidate):
                    take = (source == 0) & known & (candidate > 0.0) & (candidate < IV_MAX)
                    iv[take], source[take] = candidate[take], int(rung)
        sound = source <= IvSource.MARK
        sound &= source > 0
        self.last_iv[rows[sound]], self.last_iv_ns[rows[sound]] = iv[sound], now_ns
        if not source.all():
            _from_neighbours(universe, rows, iv, source)
            take = source == 0
            iv[take], source[take] = params.forecast.prior_annual_vol, int(IvSource.PRIOR)
        valued.iv[rows], valued.source[rows] = iv, source
        valued.modelled[rows] = source > IvSource.MARK
        if len(other := np.flatnonzero(source > IvSource.QUOTES)):
            at = rows[other]
            forward, tau = valued.forward[at], valued.tau_years[at]
            again = black.greeks(forward, universe.strike[at], tau, iv[other], universe.call[at])
            values = again if len(other) == len(rows) else _placed(values, other, again)
        return values, None if looked is None else np.where(source == IvSource.SURFACE, looked.slope, np.nan)

    def _from_surface_or_quotes(
        self, market: "Market", valued: Valued, rows: IntArray, fresh: BoolArray, looked: Looked | None
    ) -> tuple[FloatArray, black.Greeks, IntArray]:
        """The first two rungs: (volatility, Greeks there, source) [M]. The quotes of what the surface knows are not
        turned into volatilities: it was fitted to them. But they are asked whether they still agree."""
        if looked is None:
            iv, values = self._from_quotes(market, valued, rows, fresh)
            return iv, values, np.where(np.isfinite(iv), int(IvSource.QUOTES), 0)
        universe, iv = market.universe, looked.iv.copy()
        forward, tau = valued.forward[rows], valued.tau_years[rows]
        values = black.greeks(forward, universe.strike[rows], tau, iv, universe.call[rows])
        known = looked.known & ~_contradicted(market, rows, forward, fresh, looked.known, values.price)
        source = np.where(known, int(IvSource.SURFACE), 0)
        if len(rest := np.flatnonzero(~known)):
            iv[rest], found = self._from_quotes(market, valued, rows[rest], fresh)
            source[rest] = np.where(np.isfinite(iv[rest]), int(IvSource.QUOTES), 0)
            values = _placed(values, rest, found)
        return iv, values, source

    def _from_quotes(
        self, market: "Market", valued: Valued, rows: IntArray, fresh: BoolArray
    ) -> tuple[FloatArray, black.Greeks]:
        """Of the mid price, and the Greeks there; NaN where that is not fresh, below intrinsic, or its spread too
        wide in volatility (Greeks are left as they are then)."""
        universe = market.universe
        with np.errstate(invalid="ignore", divide="ignore"):
            bid, ask = market.bid[rows], market.ask[rows]
            forward, strike, tau = valued.forward[rows], universe.strike[rows], valued.tau_years[rows]
            unit = np.where(universe.coin_quoted[rows], forward, 1.0)
            price = np.where(fresh[rows] & (bid > 0.0), 0.5 * (bid + ask) * unit, np.nan)
            iv = implied_volatility(price, forward, strike, tau, universe.call[rows])
            values = black.greeks(forward, strike, tau, iv, universe.call[rows])
            # Half the spread over vega: to first order how far off the mid's volatility may be.
            narrow = (ask - bid) * unit <= market.params.pricing.max_iv_spread * values.vega
        return np.where(narrow, iv, np.nan), values

    def _compare(
        self,
        universe: Universe,
        valued: Valued,
        rows: IntArray,
        now_ns: int,
        told: BoolArray,
        params: PricingParameters,
    ) -> None:
        """The venue's Greeks against ours from its own volatility and forward: other inputs are no contradiction.
        Near the settlement conventions differ, and nothing is compared. What is not compared begins anew."""
        said = np.isfinite(self.delta[rows]) & np.isfinite(self.mark_iv[rows]) & np.isfinite(self.forward[rows])
        rows = rows[told[rows] & said & (valued.weight[rows] >= 1.0)]
        since, self.off_since_ns = self.off_since_ns, np.zeros(len(universe), dtype=np.int64)
        if not len(rows):
            return
        g = black.greeks(
            self.forward[rows], universe.strike[rows], valued.tau_years[rows], self.mark_iv[rows], universe.call[rows]
        )
        with np.errstate(invalid="ignore"):
            apart = ~(np.abs(g.delta - self.delta[rows]) <= params.greeks_tolerance)
            vega = g.vega / 100.0
            # A venue rounds its Greeks: a small vega may be off by more than the share.
            room = 5.0 * params.greeks_tolerance * vega + VEGA_ROUNDING_USD
            apart |= ~np.isnan(self.vega[rows]) & ~(np.abs(vega - self.vega[rows]) <= room)
        begun = np.where(apart, np.where(since[rows] > 0, since[rows], now_ns), 0)
        self.off_since_ns[rows] = begun
        valued.off[rows] = (begun > 0) & (now_ns - begun >= params.greeks_off_ms * NS_PER_MS)


def _unvalued(forward: FloatArray, tau: FloatArray, weight: FloatArray) -> Valued:
    """All there is to know of what is no live option."""
    n = len(forward)
    modelled, off, pinned = (np.zeros(n, dtype=np.bool_) for _ in range(3))
    greeks = [np.zeros(n) for _ in range(5)]
    iv, source = np.full(n, np.nan), np.zeros(n, dtype=np.int64)
    return Valued(forward, tau, weight, iv, source, modelled, off, pinned, *greeks)


def _contradicted(
    market: "Market", rows: IntArray, forward: FloatArray, fresh: BoolArray, known: BoolArray, price: FloatArray
) -> BoolArray:
    """[M] options on underlyings whose surface the quotes of the moment contradict: several of them, and a share of
    all, have it further outside than their spread. One alone is an outlier, as it is in a fit. `price` is theirs at
    the surface, USD."""
    universe, u = market.universe, market.universe.underlying[rows]
    bid, ask = market.bid[rows], market.ask[rows]
    unit = np.where(universe.coin_quoted[rows], forward, 1.0)
    with np.errstate(invalid="ignore"):
        room = (ask - bid + universe.tick_size[rows]) * unit
        quoted = known & fresh[rows] & (bid > 0.0)
        off = quoted & ~((price >= bid * unit - room) & (price <= ask * unit + room))
    count = len(universe.underlyings)
    many, of = np.bincount(u[off], minlength=count), np.bincount(u[quoted], minlength=count)
    against = (many >= CONTRADICTING) & (many > SHARE * of)
    for k in np.flatnonzero(against).tolist():
        market.surfaces.contradict(k)
    return np.asarray(against[u])


def _placed(values: black.Greeks, at: IntArray, of_these: black.Greeks) -> black.Greeks:
    """`values` with those of some rows written over."""
    for column, new in zip(values, of_these, strict=True):
        column[at] = new
    return values


def _greeks(
    universe: Universe,
    valued: Valued,
    rows: IntArray,
    values: black.Greeks,
    slope: FloatArray | None,
    params: PricingParameters,
) -> None:
    """Write the Greeks [M] of `rows`, delta as configured; `slope` of the smile where the surface says it."""
    forward, delta = valued.forward[rows], values.delta
    if params.smile_delta == "sticky_moneyness":
        if slope is None or np.isnan(slope).any():
            between = _smile_slope(universe, valued, rows)
            slope = between if slope is None else np.where(np.isnan(slope), between, slope)
        delta = black.sticky_moneyness_delta(delta, values.vega, slope, forward)
    valued.delta[rows], valued.gamma[rows], valued.vega[rows] = delta, values.gamma, values.vega
    valued.theta[rows] = values.theta
    valued.coin_value[rows] = np.where(universe.coin_quoted[rows], values.price / forward, 0.0)


def _from_neighbours(universe: Universe, rows: IntArray, iv: FloatArray, source: IntArray) -> None:
    """Fill what is left from other strikes of the same expiry, linearly in log strike and flat outside."""
    known = source > 0
    for series in np.unique(universe.series[rows[~known]]):
        mates = universe.series[rows] == series
        basis = np.flatnonzero(mates & known)
        if len(basis):
            take = np.flatnonzero(mates & ~known)
            basis = basis[np.argsort(universe.strike[rows[basis]], kind="stable")]
            at, of = np.log(universe.strike[rows[take]]), np.log(universe.strike[rows[basis]])
            iv[take], source[take] = np.interp(at, of, iv[basis]), int(IvSource.NEIGHBOUR)


def _smile_slope(universe: Universe, valued: Valued, rows: IntArray) -> FloatArray:
    """dσ/dk, k = ln(K/F), of each row's expiry at its own strike: differences between the out-of-the-money options,
    0 where there are fewer than three."""
    slope = np.zeros(len(rows))
    k = np.log(universe.strike[rows] / valued.forward[rows])
    outside = (universe.call[rows] == (k >= 0.0)) & (valued.source[rows] <= IvSource.MARK)
    for series in np.unique(universe.series[rows]):
        mates = np.flatnonzero(universe.series[rows] == series)
        line = mates[outside[mates]]
        line = line[np.unique(k[line], return_index=True)[1]]
        if len(line) >= 3:
            slope[mates] = np.interp(k[mates], k[line], np.gradient(valued.iv[rows[line]], k[line]))
    return slope
