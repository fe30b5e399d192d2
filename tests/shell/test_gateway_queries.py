"""What the venue knows of an order and of the account: complete, or said not to be."""

from math import isnan

import pytest

from dea_daemon.domain.commands import QueryAccount, QueryInstruments, QueryOrder
from dea_daemon.domain.events import Settlement, VenueOrderState
from dea_daemon.shell.gateway import HISTORY_PAGE, PAGES_MAX
from tests.shell.deribit_stub import (
    INVERSE,
    LABEL,
    NOW_NS,
    UTC_NS,
    by_method,
    client_of,
    gateway_on,
    raw_order,
    raw_trade,
    refusal,
    result,
    stub_venue,
)

SINCE_MS = 1_700_000_000_000
NO_TRADES = result({"trades": [], "has_more": False})
NOTHING = {
    "get_order_state_by_label": result([]),
    "get_open_orders_by_label": result([]),
    "get_order_history_by_currency": result([]),
    "get_user_trades_by_currency": NO_TRADES,
}


async def evidence(since_ms=SINCE_MS, **answers):
    async with stub_venue(by_method(**(NOTHING | answers))) as stub, client_of(stub, timeout_ms=300) as client:
        return await gateway_on(client).query_order(QueryOrder(LABEL, 0, since_ms)), stub.requests


async def test_an_order_the_venue_never_saw_is_absent_everywhere():
    told, requests = await evidence()
    assert told.complete
    assert (told.orders, told.fills, told.why) == ((), (), "")
    assert (told.client_order_id, told.asked_utc_ns, told.ts_recv_ns) == (LABEL, UTC_NS, NOW_NS)
    assert [request.method.removeprefix("private/") for request in requests] == list(NOTHING)
    assert requests[0].params == {"label": LABEL, "currency": "BTC"}
    assert requests[2].params["include_unfilled"] == "true"
    assert requests[3].params["start_timestamp"] == str(SINCE_MS)


@pytest.mark.parametrize("method", NOTHING)
@pytest.mark.parametrize("answer", [b"", result(None), result(7), result({}), refusal(10040), refusal(10028)])
async def test_one_question_without_an_answer_makes_the_evidence_incomplete(method, answer):
    told, requests = await evidence(**{method: answer})
    assert not told.complete
    assert told.why
    assert len(requests) == len(NOTHING)  # the others are still asked: what they find counts


async def test_an_open_order_is_found():
    told, _ = await evidence(get_open_orders_by_label=result([raw_order()]))
    assert [order.state for order in told.orders] == [VenueOrderState.OPEN]


async def test_an_order_that_ended_is_found_in_the_history_among_others():
    others = [raw_order(label="", order_id="BTC-9"), raw_order(label="someone", order_id="BTC-8")]
    ended = raw_order(order_state="cancelled", filled_amount=30.0)
    told, _ = await evidence(
        get_order_history_by_currency=result([*others, ended]),
        get_user_trades_by_currency=result(
            {"trades": [raw_trade(), raw_trade(trade_id="T-9", label="", order_id="X")], "has_more": False}
        ),
    )
    assert [(order.state, order.filled_lots) for order in told.orders] == [(VenueOrderState.CANCELLED, 3)]
    assert [fill.trade_id for fill in told.fills] == ["T-1"]


async def test_an_end_is_not_undone_by_an_answer_that_lags():
    told, _ = await evidence(
        get_order_state_by_label=result([raw_order(order_state="filled", filled_amount=80.0)]),
        get_open_orders_by_label=result([raw_order()]),
    )
    assert [order.state for order in told.orders] == [VenueOrderState.FILLED]


async def test_a_later_answer_replaces_an_open_order():
    told, _ = await evidence(
        get_open_orders_by_label=result([raw_order()]),
        get_order_history_by_currency=result([raw_order(order_state="filled", filled_amount=80.0)]),
    )
    assert [order.state for order in told.orders] == [VenueOrderState.FILLED]


