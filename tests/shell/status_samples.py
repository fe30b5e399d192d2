"""A status as a running daemon gives it, small enough to read."""

from typing import Any

from tests.shell.status_sample import doubted_surface, surface

NOW_NS = 1_795_000_000_000_000_000


def instrument(name: str, **more: Any) -> dict[str, Any]:
    return dict(
        instrument=name, account="deribit/main", bid=64_999.5, ask=65_000.0, mark=64_999.71, index=65_001.0,
        position_lots=0, notional_usd=0.0, fresh=True,
    ) | more  # fmt: skip


def factor(name: str, held: float | None, wanted: float | None, band: float | None) -> dict[str, Any]:
    seen = dict(factor=name, price=65_000.0, annual_vol=0.5, annual_return=0.0)
    return seen | dict(actual_usd=held, target_usd=wanted, band_usd=band, reached_usd=held)


def greeks(**more: Any) -> dict[str, Any]:
    return dict(
        delta_usd=0.0, gamma_usd_1pct=5_995.0, vega_usd_1pt=-160.2, theta_usd_day=-122.4, carry_usd_day=46.5,
        vega_by_expiry={"7d": 38.4, "90d": -262.1}, basis_by_expiry={"90d": -184.0},
    ) | more  # fmt: skip


def option(name: str, **more: Any) -> dict[str, Any]:
    return dict(
        instrument=name, account="deribit/main", kind="option", underlying="BTC", amount=-3.0, iv_source="quotes",
        position_lots=-30, mark=0.0584, forward=93_400.0, iv=0.46, days=81.0, notional_usd=-276_000.0,
        delta_usd=-99_286.0, gamma_usd_1pct=-4_974.0, theta_usd_day=144.0, carry_usd_day=18.5, vega_usd_1pt=-508.0,
        modelled=False, greeks_off=False,
    ) | more  # fmt: skip


def with_options(**more: Any) -> dict[str, Any]:
    """A status of a book of options."""
    held = [
        option("BTC-27MAR26-100000-C"),
        option("BTC-9JAN26-92000-C", position_lots=10, days=0.53, iv=0.41, delta_usd=45_564.0, modelled=True),
        option("BTC_USDC-30JAN26-3400-P", position_lots=-200, days=25.0, iv=None, vega_usd_1pt=None, greeks_off=True),
    ]
    counts = dict(listed=370, modelled=12, greeks_off=1)
    surfaces = [surface("BTC"), doubted_surface("ETH")]
    by_underlying = {"BTC": greeks(), "ETH": greeks(vega_by_expiry={})}
    return status(greeks=by_underlying, options=held, option_counts=counts, surfaces=surfaces) | more


def fill(n: int, **more: Any) -> dict[str, Any]:
    return dict(
        n=n, utc_ns=NOW_NS + n * 10**9, instrument="ETH-PERPETUAL", side="buy", lots=100 + n, price=3_000.05,
        fee_usd=0.1, maker=True, client_order_id=f"d003eivl{n:08}", position_lots=n,
    ) | more  # fmt: skip


def status(**more: Any) -> dict[str, Any]:
    order = dict(
        client_order_id="d003eivl00000001", instrument="BTC-PERPETUAL", side="sell", lots=7_691, price="65010.0"
    )
    return dict(
        schema=1, version="0.1.0", pid=1, run_id="abc", config=None, state_dir="/tmp", started_utc_ns=NOW_NS,
        now_utc_ns=NOW_NS, uptime_s=83.2, armed=True, mode="normal", mode_why="", ready=True, recording=True,
        draining=False, healthy=True, unhealthy=[], seq=812, decision_age_s=0.04, equity_usd=974_822.7,
        peak_equity_usd=975_000.0, drawdown=0.0123, fees_usd=9.9, funding_usd=0.0, turnover_hour_usd=1e5,
        fees_hour_usd=9.9, counts={},
        factors=[factor("delta:BTC", 254_953.0, 250_000.0, 10_000.0), factor("delta:ETH", 191e3, 150e3, 15e3)],
        limits=[dict(limit="net", subject="delta:BTC", used=250_000.0, allowed=1e6)],
        clips=[],
        instruments=[instrument("BTC-PERPETUAL", position_lots=-6_998, notional_usd=-69_980.0)],
        orders=[order | dict(filled_lots=100, state="open", age_s=1.2)],
        recent_orders=[order | dict(seq=1, utc_ns=NOW_NS, action="create", why="passive", notional_usd=5e4)],
        recent_fills=[fill(1), fill(2)],
        recent_notes=[dict(utc_ns=NOW_NS, event="feed.gap_found", text="feed=deribit")],
        feeds=[dict(feed="deribit", account="deribit/main", private=False, ready=True, age_s=0.02, messages=9, bytes=1,
                    rate_per_s=240.0, connects=1, refused=0, gaps=0, offset_ms=1.2, last_error="")],
        pools=[dict(account="deribit/main", currency="BTC", equity=5.1, cash=5.0, initial_margin=0.1,
                    maintenance_margin=0.05)],
        forecasters=[], contenders=[], slow_factors=[],
        latency=dict(decision_us=dict(p50=500.0, p99=900.0), event_to_order_us=dict(p50=9_800.0, p99=12_000.0)),
    ) | more  # fmt: skip
