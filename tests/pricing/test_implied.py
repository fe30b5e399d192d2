"""Implied volatility against the volatilities that 50-digit prices were made from, and against Let's be rational."""

import mpmath as mp  # type: ignore[import-untyped]
import numpy as np
import py_lets_be_rational  # type: ignore[import-untyped]
import pytest
import QuantLib  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.pricing import black, implied
from dea_daemon.pricing.implied import implied_volatility

FORWARD = 65_000.0
mp.mp.dps = 50


def hard_grid():
    """(F, K, τ, σ, call, price) of out-of-the-money options, prices correctly rounded from 50 digits.

    z = ln(K/F)/(σ√τ) from −7 to 7, six hours to two years, σ .15 to 2.5. The strikes are exact doubles, so the price
    belongs to the strike as it is, not to z.
    """
    z, tau, vol = (
        axis.ravel()
        for axis in np.meshgrid(
            [-7.0, -5.5, -4.0, -2.0, -1.0, -0.3, -1e-3, 0.0, 1e-6, 0.1, 0.7, 1.5, 3.0, 4.5, 6.0, 7.0],
            [0.25 / 365, 1 / 365, 7 / 365, 0.25, 1.0, 2.0],
            [0.15, 0.3, 0.6, 1.2, 2.5],
            indexing="ij",
        )
    )
    F = np.full(z.shape, FORWARD)
    K = F * np.exp(z * vol * np.sqrt(tau))
    call = K >= F
    price = np.array([float(_exact(*point)) for point in zip(F, K, tau, vol, call, strict=True)])
    return F, K, tau, vol, call, price


def _exact(F, K, tau, vol, call):
    F, K = mp.mpf(float(F)), mp.mpf(float(K))
    s = mp.mpf(float(vol)) * mp.sqrt(mp.mpf(float(tau)))
    d1 = mp.log(F / K) / s + s / 2
    d2 = d1 - s
    return F * mp.ncdf(d1) - K * mp.ncdf(d2) if call else K * mp.ncdf(-d2) - F * mp.ncdf(-d1)


@pytest.fixture(scope="module")
def grid():
    return hard_grid()


def test_the_hard_grid_is_inverted_to_1e_12(grid):
    F, K, tau, vol, call, price = grid
    assert np.abs(implied_volatility(price, F, K, tau, call) - vol).max() <= 1e-12


def test_in_the_money_the_answer_is_as_good_as_the_price_s_last_digit(grid):
    """Price, strike and forward hold intrinsic + time value in 53 bits: what is lost there no method brings back.

    Tolerance: two units in the last place of the price, and of the intrinsic value, over vega.
    """
    F, K, tau, vol, call, time_value = grid
    price = np.array([float(_exact(*point)) for point in zip(F, K, tau, vol, ~call, strict=True)])
    iv = implied_volatility(price, F, K, tau, ~call)
    slack = 4.0 * np.spacing(price) / black.greeks(F, K, tau, vol, call).vega
    solvable = time_value > 64.0 * np.spacing(price)
    assert solvable.mean() > 0.6
    assert (np.abs(iv - vol)[solvable] <= (slack + 1e-12)[solvable]).all()


def test_one_step_from_the_table_settles_the_hard_grid(grid, monkeypatch):
    F, K, tau, _, call, price = grid
    implied_volatility(1.0, 100.0, 100.0, 1.0, True)  # makes the table
    monkeypatch.setattr(implied, "_bracketed", lambda *_: pytest.fail("more than one step was needed"))
    assert np.isfinite(implied_volatility(price, F, K, tau, call)).all()


def test_the_bracketed_steps_alone_are_as_good(grid, monkeypatch):
    F, K, tau, vol, call, price = grid
    monkeypatch.setattr(implied, "_start", lambda x, _: np.full_like(x, np.nan))
    assert np.abs(implied_volatility(price, F, K, tau, call) - vol).max() <= 1e-12


def test_it_agrees_with_lets_be_rational(grid):
    F, K, tau, _, call, price = grid
    rational = py_lets_be_rational.implied_volatility_from_a_transformed_rational_guess
    ours = implied_volatility(price, F, K, tau, call)
    for k in range(0, len(F), 7):
        assert ours[k] == pytest.approx(rational(price[k], F[k], K[k], tau[k], 1.0 if call[k] else -1.0), rel=1e-11)


def test_it_agrees_with_quantlib():
    for strike, vol in ((50_000.0, 0.8), (65_000.0, 0.5), (90_000.0, 0.6)):
        price = QuantLib.blackFormula(QuantLib.Option.Call, strike, FORWARD, vol * np.sqrt(0.25))
        theirs = QuantLib.blackFormulaImpliedStdDevLiRS(
            QuantLib.Option.Call, strike, FORWARD, price, 1.0, 0.0, 0.3, 1.0, 1e-14, 1000
        )
        ours = implied_volatility(price, FORWARD, strike, 0.25, True)
        assert ours == pytest.approx(theirs / np.sqrt(0.25), rel=1e-9)


