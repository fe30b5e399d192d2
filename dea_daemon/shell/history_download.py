"""A venue's public past into a folder, through ccxt: candles, funding rates, trades, contracts, option summaries.

A download that was stopped, or killed, goes on where it was: beside each series lies which times have been asked for,
written only after what was answered. What is not final (the candle that is still open) is never stored.
"""

import asyncio
import difflib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import numpy as np
import structlog
from asyncio_throttle import Throttler

from dea_daemon.domain.errors import DataError, OutcomeUnknown, RateLimited, Rejected, VenueError
from dea_daemon.domain.instruments import IntArray
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.research.candles import Candles, FundingRates, Market
from dea_daemon.shell.candle_pages import Page, candle_page
from dea_daemon.shell.ccxt_client import Client, check_url, urls_of, venue_error
from dea_daemon.shell.history import (
    Written,
    candles_folder,
    funding_folder,
    interval_ns,
    plain_name,
    write_candles,
    write_funding,
)
from dea_daemon.shell.history_files import polars, read_frame, write_frame

log = structlog.get_logger()
Advance = Callable[[int], None]
Span = tuple[int, int]  # ms, from … up to but not …

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
PAGE = 1_000  # rows: what both venues give at once
PAGES_HELD = 20  # between writes: what a kill can lose
SETTLE_MS = 5_000  # a candle is final this long after its end
TRIES = 6
PAUSE_S = 1.0  # after the first failure, then twice as long each time
TIMEOUT_MS = 20_000


class Terms(NamedTuple):
    """What a venue allows and how it is named in a folder."""

    folder: str
    requests_per_s: float
    funding_per_s: float
    funding_window_ms: int  # one answer holds it
    trades_window_ms: int


# Deribit: public calls share a bucket that refills at 20 a second. Binance: 2,400 weight a minute, 5 a page of
# candles and 20 of trades; 500 questions for funding in five minutes; trades an hour at a time.
VENUES: Mapping[str, Terms] = {
    "deribit": Terms("deribit", 5.0, 5.0, 30 * DAY_MS, DAY_MS),
    "binanceusdm": Terms("binance", 1.8, 1.5, 30 * DAY_MS, HOUR_MS),
}


class Asked(NamedTuple):
    """Which series, and of which times: since_ms … up to but not until_ms (0: now)."""

    symbol: str
    since_ms: int
    until_ms: int = 0
    again: bool = False


class Source:
    """One venue's public side, paced, patient with a network that fails."""

    def __init__(self, venue: str, client: Client, hurry: float = 1.0) -> None:
        """`hurry` times as fast, for venues of one's own."""
        self.venue, self.terms, self.client = venue, VENUES[venue], client
        self._pause_s = PAUSE_S / hurry
        self._pace = _throttle(self.terms.requests_per_s * hurry)
        self._funding_pace = _throttle(self.terms.funding_per_s * hurry)

    async def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        """A method of ccxt's, tried again where the network or the venue fails. Raises VenueError."""
        import ccxt

        pace = self._funding_pace if "funding" in method else self._pace
        for tried in range(1, TRIES + 1):
            try:
                async with pace:
                    return await getattr(self.client, method)(*arguments, **named)
            except (ccxt.BaseError, TypeError) as error:  # TypeError: what ccxt makes of HTML or null
                if not _may_pass(error):
                    raise Rejected(f"{self.venue} refused {method}: {_words(error)}") from error
                if tried == TRIES:
                    raise _given_up(self.venue, error) from error
                log.warning("download.failed", why=_words(error), tries=tried)
                await asyncio.sleep(self._pause_s * 2.0 ** (tried - 1))
        raise VenueError(f"{self.venue}: {method} was never tried")

    async def market(self, symbol: str) -> dict[str, Any]:
        """ccxt's description of a contract, by the venue's own name or ccxt's. DataError where there is none."""
        if not self.client.markets:
            await self.call("load_markets")
        by_id = {market["id"]: market for market in self.client.markets.values()}
        found: dict[str, Any] | None = by_id.get(symbol) or self.client.markets.get(symbol)
        if found is None:
            near = difflib.get_close_matches(symbol.upper(), by_id, n=3)
            hint = f": did you mean {' or '.join(near)}?" if near else ""
            raise DataError(f"{self.venue} lists no {symbol!r} among its {len(by_id):,} contracts{hint}")
        return found

    async def now_ms(self) -> int:
        """The venue's clock: ours may be wrong."""
        return int(await self.call("fetch_time"))


def _throttle(per_s: float) -> Throttler:
    return Throttler(rate_limit=1, period=1.0 / per_s, retry_interval=min(0.01, 1.0 / per_s))


