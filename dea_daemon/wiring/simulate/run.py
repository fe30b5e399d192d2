"""`dea-daemon simulate`: histories by seed, what they broke, and the smallest one that breaks it again."""

import math
import os
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from multiprocessing import get_context
from typing import Any

from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.domain.orders import is_own
from dea_daemon.shell.output import emit, say
from dea_daemon.shell.progress import progress
from dea_daemon.wiring.paper import ACCOUNT
from dea_daemon.wiring.simulate import aims, coverage
from dea_daemon.wiring.simulate.coverage import Pair
from dea_daemon.wiring.simulate.faults import BY_NAME, ELSEWHERE, base
from dea_daemon.wiring.simulate.promises import PromiseBroken
from dea_daemon.wiring.simulate.world import START_NS, World

STORMS = (0.5, 1.0, 2.0, 4.0)
ALONE_STORM = 10.0
ALONE_SHARE = OPTIONS_SHARE = 0.25  # of the seeds: one fault by itself; with an option book
SHRINK_TRIES = 60
TOLD_MAX = 20  # violations told one by one
IDLE_ROUNDS = 12  # of aimed histories in a row that met nothing of what is lacking: then it is given up


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides a history."""

    seed: int
    faults: tuple[str, ...]
    seconds: float
    storm: float
    options: bool

    def command(self) -> str:
        """What to type to live through it again."""
        names = "all" if self.faults == tuple(BY_NAME) else ",".join(self.faults)
        options = "--options" if self.options else "--no-options"
        seed, hours = f"{self.seed}:{self.seed + 1}", repr(self.seconds / 3_600)
        return f"dea-daemon simulate --seeds {seed} --faults {names} --hours {hours} --storm {self.storm!r} {options}"


def drawn(seed: int, faults: tuple[str, ...], seconds: float, storm: float | None, options: bool | None) -> Plan:
    """The plan of a seed: what is None is drawn, and with the storm whether one of the faults comes alone."""
    dice = random.Random(f"plan {seed}")  # noqa: S311 no secrets
    drawn_options, drawn_storm = dice.random() < OPTIONS_SHARE, dice.choice(STORMS)
    alone, which = dice.random() < ALONE_SHARE, dice.choice(faults)
    with_options = drawn_options if options is None else options
    if storm is not None:
        return Plan(seed, faults, seconds, storm, with_options)
    if not alone or (BY_NAME[base(which)].options and options is False):
        return Plan(seed, faults, seconds, drawn_storm, with_options)
    return Plan(seed, (which,), seconds, ALONE_STORM, with_options or BY_NAME[base(which)].options)


def aimed(seed: int, lacks: Mapping[str, Sequence[str]], seconds: float, options: bool | None) -> list[Plan]:
    """A round of histories from this seed on, aimed at pairs that lack."""
    plans = []
    for at, faults in enumerate(aims.next_round(seed, lacks), start=seed):
        needed = any(BY_NAME[base(name)].options for name in faults)
        by_seed = random.Random(f"plan {at}").random() < OPTIONS_SHARE  # noqa: S311 no secrets
        plans.append(Plan(at, faults, seconds, aims.STORM, needed or (by_seed if options is None else options)))
    return plans


@dataclass(slots=True)
class Outcome:
    """One history as lived. `why` is empty where it kept every promise; `at_s` is when it did not."""

    plan: Plan
    why: str = ""
    at_s: float = 0.0
    simulated_s: float = 0.0
    steps: int = 0
    orders: int = 0
    fills: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    met: Counter[Pair] = field(default_factory=Counter)
    story: tuple[str, ...] = ()


def live(plan: Plan, story: bool = False, rest: bool = True) -> Outcome:
    """One history from start to rest, or to where the faults stop."""
    world = World(plan.seed, storm=plan.storm, options=plan.options, faults=plan.faults)
    outcome = Outcome(plan, struck=world.struck, met=world.met)
    try:
        world.run(plan.seconds)
        if rest:
            world.settle()
    except PromiseBroken as broken:
        outcome.why = str(broken)
    except Exception as error:  # noqa: BLE001 whatever it was, the core broke on it
        place = traceback.extract_tb(error.__traceback__)[-1]
        outcome.why = f"{type(error).__name__}: {error} ({os.path.basename(place.filename)}:{place.lineno})"
    outcome.simulated_s = outcome.at_s = (world.now_ns - START_NS) / NS_PER_S
    outcome.steps, outcome.orders = world.steps, world.oracle.creates
    outcome.fills = sum(is_own(fill.label) for fill in world.exchange.fills(ACCOUNT))
    outcome.story = tuple(world.log) if story else ()
    return outcome


Lived = Callable[[list[Plan]], Iterator[Outcome]]


@contextmanager
def workers(jobs: int, story: bool) -> Iterator[Lived]:
    """Lives through plans, each in their order, whatever the number of processes."""
    if jobs <= 1:
        yield lambda plans: (live(plan, story) for plan in plans)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as processes:
        yield lambda plans: processes.map(live, plans, [story] * len(plans))


# --- a smaller history that breaks too ----------------------------------------------------------------------


class Shrinker:
    """Looks for fewer faults and less time, so many tries at most."""

    def __init__(self, broken: Outcome, tries: int = SHRINK_TRIES) -> None:
        self.best = broken
        self._left = tries

    def run(self) -> Outcome:
        """The smallest found. It breaks something; not always the same thing."""
        # What never struck drew only its own dice: without it the history is the same.
        self._without([name for name in self.best.plan.faults if not self.best.struck[base(name)]])
        self._shorten()
        size = len(self.best.plan.faults) // 2
        while size:
            for start in range(0, len(self.best.plan.faults), size):
                self._without(self.best.plan.faults[start : start + size])
            size //= 2
        self._shorten()
        return self.best

    def _without(self, names: Iterable[str]) -> bool:
        fewer = tuple(name for name in self.best.plan.faults if name not in set(names))
        return bool(fewer) and fewer != self.best.plan.faults and self._try(replace(self.best.plan, faults=fewer))

    def _shorten(self) -> None:
        """Not a moment more than it took; where it broke afterwards, half as long while that does."""
        if self.best.at_s < self.best.plan.seconds:
            self._try(replace(self.best.plan, seconds=math.ceil(10.0 * self.best.at_s) / 10.0))
        while self.best.plan.seconds > 1.0 and self._try(replace(self.best.plan, seconds=self.best.plan.seconds / 2)):
            pass

    def _try(self, plan: Plan) -> bool:
        if self._left <= 0:
            return False
        self._left -= 1
        early = self.best.at_s <= self.best.plan.seconds  # then there is no need to wait for the end
        if not (outcome := live(plan, rest=not early)).why:
            return False
        self.best = outcome
        return True


# --- the command --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says. `storm` and `options` None: drawn for each seed."""

    seeds: range
    faults: tuple[str, ...]
    hours: float
    storm: float | None = None
    options: bool | None = None
    jobs: int = 1
    json_lines: bool = False
    story: bool = False
    pairs: int = 0  # every pair that can be is to be met so often

    def plans(self) -> list[Plan]:
        return [drawn(seed, self.faults, 3_600.0 * self.hours, self.storm, self.options) for seed in self.seeds]


