"""How each source of slow factors is asked, and what its answer says. Pure: bytes in, rows out.

Sources of the formats: Coin Metrics API v4, GET /timeseries/asset-metrics; alternative.me, GET /fng/; FRED API, GET
/fred/series/observations, and the CSV of /graph/fredgraph.csv.
"""

import csv
import io
from collections.abc import Iterable
from datetime import UTC, datetime
from heapq import nlargest
from typing import Any, NamedTuple

import msgspec

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.shell.factor_settings import CoinMetrics, CsvUrl, FearGreed, Fred, HttpJson, Source, Table

PAGE = 10_000  # the most Coin Metrics gives; it takes ten questions in six seconds
FRED_MOST = 100_000  # observations in one answer
ROWS_MOST = 20_000  # of one answer, all its pages: the newest
FRED_RELEASED_S = 30 * 3_600  # a vintage is told by its day at St. Louis: it is out by the end of that
NONE = frozenset({"", ".", "nan", "null", "none", "na", "n/a", "#n/a"})
_EPOCHS = ((10**11, NS_PER_S), (10**14, 10**6), (10**17, 10**3))  # seconds, ms, µs, else ns
_NS_MOST = 2**62  # from 1970, both ways: the difference of two times is still 64 bits


class Row(NamedTuple):
    """One value, and when it was published where the source tells that (else 0)."""

    event_ns: int
    value: float
    publish_ns: int = 0


class Page(NamedTuple):
    rows: list[Row]
    next_page: str = ""  # token; none follows


class Request(NamedTuple):
    url: str
    query: dict[str, str]


def request(source: Source, since_ns: int, page: str) -> Request:
    """What to ask for all values from `since_ns` on, or for the page of a token."""
    since = datetime.fromtimestamp(max(since_ns, 0) // NS_PER_S, UTC).strftime("%Y-%m-%d")
    match source:
        case CoinMetrics():
            query = {"assets": source.asset, "metrics": source.metric, "frequency": "1d", "start_time": since}
            query |= {"page_size": str(PAGE), "paging_from": "start"} | ({"next_page_token": page} if page else {})
            return Request(f"{source.url}/timeseries/asset-metrics", query)
        case FearGreed():
            return Request(f"{source.url}/fng/", {"limit": "0", "format": "json"})  # 0: all
        case Fred(api_key=None):
            return Request(f"{source.base_url}/graph/fredgraph.csv", {"id": source.series, "cosd": since})
        case Fred():
            return Request(f"{source.base_url}/fred/series/observations", _fred_query(source, since))
        case HttpJson():
            key = {source.api_key_name: source.api_key.reveal()} if source.api_key else {}
            return Request(source.url, {**source.query, **key})
        case CsvUrl():
            return Request(source.url, dict(source.query))
    raise DataError(f"nothing to ask of {type(source).__name__}")


def _fred_query(source: Fred, since: str) -> dict[str, str]:
    key = source.api_key.reveal() if source.api_key else ""
    query = {"series_id": source.series, "file_type": "json", "observation_start": since, "api_key": key}
    return query | ({"realtime_start": since, "realtime_end": "9999-12-31"} if source.vintages else {})


def read(source: Source, body: bytes, now_ns: int) -> Page:
    """What an answer says, `now_ns` UTC being the time of its receipt. Raises DataError where it makes no sense."""
    if body.lstrip()[:1] == b"<":
        raise DataError("HTML instead of data")
    try:
        match source:
            case CoinMetrics():
                return _coinmetrics(source, _json(body))
            case FearGreed():
                return Page(_fear_greed(_json(body)))
            case Fred(api_key=None):
                return Page(_columns(body, None, source.series))
            case Fred():
                return Page(_fred(source, _json(body)))
            case HttpJson():
                return Page(_own(source, _json(body), now_ns))
            case Table():
                return Page(_columns(body, source.time_column, source.value_column))
    except DataError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, csv.Error, RecursionError) as error:
        raise DataError(f"unreadable: {type(error).__name__}: {str(error)[:120]}") from error
    raise DataError(f"no format for {type(source).__name__}")


