"""Boosted trees of depth 3 (LightGBM) grown from a forecaster's lessons, as arithmetic that needs no library.

Pooled over the underlyings, strongly regularised, one thread, the same from the same lessons. The last fifth of the
time is kept from them; it says after how many rounds to stop, and whether they are better than nothing.
"""

from typing import Any

import numpy as np

from dea_daemon.domain.events import ModelFitted
from dea_daemon.domain.instruments import BoolArray, FloatArray
from dea_daemon.domain.models import Lessons, Trees
from dea_daemon.forecast.trees import DEPTH, INNER, LEAVES, TREES_MOST, SmallArray

LEAST = 200  # lessons, of all underlyings
UNSEEN = 0.2  # of the time
ERRORS = 1.0  # standard errors that a gain must be of: with the best of many rounds, noise gains as often as not
PATIENCE = 50  # rounds without a better one
PARAMETERS: dict[str, Any] = {
    "objective": "regression",
    "metric": "l2",
    "boost_from_average": False,  # from 0, which is what is said without them
    "max_depth": DEPTH,
    "num_leaves": LEAVES,
    "learning_rate": 0.05,
    "min_data_in_leaf": 100,
    "lambda_l2": 100.0,
    "feature_fraction": 0.5,
    "max_bin": 63,
    "use_missing": False,
    "zero_as_missing": False,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "seed": 9,
    "verbose": -1,
}


def grow(lessons: Lessons) -> ModelFitted:
    """The trees that explain most of what was kept from them; none where no number of rounds explains a standard error
    of it, and why where none could be grown. Name, question and time are the caller's to fill in.

    They are those that were examined, not grown again on all: `gain` is their own, and what speaks was tested.
    """
    x, y, known_days = _arrays(lessons)
    if len(y) < LEAST:
        return _none(len(y), f"{len(y)} lessons: at least {LEAST}")
    try:
        import lightgbm
    except ImportError as error:  # of the extra `research`, or of a library of the system's that it wants
        return _none(len(y), f"no LightGBM: {error}")
    seen, unseen = split(known_days, lessons.horizon_days)
    if not (seen.any() and unseen.any()):
        return _none(len(y), "no time to keep from them")
    train = lightgbm.Dataset(x[seen], y[seen], params=PARAMETERS, free_raw_data=True)
    booster = lightgbm.train(
        PARAMETERS,
        train,
        TREES_MOST,
        valid_sets=[train.create_valid(x[unseen], y[unseen])],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    said = np.asarray(booster.predict(x[unseen], num_iteration=booster.best_iteration))
    gained = saved(said, y[unseen])
    gain = float(gained.sum() / (y[unseen].astype(np.float64) ** 2).sum())
    worth = in_errors(gained, known_days[unseen], lessons.horizon_days) > ERRORS
    if not (worth and _branched(booster)):
        return ModelFitted(0, "", 0, lessons=len(y), gain=min(gain, 0.0))
    return ModelFitted(0, "", 0, exported(booster, booster.best_iteration), len(y), gain)


def _branched(booster: Any) -> bool:
    """Where nothing can be told apart LightGBM says the mean of all, unshrunk, as its one leaf: not what was asked."""
    return bool(booster.dump_model(num_iteration=1)["tree_info"][0]["num_leaves"] > 1)


def _none(lessons: int, why: str) -> ModelFitted:
    return ModelFitted(0, "", 0, lessons=lessons, why=why)


def _arrays(lessons: Lessons) -> tuple[SmallArray, SmallArray, SmallArray]:
    """(x [n, K], y [n], known_days [n])."""
    y, known_days = np.frombuffer(lessons.y, "<f4"), np.frombuffer(lessons.known_days, "<f4")
    return np.frombuffer(lessons.x, "<f4").reshape(len(y), lessons.k), y, known_days


def split(known_days: SmallArray, horizon_days: float) -> tuple[BoolArray, BoolArray]:
    """(seen [n], unseen [n]): unseen is the last fifth of the time, and nothing seen was still open when the first of
    it was asked."""
    first, last = float(known_days.min()), float(known_days.max())
    begins = last - UNSEEN * (last - first)
    return known_days <= begins - horizon_days, known_days >= begins


def saved(said: FloatArray, y: SmallArray) -> FloatArray:
    """[n] squared error that saying 0 has more."""
    return np.asarray(y.astype(np.float64) ** 2 - (y - said) ** 2)


def in_errors(gained: FloatArray, known_days: SmallArray, horizon_days: float) -> float:
    """The sum in standard errors, those of a horizon together: they overlap, and the underlyings move together."""
    _, block = np.unique(known_days // horizon_days, return_inverse=True)
    sums = np.bincount(block, gained)
    spread = float(sums.std(ddof=1)) * np.sqrt(len(sums)) if len(sums) > 1 else np.inf
    return float(sums.sum() / spread) if spread > 0.0 else 0.0


# --- in our words ------------------------------------------------------------------------------------------------


def exported(booster: Any, rounds: int) -> Trees:
    """The first trees of a booster, each made complete."""
    features, thresholds, leaves = [], [], []
    for tree in booster.dump_model(num_iteration=rounds)["tree_info"]:
        feature, threshold, leaf = [0] * INNER, [float("inf")] * INNER, [0.0] * LEAVES
        _fill(tree["tree_structure"], 0, feature, threshold, leaf)
        features += feature
        thresholds += threshold
        leaves += leaf
    return Trees(tuple(features), tuple(thresholds), tuple(leaves))


def _fill(node: dict[str, Any], at: int, feature: list[int], threshold: list[float], leaf: list[float]) -> None:
    """Write a node and all below it; a leaf that is none of the last storey is every leaf below it."""
    if at >= INNER:
        leaf[at - INNER] = float(node["leaf_value"])
        return
    if "split_feature" in node:
        feature[at], threshold[at] = int(node["split_feature"]), float(node["threshold"])
    for side, child in enumerate(("left_child", "right_child")):
        _fill(node.get(child, node), 2 * at + 1 + side, feature, threshold, leaf)