async def test_two_orders_under_one_label_are_both_told():
    told, _ = await evidence(get_order_state_by_label=result([raw_order(), raw_order(order_id="BTC-2")]))
    assert [order.venue_order_id for order in told.orders] == ["BTC-1", "BTC-2"]


async def test_a_fill_without_a_label_is_ours_by_its_order():
    unlabelled = raw_trade()
    del unlabelled["label"]
    told, _ = await evidence(
        get_order_state_by_label=result([raw_order(order_state="filled", filled_amount=30.0)]),
        get_user_trades_by_currency=result({"trades": [unlabelled], "has_more": False}),
    )
    assert [fill.trade_id for fill in told.fills] == ["T-1"]


async def test_history_is_read_back_to_when_the_order_was_decided_and_no_further():
    def page(request):
        offset = int(request.params["offset"])
        changed_ms = SINCE_MS + 500 - offset * 4  # the third page lies before
        return result([raw_order(label="", last_update_timestamp=changed_ms)] * HISTORY_PAGE)

    told, requests = await evidence(get_order_history_by_currency=page)
    assert told.complete
    assert [r.params["offset"] for r in requests if "offset" in r.params] == ["0", "100", "200"]


async def test_a_history_that_does_not_end_is_incomplete():
    forever = [raw_order(label="", last_update_timestamp=SINCE_MS + 1)] * HISTORY_PAGE
    told, requests = await evidence(get_order_history_by_currency=result(forever))
    assert not told.complete
    assert sum("offset" in r.params for r in requests) == PAGES_MAX


