"""Books that do nothing clever: worth what their prices and funding make of them, and not a cent else."""

import numpy as np
import pytest

from dea_daemon.domain.errors import DataError
from dea_daemon.research.benchmarks import carry, cash, compared, funding_between, static, static_at_vol
from dea_daemon.research.candles import FundingRates
from dea_daemon.research.performance import figures, parts
from tests.research.records import HOUR_NS, START_NS, by_hand, funding_paid, simulated

BARS = 24 * 400
RUN = simulated(BARS)
FUNDING = funding_paid(BARS)
FREE = np.zeros((BARS, 2))


def one(price, **more):
    price = np.asarray(price, dtype=float)
    return by_hand(np.full(len(price), 1_000.0), price=price[:, None], **more)


def test_cash_stays_what_it_was():
    assert (cash(RUN).equity_usd == RUN.capital_usd).all()
    assert figures(cash(RUN))["max_drawdown"] == 0.0


def test_once_the_equity_in_one_underlying_is_worth_what_it_is_worth():
    price = 100.0 * np.exp(np.random.default_rng(1).normal(0, 0.01, 500).cumsum())
    for every in (1.0, None):
        book = static(one(price), np.zeros((500, 1)), 1.0, rebalance_days=every, cost=0.0)
        assert book.equity_usd == pytest.approx(1_000.0 * price / price[0])


def test_rebalancing_is_done_as_often_as_said():
    price = np.tile([100.0, 200.0], 240)
    daily = static(one(price), np.zeros((480, 1)), 0.5, rebalance_days=1.0, cost=0.0)
    assert np.count_nonzero(np.diff(daily.turnover_usd)) <= 20
    hourly = static(one(price), np.zeros((480, 1)), 0.5, rebalance_days=1 / 24, cost=0.0)
    # Half the equity in what doubles and halves: × 1.5 and × .75 in turn.
    assert hourly.equity_usd[2] == pytest.approx(1_125.0)
    assert hourly.equity_usd[-1] == pytest.approx(1_000.0 * 1.5 * 1.125**239)


