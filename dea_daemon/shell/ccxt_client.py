"""ccxt, made safe: how a client is built, what one call answers, and what its errors prove.

Each measure answers something measured (see the comments): aiohttp's silent second send, ccxt's rate limiter,
URLs that stay on the real venue, and error classes that say less than they seem to.
"""

import json
import logging
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from pydantic import SecretStr

from dea_daemon.domain.errors import ConfigError, OutcomeUnknown

Client = Any  # an instance of ccxt.async_support.Exchange: ccxt ships no types we follow
Environment = Literal["simulated", "testnet", "live"]
OnSent = Callable[[str], None]

HOSTS: dict[Environment, str] = {"testnet": "test.deribit.com", "live": "www.deribit.com"}
RATE_LIMIT_PAUSE_MS = 1_000
CONNECTIONS_MAX = 64
KEEPALIVE_S = 55.0

# The client_order_id of the create this task is sending; "" for every other request.
sending: ContextVar[str] = ContextVar("sending", default="")


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `burst` requests in any burst/per_s seconds: never above a pool of that size and refill."""

    per_s: float
    burst: int


@dataclass(frozen=True, slots=True)
class VenueAccess:
    """How to reach one account at one venue. http_url is a base without a path; None means the venue's own.

    The default budgets are Deribit's lowest tier. `cancel_reserve` requests of the `orders` budget are never
    given to creates.
    """

    venue: Literal["deribit"]
    account: str
    environment: Environment
    client_id: str
    client_secret: SecretStr
    http_url: str | None = None
    ws_url: str | None = None
    timeout_ms: int = 10_000
    orders: Budget = Budget(per_s=5.0, burst=20)
    queries: Budget = Budget(per_s=10.0, burst=50)
    cancel_reserve: int = 5


def venue_urls(access: VenueAccess) -> tuple[str, str]:
    """The checked http and websocket bases of an access. ConfigError if either leads anywhere else."""
    host = HOSTS.get(access.environment, "")
    if not host and not (access.http_url and access.ws_url):
        raise ConfigError(f"{access.venue}/{access.account}: a simulated venue needs http_url and ws_url")
    http_url = (access.http_url or f"https://{host}").rstrip("/")
    ws_url = (access.ws_url or f"wss://{host}").rstrip("/")
    check_url(http_url, access.environment, ("http", "https"))
    check_url(ws_url, access.environment, ("ws", "wss"))
    return http_url, ws_url


def check_url(url: str, environment: Environment, schemes: tuple[str, str]) -> None:
    """Refuse, with ConfigError, a URL that is not of its environment; real venues only over TLS."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if environment == "simulated":
        fits = parts.scheme in schemes and _is_loopback(host)
        wanted = f"{schemes[0]}:// on loopback"
    else:
        fits = parts.scheme == schemes[1] and host == HOSTS[environment] and parts.port in (None, 443)
        wanted = f"{schemes[1]}://{HOSTS[environment]}"
    if not fits:
        raise ConfigError(f"the {environment} environment allows {wanted} only, found {url!r}")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def open_client(access: VenueAccess, on_sent: OnSent = lambda client_order_id: None) -> Client:
    """A ccxt client bound to the running loop. `on_sent(client_order_id)` tells that an order's bytes go out.

    Close it with `close_client`. ConfigError where a URL does not fit the environment; no key is set before.
    """
    import ccxt.async_support as ccxt  # late: 115 MB, and seconds where there is no .pyc

    http_url, _ = venue_urls(access)
    client = getattr(ccxt, access.venue)(
        {
            "enableRateLimit": False,  # ccxt's holds an order 200 ms even when idle: throttle.py paces
            "timeout": access.timeout_ms,
            "session": None,  # ours, below
            "enableLastHttpResponse": False,
            "enableLastResponseHeaders": False,
            "timeout_on_exit": 0,
        }
    )
    client.options["maxRetriesOnFailure"] = 0
    client.logger.setLevel(logging.INFO)  # its debug lines carry the Authorization header
    # Refusals by Deribit's own account, which ccxt has no class for: other_reject (reduce-only among others),
    # and timed_out, which is valid_until passed before the matching engine took the order.
    client.exceptions |= {"11030": ccxt.InvalidOrder, "13888": ccxt.InvalidOrder}
    # A partial override deep-merges and leaves private endpoints on the real venue: no other URL survives.
    client.urls = {"api": {"rest": http_url}, "test": {"rest": http_url}}
    for url in urls_of(client.urls):
        check_url(url, access.environment, ("http", "https"))
    client.open()  # binds the loop, makes the TLS context
    client.session = _open_session(client.ssl_context, on_sent)
    client.apiKey = access.client_id
    client.secret = access.client_secret.get_secret_value()
    return client


