"""Slow factors in the core: when a value counts, what is believed, and how it fades."""

import numpy as np
import pytest

from dea_daemon.domain.events import FactorObserved
from dea_daemon.domain.parameters import SlowFactor
from dea_daemon.state.effects import Effects
from dea_daemon.state.factors import KEPT, LEAST, WAITING, SlowFactors

DAY = 86_400 * 10**9
HOUR = DAY // 24
START = 20_000 * DAY  # a midnight
RANDOM = np.random.default_rng(11)


class Told:
    """One factor told day by day, each value `lag` after its day began, received at once."""

    def __init__(self, **spec):
        self.effects = Effects()
        self.factors = SlowFactors({"vix": SlowFactor(**spec)})

    def tell(self, day, value, *, lag=DAY, receive=None, revision=0, name="vix"):
        event_ns = START + day * DAY
        publish_ns = event_ns + lag
        receive_ns = publish_ns if receive is None else START + receive
        self.factors.fold(FactorObserved(receive_ns, name, event_ns, publish_ns, float(value), revision), self.effects)

    def past(self, values):
        for day, value in enumerate(values):
            self.tell(day, value)

    def at(self, day_and_hours):
        return self.factors.at(START + int(day_and_hours * DAY), self.effects)

    @property
    def notes(self):
        return [note.event for note in self.effects.notes]


def walk(days=60, scale=1.0):
    return 20.0 + scale * np.cumsum(RANDOM.normal(size=days)) * 0.3


def deviation(values):
    """Of the last from all before it: numpy's own."""
    return (values[-1] - np.mean(values[:-1])) / np.std(values[:-1], ddof=1)


def test_a_value_is_told_in_deviations_of_its_own_past_and_fades_by_half_in_a_half_life():
    values = walk()
    told = Told(half_life_days=4.0)
    told.past(values)
    for age in (1.0, 4.0, 9.0):
        slow = told.at(len(values) - 1 + age)
        assert slow.names == ("vix",) and slow.valid.tolist() == [True]
        assert slow.age_days[0] == pytest.approx(age)
        assert slow.z[0] == pytest.approx(deviation(values) * 2 ** (-age / 4.0))


def test_without_any_a_factor_is_zero_and_says_so():
    slow = Told().at(5)
    assert slow.z.tolist() == [0.0] and slow.valid.tolist() == [False] and slow.age_days.tolist() == [np.inf]


@pytest.mark.parametrize("values", [walk(LEAST), np.full(100, 3.0)])
def test_too_short_a_past_or_one_that_never_moved_says_nothing(values):
    told = Told()
    told.past(values)
    slow = told.at(len(values) + 1)
    assert slow.z.tolist() == [0.0] and slow.valid.tolist() == [False]


def test_what_is_stale_is_missing():
    values = walk()
    told = Told(stale_days=10.0)
    told.past(values)
    assert told.at(len(values) - 1 + 10.0).valid[0]
    gone = told.at(len(values) - 1 + 10.1)
    assert not gone.valid[0] and gone.z[0] == 0.0 and gone.age_days[0] == pytest.approx(10.1)


def test_what_was_received_before_its_publication_counts_from_its_publication():
    values = walk()
    told, without = Told(), Told()
    told.past(values)
    without.past(values)
    day = len(values)
    told.tell(day, values[-1] + 1.0, lag=2 * DAY, receive=(day + 1) * DAY)
    assert told.at(day + 1.9).z[0] == without.at(day + 1.9).z[0]
    after = told.at(day + 2.0)
    assert after.age_days[0] == pytest.approx(2.0)
    assert after.z[0] == pytest.approx(deviation([*values, values[-1] + 1.0]) * 2 ** (-2 / 7))


