"""Cuts: each takes a wanted book and returns one inside its limit, rounded inward to whole lots.

They undo the change from the present that pushes into the limit first; what is then still over is a breach
made by prices, and positions themselves are shrunk. Where a limit is not known (so many times an equity that is
not) positions may only shrink. All lots are [M], of the rows of the Book.
"""

from collections.abc import Iterator

import numpy as np

from dea_daemon.domain.decisions import Licence
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.parameters import GuardParameters
from dea_daemon.guards.limits import Book

WHY = {
    "margin": "maintenance margin beyond max_margin_danger: positions of that pool come down",
    "instrument": "notional of one contract",
    "scenario": "loss in the worst scenario",
    "stress": "loss on one of history's worst days",
    "var": "loss of a day, one in a hundred",
    "es": "mean loss of the worst days",
    "net": "dollar delta of one underlying",
    "vega": "vega of one underlying",
    "gamma": "gamma of one underlying",
    "bucket_vega": "vega of one underlying within one expiry bucket",
    "bucket_basis": "basis of one underlying within one expiry bucket",
    "underlying": "sum of notionals on one underlying",
    "venue": "sum of notionals at one venue",
    "gross": "sum of notionals",
}


def by_licence(book: Book, lots: IntArray, licence: IntArray) -> IntArray:
    """Rows keep only the kind of change their licence [M] allows."""
    if (licence == Licence.ANYTHING).all():
        return lots
    held = book.held
    shrunk = _shrunk(held, lots)
    out = np.where(licence == Licence.NOTHING, held, np.where(licence == Licence.SHRINK_POSITION, shrunk, lots))
    hedging = licence == Licence.SHRINK_EXPOSURE
    if not hedging.any():
        return out
    for u, delta in enumerate(book.view.delta_usd.tolist()):
        rows = hedging & (book.underlying == u)
        x = book.delta
        against = rows & ~book.option & ((lots - held) * x * np.sign(delta) < 0)
        # Changes with the exposure may only close positions; changes against it may go as far as zero.
        out[rows & ~against] = shrunk[rows & ~against]
        worth = float(np.abs(x[against] * (lots - held)[against]).sum())
        share = min(1.0, abs(delta) / worth) if worth > 0.0 else 0.0
        out[against] = held[against] + _toward_zero((lots - held)[against], share)
    return out


def cuts(book: Book, lots: IntArray, licensed: BoolArray, params: GuardParameters) -> Iterator[tuple[str, IntArray]]:
    """(limit, lots) of each that changed something, in order: what each takes the next one starts from. Rows that
    are not `licensed` [M] stay as they are."""
    for limit, after in _each(book, lots, params):
        after = np.where(licensed, after, book.held)
        if (after != lots).any():
            lots[:] = after  # the next cut looks at it
            yield limit, after


def _each(book: Book, lots: IntArray, params: GuardParameters) -> Iterator[tuple[str, IntArray]]:
    """Every limit that the book at hand exceeds, with what it would leave. `lots` is changed between."""
    use = book.view.row_margin_use[book.rows]
    if (use > params.max_margin_danger).any():
        yield "margin", _to_margin(book, lots, use, params)
    if not (book.usd(lots) <= book.cap.instrument).all():
        yield "instrument", _to_instrument(book, lots)
    if book.losses and (lots != book.held).any():
        yield from _to_losses(book, lots)
    for at in np.flatnonzero(~(np.abs(_wanted(book, lots)) <= book.line_cap)):
        yield book.lines.limit[at], _to_line(book, lots, int(at))
    for at in np.flatnonzero(~(book.sums_usd(book.usd(lots)) <= book.sum_cap)):
        yield book.sums.limit[at], _to_sum(book, lots, int(at))


def _to_margin(book: Book, lots: IntArray, use: FloatArray, params: GuardParameters) -> IntArray:
    """A pool in danger: its positions come down alike, so that what hedges what still does, until the use that is
    allowed holds."""
    danger = use > params.max_margin_danger  # what is not known cuts nothing
    share = np.where(danger, params.max_margin_use / np.maximum(use, params.max_margin_danger), 1.0)
    goal = np.trunc(book.held * share).astype(np.int64)
    return np.where(danger, np.clip(lots, np.minimum(goal, 0), np.maximum(goal, 0)), lots)


def _to_instrument(book: Book, lots: IntArray) -> IntArray:
    """|notional| of each contract within its limit; an unpriced row stays where it is."""
    most = book.cap.instrument
    if np.isnan(most):
        return _shrunk(book.held, lots)
    with np.errstate(invalid="ignore", divide="ignore"):
        cap = np.floor(most / book.notional)
    known = np.isfinite(cap)
    cap = np.where(known, cap, 0.0).astype(np.int64)
    return np.where(known, np.clip(lots, -cap, cap), book.held)


