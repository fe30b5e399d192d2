"""Orders on the wire: exactly what was approved, and what the venue answered."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.domain.commands import CancelOrder, Resubscribe
from dea_daemon.domain.errors import InvariantViolation
from dea_daemon.domain.events import CancelRefused, CancelUnknown, FillReceived, OrderSeen, VenueOrderState
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.orders import TimeInForce
from dea_daemon.shell.gateway import create_params
from tests.shell.deribit_stub import (
    LABEL,
    NOW_NS,
    UNIVERSE,
    by_method,
    client_of,
    create,
    gateway_on,
    placed,
    raw_order,
    raw_trade,
    refusal,
    result,
    stub_venue,
)


async def wire_of(approved):
    async with stub_venue(lambda request: placed()) as stub, client_of(stub) as client:
        await gateway_on(client).submit(approved)
    (request,) = stub.requests
    return request.method, request.params


async def test_every_field_of_an_order_reaches_the_venue():
    method, params = await wire_of(create(post_only=True, reduce_only=True))
    assert method == "private/buy"
    assert params == {
        "instrument_name": "BTC-PERPETUAL",
        "type": "limit",
        "amount": "80",
        "price": "60000.5",
        "label": LABEL,
        "time_in_force": "good_til_cancelled",
        "valid_until": "1700000002000",
        "post_only": "true",
        "reject_post_only": "true",
        "reduce_only": "true",
    }


async def test_a_plain_ioc_sell_says_so_and_no_more():
    method, params = await wire_of(create(side=Side.SELL, time_in_force=TimeInForce.IOC))
    assert method == "private/sell"
    assert params["time_in_force"] == "immediate_or_cancel"
    assert not {"post_only", "reject_post_only", "reduce_only"} & set(params)


AWKWARD = [  # row, lots, ticks, amount and price as they must stand on the wire
    (1, 7 + 1, 70_003, "0.8", "3500.15"),  # 0.7 + 0.1 is 0.7999… in floats, which ccxt truncates to 0.7
    (1, 3, 70_001, "0.3", "3500.05"),
    (0, 1, 1, "10", "0.5"),
    (0, 8, 120_001, "80", "60000.5"),  # a half tick up; ccxt would round half up whatever the side
    (0, 100_000_000, 120_000, "1000000000", "60000"),  # no exponent
    (2, 1, 49, "0.1", "0.0049"),
    (2, 12, 55, "1.2", "0.0055"),  # above a tick step
    (2, 1, 1, "0.1", "0.0001"),  # no 1e-4
]


@pytest.mark.parametrize(("row", "lots", "ticks", "amount", "price"), AWKWARD)
async def test_amount_and_price_arrive_exactly(row, lots, ticks, amount, price):
    _, params = await wire_of(create(row, lots, ticks))
    assert (params["amount"], params["price"]) == (amount, price)


@given(
    st.integers(0, 2),
    st.integers(1, 10**9),
    st.integers(1, 10**9),
)
def test_no_count_of_lots_or_ticks_is_bent_on_its_way_to_the_wire(row, lots, ticks):
    # ccxt's own signing, without the socket: this URL is what goes out
    params = create_params(create(row, lots, ticks).order, UNIVERSE.instruments[row])
    signed = SIGNER.sign("buy", ["private"], "GET", params)
    sent = dict(pair.split("=") for pair in signed["url"].split("?")[1].split("&"))
    instrument = UNIVERSE.instruments[row]
    assert Decimal(sent["amount"]) == instrument.lot_size * lots
    assert Decimal(sent["price"]) == instrument.tick_size * ticks
    for text in (sent["amount"], sent["price"]):
        assert set(text) <= set("0123456789.")
        assert len(text.partition(".")[2]) <= 4


def _signer():
    import ccxt

    return ccxt.deribit({"apiKey": "id", "secret": "s"})


SIGNER = _signer()


async def test_the_answer_tells_the_fills_first_and_then_the_order():
    trades = [raw_trade(), raw_trade(trade_id="T-2", amount=50.0)]
    answer = placed(*trades, order_state="filled", filled_amount=80.0)
    async with stub_venue(lambda request: answer) as stub, client_of(stub) as client:
        first, second, order = await gateway_on(client).submit(create())
    assert isinstance(first, FillReceived)
    assert isinstance(second, FillReceived)
    assert isinstance(order, OrderSeen)
    assert [(f.trade_id, f.lots, f.price_ticks, f.ts_recv_ns) for f in (first, second)] == [
        ("T-1", 3, 120_001, NOW_NS),
        ("T-2", 5, 120_001, NOW_NS),
    ]
    assert (order.state, order.lots, order.filled_lots) == (VenueOrderState.FILLED, 8, 8)
    assert (order.client_order_id, order.venue_order_id) == (LABEL, "BTC-1")


CANCEL = CancelOrder(LABEL, 0, "BTC-1", "test")
CANCEL_BY_LABEL = CancelOrder(LABEL, 0, "", "test")


async def cancel_on(answer, command=CANCEL):
    async with stub_venue(answer) as stub, client_of(stub, timeout_ms=300) as client:
        return await gateway_on(client).cancel(command), stub.requests


async def test_a_cancel_goes_by_the_venues_id_and_tells_the_order():
    cancelled = raw_order(order_state="cancelled", filled_amount=30.0, cancel_reason="user_request")
    events, (request,) = await cancel_on(by_method(cancel=result(cancelled)))
    assert request.params == {"order_id": "BTC-1"}
    (order,) = events
    assert isinstance(order, OrderSeen)
    assert (order.state, order.filled_lots) == (VenueOrderState.CANCELLED, 3)


async def test_without_the_venues_id_a_cancel_goes_by_label_and_asks_what_became_of_it():
    answer = by_method(cancel_by_label=result(1), get_order_state_by_label=result([raw_order(order_state="cancelled")]))
    events, requests = await cancel_on(answer, CANCEL_BY_LABEL)
    assert [r.params for r in requests] == [{"label": LABEL, "currency": "BTC"}] * 2
    assert [event.state for event in events] == [VenueOrderState.CANCELLED]


async def test_a_label_that_cancelled_nothing_is_refused():
    events, requests = await cancel_on(by_method(cancel_by_label=result(0)), CANCEL_BY_LABEL)
    assert isinstance(events[0], CancelRefused)
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("code", "message"), [(10004, "order_not_found"), (10010, "already_closed"), (11044, "not_open_order")]
)
async def test_an_order_that_cannot_be_cancelled_is_refused(code, message):
    events, _ = await cancel_on(by_method(cancel=refusal(code, message)))
    assert events == [CancelRefused(NOW_NS, LABEL, f"{message} ({code})")]


@pytest.mark.parametrize("answer", [b"", refusal(10040, "retry"), result(None), result(raw_order(amount="x"))])
async def test_a_cancel_without_a_readable_answer_is_unknown(answer):
    events, requests = await cancel_on(by_method(cancel=answer))
    assert isinstance(events[0], CancelUnknown)
    assert len(requests) == 1


async def test_a_cancel_by_label_whose_second_answer_is_lost_is_unknown():
    events, _ = await cancel_on(by_method(cancel_by_label=result(1), get_order_state_by_label=b""), CANCEL_BY_LABEL)
    assert isinstance(events[0], CancelUnknown)


async def test_what_is_not_for_a_gateway_is_our_bug():
    async with stub_venue() as stub, client_of(stub) as client:
        with pytest.raises(InvariantViolation):
            await gateway_on(client).perform(Resubscribe(0))


async def test_orders_are_signed_over_what_is_sent():
    """Deribit checks the signature against the raw path, so amounts must not change after signing."""
    import hashlib
    import hmac

    async with stub_venue(lambda request: placed()) as stub, client_of(stub) as client:
        await gateway_on(client).submit(create())
    (request,) = stub.requests
    parts = dict(pair.split("=") for pair in request.authorization.split(" ", 1)[1].split(","))
    signed = f"{parts['ts']}\n{parts['nonce']}\nGET\n/api/v2/private/buy?{request.query}\n\n"
    assert parts["sig"] == hmac.new(b"planted-secret", signed.encode(), hashlib.sha256).hexdigest()


def test_the_instrument_of_another_account_is_our_bug():
    gateway = gateway_on(None)
    gateway._account = 1
    with pytest.raises(InvariantViolation):
        gateway._instrument(0)
