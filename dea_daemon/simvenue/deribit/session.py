"""One client: a websocket connection, or a single HTTP request."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dea_daemon.simvenue.deribit.keys import Grant

Json = Any  # what msgspec encodes: dicts, lists, strings, numbers, None
encode: Callable[[Json], bytes] = msgspec.json.Encoder().encode  # NaN becomes null, as the venue sends it


@dataclass(eq=False, slots=True)
class Session:
    """`outbox` are frames to send, in order; `closing` not empty asks the server to close, saying why.

    heartbeat_ns 0 is no heartbeats. `orders` are those created on this connection.
    """

    number: int
    websocket: bool
    grant: Grant | None = None
    outbox: list[bytes] = field(default_factory=list)
    closing: str = ""
    heartbeat_ns: int = 0
    next_beat_ns: int = 0
    test_pending: bool = False
    cancel_on_disconnect: bool = False
    orders: list[str] = field(default_factory=list)

    @property
    def account(self) -> str:
        """The account it speaks for, "" before it authenticated."""
        return self.grant.account if self.grant else ""

    def post(self, frame: bytes) -> None:
        self.outbox.append(frame)

    def take(self) -> list[bytes]:
        """The frames since the last call."""
        frames, self.outbox = self.outbox, []
        return frames
