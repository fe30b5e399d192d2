"""One page of a venue's candles, asked for the way ccxt asks."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

Fetch = Callable[..., Awaitable[list[Any]]]  # ccxt's fetch_ohlcv: symbol, interval, since_ms, limit, params


class Page(NamedTuple):
    """Rows of one answer, and up to where (ms) they are all there are."""

    rows: list[Any]
    upto_ms: int


async def candle_page(
    fetch: Fetch,
    symbol: str,
    interval: str,
    step_ms: int,
    span_ms: tuple[int, int],
    most: int,
    params: dict[str, str],
) -> Page:
    """Candles of `step_ms` that open from span_ms[0] up to but not at span_ms[1], no more than `most` of them.

    What does not open within is left out; an answer without rows says that there are none. Raises what `fetch` does.
    """
    at_ms, end_ms = span_ms
    limit = min(most, -(-(end_ms - at_ms) // step_ms))
    rows = [row for row in await fetch(symbol, interval, at_ms, limit, params) if at_ms <= row[0]]
    upto_ms = rows[-1][0] + step_ms if rows else at_ms + limit * step_ms
    return Page([row for row in rows if row[0] < end_ms], upto_ms)
