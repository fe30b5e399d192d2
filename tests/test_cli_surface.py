"""`dea-daemon surface --chain` from outside: what it prints and writes, what it refuses, and how it ends."""

import json
import re
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from dea_daemon.cli import cli
from dea_daemon.domain.errors import DataError
from dea_daemon.shell.chain_files import read_chains
from dea_daemon.wiring import chains
from tests.research.recorded_chains import DAY_NS, IV, UTC_NS, chain, flat, rows
from tests.shared_data import shared


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["surface", *map(str, arguments)])


def told(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def table(of=None, **changed):
    """Two days of two underlyings, or these chains; a column changed, or left out where None."""
    if of is None:
        of = [chain(underlying=name, utc_ns=UTC_NS + n * DAY_NS) for n in (1, 0) for name in ("ETH", "BTC")]
    columns: dict[str, list[Any]] = {}
    for each in of:
        for name, values in rows(each).items():
            columns.setdefault(name, []).extend(values)
    return {name: values for name, values in (columns | changed).items() if values is not None}


def assert_linked(folder):
    pages = list(folder.rglob("*.html"))
    for file in pages:
        for target in re.findall(r'href="([^"#:]+)"', file.read_text()):
            assert (file.parent / target).exists(), (file.name, target)
    assert pages


@pytest.fixture
def written(tmp_path):
    def write(of=None, **changed):
        file = tmp_path / "chain.parquet"
        pl.DataFrame(table(of, **changed)).write_parquet(file)
        return file

    return write


@pytest.fixture
def fits(monkeypatch):
    """Surfaces of one volatility instead of fitted ones; what was asked for."""
    asked = []

    def fit(of, spread):
        asked.append((of, spread))
        return flat(of)

    monkeypatch.setattr(chains, "fit", fit)
    return asked


# --- what is told -----------------------------------------------------------------------------------------------


def test_a_line_a_surface_in_order_of_time_then_underlying(written, fits):
    result = call("--chain", written(), "--workers", 1, "--json")
    found = told(result)
    assert result.exit_code == 0
    assert [(line["timestamp"][:10], line["underlying"]) for line in found] == [
        ("2026-02-05", "BTC"),
        ("2026-02-05", "ETH"),
        ("2026-02-06", "BTC"),
        ("2026-02-06", "ETH"),
    ]
    assert all(line["quotes"] == 27 and line["expiries"] == 3 and line["inside_bid_ask"] == 1.0 for line in found)
    assert all(line["fit_ms"] > 0.0 and line["svi_fit_ms"] > 0.0 for line in found)


def test_a_table_for_people_beside_the_mark_and_svi(written, fits):
    result = call("--chain", written(), "--workers", 1)
    lines = [re.split(r"  +", line.strip()) for line in result.stdout.splitlines()]
    assert [line[0] for line in lines[1:4]] == ["BTC: this surface", "BTC: the venue's mark", "BTC: SVI, unconstrained"]
    assert lines[1][1:4] == ["2", "54", "100.00 %"]


def test_the_report_has_an_index_a_page_a_surface_and_the_lines(written, fits, tmp_path):
    out = tmp_path / "deep" / "report"
    result = call("--chain", written(), "--out", out, "--workers", 1, "--json")
    pages = {line["page"] for line in told(result)}
    assert {file.name for file in (out / "surfaces").iterdir()} == pages and len(pages) == 4
    assert (out / "surfaces.jsonl").read_text() == result.stdout
    index = (out / "index.html").read_text()
    assert all(f'href="surfaces/{page}"' in index for page in pages)


def test_every_link_between_pages_leads_somewhere(written, fits, tmp_path):
    call("--chain", written(), "--out", tmp_path / "out", "--workers", 1)
    assert_linked(tmp_path / "out")


def test_more_processes_tell_the_same_in_the_same_order(written, tmp_path):
    file = written([chain(count=15, utc_ns=UTC_NS + n * DAY_NS) for n in range(3)])
    alone, together = (told(call("--chain", file, "--workers", n, "--json")) for n in (1, 2))
    for line in alone + together:
        del line["fit_ms"], line["svi_fit_ms"]
    assert alone == together and [line["underlying"] for line in alone] == ["BTC"] * 3


def test_an_arbitrage_or_a_surface_not_published_ends_with_one(written, monkeypatch):
    monkeypatch.setattr(chains, "fit", lambda of, spread: flat(of, {7: 0.6, 30: 0.6, 90: 0.2}))
    assert call("--chain", written(), "--workers", 1).exit_code == 1
    monkeypatch.setattr(chains, "fit", lambda of, spread: flat(of, why="too few quotes"))
    result = call("--chain", written(), "--workers", 1, "--json")
    assert result.exit_code == 1 and {line["why"] for line in told(result)} == {"too few quotes"}
    assert all(line["inside_bid_ask"] == 0.0 and line["min_g"] is None for line in told(result))


def test_interrupted_it_leaves_what_is_finished_usable(written, monkeypatch, tmp_path):
    seen = []

    def fit(of, spread):
        seen.append(of)
        if len(seen) == 5:  # two fits a surface
            raise KeyboardInterrupt
        return flat(of)

    monkeypatch.setattr(chains, "fit", fit)
    out = tmp_path / "out"
    result = call("--chain", written(), "--out", out, "--workers", 1)
    assert result.exit_code == 130 and "2 of 4 surfaces" in result.stderr
    assert len(list((out / "surfaces").iterdir())) == len((out / "surfaces.jsonl").read_text().splitlines()) == 2
    assert "Interrupted: 2 of 4 surfaces were made." in (out / "index.html").read_text()
    assert_linked(out)


# --- what is taken ----------------------------------------------------------------------------------------------


def test_prices_in_coin_count_by_each_rows_own_forward(written):
    of = chain()
    (found,) = read_chains(written([of])).chains
    order = sorted(range(len(of.strike)), key=lambda n: (of.expiry_ns[n], of.strike[n]))
    assert found.chain.strike == tuple(of.strike[n] for n in order)
    assert found.chain.bid == pytest.approx([of.bid[n] for n in order], rel=1e-12)
    assert found.chain.ask == pytest.approx([of.ask[n] for n in order], rel=1e-12)
    assert found.chain.tick == pytest.approx([7.0] * 27)
    assert (found.chain.utc_ns, found.chain.expiries) == (of.utc_ns, of.expiries)
    assert found.mark_iv.tolist() == [IV] * 27


def test_nobody_bids_is_zero_and_nobody_offers_is_no_number(written):
    nothing = [None] * 27
    assert set(read_chains(written([chain()], bid_price=nothing)).chains[0].chain.bid) == {0.0}
    assert np.isnan(read_chains(written([chain()], ask_price=nothing)).chains[0].chain.ask).all()


def test_a_mark_in_per_cent_is_known_for_one(written):
    (found,) = read_chains(written([chain()], implied_volatility=[60.0] * 27)).chains
    assert found.mark_iv == pytest.approx([0.6] * 27)


def test_without_a_mark_there_is_no_row_for_it(written, fits):
    result = call("--chain", written(implied_volatility=None), "--workers", 1)
    assert result.exit_code == 0 and "mark" not in result.stdout


def test_rows_asked_together_are_one_chain_as_of_its_last(written):
    late = [moment.replace(second=5) if n == 20 else moment for n, moment in enumerate(rows(chain())["timestamp"])]
    columns = {"timestamp": late, "snapshot": rows(chain())["timestamp"]}
    (found,) = read_chains(written([chain()], **columns)).chains
    assert found.chain.utc_ns == UTC_NS + 5 * 10**9
    assert sorted(found.chain.age_s) == [0.0] + [5.0] * 26


def test_options_that_die_soon_are_left_alone(written, fits):
    of = [chain(days=(2, 7, 30))]
    assert told(call("--chain", written(of), "--workers", 1, "--json"))[0]["expiries"] == 3
    assert told(call("--chain", written(of), "--workers", 1, "--json", "--min-days", 5))[0]["expiries"] == 2


def test_time_and_underlying_are_chosen(written, fits):
    def found(*options):
        lines = told(call("--chain", written(), "--workers", 1, "--json", *options))
        return [(line["timestamp"][8:10], line["underlying"]) for line in lines]

    assert found("--underlying", "eth") == [("05", "ETH"), ("06", "ETH")]
    assert found("--from", "2026-02-06") == [("06", "BTC"), ("06", "ETH")]
    assert found("--to", "2026-02-06T09:00", "--underlying", "BTC") == [("05", "BTC")]


def test_the_widest_spread_that_counts_goes_to_the_fit(written, fits):
    found = told(call("--chain", written(), "--workers", 1, "--json", "--max-iv-spread", 0.03))
    assert {spread for _, spread in fits} == {0.03} and {line["quotes"] for line in found} == {0}


def test_the_second_fit_does_not_see_what_was_left_out(written, fits):
    call("--chain", written([chain()]), "--workers", 1)
    assert [len(of.strike) for of, _ in fits] == [27, 21]


def test_rows_that_make_no_sense_are_counted(written, fits, tmp_path):
    strikes = [None, -1.0, float("nan"), *rows(chain())["strike"][3:]]
    assert read_chains(written([chain()], strike=strikes)).senseless == 3
    call("--chain", written([chain()], strike=strikes), "--workers", 1, "--out", tmp_path / "out")
    assert "3 of 27 rows were passed over" in (tmp_path / "out" / "index.html").read_text()


# --- what is refused --------------------------------------------------------------------------------------------


def test_columns_that_lack_are_named_with_what_was_meant(written):
    columns = table([chain()])
    result = call("--chain", written([chain()], bid_price=None, bid_prices=columns["bid_price"], strike=None))
    assert result.exit_code == 65
    assert "no column bid_price (best bid in coin, empty where nobody bids); is bid_prices meant?" in result.stderr
    assert "no column strike (USD)" in result.stderr


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"strike": ["x"] * 27}, "column strike: String where numbers were expected"),
        ({"timestamp": [1.0] * 27}, "column timestamp: Float64 where moments"),
        ({"expiry_datetime": "naive"}, "column expiry_datetime: moments without a time zone"),
        ({"currency": [1] * 27}, "column currency: Int64 where words"),
        ({"option_type": ["future"] * 27}, "column option_type: 'future' where call or put"),
    ],
)
def test_columns_of_another_kind_are_refused(written, changed, why):
    naive = [moment.replace(tzinfo=None) for moment in rows(chain())["expiry_datetime"]]
    changed = {name: naive if values == "naive" else values for name, values in changed.items()}
    result = call("--chain", written([chain()], **changed))
    assert result.exit_code == 65 and why in result.stderr


