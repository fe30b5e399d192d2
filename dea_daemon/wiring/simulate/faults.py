"""Every fault by name, and the dice that decide when each strikes.

A fault has dice of its own: leaving one out changes what the others meet, but not what they would have drawn. One
named with a state of orders, `private-cut@unknown`, is aimed: it strikes where it meets such an order, and there
nearly always.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.domain.orders import OrderState


class Each(StrEnum):
    """What a fault may befall, each by itself."""

    CREATE = "create"  # an order as it is sent
    CANCEL = "cancel"  # a cancel as it is sent
    QUESTION = "question"  # about one order, or about the account
    NEWS = "news"  # of one order, on the account's stream
    ORDER = "order"  # the answer to a question about one
    MESSAGE = "message"  # of the market
    REPORT = "report"  # of the account, or about contracts
    FIT = "fit"  # the answer to a question for a surface
    STEP = "step"  # a tenth of a second
    FOLD = "fold"  # one event folded


@dataclass(frozen=True, slots=True)
class Fault:
    """`number` is the fault list's; `rate` the chance for one of `each`, in a storm of 1."""

    number: int
    name: str
    rate: float
    each: Each
    what: str
    options: bool = False  # only where options are held


_E = Each
FAULTS = (
    Fault(1, "create-unanswered", 0.08, _E.CREATE, "the venue took the order, we are not told"),
    Fault(1, "create-late", 0.05, _E.CREATE, "the order reaches the venue seconds later"),
    Fault(2, "create-lost", 0.05, _E.CREATE, "the order never reaches the venue"),
    Fault(3, "create-garbled", 0.03, _E.CREATE, "an unreadable reply at once, whether it was taken or not"),
    Fault(3, "question-lost", 0.05, _E.QUESTION, "a question without an answer"),
    Fault(3, "answer-late", 0.05, _E.QUESTION, "what was true seconds ago, told now"),
    Fault(3, "evidence-cut-short", 0.05, _E.ORDER, "half an answer about an order"),
    Fault(3, "report-cut-short", 0.05, _E.REPORT, "half an answer about the account"),
    Fault(4, "news-late", 0.15, _E.NEWS, "an acknowledgement behind the fills, seconds late"),
    Fault(5, "news-lost", 0.02, _E.NEWS, "the account's stream leaves something out"),
    Fault(6, "fill-repeated", 0.15, _E.NEWS, "a fill told once more, later"),
    Fault(7, "fill-late", 0.15, _E.NEWS, "fills in another order, seconds late"),
    Fault(8, "cancel-races-fill", 0.05, _E.CANCEL, "somebody takes the order as its cancel travels"),
    Fault(9, "cancel-lost", 0.06, _E.CANCEL, "the cancel never reaches the venue"),
    Fault(9, "cancel-unanswered", 0.06, _E.CANCEL, "the venue cancelled, we are not told"),
    Fault(11, "one-refused", 0.02, _E.CREATE, "the venue takes the others and refuses this one"),
    Fault(12, "all-refused", 0.001, _E.STEP, "for seconds every order is refused"),
    Fault(13, "post-only-refused", 0.05, _E.CREATE, "the venue says that it would have taken"),
    Fault(14, "reduce-only-ignored", 0.2, _E.CREATE, "the venue forgets that an order may only reduce"),
    Fault(15, "hand-trade", 0.008, _E.STEP, "somebody trades in our account"),
    Fault(15, "hand-order", 0.004, _E.STEP, "somebody's order rests in our account"),
    Fault(15, "hand-cancel", 0.003, _E.STEP, "somebody cancels it"),
    Fault(16, "delta-lost", 0.002, _E.MESSAGE, "a gap in a book"),
    Fault(17, "public-cut", 0.004, _E.STEP, "the market's stream breaks and comes back"),
    Fault(18, "book-crossed", 0.0005, _E.MESSAGE, "a bid above the ask"),
    Fault(18, "book-empty", 0.0002, _E.MESSAGE, "a book without a level, for a while"),
    Fault(19, "contract-silent", 0.003, _E.STEP, "nothing of one contract for seconds"),
    Fault(20, "public-half-open", 0.001, _E.STEP, "the market's stream is silent and does not break"),
    Fault(20, "private-half-open", 0.001, _E.STEP, "the account's stream is silent and does not break"),
    Fault(21, "delta-repeated", 0.001, _E.MESSAGE, "a change of a book told twice"),
    Fault(21, "delta-late", 0.001, _E.MESSAGE, "a change of a book behind its successor"),
    Fault(22, "mark-garbage", 0.002, _E.MESSAGE, "a mark that is no price, or a wrong one"),
    Fault(22, "index-garbage", 0.001, _E.MESSAGE, "an index that is no price, or a wrong one"),
    Fault(22, "option-nonsense", 0.002, _E.MESSAGE, "an option's figures are nonsense for seconds", options=True),
    Fault(22, "series-nonsense", 0.0003, _E.MESSAGE, "so are those of its whole expiry", options=True),
    Fault(23, "mark-diverges", 0.0005, _E.MESSAGE, "a mark far from its index for seconds"),
    Fault(22, "depeg", 0.001, _E.STEP, "a stablecoin is not worth a dollar for seconds"),
    Fault(24, "option-lost", 0.05, _E.MESSAGE, "an option's ticker does not come", options=True),
    Fault(24, "option-late", 0.02, _E.MESSAGE, "it comes seconds late", options=True),
    Fault(24, "option-repeated", 0.02, _E.MESSAGE, "it comes once more", options=True),
    Fault(22, "surface-jumps", 0.1, _E.FIT, "a surface with volatilities far from the last one's", options=True),
    Fault(24, "surface-lost", 0.1, _E.FIT, "a surface is asked for and never comes", options=True),
    Fault(24, "surface-late", 0.1, _E.FIT, "it comes seconds late, behind its successor", options=True),
    Fault(24, "surface-repeated", 0.1, _E.FIT, "it comes once more", options=True),
    Fault(24, "surface-refused", 0.1, _E.FIT, "none can be made of the quotes", options=True),
    Fault(26, "report-empty", 0.03, _E.REPORT, "a report without positions where there are some"),
    Fault(27, "private-cut", 0.004, _E.STEP, "the account's stream breaks and comes back"),
    Fault(28, "trade-unheard", 0.001, _E.STEP, "a trade in our account that no stream tells"),
    Fault(29, "deleveraged", 0.001, _E.STEP, "the venue takes a part of a position"),
    Fault(29, "liquidated", 0.0005, _E.STEP, "it does, and says that it liquidates"),
    Fault(31, "balance-drop", 0.0005, _E.STEP, "a part of the cash is gone"),
    Fault(33, "settlement-late", 0.4, _E.REPORT, "a delivery is written down late", options=True),
    Fault(33, "settlement-early", 0.2, _E.REPORT, "a delivered position still shows", options=True),
    Fault(33, "settlement-wrong", 0.05, _E.REPORT, "a delivery of another size", options=True),
    Fault(34, "grid-changed", 0.0005, _E.STEP, "a contract is traded in other lots and ticks from now on"),
    Fault(34, "announcement-lost", 0.2, _E.REPORT, "a contract comes or goes and nobody says so"),
    Fault(34, "listing-lost", 0.1, _E.REPORT, "a question about contracts without an answer"),
    Fault(34, "listing-failed", 0.2, _E.REPORT, "the venue cannot say what it lists"),
    Fault(34, "listing-late", 0.2, _E.REPORT, "it says so seconds late"),
    Fault(35, "crash", 0.002, _E.STEP, "the process dies between two steps"),
    Fault(35, "crash-unsent", 0.0001, _E.FOLD, "it dies between the ledger and the wire"),
    Fault(37, "ledger-fails", 0.003, _E.STEP, "nothing can be written down for seconds"),
    Fault(40, "loop-blocked", 0.001, _E.STEP, "the process stands still for seconds"),
    Fault(41, "clock-steps", 0.002, _E.STEP, "the wall clock jumps"),
    Fault(42, "rate-limited", 0.02, _E.CREATE, "too many requests, says the venue"),
    Fault(43, "key-revoked", 0.0005, _E.STEP, "for seconds every request is refused as unauthorized"),
    Fault(44, "maintenance", 0.0005, _E.STEP, "the venue is away: streams broken, requests unanswered"),
    Fault(44, "venue-announced", 0.001, _E.STEP, "the venue says that it takes no orders for seconds, and does not"),
    Fault(45, "reload", 0.006, _E.STEP, "other targets, while it runs"),
    Fault(46, "flood", 0.001, _E.STEP, "every quote and mark a hundred times"),
    Fault(47, "halt-unsent", 0.002, _E.CREATE, "somebody says halt as an order leaves"),
    Fault(47, "operator", 0.006, _E.STEP, "somebody says halt, flatten, pause, drain, go on"),
    Fault(48, "watchdog-lost", 0.002, _E.STEP, "nobody would cancel our orders if we stopped, for seconds"),
)  # fmt: skip
BY_NAME = {fault.name: fault for fault in FAULTS}

