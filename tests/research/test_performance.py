"""Figures of a run: each against a record whose answer is known without the code."""

import json

import numpy as np
import pytest

from dea_daemon.domain.errors import DataError
from dea_daemon.research.performance import (
    attribution,
    calendar_years,
    daily_returns,
    drawdowns,
    figures,
    in_band,
    parts,
    rolling_vol,
    worst_days,
)
from tests.research.records import HOUR_NS, START_NS, by_hand, simulated

YEAR_HOURS = 8_760
DAY_NS = 24 * HOUR_NS


def alternating(hours, share):
    """Equity that rises and falls by `share` in turn, hour by hour."""
    moves = np.where(np.arange(hours) % 2 == 0, 1 + share, 1 / (1 + share))
    return 1000.0 * np.append(1.0, np.cumprod(moves))


def test_doubling_in_two_years_is_forty_one_per_cent_a_year():
    told = figures(by_hand(np.geomspace(100.0, 200.0, 2 * YEAR_HOURS + 1)))
    assert told["annual_return"] == pytest.approx(2**0.5 - 1)
    assert told["total_return"] == pytest.approx(1.0)


def test_return_counts_from_the_capital_not_from_the_first_decision():
    told = figures(by_hand(np.full(YEAR_HOURS + 1, 99.0), capital=100.0))
    assert told["annual_return"] == pytest.approx(-0.01)
    assert told["attribution"]["change_usd"] == -1.0


def test_a_few_days_are_not_annualised():
    assert figures(by_hand(np.geomspace(100.0, 110.0, 100)))["annual_return"] is None


def test_volatility_is_that_of_the_returns_times_the_root_of_their_number_a_year():
    told = figures(by_hand(alternating(YEAR_HOURS, 0.01)))
    assert told["annual_vol"] == pytest.approx(0.01 * YEAR_HOURS**0.5, rel=0.01)
    assert told["annual_vol_daily"] == pytest.approx(0.0, abs=1e-9)  # every day ends where it began


def test_a_year_is_counted_by_the_clock_where_bars_are_missing():
    whole = by_hand(alternating(1_000, 0.01))
    every_second_week_missing = START_NS + HOUR_NS * np.arange(1_001) + (np.arange(1_001) >= 500) * 1_000 * HOUR_NS
    holed = whole._replace(at_ns=every_second_week_missing)
    assert figures(holed)["annual_vol"] == pytest.approx(figures(whole)["annual_vol"] / 2**0.5, rel=1e-6)


def test_midnight_closes_the_day_before():
    at_ns = START_NS + HOUR_NS * np.arange(1, 49)  # 01:00 … 24:00, twice
    equity = np.where(at_ns <= START_NS + DAY_NS, 100.0, 110.0)
    assert daily_returns(by_hand(equity)._replace(at_ns=at_ns)) == pytest.approx([0.0, 0.1])


def test_sharpe_is_the_daily_mean_over_the_daily_deviation():
    daily = np.tile([0.02, -0.01, 0.005, 0.0], 100)
    told = figures(by_hand(1000.0 * np.append(1.0, np.cumprod(1 + daily)), step_ns=DAY_NS))
    assert told["sharpe"] == pytest.approx(daily.mean() / daily.std(ddof=1) * 365**0.5)


def test_nothing_that_moves_has_no_sharpe_ratio():
    assert figures(by_hand(np.full(1_000, 100.0)))["sharpe"] is None


def test_windows_on_target_are_counted_among_all_of_them():
    calm, wild = 0.2 / YEAR_HOURS**0.5, 0.4 / YEAR_HOURS**0.5
    months = 24 * 30
    on_target = by_hand(alternating(4 * months, calm), target_vol=0.2)
    assert figures(on_target)["windows_within_25pct"] == 1.0
    assert figures(on_target)["vol_ratio"] == pytest.approx(1.0, rel=0.01)
    moves = np.append(np.diff(np.log(alternating(2 * months, calm))), np.diff(np.log(alternating(2 * months, wild))))
    half = by_hand(1000.0 * np.exp(np.append(0.0, np.cumsum(moves))), target_vol=0.2)
    # Of 1 + 3 months of window ends: on target while the wild share w of a window has 1 + 3 w ≤ 1.25².
    expected = (months + 1 + months * (1.25**2 - 1) / 3) / (3 * months + 1)
    assert figures(half)["windows_within_25pct"] == pytest.approx(expected, abs=2 / (3 * months))


def test_without_a_target_or_a_full_window_nothing_is_said_of_either():
    told = figures(by_hand(alternating(5_000, 0.001)))
    assert (told["target_vol"], told["vol_ratio"], told["windows_within_25pct"]) == (None, None, None)
    short = figures(by_hand(alternating(100, 0.001), target_vol=0.2))
    assert short["windows_within_25pct"] is None and short["windows"] == 0


