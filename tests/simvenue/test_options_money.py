"""Options and money: premiums, fees, margins by hand, payoffs, and that nothing appears or vanishes."""

import random
from dataclasses import replace

import pytest

from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.scenarios import Scenario, load
from dea_daemon.simvenue.series import option
from dea_daemon.simvenue.words import Filled, OptionQuote, OrderRequest, Refused, Settled
from tests.simvenue.venues import BUY, DEPOSITS, SELL, START_NS, S, open_lots, order, totals

EXPIRY_NS = START_NS + 3_600 * S
RULES = load("default")
INDEX = 50_000.0


def contract(settles: str, strike: int, is_call: bool):
    return option(RULES, "BTC", settles, EXPIRY_NS, strike, is_call)


def venue_with(*instruments, mark: float, vega: float = 0.0, deposits=DEPOSITS) -> Exchange:
    """Recorded options at one mark and an index of 50,000, with a deep book of one level a side around it."""
    venue = Exchange.replayed(instruments, START_NS, replace(RULES, name="by hand"))
    for name in ("a", "b"):
        venue.open_account(name, dict(deposits))
    for i in instruments:
        venue.set_mark(i.name, mark, INDEX)
        venue.set_quote(i.name, OptionQuote(0.6, 0.6, 0.6, INDEX, 0.5, 1e-5, vega, -100.0))
        ticks = i.price_to_ticks(mark)
        venue.set_level(i.name, BUY, ticks, 1_000)
        venue.set_level(i.name, SELL, ticks + 5, 1_000)
    return venue


CALL, PUT = contract("BTC", 55_000, True), contract("BTC", 48_000, False)
USDC_CALL = contract("USDC", 52_000, True)


def test_a_premium_is_cash_at_the_trade_and_equity_holds_the_option_at_its_mark():
    venue = venue_with(CALL, mark=0.02)
    order(venue, BUY, 30, None, instrument=CALL.name)  # 3 coins at 0.0205
    fee = 3 * 0.0003
    summary = venue.summary("a", "BTC")
    assert summary.cash == pytest.approx(10.0 - 3 * 0.0205 - fee)
    assert summary.options_value == pytest.approx(3 * 0.02)
    assert summary.equity == pytest.approx(summary.cash + 0.06)
    assert (summary.unrealised_pnl, summary.initial_margin) == (0.0, 0.0)
    assert summary.options_delta == pytest.approx(1.5)
    assert summary.delta_total == pytest.approx(3 * (0.5 - 0.02))
    assert summary.equity + summary.delta_total == pytest.approx(summary.cash + summary.options_delta)
    assert venue.position("a", CALL.name).entry_price == pytest.approx(0.0205)
    order(venue, SELL, 10, None, instrument=CALL.name)
    assert venue.position("a", CALL.name).realised_pnl == pytest.approx(1 * (0.02 - 0.0205))
    assert venue.summary("a", "BTC").cash == pytest.approx(10.0 - 3 * 0.0205 + 0.02 - fee - 0.0003)


@pytest.mark.parametrize(
    ("instrument", "mark", "fee"),
    [(CALL, 0.02, 0.0003), (CALL, 0.001, 0.125 * 0.0015), (USDC_CALL, 500.0, 15.0), (USDC_CALL, 50.0, 0.125 * 75.0)],
)
def test_a_fee_is_of_the_underlying_and_capped_by_the_premium(instrument, mark, fee):
    venue = venue_with(instrument, mark=mark)
    lots = round(1.0 / instrument.lot_value)
    order(venue, BUY, lots, None, instrument=instrument.name)
    assert venue.fills("a")[0].fee == pytest.approx(fee)


