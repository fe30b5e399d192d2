"""`dea-daemon simulate`: faults by name, what was met, and the smallest history that breaks a promise again."""

import json
import shlex
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from dea_daemon import engine
from dea_daemon.cli import cli
from dea_daemon.domain.commands import Approved
from dea_daemon.domain.decisions import Decision
from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.events import AnyEvent, CreateUnknown
from dea_daemon.domain.parameters import Parameters
from dea_daemon.engine import State
from dea_daemon.wiring.simulate import aims, coverage
from dea_daemon.wiring.simulate.faults import BY_NAME, ELSEWHERE, FAULTS, Each, Faults, chosen
from dea_daemon.wiring.simulate.run import ALONE_STORM, Outcome, Plan, Shrinker, aimed, drawn, live

ALL = tuple(BY_NAME)
SHORT = ("--hours", "0.003", "--jobs", "1")  # ten seconds


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", *arguments])


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


# --- the command ----------------------------------------------------------------------------------------------


def test_a_seed_that_keeps_its_promises_ends_with_what_was_tried():
    result = call("--seeds", "3:5", "--storm", "2", "--no-options", "--json", *SHORT)
    assert result.exit_code == 0, result.output
    covered, finished = lines(result)
    assert covered["event"] == "simulate.covered"
    assert covered["pairs"].keys() == BY_NAME.keys()
    assert finished["event"] == "simulate.finished"
    wanted = ("seeds", "steps", "faults_injected", "violations", "orders", "fills", "pairs_covered", "pairs_total",
              "seconds")  # fmt: skip
    assert {key: finished[key] for key in ("seeds", "violations")} == {"seeds": 2, "violations": 0}
    assert all(finished[key] > 0 for key in wanted if key != "violations")
    assert finished["pairs_covered"] <= finished["pairs_total"] == len(coverage.possible(ALL))


def test_as_text_there_is_a_table_and_the_same_last_line():
    result = call("--seeds", "3", "--faults", "create-lost,hand-trade", "--storm", "2", "--no-options", *SHORT)
    assert result.exit_code == 0, result.output
    told = result.stdout.splitlines()
    assert told[-1].startswith("simulate.finished seeds=1 ")
    assert [line for line in told if "create-lost" in line]
    assert not [line for line in told if "crash" in line]


def test_only_the_faults_named_strike():
    outcome = live(Plan(4, ("cancel-lost", "hand-trade"), 20.0, 4.0, False))
    assert outcome.struck
    assert set(outcome.struck) <= {"cancel-lost", "hand-trade"}


@pytest.mark.parametrize("names", ["no-such-thing", "crash,crush", ""])
def test_an_unknown_fault_is_refused_with_all_there_are(names):
    result = call("--seeds", "1", "--faults", names, *SHORT)
    assert result.exit_code == 64
    assert "create-lost" in result.output and "reload" in result.output


@pytest.mark.parametrize("seeds", ["5:5", "x", "-1:3", "3:"])
def test_seeds_that_are_none_are_refused(seeds):
    assert call("--seeds", seeds, *SHORT).exit_code == 64


def test_any_number_of_processes_tells_the_same():
    told = [call("--seeds", "1:3", "--no-options", "--json", "--hours", "0.001", "--jobs", jobs) for jobs in ("1", "2")]
    ends = [lines(result) for result in told]
    for end in ends:
        end[-1].pop("seconds")
    assert ends[0] == ends[1]


# --- faults that are aimed ------------------------------------------------------------------------------------


def test_an_aimed_fault_strikes_nothing_but_its_state():
    names = ("create-late", "create-unanswered", "hand-trade@pending", "private-cut@unknown")
    outcome = live(Plan(4, names, 20.0, 4.0, False))
    assert not outcome.why, outcome.why
    assert outcome.struck["hand-trade"] and outcome.struck["private-cut"]
    assert outcome.met["hand-trade", "pending"] >= outcome.struck["hand-trade"]
    assert outcome.met["private-cut", "unknown"] >= outcome.struck["private-cut"]


