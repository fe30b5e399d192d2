"""`run.finished`: what a run did, in one record and in a table."""

from typing import Any

import numpy as np

from dea_daemon.domain.instruments import Universe
from dea_daemon.engine import State
from dea_daemon.shell.greeks import DELTA, by_underlying, curved
from dea_daemon.shell.stats import Stats


def summary(state: State, stats: Stats, universe: Universe, drained: bool) -> dict[str, Any]:
    """The fields of the last line; exposure per underlying as of the last decision."""
    account, last = state.account, stats.last
    lines = last.factors if last is not None else ()
    exposure = {
        line.factor.removeprefix(DELTA): {
            "target_usd": round(line.target_usd, 2),
            "actual_usd": round(line.actual_usd, 2),
            "band_usd": round(line.band_usd, 2),
        }
        for line in lines
        if line.factor.startswith(DELTA)
    }
    greeks = curved(by_underlying((line.factor, line.actual_usd) for line in lines))
    positions = {
        universe.instruments[row].name: int(account.position_lots[row]) for row in np.flatnonzero(account.position_lots)
    }
    return {
        "event": "run.finished",
        "decisions": stats.decisions,
        "events": stats.events,
        "orders_sent": stats.orders_sent,
        "cancels_sent": stats.cancels_sent,
        "fills": stats.fills,
        "rejects": stats.notes["order.rejected"],
        "unknown_outcomes": stats.notes["order.outcome_unknown"],
        "open_orders": len(account.orders.live()),
        "reconciled": drained and all(account.agreed[a] for a in account.traded) and not account.drift,
        "drained": drained,
        "limits_breached": stats.limits_breached,
        "mode": account.mode.name.lower(),
        "armed": account.armed,
        "exposure": exposure,
        **({"greeks": greeks} if greeks else {}),
        "position_lots": positions,
        "equity_usd": round(last.equity_usd, 2) if last is not None else float("nan"),
        "fees_usd": round(account.total_fees_usd, 4),
        "funding_usd": round(account.total_funding_usd, 4),
        "gaps": state.market.gaps,
        **stats.latencies(),
    }


def within_bands(finished: dict[str, Any]) -> bool:
    """Whether every targeted exposure ended inside its band."""
    return all(
        abs(line["actual_usd"] - line["target_usd"]) <= line["band_usd"]
        for line in finished["exposure"].values()
        if line["band_usd"] == line["band_usd"]
    )