@asynccontextmanager
async def open_source(venue: str, url: str | None = None, hurry: float = 1.0) -> AsyncIterator[Source]:
    """The venue's public side: no key. `url` leads to a simulated one instead, on loopback only (ConfigError)."""
    import ccxt.async_support as ccxt

    if venue not in VENUES:
        raise DataError(f"venue {venue!r}: histories are downloaded from {' and '.join(VENUES)}")
    client = getattr(ccxt, venue)({"enableRateLimit": False, "timeout": TIMEOUT_MS})
    client.options["fetchCurrencies"] = False  # Binance's needs a key
    if url is not None:
        check_url(url, "simulated", ("http", "https"))
        client.urls = {name: _led_to(url.rstrip("/"), client.urls[name]) for name in ("api", "test")}
        for each in urls_of(client.urls):
            check_url(each, "simulated", ("http", "https"))
    try:
        yield Source(venue, client, hurry)
    finally:
        await client.close()


def _led_to(base: str, tree: Any) -> Any:
    """The same nest of URLs with another scheme and host; a partial override would leave some on the real venue."""
    if isinstance(tree, Mapping):
        return {name: _led_to(base, child) for name, child in tree.items()}
    return base + urlsplit(str(tree)).path


# --- series -------------------------------------------------------------------------------------------------


