"""The simulated venue's own words: requests, orders, fills, events, refusals.

Instruments are the house's (`domain.instruments.Instrument`); everything else is the venue's side of the
story. Prices of orders and trades are int ticks of `tick_size`, sizes int lots; marks and indices are floats.
"""

from dataclasses import dataclass, field

from dea_daemon.domain.instruments import Instrument, Side
from dea_daemon.domain.orders import TimeInForce


class Refused(Exception):
    """The venue says no. `code` is one of the venue-neutral words below; dialects map it to their own."""

    CODES = (
        "instrument_not_found", "order_not_found", "order_closed", "invalid_amount", "invalid_price",
        "post_only_reject", "reduce_only_reject", "not_enough_funds", "expired_request", "too_many_orders",
        "price_too_far", "self_trade", "settlement_in_progress",
    )  # fmt: skip

    def __init__(self, code: str, why: str = "") -> None:
        super().__init__(f"{code}: {why}" if why else code)
        self.code = code
        self.why = why


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """price_ticks None is a market order. post_only with reject_post_only False moves the price to the passive
    side of the spread instead of refusing. valid_until_ms 0 means no deadline."""

    account: str
    instrument: str
    side: Side
    lots: int
    price_ticks: int | None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    reject_post_only: bool = True
    reduce_only: bool = False
    label: str = ""
    valid_until_ms: int = 0


@dataclass(slots=True)
class VenueOrder:
    """state: open, filled, cancelled, rejected."""

    order_id: str
    account: str
    instrument: str
    side: Side
    lots: int
    price_ticks: int
    time_in_force: TimeInForce
    post_only: bool
    reduce_only: bool
    label: str
    created_ns: int
    updated_ns: int
    is_market: bool = False
    filled_lots: int = 0
    filled_value: float = 0.0  # sum of price times lots, for the average
    commission: float = 0.0
    state: str = "open"
    replaced: bool = False
    cancel_reason: str = ""
    is_liquidation: bool = False  # the venue's own order

    @property
    def left_lots(self) -> int:
        return self.lots - self.filled_lots


@dataclass(frozen=True, slots=True)
class VenueFill:
    """One side of an execution, in one account. fee is in the settle currency, positive when paid. `liquidation`: the
    taker was liquidated by it, whichever side this is."""

    trade_id: str
    trade_seq: int
    order_id: str
    account: str
    instrument: str
    side: Side
    lots: int
    price_ticks: int
    fee: float
    is_maker: bool
    label: str
    ts_ns: int
    mark_price: float
    index_price: float
    pnl: float = 0.0
    liquidation: bool = False


@dataclass(slots=True)
class VenuePosition:
    """lots signed; entry_price averages as the venue does (harmonic for inverse)."""

    instrument: str
    lots: int = 0
    entry_price: float = 0.0
    realised_pnl: float = 0.0
    funding_paid: float = 0.0  # settle currency, positive when paid

    def copied(self) -> "VenuePosition":
        """Another of the same: several times faster than `copy`, and asked for with every report."""
        return VenuePosition(self.instrument, self.lots, self.entry_price, self.realised_pnl, self.funding_paid)


@dataclass(frozen=True, slots=True)
class Summary:
    """One margin pool, in its currency. equity = cash + unrealised PnL (of futures) + unsettled funding + options;
    what backs the margins is equity less options_value."""

    currency: str
    cash: float
    equity: float
    unrealised_pnl: float
    session_funding: float
    initial_margin: float
    maintenance_margin: float
    delta_total: float
    fees_paid: float
    options_value: float = 0.0  # at the mark; equity contains it
    options_delta: float = 0.0  # coins, Black
    options_gamma: float = 0.0
    options_vega: float = 0.0
    options_theta: float = 0.0


