"""Keeping secrets out of the log: by the name of a field, by value wherever it turns up, and by look."""

import dataclasses
import json
import re
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec

_HIDDEN = "[redacted]"
_SHORTEST = 6  # a shorter value would blank out half the log: it is hidden by its field's name only
_WORDS = (
    "secret", "token", "password", "passwd", "passphrase", "authorization", "signature", "credential", "cookie",
    "apikey", "privatekey", "accesskey",
)  # fmt: skip
_WHOLE = {"key", "auth", "sign"}
_INLINE_WORDS = (b"secret", b"token", b"signature", b"passphrase", b"password", b"apikey", b"api_key", b"authorization")
# name=value, "name": "value" and Authorization: Bearer value in running text, such as an exception's.
_INLINE = re.compile(
    rb"(?i)((?:" + b"|".join(_INLINE_WORDS) + rb")(?:\\?[\"'])?\s?[=:]\s?(?:\\?[\"'])?"
    rb"(?:(?:bearer|basic|deri-hmac-sha256) )?)([^\s&\"'\\,;{}\[\]]+)"
)

_values: list[bytes] = []  # longest first: one may be part of another


def register_secret(value: str) -> None:
    """From here on this value is blanked out wherever it appears in a line, plain, quoted or escaped."""
    if len(value) < _SHORTEST:
        return
    forms = {value, quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1], repr(value)[1:-1]}
    forms |= {json.dumps(form, ensure_ascii=False)[1:-1] for form in forms}
    found = {form.encode("utf-8", "replace") for form in forms}
    _values[:] = sorted(found.union(_values), key=len, reverse=True)


def scrub(line: bytes) -> bytes:
    """A finished line without registered values, and without what looks like a secret in running text."""
    for value in _values:
        if value in line:
            line = line.replace(value, _HIDDEN.encode())
    lower = line.lower()
    # One by one: a search for the whole pattern costs ten times as much, and nearly always finds nothing.
    if any([word in lower for word in _INLINE_WORDS]):  # noqa: C419 a generator costs more
        line = _INLINE.sub(rb"\1" + _HIDDEN.encode(), line)
    return line


def clean(value: Any) -> Any:
    """The value with every field of a secret's name hidden, at any depth."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, dict):
        return {key: _HIDDEN if hides(str(key)) and item else clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return clean(msgspec.structs.asdict(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return clean({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    return value


@lru_cache(4_096)
def hides(name: str) -> bool:
    """Whether a field of this name holds a secret: apiKey, X-MBX-APIKEY, client_secret, OK-ACCESS-SIGN."""
    plain = "".join(filter(str.isalnum, name.lower()))
    return plain in _WHOLE or plain.endswith("accesssign") or any(word in plain for word in _WORDS)
