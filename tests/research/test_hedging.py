"""The study of hedging against closed forms of others: Whalley & Wilmott, Derman & Kamal, Leland; and its page."""

import re
from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from dea_daemon.allocator.band import hedge_band
from dea_daemon.domain.errors import InvariantViolation
from dea_daemon.domain.parameters import AllocatorParameters
from dea_daemon.research.hedging import (
    Outcome,
    Policy,
    Sold,
    World,
    band_coins,
    by_the_band,
    by_the_clock,
    cost_beside,
    figures,
    growth,
    loss,
    modified_hedge,
    run,
)
from tests.studies import hedge_band as study
from tests.studies.chart import Axis, Curve, svg

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "allocator.md").read_text()
WORLD, SOLD = World(), Sold()
SIX_HOURS, BAND = Policy("six hours", every=24), Policy("band", risk_aversion=1e-3)
SHORT = World(days=2.0)
FREE = Sold(cost=0.0)
TAU = 30.0 / 365.0


@pytest.fixture(scope="module")
def quick() -> Outcome:
    """The study's first world on 400 paths."""
    return run(WORLD, SOLD, study.policies(WORLD, SOLD, base=True), paths=study.QUICK, seed=study.SEED)


def call_delta(forward: float, iv: float) -> float:
    return NormalDist().cdf((np.log(forward / SOLD.strike) + 0.5 * iv**2 * TAU) / (iv * np.sqrt(TAU)))


def vega() -> float:
    """USD per 1.00, of the call at the money."""
    d1 = 0.5 * SOLD.iv * np.sqrt(TAU)
    return float(SOLD.forward * np.sqrt(TAU) * np.exp(-0.5 * d1**2) / np.sqrt(2.0 * np.pi))


# --- the band --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iv", [0.2, 0.6, 1.5])
def test_the_band_is_whalley_and_wilmotts(iv):
    forward, gamma = np.array([60_000.0, 100_000.0, 140_000.0]), np.array([1e-6, 2e-5, 0.0])
    aversion = np.array([[1e-5], [1e-3]])
    theirs = (1.5 * 5e-4 * forward * gamma**2 / aversion) ** (1.0 / 3.0)
    np.testing.assert_allclose(band_coins(5e-4, gamma, forward, iv, aversion), theirs, rtol=1e-12)


def test_the_band_studied_is_the_one_the_allocator_hedges_with():
    equity, gamma, forward = 1e6, 2e-5, 80_000.0
    view: Any = SimpleNamespace(
        delta_usd=np.zeros(1), equity_usd=equity, factor_usd=lambda kind: np.array([gamma * forward**2 / 100.0])
    )
    forecast: Any = SimpleNamespace(annual_vol=np.array([0.7]))
    theirs = hedge_band(view, forecast, view.delta_usd, np.array([5e-4]), AllocatorParameters(annual_vol=0.25))
    aversion = np.array([1.0 / (0.25 * equity)])
    ours = band_coins(5e-4, np.array([gamma]), np.array([forward]), 0.7, aversion) * forward
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_no_other_band_is_better_for_the_risk_aversion_that_it_is_of():
    policies = by_the_band(SOLD, (1, 10, 100, 1_000, 10_000))  # half-widths by factors of 2.15
    outcome = run(WORLD, SOLD, policies, paths=1_500, seed=3)
    for r, aversion in enumerate((10, 100, 1_000), start=1):
        losses = loss(outcome, aversion / SOLD.forward)
        assert losses[r] == min(losses)


def test_zakamoulines_delta_is_of_a_higher_volatility_and_his_band_does_not_close_without_gamma():
    aim, width = modified_hedge(SOLD, np.array([90_000.0, 1e3]), TAU, np.array([2e-5, 0.0]), 1e-4)
    plain = call_delta(90_000.0, SOLD.iv)
    raised = call_delta(90_000.0, SOLD.iv * 1.2)
    assert plain < aim[0] < raised
    assert width[1] == pytest.approx(5e-4 / (1e-4 * 1e3 * 0.36 * TAU))


# --- the hedge against closed forms ----------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3, 12])
def test_hedging_by_the_clock_strays_as_derman_and_kamal_have_it(every):
    world = World(steps_a_day=12)
    outcome = run(world, FREE, [Policy("clock", every=every)], paths=4_000, seed=5)
    known = np.sqrt(np.pi / 4.0) * vega() * SOLD.iv / np.sqrt(world.steps / every)
    assert float(outcome.pnl_usd.std()) == pytest.approx(known, rel=0.06)


