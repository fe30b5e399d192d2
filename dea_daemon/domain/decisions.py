"""What passes between the rooms in one decision: View → Forecast → Target → Permit → Decision.

N is the number of universe rows, K of risk factors (FactorIndex), U of underlyings. Arrays of a View are
read-only. Units are in the names; every *_usd is signed unless it says otherwise.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import msgspec
import numpy as np

from dea_daemon.domain.commands import Outgoing
from dea_daemon.domain.factors import FactorIndex
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray, Universe
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.orders import Order


class IvSource(IntEnum):
    """Where an option's implied volatility came from: the first of these that there is."""

    NONE = 0  # not an option
    SURFACE = 1  # the surface fitted to all quotes, where they say something
    QUOTES = 2  # its own bid and ask
    MARK = 3  # the venue's mark
    EXTRAPOLATED = 4  # the surface, beyond what its quotes say
    LAST = 5  # any of the first three, some time ago
    NEIGHBOUR = 6  # other strikes of the same expiry
    PRIOR = 7  # the volatility assumed before data


@dataclass(frozen=True, slots=True)
class Slow:
    """Slow factors at one tick, F of them in the order of their names; read-only arrays.

    z [F]: standard deviations from its own past, decayed with age; 0 where nothing is known. age_days [F] since the
    time it is about, infinite where nothing is. valid [F]: it is known, and not too old.
    """

    names: tuple[str, ...]
    z: FloatArray
    age_days: FloatArray
    valid: BoolArray


NO_FACTORS = Slow((), np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.bool_))  # nothing in it to write to


class Micro(NamedTuple):
    """What books, quotes and trades say of the next minutes, [N] each; NaN where it is unknown: what the venue does not
    send, a book that is stale or has a gap. state/flow.py makes it, and says how.

    `microprice` is the mid weighted by the other side's amount, the first-order form of Stoikov's (2018): his own
    adjustment is learnt from data, and is not made here. Depths are of the best five levels, or the quote's one.
    `ofi` and `ofi_deep` are decayed order-flow imbalance of the best level and of the best five (only where there is a
    book), over mean depth: 1 is as much net buying as usually stands at the touch. `flow_age_s` is how long ago their
    sums began: they are small while that is less than the half-life. `trade_imbalance` is signed traded amount over
    traded amount, from -1 to 1, and fades as the last trade ages. `open_interest_change` is against its mean over a
    past of one day's mean age; unknown until half of that was watched.
    """

    microprice: FloatArray
    spread_bp: FloatArray
    depth_bid_usd: FloatArray
    depth_ask_usd: FloatArray
    ofi: FloatArray
    ofi_deep: FloatArray
    flow_age_s: FloatArray
    trade_imbalance: FloatArray
    realised_variance: FloatArray  # 1/day, of the mid
    basis_annual: FloatArray  # 1/year, of contracts that end
    premium: FloatArray  # of perpetuals: mark over index, less one
    funding_rate_8h: FloatArray
    open_interest_usd: FloatArray
    open_interest_change: FloatArray


