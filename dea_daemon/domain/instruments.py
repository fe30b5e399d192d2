"""Instruments, accounts, margin pools, and the universe: the numbered rows every array is indexed by."""

from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum

import msgspec
import numpy as np
import numpy.typing as npt

from dea_daemon.domain.errors import check
from dea_daemon.domain.numbers import as_decimal, from_steps, to_lots, to_steps

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        return 1 if self is Side.BUY else -1

    @property
    def opposite(self) -> "Side":
        return Side.SELL if self is Side.BUY else Side.BUY


class Kind(StrEnum):
    SPOT = "spot"
    PERPETUAL = "perpetual"
    FUTURE = "future"
    OPTION = "option"


class Payoff(StrEnum):
    """How a contract pays: linear in quote currency, inverse in the underlying coin, quanto in a third."""

    LINEAR = "linear"
    INVERSE = "inverse"
    QUANTO = "quanto"


class AccountKey(msgspec.Struct, frozen=True, order=True):
    """One sub-account at one venue."""

    venue: str
    account: str

    def __str__(self) -> str:
        return f"{self.venue}/{self.account}"


class TickStep(msgspec.Struct, frozen=True):
    """Above `above_price` prices move by `tick_size`, a whole multiple of the instrument's own."""

    above_price: Decimal
    tick_size: Decimal


class Instrument(msgspec.Struct, frozen=True):
    """One contract at one venue.

    lot_size is in the venue's own amount unit (Deribit inverse: USD; Deribit linear and options: coins;
    OKX: contracts). contract_size converts one unit of that amount: underlying (linear, quanto) or USD
    (inverse). Fees are fractions of notional. Expiry is UTC ns; 0 means never. An option whose quote_currency is
    its underlying is quoted and settled in coin; fee_cap bounds an option's fee by this share of its premium.
    """

    venue: str
    name: str
    kind: Kind
    payoff: Payoff
    underlying: str
    quote_currency: str
    settle_currency: str
    margin_pool: str
    contract_size: Decimal
    lot_size: Decimal
    tick_size: Decimal
    tick_steps: tuple[TickStep, ...] = ()
    min_lots: int = 1
    maker_fee: float = 0.0
    taker_fee: float = 0.0
    expiry_ns: int = 0
    strike: float = 0.0
    is_call: bool = False
    tradable: bool = True
    fee_cap: float = 0.0  # of an option's premium; 0: none

    def amount_to_lots(self, amount: float | int | str | Decimal, rounding: str = "nearest") -> int:
        return to_lots(amount, self.lot_size, rounding)

    def lots_to_amount(self, lots: int) -> Decimal:
        return from_steps(lots, self.lot_size)

    def tick_at(self, price: Decimal) -> Decimal:
        """The tick size in force at `price` (venues widen ticks above thresholds)."""
        tick = self.tick_size
        for step in self.tick_steps:
            if price > step.above_price:
                tick = step.tick_size
        return tick

    def price_to_ticks(self, price: float | str | Decimal, side: Side | None = None) -> int:
        """A price as a count of `tick_size`, on the grid in force there.

        With a side it rounds to the passive side (buys down, sells up); without, to the nearest.
        """
        wanted = as_decimal(price)
        tick = self.tick_at(wanted)
        rounding = "nearest" if side is None else ("down" if side is Side.BUY else "up")
        return to_steps(wanted, tick, rounding) * to_steps(tick, self.tick_size)

    def ticks_to_price(self, ticks: int) -> Decimal:
        return from_steps(ticks, self.tick_size)

    def on_grid(self, ticks: int) -> bool:
        """Whether this count of ticks is a price the venue accepts."""
        return ticks > 0 and ticks % to_steps(self.tick_at(self.ticks_to_price(ticks)), self.tick_size) == 0

    @property
    def lot_value(self) -> float:
        """Underlying per lot (linear, quanto) or USD per lot (inverse)."""
        return float(self.lot_size * self.contract_size)


