"""What a test's worker calls in place of a fit: the chain's underlying says what is to go wrong."""

import importlib
import os
import sys
import time

from dea_daemon.domain.commands import FitSurface
from dea_daemon.domain.events import SurfaceFitted
from dea_daemon.domain.surfaces import Chain

FUNCTION = "tests.shell.surface_stub:fit"
FOR_EVER_S = 600.0


def question(underlying: str, number: int = 0) -> FitSurface:
    """Of one quote, with a side that is missing."""
    chain = Chain(
        underlying, number, (7,), (7,), (90_000.0,), (95_000.0,), (True,), (0.0,), (float("nan"),), (5.0,), (0.25,)
    )
    return FitSurface(chain, 0.5)


def fit(chain: Chain, max_iv_spread: float) -> SurfaceFitted:
    """Not published, because of whatever was asked for."""
    why = f"{chain} {max_iv_spread}"
    match chain.underlying:
        case "SLOW":
            time.sleep(0.3)
        case "BUSY":
            end = time.perf_counter() + 1.0
            while time.perf_counter() < end:
                pass
        case "HANG":
            time.sleep(FOR_EVER_S)
        case "DIE":
            os._exit(3)
        case "ODD":
            raise ZeroDivisionError("nobody quotes")
        case "LOUD":
            sys.stdout.write("a library's word")
            sys.stdout.flush()
        case "WORLD":
            importlib.import_module("dea_daemon.pricing.surface.fit")
            heavy = {"ccxt", "aiohttp", "websockets", "pydantic"} & sys.modules.keys()
            why = f"nice {os.getpriority(os.PRIO_PROCESS, 0)}, {os.environ['OPENBLAS_NUM_THREADS']} thread, {heavy}"
    return SurfaceFitted(0, chain.underlying, chain.utc_ns, why=why)
