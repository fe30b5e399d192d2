"""The log: what a line says, what it never says, and that nothing about it stops the caller."""

import asyncio
import dataclasses
import fcntl
import io
import json
import logging
import math
import os
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from dea_daemon.domain.decisions import Clip, FactorLine, LimitUse, Note, OrderLine
from dea_daemon.domain.modes import Mode
from dea_daemon.shell import logs, redaction
from dea_daemon.shell.sink import Sink
from tests.shell.ledger_samples import record

SECRET = "s3cr3t/+=valüe\"'\\x"


class Log:
    """A configured log into a file, and its lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("wb")

    def configure(self, **options):
        logs.configure(stream=self.file, **{"format": "json"} | options)

    def text(self) -> str:
        return self.path.read_text()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]

    def last(self) -> dict[str, Any]:
        return self.lines()[-1]


@pytest.fixture
def out(tmp_path, monkeypatch):
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.setattr(redaction, "_values", [])
    written = Log(tmp_path / "log")
    written.configure()
    yield written
    structlog.contextvars.clear_contextvars()
    structlog.configure(**before)
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)
    logs._sink.attach(io.BytesIO())
    written.file.close()


@pytest.fixture
def log(out):
    return structlog.get_logger()


# --- what a line says ------------------------------------------------------------------------------------


def test_a_line_is_json_with_time_level_and_event_first(out, log):
    structlog.contextvars.bind_contextvars(run_id="r1")
    log.info("order.sent", seq=4, instrument="BTC-PERPETUAL", price=0.5, missing=None)
    line = out.last()
    assert list(line)[:3] == ["timestamp", "level", "event"]
    stamp = line.pop("timestamp")
    assert time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")
    assert (len(stamp), stamp[-1]) == (27, "Z")
    assert line == {
        "level": "info", "event": "order.sent", "seq": 4, "instrument": "BTC-PERPETUAL", "price": 0.5,
        "missing": None, "run_id": "r1",
    }  # fmt: skip


def test_the_time_is_utc_to_the_microsecond():
    assert logs._timestamp(1_770_000_000_000_001_999) == "2026-02-02T02:40:00.000001Z"


def test_what_is_below_the_level_is_not_written(out):
    out.configure(level="warning")
    log = structlog.get_logger()
    log.info("order.sent")
    log.warning("feed.gap_found")
    assert [line["event"] for line in out.lines()] == ["feed.gap_found"]


def test_a_logger_made_earlier_follows_a_new_configuration(out, log, tmp_path):
    log.info("order.sent")
    other = Log(tmp_path / "other")
    other.configure()
    log.info("order.filled")
    assert [line["event"] for line in out.lines() + other.lines()] == ["order.sent", "order.filled"]
    other.file.close()


def test_a_terminal_gets_text(tmp_path, out):
    parent, child = os.openpty()
    with open(child, "w") as terminal:
        logs.configure(stream=terminal)
        structlog.get_logger().info("order.sent", lots=3)
        text = os.read(parent, 4_096).decode()
    os.close(parent)
    assert "order.sent" in text
    assert "\x1b[" in text
    assert "{" not in text


def test_console_text_hides_secrets_and_shows_tracebacks(out):
    out.configure(format="console")
    logs.register_secret("hunter2hunter2")
    try:
        raise RuntimeError("with hunter2hunter2")
    except RuntimeError:
        structlog.get_logger().exception("gateway.failed", api_key="abc123")
    assert "RuntimeError: with [redacted]" in out.text()
    assert "abc123" not in out.text()


def test_an_exception_is_one_line(out, log):
    try:
        raise ValueError("bad\nnews")
    except ValueError:
        log.exception("feed.failed")
    line = out.last()
    assert line["level"] == "error"
    assert line["exception"].endswith("ValueError: bad\nnews")


def test_numbers_of_numpy_are_numbers_and_nan_is_null(out, log):
    log.info("x.measured", a=np.float64(1.5), b=np.int64(2), c=math.nan, d=np.float64("nan"))
    line = out.last()
    assert [line[key] for key in "abcd"] == [1.5, 2, None, None]


def test_a_decision_is_one_line(out):
    told = record(
        9,
        mode=Mode.REDUCE_ONLY,
        equity_usd=100_000.129,
        factors=(FactorLine("delta:BTC", 5e4, 0.6, 1_000.009, 2_000.0, math.nan),),
        clips=(Clip("max_order_usd", "BTC-PERPETUAL", 12.0, 10.0, "too big"),),
        uses=(LimitUse("max_gross_usd", "all", 50.0, 100.0), LimitUse("max_net_usd", "BTC", -90.0, 100.0)),
        orders=(
            OrderLine("create", "BTC-PERPETUAL", "d1", "buy", 10, "50000.5", "toward target", 100.0),
            OrderLine("cancel", "BTC-PERPETUAL", "d0", "", 0, "", "left behind"),
        ),
    )
    logs.log_decision(told)
    line = out.last()
    assert line["event"] == "decision.made"
    assert (line["seq"], line["ts"], line["cause"], line["mode"]) == (9, told.ts_recv_ns, "tick", "reduce_only")
    assert line["equity_usd"] == 100_000.13
    assert line["exposure"] == {"delta:BTC": {"actual_usd": 1_000.01, "target_usd": 2_000.0, "band_usd": None}}
    assert line["tightest"] == "90% of max_net_usd BTC"
    assert line["clips"] == ["max_order_usd BTC-PERPETUAL: 12 to 10: too big"]
    assert line["orders"] == [
        "create buy 10 lots (100 USD) at 50000.5 BTC-PERPETUAL d1: toward target",
        "cancel BTC-PERPETUAL d0: left behind",
    ]


def test_greeks_stand_beside_the_exposure_and_only_where_there_are_any(out):
    def line(factor: str, usd: float) -> FactorLine:
        return FactorLine(factor, 5e4, math.nan, usd, math.nan, math.nan)

    delta = line("delta:BTC", 5.0)
    rows = (line("gamma:BTC", -1_234.567), line("vega:BTC", math.nan), line("vega:BTC:7d", 5.0), line("cash:USDC", 9.0))
    logs.log_decision(record(9, factors=(delta, *rows)))
    told = out.last()
    assert set(told["exposure"]) == {"delta:BTC"}
    assert told["greeks"] == {"gamma:BTC": -1_235.0, "vega:BTC": None}
    logs.log_decision(record(10, factors=(delta,)))
    assert "greeks" not in out.last()


@pytest.mark.parametrize(("used", "allowed"), [(math.nan, 1.0), (1.0, 0.0), (1.0, math.nan)])
def test_a_limit_that_cannot_be_measured_is_the_tightest(out, used, allowed):
    uses = (LimitUse("max_gross_usd", "all", 99.0, 100.0), LimitUse("max_net_usd", "BTC", used, allowed))
    logs.log_decision(record(1, uses=uses, equity_usd=math.nan))
    assert out.last()["tightest"] == "inf% of max_net_usd BTC"


@pytest.mark.parametrize(
    ("event", "level"),
    [
        ("feed.gap_found", "warning"),
        ("order.outcome_unknown", "warning"),
        ("mode.changed", "warning"),
        ("order.circuit_opened", "warning"),
        ("position.liquidated", "warning"),
        ("instrument.regridded", "warning"),
        ("venue.closed", "warning"),
        ("watchdog.lost", "warning"),
        ("forecaster.demoted", "warning"),
        ("forecaster.refused", "warning"),
        ("model.refused", "warning"),
        ("forecaster.proposed", "info"),
        ("venue.opened", "info"),
        ("watchdog.started", "info"),
        ("order.filled", "info"),
    ],
)
def test_a_note_is_written_with_its_fields(out, event, level):
    logs.log_note(Note(event, {"row": 3, "event": "theirs"}))
    line = out.last()
    assert (line["event"], line["level"], line["row"], line["of_event"]) == (event, level, 3, "theirs")


def test_what_metrics_tell_is_counted_and_nothing_else(out, monkeypatch):
    monkeypatch.setattr(logs, "lines", Counter())
    out.configure()
    for event in ("contracts.left_out", "contracts.left_out", "order.filled"):
        structlog.get_logger().error(event)
    assert logs.lines == {"contracts.left_out": 2}


# --- what it never says ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["secret", "client_secret", "apiKey", "X-MBX-APIKEY", "OK-ACCESS-SIGN", "password", "passphrase", "key",
     "Authorization", "signature", "refresh_token", "access_token", "privateKey", "cookie", "sign"],
)  # fmt: skip
def test_a_field_of_a_secrets_name_is_hidden_at_any_depth(out, log, name):
    log.info("venue.called", **{name: "abcdef"}, nested={"headers": [{name: "abcdef"}]})
    assert "abcdef" not in out.text()
    line = out.last()
    assert line[name] == line["nested"]["headers"][0][name] == "[redacted]"


@pytest.mark.parametrize("name", ["client_order_id", "client_id", "instrument", "seq", "key_id", "design", "why"])
def test_a_field_of_another_name_is_shown(out, log, name):
    log.info("venue.called", **{name: "abcdef"})
    assert out.last()[name] == "abcdef"


def test_structs_dataclasses_and_secretstr_are_hidden_too(out, log):
    @dataclasses.dataclass
    class Access:
        client_secret: str
        url: str

    class Key(msgspec.Struct):
        api_key: str
        inner: Access

    log.info("venue.called", key_of=Key("abcdef", Access("ghijkl", "http")), wrapped=SecretStr("mnopqr"))
    assert not any(value in out.text() for value in ("abcdef", "ghijkl", "mnopqr"))
    assert out.last()["key_of"]["inner"]["url"] == "http"


@pytest.mark.parametrize(
    "text",
    [
        "GET /api/v2/public/auth?client_secret=ABCDEF12&x=1 failed",
        "headers: {'Authorization': 'Bearer ABCDEF12', 'x': 1}",
        'body {"refresh_token": "ABCDEF12", "x": 1}',
        "signature=ABCDEF12",
        "authorization: deri-hmac-sha256 ABCDEF12",
    ],
)
def test_what_looks_like_a_secret_in_text_is_hidden(out, log, text):
    log.warning("venue.failed", why=text + " " * 20, deeper=[text + " " * 20])
    assert "ABCDEF12" not in out.text()
    assert out.last()["why"].strip()[:4] == text[:4]


def places(secret: str):
    """Every way a value finds its way into a line."""
    try:
        raise RuntimeError(f"no luck with {secret}")
    except RuntimeError as error:
        return {
            "exc_info": error,
            "why": f"x{secret}x",
            "nested": {"a": [{"b": (secret,)}]},
            "reprd": repr(secret),
            "object": RuntimeError(secret),
            "quoted": msgspec.json.encode(secret).decode(),
            secret: 1,
        }


@settings(max_examples=100, deadline=None)
@given(secret=st.text(min_size=6, max_size=40) | st.just(SECRET))
def test_a_registered_secret_never_appears(tmp_path_factory, secret):
    if secret.strip() in "[redacted]" or len(set(secret)) < 4:
        return
    buffer = io.BytesIO()
    before, redaction._values[:] = list(redaction._values), []
    try:
        redaction.register_secret(secret)
        logs._Lines.console = False
        fields = structlog.processors.format_exc_info(None, "info", {"event": "x.failed", **places(secret)})
        buffer.write(logs._render(None, "info", logs._begin(None, "info", fields)))
    finally:
        redaction._values[:] = before
    text = buffer.getvalue().decode()
    assert secret not in text
    for _ in range(2):  # nor once, nor twice unquoted
        text = text.replace("\\\\", "\\").replace('\\"', '"').replace("\\'", "'")
        assert secret not in text


def test_of_two_secrets_that_begin_alike_neither_leaves_a_trace(out, log):
    logs.register_secret("abcdefgh")
    logs.register_secret("abcdefgh12345678")
    log.info("venue.called", why="abcdefgh12345678 abcdefgh")
    assert out.last()["why"] == "[redacted] [redacted]"


def test_a_short_secret_is_hidden_by_name_only(out, log):
    logs.register_secret("abc")
    log.info("venue.called", text="abc", secret="abc")
    line = out.last()
    assert (line["text"], line["secret"]) == ("abc", "[redacted]")


def test_a_secret_in_a_librarys_warning_is_hidden(out):
    logs.register_secret(SECRET)
    try:
        raise OSError(f"cannot send {SECRET}")
    except OSError:
        logging.getLogger("aiohttp.client").warning("gave up on %s", SECRET, exc_info=True)
    assert out.last()["logger"] == "aiohttp.client"
    assert "s3cr3t" not in out.text()


# --- libraries ----------------------------------------------------------------------------------------------


def test_a_librarys_warning_is_a_line_of_ours_and_its_chatter_is_not(out):
    logging.getLogger("websockets.client").info("connection open")
    logging.getLogger("websockets.client").error("connection %s", "lost")
    (line,) = out.lines()
    assert (line["event"], line["level"]) == ("library.warned", "error")
    assert (line["logger"], line["message"]) == ("websockets.client", "connection lost")


def test_our_own_use_of_logging_keeps_its_event(out):
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        logging.getLogger("dea_daemon").critical("run.crashed", exc_info=error)
    line = out.last()
    assert (line["event"], line["level"]) == ("run.crashed", "critical")
    assert "ZeroDivisionError" in line["exception"]


async def test_a_task_nobody_awaited_is_told(out):
    async def fails():
        raise ValueError("lost")

    asyncio.get_running_loop().call_exception_handler({"message": "Task exception was never retrieved"})
    assert out.last()["logger"] == "asyncio"


def test_a_python_warning_is_told(out):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old ways", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "old ways" in out.last()["message"]


def test_a_librarys_broken_format_is_still_told(out):
    broken = logging.LogRecord("aiohttp", logging.WARNING, "", 0, "%d items", ("many",), None)
    logs._Libraries().emit(broken)  # by itself, as pytest's own handler would raise
    assert out.last()["message"] == "%d items"


# --- bursts ----------------------------------------------------------------------------------------------------


def test_a_burst_keeps_its_first_lines_and_counts_the_rest(out, log, monkeypatch):
    now = [1_000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    for _ in range(logs.BURST + 50):
        log.warning("feed.message_refused")
    log.info("order.sent")
    assert len(out.lines()) == logs.BURST + 1
    now[0] += 1
    log.info("order.sent")
    *_, told, last = out.lines()
    assert (told["event"], told["of_event"], told["count"]) == ("log.repeats_dropped", "feed.message_refused", 50)
    assert last["event"] == "order.sent"
    log.warning("feed.message_refused")
    assert out.last()["event"] == "feed.message_refused"


# --- nothing stops the caller ------------------------------------------------------------------------------------


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    [Unprintable(), 2**80, "\ud800", {1: 2, (3, 4): 5}, {Unprintable()}, b"\xff", object(), [Unprintable()]],
)
@pytest.mark.parametrize("style", ["json", "console"])
def test_any_value_makes_a_line(out, value, style):
    out.configure(format=style)
    structlog.get_logger().info("x.seen", value=value)
    assert "x.seen" in out.text() or "log.line_unprintable" in out.text()
    assert out.text().endswith("\n")


def test_a_value_that_contains_itself_makes_a_line(out, log):
    endless: list[object] = []
    endless.append(endless)
    log.info("x.seen", value=endless)
    assert len(out.text().splitlines()) == 1


def test_a_reader_that_went_away_costs_lines_only(out, log):
    reader, writer = os.pipe()
    with open(writer, "wb") as file:
        logs.configure(format="json", stream=file)
        os.close(reader)
        for _ in range(10):
            log.info("order.sent")
        logs._sink.attach(out.file)
    assert logs._sink.dropped == 10
    logs._sink.dropped = 0


def test_a_full_disk_costs_lines_and_they_are_counted(out, log, monkeypatch):
    now = [1_000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with open("/dev/full", "wb", buffering=0) as full:
        logs.configure(format="json", stream=full)
        for _ in range(3):
            log.info("order.sent")
        out.configure()
    now[0] += 1
    log.info("order.filled")
    told, last = out.lines()
    assert (told["event"], told["count"]) == ("log.lines_dropped", 3)
    assert last["event"] == "order.filled"


def test_a_closed_descriptor_costs_lines_only(out, log):
    file = open(os.devnull, "wb")  # noqa: SIM115 closed below, under the log's feet
    logs.configure(format="json", stream=file)
    os.close(os.dup(file.fileno()))
    file.close()
    log.info("order.sent")
    assert logs._sink.dropped == 1
    logs._sink.dropped = 0


def test_a_reader_that_stands_still_holds_up_nobody_and_loses_no_line_it_has_room_for():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4_096)
    lines = [b"%06d " % n + b"x" * 493 + b"\n" for n in range(3_000)]
    sink = Sink()
    with open(writer, "wb", buffering=0) as file:
        sink.attach(file)
        began = time.monotonic()
        for line in lines:
            sink.write(line)
        assert time.monotonic() - began < 1.0
        assert 800 < sink.dropped < 1_000
        os.set_blocking(reader, False)
        taken = b""
        while sink._backlog:
            taken += os.read(reader, 1 << 16)
            sink.write(b"")
        taken += os.read(reader, 1 << 16)
    os.close(reader)
    assert taken == b"".join(lines[: len(lines) - sink.dropped])


def test_flushing_waits_for_a_slow_reader_but_not_for_ever():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4_096)
    sink = Sink()
    with open(writer, "wb", buffering=0) as file:
        sink.attach(file)
        sink.write(b"x" * 10_000 + b"\n")
        began = time.monotonic()
        sink.flush(0.1)
        assert 0.05 < time.monotonic() - began < 0.5
        assert os.read(reader, 4_096) == b"x" * 4_096
        sink.flush(0.1)
        assert len(sink._backlog) == 10_001 - 8_192
    os.close(reader)


def test_a_stream_without_a_descriptor_is_written_to(out, log):
    stream = io.BytesIO()
    logs.configure(format="json", stream=stream)
    log.info("order.sent")
    assert json.loads(stream.getvalue())["event"] == "order.sent"
