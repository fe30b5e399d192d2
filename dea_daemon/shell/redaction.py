"""Keeping secrets out of the log: by the name of a field, by value wherever it turns up, and by look."""

import dataclasses
import json
import re
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec

HIDDEN = "[redacted]"
_SHORTEST = 6  # a shorter value would blank out half the log: it is hidden by its field's name only
_WORDS = (
    "secret", "token", "password", "passwd", "passphrase", "authorization", "signature", "credential", "cookie",
    "apikey", "privatekey", "accesskey",
)  # fmt: skip
_WHOLE = {"key", "auth", "sign"}
_DEPTH = 8  # of a value within values: what contains itself ends here
_TEXT = 20  # shorter strings are names and ids: no room for a secret and what it is
_INLINE_WORDS = ("secret", "token", "signature", "passphrase", "password", "apikey", "api_key", "authorization")
# name=value, "name": "value" and Authorization: Bearer value in running text, such as an exception's. The words our
# own messages go on with after "client_secret:" are no secret.
_INLINE = re.compile(
    rf"(?i)((?:{'|'.join(_INLINE_WORDS)})[\"']?\s?[=:]\s?[\"']?(?:(?:bearer|basic|deri-hmac-sha256) )?)"
    r"(?!(?:not|may|a|must|says|missing|cannot|others|env|file)\b)([^\s&\"',;{}\[\]]+)"
)

_values: list[bytes] = []  # longest first: one may be part of another


def register_secret(value: str) -> None:
    """From here on this value is blanked out wherever it appears in a line, plain, quoted or escaped."""
    if len(value) < _SHORTEST:
        return
    forms = {value, quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1], repr(value)[1:-1]}
    for _ in range(2):  # a line is JSON, and a text in it may be
        forms |= {json.dumps(form, ensure_ascii=False)[1:-1] for form in forms}
    found = {form.encode("utf-8", "replace") for form in forms}
    _values[:] = sorted(found.union(_values), key=len, reverse=True)


def scrub(line: bytes) -> bytes:
    """A finished line without registered values."""
    for value in _values:
        if value in line:
            line = line.replace(value, HIDDEN.encode())
    return line


def clean(value: Any, depth: int = 0) -> Any:
    """The value with every field of a secret's name hidden, at any depth, and what looks like one in text."""
    if isinstance(value, str):
        return value if len(value) < _TEXT else _clean_text(value)
    if isinstance(value, int | float | None):
        return value
    if depth > _DEPTH:
        return "..."
    if isinstance(value, dict):
        return {key: HIDDEN if hides(str(key)) else clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item, depth + 1) for item in value]
    if isinstance(value, msgspec.Struct):
        return clean(msgspec.structs.asdict(value), depth)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return clean({field.name: getattr(value, field.name) for field in dataclasses.fields(value)}, depth)
    return value


def _clean_text(text: str) -> str:
    lower = text.lower()  # a search for the whole pattern costs ten times as much, and nearly always finds nothing
    return _INLINE.sub(rf"\1{HIDDEN}", text) if any(word in lower for word in _INLINE_WORDS) else text


@lru_cache(4_096)
def hides(name: str) -> bool:
    """Whether a field of this name holds a secret: apiKey, X-MBX-APIKEY, client_secret, OK-ACCESS-SIGN."""
    plain = "".join(filter(str.isalnum, name.lower()))
    return plain in _WHOLE or plain.endswith("accesssign") or any(word in plain for word in _WORDS)
