"""The venue socket against servers that behave, misbehave, and go silent. Loopback only."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from dea_daemon.domain.errors import RateLimited, VenueError
from dea_daemon.domain.events import AnyEvent, BookSnapshot, FeedClosed, FeedOpened, MessageRefused, QuoteUpdated
from dea_daemon.feeds.binance import Binance
from dea_daemon.feeds.codec import Codec
from dea_daemon.feeds.deribit import Deribit
from dea_daemon.shell.snapshots import HttpFetch
from dea_daemon.shell.sockets import SocketLimits, VenueSocket
from tests.feeds.test_binance_codec import UNIVERSE as BINANCE
from tests.feeds.test_deribit_codec import UNIVERSE as DERIBIT
from tests.feeds.test_deribit_codec import chain, option

Handler = Callable[[ServerConnection], Awaitable[None]]
QUICK = SocketLimits(backoff_min_s=0.02, backoff_max_s=0.1, healthy_s=10.0, ready_s=1.0, idle_s=0.5)
TICKER = json.dumps(
    {"stream": "x", "data": {"e": "bookTicker", "s": "BTCUSDT", "b": "1", "B": "2", "a": "3", "A": "4", "T": 5}}
)


async def happens(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 the code under test has no event to wait for
            await asyncio.sleep(0.005)


class Heard:
    """What the socket emitted, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[AnyEvent] = []

    def __call__(self, events: list[AnyEvent]) -> None:
        self.events += events

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    async def until(self, kind: type, count: int = 1, within_s: float = 5.0) -> None:
        await happens(lambda: self.count(kind) >= count, within_s)


@contextlib.asynccontextmanager
async def venue(handler: Handler, **options: Any) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, compression=None, close_timeout=0.2, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/stream"


@contextlib.asynccontextmanager
async def running(url: str, codec: Codec | None = None, **options: Any) -> AsyncIterator[tuple[VenueSocket, Heard]]:
    heard = Heard()
    socket = VenueSocket(
        url,
        codec or Binance(BINANCE, 0),
        heard,
        now_ns=time.monotonic_ns,
        utc_ms=lambda: 1_700_000_000_000,
        rng=random.Random(7),
        **({"limits": QUICK} | options),
    )
    task = asyncio.create_task(socket.run())
    try:
        yield socket, heard
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def confirm(connection: ServerConnection) -> dict[str, Any]:
    """Read SUBSCRIBE and answer it."""
    request: dict[str, Any] = json.loads(await connection.recv())
    await connection.send(json.dumps({"result": None, "id": request["id"]}))
    return request


async def polite(connection: ServerConnection) -> None:
    await confirm(connection)
    await connection.send(TICKER)
    await connection.wait_closed()


async def test_it_subscribes_in_text_decodes_and_stamps_receipt():
    frames = []

    async def handler(connection: ServerConnection) -> None:
        frames.append(await connection.recv())
        await connection.send('{"result":null,"id":1}')
        await connection.send(TICKER)
        await connection.wait_closed()

    before_ns = time.monotonic_ns()
    async with venue(handler) as url, running(url) as (socket, heard):
        await heard.until(QuoteUpdated)
        assert socket.ready
        assert (socket.health.messages, socket.health.connects) == (2, 1)
    assert isinstance(frames[0], str)
    opened, quote, closed = heard.events
    assert isinstance(opened, FeedOpened)
    assert before_ns < quote.ts_recv_ns < time.monotonic_ns()
    assert closed == FeedClosed(closed.ts_recv_ns, "binanceusdm", 0, False, (0, 1), "stopped")
    assert not socket.ready


async def test_a_server_that_accepts_and_closes_is_not_spun_upon():
    async def handler(connection: ServerConnection) -> None:
        await connection.close()

    async with venue(handler) as url, running(url, limits=SocketLimits()) as (socket, heard):
        await asyncio.sleep(2.0)
        assert 2 <= socket.health.connects < 10
        assert heard.count(FeedClosed) >= 2


async def test_a_connection_that_was_healthy_starts_the_backoff_afresh():
    async def handler(connection: ServerConnection) -> None:
        await confirm(connection)
        await asyncio.sleep(0.1)

    limits = SocketLimits(backoff_min_s=0.02, backoff_max_s=30.0, healthy_s=0.05)
    async with venue(handler) as url, running(url, limits=limits) as (_, heard):
        await heard.until(FeedOpened, 8, within_s=3.0)  # doubling would have taken four seconds by now


@pytest.mark.parametrize("status", [HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.FORBIDDEN, HTTPStatus.BAD_GATEWAY])
async def test_a_refused_handshake_is_tried_again_later(status):
    refusals = []

    def refuse(connection: ServerConnection, request: Request) -> Response | None:
        refusals.append(status)
        return connection.respond(status, "not now\n") if len(refusals) <= 2 else None

    async with venue(polite, process_request=refuse) as url, running(url) as (_, heard):
        await heard.until(FeedOpened)
    first = heard.events[0]
    assert isinstance(first, FeedClosed)
    assert str(status.value) in first.why


