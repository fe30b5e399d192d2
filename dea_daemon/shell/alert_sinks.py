"""One place alerts go to: a bounded queue, a limit an hour, and patience with a peer that fails.

Where it goes to is itself a secret (a URL may hold a token), so neither log nor error says more than a sink's name.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import aiohttp
import msgspec
import structlog

from dea_daemon.shell.redaction import register_secret, scrub

QUEUE = 100
HOUR_S = 3_600.0
KEPT = 5  # one in so many of an hour's messages is kept for what is critical
TIMEOUT_S = 5.0
BACKOFF_S = (1.0, 300.0)  # the first pause after a failure, and the longest
TEXT_MAX = 4_000  # characters; Telegram takes 4,096
TELEGRAM = "https://api.telegram.org"

log = structlog.get_logger()


class Alert(msgspec.Struct, frozen=True):
    """One message to a person."""

    source: str
    level: str
    event: str
    text: str
    fields: dict[str, Any]
    utc: str


class Refused(Exception):
    """The sink answered, and not with yes; it may have said how long to wait."""

    def __init__(self, status: int, wait_s: float) -> None:
        super().__init__(f"status {status}")
        self.status, self.wait_s = status, wait_s


class Sink:
    """Sends alerts to one URL. `body` makes the request's JSON of an alert whose text is finished."""

    def __init__(
        self, name: str, url: str, body: Callable[[Alert], object], per_hour: int, closing: asyncio.Event
    ) -> None:
        self.name = name
        self.left_out = 0  # since the last message that was sent
        self._url, self._body, self._per_hour, self._closing = url, body, per_hour, closing
        self._waiting: deque[Alert] = deque()
        self._news = asyncio.Event()
        self._sent_s: deque[float] = deque(maxlen=per_hour)
        self._failing = False

    def offer(self, alert: Alert) -> None:
        """Queue it; a full queue drops its oldest."""
        if len(self._waiting) >= QUEUE:
            self._waiting.popleft()
            self.left_out += 1
        self._waiting.append(alert)
        self._news.set()

    def wake(self) -> None:
        """Look whether it is time to end."""
        self._news.set()

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Send what is offered, until closing and nothing is left."""
        while self._waiting or not self._closing.is_set():
            if not self._waiting:
                self._news.clear()
                await self._news.wait()
                continue
            alert = self._waiting.popleft()
            try:
                await self._deliver(session, alert)
            except asyncio.CancelledError:
                self._waiting.appendleft(alert)  # `close` may still try
                raise

    async def _deliver(self, session: aiohttp.ClientSession, alert: Alert) -> None:
        """Until it is sent, or certain that it will not be."""
        wait_s = self._full_for_s(alert)
        if wait_s and alert.level != "critical":
            self.left_out += 1
            return
        pause_s = BACKOFF_S[0]
        while True:
            if wait_s and await self._closed_within(wait_s):
                self.left_out += 1
                return
            try:
                await self._post(session, alert)
            except Exception as error:  # noqa: BLE001 whatever it is, it must not end the run
                self._failed(error)
                if self._closing.is_set() or _final(error):
                    self.left_out += 1
                    return
                wait_s = max(pause_s, error.wait_s if isinstance(error, Refused) else 0.0)
                pause_s = min(2 * pause_s, BACKOFF_S[1])
            else:
                self._sent(monotonic())
                return

    def _full_for_s(self, alert: Alert) -> float:
        """How long until the hour's limit lets this one through; 0 if it may go now."""
        allowed = self._per_hour if alert.level == "critical" else max(1, self._per_hour - self._per_hour // KEPT)
        now_s = monotonic()
        recent = [sent_s for sent_s in self._sent_s if now_s - sent_s < HOUR_S]
        return recent[-allowed] + HOUR_S - now_s if len(recent) >= allowed else 0.0

    async def _closed_within(self, seconds: float) -> bool:
        """Wait; True if closing came first."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)
        return self._closing.is_set()

    async def _post(self, session: aiohttp.ClientSession, alert: Alert) -> None:
        """One request. Raises Refused unless it is answered with success."""
        more = f" ({self.left_out} other alerts were left out)" if self.left_out else ""
        told = msgspec.structs.replace(alert, text=alert.text[: TEXT_MAX - len(more)] + more)
        data = scrub(msgspec.json.encode(self._body(told), enc_hook=str))
        headers = {"Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(TIMEOUT_S)
        async with session.post(self._url, data=data, headers=headers, timeout=timeout, allow_redirects=False) as reply:
            if not 200 <= reply.status < 300:
                raise Refused(reply.status, _retry_after_s(reply.headers.get("Retry-After", "")))

    def _failed(self, error: Exception) -> None:
        """Told once an outage, and without the error's text, which may hold the URL."""
        if not self._failing:
            why = str(error) if isinstance(error, Refused) else type(error).__name__
            log.warning("alert.sink_failed", sink=self.name, why=why)
        self._failing = True

    def _sent(self, now_s: float) -> None:
        if self._failing:
            log.info("alert.sink_restored", sink=self.name, left_out=self.left_out)
        self._failing = False
        self.left_out = 0
        self._sent_s.append(now_s)


def _final(error: Exception) -> bool:
    """Whether to send this alert again would change nothing."""
    if isinstance(error, Refused):
        return 300 <= error.status < 500 and error.status not in (408, 425, 429)
    return not isinstance(error, aiohttp.ClientError | OSError)  # TimeoutError is one


def _retry_after_s(value: str) -> float:
    """Seconds asked for, an hour at most; 0 for a date or nonsense."""
    return min(float(value), HOUR_S) if value.isascii() and value.isdigit() else 0.0


def webhook(url: str, per_hour: int, closing: asyncio.Event) -> Sink:
    """Alerts as JSON {"source", "level", "event", "text", "fields", "utc"}."""
    register_secret(url)
    return Sink("webhook", url, lambda alert: alert, per_hour, closing)


def telegram(token: str, chat_id: str, per_hour: int, closing: asyncio.Event) -> Sink:
    """Alerts as a bot's messages to one chat."""
    register_secret(token)

    def body(alert: Alert) -> dict[str, str]:
        text = f"{alert.level.upper()} {alert.source}: {alert.text}\n{alert.event} {alert.utc}"
        return {"chat_id": chat_id, "text": text}

    return Sink("telegram", f"{TELEGRAM}/bot{token}/sendMessage", body, per_hour, closing)