@dataclass(frozen=True, slots=True)
class View:
    """Read-only picture of the state at one tick.

    now_ns is the receipt clock, utc_ns the wall clock. Prices are NaN where unknown; `fresh` [N] says the
    book (or quote) and mark may be relied upon. `notional_per_lot_usd` [N] is positive and NaN where it cannot
    be known. `exposure_per_lot` is X [K, N] in USD per lot; `exposure_base_usd` is e0 [K]; `exposure_usd` [K]
    is X·position + e0, over all factors. The first U of the K are the underlyings' dollar deltas, and
    `delta_per_lot` [N] is each row's own of them, signed. Working lots [N] are the non-negative worst sums of own
    and foreign orders that may still fill on each side, unknown ones included.

    An option has `iv` and where that came from (`iv_source`, IvSource). `modelled` marks options whose Greeks rest
    on less than the venue's fresh word, `greeks_off` those where the venue's own Greeks contradict ours, `pinned`
    those about to expire near their strike; `settling` is the share of a contract's settlement average still to come.
    """

    seq: int  # this decision's number in the run
    now_ns: int
    utc_ns: int
    universe: Universe
    factors: FactorIndex
    # market [N]
    bid_price: FloatArray
    ask_price: FloatArray
    mark_price: FloatArray
    index_price: FloatArray
    funding_rate_8h: FloatArray
    fresh: BoolArray
    underlying_price: FloatArray  # [U] index in USD
    forward_price: FloatArray  # of dated contracts, USD
    iv: FloatArray
    iv_source: IntArray
    modelled: BoolArray
    greeks_off: BoolArray
    pinned: BoolArray
    settling: FloatArray
    surface_doubt: BoolArray  # [U] options are followed and no surface may be relied upon
    micro: Micro
    smile: FloatArray  # [U, len(TENOR_DAYS), 3] volatility at the money, risk reversal, butterfly; NaN where unknown
    peg: FloatArray  # [N] USD price of the stablecoin a row settles in; 1 where it is none, or unheard
    shut: BoolArray  # [N] the venue takes no orders there, or changed its lots or ticks since the start
    slow: Slow  # on-chain, sentiment, macro, an operator's own
    # account [N], [K]
    position_lots: IntArray
    working_buy_lots: IntArray
    working_sell_lots: IntArray
    quarantined: BoolArray
    notional_per_lot_usd: FloatArray
    exposure_per_lot: FloatArray
    delta_per_lot: FloatArray
    exposure_base_usd: FloatArray
    exposure_usd: FloatArray
    equity_usd: float
    peak_equity_usd: float
    day: int  # UTC, days since 1970
    day_equity_usd: float  # the day's first; 0: not known yet
    margin_use: float  # the worst pool's maintenance margin over its equity; NaN where that is not known
    row_margin_use: FloatArray  # [N] likewise, of the pool each row is margined in
    liquidation_distance: float  # the smallest move of everything that would liquidate a pool; infinite without any
    turnover_hour_usd: float
    turnover_day_usd: float
    fees_hour_usd: float
    fees_day_usd: float
    creates_last_minute: int
    creates_last_hour: int
    cancels_last_hour: int
    day_returns: FloatArray  # [H, U] joint moves of the underlyings, scaled to a day; H is 0 before any was seen
    clock_step_ns: int
    # conditions
    mode: Mode
    armed: bool
    draining: bool
    ready: bool  # the account was reported, and every restored order is settled
    account_fresh: bool  # [all accounts] private stream and reports are recent
    recording: bool  # the ledger accepts writes
    watched: bool  # somebody cancels our orders should we stop, where that was asked for
    outside: tuple[str, ...]  # held in contracts that are not configured: exposure nobody measures
    orders: tuple[Order, ...]  # live and unknown ones, ours
    # for execution
    epoch: int
    sequence: int  # the last one used in a client order id
    trade_cursor_ms: int
    account_asked_ns: tuple[int, ...]
    account_agreed: tuple[bool, ...]
    traded_accounts: tuple[int, ...]
    paused: BoolArray  # [N] left alone now: repeated rejects, or crossing found too little
    post_only_rejects: IntArray  # [N] in a row
    delivered_since_ms: tuple[int, ...]  # by account: ask for deliveries since then; 0: none are owed
    relist: tuple[int, ...]  # accounts whose contracts should be listed again

    @property
    def delta_usd(self) -> FloatArray:
        """[U] dollar delta of each underlying."""
        return self.exposure_usd[: len(self.universe.underlyings)]

    def factor_usd(self, kind: str) -> FloatArray:
        """[U] exposure of each underlying to a kind of factor: "gamma", "vega" (weighted to 30 days), …"""
        first = self.factors.first(kind)
        return self.exposure_usd[first : first + len(self.universe.underlyings)]

    def factor_per_lot(self, kind: str) -> FloatArray:
        """[N] what one lot of each row adds to its own underlying's."""
        rows = np.arange(len(self.universe))
        return np.asarray(self.exposure_per_lot[self.factors.first(kind) + self.universe.underlying, rows])


