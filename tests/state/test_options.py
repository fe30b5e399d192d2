"""Options in the core: what they are exposed to, whatever the venue says of them, and until they are gone."""

import math

import numpy as np
import pytest

from dea_daemon.domain.commands import QueryAccount, QueryInstruments
from dea_daemon.domain.decisions import IvSource
from dea_daemon.domain.events import (
    DecisionDue,
    InstrumentsListed,
    ListingChanged,
    MarkUpdated,
    OptionUpdated,
    QuoteUpdated,
    Settlement,
)
from dea_daemon.domain.instruments import AccountKey, Instrument, Kind, Payoff, Universe
from dea_daemon.pricing import black
from dea_daemon.state.market import Market
from dea_daemon.state.view import build_view
from tests.house import BTC_PERP, INSTRUMENTS, START_NS, Run, S, creates, instrument, parameters

DAY = 86_400 * S
EXPIRY_NS = START_NS + 10 * DAY
YEARS = 10 / 365
STRIKES = (70_000.0, 75_000.0, 80_000.0, 85_000.0, 90_000.0)
FIRST = len(INSTRUMENTS)  # the row of the first option
ATM_CALL, ATM_PUT = FIRST + 4, FIRST + 5
SMILE = 0.6


def option(strike: float, call: bool, expiry_ns: int = EXPIRY_NS, name: str = "") -> Instrument:
    kind = "C" if call else "P"
    return instrument(
        name or f"BTC-2OCT26-{strike:.0f}-{kind}", "BTC", Payoff.LINEAR, "0.1", "0.0001", kind=Kind.OPTION,
        quote_currency="BTC", settle_currency="BTC", margin_pool="BTC", expiry_ns=expiry_ns, strike=strike,
        is_call=call, taker_fee=0.0003, fee_cap=0.125,
    )  # fmt: skip


CHAIN = tuple(option(strike, call) for strike in STRIKES for call in (True, False))
WIDE: dict[str, object] = {"max_instrument_usd": 10e6, "max_gross_usd": 10e6, "max_net_usd": 10e6, "max_order_usd": 1e6}


class Desk(Run):
    """A run with a small chain, whose quotes come by ticker as the live feed brings them."""

    def __init__(self, target: float = 0.0, chain=CHAIN, **sections) -> None:
        target_of = {"targets": {"BTC": {"kind": "fixed", "delta_usd": target, "band_usd": 5_000}}}
        sections["allocator"] = target_of | sections.get("allocator", {})
        super().__init__(parameters(guards=WIDE, **sections))
        self.pools = {"BTC": 5.0, "USDC": 100_000.0}
        self.forward = 80_000.0
        self.rows = [*INSTRUMENTS]
        self.utc_shift_ms = 0
        self.feed(InstrumentsListed(self.now_ns, 0, tuple(chain)))
        self.rows += chain
        self.skip: set[int] = set()

    def quote(self, spread: float = 2.0, amount: float = 1e6) -> None:
        super().quote(spread, amount)
        for row, contract in enumerate(self.rows):
            if contract.kind is Kind.OPTION and row not in self.skip:
                self.ticker(row)

    def ticker(self, row: int, *, bid=None, ask=None, iv=SMILE, delta=None, forward=None) -> None:
        contract = self.rows[row]
        forward = self.forward if forward is None else forward
        tau = max(contract.expiry_ns - self.now_ns, 1_800 * S) / (365 * DAY)
        g = black.greeks(forward, contract.strike, tau, SMILE, contract.is_call)
        price = float(g.price) / forward
        tick = float(contract.tick_size)
        bid = math.floor(price / tick) * tick if bid is None else bid
        ask = math.ceil(price / tick + 1e-9) * tick if ask is None else ask
        self.feed(
            MarkUpdated(self.now_ns, self.now_ns, row, price, self.prices["BTC"]),
            QuoteUpdated(self.now_ns, self.now_ns, row, bid, 10.0, ask, 10.0),
            OptionUpdated(
                self.now_ns, self.now_ns, row, iv, math.nan, math.nan, forward,
                float(g.delta) if delta is None else delta, float(g.gamma), float(g.vega) / 100.0,
                float(g.theta) / 365.0,
            ),
        )  # fmt: skip

    @property
    def view(self):
        due = DecisionDue(self.now_ns, self.now_ns, "look")
        return build_view(self.state.account, self.state.market, self.state.factors, due, 0, 0, self.state.effects)


