"""Books over HTTP, for venues whose stream brings none: paced, and quiet while the venue says so."""

import time
from collections.abc import Callable

import aiohttp
from asyncio_throttle import Throttler

from dea_daemon.domain.errors import RateLimited, VenueError

REQUESTS_PER_MINUTE = 100  # Binance: weight 20 each at depth 1,000, of 2,400 a minute
BODY_BYTES_MAX = 1 << 24
_BANNED = (418, 429)
_BAN_S = 60.0  # where the venue does not say how long
_BAN_MAX_S = 86_400.0


class HttpFetch:
    """Calls GET base_url + path and returns the body.

    Raises RateLimited while the venue wants to be left alone, VenueError for any other failure.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        *,
        timeout_s: float = 5.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._throttle = Throttler(rate_limit=REQUESTS_PER_MINUTE, period=60.0, retry_interval=0.05)
        self._monotonic = monotonic
        self._quiet_until = 0.0

    async def __call__(self, path: str) -> bytes:
        async with self._throttle:
            quiet_s = self._quiet_until - self._monotonic()
            if quiet_s > 0:
                raise RateLimited(f"the venue wants no requests for {quiet_s:.0f} s")
            try:
                async with self._session.get(self._base_url + path, timeout=self._timeout) as response:
                    if response.status in _BANNED:
                        self._quiet_until = self._monotonic() + _seconds(response.headers.get("Retry-After"))
                    body = bytearray()
                    async for chunk in response.content.iter_chunked(1 << 16):
                        body += chunk
                        if len(body) > BODY_BYTES_MAX:
                            raise VenueError(f"the answer to {path} has no end")
                    if response.status != 200:
                        raise VenueError(f"HTTP {response.status} for {path}: {bytes(body[:200])!r}")
                    return bytes(body)
            except (aiohttp.ClientError, TimeoutError) as error:
                raise VenueError(f"{type(error).__name__} for {path}: {error}") from error


def _seconds(retry_after: str | None) -> float:
    try:
        return min(max(0.0, float(retry_after or _BAN_S)), _BAN_MAX_S)
    except ValueError:
        return _BAN_S
