"""The order book against a naive one, and its rules one by one."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.domain.errors import InvariantViolation
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.orders import TimeInForce
from dea_daemon.simvenue.matching import OrderBook
from dea_daemon.simvenue.words import VenueOrder

BUY, SELL = Side.BUY, Side.SELL
Matches = list[tuple[str | None, int, int]]


def an_order(order_id: str, side: Side, lots: int, ticks: int, account: str = "a") -> VenueOrder:
    return VenueOrder(
        order_id, account, "X", side, lots, ticks, TimeInForce.GTC, False, False, label="", created_ns=0, updated_ns=0
    )


class Driven:
    """The real book, with an exchange's habit of filling orders as matches come."""

    def __init__(self):
        self.book = OrderBook()
        self.orders: dict[str, VenueOrder] = {}

    def _fill(self, matches) -> Matches:
        seen: Matches = []
        for order, ticks, lots in matches:
            if order is not None:
                order.filled_lots += lots
            seen.append((order.order_id if order else None, ticks, lots))
        return merged(seen)

    def set_level(self, side, ticks, lots):
        return self._fill(self.book.set_level(side, ticks, lots))

    def sweep(self, side, ticks, lots):
        return self._fill(self.book.sweep(side, ticks, lots))

    def limit_order(self, order_id, side, ticks, lots):
        order = self.orders[order_id] = an_order(order_id, side, lots, ticks)
        matches = self.sweep(side, ticks, lots)
        order.filled_lots = sum(m[2] for m in matches)
        if order.left_lots:
            self.book.join(order)
        return matches

    def cut(self, order_id, lots):
        order = self.orders[order_id]
        if order_id in self.book.entries and lots <= order.left_lots:
            self.book.cut(order, lots)
            order.lots = order.filled_lots + lots

    def levels(self, side):
        return self.book.half(side).top(None)


@dataclass
class Chunk:
    side: Side
    ticks: int
    lots: int
    order_id: str | None


@dataclass
class Naive:
    """Everything resting in one list, oldest first. Price, then place in the list."""

    chunks: list[Chunk] = field(default_factory=list)

    def _first(self, side: Side, limit: int) -> Chunk | None:
        met = [c for c in self.chunks if c.side is not side and c.ticks * side.sign <= limit * side.sign]
        return min(met, key=lambda c: c.ticks * side.sign, default=None)  # min keeps the oldest of equals

    def _take(self, chunk: Chunk, lots: int) -> tuple[str | None, int, int]:
        taken = min(lots, chunk.lots)
        chunk.lots -= taken
        if chunk.lots == 0:
            self.chunks = [c for c in self.chunks if c is not chunk]
        return chunk.order_id, chunk.ticks, taken

    def sweep(self, side, limit, lots):
        matches: Matches = []
        while lots and (chunk := self._first(side, limit)):
            matches.append(self._take(chunk, lots))
            lots -= matches[-1][2]
        return merged(matches)

    def limit_order(self, order_id, side, ticks, lots):
        matches = self.sweep(side, ticks, lots)
        if left := lots - sum(m[2] for m in matches):
            self.chunks.append(Chunk(side, ticks, left, order_id))
        return matches

    def set_level(self, side, ticks, lots):
        here = [c for c in self.chunks if c.order_id is None and c.side is side and c.ticks == ticks]
        growth = lots - sum(c.lots for c in here)
        for background in reversed(here):
            cut = min(max(-growth, 0), background.lots)
            background.lots, growth = background.lots - cut, growth + cut
        matches: Matches = []
        while growth > 0 and (chunk := self._first(side, ticks)):
            stale = [c for c in self.chunks if c.side is not side and c.ticks == chunk.ticks and c.order_id is None]
            self.chunks = [c for c in self.chunks if not any(c is s for s in stale)]
            if any(chunk is s for s in stale):
                continue
            matches.append(self._take(chunk, growth))
            growth -= matches[-1][2]
        if growth > 0:
            self.chunks.append(Chunk(side, ticks, growth, None))
        self.chunks = [c for c in self.chunks if c.lots]
        return merged(matches)

    def cut(self, order_id, lots):
        for resting in self.chunks:
            if resting.order_id == order_id and lots <= resting.lots:
                resting.lots = lots
        self.chunks = [c for c in self.chunks if c.lots]

    def levels(self, side):
        sums: dict[int, int] = {}
        for chunk in self.chunks:
            if chunk.side is side:
                sums[chunk.ticks] = sums.get(chunk.ticks, 0) + chunk.lots
        return sorted(sums.items(), reverse=side is BUY)


