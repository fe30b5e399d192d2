"""Each source's answer, as its publisher documents it, becomes rows; and the store keeps every vintage apart."""

import json
import sqlite3
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S
from dea_daemon.shell.factor_formats import Row, number, read, request, time_ns
from dea_daemon.shell.factor_server import FactorServer
from dea_daemon.shell.factor_settings import CoinMetrics, CsvUrl, FearGreed, Fred, HttpJson
from dea_daemon.shell.factor_store import FactorStore, Policy
from tests.shared_data import shared

HOUR = NS_PER_DAY // 24
POLICY = Policy(lag_ns=48 * HOUR, backfill_lag_ns=24 * HOUR)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS_PER_S


def fred(**fields) -> Fred:
    told = {"series": "DGS10", "api_key": {"env": "KEY"}} | fields
    return Fred.model_validate(told, context={"environ": {"KEY": "k" * 32}})


# --- formats ------------------------------------------------------------------------------------------------


def test_coin_metrics():
    body = b"""{"data":[{"asset":"btc","time":"2023-12-30T00:00:00.000000000Z","CapMVRVCur":"1.91"},
        {"asset":"btc","time":"2023-12-31T00:00:00.000000000Z","CapMVRVCur":null}],
        "next_page_token":"0.MjAy","next_page_url":"https://elsewhere.example/v4/x"}"""
    source = CoinMetrics(asset="btc", metric="CapMVRVCur")
    page = read(source, body, 0)
    assert page.rows == [Row(at("2023-12-30"), 1.91)] and page.next_page == "0.MjAy"
    url, query = request(source, at("2023-12-01"), page.next_page)
    assert url == "https://community-api.coinmetrics.io/v4/timeseries/asset-metrics"  # wherever the answer points to
    assert query["start_time"] == "2023-12-01" and query["next_page_token"] == "0.MjAy"
    with pytest.raises(DataError, match="another asset"):
        read(CoinMetrics(asset="eth", metric="CapMVRVCur"), body, 0)


def test_fear_and_greed():
    body = b"""{"name":"Fear and Greed Index","data":[
        {"value":"67","value_classification":"Greed","timestamp":"1703980800","time_until_update":"68499"},
        {"value":"65","value_classification":"Greed","timestamp":"1703894400"}],"metadata":{"error":null}}"""
    assert read(FearGreed(), body, 0).rows == [Row(at("2023-12-30"), 65.0), Row(at("2023-12-31"), 67.0)]


# The services' own examples, re-typed: of rows only some, of values none that matters. An answer has more fields than
# are read; those are here to show it.


def test_the_example_of_coin_metrics_own_page():
    """Documentation, "Price" (Network Data), daily sample; its API's page "Asset metrics": pages by token, null where
    there is none, an error without `data`."""
    body = b"""{ "data" : [ { "asset" : "eth", "time" : "2023-03-18T00:00:00.000000000Z", "PriceBTC" : "0.0653814" },
        { "asset" : "eth", "time" : "2023-03-19T00:00:00.000000000Z", "PriceBTC" : "0.0639254" } ],
        "next_page_token" : "0.MjAyMy0wMy0xOVQwMDowMDowMFo",
        "next_page_url" : "https://api.coinmetrics.io/v4/timeseries/asset-metrics?assets=eth&next_page_token=0.Mj" }"""
    source = CoinMetrics(asset="eth", metric="PriceBTC")
    page = read(source, body, 0)
    assert page.rows == [Row(at("2023-03-18"), 0.0653814), Row(at("2023-03-19"), 0.0639254)]
    query = request(source, at("2023-03-18"), page.next_page).query
    assert query["paging_from"] == "start" and query["next_page_token"] == "0.MjAyMy0wMy0xOVQwMDowMDowMFo"
    assert int(query["page_size"]) <= 10_000  # the most there is
    with pytest.raises(DataError):
        read(source, b'{"error":{"type":"forbidden","message":"Requested metric is not available."}}', 0)


