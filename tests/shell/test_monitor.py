"""What a running daemon shows of itself."""

import asyncio
import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec import structs

from dea_daemon.domain.decisions import NO_FACTORS, Decision, FactorLine, Slow
from dea_daemon.domain.events import (
    ForecasterRuled,
    IndexUpdated,
    InstrumentsListed,
    Operator,
    VenueStateChanged,
    WatchdogChanged,
)
from dea_daemon.domain.parameters import SlowFactor
from dea_daemon.shell.monitor import SILENT_S, Monitor
from dea_daemon.shell.runner import Runner
from tests.house import MS, Run, creates
from tests.shell.status_sample import status
from tests.shell.surface_samples import DAYS, SurfaceDesk
from tests.shell.test_exposure import OPTIONS, book


class Watched:
    """A Runner over hand-made events, with a Monitor."""

    def __init__(self) -> None:
        self.house = Run()
        self.now = self.house.now_ns
        self.runner = Runner(self.house.started, lambda command: None, clock=self)  # type: ignore[arg-type]
        self.monitor = Monitor(
            self.runner,
            [],
            now_ns=self.now_ns,
            utc_ns=self.now_ns,
            state_dir=Path("var"),
            config=None,
            run_id="test",
            stored=lambda seq: {"seq": seq, "from": "ledger"},
        )
        self.told = 0

    def now_ns(self) -> int:
        return self.now

    utc_ns = now_ns

    async def play(self) -> None:
        for event in self.house.events[self.told :]:
            self.now = event.ts_recv_ns
            self.runner.emit([event])
        self.told = len(self.house.events)
        await asyncio.sleep(0)  # listeners are told later


@pytest.fixture
async def watched() -> Watched:
    made = Watched()
    made.house.settle()
    made.house.decide()
    await made.play()
    return made


def test_the_status_is_plain_json_whatever_is_not_known(watched):
    status = watched.monitor.status()
    assert json.loads(json.dumps(status, allow_nan=False)) == status


def test_it_tells_what_is_held_wanted_limited_and_working(watched):
    status = watched.monitor.status()
    btc = next(line for line in status["factors"] if line["factor"] == "delta:BTC")
    assert (btc["target_usd"], btc["band_usd"]) == (100_000, 5_000)
    assert {"net", "gross"} <= {use["limit"] for use in status["limits"]}
    (order,) = status["orders"]
    assert order["side"] == "buy" and order["lots"] > 0
    assert [line["client_order_id"] for line in status["recent_orders"]] == [order["client_order_id"]]
    fresh = {line["instrument"]: line["fresh"] for line in status["instruments"]}
    assert fresh["BTC-PERPETUAL"] is True


async def test_a_fill_is_numbered_and_told_with_its_position(watched):
    (order,) = creates(watched.house.decisions[-1])
    watched.house.fill(order, order.lots)
    await watched.play()
    (fill,) = watched.monitor.fills(0)
    assert (fill["n"], fill["lots"]) == (1, order.lots)
    assert watched.monitor.fills(1) == []


def test_a_healthy_daemon_says_so_and_a_silent_one_does_not(watched):
    assert watched.monitor.status()["unhealthy"] == []
    watched.now += int((SILENT_S + 1) * 1_000) * MS
    status = watched.monitor.status()
    assert not status["healthy"]
    assert "no decision" in status["unhealthy"][0]


async def test_a_watchdog_that_is_gone_is_an_illness_until_it_is_back(watched):
    for alive in (False, True):
        watched.house.feed(WatchdogChanged(watched.house.now_ns, alive, "killed"))
        await watched.play()
        status = watched.monitor.status()
        assert status["watched"] is alive and status["unhealthy"] == ([] if alive else ["no watchdog"])


async def test_contracts_closed_and_of_another_grid_are_counted_apart_and_pegs_told(watched):
    status = watched.monitor.status()
    assert (status["contracts_closed"], status["contracts_regridded"], status["pegs"]) == (0, 0, {})
    now, perpetual = watched.house.now_ns, watched.house.started.rows[0][1]
    watched.house.feed(
        InstrumentsListed(now, 0, (), changed=(perpetual,)),
        VenueStateChanged(now, 0, open=False, why="maintenance"),
        IndexUpdated(now, now, 0, "USDC", 0.991),
    )
    await watched.play()
    status = watched.monitor.status()
    rows = len(watched.house.started.rows)
    assert (status["contracts_closed"], status["contracts_regridded"]) == (rows - 1, 1)
    assert status["pegs"] == {"USDC": 0.991}


def test_where_its_files_are_is_told_from_the_root(watched):
    assert watched.monitor.status()["state_dir"] == str(Path.cwd() / "var")


def test_an_operators_halt_is_a_mode_and_no_illness(watched):
    watched.runner.operator(Operator.HALT, "alice", "alarm")
    status = watched.monitor.status()
    assert (status["mode"], status["mode_why"]) == ("halted", "operator alice: alarm")
    assert status["healthy"]


async def test_points_come_once_a_second_and_only_those_not_seen_yet(watched):
    for _ in range(30):
        watched.house.decide()
        await watched.play()
    points = watched.monitor.points(0)
    assert len(points) == 4  # decisions are 100 ms apart: three seconds, and the first
    assert watched.monitor.points(points[1]["seq"]) == points[2:]
    assert points[0]["factors"]["delta:BTC"][1] == 100_000


def test_before_a_decision_there_is_no_exposure(watched):
    watched.runner.state.view = None
    assert watched.monitor.exposure() is None
    assert watched.monitor.status()["option_counts"] == {"listed": 0, "modelled": 0, "greeks_off": 0}


