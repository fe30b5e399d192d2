"""What a method is given, and how it is declared."""

from collections.abc import Callable
from dataclasses import dataclass

from dea_daemon.simvenue.deribit import encodings
from dea_daemon.simvenue.deribit.encodings import Contract
from dea_daemon.simvenue.deribit.errors import invalid
from dea_daemon.simvenue.deribit.limits import Limits
from dea_daemon.simvenue.deribit.params import Params
from dea_daemon.simvenue.deribit.session import Json, Session
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.words import Refused, VenueOrder


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

    def lists(self, contract: Contract) -> bool:
        """Whether a contract is still live: an expired one has no book and no ticker."""
        return contract.instrument.name in self.exchange.instruments

    def position(self, account: str, name: str) -> Json:
        """One position; its mark is the entry price once the contract is gone."""
        contract, exchange = self.contracts[name], self.exchange
        ticker = exchange.ticker(name) if self.lists(contract) else None
        return encodings.position(contract, exchange.position(account, name), ticker, exchange.scenario)

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

    def of_currency(self, instrument: str, currency: str) -> bool:
        """Whether an instrument settles in a currency (or any)."""
        return currency in ("any", self.market.contracts[instrument].instrument.settle_currency)

    def of_kind(self) -> bool:
        """Whether the `kind` parameter lets futures through: there is nothing else here."""
        kinds = ("future", "option", "spot", "future_combo", "option_combo", "combo", "any")
        return self.params.text("kind", "any", one_of=kinds) in ("future", "any")


@dataclass(frozen=True, slots=True)
class Method:
    """How a method is run. scope "" is public. Matching methods pay from their own pool of credits."""

    run: Callable[[Call], Json]
    scope: str = ""
    matching: bool = False
    websocket_only: bool = False
