"""How good surfaces of recorded chains are: inside bid and ask, without arbitrage, beside the venue's mark and SVI.

Arbitrage is looked for in what was published, the total variance at the nodes, by code of its own: it shares nothing
with the gate of the fit, so that each checks the other.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np
from scipy.interpolate import CubicSpline

from dea_daemon.domain.events import SurfaceFitted
from dea_daemon.domain.instruments import BoolArray, FloatArray
from dea_daemon.domain.surfaces import Chain, Rung, Tenor
from dea_daemon.pricing.surface.quotes import Quotes
from dea_daemon.pricing.surface.surface import Surface
from dea_daemon.research.svi import fit_svi, svi_total_variance

K_MAX, POINTS = 1.5, 3_001  # where arbitrage is looked for
LEAST_G = -1e-9
LEAST_RISE = -1e-12  # of the total variance before it
EVERY = 4  # one quote in so many is left out, to be found again
SVI_LEAST = 5  # quotes: as many as it has parameters
ROUNDING = 1e-12  # of a volatility: a surface on its bid is inside

Slopes = tuple[FloatArray, FloatArray, FloatArray]


class Curves(NamedTuple):
    """Total variance of S expiries at k [P], in order of time, and Gatheral's g there: w, g [S, P]; tau_years [S]."""

    k: FloatArray
    tau_years: FloatArray
    w: FloatArray
    g: FloatArray

    @property
    def butterflies(self) -> int:
        """How many smiles have a density below zero somewhere. NaN is one."""
        return int((~(self.g >= LEAST_G).all(axis=1)).sum())

    @property
    def calendars(self) -> int:
        """Of how many adjacent pairs total variance falls with time somewhere. NaN is one."""
        return int((~(np.diff(self.w, axis=0) >= LEAST_RISE * self.w[:-1]).all(axis=1)).sum())

    @property
    def min_g(self) -> float:
        return float(self.g.min()) if self.g.size else float("nan")


class Judged(NamedTuple):
    """One way of drawing volatilities, against quotes: how many it was held to, how many of those it puts between bid
    and ask, for how many it tells a volatility at all, and the sum of its squared distances from their mids
    (volatility²). Violations -1: nobody looked."""

    quotes: int = 0
    inside: int = 0
    known: int = 0
    squares: float = 0.0
    butterflies: int = -1
    calendars: int = -1

    @property
    def share(self) -> float:
        return self.inside / self.quotes if self.quotes else float("nan")

    @property
    def rmse_vol_pts(self) -> float:
        return 100.0 * float(np.sqrt(self.squares / self.known)) if self.known else float("nan")

    @property
    def violations(self) -> int:
        return max(self.butterflies, 0) + max(self.calendars, 0)


class Study(msgspec.Struct, frozen=True):
    """One surface and how good it is. `dropped` [of each expiry's quotes]: the fit left it out; those count as outside.

    ms are of the first fit and of SVI through the same quotes. `svi` has no quotes where there is none to compare."""

    fitted: SurfaceFitted
    quotes: tuple[Quotes, ...]
    dropped: tuple[BoolArray, ...]
    curves: Curves
    own: Judged
    left_out: Judged
    mark: Judged
    svi: Judged
    fit_ms: float
    svi_ms: float

    @property
    def fallbacks(self) -> int:
        """Expiries that could not be fitted by their own quotes alone."""
        return sum(smile.rung != Rung.FITTED for smile in self.fitted.smiles)

    @property
    def sound(self) -> bool:
        return not self.fitted.why and not self.own.violations


def studied(
    quotes: Sequence[Quotes],
    mark_iv: FloatArray,
    fitted: SurfaceFitted,
    again: SurfaceFitted,
    svi: Judged | None = None,
    fit_ms: float = float("nan"),
    svi_ms: float = float("nan"),
) -> Study:
    """What `fitted` made of the quotes of a chain, and `again` of it without `left_out`. mark_iv [M of the chain]."""
    iv = volatilities(fitted, quotes)
    gone, drawn, missed = dropped(fitted, quotes, iv), curves(fitted), left_out(quotes)
    own, aside = judge(iv, quotes, gone, drawn), judge(volatilities(again, missed), missed)
    return Study(
        fitted, tuple(quotes), tuple(gone), drawn, own, aside, marked(quotes, mark_iv), svi or Judged(), fit_ms, svi_ms
    )


# --- quotes left out --------------------------------------------------------------------------------------------


