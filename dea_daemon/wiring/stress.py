"""`dea-daemon stress`: what a book loses at once, and what the daemon does as it lives through episodes and paths.

At once: the book of a file, or the one that the configuration's targets ask for. In time: the engine that trades,
stepped bar by bar at the simulated venue, in perpetuals on the configuration's targets, beside what the file holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dea_daemon.domain.errors import ConfigError, DataError
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.research import stress, stress_report
from dea_daemon.research.episodes import EPISODES
from dea_daemon.research.report_words import percent, usd
from dea_daemon.research.stress_report import Driven, Told
from dea_daemon.shell.output import emit, say
from dea_daemon.shell.progress import progress
from dea_daemon.shell.settings import Settings
from dea_daemon.wiring.stress_book import Stage, asked_book, hourly_returns, moments
from dea_daemon.wiring.stress_time import live_through
from dea_daemon.wiring.stress_trials import episode_trial, path_trials


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says. `portfolio`, `history`, `out` None: without. `one_pool`: all equity backs everything,
    as with cross-collateral."""

    portfolio: Path | None = None
    history: Path | None = None
    out: Path | None = None
    seed: int = 7
    paths: int = 10
    one_pool: bool = False
    json_lines: bool = False
    command: str = ""


def run_stress(asked: Asked, settings: Settings) -> int:
    """All of it; a line a scenario and path, and the page in `out`. Raises ConfigError, DataError."""
    targets = tuple(settings.allocator.targets)
    returns = None
    if asked.history is not None:
        if not targets:
            raise ConfigError("allocator.targets: missing: nothing is lived through without, so no --history is of use")
        returns = hourly_returns(asked.history, targets)
    book, stage, notes = asked_book(asked.portfolio, settings, returns)
    vol, correlation = moments(book.underlyings, targets, returns, settings)
    scenarios = stress.scenarios(book, vol, correlation)
    outcomes = [stress.outcome(book, scenario, settings.guards, pooled=asked.one_pool) for scenario in scenarios]
    driven = _live_through(asked, settings, stage, returns) if targets else []
    if not targets:
        notes.append("the configuration has no targets: nothing was lived through")
    if taken := sum(path.liquidated_before > 0 for path in driven):
        notes.append(
            f"in {taken} of {len(driven)} paths the venue liquidated some of the book before the path began, as a pool "
            "does not carry it: those paths tell of what was left"
        )
    words = asked.portfolio.name if asked.portfolio is not None else "the configured targets"
    told = Told(words, book.equity_usd, outcomes, driven, notes, asked.command)
    _tell(asked, told)
    return 0


def _tell(asked: Asked, told: Told) -> None:
    """Lines, or tables for people; the page."""
    where = None
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        where = asked.out / "stress.html"
        where.write_text(stress_report.page(told), encoding="utf-8")
    if asked.json_lines:
        for line in stress_report.lines(told):
            emit(line)
        worst = max(told.outcomes, key=lambda one: one.loss_usd)
        emit(
            {
                "event": "run.finished",
                "equity_usd": told.equity_usd,
                "scenarios": len(told.outcomes),
                "paths": len(told.driven),
                "worst": worst.name,
                "worst_loss_usd": worst.loss_usd,
                "beyond_limits": sum(bool(one.hits) for one in told.outcomes),
                "notes": list(told.notes),
                **({"report": str(where)} if where is not None else {}),
            }
        )
        return
    say(*_text(told))
    if where is not None:
        say(f"report: {where}")


def _text(told: Told) -> Iterator[str]:
    """The same in columns."""
    yield f"{told.book}, equity {usd(told.equity_usd)}"
    yield from (f"note: {note}" for note in told.notes)
    yield f"\n{'at once':<50}{'loss':>14}{'of equity':>11}  limits"
    for one in told.outcomes:
        limits = ", ".join(dict.fromkeys(hit.limit for hit in one.hits))
        yield f"{one.title:<50}{usd(one.loss_usd):>14}{percent(one.loss_share):>11}  {limits}".rstrip()
    if len(pools := {pool.currency: 0 for one in told.outcomes for pool in one.pools}) > 1:
        yield f"\n{'margin used after, each pool':<50}" + "".join(f"{name:>9}" for name in pools)
        yield from (
            f"{one.title:<50}" + "".join(f"{percent(pool.margin_use, 0):>9}" for pool in one.pools)
            for one in told.outcomes
        )
    if told.driven:
        yield f"\n{'lived through':<34}{'loss':>14}{'left alone':>14}{'at worst':>14}{'deepest':>9}  beyond limits"
        yield from (_came_to(path) for path in told.driven)
        yield f"\n{'what the daemon did':<34}{'orders':>8}{'turnover':>14}{'fees':>10}{'funding':>10}{'cut':>6}  else"
        yield from (_did(path) for path in told.driven)


def _came_to(path: Driven) -> str:
    limits = ", ".join(f"{name} {hours:.3g} h" for name, hours in path.limits.items())
    losses = "".join(f"{usd(loss):>14}" for loss in (path.loss_usd, path.still_loss_usd, path.worst_loss_usd))
    return f"{path.name:<34}{losses}{percent(path.deepest):>9}  {limits}".rstrip()


def _did(path: Driven) -> str:
    """Counts; what is zero is left out of the last column."""
    told = [f"{name} {count} of {path.bars}" for name, count in path.cuts.items()]
    told += [f"{mode.replace('_', '-')} at {hour:.3g} h" for hour, mode in path.changes]
    told += [
        f"{word} {count}"
        for word, count in (
            ("liquidated", path.liquidations),
            ("closed by the venue", path.deleveraged),
            ("outages", path.outages),
        )
        if count
    ]
    sums = f"{usd(path.turnover_usd):>14}{usd(path.fees_usd):>10}{usd(path.funding_usd):>10}"
    return f"{path.name:<34}{path.orders:>8}{sums}{sum(path.cuts.values()):>6}  {', '.join(told)}".rstrip()


def _live_through(asked: Asked, settings: Settings, stage: Stage, returns: FloatArray | None) -> list[Driven]:
    """Every episode, then every path."""
    if not (equity_usd := stage.book.equity_usd) > 0.0:
        raise DataError(f"the book's equity is {equity_usd:,.2f} USD: nothing can be lived through with that")
    funded = settings.model_copy(
        update={"backtest": settings.backtest.model_copy(update={"capital_usd": equity_usd, "impact": 0.0})}
    )
    trials = [episode_trial(episode, stage, funded, asked.seed) for episode in EPISODES]
    if asked.paths:
        each = None if returns is None else _of_each(returns, tuple(settings.allocator.targets), stage)
        trials += path_trials(asked.paths, asked.seed, funded, stage, each)
    bars = sum(len(trial.bars.grid.open_ns) for trial in trials)
    found = []
    with progress("bars", not asked.json_lines, bars) as advance:
        for trial in trials:
            found.append(live_through(trial, stage, funded, asked.seed))
            advance(len(trial.bars.grid.open_ns))
    return found


def _of_each(returns: FloatArray, seen: tuple[str, ...], stage: Stage) -> FloatArray:
    """[T, U] of `returns` [T, seen]: what history does not have goes the way of the last that it has."""
    return returns[:, [seen.index(name) if name in seen else -1 for name in stage.book.underlyings]]