async def test_the_time_a_refusal_asks_for_is_given():
    arrivals = []

    def refuse(connection: ServerConnection, request: Request) -> Response:
        arrivals.append(time.monotonic())
        response = connection.respond(HTTPStatus.TOO_MANY_REQUESTS, "slow down\n")
        response.headers["Retry-After"] = "1"
        return response

    async with venue(polite, process_request=refuse) as url, running(url):
        await happens(lambda: len(arrivals) == 2)
    assert arrivals[1] - arrivals[0] >= 1.0


async def test_a_venue_that_is_not_there_is_tried_again_without_spinning():
    async with running("ws://127.0.0.1:1/", limits=SocketLimits()) as (socket, heard):
        await asyncio.sleep(1.0)
        assert 2 <= socket.health.connects < 6
        assert "Connect" in socket.health.last_error or "OSError" in socket.health.last_error
    assert heard.count(FeedClosed) >= 2


async def test_a_half_open_connection_is_noticed_within_the_bound():
    """A server that stops reading and writing altogether: no close, no pong."""
    stalled, over = asyncio.Event(), asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        await confirm(connection)
        connection.transport.pause_reading()
        stalled.set()
        await over.wait()

    async with venue(handler) as url, running(url) as (_, heard):
        await stalled.wait()
        began = time.monotonic()
        await heard.until(FeedClosed, within_s=3.0)
        assert time.monotonic() - began < 2 * QUICK.idle_s
        over.set()


async def test_a_venue_that_never_confirms_is_left():
    async def handler(connection: ServerConnection) -> None:
        while True:
            await connection.send(TICKER)  # alive, but what we asked for was never granted
            await asyncio.sleep(0.05)

    async with venue(handler) as url, running(url) as (socket, heard):
        await heard.until(FeedClosed, within_s=3.0)
        assert not socket.ready


async def test_garbage_is_counted_and_the_rest_goes_on():
    async def handler(connection: ServerConnection) -> None:
        await confirm(connection)
        for frame in ("{", b"\xff\xfe", "[]", TICKER):
            await connection.send(frame)
        await connection.wait_closed()

    async with venue(handler) as url, running(url) as (socket, heard):
        await heard.until(QuoteUpdated)
        assert heard.count(MessageRefused) == socket.health.refused == 3
        assert socket.health.connects == 1


async def test_a_message_without_end_costs_the_connection_and_not_the_process():
    async def handler(connection: ServerConnection) -> None:
        await confirm(connection)
        await connection.send("x" * (2**23 + 1))
        await connection.wait_closed()

    async with venue(handler, max_size=None) as url, running(url) as (_, heard):
        await heard.until(FeedOpened, 2)
        assert heard.count(FeedClosed) >= 1


async def test_a_flood_leaves_room_for_others():
    async def handler(connection: ServerConnection) -> None:
        await confirm(connection)
        for _ in range(5_000):
            await connection.send(TICKER)
        await connection.wait_closed()

    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with venue(handler) as url, running(url) as (_, heard):
        await heard.until(FeedOpened)
        task = asyncio.create_task(other())
        await heard.until(QuoteUpdated, 5_000)
        task.cancel()
    assert turns > 5_000 / 64


# --- Deribit ----------------------------------------------------------------------------------------


async def test_an_authenticated_socket_subscribes_after_the_venue_agrees_and_answers_its_tests():
    said: list[dict[str, Any]] = []

    async def handler(connection: ServerConnection) -> None:
        async for frame in connection:
            request = json.loads(frame)
            said.append(request)
            result: Any = "ok"
            if request["method"] == "public/auth":
                result = {"access_token": "a"}
            elif request["method"] == "private/subscribe":
                result = request["params"]["channels"]
            await connection.send(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}))
            if request["method"] == "private/subscribe":
                await connection.send('{"method":"heartbeat","params":{"type":"test_request"}}')

    codec = Deribit(DERIBIT, 0, private=True, client_id="id", client_secret="secret")
    async with venue(handler) as url, running(url, codec) as (_, heard):
        await heard.until(FeedOpened)
        await happens(lambda: len(said) == 4)
    methods = ["public/set_heartbeat", "public/auth", "private/subscribe", "public/test"]
    assert [request["method"] for request in said] == methods


async def test_a_fresh_book_is_asked_for_on_the_stream():
    said: list[str] = []

    async def handler(connection: ServerConnection) -> None:
        async for frame in connection:
            request = json.loads(frame)
            said.append(request["method"])
            answer = {"id": request["id"], "result": request["params"].get("channels", "ok")}
            await connection.send(json.dumps(answer))

    async with venue(handler) as url, running(url, Deribit(DERIBIT, 0)) as (socket, heard):
        assert not await socket.resubscribe(0)  # not connected yet
        await heard.until(FeedOpened)
        assert await socket.resubscribe(0)
        await happens(lambda: len(said) == 5)
    assert said[2:] == ["public/status", "public/unsubscribe", "public/subscribe"]


