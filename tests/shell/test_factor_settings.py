"""What a source of slow factors may not be configured as is refused at its place, with what was meant."""

import pytest

from dea_daemon.domain.errors import ConfigError
from dea_daemon.shell.settings import load
from tests.shell.settings_samples import ENVIRON, SMALL

LINE = SMALL.count("\n") + 2
OWN = "kind: csv, url: 'http://127.0.0.1/x'"
FRED = "kind: fred, series: X"


def loaded(tmp_path, source):
    path = tmp_path / "config.yaml"
    path.write_text(f"{SMALL}factors:\n  a: {{{source}}}\n")
    return load(path, ENVIRON | {"KEY": "k" * 32})


@pytest.mark.parametrize(
    ("source", "at", "option", "why"),
    [
        (
            f"{OWN}, lowest: 5, highest: 3",
            "highest: ",
            "highest",
            "lowest is 5 and highest 3: no value would be believed",
        ),
        (
            f"{OWN}, lowest: 5, highest: 5",
            "highest: ",
            "highest",
            "lowest is 5 and highest 5: no value would be believed",
        ),
        ("kind: fear_greed, lowest: 150", "lowest: ", "lowest", "lowest is 150 and highest 100"),
        ("kind: fear_greed, highest: -1", "highest: ", "highest", "lowest is 0 and highest -1"),
        (f"{FRED}, vintages: true", "vintages: ", "vintages", "needs api_key"),
        (
            f"{FRED}, vintages: true, api_key: {{env: KEY}}, history_days: 2500",
            "history_days: ",
            "history_days",
            "at most 2,000 days with vintages, not 2,500",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_stands(tmp_path, source, at, option, why):
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, source)
    column = len("  a: {") + source.index(at) + len(at) + 1
    assert f":{LINE}:{column}: error: factors.a.{option}: {why}" in str(refused.value)


def test_bounds_in_order_or_one_of_them_or_none_are_taken(tmp_path):
    bounds = ("lowest: 1, highest: 2", "lowest: 1", "highest: -1", "half_life_days: 3")
    taken = [loaded(tmp_path, f"{OWN}, {each}").factors["a"] for each in bounds]
    assert [(source.lowest, source.highest) for source in taken] == [(1, 2), (1, None), (None, -1), (None, None)]
