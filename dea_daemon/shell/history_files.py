"""One file of a history, Parquet or CSV, as arrays and back. Every problem is told with its file, row and remedy."""

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.instruments import FloatArray, IntArray

if TYPE_CHECKING:
    import polars as pl

CANDLE_COLUMNS = ("open", "high", "low", "close", "volume")
FUNDING_COLUMNS = ("funding_rate",)
TRADE_COLUMNS = ("price", "amount")
SUFFIXES = (".parquet", ".csv")
DATES_MEANT = "UTC-aware dates, ISO 8601 with Z or an offset, or whole seconds, ms, µs or ns since 1970"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Any time from 2001 to 2200 is in exactly one of these ranges.
_UNITS_NS = ((10**9, 10**10, 10**9), (10**12, 10**13, 10**6), (10**15, 10**16, 10**3), (10**18, 10**19, 1))


class Table(NamedTuple):
    """Rows of a file: at_ns [T], values [T, C]; not checked, not sorted."""

    at_ns: IntArray
    values: FloatArray


def polars() -> Any:
    """The library. Raises DataError where it is not installed."""
    try:
        import polars
    except ImportError:
        raise DataError("histories need polars: pip install 'dea-daemon[research]'") from None
    return polars


def read_table(path: Path, columns: Sequence[str], assume_utc: bool = False) -> Table:
    """`date` and the columns of a file. A column that is empty somewhere is NaN there.

    Raises DataError: not readable, empty, a column missing, a date or a number that is none. Dates without a time zone
    are refused unless `assume_utc`.
    """
    frame = read_frame(path)
    by_name = {name.strip().lower(): name for name in frame.columns}
    lacking = [name for name in ("date", *columns) if name not in by_name]
    if lacking:
        raise DataError(f"{path}: no column {', '.join(lacking)}; it has {', '.join(frame.columns) or 'none'}")
    if not frame.height:
        raise DataError(f"{path}: it has columns but no rows: delete it, or get it again")
    at_ns = _dates(path, frame[by_name["date"]], assume_utc)
    values = [_numbers(path, frame[by_name[name]]) for name in columns]
    return Table(at_ns, np.column_stack(values))


def read_frame(path: Path) -> "pl.DataFrame":
    """A file as polars has it. Raises DataError, and OSError where it cannot be opened."""
    pl = polars()
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: neither {' nor '.join(SUFFIXES)}")
    with path.open("rb") as file:
        if not file.read(1):
            raise DataError(f"{path}: empty, 0 bytes: delete it, or get it again")
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)  # type: ignore[no-any-return]
        return pl.read_csv(path, infer_schema_length=None, null_values=["", "null", "NULL"])  # type: ignore[no-any-return]
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise DataError(f"{path}: not a {path.suffix[1:]} file that can be read: {first_line}") from error


def write_table(path: Path, table: Table, columns: Sequence[str]) -> None:
    """Replace a file by a table, all or nothing. Raises OSError."""
    pl = polars()
    date = pl.Series("date", table.at_ns).cast(pl.Datetime("ns", "UTC"))
    values = [pl.Series(name, column) for name, column in zip(columns, table.values.T, strict=True)]
    write_frame(path, pl.DataFrame([date, *values]))


def write_frame(path: Path, frame: "pl.DataFrame") -> None:
    """Replace a Parquet file, all or nothing: a process that dies leaves the old one, or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            frame.write_parquet(file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def place(path: Path, row: int) -> str:
    """Where a row (from 0) is, as an editor or a reader counts it."""
    return f"{path}:{row + 2}" if path.suffix == ".csv" else f"{path}: row {row + 1:,}"


# --- columns ------------------------------------------------------------------------------------------------


def _dates(path: Path, column: "pl.Series", assume_utc: bool) -> IntArray:
    """[T] ns, UTC."""
    pl = polars()
    if column.null_count():
        raise DataError(f"{place(path, int(column.is_null().arg_max() or 0))}: no date")
    kind = column.dtype
    if isinstance(kind, pl.Datetime) or kind == pl.Date:
        if getattr(kind, "time_zone", None) is None and not assume_utc:
            raise _naive(path, 0, str(column[0]))
        at_ns = column.cast(pl.Datetime("ns")) if kind == pl.Date else column.dt.cast_time_unit("ns")
        return at_ns.to_physical().to_numpy().astype(np.int64)
    if kind.is_integer():
        return _from_epoch(path, column.cast(pl.Int64).to_numpy())
    if kind == pl.String:
        return _from_text(path, column.to_list(), assume_utc)
    raise DataError(f"{path}: column date is {kind}; wanted {DATES_MEANT}")


def _from_epoch(path: Path, counts: IntArray) -> IntArray:
    first = int(counts[0])
    unit_ns = next((unit for low, high, unit in _UNITS_NS if low <= first < high), 0)
    fits = (counts >= 10**18 // max(unit_ns, 1)) & (counts < 10**19 // max(unit_ns, 1)) if unit_ns else counts < 0
    if not fits.all():
        row = int((~fits).argmax())
        why = "of another unit than the first" if row else "no time since 2001"
        raise DataError(f"{place(path, row)}: date {counts[row]} is {why}; wanted {DATES_MEANT}")
    return counts * unit_ns


def _from_text(path: Path, texts: list[str], assume_utc: bool) -> IntArray:
    at_us = np.empty(len(texts), dtype=np.int64)
    microsecond = timedelta(microseconds=1)
    for row, text in enumerate(texts):
        try:
            date = datetime.fromisoformat(text.strip().removesuffix(" UTC"))
        except ValueError:
            raise DataError(f"{place(path, row)}: {text[:40]!r} is no date; wanted {DATES_MEANT}") from None
        if date.tzinfo is None:
            if not (assume_utc or text.strip().endswith(" UTC")):
                raise _naive(path, row, text)
            date = date.replace(tzinfo=UTC)
        at_us[row] = (date - _EPOCH) // microsecond
    return at_us * 1_000


def _naive(path: Path, row: int, text: str) -> DataError:
    return DataError(
        f"{place(path, row)}: {text[:40]!r} has no time zone. Where the file is in UTC, say so (--utc); "
        "where not, convert it first"
    )


def _numbers(path: Path, column: "pl.Series") -> FloatArray:
    """[T] float64, NaN where there is nothing."""
    pl = polars()
    numbers = column.cast(pl.Float64, strict=False)
    lost = numbers.is_null() & column.is_not_null()
    if lost.any():
        row = int(lost.arg_max() or 0)
        raise DataError(f"{place(path, row)}: {column.name} {str(column[row])[:40]!r} is no number")
    return numbers.fill_null(float("nan")).to_numpy().astype(np.float64)
