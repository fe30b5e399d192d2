"""The revaluation beside direct Black prices and payoffs, and what it says of limits."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from dea_daemon.domain.parameters import GuardParameters
from dea_daemon.research import stress
from dea_daemon.research.episodes import EPISODES, course, worst
from dea_daemon.research.stress import Holdings, Scenario, outcome, revalued, scenarios, shocks
from dea_daemon.research.stress_course import Course, excited, marked, worth

GUARDS = GuardParameters(
    max_gross_usd=1e9,
    max_net_usd=1e9,
    max_instrument_usd=1e9,
    max_order_usd=1e9,
    max_turnover_usd_per_hour=1e9,
    max_fees_usd_per_hour=1e9,
)
VOL, CORRELATION = np.array([0.6, 0.8]), np.array([[1.0, 0.8], [0.8, 1.0]])
SPOT = {"BTC": 50_000.0, "ETH": 2_500.0}


def holdings(*rows: dict[str, Any], cash: dict[str, float] | None = None) -> Holdings:
    """Contracts on BTC and ETH beside cash; a row says what differs from a linear perpetual in USDC."""
    currencies, underlyings = ("BTC", "ETH", "USDC"), ("BTC", "ETH")
    cash = {"USDC": 100_000.0} if cash is None else cash
    usual = {
        "u": "BTC", "settle": "USDC", "amount": 0.0, "inverse": False, "option": False, "coin": False, "call": False,
        "perpetual": True, "strike": 0.0, "iv": np.nan, "tau": 0.0,
    }  # fmt: skip
    told = [usual | row for row in rows]
    of = {name: [row[name] for row in told] for name in usual}
    flags = {name: np.array(of[name], dtype=np.bool_) for name in ("inverse", "option", "coin", "call", "perpetual")}
    return Holdings(
        underlyings=underlyings,
        names=tuple(f"contract {n}" for n in range(len(told))),
        currencies=currencies,
        underlying=np.array([underlyings.index(u) for u in of["u"]], dtype=np.int64),
        settle=np.array([currencies.index(c) for c in of["settle"]], dtype=np.int64),
        amount=np.array(of["amount"], dtype=np.float64),
        inverse=flags["inverse"],
        option=flags["option"],
        coin_quoted=flags["coin"],
        call=flags["call"],
        perpetual=flags["perpetual"],
        strike=np.array(of["strike"], dtype=np.float64),
        forward=np.array([SPOT[str(u)] for u in of["u"]], dtype=np.float64),
        iv=np.array(of["iv"], dtype=np.float64),
        tau_years=np.array(of["tau"], dtype=np.float64),
        spot=np.array(list(SPOT.values())),
        coin=np.array([0, 1, -1]),
        equity=np.array([cash.get(c, 0.0) for c in currencies]),
        price=np.array([*SPOT.values(), 1.0]),
        backing=np.ones(3),
    )


def black(forward: float, strike: float, tau: float, iv: float, call: bool) -> float:
    """Black 1976, by scipy's normal law."""
    sd = iv * np.sqrt(tau)
    d1 = np.log(forward / strike) / sd + sd / 2.0
    value = forward * norm.cdf(d1) - strike * norm.cdf(d1 - sd)
    return float(value if call else value - forward + strike)


def lost(book: Holdings, move: float, **more) -> float:
    return float(revalued(book, shocks(book, np.full((1, 1), move), **more)).loss[0])


# --- worth ------------------------------------------------------------------------------------------------------


def test_a_linear_contract_loses_its_coins_times_the_move():
    assert lost(holdings({"amount": 2.0}), -0.1) == pytest.approx(2.0 * 5_000.0)


def test_a_short_of_as_many_dollars_as_its_coins_are_worth_is_worth_the_same_after_any_move():
    book = holdings({"amount": -50_000.0, "settle": "BTC", "inverse": True}, cash={"BTC": 1.0})
    for move in (-0.6, -0.1, 0.3, 3.0):
        assert lost(book, move) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("call", [True, False])
