"""Calibration beyond volatility: correlations, forecasters of returns, costs; none looks ahead."""

import numpy as np
import pytest

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.forecast import correlation
from dea_daemon.forecast.volatility import VolatilityMemory, expected_variance, sample
from dea_daemon.research import calibration, forecaster_trials
from dea_daemon.research.measured_costs import LEAST_DAYS, Filled, measured
from dea_daemon.research.validation import qlike
from tests.research.test_validation_calibration import HOURLY, START_NS, restless

SIX_HOURLY = HOURLY.model_copy(update={"learners": HOURLY.learners.model_copy(update={"every_s": 21_600.0})})


def as_the_daemon_would(prices, params):
    """(mean correlation [D], variance [D, U]) at each midnight but the last."""
    memory, means, variance = VolatilityMemory(2), [], []
    for now_ns, usd in zip(prices.at_ns.tolist(), prices.usd, strict=True):
        sample(memory, now_ns, usd, params)
        if now_ns % NS_PER_DAY == 0:
            means.append(correlation.correlation(memory.correlation, params).mean())
            variance.append(expected_variance(memory, params))
    return np.array(means[:-1]), np.array(variance[:-1])


def moved_together(days, seed=3):
    """As `restless`, and two underlyings that share more of their moves by the month."""
    prices = restless(days, seed)
    steps = np.diff(np.log(prices.usd), axis=0, prepend=np.log(1_000.0))
    share = np.repeat(np.arange(days) // 30 % 2, 24) * 0.9
    steps[:, 1] = share * steps[:, 0] + np.sqrt(1.0 - share**2) * steps[:, 1]
    return prices._replace(usd=1_000.0 * np.exp(np.cumsum(steps, axis=0)))


def test_each_half_life_of_correlations_foretells_what_the_daemon_would_with_it():
    prices, trials = moved_together(50), calibration.correlation_trials(HOURLY)[:4]
    means, variance = calibration.foretold_together(prices, trials)
    for found, trial in zip(means, trials, strict=True):
        own_mean, own_variance = as_the_daemon_would(prices, trial)
        assert found == pytest.approx(own_mean, rel=1e-12)
        assert variance == pytest.approx(own_variance, rel=1e-12)
    assert len({round(float(x), 9) for x in means[:, -1]}) == 4


def test_a_book_is_judged_by_the_squares_of_its_own_hours_in_standard_deviations():
    prices = moved_together(70)
    days = calibration.days_of(prices)
    means, variance = calibration.foretold_together(prices, [HOURLY])
    losses = calibration.book_losses(prices, days, means, variance)
    day = calibration.WARM_DAYS  # the first that counts; its midnight is the close 24 (day + 1) - 1
    first = 24 * (day + 1) - 1
    hours = np.diff(np.log(prices.usd[first : first + 25]), axis=0) / np.sqrt(variance[day])
    realised = (hours.mean(axis=1) ** 2).sum()
    assert losses.shape == (69 - calibration.WARM_DAYS, 1)
    assert losses[0, 0] == pytest.approx(qlike(realised, means[0, day]))


def test_correlations_that_change_by_the_month_are_not_best_remembered_for_half_a_year():
    prices = moved_together(240)
    trials = calibration.correlation_trials(HOURLY)
    losses = calibration.book_losses(
        prices, calibration.days_of(prices), *calibration.foretold_together(prices, trials)
    )
    by_days = dict(zip(calibration.CORRELATION_DAYS, losses.mean(axis=0)[1:], strict=True))
    assert min(by_days, key=by_days.__getitem__) <= 20.0 and min(by_days.values()) < by_days[160.0]


# --- forecasters ---------------------------------------------------------------------------------------------


def test_one_run_tries_a_value_of_each_option_and_the_first_is_the_incumbent():
    trials = [trial.learners for trial in forecaster_trials.trials_of(HOURLY)]
    assert trials[0] == HOURLY.learners and len(trials) == 6
    assert tuple(trial.half_life_days for trial in trials[1:]) == forecaster_trials.VALUES["half_life_days"]
    assert tuple(trial.prior_sharpe for trial in trials[1:]) == forecaster_trials.VALUES["prior_sharpe"]


def test_zero_and_prior_err_by_what_came_in_standard_deviations_of_when_it_was_said():
    prices = restless(30)
    zero, ridge, prior = forecaster_trials.squared_errors(prices, SIX_HOURLY)
    _, variance = as_the_daemon_would(prices, SIX_HOURLY)
    log_price = np.log(prices.usd[23::24])
    outcomes = [
        np.clip((log_price[20 + days] - log_price[20]) / np.sqrt(variance[20] * days), -4.0, 4.0) for days in (1, 5)
    ]
    sharpe = [0.5 * np.sqrt(days / 365.0) for days in (1, 5)]
    assert zero[20] == pytest.approx(np.mean(np.square(outcomes)))
    assert prior[20] == pytest.approx(np.mean([(s - o) ** 2 for s, o in zip(sharpe, outcomes, strict=True)]))
    assert np.isfinite(ridge[:-5]).all() and np.isnan(ridge[-5:]).all()


def test_what_comes_after_a_days_outcome_changes_no_error_before_it():
    prices = restless(40)
    noisy = prices._replace(usd=prices.usd.copy())
    later = prices.at_ns > START_NS + 30 * NS_PER_DAY
    noisy.usd[later] *= np.exp(0.05 * np.random.default_rng(4).standard_normal((int(later.sum()), 2)))
    given, changed = (forecaster_trials.squared_errors(each, SIX_HOURLY) for each in (prices, noisy))
    assert (given[:, :25] == changed[:, :25]).all()  # midnight 24 is day 25's; its five days end on the 30th
    assert (given[:, 25] != changed[:, 25]).all()


def test_losses_that_are_known_days_later_choose_days_later():
    losses = 0.5 + 0.1 * np.random.default_rng(1).standard_normal((800, 2))
    told = calibration.verdict(losses, horizon=5)
    first = int(told.forward.first[0])
    unknown = losses.copy()
    unknown[first - 4 - calibration.EMBARGO_DAYS : first, 1] -= 1e3
    assert calibration.verdict(unknown, horizon=5).forward.trial[0] == told.forward.trial[0]
    known = losses.copy()
    known[first - 5 - calibration.EMBARGO_DAYS, 1] -= 1e3
    assert calibration.verdict(known, horizon=5).forward.trial[0] == 1


# --- costs -----------------------------------------------------------------------------------------------------


def fills(of_day_bp, orders=3, usd=1_000.0):
    days = np.repeat(np.arange(len(of_day_bp)), orders)
    beyond = np.repeat(np.asarray(of_day_bp) * 1e-4 * usd, orders)
    return Filled(START_NS + days * NS_PER_DAY, np.full(len(days), usd), np.full(len(days), 5e-4 * usd), beyond)


def test_one_wild_day_does_not_speak_for_all():
    usual = np.random.default_rng(2).normal(2.0, 0.5, 60)
    wild = usual.copy()
    wild[7] = 5_000.0
    calm, stormy = (measured(made, made.beyond_usd) for made in map(fills, (usual, wild)))
    assert calm.days == 60 and calm.mean_bp == pytest.approx(2.0, abs=3 * calm.error_bp)
    assert abs(stormy.mean_bp - calm.mean_bp) < calm.error_bp


def test_the_error_is_that_of_days_however_many_orders_they_had():
    usual = np.random.default_rng(2).normal(2.0, 0.5, 60)
    few, many = (measured(made, made.beyond_usd) for made in (fills(usual, 1), fills(usual, 50)))
    assert few == pytest.approx(many)


def test_noise_is_called_a_difference_as_rarely_as_said():
    draws = np.random.default_rng(5)
    p = [
        measured(made, made.beyond_usd).above(2.0)[1]
        for made in (fills(draws.normal(2.0, 1.0, 40), 1) for _ in range(400))
    ]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09


@pytest.mark.parametrize("of_day", [[2.0] * LEAST_DAYS, list(range(LEAST_DAYS - 1)), [1.0, np.nan] * LEAST_DAYS])
def test_too_few_days_or_days_that_say_nothing_have_no_mean(of_day):
    made = fills(of_day)
    with pytest.raises(DataError):
        measured(made, made.beyond_usd)
