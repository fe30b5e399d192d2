"""What a backtest over candles costs: 45,000 one-minute bars of two perpetuals, beside NautilusTrader where it is.

The peer is a program of another Python: DEA_NAUTILUS_PYTHON names one with nautilus_trader 1.221. Both get the same
bars, already in memory, and are timed by the CPU they use, in turn. A bar is one minute of both contracts. Deciding
every hour, ours joins the minutes between two decisions, as `dea-daemon backtest --history` does, and counts minutes.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.research.candles import Candles, History, Market
from dea_daemon.shell.settings import Settings, load
from dea_daemon.wiring.candles import CandleRun, bars_of
from dea_daemon.wiring.demo import config_file
from dea_daemon.wiring.history import Recorder

BARS = 45_000
MINUTE_NS = 60_000_000_000
START_NS = 1_600_041_600_000_000_000  # a midnight
CONTRACTS = {"BTCUSDT": (20_000.0, 1), "ETHUSDT": (500.0, 2)}  # first price, decimals
SETTINGS = (("an hour", 60, 3), ("a bar", 1, 1))  # decided every so many minutes, so many runs


def rows(bars: int = BARS) -> list[dict[str, Any]]:
    """name, ours, peer, peer_name, unit, ratio (ours/peer: more is better here)."""
    candles = [walk(seed, *CONTRACTS[symbol], bars) for seed, symbol in enumerate(CONTRACTS)]
    with tempfile.TemporaryDirectory(prefix="dea-bench-") as folder:
        shared = Path(folder) / "bars.npy"
        np.save(shared, np.stack([_columns(c) for c in candles]))
        return [_row(candles, shared, *setting) for setting in SETTINGS]


def walk(seed: int, price: float, digits: int, bars: int) -> Candles:
    """One-minute candles of a random walk, .6 a year in volatility, on the contract's grid."""
    dice = np.random.default_rng(seed)
    close = price * np.exp(np.cumsum(dice.normal(0.0, 0.6 / np.sqrt(365 * 1_440), bars)))
    opened = np.concatenate(([price], close[:-1]))
    high, low = np.maximum(opened, close) * 1.0003, np.minimum(opened, close) * 0.9997
    opened, high, low, close = np.round((opened, high, low, close), digits)
    at = START_NS + MINUTE_NS * np.arange(bars, dtype=np.int64)
    return Candles(MINUTE_NS, at, opened, high, low, close, np.full(bars, 1e3))


def _columns(candles: Candles) -> FloatArray:
    """[T, 6] for the peer: close_ns, open, high, low, close, volume."""
    return np.stack([candles.close_ns.astype(np.float64), *candles[2:]], axis=1)


def settings_of(decide_every_minutes: int) -> Settings:
    """The configuration the README's backtest runs with."""
    found = load(config_file("backtest-voltarget.yaml"), {})
    return found.model_copy(update={"decide_every_ms": decide_every_minutes * 60_000})


def lived(candles: Mapping[str, Candles], settings: Settings, warm_up_ns: int = 0) -> tuple[float, CandleRun]:
    """CPU seconds of one run, as the command has it: bars joined, lived through, recorded."""
    symbols, first = tuple(candles), next(iter(candles.values()))
    history = History({Market("binance", "perp", s): c for s, c in candles.items()}, {})
    first_ns, last_ns = int(first.open_ns[0]), int(first.close_ns[-1])
    began_s = time.process_time()
    bars = bars_of(history, symbols, first_ns, last_ns, settings.decide_every_ms * NS_PER_MS)
    run = CandleRun(bars, {}, settings, symbols, first_ns + warm_up_ns)
    recorder = Recorder(run, symbols)
    for t in run.live():
        recorder.take(t)
    run.run.close()
    seconds = time.process_time() - began_s
    recorder.record("run", settings, int(bars.grid.open_ns[-1]))
    return seconds, run


def _row(candles: list[Candles], shared: Path, name: str, minutes: int, runs: int) -> dict[str, Any]:
    count, settings = len(candles[0].open_ns), settings_of(minutes)
    in_turn = [
        (_peer_s(shared, minutes), lived(dict(zip(CONTRACTS, candles, strict=True)), settings)[0]) for _ in range(runs)
    ]
    ours = count / statistics.median(ours_s for _, ours_s in in_turn)
    row = {"name": f"backtest, a decision {name}", "ours": round(ours), "unit": "bars/CPU s"}
    peer_s = [told for told, _ in in_turn if told is not None]
    if not peer_s:
        return row | {"peer_name": "NautilusTrader: not there (DEA_NAUTILUS_PYTHON)"}
    peer = count / statistics.median(peer_s)
    return row | {
        "peer": round(peer),
        "peer_name": "NautilusTrader 1.221, target exposure (here ratio is ours/peer)",
        "ratio": round(ours / peer, 2),
    }


def _peer_s(shared: Path, minutes: int) -> float | None:
    """CPU seconds of one run; None where no interpreter that has it is named."""
    python = os.environ.get("DEA_NAUTILUS_PYTHON")
    if not python:
        return None
    program = Path(__file__).with_name("nautilus_peer.py")
    command = [python, str(program), str(shared), str(minutes)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    return float(json.loads(told.stdout.splitlines()[-1])["seconds"])
