"""Exposure: every row against finite differences of what a whole account is worth, written out by itself here."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.domain.errors import InvariantViolation
from dea_daemon.domain.factors import BUCKETS, FactorIndex
from dea_daemon.domain.instruments import AccountKey, Instrument, Kind, Payoff, Universe
from dea_daemon.pricing import black
from dea_daemon.pricing.exposure import (
    Marks,
    account_exposure,
    collateral_exposure,
    delta_per_lot,
    exposure_per_lot,
    notional_per_lot,
    term_weight,
)

DAY_NS = 86_400 * 10**9
NOT_HELD = -1.0  # days to expiry of what has none


def contract(name, kind, payoff, underlying, quote, settle, lot, days=0.0, strike=0.0, call=False) -> Instrument:
    return Instrument(
        "deribit", name, kind, payoff, underlying, quote, settle, settle, Decimal(1), Decimal(lot), Decimal("0.0001"),
        expiry_ns=int(days * DAY_NS), strike=strike, is_call=call,
    )  # fmt: skip


CONTRACTS = (
    contract("BTC-PERPETUAL", Kind.PERPETUAL, Payoff.INVERSE, "BTC", "USD", "BTC", "10"),
    contract("BTC-20D", Kind.FUTURE, Payoff.INVERSE, "BTC", "USD", "BTC", "10", 20),
    contract("BTC_USDC-PERPETUAL", Kind.PERPETUAL, Payoff.LINEAR, "BTC", "USDC", "USDC", "0.001"),
    contract("BTC_USDC-60D", Kind.FUTURE, Payoff.LINEAR, "BTC", "USDC", "USDC", "0.001", 60),
    contract("ETH-PERPETUAL", Kind.PERPETUAL, Payoff.INVERSE, "ETH", "USD", "ETH", "1"),
    contract("BTC-20D-85000-C", Kind.OPTION, Payoff.LINEAR, "BTC", "BTC", "BTC", "0.1", 20, 85_000.0, True),
    contract("BTC-5D-78000-P", Kind.OPTION, Payoff.LINEAR, "BTC", "BTC", "BTC", "0.1", 5, 78_000.0),
    contract("BTC_USDC-60D-90000-C", Kind.OPTION, Payoff.LINEAR, "BTC", "USDC", "USDC", "0.01", 60, 90_000.0, True),
    contract("ETH-200D-3100-P", Kind.OPTION, Payoff.LINEAR, "ETH", "ETH", "ETH", "1", 200, 3_100.0),
    contract("BTC_USDC-20D-75000-P", Kind.OPTION, Payoff.LINEAR, "BTC", "USDC", "USDC", "0.01", 20, 75_000.0),
    contract("BTC-QUANTO", Kind.PERPETUAL, Payoff.QUANTO, "BTC", "USD", "ETH", "0.00001"),
    contract("BTC_USDC", Kind.SPOT, Payoff.LINEAR, "BTC", "USDC", "USDC", "0.0001"),
)
UNIVERSE = Universe((AccountKey("deribit", "main"),), tuple((0, c) for c in CONTRACTS))
FACTORS = FactorIndex(UNIVERSE.underlyings, ("USDC", "SOL"))
ROW = {c.name: i for i, c in enumerate(CONTRACTS)}
N, BTC, ETH = len(CONTRACTS), 0, 1
DAYS = UNIVERSE.expiry_ns / DAY_NS
BUCKET = [next(k for k, (_, most) in enumerate(BUCKETS) if d <= most) if d else NOT_HELD for d in DAYS]
ENTRY = np.array([78_000.0, 82_000.0, 79_000.0, 83_000.0, 2_900.0, 0, 0, 0, 0, 0, 81_000.0, 0])
FUNDING = np.array([1e-4, np.nan, -5e-5, np.nan, 2e-4, *[np.nan] * 5, 3e-5, np.nan])


@dataclass(frozen=True)
class World:
    """Prices, each contract's own basis and volatility, and days gone: of volatility, and of forwards and funding."""

    spot: tuple[float, float] = (80_000.0, 3_000.0)
    usdc: float = 0.998
    basis: tuple[float, ...] = tuple(0.0 if k is NOT_HELD else 0.04 + 0.01 * k for k in BUCKET)
    vol: tuple[float, ...] = tuple(0.45 + 0.03 * i for i in range(N))
    aged: float = 0.0
    slid: float = 0.0

    def price(self, currency):
        return {"BTC": self.spot[0], "ETH": self.spot[1], "USDC": self.usdc, "SOL": 150.0}[currency]

    def forward(self, i):
        return self.price(CONTRACTS[i].underlying) * math.exp(self.basis[i] * (DAYS[i] - self.slid) / 365.0)


