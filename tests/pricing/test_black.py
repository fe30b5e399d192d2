"""Black-76 against closed forms in 50 digits, other libraries, finite differences and a venue's own figures."""

from datetime import UTC, datetime

import mpmath as mp  # type: ignore[import-untyped]
import numpy as np
import pytest
import QuantLib  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.pricing import black

YEAR_MS = 365 * 24 * 3600 * 1000
FORWARD = 65_000.0
mp.mp.dps = 50


def exact(F, K, tau, vol, call):
    """Black-76 in 50 digits."""
    F, K, tau, vol = map(mp.mpf, (F, K, tau, vol))
    s = vol * mp.sqrt(tau)
    d1 = mp.log(F / K) / s + s / 2
    d2 = d1 - s
    return F * mp.ncdf(d1) - K * mp.ncdf(d2) if call else K * mp.ncdf(-d2) - F * mp.ncdf(-d1)


def chain(count=60, z_max=7.0, seed=4):
    """(F, K, τ, σ, call) [count] over |z| ≤ z_max, six hours to two years, σ .15 to 2.5."""
    draw = np.random.default_rng(seed)
    tau = np.exp(draw.uniform(np.log(0.25 / 365), np.log(2.0), count))
    vol = draw.uniform(0.15, 2.5, count)
    z = draw.uniform(-z_max, z_max, count)
    return np.full(count, FORWARD), FORWARD * np.exp(z * vol * np.sqrt(tau)), tau, vol, draw.random(count) < 0.5


def test_a_price_keeps_its_digits_however_deep_out_of_the_money():
    F, K, tau, vol, _ = chain(200)
    call = K >= F
    prices = black.price(F, K, tau, vol, call)
    for k in range(200):
        assert prices[k] == pytest.approx(float(exact(F[k], K[k], tau[k], vol[k], bool(call[k]))), rel=1e-11, abs=0.0)
    assert prices.min() < 1e-6  # there were deep ones


def test_prices_in_the_money_are_intrinsic_plus_the_other_side():
    F, K, tau, vol, _ = chain(200)
    call = K < F
    for k, price in enumerate(black.price(F, K, tau, vol, call)):
        assert price == pytest.approx(float(exact(F[k], K[k], tau[k], vol[k], bool(call[k]))), rel=1e-13)


@pytest.mark.parametrize("vol", [12.0, 40.0, 90.0, 1e6])
def test_at_boundless_volatility_a_price_nears_its_bound(vol):
    assert black.price(100.0, 110.0, 1.0, vol, True) == pytest.approx(float(exact(100, 110, 1, vol, True)), rel=1e-14)
    assert black.price(100.0, 110.0, 1.0, vol, False) == pytest.approx(float(exact(100, 110, 1, vol, False)), rel=1e-14)


def test_prices_agree_with_quantlib():
    F, K, tau, vol, call = chain(100, z_max=4.0)
    ours = black.price(F, K, tau, vol, call)
    for k in range(100):
        side = QuantLib.Option.Call if call[k] else QuantLib.Option.Put
        theirs = QuantLib.blackFormula(side, K[k], F[k], vol[k] * np.sqrt(tau[k]))
        assert ours[k] == pytest.approx(theirs, rel=1e-10, abs=1e-10)


@given(st.floats(1e-3, 1e6), st.floats(-8.0, 8.0), st.floats(1e-5, 5.0), st.floats(0.01, 5.0))
def test_put_call_parity_holds(forward, z, tau, vol):
    strike = forward * np.exp(z * vol * np.sqrt(tau))
    call, put = black.price(forward, strike, tau, vol, [True, False])
    assert call - put == pytest.approx(forward - strike, abs=4e-16 * (forward + strike + call + put))
    greek = black.greeks(forward, strike, tau, vol, np.array([True, False]))
    assert greek.delta[0] - greek.delta[1] == pytest.approx(1.0, abs=1e-15)
    assert (greek.gamma[0], greek.vega[0], greek.volga[0]) == (greek.gamma[1], greek.vega[1], greek.volga[1])


