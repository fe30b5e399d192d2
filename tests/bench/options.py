"""A thousand implied volatilities and all their Greeks: ours against two vectorised peers and a loop.

Every round runs all of them in turn, medians are taken over the calls; then the worst error in volatility of each on
one hard grid of out-of-the-money prices (|z| ≤ 7, six hours to two years, σ .15 to 2.5), rounded from 40 digits.

pyvolr and py_vollib give delta, gamma, theta, vega and rho, ours price, vanna and volga too. py_vollib_vectorized
takes its Greeks by finite differences. It does not compile as installed: its dependency py_lets_be_rational has
moved functions to packages without numba, so we compile those for it. The loop is run on 100 and scaled.
"""

import os
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import mpmath as mp  # type: ignore[import-untyped]
import numpy as np

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.pricing import black
from dea_daemon.pricing.implied import implied_volatility

COUNT, LOOPED, ROUNDS, REPEATS = 1_000, 100, 25, 5
UNJITTED = ("cody_special", "piecewise_rational")


class Chain(NamedTuple):
    """Columns [N] of one mixed chain."""

    forward: FloatArray
    strike: FloatArray
    tau: FloatArray
    iv: FloatArray
    call: np.ndarray[Any, np.dtype[np.bool_]]
    price: FloatArray


def rows() -> list[dict[str, Any]]:
    """name, ours, peer, peer_name, unit, ratio: speed, then worst errors."""
    chain, grid = _chain(), _hard_grid()
    peers = {"pyvolr": _pyvolr(), "py_vollib, a loop": _loop(), "py_vollib_vectorized": _py_vollib_vectorized(chain)}
    ours_ivs, ours_us, theirs_us = _measure(chain, peers)
    name = f"{COUNT:,} implied volatilities and all Greeks"
    table = [_row(name, ours_us, theirs_us[peer], peer, "us") for peer in peers]
    error = _worst(ours_ivs(grid), grid)
    for peer, (ivs, _) in peers.items():
        table.append(
            {
                "name": "implied volatility, worst error on a hard grid",
                "ours": float(f"{error:.1e}"),
                "peer": float(f"{_worst(ivs(grid), grid):.1e}"),
                "peer_name": peer,
                "unit": "vol",
                "ratio": None,
            }
        )
    return table


Ivs = Callable[[Chain], FloatArray]
Peer = tuple[Ivs, Callable[[Chain], Any]]


def _measure(chain: Chain, peers: dict[str, Peer]) -> tuple[Ivs, float, dict[str, float]]:
    """(our inversion, our µs, theirs) for volatilities and Greeks of one chain, interleaved."""

    def ours(c: Chain) -> FloatArray:
        return implied_volatility(c.price, c.forward, c.strike, c.tau, c.call)

    def greeks(c: Chain) -> Any:
        return black.greeks(c.forward, c.strike, c.tau, c.iv, c.call)

    few = Chain(*(column[:LOOPED] for column in chain))  # type: ignore[arg-type]
    contenders: dict[str, Peer] = {"ours": (ours, greeks), **peers}
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    for ivs, all_greeks in contenders.values():
        ivs(few), all_greeks(few)  # compiles, makes tables
    for _ in range(ROUNDS):
        for name, (ivs, all_greeks) in contenders.items():
            loop = name.endswith("loop")
            subject, repeats, scale = (few, 1, COUNT / LOOPED) if loop else (chain, REPEATS, 1.0)
            for _ in range(repeats):  # each timed alone: a median of calls is deaf to what interrupts a few
                began = time.perf_counter()
                ivs(subject), all_greeks(subject)
                spent[name].append((time.perf_counter() - began) * scale * 1e6)
    medians = {name: statistics.median(times) for name, times in spent.items()}
    return ours, medians.pop("ours"), medians


def _row(name: str, ours: float, peer: float, peer_name: str, unit: str) -> dict[str, Any]:
    return {
        "name": name,
        "ours": round(ours, 1),
        "peer": round(peer, 1),
        "peer_name": peer_name,
        "unit": unit,
        "ratio": round(peer / ours, 1),
    }


def _pyvolr() -> Peer:
    from pyvolr import black76

    def side(c: Chain) -> Any:
        return np.where(c.call, 1, -1)

    return (
        lambda c: np.asarray(black76.implied_vol(c.price, side(c), c.forward, c.strike, c.tau, 0.0, on_error="ignore")),
        lambda c: black76.greeks(side(c), c.forward, c.strike, c.tau, 0.0, c.iv),
    )