@pytest.mark.parametrize(
    ("instrument", "mark", "initial", "maintenance"),
    [
        (CALL, 0.02, 0.10 + 0.02, 0.075 + 0.02),  # 10 % out of the money
        (contract("BTC", 51_000, True), 0.02, 0.13 + 0.02, 0.075 + 0.02),
        (contract("BTC", 40_000, True), 0.22, 0.15 + 0.22, 0.075 + 0.22),
        (PUT, 0.02, 0.11 + 0.02, 0.075 + 0.02),
        (contract("BTC", 200_000, False), 3.0, 0.225 + 3.0, 0.225 + 3.0),  # maintenance is the larger
        (USDC_CALL, 1_000.0, 0.11 * INDEX + 1_000.0, 0.075 * INDEX + 1_000.0),
    ],
)
def test_a_short_needs_a_share_of_the_index_and_its_mark_and_a_long_nothing(instrument, mark, initial, maintenance):
    venue = venue_with(instrument, mark=mark)
    held = venue.contracts[instrument.name]
    lots = round(2.0 / instrument.lot_value)
    assert venue.margin.initial(held, -lots) == pytest.approx(2 * initial)
    assert venue.margin.maintenance(held, -lots) == pytest.approx(2 * maintenance)
    assert venue.margin.initial(held, lots) == venue.margin.maintenance(held, lots) == 0.0


def test_orders_count_at_their_worst_and_buying_needs_the_premium():
    venue = venue_with(CALL, mark=0.02, deposits={"BTC": 1.0})
    order(venue, SELL, 30, 210, instrument=CALL.name)
    order(venue, BUY, 20, 190, instrument=CALL.name)
    summary = venue.summary("a", "BTC")
    assert summary.initial_margin == pytest.approx(3 * 0.12 + 2 * 0.019)
    with pytest.raises(Refused, match="not_enough_funds"):
        order(venue, SELL, 60, 210, instrument=CALL.name)
    with pytest.raises(Refused, match="not_enough_funds"):
        order(venue, BUY, 400, 190, instrument=CALL.name)
    for resting in venue.open_orders("a"):
        venue.cancel("a", resting.order_id)
    order(venue, SELL, 30, None, instrument=CALL.name)
    order(venue, BUY, 30, 190, instrument=CALL.name)  # closes the short: no premium on top
    assert venue.summary("a", "BTC").initial_margin == pytest.approx(3 * 0.12)


def test_the_price_band_is_a_quarter_of_the_mark_or_ten_points_of_volatility():
    for vega, wide in ((0.0, 0.005), (50.0, 0.01)):
        venue = venue_with(CALL, mark=0.02, vega=vega)
        assert venue.band(venue.contracts[CALL.name]) == pytest.approx((0.02 - wide, 0.02 + wide))
        with pytest.raises(Refused, match="price_too_far"):
            order(venue, BUY, 1, CALL.price_to_ticks(0.0205 + wide), instrument=CALL.name)
        with pytest.raises(Refused, match="price_too_far"):
            order(venue, SELL, 1, CALL.price_to_ticks(0.0195 - wide), instrument=CALL.name)


