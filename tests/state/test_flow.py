"""Microstructure signals: by hand, against a slow implementation of the papers' definitions, and on recorded books."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.domain.decisions import Micro
from dea_daemon.domain.events import (
    AnyEvent,
    BookDelta,
    BookSnapshot,
    FeedClosed,
    IndexUpdated,
    MarkUpdated,
    QuoteUpdated,
    TradePrinted,
)
from dea_daemon.domain.instruments import AccountKey, Kind, Payoff, Side, Universe
from dea_daemon.feeds.binance import Binance
from dea_daemon.feeds.deribit import Deribit
from dea_daemon.feeds.observed import contracts_in, trade_stream
from dea_daemon.pricing.exposure import notional_per_lot
from dea_daemon.shell import captures
from dea_daemon.state.effects import Effects
from dea_daemon.state.market import Market
from tests.house import BTC_FUTURE, BTC_LINEAR, BTC_PERP, ETH_PERP, INSTRUMENTS, MS, START_NS, S, instrument, parameters
from tests.shared_data import shared

DAY = 86_400 * S
OPTION = len(INSTRUMENTS)
CALL = instrument(
    "BTC-25DEC26-80000-C", "BTC", Payoff.LINEAR, "0.1", "0.0001", kind=Kind.OPTION, quote_currency="BTC",
    settle_currency="BTC", margin_pool="BTC", expiry_ns=START_NS + 60 * DAY, strike=80_000.0, is_call=True,
)  # fmt: skip
SPOT = np.array([100.0, 100.0, 100.0, 3_000.0, 100.0])


class Desk:
    """A market alone, with a hand on the clock."""

    def __init__(self, universe: Universe | None = None, **state: object) -> None:
        rows = tuple((0, i) for i in (*INSTRUMENTS, CALL))
        self.universe = universe or Universe((AccountKey("deribit", "main"),), rows)
        self.market = Market(self.universe, parameters(state=state))
        self.now_ns, self.sequence = START_NS, 0

    def fold(self, event) -> None:
        self.market.fold(event, Effects())

    def snapshot(self, bids, asks, row=BTC_PERP) -> None:
        self.sequence += 1
        self.fold(BookSnapshot(self.now_ns, self.sequence, row, self.sequence, list(bids), list(asks)))

    def change(self, bids=(), asks=(), row=BTC_PERP, lost=0) -> None:
        before = self.sequence + lost
        self.sequence = before + 1
        numbers = self.sequence, self.sequence, before
        self.fold(BookDelta(self.now_ns, self.sequence, row, *numbers, list(bids), list(asks)))

    def quote(self, bid, bid_amount, ask, ask_amount, row=BTC_PERP) -> None:
        self.fold(QuoteUpdated(self.now_ns, self.now_ns, row, bid, bid_amount, ask, ask_amount))

    def trade(self, side, amount, row=BTC_PERP) -> None:
        self.fold(TradePrinted(self.now_ns, self.now_ns, row, "", side, 100.0, amount))

    def mark(self, price, row=BTC_PERP, **told) -> None:
        self.fold(MarkUpdated(self.now_ns, self.now_ns, row, price, **told))

    def pass_time(self, seconds: float) -> None:
        self.now_ns += round(seconds * S)

    def micro(self, spot=None, forward=None) -> Micro:
        market = self.market
        market.touch()
        spot = SPOT[: len(self.universe)] if spot is None else spot
        per_lot = notional_per_lot(self.universe, market.mark, spot)
        return market.flow.tell(market, self.now_ns, self.now_ns, spot, spot if forward is None else forward, per_lot)


# --- order flow ---------------------------------------------------------------------------------------


def test_order_flow_is_what_cont_kukanov_and_stoikov_define():
    desk = Desk(flow_half_life_s=36_000)
    desk.snapshot([(99.0, 10.0)], [(101.0, 10.0), (102.0, 8.0)])
    desk.change(bids=[(99.0, 15.0)])  # unchanged price: + 5
    desk.change(bids=[(100.0, 3.0)])  # a better bid brings all of its own: + 3
    desk.change(asks=[(101.0, 4.0)])  # less on offer: + 6
    desk.change(asks=[(101.0, 0.0)])  # the offer is gone: + 4
    desk.change(bids=[(100.0, 0.0)])  # the bid is gone: - 3
    desk.change(asks=[(103.0, 50.0)])  # behind the touch: nothing
    depth = (15.0 + 8.0) / 2
    assert desk.micro().ofi[BTC_PERP] == pytest.approx(15.0 / depth)


def test_over_levels_each_rank_is_a_touch_of_its_own():
    desk = Desk(flow_half_life_s=36_000)
    desk.snapshot([(99.0, 10.0), (98.0, 20.0)], [(101.0, 7.0)])
    desk.change(bids=[(98.5, 4.0)])  # second: 98.5 for 98, + 4; third: 98 where nothing was, + 20
    desk.change(asks=[(101.0, 9.0)])  # first: - 2
    depth = (10.0 + 4.0 + 20.0 + 9.0) / 2
    assert desk.micro().ofi_deep[BTC_PERP] == pytest.approx(22.0 / depth)


def test_flow_is_counted_half_after_a_half_life():
    desk = Desk(flow_half_life_s=60, stale_book_ms=100_000)
    desk.snapshot([(99.0, 10.0)], [(101.0, 10.0)])
    desk.change(bids=[(99.0, 20.0)], asks=[(101.0, 20.0)])
    desk.change(bids=[(99.0, 40.0)])
    now = desk.micro().ofi[BTC_PERP]
    desk.pass_time(60)
    assert desk.micro().ofi[BTC_PERP] == pytest.approx(now / 2) and now > 0.5


def levels_of(book: dict[float, float], sign: float) -> list[tuple[float, float]]:
    """The best five (sign · price, amount), and nothing at nowhere behind them."""
    best = sorted(((sign * price, amount) for price, amount in book.items()), reverse=True)[:5]
    return best + [(-math.inf, 0.0)] * (5 - len(best))


def flow_of(was, now) -> list[float]:
    """[5] by rank, as the paper writes it: q 1{P ≥ P'} - q' 1{P ≤ P'}."""
    return [
        q * (p >= p0) - q0 * (p <= p0) if max(p, p0) > -math.inf else 0.0
        for (p, q), (p0, q0) in zip(now, was, strict=True)
    ]


class Slow:
    """Every event is kept, and summed when asked: the definitions and nothing else."""

    def __init__(self) -> None:
        self.books: tuple[dict[float, float], dict[float, float]] = {99.0: 1.0}, {101.0: 1.0}
        self.flows: list[tuple[int, list[float]]] = []
        self.depths: list[tuple[int, float, float]] = [self.depth(START_NS)]

    def depth(self, now_ns):
        bids, asks = (levels_of(book, sign) for book, sign in zip(self.books, (1.0, -1.0), strict=True))
        return now_ns, (bids[0][1] + asks[0][1]) / 2, sum(q for _, q in bids + asks) / 2

    def change(self, now_ns, is_bid, price, amount) -> None:
        book, sign = self.books[0 if is_bid else 1], 1.0 if is_bid else -1.0
        was = levels_of(book, sign)
        book.pop(price, None)
        if amount:
            book[price] = amount
        self.flows.append((now_ns, [sign * f for f in flow_of(was, levels_of(book, sign))]))
        self.depths.append(self.depth(now_ns))

    def sums(self, now_ns, half_life_s) -> tuple[float, float, float, float]:
        """Flow at the best and at all, and the absolute sums that bound what an error in time can do."""
        weighed = [(2.0 ** (-(now_ns - t) / S / half_life_s), f) for t, f in self.flows]
        best, deep = sum(w * f[0] for w, f in weighed), sum(w * sum(f) for w, f in weighed)
        return best, deep, sum(w * abs(f[0]) for w, f in weighed), sum(w * abs(sum(f)) for w, f in weighed)

    def means(self, now_ns, half_life_s) -> tuple[float, float]:
        """Depth at the best and at all: integrals over the time each stood, by Simpson's rule."""
        ends = [*(t for t, _, _ in self.depths[1:]), now_ns]
        total = best = deep = 0.0
        for (begin, at_best, at_all), end in zip(self.depths, ends, strict=True):
            points = np.linspace(begin - now_ns, end - now_ns, 2_001) / S
            w = 2.0 ** (points / half_life_s)
            area = (w[0] + w[-1] + 4 * w[1:-1:2].sum() + 2 * w[2:-1:2].sum()) * (end - begin) / 6_000
            total, best, deep = total + area, best + area * at_best, deep + area * at_all
        return best / total, deep / total


changes = st.tuples(st.booleans(), st.integers(1, 12), st.sampled_from([0.0, 0.5, 1.0, 2.5]))


def played(stream, gaps) -> tuple[Desk, Slow]:
    """Changes of one level, each some seconds after the last; bids below 100, asks above."""
    desk, slow = Desk(flow_half_life_s=60, stale_book_ms=10_000_000), Slow()
    desk.snapshot([(99.0, 1.0)], [(101.0, 1.0)])
    for (is_bid, step, amount), gap in zip(stream, gaps, strict=False):
        desk.pass_time(gap)
        level = 100.0 + (-step if is_bid else step), amount
        desk.change(*(([level], []) if is_bid else ([], [level])))
        slow.change(desk.now_ns, is_bid, *level)
    desk.pass_time(1.5)
    return desk, slow


@settings(max_examples=60, deadline=None)
@given(st.lists(changes, min_size=1, max_size=40), st.lists(st.sampled_from([1.0, 1.7, 9.0, 200.0]), min_size=40))
def test_changes_a_second_apart_count_exactly_as_a_slow_sum_over_all_of_them(stream, gaps):
    desk, slow = played(stream, gaps)
    micro = desk.micro()
    sums, means = slow.sums(desk.now_ns, 60)[:2], slow.means(desk.now_ns, 60)
    for told, flow, mean in zip((micro.ofi, micro.ofi_deep), sums, means, strict=True):
        if mean > 1e-9 and any(book for book in slow.books):
            assert told[BTC_PERP] == pytest.approx(flow / mean, rel=1e-6, abs=1e-9)
    bids, asks = (sum(q for _, q in levels_of(book, sign)) for book, sign in zip(slow.books, (1, -1), strict=True))
    if slow.books[0] or slow.books[1]:
        desk.mark(100.0)
        micro = desk.micro()
        assert (micro.depth_bid_usd[BTC_PERP], micro.depth_ask_usd[BTC_PERP]) == (bids, asks)


@settings(max_examples=60, deadline=None)
@given(st.lists(changes, min_size=1, max_size=40), st.lists(st.sampled_from([0.0, 0.001, 0.3, 2.0]), min_size=40))
def test_within_a_second_their_order_in_time_is_blurred_by_one_part_in_ninety_at_most(stream, gaps):
    desk, slow = played(stream, gaps)
    flow = desk.market.flow._rows[BTC_PERP]
    fading = 2.0 ** (-(desk.now_ns - flow.at_ns) / S / 60)
    best, deep, most_best, most_deep = slow.sums(desk.now_ns, 60)
    assert abs(flow.flow_best * fading - best) <= most_best / 90 + 1e-9
    assert abs(flow.flow_deep * fading - deep) <= most_deep / 90 + 1e-9


# --- what is void -------------------------------------------------------------------------------------


def test_a_gap_voids_what_was_summed_until_a_snapshot_and_that_is_no_flow():
    desk = Desk()
    desk.snapshot([(99.0, 1.0)], [(101.0, 1.0)])
    desk.change(bids=[(99.0, 50.0)])
    assert desk.micro().ofi[BTC_PERP] > 0.0
    desk.change(bids=[(99.0, 51.0)], lost=1)
    broken = desk.micro()
    for name in ("ofi", "ofi_deep", "microprice", "spread_bp", "depth_bid_usd", "flow_age_s"):
        assert math.isnan(getattr(broken, name)[BTC_PERP]), name
    desk.snapshot([(99.0, 900.0)], [(101.0, 1.0)])
    desk.pass_time(1)
    whole = desk.micro()
    assert whole.ofi[BTC_PERP] == 0.0 and whole.flow_age_s[BTC_PERP] == 1.0


def test_a_stale_book_says_nothing():
    desk = Desk(stale_book_ms=2_000)
    desk.snapshot([(99.0, 1.0)], [(101.0, 1.0)])
    desk.change(bids=[(99.0, 2.0)])
    desk.pass_time(2.1)
    assert all(math.isnan(x) for x in (desk.micro().ofi[BTC_PERP], desk.micro().microprice[BTC_PERP]))


def test_a_closed_feed_voids_books_quotes_and_trades():
    desk = Desk()
    desk.snapshot([(99.0, 1.0)], [(101.0, 1.0)])
    desk.quote(99.0, 1.0, 101.0, 1.0, ETH_PERP)
    for row in (BTC_PERP, ETH_PERP):
        desk.trade(Side.BUY, 1.0, row)
    desk.fold(FeedClosed(desk.now_ns, "public", 0, False, (BTC_PERP, ETH_PERP)))
    micro = desk.micro()
    for row in (BTC_PERP, ETH_PERP):
        assert math.isnan(micro.trade_imbalance[row]) and math.isnan(micro.ofi[row])
    desk.quote(99.0, 70.0, 101.0, 1.0, ETH_PERP)
    assert desk.micro().ofi[ETH_PERP] == 0.0


def test_before_anything_was_heard_everything_is_unknown():
    micro = Desk().micro()
    assert all(np.isnan(column).all() for column in micro)


# --- the others ---------------------------------------------------------------------------------------


def test_microprice_leans_to_the_thinner_side_and_spread_is_of_the_mid():
    desk = Desk()
    desk.snapshot([(99.0, 3.0)], [(101.0, 1.0)])
    micro = desk.micro()
    assert micro.microprice[BTC_PERP] == pytest.approx(100.5)
    assert micro.spread_bp[BTC_PERP] == pytest.approx(200.0)


def test_one_side_alone_has_a_depth_and_no_price():
    desk = Desk()
    desk.mark(100.0)
    desk.snapshot([(99.0, 3.0)], [])
    micro = desk.micro()
    assert (micro.depth_bid_usd[BTC_PERP], micro.depth_ask_usd[BTC_PERP]) == (3.0, 0.0)
    assert math.isnan(micro.microprice[BTC_PERP]) and math.isnan(micro.spread_bp[BTC_PERP])


def test_depth_is_in_dollars_whatever_the_venue_counts_in():
    desk = Desk()
    for row in (BTC_PERP, BTC_LINEAR, OPTION):
        desk.mark(0.05 if row == OPTION else 100.0, row)
    desk.snapshot([(99.0, 30.0)], [(101.0, 1.0)])  # inverse: USD
    desk.snapshot([(99.0, 2.0), (98.0, 1.0)], [(101.0, 1.0)], BTC_LINEAR)  # coins
    desk.quote(0.04, 5.0, 0.06, 1.0, OPTION)  # coins of the underlying, at 100 USD
    assert desk.micro().depth_bid_usd[[BTC_PERP, BTC_LINEAR, OPTION]] == pytest.approx([30.0, 300.0, 500.0])


def test_a_row_of_quotes_alone_has_one_level_and_begins_again_after_a_silence():
    desk = Desk(flow_half_life_s=36_000)
    desk.quote(99.0, 4.0, 101.0, 4.0)
    desk.quote(99.0, 10.0, 101.0, 4.0)
    micro = desk.micro()
    assert micro.ofi[BTC_PERP] == pytest.approx(6.0 / 7.0) and math.isnan(micro.ofi_deep[BTC_PERP])
    desk.pass_time(2.5)
    desk.quote(99.0, 90.0, 101.0, 4.0)
    assert desk.micro().ofi[BTC_PERP] == 0.0


def test_trades_are_signed_by_their_taker_and_fade():
    desk = Desk(flow_half_life_s=60)
    desk.trade(Side.BUY, 30.0)
    desk.trade(Side.SELL, 10.0)
    assert desk.micro().trade_imbalance[BTC_PERP] == pytest.approx(0.5)
    desk.pass_time(60)
    assert desk.micro().trade_imbalance[BTC_PERP] == pytest.approx(0.25)
    desk.trade(Side.SELL, 20.0)  # 15 bought and 5 sold are left of the others
    assert desk.micro().trade_imbalance[BTC_PERP] == pytest.approx(-10.0 / 40.0)
    assert math.isnan(desk.micro().trade_imbalance[ETH_PERP])


@pytest.mark.parametrize("amount", [math.nan, math.inf, 0.0, -1.0])
def test_a_trade_of_no_amount_is_none(amount):
    desk = Desk()
    desk.trade(Side.BUY, amount)
    assert math.isnan(desk.micro().trade_imbalance[BTC_PERP])


def test_realised_variance_is_of_the_mid_and_a_day():
    desk, found = Desk(), math.nan
    for i in range(120):
        half = 0.5 if i % 3 else 1.0  # a wider spread is no move
        mid = 100.0 * math.exp(1e-4 * (i % 2))
        desk.snapshot([(mid - half, 1.0)], [(mid + half, 1.0)])
        found = desk.micro().realised_variance[BTC_PERP]
        desk.pass_time(1)
    assert found == pytest.approx(1e-8 * 86_400, rel=1e-6)


def test_a_book_that_was_lost_ends_what_its_variance_was_made_from():
    desk = Desk()
    for mid in (100.0, 101.0, 100.0):
        desk.snapshot([(mid - 1, 1.0)], [(mid + 1, 1.0)])
        desk.micro()
        desk.pass_time(1)
    desk.change(bids=[(99.0, 1.0)], lost=1)
    desk.micro()
    found = math.nan
    for _ in range(3):
        desk.pass_time(1)
        desk.snapshot([(149.0, 1.0)], [(151.0, 1.0)])
        found = desk.micro().realised_variance[BTC_PERP]
    assert found == 0.0


def test_carry_is_told_where_it_exists():
    desk = Desk()
    for row in (BTC_PERP, BTC_FUTURE):
        desk.mark(100.2, row, index_price=100.0, funding_rate_8h=1e-4)
    forward = np.where(np.arange(5) == BTC_FUTURE, 100.0 * math.exp(0.05 * 60 / 365), SPOT)
    micro = desk.micro(forward=forward)
    assert micro.premium[BTC_PERP] == pytest.approx(0.002) and math.isnan(micro.premium[BTC_FUTURE])
    assert micro.basis_annual[BTC_FUTURE] == pytest.approx(0.05) and math.isnan(micro.basis_annual[BTC_PERP])
    assert micro.funding_rate_8h[BTC_PERP] == 1e-4
    desk.pass_time(6)
    stale = desk.micro(forward=forward)
    assert math.isnan(stale.premium[BTC_PERP]) and math.isnan(stale.basis_annual[BTC_FUTURE])


def test_the_basis_of_a_last_day_is_noise_and_not_told():
    desk = Desk()
    desk.now_ns += 59 * DAY + S
    desk.mark(100.2, BTC_FUTURE)
    assert math.isnan(desk.micro(forward=SPOT * 1.01).basis_annual[BTC_FUTURE])


def test_open_interest_is_compared_with_its_own_past_day():
    desk, told = Desk(), []
    for hour in range(24 * 12):
        desk.mark(100.0, BTC_PERP, open_interest=1e6 * math.exp(0.1 * hour / 24))
        desk.mark(100.0, BTC_LINEAR, open_interest=50.0)
        told.append(desk.micro())
        desk.pass_time(3_600)
    assert math.isnan(told[12].open_interest_change[BTC_PERP])
    # e^(gt) over its mean at a mean age of a day is 1 + g.
    assert told[-1].open_interest_change[BTC_PERP] == pytest.approx(0.1, abs=0.003)
    assert told[-1].open_interest_change[BTC_LINEAR] == pytest.approx(0.0, abs=1e-12)
    assert told[-1].open_interest_usd[BTC_LINEAR] == pytest.approx(5_000.0)


def test_nobody_can_write_to_what_was_told():
    for column in Desk().micro():
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1.0


# --- no look-ahead ------------------------------------------------------------------------------------

happenings = st.lists(st.tuples(st.sampled_from("btqm"), changes, st.sampled_from([0.0, 0.2, 1.0, 5.0])), max_size=20)


def told_of(stream) -> list[Micro]:
    """What is told after each event."""
    desk, told = Desk(), []
    desk.snapshot([(99.0, 1.0)], [(101.0, 1.0)])
    for kind, (is_bid, step, amount), gap in stream:
        desk.pass_time(gap)
        level = 100.0 + (-step if is_bid else step), amount
        if kind == "b":
            desk.change(*(([level], []) if is_bid else ([], [level])))
        elif kind == "t":
            desk.trade(Side.BUY if is_bid else Side.SELL, amount)
        elif kind == "q":
            desk.quote(100.0 - step, amount, 100.0 + step, 1.0, ETH_PERP)
        else:
            desk.mark(100.0 + step, BTC_PERP, index_price=100.0, open_interest=amount)
            desk.fold(IndexUpdated(desk.now_ns, desk.now_ns, 0, "BTC", 100.0 + step))
        told.append(desk.micro())
    return told


@settings(max_examples=40, deadline=None)
@given(happenings, happenings, happenings)
def test_what_is_told_does_not_change_with_what_comes_after(past, one, other):
    first, second = told_of(past + one)[: len(past)], told_of(past + other)[: len(past)]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))


