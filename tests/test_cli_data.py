"""`dea-daemon data` from outside: what it prints, and how it ends."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from dea_daemon.cli import cli
from dea_daemon.research.candles import Candles, Market
from dea_daemon.shell.history import open_history, write_candles
from dea_daemon.shell.lock import InstanceLock
from tests.shell.binance_stub import LISTED_MS, H, binance_running

BTC = Market("binance", "perp", "BTCUSDT")
HEADER = "date,open,high,low,close,volume\n"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["data", *map(str, arguments)])


def csv(file: Path, hours: int = 30, zone: str = "Z", high: str = "12") -> Path:
    """Hours from 2021-01-01 on; the last with another high."""
    rows = [f"2021-01-{1 + n // 24:02}T{n % 24:02}:00:00{zone},10,12,9,11,{n}" for n in range(hours)]
    rows[-1] = rows[-1].replace(",12,", f",{high},")
    file.write_text(HEADER + "\n".join(rows) + "\n")
    return file


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    csv(folder / "binance_perp_BTCUSDT_1h.csv")
    (folder / "binance_BTCUSDT_funding_8h.csv").write_text("date,funding_rate\n1609459200000,0.0001\n")
    return folder


# --- import -------------------------------------------------------------------------------------------------


def test_a_folder_is_imported_once(source, tmp_path):
    to = tmp_path / "history"
    first, again = call("import", source, "--dir", to), call("import", source, "--dir", to)
    assert first.exit_code == again.exit_code == 0
    assert f"binance perp BTCUSDT 1h: 30 rows added, in {to}" in first.stdout
    assert "binance funding BTCUSDT: 1 rows added" in first.stdout
    assert "BTCUSDT 1h: 0 rows added" in again.stdout
    history = open_history(to)
    assert history.candles[BTC].volume.tolist() == list(range(30))
    assert history.funding["binance", "BTCUSDT"].rate.tolist() == [0.0001]


def test_what_was_mended_is_said_on_stderr_only(tmp_path):
    file = csv(tmp_path / "binance_perp_BTCUSDT_1h.csv")
    file.write_text(file.read_text() + file.read_text().splitlines()[5] + "\n")
    command = ("dea_daemon.cli", "data", "import", str(file), "--dir", str(tmp_path / "history"), "--json")
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"series": "binance perp BTCUSDT 1h", "added": 30, "replaced": 0}
    mended = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["what"] for line in mended if line["event"] == "history.mended"} == {"unsorted", "duplicate"}


def test_what_a_name_does_not_tell_is_asked_for(tmp_path):
    file, to = csv(tmp_path / "prices.csv"), tmp_path / "history"
    refused = call("import", file, "--dir", to, "--venue", "binance")
    assert refused.exit_code == 65 and "give --kind, --symbol, --interval" in refused.stderr
    told = ("--venue", "binance", "--kind", "perp", "--symbol", "BTCUSDT", "--interval", "1h")
    taken = call("import", file, "--dir", to, *told, "--json")
    assert json.loads(taken.stdout) == {"series": "binance perp BTCUSDT 1h", "added": 30, "replaced": 0}
    assert set(open_history(to).candles) == {BTC}


def test_what_is_said_goes_before_what_the_name_tells(source, tmp_path):
    result = call("import", source / "binance_perp_BTCUSDT_1h.csv", "--dir", tmp_path, "--symbol", "XBT")
    assert result.stdout.startswith("binance perp XBT 1h: 30")


def test_dates_without_a_zone_want_the_option(tmp_path):
    file = csv(tmp_path / "binance_perp_BTCUSDT_1h.csv", zone="")
    refused = call("import", file, "--dir", tmp_path / "history")
    assert refused.exit_code == 65 and "--utc" in refused.stderr
    assert call("import", file, "--dir", tmp_path / "history", "--utc").exit_code == 0


def test_a_bad_candle_is_refused_with_its_line_or_left_out(tmp_path):
    file = csv(tmp_path / "binance_perp_BTCUSDT_1h.csv", high="1")
    refused = call("import", file, "--dir", tmp_path / "history")
    assert refused.exit_code == 65 and f"{file}:31: 2021-01-02 05:00: outside" in refused.stderr
    taken = call("import", file, "--dir", tmp_path / "history", "--drop-bad")
    assert taken.exit_code == 0 and "29 rows added" in taken.stdout


def test_a_source_that_is_not_there_is_no_input(tmp_path):
    result = call("import", tmp_path / "nothing.csv", "--dir", tmp_path / "history")
    assert result.exit_code == 66 and "no such file or folder" in result.stderr


def test_two_never_add_to_one_folder_at_once(source, tmp_path):
    lock = InstanceLock(tmp_path / ".lock")
    try:
        result = call("import", source, "--dir", tmp_path)
    finally:
        lock.release()
    assert result.exit_code == 75 and "is it running already" in result.stderr


# --- check --------------------------------------------------------------------------------------------------


def test_a_clean_history_is_said_to_be_usable(source):
    result = call("check", source)
    assert result.exit_code == 0
    row = next(line for line in result.stdout.splitlines() if "binance perp BTCUSDT 1h" in line)
    assert "30" in row and "2021-01-01" in row and "2021-01-02" in row and "clean" in row
    assert "2 series can be used." in result.stdout


def test_fatal_findings_end_with_one_and_say_what_and_where(source):
    csv(source / "binance_spot_ETHUSDT_1h.csv", high="1")
    (source / "binance_spot_LTCUSDT_1h.csv").write_text("")
    result = call("check", source)
    assert result.exit_code == 1
    assert "binance spot ETHUSDT 1h: outside × 1, first 2021-01-02 05:00: high below low" in result.stdout
    assert "binance spot LTCUSDT 1h: unreadable" in result.stdout
    assert "2 of 4 series cannot be used as they are." in result.stdout


def test_a_gap_is_told_and_is_not_fatal(tmp_path):
    at_ns = np.delete(LISTED_MS + np.arange(100, dtype=np.int64) * H, [40, 41]) * 10**6
    ones = np.ones(98)
    write_candles(tmp_path, BTC, "1h", Candles(H * 10**6, at_ns, *(ones * (1 + 0.1 * (np.arange(98) % 2)),) * 4, ones))
    told = call("check", tmp_path, "--json")
    assert told.exit_code == 0
    line = json.loads(told.stdout)
    assert (line["venue"], line["symbol"], line["rows"], line["missing"], line["fatal"]) == (
        *("binance", "BTCUSDT", 98, 2, False),
    )
    (gap,) = line["findings"]
    assert (gap["what"], gap["count"], gap["fatal"]) == ("gap", 1, False) and "longest 2 h" in gap["why"]


def test_a_folder_without_a_history_is_bad_data(tmp_path):
    result = call("check", tmp_path)
    assert result.exit_code == 65 and "no history here" in result.stderr


# --- download -----------------------------------------------------------------------------------------------


async def test_a_download_tells_what_came_and_goes_on_where_it_was(tmp_path):
    async with binance_running(LISTED_MS + 100 * H + 10_000) as stub:
        options = ("--venue", "binanceusdm", "--dir", tmp_path, "--url", stub.http_url, "--since", "2021-01-01")
        first = await asyncio.to_thread(call, "download", "candles", "BTCUSDT", *options)
        stub.now_ms += 2 * H
        again = await asyncio.to_thread(call, "download", "candles", "BTCUSDT", *options, "--json")
    assert first.stdout == f"binanceusdm candles BTCUSDT: 100 rows added, in {tmp_path}\n", first.output
    assert json.loads(again.stdout) == {"series": "binanceusdm candles BTCUSDT", "added": 2, "replaced": 0}
    assert call("check", tmp_path).exit_code == 0
    assert open_history(tmp_path).candles[BTC].open_ns.size == 102


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("candles", "BTC-PERPETUAL"), "Give --since"),
        (("candles", "--since", "2021-01-01"), "candles of what"),
        (("candles", "BTC-PERPETUAL", "--since", "soon"), "expected a date"),
        (("instruments", "BTC"), "name none"),
        (("options",), "options of what"),
        (("books", "BTC"), "is not one of"),
    ],
)
def test_what_is_not_clear_is_a_usage_error(arguments, why, tmp_path):
    result = call("download", *arguments, "--dir", tmp_path / "history")
    assert result.exit_code == 64 and why in result.stderr
    assert not (tmp_path / "history").exists()


def test_a_download_never_leads_a_url_elsewhere(tmp_path):
    arguments = ("download", "instruments", "--dir", tmp_path, "--url", "https://example.com")
    result = call(*arguments)
    assert result.exit_code == 78 and "loopback" in result.stderr
