"""Reading a request's parameters: JSON values over a websocket, strings in an HTTP query."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from dea_daemon.simvenue.deribit.errors import invalid


class Params:
    """Typed access; every reader raises Invalid params, naming the parameter. Unknown ones are ignored."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw

    def has(self, name: str) -> bool:
        return self._raw.get(name) not in (None, "")

    def shown(self, name: str) -> str:
        """A value for the record, unread; "" where there is none."""
        return str(self._raw[name]) if self.has(name) else ""

    def text(self, name: str, default: str | None = None, one_of: tuple[str, ...] = ()) -> str:
        """A string. Without a default it is required."""
        if not self.has(name):
            if default is None:
                raise invalid(name, "value required")
            return default
        value = self._raw[name]
        if not isinstance(value, str) or (one_of and value not in one_of):
            raise invalid(name, "wrong format")
        return value

    def decimal(self, name: str) -> Decimal:
        """A required number, as the decimal that was meant."""
        if not self.has(name):
            raise invalid(name, "value required")
        value = self._raw[name]
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise invalid(name, "wrong format")
        try:
            number = Decimal(repr(value) if isinstance(value, float) else value)
        except InvalidOperation:
            raise invalid(name, "wrong format") from None
        if not number.is_finite():
            raise invalid(name, "wrong format")
        return number

    def integer(self, name: str, default: int | None = None, at_most: int | None = None) -> int:
        """A whole number; a larger one than `at_most` is refused."""
        if default is not None and not self.has(name):
            return default
        number = self.decimal(name)
        if number != int(number):
            raise invalid(name, "wrong format")
        if at_most is not None and number > at_most:
            raise invalid(name, f"max value is {at_most}")
        return int(number)

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean, or "true" and "false"."""
        value = self._raw.get(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        if value not in ("true", "false"):
            raise invalid(name, "wrong format")
        return bool(value == "true")

    def names(self, name: str) -> list[str]:
        """A list of strings."""
        value = self._raw.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise invalid(name, "wrong format")
        return value
