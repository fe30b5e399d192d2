"""Downloads over real sockets: from the simulated Deribit, and from a small Binance that computes its past."""

import asyncio
import signal
import sys
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.domain.errors import ConfigError, DataError, RateLimited, VenueError
from dea_daemon.domain.instruments import Side
from dea_daemon.research.candles import Candles, FundingRates, Market
from dea_daemon.shell import history_download
from dea_daemon.shell.history import join_trades, open_history
from dea_daemon.shell.history_download import (
    Asked,
    download_candles,
    download_funding,
    download_instruments,
    download_options,
    download_trades,
    joined,
    not_asked,
    open_source,
    read_asked,
)
from dea_daemon.simvenue.words import Traded
from tests.shell.binance_stub import LISTED_MS, H, binance_running, price
from tests.shell.venue_clients import venue_running

MINUTE_NS = 60 * 10**9
NOW_NS = 1_790_000_000 * 10**9 // (60 * MINUTE_NS) * 60 * MINUTE_NS + 30 * 10**9  # half a minute past the hour
NOW_MS = NOW_NS // 10**6
PERP = "BTC-PERPETUAL"
PAST_MINUTES = 180


@asynccontextmanager
async def deribit():
    """A simulated Deribit with three hours behind it: a trade a minute, at 65,000 and rising by 0.5."""
    async with venue_running(clock=lambda: NOW_NS) as server:
        past = server.venue.exchange.history[PERP]
        for n in range(PAST_MINUTES + 1):
            at_ns = NOW_NS // MINUTE_NS * MINUTE_NS - (PAST_MINUTES - n) * MINUTE_NS
            past.add_trade(Traded(PERP, at_ns, f"T{n}", n, Side.BUY, 130_000 + n, 10, 65e3, 65e3), 65e3 + n / 2, 100.0)
            past.add_funding(at_ns, MINUTE_NS, 0.0008, 65e3)
        async with open_source("deribit", server.http_url, hurry=100.0) as source:
            yield source


@asynccontextmanager
async def binance(now_ms: int = LISTED_MS + 2_000 * H + 10_000):
    async with binance_running(now_ms) as stub, open_source("binanceusdm", stub.http_url, hurry=1_000.0) as source:
        yield stub, source


def candles_of(folder: Path, market: Market) -> Candles:
    return open_history(folder).candles[market]


def funding_of(folder: Path, symbol: str, venue: str) -> FundingRates:
    files = sorted((folder / "funding" / venue / symbol).glob("*.parquet"))
    frame = pl.concat([pl.read_parquet(file) for file in files])
    return FundingRates(frame["date"].dt.epoch("ns").to_numpy(), frame["funding_rate"].to_numpy())


BTCUSDT = Market("binance", "perp", "BTCUSDT")


def whole(candles: Candles, count: int = 1_999) -> bool:
    """Every hour from the listing on, each with the venue's price."""
    hours_ms = LISTED_MS + np.arange(count) * H
    return np.array_equal(candles.open_ns, hours_ms * 10**6) and np.array_equal(
        candles.open, [price(int(at)) for at in hours_ms]
    )


# --- deribit ------------------------------------------------------------------------------------------------


async def test_deribits_candles_are_stored_without_the_one_still_open(tmp_path):
    async with deribit() as source:
        assert await download_candles(source, tmp_path, Asked(PERP, NOW_MS - 4 * H), "1m") == (PAST_MINUTES, 0)
    candles = candles_of(tmp_path, Market("deribit", "perp", PERP))
    assert candles.open_ns.tolist() == [NOW_NS - 30 * 10**9 - n * MINUTE_NS for n in range(PAST_MINUTES, 0, -1)]
    assert candles.close.tolist() == [65_000 + n / 2 for n in range(PAST_MINUTES)]
    assert (candles.volume > 0).all()


async def test_deribits_funding_is_what_was_paid_in_each_hour(tmp_path):
    async with deribit() as source:
        await download_funding(source, tmp_path, Asked(PERP, NOW_MS - 4 * H))
    rates = funding_of(tmp_path, PERP, "deribit")
    assert rates.at_ns.tolist() == [NOW_NS - 30 * 10**9 - n * 60 * MINUTE_NS for n in (3, 2, 1, 0)]
    assert rates.rate[1:] == pytest.approx(0.0001)  # an eighth of the eight-hour rate


