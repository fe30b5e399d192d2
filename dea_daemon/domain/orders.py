"""Orders: their words, their lifecycle as one table, and the order the core keeps.

The table is the whole truth about a lifecycle: a (state, input) pair without a row is a surprise, and a
surprise quarantines the instrument. Terminal states come from venue evidence only. An order thought never to
have lived that shows signs of life is UNKNOWN again, quarantine or not: it counts until it is explained.
"""

from enum import StrEnum

import msgspec

from dea_daemon.domain.instruments import Side


class TimeInForce(StrEnum):
    GTC = "gtc"
    IOC = "ioc"


class OrderState(StrEnum):
    PENDING = "pending"  # create is on its way; live at its worst
    OPEN = "open"
    CANCELLING = "cancelling"  # was open (or thought so), cancel is on its way
    UNKNOWN = "unknown"  # the create's outcome is not known; live at its worst
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"  # the venue said no
    ABSENT = "absent"  # proved never to have lived

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED, OrderState.ABSENT})


class OrderInput(StrEnum):
    """What can happen to an order. Venue evidence unless it says otherwise."""

    SEEN_OPEN = "seen_open"
    SEEN_FILLED = "seen_filled"
    SEEN_CANCELLED = "seen_cancelled"
    SEEN_REJECTED = "seen_rejected"
    FILL = "fill"  # an execution that leaves something to fill
    LAST_FILL = "last_fill"  # an execution that completes the order
    CREATE_REFUSED = "create_refused"  # certainly not live: a definite reject, or never sent
    CREATE_UNKNOWN = "create_unknown"  # our side: timed out, cut, or unreadable
    CANCEL_SENT = "cancel_sent"  # our side
    CANCEL_REFUSED = "cancel_refused"  # the venue would not cancel: ask what the order is
    CANCEL_UNKNOWN = "cancel_unknown"  # our side: still working as far as we know
    PROVED_ABSENT = "proved_absent"  # the proof of absence held


_S, _I = OrderState, OrderInput
_OPEN_OUTCOMES = {
    _I.SEEN_FILLED: _S.FILLED,
    _I.SEEN_CANCELLED: _S.CANCELLED,
    _I.SEEN_REJECTED: _S.REJECTED,
    _I.LAST_FILL: _S.FILLED,
}
# A create without an outcome may be anything, and evidence settles it.
_CREATING = _OPEN_OUTCOMES | {_I.SEEN_OPEN: _S.OPEN, _I.FILL: _S.OPEN}
# Late news about an order that already ended: fills still count (the venue reported its end first),
# everything else about it is old news and changes nothing.
_ENDED_INPUTS = (
    _I.SEEN_OPEN,
    _I.FILL,
    _I.LAST_FILL,
    _I.CREATE_UNKNOWN,
    _I.CANCEL_SENT,
    _I.CANCEL_REFUSED,
    _I.CANCEL_UNKNOWN,
)
# A request outlives our patience: its own answer may come after evidence has settled the order.
_NEVER_LIVED_INPUTS = (
    _I.SEEN_REJECTED,
    _I.CREATE_REFUSED,
    _I.CREATE_UNKNOWN,
    _I.CANCEL_SENT,
    _I.CANCEL_REFUSED,
    _I.CANCEL_UNKNOWN,
)

