"""Prices of before the run: what venues may answer, and that nothing they do holds up a start."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from dea_daemon.domain.events import PricesRecalled
from dea_daemon.shell.ccxt_client import Budget
from dea_daemon.shell.recall import (
    HOUR_MS,
    Candles,
    Past,
    believed,
    binance_candles,
    deribit_candles,
    okx_candles,
    recall,
)
from dea_daemon.shell.snapshots import HttpFetch
from dea_daemon.shell.throttle import Pool
from tests.shell.binance_stub import LISTED_MS, binance_running, price
from tests.shell.deribit_stub import HANG, client_of, result, stub_venue
from tests.shell.venue_clients import venue_running

NOW_MS = 1_790_000_000_000 // HOUR_MS * HOUR_MS + 20 * 60_000  # twenty past
LAST_MS = NOW_MS // HOUR_MS * HOUR_MS  # when the newest whole hour closed
DAYS = 2.0
HOURS = 48
CLOSE_MS = LAST_MS - HOUR_MS * np.arange(HOURS - 1, -1, -1)
BTC = {"BTC": "BTC-PERPETUAL"}
WALK = 65_000.0 * np.exp(np.cumsum(np.random.default_rng(3).normal(0.0, 0.006, HOURS)))


def rows(closes=WALK, volume: float | None = 1.0) -> list[list[Any]]:
    """Candles as ccxt has them, stamped with their opening."""
    return [[int(at) - HOUR_MS, close, close, close, close, volume] for at, close in zip(CLOSE_MS, closes, strict=True)]


def telling(answer: list[list[Any]] | Exception, venue: str = "deribit", contracts=BTC, page: int = 1_000) -> Past:
    """A venue that answers any question with those of the candles that are asked for, or fails."""

    async def fetch(symbol: str, interval: str, since_ms: int, limit: int, params: object) -> list[Any]:
        if isinstance(answer, Exception):
            raise answer
        return [row for row in answer if since_ms <= row[0]][:limit]

    return Past(venue, Candles(fetch, page), contracts)


async def recalled(*pasts: Past, names=("BTC",), within_s: float = 5.0) -> PricesRecalled | None:
    return await recall(pasts, names, days=DAYS, within_s=within_s, now_ns=NOW_MS * 10**6)


def column(event: PricesRecalled | None, u: int = 0) -> np.ndarray:
    assert event is not None
    return np.array(event.usd)[:, u]


# --- what is made of the answers --------------------------------------------------------------------------------


async def test_a_bar_is_known_at_its_close_and_the_open_one_not_at_all():
    still_open = [LAST_MS, 7.0, 7.0, 7.0, 7.0, 1.0]
    event = await recalled(telling([*rows(), still_open]))
    assert event is not None
    assert list(event.at_ns) == [int(at) * 10**6 for at in CLOSE_MS]
    assert np.array_equal(column(event), WALK)
    assert event.at_ns[-1] < event.ts_recv_ns == NOW_MS * 10**6


async def test_a_bar_that_closed_a_moment_ago_may_still_change_and_is_left_out():
    event = await recall([telling(rows())], ["BTC"], days=DAYS, within_s=5.0, now_ns=LAST_MS * 10**6 + 10**9)
    assert event is not None and event.at_ns[-1] == CLOSE_MS[-2] * 10**6


async def test_pages_are_joined_whatever_their_length():
    for page in (1, 7, 48, 1_000):
        assert np.array_equal(column(await recalled(telling(rows(), page=page))), WALK)


async def test_each_underlying_comes_from_the_venue_that_has_most_and_the_first_among_equals():
    both = {"BTC": "b", "ETH": "e"}
    short, long, other = rows()[30:], rows(), rows(WALK * 1.001)
    event = await recalled(telling(short, "one"), telling(long, "two"), telling(other, "three"))
    assert np.array_equal(column(event), WALK)
    event = await recalled(telling(long, "one"), telling(other, "two", both), names=("BTC", "ETH"))
    assert np.array_equal(column(event), WALK) and np.array_equal(column(event, 1), WALK * 1.001)


async def test_an_underlying_nobody_has_is_nan_beside_those_that_are_known():
    with capture_logs() as logs:
        event = await recalled(telling(rows()), names=("DOGE", "BTC"))
    assert np.isnan(column(event)).all() and np.array_equal(column(event, 1), WALK)
    (told,) = logs
    assert told["event"] == "history.recalled" and told["without"] == ["DOGE"] and told["prices"] == {"BTC": HOURS}


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), None, 65e6, 65.0])
@pytest.mark.parametrize("where", [0, 20, HOURS - 1])
async def test_a_close_that_is_no_price_becomes_a_gap(bad, where):
    answer = rows()
    answer[where][4] = bad
    event = await recalled(telling(answer))
    assert event is not None
    found = dict(zip(event.at_ns, column(event), strict=True))
    wanted = {int(at) * 10**6: close for at, close in zip(CLOSE_MS, WALK, strict=True)}
    assert np.isnan(found.pop(CLOSE_MS[where] * 10**6, np.nan))
    del wanted[CLOSE_MS[where] * 10**6]
    assert found == wanted


async def test_four_wrong_closes_in_a_row_are_found():
    spoiled = WALK.copy()
    spoiled[20:24] *= 1_000.0
    assert np.flatnonzero(np.isnan(column(await recalled(telling(rows(spoiled)))))).tolist() == [20, 21, 22, 23]


async def test_what_was_told_in_another_unit_is_left_out():
    redenominated = WALK.copy()
    redenominated[:20] *= 1_000.0
    event = await recalled(telling(rows(redenominated)))
    assert event is not None
    assert np.array_equal(column(event), WALK[20:]) and event.at_ns[0] == CLOSE_MS[20] * 10**6


async def test_a_crash_is_believed():
    crash = WALK.copy()
    crash[30:] *= 0.6
    assert np.array_equal(column(await recalled(telling(rows(crash)))), crash)


async def test_an_hour_in_which_nothing_was_traded_has_no_price():
    answer = rows()
    for row in answer[10:15]:
        row[4], row[5] = answer[9][4], 0.0
    gaps = np.flatnonzero(np.isnan(column(await recalled(telling(answer)))))
    assert gaps.tolist() == [10, 11, 12, 13, 14]
    assert np.array_equal(column(await recalled(telling(rows(volume=None)))), WALK)  # a venue that does not say


async def test_bars_between_the_hours_and_out_of_order_do_no_harm():
    answer = [*rows(), [CLOSE_MS[5] - HOUR_MS + 60_000, 1.0, 1.0, 1.0, 1.0, 1.0]]
    closes, refused = believed(answer[::-1], CLOSE_MS)
    assert np.array_equal(closes, WALK) and refused == 1


cells = st.one_of(st.none(), st.floats(), st.integers(-(2**70), 2**70), st.text(max_size=5), st.booleans())


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.none(), cells, st.lists(st.one_of(cells, st.lists(cells, max_size=7)), max_size=12)))
def test_no_answer_raises_and_what_is_believed_is_a_price(answer):
    async def fetch(*_: Any) -> Any:
        return answer

    event = asyncio.run(recalled(Past("deribit", Candles(fetch), BTC)))
    if event is not None:
        known = column(event)[np.isfinite(column(event))]
        assert known.size and (known > 0.0).all() and list(event.at_ns) == sorted(set(event.at_ns))


# --- venues that fail -------------------------------------------------------------------------------------------


async def test_a_venue_that_fails_leaves_the_others_word():
    with capture_logs() as logs:
        event = await recalled(telling(RuntimeError("down"), "one"), telling(rows(), "two"))
    assert np.array_equal(column(event), WALK)
    assert logs[0]["failed"] == ["one BTC: RuntimeError: down"] and logs[0]["venues"] == {"BTC": "two"}


@pytest.mark.parametrize("pasts", [(), (telling([]),), (telling(ValueError("no")),), (telling([[1, 2]]),)])
async def test_without_any_price_the_run_begins_blind_and_says_so(pasts):
    with capture_logs() as logs:
        assert await recalled(*pasts) is None
    (told,) = logs
    assert told["event"] == "history.recall_failed" and told["log_level"] == "warning" and told["why"]


async def test_one_that_hangs_is_not_waited_for_and_what_came_is_kept():
    cancelled = asyncio.Event()

    async def hang(*_: Any) -> list[Any]:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return []

    began = asyncio.get_running_loop().time()
    event = await recalled(Past("slow", Candles(hang), BTC), telling(rows()), within_s=0.2)
    assert np.array_equal(column(event), WALK)
    assert 0.2 <= asyncio.get_running_loop().time() - began < 1.0
    assert cancelled.is_set()


async def test_one_that_will_not_be_cancelled_holds_nothing_up():
    release = asyncio.Event()

    async def stubborn(*_: Any) -> list[Any]:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return []

    began = asyncio.get_running_loop().time()
    assert await recalled(Past("stubborn", Candles(stubborn), BTC), within_s=0.1) is None
    assert asyncio.get_running_loop().time() - began < 1.0
    release.set()
    await asyncio.sleep(0)


async def test_a_signal_in_the_midst_of_it_ends_the_start():
    async def hang(*_: Any) -> list[Any]:
        await asyncio.Event().wait()
        return []

    task = asyncio.create_task(recalled(Past("slow", Candles(hang), BTC)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    others = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
    await asyncio.wait(others, timeout=1.0) if others else None
    assert all(one.done() for one in others)


# --- over sockets -----------------------------------------------------------------------------------------------

MARKETS = {
    "public/get_currencies": [{"currency": "BTC", "currency_long": "Bitcoin"}],
    "public/get_instruments": [
        {
            "instrument_name": "BTC-PERPETUAL", "kind": "future", "settlement_period": "perpetual", "is_active": True,
            "base_currency": "BTC", "quote_currency": "USD", "settlement_currency": "BTC", "counter_currency": "USD",
            "contract_size": 10.0, "tick_size": 0.5, "min_trade_amount": 10.0, "instrument_type": "reversed",
            "maker_commission": 0.0, "taker_commission": 0.0005, "expiration_timestamp": 32503708800000,
            "creation_timestamp": 1534242287000,
        }
    ],
}  # fmt: skip
CHART = "public/get_tradingview_chart_data"


@pytest.mark.parametrize(
    "answer",
    [
        HANG,
        b"",
        result(None),
        result({"status": "no_data"}),
        result({"status": "ok", "ticks": [1], "close": []}),
        result("soon"),
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 12\r\n\r\n<html></html",
    ],
    ids=["hangs", "drops", "null", "no data", "ragged", "a word", "a gateway's page"],
)
async def test_whatever_deribit_answers_the_start_goes_on(answer):
    def told(request: Any) -> bytes:
        return answer if request.method == CHART else result(MARKETS[request.method])

    async with stub_venue(told) as stub, client_of(stub) as client:
        await client.load_markets()
        past = Past("deribit", deribit_candles(client, Pool(Budget(100.0, 100))), BTC)
        began = asyncio.get_running_loop().time()
        with capture_logs() as logs:
            assert await recalled(past, within_s=0.3) is None
        assert stub.count(CHART) == 1 and logs[-1]["event"] == "history.recall_failed"
        assert asyncio.get_running_loop().time() - began < 1.5


async def test_the_budget_of_queries_paces_the_questions():
    def told(request: Any) -> bytes:
        return result(MARKETS.get(request.method, {"status": "no_data"}))

    async with stub_venue(told) as stub, client_of(stub) as client:
        await client.load_markets()
        past = Past("deribit", deribit_candles(client, Pool(Budget(per_s=4.0, burst=2))), BTC)
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(recalled(past) for _ in range(4)))
        assert asyncio.get_running_loop().time() - began >= 0.45


async def test_the_simulated_venue_has_a_past_for_it():
    async with venue_running(clock=lambda: NOW_MS * 10**6) as server, client_of_server(server) as client:
        await client.load_markets()
        both = {"BTC": "BTC-PERPETUAL", "ETH": "ETH_USDC-PERPETUAL"}
        past = Past("deribit", deribit_candles(client, Pool(Budget(100.0, 100))), both)
        event = await recall([past], ["BTC", "ETH"], days=32.0, within_s=10.0, now_ns=NOW_MS * 10**6)
    assert event is not None and event.at_ns[-1] == LAST_MS * 10**6
    usd = np.array(event.usd)
    assert usd.shape == (768, 2) and np.isfinite(usd).all()


def client_of_server(server: Any) -> Any:
    class At:
        url = server.http_url

    return client_of(At, timeout_ms=5_000)  # type: ignore[arg-type]


async def test_binances_candles():
    now_ms = LISTED_MS + 2_000 * HOUR_MS + 10_000
    async with binance_running(now_ms) as stub, ClientSession() as http:
        past = Past("binanceusdm", binance_candles(HttpFetch(http, stub.http_url)), {"BTC": "BTCUSDT"})
        event = await recall([past], ["BTC"], days=60.0, within_s=10.0, now_ns=now_ms * 10**6)
    assert event is not None and len(event.at_ns) == 60 * 24 and len(stub.asked) == 2
    assert event.at_ns[-1] == (LISTED_MS + 2_000 * HOUR_MS) * 10**6
    assert column(event).tolist() == [price(at // 10**6 - HOUR_MS) + 1 for at in event.at_ns]


async def test_okxs_candles_come_newest_first_a_hundred_at_once():
    asked: list[dict[str, str]] = []

    def told(request: Any) -> bytes:
        if request.params.get("instId") != "BTC-USDT-SWAP" or request.params.get("bar") != "1H":
            return result(None)
        asked.append(request.params)
        after, before, limit = (int(request.params[name]) for name in ("after", "before", "limit"))
        found = [row for row in rows() if before < row[0] < after][::-1][:limit]
        body = {"code": "0", "data": [[str(cell) for cell in row] + ["1"] for row in found]}
        data = json.dumps(body).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data

    async with stub_venue(told) as stub, ClientSession() as http:
        fetch, page = okx_candles(HttpFetch(http, stub.url))
        past = Past("okx", Candles(fetch, 20), {"BTC": "BTC-USDT-SWAP"})
        assert np.array_equal(column(await recalled(past)), WALK)
        assert page == 100 and [int(one["limit"]) for one in asked] == [20, 20, 8]


async def test_a_history_that_stands_still_is_none():
    assert await recalled(telling(rows(np.full(HOURS, 65_000.0)))) is None
    assert await recalled(telling(rows(np.full(HOURS, 65_000.0), volume=None))) is None


async def test_a_jump_in_the_last_hours_does_not_cost_the_month_before_it():
    closes = WALK.copy()
    closes[-4:] *= 2.1
    kept = np.isfinite(column(await recalled(telling(rows(closes)))))
    assert kept.sum() >= HOURS - 6
