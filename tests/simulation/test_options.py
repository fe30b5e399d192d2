"""Histories with an option book: an expiry, listings, and what venues tell of options, told wrongly.

A failing seed prints how to live through it again; `--story` there tells all that happened.
"""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from dea_daemon.domain.commands import QueryInstruments
from dea_daemon.domain.decisions import View
from dea_daemon.domain.events import AccountReported, AnyEvent, FillReceived, ListingChanged, Settlement
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.simvenue.words import Settled
from dea_daemon.wiring.paper import ACCOUNT
from dea_daemon.wiring.simulate.chain import EXPIRY_S, Fate
from dea_daemon.wiring.simulate.faults import BY_NAME
from dea_daemon.wiring.simulate.run import Plan
from dea_daemon.wiring.simulate.world import START_NS, World


def live(seed: int, seconds: float, **options: object) -> World:
    """One history from start to rest; on failure, what to type to see it again."""
    world = World(seed, options=True, **options)  # type: ignore[arg-type]
    try:
        world.run(seconds)
        world.settle()
    except BaseException as error:
        error.add_note(Plan(seed, tuple(BY_NAME), seconds, world.storm, True).command())
        raise
    return world


def calm(seed: int = 1) -> World:
    """Without faults: what goes wrong is put in by hand. Options near their strike are held to their end."""
    return World(seed, storm=0.0, scenario="options", options=True, allocator={"pinned": "hold"})


def seen(world: World) -> View:
    """What the last decision was made from."""
    assert world.state.view is not None
    return world.state.view


def held_options(world: World) -> set[str]:
    return {h.instrument for h in world.exchange.positions(ACCOUNT) if h.lots and h.instrument[-2:] in ("-C", "-P")}


def nearest(world: World) -> set[str]:
    """The options held that end first."""
    ends = {name: world.exchange.instruments[name].expiry_ns for name in held_options(world)}
    return {name for name, at in ends.items() if at == min(ends.values())}


def settled(world: World) -> dict[str, str]:
    """Contracts settled, and how each is known."""
    return {name: proof for (_, name), proof in world.ledger.settled.items()}


def agrees(world: World) -> bool:
    """Whether our positions are the venue's, contract by contract."""
    theirs = {h.instrument: h.lots for h in world.exchange.positions(ACCOUNT) if h.lots}
    lots = world.state.account.position_lots
    ours = {i.name: int(n) for i, n in zip(world.universe.instruments, lots, strict=True) if n}
    return ours == theirs


def deliver(world: World, *, recorded_s: float, shown_s: float) -> None:
    """Deliveries are written down so long after, and the positions show so long in reports."""

    def ended(s: Settled, now_ns: int) -> None:
        recorded_ns, shown_ns = (now_ns + int(seconds * NS_PER_S) for seconds in (recorded_s, shown_s))
        world.venue.deliveries.fates[s.instrument] = Fate(s.lots, recorded_ns, shown_ns, s.lots)

    world.venue.deliveries.ended = ended  # type: ignore[method-assign]


def rewritten(world: World, rewrite: Callable[[AnyEvent], AnyEvent]) -> None:
    """From here on each event is changed so before the daemon hears of it."""
    fold = world.fold
    world.fold = lambda event: fold(rewrite(event))  # type: ignore[method-assign]


# --- whole histories ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "storm"), [(101, 1.0), (200, 2.0)])
def test_every_history_keeps_its_promises_and_ends_well(seed, storm):
    live(seed, 20.0, storm=storm)


def test_without_faults_the_book_is_hedged_through_its_expiry_and_nothing_has_to_be_corrected():
    world = calm()
    ending = nearest(world)
    world.run(EXPIRY_S + 10.0)
    assert ending and ending <= set(settled(world))
    assert set(settled(world).values()) == {"venue record"}
    assert world.oracle.creates > 0
    assert world.oracle.rebased == 1  # adopted at the start
    assert world.state.account.mode is Mode.NORMAL
    assert agrees(world)
    world.settle(5.0)


