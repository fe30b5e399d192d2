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
    ListingChanged,
    MarkUpdated,
    MessageRefused,
    OptionUpdated,
    OrderSeen,
    PoolUpdated,
    TradePrinted,
    VenueOrderState,
    VenueStateChanged,
)
from dea_daemon.domain.instruments import AccountKey, Instrument, Kind, Universe
from dea_daemon.feeds.codec import Codec
from dea_daemon.feeds.deribit import sockets
from dea_daemon.feeds.deribit_mapping import fill_from, instrument_from, pool_from, position_from, settlement_from
from dea_daemon.simvenue.deribit import Session
from dea_daemon.state.books import Book, Change
from tests.simvenue.deribit_desk import BTC, KEY, OTHER, Desk


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


def listing(desk: Desk) -> list[Instrument]:
    infos = desk.ask("public/get_instruments", currency="any")
    return [contract for info in infos if (contract := instrument_from(info)) is not None]


def wires(desk: Desk) -> tuple[Wire, Wire]:
    """Market data and the account, over the contracts the venue lists."""
    universe = Universe((AccountKey("deribit", "main"),), tuple((0, contract) for contract in listing(desk)))
    market, account = (Wire(desk, s.codec, universe) for s in sockets(universe, 0, KEY.client_id, KEY.client_secret))
    return market, account


def test_our_reading_of_its_contracts_is_its_own(desk):
    listed = {contract.name: contract for contract in listing(desk)}
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
    assert {index.currency for index in market.of(IndexUpdated)} == {"BTC", "ETH", "USDC"}


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


# --- options ----------------------------------------------------------------------------------------


@pytest.fixture
def options() -> Desk:
    """A venue with chains, whose nearest expiry is 25 s away."""
    return Desk("options", options=True)


def test_our_reading_of_its_options_is_its_own(options):
    listed = {contract.name: contract for contract in listing(options)}
    chain = {name: own for name, own in options.exchange.instruments.items() if own.kind is Kind.OPTION}
    assert len(chain) > 300
    shared = ("kind", "payoff", "underlying", "quote_currency", "settle_currency", "margin_pool", "strike", "is_call")
    grid = ("lot_size", "tick_size", "tick_steps", "min_lots", "expiry_ns", "taker_fee", "fee_cap")
    for name, own in chain.items():
        for field in shared + grid:
            assert getattr(listed[name], field) == getattr(own, field), (name, field)
    universe = Universe((AccountKey("deribit", "main"),), tuple((0, contract) for contract in listed.values()))
    assert set(universe.coin_quoted[universe.option].tolist()) == {True, False}


def test_what_we_hear_of_an_option_is_what_the_venue_says_of_it(options):
    market, _ = wires(options)
    for _ in range(15):
        options.sleep(100)
        market.hear()
    heard = market.of(OptionUpdated)
    assert {event.row for event in heard} == set(market.universe.option.nonzero()[0].tolist())
    now = [event for event in heard if event.ts_event_ns == heard[-1].ts_event_ns]
    assert len(now) > 10
    for event in now:
        said = options.exchange.ticker(market.universe.instruments[event.row].name).option
        assert said is not None
        assert event.mark_iv == pytest.approx(said.mark_iv, abs=1e-4)
        assert event.underlying_price == pytest.approx(said.underlying_price, abs=0.01)
        assert event.delta == pytest.approx(said.delta, abs=1e-5)
    assert not market.of(MessageRefused)


def test_contracts_that_are_listed_while_we_listen_are_joined_and_heard(options):
    market, account = wires(options)
    before = len(market.universe)
    for _ in range(300):
        options.sleep(100)
        market.hear()
        account.hear()
    ended = [event.name for event in market.of(ListingChanged) if event.state == "closed"]
    created = {event.name for event in market.of(ListingChanged) if event.state == "created"}
    joining = [contract for contract in listing(options) if contract.name in created]
    assert len(joining) == len(created) > 50
    market.universe.extend(tuple((0, contract) for contract in joining))
    gone = [row for row in range(before) if market.universe.instruments[row].name in ended]
    assert gone
    for wire in (market, account):
        wire.codec.leave(gone)
        wire.books += [Book() for _ in joining]
        for message in wire.codec.join(range(before, len(market.universe))):
            wire.say(message)
    market.events.clear()
    for _ in range(20):
        options.sleep(100)
        market.hear()
    rows = set(range(before, len(market.universe)))
    is_option = {row for row in rows if market.universe.option[row]}
    assert {event.row for event in market.of(OptionUpdated)} >= is_option
    assert {event.row for event in market.of(BookSnapshot)} == rows - is_option
    assert not market.of(MessageRefused)
    again = Wire(options, market.codec, market.universe)  # reconnected: what ended is not asked for, so none is refused
    assert not again.of(MessageRefused)


