"""No look-ahead, by the shifted future: what comes after t changes nothing that is told at t or before.

Two runs through the daemon's own forecast, the same up to t, with another future: prices, smiles, carry, open interest
and a slow factor. Each forecaster's words, its score, the earned weights, its trial and what is traded must agree up to
t, and differ after it, or the test would see nothing. Leaks planted in a feature, in the outcomes, in the lessons that
trees are grown from and in the feed are caught.
"""

import dataclasses

import numpy as np
import pytest

from dea_daemon.domain.decisions import Slow
from dea_daemon.domain.events import ModelFitted, PricesRecalled
from dea_daemon.domain.models import Trees
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters, LearnerParameters, TreeParameters
from dea_daemon.forecast import features, learners, trees
from dea_daemon.forecast.volatility import VolatilityMemory, asked, fitted, observe, predict, recall
from tests.guards.views import view

STEP_NS, FIRST = 6 * 3_600 * NS_PER_S, 80_000
T, CUT = 460, 400
VIEW = view()
PARAMS = ForecastParameters(
    sample_every_s=21_600, har_every_s=21_600, half_life_s=24 * 21_600, prior_samples=24,
    learners=LearnerParameters(every_s=21_600, combine="hedge", trees=TreeParameters(enabled=True, every_days=1.0)),
)  # fmt: skip
NAMES = (*learners.FORECASTERS, "trees_1d", "trees_5d")
CONTENDERS = (*(name for name in NAMES if not name.startswith("zero")), "har", "ewma", "ewma_10d")