def urls_of(tree: object) -> list[str]:
    """Every string in a nest of dicts and lists."""
    if isinstance(tree, str):
        return [tree]
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return [url for child in children for url in urls_of(child)]


def _open_session(tls: Any, on_sent: OnSent) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()

    async def headers_sent(_: object, __: SimpleNamespace, ___: object) -> None:
        # aiohttp calls this in the sending task, one synchronous step before the write.
        if client_order_id := sending.get():
            on_sent(client_order_id)

    async def redirected(_: object, __: SimpleNamespace, params: aiohttp.TraceRequestRedirectParams) -> None:
        # Following one would send the order again, perhaps to another host. The outcome is then unknown.
        params.response.close()
        raise aiohttp.ClientPayloadError("the venue answered with a redirect; not followed")

    trace.on_request_headers_sent.append(headers_sent)
    trace.on_request_redirect.append(redirected)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls, limit=CONNECTIONS_MAX, keepalive_timeout=KEEPALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[trace],
    )
    # ccxt creates and cancels Deribit orders by GET, and aiohttp silently sends a GET again when a reused
    # connection drops: one create_order made two live orders.
    session._retry_connection = False
    return session


async def close_client(client: Client) -> None:
    """Close the client and the session that is ours. Requests still out fail as unknown."""
    session = client.session
    await client.close()
    if session is not None:
        await session.close()


async def ask(client: Client, method: str, params: dict[str, Any]) -> Any:
    """Call one of ccxt's implicit methods and unwrap the JSON-RPC result, never None.

    Raises ccxt's errors, and OutcomeUnknown for a reply that is none: ccxt passes null and HTML on.
    """
    reply = await getattr(client, method)(params)
    if not isinstance(reply, dict) or reply.get("result") is None:
        found = str(reply)[:80] if isinstance(reply, str | dict) else type(reply).__name__
        raise OutcomeUnknown(f"unreadable reply to {method}: {found!r}")
    return reply["result"]


class Outcome(NamedTuple):
    """What an error proves. `certain`: the request had no effect. `sent`: it may have reached the venue."""

    certain: bool
    sent: bool
    reason: str
    retry_after_ms: int = 0


def classify(error: BaseException) -> Outcome:
    """What a failed call proves. Pure; anything not known to be definite is unknown.

    A definite refusal is a venue's own error, parsed, of a class that means the request was judged and
    turned down. The same classes also come from a bare HTTP status (401, 429), which proves nothing.
    """
    import ccxt

    if isinstance(error.__cause__, aiohttp.ClientConnectorError):
        return Outcome(certain=True, sent=False, reason="never sent: no connection")
    definite = (
        ccxt.InvalidOrder,  # OrderNotFound and OrderImmediatelyFillable among them
        ccxt.InsufficientFunds,
        ccxt.BadRequest,
        ccxt.AuthenticationError,  # and PermissionDenied
        ccxt.RateLimitExceeded,
        ccxt.DDoSProtection,  # ccxt's class for Deribit's too_many_requests
    )
    throttled = isinstance(error, ccxt.RateLimitExceeded | ccxt.DDoSProtection)
    retry_after_ms = RATE_LIMIT_PAUSE_MS if throttled else 0
    refusal = venue_error(error)
    if refusal and isinstance(error, definite):
        return Outcome(certain=True, sent=True, reason=refusal, retry_after_ms=retry_after_ms)
    reason = refusal or f"{type(error).__name__}: {str(error)[:160]}"
    return Outcome(certain=False, sent=True, reason=reason, retry_after_ms=retry_after_ms)


def venue_error(error: BaseException) -> str:
    """The venue's own words, "message (code)", if ccxt made `error` of a parsed JSON-RPC error; else ""."""
    _, _, body = str(error).partition(" ")  # ccxt: "<exchange id> <body>"
    try:
        refusal = json.loads(body)["error"]
        code, message, detail = int(refusal["code"]), str(refusal["message"]), refusal.get("data")
    except (ValueError, LookupError, TypeError):
        return ""
    return f"{message} ({code})" + (f": {json.dumps(detail)[:120]}" if detail else "")
