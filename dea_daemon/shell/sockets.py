"""A venue's websocket, kept open: connect, subscribe, decode at once, hand on, reconnect without spinning.

No policy about books or trading is here: a broken connection is told as FeedClosed, and when to ask for a
book again is the core's decision (`resubscribe`).
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from dea_daemon.domain.errors import VenueError
from dea_daemon.domain.events import AnyEvent, BookSnapshot, FeedClosed, MessageRefused
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.feeds.codec import Codec
from dea_daemon.shell.socket_health import SocketHealth

Fetch = Callable[[str], Awaitable[bytes]]  # path and query in, body out; VenueError or OSError where it fails

MESSAGE_BYTES_MAX = 2**23


class Tap(Protocol):
    """What a recorder wants of a socket: each message as it came, each that was sent, each connection. Must not
    block. Times are ns of the receipt clock."""

    def __call__(self, raw: bytes | str, ts_recv_ns: int) -> None: ...
    def sent(self, url: str, message: bytes, ts_ns: int) -> None: ...
    def connected(self, url: str, ts_ns: int) -> None: ...


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Seconds. A connection that was ready for `healthy_s` starts the backoff afresh; one that is not ready
    after `ready_s`, or silent for `idle_s` (venue heartbeats come every 10), is cut."""

    backoff_min_s: float = 0.25
    backoff_max_s: float = 30.0
    healthy_s: float = 10.0
    open_s: float = 5.0
    ready_s: float = 10.0
    idle_s: float = 25.0
    ping_s: float = 10.0
    heartbeat_s: float = 15.0  # a codec's own heartbeat is sent so often


