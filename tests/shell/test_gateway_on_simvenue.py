"""The gateway against the simulated Deribit, over real sockets and through real ccxt."""

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
from pydantic import SecretStr

from dea_daemon.domain.commands import CancelOrder, QueryAccount, QueryOrder
from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.events import (
    CancelRefused,
    CreateRefused,
    CreateUnknown,
    FillReceived,
    OrderSeen,
    VenueOrderState,
)
from dea_daemon.domain.instruments import AccountKey, Payoff, Side, Universe
from dea_daemon.domain.orders import TimeInForce, client_order_id
from dea_daemon.shell.ccxt_client import ask, close_client, open_client
from dea_daemon.shell.clock import Clock
from dea_daemon.shell.gateway import Gateway
from dea_daemon.shell.venue_calls import cancel_all_own, check_account, load_instruments
from dea_daemon.simvenue.deribit import Limits
from dea_daemon.wiring.venue import build_server, venue_key
from tests.shell.deribit_stub import access_to, create


class Desk:
    """A gateway on a running venue, and what it takes to place orders near the market."""

    def __init__(self, server, client, instruments):
        self.server, self.client = server, client
        self.clock = Clock()
        self.instruments = instruments
        self.universe = Universe((AccountKey("deribit", "main"),), tuple((0, i) for i in instruments))
        self.gateway = Gateway(client, 0, self.universe, now_ns=self.clock.now_ns, utc_ns=self.clock.utc_ns)
        self.sequence = 0

    async def order(self, name, side=Side.BUY, away=0.9, lots=0, valid_ms=2_000, **changes):
        """An Approved create at `away` times the mark."""
        row = self.universe.row(0, name)
        assert row is not None
        instrument = self.instruments[row]
        ticker = await ask(self.client, "public_get_ticker", {"instrument_name": name})
        price_ticks = instrument.price_to_ticks(Decimal(str(ticker["mark_price"])) * Decimal(str(away)), side)
        self.sequence += 1
        return create(
            row,
            lots or instrument.min_lots,
            price_ticks,
            client_order_id=client_order_id(0, 7, self.sequence),
            side=side,
            valid_until_ms=self.clock.utc_ns() // 1_000_000 + valid_ms,
            **changes,
        )

    async def account(self):
        return await self.gateway.query_account(QueryAccount(0, 0))

    async def evidence(self, approved):
        order = approved.order
        return await self.gateway.query_order(QueryOrder(order.client_order_id, order.row))


@asynccontextmanager
async def desk(limits=None, **changes):
    key = venue_key(7)
    async with build_server(seed=7, scenario="calm", limits=limits) as server:
        credentials = {"client_id": key.client_id, "client_secret": SecretStr(key.client_secret)}
        client = open_client(access_to(server.http_url, **(credentials | changes)))
        try:
            yield Desk(server, client, await load_instruments(client))
        finally:
            await close_client(client)


async def test_the_account_is_as_the_checks_expect():
    async with desk() as d:
        facts = await check_account(d.client, d.clock.utc_ns)
        assert abs(facts.clock_skew_ms) < 200
        assert facts.may_trade
        assert facts.may_withdraw is False
        payoffs = {i.name: i.payoff for i in d.instruments}
    assert payoffs["BTC-PERPETUAL"] is Payoff.INVERSE
    assert payoffs["BTC_USDC-PERPETUAL"] is Payoff.LINEAR


async def test_a_wrong_key_is_a_matter_of_configuration():
    async with desk(client_secret=SecretStr("wrong")) as d:
        with pytest.raises(ConfigError):
            await check_account(d.client, d.clock.utc_ns)


@pytest.mark.parametrize("name", ["BTC-PERPETUAL", "ETH-PERPETUAL", "BTC_USDC-PERPETUAL", "ETH_USDC-PERPETUAL"])
async def test_an_order_rests_is_found_and_is_cancelled(name):
    async with desk() as d:
        approved = await d.order(name, post_only=True)
        (seen,) = await d.gateway.submit(approved)
        assert isinstance(seen, OrderSeen)
        wanted = approved.order
        assert (seen.state, seen.row, seen.lots, seen.price_ticks, seen.side) == (
            VenueOrderState.OPEN,
            wanted.row,
            wanted.lots,
            wanted.price_ticks,
            wanted.side,
        )
        found = await d.evidence(approved)
        assert found.complete, found.why
        assert [order.venue_order_id for order in found.orders] == [seen.venue_order_id]
        report = await d.account()
        assert report.complete, report.why
        assert [order.client_order_id for order in report.orders] == [wanted.client_order_id]

        (gone,) = await d.gateway.cancel(CancelOrder(wanted.client_order_id, wanted.row, seen.venue_order_id, ""))
        assert isinstance(gone, OrderSeen)
        assert gone.state is VenueOrderState.CANCELLED
        again = await d.gateway.cancel(CancelOrder(wanted.client_order_id, wanted.row, seen.venue_order_id, ""))
        assert isinstance(again[0], CancelRefused)
        found = await d.evidence(approved)
        assert [order.state for order in found.orders] == [VenueOrderState.CANCELLED]