async def test_deribits_trades_are_stored_once_each(tmp_path, monkeypatch):
    monkeypatch.setattr(history_download, "PAGE", 50)
    async with deribit() as source:
        asked = Asked(PERP, NOW_MS - 4 * H)
        assert await download_trades(source, tmp_path, asked) == (PAST_MINUTES + 1, 0)
        assert await download_trades(source, tmp_path, asked._replace(again=True)) == (0, 0)
    (file,) = tmp_path.rglob("trades/deribit/*/*.parquet")
    trades = pl.read_parquet(file)
    assert trades["trade_id"].to_list() == [f"T{n}" for n in range(PAST_MINUTES + 1)]
    assert trades["price"].to_list() == [65_000 + n / 2 for n in range(PAST_MINUTES + 1)]
    assert set(trades["side"]) == {1} and set(trades["amount"]) == {100.0}
    ((name, written),) = join_trades(tmp_path, "5m")
    assert name == f"deribit_perp_{PERP}_5m" and written.added > 3
    candles = open_history(tmp_path).candles[Market("deribit", "perp", PERP)]
    assert candles.volume.tolist() == [500.0] * written.added  # a trade a minute


def test_without_trades_there_is_nothing_to_join(tmp_path):
    with pytest.raises(DataError, match="no trades here"):
        list(join_trades(tmp_path, "1m"))


async def test_deribits_trades_are_asked_for_oldest_first(tmp_path):
    async with deribit() as source:
        await source.market(PERP)
        asked: list[Any] = []

        async def note(*arguments: Any) -> list[Any]:
            asked.append(arguments)
            return []

        source.client.fetch_trades = note
        await download_trades(source, tmp_path, Asked(PERP, NOW_MS - H))
    assert asked and all(arguments[-1]["sorting"] == "asc" for arguments in asked)


async def test_deribits_contracts_and_option_summaries_are_stored_with_their_time(tmp_path):
    async with deribit() as source:
        contracts = await download_instruments(source, tmp_path)
        options = await download_options(source, tmp_path, "btc")
    (listing,) = tmp_path.rglob("instruments/deribit/*.parquet")
    frame = pl.read_parquet(listing)
    perpetual = frame.row(by_predicate=pl.col("name") == PERP, named=True)
    assert frame.height == contracts.added > 300
    assert (perpetual["kind"], perpetual["tick_size"], perpetual["lot_size"]) == ("swap", 0.5, 10.0)
    (chain,) = tmp_path.rglob("options/deribit/BTC/*.parquet")
    summary = pl.read_parquet(chain)
    assert summary.height == options.added > 50
    assert summary["mark_iv"].is_between(10, 300).all() and (summary["mark_price"] > 0).all()
    assert summary["date"].dt.epoch("ms").unique().to_list() == [NOW_MS]


async def test_what_cannot_be_had_is_refused_with_what_to_do(tmp_path):
    async with deribit() as source:
        with pytest.raises(DataError, match=r"no 'BTC-PERP' among its .* did you mean BTC-PERPETUAL"):
            await download_candles(source, tmp_path, Asked("BTC-PERP", 0), "1h")
        with pytest.raises(DataError, match=r"candles of 1m, .*, not 7m"):
            await download_candles(source, tmp_path, Asked(PERP, 0), "7m")
        with pytest.raises(DataError, match="leave --mark out"):
            await download_candles(source, tmp_path, Asked(PERP, 0), "1h", mark=True)
        option = next(market["id"] for market in source.client.markets.values() if market["option"])
        with pytest.raises(DataError, match="expires"):
            await download_candles(source, tmp_path, Asked(option, 0), "1h")
        with pytest.raises(DataError, match="no perpetual"):
            await download_funding(source, tmp_path, Asked(option, 0))
        with pytest.raises(VenueError, match="refused"):
            await download_options(source, tmp_path, "DOGE")
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("url", ["https://example.com", "http://192.0.2.1:80", "ftp://127.0.0.1"])
async def test_another_url_than_one_on_loopback_is_refused(url):
    with pytest.raises(ConfigError, match="loopback"):
        async with open_source("deribit", url):
            pass


