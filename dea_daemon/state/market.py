"""What the venues say: books, quotes, marks, indices, funding, and which of it is still to be believed."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dea_daemon.domain.commands import Resubscribe
from dea_daemon.domain.events import (
    AnyEvent,
    BookDelta,
    BookSnapshot,
    FactorObserved,
    FeedAlive,
    FeedClosed,
    FeedOpened,
    IndexUpdated,
    InstrumentsListed,
    MarkUpdated,
    MessageRefused,
    OptionUpdated,
    PricesRecalled,
    QuoteUpdated,
    SurfaceFitted,
    TradePrinted,
    VenueStateChanged,
)
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray, Universe
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.domain.parameters import Parameters
from dea_daemon.state.books import Book, Change
from dea_daemon.state.effects import Effects
from dea_daemon.state.factors import SlowFactors
from dea_daemon.state.flow import Flows
from dea_daemon.state.options import OptionMarket
from dea_daemon.state.returns import Returns
from dea_daemon.state.surfaces import Surfaces
from dea_daemon.state.windows import NEVER, lengthened

NAN = float("nan")


class Market:
    """One row per universe row. `fold` is the only writer; everything else reads.

    A row that has ever had a book is priced from the book alone; a row without one from its quotes.
    """

    def __init__(self, universe: Universe, params: Parameters) -> None:
        self.universe = universe
        self.params = params
        self.books: list[Book] = []
        self.has_book: BoolArray = np.zeros(0, dtype=np.bool_)
        self.bid, self.ask, self.mark, self.index = (np.zeros(0) for _ in range(4))
        self.funding_8h, self.open_interest = np.zeros(0), np.zeros(0)
        self.quote_ns: IntArray = np.zeros(0, dtype=np.int64)
        self.mark_ns: IntArray = np.zeros(0, dtype=np.int64)
        self.asked_ns: IntArray = np.zeros(0, dtype=np.int64)  # last resubscription
        self.regridded: BoolArray = np.zeros(0, dtype=np.bool_)  # traded in other lots or ticks than at the start
        self.options = OptionMarket()
        self.surfaces = Surfaces(universe.underlyings)
        self.flow = Flows(universe, params.state)
        self.slow = SlowFactors(params.factors)
        self._lengthen()
        self.currency_price: dict[str, float] = {}
        self.currency_ns: dict[str, int] = {}
        self.gaps = 0
        self.refused = 0
        self.trades = 0
        self._closed_for: set[tuple[int, str]] = set()  # account and underlying, "" for all, that the venue announced
        self.returns = Returns(len(universe.underlyings))
        self._woken_at: dict[str, float] = {}  # index at the last tick
        self._fold: dict[type, Callable[[Any, Effects], None]] = {
            BookDelta: self._book,
            BookSnapshot: self._book,
            QuoteUpdated: self._quote,
            MarkUpdated: self._mark,
            OptionUpdated: self._option,
            SurfaceFitted: self._fitted,
            IndexUpdated: self._index,
            InstrumentsListed: self._listed,
            VenueStateChanged: self._venue_state,
            TradePrinted: self._trade,
            FeedClosed: self._closed,
            FeedOpened: self._ignore,
            FeedAlive: self._ignore,
            MessageRefused: self._refused,
            PricesRecalled: self._recalled,
            FactorObserved: self.slow.fold,
        }

    def _lengthen(self) -> None:
        """A place for each row of the universe, those that joined it included."""
        n = len(self.universe)
        self.books += [Book() for _ in range(n - len(self.books))]
        self.has_book = lengthened(self.has_book, n, False)
        for name in ("bid", "ask", "mark", "index", "funding_8h", "open_interest"):
            setattr(self, name, lengthened(getattr(self, name), n, NAN))
        for name in ("quote_ns", "mark_ns", "asked_ns"):
            setattr(self, name, lengthened(getattr(self, name), n, NEVER))
        self.regridded = lengthened(self.regridded, n, False)
        self.options.lengthen(n)
        self.flow.lengthen(self.universe)

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
        self.has_book[row] = True  # from its first message on, whole or not: nothing else prices it
        if change is Change.APPLIED:
            self.quote_ns[row] = event.ts_recv_ns
            self.flow.book(book, event, was_usable)
        elif change is Change.GAP:
            if was_usable:
                self.gaps += 1
                effects.note("feed.gap_found", row=row, instrument=self.universe.instruments[row].name)
            self._ask(row, event.ts_recv_ns, effects)
        elif change is Change.BUFFERED:
            self._ask(row, event.ts_recv_ns, effects)

    def _ask(self, row: int, now_ns: int, effects: Effects) -> None:
        """A fresh snapshot, at once and then not more often than configured."""
        ended = 0 < self.universe.expiry_ns[row] <= now_ns
        if not ended and now_ns - self.asked_ns[row] >= self.params.execution.resubscribe_every_ms * NS_PER_MS:
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
            self.flow.quote(event)

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

    def _option(self, event: OptionUpdated, effects: Effects) -> None:
        self.options.fold(event)

    def _fitted(self, event: SurfaceFitted, effects: Effects) -> None:
        self.surfaces.fold(event, self.params.pricing.surface)

    def _listed(self, event: InstrumentsListed, effects: Effects) -> None:
        if event.instruments:
            self.universe.extend(tuple((event.account, instrument) for instrument in event.instruments))
            self._lengthen()
            names = ", ".join(i.name for i in event.instruments[:5])
            effects.note("instruments.joined", count=len(event.instruments), names=names, rows=len(self.universe))
        elif event.why:
            effects.note("instruments.unlisted", account=event.account, why=event.why)
        for instrument in event.changed:
            row = self.universe.row(event.account, instrument.name)
            if row is not None and not self.regridded[row]:
                self.regridded[row] = True
                lot, tick = str(instrument.lot_size), str(instrument.tick_size)
                effects.note("instrument.regridded", instrument=instrument.name, lot_size=lot, tick_size=tick)

    def _venue_state(self, event: VenueStateChanged, effects: Effects) -> None:
        key = (event.account, event.currency)
        if event.open:
            self._closed_for.discard(key)
        else:
            self._closed_for.add(key)
        effects.note("venue.opened" if event.open else "venue.closed", currency=event.currency, why=event.why)

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
        self.flow.trade(event)

    def _closed(self, event: FeedClosed, effects: Effects) -> None:
        for row in event.rows:
            self.books[row].close()
            self.flow.closed(row)
            self.quote_ns[row] = NEVER  # of rows without a book, too: unheard is unknown
        effects.note("feed.closed", feed=event.feed, why=event.why)

    def _refused(self, event: MessageRefused, effects: Effects) -> None:
        self.refused += 1
        effects.note("feed.message_refused", feed=event.feed, why=event.why, excerpt=event.excerpt)

    def _recalled(self, event: PricesRecalled, effects: Effects) -> None:
        self.returns.recall(event.at_ns, np.array(event.usd, dtype=np.float64).reshape(len(event.at_ns), -1))

    def _ignore(self, event: AnyEvent, effects: Effects) -> None:
        """Known, and nothing to do for the market."""

    # --- reading ---------------------------------------------------------------------------------

    def tick(self, now_ns: int, effects: Effects) -> None:
        """A tick begins: moves count from here, an hour's is noted, and a book still broken is asked for again."""
        if self.returns.due(now_ns):
            self.returns.observe(now_ns, self.underlying_prices(now_ns))
        self._woken_at = dict(self.currency_price)
        for row in self.has_book.nonzero()[0].tolist():
            if not self.books[row].usable:
                self._ask(row, now_ns, effects)

    def touch(self) -> None:
        """Bring bid and ask [N] up to the books; unusable books price nothing."""
        for row in self.has_book.nonzero()[0].tolist():
            self.bid[row], _, self.ask[row], _ = self.books[row].best()

    def fresh(self, now_ns: int) -> BoolArray:
        """[N] whether the row's prices may be relied upon: uncrossed, recent quotes and mark; two-sided, but for
        options, for which nobody may bid: one that was sold can still be bought back."""
        bidden = self.bid > 0
        quoted = bidden & (self.ask > self.bid)
        if self.universe.series_count:
            quoted |= self.universe.option & ~bidden & (self.ask > 0)
        sound = quoted & np.isfinite(self.ask) & (self.mark > 0) & np.isfinite(self.mark) & self.recent(now_ns)
        for row in self.has_book.nonzero()[0].tolist():
            sound[row] &= self.books[row].usable
        return np.asarray(sound, dtype=np.bool_)

    def recent(self, now_ns: int) -> BoolArray:
        """[N] whether quote and mark are young enough."""
        quoted, marked = self.heard(now_ns)
        return quoted & marked

    def heard(self, now_ns: int) -> tuple[BoolArray, BoolArray]:
        """[N] whether the quote, and whether the mark, is young enough. A quiet option speaks less often than a
        perpetual."""
        state, option = self.params.state, self.universe.option
        quote_ms: int | IntArray = state.stale_book_ms
        mark_ms: int | IntArray = state.stale_mark_ms
        if self.universe.any_option:
            quote_ms = np.where(option, state.stale_option_ms, quote_ms)
            mark_ms = np.where(option, state.stale_option_ms, mark_ms)
        return now_ns - self.quote_ns <= quote_ms * NS_PER_MS, now_ns - self.mark_ns <= mark_ms * NS_PER_MS

    def shut(self) -> BoolArray:
        """[N] rows in which the venue takes no orders by its own announcement, or of another grid than we know."""
        out = self.regridded.copy()
        for account, currency in self._closed_for:
            if not currency:
                out |= self.universe.account == account
            elif currency in self.universe.underlyings:
                k = self.universe.underlyings.index(currency)
                out |= (self.universe.account == account) & (self.universe.underlying == k)
        return out

    def peg(self) -> FloatArray:
        """[N] last USD price heard of the stablecoin a row settles in; 1 where it is no stablecoin, or unheard."""
        stable = self.params.state.stable_currencies
        names = self.universe.settle_currencies
        price = [self.currency_price.get(c, 1.0) if c in stable else 1.0 for c in names]
        return np.array(price)[self.universe.settle_currency]

    def price_of(self, currency: str, now_ns: int) -> float:
        """USD price of a currency: of a stablecoin the last heard, at most 1 (1 where none is); else the index while
        fresh, else NaN."""
        if currency in self.params.state.stable_currencies:
            return min(self.currency_price.get(currency, 1.0), 1.0)
        if now_ns - self.currency_ns.get(currency, NEVER) > self.params.state.stale_mark_ms * NS_PER_MS:
            return float("nan")
        return self.currency_price.get(currency, float("nan"))

    def underlying_prices(self, now_ns: int) -> FloatArray:
        """[U] index in USD of each underlying; the freshest contract's index where the venue sends no other."""
        told = [self.price_of(u, now_ns) for u in self.universe.underlyings]
        prices = np.array(told)
        for u in (u for u, price in enumerate(told) if price != price):
            rows = np.flatnonzero(self.universe.underlying == u)
            row = rows[np.argmax(self.mark_ns[rows])]
            if now_ns - self.mark_ns[row] <= self.params.state.stale_mark_ms * NS_PER_MS:
                own = NAN if self.universe.option[row] else self.mark[row]  # an option's is no price of the underlying
                price = self.index[row] if self.index[row] == self.index[row] else own
                prices[u] = price if 0.0 < price < np.inf else np.nan
        return prices
