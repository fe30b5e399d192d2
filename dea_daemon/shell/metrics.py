"""What Prometheus is told: the monitor's status as gauges and counters, and what only every decision can tell.

Label values are bounded: configured names, the first 200 contracts (the rest is "other"), and fixed lists. The
status is written out here, not by prometheus_client: 200 contracts and their limits take it 6 ms and these lines
0.7 ms, so that a scrape may be answered in the trading loop.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest

from dea_daemon.domain.decisions import Decision
from dea_daemon.domain.modes import Mode
from dea_daemon.shell.logs import COUNTED, lines
from dea_daemon.shell.monitor import Monitor

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CONTRACTS = 200  # this many are told one by one
NOTES = (
    "account.adopted", "account.drift_confirmed", "account.outside_found", "account.reconciled",
    "account.report_failed", "allocation.held", "factor.refused", "factor.restated", "feed.closed", "feed.gap_found",
    "feed.message_refused", "forecaster.demoted", "forecaster.promoted", "forecaster.proposed", "forecaster.refused",
    "forecaster.retracted", "instrument.regridded", "instruments.joined", "instruments.unlisted", "ledger.failed",
    "ledger.restored", "mode.changed", "model.refused", "model.swapped", "operator.spoke", "order.adopted",
    "order.circuit_opened",
    "order.filled", "order.forgotten", "order.outcome_unknown", "order.proved_absent", "order.rejected",
    "order.surprised", "parameters.reloaded", "position.liquidated", "position.settled",
    "surface.doubted", "surface.trusted", "venue.closed", "venue.opened", "watchdog.lost", "watchdog.started",
)  # fmt: skip
STAGES = ("decision", "event_to_order", "wait", "decide", "commit", "send")
BUCKETS_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)

Sample = tuple[str, Any]  # labels as they are written, and a number, a truth, or None where it is not known
Family = tuple[str, str, str, Iterable[Sample]]  # name, type, help, samples


class Metrics:
    """One run's metrics, in a registry of its own. `utc_ns` is the wall clock."""

    def __init__(self, monitor: Monitor, utc_ns: Callable[[], int] = time.time_ns) -> None:
        self._monitor, self._utc_ns = monitor, utc_ns
        self._lines_before = dict(lines)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        notes = Counter("dea_notes", "What the core noted, by event", ["event"], registry=self._registry)
        self._notes = {event: notes.labels(event) for event in (*NOTES, "other")}
        self._decision_s = Histogram(
            "dea_decision_seconds",
            "From a tick until all its decision asked for was handed to the sockets",
            buckets=BUCKETS_S,
            registry=self._registry,
        )

    def decided(self, decision: Decision) -> None:
        """Count a decision: two microseconds."""
        for note in decision.notes:
            self._notes.get(note.event, self._notes["other"]).inc()
        if decision.record is not None:
            self._decision_s.observe((self._utc_ns() - decision.record.utc_ns) / 1e9)

    def exposition(self) -> bytes:
        """All of it as text. Call it from the trading loop: the status is read from the core's own state."""
        found = [*families(self._monitor.status()), self._logged()]
        return "".join(_lines(found)).encode() + generate_latest(self._registry)

    def _logged(self) -> Family:
        """What is logged and no decision notes, since this run began."""
        samples = [(labels("event", name), lines[name] - self._lines_before.get(name, 0)) for name in COUNTED]
        return "dea_log_lines_total", "counter", "Lines logged, by event", samples


def families(status: dict[str, Any]) -> Iterator[Family]:
    """Every metric a status holds."""
    yield from _run(status)
    yield from _money(status)
    yield from _counts(status["counts"])
    yield from _factors(status["factors"])
    yield from _options(status["greeks"], status["option_counts"])
    yield from _surfaces(status["surfaces"])
    yield from _contracts(status["instruments"])
    yield from _limits(status)
    yield from _feeds(status["feeds"])
    yield from _pools(status["pools"])
    yield from _latency(status["latency"])
    yield from _forecasters(status["contenders"], status["forecasters"])
    yield from _slow_factors(status["slow_factors"])


# --- parts of the status ---------------------------------------------------------------------------------------


def _gauge(name: str, text: str, value: Any) -> Family:
    return name, "gauge", text, [("", value)]