@pytest.mark.parametrize("every", [1, 24])
def test_hedging_by_the_clock_costs_what_leland_has_it(every):
    outcome = run(WORLD, SOLD, [Policy("clock", every=every)], paths=1_000, seed=5)
    opened = SOLD.cost * SOLD.forward * call_delta(SOLD.forward, SOLD.iv)
    kept = SOLD.cost * np.sqrt(2.0 / (np.pi * every * WORLD.step_years)) * vega()
    assert float(outcome.cost_usd.mean()) == pytest.approx(opened + kept, rel=0.03)


@pytest.mark.parametrize("sold", [Sold(), Sold(puts=1.0), Sold(calls=0.0, puts=2.0)], ids=["call", "straddle", "puts"])
@pytest.mark.parametrize("jumps_a_year", [0.0, 50.0])
def test_nothing_is_earned_but_what_volatility_gives_and_cost_takes(jumps_a_year, sold):
    world = World(annual_vol=0.5, jumps_a_year=jumps_a_year, jump_vol=0.05, steps_a_day=8)
    total = float(np.sqrt(world.annual_vol**2 + world.jumps_a_year * world.jump_vol**2))
    fair = Sold(calls=sold.calls, puts=sold.puts, iv=total)
    outcome = run(world, fair, by_the_band(fair, (10, 300)), paths=3_000, seed=6)
    earned = outcome.pnl_usd + outcome.cost_usd
    error = earned.std(axis=1) / np.sqrt(3_000)
    assert (np.abs(earned.mean(axis=1)) < 4.0 * error).all()


def test_delta_and_gamma_are_the_slopes_of_what_is_sold():
    sold, step = Sold(calls=2.0, puts=1.0), 50.0
    worth, delta, gamma = sold.greeks(np.array([95_000.0 - step, 95_000.0, 95_000.0 + step]), TAU)
    assert (worth[2] - worth[0]) / (2.0 * step) == pytest.approx(delta[1], rel=1e-5)
    assert (delta[2] - delta[0]) / (2.0 * step) == pytest.approx(gamma[1], rel=1e-5)


def test_the_forward_is_expected_where_it_is_and_is_as_volatile_as_said():
    world = World(annual_vol=0.4, jumps_a_year=100.0, jump_vol=0.2, steps_a_day=1)
    factors = growth(world, 400_000, np.random.default_rng(1))
    assert factors.mean() == pytest.approx(1.0, abs=4.0 * factors.std() / np.sqrt(400_000))
    total = np.sqrt(0.4**2 + 100.0 * 0.2**2)
    assert np.log(factors).std() * np.sqrt(365.0) == pytest.approx(total, rel=0.01)


def test_n_coins_are_hedged_alike_at_an_nth_of_the_risk_aversion():
    one = run(SHORT, SOLD, [BAND], paths=50, seed=2)
    ten = run(SHORT, Sold(calls=10.0), [Policy("band", risk_aversion=1e-4)], paths=50, seed=2)
    np.testing.assert_allclose(ten.pnl_usd, 10.0 * one.pnl_usd, rtol=1e-9)


def test_a_seed_gives_the_same_paths_whatever_else_is_studied():
    alone = run(SHORT, SOLD, [SIX_HOURS], paths=50, seed=2)
    beside = run(SHORT, SOLD, [*by_the_clock(96), SIX_HOURS], paths=50, seed=2)
    np.testing.assert_array_equal(alone.pnl_usd[0], beside.pnl_usd[-1])
    assert (alone.pnl_usd != run(SHORT, SOLD, [SIX_HOURS], paths=50, seed=3).pnl_usd).all()


def test_nothing_to_run_is_refused():
    for policies, paths in (([], 50), ([SIX_HOURS], 1)):
        with pytest.raises(InvariantViolation):
            run(WORLD, SOLD, policies, paths=paths, seed=1)


# --- how it is traded ------------------------------------------------------------------------------------


def test_a_higher_risk_aversion_strays_less_and_costs_more(quick):
    of = figures(quick)
    at = [quick.row(f"band {a}") for a in (3, 10, 30, 100, 300, 1000)]
    assert (np.diff(of.deviation[at]) < 0).all() and (np.diff(of.cost[at]) > 0).all()
    assert (np.diff(quick.gap_coins[at]) < 0).all()


def once(*policies: Policy) -> list[float]:
    """Coins that each bought at the start, of a delta of a half."""
    dear = Sold(cost=1.0, forward=1.0, strike=1.0)  # so that the cost is what was traded
    outcome = run(World(annual_vol=1e-9, days=1e-3, steps_a_day=1_000), dear, policies, paths=2, seed=1)
    return [float(cost) for cost in outcome.cost_usd[:, 0]]


