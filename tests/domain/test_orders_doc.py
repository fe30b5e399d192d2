"""The published lifecycle is the one that runs: docs/orders.md against `domain.orders`."""

import re
from pathlib import Path

from dea_daemon.domain.orders import NEXT, OrderInput, OrderState
from dea_daemon.domain.parameters import ExecutionParameters

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "orders.md").read_text()


def table() -> str:
    """The lifecycle as the page should print it: an input a line, a state a column."""
    lines = ["| | " + " | ".join(OrderState) + " |", "|" + "---|" * (len(OrderState) + 1)]
    for what in OrderInput:
        after = (NEXT.get((state, what)) for state in OrderState)
        lines.append(f"| `{what}` | " + " | ".join(state or "·" for state in after) + " |")
    return "\n".join(lines)


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> set[str]:
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", " ".join(cells)))


def test_the_page_prints_the_table_that_runs():
    printed = PAGE.partition("prints it -->\n")[2].partition("<!-- end of table -->")[0].strip()
    assert printed == table(), f"docs/orders.md is out of date; it should say:\n{table()}"


def test_every_state_and_every_input_is_explained():
    assert first_cells(section("States")) == set(OrderState)
    assert first_cells(section("Inputs")) == set(OrderInput)


def test_every_option_the_page_names_exists():
    named = set(re.findall(r"`(\w+_(?:ms|limit|attempts))`", PAGE))
    assert named and named <= set(ExecutionParameters.model_fields)
