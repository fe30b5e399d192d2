"""A book along a course of prices: contracts marked bar by bar, time passing and expiries settling.

What `research.stress` does to a book at once, over time: Black 1976 on each contract's own forward, whose premium over
the index shrinks with the time that is left. From its expiry on a contract is its payoff at the index there.
"""

from typing import NamedTuple

import numpy as np

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.pricing import black
from dea_daemon.pricing.exposure import term_weight
from dea_daemon.research.stress import Holdings

_LEAST_IV = 0.01


class Course(NamedTuple):
    """T bars' closes. years [T] since the book was told (below 0 before); spot [T, U] USD of the index; premium [T] of
    perpetuals and basis [T] (a year) of dated contracts, as fractions; vol [T, U] a share of a 30-day volatility; price
    [T, C] USD of each currency; funding [T, U] the rate paid at that close, a share of a perpetual's value."""

    years: FloatArray
    spot: FloatArray
    premium: FloatArray
    basis: FloatArray
    vol: FloatArray
    price: FloatArray
    funding: FloatArray

    def at(self, t: int, spot: FloatArray | None = None) -> "Course":
        """Bar t alone, [1, ...]; with `spot` [U] in place of its close's."""
        one = Course(*(column[t : t + 1] for column in self))
        return one if spot is None else one._replace(spot=spot[None])


class Marked(NamedTuple):
    """Each contract at each bar [T, N]: price as it is quoted (an option settled in coin: in coin), forward in USD (of
    a stablecoin: in that), tau_years left, iv."""

    price: FloatArray
    forward: FloatArray
    tau_years: FloatArray
    iv: FloatArray


def marked(book: Holdings, by: Course) -> Marked:
    """Marks along the course. A contract that has ended has its payoff at that very bar's index."""
    u, dated = book.underlying, ~book.perpetual
    left = np.where(dated, np.maximum(book.tau_years - by.years[:, None], 0.0), 0.0)
    share = left / np.where(book.tau_years > 0.0, book.tau_years, 1.0)
    stable = book.coin[book.settle] < 0
    told_usd = book.forward * np.where(stable, book.price[book.settle], 1.0)
    over = (told_usd / book.spot[u]) ** np.where(dated, share, 1.0)
    shift = np.where(dated, by.basis[:, None] * left, by.premium[:, None])
    money = np.where(stable, by.price[:, book.settle], 1.0)
    forward = by.spot[:, u] * over * (1.0 + shift) / money
    iv = np.maximum(book.iv * (1.0 + by.vol[:, u] * term_weight(left * DAYS_PER_YEAR)), _LEAST_IV)
    price = forward.copy()
    if (at := np.flatnonzero(book.option)).size:
        f = forward[:, at]
        value = black.price(f, book.strike[at], left[:, at], iv[:, at], book.call[at])
        price[:, at] = np.where(book.coin_quoted[at], value / f, value)
    return Marked(price, forward, left, np.where(book.option, iv, np.nan))


def worth(book: Holdings, by: Course) -> FloatArray:
    """[T] USD: the book's equity along the course, nobody trading, funding paid; profit counts from the first bar,
    whose equity is `book.equity` at the prices there. What has ended keeps the cash it ended with."""
    price = marked(book, by).price
    value = np.where(book.inverse, 1.0 / np.where(book.inverse, price, 1.0), price)
    unit = _at_the_end(np.where(book.inverse, -value, value), book, by)
    gain = book.amount * (unit - unit[0])
    paid = np.where(book.perpetual, by.funding[:, book.underlying], 0.0) * book.amount * value
    paid[0] = 0.0  # before the book is looked at
    settles = np.eye(len(book.currencies))[book.settle]
    equity = book.equity + (gain - np.cumsum(paid, axis=0)) @ settles
    return np.asarray((equity * by.price).sum(axis=1))


def _at_the_end(unit: FloatArray, book: Holdings, by: Course) -> FloatArray:
    """[T, N]: from its expiry on what a contract was worth there."""
    over = ~book.perpetual & (by.years[:, None] >= book.tau_years)
    last = np.where(over.any(axis=0), over.argmax(axis=0), len(unit) - 1)
    return np.asarray(np.where(over, unit[last, np.arange(unit.shape[1])], unit))


def excited(shares: FloatArray, shock: float, step_hours: float, half_life_hours: float = 24.0) -> FloatArray:
    """[T, U] the shock of volatility along shares [T, U] of the price before: `shock` at the deepest point, as much of
    it as the fall has gone before, and halving in a day where the fall goes back. That shape is assumed."""
    fall = np.maximum(1.0 - shares, 0.0)
    deepest = fall.max(axis=0)
    depth = fall / np.where(deepest > 0.0, deepest, 1.0)
    kept = 0.5 ** (step_hours / half_life_hours)
    for t in range(1, len(depth)):
        depth[t] = np.maximum(depth[t], depth[t - 1] * kept)
    return np.asarray(shock * depth)
