"""Fitted surfaces against what is known from elsewhere: QuantLib's Andreasen-Huge, and the truth behind the quotes."""

import numpy as np
import pytest
import QuantLib  # type: ignore[import-untyped]

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.surfaces import Chain
from dea_daemon.pricing.implied import implied_volatility
from dea_daemon.pricing.surface.fit import fit
from dea_daemon.pricing.surface.quotes import Quotes, prepare
from dea_daemon.pricing.surface.surface import Surface
from tests.pricing.known_surfaces import UTC_NS, Heston, Ssvi, chain_of
from tests.pricing.recorded_chains import recorded, snapshots
from tests.pricing.surface_checks import arbitrages, inside, prices, surface_of

HALF_SPREAD = 0.01
DAYS = (3.0, 8.0, 22.0, 50.0, 85.0, 176.0, 267.0)
KNOWN = [Ssvi(), Heston()]
CALM = Ssvi(0.35, 0.45, 4.0, -0.1, 1.0, 0.4)


def fitted(chain: Chain) -> Surface:
    return surface_of(fit(chain, 0.5))


def by_name(value: object) -> str:
    return type(value).__name__


# --- QuantLib ---------------------------------------------------------------------------------------


class Peer:
    """QuantLib's interpolation of the same mids. Local variance knows only total variance, so each expiry stands at
    a date of its own choice and the forward is 1."""

    def __init__(self, slices: list[Quotes]) -> None:
        today = QuantLib.Date(1, 1, 2026)
        QuantLib.Settings.instance().evaluationDate = today
        pairs = QuantLib.CalibrationSet()
        for number, q in enumerate(slices, 1):
            exercise = QuantLib.EuropeanExercise(today + 365 * number)
            for k, w in zip(q.k.tolist(), (q.iv**2 * q.tau_years).tolist(), strict=True):
                option = QuantLib.VanillaOption(
                    QuantLib.PlainVanillaPayoff(QuantLib.Option.Call, float(np.exp(k))), exercise
                )
                pairs.push_back(QuantLib.CalibrationPair(option, QuantLib.SimpleQuote(float(np.sqrt(w / number)))))
        flat = QuantLib.YieldTermStructureHandle(QuantLib.FlatForward(today, 0.0, QuantLib.Actual365Fixed()))
        kind = QuantLib.AndreasenHugeVolatilityInterpl
        self._smiles = kind(
            pairs, QuantLib.QuoteHandle(QuantLib.SimpleQuote(1.0)), flat, flat, kind.CubicSpline, kind.CallPut, 1_000
        )

    def iv(self, number: int, tau_years: float, k: FloatArray) -> FloatArray:
        """Of the slice `number` (from 0), back at its own time; NaN where the price is lost in rounding."""
        call = k >= 0.0
        price = [
            self._smiles.optionPrice(
                number + 1.0, float(np.exp(at)), QuantLib.Option.Call if up else QuantLib.Option.Put
            )
            for at, up in zip(k.tolist(), call.tolist(), strict=True)
        ]
        return implied_volatility(np.array(price), 1.0, np.exp(k), tau_years, call)


def apart(surface: Surface, slices: list[Quotes], *, between: bool) -> FloatArray:
    """|ours − QuantLib's| of all slices, at the quotes or half way between each two; in half-spreads."""
    peer, found = Peer(slices), []
    for number, q in enumerate(slices):
        k = 0.5 * (q.k[1:] + q.k[:-1]) if between else q.k
        half = 0.5 * (q.high - q.low)
        half = 0.5 * (half[1:] + half[:-1]) if between else half
        ours = surface.look_up(np.full(len(k), q.expiry_ns), k).iv
        found.append(np.abs(ours - peer.iv(number, q.tau_years, k)) / half)
    off = np.concatenate(found)
    assert np.isfinite(off).mean() > 0.97  # nearly everywhere, both say something
    return off[np.isfinite(off)]


def test_quotes_without_noise_are_interpolated_as_quantlib_interpolates_them():
    chain = chain_of(CALM, (8.0, 22.0, 50.0), strikes=15, half_spread_vol=0.005, noise=0.0, tick_coin=0.0)
    slices, surface = prepare(chain), fitted(chain)
    at, between = apart(surface, slices, between=False), apart(surface, slices, between=True)
    assert np.median(at) < 0.05 and at.max() < 0.2
    assert np.median(between) < 0.05 and between.max() < 0.2


@pytest.mark.parametrize(("coin", "number"), [("BTC", 10), ("BTC", 60), ("ETH", 60)])
def test_recorded_mids_are_interpolated_within_the_spread_of_quantlib(coin, number):
    """QuantLib goes through every mid and so repeats its noise, wildly where mids are dense: slices of few quotes."""
    chain = recorded(snapshots()[number], coin)
    slices = [q for q in prepare(chain) if 10 <= len(q.k) <= 16][:3]
    surface = fitted(chain)
    at, between = apart(surface, slices, between=False), apart(surface, slices, between=True)
    assert np.median(at) < 0.3 and np.median(between) < 0.3
    assert np.quantile(at, 0.95) < 1.0 and np.quantile(between, 0.95) < 1.0


# --- the truth behind the quotes --------------------------------------------------------------------