@pytest.mark.parametrize("coin", [True, False])
def test_an_option_is_worth_what_black_says_after_the_shock(call, coin):
    tau, iv, move, shock = 30 / 365, 0.55, -0.2, 0.5
    settle = "BTC" if coin else "USDC"
    row = {"amount": -3.0, "settle": settle, "option": True, "coin": coin, "call": call, "perpetual": False}
    book = holdings(row | {"strike": 48_000.0, "iv": iv, "tau": tau}, cash={})
    forward = 50_000.0 * (1 + move)
    before, after = (
        black(50_000.0, 48_000.0, tau, iv, call),
        black(forward, 48_000.0, tau, iv * (1 + shock), call),
    )  # at 30 days a shock counts whole
    change = (after / forward - before / 50_000.0) * forward if coin else after - before
    assert lost(book, move, vol=shock) == pytest.approx(3.0 * change, rel=1e-9)


def test_a_volatility_shock_is_larger_nearer_to_expiry_as_deribits_is():
    rows = [
        {"amount": 1.0, "option": True, "call": True, "perpetual": False, "strike": 5e4, "iv": 0.5, "tau": days / 365}
        for days in (7.0, 30.0, 90.0)
    ]
    gains = [-lost(holdings(row), 0.0, vol=0.4) for row in rows]
    for gain, days, weight in zip(gains, (7, 30, 90), ((30 / 7) ** 0.3, 1.0, (1 / 3) ** 0.13), strict=True):
        tau = days / 365
        direct = black(5e4, 5e4, tau, 0.5 * (1 + 0.4 * weight), True) - black(5e4, 5e4, tau, 0.5, True)
        assert gain == pytest.approx(direct, rel=1e-9)


def test_a_stablecoin_that_falls_takes_its_cash_and_lifts_prices_quoted_in_it():
    peg = np.array([[1.0, 1.0, 0.8]])
    assert lost(holdings(), 0.0, peg=peg) == pytest.approx(20_000.0)
    long = holdings({"amount": 1.0})
    assert lost(long, 0.0, peg=peg) == pytest.approx(20_000.0 - (50_000.0 / 0.8 - 50_000.0) * 0.8)


def test_a_dated_contract_feels_the_basis_by_its_time_and_a_perpetual_its_premium():
    dated = holdings({"amount": 1.0, "perpetual": False, "tau": 0.25})
    assert lost(dated, 0.0, basis=-0.2) == pytest.approx(50_000.0 * 0.05)
    assert lost(dated, 0.0, premium=-0.2) == pytest.approx(0.0)
    assert lost(holdings({"amount": 1.0}), 0.0, premium=-0.02) == pytest.approx(1_000.0)


def test_shorts_closed_half_way_down_earn_half_and_are_gone():
    book = holdings({"amount": 1.0}, {"amount": -20.0, "u": "ETH"})
    by = shocks(book, np.full((1, 1), -0.3), adl=0.5)
    assert revalued(book, by).loss[0] == pytest.approx(0.3 * 50_000.0 - 0.15 * 50_000.0)
    assert stress.after(book, by).amount.tolist() == [1.0, 0.0]
    rising = shocks(book, np.full((1, 1), 0.3), adl=0.5)
    assert stress.after(book, rising).amount.tolist() == [1.0, -20.0]


def test_a_state_after_a_shock_revalues_as_the_two_shocks_together():
    row = {"amount": -3.0, "settle": "BTC", "option": True, "coin": True, "call": True, "perpetual": False}
    book = holdings(
        row | {"strike": 52_000.0, "iv": 0.6, "tau": 0.1},
        {"amount": -40_000.0, "settle": "BTC", "inverse": True},
        {"amount": 30.0, "u": "ETH"},
        cash={"BTC": 2.0, "USDC": 1_000.0},
    )
    first, second = -0.2, 0.4
    left = stress.after(book, shocks(book, np.full((1, 1), first)))
    both = (1 + first) * (1 + second) - 1
    assert lost(book, first) + lost(left, second) == pytest.approx(lost(book, both), rel=1e-9)


# --- scenarios --------------------------------------------------------------------------------------------------


def all_of(book: Holdings) -> dict[str, stress.Outcome]:
    return {s.name: outcome(book, s, GUARDS) for s in scenarios(book, VOL, CORRELATION)}


def test_a_flat_book_in_dollars_loses_nothing_but_by_its_stablecoin():
    book = holdings({"amount": 0.0}, cash={"USDC": 100_000.0})
    for name, found in all_of(book).items():
        pegged = name.startswith("depeg") or name == "episode.2025-10-10"
        assert (found.loss_usd > 0.0) if pegged else found.loss_usd == 0.0, name
        assert found.margin_use == 0.0