def test_the_example_of_alternative_me_s_own_page():
    """ "Crypto Fear & Greed Index", API: newest first, text for numbers, `time_until_update` of the newest alone. The
    days of 2019 began at 05:00 UTC; those of today at midnight."""
    body = b"""{ "name": "Fear and Greed Index", "data": [
        { "value": "40", "value_classification": "Fear", "timestamp": "1551157200", "time_until_update": "68499" },
        { "value": "47", "value_classification": "Neutral", "timestamp": "1551070800" } ],
        "metadata": { "error": null } }"""
    assert read(FearGreed(), body, 0).rows == [Row(at("2019-02-25T05:00"), 47.0), Row(at("2019-02-26T05:00"), 40.0)]
    assert request(FearGreed(), 0, "").query["limit"] == "0"  # all there are
    with pytest.raises(DataError, match="its error: down"):
        read(FearGreed(), b'{"name":"Fear and Greed Index","data":[],"metadata":{"error":"down"}}', 0)


def test_the_example_of_freds_own_page():
    """FRED API, "fred/series/observations", JSON: GNPCA as known on one day; a point where there is no value."""
    head = b"""{"realtime_start":"2013-08-14","realtime_end":"2013-08-14","observation_start":"1776-07-04",
        "observation_end":"9999-12-31","units":"lin","output_type":1,"file_type":"json",
        "order_by":"observation_date","sort_order":"asc","count":2,"offset":0,"limit":100000,"observations":["""
    rows = b"""{"realtime_start":"2013-08-14","realtime_end":"2013-08-14","date":"1929-01-01","value":"1065.9"},
        {"realtime_start":"2013-08-14","realtime_end":"2013-08-14","date":"1930-01-01","value":"."}]}"""
    assert read(fred(series="GNPCA"), head + rows, 0).rows == [Row(at("1929-01-01"), 1065.9)]
    query = request(fred(series="GNPCA"), at("1929-01-01"), "").query
    assert set(query) == {"series_id", "file_type", "observation_start", "api_key"} and query["file_type"] == "json"


def test_freds_vintages_are_dated_from_the_first_day_asked_for_at_the_earliest():
    """FRED API, "Real-Time Periods": the period is closed at both ends, and 9999-12-31 the last there is. What is asked
    for begins with the first day told about: no value of it was out before, so no date is cut off at the beginning."""
    query = request(fred(vintages=True), at("2023-12-01"), "").query
    assert query["realtime_start"] == query["observation_start"] == "2023-12-01"
    assert query["realtime_end"] == "9999-12-31"


async def fetched(pages: FactorServer, source: CoinMetrics | FearGreed | Fred) -> tuple[Any, bytes]:
    """What the simulated source answers to the very question, and the bytes."""
    asked = request(source, at("2026-01-01"), "")
    async with aiohttp.ClientSession() as session, session.get(asked.url, params=asked.query) as reply:
        body = await reply.read()
        return json.loads(body), body


async def test_the_simulated_sources_answer_with_the_fields_of_the_real_ones():
    """The same names, in the same places, with the same kinds of values as in the examples above."""
    now = at("2026-06-01T12:00")
    async with FactorServer(lambda: now) as pages:
        coin, _ = await fetched(pages, CoinMetrics(asset="btc", metric="CapMVRVCur", url=pages.url))
        greed, _ = await fetched(pages, FearGreed(url=pages.url))
        known, body = await fetched(pages, fred(url=pages.url))
        vintages, _ = await fetched(pages, fred(url=pages.url, vintages=True))
    assert set(coin) <= {"data", "next_page_token", "next_page_url"} and len(coin["data"]) > 100
    assert set(coin["data"][0]) == {"asset", "time", "CapMVRVCur"}
    assert coin["data"][0]["time"] == "2026-01-01T00:00:00.000000000Z" and isinstance(
        coin["data"][0]["CapMVRVCur"], str
    )
    assert set(greed) == {"name", "data", "metadata"} and greed["metadata"] == {"error": None}
    newest, *older = greed["data"]
    assert set(newest) == {"value", "value_classification", "timestamp", "time_until_update"}
    assert all(set(row) == {"value", "value_classification", "timestamp"} for row in older)
    assert newest["timestamp"] > older[0]["timestamp"] and newest["time_until_update"] == "43200"
    head = {
        "realtime_start", "realtime_end", "observation_start", "observation_end", "units", "output_type", "file_type",
        "order_by", "sort_order", "count", "offset", "limit", "observations",
    }  # fmt: skip
    assert set(known) == set(vintages) == head and known["count"] == len(known["observations"])
    assert {(row["realtime_start"], row["realtime_end"]) for row in known["observations"]} == {("2026-06-01",) * 2}
    first, second = [row for row in vintages["observations"] if row["date"] == "2026-02-02"]
    assert (first["realtime_start"], first["realtime_end"]) == ("2026-02-03", "2026-02-08")
    assert (second["realtime_start"], second["realtime_end"]) == ("2026-02-09", "9999-12-31")
    assert vintages["observations"][-1]["realtime_end"] == "9999-12-31"  # nothing has replaced it yet
    assert any(row["value"] == "." for row in known["observations"])
    assert read(fred(), body, now).rows


