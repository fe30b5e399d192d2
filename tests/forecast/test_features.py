"""Features: by hand, and of a random walk near what they claim to be."""

import numpy as np
import pytest

from dea_daemon.forecast import features
from tests.guards.views import WITH_OPTIONS, view

VOL = np.full(1, 0.03)


def past_of(price, step_days=1.0):
    past = features.Past(1, step_days)
    for slot, one in enumerate(price):
        past.add(slot, np.array([one]))
    return past


def ratio_of(returns, step_days=1.0 / 24.0):
    return features.variance_ratio(past_of(np.exp(np.cumsum(returns)), step_days), VOL)[0]


def test_a_return_is_counted_in_standard_deviations_and_unknown_before_there_is_so_much_past():
    past = past_of(100.0 * np.exp(0.01 * np.arange(10)))
    assert features.scaled_return(past, VOL, 7.0) == pytest.approx([0.07 / (0.03 * np.sqrt(7.0))])
    assert np.isnan(features.scaled_return(past, VOL, 28.0)).all()


def test_on_a_grid_finer_than_the_recalled_hours_a_return_begins_within_the_hour_before():
    past = features.Past(1, 1.0 / 288.0)
    for hour in range(24 * 8):
        past.add(12 * hour, np.exp(np.array([0.001 * hour])))
    for slot in range(12 * 191 + 1, 12 * 192):  # the run's own samples, at another price each
        past.add(slot, np.exp(np.array([1.0])))
        hours = (slot - 7 * 288) // 12
        assert features.scaled_return(past, VOL, 7.0) == pytest.approx([(1.0 - 0.001 * hours) / (0.03 * np.sqrt(7.0))])


def test_slots_that_were_passed_over_are_unknown_even_after_the_ring_went_round():
    past = past_of(np.full(85, 100.0))
    past.add(87, np.array([100.0]))
    assert np.isnan(past.back(1)) and np.isnan(past.back(2)) and past.back(3) == pytest.approx(np.log(100.0))
    past.add(1_000, np.array([100.0]))
    assert np.isnan(past.window(84)[:-1]).all()


def test_the_variance_ratio_of_a_random_walk_is_a_standard_normal():
    dice = np.random.default_rng(1)
    z = np.array([ratio_of(0.01 * dice.standard_normal(28 * 24 + 1)) for _ in range(150)])
    assert abs(z.mean()) < 0.3 and z.std() == pytest.approx(1.0, abs=0.2)


def test_it_is_high_where_prices_trend_and_low_where_they_come_back():
    steps = 0.01 * np.random.default_rng(2).standard_normal(28 * 24 + 8)
    trending = np.convolve(steps, np.ones(8), "valid")
    assert ratio_of(trending) > 5.0
    assert ratio_of(np.diff(steps)) < -2.0


def test_carry_is_the_perpetuals_mean_and_unknown_where_no_perpetual_tells():
    carry = np.array([0.001, 0.5, 0.003, np.nan])  # BTC perpetual, its future, another perpetual, ETH's perpetual
    told = features.perpetual_carry(view(universe=WITH_OPTIONS), carry)
    assert told[0] == pytest.approx(0.002) and np.isnan(told[1])


def test_the_smile_tells_a_premium_over_the_forecast_and_a_lean():
    smile = np.full((2, 3, 3), np.nan)
    smile[0, 1] = 0.66, -0.033, 0.01
    vol = np.full(2, 0.6) / np.sqrt(365.0)
    seen = view(smile=smile)
    assert features.variance_premium(seen, vol)[0] == pytest.approx(np.log(1.1) / 0.2)
    assert features.risk_reversal(seen, vol)[0] == pytest.approx(-0.05 / 0.1)
    assert np.isnan(features.variance_premium(seen, vol)[1])


def test_basis_and_open_interest_come_from_the_contracts_that_have_them():
    nothing = view().micro
    told = np.array([0.03, 0.10, np.nan, np.nan])  # the perpetual's is no basis
    seen = view(micro=nothing._replace(basis_annual=told, open_interest_change=told))
    assert features.basis(seen, VOL)[0] == pytest.approx(0.5)
    assert features.open_interest(seen, VOL)[0] == pytest.approx(0.6)
    assert np.isnan([features.basis(seen, VOL)[1], features.open_interest(seen, VOL)[1]]).all()


def test_what_is_unknown_counts_as_nothing_and_says_so_once_it_had_been_known():
    told = np.array([[1.0, np.nan], [np.nan, 9.0]])
    ever = np.array([[True, True], [False, True]])
    x = features.regressors(told, ever)
    assert x.tolist() == [[1.0, 1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 3.0, 1.0, 0.0]]
