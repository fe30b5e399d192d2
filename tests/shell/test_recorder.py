"""Captures: what is written can be read again, secrets are not, and neither a slow nor a dead disk is felt."""

import gzip
import re
import time

import pytest
from structlog.testing import capture_logs

from dea_daemon.domain.events import BookSnapshot
from dea_daemon.feeds.deribit import Deribit
from dea_daemon.shell import captures, recorder
from dea_daemon.shell.captures import Kind
from dea_daemon.shell.recorder import CaptureWriter
from dea_daemon.shell.settings import load
from dea_daemon.wiring.backtest import CONFIG, backtest_capture
from dea_daemon.wiring.demo import config_file
from tests.feeds.test_deribit_codec import UNIVERSE as DERIBIT
from tests.shell.test_sockets import confirm, happens, running, venue
from tests.wiring.processes import ROOT, Daemon, Venue, wait_for

T = 1_700_000_000_123_456_789
URL = "wss://venue/ws"


@pytest.fixture
def clock():
    return [T]


@pytest.fixture
def make(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(recorder, "WRITE_EVERY_S", 0.01)
    made = []

    def build(max_mb=10):
        made.append(CaptureWriter(tmp_path / "captures", max_mb, lambda: clock[0]))
        return made[-1]

    yield build
    for writer in made:
        writer.close()


def files(tmp_path):
    return sorted((tmp_path / "captures").glob("*.gz"))


def frames(tmp_path):
    return list(captures.merged(files(tmp_path)))


def test_what_came_was_sent_and_was_connected_is_read_again_as_it_was(tmp_path, make):
    writer = make()
    tap = writer.tap("deribit")
    writer.http("deribit", "https://venue/list", b'{"result":[]}', T - 1)
    tap.connected(URL, T)
    tap.sent(URL, b'{"op":"subscribe"}', T + 1)
    tap('{"a":\n1}', T + 2)
    tap(b"pong", T + 3)
    writer.close()
    assert [(f.ts_recv_ns - T, f.kind, f.url, f.payload) for f in frames(tmp_path)] == [
        (-1, Kind.HTTP, "https://venue/list", b'{"result":[]}'),
        (0, Kind.CONNECTED, URL, b""),
        (1, Kind.SENT, URL, b'{"op":"subscribe"}'),
        (2, Kind.MESSAGE, "", b'{"a": 1}'),
        (3, Kind.MESSAGE, "", b"pong"),
    ]


def test_keys_and_tokens_are_never_written(tmp_path, make):
    writer = make()
    tap = writer.tap("deribit")
    codec = Deribit(DERIBIT, 0, client_id="my-id", client_secret="hunter2")
    for message in codec.hello(1, "nonce"):
        tap.sent(URL, message, T)
    tap(b'{"id":2,"result":{"access_token":"hunter3","refresh_token":"hunter4"}}', T)
    tap(b'{"id":3,"result":["book.X"]}', T)
    writer.close()
    written = b"".join(gzip.decompress(path.read_bytes()) for path in files(tmp_path))
    assert b"set_heartbeat" in written
    assert b"book.X" in written
    assert not re.search(rb"hunter|my-id|nonce|signature", written)


def test_a_file_is_readable_while_it_is_written(tmp_path, make):
    tap = make().tap("x")
    tap(b"{}", T)
    wait_for(lambda: any(f.payload == b"{}" for f in frames(tmp_path)), 2, "the line on the disk")


def test_a_new_hour_begins_a_new_file(tmp_path, make, clock):
    tap = make().tap("x")
    tap(b"{}", T)
    wait_for(lambda: len(files(tmp_path)) == 1, 2, "the first file")
    clock[0] += 3_600 * 10**9
    time.sleep(0.05)
    tap(b"{}", T)
    wait_for(lambda: len(files(tmp_path)) == 2, 2, "the second file")


def test_the_oldest_files_go_when_all_are_too_large(tmp_path, make):
    tap = make(max_mb=1).tap("x")
    noise = gzip.compress(bytes(range(256))).hex()
    for k in range(120):
        body = "".join(f"{k * 7919 + i * 104_729:x}{noise[i % 40]}" for i in range(8_000))
        tap(f'{{"k":{k},"noise":"{body}"}}', T + k)
        time.sleep(0.02)  # a turn of the thread
    wait_for(lambda: files(tmp_path) and any(b'"k":119,' in f.payload for f in frames(tmp_path)), 5, "the last line")
    assert sum(path.stat().st_size for path in files(tmp_path)) < 1_200_000
    assert b'"k":0,' not in frames(tmp_path)[0].payload


def test_a_queue_that_is_full_drops_says_so_once_and_begins_a_new_file(tmp_path, make, monkeypatch):
    monkeypatch.setattr(recorder, "WAITING_BYTES_MAX", 1_000)
    monkeypatch.setattr(recorder, "WRITE_EVERY_S", 0.2)
    with capture_logs() as logs:
        writer = make()
        tap = writer.tap("x")
        for k in range(100):
            tap(b'{"before":"%050d"}' % k, T + k)
        wait_for(lambda: logs, 2, "the log")
        tap(b'{"after":1}', T + 200)
        writer.close()
    assert [line["event"] for line in logs] == ["capture.dropped"]
    first, second = (list(captures.frames(path)) for path in files(tmp_path))
    assert 10 < len(first) < 30
    assert [frame.payload for frame in second] == [b'{"after":1}']


def test_a_disk_that_fails_is_told_once_and_used_again_when_it_works(tmp_path, make, monkeypatch):
    monkeypatch.setattr(recorder, "RETRY_AFTER_S", 0.02)
    (tmp_path / "captures").write_text("in the way")
    with capture_logs() as logs:
        tap = make().tap("x")
        for k in range(20):
            tap(b"{}", T + k)
            time.sleep(0.01)
        assert [line["event"] for line in logs] == ["capture.failed"]
        (tmp_path / "captures").unlink()
        time.sleep(0.1)
        tap(b'{"again":1}', T + 99)
        wait_for(lambda: any(f.payload == b'{"again":1}' for f in frames(tmp_path)), 2, "the line")


def test_a_message_costs_the_loop_next_to_nothing(make):
    tap = make(max_mb=100).tap("x")
    began = time.perf_counter()
    for k in range(20_000):
        tap(b'{"some":"message"}', T + k)
    assert (time.perf_counter() - began) / 20_000 < 20e-6  # a microsecond or two, on a box shared by others


async def test_a_socket_tells_its_tap_everything_in_order_and_its_health_counts_it():
    heard = []

    class Tap:
        def __call__(self, raw, ts_recv_ns):
            heard.append(("came", bytes(raw)))

        def sent(self, url, message, ts_ns):
            heard.append(("sent", message))

        def connected(self, url, ts_ns):
            heard.append(("connected", url))

    async def handler(connection):
        await confirm(connection)
        await connection.wait_closed()

    async with venue(handler) as url, running(url, tap=Tap()) as (socket, _):
        await happens(lambda: socket.ready)
        line = socket.health_line(time.monotonic_ns())
    assert [kind for kind, _ in heard] == ["connected", "sent", "came"]
    assert set(line) == {
        "feed", "private", "ready", "age_s", "messages", "bytes", "rate_per_s", "connects", "refused", "gaps",
        "offset_ms", "last_error",
    }  # fmt: skip
    assert (line["messages"], line["connects"], line["gaps"], line["offset_ms"]) == (1, 1, 0, None)
    assert line["bytes"] == len(heard[-1][1])


def test_a_run_against_the_simulated_venue_is_recorded_and_can_be_traded_again(tmp_path):
    text = (ROOT / "config/simvenue.yaml").read_text()
    text, changed = re.subn(r"(\nrecord:[^\n]*\n  enabled: )false", r"\1true", text)
    assert changed == 1
    (tmp_path / "config.yaml").write_text(text)
    simulated, state = Venue(tmp_path), tmp_path / "state"
    try:
        daemon = Daemon(tmp_path / "config.yaml", simulated, state)
        wait_for(lambda: sum(p.stat().st_size for p in (state / "captures").glob("*.ws.gz")) > 150_000, 60, "a capture")
        assert daemon.stop() == 0
    finally:
        simulated.close()
    paths = sorted((state / "captures").glob("*.gz"))
    assert {path.name.split(".", 1)[1] for path in paths} == {"deribit.http.gz", "deribit.ws.gz"}
    written = b"".join(gzip.decompress(path.read_bytes()) for path in paths)
    assert simulated.listening["client_secret"].encode() not in written
    assert not re.search(rb"user\.|access_token|client_id", written)
    finished = backtest_capture(paths, "deribit", load(config_file(CONFIG)))
    assert finished["gaps"] == finished["crossed_books"] == 0
    assert finished["marks"] == "recorded"
    assert "BTC" in finished["exposure"]
    assert finished["decisions"] > 4


def test_codec_and_capture_agree_on_a_recorded_book(tmp_path, make):
    writer = make()
    book = '{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-PERPETUAL.100ms","data":{"type":"snapshot","timestamp":1,"instrument_name":"BTC-PERPETUAL","change_id":5,"bids":[["new",1.0,2.0]],"asks":[]}}}'  # noqa: E501
    writer.tap("d")(book, T)
    writer.close()
    ((event,),) = captures.events(files(tmp_path), Deribit(DERIBIT, 0))
    assert isinstance(event, BookSnapshot)
    assert event.ts_recv_ns == T
