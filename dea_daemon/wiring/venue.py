"""`dea-daemon venue`: the simulated venue by itself, on a loopback port, for whoever connects."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dea_daemon.shell.clock import Clock
from dea_daemon.shell.venue_server import VenueServer
from dea_daemon.simvenue import scenarios
from dea_daemon.simvenue.deribit import Deribit, Key, Limits
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.faults import FaultPlan

ACCOUNT = "main"


def venue_key(seed: int) -> Key:
    """The simulator's own test key: the same for the same seed, good for nothing else."""
    secret = hashlib.sha256(f"dea-daemon simvenue {seed}".encode()).hexdigest()[:43]
    return Key(f"sim-{seed}", secret, ACCOUNT)


def build_server(
    *,
    seed: int,
    scenario: str,
    port: int = 0,
    log: Path | None = None,
    faults: tuple[str, ...] = (),
    limits: Limits | None = None,
    clock: Callable[[], int] | None = None,
) -> VenueServer:
    """A venue and its server, not started. Raises ConfigError on an unknown scenario or fault."""
    chosen = scenarios.load(scenario)
    clock = clock or Clock().now_ns
    exchange = Exchange(chosen, seed, clock())
    exchange.open_account(ACCOUNT, dict(chosen.deposits))
    plan = FaultPlan(seed, faults)
    return VenueServer(
        Deribit(exchange, [venue_key(seed)], limits=limits, faults=plan),
        faults=plan,
        log=log,
        latency_ms=chosen.latency_ms,
        latency_jitter_ms=chosen.latency_jitter_ms,
        seed=seed,
        port=port,
        clock=clock,
    )


async def serve_venue(
    *,
    port: int,
    seed: int,
    scenario: str,
    log: Path | None,
    faults: tuple[str, ...] = (),
    emit: Callable[[dict[str, Any]], None],
) -> None:
    """Serve until cancelled. The first thing emitted is `venue.listening`.

    Raises ConfigError: unknown scenario or fault, port taken, log not writable.
    """
    server = build_server(seed=seed, scenario=scenario, port=port, log=log, faults=faults)
    key = venue_key(seed)
    async with server:
        emit(
            {
                "event": "venue.listening",
                "http_url": server.http_url,
                "ws_url": server.ws_url,
                "client_id": key.client_id,
                "client_secret": key.client_secret,
            }
        )
        await server.wait()
