"""Implied volatility from an option's price.

The out-of-the-money price is taken in units of min(F, K), where call and put are one function of x = −|ln(F/K)| and
s = σ√τ: c = N(h + t) − e^{−x} N(h − t), h = x/s, t = s/2. s comes from a look-up table (within 1e-4 of itself), then
one Householder step of third order on ln c, whose error is about the fourth power of what the table left. Where the
step was not small, steps inside a bracket follow. Source: Jäckel 2015, Let's be rational, sections 4 to 6; the table
and its coordinates are ours.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.pricing.black import INV_SQRT_2PI, Floats, aligned, log_normalised

STEP_MAX = 3e-4  # relative; the error after such a step is about its fourth power, below rounding
STEPS_MAX = 120  # of the bracketed kind: a start at one end of the doubles needs most of them
DEPTH_CELLS, WIDTH_CELLS = 256, 80  # of the table, which reaches |z| = 7.5 and more, and s = 20
DEPTH_MAX, WIDTH_MAX, DEPTH_SHIFT = 38.0, 60.0, 0.3
DEPTH_SCALE = DEPTH_CELLS / (np.sqrt(DEPTH_MAX + DEPTH_SHIFT) - np.sqrt(DEPTH_SHIFT))
WIDTH_SCALE = WIDTH_CELLS / np.log1p(WIDTH_MAX)


def implied_volatility(
    price: Floats, forward: Floats, strike: Floats, tau_years: Floats, call: npt.ArrayLike
) -> FloatArray:
    """σ per √year, of the shape the inputs broadcast to. `price` is undiscounted, USD per coin of underlying.

    NaN, in that element only: a price at or below intrinsic, at or above its bound (F of a call, K of a put), no time
    left, anything not finite or not positive. In the money, intrinsic is taken off first (parity): the answer is as
    good as the digits of time value that the price still holds, see `iv_uncertainty`.
    """
    shape, is_call, (V, F, K, tau) = aligned(call, price, forward, strike, tau_years)
    with np.errstate(all="ignore"):
        low, high = np.minimum(F, K), np.maximum(F, K)
        ratio = high / low
        high -= low
        high *= is_call == (F > K)  # intrinsic
        value = V - high
        value /= low
        x = np.log(ratio)
        np.negative(x, out=x)
        s, step = _step(x, ratio, value, _start(x, value))
        iv = np.divide(s, np.sqrt(tau), out=s)
        settled = (np.abs(step) <= STEP_MAX) & (iv > 0.0) & (iv < np.inf) & (low > 0.0)
        if not settled.all():
            _mend(iv, settled, x, np.where(low > 0.0, value, np.nan), tau)
    return iv.reshape(shape)


def _mend(iv: FloatArray, settled: npt.NDArray[np.bool_], x: FloatArray, value: FloatArray, tau: FloatArray) -> None:
    """Gives the elements that one step did not settle their answer: more steps, or NaN where there is none."""
    iv[~settled] = np.nan
    rough = ~settled & (value > 0.0) & (value < 1.0) & np.isfinite(x) & (tau > 0.0) & (tau < np.inf)
    if rough.any():
        iv[rough] = _bracketed(x[rough], value[rough]) / np.sqrt(tau[rough])


def prepare() -> None:
    """Make the table now: it takes some 50 ms, which the first call in a decision would lack."""
    _table()


def iv_uncertainty(tick_usd: Floats, vega: Floats) -> FloatArray:
    """How far half a tick moves the implied volatility: ½ tick/ν, σ units. A coin tick is tick · F in USD."""
    with np.errstate(all="ignore"):
        return np.asarray(0.5 * np.asarray(tick_usd) / np.asarray(vega))


def _step(x: FloatArray, ratio: FloatArray, value: FloatArray, s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(s improved, relative step): one step on ln c from `s`, the normal probabilities taken as they are."""
    t = 0.5 * s
    h = x / s
    near = h + t
    model = ndtr(near)
    model -= ratio * ndtr(h - t)
    near *= near
    near *= -0.5
    np.exp(near, out=near)
    near *= s
    near *= INV_SQRT_2PI
    near /= model
    model /= value
    step = householder(np.log(model, out=model), near, h, t)
    return s + s * step, step


