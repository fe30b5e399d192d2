"""The web view's server, over real sockets: who is let in, what the stream tells, who is dropped."""

import asyncio
import json
import socket
import time

import aiohttp
import pytest

from dea_daemon.domain.errors import ConfigError
from dea_daemon.shell import web
from dea_daemon.shell.web import WebServer
from tests.shell.watched import Watched


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(web, "EVERY_S", 0.05)
    monkeypatch.setattr(web, "STATUS_KEPT_S", 0.0)


@pytest.fixture
def monitor():
    return Watched(points=250)


@pytest.fixture
async def server(monitor):
    async with WebServer("127.0.0.1", 0, monitor, lambda: b"dea_up 1\n") as server:
        yield server


@pytest.fixture
async def client():
    async with aiohttp.ClientSession() as session:
        yield session


class Stream:
    """A reader of /events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def event(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        while True:
            line = (await asyncio.wait_for(self._response.content.readline(), 5)).decode()
            if not line:
                raise EOFError
            if line == "\n":
                return fields
            name, _, value = line.rstrip("\n").partition(": ")
            fields[name] = value

    async def until_point(self, seq: int) -> list[dict[str, str]]:
        """Every event up to that point, the stream's greeting left out."""
        events = []
        while True:
            event = await self.event()
            if "data" not in event:
                continue
            events.append(event)
            if event["event"] == "point" and json.loads(event["data"])["seq"] == seq:
                return events


def numbers(events, kind, key="seq"):
    return [json.loads(event["data"])[key] for event in events if event["event"] == kind]


# --- who is let in -------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:{port}", "LOCALHOST:1", "[::1]:{port}"])
async def test_a_host_of_our_own_is_served(server, client, host):
    async with client.get(server.url + "/status", headers={"Host": host.format(port=server.port)}) as reply:
        assert reply.status == 200


@pytest.mark.parametrize("path", ["/", "/status", "/surface", "/events", "/metrics", "/nowhere"])
@pytest.mark.parametrize("host", ["evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil", "", "[", "a@b:c"])
async def test_a_name_that_merely_leads_here_is_refused(server, client, host, path):
    async with client.get(server.url + path, headers={"Host": host.format(port=server.port)}) as reply:
        assert reply.status in {400, 403}
        assert "equity" not in await reply.text()


async def test_a_request_without_a_host_or_with_two_is_refused(server):
    for hosts in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /status HTTP/1.0\r\n" + hosts + b"\r\n")
        assert (await reader.readline()).split()[1] in {b"400", b"403"}
        writer.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/status", "/events"])
async def test_nothing_but_reading_is_allowed(server, client, method, path):
    async with client.request(method, server.url + path) as reply:
        assert reply.status == 405
        assert set(reply.headers["Allow"].replace(" ", "").split(",")) == {"GET", "HEAD"}