class VenueSocket:
    """One websocket connection of one codec.

    `emit` takes the events of one message and must not block. `now_ns` stamps receipt (UTC at start plus
    monotonic), `utc_ms` signs. `rng` jitters the backoff. `fetch` gets a path over HTTP, for venues whose books
    need it. `tap` is told everything that passes.
    """

    def __init__(
        self,
        url: str,
        codec: Codec,
        emit: Callable[[list[AnyEvent]], None],
        *,
        now_ns: Callable[[], int],
        utc_ms: Callable[[], int],
        rng: random.Random,
        fetch: Fetch | None = None,
        limits: SocketLimits | None = None,
        tap: Tap | None = None,
    ) -> None:
        self.url = url
        self.codec = codec
        self.health = SocketHealth()
        self._emit = emit
        self._now_ns = now_ns
        self._utc_ms = utc_ms
        self._rng = rng
        self._fetch = fetch
        self._limits = limits or SocketLimits()
        self._tap = tap
        self._connection: ClientConnection | None = None
        self._fetching: set[int] = set()  # rows whose book is on its way over HTTP
        self._booked: set[int] = set()  # rows whose book came on this connection
        self._healthy = False  # the last connection earned a fresh backoff

    @property
    def ready(self) -> bool:
        """Connected, and the venue confirmed the subscriptions."""
        return self._connection is not None and self.codec.ready

    def health_line(self, now_ns: int) -> dict[str, Any]:
        """The socket's health as JSON; see SocketHealth.line for units."""
        codec = self.codec
        return {"feed": codec.feed, "private": codec.private, "ready": self.ready, **self.health.line(now_ns)}

    async def run(self) -> None:
        """Keep the socket open until cancelled. Raises only what `emit` raises."""
        failures = 0
        while True:
            self._healthy = False
            wait_s, why = 0.0, "stopped"
            try:
                await self._session()
            except (OSError, WebSocketException) as error:
                wait_s, why = _retry_after_s(error), f"{type(error).__name__}: {error}"
            finally:
                self.health.last_error = why
                codec = self.codec
                closed = FeedClosed(self._now_ns(), codec.feed, codec.account, codec.private, codec.rows, why)
                self._emit([closed])
            failures = 0 if self._healthy else failures + 1
            await asyncio.sleep(max(wait_s, self._backoff_s(failures)))

    async def resubscribe(self, row: int) -> bool:
        """Bring a fresh snapshot of one row's book; False if it cannot be asked for now.

        By the stream where the venue sends one, else over HTTP: then the book is emitted before this returns.
        """
        connection = self._connection
        if connection is None or row in self._fetching:
            return False
        if row in self._booked:  # asked for again, not for the first time
            self._booked.discard(row)
            self.health.gaps += 1
        path = self.codec.snapshot_path(row)
        try:
            if path is not None and self._fetch is not None:
                return await self._fetch_book(row, path, self._fetch)
            messages = self.codec.resubscribe(row)
            for message in messages:
                await self._send(connection, message)
            return bool(messages)
        except (OSError, VenueError, WebSocketException) as error:
            self.health.last_error = f"{type(error).__name__}: {error}"
            return False

    async def join(self, rows: tuple[int, ...]) -> None:
        """Subscribe to contracts listed later. One that is not connected, or breaks now, does so when it connects."""
        messages, connection = self.codec.join(rows), self._connection
        if connection is None:
            return
        try:
            for message in messages:
                await self._send(connection, message)
        except (OSError, WebSocketException) as error:
            self.health.last_error = f"{type(error).__name__}: {error}"

    async def _fetch_book(self, row: int, path: str, fetch: Fetch) -> bool:
        connection = self._connection
        self._fetching.add(row)
        try:
            body = await fetch(path)
        finally:
            self._fetching.discard(row)
        if self._connection is not connection:
            return False  # a book without its stream would only look alive
        out: list[AnyEvent] = []
        self.codec.snapshot(body, row, self._now_ns(), out)
        self._hand_on(out)
        return True

    # --- one connection --------------------------------------------------------------------------

    async def _session(self) -> None:
        limits = self._limits
        self.health.connects += 1
        async with connect(
            self.url,
            compression=None,
            max_queue=(256, 64),
            max_size=MESSAGE_BYTES_MAX,
            ping_interval=limits.ping_s,
            ping_timeout=limits.ping_s,
            open_timeout=limits.open_s,
            close_timeout=1,
            proxy=None,
        ) as connection:
            nonce = f"{self._rng.getrandbits(64):016x}"
            if self._tap is not None:
                self._tap.connected(self.url, self._now_ns())
            self._booked.clear()
            for message in self.codec.hello(self._utc_ms(), nonce):
                await self._send(connection, message)
            self._connection = connection
            opened_ns = self._now_ns()
            beside = [asyncio.create_task(self._watch(connection)), asyncio.create_task(self._beat(connection))]
            try:
                await self._read(connection)
            finally:
                for task in beside:
                    task.cancel()
                self._connection = None
                up_ns = self._now_ns() - opened_ns
                self._healthy = self.codec.ready and up_ns >= limits.healthy_s * NS_PER_S

    async def _read(self, connection: ClientConnection) -> None:
        """Decode each message as it comes. Ends only by an exception: closed, cut or cancelled."""
        decode, now_ns, health, tap = self.codec.decode, self._now_ns, self.health, self._tap
        while True:
            raw = await connection.recv(decode=False)
            ts_recv_ns = now_ns()
            health.messages += 1
            health.bytes += len(raw)
            health.last_recv_ns = ts_recv_ns
            if tap is not None:
                tap(raw, ts_recv_ns)
            out: list[AnyEvent] = []
            reply = decode(raw, ts_recv_ns, out)
            if reply is not None:
                await self._send(connection, reply)
            self._hand_on(out)
            # recv does not yield while messages are queued, and an order just decided waits for its turn.
            await asyncio.sleep(0)

    def _hand_on(self, out: list[AnyEvent]) -> None:
        if out:
            last = self.health.last_event = out[-1]
            if isinstance(last, MessageRefused):
                self.health.refused += 1
            elif isinstance(last, BookSnapshot):
                self._booked.add(last.row)
            self._emit(out)

    async def _send(self, connection: ClientConnection, message: bytes) -> None:
        if self._tap is not None:
            self._tap.sent(self.url, message, self._now_ns())
        await connection.send(message, text=True)

    async def _beat(self, connection: ClientConnection) -> None:
        """Send the heartbeat of a venue that wants one from us. Its failure is the reader's to notice."""
        message = self.codec.heartbeat
        with contextlib.suppress(OSError, WebSocketException):
            while message is not None:
                await asyncio.sleep(self._limits.heartbeat_s)
                await connection.send(message, text=True)

    async def _watch(self, connection: ClientConnection) -> None:
        """Cut a connection that is never ready, or that has gone silent: half-open TCP says nothing else."""
        limits, opened_ns = self._limits, self._now_ns()
        while True:
            await asyncio.sleep(min(1.0, limits.idle_s / 4, limits.ready_s / 4))
            now_ns = self._now_ns()
            self.health.look(now_ns)
            silent_ns = now_ns - max(self.health.last_recv_ns, opened_ns)
            unready = not self.codec.ready and now_ns - opened_ns > limits.ready_s * NS_PER_S
            if unready or silent_ns > limits.idle_s * NS_PER_S:
                connection.transport.abort()
                return

    def _backoff_s(self, failures: int) -> float:
        """Doubling from the least to the most, half of it random; never zero, for a server may accept and close."""
        limits = self._limits
        delay_s = min(limits.backoff_max_s, limits.backoff_min_s * 2.0 ** min(failures, 20))
        return delay_s * self._rng.uniform(0.5, 1.0)


def _retry_after_s(error: Exception) -> float:
    """Seconds a handshake's refusal (429, 418, 503) asks us to stay away."""
    if isinstance(error, InvalidStatus):
        with contextlib.suppress(ValueError):
            return min(max(0.0, float(error.response.headers.get("Retry-After", "0"))), 86_400.0)
    return 0.0