def test_rolling_volatility_is_that_of_each_window_alone():
    record = simulated(24 * 90)
    at_ns, vol = rolling_vol(record)
    window = record.returns[200 : 200 + 720]
    assert vol[200] == pytest.approx(np.sqrt((window**2).sum() * 365 / 30))
    assert at_ns[200] == record.at_ns[920]


def test_a_window_over_missing_bars_is_as_long_as_the_clock_says():
    record = by_hand(alternating(1_000, 0.01))
    holed = record._replace(at_ns=record.at_ns + (np.arange(1_001) >= 500) * 720 * HOUR_NS)
    assert rolling_vol(holed)[1] == pytest.approx(rolling_vol(record)[1] / 2**0.5)


def test_deepest_fall_has_its_dates_and_its_length():
    told = figures(by_hand([100, 120, 90, 60, 90, 120, 130, 125], step_ns=DAY_NS))
    assert told["max_drawdown"] == pytest.approx(0.5)
    fall = told["drawdown"]
    assert [fall[key][:10] for key in ("from", "bottom", "until")] == ["2020-01-02", "2020-01-04", "2020-01-06"]
    assert (fall["days"], fall["longest_days"]) == (4.0, 4.0)


def test_a_fall_not_made_good_lasts_to_the_end():
    told = figures(by_hand([100, 120, 90, 60, 90], step_ns=DAY_NS))
    assert told["drawdown"]["until"] is None and told["drawdown"]["days"] == 3.0


def test_cost_turnover_and_funding_are_per_year_of_mean_equity():
    t = 2 * YEAR_HOURS + 1
    grow = np.linspace(0.0, 1.0, t)
    record = by_hand(
        np.full(t, 1_000.0),
        fees_usd=20 * grow,
        slippage_usd=10 * grow,
        turnover_usd=4_000 * grow,
        funding_usd=-60 * grow,
        exposure_usd=np.full((t, 1), -500.0),
    )
    told = figures(record)
    assert told["cost_per_year"] == pytest.approx(0.015) and told["fees_per_year"] == pytest.approx(0.010)
    assert told["turnover_per_year"] == pytest.approx(2.0)
    assert told["funding_per_year"] == pytest.approx(-0.03) and told["carry"] == pytest.approx(-0.06)
    assert told["leverage"] == {"mean": pytest.approx(0.5), "max": pytest.approx(0.5)}


@pytest.mark.parametrize("seed", range(20))
def test_attribution_adds_up_to_the_change_of_equity_to_the_cent(seed):
    draws = np.random.default_rng(seed)
    t = 50
    record = by_hand(
        1e5 + draws.normal(0, 300, t).cumsum(),
        capital=1e5,
        fees_usd=draws.random(t).cumsum(),
        funding_usd=draws.normal(0, 3, t).cumsum(),
        slippage_usd=draws.normal(0, 1, t).cumsum(),
        market_usd=draws.normal(0, 300, (t, 1)).cumsum(axis=0),
    )
    told = attribution(record)
    cents = [round(100 * row["usd"]) for row in told["parts"]]
    assert sum(cents) == round(100 * (record.equity_usd[-1] - 1e5)) == round(100 * told["change_usd"])
    assert all(abs(100 * row["usd"] - cent) < 1e-6 for row, cent in zip(told["parts"], cents, strict=True))


def test_what_is_fully_explained_leaves_no_rest():
    rows = {row["name"]: row["usd"] for row in attribution(simulated(24 * 60))["parts"]}
    assert abs(rows["rest"]) <= 0.03  # each of the others is rounded to a cent
    assert rows["fees"] < 0 and rows["slippage"] < 0 and rows["funding"] < 0


def test_parts_add_up_at_every_decision():
    record = simulated(24 * 30)
    assert np.sum([*parts(record).values()], axis=0) == pytest.approx(record.equity_usd - record.capital_usd)


def test_the_worst_day_is_told_with_what_made_it():
    equity = np.full(24 * 5 + 1, 1_000.0)
    price, market = np.full((len(equity), 1), 100.0), np.zeros((len(equity), 1))
    equity[60:] -= 100.0  # on the third day
    price[60:] = 80.0
    market[60:] = -100.0
    exposure = np.full((len(equity), 1), 500.0)
    (worst,) = worst_days(by_hand(equity, price=price, market_usd=market, exposure_usd=exposure))
    assert worst["date"] == "2020-01-03" and worst["return"] == pytest.approx(-0.1)
    assert worst["usd"]["market BTC"] == -100.0 and worst["usd"]["rest"] == 0.0
    assert worst["why"] == "BTC −10.0 % (moved −20.0 %, held +50.0 % of equity)"


