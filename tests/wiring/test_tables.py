"""The end of a run as a person reads it."""

import pytest

from dea_daemon.wiring.tables import show

NAN = float("nan")
FINISHED = {
    "decisions": 40, "events": 1_000, "orders_sent": 3, "cancels_sent": 1, "fills": 2, "rejects": 0,
    "unknown_outcomes": 0, "open_orders": 0, "reconciled": True, "limits_breached": 0, "gaps": 0,
    "exposure": {"BTC": {"target_usd": 250_000.0, "actual_usd": 254_953.9, "band_usd": 10_000.0}},
    "equity_usd": 974_822.76, "fees_usd": 9.97, "funding_usd": 0.0, "event_to_order_us": {"p50": 9_879.0, "p99": NAN},
}  # fmt: skip


def told(capsys, **more) -> str:
    show(FINISHED | more)
    return str(capsys.readouterr().out)


def test_a_run_that_ended_well_says_so(capsys):
    text = told(capsys)
    assert "Ended on target" in text
    assert "254,954" in text
    assert "inside" in text


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"open_orders": 2}, "2 orders still open"),
        ({"reconciled": False}, "not reconciled"),
        ({"limits_breached": 3}, "limits breached"),
        ({"exposure": {"BTC": {"target_usd": 0.0, "actual_usd": 11.0, "band_usd": 10.0}}}, "outside its band"),
    ],
)
def test_whatever_is_wrong_at_the_end_is_told_in_the_last_line(capsys, wrong, says):
    last = told(capsys, **wrong).strip().splitlines()[-1]
    assert says in last
    assert "on target" not in last


def test_an_underlying_without_target_is_neither_inside_nor_wrong(capsys):
    text = told(capsys, exposure={"ETH": {"target_usd": NAN, "actual_usd": 5.0, "band_usd": NAN}})
    assert "no target" in text
    assert "Ended on target" in text


def test_options_have_a_table_of_their_own_and_only_where_there_are_any(capsys):
    line = {"gamma_usd_1pct": -5_995.25, "vega_usd_1pt": 160.0, "theta_usd_day": None}
    text = told(capsys, greeks={"BTC": line})
    assert "-5,995.25" in text
    assert "Ended on target" in text
    assert "gamma" not in told(capsys)


def test_a_run_without_a_decision_still_has_a_table(capsys):
    text = told(capsys, exposure={}, equity_usd=None, event_to_order_us={"p50": NAN, "p99": NAN}, reconciled=False)
    assert "nan" not in text.lower()
