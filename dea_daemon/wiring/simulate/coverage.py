"""What was tried: each fault with the state of each order it met.

A fault that befalls one order meets that order; any other meets all that are live, or none.
"""

from collections.abc import Iterable, Mapping, Sequence

from dea_daemon.domain.orders import OrderState
from dea_daemon.wiring.simulate.faults import BY_NAME, NONE, STATES, Each, base

Pair = tuple[str, str]  # fault, state
_S = OrderState
_NAMED = "it befalls one order: there always is one"
_OVER = "what befalls no order by itself meets the live ones, and those whose fills are still to come"
_REFUSED: dict[str, str] = dict.fromkeys((_S.REJECTED, _S.ABSENT), _OVER)
IMPOSSIBLE: dict[Each, dict[str, str]] = {
    Each.CREATE: {s: "an order is sent once, pending" for s in STATES if s != _S.PENDING},
    Each.CANCEL: {
        NONE: _NAMED,
        _S.PENDING: "nothing is cancelled before its outcome is known or doubted",
        **dict.fromkeys((_S.OPEN, _S.FILLED, _S.CANCELLED, _S.REJECTED, _S.ABSENT), "a cancel is noted as it is sent"),
    },
    Each.NEWS: {
        NONE: _NAMED,
        _S.REJECTED: "no venue tells more of an order it refused",
        _S.ABSENT: "the proof of absence is that there is nothing to tell",
    },
    Each.ORDER: {NONE: _NAMED, _S.PENDING: "asked about is what is in doubt, and nothing is pending again"},
    **dict.fromkeys((Each.QUESTION, Each.MESSAGE, Each.REPORT, Each.FIT, Each.STEP, Each.FOLD), _REFUSED),
}
"""States that the faults of a kind cannot meet, and why."""


def possible(names: Iterable[str]) -> list[Pair]:
    """All pairs that can occur."""
    faults = dict.fromkeys(base(name) for name in names)
    return [(name, state) for name in faults for state in STATES if state not in IMPOSSIBLE[BY_NAME[name].each]]


def counts(met: Mapping[Pair, int], names: Iterable[str]) -> dict[str, dict[str, int | None]]:
    """For each fault how often it met each state; None where it cannot."""
    return {
        name: {s: None if s in IMPOSSIBLE[BY_NAME[name].each] else met.get((name, s), 0) for s in STATES}
        for name in dict.fromkeys(base(name) for name in names)
    }


def table(met: Mapping[Pair, int], names: Sequence[str]) -> list[str]:
    """The same as text: `.` was never met, `-` cannot be, for reasons below."""
    heads = "".join(f"{state:>11}" for state in STATES)
    lines = [
        "How often each fault (numbered as in docs/reliability.md) met an order in each state; none: none was live.",
        "  . never, - cannot: why, below",
        f"{'':>4}{'fault':<20}{heads}",
    ]
    for name, row in counts(met, names).items():
        cells = "".join(f"{'-' if n is None else n or '.':>11}" for n in row.values())
        lines.append(f"{BY_NAME[name].number:>3} {name:<20}{cells}")
    reasons: dict[str, dict[str, None]] = {}
    for name in dict.fromkeys(base(name) for name in names):
        for state, why in IMPOSSIBLE[BY_NAME[name].each].items():
            reasons.setdefault(why, {})[f"{BY_NAME[name].each} {state}"] = None
    return [*lines, *(f"  - {why}: {', '.join(which)}" for why, which in reasons.items())]
