"""The hours before the venue opened: as if it had been there."""

from dataclasses import replace

import numpy as np
import pytest

from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.history import HOURS_BEFORE
from dea_daemon.simvenue.process import prices_before
from dea_daemon.simvenue.scenarios import load

HOUR_NS = 3_600 * 10**9
START_NS = 1_790_000_000 * 10**9
PERPETUAL, LINEAR = "BTC-PERPETUAL", "BTC_USDC-PERPETUAL"


def venue(scenario: str = "default", seed: int = 7) -> Exchange:
    return Exchange(load(scenario), seed, START_NS)


def closes(of: Exchange, name: str = PERPETUAL) -> np.ndarray:
    return np.array([candle[4] for candle in of.candles(name, 0, START_NS // HOUR_NS * HOUR_NS - 1, 3_600)])


def test_thirty_two_days_of_whole_hours_end_with_the_last_before_the_start():
    candles = venue().candles(PERPETUAL, 0, START_NS // HOUR_NS * HOUR_NS - 1, 3_600)
    last = START_NS // HOUR_NS * HOUR_NS - HOUR_NS
    assert [candle[0] for candle in candles] == [last - n * HOUR_NS for n in range(767, -1, -1)]
    for _, opened, high, low, close, amount in candles:
        assert low == min(opened, close) and high == max(opened, close) and amount > 0.0
    assert [candle[4] for candle in candles[:-1]] == [candle[1] for candle in candles[1:]]


def test_a_seed_has_one_past_and_another_seed_another():
    assert np.array_equal(closes(venue(seed=7)), closes(venue(seed=7)))
    assert not np.array_equal(closes(venue(seed=7)), closes(venue(seed=8)))


def test_asking_for_the_past_moves_no_price_to_come():
    asked, left_alone = venue(), venue()
    asked.candles(PERPETUAL, 0, START_NS, 3_600)
    for one in (asked, left_alone):
        one.advance(START_NS + 5 * 10**9)
    assert asked.ticker(PERPETUAL) == left_alone.ticker(PERPETUAL)
    assert closes(asked)[-1] == closes(left_alone)[-1]  # nor does time that passes move the past


def test_it_leads_to_the_price_the_venue_opens_at():
    start = load("default").coins["BTC"].start_price
    an_hour = 0.55 / np.sqrt(365 * 24)
    ends = [prices_before(load("default"), seed, 24)["BTC"][-1] for seed in range(20)]
    assert all(abs(np.log(price / start)) < 8 * an_hour for price in ends) and len(set(ends)) == 20
    assert closes(venue())[-1] == prices_before(load("default"), 7, HOURS_BEFORE)["BTC"][-1]


@pytest.mark.parametrize("scenario", ["default", "calm", "volatile", "crash"])
def test_its_volatility_is_the_scenarios(scenario):
    wanted = load(scenario).coins["BTC"].annual_vol
    paths = [prices_before(load(scenario), seed, HOURS_BEFORE)["BTC"] for seed in range(8)]
    moves = np.diff(np.log(paths)).ravel()
    assert np.sqrt(np.mean(moves**2) * 365 * 24) == pytest.approx(wanted, rel=0.15)
    assert abs(np.mean(moves)) < 4 * wanted / np.sqrt(365 * 24 * moves.size)  # a crash has not begun


def test_its_coins_move_together():
    path = prices_before(load("calm"), 7, HOURS_BEFORE)
    btc, eth = (np.diff(np.log(path[coin])) for coin in ("BTC", "ETH"))
    assert np.corrcoef(btc, eth)[0, 1] == pytest.approx(0.85, abs=0.06)


def test_a_coin_has_one_past_whatever_its_contract_settles_in():
    one = venue()
    assert np.array_equal(closes(one), closes(one, LINEAR))
    inverse, linear = (one.candles(name, 0, START_NS, 3_600)[0][5] for name in (PERPETUAL, LINEAR))
    assert linear == pytest.approx(inverse / closes(one)[0])  # dollars and coins


def test_what_is_dated_or_recorded_or_of_minutes_has_none():
    one = venue()
    future = next(i for i in one.instruments.values() if i.expiry_ns and i.kind == "future")
    before = START_NS // HOUR_NS * HOUR_NS - 1
    assert one.candles(future.name, 0, before, 3_600) == []
    assert one.candles(PERPETUAL, 0, before, 60) == []
    recorded = Exchange.replayed([one.instruments[PERPETUAL]], START_NS)
    assert recorded.candles(PERPETUAL, 0, before, 3_600) == []


def test_hours_that_are_traded_follow_those_before_without_a_hole():
    short = replace(load("calm"), step_ms=60_000, options=False)
    one = Exchange(short, 7, START_NS)
    one.advance(START_NS + 3 * HOUR_NS)
    begins = [candle[0] for candle in one.candles(PERPETUAL, 0, one.now_ns, 3_600)]
    assert begins == list(range(begins[0], one.now_ns, HOUR_NS)) and len(begins) == 768 + 4
