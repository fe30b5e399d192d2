"""Unmodified ccxt and ccxt.pro, with only the URLs changed, against the simulated venue."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.shell.venue_clients import KEY, ccxt_to, venue_in_thread, venue_running

INVERSE, LINEAR = "BTC/USD:BTC", "ETH/USDC:USDC"


def dated(client: Any) -> str:
    """The nearer dated future's unified name."""
    futures = [market for market in client.markets.values() if market["future"] and market["base"] == "BTC"]
    return str(min(futures, key=lambda market: market["expiry"])["symbol"])


def at_the_money(client: Any, index: float, base: str = "BTC", settle: str = "BTC") -> str:
    """The unified name of the call of the second expiry whose strike is next to the index."""
    calls = [
        market
        for market in client.markets.values()
        if market["option"] and (market["base"], market["settle"], market["optionType"]) == (base, settle, "call")
    ]
    second = sorted({market["expiry"] for market in calls})[1]
    calls = [market for market in calls if market["expiry"] == second]
    return str(min(calls, key=lambda market: abs(market["strike"] - index))["symbol"])


def every_url(urls: Any) -> list[str]:
    if isinstance(urls, str):
        return [urls]
    if isinstance(urls, dict):
        return [url for value in urls.values() for url in every_url(value)]
    return [url for value in urls for url in every_url(value)] if isinstance(urls, list) else []


async def test_no_url_leads_away_from_loopback():
    async with venue_running() as server, ccxt_to(server, pro=True) as client:
        live = [urlsplit(url).hostname for url in every_url(client.urls["api"]) + every_url(client.urls["test"])]
        assert set(live) == {"127.0.0.1"}


async def test_markets_are_loaded_with_their_kind_and_grid():
    async with venue_running() as server, ccxt_to(server) as client:
        markets = await client.load_markets()
        inverse, linear, future = markets[INVERSE], markets[LINEAR], markets[dated(client)]
        assert (inverse["swap"], inverse["inverse"], inverse["contractSize"]) == (True, True, 10.0)
        assert (linear["swap"], linear["linear"], linear["precision"]["amount"]) == (True, True, 0.001)
        assert (future["future"], future["inverse"], future["precision"]["price"]) == (True, True, 0.5)
        assert len(markets) == len(server.venue.exchange.instruments)


async def test_options_are_among_the_markets_with_strike_expiry_and_what_they_settle_in():
    async with venue_running() as server, ccxt_to(server) as client:
        markets = await client.load_markets()
        coin, usdc = markets[at_the_money(client, 65_000.0)], markets[at_the_money(client, 65_000.0, "BTC", "USDC")]
        day = client.yymmdd(coin["expiry"], "")
        assert coin["symbol"] == f"BTC/USD:BTC-{day}-{coin['strike']:.0f}-C"
        assert usdc["symbol"] == f"BTC/USDC:USDC-{day}-{usdc['strike']:.0f}-C"
        assert (coin["option"], coin["inverse"], usdc["option"], usdc["linear"]) == (True, True, True, True)
        assert (coin["optionType"], coin["contractSize"], coin["precision"]["amount"]) == ("call", 1.0, 0.1)
        assert (usdc["contractSize"], usdc["precision"]["amount"]) == (1.0, 0.01)
        listed = [name for name, i in server.venue.exchange.instruments.items() if i.strike]
        assert len([market for market in markets.values() if market["option"]]) == len(listed) > 300


