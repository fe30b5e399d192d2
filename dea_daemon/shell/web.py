"""The web view: one read-only page, its data, and the metrics, over loopback TCP.

Nobody who watches may cost the loop or memory: connections and streams are counted, a stream pulls what is new
once a second instead of being queued for, and whoever does not read what was written is cut off.
"""

import asyncio
import errno
import gzip
import hashlib
import os
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec
from aiohttp import web

from dea_daemon.domain.errors import ConfigError

STREAMS_MAX = 16
CONNECTIONS_MAX = 64
EVERY_S = 1.0  # between two pulls of one stream
STATUS_KEPT_S = 0.5  # one status serves all who ask within this time
SURFACE_KEPT_S = 1.0  # likewise; it takes a few milliseconds to tell
SEND_S = 5.0  # a stream that takes longer to accept a piece is dropped
REPLY_S = 30.0  # likewise for any other reply
PIECE = 32 * 1024  # bytes written before the socket may push back
SOCKET_BUFFER = 128 * 1024  # of the kernel, so that a stream nobody reads shows soon
BATCH = 100  # events encoded without a pause
RETRY_MS = 1_000

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/surface.js": ("surface.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}
JSON = "application/json"
METRICS = "text/plain; version=0.0.4; charset=utf-8"

_HOST = re.compile(r"(\[[0-9a-f:.%]+\]|[^:]+)(:\d{1,5})?", re.IGNORECASE)
_LAST_ID = re.compile(r"(\w{1,64})/(\d{1,18})/(\d{1,18})")
_SEQ = re.compile(r"\d{1,18}")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Source(Protocol):
    """What the page needs of a Monitor."""

    def status(self) -> dict[str, Any]: ...
    def surface(self) -> dict[str, Any]: ...
    def points(self, after: int) -> list[dict[str, Any]]: ...
    def decisions(self, after: int) -> list[dict[str, Any]]: ...
    def decision(self, seq: int | None) -> dict[str, Any] | None: ...
    def fills(self, after: int) -> list[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page, compressed once."""

    zipped: bytes
    content_type: str
    cache: str
    etag: str

    @classmethod
    def of(cls, body: bytes, content_type: str, cache: str) -> Self:
        digest = hashlib.sha256(body).hexdigest()
        return cls(gzip.compress(body, 6, mtime=0), content_type, cache, f'"{digest[:16]}"')


@dataclass(slots=True)
class Cursor:
    """What a stream has told: of one run, the numbers of the last point, decision and fill."""

    run: str = ""
    point: int = 0
    decision: int = 0
    fill: int = 0

    @classmethod
    def after(cls, last_id: str) -> Self:
        """From the id of the last point a client saw. It came after the decisions and fills before it."""
        match = _LAST_ID.fullmatch(last_id)
        if match is None:
            return cls()
        return cls(match[1], int(match[2]), int(match[2]), int(match[3]))


class WebServer:
    """Serve the page while entered. `metrics` gives the Prometheus exposition.

    Entering raises ConfigError where the address cannot be had. Port 0 takes any that is free; `url` tells which.
    """

    def __init__(self, host: str, port: int, monitor: Source, metrics: Callable[[], bytes]) -> None:
        self.host, self.port = host, port
        self.streams = 0  # open now
        self._monitor, self._metrics = monitor, metrics
        self._hosts = {"localhost", "127.0.0.1", "[::1]", host.lower(), f"[{host.lower()}]"}
        self._assets = {path: _own(*file) for path, file in PAGE.items()}
        self._plotly_lock = asyncio.Lock()
        self._status: tuple[float, str, bytes] = (float("-inf"), "", b"")
        self._surface: tuple[float, bytes] = (float("-inf"), b"")
        self._stopping = asyncio.Event()
        app = web.Application(middlewares=[self._guard])
        for path in (*PAGE, "/plotly.js"):
            app.router.add_get(path, self._file)
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/status", self._get_status)
        app.router.add_get("/surface", self._get_surface)
        app.router.add_get("/decision", self._get_decision)
        app.router.add_get("/events", self._get_events)
        app.on_response_prepare.append(_protect)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, keepalive_timeout=30.0, shutdown_timeout=0.5
        )
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(self._accept, self.host, self.port, reuse_address=True)
        except OSError as error:
            await self._runner.cleanup()
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(f"http.port: {self.port} is in use") from error
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else "no such address"
            raise ConfigError(f"http.host: cannot listen on {self.host}: {why}") from error
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    # --- who may speak ----------------------------------------------------------------------------

    def _accept(self) -> asyncio.BaseProtocol:
        """A handler for one more connection, or the door."""
        server = self._runner.server
        if server is None or len(server.connections) >= CONNECTIONS_MAX:
            return _Door()
        return server()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse what is not a plain read of this host; drop whoever does not take the reply."""
        if not self._is_ours(request.headers.getall("Host", [])):
            raise web.HTTPForbidden(text="this host is not served here\n")
        if request.method not in {"GET", "HEAD"}:
            raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"], text="read only\n")
        try:
            async with asyncio.timeout(None if request.path == "/events" else REPLY_S):
                response = await handler(request)
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            response = web.Response()
            if request.transport is not None:
                request.transport.abort()
        return response

    def _is_ours(self, hosts: list[str]) -> bool:
        """Another name that resolves to loopback is a page of someone else's (DNS rebinding)."""
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        return match is not None and match[1].lower() in self._hosts

    # --- files ------------------------------------------------------------------------------------

    async def _file(self, request: web.Request) -> web.StreamResponse:
        asset = self._assets.get(request.path) or await self._plotly()
        headers = {"Content-Type": asset.content_type, "Cache-Control": asset.cache, "ETag": asset.etag}
        headers["Vary"] = "Accept-Encoding"
        if request.headers.get("If-None-Match") == asset.etag:
            del headers["Content-Type"]
            return web.Response(status=304, headers=headers)
        body = asset.zipped
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
        else:
            body = await asyncio.to_thread(gzip.decompress, body)
        response = web.StreamResponse(headers=headers)
        response.content_length = len(body)
        await response.prepare(request)
        for piece in _pieces(body) if request.method == "GET" else ():
            await response.write(piece)
        return response

    async def _plotly(self) -> Asset:
        """Plotly's own JavaScript, read and compressed in a thread for the first who asks."""
        async with self._plotly_lock:
            if "/plotly.js" not in self._assets:
                self._assets["/plotly.js"] = await asyncio.to_thread(_read_plotly)
            return self._assets["/plotly.js"]

    # --- data -------------------------------------------------------------------------------------

    async def _get_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": METRICS})

    async def _get_status(self, request: web.Request) -> web.Response:
        return web.Response(body=self._fresh_status()[1], content_type=JSON)

    async def _get_surface(self, request: web.Request) -> web.Response:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._surface[0] >= SURFACE_KEPT_S:
            self._surface = (now_s, msgspec.json.encode(self._monitor.surface()))
        return web.Response(body=self._surface[1], content_type=JSON)

    async def _get_decision(self, request: web.Request) -> web.Response:
        """One record in full; without `seq` the last one."""
        seq = request.query.get("seq", "last")
        if seq != "last" and _SEQ.fullmatch(seq) is None:
            raise web.HTTPBadRequest(text="seq: a decision's number, or last\n")
        record = self._monitor.decision(None if seq == "last" else int(seq))
        if record is None:
            raise web.HTTPNotFound(text=f"decision {seq} is not known\n")
        return web.Response(body=msgspec.json.encode(record), content_type=JSON)

    def _fresh_status(self) -> tuple[str, bytes]:
        """The run's id, and the status as JSON."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._status[0] >= STATUS_KEPT_S:
            status = self._monitor.status()
            self._status = (now_s, str(status["run_id"]), msgspec.json.encode(status))
        return self._status[1:]

    # --- the stream -------------------------------------------------------------------------------

    async def _get_events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the past after Last-Event-ID (or `after`), then what is new, once a second."""
        if self.streams >= STREAMS_MAX:
            raise web.HTTPServiceUnavailable(text=f"{STREAMS_MAX} pages are open\n", headers={"Retry-After": "5"})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        if request.method == "HEAD":
            return response
        last_id = request.headers.get("Last-Event-ID") or request.query.get("after", "")
        self.streams += 1
        try:
            _shrink(request.transport)
            await response.prepare(request)
            await self._tell(response, Cursor.after(last_id))
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        finally:
            self.streams -= 1
        return response

    async def _tell(self, response: web.StreamResponse, cursor: Cursor) -> None:
        """Until the client leaves or the server stops. Raises TimeoutError where nobody reads."""
        await response.write(b"retry: %d\n\n" % RETRY_MS)
        while not self._stopping.is_set():
            for batch in self._news(cursor):
                for piece in _pieces(batch):
                    async with asyncio.timeout(SEND_S):
                        await response.write(piece)
                await asyncio.sleep(0)  # the past of an hour is not encoded at one go
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), EVERY_S)

    def _news(self, cursor: Cursor) -> Iterator[bytes]:
        """What came since the cursor, as batches of events; moves the cursor.

        Points come last and alone carry an id, so that an id acknowledges the decisions and fills before it.
        """
        run, status = self._fresh_status()
        if cursor.run != run:
            cursor.run, cursor.point, cursor.decision, cursor.fill = run, 0, 0, 0
        decisions = self._monitor.decisions(cursor.decision)
        fills = self._monitor.fills(cursor.fill)
        points = self._monitor.points(cursor.point)
        cursor.decision = decisions[-1]["seq"] if decisions else cursor.decision
        cursor.fill = fills[-1]["n"] if fills else cursor.fill
        cursor.point = points[-1]["seq"] if points else cursor.point
        yield b"event: status\ndata: " + status + b"\n\n"
        yield from _batches("decision", (_summary(record) for record in decisions))
        yield from _batches("fill", fills)
        yield from _batches("point", points, lambda point: f"id: {run}/{point['seq']}/{cursor.fill}\n")


