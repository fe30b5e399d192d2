"""How near a pool is to liquidation, against a revaluation of the whole book; and what a day has moved."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.domain.events import (
    AccountReported,
    FillReceived,
    IndexUpdated,
    InstrumentsListed,
    PoolReport,
    VenueStateChanged,
    WatchdogChanged,
)
from dea_daemon.domain.factors import FactorIndex
from dea_daemon.domain.instruments import Instrument, Kind, Payoff, Side, Universe
from dea_daemon.domain.modes import Mode
from dea_daemon.pricing import black
from dea_daemon.pricing.exposure import exposure_per_lot
from dea_daemon.state.margin import Margin, margin, use
from dea_daemon.state.options import Valued
from dea_daemon.state.returns import EVERY_NS, KEPT, Returns
from tests.guards.views import ACCOUNTS, EXPIRY_NS, MARK, SPOT, VOL, YEARS, marks_of
from tests.house import BTC_FUTURE, BTC_LINEAR, BTC_PERP, ETH_PERP, INSTRUMENTS, Run, creates, instrument

NAN, INF = float("nan"), float("inf")
MOVES = np.concatenate((-np.geomspace(1e-4, 0.999, 4_000), np.geomspace(1e-4, 20.0, 8_000)))


def option(coin: bool, strike: float, call: bool) -> Instrument:
    pair, money = ("BTC", "BTC") if coin else ("BTC_USDC", "USDC")
    return instrument(
        f"{pair}-2OCT26-{strike:.0f}-{'C' if call else 'P'}", "BTC", Payoff.LINEAR, "0.1" if coin else "0.01",
        "0.0001", kind=Kind.OPTION, quote_currency=money, settle_currency=money, margin_pool=money,
        expiry_ns=EXPIRY_NS, strike=strike, is_call=call,
    )  # fmt: skip


class Book:
    """Some lots, the first of them options of `chain`, and pools; its distance, and the true one by revaluation."""

    def __init__(self, lots: dict[int, int], chain: tuple[Instrument, ...] = ()) -> None:
        self.universe = Universe(ACCOUNTS, tuple((0, i) for i in INSTRUMENTS + chain))
        self.lots = np.zeros(len(self.universe), dtype=np.int64)
        for row, held in lots.items():
            self.lots[row] = held

    def margin(self, *pools: PoolReport, price: dict[str, float] | None = None) -> Margin:
        universe, factors = self.universe, FactorIndex(self.universe.underlyings)
        _, marks = marks_of(universe, MARK, SPOT[universe.underlying])
        x = exposure_per_lot(universe, factors, marks)
        rows, n = np.arange(len(universe)), len(universe)
        none, nobody = np.zeros(n), np.zeros(n, dtype=bool)
        iv = np.full(n, VOL)
        valued = Valued(
            marks.forward_price, marks.tau_years, marks.weight, iv, rows, nobody, nobody, nobody,
            none, none, none, none, none,
        )  # fmt: skip
        prices = {"BTC": 80_000.0, "ETH": 3_000.0, "USDC": 1.0} | (price or {})
        return margin(
            universe,
            {(0, pool.currency): pool for pool in pools},
            [prices[currency] for _, currency in universe.pools],
            self.lots,
            x[universe.underlying, rows],
            valued,
        )

    def true_distance(self, pool: PoolReport) -> float:
        """The smallest of MOVES of BTC that eats the pool, every contract valued anew in the pool's currency."""
        loss = -sum(held * self._gain(row) for row, held in enumerate(self.lots) if held)
        fatal = np.abs(MOVES)[loss >= pool.equity - pool.maintenance_margin]
        return float(fatal.min()) if len(fatal) else INF

    def _gain(self, row: int) -> Any:
        universe, size = self.universe, float(self.universe.lot_value[row])
        spot = 80_000.0
        then = spot * (1.0 + MOVES)
        if universe.option[row]:
            strike, call = universe.strike[row], universe.call[row]
            before = black.price(spot, strike, YEARS, VOL, call)
            after = black.price(then, strike, YEARS, VOL, call)
            return size * (after / then - before / spot if universe.coin_quoted[row] else after - before)
        return size * (1.0 / spot - 1.0 / then if universe.inverse[row] else then - spot)