def test_a_delivery_is_read_as_the_venue_booked_it(options):
    _, account = wires(options)
    universe, now_ns = account.universe, options.now_ns
    soon = [i for i in universe.instruments if i.kind is Kind.OPTION and i.expiry_ns < now_ns + 60 * 10**9]
    held = next(i for i in soon if i.settle_currency == "BTC" and i.is_call)
    best = options.exchange.ticker(held.name)
    options.ask("private/buy", instrument_name=held.name, amount=1.0, type="limit", price=best.best_ask)
    while options.exchange.position("main", held.name).lots:
        options.sleep(1_000)
        account.hear()
    answer = options.ask("private/get_settlement_history_by_currency", currency="BTC", type="delivery")
    (told,) = [settlement_from(info, universe, 0) for info in answer["settlements"]]
    (booked,) = options.exchange.settlements("main", "BTC")
    assert told is not None
    assert (universe.instruments[told.row].name, told.lots, told.currency) == (held.name, booked.lots, "BTC")
    assert told.ts_event_ns == pytest.approx(booked.ts_ns, abs=10**6)
    assert told.price == pytest.approx(booked.settlement_price, rel=1e-6)
    assert told.profit == pytest.approx(booked.cash - booked.fee, abs=1e-8)


def test_a_lock_of_one_coin_is_heard_and_by_a_latecomer_too(desk):
    market, _ = wires(desk)
    desk.exchange.lock("BTC")
    desk.sleep(100)
    assert [(e.open, e.currency) for e in market.hear() if isinstance(e, VenueStateChanged)] == [(False, "BTC")]
    late, _ = wires(desk)
    assert [(e.open, e.currency) for e in late.of(VenueStateChanged)] == [(False, "BTC")]
    desk.exchange.lock("BTC", locked=False)
    desk.sleep(100)
    for wire in (market, late):
        assert [(e.open, e.currency) for e in wire.hear() if isinstance(e, VenueStateChanged)] == [(True, "BTC")]


def test_all_of_the_venue_locked_is_each_of_its_coins(desk):
    market, _ = wires(desk)
    desk.exchange.lock()
    desk.sleep(100)
    assert {(e.open, e.currency) for e in market.hear() if isinstance(e, VenueStateChanged)} == {
        (False, "BTC"),
        (False, "ETH"),
    }
    late, _ = wires(desk)
    assert {(e.open, e.currency) for e in late.of(VenueStateChanged)} == {(False, "BTC"), (False, "ETH")}


def test_a_stablecoin_that_loses_its_peg_is_heard(desk):
    market, _ = wires(desk)
    desk.exchange.set_peg("USDC", 0.97)
    market.hear()
    desk.sleep(300)
    prices = [e.price for e in market.hear() if isinstance(e, IndexUpdated) and e.currency == "USDC"]
    assert prices and set(prices) == {0.97}


def test_a_liquidation_is_ours_and_not_that_of_whoever_took_the_other_side(desk):
    _, account = wires(desk)
    other = {"grant_type": "client_credentials", "client_id": OTHER.client_id, "client_secret": OTHER.client_secret}
    counterparty = desk.venue.open(websocket=True)
    desk.ask("public/auth", counterparty, **other)
    desk.take(BTC, 10_000)
    price = desk.best(BTC)[0] + 0.5
    bid = {"instrument_name": BTC, "amount": 10_000, "price": price}
    desk.ask("private/buy", counterparty, **bid)
    desk.exchange.liquidate(desk.exchange.account("main"), "BTC")
    desk.sleep(100)
    account.hear()
    fills = account.of(FillReceived)
    assert [fill.liquidation for fill in fills][:1] == [False]
    assert [fill.liquidation for fill in fills][-1:] == [True]
    (theirs,) = desk.exchange.fills("other")
    said = desk.ask("private/get_user_trades_by_currency", counterparty, currency="BTC")["trades"]
    ours = desk.ask("private/get_user_trades_by_currency", currency="BTC", sorting="asc")["trades"]
    universe = account.universe
    read = [[fill_from(raw, universe, 0, 1) for raw in trades] for trades in (said, ours)]
    liquidated = [[fill is not None and fill.liquidation for fill in fills] for fills in read]
    assert liquidated[0] == [False]
    assert liquidated[1][0] is False and liquidated[1][-1] is True
    assert theirs.fee == 0.0  # the fee of a liquidation is its victim's