@pytest.mark.parametrize("path", ["/", "/app.js", "/status", "/events", "/decision?seq=x", "/nowhere"])
async def test_every_reply_forbids_what_the_page_does_not_need(server, client, path):
    async with client.get(server.url + path) as reply:
        policy = reply.headers["Content-Security-Policy"]
        scripts = next(part for part in policy.split(";") if part.strip().startswith("script-src"))
        assert scripts.split() == ["script-src", "'self'"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert reply.headers["X-Frame-Options"] == "DENY"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Referrer-Policy"] == "no-referrer"
        assert not [name for name in reply.headers if name.lower().startswith("access-control")]


async def test_the_page_has_no_script_of_its_own_inside(server, client):
    async with client.get(server.url + "/") as reply:
        page = await reply.text()
    assert page.count("<script") == page.count('<script src="/') == 3
    assert "onclick" not in page


async def test_a_taken_port_is_named(server, monitor):
    with pytest.raises(ConfigError, match=rf"^http.port: {server.port} is in use$"):
        async with WebServer("127.0.0.1", server.port, monitor, lambda: b""):
            pass


async def test_an_address_that_is_not_here_is_named(monitor):
    with pytest.raises(ConfigError, match=r"http.host: cannot listen on 192\.0\.2\.1"):
        async with WebServer("192.0.2.1", 0, monitor, lambda: b""):
            pass


# --- files and data ------------------------------------------------------------------------------


async def test_plotly_comes_compressed_from_its_own_package(server, client):
    async with client.get(server.url + "/plotly.js", headers={"Accept-Encoding": "gzip"}) as reply:
        body = await reply.read()
        assert reply.headers["Content-Encoding"] == "gzip"
        assert "max-age" in reply.headers["Cache-Control"]
        assert int(reply.headers["Content-Length"]) < 2_000_000 < len(body)
        assert b"plotly" in body[:300]
        tag = reply.headers["ETag"]
    async with client.get(server.url + "/plotly.js", headers={"If-None-Match": tag}) as again:
        assert again.status == 304
        assert await again.read() == b""


async def test_a_client_that_cannot_unzip_gets_the_plain_file(server, client):
    async with client.get(server.url + "/app.js", headers={"Accept-Encoding": "identity"}) as reply:
        assert "Content-Encoding" not in reply.headers
        assert b"EventSource" in await reply.read()


async def test_data_is_never_stored_by_the_browser(server, client):
    for path in ("/status", "/surface", "/decision", "/metrics", "/events"):
        async with client.get(server.url + path) as reply:
            assert reply.headers["Cache-Control"] == "no-store"


async def test_metrics_are_in_prometheus_form(server, client):
    async with client.get(server.url + "/metrics") as reply:
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert await reply.read() == b"dea_up 1\n"


async def test_one_telling_of_the_surfaces_serves_all_who_ask_within_a_second(server, client, monitor, monkeypatch):
    for kept_s, counted in ((60.0, 1), (0.0, 3)):
        monkeypatch.setattr(web, "SURFACE_KEPT_S", kept_s)
        for _ in range(2):
            async with client.get(server.url + "/surface") as reply:
                assert (await reply.json())["why"] == "no options are followed"
        assert monitor.surfaces_told == counted


async def test_one_decision_can_be_read_in_full(server, client, monitor):
    async with client.get(server.url + "/decision?seq=20") as reply:
        assert await reply.json() == monitor.decision(20)
    async with client.get(server.url + "/decision") as reply:
        assert (await reply.json())["seq"] == 1_000


@pytest.mark.parametrize(("seq", "status"), [("21", 404), ("-1", 400), ("1;drop", 400), ("9" * 40, 400), ("", 400)])
async def test_a_decision_that_is_not_there_is_a_plain_answer(server, client, seq, status):
    async with client.get(server.url + f"/decision?seq={seq}") as reply:
        assert reply.status == status


async def test_head_opens_no_stream(server, client):
    async with client.head(server.url + "/events") as reply:
        assert reply.status == 200
    assert server.streams == 0


# --- the stream ----------------------------------------------------------------------------------


async def test_a_stream_tells_the_past_once_and_then_what_is_new(server, client, monitor):
    async with client.get(server.url + "/events") as reply:
        stream = Stream(reply)
        past = await stream.until_point(1_000)
        assert past[0]["event"] == "status"
        assert numbers(past, "point") == list(range(4, 1_001, 4))
        assert numbers(past, "decision") == list(range(20, 1_001, 20))
        assert numbers(past, "fill", "n") == list(range(1, 51))
        monitor.grow(5)
        news = await stream.until_point(1_020)
    assert numbers(news, "point") == [1_004, 1_008, 1_012, 1_016, 1_020]
    assert numbers(news, "decision") == [1_020]
    assert numbers(news, "fill", "n") == [51]


async def test_a_stream_goes_on_after_the_last_event_a_client_saw(server, client, monitor):
    async with client.get(server.url + "/events") as reply:
        last_id = (await Stream(reply).until_point(400))[-1]["id"]
    monitor.grow(1)
    for headers, query in (({"Last-Event-ID": last_id}, ""), ({}, "?after=" + last_id)):
        async with client.get(server.url + "/events" + query, headers=headers) as reply:
            events = await Stream(reply).until_point(1_004)
        assert numbers(events, "point") == list(range(404, 1_005, 4))
        assert min(numbers(events, "decision")) > 400


async def test_no_decision_or_fill_is_lost_between_two_streams(server, client, monitor):
    seen: dict[str, set[int]] = {"decision": set(), "fill": set()}
    headers: dict[str, str] = {}
    for cut_at in (4, 404, 1_000):
        async with client.get(server.url + "/events", headers=headers) as reply:
            events = await Stream(reply).until_point(cut_at)
        headers["Last-Event-ID"] = events[-1]["id"]
        seen["decision"] |= set(numbers(events, "decision"))
        seen["fill"] |= set(numbers(events, "fill", "n"))
    assert seen == {"decision": set(range(20, 1_001, 20)), "fill": set(range(1, 51))}


@pytest.mark.parametrize("last_id", ["run0/1000/50", "nonsense", "run1/-4/2", "1000"])
async def test_an_id_of_another_run_starts_from_the_beginning(server, client, last_id):
    async with client.get(server.url + "/events", headers={"Last-Event-ID": last_id}) as reply:
        events = await Stream(reply).until_point(1_000)
    assert numbers(events, "point")[0] == 4


async def test_a_stream_too_many_is_refused_and_one_that_left_makes_room(server, client):
    replies = [await client.get(server.url + "/events") for _ in range(web.STREAMS_MAX)]
    assert {reply.status for reply in replies} == {200}
    async with client.get(server.url + "/events") as refused:
        assert refused.status == 503
    replies[0].close()
    await until(lambda: server.streams < web.STREAMS_MAX)
    async with client.get(server.url + "/events") as reply:
        assert reply.status == 200
    for each in replies:
        each.close()


async def test_connections_that_say_nothing_are_bounded(server):
    idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(web.CONNECTIONS_MAX + 8)]
    ended = [asyncio.create_task(reader.read()) for reader, _ in idle]
    await until(lambda: sum(task.done() for task in ended) >= 8)
    assert sum(task.done() for task in ended) == 8
    for _, writer in idle:
        writer.close()
    await asyncio.gather(*ended, return_exceptions=True)