def test_in_a_grid_each_underlying_stands_at_its_own_worst():
    book = holdings({"amount": 1.0}, {"amount": -20.0, "u": "ETH"})
    found = all_of(book)["deribit.standard"]
    assert found.moves == pytest.approx({"BTC": -0.16, "ETH": 0.16})
    assert found.loss_usd == pytest.approx(0.16 * 100_000.0)


def test_the_worst_joint_move_has_its_size_and_no_other_of_that_size_costs_more():
    book = holdings({"amount": 1.0}, {"amount": -12.0, "u": "ETH"})
    daily = VOL / np.sqrt(365.0)
    sigma = CORRELATION * np.outer(daily, daily)
    move = stress.worst_joint(book, VOL, CORRELATION)[0]
    assert move @ np.linalg.solve(sigma, move) == pytest.approx(stress.SIGMAS**2)
    turns = np.linspace(0.0, 2.0 * np.pi, 721)
    others = stress.SIGMAS * np.stack((np.cos(turns), np.sin(turns)), axis=1) @ np.linalg.cholesky(sigma).T
    delta = np.array([50_000.0, -30_000.0])
    assert -(delta @ move) == pytest.approx(-(others @ delta).min(), rel=1e-4)


def test_a_long_book_loses_more_as_correlations_go_to_one_and_a_hedged_one_as_they_go():
    long = all_of(holdings({"amount": 1.0}, {"amount": 20.0, "u": "ETH"}))
    assert long["correlation.1"].loss_usd > long["correlation.0"].loss_usd > long["correlation.none"].loss_usd
    hedged = all_of(holdings({"amount": 1.0}, {"amount": -20.0, "u": "ETH"}))
    assert hedged["correlation.1"].loss_usd < hedged["correlation.0"].loss_usd < hedged["correlation.none"].loss_usd


def test_every_episode_ends_where_its_course_is_lowest_and_names_its_sources():
    for episode in EPISODES:
        hours, shares = course(episode, ("BTC", "ETH", "SOL"))
        assert (np.diff(hours) > 0).all() and (shares[0] == 1.0).all()
        assert worst(episode, ("ETH", "SOL")) == pytest.approx([shares[:, 1].min() - 1.0, episode.widest])
        assert {"course", "widest", "vol", "premium", "basis", "haircut", "venue"} <= episode.sources.keys()
        assert not episode.depeg or "depeg" in episode.sources
        assert episode.crisis[1] <= hours[-1] and all(hour < hours[-1] for hour, _ in episode.outages)


# --- limits -----------------------------------------------------------------------------------------------------


def hit(book: Holdings, move: float, **limits) -> dict[str, float]:
    scenario = Scenario("one", "one", shocks(book, np.full((1, 1), move)))
    return {h.limit: h.used for h in outcome(book, scenario, GUARDS.model_copy(update=limits)).hits}


def test_the_limits_beyond_which_the_book_would_stand_are_told_with_what_they_use():
    book = holdings({"amount": 2.0})  # 100,000 of notional on as much equity
    assert hit(book, 0.0) == {}
    assert hit(book, -0.1, max_gross_usd=89_000.0) == {"gross": pytest.approx(90_000.0)}
    assert hit(book, -0.1, max_gross_usd=91_000.0) == {}
    assert hit(book, -0.1, max_net_usd=89_000.0) == {"net": pytest.approx(90_000.0, rel=1e-6)}
    assert hit(book, -0.1, max_daily_loss=0.09) == {"daily loss": pytest.approx(0.1)}
    assert hit(book, -0.1, max_gross_leverage=0.99) == {"gross": pytest.approx(90_000.0)}
    assert hit(book, -0.1, max_scenario_loss=0.15) == {"scenario": pytest.approx(0.16)}
    assert hit(book, -0.1, max_margin_use=0.1) == {"margin": pytest.approx(0.16)}


