"""May it trade at all? Conditions of inputs, records and mode, before any limit is measured."""

import numpy as np

from dea_daemon.domain.decisions import Licence, View
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_MS
from dea_daemon.domain.parameters import GuardParameters
from dea_daemon.guards.limits import daily_loss, drawdown

BASIS_ROOM = 25.0  # a future of a year may be off its index by so many times max_index_divergence
YEAR_NS = DAYS_PER_YEAR * NS_PER_DAY


def propose(view: View, doubted: BoolArray, params: GuardParameters) -> tuple[Mode, str]:
    """The mode the guards want, with its reason. Only an operator leads back towards normal, so prices that
    contradict each other prove no loss."""
    lost, today = drawdown(view), daily_loss(view)
    if doubted.any():
        return view.mode, ""
    halt_at, reduce_at = params.halt_daily_loss, params.max_daily_loss
    if halt_at is not None and view.ready and view.mode is not Mode.HALTED and today > halt_at:
        return Mode.HALTED, f"loss of the day {today:.1%} beyond {halt_at:.1%}"
    if reduce_at is not None and view.mode < Mode.REDUCE_ONLY and view.ready and today > reduce_at:
        return Mode.REDUCE_ONLY, f"loss of the day {today:.1%} beyond {reduce_at:.1%}"
    if view.mode < Mode.REDUCE_ONLY and view.ready and lost > params.max_drawdown:
        return Mode.REDUCE_ONLY, f"drawdown {lost:.1%} beyond {params.max_drawdown:.1%}"
    return view.mode, ""


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
    return ""


def bound(view: View, mode: Mode, breached: BoolArray, params: GuardParameters) -> str:
    """Why exposure may not grow though all is known, or ""."""
    if mode is not Mode.NORMAL:
        return mode.name.lower().replace("_", "-")
    if not drawdown(view) <= params.max_drawdown:
        return "drawdown"
    if not view.margin_use <= params.max_margin_use:
        return f"maintenance margin is {view.margin_use:.0%} of a pool's equity"
    return "a limit is breached" if breached.any() else ""


def diverged(view: View, params: GuardParameters) -> BoolArray:
    """[N] a fresh mark that its own book or an index contradicts. A mark anywhere between bid and ask agrees with
    its book, however wide; a dated future may have a basis. An option's mark moves in ticks that are large beside
    it, so it has the room of its collar; its forward stands for it beside the index."""
    universe, mark = view.universe, view.mark_price
    off = np.where(universe.option, params.option_collar, params.max_index_divergence)
    tick = np.where(universe.option, 2.0 * universe.tick_size, 0.0)
    # Without a bid no book contradicts a low mark, nor confirms it: such an option may be bought back, no more.
    beside_book = ~((mark >= view.bid_price * (1.0 - off) - tick) & (mark <= view.ask_price * (1.0 + off) + tick))
    beside_book |= ~(view.bid_price > 0.0)
    own_index = _beside(_level(view), view.index_price, _tolerance(view, params))
    return np.asarray(view.fresh & (beside_book | own_index | _beside_shared_index(view, params)), dtype=np.bool_)


def in_doubt(view: View, off: BoolArray, params: GuardParameters) -> BoolArray:
    """[N] rows whose underlying's delta may be measured wrongly, so that nothing may be hedged by it: a contract
    that is held diverged, or a mark and the index they all share contradict each other (which is false cannot
    be told). What is held counts in the delta whether its book is fresh or not. `off` [N] is `diverged`.

    An option's own mark does not enter its delta; its forward does, and is compared like any mark.
    """
    held = (view.position_lots != 0) | (view.working_buy_lots != 0) | (view.working_sell_lots != 0)
    beside = _beside_shared_index(view, params)
    false = (off & ((held & ~view.universe.option) | beside)) | (held & beside)
    return _whole_underlying(view, false)


def _whole_underlying(view: View, rows: BoolArray) -> BoolArray:
    """[N] all rows of the underlyings that any of these belongs to."""
    concerned = np.zeros(len(view.universe.underlyings), dtype=np.bool_)
    concerned[view.universe.underlying[rows]] = True
    return concerned[view.universe.underlying]


def _level(view: View) -> FloatArray:
    """[N] what of a contract can be compared with an index."""
    return np.where(view.universe.option, view.forward_price, view.mark_price)


def _beside_shared_index(view: View, params: GuardParameters) -> BoolArray:
    ended = (view.universe.expiry_ns > 0) & (view.universe.expiry_ns <= view.utc_ns)
    beside = _beside(_level(view), view.underlying_price[view.universe.underlying], _tolerance(view, params))
    return beside & ~ended


def _tolerance(view: View, params: GuardParameters) -> FloatArray:
    """[N] how far a mark may be from an index, as a fraction: the further a contract's end, the more basis."""
    years = np.clip((view.universe.expiry_ns - view.utc_ns) / YEAR_NS, 0.0, 1.0)  # 0 for what never ends
    return np.asarray(params.max_index_divergence * (1.0 + (BASIS_ROOM - 1.0) * np.sqrt(years)), dtype=np.float64)


def _beside(mark: FloatArray, index: FloatArray, tolerance: FloatArray) -> BoolArray:
    return np.asarray(np.isfinite(index) & ~(np.abs(mark / index - 1.0) <= tolerance), dtype=np.bool_)


def guessed(view: View) -> BoolArray:
    """[N] rows of underlyings with a held option whose Greeks are not the venue's fresh word, or contradict it:
    what is hedged by them may only come down."""
    held = (view.position_lots != 0) & (view.modelled | view.greeks_off)
    return _whole_underlying(view, held)


def licences(
    view: View, mode: Mode, breached: BoolArray, suspect: BoolArray, params: GuardParameters
) -> tuple[IntArray, str]:
    """Licence [N] and the reason for the book-wide part of it. `suspect` [N] rows may only shrink."""
    universe = view.universe
    if why := stopped(view):
        return np.full(len(universe), Licence.NOTHING, dtype=np.int64), why
    level, why = Licence.ANYTHING, ""
    if mode is Mode.FLATTENING or (why := blind(view, params)):
        level, why = Licence.SHRINK_POSITION, why or "flattening"
    elif why := bound(view, mode, breached, params):
        level = Licence.SHRINK_EXPOSURE
    licence = np.full(len(universe), level, dtype=np.int64)
    guesses = guessed(view)
    licence[guesses] = np.minimum(licence[guesses], Licence.SHRINK_EXPOSURE)
    licence[suspect] = np.minimum(licence[suspect], Licence.SHRINK_POSITION)
    alive = (universe.expiry_ns == 0) | (universe.expiry_ns > view.utc_ns)
    licence[~(universe.tradable & view.fresh & alive)] = Licence.NOTHING
    return licence, why
