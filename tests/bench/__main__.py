"""`python -m tests.bench`: every row measured, shown in one table and written to build/bench.json.

A ratio is peer/ours: how many times faster we are. Figures of a shared or busy machine are worth little.
"""

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import ccxt
import numpy as np
from rich.console import Console
from rich.table import Table

from dea_daemon import __version__

MODULES = (
    "records",
    "venue",
    "feeds",
    "order_path",
    "exposure",
    "options",
    "surface",
    "guards",
    "solver",
    "simulate",
    "bars",
    "rebalancing",
)
OUTPUT = Path("build/bench.json")
FIELDS = ("name", "ours", "peer", "peer_name", "unit", "ratio")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return {
        "cpu": next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), ""),
        "cores": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "ccxt": ccxt.__version__,
        "dea_daemon": __version__,
    }


def collect(modules: list[str], console: Console) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows with all FIELDS, absent ones None; and notes on rows that are not there."""
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for name in modules:
        console.print(f"measuring {name}", style="dim")
        for row in importlib.import_module(f"tests.bench.{name}").rows():
            rows.append({field: row.get(field) for field in FIELDS})
            if "generated" in row["name"]:
                notes.append(f"{row['name']}: no recorded data here (set DEA_SHARED_DATA); the messages are made up")
    return [row for row in rows if "generated" not in row["name"]], notes


def table(rows: list[dict[str, Any]]) -> Table:
    drawn = Table("what", "ours", "peer", "unit", "ratio", "peer is", box=None)
    for column in drawn.columns[1:3] + drawn.columns[4:5]:
        column.justify = "right"
    for row in rows:
        ours, peer, ratio = (f"{row[f]:,g}" if row[f] is not None else "" for f in ("ours", "peer", "ratio"))
        drawn.add_row(row["name"], ours, peer, row["unit"], ratio, row["peer_name"] or "")
    return drawn


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    options.add_argument("--only", choices=MODULES, action="append", help="one module; may be given again")
    chosen = options.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    facts = machine()  # its load is from before we began
    rows, notes = collect(chosen.only or list(MODULES), console)
    console.print(table(rows))
    for note in notes:
        console.print(f"note: {note}")
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps({"rows": rows, "notes": notes, "machine": facts}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
