"""Simulated sources of slow factors, in the formats of the real ones, with every way to go wrong; on loopback.

`FactorPages(...).mount(app)` puts them beside a simulated venue; `FactorServer` serves them alone.
"""

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import numpy as np
from aiohttp import web

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S

HOST = "127.0.0.1"
DAYS = 600
PAGE = 250
HTML = "<!DOCTYPE html><html><head><title>Just a moment...</title></head><body></body></html>"
FAULTS = (
    "hang", "drip", "html", "error", "huge", "redirect", "truncated", "words", "endless", "packed",
    "rewind", "restate", "absurd", "future", "empty", "gone",
)  # fmt: skip


class FactorPages:
    """Daily random walks by name, up to yesterday. `fault` is one of FAULTS, or "": it holds until it is changed."""

    def __init__(self, utc_ns: Callable[[], int], seed: int = 0) -> None:
        self._utc_ns, self._seed = utc_ns, seed
        self._walks: dict[str, tuple[int, FloatArray]] = {}
        self.fault = ""
        self.asked: list[str] = []  # path and query of each request

    def mount(self, app: web.Application) -> None:
        for path, answer in (
            ("/timeseries/asset-metrics", self._coinmetrics),
            ("/fng/", self._fear_greed),
            ("/fred/series/observations", self._fred),
            ("/graph/fredgraph.csv", self._fred_csv),
            ("/own.csv", self._csv),
            ("/own.json", self._json),
        ):
            app.router.add_get(path, self._faulty(answer))

    # --- what is told -----------------------------------------------------------------------------------

    def told(self, name: str) -> list[tuple[int, float]]:
        """(day since 1970, value) as the source tells it now, its faults of content included."""
        today = self._utc_ns() // NS_PER_DAY
        first, walk = self._walks.setdefault(name, (today - DAYS, self._walk(name)))
        rows = [(first + i, float(value)) for i, value in enumerate(walk[: today - first])]
        match self.fault:
            case "rewind":
                return rows[:-30]
            case "restate":
                return [(day, value + 0.01 * (day > today - 10)) for day, value in rows]
            case "absurd":
                return [*rows[:-1], (rows[-1][0], 1e9)]
            case "future":
                return [*rows, (today + 3, rows[-1][1])]
            case "empty":
                return []
        return rows

    def _walk(self, name: str) -> FloatArray:
        random = np.random.default_rng([self._seed, *name.encode()])
        steps = random.normal(0.0, 0.3, 4 * DAYS)
        walk = np.empty(len(steps))
        level = 0.0
        for i, step in enumerate(steps.tolist()):
            level = 0.97 * level + step
            walk[i] = round(50.0 + 5.0 * level, 4)
        return walk

    # --- the formats ------------------------------------------------------------------------------------

    async def _coinmetrics(self, request: web.Request) -> web.Response:
        """Pages, oldest first; the token is where the next begins."""
        query = request.query
        asset, metric = query["assets"], query["metrics"]
        rows = [(day, value) for day, value in self.told(metric) if _date(day) >= query["start_time"]]
        first = int(query.get("next_page_token", "0"))
        size = min(int(query.get("page_size", PAGE)), PAGE)
        data = [
            {"asset": asset, "time": f"{_date(day)}T00:00:00.000000000Z", metric: str(value)}
            for day, value in rows[first : first + size]
        ]
        more = {"next_page_token": str(first + size)} if first + size < len(rows) or self.fault == "endless" else {}
        return web.json_response({"data": data} | more)

    async def _fear_greed(self, request: web.Request) -> web.Response:
        """Newest first, numbers in text."""
        rows = [
            {"value": str(round(value)), "value_classification": "Greed", "timestamp": str(day * 86_400)}
            for day, value in reversed(self.told("fear_greed"))
        ]
        return web.json_response({"name": "Fear and Greed Index", "data": rows, "metadata": {"error": None}})

    async def _fred(self, request: web.Request) -> web.Response:
        """Without a key: 400, as there. With `realtime_start`: two vintages of each value, a day and a week later."""
        query = request.query
        if not query.get("api_key"):
            return web.json_response({"error_code": 400, "error_message": "Bad Request."}, status=400)
        rows = [
            (day, value) for day, value in self.told(query["series_id"]) if _date(day) >= query["observation_start"]
        ]
        today = self._utc_ns() // NS_PER_DAY
        told = [_observation(day, today, value) for day, value in rows]
        if "realtime_start" in query:
            told = [_observation(day, day + 1, value) for day, value in rows if day + 1 <= today]
            told += [_observation(day, day + 7, value + 0.5) for day, value in rows if day + 7 <= today]
        told.sort(key=lambda row: row["date"])
        return web.json_response({"count": len(told), "offset": 0, "limit": 100_000, "observations": told})

    async def _fred_csv(self, request: web.Request) -> web.Response:
        """Saturdays and Sundays have no value."""
        series = request.query["id"]
        rows = [(day, value) for day, value in self.told(series) if _date(day) >= request.query.get("cosd", "")]
        return _table(["observation_date", series], [(_date(day), _workday(day, value)) for day, value in rows])

    async def _csv(self, request: web.Request) -> web.Response:
        return _table(["date", "value"], [(_date(day), str(value)) for day, value in self.told("own")])

    async def _json(self, request: web.Request) -> web.Response:
        points = [{"at": day * 86_400_000, "of": {"value": value}} for day, value in self.told("own")]
        return web.json_response({"data": {"points": points}})

    # --- how it goes wrong ------------------------------------------------------------------------------

    def _faulty(
        self, answer: Callable[[web.Request], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            self.asked.append(str(request.rel_url))
            match self.fault:
                case "hang":
                    await asyncio.Event().wait()
                case "drip" | "huge":
                    return await self._stream(request, slowly=self.fault == "drip")
                case "html":
                    return web.Response(text=HTML, content_type="text/html")
                case "error":
                    return web.Response(status=503, text="unavailable")
                case "redirect":
                    return web.Response(status=302, headers={"Location": "http://127.0.0.1:9/elsewhere"})
                case "words":
                    return web.json_response({"data": [{"value": "much", "timestamp": "once"}], "observations": "none"})
                case "packed":
                    return web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
                case "truncated":
                    body = (await answer(request)).body
                    return web.Response(body=bytes(body)[: len(bytes(body)) // 2] if isinstance(body, bytes) else b"")
                case "gone":
                    if request.transport is not None:
                        request.transport.abort()
            return await answer(request)

        return serve

    async def _stream(self, request: web.Request, slowly: bool) -> web.StreamResponse:
        """An answer without an end: a byte now and then, or as much as is taken."""
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " if slowly else b" " * (1 << 20))
            await asyncio.sleep(0.05 if slowly else 0.0)


class FactorServer(FactorPages):
    """The pages alone, on a loopback port. `async with FactorServer(...)`."""

    port = 0
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        self.mount(app)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * NS_PER_DAY // NS_PER_S, UTC).strftime("%Y-%m-%d")


def _workday(day: int, value: float) -> str:
    return "" if (day + 3) % 7 > 4 else str(value)  # 1970-01-01 was a Thursday


def _observation(day: int, released: int, value: float) -> dict[str, Any]:
    return {
        "realtime_start": _date(released),
        "realtime_end": "9999-12-31",
        "date": _date(day),
        "value": "." if not _workday(day, value) else str(value),
    }


def _table(head: list[str], rows: list[tuple[str, str]]) -> web.Response:
    text = io.StringIO()
    csv.writer(text).writerows([head, *rows])
    return web.Response(text=text.getvalue(), content_type="text/csv")
