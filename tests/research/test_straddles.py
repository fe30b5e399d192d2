"""Straddles sold on recorded chains: against worlds in which the right hedge is known."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.domain.surfaces import Chain
from dea_daemon.pricing import black
from dea_daemon.pricing.surface.fit import fit
from dea_daemon.pricing.surface.lattice import lattice
from dea_daemon.pricing.surface.surface import YEAR_NS
from dea_daemon.research.straddles import (
    COST,
    Policy,
    at_each_chain,
    book,
    course,
    deviation_beside,
    deviation_removed,
    mean_of,
    one_at_a_time,
    panel,
    sold_at,
)
from dea_daemon.shell.chain_files import read_chains
from tests.research.recorded_chains import UTC_NS, flat
from tests.shared_data import shared

EXPIRY_NS = UTC_NS + 40 * NS_PER_DAY
STRIKES = 70_000.0 * np.exp(np.linspace(-0.6, 0.6, 41))
BARE, BLACK, STICKY = Policy("bare", "none"), Policy("Black"), Policy("sticky", "sticky")
TILT = -0.3  # of volatility a unit of k


def level(k):
    """A smile that leans, and moves with the forward."""
    return 0.6 + TILT * np.tanh(k)


def chain(day, forward, smile=lambda k: 0.6 + 0.0 * k, strikes=STRIKES):
    """One expiry, calls and puts of every strike, bid and ask a hundredth apart around Black's price."""
    utc_ns = UTC_NS + round(day * NS_PER_DAY)
    strike, call = np.repeat(strikes, 2), np.tile([True, False], len(strikes))
    price = black.price(forward, strike, (EXPIRY_NS - utc_ns) / YEAR_NS, smile(np.log(strike / forward)), call)
    n = len(strike)
    columns = (np.full(n, EXPIRY_NS), np.full(n, forward), strike, call, 0.995 * price, 1.005 * price)
    told: list[Any] = [tuple(column.tolist()) for column in columns]
    told += [(7.0,) * n, (0.0,) * n]
    return Chain("BTC", utc_ns, (EXPIRY_NS,), *told)


def surface(of, smile=lambda k: 0.6 + 0.0 * k):
    made = flat(of)
    tau = (EXPIRY_NS - of.utc_ns) / YEAR_NS
    variance = smile(lattice(made.scale).k) ** 2 * tau
    return replace(made, smiles=(replace(made.smiles[0], variance=tuple(variance.tolist())),))


def world(forwards, smile=lambda k: 0.6 + 0.0 * k, days=0.25):
    chains = [chain(days * n, f, smile) for n, f in enumerate(forwards)]
    return panel(chains, [surface(each, smile) for each in chains])


def walk(steps, seed=3, days=0.25, vol=0.6):
    draws = np.random.default_rng(seed).standard_normal(steps - 1) * vol * np.sqrt(days / 365.0)
    return 70_000.0 * np.exp(np.append(0.0, np.cumsum(draws)))


def test_a_straddle_is_worth_a_call_and_a_put():
    told = world([70_000.0])
    m = len(STRIKES) // 2 + 3
    both = sum(black.price(70_000.0, STRIKES[m], 40 / 365, 0.6, call) for call in (True, False))
    assert told.value[0, m] == pytest.approx(both, rel=1e-12)
    assert told.iv[0, m] == pytest.approx(0.6)


def test_a_step_makes_what_the_hedge_made_less_what_the_straddle_rose_by_and_the_cost_of_both_trades():
    told = world([70_000.0, 73_000.0])
    (one, *_) = one_at_a_time(told, 30.0)
    value = [
        sum(black.price(f, told.strike[one.m], (40 - t) / 365, 0.6, call) for call in (True, False))
        for t, f in ((0.0, 70_000.0), (0.25, 73_000.0))
    ]
    held = told.delta[0, one.m]
    cost = COST * abs(held) * (70_000.0 + 73_000.0)
    assert course(told, one, BLACK).pnl[1] * value[0] == pytest.approx(held * 3_000.0 - value[1] + value[0] - cost)
    assert course(told, one, BARE).pnl[1] * value[0] == pytest.approx(value[0] - value[1])


def test_sticky_moneyness_is_the_derivative_of_what_quotes_do_when_the_smile_moves_along():
    at, up, down = (world([f], level) for f in (70_000.0, 70_070.0, 69_930.0))
    slope = (up.value[0] - down.value[0]) / 140.0
    inner = slice(8, -8)
    assert (at.delta + at.lean)[0, inner] == pytest.approx(slope[inner], abs=2e-3)
    assert np.abs(at.delta[0, 16:25] - slope[16:25]).min() > 0.03  # around the money Black's is not


def test_without_a_slope_sticky_moneyness_is_black():
    told = world(walk(20))
    assert np.abs(told.lean[np.isfinite(told.value)]).max() < 1e-6
    chains = [chain(0.25 * n, f, level) for n, f in enumerate(walk(4))]
    refused = panel(chains, [flat(each, why="refused") for each in chains])
    assert not refused.lean.any()


