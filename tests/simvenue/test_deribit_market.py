"""The public market, in Deribit's words."""

from typing import Any

import pytest

from dea_daemon.domain.numbers import NS_PER_MS
from tests.simvenue.deribit_desk import BTC, ETH, LINEAR, Desk, Said


@pytest.fixture(scope="module")
def desk() -> Desk:
    desk = Desk()
    desk.sleep(20_000)
    return desk


def names(desk: Desk, **params: Any) -> set[str]:
    return {row["instrument_name"] for row in desk.ask("public/get_instruments", **params)}


def test_instruments_are_listed_by_settlement_currency_and_kind(desk):
    assert {BTC} <= names(desk, currency="BTC")
    assert len(names(desk, currency="BTC")) == 3
    assert names(desk, currency="USDC") == {LINEAR, "ETH_USDC-PERPETUAL"}
    assert names(desk, currency="any", kind="future") == names(desk) == set(desk.exchange.instruments)
    assert names(desk, currency="BTC", kind="option") == set()
    with pytest.raises(Said) as said:
        names(desk, currency="DOGE")
    assert said.value.data == {"reason": "invalid currency", "param": "currency"}


def test_an_instrument_tells_its_contract(desk):
    inverse = desk.ask("public/get_instrument", instrument_name=BTC)
    linear = desk.ask("public/get_instrument", instrument_name=LINEAR)
    shown = ("instrument_type", "quote_currency", "settlement_currency", "contract_size", "price_index", "tick_size")
    assert [inverse[name] for name in shown] == ["reversed", "USD", "BTC", 10.0, "btc_usd", 0.5]
    assert [linear[name] for name in shown] == ["linear", "USDC", "USDC", 0.0001, "btc_usdc", 0.5]
    assert (inverse["settlement_period"], inverse["expiration_timestamp"]) == ("perpetual", 32_503_708_800_000)


def test_the_ticker_agrees_with_the_book(desk):
    book = desk.ask("public/get_order_book", instrument_name=ETH, depth=20)
    ticker = desk.ask("public/ticker", instrument_name=ETH)
    assert book["bids"][0] == [ticker["best_bid_price"], ticker["best_bid_amount"]]
    assert book["asks"][0] == [ticker["best_ask_price"], ticker["best_ask_amount"]]
    assert ticker["min_price"] < ticker["mark_price"] < ticker["max_price"]
    assert len(desk.ask("public/get_order_book", instrument_name=ETH)["bids"]) == 5


def test_statistics_are_of_what_was_traded(desk):
    trades = desk.ask("public/get_last_trades_by_instrument", instrument_name=BTC, count=1000)["trades"]
    stats = desk.ask("public/ticker", instrument_name=BTC)["stats"]
    assert trades
    assert stats["volume_usd"] == pytest.approx(sum(t["amount"] for t in trades))
    assert stats["volume"] == pytest.approx(sum(t["amount"] / t["price"] for t in trades))
    assert (stats["low"], stats["high"]) == (min(t["price"] for t in trades), max(t["price"] for t in trades))


def test_public_trades_come_newest_first_and_from_a_start_oldest_first(desk):
    latest = desk.ask("public/get_last_trades_by_instrument", instrument_name=BTC, count=3)
    seqs = [t["trade_seq"] for t in latest["trades"]]
    assert seqs == sorted(seqs, reverse=True)
    assert latest["has_more"]
    start_ms = desk.now_ns // NS_PER_MS - 20_000
    asked = {"instrument_name": BTC, "start_timestamp": start_ms, "end_timestamp": start_ms + 10_000, "count": 1000}
    rows = desk.ask("public/get_last_trades_by_instrument_and_time", **asked)["trades"]
    assert [t["trade_seq"] for t in rows] == sorted(t["trade_seq"] for t in rows)
    assert all(start_ms <= t["timestamp"] <= start_ms + 10_000 for t in rows)


def test_candles_hold_the_trades(desk):
    now_ms = desk.now_ns // NS_PER_MS
    asked = {"instrument_name": BTC, "start_timestamp": now_ms - 600_000, "end_timestamp": now_ms}
    chart = desk.ask("public/get_tradingview_chart_data", resolution="1", **asked)
    columns = [chart[name] for name in ("ticks", "open", "high", "low", "close", "volume", "cost")]
    assert chart["status"] == "ok"
    assert len({len(column) for column in columns}) == 1
    low, close, high = columns[3], columns[4], columns[2]
    assert all(a <= b <= c for a, b, c in zip(low, close, high, strict=True))
    with pytest.raises(Said):
        desk.ask("public/get_tradingview_chart_data", resolution="7", **asked)


def test_indices_and_summaries(desk):
    index = desk.ask("public/get_index_price", index_name="btc_usd")
    assert index["index_price"] == pytest.approx(65_000, rel=0.1)
    with pytest.raises(Said):
        desk.ask("public/get_index_price", index_name="doge_usd")
    rows = desk.ask("public/get_book_summary_by_currency", currency="BTC", kind="future")
    assert len(rows) == 3
    assert all(row["bid_price"] < row["mid_price"] < row["ask_price"] for row in rows)


def test_funding_is_of_perpetuals(desk):
    window = {"start_timestamp": 0, "end_timestamp": desk.now_ns // NS_PER_MS}
    assert isinstance(desk.ask("public/get_funding_rate_value", instrument_name=BTC, **window), float)
    dated = next(name for name in desk.exchange.instruments if name.startswith("BTC-2"))
    with pytest.raises(Said):
        desk.ask("public/get_funding_rate_value", instrument_name=dated, **window)
    assert "funding_8h" not in desk.ask("public/ticker", instrument_name=dated)


def test_currencies_and_the_time(desk):
    assert [row["currency"] for row in desk.ask("public/get_currencies")] == ["BTC", "USDC", "ETH"]
    assert desk.ask("public/get_time") == desk.now_ns // NS_PER_MS
    assert desk.ask("public/hello", client_name="x", client_version="1") == desk.ask("public/test")