async def test_an_options_market_is_read():
    async with venue_running() as server, ccxt_to(server) as client:
        await client.load_markets()
        symbol = at_the_money(client, server.venue.exchange.index_price("BTC"))
        ticker, book = await client.fetch_ticker(symbol), await client.fetch_order_book(symbol, 5)
        assert 0 < ticker["bid"] < ticker["markPrice"] < ticker["ask"] < 0.2
        assert book["bids"][0][0] < book["asks"][0][0]
        greeks = await client.fetch_greeks(symbol)
        assert 0.2 < greeks["delta"] < 0.8
        assert min(greeks["gamma"], greeks["vega"], greeks["rho"], -greeks["theta"]) > 0.0
        assert greeks["bidImpliedVolatility"] < greeks["markImpliedVolatility"] < greeks["askImpliedVolatility"]
        assert 20 < greeks["markImpliedVolatility"] < 150
        assert greeks["underlyingPrice"] == pytest.approx(65_000, rel=0.1)
        alone = await client.fetch_option(symbol)
        assert (alone["currency"], alone["symbol"], alone["baseVolume"]) == ("BTC", symbol, 0.0)
        chain = await client.fetch_option_chain("BTC")
        assert set(chain) == {m["symbol"] for m in client.markets.values() if m["option"] and m["settle"] == "BTC"}
        assert alone["bidPrice"] < alone["markPrice"] < alone["askPrice"]
        assert chain[symbol]["underlyingPrice"] == pytest.approx(alone["underlyingPrice"], rel=0.01)
        tickers = await client.fetch_tickers([symbol])
        assert set(tickers) == {symbol}
        assert (await client.fetch_open_interest(symbol))["symbol"] == symbol
        assert isinstance(await client.fetch_trades(symbol), list)
        assert isinstance(await client.fetch_ohlcv(symbol, "1m"), list)


@pytest.mark.parametrize(("base", "settle", "amount"), [("BTC", "BTC", 0.3), ("ETH", "ETH", 2), ("BTC", "USDC", 0.05)])
async def test_option_orders_are_made_edited_cancelled_filled_and_held(base, settle, amount):
    async with venue_running() as server, ccxt_to(server) as client:
        await client.load_markets()
        symbol = at_the_money(client, server.venue.exchange.index_price(base), base, settle)
        ticker, tick = await client.fetch_ticker(symbol), 0.0005 if settle == base else 5
        low = round(ticker["bid"] / tick - 3) * tick

        order = await client.create_order(symbol, "limit", "buy", amount, low, {"label": "resting", "postOnly": True})
        assert (order["status"], order["amount"], order["info"]["label"]) == ("open", amount, "resting")
        assert order["price"] == pytest.approx(low)
        order = await client.edit_order(order["id"], symbol, "limit", "buy", 2 * amount, low - tick)
        assert (order["amount"], order["price"]) == (2 * amount, pytest.approx(low - tick))
        assert [o["id"] for o in await client.fetch_open_orders(symbol)] == [order["id"]]
        assert (await client.cancel_order(order["id"]))["status"] == "canceled"

        high = round(ticker["ask"] / tick + 3) * tick
        bought = await client.create_order(symbol, "limit", "buy", amount, high, {"timeInForce": "IOC"})
        assert (bought["status"], bought["filled"]) == ("closed", amount)
        trades = await client.fetch_my_trades(symbol)
        assert sum(trade["amount"] for trade in trades) == pytest.approx(amount)
        assert trades[0]["fee"]["currency"] == settle
        assert float(trades[0]["info"]["iv"]) > 0.0
        position = await client.fetch_position(symbol)
        assert (position["side"], position["contracts"]) == ("long", amount)
        positions = await client.fetch_positions(params={"currency": settle, "kind": "option"})
        (held,) = [p for p in positions if p["contracts"]]
        assert (held["symbol"], held["info"]["kind"]) == (symbol, "option")
        paid = sum(trade["price"] * trade["amount"] for trade in trades)  # ccxt's own cost takes it for inverse
        assert held["entryPrice"] == pytest.approx(paid / amount)
        assert await client.fetch_positions(params={"currency": settle, "kind": "future"}) == []


async def test_deliveries_are_read_through_ccxts_plain_methods():
    async with venue_running() as server, ccxt_to(server) as client:
        asked = {"currency": "BTC", "type": "delivery", "count": 100}
        reply = await client.private_get_get_settlement_history_by_currency(asked)
        assert reply["result"] == {"settlements": [], "continuation": "none"}


