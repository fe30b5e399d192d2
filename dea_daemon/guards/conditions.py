"""May it trade at all? Conditions of inputs, records and mode, before any limit is measured."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.decisions import Licence, View
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray, Universe
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_MS, NS_PER_S
from dea_daemon.domain.parameters import GuardParameters

BASIS_ROOM = 25.0  # a future of a year may be off its index by so many times max_index_divergence
YEAR_NS = DAYS_PER_YEAR * NS_PER_DAY
_MINUTE_NS = 60 * NS_PER_S


def daily_loss(view: View) -> float:
    """Fraction of the day's first equity lost; 0 before there is one, NaN where equity is unknown."""
    return 1.0 - view.equity_usd / view.day_equity_usd if view.day_equity_usd > 0.0 else 0.0


def drawdown(view: View) -> float:
    """Fraction of the peak lost; 0 before there is a peak, NaN where equity is unknown."""
    return 1.0 - view.equity_usd / view.peak_equity_usd if view.peak_equity_usd > 0.0 else 0.0


def propose(view: View, disproved: bool, params: GuardParameters) -> tuple[Mode, str]:
    """The mode the guards want, with its reason: the first of a halt, flattening and reduce-only that a loss asks
    for and that is more than the present one. Only an operator leads back towards normal, so where prices contradict
    each other, or a stablecoin is off its peg (`disproved`), no loss is proved."""
    if not view.ready or disproved:
        return view.mode, ""
    today, lost = daily_loss(view), drawdown(view)
    for mode, of_day, of_peak in (
        (Mode.HALTED, params.halt_daily_loss, params.halt_drawdown),
        (Mode.FLATTENING, params.flatten_daily_loss, params.flatten_drawdown),
        (Mode.REDUCE_ONLY, params.max_daily_loss, params.max_drawdown),
    ):
        if not _stricter(mode, view.mode):
            continue
        if of_day is not None and today > of_day:
            return mode, f"loss of the day {today:.1%} beyond {of_day:.1%}"
        if of_peak is not None and lost > of_peak:
            return mode, f"drawdown {lost:.1%} beyond {of_peak:.1%}"
    return view.mode, ""


def _stricter(wanted: Mode, now: Mode) -> bool:
    """A pause is the operator's, and ends where it began: only a halt is more."""
    order = (Mode.NORMAL, Mode.REDUCE_ONLY, Mode.FLATTENING, Mode.PAUSED, Mode.HALTED)
    return order.index(wanted) > order.index(now)


def stopped(view: View) -> str:
    """Why nothing may be sent, or "". Cancels and questions are not concerned."""
    if not view.ready:
        return "account not reconciled yet"
    if not view.recording:
        return "the ledger refuses writes"
    if view.mode in (Mode.HALTED, Mode.PAUSED):
        return view.mode.name.lower()
    if view.draining:
        return "draining"
    return ""


def blind(view: View, params: GuardParameters) -> str:
    """Why our own account cannot be relied upon, or "": then only positions may shrink."""
    if not view.account_fresh:
        return "account stream or report is stale"
    if view.outside:
        return f"positions in contracts that are not configured: {', '.join(view.outside)}"
    if not np.isfinite(view.equity_usd):
        return "equity is unknown"
    if not view.equity_usd > 0.0:
        return "no equity"
    if not np.isfinite(view.delta_usd).all():
        return "exposure is unknown"
    if not abs(view.clock_step_ns) <= params.max_clock_step_ms * NS_PER_MS:
        return "the wall clock stepped"
    if not view.margin_use <= params.max_margin_danger:
        return f"maintenance margin is {view.margin_use:.0%} of a pool's equity"
    if not view.watched:
        return "no watchdog: nobody would cancel our orders"
    return ""


