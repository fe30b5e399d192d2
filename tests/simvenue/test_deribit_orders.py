"""Orders and what the venue knows of them, in Deribit's words."""

from typing import Any

import pytest

from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.simvenue.deribit import ApiError
from dea_daemon.simvenue.deribit.errors import refusal
from dea_daemon.simvenue.words import Refused
from tests.simvenue.deribit_desk import BTC, LINEAR, OTHER, Desk, Said


@pytest.fixture
def desk() -> Desk:
    return Desk()


def code_of(desk: Desk, method: str, **params: Any) -> int:
    with pytest.raises(Said) as said:
        desk.ask(method, **params)
    return said.value.code


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"amount": 15}, -32602, "amount"),
        ({"amount": 0}, -32602, "amount"),
        ({"amount": "many"}, -32602, "amount"),
        ({"amount": None}, -32602, "amount"),
        ({"price": 60_000.3}, -32602, "price"),
        ({"price": "NaN"}, -32602, "price"),
        ({"instrument_name": "BTC-NOPE"}, -32602, "instrument_name"),
        ({"label": "x" * 65}, -32602, "label"),
        ({"contracts": 2}, -32602, "contracts"),
        ({"post_only": "True"}, -32602, "post_only"),
        ({"type": "stop_limit"}, 10033, None),
        ({"time_in_force": "fill_or_kill"}, 10033, None),
        ({"advanced": "implv"}, 11038, None),
        ({"post_only": True, "time_in_force": "immediate_or_cancel"}, 11047, None),
        ({"post_only": True, "type": "market"}, 11055, None),
        ({"price": 90_000}, 10007, None),
        ({"amount": 1_000_000_000}, 10009, None),
        ({"reduce_only": True}, 11030, None),
        ({"valid_until": 1}, 13888, None),
        ({"post_only": True, "reject_post_only": True, "price": 66_000}, 11054, None),
    ],
)
def test_a_bad_create_gets_the_venues_own_error_and_makes_no_order(desk, changes, code, param):
    asked = {"instrument_name": BTC, "amount": 10, "price": 64_000, "label": "a"} | changes
    with pytest.raises(Said) as said:
        desk.ask("private/buy", **asked)
    assert (said.value.code, said.value.data.get("param")) == (code, param)
    assert desk.ask("private/get_open_orders") == []
    assert [line["event"] for line in desk.venue.take_journal()] == ["order.rejected"]


def test_a_sell_below_the_band_is_too_low(desk):
    assert code_of(desk, "private/sell", instrument_name=BTC, amount=10, price=40_000) == 10005


def test_tick_steps_count_above_their_price(desk):
    dated = next(name for name in desk.exchange.instruments if name.startswith("BTC-2"))
    steps = desk.ask("public/get_instrument", instrument_name=dated)["tick_size_steps"]
    assert steps == [{"above_price": 65_000.0, "tick_size": 2.5}]
    desk.ask("private/buy", instrument_name=dated, amount=10, price=64_000.5)
    with pytest.raises(Said, match="must conform to tick size"):
        desk.ask("private/buy", instrument_name=dated, amount=10, price=65_001)


def test_every_refusal_of_the_venue_has_a_code():
    for code in Refused.CODES:
        assert isinstance(refusal(Refused(code)), ApiError)


def test_an_amount_may_come_as_text_or_contracts_and_means_dollars_or_coins(desk):
    assert desk.rest(amount="30")["amount"] == 30.0
    in_contracts = desk.ask("private/buy", instrument_name=BTC, contracts=3, price=64_000)["order"]
    assert (in_contracts["amount"], in_contracts["contracts"]) == (30.0, 3.0)
    assert desk.rest(LINEAR, amount=0.0123)["amount"] == 0.0123


def test_prices_and_amounts_are_the_decimals_that_were_meant(desk):
    order = desk.ask("private/buy", instrument_name=LINEAR, amount=0.0003, price=64_000.5)["order"]
    assert (order["price"], order["amount"]) == (64_000.5, 0.0003)


