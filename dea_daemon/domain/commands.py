"""Commands: what a decision asks the shell to do. Plain data; only `Approved` creates reach a venue."""

import msgspec

from dea_daemon.domain.instruments import Side
from dea_daemon.domain.models import Lessons
from dea_daemon.domain.orders import TimeInForce
from dea_daemon.domain.surfaces import Chain


class Command(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of all commands. `row` and `account` are indices into the universe."""


class CreateOrder(Command, frozen=True, tag=True, array_like=True):
    """Place a limit order. After `valid_until_ms` (UTC) the venue must refuse it."""

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
    why: str


class CancelOrder(Command, frozen=True, tag=True, array_like=True):
    """Cancel by the venue's id, or by label where that is not known yet."""

    client_order_id: str
    row: int
    venue_order_id: str
    why: str


class QueryOrder(Command, frozen=True, tag=True, array_like=True):
    """Ask for one order by client_order_id in open orders, history and trades; answer with OrderEvidence.

    `since_ms` (UTC) is when its create was decided: nothing earlier is asked for. 0 is as far back as the
    venue keeps.
    """

    client_order_id: str
    row: int
    since_ms: int = 0


class QueryAccount(Command, frozen=True, tag=True, array_like=True):
    """Ask for positions, balances, open orders and trades since a cursor; answer with AccountReported.

    `settled_since_ms` not 0: and for the deliveries since then, as positions have passed their expiry.
    """

    account: int
    trades_since_ms: int
    settled_since_ms: int = 0


class QueryInstruments(Command, frozen=True, tag=True, array_like=True):
    """Ask for the venue's contracts, as some may be new; answer with InstrumentsListed."""

    account: int


class Resubscribe(Command, frozen=True, tag=True, array_like=True):
    """This row's book is unusable: get a fresh snapshot."""

    row: int


class FitSurface(Command, frozen=True, tag=True, array_like=True):
    """Fit a volatility surface to these quotes, aside; answer with SurfaceFitted. A spread of more than
    `max_iv_spread` in volatility is no quote."""

    chain: Chain
    max_iv_spread: float


class FitModel(Command, frozen=True, tag=True, array_like=True):
    """Grow a forecaster's trees from these lessons, aside; answer with ModelFitted. `asked_utc_ns` names the
    question."""

    name: str
    asked_utc_ns: int
    lessons: Lessons


class Approved(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A create that passed `guards.admit`, its only maker: the gateway sends nothing else."""

    order: CreateOrder


Aside = FitSurface | FitModel
"""Slow work, which no venue answers."""

Outgoing = Approved | CancelOrder | QueryOrder | QueryAccount | QueryInstruments | Resubscribe | Aside
