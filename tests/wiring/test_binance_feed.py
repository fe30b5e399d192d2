"""Binance market data through the real wiring: routed sockets, HTTP listing and book snapshot, on loopback."""

import asyncio
import json

from aiohttp import WSMsgType, web

from dea_daemon.shell.settings import load
from dea_daemon.wiring.live import trade

LISTING = {
    "symbols": [
        {
            "symbol": "BTCUSDT", "contractType": "PERPETUAL", "status": "TRADING", "baseAsset": "BTC",
            "quoteAsset": "USDT", "marginAsset": "USDT", "deliveryDate": 4133404800000,
            "filters": [
                {"filterType": "PRICE_FILTER", "tickSize": "0.10"},
                {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001"},
            ],
        }
    ]
}  # fmt: skip
CONFIG = """
venues:
  binanceusdm:
    environment: simulated
    instruments: [BTCUSDT]
    http_url: {http}
    ws_url: {ws}
state_dir: {state}
allocator:
  targets:
    BTC: {{kind: fixed, delta_usd: 1000, band_usd: 100}}
guards:
  max_gross_usd: 10_000
  max_net_usd: 10_000
  max_instrument_usd: 10_000
  max_order_usd: 1_000
  max_turnover_usd_per_hour: 10_000
  max_fees_usd_per_hour: 10
"""


class Stub:
    """Deltas every 20 ms numbered without a hole but for one, and a snapshot of the last of them."""

    def __init__(self) -> None:
        self.last = 100
        self.skip = False
        self.snapshots = 0
        self.paths: list[str] = []

    async def listing(self, request: web.Request) -> web.Response:
        return web.json_response(LISTING)

    async def depth(self, request: web.Request) -> web.Response:
        self.snapshots += 1
        book = {"lastUpdateId": self.last, "E": 1, "T": 1, "bids": [["64000.0", "1"]], "asks": [["64000.1", "2"]]}
        return web.json_response(book)

    async def stream(self, request: web.Request) -> web.WebSocketResponse:
        self.paths.append(request.path)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        book = "public" in request.path
        sending = asyncio.create_task(self.send(socket, book))
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_json({"result": None, "id": json.loads(message.data)["id"]})
        sending.cancel()
        return socket

    async def send(self, socket: web.WebSocketResponse, book: bool) -> None:
        while True:
            await asyncio.sleep(0.02)
            now_ms = int(asyncio.get_running_loop().time() * 1_000)
            if not book:
                mark = {"e": "markPriceUpdate", "E": now_ms, "T": now_ms, "s": "BTCUSDT",
                        "p": "64000.0", "i": "64001.0", "r": "0.0001"}  # fmt: skip
                await socket.send_json({"stream": "btcusdt@markPrice@1s", "data": mark})
                continue
            previous, self.last = self.last, self.last + 5
            if self.skip:
                self.skip = False
                continue
            delta = {"e": "depthUpdate", "E": now_ms, "T": now_ms, "s": "BTCUSDT", "U": previous + 1, "u": self.last,
                     "pu": previous, "b": [["63999.9", "3"]], "a": []}  # fmt: skip
            await socket.send_json({"stream": "btcusdt@depth@100ms", "data": delta})


async def reached(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 state has no bell
            await asyncio.sleep(0.02)


async def test_books_are_bridged_from_http_and_again_after_a_gap(tmp_path):
    stub = Stub()
    app = web.Application()
    app.router.add_get("/fapi/v1/exchangeInfo", stub.listing)
    app.router.add_get("/fapi/v1/depth", stub.depth)
    app.router.add_get("/{kind}/stream", stub.stream)
    server = web.AppRunner(app)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(http=f"http://127.0.0.1:{port}", ws=f"ws://127.0.0.1:{port}", state=tmp_path / "s"))
    seen: list[object] = []

    async def until(runner):
        market = runner.state.market
        await reached(lambda: market.books[0].usable and market.mark[0] == 64_000.0)
        seen.append(market.books[0].best())
        stub.skip = True
        await reached(lambda: market.gaps > 0 and market.books[0].usable)

    finished = await trade(load(path, {}), until)
    await server.cleanup()
    assert sorted(set(stub.paths)) == ["/market/stream", "/public/stream"]
    assert seen == [(64_000.0, 1.0, 64_000.1, 2.0)]
    assert finished["gaps"] == 1 and stub.snapshots >= 2
    assert finished["orders_sent"] == 0
