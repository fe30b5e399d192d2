"""The plan of wire faults: what strikes, how often, and how it is written."""

import pytest

from dea_daemon.domain.errors import ConfigError
from dea_daemon.simvenue.faults import FaultPlan


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
