"""The page in a real browser: headless Chromium, spoken to over its own protocol."""

import asyncio
import json
import shutil
import subprocess
import time
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
import websockets

from dea_daemon.shell.plain import plain
from dea_daemon.shell.surface_figures import surfaces
from dea_daemon.shell.web import WebServer
from tests.shell.status_sample import contender, option, slow_factor
from tests.shell.surface_samples import SurfaceDesk
from tests.shell.watched import Watched

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
    "--window-size=1400,1800",
)  # fmt: skip
PLOTTED = "(document.querySelector('#equity').data || [{x: []}])[0].x.length"
EXPOSURES = "[...document.querySelectorAll('#exposures .chart')].map((c) => (c.data || [{x: []}])[0].x.length)"
TOO_WIDE = "[...document.querySelectorAll('.chart')].filter((c) => c.scrollWidth > c.clientWidth + 1).length"
TEXT = "document.querySelector({!r}).textContent"


class Page:
    """One tab."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket, self._number = socket, 0
        self.complaints: list[str] = []  # errors of scripts and of the content policy

    async def call(self, method, **params):
        self._number += 1
        await self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(await asyncio.wait_for(self._socket.recv(), 20))
            self._note(message)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def _note(self, message):
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        entry = params.get("entry", {})
        if message.get("method") == "Log.entryAdded" and entry["level"] == "error" and entry["source"] != "network":
            self.complaints.append(entry["text"])

    async def open(self, url):
        for domain in ("Runtime", "Log", "Page"):
            await self.call(domain + ".enable")
        await self.call("Page.navigate", url=url)

    async def value(self, expression):
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    async def until(self, expression, wanted):
        deadline = time.monotonic() + 20
        while (found := await self.value(expression)) != wanted:
            assert time.monotonic() < deadline, f"{expression} is {found!r}, not {wanted!r}; {self.complaints}"
            await asyncio.sleep(0.1)


@asynccontextmanager
async def browser(folder):
    chromium = shutil.which("chromium")
    assert chromium, "chromium is missing: apt-get install chromium"
    command = [chromium, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = await _port(folder / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/json/list") as reply:
            tab = next(target for target in await reply.json() if target["type"] == "page")
        async with websockets.connect(tab["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        await process.wait()


async def _port(file, process):
    async with asyncio.timeout(30):
        while not (file.exists() and file.read_text().count("\n")):
            assert process.returncode is None, f"chromium ended with {process.returncode}"
            await asyncio.sleep(0.05)
    return file.read_text().splitlines()[0]


@pytest.fixture
async def page(tmp_path):
    async with browser(tmp_path / "chromium") as page:
        yield page
        assert not page.complaints


def serving(monitor, port=0):
    return WebServer("127.0.0.1", port, monitor, lambda: b"")


def cut(server):
    """Every connection ends as if the wire had gone."""
    for handler in server._runner.server.connections:
        handler.transport.abort()


async def test_a_stream_that_broke_and_came_back_doubles_no_point(page):
    monitor = Watched(points=120)
    async with serving(monitor) as server:
        await page.open(server.url)
        await page.until(PLOTTED, 120)
        assert await page.value(EXPOSURES) == [120, 120]
        await page.until(TOO_WIDE, 0)
        await page.value("window.witness = 1")
        for _ in range(2):
            cut(server)
            monitor.grow(15)
            await page.until(PLOTTED, len(monitor.points(0)))
            await page.until(TEXT.format("#link"), "live")
        assert await page.value(EXPOSURES) == [150, 150]
        assert await page.value("new Set(document.querySelector('#equity').data[0].x).size") == 150
        assert await page.value("document.querySelectorAll('#decisions tbody tr').length") == 30
        assert await page.value("document.querySelectorAll('#fills tbody tr').length") == 30
        assert await page.value("window.witness") == 1  # the page itself was not loaded again


async def test_a_page_whose_daemon_ended_says_so_and_begins_anew_with_the_next(page):
    monitor = Watched(points=50)
    async with serving(monitor) as server:
        await page.open(server.url)
        await page.until(PLOTTED, 50)
        assert await page.value("document.body.className") == ""
        port = server.port
    await page.until("document.body.className", "lost")
    assert "connection lost" in await page.value(TEXT.format("#link"))
    async with serving(Watched("run2", points=7), port):
        await page.until(PLOTTED, 7)
        await page.until("document.body.dataset.run", "run2")
        await page.until("document.querySelectorAll('#decisions tbody tr').length", 1)


async def test_a_click_on_a_decision_tells_all_of_it_and_runs_nothing(page):
    async with serving(Watched(points=10)) as server:
        await page.open(server.url)
        await page.until("document.querySelectorAll('#decisions tbody tr').length", 2)
        await page.value("document.querySelector('#decisions tbody tr').click()")
        await page.until(TEXT.format("#record h2"), "Decision 40")
        await page.until("document.querySelectorAll('#record table').length", 4)
        told = await page.value(TEXT.format("#record"))
        for words in ("$90,000", "$100,000", "one order's most", "BTC-PERPETUAL", "80000.5", "<b>BTC</b>"):
            assert words in told
        assert await page.value("document.querySelectorAll('#record b').length") == 0
        assert await page.value("document.querySelector('#detail').open") is True


async def test_the_head_of_the_page_says_how_the_daemon_is(page):
    why = ["feed books is not connected"]
    sick: dict[str, Any] = dict(mode="halted", mode_why="drawdown", healthy=False, unhealthy=why)
    monitor = Watched(points=3, **sick)
    async with serving(monitor) as server:
        await page.open(server.url)
        await page.until(TEXT.format("#mode"), "halted")
        assert await page.value(TEXT.format("#health")) == "unhealthy"
        assert await page.value(TEXT.format("#why")) == "drawdown · feed books is not connected"
        assert await page.value("document.querySelectorAll('#instruments tbody tr').length") == 2
        assert await page.value("document.querySelectorAll('#limits .bar').length") == 5


async def test_options_held_are_told_with_what_they_rest_on(page):
    held = [
        option("BTC-27MAR26-70000-C"),
        option("BTC-27MAR26-80000-P", iv_source="neighbour", modelled=True),
        option("BTC-9JAN26-92000-C", days=0.5, greeks_off=True),
    ]
    monitor = Watched(points=3, options=held, option_counts=dict(listed=370, modelled=1, greeks_off=1))
    async with serving(monitor) as server:
        await page.open(server.url)
        await page.until("document.querySelectorAll('#options tbody tr').length", 3)
        assert await page.value("document.querySelector('#optional').checkVisibility()") is True
        told = await page.value(TEXT.format("#options tbody tr"))
        for figure in ("BTC-27MAR26-70000-C", "-30", "46 %", "quotes", "99,286", "4,974", "508", "144", "81 d"):
            assert figure in told.replace("−", "-"), told
        assert [await marked(page, row) for row in (1, 2, 3)] == [[False, False], [True, False], [False, True]]
        assert "12 h" in await page.value(TEXT.format("#options tbody tr:nth-child(3)"))
        assert await page.value(TEXT.format("#rests")) == "370 listed, 1 modelled, 1 whose Greeks the venue contradicts"
        by_underlying = await page.value(TEXT.format("#greeks tbody"))
        for figure in ("BTC", "$1,250", "$311", "7d −$10.5", "90d −$400"):
            assert figure in by_underlying, by_underlying


async def marked(page, row):
    """Whether an option's line is shown as modelled, and as contradicted by the venue."""
    line = f"document.querySelector('#options tbody tr:nth-child({row})')"
    return [await page.value(f"{line}.classList.contains('{name}')") for name in ("stale", "off")]


