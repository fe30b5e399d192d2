"""Deribit's objects in our words. The contracts are real ones, from get_instruments."""

import json
import math
from decimal import Decimal
from typing import Any

import pytest

from dea_daemon.domain.errors import VenueError
from dea_daemon.domain.events import PoolReport, PositionReport, VenueOrderState
from dea_daemon.domain.instruments import AccountKey, Instrument, Kind, Payoff, Side, TickStep, Universe
from dea_daemon.feeds.deribit_mapping import fill_from, instrument_from, order_from, pool_from, position_from
from dea_daemon.shell.captures import Kind as FrameKind
from dea_daemon.shell.captures import frames
from tests.shared_data import shared

INVERSE = {
    "instrument_name": "BTC-PERPETUAL",
    "kind": "future",
    "instrument_type": "reversed",
    "settlement_period": "perpetual",
    "settlement_currency": "BTC",
    "base_currency": "BTC",
    "quote_currency": "USD",
    "counter_currency": "USD",
    "contract_size": 10.0,
    "min_trade_amount": 10.0,
    "tick_size": 0.5,
    "tick_size_steps": [],
    "maker_commission": 0.0,
    "taker_commission": 0.0005,
    "expiration_timestamp": 32_503_708_800_000,
    "is_active": True,
}
LINEAR = INVERSE | {
    "instrument_name": "BTC_USDC-PERPETUAL",
    "instrument_type": "linear",
    "settlement_currency": "USDC",
    "quote_currency": "USDC",
    "contract_size": 0.0001,
    "min_trade_amount": 0.001,
}
OPTION = INVERSE | {
    "instrument_name": "BTC-25DEC26-80000-C",
    "kind": "option",
    "settlement_period": "month",
    "quote_currency": "BTC",
    "contract_size": 1.0,
    "min_trade_amount": 0.1,
    "tick_size": 0.0001,
    "tick_size_steps": [{"above_price": 0.005, "tick_size": 0.0005}],
    "expiration_timestamp": 1_798_185_600_000,
    "strike": 80_000.0,
    "option_type": "call",
}


def contract(info: dict[str, Any]) -> Instrument:
    instrument = instrument_from(info)
    assert instrument is not None
    return instrument


UNIVERSE = Universe(
    (AccountKey("deribit", "a"),), ((0, contract(INVERSE)), (0, contract(LINEAR)), (0, contract(OPTION)))
)


def test_an_inverse_contracts_lots_are_in_dollars():
    perpetual = contract(INVERSE)
    assert (perpetual.kind, perpetual.payoff) == (Kind.PERPETUAL, Payoff.INVERSE)
    assert (perpetual.lot_size, perpetual.contract_size, perpetual.lot_value) == (Decimal(10), Decimal(1), 10.0)
    assert (perpetual.margin_pool, perpetual.expiry_ns, perpetual.taker_fee) == ("BTC", 0, 0.0005)


def test_a_linear_contracts_lots_are_in_coins_and_its_least_order_may_be_several():
    perpetual = contract(LINEAR)
    assert perpetual.payoff is Payoff.LINEAR
    assert (perpetual.lot_size, perpetual.min_lots) == (Decimal("0.0001"), 10)
    assert perpetual.margin_pool == "USDC"


def test_an_option_is_priced_in_coin_on_a_grid_with_steps():
    option = contract(OPTION)
    assert (option.kind, option.payoff, option.settle_currency) == (Kind.OPTION, Payoff.LINEAR, "BTC")
    assert (option.strike, option.is_call) == (80_000.0, True)
    assert option.lot_size == Decimal("0.1")
    assert option.tick_steps == (TickStep(Decimal("0.005"), Decimal("0.0005")),)
    assert option.expiry_ns == 1_798_185_600_000_000_000


def test_a_contract_that_is_closed_is_not_tradable():
    assert not contract(INVERSE | {"is_active": False}).tradable
    assert not contract(INVERSE | {"state": "closed"}).tradable


