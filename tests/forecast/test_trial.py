"""Champion and challengers: who is better is proposed, hardly anybody else; who does harm or drifts goes at once."""

import msgspec
import numpy as np
import pytest

from dea_daemon.domain.events import ForecasterRuled, ModelFitted
from dea_daemon.domain.models import Kept, Standing, Track, Trees
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import ForecastParameters, LearnerParameters, TreeParameters, TrialParameters
from dea_daemon.forecast import learners, rivals, trial, volatility
from tests.forecast.test_learners import VOL, reverting, walk
from tests.guards.views import view

DAILY = LearnerParameters(every_s=86_400)
RIDGE_TRADES = LearnerParameters(every_s=86_400, weights={"ridge_1d": 0.2})
FIRST = 20_000


def lived(returns, params=DAILY, memory=None, first=FIRST):
    """The learners after daily `returns` [T, U] that they lived through, on trial."""
    price = 100.0 * np.exp(np.cumsum(returns, axis=0))
    memory = memory or learners.LearnerMemory(returns.shape[1])
    variance, earned = np.full(returns.shape[1], VOL**2), np.full(returns.shape[1], np.nan)
    for k, now in enumerate(price):
        at = (first + k) * NS_PER_DAY
        learners.observe(memory, at, now, variance, None, earned, params, at)
    return memory


def noted(memory, event):
    return [(note.fields["name"], note.fields) for note in memory.trial.notes if note.event == event]


@pytest.fixture(scope="module")
def predictable():
    """Nearly two years in which ridge can see a good part of the next day."""
    return lived(reverting(600, 2, 1, 0.5))


def test_a_forecaster_that_is_better_is_proposed_with_the_evidence_and_trades_nothing_before_the_operators_word(
    predictable,
):
    memory = predictable
    ((_, told),) = [each for each in noted(memory, "forecaster.proposed") if each[0] == "ridge_1d"]
    assert told["weight"] == 0.2 and told["p"] <= learners.level(memory, DAILY) and told["net_gain"] > 0.0
    assert memory.trial.proposed["ridge_1d"] == 0.2
    assert not learners.weights(memory, DAILY).any() and len(learners.signals(memory, DAILY)[1]) == 0


def test_asked_to_it_promotes_by_itself_and_the_forecast_trades():
    params = LearnerParameters(every_s=86_400, trial=TrialParameters(promotion="automatic"))
    memory = lived(reverting(600, 2, 1, 0.5), params)
    assert [name for name, _ in noted(memory, "forecaster.promoted")][:1] == ["ridge_1d"]
    assert learners.weights(memory, params)[0, learners.LEARNERS.index("ridge")] == pytest.approx(0.2)
    assert memory.trial.standings["ridge_1d"].why == "ridge_1d: it won its trial"
    assert len(learners.signals(memory, params)[1]) > 0


def test_of_eight_that_are_no_better_hardly_any_is_proposed_in_500_daily_looks():
    """The level is of all contenders together, however often one looks: at most one run in twenty has a proposal."""
    proposed = 0
    for seed in range(25):
        draws, memory = np.random.default_rng(seed), trial.TrialMemory()
        said = 0.1 * draws.standard_normal((500, 8))
        came = draws.standard_t(4, 500)
        for day in range(500):
            lost = came[day] ** 2
            own = (said[day] - came[day]) ** 2
            with_it = (0.2 * said[day] - came[day]) ** 2
            rounds = {str(m): trial.Round(lost, with_it[m], lost, own[m], lost, 1.0) for m in range(8)}
            trial.hear(memory, "1d", "", rounds, dict.fromkeys(rounds, 0.2), 0.05 / 8, 1, DAILY.trial)
        proposed += any(note.event == "forecaster.proposed" for note in memory.notes)
    assert proposed <= 4  # more, were the level passed by 5 %: .7 %


def test_a_forecaster_that_is_better_but_for_its_costs_is_not_proposed():
    dear = LearnerParameters(every_s=86_400, trial=TrialParameters(cost_bp=1_000.0))
    assert not noted(lived(reverting(600, 2, 1, 0.5), dear), "forecaster.proposed")