async def test_without_a_time_trades_are_asked_for_as_far_back_as_the_venue_keeps_them():
    _, requests = await evidence(since_ms=0)
    assert requests[3].params["start_timestamp"] == str(UTC_NS // 1_000_000 - 86_400_000)


def paged_trades(request):
    """Three trades, two a page."""
    start_ms = int(request.params["start_timestamp"])
    trades = [raw_trade(trade_id=f"T-{i}", timestamp=SINCE_MS + i) for i in range(1, 4)]
    rows = [trade for trade in trades if trade["timestamp"] >= start_ms]
    return result({"trades": rows[:2], "has_more": len(rows) > 2})


async def test_trades_are_read_page_by_page_each_once():
    told, requests = await evidence(get_user_trades_by_currency=paged_trades)
    assert [fill.trade_id for fill in told.fills] == ["T-1", "T-2", "T-3"]
    assert told.complete
    assert all(r.params["sorting"] == "asc" for r in requests if "trades" in r.method)


@pytest.mark.parametrize("page", [{"trades": []}, {"trades": [], "has_more": None}, {"trades": {}, "has_more": False}])
async def test_a_page_of_trades_without_its_shape_is_no_answer(page):
    told, _ = await evidence(get_user_trades_by_currency=result(page))
    assert not told.complete


async def test_a_page_of_trades_that_gets_no_further_is_incomplete_and_keeps_what_it_read():
    stuck = result({"trades": [raw_trade(timestamp=SINCE_MS)], "has_more": True})
    told, _ = await evidence(get_user_trades_by_currency=stuck)
    assert not told.complete
    assert [fill.trade_id for fill in told.fills] == ["T-1"]


# --- the account ------------------------------------------------------------------------------------------

POSITION = {"instrument_name": "BTC-PERPETUAL", "size": -120.0, "average_price": 61_000.0, "direction": "sell"}
SUMMARY = {
    "currency": "BTC",
    "equity": 1.5,
    "balance": 1.4,
    "initial_margin": 0.1,
    "maintenance_margin": 0.05,
}
ACCOUNT = {
    "get_user_trades_by_currency": NO_TRADES,
    "get_open_orders": result([raw_order()]),
    "get_positions": result([POSITION, POSITION | {"instrument_name": "ETH_USDC-PERPETUAL", "size": 0.0}]),
    "get_account_summaries": result({"summaries": [SUMMARY, {"currency": "USDC", "equity": 7.0}]}),
}


async def report(pace=None, settled_since_ms=0, **answers):
    changes = {} if pace is None else {"pace": pace}
    async with stub_venue(by_method(**(ACCOUNT | answers))) as stub, client_of(stub, timeout_ms=300) as client:
        gateway = gateway_on(client, **changes)
        return await gateway.query_account(QueryAccount(0, SINCE_MS, settled_since_ms)), stub.requests


async def test_an_account_is_asked_trades_first_and_balances_last():
    told, requests = await report()
    assert [(r.method.removeprefix("private/"), r.params.get("currency")) for r in requests] == [
        ("get_user_trades_by_currency", "BTC"),
        ("get_user_trades_by_currency", "USDC"),
        ("get_open_orders", None),
        ("get_positions", "any"),
        ("get_account_summaries", None),
    ]
    assert told.complete
    assert (told.why, told.outside, told.asked_ns) == ("", (), NOW_NS)
    assert [order.venue_order_id for order in told.orders] == ["BTC-1"]
    assert [(position.row, position.lots) for position in told.positions] == [(0, -12)]
    bitcoin, stable = told.pools
    assert (bitcoin.currency, bitcoin.equity, bitcoin.cash) == ("BTC", 1.5, 1.4)
    assert (stable.equity, isnan(stable.cash)) == (7.0, True)


async def test_fills_of_all_currencies_are_told_once():
    def trades(request):
        linear = raw_trade(trade_id="U-1", instrument_name="ETH_USDC-PERPETUAL", amount=0.8, price=3500.15)
        found = linear if request.params["currency"] == "USDC" else raw_trade()
        return result({"trades": [found], "has_more": False})

    told, _ = await report(get_user_trades_by_currency=trades)
    assert sorted((fill.trade_id, fill.row, fill.lots) for fill in told.fills) == [("T-1", 0, 3), ("U-1", 1, 8)]


@pytest.mark.parametrize("method", ACCOUNT)
@pytest.mark.parametrize("answer", [b"", result(None), result(7), result(["x"]), refusal(13009, "unauthorized")])
async def test_one_part_without_an_answer_makes_the_report_incomplete(method, answer):
    told, _ = await report(**{method: answer})
    assert not told.complete
    assert method.removesuffix("_by_currency") in told.why


async def test_what_is_held_outside_the_universe_is_told_and_what_was_traded_is_in_the_positions():
    foreign = {"instrument_name": "SOL_USDC-PERPETUAL", "amount": 3.0, "direction": "buy"}
    told, _ = await report(
        get_positions=result([POSITION, POSITION | {"instrument_name": "BTC-29MAY26", "size": -50.0}]),
        get_open_orders=result([raw_order() | foreign]),
        get_user_trades_by_currency=result({"trades": [raw_trade() | foreign], "has_more": False}),
    )
    assert told.complete
    assert sorted(told.outside) == [
        "order SOL_USDC-PERPETUAL buy 3.0",
        "position BTC-29MAY26 sell -50.0",
    ]
    assert len(told.positions) == 1


async def test_one_position_that_cannot_be_read_makes_the_report_incomplete_and_leaves_the_others():
    told, _ = await report(get_positions=result([POSITION | {"size": "much"}, POSITION]))
    assert not told.complete
    assert len(told.positions) == 1


async def test_a_position_without_a_size_is_not_taken_as_flat():
    sizeless = {"instrument_name": "BTC-PERPETUAL", "direction": "sell"}
    told, _ = await report(get_positions=result([sizeless]))
    assert not told.complete


async def test_every_request_of_a_question_is_paced():
    paced = 0

    async def pace():
        nonlocal paced
        paced += 1

    _, requests = await report(pace)
    assert paced == len(requests) == 5


# --- deliveries -------------------------------------------------------------------------------------------

DELIVERY = {
    "type": "delivery",
    "timestamp": SINCE_MS + 5,
    "instrument_name": "BTC-26JUN26-50000-C",
    "position": -1.5,
    "mark_price": 0.2,
    "index_price": 62_500.0,
    "profit_loss": -0.300225,
    "session_profit_loss": -0.300225,
}
HISTORY = "get_settlement_history_by_currency"


async def test_deliveries_are_asked_for_only_when_some_are_owed():
    told, requests = await report()
    assert told.settlements == ()
    assert HISTORY not in {r.method.removeprefix("private/") for r in requests}


async def test_a_delivery_is_told_with_its_lots_its_price_and_the_cash_it_moved():
    page = result({"settlements": [DELIVERY], "continuation": "none"})
    told, requests = await report(settled_since_ms=SINCE_MS, **{HISTORY: page})
    ts_ns = (SINCE_MS + 5) * 1_000_000
    assert told.settlements == (Settlement(0, 2, ts_ns, -15, 62_500.0, -0.300225, "BTC"),)
    (request,) = [r for r in requests if r.method.endswith(HISTORY)]  # of currencies in which contracts end
    assert (request.params["currency"], request.params["type"]) == ("BTC", "delivery")


async def test_deliveries_are_read_back_to_the_time_asked_for_and_no_further():
    def page(request):
        at = int(request.params.get("continuation", "0"))
        rows = [DELIVERY | {"timestamp": SINCE_MS + 30 - 20 * at - k} for k in range(2)]
        return result({"settlements": rows, "continuation": str(at + 1)})

    told, requests = await report(settled_since_ms=SINCE_MS, **{HISTORY: page})
    assert [s.ts_event_ns // 1_000_000 - SINCE_MS for s in told.settlements] == [30, 29, 10, 9]
    assert sum(r.method.endswith(HISTORY) for r in requests) == 3


async def test_deliveries_in_contracts_that_are_not_ours_are_left_out():
    page = result(
        {"settlements": [DELIVERY | {"instrument_name": "BTC-26JUN26-1-P"}, DELIVERY], "continuation": "none"}
    )
    told, _ = await report(settled_since_ms=SINCE_MS, **{HISTORY: page})
    assert len(told.settlements) == 1


UNREADABLE = {"settlements": [DELIVERY, DELIVERY | {"position": "much"}]}


@pytest.mark.parametrize("answer", [b"", result(None), result({}), result(UNREADABLE), refusal(10040)])
async def test_deliveries_that_cannot_be_had_leave_the_rest_of_the_report_as_good(answer):
    told, _ = await report(settled_since_ms=SINCE_MS, **{HISTORY: answer})
    assert told.settlements == ()
    assert told.complete
    assert "get_settlement_history BTC" in told.why
    assert told.positions


# --- contracts --------------------------------------------------------------------------------------------


async def listed(fresh=lambda infos: (), **answers):
    async with stub_venue(by_method(**answers)) as stub, client_of(stub, timeout_ms=300) as client:
        return await gateway_on(client, fresh=fresh).query_instruments(QueryInstruments(0)), stub.requests


async def test_contracts_are_had_by_one_request_and_picked_by_whoever_knows_ours():
    seen = []

    def fresh(infos):
        seen.extend(infos)
        return (INVERSE,)

    told, requests = await listed(fresh, get_instruments=result([{"a": 1}]))
    assert seen == [{"a": 1}]
    assert [(r.method, r.params) for r in requests] == [("public/get_instruments", {"currency": "any"})]
    assert (told.instruments, told.why, told.account, told.ts_recv_ns) == ((INVERSE,), "", 0, NOW_NS)


@pytest.mark.parametrize("answer", [b"", result(None), result({}), refusal(10028)])
async def test_a_list_of_contracts_that_cannot_be_had_says_why(answer):
    told, _ = await listed(get_instruments=answer)
    assert told.instruments == ()
    assert told.why
