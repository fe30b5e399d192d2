"""What each expiry is led by: its own quotes, a shape where they are too few, and a ceiling where later ones quote."""

from typing import NamedTuple

import numpy as np

from dea_daemon.domain.instruments import BoolArray, FloatArray
from dea_daemon.domain.surfaces import Rung
from dea_daemon.pricing.surface.calibration import Points
from dea_daemon.pricing.surface.quotes import Quotes

ENOUGH = 6  # quotes: with fewer a shape helps
CEILING_ERROR = 0.02  # of the volatility
CEILINGS = 12  # at most, on either side


class Lent(NamedTuple):
    """Points of a shape [P], where quotes are too few: volatility, and how exact it is taken to be."""

    k: FloatArray
    iv: FloatArray
    error: FloatArray


NOTHING = Lent(np.zeros(0), np.zeros(0), np.zeros(0))


class Guide(NamedTuple):
    """One expiry: its quotes, how much of the smile they say, total variance at the money, and the ends of what is
    quoted (NaN: nothing is)."""

    quotes: Quotes
    rung: Rung
    atm: float
    lent: Lent = NOTHING

    @property
    def ends(self) -> tuple[float, float]:
        k = self.quotes.k
        return (float(k[0]), float(k[-1])) if len(k) else (float("nan"), float("nan"))


class Led(NamedTuple):
    """Points, and which of them [·] are the quotes used, in order."""

    points: Points
    quoted: BoolArray


def guides(slices: list[Quotes]) -> list[Guide]:
    """Of each expiry, in order. One at least has quotes."""
    tau = np.array([q.tau_years for q in slices])
    known = np.array([len(q.k) > 0 for q in slices])
    atm = np.array([at_the_money(q) if len(q.k) else np.nan for q in slices])
    atm = np.interp(tau, np.append(0.0, tau[known]), np.append(0.0, atm[known]))
    last = int(np.flatnonzero(known)[-1])
    atm[last + 1 :] = atm[last] * tau[last + 1 :] / tau[last]
    return [
        Guide(q, Rung.FITTED if len(q.k) >= ENOUGH else Rung.BETWEEN, float(w))
        for q, w in zip(slices, atm, strict=True)
    ]


def at_the_money(q: Quotes) -> float:
    """Total variance where k is 0, or that of the nearest quote."""
    return float(np.interp(0.0, q.k, q.iv)) ** 2 * q.tau_years


def points_of(guide: Guide, used: BoolArray, later: list[Guide]) -> Led:
    """What an expiry should pass: the quotes used, what it was lent, and its ceiling, in order of k."""
    q = guide.quotes.keep(used)
    lent, ceiling = guide.lent, _ceiling(guide, later)
    k = np.concatenate((q.k, lent.k, ceiling.k))
    order = np.argsort(k, kind="stable")
    none = np.zeros(len(lent.k) + len(ceiling.k))
    above = np.arange(len(k)) >= len(q.k) + len(lent.k)
    points = Points(
        k[order],
        np.concatenate((q.iv, lent.iv, ceiling.iv))[order],
        np.concatenate((q.error, lent.error, ceiling.error))[order],
        np.concatenate((0.5 * (q.high - q.low), none))[order],
        above[order],
    )
    return Led(points, (np.arange(len(k)) < len(q.k))[order])


def _ceiling(guide: Guide, later: list[Guide]) -> Lent:
    """Outside its own quotes a smile must not rise above those of later expiries: they could not follow."""
    low, high = guide.ends
    beyond = [o.quotes for o in later if len(o.quotes.k)]
    if not beyond or not len(guide.quotes.k):
        return NOTHING
    k = np.unique(np.concatenate([o.k for o in beyond]))
    k = np.concatenate([_some(k[k < low]), _some(k[k > high])])
    w = np.full(len(k), np.inf)
    for o in beyond:
        here = (k >= o.k[0]) & (k <= o.k[-1])
        w[here] = np.minimum(w[here], np.interp(k[here], o.k, o.iv**2 * o.tau_years))
    iv = np.sqrt(w / guide.quotes.tau_years)
    return Lent(k, iv, CEILING_ERROR * iv)


def _some(k: FloatArray) -> FloatArray:
    """At most so many of them, the ends among these."""
    if len(k) <= CEILINGS:
        return k
    return np.asarray(k[np.linspace(0, len(k) - 1, CEILINGS).astype(np.int64)])