def test_gamma_and_vega_are_those_of_black():
    tau, iv = 60 / 365, 0.5
    row = {"amount": -10.0, "option": True, "call": True, "perpetual": False, "strike": 52_000.0, "iv": iv, "tau": tau}
    book = holdings(row)
    d1 = (np.log(50_000 / 52_000) + 0.5 * iv**2 * tau) / (iv * np.sqrt(tau))
    gamma = norm.pdf(d1) / (50_000.0 * iv * np.sqrt(tau)) * 50_000.0**2 / 100.0
    vega = 50_000.0 * norm.pdf(d1) * np.sqrt(tau) / 100.0 * 0.5**0.13
    assert stress.gammas(book)[0] == pytest.approx(-10.0 * gamma, rel=1e-4)
    assert stress.vegas(book)[0] == pytest.approx(-10.0 * vega, rel=1e-9)
    assert "vega" in hit(book, 0.0, max_vega_usd_1pt=9.9 * vega)
    assert "gamma" in hit(book, 0.0, max_gamma_usd_1pct=9.9 * gamma)


def test_what_cannot_be_valued_is_beyond_every_limit_that_needs_it():
    row = {"amount": 1.0, "option": True, "call": True, "perpetual": False, "strike": 5e4, "iv": np.nan, "tau": 0.1}
    assert {"net", "vega", "margin"} <= hit(holdings(row), -0.1, max_vega_usd_1pt=1e9).keys()


def test_a_haircut_on_coins_uses_margin_and_costs_nothing():
    book = holdings({"amount": 2.0}, cash={"BTC": 2.0})
    still = np.zeros((1, 1))
    plain, cut = (outcome(book, Scenario("x", "x", shocks(book, still, haircut=h)), GUARDS) for h in (0.0, 0.5))
    assert plain.loss_usd == cut.loss_usd == 0.0
    assert cut.margin_use == pytest.approx(2.0 * plain.margin_use)


# --- pools --------------------------------------------------------------------------------------------------------


def in_two_pools() -> Holdings:
    """Short a linear perpetual against dollars, and dollars' worth of inverse ones against coins."""
    inverse = {"amount": 40_000.0, "settle": "BTC", "inverse": True}
    return holdings({"amount": -1.0}, inverse, cash={"BTC": 1.0, "USDC": 5_000.0})


def test_what_pools_lose_adds_up_to_the_loss_and_each_loses_its_own():
    book = in_two_pools()
    found = outcome(book, Scenario("up", "up", shocks(book, np.full((1, 1), 0.1))), GUARDS)
    by = {pool.currency: pool for pool in found.pools}
    assert set(by) == {"BTC", "USDC"}  # of ether there is nothing
    assert by["USDC"].loss_usd == pytest.approx(5_000.0) and by["USDC"].equity_usd == pytest.approx(0.0, abs=1e-6)
    gain_coins = 40_000.0 * (1 / 50_000.0 - 1 / 55_000.0)
    assert by["BTC"].loss_usd == pytest.approx(50_000.0 - (1.0 + gain_coins) * 55_000.0)
    assert sum(pool.loss_usd for pool in found.pools) == pytest.approx(found.loss_usd)


def test_one_pool_beyond_its_margin_is_not_saved_by_another_unless_all_is_one():
    book = in_two_pools()
    still = Scenario("still", "still", shocks(book, np.zeros((1, 1))))
    apart, pooled = outcome(book, still, GUARDS), outcome(book, still, GUARDS, pooled=True)
    assert {p.currency: p.margin_use for p in apart.pools}["USDC"] == pytest.approx(0.16 * 50_000.0 / 5_000.0)
    assert apart.margin_use == max(pool.margin_use for pool in apart.pools) == pytest.approx(1.6)
    assert pooled.pools == () and pooled.margin_use < 0.2
    limited = GUARDS.model_copy(update={"max_margin_use": 0.9, "max_margin_danger": 0.95})
    assert [hit.limit for hit in outcome(book, still, limited).hits] == ["margin", "margin danger"]
    assert outcome(book, still, limited, pooled=True).hits == ()


# --- along a course -----------------------------------------------------------------------------------------------


def course_of(book: Holdings, shares: list[float], days: list[float], **more: Any) -> Course:
    """Both coins alike, at so many days since the book was told."""
    t, u = len(shares), len(book.underlyings)
    spot = np.array(shares)[:, None] * book.spot
    price = np.where(book.coin >= 0, spot[:, np.maximum(book.coin, 0)], 1.0)
    zero = np.zeros(t)
    usual = {"premium": zero, "basis": zero, "vol": np.zeros((t, u)), "price": price, "funding": np.zeros((t, u))}
    return Course(years=np.array(days) / 365, spot=spot, **(usual | more))


