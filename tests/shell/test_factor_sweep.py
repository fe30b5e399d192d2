"""Months of slow factors whose sources fail, lie and change their minds at random: no look-ahead, no stop, no growth.

Real HTTP on loopback, the clock is the test's: sources are asked twice a day, and each has its own fault for a while.
"""

import asyncio
import json
from collections import Counter
from typing import Any

import aiohttp
import numpy as np
import pytest
import structlog
from pydantic import TypeAdapter

from dea_daemon.domain.events import FactorObserved
from dea_daemon.shell.factor_server import FactorServer
from dea_daemon.shell.factor_settings import AnySource, Source
from dea_daemon.shell.factor_store import FactorStore
from dea_daemon.shell.factors import Factors, _Seen
from dea_daemon.simvenue.faults import PAGE_ACTIONS
from dea_daemon.state.effects import Effects
from dea_daemon.state.factors import KEPT, WAITING, SlowFactors

pytestmark = pytest.mark.timeout(300)
HOUR_NS = 3_600 * 10**9
DAY_NS = 24 * HOUR_NS
START_NS = 20_600 * DAY_NS + DAY_NS // 2
STEP_NS = 12 * HOUR_NS
VALUES_MOST, REVISIONS_MOST = 250, 6
PAGES: dict[str, dict[str, Any]] = {
    "mvrv": {"kind": "coinmetrics", "asset": "btc", "metric": "CapMVRVCur"},
    "greed": {"kind": "fear_greed"},
    "rate": {"kind": "fred", "series": "DGS10", "api_key": {"env": "KEY"}},
    "first": {"kind": "fred", "series": "M2", "api_key": {"env": "KEY"}, "vintages": True},
    "vix": {"kind": "fred", "series": "VIXCLS", "revisions": "first"},
    "own": {"kind": "csv"},
    "mine": {"kind": "http_json", "rows": "data.points", "time": "at", "value": "of.value"},
}
PATHS = {"csv": "/own.csv", "http_json": "/own.json"}


class Sweep:
    """One history from one seed; what every look at it finds is judged at once."""

    def __init__(self, seed: int, store: FactorStore) -> None:
        self.dice, self.store, self.now_ns = np.random.default_rng(seed), store, START_NS
        self.fault_of: dict[str, tuple[str, int]] = {}  # of a page, and until when
        self.met: Counter[str] = Counter()
        self.told: list[FactorObserved] = []
        self.first_ns: dict[str, int] = {}  # when a factor's first answer came
        self.joins: dict[tuple[str, int], list[object]] = {}

    def befalls(self, page: str, since_ns: int) -> str:
        """Half of the time nothing; else one fault for up to five days."""
        fault, until_ns = self.fault_of.get(page, ("", 0))
        if self.now_ns >= until_ns:
            fault = str(self.dice.choice(PAGE_ACTIONS)) if self.dice.random() < 0.5 else ""
            self.fault_of[page] = fault, self.now_ns + int(self.dice.integers(1, 11)) * STEP_NS
        self.met[fault] += 1
        return fault

    def sources(self, url: str) -> dict[str, Source]:
        more = {"timeout_s": 0.1, "lag_h": 30.0, "history_days": 200.0}
        fields = {
            name: json.dumps(about | {"url": url + PATHS.get(about["kind"], "")} | more)
            for name, about in PAGES.items()
        }
        kind, context = TypeAdapter(AnySource), {"environ": {"KEY": "k" * 32}}
        return {name: kind.validate_json(text, strict=True, context=context) for name, text in fields.items()}

    async def live(self, steps: int, calm: int) -> SlowFactors:
        """So many steps with faults, then some without."""
        clock = lambda: self.now_ns  # noqa: E731 both clocks
        async with FactorServer(clock) as server, aiohttp.ClientSession(auto_decompress=False) as session:
            server._befalls = self.befalls
            sources = self.sources(server.url)
            core = SlowFactors({name: source.core for name, source in sources.items()})
            poller, seen = Factors(sources, self.store, clock, clock), {name: _Seen() for name in sources}
            for step in range(steps + calm):
                if step == steps:
                    server._befalls = lambda page, since_ns: ""
                new: list[FactorObserved] = []
                for name, source in sources.items():
                    why = await poller._once(name, source, session, new.extend, seen[name])
                    assert len(why) < 200 and "k" * 32 not in why
                self.judge(core, new)
                self.now_ns += STEP_NS
        return core

    def judge(self, core: SlowFactors, new: list[FactorObserved]) -> None:
        """What was told just now, what the core makes of it, and what the store says was known when."""
        effects = Effects()
        for event in new:
            assert event.ts_recv_ns == self.now_ns >= event.event_ns
            assert event.publish_ns >= event.event_ns
            core.fold(event, effects)
            self.first_ns.setdefault(event.name, self.now_ns)
        self.told += new
        slow = core.at(self.now_ns, effects)
        assert np.isfinite(slow.z).all() and (abs(slow.z) <= 5.0).all()
        assert (slow.age_days[slow.valid] >= 0.0).all()
        for (name, at_ns), known in self.joins.items():
            assert self.store.known(name, at_ns, 5) == known, f"{name}: the past as it was known has changed"
        name = str(self.dice.choice(list(PAGES)))
        if name in self.first_ns and len(self.joins) < 60:  # what the first answer says of the past is an assumption
            self.joins[name, self.now_ns] = list(self.store.known(name, self.now_ns, 5))


