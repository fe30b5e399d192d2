"""OKX's dialect: recorded books proved by their checksums, numbers and their restarts, marks, funding, refusals."""

import json
import math
from decimal import Decimal
from zlib import crc32

import pytest

from dea_daemon.domain.errors import VenueError
from dea_daemon.domain.events import (
    AnyEvent,
    BookDelta,
    BookSnapshot,
    FeedAlive,
    FeedOpened,
    IndexUpdated,
    MarkUpdated,
    MessageRefused,
    QuoteUpdated,
    TradePrinted,
)
from dea_daemon.domain.instruments import AccountKey, Kind, Payoff, Side, Universe
from dea_daemon.feeds import okx
from dea_daemon.feeds.listed import contracts_listed
from dea_daemon.feeds.okx import Okx
from dea_daemon.feeds.okx_checksum import checksum
from dea_daemon.feeds.okx_mapping import instruments_from, listing_queries
from dea_daemon.shell import captures
from dea_daemon.state.books import Book, Change
from tests.shared_data import shared

CONTRACT = {
    "lotSz": "1",
    "tickSz": "0.1",
    "minSz": "1",
    "uly": "BTC-USD",
    "settleCcy": "BTC",
    "ctMult": "1",
    "state": "live",
}
SWAP = CONTRACT | {"instId": "BTC-USD-SWAP", "instType": "SWAP", "ctVal": "100", "ctType": "inverse"}
OPTION = CONTRACT | {
    "instId": "BTC-USD-240628-60000-C", "instType": "OPTION", "ctVal": "1", "ctMult": "0.01", "stk": "60000",
    "optType": "C", "expTime": "1719561600000", "tickSz": "0.0001",
}  # fmt: skip
LINEAR = CONTRACT | {
    "instId": "BTC-USDT-SWAP", "instType": "SWAP", "ctVal": "0.01", "ctType": "linear", "uly": "BTC-USDT",
    "settleCcy": "USDT", "lotSz": "0.1", "minSz": "0.5",
}  # fmt: skip


def listing(*rows):
    return json.dumps({"code": "0", "data": rows}).encode()


def universe(*rows):
    return Universe((AccountKey("okx", "main"),), tuple((0, i) for i in instruments_from(listing(*rows))))


def codec():
    return Okx(universe(SWAP, OPTION), 0)


def say(codec, message):
    out: list[AnyEvent] = []
    text = message if isinstance(message, str) else json.dumps(message, separators=(",", ":"))
    assert codec.decode(text.encode(), 1_000, out) is None
    return out


def book(bids=(), asks=(), action="update", name="BTC-USD-SWAP", **numbers):
    data = {"asks": [[*level, "0", "1"] for level in asks], "bids": [[*level, "0", "1"] for level in bids], "ts": "5"}
    return {"arg": {"channel": "books", "instId": name}, "action": action, "data": [data | numbers]}


def data(channel, name, **fields):
    return {"arg": {"channel": channel, "instId": name}, "data": [{"ts": "7"} | fields]}


def signed(text):
    found = crc32(text.encode())
    return found - (1 << 32) if found >= 1 << 31 else found


# --- recorded -----------------------------------------------------------------------------------------------


def recorded(change=lambda payload: payload):
    listed = contracts_listed((frame.payload for frame in captures.frames(shared("ws/OKX.0.gz"))), "okx")
    names = ("BTC-USD-220527", "UNI-USD-SWAP", "BTC-USDT")
    rows = Universe((AccountKey("okx", "main"),), tuple((0, listed[name]) for name in names))
    codec, books, changes = Okx(rows, 0), [Book() for _ in names], []
    for frame in captures.frames(shared("ws/OKX.ws.1.0.gz")):
        out: list[AnyEvent] = []
        if frame.kind is captures.Kind.MESSAGE:
            codec.decode(change(frame.payload), frame.ts_recv_ns, out)
        assert not [event for event in out if isinstance(event, MessageRefused)]
        changes += [books[e.row].apply(e) for e in out if isinstance(e, BookDelta | BookSnapshot)]
    return changes, books


def test_every_recorded_book_is_proved_by_its_checksum(monkeypatch):
    proved = []

    def counted(*sides):
        proved.append(checksum(*sides))
        return proved[-1]

    monkeypatch.setattr(okx, "checksum", counted)
    changes, books = recorded()
    assert len(proved) == 290
    assert changes == [Change.APPLIED] * 290
    assert [b.best()[::2] for b in books] == [(30229.4, 30238.8), (5.137, 5.145), (30236.1, 30236.2)]


def test_an_amount_changed_on_the_way_is_a_gap_at_once():
    def tampered(payload):
        return payload.replace(b'["30238.8","2","0","1"]', b'["30238.8","3","0","1"]', 1)

    changes, _ = recorded(tampered)
    assert changes[0] is Change.GAP
    assert Change.BUFFERED in changes


