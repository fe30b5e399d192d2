"""`dea-daemon stress` from outside: lines, the page, and what it says of a wrong question."""

import json
import re

import pytest
from click.testing import CliRunner, Result

from dea_daemon.cli import cli
from dea_daemon.wiring.demo import config_file
from tests.wiring.test_stress import config_text


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["stress", *map(str, arguments)])


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(config_text())
    return path


@pytest.mark.timeout(180)
def test_a_line_for_each_scenario_and_path_and_a_page_that_needs_nothing_else(config, tmp_path):
    arguments = ("-c", config, "--portfolio", config_file("portfolio.yaml"), "--paths", 1)
    result = call(*arguments, "--json", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    scenarios = {line["name"]: line for line in lines if line["event"] == "stress.scenario"}
    paths = {line["name"]: line for line in lines if line["event"] == "stress.path"}
    assert {"as_it_is", "deribit.standard", "okx.basis", "day.2020-03-12", "episode.ftx", "depeg.USDC.0.35", "adl"} <= (
        scenarios.keys()
    )
    assert scenarios["as_it_is"]["loss_usd"] == 0.0
    assert {"episode.2025-10-10", "heston.0", "bates.0"} <= paths.keys() and "bootstrap.0" not in paths
    assert set(scenarios["deribit.standard"]["pools"]) == {"BTC", "ETH", "USDC"}
    sums = sum(pool["loss_usd"] for pool in scenarios["deribit.standard"]["pools"].values())
    assert sums == pytest.approx(scenarios["deribit.standard"]["loss_usd"], abs=0.05)
    for told in paths.values():
        assert told["portfolio_loss_usd"] != told["loss_usd"] and told["fees_usd"] > 0.0 and told["turnover_usd"] > 0.0
        assert {"cuts", "modes_entered", "outages", "funding_usd", "deleveraged", "worst_hour"} <= told.keys()
    assert paths["episode.2025-10-10"]["outages"] == 12 and paths["episode.2025-10-10"]["deleveraged"] > 0
    last = lines[-1]
    assert last["event"] == "run.finished" and last["scenarios"] == len(scenarios) and last["paths"] == len(paths)
    page = (tmp_path / "out" / "stress.html").read_text()
    assert all(
        word in page
        for word in (
            "12 March 2020",
            "assumed",
            "Against doing nothing",
            "Bates",
            "each pool by itself",
            "What the daemon did",
        )
    )
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.https?:", page)


@pytest.mark.timeout(120)
def test_for_people_there_are_columns_and_without_targets_nothing_is_lived_through(tmp_path):
    path = tmp_path / "config.yaml"
    text = re.sub(r"  targets:\n(    .*\n)+", "  targets: {}\n", config_text())
    path.write_text(text)
    result = call("-c", path, "--portfolio", config_file("portfolio.yaml"))
    assert result.exit_code == 0, result.output
    assert "Deribit's grid" in result.stdout and "nothing was lived through" in result.stdout
    assert "each pool" in result.stdout
    pooled = call("-c", path, "--portfolio", config_file("portfolio.yaml"), "--one-pool")
    assert pooled.exit_code == 0 and "each pool" not in pooled.stdout


def test_a_wrong_question_gets_an_answer(config, tmp_path):
    bad = tmp_path / "portfolio.yaml"
    bad.write_text("portfolio:\n  prices: {BTC: 65_000}\n  positions:\n    - {contract: BTC-PERPETUL, amount: 1}\n")
    unpriced = tmp_path / "unpriced.yaml"
    unpriced.write_text("portfolio:\n  prices: {BTC: 65_000}\n  cash: {USDC: 1_000, XRP: 0}\n")
    for arguments, code, why in (
        (["-c", tmp_path / "none.yaml"], 66, "none.yaml"),
        (["-c", config, "--portfolio", bad], 78, "portfolio.yaml:4:"),
        (["-c", config, "--portfolio", tmp_path / "none.yaml"], 66, "none.yaml"),
        (["-c", config, "--portfolio", unpriced], 78, "add XRP to prices"),
        (["-c", config, "--history", tmp_path], 65, "no history here"),
        (["-c", config, "--paths", -1], 64, "--paths"),
    ):
        result = call(*arguments)
        assert result.exit_code == code, (arguments, result.output)
        assert why in result.output, (arguments, result.output)