def test_an_order_goes_through_its_life(desk):
    order = desk.rest(label="one", post_only=True, reject_post_only=True)
    assert (order["order_state"], order["post_only"], order["filled_amount"]) == ("open", True, 0.0)
    edited = desk.ask("private/edit", order_id=order["order_id"], amount=20, price=order["price"] - 50)["order"]
    assert (edited["amount"], edited["replaced"], edited["order_id"]) == (20.0, True, order["order_id"])
    cancelled = desk.ask("private/cancel", order_id=order["order_id"])
    assert (cancelled["order_state"], cancelled["cancel_reason"]) == ("cancelled", "user_request")
    assert code_of(desk, "private/cancel", order_id=order["order_id"]) == 11044
    assert code_of(desk, "private/edit", order_id=order["order_id"], amount=30) == 10010
    assert desk.ask("private/get_order_state", order_id=order["order_id"])["order_state"] == "cancelled"
    events = [line["event"] for line in desk.venue.take_journal()]
    assert events == ["order.accepted", "order.edited", "order.cancelled"]


def test_an_unknown_order_is_not_found_and_another_accounts_is_as_unknown(desk):
    assert code_of(desk, "private/cancel", order_id="BTC-404") == 10004
    order, other = desk.rest(), desk.connect(OTHER)
    with pytest.raises(Said) as said:
        desk.ask("private/get_order_state", other, order_id=order["order_id"])
    assert said.value.code == 10004


def test_a_fill_shows_in_trades_position_history_and_witness(desk):
    done = desk.take(amount=100, label="bought")
    order, trades = done["order"], done["trades"]
    assert order["order_state"] == "filled"
    assert order["order_type"] == "market"
    assert sum(t["amount"] for t in trades) == 100.0
    assert {(t["liquidity"], t["fee_currency"], t["label"]) for t in trades} == {("T", "BTC", "bought")}
    position = desk.ask("private/get_position", instrument_name=BTC)
    assert (position["size"], position["direction"]) == (100.0, "buy")
    assert position["size_currency"] == pytest.approx(100.0 / position["mark_price"])
    assert desk.ask("private/get_user_trades_by_order", order_id=order["order_id"]) == trades[::-1]
    recent = desk.ask("private/get_user_trades_by_instrument", instrument_name=BTC, count=1000)
    assert recent == {"trades": trades[::-1], "has_more": False}
    history = desk.ask("private/get_order_history_by_currency", currency="BTC")
    assert [o["order_id"] for o in history] == [order["order_id"]]
    fills = [line for line in desk.venue.take_journal() if line["event"] == "order.filled"]
    assert [f["trade_id"] for f in fills] == [t["trade_id"] for t in trades]
    assert fills[-1]["position_after"] == 100.0


def test_history_hides_orders_without_a_fill_unless_asked(desk):
    order = desk.rest()
    desk.ask("private/cancel", order_id=order["order_id"])
    assert desk.ask("private/get_order_history_by_currency", currency="BTC") == []
    rows = desk.ask("private/get_order_history_by_currency", currency="BTC", include_unfilled=True)
    assert [row["order_id"] for row in rows] == [order["order_id"]]


def test_a_label_is_a_tag_that_several_orders_may_share(desk):
    first, second = desk.rest(label="twin"), desk.rest(label="twin")
    desk.ask("private/cancel", order_id=first["order_id"])
    found = desk.ask("private/get_order_state_by_label", currency="BTC", label="twin")
    assert {o["order_id"]: o["order_state"] for o in found} == {
        first["order_id"]: "cancelled",
        second["order_id"]: "open",
    }
    assert desk.ask("private/get_order_state_by_label", currency="BTC", label="none") == []
    assert desk.ask("private/get_order_state_by_label", currency="ETH", label="twin") == []
    assert len(desk.ask("private/get_open_orders_by_label", currency="BTC", label="twin")) == 1


def test_cancelling_many_tells_how_many(desk):
    for instrument in (BTC, BTC, LINEAR):
        desk.rest(instrument, amount=10 if instrument == BTC else 0.01, label="x")
    assert desk.ask("private/cancel_by_label", label="y") == 0
    assert desk.ask("private/cancel_all_by_instrument", instrument_name=LINEAR) == 1
    assert desk.ask("private/cancel_by_label", label="x", currency="BTC") == 2
    desk.rest()
    assert desk.ask("private/cancel_all") == 1
    assert desk.ask("private/get_open_orders_by_currency", currency="any") == []


def test_valid_until_lets_an_order_in_time_pass(desk):
    deadline_ms = desk.now_ns // NS_PER_MS + 500
    assert desk.rest(valid_until=deadline_ms)["order_state"] == "open"
    desk.sleep(600)
    assert code_of(desk, "private/buy", instrument_name=BTC, amount=10, price=64_000, valid_until=deadline_ms) == 13888


