"""What an account hears of itself: its orders, trades, positions and pools.

Source: docs.deribit.com, Subscriptions.
"""

from dataclasses import dataclass, field

from dea_daemon.simvenue.deribit import encodings
from dea_daemon.simvenue.deribit.call import Market
from dea_daemon.simvenue.deribit.channels import Channel, Wanted
from dea_daemon.simvenue.deribit.session import Json
from dea_daemon.simvenue.words import Filled, Liquidated, OrderChanged, PortfolioChanged, Settled, VenueEvent


class PortfolioChannel(Channel):
    """user.portfolio.{currency}: one margin pool's summary, or each one's."""

    def __init__(self, name: str, market: Market, account: str, currency: str) -> None:
        super().__init__(name, "raw")
        self._market, self._account = market, account
        every = market.exchange.currencies()
        self._currencies = every if currency == "any" else [one for one in every if one == currency]
        self.topics = (("user", account),)
        self._latest: dict[str, Json] = {}

    def absorb(self, event: VenueEvent) -> None:
        if isinstance(event, PortfolioChanged) and event.summary.currency in self._currencies:
            self._latest[event.summary.currency] = encodings.summary(event.summary)

    def drain(self) -> list[Json]:
        latest, self._latest = self._latest, {}
        return list(latest.values())

    def first(self) -> list[Json]:
        exchange = self._market.exchange
        return [encodings.summary(exchange.summary(self._account, one)) for one in self._currencies]


@dataclass(slots=True)
class Changes:
    """What happened to an account in one contract since it was last told."""

    orders: list[Json] = field(default_factory=list)
    trades: list[Json] = field(default_factory=list)
    moved: bool = False


class UserChannel(Channel):
    """user.orders, user.trades and user.changes, of one contract or of a kind and currency.

    Orders come one by one when raw, else as a list; trades as a list; changes by contract, with the position
    where it moved.
    """

    def __init__(self, name: str, interval: str, market: Market, account: str, wanted: Wanted) -> None:
        super().__init__(name, interval)
        self._market, self._account, self._wanted = market, account, wanted
        self._kind = name.split(".")[1]
        self.topics = (("user", account),)
        self._changes: dict[str, Changes] = {}

    def absorb(self, event: VenueEvent) -> None:
        match event:
            case OrderChanged(order=order):
                if changes := self._of(order.instrument):
                    changes.orders.append(encodings.order(self._market.contracts[order.instrument], order))
            case Filled(fill=fill):
                if changes := self._of(fill.instrument):
                    changes.trades.append(self._market.fill(fill))
                    changes.moved = True
            case Settled(instrument=name) | Liquidated(instrument=name):
                if changes := self._of(name):
                    changes.moved = True

    def _of(self, name: str) -> Changes | None:
        if not self._wanted(self._market.contracts[name]):
            return None
        return self._changes.setdefault(name, Changes())

    def drain(self) -> list[Json]:
        changes, self._changes = self._changes, {}
        if self._kind == "changes":
            return [self._told(name, change) for name, change in changes.items()]
        if self._kind == "trades":
            trades = [trade for change in changes.values() for trade in change.trades]
            return [trades] if trades else []
        orders = [order for change in changes.values() for order in change.orders]
        return orders if self.raw or not orders else [orders]

    def _told(self, name: str, change: Changes) -> Json:
        positions = []
        if change.moved:
            positions = [self._market.position(self._account, name)]
        return {"instrument_name": name, "orders": change.orders, "trades": change.trades, "positions": positions}
