"""Keys, tokens, heartbeats, cancel on disconnect, credits: the connection rather than the market."""

import base64
from typing import Any

import pytest

from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.simvenue.deribit import Limits, Session
from tests.simvenue.deribit_desk import BTC, KEY, READER, Desk, Said, signature


@pytest.fixture
def desk() -> Desk:
    return Desk()


def refusal_of(desk: Desk, method: str, session: Session | None = None, **params: Any) -> int:
    with pytest.raises(Said) as said:
        desk.ask(method, session, **params)
    return said.value.code


def login(desk: Desk, secret: str = KEY.client_secret, nonce: str = "n", age_ms: int = 0) -> dict[str, Any]:
    stamp = desk.now_ns // NS_PER_MS - age_ms
    signed = signature(secret, f"{stamp}\n{nonce}\ndata")
    return {
        "grant_type": "client_signature",
        "client_id": KEY.client_id,
        "timestamp": stamp,
        "nonce": nonce,
        "data": "data",
        "signature": signed,
    }


def header(desk: Desk, path: str, nonce: str = "n", secret: str = KEY.client_secret, body: str = "") -> str:
    stamp = desk.now_ns // NS_PER_MS
    signed = signature(secret, f"{stamp}\n{nonce}\nGET\n{path}\n{body}\n")
    return f"deri-hmac-sha256 id={KEY.client_id},ts={stamp},sig={signed},nonce={nonce}"


def authorise(desk: Desk, value: str, path: str = "/x") -> int | None:
    """The code of the refusal, None when let in."""
    refused = desk.venue.authorise(desk.venue.open(websocket=False), value, "GET", path, "", desk.now_ns)
    return None if refused is None else refused.body["error"]["code"]


def test_without_a_key_private_methods_are_closed(desk):
    assert refusal_of(desk, "private/get_positions", desk.connect()) == 13009


def test_the_reply_names_the_scope_and_never_the_wallet(desk):
    reply = desk.authenticate(KEY, desk.connect())
    assert reply["scope"].split() == ["account:read_write", "connection", "trade:read_write", "wallet:none"]
    assert (reply["token_type"], reply["expires_in"]) == ("bearer", 900)


@pytest.mark.parametrize("change", [{"client_secret": "wrong"}, {"client_id": "nobody"}])
def test_a_wrong_key_is_refused_with_http_400(desk, change):
    params = {"grant_type": "client_credentials", "client_id": KEY.client_id, "client_secret": KEY.client_secret}
    reply = desk.venue.handle(
        desk.connect(), {"id": 7, "method": "public/auth", "params": params | change}, desk.now_ns
    )
    assert (reply.status, reply.body["error"]["code"], reply.body["id"]) == (400, 13004, 7)


def test_a_signature_opens_once_while_it_is_fresh(desk):
    session, good = desk.connect(), login(desk)
    assert desk.ask("public/auth", session, **good)["access_token"]
    assert refusal_of(desk, "public/auth", session, **good) == 13009
    assert refusal_of(desk, "public/auth", session, **login(desk, secret="wrong", nonce="b")) == 13004
    assert refusal_of(desk, "public/auth", session, **login(desk, nonce="c", age_ms=61_000)) == 13009
    assert desk.ask("public/auth", session, **login(desk, nonce="d"))["access_token"]


def test_an_http_signature_covers_the_path_and_opens_once(desk):
    good = header(desk, "/x")
    assert authorise(desk, good, "/y") == 13004
    assert authorise(desk, good) is None
    assert authorise(desk, good) == 13009
    assert authorise(desk, header(desk, "/z"), "/z") is None  # same millisecond and nonce, another request
    desk.sleep(200_000)
    assert authorise(desk, good) == 13009


@pytest.mark.parametrize(
    "value", ["Basic !!", "Basic " + base64.b64encode(b"a:b").decode(), "deri-hmac-sha256 id=1", "x"]
)
def test_a_malformed_header_is_refused(desk, value):
    assert authorise(desk, value) == 13004


def test_basic_and_bearer_open_too(desk):
    basic = base64.b64encode(f"{KEY.client_id}:{KEY.client_secret}".encode()).decode()
    assert authorise(desk, f"Basic {basic}") is None
    over_http = desk.authenticate(KEY, desk.venue.open(websocket=False))
    assert authorise(desk, f"bearer {over_http['access_token']}") is None
    desk.sleep(901_000)
    assert authorise(desk, f"Bearer {over_http['access_token']}") == 13009


def test_a_websockets_token_dies_with_its_refresh_and_stays_on_its_connection(desk):
    session, elsewhere = desk.connect(), desk.connect()
    reply = desk.authenticate(KEY, session)
    assert refusal_of(desk, "private/get_positions", elsewhere, access_token=reply["access_token"]) == 13009
    renewed = desk.ask("public/auth", session, grant_type="refresh_token", refresh_token=reply["refresh_token"])
    assert refusal_of(desk, "private/get_positions", session, access_token=reply["access_token"]) == 13009
    again = {"grant_type": "refresh_token", "refresh_token": reply["refresh_token"]}
    assert refusal_of(desk, "public/auth", session, **again) == 13009
    assert desk.ask("private/get_positions", session, access_token=renewed["access_token"]) == []