def test_trades_come_newest_first_or_from_a_start_oldest_first_in_pages(desk):
    for _ in range(4):
        desk.take()
        desk.sleep(100)
    newest = desk.ask("private/get_user_trades_by_currency", currency="BTC", count=3)
    assert newest["has_more"]
    seqs = [t["trade_seq"] for t in newest["trades"]]
    assert seqs == sorted(seqs, reverse=True)
    since = desk.ask("private/get_user_trades_by_currency_and_time", currency="BTC", start_timestamp=1, count=1000)
    seqs = [t["trade_seq"] for t in since["trades"]]
    assert len(seqs) >= 4
    assert seqs == sorted(seqs)
    assert not desk.ask("private/get_user_trades_by_currency", currency="BTC", historical=True)["trades"]


def test_the_account_sums_up(desk):
    desk.take(amount=1000)
    summary = desk.ask("private/get_account_summary", currency="BTC")
    assert summary["equity"] == pytest.approx(summary["balance"] + summary["session_upl"])
    assert 0 < summary["maintenance_margin"] < summary["initial_margin"]
    assert summary["delta_total"] == pytest.approx(1000 / 65_000, rel=0.05)
    every = desk.ask("private/get_account_summaries", extended=True)
    assert [s["currency"] for s in every["summaries"]] == ["BTC", "USDC", "ETH"]
    assert {s["margin_model"] for s in every["summaries"]} == {"segregated_sm"}


def test_an_expired_future_is_settled_and_its_trades_remain():
    desk = Desk("expiry", nearest_expiry_s=2.0, settlement_window_s=1.0)
    dated = next(name for name in desk.exchange.instruments if name.startswith("BTC-2"))
    for channel in ("book.{}.raw", "quote.{}", "ticker.{}.raw", "book.{}.none.10.100ms", "user.changes.{}.raw"):
        desk.ask("private/subscribe", channels=[channel.format(dated)])
    desk.take(dated)
    desk.sleep(3_000)
    assert code_of(desk, "private/buy", instrument_name=dated, amount=10, price=64_000) == -32602
    assert desk.ask("private/get_user_trades_by_instrument", instrument_name=dated)["trades"]
    assert [p["size"] for p in desk.ask("private/get_positions") if p["instrument_name"] == dated] in ([], [0.0])
    settled = [line for line in desk.venue.take_journal() if line["event"] == "position.settled"]
    assert [line["amount"] for line in settled] == [10.0]
    changes = [data for channel, data in desk.heard() if channel.startswith("user.changes")]
    assert changes[-1]["positions"][0]["size"] == 0.0
    assert len([name for name in desk.exchange.instruments if name.startswith("BTC-2")]) == 2


def test_the_same_seed_and_times_give_the_same_replies():
    def run() -> list[object]:
        desk = Desk()
        desk.ask("private/subscribe", channels=["book.BTC-PERPETUAL.raw", "user.changes.any.any.raw"])
        desk.take(amount=50)
        desk.sleep(1_000)
        return [desk.rest(), *desk.heard(), desk.venue.take_journal(), desk.session.grant]

    assert run() == run()


WANTED = """
    public/get_time public/test public/get_currencies public/get_instruments public/get_instrument
    public/get_order_book public/ticker public/get_book_summary_by_currency public/get_index_price
    public/get_last_trades_by_instrument public/get_tradingview_chart_data public/get_funding_rate_value
    public/get_funding_rate_history public/auth public/set_heartbeat public/subscribe public/unsubscribe
    public/hello private/buy private/sell private/edit private/cancel private/cancel_all
    private/cancel_all_by_instrument private/cancel_by_label private/get_order_state
    private/get_order_state_by_label private/get_open_orders private/get_open_orders_by_currency
    private/get_open_orders_by_instrument private/get_open_orders_by_label
    private/get_order_history_by_currency private/get_user_trades_by_instrument
    private/get_user_trades_by_currency private/get_user_trades_by_order private/get_positions
    private/get_position private/get_account_summary private/get_account_summaries
    private/enable_cancel_on_disconnect private/disable_cancel_on_disconnect private/subscribe
"""


def test_every_method_of_the_issue_is_there(desk):
    request = {"jsonrpc": "2.0", "id": 1, "params": {}}
    bodies = {m: desk.venue.handle(desk.session, request | {"method": m}, desk.now_ns).body for m in WANTED.split()}
    assert [m for m, body in bodies.items() if body.get("error", {}).get("code") == -32601] == []