def normal(x):
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def option_value(i, world):
    """Black-76, USD a coin."""
    F, K = world.forward(i), CONTRACTS[i].strike
    s = world.vol[i] * math.sqrt((DAYS[i] - world.aged) / 365.0)
    d1 = math.log(F / K) / s + 0.5 * s
    call = F * normal(d1) - K * normal(d1 - s)
    return call if CONTRACTS[i].is_call else call - F + K


def earned(i, world):
    """What one lot is worth in its settle currency, since its entry; options at their full value."""
    c, F = CONTRACTS[i], world.forward(i)
    paid = 0.0 if math.isnan(FUNDING[i]) else 3.0 * FUNDING[i] * world.slid  # a share of the position
    if c.kind is Kind.OPTION:
        return c.lot_value * option_value(i, world) / (F if c.quote_currency == c.underlying else 1.0)
    if c.payoff is Payoff.INVERSE:
        return c.lot_value * (1.0 / ENTRY[i] - 1.0 / F) - paid * c.lot_value / F
    return c.lot_value * (F - ENTRY[i]) - paid * c.lot_value * F


CASH = {"BTC": 3.0, "ETH": 40.0, "USDC": 50_000.0, "SOL": 0.0}


def equity(position, world):
    coins = dict(CASH)
    for i, lots in enumerate(position):
        if lots and CONTRACTS[i].kind is not Kind.SPOT:
            coins[CONTRACTS[i].settle_currency] += lots * earned(i, world)
    return coins


def worth_usd(position, world):
    return sum(held * world.price(currency) for currency, held in equity(position, world).items())


def prices(world):
    return {currency: world.price(currency) for currency in CASH}


def marks(world=World(), **changes) -> Marks:
    """As state hands them over: what a kind of contract does not have is NaN."""
    spot = np.array([world.price(c.underlying) for c in CONTRACTS])
    forward = np.array([world.forward(i) for i in range(N)])
    tau = np.where(DAYS > 0, DAYS / 365.0, np.nan)
    option = UNIVERSE.option
    greeks = black.greeks(forward, np.where(option, UNIVERSE.strike, forward), tau, np.array(world.vol), UNIVERSE.call)
    fields = dict(
        mark_price=np.where(option, np.nan, forward),
        spot_price=spot,
        forward_price=np.where(option, forward, np.nan),
        settle_price=np.array([world.price(c.settle_currency) for c in CONTRACTS]),
        funding_rate_8h=FUNDING,
        tau_years=tau,
        weight=np.ones(N),
        coin_value=np.where(UNIVERSE.coin_quoted, greeks.price / forward, 0.0),
        **{name: np.where(option, getattr(greeks, name), 0.0) for name in ("delta", "gamma", "vega", "theta")},
    )
    return Marks(**(fields | changes))


def exposure(position, world=World(), convention="premium_adjusted"):
    """X·q + e0 [K]."""
    lots = np.array(position)
    coins = equity(position, world)
    return account_exposure(UNIVERSE, FACTORS, marks(world), lots, coins, prices(world), convention)[2]


def slope(position, change, h):
    """Central difference of the worth; `change` makes a world of a step."""
    return (worth_usd(position, change(h)) - worth_usd(position, change(-h))) / (2.0 * h)


def moved(u, step):
    spot = list(World().spot)
    spot[u] *= 1.0 + step
    return World(spot=(spot[0], spot[1]))


