"""A folder of candles and funding rates: found by its names, read, checked, and added to.

Two layouts, mixed as you like, Parquet or CSV:
  candles/VENUE/KIND/SYMBOL/1h/2021.parquet and funding/VENUE/SYMBOL/2021.parquet, a file a year, which we write;
  VENUE_KIND_SYMBOL_1h.parquet and VENUE_SYMBOL_funding_8h.parquet, one file a series, which others do.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import structlog

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.instruments import BoolArray, FloatArray
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.research import quality
from dea_daemon.research.candles import Candles, Finding, FundingRates, History, Market, from_trades
from dea_daemon.shell.history_files import (
    CANDLE_COLUMNS,
    FUNDING_COLUMNS,
    SUFFIXES,
    TRADE_COLUMNS,
    Table,
    place,
    read_table,
    write_table,
)

log = structlog.get_logger()

KINDS = ("spot", "perp", "mark")
LAYOUT = "candles/VENUE/KIND/SYMBOL/1h/2021.parquet, VENUE_KIND_SYMBOL_1h.parquet or VENUE_SYMBOL_funding_8h.parquet"
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CANDLE_FILE = re.compile(r"([A-Za-z0-9]+)_(spot|perp|mark)_([A-Za-z0-9._-]+)_(\d+[smhdw])")
_FUNDING_FILE = re.compile(r"([A-Za-z0-9]+)_([A-Za-z0-9._-]+)_funding(?:_\d+[smhdw])?")


class Series(NamedTuple):
    """One series of a folder and its files, oldest first. kind "funding" has no interval."""

    venue: str
    kind: str
    symbol: str
    interval: str
    files: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.venue, self.kind, self.symbol, self.interval) if part)

    @property
    def market(self) -> Market:
        return Market(self.venue, self.kind, self.symbol)


class Checked(NamedTuple):
    """What a series holds and what is wrong with it. Times are 0 where it cannot be read."""

    series: Series
    rows: int
    first_ns: int
    last_ns: int
    missing: int
    findings: list[Finding]

    @property
    def fatal(self) -> bool:
        return any(finding.fatal for finding in self.findings)


class Written(NamedTuple):
    """What a write changed: rows that are new, and rows that were there with other numbers."""

    added: int
    replaced: int


def open_history(
    folder: Path,
    markets: Collection[Market] | None = None,
    *,
    interval: str | None = None,
    assume_utc: bool = False,
    drop_bad: bool = False,
) -> History:
    """The candles of the markets (None: all there are) and their funding.

    What can be mended is, and logged: order, exact duplicates, volumes that are none; with `drop_bad` bad candles
    become gaps. Gaps are never filled. Raises DataError, with file and row, for what would make a backtest a lie; for a
    market that is not there; for one in several intervals where `interval` tells none.
    """
    found = find_series(folder)
    candles = {
        series.market: _usable_candles(series, assume_utc, drop_bad)
        for series in found
        if series.kind != "funding"
        and (markets is None or series.market in markets)
        and (interval is None or series.interval == interval)
        and _is_only_one(series, found, interval)
    }
    lacking = [market for market in markets or () if market not in candles]
    if lacking or not candles:
        wanted = ", ".join("_".join(market) for market in lacking) or "candles"
        there = ", ".join(series.name for series in found)
        raise DataError(f"{folder}: no {wanted}{f' of {interval}' if interval else ''}; it has {there}")
    paid = {(market.venue, market.symbol) for market in candles}
    funding = {
        (series.venue, series.symbol): _usable_funding(series, assume_utc, drop_bad)
        for series in found
        if series.kind == "funding" and (markets is None or (series.venue, series.symbol) in paid)
    }
    return History(candles, funding)


def _is_only_one(series: Series, found: Sequence[Series], interval: str | None) -> bool:
    others = [other.interval for other in found if other.kind != "funding" and other.market == series.market]
    if interval is None and len(others) > 1:
        raise DataError(f"{'_'.join(series.market)} is there in {', '.join(others)}: say which interval")
    return True


# --- finding ------------------------------------------------------------------------------------------------


def find_series(folder: Path) -> list[Series]:
    """What a folder holds, by name. Raises DataError where it holds nothing, or a series in both layouts."""
    if not folder.is_dir():
        raise DataError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    found = [*_by_year(folder), *_flat(folder)]
    if not found:
        raise DataError(f"{folder}: no history here; wanted {LAYOUT}")
    seen: dict[tuple[str, ...], Series] = {}
    for series in found:
        key = series[:2] + series[2:4]
        if key in seen:
            raise DataError(f"{series.name} is there twice: {seen[key].files[0]} and {series.files[0]}")
        seen[key] = series
    return sorted(found)


def _by_year(folder: Path) -> Iterator[Series]:
    for kind in KINDS:
        for place_of in sorted(folder.glob(f"candles/*/{kind}/*/*/")):
            venue, _, symbol, interval = place_of.relative_to(folder / "candles").parts
            if files := _years(place_of):
                yield Series(venue, kind, symbol, interval, files)
    for place_of in sorted(folder.glob("funding/*/*/")):
        venue, symbol = place_of.relative_to(folder / "funding").parts
        if files := _years(place_of):
            yield Series(venue, "funding", symbol, "", files)


def _years(place_of: Path) -> tuple[Path, ...]:
    return tuple(file for file in sorted(place_of.iterdir()) if file.suffix in SUFFIXES and file.stem.isdigit())


def _flat(folder: Path) -> Iterator[Series]:
    for file in sorted(folder.iterdir()):
        if file.suffix in SUFFIXES and (series := series_of(file)):
            yield series


def series_of(file: Path) -> Series | None:
    """What a file's name tells; None where it tells nothing."""
    if told := _CANDLE_FILE.fullmatch(file.stem):
        return Series(told[1], told[2], told[3], told[4], (file,))
    if told := _FUNDING_FILE.fullmatch(file.stem):
        return Series(told[1], "funding", told[2], "", (file,))
    return None


