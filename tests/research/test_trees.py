"""Trees are grown from lessons: what is there is found, noise is not, and what they say is what LightGBM says."""

import subprocess
import sys
from itertools import pairwise

import lightgbm
import msgspec
import numpy as np
import pytest

from dea_daemon.domain.models import Lessons, Trees
from dea_daemon.forecast.trees import LESSON_DAYS, LessonBook, compiled, flaw, said
from dea_daemon.research import trees
from dea_daemon.research.trees import exported, grow, in_errors, split

K = 12
TWICE, OF = 3, 7  # the columns that matter


def told(strength, days=LESSON_DAYS, u=2, seed=1):
    """(x [D, U, K], y [D, U]): a step at half a deviation of one column, and more where another is above 0."""
    draws = np.random.default_rng(seed)
    x = np.clip(draws.standard_normal((days, u, K)), -3.0, 3.0)
    x[..., 0] = 1.0
    there = np.where(x[..., TWICE] > 0.5, 1.0, -0.45) * np.where(x[..., OF] > 0.0, 1.0, 0.3)
    common = 0.8**0.5 * draws.standard_normal((days, 1)) + 0.2**0.5 * draws.standard_normal((days, u))
    return x, strength * there + common, strength * there


def lessons(strength, seed=1, horizon_days=1.0, **more):
    x, y, _ = told(strength, seed=seed, **more)
    book = LessonBook(x.shape[1], K)
    for day, (asked, came) in enumerate(zip(x, y, strict=True)):
        book.add(asked, came, 20_000.0 + day)
    return book.lessons(horizon_days)


def explained(model, strength):
    """(R² of the trees, R² of the truth) on four thousand fresh days."""
    x, y, there = told(strength, days=4_000, seed=99)
    ours = said(compiled(model.trees), x.reshape(-1, K))
    return tuple(1.0 - ((y.ravel() - each) ** 2).sum() / (y**2).sum() for each in (ours, there.ravel()))


# --- what they find -------------------------------------------------------------------------------------------


def test_what_was_planted_is_found_and_told_by_how_much():
    model = grow(lessons(0.6))
    ours, possible = explained(model, 0.6)
    assert not model.why and not flaw(model.trees, K)
    assert 0.5 * possible < ours < possible
    assert model.lessons == 2 * LESSON_DAYS and 0.02 < model.gain < 0.15


def test_noise_grows_nothing_in_most_seeds_and_little_in_the_others():
    models = [grow(lessons(0.0, seed)) for seed in range(12)]
    assert not any(model.why for model in models)
    grown = [model for model in models if model.trees.leaf]
    assert len(grown) <= 3
    assert all(model.gain <= 0.0 for model in models if not model.trees.leaf)
    assert all(explained(model, 0.0)[0] > -0.03 for model in grown)


def test_days_that_overlap_do_not_count_as_many():
    days = np.repeat(np.arange(100.0), 2).astype(np.float32)
    gained = np.repeat(np.random.default_rng(1).standard_normal(20) + 0.3, 10)  # five days, two underlyings at once
    alone = np.arange(20.0).astype(np.float32)
    assert in_errors(gained, days, 5.0) == pytest.approx(in_errors(gained[::10], alone, 1.0))


def test_the_same_lessons_grow_the_same_trees():
    assert grow(lessons(0.6)).trees == grow(lessons(0.6)).trees


def test_trees_are_small_on_the_wire():
    model = grow(lessons(0.6))
    assert len(msgspec.msgpack.encode(model)) < 120_000
    assert len(msgspec.msgpack.encode(lessons(0.6))) < 120_000


# --- where there are none -------------------------------------------------------------------------------------


def test_too_few_lessons_are_why_there_are_none():
    model = grow(lessons(0.6, days=99))
    assert (model.why, model.lessons, model.trees) == ("198 lessons: at least 200", 198, Trees())
    assert grow(Lessons(1.0, K, b"", b"", b"")).why == "0 lessons: at least 200"


def test_lessons_of_one_day_leave_nothing_to_examine():
    assert grow(lessons(0.0, days=1, u=300)).why == "no time to keep from them"


@pytest.mark.parametrize(("u", "days"), [(2, LESSON_DAYS), (1, 230)])
def test_a_mean_is_no_forecast_where_nothing_can_be_told_apart(u, days):
    """LightGBM's answer to regressors that never differ, or to too few lessons for two leaves, is the mean of all."""
    x = np.ones((days * u, K)) if days == LESSON_DAYS else np.random.default_rng(1).standard_normal((days * u, K))
    known = np.repeat(20_000.0 + np.arange(days), u)
    y = 1.0 + 0.1 * np.random.default_rng(2).standard_normal(days * u)
    model = grow(Lessons(1.0, K, *(part.astype("<f4").tobytes() for part in (x, y, known))))
    assert (model.why, model.trees, model.gain) == ("", Trees(), 0.0)