def householder(gap: FloatArray, slope: FloatArray, h: FloatArray, t: FloatArray) -> FloatArray:
    """ds/s that closes gap = ln(model/market), of third order; slope = s ∂ln c/∂s = `r`.

    With b″/b′ = (h² − t²)/s and b‴/b′ = ((h² − t²)² − 3h² − t²)/s²; f = ln b has f″/f′ = b″/b′ − r and
    f‴/f′ = b‴/b′ − 3r b″/b′ + 2r², times s and s². Source: as the module's, appendix on Householder's method.
    """
    hh, tt = h * h, t * t
    second = hh - tt
    third = second * second
    hh *= 3.0
    third -= hh
    third -= tt
    third += slope * (2.0 * slope - 3.0 * second)
    second -= slope
    newton = gap / slope
    np.negative(newton, out=newton)
    third *= newton
    third *= 1.0 / 6.0
    third += second
    third *= newton
    third += 1.0
    second *= newton
    second *= 0.5
    second += 1.0
    second *= newton
    second /= third
    return second


def _bracketed(x: FloatArray, value: FloatArray) -> FloatArray:
    """s [M] by steps kept inside a bracket, on logarithms of tail-safe functions; NaN where none settles."""
    target = np.log(value) + 0.5 * x
    s = np.clip(np.where(value > 0.5, np.sqrt(-8.0 * np.log1p(-value)), np.sqrt(-2.0 * x) + value), 1e-290, 60.0)
    below, above, settled = np.zeros_like(s), np.full_like(s, np.inf), np.zeros(s.shape, np.bool_)
    for _ in range(STEPS_MAX):
        model = log_normalised(x, s)
        gap = model - target
        h, t = x / s, 0.5 * s
        slope = s * INV_SQRT_2PI * np.exp(-0.5 * (h * h + t * t) - model)
        step = householder(gap, slope, h, t)
        below, above = np.where(gap < 0.0, s, below), np.where(gap > 0.0, s, above)
        step = np.where(np.isfinite(step), step, -np.sign(gap))
        moved = s * (1.0 + np.clip(step, -0.5, 1.0))
        inside = (moved >= below) & (moved <= above)
        s = np.where(settled, s, np.where(inside, moved, 0.5 * (below + above)))
        settled |= np.abs(step) <= STEP_MAX
        if settled.all():
            break
    return np.where(settled, s, np.nan)


# The table. With q = −2 ln(1 − c) and y = q − x, s/y is smooth in depth ln(y/q) (0 at the money, about z²/2 + 2 ln z
# far out) and width y: at the money s → √(2π) c, far out s → −x/z. One plane per cell of the two coordinates.


class Table(NamedTuple):
    """s/y in each cell is origin + along · (depth's coordinate) + wide · (width's); flattened."""

    origin: FloatArray
    along: FloatArray
    wide: FloatArray


def _start(x: FloatArray, value: FloatArray) -> FloatArray:
    """s from the table, relative error below 2e-4 inside it. Shapes [M]; NaN, or its edge's plane, outside."""
    table = _table()
    q = np.log1p(-value)
    q *= -2.0
    y = q - x
    depth = np.divide(y, q, out=q)
    np.log(depth, out=depth)
    depth += DEPTH_SHIFT
    np.sqrt(depth, out=depth)
    depth -= np.sqrt(DEPTH_SHIFT)
    depth *= DEPTH_SCALE
    width = np.log1p(y)
    width *= WIDTH_SCALE
    cell = np.fmin(depth, DEPTH_CELLS - 1).astype(np.intp)
    cell *= WIDTH_CELLS
    cell += np.fmin(width, WIDTH_CELLS - 1).astype(np.intp)
    depth *= table.along.take(cell, mode="clip")
    width *= table.wide.take(cell, mode="clip")
    depth += width
    depth += table.origin.take(cell, mode="clip")
    depth *= y
    return depth


@cache
def _table() -> Table:
    """Made at first use by the bracketed solver (some 50 ms), the same bits every time."""
    i, j = np.meshgrid(np.arange(DEPTH_CELLS + 1.0), np.arange(WIDTH_CELLS + 1.0), indexing="ij")
    depth = np.maximum((i / DEPTH_SCALE + np.sqrt(DEPTH_SHIFT)) ** 2 - DEPTH_SHIFT, 0.0)
    y = np.maximum(np.expm1(j / WIDTH_SCALE), 1e-6)
    q = y * np.exp(-depth)
    with np.errstate(all="ignore"):
        s = _bracketed((q - y).ravel(), -np.expm1(-0.5 * q).ravel()).reshape(y.shape)
    a, b, c, d = (s / y)[:-1, :-1], (s / y)[1:, :-1], (s / y)[:-1, 1:], (s / y)[1:, 1:]
    along, wide = 0.5 * (b - a + d - c), 0.5 * (c - a + d - b)
    origin = 0.25 * (a + b + c + d) - along * (i[:-1, :-1] + 0.5) - wide * (j[:-1, :-1] + 0.5)
    return Table(origin.ravel(), along.ravel(), wide.ravel())
