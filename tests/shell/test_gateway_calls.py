"""Start-up checks, and cancelling our own orders without the engine."""

import pytest

from dea_daemon.domain.errors import ConfigError, VenueError
from dea_daemon.domain.instruments import Kind, Payoff
from dea_daemon.domain.orders import client_order_id
from dea_daemon.shell import venue_calls
from dea_daemon.shell.venue_calls import cancel_all_own, check_account, load_instruments
from tests.shell.deribit_stub import (
    LABEL,
    UTC_NS,
    by_method,
    client_of,
    raw_order,
    refusal,
    result,
    stub_venue,
)

CURRENCY = {"currency": "BTC", "currency_long": "Bitcoin", "fee_precision": 4, "min_confirmations": 1}
PERPETUAL = {
    "instrument_name": "BTC-PERPETUAL",
    "kind": "future",
    "instrument_type": "reversed",
    "base_currency": "BTC",
    "quote_currency": "USD",
    "counter_currency": "USD",
    "settlement_currency": "BTC",
    "settlement_period": "perpetual",
    "contract_size": 10.0,
    "min_trade_amount": 10.0,
    "tick_size": 0.5,
    "tick_size_steps": [],
    "maker_commission": 0.0,
    "taker_commission": 0.0005,
    "expiration_timestamp": 32503708800000,
    "creation_timestamp": 1534167754000,
    "is_active": True,
}
COMBO = PERPETUAL | {"instrument_name": "BTC-FS-26JUN26_PERP", "kind": "future_combo"}


async def instruments(wanted=lambda name: True, listed=(PERPETUAL, COMBO)):
    answer = by_method(get_currencies=result([CURRENCY]), get_instruments=result(list(listed)))
    async with stub_venue(answer) as stub, client_of(stub) as client:
        return await load_instruments(client, wanted)


async def test_contracts_are_listed_through_ccxt_in_our_words():
    (instrument,) = await instruments()  # the combo is no kind of ours
    assert (instrument.name, instrument.kind, instrument.payoff) == (
        "BTC-PERPETUAL",
        Kind.PERPETUAL,
        Payoff.INVERSE,
    )
    assert (str(instrument.tick_size), instrument.taker_fee) == ("0.5", 0.0005)


async def test_only_wanted_contracts_are_read():
    assert await instruments(lambda name: name == "ETH-PERPETUAL") == []
    broken = PERPETUAL | {"instrument_name": "ODD", "tick_size": 0.1, "min_trade_amount": "?"}
    assert len(await instruments(lambda name: name == "BTC-PERPETUAL", (PERPETUAL, broken))) == 1


@pytest.mark.parametrize("answer", [b"", result(None), refusal(10040, "retry")])
async def test_a_venue_that_does_not_list_is_a_venue_error(answer):
    async with stub_venue(lambda request: answer) as stub, client_of(stub, timeout_ms=300) as client:
        with pytest.raises(VenueError):
            await load_instruments(client)


