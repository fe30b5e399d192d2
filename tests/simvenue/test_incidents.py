"""What befalls the venue itself: said in its own words, and over when it is over."""

from decimal import Decimal
from typing import Any

import pytest

from dea_daemon.domain.errors import ConfigError
from dea_daemon.simvenue.deribit import Deribit
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.faults import FaultPlan
from dea_daemon.simvenue.incidents import Incident, parse
from tests.simvenue.deribit_desk import BTC, ETH, KEY, LINEAR, OTHER, Desk, Said
from tests.simvenue.venues import START_NS, S


@pytest.fixture
def desk() -> Desk:
    return Desk()


def code(desk: Desk, method: str, **params: Any) -> int:
    """The error it says, 0 where it does it."""
    try:
        desk.ask(method, **params)
    except Said as said:
        return said.code
    return 0


def test_under_maintenance_neither_orders_nor_cancels_are_taken_and_questions_are(desk):
    order = desk.rest()
    desk.exchange.lock()
    buy = {"instrument_name": BTC, "amount": 10, "type": "market"}
    assert code(desk, "private/buy", **buy) == 11051
    assert code(desk, "private/cancel", order_id=order["order_id"]) == 11051
    assert code(desk, "private/edit", order_id=order["order_id"], amount=20) == 11051
    assert desk.ask("private/get_order_state", order_id=order["order_id"])["order_state"] == "open"
    assert desk.ask("public/status")["locked"] == "true"
    desk.exchange.lock(locked=False)
    assert code(desk, "private/cancel", order_id=order["order_id"]) == 0
    assert desk.ask("public/status") == {"locked": "false", "locked_indices": []}


def test_a_locked_coin_is_not_traded_its_orders_may_go_and_other_coins_go_on(desk):
    order = desk.rest()
    desk.exchange.lock("BTC")
    desk.sleep(200)
    before = desk.exchange.book(BTC)
    for name in (BTC, LINEAR):
        assert code(desk, "private/buy", instrument_name=name, amount=10, type="market") == 10019
    assert code(desk, "private/edit", order_id=order["order_id"], amount=20) == 10019
    assert code(desk, "private/buy", instrument_name=ETH, amount=10, type="market") == 0
    status = desk.ask("public/status")
    assert status["locked"] == "partial" and "btc_usd" in status["locked_indices"]
    desk.sleep(5_000)
    book = desk.exchange.book(BTC)
    assert (book.bids, book.asks) == (before.bids, before.asks)
    assert code(desk, "private/cancel", order_id=order["order_id"]) == 0


def test_the_lock_of_an_index_is_told_to_who_asked_for_the_platforms_state(desk):
    desk.ask("public/subscribe", channels=["platform_state"])
    assert desk.heard() == []
    desk.exchange.lock("BTC")
    desk.sleep(100)
    said = [data for channel, data in desk.heard() if channel == "platform_state"]
    assert said == [{"price_index": "btc_usd", "locked": True}, {"price_index": "btc_usdc", "locked": True}]


def test_an_account_short_of_margin_is_left_alone_while_nothing_is_traded(desk):
    desk.take(amount=10_000)
    desk.exchange.lock("ETH")
    desk.exchange.account("main").cash["BTC"] = 0.000_01
    desk.sleep(1_000)
    assert desk.exchange.position("main", BTC).lots == 1_000
    desk.exchange.lock("ETH", locked=False)
    desk.sleep(1_000)
    assert desk.exchange.position("main", BTC).lots < 1_000


def test_prices_off_a_new_grid_are_refused_as_those_off_any_other(desk):
    desk.exchange.change_tick(BTC, Decimal("12.5"))
    desk.sleep(100)
    listed = desk.ask("public/get_instrument", instrument_name=BTC)
    assert (listed["tick_size"], listed["tick_size_steps"]) == (12.5, [])
    bid, ask = desk.best()
    assert bid % 12.5 == ask % 12.5 == 0
    limit = {"instrument_name": BTC, "amount": 10}
    assert code(desk, "private/buy", **limit, price=bid - 12.5) == 0
    assert code(desk, "private/buy", **limit, price=bid - 12.0) == -32602


