"""Options: what is listed, what the venue says they are worth, and the books around it."""

from dataclasses import replace
from math import isnan

import numpy as np
import pytest
from vollib.black import black  # type: ignore[import-untyped]
from vollib.black.greeks.analytical import delta, gamma, theta, vega  # type: ignore[import-untyped]

from dea_daemon.domain.instruments import Kind
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.options import averaged, implied_vol, price
from dea_daemon.simvenue.scenarios import SCENARIOS, load
from dea_daemon.simvenue.series import calendar, ladder, strike_step
from dea_daemon.simvenue.words import BookChanged, InstrumentChanged, OptionQuote, Ticker, TickerChanged
from tests.simvenue.venues import BUY, MS, SELL, START_NS, S, order, running_venue

AT_THE_MONEY = "BTC-27MAR26-65000-C"


def options(venue: Exchange, prefix: str = "") -> list[str]:
    return [name for name, i in venue.instruments.items() if i.kind is Kind.OPTION and name.startswith(prefix)]


def said(ticker: Ticker) -> OptionQuote:
    assert ticker.option is not None
    return ticker.option


# --- the pricer -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strike", [40_000.0, 60_000.0, 65_000.0, 70_000.0, 110_000.0])
@pytest.mark.parametrize("days", [0.05, 1.0, 30.0, 200.0])
def test_prices_and_greeks_are_black_76(strike, days):
    forward, vol, tau = 65_321.0, 0.62, days / 365.0
    column = [np.array([x]) for x in (forward, strike, vol * np.sqrt(tau), tau)]
    for sign, flag in ((1, "c"), (-1, "p")):
        mine = price(np.array([float(sign)]), *column)
        args = (flag, forward, strike, tau, 0.0, vol)
        assert mine.value[0] == pytest.approx(black(flag, forward, strike, tau, 0.0, vol), abs=1e-8)
        assert mine.delta[0] == pytest.approx(delta(*args), abs=1e-12)
        assert mine.gamma[0] == pytest.approx(gamma(*args), rel=1e-9, abs=1e-18)
        assert mine.vega[0] == pytest.approx(vega(*args), rel=1e-9, abs=1e-12)
        assert mine.theta[0] == pytest.approx(theta(*args), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("vol", [0.1, 0.6, 2.5])
@pytest.mark.parametrize("log_strike", [-0.5, -0.02, 0.0, 0.1, 0.6])
def test_the_implied_volatility_of_a_price_gives_that_price(vol, log_strike):
    forward, strike, tau = 3_000.0, 3_000.0 * np.exp(log_strike), 30.0 / 365.0
    for sign, flag in ((1, "c"), (-1, "p")):
        value = black(flag, forward, strike, tau, 0.0, vol)
        found = implied_vol(value, sign, forward, strike, tau)
        if isnan(found):  # not a cent of time value is left
            assert value - max(sign * (forward - strike), 0.0) < 1e-9
        else:
            assert black(flag, forward, strike, tau, 0.0, found) == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize(
    ("value", "sign"), [(0.0, 1), (-1.0, 1), (99.0, 1), (100.0, 1), (200.0, 1), (float("nan"), -1), (1e9, -1)]
)
def test_a_price_no_volatility_gives_has_none(value, sign):
    assert isnan(implied_vol(value, sign, 200.0, 100.0, 0.1))


def test_an_average_has_a_third_of_its_windows_variance_and_less_as_it_is_fixed():
    assert averaged(1_000.0, 30.0) == pytest.approx(980.0)
    assert averaged(30.0, 30.0) == pytest.approx(10.0)
    assert averaged(15.0, 30.0) == pytest.approx(0.25 * 15.0 / 3.0)


# --- what is listed ---------------------------------------------------------------------------------


def test_a_chain_has_four_expiries_of_fifteen_strikes_and_both_kinds():
    venue = running_venue()
    for prefix in ("BTC-", "ETH-", "BTC_USDC-"):
        chain = [venue.instruments[name] for name in options(venue, prefix)]
        assert len(chain) == len({i.name for i in chain}) == 4 * 15 * 2
        assert len({i.expiry_ns for i in chain}) == 4
        index = venue.index_price(chain[0].underlying)
        for expiry in {i.expiry_ns for i in chain}:
            strikes = sorted({i.strike for i in chain if i.expiry_ns == expiry})
            assert 0 < strikes[4] < index < strikes[-5]
    listed = venue.instruments[AT_THE_MONEY]
    assert (listed.strike, listed.is_call, listed.quote_currency, listed.margin_pool) == (65_000.0, True, "BTC", "BTC")
    assert venue.instruments["BTC_USDC-27MAR26-65000-P"].margin_pool == "USDC"


@pytest.mark.parametrize("days", range(0, 400, 13))
def test_expiries_rise_and_leave_half_a_day(days):
    after = START_NS + days * NS_PER_DAY
    found = calendar(after, 6)
    assert found == sorted(set(found))
    assert found[0] >= after + NS_PER_DAY // 2
    assert all(expiry % NS_PER_DAY == 8 * 3_600 * S for expiry in found)


def test_strikes_are_round_wider_for_far_expiries_and_never_below_nothing():
    steps = [strike_step(load("default"), "BTC", days * NS_PER_DAY, 65_000.0) for days in (1, 7, 30, 120)]
    assert steps == sorted(steps)
    assert set(steps) <= {100, 250, 500, 1_000, 2_500, 5_000, 10_000}
    for scenario in SCENARIOS.values():
        step = strike_step(scenario, "ETH", 400 * NS_PER_DAY, 3_000.0)
        assert ladder(3_000.0, step, 15)[0] > 0


def test_new_strikes_follow_the_index_and_new_expiries_the_old():
    venue = running_venue("crash", drift_per_hour=-60.0, nearest_expiry_s=4.0, settlement_window_s=1.0)
    before = {i.expiry_ns for i in venue.instruments.values() if i.kind is Kind.OPTION}
    venue.advance(START_NS + 8 * S)
    events = [e for e in venue.events() if isinstance(e, InstrumentChanged) and e.instrument.kind is Kind.OPTION]
    created = [e.instrument for e in events if e.state == "created"]
    closed = {e.instrument.expiry_ns for e in events if e.state == "closed"}
    assert closed == {START_NS + 4 * S} < before
    assert {i.expiry_ns for i in created} - before
    assert any(i.expiry_ns in before for i in created)
    for coin in ("BTC-", "ETH-", "BTC_USDC-"):
        chain = [venue.instruments[name] for name in options(venue, coin)]
        expiries = {i.expiry_ns for i in chain}
        assert len(expiries) >= 4
        index = venue.index_price(chain[0].underlying)
        for expiry in expiries:
            assert min(i.strike for i in chain if i.expiry_ns == expiry) < index
    assert all(venue.ticker(name).option is not None for name in options(venue))


# --- marks ------------------------------------------------------------------------------------------


def test_a_mark_is_black_on_the_forward_at_the_marks_volatility():
    venue = running_venue()
    venue.advance(START_NS + 3 * S)
    for name in options(venue):
        ticker, i = venue.ticker(name), venue.instruments[name]
        quote, tau = said(ticker), (i.expiry_ns - venue.now_ns) / NS_PER_DAY / DAYS_PER_YEAR
        value = black("c" if i.is_call else "p", quote.underlying_price, i.strike, tau, 0.0, quote.mark_iv)
        in_coin = i.quote_currency == i.underlying
        assert ticker.mark_price == pytest.approx(value / (quote.underlying_price if in_coin else 1.0), abs=1e-6)


def test_calls_less_puts_are_the_forward_less_the_strike_and_no_mark_is_negative():
    for scenario in ("default", "crash", "expiry"):
        venue = running_venue(scenario)
        for second in (1, 12, 17):
            venue.advance(START_NS + second * S)
            venue.events()
            for name in options(venue):
                if not name.endswith("C"):
                    continue
                call, put, i = venue.ticker(name), venue.ticker(name[:-1] + "P"), venue.instruments[name]
                forward = said(call).underlying_price
                unit = forward if i.quote_currency == i.underlying else 1.0
                assert call.mark_price >= 0 <= put.mark_price
                parity = (call.mark_price - put.mark_price) * unit
                assert parity == pytest.approx(forward - i.strike, abs=1e-6 * forward)


def test_an_expiry_with_a_future_is_priced_on_the_future():
    venue = running_venue()
    venue.advance(START_NS + 2 * S)
    future, option = venue.ticker("BTC-27MAR26"), venue.ticker(AT_THE_MONEY)
    assert said(option).underlying_price == future.mark_price
    assert option.delivery_price == option.index_price


def test_in_the_settlement_window_the_delivery_price_is_the_average_and_delta_dies():
    venue = running_venue("expiry")
    deep = min(options(venue, "BTC-25FEB26-"), key=lambda n: venue.instruments[n].strike)[:-1] + "C"
    seen = []
    for tenth in range(1, 200):
        venue.advance(START_NS + tenth * 100 * MS)
        venue.events()
        ticker = venue.ticker(deep)
        if tenth > 100:
            seen.append(ticker.index_price)
        if tenth == 199:
            assert ticker.delivery_price == pytest.approx(np.mean(seen), rel=1e-4)
        if tenth in (99, 150, 195):
            left = min((200 - tenth + tenth % 5) / 100, 1.0)  # as of the last look
            assert said(ticker).delta == pytest.approx(left, abs=0.01)


# --- books and what is published ---------------------------------------------------------------------


def test_books_are_on_the_grid_around_the_mark_and_never_cross():
    for scenario in ("default", "crash", "options"):
        venue = running_venue(scenario)
        for second in (1, 2, 24):
            venue.advance(START_NS + second * S)
            venue.events()
            for name in options(venue):
                book, mark = venue.book(name), venue.ticker(name).mark_price
                instrument = venue.instruments[name]
                tick = float(instrument.tick_size)
                assert 1 <= len(book.asks) <= 3
                assert len(book.bids) <= 3
                assert all(instrument.on_grid(t) and n > 0 for t, n in book.bids + book.asks)
                assert book.asks[-1][0] * tick >= mark - 1e-9
                if book.bids:
                    assert book.bids[0][0] < book.asks[0][0]
                    assert book.bids[-1][0] * tick <= mark + 1e-9


def test_spreads_are_wider_in_the_wings_and_nobody_bids_for_almost_nothing():
    venue = running_venue()
    venue.advance(START_NS + S)

    def points(name: str) -> float:
        quote = said(venue.ticker(name))
        return quote.ask_iv - quote.bid_iv

    middle = points("BTC_USDC-27MAR26-65000-C")
    assert points("BTC_USDC-27MAR26-47500-P") > 1.2 * middle < points("BTC_USDC-27MAR26-82500-C")
    venue = running_venue("expiry")
    venue.advance(START_NS + S)
    worthless = [n for n in options(venue) if venue.ticker(n).mark_price < 2 * float(venue.instruments[n].tick_size)]
    assert worthless
    assert all(isnan(venue.ticker(name).best_bid) and isnan(said(venue.ticker(name)).bid_iv) for name in worthless)


def test_each_option_has_a_ticker_a_second_and_books_rebuild_from_their_changes():
    venue = running_venue()
    venue.advance(START_NS + 10 * S)
    events = venue.events()
    counts = dict.fromkeys(options(venue), 0)
    books: dict[str, dict[tuple[str, int], int]] = {name: {} for name in counts}
    fresh = running_venue()
    for name in counts:
        book = fresh.book(name)
        books[name] = {("b", t): n for t, n in book.bids} | {("a", t): n for t, n in book.asks}
    for event in events:
        if isinstance(event, TickerChanged) and event.ticker.instrument in counts:
            counts[event.ticker.instrument] += 1
        if isinstance(event, BookChanged) and event.instrument in counts:
            books[event.instrument] |= {("b", t): n for t, n in event.bids} | {("a", t): n for t, n in event.asks}
    assert set(counts.values()) == {10}
    for name, levels in books.items():
        book = venue.book(name)
        now = {("b", t): n for t, n in book.bids} | {("a", t): n for t, n in book.asks}
        assert {k: n for k, n in levels.items() if n} == now


def test_nothing_a_client_does_moves_a_mark_and_an_eaten_book_grows_back():
    quiet, busy = running_venue("options"), running_venue("options")
    for second in range(1, 40):
        for venue in (quiet, busy):
            venue.advance(START_NS + second * S)
            venue.events()
        if second < 20:
            order(busy, BUY, 20, None, instrument=AT_THE_MONEY)
            order(busy, SELL, 20, None, account="b", instrument=AT_THE_MONEY)
        assert list(quiet.instruments) == list(busy.instruments)
        assert [quiet.ticker(n).mark_price for n in options(quiet)] == [
            busy.ticker(n).mark_price for n in options(busy)
        ]
    assert [t for t, _ in busy.book(AT_THE_MONEY).asks] == [t for t, _ in quiet.book(AT_THE_MONEY).asks]


def test_the_same_seed_is_the_same_chain_however_time_is_sliced():
    scenario = replace(load("options"), nearest_expiry_s=3.0, settlement_window_s=1.0)
    at_once, sliced = running_venue(scenario), running_venue(scenario)
    at_once.advance(START_NS + 5 * S)
    for k in range(1, 201):
        sliced.advance(START_NS + k * 25 * MS)
    assert repr(at_once.events()) == repr(sliced.events())
    other = running_venue(scenario, seed=8)
    assert other.ticker(AT_THE_MONEY).mark_price != running_venue(scenario).ticker(AT_THE_MONEY).mark_price
