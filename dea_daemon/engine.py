"""The engine: one deterministic function of its events, composed of the rooms. Read this second.

It reads no clock, opens no socket, draws no random number, writes no log. Live, paper, demo, backtest and
replay are this same `step` with another source of events and another sink of commands.
"""

from dataclasses import dataclass, field

import numpy as np

from dea_daemon.allocator import allocate as allocation
from dea_daemon.domain.commands import Approved, CancelOrder, CreateOrder, Outgoing
from dea_daemon.domain.decisions import (
    NOTHING,
    Clip,
    Decision,
    DecisionRecord,
    FactorLine,
    Forecast,
    OrderLine,
    Permit,
    Target,
    View,
)
from dea_daemon.domain.events import (
    AnyEvent,
    DecisionDue,
    ForecasterRuled,
    InstrumentsListed,
    ModelFitted,
    ParametersReloaded,
    PricesRecalled,
    RunStarted,
)
from dea_daemon.domain.factors import FactorIndex
from dea_daemon.domain.instruments import Universe
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.domain.parameters import Parameters
from dea_daemon.execution import costs
from dea_daemon.execution import plan as execution
from dea_daemon.forecast import volatility
from dea_daemon.guards.admit import admit
from dea_daemon.guards.guard import guard
from dea_daemon.state.account import Account
from dea_daemon.state.effects import Effects
from dea_daemon.state.market import Market
from dea_daemon.state.view import build_view


@dataclass(slots=True)
class Memory:
    """What the rooms have learned: one struct each, written only between decisions."""

    forecast: volatility.VolatilityMemory
    allocator: allocation.AllocatorMemory
    execution: execution.ExecutionMemory
    costs: costs.CostMemory


@dataclass(slots=True)
class State:
    """Everything the daemon knows."""

    market: Market
    account: Account
    memory: Memory
    factors: FactorIndex
    effects: Effects = field(default_factory=Effects)
    seq: int = 0
    clock_offset_ns: int | None = None  # wall clock minus receipt clock at the last tick
    view: View | None = None  # what the last decision was made from, for those who look on


def begin(started: RunStarted) -> tuple[State, Parameters]:
    """The state a run starts from: all it knows of the past is in its first event."""
    params = Parameters.model_validate_json(started.parameters)
    universe = Universe(started.accounts, started.rows)
    factors = FactorIndex(universe.underlyings, started.currencies)
    allocation.solver(params.allocator)  # loaded before there is a market to wait for it
    memory = Memory(
        forecast=volatility.VolatilityMemory(len(universe.underlyings)),
        allocator=allocation.AllocatorMemory(len(universe.underlyings)),
        execution=execution.ExecutionMemory(len(universe.underlyings)),
        costs=costs.CostMemory(),
    )
    memory.forecast.trial.restore(started.kept)
    costs.recall(memory.costs, started.lessons, started.ts_recv_ns, params.execution)
    return State(Market(universe, params), Account(universe, started, params), memory, factors), params


def reload(state: State, event: ParametersReloaded) -> Parameters:
    """The parameters to step with from this event on (it is stepped, too)."""
    params = Parameters.model_validate_json(event.parameters)
    state.market.params = state.account.params = params
    return params


def step(state: State, event: AnyEvent, params: Parameters) -> Decision:
    """Fold one event; on the tick, decide."""
    effects = state.effects
    effects.clear()
    state.market.fold(event, effects)
    booked = len(state.account.new_fills)
    state.account.fold(event, state.market, effects)
    if len(state.account.new_fills) > booked:
        _filled(state, booked)
    if isinstance(event, InstrumentsListed):
        state.view = None  # it has fewer rows than there are now
    elif isinstance(event, PricesRecalled):
        volatility.recall(state.memory.forecast, event, params.forecast)
    elif isinstance(event, ModelFitted):
        effects.notes += volatility.fitted(state.memory.forecast, event, params.forecast)
    elif isinstance(event, ForecasterRuled):
        utc_ns, universe = event.ts_recv_ns + (state.clock_offset_ns or 0), state.market.universe
        effects.notes += volatility.ruled(state.memory.forecast, event, utc_ns, universe, params.forecast)
    if not isinstance(event, DecisionDue):
        if effects.commands or effects.notes or effects.wake:
            return Decision(tuple(effects.commands), None, effects.wake, tuple(effects.notes))
        return NOTHING
    return _decide(state, event, params, effects)


def _decide(state: State, due: DecisionDue, params: Parameters, effects: Effects) -> Decision:
    """View → Forecast → Target → Permit → commands → approved, then the decision itself is folded."""
    clock_step_ns = _tick(state, due, effects)
    state.seq += 1
    view = build_view(state.account, state.market, state.factors, due, state.seq, clock_step_ns, effects)
    state.view = view
    state.market.surfaces.ask(state.market, view, effects)
    effects.notes += volatility.observe(state.memory.forecast, view, params.forecast)
    if (question := volatility.asked(state.memory.forecast, view, params.forecast)) is not None:
        effects.commands.append(question)
    forecast = volatility.predict(view, state.memory.forecast, params.forecast)
    target = _target(state, view, forecast, params)
    permit = guard(view, target.position_lots, params.guards)
    execution.observe(state.memory.execution, permit, params.execution)
    planned = execution.plan(
        permit,
        state.memory.execution,
        params.execution,
        order_cap_usd=params.guards.max_order_usd,
        band=None if view.mode is Mode.FLATTENING else target.limits_usd,
    )
    outgoing, refusals = admit(permit, planned, params.guards)
    # Folded before it leaves: what is sent is in flight, and its worst case counts from here on.
    if not permit.doubted.any():  # a false price must not leave a peak nobody reached
        state.account.peak_equity_usd = view.peak_equity_usd
        state.account.day, state.account.day_equity_usd = view.day, view.day_equity_usd
    state.account.set_mode(permit.mode, permit.mode_why, effects)
    creates = sum(isinstance(command, CreateOrder) for command in planned)
    state.account.sent(outgoing, creates, due.ts_recv_ns, effects)
    record = _record(state, due, view, forecast, target, permit, outgoing, refusals)
    measured = costs.observe(
        state.memory.costs,
        state.memory.execution,
        view,
        forecast,
        outgoing,
        state.account.orders.own,
        params.execution,
    )
    return Decision((*effects.commands, *outgoing), record, "", (*effects.notes, *measured))


