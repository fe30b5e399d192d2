"""The plan of wire faults: what strikes, how often, and how it is written."""

from pathlib import Path

import pytest

from dea_daemon.domain.errors import ConfigError
from dea_daemon.simvenue.faults import PAGE_ACTIONS, FaultPlan


def actions(plan: FaultPlan, method: str, count: int) -> list[str]:
    return [fault.action if (fault := plan.on_call(method)) else "" for _ in range(count)]


def test_the_next_calls_are_struck_and_no_more():
    plan = FaultPlan()
    plan.next("private/buy", "hang_after", count=2)
    assert actions(plan, "private/sell", 1) == [""]
    assert actions(plan, "private/buy", 3) == ["hang_after", "hang_after", ""]


def test_a_probability_holds_over_many_calls_and_repeats_by_seed():
    struck = actions(FaultPlan(7, ("private/*=drop_before:0.05",)), "private/buy", 4_000)
    assert 140 <= struck.count("drop_before") <= 260
    assert struck == actions(FaultPlan(7, ("private/*=drop_before:0.05",)), "private/buy", 4_000)
    assert struck != actions(FaultPlan(8, ("private/*=drop_before:0.05",)), "private/buy", 4_000)


def test_slow_carries_its_milliseconds():
    fault = FaultPlan(0, ("public/*=slow:250:1",)).on_call("public/ticker")
    assert fault is not None
    assert (fault.action, fault.ms, fault.probability) == ("slow", 250, 1.0)


def test_call_and_message_faults_do_not_mix():
    plan = FaultPlan(0, ("*=gap", "*=html"))
    assert actions(plan, "public/test", 1) == ["html"]
    assert plan.on_message("book.BTC-PERPETUAL.raw") == "gap"


def test_silence_is_of_one_instrument_or_of_the_account():
    plan = FaultPlan(0, ("ws=silent:BTC-PERPETUAL", "ws=mute_private"))
    heard = ["quote.BTC-PERPETUAL", "quote.BTC-PERPETUAL-X", "user.orders.any.any.raw", "ticker.ETH-PERPETUAL.raw"]
    assert [plan.on_message(channel) for channel in heard] == ["silent", "", "silent", ""]


@pytest.mark.parametrize(
    "spec", ["", "x", "=gap", "x=explode", "x=gap:2", "x=gap:-0.1", "x=gap:often", "x=slow", "x=slow:fast", "x=gap:1:1"]
)
def test_a_wrong_spec_says_what_was_meant(spec):
    with pytest.raises(ConfigError, match="fault"):
        FaultPlan(0, (spec,))


def test_a_page_of_factors_fails_from_then_until_then_and_others_do_not():
    plan = FaultPlan(0, ("factors/fng=hang:30:60", "factors/fred/*=html:10", "private/buy=hang_after"))
    seconds = (0, 29, 30, 89, 90)
    assert [plan.on_page("fng", s * 10**9) for s in seconds] == ["", "", "hang", "hang", ""]
    assert [plan.on_page("fred/series/observations", s * 10**9) for s in (9, 10, 10**6)] == ["", "html", "html"]
    assert plan.on_page("own.csv", 50 * 10**9) == ""
    assert actions(plan, "private/buy", 1) == ["hang_after"] and actions(plan, "fng", 1) == [""]


def test_a_page_fails_from_the_start_and_for_good_where_no_time_is_given_and_the_first_rule_decides():
    plan = FaultPlan(0, ("factors/own.*=gone:0.5:0.5", "factors/*=empty"))
    assert [plan.on_page("own.csv", ns) for ns in (0, 5 * 10**8, 10**9, 10**18)] == ["empty", "gone", "empty", "empty"]


@pytest.mark.parametrize(
    "spec", ["factors/", "factors/=hang", "factors/fng", "factors/fng=hang_after", "factors/fng=hang:soon",
             "factors/fng=hang:-1", "factors/fng=hang:1:0", "factors/fng=hang:1:2:3", "factors/fng=hang:nan",
             "factors/fng=hang:1e400", "factors/FNG=hang", "factors/nosuch=html", "factors/own=html"]
)  # fmt: skip
def test_a_wrong_spec_of_a_page_says_what_was_meant(spec):
    with pytest.raises(ConfigError, match=r"expected factors/PAGE=ACTION\[:AFTER_S\[:FOR_S\]\]"):
        FaultPlan(0, (spec,))


def test_every_way_a_page_fails_is_in_the_manual():
    manual = (Path(__file__).parents[2] / "docs/simvenue.md").read_text()
    section = manual[manual.index("--fault factors/PAGE") :]
    assert [action for action in PAGE_ACTIONS if f"`{action}`" not in section] == []