async def download_candles(
    source: Source, folder: Path, asked: Asked, interval: str, mark: bool = False, advance: Advance = lambda n: None
) -> Written:
    """Candles of a perpetual (`mark`: of its mark price) or a spot pair. `advance` counts candles.

    Raises DataError for a contract or an interval that cannot be had, VenueError, OSError.
    """
    step_ms, contract = interval_ns(interval) // NS_PER_MS, await source.market(asked.symbol)
    if interval not in source.client.timeframes:
        raise DataError(f"{source.venue} has candles of {', '.join(source.client.timeframes)}, not {interval}")
    if mark and source.venue != "binanceusdm":
        raise DataError(f"{source.venue} tells no candles of the mark price: leave --mark out")
    market = Market(source.terms.folder, "mark" if mark else _kind(contract), contract["id"])
    params = {"price": "mark"} if mark else {}

    async def page(at_ms: int, end_ms: int) -> Page:
        fetch = partial(source.call, "fetch_ohlcv")
        return await candle_page(fetch, contract["symbol"], interval, step_ms, (at_ms, end_ms), PAGE, params)

    def write(rows: list[Any]) -> Written:
        return write_candles(folder, market, interval, _candles(step_ms, rows))

    last_ms = await source.now_ms() - SETTLE_MS - step_ms + 1  # opened before: it is over
    place = candles_folder(folder, market, interval)
    return await _fill(place, asked, last_ms, page, write, lambda ms: advance(ms // step_ms))


async def download_funding(source: Source, folder: Path, asked: Asked, advance: Advance = lambda n: None) -> Written:
    """What longs paid. Deribit pays all the time: a row is the sum of the hour that ends there. `advance` counts
    hours."""
    contract = await source.market(asked.symbol)
    if not contract["swap"]:
        raise DataError(f"{asked.symbol} is no perpetual: it pays no funding")
    terms = source.terms

    async def page(at_ms: int, end_ms: int) -> Page:
        end_ms = min(end_ms, at_ms + terms.funding_window_ms)
        limit = None if source.venue == "deribit" else PAGE
        params = {"until": end_ms - 1}
        rows = await source.call("fetch_funding_rate_history", contract["symbol"], at_ms, limit, params)
        rows = [(row["timestamp"], _rate(row)) for row in rows if at_ms <= row["timestamp"] < end_ms]
        return Page(rows, rows[-1][0] + 1 if len(rows) == PAGE else end_ms)

    def write(rows: list[Any]) -> Written:
        rates = FundingRates(_ns(row[0] for row in rows), np.array([row[1] for row in rows], dtype=np.float64))
        return write_funding(folder, terms.folder, contract["id"], rates)

    last_ms = await source.now_ms() - SETTLE_MS
    place = funding_folder(folder, terms.folder, contract["id"])
    return await _fill(place, asked, last_ms, page, write, lambda ms: advance(ms // HOUR_MS))


async def download_trades(source: Source, folder: Path, asked: Asked, advance: Advance = lambda n: None) -> Written:
    """Public trades, a file a day: date, trade_id, side (+1 bought, −1 sold by the taker), price, amount in the venue's
    unit. `advance` counts minutes."""
    contract = await source.market(asked.symbol)
    place = folder.joinpath("trades", source.terms.folder, plain_name(contract["id"]))

    async def page(at_ms: int, end_ms: int) -> Page:
        end_ms = min(end_ms, at_ms + source.terms.trades_window_ms)
        # Unless told, Deribit answers in the order its database has: a full page need not be the oldest.
        params = {"until": end_ms - 1} | ({"sorting": "asc"} if source.venue == "deribit" else {})
        rows = await source.call("fetch_trades", contract["symbol"], at_ms, PAGE, params)
        inside = [row for row in rows if at_ms <= row["timestamp"] < end_ms]
        if len(rows) < PAGE or not inside:
            return Page(inside, end_ms)
        # The last millisecond may go on over the page: it is asked for again, unless it fills one by itself.
        return Page(inside, max(inside[-1]["timestamp"], at_ms + 1))

    last_ms = await source.now_ms() - SETTLE_MS
    return await _fill(
        place, asked, last_ms, page, lambda rows: _write_trades(place, rows), lambda ms: advance(ms // 60_000)
    )


async def download_instruments(source: Source, folder: Path) -> Written:
    """Every contract the venue lists now, with its grid, into a file of today's."""
    now_ms = await source.now_ms()
    markets = await source.call("fetch_markets")
    rows = [
        {
            "name": market["id"],
            "kind": market["type"],
            **{name: market[name] for name in ("base", "quote", "settle", "active", "strike", "optionType")},
            "expiry_ms": market["expiry"],
            "contract_size": market["contractSize"],
            "tick_size": market["precision"]["price"],
            "lot_size": market["precision"]["amount"],
        }
        for market in markets
    ]
    to = folder / "instruments" / source.terms.folder / f"{_date(now_ms):%Y-%m-%d}.parquet"
    return _write_listing(to, now_ms, rows)


async def download_options(source: Source, folder: Path, currency: str) -> Written:
    """What Deribit says of each option of a currency now: its past cannot be asked for, so run this on a timer."""
    if source.venue != "deribit":
        raise DataError(f"{source.venue} has no summary of its options: only deribit")
    now_ms = await source.now_ms()
    asked = {"currency": currency.upper(), "kind": "option"}
    reply = await source.call("public_get_get_book_summary_by_currency", asked)
    rows = reply.get("result") if isinstance(reply, dict) else None
    if not isinstance(rows, list):
        raise OutcomeUnknown(f"unreadable reply to get_book_summary_by_currency: {str(reply)[:80]!r}")
    if not rows:
        raise DataError(f"deribit lists no options in {currency.upper()}")
    place = folder.joinpath("options", source.terms.folder, plain_name(currency.upper()))
    rows = [{name: _plain(value) for name, value in row.items() if name in _SUMMARY} for row in rows]
    return _write_listing(place / f"{_date(now_ms):%Y-%m-%dT%H%M%SZ}.parquet", now_ms, rows)


_SUMMARY = (
    "instrument_name", "bid_price", "ask_price", "mid_price", "mark_price", "mark_iv", "underlying_price",
    "underlying_index", "interest_rate", "open_interest", "volume", "volume_usd",
)  # fmt: skip


def _plain(value: Any) -> Any:
    """ccxt parses a venue's numbers as text: here they are numbers."""
    try:
        return float(value) if isinstance(value, str | int) else value
    except ValueError:
        return value


# --- going on where it was ------------------------------------------------------------------------------------


async def _fill(
    place: Path,
    asked: Asked,
    last_ms: int,
    page: Callable[[int, int], Awaitable[Page]],
    write: Callable[[list[Any]], Written],
    advance: Advance,
) -> Written:
    """Ask for what was not asked for yet, oldest first, and write it down every PAGES_HELD pages and at the end,
    whatever ends it."""
    until_ms = min(asked.until_ms or last_ms, last_ms)
    done = [] if asked.again else read_asked(place)
    total = Written(0, 0)
    advance(sum(end - start for start, end in _within(done, asked.since_ms, until_ms)))
    for start_ms, end_ms in not_asked(done, asked.since_ms, until_ms):
        at_ms = held_ms = start_ms
        held: list[list[Any]] = []
        try:
            while at_ms < end_ms:
                rows, upto_ms = await page(at_ms, end_ms)
                upto_ms = min(upto_ms, end_ms)
                held.append(rows)
                advance(upto_ms - at_ms)
                at_ms = upto_ms
                if len(held) == PAGES_HELD:
                    total = _keep(place, held, (held_ms, at_ms), write, total)
                    held, held_ms = [], at_ms
        finally:
            total = _keep(place, held, (held_ms, at_ms), write, total)
    return total


def _keep(
    place: Path, pages: list[list[Any]], span: Span, write: Callable[[list[Any]], Written], before: Written
) -> Written:
    """First the rows, then that they were asked for: a kill between the two only asks again."""
    if span[0] >= span[1]:
        return before
    rows = [row for page in pages for row in page]
    wrote = write(rows) if rows else Written(0, 0)
    _write_asked(place, joined([*read_asked(place), span]))
    return Written(before.added + wrote.added, before.replaced + wrote.replaced)


def read_asked(place: Path) -> list[Span]:
    """Which times (ms) of a series have been asked for; none where nothing says."""
    try:
        return joined(msgspec.json.decode((place / "asked.json").read_bytes(), type=list[Span]))
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        raise DataError(f"{place / 'asked.json'}: {error}: delete it, and all is asked for again") from error


def _write_asked(place: Path, spans: list[Span]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    part = place / "asked.json.part"
    part.write_bytes(msgspec.json.encode(spans))
    part.replace(place / "asked.json")


def joined(spans: Iterable[Span]) -> list[Span]:
    """Sorted, those that touch made one."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif start < end:
            found.append((start, end))
    return found


def not_asked(done: list[Span], start_ms: int, end_ms: int) -> list[Span]:
    """What of [start, end) lies in no span; `done` as `joined` makes it."""
    found, at_ms = [], start_ms
    for start, end in _within(done, start_ms, end_ms):
        if at_ms < start:
            found.append((at_ms, start))
        at_ms = end
    return [*found, (at_ms, end_ms)] if at_ms < end_ms else found


def _within(spans: list[Span], start_ms: int, end_ms: int) -> list[Span]:
    cut = ((max(start, start_ms), min(end, end_ms)) for start, end in spans)
    return [(start, end) for start, end in cut if start < end]


# --- rows -----------------------------------------------------------------------------------------------------


def _kind(contract: dict[str, Any]) -> str:
    if contract["swap"]:
        return "perp"
    if contract["spot"]:
        return "spot"
    raise DataError(f"{contract['id']} expires: candles are kept of perpetuals and spot pairs only")


def _rate(row: dict[str, Any]) -> float:
    """ccxt gives Deribit's eight-hour rate of each hour; what was paid in the hour is beside it."""
    paid = row["info"].get("interest_1h")
    return float(row["fundingRate"] if paid is None else paid)


def _candles(step_ms: int, rows: list[Any]) -> Candles:
    numbers = np.array([[np.nan if cell is None else cell for cell in row[1:6]] for row in rows], dtype=np.float64)
    return Candles(step_ms * NS_PER_MS, _ns(row[0] for row in rows), *numbers.T)


def _ns(times_ms: Iterable[int]) -> IntArray:
    return np.array(list(times_ms), dtype=np.int64) * NS_PER_MS


def _write_trades(place: Path, rows: list[Any]) -> Written:
    pl = polars()
    columns = {
        "date": pl.Series([row["timestamp"] for row in rows], dtype=pl.Int64).cast(pl.Datetime("ms", "UTC")),
        "trade_id": [str(row["id"]) for row in rows],
        "side": pl.Series([1 if row["side"] == "buy" else -1 for row in rows], dtype=pl.Int8),
        "price": [float(row["price"]) for row in rows],
        "amount": [float(row["amount"]) for row in rows],
    }
    added = 0
    for (day,), new in pl.DataFrame(columns).group_by(pl.col("date").dt.date()):
        file = place / f"{day}.parquet"
        there = read_frame(file) if file.exists() else new.clear()
        merged = pl.concat([there, new]).unique("trade_id", keep="last", maintain_order=True).sort("date")
        if merged.height > there.height:
            write_frame(file, merged)
        added += merged.height - there.height
    return Written(added, 0)


def _write_listing(to: Path, now_ms: int, rows: list[dict[str, Any]]) -> Written:
    pl = polars()
    date = pl.lit(now_ms).cast(pl.Int64).cast(pl.Datetime("ms", "UTC")).alias("date")
    write_frame(to, pl.DataFrame(rows, infer_schema_length=None).with_columns(date))
    return Written(len(rows), 0)


def _date(ts_ms: int) -> datetime:
    return datetime.fromtimestamp(ts_ms / 1_000, UTC)


# --- errors ---------------------------------------------------------------------------------------------------


def _words(error: Exception) -> str:
    return venue_error(error) or f"{type(error).__name__}: {str(error)[:160]}"


def _may_pass(error: Exception) -> bool:
    """Whether the same question may be answered later. ccxt's plain ExchangeError is a reply it cannot place: a server
    in trouble, a body cut off."""
    import ccxt

    passing = (ccxt.NetworkError, ccxt.DDoSProtection, ccxt.RateLimitExceeded, TypeError)
    return isinstance(error, passing) or type(error) is ccxt.ExchangeError


def _given_up(venue: str, error: Exception) -> VenueError:
    import ccxt

    throttled = isinstance(error, ccxt.RateLimitExceeded | ccxt.DDoSProtection)
    kind, cause = (RateLimited, "wants fewer requests") if throttled else (VenueError, "cannot be reached")
    return kind(f"{venue} {cause} ({_words(error)}). What came is kept: the same command goes on from there")
