"""The forward of every expiry, from whatever says it best, and how far those that say it disagree.

Contracts of one account that end together on one underlying share a forward (`Universe.series`, G of them). In
order of preference it is the dated future's price, put-call parity over quotes, the venue's own synthetic, the
index carried by the basis of the neighbouring expiries, the index. In the settlement average the first three
already hold the part that is fixed; the last two do not.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray, Universe
from dea_daemon.domain.numbers import DAYS_PER_YEAR

AGREE_WITHIN = 0.002
"""Relative: sources so near each other agree. Recorded parity is that near the venue's own forward in 99.9 %."""

PAIRS_MIN = 3  # strikes: fewer have no median worth the name
SPREAD_MAX = 0.03  # of the strike, call's and put's together: wider ones (a crash empties books) say nothing
SPREAD_FLOOR = 1e-4  # of the strike: how exact the best quote can be, so that a locked pair does not outweigh all


class ForwardSource(IntEnum):
    """Where a forward came from: the first of these that there is and that others do not contradict."""

    NONE = 0
    FUTURE = 1
    PARITY = 2
    SYNTHETIC = 3
    NEIGHBOURS = 4
    INDEX = 5


class _Said(NamedTuple):
    """What one kind of source says, a row each: of which series, its forward, and the weight of that."""

    group: IntArray
    price: FloatArray
    weight: FloatArray


class Layout(NamedTuple):
    """What of a universe's order does not move with prices, so that it need not be found again at every tick."""

    rows: int  # that the universe had
    futures: IntArray
    options: IntArray
    call: IntArray  # of each pair of a call and a put: same series, strike and currency
    put: IntArray
    row: IntArray  # one of each series [G]
    market: IntArray  # of each series [G]: its underlying in its account


def layout(universe: Universe) -> Layout:
    """Of the universe as it is now; one that has grown needs another."""
    options = np.flatnonzero(universe.option)
    futures = np.flatnonzero((universe.series >= 0) & ~universe.option)
    dated, row = np.flatnonzero(universe.series >= 0), np.zeros(universe.series_count, dtype=np.int64)
    row[universe.series[dated]] = dated
    market = universe.account[row] * len(universe.underlyings) + universe.underlying[row]
    return Layout(len(universe), futures, options, *_pairs(universe, options), row, market)


def forwards(
    universe: Universe,
    mark_price: FloatArray,
    bid_price: FloatArray,
    ask_price: FloatArray,
    fresh: BoolArray,
    synthetic_price: FloatArray,
    spot_price: FloatArray,
    tau_years: FloatArray,
    places: Layout | None = None,
) -> tuple[FloatArray, IntArray, FloatArray]:
    """Forward [G] USD, ForwardSource [G], and the largest relative disagreement [G] of future, parity and synthetic
    (0 where there are not two of them).

    Inputs [N] as the venue quotes them; `fresh` is about mark, bid and ask, and synthetic_price (the forward an option
    ticker names) is NaN where it is not fresh. Prices in a stablecoin count as USD. A source that is alone against
    two agreeing ones is dropped; against one, the order of preference decides and the disagreement tells. `places` is
    the universe's layout, made here if not given.
    """
    count = universe.series_count
    places = places or layout(universe)
    with np.errstate(all="ignore"):
        parts = (
            _of_futures(universe, places, mark_price, bid_price, ask_price, fresh),
            _of_parity(universe, places, bid_price, ask_price, fresh, spot_price, tau_years),
            _of_synthetics(universe, places, synthetic_price),
        )
        group = np.concatenate([part.group + k * count for k, part in enumerate(parts)])
        price = np.concatenate([part.price for part in parts])
        said = _median(group, price, np.concatenate([part.weight for part in parts]), 3 * count).reshape(3, count)
        disagreement = np.fmax.reduce(said) / np.fmin.reduce(said) - 1.0
        disagreement[np.isnan(disagreement)] = 0.0
        said[_alone(said)] = np.nan
        known = np.isfinite(said)
        source = np.where(known.any(axis=0), known.argmax(axis=0) + int(ForwardSource.FUTURE), 0)
        forward = np.where(source > 0, said[np.maximum(source - 1, 0), np.arange(count)], np.nan)
        if not source.all():
            _fill(places.market, spot_price[places.row], tau_years[places.row], forward, source)
    return forward, source, disagreement


def _of_futures(
    universe: Universe,
    places: Layout,
    mark_price: FloatArray,
    bid_price: FloatArray,
    ask_price: FloatArray,
    fresh: BoolArray,
) -> _Said:
    """The dated future's mark, or its mid where it has none."""
    rows = places.futures[fresh[places.futures]]
    mark = mark_price[rows]
    price = np.where(mark > 0.0, mark, 0.5 * (bid_price[rows] + ask_price[rows]))
    return _Said(universe.series[rows], price, np.ones(len(rows)))


