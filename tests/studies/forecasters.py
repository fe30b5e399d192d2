"""`python -m tests.studies.forecasters [DIR] [--factors DIR]`: does any forecaster of returns earn its weight? Prints
the tables.

Hourly candles of the Bitcoin and Ether perpetuals and their funding, from the folder of recorded data (else beside the
repository), through the daemon's own volatility and learners, trees among them: grown when the daemon would ask for
them, from the lessons it would send. What is before 2020 is learned from and not scored. With the folder of recorded
slow factors the same again with all of them, and with each group alone.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from dea_daemon.domain.decisions import NO_FACTORS, Slow
from dea_daemon.domain.events import ModelFitted
from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters, LearnerParameters, TreeParameters
from dea_daemon.forecast import learners, volatility
from dea_daemon.forecast.combine import first_weights
from dea_daemon.forecast.scores import Scores
from dea_daemon.research.candles import Candles, FundingRates, aligned
from dea_daemon.research.trees import grow
from dea_daemon.shell.history import find_series, read_candles, read_funding
from tests.guards.views import view
from tests.studies import slow

SYMBOLS = ("BTCUSDT", "ETHUSDT")
START_NS, SCORED_NS, END_NS = (
    int(np.datetime64(day, "ns").astype(np.int64)) for day in ("2019-09-09", "2020-01-01", "2024-01-01")
)
LEARNERS = LearnerParameters(trees=TreeParameters(enabled=True))
PARAMS = ForecastParameters(
    sample_every_s=3_600, har_every_s=3_600, half_life_s=86_400, prior_samples=24, learners=LEARNERS
)
HALF_LIFE_DAYS = 1.0  # of the carry shown to the learners
LEARN = ("ridge", "trees")  # from slow factors


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


class Result(NamedTuple):
    """The learners after all of it, and every answer to their questions for trees."""

    memory: learners.LearnerMemory
    grown: list[ModelFitted]


def run(
    known_ns: IntArray,
    close: FloatArray,
    carry: FloatArray,
    params: ForecastParameters,
    factors: Iterable[Slow] | None = None,
) -> Result:
    """Scores and earned weights begin at SCORED_NS; `factors` are what is known at each time."""
    memory, grown, scored = volatility.VolatilityMemory(close.shape[1]), [], False
    blank = view()  # of the features it shows none: all unknown
    shown = repeat(NO_FACTORS) if factors is None else factors
    for now_ns, price, earned, told in zip(known_ns.tolist(), close, carry, shown, strict=False):
        if not scored and now_ns >= SCORED_NS:
            scored = True
            for horizon in memory.learners.horizons:
                horizon.scores = Scores(horizon.steps, len(memory.learners.roster), close.shape[1])
                horizon.weights = first_weights(len(memory.learners.roster))
        volatility.sample(memory, now_ns, price, params)
        if learners.due(memory.learners, now_ns, params.learners):
            variance = volatility.expected_variance(memory, params)
            seen = None if factors is None else dataclasses.replace(blank, slow=told)
            learners.observe(memory.learners, now_ns, price, variance, seen, earned, params.learners)
            while (asked := learners.asked(memory.learners, now_ns, now_ns, params.learners)) is not None:
                answer = replace(grow(asked.lessons), ts_recv_ns=now_ns, name=asked.name, asked_utc_ns=now_ns)
                volatility.fitted(memory, answer, params)
                grown.append(answer)
    return Result(memory.learners, grown)


def table(memory: learners.LearnerMemory, names: Sequence[str] = SYMBOLS, only: Sequence[str] = ()) -> str:
    """A line for each forecaster: out-of-sample R², hit rate and t for each underlying, and the weight it earned."""
    head = [cell for name in names for cell in (f"{name[:3]}: R², %", "hits, %", "t")]
    lines = [["forecaster", *head, "weight earned"], ["---"] * (len(head) + 2)]
    for horizon in memory.horizons:
        r_squared, hits, t = horizon.scores.r_squared(), horizon.scores.hit_rate(), horizon.scores.t()
        for m, learner in enumerate(memory.roster):
            if only and learner not in only:
                continue
            cells = [
                cell
                for u in range(len(names))
                for cell in (f"{100.0 * r_squared[m, u]:+.2f}", f"{100.0 * hits[m, u]:.1f}", f"{t[m, u]:+.1f}")
            ]
            told = ["", "", ""] * len(names) if learner == "zero" else cells
            lines.append([f"{learner}_{horizon.days:g}d", *told, f"{horizon.weights[m]:.2f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def harvest(grown: list[ModelFitted]) -> str:
    """A line for each forecaster by trees: how often they were grown, and how often there was anything to say."""
    lines = []
    for name in sorted({each.name for each in grown}):
        own = [each for each in grown if each.name == name]
        some = [each for each in own if each.trees.leaf]
        gain = f"{100.0 * np.median([each.gain for each in some]):+.2f} %" if some else "none"
        lines.append(f"{name}: grown {len(own)} times, {len(some)} times with trees; their median gain {gain}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    default = Path(os.environ.get("DEA_SHARED_DATA", beside)) / "history"
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    parser.add_argument("--factors", type=Path, metavar="DIR", help="recorded slow factors")
    args = parser.parse_args()
    known_ns, close, carry = recorded(args.folder)
    result = run(known_ns, close, carry, PARAMS)
    for horizon in result.memory.horizons:
        days = horizon.scores.count * PARAMS.learners.every_s * NS_PER_S / NS_PER_DAY
        sys.stdout.write(f"{horizon.days:g} d: {days.round().astype(int).tolist()} days scored\n")
    sys.stdout.write(f"{table(result.memory)}\n{harvest(result.grown)}\n")
    sys.stdout.flush()
    if args.factors is None:
        return
    every = {"all": slow.GROUPS} | {name: {name: group} for name, group in slow.GROUPS.items()}
    for title, groups in every.items():
        result = run(known_ns, close, carry, PARAMS, slow.known(args.factors, groups, known_ns))
        sys.stdout.write(f"\nwith slow factors: {title}\n{table(result.memory, only=LEARN)}\n{harvest(result.grown)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