def _run(status: dict[str, Any]) -> Iterator[Family]:
    yield "dea_build_info", "gauge", "The version that runs", [(labels("version", status["version"]), 1)]
    yield _gauge("dea_start_time_seconds", "When this run began, since 1970", status["started_utc_ns"] / 1e9)
    modes = [mode.name.lower() for mode in Mode]
    hot = [(labels("mode", mode), mode == status["mode"]) for mode in modes]
    yield "dea_mode", "gauge", "1 for the mode it is in", hot
    yield _gauge("dea_armed", "Whether it may send orders", status["armed"])
    yield _gauge("dea_healthy", "Whether it can do its work", status["healthy"])
    yield _gauge("dea_ready", "Whether every account agreed with its venue", status["ready"])
    yield _gauge("dea_recording", "Whether the ledger accepts writes", status["recording"])
    yield _gauge("dea_draining", "Whether it is ending", status["draining"])
    yield _gauge("dea_watched", "0: the watchdog that was asked for is gone", status["watched"])
    yield _gauge("dea_contracts_closed", "Contracts closed by the venue's announcement", status["contracts_closed"])
    yield _gauge("dea_contracts_regridded", "Contracts with other lots or ticks by now", status["contracts_regridded"])
    pegs = [(labels("currency", currency), price) for currency, price in status["pegs"].items()]
    yield "dea_peg_usd", "gauge", "Price of a stablecoin", pegs
    yield _gauge("dea_decision_age_seconds", "Since the last decision", status["decision_age_s"])
    yield _gauge("dea_orders_live", "Own orders that may still fill", len(status["orders"]))
    yield _gauge("dea_clips", "Things a limit cut in the last decision", len(status["clips"]))


def _money(status: dict[str, Any]) -> Iterator[Family]:
    yield _gauge("dea_equity_usd", "Equity of all accounts", status["equity_usd"])
    yield _gauge("dea_peak_equity_usd", "The most it has been", status["peak_equity_usd"])
    yield _gauge("dea_drawdown_ratio", "Part of the peak lost", status["drawdown"])
    yield _gauge("dea_fees_usd", "Fees paid in this run; rebates are negative", status["fees_usd"])
    yield _gauge("dea_funding_usd", "Funding received in this run", status["funding_usd"])
    yield _gauge("dea_turnover_hour_usd", "Turnover of the last hour", status["turnover_hour_usd"])
    yield _gauge("dea_fees_hour_usd", "Fees of the last hour", status["fees_hour_usd"])


_COUNTS = {
    "decisions": "Decisions made",
    "events": "Events folded",
    "orders_sent": "Orders sent",
    "cancels_sent": "Cancels sent",
    "fills": "Fills booked",
    "rejects": "Orders the venue refused",
    "unknown_outcomes": "Orders without an answer",
    "limits_breached": "Limits of exposure found breached, in each decision anew",
    "gaps": "Gaps in books",
}


def _counts(counts: dict[str, int]) -> Iterator[Family]:
    for key, text in _COUNTS.items():
        yield f"dea_{key}_total", "counter", text, [("", counts[key])]


def _table(
    rows: list[tuple[str, dict[str, Any]]], columns: Iterable[tuple[str, str, str, str, float]]
) -> Iterator[Family]:
    """One metric a column (name, type, key in the row, help, factor to its unit), one sample a row."""
    for name, kind, key, text, scale in columns:
        samples = [(at, value * scale if (value := row[key]) is not None else None) for at, row in rows]
        yield name, kind, text, samples


def _factors(factors: list[dict[str, Any]]) -> Iterator[Family]:
    rows = [(labels("factor", line["factor"]), line) for line in factors[:CONTRACTS]]
    yield from _table(
        rows,
        (
            ("dea_factor_price_usd", "gauge", "price", "Price of a factor's underlying", 1),
            ("dea_volatility_ratio", "gauge", "annual_vol", "Forecast volatility, a year", 1),
            ("dea_exposure_usd", "gauge", "actual_usd", "Exposure held", 1),
            ("dea_exposure_target_usd", "gauge", "target_usd", "Exposure wanted", 1),
            ("dea_exposure_band_usd", "gauge", "band_usd", "Half-width of the band around the target", 1),
        ),
    )