def _of_parity(
    universe: Universe,
    places: Layout,
    bid_price: FloatArray,
    ask_price: FloatArray,
    fresh: BoolArray,
    spot_price: FloatArray,
    tau_years: FloatArray,
) -> _Said:
    """Put-call parity at strikes near the money with both sides quoted, weighted by 1/spread.

    USD: C − P = F − K. In coin: C − P = 1 − K/F. Near the money both options are quoted tightly; far from it the
    spread of the one in the money is all there is to see.
    """
    call, put = places.call, places.put
    strike, in_coin, group = universe.strike[call], universe.coin_quoted[call], universe.series[call]
    good = np.abs(np.log(strike / spot_price[call])) <= np.maximum(0.05, 0.5 * np.sqrt(tau_years[call]))
    good &= fresh[call] & fresh[put]
    call_bid, call_ask, put_bid, put_ask = bid_price[call], ask_price[call], bid_price[put], ask_price[put]
    good &= (call_bid > 0.0) & (call_ask >= call_bid) & (put_bid > 0.0) & (put_ask >= put_bid)
    net = 0.5 * (call_bid + call_ask - put_bid - put_ask)
    price = np.where(in_coin, strike / (1.0 - net), strike + net)
    spread = (call_ask - call_bid + put_ask - put_bid) * np.where(in_coin, price, 1.0)
    good &= spread <= SPREAD_MAX * strike
    good &= (np.bincount(group[good], minlength=universe.series_count) >= PAIRS_MIN)[group]
    weight = 1.0 / (spread + SPREAD_FLOOR * strike)
    return _Said(group[good], price[good], weight[good])


def _pairs(universe: Universe, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Rows of the calls [M] and of the puts [M] of the same series, strike and currency, among `rows`."""
    in_coin = universe.coin_quoted[rows]
    # Strikes are the finest key; a sign apart for each currency saves sorting by one more.
    key = np.where(in_coin, -universe.strike[rows], universe.strike[rows])
    rows = rows[np.lexsort((universe.call[rows], key, universe.series[rows]))]
    put, call = rows[:-1], rows[1:]
    same = (universe.series[put] == universe.series[call]) & (universe.strike[put] == universe.strike[call])
    same &= (universe.coin_quoted[put] == universe.coin_quoted[call]) & universe.call[call] & ~universe.call[put]
    return call[same], put[same]


def _of_synthetics(universe: Universe, places: Layout, synthetic_price: FloatArray) -> _Said:
    """The forward in the venue's own option tickers."""
    rows = places.options[np.isfinite(synthetic_price[places.options])]
    return _Said(universe.series[rows], synthetic_price[rows], np.ones(len(rows)))


def _alone(said: FloatArray) -> BoolArray:
    """Which of three sources [3, G] two agreeing others contradict."""
    distance = np.abs(said / said[[1, 2, 0]] - 1.0)  # [k]: of source k from the one after it
    near, far = distance <= AGREE_WITHIN, distance > AGREE_WITHIN  # neither where one is missing
    return np.asarray(near[[1, 2, 0]] & far & far[[2, 0, 1]])


def _fill(market: IntArray, spot: FloatArray, tau: FloatArray, forward: FloatArray, source: IntArray) -> None:
    """What no source says: the index, carried by its neighbours' basis. Writes `forward` and `source`; all [G].

    ln(F/S) is interpolated in time, nothing at no time, so that a near expiry's noise is not blown up to a rate;
    behind the last expiry known its annual rate goes on.
    """
    said = source > 0
    for key in set(market[~said].tolist()):
        knots = np.flatnonzero(said & (market == key) & (spot > 0.0))
        knots = knots[np.argsort(tau[knots], kind="stable")]
        empty = np.flatnonzero(~said & (market == key) & (spot > 0.0))
        forward[empty] = spot[empty] * np.exp(_log_basis(tau[knots], np.log(forward[knots] / spot[knots]), tau[empty]))
        source[empty] = int(ForwardSource.NEIGHBOURS if len(knots) else ForwardSource.INDEX)


def _log_basis(known_years: FloatArray, log_basis: FloatArray, at_years: FloatArray) -> FloatArray:
    """ln(F/S) at times between (0, 0) and known ones, in order; behind the last at that one's rate. 0 if none is."""
    if not len(known_years):
        return np.zeros(len(at_years))
    inside = np.interp(at_years, np.append(0.0, known_years), np.append(0.0, log_basis))
    rate = log_basis[-1] / max(known_years[-1], 1.0 / DAYS_PER_YEAR)
    return np.asarray(inside + rate * np.maximum(at_years - known_years[-1], 0.0))


def _median(group: IntArray, value: FloatArray, weight: FloatArray, count: int) -> FloatArray:
    """Weighted median of each group, [count]; NaN for groups without a positive, finite value."""
    sound = np.isfinite(value) & (value > 0.0) & np.isfinite(weight)
    group, value, weight = group[sound], value[sound], weight[sound]
    order = np.lexsort((value, group))
    group, value, weight = group[order], value[order], weight[order]
    total = np.bincount(group, weights=weight, minlength=count)
    below = np.cumsum(weight) - (np.cumsum(total) - total)[group]
    half = below >= 0.5 * total[group]
    out = np.full(count, np.nan)
    out[group[half][::-1]] = value[half][::-1]  # the last written is the first to reach half
    return out
