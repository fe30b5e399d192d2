"""Options in Deribit's words: by hand, and over the venue."""

import math
from dataclasses import replace
from decimal import Decimal
from statistics import NormalDist
from typing import Any

import msgspec
import pytest

from dea_daemon.domain.instruments import Instrument, Kind, Payoff, Side, TickStep
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.feeds.deribit_mapping import instrument_from
from dea_daemon.simvenue.deribit import encodings, options
from dea_daemon.simvenue.deribit.contract import Contract
from dea_daemon.simvenue.words import OptionQuote, Ticker, Traded, VenuePosition
from tests.simvenue.deribit_desk import BTC, Desk, Said
from tests.simvenue.venues import START_NS

EXPIRY_NS = 1_774_598_400 * 1_000_000_000  # Friday, 27 March 2026, 08:00 UTC: the last of a quarter
NAN = float("nan")
BAND = (0.01, 0.04)


def option(name: str = "BTC-27MAR26-65000-C", **changes: Any) -> Contract:
    coin = not name.startswith("BTC_USDC")
    money = "BTC" if coin else "USDC"
    known = Instrument(
        venue="deribit",
        name=name,
        kind=Kind.OPTION,
        payoff=Payoff.LINEAR,
        underlying="BTC",
        quote_currency=money,
        settle_currency=money,
        margin_pool=money,
        contract_size=Decimal(1),
        lot_size=Decimal("0.1") if coin else Decimal("0.01"),
        tick_size=Decimal("0.0001") if coin else Decimal(5),
        tick_steps=(TickStep(Decimal("0.005"), Decimal("0.0005")),) if coin else (),
        maker_fee=0.0003,
        taker_fee=0.0003,
        expiry_ns=EXPIRY_NS,
        strike=65_000.0,
        is_call=name.endswith("C"),
        fee_cap=0.125,
    )
    return Contract(msgspec.structs.replace(known, **changes), 1_000, START_NS)


QUOTE = OptionQuote(
    mark_iv=0.5512,
    bid_iv=0.5432,
    ask_iv=NAN,
    underlying_price=64_000.0,
    delta=0.5,
    gamma=0.000031234,
    vega=75.0,
    theta=-40.0,
)
TICKER = Ticker(
    instrument="BTC-27MAR26-65000-C",
    ts_ns=EXPIRY_NS - 73 * NS_PER_DAY,
    mark_price=0.05,
    index_price=63_500.0,
    last_price=NAN,
    best_bid=0.0495,
    best_bid_amount=1.2,
    best_ask=NAN,
    best_ask_amount=NAN,
    funding_rate_8h=NAN,
    current_funding=NAN,
    open_interest=3.1,
    volume=0.0,
    option=QUOTE,
)


def test_a_ticker_says_volatilities_in_percent_and_zero_where_nobody_quotes():
    said = encodings.ticker(option(), TICKER, BAND, "BTC-27MAR26")
    assert (said["mark_iv"], said["bid_iv"], said["ask_iv"]) == (55.12, 54.32, 0.0)
    assert (said["best_bid_price"], said["best_bid_amount"]) == (0.0495, 1.2)
    assert (said["best_ask_price"], said["best_ask_amount"]) == (0.0, 0.0)
    assert (said["underlying_price"], said["underlying_index"], said["interest_rate"]) == (64_000.0, "BTC-27MAR26", 0.0)
    assert (said["min_price"], said["max_price"], said["mark_price"]) == (0.01, 0.04, 0.05)
    assert "funding_8h" not in said


def test_greeks_are_rounded_as_the_venue_does_and_rho_is_of_the_strikes_side():
    greeks = encodings.ticker(option(), TICKER, BAND, "")["greeks"]
    assert (greeks["delta"], greeks["gamma"], greeks["vega"], greeks["theta"]) == (0.5, 0.00003, 75.0, -40.0)
    # K N(d2) = F N(d1) - C = 32,000 - 3,200 dollars, for a fifth of a year, per percent
    assert greeks["rho"] == pytest.approx(28_800.0 * 0.2 / 100.0)
    put = replace(TICKER, option=replace(QUOTE, delta=-0.5))
    assert encodings.ticker(option("BTC-27MAR26-65000-P"), put, BAND, "")["greeks"]["rho"] < 0.0
    dollars = replace(TICKER, mark_price=3_200.0)
    usdc = encodings.ticker(option("BTC_USDC-27MAR26-65000-C"), dollars, BAND, "")["greeks"]
    assert usdc["rho"] == greeks["rho"]