def left_out(quotes: Sequence[Quotes]) -> list[Quotes]:
    """Every fourth quote, in order of expiry and of k within it."""
    ends = np.cumsum([len(q.k) for q in quotes])
    return [
        q.keep(np.arange(end - len(q.k), end) % EVERY == EVERY - 1)
        for q, end in zip(quotes, ends.tolist(), strict=True)
    ]


def without(chain: Chain, quotes: Iterable[Quotes]) -> Chain:
    """The chain as if nobody had made these quotes; the expiries wanted stay."""
    gone = {row for q in quotes for row in q.row.tolist()}
    kept = [row for row in range(len(chain.strike)) if row not in gone]

    def of(column: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(column[row] for row in kept)

    names = ("expiry_ns", "forward", "strike", "call", "bid", "ask", "tick", "age_s")
    return msgspec.structs.replace(chain, **{name: of(getattr(chain, name)) for name in names})


# --- judging ----------------------------------------------------------------------------------------------------


def volatilities(fitted: SurfaceFitted, quotes: Sequence[Quotes]) -> list[FloatArray]:
    """Of each quote of each expiry, as the published surface is read; NaN where there is none."""
    if not fitted.smiles:
        return [np.full(len(q.k), np.nan) for q in quotes]
    surface = Surface(fitted.chain_utc_ns, fitted.scale, fitted.smiles)
    return [surface.look_up(np.full(len(q.k), q.expiry_ns, dtype=np.int64), q.k).iv for q in quotes]


def within(iv: FloatArray, quotes: Quotes) -> BoolArray:
    """[Q] bid ≤ iv ≤ ask; NaN is outside."""
    return np.asarray((iv >= quotes.low - ROUNDING) & (iv <= quotes.high + ROUNDING))


def judge(
    iv: Sequence[FloatArray],
    quotes: Sequence[Quotes],
    outside: Sequence[BoolArray] | None = None,
    curves: Curves | None = None,
) -> Judged:
    """Volatilities [Q of each expiry] against the quotes; those `outside` count so whatever was drawn there."""
    count = inside = known = 0
    squares = 0.0
    for n, (drawn, q) in enumerate(zip(iv, quotes, strict=True)):
        good = within(drawn, q)
        if outside is not None:
            good &= ~outside[n]
        count, inside = count + len(q.k), inside + int(good.sum())
        known, squares = known + int(np.isfinite(drawn).sum()), squares + float(np.nansum((drawn - q.iv) ** 2))
    looked = (-1, -1) if curves is None else (curves.butterflies, curves.calendars)
    return Judged(count, inside, known, squares, *looked)


def dropped(fitted: SurfaceFitted, quotes: Sequence[Quotes], iv: Sequence[FloatArray]) -> list[BoolArray]:
    """Which quotes [Q of each expiry] the fit left out as contradicting the others. It tells how many, and drops by
    distance in errors: those furthest off."""
    counts = {smile.expiry_ns: smile.dropped for smile in fitted.smiles}
    found = []
    for q, drawn in zip(quotes, iv, strict=True):
        gone = np.zeros(len(q.k), dtype=np.bool_)
        if count := counts.get(q.expiry_ns, 0):
            gone[np.argsort(-np.abs(drawn - q.iv) / q.error, kind="stable")[:count]] = True
        found.append(gone)
    return found


def marked(quotes: Sequence[Quotes], mark_iv: FloatArray) -> Judged:
    """The venue's own volatilities [M of the chain], where it tells one."""
    known = [q.keep(np.isfinite(mark_iv[q.row])) for q in quotes]
    return judge([mark_iv[q.row] for q in known], known)


# --- arbitrage --------------------------------------------------------------------------------------------------


def curves(fitted: SurfaceFitted, k: FloatArray | None = None) -> Curves:
    """Of what was published, at k [P] or all the points of |k| ≤ 1.5. The spline through total variance at
    k = scale · sinh(u), uniform in u, is made anew here, its derivatives taken by the chain rule."""
    at = np.linspace(-K_MAX, K_MAX, POINTS) if k is None else k
    tau = np.array([(smile.expiry_ns - fitted.chain_utc_ns) / (365.0 * 86_400e9) for smile in fitted.smiles])
    if not fitted.smiles:
        return Curves(at, tau, np.zeros((0, len(at))), np.zeros((0, len(at))))
    nodes = np.array([smile.variance for smile in fitted.smiles]).T
    edge = np.arcsinh(4.0 / fitted.scale)
    spline = CubicSpline(np.linspace(-edge, edge, len(nodes)), nodes, bc_type="natural")
    u = np.arcsinh(at / fitted.scale)
    along = 1.0 / np.hypot(at, fitted.scale)  # du/dk
    bend = -at * along**3  # d²u/dk²
    w, by_u, by_uu = spline(u).T, spline(u, 1).T, spline(u, 2).T
    return Curves(at, tau, w, density_factor(at, w, by_u * along, by_uu * along**2 + by_u * bend))


def density_factor(k: FloatArray, w: FloatArray, slope: FloatArray, bend: FloatArray) -> FloatArray:
    """Gatheral's g of total variance w, dw/dk, d²w/dk²: the density of ln S over a positive factor.
    Source: Gatheral & Jacquier 2014, Arbitrage-free SVI volatility surfaces, eq. 2.1."""
    with np.errstate(all="ignore"):
        return np.asarray((1.0 - k * slope / (2.0 * w)) ** 2 - 0.25 * slope**2 * (1.0 / w + 0.25) + 0.5 * bend)


def curves_of(smiles: Sequence[Callable[[FloatArray], Slopes]], tau_years: Sequence[float]) -> Curves:
    """Of smiles given as functions from k to w, dw/dk and d²w/dk²."""
    k = np.linspace(-K_MAX, K_MAX, POINTS)
    w, slope, bend = np.array([smile(k) for smile in smiles]).reshape(-1, 3, POINTS).swapaxes(0, 1)
    return Curves(k, np.array(tau_years), w, density_factor(k, w, slope, bend))


def svi_of(quotes: Sequence[Quotes]) -> Judged:
    """Raw SVI through each expiry's quotes, nothing held free of arbitrage; where five or more tell its parameters."""
    enough = [q for q in quotes if len(q.k) >= SVI_LEAST]
    found = [partial(svi_total_variance, fit_svi(q)) for q in enough]
    with np.errstate(invalid="ignore"):
        iv = [np.sqrt(smile(q.k)[0] / q.tau_years) for smile, q in zip(found, enough, strict=True)]
    return judge(iv, enough, curves=curves_of(found, [q.tau_years for q in enough]))


def local_volatility(fitted: SurfaceFitted, z: FloatArray) -> FloatArray:
    """[S, Z] between each expiry and the one before (the first: today), at so many deviations σ√τ from the money;
    NaN where g is not above zero. Source: Gatheral 2006, The Volatility Surface, eq. 1.10, ∂w/∂τ by difference."""
    found = np.full((len(fitted.smiles), len(z)), np.nan)
    for s, atm in enumerate(curves(fitted, np.zeros(1)).w[:, 0].tolist()):
        _, tau, w, g = curves(fitted, z * np.sqrt(atm))
        rise, years, between = (
            (w[s] - w[s - 1], tau[s] - tau[s - 1], 0.5 * (g[s] + g[s - 1])) if s else (w[0], tau[0], g[0])
        )
        with np.errstate(all="ignore"):
            found[s] = np.sqrt(np.where(between > 0.0, rise / (years * between), np.nan))
    return found


# --- told -------------------------------------------------------------------------------------------------------


def stamp(ns: int) -> str:
    """2026-02-05T09:36:47.412509Z, to the microsecond where it has one."""
    whole, rest = divmod(ns, 10**9)
    return datetime.fromtimestamp(whole, UTC).replace(microsecond=rest // 1000).isoformat().replace("+00:00", "Z")


def page_name(ns: int, underlying: str) -> str:
    """2026-02-05T093647.412Z-BTC: of files, in order of time."""
    whole, rest = divmod(ns, 10**9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H%M%S}.{rest // 10**6:03}Z-{underlying}"


def tenor(fitted: SurfaceFitted, days: float = 30.0) -> Tenor:
    """The surface at that constant maturity; NaN where it does not tell."""
    nan = float("nan")
    return next((told for told in fitted.tenors if told.days == days), Tenor(days, nan, nan, nan))


def line(study: Study) -> dict[str, Any]:
    """What is told of one surface, for JSON: shares of 1, errors in volatility points; NaN where there is none."""
    fitted, month = study.fitted, tenor(study.fitted)
    return {
        "timestamp": stamp(fitted.chain_utc_ns),
        "underlying": fitted.underlying,
        "expiries": len(study.quotes),
        "quotes": study.own.quotes,
        "rmse_vol_pts": study.own.rmse_vol_pts,
        "inside_bid_ask": study.own.share,
        "inside_bid_ask_left_out": study.left_out.share,
        "min_g": study.curves.min_g,
        "calendar_violations": study.own.calendars,
        "fallback_slices": study.fallbacks,
        "fit_ms": study.fit_ms,
        "butterfly_violations": study.own.butterflies,
        "why": fitted.why,
        "dropped": int(sum(gone.sum() for gone in study.dropped)),
        "mark_inside_bid_ask": study.mark.share,
        "mark_rmse_vol_pts": study.mark.rmse_vol_pts,
        "svi_inside_bid_ask": study.svi.share,
        "svi_rmse_vol_pts": study.svi.rmse_vol_pts,
        "svi_butterfly_violations": study.svi.butterflies if study.svi.quotes else None,
        "svi_calendar_violations": study.svi.calendars if study.svi.quotes else None,
        "svi_fit_ms": study.svi_ms,
        "atm_30d": month.atm,
        "risk_reversal_30d": month.risk_reversal,
        "butterfly_30d": month.butterfly,
        "page": page_name(fitted.chain_utc_ns, fitted.underlying) + ".html",
    }


class Told(NamedTuple):
    """What is kept of a Study: its line, and how each way of drawing did. Small, where a Study is not."""

    utc_ns: int
    line: dict[str, Any]
    own: Judged
    left_out: Judged
    mark: Judged
    svi: Judged


def told(study: Study) -> Told:
    return Told(study.fitted.chain_utc_ns, line(study), study.own, study.left_out, study.mark, study.svi)


def pooled(parts: Sequence[Judged]) -> Judged:
    """All of them as one."""
    counts = [part for part in parts if part.quotes]
    looked = [part for part in counts if part.butterflies >= 0]
    return Judged(
        sum(part.quotes for part in counts),
        sum(part.inside for part in counts),
        sum(part.known for part in counts),
        sum(part.squares for part in counts),
        sum(part.butterflies for part in looked) if looked else -1,
        sum(part.calendars for part in looked) if looked else -1,
    )


WAYS = {"own": "this surface", "mark": "the venue's mark", "svi": "SVI, unconstrained"}


class Row(NamedTuple):
    """All surfaces of one underlying, drawn one way; `worst` is the least share inside of a surface."""

    underlying: str
    way: str
    surfaces: int
    whole: Judged
    left_out: Judged
    worst: float
    ms: FloatArray


def summary(surfaces: Sequence[Told]) -> list[Row]:
    """Underlyings by name, of each what is this surface, then what stands beside it."""
    rows = []
    for underlying in sorted({each.line["underlying"] for each in surfaces}):
        of = [each for each in surfaces if each.line["underlying"] == underlying]
        for way, name in WAYS.items():
            judged = [part for each in of if (part := getattr(each, way)).quotes]
            if not judged:
                continue
            aside = pooled([each.left_out for each in of]) if way == "own" else Judged()
            field = {"own": "fit_ms", "svi": "svi_fit_ms"}.get(way)
            ms = np.array([each.line[field] for each in of]) if field else np.zeros(0)
            worst = min(part.share for part in judged)
            rows.append(Row(underlying, name, len(judged), pooled(judged), aside, worst, ms))
    return rows


def cells(row: Row) -> list[str]:
    """As a line of a table under `COLUMNS`."""

    def share(value: float, digits: int = 2) -> str:
        return "–" if value != value else f"{100.0 * value:.{digits}f} %"

    def count(value: int) -> str:
        return "–" if value < 0 else f"{value:,}"

    ms = [f"{v:,.0f}" for v in np.quantile(row.ms, (0.5, 0.99))] if len(row.ms) else ["–", "–"]
    whole = row.whole
    return [
        f"{row.underlying}: {row.way}",
        f"{row.surfaces:,}",
        f"{whole.quotes:,}",
        share(whole.share),
        share(row.worst, 1),
        share(row.left_out.share),
        f"{whole.rmse_vol_pts:.2f}",
        count(whole.butterflies),
        count(whole.calendars),
        *ms,
    ]


COLUMNS = (
    "", "surfaces", "quotes", "inside", "worst", "left out", "RMSE pts", "butterflies", "calendars", "ms p50", "ms p99",
)  # fmt: skip