def grown(question, at_ns):
    """Trees that say the mean of all they were taught: whatever entered the lessons is seen in them."""
    taught = float(np.frombuffer(question.lessons.y, "<f4").mean())
    said = Trees((0,) * 7, (0.0,) * 7, (taught,) * 8)
    return ModelFitted(at_ns, question.name, question.asked_utc_ns, said, len(question.lessons.y) // 4, 0.0, 0.0)


def world(future_seed):
    """(price [T, U], smile [T, U, 3, 3], funding [T, N], interest [T, N], mood [T, 1]): what is known at each step;
    another future after CUT."""
    past, future = np.random.default_rng(1), np.random.default_rng(future_seed)

    def drawn(shape):
        return np.concatenate([past.standard_normal((CUT + 1, *shape)), future.standard_normal((T - CUT - 1, *shape))])

    price = np.array([80_000.0, 3_000.0]) * np.exp(np.cumsum(0.02 * drawn((2,)), axis=0))
    n = len(VIEW.universe)
    return price, 0.6 * np.exp(0.1 * drawn((2, 3, 3))), 1e-4 * drawn((n,)), 0.05 * drawn((n,)), drawn((1,))


def told(price, smile, funding, interest, mood):
    """[T] of {forecaster: its words of every underlying, as text}, {"trial of" contender: how it is on trial} and
    "traded": what enters the allocator."""
    memory, out = VolatilityMemory(2), []
    for k in range(len(price)):
        seen = dataclasses.replace(
            VIEW, now_ns=(FIRST + k) * STEP_NS, utc_ns=(FIRST + k) * STEP_NS,
            underlying_price=price[k], smile=smile[k], funding_rate_8h=funding[k],
            exposure_per_lot=view(funding_rate_8h=funding[k]).exposure_per_lot,
            micro=VIEW.micro._replace(open_interest_change=interest[k], basis_annual=interest[k]),
            slow=Slow(("mood",), mood[k], np.zeros(1), np.ones(1, dtype=np.bool_)),
        )  # fmt: skip
        observe(memory, seen, PARAMS)
        if (question := asked(memory, seen, PARAMS)) is not None:
            fitted(memory, grown(question, seen.now_ns), PARAMS)
        forecast = predict(seen, memory, PARAMS)
        words = dict.fromkeys(NAMES, "")
        for line in forecast.forecasters:
            words[line.name] += repr(line)
        tracks = [track for court in memory.trial.courts.values() for track in court.tracks]
        words |= dict.fromkeys((f"trial of {name}" for name in CONTENDERS), "")
        words |= {f"trial of {track.name}": repr(track) for track in tracks}
        out.append(words | {"traded": repr((forecast.signal_return.tolist(), forecast.covariance.tolist()))})
    return out


@pytest.fixture(scope="module", autouse=True)
def eager():
    """Trees are grown from few lessons: the world is short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learners, "LEAST_LESSONS", 40)
        patch.setattr(learners, "AGAIN_DAYS", 0.0)
        yield


@pytest.fixture(scope="module")
def runs(eager):
    return told(*world(2)), told(*world(3))


def first_difference(runs, name):
    """The step where two runs first tell something else; T where they never do."""
    return next((k for k, (one, other) in enumerate(zip(*runs, strict=True)) if one[name] != other[name]), T)


@pytest.mark.parametrize("name", [*NAMES, "traded"])
def test_another_future_changes_nothing_that_was_told_before_it(runs, name):
    assert first_difference(runs, name) == CUT + 1


@pytest.mark.parametrize("name", CONTENDERS)
def test_nor_does_it_change_anybodys_trial_before_its_next_round(runs, name):
    """Which is at a day's turn, or every five days."""
    assert CUT < first_difference(runs, f"trial of {name}") <= CUT + 21


def test_trees_speak_before_the_cut(runs):
    """Or the two tests above would say nothing of them."""
    assert runs[0][CUT]["trees_1d"] != runs[0][CUT - 8]["trees_1d"] != runs[0][10]["trees_1d"]


def test_lessons_that_hold_the_next_outcome_are_caught(monkeypatch):
    """The book is told what the next day brings, too: trees say it too early."""
    out, keep = [], trees.LessonBook.add
    for one in (world(2), world(3)):
        price = np.log(one[0])

        def add(book, x, outcome, known_day, told=price):
            k = round(known_day * NS_PER_DAY / STEP_NS) - FIRST
            keep(book, x, outcome + told[min(k + 6, T - 1)] - told[k], known_day)

        with monkeypatch.context() as patch:
            patch.setattr(trees.LessonBook, "add", add)
            out.append(told(*one))
    assert first_difference(out, "trees_1d") <= CUT
    assert first_difference(out, "ridge_1d") == CUT + 1


def feature_runs(monkeypatch, which, leak):
    worlds = world(2), world(3)
    out = []
    for one in worlds:
        monkeypatch.setitem(features.FROM_PRICES, which, leak(np.log(one[0])))
        out.append(told(*one))
    return out


def test_a_feature_that_knows_the_next_price_is_caught(monkeypatch):
    def leak(log_price):
        def next_return(past, vol):
            k = past.slot - FIRST
            return (log_price[min(k + 1, T - 1)] - log_price[k]) / vol

        return next_return

    runs = feature_runs(monkeypatch, "return_1d", leak)
    assert first_difference(runs, "ridge_1d") == CUT
    assert first_difference(runs, "momentum_1d") == CUT + 1  # which does not look at it


def test_an_outcome_that_is_learned_too_early_is_caught(monkeypatch):
    """The ring of past prices gives what is a step ahead: every outcome, and so every score, comes a step too early."""
    out = []
    for one in (world(2), world(3)):
        log_price = np.log(one[0])
        monkeypatch.setattr(
            features.Past, "back", lambda past, k, told=log_price: told[max(min(past.slot - FIRST - k + 1, T - 1), 0)]
        )
        out.append(told(*one))
    for name in ("prior_1d", "ridge_5d", "traded"):
        assert first_difference(out, name) <= CUT


def test_candles_taken_as_known_when_they_open_are_caught():
    """The commonest leak of all: the close of a bar fed at the bar's stamp."""
    early = [(price[1:], *(one[:-1] for one in others)) for price, *others in (world(2), world(3))]
    assert first_difference([told(*one) for one in early], "traded") == CUT


def test_prices_recalled_are_learned_from_as_if_they_had_been_lived_through():
    """So the same test covers the start of a run: bars before it are the same samples in the same order."""
    price, *_ = world(2)
    at_ns = tuple((FIRST + k) * STEP_NS for k in range(T))
    remembered, lived = VolatilityMemory(2), VolatilityMemory(2)
    recall(remembered, PricesRecalled(0, at_ns, tuple(map(tuple, price.tolist()))), PARAMS)
    blind = np.full((2, 3, 3), np.nan)
    for k in range(T):
        unknown = dataclasses.replace(
            VIEW, now_ns=at_ns[k], underlying_price=price[k], smile=blind, fresh=np.zeros(4, dtype=np.bool_)
        )
        observe(lived, unknown, PARAMS)
    for ours, theirs in zip(remembered.learners.horizons, lived.learners.horizons, strict=True):
        assert ours.beta == pytest.approx(theirs.beta, rel=1e-9, abs=1e-12)
        assert ours.weights == pytest.approx(theirs.weights, rel=1e-9)
        assert ours.scores.t() == pytest.approx(theirs.scores.t(), rel=1e-6, nan_ok=True)