FRED = b"""{"realtime_start":"2024-01-02","realtime_end":"2024-01-02","count":3,"offset":0,"limit":100000,
    "observations":[
    {"realtime_start":"2024-01-02","realtime_end":"2024-01-02","date":"2023-12-28","value":"3.84"},
    {"realtime_start":"2024-01-03","realtime_end":"9999-12-31","date":"2023-12-28","value":"3.85"},
    {"realtime_start":"2024-01-02","realtime_end":"9999-12-31","date":"2023-12-25","value":"."}]}"""


def test_fred_with_vintages_says_when_each_was_out():
    rows = read(fred(vintages=True), FRED, 0).rows
    assert [(row.value, row.publish_ns) for row in rows] == [
        (3.84, at("2024-01-03T06:00")), (3.85, at("2024-01-04T06:00"))
    ]  # fmt: skip
    assert request(fred(vintages=True), at("2023-12-01"), "").query["realtime_end"] == "9999-12-31"


def test_fred_that_tells_less_than_it_has_is_not_believed():
    with pytest.raises(DataError, match="more observations"):
        read(fred(), FRED.replace(b'"count":3', b'"count":100001'), 0)


@pytest.mark.parametrize("head", ["observation_date", "DATE"])  # as it is, and as it was until 2024
def test_freds_csv_needs_no_key(head):
    body = f"{head},DGS10\n2023-12-25,.\n2023-12-26,\n2023-12-27,3.79\n".encode()
    source = Fred(series="DGS10")
    assert read(source, body, 0).rows == [Row(at("2023-12-27"), 3.79)]
    assert request(source, 0, "").url == "https://fred.stlouisfed.org/graph/fredgraph.csv"
    with pytest.raises(DataError, match="no column DGS10"):
        read(source, b"DATE,DGS2\n2023-12-27,3.79\n", 0)


def test_json_of_ones_own_by_path():
    one = HttpJson(url="http://127.0.0.1/x", value="price.usd", query={"q": "1"})
    assert read(one, b'{"price":{"usd":"1.5"}}', NOW).rows == [Row(NOW, 1.5)]
    lists = HttpJson(url="http://127.0.0.1/x", rows="d.0", time="0", value="1")
    assert read(lists, b'{"d":[[[1703980800000,2.5],["2024-01-01",null]]]}', 0).rows == [Row(at("2023-12-31"), 2.5)]


def test_of_two_values_about_one_time_the_last_counts():
    table = CsvUrl(url="http://127.0.0.1/x")
    assert read(table, b"t,v\n2024-01-01,1\n2024-01-01,2\n", 0).rows == [Row(at("2024-01-01"), 2.0)]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b"null", b"<html>", b" \n<!DOCTYPE html>", b'{"data":3}', b'{"data":[{}]}', b"\xff\xfe\x00",
     b'{"data":[{"timestamp":"1e400","value":"1"}]}', b'{"data":[{"timestamp":"1703980800","value":"Infinity"}]}',
     b'{"data":[{"timestamp":true,"value":"1"}]}', b'{"data":[{"timestamp":"1703980800","value":true}]}',
     b'{"data":[{"timestamp":99999999999999999999999,"value":"1"}]}', b"[" * 100_000],
)  # fmt: skip
@pytest.mark.parametrize("kind", [FearGreed(), CoinMetrics(asset="btc", metric="X"), fred(), Fred(series="X")])
def test_nonsense_is_refused_or_says_nothing(kind, body):
    try:
        rows = read(kind, body, 0).rows
    except DataError as error:
        rows, why = [], str(error)
        assert len(why) < 300
    assert rows == []


