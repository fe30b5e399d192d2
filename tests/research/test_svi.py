"""Raw SVI as the peer a surface is measured against: that it is fitted as well as a competent user would."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from dea_daemon.pricing.surface.quotes import Quotes, prepare
from dea_daemon.research.svi import Svi, fit_svi, svi_total_variance
from tests.pricing.known_surfaces import Heston, Ssvi, chain_of

TRUE = Svi(0.006, 0.06, -0.3, 0.02, 0.12)


def quotes_at(k, iv, tau=0.1, error=0.01):
    wide = np.full(len(k), error)
    return Quotes(0, tau, 100.0, k, iv, iv - wide, iv + wide, wide, np.arange(len(k)))


def misfit(svi, quotes):
    iv = np.sqrt(np.maximum(svi_total_variance(svi, quotes.k)[0], 1e-12) / quotes.tau_years)
    return (iv - quotes.iv) / quotes.error


def test_derivatives_are_those_of_the_variance():
    k, h = np.linspace(-1.0, 1.0, 41), 1e-5
    w, first, second = svi_total_variance(TRUE, k)
    above, below = svi_total_variance(TRUE, k + h)[0], svi_total_variance(TRUE, k - h)[0]
    assert np.allclose(first, (above - below) / (2.0 * h), rtol=1e-6, atol=1e-9)
    assert np.allclose(second, (above - 2.0 * w + below) / h**2, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rho", [-0.8, -0.3, 0.0, 0.6])
def test_a_slice_of_svi_is_recovered(rho):
    true = TRUE._replace(rho=rho)
    k = np.linspace(-0.5, 0.5, 30)
    found = fit_svi(quotes_at(k, np.sqrt(svi_total_variance(true, k)[0] / 0.1)))
    assert np.allclose(found, true, rtol=1e-3, atol=1e-5)


def test_a_slice_that_is_a_parabola_is_fitted_though_no_svi_is_one():
    """There a, b and s have no end: the search must not run away with them."""
    k = np.linspace(-0.3, 0.3, 15)
    quotes = quotes_at(k, np.sqrt(0.03 + 0.05 * k**2) / np.sqrt(0.1))
    found = fit_svi(quotes)
    assert np.isfinite(found).all()
    assert np.abs(misfit(found, quotes)).max() < 0.05


@pytest.mark.parametrize("truth", [Ssvi(), Heston()], ids=["ssvi", "heston"])
def test_no_other_start_finds_a_much_better_fit(truth):
    """Beside scipy's own bounded search by differences, from eight random starts."""
    random = np.random.default_rng(0)
    for quotes in prepare(chain_of(truth, (3.0, 50.0, 267.0))):
        unit, level = np.abs(quotes.k).max(), quotes.tau_years * np.mean(quotes.iv**2)
        scale = np.array([level, level / unit, 1.0, unit, unit])
        bounds = (scale * (-np.inf, 0.0, -0.999, -3.0, 1e-3), scale * (np.inf, np.inf, 0.999, 3.0, 10.0))
        costs = [
            least_squares(
                lambda x, quotes=quotes: misfit(Svi(*x), quotes),
                scale * random.uniform((0.3, 0.1, -0.6, -0.5, 0.05), (0.9, 1.0, 0.6, 0.5, 1.0)),
                bounds=bounds,
                x_scale=scale,
                max_nfev=200,
            ).cost
            for _ in range(8)
        ]
        assert 0.5 * np.sum(misfit(fit_svi(quotes), quotes) ** 2) <= 1.05 * min(costs) + 1e-6


def test_fewer_quotes_than_parameters_are_refused():
    with pytest.raises(ValueError, match="5 quotes at least"):
        fit_svi(quotes_at(np.linspace(-0.1, 0.1, 4), np.full(4, 0.5)))
