"""How good a run's forecasts were: worlds in which the right forecast is known, and runs that did not have it."""

import numpy as np
import pytest
from scipy import stats

from dea_daemon.domain.decisions import Contender, Forecaster
from dea_daemon.research.foresight import TAIL, VAR_LEAST, daily_vol, ewma_variance, foresight, realised_variance
from dea_daemon.research.report import facts, page
from tests.research.records import HOUR_NS, START_NS, by_hand

DAYS = 900


def world(told=lambda vol: vol, days=DAYS, seed=2, **columns):
    """Hourly prices whose annual volatility of the day changes from day to day; the run forecasts `told` of it."""
    draws = np.random.default_rng(seed)
    vol = 0.6 * np.exp(0.5 * np.repeat(draws.standard_normal(days), 24))
    price = 100.0 * np.exp(np.append(0.0, np.cumsum(vol * draws.standard_normal(24 * days) / np.sqrt(8_760.0))))
    t = len(price)
    # A day's forecast is known at its first decision.
    forecast = np.append(told(vol), 0.6)[:, None]
    return by_hand(np.full(t, 1_000.0), price=price[:, None], annual_vol=forecast, **columns)


def test_a_days_variance_is_the_sum_of_its_hours_squares_and_no_others():
    run = world(days=12)
    moves = np.diff(np.log(run.price[:, 0])) ** 2
    assert realised_variance(run)[:, 0] == pytest.approx(moves.reshape(12, 24).sum(axis=1))
    assert daily_vol(run)[3, 0] == pytest.approx(run.annual_vol[72, 0] / 365**0.5)


def test_the_plain_estimate_has_weights_of_ten_days_mean_age_and_knows_only_the_past():
    run = world(days=40)
    moves = np.diff(np.log(run.price[:, 0])) ** 2
    age = np.arange(24 * 30)[::-1] / 24.0
    weights = np.exp(-age / 10.0)
    assert ewma_variance(run)[30, 0] == pytest.approx(24 * weights @ moves[: 24 * 30] / weights.sum())
    assert np.isnan(ewma_variance(run)[0, 0])


def test_the_right_volatility_is_better_than_the_plain_estimate_by_more_than_chance():
    (row,) = foresight(world())["volatility"]
    assert row["qlike"] < 0.1 < row["ewma_qlike"] and row["t"] > 5.0 and row["p"] < 1e-6
    assert row["days"] == DAYS - 30


def test_a_bad_forecast_is_told_to_be_worse():
    (row,) = foresight(world(lambda vol: 0.36 / vol))["volatility"]
    assert row["t"] < -5.0


def test_losses_beyond_their_limit_are_as_many_as_said_where_the_volatility_is_right():
    row = foresight(world(days=2_400))["var"][0]
    assert row["expected"] == pytest.approx(TAIL * row["days"]) and row["days"] == 2_400 - VAR_LEAST
    low, high = stats.binom.interval(0.999, row["days"], TAIL)
    assert low <= row["exceeded"] <= high and row["kupiec_p"] > 0.01


def test_a_book_without_a_position_has_no_value_at_risk():
    assert [row["name"] for row in foresight(world())["var"]] == ["BTC"]
    t = 24 * DAYS + 1
    with_one = foresight(world(exposure_usd=np.full((t, 1), 500.0)))["var"]
    assert [row["name"] for row in with_one] == ["BTC", "the book"]


def test_noise_after_a_day_changes_nothing_told_of_it():
    run = world(days=400, exposure_usd=np.full((24 * 400 + 1, 1), 500.0))
    later = np.arange(len(run.at_ns)) > 24 * 380
    noisy = run._replace(price=np.where(later[:, None], 3.0 * run.price, run.price))
    for series in (realised_variance, daily_vol, ewma_variance):
        assert np.array_equal(series(run)[:380], series(noisy)[:380], equal_nan=True)


def test_a_short_run_is_not_judged_and_its_page_says_nothing_of_it():
    run = world(days=20)
    told = facts([run], paths=50)
    assert told["foresight"] == {"volatility": [], "var": [], "returns": [], "trials": [], "changes": []}
    assert "How good the forecasts were" not in page([run], told)


def test_the_page_shows_the_forecasts_and_claims_what_the_tests_support():
    one = Forecaster("ridge_5d", "BTC", 0.0, 0.1, 1_234, 0.01, 0.05, 0.0123, 0.512, 1.5)
    nothing = Forecaster("carry_1d", "BTC", 0.0, 0.0, 0, 0.0, 0.0, np.nan, np.nan, np.nan)
    run = world()._replace(forecasters=(one, nothing))
    told = facts([run], paths=50)
    text = page([run], told)
    assert "How good the forecasts were" in text and "better for BTC" in text
    assert "BTC, ridge 5d" in text and "51.2 %" in text and "+1.23 %" in text and "carry 1d" not in text
    worse = world(lambda vol: 0.36 / vol)
    assert "worse for BTC" in page([worse], facts([worse], paths=50))


def test_the_page_tells_who_is_on_trial_and_who_lost_its_weight():
    gone = Contender("ridge_5d", "return", "demoted", 0.0, 0.2, 80, 0.9, 0.01, 1.2, -0.3, "the trial: drifted")
    waits = Contender("momentum_5d", "return", "shadow", 0.0, 0.2, 0, 1.0, 1.0, 0.0, 0.0)
    model = Contender("har", "variance", "traded", 1.0, 1.0, 400, 1.0, 1.0, 0.1, float("nan"))
    change = (START_NS + 24 * HOUR_NS, "ridge_5d", "demoted", "the trial: drifted")
    run = world()._replace(contenders=(gone, waits, model), changes=(change,))
    told = facts([run], paths=50)
    assert [row["name"] for row in told["foresight"]["trials"]] == ["ridge_5d", "har"]
    text = page([run], told)
    assert "ridge 5d" in text and "the trial: drifted" in text and "120 %" in text and "momentum 5d" not in text


def test_decisions_once_a_day_are_judged_by_the_days_own_move():
    draws = np.random.default_rng(4)
    price = 100.0 * np.exp(np.append(0.0, np.cumsum(0.03 * draws.standard_normal(600))))[:, None]
    run = by_hand(
        np.full(601, 1_000.0),
        step_ns=24 * HOUR_NS,
        price=price,
        annual_vol=np.full((601, 1), 0.03 * 365**0.5),
        at_ns=START_NS + 24 * HOUR_NS * np.arange(601),
    )
    (row,) = foresight(run)["volatility"]
    assert row["qlike"] < row["ewma_qlike"] and row["days"] == 570
