"""A surface between its nodes and between its expiries: slopes, Greeks, densities, by differences of what it says."""

import msgspec
import numpy as np
import pytest

from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.domain.surfaces import Rung, Smile
from dea_daemon.pricing import black
from dea_daemon.pricing.surface.lattice import K_MAX, lattice, scale_for
from dea_daemon.pricing.surface.surface import YEAR_NS, Surface
from tests.pricing.surface_checks import arbitrages, prices

NOW_NS = 1_760_000_000_000_000_000
DAYS = (7, 30, 90, 365)
SCALE = scale_for(0.6 * np.sqrt(7 / 365))


def ssvi(theta: float, k: np.ndarray, rho: float = -0.35) -> np.ndarray:
    """Total variance with φ = 0.8/√θ: free of arbitrage for all θ ≤ 1. Source: Gatheral & Jacquier 2014, eq. 4.1."""
    phi = 0.8 / np.sqrt(theta)
    return np.asarray(0.5 * theta * (1.0 + rho * phi * k + np.sqrt((phi * k + rho) ** 2 + 1.0 - rho**2)))


def smile(days: int, rung: Rung = Rung.FITTED, forward: float = 80_000.0, quotes: int = 6) -> Smile:
    w = ssvi(0.36 * days / 365, lattice(SCALE).k)
    return Smile(NOW_NS + days * NS_PER_DAY, forward, tuple(w.tolist()), rung, -0.3, 0.3, quotes)


@pytest.fixture(scope="module")
def surface() -> Surface:
    return Surface(NOW_NS, SCALE, [smile(days) for days in DAYS])


def expiry(days: float, count: int = 1) -> np.ndarray:
    return np.full(count, NOW_NS + int(days * NS_PER_DAY))


K = np.linspace(-1.5, 1.5, 301)


def test_between_its_nodes_a_smile_is_what_its_nodes_were_taken_from(surface):
    for number, days in enumerate(DAYS):
        w, _, _ = surface.total_variance(np.full(len(K), number), K)
        np.testing.assert_allclose(w, ssvi(0.36 * days / 365, K), rtol=2e-5)


def test_slope_and_curvature_of_variance_are_its_differences(surface):
    h = 1e-4
    for number in range(len(DAYS)):
        row = np.full(len(K), number)
        w, first, second = surface.total_variance(row, K)
        up, slope_up, _ = surface.total_variance(row, K + h)
        down, slope_down, _ = surface.total_variance(row, K - h)
        np.testing.assert_allclose(first, (up - down) / (2 * h), atol=1e-5)
        np.testing.assert_allclose(second, (slope_up - slope_down) / (2 * h), atol=2e-3)
        assert (w > 0.0).all()


@pytest.mark.parametrize("days", [2, 7, 50, 365, 500])
def test_the_slope_of_volatility_is_its_difference(surface, days):
    h = 1e-5
    at = expiry(days, len(K))
    said, up, down = (surface.look_up(at, k) for k in (K, K + h, K - h))
    np.testing.assert_allclose(said.slope, (up.iv - down.iv) / (2 * h), atol=1e-5)


def test_between_two_expiries_variance_lies_between_theirs_in_proportion_to_time(surface):
    (left, right), middle = (30, 90), 45
    w = {days: surface.look_up(expiry(days, len(K)), K).iv ** 2 * days / 365 for days in (left, middle, right)}
    assert (w[left] < w[middle]).all() and (w[middle] < w[right]).all()
    share = (middle - left) / (right - left)
    np.testing.assert_allclose(w[middle], w[left] + share * (w[right] - w[left]), rtol=1e-12)


def test_options_of_one_moneyness_never_get_cheaper_with_time(surface):
    days = np.linspace(1, 600, 200)
    for k in (-0.8, -0.2, 0.0, 0.1, 0.6):
        iv = surface.look_up(np.concatenate([expiry(d) for d in days]), np.full(len(days), k)).iv
        value = black.price(1.0, np.exp(k), days / 365, iv, k >= 0.0)
        assert (np.diff(value) >= -1e-15).all()


def test_before_the_first_expiry_and_behind_the_last_volatility_is_theirs(surface):
    for beyond, theirs in ((1, 7), (0.1, 7), (366, 365), (2_000, 365)):
        there, at_end = surface.look_up(expiry(beyond, len(K)), K), surface.look_up(expiry(theirs, len(K)), K)
        np.testing.assert_allclose(there.iv, at_end.iv, rtol=1e-12)
        assert not there.known.any()


def test_beyond_the_lattice_variance_is_flat_and_finite(surface):
    for k in (K_MAX + 1.0, -K_MAX - 1.0, 50.0, -50.0):
        said = surface.look_up(expiry(30), np.array([k]))
        at_edge = surface.look_up(expiry(30), np.array([np.copysign(K_MAX, k)]))
        assert said.iv == at_edge.iv and np.isfinite(said.slope).all() and not said.known.any()


