"""What befalls the venue itself while it runs, by a plan: maintenance, another grid, a key taken away, a lost peg.

On the command line, among the faults, `WHOM=ACTION:AFTER_S:ARGUMENT`, seconds counted from the venue's start:
`venue=maintenance:10:30` (for 30 s; `BTC=maintenance:10:30` of one coin only), `BTC-PERPETUAL=tick_size:10:2.5`,
`sim-7=revoked:10:30` (a client id, for 30 s), `USDC=peg:10:0.97`.
"""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.numbers import NS_PER_S

ACTIONS = ("maintenance", "tick_size", "revoked", "peg")
_ENDS = {"locked": "unlocked", "revoked": "restored"}


@dataclass(frozen=True, slots=True)
class Incident:
    """One thing that happens, so long after the start: locked, unlocked, revoked, restored, tick_size or peg; `whom`
    it concerns, and the `number` of the last two."""

    whom: str
    action: str
    after_ns: int
    number: Decimal = Decimal(0)


def is_incident(spec: str) -> bool:
    """Whether it is one of these, by its action."""
    return spec.partition("=")[2].partition(":")[0] in ACTIONS


def parse(spec: str) -> list[Incident]:
    """The incidents of one text: a beginning and its end are two. Raises ConfigError, saying what was meant."""
    whom, _, rest = spec.partition("=")
    action, *arguments = rest.split(":")
    try:
        after_s, number = (Decimal(argument) for argument in arguments)
    except (ValueError, InvalidOperation):
        raise ConfigError(f"fault {spec!r}: expected WHOM={action}:AFTER_S:ARGUMENT, two numbers") from None
    if not whom or not after_s >= 0 or not number > 0:
        raise ConfigError(f"fault {spec!r}: seconds and arguments are not negative, and somebody is meant")
    after_ns = int(after_s * NS_PER_S)
    action = "locked" if action == "maintenance" else action
    if action not in _ENDS:
        return [Incident(whom, action, after_ns, number)]
    end_ns = after_ns + int(number * NS_PER_S)
    return [Incident(whom, action, after_ns), Incident(whom, _ENDS[action], end_ns)]
