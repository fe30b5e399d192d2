"""What an error proves about an order: almost always nothing."""

import asyncio
import gzip
import socket

import pytest

from dea_daemon.domain.events import CreateRefused, CreateUnknown, OrderSeen
from dea_daemon.shell.ccxt_client import classify, venue_error
from tests.shell.deribit_stub import (
    DROP,
    HANG,
    LABEL,
    Request,
    Stub,
    client_of,
    create,
    gateway_on,
    http,
    placed,
    refusal,
    result,
    stub_venue,
)

GOOD = placed()
UNKNOWN = {
    "hangs": HANG,
    "drops before the headers": b"",
    "drops inside the headers": b"HTTP/1.1 200 OK\r\nContent-Ty" + DROP,
    "drops after the headers": GOOD.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + DROP,
    "drops inside the body": GOOD[:-40] + DROP,
    "speaks no HTTP": b"\x16\x03\x01\x00\x00 what?\r\n\r\n" + DROP,
    "says 500": http(b"internal error", "500 Internal Server Error", "text/plain"),
    "says 502 in HTML": http(b"<html>Bad Gateway</html>", "502 Bad Gateway", "text/html"),
    "says 503 with no body": http(b"", "503 Service Unavailable"),
    "says 504": http(b"{}", "504 Gateway Timeout"),
    "says 400 in HTML": http(b"<html>", "400 Bad Request", "text/html"),
    "says 401 in HTML": http(b"<html>denied</html>", "401 Unauthorized", "text/html"),
    "says 403 in HTML": http(b"<html>challenge</html>", "403 Forbidden", "text/html"),
    "says 429 in HTML": http(b"<html>slow down</html>", "429 Too Many Requests", "text/html"),
    "answers HTML": http(b"<html>maintenance</html>", "200 OK", "text/html"),
    "answers nothing": http(b""),
    "answers null": http(b"null"),
    "answers null as bytes": http(b"null", "200 OK", "application/octet-stream"),
    "answers a list": http(b"[]"),
    "answers a number": http(b"17"),
    "answers truncated JSON": http(GOOD.partition(b"\r\n\r\n")[2][:-20]),
    "answers bad gzip": http(b"\x1f\x8b\x08garbage", "200 OK", "application/json", "Content-Encoding: gzip"),
    "answers cut gzip": http(gzip.compress(GOOD)[:-9], "200 OK", "application/json", "Content-Encoding: gzip"),
    "answers without a result": http(b'{"jsonrpc": "2.0"}'),
    "answers a null result": result(None),
    "answers a result without an order": result({"trades": []}),
    "answers a result without trades": result({"order": {}}),
    "answers with an order it cannot be": placed(amount="NaN"),
    "answers with an unknown state": placed(order_state="pondering"),
    "answers with another order": placed(label="d0000001000000zz"),
    "answers an error that is text": http(b'{"error": "no"}', "400 Bad Request"),
    "answers an error without a code": http(b'{"error": {"message": "no"}}', "400 Bad Request"),
    "answers a general error": refusal(10001, "error"),
    "answers retry": refusal(10040, "retry"),
    "answers settlement_in_progress": refusal(10041, "settlement_in_progress"),
    "answers system_maintenance": refusal(11051, "system_maintenance"),
    "answers internal_server_error": refusal(11094, "internal_server_error"),
    "answers an error nobody knows": refusal(98765, "surprise"),
}
REFUSED = {
    "qty_too_low": 10002,
    "order_overlap": 10003,
    "price_too_high": 10007,
    "not_enough_funds": 10009,
    "invalid_amount": 10021,
    "price_wrong_tick": 10043,
    "other_reject invalid_reduce_only_order": 11030,
    "permission_denied": 11042,
    "bad_request": 11050,
    "post_only_reject": 11054,
    "invalid_credentials": 13004,
    "unauthorized": 13009,
    "forbidden": 13021,
    "timed_out": 13888,
    "Invalid params": -32602,
    "Method not found": -32601,
}


