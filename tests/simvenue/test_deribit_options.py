"""Options in Deribit's words: by hand, and over the venue."""

import math
from dataclasses import replace
from decimal import Decimal
from statistics import NormalDist
from typing import Any

import pytest

from dea_daemon.domain.instruments import Instrument, Kind, Payoff, Side, TickStep
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_MS
from dea_daemon.feeds.deribit_mapping import instrument_from
from dea_daemon.simvenue.deribit import encodings, options
from dea_daemon.simvenue.deribit.contract import Contract
from dea_daemon.simvenue.words import OptionQuote, Ticker, Traded, VenuePosition
from tests.simvenue.deribit_desk import BTC, OTHER, Desk, Said
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
    return Contract(replace_struct(known, **changes), 1_000, START_NS)


def replace_struct(known: Instrument, **changes: Any) -> Instrument:
    import msgspec

    return msgspec.structs.replace(known, **changes)


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