async def test_who_does_not_read_is_dropped_while_others_go_on(server, client, monitor, monkeypatch):
    monkeypatch.setattr(web, "SEND_S", 0.3)
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    deaf.connect(("127.0.0.1", server.port))
    deaf.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await until(lambda: server.streams == 1)
    async with client.get(server.url + "/events") as reply:
        stream, largest, longest_s = Stream(reply), 0, 0.0
        await stream.until_point(1_000)
        monitor.padding = "x" * 10_000
        deadline = time.monotonic() + 10
        while server.streams == 2:
            assert time.monotonic() < deadline
            monitor.grow(20)  # 200 kB
            before_s = time.monotonic()
            await asyncio.sleep(0.02)
            longest_s = max(longest_s, time.monotonic() - before_s)
            largest = max(largest, *(waiting_bytes(handler) for handler in server._runner.server.connections))
            await stream.until_point(4 * len(monitor._points))
        assert longest_s < 0.5
        assert largest < 256 * 1024
        monitor.grow(1)
        await stream.until_point(4 * len(monitor._points))
    deaf.close()


async def test_a_stopped_server_ends_its_streams_at_once(monitor, client):
    async with WebServer("127.0.0.1", 0, monitor, lambda: b"") as server:
        reply = await client.get(server.url + "/events")
        stream = Stream(reply)
        await stream.until_point(1_000)
        before_s = time.monotonic()
    assert time.monotonic() - before_s < 1.0
    with pytest.raises((EOFError, aiohttp.ClientError)):
        await stream.until_point(1_004)
    reply.close()


def waiting_bytes(handler):
    return handler.transport.get_write_buffer_size() if handler.transport is not None else 0


async def until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
