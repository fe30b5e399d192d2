"""What the venue announces, takes and forgets, one at a time; and that the oracle sees a core that does not care."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from dea_daemon import engine
from dea_daemon.domain.decisions import Decision
from dea_daemon.domain.events import (
    AccountReported,
    AnyEvent,
    FillReceived,
    IndexUpdated,
    InstrumentsListed,
    VenueStateChanged,
    WatchdogChanged,
)
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.domain.parameters import Parameters
from dea_daemon.engine import State
from dea_daemon.wiring.simulate.promises import PromiseBroken
from dea_daemon.wiring.simulate.venue import LIQUIDATION
from dea_daemon.wiring.simulate.world import World

NEW_TARGETS_S = 4.0  # each so often, so that there is always something to trade


def calm(seed: int = 7) -> World:
    """A world without faults: what goes wrong is put in by hand."""
    return World(seed, storm=0.0, scenario="default")


def run(world: World, seconds: float) -> int:
    """How many orders were sent in this time, with other targets now and then."""
    before, end_ns = world.oracle.creates, world.now_ns + int(seconds * NS_PER_S)
    while world.now_ns < end_ns:
        if world.up:
            world.mishaps._reload("reload")
        world.run(min(NEW_TARGETS_S, (end_ns - world.now_ns) / NS_PER_S))
    return world.oracle.creates - before


def locked(world: World) -> None:
    world.venue.lock(world.now_ns, world.now_ns + 10 * NS_PER_S, "")


def unwatched(world: World) -> None:
    world.receive(WatchdogChanged(world.now_ns, False, "gone"))


def regridded(world: World) -> None:
    """Every contract."""
    changed = tuple(msgspec.structs.replace(i, tick_size=10 * i.tick_size) for i in world.universe.instruments)
    world.receive(InstrumentsListed(world.now_ns, 0, (), "", changed))


def liquidated(world: World) -> None:
    world.mishaps._deleverage("liquidated", LIQUIDATION)


def unpegged(world: World) -> None:
    world.venue.stablecoin_usd = 0.9


def test_nothing_is_sent_to_a_venue_that_says_it_is_closed_and_it_goes_on_when_it_opens():
    world = calm()
    assert run(world, 8.0)
    locked(world)
    world.run(0.1)  # it is told
    assert run(world, 9.0) == 0
    assert run(world, 10.0) > 0
    world.settle()


def test_a_closing_for_one_underlying_leaves_the_other_to_trade():
    world = calm()
    run(world, 8.0)
    world.venue.lock(world.now_ns, world.now_ns + 30 * NS_PER_S, "BTC")
    assert run(world, 25.0) > 0  # and the oracle saw none of BTC among them
    world.run(10.0)
    world.settle()


def test_the_end_of_a_closing_is_heard_though_the_stream_was_away_when_it_was_told():
    world = calm()
    run(world, 8.0)
    locked(world)
    world.run(5.0)
    world.venue.close(world.now_ns, private=False)
    world.run(10.0)
    world.venue.open_public(world.now_ns)
    assert run(world, 10.0) > 0
    world.settle()


def test_a_contract_of_another_grid_is_left_alone_until_a_restart():
    world = calm()
    run(world, 8.0)
    regridded(world)
    world.run(0.1)
    assert run(world, 10.0) == 0
    world.crash()
    assert run(world, 30.0) > 0
    world.settle()


def test_a_liquidation_halts_until_somebody_says_go_on_and_is_counted_once():
    world = calm()
    run(world, 12.0)
    liquidated(world)
    world.run(0.2)
    assert world.state.account.mode is Mode.HALTED
    assert run(world, 10.0) == 0
    held = {h.instrument: h.lots for h in world.exchange.positions("main")}
    for name, row in world.oracle.rows.items():
        assert world.state.account.position_lots[row] == held.get(name, 0)
    world.resume()
    assert run(world, 10.0) > 0
    world.settle()


def test_a_revoked_key_is_not_tried_again_and_again():
    world = calm()
    run(world, 8.0)
    world.venue.revoked_until_ns = world.now_ns + 60 * NS_PER_S
    most = world.params.execution.reject_limit * len(world.universe) * 3  # rests of 30 s between
    assert run(world, 60.0) <= most
    assert world.state.account.mode is Mode.NORMAL
    run(world, 40.0)
    world.settle()


def test_a_stablecoin_off_its_peg_and_a_watchdog_that_is_gone_let_positions_only_shrink():
    for happen, mend in (
        (unwatched, lambda w: w.receive(WatchdogChanged(w.now_ns, True))),
        (unpegged, lambda w: setattr(w.venue, "stablecoin_usd", 1.0)),
    ):
        world = calm()
        run(world, 8.0)
        happen(world)
        world.run(1.5)
        run(world, 12.0)  # the oracle looks at each
        mend(world)
        assert run(world, 12.0) > 0
        world.settle()


# --- a core that does not care --------------------------------------------------------------------------------


def _no_liquidation(event: AnyEvent) -> AnyEvent | None:
    if isinstance(event, FillReceived):
        return msgspec.structs.replace(event, liquidation=False)
    if isinstance(event, AccountReported):
        fills = tuple(msgspec.structs.replace(f, liquidation=False) for f in event.fills)
        return msgspec.structs.replace(event, fills=fills)
    return event


def _without(kind: type, currency: str = "") -> Callable[[AnyEvent], AnyEvent | None]:
    def deaf(event: AnyEvent) -> AnyEvent | None:
        mine = isinstance(event, kind) and (not currency or getattr(event, "currency", "") == currency)
        return None if mine else event

    return deaf


@pytest.mark.parametrize(
    ("happen", "deaf", "why"),
    [
        (locked, _without(VenueStateChanged), "closed venue"),
        (unwatched, _without(WatchdogChanged), "nobody watches"),
        (regridded, _without(InstrumentsListed), "grid changed"),
        (liquidated, _no_liquidation, "after a liquidation"),
        (unpegged, _without(IndexUpdated, "USDC"), "stablecoin"),
    ],
)
def test_a_core_that_does_not_hear_of_it_is_seen(monkeypatch, happen, deaf, why):
    def step(state: State, event: AnyEvent, params: Parameters) -> Decision:
        heard = deaf(event)
        return engine.step(state, heard, params) if heard is not None else Decision()

    monkeypatch.setattr("dea_daemon.wiring.simulate.world.step", step)
    world = calm()
    run(world, 8.0)
    happen(world)
    with pytest.raises(PromiseBroken, match=why):
        run(world, 60.0)


def test_an_order_that_was_to_reduce_and_did_not_is_seen():
    world = calm()
    run(world, 12.0)
    row = int(np.flatnonzero(world.state.account.position_lots)[0])
    held = int(world.state.account.position_lots[row])
    label = "d000000100000vv9"
    world.venue._forgotten[label] = world.now_ns
    side = Side.SELL if held > 0 else Side.BUY
    with pytest.raises(PromiseBroken, match="was to reduce"):
        world.venue.trade_by_hand(row, side, abs(held) + 10, rests=False, now_ns=world.now_ns, label=label)
