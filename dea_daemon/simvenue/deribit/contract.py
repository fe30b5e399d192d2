"""A contract as the dialect keeps it: its scales, and what was traded of it."""

import math
from dataclasses import dataclass, field
from decimal import Decimal

from dea_daemon.domain.instruments import Instrument, Kind, Payoff
from dea_daemon.simvenue.deribit.errors import invalid
from dea_daemon.simvenue.deribit.session import Json
from dea_daemon.simvenue.words import Traded


@dataclass(slots=True)
class Contract:
    """An instrument with its scales, kept after it expired: its orders and fills still want them."""

    instrument: Instrument
    number: int
    created_ns: int
    stats: "Stats" = field(init=False)
    _tick: tuple[int, int] = field(init=False)
    _lot: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self._tick = self.instrument.tick_size.as_integer_ratio()
        self._lot = self.instrument.lot_size.as_integer_ratio()
        self.stats = Stats()

    @property
    def inverse(self) -> bool:
        return self.instrument.payoff is Payoff.INVERSE

    @property
    def kind(self) -> str:
        """Deribit has no kind of its own for perpetuals."""
        return "option" if self.instrument.kind is Kind.OPTION else "future"

    def is_of(self, kind: str, currency: str) -> bool:
        """Whether it is of a kind and settles in a currency, "any" allowed for both."""
        return kind in ("any", self.kind) and currency in ("any", self.instrument.settle_currency)

    @property
    def coin_quoted(self) -> bool:
        return self.instrument.quote_currency == self.instrument.underlying

    @property
    def least_tick(self) -> Decimal:
        """The tick size as listed: the widest that holds from price 0 on, whatever we count in."""
        everywhere = (step.tick_size for step in self.instrument.tick_steps if step.above_price <= 0)
        return max(everywhere, default=self.instrument.tick_size)

    @property
    def index_name(self) -> str:
        quote = "USD" if self.coin_quoted else self.instrument.quote_currency
        return f"{self.instrument.underlying}_{quote}".lower()

    def price(self, ticks: int) -> float:
        """The float nearest to the decimal price: a quotient of integers rounds once."""
        return ticks * self._tick[0] / self._tick[1]

    def amount(self, lots: int) -> float:
        return lots * self._lot[0] / self._lot[1]

    def contracts(self, lots: int) -> float:
        """An amount in contracts: an option's is one coin, however small its lots."""
        return self.amount(lots) if self.kind == "option" else float(lots)

    def near_price(self, price: float) -> float:
        """A float price of the venue's, without the noise of having been multiplied; NaN stays."""
        return price if math.isnan(price) else self.price(round(price * self._tick[1] / self._tick[0]))

    def near_amount(self, amount: float) -> float:
        """Likewise an amount."""
        return amount if math.isnan(amount) else self.amount(round(amount * self._lot[1] / self._lot[0]))

    def to_lots(self, amount: Decimal) -> int:
        """An order's amount, exactly on the grid."""
        lots, rest = divmod(amount, self.instrument.lot_size)
        if rest or lots < self.instrument.min_lots:
            raise invalid("amount", "must be a multiple of contract size" if rest else "amount too low")
        return int(lots)

    def to_ticks(self, price: Decimal) -> int:
        """An order's price, exactly on the grid in force there."""
        ticks, rest = divmod(price, self.instrument.tick_size)
        if rest or not self.instrument.on_grid(int(ticks)):
            raise invalid("price", "must conform to tick size")
        return int(ticks)

    def coins(self, amount: float, price: float) -> float:
        """An amount in the underlying."""
        return amount / price if self.inverse else amount

    def usd(self, worth: float, index_price: float) -> float:
        """What so much of the quote currency is in dollars."""
        return worth * index_price if self.coin_quoted else worth


@dataclass(slots=True)
class Stats:
    """What was traded since the venue started (Deribit: in 24 h). Volume in coins, notional in dollars."""

    first: float = math.nan
    low: float = math.nan
    high: float = math.nan
    volume: float = 0.0
    notional: float = 0.0

    def add(self, contract: Contract, trade: Traded) -> None:
        price, amount = contract.price(trade.price_ticks), contract.amount(trade.lots)
        self.first = price if math.isnan(self.first) else self.first
        self.low, self.high = min(price, self.low), max(price, self.high)  # NaN loses: it stands second
        self.volume += contract.coins(amount, price)
        self.notional += amount if contract.inverse else contract.usd(amount * price, trade.index_price)

    def encode(self, last: float) -> Json:
        return {
            "volume": self.volume,
            "volume_usd": self.notional,
            "volume_notional": self.notional,
            "price_change": round(100.0 * (last / self.first - 1.0), 4),
            "low": self.low,
            "high": self.high,
        }
