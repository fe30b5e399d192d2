"""Tests of forecasts against published tables, other implementations, and what is known by simulation."""

import numpy as np
import pytest
from scipy import stats

from dea_daemon.domain.errors import DataError
from dea_daemon.research.validation import (
    berkowitz,
    christoffersen,
    christoffersen_independence,
    diebold_mariano,
    filtered_var,
    kupiec,
    pit,
    qlike,
    uniform,
)


def hits(days, *failures):
    found = np.zeros(days, dtype=np.bool_)
    found[list(failures)] = True
    return found


def so_many(days, failures):
    return hits(days, *range(failures))


# --- QLIKE -------------------------------------------------------------------------------------------------


def test_qlike_is_least_at_the_truth_and_punishes_too_little_more_than_too_much():
    losses = qlike(np.full(3, 2.0), np.array([1.0, 2.0, 4.0]))
    assert losses[1] == 0.0
    assert losses[0] == pytest.approx(1.0 - np.log(2.0)) and losses[2] == pytest.approx(np.log(2.0) - 0.5)


def test_qlike_ranks_forecasts_rightly_though_only_a_noisy_proxy_is_seen():
    draws = np.random.default_rng(1)
    truth = np.exp(0.5 * draws.standard_normal(20_000))
    proxy = truth * draws.chisquare(1, 20_000)
    means = [qlike(proxy, scale * truth).mean() for scale in (0.8, 1.0, 1.25)]
    assert means[1] == min(means)


def test_what_is_not_above_zero_has_no_loss():
    assert np.isnan(qlike(np.array([0.0, 1.0, -1.0, np.nan]), np.array([1.0, 0.0, 1.0, 1.0]))).all()


# --- Diebold–Mariano ---------------------------------------------------------------------------------------


def remembered():
    """[300] with autocorrelation .4 and a mean above zero."""
    draws = np.random.default_rng(3).standard_normal(300)
    series = np.zeros(300)
    for t in range(1, 300):
        series[t] = 0.4 * series[t - 1] + draws[t]
    return series + 0.15


@pytest.mark.parametrize(("lags", "by_statsmodels"), [(0, 3.612831649091893), (3, 2.775855713265675), (10, 2.422028443172285)])  # fmt: skip  # noqa: E501
def test_its_t_is_that_of_newey_and_west_but_for_the_factor_of_few(lags, by_statsmodels):
    """statsmodels 0.15: OLS on a constant, cov_type HAC, maxlags, without correction."""
    found = diebold_mariano(remembered(), np.zeros(300), lags=lags)
    assert found.statistic == pytest.approx(by_statsmodels * np.sqrt(299 / 300), rel=1e-10)
    assert found.p == pytest.approx(2 * stats.t.sf(found.statistic, 299))


def test_without_overlap_it_is_students_t_test():
    draws = np.random.default_rng(5)
    one, other = draws.standard_normal(80) + 0.3, draws.standard_normal(80)
    found, known = diebold_mariano(one, other), stats.ttest_rel(one, other)
    assert (found.statistic, found.p) == pytest.approx((known.statistic, known.pvalue))


def test_who_loses_more_has_the_sign_and_equals_are_equal():
    loss = remembered()
    assert diebold_mariano(loss, loss + 0.1 * np.sin(np.arange(300)) + 0.5).statistic < -5
    assert diebold_mariano(loss, loss) == (0.0, 1.0)


def test_of_forecasts_that_are_as_good_it_rejects_about_as_often_as_it_says_also_where_they_overlap():
    draws = np.random.default_rng(8)

    def overlapping():  # four days ahead
        return np.convolve(draws.standard_normal(253), np.ones(4) / 2.0, "valid")

    gaps, none = [overlapping() for _ in range(800)], np.zeros(250)
    aware = np.mean([diebold_mariano(gap, none, horizon=4).p < 0.05 for gap in gaps])
    naive = np.mean([diebold_mariano(gap, none).p < 0.05 for gap in gaps])
    assert aware == pytest.approx(0.05, abs=0.03) and naive > 0.25


# --- VaR ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tail", "days", "low", "high"),
    [
        (0.01, 255, 0, 7),
        (0.01, 510, 1, 11),
        (0.01, 1_000, 4, 17),
        (0.05, 255, 6, 21),
        (0.05, 510, 16, 36),
        (0.05, 1_000, 37, 65),
    ],
)
def test_kupiec_accepts_as_many_failures_as_his_published_table(tail, days, low, high):
    """Kupiec (1995), table 3, as in Jorion, Value at Risk: those strictly between are accepted at 95 %. For 255
    days it names no lower end; by its own formula none at all is refused (5.1 > 3.84)."""
    accepted = [n for n in range(high + 5) if kupiec(so_many(days, n), tail).p >= 0.05]
    assert (accepted[0] - 1, accepted[-1] + 1) == (low, high)


