"""The benchmarks still run. Their figures are for reading, and no test looks at them."""

import math
import sys

import pytest
from rich.console import Console

from tests.bench import __main__ as bench
from tests.bench import order_path, records, soak, solver, venue


def alive(rows) -> bool:
    """Every row has a name, a unit and figures."""
    figures = [row[field] for row in rows for field in ("ours", "peer", "ratio") if row.get(field) is not None]
    return bool(rows) and all(row["name"] and row["unit"] for row in rows) and all(map(math.isfinite, figures))


def test_the_rows_of_records_and_of_the_venue_can_be_measured():
    assert alive(records.rows(commits=5, events=100))
    assert alive(venue.rows(seconds=1))


def test_solvers_that_find_the_same_books_are_timed_tick_by_tick():
    rows = solver.rows(sizes=(12,), ticks=20)
    assert alive(rows)
    assert {row.get("peer_name") for row in rows} >= set(solver.PEERS)


@pytest.mark.timeout(60)
def test_an_order_is_timed_through_the_whole_line_and_through_the_bare_loop(tmp_path):
    rows = {row["name"]: row for row in order_path.rows(rounds=1, seconds=1.5, settle_s=1.0)}
    assert alive(rows.values())
    measured = rows["orders measured"]
    assert measured["ours"] > 0 and measured["peer"] > 0


def test_a_made_up_stream_is_told_and_left_out(monkeypatch):
    made_up = {"name": "feed (generated)", "ours": 1.0, "unit": "us"}
    real = {"name": "feed", "ours": 1.0, "unit": "us"}
    module = type("Module", (), {"rows": staticmethod(lambda: [made_up, real])})
    monkeypatch.setitem(sys.modules, "tests.bench.feeds", module)
    rows, notes = bench.collect(["feeds"], Console(quiet=True))
    assert [row["name"] for row in rows] == ["feed"]
    assert len(notes) == 1 and "DEA_SHARED_DATA" in notes[0]
    assert bench.table(rows).row_count == 1


def test_a_growing_daemon_is_seen(capsys):
    flat = [soak.Sample(60.0 + 5 * k, 140.0, 25, 6) for k in range(60)]
    growing = [soak.Sample(s.at_s, s.rss_mb + 0.2 * k, 25, 6) for k, s in enumerate(flat)]
    assert soak.tell("daemon", flat) == 0.0
    assert soak.tell("daemon", growing) > soak.GROWTH_MAX_MB
    assert "MB/hour" in capsys.readouterr().out
