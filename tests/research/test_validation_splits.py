"""Walk-forward, combinatorial splits, overfitting, deflation: no label in both, and the published examples."""

import numpy as np
import pytest

from dea_daemon.domain.errors import DataError
from dea_daemon.research.overfitting import (
    deflated_sharpe,
    expected_best,
    overfitting,
    probabilistic_sharpe,
    sharpe_ratio,
)
from dea_daemon.research.walk_forward import chosen_forward, purged_combinations, walk_forward

# --- splits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("horizon", "embargo"), [(1, 0), (5, 0), (3, 7)])
def test_nothing_teaches_whose_label_was_not_known_before_the_first_that_judges(horizon, embargo):
    splits = walk_forward(200, 4, least=40, horizon=horizon, embargo=embargo)
    for split in splits:
        assert split.train[-1] + horizon + embargo == split.test[0]
        assert split.train[0] == 0
    assert (np.concatenate([split.test for split in splits]) == np.arange(40 + horizon - 1 + embargo, 200)).all()
    assert len(splits[0].train) == 40


@pytest.mark.parametrize(("horizon", "embargo"), [(1, 0), (4, 0), (4, 3)])
def test_in_combinations_no_label_of_what_teaches_overlaps_one_that_judges(horizon, embargo):
    splits = list(purged_combinations(60, 6, 2, horizon=horizon, embargo=embargo))
    assert len(splits) == 15
    for split in splits:
        apart = split.train[:, None] - split.test[None, :]
        assert (np.abs(apart) >= horizon + embargo).all()
        assert len(split.test) == 20
    judged = np.concatenate([split.test for split in splits])
    assert (np.bincount(judged) == 5).all()  # so 5 whole paths can be put together


def test_what_is_not_purged_teaches():
    (split,) = [s for s in purged_combinations(40, 4, 1, horizon=3, embargo=2) if s.test[0] == 10]
    assert split.train.tolist() == [*range(6), *range(24, 40)]


@pytest.mark.parametrize("arguments", [dict(folds=0, least=5), dict(folds=3, least=20), dict(folds=3, least=5, horizon=14)])  # fmt: skip  # noqa: E501
def test_too_few_observations_are_refused(arguments):
    with pytest.raises(DataError):
        walk_forward(20, **arguments)


def test_each_fold_takes_what_was_best_before_it():
    losses = np.ones((100, 3))
    losses[:50, 1], losses[50:, 2] = 0.5, -1.0
    chosen = chosen_forward(losses, walk_forward(100, 4, least=20))
    assert chosen.trial.tolist() == [1, 1, 1, 2]
    assert (chosen.loss == losses[chosen.test, np.repeat(chosen.trial, 20)]).all()
    assert chosen.first.tolist() == [20, 40, 60, 80]


def test_choosing_by_the_past_never_looks_ahead():
    losses = np.random.default_rng(1).standard_normal((200, 30))
    splits = walk_forward(200, 5, least=50, embargo=5)
    before = chosen_forward(losses, splits)
    shaken = losses.copy()
    shaken[splits[3].test[0] :] = np.random.default_rng(2).standard_normal((len(losses) - splits[3].test[0], 30))
    after = chosen_forward(shaken, splits)
    assert (before.trial[:4] == after.trial[:4]).all()
    leaking = [split._replace(train=np.arange(200)) for split in splits]
    assert (chosen_forward(losses, leaking).trial[:4] != chosen_forward(shaken, leaking).trial[:4]).any()


# --- Sharpe ratios -----------------------------------------------------------------------------------------


