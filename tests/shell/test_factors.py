"""Sources of slow factors over real HTTP on loopback: what they say is kept and told, and nothing stops a run."""

import asyncio
import contextlib
import csv
import json
import os
import threading

import numpy as np
import pytest
import structlog
from pydantic import TypeAdapter

from dea_daemon.domain.events import FactorObserved
from dea_daemon.shell import factors as polling
from dea_daemon.shell.factor_server import FactorServer
from dea_daemon.shell.factor_settings import AnySource, FearGreed, Source
from dea_daemon.shell.factor_store import FactorStore
from dea_daemon.shell.factors import Factors
from dea_daemon.shell.redaction import scrub
from dea_daemon.simvenue.faults import PAGE_ACTIONS
from dea_daemon.state.effects import Effects
from dea_daemon.state.factors import SlowFactors

DAY = 86_400 * 10**9
HOUR = DAY // 24
NOON = 20_600 * DAY + DAY // 2
KEY = "0123456789abcdef0123456789abcdef"


class Watch:
    """The wall clock and the receipt clock, as the test sets them."""

    def __init__(self):
        self.ns = NOON

    def __call__(self):
        return self.ns


def source(**fields) -> Source:
    context = {"environ": {"FRED_KEY": KEY}}
    return TypeAdapter(AnySource).validate_json(json.dumps(fields), strict=True, context=context)


def fast(server, kind="csv", **fields) -> Source:
    """Asked twenty times a second."""
    url = f"{server.url}/own.csv" if kind == "csv" else server.url
    return source(**{"kind": kind, "url": url, "every_s": 0.05, "timeout_s": 1.0, "lag_h": 30.0} | fields)


def all_kinds(server) -> dict[str, Source]:
    return {
        "mvrv": fast(server, "coinmetrics", asset="btc", metric="CapMVRVCur"),
        "greed": fast(server, "fear_greed"),
        "dgs10": fast(server, "fred", series="DGS10", api_key={"env": "FRED_KEY"}),
        "vix": fast(server, "fred", series="VIXCLS"),
        "own": fast(server, "csv"),
        "mine": fast(
            server, "http_json", url=f"{server.url}/own.json", rows="data.points", time="at", value="of.value"
        ),
    }