async def test_a_surface_is_drawn_through_its_quotes_and_a_click_shows_another_expiry(page):
    desk = SurfaceDesk()
    desk.settle()
    desk.decide()
    desk.answer()
    desk.decide()
    monitor = Watched(points=3)
    told = surfaces(desk.state.market, desk.state.view, desk.now_ns)
    monitor.surfaces = json.loads(msgspec.json.encode(told, enc_hook=plain))
    far = monitor.surfaces["surfaces"][0]["smiles"][2]["quoted"]  # more than 20 days away: shown first
    far["bid_iv"][3] += 0.05
    far["ask_iv"][3] += 0.05
    async with serving(monitor) as server:
        await page.open(server.url)
        await page.until(TEXT.format("#trust"), "relied upon")
        await page.until("(document.querySelector('#smile').data || []).map((t) => t.x.length).join()", "49,12,1")
        assert await page.value("document.querySelector('#expiry').value") == "31OCT26"
        assert await page.value("document.querySelector('#term').data.length") == 3
        await page.until(TOO_WIDE, 0)
        await page.value("document.querySelector('#smiles tbody tr').click()")
        await page.until("document.querySelector('#smile').data.map((t) => t.x.length).join()", "49,13")
        assert await page.value("document.querySelector('#expiry').value") == "24SEP26"
        monitor.surfaces["surfaces"][0].update(relied=False, why="stale: 412 s")
        await page.until(TEXT.format("#trust"), "not relied upon: stale: 412 s; no new vega risk")


