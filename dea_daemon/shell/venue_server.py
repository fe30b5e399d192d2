"""The simulated venue on a loopback port: HTTP and websocket around the pure dialect.

One task runs the market, one more a websocket. A client that reads too slowly is dropped, never buffered
without bound. Faults of the wire are made here, as the plan says.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec
import numpy as np
from aiohttp import WSMsgType, web

from dea_daemon.domain.errors import ConfigError, check
from dea_daemon.shell.clock import Clock
from dea_daemon.shell.factor_server import FactorPages
from dea_daemon.simvenue.deribit import Deribit, Reply, Session
from dea_daemon.simvenue.faults import Fault, FaultPlan

HOST = "127.0.0.1"
API = "/api/v2"
TICK_S = 0.025
FRAME_MAX = 32 * 1024  # of a request, as the venue has it
QUEUE_MAX = 4_096  # frames a client may be behind
GOODBYE_S = 1.0
INFLIGHT_MAX = 1_024  # requests of one connection not yet answered
HTML = b"<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>"
_LOOPBACK = ("127.0.0.1", "localhost")


class Dropped(Exception):
    """A fault: the connection ends without a reply."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes on the wire."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"


@dataclass(eq=False, slots=True)
class Connection:
    """A websocket: its session, and the bounded queue its writer empties."""

    session: Session
    socket: web.WebSocketResponse
    request: web.Request
    queue: asyncio.Queue[bytes]
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def send(self, frames: list[bytes]) -> bool:
        """Queue frames; False when the client is too far behind."""
        try:
            for frame in frames:
                self.queue.put_nowait(frame)
        except asyncio.QueueFull:
            return False
        return True

    def abort(self) -> None:
        """End the TCP connection without ceremony."""
        if self.request.transport is not None:
            self.request.transport.abort()