def test_a_hedge_outside_its_band_goes_to_the_edge_or_on_to_the_share_asked_for():
    share = (Policy("edge", width=0.2), Policy("half", width=0.2, inner=0.5), Policy("all", width=0.2, inner=0.0))
    assert once(*share, Policy("within", width=0.6)) == pytest.approx([0.3, 0.4, 0.5, 0.0], abs=1e-3)


def test_lots_are_whole_and_rounded_towards_less():
    lots = (Policy("a", lot=0.2), Policy("b", lot=0.6), Policy("c", width=0.1, lot=0.1))
    assert once(*lots) == pytest.approx([0.4, 0.0, 0.4], abs=1e-9)


def test_trading_on_into_the_band_takes_fewer_trades_and_costs_more(quick):
    edge, half, delta = (quick.row(name) for name in ("band 100", "to half of it 100", "to the delta 100"))
    assert quick.trades[edge] > 2 * quick.trades[half] > 2 * quick.trades[delta]
    assert quick.cost_usd[edge].mean() < quick.cost_usd[half].mean() < quick.cost_usd[delta].mean()


def test_bands_cost_about_half_of_hedging_every_six_hours_at_the_same_deviation(quick):
    ratio, error = cost_beside(quick, "every 6 hours", study.BANDS, seed=1)
    assert ratio - 2.0 * error > 0.4 and ratio + 2.0 * error < 0.7


def made(cost: list[float], deviation: list[float]) -> Outcome:
    signs = np.tile([1.0, -1.0], 50)
    pnl, paid = np.outer(deviation, signs), np.outer(cost, np.ones(100))
    names = tuple(Policy(str(n)) for n in range(len(cost)))
    return Outcome(names, 1.0, pnl, paid, np.zeros(len(cost)), np.zeros(len(cost)))


def test_costs_are_compared_at_the_same_deviation_among_the_best():
    outcome = made([6.0, 8.0, 2.0, 9.0], [2.0, 1.0, 4.0, 3.0])  # cost 8/deviation, and one that is worse in both
    ratio, error = cost_beside(outcome, "0", ["1", "2", "3"], seed=1)
    assert ratio == pytest.approx(4.0 / 6.0, rel=1e-9)
    assert error < 0.05
    assert np.isnan(cost_beside(outcome, "1", ["2", "3"], seed=1)[0])


def test_the_errors_shown_are_those_seen_when_all_is_drawn_again():
    again = [figures(run(World(steps_a_day=4), SOLD, [BAND], paths=400, seed=seed)) for seed in range(60)]
    for value, error in (("deviation", "deviation_error"), ("cost", "cost_error")):
        seen = np.std([float(getattr(one, value)[0]) for one in again], ddof=1)
        told = np.mean([float(getattr(one, error)[0]) for one in again])
        assert seen == pytest.approx(told, rel=0.3)


# --- the page --------------------------------------------------------------------------------------------


def test_the_pages_first_table_is_what_the_study_finds(quick):
    table = re.search(r"<!-- hedge-base -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)
    assert table
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table[1].strip().splitlines()[2:]]
    of = figures(quick)
    for told, deviation, cost, _, _ in lines:
        name = "every step" if told == "every 15 minutes" else told.replace(", γN", "")
        r = quick.row(name)
        found = ((deviation, of.deviation[r], of.deviation_error[r]), (cost, of.cost[r], of.cost_error[r]))
        for cell, value, error in found:
            assert float(cell.partition(" ±")[0]) == pytest.approx(value, abs=4.0 * error), (told, cell)


def test_a_page_without_the_marks_is_refused():
    assert study.written("<!-- a -->\nold\n<!-- end -->\nrest", {"a": "new"}) == "<!-- a -->\nnew\n<!-- end -->\nrest"
    with pytest.raises(ValueError, match="no marks of b"):
        study.written("<!-- a -->\n<!-- end -->", {"b": "new"})


def test_the_picture_is_by_itself_and_all_of_it_is_inside(quick):
    text = study.picture(quick)
    root = ElementTree.fromstring(text)  # noqa: S314  # our own
    _, _, width, height = (float(side) for side in root.attrib["viewBox"].split())
    dots = [node for node in root.iter() if node.tag.endswith("circle")]
    assert len(dots) == 6 + len(study.WIDTHS) + 6 + 3  # and the legend's
    assert all(0 < float(dot.attrib["cx"]) < width and 0 < float(dot.attrib["cy"]) < height for dot in dots)
    assert not re.search(r"href|url\(|<script|<image", text)


def test_a_point_outside_the_axes_is_refused():
    axis = Axis("x", 1.0, 10.0, (1, 10))
    with pytest.raises(ValueError, match="outside"):
        svg("title", "about", axis, axis, [Curve("one", "blue", np.array([2.0]), np.array([11.0]), [""])])