def pool(currency: str, equity: float, maintenance: float = 0.0) -> PoolReport:
    return PoolReport(currency, equity, equity, maintenance, maintenance)


@pytest.mark.parametrize(
    ("report", "used"),
    [
        (pool("BTC", 2.0, 0.5), 0.25),
        (pool("BTC", 0.0), 0.0),  # an empty pool without positions
        (pool("BTC", 0.0, 0.1), INF),
        (pool("BTC", -1.0, 0.1), INF),
        (pool("BTC", NAN), 0.0),
    ],
)
def test_margin_use_is_maintenance_over_equity(report, used):
    assert use(report) == used


def test_margin_use_that_is_not_said_is_not_known():
    assert np.isnan(use(pool("BTC", NAN, 0.1)))
    assert np.isnan(use(pool("BTC", 1.0, NAN)))


def test_each_row_has_the_use_of_its_own_pool_and_the_worst_is_of_them_all():
    found = Book({}).margin(pool("BTC", 2.0, 0.5), pool("USDC", 100.0, 10.0), pool("SOL", 1.0, 0.9))
    assert found.row[[BTC_PERP, BTC_FUTURE, BTC_LINEAR, ETH_PERP]].tolist() == [0.25, 0.25, 0.1, 0.0]
    assert found.worst == 0.9  # a pool that no contract of ours is margined in can be liquidated, too
    assert found.distance == INF
    assert np.isnan(Book({}).margin(pool("BTC", NAN, 0.1), pool("USDC", 100.0, 90.0)).worst)


@settings(max_examples=50, deadline=None)
@given(lots=st.integers(-20_000, 20_000).filter(bool), equity=st.floats(1e4, 2e5), share=st.floats(0.0, 0.9))
def test_a_linear_position_is_as_far_from_liquidation_as_its_revaluation_says(lots, equity, share):
    book, report = Book({BTC_LINEAR: lots}), pool("USDC", equity, equity * share)
    true, found = book.true_distance(report), book.margin(report).distance
    assert true == pytest.approx(found, rel=0.003) or min(true, found) > 0.999  # below zero no price falls


@settings(max_examples=50, deadline=None)
@given(
    perpetual=st.integers(-20_000, 20_000),
    future=st.integers(-20_000, 20_000),
    equity=st.floats(0.2, 5.0),
    share=st.floats(0.0, 0.9),
)
def test_a_book_paid_in_coin_is_never_said_to_be_farther_than_it_is(perpetual, future, equity, share):
    """As the coin falls, a long loses more and more of it: that is exact. A short is nearer than it is."""
    book, report = Book({BTC_PERP: perpetual, BTC_FUTURE: future}), pool("BTC", equity, equity * share)
    true, found = book.true_distance(report), book.margin(report).distance
    assert found <= true * 1.003
    if perpetual + future > 0 and found < 0.999:
        assert true == pytest.approx(found, rel=0.003)


STRADDLE = {4: -10, 5: -10}


@pytest.mark.parametrize("coin", [True, False])
@pytest.mark.parametrize("hedge_lots", [0, 3_000, -3_000])
@pytest.mark.parametrize("room", [0.2, 0.4, 0.8])
def test_options_sold_at_the_money_are_nearer_by_their_gamma_and_not_farther_than_they_are(coin, hedge_lots, room):
    """The gamma of the strike is the largest there is, so what was sold there is never farther than this says."""
    chain = (option(coin, 80_000.0, call=True), option(coin, 80_000.0, call=False))
    of_one = 1 if coin else 10  # lots of a tenth of a coin, or a hundredth
    hedge = {BTC_PERP: hedge_lots} if coin else {BTC_LINEAR: hedge_lots}
    book = Book({row: lots * of_one for row, lots in STRADDLE.items()} | hedge, chain)
    report = pool("BTC", room) if coin else pool("USDC", room * 80_000.0)
    true, found = book.true_distance(report), book.margin(report).distance
    assert 0.4 * true <= found <= true


