"""Is a forecast better than another, and does it mean what it says: losses, Diebold–Mariano, VaR back-tests, PIT.

Pure functions of what was foretold and what came; whoever calls sees to it that the one was known before the other.
A number that is none is refused (DataError), never passed over: whoever leaves days out says which.
"""

from typing import NamedTuple

import numpy as np
from scipy import special, stats

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.instruments import BoolArray, FloatArray

LEAST = 10  # observations; a test of fewer says nothing


class Significance(NamedTuple):
    """A statistic and the chance of one so large were nothing the matter; t statistics have a sign."""

    statistic: float
    p: float


def numbers(*series: FloatArray) -> None:
    """DataError unless all are numbers, LEAST or more, and as many of each."""
    lengths = {len(x) for x in series}
    if len(lengths) != 1 or min(lengths) < LEAST or not all(np.isfinite(x).all() for x in series):
        raise DataError(f"a test needs series of one length, {LEAST} or more, all of them numbers")


# --- which is better ---------------------------------------------------------------------------------------


def qlike(realised: FloatArray, variance: FloatArray) -> FloatArray:
    """Loss of each variance forecast, same shape: r/f − log(r/f) − 1, zero where it was right, NaN where either is
    not above zero. Ranks forecasts as the true variance would though only an unbiased proxy of it is seen.
    Source: Patton (2011), Volatility forecast comparison using imperfect volatility proxies."""
    usable = (realised > 0.0) & (variance > 0.0)
    ratio = np.where(usable, realised, np.nan) / np.where(usable, variance, 1.0)
    return np.asarray(ratio - np.log(ratio) - 1.0)


def diebold_mariano(loss: FloatArray, other: FloatArray, *, horizon: int = 1, lags: int | None = None) -> Significance:
    """Two-sided test that two forecasts lose the same in the mean; `loss`, `other` [T]. t > 0: the other is better.

    Forecasts `horizon` steps ahead overlap: `horizon` − 1 autocovariances count whole (Diebold & Mariano 1995), or
    `lags` of them with Bartlett's weights (Newey & West 1987) where losses remember longer than that. The factor for
    few observations, and Student's t, are those of Harvey, Leybourne & Newbold (1997). Losses that are the same all
    along give (0, 1); DataError where whole covariances make no variance (give `lags` then).
    """
    numbers(loss, other)
    gap = loss - other
    if not gap.any():
        return Significance(0.0, 1.0)
    t, centred = len(gap), gap - gap.mean()
    bandwidth = horizon - 1 if lags is None else lags
    weight = np.ones(bandwidth) if lags is None else 1.0 - np.arange(1, bandwidth + 1) / (bandwidth + 1.0)
    covariance = np.array([centred[k:] @ centred[: t - k] for k in range(bandwidth + 1)]) / t
    long_run = covariance[0] + 2.0 * weight @ covariance[1:]
    if not long_run > 0.0:
        raise DataError("Diebold–Mariano: the losses' differences have no variance")
    few = np.sqrt((t + 1.0 - 2.0 * horizon + horizon * (horizon - 1.0) / t) / t)
    statistic = float(gap.mean() / np.sqrt(long_run / t) * few)
    return Significance(statistic, float(2.0 * stats.t.sf(abs(statistic), t - 1)))


# --- value at risk -----------------------------------------------------------------------------------------


def kupiec(hits: BoolArray, tail: float) -> Significance:
    """Does a VaR fail as often as it says? `hits` [T], true where the loss was beyond it; `tail` .01 for 99 %.
    Likelihood ratio, χ²(1). Source: Kupiec (1995), Techniques for verifying the accuracy of risk measurement models."""
    _tail(hits, tail)
    t, x = len(hits), int(np.count_nonzero(hits))
    ratio = 2.0 * (_log_likelihood(t - x, x, x / t) - _log_likelihood(t - x, x, tail))
    return _chi2(ratio, 1)


