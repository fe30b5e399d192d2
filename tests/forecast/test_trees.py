"""Trees as arithmetic, refused where they are none; and the book of lessons the next ones are grown from."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.domain.models import Lessons, Trees
from dea_daemon.forecast.trees import LESSON_DAYS, TREES_MOST, LessonBook, compiled, flaw, said

INF, NAN = float("inf"), float("nan")
#       0: x0 <= 0
#   1: x1 <= 1    2: x2 <= 2
# 3: -  4: -    5: x0 <= 5  6: -
ONE = Trees((0, 1, 2, 0, 0, 0, 0), (0.0, 1.0, 2.0, INF, INF, 5.0, INF), (1.0, 1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 5.0))


def by_hand(trees, x):
    """A walk down each tree."""
    total = 0.0
    for t in range(len(trees.leaf) // 8):
        node = 0
        while node < 7:
            node = 2 * node + (1 if x[trees.feature[7 * t + node]] <= trees.threshold[7 * t + node] else 2)
        total += trees.leaf[8 * t + node - 7]
    return total


# --- what they say --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "leaf"),
    [
        ((0.0, 1.0, 9.0), 1.0),  # at a threshold is left
        ((-1.0, 1.1, 9.0), 2.0),
        ((1.0, 0.0, 2.0), 3.0),
        ((5.0, 0.0, 2.0), 3.0),
        ((5.1, 0.0, 2.0), 4.0),
        ((1.0, 0.0, 2.1), 5.0),
        ((INF, 0.0, -INF), 4.0),
    ],
)
def test_each_leaf_is_where_its_thresholds_say(x, leaf):
    assert said(compiled(ONE), np.array([x])).tolist() == [leaf]


def test_what_is_unknown_counts_as_nothing_and_not_as_little():
    below = msgspec.structs.replace(ONE, threshold=(-1.0, *ONE.threshold[1:]))
    assert said(compiled(below), np.array([[NAN, 0.0, 0.0], [0.0, 0.0, NAN]])).tolist() == [3.0, 3.0]


def test_no_trees_say_nothing():
    assert flaw(Trees(), 3) == ""
    assert said(compiled(Trees()), np.ones((2, 3))).tolist() == [0.0, 0.0]


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_all_trees_at_once_say_the_sum_of_a_walk_down_each(seed, count):
    draws = np.random.default_rng(seed)
    trees = Trees(
        tuple(draws.integers(0, 4, 7 * count).tolist()),
        tuple(draws.standard_normal(7 * count).round(1).tolist()),
        tuple(draws.standard_normal(8 * count).tolist()),
    )
    x = draws.standard_normal((3, 4)).round(1)
    assert said(compiled(trees), x) == pytest.approx([by_hand(trees, row) for row in x], abs=1e-12)


def test_trees_come_back_from_the_wire_as_they_were():
    back = msgspec.msgpack.decode(msgspec.msgpack.encode(ONE), type=Trees)
    assert back == ONE and flaw(back, 3) == ""


# --- what is none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"feature": ONE.feature[:-1]}, "no whole trees of depth 3"),
        ({"threshold": ONE.threshold * 2}, "no whole trees of depth 3"),
        ({"leaf": ONE.leaf[:-1]}, "no whole trees of depth 3"),
        ({"leaf": ()}, "no whole trees of depth 3"),
        ({"feature": (3, *ONE.feature[1:])}, "a feature that is none of 3"),
        ({"feature": (-1, *ONE.feature[1:])}, "a feature that is none of 3"),
        ({"threshold": (NAN, *ONE.threshold[1:])}, "a number that is none"),
        ({"leaf": (*ONE.leaf[1:], NAN)}, "a number that is none"),
        ({"leaf": (*ONE.leaf[1:], INF)}, "a number that is none"),
    ],
)
def test_what_is_no_model_is_refused_and_why(changed, why):
    assert flaw(ONE, 3) == ""
    assert flaw(msgspec.structs.replace(ONE, **changed), 3) == why


def test_more_trees_than_anybody_grows_are_refused():
    many = Trees(ONE.feature * TREES_MOST, ONE.threshold * TREES_MOST, ONE.leaf * TREES_MOST)
    assert flaw(many, 3) == ""
    more = Trees(*(part + one for part, one in zip(msgspec.structs.astuple(many), msgspec.structs.astuple(ONE))))  # noqa: B905
    assert flaw(more, 3) == "501 trees: at most 500"


# --- lessons --------------------------------------------------------------------------------------------------


def read(lessons):
    """(x [n, k], y [n], known_days [n]) as lists."""
    x, y, days = (np.frombuffer(part, "<f4") for part in (lessons.x, lessons.y, lessons.known_days))
    return x.reshape(-1, lessons.k).tolist(), y.tolist(), days.tolist()


def ask(book, day, outcome, mark=None):
    """A lesson of two regressors, the first of which says which it is."""
    book.add(np.array([[day if mark is None else mark, u] for u in range(len(outcome))]), np.array(outcome), day)


def test_a_book_nobody_wrote_in_is_empty():
    assert LessonBook(2, 3).lessons(5.0) == Lessons(5.0, 3, b"", b"", b"")


def test_lessons_are_pooled_in_the_order_their_outcomes_were_known():
    book = LessonBook(2, 2)
    for day, outcome in ((729.0, (1.0, 2.0)), (730.0, (3.0, NAN)), (731.0, (4.0, 5.0))):  # the ring turns between
        ask(book, day, outcome)
    lessons = book.lessons(1.0)
    x, y, days = read(lessons)
    assert (lessons.horizon_days, lessons.k) == (1.0, 2)
    assert y == [1.0, 2.0, 3.0, 4.0, 5.0] and days == [729.0, 729.0, 730.0, 731.0, 731.0]
    assert x == [[729.0, 0.0], [729.0, 1.0], [730.0, 0.0], [731.0, 0.0], [731.0, 1.0]]


def test_of_each_day_and_underlying_the_first_lesson_that_has_an_outcome_is_kept():
    book = LessonBook(2, 2)
    for hour in range(72):
        ask(book, 20_000.0 + hour / 24.0, (hour, NAN if hour < 5 else hour))
    assert read(book.lessons(1.0))[1] == [0.0, 5.0, 24.0, 24.0, 48.0, 48.0]


def test_the_oldest_lessons_are_dropped():
    book = LessonBook(1, 2)
    for day in range(20_000, 20_000 + LESSON_DAYS + 3):
        ask(book, float(day), (1.0,))
    days = read(book.lessons(1.0))[2]
    assert len(days) == LESSON_DAYS and days[0] == 20_003.0
    ask(book, 20_000.0 + LESSON_DAYS + 500, (2.0,))  # after a long silence
    days = read(book.lessons(1.0))[2]
    assert days[0] == 20_501.0 and days[-1] - days[0] == LESSON_DAYS - 1
    ask(book, 40_000.0, (3.0,))
    assert read(book.lessons(1.0))[1:] == ([3.0], [40_000.0])


def test_new_regressors_were_0_in_all_that_was_asked_before():
    book = LessonBook(1, 2)
    ask(book, 20_000.0, (1.0,))
    book.widen(2)
    book.add(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([5.0]), 20_001.0)
    lessons = book.lessons(1.0)
    assert lessons.k == 4
    assert read(lessons)[0] == [[20_000.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]]


def test_two_underlyings_fill_a_question_of_some_hundred_kilobytes():
    book = LessonBook(2, 21)
    for day in range(20_000, 20_000 + 2 * LESSON_DAYS):
        book.add(np.ones((2, 21)), np.ones(2), float(day))
    assert 100_000 < len(msgspec.msgpack.encode(book.lessons(1.0))) < 200_000
