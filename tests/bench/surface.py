"""What volatility surfaces cost: a fit beside SVI on the same chains, and the decisions beside which they are fitted.

The peer fits each expiry by itself with scipy's least squares (`research/svi.py`): five parameters, nothing between
expiries, arbitrage allowed. Both take the same quotes, volatilities made anew by each, in turns, in one process; a
surface is all expiries of one coin at one moment. Chains are recorded ones where there are any.

Decisions are those of the daemon as it runs, trading with `dea-daemon venue` in a process of its own and a chain of
options to follow. Its worker fits never, as configured (every five seconds), or as often as it is let; in turns.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.parameters import SurfaceParameters
from dea_daemon.domain.surfaces import Chain
from dea_daemon.pricing.surface.fit import fit
from dea_daemon.pricing.surface.quotes import prepare
from dea_daemon.research.svi import fit_svi
from dea_daemon.shell import logs
from dea_daemon.shell.settings import Settings
from tests.bench import order_path
from tests.pricing.known_surfaces import Heston, Ssvi, chain_of
from tests.wiring.processes import Venue

CHAINS = 24
REPEATS = 3
SVI_QUOTES = 5  # fewer than its parameters say nothing of them
ROUNDS, SECONDS, SETTLE_S = 3, 20.0, 5.0
FITTED = {
    "none fitted": SurfaceParameters(enabled=False),
    "fitted every 5 s": SurfaceParameters(),
    "fitted all the time": SurfaceParameters(every_s=0.05, at_most_every_s=0.05),
}


def rows(
    chains: int = CHAINS, rounds: int = ROUNDS, seconds: float = SECONDS, settle_s: float = SETTLE_S
) -> list[dict[str, Any]]:
    """name, ours, peer, peer_name, unit, ratio: fits, then decisions."""
    name, subjects = _chains(chains)
    return _fits(name, subjects) + _decisions(rounds, seconds, settle_s)


# --- fits -------------------------------------------------------------------------------------------


def _chains(wanted: int) -> tuple[str, list[Chain]]:
    """(what they are, so many of them): spread over all recorded ones, both coins in turn."""
    import pytest

    from tests.pricing.recorded_chains import recorded, snapshots

    try:
        every = snapshots()
    except pytest.skip.Exception:
        known = (Ssvi(), Heston())
        return "a surface (generated)", [chain_of(known[n % 2], half_spread_vol=0.01, seed=n) for n in range(wanted)]
    at = np.linspace(0, len(every) - 1, wanted).astype(int)
    return "a surface, recorded", [recorded(every[n], ("BTC", "ETH")[k % 2]) for k, n in enumerate(at)]


def _svi(chain: Chain) -> None:
    for quotes in prepare(chain):
        if len(quotes.k) >= SVI_QUOTES:
            fit_svi(quotes)


def _fits(name: str, chains: list[Chain]) -> list[dict[str, Any]]:
    """Of each chain the median of a few; then p50 and p99 over the chains."""
    contenders: tuple[Callable[[Chain], object], ...] = (fit, _svi)
    for one in contenders:
        one(chains[0])  # makes tables
    taken = np.array([_in_turns(chain, contenders) for chain in chains])
    table = []
    for percent in (50, 99):
        ours, peer = np.percentile(taken, percent, axis=0)
        table.append(
            {
                "name": f"{name}, p{percent}",
                "ours": round(float(ours), 1),
                "peer": round(float(peer), 1),
                "peer_name": "SVI of each expiry, scipy least_squares",
                "unit": "ms",
                "ratio": round(float(peer / ours), 2),
            }
        )
    return table


def _in_turns(chain: Chain, contenders: tuple[Callable[[Chain], object], ...]) -> list[float]:
    """Milliseconds of CPU each."""
    spent: list[list[float]] = [[] for _ in contenders]
    for _ in range(REPEATS):
        for times, one in zip(spent, contenders, strict=True):
            began_s = time.process_time()
            one(chain)
            times.append(1e3 * (time.process_time() - began_s))
    return [statistics.median(times) for times in spent]


# --- decisions --------------------------------------------------------------------------------------


def _decisions(rounds: int, seconds: float, settle_s: float) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="dea-bench-") as folder:
        samples = measure(Path(folder), rounds, seconds, settle_s)
    peer_name = next(iter(FITTED))
    without = samples.pop(peer_name)
    table = []
    for name, kept in samples.items():
        for what, part in (("decision", 0), ("event to order", 1)):
            for percent in (50, 99):
                ours, peer = (float(np.percentile(one[part], percent)) for one in (kept, without))
                table.append(
                    {
                        "name": f"{what}, surfaces {name}, p{percent}",
                        "ours": round(ours, 1),
                        "peer": round(peer, 1),
                        "peer_name": peer_name,
                        "unit": "us",
                        "ratio": round(peer / ours, 2),
                    }
                )
    return table


def measure(folder: Path, rounds: int, seconds: float, settle_s: float) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Of each way to fit: decisions [D] and event to order [M], µs."""
    venue = Venue(folder, scenario="volatile")
    kept: dict[str, list[order_path.Ours]] = {name: [] for name in FITTED}
    try:
        with (folder / "daemon.log").open("w") as log:
            logs.configure("warning", "json", log)
            begun = _settings(folder, venue, 0, next(iter(FITTED.values())))
            uvloop.run(order_path._ours(begun, 1.0, settle_s, True))  # warms up, and buys the book
            run = count(1)
            for number in range(rounds):
                for name, surfaces in list(FITTED.items())[:: -1 if number % 2 else 1]:
                    settings = _settings(folder, venue, next(run), surfaces)
                    kept[name].append(uvloop.run(order_path._ours(settings, seconds, settle_s, False)))
    finally:
        logs.configure()  # the file is closed: what is still said goes to stderr
        venue.close()
    return {
        name: (
            np.concatenate([one.decisions for one in samples]),
            np.concatenate([one.stages.sum(axis=1) for one in samples]),
        )
        for name, samples in kept.items()
    }


def _settings(folder: Path, venue: Venue, number: int, surfaces: SurfaceParameters) -> Settings:
    settings = order_path._settings(folder, venue, number, with_book=True)
    pricing = settings.pricing.model_copy(update={"surface": surfaces})
    return settings.model_copy(update={"pricing": pricing})
