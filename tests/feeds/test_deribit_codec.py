"""Deribit's wire, message by message, in the venue's own words."""

import hashlib
import hmac
import json
import math
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.domain.events import (
    BookDelta,
    BookSnapshot,
    FeedAlive,
    FeedOpened,
    FillReceived,
    IndexUpdated,
    ListingChanged,
    MarkUpdated,
    MessageRefused,
    OptionUpdated,
    OrderSeen,
    PoolUpdated,
    QuoteUpdated,
    TradePrinted,
    VenueOrderState,
    VenueStateChanged,
)
from dea_daemon.domain.instruments import AccountKey, Instrument, Kind, Payoff, Side, Universe
from dea_daemon.feeds.codec import EXCERPT_BYTES_MAX
from dea_daemon.feeds.deribit import CHANNELS_MAX, Deribit, sockets
from dea_daemon.feeds.observed import contracts_in

MS = 1_000_000


def perpetual(name: str, base: str, settle: str, lot: str, tick: str) -> Instrument:
    return Instrument(
        venue="deribit",
        name=name,
        kind=Kind.PERPETUAL,
        payoff=Payoff.INVERSE if settle == base else Payoff.LINEAR,
        underlying=base,
        quote_currency="USD" if settle == base else settle,
        settle_currency=settle,
        margin_pool=settle,
        contract_size=Decimal(1),
        lot_size=Decimal(lot),
        tick_size=Decimal(tick),
    )


UNIVERSE = Universe(
    (AccountKey("deribit", "main"),),
    (
        (0, perpetual("BTC-PERPETUAL", "BTC", "BTC", "10", "0.5")),
        (0, perpetual("SOL_USDC-PERPETUAL", "SOL", "USDC", "0.1", "0.01")),
    ),
)


def market(**options) -> Deribit:
    return Deribit(UNIVERSE, 0, **options)


def private() -> Deribit:
    return Deribit(UNIVERSE, 0, private=True, client_id="id", client_secret="secret")


def told(codec: Deribit, message: object) -> list[Any]:
    """What it says of a message; the same in any spacing and order of keys."""
    out: list[Any] = []
    if isinstance(message, bytes | str):
        codec.decode(message, 7, out)
        return out
    codec.decode(json.dumps(message, separators=(",", ":")), 7, out)
    again: list[Any] = []
    codec.decode(json.dumps(message, sort_keys=True), 7, again)
    blind = [["refused" if isinstance(e, MessageRefused) else repr(e) for e in events] for events in (out, again)]
    assert blind[0] == blind[1]
    return out


def answered(codec: Deribit, request: dict[str, Any], granted: list[str] | None = None) -> list[Any]:
    """What it says when the venue grants a request's channels, all or some; and what it asks for next."""
    names = request["params"]["channels"] if granted is None else granted
    out: list[Any] = []
    following = codec.decode(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": names}), 7, out)
    request = {} if following is None else sent(following)
    # Once it is open it asks whether trading is locked: the tests of that look at it.
    return out if request.get("method") in (None, "public/status") else [*out, request]


def notice(channel: str, data: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}}