class Universe:
    """The numbered rows: every [N] array of the house is indexed by them.

    A row is one instrument in one account, so the position key is (venue, account, instrument).
    An index, once given, means the same contract for the whole run: contracts that are listed later join at
    the end (`extend`), and those that expired keep their row.
    """

    def __init__(self, accounts: tuple[AccountKey, ...], rows: tuple[tuple[int, Instrument], ...]) -> None:
        """`rows` pairs an index into `accounts` with an instrument."""
        self.accounts = accounts
        self._number(rows)

    def extend(self, rows: tuple[tuple[int, Instrument], ...]) -> None:
        """Contracts listed later, behind all others. Their underlyings are known already, or they would need rows
        among the factors, too."""
        check(all(i.underlying in self.underlyings for _, i in rows), "a listing brought a new underlying")
        old = tuple(zip(self.account.tolist(), self.instruments, strict=True))
        self._number(old + rows)

    def _number(self, rows: tuple[tuple[int, Instrument], ...]) -> None:
        self.instruments = tuple(instrument for _, instrument in rows)
        self.account: IntArray = np.array([account for account, _ in rows], dtype=np.int64)
        self.underlyings = tuple(dict.fromkeys(i.underlying for i in self.instruments))
        self._row_of = {(int(a), i.name): row for row, (a, i) in enumerate(rows)}
        check(len(self._row_of) == len(rows), "an instrument is listed twice in one account")
        position = {name: k for k, name in enumerate(self.underlyings)}
        self.underlying = self._whole(lambda i: position[i.underlying])
        # Where each row's own underlying is in a matrix [U, N] told as one line of numbers.
        self.place: IntArray = self.underlying * len(rows) + np.arange(len(rows))
        self.inverse = self._flag(lambda i: i.payoff is Payoff.INVERSE)
        self.quanto = self._flag(lambda i: i.payoff is Payoff.QUANTO)
        self.spot = self._flag(lambda i: i.kind is Kind.SPOT)
        self.option = self._flag(lambda i: i.kind is Kind.OPTION)
        self.any_option = bool(self.option.any())
        self.plain = not (self.inverse | self.spot | self.option).any()  # linear and quanto futures and perpetuals
        self.coin_quoted = self._flag(lambda i: i.kind is Kind.OPTION and i.quote_currency == i.underlying)
        self.call = self._flag(lambda i: i.is_call)
        self.settle_currencies = tuple(dict.fromkeys(i.settle_currency for i in self.instruments))
        settles = {name: c for c, name in enumerate(self.settle_currencies)}
        self.settle_currency = self._whole(lambda i: settles[i.settle_currency])
        self.venues = tuple(dict.fromkeys(account.venue for account in self.accounts))
        self.venue = np.array([self.venues.index(self.accounts[a].venue) for a, _ in rows], dtype=np.int64)
        # Margin pools by account and currency: `pool` [N] numbers them.
        keys = [(a, i.margin_pool) for a, i in rows]
        self.pools = tuple(dict.fromkeys(keys))
        self.pool: IntArray = np.array([self.pools.index(key) for key in keys], dtype=np.int64)
        self.strike = self._column(lambda i: i.strike)
        self.lot_value = self._column(lambda i: i.lot_value)
        self.tick_size = self._column(lambda i: float(i.tick_size))
        self.maker_fee = self._column(lambda i: i.maker_fee)
        self.taker_fee = self._column(lambda i: i.taker_fee)
        self.fee_cap = self._column(lambda i: i.fee_cap or np.inf)
        self.min_lots = self._whole(lambda i: i.min_lots)
        self.tradable = self._flag(lambda i: i.tradable)
        self.expiry_ns = self._whole(lambda i: i.expiry_ns)
        # Contracts of one account that end together on one underlying share a forward: `series` [N] numbers
        # those groups, by order of first appearance; perpetuals and spot have -1.
        dated = [(a, i.underlying, i.expiry_ns) if i.expiry_ns else None for a, i in rows]
        number = {key: n for n, key in enumerate(dict.fromkeys(key for key in dated if key is not None))}
        self.series: IntArray = np.array([-1 if key is None else number[key] for key in dated], dtype=np.int64)
        self.series_count = len(number)
        for column in vars(self).values():
            if isinstance(column, np.ndarray):
                column.flags.writeable = False

    def _column(self, read: Callable[[Instrument], float]) -> FloatArray:
        return np.array([read(i) for i in self.instruments], dtype=np.float64)

    def _whole(self, read: Callable[[Instrument], int]) -> IntArray:
        return np.array([read(i) for i in self.instruments], dtype=np.int64)

    def _flag(self, read: Callable[[Instrument], bool]) -> BoolArray:
        return np.array([read(i) for i in self.instruments], dtype=np.bool_)

    def __len__(self) -> int:
        return len(self.instruments)

    def row(self, account: int, name: str) -> int | None:
        """The row of a venue's instrument name in one account, or None."""
        return self._row_of.get((account, name))