def _options(greeks: dict[str, dict[str, Any]], counts: dict[str, int]) -> Iterator[Family]:
    rows = [(labels("underlying", underlying), line) for underlying, line in list(greeks.items())[:CONTRACTS]]
    yield from _table(
        rows,
        (
            ("dea_gamma_usd_1pct", "gauge", "gamma_usd_1pct", "Change of the dollar delta for a move of 1 %", 1),
            ("dea_vega_usd_1pt", "gauge", "vega_usd_1pt", "Per vol point, weighted to 30 days", 1),
            ("dea_theta_usd_day", "gauge", "theta_usd_day", "Value lost or won by a day's passing", 1),
            ("dea_carry_usd_day", "gauge", "carry_usd_day", "Funding and basis earned in a day, as now", 1),
        ),
    )
    yield _gauge("dea_options_listed", "Options there are", counts["listed"])
    yield _gauge("dea_options_modelled", "Options whose Greeks rest on less than fresh quotes", counts["modelled"])
    yield _gauge("dea_greeks_off", "Options whose Greeks the venue contradicts", counts["greeks_off"])


def _surfaces(surfaces: list[dict[str, Any]]) -> Iterator[Family]:
    rows = [(labels("underlying", line["underlying"]), line) for line in surfaces[:CONTRACTS]]
    doubted = [(at, not line["relied"]) for at, line in rows]
    yield "dea_surface_doubted", "gauge", "Whether the volatility surface may not be relied upon", doubted
    yield from _table(
        rows,
        (
            ("dea_surface_age_seconds", "gauge", "age_s", "Since it was asked for, with quotes fresh then", 1),
            ("dea_surface_inside_ratio", "gauge", "inside", "Part of its quotes with it between bid and ask", 1),
            ("dea_surface_rmse_vol_points", "gauge", "rmse_vol_pts", "How far it is from their mids", 1),
            ("dea_surface_fit_seconds", "gauge", "fit_ms", "How long the last fit took", 1e-3),
        ),
    )


def _contracts(instruments: list[dict[str, Any]]) -> Iterator[Family]:
    told, rest = instruments[:CONTRACTS], instruments[CONTRACTS:]
    rows = [(labels("account", row["account"], "contract", row["instrument"]), row) for row in told]
    lots = [(at, row["position_lots"]) for at, row in rows]
    yield "dea_position_lots", "gauge", "Position held; lots of several contracts have no sum", lots
    if rest:
        sizes = [row["notional_usd"] for row in rest]
        summed = {
            "notional_usd": None if None in sizes else sum(map(abs, sizes)),
            "fresh": all(row["fresh"] for row in rest),
        }
        rows.append((labels("account", "other", "contract", "other"), summed))
    yield from _table(
        rows,
        (
            ("dea_position_notional_usd", "gauge", "notional_usd", "Position held; of others the sum of sizes", 1),
            ("dea_price_fresh", "gauge", "fresh", "Whether book and mark may be relied upon", 1),
        ),
    )


def _limits(status: dict[str, Any]) -> Iterator[Family]:
    """Used and allowed in the limit's own unit. Of those that share labels, the one most used."""
    contracts = {row["instrument"] for row in status["instruments"][:CONTRACTS]}
    worst: dict[str, dict[str, Any]] = {}
    for use in status["limits"]:
        known = use["limit"] != "instrument" or use["subject"] in contracts
        at = labels("limit", use["limit"], "subject", use["subject"] if known else "other")
        if at not in worst or _share(use) > _share(worst[at]):
            worst[at] = use
    yield from _table(
        list(worst.items()),
        (
            ("dea_limit_used", "gauge", "used", "How much of a limit is used, in its unit (USD, ratio, orders)", 1),
            ("dea_limit_allowed", "gauge", "allowed", "How much it allows", 1),
        ),
    )


def _share(use: dict[str, Any]) -> float:
    """Part of a limit used; what is not known is the worst."""
    if use["used"] is None or not use["allowed"]:
        return float("inf")
    return abs(float(use["used"])) / float(use["allowed"])


