"""Black-76 on a forward: prices, Greeks, and what becomes of them where the premium is paid in coin.

Values are undiscounted and in USD per coin of underlying. Every function takes arrays or scalars that broadcast,
calls and puts mixed. An element that cannot be priced (not finite, forward or strike not positive) is NaN, alone
and without a warning. Source: Black 1976; the out-of-the-money side is always the one computed, the other follows by
put-call parity, so that deep wings keep their digits.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import erfcx, ndtr

from dea_daemon.domain.instruments import FloatArray

Floats = npt.ArrayLike  # float64, or what becomes it; broadcasts
SQRT_2 = np.sqrt(2.0)
INV_SQRT_2PI = 1.0 / np.sqrt(2.0 * np.pi)


class Greeks(NamedTuple):
    """All of the shape the inputs broadcast to. F is the forward, t calendar time, σ the volatility."""

    price: FloatArray  # V, USD
    delta: FloatArray  # ∂V/∂F
    gamma: FloatArray  # ∂²V/∂F², 1/USD
    vega: FloatArray  # ∂V/∂σ, USD per 1.00 of volatility
    theta: FloatArray  # ∂V/∂t at fixed F, USD per year
    vanna: FloatArray  # ∂²V/∂F∂σ
    volga: FloatArray  # ∂²V/∂σ², USD


def aligned(call: npt.ArrayLike, *values: Floats) -> tuple[tuple[int, ...], npt.NDArray[np.bool_], list[FloatArray]]:
    """(shape, call, values): the inputs at the shape they broadcast to, at least [1]; the shape itself may be ().

    Raises ValueError where they do not broadcast. What comes back may be the caller's own arrays: not to be written.
    """
    flags = np.asarray(call, dtype=np.bool_)
    arrays = [np.asarray(value, dtype=np.float64) for value in values]
    shape = flags.shape
    if shape and all(array.shape == shape for array in arrays):
        return shape, flags, arrays  # the common case, for which broadcasting is slow
    shape = np.broadcast_shapes(shape, *(array.shape for array in arrays))
    full = shape or (1,)
    return shape, np.broadcast_to(flags, full), [np.broadcast_to(array, full) for array in arrays]


def price(forward: Floats, strike: Floats, tau_years: Floats, iv: Floats, call: npt.ArrayLike) -> FloatArray:
    """Value, USD. At no time or no volatility left (zero or below) it is the intrinsic value.

    The out-of-the-money value keeps its relative accuracy however small it is, by erfcx: a difference of two normal
    probabilities would not. Source: Jäckel 2015, Let's be rational, eq. 2.6 and section 6.
    """
    shape, is_call, (F, K, tau, vol) = aligned(call, forward, strike, tau_years, iv)
    with np.errstate(all="ignore"):
        s = np.maximum(vol, 0.0) * np.sqrt(np.maximum(tau, 0.0))
        x = -np.abs(np.log(F / K))
        value = np.sqrt(F) * np.sqrt(K) * np.exp(log_normalised(x, s))
        value = np.where(s == 0.0, 0.0 * x, value)  # 0·x, so that NaN stays NaN
        value += np.where(is_call == (F > K), np.abs(F - K), 0.0)
    value[~((F > 0.0) & (K > 0.0))] = np.nan
    return np.reshape(value, shape)


def log_normalised(x: FloatArray, s: FloatArray) -> FloatArray:
    """ln of the option's value over √(FK), at x = −|ln(F/K)| and s = σ√τ > 0; −inf where s is too small.

    ln b = −(h² + t²)/2 + ln ½[erfcx(−(h + t)/√2) − erfcx(−(h − t)/√2)], h = x/s, t = s/2. Source: as `price`.
    """
    h, t = x / s, s / 2.0
    near, far = -(h + t) / SQRT_2, (t - h) / SQRT_2
    # Where t outweighs −h erfcx grows without bound: 2 N(d1) e^{d1²/2} is the same, its exponent taken apart.
    wide = near < -5.0
    gap = np.where(wide, 2.0 * ndtr(h + t), erfcx(np.where(wide, 0.0, near))) - np.where(
        wide, erfcx(far) * np.exp(-near * near), erfcx(far)
    )
    log_value: FloatArray = np.where(wide, x / 2.0, -(h * h + t * t) / 2.0) + np.log(gap / 2.0)
    return log_value


def greeks(forward: Floats, strike: Floats, tau_years: Floats, iv: Floats, call: npt.ArrayLike) -> Greeks:
    """Value and sensitivities in one pass.

    At no time or no volatility left: the intrinsic value and its delta (half of it at the money), the rest zero. Here
    the value is a difference of normal probabilities: a deep wing's last digits are better in `price`.
    """
    shape, is_call, (F, K, tau, vol) = aligned(call, forward, strike, tau_years, iv)
    with np.errstate(all="ignore"):
        result = _greeks(F, K, tau, vol, is_call)
        priced = np.minimum(F, K) > 0.0
    if not priced.all():
        for values in result:
            values[~priced] = np.nan
    return result if result.price.shape == shape else Greeks(*(values.reshape(shape) for values in result))


def _greeks(F: FloatArray, K: FloatArray, tau: FloatArray, vol: FloatArray, call: npt.NDArray[np.bool_]) -> Greeks:
    """`greeks` of arrays of one shape: in place, in as few passes as we found.

    On the out-of-the-money side V = low N(near) − high N(far), near and far = −|ln(F/K)|/s ± s/2. There F φ(d1) is
    low φ(near), and d1 d2 is near · far.
    """
    low, high, put_side = np.minimum(F, K), np.maximum(F, K), F > K
    root = np.sqrt(tau)
    s = vol * root
    half = 0.5 * s
    d = F / K
    np.log(d, out=d)
    d /= s
    far = np.abs(d)
    near = half - far
    far += half
    np.negative(far, out=far)
    d -= half  # d2

    delta, beyond = ndtr(near), ndtr(far)
    price = low * delta
    price -= high * beyond
    delta = np.where(put_side, 1.0 - beyond, delta)
    delta -= ~call

    vega = near * near
    vega *= -0.5
    np.exp(vega, out=vega)
    vega *= INV_SQRT_2PI
    vega *= low
    gamma = vega / F
    d *= gamma
    d /= vol  # minus vanna
    gamma /= F
    gamma /= s
    vega *= root
    theta = vega * vol
    theta *= -0.5
    theta /= tau
    near *= far
    near *= vega
    near /= vol
    result = Greeks(price, delta, gamma, vega, theta, vanna=np.negative(d, out=d), volga=near)

    if not (s > 0.0).all():
        _expire(result, F, K, tau, vol, call)
    high -= low
    high *= call == put_side  # in the money: intrinsic
    price += high
    return result


def _expire(
    result: Greeks, F: FloatArray, K: FloatArray, tau: FloatArray, vol: FloatArray, call: npt.NDArray[np.bool_]
) -> None:
    """Sets what has no time value left, all but its intrinsic value; an input's NaN stays."""
    dead = (vol <= 0.0) | (tau <= 0.0)
    zero = (0.0 * (F + K + tau + vol))[dead]
    for values in result:
        values[dead] = zero
    result.delta[dead] += (np.heaviside(F - K, 0.5) - ~call)[dead]