def run_simulate(asked: Asked) -> int:
    """Live through every seed. Exit code 1 where one broke a promise."""
    began_s = time.monotonic()
    total, violations, seeds = Outcome(Plan(0, asked.faults, 0.0, 0.0, False)), [], 0
    plans = asked.plans()
    jobs = asked.jobs if asked.pairs else min(asked.jobs, len(plans))
    with workers(jobs, asked.story) as lived, progress("histories", not asked.json_lines, len(plans)) as advance:
        for outcome in chain(lived(plans), hunted(asked, total, lived)):
            seeds += 1
            add(total, outcome)
            if outcome.why:
                violations.append(outcome)
            if outcome.story:
                say(*outcome.story)
            advance(1)
    for number, broken in enumerate(violations[:TOLD_MAX]):
        smaller = Shrinker(broken).run() if not number else None
        tell_violation(broken, smaller, asked.json_lines)
    tell_end(finished(total, seeds, len(violations), time.monotonic() - began_s), total, asked)
    return 1 if violations or aims.lacking(total.met, asked.faults, asked.pairs) else 0


def hunted(asked: Asked, total: Outcome, lived: Lived) -> Iterator[Outcome]:
    """Histories aimed at what `total` lacks, until it lacks nothing or nothing comes of it. Whoever takes them counts
    them into `total`."""
    seed, idle = asked.seeds.stop, 0
    while idle < IDLE_ROUNDS and (lacks := aims.lacking(total.met, asked.faults, asked.pairs)):
        wanted = [(fault, state) for fault, states in lacks.items() for state in states]
        before = sum(total.met[pair] for pair in wanted)
        yield from lived(aimed(seed, lacks, 3_600.0 * asked.hours, asked.options))
        seed += aims.ROUND
        idle = idle + 1 if sum(total.met[pair] for pair in wanted) == before else 0


