"""Keys, signatures, access tokens.

Source: docs.deribit.com, Authentication. Three ways in: id and secret, a signature, a token. A signature is
hex HMAC-SHA256 under the secret, over "ts\\nnonce\\n" and then the data: over HTTP "METHOD\\nraw_path\\nbody\\n",
over a websocket the client's own string. It is good for 60 s, once.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field

from dea_daemon.domain.numbers import NS_PER_MS, NS_PER_S
from dea_daemon.simvenue.deribit.errors import ApiError, invalid
from dea_daemon.simvenue.deribit.params import Params

TOKEN_S = 900
SIGNATURE_MS = 60_000
TOKENS_MAX = 1_000
_LEVELS = ("none", "read", "read_write")


@dataclass(frozen=True, slots=True)
class Key:
    """A client's id and secret, and what it may do in `account`."""

    client_id: str
    client_secret: str
    account: str
    scope: str = "account:read_write trade:read_write wallet:none"


@dataclass(frozen=True, slots=True)
class Grant:
    """What one successful authentication allows. session 0 is any connection."""

    account: str
    client_id: str
    scope: str
    expires_ns: int
    session: int = 0

    def allows(self, needed: str) -> bool:
        """Whether e.g. "trade:read" is within the scope."""
        area, _, level = needed.partition(":")
        held = _areas(self.scope).get(area, "none")
        return held in _LEVELS and _LEVELS.index(held) >= _LEVELS.index(level)


