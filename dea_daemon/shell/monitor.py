"""What a running daemon shows of itself: one status, and the recent past, for whoever watches.

Everything here is plain JSON (not-a-number is None), read from the core's state between two events, and bounded.
"""

import base64
import math
import os
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dea_daemon import __version__
from dea_daemon.domain.decisions import Decision, DecisionRecord, FactorLine, Note, OrderLine, View
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.engine import State
from dea_daemon.forecast.learners import LearnerMemory
from dea_daemon.shell import exposure, forecaster_text, problems, surface_figures
from dea_daemon.shell.greeks import DELTA, by_underlying
from dea_daemon.shell.plain import plain
from dea_daemon.shell.runner import Runner
from dea_daemon.shell.sockets import VenueSocket
from dea_daemon.state.market import Market
from dea_daemon.state.view import account_fresh

SCHEMA = 1
POINTS, DECISIONS, ACTED, FILLS, NOTES = 3_600, 2_000, 500, 500, 100  # how much of the past is kept
WORDS = 48  # of the forecasters, who speak once an hour, and when they are ruled on
POINT_EVERY_NS = NS_PER_S
RECENT = 20
LATENCIES = 1_000  # samples
SILENT_S = 5.0  # without a decision for this long, something is wrong


class Monitor:
    """Listens to a runner's decisions. `utc_ns` is the wall clock, `now_ns` the receipt clock."""

    def __init__(
        self,
        runner: Runner,
        sockets: list[VenueSocket],
        *,
        now_ns: Callable[[], int],
        utc_ns: Callable[[], int],
        state_dir: Path,
        config: Path | None,
        run_id: str,
        stored: Callable[[int | None], dict[str, Any] | None] = lambda seq: None,
    ) -> None:
        self._runner, self._sockets = runner, sockets
        self._now_ns, self._utc_ns = now_ns, utc_ns
        self._stored = stored  # decisions older than those in memory
        self._facts = {
            "schema": SCHEMA,
            "version": __version__,
            "pid": os.getpid(),
            "run_id": run_id,
            "config": str(config.absolute()) if config else None,
            "state_dir": str(state_dir.absolute()),
            "started_utc_ns": utc_ns(),
        }
        self._started_ns = now_ns()
        self._records: deque[DecisionRecord] = deque(maxlen=DECISIONS)
        self._acted: deque[dict[str, Any]] = deque(maxlen=ACTED)
        self._orders: deque[tuple[DecisionRecord, OrderLine]] = deque(maxlen=RECENT)
        self._points: deque[dict[str, Any]] = deque(maxlen=POINTS)
        self._fills: deque[dict[str, Any]] = deque(maxlen=FILLS)
        self._notes: deque[dict[str, Any]] = deque(maxlen=NOTES)
        self._words: deque[dict[str, Any]] = deque(maxlen=WORDS)
        self._said = self._learners.told
        self._filled = 0
        self._next_point_ns = 0
        self._told: frozenset[tuple[str, str]] = frozenset()
        self._latency: tuple[int, dict[str, Any]] = (-POINT_EVERY_NS, {})
        runner.listeners.append(self.observe)

    # --- in --------------------------------------------------------------------------------------

    def observe(self, decision: Decision) -> None:
        """Remember a decision and what was noted."""
        for note in decision.notes:
            self._note(note)
        record = decision.record
        if record is None:
            return
        self._records.append(record)
        if self._learners.told is not self._said:
            self._said = self._learners.told
            self._words.append(self._forecasters() | {"said_seq": record.seq})
        clips = frozenset((clip.limit, clip.subject) for clip in record.clips)
        if record.orders or record.notes or clips != self._told:
            self._acted.append(_json(record))
        self._told = clips
        self._orders.extend((record, line) for line in record.orders)
        if record.ts_recv_ns >= self._next_point_ns:
            self._next_point_ns = record.ts_recv_ns + POINT_EVERY_NS
            self._points.append(_point(record, self._runner.state.account.peak_equity_usd))

    def _note(self, note: Note) -> None:
        utc_ns = self._utc_ns()
        if note.event == "order.filled":
            self._filled += 1
            self._fills.append({"n": self._filled, "utc_ns": utc_ns, **note.fields})
        text = "  ".join(f"{name}={value}" for name, value in note.fields.items())
        self._notes.append({"utc_ns": utc_ns, "event": note.event, "text": text[:500]})

    # --- the recent past --------------------------------------------------------------------------

    def points(self, after: int) -> list[dict[str, Any]]:
        """For charts, one a second: seq, time, equity, drawdown, factors [actual, target, band], limits used."""
        return [point for point in self._points if point["seq"] > after]

    def decisions(self, after: int) -> list[dict[str, Any]]:
        """Those that acted, noted something, or were clipped in a way the one before was not."""
        return [record for record in self._acted if record["seq"] > after]

    def fills(self, after: int) -> list[dict[str, Any]]:
        """Fills numbered from 1, those after a number."""
        return [_json(fill) for fill in self._fills if fill["n"] > after]

    def decision(self, seq: int | None) -> dict[str, Any] | None:
        """One decision's record; None asks for the last, and is the answer where it is not known."""
        if not self._records:
            return None if seq is None else self._stored(seq)
        first, last = self._records[0].seq, self._records[-1].seq
        if seq is not None and not first <= seq <= last:
            stored = self._stored(seq)
            return stored and self._with_words(stored)
        return self._with_words(_json(self._records[(last if seq is None else seq) - first]))

    def _with_words(self, told: dict[str, Any]) -> dict[str, Any]:
        """A record with what the forecasters had said last, and when: most decisions hear nothing new of them."""
        words = [words for words in self._words if words["said_seq"] <= told["seq"]]
        return told if forecaster_text.spoke(told) or not words else told | words[-1]

    def exposure(self) -> dict[str, Any] | None:
        """What the last decision's book is exposed to, factor by factor and contract by contract; None before one."""
        view = self._runner.state.view
        told: dict[str, Any] | None = None if view is None else _json(exposure.exposure(view))
        return told

    def surface(self) -> dict[str, Any]:
        """The volatility surfaces options are valued from, with the quotes of the last decision."""
        state = self._runner.state
        told: dict[str, Any] = _json(surface_figures.surfaces(state.market, state.view, self._utc_ns()))
        return told

    def problem(self) -> dict[str, Any] | None:
        """The last allocation problem that had to be solved, a file's bytes in base64; None before one."""
        memory = self._runner.state.memory.allocator
        if memory.problem is None:
            return None
        return {"seq": memory.seq, "npz": base64.b64encode(problems.packed(memory.problem)).decode()}

    # --- now --------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Everything there is to see, about a millisecond's work. Of options that are not held only the count."""
        state, stats = self._runner.state, self._runner.stats
        account, last, now_ns = state.account, stats.last, self._now_ns()
        view = state.view
        age_s = (now_ns - (last.ts_recv_ns if last else self._started_ns)) / NS_PER_S
        feeds = [self._feed(socket, now_ns) for socket in self._sockets]
        unhealthy = list(_unhealthy(state, now_ns, age_s, feeds))
        status = self._facts | {
            "now_utc_ns": self._utc_ns(),
            "uptime_s": (now_ns - self._started_ns) / NS_PER_S,
            "armed": account.armed,
            "mode": account.mode.name.lower(),
            "mode_why": account.mode_why if account.mode else "",
            "ready": account.ready,
            "recording": account.recording,
            "draining": account.draining,
            "watched": account.watched,
            **_contracts_shut(state.market),
            "pegs": _pegs(state.market),
            "healthy": not unhealthy,
            "unhealthy": unhealthy,
            "seq": state.seq,
            "decision_age_s": age_s,
            "equity_usd": last.equity_usd if last else math.nan,
            "peak_equity_usd": account.peak_equity_usd,
            "drawdown": _drawdown(last.equity_usd if last else math.nan, account.peak_equity_usd),
            "fees_usd": account.total_fees_usd,
            "funding_usd": account.total_funding_usd,
            "turnover_hour_usd": account.budgets.turnover_hour.total,
            "fees_hour_usd": account.budgets.fees_hour.total,
            "counts": {
                "decisions": stats.decisions,
                "events": stats.events,
                "orders_sent": stats.orders_sent,
                "cancels_sent": stats.cancels_sent,
                "fills": stats.fills,
                "rejects": stats.notes["order.rejected"],
                "unknown_outcomes": stats.notes["order.outcome_unknown"],
                "limits_breached": stats.limits_breached,
                "gaps": state.market.gaps,
            },
            "factors": _deltas(last),
            "greeks": by_underlying((line.factor, line.actual_usd) for line in last.factors) if last else {},
            "options": exposure.held_options(view) if view else (),
            "option_counts": _option_counts(view),
            "surfaces": surface_figures.lines(state.market, self._utc_ns()),
            "limits": last.uses if last else (),
            "clips": last.clips if last else (),
            "instruments": list(_instruments(state, now_ns)),
            "orders": list(_orders(state, now_ns)),
            "recent_orders": [_order(record, line) for record, line in self._orders],
            "recent_fills": list(islice(reversed(self._fills), RECENT))[::-1],
            "recent_notes": list(islice(reversed(self._notes), 30))[::-1],
            "feeds": feeds,
            "pools": list(_pools(state)),
            "latency": self._latencies(now_ns),
            **self._forecasters(),
            "slow_factors": list(_slow(view, state.market)),
        }
        told: dict[str, Any] = _json(status)
        return told

    @property
    def _learners(self) -> LearnerMemory:
        return self._runner.state.memory.forecast.learners

    def _forecasters(self) -> dict[str, Any]:
        """What each said last, and how each is on trial."""
        told: dict[str, Any] = _json({"forecasters": self._learners.told, "contenders": self._learners.contenders})
        return told

    def _feed(self, socket: VenueSocket, now_ns: int) -> dict[str, Any]:
        account = self._runner.state.account.universe.accounts[socket.codec.account]
        return {"account": str(account), **socket.health_line(now_ns)}

    def _latencies(self, now_ns: int) -> dict[str, Any]:
        """Percentiles of what is recent, reckoned once a second."""
        if now_ns - self._latency[0] >= POINT_EVERY_NS:
            self._latency = (now_ns, self._runner.stats.latencies(LATENCIES))
        return self._latency[1]