def interval_ns(interval: str) -> int:
    """ "15m", "1h", "1d" → ns. Raises DataError."""
    told = re.fullmatch(r"([1-9]\d*)([smhdw])", interval)
    if told is None:
        raise DataError(f"interval {interval!r}: wanted a number and one of s, m, h, d, w, such as 1h")
    return int(told[1]) * _UNITS_S[told[2]] * NS_PER_S


# --- reading ------------------------------------------------------------------------------------------------


def read_candles(series: Series, assume_utc: bool = False) -> Candles:
    """As they are in the files: nothing sorted, nothing judged. Raises DataError, and OSError."""
    at_ns, values = _read(series, CANDLE_COLUMNS, assume_utc)
    return Candles(interval_ns(series.interval), at_ns, *values.T.copy())


def read_funding(series: Series, assume_utc: bool = False) -> FundingRates:
    """Likewise."""
    at_ns, values = _read(series, FUNDING_COLUMNS, assume_utc)
    return FundingRates(at_ns, values[:, 0])


def _read(series: Series, columns: Sequence[str], assume_utc: bool) -> Table:
    tables = [read_table(file, columns, assume_utc) for file in series.files]
    return Table(np.concatenate([t.at_ns for t in tables]), np.concatenate([t.values for t in tables]))


def _usable_candles(series: Series, assume_utc: bool, drop_bad: bool) -> Candles:
    candles, mended = quality.cleaned(read_candles(series, assume_utc), drop_bad)
    _judge(series, mended, quality.findings(candles), assume_utc)
    return candles


def _usable_funding(series: Series, assume_utc: bool, drop_bad: bool) -> FundingRates:
    rates, mended = quality.cleaned_funding(read_funding(series, assume_utc), drop_bad)
    _judge(series, mended, quality.funding_findings(rates), assume_utc)
    return rates


def _judge(series: Series, mended: list[Finding], found: list[Finding], assume_utc: bool) -> None:
    """Log what was mended; raise for what cannot be."""
    for finding in (finding for finding in mended if not finding.fatal):
        log.warning("history.mended", series=series.name, what=finding.what, count=finding.count, why=finding.why)
    fatal = next((finding for finding in found if finding.fatal), None)
    if fatal is not None:
        more = f" ({fatal.count:,} such rows)" if fatal.count > 1 else ""
        where = _where(series, fatal.first_ns, assume_utc)
        raise DataError(f"{where}: {quality.date_of(fatal.first_ns)}: {fatal.what}: {fatal.why}{more}")


def _where(series: Series, at_ns: int, assume_utc: bool) -> str:
    """The file and row of a time; the files are read again, for only an error asks."""
    columns = FUNDING_COLUMNS if series.kind == "funding" else CANDLE_COLUMNS
    for file in series.files:
        apart = np.abs(read_table(file, columns, assume_utc).at_ns - at_ns)
        if apart.size and apart.min() <= NS_PER_S:  # cleaned funding may have moved by its jitter
            return place(file, int(apart.argmin()))
    return str(series.files[0])


# --- checking -----------------------------------------------------------------------------------------------


def check(series: Series, assume_utc: bool = False) -> Checked:
    """A series as it lies there; what cannot be read is a finding too."""
    try:
        if series.kind == "funding":
            rates = read_funding(series, assume_utc)
            at_ns, lacking, found = rates.at_ns, 0, quality.funding_findings(rates)
        else:
            candles = read_candles(series, assume_utc)
            at_ns, lacking, found = candles.open_ns, quality.missing(candles), quality.findings(candles)
    except (DataError, OSError) as error:
        return Checked(series, 0, 0, 0, 0, [Finding("unreadable", 1, 0, str(error), fatal=True)])
    return Checked(series, at_ns.size, int(at_ns.min()), int(at_ns.max()), lacking, found)


