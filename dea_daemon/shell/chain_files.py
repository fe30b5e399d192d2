"""A file of recorded option chains, Parquet, as chains to fit. Problems are told with their column and what was meant.

A row is one option at one moment, quoted in coin: what it was worth in USD is its price times its own forward.
"""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S
from dea_daemon.domain.surfaces import Chain
from dea_daemon.research.chains import stamp
from dea_daemon.shell.history_files import polars, read_frame

if TYPE_CHECKING:
    import polars as pl

TICK_COIN = 1e-4
MOMENTS = {"timestamp": "when it was quoted", "expiry_datetime": "when the option expires"}
WORDS = {"currency": "the underlying, such as BTC", "option_type": "call or put"}
NUMBERS = {
    "strike": "USD",
    "underlying": "the forward of its expiry, USD",
    "bid_price": "best bid in coin, empty where nobody bids",
    "ask_price": "best ask in coin, empty where nobody offers",
}
MARK, GROUP = "implied_volatility", "snapshot"  # may be absent: the venue's own volatility, and what was asked together
PERCENT_FROM = 5.0  # a file whose middle volatility is above 500 % means per cent
_COLUMNS = MOMENTS | WORDS | NUMBERS
_NEEDED = ("timestamp", "expiry_datetime", "currency", "call", "strike", "underlying")


class RecordedChain(NamedTuple):
    """A chain, and the venue's own volatility of each of its rows [M]: a fraction, NaN where it is unknown."""

    chain: Chain
    mark_iv: FloatArray


class RecordedChains(NamedTuple):
    """Chains in order of time, then underlying; how many rows of the file made no sense."""

    chains: list[RecordedChain]
    rows: int
    senseless: int


def read_chains(
    path: Path,
    *,
    underlyings: tuple[str, ...] = (),
    from_ns: int | None = None,
    to_ns: int | None = None,
    min_days: float = 1.0,
) -> RecordedChains:
    """Every (snapshot, underlying) of a file, or those named and from `from_ns` up to but not `to_ns`; of options that
    live for `min_days` or longer.

    A chain stood when the last of its rows was quoted. Raises DataError (no Parquet, empty, a column missing or of
    another kind, nothing left), and OSError where it cannot be opened.
    """
    if path.suffix != ".parquet":
        raise DataError(f"{path}: not a .parquet file: recorded chains are read from Parquet")
    told = read_frame(path)
    frame = _typed(path, told)
    good = frame.drop_nulls(_NEEDED).filter((_col("strike") > 0.0) & (_col("underlying") > 0.0))
    chosen = _chosen(path, good, underlyings, from_ns, to_ns)
    groups = chosen.sort(GROUP, "currency", "expiry_datetime", "strike", "call").partition_by(
        GROUP, "currency", maintain_order=True
    )
    chains = [chain for group in groups if (chain := _chain(group, min_days)) is not None]
    if not chains:
        raise DataError(f"{path}: nobody quotes an option of {min_days:g} days or more there")
    return RecordedChains(chains, told.height, told.height - good.height)


def _col(name: str) -> Any:
    return polars().col(name)


# --- columns ----------------------------------------------------------------------------------------------------


def _typed(path: Path, told: "pl.DataFrame") -> "pl.DataFrame":
    """The columns used, of one kind each: moments int64 ns, numbers float64 with NaN as null, `call` true or false."""
    if lacking := [name for name in _COLUMNS if name not in told.columns]:
        raise DataError("\n".join([f"{path}: not a recorded chain:", *_meant(lacking, told.columns)]))
    if not told.height:
        raise DataError(f"{path}: it has columns but no rows")
    columns = [_moment(path, told[name]) for name in MOMENTS]
    columns.append(_moment(path, told[GROUP]) if GROUP in told.columns else columns[0].alias(GROUP))
    columns.append(_word(path, told["currency"]))
    columns.append(_calls(path, told["option_type"]))
    columns += [_number(path, told[name], meant) for name, meant in NUMBERS.items()]
    if MARK in told.columns:
        columns.append(_fraction(_number(path, told[MARK], "the venue's own, a fraction or per cent")))
    frame: pl.DataFrame = polars().DataFrame(columns)
    return frame


def _meant(lacking: list[str], there: list[str]) -> Iterator[str]:
    """A line for each column that is missing: what it is, and which one may be it under another name."""
    for name in lacking:
        near = difflib.get_close_matches(name, [other for other in there if other not in _COLUMNS], 1)
        yield f"  no column {name} ({_COLUMNS[name]})" + (f"; is {near[0]} meant?" if near else "")
    yield f"  it has {', '.join(there) or 'none'}"