def bumped(field, u, bucket, step):
    """A world where this underlying's contracts of one bucket have another basis or volatility."""
    old = getattr(World(), field)
    mine = [CONTRACTS[i].underlying == FACTORS.underlyings[u] and BUCKET[i] == bucket for i in range(N)]
    values = tuple(value + step * m for value, m in zip(old, mine, strict=True))
    return replace(World(), basis=values) if field == "basis" else replace(World(), vol=values)


def row(values, kind, u, bucket=None):
    return values[FACTORS.first(kind, bucket) + u]


scales = np.array([c.lot_value * (1.0 if c.payoff is Payoff.INVERSE else 80_000.0) for c in CONTRACTS])
sizes = st.lists(st.floats(-200_000.0, 200_000.0), min_size=N, max_size=N)  # USD in each contract
positions = sizes.map(lambda usd: [*np.rint(np.array(usd[:-1]) / scales[:-1]).astype(int).tolist(), 0])


def near(value):
    """Of positions of 100,000 USD."""
    return pytest.approx(value, rel=1e-5, abs=0.05)


@given(positions)
def test_delta_is_the_slope_of_what_the_account_is_worth(position):
    measured = exposure(position)
    for u in (BTC, ETH):
        # A slope by ln S: the step is a relative one.
        assert row(measured, "delta", u) == near(slope(position, lambda h, u=u: moved(u, h), 1e-5))


@given(positions)
def test_gamma_is_the_curvature_beyond_that_of_coins_held(position):
    measured = exposure(position)
    h, now = 1e-3, worth_usd(position, World())
    for u in (BTC, ETH):
        bent = (worth_usd(position, moved(u, h)) - 2.0 * now + worth_usd(position, moved(u, -h))) / h**2
        assert row(measured, "gamma", u) == pytest.approx(bent / 100.0, rel=1e-3, abs=1.0)


@given(positions)
def test_vega_is_the_slope_by_a_vol_point_in_each_bucket_and_their_weighted_sum(position):
    measured = exposure(position)
    for u in (BTC, ETH):
        total = 0.0
        for bucket in range(len(BUCKETS)):
            point = slope(position, lambda h, u=u, b=bucket: bumped("vol", u, b, h), 1e-4) / 100.0
            assert row(measured, "vega", u, bucket) == near(point)
            days = next((d for d, b in zip(DAYS, BUCKET, strict=True) if b == bucket), 30.0)  # one expiry in each
            total += point * float(term_weight(np.array(days)))
        assert row(measured, "vega", u) == pytest.approx(total, rel=1e-5, abs=0.1)


@given(positions)
def test_basis_is_the_slope_by_one_percent_of_annual_basis_in_each_bucket(position):
    measured = exposure(position)
    for u in (BTC, ETH):
        for bucket in range(len(BUCKETS)):
            percent = slope(position, lambda h, u=u, b=bucket: bumped("basis", u, b, h), 1e-5) / 100.0
            assert row(measured, "basis", u, bucket) == near(percent)


@given(positions)
def test_theta_is_what_a_day_takes_from_options_and_carry_what_forwards_and_funding_add(position):
    measured = exposure(position)
    theta = slope(position, lambda h: World(aged=h), 1e-3)
    carry = slope(position, lambda h: World(slid=h), 1e-3)
    assert row(measured, "theta", BTC) + row(measured, "theta", ETH) == pytest.approx(theta, rel=1e-4, abs=0.1)
    assert row(measured, "carry", BTC) + row(measured, "carry", ETH) == pytest.approx(carry, rel=1e-4, abs=0.1)


@given(positions)
def test_cash_is_the_slope_by_the_price_of_a_stablecoin(position):
    held = slope(position, lambda h: World(usdc=0.998 * (1.0 + h)), 1e-5)
    assert row(exposure(position), "cash", 0) == near(held)


# --- conventions ------------------------------------------------------------------------------------


