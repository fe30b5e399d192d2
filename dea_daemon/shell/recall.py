"""Prices of before the run, from the venues' public candles: volatility and VaR need not begin blind.

Nothing here holds a start up for longer than it is told to, or ends it: without a past the run begins with what the
parameters assume.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import structlog

from dea_daemon.domain.events import PricesRecalled
from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.shell.candle_pages import Fetch, candle_page
from dea_daemon.shell.ccxt_client import Client
from dea_daemon.shell.snapshots import HttpFetch
from dea_daemon.shell.throttle import Pool

log = structlog.get_logger()
HOUR_MS = 3_600_000
PAGE, OKX_PAGE = 1_000, 100  # candles in one answer
SETTLE_MS = 5_000  # a candle is final this long after its end
JUMP = 2.0  # a close this many times its neighbours, or this share of them, is no price
NEIGHBOURS = 9  # closes whose median is asked, so that four wrong ones in a row are found
CLEAN_UP_S = 0.2


class Candles(NamedTuple):
    """How to ask one venue, and for how many candles at once."""

    fetch: Fetch
    page: int = PAGE


class Past(NamedTuple):
    """One venue's candles; `contracts` names the contract that tells of an underlying."""

    venue: str
    candles: Candles
    contracts: Mapping[str, str]


class _Told(NamedTuple):
    """Closes [T] of one underlying at one venue, NaN where there is none, and how many were no prices."""

    venue: str
    closes: FloatArray
    refused: int

    @property
    def known(self) -> int:
        return int(np.isfinite(self.closes).sum())


async def recall(
    pasts: Sequence[Past], underlyings: Sequence[str], *, days: float, within_s: float, now_ns: int
) -> PricesRecalled | None:
    """Hourly closes of `days` before now, of each underlying from the venue that has most of them; None if nobody has
    any. All are asked at once, and what has not come after `within_s` is done without. Never raises."""
    end_ms = (now_ns // NS_PER_MS - SETTLE_MS) // HOUR_MS * HOUR_MS
    close_ms = end_ms - HOUR_MS * np.arange(int(days * 24) - 1, -1, -1, dtype=np.int64)
    asked = [(past, name) for name in underlyings for past in pasts if name in past.contracts]
    tasks = [asyncio.create_task(_told(past, name, close_ms)) for past, name in asked]
    try:
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)
    finally:
        for task in tasks:
            task.cancel()
    if any(not task.done() for task in tasks):
        await asyncio.wait(tasks, timeout=CLEAN_UP_S)
    best: dict[str, _Told] = {}
    failed = []
    for (past, name), task in zip(asked, tasks, strict=True):
        if not task.done() or task.cancelled():
            failed.append(f"{past.venue} {name}: no answer within {within_s:g} s")
        elif (error := task.exception()) is not None:
            failed.append(f"{past.venue} {name}: {type(error).__name__}: {str(error)[:160]}")
        elif not task.result().known:
            failed.append(f"{past.venue} {name}: no price, {task.result().refused} refused")
        elif name not in best or task.result().known > best[name].known:
            best[name] = task.result()
    return _event(now_ns, close_ms, underlyings, best, failed)


async def _told(past: Past, underlying: str, close_ms: IntArray) -> _Told:
    """Ask one venue for one underlying, page by page."""
    at_ms, end_ms = int(close_ms[0]) - HOUR_MS, int(close_ms[-1])
    (fetch, most), name = past.candles, past.contracts[underlying]
    rows: list[Any] = []
    while at_ms < end_ms:
        page, at_ms = await candle_page(fetch, name, "1h", HOUR_MS, (at_ms, end_ms), most, {})
        rows += page
    return _Told(past.venue, *believed(rows, close_ms))


def believed(rows: Sequence[Sequence[Any]], close_ms: IntArray) -> tuple[FloatArray, int]:
    """Candles (open ms, open, high, low, close, volume) as closes [T] at `close_ms` [T], hours apart; and how many of
    them were no prices: off the hour, not positive, far from those around them. Where nothing was traded there is no
    close: the venue repeats the last one. What is older than a jump that stays is in another unit, and left out.

    Raises ValueError, TypeError or LookupError for rows that are no candles.
    """
    cells = [[np.nan if row[k] is None else row[k] for k in (0, 4, 5)] for row in rows]
    open_ms, close, volume = np.array(cells, dtype=np.float64).reshape(-1, 3).T
    hour = (open_ms + HOUR_MS - close_ms[0]) / HOUR_MS
    placed = np.isin(hour, np.arange(close_ms.size))
    closes = np.full(close_ms.size, np.nan)
    quiet = volume == 0.0
    taken = placed & ~quiet & np.isfinite(close) & (close > 0.0)
    closes[hour[taken].astype(np.int64)] = close[taken]
    found = int(np.isfinite(closes).sum())
    _refuse_jumps(closes)
    _refuse_frozen(closes)
    return closes, int((~taken & ~quiet).sum()) + found - int(np.isfinite(closes).sum())