def errors(known: Ssvi | Heston, chain: Chain, days: tuple[float, ...], reach_sd: float = 2.0) -> FloatArray:
    """σ fitted − true at a fine grid of k within the quotes; of quoted and other maturities alike."""
    surface, found = fitted(chain), []
    for day in days:
        tau = day / 365
        k = np.linspace(-reach_sd, reach_sd, 81) * float(known.iv(np.zeros(1), tau)[0]) * np.sqrt(tau)
        expiry = np.full(len(k), UTC_NS + round(day * 86_400e9))
        found.append(surface.look_up(expiry, k).iv - known.iv(k, tau))
    return np.concatenate(found)


def rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(values**2)))


@pytest.mark.parametrize("known", KNOWN, ids=by_name)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_known_surface_is_recovered_from_noisy_quotes(known, seed):
    chain = chain_of(known, DAYS, half_spread_vol=HALF_SPREAD, seed=seed)
    assert rms(errors(known, chain, DAYS)) < 0.2 * HALF_SPREAD  # the noise of a single mid is .29 of it
    surface = fitted(chain)
    good, total = inside(surface, prepare(chain))
    assert good >= 0.995 * total


@pytest.mark.parametrize("known", KNOWN, ids=by_name)
def test_what_quotes_without_noise_say_is_found_at_and_between_them(known):
    chain = chain_of(known, DAYS, half_spread_vol=HALF_SPREAD, noise=0.0, tick_coin=0.0)
    assert rms(errors(known, chain, DAYS)) < 0.05 * HALF_SPREAD


@pytest.mark.parametrize("known", KNOWN, ids=by_name)
def test_maturities_that_nobody_quotes_are_near_the_truth(known):
    """Total variance is linear in time between two expiries; the truth is not quite."""
    chain = chain_of(known, DAYS, half_spread_vol=HALF_SPREAD)
    assert rms(errors(known, chain, (5.0, 14.0, 35.0, 65.0, 130.0, 220.0))) < 0.25 * HALF_SPREAD


@pytest.mark.parametrize("known", KNOWN, ids=by_name)
def test_quotes_left_out_are_found_inside_their_spread(known):
    quotes = prepare(chain_of(known, DAYS, strikes=33, half_spread_vol=HALF_SPREAD, seed=4))
    surface = fitted(chain_of(known, DAYS, strikes=17, half_spread_vol=HALF_SPREAD, seed=5))
    good, total = inside(surface, quotes)
    assert good >= 0.97 * total


# --- densities --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["BTC", "ETH", "Heston"])
def surface(request) -> Surface:
    if request.param == "Heston":
        return fitted(chain_of(Heston(), DAYS, half_spread_vol=HALF_SPREAD, seed=3))
    return fitted(recorded(snapshots()[35], request.param))


def density(surface: Surface, smile: int, k: FloatArray) -> FloatArray:
    """Of ln(S/F) at expiry, from the variance and its derivatives. Source: Gatheral & Jacquier 2014, eq. 2.2."""
    w, first, second = surface.total_variance(np.full(len(k), smile), k)
    g = (1 - k * first / (2 * w)) ** 2 - first**2 / 4 * (1 / w + 0.25) + second / 2
    d2 = -k / np.sqrt(w) - np.sqrt(w) / 2
    return g / np.sqrt(2 * np.pi * w) * np.exp(-(d2**2) / 2)


def test_prices_integrate_to_one_and_to_the_forward(surface):
    """Over the whole lattice; what lies beyond is told by the prices and slopes at its ends."""
    k, h = np.linspace(-3.99, 3.99, 200_001), 1e-5
    ends = k[[0, -1]]
    for smile in range(len(surface.smiles)):
        p = density(surface, smile, k)
        put, call = (prices(surface, smile, ends, side)[at] for at, side in ((0, False), (1, True)))
        up, down = (prices(surface, smile, ends + move, np.array([False, True])) for move in (h, -h))
        by_strike = (up - down) / (2 * h) / np.exp(ends)
        below, above = by_strike[0], -by_strike[1]
        assert abs(np.trapezoid(p, k) + below + above - 1.0) < 1e-5
        mean = np.trapezoid(p * np.exp(k), k)
        mean += np.exp(ends[0]) * below - put + call + np.exp(ends[1]) * above
        assert abs(mean - 1.0) < 1e-5


def test_the_density_is_the_curvature_of_prices_and_never_negative(surface):
    h = 1e-3
    k = np.arange(-1.5, 1.5, h)
    for smile in range(len(surface.smiles)):
        p = density(surface, smile, k)
        assert (p >= -1e-9).all()
        from_prices = curvature(surface, smile, k, h)
        np.testing.assert_allclose(from_prices, p, atol=1e-3 * p.max())


def curvature(surface: Surface, smile: int, k: FloatArray, h: float) -> FloatArray:
    """K² ∂²c/∂K² = ∂²c/∂k² − ∂c/∂k, by differences; of puts, whose curvature is the calls'."""
    up, here, down = (prices(surface, smile, k + move, False) for move in (h, 0.0, -h))
    return ((up - 2 * here + down) / h**2 - (up - down) / (2 * h)) / np.exp(k)


def test_no_butterfly_and_no_calendar_earns_anything(surface):
    assert arbitrages(surface) == []
