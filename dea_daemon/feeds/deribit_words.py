"""Deribit's messages as they stand on the wire, and their decoders.

Only fields we read are named. Source: Deribit API v2, "Subscriptions", "Heartbeat".
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from dea_daemon.domain.instruments import Side

_NOTHING = msgspec.Raw()


class Params(msgspec.Struct, gc=False):
    channel: str = ""
    data: msgspec.Raw = _NOTHING
    type: str = ""  # of a heartbeat


class RpcError(msgspec.Struct):
    code: int
    message: str = ""


class Message(msgspec.Struct, gc=False):
    """A notification, a heartbeat, or the answer to something we sent."""

    method: str = ""
    params: Params | None = None
    id: int | None = None
    result: msgspec.Raw = _NOTHING  # a union with Raw is not a thing msgspec reads
    error: RpcError | None = None


class BookData(msgspec.Struct, gc=False):
    type: Literal["snapshot", "change"]
    timestamp: int
    change_id: int
    bids: list[tuple[str, float, float]]  # new, change or delete; price; amount
    asks: list[tuple[str, float, float]]
    prev_change_id: int | None = None


class GreeksData(msgspec.Struct, gc=False):
    """Of an option, per unit of the underlying: delta (Black), gamma per USD, vega USD per vol point, theta USD per
    day: as in our words."""

    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None


class TickerData(msgspec.Struct, gc=False):
    timestamp: int
    mark_price: float
    best_bid_price: float | None = None
    best_bid_amount: float | None = None
    best_ask_price: float | None = None
    best_ask_amount: float | None = None
    index_price: float | None = None
    current_funding: float | None = None
    funding_8h: float | None = None
    open_interest: float | None = None
    # Of options only; volatilities in percent, 0 where there is no quote.
    mark_iv: float | None = None
    bid_iv: float | None = None
    ask_iv: float | None = None
    underlying_price: float | None = None
    greeks: GreeksData | None = None


class TradeData(msgspec.Struct, gc=False):
    timestamp: int
    trade_id: str
    direction: Side
    price: float
    amount: float


class IndexData(msgspec.Struct, gc=False):
    timestamp: int
    price: float


class StateData(msgspec.Struct, gc=False):
    instrument_name: str
    state: str


class PlatformData(msgspec.Struct, gc=False):
    """Documented are a price_index and whether it is locked; of a maintenance of the whole, older clients know."""

    price_index: str = ""
    locked: bool | None = None
    maintenance: bool | None = None


class StatusData(msgspec.Struct):
    """Answer to public/status: "true", "partial" (then of those indices) or "false"; its example has a boolean."""

    locked: bool | str
    locked_indices: list[str] = []


class ChangesData(msgspec.Struct):
    trades: list[dict[str, Any]] = []
    orders: list[dict[str, Any]] = []


class BookParams(msgspec.Struct, gc=False):
    channel: str
    data: BookData


class BookNotice(msgspec.Struct, gc=False):
    params: BookParams


class TickerParams(msgspec.Struct, gc=False):
    channel: str
    data: TickerData


class TickerNotice(msgspec.Struct, gc=False):
    params: TickerParams


read_message = msgspec.json.Decoder(Message).decode
read_book = msgspec.json.Decoder(BookData).decode
read_ticker = msgspec.json.Decoder(TickerData).decode
read_trades = msgspec.json.Decoder(list[TradeData]).decode
read_state = msgspec.json.Decoder(StateData).decode
read_platform = msgspec.json.Decoder(PlatformData).decode
read_status = msgspec.json.Decoder(StatusData).decode
read_index = msgspec.json.Decoder(IndexData).decode
read_changes = msgspec.json.Decoder(ChangesData).decode
read_object = msgspec.json.Decoder(dict[str, Any]).decode
read_names = msgspec.json.Decoder(list[str]).decode

# Nearly all messages are books and tickers, and begin so: their kind is known before they are decoded, and one
# pass does. Any other order of keys takes the general way, with the same outcome.
HEAD = b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"'
KIND = slice(len(HEAD), len(HEAD) + 5)
AT_ONCE: dict[bytes, Callable[[bytes], BookNotice | TickerNotice]] = {
    b"book.": msgspec.json.Decoder(BookNotice).decode,
    b"ticke": msgspec.json.Decoder(TickerNotice).decode,
}