def test_the_delivery_price_is_the_expected_one_and_the_index_before_there_is_one():
    assert encodings.ticker(option(), TICKER, BAND, "")["estimated_delivery_price"] == 63_500.0
    averaging = replace(TICKER, delivery_price=63_321.0)
    assert encodings.ticker(option(), averaging, BAND, "")["estimated_delivery_price"] == 63_321.0
    assert encodings.book_summary(option(), averaging, "")["estimated_delivery_price"] == 63_321.0


def test_a_summary_has_null_for_a_price_that_is_not_there():
    row = encodings.book_summary(option(), TICKER, "SYN.BTC-27MAR26")
    assert (row["bid_price"], row["mark_iv"], row["underlying_index"]) == (0.0495, 55.12, "SYN.BTC-27MAR26")
    assert math.isnan(row["ask_price"])  # NaN is null in the venue's JSON
    assert math.isnan(row["mid_price"])


def test_the_underlying_is_the_future_of_that_day_or_a_synthetic_one():
    assert options.underlying_index(option(), {"BTC-27MAR26", BTC}) == "BTC-27MAR26"
    assert options.underlying_index(option(), {BTC}) == "SYN.BTC-27MAR26"
    assert options.underlying_index(option("BTC_USDC-27MAR26-65000-P"), {"BTC-27MAR26"}) == "SYN.BTC_USDC-27MAR26"


def test_an_option_is_listed_with_what_it_is_settled_in():
    coin = encodings.instrument(option(), True)
    usdc = encodings.instrument(option("BTC_USDC-27MAR26-65000-P"), True)
    shown = ("kind", "option_type", "strike", "instrument_type", "quote_currency", "counter_currency",
             "settlement_currency", "price_index", "contract_size", "min_trade_amount",
             "settlement_period")  # fmt: skip
    assert [coin[name] for name in shown] == [
        "option", "call", 65_000.0, "reversed", "BTC", "USD", "BTC", "btc_usd", 1.0, 0.1, "month",
    ]  # fmt: skip
    assert [usdc[name] for name in shown] == [
        "option", "put", 65_000.0, "linear", "USDC", "USDC", "USDC", "btc_usdc", 1.0, 0.01, "month",
    ]  # fmt: skip
    assert coin["tick_size_steps"] == [{"above_price": 0.005, "tick_size": 0.0005}]
    assert "future_type" not in coin
    assert "max_leverage" not in coin


@pytest.mark.parametrize(("days", "period"), [(0, "month"), (-7, "week"), (1, "day"), (-3, "day")])
def test_the_settlement_period_goes_by_the_day_it_ends(days, period):
    ends = option(expiry_ns=EXPIRY_NS + days * NS_PER_DAY)
    assert encodings.instrument(ends, True)["settlement_period"] == period


@pytest.mark.parametrize("name", ["BTC-27MAR26-65000-C", "BTC_USDC-27MAR26-65000-P"])
def test_the_daemon_reads_the_very_contract_the_venue_lists(name):
    listed = option(name)
    assert instrument_from(encodings.instrument(listed, True)) == listed.instrument


def coin_price(iv: float, ts_ns: int) -> float:
    """Of the call, by Black-76."""
    sd = iv * math.sqrt((EXPIRY_NS - ts_ns) / (365 * NS_PER_DAY))
    d1, cdf = math.log(64 / 65) / sd + sd / 2, NormalDist().cdf
    return cdf(d1) - 65 / 64 * cdf(d1 - sd)


