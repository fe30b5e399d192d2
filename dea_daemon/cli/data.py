"""`dea-daemon data`: bring a history in, look at what is wrong with it, download more of it; what slow factors said."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dea_daemon.cli.base import FILE, cli, json_option

if TYPE_CHECKING:
    from dea_daemon.shell.factor_store import FactorStore
    from dea_daemon.shell.history import Checked, Series, Written
    from dea_daemon.shell.history_download import Source

FATAL = 1  # exit code of `data check` where a backtest would be a lie
KINDS = ("spot", "perp", "mark", "funding")
WHAT = ("candles", "funding", "trades", "instruments", "options")
WIDTH = 150  # cells, where the table goes to no terminal

_folder = click.option("--dir", "folder", type=FILE, default=Path("data"), show_default=True, help="The history.")
_utc = click.option("--utc", "assume_utc", is_flag=True, help="Dates without a time zone are UTC.")


@cli.group()
def data() -> None:
    """Import, check and download histories of candles and funding rates."""


# --- import -------------------------------------------------------------------------------------------------


@data.command("import")
@click.argument("sources", nargs=-1, required=True, type=FILE)
@_folder
@click.option("--venue", help="Whose they are, where a file's name does not tell.")
@click.option("--kind", type=click.Choice(KINDS), help="Likewise.")
@click.option("--symbol", help="Likewise, such as BTCUSDT.")
@click.option("--interval", metavar="15m|1h|1d|…", help="Likewise.")
@_utc
@click.option("--drop-bad", is_flag=True, help="Leave bad candles out, as gaps, instead of refusing the file.")
@json_option
def import_(
    sources: tuple[Path, ...], folder: Path, assume_utc: bool, drop_bad: bool, json_lines: bool, **named: str | None
) -> None:
    """Add files or folders, Parquet or CSV, to a history. The same again changes nothing.

    Columns: date, open, high, low, close, volume; or date, funding_rate. Names that tell what is inside:
    binance_perp_BTCUSDT_1h.parquet, binance_BTCUSDT_funding_8h.csv.
    """
    from dea_daemon.shell.history import import_series

    with _alone(folder):
        for source in sources:
            for series in _series(source, **named):
                written = import_series(series, folder, assume_utc=assume_utc, drop_bad=drop_bad)
                _tell_written(series.name, written, folder, json_lines)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else adds to the folder meanwhile: two would write each other's rows away. LedgerError if one does.

    What is said of it on the way (rows mended, requests tried again) goes to stderr."""
    from dea_daemon.shell import logs
    from dea_daemon.shell.lock import InstanceLock

    logs.configure()
    folder.mkdir(parents=True, exist_ok=True)
    lock = InstanceLock(folder / ".lock")
    try:
        yield
    finally:
        lock.release()
        logs.flush()


def _series(
    source: Path, venue: str | None, kind: str | None, symbol: str | None, interval: str | None
) -> "list[Series]":
    """What a file or folder holds, by its names unless it was said. Raises DataError."""
    from dea_daemon.domain.errors import DataError
    from dea_daemon.shell.history import Series, find_series, series_of

    def told(by_name: Series) -> Series:
        of = kind or by_name.kind
        length = "" if of == "funding" else interval or by_name.interval
        return Series(venue or by_name.venue, of, symbol or by_name.symbol, length, by_name.files)

    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    if source.is_dir():
        return [told(by_name) for by_name in find_series(source)]
    series = told(series_of(source) or Series("", "", "", "", (source,)))
    wanted = ("venue", "kind", "symbol") + (() if series.kind == "funding" else ("interval",))
    if lacking := [f"--{name}" for name in wanted if not getattr(series, name)]:
        raise DataError(f"{source}: its name does not tell what is inside: give {', '.join(lacking)}")
    return [series]


def _tell_written(name: str, written: "Written", folder: Path, json_lines: bool) -> None:
    from dea_daemon.shell.output import emit, say

    if json_lines:
        emit({"series": name, "added": written.added, "replaced": written.replaced})
        return
    replaced = f", {written.replaced:,} replaced by other numbers" if written.replaced else ""
    say(f"{name}: {written.added:,} rows added{replaced}, in {folder}")


# --- join ---------------------------------------------------------------------------------------------------


@data.command()
@_folder
@click.option("--interval", default="1m", show_default=True, metavar="1s|1m|1h|…", help="Of the candles.")
@json_option
def join(folder: Path, interval: str, json_lines: bool) -> None:
    """Make candles of the trades that were downloaded. An interval without a trade stays a gap."""
    from dea_daemon.shell.history import join_trades

    with _alone(folder):
        for name, written in join_trades(folder, interval):
            _tell_written(name, written, folder, json_lines)


# --- check --------------------------------------------------------------------------------------------------