def test_the_delta_it_holds_is_the_venues_own_to_a_thousandth_of_the_options_notional():
    world = calm(seed=4)
    world.run(EXPIRY_S + 15.0)  # far from any expiry: what an option's ticker said a second ago still holds
    view, universe = seen(world), world.universe
    for k, underlying in enumerate(universe.underlyings):
        mine = universe.option & (universe.underlying == k)
        coins = float(np.abs(view.position_lots * universe.lot_value)[mine].sum())
        true = world.oracle.truth.now(k, view.position_lots)
        assert coins > 0.0
        assert view.delta_usd[k] == pytest.approx(true, abs=5e-3 * coins * world.exchange.index_price(underlying))


def test_nonsense_does_happen():
    """Guards the guards: a world in which nothing goes wrong proves nothing."""
    world = World(101, options=True, storm=2.0)
    world.run(40.0)
    told = "\n".join(world.log)
    assert world.venue.tickers.spells > 2
    assert world.ledger.settled
    for happened in ("greeks.modelled", "greeks.known", "order.filled", "position.settled"):
        assert happened in told, happened


def test_surfaces_that_are_wrong_are_found_out_and_nothing_is_valued_by_them():
    """The oracle looks at every volatility that a surface gives; here every second one is far from the truth."""
    found = set()
    for seed in (1, 2):
        world = World(seed, options=True, storm=8.0, faults=("surface-jumps",))
        world.run(20.0)
        assert world.struck["surface-jumps"] > 2
        found |= {line.split("'why': '")[1].split(":")[0] for line in world.log if "surface.doubted" in line}
    assert found >= {"jumped", "contradicted"}


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("storm", [0.5, 1.0, 2.0, 4.0])
def test_hundreds_of_histories(storm):
    for seed in range(3_000, 3_050):
        live(seed, 60.0, storm=storm)


# --- an expiry ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["private", "public", "both", "process"])
def test_an_expiry_missed_while_away_is_found_at_return(what):
    world = calm()
    ending = nearest(world)
    world.run(EXPIRY_S - 1.0)
    if what == "process":
        world.venue.forget_us()
        world.down_until_ns = world.now_ns + 4 * NS_PER_S
        world.run(4.0)
    else:
        for private in (True, False):
            if what in (("private", "both") if private else ("public", "both")):
                world.venue.close(world.now_ns, private=private)
        world.run(4.0)
        world.venue.open_private(world.now_ns)
        world.venue.open_public(world.now_ns)
    world.run(8.0)
    assert agrees(world)
    assert not ending & held_options(world)
    assert world.state.account.mode is Mode.NORMAL
    if what != "process":  # one that was down holds nothing to settle: the venue reports what is left
        assert ending <= set(settled(world))


def test_an_order_at_work_in_the_future_that_expires_ends_with_it():
    world = calm()
    row = next(r for r, i in enumerate(world.universe.instruments) if i.name == "BTC-21SEP26")
    world.run(EXPIRY_S - 1.0)
    world.venue.trade_by_hand(row, Side.BUY, 1_000, rests=True, now_ns=world.now_ns)
    world.run(8.0)
    assert not world.state.account.orders.foreign
    assert agrees(world)


def test_a_record_that_comes_late_is_waited_for_and_counted_once():
    world = calm()
    ending = nearest(world)
    deliver(world, recorded_s=15.0, shown_s=0.0)
    world.run(EXPIRY_S + 10.0)
    assert not settled(world)
    world.run(15.0)
    assert ending <= set(settled(world))
    assert agrees(world)
    assert world.state.account.mode is Mode.NORMAL


def test_a_record_that_never_comes_is_replaced_by_what_is_held(monkeypatch):
    monkeypatch.setattr("dea_daemon.state.account.UNPROVED_NS", 10 * NS_PER_S)
    world = calm()
    ending = nearest(world)
    world.venue.deliveries.records = lambda *_: ()  # type: ignore[method-assign]
    world.run(EXPIRY_S + 25.0)
    assert {settled(world).get(name) for name in ending} == {"position report"}
    assert agrees(world)
    assert world.state.account.mode is Mode.NORMAL


def test_a_record_told_before_the_position_vanishes_settles_it_once_and_alarms_nobody():
    world = calm()
    ending = nearest(world)
    deliver(world, recorded_s=0.0, shown_s=6.0)
    rewritten(world, lambda e: _with_records(world, e))
    world.run(EXPIRY_S + 15.0)
    assert ending <= set(settled(world))
    assert agrees(world)
    assert world.state.account.mode is Mode.NORMAL, world.state.account.mode_why