def test_a_session_expires_unless_renewed(desk):
    desk.sleep(901_000)
    assert refusal_of(desk, "private/get_positions") == 13009


def test_a_reading_key_may_not_trade_and_a_wish_for_less_is_granted(desk):
    reader = desk.connect(READER)
    assert desk.ask("private/get_positions", reader) == []
    assert refusal_of(desk, "private/buy", reader, instrument_name=BTC, amount=10, type="market") == 13021
    assert refusal_of(desk, "private/enable_cancel_on_disconnect", reader) == 13021
    modest = desk.connect()
    assert "trade:read " in desk.authenticate(KEY, modest, scope="trade:read wallet:read_write")["scope"]
    assert refusal_of(desk, "private/cancel_all", modest) == 13021


def test_only_a_websocket_may_subscribe(desk):
    assert refusal_of(desk, "public/subscribe", desk.venue.open(websocket=False), channels=[]) == 10030


def test_malformed_requests_are_refused_with_their_id(desk):
    malformed: list[Any] = [[], {"id": 3}, {"id": 3, "method": "public/test", "params": []}, "x", None]
    for request in malformed:
        assert desk.venue.handle(desk.session, request, desk.now_ns).body["error"]["code"] == 11050
    reply = desk.venue.handle(desk.session, {"id": 9, "method": "public/nothing"}, desk.now_ns)
    assert (reply.body["id"], reply.body["error"]) == (9, {"code": -32601, "message": "Method not found"})
    assert reply.body["testnet"] is True
    assert reply.body["usIn"] == desk.now_ns // 1_000


def test_a_heart_beats_and_whoever_does_not_answer_is_cut_off(desk):
    assert refusal_of(desk, "public/set_heartbeat", interval=5) == -32602
    desk.ask("public/set_heartbeat", interval=10)
    desk.sleep(9_900)
    assert desk.heard() == []
    desk.sleep(200)
    kinds = [message["params"]["type"] for message in desk.heard()]
    assert kinds == ["heartbeat", "test_request"]
    desk.ask("public/test")
    desk.sleep(10_100)
    assert desk.session.closing == ""
    desk.sleep(10_100)
    assert desk.session.closing == "test_request was not answered"


def test_a_lost_connection_cancels_what_it_created_and_nothing_else(desk):
    keeper, loser = desk.rest(), desk.connect(KEY)
    assert desk.ask("private/enable_cancel_on_disconnect", loser) == "ok"
    price = keeper["price"]
    lost = desk.ask("private/buy", loser, instrument_name=BTC, amount=10, price=price)["order"]
    filled = desk.ask("private/buy", loser, instrument_name=BTC, amount=10, type="market")["order"]
    over_http = desk.venue.open(websocket=False)
    assert desk.venue.authorise(over_http, header(desk, "/x"), "GET", "/x", "", desk.now_ns) is None
    kept = desk.ask("private/buy", over_http, instrument_name=BTC, amount=10, price=price)["order"]
    desk.venue.close(loser, desk.now_ns)
    still = {order["order_id"] for order in desk.ask("private/get_open_orders")}
    assert still == {keeper["order_id"], kept["order_id"]}
    assert desk.ask("private/get_order_state", order_id=lost["order_id"])["order_state"] == "cancelled"
    assert desk.ask("private/get_order_state", order_id=filled["order_id"])["order_state"] == "filled"


@pytest.mark.parametrize("method", ["private/disable_cancel_on_disconnect", "private/logout"])
def test_a_connection_may_leave_its_orders(desk, method):
    session = desk.connect(KEY)
    desk.ask("private/enable_cancel_on_disconnect", session)
    desk.ask("private/buy", session, instrument_name=BTC, amount=10, price=64_000)
    desk.ask(method, session)
    desk.venue.close(session, desk.now_ns)
    assert len(desk.ask("private/get_open_orders")) == 1


def test_credits_run_out_refill_and_matching_has_its_own():
    desk = Desk(limits=Limits(matching_rate=2, matching_burst=3, other_rate=10, other_burst=5))
    for _ in range(3):
        desk.ask("private/cancel_all")
    reply = desk.venue.handle(desk.session, {"id": 1, "method": "private/cancel_all", "params": {}}, desk.now_ns)
    assert (reply.status, reply.body["error"]["code"]) == (429, 10028)
    assert desk.ask("private/get_positions") == []
    desk.sleep(500)
    assert desk.ask("private/cancel_all") == 0
    assert refusal_of(desk, "private/cancel_all") == 10028
    assert desk.session.closing == ""


def test_whoever_keeps_asking_without_credit_is_cut_off():
    desk = Desk(limits=Limits(other_rate=1, other_burst=5))
    for _ in range(5):
        desk.ask("public/get_time", desk.session)
    for _ in range(5):
        assert refusal_of(desk, "public/get_time") == 10028
    assert desk.session.closing == "too_many_requests"
