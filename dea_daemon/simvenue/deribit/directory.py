"""From a channel's name to the channel."""

from dea_daemon.simvenue.deribit.call import KINDS, Market
from dea_daemon.simvenue.deribit.channels import (
    EVERY,
    BookChannel,
    Channel,
    GroupedBookChannel,
    IndexChannel,
    ListingChannel,
    MarksChannel,
    PlatformChannel,
    QuoteChannel,
    TickerChannel,
    TradesChannel,
    Wanted,
)  # fmt: skip
from dea_daemon.simvenue.deribit.contract import Contract
from dea_daemon.simvenue.deribit.private_channels import PortfolioChannel, UserChannel

INTERVALS = ("raw", "100ms", "agg2")
GROUPS = ("none", "1", "2", "5", "10", "25", "100", "250")
DEPTHS = ("1", "10", "20")


def is_raw(name: str) -> bool:
    """Whether a channel is of the kind that the public gets only with a key."""
    return name.endswith(".raw")


def open_channel(name: str, market: Market, account: str) -> Channel | None:
    """The channel of that name for this account, None where there is no such."""
    match name.split("."):
        case ["book" | "ticker" | "quote" as head, known, *rest] if known in market.exchange.instruments:
            return _of_contract(name, head, market, market.contracts[known], rest)
        case ["platform_state"]:
            return PlatformChannel(name, market)
        case ["deribit_price_index", index] if index in (indices := market.index_names()):
            return IndexChannel(name, market, indices[index])
        case ["markprice", "options", index] if _underlying(market, index):
            return MarksChannel(name, market, index)
        case ["instrument", "state", kind, currency] if wanted := _selection([kind, currency]):
            return ListingChannel(name, market, wanted)
        case ["trades", *which, interval] if interval in INTERVALS and (wanted := _selection(which)):
            return TradesChannel(name, interval, market, wanted, which[0] if len(which) == 1 else EVERY)
        case ["user", "portfolio", currency] if account:
            return PortfolioChannel(name, market, account, currency.upper() if currency != "any" else currency)
        case ["user", "orders" | "trades" | "changes", *which, interval] if account and interval in INTERVALS:
            if wanted := _selection(which):
                return UserChannel(name, interval, market, account, wanted)
    return None


def _of_contract(name: str, head: str, market: Market, contract: Contract, rest: list[str]) -> Channel | None:
    """The channels of one live contract."""
    match [head, *rest]:
        case ["book", interval] if interval in INTERVALS:
            return BookChannel(name, interval, market, contract)
        case ["book", group, depth, "100ms" | "agg2"] if group in GROUPS and depth in DEPTHS:
            return GroupedBookChannel(name, market, contract, group, int(depth))
        case ["ticker", interval] if interval in INTERVALS:
            return TickerChannel(name, interval, market, contract)
        case ["quote"]:
            return QuoteChannel(name, market, contract)
    return None


def _underlying(market: Market, index: str) -> str:
    """The coin of an index, "" where there is no such."""
    listed = (market.contracts[name] for name in market.exchange.instruments)
    return next((contract.instrument.underlying for contract in listed if contract.index_name == index), "")


def _selection(which: list[str]) -> Wanted | None:
    """[instrument], or [kind, currency] with "any" allowed for both."""
    match which:
        case [name]:
            return lambda contract: contract.instrument.name == name
        case [kind, currency] if kind in KINDS:
            return lambda contract: contract.is_of(kind, currency)
    return None