@dataclass(slots=True)
class Keyring:
    """The keys, and the tokens and nonces they gave rise to (bounded by age and number)."""

    keys: dict[str, Key]
    _access: dict[str, Grant] = field(default_factory=dict)
    _refresh: dict[str, tuple[str, Grant]] = field(default_factory=dict)
    _used: dict[tuple[str, str, str], int] = field(default_factory=dict)
    _issued: int = 0
    _revoked: set[str] = field(default_factory=set)

    def authenticate(self, params: Params, session: int, now_ns: int) -> tuple[Grant, dict[str, object]]:
        """public/auth: the grant and its reply."""
        grant_type = params.text("grant_type", one_of=("client_credentials", "client_signature", "refresh_token"))
        if grant_type == "refresh_token":
            return self._renew(params.text("refresh_token"), session, now_ns)
        if grant_type == "client_credentials":
            key = self._by_secret(params.text("client_id"), params.text("client_secret"))
        else:
            stamp, nonce = str(params.integer("timestamp")), params.text("nonce", "")
            signed = f"{stamp}\n{nonce}\n{params.text('data', '')}"
            key = self._by_signature(params.text("client_id"), stamp, nonce, signed, params.text("signature"), now_ns)
        scope = _narrowed(key.scope, params.text("scope", ""))
        grant, reply = self._issue(key.account, key.client_id, scope, session, now_ns)
        return grant, reply | ({"state": params.text("state")} if params.has("state") else {})

    def revoke(self, client_id: str) -> None:
        """Refuse a key and all it gave rise to, until `restore`."""
        self._revoked.add(client_id)

    def restore(self, client_id: str) -> None:
        self._revoked.discard(client_id)

    def revoked(self, grant: Grant) -> bool:
        return grant.client_id in self._revoked

    def of_token(self, token: str, session: int, now_ns: int) -> Grant:
        """The grant behind an access token."""
        grant = self._access.get(token)
        if grant is None or self.revoked(grant) or grant.expires_ns <= now_ns or grant.session not in (0, session):
            raise ApiError(13009, reason="invalid_token")
        return grant

    def of_header(self, header: str, method: str, raw_path: str, body: str, now_ns: int) -> Grant:
        """The grant of an HTTP Authorization header."""
        kind, _, rest = header.partition(" ")
        if kind.lower() == "bearer":
            return self.of_token(rest.strip(), 0, now_ns)
        if kind.lower() == "basic":
            key = self._by_secret(*_basic(rest))
        elif kind.lower() == "deri-hmac-sha256":
            part = dict(item.strip().partition("=")[::2] for item in rest.split(","))
            if not {"id", "ts", "sig", "nonce"} <= part.keys():
                raise ApiError(13004)
            signed = f"{part['ts']}\n{part['nonce']}\n{method}\n{raw_path}\n{body}\n"
            key = self._by_signature(part["id"], part["ts"], part["nonce"], signed, part["sig"], now_ns)
        else:
            raise ApiError(13004)
        return Grant(key.account, key.client_id, key.scope, now_ns + TOKEN_S * NS_PER_S)

    def _key(self, client_id: str) -> Key:
        if client_id not in self.keys or client_id in self._revoked:
            raise ApiError(13004)
        return self.keys[client_id]

    def _by_secret(self, client_id: str, secret: str) -> Key:
        key = self._key(client_id)
        if not hmac.compare_digest(key.client_secret.encode(), secret.encode()):
            raise ApiError(13004)
        return key

    def _by_signature(self, client_id: str, stamp: str, nonce: str, signed: str, signature: str, now_ns: int) -> Key:
        key = self._key(client_id)
        wanted = hmac.new(key.client_secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(wanted.encode(), signature.encode()):
            raise ApiError(13004)
        now_ms = now_ns // NS_PER_MS
        if not stamp.isdigit() or abs(now_ms - int(stamp)) > SIGNATURE_MS:
            raise ApiError(13009, reason="timestamp too old")
        self._spend((client_id, nonce, signature), now_ms)
        return key

    def _spend(self, used: tuple[str, str, str], now_ms: int) -> None:
        """Refuse a request seen before. Per signature, not per nonce: ccxt's nonce is the millisecond, and it
        may well sign two different requests in one."""
        if used in self._used:
            raise ApiError(13009, reason="nonce already used")
        while self._used and now_ms - next(iter(self._used.values())) > 2 * SIGNATURE_MS:
            del self._used[next(iter(self._used))]
        self._used[used] = now_ms

    def _issue(
        self, account: str, client_id: str, scope: str, session: int, now_ns: int
    ) -> tuple[Grant, dict[str, object]]:
        words = sorted(scope.split() + (["connection"] if session else []))
        grant = Grant(account, client_id, " ".join(words), now_ns + TOKEN_S * NS_PER_S, session)
        access, refresh = self._token(client_id, now_ns), self._token(client_id, now_ns)
        self._access[access] = grant
        self._refresh[refresh] = (access, grant)
        if len(self._refresh) > TOKENS_MAX:
            oldest = next(iter(self._refresh))
            self._access.pop(self._refresh.pop(oldest)[0], None)
        reply: dict[str, object] = {
            "access_token": access,
            "refresh_token": refresh,
            "expires_in": TOKEN_S,
            "token_type": "bearer",
            "scope": grant.scope,
            "enabled_features": [],
        }
        return grant, reply

    def _renew(self, token: str, session: int, now_ns: int) -> tuple[Grant, dict[str, object]]:
        """A refresh token works once, and ends the access token it came with."""
        access, grant = self._refresh.pop(token, ("", None))
        if grant is None or self.revoked(grant) or grant.session not in (0, session):
            raise ApiError(13009, reason="invalid_token")
        self._access.pop(access, None)
        scope = " ".join(word for word in grant.scope.split() if word != "connection")
        return self._issue(grant.account, grant.client_id, scope, grant.session, now_ns)

    def _token(self, client_id: str, now_ns: int) -> str:
        """Unguessable without the secret, and the same for the same seed and times."""
        self._issued += 1
        seal = hmac.new(self.keys[client_id].client_secret.encode(), str(self._issued).encode(), hashlib.sha256)
        return f"{now_ns // NS_PER_MS}.{seal.hexdigest()}"


def _basic(encoded: str) -> tuple[str, str]:
    try:
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise ApiError(13004) from None
    return client_id, secret


def _areas(scope: str) -> dict[str, str]:
    return dict(word.partition(":")[::2] for word in scope.split())


def _narrowed(held: str, wanted: str) -> str:
    """The key's scope, less where the client asked for less; asking for more gives what the key has."""
    areas, asked = _areas(held), _areas(wanted)
    for area, level in areas.items():
        if area in asked and asked[area] not in _LEVELS:
            raise invalid("scope", "wrong format")
        areas[area] = min(level, asked.get(area, level), key=_LEVELS.index)
    return " ".join(f"{area}:{level}" for area, level in areas.items())
