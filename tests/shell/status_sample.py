"""A running daemon's status, by hand: what `Monitor.status` gives, and a monitor that gives it."""

from typing import Any, cast

from dea_daemon.shell.monitor import Monitor

LATENCY = {"p50": 1_800.0, "p99": 4_100.0}
STAGES_US = ("decision_us", "event_to_order_us", "wait_us", "decide_us", "commit_us", "send_us")


def instrument(name: str, **other: Any) -> dict[str, Any]:
    row = dict(
        instrument=name, account="deribit/main", bid=79_999.5, ask=80_000.0, mark=80_000.0, index=80_001.0,
        position_lots=-12, notional_usd=-120.0, fresh=True,
    )  # fmt: skip
    return row | other


def greeks(**other: Any) -> dict[str, Any]:
    line = dict(
        delta_usd=9.8e4, gamma_usd_1pct=1_250.0, vega_usd_1pt=-310.5, theta_usd_day=-42.0, carry_usd_day=12.25,
        vega_by_expiry={"7d": -10.5, "90d": -400.0}, basis_by_expiry={"90d": 55.0},
    )  # fmt: skip
    return line | other


def option(name: str, **other: Any) -> dict[str, Any]:
    """A position in an option, as `shell.exposure.positions` tells."""
    row = dict(
        instrument=name, account="deribit/main", kind="option", underlying="BTC", amount=-3.0, iv_source="quotes",
        position_lots=-30, mark=0.0584, forward=93_400.0, iv=0.46, days=81.0, notional_usd=-276_000.0,
        delta_usd=-99_286.0, gamma_usd_1pct=-4_974.0, theta_usd_day=144.0, carry_usd_day=18.5, vega_usd_1pt=-508.0,
        modelled=False, greeks_off=False,
    )  # fmt: skip
    return row | other


def surface(underlying: str, **other: Any) -> dict[str, Any]:
    """What is told of a surface in one line, in good health."""
    line = dict(
        underlying=underlying, relied=True, why="", age_s=2.5, expiries=9, atm=0.462, risk_reversal=-0.031,
        butterfly=0.008, jump_z=0.7, quotes=301, dropped=2, inside=0.997, rmse_vol_pts=0.21, spread_ratio=0.35,
        min_g=0.12, calendar_violations=0, fallback_slices=1, fit_ms=48.0,
    )  # fmt: skip
    return line | other


def doubted_surface(underlying: str, why: str = "none yet", **other: Any) -> dict[str, Any]:
    """Before there was one."""
    kept = ("underlying", "jump_z")
    line = {name: value if name in kept else None for name, value in surface(underlying).items()}
    return line | dict(relied=False, why=why, expiries=0) | other


def forecaster(name: str = "momentum_5d", underlying: str = "BTC", **other: Any) -> dict[str, Any]:
    """What one forecaster says of one underlying."""
    line = dict(
        name=name, underlying=underlying, weight=0.0, earned=0.1, scored=7_000, expected_return=0.01, deviation=0.08,
        r_squared=0.0023, hit_rate=0.513, t=1.4,
    )  # fmt: skip
    return line | other


def contender(name: str = "momentum_5d", **other: Any) -> dict[str, Any]:
    """A forecaster on trial, in shadow."""
    line = dict(
        name=name, kind="return", state="shadow", weight=0.0, offered=0.2, rounds=292, p=0.41, against=1.0, drift=0.12,
        net_gain=0.0031, why="",
    )  # fmt: skip
    return line | other


def slow_factor(name: str, **other: Any) -> dict[str, Any]:
    return dict(name=name, z=1.25, age_days=2.5, valid=True, why="") | other