GOOD = {
    "get_time": result(UTC_NS // 1_000_000 + 40),
    "auth": result({"scope": "account:read_write trade:read_write wallet:read session:x"}),
    "get_account_summaries": result(
        {"summaries": [{"currency": "BTC", "margin_model": "cross_sm"}, {"currency": "USDC"}]}
    ),
}


async def facts(expected=None, **answers):
    async with stub_venue(by_method(**(GOOD | answers))) as stub, client_of(stub, timeout_ms=300) as client:
        return await check_account(client, lambda: UTC_NS, **(expected or {})), stub.requests


async def test_the_facts_of_an_account_are_told():
    found, requests = await facts()
    assert found.clock_skew_ms == 40.0
    assert found.may_trade
    assert found.may_withdraw is False
    assert found.margin_models == {"BTC": "cross_sm", "USDC": "not told"}
    assert found.fees == ()
    assert not any("planted-secret" in request.query for request in requests)
    assert requests[1].params["grant_type"] == "client_signature"


async def test_a_key_that_may_withdraw_is_told():
    found, _ = await facts(auth=result({"scope": "trade:read_write wallet:read_write"}))
    assert found.may_withdraw is True


async def test_a_scope_that_is_not_told_is_not_taken_for_harmless():
    found, _ = await facts({"must_trade": False}, auth=result({}))
    assert found.may_withdraw is None
    assert not found.may_trade


@pytest.mark.parametrize(
    ("expected", "answers", "told"),
    [
        ({"margin_model": "cross_pm"}, {}, "expected cross_pm, found cross_sm"),
        ({"margin_model": "cross_sm"}, {}, "USDC: expected cross_sm, found not told"),
        ({"max_skew_ms": 30.0}, {}, "found +40 ms"),
        ({}, {"get_time": result(UTC_NS // 1_000_000 - 5_000)}, "found -5000 ms"),
        ({}, {"auth": result({"scope": "trade:read"})}, "expected the scope trade:read_write, found trade:read"),
        ({}, {"auth": refusal(13004, "invalid_credentials")}, "invalid_credentials (13004)"),
    ],
)
async def test_an_account_that_is_not_as_configured_is_refused_with_both_told(expected, answers, told):
    with pytest.raises(ConfigError) as caught:
        await facts(expected, **answers)
    assert told in str(caught.value)


@pytest.mark.parametrize("method", GOOD)
@pytest.mark.parametrize("answer", [b"", result(None), refusal(10040, "retry")])
async def test_a_venue_that_does_not_answer_a_check_is_a_venue_error(method, answer):
    with pytest.raises(VenueError):
        await facts(**{method: answer})


FOREIGN = {"LABELLED": "by hand", "UNLABELLED": "", "LOOKALIKE": "d" + "x" * 15}
MINE = {"A": LABEL, "B": client_order_id(1, 9, 4)}


class Book:
    """Open orders by venue id; a cancel removes one, unless it is told to fail first."""

    def __init__(self, failures=()):
        self.open = FOREIGN | MINE
        self.failures = list(failures)

    def list(self, request):
        return result([raw_order(order_id=key, label=label) for key, label in self.open.items()])

    def cancel(self, request):
        if self.failures:
            return self.failures.pop()
        self.open.pop(request.params["order_id"])
        return result(raw_order(order_state="cancelled"))


async def cancel_all(book, monkeypatch, prefix="d", **answers):
    monkeypatch.setattr(venue_calls, "ROUND_PAUSE_S", 0.01)
    answer = by_method(**({"get_open_orders": book.list, "cancel": book.cancel} | answers))
    async with stub_venue(answer) as stub, client_of(stub, timeout_ms=300) as client:
        return await cancel_all_own(client, prefix), stub


async def test_all_our_orders_are_cancelled_and_nobody_elses(monkeypatch):
    book = Book()
    done, stub = await cancel_all(book, monkeypatch)
    assert book.open == FOREIGN
    assert (done.cancelled, done.left, done.why) == (2, (), "")
    assert stub.count("private/cancel") == 2


async def test_a_prefix_narrows_it_to_one_account(monkeypatch):
    book = Book()
    done, _ = await cancel_all(book, monkeypatch, prefix=LABEL[:3])
    assert book.open == FOREIGN | {"B": MINE["B"]}
    assert done.cancelled == 1


@pytest.mark.parametrize("failure", [b"", refusal(10028, "too_many_requests"), result(None)])
async def test_a_cancel_that_fails_is_tried_again(failure, monkeypatch):
    book = Book([failure, failure])
    done, _ = await cancel_all(book, monkeypatch)
    assert book.open == FOREIGN
    assert (done.cancelled, done.left) == (2, ())  # what failed is not counted


async def test_a_venue_that_never_answers_is_told_and_ends(monkeypatch):
    done, stub = await cancel_all(Book(), monkeypatch, cancel=b"")
    assert done.left == tuple(sorted(MINE.values()))
    assert done.why
    assert stub.count("private/get_open_orders") == venue_calls.ROUNDS_MAX