def _feeds(feeds: list[dict[str, Any]]) -> Iterator[Family]:
    rows = [(labels("account", row["account"], "feed", row["feed"]), row) for row in feeds]
    yield from _table(
        rows,
        (
            ("dea_feed_ready", "gauge", "ready", "Whether it is connected and subscribed", 1),
            ("dea_feed_age_seconds", "gauge", "age_s", "Since its last message", 1),
            ("dea_feed_offset_seconds", "gauge", "offset_ms", "Our clock minus the venue's, with the way", 1e-3),
            ("dea_feed_messages_total", "counter", "messages", "Messages received", 1),
            ("dea_feed_received_bytes_total", "counter", "bytes", "Bytes received", 1),
            ("dea_feed_connects_total", "counter", "connects", "Connections made", 1),
            ("dea_feed_refused_total", "counter", "refused", "Messages that made no sense", 1),
            ("dea_feed_gaps_total", "counter", "gaps", "Gaps found", 1),
        ),
    )


def _pools(pools: list[dict[str, Any]]) -> Iterator[Family]:
    rows = [(labels("account", row["account"], "currency", row["currency"]), row) for row in pools]
    yield from _table(
        rows,
        (
            ("dea_pool_equity", "gauge", "equity", "Equity of a margin pool, in its currency", 1),
            ("dea_pool_cash", "gauge", "cash", "Cash of a margin pool, in its currency", 1),
            ("dea_pool_initial_margin", "gauge", "initial_margin", "Margin that orders need, in its currency", 1),
            ("dea_pool_maintenance_margin", "gauge", "maintenance_margin", "Margin that liquidation minds", 1),
        ),
    )


def _latency(latency: dict[str, dict[str, float | None]]) -> Iterator[Family]:
    rows = [(labels("stage", stage), latency[f"{stage}_us"]) for stage in STAGES if f"{stage}_us" in latency]
    yield from _table(
        rows,
        (
            ("dea_latency_p50_seconds", "gauge", "p50", "Half of a stage's times are below", 1e-6),
            ("dea_latency_p99_seconds", "gauge", "p99", "99 of 100 of a stage's times are below", 1e-6),
        ),
    )


CONTENDER_STATES = ("shadow", "traded", "proposed", "demoted")


def _forecasters(contenders: list[dict[str, Any]], forecasters: list[dict[str, Any]]) -> Iterator[Family]:
    rows = [(labels("name", line["name"]), line) for line in contenders[:CONTRACTS]]
    yield from _table(
        rows,
        (
            ("dea_forecaster_weight", "gauge", "weight", "Part of a forecaster that is traded", 1),
            ("dea_forecaster_p", "gauge", "p", "Evidence that what trades would lose less with it: small is strong", 1),
            ("dea_forecaster_drift", "gauge", "drift", "How near its alarm its loss has risen", 1),
        ),
    )
    states = [
        (labels("name", line["name"], "state", state), state == line["state"])
        for line in contenders[:CONTRACTS]
        for state in CONTENDER_STATES
    ]
    yield "dea_forecaster_state", "gauge", "1 for the state it is in", states
    scored = [line for line in forecasters if line["r_squared"] is not None][:CONTRACTS]
    r_squared = [(labels("name", line["name"], "underlying", line["underlying"]), line["r_squared"]) for line in scored]
    yield "dea_forecaster_r_squared", "gauge", "Against a forecast of zero, of outcomes so far", r_squared


def _slow_factors(factors: list[dict[str, Any]]) -> Iterator[Family]:
    rows = [(labels("name", line["name"]), line) for line in factors[:CONTRACTS]]
    yield from _table(
        rows,
        (
            ("dea_slow_factor_z", "gauge", "z", "Standard deviations from its own past, less with age", 1),
            ("dea_slow_factor_age_seconds", "gauge", "age_days", "Since the time it is about", 86_400),
            ("dea_slow_factor_valid", "gauge", "valid", "Whether it says anything", 1),
        ),
    )


# --- as text ---------------------------------------------------------------------------------------------------


def _lines(found: Iterable[Family]) -> Iterator[str]:
    """The lines of Prometheus' text format 0.0.4. An unknown gauge is NaN; an unknown count is left out."""
    for name, kind, text, samples in found:
        yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
        for at, value in samples:
            if value is not None:
                yield f"{name}{at} {float(value)!r}\n"
            elif kind == "gauge":
                yield f"{name}{at} NaN\n"


@lru_cache(4_096)
def labels(*pairs: str) -> str:
    """Names and values in turn, as they are written behind a metric's name."""
    values = (value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for value in pairs[1::2])
    return "{" + ",".join(f'{name}="{value}"' for name, value in zip(pairs[::2], values, strict=True)) + "}"
