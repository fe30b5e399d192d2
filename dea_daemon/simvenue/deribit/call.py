"""What a method is given, and how it is declared."""

from collections.abc import Callable
from dataclasses import dataclass

from dea_daemon.simvenue.deribit import encodings, options
from dea_daemon.simvenue.deribit.contract import Contract
from dea_daemon.simvenue.deribit.errors import invalid
from dea_daemon.simvenue.deribit.limits import Limits
from dea_daemon.simvenue.deribit.params import Params
from dea_daemon.simvenue.deribit.session import Json, Session
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.words import OptionQuote, Refused, Ticker, Traded, VenueFill, VenueOrder

KINDS = ("future", "option", "spot", "future_combo", "option_combo", "combo", "any")


@dataclass(slots=True)
class Market:
    """The venue and what the dialect keeps beside it: every contract it ever listed, by name."""

    exchange: Exchange
    limits: Limits
    contracts: dict[str, Contract]
    journal: list[Json]

    def listed(self, name: str) -> Contract:
        """A live contract."""
        if name not in self.exchange.instruments:
            raise invalid("instrument_name", "instrument not found")
        return self.contracts[name]

    def indices(self, coin: str) -> list[str]:
        """The names of a coin's indices, btc_usd and btc_usdc; of a stablecoin its own."""
        listed = (self.contracts[name] for name in self.exchange.instruments)
        names = dict.fromkeys(c.index_name for c in listed if c.instrument.underlying == coin)
        return list(names) or [f"{coin.lower()}_usd"]

    def index_names(self) -> dict[str, str]:
        """Index name → what it is the price of."""
        coins = {c.index_name: c.instrument.underlying for c in self.contracts.values()}
        return coins | {f"{coin.lower()}_usd": coin for coin in self.exchange.stablecoins()}

    def lists(self, contract: Contract) -> bool:
        """Whether a contract is still live: an expired one has no book and no ticker."""
        return contract.instrument.name in self.exchange.instruments

    # Encoded, as some of it takes more of the venue than the one object.

    def ticker(self, contract: Contract, ticker: Ticker) -> Json:
        """A live contract's ticker."""
        future = options.underlying_index(contract, self.exchange.instruments)
        return encodings.ticker(contract, ticker, self._band(contract), future)

    def _band(self, contract: Contract) -> tuple[float, float]:
        """The lowest and the highest price an order may have; none is below a tick."""
        low, high = self.exchange.band(self.exchange.contract(contract.instrument.name))
        return max(low, float(contract.instrument.tick_size)), high

    def book_summary(self, contract: Contract) -> Json:
        """A live contract's row."""
        future = options.underlying_index(contract, self.exchange.instruments)
        return encodings.book_summary(contract, self.exchange.ticker(contract.instrument.name), future)

    def trade(self, trade: Traded) -> Json:
        """A public trade."""
        contract = self.contracts[trade.instrument]
        return encodings.trade(contract, trade, self._quote(contract))

    def fill(self, fill: VenueFill) -> Json:
        """A user trade."""
        contract = self.contracts[fill.instrument]
        return encodings.fill(contract, fill, self.order(fill.account, fill.order_id), self._quote(contract))

    def _quote(self, contract: Contract) -> OptionQuote | None:
        """What the venue says of an option now, its best bid and ask aside; None of other contracts."""
        return self.exchange.contract(contract.instrument.name).quote if self.lists(contract) else None

    def position(self, account: str, name: str) -> Json:
        """One position; its mark is the entry price once the contract is gone."""
        contract, exchange = self.contracts[name], self.exchange
        held, leverage = exchange.position(account, name), round(1.0 / exchange.scenario.initial_margin)
        if not self.lists(contract):
            return encodings.position(contract, held, None, (0.0, 0.0), leverage)
        on_floor, margin = exchange.contract(name), exchange.margin
        margins = margin.initial(on_floor, held.lots), margin.maintenance(on_floor, held.lots)
        return encodings.position(contract, held, exchange.ticker(name), margins, leverage)

    def order(self, account: str, order_id: str) -> VenueOrder | None:
        """An order, None where the venue knows none: a liquidation's, or one it forgot."""
        try:
            return self.exchange.order(account, order_id)
        except Refused:
            return None


@dataclass(slots=True)
class Call:
    """One request, authenticated and paid for. `account` is "" for public methods without a key."""

    market: Market
    session: Session
    params: Params
    account: str
    now_ns: int

    @property
    def exchange(self) -> Exchange:
        return self.market.exchange

    def contract(self) -> Contract:
        """The contract that instrument_name names."""
        return self.market.listed(self.params.text("instrument_name"))

    def currency(self, default: str | None = None, *, any_allowed: bool = True) -> str:
        """The `currency` parameter, one the venue settles in, or "any"."""
        currency = self.params.text("currency", default)
        if currency not in self.exchange.currencies() and not (any_allowed and currency == "any"):
            raise invalid("currency", "invalid currency")
        return currency

    def of_kind(self, currency: str = "any") -> Callable[[str], bool]:
        """Whether an instrument is of the `kind` parameter's and settles in a currency. There are only futures and
        options here: of the other kinds there is none."""
        kind = self.params.text("kind", "any", one_of=KINDS)
        contracts = self.market.contracts
        return lambda name: contracts[name].is_of(kind, currency)


@dataclass(frozen=True, slots=True)
class Method:
    """How a method is run. scope "" is public. Matching methods pay from their own pool of credits."""

    run: Callable[[Call], Json]
    scope: str = ""
    matching: bool = False
    websocket_only: bool = False
