"""Boosted trees as arrays, what they say, and the lessons that the next ones are grown from.

They are grown aside, by research/trees.py; here is nothing but numpy.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.models import Lessons, Trees

DEPTH = 3
INNER, LEAVES = 2**DEPTH - 1, 2**DEPTH  # of one tree
TREES_MOST = 500
LESSON_DAYS = 730  # two years, a lesson a day: some 120 KB of two underlyings

SmallArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees as arrays: feature [T, 7], threshold [T, 7], leaf [T, 8]."""

    feature: IntArray
    threshold: FloatArray
    leaf: FloatArray


def flaw(trees: Trees, k: int) -> str:
    """Why these are no trees on `k` regressors, or ""."""
    count = len(trees.leaf) // LEAVES
    feature, threshold = np.array(trees.feature), np.array(trees.threshold)
    if (len(trees.feature), len(trees.threshold), len(trees.leaf)) != (INNER * count, INNER * count, LEAVES * count):
        return f"no whole trees of depth {DEPTH}"
    if count > TREES_MOST:
        return f"{count} trees: at most {TREES_MOST}"
    if not ((feature >= 0) & (feature < k)).all():
        return f"a feature that is none of {k}"
    if np.isnan(threshold).any() or not np.isfinite(trees.leaf).all():
        return "a number that is none"
    return ""


def compiled(trees: Trees) -> Forest:
    """Trees without `flaw`, ready to be asked."""
    return Forest(
        np.array(trees.feature, dtype=np.int64).reshape(-1, INNER),
        np.array(trees.threshold, dtype=np.float64).reshape(-1, INNER),
        np.array(trees.leaf, dtype=np.float64).reshape(-1, LEAVES),
    )


def said(forest: Forest, x: FloatArray) -> FloatArray:
    """[U] standard deviations of the horizon, 0 of no trees; x [U, K] regressors, NaN counts as 0."""
    known = np.where(np.isnan(x), 0.0, x)
    tree, row = np.arange(len(forest.leaf)), np.arange(len(x))[:, None]
    node = np.zeros((len(x), len(forest.leaf)), dtype=np.int64)
    for _ in range(DEPTH):
        right = known[row, forest.feature[tree, node]] > forest.threshold[tree, node]
        node = 2 * node + 1 + right
    return np.asarray(forest.leaf[tree, node - INNER].sum(axis=1))


class LessonBook:
    """The lessons of one horizon in the last `LESSON_DAYS` days, of each day (UTC) and underlying the first that had
    an outcome: more would overlap. Day d in row d % LESSON_DAYS.

    x [D, U, K], y [D, U] and known_day [D, U], days since 1970; NaN where there is none.
    """

    def __init__(self, underlyings: int, k: int) -> None:
        self.x: SmallArray = np.zeros((LESSON_DAYS, underlyings, k), dtype=np.float32)
        self.y: SmallArray = np.full((LESSON_DAYS, underlyings), np.nan, dtype=np.float32)
        self.known_day: SmallArray = np.full((LESSON_DAYS, underlyings), np.nan, dtype=np.float32)
        self._day = -1

    def add(self, x: FloatArray, outcome: FloatArray, known_day: float) -> None:
        """What was asked, x [U, K], and what came of it, outcome [U], NaN where unknown; not earlier than the last."""
        day = int(known_day)
        if day > self._day:
            self._turn(day)
        row = day % LESSON_DAYS
        new = np.isfinite(outcome) & np.isnan(self.y[row])
        if new.any():
            self.x[row, new], self.y[row, new], self.known_day[row, new] = x[new], outcome[new], known_day

    def _turn(self, day: int) -> None:
        """Another day: what is too old then is forgotten."""
        stale = np.arange(max(self._day + 1, day - LESSON_DAYS + 1), day + 1) % LESSON_DAYS
        self.y[stale], self.known_day[stale] = np.nan, np.nan
        self._day = day

    def widen(self, more: int) -> None:
        """So many regressors more, behind the others; in all that was asked before they were 0."""
        self.x = np.pad(self.x, ((0, 0), (0, 0), (0, more)))

    def lessons(self, horizon_days: float) -> Lessons:
        """All of them, pooled, in the order in which their outcomes were known."""
        order = np.argsort(self.known_day, axis=None, kind="stable")[: int(np.isfinite(self.y).sum())]
        k = self.x.shape[2]
        parts = (self.x.reshape(-1, k)[order], self.y.ravel()[order], self.known_day.ravel()[order])
        x, y, known_days = (part.astype("<f4").tobytes() for part in parts)
        return Lessons(horizon_days, k, x, y, known_days)