async def test_forecasters_and_slow_factors_have_a_line_each_with_state_and_scores(page):
    trial = [
        contender(state="traded", weight=0.2),
        contender("ridge_5d", state="demoted", why="the trial: its loss has drifted <i>"),
        contender("har", kind="variance", state="traded", weight=1.0, net_gain=None),
    ]
    silent = slow_factor("mine", age_days=None, valid=False, why="too little is known of it")
    async with serving(Watched(points=3, contenders=trial, slow_factors=[slow_factor("greed"), silent])) as server:
        await page.open(server.url)
        await page.until("document.querySelectorAll('#forecasters tbody tr').length", 3)
        row = "[...document.querySelectorAll('#{} tbody tr:nth-child({}) td')].map((cell) => cell.textContent).join()"
        assert await page.value(row.format("forecasters", 1)) == "momentum_5d,traded,0.2,0.47 %,1.5,0.41,0.12,292"
        assert await page.value(row.format("forecasters", 3)) == "har,traded,1,–,–,0.41,0.12,292"
        assert "drifted <i>" in await page.value("document.querySelector('#forecasters tbody tr:nth-child(2)').title")
        assert await page.value(row.format("slow", 1)) == "greed,1.25,2.5,valid"
        assert await page.value(row.format("slow", 2)) == "mine,1.25,–,too little is known of it"


async def test_who_has_no_forecasters_nor_factors_sees_nothing_of_them(page):
    async with serving(Watched(points=3, contenders=[], slow_factors=[])) as server:
        await page.open(server.url)
        await page.until("document.querySelectorAll('#instruments tbody tr').length", 2)
        assert await page.value("document.querySelector('#learning').checkVisibility()") is False


async def test_a_phone_shows_the_page_without_scrolling_sideways(page):
    held = [option("BTC-27MAR26-70000-C")]
    long = "/etc/dea_daemon/a-configuration-with-quite-a-long-name-in-a-long-folder.yaml"
    async with serving(Watched(points=30, options=held, config=long)) as server:
        phone = dict(width=360, height=800, deviceScaleFactor=2, mobile=True)
        await page.call("Emulation.setDeviceMetricsOverride", **phone)
        await page.open(server.url)
        await page.until(PLOTTED, 30)
        await page.until("document.querySelectorAll('#forecasters tbody tr').length", 3)
        assert await page.value("document.documentElement.scrollWidth") == 360
        await page.value("document.querySelector('#decisions tbody tr').click()")
        await page.until("document.querySelectorAll('#record table').length", 4)
        assert await page.value("document.querySelector('#detail').scrollWidth <= window.innerWidth") is True


async def test_who_follows_no_options_sees_nothing_of_them(page):
    none = dict(listed=0, modelled=0, greeks_off=0)
    async with serving(Watched(points=3, options=[], option_counts=none, greeks={})) as server:
        await page.open(server.url)
        await page.until("document.querySelectorAll('#instruments tbody tr').length", 2)
        assert await page.value("document.querySelector('#optional').checkVisibility()") is False
        assert await page.value("document.querySelector('#surface').checkVisibility()") is False