def test_who_does_harm_loses_its_weight_at_once_and_why_is_said():
    """A market that reverts, and then does the opposite: what ridge learned is worse than nothing."""
    good, bad = reverting(500, 2, 30, 0.5), reverting(120, 2, 40, -0.5)
    slow = RIDGE_TRADES.model_copy(update={"half_life_days": 3_650.0})
    memory = lived(np.concatenate([good, bad]), slow)
    ((name, told),) = noted(memory, "forecaster.demoted")
    assert name == "ridge_1d" and told["why"] in (trial.DRIFTED, trial.HARMFUL)
    assert not learners.weights(memory, slow).any()
    lost = memory.trial.standings["ridge_1d"].utc_ns // NS_PER_DAY - FIRST
    assert 500 < lost < 560


def test_while_nothing_changes_what_trades_keeps_its_weight():
    memory = lived(reverting(800, 2, 3, 0.5), RIDGE_TRADES)
    assert not noted(memory, "forecaster.demoted")


def test_drift_can_be_left_to_the_operator():
    params = RIDGE_TRADES.model_copy(update={"trial": RIDGE_TRADES.trial.model_copy(update={"drift": False})})
    returns = np.concatenate([reverting(500, 2, 30, 0.5), reverting(120, 2, 40, -0.5)])
    assert not noted(lived(returns, params), "forecaster.demoted")


def test_drift_alarms_hardly_ever_where_there_is_none_and_within_weeks_where_there_is():
    alarms, late = 0, []
    for seed in range(60):
        draws = np.random.default_rng(seed)
        memory = trial.TrialMemory()
        for day in range(365 + 120):
            own = abs(1.0 + 0.3 * draws.standard_t(4) + (0.3 if day >= 365 else 0.0))
            one = {"x": trial.Round(1.0, 1.0, 1.0, own, 1.0)}
            trial.hear(memory, "1d", "x:1", one, {}, 0.0, day * NS_PER_DAY, DAILY.trial)
            if "x" in memory.standings:
                alarms += day < 365
                late.append(day - 365)
                break
    assert alarms <= 3 and np.median([each for each in late if each >= 0]) < 60


def test_outcomes_that_overlap_are_not_judged_twice():
    hourly = LearnerParameters(every_s=21_600)
    memory, price = learners.LearnerMemory(1), 100.0 * np.exp(np.cumsum(walk(4 * 60, 1, 5) / 2.0, axis=0))
    for k, now in enumerate(price):
        at = FIRST * NS_PER_DAY + k * 21_600 * NS_PER_S
        learners.observe(memory, at, now, np.full(1, VOL**2), None, np.full(1, np.nan), hourly, at)
    rounds = {name: court.tracks[0].rounds for name, court in memory.trial.courts.items()}
    assert rounds == {"1d": 59, "5d": 11}


def test_a_past_that_was_only_recalled_puts_nobody_on_trial():
    price = 100.0 * np.exp(np.cumsum(walk(60, 2, 6), axis=0))
    memory = learners.LearnerMemory(2)
    for k, now in enumerate(price):
        learners.observe(memory, k * NS_PER_DAY, now, np.full(2, VOL**2), None, np.full(2, np.nan), DAILY)
    assert not memory.trial.courts


def test_another_champion_begins_all_trials_anew(predictable):
    memory = learners.LearnerMemory(2, trial.TrialMemory())
    memory.trial.restore(predictable.trial.kept)
    before = memory.trial.track("1d", "ridge_1d").rounds
    lived(walk(3, 2, 7), RIDGE_TRADES, memory, FIRST + 2_000)
    assert before > 500 and memory.trial.track("1d", "ridge_1d").rounds == 1  # at first it says nothing


