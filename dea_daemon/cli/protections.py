"""What a configuration leaves unprotected, in one line: not wrong, but to be meant."""

from collections.abc import Mapping
from typing import Any

# What is protected against: the options that do it. One of them is enough.
PROTECTIONS = {
    "a jump of prices or volatility": ("max_scenario_loss", "max_stress_loss", "max_var", "max_es"),
    "a bad day": ("max_daily_loss", "flatten_daily_loss", "halt_daily_loss"),
    "too much on one underlying": ("max_underlying_usd", "max_underlying_leverage"),
    "too much at one venue": ("max_venue_usd", "max_venue_leverage"),
    "size that outgrows equity": ("max_gross_leverage", "max_net_leverage"),
    "a liquidation that comes near": ("min_liquidation_distance",),
    "a day's costs": ("max_turnover_usd_per_day", "max_fees_usd_per_day"),
}
OF_OPTIONS = {
    "gamma": ("max_gamma_usd_1pct",),
    "vega": ("max_vega_usd_1pt", "max_bucket_vega_usd_1pt"),
}


def unprotected(guards: Mapping[str, Any], options: bool) -> str:
    """Against what no option of `guards` protects, and the first that would; "" where there is nothing.

    `options` says whether chains of options are followed.
    """
    wanted = PROTECTIONS | (OF_OPTIONS if options else {})
    off = [f"{what} ({names[0]})" for what, names in wanted.items() if all(guards[name] is None for name in names)]
    return f"no limit against {', '.join(off)}" if off else ""