def test_without_lightgbm_that_is_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    assert grow(lessons(0.6)).why.startswith("no LightGBM: ")


def test_who_only_imports_this_loads_no_lightgbm():
    asked = "import sys, dea_daemon.research.trees; sys.exit('lightgbm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


# --- what was kept from them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon_days", [1.0, 5.0])
def test_nothing_seen_was_still_open_when_the_first_unseen_was_asked(horizon_days):
    days = (20_000.0 + np.arange(LESSON_DAYS)).astype(np.float32)
    seen, unseen = split(days, horizon_days)
    assert days[seen].max() <= days[unseen].min() - horizon_days
    assert not (seen & unseen).any()
    assert unseen.mean() == pytest.approx(0.2, abs=0.01)
    assert (~seen & ~unseen).sum() <= horizon_days


def test_the_gain_told_is_that_of_the_trees_told_on_what_was_kept_from_them():
    asked = lessons(0.6)
    model = grow(asked)
    x, y, days = trees._arrays(asked)
    _, unseen = split(days, 1.0)
    ours = said(compiled(model.trees), x[unseen].astype(np.float64))
    assert model.gain == pytest.approx(1.0 - ((y[unseen] - ours) ** 2).sum() / (y[unseen] ** 2).sum(), abs=1e-6)


def test_the_trees_know_nothing_of_the_last_fifth(monkeypatch):
    """Other outcomes there, and as many rounds: the same trees."""
    monkeypatch.setattr(trees, "PATIENCE", 10_000)
    monkeypatch.setattr(trees, "ERRORS", -np.inf)
    plain = lessons(0.6)
    y = np.frombuffer(plain.y, "<f4").copy()
    y[len(y) - len(y) // 5 :] *= -1.0
    both = [grow(each).trees for each in (plain, msgspec.structs.replace(plain, y=y.tobytes()))]
    least = min(len(each.leaf) for each in both)
    assert least and both[0].leaf[:least] == both[1].leaf[:least]


# --- LightGBM's trees in our words ----------------------------------------------------------------------------


def a_booster(x, y, **more):
    plain = {"verbose": -1, "num_threads": 1, "seed": 1, "min_data_in_leaf": 5, "max_depth": 3, "num_leaves": 8}
    data = lightgbm.Dataset(x, y, params=plain | more)
    return lightgbm.train(plain | {"use_missing": False} | more, data, 60)


@pytest.mark.parametrize("leaves", [2, 5, 8])
def test_our_arithmetic_says_what_lightgbm_says(leaves):
    """At thresholds and beside them, too, but for -1e-35, which it takes for 0."""
    draws = np.random.default_rng(leaves)
    x = draws.standard_normal((500, K)).round(1)
    booster = a_booster(x, x[:, 1] * x[:, 2] + draws.standard_normal(500), num_leaves=leaves)
    ours = exported(booster, 60)
    assert not flaw(ours, K) and len(ours.leaf) == 60 * 8
    at = np.array([threshold for threshold in ours.threshold if 1e-30 < abs(threshold) < np.inf])
    odd = [np.nextafter(at, -np.inf), at, np.nextafter(at, np.inf), np.zeros_like(at), np.full_like(at, np.nan)]
    fresh = np.concatenate([draws.standard_normal((2_000, K)), *(np.repeat(each[:, None], K, axis=1) for each in odd)])
    back = msgspec.msgpack.decode(msgspec.msgpack.encode(ours), type=Trees)
    assert back == ours
    np.testing.assert_allclose(said(compiled(back), fresh), booster.predict(fresh), rtol=0.0, atol=1e-12)


def test_fewer_rounds_are_the_first_ones():
    draws = np.random.default_rng(1)
    x = draws.standard_normal((500, K))
    booster = a_booster(x, x[:, 1] + draws.standard_normal(500))
    parts = [said(compiled(exported(booster, rounds)), x[:5]) for rounds in (10, 20)]
    for ours, rounds in zip(parts, (10, 20), strict=True):
        np.testing.assert_allclose(ours, booster.predict(x[:5], num_iteration=rounds), rtol=0.0, atol=1e-12)
    assert all((one != other).all() for one, other in pairwise(parts))


def test_no_rounds_of_a_booster_are_no_trees():
    assert exported(a_booster(np.ones((50, 2)), np.zeros(50)), 1).leaf == (0.0,) * 8
