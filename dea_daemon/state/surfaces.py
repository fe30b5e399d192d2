"""Volatility surfaces in the core: when one is asked for, which is relied upon, and what it says of each option.

A surface is fitted aside, to the fresh quotes of one tick (`FitSurface`), and comes back as an event
(`SurfaceFitted`); its age is that of the question, on the receipt clock. One is relied upon from then on, until it is
too old, its successor is overdue, was not published or jumped, or the quotes of the moment contradict it. Where one
should be and is not relied upon, an underlying is in doubt.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dea_daemon.domain.commands import FitSurface
from dea_daemon.domain.decisions import View
from dea_daemon.domain.events import SurfaceFitted
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray, Universe
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_MS, NS_PER_S
from dea_daemon.domain.parameters import PricingParameters, SurfaceParameters
from dea_daemon.domain.surfaces import TENOR_DAYS, Chain
from dea_daemon.pricing.exposure import term_weight
from dea_daemon.pricing.surface.surface import Looked, Surface
from dea_daemon.pricing.surface.tenors import terms
from dea_daemon.state.effects import Effects
from dea_daemon.state.windows import NEVER

if TYPE_CHECKING:
    from dea_daemon.state.market import Market

NAN = float("nan")
LEAST_QUOTES = 5  # with both sides: fewer are no surface
QUESTIONS = 16  # that are remembered of an underlying: an answer to an older one is none
NONE_YET = "none yet"
CONTRADICTED = "contradicted: by the quotes of the moment"

# What a surface usually does, in logarithm of volatility at the money; of a risk reversal, in volatility, half of it.
USUAL = 0.02  # in a minute, before any was seen: a volatility point at 50 %
NOISE = 0.002  # between two fits of one market
SCALE = np.array([1.0, 0.5])
MEMORY_MIN = 60.0
LEARNT_SD = 3.0  # a change beyond counts as that many deviations in what is usual
CONTRADICTING, SHARE = 3, 0.25  # quotes, and of all there are: so many off by a whole spread are the market's word


class Question(NamedTuple):
    """When a surface was asked for, by both clocks, and the index then."""

    utc_ns: int
    asked_ns: int
    price: float


class Surfaces:
    """Of each underlying [U]: `fitted` the last published, `surface` made from it, `why` it is not relied upon (""
    where it is, or none is wanted), `jump_z` by how many usual deviations it differed from the one before (NaN: there
    was nothing to compare it with). `doubt` [U]: options are followed, and no surface is relied upon. `smile` [U,
    TENOR_DAYS, 3] as in a View. `refused` counts those not published."""

    def __init__(self, underlyings: tuple[str, ...]) -> None:
        self.underlyings = underlyings
        self.refused = 0
        self._forget()

    def _forget(self) -> None:
        n = len(self.underlyings)
        self.fitted: list[SurfaceFitted | None] = [None] * n
        self.surface: list[Surface | None] = [None] * n
        self.why = [""] * n
        self.jump_z: FloatArray = np.full(n, np.nan)
        self.doubt: BoolArray = np.zeros(n, dtype=np.bool_)
        self.followed: BoolArray = np.zeros(n, dtype=np.bool_)
        self.smile: FloatArray = np.full((n, len(TENOR_DAYS), 3), np.nan)
        self._of: list[Question | None] = [None] * n  # what the published one answers
        self._asked: list[Question | None] = [None] * n
        self._open: list[dict[int, Question]] = [{} for _ in range(n)]  # by utc_ns, which an answer repeats
        self._answered_ns = [NEVER] * n  # when the youngest question was asked that has its answer
        self._gated = [""] * n
        self._jumped = [0.0] * n  # by so many deviations, which nothing has confirmed or undone yet
        self._contradicted = [False] * n
        self._mute_ns: list[int | None] = [None] * n  # since when there are too few quotes to ask with
        self._points: FloatArray = self.smile.copy()  # of the published ones, relied upon or not
        self._variance: FloatArray = np.full((n, 2), USUAL**2)  # of changes at 30 days, per minute
        self._told = [NONE_YET] * n
        self._met: list[Surface | None] = [None] * n  # that the quotes of a whole tick were held against
        self._looked = Looked(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.bool_))  # [N]
        self._looked_by: list[Surface | None] = [None] * n

    # --- asking ----------------------------------------------------------------------------------

    def ask(self, market: "Market", view: View, effects: Effects) -> None:
        """A command for each surface that is due, with the quotes as they stand in `view`'s tick."""
        params = market.params.pricing
        for u in np.flatnonzero(self.followed).tolist():
            question = Question(view.utc_ns, view.now_ns, float(view.underlying_price[u]))
            if not self._due(u, question, params.surface):
                continue
            chain = chain_of(market, view, u, params.settlement_window_s)
            if chain is None:
                self._mute_ns[u] = self._mute_ns[u] or view.now_ns
                continue
            self._mute_ns[u] = None
            self._asked[u] = self._open[u][question.utc_ns] = question
            if len(self._open[u]) > QUESTIONS:
                del self._open[u][next(iter(self._open[u]))]
            effects.commands.append(FitSurface(chain, params.max_iv_spread))

    def _due(self, u: int, now: Question, params: SurfaceParameters) -> bool:
        """At its cadence, sooner after a move or where quotes contradict it, later while the last answer is awaited."""
        if not np.isfinite(now.price):
            return False
        last = self._asked[u]
        if last is None:
            return True
        since_s = (now.asked_ns - last.asked_ns) / NS_PER_S
        if last.utc_ns in self._open[u]:
            return since_s >= params.answer_s
        moved = self._contradicted[u] or abs(now.price / last.price - 1.0) >= params.move
        return since_s >= (params.at_most_every_s if moved else max(params.every_s, params.at_most_every_s))

    # --- answers ---------------------------------------------------------------------------------

    def fold(self, event: SurfaceFitted, params: SurfaceParameters) -> None:
        """Publish, or remember why not. What nobody asked for, came too late or was overtaken is no answer."""
        if event.underlying not in self.underlyings:
            return
        u = self.underlyings.index(event.underlying)
        question = self._open[u].pop(event.chain_utc_ns, None)
        if question is None or question.asked_ns < self._answered_ns[u]:
            return
        if event.ts_recv_ns - question.asked_ns > params.stale_s * NS_PER_S:
            return
        self._answered_ns[u] = question.asked_ns
        self._gated[u] = event.why or _flaw(event)
        if self._gated[u]:
            self.refused += 1
            return
        surface = Surface(event.chain_utc_ns, event.scale, event.smiles)
        z = self._compare(u, surface, question)
        # Where nothing can be compared, neither has a jump been undone.
        self._jumped[u] = self._jumped[u] if np.isnan(z) else z * (z > params.jump_z)
        self.jump_z[u], self._contradicted[u] = z, False
        self.fitted[u], self._of[u], self._points[u], self.surface[u] = event, question, _points(event), surface

    def _compare(self, u: int, surface: Surface, question: Question) -> float:
        """How many usual deviations the largest change is from the last published one, which teaches what is usual.

        Of every expiry both know: volatility at the money and risk reversal. The nearer an expiry, the more they move
        (`term_weight`). Their variance grows with the time between; the index's own move is allowed for once, as if
        volatility moved as much: a crude bound, not a model. NaN where they know none in common.
        """
        last, before = self._of[u], self.surface[u]
        if last is None or before is None:
            return NAN
        common = np.intersect1d(before.expiry_ns[before.told], surface.expiry_ns[surface.told])
        if not len(common):
            return NAN
        minutes = max(question.asked_ns - last.asked_ns, NS_PER_S) / (60.0 * NS_PER_S)
        old, new = terms(before, common), terms(surface, common)
        weight = np.maximum(term_weight((common - surface.utc_ns) / NS_PER_DAY), 1.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            at_money = np.log(new[:, 0] / old[:, 0])
        change = np.column_stack((at_money, new[:, 1] - old[:, 1])) / SCALE / weight[:, None]
        explained = NOISE**2 + np.log(question.price / last.price) ** 2
        usual = explained + self._variance[u] * minutes
        z = np.abs(change) / np.sqrt(usual)
        if not np.isfinite(z).all():
            return float("inf")
        seen = np.maximum(np.minimum(z, LEARNT_SD) ** 2 * usual - explained, 0.0).mean(axis=0) / minutes
        self._variance[u] += -np.expm1(-minutes / MEMORY_MIN) * (seen - self._variance[u])
        return float(z.max())

    # --- reading ---------------------------------------------------------------------------------

    def judge(self, universe: Universe, now_ns: int, utc_ns: int, params: PricingParameters, effects: Effects) -> None:
        """A tick begins: whose options are followed, which surfaces are relied upon; a note where that changed."""
        if not universe.any_option:
            return
        if not params.surface.enabled:
            if self.followed.any():
                self._forget()
            return
        live = universe.option & (universe.expiry_ns > utc_ns)
        self.followed = np.bincount(universe.underlying[live], minlength=len(self.underlyings)) > 0
        self.smile = self._points.copy()
        for u, followed in enumerate(self.followed.tolist()):
            self.why[u] = self._why(u, now_ns, params.surface) if followed else ""
            if self.why[u] or not followed:
                self.smile[u] = np.nan
            self._tell(u, effects)
        self.doubt = np.array([why != "" for why in self.why])

    def contradict(self, u: int) -> None:
        """The quotes of this tick are not the surface's any more: no surface until the next."""
        self._contradicted[u] = True
        self.why[u], self.doubt[u], self.smile[u] = CONTRADICTED, True, np.nan

    def _why(self, u: int, now_ns: int, params: SurfaceParameters) -> str:
        age_ns = self._age_ns(u, now_ns)
        mute_ns = self._mute_ns[u]
        silent_s, mute_s = self._silent_s(u, now_ns), 0.0 if mute_ns is None else (now_ns - mute_ns) / NS_PER_S
        if self._of[u] is not None and not age_ns <= params.stale_s * NS_PER_S:
            return f"stale: {age_ns / NS_PER_S:.0f} s"
        if self._gated[u]:
            return f"not published: {self._gated[u]}"
        if mute_s > (0.0 if self._of[u] is None else params.answer_s):
            return f"too few quotes: {mute_s:.0f} s"
        if silent_s > params.answer_s:
            return f"no answer: {silent_s:.0f} s"
        if self._of[u] is None:
            return NONE_YET
        if self._contradicted[u]:
            return CONTRADICTED
        return f"jumped: {self._jumped[u]:.0f} deviations" if self._jumped[u] else ""

    def _silent_s(self, u: int, now_ns: int) -> float:
        """How long the first question waits for an answer, those left aside that a younger one's has overtaken."""
        waiting = [each.asked_ns for each in self._open[u].values() if each.asked_ns > self._answered_ns[u]]
        return (now_ns - min(waiting)) / NS_PER_S if waiting else 0.0

    def _age_ns(self, u: int, now_ns: int) -> int:
        """Of the question that the published one answers; very old where there is none."""
        question = self._of[u]
        return now_ns - (NEVER if question is None else question.asked_ns)

    def _tell(self, u: int, effects: Effects) -> None:
        """One note when the kind of doubt changes; that there is none yet, at the start, is no news. After a
        contradiction nothing is trusted before it met the quotes of a tick."""
        now = self.why[u].partition(":")[0] if self.followed[u] else NONE_YET
        before, met = self._told[u], self._met[u] is self.surface[u]
        self._met[u] = self.surface[u]
        if not (now or met) and before == CONTRADICTED.partition(":")[0]:
            return
        self._told[u] = now
        if now in (before, NONE_YET):
            return
        if now:
            effects.note("surface.doubted", underlying=self.underlyings[u], why=self.why[u])
        else:
            effects.note("surface.trusted", underlying=self.underlyings[u])

    def look_up(
        self, universe: Universe, forward: FloatArray, rows: IntArray, now_ns: int, params: PricingParameters
    ) -> Looked | None:
        """Of options `rows` [M], `known` where a surface relied upon is; volatility NaN where there is none, or it is
        not relied upon and older than `keep_iv_s`. None where no row has one. `forward` [N].

        Between two fits an option keeps its volatility (`smile_delta: black`), or the smile moves with its forward
        (`sticky_moneyness`). What keeps is looked up once a fit.
        """
        keep_ns = params.keep_iv_s * NS_PER_S
        kept = [self._age_ns(u, now_ns) <= keep_ns for u in range(len(self.underlyings))]
        relied = self.followed & ~self.doubt
        usable = relied | np.array(kept)
        if not usable.any():
            return None
        self._refresh(universe, forward, params.smile_delta == "sticky_moneyness")
        u = universe.underlying[rows]
        found = self._looked
        return Looked(np.where(usable[u], found.iv[rows], np.nan), found.slope[rows], found.known[rows] & relied[u])

    def _refresh(self, universe: Universe, forward: FloatArray, moving: bool) -> None:
        """Look up every option anew whose surface is new, or moves; all of them if rows joined."""
        n = len(universe)
        if len(self._looked.iv) < n:
            self._looked = Looked(np.full(n, np.nan), np.zeros(n), np.zeros(n, dtype=np.bool_))
            self._looked_by = [None] * len(self.underlyings)
        for u, surface in enumerate(self.surface):
            if surface is None or surface is self._looked_by[u]:
                continue
            self._looked_by[u] = None if moving else surface
            rows = np.flatnonzero(universe.option & (universe.underlying == u))
            expiry_ns, now = universe.expiry_ns[rows], forward[rows]
            if not moving:  # an expiry without a forward of its own, then: the one it has now
                then = np.interp(expiry_ns, surface.expiry_ns, surface.forward)
                now = np.where(np.isfinite(then), then, now)
            with np.errstate(invalid="ignore", divide="ignore"):
                k = np.log(universe.strike[rows] / now)
            placed = np.isfinite(k)
            found = surface.look_up(expiry_ns, np.where(placed, k, 0.0))
            iv, slope, known = self._looked
            iv[rows], slope[rows] = np.where(placed, found.iv, np.nan), found.slope
            known[rows] = found.known & placed & np.isfinite(found.iv)


def chain_of(market: "Market", view: View, u: int, window_s: float) -> Chain | None:
    """The fresh quotes of all live options on one underlying, in USD; None where too few have both sides. Contracts
    about to settle are left out: what their average still holds is no matter of volatility. An older quote is no
    volatility either: a coin price of before a move means another one at the forward of now."""
    universe, heard_ns = market.universe, market.quote_ns
    live = universe.option & (universe.underlying == u)
    live &= universe.expiry_ns - view.utc_ns > 2.0 * window_s * NS_PER_S
    stale_ns = market.params.state.stale_option_ms * NS_PER_MS
    rows = np.flatnonzero(live & (view.now_ns - heard_ns <= stale_ns) & np.isfinite(view.forward_price))
    bid, ask = view.bid_price[rows], view.ask_price[rows]
    bids, asks = bid > 0.0, (ask > 0.0) & np.isfinite(ask)
    if np.count_nonzero(bids & asks) < LEAST_QUOTES:
        return None
    forward = view.forward_price[rows]
    unit = np.where(universe.coin_quoted[rows], forward, 1.0)
    columns = (
        universe.expiry_ns[rows],
        forward,
        universe.strike[rows],
        universe.call[rows],
        np.where(bids, bid * unit, 0.0),
        np.where(asks, ask * unit, np.nan),
        universe.tick_size[rows] * unit,
        (view.now_ns - heard_ns[rows]) / NS_PER_S,
    )
    expiries = tuple(np.unique(universe.expiry_ns[live]).tolist())
    return Chain(universe.underlyings[u], view.utc_ns, expiries, *(tuple(column.tolist()) for column in columns))


def _points(event: SurfaceFitted) -> FloatArray:
    """[TENOR_DAYS, 3] volatility at the money, risk reversal, butterfly; NaN where not told."""
    told = {tenor.days: (tenor.atm, tenor.risk_reversal, tenor.butterfly) for tenor in event.tenors}
    return np.array([told.get(days, (NAN, NAN, NAN)) for days in TENOR_DAYS])


def _flaw(event: SurfaceFitted) -> str:
    """Why what was published is no surface, or "": whoever fits it is another process."""
    if not event.smiles:
        return "no smile"
    variance = np.array([smile.variance for smile in event.smiles])
    late = all(smile.expiry_ns > event.chain_utc_ns for smile in event.smiles)
    return "" if late and bool(((variance > 0.0) & (variance < np.inf)).all()) else "a variance is none"