def test_what_is_no_parquet_file_is_refused(tmp_path):
    for name, content in (("chain.parquet", b"not parquet at all"), ("chain.parquet", b""), ("chain.csv", b"a,b\n")):
        (tmp_path / name).write_bytes(content)
        assert call("--chain", tmp_path / name).exit_code == 65
    assert call("--chain", tmp_path / "missing.parquet").exit_code == 66


def test_a_file_without_rows_or_without_what_was_asked_for_says_so(written, tmp_path):
    file = written()
    pl.read_parquet(file).clear().write_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="columns but no rows"):
        read_chains(tmp_path / "none.parquet")
    assert "nothing on SOL; it has BTC, ETH" in call("--chain", file, "--underlying", "SOL").stderr
    late = call("--chain", file, "--from", "2027-01-01").stderr
    assert "it goes from 2026-02-05T09:00:00Z to 2026-02-06T09:00:00Z" in late
    assert "nobody quotes an option of 100 days" in call("--chain", file, "--min-days", 100).stderr


def test_a_folder_that_cannot_be_written_is_known_before_any_work(written, fits, tmp_path):
    (tmp_path / "out").write_text("a file")
    result = call("--chain", written(), "--out", tmp_path / "out", "--workers", 1)
    assert result.exit_code != 0 and "out" in result.stderr and not fits