def add(total: Outcome, one: Outcome) -> None:
    """Count one history into the total."""
    total.simulated_s += one.simulated_s
    total.steps += one.steps
    total.orders += one.orders
    total.fills += one.fills
    total.struck.update(one.struck)
    total.met.update(one.met)


def finished(total: Outcome, seeds: int, violations: int, seconds: float) -> dict[str, Any]:
    """The fields of the last line."""
    pairs = coverage.possible(total.plan.faults)
    return {
        "event": "simulate.finished",
        "seeds": seeds,
        "steps": total.steps,
        "faults_injected": sum(total.struck.values()),
        "violations": violations,
        "orders": total.orders,
        "fills": total.fills,
        "pairs_covered": sum(total.met[pair] > 0 for pair in pairs),
        "pairs_total": len(pairs),
        "pairs_least": min((total.met[pair] for pair in pairs), default=0),
        "simulated_hours": round(total.simulated_s / 3_600, 3),
        "seconds": round(seconds, 3),
    }


def tell_violation(broken: Outcome, smaller: Outcome | None, json_lines: bool) -> None:
    """What was broken, and how to see it again."""
    fields = {
        "event": "simulate.violated",
        "seed": broken.plan.seed,
        "at_s": round(broken.at_s, 3),
        "why": broken.why,
        "replay": broken.plan.command(),
    }
    if smaller is not None:
        fields |= {"shrunk": smaller.plan.command(), "shrunk_why": smaller.why}
    if json_lines:
        emit(fields)
        return
    say(f"seed {broken.plan.seed}, after {broken.at_s:.3f} s: {broken.why}", f"  again:   {broken.plan.command()}")
    if smaller is not None:
        say(f"  smaller: {smaller.plan.command()}", f"           {smaller.why}")


def tell_end(end: dict[str, Any], total: Outcome, asked: Asked) -> None:
    """What was tried, what was met too rarely, and the last line."""
    lacks = {
        f"{fault}@{state}": total.met[fault, state]
        for fault, states in aims.lacking(total.met, asked.faults, asked.pairs).items()
        for state in states
    }
    if asked.json_lines:
        emit(
            {
                "event": "simulate.covered",
                "pairs": coverage.counts(total.met, asked.faults),
                "injected": {name: total.struck[name] for name in asked.faults},
                "impossible": {str(each): why for each, why in coverage.IMPOSSIBLE.items()},
                "elsewhere": {str(number): why for number, why in ELSEWHERE.items()},
            }
        )
        if lacks:
            emit({"event": "simulate.lacking", "pairs": lacks})
        emit(end)
        return
    say(*coverage.table(total.met, asked.faults))
    if asked.faults == tuple(BY_NAME):
        say(*(f"{number:>3} not here: {why}" for number, why in ELSEWHERE.items()))
    say(*(f"lacking: {pair} was met {times} times" for pair, times in lacks.items()))
    said = " ".join(f"{key}={value}" for key, value in end.items() if key != "event")
    say(f"{end['event']} {said}")