def test_underlyings_of_one_pool_are_taken_to_move_against_it_together():
    other = instrument("ETH_USDC-PERPETUAL", "ETH", Payoff.LINEAR, "0.001", "0.05")
    universe = Universe(ACCOUNTS, ((0, INSTRUMENTS[BTC_LINEAR]), (0, other)))
    lots = np.array([10_000, -20_000])  # 80,000 long of BTC, 60,000 short of ETH
    asked: Any = np.zeros(2)  # not None: the distance is wanted. Nothing of it is read where no option is held
    found = margin(universe, {(0, "USDC"): pool("USDC", 35e3)}, [1.0], lots, np.array([8.0, 3.0]), asked)
    assert found.distance == pytest.approx(0.25)


def test_the_nearest_pool_counts():
    book = Book({BTC_LINEAR: 10_000, BTC_PERP: 8_000})
    assert book.margin(pool("USDC", 8_000.0), pool("BTC", 10.0)).distance == pytest.approx(0.1)
    assert book.margin(pool("USDC", 8e6), pool("BTC", 1.0)).distance == pytest.approx(0.5)


@pytest.mark.parametrize("equity", [0.0, -1.0, 10.0])
def test_without_room_the_distance_is_nothing(equity):
    assert Book({BTC_LINEAR: 1}).margin(pool("USDC", equity, 10.0)).distance == 0.0


def test_what_is_unknown_makes_the_distance_unknown():
    book = Book({BTC_LINEAR: 1})
    assert np.isnan(book.margin(pool("USDC", NAN, 10.0)).distance)
    assert np.isnan(book.margin(pool("USDC", 100.0, NAN)).distance)
    assert np.isnan(book.margin(pool("USDC", 100.0), price={"USDC": NAN}).distance)
    both = Book({BTC_LINEAR: 1, BTC_PERP: 1})
    for known, unknown in (("BTC", "USDC"), ("USDC", "BTC")):
        assert np.isnan(both.margin(pool(known, 100.0), pool(unknown, NAN, 1.0)).distance)


# --- returns ---------------------------------------------------------------------------------------------


def observed(times_h: list[float], price: Callable[[int], tuple[float, float]]) -> Returns:
    returns = Returns(2)
    for k, hour in enumerate(times_h):
        returns.observe(int((1_000 + hour) * EVERY_NS), np.array(price(k)))
    return returns


def test_a_run_starts_without_returns_and_its_first_price_makes_none():
    assert observed([], lambda k: (1.0, 1.0)).of_a_day.shape == (0, 2)
    assert observed([0.0], lambda k: (1.0, 1.0)).of_a_day.shape == (0, 2)


def test_an_hours_move_is_scaled_to_a_day():
    moves = observed([0.0, 1.0], lambda k: (100.0 + k, 50.0 - k)).of_a_day
    assert moves == pytest.approx(np.array([[0.01, -0.02]]) * np.sqrt(24.0))
    assert not moves.flags.writeable


def test_prices_within_the_hour_change_nothing():
    moves = observed([0.0, 0.3, 0.9, 1.0], lambda k: (100.0 + k, 50.0)).of_a_day
    assert moves == pytest.approx(np.array([[0.03, 0.0]]) * np.sqrt(24.0))


def test_an_hour_with_an_unknown_price_counts_for_none_and_nor_does_the_next():
    moves = observed([0.0, 1.0, 2.0, 3.0], lambda k: (100.0, NAN if k == 1 else 50.0 + k)).of_a_day
    assert len(moves) == 1
    assert moves[0] == pytest.approx(np.array([0.0, 1.0 / 52.0]) * np.sqrt(24.0))


def test_a_move_over_a_longer_silence_is_not_one_of_an_hour():
    assert len(observed([0.0, 5.0], lambda k: (100.0 + k, 50.0)).of_a_day) == 0
    assert len(observed([0.0, 5.0, 6.0], lambda k: (100.0 + k, 50.0)).of_a_day) == 1


def test_a_month_is_kept():
    moves = observed([float(h) for h in range(KEPT + 20)], lambda k: (100.0 * 1.001**k, 50.0)).of_a_day
    assert len(moves) == KEPT


# --- stablecoins, venues that shut, liquidation, the watchdog ----------------------------------------------


def index(run: Run, currency: str, price: float) -> None:
    run.feed(IndexUpdated(run.now_ns, run.now_ns, 0, currency, price))


