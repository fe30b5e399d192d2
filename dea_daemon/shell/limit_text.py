"""The limits in words: what each bounds, which option sets it, and its figures as people read them; what is shut.

Standard library only: `status` and `explain` must be quick.
"""

from math import isfinite
from typing import Any, NamedTuple


class Meaning(NamedTuple):
    """What a limit bounds, and the options that set it."""

    bounds: str
    options: str


MEANINGS = {
    "instrument": Meaning("notional of one contract", "max_instrument_usd, max_instrument_leverage"),
    "underlying": Meaning("sum of notionals on one underlying", "max_underlying_usd, max_underlying_leverage"),
    "venue": Meaning("sum of notionals at one venue", "max_venue_usd, max_venue_leverage"),
    "gross": Meaning("sum of all notionals", "max_gross_usd, max_gross_leverage"),
    "net": Meaning("dollar delta of one underlying", "max_net_usd, max_net_leverage"),
    "gamma": Meaning("gamma of one underlying, for a move of 1 %", "max_gamma_usd_1pct"),
    "vega": Meaning("vega of one underlying, weighted to 30 days", "max_vega_usd_1pt"),
    "bucket_vega": Meaning("vega of one underlying among options of about one expiry", "max_bucket_vega_usd_1pt"),
    "bucket_basis": Meaning("loss for 1 % of annual basis, by underlying and expiry", "max_bucket_basis_usd_1pct"),
    "scenario": Meaning("loss in the worst scenario of prices and volatility", "max_scenario_loss"),
    "stress": Meaning("loss if one of history's worst days came again", "max_stress_loss"),
    "var": Meaning("loss of a day passed on one day of a hundred", "max_var"),
    "es": Meaning("mean loss of the worst 2.5 days of a hundred", "max_es"),
    "margin": Meaning("maintenance margin over equity, of the worst pool", "max_margin_use, max_margin_danger"),
    "liquidation": Meaning("how near a liquidation is: 100 % is the least distance wanted", "min_liquidation_distance"),
    "depeg": Meaning("how far a stablecoin is from 1 USD", "max_depeg"),
    "daily_loss": Meaning("equity lost since the UTC day began", "max_daily_loss, flatten_daily_loss, halt_daily_loss"),
    "drawdown": Meaning("equity lost since its peak", "max_drawdown, flatten_drawdown, halt_drawdown"),
    "turnover": Meaning("traded and at work in an hour or day", "max_turnover_usd_per_hour, max_turnover_usd_per_day"),
    "fees": Meaning("fees paid and at stake in an hour or day", "max_fees_usd_per_hour, max_fees_usd_per_day"),
    "orders": Meaning("orders within a minute", "max_orders_per_minute"),
    "cancel_ratio": Meaning("cancels for each order within an hour", "max_cancel_ratio"),
    "order_size": Meaning("notional of one order", "max_order_usd"),
    "order_rate": Meaning("orders within a minute", "max_orders_per_minute"),
    "collar": Meaning("how far a price may be through mark and mid", "collar_bp, option_collar, option_collar_vol"),
}
BUDGETS = frozenset({"turnover", "fees", "orders", "cancel_ratio"})  # they end at their bound by design

_FRACTIONS = frozenset({"drawdown", "daily_loss", "margin", "liquidation", "depeg"})
_LOSSES = frozenset({"scenario", "stress", "var", "es"})  # in USD, or as a fraction of equity
_FRACTION_MAX = 10.0  # nobody bounds a loss at ten dollars, or at ten times equity


def is_fraction(limit: str, allowed: Any) -> bool:
    """Whether its figures are parts of a whole, to be told as percent."""
    return limit in _FRACTIONS or (limit in _LOSSES and _finite(allowed) and abs(allowed) < _FRACTION_MAX)


def used_allowed(use: dict[str, Any], unknown: str = "?") -> tuple[str, str]:
    """Used and allowed of one line: percent, whole dollars, or three figures of what is small."""
    tell = percent if is_fraction(use["limit"], use["allowed"]) else amount
    return tell(use["used"], unknown), tell(use["allowed"], unknown)


def percent(value: Any, unknown: str = "?") -> str:
    """1.96 %, 10 %, 0.05 %."""
    return f"{100 * value:,.2f}".rstrip("0").rstrip(".") + " %" if _finite(value) else unknown


def amount(value: Any, unknown: str = "?") -> str:
    """Dollars whole, counts and ratios with three figures."""
    if not _finite(value):
        return unknown
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def cut_words(clip: dict[str, Any]) -> str:
    """From what to what. Mostly lots; a refused order is told in its limit's unit."""
    fraction = _finite(clip["allowed"]) and is_fraction(clip["limit"], clip["allowed"]) and clip["allowed"] % 1 != 0
    tell = percent if fraction else amount
    return f"{tell(clip['wanted'])} to {tell(clip['allowed'])}"


def legend(limit: str) -> str:
    """What a limit bounds and which options set it, as one line; "" for what is no limit of ours."""
    found = MEANINGS.get(limit)
    return f"{limit}: {found.bounds} (guards.{found.options})" if found else ""


def shut(status: dict[str, Any]) -> list[str]:
    """What is closed by somebody else's word, in words."""
    counts = {"closed by the venue": "contracts_closed", "with other lots or ticks": "contracts_regridded"}
    return [f"{status[key]} contracts {what}" for what, key in counts.items() if status.get(key)]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value)