def _json(value: Any) -> Any:
    """Through JSON and back: numpy's scalars become plain, NaN becomes None, tuples lists."""
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=plain))


def _unhealthy(state: State, now_ns: int, age_s: float, feeds: Iterable[dict[str, Any]]) -> Iterable[str]:
    """Why the daemon cannot do its work; a mode an operator chose is no illness."""
    if age_s > SILENT_S:
        yield f"no decision for {age_s:.0f} s"
    if not state.account.recording:
        yield "the ledger refuses writes"
    if not state.account.watched:
        yield "no watchdog"
    if state.memory.allocator.held:
        yield "no book can be chosen: held as it is"
    if not state.account.ready:
        yield "account not reconciled yet"
    elif not account_fresh(state.account, now_ns):
        yield "account stream or report is stale"
    for feed in feeds:
        if not feed["ready"]:
            yield f"feed {feed['feed']} is not connected"


def _contracts_shut(market: Market) -> dict[str, int]:
    """How many take no orders by the venue's announcement, and how many changed their lots or ticks."""
    regridded, shut = market.regridded, market.shut()
    return {"contracts_closed": int((shut & ~regridded).sum()), "contracts_regridded": int(regridded.sum())}


def _pegs(market: Market) -> dict[str, float]:
    """USD prices heard of stablecoins."""
    stable = market.params.state.stable_currencies
    return {currency: price for currency, price in market.currency_price.items() if currency in stable}