def test_a_state_of_milliseconds_is_met_by_what_befalls_the_world():
    """No answer is late: an order is pending for six of them."""
    outcome = live(Plan(4, ("crash@pending",), 20.0, 1.0, False))
    assert outcome.met["crash", "pending"] >= 1


def test_pairs_are_aimed_at_until_each_was_met_so_often(monkeypatch):
    monkeypatch.setattr(aims, "ROUND", 2)
    result = call(
        "--seeds", "1", "--faults", "create-lost,hand-trade", "--pairs", "1", "--no-options", "--json", *SHORT
    )
    assert result.exit_code == 0, result.output
    covered, finished = lines(result)
    assert finished["pairs_least"] >= 1
    assert finished["pairs_covered"] == finished["pairs_total"] > 7
    assert finished["seeds"] > 1
    assert all(n is None or n >= 1 for row in covered["pairs"].values() for n in row.values())


def test_what_is_never_met_is_given_up_and_fails(monkeypatch):
    monkeypatch.setattr(aims, "ROUND", 1)
    monkeypatch.setattr("dea_daemon.wiring.simulate.run.IDLE_ROUNDS", 2)
    monkeypatch.setitem(coverage.IMPOSSIBLE, Each.CREATE, {})  # an order is sent pending: the other states never come
    result = call(
        "--seeds", "1", "--faults", "create-lost", "--pairs", "1", "--json", "--hours", "0.001", "--jobs", "1"
    )
    assert result.exit_code == 1
    finished = lines(result)[-1]
    assert (finished["violations"], finished["pairs_least"]) == (0, 0)


def test_an_aimed_history_is_lived_again_from_its_command():
    (plan, *_) = aimed(50, {"private-cut": ["unknown", "filled"], "crash": ["pending"]}, 8.0, False)
    assert {"private-cut@unknown", "private-cut@filled", "crash@pending"} <= set(plan.faults)
    told = [live(plan)]
    words = plan.command().split()
    names = chosen(words[words.index("--faults") + 1])
    told.append(live(Plan(50, names, 8.0, plan.storm, False)))
    assert told[0].steps == told[1].steps and told[0].met == told[1].met


def test_what_is_lacking_is_aimed_at_in_turn():
    lacks = {name: ["open"] for name in list(BY_NAME)[20:30]}
    plans = aims.next_round(3, lacks)
    for name in lacks:
        assert sum(f"{name}@open" in plan for plan in plans) >= aims.ROUND // 2


# --- a daemon that breaks its promises ------------------------------------------------------------------------


@pytest.fixture
def careless(monkeypatch):
    """A daemon that takes a timeout for a failure, and sends the order again."""
    sent: dict[str, Approved] = {}

    def step(state: State, event: AnyEvent, params: Parameters) -> Decision:
        decision = engine.step(state, event, params)
        sent.update({c.order.client_order_id: c for c in decision.commands if isinstance(c, Approved)})
        if not isinstance(event, CreateUnknown) or event.client_order_id not in sent:
            return decision
        again = (*decision.commands, sent[event.client_order_id])
        return msgspec.structs.replace(decision, commands=again)

    monkeypatch.setattr("dea_daemon.wiring.simulate.world.step", step)


@pytest.mark.usefixtures("careless")
def test_a_broken_promise_is_told_with_a_command_that_breaks_it_again():
    faults = "create-unanswered,create-garbled,hand-trade,mark-garbage,flood"
    result = call("--seeds", "0:2", "--faults", faults, "--storm", "6", "--no-options", "--json", *SHORT)
    assert result.exit_code == 1, result.output
    violated = [line for line in lines(result) if line["event"] == "simulate.violated"]
    assert violated
    assert lines(result)[-1]["violations"] == len(violated)
    for key in ("replay", "shrunk"):
        again = call(*shlex.split(str(violated[0][key]))[2:], "--jobs", "1", "--json")
        assert again.exit_code == 1, violated[0][key]
        (told,) = (line for line in lines(again) if line["event"] == "simulate.violated")
        if key == "replay":
            assert (told["why"], told["at_s"]) == (violated[0]["why"], violated[0]["at_s"])