def _loop() -> Peer:
    """py_vollib's own functions, one option at a time; its package is called vollib now."""
    from vollib.black import implied_volatility as inversion  # type: ignore[import-untyped]
    from vollib.black.greeks import analytical  # type: ignore[import-untyped]

    greeks = [getattr(analytical, name) for name in ("delta", "gamma", "theta", "vega", "rho")]

    def ivs(c: Chain) -> FloatArray:
        one = inversion.implied_volatility_of_undiscounted_option_price
        flags = ["c" if call else "p" for call in c.call]
        return np.array([one(p, F, K, t, f) for p, F, K, t, f in _rows(c.price, c.forward, c.strike, c.tau, flags)])

    def all_greeks(c: Chain) -> Any:
        flags = ["c" if call else "p" for call in c.call]
        return [
            [greek(f, F, K, t, 0.0, v) for greek in greeks]
            for f, F, K, t, v in _rows(flags, c.forward, c.strike, c.tau, c.iv)
        ]

    return ivs, all_greeks


def _rows(*columns: Any) -> Any:
    """Python's own numbers row by row: the fairest food for a loop."""
    return zip(*(c.tolist() if isinstance(c, np.ndarray) else c for c in columns), strict=True)


def _py_vollib_vectorized(few: Chain) -> Peer:
    """Compiled here, by the one chain it is run on."""
    with warnings.catch_warnings(), _compiled_dependency():
        warnings.simplefilter("ignore")  # deprecations of what it imports
        import py_vollib_vectorized as vectorized  # type: ignore[import-untyped]

        invert = partial(vectorized.vectorized_implied_volatility_black, return_as="numpy", on_error="ignore")
        greeks = partial(vectorized.get_all_greeks, model="black", return_as="dict")

        def ivs(c: Chain) -> FloatArray:
            return np.asarray(invert(c.price, c.forward, c.strike, 0.0, c.tau, np.where(c.call, "c", "p")))

        def all_greeks(c: Chain) -> Any:
            return greeks(np.where(c.call, "c", "p"), c.forward, c.strike, c.tau, 0.0, c.iv)

        ivs(few), all_greeks(few)
    return ivs, all_greeks


@contextmanager
def _compiled_dependency() -> Iterator[None]:
    """numba for the functions that py_lets_be_rational imports from packages which do not know it; then as it was."""
    os.environ["PY_LETS_BE_RATIONAL_ENABLE_NUMBA"] = "1"
    import py_lets_be_rational  # type: ignore[import-untyped] # noqa: F401
    from numba import njit

    roots = (*UNJITTED, "py_lets_be_rational")
    compiled: dict[Any, Any] = {}
    replaced = []
    for module in [module for name, module in list(sys.modules.items()) if name.split(".")[0] in roots]:
        for name, function in list(vars(module).items()):
            if isinstance(function, types.FunctionType) and function.__module__.split(".")[0] in UNJITTED:
                replaced.append((module, name, function))
                setattr(module, name, compiled.setdefault(function, njit(function)))
    yield
    for module, name, function in replaced:
        setattr(module, name, function)


def _chain() -> Chain:
    """Mixed calls and puts as a venue lists them: mostly within 2.5 standard deviations, in the money too."""
    draw = np.random.default_rng(4)
    tau, iv = draw.uniform(1 / 365, 1.0, COUNT), draw.uniform(0.3, 1.2, COUNT)
    forward = np.full(COUNT, 65_000.0)
    strike = forward * np.exp(draw.uniform(-2.5, 2.5, COUNT) * iv * np.sqrt(tau))
    call = draw.random(COUNT) < 0.5
    return Chain(forward, strike, tau, iv, call, black.price(forward, strike, tau, iv, call))


def _hard_grid() -> Chain:
    z, tau, iv = (
        axis.ravel()
        for axis in np.meshgrid(
            np.linspace(-7.0, 7.0, 15), [0.25 / 365, 1 / 365, 7 / 365, 0.25, 1.0, 2.0], [0.15, 0.3, 0.6, 1.2, 2.5]
        )
    )
    forward = np.full(z.shape, 65_000.0)
    strike = forward * np.exp(z * iv * np.sqrt(tau))
    call = strike >= forward
    price = np.array([_exact(*one) for one in _rows(forward, strike, tau, iv, call)])
    return Chain(forward, strike, tau, iv, call, price)


def _exact(forward: float, strike: float, tau: float, iv: float, call: bool) -> float:
    """Out-of-the-money Black-76, rounded once."""
    with mp.workdps(40):
        F, K = mp.mpf(forward), mp.mpf(strike)
        s = mp.mpf(iv) * mp.sqrt(mp.mpf(tau))
        d1 = mp.log(F / K) / s + s / 2
        d2 = d1 - s
        return float(F * mp.ncdf(d1) - K * mp.ncdf(d2) if call else K * mp.ncdf(-d2) - F * mp.ncdf(-d1))


def _worst(ivs: FloatArray, grid: Chain) -> float:
    """Largest absolute error; NaN where a contender gave no answer."""
    return float(np.abs(ivs - grid.iv).max())