@contextlib.asynccontextmanager
async def asked(sources, store, watch, retry_s=0.02):
    """The poller at work; what it emitted."""
    told: list[FactorObserved] = []
    running = asyncio.create_task(Factors(sources, store, watch, watch, retry_s).run(told.extend))
    try:
        yield told
        assert not running.done(), running.exception()
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def until(condition, what, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 what is waited for has no bell
            await asyncio.sleep(0.01)
    assert condition(), what


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def lines():
    with structlog.testing.capture_logs() as found:
        yield found


@pytest.fixture
def store(tmp_path):
    with FactorStore(tmp_path / "factors.sqlite") as opened:
        yield opened


@pytest.fixture
async def server(watch):
    async with FactorServer(watch) as running:
        yield running


def named(lines, event):
    return [line for line in lines if line["event"] == event]


# --- what is told -------------------------------------------------------------------------------------------


async def test_every_kind_of_source_tells_its_past_and_then_each_new_day(server, store, watch):
    sources = all_kinds(server)
    async with asked(sources, store, watch) as told:
        await until(lambda: len({event.name for event in told}) == len(sources), "a past of each")
        before = len(told)
        watch.ns += 3 * DAY
        await until(lambda: len({event.name for event in told[before:]}) == len(sources), "news of each")
    for name, truth in (("mvrv", "CapMVRVCur"), ("dgs10", "DGS10"), ("vix", "VIXCLS"), ("own", "own"), ("mine", "own")):
        walk = dict(server.told(truth))
        mine = [event for event in told if event.name == name]
        assert len(mine) > 400 and len({event.event_ns for event in mine}) == len(mine)
        assert all(walk[event.event_ns // DAY] == event.value for event in mine), name
    greed = dict(server.told("fear_greed"))
    assert all(round(greed[e.event_ns // DAY]) == e.value for e in told if e.name == "greed")


async def test_a_long_history_comes_page_by_page(server, store, watch):
    async with asked({"mvrv": all_kinds(server)["mvrv"]}, store, watch) as told:
        await until(lambda: len(told) == 600, "all days")
    pages = [path for path in server.asked if "asset-metrics" in path][:3]
    assert ["next_page_token" in path for path in pages] == [False, True, True]


async def test_a_value_counts_from_its_publication_and_never_from_its_day(server, store, watch):
    async with asked({"own": fast(server)}, store, watch) as told:
        await until(lambda: len(told) == 600, "all days")
        watch.ns += DAY
        await until(lambda: len(told) == 601, "the next day")
    past, newest = told[:-1], told[-1]
    assert all(event.publish_ns == event.event_ns + 30 * HOUR for event in past)
    assert newest.publish_ns == newest.event_ns + 30 * HOUR < watch.ns == newest.ts_recv_ns
    # What was received before the lag is over is public: it was received.
    async with asked({"two": fast(server, lag_h=480.0)}, store, watch) as told:
        await until(lambda: len(told) == 601, "all days")
    assert told[-1].publish_ns == watch.ns


async def test_vintages_are_told_in_the_order_they_were_published(server, store, watch):
    fred = fast(server, "fred", series="M2", api_key={"env": "FRED_KEY"}, vintages=True)
    async with asked({"m2": fred}, store, watch) as told:
        await until(lambda: len(told) > 800, "all vintages")
        await asyncio.sleep(0.2)  # asked again: the same answer is no news
        first = len(told)
        await asyncio.sleep(0.2)
        assert len(told) == first
    published = [event.publish_ns for event in told]
    assert published == sorted(published)
    walk = dict(server.told("M2"))
    for vintage in store.vintages("m2"):
        day = vintage.event_ns // DAY
        released = day + (1 if vintage.revision == 0 else 7)
        assert vintage.value == pytest.approx(walk[day] + 0.5 * vintage.revision)
        assert vintage.publish_ns == released * DAY + 30 * HOUR


async def test_a_watched_file_is_read_again_when_it_changed(tmp_path, store, watch, lines):
    path = tmp_path / "own.csv"
    mine = source(kind="file", path=str(path), every_s=0.05, value_column="level")
    async with asked({"mine": mine}, store, watch) as told:
        await until(lambda: named(lines, "factor.failed"), "it is not there")
        path.write_text("day,note,level\n2026-05-01,a,1.5\n2026-05-02,b,\n2026-05-03,c,1.7\n")
        await until(lambda: len(told) == 2, "its values")
        path.write_text("day,note,level\n2026-05-01,a,1.5\n2026-05-03,c,1.8\n2026-05-04,c,1.9\n")
        await until(lambda: len(told) == 4, "its changes")
    assert [(event.value, event.revision) for event in told] == [(1.5, 0), (1.7, 0), (1.9, 0), (1.8, 1)]
    assert named(lines, "factor.failed")[0]["why"] == "FileNotFoundError"
    assert len(named(lines, "factor.recovered")) == 1


async def test_a_watched_file_that_is_none_is_refused_before_it_is_opened(tmp_path, store, watch, lines):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with asked({"mine": source(kind="file", path=str(pipe), every_s=0.05)}, store, watch):
        await until(lambda: named(lines, "factor.failed"), "it is refused")
    assert named(lines, "factor.failed")[0]["why"] == "no regular file"


async def test_a_file_whose_reading_hangs_fails_in_time_in_one_thread_that_holds_up_no_exit(
    tmp_path, store, watch, lines, monkeypatch
):
    mount = threading.Event()
    good = tmp_path / "own.csv"
    good.write_text("day,level\n2026-05-01,1.5\n")
    monkeypatch.setattr(polling, "S_ISREG", lambda mode: mount.wait(20.0))  # as a stat on a mount that is gone
    mine = source(kind="file", path=str(good), every_s=0.05, timeout_s=0.05)
    async with asked({"mine": mine}, store, watch) as told:
        await until(lambda: named(lines, "factor.failed"), "it is given up")
        await asyncio.sleep(0.3)  # asked again and again
        reading = [thread for thread in threading.enumerate() if thread.name == "factor file"]
        assert len(reading) == 1 and reading[0].daemon
        mount.set()
        await until(lambda: told, "its value, once the mount is back")
    assert [line["why"] for line in named(lines, "factor.failed")] == ["TimeoutError"]


async def test_a_file_that_is_too_long_is_refused(tmp_path, store, watch, lines):
    path = tmp_path / "own.csv"
    path.write_bytes(b"day,level\n" + b"\n" * polling.REPLY_MOST)
    async with asked({"mine": source(kind="file", path=str(path), every_s=0.05)}, store, watch):
        await until(lambda: named(lines, "factor.failed"), "it is refused")
    assert named(lines, "factor.failed")[0]["why"] == "more than 2 MB"


async def test_what_is_older_than_the_history_is_not_kept(server, store, watch):
    async with asked({"greed": fast(server, "fear_greed", history_days=100.0)}, store, watch) as told:
        await until(lambda: told, "the past")
        await asyncio.sleep(0.2)
    first_midnight_ns = NOON + DAY // 2 - 100 * DAY
    assert told[0].event_ns == first_midnight_ns and len(told) == 99  # up to yesterday
    assert len(store.vintages("greed")) == 99


async def test_of_too_long_an_answer_the_newest_are_taken(server, store, watch, monkeypatch):
    monkeypatch.setattr("dea_daemon.shell.factor_formats.ROWS_MOST", 40)
    async with asked({"mvrv": all_kinds(server)["mvrv"]}, store, watch) as told:
        await until(lambda: told, "the past")
    newest = [day * DAY for day, _ in server.told("CapMVRVCur")[-40:]]
    assert [event.event_ns for event in told] == newest


async def test_what_was_kept_is_recalled_after_a_restart_oldest_first_and_bounded(server, store, watch, monkeypatch):
    sources = {"own": fast(server), "vix": fast(server, "fred", series="VIXCLS")}
    async with asked(sources, store, watch) as told:
        await until(lambda: len({event.name for event in told}) == 2, "both pasts")
        await asyncio.sleep(0.1)
    watch.ns += DAY
    again = Factors(sources, store, watch, watch).recalled()
    assert [event.event_ns for event in again] == sorted(event.event_ns for event in told)
    assert {event.ts_recv_ns for event in again} == {watch.ns}
    strip = [(e.name, e.event_ns, e.publish_ns, e.value) for e in again]
    assert sorted(strip) == sorted((e.name, e.event_ns, e.publish_ns, e.value) for e in told)
    monkeypatch.setattr(polling, "RECALLED", 50)
    fewer = Factors(sources, store, watch, watch).recalled()
    assert len(fewer) == 100 and max(e.event_ns for e in fewer) == max(e.event_ns for e in again)


async def test_without_sources_nobody_is_asked(server, store, watch):
    await Factors({}, store, watch, watch).run(lambda events: None)
    assert not server.asked


# --- how it goes wrong --------------------------------------------------------------------------------------

FAILING = {
    "hang": "TimeoutError", "drip": "TimeoutError", "html": "HTML", "error": "status 503", "huge": "more than",
    "redirect": "status 302, a redirect", "truncated": "", "words": "", "packed": "compressed", "gone": "",
}  # fmt: skip


async def by_fault(fault, server, store, watch, lines, kind="fear_greed"):
    """Told well for a while, then with the fault for some time, then well again."""
    greed = fast(server, kind, timeout_s=0.2)
    async with asked({"greed": greed}, store, watch) as told:
        await until(lambda: len(told) == 600, "the past")
        server.fault, before = fault, len(server.asked)
        watch.ns += DAY
        await until(lambda: len(server.asked) > before + 2, "it is asked on")
        server.fault = ""
        watch.ns += DAY
        await until(lambda: len({event.event_ns for event in told}) >= 602, "news after the fault")
    return told


@pytest.mark.parametrize("fault", FAILING)
async def test_a_source_that_fails_is_told_once_and_asked_again_until_it_recovers(fault, server, store, watch, lines):
    told = await by_fault(fault, server, store, watch, lines)
    failed = named(lines, "factor.failed")
    assert failed and failed[0]["factor"] == "greed" and FAILING[fault] in failed[0]["why"]
    assert len(failed) <= 2  # not every time
    assert len(named(lines, "factor.recovered")) >= 1
    assert [event.value for event in told[600:]] == [round(v) for _, v in server.told("fear_greed")[-2:]]


@pytest.mark.parametrize("fault", ["rewind", "empty"])
async def test_a_source_that_goes_back_in_time_or_falls_silent_is_no_news(fault, server, store, watch, lines):
    told = await by_fault(fault, server, store, watch, lines)
    assert len({event.event_ns for event in told}) == len(told) == 602


async def test_what_is_about_a_time_still_to_come_is_refused_and_the_rest_taken(server, store, watch, lines):
    told = await by_fault("future", server, store, watch, lines)
    assert all(event.event_ns <= event.ts_recv_ns for event in told)
    assert named(lines, "factor.refused")[0]["values"] == 1


async def test_a_restatement_changes_only_what_comes_after_its_receipt(server, store, watch):
    async with asked({"own": fast(server)}, store, watch) as told:
        await until(lambda: len(told) == 600, "the past")
        received, newest_ns = watch.ns, told[-1].event_ns
        watch.ns += HOUR
        server.fault = "restate"
        await until(lambda: len(told) == 609, "ten days restated, but for today's")
        assert all(event.revision == 1 and event.publish_ns == watch.ns for event in told[600:])
        first, second = store.as_of("own", received), store.as_of("own", watch.ns)
        assert first is not None and second is not None and first.event_ns == second.event_ns == newest_ns
        assert second.value == pytest.approx(first.value + 0.01) and store.as_of("own", watch.ns - 1) == first
    keeps = {"own": fast(server, revisions="first")}
    async with asked(keeps, FactorStore(None), watch) as told:
        await until(lambda: len(told) == 600, "the past")
        server.fault = ""
        await asyncio.sleep(0.3)
        assert len(told) == 600


async def test_a_source_that_changes_its_mind_all_the_time_fills_no_disk(server, store, watch, monkeypatch):
    monkeypatch.setattr("dea_daemon.shell.factor_store.REVISIONS_MOST", 5)
    async with asked({"own": fast(server)}, store, watch) as told:
        for turn in range(12):
            server.fault = ("", "restate")[turn % 2]
            asked_before = len(server.asked)
            await until(lambda n=asked_before: len(server.asked) > n + 2, "it is asked")
    assert max(event.revision for event in told) == 4


async def test_an_endless_chain_of_pages_ends(server, store, watch, lines):
    server.fault = "endless"
    chain = {"mvrv": fast(server, "coinmetrics", asset="btc", metric="CapMVRVCur", timeout_s=30.0)}
    async with asked(chain, store, watch):
        await until(lambda: named(lines, "factor.failed"), "it is given up", 30)
    assert "pages" in named(lines, "factor.failed")[0]["why"]


async def test_one_source_that_hangs_holds_up_no_other(server, store, watch):
    async with FactorServer(watch) as bad:
        bad.fault = "hang"
        async with asked({"bad": fast(bad, timeout_s=30.0), "own": fast(server)}, store, watch) as told:
            await until(lambda: len(told) == 600, "the good one")
        assert {event.name for event in told} == {"own"}


async def test_failures_in_a_row_are_further_and_further_apart(server, store, watch):
    server.fault = "error"
    async with asked({"own": fast(server, every_s=100.0)}, store, watch, retry_s=0.05):
        await asyncio.sleep(1.0)
    assert 3 <= len(server.asked) <= 5  # at 0, 0.05, 0.15, 0.35, 0.75 s


async def test_a_redirect_leads_nowhere_not_even_on_the_same_host(server, store, watch, lines):
    async with FactorServer(watch) as elsewhere:
        server.fault = "redirect"
        async with asked({"own": fast(server)}, store, watch):
            await until(lambda: len(server.asked) > 2, "it is asked")
        assert not elsewhere.asked and not any("elsewhere" in path for path in server.asked)


async def test_the_key_is_sent_and_never_logged(server, store, watch, lines):
    fred = fast(server, "fred", series="DGS10", api_key={"env": "FRED_KEY"}, timeout_s=0.2)
    async with asked({"dgs10": fred}, store, watch) as told:
        await until(lambda: told, "values")
        for fault in ("hang", "error", "gone", "html", "words"):
            server.fault, before = fault, len(server.asked)
            await until(lambda n=before: len(server.asked) > n + 2, "it is asked")
    assert any(KEY in path for path in server.asked)
    assert named(lines, "factor.failed") and KEY not in repr(lines)
    assert KEY.encode() not in scrub(f"GET {server.url}?api_key={KEY}".encode())


async def test_a_store_that_cannot_be_used_is_done_without(server, tmp_path, watch, lines):
    path = tmp_path / "factors.sqlite"
    path.write_bytes(b"no database at all, but a text that is long enough to look like something" * 20)
    before = path.read_bytes()
    factors = Factors.open({"own": fast(server)}, path, watch, watch)
    told: list[FactorObserved] = []
    running = asyncio.create_task(factors.run(told.extend))
    await until(lambda: len(told) == 600, "values all the same")
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    factors.close()
    assert named(lines, "factor.store_failed") and path.read_bytes() == before


@pytest.mark.parametrize("fault", [*PAGE_ACTIONS, ""])
async def test_whatever_a_source_does_the_core_sees_no_future_and_no_nonsense(fault, server, store, watch, lines):
    """Every fault, seen from the core: after it z is finite and within its bound, and fades while nothing comes."""
    core = SlowFactors({"greed": FearGreed().core})
    told = await by_fault(fault, server, store, watch, lines)
    effects = Effects()
    for event in told:
        assert event.event_ns <= event.ts_recv_ns
        core.fold(event, effects)
        slow = core.at(event.ts_recv_ns, effects)
        assert np.isfinite(slow.z).all() and (abs(slow.z) <= 5.0).all()
    now, later = core.at(watch.ns, effects), core.at(watch.ns + 10 * DAY, effects)
    assert now.valid[0] and 0 < abs(later.z[0]) < abs(now.z[0])
    assert fault != "absurd" or "factor.refused" in [note.event for note in effects.notes]


def test_the_faults_tested_are_all_there_are():
    content = {"endless", "rewind", "restate", "absurd", "jump", "future", "empty"}
    assert set(FAILING) | content == set(PAGE_ACTIONS)


def test_the_csv_module_reads_what_the_simulated_source_writes(watch):
    """The simulated tables are of the kind the world writes: an independent reader gets the same."""
    pages = FactorServer(watch)
    body = asyncio.run(pages._csv(None, "")).text  # type: ignore[arg-type]
    rows = list(csv.DictReader((body or "").splitlines()))
    assert [float(row["value"]) for row in rows] == [value for _, value in pages.told("own")]