@given(body=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode())))
def test_no_bytes_do_more_than_be_refused(body):
    for kind in (FearGreed(), CoinMetrics(asset="btc", metric="X"), fred(vintages=True), CsvUrl(url="http://a/b")):
        try:
            read(kind, body, 0)
        except DataError:
            continue


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2100, 1, 1)))  # noqa: DTZ001 read as UTC
def test_a_time_is_the_same_in_every_spelling(when):
    seconds = int(when.replace(tzinfo=UTC).timestamp())
    wanted = seconds * NS_PER_S
    texts = [when.strftime("%Y-%m-%dT%H:%M:%S") + zone for zone in ("", "Z", ".000000000Z", "+00:00")]
    assert {time_ns(text) for text in texts} == {wanted}
    if seconds > 100_000_000:  # sooner, ms look like seconds
        assert {time_ns(seconds * 10**k) for k in (0, 3, 6, 9)} == {wanted} == {time_ns(str(seconds * 1_000))}


@pytest.mark.parametrize("told", ["1690-02-01", "9999-12-31", "0001-01-01T00:00:00Z", -5 * 10**9, 2**63, str(2**63)])
def test_a_time_beyond_what_64_bits_tell_apart_from_now_is_refused_in_every_spelling(told):
    with pytest.raises(ValueError, match="beyond all time"):
        time_ns(told)


def test_a_vintage_that_is_out_at_the_end_of_time_is_refused():
    with pytest.raises(DataError, match="beyond all time"):
        read(fred(vintages=True), FRED.replace(b'"realtime_start":"2024-01-03"', b'"realtime_start":"9999-12-31"'), 0)


def test_a_value_that_is_none_is_none():
    assert [number(told) for told in ("", ".", "NaN", None, " null ", float("nan"))] == [None] * 6
    assert number(" 1.5e3 ") == 1500.0


@pytest.mark.parametrize(
    ("file", "column", "values", "last"),
    [("fear_greed.csv", "fng", 2_000, 67.0), ("vix.csv", "vix", 2_200, 12.45), ("coinmetrics_btc.csv", "AdrActCnt",
     5_400, 791_644.0), ("fred_DGS10.csv", "value", 10_000, 3.88)],
)  # fmt: skip
def test_recorded_histories_are_read(file, column, values, last):
    rows = read(CsvUrl(url="http://a/b", value_column=column), shared(f"factors/{file}").read_bytes(), 0).rows
    assert len(rows) > values and rows[-1].value == pytest.approx(last, abs=0.01)
    assert all(a.event_ns < b.event_ns for a, b in pairwise(rows))


# --- the store ----------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    with FactorStore(tmp_path / "factors.sqlite") as opened:
        yield opened


NOW = at("2024-01-10T12:00")


def days(first: str, count: int) -> list[Row]:
    return [Row(at(first) + k * NS_PER_DAY, float(k)) for k in range(count)]


def test_a_backfilled_past_is_known_a_margin_after_its_publication_never_before(store):
    store.record("x", days("2024-01-01", 9), NOW, POLICY)
    event = at("2024-01-03")
    assert store.as_of("x", event + 72 * HOUR - 1).event_ns == at("2024-01-02")
    assert store.as_of("x", event + 72 * HOUR).event_ns == event
    assert store.as_of("x", NOW).event_ns == at("2024-01-09")  # received, and published by that


def test_what_its_source_dates_later_than_its_receipt_is_known_only_then(store):
    store.record("x", days("2024-01-01", 3), NOW, POLICY)
    out = NOW + 6 * HOUR
    store.record("x", [Row(at("2024-01-10"), 9.0, out)], NOW, POLICY)
    assert store.as_of("x", out - 1).event_ns == at("2024-01-03")
    assert store.as_of("x", out).event_ns == at("2024-01-10")
    assert [vintage.event_ns for vintage in store.unpublished("x", NOW)] == [at("2024-01-10")]