def _drawdown(equity_usd: float, peak_usd: float) -> float:
    return 1.0 - equity_usd / peak_usd if peak_usd > 0.0 else math.nan


def _point(record: DecisionRecord, peak_usd: float) -> dict[str, Any]:
    limits = {
        f"{use.limit} {use.subject}".strip(): abs(use.used) / use.allowed if use.allowed else None
        for use in record.uses
    }
    point = {
        "seq": record.seq,
        "utc_ns": record.utc_ns,
        "equity_usd": record.equity_usd,
        "drawdown": _drawdown(record.equity_usd, peak_usd),
        "mode": record.mode.name.lower(),
        "factors": {line.factor: [line.actual_usd, line.target_usd, line.band_usd] for line in _deltas(record)},
        "limits": limits,
    }
    found: dict[str, Any] = _json(point)
    return found


def _deltas(record: DecisionRecord | None) -> tuple[FactorLine, ...]:
    """The factors that are aimed at and drawn: dollar deltas. The others are told as Greeks."""
    return tuple(line for line in record.factors if line.factor.startswith(DELTA)) if record else ()


def _option_counts(view: View | None) -> dict[str, int]:
    if view is None:
        return dict.fromkeys(("listed", "modelled", "greeks_off"), 0)
    options = view.universe.option[: len(view.iv)]  # contracts listed since the decision are behind these
    return {
        "listed": int(options.sum()),
        "modelled": int((options & view.modelled).sum()),
        "greeks_off": int((options & view.greeks_off).sum()),
    }