def test_a_straddle_and_its_coins_are_worth_what_the_exposure_says():
    desk = Desk()
    desk.positions = {ATM_CALL: -100, ATM_PUT: -100}  # ten coins each
    desk.settle()
    v = desk.view
    g = {row: black.greeks(80_000.0, 80_000.0, YEARS, v.iv[row], row == ATM_CALL) for row in (ATM_CALL, ATM_PUT)}
    per_coin = sum(float(x.delta) - float(x.price) / 80_000.0 for x in g.values())
    assert v.delta_usd[0] == pytest.approx(80_000.0 * (5.0 - 10.0 * per_coin), rel=1e-9)
    gamma = v.exposure_usd[v.factors.first("gamma")]
    assert gamma == pytest.approx(-20.0 * 80_000.0**2 * float(g[ATM_CALL].gamma) / 100.0, rel=1e-6)
    assert v.exposure_usd[v.factors.first("vega", 2)] < 0.0  # ten days: the bucket up to thirty
    assert abs(v.iv[ATM_CALL] - SMILE) < 0.005 and v.iv_source[ATM_CALL] == IvSource.QUOTES


def test_black_beside_cash_and_premium_adjusted_beside_equity_have_the_same_totals():
    total = []
    for convention in ("premium_adjusted", "black"):
        desk = Desk(pricing={"delta_convention": convention})
        desk.positions = {ATM_CALL: -100, ATM_PUT: 50, BTC_PERP: 3_000}
        desk.settle()
        total.append(desk.view)
    np.testing.assert_allclose(total[0].exposure_usd, total[1].exposure_usd, rtol=1e-12)
    assert total[0].exposure_base_usd[0] != total[1].exposure_base_usd[0]


def test_an_option_book_is_hedged_with_perpetuals_and_not_with_options():
    desk = Desk(target=400_000.0)
    desk.positions = {ATM_CALL: 100}  # five coins' worth of delta
    desk.settle()
    orders = creates(desk.decide())
    assert orders and all(desk.rows[o.row].kind is not Kind.OPTION for o in orders)
    assert all(o.side.sign < 0 for o in orders)


