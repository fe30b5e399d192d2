"""What a book is exposed to, told: by factor, by contract, and in text."""

import json
import time
from typing import Any

import numpy as np
import pytest

from dea_daemon.domain.decisions import IvSource
from dea_daemon.domain.factors import BUCKETS, FactorIndex
from dea_daemon.domain.instruments import AccountKey, Kind, Payoff, Universe
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.shell import greeks
from dea_daemon.shell.exposure import exposure, held_options, options
from dea_daemon.shell.exposure_text import table
from dea_daemon.shell.greeks import by_underlying, curved
from dea_daemon.wiring.exposure import Valued
from tests.house import INSTRUMENTS, START_NS, instrument

PERP, NEAR, FAR, IDLE = 0, 1, 2, 3


def option(name: str, days: float, strike: float) -> Any:
    coin = dict(kind=Kind.OPTION, quote_currency="BTC", settle_currency="BTC", strike=strike, is_call=True)
    return instrument(name, "BTC", Payoff.LINEAR, "0.1", "0.0001", expiry_ns=START_NS + int(days * NS_PER_DAY), **coin)


OPTIONS = (option("BTC-FAR-C", 60.0, 9e4), option("BTC-NEAR-C", 3.0, 8e4), option("BTC-IDLE-C", 3.0, 9e4))
UNIVERSE = Universe((AccountKey("deribit", "main"),), tuple((0, i) for i in (INSTRUMENTS[0], *OPTIONS)))
FACTORS = FactorIndex(("BTC",), ("USDC",))


def book(**more: Any) -> Valued:
    """10 lots of a perpetual, −30 of a far option, 20 of a near one, none of a third, with round Greeks a lot."""
    n = len(UNIVERSE)
    lots = np.array([10, -30, 20, 0])
    x = np.zeros((len(FACTORS), n))
    x[FACTORS.first("delta")] = [10.0, 4_000.0, 5_000.0, np.nan]
    x[FACTORS.first("gamma")] = [0.0, 100.0, 300.0, np.nan]
    x[FACTORS.first("vega", 1), 2] = 7.0  # to 7 days
    x[FACTORS.first("vega", 3), 1] = 20.0  # to 90 days
    base = np.zeros(len(FACTORS))
    base[0], base[-1] = 250_000.0, 1_000.0
    iv = np.array([np.nan, 0.5, 0.4, np.nan])
    sources = [IvSource.NONE, IvSource.QUOTES, IvSource.MARK, IvSource.NEIGHBOUR]
    fields: dict[str, Any] = dict(
        utc_ns=START_NS, universe=UNIVERSE, factors=FACTORS, mark_price=np.array([8e4, 0.05, 0.02, np.nan]),
        forward_price=np.array([np.nan, 8.1e4, 8e4, 8e4]), iv=iv, iv_source=np.array(sources),
        modelled=np.array([False, False, True, True]), greeks_off=np.array([False, True, False, False]),
        position_lots=lots, working_buy_lots=np.zeros(n, np.int64), working_sell_lots=np.zeros(n, np.int64),
        notional_per_lot_usd=np.array([10.0, 8_000.0, 8_000.0, np.nan]), exposure_per_lot=x, exposure_base_usd=base,
        exposure_usd=x[:, :3] @ lots[:3] + base, equity_usd=3e5,
    )  # fmt: skip
    return Valued(**(fields | more))


def line(told: dict[str, Any], factor: str) -> dict[str, Any]:
    found: dict[str, Any] = next(line for line in told["factors"] if line["factor"] == factor)
    return found


# --- factors ------------------------------------------------------------------------------------------------------


def test_each_factor_is_told_in_its_two_parts():
    delta = line(exposure(book()), "delta:BTC")
    assert (delta["base_usd"], delta["positions_usd"]) == (250_000, 10 * 10 - 30 * 4_000 + 20 * 5_000)
    assert delta["exposure_usd"] == delta["base_usd"] + delta["positions_usd"]
    assert line(exposure(book()), "cash:USDC")["exposure_usd"] == 1_000


def test_working_orders_are_told_at_their_worst_either_way():
    """Bought puts take delta away: the sign of X counts, not the order's side alone. An unpriced row is not touched."""
    x = book().exposure_per_lot.copy()
    x[0, FAR] = -4_000.0
    worked = book(exposure_per_lot=x, working_buy_lots=np.array([0, 0, 2, 0]), working_sell_lots=np.array([3, 0, 1, 0]))
    delta = line(exposure(worked), "delta:BTC")
    assert (delta["working_least_usd"], delta["working_most_usd"]) == (-3 * 10 - 2 * 4_000, 4_000)


def test_an_option_that_is_not_held_and_has_no_price_spoils_nothing():
    told = exposure(book())
    assert all(np.isfinite(one["exposure_usd"]) for one in told["factors"])
    assert "BTC-IDLE-C" not in {row["instrument"] for row in told["positions"]}


# --- contracts ----------------------------------------------------------------------------------------------------


def test_positions_add_up_to_the_factors():
    told = exposure(book())
    for name, factor in (("delta_usd", "delta:BTC"), ("gamma_usd_1pct", "gamma:BTC")):
        assert sum(row[name] for row in told["positions"]) == line(told, factor)["positions_usd"]
    by_expiry = told["greeks"]["BTC"]["vega_by_expiry"]
    assert sum(row["vega_usd_1pt"] for row in told["positions"]) == sum(by_expiry.values()) == 20 * 7 - 30 * 20


def test_options_come_behind_futures_by_expiry():
    rows = exposure(book())["positions"]
    assert [row["instrument"] for row in rows] == ["BTC-PERPETUAL", "BTC-NEAR-C", "BTC-FAR-C"]
    assert [row["instrument"] for row in held_options(book())] == ["BTC-NEAR-C", "BTC-FAR-C"]