def test_the_published_example_of_the_deflated_ratio():
    """Bailey & López de Prado (2014), section "A numerical example": SR 2.5 a year over 1,250 days of 250 a year, skew
    −3, kurtosis 10; variance ½ among 100 trials: SR0 .1132 a day, DSR .9004. With 46 trials .9505. Were it normal, 88
    trials would do."""
    daily, deviation = 2.5 / np.sqrt(250), np.sqrt(0.5 / 250)
    assert expected_best(100, deviation) == pytest.approx(0.1132, abs=5e-5)
    assert probabilistic_sharpe(daily, expected_best(100, deviation), 1_250, -3, 10) == pytest.approx(0.9004, abs=5e-5)
    assert probabilistic_sharpe(daily, expected_best(46, deviation), 1_250, -3, 10) == pytest.approx(0.9505, abs=5e-5)
    assert probabilistic_sharpe(daily, expected_best(88, deviation), 1_250) == pytest.approx(0.9505, abs=5e-4)


def test_the_best_of_many_without_skill_is_what_simulation_says():
    draws = np.random.default_rng(3)
    for trials in (10, 100, 1_000):
        best = draws.standard_normal((4_000, trials)).max(axis=1).mean()
        assert expected_best(trials, 1.0) == pytest.approx(best, rel=0.03)
    assert expected_best(1, 1.0) == 0.0


def test_the_same_returns_are_worth_less_after_more_trials():
    returns = np.random.default_rng(4).standard_t(5, 1_000) * 0.01 + 0.001
    told = [deflated_sharpe(returns, trials, 0.03) for trials in (1, 10, 200)]
    assert told[0] > told[1] > told[2]
    assert told[0] == pytest.approx(
        probabilistic_sharpe(sharpe_ratio(returns), 0.0, 1_000, *_moments(returns)), rel=1e-12
    )


def _moments(returns):
    z = (returns - returns.mean()) / returns.std()
    return (z**3).mean(), (z**4).mean()


def test_the_best_of_trials_without_skill_is_hardly_ever_believed():
    draws = np.random.default_rng(5)
    believed = 0
    for _ in range(200):
        returns = 0.01 * draws.standard_normal((500, 50))
        ratios = returns.mean(axis=0) / returns.std(axis=0, ddof=1)
        believed += deflated_sharpe(returns[:, np.argmax(ratios)], 50, float(ratios.std(ddof=1))) > 0.95
    assert believed / 200 < 0.05


def test_a_book_that_never_moved_has_no_ratio_to_believe():
    assert sharpe_ratio(np.zeros(100)) == 0.0
    assert deflated_sharpe(np.zeros(100), 10, 0.1) < 0.5


# --- overfitting -------------------------------------------------------------------------------------------


def test_among_trials_without_skill_the_best_is_as_often_below_as_above_the_median():
    draws = np.random.default_rng(6)
    told = [overfitting(draws.standard_normal((320, 20)), splits=8).probability for _ in range(60)]
    assert np.mean(told) == pytest.approx(0.5, abs=0.08)


def test_one_that_is_better_everywhere_is_no_overfit():
    performance = np.random.default_rng(7).standard_normal((480, 20))
    performance[:, 11] += 1.0
    found = overfitting(performance)
    assert found.probability == 0.0 and len(found.logits) == 12_870


def test_where_what_was_good_must_be_bad_the_rest_of_the_time_all_is_overfit():
    performance = np.random.default_rng(8).standard_normal((480, 20))
    assert overfitting(performance - performance.mean(axis=0)).probability > 0.99


def test_it_is_what_the_definition_says_counted_one_by_one():
    performance = np.random.default_rng(9).standard_normal((43, 5)) + 0.3 * np.arange(5)
    from itertools import combinations

    blocks = performance[3:].reshape(4, 10, 5)
    worse = []
    for half in combinations(range(4), 2):
        rest = [k for k in range(4) if k not in half]
        best = np.argmax(blocks[list(half)].mean(axis=(0, 1)))
        rank = np.argsort(np.argsort(blocks[rest].mean(axis=(0, 1))))[best] + 1
        worse.append(rank / 6 <= 0.5)
    assert overfitting(performance, splits=4).probability == pytest.approx(np.mean(worse))


def test_what_cannot_be_judged_is_refused():
    for performance in (np.zeros((10, 3)), np.zeros((100, 1)), np.full((100, 3), np.nan)):
        with pytest.raises(DataError):
            overfitting(performance)
