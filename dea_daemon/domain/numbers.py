"""The one rounding door: between a venue's decimals and our int64 lots and ticks.

Floats never cross it unrounded: `int(0.3 / 0.1)` is 2, `to_lots(0.3, Decimal("0.1"))` is 3.
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal, InvalidOperation

from dea_daemon.domain.errors import check

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
NS_PER_DAY = 86_400 * NS_PER_S
DAYS_PER_YEAR = 365.0

# A quotient within this distance of an integer is that integer: above float noise of any amount a
# venue quotes (1e-16 relative), below any real fraction of a lot.
_SNAP = Decimal("1e-6")
_ROUNDINGS = {"down": ROUND_FLOOR, "up": ROUND_CEILING, "nearest": ROUND_HALF_EVEN}


def as_decimal(value: float | int | str | Decimal) -> Decimal:
    """The decimal a venue meant: floats by their shortest repr, so 0.1 is 1/10. Refuses NaN and infinity."""
    try:
        number = value if isinstance(value, Decimal) else Decimal(repr(value) if isinstance(value, float) else value)
    except InvalidOperation:
        number = Decimal("NaN")
    check(number.is_finite(), f"not a finite number: {value!r}")
    return number


def to_steps(value: float | int | str | Decimal, step: Decimal, rounding: str = "nearest") -> int:
    """How many steps make `value`; `rounding` is "down" (towards −∞), "up" or "nearest"."""
    quotient = as_decimal(value) / step
    nearest = quotient.to_integral_value(ROUND_HALF_EVEN)
    if abs(quotient - nearest) <= _SNAP:
        return int(nearest)
    return int(quotient.to_integral_value(_ROUNDINGS[rounding]))


def to_lots(quantity: float | int | str | Decimal, lot_size: Decimal, rounding: str = "nearest") -> int:
    """A venue's amount as a count of lots."""
    return to_steps(quantity, lot_size, rounding)


def from_steps(count: int, step: Decimal) -> Decimal:
    """The exact decimal of `count` steps."""
    return count * step


def ms_to_ns(milliseconds: int) -> int:
    """Milliseconds to nanoseconds by integer multiplication; float would lose the last digits."""
    return milliseconds * NS_PER_MS