class _Door(asyncio.Protocol):
    """Shown to connections that are one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()


async def _protect(request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every reply, refusals too."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")


def _own(name: str, content_type: str) -> Asset:
    return Asset.of((files("dea_daemon.shell") / "webpage" / name).read_bytes(), content_type, "no-cache")


def _read_plotly() -> Asset:
    """The file is found without importing the package, which would take a second."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise web.HTTPNotFound(text="plotly is not installed\n")
    body = (Path(spec.origin).parent / "package_data" / "plotly.min.js").read_bytes()
    return Asset.of(body, "text/javascript; charset=utf-8", "public, max-age=86400")


def _shrink(transport: asyncio.Transport | None) -> None:
    """Little may wait in the kernel for a reader that may be gone."""
    raw = None if transport is None else transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)


def _pieces(body: bytes) -> Iterator[bytes]:
    return (body[i : i + PIECE] for i in range(0, len(body), PIECE))


def _batches(
    name: str, items: Iterable[dict[str, Any]], last_id: Callable[[dict[str, Any]], str] = lambda item: ""
) -> Iterator[bytes]:
    """Events in the wire's form, BATCH of them at a time. JSON has no line break outside its strings' escapes."""
    batch: list[bytes] = []
    for item in items:
        batch.append(f"event: {name}\n{last_id(item)}data: ".encode() + msgspec.json.encode(item) + b"\n\n")
        if len(batch) >= BATCH:
            yield b"".join(batch)
            batch.clear()
    if batch:
        yield b"".join(batch)


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    """A decision as the list shows it; the page asks for the rest on a click."""
    return {name: record[name] for name in ("seq", "utc_ns", "cause", "mode", "clips", "orders", "notes")}
