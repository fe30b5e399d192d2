"""Recorded streams through the live engine against an in-process venue."""

import json

import pytest

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.events import BookDelta, BookSnapshot, RunStarted
from dea_daemon.shell.settings import load
from dea_daemon.shell.tape_reader import read_tape
from dea_daemon.wiring.backtest import CONFIG, backtest_capture
from dea_daemon.wiring.demo import config_file
from dea_daemon.wiring.replay import replay
from tests.shared_data import shared

BINANCE = "ws/usdm_btcusdt_20240808.gz"
S = 1_000_000_000


def settings():
    return load(config_file(CONFIG))


def capture(path, seconds=60, spread=0.1):
    """A made-up stream: a book that breathes, a trade a second that eats the touch, a jump half way."""
    start, lines, last, price = 1_700_000_000 * S, [], 100, 60_000.0

    def say(at, data):
        lines.append(f"{at} {json.dumps({'stream': 'x', 'data': data})}")

    for k in range(seconds * 10):
        at, ms = start + k * S // 10, (start + k * S // 10) // 1_000_000
        if k == seconds * 5:
            price += 300.0
        bids = [[f"{price - spread * n:.1f}", "5.001"] for n in range(1, 6)]
        asks = [[f"{price + spread * n:.1f}", "5.001"] for n in range(1, 6)]
        if k in (0, seconds * 5):
            lines.append(f"{at} {json.dumps({'lastUpdateId': last, 'E': ms, 'T': ms, 'bids': bids, 'asks': asks})}")
        book = {"e": "depthUpdate", "E": ms, "T": ms, "s": "BTCUSDT", "U": last + 1, "u": last + 3, "pu": last}
        say(at, {**book, "b": bids, "a": asks})
        last += 3
        side = k % 20 == 0
        touch = bids[0][0] if side else asks[0][0]
        trade = {"e": "trade", "E": ms, "T": ms, "s": "BTCUSDT", "t": k, "p": touch, "q": "6.000", "m": side}
        if k % 10 == 0:
            say(at, trade | {"X": "MARKET"})
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_recording_is_traded_to_its_target_and_ends_sane(tmp_path):
    finished = backtest_capture([capture(tmp_path / "c")], "binanceusdm", settings())
    assert finished["gaps"] == 0
    assert finished["crossed_books"] == 0
    assert finished["fills"] > 0
    assert finished["limits_breached"] == 0
    line = finished["exposure"]["BTC"]
    assert abs(line["actual_usd"] - line["target_usd"]) <= line["band_usd"]
    assert abs(finished["equity_usd"] - 100_000) < 1_000
    assert finished["fees_usd"] > 0


def test_the_same_recording_gives_the_same_run_and_its_tape_replays(tmp_path):
    path = capture(tmp_path / "c")
    tapes = [tmp_path / name for name in ("1.tape", "2.tape")]
    first, second = (backtest_capture([path], "binanceusdm", settings(), tape) for tape in tapes)
    same = ("decisions", "orders_sent", "fills", "equity_usd", "fees_usd", "exposure")
    assert [first[key] for key in same] == [second[key] for key in same]
    replayed = replay(read_tape(tapes[0]))
    assert replayed["differences"] == 0
    assert replayed["decisions"] == first["decisions"]


def test_the_tape_begins_with_the_run_and_holds_every_book_message(tmp_path):
    tape = tmp_path / "t.tape"
    backtest_capture([capture(tmp_path / "c", seconds=5)], "binanceusdm", settings(), tape)
    events = [event for event, _ in read_tape(tape).steps()]
    assert isinstance(events[0], RunStarted)
    assert sum(isinstance(event, BookDelta | BookSnapshot) for event in events) == 52


@pytest.mark.parametrize("content", ["", "not a capture\n", "{}\n"])
def test_what_is_no_recording_is_refused_in_words(tmp_path, content):
    path = tmp_path / "c"
    path.write_text(content)
    with pytest.raises(DataError, match="no binanceusdm book"):
        backtest_capture([path], "binanceusdm", settings())


def test_the_recorded_binance_hour_has_no_gap_and_trades_sanely():
    finished = backtest_capture([shared(BINANCE)], "binanceusdm", settings())
    assert finished["events"] > 93_954
    assert (finished["gaps"], finished["crossed_books"], finished["limits_breached"]) == (0, 0, 0)
    assert 0 < finished["orders_sent"] < 200
    assert finished["fills"] > 0
    line = finished["exposure"]["BTC"]
    assert abs(line["actual_usd"] - line["target_usd"]) <= line["band_usd"]


def test_the_recorded_deribit_options_have_unbroken_books():
    finished = backtest_capture([shared("ws/DERIBIT.ws.1.0.gz")], "deribit", settings())
    assert (finished["gaps"], finished["crossed_books"], finished["orders_sent"]) == (0, 0, 0)