@dataclass(frozen=True, slots=True)
class OptionQuote:
    """What the venue says of an option beside its prices. Implied volatilities are annual fractions, NaN without a
    quote; underlying_price is the forward in USD; Greeks are per unit of the underlying: delta (Black), gamma per
    USD, vega USD per vol point, theta USD per day."""

    mark_iv: float
    bid_iv: float
    ask_iv: float
    underlying_price: float
    delta: float
    gamma: float
    vega: float
    theta: float


@dataclass(frozen=True, slots=True)
class Ticker:
    """What a venue publishes of one contract; NaN where there is nothing."""

    instrument: str
    ts_ns: int
    mark_price: float
    index_price: float
    last_price: float
    best_bid: float
    best_bid_amount: float
    best_ask: float
    best_ask_amount: float
    funding_rate_8h: float
    current_funding: float
    open_interest: float
    volume: float
    delivery_price: float = float("nan")  # of a dated contract: the settlement price expected now, USD
    option: OptionQuote | None = None


# --- events: what the venue tells the world, in order -------------------------------------------------


@dataclass(frozen=True, slots=True)
class BookChanged:
    """Absolute new lots at price ticks (0 removes), one change id a change."""

    instrument: str
    ts_ns: int
    change_id: int
    previous_change_id: int
    bids: tuple[tuple[int, int], ...]
    asks: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Traded:
    """A public trade; `side` is the taker's."""

    instrument: str
    ts_ns: int
    trade_id: str
    trade_seq: int
    side: Side
    price_ticks: int
    lots: int
    mark_price: float
    index_price: float
    liquidation: bool = False  # of the taker


@dataclass(frozen=True, slots=True)
class TickerChanged:
    ticker: Ticker


@dataclass(frozen=True, slots=True)
class IndexChanged:
    currency: str
    ts_ns: int
    price: float


@dataclass(frozen=True, slots=True)
class OrderChanged:
    """Accepted, edited, filled, cancelled: `what` is one of those; `order` a copy as of then."""

    what: str
    order: VenueOrder
    position_after: int


@dataclass(frozen=True, slots=True)
class Filled:
    fill: VenueFill
    position_after: int


@dataclass(frozen=True, slots=True)
class FundingPaid:
    """Funding moved to or from an account's cash; amount positive when received."""

    account: str
    instrument: str
    ts_ns: int
    amount: float


@dataclass(frozen=True, slots=True)
class Settled:
    """A dated contract ended: the position of an account was removed.

    settlement_price is the average index, USD; mark_price what one was worth by it, in quote currency (an option's
    payoff). pnl is against the entry; cash what moved, before the fee; all three in the pool's currency.
    """

    account: str
    instrument: str
    ts_ns: int
    lots: int
    settlement_price: float
    pnl: float
    pool: str = ""
    mark_price: float = float("nan")
    cash: float = 0.0
    fee: float = 0.0


@dataclass(frozen=True, slots=True)
class Liquidated:
    account: str
    instrument: str
    ts_ns: int
    lots: int


@dataclass(frozen=True, slots=True)
class InstrumentChanged:
    """Listed, delisted, or traded in other ticks from now on (state "created", "closed", "regridded")."""

    instrument: Instrument
    ts_ns: int
    state: str


@dataclass(frozen=True, slots=True)
class TradingLocked:
    """Contracts on one coin are no longer traded, or are again."""

    currency: str
    ts_ns: int
    locked: bool


@dataclass(frozen=True, slots=True)
class PortfolioChanged:
    account: str
    ts_ns: int
    summary: Summary


VenueEvent = (
    BookChanged | Traded | TickerChanged | IndexChanged | OrderChanged | Filled | FundingPaid | Settled | Liquidated
    | InstrumentChanged | PortfolioChanged | TradingLocked
)  # fmt: skip


@dataclass(slots=True)
class Book:
    """Top of a book as a copy: (price_ticks, lots), best first, with the last change id."""

    instrument: str
    change_id: int
    ts_ns: int
    bids: list[tuple[int, int]] = field(default_factory=list)
    asks: list[tuple[int, int]] = field(default_factory=list)