def test_a_new_grid_is_not_told_and_steps_that_are_wider_stay(desk):
    desk.ask("public/subscribe", channels=["instrument.state.any.any"])
    (stepped, *_) = [i for i in desk.exchange.instruments.values() if i.tick_steps]
    step = stepped.tick_steps[0]
    desk.exchange.change_tick(stepped.name, 2 * stepped.tick_size)
    desk.sleep(100)
    assert desk.heard() == []
    listed = desk.ask("public/get_instrument", instrument_name=stepped.name)
    assert listed["tick_size"] == 2 * float(stepped.tick_size)
    wider = {"above_price": float(step.above_price), "tick_size": float(step.tick_size)}
    assert listed["tick_size_steps"] == [wider]


def test_a_revoked_key_is_refused_and_its_connection_hears_no_more_of_the_account(desk):
    token = desk.authenticate(KEY, desk.session)["access_token"]
    desk.ask("private/subscribe", channels=["user.portfolio.BTC", "ticker.BTC-PERPETUAL.100ms"])
    desk.venue.revoke(KEY.client_id)
    desk.heard()
    desk.sleep(5_000)
    assert {channel for channel, _ in desk.heard()} == {"ticker.BTC-PERPETUAL.100ms"}
    assert code(desk, "private/get_positions", currency="any") == 13009
    assert code(desk, "public/test", access_token=token) == 13009
    with pytest.raises(Said, match="13004"):
        desk.connect(KEY)
    desk.connect(OTHER)  # another's is its own affair
    desk.venue.restore(KEY.client_id)
    desk.connect(KEY)
    assert code(desk, "private/get_positions", currency="any") == 0


def test_a_stablecoin_has_an_index_at_one_until_it_loses_its_peg(desk):
    assert desk.ask("public/get_index_price", index_name="usdc_usd")["index_price"] == 1.0
    assert "usdc_usd" in desk.ask("public/get_index_price_names")
    desk.exchange.set_peg("USDC", 0.97)
    assert desk.ask("public/get_index_price", index_name="usdc_usd")["index_price"] == 0.97
    assert code(desk, "public/get_index_price", index_name="usdt_usd") == -32602


def test_a_public_trade_says_that_it_was_a_liquidation(desk):
    desk.take(amount=10_000)
    desk.exchange.account("main").cash["BTC"] = 0.000_01
    desk.sleep(200)
    trades = desk.ask("public/get_last_trades_by_instrument", instrument_name=BTC, count=100)["trades"]
    assert {trade.get("liquidation") for trade in trades} == {None, "T"}
    orders = desk.ask("private/get_order_history_by_currency", currency="BTC", include_unfilled=True)
    assert {order["order_type"] for order in orders if order["is_liquidation"]} == {"liquidation"}


# --- by a plan ----------------------------------------------------------------------------------------


def planned(*specs: str) -> Deribit:
    exchange = Exchange(Desk().exchange.scenario, 7, START_NS)
    return Deribit(exchange, [KEY], faults=FaultPlan(7, specs))


def test_incidents_come_when_they_are_due_and_end():
    venue = planned("venue=maintenance:10:30", "USDC=peg:20:0.97", "BTC-PERPETUAL=tick_size:20:2.5")
    states = []
    for after_s in (9, 10, 20, 39, 40):
        venue.advance(START_NS + after_s * S)
        states.append((venue.exchange.maintenance, venue.exchange.index_price("USDC")))
    assert states == [(False, 1.0), (True, 1.0), (True, 0.97), (True, 0.97), (False, 0.97)]
    assert not venue.exchange.locked
    assert not venue.exchange.instruments[BTC].on_grid(1)
    assert venue.exchange.instruments[BTC].on_grid(5)


def test_a_span_is_a_beginning_and_an_end():
    assert parse("sim-7=revoked:1.5:30") == [
        Incident("sim-7", "revoked", 3 * S // 2),
        Incident("sim-7", "restored", 63 * S // 2),
    ]


@pytest.mark.parametrize(
    "spec", ["=peg:1:0.9", "USDC=peg", "USDC=peg:1", "USDC=peg:1:x", "USDC=peg:-1:1", "USDC=peg:1:0", "USDC=peg:1:1:1"]
)
def test_a_wrong_plan_says_what_was_meant(spec):
    with pytest.raises(ConfigError, match="fault"):
        FaultPlan(0, (spec,))


@pytest.mark.parametrize("spec", ["USDT=peg:1:1", "SOL=maintenance:1:1", "nobody=revoked:1:1", "X-1=tick_size:1:1"])
def test_a_plan_for_what_is_not_there_is_refused_at_the_start(spec):
    with pytest.raises(ConfigError, match="there are"):
        planned(spec)