# --- writing ------------------------------------------------------------------------------------------------


def import_series(series: Series, folder: Path, *, assume_utc: bool = False, drop_bad: bool = False) -> Written:
    """Another folder's or file's series, mended where it can be, into ours. Raises as `open_history` does."""
    if series.kind == "funding":
        rates = _usable_funding(series, assume_utc, drop_bad)
        return write_funding(folder, series.venue, series.symbol, rates)
    candles = _usable_candles(series, assume_utc, drop_bad)
    return write_candles(folder, series.market, series.interval, candles)


def join_trades(folder: Path, interval: str) -> Iterator[tuple[str, Written]]:
    """Candles of every series of trades that was downloaded into the folder, added to it as its perpetuals'. Raises
    DataError where there are none."""
    step_ns, places = interval_ns(interval), sorted(folder.glob("trades/*/*/"))
    if not places:
        raise DataError(f"{folder}: no trades here; wanted trades/VENUE/SYMBOL/2021-07-22.parquet")
    for place_of in places:
        venue, symbol = place_of.relative_to(folder / "trades").parts
        tables = [read_table(file, TRADE_COLUMNS) for file in sorted(place_of.glob("*.parquet"))]
        at_ns = np.concatenate([table.at_ns for table in tables])
        order = np.argsort(at_ns, kind="stable")
        price, amount = np.concatenate([table.values for table in tables])[order].T
        market = Market(venue, "perp", symbol)
        written = write_candles(folder, market, interval, from_trades(at_ns[order], price, amount, step_ns))
        yield f"{venue}_perp_{symbol}_{interval}", written


def write_candles(folder: Path, market: Market, interval: str, candles: Candles) -> Written:
    """Add candles to a folder's files of years. The same again changes nothing; other numbers replace what was there.

    Raises DataError for a name that cannot be a folder's, OSError.
    """
    if market.kind not in KINDS:
        raise DataError(f"kind {market.kind!r}: wanted {', '.join(KINDS)}")
    to = candles_folder(folder, market, interval)
    return _add(to, Table(candles.open_ns, np.column_stack(candles[2:])), CANDLE_COLUMNS)


def write_funding(folder: Path, venue: str, symbol: str, rates: FundingRates) -> Written:
    """Likewise."""
    return _add(funding_folder(folder, venue, symbol), Table(rates.at_ns, rates.rate[:, None]), FUNDING_COLUMNS)


def candles_folder(folder: Path, market: Market, interval: str) -> Path:
    """Where a market's years are. Raises DataError for a part that is no plain name."""
    return folder.joinpath("candles", *map(plain_name, (*market, interval)))


def funding_folder(folder: Path, venue: str, symbol: str) -> Path:
    """Likewise."""
    return folder.joinpath("funding", plain_name(venue), plain_name(symbol))


def plain_name(part: str) -> str:
    """The part, if it can be a folder's name. Raises DataError."""
    if not _PART.fullmatch(part):
        raise DataError(f"{part!r} cannot be part of a file's name: letters, digits, '.', '_' and '-' only")
    return part


def _add(to: Path, table: Table, columns: Sequence[str]) -> Written:
    years = table.at_ns.astype("datetime64[ns]").astype("datetime64[Y]").astype(np.int64) + 1970
    added = replaced = 0
    for year in np.unique(years):
        file = to / f"{year}.parquet"
        mine = Table(table.at_ns[years == year], table.values[years == year])
        there = read_table(file, columns) if file.exists() else Table(mine.at_ns[:0], mine.values[:0])
        merged = _merged(there, mine)
        new = merged.at_ns.size - there.at_ns.size
        at = np.searchsorted(merged.at_ns, there.at_ns)
        changed = ~_same(merged.values[at], there.values)
        if new or changed.any():
            write_table(file, merged, columns)
        added, replaced = added + new, replaced + int(changed.sum())
    return Written(added, replaced)


def _merged(there: Table, mine: Table) -> Table:
    """Sorted, one row a time, the later word counting."""
    at_ns = np.concatenate((there.at_ns, mine.at_ns))
    order = np.argsort(at_ns, kind="stable")
    last = np.append(np.diff(at_ns[order]) > 0, True)
    chosen = order[last]
    return Table(at_ns[chosen], np.concatenate((there.values, mine.values))[chosen])


def _same(left: FloatArray, right: FloatArray) -> BoolArray:
    return np.asarray(((left == right) | (np.isnan(left) & np.isnan(right))).all(axis=1))