def test_a_report_is_written_over_an_older_one(written, fits, tmp_path):
    for _ in range(2):
        assert call("--chain", written(), "--out", tmp_path / "out", "--workers", 1).exit_code == 0
    assert len((tmp_path / "out" / "surfaces.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    "options",
    [("--out", "x"), ("--from", "2026-01-01"), ("--workers", "2"), ("--underlying", "A", "--underlying", "B")],
)
def test_what_is_for_recorded_chains_is_refused_of_a_running_daemon(options, tmp_path):
    assert call("--socket", tmp_path / "s", *options).exit_code == 64


def test_a_file_and_a_daemon_are_not_asked_at_once(written, tmp_path):
    assert call("--chain", written(), "--socket", tmp_path / "s").exit_code == 64
    assert call("--chain", written(), "--from", "2026-02-06", "--to", "2026-02-05").exit_code == 78


# --- recorded ---------------------------------------------------------------------------------------------------


def test_the_recorded_crash_is_inside_bid_and_ask_and_free_of_arbitrage():
    file = shared("options/deribit_chain_snapshots.parquet")
    result = call("--chain", file, "--from", "2026-02-05T12:00", "--to", "2026-02-06", "--workers", 1, "--json")
    found = told(result)
    assert result.exit_code == 0 and len(found) == 4
    for line in found:
        assert line["butterfly_violations"] == line["calendar_violations"] == 0 and line["min_g"] >= -1e-9
        assert line["inside_bid_ask"] >= 0.97 and line["inside_bid_ask"] > line["mark_inside_bid_ask"]