# --- books --------------------------------------------------------------------------------------------------


def test_a_snapshot_and_its_updates_carry_the_venues_numbers():
    c = codec()
    (first,) = say(c, book([("10", "1")], [("11", "2")], "snapshot", seqId=100, prevSeqId=-1))
    (second,) = say(c, book([("10", "0")], [("12", "5")], seqId=107, prevSeqId=100))
    assert first == BookSnapshot(1_000, 5_000_000, 0, 100, [(10.0, 1.0)], [(11.0, 2.0)])
    assert second == BookDelta(1_000, 5_000_000, 0, 107, 107, 100, [(10.0, 0.0)], [(12.0, 5.0)])


def test_a_number_left_out_is_a_gap_and_a_zero_checksum_says_nothing():
    c, b = codec(), Book()
    messages = (
        book([("10", "1")], [("11", "2")], "snapshot", seqId=100, prevSeqId=-1, checksum=0),
        book([("9", "1")], seqId=107, prevSeqId=100, checksum=0),
        book([("8", "1")], seqId=120, prevSeqId=113, checksum=0),
    )
    changes = [b.apply(*say(c, message)) for message in messages]
    assert changes == [Change.APPLIED, Change.APPLIED, Change.GAP]


def test_a_repeated_number_is_a_sign_of_life_and_one_we_never_saw_a_gap():
    c, b = codec(), Book()
    b.apply(*say(c, book([("10", "1")], [("11", "2")], "snapshot", seqId=100, prevSeqId=-1)))
    assert say(c, book(seqId=100, prevSeqId=100)) == [FeedAlive(1_000, "okx", 0, False)]
    assert b.apply(*say(c, book(seqId=105, prevSeqId=105))) is Change.GAP


def test_numbers_that_begin_again_after_maintenance_go_on_without_a_gap():
    c, b = codec(), Book()
    numbers = [(100, -1), (110, 100), (3, 110), (5, 3), (9, 5)]
    changes = []
    for seq, before in numbers:
        action = "snapshot" if before < 0 else "update"
        changes.append(b.apply(*say(c, book([("10", str(seq))], [("11", "2")], action, seqId=seq, prevSeqId=before))))
    assert changes == [Change.APPLIED] * 5
    assert b.best()[1] == 9.0


@pytest.mark.parametrize("action", ["snapshot", "update"])
def test_a_wrong_checksum_empties_the_book_until_a_snapshot(action):
    c, b = codec(), Book()
    right = book([("10", "1")], [("11", "2")], "snapshot", seqId=1, prevSeqId=-1, checksum=signed("10:1:11:2"))
    assert b.apply(*say(c, right)) is Change.APPLIED
    wrong = book([("10", "1")], [("11", "3")], action, seqId=2, prevSeqId=1, checksum=signed("10:1:11:2"))
    assert b.apply(*say(c, wrong)) is Change.GAP
    assert not b.usable
    assert b.apply(*say(c, book([("9", "1")], seqId=3, prevSeqId=2, checksum=5))) is Change.BUFFERED
    again = book([("9", "1")], [("11", "2")], "snapshot", seqId=3, prevSeqId=-1, checksum=signed("9:1:11:2"))
    assert b.apply(*say(c, again)) is Change.APPLIED


def test_the_checksum_takes_25_levels_in_the_venues_own_words():
    bids = [(f"{100 - i}.50", "1.0") for i in range(30)]
    asks = [("101", "2"), ("102", "3")]
    words = ":".join(
        f"{b}:{n}" + (f":{asks[i][0]}:{asks[i][1]}" if i < 2 else "") for i, (b, n) in enumerate(bids[:25])
    )
    (event,) = say(codec(), book(bids, asks, "snapshot", seqId=1, prevSeqId=-1, checksum=signed(words)))
    assert len(event.bids) == 30


# --- the other channels -------------------------------------------------------------------------------------


def test_mark_index_and_funding_come_together_with_the_next_mark():
    c = codec()
    assert say(c, data("index-tickers", "BTC-USD", idxPx="60000")) == [
        IndexUpdated(1_000, 7_000_000, 0, "BTC", 60_000.0)
    ]
    four_hours = {"fundingTime": "14400000", "nextFundingTime": "28800000"}
    assert say(c, data("funding-rate", "BTC-USD-SWAP", fundingRate="0.0001", **four_hours)) == []
    (mark,) = say(c, data("mark-price", "BTC-USD-SWAP", markPx="60010.5"))
    assert mark == MarkUpdated(1_000, 7_000_000, 0, 60_010.5, 60_000.0, 0.0002)