class VenueServer:
    """Serve a Deribit dialect. `async with VenueServer(...)`, or start and stop."""

    def __init__(
        self,
        venue: Deribit,
        *,
        faults: FaultPlan | None = None,
        log: Path | None = None,
        latency_ms: float = 0.0,
        latency_jitter_ms: float = 0.0,
        seed: int = 0,
        port: int = 0,
        queue_max: int = QUEUE_MAX,
        clock: Callable[[], int] | None = None,
    ) -> None:
        """Requests reach the venue after latency plus or minus jitter (ms), drawn from the seed."""
        self.venue = venue
        self.faults = faults or FaultPlan()
        self.port = port
        self._now_ns = clock or Clock().now_ns
        self._log_path = log
        self._log: IO[bytes] | None = None
        self._latency_ms, self._jitter_ms = latency_ms, latency_jitter_ms
        self._random = np.random.default_rng(seed)
        self._queue_max = queue_max
        self._connections: dict[Session, Connection] = {}
        self._underway: set[asyncio.Task[Reply]] = set()
        self._runner: web.AppRunner | None = None
        self._market: asyncio.Task[None] | None = None

    @property
    def http_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://{HOST}:{self.port}/ws{API}"

    async def start(self) -> None:
        """Listen. Raises ConfigError where the port is taken or the log cannot be written."""
        try:
            if self._log_path is not None:
                self._log = self._log_path.open("ab")
        except OSError as error:
            raise ConfigError(f"venue log {self._log_path}: {error.strerror}") from error
        app = web.Application(client_max_size=FRAME_MAX, middlewares=[_loopback_only])
        app.router.add_get(f"/ws{API}", self._websocket)
        app.router.add_get(API + "/{method:.+}", self._http_get)
        app.router.add_post(API + "/{method:.*}", self._http_post)
        app.router.add_post(API, self._http_post)
        FactorPages(self._now_ns, befalls=self.faults.on_page).mount(app)
        # a handler that hangs by a fault ends when its client leaves
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, self.port, reuse_address=True).start()
        except OSError as error:
            await self.stop()
            raise ConfigError(f"cannot listen on {HOST}:{self.port}: {os.strerror(error.errno or 0)}") from error
        self.port = self._runner.addresses[0][1]
        self._market = asyncio.create_task(self._run_market(), name="venue market")
        self._market.add_done_callback(_report)

    async def stop(self) -> None:
        """Close every connection and the log."""
        if self._market is not None:
            self._market.cancel()
            await asyncio.wait([self._market])
        for task in list(self._underway):
            task.cancel()
        for connection in list(self._connections.values()):
            connection.abort()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._log is not None:
            self._log.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def wait(self) -> None:
        """Until the market task fails or is cancelled."""
        check(self._market is not None, "the server was not started")
        if self._market is not None:
            await self._market

    # --- the market, and who is told ------------------------------------------------------------------

    async def _run_market(self) -> None:
        while True:
            self.venue.advance(self._now_ns())
            self._flush()
            await asyncio.sleep(TICK_S)

    def _flush(self) -> None:
        """Write the witness's lines, then hand each connection its frames."""
        journal = self.venue.take_journal()
        if self._log is not None and journal:
            self._log.write(b"".join(msgspec.json.encode(line) + b"\n" for line in journal))
            self._log.flush()
        for session, connection in list(self._connections.items()):
            if session.outbox and not connection.send(session.take()):
                self._forget(connection)
                connection.abort()  # the reader ends, and cleans up
            elif session.closing:
                self._forget(connection)
                self._spawn(connection, self._say_goodbye(connection))

    def _handle(self, session: Session, request: Any) -> Reply:
        """Run a request; its witness lines are written before anyone hears of it."""
        reply = self.venue.handle(session, request, self._now_ns())
        self._flush()
        return reply

    # --- faults ---------------------------------------------------------------------------------------

    async def _answer(self, session: Session, request: Any, fault: Fault | None, delay_s: float = 0.0) -> Answer:
        """The reply, or what a fault makes of it. Raises Dropped."""
        action, fault_s = (fault.action, fault.ms / 1_000) if fault else ("", 0.0)
        if action == "hang_before":
            await asyncio.Event().wait()
        if action == "drop_before":
            raise Dropped
        if action == "rate_limited":
            return _plain(self.venue.refuse(request, 10028, self._now_ns()))
        reply = await self._later(session, request, delay_s + (fault_s if action == "late" else 0.0))
        if action == "slow":
            await asyncio.sleep(fault_s)
        if action == "hang_after":
            await asyncio.Event().wait()
        if action == "drop_after":
            raise Dropped
        return _spoilt(_plain(reply), action)

    async def _later(self, session: Session, request: Any, delay_s: float) -> Reply:
        """Run a request after a while, whether or not the client still waits for it: it was sent."""

        async def run() -> Reply:
            await asyncio.sleep(delay_s)
            return self._handle(session, request)

        task = asyncio.create_task(run())
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)
        return await asyncio.shield(task)

    def _delay_s(self) -> float:
        return max(self._latency_ms + self._jitter_ms * self._random.uniform(-1.0, 1.0), 0.0) / 1_000

    # --- HTTP -----------------------------------------------------------------------------------------

    async def _http_get(self, request: web.Request) -> web.StreamResponse:
        return await self._http(request, {"method": request.match_info["method"], "params": dict(request.query)}, "")

    async def _http_post(self, request: web.Request) -> web.StreamResponse:
        try:
            text = await request.text()
            body = msgspec.json.decode(text)
        except web.HTTPRequestEntityTooLarge:
            return _response(_plain(self.venue.refuse({}, -32600, self._now_ns())))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _response(_plain(self.venue.refuse({}, -32700, self._now_ns())))
        if isinstance(body, dict) and request.match_info.get("method"):
            body.setdefault("method", request.match_info["method"])
        return await self._http(request, body, text)

    async def _http(self, request: web.Request, call: Any, body: str) -> web.StreamResponse:
        session = self.venue.open(websocket=False)
        header = request.headers.get("Authorization")
        if header is not None:
            refused = self.venue.authorise(session, header, request.method, request.raw_path, body, self._now_ns())
            if refused is not None:
                return _response(_plain(refused))
        try:
            answer = await self._answer(session, call, self.faults.on_call(_method(call)), self._delay_s())
        except Dropped:
            return _cut(request)
        response = _response(answer)
        if session.closing:
            response.force_close()
        return response

    # --- websocket --------------------------------------------------------------------------------------

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=FRAME_MAX, compress=False, timeout=1.0)
        await socket.prepare(request)
        session = self.venue.open(websocket=True)
        connection = Connection(session, socket, request, asyncio.Queue(self._queue_max))
        self._connections[session] = connection
        self._spawn(connection, self._write(connection))
        try:
            await self._read(connection)
        finally:
            self._forget(connection)
            for task in connection.tasks:
                task.cancel()
            self.venue.close(session, self._now_ns())
            self._flush()
        return socket

    async def _read(self, connection: Connection) -> None:
        """Requests in order, each when its latency is over; replies as they come."""
        inbox: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(INFLIGHT_MAX)
        self._spawn(connection, self._serve(connection, inbox))
        loop = asyncio.get_running_loop()
        async for message in connection.socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                data = message.data.encode() if isinstance(message.data, str) else message.data
                await inbox.put((loop.time() + self._delay_s(), data))

    async def _serve(self, connection: Connection, inbox: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await inbox.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            try:
                request = msgspec.json.decode(data)
            except msgspec.DecodeError:
                self._reply(connection, self.venue.refuse({}, -32700, self._now_ns()).encoded())
                continue
            fault = self.faults.on_call(_method(request))
            if fault is None:
                self._reply(connection, self.venue.handle(connection.session, request, self._now_ns()).encoded())
            elif len(connection.tasks) < INFLIGHT_MAX:
                self._spawn(connection, self._serve_faulty(connection, request, fault))

    def _reply(self, connection: Connection, body: bytes) -> None:
        """A reply goes ahead of the notifications its request gave rise to."""
        connection.session.outbox.insert(0, body)
        self._flush()

    async def _serve_faulty(self, connection: Connection, request: Any, fault: Fault) -> None:
        try:
            answer = await self._answer(connection.session, request, fault)
        except Dropped:
            connection.abort()
            return
        self._reply(connection, answer.body)

    async def _write(self, connection: Connection) -> None:
        with suppress(ConnectionError):  # the reader sees the end too
            while True:
                await connection.socket.send_frame(await connection.queue.get(), WSMsgType.TEXT)
                connection.queue.task_done()

    async def _say_goodbye(self, connection: Connection) -> None:
        """Close in good order, after what was still to be said."""
        with suppress(TimeoutError):
            await asyncio.wait_for(connection.queue.join(), GOODBYE_S)
        await connection.socket.close(message=connection.session.closing.encode())

    def _spawn(self, connection: Connection, work: Coroutine[Any, Any, None]) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            connection.tasks.discard(task)
            if _report(task):
                connection.abort()  # a connection that serves no more must not look alive

        task = asyncio.create_task(work)
        connection.tasks.add(task)
        task.add_done_callback(ended)

    def _forget(self, connection: Connection) -> None:
        self._connections.pop(connection.session, None)


def _report(task: asyncio.Task[None]) -> bool:
    """Tell the loop of a task that failed, whoever awaits it; whether it did."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        task.get_loop().call_exception_handler({"message": f"{task.get_name()} failed", "exception": error})
    return error is not None


def _method(request: Any) -> str:
    method = request.get("method") if isinstance(request, dict) else None
    return method if isinstance(method, str) else ""


def _plain(reply: Reply) -> Answer:
    return Answer(reply.encoded(), reply.status)


def _spoilt(answer: Answer, action: str) -> Answer:
    """The reply as a fault leaves it."""
    match action:
        case "http_500_after":
            return Answer(b"internal server error", 500, "text/plain")
        case "html":
            return Answer(HTML, 200, "text/html")
        case "truncated":
            return Answer(answer.body[: len(answer.body) // 2], answer.status)
        case "null_body":
            return Answer(b"null", answer.status)
    return answer


def _response(answer: Answer) -> web.Response:
    return web.Response(body=answer.body, status=answer.status, content_type=answer.content_type)


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


@web.middleware
async def _loopback_only(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    """Refuse names that merely resolve to loopback: a browser's page must not trade here."""
    if request.url.host not in _LOOPBACK:
        raise web.HTTPForbidden(text="loopback only")
    response: web.StreamResponse = await handler(request)
    return response
