"""The log as a person at a terminal sees it."""

import pytest

from dea_daemon.shell import console

START = {"timestamp": "2026-11-21T11:08:44.165123Z", "level": "info", "run_id": "b2bb2b697178"}
BTC = {"actual_usd": 325_001.2, "target_usd": 250_000.0, "band_usd": 10_000.0}
DECISION = START | {
    "event": "decision.made", "seq": 6, "ts": 1, "cause": "timer", "mode": "normal", "armed": True,
    "equity_usd": 1e6, "exposure": {"delta:BTC": BTC}, "tightest": "32% of net delta:BTC", "clips": [],
    "orders": ["create sell 7691 at 65010.0 BTC_USDC-PERPETUAL d003eios00000001: post"],
}  # fmt: skip


def test_a_decision_shows_what_is_held_and_wanted_and_each_order_on_its_own_line():
    first, *rest = console.text(DECISION, colour=False).splitlines()
    assert first.startswith("11:08:44.165  decision.made")
    assert "BTC 325,001 → 250,000 ± 10,000" in first
    assert [line.strip() for line in rest] == DECISION["orders"]


def test_options_add_their_gamma_and_vega_to_the_line():
    greeks = {"gamma:BTC": -1_250.0, "vega:BTC": float("nan"), "theta:BTC": 5.0, "carry:ETH": 2.0}
    first = console.text(DECISION | {"greeks": greeks}, colour=False).splitlines()[0]
    assert "± 10,000  BTC gamma -1,250 vega ?  #6" in first
    assert "ETH" not in first  # carry is no option's


def test_exposure_inside_its_band_is_green_and_outside_it_yellow():
    inside = DECISION | {"exposure": {"delta:BTC": BTC | {"actual_usd": 255_000.0}}}
    assert "\x1b[33m325,001" in console.text(DECISION, colour=True)
    assert "\x1b[32m255,000" in console.text(inside, colour=True)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"mode": "reduce-only"}, "reduce-only"),
        ({"armed": False}, "nothing is sent"),
        ({"clips": ["net delta:BTC: 5 to 3: max_net_usd"]}, "cut     net delta:BTC: 5 to 3"),
        ({"exposure": {"delta:ETH": dict.fromkeys(BTC, float("nan"))}}, "ETH ?, no target"),
    ],
)
def test_a_decision_that_is_bound_says_by_what(more, says):
    assert says not in console.text(DECISION, colour=False)
    assert says in console.text(DECISION | more, colour=False)


def test_a_fill_reads_as_a_sentence():
    fill = START | {
        "event": "order.filled", "client_order_id": "d003eios00000009", "instrument": "ETH_USDC-PERPETUAL",
        "side": "buy", "lots": 6_196, "price": 3000.2, "maker": True, "fee_usd": 0.0, "position_lots": 6_196,
    }  # fmt: skip
    said = console.text(fill, colour=False)
    assert "buy 6,196 lots ETH_USDC-PERPETUAL at 3000.2, position 6,196  maker d003eios00000009" in said


def test_any_other_event_is_told_as_pairs_without_the_run():
    said = console.text(START | {"event": "feed.closed", "feed": "deribit", "why": "no pong"}, colour=False)
    assert said == "11:08:44.165  feed.closed          feed=deribit  why=no pong"


def test_an_event_that_borrows_a_known_name_is_told_as_pairs():
    assert "lots=3" in console.text(START | {"event": "order.filled", "lots": 3}, colour=False)


@pytest.mark.parametrize("words", ["\x1b[2J", "two\nlines", "back\rspace", "\u202ereversed"])
def test_what_a_venue_says_cannot_move_the_cursor(words):
    said = console.text(START | {"event": "feed.message_refused", "excerpt": words}, colour=False)
    assert words not in said
    assert len(said.splitlines()) == 1


def test_a_traceback_follows_its_line():
    said = console.text(START | {"event": "gateway.failed", "exception": "Traceback\n  boom"}, colour=False)
    assert said.splitlines()[1:] == ["Traceback", "  boom"]
