"""The book and its sequence rules, against a plain model of a venue."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.domain.events import BookDelta, BookSnapshot, Level
from dea_daemon.state.books import BUFFERED_DELTAS_MAX, Book, Change


def snapshot(sequence, bids=((99.0, 1.0),), asks=((101.0, 1.0),), ts=0) -> BookSnapshot:
    return BookSnapshot(sequence, ts or sequence, 0, sequence, list(bids), list(asks))


def delta(first, last, previous, bids=(), asks=(), ts=0) -> BookDelta:
    return BookDelta(last, ts or last, 0, first, last, previous, list(bids), list(asks))


@dataclass
class Venue:
    """A book as a dict, one numbered change at a time; ids skip as real ones do."""

    bids: dict[float, float] = field(default_factory=lambda: {1.0: 1.0})
    asks: dict[float, float] = field(default_factory=lambda: {100.0: 1.0})
    sequence: int = 10

    def change(self, is_bid: bool, price: float, amount: float, skip: int) -> Level:
        side = self.bids if is_bid else self.asks
        side.pop(price, None)
        if amount:
            side[price] = amount
        self.sequence += skip
        return price, amount

    def snapshot(self) -> BookSnapshot:
        return snapshot(self.sequence, sorted(self.bids.items(), reverse=True), sorted(self.asks.items()))


changes = st.tuples(st.booleans(), st.integers(2, 40), st.sampled_from([0.0, 0.5, 1.0, 2.5]), st.integers(1, 3))
# Each delta is a few changes: bids below 50, asks above.
streams = st.lists(st.lists(changes, min_size=1, max_size=4), min_size=2, max_size=15)


def play(stream) -> tuple[list[BookDelta], list[BookSnapshot], list[BookSnapshot]]:
    """The deltas, the venue's book before and after each (n + 1), and after every single change."""
    venue = Venue()
    deltas, between, every = [], [venue.snapshot()], [venue.snapshot()]
    for group in stream:
        previous, first = venue.sequence, 0
        bids: dict[float, float] = {}
        asks: dict[float, float] = {}
        for is_bid, step, amount, skip in group:
            price, amount = venue.change(is_bid, float(step if is_bid else 50 + step), amount, skip)
            (bids if is_bid else asks)[price] = amount
            first = first or venue.sequence
            every.append(venue.snapshot())
        deltas.append(delta(first, venue.sequence, previous, bids.items(), asks.items()))
        between.append(venue.snapshot())
    return deltas, between, every


def holds(book: Book, truth: BookSnapshot) -> bool:
    bids, asks = book.top(1_000)
    return (
        book.usable
        and book.last == truth.sequence
        and bids.tolist() == [list(level) for level in truth.bids]
        and asks.tolist() == [list(level) for level in truth.asks]
    )


def nothing_survives(book: Book) -> bool:
    return not book.usable and all(side.size == 0 for side in book.top(10)) and math.isnan(book.best()[0])


@given(streams)
def test_a_clean_feed_gives_the_venues_book_after_every_delta(stream):
    deltas, truth, _ = play(stream)
    book = Book()
    assert book.apply(truth[0]) is Change.APPLIED
    for message, expected in zip(deltas, truth[1:], strict=True):
        assert book.apply(message) is Change.APPLIED
        assert holds(book, expected)


@given(streams, st.data())
def test_duplicated_and_late_deltas_change_nothing(stream, data):
    deltas, truth, _ = play(stream)
    book = Book()
    book.apply(truth[0])
    for i, message in enumerate(deltas):
        book.apply(message)
        again = deltas[data.draw(st.integers(0, i))]
        assert book.apply(again) is Change.IGNORED
        assert holds(book, truth[i + 1])


@given(streams, st.data())
def test_any_order_of_deltas_before_a_snapshot_gives_the_clean_book(stream, data):
    deltas, truth, every = play(stream)
    taken = data.draw(st.sampled_from(every))  # may fall within a delta: the bridge
    book = Book()
    for message in data.draw(st.permutations(deltas + deltas[:2])):
        assert book.apply(message) is Change.BUFFERED
    assert book.apply(taken) is Change.APPLIED
    assert holds(book, truth[-1])


@given(streams, st.data())
def test_a_snapshot_within_a_delta_is_bridged_by_it(stream, data):
    deltas, truth, every = play(stream)
    taken = data.draw(st.sampled_from(every))
    book = Book()
    book.apply(taken)
    for message in deltas:
        assert book.apply(message) in (Change.IGNORED, Change.APPLIED)
    assert holds(book, truth[-1])


@given(streams, st.data())
def test_a_dropped_delta_is_noticed_at_the_next_and_no_level_survives(stream, data):
    deltas, truth, _ = play(stream)
    lost = data.draw(st.integers(0, len(deltas) - 2))
    book = Book()
    book.apply(truth[0])
    for message in deltas[:lost]:
        book.apply(message)
    assert book.apply(deltas[lost + 1]) is Change.GAP
    assert nothing_survives(book)
    for message in deltas[lost + 2 :]:
        assert book.apply(message) is Change.BUFFERED
        assert nothing_survives(book)
    # A fresh snapshot heals it, whichever of the deltas since the gap it already contains.
    taken = data.draw(st.integers(lost + 1, len(deltas)))
    assert book.apply(truth[taken]) is Change.APPLIED
    assert holds(book, truth[-1])


