"""A challenger's evidence is valid whenever one stops; drift is heard soon, and hardly ever where there is none."""

import numpy as np
import pytest

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.models import Drift, Evidence
from dea_daemon.forecast.monitoring import bet, drift, p_value


def evidence_of(champion, challenger):
    evidence = Evidence()
    for one, other in zip(champion.tolist(), challenger.tolist(), strict=True):
        evidence = bet(evidence, one, other)
    return evidence


def test_a_challenger_that_is_no_better_passes_one_in_twenty_hardly_ever_however_often_one_looks():
    draws = np.random.default_rng(1)
    passed = 0
    for _ in range(300):
        common = draws.exponential(1.0, 400)  # heavy, and both lose it together
        gap = draws.standard_t(3, 400)
        passed += p_value(evidence_of(common, common - gap)) < 0.05
    assert passed / 300 <= 0.05


def test_daily_looks_at_an_ordinary_test_would_have_passed_far_more_often():
    """Why the sequential one is there at all."""
    draws = np.random.default_rng(1)
    passed = 0
    for _ in range(200):
        gap = draws.standard_normal(400)
        days = np.arange(1, 401)
        t = np.cumsum(gap) / np.sqrt(days)
        passed += bool((t[20:] > 1.645).any())
    assert passed / 200 > 0.2


def test_losses_that_remember_do_not_fool_it():
    """The null is of each day given the past: volatility may cluster, and so may the size of differences."""
    draws = np.random.default_rng(2)
    passed = 0
    for _ in range(200):
        size = np.exp(np.cumsum(0.1 * draws.standard_normal(300)))
        passed += p_value(evidence_of(size * draws.standard_normal(300), np.zeros(300))) < 0.05
    assert passed / 200 <= 0.05


def test_one_that_is_better_is_found_and_the_better_the_sooner():
    draws = np.random.default_rng(3)

    def days_until(edge):
        evidence = Evidence()
        for day, gap in enumerate(edge + draws.standard_normal(3_000)):
            evidence = bet(evidence, gap, 0.0)
            if p_value(evidence) < 0.05:
                return day
        return 3_000

    slight, great = (np.median([days_until(edge) for _ in range(20)]) for edge in (0.2, 0.6))
    assert great < 100 < slight < 1_000


def test_what_was_proven_stays_proven_and_a_worse_one_never_is():
    evidence = evidence_of(np.ones(100) + 0.1 * np.sin(np.arange(100)), np.zeros(100))
    proven = p_value(evidence)
    for _ in range(200):
        evidence = bet(evidence, 0.0, 1.0)
    assert p_value(evidence) == proven < 0.01
    assert evidence.log_wealth < evidence.peak
    assert p_value(evidence_of(np.zeros(300), np.ones(300))) == 1.0


def test_one_absurd_day_proves_nothing():
    ordinary = np.random.default_rng(4).standard_normal(60)
    assert p_value(evidence_of(np.append(ordinary, 1e12), np.zeros(61))) > 0.2
    with pytest.raises(DataError):
        bet(Evidence(), np.nan, 0.0)


def test_the_bet_of_a_day_was_fixed_before_it():
    """Were today's difference turned round, what is won would be what was lost."""
    past = evidence_of(np.abs(np.random.default_rng(5).standard_normal(50)), np.zeros(50))
    won, lost = (np.expm1(bet(past, gap, 0.0).log_wealth - past.log_wealth) for gap in (0.5, -0.5))
    assert won == pytest.approx(-lost) and won > 0.0


def alarm_at(series):
    state = Drift()
    for step, value in enumerate(series):
        state = drift(state, float(value), tolerance=0.2, limit=20.0)
        if state.alarm:
            return step
    return None


def test_a_loss_that_rises_is_heard_soon_and_one_that_stays_is_not():
    draws = np.random.default_rng(6)
    calm = [alarm_at(draws.standard_normal(500)) for _ in range(100)]
    rising = [alarm_at(np.append(draws.standard_normal(250), 1.0 + draws.standard_normal(250))) for _ in range(100)]
    assert sum(step is not None for step in calm) <= 15
    late = [step - 250 for step in rising if step is not None and step >= 250]
    assert len(late) >= 85 and np.median(late) < 80


def test_its_sums_are_those_of_the_definition():
    series = np.random.default_rng(7).standard_normal(80)
    state = Drift()
    for value in series:
        state = drift(state, float(value), tolerance=0.05, limit=1e9)
    means = np.cumsum(series) / np.arange(1, 81)
    sums = np.cumsum(series - means - 0.05)
    assert (state.above, state.lowest) == pytest.approx((sums[-1], min(sums.min(), 0.0)))


def test_a_loss_that_is_no_number_alarms_at_once_and_an_alarm_stays():
    state = drift(Drift(), float("nan"), tolerance=0.1, limit=1e9)
    assert state.alarm and drift(state, 0.0, tolerance=0.1, limit=1e9).alarm
