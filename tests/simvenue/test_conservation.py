"""Whatever happens, money and contracts only move: they never appear or vanish."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.domain.orders import TimeInForce
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.scenarios import Scenario
from dea_daemon.simvenue.words import FundingPaid, Liquidated, OrderRequest, Refused, Settled
from tests.simvenue.venues import BUY, INVERSE, LINEAR, START_NS, S, open_lots, recorded_venue, totals

sides = st.sampled_from([BUY, BUY.opposite])
names = st.sampled_from([INVERSE, LINEAR])
accounts = st.sampled_from(["a", "b"])
prices = st.integers(985, 1_015)
lots = st.integers(1, 400)


def placed():
    """Drawn three times below, so that most operations are orders."""
    return st.tuples(
        st.just("place"),
        accounts,
        names,
        sides,
        lots,
        st.one_of(st.none(), prices),
        st.sampled_from([False, False, True]),
        st.sampled_from([False, False, False, True]),
        st.sampled_from([False, False, False, True]),
    )


ops = st.lists(
    st.one_of(
        st.tuples(st.just("level"), names, sides, prices, st.integers(0, 300)),
        st.tuples(st.just("recorded"), names, sides, prices, lots),
        st.tuples(st.just("mark"), names, st.floats(700.0, 1_400.0)),
        st.tuples(st.just("funding"), names, st.floats(-0.5, 0.5)),
        placed(),
        placed(),
        placed(),
        st.tuples(st.just("edit"), accounts, st.integers(0, 10), lots, prices),
        st.tuples(st.just("cancel"), accounts, st.integers(0, 10)),
    ),
    min_size=20,
    max_size=60,
)


class Played:
    """A recorded venue under random operations, each of which the venue may refuse."""

    def __init__(self) -> None:
        thin = Scenario("thin", coins={}, initial_margin=0.1, maintenance_margin=0.05, price_band=0.5)
        self.venue = recorded_venue(thin, deposits={"BTC": 1.0, "USDT": 2_000.0})
        for name in (INVERSE, LINEAR):
            for k in range(1, 11):
                self.venue.set_level(name, BUY, 1_000 - k, 100)
                self.venue.set_level(name, BUY.opposite, 1_000 + k, 100)
        self.reduce_only: set[str] = set()
        self.refusals: set[str] = set()

    def do(self, what: str, *arguments):
        try:
            getattr(self, what)(*arguments)
        except Refused as refused:
            self.refusals.add(refused.code)

    def level(self, name, side, price, lots):
        self.venue.set_level(name, side, price, lots)

    def recorded(self, name, side, price, lots):
        self.venue.public_trade(name, side, price, lots)

    def mark(self, name, price):
        self.venue.set_mark(name, price, price)

    def funding(self, name, rate):
        held = self.venue.contracts[name]
        held.funding_rate = rate
        held.accrue(3_600 * S)
        if rate > 0.25:
            self.venue.accounts.settle_funding(held)

    def place(self, account, name, side, lots, price, ioc, reduce_only, post_only):
        before = self.venue.position(account, name).lots
        order, fills = self.venue.place(
            OrderRequest(
                account,
                name,
                side,
                lots,
                price,
                TimeInForce.IOC if ioc else TimeInForce.GTC,
                post_only=post_only and not ioc,
                reduce_only=reduce_only,
            )
        )
        assert sum(fill.lots for fill in fills) == order.filled_lots <= order.lots <= lots
        after = self.venue.position(account, name).lots
        assert after == before + side.sign * order.filled_lots
        if reduce_only:
            self.reduce_only.add(order.order_id)
            assert before * after >= 0
            assert abs(after) <= abs(before)

    def _nth(self, account, number):
        found = self.venue.open_orders(account)
        return found[number % len(found)].order_id if found else "none"

    def edit(self, account, number, lots, price):
        self.venue.edit(account, self._nth(account, number), lots, price)

    def cancel(self, account, number):
        self.venue.cancel(account, self._nth(account, number))


def check_orders(venue: Exchange, reduce_only: set[str]) -> None:
    """Fills, orders and positions tell one story; resting reduce-only orders fit their positions."""
    for account in ("a", "b"):
        fills = venue.fills(account)
        for name in (INVERSE, LINEAR):
            held = venue.position(account, name).lots
            assert held == sum(f.side.sign * f.lots for f in fills if f.instrument == name)
            assert held == 0 or venue.position(account, name).entry_price > 0
        for order in [*venue.open_orders(account), *venue.order_history(account)]:
            assert order.filled_lots == sum(f.lots for f in fills if f.order_id == order.order_id) <= order.lots
            assert order.commission == pytest.approx(sum(f.fee for f in fills if f.order_id == order.order_id))
            if order.order_id in reduce_only and order.state == "open":
                held = venue.position(account, order.instrument).lots
                assert held * order.side.sign < 0
                assert order.left_lots <= abs(held)
        resting = {o.order_id: o.left_lots for o in venue.open_orders(account)}
        books = [venue.contracts[name].book.entries for name in (INVERSE, LINEAR)]
        queued = {k: e.lots for b in books for k, e in b.items() if e.order is not None and e.order.account == account}
        assert queued == resting


@settings(max_examples=300, deadline=None)
@given(ops)
def test_cash_positions_fees_and_funding_always_sum(ops):
    played = Played()
    venue, before = played.venue, totals(played.venue)
    for op in ops:
        played.do(*op)
        for name in (INVERSE, LINEAR):
            assert open_lots(venue, name) == 0
            bid, ask = (venue.contracts[name].book.best(side) for side in (BUY, BUY.opposite))
            assert bid is None or ask is None or bid < ask
        assert all(abs(now - before[pool]) < 1e-9 * before[pool] for pool, now in totals(venue).items())
    check_orders(venue, played.reduce_only)
    assert played.refusals <= set(Refused.CODES)
    fees = venue.account("fees").cash
    paid = [venue.account(name).fees_paid for name in ("a", "b")]
    for pool in before:
        insurance_fees = sum(
            f.fee - _ordinary_fee(venue, f)
            for name in ("a", "b")
            for f in venue.fills(name)
            if venue.instruments[f.instrument].margin_pool == pool
        )
        assert sum(p.get(pool, 0.0) for p in paid) == pytest.approx(fees.get(pool, 0.0) + insurance_fees, abs=1e-9)


def _ordinary_fee(venue, fill):
    held = venue.contracts[fill.instrument]
    rate = held.instrument.maker_fee if fill.is_maker else held.instrument.taker_fee
    return rate * held.notional(fill.lots, fill.price_ticks * held.tick)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 20.0]))
def test_a_running_world_conserves_through_funding_liquidation_and_settlement(seed, leverage):
    scenario = replace(
        Scenario("all at once", nearest_expiry_s=6.0, settlement_window_s=3.0, funding_every_s=2),
        jumps_per_day=200_000.0,
        premium_mean_bp=30.0,
        maintenance_margin=0.019,
        options=False,
    )
    venue = Exchange(scenario, seed, START_NS)
    for name in ("a", "b"):
        venue.open_account(name, {"BTC": 1.0, "ETH": 10.0, "USDC": 50_000.0})
    before, seen, refusals = totals(venue), [], set()
    for second in range(10):
        venue.advance(START_NS + second * S)
        for k, name in enumerate(list(venue.instruments)):
            usd = 12_000.0 * leverage
            held = venue.contracts[name]
            amount = max(round(usd / (held.lot_value * (1 if held.inverse else held.mark))), 1)
            try:
                venue.place(OrderRequest("ab"[k % 2], name, BUY if (k + seed) % 3 else BUY.opposite, amount, None))
            except Refused as refused:
                refusals.add(refused.code)
        seen += venue.events()
        assert all(open_lots(venue, name) == 0 for name in venue.instruments)
        assert totals(venue) == pytest.approx(before, rel=1e-9)
    assert refusals <= {"not_enough_funds", "settlement_in_progress"}
    kinds = {type(event) for event in seen}
    assert {FundingPaid, Settled} <= kinds
    assert leverage < 1 or Liquidated in kinds
    settled = {(e.account, e.instrument): e.lots for e in seen if isinstance(e, Settled)}
    for (account, name), lots in settled.items():
        assert lots == sum(f.side.sign * f.lots for f in venue.fills(account, name))