def test_trades_and_quotes_are_read_and_a_side_without_an_order_is_none():
    c = codec()
    (trade,) = say(c, data("trades", "BTC-USD-SWAP", tradeId="9", px="60000.1", sz="3", side="sell"))
    assert trade == TradePrinted(1_000, 7_000_000, 0, "9", Side.SELL, 60_000.1, 3.0)
    (quote,) = say(c, data("tickers", "BTC-USD-SWAP", bidPx="59999", bidSz="2", askPx="", askSz=""))
    assert isinstance(quote, QuoteUpdated)
    assert (quote.bid, quote.bid_amount, quote.ask_amount) == (59_999.0, 2.0, 0.0)
    assert math.isnan(quote.ask)


def test_an_option_summary_is_kept_for_our_rows_alone():
    c = codec()
    row = {"instId": OPTION["instId"], "ts": "7", "delta": "0.5", "markVol": "0.61"}
    message = {"arg": {"channel": "opt-summary", "instFamily": "BTC-USD"}, "data": [row, row | {"instId": "BTC-USD-X"}]}
    assert say(c, message) == []
    assert {row: s.mark_vol for row, s in c.summaries.items()} == {1: "0.61"}


GARBAGE = ("", "{", "[]", "null", '{"data":[]}', json.dumps({"arg": {"channel": "books", "instId": "BTC-USD-SWAP"}}))
WRONG = (data("tickers", "BTC-USD-SWAP", bidPx="x"), book([("x", "1")]), book(seqId="x"))


@pytest.mark.parametrize("text", [*GARBAGE, *WRONG])
def test_what_cannot_be_read_is_refused_and_never_raised(text):
    (event,) = say(codec(), text)
    assert isinstance(event, MessageRefused)


# --- the conversation ---------------------------------------------------------------------------------------


def confirm(c, but=()):
    (request,) = c.hello(0, "n")
    out: list[AnyEvent] = []
    for arg in json.loads(request)["args"]:
        if arg not in but:
            out += say(c, {"event": "subscribe", "arg": arg})
    return out


def test_it_is_ready_when_every_channel_is_confirmed():
    c = codec()
    assert confirm(c) == [FeedOpened(1_000, "okx", 0, False, (0, 1))]
    assert c.ready


def test_a_channel_that_is_refused_does_not_cost_the_others():
    c = codec()
    missing = {"channel": "books", "instId": OPTION["instId"]}
    assert confirm(c, but=[missing]) == []
    refused, opened = (
        say(c, {"event": "error", "code": "60018", "msg": "doesn't exist"}),
        say(c, {"event": "subscribe"}),
    )
    assert isinstance(refused[0], MessageRefused)
    assert [*refused, *opened][-1] == FeedOpened(1_000, "okx", 0, False, (0,))


def test_a_fresh_book_is_had_by_subscribing_again_and_a_refusal_then_shuts_the_socket():
    c = codec()
    confirm(c)
    book_of = [{"channel": "books", "instId": "BTC-USD-SWAP"}]
    assert [json.loads(m) for m in c.resubscribe(0)] == [
        {"op": op, "args": book_of} for op in ("unsubscribe", "subscribe")
    ]
    say(c, {"event": "error", "code": "60012", "msg": "no"})
    assert not c.ready
    say(c, {"event": "subscribe", "arg": book_of[0]})
    assert not c.ready


def test_it_pings_in_text_and_a_pong_is_a_sign_of_life():
    assert codec().heartbeat == b"ping"
    assert say(codec(), "pong") == [FeedAlive(1_000, "okx", 0, False)]


# --- contracts ----------------------------------------------------------------------------------------------


def test_contracts_are_counted_in_what_one_is_worth():
    swap, option, linear = instruments_from(listing(SWAP, OPTION, LINEAR))
    assert (swap.kind, swap.payoff, swap.contract_size, swap.quote_currency) == (
        Kind.PERPETUAL, Payoff.INVERSE, Decimal(100), "USD",
    )  # fmt: skip
    assert (linear.payoff, linear.lot_value, linear.min_lots) == (Payoff.LINEAR, 0.001, 5)
    assert (option.contract_size, option.quote_currency, option.strike, option.is_call) == (
        Decimal("0.01"), "BTC", 60_000.0, True,
    )  # fmt: skip
    assert option.expiry_ns == 1_719_561_600_000_000_000


def test_a_list_that_is_none_is_said_to_be():
    for body in (
        b"",
        b"<html>",
        b'{"code":"50011","msg":"Too Many Requests","data":[]}',
        listing(SWAP | {"ctVal": "x"}),
    ):
        with pytest.raises(VenueError):
            instruments_from(body)


def test_options_are_listed_by_the_families_that_are_named():
    assert listing_queries(["BTC-USDT-SWAP"])[-1] == "instType=SPOT"
    assert listing_queries([OPTION["instId"]])[-1] == "instType=OPTION&instFamily=BTC-USD"