def newest(rows: list[Row]) -> list[Row]:
    """At most ROWS_MOST of them: those about the latest times."""
    return rows if len(rows) <= ROWS_MOST else nlargest(ROWS_MOST, rows, key=lambda row: row.event_ns)


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise DataError(f"no JSON: {str(error)[:80]}") from error


def _coinmetrics(source: CoinMetrics, told: Any) -> Page:
    rows = [row for row in told["data"] if row["asset"] == source.asset]
    if len(rows) != len(told["data"]):
        raise DataError("of another asset than was asked for")
    return Page(_told((row["time"], row.get(source.metric)) for row in rows), str(told.get("next_page_token") or ""))


def _fear_greed(told: Any) -> list[Row]:
    """Newest first, day and value as text; what went wrong there is told with status 200."""
    if (error := (told.get("metadata") or {}).get("error")) is not None:
        raise DataError(f"its error: {str(error)[:80]}")
    return _told((row["timestamp"], row["value"]) for row in told["data"])


def _fred(source: Fred, told: Any) -> list[Row]:
    """By default each value as it is known today; with vintages, each as it was told, on the day it was."""
    rows = told["observations"]
    if int(told.get("count", len(rows))) > len(rows) or len(rows) >= FRED_MOST:
        raise DataError("more observations than one answer holds: ask for fewer days")
    if not source.vintages:
        return _told((row["date"], row["value"]) for row in rows)
    released = [time_ns(row["realtime_start"]) + FRED_RELEASED_S * NS_PER_S for row in rows]
    values = [(time_ns(row["date"]), number(row["value"])) for row in rows]
    found = [Row(at, value, out) for (at, value), out in zip(values, released, strict=True) if value is not None]
    return sorted(found, key=lambda row: (row.publish_ns, row.event_ns))


def _own(source: HttpJson, told: Any, now_ns: int) -> list[Row]:
    found = _along(told, source.rows)
    rows = found if isinstance(found, list) else [found]
    times = (now_ns if source.time is None else _along(row, source.time) for row in rows)
    return _told(zip(times, (_along(row, source.value) for row in rows), strict=True))


def _along(value: Any, path: str) -> Any:
    for part in filter(None, path.split(".")):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def _columns(body: bytes, time_column: str | None, value_column: str | None) -> list[Row]:
    """Two columns of a CSV with a head."""
    lines = csv.reader(io.StringIO(body.decode("utf-8-sig")))
    head = [cell.strip() for cell in next(lines, [])]
    at, of = _column(head, time_column, 0), _column(head, value_column, 1)
    return _told((line[at], line[of]) for line in lines if any(cell.strip() for cell in line))


def _column(head: list[str], name: str | None, otherwise: int) -> int:
    if name is None and len(head) > otherwise:
        return otherwise
    if name not in head:
        raise DataError(f"no column {name or otherwise + 1} among {', '.join(head[:10])[:120]}")
    return head.index(name)


def _told(pairs: Iterable[tuple[Any, Any]]) -> list[Row]:
    """(time, value) pairs in order of time; those without a value left out, of two about one time the last counts."""
    values = {time_ns(at): number(value) for at, value in pairs}
    return [Row(at, value) for at, value in sorted(values.items()) if value is not None]


def time_ns(told: Any) -> int:
    """UTC ns of an ISO date or time (without a zone: UTC), or of a number since 1970. Raises ValueError, TypeError."""
    if isinstance(told, str) and not (told.strip().isdigit() and len(told.strip()) >= 9):
        when = datetime.fromisoformat(told.strip())
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return _bounded(int((when - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * NS_PER_S)
    if isinstance(told, bool):
        raise TypeError("a time is no truth")
    since = int(told)
    unit = next((unit for below, unit in _EPOCHS if abs(since) < below), 1)
    return _bounded(since * unit)


def _bounded(at_ns: int) -> int:
    if abs(at_ns) > _NS_MOST:
        raise ValueError("beyond all time")
    return at_ns


def number(told: Any) -> float | None:
    """A finite value, as a number or in text; None where the source says that there is none. Raises ValueError."""
    if told is None or (isinstance(told, str) and told.strip().lower() in NONE):
        return None
    if isinstance(told, bool):
        raise TypeError("a value is no truth")
    value = float(told)
    if value != value:
        return None
    if not abs(value) < float("inf"):
        raise ValueError("an infinite value")
    return value