def test_hedging_removes_most_of_the_deviation_where_black_is_right_and_more_the_oftener():
    found = []
    for days in (1.0, 0.25):
        told = world(walk(round(35 / days), days=days), days=days)
        sold = one_at_a_time(told, 30.0)
        pnl = [book(told, sold, policy).pnl * np.sqrt(1.0 / days) for policy in (BLACK, BARE)]
        found.append(deviation_removed(*pnl, seed=1).estimate)
    assert 0.3 < found[0] < found[1] and found[1] > 0.6


def test_where_the_smile_moves_along_its_delta_beats_blacks():
    told = world(walk(400, days=0.08), level, days=0.08)
    sold = one_at_a_time(told, 30.0)
    found = deviation_beside(book(told, sold, STICKY).pnl, book(told, sold, BLACK).pnl, seed=1)
    assert found.estimate < -0.1 and found.high < 0.0


def test_a_band_trades_to_its_edge_and_less_the_wider_it_is():
    told = world(walk(100))
    (one, *_) = one_at_a_time(told, 30.0)
    turnover = [course(told, one, Policy("band", width=width)).turnover.sum() for width in (0.0, 0.05, 0.2, 10.0)]
    assert turnover[0] > turnover[1] > turnover[2] > turnover[3] == 0.0
    allocators = course(told, one, Policy("band", risk_aversion=100.0)).turnover.sum()
    assert turnover[0] > allocators > 0.0
    assert course(told, one, Policy("band", width=10.0)).pnl == pytest.approx(course(told, one, BARE).pnl)


def test_a_chain_that_does_not_quote_the_straddle_is_spanned_and_nothing_is_made_twice():
    path = walk(12)
    whole = world(path)
    (one, *_) = one_at_a_time(whole, 30.0)
    holed = whole._replace(value=whole.value.copy())
    holed.value[5, one.m] = np.nan
    bare = course(holed, one, BARE)
    assert bare.pnl[5] == 0.0
    assert bare.pnl.sum() == pytest.approx(course(whole, one, BARE).pnl.sum())


def test_what_comes_later_changes_nothing_that_was_done_before():
    told = world(walk(60), level)
    (one, *_) = one_at_a_time(told, 30.0)
    later = np.arange(60) > 30
    noisy = told._replace(
        **{
            name: np.where(later.reshape(-1, *[1] * (column.ndim - 1)), 1.1 * column, column)
            for name, column in told._asdict().items()
            if name not in ("at_ns", "expiry_ns", "strike")
        }
    )
    for policy in (BLACK, STICKY, Policy("band", width=0.1)):
        before, after = course(told, one, policy), course(noisy, one, policy)
        assert np.array_equal(before.pnl[:31], after.pnl[:31])
        assert not np.array_equal(before.pnl[31:], after.pnl[31:])


def test_one_at_a_time_do_not_overlap_and_at_each_chain_they_do():
    told = world(walk(60))
    alone, many = one_at_a_time(told, 30.0), at_each_chain(told, 30.0)
    assert all(before.last == after.first for before, after in pairwise(alone))
    assert [one.first for one in many] == list(range(59))
    assert len(book(told, many, BLACK).pnl) == 59


def test_an_expiry_far_from_the_one_wanted_is_another_straddle():
    told = world(walk(4))
    assert sold_at(told, 0, 30.0) is not None
    assert sold_at(told, 0, 7.0) is None and sold_at(told, 0, 90.0) is None


def test_intervals_hold_what_is_known():
    draws = np.random.default_rng(5).standard_normal(400)
    assert deviation_beside(draws, draws, seed=1)[:3] == pytest.approx((0.0, 0.0, 0.0))
    assert deviation_removed(0.5 * draws, draws, seed=1)[:3] == pytest.approx((0.5, 0.5, 0.5))
    known = mean_of(draws + 1.0, seed=1)
    assert known.low < 1.0 < known.high and known.high - known.low < 0.4
    pairs = deviation_beside(np.stack([2.0 * draws, 0.5 * draws]), np.stack([draws, draws]), seed=1)
    assert pairs.estimate == pytest.approx(0.0)


def test_on_recorded_chains_of_a_crash_hedging_removes_a_good_part_of_the_deviation():
    begin = 1_769_990_400_000_000_000  # 2026-02-02: the crash
    file = shared("options/deribit_chain_snapshots.parquet")
    recorded = read_chains(file, underlyings=("BTC",), from_ns=begin, to_ns=begin + 8 * NS_PER_DAY).chains
    chains = [one.chain for one in recorded]
    told = panel(chains, [fit(each) for each in chains])
    assert len(chains) > 20 and (told.lean != 0.0).any()
    sold = at_each_chain(told, 30.0)
    pnl = [book(told, sold, policy).pnl for policy in (BLACK, BARE)]
    found = deviation_removed(*pnl, seed=1)
    assert found.estimate > 1 / 3 and found.low > 0.15
