"""What a history of faults costs: the whole core, its venue and the oracle, on one CPU."""

import time
from typing import Any

from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.wiring.simulate.world import START_NS, World

SEED = 7
SECONDS = 60.0


def rows(seconds: float = SECONDS) -> list[dict[str, Any]]:
    """Simulated hours and core steps a second of CPU, without options and with them: name, ours, unit; no peer."""
    return [row for options in (False, True) for row in _rows(options, seconds)]


def _rows(options: bool, seconds: float) -> list[dict[str, Any]]:
    world = World(SEED, storm=1.0, scenario="options" if options else "default", options=options)
    began_s = time.process_time()
    world.run(seconds)
    cpu_s = time.process_time() - began_s
    hours = (world.now_ns - START_NS) / NS_PER_S / 3_600
    name = f"history of faults{' with options' if options else ''}, seed {SEED}"
    return [
        {"name": name, "ours": round(hours / cpu_s, 4), "unit": "simulated h/CPU s"},
        {"name": f"{name}, core", "ours": round(world.steps / cpu_s), "unit": "steps/CPU s"},
    ]
