"""The simulated venue over real sockets: requests, subscriptions, the witness, who is let in and who is dropped."""

import asyncio
import json

import aiohttp
import pytest

from dea_daemon.domain.errors import ConfigError
from dea_daemon.simvenue.deribit import Limits
from dea_daemon.wiring.venue import build_server, serve_venue
from tests.shell.venue_clients import KEY, basic, http_to, venue_running, witnessed, ws_to

BTC = "BTC-PERPETUAL"


async def test_get_and_post_answer_alike_and_a_wrong_key_is_http_400():
    async with venue_running() as server, http_to(server) as client:
        assert await client.result("public/get_instrument", instrument_name=BTC)
        request = {"jsonrpc": "2.0", "id": 5, "method": "public/get_instrument", "params": {"instrument_name": BTC}}
        for path in ("", "/public/get_instrument"):
            async with client.http.post(f"{server.http_url}/api/v2{path}", json=request) as response:
                body = await response.json()
                assert (response.status, body["id"], body["result"]["instrument_name"]) == (200, 5, BTC)
        url = f"{server.http_url}/api/v2/private/get_positions"
        async with client.http.get(url, headers=basic("wrong")) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (400, 13004)


@pytest.mark.parametrize(("body", "code"), [(b"{", -32700), (b"\xff", -32700), (b"[]", 11050), (b"x" * 40_000, -32600)])
async def test_a_body_that_is_no_request_is_refused(body, code):
    async with (
        venue_running() as server,
        http_to(server) as client,
        client.http.post(f"{server.http_url}/api/v2", data=body) as response,
    ):
        assert (response.status, (await response.json())["error"]["code"]) == (400, code)


async def test_only_loopback_names_are_served():
    async with venue_running() as server, http_to(server) as client:
        headers = {"Host": "evil.example"}
        async with client.http.get(f"{server.http_url}/api/v2/public/test", headers=headers) as response:
            assert response.status == 403
        assert server.http_url.startswith("http://127.0.0.1:")


async def test_a_websocket_asks_subscribes_and_hears_the_market():
    async with venue_running() as server, ws_to(server) as client:
        assert (await client.authenticate())["token_type"] == "bearer"
        channels = ["book.BTC-PERPETUAL.raw", "ticker.ETH_USDC-PERPETUAL.100ms"]
        assert await client.ask("private/subscribe", channels=channels) == channels
        assert client.heard == []  # the reply comes before the first notification
        first = [(await client.receive())["params"] for _ in range(2)]
        assert [message["channel"] for message in first] == channels
        assert first[0]["data"]["type"] == "snapshot"
        change_id = first[0]["data"]["change_id"]
        for _ in range(30):
            message = (await client.receive())["params"]
            if message["channel"] == channels[0]:
                assert message["data"]["prev_change_id"] == change_id
                change_id = message["data"]["change_id"]
        await client.socket.send_str("{garbage")
        while "id" not in (message := await client.receive()) and "error" not in message:
            pass
        assert message["error"]["code"] == -32700


async def test_replies_come_in_the_order_of_the_requests():
    async with venue_running() as server, ws_to(server) as client:
        sent = [await client.send("public/test") for _ in range(50)]
        assert [(await client.receive())["id"] for _ in sent] == sent


async def test_the_witness_has_a_line_for_everything_before_the_client_hears_of_it(tmp_path):
    log = tmp_path / "witness.jsonl"
    async with venue_running(log=log) as server, http_to(server) as client:
        _, body = await client.buy(label="d1")
        trades = body["result"]["trades"]
        assert [line["event"] for line in witnessed(log)] == ["order.accepted", *["order.filled"] * len(trades)]
        await client.get("private/buy", instrument_name=BTC, amount=11, price=64_000, label="d2")
        lines = witnessed(log)
    assert [line["trade_id"] for line in lines if line["event"] == "order.filled"] == [t["trade_id"] for t in trades]
    accepted, rejected = lines[0], lines[-1]
    assert accepted == {
        "ts": accepted["ts"],
        "event": "order.accepted",
        "account": "main",
        "instrument": BTC,
        "label": "d1",
        "order_id": body["result"]["order"]["order_id"],
        "side": "buy",
        "amount": 10.0,
        "filled_amount": 0.0,
        "price": accepted["price"],
        "position_after": 0.0,
    }
    assert lines[-2]["position_after"] == 10.0
    assert (rejected["event"], rejected["label"], rejected["code"]) == ("order.rejected", "d2", -32602)