NEXT: dict[tuple[OrderState, OrderInput], OrderState] = {
    **{(_S.PENDING, i): s for i, s in _CREATING.items()},
    (_S.PENDING, _I.CREATE_REFUSED): _S.REJECTED,
    (_S.PENDING, _I.CREATE_UNKNOWN): _S.UNKNOWN,
    **{(_S.UNKNOWN, i): s for i, s in _CREATING.items()},
    (_S.UNKNOWN, _I.CREATE_REFUSED): _S.REJECTED,
    (_S.UNKNOWN, _I.CREATE_UNKNOWN): _S.UNKNOWN,
    (_S.UNKNOWN, _I.CANCEL_SENT): _S.UNKNOWN,
    (_S.UNKNOWN, _I.CANCEL_REFUSED): _S.UNKNOWN,
    (_S.UNKNOWN, _I.CANCEL_UNKNOWN): _S.UNKNOWN,
    (_S.UNKNOWN, _I.PROVED_ABSENT): _S.ABSENT,
    **{(_S.OPEN, i): s for i, s in _OPEN_OUTCOMES.items()},
    (_S.OPEN, _I.SEEN_OPEN): _S.OPEN,
    (_S.OPEN, _I.FILL): _S.OPEN,
    (_S.OPEN, _I.CREATE_UNKNOWN): _S.OPEN,  # the socket told us before the request timed out
    (_S.OPEN, _I.CANCEL_SENT): _S.CANCELLING,
    (_S.OPEN, _I.CANCEL_REFUSED): _S.OPEN,  # a cancel given up on, or sent while the order was unknown
    (_S.OPEN, _I.CANCEL_UNKNOWN): _S.OPEN,
    **{(_S.CANCELLING, i): s for i, s in _OPEN_OUTCOMES.items()},
    (_S.CANCELLING, _I.SEEN_OPEN): _S.CANCELLING,
    (_S.CANCELLING, _I.FILL): _S.CANCELLING,
    (_S.CANCELLING, _I.CREATE_UNKNOWN): _S.CANCELLING,
    (_S.CANCELLING, _I.CANCEL_SENT): _S.CANCELLING,
    (_S.CANCELLING, _I.CANCEL_REFUSED): _S.OPEN,
    (_S.CANCELLING, _I.CANCEL_UNKNOWN): _S.OPEN,
    **{(s, i): s for s in (_S.FILLED, _S.CANCELLED) for i in _ENDED_INPUTS},
    (_S.FILLED, _I.SEEN_FILLED): _S.FILLED,
    (_S.CANCELLED, _I.SEEN_CANCELLED): _S.CANCELLED,
    (_S.CANCELLED, _I.LAST_FILL): _S.FILLED,
    **{(s, i): s for s in (_S.REJECTED, _S.ABSENT) for i in _NEVER_LIVED_INPUTS},
}

# Signs of life, and the states that deny there ever was any.
LIFE = frozenset({OrderInput.SEEN_OPEN, OrderInput.FILL})
NEVER_LIVED = frozenset({OrderState.REJECTED, OrderState.ABSENT})


class Order(msgspec.Struct):
    """One of our orders as the core knows it. Mutated by `fold` alone.

    `filled_lots` counts executions received; `venue_filled_lots` is what the venue says was executed and
    may run ahead of it. `cause_seq` is the decision that made it.
    """

    client_order_id: str
    row: int
    side: Side
    lots: int
    price_ticks: int
    time_in_force: TimeInForce
    post_only: bool
    reduce_only: bool
    valid_until_ms: int
    cause_seq: int
    created_ns: int
    state: OrderState = OrderState.PENDING
    venue_order_id: str = ""
    filled_lots: int = 0
    venue_filled_lots: int = 0
    cancel_sent_ns: int = 0
    query_sent_ns: int = 0
    ended_ns: int = 0
    doubted: bool = False  # evidence contradicts what we think: ask the venue
    reason: str = ""

    @property
    def in_flight_lots(self) -> int:
        """Signed lots that may still arrive in the position: all that is left while live, else only
        executions the venue reported whose fills have not come yet."""
        if self.state in TERMINAL:
            return self.side.sign * max(self.venue_filled_lots - self.filled_lots, 0)
        return self.side.sign * (self.lots - self.filled_lots)


class ForeignOrder(msgspec.Struct, frozen=True):
    """An open order in our account that is not ours: counted at its worst, never cancelled by itself."""

    account: int
    row: int
    side: Side
    lots: int
    venue_order_id: str
    seen_ns: int = 0  # our clock, when last heard of


_ALPHABET = "0123456789abcdefghijklmnopqrstuv"
OWN_PREFIX = "d"


def _base32(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 32)
        digits = _ALPHABET[digit] + digits
    return digits


def client_order_id(account: int, epoch: int, sequence: int) -> str:
    """`d` + account 2 + epoch 5 + sequence 8, base 32: unique across restarts as epochs are never reused."""
    return OWN_PREFIX + _base32(account, 2) + _base32(epoch, 5) + _base32(sequence, 8)


def is_own(label: str) -> bool:
    """Whether a venue's order label has the shape of one of ours."""
    return len(label) == 16 and label[0] == OWN_PREFIX and all(c in _ALPHABET for c in label[1:])


def epoch_of(label: str) -> int:
    """The epoch written in one of our client order ids."""
    return int(label[3:8], 32)
