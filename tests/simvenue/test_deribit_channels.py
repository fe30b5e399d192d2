"""Subscriptions: what is said, when, and to whom."""

from itertools import pairwise
from typing import Any

import pytest

from tests.simvenue.deribit_desk import BTC, ETH, LINEAR, OTHER, Desk, Said


@pytest.fixture
def desk() -> Desk:
    return Desk()


def of(desk: Desk, channel: str) -> list[Any]:
    return [data for name, data in desk.heard() if name == channel]


class Book:
    """A strict reader of a book channel: every rule of the chain and of the actions."""

    def __init__(self, snapshot: Any) -> None:
        assert snapshot["type"] == "snapshot"
        assert {level[0] for level in snapshot["bids"] + snapshot["asks"]} == {"new"}
        self.change_id = snapshot["change_id"]
        self.bids = {price: amount for _, price, amount in snapshot["bids"]}
        self.asks = {price: amount for _, price, amount in snapshot["asks"]}

    def apply(self, change: Any) -> None:
        assert change["type"] == "change"
        assert change["prev_change_id"] == self.change_id
        assert change["change_id"] > self.change_id
        self.change_id = change["change_id"]
        for side, levels in ((self.bids, change["bids"]), (self.asks, change["asks"])):
            for action, price, amount in levels:
                assert (price in side) == (action != "new")
                assert (amount == 0.0) == (action == "delete")
                if action == "delete":
                    del side[price]
                else:
                    side[price] = amount


@pytest.mark.parametrize("interval", ["raw", "100ms"])
@pytest.mark.parametrize("instrument", [BTC, LINEAR])
def test_a_book_is_a_snapshot_and_an_unbroken_chain_of_changes_that_rebuild_it(desk, instrument, interval):
    channel = f"book.{instrument}.{interval}"
    assert desk.ask("public/subscribe", channels=[channel]) == [channel]
    (snapshot,) = of(desk, channel)
    book = Book(snapshot)
    for _ in range(40):
        desk.sleep(70)
        desk.take(instrument, amount=10 if instrument == BTC else 0.01)
    desk.sleep(200)
    changes = of(desk, channel)
    for change in changes:
        book.apply(change)
    assert len(changes) > 20
    shown = desk.ask("public/get_order_book", instrument_name=instrument, depth=10_000)
    assert sorted(book.bids.items(), reverse=True) == [tuple(level) for level in shown["bids"]]
    assert sorted(book.asks.items()) == [tuple(level) for level in shown["asks"]]
    assert book.change_id == shown["change_id"]


def test_a_later_subscriber_gets_its_own_snapshot_and_the_same_chain(desk):
    channel = "book.BTC-PERPETUAL.100ms"
    desk.ask("public/subscribe", channels=[channel])
    books, sessions = [], [desk.session]
    desk.sleep(250)
    for _ in range(3):
        desk.sleep(130)
        desk.rest()
        sessions.append(desk.connect())
        desk.ask("public/subscribe", sessions[-1], channels=[channel])
    desk.sleep(1_000)
    for session in sessions:
        first, *rest = [data for _, data in desk.heard(session)]
        book = Book(first)
        for change in rest:
            book.apply(change)
        books.append((book.change_id, book.bids, book.asks))
    assert books.count(books[0]) == 4


def test_raw_needs_a_key_and_the_whole_request_is_refused_without(desk):
    stranger = desk.connect()
    with pytest.raises(Said) as said:
        desk.ask("public/subscribe", stranger, channels=["ticker.BTC-PERPETUAL.100ms", "book.BTC-PERPETUAL.raw"])
    assert said.value.code == 13778
    desk.sleep(500)
    assert desk.heard(stranger) == []


def test_wrong_channels_are_left_out_of_the_reply(desk):
    wrong = ["book.NOPE.raw", "ticker.BTC-PERPETUAL.7ms", "nonsense", "user.orders.any.any.raw", "quote.", ""]
    assert desk.ask("public/subscribe", desk.connect(), channels=["quote.BTC-PERPETUAL", "quote.X"]) == [
        "quote.BTC-PERPETUAL"
    ]
    stranger = desk.connect()
    assert desk.ask("public/subscribe", stranger, channels=[w for w in wrong if not w.endswith("raw")]) == []
    assert desk.ask("private/subscribe", channels=wrong) == ["user.orders.any.any.raw"]


def test_ticker_quote_and_index_speak_at_once_and_then_as_they_change(desk):
    channels = ["ticker.BTC-PERPETUAL.100ms", "quote.BTC-PERPETUAL", "deribit_price_index.btc_usd"]
    desk.ask("public/subscribe", channels=channels)
    first = dict(desk.heard())
    assert list(first) == channels
    ticker, quote, index = first.values()
    assert quote["best_bid_price"] == ticker["best_bid_price"]
    assert index["price"] == ticker["index_price"]
    desk.sleep(1_000)
    later = desk.heard()
    counts = {name: sum(1 for n, _ in later if n == name) for name in channels}
    assert all(counts.values())
    quotes = [{**data, "timestamp": 0} for name, data in later if name == "quote.BTC-PERPETUAL"]
    assert all(a != b for a, b in pairwise(quotes))


def test_a_timed_ticker_comes_at_most_every_100_ms(desk):
    desk.ask("public/subscribe", channels=["ticker.BTC-PERPETUAL.100ms"])
    desk.heard()
    for _ in range(100):
        desk.sleep(10)
    assert 5 <= len(desk.heard()) <= 11