def test_a_combo_is_no_instrument_of_ours():
    assert instrument_from(INVERSE | {"kind": "future_combo"}) is None


ORDER = {
    "order_id": "O1",
    "instrument_name": "BTC-PERPETUAL",
    "label": "d000000000000001",
    "direction": "sell",
    "order_state": "open",
    "amount": 50,
    "filled_amount": 20,
    "price": 100.5,
    "last_update_timestamp": 3,
}


def test_an_order_is_counted_in_lots_and_ticks():
    order = order_from(ORDER, UNIVERSE, 0, 7)
    assert order is not None
    assert (order.row, order.side, order.lots, order.filled_lots, order.price_ticks) == (0, Side.SELL, 5, 2, 201)
    assert (order.ts_recv_ns, order.ts_event_ns) == (7, 3_000_000)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("open", VenueOrderState.OPEN),
        ("untriggered", VenueOrderState.OPEN),
        ("filled", VenueOrderState.FILLED),
        ("cancelled", VenueOrderState.CANCELLED),
        ("rejected", VenueOrderState.REJECTED),
    ],
)
def test_each_state_of_an_order_has_its_word(word, state):
    order = order_from(ORDER | {"order_state": word}, UNIVERSE, 0, 7)
    assert order is not None
    assert order.state is state


def test_a_market_order_has_no_price_and_a_foreign_one_no_label():
    order = order_from({k: v for k, v in ORDER.items() if k != "label"} | {"price": "market_price"}, UNIVERSE, 0, 7)
    assert order is not None
    assert (order.price_ticks, order.client_order_id) == (0, "")


def test_an_amount_with_float_noise_is_still_whole_lots():
    trade = {
        "instrument_name": "BTC_USDC-PERPETUAL",
        "trade_id": "T",
        "order_id": "O",
        "direction": "buy",
        "amount": 0.1 + 0.2,
        "price": 100.5,
        "fee": 0.1,
        "fee_currency": "USDC",
        "timestamp": 3,
        "liquidity": "T",
    }
    fill = fill_from(trade, UNIVERSE, 0, 7)
    assert fill is not None
    assert (fill.row, fill.lots, fill.is_maker, fill.client_order_id) == (1, 3_000, False, "")


def test_positions_are_signed_and_pools_keep_what_is_unknown_unknown():
    short = {"instrument_name": "BTC-PERPETUAL", "size": -30.0, "average_price": 99.0, "direction": "sell"}
    assert position_from(short, UNIVERSE, 0) == PositionReport(0, -3, 99.0)
    pool = pool_from({"currency": "BTC", "equity": 1, "balance": None})
    assert isinstance(pool, PoolReport)
    assert pool.equity == 1.0
    assert math.isnan(pool.cash)


def test_a_contract_outside_the_universe_maps_to_nothing():
    other = {"instrument_name": "ETH-PERPETUAL"}
    assert order_from(ORDER | other, UNIVERSE, 0, 7) is None
    assert position_from({"size": 1.0} | other, UNIVERSE, 0) is None


@pytest.mark.parametrize(
    "spoilt", [{"amount": None}, {"direction": "up"}, {"order_state": "?"}, {"price": float("nan")}]
)
def test_an_unreadable_order_is_a_venue_error(spoilt):
    with pytest.raises(VenueError, match=r"order|unreadable"):
        order_from(ORDER | spoilt, UNIVERSE, 0, 7)


def test_every_recorded_contract_can_be_listed():
    listed = [
        instrument_from(info)
        for frame in frames(shared("ws/DERIBIT.0.gz"))
        if frame.kind is FrameKind.HTTP and "get_instruments" in frame.url
        for info in json.loads(frame.payload)["result"]
    ]
    named = {i.name: i for i in listed if i is not None}
    assert len(named) > 500
    assert named["BTC-PERPETUAL"].payoff is Payoff.INVERSE
    assert named["UNI_USDC-PERPETUAL"].settle_currency == "USDC"
    assert named["ETH-30JUL21-4500-P"].settle_currency == "ETH"