def test_an_outcome_of_what_no_longer_trades_judges_nobody():
    """Promoted between a word and its outcome: the trial that begins is of the new weights alone."""
    memory = lived(walk(30, 2, 6))
    trial.rule(memory.trial, Standing("prior_1d", 0.2, "uid 7", "", 1))
    lived(walk(1, 2, 7), DAILY, memory, FIRST + 30)
    assert memory.trial.courts["1d"].champion == "" and memory.trial.track("1d", "prior_1d").rounds == 29
    lived(walk(1, 2, 8), DAILY, memory, FIRST + 31)
    assert memory.trial.courts["1d"].champion == "prior:0.2" and memory.trial.track("1d", "prior_1d").rounds == 1


def test_what_was_ruled_and_heard_outlives_the_run(predictable):
    trial.rule(predictable.trial, Standing("prior_5d", 0.1, "uid 1000", "I know better", 5))
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(predictable.trial.kept), type=Kept)
    again = learners.LearnerMemory(2, trial.TrialMemory())
    again.trial.restore(read)
    assert again.trial.kept == predictable.trial.kept
    assert learners.weights(again, DAILY)[1, learners.LEARNERS.index("prior")] == pytest.approx(0.1)
    lived(walk(3, 2, 7), DAILY.model_copy(update={"weights": {}}), again, FIRST + 600)
    trial.lift(predictable.trial, "prior_5d")


# --- the operator's word -----------------------------------------------------------------------------------------


def spoken(memory, name, weight):
    event = ForecasterRuled(0, name, weight, "uid 7", "because")
    universe, params = view().universe, ForecastParameters(learners=RIDGE_TRADES)
    return [(n.event, n.fields) for n in volatility.ruled(memory, event, 9, universe, params)]


@pytest.fixture
def ready():
    memory = volatility.VolatilityMemory(2)
    volatility.observe(memory, view(), ForecastParameters(learners=RIDGE_TRADES))
    memory.trial.drained()
    return memory


def share(memory, name):
    return next(line for line in memory.learners.contenders if line.name == name)


def test_the_operator_promotes_demotes_and_lifts(ready):
    ((event, told),) = spoken(ready, "momentum_5d", 0.3)
    assert event == "forecaster.promoted" and told["who"] == "uid 7" and told["weight"] == 0.3
    assert (share(ready, "momentum_5d").state, share(ready, "momentum_5d").weight) == ("traded", 0.3)
    assert spoken(ready, "ridge_1d", 0.0)[0][0] == "forecaster.demoted"
    assert (share(ready, "ridge_1d").state, share(ready, "ridge_1d").why) == ("demoted", "uid 7: because")
    spoken(ready, "ridge_1d", None)
    assert (share(ready, "ridge_1d").state, share(ready, "ridge_1d").weight) == ("traded", 0.2)


@pytest.mark.parametrize(
    ("name", "weight", "why"),
    [
        ("ridge_2d", 0.1, "there is none"),
        ("zero_1d", 0.1, "there is none"),
        ("momentum_5d", 0.9, "from 0 to 0.8"),
        ("momentum_5d", -0.1, "from 0"),
        ("momentum_5d", float("nan"), "from 0"),
        ("har", 0.5, "promote another"),
        ("har", 0.0, "promote another"),
    ],
)
def test_what_cannot_be_ruled_is_refused_and_changes_nothing(ready, name, weight, why):
    before = ready.trial.kept
    ((event, told),) = spoken(ready, name, weight)
    assert event == "forecaster.refused" and why in told["why"] and ready.trial.kept == before


def test_weights_of_rulings_and_a_later_configuration_are_together_never_more_than_one(ready):
    spoken(ready, "momentum_5d", 0.8)
    heavy = LearnerParameters(every_s=86_400, weights={"ridge_1d": 0.9})
    assert learners.weights(ready.learners, heavy).sum() == pytest.approx(1.0)


def test_under_earned_weights_a_demoted_forecaster_has_none():
    hedge = LearnerParameters(every_s=86_400, combine="hedge")
    memory = lived(walk(40, 2, 8), hedge)
    trial.rule(memory.trial, Standing("ridge_1d", 0.0, "uid 7", "", 1))
    w = learners.weights(memory, hedge)
    assert w[0, learners.LEARNERS.index("ridge")] == 0.0 and w[1, learners.LEARNERS.index("ridge")] > 0.0