@given(positions)
def test_equity_and_delta_total_are_cash_and_black_delta_and_the_futures(position):
    """Deribit's identity, in coin: their delta total of options is Black's less the mark, of futures face over mark."""
    world = World()
    greeks = marks(world)
    coins = equity(position, world)["BTC"]
    mine = [i for i in range(N) if position[i] and CONTRACTS[i].settle_currency == "BTC"]
    lots = {i: position[i] * CONTRACTS[i].lot_value for i in mine}
    futures = sum(lots[i] / world.forward(i) for i in mine if not UNIVERSE.option[i])
    profit = sum(position[i] * earned(i, world) for i in mine if not UNIVERSE.option[i])
    options = {i: lots[i] for i in mine if UNIVERSE.option[i]}
    delta_total = futures + sum(q * (greeks.delta[i] - greeks.coin_value[i]) for i, q in options.items())
    cash = CASH["BTC"] + profit
    assert coins + delta_total == pytest.approx(cash + sum(q * greeks.delta[i] for i, q in options.items()) + futures)
    only = [lots if i in mine else 0 for i, lots in enumerate(position)]
    ours = account_exposure(UNIVERSE, FACTORS, greeks, np.array(only), {"BTC": coins}, prices(world))[2]
    assert ours[BTC] == pytest.approx((coins + delta_total) * world.spot[BTC], abs=1e-4)


@given(positions)
def test_both_conventions_give_the_same_sum(position):
    adjusted, in_black = (exposure(position, convention=name) for name in ("premium_adjusted", "black"))
    assert np.allclose(adjusted, in_black, rtol=1e-12, atol=1e-6)


def test_the_conventions_differ_in_where_the_premium_stands():
    position = np.zeros(N, dtype=np.int64)
    position[ROW["BTC-20D-85000-C"]] = 10
    coins, now = {"BTC": 1.0}, prices(World())
    value = 10 * 0.1 * marks().coin_value[ROW["BTC-20D-85000-C"]] * 80_000.0
    theirs = account_exposure(UNIVERSE, FACTORS, marks(), position, coins, now)
    cash = account_exposure(UNIVERSE, FACTORS, marks(), position, coins, now, "black")
    assert theirs[1][BTC] == 80_000.0
    assert cash[1][BTC] == pytest.approx(80_000.0 - value)
    assert (cash[0] - theirs[0])[BTC] @ position == pytest.approx(value)
    assert np.array_equal(cash[0][2:], theirs[0][2:])  # delta rows alone know of it


def test_a_convention_by_another_name_is_refused():
    with pytest.raises(InvariantViolation):
        delta_per_lot(UNIVERSE, marks(), "cash")  # type: ignore[arg-type]


def test_factors_of_another_universe_are_refused():
    with pytest.raises(InvariantViolation):
        exposure_per_lot(UNIVERSE, FactorIndex(("ETH", "BTC")), marks())


def test_black_delta_of_a_call_and_a_put_have_their_signs():
    delta = delta_per_lot(UNIVERSE, marks(), "black")
    call, put = ROW["BTC-20D-85000-C"], ROW["ETH-200D-3100-P"]
    assert delta[call] == pytest.approx(0.1 * 80_000.0 * marks().delta[call]) and delta[call] > 0.0
    assert delta[put] == pytest.approx(3_000.0 * marks().delta[put]) and delta[put] < 0.0


# --- contract by contract ---------------------------------------------------------------------------


def test_an_inverse_short_of_face_equal_to_equity_has_no_delta():
    coins = 5.0
    short = -round(coins * 80_000.0 / 10.0)
    position = np.zeros(N, dtype=np.int64)
    position[ROW["BTC-PERPETUAL"]] = short
    total = account_exposure(UNIVERSE, FACTORS, marks(), position, {"BTC": coins}, {"BTC": 80_000.0})[2]
    assert total[BTC] == 0.0


def test_a_linear_lot_is_its_size_times_the_mark_in_usd():
    perpetual = ROW["BTC_USDC-PERPETUAL"]
    x = exposure_per_lot(UNIVERSE, FACTORS, marks())[:, perpetual]
    assert x[BTC] == pytest.approx(0.001 * 80_000.0 * 0.998)
    assert x[ETH] == 0.0