# --- recorded books -----------------------------------------------------------------------------------


def recorded(path: str, venue: str, half_life_s: float) -> list[tuple[int, float, Micro]]:
    """(time, mid of the first row, signals) once a second of a capture played through codec and market."""
    frames = list(captures.frames(shared(path)))
    sample = [frame.payload for frame in frames[:3_000]]
    universe = Universe((AccountKey(venue, "main"),), tuple((0, c) for c in contracts_in(sample, venue)))
    codec = (
        Deribit(universe, 0, interval="raw")
        if venue == "deribit"
        else Binance(universe, 0, trades=trade_stream(sample))
    )
    desk, told = Desk(universe, flow_half_life_s=half_life_s), []
    due_ns = 0
    for frame in frames:
        out: list[AnyEvent] = []
        desk.now_ns = frame.ts_recv_ns
        if frame.kind is captures.Kind.HTTP:
            codec.snapshot(frame.payload, 0, frame.ts_recv_ns, out)
        elif frame.kind is captures.Kind.MESSAGE:
            codec.decode(frame.payload, frame.ts_recv_ns, out)
        for event in out:
            desk.fold(event)
        if desk.now_ns >= due_ns:
            due_ns = desk.now_ns + S
            micro = desk.micro(spot=desk.market.mark)
            told.append((desk.now_ns, 0.5 * float(desk.market.bid[0] + desk.market.ask[0]), micro))
    return told