# --- models of variance ------------------------------------------------------------------------------------------


def contest(forecasts, came, params=None, memory=None):
    """A trial of models: `forecasts` {name: [T, U]}, each of the day after; `came` [T, U]."""
    memory, rival, params = memory or trial.TrialMemory(), rivals.RivalMemory(), params or ForecastParameters()
    for day in range(len(came)):
        told = {name: column[day] for name, column in forecasts.items()}
        told[trial.CAUTIOUS] = np.maximum(told["har"], told[rivals.SLOW])
        seen = {name: told[name] for name in rivals.tried(memory, params)}
        past = came[day - 1] if day else np.full(came.shape[1], np.nan)
        rivals.observe(rival, memory, (FIRST + day) * NS_PER_DAY, seen, past, 0.01, params)
    return memory


def drawn(days, seed):
    draws = np.random.default_rng(seed)
    true = 1e-3 * np.exp(0.5 * np.sin(np.arange(days) / 9.0))[:, None] * np.ones(2)
    return true, true * draws.chisquare(12, true.shape) / 12.0


def test_a_model_of_variance_that_misses_less_is_proposed_and_promoted_by_the_operator_it_trades():
    true, came = drawn(400, 1)
    memory = contest({"har": np.full_like(true, 1e-3), "ewma": true, rivals.SLOW: np.full_like(true, 1e-3)}, came)
    assert memory.proposed == {"ewma": 1.0}
    most = dict.fromkeys((*rivals.names(ForecastParameters()), trial.CAUTIOUS), 1.0)
    trial.spoken(memory, ForecasterRuled(0, "ewma", 1.0, "uid 7"), 1, most)
    assert rivals.traded(memory, ForecastParameters()) == "ewma"
    trial.spoken(memory, ForecasterRuled(0, "ewma", None, "uid 7"), 2, most)
    assert rivals.traded(memory, ForecastParameters()) == "har"


def test_a_model_that_drifts_gives_way_to_the_larger_of_it_and_the_slow_one():
    true, came = drawn(400, 2)
    har = true.copy()
    har[200:] *= 0.3
    memory = contest({"har": har, "ewma": true, rivals.SLOW: np.full_like(true, 1.1e-3)}, came)
    assert rivals.traded(memory, ForecastParameters()) == trial.CAUTIOUS
    ((_, told),) = [(n.event, n.fields) for n in memory.notes if n.event == "forecaster.demoted"]
    assert told["name"] == "har" and 200 < memory.standings[trial.CAUTIOUS].utc_ns // NS_PER_DAY - FIRST < 260
    lines = {line.name: line for line in rivals.contenders(memory, ForecastParameters())}
    assert lines["har"].state == "demoted" and lines["ewma"].state in ("shadow", "proposed")
    assert lines[trial.CAUTIOUS].state == "traded"


def test_a_model_as_good_as_ever_stays_and_a_day_that_was_not_seen_counts_for_nobody():
    true, came = drawn(700, 3)
    came[::7] = np.nan
    memory = contest({"har": true, "ewma": np.full_like(true, 1e-3), rivals.SLOW: np.full_like(true, 1e-3)}, came)
    assert not memory.notes and memory.track(trial.VARIANCE, "har").rounds == 599


def test_the_daemons_own_forecast_follows_the_ruling_and_is_never_below_either_when_cautious():
    memory, params = volatility.VolatilityMemory(1), ForecastParameters()
    draws = np.random.default_rng(4)
    price = 100.0 * np.exp(np.cumsum(np.append(0.01 * draws.standard_normal(500), 0.001 * draws.standard_normal(200))))
    for k, now in enumerate(price):
        volatility.sample(memory, (k + 1) * 3_600 * NS_PER_S, np.array([now]), params)
    har, slow = (volatility.model_variance(memory, name, params) for name in ("har", rivals.SLOW))
    assert volatility.expected_variance(memory, params) == har and slow > har
    trial.rule(memory.trial, Standing(trial.CAUTIOUS, 1.0, "x", "", 1))
    assert volatility.expected_variance(memory, params) == slow
    trial.rule(memory.trial, Standing("ewma", 1.0, "x", "", 1))
    assert volatility.expected_variance(memory, params) == volatility.daily_variance(memory, params)


