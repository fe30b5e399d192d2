"""Builders the tests share: a small universe, and a run driven by hand through the real engine."""

from decimal import Decimal

from dea_daemon.domain.commands import Approved, CancelOrder, CreateOrder, QueryAccount, QueryOrder
from dea_daemon.domain.decisions import Decision
from dea_daemon.domain.events import (
    AccountReported,
    AnyEvent,
    BookSnapshot,
    DecisionDue,
    FeedOpened,
    FillReceived,
    IndexUpdated,
    MarkUpdated,
    OrderSeen,
    PoolReport,
    PositionReport,
    RunStarted,
    Settlement,
    VenueOrderState,
)
from dea_daemon.domain.instruments import AccountKey, Instrument, Kind, Payoff, TickStep
from dea_daemon.domain.parameters import Parameters
from dea_daemon.engine import begin, step

S = 1_000_000_000
MS = 1_000_000
START_NS = 1_790_000_000 * S

BTC_PERP, BTC_FUTURE, BTC_LINEAR, ETH_PERP = 0, 1, 2, 3


def instrument(name: str, underlying: str, payoff: Payoff, lot: str, tick: str, **other: object) -> Instrument:
    inverse = payoff is Payoff.INVERSE
    settle = underlying if inverse else "USDC"
    fields: dict[str, object] = dict(
        venue="deribit",
        name=name,
        kind=Kind.PERPETUAL,
        payoff=payoff,
        underlying=underlying,
        quote_currency="USD" if inverse else "USDC",
        settle_currency=settle,
        margin_pool=settle,
        contract_size=Decimal(1),
        lot_size=Decimal(lot),
        tick_size=Decimal(tick),
        maker_fee=0.0,
        taker_fee=0.0005,
    )
    return Instrument(**(fields | other))  # type: ignore[arg-type]


INSTRUMENTS = (
    instrument("BTC-PERPETUAL", "BTC", Payoff.INVERSE, "10", "0.5"),
    instrument(
        "BTC-25DEC26",
        "BTC",
        Payoff.INVERSE,
        "10",
        "2.5",
        kind=Kind.FUTURE,
        expiry_ns=START_NS + 60 * 86_400 * S,
        tick_steps=(TickStep(Decimal(100_000), Decimal(5)),),
    ),
    instrument("BTC_USDC-PERPETUAL", "BTC", Payoff.LINEAR, "0.0001", "0.5"),
    instrument("ETH-PERPETUAL", "ETH", Payoff.INVERSE, "1", "0.05"),
)

PARAMETERS: dict[str, object] = {
    "guards": {
        "max_gross_usd": 1_000_000,
        "max_net_usd": 400_000,
        "max_instrument_usd": 300_000,
        "max_order_usd": 100_000,
        "max_turnover_usd_per_hour": 5_000_000,
        "max_fees_usd_per_hour": 5_000,
    },
    "allocator": {"targets": {"BTC": {"kind": "fixed", "delta_usd": 100_000, "band_usd": 5_000}}},
}


def parameters(**sections: dict[str, object]) -> Parameters:
    """The default parameters with whole options of sections replaced."""
    merged = {**PARAMETERS}
    for section, options in sections.items():
        merged[section] = {**merged.get(section, {}), **options}  # type: ignore[dict-item]
    return Parameters.model_validate(merged)