async def outcome_of(answer: bytes) -> tuple[object, Stub, list[int]]:
    throttled: list[int] = []
    async with stub_venue(lambda request: answer) as stub, client_of(stub, timeout_ms=300) as client:
        (event,) = await gateway_on(client, on_throttled=throttled.append).submit(create())
    assert stub.count("private/buy") == 1
    return event, stub, throttled


@pytest.mark.parametrize("how", UNKNOWN)
async def test_an_executed_order_is_unknown_when_the_venue(how):
    event, _, _ = await outcome_of(UNKNOWN[how])
    assert isinstance(event, CreateUnknown), event
    assert event.client_order_id == LABEL
    assert event.reason


@pytest.mark.parametrize("message", REFUSED)
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
async def test_the_venues_own_refusal_is_definite(message, status):
    event, _, throttled = await outcome_of(refusal(REFUSED[message], message, status))
    assert isinstance(event, CreateRefused), event
    assert event.sent
    assert event.reason == f"{message} ({REFUSED[message]})"
    assert event.retry_after_ms == 0
    assert not throttled


async def test_a_refusal_says_which_parameter():
    event, _, _ = await outcome_of(refusal(-32602, "Invalid params", param="amount", reason="wrong format"))
    assert isinstance(event, CreateRefused)
    assert "amount" in event.reason


@pytest.mark.parametrize(("code", "message"), [(10028, "too_many_requests"), (10047, "matching_engine_queue_full")])
async def test_too_many_requests_is_a_refusal_that_says_when_to_come_back(code, message):
    event, _, throttled = await outcome_of(refusal(code, message, "429 Too Many Requests"))
    assert isinstance(event, CreateRefused)
    assert event.retry_after_ms > 0
    assert throttled == [event.retry_after_ms]


async def test_a_bare_429_slows_us_down_but_proves_nothing():
    event, _, throttled = await outcome_of(UNKNOWN["says 429 in HTML"])
    assert isinstance(event, CreateUnknown)
    assert throttled


async def test_no_connection_means_never_sent():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connecting is refused
        stub = Stub(url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        async with client_of(stub) as client:
            (event,) = await gateway_on(client).submit(create())
    assert isinstance(event, CreateRefused)
    assert not event.sent


async def test_a_good_answer_after_a_bad_one_is_read():
    answers = iter([b"", GOOD])
    async with stub_venue(lambda request: next(answers)) as stub, client_of(stub) as client:
        gateway = gateway_on(client)
        first, second = await gateway.submit(create()), await gateway.submit(create())
    assert isinstance(first[0], CreateUnknown)
    assert isinstance(second[0], OrderSeen)


async def test_a_cancelled_task_is_not_swallowed():
    arrived = asyncio.Event()

    def answer(request: Request) -> bytes:
        arrived.set()
        return HANG

    async with stub_venue(answer) as stub, client_of(stub) as client:
        task = asyncio.create_task(gateway_on(client).submit(create()))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("error", [TypeError("x"), ValueError("x"), KeyError("x"), OSError("x"), RuntimeError()])
def test_an_error_of_no_known_kind_is_unknown(error):
    outcome = classify(error)
    assert not outcome.certain
    assert outcome.sent


def test_a_venue_error_is_only_what_stands_alone_after_the_venues_name():
    body = '{"error": {"code": 10009, "message": "not_enough_funds"}}'
    assert venue_error(Exception(f"deribit {body}")) == "not_enough_funds (10009)"
    assert not venue_error(Exception(f"deribit GET https://x/ 401 Unauthorized {body}"))
    assert not venue_error(Exception("deribit"))


async def test_no_reason_carries_the_secret_or_the_signature():
    for answer in (HANG, b"", http(b"no", "500 Internal Server Error", "text/plain"), refusal(13009)):
        event, stub, _ = await outcome_of(answer)
        signature = stub.requests[0].authorization
        assert "sig=" in signature
        assert "planted-secret" not in repr(event)
        assert "sig=" not in repr(event)