def test_no_failure_at_all_has_a_likelihood_too():
    assert kupiec(so_many(250, 0), 0.01).statistic == pytest.approx(-2 * 250 * np.log(0.99))


def test_independence_is_the_likelihood_ratio_of_the_table_of_transitions():
    draws = np.random.default_rng(2)
    found = draws.random(800) < 0.1
    table = np.histogram2d(found[:-1], found[1:], bins=2)[0]
    known = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
    told = christoffersen_independence(found)
    assert (told.statistic, told.p) == pytest.approx((known.statistic, known.pvalue))


def test_failures_in_a_row_are_seen_though_they_are_as_many_as_they_should_be():
    clustered, scattered = so_many(1_000, 10), hits(1_000, *range(50, 1_000, 100))
    assert kupiec(clustered, 0.01) == kupiec(scattered, 0.01) and kupiec(clustered, 0.01).p > 0.9
    assert christoffersen(clustered, 0.01).p < 1e-6 < 0.5 < christoffersen(scattered, 0.01).p


def test_an_honest_var_is_rejected_about_as_often_as_said():
    draws = np.random.default_rng(4)
    honest = [draws.random(1_500) < 0.05 for _ in range(600)]
    assert np.mean([kupiec(h, 0.05).p < 0.05 for h in honest]) == pytest.approx(0.05, abs=0.025)
    assert np.mean([christoffersen(h, 0.05).p < 0.05 for h in honest]) == pytest.approx(0.06, abs=0.035)


def test_filtered_history_gives_the_quantile_of_what_came_before_times_todays_volatility():
    draws = np.random.default_rng(6)
    vol = np.exp(0.5 * np.sin(np.arange(900) / 30.0))
    returns = vol * draws.standard_t(4, 900)
    var = filtered_var(returns, vol, 0.05, least=100, window=300)
    assert np.isnan(var[:100]).all() and np.isfinite(var[100:]).all()
    assert var[500] == pytest.approx(-vol[500] * np.quantile((returns / vol)[200:500], 0.05))
    assert kupiec(-returns[100:] > var[100:], 0.05).p > 0.05


def test_a_day_that_is_not_known_gives_no_var_and_teaches_nothing():
    returns = np.random.default_rng(6).standard_normal(60)
    vol = np.ones(60)
    vol[40] = np.nan
    returns[45] = np.nan
    var = filtered_var(returns, vol, 0.1, least=20, window=20)
    assert np.isnan(var[40]) and np.isfinite(var[41:]).all()
    assert var[46] == pytest.approx(-np.quantile(np.delete(returns, [40, 45])[24:44], 0.1))


def test_what_comes_later_changes_no_var_before():
    returns, vol = np.random.default_rng(6).standard_normal(400), np.ones(400)
    before = filtered_var(returns, vol, 0.05, least=50, window=200)
    returns[300:] *= 9.0
    after = filtered_var(returns, vol, 0.05, least=50, window=200)
    assert (before[50:301] == after[50:301]).all() and (before[302:] != after[302:]).any()


# --- whole distributions -----------------------------------------------------------------------------------


def test_right_forecasts_are_uniform_and_independent_and_too_narrow_ones_are_not():
    draws = np.random.default_rng(8)
    right = pit(draws.standard_normal(600), draws.standard_normal((600, 500)))
    narrow = pit(1.3 * draws.standard_normal(600), draws.standard_normal((600, 500)))
    assert uniform(right).p > 0.05 and berkowitz(right).p > 0.05
    assert uniform(narrow).p < 0.01 and berkowitz(narrow).p < 1e-6


def test_an_outcome_beyond_all_that_was_foretold_is_neither_zero_nor_one():
    u = pit(np.array([-9.0, 9.0, 0.0]), np.tile([-1.0, 0.0, 1.0], (3, 1)))
    assert u == pytest.approx([0.125, 0.875, 0.5])


def test_berkowitz_sees_memory_that_kolmogorov_and_smirnov_do_not():
    u = stats.norm.cdf(np.convolve(np.random.default_rng(9).standard_normal(501), [0.8, 0.6], "valid"))
    assert uniform(u).p > 0.01 and berkowitz(u).p < 1e-6


def test_berkowitz_rejects_what_is_right_as_often_as_it_says():
    draws = np.random.default_rng(10)
    assert np.mean([berkowitz(draws.random(300)).p < 0.05 for _ in range(600)]) == pytest.approx(0.05, abs=0.03)


@pytest.mark.parametrize("bad", [np.full(30, np.nan), np.ones(3)])
def test_what_is_no_number_or_too_few_is_refused(bad):
    for test in (lambda: diebold_mariano(bad, bad), lambda: uniform(bad), lambda: berkowitz(bad)):
        with pytest.raises(DataError):
            test()
    with pytest.raises(DataError):
        kupiec(bad, 0.01)
