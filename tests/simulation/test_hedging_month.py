"""Hedging works: the straddle book of `tests.simulation.month`, beside a twin that never hedges."""

import pytest

from dea_daemon.domain.modes import Mode
from tests.simulation.month import STEADY, Month

pytestmark = pytest.mark.timeout(300)  # some ten seconds of work, which a busy machine may stretch
CENT = 0.01
PROBLEMS = {
    "account.drift_confirmed", "account.report_failed", "mode.changed", "greeks.diverged", "order.rejected",
    "order.outcome_unknown",
}  # fmt: skip


@pytest.fixture(scope="module")
def week():
    """Monday to Friday, when three straddles are delivered and others have taken their place."""
    month = Month(1, STEADY)
    month.run(5.0)
    return month


def test_our_books_and_the_venues_account_agree_to_the_cent_through_fills_funding_and_deliveries(week):
    assert week.result.gap_usd < CENT
    assert week.result.deliveries >= 6 and week.result.hedges > 50


@pytest.mark.parametrize("currency", ["BTC", "ETH", "USDC"])
def test_books_that_miss_two_cents_in_any_pool_are_noticed(week, currency):
    cash, two_cents = week.books.cash[currency], 2 * CENT / week.prices.get(currency, 1.0)
    week.books.cash[currency] += two_cents
    gap_usd = week.gap_usd()
    week.books.cash[currency] = cash
    assert gap_usd > CENT > week.gap_usd()


def test_nothing_disturbs_the_week(week):
    assert week.state.account.mode is Mode.NORMAL
    assert not PROBLEMS & set(week.result.notes)
    assert week.result.notes["position.settled"] == week.result.deliveries
    assert {proof for _, proof in week.state.account.deliveries.new} == {"venue record"}


def test_an_expiry_that_is_listed_later_joins_and_is_sold_and_hedged_too(week):
    first = {i.expiry_ns for i in Month(1, STEADY).universe.instruments if i.strike}
    held = {week.universe.instruments[row].expiry_ns for row, lots in week.books.lots.items() if lots}
    assert held - first - {0}


def test_after_almost_every_step_each_delta_is_within_its_band(week):
    assert week.result.outside <= 0.02 * week.result.steps


def test_hedging_takes_away_most_of_what_the_week_deviates(week):
    assert week.result.removed > 0.5


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_month_of_moving_volatilities_is_hedged_and_accounted_to_the_cent(seed):
    month = Month(seed)
    result = month.run(30.0)
    assert result.gap_usd < CENT
    assert result.deliveries >= 20 and result.straddles >= 15
    assert month.state.account.mode is Mode.NORMAL and not PROBLEMS & set(result.notes)
    assert result.removed > 0.6
