"""Target → Permit: conditions first, then limits, each cutting inward and saying why."""

import numpy as np

from dea_daemon.domain.decisions import Clip, Licence, Permit, View
from dea_daemon.domain.instruments import BoolArray, IntArray
from dea_daemon.domain.parameters import GuardParameters
from dea_daemon.guards.conditions import (
    agreement,
    depegged,
    every,
    guessed,
    licences,
    may_rest,
    propose,
    unproved,
    unsurfaced,
)
from dea_daemon.guards.cuts import WHY, by_licence, cuts
from dea_daemon.guards.limits import Book, active, caps
from dea_daemon.guards.uses import uses


def guard(view: View, wanted_lots: IntArray, params: GuardParameters) -> Permit:
    """The book the limits allow. Further from the present than `wanted_lots` [N] only to end a breach."""
    prices, guesses = agreement(view, params), guessed(view)
    unpegged = depegged(view, params)
    mode, why = propose(view, unproved(view, prices.doubted, unpegged), params)
    book = Book(view, caps(view, params), active(view, wanted_lots != view.position_lots))
    suspect = view.quarantined | prices.off | prices.doubted | view.greeks_off | unpegged
    if np.count_nonzero(view.surface_doubt):
        suspect |= unsurfaced(view)
    breached = _breached(book)
    licence, reason = licences(view, mode, breached, suspect, guesses, params)
    wanted = wanted_lots[book.rows]
    # Nothing is wanted and nothing too much: there is nothing to cut.
    quiet = not breached and view.margin_use <= params.max_margin_danger and every(wanted == book.held)
    lots, clips = (wanted, ()) if quiet else _cut(book, wanted, licence, guesses, reason, params)
    permitted = view.position_lots.copy()
    permitted[book.rows] = lots
    return Permit(
        view=view,
        position_lots=permitted,
        licence=licence,
        urgent=_urgent(book, params),
        doubted=prices.doubted,
        resting=may_rest(view, params),
        mode=mode,
        mode_why=why,
        clips=clips,
        uses=uses(book, params),
    )


def _cut(
    book: Book, wanted: IntArray, licence: IntArray, guesses: BoolArray, reason: str, params: GuardParameters
) -> tuple[IntArray, tuple[Clip, ...]]:
    """What the licences and then each limit leave of `wanted` [M], and what they took."""
    clips: list[Clip] = []
    allowed = licence[book.rows]
    if np.count_nonzero(book.view.surface_doubt):
        least = np.where(unsurfaced(book.view)[book.rows], Licence.SHRINK_POSITION, Licence.ANYTHING)
        lots = by_licence(book, wanted, least)
        _tell(clips, book, "surface", wanted, lots, "no volatility surface to be relied upon: options only shrink")
        wanted = lots
    lots = by_licence(book, wanted, allowed)
    if np.count_nonzero(guesses):
        lots = np.where(_worsens_a_guess(book, lots, guesses), book.held, lots)
    _tell(clips, book, "licence", wanted, lots, reason or "stale, diverged, modelled, quarantined, shut or expired")
    before = lots.copy()
    for limit, after in cuts(book, lots, allowed > Licence.NOTHING, params):
        _tell(clips, book, limit, before, after, WHY[limit])
        before = after
    return lots, tuple(clips)


def _worsens_a_guess(book: Book, lots: IntArray, guesses: BoolArray) -> BoolArray:
    """[M] hedges whose change adds to a delta that rests on guessed Greeks, even by closing a position."""
    delta = np.sign(book.view.delta_usd)[book.underlying] * book.delta
    return np.asarray(guesses[book.rows] & ~book.option & ((lots - book.held) * delta > 0.0), dtype=np.bool_)


def _breached(book: Book) -> bool:
    """Whether any limit is broken by what is held right now, orders aside."""
    if not (every(np.abs(book.now) <= book.line_cap) and every(book.held_usd <= book.cap.instrument)):
        return True
    if not every(book.sums_usd(book.held_usd) <= book.sum_cap):
        return True
    if not book.losses:
        return False
    return not all(loss <= getattr(book.cap, kind) for kind, loss in book.held_losses_usd.items())


def _urgent(book: Book, params: GuardParameters) -> BoolArray:
    """[U] underlyings to be traded at once: beyond the net limit, or held in a pool whose margin is in danger."""
    view = book.view
    urgent = ~(np.abs(view.delta_usd) <= book.cap.net)
    if not view.margin_use <= params.max_margin_danger:
        endangered = (view.row_margin_use[book.rows] > params.max_margin_danger) & (book.held != 0)
        urgent[book.underlying[endangered]] = True
    return urgent


def _tell(clips: list[Clip], book: Book, limit: str, before: IntArray, after: IntArray, why: str) -> None:
    """One Clip a row that a limit changed."""
    changed = before != after
    if not changed.any():
        return
    names = book.view.universe.instruments
    clips.extend(
        Clip(limit, names[book.rows[m]].name, float(before[m]), float(after[m]), why) for m in np.flatnonzero(changed)
    )
