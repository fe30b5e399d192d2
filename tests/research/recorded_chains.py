"""Chains the tests write down themselves, and surfaces fitted to them by nobody."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from dea_daemon.domain.events import SurfaceFitted
from dea_daemon.domain.surfaces import Chain, Rung, Smile, Tenor
from dea_daemon.pricing import black
from dea_daemon.pricing.surface.lattice import lattice
from dea_daemon.pricing.surface.surface import YEAR_NS

UTC_NS = 1_770_282_000_000_000_000  # 2026-02-05T09:00Z
DAY_NS = 86_400_000_000_000
IV, HALF = 0.6, 0.02


def chain(days=(7, 30, 90), count=9, iv=IV, half=HALF, underlying="BTC", forward=70_000.0, utc_ns=UTC_NS, ticks=1e-4):
    """`count` strikes of each expiry at one volatility, bid and ask `half` of a volatility below and above."""
    rows: list[tuple[Any, ...]] = []
    for day in days:
        tau = day / 365.0
        for k in np.linspace(-1.5, 1.5, count) * iv * np.sqrt(tau):
            strike, call = forward * np.exp(k), bool(k >= 0.0)
            bid, ask = (float(black.price(forward, strike, tau, iv + side, call)) for side in (-half, half))
            rows.append((utc_ns + day * DAY_NS, forward, float(strike), call, bid, ask, ticks * forward, 0.0))
    columns: list[Any] = [tuple(column) for column in zip(*rows, strict=True)]
    return Chain(underlying, utc_ns, tuple(utc_ns + day * DAY_NS for day in days), *columns)


def flat(of: Chain, iv: float | dict[int, float] = IV, dropped: int = 0, why: str = "") -> SurfaceFitted:
    """A surface of one volatility, or of one an expiry (by days)."""
    grid = lattice()
    smiles = []
    for end in of.expiries if not why else ():
        days = (end - of.utc_ns) // DAY_NS
        level = iv[days] if isinstance(iv, dict) else iv
        variance = np.full(len(grid.k), level**2 * (end - of.utc_ns) / YEAR_NS)
        quoted = [np.log(s / f) for s, f, e in zip(of.strike, of.forward, of.expiry_ns, strict=True) if e == end]
        low, high = (float(min(quoted)), float(max(quoted))) if quoted else (np.nan, np.nan)
        smiles.append(Smile(end, 70_000.0, tuple(variance.tolist()), Rung.FITTED, low, high, len(quoted), dropped))
    tenors = () if why else (Tenor(30.0, 0.6, -0.05, 0.02),)
    return SurfaceFitted(0, of.underlying, of.utc_ns, grid.scale, tuple(smiles), tenors, why=why)


def rows(of: Chain) -> dict[str, list[Any]]:
    """The chain as columns of a recorded file: prices in coin, the mark at IV."""

    def moment(ns: int) -> datetime:
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=ns // 1_000)

    def coin(prices):
        return [price / f if price > 0.0 else None for price, f in zip(prices, of.forward, strict=True)]

    count = len(of.strike)
    return {
        "timestamp": [moment(of.utc_ns)] * count,
        "currency": [of.underlying] * count,
        "option_type": ["call" if call else "put" for call in of.call],
        "strike": list(of.strike),
        "expiry_datetime": [moment(ns) for ns in of.expiry_ns],
        "underlying": list(of.forward),
        "bid_price": coin(of.bid),
        "ask_price": coin(of.ask),
        "implied_volatility": [IV] * count,
    }
