"""A small universe and what happens in it, for the tests of records."""

from decimal import Decimal

from msgspec.structs import replace

from dea_daemon.domain.decisions import DecisionRecord
from dea_daemon.domain.events import FillReceived
from dea_daemon.domain.instruments import AccountKey, Instrument, Kind, Payoff, Side, Universe
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.orders import Order, TimeInForce, client_order_id
from dea_daemon.state.account import BookedFill

S = 1_000_000_000
HOUR = 3_600 * S
NOW = 1_770_000_000 * S
MAIN, OTHER = AccountKey("deribit", "main"), AccountKey("deribit", "other")


def instrument(name: str, lot_size: str = "10", tick_size: str = "0.5") -> Instrument:
    return Instrument(
        venue="deribit", name=name, kind=Kind.PERPETUAL, payoff=Payoff.INVERSE, underlying=name[:3],
        quote_currency="USD", settle_currency=name[:3], margin_pool=name[:3], contract_size=Decimal(1),
        lot_size=Decimal(lot_size), tick_size=Decimal(tick_size),
    )  # fmt: skip


BTC, ETH = instrument("BTC-PERPETUAL"), instrument("ETH-PERPETUAL")
UNIVERSE = Universe((MAIN, OTHER), ((0, BTC), (0, ETH), (1, BTC)))

_ORDER = Order(
    client_order_id="", row=0, side=Side.BUY, lots=10, price_ticks=100_001, time_in_force=TimeInForce.GTC,
    post_only=True, reduce_only=False, valid_until_ms=NOW // 10**6 + 2_000, cause_seq=0, created_ns=NOW,
)  # fmt: skip
_FILL = FillReceived(
    ts_recv_ns=NOW, ts_event_ns=NOW, account=0, row=0, trade_id="", venue_order_id="v1", client_order_id="",
    side=Side.SELL, lots=3, price_ticks=100_000, fee=1e-6, fee_currency="BTC", is_maker=True,
)  # fmt: skip
_RECORD = DecisionRecord(
    seq=0, ts_recv_ns=NOW, utc_ns=NOW, cause="tick", mode=Mode.NORMAL, armed=True, equity_usd=1e5,
    factors=(), clips=(), uses=(), orders=(), notes=("a note",),
)  # fmt: skip


def order(sequence: int, **more) -> Order:
    return replace(_ORDER, client_order_id=client_order_id(0, 7, sequence), cause_seq=sequence, **more)


def booked(trade_id: str, ts_event_ns: int = NOW, usd: float = 30.0, fee_usd: float = 0.05, **more):
    return BookedFill(replace(_FILL, trade_id=trade_id, ts_event_ns=ts_event_ns, **more), usd, fee_usd)


def record(seq: int, **more) -> DecisionRecord:
    return replace(_RECORD, seq=seq, **more)
