"""Binance USD-M's wire, message by message, in the venue's own words."""

import json
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.domain.errors import VenueError
from dea_daemon.domain.events import (
    BookDelta,
    BookSnapshot,
    FeedOpened,
    MarkUpdated,
    MessageRefused,
    QuoteUpdated,
    TradePrinted,
)
from dea_daemon.domain.instruments import AccountKey, Kind, Side, Universe
from dea_daemon.feeds.binance import Binance, instrument_from, sockets
from dea_daemon.feeds.codec import EXCERPT_BYTES_MAX
from dea_daemon.feeds.observed import contracts_in, trade_stream

MS = 1_000_000
LISTED = {
    "symbol": "BTCUSDT",
    "contractType": "PERPETUAL",
    "deliveryDate": 4_133_404_800_000,
    "status": "TRADING",
    "baseAsset": "BTC",
    "quoteAsset": "USDT",
    "marginAsset": "USDT",
    "filters": [
        {"minPrice": "556.72", "filterType": "PRICE_FILTER", "tickSize": "0.10"},
        {"stepSize": "0.001", "filterType": "LOT_SIZE", "maxQty": "1000", "minQty": "0.002"},
        {"limit": 200, "filterType": "MAX_NUM_ORDERS"},
    ],
}
UNIVERSE = Universe(
    (AccountKey("binanceusdm", "main"),),
    ((0, instrument_from(LISTED)), (0, instrument_from(LISTED | {"symbol": "ETHUSDT", "baseAsset": "ETH"}))),
)
DEPTH: dict[str, Any] = {
    "e": "depthUpdate",
    "E": 3,
    "T": 2,
    "s": "BTCUSDT",
    "U": 11,
    "u": 15,
    "pu": 10,
    "b": [["99.50", "1.000"], ["99.40", "0.000"]],
    "a": [["100.00", "2.5"]],
}
TRADE: dict[str, Any] = {
    "e": "trade",
    "T": 2,
    "s": "BTCUSDT",
    "t": 8,
    "p": "99.5",
    "q": "0.1",
    "X": "MARKET",
    "m": True,
}
AGG: dict[str, Any] = {"e": "aggTrade", "T": 2, "s": "BTCUSDT", "a": 4, "p": "99.5", "q": "0.3", "m": False}


def codec(**options) -> Binance:
    return Binance(UNIVERSE, 0, **options)


def told(of: Binance, message: object) -> list[Any]:
    out: list[Any] = []
    raw = message if isinstance(message, bytes | str) else json.dumps(message, separators=(",", ":"))
    assert of.decode(raw, 7, out) is None
    return out


def test_a_depth_update_keeps_its_three_numbers_whether_wrapped_or_bare():
    delta = BookDelta(7, 2 * MS, 0, 11, 15, 10, [(99.5, 1.0), (99.4, 0.0)], [(100.0, 2.5)])
    assert told(codec(), {"stream": "btcusdt@depth@100ms", "data": DEPTH}) == [delta]
    assert told(codec(), DEPTH) == [delta]


def test_a_depth_update_that_does_not_say_what_it_follows_is_refused():
    (refusal,) = told(codec(), {k: v for k, v in DEPTH.items() if k != "pu"})
    assert isinstance(refusal, MessageRefused)


def test_a_book_ticker_is_a_quote_and_a_missing_side_is_unknown():
    ticker = {"e": "bookTicker", "u": 1, "s": "ETHUSDT", "b": "9.5", "B": "2", "a": "0.00", "A": "0", "T": 2, "E": 3}
    (quote,) = told(codec(), {"stream": "ethusdt@bookTicker", "data": ticker})
    assert isinstance(quote, QuoteUpdated)
    assert (quote.row, quote.bid, quote.bid_amount, quote.ask_amount) == (1, 9.5, 2.0, 0.0)
    assert math.isnan(quote.ask)


def test_of_the_two_reports_of_one_execution_one_is_told():
    assert told(codec(), AGG) == [TradePrinted(7, 2 * MS, 0, "4", Side.BUY, 99.5, 0.3)]
    assert told(codec(), TRADE) == []
    assert told(codec(trades="trade"), TRADE) == [TradePrinted(7, 2 * MS, 0, "8", Side.SELL, 99.5, 0.1)]
    assert told(codec(trades="trade"), AGG) == []


def test_a_funding_rate_is_told_per_eight_hours_whatever_the_interval():
    mark = {"e": "markPriceUpdate", "E": 3, "s": "BTCUSDT", "p": "99", "i": "98", "P": "1", "r": "0.0001", "T": 9}
    assert told(codec(), mark) == [MarkUpdated(7, 3 * MS, 0, 99.0, 98.0, 0.0001)]
    (four_hourly,) = told(codec(funding_hours={"BTCUSDT": 4.0}), mark)
    assert four_hourly.funding_rate_8h == pytest.approx(0.0002)
    (dated,) = told(codec(), mark | {"r": ""})
    assert math.isnan(dated.funding_rate_8h)


def test_messages_of_no_use_here_are_neither_told_nor_refused():
    assert told(codec(), {"stream": "btcusdt@kline_1m", "data": {"e": "kline", "s": "BTCUSDT", "k": {}}}) == []


def test_the_feed_is_open_when_its_subscriptions_are_confirmed():
    public = codec()
    (subscribe,) = (json.loads(message) for message in public.hello(0, "n"))
    assert subscribe["params"] == [
        f"{name}@{stream}" for name in ("btcusdt", "ethusdt") for stream in ("depth@100ms", "bookTicker")
    ]
    assert not public.ready
    assert told(public, {"result": None, "id": subscribe["id"]}) == [FeedOpened(7, "binanceusdm", 0, False, (0, 1))]
    assert public.ready