def test_a_position_tells_where_its_volatility_comes_from_and_when_it_ends():
    near = held_options(book())[0]
    assert (near["iv"], near["iv_source"], near["days"], near["amount"]) == (0.4, "mark", 3.0, 2.0)
    assert (near["modelled"], near["greeks_off"]) == (True, False)


def test_what_the_options_rest_on_is_counted_held_or_not():
    assert options(book()) == {
        "listed": 3,
        "iv_sources": {"quotes": 1, "mark": 1, "neighbour": 1},
        "modelled": 2,
        "greeks_off": ["BTC-FAR-C"],
    }


def test_a_book_of_400_options_is_told_in_little_time():
    """A few held ones among many: what is flat costs no Python. The best of ten."""
    many = Universe(UNIVERSE.accounts, tuple((0, option(f"BTC-{k}-C", 3.0, 1e4 + k)) for k in range(400)))
    lots = np.zeros(400, np.int64)
    lots[::40] = 1
    none, x = np.zeros(400, np.int64), np.ones((len(FACTORS), 400))
    prices = dict.fromkeys(("mark_price", "forward_price", "iv", "notional_per_lot_usd"), np.ones(400))
    flags = {"modelled": none > 0, "greeks_off": none > 0, "iv_source": none}
    working = {"working_buy_lots": none, "working_sell_lots": none}
    large = book(universe=many, position_lots=lots, exposure_per_lot=x, **prices, **flags, **working)
    took_s = []
    for _ in range(10):
        before_s = time.perf_counter()
        assert len(held_options(large)) == 10
        took_s.append(time.perf_counter() - before_s)
    assert min(took_s) < 0.002


# --- by underlying ------------------------------------------------------------------------------------------------


def test_the_buckets_have_the_names_of_the_factors():
    assert tuple(name for name, _ in BUCKETS) == greeks.BUCKETS


def test_every_factor_but_cash_finds_its_place():
    told = by_underlying((name, float(k + 1)) for k, name in enumerate(FACTORS.names))
    (btc,) = told.values()
    figures = [btc[unit] for unit in greeks.UNITS.values()]
    figures += [usd for name in greeks.BY_EXPIRY.values() for usd in btc[name].values()]
    assert sorted(figures) == [float(k + 1) for k in range(len(FACTORS) - 1)]


def test_expiries_with_nothing_in_them_are_not_told():
    told = by_underlying([("vega:BTC:1d", 0.0), ("vega:BTC:7d", 2.0), ("basis:BTC:30d", None)])
    assert told["BTC"]["vega_by_expiry"] == {"7d": 2.0}
    assert told["BTC"]["basis_by_expiry"] == {"30d": None}


@pytest.mark.parametrize(
    ("factors", "has_options"),
    [
        ([("delta:BTC", 5.0), ("carry:BTC", 1.0), ("basis:BTC:30d", 2.0), ("cash:USDC", 9.0)], False),
        ([("delta:BTC", 5.0), ("gamma:BTC", -1.0)], True),
        ([("delta:BTC", 5.0), ("vega:BTC", None)], True),  # not known is not zero
    ],
)
def test_options_are_where_there_is_more_than_delta_carry_and_basis(factors, has_options):
    assert bool(curved(by_underlying(factors))) is has_options


# --- text ---------------------------------------------------------------------------------------------------------


def text(**more: Any) -> str:
    told = json.loads(json.dumps(exposure(book(**more)), default=lambda value: value.item()))
    return table(told, "the daemon", on_terminal=False)


def cells(shown: str, first: str) -> list[str]:
    found = next(line for line in shown.split("\n") if line.startswith("│") and line.split("│")[1].strip() == first)
    return [cell.strip() for cell in found.strip("│").split("│")]


def test_the_tables_tell_the_sums_and_each_contract():
    shown = text()
    assert cells(shown, "BTC")[:5] == ["BTC", "250,000", "-19,900", "230,100", "3,000"]
    assert cells(shown, "BTC-NEAR-C")[:7] == ["BTC-NEAR-C", "2", "0.0200", "3.0", "80,000.0", "40.0 %", "the mark"]
    assert "the venue's Greeks differ from ours in 1: BTC-FAR-C" in shown
    assert "nan" not in shown


def test_a_book_without_options_has_narrow_tables():
    shown = text(universe=Universe(UNIVERSE.accounts, tuple((0, i) for i in INSTRUMENTS[:1])), **only_the_perpetual())
    assert "gamma" not in shown and "iv" not in shown and "by expiry" not in shown
    assert cells(shown, "BTC-PERPETUAL") == ["BTC-PERPETUAL", "100", "80,000.00", "100", "100"]


def only_the_perpetual() -> dict[str, Any]:
    whole = book()
    rows = ("mark_price", "forward_price", "iv", "iv_source", "modelled", "greeks_off", "position_lots",
            "working_buy_lots", "working_sell_lots", "notional_per_lot_usd")  # fmt: skip
    x = whole.exposure_per_lot[:, :1]
    cut = {name: getattr(whole, name)[:1] for name in rows}
    return cut | {"exposure_per_lot": x, "exposure_usd": x[:, 0] * 10 + whole.exposure_base_usd}


def test_a_contracts_name_is_no_markup_and_moves_no_cursor():
    loud = instrument("[red]\x1b[2J", "BTC", Payoff.INVERSE, "10", "0.5")
    universe = Universe(UNIVERSE.accounts, ((0, loud),))
    shown = text(universe=universe, **only_the_perpetual())
    assert "\x1b" not in shown
    assert "[red]" in shown