def _to_losses(book: Book, lots: IntArray) -> Iterator[tuple[str, IntArray]]:
    """What would lose more than allowed, and more than now, keeps only the changes that shrink positions; where that
    gives up a hedge and still loses more, none. Where limit or loss cannot be told, positions may shrink."""
    if kind := _too_lossy(book, lots)[0]:
        yield kind, _shrunk(book.held, lots)
        kind, loss = _too_lossy(book, lots)
        if kind and np.isfinite(getattr(book.cap, kind)) and np.isfinite(loss):
            yield kind, book.held


def _too_lossy(book: Book, lots: IntArray) -> tuple[str, float]:
    """The first limit on losses that `lots` would exceed, and by more than now, with that loss; "" where none."""
    now = book.held_losses_usd
    for kind, then in book.losses_of(lots).items():
        if not (then <= getattr(book.cap, kind) or then <= now[kind]):
            return kind, then
    return "", 0.0


def _moved(book: Book, lots: IntArray, per_lot: FloatArray) -> FloatArray:
    """What the change from what is held adds, per line; a row that stays adds nothing, priced or not."""
    change = lots - book.held
    return np.asarray(np.where(change != 0, per_lot * change, 0.0).sum(axis=-1), dtype=np.float64)


def _wanted(book: Book, lots: IntArray) -> FloatArray:
    """[L] exposure to each line with `lots`."""
    return book.now + _moved(book, lots, book.per_lot)


def _to_line(book: Book, lots: IntArray, at: int) -> IntArray:
    """One linear exposure within its limit. Changes that push into it are undone; for net, what is held shrinks,
    too. Where it is unknown, what bears on it stays as it is."""
    x, held, most = book.per_lot[at], book.held, float(book.line_cap[at])
    if np.isnan(most):
        return _shrunk(held, lots)
    wanted = float(book.now[at] + _moved(book, lots, x))
    if not np.isfinite(wanted):
        return np.where(x != 0.0, held, lots)
    if abs(wanted) <= most:
        return lots
    net = book.lines.limit[at] == "net"
    shrinkable = ~book.option if net else np.zeros(len(lots), dtype=np.bool_)  # an option is not sold for its delta
    return _undo(held, lots, x, shrinkable, np.sign(wanted), abs(wanted) - most)


def _to_sum(book: Book, lots: IntArray, at: int) -> IntArray:
    """One group's sum of |notional| within its limit: growth is undone first, then all of it shrinks."""
    mine, held, most = book.member[at], book.held, float(book.sum_cap[at])
    if np.isnan(most):
        return np.where(mine, _shrunk(held, lots), lots)
    usd = np.where(mine & ((lots != 0) | (held != 0)), book.notional, 0.0)
    total = float(np.abs(lots) @ usd)
    if not np.isfinite(total):
        return np.where(mine, held, lots)
    if total <= most:
        return lots
    growth = np.maximum(np.abs(lots) - np.abs(held), 0) * usd
    share = max(0.0, 1.0 - (total - most) / growth.sum()) if growth.sum() > 0.0 else 0.0
    kept = np.where(growth > 0, held + _toward_zero(lots - held, share), lots)
    left = float(np.abs(kept) @ usd)
    return np.where(mine, _toward_zero(kept, most / left), kept) if left > most else kept


def _undo(
    held: IntArray, wanted: IntArray, x: FloatArray, hedges: BoolArray, sign: float, excess_usd: float
) -> IntArray:
    """Take `excess_usd` of exposure of `sign` out of a wanted book: its own change first, then what is held in
    `hedges`."""
    change = wanted - held
    pushing = change * x * sign > 0
    push = float(np.abs(x * change)[pushing].sum())
    share = max(0.0, 1.0 - excess_usd / push) if push > 0.0 else 0.0
    out = np.where(pushing, held + _toward_zero(change, share), wanted)
    rest = excess_usd - push
    if rest > 0.0:
        same = hedges & (out * x * sign > 0)
        worth = float(np.abs(x * out)[same].sum())
        if worth > 0.0:
            out = np.where(same, _toward_zero(out, max(0.0, 1.0 - rest / worth)), out)
    return out


def _shrunk(held: IntArray, lots: IntArray) -> IntArray:
    """Only the changes that bring a position nearer to flat, and none through it."""
    return np.clip(lots, np.minimum(held, 0), np.maximum(held, 0))


def _toward_zero(lots: IntArray, share: float) -> IntArray:
    """`share` of each count, rounded towards zero."""
    return np.asarray(np.trunc(lots * share), dtype=np.int64)
