"""What a socket and a capture reader ask of a venue's codec, and what all codecs share."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from dea_daemon.domain.events import AnyEvent, MessageRefused

EXCERPT_BYTES_MAX = 200
NAN = float("nan")


class Codec(Protocol):
    """One socket's dialect. Holds what the dialect itself must remember (which reply is awaited), no more.

    `rows` are those whose books this socket carries; `private` says it is the account's own stream. `ready`
    turns True when the venue has confirmed the subscriptions (decode then emits FeedOpened), and False in
    `hello`. `heartbeat` is what the venue wants to hear every half minute, or None.
    """

    @property
    def feed(self) -> str: ...
    @property
    def account(self) -> int: ...
    @property
    def private(self) -> bool: ...
    @property
    def rows(self) -> tuple[int, ...]: ...
    @property
    def ready(self) -> bool: ...
    @property
    def heartbeat(self) -> bytes | None: ...

    def hello(self, utc_ms: int, nonce: str) -> list[bytes]:
        """Messages to send on a new connection, in order: heartbeat, authentication, subscriptions."""
        ...

    def decode(self, raw: bytes | str, ts_recv_ns: int, out: list[AnyEvent]) -> bytes | None:
        """Append what `raw` says to `out`; return a message to send back at once, or None.

        Never raises: what cannot be read becomes MessageRefused.
        """
        ...

    def resubscribe(self, row: int) -> list[bytes]:
        """Messages that bring a fresh snapshot of one row's book; empty where that takes `snapshot_path`."""
        ...

    def join(self, rows: Iterable[int]) -> list[bytes]:
        """Carry these rows, too: they were appended to the universe the codec knows. Messages that subscribe to
        them; empty where they are not this socket's, or go out with the rest when it connects."""
        ...

    def leave(self, rows: Iterable[int]) -> None:
        """Ask for these rows no more: their contracts have ended."""
        ...

    def snapshot_path(self, row: int) -> str | None:
        """Path and query of the HTTP request for one row's book, or None where the stream brings it."""
        ...

    def snapshot(self, raw: bytes | str, row: int, ts_recv_ns: int, out: list[AnyEvent]) -> None:
        """Append what the HTTP answer says (BookSnapshot, or MessageRefused)."""
        ...


class Socket(NamedTuple):
    """One connection a venue wants: `path` is appended to its websocket URL."""

    path: str
    codec: Codec


def refused(feed: str, why: str, raw: bytes | str, ts_recv_ns: int) -> MessageRefused:
    """A bounded excerpt of a message no codec could read, for the log; nothing that may hold a token."""
    head = raw[:EXCERPT_BYTES_MAX]
    text = head if isinstance(head, str) else head.decode("utf-8", "replace")
    return MessageRefused(ts_recv_ns, feed, why[:EXCERPT_BYTES_MAX], "" if "token" in text else text)