class Forecaster(msgspec.Struct, frozen=True, gc=False):
    """What one forecaster ("ridge_1d": over a day) says of one underlying, and how good it was so far.

    `weight` is traded, `earned` what the combination would give. `scored` counts outcomes; NaN where too few.
    expected_return and its deviation are over the horizon; r_squared and t (Diebold and Mariano's) are against a
    forecast of zero.
    """

    name: str
    underlying: str
    weight: float
    earned: float
    scored: int
    expected_return: float
    deviation: float
    r_squared: float
    hit_rate: float
    t: float


class Contender(msgspec.Struct, frozen=True, gc=False):
    """A forecaster of returns ("ridge_1d"), or a model of variance ("har"), on trial against what trades.

    `kind` is "return" or "variance"; `state` "shadow", "traded", "proposed" (the operator may promote it) or "demoted",
    and `why` it is that. `weight` is traded (of a model: 1 or 0); `offered` what it would be with it promoted. Of
    `rounds` outcomes that do not overlap: `p` is the evidence that what trades would lose less with it (valid however
    often one looks), `against` that it would lose less without it, `drift` how near its alarm its loss has
    risen (1: alarm), `net_gain` what trading it would have made after costs, in Kelly's growth (NaN of a model).
    """

    name: str
    kind: str
    state: str
    weight: float
    offered: float
    rounds: int
    p: float
    against: float
    drift: float
    net_gain: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of the underlyings, by S signals, and how uncertain that is.

    signal_return [S, U] 1/day, carry not counted, and signal_decay [S] 1/day, the rate at which each fades.
    covariance [U, U] 1/day², PSD; annual_vol [U].
    target_variance [U] 1/day: variance rate of log(volatility · price), which is how fast the number of contracts of
    a constant volatility moves, in shares of itself.
    residual_variance [N] 1/day: of each contract's return beyond its underlying's; 0 of options and spot.
    carry [N] 1/day: what a dollar of notional held long is expected to earn in funding and basis; 0 where unknown.
    forecasters: what each said at `told_ns` (receipt clock), traded or not; contenders: how each is on trial then.
    """

    signal_return: FloatArray
    signal_decay: FloatArray
    covariance: FloatArray
    annual_vol: FloatArray
    target_variance: FloatArray
    residual_variance: FloatArray
    carry: FloatArray
    forecasters: tuple[Forecaster, ...] = ()
    contenders: tuple[Contender, ...] = ()
    told_ns: int = 0

    @property
    def mean_return(self) -> FloatArray:
        """[U] 1/day, of all signals together."""
        return np.asarray(self.signal_return.sum(axis=0))


class ShadowPrice(msgspec.Struct, frozen=True, gc=False):
    """What one more unit of room in a limit, or of width in a band, would save over the horizon; the unit is the
    limit's own."""

    limit: str
    subject: str
    usd_per_unit: float


class Move(msgspec.Struct, frozen=True, gc=False):
    """One position the allocator wants changed. `cost_usd` is the trade's; `carry_usd` what the whole position is
    expected to earn (or pay) in funding, basis and time value over the horizon."""

    instrument: str
    from_lots: int
    to_lots: int
    usd: float
    cost_usd: float
    carry_usd: float


class Allocation(msgspec.Struct, frozen=True, gc=False):
    """How the wanted book was found, and how good it is: all USD over the horizon of `allocator.expected_hold_h`.

    status: certified (gap_usd bounds what the best answer would be better by), feasible (within all limits, gap not
    small), held (nothing moves), none (nothing to choose). violation is of the limits, as a share of each.
    rounding_usd is what whole lots cost beyond that; cost_usd of trading, benefit_usd what the move is worth otherwise.
    """

    status: str
    gap_usd: float = 0.0
    violation: float = 0.0
    iterations: int = 0
    rounding_usd: float = 0.0
    cost_usd: float = 0.0
    benefit_usd: float = 0.0
    prices: tuple[ShadowPrice, ...] = ()
    moves: tuple[Move, ...] = ()


NO_ALLOCATION = Allocation("none")


