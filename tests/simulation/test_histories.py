"""Histories of faults, each from one seed, in virtual time. The oracle looks after every step.

A failing seed prints how to live through it again; `python -m tests.simulation SEED` tells its whole story.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dea_daemon.domain.events import Operator
from tests.simulation.world import World

ROOT = Path(__file__).parents[2]


def live(seed: int, seconds: float, **options: object) -> World:
    """One history from start to rest; on failure, what to type to see it again."""
    world = World(seed, **options)  # type: ignore[arg-type]
    try:
        world.run(seconds)
        world.settle()
    except BaseException as error:
        storm = options.get("storm", 1.0)
        error.add_note(f"again: python -m tests.simulation {seed} --seconds {seconds:g} --storm {storm:g}")
        raise
    return world


@pytest.mark.parametrize("seed", range(4))
def test_every_history_keeps_its_promises_and_ends_well(seed):
    live(seed, 45.0)


@pytest.mark.parametrize("seed", range(1_000, 1_002))
def test_so_does_one_in_a_storm(seed):
    live(seed, 30.0, storm=4.0)


@pytest.mark.parametrize(
    ("seed", "seconds", "storm"),
    [(2_057, 120.0, 1.0)],  # a held future's mark went wrong while its book was stale: its neighbours hedged it
)
def test_histories_that_once_ended_badly(seed, seconds, storm):
    live(seed, seconds, storm=storm)


def test_without_faults_it_trades_into_its_bands_and_nothing_has_to_be_corrected():
    world = live(7, 60.0, storm=0.0, scenario="default")
    assert world.oracle.creates > 0
    assert world.oracle.rebased == 1 + 1  # adopted at the start, and once more at the operator's word
    assert world.runs == 1


def test_draining_leaves_nothing_at_the_venue():
    world = World(3, storm=0.0, scenario="default")
    world.run(6.0)
    world.operator(Operator.DRAIN)
    world.run(3.0)
    assert world.state.account.orders.live() == ()
    assert world.exchange.open_orders("main") == []


def test_the_same_seed_is_the_same_history_in_every_process():
    told = [
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "5030", "--seconds", "30"],
            env={**os.environ, "PYTHONHASHSEED": salt},
            cwd=ROOT,
            capture_output=True,
            check=False,
        ).stdout
        for salt in ("1", "2")
    ]
    assert told[0] == told[1] and len(told[0]) > 10_000


def test_faults_do_happen():
    """Guards the guards: a world in which nothing goes wrong proves nothing."""
    worlds = [live(seed, 40.0, storm=3.0) for seed in (21, 22)]
    story = "\n".join(line for world in worlds for line in world.log)
    for happened in ("crash", "order.outcome_unknown", "feed.gap_found", "feed.closed", "ledger.failed", "by hand"):
        assert happened in story, happened


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("storm", [0.5, 1.0, 2.0, 4.0])
def test_hundreds_of_histories(storm):
    for seed in range(2_000, 2_100):
        live(seed, 120.0, storm=storm)
