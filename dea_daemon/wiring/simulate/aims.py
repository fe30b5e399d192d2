"""Histories aimed at what was met too rarely: which faults, at which states, in what company."""

import random
from collections.abc import Mapping, Sequence

from dea_daemon.wiring.simulate import coverage
from dea_daemon.wiring.simulate.coverage import Pair
from dea_daemon.wiring.simulate.faults import BY_NAME, NONE, Each, ordered

COMPANY = (
    "create-unanswered", "create-late", "create-lost", "create-garbled", "question-lost", "answer-late", "news-late",
    "fill-late", "cancel-races-fill", "cancel-lost", "cancel-unanswered", "one-refused", f"reload@{NONE}",
)  # fmt: skip
"""What brings orders into states that do not last by themselves; and new targets whenever none is left."""
COMPANY_OF = {
    "filled": ("fill-late@pending", "fill-late@open", "answer-late@filled", "question-lost@filled"),
    "cancelled": (
        "cancel-races-fill@cancelling", "fill-late@cancelling", "fill-late@pending", "answer-late@cancelled",
        "question-lost@cancelled",
    ),
}  # fmt: skip
"""An ended order is met while its fills are owed: they are late, and so is the answer that would bring them."""
LONG_IN_DOUBT = ("answer-late@unknown", "answer-late@open", "question-lost@unknown", "cancel-lost@cancelling")
"""Much can be told before the answer comes."""
RARE = {Each.REPORT, Each.FIT}
"""Moments of these are few, and belong to all of their faults."""
LEAVING = "operator@unknown"  # only who leaves cancels what is in doubt
TOGETHER, STATES_TOGETHER = 10, 24  # faults, states aimed at in one history: more would be one storm
ROUND = 16  # histories lived before it is looked what is still lacking, whatever the number of processes
STORM = 2.0


def lacking(met: Mapping[Pair, int], faults: Sequence[str], least: int) -> dict[str, list[str]]:
    """By fault the states it met less than so often, of those it can."""
    out: dict[str, list[str]] = {}
    for fault, state in coverage.possible(faults):
        if met.get((fault, state), 0) < least:
            out.setdefault(fault, []).append(state)
    return out


def next_round(seed: int, lacks: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """The faults of each history of a round: every one that lacks something in turn, aimed at all that it lacks."""
    dice = random.Random(f"aims {seed}")  # noqa: S311 no secrets
    queue: list[str] = []
    out: list[tuple[str, ...]] = []
    for _ in range(ROUND):
        together: list[str] = []
        aimed = 0
        while len(together) < min(TOGETHER, len(lacks)) and aimed < STATES_TOGETHER:
            if not queue:
                queue = sorted(lacks)
                dice.shuffle(queue)
            if (fault := queue.pop()) not in together:
                together.append(fault)
                aimed += len(lacks[fault])
        out.append(_company(together, lacks))
    return out


def _company(together: Sequence[str], lacks: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    rare = {BY_NAME[fault].each for fault in together} & RARE
    together = [*together, *(f for f in lacks if BY_NAME[f].each in rare)]
    aimed = {f"{fault}@{state}" for fault in together for state in lacks[fault]}
    leaving = any(BY_NAME[fault].each is Each.CANCEL and "unknown" in lacks[fault] for fault in together)
    owed = [name for state, names in COMPANY_OF.items() for name in names if any(state in lacks[f] for f in together)]
    doubt = LONG_IN_DOUBT if any(BY_NAME[f].each in (Each.ORDER, Each.NEWS) for f in together) else ()
    return ordered((*aimed, *COMPANY, *owed, *doubt, *((LEAVING,) if leaving else ())))