async def test_a_status_has_the_surfaces_in_short_and_another_answer_the_whole(watched):
    desk = SurfaceDesk()
    desk.settle()
    desk.decide()
    assert desk.answer() == ["BTC", "ETH"]
    desk.decide()
    watched.runner.state, watched.now = desk.state, desk.now_ns
    told = watched.monitor.surface()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert [len(line["smiles"]) for line in told["surfaces"]] == [len(DAYS), len(DAYS)]
    short = watched.monitor.status()["surfaces"]
    assert [line["underlying"] for line in short] == ["BTC", "ETH"] and all(line["relied"] for line in short)
    assert all(whole.items() >= line.items() for whole, line in zip(told["surfaces"], short, strict=True))


async def test_forecasters_words_are_kept_for_the_decisions_that_heard_nothing_new(watched):
    said, seq = watched.monitor.decision(None), watched.runner.state.seq
    assert said["forecasters"] and "said_seq" not in said
    watched.house.decide()
    await watched.play()
    then = watched.monitor.decision(None)
    assert then["seq"] == seq + 1 and then["forecasters"] == said["forecasters"] and then["said_seq"] == seq
    assert watched.monitor.status()["forecasters"] == said["forecasters"]


async def test_a_ruling_shows_at_once_in_the_status_and_in_the_next_decision(watched):
    watched.house.feed(ForecasterRuled(watched.house.now_ns, "prior_5d", 0.3, "uid 7 (ann)", "it earned it"))
    await watched.play()
    told = {line["name"]: line for line in watched.monitor.status()["contenders"]}
    assert (told["prior_5d"]["state"], told["prior_5d"]["weight"]) == ("traded", 0.3)
    assert "ann" in told["prior_5d"]["why"]
    watched.house.decide()
    await watched.play()
    then = watched.monitor.decision(None)
    assert {line["weight"] for line in then["forecasters"] if line["name"] == "prior_5d"} == {0.3}


async def test_a_slow_factor_is_told_with_its_age_and_why_it_says_nothing(watched):
    mine = SlowFactor(stale_days=30.0)
    watched.runner.state.market.params = watched.house.params.model_copy(update={"factors": {"a": mine, "b": mine}})
    slow = Slow(
        ("a", "b", "c"), np.array([1.5, 0.0, 0.0]), np.array([2.0, 31.0, np.inf]), np.array([True, False, False])
    )
    watched.runner.state.view = dataclasses.replace(watched.runner.state.view, slow=slow)
    assert watched.monitor.status()["slow_factors"] == [
        {"name": "a", "z": 1.5, "age_days": 2.0, "valid": True, "why": ""},
        {"name": "b", "z": 0.0, "age_days": 31.0, "valid": False, "why": "older than 30 days"},
        {"name": "c", "z": 0.0, "age_days": None, "valid": False, "why": "too little is known of it"},
    ]


def test_a_samples_keys_are_the_real_statuss(watched):
    real, sample = watched.monitor.status(), status()
    assert set(sample) == set(real)
    for part in ("forecasters", "contenders"):
        assert set(sample[part][0]) == set(real[part][0]), part


def test_exposure_and_held_options_are_plain_json(watched):
    seen = {field.name: getattr(book(), field.name) for field in dataclasses.fields(book())}
    watched.runner.state.view = SimpleNamespace(**seen, slow=NO_FACTORS)
    told = watched.monitor.exposure()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert [row["instrument"] for row in watched.monitor.status()["options"]] == ["BTC-NEAR-C", "BTC-FAR-C"]
    assert watched.monitor.status()["option_counts"] == {"listed": 3, "modelled": 2, "greeks_off": 1}


async def test_options_are_listed_only_once_they_are_held(watched):
    watched.house.feed(InstrumentsListed(watched.now, 0, OPTIONS))
    await watched.play()
    before = {row["instrument"] for row in watched.monitor.status()["instruments"]}
    assert not before & {option.name for option in OPTIONS}
    universe = watched.runner.state.account.universe
    watched.runner.state.account.position_lots[universe.row(0, OPTIONS[1].name)] = 3
    after = {row["instrument"]: row["position_lots"] for row in watched.monitor.status()["instruments"]}
    assert set(after) - before == {OPTIONS[1].name}
    assert after[OPTIONS[1].name] == 3


async def test_only_deltas_are_exposures_all_else_is_a_greek(watched):
    delta = FactorLine("delta:BTC", 8e4, 0.5, 5.0, 6.0, 1.0)
    gamma = FactorLine("gamma:BTC", 8e4, math.nan, -7.0, math.nan, math.nan)
    record = watched.runner.stats.last
    mixed = structs.replace(record, factors=(delta, gamma), ts_recv_ns=record.ts_recv_ns + 10**10, seq=record.seq + 1)
    watched.runner.stats.last = mixed
    watched.monitor.observe(Decision(record=mixed))
    status = watched.monitor.status()
    assert [line["factor"] for line in status["factors"]] == ["delta:BTC"]
    assert status["greeks"]["BTC"]["gamma_usd_1pct"] == -7
    assert list(watched.monitor.points(0)[-1]["factors"]) == ["delta:BTC"]


def test_decisions_are_found_by_number_in_memory_and_then_in_the_ledger(watched):
    last = watched.monitor.decision(None)
    assert last is not None
    assert watched.monitor.decision(last["seq"]) == last
    older = watched.monitor.decision(999)
    assert older is not None and (older["seq"], older["from"]) == (999, "ledger")
    assert [record["seq"] for record in watched.monitor.decisions(0)] == [last["seq"]]
