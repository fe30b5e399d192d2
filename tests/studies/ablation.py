"""`python -m tests.studies.ablation --history DIR --out DIR`: does each part of the full system earn its place?

Runs `config/backtest-full.yaml` over 2020 to 2023, and again without each of its parts; what stands in --out from an
earlier call is not run anew. Then it lays them beside each other: Sharpe ratios of daily returns with bootstrap
intervals, deflated for the number of variants, against the full system, and each against the static book of its own
volatility. `--only NAME …` runs these, and tells of them if the full system is one.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.research import bootstrap
from dea_daemon.research.overfitting import deflated_sharpe
from dea_daemon.research.performance import daily_returns, figures
from dea_daemon.research.record import Record
from dea_daemon.research.report_words import number, percent
from dea_daemon.shell.settings import load
from dea_daemon.wiring.history import backtest_history, beside, candles_in, moment
from tests.studies.hedge_band import rows

CONFIG = Path(__file__).resolve().parents[2] / "config" / "backtest-full.yaml"
FROM, TO, SEED = "2020-01-01", "2024-01-01", 7
TOLD = (
    "annual_return",
    "annual_vol_daily",
    "vol_ratio",
    "sharpe",
    "max_drawdown",
    "cost_per_year",
    "turnover_per_year",
)
EWMA_10_DAYS_S = 598_931  # half-life of weights whose mean age is ten days

Change = dict[str, Any]


def _targets(**change: Any) -> Change:
    return {"allocator": {"targets": dict.fromkeys(("BTC", "ETH"), change)}}


def _returns(carry_h: float = 1.0, **learners: Any) -> Change:
    """What is expected trades, carry included, by a quarter of Kelly's within the same volatility."""
    return _targets(kind="return", weight=None) | {"forecast": {"learners": learners, "carry_half_life_h": carry_h}}


# None takes a line out.
VARIANTS: dict[str, Change] = {
    "full": {},
    "no band": _targets(band=0.000_001, min_band_usd=0.01),
    "band of a tenth": _targets(band=0.1),
    "no drawdown control": {"allocator": {"max_drawdown": None}},
    "EWMA 10 days, no HAR": {"forecast": {"model": "ewma", "half_life_s": EWMA_10_DAYS_S}},
    "EWMA 1 day, no HAR": {"forecast": {"model": "ewma"}},
    "HARQ, no HAR": {"forecast": {"model": "harq"}},
    "returns: prior": _returns(weights={"prior_5d": 1.0}),
    "returns: prior, carry of a day": _returns(24.0, weights={"prior_5d": 1.0}),
    "returns: prior and momentum": _returns(weights={"prior_5d": 0.5, "momentum_5d": 0.5}),
    "returns: prior and carry": _returns(weights={"prior_5d": 0.5, "carry_5d": 0.5}),
    "returns: prior and ridge": _returns(weights={"prior_5d": 0.5, "ridge_5d": 0.5}),
    "returns: earned": _returns(combine="hedge"),
}


def changed(told: Change, change: Change) -> Change:
    """A configuration with some of it otherwise, to any depth."""
    inner = {
        key: changed(told.get(key, {}), value) if isinstance(value, dict) else value for key, value in change.items()
    }
    return {key: value for key, value in {**told, **inner}.items() if value is not None}


# --- running ---------------------------------------------------------------------------------------------


def ran(change: Change, folder: Path, config: Path) -> tuple[Record, Record]:
    """One variant's Record, and what the same prices made of a static book that came out as volatile."""
    config.write_text(yaml.safe_dump(changed(yaml.safe_load(CONFIG.read_text()), change)))
    settings = load(config)
    assert settings.venues.binanceusdm is not None
    symbols = settings.venues.binanceusdm.instruments
    history = candles_in(folder, symbols, settings.decide_every_ms * NS_PER_MS)
    run, _ = backtest_history(history, settings, moment(FROM), moment(TO), seed=SEED, tape=None, show=False)
    return run, next(each for each in beside(run, history, symbols, settings) if "equal volatility" in each.name)


def kept(name: str, folder: Path, out: Path) -> dict[str, Any]:
    """What is told of a variant; run where --out does not have it yet."""
    file = out / f"{name}.json"
    if not file.exists():
        run, static = ran(VARIANTS[name], folder, out / f"{name}.yaml")
        told, beside_it = figures(run), figures(static)
        line = {key: told[key] for key in TOLD} | {"static": {key: beside_it[key] for key in TOLD}}
        daily = {"daily": daily_returns(run).tolist(), "static_daily": daily_returns(static).tolist()}
        file.write_text(json.dumps(line | daily | {"per_year": len(daily["daily"]) / run.years}))
    read: dict[str, Any] = json.loads(file.read_text())
    return read


# --- beside each other -----------------------------------------------------------------------------------


def with_interval(found: bootstrap.Interval) -> str:
    return f"{number(found.estimate)} [{number(found.low)}, {number(found.high)}]"


def table(found: dict[str, dict[str, Any]]) -> str:
    """A row a variant, and the static book beside the full system."""
    daily = {name: np.array(line["daily"]) for name, line in found.items()}
    ratios = np.array([np.mean(x) / np.std(x, ddof=1) for x in daily.values()])
    head = ("", "return", "volatility", "Sharpe [95 %]", "deflated", "full − this", "this − static", "fall", "cost")
    body = []
    for name, line in found.items():
        own, year = daily[name], line["per_year"]
        gap = "" if name == "full" else with_interval(bootstrap.sharpe_difference(daily["full"], own, year, seed=SEED))
        static = bootstrap.sharpe_difference(own, np.array(line["static_daily"]), year, seed=SEED)
        body.append(
            (
                name,
                percent(line["annual_return"]),
                percent(line["annual_vol_daily"]),
                with_interval(bootstrap.sharpe_interval(own, year, seed=SEED)),
                number(deflated_sharpe(own, len(ratios), float(np.std(ratios, ddof=1)))),
                gap,
                with_interval(static),
                percent(line["max_drawdown"]),
                f"{percent(line['cost_per_year'], 2)}",
            )
        )
    return rows(head, *body)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.studies.ablation", description=__doc__)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    found = {name: kept(name, asked.history, asked.out) for name in VARIANTS if name in asked.only}
    if "full" in found:
        Console().print(table(found), soft_wrap=True, markup=False, highlight=False)


if __name__ == "__main__":
    main()
