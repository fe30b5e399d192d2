"""Faults of the wire: a seeded plan of what goes wrong with which requests and messages.

On the command line `PATTERN=ACTION[:ARGUMENT][:PROBABILITY]`: `private/buy=hang_after:0.05`,
`private/*=slow:250:0.1`, `book.*=gap:0.001`, `ws=silent:BTC-PERPETUAL`. Patterns are shell globs, of method
names for requests, of channel names for messages. Probability 1 where none is given. What befalls the venue itself
stands among them: incidents.py. And so do the pages of slow factors that are served beside it,
`factors/PAGE=ACTION[:AFTER_S[:FOR_S]]`, in seconds from the start: `factors/fng=hang:30:60`, `factors/*=html`.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.simvenue import incidents

# Of requests. *_before never reaches the venue; the rest are processed, and the reply is lost or spoilt. `late`
# reaches the venue after so many ms, `slow` is answered after so many.
CALL_ACTIONS = (
    "hang_before", "hang_after", "drop_before", "drop_after", "http_500_after", "html", "truncated", "null_body",
    "rate_limited", "slow", "late",
)  # fmt: skip
# Of websocket messages: leave one out, put a malformed frame before it, close the connection, never speak of an
# instrument, never speak of the account.
MESSAGE_ACTIONS = ("gap", "garbage", "close", "silent", "mute_private")
# Of pages of slow factors: no answer, or none that can be read; or one that tells what is not so.
PAGE_ACTIONS = (
    "hang", "drip", "html", "error", "huge", "redirect", "truncated", "words", "endless", "packed", "gone",
    "rewind", "restate", "absurd", "jump", "future", "empty",
)  # fmt: skip
PAGES = "factors/"
FACTOR_PAGES = (
    "timeseries/asset-metrics", "fng", "fred/series/observations", "graph/fredgraph.csv", "own.csv", "own.json",
)  # fmt: skip
_FOR_EVER_NS = 1 << 62
_WITH_MS = ("slow", "late")


@dataclass(slots=True)
class Fault:
    """One rule. `left` -1 is for ever; `ms` of slow and late, `instrument` of silent ("" is every one)."""

    pattern: str
    action: str
    probability: float = 1.0
    left: int = -1
    ms: int = 0
    instrument: str = ""

    def matches(self, name: str) -> bool:
        if self.action == "mute_private":
            return name.startswith("user.")
        if self.instrument and self.instrument not in name.split("."):
            return False
        return self.pattern == "ws" or fnmatchcase(name, self.pattern)


@dataclass(frozen=True, slots=True)
class PageFault:
    """What a page of slow factors does from then until then, ns from the start."""

    pattern: str
    action: str
    from_ns: int
    until_ns: int


class FaultPlan:
    """The rules in force. The first that matches and strikes decides."""

    def __init__(self, seed: int = 0, specs: tuple[str, ...] = ()) -> None:
        self._random = np.random.default_rng(seed)
        self._pages = [parse_page(spec) for spec in specs if spec.startswith(PAGES)]
        specs = tuple(spec for spec in specs if not spec.startswith(PAGES))
        self._rules = [parse(spec) for spec in specs if not incidents.is_incident(spec)]
        self.incidents = [i for spec in specs if incidents.is_incident(spec) for i in incidents.parse(spec)]

    def next(self, pattern: str, action: str, count: int = 1) -> None:
        """The next `count` that match. `action` may carry an argument: "slow:200"."""
        rule = parse(f"{pattern}={action}")
        rule.left = count
        self._rules.insert(0, rule)

    def always(self, pattern: str, action: str) -> None:
        """All that match, until `clear`."""
        self.next(pattern, action, count=-1)

    def clear(self) -> None:
        self._rules.clear()

    def on_call(self, method: str) -> Fault | None:
        """What befalls this request."""
        return self._strike(method, CALL_ACTIONS)

    def on_message(self, channel: str) -> str:
        """What befalls this message: gap, garbage, close, silent, or ""."""
        rule = self._strike(channel, MESSAGE_ACTIONS)
        return "" if rule is None else "silent" if rule.action == "mute_private" else rule.action

    def on_page(self, page: str, since_ns: int) -> str:
        """What befalls this page of slow factors so long after the start; "" is nothing."""
        for rule in self._pages:
            if rule.from_ns <= since_ns < rule.until_ns and fnmatchcase(page, rule.pattern):
                return rule.action
        return ""

    def _strike(self, name: str, actions: tuple[str, ...]) -> Fault | None:
        for rule in self._rules:
            if rule.action not in actions or rule.left == 0 or not rule.matches(name):
                continue
            if rule.probability < 1.0 and self._random.random() >= rule.probability:
                continue
            rule.left -= rule.left > 0
            return rule
        return None


def parse(spec: str) -> Fault:
    """One rule from its text. Raises ConfigError, saying what was meant."""
    pattern, _, rest = spec.partition("=")
    action, *arguments = rest.split(":")
    if not pattern or action not in CALL_ACTIONS + MESSAGE_ACTIONS:
        known = ", ".join(CALL_ACTIONS + MESSAGE_ACTIONS + incidents.ACTIONS)
        raise ConfigError(f"fault {spec!r}: expected PATTERN=ACTION[:ARGUMENT][:PROBABILITY], with one of {known}")
    fault = Fault(pattern, action)
    try:
        if action in _WITH_MS:
            fault.ms = int(arguments.pop(0))
        elif action == "silent" and arguments and not _is_number(arguments[0]):
            fault.instrument = arguments.pop(0)
        if arguments:
            fault.probability = float(arguments.pop(0))
    except (ValueError, IndexError):
        raise ConfigError(f"fault {spec!r}: slow and late want milliseconds, the rest a probability") from None
    if arguments or not 0.0 <= fault.probability <= 1.0:
        raise ConfigError(f"fault {spec!r}: a probability is between 0 and 1, and comes last")
    return fault


def parse_page(spec: str) -> PageFault:
    """One rule for pages of slow factors. Raises ConfigError, saying what was meant."""
    pattern, _, rest = spec.removeprefix(PAGES).partition("=")
    action, *arguments = rest.split(":")
    expected = f"fault {spec!r}: expected {PAGES}PAGE=ACTION[:AFTER_S[:FOR_S]]"
    if not pattern or action not in PAGE_ACTIONS:
        raise ConfigError(f"{expected}, with one of {', '.join(PAGE_ACTIONS)}")
    if not any(fnmatchcase(page, pattern) for page in FACTOR_PAGES):
        raise ConfigError(f"{expected}, of a page there is: {', '.join(FACTOR_PAGES)}")
    try:
        after_ns, for_ns, *more = [
            *(int(float(text) * NS_PER_S) for text in arguments),
            *(0, _FOR_EVER_NS)[len(arguments) :],
        ]
    except (ValueError, OverflowError):
        raise ConfigError(f"{expected}, seconds as numbers") from None
    if more or after_ns < 0 or for_ns <= 0:
        raise ConfigError(f"{expected}, at most two numbers of seconds, none of them negative")
    return PageFault(pattern, action, after_ns, after_ns + for_ns)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
