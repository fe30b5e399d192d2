"""What each expiry is led by: its own quotes, a shape where they are too few, and a ceiling where later ones quote."""

from typing import NamedTuple

import numpy as np

from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.surfaces import Rung
from dea_daemon.pricing.surface.calibration import Points
from dea_daemon.pricing.surface.essvi import Neighbour, Shape, fit_shapes, lean
from dea_daemon.pricing.surface.quotes import Quotes

ENOUGH = 6  # quotes: with fewer a shape helps
CEILING_ERROR, LENT_ERROR = 0.02, 0.05  # of the volatility
LENT_Z = np.linspace(-2.5, 2.5, 11)  # standard deviations
CEILINGS = 12  # at most, on either side


class Lent(NamedTuple):
    """Points that are nobody's quote [P]: k and total variance there."""

    k: FloatArray
    w: FloatArray


NOTHING = Lent(np.zeros(0), np.zeros(0))


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
    counts = np.array([len(q.k) for q in slices])
    shapes = _shapes(slices, counts)
    told = [n for n in range(len(slices)) if counts[n]]
    atm = np.array([shapes[n].theta if n in shapes else at_the_money(slices[n]) for n in told])
    # Nobody's: linear in time from nothing, and of the last one's volatility behind it.
    level = np.interp(tau, np.append(0.0, tau[told]), np.append(0.0, atm))
    level *= np.maximum(tau / tau[told[-1]], 1.0)
    return [
        Guide(q, _rung(len(q.k)), w, _lent(shapes[n]) if n in shapes else NOTHING)
        for n, (q, w) in enumerate(zip(slices, level.tolist(), strict=True))
    ]


def _rung(quotes: int) -> Rung:
    if quotes >= ENOUGH:
        return Rung.FITTED
    return (Rung.BETWEEN, Rung.LIFTED, Rung.LEANING, Rung.LEANING, Rung.LEANING, Rung.SHAPED)[quotes]


def _shapes(slices: list[Quotes], counts: IntArray) -> dict[int, Shape]:
    """Of the expiries with too few quotes, by their place; where none has enough, those with most lead the others."""
    few = [n for n in range(len(slices)) if 0 < counts[n] < ENOUGH]
    if not few:
        return {}
    lead = np.flatnonzero(counts >= min(ENOUGH, int(counts.max()))).tolist()
    own = fit_shapes([slices[n] for n in lead])
    known = [Neighbour(slices[n].tau_years, shape) for n, shape in zip(lead, own, strict=True)]
    out = {}
    for n in few:
        others = [neighbour for place, neighbour in zip(lead, known, strict=True) if place != n]
        out[n] = lean(slices[n], others)
    return out


def _lent(shape: Shape) -> Lent:
    """Points of a shape out to where there is little time value."""
    k = LENT_Z * np.sqrt(shape.theta)
    w, _, _ = shape.total_variance(k)
    return Lent(k, w)


def at_the_money(q: Quotes) -> float:
    """Total variance where k is 0, or that of the nearest quote."""
    return float(np.interp(0.0, q.k, q.iv)) ** 2 * q.tau_years


def points_of(guide: Guide, used: BoolArray, later: list[Guide]) -> Led:
    """What an expiry should pass: the quotes used, what it was lent, and its ceiling, in order of k."""
    q, lent, ceiling = guide.quotes.keep(used), guide.lent, _ceiling(guide, later)
    k = np.concatenate((q.k, lent.k, ceiling.k))
    iv = np.sqrt(np.concatenate((lent.w, ceiling.w)) / q.tau_years)
    share = np.repeat((LENT_ERROR, CEILING_ERROR), (len(lent.k), len(ceiling.k)))
    number, order = np.arange(len(k)), np.argsort(k, kind="stable")
    points = Points(
        k[order],
        np.concatenate((q.iv, iv))[order],
        np.concatenate((q.error, share * iv))[order],
        np.concatenate((0.5 * (q.high - q.low), 0.0 * iv))[order],
        (number >= len(q.k) + len(lent.k))[order],
    )
    return Led(points, (number < len(q.k))[order])


def _ceiling(guide: Guide, later: list[Guide]) -> Lent:
    """Outside its own quotes a smile must not rise above those of later expiries: they could not follow."""
    low, high = guide.ends
    beyond = [o.quotes for o in later if len(o.quotes.k)]
    if not beyond:
        return NOTHING
    k = np.unique(np.concatenate([o.k for o in beyond]))
    k = np.concatenate([_some(k[k < low]), _some(k[k > high])])
    w = np.full(len(k), np.inf)
    for o in beyond:
        here = (k >= o.k[0]) & (k <= o.k[-1])
        w[here] = np.minimum(w[here], np.interp(k[here], o.k, o.iv**2 * o.tau_years))
    return Lent(k, w)


def _some(k: FloatArray) -> FloatArray:
    """At most so many of them, the ends among these."""
    if len(k) <= CEILINGS:
        return k
    return np.asarray(k[np.linspace(0, len(k) - 1, CEILINGS).astype(np.int64)])
