"""Histories of faults, each from one seed, in virtual time. The oracle looks after every step.

A failing seed prints how to live through it again; `--story` there tells all that happened.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from dea_daemon.cli import cli
from dea_daemon.domain.events import Operator
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.wiring.simulate.faults import BY_NAME
from dea_daemon.wiring.simulate.run import Plan
from dea_daemon.wiring.simulate.world import World

ROOT = Path(__file__).parents[2]


def live(seed: int, seconds: float, **options: object) -> World:
    """One history from start to rest; on failure, what to type to see it again."""
    world = World(seed, **options)  # type: ignore[arg-type]
    try:
        world.run(seconds)
        world.settle()
    except BaseException as error:
        error.add_note(Plan(seed, tuple(BY_NAME), seconds, world.storm, False).command())
        raise
    return world


@pytest.mark.parametrize("seed", range(4))
def test_every_history_keeps_its_promises_and_ends_well(seed):
    live(seed, 45.0)


@pytest.mark.parametrize("seed", range(1_000, 1_002))
def test_so_does_one_in_a_storm(seed):
    live(seed, 30.0, storm=4.0)


def test_a_wrong_mark_of_a_held_contract_is_not_hedged_with_its_neighbours():
    """Its book is gone too: nothing else contradicts the mark. The oracle lets nothing grow on it."""
    world = World(7, storm=0.0, scenario="default")
    world.run(20.0)
    row = int(np.flatnonzero(world.state.account.position_lots)[0])
    world.venue._apart_until[row] = (world.now_ns + 8 * NS_PER_S, 1.5)
    world.venue._emptied_until[row] = world.now_ns + 8 * NS_PER_S
    before = world.oracle.creates
    world.run(7.0)
    assert world.oracle.creates == before
    world.run(10.0)
    world.settle()


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
            [sys.executable, "-m", "dea_daemon.cli", "simulate", "--seeds", "5030", "--hours", "0.008", "--story"],
            env={**os.environ, "PYTHONHASHSEED": salt},
            cwd=ROOT,
            capture_output=True,
            check=False,
        ).stdout.rpartition(b"simulated_hours")[0]  # behind it is how long it took
        for salt in ("1", "2")
    ]
    assert told[0] == told[1] and len(told[0]) > 10_000


def test_faults_do_happen():
    """Guards the guards: a world in which nothing goes wrong proves nothing."""
    worlds = [live(seed, 40.0, storm=3.0) for seed in (22, 25)]
    story = "\n".join(line for world in worlds for line in world.log)
    for happened in ("crash", "order.outcome_unknown", "feed.gap_found", "feed.closed", "ledger.failed", "hand-trade"):
        assert happened in story, happened


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("storm", [0.5, 1.0, 2.0, 4.0])
def test_hundreds_of_histories(storm):
    for seed in range(2_000, 2_100):
        live(seed, 120.0, storm=storm)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_every_fault_meets_every_state_of_orders_it_can():
    result = CliRunner().invoke(cli, ["simulate", "--seeds", "4000:4040", "--pairs", "1", "--json"])
    assert result.exit_code == 0, result.output
    finished = json.loads(result.stdout.splitlines()[-1])
    assert finished["pairs_covered"] == finished["pairs_total"]