class Run:
    """The engine with a hand on the clock: prices, reports and replies are given, decisions looked at."""

    def __init__(self, params: Parameters | None = None, *, armed: bool = True, **started: object) -> None:
        self.now_ns = START_NS
        self.params = params or parameters()
        self.prices = {"BTC": 80_000.0, "ETH": 3_000.0}
        self.positions: dict[int, int] = {}
        self.pools = {"BTC": 0.0, "ETH": 0.0, "USDC": 500_000.0}
        self.events: list[AnyEvent] = []
        self.decisions: list[Decision] = []
        self.trade = 0
        self.started = RunStarted(
            ts_recv_ns=self.now_ns,
            run_id="test",
            utc_ns=self.now_ns,
            epoch=1,
            armed=armed,
            accounts=(AccountKey("deribit", "main"),),
            rows=tuple((0, i) for i in INSTRUMENTS),
            parameters=self.params.model_dump_json(),
            **started,  # type: ignore[arg-type]
        )
        self.state, self.params = begin(self.started)

    def feed(self, *events: AnyEvent) -> Decision:
        """Step through events; the last one's decision."""
        decision = Decision()
        for event in events:
            self.events.append(event)
            decision = step(self.state, event, self.params)
        return decision

    def pass_time(self, milliseconds: int) -> None:
        self.now_ns += milliseconds * MS

    def quote(self, spread: float = 2.0, amount: float = 1e6) -> None:
        """Fresh books, marks and indices at self.prices for every contract."""
        for currency, price in self.prices.items():
            self.feed(IndexUpdated(self.now_ns, self.now_ns, 0, currency, price))
        for row, contract in enumerate(INSTRUMENTS):
            mid, grid = self.prices[contract.underlying], float(contract.tick_size)
            half = max(spread / 2, grid)
            bid, ask = (float(contract.ticks_to_price(contract.price_to_ticks(p))) for p in (mid - half, mid + half))
            self.feed(
                BookSnapshot(self.now_ns, self.now_ns, row, self.now_ns, [(bid, amount)], [(ask, amount)]),
                MarkUpdated(self.now_ns, self.now_ns, row, mid, mid, 0.0),
            )

    def report(
        self, *, complete: bool = True, orders: tuple[OrderSeen, ...] = (), settlements: tuple[Settlement, ...] = ()
    ) -> Decision:
        """The venue's account report: self.positions and self.pools."""
        return self.feed(
            AccountReported(
                self.now_ns,
                0,
                self.now_ns,
                complete,
                (),
                orders,
                tuple(PositionReport(row, lots, 0.0) for row, lots in self.positions.items()),
                tuple(PoolReport(c, e, e, 0.0, 0.0) for c, e in self.pools.items()),
                settlements=settlements,
            )
        )

    def settle(self) -> "Run":
        """Everything fresh and reconciled: ready to trade."""
        self.feed(FeedOpened(self.now_ns, "private", 0, True))
        self.quote()
        self.report()
        self.pass_time(1)
        self.report()
        return self

    def decide(self, cause: str = "timer") -> Decision:
        """One tick after 100 ms, on fresh quotes."""
        self.pass_time(100)
        self.quote()
        return self.tick(cause)

    def tick(self, cause: str = "timer", *, utc_shift_ms: int = 0) -> Decision:
        decision = self.feed(DecisionDue(self.now_ns, self.now_ns + utc_shift_ms * MS, cause))
        self.decisions.append(decision)
        return decision

    def seen(self, order: CreateOrder, state: VenueOrderState, filled: int = 0, reason: str = "") -> Decision:
        """The venue speaks about one of our orders."""
        return self.feed(
            OrderSeen(
                self.now_ns,
                self.now_ns,
                0,
                order.row,
                order.client_order_id,
                "V" + order.client_order_id,
                state,
                order.side,
                order.lots,
                filled,
                order.price_ticks,
                reason,
            )
        )

    def fill(self, order: CreateOrder, lots: int, trade_id: str = "") -> Decision:
        self.trade += 1
        self.positions[order.row] = self.positions.get(order.row, 0) + order.side.sign * lots
        return self.feed(
            FillReceived(
                self.now_ns,
                self.now_ns,
                0,
                order.row,
                trade_id or f"T{self.trade}",
                "V" + order.client_order_id,
                order.client_order_id,
                order.side,
                lots,
                order.price_ticks,
                0.0,
                "BTC",
                True,
            )
        )


def creates(decision: Decision) -> list[CreateOrder]:
    return [c.order for c in decision.commands if isinstance(c, Approved)]


def cancels(decision: Decision) -> list[CancelOrder]:
    return [c for c in decision.commands if isinstance(c, CancelOrder)]


def questions(decision: Decision) -> list[QueryOrder | QueryAccount]:
    return [c for c in decision.commands if isinstance(c, QueryOrder | QueryAccount)]