@pytest.mark.parametrize(("fees", "told"), [(30.0, True), (10.0, False)])
def test_a_part_is_named_where_it_made_a_seventh_of_the_day_or_more(fees, told):
    late = np.arange(60) >= 30
    record = by_hand(1_000.0 - 100.0 * late, fees_usd=fees * late, market_usd=(fees - 100.0) * late[:, None])
    (worst,) = worst_days(record)
    assert worst["why"].startswith("BTC") and ("fees" in worst["why"]) is told


def test_a_day_of_costs_blames_the_costs():
    equity = np.append(np.full(30, 1_000.0), np.full(30, 980.0))
    fees = np.append(np.zeros(30), np.full(30, 20.0))
    (worst,) = worst_days(by_hand(equity, fees_usd=fees))
    assert worst["why"] == "fees −2.0 %"


def test_worst_days_are_the_lowest_first():
    days = worst_days(simulated(24 * 100))
    returns = [row["return"] for row in days]
    assert len(returns) == 10 and returns == sorted(returns) and returns[0] == daily_returns(simulated(24 * 100)).min()


def test_time_in_band_counts_only_decisions_with_a_target():
    target = np.array([[np.nan], [100.0], [100.0], [100.0]])
    record = by_hand(
        [1, 1, 1, 1],
        target_usd=target,
        band_usd=np.full((4, 1), 10.0),
        exposure_usd=np.array([[0.0], [90.0], [110.1], [100.0]]),
    )
    assert in_band(record) == {"BTC": pytest.approx(2 / 3), "all": pytest.approx(2 / 3)}
    assert in_band(by_hand([1, 1])) == {"BTC": None, "all": None}


def test_limits_are_told_tightest_first_and_what_was_not_measured_does_not_count():
    used = np.array([[0.2, np.nan, np.nan], [0.4, 1.2, np.nan], [0.3, 0.8, np.nan]])
    rows = figures(by_hand([1, 1, 1], limits=("gross", "margin", "none"), used=used))["limits"]
    assert [row["name"] for row in rows] == ["margin", "gross"]
    assert rows[0]["max"] == 1.2 and rows[0]["mean"] == pytest.approx(1.0) and rows[0]["above"] == 0.5
    assert rows[0]["at"] == "2020-01-01 01:00"


def test_calendar_years_compound_to_the_whole():
    record = simulated(24 * 800)
    years = calendar_years(record)
    assert [row["year"] for row in years] == ["2020", "2021", "2022"]
    whole = np.prod([1 + row["return"] for row in years])
    assert whole == pytest.approx(record.equity_usd[-1] / record.equity_usd[0])


def test_a_ruined_account_ends_there():
    told = figures(by_hand([100, 50, 20, -5, 40, 80], step_ns=DAY_NS))
    assert told["ruined"] == "2020-01-04 00:00" and told["bars"] == 4
    assert told["total_return"] == -1.0 and told["max_drawdown"] > 1.0


@pytest.mark.parametrize("equity", [[100.0], [100.0, np.nan, 100.0], [0.0, 1.0]])
def test_figures_refuse_a_record_without_equity(equity):
    with pytest.raises(DataError):
        figures(by_hand(equity, capital=100.0))


def test_figures_refuse_a_sum_that_is_not_a_number():
    with pytest.raises(DataError, match="not a number"):
        figures(by_hand([1.0, 1.0, 1.0], fees_usd=np.array([0.0, np.nan, 1.0])))


def test_all_figures_fit_into_json():
    told = figures(simulated(24 * 100))
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_drawdown_is_nothing_at_a_high():
    assert drawdowns(np.array([1.0, 2.0, 1.0, 3.0])).tolist() == [0.0, 0.0, 0.5, 0.0]


def test_the_same_change_is_cut_by_what_was_decided():
    """Held at half its target while the price doubles: half is the target's, half was lost by standing off it."""
    price = np.array([[100.0], [200.0]])
    run = by_hand(
        [1_000.0, 1_093.0],
        price=price,
        target_usd=np.array([[200.0], [400.0]]),
        exposure_usd=np.array([[100.0], [200.0]]),
        market_usd=np.array([[0.0], [100.0]]),
        funding_usd=np.array([0.0, -5.0]),
        fees_usd=np.array([0.0, 2.0]),
    )
    made = {row["name"]: row["usd"] for row in attribution(run)["sources"]}
    assert made == {
        "the targets' direction": 200.0,
        "standing off the targets": -100.0,
        "carry (funding)": -5.0,
        "costs (fees, slippage)": -2.0,
        "rest": 0.0,
    }


def test_both_cuts_add_up_to_the_change_and_without_a_target_there_is_one():
    run = simulated(24 * 60)
    told = attribution(run)
    for cut in ("parts", "sources"):
        assert round(100 * sum(row["usd"] for row in told[cut])) == round(100 * told["change_usd"])
    assert attribution(by_hand(np.linspace(100.0, 90.0, 40)))["sources"] is None