@pytest.mark.parametrize(
    ("instrument", "mark", "price", "payoff", "fee"),
    [
        (CALL, 0.02, 60_000.0, 5_000 / 60_000, 0.00015),
        (CALL, 0.02, 55_000.0, 0.0, 0.0),
        (CALL, 0.02, 55_020.0, 20 / 55_020, 0.125 * 20 / 55_020),
        (PUT, 0.02, 40_000.0, 8_000 / 40_000, 0.00015),
        (PUT, 0.02, 49_000.0, 0.0, 0.0),
        (USDC_CALL, 1_000.0, 60_000.0, 8_000.0, 9.0),
        (USDC_CALL, 1_000.0, 52_040.0, 40.0, 5.0),
    ],
)
def test_an_expiry_pays_the_payoff_less_a_capped_fee_to_both_sides_once(instrument, mark, price, payoff, fee):
    venue, before = venue_with(instrument, mark=mark), None
    lots, pool = round(2.0 / instrument.lot_value), instrument.margin_pool
    before = totals(venue)
    order(venue, BUY, lots, None, instrument=instrument.name)
    order(venue, SELL, lots, None, account="b", instrument=instrument.name)
    cash = {name: venue.summary(name, pool).cash for name in "ab"}
    entry = venue.position("a", instrument.name).entry_price
    venue.set_time(EXPIRY_NS)
    venue.events()
    venue.end_contract(venue.contracts[instrument.name], price)
    assert venue.summary("a", pool).cash - cash["a"] == pytest.approx(2 * (payoff - fee), abs=1e-9)
    assert venue.summary("b", pool).cash - cash["b"] == pytest.approx(2 * (-payoff - fee), abs=1e-9)
    assert totals(venue) == pytest.approx(before, rel=1e-12)
    (settled,) = venue.settlements("a", pool)
    assert next(e for e in venue.events() if isinstance(e, Settled)) == settled
    assert (settled.lots, settled.settlement_price, settled.pool) == (lots, price, pool)
    assert settled.mark_price == pytest.approx(payoff)
    assert settled.cash == pytest.approx(2 * payoff)
    assert settled.pnl == pytest.approx(2 * (payoff - entry))
    assert settled.fee == pytest.approx(2 * fee)
    assert venue.settlements("a", "ETH") == venue.settlements("a", pool, EXPIRY_NS + 1) == []
    assert venue.positions("a") == []


def test_a_short_that_moved_against_it_is_bought_back():
    venue = venue_with(CALL, mark=0.02, deposits={"BTC": 1.0})
    order(venue, SELL, 70, None, instrument=CALL.name)
    assert venue.position("a", CALL.name).lots == -70
    for _ in range(40):
        venue.set_level(CALL.name, SELL, 900, 1_000)
        venue.set_mark(CALL.name, 0.09, 56_000.0)
    held = venue.position("a", CALL.name).lots
    assert -70 < held < 0
    assert not venue.margin.is_short(venue.account("a"), "BTC")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_running_world_with_options_conserves_through_trades_and_an_expiry(seed):
    draw = random.Random(seed)
    scenario = replace(load("options"), nearest_expiry_s=4.0, settlement_window_s=2.0, option_strikes=7)
    venue = Exchange(scenario, seed, START_NS)
    for name in ("a", "b"):
        venue.open_account(name, {"BTC": 5.0, "ETH": 50.0, "USDC": 200_000.0})
    before, seen = totals(venue), []
    for second in range(1, 7):
        venue.advance(START_NS + second * S)
        names = list(venue.instruments)
        for k in range(60):
            name = names[draw.randrange(len(names))]
            side = draw.choice([BUY, SELL])
            lots = draw.randint(1, 20)
            book = venue.book(name, 1)
            resting = book.bids if side is BUY else book.asks
            ticks = resting[0][0] if resting and draw.random() < 0.5 else None
            try:
                venue.place(OrderRequest("ab"[k % 2], name, side, lots, ticks))
            except Refused as refused:
                assert refused.code in {"not_enough_funds", "self_trade", "price_too_far"}  # noqa: PT017
        seen += venue.events()
        assert all(open_lots(venue, name) == 0 for name in venue.instruments)
        assert totals(venue) == pytest.approx(before, rel=1e-9)
    assert any(isinstance(e, Filled) and e.fill.instrument.endswith(("C", "P")) for e in seen)
    for settled in (e for e in seen if isinstance(e, Settled)):
        fills = venue.fills(settled.account, settled.instrument)
        assert settled.lots == sum(f.side.sign * f.lots for f in fills)


def test_a_scenario_without_options_lists_none_and_one_without_coins_neither():
    assert not any(i.strike for i in Exchange(replace(RULES, options=False), 1, START_NS).instruments.values())
    assert Exchange.replayed([CALL], START_NS, Scenario("empty", coins={})).instruments == {CALL.name: CALL}