# --- trees -------------------------------------------------------------------------------------------------------

TREES = LearnerParameters(every_s=86_400, trees=TreeParameters(enabled=True))
SAYS_A_THIRD = Trees((1,) * 7, (float("inf"),) * 7, (1 / 3,) * 8)


def answer(question, trees=SAYS_A_THIRD, why="", utc_ns=None):
    asked = question.asked_utc_ns if utc_ns is None else utc_ns
    return ModelFitted((FIRST + 300) * NS_PER_DAY, question.name, asked, trees, 400, 0.1, 5.0, why)


def asked(memory, at_ns):
    question = learners.asked(memory, at_ns, at_ns, TREES)
    assert question is not None
    return question


def said_by_trees(memory, h=0):
    horizon = memory.horizons[h]
    return horizon.said[memory.past.slot % (horizon.steps + 1), -1]


def test_trees_are_asked_for_with_what_is_known_and_swapped_whole_when_they_come():
    memory = lived(walk(300, 2, 9), TREES)
    now = (FIRST + 299) * NS_PER_DAY
    question = asked(memory, now)
    assert question.name == "trees_1d" and max(np.frombuffer(question.lessons.known_days, "<f4")) <= FIRST + 299
    assert asked(memory, now).name == "trees_5d"  # one at a time, and each once
    assert learners.asked(memory, now, now, TREES) is None
    assert not said_by_trees(memory).any()
    learners.fitted(memory, answer(question), TREES)
    lived(walk(2, 2, 10), TREES, memory, FIRST + 300)
    assert said_by_trees(memory) == pytest.approx([1 / 3, 1 / 3])
    assert [name for name, _ in noted(memory, "model.swapped")] == ["trees_1d"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"why": "the worker died"}, "the worker died"),
        ({"trees": Trees((1,) * 7, (0.0,) * 7, (np.nan,) * 8)}, "none"),
        ({"trees": Trees((999,) * 7, (0.0,) * 7, (0.0,) * 8)}, "none of"),
        ({"utc_ns": 5}, None),
    ],
)
def test_what_is_no_model_or_no_answer_leaves_the_last_one(wrong, said):
    memory = lived(walk(300, 2, 9), TREES)
    now = (FIRST + 299) * NS_PER_DAY
    question = asked(memory, now)
    learners.fitted(memory, answer(question), TREES)
    memory.trial.drained()
    later = now + 8 * NS_PER_DAY
    again = asked(memory, later)
    assert again.name == "trees_1d"
    learners.fitted(memory, answer(again, **wrong), TREES)
    refused = noted(memory, "model.refused")
    assert (said is None and not refused) or said in refused[0][1]["why"]
    lived(walk(2, 2, 10), TREES, memory, FIRST + 300)
    assert said_by_trees(memory) == pytest.approx([1 / 3, 1 / 3])


def test_without_trees_nothing_is_asked_and_they_are_not_told():
    memory = lived(walk(300, 2, 9))
    now = (FIRST + 299) * NS_PER_DAY
    assert learners.asked(memory, now, now, DAILY) is None and "trees" not in memory.roster


# --- what holds whatever else happens ----------------------------------------------------------------------------

AUTOMATIC = LearnerParameters(every_s=86_400, trial=TrialParameters(promotion="automatic"))
WON = {"ridge_1d": trial.Round(1.0, 0.9, 1.0, 0.9, 1.0, 0.1)}


def won(memory, params, rounds=60):
    """The contender wins its trial."""
    for day in range(rounds):
        trial.hear(memory, "1d", "", WON, {"ridge_1d": 0.2}, 0.05, day, params.trial)


