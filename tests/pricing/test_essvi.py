"""eSSVI for sparse smiles: what it recovers, what it leans on, and that nothing it says can be arbitraged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.domain.surfaces import Chain
from dea_daemon.pricing.surface.essvi import (
    Neighbour,
    Shape,
    fit_shape,
    fit_shapes,
    lean,
    shape_between,
)
from dea_daemon.pricing.surface.quotes import Quotes, prepare
from dea_daemon.pricing.surface.surface import YEAR_NS
from tests.pricing.known_surfaces import Heston, Ssvi, chain_of, of_expiry, one_sided, only, sparse
from tests.shared_data import shared

K = np.linspace(-1.5, 1.5, 3001)
NONE = np.zeros(0)


def quotes_at(k, iv, tau=0.1, error=0.01):
    k, iv = np.asarray(k, dtype=float), np.asarray(iv, dtype=float)
    wide = np.full(len(k), error)
    return Quotes(0, tau, 100.0, k, iv, iv - wide, iv + wide, wide, np.arange(len(k)))


def volatility(shape, k, tau):
    return np.sqrt(shape.total_variance(k)[0] / tau)


def butterfly(shape, k=K):
    """Gatheral's g."""
    w, first, second = shape.total_variance(k)
    return (1.0 - k * first / (2.0 * w)) ** 2 - first**2 / 4.0 * (1.0 / w + 0.25) + second / 2.0


def neighbours_of(chain, without):
    """Shapes of all expiries but one, from their own quotes."""
    rich = [quotes for i, quotes in enumerate(prepare(chain)) if i != without]
    return [Neighbour(quotes.tau_years, shape) for quotes, shape in zip(rich, fit_shapes(rich), strict=True)]


shapes = st.builds(
    lambda theta, rho, share: Shape(theta, rho, share * 2.0 / np.sqrt(theta * (1.0 + abs(rho)))),
    st.floats(1e-5, 3.0),
    st.floats(-0.95, 0.95),
    st.floats(0.05, 3.0),
)
volatilities = st.floats(0.05, 5.0)


