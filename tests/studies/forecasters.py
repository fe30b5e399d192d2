"""`python -m tests.studies.forecasters [DIR]`: does any forecaster of returns earn its weight? Prints the tables.

Hourly candles of the Bitcoin and Ether perpetuals and their funding, from the folder of recorded data (else beside the
repository), through the daemon's own volatility and learners; what is before 2020 is learned from and not scored.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters
from dea_daemon.forecast import learners, volatility
from dea_daemon.forecast.combine import first_weights
from dea_daemon.forecast.scores import Scores
from dea_daemon.research.candles import Candles, FundingRates, aligned
from dea_daemon.shell.history import find_series, read_candles, read_funding

SYMBOLS = ("BTCUSDT", "ETHUSDT")
START_NS, SCORED_NS, END_NS = (
    int(np.datetime64(day, "ns").astype(np.int64)) for day in ("2019-09-09", "2020-01-01", "2024-01-01")
)
PARAMS = ForecastParameters(sample_every_s=3_600, har_every_s=3_600, half_life_s=86_400, prior_samples=24)
HALF_LIFE_DAYS = 1.0  # of the carry shown to the learners


def recorded(folder: Path) -> tuple[IntArray, FloatArray, FloatArray]:
    """(known_ns [T], close [T, U] USD, carry [T, U] 1/day), NaN where there is none."""
    series = {(one.kind, one.symbol): one for one in find_series(folder)}
    candles: list[Candles] = [read_candles(series["perp", symbol]) for symbol in SYMBOLS]
    grid = aligned(candles, START_NS, END_NS)
    known_ns = grid.open_ns + grid.step_ns
    rates = [read_funding(series["funding", symbol]) for symbol in SYMBOLS]
    return known_ns, grid.close, np.stack([carry_of(one, known_ns) for one in rates], axis=1)


def carry_of(rates: FundingRates, known_ns: IntArray) -> FloatArray:
    """[T] 1/day that a long earned of late: payments up to each time, by exponential weights."""
    kept = 0.5 ** (1.0 / (3.0 * HALF_LIFE_DAYS))
    mean = np.empty(len(rates.rate))
    now = rates.rate[0]
    for k, rate in enumerate(rates.rate):
        now = now * kept + rate * (1.0 - kept)
        mean[k] = now
    at = np.searchsorted(rates.at_ns, known_ns, side="right") - 1
    fresh = (at >= 0) & (known_ns - rates.at_ns[np.maximum(at, 0)] <= NS_PER_DAY)
    return np.where(fresh, -3.0 * mean[np.maximum(at, 0)], np.nan)


def run(known_ns: IntArray, close: FloatArray, carry: FloatArray, params: ForecastParameters) -> learners.LearnerMemory:
    """The learners after all of it; scores and earned weights begin at SCORED_NS."""
    memory = volatility.VolatilityMemory(close.shape[1])
    scored = False
    for now_ns, price, earned in zip(known_ns.tolist(), close, carry, strict=True):
        if not scored and now_ns >= SCORED_NS:
            scored = True
            for horizon in memory.learners.horizons:
                horizon.scores = Scores(horizon.steps, len(learners.LEARNERS), close.shape[1])
                horizon.weights = first_weights(len(learners.LEARNERS))
        volatility.sample(memory, now_ns, price, params)
        if learners.due(memory.learners, now_ns, params.learners):
            variance = volatility.expected_variance(memory, params)
            learners.observe(memory.learners, now_ns, price, variance, None, earned, params.learners)
    return memory.learners


def table(memory: learners.LearnerMemory, names: Sequence[str] = SYMBOLS) -> str:
    """A line for each forecaster: out-of-sample R², hit rate and t for each underlying, and the weight it earned."""
    head = [cell for name in names for cell in (f"{name[:3]}: R², %", "hits, %", "t")]
    lines = [["forecaster", *head, "weight earned"], ["---"] * (len(head) + 2)]
    for horizon in memory.horizons:
        r_squared, hits, t = horizon.scores.r_squared(), horizon.scores.hit_rate(), horizon.scores.t()
        for m, learner in enumerate(learners.LEARNERS):
            cells = [
                cell
                for u in range(len(names))
                for cell in (f"{100.0 * r_squared[m, u]:+.2f}", f"{100.0 * hits[m, u]:.1f}", f"{t[m, u]:+.1f}")
            ]
            told = ["", "", ""] * len(names) if learner == "zero" else cells
            lines.append([f"{learner}_{horizon.days:g}d", *told, f"{horizon.weights[m]:.2f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    default = Path(os.environ.get("DEA_SHARED_DATA", beside)) / "history"
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    known_ns, close, carry = recorded(parser.parse_args().folder)
    memory = run(known_ns, close, carry, PARAMS)
    for horizon in memory.horizons:
        days = horizon.scores.count * PARAMS.learners.every_s * NS_PER_S / NS_PER_DAY
        sys.stdout.write(f"{horizon.days:g} d: {days.round().astype(int).tolist()} days scored\n")
    sys.stdout.write(table(memory) + "\n")


if __name__ == "__main__":
    main()
