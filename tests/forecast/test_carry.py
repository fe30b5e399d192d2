"""What contracts are expected to earn: a mean of what is to be believed."""

import numpy as np
import pytest

from dea_daemon.domain.parameters import ForecastParameters
from dea_daemon.forecast.carry import CarryMemory, carry_per_usd, observe
from tests.guards.views import MARK, view
from tests.house import BTC_FUTURE, BTC_PERP, START_NS, S

PARAMS = ForecastParameters(carry_half_life_h=1.0)
HOUR_NS = 3_600 * S


def paid(rate_8h, hours=0.0, **changes):
    return view(funding_rate_8h=np.array([rate_8h, 0.0, 0.0, 0.0]), now_ns=START_NS + int(hours * HOUR_NS), **changes)


def test_a_long_perpetual_pays_its_funding_three_times_a_day_and_a_cheap_future_earns_its_way_to_the_index():
    carry = carry_per_usd(paid(0.0005))
    assert carry[BTC_PERP] == pytest.approx(-0.0015)
    cheap = carry_per_usd(view(mark=MARK * np.array([1.0, 0.97, 1.0, 1.0]), index_price=MARK))
    assert cheap[BTC_FUTURE] == pytest.approx(-np.log(0.97) / 60.0 / 0.97)  # in coin, so of more dollars than its mark


def test_the_first_is_taken_as_it_is_and_what_changes_counts_by_half_after_the_half_life():
    memory = CarryMemory()
    assert observe(memory, paid(0.0005), PARAMS)
    assert memory.per_usd[BTC_PERP] == pytest.approx(-0.0015)
    assert observe(memory, paid(-0.0005, hours=1.0), PARAMS)
    assert memory.per_usd[BTC_PERP] == pytest.approx(0.0, abs=1e-12)
    assert not observe(memory, paid(-0.0005, hours=1.0), PARAMS)  # nothing is due


def test_a_rate_that_swings_around_nothing_ends_near_nothing():
    memory = CarryMemory()
    for minute in range(600):
        observe(memory, paid(0.001 if minute % 2 else -0.001, hours=minute / 60.0), PARAMS)
    assert abs(memory.per_usd[BTC_PERP]) < 0.0001


def test_what_is_unknown_stale_or_beyond_belief_changes_nothing():
    memory = CarryMemory()
    observe(memory, paid(0.0005), PARAMS)
    stale = np.array([False, True, True, True])
    false_index = {"index_price": MARK * 1.05}
    for hours, later in enumerate((paid(np.nan, 1.0), paid(0.02, 2.0), paid(-0.0005, 3.0, fresh=stale)), start=1):
        assert observe(memory, later, PARAMS), hours
        assert memory.per_usd[BTC_PERP] == pytest.approx(-0.0015)
    assert np.isnan(carry_per_usd(view(mark=MARK * np.array([1.0, 0.97, 1.0, 1.0]), **false_index))[BTC_FUTURE])
    assert np.isnan(carry_per_usd(view(mark=MARK * np.array([1.0, 0.5, 1.0, 1.0]), index_price=MARK))[BTC_FUTURE])


def test_after_a_long_silence_the_present_counts_for_all_there_is_to_know():
    memory = CarryMemory()
    observe(memory, paid(0.0005), PARAMS)
    stale = np.array([False, True, True, True])
    for hour in range(1, 73):
        observe(memory, paid(0.0005, float(hour), fresh=stale), PARAMS)
    observe(memory, paid(-0.0003, 73.0), PARAMS)
    assert memory.per_usd[BTC_PERP] == pytest.approx(0.0009)


def test_contracts_listed_later_join_with_what_they_earn():
    memory = CarryMemory()
    memory.per_usd, memory.known_ns = np.array([0.001]), np.array([START_NS - HOUR_NS])
    observe(memory, paid(0.0005), PARAMS)
    assert len(memory.per_usd) == 4 and np.isfinite(memory.per_usd).all()