def test_a_grouped_book_rounds_outward_and_keeps_the_depth(desk):
    channel = "book.BTC-PERPETUAL.10.10.100ms"
    desk.ask("public/subscribe", channels=[channel])
    (book,) = of(desk, channel)
    bid, ask = desk.best()
    assert 0 < len(book["bids"]) <= 10
    assert all(price % 10 == 0 for price, _ in book["bids"] + book["asks"])
    assert book["bids"][0][0] <= bid < ask <= book["asks"][0][0]
    whole = desk.ask("public/get_order_book", instrument_name=BTC, depth=10_000)
    top = book["bids"][0]
    assert top[1] == sum(amount for price, amount in whole["bids"] if price // 10 * 10 == top[0])


def test_trades_come_as_lists_by_instrument_and_by_kind(desk):
    one, every = "trades.BTC-PERPETUAL.raw", "trades.future.BTC.100ms"
    desk.ask("public/subscribe", channels=[one, every])
    mine = desk.take(amount=20)["trades"]
    desk.sleep(150)
    heard = desk.heard()
    ids = {name: [t["trade_id"] for n, data in heard if n == name for t in data] for name in (one, every)}
    assert {t["trade_id"] for t in mine} <= set(ids[one])
    assert set(ids[one]) <= set(ids[every])


def test_private_channels_tell_orders_trades_and_the_portfolio_to_their_account_alone(desk):
    channels = ["user.orders.BTC-PERPETUAL.raw", "user.trades.future.BTC.raw", "user.portfolio.btc"]
    other = desk.connect(OTHER)
    for session in (desk.session, other):
        desk.ask("private/subscribe", session, channels=channels)
        assert [name for name, _ in desk.heard(session)] == ["user.portfolio.btc"]
    order = desk.rest(label="mine")
    done = desk.take(amount=30)
    desk.rest(ETH, amount=1)
    heard = desk.heard()
    orders = [data for name, data in heard if name == channels[0]]
    trades = [trade for name, data in heard if name == channels[1] for trade in data]
    assert [(o["order_id"], o["order_state"]) for o in orders][:2] == [
        (order["order_id"], "open"),
        (done["order"]["order_id"], "open"),
    ]
    assert orders[-1]["order_state"] == "filled"
    assert {o["instrument_name"] for o in orders} == {BTC}
    assert trades == done["trades"]
    assert [data["currency"] for name, data in heard if name == channels[2]][-1] == "BTC"
    assert [name for name, _ in desk.heard(other)] == []


def test_timed_order_channels_send_lists(desk):
    desk.ask("private/subscribe", channels=["user.orders.any.any.100ms"])
    desk.rest()
    desk.rest(ETH, amount=1)
    desk.sleep(150)
    batches = of(desk, "user.orders.any.any.100ms")
    assert sorted(o["instrument_name"] for batch in batches for o in batch) == [BTC, ETH]


def test_changes_hold_orders_trades_and_the_position_together(desk):
    desk.ask("private/subscribe", channels=["user.changes.BTC-PERPETUAL.raw"])
    done = desk.take(amount=40)
    (change,) = of(desk, "user.changes.BTC-PERPETUAL.raw")
    assert change["trades"] == done["trades"]
    assert change["orders"][-1]["order_state"] == "filled"
    assert [p["size"] for p in change["positions"]] == [40.0]
    desk.rest()
    (change,) = of(desk, "user.changes.BTC-PERPETUAL.raw")
    assert (len(change["orders"]), change["trades"], change["positions"]) == (1, [], [])


def test_unsubscribing_ends_it(desk):
    desk.ask("public/subscribe", channels=["ticker.BTC-PERPETUAL.raw", "quote.ETH-PERPETUAL"])
    assert desk.ask("public/unsubscribe", channels=["quote.ETH-PERPETUAL", "quote.X"]) == ["quote.ETH-PERPETUAL"]
    desk.heard()
    desk.sleep(1_000)
    assert {name for name, _ in desk.heard()} == {"ticker.BTC-PERPETUAL.raw"}
    assert desk.ask("public/unsubscribe_all") == "ok"
    desk.sleep(1_000)
    assert desk.heard() == []


def test_a_gap_leaves_out_one_change_and_silence_one_instrument(desk):
    channel = "book.BTC-PERPETUAL.raw"
    desk.ask("public/subscribe", channels=[channel, "ticker.BTC-PERPETUAL.raw", "ticker.ETH-PERPETUAL.raw"])
    book = Book(of(desk, channel)[0])
    desk.faults.next("book.*", "gap")
    desk.sleep(1_000)
    with pytest.raises(AssertionError):
        book.apply(of(desk, channel)[0])
    desk.faults.always("ws", "silent:BTC-PERPETUAL")
    desk.sleep(1_000)
    assert {name for name, _ in desk.heard()} == {"ticker.ETH-PERPETUAL.raw"}


def test_a_muted_account_hears_the_market_only(desk):
    desk.ask("private/subscribe", channels=["user.orders.any.any.raw", "quote.BTC-PERPETUAL"])
    desk.heard()
    desk.faults.always("ws", "mute_private")
    desk.rest()
    desk.sleep(1_000)
    assert {name for name, _ in desk.heard()} == {"quote.BTC-PERPETUAL"}