def test_derivatives_are_those_of_the_variance():
    shape, h = Shape(0.04, -0.3, 4.0), 1e-5
    w, first, second = shape.total_variance(K)
    above, below = shape.total_variance(K + h)[0], shape.total_variance(K - h)[0]
    assert np.allclose(first, (above - below) / (2.0 * h), rtol=1e-6, atol=1e-10)
    assert np.allclose(second, (above - 2.0 * w + below) / h**2, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("days", [1.0, 30.0, 365.0])
@pytest.mark.parametrize("rho", [-0.7, 0.0, 0.4])
def test_a_shape_is_recovered_from_its_own_quotes(days, rho):
    tau = days / 365.0
    true = Shape(0.6**2 * tau, rho, 0.9 / (0.6 * np.sqrt(tau)))
    k = np.linspace(-2.5, 2.5, 25) * np.sqrt(true.theta)
    found = fit_shape(quotes_at(k, volatility(true, k, tau), tau, error=1e-4))
    assert np.abs(volatility(found, k, tau) - volatility(true, k, tau)).max() < 0.003


def test_all_at_once_is_one_by_one():
    slices = prepare(chain_of(Ssvi(), half_spread_vol=0.02))
    together = fit_shapes(slices)
    for quotes, shape in zip(slices, together, strict=True):
        alone = fit_shape(quotes)
        assert np.abs(volatility(shape, quotes.k, 1.0) - volatility(alone, quotes.k, 1.0)).max() < 1e-3
    assert fit_shapes([]) == []


def test_one_wrong_quote_moves_little():
    slices = prepare(chain_of(Ssvi(), (30.0,)))
    clean, wrong = slices[0], slices[0].iv.copy()
    wrong[5] += 0.4
    k = np.linspace(-0.2, 0.2, 9)
    moved = volatility(fit_shape(clean._replace(iv=wrong)), k, 1.0) - volatility(fit_shape(clean), k, 1.0)
    assert np.abs(moved).max() < 0.01


@pytest.mark.parametrize("truth", [Ssvi(), Heston()], ids=["ssvi", "heston"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_few_quotes_and_their_neighbours_say_the_rest_of_a_smile(truth, count):
    """Within 2.5 volatility points over two standard deviations, of a smile 5 to 30 points deep."""
    whole = chain_of(truth, half_spread_vol=0.01)
    around = neighbours_of(whole, 4)
    tau = around[3].tau_years
    for seed in range(10):
        quotes = prepare(sparse(whole, 4, count, seed))[4]
        assert len(quotes.k) == count
        tau = quotes.tau_years
        k = np.linspace(-2.0, 2.0, 21) * float(truth.iv(np.zeros(1), tau)[0]) * np.sqrt(tau)
        off = volatility(lean(quotes, around), k, tau) - truth.iv(k, tau)
        assert np.sqrt(np.mean(off**2)) < 0.025


def test_the_more_quotes_the_less_the_neighbours_are_heeded():
    """All of a smile ten points above what the neighbours say: one exact quote moves it a part of the way only."""
    around = [Neighbour(0.05, Shape(0.25 * 0.05, -0.2, 5.0)), Neighbour(0.2, Shape(0.25 * 0.2, -0.2, 3.0))]
    between = shape_between(0.1, around)
    k = np.linspace(-0.2, 0.2, 5)
    iv = volatility(between, k, 0.1) + 0.1
    at_money = [
        float(volatility(lean(quotes_at(k[pick], iv[pick], 0.1, 0.005), around), np.zeros(1), 0.1)[0])
        for pick in ([], [2], [1, 2, 3], [0, 1, 2, 3, 4])
    ]
    assert at_money == sorted(at_money)
    assert at_money[0] == pytest.approx(0.5, abs=1e-6)
    assert at_money[1] > 0.55
    assert at_money[3] == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("call", [True, False])
def test_half_a_chain_is_no_wild_wing(call):
    truth = Ssvi()
    whole = chain_of(truth)
    for expiry in (0, 4, 7):
        around = neighbours_of(whole, expiry)
        quotes = prepare(one_sided(whole, expiry, call))[expiry]
        few = quotes.keep(np.arange(0, len(quotes.k), max(1, len(quotes.k) // 4))[:4])
        tau = quotes.tau_years
        k = np.linspace(-2.0, 2.0, 21) * np.sqrt(truth.theta(tau))
        assert np.abs(volatility(lean(few, around), k, tau) - truth.iv(k, tau)).max() < 0.08


def test_beyond_its_neighbours_volatility_is_theirs():
    near, far = Neighbour(0.1, Shape(0.03, -0.3, 5.0)), Neighbour(0.5, Shape(0.2, -0.2, 2.0))
    z = np.linspace(-2.0, 2.0, 9)
    for tau, beside in ((0.02, near), (1.5, far)):
        shape = shape_between(tau, [near, far])
        theirs = volatility(beside.shape, z * np.sqrt(beside.shape.theta), beside.tau_years)
        assert np.allclose(volatility(shape, z * np.sqrt(shape.theta), tau), theirs, rtol=1e-6)
    with pytest.raises(ValueError, match="no neighbour"):
        shape_between(0.1, [])


def test_between_two_neighbours_total_variance_at_the_money_is_linear_in_time():
    near, far = Neighbour(0.1, Shape(0.03, -0.3, 5.0)), Neighbour(0.5, Shape(0.2, -0.2, 2.0))
    assert shape_between(0.2, [near, far]).theta == pytest.approx(0.03 + 0.25 * 0.17)
    empty = quotes_at(NONE, NONE, 0.2)
    assert lean(empty, [near, far]) == shape_between(0.2, [near, far])


def test_without_neighbours_a_quote_still_has_a_smile():
    shape = lean(quotes_at([0.1], [0.6]), [])
    assert volatility(shape, np.array([0.1]), 0.1)[0] == pytest.approx(0.6, abs=0.02)
    assert butterfly(shape).min() >= 0.0


@given(st.lists(st.tuples(st.floats(-3.0, 3.0), volatilities), min_size=1, max_size=8), st.floats(0.001, 3.0))
def test_whatever_is_quoted_no_butterfly_is_negative(points, tau):
    """Nonsense included: volatilities of any size at strikes anywhere."""
    k, iv = zip(*sorted(points), strict=True)
    quotes = quotes_at(k, iv, tau)
    for shape in (fit_shape(quotes), lean(quotes, [Neighbour(0.1, Shape(0.03, -0.2, 4.0))])):
        assert np.isfinite(shape).all()
        assert butterfly(shape).min() >= -1e-9


@pytest.mark.parametrize("days", [1, 8, 50, 267])
def test_the_known_heston_is_quantlib_s(days):
    ql = pytest.importorskip("QuantLib")
    today, day_count, known = ql.Date(1, 1, 2026), ql.Actual365Fixed(), Heston()
    ql.Settings.instance().evaluationDate = today
    flat = ql.YieldTermStructureHandle(ql.FlatForward(today, 0.0, day_count))
    spot = ql.QuoteHandle(ql.SimpleQuote(1.0))
    numbers = (known.now, known.speed, known.later, known.of_variance, known.rho)
    engine = ql.AnalyticHestonEngine(ql.HestonModel(ql.HestonProcess(flat, flat, spot, *numbers)), 1e-14, 100_000)
    for k in np.linspace(-2.5, 2.5, 11) * 0.55 * np.sqrt(days / 365.0):
        payoff = ql.PlainVanillaPayoff(ql.Option.Call if k >= 0.0 else ql.Option.Put, float(np.exp(k)))
        option = ql.VanillaOption(payoff, ql.EuropeanExercise(today + days))
        option.setPricingEngine(engine)
        assert known.out_of_the_money(np.array([k]), days / 365.0)[0] == pytest.approx(option.NPV(), abs=1e-11)


def test_a_known_chain_is_quoted_about_its_truth():
    truth = Heston()
    chain = chain_of(truth, half_spread_vol=0.02, tick_coin=0.0)
    assert [round((end - chain.utc_ns) / NS_PER_DAY) for end in chain.expiries] == [1, 3, 8, 22, 50, 85, 176, 267]
    for quotes in prepare(chain):
        iv = truth.iv(quotes.k, (quotes.expiry_ns - chain.utc_ns) / YEAR_NS)
        assert ((quotes.low < iv) & (iv < quotes.high)).all()
        assert np.allclose(quotes.high - quotes.low, 0.04, atol=1e-6)
    assert not len(prepare(only(chain, ~of_expiry(chain, 2)))[2].k)


def test_on_a_recorded_chain_three_quotes_and_neighbours_beat_the_neighbour_moved_and_the_three_alone():
    """The first BTC chain: of every expiry three quotes, any; error on its others, in volatility."""
    path = shared("options/deribit_chain_snapshots.parquet")
    pl = pytest.importorskip("polars")
    table = pl.read_parquet(path).filter(pl.col("currency").cast(pl.String) == "BTC")
    slices = prepare(recorded(table.filter(pl.col("snapshot") == pl.col("snapshot").min()), pl))
    slices = [quotes for quotes in slices if len(quotes.k) >= 12 and quotes.tau_years > 1.0 / 365.0]
    every = [Neighbour(q.tau_years, shape) for q, shape in zip(slices, fit_shapes(slices), strict=True)]
    random = np.random.default_rng(0)
    off: list[list[float]] = []
    for i, quotes in enumerate(slices):
        few, others = quotes.keep(np.sort(random.permutation(len(quotes.k))[:3])), every[:i] + every[i + 1 :]
        beside, tau, k = every[i - 1 if i else 1], quotes.tau_years, quotes.k
        moved = volatility(beside.shape, k, beside.tau_years)
        moved += np.mean(few.iv - np.interp(few.k, k, moved))
        said = (volatility(lean(few, others), k, tau), moved, volatility(fit_shape(few), k, tau))
        off.append([float(np.sqrt(np.mean((iv - quotes.iv) ** 2))) for iv in said])
    leaning, neighbour, alone = np.median(off, axis=0)
    assert leaning < min(neighbour, alone)
    assert leaning < 0.03


def recorded(table, pl):
    forward, bid, ask = (table[name].to_numpy() for name in ("underlying", "bid_price", "ask_price"))
    expiry = table["expiry_datetime"].dt.epoch("ns").to_list()
    call = (table["option_type"].cast(pl.String) == "call").to_list()
    columns = (forward, table["strike"].to_numpy(), call, np.nan_to_num(bid) * forward, ask * forward, 1e-4 * forward)
    head = ("BTC", int(table["snapshot"].dt.epoch("ns")[0]), tuple(sorted(set(expiry))), tuple(expiry))
    return Chain(*head, *(tuple(np.asarray(column).tolist()) for column in (*columns, 0.0 * forward)))