def status(**other: Any) -> dict[str, Any]:
    """Schema 1, in good health."""
    sample: dict[str, Any] = dict(
        schema=1, version="0.1.0", pid=7, run_id="ab12", config="/etc/dea.yaml", state_dir="state",
        started_utc_ns=1_790_000_000_000_000_000, now_utc_ns=1_790_000_060_000_000_000, uptime_s=60.0,
        armed=True, mode="normal", mode_why="", ready=True, recording=True, draining=False, healthy=True,
        watched=True, contracts_closed=0, contracts_regridded=0, pegs=dict(USDC=0.9999),
        unhealthy=[], seq=600, decision_age_s=0.05, equity_usd=500_000.0, peak_equity_usd=510_000.0,
        drawdown=0.0196, fees_usd=3.5, funding_usd=-0.25, turnover_hour_usd=40_000.0, fees_hour_usd=3.5,
        counts=dict(
            decisions=600, events=9_000, orders_sent=40, cancels_sent=30, fills=12, rejects=1, unknown_outcomes=0,
            limits_breached=0, gaps=2,
        ),
        factors=[
            dict(factor="delta:BTC", price=80_000.0, annual_vol=0.5, actual_usd=9.8e4, target_usd=1e5, band_usd=5e3)
            | dict(annual_return=0.0, reached_usd=9.8e4),
            dict(factor="delta:ETH", price=3_000.0, annual_vol=0.6, actual_usd=0.0, target_usd=None, band_usd=None)
            | dict(annual_return=0.0, reached_usd=0.0),
        ],
        greeks=dict(
            BTC=greeks(), ETH=greeks(gamma_usd_1pct=0.0, vega_usd_1pt=0.0, theta_usd_day=0.0, vega_by_expiry={})
        ),
        options=[option("BTC-27MAR26-70000-C")], option_counts=dict(listed=370, modelled=4, greeks_off=1),
        surfaces=[surface("BTC"), surface("ETH", atm=0.655, risk_reversal=-0.044, fit_ms=41.0)],
        limits=[
            dict(limit="net", subject="delta:BTC", used=95_000.0, allowed=400_000.0),
            dict(limit="instrument", subject="BTC-PERPETUAL", used=120.0, allowed=300_000.0),
            dict(limit="gross", subject="book", used=120.0, allowed=1e6),
            dict(limit="fees", subject="hour", used=3.5, allowed=5_000.0),
            dict(limit="drawdown", subject="book", used=0.0196, allowed=0.1),
        ],
        clips=[dict(limit="net", subject="delta:BTC", wanted=5e5, allowed=4e5, why="too much")],
        instruments=[instrument("BTC-PERPETUAL"), instrument("ETH-PERPETUAL", position_lots=0, notional_usd=0.0)],
        orders=[], recent_orders=[], recent_fills=[], recent_notes=[],
        feeds=[
            dict(
                feed="deribit-main-books", account="deribit/main", private=False, ready=True, age_s=0.2, messages=900,
                bytes=90_000, rate_per_s=15.0, connects=1, refused=0, gaps=2, offset_ms=12.5, last_error="",
            )
        ],
        pools=[
            dict(
                account="deribit/main", currency="BTC", equity=6.25, cash=6.2, initial_margin=0.5,
                maintenance_margin=0.25,
            )
        ],
        latency=dict.fromkeys(STAGES_US, LATENCY),
        forecasters=[
            forecaster(weight=0.2), forecaster(underlying="ETH", weight=0.2, r_squared=0.0047, t=1.5),
            forecaster("ridge_5d", r_squared=-0.0012, t=-0.3), forecaster("ridge_5d", "ETH", r_squared=None, t=None),
        ],
        contenders=[
            contender(state="traded", weight=0.2, offered=0.2), contender("ridge_5d", p=1.0, net_gain=-0.0102),
            contender("har", kind="variance", state="traded", weight=1.0, offered=1.0, net_gain=None),
        ],
        slow_factors=[slow_factor("greed"), slow_factor("mvrv", z=-0.5, age_days=0.75)],
    )  # fmt: skip
    return sample | other


class StillMonitor:
    """A monitor whose daemon never changes."""

    def __init__(self, **other: Any) -> None:
        self.now = status(**other)

    def status(self) -> dict[str, Any]:
        return self.now


def still_monitor(**other: Any) -> Monitor:
    return cast(Monitor, StillMonitor(**other))
