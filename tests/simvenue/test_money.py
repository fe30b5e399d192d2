"""Profit, funding, margin, liquidation, settlement: what an account gains, owes and loses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.domain.instruments import Payoff
from dea_daemon.simvenue.accounts import Contract
from dea_daemon.simvenue.process import Carry
from dea_daemon.simvenue.scenarios import Scenario
from dea_daemon.simvenue.words import FundingPaid, InstrumentChanged, Liquidated, Refused, Settled
from tests.simvenue.venues import (
    BUY,
    INVERSE,
    LINEAR,
    SELL,
    START_NS,
    S,
    contract,
    order,
    recorded_venue,
    running_venue,
)

PLAIN = Scenario("plain", coins={}, initial_margin=0.1, maintenance_margin=0.05, price_band=0.9)


def deep_venue(**changes):
    """Ten thousand lots at 999 and at 1,001 in both contracts."""
    venue = recorded_venue(PLAIN, **changes)
    for name in (INVERSE, LINEAR):
        venue.set_level(name, BUY, 999, 10_000)
        venue.set_level(name, SELL, 1_001, 10_000)
    return venue


def test_a_linear_round_trip_earns_the_price_difference_less_fees():
    venue = deep_venue()
    order(venue, BUY, 50, None, instrument=LINEAR)
    venue.set_level(LINEAR, BUY, 1_100, 100)
    _, (fill,) = order(venue, SELL, 50, None, instrument=LINEAR)
    assert fill.pnl == pytest.approx(5.0 * (1_100 - 1_001))
    fees = 5.0 * (1_001 + 1_100) * 0.0005
    assert venue.summary("a", "USDT").cash == pytest.approx(1_000_000 + 5.0 * 99 - fees)
    assert venue.summary("a", "USDT").fees_paid == pytest.approx(fees)
    assert venue.position("a", LINEAR).realised_pnl == pytest.approx(495.0)


def test_an_inverse_round_trip_earns_coins():
    venue = deep_venue()
    order(venue, BUY, 100, None)
    venue.set_level(INVERSE, BUY, 1_250, 100)
    _, (fill,) = order(venue, SELL, 100, None)
    assert fill.pnl == pytest.approx(1_000 * (1 / 1_001 - 1 / 1_250))


def test_a_short_of_all_equity_in_an_inverse_contract_is_worth_the_same_dollars_at_any_price():
    venue = deep_venue(deposits={"BTC": 1.0})
    venue.contracts[INVERSE].mark = 1_000.0
    order(venue, SELL, 100, 999)
    for mark in (500.0, 1_000.0, 2_000.0):
        venue.contracts[INVERSE].mark = mark
        assert venue.summary("a", "BTC").equity * mark == pytest.approx(1_000.0, rel=4e-3)  # sold at 999, and a fee


@given(
    st.sampled_from([(INVERSE, Payoff.INVERSE, "10"), (LINEAR, Payoff.LINEAR, "0.1")]),
    st.lists(st.tuples(st.integers(1, 50), st.integers(500, 2_000)), min_size=1, max_size=6),
    st.integers(500, 2_000),
)
def test_the_average_entry_earns_what_its_parts_earn(which, parts, mark):
    name, payoff, lot = which
    held = Contract(contract(name, payoff, "BTC", lot, "1"))
    lots, entry = parts[0]
    for more, price in parts[1:]:
        entry = held.blended_entry(lots, entry, more, price)
        lots += more
    assert held.pnl(lots, entry, mark) == pytest.approx(sum(held.pnl(n, p, mark) for n, p in parts), abs=1e-9)


def test_a_position_that_turns_over_starts_again_at_the_new_price():
    venue = deep_venue()
    order(venue, BUY, 50, None, instrument=LINEAR)
    order(venue, SELL, 80, None, instrument=LINEAR)
    position = venue.position("a", LINEAR)
    assert (position.lots, position.entry_price) == (-30, 999.0)
    assert position.realised_pnl == pytest.approx(-10.0)


# --- funding ----------------------------------------------------------------------------------------


def test_longs_pay_a_positive_rate_by_time_and_notional_and_shorts_receive_it():
    venue = deep_venue()
    order(venue, BUY, 100, None)
    order(venue, SELL, 40, None, account="b")
    held = venue.contracts[INVERSE]
    held.funding_rate = 0.004
    held.accrue(4 * 3_600 * S)
    assert venue.summary("a", "BTC").session_funding == pytest.approx(-0.002 * 1_000 / 1_000)
    assert venue.summary("b", "BTC").session_funding == pytest.approx(0.002 * 400 / 1_000)


def test_only_the_time_a_position_was_held_counts():
    venue = deep_venue()
    held = venue.contracts[LINEAR]
    held.funding_rate = 0.001
    held.accrue(8 * 3_600 * S)
    order(venue, BUY, 10, None, instrument=LINEAR)
    held.accrue(8 * 3_600 * S)
    order(venue, SELL, 10, None, instrument=LINEAR)
    held.accrue(8 * 3_600 * S)
    assert venue.summary("a", "USDT").session_funding == pytest.approx(-0.001 * 1.0 * 1_000)


def test_accrued_funding_becomes_cash_without_changing_equity():
    venue = running_venue("funding", options=False)
    order(venue, BUY, 1_000, None)
    venue.advance(START_NS + 4 * S)
    venue.events()
    before = venue.summary("a", "BTC")
    venue.advance(START_NS + 5 * S)
    after = venue.summary("a", "BTC")
    (paid,) = [e for e in venue.events() if isinstance(e, FundingPaid) and e.account == "a"]
    assert before.session_funding < 0.0 == after.session_funding
    assert after.cash == pytest.approx(before.cash + paid.amount, abs=1e-15)
    assert venue.position("a", INVERSE).funding_paid == pytest.approx(-paid.amount)
    rate = venue.ticker(INVERSE).current_funding
    assert paid.amount == pytest.approx(-rate * 5 / 28_800 * 10_000 / venue.index_price("BTC"), rel=0.1)


def test_funding_is_written_down_each_hour_and_dated_futures_have_none():
    venue = running_venue("funding", step_ms=10_000, options=False)
    for minute in range(1, 200):
        venue.advance(START_NS + minute * 60 * S)
        venue.events()
    hours = venue.funding_history(INVERSE, START_NS, venue.now_ns)
    assert [h[0] % (3_600 * S) for h in hours] == [0] * len(hours)
    assert len(hours) == 3
    assert all(0.0 < h[2] < h[3] + 1e-15 for h in hours)
    assert hours[2][3] == pytest.approx(sum(h[2] for h in hours))
    assert venue.funding_history("BTC-27MAR26", 0, venue.now_ns) == []
    assert venue.ticker("BTC-27MAR26").current_funding != venue.ticker("BTC-27MAR26").current_funding  # NaN


# --- margin -----------------------------------------------------------------------------------------


def test_margin_counts_working_orders_at_their_worst():
    venue = deep_venue()
    order(venue, BUY, 100, None, instrument=LINEAR)
    order(venue, BUY, 50, 990, instrument=LINEAR)
    order(venue, SELL, 220, 1_010, instrument=LINEAR)
    summary = venue.summary("a", "USDT")
    assert summary.initial_margin == pytest.approx(0.1 * 150 * 0.1 * 1_000)
    order(venue, SELL, 50, 1_010, instrument=LINEAR)
    assert venue.summary("a", "USDT").initial_margin == pytest.approx(0.1 * 170 * 0.1 * 1_000)
    assert summary.maintenance_margin == pytest.approx(0.05 * 100 * 0.1 * 1_000)


def test_an_order_the_pool_cannot_bear_is_refused_and_one_that_reduces_never_is():
    venue = deep_venue(deposits={"USDT": 1_000.0})
    with pytest.raises(Refused, match="not_enough_funds"):
        order(venue, BUY, 101, None, instrument=LINEAR)
    order(venue, BUY, 90, None, instrument=LINEAR)
    with pytest.raises(Refused, match="not_enough_funds"):
        order(venue, BUY, 10, None, instrument=LINEAR)
    venue.contracts[LINEAR].mark = 950.0
    assert venue.summary("a", "USDT").equity < venue.summary("a", "USDT").initial_margin * 2
    assert order(venue, SELL, 90, None, instrument=LINEAR)[0].state == "filled"


def test_a_pool_without_cash_bears_nothing():
    venue = deep_venue(deposits={"BTC": 10.0})
    with pytest.raises(Refused, match="not_enough_funds"):
        order(venue, BUY, 1, None, instrument=LINEAR)


def test_margin_rises_with_the_size_of_the_position():
    venue = running_venue(options=False)
    held = venue.contracts[INVERSE]
    small, large = (venue.margin.initial(held, lots) / lots for lots in (1_000, 1_000_000))
    assert large / small == pytest.approx(1 + 0.00005 / 0.02 * held.coins(1_000_000, held.mark), rel=1e-3)


# --- liquidation ------------------------------------------------------------------------------------


def test_liquidation_cancels_orders_and_reduces_until_the_margin_holds():
    venue = deep_venue(deposits={"USDT": 1_000.0})
    order(venue, BUY, 80, None, instrument=LINEAR)
    resting, _ = order(venue, SELL, 10, 1_200, instrument=LINEAR)
    venue.set_level(LINEAR, BUY, 999, 0)
    venue.set_level(LINEAR, BUY, 900, 1_000)
    venue.events()
    steps = 0
    venue.set_mark(LINEAR, 915.0, 915.0)
    while venue.margin.is_short(venue.account("a"), "USDT"):
        steps += 1
        assert steps < 20
        venue.set_mark(LINEAR, 915.0, 915.0)
    assert venue.order("a", resting.order_id).cancel_reason == "liquidation"
    liquidated = [e for e in venue.events() if isinstance(e, Liquidated)]
    left = venue.position("a", LINEAR).lots
    assert 0 < left < 80
    assert sum(e.lots for e in liquidated) == left - 80
    assert liquidated[0].lots == -20
    fees = [f.fee / (f.lots * 0.1 * 900) for f in venue.fills("a") if f.liquidation]
    assert fees == pytest.approx([0.0005 + 0.0075] * len(liquidated))
    assert venue.account("insurance").cash["USDT"] == pytest.approx(0.0075 * (80 - left) * 0.1 * 900)


def test_a_shortfall_is_paid_by_the_insurance_fund():
    venue = deep_venue(deposits={"USDT": 1_000.0})
    order(venue, BUY, 80, None, instrument=LINEAR)
    venue.set_level(LINEAR, BUY, 999, 0)
    venue.set_level(LINEAR, BUY, 500, 1_000)
    venue.set_mark(LINEAR, 510.0, 510.0)
    assert (venue.position("a", LINEAR).lots, venue.summary("a", "USDT").cash) == (0, 0.0)
    assert venue.account("insurance").cash["USDT"] < -1_000.0


def test_liquidation_waits_for_a_book_that_is_empty():
    venue = deep_venue(deposits={"USDT": 1_000.0})
    order(venue, BUY, 80, None, instrument=LINEAR)
    venue.set_level(LINEAR, BUY, 999, 0)
    venue.set_mark(LINEAR, 900.0, 900.0)
    assert venue.position("a", LINEAR).lots == 80


# --- settlement -------------------------------------------------------------------------------------


def test_a_dated_future_settles_once_at_the_average_index_and_another_takes_its_place():
    venue = running_venue("expiry", options=False)
    ending = [i for i in venue.instruments.values() if 0 < i.expiry_ns <= START_NS + 20 * S]
    assert len(ending) == 2
    name = next(i.name for i in ending if i.underlying == "BTC")
    _, fills = order(venue, BUY, 300, None, instrument=name)
    resting, _ = order(venue, BUY, 10, fills[0].price_ticks - 400, instrument=name)
    indices, cash_before = [], 0.0
    for tenth in range(1, 400):
        venue.advance(START_NS + tenth * S // 10)
        if START_NS + 10 * S < venue.now_ns <= START_NS + 20 * S:
            indices.append(venue.index_price("BTC"))
        if venue.now_ns == START_NS + 19 * S:
            cash_before = venue.summary("a", "BTC").cash
    events = venue.events()
    (settled,) = [e for e in events if isinstance(e, Settled)]
    assert (settled.account, settled.instrument, settled.lots) == ("a", name, 300)
    assert settled.settlement_price == pytest.approx(sum(indices) / len(indices), rel=1e-12)
    entry = 300 / sum(f.lots / (f.price_ticks * 0.5) for f in fills)
    assert settled.pnl == pytest.approx(3_000 * (1 / entry - 1 / settled.settlement_price))
    assert venue.summary("a", "BTC").cash == pytest.approx(cash_before + settled.pnl)
    assert venue.order("a", resting.order_id).cancel_reason == "settlement"
    assert (name in venue.instruments, name in venue.delisted) == (False, True)
    assert venue.position("a", name).lots == 0
    assert name not in [p.instrument for p in venue.positions("a")]
    listed = [(e.instrument.underlying, e.state) for e in events if isinstance(e, InstrumentChanged)]
    assert listed == [("BTC", "closed"), ("BTC", "created"), ("ETH", "closed"), ("ETH", "created")]
    assert len(venue.instruments) == 8
    with pytest.raises(Refused, match="instrument_not_found"):
        order(venue, BUY, 1, None, instrument=name)


def test_between_steps_an_expired_contract_takes_no_order():
    venue = running_venue(
        "expiry", nearest_expiry_s=1.0, settlement_window_s=1.0, step_ms=700, ticker_every_ms=700, options=False
    )
    name = next(i.name for i in venue.instruments.values() if 0 < i.expiry_ns <= START_NS + S)
    venue.advance(START_NS + S)
    with pytest.raises(Refused, match="settlement_in_progress"):
        order(venue, BUY, 1, None, instrument=name)
    venue.advance(START_NS + 2 * S)
    assert name not in venue.instruments


def test_in_the_settlement_window_a_future_turns_from_the_index_to_the_average_so_far():
    quiet = Scenario("quiet", premium_sd_bp=0.0, basis_sd=0.0, settlement_window_s=10.0)
    carry = Carry(quiet, contract("BTC-27FEB26", Payoff.INVERSE, "BTC", "10", "1", START_NS + 10 * S), 1, 1)
    marks = []
    for tenth in range(1, 101):
        carry.step(START_NS + tenth * S // 10, 60_000.0 if tenth <= 50 else 66_000.0)
        marks.append(carry.mark)
    assert marks[49] == pytest.approx(60_000.0)
    assert marks[50] == pytest.approx(60_000.0 + 6_000.0 * (0.51 / 51 + 0.49), rel=1e-4)
    assert marks[-1] == pytest.approx(63_000.0)
    assert carry.settlement_price == pytest.approx(63_000.0)