def bound(view: View, mode: Mode, breached: bool, params: GuardParameters) -> str:
    """Why exposure may not grow though all is known, or ""."""
    if mode is not Mode.NORMAL:
        return mode.name.lower().replace("_", "-")
    if not drawdown(view) <= params.max_drawdown:
        return "drawdown"
    if not view.margin_use <= params.max_margin_use:
        return f"maintenance margin is {view.margin_use:.0%} of a pool's equity"
    least = params.min_liquidation_distance
    if least is not None and not view.liquidation_distance >= least:
        return f"a move of {view.liquidation_distance:.1%} would liquidate a pool"
    return "a limit is breached" if breached else ""


def every(true: BoolArray) -> bool:
    """Whether all of them are: as `all()`, which takes several times as long for so few."""
    return int(np.count_nonzero(true)) == true.size


def in_use(view: View) -> BoolArray:
    """[N] rows that are held, or have orders in flight."""
    return np.asarray((view.position_lots != 0) | (view.working_buy_lots != 0) | (view.working_sell_lots != 0))


class Agreement(NamedTuple):
    """off [N]: fresh marks that their own book or an index contradicts. doubted [N]: rows whose underlying's delta
    may be measured wrongly, so that nothing may be hedged by it."""

    off: BoolArray
    doubted: BoolArray


def agreement(view: View, params: GuardParameters) -> Agreement:
    """Do prices agree with each other?

    A mark anywhere between bid and ask agrees with its book, however wide; a dated future may have a basis. An
    option's mark moves in ticks that are large beside it, so it has the room of its collar; its forward stands for it
    beside the index. An underlying is in doubt where a contract that is held diverged, or a mark and the index they
    all share contradict each other (which is false cannot be told); what is held counts in the delta whether its book
    is fresh or not. An option's own mark does not enter its delta; its forward does, and is compared like any mark.
    """
    universe = view.universe
    rooms = _rooms(universe, len(universe), params.option_collar, params.max_index_divergence)
    bid, mark = view.bid_price, view.mark_price
    # Without a bid no book contradicts a low mark, nor confirms it: such an option may be bought back, no more.
    inside = (
        (mark >= bid * rooms.below - rooms.tick) & (mark <= view.ask_price * rooms.above + rooms.tick) & (bid > 0.0)
    )
    level = np.where(universe.option, view.forward_price, mark) if universe.any_option else mark
    index = np.empty((2, len(universe)))
    index[0], index[1] = view.underlying_price[universe.underlying], view.index_price
    minute = view.utc_ns // _MINUTE_NS if universe.series_count else 0  # where nothing ends, no time matters
    tolerance = _tolerance(universe, len(universe), minute, params.max_index_divergence)
    shared, own = np.isfinite(index) & ~(np.abs(level / index - 1.0) <= tolerance)
    off = view.fresh & ~(inside & ~own)
    if np.count_nonzero(shared):
        shared &= alive(view)
        off |= view.fresh & shared
    if not (np.count_nonzero(off) or np.count_nonzero(shared)):  # several times faster than any(), of so few
        return Agreement(off, off)
    held = in_use(view)
    false = (off & ((held & ~universe.option) | shared)) | (held & shared)
    return Agreement(off, _whole_underlying(view, false))


class _Rooms(NamedTuple):
    """How far a mark may be outside its book [N]: factors of bid and ask, and ticks."""

    below: FloatArray
    above: FloatArray
    tick: FloatArray


@lru_cache(maxsize=4)
def _rooms(universe: Universe, rows: int, option_collar: float, divergence: float) -> _Rooms:
    """`rows`: a universe grows."""
    room = np.where(universe.option, option_collar, divergence)
    return _Rooms(1.0 - room, 1.0 + room, np.where(universe.option, 2.0 * universe.tick_size, 0.0))


@lru_cache(maxsize=4)
def _tolerance(universe: Universe, rows: int, minute: int, divergence: float) -> FloatArray:
    """[N] how far a mark may be from an index, as a fraction: the further a contract's end, the more basis."""
    years = np.clip((universe.expiry_ns - minute * _MINUTE_NS) / YEAR_NS, 0.0, 1.0)  # 0 for what never ends
    return np.asarray(divergence * (1.0 + (BASIS_ROOM - 1.0) * np.sqrt(years)), dtype=np.float64)