def _refuse_jumps(closes: FloatArray) -> None:
    """Make NaN, in place, of what is far from the median around it, and of all that lies before a jump that stays."""
    from scipy.ndimage import median_filter

    known = np.flatnonzero(np.isfinite(closes))
    logs = np.log(closes[known])
    if known.size:
        far = np.abs(logs - median_filter(logs, size=NEIGHBOURS, mode="mirror")) > np.log(JUMP)
        closes[known[far]] = np.nan
        known, logs = known[~far], logs[~far]
    jumps = np.flatnonzero(np.abs(np.diff(logs)) > np.log(JUMP) * np.sqrt(np.diff(known)))
    if jumps.size:
        # A jump in the last hours is more likely wrong than the month before it.
        last = int(jumps[-1])
        late = len(known) - 1 - last <= NEIGHBOURS
        closes[known[last] + 1 :] = np.nan if late else closes[known[last] + 1 :]
        if not late:
            closes[: known[last] + 1] = np.nan


def _refuse_frozen(closes: FloatArray) -> None:
    """Make NaN, in place, a history that mostly stands still: somebody repeats a price."""
    known = closes[np.isfinite(closes)]
    if known.size and np.count_nonzero(np.diff(known)) < 0.5 * (known.size - 1):
        closes[:] = np.nan


def _event(
    now_ns: int, close_ms: IntArray, underlyings: Sequence[str], best: dict[str, _Told], failed: list[str]
) -> PricesRecalled | None:
    """What came, told in the log, from the first hour in which there is any price."""
    none = np.full(close_ms.size, np.nan)
    usd = np.column_stack([best[name].closes if name in best else none for name in underlyings])
    some = np.flatnonzero(np.isfinite(usd).any(axis=1))
    if not some.size:
        log.warning("history.recall_failed", why=failed or ["no perpetual to ask for"])
        return None
    hours = slice(int(some[0]), int(some[-1]) + 1)
    log.info(
        "history.recalled",
        hours=hours.stop - hours.start,
        prices={name: told.known for name, told in best.items()},
        venues={name: told.venue for name, told in best.items()},
        refused=sum(told.refused for told in best.values()),
        without=[name for name in underlyings if name not in best],
        failed=failed,
    )
    at_ns = (close_ms[hours] * NS_PER_MS).tolist()
    return PricesRecalled(now_ns, tuple(at_ns), tuple(map(tuple, usd[hours].tolist())))


# --- how each venue is asked ----------------------------------------------------------------------------------------


def deribit_candles(client: Client, queries: Pool) -> Candles:
    """Through ccxt, within the budget of queries."""

    async def fetch(*arguments: Any) -> list[Any]:
        await queries.acquire()
        rows: list[Any] = await client.fetch_ohlcv(*arguments)
        return rows

    return Candles(fetch)


def binance_candles(http: HttpFetch) -> Candles:
    """Source: Binance USD-M futures API, GET /fapi/v1/klines."""

    async def fetch(symbol: str, interval: str, since_ms: int, limit: int, _: object) -> list[Any]:
        path = f"/fapi/v1/klines?symbol={symbol}&interval={interval}&startTime={since_ms}&limit={limit}"
        return msgspec.json.decode(await http(path), type=list[Any])

    return Candles(fetch)


def okx_candles(http: HttpFetch) -> Candles:
    """Source: OKX API v5, GET /api/v5/market/history-candles: newest first, times in text, both bounds left out."""

    async def fetch(symbol: str, interval: str, since_ms: int, limit: int, _: object) -> list[Any]:
        span = f"before={since_ms - 1}&after={since_ms + limit * HOUR_MS}"
        path = f"/api/v5/market/history-candles?instId={symbol}&bar={interval.upper()}&limit={limit}&{span}"
        rows = msgspec.json.decode(await http(path))["data"]
        return [[int(row[0]), *row[1:]] for row in reversed(rows)]

    return Candles(fetch, OKX_PAGE)