def merged(matches: Matches) -> Matches:
    """Neighbouring pieces of background at one price are one match: how it is cut into pieces is nobody's matter."""
    joined: Matches = []
    for order_id, ticks, lots in matches:
        if joined and order_id is None and joined[-1][:2] == (None, ticks):
            joined[-1] = (None, ticks, joined[-1][2] + lots)
        else:
            joined.append((order_id, ticks, lots))
    return joined


sides = st.sampled_from([BUY, SELL])
ticks = st.integers(95, 105)
lots = st.integers(1, 20)
ops = st.lists(
    st.one_of(
        st.tuples(st.just("set_level"), sides, ticks, st.integers(0, 20)),
        st.tuples(st.just("limit_order"), sides, ticks, lots),
        st.tuples(st.just("sweep"), sides, ticks, lots),
        st.tuples(st.just("cut"), st.integers(0, 40), st.integers(0, 20)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(ops)
def test_matching_equals_a_naive_price_time_matcher(ops):
    book, naive = Driven(), Naive()
    for number, (what, *arguments) in enumerate(ops):
        if what == "cut":
            arguments[0] = str(arguments[0])
            if arguments[0] not in book.orders:
                continue
        if what == "limit_order":
            arguments.insert(0, str(number))
        assert getattr(book, what)(*arguments) == getattr(naive, what)(*arguments), (number, what)
        for side in Side:
            assert book.levels(side) == naive.levels(side)
        bid, ask = book.book.best(BUY), book.book.best(SELL)
        assert bid is None or ask is None or bid < ask
        for order_id, order in book.orders.items():
            assert 0 <= order.filled_lots <= order.lots
            assert (order_id in book.book.entries) == any(c.order_id == order_id for c in naive.chunks)


@settings(max_examples=200, deadline=None)
@given(ops)
def test_changes_taken_one_after_another_rebuild_the_book(ops):
    book, copy = Driven(), {BUY: dict[int, int](), SELL: dict[int, int]()}
    for number, (what, *arguments) in enumerate(ops):
        if what == "cut":
            continue
        if what == "limit_order":
            arguments.insert(0, str(number))
        getattr(book, what)(*arguments)
        for side, changes in zip((BUY, SELL), book.book.take_changes(), strict=True):
            copy[side].update(changes)
            copy[side] = {t: n for t, n in copy[side].items() if n}
        assert copy == {side: dict(book.levels(side)) for side in Side}


def test_background_that_shrinks_leaves_from_behind_us_and_we_keep_our_place():
    book = Driven()
    book.set_level(BUY, 100, 5)
    book.limit_order("mine", BUY, 100, 3)
    book.set_level(BUY, 100, 12)
    book.set_level(BUY, 100, 5)
    assert book.sweep(SELL, 100, 6) == [(None, 100, 5), ("mine", 100, 1)]


def test_background_that_shrinks_beyond_what_is_behind_us_leaves_from_in_front():
    book = Driven()
    book.set_level(BUY, 100, 5)
    book.limit_order("mine", BUY, 100, 3)
    book.set_level(BUY, 100, 2)
    assert book.sweep(SELL, 100, 3) == [(None, 100, 2), ("mine", 100, 1)]


def test_background_arriving_across_a_client_order_trades_with_it_at_its_price():
    book = Driven()
    book.limit_order("mine", SELL, 100, 3)
    assert book.set_level(BUY, 101, 10) == [("mine", 100, 3)]
    assert book.levels(BUY) == [(101, 7)]


def test_background_arriving_across_background_replaces_it_without_a_trade():
    book = Driven()
    book.set_level(SELL, 100, 4)
    assert book.set_level(BUY, 100, 6) == []
    assert (book.levels(BUY), book.levels(SELL)) == ([(100, 6)], [])


def test_a_cut_order_keeps_its_place():
    book = Driven()
    book.limit_order("first", SELL, 100, 5)
    book.limit_order("second", SELL, 100, 5)
    book.cut("first", 2)
    assert book.sweep(BUY, 100, 4) == [("first", 100, 2), ("second", 100, 2)]


def test_an_order_may_be_cancelled_between_two_matches():
    book = Driven()
    book.limit_order("first", SELL, 100, 5)
    book.limit_order("second", SELL, 100, 5)
    sweep = iter(book.book.sweep(BUY, 101, 8))
    assert next(sweep)[1:] == (100, 5)
    book.book.leave(book.orders["second"])
    assert list(sweep) == []
    assert book.levels(SELL) == []


def test_resting_across_the_book_is_our_own_bug():
    book = Driven()
    book.set_level(SELL, 100, 4)
    with pytest.raises(InvariantViolation):
        book.book.join(an_order("x", BUY, 1, 100))


def test_an_own_order_counts_as_met_only_where_the_sweep_would_reach_it():
    book = OrderBook()
    list(book.set_level(SELL, 100, 4))
    book.join(an_order("mine", SELL, 3, 101))
    assert not book.meets_own(BUY, 100, 10, "a")
    assert not book.meets_own(BUY, 101, 4, "a")
    assert book.meets_own(BUY, 101, 5, "a")
    assert not book.meets_own(BUY, 101, 5, "b")
    assert not book.meets_own(BUY, 101, 5, "a", except_id="mine")


# --- recorded trades ---------------------------------------------------------------------------------


def recorded(book: Driven, side, ticks, lots):
    return book._fill(book.book.recorded_trade(side, ticks, lots))


def test_a_recorded_trade_moves_us_up_the_queue_and_leaves_the_displayed_book_as_recorded():
    book = Driven()
    book.set_level(SELL, 100, 10)
    book.limit_order("mine", SELL, 100, 5)
    assert recorded(book, BUY, 100, 7) == []
    assert recorded(book, BUY, 100, 5) == [("mine", 100, 2)]
    assert book.book.background(SELL, 100) == 10


def test_a_recorded_trade_fills_us_the_same_whether_its_depth_comes_before_or_after():
    filled = []
    for depth_first in (False, True):
        book = Driven()
        book.set_level(SELL, 100, 5)
        book.limit_order("mine", SELL, 100, 5)
        book.set_level(SELL, 100, 15)
        if depth_first:
            book.set_level(SELL, 100, 8)
        filled.append(recorded(book, BUY, 100, 7))
        if not depth_first:
            book.set_level(SELL, 100, 8)
        assert book.levels(SELL) == [(100, 8 + 3)]
    assert filled == [[("mine", 100, 2)]] * 2


def test_a_recorded_trade_beyond_our_better_price_fills_us_first():
    book = Driven()
    book.set_level(SELL, 99, 4)
    book.limit_order("mine", SELL, 99, 3)
    assert recorded(book, BUY, 100, 2) == [("mine", 99, 2)]
    assert book.levels(SELL) == [(99, 5)]


@pytest.mark.parametrize(("taker", "best", "worse"), [(BUY, 99, 101), (SELL, 101, 99)])
def test_a_recorded_trade_fills_our_best_price_before_our_others(taker, best, worse):
    book = Driven()
    book.limit_order("worse", taker.opposite, worse, 3)
    book.limit_order("best", taker.opposite, best, 3)
    assert recorded(book, taker, worse, 4) == [("best", best, 3), ("worse", worse, 1)]


def test_a_recorded_trade_that_stops_before_our_price_leaves_us_alone():
    book = Driven()
    book.limit_order("mine", SELL, 101, 3)
    assert recorded(book, BUY, 100, 50) == []


# --- a whole book at once ----------------------------------------------------------------------------

levels = st.dictionaries(st.integers(1, 12), st.integers(0, 9), max_size=5)


@given(before=levels, bids=levels, asks=levels)
@settings(max_examples=200, deadline=None)
def test_a_book_replaced_at_once_is_the_book_set_level_by_level(before, bids, asks):
    asks = {ticks + 12: lots for ticks, lots in asks.items()}
    at_once, by_level = OrderBook(), OrderBook()
    for ticks, lots in before.items():
        for book in (at_once, by_level):
            list(book.set_level(BUY, ticks, lots))
    assert at_once.replace(bids, asks)
    for side, wanted in ((BUY, bids), (SELL, asks)):
        for ticks in [t for t in by_level.half(side).levels if t not in wanted]:
            list(by_level.set_level(side, ticks, 0))
        for ticks, lots in wanted.items():
            list(by_level.set_level(side, ticks, lots))
    for side in (BUY, SELL):
        assert at_once.half(side).top(None) == by_level.half(side).top(None)
        assert set(at_once.half(side).levels) <= at_once.half(side).changed


def test_a_book_in_which_a_client_rests_is_not_replaced_at_once():
    driven = Driven()
    driven.book.join(an_order("mine", BUY, 5, 10))
    assert not driven.book.replace({9: 1}, {11: 1})
    assert driven.book.bids.top(None) == [(10, 5)]


def test_a_crossed_book_is_not_replaced_at_once():
    book = OrderBook()
    assert not book.replace({10: 1}, {10: 1})
    assert book.best(BUY) is None


def test_a_replaced_book_has_no_negative_background():
    with pytest.raises(InvariantViolation, match="negative background"):
        OrderBook().replace({10: -1}, {})
