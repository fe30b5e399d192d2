"""Factor form: variances kept, something left to each underlying, correlations near the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.forecast.factors import FLOOR_SHARE, factor_form


def market_like(u, factors, seed=1):
    """[u, u] with that many common factors, a first that moves all, and volatilities from 30 to 150 %."""
    rng = np.random.default_rng(seed)
    loadings = np.column_stack([np.full(u, 1.0), 0.4 * rng.standard_normal((u, factors - 1))])
    found = loadings @ loadings.T + np.diag(rng.uniform(0.2, 0.8, u))
    vol = np.linspace(0.3, 1.5, u) / np.sqrt(365.0 * np.diag(found))
    return found * np.outer(vol, vol)


def whole(form):
    b, omega, d = form
    return b @ omega @ b.T + np.diag(d)


def test_few_underlyings_are_told_exactly():
    covariance = market_like(3, 2)
    b, omega, d = factor_form(covariance)
    assert (b @ omega @ b.T == covariance).all() and (d == 0.0).all()


def test_a_market_of_four_factors_is_told_by_four():
    covariance = market_like(50, 4)
    found = whole(factor_form(covariance, 4))
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert np.abs((found - covariance) / scale).max() < 0.05


def test_the_risk_of_any_book_is_within_a_tenth_at_twenty_factors_of_a_market_of_sixty():
    covariance = market_like(60, 30)
    found = whole(factor_form(covariance))
    books = np.random.default_rng(2).standard_normal((200, 60)) / np.sqrt(np.diag(covariance))
    ratio = np.einsum("bi,ij,bj->b", books, found, books) / np.einsum("bi,ij,bj->b", books, covariance, books)
    assert np.sqrt(ratio) == pytest.approx(np.ones(200), abs=0.1)


def test_two_of_a_kind_are_never_the_same_to_the_last_percent():
    covariance = np.full((4, 4), 1e-3)
    _, _, d = factor_form(covariance, 2)
    assert d == pytest.approx(np.full(4, FLOOR_SHARE * 1e-3))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(1, 20), st.integers(0, 10_000))
def test_every_variance_is_kept_and_the_own_part_floored(u, k, seed):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((u, rng.integers(1, u + 1))) * 10.0 ** rng.uniform(-3.0, 0.0, (u, 1))
    covariance = root @ root.T + np.diag(np.full(u, 1e-9))
    b, omega, d = factor_form(covariance, k)
    assert b.shape == (u, min(k, u)) and omega.shape == (min(k, u),) * 2
    assert np.diag(whole((b, omega, d))) == pytest.approx(np.diag(covariance), rel=1e-9)
    if k < u:
        assert (d >= FLOOR_SHARE * np.diag(covariance) * (1.0 - 1e-12)).all()
    assert np.linalg.eigvalsh(omega)[0] >= -1e-12 * np.abs(omega).max()