def _with_records(world: World, event: AnyEvent) -> AnyEvent:
    """Every report tells the deliveries, asked or not."""
    if not isinstance(event, AccountReported) or not event.complete:
        return event
    return msgspec.structs.replace(event, settlements=world.venue._settled(START_NS))


def test_a_record_of_another_size_halts():
    world = calm()
    told = {name: world.exchange.position(ACCOUNT, name).lots for name in nearest(world)}
    rewritten(world, lambda e: _of_another_size(e))
    world.run(EXPIRY_S + 10.0)
    assert world.state.account.mode is Mode.HALTED
    assert "settlement" in world.state.account.mode_why
    assert set(told) <= set(settled(world))


def _of_another_size(event: AnyEvent) -> AnyEvent:
    if not isinstance(event, AccountReported):
        return event
    doubled = tuple(msgspec.structs.replace(s, lots=2 * s.lots) for s in event.settlements)
    return msgspec.structs.replace(event, settlements=doubled)


def test_a_fill_told_after_the_settlement_moves_nothing():
    world = calm()
    name = min(nearest(world))
    row = world.universe.row(0, name)
    assert row is not None
    world.run(EXPIRY_S + 8.0)
    assert name in settled(world)
    world.fold(
        FillReceived(
            world.now_ns, world.now_ns - 10 * NS_PER_S, 0, row, "told late", "", "by hand", Side.BUY, 3, 100,
            0.0, "BTC", False,
        )
    )  # fmt: skip
    world.run(12.0)
    assert agrees(world), world.state.account.position_lots[row]
    assert world.state.account.mode is Mode.NORMAL


def test_a_settlement_told_twice_counts_once():
    world = calm()
    said: list[Settlement] = []

    def twice(event: AnyEvent) -> AnyEvent:
        if isinstance(event, AccountReported) and event.settlements:
            said.extend(event.settlements)
            return msgspec.structs.replace(event, settlements=event.settlements * 2)
        if isinstance(event, AccountReported) and said:
            return msgspec.structs.replace(event, settlements=tuple(said))
        return event

    rewritten(world, twice)
    world.run(EXPIRY_S + 15.0)
    assert said
    assert agrees(world)  # and the ledger's own check has seen each contract once


# --- listings -----------------------------------------------------------------------------------------


def test_contracts_listed_while_it_runs_are_held_and_priced_like_the_others():
    world = calm()
    before = len(world.universe)
    world.run(EXPIRY_S + 5.0)
    joined = [r for r in range(before, len(world.universe)) if world.universe.option[r]]
    assert joined
    view = seen(world)
    assert len(view.position_lots) == len(world.universe)
    row = next(r for r in joined if view.fresh[r])
    world.venue.trade_by_hand(row, Side.BUY, 2, rests=False, now_ns=world.now_ns)
    world.run(3.0)
    view = seen(world)
    assert view.position_lots[row] == 2
    assert view.iv_source[row] > 0 and not view.modelled[row]
    assert np.isfinite(view.delta_usd).all()
    world.settle(5.0)


def test_an_announcement_that_is_lost_is_made_up_for_by_asking_now_and_then():
    world = calm()
    before = len(world.universe)
    publish = world.venue._public
    world.venue._public = lambda now_ns, *events, late_ns=0: publish(  # type: ignore[method-assign]
        now_ns, *(e for e in events if not isinstance(e, ListingChanged)), late_ns=late_ns
    )
    world.run(EXPIRY_S + 22.0)  # it asks every 20 s
    assert len(world.universe) > before
    assert not world.venue.unlisted()


def test_an_answer_that_fails_is_asked_for_again():
    world = calm()
    asked = []
    send = world.venue.send

    def refuse_twice(command, now_ns):
        if isinstance(command, QueryInstruments):
            asked.append(now_ns)
            if len(asked) <= 2:
                return
        send(command, now_ns)

    world.venue.send = refuse_twice  # type: ignore[method-assign]
    world.run(EXPIRY_S + 10.0)
    assert len(asked) >= 3
    assert not world.venue.unlisted()
