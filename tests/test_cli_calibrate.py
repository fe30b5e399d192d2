"""`dea-daemon calibrate` from outside: how it ends, and what Ctrl-C leaves."""

import json
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
from click.testing import CliRunner

from dea_daemon.cli import cli
from dea_daemon.wiring.calibrate_trials import LOG
from dea_daemon.wiring.demo import config_file
from tests.wiring.test_calibrate import folder  # noqa: F401 a fixture

CONFIG = config_file("backtest-voltarget.yaml")


def call(*arguments):
    return CliRunner().invoke(cli, ["calibrate", *map(str, arguments)])


@pytest.mark.timeout(180)
def test_the_last_line_is_what_was_written(folder, tmp_path):  # noqa: F811
    out = tmp_path / "c.yaml"
    told = call("-c", CONFIG, "--history", folder, "--out", out, "--trials", 2, "--no-bands", "--no-forecasters",
                "--workers", 1, "--date", "2026-01-01", "--json")  # fmt: skip
    assert told.exit_code == 0, told.output
    last = json.loads(told.stdout.splitlines()[-1])
    assert last["event"] == "calibrate.finished" and last["file"] == str(out)
    assert last["provenance"]["made"] == "2026-01-01" and last["evidence"]["bands"] == {"skipped": "not asked for"}
    assert last["evidence"]["forecasters"]["ridge"] == {"skipped": "not asked for"}
    assert last["evidence"]["correlation"]["adopted"] in (True, False)
    assert set(last["evidence"]["risk"]["by_underlying"]) == {"BTC", "ETH"}


@pytest.mark.timeout(180)
def test_ctrl_c_leaves_the_trials_made_so_far(folder, tmp_path):  # noqa: F811
    out = tmp_path / "c.yaml"
    command = ["-c", CONFIG, "--history", folder, "--out", out, "--trials", 2_000, "--workers", 2, "--to", "2020-05-01"]
    with subprocess.Popen(
        [sys.executable, "-m", "dea_daemon.cli", "calibrate", *map(str, command)], stderr=subprocess.PIPE, text=True
    ) as process:
        log = out.with_name(out.name + LOG)
        while not (log.exists() and log.read_text().count("\n") >= 20):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert 20 <= len(lines) < 2_000 and f"interrupted: {len(lines)} trials are in {log}" in told
    assert not out.exists()


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_says_what_to_install(folder, tmp_path):  # noqa: F811
    told = call("-c", CONFIG, "--history", folder, "--out", tmp_path / "c.yaml", "--trials", 1, "--ray")
    assert told.exit_code == 78 and "pip install 'dea-daemon[scale]'" in told.output


def test_a_wrong_question_gets_an_answer(folder, tmp_path):  # noqa: F811
    out = tmp_path / "c.yaml"
    for arguments, code, why in (
        (["-c", CONFIG, "--history", tmp_path / "none", "--out", out], 66, "no such folder"),
        (["-c", CONFIG, "--history", tmp_path, "--out", out], 65, "no history here"),
        (["-c", CONFIG, "--history", folder, "--out", out, "--trials", 0], 64, "trials"),
        (["-c", CONFIG, "--history", folder, "--out", tmp_path / "none" / "c.yaml", "--trials", 1], 66, "none"),
        (["-c", CONFIG, "--history", folder, "--out", out, "--from", "2021-01-01", "--to", "2020-01-01"], 78, "after"),
    ):
        told = call(*arguments)
        assert (told.exit_code, why in told.output) == (code, True), (arguments, told.output)
