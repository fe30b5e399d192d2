"""Whoever is woken by an alert finds its page, and commands that exist."""

import re

import pytest
import yaml

from dea_daemon.cli import cli
from dea_daemon.cli.records import ledger
from tests.wiring.processes import ROOT

RUNBOOK = (ROOT / "docs/runbook.md").read_text()
HEADINGS = re.findall(r"^#+ (.+)$", RUNBOOK, re.MULTILINE)
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_its_page(rule):
    assert HEADINGS.count(rule["alert"].lower()) == 1
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
    page = RUNBOOK.partition(f"\n## {rule['alert'].lower()}\n")[2].partition("\n## ")[0]
    assert len(page.split()) > 10 and re.search(r"\bLook\b", page) and re.search(r"\b[Dd]o\b[^:]*:", page)


def test_no_page_is_left_of_an_alert_that_is_gone():
    pages = RUNBOOK.partition("\n# Alerts\n")[2]
    assert set(re.findall(r"^## (.+)$", pages, re.MULTILINE)) == {rule["alert"].lower() for rule in RULES}


def test_every_link_within_it_leads_somewhere():
    anchors = {anchor(heading) for heading in HEADINGS}
    links = re.findall(r"\]\(#([^)]+)\)", RUNBOOK)
    assert links and set(links) <= anchors


def test_every_command_it_names_exists():
    named = set(re.findall(r"`dea-daemon ([a-z-]+)", RUNBOOK)) | {"cancel-all", "explain", "flatten", "resume"}
    assert named <= set(cli.commands), named - set(cli.commands)
    care = set(re.findall(r"ledger ([a-z]+)", " ".join(re.findall(r"`([^`]+)`", RUNBOOK))))
    assert care and care <= set(ledger.commands)
    flags = set(re.findall(r"`[^`]*?(--[a-z][a-z-]+)", RUNBOOK))
    known = {o for c in [*cli.commands.values(), *ledger.commands.values()] for p in c.params for o in p.opts}
    assert flags - known <= {"--since", "--now"}