def test_changing_all_that_is_received_later_changes_nothing_before_it():
    """The shifted-future test, of values, restatements and publications together."""

    def answers(future):
        told = Told()
        values = walk_of(5)
        seen = []
        for day in range(90):
            shown = values[day] if day < 60 else future(values[day])
            told.tell(day, shown, lag=36 * HOUR, receive=day * DAY + 30 * HOUR)
            if day % 7 == 0 and day > 10:
                told.tell(day - 3, shown * 1.01, receive=day * DAY + 31 * HOUR, revision=1)
            seen.append(told.at(day + 1.4).z[0])  # 33 hours and 36 minutes after the day began
            seen.append(told.at(day + 1.6).z[0])
        return np.array(seen)

    def walk_of(seed):
        return 20.0 + 0.3 * np.cumsum(np.random.default_rng(seed).normal(size=90))

    as_it_was, shifted = answers(lambda value: value), answers(lambda value: value + 0.7)
    first = 2 * 60 + 1  # day 60 is received at 60 d 30 h, and published at 60 d 36 h
    np.testing.assert_array_equal(as_it_was[:first], shifted[:first])
    assert as_it_was[first] != shifted[first]


def test_a_restatement_counts_from_its_receipt_and_is_told():
    values = walk()
    told = Told()
    told.past(values)
    day = len(values) - 1
    before = told.at(day + 2).z[0]
    told.tell(day, values[-1] + 0.5, receive=(day + 2) * DAY, revision=1)
    assert told.notes == ["factor.restated"]
    restated = [*values[:-1], values[-1] + 0.5]
    assert told.at(day + 2).z[0] == pytest.approx(deviation(restated) * 2 ** (-2 / 7)) != before


def test_an_older_revision_than_the_one_known_is_no_news():
    values = walk()
    told = Told()
    told.past(values)
    day = len(values) - 1
    told.tell(day, values[-1] + 0.5, receive=(day + 2) * DAY, revision=2)
    known = told.at(day + 3).z[0]
    told.tell(day, values[-1], receive=(day + 3) * DAY, revision=1)
    assert told.at(day + 3).z[0] == known


def test_a_value_that_is_taken_back_leaves_the_one_before_it():
    values = walk()
    told, without = Told(), Told()
    told.past(values)
    without.past(values[:-1])
    day = len(values) - 1
    told.tell(day, np.nan, receive=(day + 2) * DAY, revision=1)
    assert told.at(day + 2).z[0] == pytest.approx(without.at(day + 2).z[0])


@pytest.mark.parametrize("absurd", [-0.1, 100.1, np.inf, -np.inf])
def test_a_value_out_of_bounds_is_refused(absurd):
    told = Told(lowest=0.0, highest=100.0)
    values = walk()
    told.past(values)
    before = told.at(len(values) + 1).z[0]
    told.tell(len(values), absurd)
    assert told.at(len(values) + 1).z[0] == before
    assert told.notes == ["factor.refused"]


def test_a_jump_is_believed_once_the_next_value_agrees():
    values = walk()
    told = Told()
    told.past(values)
    day = len(values)
    told.tell(day, 500.0)
    assert told.notes == ["factor.refused"]
    assert told.at(day + 1).age_days[0] == pytest.approx(2.0)  # still of the day before
    level = [500.0 + 0.1 * k for k in range(8)]
    for k in range(1, 8):
        told.tell(day + k, level[k])
    assert told.at(day + 8).z[0] == pytest.approx(
        deviation([*values, *level]) * 2 ** (-1 / 7)
    )  # the first of them, too


def test_a_jump_that_comes_late_behind_a_newer_value_is_refused():
    values = walk()
    told = Told()
    for day in range(len(values)):
        if day != 40:
            told.tell(day, values[day])
    before = told.at(61).z[0]
    told.tell(40, 500.0, receive=60 * DAY)
    assert told.notes == ["factor.refused"] and told.at(61).z[0] == before
    told.tell(40, values[40], receive=60 * DAY)
    assert told.at(61).z[0] == pytest.approx(deviation(values) * 2 ** (-2 / 7))


def test_a_single_wrong_value_leaves_no_trace():
    values = walk()
    told, without = Told(), Told()
    for each in (told, without):
        each.past(values)
    told.tell(len(values), 500.0)
    for each in (told, without):
        each.tell(len(values) + 1, values[-1] + 0.1)
    when = len(values) + 2
    assert told.at(when).z[0] == without.at(when).z[0] != 0.0


def test_an_absurd_restatement_is_refused():
    values = walk()
    told = Told()
    told.past(values)
    before = told.at(len(values) + 1).z[0]
    told.tell(len(values) - 1, 1e9, receive=(len(values) + 1) * DAY, revision=1)
    assert told.at(len(values) + 1).z[0] == before and told.notes == ["factor.refused"]


