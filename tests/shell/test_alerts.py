"""A person hears of what matters, once, and no sink ever holds up anything."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from dea_daemon.domain.decisions import Decision, DecisionRecord, LimitUse, Note
from dea_daemon.domain.modes import Mode
from dea_daemon.shell import alert_sinks
from dea_daemon.shell.alerts import KINDS, Alerts
from dea_daemon.shell.metrics import NOTES
from dea_daemon.shell.watch_settings import AlertSettings

SECRET = "T0KEN-swordfish"
TOKEN = "123456:telegram-swordfish"
HALTED = Note("mode.changed", {"before": "normal", "after": "halted", "why": "drawdown"})
NORMAL = Note("mode.changed", {"before": "halted", "after": "normal", "why": "operator"})
Answer = Callable[[web.Request], Awaitable[web.Response]]


class Place:
    """A loopback server that keeps what it was sent; each answer is taken from `answers`, then 200."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.arrived = asyncio.Event()
        self.answers: list[web.Response | float] = []  # a number: seconds before it answers

    async def handle(self, request: web.Request) -> web.Response:
        self.got.append(await request.json())
        self.paths.append(request.path)
        self.arrived.set()
        answer = self.answers.pop(0) if self.answers else web.Response()
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return web.Response()
        return answer

    async def received(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(5):
            while len(self.got) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.got


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    here = Place()
    app = web.Application()
    app.router.add_post("/{path:.*}", here.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    here.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield here
    await runner.cleanup()


@pytest.fixture(autouse=True)
def impatient(monkeypatch, place):
    """Pauses of milliseconds, and a Telegram next door."""
    monkeypatch.setattr(alert_sinks, "BACKOFF_S", (0.01, 0.05))
    monkeypatch.setattr(alert_sinks, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(alert_sinks, "TELEGRAM", place.url)


@pytest.fixture
def logged(monkeypatch) -> list[tuple[str, dict[str, Any]]]:
    lines: list[tuple[str, dict[str, Any]]] = []

    class Log:
        def warning(self, event: str, **fields: Any) -> None:
            lines.append((event, fields))

        info = warning

    monkeypatch.setattr(alert_sinks, "log", Log())
    return lines


def settings(url: str | None, *, chat: bool = False, **options: Any) -> AlertSettings:
    environ = {"URL": f"{url}/{SECRET}", "TOKEN": TOKEN}
    data = dict(options)
    if url is not None:
        data["webhook"] = {"env": "URL"}
    if chat:
        data["telegram"] = {"token": {"env": "TOKEN"}, "chat_id": "-100"}
    return AlertSettings.model_validate(data, context={"environ": environ})


@asynccontextmanager
async def running(wanted: AlertSettings) -> AsyncIterator[Alerts]:
    alerts = Alerts(wanted, "desk-1")
    task = asyncio.create_task(alerts.run())
    await asyncio.sleep(0)
    yield alerts
    await alerts.close()
    assert task.done()


def noted(*notes: Note) -> Decision:
    return Decision(notes=notes)


def unknown(k: int) -> Note:
    return Note("account.report_failed", {"account": k, "why": "no answer"})


def used(limit: str, share: float) -> Decision:
    uses = (LimitUse(limit, "delta:BTC", share * 100.0, 100.0),)
    return Decision(record=DecisionRecord(7, 0, 0, "timer", Mode.NORMAL, True, 5e5, (), (), uses, (), ()))


# --- what alerts, and how it looks --------------------------------------------------------------------------


async def test_a_webhook_gets_json(place):
    async with running(settings(place.url)) as alerts:
        alerts.tell(noted(HALTED))
        (got,) = await place.received(1)
    assert place.paths == [f"/{SECRET}"]
    assert got.pop("utc").endswith("+00:00")
    assert got == {
        "source": "desk-1",
        "level": "critical",
        "event": "mode.changed",
        "text": "mode is halted, was normal: drawdown",
        "fields": HALTED.fields,
    }


async def test_telegram_gets_a_message_to_its_chat(place):
    async with running(settings(None, chat=True)) as alerts:
        alerts.tell(noted(HALTED))
        (got,) = await place.received(1)
    assert place.paths == [f"/bot{TOKEN}/sendMessage"]
    assert got["chat_id"] == "-100"
    assert got["text"].startswith("CRITICAL desk-1: mode is halted, was normal: drawdown\nmode.changed 20")


async def test_a_breached_limit_alerts_and_one_at_its_bound_does_not(place):
    async with running(settings(place.url)) as alerts:
        for decision in (used("net", 1.0), used("turnover", 1.5), used("net", float("nan")), used("net", 1.2)):
            alerts.tell(decision)
    (got,) = place.got
    assert (got["event"], got["level"]) == ("limit.breached", "critical")
    assert got["text"] == "limit net delta:BTC: 120 used of 100"


async def test_what_happens_all_day_does_not_alert(place):
    quiet = [Note(event, {}) for event in NOTES if event not in KINDS]
    async with running(settings(place.url)) as alerts:
        alerts.tell(noted(*quiet, Note("operator.spoke", {"command": "drain", "who": "shell", "why": "stopping"})))
    assert len(quiet) > 5 and place.got == []


@pytest.mark.parametrize("event", KINDS)
async def test_every_kind_can_be_told_without_its_fields(place, event):
    events = [one for one in (KINDS[event].ends, event) if one]
    async with running(settings(place.url)) as alerts:
        alerts.tell(noted(*(Note(one, {}) for one in events)))
    assert [got["event"] for got in place.got] == events


async def test_a_liquidation_is_critical_and_names_what_was_taken(place):
    taken = Note("position.liquidated", {"instrument": "BTC-PERPETUAL", "side": "sell", "lots": 30})
    async with running(settings(place.url, min_level="critical")) as alerts:
        alerts.tell(noted(taken))
    (got,) = place.got
    assert got["text"] == "the venue liquidated 30 lots (sell) of BTC-PERPETUAL: halted"


async def test_a_watchdog_or_venue_that_is_there_is_news_only_after_it_was_gone(place):
    started, lost = Note("watchdog.started", {"why": ""}), Note("watchdog.lost", {"why": "exit -9"})
    eth = Note("venue.closed", {"currency": "ETH", "why": "locked"})
    btc = Note("venue.closed", {"currency": "BTC", "why": "locked"})
    opened = [Note("venue.opened", note.fields) for note in (btc, eth)]
    async with running(settings(place.url)) as alerts:
        alerts.tell(noted(started, *opened, lost, started, eth, btc, *opened, *opened))
    told = [(got["event"], got["fields"].get("currency")) for got in place.got]
    assert told == [
        ("watchdog.lost", None), ("watchdog.started", None), ("venue.closed", "ETH"), ("venue.closed", "BTC"),
        ("venue.opened", "BTC"), ("venue.opened", "ETH"),
    ]  # fmt: skip


async def test_a_surface_relied_upon_again_is_news_only_after_a_doubt_of_that_one(place):
    doubted = Note("surface.doubted", {"underlying": "BTC", "why": "stale: 301 s"})
    trusted = [Note("surface.trusted", {"underlying": name}) for name in ("BTC", "ETH")]
    async with running(settings(place.url)) as alerts:
        alerts.tell(noted(*trusted, doubted, *trusted))
    assert [got["text"] for got in place.got] == [
        "the volatility surface of BTC is not relied upon: stale: 301 s",
        "the volatility surface of BTC is relied upon again",
    ]


async def test_a_hundred_contracts_of_another_grid_are_one_message(place):
    notes = [Note("instrument.regridded", {"instrument": f"BTC-{k}-C", "lot_size": "1"}) for k in range(100)]
    async with running(settings(place.url)) as alerts:
        alerts.tell(noted(*notes))
    assert [got["fields"]["instrument"] for got in place.got] == ["BTC-0-C"]


async def test_a_limit_in_parts_of_a_whole_is_told_as_percent(place):
    uses = (LimitUse("depeg", "USDC", 0.0062, 0.005),)
    async with running(settings(place.url)) as alerts:
        alerts.tell(Decision(record=DecisionRecord(7, 0, 0, "timer", Mode.NORMAL, True, 5e5, (), (), uses, (), ())))
    (got,) = place.got
    assert got["text"] == "limit depeg USDC: 0.62 % used of 0.5 %"
    assert (got["fields"]["used"], got["fields"]["allowed"]) == (0.0062, 0.005)


async def test_below_the_configured_level_nothing_is_sent(place):
    async with running(settings(place.url, min_level="critical")) as alerts:
        alerts.tell(noted(unknown(1), NORMAL, HALTED))
    assert [got["fields"].get("after") for got in place.got] == ["halted"]


async def test_no_sink_no_work():
    async with running(settings(None)) as alerts:
        alerts.tell(noted(HALTED))


# --- repeats and limits -------------------------------------------------------------------------------------


async def test_the_same_alert_goes_again_only_later_and_says_how_often_it_was_held_back(place):
    async with running(settings(place.url, repeat_after_s=0.15)) as alerts:
        alerts.tell(noted(unknown(1), unknown(1), unknown(2), unknown(1)))
        await asyncio.sleep(0.2)
        alerts.tell(noted(unknown(1)))
    texts = [got["text"] for got in place.got]
    assert texts == [
        "account 1 cannot be read: no answer",
        "account 2 cannot be read: no answer",
        "account 1 cannot be read: no answer (2 more since the last message)",
    ]


@pytest.mark.parametrize("level", ["warning", "critical"])
async def test_a_mode_that_comes_back_is_no_repeat(place, level):
    async with running(settings(place.url, min_level=level)) as alerts:
        alerts.tell(noted(HALTED, HALTED, NORMAL, HALTED))
    modes = [got["fields"]["after"] for got in place.got]
    assert modes == (["halted", "normal", "halted"] if level == "warning" else ["halted", "halted"])


async def test_a_storm_of_warnings_is_bounded_and_leaves_room_for_the_critical(place):
    async with running(settings(place.url, per_hour=10)) as alerts:
        alerts.tell(noted(*(unknown(k) for k in range(50)), HALTED))
        got = await place.received(9)
    assert [g["level"] for g in got] == ["warning"] * 8 + ["critical"]
    assert got[-1]["text"] == "mode is halted, was normal: drawdown (42 other alerts were left out)"


async def test_beyond_the_hours_limit_the_critical_waits_for_its_turn(place, monkeypatch):
    monkeypatch.setattr(alert_sinks, "HOUR_S", 0.3)
    async with running(settings(place.url, per_hour=1)) as alerts:
        alerts.tell(noted(HALTED, NORMAL, Note("ledger.failed", {"why": "full"})))
        await place.received(1)
        await asyncio.sleep(0.1)
        assert len(place.got) == 1
        got = await place.received(2)
    assert [g["event"] for g in got] == ["mode.changed", "ledger.failed"]
    assert "1 other alerts were left out" in got[1]["text"]


# --- sinks that fail ----------------------------------------------------------------------------------------


async def test_telling_never_waits_and_a_full_queue_drops_the_oldest(place):
    place.answers = [0.3]
    async with running(settings(place.url, per_hour=1_000)) as alerts:
        alerts.tell(noted(HALTED))
        await place.received(1)  # and now it hangs
        before_s = time.perf_counter()
        for k in range(1_000):
            alerts.tell(noted(unknown(k)))
        assert time.perf_counter() - before_s < 0.5
        got = await place.received(2 + alert_sinks.QUEUE)
    told = [g["fields"]["account"] for g in got if g["event"] == "account.report_failed"]
    assert told == list(range(900, 1_000))
    assert sum("900 other alerts" in g["text"] for g in got) >= 1


@pytest.mark.parametrize("trouble", [web.Response(status=500), web.Response(status=429), 1.0], ids=str)
async def test_a_failed_alert_is_tried_again_and_the_outage_logged_once(place, logged, trouble):
    place.answers = [trouble, web.Response(status=503)]
    async with running(settings(place.url)) as alerts:
        alerts.tell(noted(HALTED))
        got = await place.received(3)
    assert {g["text"] for g in got} == {"mode is halted, was normal: drawdown"}
    assert [event for event, _ in logged] == ["alert.sink_failed", "alert.sink_restored"]


async def test_retry_after_is_honoured(place):
    place.answers = [web.Response(status=429, headers={"Retry-After": "1"})]
    async with running(settings(place.url)) as alerts:
        alerts.tell(noted(HALTED))
        await place.received(1)
        before_s = time.perf_counter()
        await place.received(2)
    assert time.perf_counter() - before_s > 0.9


async def test_an_alert_refused_for_good_does_not_block_the_next(place, logged):
    place.answers = [web.Response(status=404)]
    async with running(settings(place.url)) as alerts:
        alerts.tell(noted(HALTED, NORMAL))
        got = await place.received(2)
    assert "1 other alerts were left out" in got[1]["text"]
    assert logged[0] == ("alert.sink_failed", {"sink": "webhook", "why": "status 404"})


async def test_a_hanging_sink_does_not_touch_the_other(place, monkeypatch):
    monkeypatch.setattr(alert_sinks, "TIMEOUT_S", 30.0)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    deaf = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = deaf.sockets[0].getsockname()[1]
    async with running(settings(f"http://127.0.0.1:{port}", chat=True)) as alerts:
        alerts.tell(noted(HALTED, NORMAL))
        await place.received(2)
        before_s = time.perf_counter()
    assert time.perf_counter() - before_s < 3.0  # closing waits two seconds and no more
    deaf.close()


async def test_a_sink_that_hangs_up_or_is_not_there_is_only_logged(place, logged):
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    rude = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = rude.sockets[0].getsockname()[1]
    async with running(settings(f"http://127.0.0.1:{port}")) as alerts:
        alerts.tell(noted(HALTED))
        await asyncio.sleep(0.1)
        rude.close()
        await asyncio.sleep(0.1)
    assert [event for event, _ in logged] == ["alert.sink_failed"]


async def test_nothing_logged_holds_a_secret(place, logged):
    nowhere = "http://127.0.0.1:1"
    for url in (nowhere, "http://[broken", "ftp:/x y"):
        async with running(settings(url, chat=True)) as alerts:
            place.answers = [web.Response(status=401, text=TOKEN)]
            alerts.tell(noted(HALTED))
            await asyncio.sleep(0.05)
    assert len(logged) > 3
    assert "swordfish" not in repr(logged) and "127.0.0.1" not in repr(logged)


async def test_an_alert_that_cannot_be_written_is_left_out_and_the_next_one_goes(place):
    async with running(settings(place.url)) as alerts:
        alerts.tell(noted(Note("ledger.failed", {"why": "half a \ud800"}), HALTED))
        (got,) = await place.received(1)
    assert got["event"] == "mode.changed" and "1 other" in got["text"]


async def test_a_secret_in_a_notes_text_is_not_passed_on(place):
    async with running(settings(place.url)) as alerts:
        alerts.tell(noted(Note("ledger.failed", {"why": f"POST {place.url}/{SECRET} failed, bearer token=abcdefgh"})))
        (got,) = await place.received(1)
    assert "swordfish" not in str(got) and "abcdefgh" not in str(got)


# --- the end ------------------------------------------------------------------------------------------------


async def test_closing_sends_what_is_queued_even_if_the_task_was_ended_first(place):
    alerts = Alerts(settings(place.url), "desk-1")
    task = asyncio.create_task(alerts.run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    alerts.note(Note("run.ended", {}))
    await alerts.close()
    assert [got["text"] for got in place.got] == ["ended"]


async def test_closing_gives_up_on_a_dead_sink_at_once():
    async with running(settings("http://127.0.0.1:1")) as alerts:
        alerts.tell(noted(HALTED, NORMAL))
        before_s = time.perf_counter()
    assert time.perf_counter() - before_s < 1.0


async def test_an_alert_on_its_way_when_the_task_was_ended_is_tried_again(place):
    place.answers = [0.15]
    alerts = Alerts(settings(place.url), "desk-1")
    task = asyncio.create_task(alerts.run())
    alerts.note(HALTED)
    await place.received(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await alerts.close()
    assert len(place.got) == 2


async def test_a_redirect_is_not_followed(place):
    place.answers = [web.Response(status=307, headers={"Location": "/elsewhere"})]
    async with running(settings(place.url)) as alerts:
        alerts.tell(noted(HALTED))
        await place.received(1)
    assert place.paths == [f"/{SECRET}"]