def _slow(view: View | None, market: Market) -> Iterable[dict[str, Any]]:
    """Each slow factor, and why it says nothing where it does not."""
    if view is None:
        return
    slow, specs = view.slow, market.params.factors
    for name, z, age_days, valid in zip(slow.names, slow.z, slow.age_days, slow.valid, strict=True):
        stale_days = specs[name].stale_days if name in specs else math.nan
        unknown = "too little is known of it" if math.isinf(age_days) else f"older than {stale_days:g} days"
        told = {"name": name, "z": z, "age_days": age_days if math.isfinite(age_days) else math.nan}
        yield told | {"valid": bool(valid), "why": "" if valid else unknown}


def _instruments(state: State, now_ns: int) -> Iterable[dict[str, Any]]:
    """Every contract but options that are neither held nor worked in (there may be hundreds), and what has ended."""
    market, account = state.market, state.account
    fresh = market.fresh(now_ns)
    utc_ns = state.view.utc_ns if state.view is not None else now_ns
    ended = (account.universe.expiry_ns > 0) & (account.universe.expiry_ns <= utc_ns)
    shown = ~(account.universe.option | ended) | (account.position_lots != 0)
    for order in account.orders.live():
        shown[order.row] = True
    per_lot = np.full(len(account.universe), math.nan)
    if (view := state.view) is not None:
        per_lot[: len(view.notional_per_lot_usd)] = view.notional_per_lot_usd
    for i in np.flatnonzero(shown).tolist():
        lots = int(account.position_lots[i])
        yield {
            "instrument": account.universe.instruments[i].name,
            "account": str(account.universe.accounts[account.universe.account[i]]),
            "bid": market.bid[i],  # of the last decision, as are the asks
            "ask": market.ask[i],
            "mark": market.mark[i],
            "index": market.index[i],
            "position_lots": lots,
            "notional_usd": lots * per_lot[i] if lots else 0.0,
            "fresh": bool(fresh[i]),
        }


def _orders(state: State, now_ns: int) -> Iterable[dict[str, Any]]:
    for order in state.account.orders.live():
        instrument = state.account.universe.instruments[order.row]
        yield {
            "client_order_id": order.client_order_id,
            "instrument": instrument.name,
            "side": order.side.value,
            "lots": order.lots,
            "filled_lots": order.filled_lots,
            "price": str(instrument.ticks_to_price(order.price_ticks)),
            "state": order.state.value,
            "age_s": (now_ns - order.created_ns) / NS_PER_S,
        }


def _order(record: DecisionRecord, line: OrderLine) -> dict[str, Any]:
    return {"seq": record.seq, "utc_ns": record.utc_ns, **msgspec.structs.asdict(line)}


def _pools(state: State) -> Iterable[dict[str, Any]]:
    for (account, currency), pool in state.account.pools.items():
        yield {
            "account": str(state.account.universe.accounts[account]),
            "currency": currency,
            "equity": pool.equity,
            "cash": pool.cash,
            "initial_margin": pool.initial_margin,
            "maintenance_margin": pool.maintenance_margin,
        }