def _filled(state: State, booked: int) -> None:
    """What this event executed, beside the book as it stood when that was heard of."""
    market = state.market
    market.touch()
    for fill, _, fee_usd in state.account.new_fills[booked:]:
        bid, ask = float(market.bid[fill.row]), float(market.ask[fill.row])
        costs.filled(state.memory.costs, fill, fee_usd, bid, ask, market.universe)


def _tick(state: State, due: DecisionDue, effects: Effects) -> int:
    """Time passed, in every room that minds it. Returns by how much the wall clock stepped, ns."""
    state.market.tick(due.ts_recv_ns, effects)
    state.account.tick(due.ts_recv_ns, effects)
    offset = due.utc_ns - due.ts_recv_ns
    stepped = 0 if state.clock_offset_ns is None else offset - state.clock_offset_ns
    state.clock_offset_ns = offset
    return stepped


def _target(state: State, view: View, forecast: Forecast, params: Parameters) -> Target:
    """The allocator's wish; while flattening, zero everywhere without asking what would be wanted."""
    memory = state.memory.allocator
    if view.mode is Mode.FLATTENING:
        none = np.zeros(len(view.universe.underlyings))
        target = Target(none, none, allocation.flattened(view), np.zeros(len(none), dtype=np.bool_))
        answer = allocation.Answer(target)
    else:
        surcharge = costs.surcharge(state.memory.costs, view, params.execution)
        answer = allocation.allocate(view, forecast, memory, params.allocator, params.guards, surcharge)
    was_held = memory.held
    allocation.observe(memory, answer, view)
    if memory.held and not was_held:
        state.effects.note("allocation.held", seq=view.seq)
    return answer.target


def _record(
    state: State,
    due: DecisionDue,
    view: View,
    forecast: Forecast,
    target: Target,
    permit: Permit,
    outgoing: tuple[Outgoing, ...],
    refusals: tuple[Clip, ...],
) -> DecisionRecord:
    """The decision told, so that it can be read back years later."""
    return DecisionRecord(
        seq=state.seq,
        ts_recv_ns=due.ts_recv_ns,
        utc_ns=due.utc_ns,
        cause=due.cause,
        mode=state.account.mode,
        armed=view.armed,
        equity_usd=view.equity_usd,
        factors=_factor_lines(view, forecast, target),
        clips=permit.clips + refusals,
        uses=permit.uses,
        orders=tuple(line for command in outgoing if (line := _line(view, command)) is not None),
        notes=tuple(note.event for note in state.effects.notes),
        allocation=target.allocation,
        forecasters=forecast.forecasters if forecast.told_ns == view.now_ns else (),
        contenders=forecast.contenders if forecast.told_ns == view.now_ns else (),
    )


def _factor_lines(view: View, forecast: Forecast, target: Target) -> tuple[FactorLine, ...]:
    """Every underlying's delta with its target, then whatever else the book is exposed to."""
    nan, n = float("nan"), len(view.universe.underlyings)
    names, actual, expected = view.factors.names, view.exposure_usd.tolist(), forecast.mean_return
    moved = np.flatnonzero(target.position_lots != view.position_lots)
    reached = view.exposure_usd + view.exposure_per_lot[:, moved] @ (target.position_lots - view.position_lots)[moved]
    prices = dict(zip(view.universe.underlyings, view.underlying_price.tolist(), strict=True))
    deltas = [
        FactorLine(
            factor=names[u],
            price=float(view.underlying_price[u]),
            annual_vol=float(forecast.annual_vol[u]),
            actual_usd=actual[u],
            target_usd=float(target.exposure_usd[u]),
            band_usd=float(target.band_usd[u]),
            annual_return=float(expected[u]) * DAYS_PER_YEAR,
            reached_usd=float(reached[u]),
        )
        for u in range(n)
    ]
    others = [
        FactorLine(names[k], prices.get(names[k].split(":")[1], nan), nan, actual[k], nan, nan, nan, float(reached[k]))
        for k in range(n, len(names))
        if actual[k] != 0.0
    ]
    return (*deltas, *others)


def _line(view: View, command: Outgoing) -> OrderLine | None:
    """One command in the record; questions are not told."""
    match command:
        case Approved(order=o):
            instrument = view.universe.instruments[o.row]
            price = str(instrument.ticks_to_price(o.price_ticks))
            usd = round(o.lots * float(view.notional_per_lot_usd[o.row]), 2)
            return OrderLine("create", instrument.name, o.client_order_id, o.side.value, o.lots, price, o.why, usd)
        case CancelOrder() as c:
            name = view.universe.instruments[c.row].name
            return OrderLine("cancel", name, c.client_order_id, "", 0, "", c.why)
        case _:
            return None