def test_a_trial_never_promotes_what_the_operator_demoted():
    memory = trial.TrialMemory()
    trial.spoken(memory, ForecasterRuled(0, "ridge_1d", 0.0, "uid 7"), 1, {"ridge_1d": 1.0})
    won(memory, AUTOMATIC)
    assert memory.standings["ridge_1d"].weight == 0.0 and memory.proposed == {"ridge_1d": 0.2}


def test_a_trial_replaces_no_model_of_variance_that_the_operator_chose():
    memory, one = trial.TrialMemory(), {"ewma": trial.Round(1.0, 0.9, 1.0, 0.9, 1.0)}
    trial.rule(memory, Standing("har", 1.0, "uid 7", "", 1))
    for day in range(60):
        trial.hear(memory, trial.VARIANCE, "har", one, {"ewma": 1.0}, 0.05, day, AUTOMATIC.trial)
    assert set(memory.standings) == {"har"} and memory.proposed == {"ewma": 1.0}


def test_who_stood_proposed_is_promoted_once_promotion_is_automatic():
    memory = trial.TrialMemory()
    won(memory, DAILY)
    assert memory.proposed and not memory.standings
    won(memory, AUTOMATIC, 1)
    assert memory.standings["ridge_1d"].weight == 0.2 and not memory.proposed


def test_a_proposal_stands_over_a_restart_and_is_not_told_twice():
    memory, again = trial.TrialMemory(), trial.TrialMemory()
    won(memory, DAILY)
    again.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(memory.kept), type=Kept))
    won(again, DAILY, 1)
    assert again.proposed == memory.proposed == {"ridge_1d": 0.2} and not again.notes


def test_who_said_nothing_at_first_is_not_measured_by_its_silence():
    """A hundred days without trees: their zeros are no usual loss, and nobody is heard by them."""
    memory = lived(walk(100, 2, 9), TREES)
    assert memory.trial.track("1d", "trees_1d") == Track("trees_1d")
    assert memory.trial.track("1d", "prior_1d").rounds == 99


def test_a_model_is_judged_by_whole_days_it_did_not_see_begin():
    """A start in the evening, and a clock set back over midnight, judge nobody: most of the day was known."""
    memory, rival, params = trial.TrialMemory(), rivals.RivalMemory(), ForecastParameters()
    said, rounds = dict.fromkeys(("har", "ewma", rivals.SLOW), np.full(2, 1e-3)), []
    for days in (0.98, 1.0, 2.0, 1.9999, 2.0, 3.0):
        at = round((FIRST + days) * NS_PER_DAY)
        if rivals.turned(rival, at):
            rivals.observe(rival, memory, at, said, np.full(2, 2e-3), 0.01, params)
        rounds.append(memory.track(trial.VARIANCE, "har").rounds)
    assert rounds == [0, 0, 1, 1, 1, 2]


def test_models_of_variance_are_told_with_the_days_turn_so_that_the_outcome_is_kept():
    memory, params = volatility.VolatilityMemory(2), ForecastParameters(learners=LearnerParameters(every_s=7_000))
    at = FIRST * NS_PER_DAY - 60 * NS_PER_S
    volatility.observe(memory, view(now_ns=at, utc_ns=at), params)
    at += 61 * NS_PER_S
    volatility.observe(memory, view(now_ns=at, utc_ns=at), params)
    assert memory.learners.told_ns == at


def test_who_is_promoted_again_is_not_demoted_for_what_was_before():
    memory, harm = trial.TrialMemory(), {"x": trial.Round(1.0, 1.0, 0.9, 1.1, 1.0)}
    for day in range(200):
        trial.hear(memory, "1d", "x:0.2", harm, {}, 0.05, day, DAILY.trial)
        if "x" in memory.standings:
            break
    trial.rule(memory, Standing("x", 0.2, "uid 7", "", 300))
    trial.hear(memory, "1d", "x:0.2", harm, {}, 0.05, 301, DAILY.trial)
    assert memory.standings["x"].weight == 0.2