def _moment(path: Path, column: "pl.Series") -> "pl.Series":
    pl = polars()
    if not isinstance(column.dtype, pl.Datetime):
        raise DataError(f"{path}: column {column.name}: {column.dtype} where moments with a time zone were expected")
    if column.dtype.time_zone is None:
        raise DataError(f"{path}: column {column.name}: moments without a time zone: write them as UTC")
    return column.dt.epoch("ns")


def _number(path: Path, column: "pl.Series", meant: str) -> "pl.Series":
    empty = column.dtype == polars().Null  # a side nobody quoted at all
    if not (column.dtype.is_numeric() or empty):
        raise DataError(f"{path}: column {column.name}: {column.dtype} where numbers were expected ({meant})")
    values = column.cast(polars().Float64)
    return values.set(~values.is_finite().fill_null(False), None)


def _fraction(mark: "pl.Series") -> "pl.Series":
    known = mark.drop_nulls().to_numpy()
    return mark / 100.0 if len(known) and float(np.median(known)) > PERCENT_FROM else mark


def _word(path: Path, column: "pl.Series") -> "pl.Series":
    if column.dtype not in (polars().String, polars().Categorical, polars().Enum):
        raise DataError(f"{path}: column {column.name}: {column.dtype} where words were expected")
    return column.cast(polars().String)


def _calls(path: Path, column: "pl.Series") -> "pl.Series":
    kinds = _word(path, column).str.to_lowercase()
    known = {"call": True, "c": True, "put": False, "p": False}
    calls = kinds.replace_strict(known, default=None, return_dtype=polars().Boolean).alias("call")
    if calls.null_count() == len(calls):
        raise DataError(f"{path}: column {column.name}: {kinds[0]!r} where call or put was expected")
    return calls


# --- chains -----------------------------------------------------------------------------------------------------


def _chosen(
    path: Path, frame: "pl.DataFrame", underlyings: tuple[str, ...], from_ns: int | None, to_ns: int | None
) -> "pl.DataFrame":
    there = sorted(frame["currency"].unique().to_list())
    if unknown := [name for name in underlyings if name not in there]:
        raise DataError(f"{path}: nothing on {', '.join(unknown)}; it has {', '.join(there) or 'nothing'}")
    if underlyings:
        frame = frame.filter(_col("currency").is_in(underlyings))
    at_ns = frame["timestamp"].to_numpy()
    if from_ns is not None:
        frame = frame.filter(_col("timestamp") >= from_ns)
    if to_ns is not None:
        frame = frame.filter(_col("timestamp") < to_ns)
    if not frame.height:
        span = f"; it goes from {stamp(int(at_ns.min()))} to {stamp(int(at_ns.max()))}" if len(at_ns) else ""
        raise DataError(f"{path}: no usable row in the time asked for{span}")
    return frame


def _chain(group: "pl.DataFrame", min_days: float) -> RecordedChain | None:
    """None where no option of the group lives long enough."""
    utc_ns = int(group["timestamp"].to_numpy().max())
    group = group.filter(_col("expiry_datetime") >= utc_ns + int(min_days * NS_PER_DAY))
    if not group.height:
        return None
    forward = group["underlying"].to_numpy()
    expiry_ns = group["expiry_datetime"].to_list()
    chain = Chain(
        underlying=group["currency"][0],
        utc_ns=utc_ns,
        expiries=tuple(sorted(set(expiry_ns))),
        expiry_ns=tuple(expiry_ns),
        forward=tuple(forward.tolist()),
        strike=tuple(group["strike"].to_list()),
        call=tuple(group["call"].to_list()),
        bid=tuple((group["bid_price"].fill_null(0.0).to_numpy() * forward).tolist()),
        ask=tuple((_with_nan(group["ask_price"]) * forward).tolist()),
        tick=tuple((TICK_COIN * forward).tolist()),
        age_s=tuple(((utc_ns - group["timestamp"].to_numpy()) / NS_PER_S).tolist()),
    )
    mark_iv = _with_nan(group[MARK]) if MARK in group.columns else np.full(group.height, np.nan)
    return RecordedChain(chain, mark_iv)


def _with_nan(column: "pl.Series") -> FloatArray:
    """Nothing, or nothing above zero, is NaN."""
    values = column.fill_null(float("nan")).to_numpy()
    return np.where(values > 0.0, values, np.nan)