async def test_a_dropped_connection_cancels_its_own_orders():
    async with venue_running() as server, http_to(server) as outside:
        async with ws_to(server) as client:
            await client.authenticate()
            assert await client.ask("private/enable_cancel_on_disconnect") == "ok"
            await client.ask("private/buy", instrument_name=BTC, amount=10, price=64_000, label="ws")
            await outside.get("private/buy", instrument_name=BTC, amount=10, price=64_000, label="rest")
            assert len(await outside.result("private/get_open_orders")) == 2
        await asyncio.sleep(0.1)
        assert [o["label"] for o in await outside.result("private/get_open_orders")] == ["rest"]


async def test_a_client_that_does_not_read_is_dropped_and_the_others_go_on():
    async with venue_running() as server, ws_to(server) as lively:
        await lively.ask("public/subscribe", channels=["ticker.BTC-PERPETUAL.100ms"])
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1_024)
        writer.write(
            b"GET /ws/api/v2 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b"101" in await reader.readline()
        lazy = list(server.venue.sessions)[-1]
        sent = 0
        while lazy in server.venue.sessions:
            lazy.post(b"x" * 1_000)
            sent += 1
            if sent % 100 == 0:
                await asyncio.sleep(0.001)
            assert sent < 40_000, "buffered without bound"
        heard = [await lively.receive() for _ in range(5)]
        assert len(heard) == 5
        writer.close()


async def test_credits_end_in_429_and_then_in_a_closed_connection():
    limits = Limits(other_rate=1, other_burst=5)
    async with venue_running(limits=limits) as server, http_to(server) as client:
        statuses = [(await client.get("public/get_time"))[0] for _ in range(6)]
        assert statuses == [200] * 5 + [429]
        async with ws_to(server) as socket_client:
            replies = [await socket_client.ask("public/get_time") for _ in range(4)]
            assert {reply["code"] for reply in replies} == {10028}
            assert await socket_client.closed()


async def test_a_logout_closes_in_good_order():
    async with venue_running() as server, ws_to(server) as client:
        await client.authenticate()
        await client.send("private/logout")
        assert await client.closed()


async def test_a_taken_port_and_wrong_names_are_said_plainly(tmp_path):
    async with venue_running() as server:
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{server.port}"):
            async with venue_running(port=server.port):
                pass
    with pytest.raises(ConfigError, match="default"):
        build_server(seed=1, scenario="nonsense")
    with pytest.raises(ConfigError, match="nowhere"):
        async with venue_running(log=tmp_path / "nowhere" / "log"):
            pass


async def test_serving_says_where_it_listens_until_it_is_cancelled(tmp_path):
    said: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    serving = asyncio.create_task(
        serve_venue(port=0, seed=7, scenario="calm", log=tmp_path / "log", emit=said.put_nowait)
    )
    event = await said.get()
    assert event == {
        "event": "venue.listening",
        "http_url": event["http_url"],
        "ws_url": event["http_url"].replace("http", "ws") + "/ws/api/v2",
        "client_id": KEY.client_id,
        "client_secret": KEY.client_secret,
    }
    async with aiohttp.ClientSession() as http, http.get(event["http_url"] + "/api/v2/public/test") as response:
        assert json.loads(await response.text())["result"] == {"version": "1.2.26"}
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_market_that_fails_is_reported_and_ends_the_serving(monkeypatch):
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    async with venue_running() as server:

        def fail(now_ns: int) -> None:
            raise ArithmeticError("the market broke")

        monkeypatch.setattr(server.venue, "advance", fail)
        with pytest.raises(ArithmeticError):
            await server.wait()
    assert told == ["venue market failed"]