def test_a_quanto_moves_with_its_underlying_by_the_price_of_its_coin_and_its_profit_is_equity_in_that_coin():
    quanto = ROW["BTC-QUANTO"]
    position = [0] * N
    position[quanto] = 1_000
    x = exposure_per_lot(UNIVERSE, FACTORS, marks())
    assert x[BTC, quanto] == pytest.approx(1e-5 * 80_000.0 * 3_000.0)
    assert x[ETH, quanto] == 0.0
    profit = 1_000 * 1e-5 * (80_000.0 - ENTRY[quanto])  # ETH
    assert exposure(position)[ETH] == pytest.approx((40.0 + profit) * 3_000.0)


def test_a_spot_lot_is_worth_its_index_and_what_is_held_stands_in_the_equity():
    position = np.zeros(N, dtype=np.int64)
    position[ROW["BTC_USDC"]] = 10_000  # 1 BTC
    matrix, _, total = account_exposure(UNIVERSE, FACTORS, marks(), position, {"BTC": 1.0}, prices(World()))
    assert matrix[BTC, ROW["BTC_USDC"]] == pytest.approx(8.0)
    assert np.count_nonzero(matrix[:, ROW["BTC_USDC"]]) == 1
    assert total[BTC] == 80_000.0


def test_a_long_perpetual_pays_a_positive_rate_three_times_a_day():
    carry = exposure_per_lot(UNIVERSE, FACTORS, marks())[FACTORS.first("carry")]
    assert carry[ROW["BTC-PERPETUAL"]] == pytest.approx(-3.0 * 1e-4 * 10.0)
    assert carry[ROW["BTC_USDC-PERPETUAL"]] > 0.0  # its rate is negative


def test_a_forward_slides_to_the_index_by_no_more_than_what_is_left():
    hour = np.full(N, 1.0 / 24.0 / 365.0)
    future = ROW["BTC-20D"]
    price = marks().mark_price.copy()
    price[future] = 80_080.0
    x = exposure_per_lot(UNIVERSE, FACTORS, marks(tau_years=hour, mark_price=price))
    assert x[FACTORS.first("carry"), future] == pytest.approx(-math.log(1.001) * x[BTC, future])


def test_notional_is_face_for_inverse_index_for_options_and_mark_for_others():
    price, spot = marks().mark_price, marks().spot_price
    notional = notional_per_lot(UNIVERSE, price, spot)
    assert notional[ROW["BTC-PERPETUAL"]] == 10.0
    assert notional[ROW["BTC-20D-85000-C"]] == pytest.approx(8_000.0)
    assert notional[ROW["BTC_USDC-PERPETUAL"]] == pytest.approx(80.0)
    unknown = notional_per_lot(UNIVERSE, price * np.nan, spot)
    assert unknown[ROW["BTC-PERPETUAL"]] == 10.0 and np.isnan(unknown[ROW["BTC_USDC-PERPETUAL"]])


def test_contracts_stand_in_the_bucket_of_their_days():
    x = exposure_per_lot(UNIVERSE, FACTORS, marks())
    for i in range(N):
        for bucket in range(len(BUCKETS)):
            here = BUCKET[i] == bucket
            u = int(UNIVERSE.underlying[i])
            assert (x[FACTORS.first("basis", bucket) + u, i] != 0.0) == here
            assert (x[FACTORS.first("vega", bucket) + u, i] != 0.0) == (here and bool(UNIVERSE.option[i]))


def test_a_vol_point_counts_more_the_nearer_it_is_and_one_at_thirty_days():
    days = np.array([0.0, 1.0, 15.0, 30.0, 120.0])
    weight = term_weight(days)
    assert weight[3] == 1.0
    assert weight[2] == pytest.approx(2.0**0.30)
    assert weight[4] == pytest.approx(0.25**0.13)
    assert weight[0] == weight[1] == pytest.approx(30.0**0.30)


# --- settlement -------------------------------------------------------------------------------------

SHARE, STILL = 0.4, 0.0015  # of the average yet to come, and the deviation of ln of that part's mean