@data.command()
@click.argument("folder", type=FILE)
@_utc
@json_option
def check(folder: Path, assume_utc: bool, json_lines: bool) -> int:
    """What is wrong with a history: gaps, duplicates, absurd prices, wrong steps and zones. Exit 1 if it is fatal."""
    from dea_daemon.shell import history
    from dea_daemon.shell.output import emit, say
    from dea_daemon.shell.progress import progress

    found = history.find_series(folder)
    results = []
    with progress("checking", show=not json_lines, total=len(found)) as advance:
        for series in found:
            results.append(history.check(series, assume_utc))
            advance(1)
    if json_lines:
        for checked in results:
            emit(_as_json(checked))
    else:
        say(*_lines(results))
    return FATAL if any(checked.fatal for checked in results) else 0


def _as_json(checked: "Checked") -> dict[str, Any]:
    series = checked.series
    return {
        **{name: getattr(series, name) for name in ("venue", "kind", "symbol", "interval")},
        **{name: getattr(checked, name) for name in ("rows", "first_ns", "last_ns", "missing", "fatal")},
        "findings": [finding._asdict() for finding in checked.findings],
    }


def _lines(results: "list[Checked]") -> list[str]:
    """A table of the series, what was found in each, and a verdict."""
    import sys
    from io import StringIO

    from rich.console import Console

    on_terminal = sys.stdout.isatty()
    width = None if on_terminal else WIDTH
    console = Console(file=StringIO(), force_terminal=on_terminal, width=width, highlight=False)
    with console.capture() as capture:
        for part in _parts(results):
            console.print(part)
    return [line.rstrip() for line in capture.get().rstrip("\n").split("\n")]


def _parts(results: "list[Checked]") -> Iterator[Any]:
    from rich.table import Table
    from rich.text import Text

    from dea_daemon.research.quality import date_of

    table = Table(header_style="bright_black", box=None, padding=(0, 2, 0, 0))
    for name in ("series", "rows", "from", "to", "missing", "found"):
        table.add_column(name, justify="right" if name in ("rows", "missing") else "left", no_wrap=name != "found")
    for checked in results:
        span = [date_of(ns)[:10] if checked.rows else "" for ns in (checked.first_ns, checked.last_ns)]
        missing = f"{checked.missing:,}" if checked.missing else ""
        table.add_row(checked.series.name, f"{checked.rows:,}", *span, missing, Text.from_markup(_verdict(checked)))
    yield table
    yield ""
    for checked in results:
        for finding in checked.findings:
            when = f", first {date_of(finding.first_ns)}" if finding.first_ns else ""
            told = f"{checked.series.name}: {finding.what} × {finding.count:,}{when}: {finding.why}"
            yield Text(told, style="red" if finding.fatal else "")
    fatal = sum(checked.fatal for checked in results)
    if fatal:
        yield Text(f"{fatal} of {len(results)} series cannot be used as they are.", style="bold red")
    else:
        yield Text(f"{len(results)} series can be used.", style="bold green")


def _verdict(checked: "Checked") -> str:
    if not checked.findings:
        return "[green]clean[/]"
    names = ", ".join(dict.fromkeys(finding.what for finding in checked.findings))
    return f"[red]{names}[/]" if checked.fatal else f"[yellow]{names}[/]"


# --- download -----------------------------------------------------------------------------------------------


