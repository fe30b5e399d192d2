"""The synthetic world: prices, background liquidity, and what it publishes."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest

from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.instruments import Kind
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.process import Carry, Index, Reversion
from dea_daemon.simvenue.scenarios import SCENARIOS, Scenario, load
from dea_daemon.simvenue.words import BookChanged, IndexChanged, TickerChanged, Traded, VenueEvent
from tests.simvenue.venues import BUY, INVERSE, MS, SELL, START_NS, S, order, running_venue


def public(venue: Exchange) -> list[VenueEvent]:
    return [e for e in venue.events() if isinstance(e, BookChanged | Traded | TickerChanged | IndexChanged)]


def test_the_same_seed_is_the_same_venue_and_another_is_not():
    def run(seed):
        venue = running_venue(seed=seed)
        venue.advance(START_NS + 3 * S)
        return repr(venue.events())

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("scenario", ["default", "expiry"])
def test_the_world_does_not_depend_on_how_time_is_sliced(scenario):
    at_once, sliced = running_venue(scenario), running_venue(scenario)
    at_once.advance(START_NS + 25 * S)
    for k in range(1, 1_001):
        sliced.advance(START_NS + k * 25 * MS)
    assert repr(at_once.events()) == repr(sliced.events())
    assert at_once.instruments == sliced.instruments


def test_going_back_in_time_does_nothing():
    venue = running_venue()
    venue.advance(START_NS + S)
    before = venue.index_price("BTC")
    venue.advance(START_NS)
    assert (venue.now_ns, venue.index_price("BTC")) == (START_NS + S, before)


def test_orders_do_not_move_the_price_path():
    quiet, busy = running_venue(), running_venue()
    for second in range(1, 6):
        for venue in (quiet, busy):
            venue.advance(START_NS + second * S)
        order(busy, BUY, 3_000, None)
        order(busy, SELL, 500, busy.book(INVERSE, 1).asks[0][0], account="b")
        for name in quiet.instruments:
            assert quiet.ticker(name).mark_price == busy.ticker(name).mark_price
    assert quiet.index_price("ETH") == busy.index_price("ETH")


def test_books_have_two_sides_on_the_grid_and_never_cross():
    for name in SCENARIOS:
        venue = running_venue(name, options=False)
        for second in range(1, 4):
            venue.advance(START_NS + second * S)
            for instrument in venue.instruments.values():
                book = venue.book(instrument.name)
                assert len(book.bids) >= 5 <= len(book.asks)
                assert book.bids[0][0] < book.asks[0][0]
                assert all(instrument.on_grid(t) and n > 0 for t, n in book.bids + book.asks)
                assert abs(book.bids[0][0] + book.asks[0][0]) * float(instrument.tick_size) / 2 == pytest.approx(
                    venue.ticker(instrument.name).mark_price, rel=0.01
                )


def test_book_changes_chain_and_rebuild_every_book():
    venue = running_venue()
    copies = {name: {BUY: dict(b.bids), SELL: dict(b.asks)} for name in venue.instruments for b in [venue.book(name)]}
    last = {name: venue.book(name).change_id for name in venue.instruments}
    for second in range(1, 6):
        venue.advance(START_NS + second * S)
        order(venue, BUY, 200, None)
        order(venue, SELL, 200, venue.book(INVERSE, 1).asks[0][0] - 1, account="b")
        for event in venue.events():
            if isinstance(event, BookChanged):
                assert event.previous_change_id == last[event.instrument] < event.change_id
                last[event.instrument] = event.change_id
                for side, changes in ((BUY, event.bids), (SELL, event.asks)):
                    levels = copies[event.instrument][side]
                    levels.update(changes)
                    copies[event.instrument][side] = {t: n for t, n in levels.items() if n}
        for name in venue.instruments:
            book = venue.book(name)
            assert book.change_id == last[name]
            assert copies[name] == {BUY: dict(book.bids), SELL: dict(book.asks)}


def test_tickers_and_indices_come_no_oftener_than_promised_and_trades_are_numbered():
    venue = running_venue("volatile")
    venue.advance(START_NS + 5 * S)
    events = venue.events()
    tickers = [e.ticker.ts_ns for e in events if isinstance(e, TickerChanged) and e.ticker.instrument == INVERSE]
    indices = [e.ts_ns for e in events if isinstance(e, IndexChanged) and e.currency == "BTC"]
    assert {b - a for a, b in pairwise(tickers)} == {100 * MS}
    assert {b - a for a, b in pairwise(indices)} == {200 * MS}
    trades = [e for e in events if isinstance(e, Traded) and e.instrument == INVERSE]
    assert [t.trade_seq for t in trades] == list(range(1, len(trades) + 1))
    assert venue.trades(INVERSE) == trades[-100:]
    assert venue.trades(INVERSE, 0) == []


def test_an_order_at_the_touch_is_filled_by_passing_takers_in_its_turn():
    venue = running_venue(takers_per_s=4.0)
    book = venue.book(INVERSE, 1)
    mine, _ = order(venue, BUY, 10, book.asks[0][0] - 1, post_only=True)
    venue.advance(START_NS + 20 * S)
    assert venue.order("a", mine.order_id).state == "filled"
    assert all(fill.is_maker and fill.fee == 0.0 for fill in venue.fills("a"))


def test_an_eaten_book_grows_back():
    venue = running_venue()
    before = sum(lots for _, lots in venue.book(INVERSE).asks)
    order(venue, BUY, before // 2, None)
    eaten = sum(lots for _, lots in venue.book(INVERSE).asks)
    venue.advance(START_NS + 5 * S)
    assert eaten < 0.6 * before < sum(lots for _, lots in venue.book(INVERSE).asks)


def test_candles_follow_the_trades():
    venue = running_venue("volatile", options=False)
    for minute in range(1, 4):
        venue.advance(START_NS + minute * 60 * S)
    trades = [e for e in venue.events() if isinstance(e, Traded) and e.instrument == INVERSE]
    candles = venue.candles(INVERSE, START_NS - 60 * S, venue.now_ns, 60)
    for begin, opened, high, low, close, amount in candles:
        inside = [t for t in trades if begin <= t.ts_ns < begin + 60 * S]
        prices = [t.price_ticks * 0.5 for t in inside]
        assert (opened, high, low, close) == (prices[0], max(prices), min(prices), prices[-1])
        assert amount == sum(t.lots * 10 for t in inside)
    assert len(candles) == 4
    assert venue.ticker(INVERSE).volume == sum(c[5] for c in candles)
    (joined,) = venue.candles(INVERSE, START_NS // (300 * S) * 300 * S, START_NS, 300)
    assert joined[1:5] == (
        candles[0][1],
        max(c[2] for c in candles[:2]),
        min(c[3] for c in candles[:2]),
        candles[1][4],
    )


def test_an_events_drain_nobody_calls_is_a_bug(monkeypatch):
    monkeypatch.setattr("dea_daemon.simvenue.floor.EVENTS_MAX", 500)
    with pytest.raises(Exception, match="drained"):
        running_venue().advance(START_NS + 60 * S)


# --- the price process ------------------------------------------------------------------------------


def moves(seconds: int, seed: int = 3, **changes) -> np.ndarray:
    """Log returns [T, 2] of BTC and ETH a step."""
    index = Index(Scenario("test", **changes), seed)
    path = []
    for _ in range(seconds * 10):
        index.step()
        path.append([index.price["BTC"], index.price["ETH"]])
    return np.diff(np.log(np.array(path)), axis=0)


def test_coins_have_their_volatility_and_correlation():
    returns = moves(3_600, jumps_per_day=0.0, vol_of_vol=0.0)
    annual = returns.std(axis=0) * np.sqrt(365 * 86_400 * 10)
    assert annual == pytest.approx([0.55, 0.70], rel=0.03)
    assert np.corrcoef(returns.T)[0, 1] == pytest.approx(0.85, abs=0.01)


def test_variance_wanders_and_jumps_are_larger_than_any_step():
    steady = moves(1_200, jumps_per_day=0.0, vol_of_vol=0.0)
    wild = moves(1_200, jumps_per_day=2_000.0, vol_of_vol=1.0, vol_half_life_s=60.0)

    def kurtosis(x):
        return float(np.mean((x - x.mean()) ** 4) / np.var(x) ** 2)

    assert kurtosis(steady[:, 0]) == pytest.approx(3.0, abs=0.3)
    assert kurtosis(wild[:, 0]) > 20.0


def test_a_reversion_forgets_by_half_in_its_half_life_and_keeps_its_width():
    pulled = Reversion(1.0, 5.0, 0.1)
    pulled.x = 8.0
    for _ in range(50):
        pulled.step(0.0)
    assert pulled.x == pytest.approx(4.0)
    rng = np.random.default_rng(1)
    path = [pulled.step(z) for z in rng.standard_normal(50_000)]
    assert np.std(path) == pytest.approx(1.0, rel=0.15)


def test_a_mark_stays_within_the_clip_of_its_index():
    venue = running_venue(premium_mean_bp=300.0)
    venue.advance(START_NS + S)
    ticker = venue.ticker(INVERSE)
    assert ticker.mark_price / ticker.index_price == pytest.approx(1.005)


@pytest.mark.parametrize(
    ("premium", "rate"), [(0.0, 0.0), (0.0002, 0.0), (0.001, 0.00075), (-0.001, -0.00075), (0.02, 0.005)]
)
def test_funding_has_a_dead_zone_and_a_cap(premium, rate):
    venue = running_venue()
    carry = Carry(venue.scenario, venue.instruments[INVERSE], 1, 1)
    carry.mark = 100.0 * (1 + premium)
    assert carry.funding_rate(100.0) == pytest.approx(rate, abs=1e-12)


# --- what is listed ---------------------------------------------------------------------------------


def test_the_listing_without_options_is_two_perpetuals_and_two_dated_futures_a_coin():
    listed = running_venue(options=False).instruments
    assert list(listed) == [
        "BTC-PERPETUAL",
        "BTC_USDC-PERPETUAL",
        "ETH-PERPETUAL",
        "ETH_USDC-PERPETUAL",
        "BTC-27FEB26",
        "BTC-27MAR26",
        "ETH-27FEB26",
        "ETH-27MAR26",
    ]
    for name, instrument in listed.items():
        if instrument.kind is Kind.FUTURE:
            expiry = datetime.fromtimestamp(instrument.expiry_ns / S, UTC)
            assert (expiry.hour, expiry.minute, expiry.weekday()) == (8, 0, 4)
            assert name.endswith(f"-{expiry.day}{expiry:%b%y}".upper())
    assert {i.margin_pool for i in listed.values()} == {"BTC", "ETH", "USDC"} == set(running_venue().currencies())


@pytest.mark.parametrize("days", range(0, 400, 13))
def test_futures_are_listed_with_some_days_to_live_and_names_of_their_own(days):
    start = START_NS + days * 86_400 * S
    listed = Exchange(replace(load("default"), options=False), 1, start).instruments
    expiries = sorted({i.expiry_ns for i in listed.values() if i.expiry_ns})
    assert len(listed) == 8
    assert len(expiries) == 2
    assert expiries[0] > start + 2 * 86_400 * S
    assert datetime.fromtimestamp(expiries[1] / S, UTC).month in (3, 6, 9, 12)


def test_an_unknown_scenario_lists_the_known():
    with pytest.raises(ConfigError, match=r"calm, crash, default, expiry, funding, margin, options, volatile"):
        load("stormy")