def settled_value(spot, fixed, strike, call):
    """E of the payoff on (1 − w)·fixed + w·(lognormal with mean spot): Black on the part to come, strike moved."""
    left = SHARE * spot
    moved_strike = strike - (1.0 - SHARE) * fixed
    d1 = math.log(left / moved_strike) / STILL + 0.5 * STILL
    value = left * normal(d1) - moved_strike * normal(d1 - STILL)
    return value if call else value - left + moved_strike


def in_window(name, strike):
    """Marks while the average is being taken, the index still where it began; and a function of the worth in USD."""
    i, spot = ROW[name], 80_000.0
    s = STILL * SHARE  # of the forward's logarithm
    call = CONTRACTS[i].is_call
    g = black.greeks(spot, strike, 1e-4, s / math.sqrt(1e-4), call)
    columns: dict[str, float | np.ndarray] = dict(
        forward_price=spot, mark_price=spot, weight=SHARE, delta=g.delta, gamma=g.gamma
    )
    columns["coin_value"] = g.price / spot if UNIVERSE.coin_quoted[i] else 0.0
    changed = {key: np.where(np.arange(N) == i, value, getattr(marks(), key)) for key, value in columns.items()}
    forward = lambda x: (1.0 - SHARE) * spot + SHARE * x  # noqa: E731
    value = lambda x: settled_value(x, spot, strike, call)  # noqa: E731
    return i, marks(**changed), forward, value


@pytest.mark.parametrize("strike", [79_950.0, 80_000.0, 80_060.0])
@pytest.mark.parametrize("name", ["BTC-20D-85000-C", "BTC-5D-78000-P"])
def test_delta_in_the_settlement_average_counts_what_is_still_to_come(name, strike):
    i, given_marks, forward, value = in_window(name, strike)
    worth = lambda x: CONTRACTS[i].lot_value * x * value(x) / forward(x)  # noqa: E731
    measured = (worth(80_008.0) - worth(79_992.0)) / 16.0 * 80_000.0
    # Black's delta counts the premium as cash: in full, not by what is still to come.
    delta = delta_per_lot(UNIVERSE, given_marks, "black")[i]
    assert delta == pytest.approx(measured, abs=1e-3 * 8_000.0)
    premium = CONTRACTS[i].lot_value * value(80_000.0)
    assert delta_per_lot(UNIVERSE, given_marks)[i] == pytest.approx(measured - premium, abs=1e-3 * 8_000.0)
    assert abs(measured) > 0.02 * 8_000.0  # and not because all of it is nothing


@pytest.mark.parametrize("strike", [79_950.0, 80_000.0, 80_060.0])
def test_gamma_in_the_settlement_average_counts_by_its_square(strike):
    i, given_marks, _, value = in_window("BTC_USDC-60D-90000-C", strike)
    bent = (value(80_008.0) - 2.0 * value(80_000.0) + value(79_992.0)) / 64.0
    gamma = exposure_per_lot(UNIVERSE, FACTORS, given_marks)[FACTORS.first("gamma"), i]
    assert gamma == pytest.approx(0.01 * 80_000.0**2 * bent * 0.998 / 100.0, rel=0.01)


def test_a_future_in_the_settlement_average_keeps_only_what_is_still_to_come_and_carries_nothing():
    weight = np.full(N, 0.25)
    plain, late = (exposure_per_lot(UNIVERSE, FACTORS, marks(weight=w)) for w in (np.ones(N), weight))
    for name, left in (("BTC-20D", 0.25), ("BTC_USDC-60D", 0.25), ("BTC-PERPETUAL", 1.0)):
        assert late[BTC, ROW[name]] == pytest.approx(left * plain[BTC, ROW[name]])
    assert late[FACTORS.first("carry"), ROW["BTC-20D"]] == 0.0


def test_what_has_settled_is_exposed_to_nothing():
    i = ROW["BTC-20D-85000-C"]
    gone = np.where(np.arange(N) == i, 0.0, 1.0)
    x = exposure_per_lot(UNIVERSE, FACTORS, marks(weight=gone, vega=marks().vega * gone, theta=marks().theta * gone))
    assert not x[:, i].any()


