"""`dea-daemon backtest --history`, from outside: the last line, the report, and what it says of a wrong question."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dea_daemon.cli import cli
from dea_daemon.domain.errors import ConfigError
from dea_daemon.shell.history import write_candles, write_funding
from dea_daemon.wiring.demo import config_file
from dea_daemon.wiring.history import FIGURES, moment
from tests.wiring.test_candles import START, history

FROM, TO = "2020-09-13", "2020-09-25"  # of the made-up history


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    there = tmp_path_factory.mktemp("history")
    made = history(funding=1e-4)
    for market, candles in made.candles.items():
        write_candles(there, market, "1h", candles)
    for (venue, symbol), rates in made.funding.items():
        write_funding(there, venue, symbol, rates)
    return there


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = config_file("backtest-voltarget.yaml").read_text().replace("warm_up_days: 60", "warm_up_days: 10")
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(text)
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["backtest", *map(str, arguments)])


def test_the_days_are_those_of_the_made_up_history():
    assert moment(FROM) == START


@pytest.mark.timeout(120)
def test_the_last_line_has_every_figure_and_the_report_is_beside_its_json(folder, config, tmp_path):
    out = tmp_path / "out"
    result = call("-c", config, "--history", folder, "--from", FROM, "--to", TO, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["event"] == "run.finished" and last["reconciled"] is True
    assert set(FIGURES) <= last.keys() and last["bars"] > 500 and last["bars_per_s"] > 0
    assert last["target_vol"] == 0.20 and last["cost_per_year"] > 0.0
    told = json.loads((out / "report.json").read_text())
    assert told["figures"]["annual_vol"] == last["annual_vol"]
    assert [row["name"].split()[0] for row in told["beside"]][:3] == ["run", "cash", "static"]
    page = (out / "report.html").read_text()
    assert "<html" in page and not re.search(r"<(script|link|img)[^>]+(src|href)=.https?:", page)


@pytest.mark.timeout(120)
def test_for_people_there_are_the_headline_figures(folder, config):
    result = call("-c", config, "--history", folder, "--from", FROM, "--to", "2020-09-16")
    assert result.exit_code == 0, result.output
    assert "Volatility a year" in result.stdout and "Cost a year" in result.stdout


@pytest.mark.timeout(120)
def test_a_history_that_ends_early_is_said(folder, config, tmp_path):
    out = tmp_path / "out"
    result = call("-c", config, "--history", folder, "--from", "2020-09-22", "--to", "2020-10-30", "--out", out)
    assert result.exit_code == 0, result.output
    notes = json.loads((out / "report.json").read_text())["figures"]["notes"]
    assert any("ends at 2020-09-25 00:00" in note for note in notes)
    assert any("allocator.max_drawdown" in note for note in notes)


def test_a_wrong_question_gets_an_answer(folder, config, tmp_path):
    for arguments, why in (
        ([], "either --history"),
        (["--history", folder, "-c", config], "--from and --to"),
        (["--history", folder, "-c", config, "--from", "13.9.2020", "--to", TO], "no date like"),
        (["--history", folder, "-c", config, "--from", "2030-01-01", "--to", "2031-01-01"], "within the time"),
        (["--history", folder, "-c", config, "--from", TO, "--to", FROM], "is not after"),
        (["--history", tmp_path, "-c", config, "--from", FROM, "--to", TO], "no history here"),
        (["--history", tmp_path / "none", "-c", config, "--from", FROM, "--to", TO], "none"),
        (["--history", folder, "-c", config_file("demo.yaml"), "--from", FROM, "--to", TO], ""),
    ):
        result = call(*arguments)
        assert result.exit_code != 0, arguments
        assert why in result.output + str(result.exception), (arguments, result.output)


def test_a_moment_is_a_day_or_an_hour_of_utc():
    assert moment("2020-01-01T08:00") - moment("2020-01-01") == 8 * 3_600_000_000_000
    assert moment("2020-01-01T08:00+02:00") == moment("2020-01-01T06:00")
    with pytest.raises(ConfigError, match="no date like"):
        moment("yesterday")
