"""Accounts: cash by margin pool, positions, profit, funding. Every trade has two sides in here.

The house's own accounts make the sums close: "market" is the counterparty of every background fill, "fees"
receives fees, "insurance" receives liquidation fees and covers what a liquidated account cannot. So per
currency the sum of cash, unrealised profit and options' value never changes but by deposits, and positions sum
to zero. An option's premium is cash at the trade, so its worth is its value, a future's what it gained.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dea_daemon.domain.errors import check
from dea_daemon.domain.instruments import Instrument, Kind, Payoff
from dea_daemon.simvenue.matching import OrderBook
from dea_daemon.simvenue.words import OptionQuote, VenuePosition

MARKET, FEES, INSURANCE = "market", "fees", "insurance"
HOUSE = (MARKET, FEES, INSURANCE)
FUNDING_INTERVAL_NS = 8 * 3_600 * 1_000_000_000


class Contract:
    """A listed instrument with its book and marks. mark and index are NaN until set.

    `funding_sum` is what one lot held long since the listing has paid, in the pool's currency.
    """

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.name = instrument.name
        self.pool = instrument.margin_pool
        self.inverse = instrument.payoff is Payoff.INVERSE
        self.option = instrument.kind is Kind.OPTION
        self.coin_quoted = self.option and instrument.quote_currency == instrument.underlying
        check(instrument.payoff is not Payoff.QUANTO, f"{instrument.name}: no quanto contracts here")
        self.lot_value = instrument.lot_value
        self.tick = float(instrument.tick_size)
        self.book = OrderBook()
        self.mark = float("nan")
        self.index = float("nan")
        self.last_price = float("nan")
        self.quote: OptionQuote | None = None
        self.funding_rate = 0.0  # of 8 hours, now
        self.funding_sum = 0.0
        self.change_id = 0
        self.trade_seq = 0

    def coins(self, lots: int, price: float) -> float:
        """Underlying coins in so many lots at a price."""
        return lots * self.lot_value / price if self.inverse else lots * self.lot_value

    def notional(self, lots: int, price: float) -> float:
        """In the pool's currency: coins for inverse, quote for linear; an option's premium."""
        return lots * self.lot_value / price if self.inverse else lots * self.lot_value * price

    def pnl(self, lots: int, entry: float, price: float) -> float:
        """Profit of signed lots from entry to price, in the pool's currency."""
        if lots == 0:
            return 0.0
        if self.inverse:
            return lots * self.lot_value * (1.0 / entry - 1.0 / price)
        return lots * self.lot_value * (price - entry)

    def worth(self, lots: int, entry: float) -> float:
        """What signed lots add to equity at the mark: an option's value, a future's profit."""
        return lots * self.lot_value * self.mark if self.option else self.pnl(lots, entry, self.mark)

    def fee(self, rate: float, lots: int, price: float) -> float:
        """Of a trade, in the pool's currency: a share of the notional; of an option a share of its underlying, at
        most its cap of the premium."""
        if not self.option:
            return rate * self.notional(lots, price)
        each = rate * self.in_quote(self.index)
        cap = self.instrument.fee_cap
        return lots * self.lot_value * (min(each, cap * price) if cap else each)

    def in_quote(self, usd: float) -> float:
        """USD in an option's quote currency."""
        return usd / self.index if self.coin_quoted else usd

    def settles_at(self, price: float) -> float:
        """What one is worth when the average index was `price`: an option's payoff in its quote currency."""
        if not self.option:
            return price
        strike = self.instrument.strike
        payoff = max(price - strike if self.instrument.is_call else strike - price, 0.0)
        return payoff / price if self.coin_quoted else payoff

    def blended_entry(self, lots: int, entry: float, more: int, price: float) -> float:
        """Entry after adding in the same direction: harmonic for inverse, arithmetic for linear."""
        if self.inverse:
            return (lots + more) / (lots / entry + more / price)
        return (lots * entry + more * price) / (lots + more)

    def accrue(self, elapsed_ns: int) -> None:
        """Funding of a stretch at the rate and index now: longs pay a positive rate."""
        self.funding_sum += self.funding_rate * elapsed_ns / FUNDING_INTERVAL_NS * self.notional(1, self.index)


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a position ended: profit against its entry, the cash that moved, and the fee taken from it."""

    account: str
    lots: int
    pnl: float
    cash: float
    fee: float


@dataclass(slots=True)
class Holding:
    """A position and what funding it owes: `accrued` (positive when received) up to `funding_sum`."""

    position: VenuePosition
    funding_sum: float = 0.0
    accrued: float = 0.0


@dataclass(slots=True)
class Account:
    name: str
    cash: dict[str, float] = field(default_factory=dict)
    fees_paid: dict[str, float] = field(default_factory=dict)
    holdings: dict[str, Holding] = field(default_factory=dict)

    def add_cash(self, pool: str, amount: float) -> None:
        self.cash[pool] = self.cash.get(pool, 0.0) + amount

    def lots(self, instrument: str) -> int:
        holding = self.holdings.get(instrument)
        return holding.position.lots if holding is not None else 0


class Worth(NamedTuple):
    """A pool of an account: cash, unrealised profit of all but options, funding accrued and not yet in cash (positive
    when it will be received), and options at the mark."""

    cash: float
    unrealised: float
    funding: float
    options: float


class Accounts:
    """All accounts, the house's among them, over the contracts listed now."""

    def __init__(self, contracts: dict[str, Contract]) -> None:
        self.contracts = contracts
        self.by_name = {name: Account(name) for name in HOUSE}

    def open(self, name: str, deposits: dict[str, float]) -> None:
        check(name not in self.by_name, f"account {name!r} is open already")
        self.by_name[name] = Account(name, dict(deposits))

    def clients(self) -> Iterator[Account]:
        return (account for name, account in self.by_name.items() if name not in HOUSE)

    def trade(self, name: str, contract: Contract, lots: int, price: float, fee: float) -> float:
        """Book signed lots at a price and a fee into the "fees" account. Returns realised profit before fees."""
        account = self.by_name[name]
        holding = account.holdings.get(contract.name)
        if holding is None:
            holding = account.holdings[contract.name] = Holding(VenuePosition(contract.name))
        self._accrue(holding, contract)
        pnl = self._move(holding.position, contract, lots, price)
        account.add_cash(contract.pool, -contract.notional(lots, price) if contract.option else pnl)
        self.pay_fee(account, contract.pool, fee, FEES)
        return pnl

    def _move(self, position: VenuePosition, contract: Contract, lots: int, price: float) -> float:
        held = position.lots
        position.lots = held + lots
        if held == 0 or (held > 0) == (lots > 0):
            entry = position.entry_price if held else price
            position.entry_price = contract.blended_entry(held, entry, lots, price)
            return 0.0
        closed = -held if abs(lots) > abs(held) else lots
        pnl = contract.pnl(-closed, position.entry_price, price)
        position.realised_pnl += pnl
        if position.lots == 0:
            position.entry_price = 0.0
        elif abs(lots) > abs(held):
            position.entry_price = price
        return pnl

    def pay_fee(self, account: Account, pool: str, fee: float, to: str) -> None:
        """Move a fee to one of the house's accounts."""
        if fee:
            account.add_cash(pool, -fee)
            account.fees_paid[pool] = account.fees_paid.get(pool, 0.0) + fee
            self.by_name[to].add_cash(pool, fee)

    # --- funding and settlement ----------------------------------------------------------------------

    @staticmethod
    def _accrue(holding: Holding, contract: Contract) -> None:
        holding.accrued -= holding.position.lots * (contract.funding_sum - holding.funding_sum)
        holding.funding_sum = contract.funding_sum

    def settle_funding(self, contract: Contract) -> list[tuple[str, float]]:
        """Turn accrued funding into cash; (account, amount received) where there was any."""
        paid = []
        for account in self.by_name.values():
            holding = account.holdings.get(contract.name)
            if holding is None:
                continue
            self._accrue(holding, contract)
            amount, holding.accrued = holding.accrued, 0.0
            if amount:
                account.add_cash(contract.pool, amount)
                holding.position.funding_paid -= amount
                paid.append((account.name, amount))
        return paid

    def settle(self, contract: Contract, fee_rate: float = 0.0) -> list[Delivery]:
        """Close every position of a contract at its mark, with its funding, and forget the contract. Clients pay
        the fee, a rate of the underlying, capped as a trade's. Returns the non-zero ones."""
        self.settle_funding(contract)
        settled = []
        for account in self.by_name.values():
            holding = account.holdings.pop(contract.name, None)
            if holding is None or holding.position.lots == 0:
                continue
            lots, entry = holding.position.lots, holding.position.entry_price
            cash = contract.worth(lots, entry)
            account.add_cash(contract.pool, cash)
            fee = contract.fee(fee_rate, abs(lots), contract.mark) if account.name not in HOUSE else 0.0
            self.pay_fee(account, contract.pool, fee, FEES)
            settled.append(Delivery(account.name, lots, contract.pnl(lots, entry, contract.mark), cash, fee))
        return settled

    def cover(self, account: Account, pool: str) -> None:
        """The insurance fund pays what an account without positions still owes."""
        debt = -account.cash.get(pool, 0.0)
        if debt > 0:
            account.add_cash(pool, debt)
            self.by_name[INSURANCE].add_cash(pool, -debt)

    # --- what an account is worth --------------------------------------------------------------------

    def held(self, account: Account, pool: str) -> Iterator[tuple[Contract, Holding]]:
        """The contracts of a pool an account has touched."""
        for name, holding in account.holdings.items():
            contract = self.contracts[name]
            if contract.pool == pool:
                yield contract, holding

    def worth(self, account: Account, pool: str) -> Worth:
        """All of a pool in one pass: margins are judged at every mark."""
        unrealised = funding = options = 0.0
        for contract, holding in self.held(account, pool):
            position = holding.position
            if contract.option:
                options += contract.worth(position.lots, 0.0)
            else:
                unrealised += contract.worth(position.lots, position.entry_price)
            funding += holding.accrued - position.lots * (contract.funding_sum - holding.funding_sum)
        return Worth(account.cash.get(pool, 0.0), unrealised, funding, options)

    def unrealised(self, account: Account, pool: str) -> float:
        """Of all but options."""
        return self.worth(account, pool).unrealised

    def session_funding(self, account: Account, pool: str) -> float:
        """Funding accrued and not yet in cash."""
        return self.worth(account, pool).funding

    def backing(self, account: Account, pool: str) -> float:
        """What margins stand on: cash, unrealised profit at the mark and accrued funding, no options."""
        worth = self.worth(account, pool)
        return worth.cash + worth.unrealised + worth.funding

    def equity(self, account: Account, pool: str) -> float:
        """Backing, and options at the mark."""
        worth = self.worth(account, pool)
        return worth.cash + worth.unrealised + worth.funding + worth.options
