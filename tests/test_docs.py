"""What the pages say is what the code does, and the wheel carries what they point to."""

import re
import tomllib
import zipfile
from pathlib import Path

import pytest

from dea_daemon.cli import cli
from dea_daemon.shell.settings import load
from dea_daemon.simvenue.faults import CALL_ACTIONS, MESSAGE_ACTIONS
from dea_daemon.simvenue.incidents import ACTIONS as INCIDENTS
from dea_daemon.simvenue.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SIMVENUE = (ROOT / "docs" / "simvenue.md").read_text()
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(ROOT.glob("docs/*.md"))


def test_the_readmes_configuration_is_one_that_check_accepts(tmp_path):
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    file = tmp_path / "example.yaml"
    file.write_text(example)
    file.chmod(0o600)
    names = ("DERIBIT_TESTNET_CLIENT_ID", "DERIBIT_TESTNET_CLIENT_SECRET")
    settings = load(file, dict.fromkeys(names, "not-a-real-key"))
    assert not settings.armed


def test_every_dependency_has_its_line_in_the_readme():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[=<>]", dependency)[0].strip() for dependency in project["dependencies"]}
    table = README.partition("| package | for |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| ([A-Za-z][\w-]*) \|", table, re.MULTILINE)) == wanted


def test_every_command_is_in_the_readme():
    assert set(re.findall(r"^\| `dea-daemon (\w[\w-]*)", README, re.MULTILINE)) == set(cli.commands) - {"version"}


def test_every_scenario_and_fault_has_its_line():
    first_cells = re.findall(r"^\| (.*?) \|", SIMVENUE, re.MULTILINE)
    named = set(re.findall(r"`(\w+)[^`]*`", " ".join(first_cells)))
    assert named == set(SCENARIOS) | set(CALL_ACTIONS) | set(MESSAGE_ACTIONS) | set(INCIDENTS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_python_on_the_simvenue_page_compiles():
    (snippet,) = re.findall(r"```python\n(.*?)```", SIMVENUE, re.DOTALL)
    compile(snippet, "docs/simvenue.md", "exec")


def test_the_wheel_carries_the_shipped_configurations(tmp_path):
    from hatchling.builders.wheel import WheelBuilder

    built = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(built) as wheel:
        names = set(wheel.namelist())
    assert {f"dea_daemon/config/{file.name}" for file in ROOT.glob("config/*.yaml")} <= names
    assert not [name for name in names if name.startswith(("tests/", "config/", "docs/"))]


def test_every_test_the_reliability_page_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "reliability.md").read_text()))
    there = {name for file in ROOT.glob("tests/**/*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
    assert named and named <= there, named - there