def sent(message: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(message)
    return decoded


# --- market data ------------------------------------------------------------------------------------


def test_a_book_snapshot_and_a_change_are_linked_by_their_numbers():
    head = {"timestamp": 1, "instrument_name": "BTC-PERPETUAL"}
    snapshot = head | {"type": "snapshot", "change_id": 5, "bids": [["new", 99, 10.0]], "asks": []}
    change = head | {
        "type": "change",
        "prev_change_id": 5,
        "change_id": 9,
        "bids": [["delete", 99, 0], ["new", 98.5, 20]],
        "asks": [["change", 101.0, 30.0]],
    }
    codec = market()
    assert told(codec, notice("book.BTC-PERPETUAL.100ms", snapshot)) == [BookSnapshot(7, MS, 0, 5, [(99.0, 10.0)], [])]
    assert told(codec, notice("book.BTC-PERPETUAL.100ms", change)) == [
        BookDelta(7, MS, 0, 9, 9, 5, [(99.0, 0.0), (98.5, 20.0)], [(101.0, 30.0)])
    ]


def test_a_deleted_level_has_no_amount_whatever_the_venue_writes():
    data = {"type": "change", "timestamp": 1, "prev_change_id": 1, "change_id": 2, "bids": [["delete", 9, 4]]}
    (delta,) = told(market(), notice("book.BTC-PERPETUAL.100ms", data | {"asks": []}))
    assert delta.bids == [(9.0, 0.0)]


def test_a_change_that_does_not_say_what_it_follows_is_refused():
    data = {"type": "change", "timestamp": 1, "change_id": 2, "bids": [], "asks": []}
    (refusal,) = told(market(), notice("book.BTC-PERPETUAL.100ms", data))
    assert isinstance(refusal, MessageRefused)


def test_a_ticker_is_a_mark_and_a_quote():
    data = {
        "timestamp": 3,
        "mark_price": 100.0,
        "index_price": 101.0,
        "open_interest": 5.0,
        "current_funding": 0.0001,
        "funding_8h": 0.0002,
        "best_bid_price": 99.5,
        "best_bid_amount": 10.0,
        "best_ask_price": 0.0,  # Deribit's way to say: nobody
        "best_ask_amount": 0.0,
        "greeks": {"delta": 1.0},
    }
    mark, quote = told(market(), notice("ticker.BTC-PERPETUAL.100ms", data))
    assert mark == MarkUpdated(7, 3 * MS, 0, 100.0, 101.0, 0.0001, 5.0)
    assert isinstance(quote, QuoteUpdated)
    assert (quote.bid, quote.bid_amount, quote.ask_amount) == (99.5, 10.0, 0.0)
    assert math.isnan(quote.ask)


def test_a_ticker_without_an_index_or_funding_leaves_them_unknown():
    mark, _ = told(market(), notice("ticker.BTC-PERPETUAL.100ms", {"timestamp": 3, "mark_price": 1}))
    assert math.isnan(mark.index_price)
    assert math.isnan(mark.funding_rate_8h)


def test_trades_and_indices_are_read():
    trade = {"trade_id": "T1", "timestamp": 4, "direction": "sell", "price": 99, "amount": 10, "tick_direction": 0}
    codec = market()
    assert (
        told(codec, notice("trades.BTC-PERPETUAL.100ms", [trade, trade]))
        == [TradePrinted(7, 4 * MS, 0, "T1", Side.SELL, 99.0, 10.0)] * 2
    )
    index = {"timestamp": 5, "price": 100.5, "index_name": "btc_usd"}
    assert told(codec, notice("deribit_price_index.btc_usd", index)) == [IndexUpdated(7, 5 * MS, 0, "BTC", 100.5)]


def test_the_index_of_an_underlying_without_coin_settled_contracts_is_in_usdc():
    (_, subscribe) = market().hello(0, "n")
    channels = sent(subscribe)["params"]["channels"]
    assert {c for c in channels if c.startswith("deribit")} == {
        "deribit_price_index.btc_usd",
        "deribit_price_index.sol_usdc",
        "deribit_price_index.usdc_usd",  # what it is settled in
    }


def test_the_price_of_a_stablecoin_that_is_held_is_heard_and_of_dollars_there_is_none():
    btc = Universe((AccountKey("deribit", "main"),), ((0, UNIVERSE.instruments[0]),))
    codec = Deribit(btc, 0, held=("USDT", "USD", "BTC"))
    channels = sent(codec.hello(0, "n")[1])["params"]["channels"]
    told_of = [c.rpartition(".")[2] for c in channels if c.startswith("deribit_price_index")]
    assert told_of == ["btc_usd", "usdt_usd"]
    index = {"timestamp": 5, "price": 0.97, "index_name": "usdt_usd"}
    assert told(codec, notice("deribit_price_index.usdt_usd", index)) == [IndexUpdated(7, 5 * MS, 0, "USDT", 0.97)]


# --- the connection ---------------------------------------------------------------------------------


def test_without_a_key_it_subscribes_at_once():
    heartbeat, subscribe = (sent(message) for message in market().hello(0, "n"))
    assert heartbeat["method"] == "public/set_heartbeat"
    assert subscribe["method"] == "public/subscribe"
    assert "book.BTC-PERPETUAL.100ms" in subscribe["params"]["channels"]


def test_with_a_key_it_signs_and_subscribes_once_the_venue_agrees():
    codec = private()
    heartbeat, auth = (sent(message) for message in codec.hello(1_700, "nonce"))
    assert heartbeat["method"] == "public/set_heartbeat"
    assert auth["method"] == "public/auth"
    expected = hmac.new(b"secret", b"1700\nnonce\n", hashlib.sha256).hexdigest()
    assert auth["params"]["signature"] == expected
    assert "secret" not in json.dumps(auth)
    agreed = {"jsonrpc": "2.0", "id": auth["id"], "result": {"access_token": "a", "expires_in": 9}}
    out: list[Any] = []
    reply = codec.decode(json.dumps(agreed), 7, out)
    assert out == []
    assert reply is not None
    assert sent(reply)["method"] == "private/subscribe"
    assert sent(reply)["params"]["channels"] == [
        "user.changes.any.BTC.raw",
        "user.portfolio.BTC",
        "user.changes.any.USDC.raw",
        "user.portfolio.USDC",
    ]


def test_the_feed_is_open_when_its_subscriptions_are_confirmed_and_not_before():
    codec = market()
    subscribe = sent(codec.hello(0, "n")[1])
    assert not codec.ready
    assert answered(codec, subscribe) == [FeedOpened(7, "deribit", 0, False, (0, 1))]
    assert codec.ready
    codec.hello(0, "n")
    assert not codec.ready


def test_a_channel_not_granted_is_told_and_the_others_go_on():
    codec = market()
    subscribe = sent(codec.hello(0, "n")[1])
    granted = [c for c in subscribe["params"]["channels"] if "SOL" not in c]
    refusal, opened = answered(codec, subscribe, granted)
    assert "not granted" in refusal.why
    assert opened == FeedOpened(7, "deribit", 0, False, (0,))


def test_an_account_stream_is_heard_whole_or_not_at_all():
    codec = private()
    auth = sent(codec.hello(0, "n")[1])
    reply = codec.decode(json.dumps({"id": auth["id"], "result": {"access_token": "a"}}), 7, [])
    (refusal,) = answered(codec, sent(reply or b""), ["user.changes.any.BTC.raw"])
    assert isinstance(refusal, MessageRefused)
    assert not codec.ready


def test_a_refused_authentication_is_told_and_the_feed_stays_shut():
    codec = private()
    auth = sent(codec.hello(0, "n")[1])
    error = {"id": auth["id"], "error": {"code": 13004, "message": "invalid_credentials"}}
    (refusal,) = told(codec, error)
    assert refusal.why == "authentication refused: 13004 invalid_credentials"
    assert not codec.ready


def test_heartbeats_are_signs_of_life_and_a_test_request_is_answered():
    codec = private()
    out: list[Any] = []
    assert codec.decode(b'{"method":"heartbeat","params":{"type":"heartbeat"}}', 7, out) is None
    reply = codec.decode(b'{"method":"heartbeat","params":{"type":"test_request"}}', 8, out)
    assert reply is not None
    assert sent(reply)["method"] == "public/test"
    assert out == [FeedAlive(7, "deribit", 0, True), FeedAlive(8, "deribit", 0, True)]


def opened_feed(codec: Deribit) -> Deribit:
    """Subscribed, and asking for the venue's state."""
    first = sent(codec.hello(0, "n")[1])
    if codec.private:
        reply = codec.decode(json.dumps({"id": first["id"], "result": {"access_token": "a"}}), 7, [])
        first = sent(reply or b"")
    following = codec.decode(json.dumps({"id": first["id"], "result": first["params"]["channels"]}), 7, [])
    assert (following is None) == codec.private
    assert following is None or sent(following)["method"] == "public/status"
    assert codec.ready
    return codec


def heartbeat(codec: Deribit) -> dict[str, Any] | None:
    reply = codec.decode(b'{"method":"heartbeat","params":{"type":"heartbeat"}}', 7, [])
    return None if reply is None else sent(reply)


def test_the_account_stream_asks_at_each_heartbeat_whether_its_key_still_holds():
    codec = opened_feed(private())
    still = heartbeat(codec)
    assert still is not None and still["method"].startswith("private/")
    told(codec, {"id": still["id"], "result": {"enabled": False, "scope": "connection"}})
    told(codec, {"id": still["id"], "error": {"code": 10028, "message": "too_many_requests"}})
    assert codec.ready
    (refusal,) = told(codec, {"id": still["id"], "error": {"code": 13009, "message": "unauthorized"}})[:1]
    assert "13009 unauthorized" in refusal.why
    assert not codec.ready  # so that it is connected anew
    assert heartbeat(codec) is None
    assert heartbeat(opened_feed(market())) is None


def locked(codec: Deribit, *answers: dict[str, Any]) -> list[tuple[bool, str]]:
    """(open, currency) told of platform_state notices, or of answers to public/status."""
    heard = []
    for answer in answers:
        status = isinstance(answer.get("locked"), str) or "locked_indices" in answer
        message = {"id": 6, "result": answer} if status else notice("platform_state", answer)
        out: list[Any] = []
        codec.decode(json.dumps(message), 7, out)
        assert all(isinstance(event, VenueStateChanged) and event.why for event in out), out
        heard += [(event.open, event.currency) for event in out]
    return heard


def test_a_currency_is_locked_while_one_of_its_indices_is():
    codec = opened_feed(market())
    first = locked(codec, {"price_index": "btc_usd", "locked": True}, {"price_index": "btc_usdc", "locked": True})
    assert first == [(False, "BTC")]
    assert locked(codec, {"price_index": "btc_usd", "locked": False}) == []
    assert locked(codec, {"price_index": "btc_usdc", "locked": False}) == [(True, "BTC")]
    assert locked(codec, {"price_index": "xrp_usdc", "locked": True}) == []  # nothing of ours
    assert locked(codec, {"maintenance": True}, {"maintenance": False}) == [(False, ""), (True, "")]


def test_a_maintenance_told_before_we_came_is_asked_for_and_its_end_is_told_once():
    codec = opened_feed(market())
    assert locked(codec, {"locked": "partial", "locked_indices": ["btc_usd", "xrp_usdc"]}) == [(False, "BTC")]
    assert locked(codec, {"locked": "true", "locked_indices": ["btc_usd", "sol_usdc"]}) == [(False, "SOL")]
    opened_feed(codec)  # a new connection: what was heard before still holds
    assert locked(codec, {"locked": "false", "locked_indices": []}) == [(True, "BTC"), (True, "SOL")]
    assert locked(codec, {"locked": "false", "locked_indices": []}) == []


def test_a_venue_locked_as_a_whole_is_open_when_one_of_its_indices_is():
    codec = opened_feed(market())
    assert locked(codec, {"locked": "true"}) == [(False, "")]
    assert locked(codec, {"price_index": "btc_usd", "locked": False}) == [(True, "")]


@pytest.mark.parametrize("said", [{}, {"price_index": "btc_usd"}, {"price_index": 5, "locked": True}, []])
def test_a_state_of_the_venue_that_cannot_be_read_is_refused(said):
    (refusal,) = told(opened_feed(market()), notice("platform_state", said))
    assert isinstance(refusal, MessageRefused)


def test_a_fresh_book_is_had_by_subscribing_again():
    messages = [sent(message) for message in market().resubscribe(0)]
    assert [m["method"] for m in messages] == ["public/unsubscribe", "public/subscribe"]
    assert all(m["params"]["channels"] == ["book.BTC-PERPETUAL.100ms"] for m in messages)
    assert private().resubscribe(0) == []


def test_a_book_that_is_refused_shuts_the_feed_so_that_it_is_connected_anew():
    codec = market()
    subscribe = sent(codec.hello(0, "n")[1])
    answered(codec, subscribe)
    told(codec, {"id": 99, "error": {"code": 10028, "message": "something else"}})
    assert codec.ready
    again = sent(codec.resubscribe(0)[1])
    told(codec, {"id": again["id"], "error": {"code": 13009, "message": "unauthorized"}})
    assert not codec.ready


def test_raw_books_are_asked_for_only_with_a_key():
    (alone,) = sockets(UNIVERSE, 0)
    assert b".raw" not in b"".join(alone.codec.hello(0, "n"))
    both = sockets(UNIVERSE, 0, "id", "secret")
    assert [socket.codec.private for socket in both] == [False, True]
    assert b".raw" in b"".join(both[0].codec.resubscribe(0))
    assert both[1].codec.rows == ()


# --- options ----------------------------------------------------------------------------------------


def option(strike: int, base: str = "BTC", settle: str = "BTC") -> Instrument:
    pair = base if settle == base else f"{base}_{settle}"
    return msgspec.structs.replace(
        perpetual(f"{pair}-27MAR26-{strike}-C", base, settle, "0.1", "0.0001"),
        kind=Kind.OPTION,
        payoff=Payoff.LINEAR,
        quote_currency=settle,
        expiry_ns=1_774_598_400_000_000_000,
        strike=float(strike),
        is_call=True,
    )


def chain(strikes: int) -> Universe:
    """A perpetual and so many options."""
    rows = [UNIVERSE.instruments[0], *(option(10_000 + k) for k in range(strikes))]
    return Universe(UNIVERSE.accounts, tuple((0, instrument) for instrument in rows))


OPTION_TICKER = {
    "timestamp": 3,
    "mark_price": 0.05,
    "index_price": 64_000.0,
    "open_interest": 5.0,
    "mark_iv": 55.5,
    "bid_iv": 0.0,  # nobody bids
    "ask_iv": 60.0,
    "underlying_price": 65_000.0,
    "underlying_index": "BTC-27MAR26",
    "interest_rate": 0.0,
    "best_bid_price": 0.0,
    "best_bid_amount": 0.0,
    "best_ask_price": 0.055,
    "best_ask_amount": 2.5,
    "greeks": {"delta": 0.5, "gamma": 0.00002, "vega": 120.0, "theta": -35.0, "rho": 9.0},
}


def test_an_options_ticker_is_a_mark_a_quote_and_the_venues_own_view_of_it():
    codec = Deribit(chain(1), 0)
    mark, quote, view = told(codec, notice("ticker.BTC-27MAR26-10000-C.100ms", OPTION_TICKER))
    assert (mark.row, mark.mark_price, mark.index_price) == (1, 0.05, 64_000.0)
    assert math.isnan(quote.bid)
    assert (quote.ask, quote.ask_amount) == (0.055, 2.5)
    assert isinstance(view, OptionUpdated)
    assert (view.row, view.ts_event_ns, view.mark_iv, view.ask_iv) == (1, 3 * MS, 0.555, 0.6)
    assert math.isnan(view.bid_iv)
    assert view.underlying_price == 65_000.0
    assert (view.delta, view.gamma, view.vega, view.theta) == (0.5, 0.00002, 120.0, -35.0)


def test_a_recording_shows_options_by_their_tickers_and_other_contracts_by_their_books():
    named = OPTION_TICKER | {"instrument_name": "BTC-27MAR26-80000-C", "best_bid_price": 0.0505, "best_bid_amount": 3.0}
    option_ticker = notice("ticker.BTC-27MAR26-80000-C.raw", named)
    future_ticker = notice("ticker.BTC-27MAR26.raw", named | {"instrument_name": "BTC-27MAR26"})
    (seen,) = contracts_in([json.dumps(m).encode() for m in (option_ticker, future_ticker)], "deribit")
    assert (seen.kind, seen.strike, seen.is_call, seen.quote_currency) == (Kind.OPTION, 80_000.0, True, "BTC")
    assert (seen.tick_size, seen.lot_size) == (Decimal("0.0001"), Decimal("0.1"))
    assert seen.expiry_ns == 1_774_598_400_000_000_000


def test_what_an_options_ticker_leaves_out_is_unknown():
    bare = {"timestamp": 3, "mark_price": 0.05, "greeks": {"delta": 0.5}, "bid_iv": None}
    _, _, view = told(Deribit(chain(1), 0), notice("ticker.BTC-27MAR26-10000-C.100ms", bare))
    unknown = (view.mark_iv, view.bid_iv, view.ask_iv, view.underlying_price, view.gamma, view.vega, view.theta)
    assert all(math.isnan(figure) for figure in unknown)
    assert view.delta == 0.5


def test_an_option_is_heard_by_its_ticker_alone_but_its_recorded_book_is_read():
    codec = Deribit(chain(1), 0)
    subscribe = sent(codec.hello(0, "n")[1])
    mine = [c for c in subscribe["params"]["channels"] if "27MAR26" in c]
    assert mine == ["ticker.BTC-27MAR26-10000-C.100ms"]
    assert codec.resubscribe(1) == []
    data = {"type": "snapshot", "timestamp": 1, "change_id": 5, "bids": [], "asks": [["new", 0.05, 1.0]]}
    (book,) = told(codec, notice("book.BTC-27MAR26-10000-C.100ms", data))
    assert isinstance(book, BookSnapshot)
    assert answered(codec, subscribe) == [FeedOpened(7, "deribit", 0, False, (0, 1))]


@pytest.mark.parametrize("kind", ["future", "option"])
def test_a_listing_is_told_in_the_venues_words(kind):
    codec = market()
    assert f"instrument.state.{kind}.any" in sent(codec.hello(0, "n")[1])["params"]["channels"]
    data = {"timestamp": 5, "state": "created", "instrument_name": "BTC-3APR26-70000-P"}
    heard = told(codec, notice(f"instrument.state.{kind}.any", data))
    assert heard == [ListingChanged(7, 0, "BTC-3APR26-70000-P", "created")]


def test_a_large_chain_is_subscribed_to_in_several_requests_and_open_after_the_last():
    codec = Deribit(chain(2 * CHANNELS_MAX), 0)
    request = sent(codec.hello(0, "n")[1])
    asked = list(request["params"]["channels"])
    for _ in range(2):
        assert len(request["params"]["channels"]) == CHANNELS_MAX
        (request,) = answered(codec, request)
        asked += request["params"]["channels"]
        assert not codec.ready
    (opened,) = answered(codec, request)
    assert opened.rows == tuple(range(2 * CHANNELS_MAX + 1))
    assert codec.ready
    assert len(asked) == len(set(asked)) == len(codec._channels)


def grown(codec: Deribit, universe: Universe, *instruments: Instrument) -> list[dict[str, Any]]:
    """Contracts join: what the codec then sends."""
    before = len(universe)
    universe.extend(tuple((0, instrument) for instrument in instruments))
    return [sent(message) for message in codec.join(range(before, len(universe)))]


def test_contracts_that_join_are_subscribed_to_and_the_feed_is_open_for_them_alone():
    universe = chain(1)
    codec = Deribit(universe, 0)
    answered(codec, sent(codec.hello(0, "n")[1]))
    (request,) = grown(codec, universe, option(99_000))
    assert request["params"]["channels"] == ["ticker.BTC-27MAR26-99000-C.100ms"]
    assert answered(codec, request) == [FeedOpened(7, "deribit", 0, False, (2,))]
    assert codec.rows == (0, 1, 2)
    assert len(told(codec, notice("ticker.BTC-27MAR26-99000-C.100ms", OPTION_TICKER))) == 3
    again = sent(codec.hello(0, "n")[1])
    assert "ticker.BTC-27MAR26-99000-C.100ms" in again["params"]["channels"]


def test_contracts_that_join_while_subscribing_go_with_the_rest():
    universe = chain(CHANNELS_MAX)
    codec = Deribit(universe, 0)
    first = sent(codec.hello(0, "n")[1])
    assert grown(codec, universe, option(99_000)) == []
    (second,) = answered(codec, first)
    assert "ticker.BTC-27MAR26-99000-C.100ms" in second["params"]["channels"]
    (opened,) = answered(codec, second)
    assert opened.rows == tuple(range(CHANNELS_MAX + 2))


def test_a_join_that_is_refused_leaves_the_others_heard_and_the_next_free():
    universe = chain(1)
    codec = Deribit(universe, 0)
    answered(codec, sent(codec.hello(0, "n")[1]))
    (request,) = grown(codec, universe, option(99_000))
    told(codec, {"id": request["id"], "error": {"code": 10028, "message": "too_many_requests"}})
    assert codec.ready
    (request,) = grown(codec, universe, option(98_000))
    assert request["params"]["channels"] == ["ticker.BTC-27MAR26-98000-C.100ms"]


def test_an_account_that_gets_its_first_contract_in_a_currency_hears_of_that_currency():
    universe = chain(1)
    codec = Deribit(universe, 0, private=True)
    answered(codec, sent(codec.hello(0, "n")[1]))
    assert grown(codec, universe, option(99_000)) == []
    (request,) = grown(codec, universe, option(99_000, settle="USDC"))
    assert request["method"] == "private/subscribe"
    assert request["params"]["channels"] == ["user.changes.any.USDC.raw", "user.portfolio.USDC"]
    assert codec.rows == ()


def test_a_contract_that_ended_is_asked_for_no_more():
    codec = Deribit(chain(2), 0)
    codec.leave([1])
    channels = sent(codec.hello(0, "n")[1])["params"]["channels"]
    assert [c for c in channels if "27MAR26" in c] == ["ticker.BTC-27MAR26-10001-C.100ms"]
    assert codec.rows == (0, 2)
    codec.leave([1])


# --- the account ------------------------------------------------------------------------------------

TRADE = {
    "trade_id": "T1",
    "order_id": "O1",
    "instrument_name": "BTC-PERPETUAL",
    "label": "d000000000000001",
    "direction": "buy",
    "amount": 30.0,
    "price": 100.5,
    "fee": -1e-8,
    "fee_currency": "BTC",
    "liquidity": "M",
    "timestamp": 6,
    "state": "filled",
}
ORDER = {
    "order_id": "O1",
    "instrument_name": "BTC-PERPETUAL",
    "label": "d000000000000001",
    "direction": "buy",
    "order_state": "filled",
    "amount": 30.0,
    "filled_amount": 30.0,
    "price": 100.5,
    "last_update_timestamp": 6,
}


def test_fills_come_before_the_end_of_their_order():
    data = {"instrument_name": "BTC-PERPETUAL", "orders": [ORDER], "trades": [TRADE], "positions": []}
    fill, order = told(private(), notice("user.changes.any.BTC.raw", data))
    assert fill == FillReceived(7, 6 * MS, 0, 0, "T1", "O1", "d000000000000001", Side.BUY, 3, 201, -1e-8, "BTC", True)
    assert order == OrderSeen(7, 6 * MS, 0, 0, "d000000000000001", "O1", VenueOrderState.FILLED, Side.BUY, 3, 3, 201)


def test_a_contract_outside_the_universe_is_told_and_the_rest_is_read():
    data = {"trades": [TRADE | {"instrument_name": "ETH-PERPETUAL"}, TRADE], "orders": []}
    fill, refusal = told(private(), notice("user.changes.any.BTC.raw", data))
    assert isinstance(fill, FillReceived)
    assert "outside the universe" in refusal.why


def test_a_pool_is_read_whatever_case_its_channel_comes_back_in():
    data = {"currency": "BTC", "equity": 1.5, "balance": 1.4, "initial_margin": 0.2, "maintenance_margin": 0.1}
    for channel in ("user.portfolio.btc", "user.portfolio.BTC"):
        (event,) = told(private(), notice(channel, data))
        assert isinstance(event, PoolUpdated)
        assert event.pool.cash == 1.4


# --- what cannot be read ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"<html>502</html>",
        b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.',
        b"[" * 100_000,
        '{"method":"subscription","params":{"channel":"book.DOGE-PERPETUAL.raw","data":{}}}',
        json.dumps(notice("book.BTC-PERPETUAL.100ms", {"type": "change"})),
        json.dumps(notice("user.changes.any.BTC.raw", {"orders": [ORDER | {"order_state": "perplexed"}]})),
        json.dumps(notice("user.changes.any.BTC.raw", {"trades": [TRADE | {"amount": "NaN"}]})),
        json.dumps(notice("user.changes.any.BTC.raw", {"trades": [TRADE | {"price": 1e400}]})),
        json.dumps(notice("ticker.BTC-PERPETUAL.100ms", {"timestamp": 1, "mark_price": "high"})),
    ],
)
def test_what_cannot_be_read_is_one_refusal_with_a_bounded_excerpt(raw):
    both = private()
    both._routes |= market()._routes
    (refusal,) = told(both, raw)
    assert isinstance(refusal, MessageRefused)
    assert len(refusal.excerpt) <= EXCERPT_BYTES_MAX
    assert len(refusal.why) <= EXCERPT_BYTES_MAX


def test_an_excerpt_never_holds_a_token():
    (refusal,) = told(private(), {"id": 99, "jsonrpc": 1.5, "result": {"access_token": "hush"}, "method": 3})
    assert "hush" not in refusal.excerpt + refusal.why


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
channels = st.sampled_from(list(market()._routes) + list(private()._routes))


@given(channels, st.sampled_from([TRADE, ORDER, {"orders": [ORDER], "trades": [TRADE]}]), st.data())
def test_no_notification_raises(channel, data, draw):
    spoilt = dict(data)
    spoilt[draw.draw(st.sampled_from(sorted(spoilt)))] = draw.draw(json_values)
    codec = private()
    codec._routes |= market()._routes
    told(codec, notice(channel, draw.draw(json_values | st.just(spoilt))))


@given(st.binary(max_size=60))
def test_no_bytes_raise(raw):
    assert told(private(), raw)