# --- unknown prices ---------------------------------------------------------------------------------

NEEDS: dict[str, Callable[[Instrument], bool]] = {
    "mark_price": lambda c: c.kind in (Kind.PERPETUAL, Kind.FUTURE),
    "spot_price": lambda c: Payoff.INVERSE is c.payoff or Kind.SPOT is c.kind or c.quote_currency == c.underlying,
    "forward_price": lambda c: c.kind is Kind.OPTION,
    "settle_price": lambda c: not NEEDS["spot_price"](c),
    "delta": lambda c: c.kind is Kind.OPTION,
    "coin_value": lambda c: c.kind is Kind.OPTION and c.quote_currency == c.underlying,
}


@pytest.mark.parametrize("field", NEEDS)
def test_what_is_unknown_spoils_the_delta_of_the_contracts_that_need_it_and_no_other(field):
    whole = delta_per_lot(UNIVERSE, marks())
    assert np.isfinite(whole).all()
    for i, c in enumerate(CONTRACTS):
        values = np.array(getattr(marks(), field))
        values[i] = np.nan
        holed = marks()._replace(**{field: values})
        delta = delta_per_lot(UNIVERSE, holed)
        needed = (NEEDS[field](c) and c.kind is not Kind.SPOT) or (c.kind is Kind.SPOT and field == "spot_price")
        assert np.isnan(delta[i]) == needed, c.name
        assert np.array_equal(np.delete(delta, i), np.delete(whole, i))
        x = exposure_per_lot(UNIVERSE, FACTORS, holed)
        assert np.isfinite(np.delete(x, i, axis=1)).all()


def test_an_unknown_funding_rate_leaves_the_delta_known():
    x = exposure_per_lot(UNIVERSE, FACTORS, marks(funding_rate_8h=np.full(N, np.nan)))
    perpetual = ROW["BTC-PERPETUAL"]
    assert np.isnan(x[FACTORS.first("carry"), perpetual])
    assert np.isnan(x[:, perpetual]).sum() == 1


@pytest.mark.parametrize("convention", ["premium_adjusted", "black"])
def test_a_contract_without_a_price_spoils_the_sum_only_while_it_is_held(convention):
    i = ROW["BTC-20D-85000-C"]
    values = marks().coin_value.copy()
    values[i] = np.nan
    position = np.zeros(N, dtype=np.int64)
    for held in (0, 1):
        position[i] = held
        total = account_exposure(
            UNIVERSE, FACTORS, marks(coin_value=values), position, {"BTC": 1.0}, prices(World()), convention
        )[2]
        assert np.isnan(total[BTC]) == bool(held)
        assert total[ETH] == 0.0


def test_a_coin_without_a_price_is_unknown_and_no_coin_needs_none():
    assert np.isnan(collateral_exposure(FACTORS, {"BTC": 1.0}, {})[BTC])
    base = collateral_exposure(FACTORS, {"BTC": 0.0, "USDC": 5.0, "XRP": 7.0}, {"USDC": 0.99})
    assert not base[: FACTORS.first("cash")].any()
    assert base[FACTORS.first("cash") :].tolist() == [4.95, 0.0]


@pytest.mark.parametrize("convention", ["premium_adjusted", "black"])
def test_what_never_ends_is_exposed_to_the_same_with_or_without_contracts_that_end_beside_it(convention):
    endless = np.flatnonzero(UNIVERSE.expiry_ns == 0)
    alone = Universe(UNIVERSE.accounts, tuple((0, CONTRACTS[i]) for i in endless))
    its_marks = Marks(*(column[endless] for column in marks()))
    among = exposure_per_lot(UNIVERSE, FACTORS, marks(), convention)[:, endless]
    assert np.array_equal(exposure_per_lot(alone, FACTORS, its_marks, convention), among, equal_nan=True)
    delta = delta_per_lot(UNIVERSE, marks(), convention)[endless]
    assert np.array_equal(delta_per_lot(alone, its_marks, convention), delta)