def test_a_refused_subscription_is_told_and_the_feed_stays_shut():
    public = codec()
    for answer in ({"id": 1, "error": {"code": 2, "msg": "Invalid request"}}, {"code": -1121, "msg": "?", "id": 1}):
        (refusal,) = told(public, answer)
        assert isinstance(refusal, MessageRefused)
        assert not public.ready


def test_each_routed_class_has_its_socket_and_only_one_carries_books():
    public, market = sockets(UNIVERSE, 0)
    assert (public.path, market.path) == ("/public/stream", "/market/stream")
    assert b"depth" in public.codec.hello(0, "n")[0]
    assert b"aggTrade" in market.codec.hello(0, "n")[0]
    assert (public.codec.rows, market.codec.rows) == ((0, 1), ())
    assert public.codec.resubscribe(0) == []
    assert public.codec.snapshot_path(1) == "/fapi/v1/depth?symbol=ETHUSDT&limit=1000"
    assert market.codec.snapshot_path(1) is None


def test_an_http_book_carries_the_number_of_its_last_change():
    out: list[Any] = []
    codec().snapshot(b'{"lastUpdateId":12,"E":3,"T":2,"bids":[["99.5","1"]],"asks":[]}', 1, 7, out)
    assert out == [BookSnapshot(7, 2 * MS, 1, 12, [(99.5, 1.0)], [])]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"code":-1003,"msg":"Too many requests"}', b'{"lastUpdateId":null}']
)
def test_an_http_answer_that_is_no_book_is_refused(body):
    out: list[Any] = []
    codec().snapshot(body, 0, 7, out)
    assert [type(event) for event in out] == [MessageRefused]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b'{"stream":',
        b'{"stream":"x","data":{"e":"martians"}}',
        b'{"stream":"x","data":{}}',
        b'{"e":"trade"}',
        '{"e":"depthUpdate","s":5}',
        b"[" * 100_000,
        json.dumps(DEPTH | {"b": [["99.5"]]}),
        json.dumps(DEPTH | {"b": [["cheap", "1"]]}),
        json.dumps(DEPTH | {"s": "DOGEUSDT"}),
    ],
)
def test_what_cannot_be_read_is_one_refusal_with_a_bounded_excerpt(raw):
    (refusal,) = told(codec(), raw)
    assert isinstance(refusal, MessageRefused)
    assert len(refusal.excerpt) <= EXCERPT_BYTES_MAX


anything = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.lists(st.integers(), max_size=2)
)


@given(st.sampled_from([DEPTH, TRADE, AGG]), st.data(), st.booleans())
def test_no_message_raises(message, data, wrapped):
    spoilt = dict(message)
    spoilt[data.draw(st.sampled_from(sorted(message)))] = data.draw(anything)
    told(codec(), {"stream": "x", "data": spoilt} if wrapped else spoilt)


@given(st.binary(max_size=60))
def test_no_bytes_raise(raw):
    told(codec(), raw)


def test_a_listed_contract_is_read_with_its_grid():
    bitcoin = instrument_from(LISTED)
    assert (bitcoin.kind, bitcoin.underlying, bitcoin.margin_pool) == (Kind.PERPETUAL, "BTC", "USDT")
    assert (bitcoin.tick_size, bitcoin.lot_size, bitcoin.min_lots) == (Decimal("0.1"), Decimal("0.001"), 2)
    dated = instrument_from(LISTED | {"symbol": "BTCUSDT_261225", "contractType": "CURRENT_QUARTER"})
    assert (dated.kind, dated.expiry_ns) == (Kind.FUTURE, 4_133_404_800_000 * MS)
    with pytest.raises(VenueError):
        instrument_from(LISTED | {"filters": []})


def test_contracts_without_a_listing_get_the_grid_they_were_seen_on():
    other = DEPTH | {"s": "BTCUSDT_240927", "b": [["1000.0", "20"]], "a": []}
    payloads = [json.dumps({"stream": "x", "data": data}).encode() for data in (DEPTH, TRADE, other)]
    bitcoin, dated = contracts_in(payloads, "binanceusdm")
    assert (bitcoin.name, bitcoin.underlying, bitcoin.kind) == ("BTCUSDT", "BTC", Kind.PERPETUAL)
    assert (bitcoin.tick_size, bitcoin.lot_size) == (Decimal("0.1"), Decimal("0.1"))
    assert (dated.kind, dated.tick_size, dated.lot_size) == (Kind.FUTURE, Decimal(1), Decimal(1))
    assert trade_stream(payloads) == "trade"
    assert trade_stream([*payloads, json.dumps(AGG).encode()]) == "aggTrade"


def test_contracts_without_a_listing_are_known_by_their_deribit_names():
    def payload(name: str) -> bytes:
        data = {"type": "snapshot", "instrument_name": name, "bids": [["new", 0.0015, 2.5]], "asks": []}
        return json.dumps({"params": {"channel": f"book.{name}.raw", "data": data}}).encode()

    names = ("BTC-PERPETUAL", "BTC_USDC-PERPETUAL", "BTC-24SEP21", "BTC-24SEP21-8000-P")
    kinds = [(i.kind, i.payoff.value, i.settle_currency) for i in contracts_in(map(payload, names), "deribit")]
    assert kinds == [
        (Kind.PERPETUAL, "inverse", "BTC"),
        (Kind.PERPETUAL, "linear", "USDC"),
        (Kind.FUTURE, "inverse", "BTC"),
        (Kind.OPTION, "linear", "BTC"),
    ]
