"""What is found wrong with candles and funding rates, and what is mended."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.domain.errors import DataError
from dea_daemon.research.candles import Candles, FundingRates, aligned, from_trades, resampled
from dea_daemon.research.quality import (
    cleaned,
    cleaned_funding,
    findings,
    funding_findings,
    longest_run,
    missing,
    told,
)

H = 3_600_000_000_000
D = 24 * H
START = 1_609_459_200_000_000_000  # 2021-01-01


def hours(count: int = 200, start_ns: int = START, step_ns: int = H) -> Candles:
    """Candles that wander, without a fault."""
    close = 100.0 * np.exp(np.cumsum(np.random.default_rng(1).normal(0.0, 0.01, count)))
    opened = np.concatenate(([100.0], close[:-1]))
    high, low = np.maximum(opened, close) * 1.001, np.minimum(opened, close) * 0.999
    open_ns = start_ns + np.arange(count, dtype=np.int64) * step_ns
    return Candles(step_ns, open_ns, opened, high, low, close, np.full(count, 5.0))


def rows(candles: Candles, which) -> Candles:
    return Candles(candles.step_ns, candles.open_ns[which], *(column[which] for column in candles[2:]))


def spoiled(column: str, row: int, value: float) -> Candles:
    values = getattr(hours(), column).copy()
    values[row] = value
    return hours()._replace(**{column: values})


def said(candles: Candles) -> dict[str, tuple[int, bool]]:
    return {finding.what: (finding.count, finding.fatal) for finding in findings(candles)}


def without(*left_out: int, count: int = 200) -> Candles:
    return rows(hours(count), ~np.isin(np.arange(count), left_out))


# --- candles ------------------------------------------------------------------------------------------------


def test_candles_without_a_fault_are_found_clean_and_left_alone():
    candles, done = cleaned(hours())
    assert findings(hours()) == done == []
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(candles[1:], hours()[1:], strict=True))


def test_no_candles_at_all_is_fatal():
    assert said(rows(hours(), slice(0, 0))) == {"empty": (1, True)}


def test_a_gap_is_told_with_its_length_and_is_fatal_only_where_much_is_missing():
    few = findings(without(50, 51, 120))
    assert [(f.what, f.count, f.fatal, f.first_ns) for f in few] == [("gap", 2, False, START + 49 * H)]
    assert "3 of 200 candles missing (1.50%), longest 2 h after 2021-01-03 01:00" in few[0].why
    assert said(without(*range(50, 91))) == {"gap": (1, True)}
    assert missing(without(50, 51, 120)) == 3


def test_gaps_stay_gaps():
    candles, done = cleaned(without(50, 51))
    assert candles.open_ns.size == 198 and done == []


def test_unsorted_rows_and_exact_duplicates_are_mended_and_said():
    muddled = rows(hours(), np.array([*range(100), *range(150, 200), *range(100, 150), 3, 3]))
    assert said(muddled) == {"unsorted": (2, False), "duplicate": (2, False)}
    candles, done = cleaned(muddled)
    assert {finding.what for finding in done} == {"unsorted", "duplicate"}
    assert np.array_equal(candles.open_ns, hours().open_ns) and np.array_equal(candles.close, hours().close)


def test_two_candles_of_one_time_that_differ_are_fatal_until_told_to_drop_one():
    twice = rows(hours(), np.array([*range(200), 7]))
    twice.close[200] = twice.high[200]
    assert said(twice)["contradiction"] == (1, True)
    assert said(cleaned(twice)[0])["contradiction"] == (1, True)
    candles, done = cleaned(twice, drop_bad=True)
    assert candles.close[7] == twice.close[200]
    assert said(candles) == {} and "dropped" in {finding.what for finding in done}


def test_of_many_contradictions_the_later_row_is_kept():
    once, rng = hours(5_000), np.random.default_rng(2)
    order = rng.permutation(5_000)
    twice = rows(once, np.concatenate((order, order)))
    twice.volume[5_000:] += 1.0
    candles, _ = cleaned(twice, drop_bad=True)
    assert candles.open_ns.size == 5_000 and (candles.volume == 6.0).all()


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("close", np.nan, "no number"),
        ("open", np.inf, "no number"),
        ("low", 0.0, "no price"),
        ("low", -3.0, "no price"),
        ("high", 1.0, "outside"),
        ("low", 1_000.0, "outside"),
        ("close", 1_000.0, "outside"),
        ("high", 5_000.0, "absurd"),
    ],
)
def test_prices_that_cannot_be_are_fatal(column, value, what):
    assert said(spoiled(column, 40, value))[what] == (1, True)


@pytest.mark.parametrize(("column", "value"), [("close", np.nan), ("low", 0.0), ("high", 1.0)])
def test_bad_candles_become_gaps_where_that_is_wanted(column, value):
    candles, done = cleaned(spoiled(column, 40, value), drop_bad=True)
    assert said(candles) == {"gap": (1, False)}
    assert [(finding.what, finding.first_ns) for finding in done] == [("dropped", START + 40 * H)]


def test_a_price_that_moves_by_half_in_a_candle_is_told_but_may_have_been():
    assert said(spoiled("high", 40, 170.0)) == {"absurd": (1, False)}


def test_a_jump_is_no_jump_across_a_gap():
    doubled = hours()
    for column in (doubled.open, doubled.high, doubled.low, doubled.close):
        column[100:] *= 2.0
    assert said(doubled) == {"absurd": (1, False)}
    assert said(rows(doubled, np.arange(200) != 100)) == {"gap": (1, False)}


def test_a_venues_decimals_may_be_a_rounding_beside_each_other():
    candles = hours()
    candles.high[5] = max(candles.open[5], candles.close[5]) * (1.0 - 1e-12)
    assert findings(candles) == []


def test_stretches_without_volume_are_told_unless_there_is_none_at_all():
    quiet = hours()
    quiet.volume[50:80] = 0.0
    assert said(quiet) == {"no volume": (30, False)}
    assert said(hours()._replace(volume=np.zeros(200))) == {}


def test_a_volume_that_is_none_is_taken_as_zero():
    candles, done = cleaned(spoiled("volume", 3, -1.0))
    assert candles.volume[3] == 0.0
    assert [finding.what for finding in done] == ["volume"]


def test_a_feed_that_stood_still_is_told():
    stale = hours()
    for column in (stale.open, stale.high, stale.low, stale.close):
        column[20:40] = stale.close[19]
    assert said(stale)["stale"][1] is False


@pytest.mark.parametrize("step_ns", [H // 4, 4 * H])
def test_another_step_than_was_said_is_fatal(step_ns):
    assert said(hours(step_ns=step_ns)._replace(step_ns=H)) == {"wrong step": (199, True)}


@pytest.mark.parametrize(
    ("shift_ns", "why"), [(H // 2, "30 min off the UTC grid"), (H - 1_000_000, "stamped at the close")]
)
def test_stamps_off_the_grid_are_fatal_and_say_why(shift_ns, why):
    (found,) = findings(hours(start_ns=START + shift_ns))
    assert (found.what, found.fatal) == ("off grid", True) and why in found.why


def test_days_may_begin_at_a_venues_own_hour():
    assert said(hours(start_ns=START + 16 * H, step_ns=D)) == {"off grid": (200, False)}


def test_local_time_with_daylight_saving_is_recognised():
    springs = [np.datetime64(day, "ns").astype(np.int64) for day in ("2021-03-28T02", "2022-03-27T02")]
    utc = hours(2 * 365 * 24)
    candles = rows(utc, ~np.isin(utc.open_ns, springs))
    (zone,) = (found for found in findings(candles) if found.what == "time zone")
    assert zone.fatal and zone.count == 2


@given(st.lists(st.booleans(), max_size=40))
def test_the_longest_run_is_the_one_a_loop_finds(which):
    best = run = 0
    for each in which:
        run = run + 1 if each else 0
        best = max(best, run)
    found = longest_run(np.array(which, dtype=np.bool_))
    assert found.length == best and all(which[found.first : found.first + best])


def test_durations_are_told_in_two_parts():
    assert [told(n) for n in (H, D + 4 * H, 90 * 10**9, 5)] == ["1 h", "1 d 4 h", "1 min 30 s", "5 ns"]


# --- funding ------------------------------------------------------------------------------------------------


def paid(count: int = 100, step_ns: int = 8 * H) -> FundingRates:
    return FundingRates(START + np.arange(count, dtype=np.int64) * step_ns, np.linspace(-1e-4, 3e-4, count))


def told_of(rates: FundingRates) -> dict[str, tuple[int, bool]]:
    return {finding.what: (finding.count, finding.fatal) for finding in funding_findings(rates)}


def test_funding_without_a_fault_is_found_clean():
    assert told_of(paid()) == {}
    assert told_of(FundingRates(START + np.empty(0, np.int64), np.empty(0))) == {"empty": (1, True)}


@pytest.mark.parametrize(("row", "rate", "expected"), [(5, np.nan, ("no number", True)), (5, 0.05, ("absurd", False))])
def test_a_rate_that_cannot_be_is_told(row, rate, expected):
    rates = paid()
    rates.rate[row] = rate
    assert told_of(rates) == {expected[0]: (1, expected[1])}


def test_rates_in_percent_are_fatal():
    assert told_of(FundingRates(paid().at_ns, np.full(100, 0.01))) == {"absurd": (100, True)}


def test_missing_settlements_and_another_interval_are_told():
    apart = np.arange(100) != 50
    assert told_of(FundingRates(paid().at_ns[apart], paid().rate[apart])) == {"gap": (1, False)}
    extra = np.append(paid().at_ns, START + 4 * H)
    assert told_of(FundingRates(np.sort(extra), np.append(paid().rate, 1e-4))) == {"interval": (2, False)}
    assert told_of(FundingRates(paid().at_ns + H // 2, paid().rate)) == {"off grid": (100, False)}


def test_a_settlement_stamped_milliseconds_late_is_put_onto_its_minute():
    rates, done = cleaned_funding(FundingRates(paid().at_ns + 7_000_000, paid().rate))
    assert np.array_equal(rates.at_ns, paid().at_ns)
    assert [finding.what for finding in done] == ["jitter"]


def test_funding_told_twice_is_kept_once_and_contradictions_are_fatal():
    at_ns, rate = np.append(paid().at_ns, START), np.append(paid().rate, paid().rate[0])
    rates, done = cleaned_funding(FundingRates(at_ns, rate))
    assert rates.at_ns.size == 100 and {finding.what for finding in done} == {"unsorted", "duplicate"}
    rate[-1] = 0.001
    assert told_of(FundingRates(at_ns, rate))["contradiction"] == (1, True)
    assert told_of(cleaned_funding(FundingRates(at_ns, rate), drop_bad=True)[0]) == {}


# --- longer candles, and candles side by side ---------------------------------------------------------------


def test_longer_candles_are_what_a_loop_makes_of_their_parts():
    candles = hours(72)
    days = resampled(candles, D)
    assert days.open_ns.tolist() == [START, START + D, START + 2 * D] and days.step_ns == D
    for day in range(3):
        part = slice(24 * day, 24 * day + 24)
        assert days.open[day] == candles.open[part][0] and days.close[day] == candles.close[part][-1]
        assert days.high[day] == candles.high[part].max() and days.low[day] == candles.low[part].min()
        assert days.volume[day] == pytest.approx(candles.volume[part].sum())


def test_a_long_candle_with_a_part_missing_is_a_gap_unless_less_is_enough():
    candles = without(30, count=72)
    assert resampled(candles, D).open_ns.tolist() == [START, START + 2 * D]
    assert resampled(candles, D, share_min=0.9).open_ns.size == 3
    assert resampled(rows(candles, slice(0, 0)), D).open_ns.size == 0


@pytest.mark.parametrize("step_ns", [H // 2, H + 1, 90 * 60 * 10**9])
def test_candles_do_not_join_into_a_step_that_is_no_multiple(step_ns):
    with pytest.raises(DataError, match="do not join"):
        resampled(hours(), step_ns)


def test_candles_side_by_side_have_holes_where_one_has_none():
    grid = aligned([hours(10), without(4, count=12)], START + H, START + 12 * H)
    assert grid.open_ns.tolist() == [START + n * H for n in range(1, 12)]
    assert grid.valid[:, 0].tolist() == [True] * 9 + [False] * 2
    assert grid.valid[:, 1].tolist() == [n != 4 for n in range(1, 12)]
    assert np.array_equal(np.isnan(grid.close), ~grid.valid)
    assert np.array_equal(grid.close[:9, 0], hours(10).close[1:])


def test_candles_that_share_no_grid_are_not_aligned():
    with pytest.raises(DataError, match="one step"):
        aligned([hours(), hours(step_ns=D)], START, START + D)
    with pytest.raises(DataError, match="off the grid"):
        aligned([hours(start_ns=START + 1)], START, START + D)
    assert aligned([hours()], START - D, START).valid.any() is np.False_


def test_trades_become_candles_and_what_may_lack_some_of_them_is_left_out():
    at = np.array([0, 10, 59, 60, 61, 119, 250, 299, 300], dtype=np.int64) * 1_000_000_000
    price = np.array([1.0, 2, 3, 4, 9, 5, 6, 7, 8])
    made = from_trades(at, price, np.ones(9), 60 * 1_000_000_000)
    assert (made.open_ns // 1_000_000_000).tolist() == [60, 240]  # 0 and 300 may have more; 120 and 180 had none
    assert [list(each) for each in made[2:]] == [[4, 6], [9, 7], [4, 6], [5, 7], [3, 2]]
    assert not len(from_trades(at[:0], price[:0], price[:0], 60).open_ns)