def test_a_smile_is_known_about_its_quotes_and_not_where_nobody_quotes():
    quoted, between = smile(30), smile(60, Rung.BETWEEN, quotes=0)
    surface = Surface(NOW_NS, SCALE, [quoted, between])
    edge = 0.3 + 0.1 * np.sqrt(0.36 * 30 / 365)
    said = surface.look_up(expiry(30, 4), np.array([0.0, -0.3, edge - 0.001, edge + 0.001]))
    assert said.known.tolist() == [True, True, True, False]
    assert not surface.look_up(expiry(60), np.array([0.0])).known.any()
    assert not surface.look_up(expiry(45), np.array([0.0])).known.any()


def test_a_smile_that_two_quotes_tell_is_not_known_and_one_of_three_is():
    known = [
        bool(Surface(NOW_NS, SCALE, [smile(30, Rung.LEANING, quotes=n)]).look_up(expiry(30), np.zeros(1)).known[0])
        for n in (0, 1, 2, 3, 4)
    ]
    assert known == [False, False, False, True, True]


def test_one_smile_alone_is_a_surface():
    alone = Surface(NOW_NS, SCALE, [smile(30)])
    iv = alone.look_up(np.concatenate([expiry(days) for days in (1, 30, 300)]), np.zeros(3)).iv
    np.testing.assert_allclose(iv, 0.6, rtol=1e-6)


# --- Greeks -----------------------------------------------------------------------------------------


FORWARD, STRIKES = 80_000.0, np.array([50_000.0, 70_000.0, 80_000.0, 90_000.0, 130_000.0])
CALLS = STRIKES >= FORWARD
TAU = 50 / 365


def worth(surface: Surface, forward: float, frozen: float | None = None, more: float = 0.0) -> np.ndarray:
    """USD of options of 50 days: of a smile that moves with the forward, or is frozen at one; volatility + more."""
    said = surface.look_up(expiry(50, len(STRIKES)), np.log(STRIKES / (frozen or forward)))
    return black.price(forward, STRIKES, TAU, said.iv + more, CALLS)


def greeks(surface: Surface) -> tuple[black.Greeks, np.ndarray]:
    said = surface.look_up(expiry(50, len(STRIKES)), np.log(STRIKES / FORWARD))
    return black.greeks(FORWARD, STRIKES, TAU, said.iv, CALLS), said.slope


def test_blacks_delta_and_gamma_are_those_of_a_surface_that_stays_at_its_strikes(surface):
    h = 1.0
    up, here, down = (worth(surface, FORWARD + move, frozen=FORWARD) for move in (h, 0.0, -h))
    g, _ = greeks(surface)
    np.testing.assert_allclose(g.delta, (up - down) / (2 * h), rtol=1e-6, atol=1e-9)
    h = 50.0
    up, down = (worth(surface, FORWARD + move, frozen=FORWARD) for move in (h, -h))
    np.testing.assert_allclose(g.gamma, (up - 2 * here + down) / h**2, rtol=1e-4)


def test_the_sticky_moneyness_delta_is_that_of_a_surface_that_moves_with_the_forward(surface):
    h = 1.0
    moved = (worth(surface, FORWARD + h) - worth(surface, FORWARD - h)) / (2 * h)
    g, slope = greeks(surface)
    delta = black.sticky_moneyness_delta(g.delta, g.vega, slope, np.full(len(STRIKES), FORWARD))
    np.testing.assert_allclose(delta, moved, rtol=1e-6, atol=1e-9)
    assert (np.abs(delta - g.delta) > 1e-3).any()  # the smile is not flat: the two differ


def test_vega_is_that_of_the_whole_surface_lifted(surface):
    h = 1e-5
    lifted = (worth(surface, FORWARD, more=h) - worth(surface, FORWARD, more=-h)) / (2 * h)
    g, _ = greeks(surface)
    np.testing.assert_allclose(g.vega, lifted, rtol=1e-6)


# --- the checks themselves --------------------------------------------------------------------------


def test_the_checks_by_prices_find_nothing_in_a_surface_without_arbitrage(surface):
    assert arbitrages(surface) == []


def test_the_checks_by_prices_find_a_butterfly_and_a_calendar(surface):
    early, late = surface.smiles[1], surface.smiles[2]
    dented = np.array(early.variance)
    dented[90] *= 0.9
    bent = msgspec.structs.replace(early, variance=tuple(dented.tolist()))
    assert any("convex" in what for what in arbitrages(Surface(NOW_NS, SCALE, [bent, late])))
    low = msgspec.structs.replace(late, variance=tuple((0.99 * np.array(early.variance)).tolist()))
    assert any("cheaper" in what for what in arbitrages(Surface(NOW_NS, SCALE, [early, low])))


def test_prices_of_calls_and_puts_keep_parity(surface):
    for number in range(len(DAYS)):
        calls, puts = prices(surface, number, K, True), prices(surface, number, K, False)
        np.testing.assert_allclose(calls - puts, 1.0 - np.exp(K), atol=1e-13)


def test_the_years_are_those_of_the_house(surface):
    np.testing.assert_allclose(surface.tau_years, np.array(DAYS) / 365)
    assert YEAR_NS == 365 * NS_PER_DAY