def _time(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A date as ms, UTC where it does not say."""
    if value is None:
        return None
    try:
        date = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r}: expected a date such as 2021-01-01 or 2021-01-01T08:00.") from None
    return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1_000)


@data.command()
@click.argument("what", type=click.Choice(WHAT))
@click.argument("symbols", nargs=-1)
@click.option("--venue", type=click.Choice(("deribit", "binanceusdm")), default="deribit", show_default=True)
@_folder
@click.option("--since", callback=_time, metavar="DATE", help="From then, UTC.")
@click.option("--until", callback=_time, metavar="DATE", help="Up to but not then.  [default: now]")
@click.option("--interval", default="1h", show_default=True, help="Of candles.")
@click.option("--mark", is_flag=True, help="Candles of the mark price (binanceusdm).")
@click.option("--again", is_flag=True, help="Ask for what is there already, too.")
@click.option("--url", help="A simulated venue instead, on loopback.")
@json_option
def download(
    what: str, symbols: tuple[str, ...], venue: str, folder: Path, url: str | None, json_lines: bool, **asked: Any
) -> None:
    """Get WHAT of SYMBOLS from a venue's public side; stopped, the same command goes on where it was.

    SYMBOLS are the venue's own names, BTC-PERPETUAL or BTCUSDT; currencies for options; none for instruments. Options
    are told as they are now: run it on a timer.
    """
    import asyncio

    if what in ("candles", "funding", "trades") and asked["since"] is None:
        raise click.UsageError(f"{what} of which time? Give --since, such as --since 2021-01-01")
    if bool(symbols) == (what == "instruments"):
        raise click.UsageError("instruments are all listed: name none" if symbols else f"{what} of what? Name some")
    with _alone(folder):
        asyncio.run(_download(what, symbols, venue, folder, url, json_lines, asked))


async def _download(
    what: str, symbols: tuple[str, ...], venue: str, folder: Path, url: str | None, json_lines: bool, asked: Any
) -> None:
    from dea_daemon.shell.history_download import open_source

    async with open_source(venue, url) as source:
        for symbol in symbols or ("",):
            written = await _one(source, what, symbol, folder, asked, show=not json_lines)
            _tell_written(" ".join((venue, what, symbol)).strip(), written, folder, json_lines)


async def _one(source: "Source", what: str, symbol: str, folder: Path, asked: Any, show: bool) -> "Written":
    from dea_daemon.shell import history_download as downloads
    from dea_daemon.shell.history import interval_ns
    from dea_daemon.shell.progress import progress

    if what == "instruments":
        return await downloads.download_instruments(source, folder)
    if what == "options":
        return await downloads.download_options(source, folder, symbol)
    times = downloads.Asked(symbol, asked["since"], asked["until"] or 0, asked["again"])
    span_ms = max(0, (times.until_ms or await source.now_ms()) - times.since_ms)
    unit_ms = {"candles": interval_ns(asked["interval"]) // 10**6, "funding": 3_600_000, "trades": 60_000}[what]
    with progress(f"{what} of {symbol}", show, total=span_ms // unit_ms) as advance:
        if what == "candles":
            interval, mark = asked["interval"], asked["mark"]
            return await downloads.download_candles(source, folder, times, interval, mark, advance)
        if what == "funding":
            return await downloads.download_funding(source, folder, times, advance)
        return await downloads.download_trades(source, folder, times, advance)


# --- factors ------------------------------------------------------------------------------------------------

_state = click.option("--state-dir", type=FILE, default=Path("var"), show_default=True, help="Of the run.")


@data.group()
def factors() -> None:
    """What slow factors have said, and when it was known: the store in the state directory of a run."""


@contextmanager
def _store(state_dir: Path, new: bool = False) -> "Iterator[FactorStore]":
    from dea_daemon.shell.factor_store import FILE_NAME, FactorStore

    path = state_dir / FILE_NAME
    if not (new or path.exists()):
        raise FileNotFoundError(f"{path}: no factor was kept here")
    with FactorStore(path) as store:
        yield store


def _day(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M")


@factors.command()
@_state
@json_option
def show(state_dir: Path, json_lines: bool) -> None:
    """Each factor: how many values, of which time, how many restatements, the last receipt."""
    from dea_daemon.shell.output import emit, say

    with _store(state_dir) as store:
        found = store.held()
    if json_lines:
        for held in found:
            emit(held._asdict())
        return
    say(f"{'factor':<20} {'values':>7} {'restated':>8}  {'from':<16}  {'to':<16}  received")
    for name, values, first_ns, last_ns, restated, receive_ns in found:
        when = "  ".join(_day(ns) for ns in (first_ns, last_ns, receive_ns))
        say(f"{name:<20} {values:>7,} {restated:>8,}  {when}")


@factors.command("check")
@_state
@json_option
def check_factors(state_dir: Path, json_lines: bool) -> int:
    """Whether the records can be believed: nothing in them was known before it could be. Exit 1 if something was."""
    from dea_daemon.shell.output import emit, say

    with _store(state_dir) as store:
        found = {held.name: store.flaws(held.name) for held in store.held()}
    for name, flaws in found.items():
        if json_lines:
            emit({"factor": name, "flaws": flaws})
        else:
            say(f"{name}: {'; '.join(flaws) or 'clean'}")
    return FATAL if any(found.values()) else 0


@factors.command("import")
@click.argument("name")
@click.argument("file", type=FILE)
@_state
@click.option("--time-column", help="Of the time a value is about.  [default: the first]")
@click.option("--value-column", help="Of the value.  [default: the second]")
@click.option("--lag-h", type=click.FloatRange(min=0), default=48.0, show_default=True, help="Until it is published.")
@click.option("--margin-h", type=click.FloatRange(min=0), default=24.0, show_default=True, help="Until it is known.")
@json_option
def import_factor(
    name: str,
    file: Path,
    state_dir: Path,
    time_column: str | None,
    value_column: str | None,
    lag_h: float,
    margin_h: float,
    json_lines: bool,
) -> None:
    """Add the past of factor NAME from a CSV: what is older than all that is kept of it. Nothing kept is changed."""
    from dea_daemon.shell.clock import Clock
    from dea_daemon.shell.factor_formats import read
    from dea_daemon.shell.factor_settings import WatchedFile
    from dea_daemon.shell.factors import policy_of
    from dea_daemon.shell.output import emit, say

    source = WatchedFile(
        path=file, time_column=time_column, value_column=value_column, lag_h=lag_h, backfill_lag_h=margin_h
    )
    now_ns = Clock().utc_ns()
    found = read(source, file.read_bytes(), now_ns).rows
    rows = [row for row in found if row.event_ns <= now_ns]
    state_dir.mkdir(parents=True, exist_ok=True)
    with _store(state_dir, new=True) as store:
        others = [held.name for held in store.held()]
        added = store.backfill(name, rows, now_ns, policy_of(source))
    if json_lines:
        emit({"factor": name, "added": len(added), "left_out": len(found) - len(added), "new": name not in others})
    else:
        say(f"{name}: {len(added):,} values added, {len(rows) - len(added):,} are not older than what is kept")
        if len(found) > len(rows):
            say(f"{len(found) - len(rows):,} are of a time still to come, and left out")
        if others and name not in others:
            say(f"{name} is new; there were {', '.join(others)}")
