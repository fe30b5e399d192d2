"""What `status`, `arm` and `reload` say to a person."""

import pytest

from dea_daemon.cli.protections import OF_OPTIONS, PROTECTIONS, unprotected
from dea_daemon.cli.status_text import after_command, change_lines, status_lines
from dea_daemon.domain.parameters import GuardParameters
from dea_daemon.shell.forecaster_text import after_ruling
from tests.shell.status_sample import contender, doubted_surface, forecaster, slow_factor, status, surface


def state(mode: str = "normal", armed: bool = True, **more: object) -> dict[str, object]:
    return dict(mode=mode, armed=armed, mode_why="", unhealthy=[], orders=0) | more


# --- arm --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (state(), "armed, normal: orders are sent"),
        (state("halted", mode_why="drawdown"), "armed, but halted (drawdown): no new orders; `resume` ends that"),
        (state("paused"), "armed, but paused: no new orders; `resume` ends that"),
        (
            state("reduce_only"),
            "armed, but reduce-only: only orders that shrink exposure; `resume` ends that",
        ),
        (state(unhealthy=["no watchdog"]), "armed, but unhealthy: no watchdog"),
    ],
    ids=lambda value: value["mode"] if isinstance(value, dict) else "",
)
def test_arm_says_what_still_holds_it_back(told, says):
    assert after_command(told, "arm") == says


def test_other_commands_answer_with_the_mode_alone():
    assert after_command(state(unhealthy=["no watchdog"]), "normal") == "normal: orders are sent"
    assert after_command(state("halted"), "halt") == "halted: no new orders; none is working"
    assert after_command(state(armed=False), "disarm").startswith("normal, but disarmed")


# --- reload -----------------------------------------------------------------------------------------------------


def change(option: str, loosens: bool) -> dict[str, object]:
    return dict(option=option, before=1.0, after=2.0, loosens=loosens)


LOOSER = {"changed": [change("guards.max_net_usd", True), change("decide_every_ms", False)], "applied": False}


def test_a_dry_run_of_a_looser_limit_says_that_it_would_be_refused_and_for_what():
    *_, last = change_lines(LOOSER, dry_run=True)
    assert last == "without --allow-loosen it would be refused, because of guards.max_net_usd"


def test_a_dry_run_with_consent_or_without_loosening_says_nothing_of_it():
    tighter = {"changed": [change("guards.max_net_usd", False)], "applied": False}
    for lines in (change_lines(LOOSER, True, allow_loosen=True), change_lines(tighter, True)):
        assert "refused" not in " ".join(lines)


# --- status -----------------------------------------------------------------------------------------------------


def told(**more: object) -> list[str]:
    return [" ".join(line.split()) for line in status_lines(status(**more))]


def test_limits_in_parts_of_a_whole_are_percent():
    uses = [
        dict(limit="stress", subject="book", used=0.04, allowed=0.05),
        dict(limit="venue", subject="deribit", used=1_200_000.0, allowed=2e6),
        dict(limit="liquidation", subject="book", used=0.5, allowed=1.0),
        dict(limit="cancel_ratio", subject="hour", used=1.26, allowed=10.0),
    ]
    lines = told(limits=uses)
    for line in ("stress book 4 % 5 % 80%", "venue deribit 1,200,000 2,000,000 60%", "liquidation book 50 % 100 % 50%",
                 "cancel_ratio hour 1.26 10 13%"):  # fmt: skip
        assert line in lines


def test_what_others_closed_is_told_only_where_there_is_any():
    assert "shut 12 contracts closed by the venue" in told(contracts_closed=12)
    assert not [line for line in told() if line.startswith("shut")]


def test_a_surface_has_a_line_with_its_terms_and_whether_it_is_relied_upon():
    lines = told(surfaces=[surface("BTC"), doubted_surface("ETH")])
    assert "BTC 46.2 -3.1 +0.8 99.7% 2 s relied upon" in lines
    assert "ETH ? ? ? ? ? NOT relied upon: none yet" in lines
    assert not [line for line in told(surfaces=[]) if line.startswith("volatility")]


