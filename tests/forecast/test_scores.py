"""Scores of forecasts and the weights they earn: against a published program, and by hand."""

import math

import numpy as np
import pytest

from dea_daemon.forecast.combine import capped, first_weights, shared
from dea_daemon.forecast.scores import Scores

OUTCOMES = np.array([math.sin(1.7 * k) + 0.3 * math.cos(0.4 * k) for k in range(60)])
SAID = np.array([0.4 * math.sin(1.7 * k + 0.5) + 0.1 * math.cos(k) for k in range(60)])
# dm_test(OUTCOMES, zeros, SAID, h=h, harvey_correction=True) of the package dieboldmariano 1.1.0, by h
PUBLISHED = {1: 7.341424747232678, 3: 9.642947526372229, 5: 16.054710849797136}


def scored(steps, outcomes=OUTCOMES, said=SAID):
    scores = Scores(steps, 1, 1)
    for one, came in zip(said, outcomes, strict=True):
        scores.add(np.array([[one]]), np.array([came]))
    return scores


@pytest.mark.parametrize("steps", PUBLISHED)
def test_t_is_that_of_a_published_program(steps):
    assert scored(steps).t()[0, 0] == pytest.approx(PUBLISHED[steps], rel=1e-9)


def test_r_squared_hits_and_deviation_are_what_they_are_called():
    scores = scored(1)
    squared = np.sum((OUTCOMES - SAID) ** 2)
    assert scores.r_squared()[0, 0] == pytest.approx(1.0 - squared / np.sum(OUTCOMES**2))
    assert scores.hit_rate()[0, 0] == pytest.approx(np.mean(np.sign(OUTCOMES) == np.sign(SAID)))
    assert scores.deviation()[0, 0] == pytest.approx(np.sqrt((squared + 20.0) / 80.0))


def test_outcomes_nobody_knows_count_for_nothing():
    outcomes = OUTCOMES.copy()
    outcomes[::7] = np.nan
    known = np.isfinite(outcomes)
    gain = outcomes[known] ** 2 - (outcomes - SAID)[known] ** 2
    scores = scored(1, outcomes)
    assert scores.count[0] == known.sum()
    n = known.sum()
    assert scores.t()[0, 0] == pytest.approx(gain.mean() / np.sqrt(gain.var() / (n - 1)))
    assert np.isfinite(scored(5, outcomes).t()[0, 0])


def test_no_t_is_told_of_zero_itself_or_of_too_few():
    assert np.isnan(scored(1, said=np.zeros(60)).t()[0, 0])
    assert np.isnan(scored(7).t()[0, 0])  # fewer than ten horizons
    empty = Scores(3, 1, 1)
    assert np.isnan([empty.t(), empty.r_squared(), empty.hit_rate()]).all() and empty.deviation()[0, 0] == 1.0


@pytest.mark.parametrize("steps", [0, 2, 5, 17])
def test_passing_over_steps_is_as_if_each_had_brought_nothing(steps):
    whole, one_by_one = scored(5), scored(5)
    whole.pass_over(steps)
    for _ in range(steps):
        one_by_one.add(np.array([[0.3]]), np.array([np.nan]))
    for scores in (whole, one_by_one):
        for k in range(7):
            scores.add(np.array([[SAID[k]]]), np.array([OUTCOMES[k]]))
    assert whole.t() == pytest.approx(one_by_one.t(), rel=1e-12) and (whole.both == one_by_one.both).all()
    assert whole.products == pytest.approx(one_by_one.products, rel=1e-12)


def test_scores_need_no_more_memory_after_years():
    scores = scored(5)
    size = sum(getattr(scores, name).nbytes for name in ("recent", "products", "newer", "older", "both", "seen"))
    for _ in range(5_000):
        scores.add(np.array([[0.1]]), np.array([0.2]))
    assert size == sum(getattr(scores, n).nbytes for n in ("recent", "products", "newer", "older", "both", "seen"))


def test_weight_goes_to_who_is_right_and_comes_back_when_another_is():
    weights, said = first_weights(3), np.array([[0.0], [0.5], [-0.5]])
    assert weights == pytest.approx([0.5, 0.25, 0.25])
    for _ in range(200):
        weights = shared(weights, said, np.array([0.5]), 1.0, 1.0)
    assert weights[1] > 0.9 and weights.sum() == pytest.approx(1.0)
    for _ in range(60):
        weights = shared(weights, said, np.array([-0.5]), 1.0, 1.0)
    assert weights[2] > 0.9


def test_overlapping_outcomes_count_as_what_is_new_in_them():
    said = np.array([[0.0], [0.4]])
    once = shared(first_weights(2), said, np.array([1.0]), 1.0, 0.0)
    many = first_weights(2)
    for _ in range(24):
        many = shared(many, said, np.array([1.0]), 1.0 / 24.0, 0.0)
    assert many == pytest.approx(once)


def test_an_unknown_outcome_or_a_crash_does_not_choose_the_forecaster():
    said = np.array([[0.0, 0.0], [0.4, 0.4]])
    assert shared(first_weights(2), said, np.full(2, np.nan), 1.0, 0.0) == pytest.approx(first_weights(2))
    crash, large = (shared(first_weights(2), said, np.full(2, z), 1.0, 0.0) for z in (-50.0, -3.0))
    assert crash == pytest.approx(large)


def test_the_cap_holds_for_all_horizons_together_and_leaves_what_is_below_it():
    vol = np.array([0.6, 0.6]) / np.sqrt(365.0)
    most = 0.6 / 365.0  # a Sharpe ratio of one
    returns = np.array([[3.0 * most, 0.2 * most], [-most, 0.3 * most]])
    kept = capped(returns, vol, 1.0)
    assert np.abs(kept[:, 0]).sum() == pytest.approx(most) and kept[0, 0] == pytest.approx(-3.0 * kept[1, 0])
    assert kept[:, 1] == pytest.approx(returns[:, 1])