def test_a_trades_volatility_is_the_one_of_its_price():
    dear = round(coin_price(0.60, START_NS) * 10_000)
    trade = Traded("BTC-27MAR26-65000-C", START_NS, "1", 1, Side.BUY, dear, 2, 0.05, 63_500.0)
    said = encodings.trade(option(), trade, QUOTE)
    assert said["iv"] == pytest.approx(60.0, abs=0.1)
    assert (said["amount"], said["contracts"], said["price"]) == (0.2, 0.2, dear / 10_000)
    assert said["underlying_price"] == 64_000.0
    assert encodings.trade(option(), trade, None)["iv"] is None


def test_a_position_has_the_greeks_of_all_of_it_and_profit_in_coin_and_dollars():
    held = VenuePosition("BTC-27MAR26-65000-C", lots=-20, entry_price=0.06)
    said = encodings.position(option(), held, TICKER, (0.3, 0.2), 50)
    assert (said["kind"], said["direction"], said["size"], said["average_price"]) == ("option", "sell", -2.0, 0.06)
    assert said["floating_profit_loss"] == pytest.approx(0.02)
    assert said["floating_profit_loss_usd"] == pytest.approx(0.02 * 63_500.0)
    assert said["average_price_usd"] == pytest.approx(0.06 * 63_500.0)
    assert [said[name] for name in ("delta", "vega", "theta")] == [-1.0, -150.0, 80.0]
    assert (said["initial_margin"], said["maintenance_margin"]) == (0.3, 0.2)
    assert not {"size_currency", "leverage", "estimated_liquidation_price"} & set(said)


def test_what_was_traded_is_counted_in_coins_and_dollars():
    contract = option()
    contract.stats.add(contract, Traded("", START_NS, "1", 1, Side.BUY, 500, 3, 0.05, 60_000.0))
    said = contract.stats.encode(0.05)
    assert said["volume"] == pytest.approx(0.3)
    assert said["volume_usd"] == pytest.approx(0.3 * 0.05 * 60_000.0)


# --- over the venue ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def market() -> Desk:
    """For those that only read."""
    desk = Desk(options=True)
    desk.sleep(5_000)
    return desk


@pytest.fixture
def desk() -> Desk:
    return Desk(options=True)


def rows(desk: Desk, **params: Any) -> dict[str, Any]:
    return {row["instrument_name"]: row for row in desk.ask("public/get_instruments", **params)}


def near_the_money(desk: Desk, currency: str = "BTC", option_type: str = "call") -> str:
    """The option of the second expiry whose strike is next to the index."""
    listed = rows(desk, currency=currency, kind="option").values()
    second = sorted({row["expiration_timestamp"] for row in listed})[1]
    of_it = [r for r in listed if (r["expiration_timestamp"], r["option_type"]) == (second, option_type)]
    index = desk.ask("public/get_index_price", index_name=of_it[0]["price_index"])["index_price"]
    return str(min(of_it, key=lambda row: abs(row["strike"] - index))["instrument_name"])


def buy_at_the_ask(desk: Desk, name: str, amount: float, **more: Any) -> Any:
    price = desk.ask("public/ticker", instrument_name=name)["best_ask_price"]
    return desk.ask("private/buy", instrument_name=name, amount=amount, price=price, **more)


def test_options_are_listed_by_kind_and_by_what_they_settle_in(market):
    every, coin, usdc = rows(market, kind="option"), rows(market, currency="BTC", kind="option"), rows(market)
    assert set(every) < set(usdc) == set(market.exchange.instruments)
    assert {row["kind"] for row in every.values()} == {"option"}
    assert {row["settlement_currency"] for row in coin.values()} == {"BTC"}
    assert len(coin) >= 4 * 15 * 2
    assert {row["quote_currency"] for row in rows(market, currency="USDC", kind="option").values()} == {"USDC"}
    assert not set(rows(market, currency="BTC", kind="future")) & set(coin)
    for kind in ("spot", "future_combo", "option_combo"):
        assert rows(market, kind=kind) == {}


