"""Every fault by name, and the dice that decide when each strikes.

A fault has dice of its own: leaving one out changes what the others meet, but not what they would have drawn.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.numbers import NS_PER_S


class Each(StrEnum):
    """What a fault may befall, each by itself."""

    CREATE = "create"  # an order as it is sent
    CANCEL = "cancel"  # a cancel as it is sent
    QUESTION = "question"  # about one order, or about the account
    NEWS = "news"  # of one order, on the account's stream
    ORDER = "order"  # the answer to a question about one
    MESSAGE = "message"  # of the market
    REPORT = "report"  # of the account, or about contracts
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
    Fault(24, "option-lost", 0.05, _E.MESSAGE, "an option's ticker does not come", options=True),
    Fault(24, "option-late", 0.02, _E.MESSAGE, "it comes seconds late", options=True),
    Fault(24, "option-repeated", 0.02, _E.MESSAGE, "it comes once more", options=True),
    Fault(26, "report-empty", 0.03, _E.REPORT, "a report without positions where there are some"),
    Fault(27, "private-cut", 0.004, _E.STEP, "the account's stream breaks and comes back"),
    Fault(28, "trade-unheard", 0.001, _E.STEP, "a trade in our account that no stream tells"),
    Fault(29, "deleveraged", 0.001, _E.STEP, "the venue takes a part of a position"),
    Fault(31, "balance-drop", 0.0005, _E.STEP, "a part of the cash is gone"),
    Fault(33, "settlement-late", 0.4, _E.REPORT, "a delivery is written down late", options=True),
    Fault(33, "settlement-early", 0.2, _E.REPORT, "a delivered position still shows", options=True),
    Fault(33, "settlement-wrong", 0.05, _E.REPORT, "a delivery of another size", options=True),
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
    Fault(44, "maintenance", 0.0005, _E.STEP, "the venue is away: streams broken, requests unanswered"),
    Fault(45, "reload", 0.006, _E.STEP, "other targets, while it runs"),
    Fault(46, "flood", 0.001, _E.STEP, "every quote and mark a hundred times"),
    Fault(47, "halt-unsent", 0.002, _E.CREATE, "somebody says halt as an order leaves"),
    Fault(47, "operator", 0.006, _E.STEP, "somebody says halt, flatten, pause, drain, go on"),
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
    43: "sockets: as a stream that breaks (17, 27), and the shell's own tests",
    48: "no venue's timer is armed: docs/reliability.md tells the gap",
    49: "the log: the shell's own tests",
    50: "hours of real time",
}
"""Numbers of the fault list that virtual time cannot show, and why."""


def chosen(names: str) -> tuple[str, ...]:
    """Names out of `all` or a list with commas, in the order of the table. Raises ConfigError."""
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    if wanted == {"all"}:
        return tuple(BY_NAME)
    if unknown := sorted(wanted - BY_NAME.keys()):
        raise ConfigError(f"no such fault: {', '.join(unknown)}; there are all, {', '.join(BY_NAME)}")
    if not wanted:
        raise ConfigError(f"no fault named; there are all, {', '.join(BY_NAME)}")
    return tuple(name for name in BY_NAME if name in wanted)


RATE_MAX = 0.5


class Faults:
    """The faults of one history. `witness(name, label)` hears of each that strikes, with the order it befell."""

    def __init__(self, seed: int, names: Iterable[str], storm: float) -> None:
        """`storm` multiplies every rate; 0 is a world without any."""
        self.rates = {name: min(storm * BY_NAME[name].rate, RATE_MAX) for name in names}
        self.witness: Callable[[str, str], None] = lambda name, label: None
        self._dice = {name: random.Random(f"{seed} {name}") for name in BY_NAME}  # noqa: S311 no secrets

    @property
    def any(self) -> bool:
        return any(self.rates.values())

    def strikes(self, name: str, label: str = "") -> bool:
        """Whether this one strikes now; `label` is the order's where it befalls one."""
        rate = self.rates.get(name, 0.0)
        struck = rate > 0.0 and self._dice[name].random() < rate
        if struck:
            self.witness(name, label)
        return struck

    def dice(self, name: str) -> random.Random:
        """For all else about a fault: how long, how much."""
        return self._dice[name]

    def ns(self, name: str, low_s: float, high_s: float) -> int:
        return int(self._dice[name].uniform(low_s, high_s) * NS_PER_S)

    def stop(self) -> None:
        self.rates.clear()