# --- binance ------------------------------------------------------------------------------------------------


async def test_candles_from_before_the_listing_to_the_last_that_is_over(tmp_path):
    async with binance() as (stub, source):
        told: list[int] = []
        asked = Asked("BTCUSDT", LISTED_MS - 3_000 * H)
        assert await download_candles(source, tmp_path, asked, "1h", advance=told.append) == (2_000, 0)
        assert len(stub.asked) == 2  # the first answer leads straight to the listing
        assert sum(told) == pytest.approx(5_000, abs=1)
    assert whole(candles_of(tmp_path, BTCUSDT), 2_000)


@pytest.mark.parametrize(("late_ms", "count"), [(0, 1_999), (4_000, 1_999), (5_000, 2_000)])
async def test_a_candle_is_final_some_seconds_after_its_end(tmp_path, late_ms, count):
    async with binance(LISTED_MS + 2_000 * H + late_ms) as (_, source):
        await download_candles(source, tmp_path, Asked("BTCUSDT", LISTED_MS), "1h")
    assert whole(candles_of(tmp_path, BTCUSDT), count)


async def test_what_was_asked_for_is_not_asked_for_again(tmp_path):
    async with binance() as (stub, source):
        await download_candles(source, tmp_path, Asked("BTCUSDT", LISTED_MS), "1h")
        stub.asked.clear()
        assert await download_candles(source, tmp_path, Asked("BTCUSDT", LISTED_MS), "1h") == (0, 0)
        assert stub.asked == []
        stub.now_ms += 3 * H
        assert await download_candles(source, tmp_path, Asked("BTCUSDT", LISTED_MS), "1h") == (3, 0)
        assert len(stub.asked) == 1 and stub.asked[0][1] > LISTED_MS + 1_998 * H
    assert whole(candles_of(tmp_path, BTCUSDT), 2_003)


async def test_all_of_it_is_asked_for_once_more_where_that_is_wanted(tmp_path):
    async with binance() as (stub, source):
        asked = Asked("BTCUSDT", LISTED_MS)
        await download_candles(source, tmp_path, asked, "1h")
        stub.asked.clear()
        assert await download_candles(source, tmp_path, asked._replace(again=True), "1h") == (0, 0)
        assert [at for _, at in stub.asked] == [LISTED_MS, LISTED_MS + 1_000 * H]


async def test_an_earlier_start_and_a_hole_are_filled_in(tmp_path):
    async with binance() as (stub, source):
        for first, last in ((500, 700), (1_500, 1_600)):
            asked = Asked("BTCUSDT", LISTED_MS + first * H, LISTED_MS + last * H)
            assert await download_candles(source, tmp_path, asked, "1h") == (last - first, 0)
        stub.asked.clear()
        assert (await download_candles(source, tmp_path, Asked("BTCUSDT", LISTED_MS), "1h")).added == 1_700
        assert [at for _, at in stub.asked] == [LISTED_MS + n * H for n in (0, 700, 1_600)]
    assert whole(candles_of(tmp_path, BTCUSDT), 2_000)