def test_what_was_received_live_is_known_from_its_receipt(store):
    store.record("x", days("2024-01-01", 5), NOW, POLICY)
    late = NOW + NS_PER_DAY
    store.record("x", days("2024-01-01", 9), late, POLICY)  # the source was silent for four days
    assert store.as_of("x", late - 1).event_ns == at("2024-01-05")
    assert store.as_of("x", late).event_ns == at("2024-01-09")


def test_the_past_as_it_was_known_never_changes(store):
    """Whatever is recorded later: every join made before is made again with the same answer."""
    seen = {}
    for day in range(20):
        now = NOW + day * NS_PER_DAY
        rows = [Row(row.event_ns, row.value + (0.1 * day if k % 3 == day % 3 else 0.0)) for k, row in
                enumerate(days("2024-01-01", 9 + day))]  # fmt: skip
        store.record("x", rows, now, POLICY)
        seen[now] = store.known("x", now, 1_000)
        for then, answer in seen.items():
            assert store.known("x", then, 1_000) == answer


def test_it_survives_a_restart_and_reads_the_same(tmp_path):
    with FactorStore(tmp_path / "f.sqlite") as store:
        store.record("x", days("2024-01-01", 9), NOW, POLICY)
        before = store.vintages("x")
    with FactorStore(tmp_path / "f.sqlite") as again:
        assert again.vintages("x") == before and [held.name for held in again.held()] == ["x"]
        assert again.record("x", days("2024-01-01", 9), NOW + HOUR, POLICY) == []


def test_it_is_bounded(store, monkeypatch):
    monkeypatch.setattr("dea_daemon.shell.factor_store.VALUES_MOST", 50)
    for start in ("2020-01-01", "2020-06-01"):
        store.record("x", days(start, 100), NOW, POLICY)
    kept = store.vintages("x")
    assert len(kept) == 50 and kept[-1].event_ns == at("2020-06-01") + 99 * NS_PER_DAY


def test_what_the_store_has_no_room_for_is_told_neither_at_first_nor_again(store, monkeypatch):
    monkeypatch.setattr("dea_daemon.shell.factor_store.VALUES_MOST", 50)
    told = days("2020-01-01", 70)
    assert [vintage.event_ns for vintage in store.record("x", told, NOW, POLICY)] == [row.event_ns for row in told[20:]]
    assert store.record("x", told, NOW + HOUR, POLICY) == []
    longer = days("2020-01-01", 71)
    assert [vintage.event_ns for vintage in store.record("x", longer, NOW + HOUR, POLICY)] == [longer[-1].event_ns]
    assert [vintage.event_ns for vintage in store.vintages("x")] == [row.event_ns for row in longer[21:]]


def test_what_one_source_cannot_have_written_leaves_the_store_to_the_others(store):
    with pytest.raises(DataError):
        store.record("x", [Row(at("2024-01-01"), 1.0), Row(at("2024-01-02"), 1.0, 2**70)], NOW, POLICY)
    assert store.vintages("x") == [] and len(store.record("y", days("2024-01-01", 3), NOW, POLICY)) == 3
    with pytest.raises(DataError):
        store.record("y", [Row(2**70, 1.0)], NOW, POLICY)


def test_a_backfill_adds_only_what_is_older_than_all_that_was_seen(store):
    store.record("x", days("2024-01-05", 3), NOW, POLICY)
    added = store.backfill("x", days("2024-01-01", 9), NOW, POLICY)
    assert [vintage.event_ns for vintage in added] == [at(f"2024-01-0{day}") for day in (1, 2, 3, 4)]


def test_a_file_of_a_newer_release_or_no_database_is_refused(tmp_path):
    path = tmp_path / "f.sqlite"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(DataError, match="newer release"):
        FactorStore(path)
    path.write_text("words " * 1_000)
    with pytest.raises(DataError):
        FactorStore(path)


def test_a_disk_that_takes_nothing_costs_the_answer_not_the_store(store):
    store.record("x", days("2024-01-01", 3), NOW, POLICY)
    store._db.execute("PRAGMA query_only = 1")
    with pytest.raises(DataError):
        store.record("x", days("2024-01-01", 5), NOW, POLICY)
    store._db.execute("PRAGMA query_only = 0")
    assert len(store.record("x", days("2024-01-01", 5), NOW, POLICY)) == 2