def test_the_daemon_reads_every_contract_as_the_venue_means_it(market):
    for name, row in rows(market, kind="option").items():
        assert instrument_from(row) == market.exchange.instruments[name]


def test_the_chain_agrees_with_the_tickers_and_the_books(market):
    chain = market.ask("public/get_book_summary_by_currency", currency="BTC", kind="option")
    assert {row["instrument_name"] for row in chain} == set(rows(market, currency="BTC", kind="option"))
    for row in chain[::7]:
        name = row["instrument_name"]
        ticker = market.ask("public/ticker", instrument_name=name)
        book = market.ask("public/get_order_book", instrument_name=name, depth=1)
        assert ticker["best_bid_price"] == (book["bids"][0][0] if book["bids"] else 0.0)
        assert (0.0 if math.isnan(row["bid_price"]) else row["bid_price"]) == ticker["best_bid_price"]
        assert (row["mark_iv"], row["underlying_price"]) == (ticker["mark_iv"], ticker["underlying_price"])
        assert ticker["bid_iv"] <= ticker["mark_iv"]
        assert ticker["min_price"] <= ticker["mark_price"] <= ticker["max_price"]
        alone = market.ask("public/get_book_summary_by_instrument", instrument_name=name)
        assert msgspec.json.encode(alone) == msgspec.json.encode([row])  # as sent: NaN is null


def test_one_underlying_is_a_future_where_one_is_listed(market):
    chain = market.ask("public/get_book_summary_by_currency", currency="BTC", kind="option")
    said = {row["underlying_index"] for row in chain}
    futures = set(rows(market, currency="BTC", kind="future"))
    assert said & futures
    assert all(index in futures or index.startswith("SYN.BTC-") for index in said)


@pytest.mark.parametrize(("currency", "amount"), [("BTC", 0.3), ("ETH", 2.0), ("USDC", 0.05)])
def test_an_option_is_bought_for_its_premium_and_held_with_its_greeks(desk, currency, amount):
    name = near_the_money(desk, currency)
    before = desk.ask("private/get_account_summary", currency=currency)
    done = buy_at_the_ask(desk, name, amount, label="premium")
    (trade,) = done["trades"]
    assert (done["order"]["order_state"], trade["amount"], trade["contracts"]) == ("filled", amount, amount)
    ticker = desk.ask("public/ticker", instrument_name=name)
    assert ticker["mark_iv"] <= trade["iv"] < 2 * ticker["mark_iv"]
    after = desk.ask("private/get_account_summary", currency=currency)
    assert before["balance"] - after["balance"] == pytest.approx(trade["price"] * amount + trade["fee"])
    assert after["options_value"] == pytest.approx(ticker["mark_price"] * amount, rel=1e-4)
    assert after["equity"] == pytest.approx(after["balance"] + after["options_value"])
    assert after["margin_balance"] == pytest.approx(after["balance"])
    assert after["options_delta"] == pytest.approx(ticker["greeks"]["delta"] * amount, rel=1e-3)
    (position,) = desk.ask("private/get_positions", currency=currency, kind="option")
    assert (position["size"], position["kind"]) == (amount, "option")
    assert position["average_price"] == pytest.approx(trade["price"])
    assert position["delta"] == pytest.approx(ticker["greeks"]["delta"] * amount, rel=1e-3)
    assert position["floating_profit_loss"] < 0.0
    assert desk.ask("private/get_positions", currency=currency, kind="future") == []
    assert desk.ask("private/get_position", instrument_name=name) == position


def test_a_written_option_has_margin_behind_it(desk):
    name = near_the_money(desk)
    price = desk.ask("public/ticker", instrument_name=name)["best_bid_price"]
    desk.ask("private/sell", instrument_name=name, amount=1, price=price)
    (position,) = desk.ask("private/get_positions", currency="BTC", kind="option")
    assert (position["size"], position["direction"]) == (-1.0, "sell")
    assert 0.075 < position["maintenance_margin"] < position["initial_margin"] < 0.25
    summary = desk.ask("private/get_account_summary", currency="BTC")
    assert summary["initial_margin"] == pytest.approx(position["initial_margin"])


