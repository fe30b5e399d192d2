"""A small Binance USD-M on loopback, for downloads: contracts, candles, funding and trades, all computed from time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

H = 3_600_000
LISTED_MS = 1_609_459_200_000  # 2021-01-01: nothing before
FILTERS = [
    {"filterType": "PRICE_FILTER", "minPrice": "0.1", "maxPrice": "1000000", "tickSize": "0.1"},
    {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "1000", "stepSize": "0.001"},
]
SYMBOL = {
    "symbol": "BTCUSDT", "pair": "BTCUSDT", "contractType": "PERPETUAL", "deliveryDate": 4_133_404_800_000,
    "onboardDate": LISTED_MS, "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT", "marginAsset": "USDT",
    "pricePrecision": 1, "quantityPrecision": 3, "underlyingType": "COIN", "filters": FILTERS,
    "orderTypes": ["LIMIT"], "timeInForce": ["GTC"],
}  # fmt: skip


class Binance:
    """`asked` is every (path, startTime) in turn; a status put in `fails` answers the next request of series.
    `down` is (after so many requests, with which status)."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.asked: list[tuple[str, int]] = []
        self.fails: list[int] = []
        self.down: tuple[int, int] | None = None
        self.hang_after: int | None = None
        self.hanging = asyncio.Event()
        self.http_url = ""

    async def answer(self, request: web.Request) -> web.Response:
        path = request.path.rpartition("/")[2]
        if path == "exchangeInfo":
            return web.json_response({"symbols": [SYMBOL], "rateLimits": [], "serverTime": self.now_ms})
        if path == "time":
            return web.json_response({"serverTime": self.now_ms})
        rows = {
            "klines": self.klines,
            "markPriceKlines": self.klines,
            "fundingRate": self.rates,
            "aggTrades": self.trades,
        }
        if path not in rows:
            raise web.HTTPNotFound
        start_ms = int(request.query["startTime"])
        if self.fails:
            return web.json_response({"code": -1, "msg": "not now"}, status=self.fails.pop(0))
        if self.down is not None and len(self.asked) >= self.down[0]:
            return web.json_response({"code": -1, "msg": "not now"}, status=self.down[1])
        if self.hang_after is not None and len(self.asked) >= self.hang_after:
            self.hanging.set()
            await asyncio.sleep(60.0)
        self.asked.append((path, start_ms))
        end_ms = int(request.query.get("endTime", self.now_ms))
        found = rows[path](max(start_ms, LISTED_MS), min(end_ms, self.now_ms))
        return web.json_response(found[: int(request.query["limit"])])

    def klines(self, start_ms: int, end_ms: int) -> list[Any]:
        """The one still open among them, as the venue's own answer has it."""
        return [
            [at, f"{price(at)}", f"{price(at) + 2}", f"{price(at) - 1}", f"{price(at) + 1}", "3.5", at + H - 1]
            for at in range(-(-start_ms // H) * H, end_ms + 1, H)
        ]

    def rates(self, start_ms: int, end_ms: int) -> list[Any]:
        """Stamped some milliseconds late."""
        return [
            {"symbol": "BTCUSDT", "fundingRate": f"{at // (8 * H) % 7 * 1e-5:.5f}", "fundingTime": at + 3}
            for at in range((start_ms - 3) // (8 * H) * 8 * H, end_ms + 1, 8 * H)
            if start_ms <= at + 3 <= end_ms
        ]

    def trades(self, start_ms: int, end_ms: int) -> list[Any]:
        """Three in each tenth second."""
        first, last = -(-start_ms // 10_000), end_ms // 10_000
        return [
            {"a": 3 * n + k, "p": f"{100 + k}", "q": "0.5", "f": n, "l": n, "T": 10_000 * n, "m": k == 0}
            for n in range(first, last + 1)
            for k in range(3)
        ]


def price(at_ms: int) -> int:
    return 30_000 + at_ms // H % 100


@asynccontextmanager
async def binance_running(now_ms: int) -> AsyncIterator[Binance]:
    stub = Binance(now_ms)
    app = web.Application()
    app.router.add_get("/{path:.*}", stub.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stub.http_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield stub
    finally:
        await runner.cleanup()