def test_a_value_from_the_future_is_refused():
    told = Told()
    values = walk()
    told.past(values)
    before = told.at(len(values) + 1).z[0]
    told.tell(len(values) + 9, 21.0, lag=-9 * DAY)  # "published" before it happened
    assert told.at(len(values) + 1).z[0] == before and told.notes == ["factor.refused"]


def test_what_the_clock_of_its_receipt_has_not_reached_counts_once_the_wall_clock_has():
    """The receipt clock does not follow a step of the wall clock; values about "now" are dated by the latter."""
    told = Told()
    values = walk()
    told.past(values)
    day = len(values)
    told.tell(day, values[-1], lag=0, receive=day * DAY - 5 * 10**9)
    assert told.at(day - 1e-5).age_days[0] == pytest.approx(1.0, abs=1e-4)
    assert told.at(day).age_days[0] == 0.0 and told.notes == []


@pytest.mark.parametrize("still", [5.25, 0.0, -3.0])
@pytest.mark.parametrize("jump_sd", [0.5, 10.0])
def test_a_factor_that_never_moved_is_believed_again_soon_after_it_moves(still, jump_sd):
    told = Told(jump_sd=jump_sd)
    told.past([still] * 200 + [still + 0.01 * k for k in range(1, 30)])
    slow = told.at(229)
    assert slow.valid[0] and slow.age_days[0] < 5.0 and slow.z[0] > 0.0
    assert len(told.notes) < 20


@pytest.mark.parametrize("jump_sd", [0.5, 10.0])
def test_a_factor_whose_scale_grows_a_hundredfold_is_believed_again_within_ten_values(jump_sd):
    told = Told(jump_sd=jump_sd)
    random = np.random.default_rng(1)
    told.past(np.cumsum(np.r_[random.normal(0, 0.01, 200), random.normal(0, 1.0, 100)]))
    taken = [day for day in range(200, 300) if START + day * DAY in told.factors._of["vix"].value]
    assert taken[0] <= 210 and told.at(300).valid[0]
    assert jump_sd < 1.0 or len(taken) > 85


def test_a_little_of_the_level_is_never_a_jump():
    told = Told()
    told.past([100.0] * 60 + [100.05])
    assert told.notes == []


def test_nonsense_that_differs_each_time_is_not_believed_soon():
    told = Told()
    values = walk()
    told.past(values)
    for k in range(10):
        told.tell(len(values) + k, 1e9 * (-2.0) ** k)
    assert told.notes == ["factor.refused"] * 10
    told.tell(len(values) + 10, values[-1])
    assert told.notes == ["factor.refused"] * 10 and told.at(len(values) + 11).age_days[0] == pytest.approx(1.0)


def test_a_name_that_is_not_configured_is_nobodys_business():
    told = Told()
    told.tell(0, 1.0, name="other")
    assert told.notes == [] and told.at(3).names == ("vix",)


def test_values_in_any_order_of_receipt_give_the_same_deviation():
    values = walk(80)
    in_order, shuffled = Told(jump_sd=1e9), Told(jump_sd=1e9)
    in_order.past(values)
    for day in RANDOM.permutation(80).tolist():
        shuffled.tell(day, values[day], receive=100 * DAY)
    assert shuffled.at(101).z[0] == pytest.approx(in_order.at(101).z[0])


def test_memory_is_bounded():
    told = Told(jump_sd=1e9)
    values = walk(KEPT + 200)
    told.past(values)
    assert told.at(len(values)).z[0] == pytest.approx(deviation(values[-KEPT:]) * 2 ** (-1 / 7))
    for day in range(len(values), len(values) + 2 * WAITING):
        told.tell(day, 20.0, lag=900 * DAY, receive=(len(values) + 200) * DAY)
    assert told.notes.count("factor.refused") == WAITING


def test_nobody_can_write_to_what_the_view_shows():
    told = Told()
    told.past(walk())
    for array in (told.at(70).z, told.at(70).age_days, told.at(70).valid):
        with pytest.raises(ValueError):
            array[0] = 1