def test_orders_rest_are_edited_in_two_tick_sizes_and_found_by_kind(desk):
    name = near_the_money(desk)
    bid = desk.ask("public/ticker", instrument_name=name)["best_bid_price"]
    low = round(bid - 0.002, 4)
    order = desk.ask("private/buy", instrument_name=name, amount=0.1, price=low, post_only=True)["order"]
    assert (order["order_state"], order["price"], order["contracts"]) == ("open", low, 0.1)
    with pytest.raises(Said) as said:
        desk.ask("private/edit", order_id=order["order_id"], amount=0.1, price=round(low - 0.0001, 4))
    assert said.value.data["reason"] == "must conform to tick size"
    edited = desk.ask("private/edit", order_id=order["order_id"], contracts=0.3, price=round(low - 0.0005, 4))["order"]
    assert (edited["amount"], edited["replaced"]) == (0.3, True)
    future = desk.rest()
    for kind, ids in (("option", {edited["order_id"]}), ("future", {future["order_id"]}), ("spot", set())):
        found = desk.ask("private/get_open_orders_by_currency", currency="BTC", kind=kind)
        assert {one["order_id"] for one in found} == ids
    assert desk.ask("private/cancel_all_by_currency", currency="BTC", kind="option") == 1
    assert [one["order_id"] for one in desk.ask("private/get_open_orders")] == [future["order_id"]]
    assert desk.ask("private/cancel_all", kind="option") == 0
    assert desk.ask("private/cancel_all", kind="future") == 1


def test_an_order_may_be_priced_within_the_band_a_ticker_tells_and_not_beyond(desk):
    name = near_the_money(desk)
    told = desk.ask("public/ticker", instrument_name=name)
    highest, lowest = (math.floor(told["max_price"] / 0.0005) - 1, math.ceil(told["min_price"] / 0.0005) + 1)
    for method, inside, outside in (("buy", highest, highest + 3), ("sell", lowest, lowest - 3)):
        asked = {"instrument_name": name, "amount": 0.1, "time_in_force": "immediate_or_cancel"}
        assert desk.ask(f"private/{method}", **asked, price=round(inside * 0.0005, 4))["order"]["filled_amount"] == 0.1
        with pytest.raises(Said) as said:
            desk.ask(f"private/{method}", **asked, price=round(outside * 0.0005, 4))
        assert said.value.code == (10007 if method == "buy" else 10005)


def test_an_order_priced_in_volatility_is_not_for_this_venue(desk):
    asked = {"instrument_name": near_the_money(desk), "amount": 1, "price": 50, "advanced": "implv"}
    with pytest.raises(Said) as said:
        desk.ask("private/buy", **asked)
    assert said.value.code == 10033
    with pytest.raises(Said) as said:
        desk.ask("private/buy", **asked | {"instrument_name": BTC})
    assert said.value.code == 11038


def test_tickers_books_and_trades_of_options_are_heard_by_name_and_by_kind(desk):
    name = near_the_money(desk)
    channels = [f"ticker.{name}.100ms", f"book.{name}.raw", "trades.option.BTC.raw", "trades.future.BTC.raw"]
    assert desk.ask("public/subscribe", channels=channels) == channels
    first = dict(desk.heard())
    assert first[channels[0]]["greeks"]["delta"] > 0.0
    assert first[channels[1]]["type"] == "snapshot"
    done = buy_at_the_ask(desk, name, 0.1)
    desk.sleep(2_000)
    heard = desk.heard()
    by_kind = [trade for channel, data in heard if channel == channels[2] for trade in data]
    assert done["trades"][0]["trade_id"] in {trade["trade_id"] for trade in by_kind}
    assert all(trade["iv"] > 0.0 for trade in by_kind)
    others = [trade for channel, data in heard if channel == channels[3] for trade in data]
    assert not {t["instrument_name"] for t in others} & set(rows(desk, kind="option"))
    assert [data for channel, data in heard if channel == channels[0]]