@dataclass(frozen=True, slots=True)
class Target:
    """Wanted exposure and the positions that reach it.

    exposure_usd, band_usd [U]: aim and half-width of each underlying's dollar delta (NaN: it is not targeted).
    position_lots [N] is the whole book wanted. rebalancing [U] stays True from leaving the band until the inner
    goal is reached.
    """

    exposure_usd: FloatArray
    band_usd: FloatArray
    position_lots: IntArray
    rebalancing: BoolArray
    allocation: Allocation = NO_ALLOCATION

    @property
    def limits_usd(self) -> tuple[FloatArray, FloatArray]:
        """(lowest, highest) [U] USD of delta within the band."""
        return self.exposure_usd - self.band_usd, self.exposure_usd + self.band_usd


class Clip(msgspec.Struct, frozen=True, gc=False):
    """One limit that cut something: what was wanted, what was allowed, and why."""

    limit: str
    subject: str
    wanted: float
    allowed: float
    why: str


class LimitUse(msgspec.Struct, frozen=True, gc=False):
    """How much of one limit is used, at the worst combination of working orders."""

    limit: str
    subject: str
    used: float
    allowed: float


class Licence(IntEnum):
    """What an order in one row may do, from least to most."""

    NOTHING = 0
    SHRINK_POSITION = 1  # towards flat in that contract, never through it
    SHRINK_EXPOSURE = 2  # or against the underlying's dollar delta, never through zero
    ANYTHING = 3  # within the limits


@dataclass(frozen=True, slots=True)
class Permit:
    """What guards allow at this tick: a book to move to, and the facts `admit` checks each order against.

    position_lots [N] is the target, cut inward; licence [N] holds Licence values. urgent [U] marks underlyings in
    breach: cross at once. doubted [N] marks rows whose underlying may be priced wrongly. resting: orders may be left
    in the book. `mode` is the guards' proposal, `view` what all was measured on.
    """

    view: View
    position_lots: IntArray
    licence: IntArray
    urgent: BoolArray
    doubted: BoolArray
    resting: bool
    mode: Mode
    mode_why: str
    clips: tuple[Clip, ...]
    uses: tuple[LimitUse, ...]


class FactorLine(msgspec.Struct, frozen=True, gc=False):
    """One factor in a decision record, USD. `annual_return` is expected, carry apart; `reached_usd` is what the book
    wanted has."""

    factor: str
    price: float
    annual_vol: float
    actual_usd: float
    target_usd: float
    band_usd: float
    annual_return: float = 0.0
    reached_usd: float = float("nan")


class OrderLine(msgspec.Struct, frozen=True, gc=False):
    """One command in a decision record."""

    action: str
    instrument: str
    client_order_id: str
    side: str
    lots: int
    price: str
    why: str
    notional_usd: float = 0.0


class DecisionRecord(msgspec.Struct, frozen=True):
    """A decision told: inputs → target → what each guard clipped and why → orders."""

    seq: int
    ts_recv_ns: int
    utc_ns: int
    cause: str
    mode: Mode
    armed: bool
    equity_usd: float
    factors: tuple[FactorLine, ...]
    clips: tuple[Clip, ...]
    uses: tuple[LimitUse, ...]
    orders: tuple[OrderLine, ...]
    notes: tuple[str, ...]
    allocation: Allocation = NO_ALLOCATION
    forecasters: tuple[Forecaster, ...] = ()  # where they spoke anew
    contenders: tuple[Contender, ...] = ()  # likewise


class Decision(msgspec.Struct, frozen=True):
    """What one step asks of the shell.

    `commands` in the order to send (cancels first). `record` is None except on DecisionDue. `wake` not empty
    asks for an early tick and says why. `notes` are events worth a log line (`noun.past_verb` and fields).
    """

    commands: tuple[Outgoing, ...] = ()
    record: DecisionRecord | None = None
    wake: str = ""
    notes: tuple["Note", ...] = ()


class Note(msgspec.Struct, frozen=True):
    """A log event as a value: the core writes no log, the shell writes these."""

    event: str
    fields: dict[str, str | int | float | bool]


NOTHING = Decision()