def words(status, part):
    """The lines of a part of the status, blanks counted once."""
    lines = [" ".join(line.split()) for line in status_lines(status)]
    first = next(i for i, line in enumerate(lines) if line.startswith(part))
    return lines[first:]


def test_a_contender_has_a_line_with_its_best_underlying_and_a_model_of_variance_no_gain():
    head, *lines = words(status(), "forecasters")
    assert head == "forecasters state weight rounds p drift gain R² t"
    assert lines[:3] == [
        "momentum_5d traded 0.20 292 0.410 0.12 +0.0031 +0.47% +1.5",
        "ridge_5d shadow 0.00 292 1.000 0.12 -0.0102 -0.12% -0.3",
        "har traded 1.00 292 0.410 0.12 ? ? ?",
    ]


def test_a_demoted_one_says_why_and_one_never_scored_is_a_question_mark():
    told = status(
        contenders=[contender("ridge_1d", state="demoted", why="the trial: its loss has drifted")],
        forecasters=[forecaster("ridge_1d", r_squared=None, t=None)],
    )
    assert words(told, "forecasters")[1].endswith("+0.0031 ? ? the trial: its loss has drifted")


def test_a_slow_factor_has_a_line_with_why_it_says_nothing():
    silent = slow_factor("dgs10", z=0.0, age_days=31.04, valid=False, why="older than 30 days")
    unknown = slow_factor("mine", z=0.0, age_days=None, valid=False, why="too little is known of it")
    lines = words(status(slow_factors=[slow_factor("greed"), silent, unknown]), "slow factors")
    assert lines[:4] == [
        "slow factors z days old",
        "greed +1.25 2.5 valid",
        "dgs10 +0.00 31.0 says nothing: older than 30 days",
        "mine +0.00 ? says nothing: too little is known of it",
    ]


def test_who_has_neither_forecasters_nor_factors_reads_nothing_of_them():
    text = "\n".join(status_lines(status(contenders=[], slow_factors=[])))
    assert "forecasters" not in text and "slow factors" not in text


def test_after_a_ruling_the_new_line_is_told_or_when_it_will_count():
    line = contender("ridge_5d", state="traded", weight=0.2, why="uid 1 (ann): it earned it")
    ruled = dict(name="ridge_5d", weight=0.2, contender=line, heard=True)
    assert after_ruling(ruled) == "ridge_5d: traded, weight 0.2 (uid 1 (ann): it earned it)"
    assert "no target is of kind return" in after_ruling(ruled | {"heard": False})
    assert after_ruling(ruled | {"contender": None}) == "ridge_5d: weight 0.2, from its next forecast on"
    assert "as configured" in after_ruling(dict(name="ridge_5d", weight=None, contender=None))


def test_where_its_files_are_is_told():
    assert "files state in state, configured by /etc/dea.yaml" in told()
    assert "files state in state, configured by no file" in told(config=None)


# --- check ------------------------------------------------------------------------------------------------------

LEAST = dict(
    max_gross_usd=1e6, max_net_usd=1e6, max_instrument_usd=1e6, max_order_usd=1e5, max_turnover_usd_per_hour=1e7,
    max_fees_usd_per_hour=1e3,
)  # fmt: skip


def off(options: bool = False, **limits: float) -> str:
    return unprotected(GuardParameters.model_validate(LEAST | limits).model_dump(), options)


def test_a_configuration_of_the_least_limits_is_told_what_is_off():
    line = off()
    for option in ("max_scenario_loss", "max_daily_loss", "max_underlying_usd", "min_liquidation_distance"):
        assert option in line
    assert "\n" not in line and "vega" not in line and "vega" in off(options=True)


def test_one_option_is_enough_for_each_protection():
    assert "a jump" not in off(max_var=0.05)
    assert "a bad day" not in off(halt_daily_loss=0.1)
    assert off(options=True, **{names[-1]: 0.5 for names in (PROTECTIONS | OF_OPTIONS).values()}) == ""