DERIVATIVES = {  # of the price, by (forward, strike, tau, vol)
    "price": (1.0, (0, 0, 0, 0)),
    "delta": (1.0, (1, 0, 0, 0)),
    "gamma": (1.0, (2, 0, 0, 0)),
    "vega": (1.0, (0, 0, 0, 1)),
    "theta": (-1.0, (0, 0, 1, 0)),  # calendar time runs against time to expiry
    "vanna": (1.0, (1, 0, 0, 1)),
    "volga": (1.0, (0, 0, 0, 2)),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_each_greek_is_the_derivative_it_says_it_is(name):
    F, K, tau, vol, call = chain(24, z_max=4.0)
    sign, orders = DERIVATIVES[name]
    ours = getattr(black.greeks(F, K, tau, vol, call), name)
    for k in range(24):
        point = tuple(map(mp.mpf, (F[k], K[k], tau[k], vol[k])))
        side = bool(call[k])
        derivative = mp.diff(lambda f, s, t, v, side=side: exact(f, s, t, v, side), point, orders)
        assert ours[k] == pytest.approx(sign * float(derivative), rel=1e-10, abs=1e-13)


def test_a_mixed_chain_is_priced_as_its_elements_are_alone():
    columns = chain(50)
    whole = black.greeks(*columns)
    prices = black.price(*columns)
    for k, one in enumerate(zip(*columns, strict=True)):
        alone = black.greeks(*one)
        assert black.price(*one) == pytest.approx(prices[k], rel=1e-14)
        for name in black.Greeks._fields:
            assert getattr(alone, name).shape == ()
            assert getattr(alone, name) == pytest.approx(getattr(whole, name)[k], rel=1e-13, abs=1e-300), name


def test_scalars_and_arrays_broadcast():
    strikes, times = np.array([60_000.0, 70_000.0]), np.array([[0.1], [0.2], [0.3]])
    assert black.price(FORWARD, strikes, times, 0.5, True).shape == (3, 2)
    assert black.greeks(FORWARD, strikes, times, 0.5, np.array([True, False])).volga.shape == (3, 2)
    assert black.price(100, 110, 1, 1, True) == pytest.approx(float(exact(100, 110, 1, 1, True)))  # integers


def test_inputs_are_left_as_they_were():
    columns = chain(20)
    before = [column.copy() for column in columns]
    black.greeks(*columns)
    black.price(*columns)
    assert all((column == kept).all() for column, kept in zip(columns, before, strict=True))


@pytest.mark.parametrize(
    ("which", "bad"), [(k, np.nan) for k in range(4)] + [(k, bad) for k in (0, 1) for bad in (0.0, -1.0)]
)
def test_what_cannot_be_priced_is_nan_alone(which, bad):
    forward, strike, tau, vol = columns = [np.full(3, value) for value in (100.0, 110.0, 0.5, 0.6)]
    columns[which][1] = bad
    for values in (black.price(forward, strike, tau, vol, True), *black.greeks(forward, strike, tau, vol, True)):
        assert np.isnan(values).tolist() == [False, True, False]


@pytest.mark.parametrize(("tau", "vol"), [(0.0, 0.5), (-0.1, 0.5), (0.3, 0.0), (0.3, -0.2), (0.0, 0.0)])
def test_with_no_time_or_volatility_left_only_intrinsic_value_remains(tau, vol):
    strikes = np.array([90.0, 100.0, 110.0])
    calls, puts = (black.greeks(100.0, strikes, tau, vol, side) for side in (True, False))
    assert calls.price.tolist() == black.price(100.0, strikes, tau, vol, True).tolist() == [10.0, 0.0, 0.0]
    assert puts.price.tolist() == black.price(100.0, strikes, tau, vol, False).tolist() == [0.0, 0.0, 10.0]
    assert calls.delta.tolist() == [1.0, 0.5, 0.0]
    assert puts.delta.tolist() == [0.0, -0.5, -1.0]
    for name in ("gamma", "vega", "theta", "vanna", "volga"):
        assert not getattr(calls, name).any(), name


def test_an_expired_option_of_unknown_forward_is_nan():
    assert np.isnan(black.price(np.nan, 100.0, 0.0, 0.5, True))
    assert np.isnan(black.greeks(np.nan, 100.0, 0.0, 0.5, True).delta)


class TestOkx:
    """BTC-USD-251226-100000-C as OKX reported it at 1752086420763 ms.

    The tolerances are those of figures computed a moment apart from the forward and volatility beside them: no one
    pair of inputs gives all of them to the last digit.
    """

    forward, strike, vol = 112_782.12029616, 100_000.0, 0.4335822640
    expiry_ms = int(datetime(2025, 12, 26, 8, tzinfo=UTC).timestamp() * 1000)
    tau = (expiry_ms - 1_752_086_420_763) / YEAR_MS
    spot = 109_485.0  # implied by their vegas
    rate = np.log(forward / spot) / tau
    greeks = black.greeks(forward, strike, tau, vol, True)
    coin = black.coin_price(greeks.price, forward)
    delta_pa = black.premium_adjusted_delta(greeks.delta, coin)

    def test_delta(self):
        assert self.greeks.delta == pytest.approx(0.71045, abs=5e-5)
        assert self.delta_pa == pytest.approx(0.53399, abs=5e-5)

    def test_the_premium_adjusted_delta_of_a_call_is_k_over_f_times_n_d2(self):
        s = self.vol * np.sqrt(self.tau)
        d2 = np.log(self.forward / self.strike) / s - s / 2
        assert self.delta_pa == pytest.approx(self.strike / self.forward * float(mp.ncdf(d2)), rel=1e-13)

    def test_gamma(self):
        assert self.greeks.gamma * self.forward / self.spot == pytest.approx(1.0566e-5, rel=1e-3)  # theirs is in spot
        ours = black.premium_adjusted_gamma(self.greeks.gamma, self.delta_pa, self.forward)
        assert ours == pytest.approx(0.08914, abs=3e-4)  # a difference of two numbers near 1

    def test_vega(self):
        assert black.premium_adjusted_vega(self.greeks.vega, self.forward) / 100 == pytest.approx(0.0023306, rel=5e-4)
        discounted = self.greeks.vega * self.spot / self.forward
        assert discounted / 100 / self.spot == pytest.approx(0.0023306, rel=5e-4)

    def test_theta(self):
        assert black.premium_adjusted_theta(self.greeks.theta, self.forward) / 365 == pytest.approx(-2.978e-4, rel=1e-3)
        discount = self.spot / self.forward
        n_d2 = self.delta_pa * self.forward / self.strike
        carry = -self.rate * self.strike * discount * n_d2
        assert (self.greeks.theta * discount + carry) / 365 == pytest.approx(-42.78, rel=2.5e-3)


@pytest.mark.parametrize("call", [True, False])
def test_premium_adjusted_greeks_are_derivatives_of_the_coin_price(call):
    def coin(F, tau, vol):
        return exact(F, 70_000, tau, vol, call) / F

    point = (mp.mpf(FORWARD), mp.mpf("0.25"), mp.mpf("0.6"))
    greek = black.greeks(FORWARD, 70_000.0, 0.25, 0.6, call)
    delta = black.premium_adjusted_delta(greek.delta, black.coin_price(greek.price, FORWARD))
    gamma = black.premium_adjusted_gamma(greek.gamma, delta, FORWARD)
    assert delta == pytest.approx(float(FORWARD * mp.diff(coin, point, (1, 0, 0))), rel=1e-10)
    assert gamma == pytest.approx(float(FORWARD**2 * mp.diff(coin, point, (2, 0, 0))), rel=1e-10)
    vega, theta = (black.premium_adjusted_vega(greek.vega, FORWARD), black.premium_adjusted_theta(greek.theta, FORWARD))
    assert vega == pytest.approx(float(mp.diff(coin, point, (0, 0, 1))), rel=1e-10)
    assert theta == pytest.approx(-float(mp.diff(coin, point, (0, 1, 0))), rel=1e-10)


@pytest.mark.parametrize("strike", [50_000.0, 65_000.0, 90_000.0])
@pytest.mark.parametrize("call", [True, False])
def test_the_sticky_moneyness_delta_is_the_total_derivative_along_a_smile(strike, call):
    def smile(k):
        return mp.mpf("0.6") - mp.mpf("0.2") * k + mp.mpf("0.5") * k * k

    def value(F):
        return exact(F, strike, 0.2, smile(mp.log(strike / F)), call)

    k = mp.log(mp.mpf(strike) / FORWARD)
    greek = black.greeks(FORWARD, strike, 0.2, float(smile(k)), call)
    ours = black.sticky_moneyness_delta(greek.delta, greek.vega, float(mp.diff(smile, k)), FORWARD)
    assert ours == pytest.approx(float(mp.diff(value, mp.mpf(FORWARD))), rel=1e-10)
    assert abs(ours - greek.delta) > 1e-3