def coin_price(usd_price: Floats, forward: Floats) -> FloatArray:
    """Price in coin per coin of underlying: c = V/F. `usd_price` undiscounted. Source: Deribit's inverse options."""
    return np.asarray(np.divide(usd_price, forward))


def premium_adjusted_delta(delta: Floats, coin_price: Floats) -> FloatArray:
    """Δ − V/F, coins: what is left of Δ once the option's own worth is held in coin. A call's is (K/F) N(d2).

    It is F ∂c/∂F of the coin price c. Source: Deribit's net transaction delta, OKX's deltaPA.
    """
    return np.asarray(np.subtract(delta, coin_price))


def premium_adjusted_gamma(gamma: Floats, premium_adjusted_delta: Floats, forward: Floats) -> FloatArray:
    """F² ∂²c/∂F² = F Γ − 2 Δ_PA, coins; Γ in the forward. Source: OKX's gammaPA."""
    return np.asarray(np.multiply(forward, gamma) - np.multiply(2.0, premium_adjusted_delta))


def premium_adjusted_vega(vega: Floats, forward: Floats) -> FloatArray:
    """∂c/∂σ = ν/F, coins per 1.00 of volatility (OKX's vegaPA is a hundredth: per point)."""
    return np.asarray(np.divide(vega, forward))


def premium_adjusted_theta(theta: Floats, forward: Floats) -> FloatArray:
    """∂c/∂t = Θ/F at fixed forward, coins per year (OKX's thetaPA is a 365th: per day)."""
    return np.asarray(np.divide(theta, forward))


def sticky_moneyness_delta(delta: Floats, vega: Floats, smile_slope: Floats, forward: Floats) -> FloatArray:
    """dV/dF where the smile moves with the forward: Δ − ν (∂σ/∂k)/F, `smile_slope` ∂σ/∂k at k = ln(K/F).

    By the chain rule on V(F, σ(ln K/F)): ∂k/∂F = −1/F. A smile falling in k (dear puts) adds to delta.
    """
    return np.asarray(np.subtract(delta, np.multiply(vega, smile_slope) / np.asarray(forward)))
