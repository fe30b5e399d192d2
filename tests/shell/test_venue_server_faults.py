"""Faults of the wire as a client meets them, and what the venue did meanwhile."""

import asyncio
import time

import aiohttp
import pytest

from dea_daemon.domain.numbers import NS_PER_MS
from tests.shell.venue_clients import HttpClient, basic, http_to, venue_running, ws_to

BTC = "BTC-PERPETUAL"


async def position(client: HttpClient) -> float:
    return float((await client.result("private/get_position", instrument_name=BTC))["size"])


@pytest.mark.parametrize(("action", "traded"), [("hang_before", 0.0), ("hang_after", 10.0)])
async def test_a_hanging_request_times_out_and_may_have_traded(action, traded):
    async with venue_running() as server, http_to(server) as client:
        server.faults.next("private/buy", action)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.buy(), 0.2)
        assert await position(client) == traded
        assert (await client.buy())[0] == 200


@pytest.mark.parametrize(("action", "traded"), [("drop_before", 0.0), ("drop_after", 10.0)])
async def test_a_dropped_request_may_have_traded(action, traded):
    async with venue_running() as server, http_to(server) as client:
        server.faults.next("private/sell", action)
        asked = {"instrument_name": BTC, "amount": 10, "type": "market"}
        client.http._retry_connection = False  # aiohttp would send it twice, silently
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.get("private/sell", **asked)
        assert await position(client) == -traded


@pytest.mark.parametrize(
    ("action", "status", "start"),
    [
        ("http_500_after", 500, "internal"),
        ("html", 200, "<html>"),
        ("truncated", 200, '{"jsonrpc"'),
        ("null_body", 200, "null"),
    ],
)
async def test_a_spoilt_reply_hides_an_order_that_was_made(action, status, start):
    async with venue_running() as server, http_to(server) as client:
        server.faults.next("private/buy", action)
        url = f"{server.http_url}/api/v2/private/buy?instrument_name={BTC}&amount=10&type=market"
        async with client.http.get(url, headers=basic()) as response:
            text = await response.text()
        assert (response.status, text[: len(start)]) == (status, start)
        if action == "truncated":
            assert not text.endswith("}")
        assert await position(client) == 10.0


async def test_a_refused_rate_did_nothing():
    async with venue_running() as server, http_to(server) as client:
        server.faults.next("private/*", "rate_limited")
        status, body = await client.buy()
        assert (status, body["error"]["code"]) == (429, 10028)
        assert await position(client) == 0.0


async def test_slow_answers_late_and_late_trades_late_even_when_nobody_waits():
    async with venue_running() as server, http_to(server) as client:
        server.faults.next("private/buy", "slow:150")
        started = time.monotonic()
        assert (await client.buy())[0] == 200
        assert time.monotonic() - started > 0.14
        server.faults.next("private/buy", "late:200")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.buy(), 0.05)
        assert await position(client) == 10.0
        await asyncio.sleep(0.3)
        assert await position(client) == 20.0


async def test_a_late_request_past_its_deadline_is_never_made():
    async with venue_running() as server, http_to(server) as client:
        server.faults.next("private/buy", "late:200")
        now_ms = await client.result("public/get_time")
        status, body = await client.buy(valid_until=now_ms + 100)
        assert (status, body["error"]["code"]) == (400, 13888)
        assert server.venue.exchange.now_ns // NS_PER_MS >= now_ms + 200
        assert await position(client) == 0.0


async def test_faults_strike_a_websocket_too():
    async with venue_running() as server, ws_to(server) as client:
        server.faults.next("public/get_time", "hang_after")
        server.faults.next("public/hello", "html")
        await client.send("public/get_time")
        assert await client.ask("public/test")  # others go on
        await client.send("public/hello")
        with pytest.raises(ValueError):
            await client.receive()
        server.faults.next("public/test", "drop_before")
        await client.send("public/test")
        assert await client.closed()


async def test_garbage_comes_between_messages_and_close_ends_the_stream():
    async with venue_running() as server, ws_to(server) as client:
        server.faults.next("ticker.*", "garbage")
        await client.ask("public/subscribe", channels=["ticker.BTC-PERPETUAL.100ms"])
        with pytest.raises(ValueError):
            await client.receive()
        assert (await client.receive())["params"]["channel"] == "ticker.BTC-PERPETUAL.100ms"
        server.faults.next("ticker.*", "close")
        assert await client.closed()


async def test_faults_come_from_the_command_line_too():
    async with venue_running(faults=("private/buy=rate_limited:1", "public/*=html:0")) as server, http_to(server) as c:
        assert (await c.buy())[0] == 429
        assert await c.result("public/get_time")
