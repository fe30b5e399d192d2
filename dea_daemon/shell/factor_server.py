"""Simulated sources of slow factors, in the formats of the real ones, with every way to go wrong; on loopback.

`FactorPages(...).mount(app)` puts them beside a simulated venue; `FactorServer` serves them alone. The ways are
`simvenue.faults.PAGE_ACTIONS`.
"""

import asyncio
import csv
import io
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import numpy as np
from aiohttp import web

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S
from dea_daemon.simvenue.faults import FACTOR_PAGES

HOST = "127.0.0.1"
DAYS = 600
PAGE = 250
HTML = "<!DOCTYPE html><html><head><title>Just a moment...</title></head><body></body></html>"
ASKED_MOST = 10_000

Answer = Callable[[web.Request, str], Awaitable[web.Response]]


class FactorPages:
    """Daily random walks by name, up to yesterday. `fault` holds until it is changed, "" is none; beside it `befalls`
    says what a page does so many ns after the start."""

    def __init__(
        self, utc_ns: Callable[[], int], seed: int = 0, befalls: Callable[[str, int], str] = lambda page, since_ns: ""
    ) -> None:
        self._utc_ns, self._seed, self._befalls = utc_ns, seed, befalls
        self._start_ns = utc_ns()
        self._walks: dict[str, tuple[int, FloatArray]] = {}
        self.fault = ""
        self.asked: deque[str] = deque(maxlen=ASKED_MOST)  # path and query of each request

    def mount(self, app: web.Application) -> None:
        answers = (self._coinmetrics, self._fear_greed, self._fred, self._fred_csv, self._csv, self._json)
        for page, answer in zip(FACTOR_PAGES, answers, strict=True):
            path = "/fng/" if page == "fng" else f"/{page}"
            app.router.add_get(path, self._faulty(answer))

    # --- what is told -----------------------------------------------------------------------------------

    def told(self, name: str, fault: str | None = None) -> list[tuple[int, float]]:
        """(day since 1970, value) as the source tells it now, its faults of content included."""
        today = self._utc_ns() // NS_PER_DAY
        first, walk = self._walks.setdefault(name, (today - DAYS, self._walk(name)))
        rows = [(first + i, float(value)) for i, value in enumerate(walk[: today - first])]
        match self.fault if fault is None else fault:
            case "rewind":
                return rows[:-30]
            case "restate":
                return [(day, value + 0.01 * (day > today - 10)) for day, value in rows]
            case "absurd":
                return [*rows[:-1], (rows[-1][0], 1e9)]
            case "jump":
                return [*rows, (today, rows[-1][1] + 40.0)]
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

    async def _coinmetrics(self, request: web.Request, fault: str) -> web.Response:
        """Pages, oldest first; the token is where the next begins."""
        query = request.query
        asset, metric = query["assets"], query["metrics"]
        rows = [(day, value) for day, value in self.told(metric, fault) if _date(day) >= query["start_time"]]
        first = int(query.get("next_page_token", "0"))
        size = min(int(query.get("page_size", PAGE)), PAGE)
        data = [
            {"asset": asset, "time": f"{_date(day)}T00:00:00.000000000Z", metric: str(value)}
            for day, value in rows[first : first + size]
        ]
        if not (first + size < len(rows) or fault == "endless"):
            return web.json_response({"data": data})
        token = str(first + size)
        return web.json_response({"data": data, "next_page_token": token, "next_page_url": _following(request, token)})

    async def _fear_greed(self, request: web.Request, fault: str) -> web.Response:
        """Newest first, numbers in text."""
        rows = [
            {"value": str(round(value)), "value_classification": "Greed", "timestamp": str(day * 86_400)}
            for day, value in reversed(self.told("fear_greed", fault))
        ]
        if rows:
            rows[0]["time_until_update"] = str(86_400 - self._utc_ns() // NS_PER_S % 86_400)
        return web.json_response({"name": "Fear and Greed Index", "data": rows, "metadata": {"error": None}})

    async def _fred(self, request: web.Request, fault: str) -> web.Response:
        """Without a key: 400, as there. With `realtime_start`: two vintages of each value, a day and a week later."""
        query = request.query
        if not query.get("api_key"):
            return web.json_response({"error_code": 400, "error_message": "Bad Request."}, status=400)
        since, today = query["observation_start"], self._utc_ns() // NS_PER_DAY
        rows = [(day, value) for day, value in self.told(query["series_id"], fault) if _date(day) >= since]
        known = {"realtime_start": query.get("realtime_start", _date(today)), "realtime_end": _date(today)}
        if "realtime_start" in query:
            known["realtime_end"] = query["realtime_end"]
            until = {day: day + 6 if day + 7 <= today else None for day, _ in rows}
            first = [_observation(day, value, day + 1, until[day]) for day, value in rows if day + 1 <= today]
            second = [_observation(day, value + 0.5, day + 7, None) for day, value in rows if day + 7 <= today]
            told = sorted(first + second, key=lambda row: row["date"])
        else:
            told = [_observation(day, value, today, today) for day, value in rows]
        head = {"observation_start": since, "observation_end": "9999-12-31", "units": "lin", "output_type": 1}
        head |= {"file_type": "json", "order_by": "observation_date", "sort_order": "asc"}
        size = {"count": len(told), "offset": 0, "limit": 100_000}
        return web.json_response({**known, **head, **size, "observations": told})

    async def _fred_csv(self, request: web.Request, fault: str) -> web.Response:
        """Saturdays and Sundays have no value."""
        series = request.query["id"]
        rows = [(day, value) for day, value in self.told(series, fault) if _date(day) >= request.query.get("cosd", "")]
        return _table(["observation_date", series], [(_date(day), _workday(day, value)) for day, value in rows])

    async def _csv(self, request: web.Request, fault: str) -> web.Response:
        return _table(["date", "value"], [(_date(day), str(value)) for day, value in self.told("own", fault)])

    async def _json(self, request: web.Request, fault: str) -> web.Response:
        points = [{"at": day * 86_400_000, "of": {"value": value}} for day, value in self.told("own", fault)]
        return web.json_response({"data": {"points": points}})

    # --- how it goes wrong ------------------------------------------------------------------------------

    def _faulty(self, answer: Answer) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            self.asked.append(str(request.rel_url))
            fault = self.fault or self._befalls(request.path.strip("/"), self._utc_ns() - self._start_ns)
            match fault:
                case "hang":
                    await asyncio.Event().wait()
                case "drip" | "huge":
                    return await self._stream(request, slowly=fault == "drip")
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
                    body = (await answer(request, fault)).body
                    return web.Response(body=bytes(body)[: len(bytes(body)) // 2] if isinstance(body, bytes) else b"")
                case "gone":
                    if request.transport is not None:
                        request.transport.abort()
            return await answer(request, fault)

        return serve

    async def _stream(self, request: web.Request, slowly: bool) -> web.StreamResponse:
        """An answer without an end: a byte now and then, or as much as is taken."""
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):  # who asked has had enough
            while True:
                await response.write(b" " if slowly else b" " * (1 << 20))
                await asyncio.sleep(0.05 if slowly else 0.0)
        return response


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


def _following(request: web.Request, token: str) -> str:
    return str(request.url.update_query(next_page_token=token))


def _observation(day: int, value: float, released: int, replaced: int | None) -> dict[str, Any]:
    """As it was known from day to day, both included; None: still."""
    return {
        "realtime_start": _date(released),
        "realtime_end": "9999-12-31" if replaced is None else _date(replaced),
        "date": _date(day),
        "value": "." if not _workday(day, value) else str(value),
    }


def _table(head: list[str], rows: list[tuple[str, str]]) -> web.Response:
    text = io.StringIO()
    csv.writer(text).writerows([head, *rows])
    return web.Response(text=text.getvalue(), content_type="text/csv")