@pytest.mark.parametrize(
    ("log_moneyness", "s"),
    [
        (0.0, 1e-5),
        (0.0, 9.0),
        (1e-4, 1e-4),
        (0.05, 0.0035),
        (0.5, 0.014),
        (3.0, 0.12),
        (20.0, 1.0),
        (40.0, 8.0),
        (0.2, 7.0),
    ],
)
def test_prices_far_beyond_the_table_are_inverted_too(log_moneyness, s):
    strike = 100.0 * np.exp(log_moneyness)
    price = float(_exact(100.0, strike, 1.0, s, True))
    # What the price's last digit is worth.
    step = price * 2.3e-16 / float(black.greeks(100.0, strike, 1.0, s, True).vega)
    assert implied_volatility(price, 100.0, strike, 1.0, True) == pytest.approx(s, rel=1e-10, abs=4 * step)


@given(st.floats(1e-2, 1e6), st.floats(-7.0, 7.0), st.floats(0.25 / 365, 2.0), st.floats(0.15, 2.5), st.booleans())
def test_price_and_back_is_where_it_began(forward, z, tau, vol, call):
    strike = forward * np.exp(z * vol * np.sqrt(tau))
    price = black.price(forward, strike, tau, vol, call)
    vega = black.greeks(forward, strike, tau, vol, call).vega
    if price - max(0.0, (forward - strike) if call else (strike - forward)) <= 64.0 * np.spacing(price):
        return  # the time value has no digits left
    slack = 4.0 * np.spacing(price) / vega if call == (forward > strike) else 0.0
    assert implied_volatility(price, forward, strike, tau, call) == pytest.approx(vol, abs=float(1e-12 + slack))


@pytest.mark.parametrize(
    ("price", "forward", "strike", "tau", "call", "why"),
    [
        (9.9, 100.0, 90.0, 0.5, True, "below intrinsic"),
        (10.0, 100.0, 90.0, 0.5, True, "at intrinsic"),
        (0.0, 100.0, 110.0, 0.5, True, "worthless"),
        (-1.0, 100.0, 110.0, 0.5, True, "negative"),
        (100.0, 100.0, 110.0, 0.5, True, "at a call's bound"),
        (110.0, 100.0, 110.0, 0.5, False, "at a put's bound"),
        (500.0, 100.0, 110.0, 0.5, True, "above the bound"),
        (5.0, 100.0, 110.0, 0.0, True, "no time"),
        (5.0, 100.0, 110.0, -0.5, True, "less than no time"),
        (np.nan, 100.0, 110.0, 0.5, True, "no price"),
        (5.0, np.nan, 110.0, 0.5, True, "no forward"),
        (5.0, 100.0, np.nan, 0.5, True, "no strike"),
        (5.0, 100.0, 110.0, np.nan, True, "no expiry"),
        (np.inf, 100.0, 110.0, 0.5, True, "infinite price"),
        (5.0, np.inf, 110.0, 0.5, False, "infinite forward"),
        (5.0, 100.0, np.inf, 0.5, True, "infinite strike"),
        (5.0, 100.0, 110.0, np.inf, True, "infinite time"),
        (5.0, 0.0, 110.0, 0.5, True, "no positive forward"),
        (5.0, 100.0, 0.0, 0.5, False, "no positive strike"),
        (-5.0, -100.0, -110.0, 0.5, True, "all negative"),
        (-5.0, -100.0, -100.0, 0.5, True, "all negative, where it would scale"),
    ],
)
def test_a_price_without_a_volatility_is_nan_and_alone_in_that(price, forward, strike, tau, call, why):
    good = (5.0, 100.0, 110.0, 0.5, True)
    columns = [
        np.array([fine, poor, fine]) for fine, poor in zip(good, (price, forward, strike, tau, call), strict=True)
    ]
    iv = implied_volatility(*columns)
    assert np.isnan(iv[1]), why
    assert iv[[0, 2]] == pytest.approx(float(implied_volatility(*good)), rel=1e-14)
    assert np.isnan(implied_volatility(price, forward, strike, tau, call)), why


def test_a_mixed_chain_is_inverted_as_its_elements_are_alone(grid):
    F, K, tau, _, call, price = (column[::11] for column in grid)
    whole = implied_volatility(price, F, K, tau, call)
    alone = [float(implied_volatility(*one)) for one in zip(price, F, K, tau, call, strict=True)]
    assert whole == pytest.approx(alone, rel=1e-13)


def test_scalars_and_arrays_broadcast_and_are_left_as_they_were():
    strikes = np.array([60_000.0, 70_000.0])
    prices = black.price(FORWARD, strikes, np.array([[0.1], [0.2]]), 0.5, True)
    before = prices.copy()
    assert implied_volatility(prices, FORWARD, strikes, np.array([[0.1], [0.2]]), True) == pytest.approx(
        np.full((2, 2), 0.5)
    )
    assert (prices == before).all()
    assert implied_volatility(prices[0, 0], FORWARD, 60_000, 0.1, True).shape == ()


def test_half_a_tick_over_vega_is_the_uncertainty():
    greek = black.greeks(FORWARD, 70_000.0, 0.25, 0.6, True)
    tick_usd = 0.0001 * FORWARD
    bumped = implied_volatility(greek.price + tick_usd / 2, FORWARD, 70_000.0, 0.25, True)
    assert implied.iv_uncertainty(tick_usd, greek.vega) == pytest.approx(float(bumped) - 0.6, rel=1e-3)
    assert implied.iv_uncertainty(tick_usd, 0.0) == np.inf