def alive(view: View) -> BoolArray:
    """[N] contracts that have not ended."""
    expiry_ns = view.universe.expiry_ns
    return np.asarray((expiry_ns == 0) | (expiry_ns > view.utc_ns), dtype=np.bool_)


def _whole_underlying(view: View, rows: BoolArray) -> BoolArray:
    """[N] all rows of the underlyings that any of these belongs to."""
    if not np.count_nonzero(rows):
        return rows
    concerned = np.zeros(len(view.universe.underlyings), dtype=np.bool_)
    concerned[view.universe.underlying[rows]] = True
    return concerned[view.universe.underlying]


def depegged(view: View, params: GuardParameters) -> BoolArray:
    """[N] rows that settle in a stablecoin which is none at the moment."""
    return np.asarray(~(np.abs(view.peg - 1.0) <= params.max_depeg), dtype=np.bool_)


def unproved(view: View, doubted: BoolArray, unpegged: BoolArray) -> bool:
    """Whether a loss may be none: prices of something contradict each other, or money of ours, or what we hold, is in
    a stablecoin off its peg."""
    if np.count_nonzero(doubted):
        return True
    if not np.count_nonzero(unpegged):
        return False
    if (unpegged & in_use(view)).any():
        return True
    off = {view.universe.settle_currencies[c] for c in view.universe.settle_currency[unpegged].tolist()}
    names, usd = view.factors.names, view.exposure_usd
    return any(usd[names.index(f"cash:{c}")] != 0.0 for c in off if f"cash:{c}" in names)


def guessed(view: View) -> BoolArray:
    """[N] rows of underlyings with a held option whose Greeks are not the venue's fresh word, or contradict it:
    what is hedged by them may only come down."""
    return _whole_underlying(view, (view.position_lots != 0) & (view.modelled | view.greeks_off))


def unsurfaced(view: View) -> BoolArray:
    """[N] options on underlyings whose volatility surface is not to be relied upon: no new vega, and delta is hedged
    by what is no option."""
    return np.asarray(view.universe.option & view.surface_doubt[view.universe.underlying])


def licences(
    view: View, mode: Mode, breached: bool, suspect: BoolArray, guesses: BoolArray, params: GuardParameters
) -> tuple[IntArray, str]:
    """Licence [N] and the reason for the book-wide part of it. `suspect` [N] rows may only shrink, `guesses` [N] only
    reduce exposure."""
    universe = view.universe
    if why := stopped(view):
        return np.full(len(universe), Licence.NOTHING, dtype=np.int64), why
    level, why = Licence.ANYTHING, ""
    if mode is Mode.FLATTENING or (why := blind(view, params)):
        level, why = Licence.SHRINK_POSITION, why or "flattening"
    elif why := bound(view, mode, breached, params):
        level = Licence.SHRINK_EXPOSURE
    licence = np.empty(len(universe), dtype=np.int64)
    licence.fill(level)
    if np.count_nonzero(guesses):
        licence[guesses] = min(level, Licence.SHRINK_EXPOSURE)
    licence[suspect] = min(level, Licence.SHRINK_POSITION)
    licence[~(universe.tradable & view.fresh & alive(view) & ~view.shut)] = Licence.NOTHING
    return licence, why


def may_rest(view: View, params: GuardParameters) -> bool:
    """Whether orders may be left in the book: not where nearly all are taken back again."""
    return params.max_cancel_ratio is None or not cancel_ratio(view) > params.max_cancel_ratio


def cancel_ratio(view: View) -> float:
    """Cancels per order of the last hour; 0 while there were too few to tell."""
    return view.cancels_last_hour / view.creates_last_hour if view.creates_last_hour >= 50 else 0.0
