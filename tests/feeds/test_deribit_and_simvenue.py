"""The codec and the book against the simulated venue's dialect: two independent readings of one protocol."""

import json
from collections import Counter
from typing import Any

import pytest

from dea_daemon.domain.events import (
    AnyEvent,
    BookDelta,
    BookSnapshot,
    FeedOpened,
    FillReceived,
    IndexUpdated,
    MarkUpdated,
    MessageRefused,
    OrderSeen,
    PoolUpdated,
    TradePrinted,
    VenueOrderState,
)
from dea_daemon.domain.instruments import AccountKey, Universe
from dea_daemon.feeds.codec import Codec
from dea_daemon.feeds.deribit import sockets
from dea_daemon.feeds.deribit_mapping import instrument_from, pool_from, position_from
from dea_daemon.simvenue.deribit import Session
from dea_daemon.state.books import Book, Change
from tests.simvenue.deribit_desk import BTC, KEY, Desk


class Wire:
    """One codec on one connection of the simulated venue."""

    def __init__(self, desk: Desk, codec: Codec, universe: Universe) -> None:
        self.desk, self.codec, self.universe = desk, codec, universe
        self.session: Session = desk.venue.open(websocket=True)
        self.events: list[AnyEvent] = []
        self.books = [Book() for _ in codec.rows]
        self.changes: Counter[Change] = Counter()
        for message in codec.hello(desk.now_ns // 1_000_000, f"nonce-{codec.feed}"):
            self.say(message)

    def say(self, message: bytes) -> None:
        reply = self.desk.venue.handle(self.session, json.loads(message), self.desk.now_ns)
        self.hear([reply.encoded()])

    def hear(self, frames: list[bytes] | None = None) -> list[AnyEvent]:
        """Take in what the venue said, answer what it asked, apply books."""
        new: list[AnyEvent] = []
        for frame in self.session.take() if frames is None else frames:
            answer = self.codec.decode(frame, self.desk.now_ns, new)
            if answer is not None:
                self.say(answer)
        self.events += new
        for event in new:
            if isinstance(event, BookSnapshot | BookDelta):
                self.changes[self.books[event.row].apply(event)] += 1
        return new

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def wires(desk: Desk) -> tuple[Wire, Wire]:
    """Market data and the account, over the contracts the venue lists."""
    listed = [instrument_from(info) for info in desk.ask("public/get_instruments", currency="any")]
    rows = tuple((0, contract) for contract in listed if contract is not None)
    universe = Universe((AccountKey("deribit", "main"),), rows)
    market, account = (Wire(desk, s.codec, universe) for s in sockets(universe, 0, KEY.client_id, KEY.client_secret))
    return market, account


def test_our_reading_of_its_contracts_is_its_own(desk):
    listed = {
        contract.name: contract
        for info in desk.ask("public/get_instruments", currency="any")
        if (contract := instrument_from(info)) is not None
    }
    assert set(listed) == set(desk.exchange.instruments)
    for name, own in desk.exchange.instruments.items():
        read = listed[name]
        for field in ("kind", "payoff", "underlying", "settle_currency", "lot_size", "tick_size", "tick_steps"):
            assert getattr(read, field) == getattr(own, field), (name, field)
        assert (read.taker_fee, read.expiry_ns) == (own.taker_fee, own.expiry_ns)


def test_books_follow_the_venues_own_without_a_gap(desk):
    market, _ = wires(desk)
    for _ in range(150):
        desk.sleep(100)
        market.hear()
        for contract, book in zip(market.universe.instruments, market.books, strict=True):
            theirs = desk.exchange.book(contract.name)
            bids, asks = book.top(10_000)
            assert book.last == theirs.change_id
            for ours, levels in ((bids, theirs.bids), (asks, theirs.asks)):
                assert [(contract.price_to_ticks(p), contract.amount_to_lots(a)) for p, a in ours.tolist()] == levels
    assert set(market.changes) == {Change.APPLIED}
    assert market.changes[Change.APPLIED] > 1_000
    assert not market.of(MessageRefused)
    assert len(market.of(FeedOpened)) == 1
    assert market.of(MarkUpdated)
    assert market.of(TradePrinted)
    assert {index.currency for index in market.of(IndexUpdated)} == {"BTC", "ETH"}


def test_a_lost_message_is_a_gap_and_a_resubscription_heals_it(desk):
    market, _ = wires(desk)
    book, name = market.books[0], market.universe.instruments[0].name
    market.hear()
    mine = f'"book.{name}.raw"'.encode()
    lost = 0
    while market.changes[Change.GAP] == 0:
        desk.sleep(100)
        frames = market.session.take()
        first = next((frame for frame in frames if mine in frame), None) if not lost else None
        lost += first is not None
        market.hear([frame for frame in frames if frame is not first])
        assert book.usable or lost
    assert not book.usable
    for message in market.codec.resubscribe(0):
        market.say(message)
    market.hear()
    assert book.usable
    assert book.last == desk.exchange.book(name).change_id


def test_a_fill_is_heard_before_the_end_of_its_order_and_the_pool_after_it(desk):
    _, account = wires(desk)
    account.hear()
    account.events.clear()
    desk.take(BTC, 50, label="d000000000000001")
    desk.sleep(100)
    account.hear()
    fills, orders = account.of(FillReceived), account.of(OrderSeen)
    assert sum(fill.lots for fill in fills) == 5
    assert orders[-1].state is VenueOrderState.FILLED
    assert {event.client_order_id for event in fills + orders} == {"d000000000000001"}
    places = [account.events.index(fills[-1]), account.events.index(orders[-1])]
    assert places == sorted(places)
    assert account.of(PoolUpdated)
    assert not account.of(MessageRefused)


def test_positions_and_pools_over_http_are_the_same_as_on_the_stream(desk):
    _, account = wires(desk)
    desk.take(BTC, 50)
    desk.sleep(100)
    account.hear()
    universe = account.universe
    (position,) = [p for p in desk.ask("private/get_positions", currency="BTC") if p["size"]]
    report = position_from(position, universe, 0)
    assert report is not None
    assert (universe.instruments[report.row].name, report.lots) == (BTC, 5)
    summary = pool_from(desk.ask("private/get_account_summary", currency="BTC"))
    told = [event.pool for event in account.of(PoolUpdated) if event.pool.currency == "BTC"][-1]
    assert told.cash == pytest.approx(summary.cash)


def test_its_heartbeats_are_answered_so_it_never_hangs_up(desk):
    market, account = wires(desk)
    for _ in range(70):
        desk.sleep(500)
        market.hear()
        account.hear()
    assert (market.session.closing, account.session.closing) == ("", "")
