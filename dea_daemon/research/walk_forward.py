"""Which observations may teach and which may judge, so that no label is in both: purged, embargoed splits.

Observation i is made at step i, and its label is known `horizon` steps later. What teaches must have known its label
before the first one that judges was made, less an embargo; after those that judge, it must begin beyond their labels
and the embargo. Source: López de Prado (2018), Advances in financial machine learning, chapters 7 and 12.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.instruments import FloatArray, IntArray


class Split(NamedTuple):
    """Indices, ascending."""

    train: IntArray
    test: IntArray


def walk_forward(length: int, folds: int, *, least: int, horizon: int = 1, embargo: int = 0) -> list[Split]:
    """`folds` stretches as equal as can be, one after another, that judge what all before them taught. The first begins
    once `least` observations can teach. DataError where there are too few."""
    first = least + horizon - 1 + embargo
    if not (folds >= 1 and least >= 1 and horizon >= 1 and embargo >= 0 and length - first >= folds):
        raise DataError(f"{length} observations are too few for {folds} folds that judge after {first}")
    edges = np.linspace(first, length, folds + 1).round().astype(np.int64)
    ends = edges[:-1] - (horizon - 1) - embargo
    return [Split(np.arange(e), np.arange(a, b)) for e, a, b in zip(ends, edges[:-1], edges[1:], strict=True)]


def purged_combinations(
    length: int, groups: int, judging: int, *, horizon: int = 1, embargo: int = 0
) -> Iterator[Split]:
    """Combinatorial purged cross-validation: each choice of `judging` out of `groups` stretches judges, the rest of
    the observations teaches, purged on both sides."""
    if not (1 <= judging < groups <= length and horizon >= 1 and embargo >= 0):
        raise DataError(f"{judging} of {groups} groups of {length} observations cannot judge the others")
    edges = np.linspace(0, length, groups + 1).round().astype(np.int64)
    for chosen in combinations(range(groups), judging):
        judges = np.zeros(length, dtype=np.bool_)
        tainted = np.zeros(length, dtype=np.bool_)
        for group in chosen:
            first, end = int(edges[group]), int(edges[group + 1])
            judges[first:end] = True
            tainted[max(first - (horizon - 1) - embargo, 0) : end + horizon - 1 + embargo] = True
        yield Split(np.flatnonzero(~tainted), np.flatnonzero(judges))


class Chosen(NamedTuple):
    """What choosing by the past would have come to: `loss` [J] at the steps `test` [J]; `trial` [F] is what each fold
    took, from step `first` [F] on."""

    test: IntArray
    loss: FloatArray
    trial: IntArray
    first: IntArray


def chosen_forward(losses: FloatArray, splits: list[Split]) -> Chosen:
    """In each fold the trial with the least mean loss so far is taken. `losses` [T, N]; the first of equals wins."""
    if not np.isfinite(losses).all():
        raise DataError("a loss is not a number")
    trial = np.array([int(np.argmin(losses[split.train].mean(axis=0))) for split in splits])
    loss = [losses[split.test, n] for split, n in zip(splits, trial, strict=True)]
    first = np.array([split.test[0] for split in splits])
    return Chosen(np.concatenate([split.test for split in splits]), np.concatenate(loss), trial, first)
