"""A contract's own risk: found where there is any, floored where not, and no mark that is stale or absurd makes it."""

import dataclasses

import numpy as np
import pytest
from msgspec.structs import replace

from dea_daemon.domain.instruments import Kind, Universe
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters
from dea_daemon.forecast import volatility
from dea_daemon.forecast.residual import FLOOR_SHARE, PRIOR_SHARE, ResidualMemory, observe, residual_variance
from tests.guards.views import ACCOUNTS, CHAIN, SPOT, UNIVERSE, WITH_OPTIONS, view
from tests.house import INSTRUMENTS, START_NS

PARAMS = ForecastParameters()
STEP_NS = 300 * NS_PER_S
VARIANCE = np.array([1e-3, 2e-3])  # of the underlyings, 1/day
EACH = VARIANCE[UNIVERSE.underlying]
V = view()


def learned(ratios, memory=None, fresh=None, universe=UNIVERSE, first=0):
    """The memory after a grid point for each of `ratios` [T, N], marks over index."""
    memory = memory or ResidualMemory()
    base = view(universe=universe, mark=SPOT[universe.underlying])
    for k, ratio in enumerate(ratios):
        spot = base.underlying_price * (1.0 + 0.001 * (k % 7))  # the underlyings' own moves are none of it
        seen = dataclasses.replace(
            base, now_ns=START_NS + (first + k) * STEP_NS, underlying_price=spot,
            mark_price=spot[universe.underlying] * ratio, fresh=base.fresh if fresh is None else fresh[k],
        )  # fmt: skip
        observe(memory, seen, VARIANCE, PARAMS)
    return memory


def basis(daily, steps=3_000, seed=1):
    """[steps, 4] ratios that walk with these daily volatilities [4]."""
    z = np.random.default_rng(seed).standard_normal((steps, 4))
    return np.exp(np.cumsum(np.asarray(daily) / np.sqrt(288.0) * z, axis=0))


def test_the_variance_of_a_basis_that_walks_is_found():
    daily = np.array([0.010, 0.015, 0.020, 0.030])
    found = residual_variance(learned(basis(daily)), UNIVERSE, VARIANCE, PARAMS)
    assert np.sqrt(found) == pytest.approx(daily, rel=0.1)


def test_a_contract_that_follows_its_index_keeps_the_floor_and_an_unseen_one_the_prior():
    found = residual_variance(learned(np.ones((3_000, 4))), UNIVERSE, VARIANCE, PARAMS)
    assert found == pytest.approx(FLOOR_SHARE * EACH, rel=0.1) and (found >= FLOOR_SHARE * EACH).all()
    assert residual_variance(ResidualMemory(), UNIVERSE, VARIANCE, PARAMS) == pytest.approx(PRIOR_SHARE * EACH)


def test_one_absurd_mark_is_one_large_change():
    ratios = basis([0.010] * 4)
    clean = residual_variance(learned(ratios), UNIVERSE, VARIANCE, PARAMS)
    ratios[1_500, 0] *= 5.0
    spoilt = residual_variance(learned(ratios), UNIVERSE, VARIANCE, PARAMS)
    assert 1.0 < spoilt[0] / clean[0] < 1.2
    assert (spoilt[1:] == clean[1:]).all()


def test_marks_that_are_not_fresh_or_not_there_are_passed_over():
    ratios = basis([0.010] * 4)
    fresh = np.ones(ratios.shape, dtype=bool)
    ratios[1_000:1_100, 1], fresh[1_000:1_100, 1] = 3.0, False
    ratios[2_000:2_100, 2] = np.nan
    found = residual_variance(learned(ratios, fresh=fresh), UNIVERSE, VARIANCE, PARAMS)
    assert found == pytest.approx(np.full(4, 1e-4), rel=0.2)
    ratios[1_000:1_100, 1] = np.nan
    assert (residual_variance(learned(ratios), UNIVERSE, VARIANCE, PARAMS) == found).all()


def test_a_contract_quoted_in_a_stablecoin_does_not_move_with_the_stablecoin():
    memory, peg = ResidualMemory(), 1.0
    for k in range(1_000):
        peg *= 1.0 + 0.001 * (-1) ** k
        seen = dataclasses.replace(V, now_ns=START_NS + k * STEP_NS, peg=np.full(4, peg), mark_price=V.mark_price / peg)
        observe(memory, seen, VARIANCE, PARAMS)
    assert residual_variance(memory, UNIVERSE, VARIANCE, PARAMS) == pytest.approx(FLOOR_SHARE * EACH, rel=0.2)


def test_options_and_spot_have_none():
    spot = replace(INSTRUMENTS[0], name="BTC_USDT", kind=Kind.SPOT)
    universe = Universe(ACCOUNTS, tuple((0, i) for i in (*INSTRUMENTS, spot, *CHAIN)))
    found = residual_variance(ResidualMemory(), universe, VARIANCE, PARAMS)
    assert (found[universe.option | universe.spot] == 0.0).all() and (found[:4] > 0.0).all()


def test_contracts_listed_while_it_runs_begin_at_the_prior_and_the_others_go_on():
    ratios = basis([0.010] * 4, 800)
    memory = learned(ratios)
    before = residual_variance(memory, UNIVERSE, VARIANCE, PARAMS)
    grown = residual_variance(memory, WITH_OPTIONS, VARIANCE, PARAMS)
    assert (grown[:4] == before).all() and (grown[4:] == 0.0).all()
    later = replace(INSTRUMENTS[0], name="BTC-NEW")
    universe = Universe(ACCOUNTS, tuple((0, i) for i in (*INSTRUMENTS, later)))
    assert residual_variance(memory, universe, VARIANCE, PARAMS)[4] == pytest.approx(PRIOR_SHARE * VARIANCE[0])
    rest = np.column_stack([np.tile(ratios[-1], (500, 1)), basis([0.02] * 4, 500, 2)[:, 0]])
    memory = learned(rest, memory, universe=universe, first=800)
    found = residual_variance(memory, universe, VARIANCE, PARAMS)
    assert (found[:4] < before).all() and np.sqrt(found[4]) == pytest.approx(0.02, rel=0.15)


def test_the_forecast_has_it_for_every_row_and_grows_with_them():
    memory = volatility.VolatilityMemory(2)
    for universe in (UNIVERSE, WITH_OPTIONS):
        seen = view(universe=universe)
        volatility.observe(memory, seen, PARAMS)
        found = volatility.predict(seen, memory, PARAMS).residual_variance
        assert found.shape == (len(universe),) and (found[:4] > 0.0).all() and (found[4:] == 0.0).all()
