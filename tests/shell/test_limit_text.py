"""A limit's figures and words are those a person expects, and every limit has some."""

import re
import subprocess
import sys

import pytest

from dea_daemon.domain.parameters import GuardParameters
from dea_daemon.shell.limit_text import MEANINGS, cut_words, legend, used_allowed
from tests.wiring.processes import ROOT


def use(limit: str, used: float | None, allowed: float) -> dict[str, object]:
    return dict(limit=limit, subject="book", used=used, allowed=allowed)


@pytest.mark.parametrize(
    ("limit", "used", "allowed", "says"),
    [
        ("venue", 1_250_000.4, 2e6, "1,250,000 of 2,000,000"),
        ("bucket_vega", 38.42, 500.0, "38.4 of 500"),
        ("stress", 0.031, 0.05, "3.1 % of 5 %"),
        ("stress", 31_000.0, 50_000.0, "31,000 of 50,000"),
        ("var", 0.0123, 0.02, "1.23 % of 2 %"),
        ("drawdown", 0.0196, 0.1, "1.96 % of 10 %"),
        ("depeg", 0.0005, 0.005, "0.05 % of 0.5 %"),
        ("liquidation", 0.8, 1.0, "80 % of 100 %"),
        ("cancel_ratio", 3.25, 10.0, "3.25 of 10"),
        ("orders", 3, 120, "3 of 120"),
        ("margin", None, 0.6, "? of 60 %"),
        ("scenario", float("nan"), float("inf"), "? of ?"),
    ],
)
def test_parts_of_a_whole_are_percent_and_dollars_are_whole(limit, used, allowed, says):
    assert " of ".join(used_allowed(use(limit, used, allowed))) == says


@pytest.mark.parametrize(
    ("limit", "wanted", "allowed", "says"),
    [
        ("venue", 9_000.0, 4_000.0, "9,000 to 4,000"),
        ("stress", 5.0, 0.0, "5 to 0"),  # lots, though the limit is a fraction
        ("margin", 30.0, 7.0, "30 to 7"),
        ("stress", 0.071, 0.05, "7.1 % to 5 %"),  # an order refused at the end
        ("net", None, 0.0, "? to 0"),
    ],
)
def test_a_cut_is_in_lots_but_where_it_is_a_fraction(limit, wanted, allowed, says):
    assert cut_words({"limit": limit, "wanted": wanted, "allowed": allowed}) == says


def test_every_limit_of_the_guards_has_words_and_every_option_in_them_exists():
    named = {option for meaning in MEANINGS.values() for option in meaning.options.split(", ")}
    known = set(GuardParameters.model_fields)
    assert named <= known
    no_limit_of_its_own = {"max_index_divergence", "var_annual_vol", "max_clock_step_ms"}
    assert known - named == no_limit_of_its_own
    assert legend("venue") == "venue: sum of notionals at one venue (guards.max_venue_usd, max_venue_leverage)"
    assert legend("licence") == ""


def test_the_web_page_tells_the_same_limits_as_percent():
    script = (ROOT / "dea_daemon/shell/webpage/app.js").read_text(encoding="utf-8")
    sets = dict(re.findall(r"const (FRACTIONS|LOSSES) = new Set\((.*?)\)", script))
    fractions, losses = (set(re.findall(r'"(\w+)"', sets[name])) for name in ("FRACTIONS", "LOSSES"))
    for limit in MEANINGS:
        small, large = (used_allowed(use(limit, allowed, allowed))[1].endswith("%") for allowed in (0.5, 5e5))
        assert (small, large) == (limit in fractions | losses, limit in fractions), limit


def test_it_needs_the_standard_library_alone():
    heavy = "{'numpy', 'msgspec', 'pydantic', 'yaml', 'click', 'structlog', 'rich'}"
    code = f"import sys, dea_daemon.cli.status_text; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['click']")
