"""Paths against what is known of them in closed form, and the bootstrap against its sample."""

import numpy as np
import pytest

from dea_daemon.domain.errors import DataError
from dea_daemon.research import paths
from dea_daemon.research.paths import Heston, along, characteristic, drawn, heston, mean_variance

HESTON = Heston(v0=0.36, theta=0.64, kappa=5.0, xi=1.2, rho=-0.4, mu=0.1)
BATES = HESTON._replace(jumps=12.0, jump_mean=-0.04, jump_sd=0.06)
YEARS, STEPS, PATHS = 0.25, 500, 20_000


@pytest.fixture(scope="module")
def ends() -> dict[Heston, np.ndarray]:
    """ln of the shares at the end [PATHS]."""
    return {m: np.log(heston((m,), YEARS, STEPS, PATHS, seed=3)[:, -1, 0]) for m in (HESTON, BATES)}


@pytest.mark.parametrize("model", [HESTON, BATES], ids=["heston", "bates"])
def test_the_mean_price_is_that_of_the_drift(ends, model):
    share = np.exp(ends[model])
    assert share.mean() == pytest.approx(np.exp(model.mu * YEARS), abs=4.0 * share.std() / np.sqrt(PATHS))


@pytest.mark.parametrize("model", [HESTON, BATES], ids=["heston", "bates"])
def test_the_mean_of_the_logarithm_is_the_drift_less_half_the_variance_and_what_jumps_take(ends, model):
    variance = model.theta * YEARS + (model.v0 - model.theta) * (1 - np.exp(-model.kappa * YEARS)) / model.kappa
    mean = (model.mu - model.drift_of_jumps) * YEARS - 0.5 * variance + model.jumps * YEARS * model.jump_mean
    assert ends[model].mean() == pytest.approx(mean, abs=4.0 * ends[model].std() / np.sqrt(PATHS))


@pytest.mark.parametrize("model", [HESTON, BATES], ids=["heston", "bates"])
def test_the_whole_law_is_that_of_the_characteristic_function(ends, model):
    u = np.array([0.5, 1.0, 2.0, 4.0, 7.0])
    seen = np.exp(1j * u[:, None] * ends[model]).mean(axis=1)
    assert np.abs(seen - characteristic(model, YEARS, u)).max() < 5.0 / np.sqrt(PATHS)


def test_the_characteristic_function_is_black_scholes_where_variance_stands_still():
    still, u = Heston(v0=0.25, theta=0.25, kappa=1.0, xi=1e-4, rho=0.0, mu=0.05), np.array([0.3, 1.0, 3.0])
    normal = np.exp(1j * u * (0.05 - 0.125) * 0.5 - 0.5 * u**2 * 0.25 * 0.5)
    assert characteristic(still, 0.5, u) == pytest.approx(normal, rel=1e-6)


def test_jumps_move_the_law_away_from_hestons(ends):
    u = np.array([2.0, 4.0])
    seen = np.exp(1j * u[:, None] * ends[BATES]).mean(axis=1)
    assert np.abs(seen - characteristic(HESTON, YEARS, u)).max() > 5.0 / np.sqrt(PATHS)


def test_variance_returns_to_its_mean():
    assert mean_variance(HESTON, 0.0) == HESTON.v0
    assert mean_variance(HESTON, 100.0) == pytest.approx(HESTON.theta)
    path = np.log(heston((HESTON,), YEARS, STEPS, 4_000, seed=5)[:, :, 0])
    last = np.diff(path[:, -11:], axis=1)
    realised = float((last**2).mean() * STEPS / YEARS)
    assert realised == pytest.approx(mean_variance(HESTON, YEARS * (1 - 5 / STEPS)), rel=0.05)


def test_underlyings_move_together_as_they_were_told():
    path = np.log(heston((HESTON, HESTON), YEARS, STEPS, 300, seed=2, correlation=0.7))
    steps = np.diff(path, axis=1).reshape(-1, 2)
    assert np.corrcoef(steps.T)[0, 1] == pytest.approx(0.7, abs=0.03)


def test_the_same_seed_is_the_same_path():
    one, two, other = (heston((BATES,), YEARS, 50, 3, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def returns(length: int = 2_000) -> np.ndarray:
    draws = np.random.default_rng(1)
    return 0.01 * draws.standard_normal((length, 2)) @ np.linalg.cholesky([[1.0, 0.8], [0.8, 1.0]]).T


def test_the_bootstrap_draws_hours_as_they_were_all_underlyings_together():
    seen = returns()
    shares = drawn(seen, 500, 40, seed=4)
    assert shares.shape == (40, 501, 2) and (shares[:, 0] == 1.0).all()
    steps = np.diff(np.log(shares), axis=1).reshape(-1, 2)
    there = {tuple(row) for row in np.round(seen, 9)}
    assert all(tuple(row) in there for row in np.round(steps[:2_000], 9))
    assert np.corrcoef(steps.T)[0, 1] == pytest.approx(np.corrcoef(seen.T)[0, 1], abs=0.03)
    assert np.array_equal(shares, drawn(seen, 500, 40, seed=4))


def test_a_bootstrap_of_too_little_or_of_no_numbers_is_refused():
    with pytest.raises(DataError, match="500 returns or more"):
        drawn(returns(400), 500, 3, seed=1)
    holed = returns()
    holed[7, 0] = np.nan
    with pytest.raises(DataError, match="all of them numbers"):
        drawn(holed, 500, 3, seed=1)


def test_noise_around_a_course_is_nothing_at_its_points():
    hours, shares = np.array([0.0, 10.0, 12.0, 48.0]), np.array([[1.0, 1.0], [0.9, 0.8], [0.7, 0.6], [0.8, 0.7]])
    path = along(hours, shares, 1 / 60, 0.6, seed=9)
    assert path[[0, 600, 720, 2_880]] == pytest.approx(shares)
    between = np.diff(np.log(path[720:, 0]))
    assert between.std() * np.sqrt(60 * 24 * 365) == pytest.approx(0.6, rel=0.1)


def test_funding_comes_each_eighth_hour_around_zero_as_far_and_as_lasting_as_measured():
    found = paths.funding(8 * 40_000, 2, seed=3)
    each = found.reshape(-1, 8, 2)
    assert not each[:, :7].any() and each[:, 7].all()
    rates = each[:, 7]
    assert rates.std(axis=0) == pytest.approx([paths.FUNDING_SD] * 2, rel=0.05)
    assert abs(rates.mean(axis=0)).max() < 2e-5
    assert np.corrcoef(rates[1:, 0], rates[:-1, 0])[0, 1] == pytest.approx(paths.FUNDING_KEPT, abs=0.02)
    assert abs(np.corrcoef(rates[:, 0], rates[:, 1])[0, 1]) < 0.05
    assert np.array_equal(found[:80], paths.funding(80, 2, seed=3))