OPTION = {"option": True, "perpetual": False, "strike": 50_000.0, "iv": 0.6, "tau": 10 / 365}


@pytest.mark.parametrize("call", [True, False])
def test_an_option_loses_its_time_and_from_its_expiry_on_keeps_its_payoff(call):
    book = holdings(OPTION | {"amount": 2.0, "call": call}, cash={"USDC": 10_000.0})
    by = course_of(book, [1.0, 1.1, 0.7, 2.0], [0.0, 4.0, 10.0, 12.0])
    intrinsic = 0.0 if call else 15_000.0
    values = [black(5e4, 5e4, 10 / 365, 0.6, call), black(5.5e4, 5e4, 6 / 365, 0.6, call), intrinsic, intrinsic]
    assert worth(book, by) == pytest.approx(10_000.0 + 2.0 * (np.array(values) - values[0]), rel=1e-9)


def test_an_option_paid_in_coin_ends_as_coins_that_go_on_moving():
    book = holdings(OPTION | {"amount": 2.0, "settle": "BTC", "coin": True, "call": True}, cash={"BTC": 1.0})
    found = worth(book, course_of(book, [1.0, 1.25, 2.0], [0.0, 10.0, 12.0]))
    paid = 2.0 * (62_500.0 - 50_000.0) / 62_500.0 - 2.0 * black(5e4, 5e4, 10 / 365, 0.6, True) / 50_000.0
    assert found[1:] == pytest.approx([(1.0 + paid) * 62_500.0, (1.0 + paid) * 100_000.0])


def test_a_futures_premium_over_the_index_is_gone_when_it_ends():
    book = holdings({"amount": 1.0, "perpetual": False, "tau": 0.5})._replace(forward=np.array([55_000.0]))
    found = marked(book, course_of(book, [1.0, 1.0, 1.0], [0.0, 0.25 * 365, 0.5 * 365])).price[:, 0]
    assert found == pytest.approx([55_000.0, 50_000.0 * 1.1**0.5, 50_000.0])


def test_funding_is_paid_on_what_a_perpetual_is_worth_in_its_own_money():
    rates = np.array([[0.5, 0.5], [0.0, 0.0], [0.01, 0.02]])  # the first is before the book was looked at
    linear, inverse = holdings({"amount": 2.0}), {"amount": 30_000.0, "settle": "BTC", "inverse": True}
    by = course_of(linear, [1.0, 1.0, 1.0], [0.0, 1.0, 2.0], funding=rates)
    assert worth(linear, by) == pytest.approx([100_000.0, 100_000.0, 100_000.0 - 0.01 * 100_000.0])
    assert worth(holdings(inverse, cash={"BTC": 1.0}), by)[2] == pytest.approx(50_000.0 - 300.0)


def test_volatility_rises_with_the_fall_and_halves_in_a_day_after_it():
    shares = np.array([1.0, 0.9, 0.8, 1.0, 1.0])[:, None]
    assert excited(shares, 0.6, 12.0)[:, 0] == pytest.approx([0.0, 0.3, 0.6, 0.6 * 0.5**0.5, 0.3])
    assert excited(np.ones((4, 1)), 0.6, 1.0).max() == 0.0


def test_at_the_prices_of_the_book_a_contract_in_a_stablecoin_off_par_stands_where_it_was_told():
    book = holdings({"amount": 1.0}, {"amount": 1.0, "perpetual": False, "tau": 0.5})
    book = book._replace(forward=np.array([51_000.0, 53_000.0]), price=np.array([50_000.0, 2_500.0, 0.98]))
    by = course_of(book, [1.0], [0.0], price=book.price[None])
    assert marked(book, by).price[0] == pytest.approx([51_000.0, 53_000.0])


def test_a_book_of_stablecoins_alone_has_no_underlying_and_is_valued_all_the_same():
    coins: dict[str, Any] = {"underlyings": (), "spot": np.zeros(0), "currencies": ("USDC",), "coin": np.array([-1])}
    book = holdings()._replace(**coins, equity=np.array([1_000.0]), price=np.ones(1), backing=np.ones(1))
    assert all_of(book)["depeg.USDC.0.13"].loss_usd == pytest.approx(130.0)
