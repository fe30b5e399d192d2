"""What the simulated venue costs: its own CPU time for each second of its world, without sockets."""

import time
from typing import Any

from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.scenarios import load
from tests.house import START_NS

SECONDS = 60


def rows(seconds: int = SECONDS) -> list[dict[str, Any]]:
    """A row for the default market and one for a wild one: name, ours, unit; there is no peer."""
    return [_row(scenario, seconds) for scenario in ("default", "volatile")]


def _row(scenario: str, seconds: int) -> dict[str, Any]:
    exchange = Exchange(load(scenario), 7, START_NS)
    began_s = time.process_time()
    for second in range(1, seconds + 1):
        exchange.advance(START_NS + second * NS_PER_S)
        exchange.events()  # as a server takes them: they must not pile up
    cpu_s = (time.process_time() - began_s) / seconds
    name = f"simulated venue, {scenario}, {len(exchange.contracts)} contracts"
    return {"name": name, "ours": round(cpu_s, 4), "unit": "CPU s/simulated s"}
