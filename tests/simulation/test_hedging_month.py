"""Hedging works: the straddle book of `tests.simulation.month`, beside a twin that never hedges."""

import pytest

from dea_daemon.domain.events import FillReceived, MarkUpdated
from dea_daemon.domain.modes import Mode
from tests.simulation.month import STEADY, Month

CENT = 0.01
PROBLEMS = {"account.drift_confirmed", "account.report_failed", "mode.changed", "greeks.diverged", "order.rejected"}


@pytest.fixture(scope="module")
def week():
    """Seven days with their Friday: three deliveries of two legs, and what is listed in their place."""
    month = Month(1, STEADY)
    month.run(7.0)
    return month


def test_our_books_and_the_venues_account_agree_to_the_cent_through_fills_funding_and_deliveries(week):
    assert week.result.gap_usd < CENT
    assert week.result.deliveries >= 6 and week.result.hedges > 100
    assert any(week.books.lots[row] for row in range(len(week.universe)) if not week.universe.expiry_ns[row])


def test_the_comparison_sees_a_cent(week):
    """Of a fee, and of a mark: it would not pass whatever happened."""
    row = week.universe.row(0, "BTC_USDC-PERPETUAL")
    before = week.books.equity("USDC")
    week.books.cash["USDC"] += 2 * CENT
    week._compare()
    assert week.result.gap_usd > CENT
    week.books.cash["USDC"] -= 2 * CENT
    assert row is not None and week.books.equity("USDC") == pytest.approx(before)


def test_nothing_disturbs_the_week(week):
    assert week.state.account.mode is Mode.NORMAL
    assert not PROBLEMS & set(week.result.notes)
    assert week.result.notes["position.settled"] == week.result.deliveries


def test_new_expiries_join_and_are_sold_and_hedged_too(week):
    later = [i for i in week.universe.instruments if (i.underlying, i.settle_currency, i.expiry_ns) in week.sold]
    assert week.result.straddles > 6
    assert len({i.expiry_ns for i in later}) > 2


def test_hedging_takes_away_deviation_and_ends_near_the_exposure_wanted(week):
    assert week.result.removed > 0.3
    for coin, target in week.params.allocator.targets.items():
        u = week.universe.underlyings.index(coin)
        assert abs(week.delta_usd[u] - target.delta_usd) <= 1.5 * target.band_usd