def test_one_request_may_ask_for_500_channels_and_a_session_may_hear_more(desk):
    names = [f"{head}.{name}" for name in desk.exchange.instruments for head in ("ticker", "quote")]
    names = [f"{name}.100ms" if name.startswith("ticker") else name for name in names]
    with pytest.raises(Said) as said:
        desk.ask("public/subscribe", channels=names[:501])
    assert said.value.data["param"] == "channels"
    assert desk.heard() == []
    assert desk.ask("public/subscribe", channels=names[:500]) == names[:500]
    assert desk.ask("public/subscribe", channels=names[500:]) == names[500:]


def test_marks_of_a_whole_index_come_as_lists_with_fractions(desk):
    channel = "markprice.options.btc_usd"
    desk.ask("public/subscribe", channels=[channel])
    desk.sleep(0)
    for _ in range(12):
        desk.sleep(100)
    told = [row for _, data in desk.heard() for row in data]
    assert {row["instrument_name"] for row in told} == set(rows(desk, currency="BTC", kind="option"))
    assert all(0.0 < row["iv"] < 3.0 for row in told)
    assert desk.ask("public/subscribe", channels=["markprice.options.doge_usd"]) == []


def test_the_account_hears_of_its_options_by_kind(desk):
    channels = ["user.changes.option.any.raw", "user.changes.future.any.raw"]
    desk.ask("private/subscribe", channels=channels)
    done = buy_at_the_ask(desk, near_the_money(desk), 0.2)
    ((channel, change),) = desk.heard()
    assert channel == channels[0]
    assert change["trades"] == done["trades"]
    assert [(p["kind"], p["size"]) for p in change["positions"]] == [("option", 0.2)]


@pytest.fixture(scope="module")
def expired() -> tuple[Desk, str, str, float, list[Any]]:
    """A venue whose nearest expiry ended with an option held to it and one written: what was heard of listings."""
    desk = Desk("expiry", options=True)
    desk.ask("public/subscribe", channels=["instrument.state.any.any", "instrument.state.option.ETH"])
    listed = rows(desk, currency="BTC", kind="option").values()
    nearest = min(row["expiration_timestamp"] for row in listed)
    calls = [r for r in listed if (r["expiration_timestamp"], r["option_type"]) == (nearest, "call")]
    calls.sort(key=lambda row: float(row["strike"]))
    held, written = calls[2]["instrument_name"], calls[4]["instrument_name"]
    buy_at_the_ask(desk, held, 0.5)
    bid = desk.ask("public/ticker", instrument_name=written)["best_bid_price"]
    desk.ask("private/sell", instrument_name=written, amount=0.3, price=bid)
    desk.ask("public/subscribe", channels=[f"{kind}.{held}.100ms" for kind in ("ticker", "book")])
    balance = 0.0
    for _ in range(250):
        if held in desk.exchange.instruments:
            balance = desk.ask("private/get_account_summary", currency="BTC")["balance"]
        desk.sleep(100)
    return desk, held, written, balance, desk.heard()


def test_deliveries_are_told_with_the_price_and_the_cash_they_moved(expired):
    desk, held, written, balance, _ = expired
    asked = {"currency": "BTC", "type": "delivery", "count": 10}
    page = desk.ask("private/get_settlement_history_by_currency", **asked)
    told = {row["instrument_name"]: row for row in page["settlements"]}
    assert set(told) == {held, written}
    assert (told[held]["position"], told[written]["position"], page["continuation"]) == (0.5, -0.3, "none")
    for name, row in told.items():
        strike = float(name.split("-")[2])
        assert row["mark_price"] == pytest.approx(max(row["index_price"] - strike, 0.0) / row["index_price"])
        assert row["profit_loss"] <= row["mark_price"] * row["position"]
        assert row["type"] == "delivery"
    moved = sum(row["profit_loss"] for row in told.values())
    now = desk.ask("private/get_account_summary", currency="BTC")
    assert now["balance"] - balance == pytest.approx(moved, abs=1e-12)
    assert desk.ask("private/get_settlement_history_by_currency", currency="ETH")["settlements"] == []
    assert desk.ask("private/get_settlement_history_by_currency", currency="BTC", type="settlement") == {
        "settlements": [],
        "continuation": "none",
    }