async def test_the_market_is_read():
    async with venue_running() as server, ccxt_to(server) as client:
        await client.load_markets()
        for symbol in (INVERSE, LINEAR, dated(client)):
            ticker = await client.fetch_ticker(symbol)
            book = await client.fetch_order_book(symbol, 10)
            assert 0 < ticker["bid"] < ticker["ask"]
            assert len(book["bids"]) == 10
            assert book["bids"][0][0] < book["asks"][0][0]
            assert book["nonce"] > 0
        funding = await client.fetch_funding_rate(INVERSE)
        assert isinstance(funding["fundingRate"], float)
        assert isinstance(await client.fetch_funding_rate_history(INVERSE), list)
        assert isinstance(await client.fetch_ohlcv(INVERSE, "1m"), list)
        assert set(await client.fetch_tickers(params={"code": "BTC"})) >= {INVERSE}
        assert (await client.fetch_open_interest(INVERSE))["symbol"] == INVERSE
        assert await client.fetch_time() > 0
        assert (await client.fetch_status())["status"] == "ok"


@pytest.mark.parametrize("kind", ["inverse perpetual", "linear perpetual", "dated future"])
async def test_orders_are_made_edited_cancelled_and_read_back(kind):
    async with venue_running() as server, ccxt_to(server) as client:
        await client.load_markets()
        symbol = {"inverse perpetual": INVERSE, "linear perpetual": LINEAR}.get(kind) or dated(client)
        amount = 0.25 if symbol == LINEAR else 100
        market_id = client.market(symbol)["id"]
        low = round((await client.fetch_ticker(symbol))["bid"] * 0.98 / 5) * 5

        rest = {"label": "resting", "postOnly": True}
        order = await client.create_order(symbol, "limit", "buy", amount, low, rest)
        assert (order["status"], order["price"], order["amount"]) == ("open", low, amount)
        assert (order["info"]["label"], order["postOnly"]) == ("resting", True)
        order = await client.edit_order(order["id"], symbol, "limit", "buy", 2 * amount, low - 5)
        assert (order["price"], order["amount"]) == (low - 5, 2 * amount)
        assert [o["id"] for o in await client.fetch_open_orders(symbol)] == [order["id"]]
        found = await client.private_get_get_order_state_by_label(
            {"currency": client.market(symbol)["settle"], "label": "resting"}
        )
        assert [o["order_id"] for o in found["result"]] == [order["id"]]
        cancelled = await client.cancel_order(order["id"])
        assert cancelled["status"] == "canceled"
        assert (await client.fetch_order(order["id"]))["status"] == "canceled"
        assert await client.fetch_open_orders(symbol) == []

        bought = await client.create_order(symbol, "limit", "buy", amount, low * 1.03 // 5 * 5, {"timeInForce": "IOC"})
        assert (bought["status"], bought["filled"]) == ("closed", amount)
        trades = await client.fetch_my_trades(symbol)
        assert sum(trade["amount"] for trade in trades) == pytest.approx(amount)
        assert {trade["order"] for trade in trades} == {bought["id"]}
        assert trades[0]["fee"]["currency"] == client.market(symbol)["settle"]
        assert {t["id"] for t in await client.fetch_order_trades(bought["id"])} == {t["id"] for t in trades}
        since = await client.fetch_my_trades(symbol, since=order["timestamp"], limit=100)
        assert {t["id"] for t in since} == {t["id"] for t in trades}
        position = await client.fetch_position(symbol)
        assert (position["side"], position["contracts"]) == ("long", amount)
        positions = [p for p in await client.fetch_positions() if p["contracts"]]
        assert [p["info"]["instrument_name"] for p in positions] == [market_id]
        assert [o["id"] for o in await client.fetch_closed_orders(symbol)] == [bought["id"]]

        sold = await client.create_order(symbol, "market", "sell", amount, None, {"reduceOnly": True})
        assert sold["filled"] == amount
        assert (await client.fetch_position(symbol))["contracts"] == 0.0
        balance = await client.fetch_balance()
        deposits = server.venue.exchange.scenario.deposits
        for currency in ("BTC", "ETH", "USDC"):
            assert balance[currency]["total"] == pytest.approx(deposits[currency], rel=0.01)
        await client.cancel_all_orders(symbol)


async def test_refusals_become_ccxts_definite_errors():
    import ccxt.async_support as ccxt

    async with venue_running() as server, ccxt_to(server) as client:
        await client.load_markets()
        with pytest.raises(ccxt.InsufficientFunds):
            await client.create_order(INVERSE, "market", "buy", 100_000_000)
        with pytest.raises(ccxt.InvalidOrder):
            await client.create_order(INVERSE, "limit", "buy", 10, 90_000)
        with pytest.raises(ccxt.InvalidOrder):
            await client.create_order(INVERSE, "limit", "buy", 10, 66_000, {"postOnly": True})
        with pytest.raises(ccxt.BadRequest):
            await client.private_get_buy({"instrument_name": "BTC-PERPETUAL", "amount": 15, "price": 64_000})
        with pytest.raises(ccxt.OrderNotFound):
            await client.cancel_order("BTC-1")
        client.secret = "wrong"
        with pytest.raises(ccxt.AuthenticationError):
            await client.fetch_balance()


async def test_many_signed_requests_in_one_millisecond_are_all_let_in():
    async with venue_running() as server, ccxt_to(server) as client:
        await client.load_markets()
        currencies = ("BTC", "ETH", "USDC")
        calls = [client.private_get_get_open_orders_by_currency({"currency": c}) for c in currencies]
        replies = await asyncio.gather(*calls, client.fetch_positions(), client.fetch_balance())
        assert [reply["result"] for reply in replies[:3]] == [[], [], []]


async def test_what_aiohttp_sends_twice_is_traded_once_but_ccxt_is_told_the_signature_was_wrong():
    import ccxt.async_support as ccxt

    async with venue_running() as server, ccxt_to(server) as client:
        await client.load_markets()  # leaves a connection to reuse: aiohttp resends on no other
        server.faults.next("private/buy", "drop_after")
        with pytest.raises(ccxt.AuthenticationError):
            await client.create_order(INVERSE, "market", "buy", 10)
        assert (await client.fetch_position(INVERSE))["contracts"] == 10


def test_blocking_ccxt_trades_too():
    import ccxt

    with venue_in_thread() as venue:
        client = ccxt.deribit({"apiKey": KEY.client_id, "secret": KEY.client_secret, "enableRateLimit": False})
        client.urls["api"] = client.urls["test"] = {"rest": venue["http_url"], "ws": venue["ws_url"]}
        client.load_markets()
        order = client.create_order(LINEAR, "market", "sell", 0.5)
        assert order["status"] == "closed"
        assert client.fetch_position(LINEAR)["side"] == "short"
        symbol = at_the_money(client, 65_000.0)
        assert 0.0 < client.fetch_greeks(symbol)["delta"] < 1.0
        assert symbol in client.fetch_option_chain("BTC")
        bought = client.create_order(symbol, "limit", "buy", 0.1, client.fetch_ticker(symbol)["ask"] + 0.001)
        assert bought["status"] == "closed"
        assert client.fetch_position(symbol)["contracts"] == 0.1
        client.session.close()


async def test_ccxt_pro_watches_books_tickers_and_trades():
    async with venue_running() as server, ccxt_to(server, pro=True) as client, asyncio.timeout(20):
        await client.load_markets()
        for symbol in (INVERSE, LINEAR, dated(client)):
            for interval in ("100ms", "raw"):
                for _ in range(3):
                    book = await client.watch_order_book(symbol, 10, {"interval": interval})
                    assert book["bids"][0][0] < book["asks"][0][0]
            ticker = await client.watch_ticker(symbol)
            assert 0 < ticker["bid"] < ticker["ask"]
        assert (await client.watch_bids_asks([INVERSE]))[INVERSE]["bid"] > 0
        option = at_the_money(client, server.venue.exchange.index_price("BTC"))
        assert (await client.watch_order_book(option, 10))["bids"]
        assert (await client.watch_ticker(option))["info"]["greeks"]["delta"] > 0
        trades = await client.watch_trades(INVERSE)
        assert trades[0]["symbol"] == INVERSE


async def test_ccxt_pro_watches_the_accounts_orders_trades_and_balance():
    async with venue_running() as server, ccxt_to(server, pro=True) as client, asyncio.timeout(20):
        await client.load_markets()
        balance = await client.watch_balance()
        assert balance["info"]["currency"] in ("BTC", "ETH", "USDC")
        orders = asyncio.create_task(client.watch_orders())
        trades = asyncio.create_task(client.watch_my_trades())
        await asyncio.sleep(0.3)
        made = await client.create_order(INVERSE, "market", "buy", 10)
        assert made["id"] in {order["id"] for order in await orders}
        assert {trade["order"] for trade in await trades} == {made["id"]}
