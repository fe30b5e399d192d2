"""A venue on loopback that answers as it is told, byte for byte, and counts what reaches it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import SecretStr

from dea_daemon.domain.commands import Approved, CreateOrder
from dea_daemon.domain.instruments import AccountKey, Instrument, Kind, Payoff, Side, TickStep, Universe
from dea_daemon.domain.orders import TimeInForce, client_order_id
from dea_daemon.shell.ccxt_client import Client, VenueAccess, close_client, open_client
from dea_daemon.shell.gateway import Gateway

HANG, DROP = b"<hang>", b"<drop>"
LABEL = client_order_id(0, 7, 1)
NOW_NS, UTC_NS = 5_000_000_000, 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Request:
    method: str  # "private/buy"
    query: str  # raw, as it stood in the URL
    connection: int  # which connection it came by
    authorization: str

    @property
    def params(self) -> dict[str, str]:
        return dict(parse_qsl(self.query, keep_blank_values=True))


def http(body: bytes, status: str = "200 OK", content_type: str = "application/json", *more: str) -> bytes:
    headers = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*headers, "", ""]).encode() + body


def result(value: Any) -> bytes:
    return http(json.dumps({"jsonrpc": "2.0", "result": value}).encode())


def refusal(code: int, message: str = "no", status: str = "400 Bad Request", **data: Any) -> bytes:
    error = {"code": code, "message": message} | ({"data": data} if data else {})
    return http(json.dumps({"jsonrpc": "2.0", "error": error}).encode(), status)


Answer = Callable[[Request], bytes | Awaitable[bytes]]


@dataclass
class Stub:
    """`answer` gives the bytes of each reply: b"" drops the connection at once, HANG never answers, and an
    answer that ends in DROP is followed by closing the connection."""

    answer: Answer = lambda request: result({})
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def count(self, method: str) -> int:
        return sum(request.method == method for request in self.requests)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        connection = self.connections
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                request = _read(head.decode(), connection)
                self.requests.append(request)
                reply = self.answer(request)
                raw = reply if isinstance(reply, bytes) else await reply
                if raw == HANG:
                    await asyncio.Event().wait()
                writer.write(raw.removesuffix(DROP))
                if not raw or raw.endswith(DROP):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def _read(head: str, connection: int) -> Request:
    first, *lines = head.split("\r\n")
    parts = urlsplit(first.split(" ")[1])
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    method = parts.path.removeprefix("/api/v2/")
    return Request(method, parts.query, connection, headers.get("Authorization", ""))


@asynccontextmanager
async def stub_venue(answer: Answer = lambda request: result({})):
    stub = Stub(answer)
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
    stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield stub
    finally:
        server.close()
        for task in stub.tasks:
            task.cancel()
        await asyncio.gather(*stub.tasks, return_exceptions=True)


def access_to(url: str, **changes: Any) -> VenueAccess:
    base: dict[str, Any] = {
        "venue": "deribit",
        "account": "main",
        "environment": "simulated",
        "client_id": "id",
        "client_secret": SecretStr("planted-secret"),
        "http_url": url,
        "ws_url": "ws://127.0.0.1:1",
        "timeout_ms": 2_000,
    }
    return VenueAccess(**(base | changes))


@asynccontextmanager
async def client_of(stub: Stub, **changes: Any):
    client = open_client(access_to(stub.url, **changes))
    try:
        yield client
    finally:
        await close_client(client)


def _instrument(name: str, **changes: Any) -> Instrument:
    base: dict[str, Any] = {
        "venue": "deribit",
        "name": name,
        "kind": Kind.PERPETUAL,
        "payoff": Payoff.INVERSE,
        "underlying": "BTC",
        "quote_currency": "USD",
        "settle_currency": "BTC",
        "margin_pool": "BTC",
        "contract_size": Decimal(1),
        "lot_size": Decimal(10),
        "tick_size": Decimal("0.5"),
    }
    return Instrument(**(base | changes))


INVERSE = _instrument("BTC-PERPETUAL")
LINEAR = _instrument(
    "ETH_USDC-PERPETUAL",
    payoff=Payoff.LINEAR,
    underlying="ETH",
    quote_currency="USDC",
    settle_currency="USDC",
    margin_pool="USDC",
    lot_size=Decimal("0.1"),
    tick_size=Decimal("0.05"),
)
STEPPED = _instrument(
    "BTC-26JUN26-50000-C",
    kind=Kind.OPTION,
    payoff=Payoff.LINEAR,
    quote_currency="BTC",
    expiry_ns=1_782_460_800_000_000_000,
    strike=50_000.0,
    is_call=True,
    lot_size=Decimal("0.1"),
    tick_size=Decimal("0.0001"),
    tick_steps=(TickStep(Decimal("0.005"), Decimal("0.0005")),),
)
UNIVERSE = Universe((AccountKey("deribit", "main"),), ((0, INVERSE), (0, LINEAR), (0, STEPPED)))


def gateway_on(client: Client, **changes: Any) -> Gateway:
    clocks: dict[str, Any] = {"now_ns": lambda: NOW_NS, "utc_ns": lambda: UTC_NS}
    return Gateway(client, 0, UNIVERSE, **(clocks | changes))


def create(row: int = 0, lots: int = 8, price_ticks: int = 120_001, **changes: Any) -> Approved:
    base: dict[str, Any] = {
        "client_order_id": LABEL,
        "row": row,
        "side": Side.BUY,
        "lots": lots,
        "price_ticks": price_ticks,
        "time_in_force": TimeInForce.GTC,
        "post_only": False,
        "reduce_only": False,
        "valid_until_ms": 1_700_000_002_000,
        "cause_seq": 1,
        "why": "test",
    }
    return Approved(CreateOrder(**(base | changes)))


def raw_order(**changes: Any) -> dict[str, Any]:
    base = {
        "instrument_name": "BTC-PERPETUAL",
        "order_id": "BTC-1",
        "order_state": "open",
        "direction": "buy",
        "amount": 80.0,
        "price": 60000.5,
        "filled_amount": 0.0,
        "label": LABEL,
        "creation_timestamp": 1_700_000_000_001,
        "last_update_timestamp": 1_700_000_000_001,
    }
    return base | changes


def raw_trade(**changes: Any) -> dict[str, Any]:
    base = {
        "instrument_name": "BTC-PERPETUAL",
        "trade_id": "T-1",
        "order_id": "BTC-1",
        "direction": "buy",
        "amount": 30.0,
        "price": 60000.5,
        "fee": 1e-7,
        "fee_currency": "BTC",
        "timestamp": 1_700_000_000_002,
        "liquidity": "T",
        "label": LABEL,
    }
    return base | changes


def placed(*trades: dict[str, Any], **order: Any) -> bytes:
    return result({"order": raw_order(**order), "trades": list(trades)})


def each(answers: list[bytes]) -> Answer:
    """Answer one after the other."""
    left: Iterator[bytes] = iter(answers)
    return lambda request: next(left)


def by_method(**answers: bytes | Answer) -> Answer:
    """Answer by the method's last word; any other method is a failure of the test's own making."""

    def answer(request: Request) -> bytes | Awaitable[bytes]:
        found = answers.get(request.method.split("/")[1])
        if found is None:
            return refusal(-32601, f"Method not found: {request.method}")
        return found if isinstance(found, bytes) else found(request)

    return answer