ELSEWHERE = {
    10: "no order is ever changed in place: a cancel, then a create",
    25: "messages are read before the core: the codecs' own tests",
    30: "no fault: funding is paid in the market `funding`, one of those drawn",
    32: "no venue traded has position modes",
    36: "files: the ledger's and the tape's own tests",
    38: "processes: the lock's own tests",
    39: "a lease across machines: not built",
    49: "the log: the shell's own tests",
    50: "hours of real time",
}
"""Numbers of the fault list that virtual time cannot show, and why."""


NONE = "none"  # no order of ours is live
STATES = (NONE, *(str(state) for state in OrderState))


def base(name: str) -> str:
    """The fault itself, aimed or not."""
    return name.partition("@")[0]


def aim(name: str) -> str:
    """The state it is aimed at, or ""."""
    return name.partition("@")[2]


def chosen(names: str) -> tuple[str, ...]:
    """Names out of a list with commas, in the order of the table; `all` are all, `name@state` is aimed. Raises
    ConfigError."""
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    if "all" in wanted:
        wanted = wanted - {"all"} | BY_NAME.keys()
    if unknown := sorted(name for name in wanted if base(name) not in BY_NAME):
        raise ConfigError(f"no such fault: {', '.join(unknown)}; there are all, {', '.join(BY_NAME)}")
    if unknown := sorted(name for name in wanted if "@" in name and aim(name) not in STATES):
        raise ConfigError(f"no such state: {', '.join(unknown)}; there are {', '.join(STATES)}")
    if not wanted:
        raise ConfigError(f"no fault named; there are all, {', '.join(BY_NAME)}")
    return ordered(wanted)


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """In the order of the table: a plan has one way to be written."""
    places = {name: place for place, name in enumerate(BY_NAME)}
    return tuple(sorted(set(names), key=lambda name: (places[base(name)], name)))