@pytest.mark.usefixtures("careless")
def test_the_smaller_history_has_fewer_faults_and_is_no_longer():
    broken = live(Plan(5, ALL, 10.0, 3.0, False))
    assert broken.why
    smaller = Shrinker(broken).run()
    assert smaller.why
    assert len(smaller.plan.faults) < 5
    assert {name for name in smaller.plan.faults if BY_NAME[name].each is Each.CREATE}
    assert smaller.plan.seconds < broken.plan.seconds


def test_a_core_that_falls_over_is_a_violation_too(monkeypatch):
    def fall(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("dea_daemon.wiring.simulate.world.step", fall)
    outcome = live(Plan(1, ALL, 5.0, 1.0, False))
    assert "ZeroDivisionError: planted" in outcome.why


# --- plans and faults -----------------------------------------------------------------------------------------


def test_seeds_differ_in_storm_options_and_whether_a_fault_comes_alone():
    plans = [drawn(seed, ALL, 45.0, None, None) for seed in range(200)]
    alone = {plan.faults for plan in plans if len(plan.faults) == 1}
    assert len(alone) > 20
    assert {plan.storm for plan in plans} == {0.5, 1.0, 2.0, 4.0, ALONE_STORM}
    assert {plan.options for plan in plans} == {True, False}


def test_a_plan_asked_for_is_not_drawn():
    assert drawn(1, ALL, 45.0, 3.0, True) == Plan(1, ALL, 45.0, 3.0, True)


def test_a_plan_writes_itself_down_to_the_last_bit():
    command = shlex.split(Plan(7, ("crash", "flood"), 12.3, 0.7, True).command())
    assert command[:2] == ["dea-daemon", "simulate"]
    assert 3_600.0 * float(command[command.index("--hours") + 1]) == 12.3
    assert command[-1] == "--options"


def test_a_fault_left_out_changes_nothing_of_what_another_draws():
    draws = [
        [faults.strikes("create-lost") for _ in range(200)]
        for faults in (Faults(3, ALL, 1.0), Faults(3, ("create-lost",), 1.0))
    ]
    assert draws[0] == draws[1]
    assert any(draws[0])


def test_the_table_has_every_number_of_the_fault_list_here_or_elsewhere_with_a_reason():
    numbers = {fault.number for fault in FAULTS}
    assert not numbers & ELSEWHERE.keys()
    assert numbers | ELSEWHERE.keys() == set(range(1, 51))
    assert all(fault.what for fault in FAULTS) and all(ELSEWHERE.values())


def test_names_are_taken_in_the_order_of_the_table():
    assert chosen("flood, crash") == ("crash", "flood")
    assert chosen("all") == ALL
    assert chosen("crash@open,crash,crash@filled") == ("crash", "crash@filled", "crash@open")
    for wrong in ("crush", "crush@open", "crash@shut", "crash@"):
        with pytest.raises(ConfigError, match=wrong):
            chosen(wrong)


def test_what_cannot_be_met_has_a_reason_and_is_not_counted():
    pairs = coverage.possible(["create-lost"])
    assert pairs == [("create-lost", "pending")]
    told = "\n".join(coverage.table({("create-lost", "pending"): 3}, ["create-lost"]))
    assert "an order is sent once, pending" in told


def test_nothing_that_cannot_be_is_ever_met():
    """Guards the table of reasons."""
    met: dict[coverage.Pair, int] = {}
    for seed in (11, 12):
        outcome: Outcome = live(Plan(seed, ALL, 30.0, 4.0, False))
        assert not outcome.why, outcome.why
        met |= outcome.met
    assert met.keys() <= set(coverage.possible(ALL))