numbers = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 100.0, math.nan, math.inf, -1.0]))
junk_levels = st.lists(st.tuples(numbers, numbers), max_size=3)
junk_ids = st.integers(0, 6)
junk = st.one_of(
    st.builds(delta, junk_ids, junk_ids, junk_ids, junk_levels, junk_levels, junk_ids),
    st.builds(snapshot, junk_ids, junk_levels, junk_levels, junk_ids),
)


@given(st.lists(junk, max_size=12))
def test_nothing_a_venue_sends_leaves_a_usable_book_that_is_crossed_or_not_finite(messages):
    book = Book()
    for message in messages:
        book.apply(message)
        bid, _, ask, _ = book.best()
        if not book.usable:
            assert nothing_survives(book)
            continue
        assert not bid >= ask
        bids, asks = book.top(1_000)
        for side in (bids, asks):
            assert np.isfinite(side).all()
            assert (side > 0).all()
        assert (bids[:, 0] == np.sort(bids[:, 0])[::-1]).all()
        assert (asks[:, 0] == np.sort(asks[:, 0])).all()


def test_a_gap_makes_the_book_unusable_until_a_snapshot():
    book = Book()
    book.apply(snapshot(10))
    assert book.apply(delta(12, 12, 11)) is Change.GAP
    assert nothing_survives(book)
    assert book.apply(delta(13, 13, 12)) is Change.BUFFERED
    assert book.apply(snapshot(12)) is Change.APPLIED
    assert book.usable
    assert book.last == 13


def test_only_the_first_delta_after_a_snapshot_may_straddle_it():
    book = Book()
    book.apply(snapshot(10))
    assert book.apply(delta(8, 12, 7)) is Change.APPLIED
    assert book.apply(delta(11, 14, 9)) is Change.GAP  # a feed that overlaps itself is not one we understand
    assert nothing_survives(book)


def test_a_delta_that_crosses_the_book_is_a_gap():
    book = Book()
    book.apply(snapshot(10))
    assert book.apply(delta(11, 11, 10, bids=[(101.0, 1.0)])) is Change.GAP
    assert nothing_survives(book)


def test_a_delta_may_pass_through_a_crossed_state_within_itself():
    book = Book()
    book.apply(snapshot(10))
    moved = delta(11, 11, 10, bids=[(101.0, 1.0)], asks=[(101.0, 0.0), (102.0, 1.0)])
    assert book.apply(moved) is Change.APPLIED
    assert book.best() == (101.0, 1.0, 102.0, 1.0)


def test_a_crossed_snapshot_is_a_gap():
    book = Book()
    assert book.apply(snapshot(10, bids=[(101.0, 1.0)])) is Change.GAP
    assert nothing_survives(book)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.0])
def test_a_number_that_is_none_is_a_gap(bad):
    for level in ((bad, 1.0), (98.0, bad)):
        book = Book()
        book.apply(snapshot(10))
        assert book.apply(delta(11, 11, 10, bids=[level])) is Change.GAP
        assert nothing_survives(book)


def test_an_emptied_side_is_nan_and_nothing():
    book = Book()
    book.apply(snapshot(10))
    assert book.apply(delta(11, 11, 10, bids=[(99.0, 0.0)])) is Change.APPLIED
    bid, bid_amount, ask, ask_amount = book.best()
    assert math.isnan(bid)
    assert (bid_amount, ask, ask_amount) == (0.0, 101.0, 1.0)


def test_an_http_snapshot_the_stream_has_overtaken_is_ignored():
    book = Book()
    book.apply(snapshot(10))
    book.apply(delta(11, 20, 10))
    assert book.apply(snapshot(15)) is Change.IGNORED
    assert book.last == 20


def test_numbering_that_begins_again_is_not_taken_for_old_news():
    book = Book()
    book.apply(snapshot(1_000, ts=1))
    assert book.apply(delta(2, 2, 1, ts=2)) is Change.GAP
    book.apply(snapshot(1_000, ts=1))
    assert book.apply(snapshot(3, ts=2)) is Change.APPLIED
    assert book.last == 3


def test_the_buffer_is_bounded_and_its_overflow_asks_for_another_snapshot():
    book = Book()
    for i in range(BUFFERED_DELTAS_MAX + 10):
        book.apply(delta(i + 1, i + 1, i))
    assert book.apply(snapshot(5)) is Change.GAP  # the deltas that would follow it were dropped
    assert book.apply(snapshot(2_000)) is Change.APPLIED


def test_a_closed_stream_takes_its_book_with_it():
    book = Book()
    book.apply(delta(11, 11, 10))
    book.apply(snapshot(10))
    book.close()
    assert nothing_survives(book)
    assert book.apply(snapshot(10)) is Change.APPLIED
    assert book.last == 10  # nothing that waited before came back


def test_top_gives_the_best_levels_first():
    book = Book()
    book.apply(snapshot(1, bids=[(99.0, 1.0), (98.0, 2.0)], asks=[(101.0, 3.0), (102.0, 4.0)]))
    bids, asks = book.top(1)
    assert bids.tolist() == [[99.0, 1.0]]
    assert asks.tolist() == [[101.0, 3.0]]
    assert [side.shape for side in Book().top(5)] == [(0, 2), (0, 2)]
