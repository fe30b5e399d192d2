"""A history on disk: found by its names, read in any of its forms, refused with file and row, added to."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dea_daemon.domain.errors import DataError
from dea_daemon.research.candles import Candles, FundingRates, Market
from dea_daemon.shell.history import (
    check,
    find_series,
    import_series,
    open_history,
    series_of,
    write_candles,
    write_funding,
)
from tests.shared_data import shared

H = 3_600_000_000_000
START = 1_609_344_000_000_000_000  # 2020-12-30 16:00 UTC: two years meet within fifty hours
BTC = Market("binance", "perp", "BTCUSDT")
NAME = "binance_perp_BTCUSDT_1h"


def frame(count: int = 50) -> pl.DataFrame:
    price = 100.0 + np.arange(count)
    return pl.DataFrame(
        {
            "date": pl.Series(START + np.arange(count) * H).cast(pl.Datetime("ns", "UTC")),
            "open": price,
            "high": price + 2,
            "low": price - 1,
            "close": price + 1,
            "volume": np.full(count, 3.0),
        }
    )


def candles(first: int = 0, count: int = 50, shift: float = 0.0) -> Candles:
    price = 100.0 + shift + np.arange(first, first + count, dtype=np.float64)
    at_ns = START + np.arange(first, first + count, dtype=np.int64) * H
    return Candles(H, at_ns, price, price + 2, price - 1, price + 1, np.full(count, 3.0))


def same(left: Candles, right: Candles) -> bool:
    columns = zip(left[1:], right[1:], strict=True)
    return left.step_ns == right.step_ns and all(np.array_equal(mine, theirs) for mine, theirs in columns)


def csv(folder: Path, *lines: str, name: str = NAME) -> Path:
    file = folder / f"{name}.csv"
    file.write_text("\n".join(("date,open,high,low,close,volume", *lines)) + "\n")
    return file


def lines(*dates: str) -> list[str]:
    return [f"{date},10,12,9,11,3" for date in dates]


# --- forms --------------------------------------------------------------------------------------------------


def dates_as(form: str) -> pl.Expr:
    date = pl.col("date")
    return {
        "ms": date.dt.cast_time_unit("ms"),
        "us": date.dt.cast_time_unit("us"),
        "another zone": date.dt.convert_time_zone("Asia/Tokyo"),
        "epoch s": date.dt.epoch("s"),
        "epoch ms": date.dt.epoch("ms"),
        "epoch us": date.dt.epoch("us"),
        "epoch ns": date.dt.epoch("ns"),
        "Z": date.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "offset": date.dt.convert_time_zone("Asia/Tokyo").dt.strftime("%Y-%m-%d %H:%M:%S%:z"),
        "UTC": date.dt.strftime("%Y-%m-%d %H:%M:%S UTC"),
    }[form]


FORMS = ("ms", "us", "another zone", "epoch s", "epoch ms", "epoch us", "epoch ns", "Z", "offset", "UTC")


@pytest.mark.parametrize("form", FORMS)
def test_dates_mean_the_same_in_every_form(tmp_path, form):
    frame().with_columns(dates_as(form).alias("date")).write_parquet(tmp_path / f"{NAME}.parquet")
    assert same(open_history(tmp_path).candles[BTC], candles())


@pytest.mark.parametrize("form", [form for form in FORMS if form.startswith("epoch") or form in ("Z", "offset", "UTC")])
def test_csv_is_read_as_parquet_is(tmp_path, form):
    frame().with_columns(dates_as(form).alias("date")).write_csv(tmp_path / f"{NAME}.csv")
    assert same(open_history(tmp_path).candles[BTC], candles())


def test_dates_without_a_zone_are_refused_unless_they_are_said_to_be_utc(tmp_path):
    csv(tmp_path, *lines("2021-01-01 00:00:00", "2021-01-01 01:00:00"))
    with pytest.raises(DataError, match=rf"{NAME}.csv:2: '2021-01-01 00:00:00' has no time zone.*--utc"):
        open_history(tmp_path)
    assert open_history(tmp_path, assume_utc=True).candles[BTC].open_ns[0] == 1_609_459_200 * 10**9


def test_parquet_without_a_zone_is_refused_too(tmp_path):
    frame().with_columns(pl.col("date").dt.replace_time_zone(None)).write_parquet(tmp_path / f"{NAME}.parquet")
    with pytest.raises(DataError, match="no time zone"):
        open_history(tmp_path)
    assert same(open_history(tmp_path, assume_utc=True).candles[BTC], candles())


def test_a_files_name_tells_what_is_inside():
    told = series_of(Path("deribit_perp_BTC_USDC-PERPETUAL_15m.csv"))
    assert told is not None and told[:4] == ("deribit", "perp", "BTC_USDC-PERPETUAL", "15m")
    told = series_of(Path("binance_BTCUSDT_funding_8h.parquet"))
    assert told is not None and told[:4] == ("binance", "funding", "BTCUSDT", "")
    assert series_of(Path("notes.csv")) is None


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (lines("2021-01-01T00:00Z", "yesterday"), ":3: 'yesterday' is no date"),
        (lines("1609459200000", "1609462800"), ":3: date 1609462800 is of another unit"),
        (lines("12", "13"), ":2: date 12 is no time since 2001"),
        (["2021-01-01T00:00Z,10,12,9,11,3", ",10,12,9,11,3"], ":3: no date"),
        (["2021-01-01T00:00Z,10,12,9,11,3", "2021-01-01T01:00Z,10,n/a,9,11,3"], ":3: high 'n/a' is no number"),
        (["2021-01-01T00:00Z,10,12,9,11,3", "2021-01-01T01:00Z,10,,9,11,3"], ":3: 2021-01-01 01:00: no number"),
        (["2021-01-01T00:00Z,10,12,9,11,3", "2021-01-01T01:00Z,0,12,0,11,3"], ":3: 2021-01-01 01:00: no price"),
        (["2021-01-01T00:00Z,10,12,9,11,3", "2021-01-01T00:00Z,10,12,9,10,3"], "contradiction"),
        (["2021-01-01T00:00Z,10,12,9,11,3", "2021-01-01T01:00Z,10,9,12,11,3"], ":3: 2021-01-01 01:00: outside"),
        (lines("2021-01-01T00:30Z", "2021-01-01T01:30Z"), "off the UTC grid"),
        (lines("2021-01-01T00:00Z", "2021-01-01T04:00Z", "2021-01-01T08:00Z"), "4 h apart, not 1 h"),
        ([], "columns but no rows"),
    ],
)
def test_bad_rows_are_refused_with_their_file_and_line(tmp_path, rows, why):
    file = csv(tmp_path, *rows)
    with pytest.raises(DataError) as refused:
        open_history(tmp_path)
    assert str(refused.value).startswith(str(file)) and why in str(refused.value)


def test_a_parquet_row_is_named_too(tmp_path):
    spoiled = frame().with_columns(close=pl.when(pl.int_range(pl.len()) == 17).then(float("nan")).otherwise("close"))
    spoiled.write_parquet(tmp_path / f"{NAME}.parquet")
    with pytest.raises(DataError, match=r"1h.parquet: row 18: 2020-12-31 09:00: no number"):
        open_history(tmp_path)


def test_a_missing_column_is_named_beside_those_there_are(tmp_path):
    frame().rename({"close": "last"}).write_parquet(tmp_path / f"{NAME}.parquet")
    with pytest.raises(DataError, match="no column close; it has date, open, high, low, last, volume"):
        open_history(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1 this is none"])
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_file_that_is_none_is_refused_by_its_name(tmp_path, content, suffix):
    (tmp_path / f"{NAME}{suffix}").write_bytes(content)
    with pytest.raises(DataError, match=f"{NAME}{suffix}"):
        open_history(tmp_path)


def test_a_folder_without_a_history_says_what_was_wanted(tmp_path):
    with pytest.raises(DataError, match=r"no history here; wanted candles/VENUE"):
        open_history(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        open_history(tmp_path / "elsewhere")


def test_a_market_that_is_not_there_is_named_beside_those_that_are(tmp_path):
    write_candles(tmp_path, BTC, "1h", candles())
    with pytest.raises(DataError, match=r"no binance_spot_BTCUSDT; it has binance perp BTCUSDT 1h"):
        open_history(tmp_path, [Market("binance", "spot", "BTCUSDT")])


def test_without_the_reader_it_is_said_what_to_install(tmp_path, monkeypatch):
    csv(tmp_path, *lines("2021-01-01T00:00Z"))
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    with pytest.raises(DataError, match=r"pip install 'dea-daemon\[research\]'"):
        open_history(tmp_path)


# --- degradations, which are said ---------------------------------------------------------------------------


def test_disorder_and_duplicates_are_mended_and_gaps_stay(tmp_path):
    muddled = pl.concat([frame()[25:], frame()[:20], frame()[3:4]])
    muddled.write_parquet(tmp_path / f"{NAME}.parquet")
    told = open_history(tmp_path).candles[BTC]
    assert np.array_equal(told.open_ns, np.delete(candles().open_ns, range(20, 25)))


def test_bad_candles_become_gaps_where_that_is_wanted(tmp_path):
    csv(tmp_path, *lines(*(f"2021-01-01T{h:02}:00Z" for h in range(24)))[:20], "2021-01-01T20:00Z,10,9,12,11,3")
    with pytest.raises(DataError, match="outside"):
        open_history(tmp_path)
    assert open_history(tmp_path, drop_bad=True).candles[BTC].open_ns.size == 20


# --- our own layout -----------------------------------------------------------------------------------------


def test_what_is_written_is_read_back_by_year(tmp_path):
    rates = FundingRates(candles().open_ns[::8], np.linspace(-1e-4, 1e-4, 7))
    assert write_candles(tmp_path, BTC, "1h", candles()) == (50, 0)
    assert write_funding(tmp_path, "binance", "BTCUSDT", rates) == (7, 0)
    written = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.parquet")}
    years = ("2020.parquet", "2021.parquet")
    expected = {f"candles/binance/perp/BTCUSDT/1h/{year}" for year in years}
    assert written == expected | {f"funding/binance/BTCUSDT/{year}" for year in years}
    history = open_history(tmp_path)
    assert same(history.candles[BTC], candles())
    assert np.array_equal(history.funding["binance", "BTCUSDT"].at_ns, rates.at_ns)
    assert np.array_equal(history.funding["binance", "BTCUSDT"].rate, rates.rate)


def test_writing_the_same_again_touches_no_file(tmp_path):
    write_candles(tmp_path, BTC, "1h", candles())
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")}
    assert write_candles(tmp_path, BTC, "1h", candles()) == (0, 0)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")} == before


def test_pieces_in_any_order_make_the_whole(tmp_path):
    for first, count in ((30, 20), (0, 10), (5, 30)):
        write_candles(tmp_path, BTC, "1h", candles(first, count))
    assert same(open_history(tmp_path).candles[BTC], candles())


def test_other_numbers_replace_what_was_there(tmp_path):
    write_candles(tmp_path, BTC, "1h", candles())
    assert write_candles(tmp_path, BTC, "1h", candles(10, 5, shift=0.5)) == (0, 5)
    assert open_history(tmp_path).candles[BTC].close[9:12].tolist() == [110.0, 111.5, 112.5]


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    write_candles(tmp_path, BTC, "1h", candles(0, 10))

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_candles(tmp_path, BTC, "1h", candles())
    assert same(open_history(tmp_path).candles[BTC], candles(0, 10))
    assert not list(tmp_path.rglob("*.part"))


def test_what_a_killed_write_or_a_person_left_there_is_not_read(tmp_path):
    write_candles(tmp_path, BTC, "1h", candles())
    place = tmp_path / "candles/binance/perp/BTCUSDT/1h"
    (place / "2022.parquet.part").write_bytes(b"PAR1 half")
    (place / "notes.csv").write_text("mine")
    assert same(open_history(tmp_path).candles[BTC], candles())


@pytest.mark.parametrize("symbol", ["../../etc", "BTC/USDT", "", ".hidden"])
def test_a_name_cannot_lead_out_of_the_folder(tmp_path, symbol):
    with pytest.raises(DataError, match="cannot be part of a file's name"):
        write_candles(tmp_path, Market("binance", "perp", symbol), "1h", candles())


def test_one_market_in_two_intervals_wants_to_know_which(tmp_path):
    write_candles(tmp_path, BTC, "1h", candles())
    write_candles(tmp_path, BTC, "30m", candles()._replace(step_ns=H // 2))
    with pytest.raises(DataError, match="binance_perp_BTCUSDT is there in 1h, 30m: say which"):
        open_history(tmp_path)
    assert same(open_history(tmp_path, interval="1h").candles[BTC], candles())


def test_one_series_in_both_layouts_is_refused(tmp_path):
    write_candles(tmp_path, BTC, "1h", candles())
    frame().write_parquet(tmp_path / f"{NAME}.parquet")
    with pytest.raises(DataError, match="binance perp BTCUSDT 1h is there twice"):
        open_history(tmp_path)


def test_only_the_markets_asked_for_are_read(tmp_path):
    csv(tmp_path, "nonsense", name="binance_spot_ETHUSDT_1h")
    write_candles(tmp_path, BTC, "1h", candles())
    write_funding(tmp_path, "binance", "ETHUSDT", FundingRates(candles().open_ns, np.zeros(50)))
    history = open_history(tmp_path, [BTC])
    assert set(history.candles) == {BTC} and not history.funding


# --- the recorded history -----------------------------------------------------------------------------------


def test_the_recorded_history_opens_and_has_no_fatal_finding():
    folder = shared("history")
    history = open_history(folder)
    assert len(history.candles) == 12 and set(history.funding) == {("binance", "BTCUSDT"), ("binance", "ETHUSDT")}
    checked = {checked.series.name: checked for checked in map(check, find_series(folder))}
    assert not [name for name, one in checked.items() if one.fatal]
    assert checked["binance spot BTCUSDT 1h"].missing == 122
    assert checked["binance perp BTCUSDT 1h"].findings == []


def test_a_recorded_series_survives_the_way_through_our_layout(tmp_path):
    folder = shared("history")
    for series in find_series(folder):
        if series.symbol == "ETHUSDT" and series.kind in ("perp", "funding"):
            import_series(series, tmp_path)
    market = Market("binance", "perp", "ETHUSDT")
    before, after = open_history(folder, [market]), open_history(tmp_path)
    assert same(before.candles[market], after.candles[market])
    assert np.array_equal(before.funding["binance", "ETHUSDT"].rate, after.funding["binance", "ETHUSDT"].rate)
