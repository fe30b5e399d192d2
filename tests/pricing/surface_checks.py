"""What any surface must be, taken from its prices and not from the formulae that its own gate uses."""

import numpy as np

from dea_daemon.domain.events import SurfaceFitted
from dea_daemon.domain.instruments import BoolArray, FloatArray
from dea_daemon.domain.surfaces import Chain
from dea_daemon.pricing import black
from dea_daemon.pricing.surface.quotes import Quotes, prepare
from dea_daemon.pricing.surface.surface import Surface

CHECKED = np.linspace(-1.5, 1.5, 3_001)  # where a published surface is free of arbitrage
ROUNDING = 1e-12  # of a forward: what a price is exact to


def surface_of(fitted: SurfaceFitted) -> Surface:
    """Raises AssertionError where nothing was published."""
    assert fitted.why == "" and fitted.smiles, fitted.why
    return Surface(fitted.chain_utc_ns, fitted.scale, fitted.smiles)


def prices(surface: Surface, smile: int, k: FloatArray, call: bool | BoolArray) -> FloatArray:
    """[M] of options on a forward of 1 at strikes e^k."""
    w, _, _ = surface.total_variance(np.full(len(k), smile), k)
    return black.price(1.0, np.exp(k), 1.0, np.sqrt(w), call)


def arbitrages(surface: Surface, k: FloatArray = CHECKED) -> list[str]:
    """Butterflies and calendars that earn something at k, by prices alone: each as words."""
    found, before, strike = [], None, np.exp(k)
    for smile in range(len(surface.smiles)):
        calls, puts = prices(surface, smile, k, True), prices(surface, smile, k, False)
        if not (np.isfinite(calls).all() and np.isfinite(puts).all()):
            found.append(f"smile {smile}: a price is not finite")
        for name, values in (("calls", calls), ("puts", puts)):
            slope = np.diff(values) / np.diff(strike)
            room = 2.0 * ROUNDING / np.diff(strike).min()
            if not (np.diff(slope) >= -room).all():
                found.append(f"smile {smile}: {name} not convex by {-np.diff(slope).min():.1e}")
            low, high = (-1.0, 0.0) if name == "calls" else (0.0, 1.0)
            if not ((slope >= low - room) & (slope <= high + room)).all():
                found.append(f"smile {smile}: a spread of {name} costs more than it can pay, or less than nothing")
        cheap = np.where(k >= 0.0, calls, puts)
        if before is not None and not (cheap >= before - ROUNDING).all():
            found.append(f"smile {smile}: cheaper than the one before by {(before - cheap).max():.1e}")
        before = cheap
    return found


def inside(surface: Surface, quotes: list[Quotes]) -> tuple[int, int]:
    """(how many have the surface between bid and ask, of how many)."""
    good = total = 0
    for q in quotes:
        iv = surface.look_up(np.full(len(q.k), q.expiry_ns), q.k).iv
        good += int(((iv >= q.low) & (iv <= q.high)).sum())
        total += len(q.k)
    return good, total


def share_inside(surface: Surface, chain: Chain) -> float:
    """Of all quotes that a fit may use."""
    good, total = inside(surface, prepare(chain))
    return good / total
