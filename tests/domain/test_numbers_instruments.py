"""The rounding door and the tick grid."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.domain.errors import InvariantViolation
from dea_daemon.domain.instruments import AccountKey, Payoff, Side, TickStep, Universe
from dea_daemon.domain.numbers import as_decimal, from_steps, ms_to_ns, to_lots, to_steps
from tests.house import BTC_FUTURE, INSTRUMENTS, instrument

STEPS = [Decimal(s) for s in ("10", "1", "0.1", "0.0001", "0.00000001", "2.5", "0.05")]


def test_three_tenths_are_three_lots_of_a_tenth():
    assert to_lots(0.3, Decimal("0.1")) == 3
    assert to_lots(0.1 + 0.2, Decimal("0.1")) == 3  # 0.30000000000000004
    assert to_lots(0.7 + 0.1, Decimal("0.1")) == 8  # 0.7999999999999999


@given(st.integers(-(10**9), 10**9), st.sampled_from(STEPS))
def test_a_count_of_steps_survives_the_way_out_and_back_even_through_a_float(count, step):
    assert to_steps(from_steps(count, step), step) == count
    assert to_steps(float(from_steps(count, step)), step, "down") == count
    assert to_steps(float(from_steps(count, step)), step, "up") == count


@given(st.floats(-1e9, 1e9), st.sampled_from(STEPS[:4]))
def test_rounding_down_and_up_enclose_and_differ_by_at_most_one(value, step):
    down, nearest, up = (to_steps(value, step, how) for how in ("down", "nearest", "up"))
    assert down <= nearest <= up <= down + 1
    assert abs(float(from_steps(nearest, step)) - value) <= 0.500001 * float(step) + 1e-6


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), "NaN", "Infinity", "twelve"])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(InvariantViolation):
        as_decimal(value)


def test_milliseconds_become_ns_without_a_float_between():
    assert ms_to_ns(1_790_000_000_123) == 1_790_000_000_123_000_000


WIDER = (TickStep(Decimal(1_000), Decimal("2.5")), TickStep(Decimal(5_000), Decimal(10)))
STEPPED = instrument("X", "X", Payoff.LINEAR, "1", "0.5", tick_steps=WIDER)


@pytest.mark.parametrize(
    ("price", "tick"), [("999.5", "0.5"), ("1000", "0.5"), ("1000.5", "2.5"), ("5000", "2.5"), ("5000.5", "10")]
)
def test_ticks_widen_above_each_step_and_not_at_it(price, tick):
    assert STEPPED.tick_at(Decimal(price)) == Decimal(tick)


@given(st.decimals(Decimal("0.5"), Decimal(20_000), places=3), st.sampled_from([STEPPED, INSTRUMENTS[BTC_FUTURE]]))
def test_a_price_rounds_to_its_passive_side_and_onto_the_grid(price, contract):
    buy, sell, near = (contract.price_to_ticks(price, side) for side in (Side.BUY, Side.SELL, None))
    assert contract.ticks_to_price(buy) <= price <= contract.ticks_to_price(sell)
    assert buy <= near <= sell
    assert contract.ticks_to_price(sell) - contract.ticks_to_price(buy) <= contract.tick_at(price)
    for ticks in (buy, sell, near):
        assert ticks == 0 or contract.on_grid(ticks), (price, contract.ticks_to_price(ticks))


def test_a_price_off_the_grid_or_not_positive_is_not_on_it():
    assert STEPPED.on_grid(1_999) and not STEPPED.on_grid(2_001)  # 999.5, 1000.5
    assert STEPPED.on_grid(2_005)  # 1002.5
    assert not STEPPED.on_grid(0) and not STEPPED.on_grid(-5)


def test_lot_value_is_dollars_for_inverse_and_coins_for_linear():
    assert [i.lot_value for i in INSTRUMENTS] == [10.0, 10.0, 0.0001, 1.0]


def test_a_contract_listed_twice_in_one_account_is_refused_and_in_two_accounts_is_two_rows():
    key = AccountKey("deribit", "main")
    with pytest.raises(InvariantViolation):
        Universe((key,), ((0, INSTRUMENTS[0]), (0, INSTRUMENTS[0])))
    two = Universe((key, AccountKey("deribit", "other")), ((0, INSTRUMENTS[0]), (1, INSTRUMENTS[0])))
    name = INSTRUMENTS[0].name
    assert (two.row(0, name), two.row(1, name), two.row(0, "?")) == (0, 1, None)
    with pytest.raises(ValueError):
        two.lot_value[0] = 1.0
