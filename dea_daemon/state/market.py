"""What the venues say: books, quotes, marks, indices, funding, and which of it is still to be believed."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dea_daemon.domain.commands import Resubscribe
from dea_daemon.domain.events import (
    AnyEvent,
    BookDelta,
    BookSnapshot,
    FeedAlive,
    FeedClosed,
    FeedOpened,
    IndexUpdated,
    MarkUpdated,
    MessageRefused,
    QuoteUpdated,
    TradePrinted,
)
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray, Universe
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.domain.parameters import Parameters
from dea_daemon.state.books import Book, Change
from dea_daemon.state.effects import Effects

NEVER = -(1 << 62)  # a receipt time that is always too old


class Market:
    """One row per universe row. `fold` is the only writer; everything else reads.

    A row that has ever had a book is priced from the book alone; a row without one from its quotes.
    """

    def __init__(self, universe: Universe, params: Parameters) -> None:
        n = len(universe)
        self.universe = universe
        self.params = params
        self.books = [Book() for _ in range(n)]
        self.has_book: BoolArray = np.zeros(n, dtype=np.bool_)
        self.bid, self.ask = np.full(n, np.nan), np.full(n, np.nan)
        self.quote_ns: IntArray = np.full(n, NEVER, dtype=np.int64)
        self.mark, self.index = np.full(n, np.nan), np.full(n, np.nan)
        self.funding_8h, self.open_interest = np.full(n, np.nan), np.full(n, np.nan)
        self.mark_ns: IntArray = np.full(n, NEVER, dtype=np.int64)
        self.currency_price: dict[str, float] = {}
        self.currency_ns: dict[str, int] = {}
        self.asked_ns: IntArray = np.full(n, NEVER, dtype=np.int64)  # last resubscription
        self.gaps = 0
        self.refused = 0
        self.trades = 0
        self._woken_at: dict[str, float] = {}  # index at the last tick
        self._fold: dict[type, Callable[[Any, Effects], None]] = {
            BookDelta: self._book,
            BookSnapshot: self._book,
            QuoteUpdated: self._quote,
            MarkUpdated: self._mark,
            IndexUpdated: self._index,
            TradePrinted: self._trade,
            FeedClosed: self._closed,
            FeedOpened: self._ignore,
            FeedAlive: self._ignore,
            MessageRefused: self._refused,
        }

    def fold(self, event: AnyEvent, effects: Effects) -> None:
        """Apply one market event; events of other kinds are not this room's business."""
        handler = self._fold.get(type(event))
        if handler is not None:
            handler(event, effects)

    # --- one handler an event --------------------------------------------------------------------

    def _book(self, event: BookSnapshot | BookDelta, effects: Effects) -> None:
        row = event.row
        book = self.books[row]
        was_usable = book.usable
        change = book.apply(event)
        if change is Change.APPLIED:
            self.quote_ns[row] = event.ts_recv_ns
            self.has_book[row] = True
        elif change is Change.GAP:
            if was_usable:
                self.gaps += 1
                effects.note("feed.gap_found", row=row, instrument=self.universe.instruments[row].name)
            self._ask(row, event.ts_recv_ns, effects)
        elif change is Change.BUFFERED:
            self._ask(row, event.ts_recv_ns, effects)

    def _ask(self, row: int, now_ns: int, effects: Effects) -> None:
        """A fresh snapshot, at once and then not more often than configured."""
        if now_ns - self.asked_ns[row] >= self.params.execution.resubscribe_every_ms * NS_PER_MS:
            self.asked_ns[row] = now_ns
            effects.commands.append(Resubscribe(row))

    def _quote(self, event: QuoteUpdated, effects: Effects) -> None:
        row = event.row
        if self.has_book[row]:
            # A quote that agrees with the book says the book is alive though nothing moved.
            bid, _, ask, _ = self.books[row].best()
            if self.books[row].usable and bid == event.bid and ask == event.ask:
                self.quote_ns[row] = event.ts_recv_ns
        else:
            self.bid[row], self.ask[row] = event.bid, event.ask
            self.quote_ns[row] = event.ts_recv_ns

    def _mark(self, event: MarkUpdated, effects: Effects) -> None:
        row = event.row
        # A mark that is no price is no mark: what is held is then unpriced, and nothing grows.
        self.mark[row] = event.mark_price if 0.0 < event.mark_price < np.inf else np.nan
        self.mark_ns[row] = event.ts_recv_ns
        for column, value in (
            (self.index, event.index_price),
            (self.funding_8h, event.funding_rate_8h),
            (self.open_interest, event.open_interest),
        ):
            if value == value:  # NaN: the venue did not send it along
                column[row] = value

    def _index(self, event: IndexUpdated, effects: Effects) -> None:
        price = event.price
        if not 0.0 < price < np.inf:
            self.refused += 1
            return
        self.currency_price[event.currency] = price
        self.currency_ns[event.currency] = event.ts_recv_ns
        since = self._woken_at.get(event.currency)
        if since is not None and abs(price - since) > self.params.wake_move_bp * 1e-4 * since:
            effects.wake = f"{event.currency} moved"

    def _trade(self, event: TradePrinted, effects: Effects) -> None:
        self.trades += 1

    def _closed(self, event: FeedClosed, effects: Effects) -> None:
        for row in event.rows:
            self.books[row].close()
        effects.note("feed.closed", feed=event.feed, why=event.why)

    def _refused(self, event: MessageRefused, effects: Effects) -> None:
        self.refused += 1
        effects.note("feed.message_refused", feed=event.feed, why=event.why, excerpt=event.excerpt)

    def _ignore(self, event: AnyEvent, effects: Effects) -> None:
        """Known, and nothing to do for the market."""

    # --- reading ---------------------------------------------------------------------------------

    def tick(self, now_ns: int, effects: Effects) -> None:
        """A tick begins: moves are measured from here, and a book still broken is asked for again."""
        self._woken_at = dict(self.currency_price)
        for row in np.flatnonzero(self.has_book):
            if not self.books[row].usable:
                self._ask(int(row), now_ns, effects)

    def touch(self) -> None:
        """Bring bid and ask [N] up to the books; unusable books price nothing."""
        for row in np.flatnonzero(self.has_book):
            self.bid[row], _, self.ask[row], _ = self.books[row].best()

    def fresh(self, now_ns: int) -> BoolArray:
        """[N] whether the row's prices may be relied upon: two-sided, uncrossed, recent quotes and mark."""
        state = self.params.state
        sound = (
            (self.bid > 0) & (self.ask > self.bid) & np.isfinite(self.ask) & (self.mark > 0) & np.isfinite(self.mark)
        )
        recent = (now_ns - self.quote_ns <= state.stale_book_ms * NS_PER_MS) & (
            now_ns - self.mark_ns <= state.stale_mark_ms * NS_PER_MS
        )
        usable = np.array([not had or book.usable for had, book in zip(self.has_book, self.books, strict=True)])
        return np.asarray(sound & recent & usable, dtype=np.bool_)

    def price_of(self, currency: str, now_ns: int) -> float:
        """USD price of a currency: 1 for stables, the index while fresh, else NaN."""
        if currency in self.params.state.stable_currencies:
            return 1.0
        if now_ns - self.currency_ns.get(currency, NEVER) > self.params.state.stale_mark_ms * NS_PER_MS:
            return float("nan")
        return self.currency_price.get(currency, float("nan"))

    def underlying_prices(self, now_ns: int) -> FloatArray:
        """[U] index in USD of each underlying; the freshest contract's index where the venue sends no other."""
        prices = np.array([self.price_of(u, now_ns) for u in self.universe.underlyings])
        for u in np.flatnonzero(np.isnan(prices)):
            rows = np.flatnonzero(self.universe.underlying == u)
            row = rows[np.argmax(self.mark_ns[rows])]
            if now_ns - self.mark_ns[row] <= self.params.state.stale_mark_ms * NS_PER_MS:
                price = self.index[row] if self.index[row] == self.index[row] else self.mark[row]
                prices[u] = price if 0.0 < price < np.inf else np.nan
        return prices