RATE_MAX = 0.5


AIMED_CHANCE = 0.6
REST_NS = {Each.STEP: NS_PER_S, Each.FOLD: NS_PER_S, Each.MESSAGE: NS_PER_S // 10}  # each leaves the world some time
LONG_REST_NS = dict.fromkeys(("crash", "crash-unsent", "maintenance"), 6 * NS_PER_S)  # or it is never up


class Faults:
    """The faults of one history. `witness(name, label)` hears of each that strikes, with the order it befell;
    `states(label)` tells the states met by what befalls that order (or, without a label, the world), `now_ns` the
    time."""

    def __init__(self, seed: int, names: Iterable[str], storm: float) -> None:
        """`storm` multiplies every rate; 0 is a world without any."""
        names = tuple(names) if storm > 0.0 else ()
        self.rates = {name: min(storm * BY_NAME[name].rate, RATE_MAX) for name in names if "@" not in name}
        self.aims: dict[str, set[str]] = {}
        for name in names:
            if "@" in name:
                self.aims.setdefault(base(name), set()).add(aim(name))
        self.aims_at_world = [name for name in self.aims if BY_NAME[name].each is Each.STEP]
        self.witness: Callable[[str, str], None] = lambda name, label: None
        self.states: Callable[[str], set[str]] = lambda label: set()
        self.now_ns: Callable[[], int] = lambda: 0
        self._dice = {name: random.Random(f"{seed} {name}") for name in BY_NAME}  # noqa: S311 no secrets
        self._aims_dice = {name: random.Random(f"{seed} {name}@") for name in self.aims}  # noqa: S311
        self._rests_until_ns = dict.fromkeys(self.aims, 0)

    @property
    def any(self) -> bool:
        return bool(self.aims) or any(self.rates.values())

    def strikes(self, name: str, label: str = "") -> bool:
        """Whether this one strikes now; `label` is the order's where it befalls one."""
        rate = self.rates.get(name, 0.0)
        if rate > 0.0 and self._dice[name].random() < rate:
            self.witness(name, label)
            return True
        return name in self.aims and self.hits(name, label)

    def hits(self, name: str, label: str = "") -> bool:
        """Whether one that is aimed meets what it is aimed at, and strikes."""
        now_ns = self.now_ns()
        if now_ns < self._rests_until_ns[name] or not self.aims[name] & self.states(label):
            return False
        if self._aims_dice[name].random() >= AIMED_CHANCE:
            return False
        self._rests_until_ns[name] = now_ns + LONG_REST_NS.get(name, REST_NS.get(BY_NAME[name].each, 0))
        self.witness(name, label)
        return True

    def dice(self, name: str) -> random.Random:
        """For all else about a fault: how long, how much."""
        return self._dice[name]

    def ns(self, name: str, low_s: float, high_s: float) -> int:
        return int(self._dice[name].uniform(low_s, high_s) * NS_PER_S)

    def stop(self) -> None:
        self.rates.clear()
        self.aims.clear()
        self.aims_at_world.clear()