def test_on_a_recorded_book_order_flow_explains_the_move_of_the_mid():
    half_life_s = 10.0
    told = [row for row in recorded("ws/usdm_btcusdt_20240808.gz", "binanceusdm", half_life_s) if row[1] == row[1]]
    moved, moves, flows = 0.0, [], []
    for (was_ns, before, _), (now_ns, mid, micro) in pairwise(told):
        moved = moved * 2.0 ** (-(now_ns - was_ns) / S / half_life_s) + math.log(mid / before)
        moves.append(moved)
        flows.append((micro.ofi[0], micro.ofi_deep[0], micro.trade_imbalance[0]))
    found = np.array(flows)[30:]
    assert len(found) > 100 and np.isfinite(found).all() and np.abs(found[:, 2]).max() <= 1.0
    assert (np.abs(found[:, :2]).max(axis=0) < 1_000).all()
    squared = [np.corrcoef(column, np.array(moves)[30:])[0, 1] ** 2 for column in found.T]
    last = told[-1][2]
    assert 0.0 < last.spread_bp[0] < 10.0 and 0.0 < last.realised_variance[0] < 1.0
    assert squared[0] > 0.3 and np.corrcoef(found[:, 0], np.array(moves)[30:])[0, 1] > 0.0


def test_a_recorded_book_of_another_venue_is_finite_and_bounded():
    told = recorded("ws/DERIBIT.ws.1.0.gz", "deribit", 60.0)
    ofi, imbalance, depth = (
        np.array([getattr(micro, name) for _, _, micro in told]) for name in ("ofi", "trade_imbalance", "depth_bid_usd")
    )
    known = ofi == ofi
    assert known.any() and (np.abs(ofi[known]) < 1_000).all()
    assert ((np.abs(imbalance) <= 1.0) | np.isnan(imbalance)).all() and not (depth < 0.0).any()


def test_the_clock_of_trades_and_books_may_stand_still():
    desk = Desk()
    desk.snapshot([(99.0, 1.0)], [(101.0, 1.0)])
    desk.change(bids=[(99.0, 3.0)])
    assert desk.micro().ofi[BTC_PERP] == pytest.approx(1.0)  # 2 over the depth that stands, (3 + 1) / 2
    desk.now_ns -= MS
    desk.change(bids=[(99.0, 1.0)])
    assert desk.micro().ofi[BTC_PERP] == pytest.approx(0.0, abs=1e-3)