def test_a_stablecoin_is_worth_what_is_heard_of_it_but_never_more_than_a_dollar():
    run = Run().settle()
    market = run.state.market
    for heard, worth, pegged in ((None, 1.0, 1.0), (0.97, 0.97, 0.97), (1.03, 1.0, 1.03), (NAN, 1.0, 1.03)):
        if heard is not None:
            index(run, "USDC", heard)
        run.decide()
        assert market.price_of("USDC", run.now_ns) == worth
        assert run.state.view is not None
        assert run.state.view.equity_usd == 500_000.0 * worth
        assert run.state.view.peg[[BTC_PERP, BTC_LINEAR]].tolist() == [1.0, pegged]  # one settles in coin
    run.pass_time(3_600_000)
    assert market.price_of("USDC", run.now_ns) == 1.0  # the last heard, however long ago
    assert np.isnan(market.price_of("BTC", run.now_ns))


def test_a_liquidation_by_the_venue_halts_and_its_fill_counts():
    run = Run().settle()
    (order,) = creates(run.decide())
    run.fill(order, 1_000)
    trade = ("L1", "V9", "", Side.SELL, 400, 160_000, 0.0, "BTC", False)
    run.feed(FillReceived(run.now_ns, run.now_ns, 0, BTC_PERP, *trade, liquidation=True))
    account = run.state.account
    assert account.mode is Mode.HALTED
    assert "liquidated 400 lots of BTC-PERPETUAL" in account.mode_why
    assert account.position_lots[BTC_PERP] == 600
    assert not creates(run.decide())


def test_a_liquidation_told_twice_does_not_undo_a_resume():
    run = Run().settle()
    fill = FillReceived(
        run.now_ns, run.now_ns, 0, BTC_PERP, "L1", "V9", "", Side.SELL, 4, 160_000, 0.0, "BTC", False, True
    )
    run.feed(fill)
    run.state.account.mode = Mode.NORMAL
    run.feed(fill)
    assert run.state.account.mode is Mode.NORMAL


def test_the_view_tells_whether_a_watchdog_is_there():
    run = Run().settle()
    for alive in (False, True):
        decision = run.feed(WatchdogChanged(run.now_ns, alive, "test"))
        assert [note.event for note in decision.notes] == ["watchdog.started" if alive else "watchdog.lost"]
        run.decide()
        assert run.state.view is not None
        assert run.state.view.watched is alive


def shut(run: Run) -> list[bool]:
    run.decide()
    assert run.state.view is not None
    return [bool(row) for row in run.state.view.shut]


def test_a_venue_shuts_whole_or_in_one_currency_and_opens_as_it_shut():
    run = Run().settle()
    assert shut(run) == [False] * 4
    run.feed(VenueStateChanged(run.now_ns, 0, False, "locked", "ETH"))
    assert shut(run) == [False, False, False, True]
    run.feed(VenueStateChanged(run.now_ns, 0, False, "maintenance"))
    assert shut(run) == [True] * 4
    run.feed(VenueStateChanged(run.now_ns, 0, True))
    assert shut(run) == [False, False, False, True]
    run.feed(VenueStateChanged(run.now_ns, 0, True, "", "ETH"))
    assert shut(run) == [False] * 4
    run.feed(VenueStateChanged(run.now_ns, 0, False, "locked", "DOGE"))
    assert shut(run) == [False] * 4  # nothing of ours


def test_a_venue_that_opens_again_is_asked_before_anything_grows():
    run = Run().settle()
    run.feed(VenueStateChanged(run.now_ns, 0, False, "maintenance"), VenueStateChanged(run.now_ns, 0, True))
    assert not creates(run.decide())
    run.report()
    assert creates(run.decide())


def test_a_contract_of_another_grid_stays_shut():
    run = Run().settle()
    changed = instrument("BTC-PERPETUAL", "BTC", Payoff.INVERSE, "100", "0.5")
    run.feed(InstrumentsListed(run.now_ns, 0, (), "", (changed,)))
    assert shut(run) == [True, False, False, False]
    run.feed(VenueStateChanged(run.now_ns, 0, True), AccountReported(run.now_ns, 0, run.now_ns, False, (), (), (), ()))
    assert shut(run)[BTC_PERP]
