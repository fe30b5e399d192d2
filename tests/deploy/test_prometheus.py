"""The alert rules and the dashboard ask for what a daemon tells, and every rule is shown to fire and not to fire."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dea_daemon.domain.modes import Mode
from dea_daemon.shell.logs import COUNTED
from dea_daemon.shell.metrics import NOTES, STAGES, Metrics
from tests.shell.status_sample import still_monitor

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
TESTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.test.yml").read_text(encoding="utf-8"))
BOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
OF_PROMETHEUS = {"up", "ALERTS"}
LABELS_OF_SCRAPES = {"job", "instance", "alertstate", "alertname", "le"}


def promtool(*args: str, cwd: Path = DEPLOY / "prometheus") -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.fail("promtool is missing: install the package prometheus")
    return subprocess.run(["promtool", *args], cwd=cwd, capture_output=True, text=True, timeout=60)


def panel_expressions() -> Iterator[tuple[str, str]]:
    """Panel title and expression, with what Grafana fills in filled in."""
    found = [(panel["title"], target["expr"]) for panel in BOARD["panels"] for target in panel["targets"]]
    found += [(note["name"], note["expr"]) for note in BOARD["annotations"]["list"]]
    for title, expression in found:
        yield title, expression.replace("$__rate_interval", "5m").replace("$instance", "one")


EXPRESSIONS = [(rule["alert"], rule["expr"]) for rule in ALERTS] + list(panel_expressions())


def told() -> dict[str, set[str]]:
    """Every metric of a real exposition, with its labels."""
    names: dict[str, set[str]] = {}
    for line in Metrics(still_monitor()).exposition().decode().splitlines():
        if not line.startswith("#"):
            name, _, rest = line.partition("{")
            names.setdefault(name.split(" ")[0], set()).update(re.findall(r'(\w+)="', rest))
    return names


def asked(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Every metric an expression names, with the labels it is selected by."""
    for name, selector in re.findall(r"\b(dea_\w+|process_\w+|up\b|ALERTS\b)(?:\{([^}]*)\})?", expression):
        yield name, dict(re.findall(r'(\w+)\s*=~?\s*"([^"]*)"', selector))


# --- the rules ----------------------------------------------------------------------------------------------


def test_promtool_accepts_the_rules():
    checked = promtool("check", "rules", "alerts.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_promtool_accepts_the_configuration():
    checked = promtool("check", "config", "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_rules_fire_when_they_should():
    tested = promtool("test", "rules", "alerts.test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_every_rule_is_shown_to_be_quiet_and_then_to_fire(alert):
    (case,) = [test for test in TESTS["tests"] if test["name"] == alert]
    expected = [question["exp_samples"] for question in case["promql_expr_test"]]
    assert expected == [[], [{"labels": f'{{alertname="{alert}"}}', "value": 1}]]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_rule_says_how_bad_and_what_to_do(rule):
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
    assert rule["annotations"]["summary"] and rule["annotations"]["description"].endswith(".")


def test_no_two_rules_share_a_name():
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS) > 20


# --- rules and dashboard against the daemon -------------------------------------------------------------------


def test_every_metric_asked_for_is_told():
    names = told()
    for where, expression in EXPRESSIONS:
        found = dict(asked(expression))
        assert found, where
        assert set(found) <= set(names) | OF_PROMETHEUS, where


def test_every_label_asked_for_is_told():
    names = told()
    for where, expression in EXPRESSIONS:
        for name, labels in asked(expression):
            assert set(labels) <= names.get(name, set()) | LABELS_OF_SCRAPES, where
    for rule in ALERTS:
        written = json.dumps(rule["annotations"])
        have = set().union(*(names.get(name, set()) for name, _ in asked(rule["expr"])))
        assert set(re.findall(r"\$labels\.(\w+)", written)) <= have, rule["alert"]


def test_every_event_mode_and_stage_asked_for_exists():
    known = {"event": {*NOTES, *COUNTED}, "mode": {mode.name.lower() for mode in Mode}, "stage": set(STAGES)}
    for where, expression in EXPRESSIONS:
        for _, labels in asked(expression):
            for label in labels.keys() & known:
                assert set(labels[label].split("|")) <= known[label], where


def test_a_daemon_in_good_health_fires_nothing(tmp_path):
    """The sample's exposition, unchanged for half an hour, against all rules."""
    lines = Metrics(still_monitor()).exposition().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line.startswith("dea_")]
    series = [{"series": name, "values": f"{value}x70"} for name, value in pairs if value != "NaN"]
    counting = {"series": "dea_decisions_total", "values": "0+300x70"}
    series = [one for one in series if one["series"] != counting["series"]] + [counting]
    series.append({"series": 'up{job="dea_daemon"}', "values": "1x70"})
    question = {"expr": "count by (alertname) (ALERTS)", "eval_time": "30m", "exp_samples": []}
    case = {"interval": "30s", "input_series": series, "promql_expr_test": [question]}
    rules = {"rule_files": [str(DEPLOY / "prometheus" / "alerts.yml")], "tests": [case]}
    (tmp_path / "still.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    tested = promtool("test", "rules", "still.yml", cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


# --- the dashboard ------------------------------------------------------------------------------------------


def test_every_panel_asks_in_good_promql(tmp_path):
    rules = [{"record": f"panel:{k}", "expr": expression} for k, (_, expression) in enumerate(panel_expressions())]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked = promtool("check", "rules", "panels.yml", cwd=tmp_path)
    assert checked.returncode == 0 and f"{len(rules)} rules found" in checked.stdout, checked.stdout + checked.stderr


def test_the_dashboards_data_source_is_a_choice():
    kinds = {variable["name"]: variable["type"] for variable in BOARD["templating"]["list"]}
    assert kinds["datasource"] == "datasource"
    used: list[dict[str, Any]] = [panel["datasource"] for panel in BOARD["panels"]]
    used += [target["datasource"] for panel in BOARD["panels"] for target in panel["targets"]]
    assert {source["uid"] for source in used} == {"${datasource}"}


def test_panels_do_not_overlap():
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
