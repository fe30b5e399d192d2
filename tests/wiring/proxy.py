"""A wire that can be cut: a TCP proxy on loopback between the daemon and a simulated venue.

The venue serves HTTP and websockets on one port, so one proxy carries all there is. What a cut holds back goes on
when it ends, as a network that healed would deliver it: an order may reach the venue long after it was given up.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from enum import StrEnum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.wiring.processes import Venue

HOST = "127.0.0.1"
CHUNK = 65_536
DELAY_S = 0.4
LINGER_S = 0.3  # the venue's server drops a request whose client hangs up at once, and a real one would have taken it


class Cut(StrEnum):
    """What the wire does while it is cut."""

    NONE = "none"
    HANG = "hang"  # connections stay open, nothing passes either way
    STRAY = "stray"  # what the connections there are carry to the venue waits; new ones are not concerned
    MUTE_UP = "mute_up"  # half-open: the venue speaks and hears nothing
    MUTE_DOWN = "mute_down"  # half-open: the venue hears, and its answers do not arrive
    DROP = "drop"  # every connection is reset, new ones as soon as they are made
    REFUSE = "refuse"  # every connection is reset, and nobody listens
    TRUNCATE = "truncate"  # the first half of what the venue says next, then a reset
    DELAY = "delay"  # everything arrives DELAY_S late


_HELD = {True: (Cut.HANG, Cut.MUTE_UP), False: (Cut.HANG, Cut.MUTE_DOWN)}  # upwards?


class Proxy:
    """`with Proxy(venue) as proxy`: carries everything; `with proxy.cut(Cut.HANG)`: for that long it does not.

    `struck` counts what cuts held back, delayed, truncated or reset: a cut that struck nothing showed nothing.
    """

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._target = urlsplit(venue.listening["http_url"]).port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._stray: set[asyncio.StreamWriter] = set()  # those towards the venue that were there when it began
        self._healed = asyncio.Event()
        self._now = Cut.NONE
        self.port = 0
        self.struck = 0

    @property
    def environ(self) -> dict[str, str]:
        """The venue's, with its port replaced by ours."""
        ours, theirs = f":{self.port}", f":{self._target}"
        return {name: value.replace(theirs, ours) for name, value in self._venue.environ.items()}

    @contextlib.contextmanager
    def cut(self, how: Cut) -> Iterator[None]:
        """From here to the end of the block the wire is cut in this way."""
        self._do(lambda: self._begin(how))
        try:
            yield
        finally:
            self._do(self._heal)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    # --- in the loop's thread -------------------------------------------------------------------------

    def _do(self, work: Callable[[], object]) -> None:
        async def run() -> None:
            done = work()
            if asyncio.iscoroutine(done):
                await done

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._stop_listening()
        self._reset_all()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _begin(self, how: Cut) -> None:
        self._now = how
        self._healed.clear()
        self._stray = set(self._writers) if how is Cut.STRAY else set()
        if how is Cut.REFUSE:
            self._stop_listening()
        if how in (Cut.DROP, Cut.REFUSE):
            self.struck += len(self._writers)
            self._reset_all()

    async def _heal(self) -> None:
        self._now = Cut.NONE
        self._stray.clear()
        self._healed.set()
        if self._server is None:
            await self._listen()

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways, until either side ends it."""
        if self._now is Cut.DROP:
            self.struck += 1
            _reset(writer)
            return
        try:
            onward, back = await asyncio.open_connection(HOST, self._target)
        except OSError:
            _reset(writer)
            return
        ends = {writer, back}
        self._writers |= ends
        try:
            await asyncio.gather(self._pump(reader, back, up=True), self._pump(onward, writer, up=False))
        except EOFError:
            pass  # one side ended it in good order; what was said before still arrives
        except OSError:
            for end in ends:
                _reset(end)
        finally:
            self._writers -= ends
            for end in ends:
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        """Carry bytes one way, as the wire is at this moment. Raises EOFError at a good end, else OSError."""
        while True:
            data = await reader.read(CHUNK)
            if not data:
                await asyncio.sleep(LINGER_S if up else 0.0)
                raise EOFError
            now = self._now
            stray = up and writer in self._stray
            self.struck += stray or now not in (Cut.NONE, Cut.STRAY)
            if stray or now in _HELD[up]:
                await self._healed.wait()
            elif now is Cut.DELAY:
                await asyncio.sleep(DELAY_S)
            elif now is Cut.TRUNCATE and not up:
                writer.write(data[: len(data) // 2])
                await writer.drain()
                raise ConnectionResetError("truncated")
            writer.write(data)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST, not in good order."""
    end = writer.get_extra_info("socket")
    if end is not None and not writer.transport.is_closing():
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
