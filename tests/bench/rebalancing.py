"""Ten assets rebalanced once a day by mean and variance, beside cvxportfolio where it is.

The peer is a program of another Python: DEA_CVXPORTFOLIO_PYTHON names one with cvxportfolio 1.5. Both get the same
days, already in memory, the same expected returns, costs and leverage, and are timed by the CPU they use, in turn. Ours
lives through them as `dea-daemon backtest --history` does: a venue in process, orders, whole lots, limits, a record.
"""

import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.research.candles import Candles
from dea_daemon.shell.settings import Settings, load
from dea_daemon.wiring.demo import config_file
from tests.bench import bars

COINS = ("BTC", "ETH", "SOL", "XRP", "BNB", "ADA", "DOGE", "AVAX", "LINK", "LTC")
SYMBOLS = tuple(f"{coin}USDT" for coin in COINS)
DAYS, WARM_UP_DAYS, RUNS = 425, 60, 3
START_NS = 1_577_836_800_000_000_000  # a midnight
HALF_LIFE_DAYS, KELLY, MAX_LEVERAGE = 30.0, 0.25, 3.0


def rows(days: int = DAYS, runs: int = RUNS) -> list[dict[str, Any]]:
    """name, ours, peer, peer_name, unit, ratio (ours/peer: more is better here)."""
    close, expected = walk(days), np.linspace(-0.3, 0.6, len(COINS))
    settings = settings_of(expected)
    cost = 1e-4 * (settings.backtest.taker_bp + settings.backtest.half_spread_bp)
    with tempfile.TemporaryDirectory(prefix="dea-bench-") as folder:
        shared = Path(folder) / "given.npz"
        told: dict[str, Any] = dict(
            half_life_days=HALF_LIFE_DAYS, kelly=KELLY, max_leverage=MAX_LEVERAGE, warm_up_days=WARM_UP_DAYS
        )
        np.savez(shared, close=close, annual_return=expected, cost=cost, **told)
        in_turn = [(_peer_s(shared), lived(close, settings)) for _ in range(runs)]
    count = days - WARM_UP_DAYS
    ours = count / statistics.median(ours_s for _, ours_s in in_turn)
    row = {"name": "ten assets, mean and variance, daily", "ours": round(ours), "unit": "days/CPU s"}
    peer_s = [told for told, _ in in_turn if told is not None]
    if not peer_s:
        return [row | {"peer_name": "cvxportfolio: not there (DEA_CVXPORTFOLIO_PYTHON)"}]
    peer = count / statistics.median(peer_s)
    name = "cvxportfolio 1.5, one period, Clarabel (here ratio is ours/peer)"
    return [row | {"peer": round(peer, 1), "peer_name": name, "ratio": round(ours / peer, 2)}]


def walk(days: int) -> FloatArray:
    """[T, N] closes: a market of .6 a year in volatility, and as much again of each asset's own."""
    dice = np.random.default_rng(5)
    daily = 0.6 / np.sqrt(365.0)
    moves = daily * (dice.normal(size=(days, 1)) + dice.normal(size=(days, len(COINS)))) / np.sqrt(2.0)
    return np.asarray(np.round(100.0 * np.exp(np.cumsum(moves, axis=0)), 3))


def settings_of(expected: FloatArray) -> Settings:
    """The README's backtest, with return targets for all ten."""
    told = yaml.safe_load(config_file("backtest-voltarget.yaml").read_text())
    told["venues"]["binanceusdm"]["instruments"] = list(SYMBOLS)
    told["decide_every_ms"] = 86_400_000
    day_s, half_life_s = 86_400, HALF_LIFE_DAYS * 86_400
    views = {coin: {"annual_return": float(r)} for coin, r in zip(COINS, expected, strict=True)}
    forecast = {"model": "ewma", "sample_every_s": day_s, "correlation_every_s": day_s, "half_life_s": half_life_s}
    told["forecast"] = forecast | {"correlation_half_life_s": half_life_s, "prior_samples": 24, "views": views}
    told["allocator"] = {
        "targets": {coin: {"kind": "return", "min_band_usd": 100} for coin in COINS},
        "annual_vol": 5.0,  # the return's worth against its risk decides
        "kelly": KELLY,
        "max_leverage": MAX_LEVERAGE,
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(told, file)
        file.flush()
        return load(Path(file.name), {})


def lived(close: FloatArray, settings: Settings) -> float:
    """CPU seconds of one run, as the command has it."""
    at = START_NS + NS_PER_DAY * np.arange(len(close), dtype=np.int64)
    candles = {symbol: _candles(at, column) for symbol, column in zip(SYMBOLS, close.T, strict=True)}
    return bars.lived(candles, settings, WARM_UP_DAYS * NS_PER_DAY)[0]


def _candles(at: Any, close: FloatArray) -> Candles:
    opened = np.concatenate((close[:1], close[:-1]))
    high, low = np.maximum(opened, close) * 1.003, np.minimum(opened, close) * 0.997
    return Candles(NS_PER_DAY, at, opened, high, low, close, np.full(len(close), 1e8))


def _peer_s(shared: Path) -> float | None:
    """CPU seconds of one run; None where no interpreter that has it is named."""
    python = os.environ.get("DEA_CVXPORTFOLIO_PYTHON")
    if not python:
        return None
    program = Path(__file__).with_name("cvxportfolio_peer.py")
    told = subprocess.run([python, str(program), str(shared)], check=True, capture_output=True, text=True, timeout=600)
    return float(json.loads(told.stdout.splitlines()[-1])["seconds"])