async def test_mark_candles_funding_and_trades_of_binance(tmp_path):
    async with binance() as (stub, source):
        await download_candles(source, tmp_path, Asked("BTCUSDT", LISTED_MS), "1h", mark=True)
        await download_funding(source, tmp_path, Asked("BTCUSDT", LISTED_MS))
        trades = await download_trades(source, tmp_path, Asked("BTCUSDT", stub.now_ms - 2 * H))
        assert {path for path, _ in stub.asked} == {"markPriceKlines", "fundingRate", "aggTrades"}
    history = open_history(tmp_path)
    assert whole(history.candles[Market("binance", "mark", "BTCUSDT")], 2_000)
    funding = history.funding["binance", "BTCUSDT"]
    assert funding.at_ns.tolist() == [(LISTED_MS + n * 8 * H) * 10**6 for n in range(251)]
    assert funding.rate == pytest.approx([at // (8 * H * 10**6) % 7 * 1e-5 for at in funding.at_ns])
    assert trades.added == 3 * 720  # three every ten seconds, though a page ends within them
    assert {file.stem for file in tmp_path.rglob("trades/binance/BTCUSDT/*.parquet")} == {"2021-03-25"}


# --- what goes wrong ----------------------------------------------------------------------------------------


async def test_a_venue_that_fails_for_a_while_is_asked_again(tmp_path):
    async with binance() as (stub, source):
        stub.fails = [503, 429, 418, 502]
        await download_candles(source, tmp_path, Asked("BTCUSDT", LISTED_MS), "1h")
    assert whole(candles_of(tmp_path, BTCUSDT), 2_000)


@pytest.mark.parametrize(("status", "kind"), [(503, VenueError), (429, RateLimited)])
async def test_a_venue_that_goes_on_failing_is_given_up_and_what_came_is_kept(tmp_path, monkeypatch, status, kind):
    monkeypatch.setattr(history_download, "PAGE", 100)
    async with binance() as (stub, source):
        stub.down = (7, status)
        with pytest.raises(kind, match="What came is kept: the same command goes on"):
            await download_candles(source, tmp_path, Asked("BTCUSDT", LISTED_MS), "1h")
        assert whole(candles_of(tmp_path, BTCUSDT), 700)
        stub.down = None
        stub.asked.clear()
        assert (await download_candles(source, tmp_path, Asked("BTCUSDT", LISTED_MS), "1h")).added == 1_300
        assert stub.asked[0][1] == LISTED_MS + 700 * H
    assert whole(candles_of(tmp_path, BTCUSDT), 2_000)


async def test_a_kill_between_rows_and_note_only_asks_again(tmp_path, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    async with binance() as (_, source):
        with monkeypatch.context() as patched:
            patched.setattr(history_download, "_write_asked", killed)
            with pytest.raises(KeyboardInterrupt):
                await _raised(download_candles(source, tmp_path, Asked("BTCUSDT", LISTED_MS), "1h"))
        assert whole(candles_of(tmp_path, BTCUSDT), 2_000)
        assert await download_candles(source, tmp_path, Asked("BTCUSDT", LISTED_MS), "1h") == (0, 0)


async def _raised(coroutine: Any) -> None:
    """Await it here: a KeyboardInterrupt out of a task of its own would stop the loop."""
    await coroutine


KILLED = """
import asyncio, sys
from pathlib import Path
from dea_daemon.shell import history_download as h
h.PAGE, h.PAGES_HELD = 50, 4

async def main():
    async with h.open_source("binanceusdm", sys.argv[1], hurry=1000.0) as source:
        await h.download_candles(source, Path(sys.argv[2]), h.Asked("BTCUSDT", int(sys.argv[3])), "1h")

asyncio.run(main())
"""


async def test_a_killed_download_goes_on_where_it_was(tmp_path):
    async with binance() as (stub, source):
        stub.hang_after = 10
        arguments = (stub.http_url, str(tmp_path), str(LISTED_MS))
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, *arguments)
        async with asyncio.timeout(40):
            await stub.hanging.wait()
        process.send_signal(signal.SIGKILL)
        await process.wait()
        assert whole(candles_of(tmp_path, BTCUSDT), 400)  # two writes of four pages each
        stub.hang_after = None
        stub.asked.clear()
        await download_candles(source, tmp_path, Asked("BTCUSDT", LISTED_MS), "1h")
        assert stub.asked[0][1] == LISTED_MS + 400 * H
    assert whole(candles_of(tmp_path, BTCUSDT), 2_000)


async def test_a_note_that_cannot_be_read_says_so(tmp_path):
    place = tmp_path / "candles/binance/perp/BTCUSDT/1h"
    place.mkdir(parents=True)
    (place / "asked.json").write_text("[[1,")
    with pytest.raises(DataError, match="delete it, and all is asked for again"):
        read_asked(place)


SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6)


@given(SPANS, st.integers(0, 30), st.integers(0, 30))
def test_what_was_not_asked_for_is_the_rest(spans, start, end):
    done = {n for first, last in spans for n in range(first, last)}
    rest = not_asked(joined(spans), start, end)
    assert [n for first, last in rest for n in range(first, last)] == [n for n in range(start, end) if n not in done]
    assert all(left[1] < right[0] for left, right in pairwise(rest))