@pytest.fixture(params=[1, 2])
async def swept(request, tmp_path, monkeypatch):
    monkeypatch.setattr("dea_daemon.shell.factor_store.VALUES_MOST", VALUES_MOST)
    monkeypatch.setattr("dea_daemon.shell.factor_store.REVISIONS_MOST", REVISIONS_MOST)
    with FactorStore(tmp_path / "factors.sqlite") as store, structlog.testing.capture_logs():
        sweep = Sweep(request.param, store)
        async with asyncio.timeout(280):
            core = await sweep.live(110, 30)
        yield sweep, core


async def test_months_of_faults_show_no_future_stop_nothing_and_fill_nothing(swept):
    sweep, core = swept
    for name in PAGES:
        kept = sweep.store.vintages(name)
        for vintage in kept:
            assert vintage.known_ns >= vintage.publish_ns >= vintage.event_ns, "known before it was published"
            live = vintage.receive_ns > sweep.first_ns[name]
            assert not live or vintage.known_ns >= vintage.receive_ns, "known before it was received"
        received = {(e.name, e.event_ns, e.revision): e.ts_recv_ns for e in sweep.told}
        assert all(received[name, v.event_ns, v.revision] == v.receive_ns for v in kept)
        assert sweep.store.flaws(name) == []
        assert len({vintage.event_ns for vintage in kept}) <= VALUES_MOST
        assert max(vintage.revision for vintage in kept) < REVISIONS_MOST
        past = core._of[name]
        assert len(past.at_ns) == len(past.value) == len(past._revision) <= KEPT
        assert len(core._waiting[name]) <= WAITING
    slow = core.at(sweep.now_ns, Effects())
    assert slow.valid.all() and (slow.age_days < 9.0).all(), "after two calm weeks all are there again"
    assert len(set(sweep.met) - {""}) > 12, "hardly a fault was met"


async def test_a_planted_look_ahead_is_caught(tmp_path, monkeypatch):
    """A store that dates what is received now as known at its publication."""
    honest = FactorStore._write

    def backdated(self, name, new):
        honest(self, name, [vintage._replace(known_ns=vintage.publish_ns) for vintage in new])

    monkeypatch.setattr(FactorStore, "_write", backdated)
    caught = pytest.raises(AssertionError, match="as it was known has changed")
    with FactorStore(tmp_path / "factors.sqlite") as store, structlog.testing.capture_logs(), caught:
        await Sweep(1, store).live(60, 0)