def christoffersen_independence(hits: BoolArray) -> Significance:
    """Do failures come in clusters? A first-order Markov chain against none, χ²(1). `hits` [T]. Without failures
    (0, 1). Source: Christoffersen (1998), Evaluating interval forecasts."""
    _tail(hits, 0.5)
    before, after = hits[:-1], hits[1:]
    n = [[int(np.count_nonzero((before == i) & (after == j))) for j in (False, True)] for i in (False, True)]
    ones = n[0][1] + n[1][1]
    alone = _log_likelihood(n[0][0] + n[1][0], ones, ones / len(after))
    chain = sum(_log_likelihood(row[0], row[1], row[1] / max(sum(row), 1)) for row in n)
    return _chi2(2.0 * (chain - alone), 1)


def christoffersen(hits: BoolArray, tail: float) -> Significance:
    """Conditional coverage: both of the above at once, χ²(2). Source: Christoffersen (1998)."""
    return _chi2(kupiec(hits, tail).statistic + christoffersen_independence(hits).statistic, 2)


def _tail(hits: BoolArray, tail: float) -> None:
    if hits.dtype != np.bool_ or len(hits) < LEAST or not 0.0 < tail < 1.0:
        raise DataError(f"a VaR back-test needs {LEAST} days or more, each true or false, and a tail within (0, 1)")


def _log_likelihood(misses: int, hits: int, chance: float) -> float:
    """Of so many Bernoulli outcomes; 0 log 0 is 0."""
    return float(special.xlog1py(misses, -chance) + special.xlogy(hits, chance))


def _chi2(statistic: float, freedom: int) -> Significance:
    above = max(statistic, 0.0)  # rounding
    return Significance(above, float(stats.chi2.sf(above, freedom)))


def filtered_var(returns: FloatArray, vol: FloatArray, tail: float, *, least: int, window: int) -> FloatArray:
    """[T] VaR as a loss, positive, each from what was known before its day: the volatility foretold times the `tail`
    quantile of earlier returns over their own. NaN until `least` of them are known; `window` at most are looked at.

    returns, vol [T]; NaN days give no VaR and count for none. Filtered historical simulation: Hull & White (1998);
    Barone-Adesi, Giannopoulos & Vosper (1999).
    """
    standard = returns / vol
    found = np.full(len(returns), np.nan)
    known = np.empty(0)
    for day, one in enumerate(standard):
        if len(known) >= least:
            found[day] = -vol[day] * np.quantile(known[-window:], tail)
        if np.isfinite(one):
            known = np.append(known, one)
    return found


# --- whole distributions -----------------------------------------------------------------------------------


def pit(outcome: FloatArray, samples: FloatArray) -> FloatArray:
    """[T] where each outcome [T] fell in what was foretold for it, `samples` [T, S]: uniform on (0, 1) and independent
    where forecasts are right. Mid-ranks, never 0 or 1. Source: Diebold, Gunther & Tay (1998)."""
    below = (samples < outcome[:, None]).sum(axis=1) + 0.5 * (samples == outcome[:, None]).sum(axis=1)
    return np.asarray((below + 0.5) / (samples.shape[1] + 1.0))


def uniform(u: FloatArray) -> Significance:
    """Kolmogorov–Smirnov's test that `u` [T] is uniform on (0, 1); it does not see whether they are independent."""
    numbers(u)
    found = stats.kstest(u, "uniform")
    return Significance(float(found.statistic), float(found.pvalue))


def berkowitz(u: FloatArray) -> Significance:
    """That `u` [T] within (0, 1) is uniform and independent: Φ⁻¹(u) against a Gaussian AR(1) of any mean, variance and
    memory, χ²(3), given the first of them. Sees both a wrong shape and clusters.
    Source: Berkowitz (2001), Testing density forecasts."""
    numbers(u)
    if not ((u > 0.0) & (u < 1.0)).all():
        raise DataError("Berkowitz's test needs numbers within (0, 1), its ends left out")
    z = stats.norm.ppf(u)
    before, after = z[:-1], z[1:]
    design = np.column_stack([np.ones(len(before)), before])
    best = np.linalg.lstsq(design, after, rcond=None)[0]
    error = after - design @ best
    scale = np.sqrt(np.mean(error**2))
    if not scale > 0.0:
        raise DataError("Berkowitz's test needs numbers that differ")
    free = stats.norm.logpdf(error, scale=scale).sum()
    return _chi2(2.0 * float(free - stats.norm.logpdf(after).sum()), 3)