def test_what_is_bought_once_drifts_as_funding_drains_the_equity_beside_it():
    """At an unchanged price a "1x" long has paid funding out of its equity: it is more than 1x by then."""
    t = 24 * 365 * 2
    funding = np.where(np.arange(t) % 8 == 0, 3e-4, 0.0)[:, None]
    once = static(one(np.full(t, 100.0)), funding, 1.0, rebalance_days=None, cost=0.0)
    paid = 1_000.0 * 3e-4 * (t // 8 - 1)  # what is due at the first decision was due before it
    assert once.equity_usd[-1] == pytest.approx(1_000.0 - paid)
    leverage = once.exposure_usd[-1, 0] / once.equity_usd[-1]
    assert leverage == pytest.approx(1_000.0 / (1_000.0 - paid))
    assert leverage > 2.5
    kept = static(one(np.full(t, 100.0)), funding, 1.0, cost=0.0)
    assert kept.exposure_usd[-1, 0] / kept.equity_usd[-1] == pytest.approx(1.0, abs=2e-3)


def test_funding_is_due_on_what_the_position_is_worth_then():
    book = static(one([100.0, 150.0, 150.0]), np.array([[0.0], [0.01], [0.0]]), 1.0, rebalance_days=None, cost=0.0)
    assert book.funding_usd[-1] == pytest.approx(-15.0)


def test_trading_costs_what_is_said():
    book = static(one([100.0, 100.0, 100.0]), np.zeros((3, 1)), 2.0, cost=0.001)
    assert book.equity_usd[-1] == pytest.approx(1_000.0 - 2.0)
    assert book.fees_usd[-1] == pytest.approx(2.0) and book.turnover_usd[-1] == pytest.approx(2_000.0)


def test_every_cent_of_a_benchmark_is_explained():
    for every in (1.0, 30.0, None):
        rest = parts(static(RUN, FUNDING, 0.5, rebalance_days=every))["rest"]
        assert np.abs(rest).max() < 1e-6


def test_weights_are_equal_and_add_up_to_the_fraction():
    book = static(RUN, FREE, 0.6, rebalance_days=1 / 24)
    share = book.exposure_usd[:-1] / book.equity_usd[:-1, None]
    assert share == pytest.approx(np.full((BARS - 1, 2), 0.3), rel=2e-3)


@pytest.mark.parametrize("every", [1.0, None])
def test_equal_volatility_is_met_after_the_fact_and_said_so(every):
    book = static_at_vol(RUN, FUNDING, 0.2, rebalance_days=every)
    assert figures(book)["annual_vol_daily"] == pytest.approx(0.2, rel=2e-3)
    assert "equal volatility" in book.name and any("after the fact" in note for note in book.notes)


def test_funding_falls_into_the_step_that_ends_at_or_after_it():
    at_ns = START_NS + HOUR_NS * np.arange(4)
    rates = FundingRates(START_NS + HOUR_NS * np.array([0, 1, 3]), np.array([1.0, 2.0, 4.0]))
    late = FundingRates(START_NS + np.array([HOUR_NS + 1]), np.array([8.0]))
    due = funding_between(at_ns, [rates, None, late])
    assert due.tolist() == [[0, 0, 0], [2, 0, 0], [0, 0, 8], [4, 0, 0]]


def test_a_missing_price_is_refused_not_filled():
    price = np.full(50, 100.0)
    price[20] = np.nan
    with pytest.raises(DataError, match="price"):
        static(one(price), np.zeros((50, 1)), 1.0)


def test_the_run_stands_first_and_is_not_compared_with_itself():
    rows = compared(RUN, [cash(RUN), static(RUN, FUNDING, 0.3)], seed=1, paths=100)
    assert [row["name"] for row in rows][:2] == [RUN.name, "cash"]
    assert rows[0]["sharpe_gap"] is None and rows[0]["sharpe_interval"]["paths"] == 100
    assert rows[1]["sharpe_gap"] is None and rows[1]["sharpe"] is None
    gap = rows[2]["sharpe_gap"]
    assert gap["estimate"] == pytest.approx(rows[0]["sharpe"] - rows[2]["sharpe"])
    assert gap["low"] < gap["estimate"] < gap["high"]


def test_a_book_that_is_the_run_differs_by_nothing():
    (_, twin) = compared(RUN, [RUN._replace(name="twin")], seed=1, paths=100)
    assert (twin["sharpe_gap"]["low"], twin["sharpe_gap"]["high"]) == (0.0, 0.0)


def test_a_ruined_book_is_told_and_not_compared():
    ruined = static(RUN, FUNDING, 15.0, rebalance_days=None)
    row = compared(RUN, [ruined], seed=1, paths=50)[1]
    assert row["ruined"] is not None and row["sharpe_gap"] is None


def test_beside_a_ruined_run_the_others_are_told_as_far_as_it_went():
    worse = RUN.equity_usd.copy()
    worse[24 * 100 :] = -1.0
    rows = compared(RUN._replace(equity_usd=worse), [static(RUN, FUNDING, 0.3)], seed=1, paths=50)
    assert rows[0]["ruined"] is not None and rows[1]["ruined"] is None and rows[1]["sharpe_gap"] is None


def test_carry_earns_the_funding_and_whatever_the_basis_does():
    t = 24 * 30
    perp, spot = np.full(t, 100.0), np.full(t, 100.0)
    funding = np.where(np.arange(t) % 8 == 7, 1e-3, 0.0)[:, None]
    book = carry(one(perp), spot[:, None], funding, 0.5, rebalance_days=1000.0, cost=0.0)
    assert book.funding_usd[-1] == pytest.approx(1_000.0 * 0.5 * funding[1:].sum())
    assert book.equity_usd[-1] == pytest.approx(1_000.0 + book.funding_usd[-1])
    moved = carry(one(perp * np.linspace(1, 3, t)), (spot * np.linspace(1, 3, t))[:, None], 0 * funding, 0.5, cost=0.0)
    assert moved.equity_usd == pytest.approx(np.full(t, 1_000.0))  # as both legs move together nothing is made
    wider = carry(one(perp * np.linspace(1, 1.1, t)), spot[:, None], 0 * funding, 0.5, rebalance_days=1e3, cost=0.0)
    assert wider.equity_usd[-1] == pytest.approx(1_000.0 - 50.0)
    assert np.abs(parts(book)["rest"]).max() < 1e-6


def test_a_missing_spot_price_is_the_last_one_and_invents_no_profit():
    t = 48
    spot = np.full((t, 1), 100.0)
    spot[10:20] = np.nan
    book = carry(one(np.full(t, 100.0)), spot, np.zeros((t, 1)), 1.0, cost=0.0)
    assert book.equity_usd == pytest.approx(np.full(t, 1_000.0))
