"""The same venue on a recorded market."""

import gzip
import json

import pytest

from dea_daemon.domain.errors import InvariantViolation
from dea_daemon.simvenue.words import BookChanged, Filled, IndexChanged, TickerChanged, Traded
from tests.shared_data import shared
from tests.simvenue.venues import BUY, INVERSE, LINEAR, SELL, START_NS, S, order, recorded_venue


def test_a_snapshot_replaces_the_background_and_leaves_client_orders_in_their_place():
    venue = recorded_venue()
    venue.replace_book(LINEAR, [(999, 5), (998, 5)], [(1_001, 5)])
    order(venue, BUY, 3, 999, instrument=LINEAR)
    venue.replace_book(LINEAR, [(999, 4), (997, 6)], [(1_002, 7)])
    book = venue.book(LINEAR)
    assert (book.bids, book.asks) == ([(999, 4 + 3), (997, 6)], [(1_002, 7)])
    venue.public_trade(LINEAR, SELL, 999, 5)
    assert [f.lots for f in venue.fills("a")] == [1]


def test_a_snapshot_that_moved_through_a_client_order_fills_it():
    venue = recorded_venue()
    venue.replace_book(LINEAR, [(999, 5)], [(1_001, 5)])
    order(venue, SELL, 3, 1_001, instrument=LINEAR)
    venue.replace_book(LINEAR, [(1_003, 5)], [(1_004, 5)])
    assert [(f.price_ticks, f.lots) for f in venue.fills("a")] == [(1_001, 3)]


def test_it_publishes_what_happens_to_accounts_and_no_market_data():
    venue = recorded_venue()
    venue.replace_book(INVERSE, [(999, 5)], [(1_001, 5)])
    order(venue, BUY, 3, 1_001)
    venue.public_trade(INVERSE, BUY, 1_001, 1)
    kinds = {type(event) for event in venue.events()}
    assert Filled in kinds
    assert not kinds & {BookChanged, Traded, TickerChanged, IndexChanged}


def test_time_moves_by_the_recording_and_never_back():
    venue = recorded_venue()
    venue.set_time(START_NS + S)
    venue.set_time(START_NS)
    assert venue.now_ns == START_NS + S
    with pytest.raises(InvariantViolation):
        venue.advance(START_NS + 2 * S)


@pytest.mark.parametrize("mark", [float("nan"), 0.0, -1.0])
def test_a_mark_that_is_no_price_is_refused(mark):
    venue = recorded_venue()
    with pytest.raises(InvariantViolation):
        venue.set_mark(LINEAR, mark, 1_000.0)


def test_a_ticker_of_an_empty_book_says_not_a_number():
    ticker = recorded_venue().ticker(LINEAR)
    assert ticker.best_bid != ticker.best_bid
    assert ticker.best_ask_amount != ticker.best_ask_amount
    assert (ticker.mark_price, ticker.volume, ticker.open_interest) == (1_000.0, 0.0, 0.0)


def test_a_recorded_book_comes_out_as_it_was_recorded_whatever_trades_pass_through():
    venue, naive = recorded_venue(), {BUY: dict[int, int](), SELL: dict[int, int]()}

    def levels(pairs):
        return [(round(float(price) * 10), round(float(amount) * 1_000)) for price, amount in pairs]

    with gzip.open(shared("ws/usdm_btcusdt_20240808.gz"), "rt") as lines:
        for number, line in enumerate(lines):
            message = json.loads(line.split(" ", 1)[1])
            data = message.get("data", message)
            if data.get("e") == "depthUpdate":
                for side, key in ((BUY, "b"), (SELL, "a")):
                    for ticks, lots in levels(data[key]):
                        venue.set_level(LINEAR, side, ticks, lots)
                        naive[side][ticks] = lots
            elif data.get("e") == "trade":
                side = SELL if data["m"] else BUY
                ((ticks, lots),) = levels([(data["p"], data["q"])])
                venue.public_trade(LINEAR, side, ticks, lots)
            elif "bids" in data:
                naive = {BUY: dict(levels(data["bids"])), SELL: dict(levels(data["asks"]))}
                venue.replace_book(LINEAR, naive[BUY].items(), naive[SELL].items())
            if number == 30_000:
                break
    book = venue.book(LINEAR)
    for side, side_levels in ((BUY, book.bids), (SELL, book.asks)):
        assert dict(side_levels) == {t: n for t, n in naive[side].items() if n}
    assert book.bids[0][0] < book.asks[0][0]
