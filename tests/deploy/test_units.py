"""What is in deploy/ and the Dockerfile, linted and held against what the code expects. They run for real in the
slow tests beside this."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dea_daemon.cli import cli

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "dea-daemon.service"
EXECUTABLE = "/opt/dea-daemon/bin/dea-daemon"
NEVER_AGAIN = {"64", "65", "66", "70", "77", "78"}  # docs/operations.md


class Unit(configparser.RawConfigParser):
    """A unit file: names keep their case, and those given twice keep the last."""

    def __init__(self) -> None:
        super().__init__(strict=False, comment_prefixes=("#", ";"), delimiters=("=",))
        self.read(UNIT)

    def optionxform(self, optionstr: str) -> str:
        return optionstr


@pytest.fixture
def service() -> configparser.SectionProxy:
    return Unit()["Service"]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=50)


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(EXECUTABLE, str(Path(sys.executable).with_name("dea-daemon"))))
    done = run("systemd-analyze", "verify", "--recursive-errors=no", copy)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_exposes_little():
    done = run("systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", UNIT)
    assert done.returncode == 0, done.stdout
    (score,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert float(score) <= 1.5


def test_every_command_of_the_unit_exists():
    commands = re.findall(rf"^Exec\w+=.*?{EXECUTABLE} (\S+)", UNIT.read_text(), re.MULTILINE)
    assert commands == ["run", "reload", "cancel-all"]
    assert set(commands) <= set(cli.commands)


def test_the_unit_is_watched_and_cleans_up_after_itself(service):
    assert (service["Type"], service["NotifyAccess"], service["WatchdogSec"]) == ("notify", "main", "30s")
    # `-`: its failure is not the service's. `!`: as root, since systemd 252 gives it no credentials.
    rescue = f"{EXECUTABLE} cancel-all -c /etc/dea-daemon/config.yaml"
    assert service["ExecStopPost"] == f"-!/usr/bin/env CREDENTIALS_DIRECTORY=/etc/dea-daemon {rescue}"
    assert service["RuntimeDirectory"] == "dea-daemon"  # where control_client looks for the socket
    assert (service["RuntimeDirectoryMode"], service["StateDirectoryMode"]) == ("0750", "0700")


def test_what_cannot_get_better_is_not_started_again(service):
    assert service["Restart"] == "on-failure"
    assert set(service["RestartPreventExitStatus"].split()) == NEVER_AGAIN


def test_there_is_time_to_drain(service):
    from dea_daemon.wiring.live import DRAIN_S

    assert float(service["TimeoutStopSec"].removesuffix("s")) > 2 * DRAIN_S
    assert float(compose()["stop_grace_period"].removesuffix("s")) > 2 * DRAIN_S


# --- Docker -------------------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["dea-daemon"]
    return found


def test_hadolint_finds_nothing_wrong_with_the_dockerfile():
    done = run(Path(sys.executable).with_name("hadolint"), "--failure-threshold", "info", ROOT / "Dockerfile")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_image_runs_as_a_number_and_takes_signals_itself():
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG BASE=\S+$", text.partition("FROM")[0], re.MULTILINE)
    assert len(re.findall(r"^FROM \$\{BASE\}", text, re.MULTILINE)) == 2
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert f'ENTRYPOINT ["{EXECUTABLE}"]' in text
    assert f'CMD ["{EXECUTABLE}", "status", "--health"]' in text
    assert "RUNTIME_DIRECTORY=/run/dea-daemon" in text and "STATE_DIRECTORY=/state" in text


def test_the_compose_service_may_do_no_more_than_it_must():
    service = compose()
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert not {"cap_add", "privileged", "ports", "network_mode", "devices"} & set(service)
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["test"] == ["CMD", EXECUTABLE, "status", "--health"]
    assert {"mem_limit", "pids_limit", "logging"} <= set(service)


def test_the_compose_service_finds_its_key_configuration_and_state():
    service = compose()
    whole = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    assert service["environment"] == {"CREDENTIALS_DIRECTORY": "/run/secrets"}
    assert set(service["secrets"]) == set(whole["secrets"]) == set(load_credentials())
    mounts = {mount["target"]: mount for mount in service["volumes"]}
    assert mounts["/state"]["source"] in whole["volumes"]
    assert mounts[service["command"][2]]["read_only"] is True
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp", "/run/dea-daemon"]


def load_credentials() -> list[str]:
    """The names the unit gives its credentials, as the live configuration asks for them."""
    names = re.findall(r"^LoadCredential=([\w-]+):", UNIT.read_text(), re.MULTILINE)
    live = (ROOT / "config" / "deribit-live.yaml").read_text()
    assert names == re.findall(r"credential: ([\w-]+)", live)
    return names


def test_the_compose_file_has_only_what_compose_knows():
    """Names of the Compose specification, for those we use: a mistyped one is ignored by some versions."""
    known = {
        "build", "image", "command", "environment", "secrets", "volumes", "user", "read_only", "tmpfs", "cap_drop",
        "security_opt", "mem_limit", "pids_limit", "init", "restart", "stop_signal", "stop_grace_period",
        "healthcheck", "logging",
    }  # fmt: skip
    whole = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    assert set(whole) == {"name", "services", "secrets", "volumes"}
    assert set(compose()) <= known
    assert set(compose()["healthcheck"]) <= {"test", "interval", "timeout", "start_period", "retries"}
    assert compose()["build"]["dockerfile"] == "Dockerfile" and compose()["build"]["context"] == ".."


# --- scripts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", sorted(ROOT.glob("deploy/*.sh")), ids=lambda path: path.name)
def test_a_script_parses_and_is_strict(script):
    bash = shutil.which("bash")
    assert bash
    assert run(bash, "-n", script).stderr == ""
    text = script.read_text()
    if text.startswith("#!"):
        assert script.stat().st_mode & 0o111
        assert re.search(r"^set -e?uo pipefail$", text, re.MULTILINE)