# --- books over HTTP --------------------------------------------------------------------------------

BOOK = b'{"lastUpdateId":12,"E":3,"T":2,"bids":[["99.5","1"]],"asks":[]}'


@contextlib.asynccontextmanager
async def http(respond: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[HttpFetch]:
    app = web.Application()
    app.router.add_get("/fapi/v1/depth", respond)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with aiohttp.ClientSession() as session:
            yield HttpFetch(session, f"http://127.0.0.1:{port}/", timeout_s=0.5)
    finally:
        await runner.cleanup()


async def test_a_book_over_http_is_emitted_once_however_often_it_is_asked_for():
    asked = []

    async def respond(request: web.Request) -> web.Response:
        asked.append(request.query_string)
        await asyncio.sleep(0.1)
        return web.Response(body=BOOK)

    async with http(respond) as fetch, venue(polite) as url, running(url, fetch=fetch) as (socket, heard):
        await heard.until(FeedOpened)
        answers = await asyncio.gather(*(socket.resubscribe(0) for _ in range(5)))
        assert answers == [True, False, False, False, False]
        assert asked == ["symbol=BTCUSDT&limit=1000"]
        (book,) = [event for event in heard.events if isinstance(event, BookSnapshot)]
        assert (book.row, book.sequence) == (0, 12)


async def test_a_book_that_arrives_after_its_stream_is_gone_is_dropped():
    leave = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        await confirm(connection)
        await leave.wait()

    async def respond(request: web.Request) -> web.Response:
        leave.set()
        await asyncio.sleep(0.2)
        return web.Response(body=BOOK)

    slow = SocketLimits(backoff_min_s=5.0)
    async with http(respond) as fetch, venue(handler) as url, running(url, fetch=fetch, limits=slow) as (socket, heard):
        await heard.until(FeedOpened)
        assert not await socket.resubscribe(0)
        assert heard.count(BookSnapshot) == 0


async def test_a_failed_fetch_is_a_no_and_not_an_exception():
    async def respond(request: web.Request) -> web.Response:
        return web.Response(status=500, text="oops")

    async with http(respond) as fetch, venue(polite) as url, running(url, fetch=fetch) as (socket, heard):
        await heard.until(FeedOpened)
        assert not await socket.resubscribe(0)
        assert "500" in socket.health.last_error


async def test_a_ban_is_kept_until_its_end_without_asking_again():
    asked = []

    async def respond(request: web.Request) -> web.Response:
        asked.append(1)
        if len(asked) == 1:
            return web.Response(status=429, headers={"Retry-After": "0.3"})
        return web.Response(body=BOOK)

    async with http(respond) as fetch:
        with pytest.raises(VenueError):
            await fetch("/fapi/v1/depth")
        with pytest.raises(RateLimited):
            await fetch("/fapi/v1/depth")
        assert len(asked) == 1
        await asyncio.sleep(0.35)
        assert await fetch("/fapi/v1/depth") == BOOK


async def test_a_venue_that_hangs_is_not_waited_for():
    async def respond(request: web.Request) -> web.Response:
        await asyncio.sleep(0.7)
        return web.Response(body=BOOK)

    async with http(respond) as fetch:
        with pytest.raises(VenueError, match="TimeoutError"):
            await fetch("/fapi/v1/depth")


# --- contracts that join --------------------------------------------------------------------------------


async def test_contracts_that_join_are_subscribed_to_on_the_open_connection():
    universe = chain(1)
    asked: list[list[str]] = []

    async def handler(connection: ServerConnection) -> None:
        async for raw in connection:
            request = json.loads(raw)
            if "channels" in request["params"]:
                asked.append(request["params"]["channels"])
                await connection.send(json.dumps({"id": request["id"], "result": asked[-1]}))

    async with venue(handler) as url, running(url, Deribit(universe, 0)) as (socket, heard):
        await heard.until(FeedOpened)
        universe.extend(((0, option(99_000)),))
        await socket.join((2,))
        await heard.until(FeedOpened, 2)
        assert asked[1:] == [["ticker.BTC-27MAR26-99000-C.100ms"]]
        assert [event.rows for event in heard.events if isinstance(event, FeedOpened)] == [(0, 1), (2,)]


async def test_contracts_that_join_while_there_is_no_connection_are_asked_for_with_the_rest():
    universe, asked = chain(1), asyncio.get_running_loop().create_future()

    async def handler(connection: ServerConnection) -> None:
        async for raw in connection:
            request = json.loads(raw)
            if "channels" in request["params"]:
                asked.set_result(request["params"]["channels"])

    async with venue(handler) as url, running(url, Deribit(universe, 0)) as (socket, _):
        universe.extend(((0, option(99_000)),))
        await socket.join((2,))
        assert "ticker.BTC-27MAR26-99000-C.100ms" in await asyncio.wait_for(asked, 5)