def test_the_history_of_deliveries_has_pages_and_is_read_backwards(expired):
    desk, held, written, _, _ = expired
    first = desk.ask("private/get_settlement_history_by_currency", currency="BTC", count=1)
    second = desk.ask(
        "private/get_settlement_history_by_currency", currency="BTC", count=1, continuation=first["continuation"]
    )
    assert (len(first["settlements"]), second["continuation"]) == (1, "none")
    both = first["settlements"] + second["settlements"]
    assert {row["instrument_name"] for row in both} == {held, written}
    before = both[0]["timestamp"] - 1
    asked = {"currency": "BTC", "search_start_timestamp": before}
    assert desk.ask("private/get_settlement_history_by_currency", **asked)["settlements"] == []
    of_one = desk.ask("private/get_settlement_history_by_instrument", instrument_name=held)
    assert [row["instrument_name"] for row in of_one["settlements"]] == [held]
    with pytest.raises(Said):
        desk.ask("private/get_settlement_history_by_instrument", instrument_name="BTC-1JAN20-1-C")


def test_whoever_watches_listings_hears_what_ended_and_what_is_new(expired):
    desk, held, _, _, heard = expired
    states = [data for channel, data in heard if channel == "instrument.state.any.any"]
    of_held = [data["state"] for data in states if data["instrument_name"] == held]
    assert of_held == ["closed"]
    new = [data["instrument_name"] for data in states if data["state"] == "created"]
    assert new
    assert [d["instrument_name"] for d in states if d["state"] == "started"] == new
    assert set(new) <= set(desk.exchange.instruments) | set(desk.exchange.delisted)
    ether = [data for channel, data in heard if channel == "instrument.state.option.ETH"]
    assert ether
    assert all(data["instrument_name"].startswith("ETH-") for data in ether)
    assert ether == [d for d in states if d["instrument_name"].startswith("ETH-") and d["instrument_name"][-1] in "CP"]


def test_an_expired_option_is_listed_as_such_and_no_longer_quoted(expired):
    desk, held, _, _, heard = expired
    ended = rows(desk, currency="BTC", kind="option", expired=True)
    assert (ended[held]["is_active"], ended[held]["state"]) == (False, "closed")
    assert held not in rows(desk, currency="BTC", kind="option")
    assert not set(ended) & set(desk.exchange.instruments)
    assert desk.ask("public/get_instrument", instrument_name=held)["state"] == "closed"
    with pytest.raises(Said):
        desk.ask("public/ticker", instrument_name=held)
    assert [data for channel, data in heard if channel == f"ticker.{held}.100ms"]


def test_a_newcomer_to_the_channels_of_an_expired_option_hears_nothing(expired):
    desk, held, _, _, _ = expired
    stranger = desk.connect()
    desk.ask("public/subscribe", stranger, channels=[f"ticker.{held}.100ms", f"quote.{held}"])
    desk.sleep(500)
    assert [data for channel, data in desk.heard(stranger) if channel.startswith(("ticker", "quote"))] == []


def test_trades_of_an_expired_option_can_still_be_read(expired):
    desk, held, _, _, _ = expired
    page = desk.ask("private/get_user_trades_by_currency", currency="BTC", kind="option")
    assert held in {trade["instrument_name"] for trade in page["trades"]}
    assert desk.ask("private/get_user_trades_by_currency", currency="BTC", kind="future")["trades"] == []


def test_nothing_is_encoded_for_options_nobody_listens_to(desk, monkeypatch):
    monkeypatch.setattr(encodings, "ticker", lambda *_: pytest.fail("a ticker was encoded"))
    monkeypatch.setattr(options, "traded", lambda *_: pytest.fail("a trade was encoded"))
    monkeypatch.setattr(options, "mark", lambda *_: pytest.fail("a mark was encoded"))
    desk.sleep(3_000)
