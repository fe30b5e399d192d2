"""The venue as one object (skeleton: signatures are pinned, bodies follow)."""

from collections.abc import Iterable

from dea_daemon.domain.instruments import Instrument, Side
from dea_daemon.simvenue.scenarios import Scenario
from dea_daemon.simvenue.words import (
    Book, OrderRequest, Summary, Ticker, Traded, VenueEvent, VenueFill, VenueOrder, VenuePosition,
)  # fmt: skip


class Exchange:
    instruments: dict[str, Instrument]
    now_ns: int

    def __init__(self, scenario: Scenario, seed: int, start_ns: int) -> None:
        raise NotImplementedError

    @classmethod
    def replayed(cls, instruments: Iterable[Instrument], start_ns: int, scenario: Scenario | None = None) -> "Exchange":
        raise NotImplementedError

    def set_time(self, now_ns: int) -> None: ...
    def set_level(self, instrument: str, side: Side, price_ticks: int, lots: int) -> None: ...
    def replace_book(
        self, instrument: str, bids: Iterable[tuple[int, int]], asks: Iterable[tuple[int, int]]
    ) -> None: ...
    def public_trade(self, instrument: str, side: Side, price_ticks: int, lots: int) -> None: ...
    def set_mark(self, instrument: str, mark_price: float, index_price: float) -> None: ...

    def advance(self, to_ns: int) -> None:
        raise NotImplementedError

    def events(self) -> list[VenueEvent]:
        raise NotImplementedError

    def open_account(self, account: str, deposits: dict[str, float]) -> None:
        raise NotImplementedError

    def place(self, request: OrderRequest) -> tuple[VenueOrder, list[VenueFill]]:
        raise NotImplementedError

    def edit(
        self,
        account: str,
        order_id: str,
        lots: int,
        price_ticks: int,
        *,
        post_only: bool = False,
        reject_post_only: bool = True,
        reduce_only: bool | None = None,
        valid_until_ms: int = 0,
    ) -> tuple[VenueOrder, list[VenueFill]]:
        raise NotImplementedError

    def cancel(self, account: str, order_id: str) -> VenueOrder:
        raise NotImplementedError

    def order(self, account: str, order_id: str) -> VenueOrder:
        raise NotImplementedError

    def orders_by_label(self, account: str, label: str) -> list[VenueOrder]:
        raise NotImplementedError

    def open_orders(self, account: str, instrument: str | None = None) -> list[VenueOrder]:
        raise NotImplementedError

    def order_history(self, account: str) -> list[VenueOrder]:
        raise NotImplementedError

    def fills(
        self, account: str, instrument: str | None = None, since_ns: int = 0, until_ns: int | None = None
    ) -> list[VenueFill]:
        raise NotImplementedError

    def positions(self, account: str) -> list[VenuePosition]:
        raise NotImplementedError

    def position(self, account: str, instrument: str) -> VenuePosition:
        raise NotImplementedError

    def summary(self, account: str, currency: str) -> Summary:
        raise NotImplementedError

    def currencies(self) -> list[str]:
        raise NotImplementedError

    def book(self, instrument: str, depth: int | None = None) -> Book:
        raise NotImplementedError

    def ticker(self, instrument: str) -> Ticker:
        raise NotImplementedError

    def index_price(self, currency: str) -> float:
        raise NotImplementedError

    def trades(self, instrument: str, count: int = 100) -> list[Traded]:
        raise NotImplementedError

    def candles(
        self, instrument: str, start_ns: int, end_ns: int, step_s: int
    ) -> list[tuple[int, float, float, float, float, float]]:
        raise NotImplementedError

    def funding_history(
        self, instrument: str, start_ns: int, end_ns: int
    ) -> list[tuple[int, float, float, float]]:
        raise NotImplementedError