@pytest.mark.parametrize("name", ["BTC-PERPETUAL", "ETH_USDC-PERPETUAL"])
async def test_a_taker_order_fills_once_and_moves_the_position_by_as_much(name):
    async with desk() as d:
        approved = await d.order(name, Side.SELL, away=0.98, time_in_force=TimeInForce.IOC)
        *fills, seen = await d.gateway.submit(approved)
        assert fills
        assert all(isinstance(fill, FillReceived) for fill in fills)
        assert seen.state is VenueOrderState.FILLED
        assert sum(fill.lots for fill in fills) == seen.filled_lots == approved.order.lots
        evidence = await d.evidence(approved)
        assert {f.trade_id for f in evidence.fills} == {f.trade_id for f in fills}
        report = await d.account()
        assert {f.trade_id for f in report.fills} == {f.trade_id for f in fills}
        assert [(p.row, p.lots) for p in report.positions] == [(approved.order.row, -approved.order.lots)]
        assert {pool.currency for pool in report.pools} >= {"BTC", "ETH", "USDC"}


async def test_a_cancel_by_label_tells_the_order():
    async with desk() as d:
        approved = await d.order("BTC-PERPETUAL")
        await d.gateway.submit(approved)
        (gone,) = await d.gateway.cancel(CancelOrder(approved.order.client_order_id, approved.order.row, "", ""))
        assert isinstance(gone, OrderSeen)
        assert gone.state is VenueOrderState.CANCELLED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"away": 1.02, "post_only": True}, "post_only_reject"),
        ({"reduce_only": True}, "reduce_only"),
        ({"valid_ms": -1_000}, "timed_out"),
        ({"lots": 10**9}, "not_enough_funds"),
    ],
)
async def test_what_the_venue_turns_down_is_refused_for_its_reason(changes, reason):
    async with desk() as d:
        approved = await d.order("BTC-PERPETUAL", **changes)
        (event,) = await d.gateway.submit(approved)
        assert isinstance(event, CreateRefused), event
        assert reason in event.reason
        evidence = await d.evidence(approved)
        assert evidence.complete
        assert not any(order.state is VenueOrderState.OPEN for order in evidence.orders)


LOST = ["hang_after", "drop_after", "http_500_after", "html", "truncated", "null_body"]


@pytest.mark.parametrize("fault", LOST)
async def test_an_order_whose_answer_is_lost_lives_once_and_is_found(fault):
    async with desk(timeout_ms=400) as d:
        approved = await d.order("BTC-PERPETUAL")
        d.server.faults.next("private/buy", fault)
        (event,) = await d.gateway.submit(approved)
        assert isinstance(event, CreateUnknown)
        evidence = await d.evidence(approved)
        assert evidence.complete
        assert [order.state for order in evidence.orders] == [VenueOrderState.OPEN]
        assert len((await d.account()).orders) == 1


@pytest.mark.parametrize("fault", ["hang_before", "drop_before"])
async def test_an_order_the_venue_never_saw_is_absent_from_complete_evidence(fault):
    async with desk(timeout_ms=400) as d:
        approved = await d.order("BTC-PERPETUAL")
        d.server.faults.next("private/buy", fault)
        (event,) = await d.gateway.submit(approved)
        assert isinstance(event, CreateUnknown)
        evidence = await d.evidence(approved)
        assert evidence.complete
        assert evidence.orders == ()
        assert (await d.account()).orders == ()


async def test_requests_beyond_the_venues_credits_are_refused_and_slow_us_down():
    heard: list[int] = []
    async with desk(Limits(matching_rate=0.001, matching_burst=2)) as d:
        d.gateway._on_throttled = heard.append
        events = [(await d.gateway.submit(await d.order("BTC-PERPETUAL")))[0] for _ in range(3)]
    assert [type(event) for event in events] == [OrderSeen, OrderSeen, CreateRefused]
    assert events[2].retry_after_ms == heard[0] > 0


async def test_cancel_all_own_leaves_the_orders_of_others():
    async with desk() as d:
        for _ in range(3):
            await d.gateway.submit(await d.order("BTC-PERPETUAL"))
        theirs = (await d.order("BTC-PERPETUAL")).order
        instrument = d.instruments[theirs.row]
        await ask(
            d.client,
            "private_get_buy",
            {
                "instrument_name": instrument.name,
                "amount": str(instrument.lots_to_amount(theirs.lots)),
                "price": str(instrument.ticks_to_price(theirs.price_ticks)),
                "type": "limit",
                "label": "by hand",
            },
        )
        done = await cancel_all_own(d.client)
        assert (done.cancelled, done.left) == (3, ())
        assert [order.client_order_id for order in (await d.account()).orders] == ["by hand"]


async def test_orders_sent_together_are_each_told_apart():
    async with desk() as d:
        orders = [await d.order("ETH-PERPETUAL") for _ in range(12)]
        answers = await asyncio.gather(*(d.gateway.submit(order) for order in orders))
    assert [events[-1].client_order_id for events in answers] == [o.order.client_order_id for o in orders]
