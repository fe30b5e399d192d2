"""Clients of the simulated venue's server, for the tests: raw sockets, and ccxt with only its URLs changed."""

import asyncio
import base64
import itertools
import json
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from dea_daemon.shell.venue_server import VenueServer
from dea_daemon.wiring.venue import build_server, serve_venue, venue_key

SEED = 7
KEY = venue_key(SEED)


@asynccontextmanager
async def venue_running(scenario: str = "default", **more: Any) -> AsyncIterator[VenueServer]:
    """A venue on a free port of this loop."""
    async with build_server(seed=SEED, scenario=scenario, **more) as server:
        yield server


def basic(secret: str = KEY.client_secret) -> dict[str, str]:
    """The header of HTTP's plainest authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{KEY.client_id}:{secret}".encode()).decode()}


class HttpClient:
    """GET with Basic credentials; gives status and the parsed body."""

    def __init__(self, server: VenueServer, http: aiohttp.ClientSession) -> None:
        self.server, self.http = server, http

    async def get(self, method: str, **params: Any) -> tuple[int, Any]:
        headers = basic() if method.startswith("private") else {}
        url = f"{self.server.http_url}/api/v2/{method}"
        async with self.http.get(url, params=params, headers=headers, timeout=aiohttp.ClientTimeout(2.0)) as response:
            return response.status, await response.json(content_type=None)

    async def result(self, method: str, **params: Any) -> Any:
        status, body = await self.get(method, **params)
        assert status == 200, body
        return body["result"]

    async def buy(self, **more: Any) -> tuple[int, Any]:
        return await self.get("private/buy", instrument_name="BTC-PERPETUAL", amount=10, type="market", **more)


@asynccontextmanager
async def http_to(server: VenueServer) -> AsyncIterator[HttpClient]:
    async with aiohttp.ClientSession() as http:
        yield HttpClient(server, http)


class WsClient:
    """`ask` waits for its own reply and keeps what else was heard."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.heard: list[Any] = []
        self._numbers = itertools.count(1)

    async def send(self, method: str, **params: Any) -> int:
        number = next(self._numbers)
        await self.socket.send_str(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
        return number

    async def ask(self, method: str, **params: Any) -> Any:
        number = await self.send(method, **params)
        while True:
            message = await self.receive()
            if message.get("id") == number:
                return message.get("result", message.get("error"))
            self.heard.append(message)

    async def receive(self, timeout_s: float = 2.0) -> Any:
        frame = await asyncio.wait_for(self.socket.receive(), timeout_s)
        assert frame.type is aiohttp.WSMsgType.TEXT, frame
        return json.loads(frame.data)

    async def authenticate(self) -> Any:
        login = {"grant_type": "client_credentials", "client_id": KEY.client_id, "client_secret": KEY.client_secret}
        return await self.ask("public/auth", **login)

    async def closed(self, timeout_s: float = 2.0) -> bool:
        """Whether the connection ends within the time, whatever is said before."""
        async with asyncio.timeout(timeout_s):
            async for _ in self.socket:
                pass
        return self.socket.closed


@asynccontextmanager
async def ws_to(server: VenueServer) -> AsyncIterator[WsClient]:
    async with aiohttp.ClientSession() as http, http.ws_connect(server.ws_url) as socket:
        yield WsClient(socket)


@asynccontextmanager
async def ccxt_to(server: VenueServer, *, pro: bool = False) -> AsyncIterator[Any]:
    """Unmodified ccxt: credentials and URLs are all that is set."""
    if pro:
        import ccxt.pro as library
    else:
        import ccxt.async_support as library
    client = library.deribit({"apiKey": KEY.client_id, "secret": KEY.client_secret, "enableRateLimit": False})
    client.urls["api"] = client.urls["test"] = {"rest": server.http_url, "ws": server.ws_url}
    client.urls |= dict.fromkeys(("www", "doc", "fees", "logo"), server.http_url)
    try:
        yield client
    finally:
        await client.close()


@contextmanager
def venue_in_thread(scenario: str = "default") -> Iterator[dict[str, str]]:
    """A venue in a thread of its own, for clients that block; gives what it said when it listened."""
    said: queue.Queue[dict[str, str]] = queue.Queue()
    loop = asyncio.new_event_loop()
    serving = loop.create_task(serve_venue(port=0, seed=SEED, scenario=scenario, log=None, emit=said.put))

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(serving)
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield said.get(timeout=10.0)
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join()


def witnessed(log: Path) -> list[Any]:
    return [json.loads(line) for line in log.read_text().splitlines()]
