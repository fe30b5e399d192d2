"""One underlying at two venues: where its delta is hedged, when the hedge moves over, and what divides it."""

import numpy as np
import pytest

from dea_daemon.domain.instruments import AccountKey, Payoff, Universe
from dea_daemon.domain.parameters import AllocatorParameters
from tests.allocator.forecasts import forecast
from tests.allocator.forecasts import wanted as wanted_with
from tests.guards.views import view
from tests.house import INSTRUMENTS, instrument

HERE, _, THERE = range(3)  # perpetuals of BTC; the row between is of ETH
ACCOUNTS = (AccountKey("deribit", "main"), AccountKey("okx", "main"))
MARK = np.array([80_000.0, 3_000.0, 80_000.0])
LONG_USD = 100_000.0  # of coins; nothing is wanted, so as much is to be sold


def universe(fee_there: float = 0.0005) -> Universe:
    there = instrument("BTC-USDC-SWAP", "BTC", Payoff.LINEAR, "0.0001", "0.1", venue="okx", taker_fee=fee_there)
    return Universe(ACCOUNTS, ((0, INSTRUMENTS[0]), (0, INSTRUMENTS[3]), (1, there)))


def seen(fee_there=0.0005, funding=(0.0, 0.0), half_spread_usd=(1.0, 1.0), held_usd=(0.0, 0.0), use=(0.0, 0.0)):
    """Of both venues (here, there): the funding a long pays in 8 hours, what is held, the margin pool's use."""
    half = np.array([half_spread_usd[0], 0.5, half_spread_usd[1]])
    return view(
        position=(round(held_usd[0] / 10.0), 0, round(held_usd[1] / 8.0)),
        buys=(0, 0, 0),
        sells=(0, 0, 0),
        base=(LONG_USD, 0.0),
        mark=MARK,
        universe=universe(fee_there),
        funding_rate_8h=np.array([funding[0], 0.0, funding[1]]),
        bid_price=MARK - half,
        ask_price=MARK + half,
        row_margin_use=np.array([use[0], use[0], use[1]]),
        margin_use=max(use),
    )


def sold_usd(v, hold_h=24.0, **limits):
    """(here, there), and that the book wanted is certified."""
    target = {"kind": "fixed", "delta_usd": 0.0, "band_usd": 5_000.0}
    params = AllocatorParameters.model_validate({"targets": {"BTC": target}, "expected_hold_h": hold_h})
    expected = forecast(np.array([0.5, 0.9]), rows=3)
    found = wanted_with(v, expected, params, **limits)
    assert found.allocation.status == "certified"
    usd = -found.position_lots * v.notional_per_lot_usd
    assert usd[1] == 0.0
    return usd[HERE], usd[THERE]


# --- the cheaper one --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fee_there", "cheaper"), [(0.0002, THERE), (0.0008, HERE)])
def test_the_hedge_is_sold_where_the_fee_is_lower(fee_there, cheaper):
    here, there = sold_usd(seen(fee_there))
    assert (here == 0.0) == (cheaper == THERE) and (there == 0.0) == (cheaper == HERE)
    assert here + there == pytest.approx(LONG_USD - 2_500.0, abs=20.0)


def test_the_hedge_is_sold_where_the_spread_is_narrower():
    assert sold_usd(seen(half_spread_usd=(20.0, 1.0)))[HERE] == 0.0
    assert sold_usd(seen(half_spread_usd=(1.0, 20.0)))[1] == 0.0


def test_a_higher_fee_is_paid_where_the_funding_received_is_worth_it():
    """3 bp of fees more, against .5 or 6 bp a day of funding that a short receives."""
    assert sold_usd(seen(0.0008, funding=(0.0, 0.2e-4 / 1.2)))[1] == 0.0
    assert sold_usd(seen(0.0008, funding=(0.0, 2e-4)))[HERE] == 0.0


# --- moving over ------------------------------------------------------------------------------------------------


SOLD_HERE = (-LONG_USD, 0.0)


def test_what_is_held_moves_over_when_funding_flips():
    """Both crossings together cost some 10 bp; a short here pays 15 bp a day and receives as much there."""
    here, there = sold_usd(seen(held_usd=SOLD_HERE, funding=(-5e-4, 5e-4)))
    assert here < 1_000.0 and here + there == pytest.approx(LONG_USD, abs=20.0)


def test_and_back_when_it_flips_again():
    here, there = sold_usd(seen(held_usd=(0.0, -LONG_USD), funding=(5e-4, -5e-4)))
    assert there < 1_000.0 and here + there == pytest.approx(LONG_USD, abs=20.0)


def test_a_flip_worth_less_than_two_crossings_moves_nothing():
    v = seen(held_usd=SOLD_HERE, funding=(-1.2e-4, 1.2e-4))  # 7 bp a day apart
    assert sold_usd(v) == pytest.approx((LONG_USD, 0.0), abs=1.0)
    assert sold_usd(v, hold_h=96.0)[HERE] < 1_000.0  # over four days it is worth them


# --- what divides it --------------------------------------------------------------------------------------------


def test_what_one_venue_may_not_hold_is_sold_at_the_other():
    here, there = sold_usd(seen(0.0002), max_venue_usd=60_000.0)
    assert 59_900.0 < there <= 60_000.0
    assert here == pytest.approx(37_500.0, abs=120.0)


def test_where_both_venues_are_full_the_hedge_ends_there():
    here, there = sold_usd(seen(0.0002), max_venue_usd=40_000.0)
    assert 39_900.0 < here <= 40_000.0 and 39_900.0 < there <= 40_000.0


def test_it_moves_over_only_as_far_as_the_venue_there_allows():
    here, there = sold_usd(seen(held_usd=SOLD_HERE, funding=(-5e-4, 5e-4)), max_venue_usd=70_000.0)
    assert 69_900.0 < there <= 70_000.0
    assert here + there == pytest.approx(LONG_USD, abs=20.0)


def test_a_margin_pool_takes_what_it_has_room_for_and_the_other_the_rest():
    """Half used by 40,000 USD, .6 allowed: 48,000 at most."""
    v = seen(held_usd=(0.0, -40_000.0), funding=(0.0, 5e-4), use=(0.0, 0.5))
    here, there = sold_usd(v)
    assert 47_900.0 < there <= 48_000.0
    assert here + there == pytest.approx(LONG_USD - 2_500.0, abs=20.0)


def test_a_pool_beyond_what_is_allowed_is_not_filled_further_however_cheap():
    v = seen(held_usd=(0.0, -40_000.0), funding=(-5e-4, 5e-4), use=(0.0, 0.7))
    here, there = sold_usd(v)
    assert there <= 40_000.0 + 1e-6 and here > 0.0