BAD = {
    "zero": dict(bid=0.0, ask=0.0),
    "crossed": dict(bid=0.06, ask=0.04),
    "below intrinsic": dict(bid=0.0001, ask=0.0002),
    "nan": dict(bid=math.nan, ask=math.nan),
    "no bid": dict(bid=math.nan),
    "no ask": dict(ask=math.nan),
    "infinite": dict(bid=0.01, ask=math.inf),
    "huge": dict(bid=5.0, ask=6.0),
    "a mile wide": dict(bid=0.0001, ask=0.9),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_quote_gives_way_to_the_venues_mark_and_never_makes_an_exposure_nan(what):
    desk = Desk()
    row = FIRST  # deep in the money call, so that little is below its worth
    desk.positions = {row: 100}
    desk.settle()
    before = desk.view.exposure_usd
    desk.skip = {row}
    desk.pass_time(100)
    desk.quote()
    desk.ticker(row, **BAD[what])
    v = desk.view
    assert v.iv_source[row] == IvSource.MARK and not v.modelled[row]
    np.testing.assert_allclose(v.exposure_usd, before, rtol=0.05, atol=2_000.0)


def test_without_mark_or_quotes_the_last_volatility_serves_then_the_neighbours_then_the_prior():
    desk = Desk(pricing={"keep_iv_s": 60.0})
    desk.positions = {ATM_CALL: 100}
    desk.settle()
    desk.skip = {ATM_CALL}
    seen = []
    v = desk.view
    for _ in range(9):
        desk.pass_time(10_000)
        desk.quote()
        v = desk.view
        seen.append(IvSource(int(v.iv_source[ATM_CALL])))
        assert np.isfinite(v.exposure_usd).all()
    assert seen[0] is IvSource.QUOTES and IvSource.LAST in seen and seen[-1] is IvSource.NEIGHBOUR
    assert abs(v.iv[ATM_CALL] - SMILE) < 0.01 and v.modelled[ATM_CALL]
    desk.skip = set(range(FIRST, FIRST + len(CHAIN)))
    for _ in range(9):
        desk.pass_time(10_000)
        desk.quote()
    v = desk.view
    assert v.iv_source[ATM_CALL] == IvSource.PRIOR and np.isfinite(v.exposure_usd).all()


def test_with_modelled_greeks_exposure_may_only_come_down_and_it_is_said():
    desk = Desk(target=400_000.0)
    desk.positions = {ATM_CALL: -100}  # short delta: hedging it buys
    desk.settle()
    assert creates(desk.decide())
    desk = Desk(target=1_000_000.0)  # more than there is: buying makes it grow
    desk.positions = {ATM_CALL: -10}
    desk.settle()
    desk.skip = {ATM_CALL}
    desk.pass_time(20_000)
    desk.report()
    decision = desk.decide()
    assert not creates(decision)
    assert "greeks.modelled" in [note.event for note in decision.notes]


def test_a_venue_whose_greeks_contradict_ours_is_noted_and_its_underlying_only_shrinks():
    desk = Desk(target=1_000_000.0)
    desk.positions = {ATM_CALL: -10}
    desk.settle()
    desk.skip = {ATM_CALL}
    said: list[str] = []
    decision = desk.decide()
    for _ in range(50):
        desk.pass_time(100)
        desk.ticker(ATM_CALL, delta=0.9)
        decision = desk.decide()
        said += [note.event for note in decision.notes]
    assert "greeks.diverged" in said
    assert desk.view.greeks_off[ATM_CALL] and not creates(decision)
    desk.pass_time(100)
    desk.ticker(ATM_CALL)
    assert "greeks.agreed" in [note.event for note in desk.decide().notes]


def test_a_smile_that_falls_with_the_strike_lowers_a_sticky_moneyness_delta_or_raises_it():
    deltas, vega = {}, 0.0
    for kind in ("black", "sticky_moneyness"):
        desk = Desk(pricing={"smile_delta": kind})
        desk.settle()
        skew = {strike: SMILE - 0.5 * math.log(strike / 80_000.0) for strike in STRIKES}
        desk.skip = set(range(FIRST, FIRST + len(CHAIN)))
        desk.pass_time(100)
        desk.quote()
        for row in desk.skip:
            desk.ticker(row, bid=math.nan, iv=skew[desk.rows[row].strike])
        v = desk.view
        deltas[kind] = float(v.delta_per_lot[ATM_CALL])
        vega = float(black.greeks(80_000.0, 80_000.0, YEARS, v.iv[ATM_CALL], True).vega)
    # Δ = Δ_BS − ν (∂σ/∂k)/F, a lot is a tenth of a coin
    assert deltas["sticky_moneyness"] - deltas["black"] == pytest.approx(0.1 * vega * 0.5, rel=0.02)


def test_in_the_settlement_window_delta_fades_with_what_is_left_of_the_average():
    near = tuple(
        option(s, c, START_NS + DAY, f"BTC-NEAR-{s:.0f}-{'C' if c else 'P'}") for s in STRIKES for c in (True, False)
    )
    desk = Desk(chain=near)
    desk.pools = {"USDC": 100_000.0}
    desk.positions = {FIRST: 100}  # the 70,000 call: all delta
    desk.settle()
    shares = []
    for left_s in (3_600, 1_800, 900, 300, 1):
        desk.now_ns = START_NS + DAY - left_s * S
        desk.quote()
        shares.append(float(desk.view.delta_usd[0]) / (10 * 80_000.0 * (1.0 - 0.125)))
    np.testing.assert_allclose(shares, [1.0, 1.0, 0.5, 1 / 6, 1 / 1800], rtol=0.01)
    desk.now_ns = START_NS + DAY + S
    desk.quote()
    assert desk.view.delta_usd[0] == 0.0  # what is settled moves no more


def test_a_delivered_option_is_asked_for_and_removed_once():
    desk = Desk(chain=tuple(option(s, True, START_NS + DAY, f"BTC-NEAR-{s:.0f}-C") for s in STRIKES))
    desk.positions = {FIRST: 100}
    desk.settle()
    desk.now_ns = START_NS + DAY + S
    asked = [c for c in desk.decide().commands if isinstance(c, QueryAccount)]
    assert asked and 0 < asked[0].settled_since_ms * 1_000_000 < START_NS + DAY
    desk.positions = {}
    desk.report(settlements=(Settlement(0, FIRST, START_NS + DAY, 100, 80_000.0, 1.25, "BTC"),))
    assert desk.state.account.position_lots[FIRST] == 0
    assert [proof for _, proof in desk.state.account.deliveries.new] == ["venue record"]


def test_a_pinned_option_is_closed_or_held_with_a_wider_band_as_configured():
    chain = tuple(
        option(s, c, START_NS + DAY, f"BTC-NEAR-{s:.0f}-{'C' if c else 'P'}") for s in STRIKES for c in (True, False)
    )
    for rule, closes in (("reduce", True), ("hold", False)):
        desk = Desk(target=400_000.0, chain=chain, allocator={"pinned": rule})
        desk.positions = {ATM_CALL: -20}
        desk.now_ns = START_NS + DAY - 3_000 * S
        desk.settle()
        decision = desk.decide()
        assert [o.row for o in creates(decision) if o.row == ATM_CALL] == ([ATM_CALL] if closes else [])
        assert decision.record is not None and decision.record.factors[0].band_usd == pytest.approx(
            5_000.0 + 0.5 * 2.0 * 80_000.0
        )


def test_a_listing_is_asked_for_when_announced_and_its_contracts_join_behind_the_others():
    desk = Desk()
    desk.settle()
    desk.decide()
    assert not [c for c in desk.decide().commands if isinstance(c, QueryInstruments)]
    desk.feed(ListingChanged(desk.now_ns, 0, "BTC-9OCT26-80000-C", "created"))
    desk.pass_time(3_000)
    assert QueryInstruments(0) in desk.decide().commands
    assert QueryInstruments(0) not in desk.decide().commands  # one question at a time
    before = len(desk.rows)
    new = option(80_000.0, True, EXPIRY_NS + 7 * DAY, "BTC-9OCT26-80000-C")
    desk.feed(InstrumentsListed(desk.now_ns, 0, (new,)))
    desk.rows.append(new)
    desk.positions = {before: 10}
    desk.report()
    desk.pass_time(10)
    desk.report()
    desk.decide()
    v = desk.view
    assert len(v.universe) == before + 1 and v.iv_source[before] == IvSource.QUOTES
    assert v.universe.series[before] == v.universe.series_count - 1


def test_what_never_ends_is_valued_alike_with_or_without_contracts_that_end_beside_it():
    account, spot = AccountKey("deribit", "main"), {"BTC": 80_000.0, "ETH": 3_000.0}
    values = []
    for rows in (INSTRUMENTS, tuple(i for i in INSTRUMENTS if not i.expiry_ns)):
        universe = Universe((account,), tuple((0, i) for i in rows))
        index = np.array([spot[i.underlying] for i in rows])
        market = Market(universe, parameters())
        fresh = np.ones(len(rows), dtype=np.bool_)
        # The first makes what the second finds.
        _, valued = (market.options.value(market, 0, 0, index, fresh) for _ in range(2))
        values.append([column[universe.expiry_ns == 0] for column in valued])
    assert len(values[1][0]) < len(INSTRUMENTS)
    assert all(np.array_equal(one, other, equal_nan=True) for one, other in zip(*values, strict=True))
