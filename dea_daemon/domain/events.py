"""Events: everything the core ever learns. Nothing else enters it, so the tape of them is the run.

Times are int64 ns. `ts_event_ns` is the venue's clock (0 where it gave none). `ts_recv_ns` is ours: UTC at
start plus the monotonic time since, so it never steps; staleness is measured on it. Prices are float64
in quote currency; amounts of market data are float64 in the venue's own amount unit; our own orders,
fills and positions are int64 lots and ticks. `row` and `account` are indices into the universe.
"""

from enum import StrEnum

import msgspec

from dea_daemon.domain.instruments import AccountKey, Instrument, Side
from dea_daemon.domain.lessons import CostLesson
from dea_daemon.domain.models import Kept, Trees
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.orders import Order
from dea_daemon.domain.surfaces import Quality, Smile, Tenor

SCHEMA_VERSION = 1

Level = tuple[float, float]  # price, amount; amount 0 removes the level


class Event(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """Base of all events. Encoded as arrays: new fields go at the end, with defaults."""

    ts_recv_ns: int


# --- the run itself ---------------------------------------------------------------------------------


class RunStarted(Event, frozen=True, tag=True, array_like=True, gc=False):
    """First event of a run: all that the core must know of the past.

    `restored` are the ledger's orders without an end (they come back as UNKNOWN), `fills_seen` the ids of
    recent fills by account, `trade_cursor_ms` where a back-fill begins. `parameters` is the JSON of
    domain.parameters.Parameters. `peak_equity_usd` and `mode` survive restarts; `mode_before` is what a
    pause goes back to.
    """

    run_id: str
    utc_ns: int
    epoch: int
    armed: bool
    accounts: tuple[AccountKey, ...]
    rows: tuple[tuple[int, Instrument], ...]
    parameters: str
    restored: tuple[Order, ...] = ()
    fills_seen: tuple[tuple[int, str], ...] = ()
    trade_cursor_ms: int = 0
    mode: Mode = Mode.NORMAL
    peak_equity_usd: float = 0.0
    hour_turnover_usd: float = 0.0
    hour_fees_usd: float = 0.0
    minute_creates: int = 0
    mode_why: str = ""
    mode_before: Mode = Mode.NORMAL
    currencies: tuple[str, ...] = ()  # held or settled in, and nobody's underlying
    day: int = 0  # UTC, days since 1970, of the next
    day_equity_usd: float = 0.0  # the day's first; 0: not known
    settled: tuple[tuple[int, str], ...] = ()  # account and contract of recent deliveries: each counts once
    day_turnover_usd: float = 0.0
    day_fees_usd: float = 0.0
    kept: Kept = Kept()  # what earlier runs learned and ruled of forecasters
    lessons: tuple[CostLesson, ...] = ()  # of the last orders measured, oldest first


class DecisionDue(Event, frozen=True, tag=True, array_like=True, gc=False):
    """The tick. `utc_ns` is the wall clock (expiry, deadlines); `cause` says why now."""

    utc_ns: int
    cause: str
    trigger_recv_ns: int = 0


class PricesRecalled(Event, frozen=True, tag=True, array_like=True, gc=False):
    """Prices of before the run, so that it does not begin blind: closes of bars of one length, oldest first.

    `at_ns` [T] when each was known, on the receipt clock; `usd` [T, U] prices of the universe's underlyings, NaN where
    there is none.
    """

    at_ns: tuple[int, ...]
    usd: tuple[tuple[float, ...], ...]


class SurfaceFitted(Event, frozen=True, tag=True, array_like=True, gc=False):
    """Answer to FitSurface: the surface of the quotes that stood at `chain_utc_ns`, smiles in order of expiry.

    `scale` is the lattice's. `why` is not empty where there is none to publish: it was not fitted, or has an arbitrage
    in it; then `smiles` is empty.
    """

    underlying: str
    chain_utc_ns: int
    scale: float = 0.1
    smiles: tuple[Smile, ...] = ()
    tenors: tuple[Tenor, ...] = ()
    quality: Quality = Quality()
    why: str = ""


class ModelFitted(Event, frozen=True, tag=True, array_like=True, gc=False):
    """Answer to FitModel: the forecaster's new trees. Of `lessons`, the last fifth was kept from them until they were
    grown, and `gain` is what they explained of it (R², NaN where none). `why` is not empty where there is no model:
    the last one stays.
    """

    name: str
    asked_utc_ns: int
    trees: Trees = Trees()
    lessons: int = 0
    gain: float = float("nan")
    fit_ms: float = 0.0
    why: str = ""


class ForecasterRuled(Event, frozen=True, tag=True, array_like=True, gc=False):
    """The operator's word on a forecaster or a model of variance: its weight from now on (1 of a model: it trades),
    whatever the configuration says. None: as the configuration says."""

    name: str
    weight: float | None
    who: str
    why: str = ""


class FactorObserved(Event, frozen=True, tag=True, array_like=True, gc=False):
    """A slow factor's value as its source told it: on-chain, sentiment, macro, or an operator's own.

    `event_ns` is the time it is about, `publish_ns` when it was public: by the source, else by the lag it is given in
    the configuration; both UTC. A later one about the same time restates it (`revision` 1, 2, …). NaN: there is none.
    """

    name: str
    event_ns: int
    publish_ns: int
    value: float
    revision: int = 0


class Operator(StrEnum):
    ARM = "arm"
    DISARM = "disarm"
    NORMAL = "normal"
    REDUCE_ONLY = "reduce_only"
    PAUSE = "pause"
    HALT = "halt"
    FLATTEN = "flatten"
    DRAIN = "drain"


class OperatorSpoke(Event, frozen=True, tag=True, array_like=True, gc=False):
    command: Operator
    who: str
    why: str = ""


class ParametersReloaded(Event, frozen=True, tag=True, array_like=True, gc=False):
    """From here on the core has these parameters: JSON of domain.parameters.Parameters, whole."""

    parameters: str
    who: str
    changed: tuple[str, ...] = ()  # "guards.max_net_usd: 1000 to 2000 (looser)", for the log


class RecordFailed(Event, frozen=True, tag=True, array_like=True, gc=False):
    """The ledger could not be written: no new risk until it can be."""

    why: str


class RecordRestored(Event, frozen=True, tag=True, array_like=True, gc=False):
    """The ledger accepts writes again, and what it missed is in it."""


class WatchdogChanged(Event, frozen=True, tag=True, array_like=True, gc=False):
    """The process that cancels our orders if we stop was started, or is no longer there: no new risk without it."""

    alive: bool
    why: str = ""


# --- market data ------------------------------------------------------------------------------------


class BookSnapshot(Event, frozen=True, tag=True, array_like=True, gc=False):
    """A venue's full book (or its top, where it sends no more); best first, sequence its last change."""

    ts_event_ns: int
    row: int
    sequence: int
    bids: list[Level]
    asks: list[Level]


class BookDelta(Event, frozen=True, tag=True, array_like=True, gc=False):
    """Absolute new amounts at some levels.

    It covers changes first..last and follows the change `previous` (Deribit: change_id twice and
    prev_change_id; Binance USD-M: U, u and pu). Never coalesced.
    """

    ts_event_ns: int
    row: int
    first: int
    last: int
    previous: int
    bids: list[Level]
    asks: list[Level]


class QuoteUpdated(Event, frozen=True, tag=True, array_like=True, gc=False):
    """Best bid and ask by themselves; a missing side has price NaN and amount 0. Latest wins."""

    ts_event_ns: int
    row: int
    bid: float
    bid_amount: float
    ask: float
    ask_amount: float


class TradePrinted(Event, frozen=True, tag=True, array_like=True, gc=False):
    """A public trade; `side` is the taker's. Binance sends `trade` and `aggTrade` for the same execution: a
    codec emits one of the two."""

    ts_event_ns: int
    row: int
    trade_id: str
    side: Side
    price: float
    amount: float


class MarkUpdated(Event, frozen=True, tag=True, array_like=True, gc=False):
    """A contract's mark, with the index and the funding rate where the venue sends them along (else NaN).

    funding_rate_8h is a fraction per 8 hours, whatever the venue's own interval. Latest wins.
    """

    ts_event_ns: int
    row: int
    mark_price: float
    index_price: float = float("nan")
    funding_rate_8h: float = float("nan")
    open_interest: float = float("nan")


class OptionUpdated(Event, frozen=True, tag=True, array_like=True, gc=False):
    """The venue's own view of one option; NaN where it did not say. Latest wins.

    Implied volatilities are annual fractions (0.55). underlying_price is the forward it prices with, USD. Its
    Greeks are per unit of the underlying: delta (Black), gamma per USD, vega USD per vol point, theta USD per day.
    """

    ts_event_ns: int
    row: int
    mark_iv: float
    bid_iv: float
    ask_iv: float
    underlying_price: float
    delta: float = float("nan")
    gamma: float = float("nan")
    vega: float = float("nan")
    theta: float = float("nan")


class ListingChanged(Event, frozen=True, tag=True, array_like=True, gc=False):
    """The venue says that a contract was listed or ended; `state` is its word ("created", "closed")."""

    account: int
    name: str
    state: str


class InstrumentsListed(Event, frozen=True, tag=True, array_like=True, gc=False):
    """Answer to QueryInstruments: contracts of ours (by the configuration's patterns) that have no row yet.
    They join behind all others. `why` is not empty where the venue could not be asked. `changed` are contracts that
    have a row and are now traded in other lots or ticks: nothing is sent there before a restart reads them anew."""

    account: int
    instruments: tuple[Instrument, ...]
    why: str = ""
    changed: tuple[Instrument, ...] = ()


class VenueStateChanged(Event, frozen=True, tag=True, array_like=True, gc=False):
    """The venue announced that it takes no orders (maintenance, a locked market), or that it does again.
    `currency` not empty: only contracts whose index is in that currency are concerned."""

    account: int
    open: bool
    why: str = ""
    currency: str = ""


class IndexUpdated(Event, frozen=True, tag=True, array_like=True, gc=False):
    """USD price of one currency at one venue, stablecoins included. Latest wins."""

    ts_event_ns: int
    account: int
    currency: str
    price: float


class FeedOpened(Event, frozen=True, tag=True, array_like=True, gc=False):
    """A socket is up and its subscriptions were sent. `private` is the account's own stream."""

    feed: str
    account: int
    private: bool
    rows: tuple[int, ...] = ()


class FeedClosed(Event, frozen=True, tag=True, array_like=True, gc=False):
    """A socket is gone, or overflowed: every book on it is unusable until a fresh snapshot."""

    feed: str
    account: int
    private: bool
    rows: tuple[int, ...] = ()
    why: str = ""


class FeedAlive(Event, frozen=True, tag=True, array_like=True, gc=False):
    """A heartbeat on a quiet stream: silence alone is not death. Latest wins."""

    feed: str
    account: int
    private: bool


class MessageRefused(Event, frozen=True, tag=True, array_like=True, gc=False):
    """A message no codec could read: counted, the others go on."""

    feed: str
    why: str
    excerpt: str = ""


# --- our orders and account ---------------------------------------------------------------------------


class VenueOrderState(StrEnum):
    OPEN = "open"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


class OrderSeen(Event, frozen=True, tag=True, array_like=True, gc=False):
    """The venue's own word about one order, from a reply, a stream or a query. Never drops."""

    ts_event_ns: int
    account: int
    row: int
    client_order_id: str
    venue_order_id: str
    state: VenueOrderState
    side: Side
    lots: int
    filled_lots: int
    price_ticks: int
    reason: str = ""


class CreateRefused(Event, frozen=True, tag=True, array_like=True, gc=False):
    """Certainly not live: the venue's definite no, or it was never sent (`sent` False)."""

    client_order_id: str
    sent: bool
    reason: str
    retry_after_ms: int = 0


class CreateUnknown(Event, frozen=True, tag=True, array_like=True, gc=False):
    """May be live: a timeout is not a failure."""

    client_order_id: str
    reason: str


class CancelRefused(Event, frozen=True, tag=True, array_like=True, gc=False):
    client_order_id: str
    reason: str


class CancelUnknown(Event, frozen=True, tag=True, array_like=True, gc=False):
    client_order_id: str
    reason: str


class FillReceived(Event, frozen=True, tag=True, array_like=True, gc=False):
    """An execution of an order in our account, ours or not. Idempotent by (account, trade_id). Never drops.

    `fee` is in `fee_currency`, positive when paid. `liquidation`: the venue's own doing, of a position of ours that
    it liquidated or deleveraged.
    """

    ts_event_ns: int
    account: int
    row: int
    trade_id: str
    venue_order_id: str
    client_order_id: str
    side: Side
    lots: int
    price_ticks: int
    fee: float
    fee_currency: str
    is_maker: bool
    liquidation: bool = False


class PositionReport(msgspec.Struct, frozen=True, array_like=True):
    row: int
    lots: int
    entry_price: float


class PoolReport(msgspec.Struct, frozen=True, array_like=True):
    """One margin pool, in its own currency. Equity includes unrealised PnL; NaN where not reported."""

    currency: str
    equity: float
    cash: float
    initial_margin: float
    maintenance_margin: float
    session_funding: float = 0.0  # since the venue's last settlement, positive when received


class PoolUpdated(Event, frozen=True, tag=True, array_like=True, gc=False):
    """The private stream's word on one margin pool. Latest wins."""

    account: int
    pool: PoolReport


class Settlement(msgspec.Struct, frozen=True, array_like=True):
    """The venue's record of a delivery: a position that ended at a contract's expiry.

    lots as they were held (signed), price the settlement price in USD, profit the cash it moved, in `currency`.
    """

    account: int
    row: int
    ts_event_ns: int
    lots: int
    price: float
    profit: float
    currency: str


class AccountReported(Event, frozen=True, tag=True, array_like=True, gc=False):
    """Answer to QueryAccount, asked in this order: trades, open orders, positions, pools.

    `asked_ns` is when the first question left (our clock). `complete` is False if any part failed: then
    nothing in it is proof of absence. Rows the venue does not mention are flat only if `complete`.
    `outside` tells, in words, each position and order in a contract outside the universe. `settlements` are
    deliveries since `settled_since_ms` of the question.
    """

    account: int
    asked_ns: int
    complete: bool
    fills: tuple[FillReceived, ...]
    orders: tuple[OrderSeen, ...]
    positions: tuple[PositionReport, ...]
    pools: tuple[PoolReport, ...]
    why: str = ""
    outside: tuple[str, ...] = ()
    settlements: tuple[Settlement, ...] = ()


class OrderEvidence(Event, frozen=True, tag=True, array_like=True, gc=False):
    """Answer to QueryOrder. `complete` means open orders, history *and* trades all answered; only then may
    the core take an empty answer as proof, after the order's deadline plus the skew margin.

    `asked_utc_ns` is the wall clock when the first question left, `asked_ns` the receipt clock then: a wall
    clock that stepped ahead proves nothing.
    """

    client_order_id: str
    asked_utc_ns: int
    complete: bool
    orders: tuple[OrderSeen, ...]
    fills: tuple[FillReceived, ...]
    why: str = ""
    asked_ns: int = 0


MarketEvent = (
    BookSnapshot | BookDelta | QuoteUpdated | TradePrinted | MarkUpdated | OptionUpdated | IndexUpdated
    | FeedOpened | FeedClosed | FeedAlive | MessageRefused | ListingChanged | InstrumentsListed | VenueStateChanged
)  # fmt: skip
AccountEvent = (
    OrderSeen | CreateRefused | CreateUnknown | CancelRefused | CancelUnknown | FillReceived | PoolUpdated
    | AccountReported | OrderEvidence
)  # fmt: skip
RunEvent = (
    RunStarted
    | PricesRecalled
    | SurfaceFitted
    | FactorObserved
    | ModelFitted
    | ForecasterRuled
    | DecisionDue
    | OperatorSpoke
    | ParametersReloaded
    | RecordFailed
    | RecordRestored
    | WatchdogChanged
)
AnyEvent = MarketEvent | AccountEvent | RunEvent
