"""A decision told to a person, and found in a ledger of a daemon that runs or was killed."""

import shutil
import sqlite3
import subprocess
import sys

import pytest

from dea_daemon.domain.decisions import (
    Allocation,
    Clip,
    Contender,
    FactorLine,
    Forecaster,
    LimitUse,
    Move,
    OrderLine,
    ShadowPrice,
)
from dea_daemon.domain.errors import LedgerError
from dea_daemon.shell.explain import from_ledger, neighbours, render
from dea_daemon.shell.ledger import Batch, Ledger
from dea_daemon.shell.limit_text import MEANINGS
from tests.shell.ledger_samples import NOW, UNIVERSE, record

BTC = FactorLine("delta:BTC", 65_000.0, 0.6, 260_000.0, 250_000.0, 5_000.0)
SENT = OrderLine("create", "BTC-PERPETUAL", "d1", "sell", 1_000, "65000.5", "post", 10_000.0)
CANCELLED = OrderLine("cancel", "BTC-PERPETUAL", "d0", "", 0, "", "left behind by the touch")


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger.open(tmp_path / "ledger.sqlite")
    opened.next_epoch()
    opened.start_run("first", NOW, "{}")
    yield opened
    opened.close()


def seq_of(path, seq=None, run=None) -> int | None:
    found = from_ledger(path, seq, run)
    return None if found is None else found["seq"]


def kept(ledger, *records):
    """The last record as it comes back."""
    ledger.write(Batch(decisions=list(records)), UNIVERSE, NOW)
    return from_ledger(ledger.path, records[-1].seq)


def told(ledger, **more):
    return render(kept(ledger, record(7, **{"factors": (BTC,), "notes": ()} | more)))


def test_greeks_are_told_apart_and_are_neither_inside_nor_outside_a_band(ledger):
    nan = float("nan")
    inside = FactorLine("delta:BTC", 65_000.0, 0.6, 250_000.0, 250_000.0, 5_000.0)
    greeks = {"gamma:BTC": -5_995.0, "vega:BTC": 160.0, "vega:BTC:7d": 38.4, "theta:BTC": -12.5, "cash:USDC": 7.0}
    more = tuple(FactorLine(name, 65_000.0, nan, usd, nan, nan) for name, usd in greeks.items())
    text = told(ledger, factors=(inside, *more))
    assert "BTC -5,995 160 -12.5 7d 38.4" in [" ".join(line.split()) for line in text.splitlines()]
    assert "every exposure is inside its band" in text
    assert "gamma:BTC" not in text
    assert "options" not in told(ledger, factors=(inside,))


def test_a_decision_tells_what_was_seen_wanted_cut_and_sent(ledger):
    text = told(
        ledger,
        cause="fill",
        clips=(Clip("instrument", "BTC-PERPETUAL", 9_000.0, 4_000.0, "above max_instrument_usd"),),
        uses=(LimitUse("net", "delta:BTC", 260_000.0, 400_000.0), LimitUse("orders", "minute", 3, 120)),
        orders=(CANCELLED, SENT),
        notes=("mode.changed",),
    )
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0].startswith("decision 7, 2026-02-02 02:40:00.000 UTC")
    assert "because an order was filled" in lines and "equity 100,000 USD" in lines
    assert "delta:BTC 65,000.00 60% +0.0% 260,000 250,000 ±5,000 ? 10,000 too high" in lines
    assert "net delta:BTC #############....... 65% 260,000 of 400,000" in lines
    assert "instrument BTC-PERPETUAL: from 9,000 to 4,000: above max_instrument_usd" in lines
    assert "sell BTC-PERPETUAL 1,000 lots at 65000.5 (10,000 USD) d1: post" in lines
    assert "cancel BTC-PERPETUAL d0: left behind by the touch" in lines
    assert lines[-1] == "mode.changed"


SAID = Forecaster("ridge_5d", "BTC", 0.2, 0.1, 7_000, 0.01, 0.08, 0.0023, 0.51, 1.4)
SILENT = Forecaster("prior_1d", "BTC", 0.0, 0.1, 7_000, 0.001, 0.03, 0.001, 0.52, 1.1)
NOTHING = Forecaster("zero_5d", "BTC", 0.8, 0.5, 7_000, 0.0, 0.08, 0.0, float("nan"), float("nan"))


def contender(name: str, state: str, kind: str = "return") -> Contender:
    return Contender(name, kind, state, float(state == "traded"), 0.2, 300, 0.4, 1.0, 0.1, 0.01)


def test_what_forecasters_said_is_told_as_it_entered_the_target_with_who_is_on_trial(ledger):
    found = FactorLine("delta:BTC", 65_000.0, 0.6, 250_000.0, 250_000.0, 5_000.0, annual_return=0.12)
    trial = (contender("ridge_5d", "traded"), contender("prior_1d", "shadow"), contender("har", "traded", "variance"))
    text = told(ledger, factors=(found,), forecasters=(SAID, SILENT, NOTHING), contenders=trial)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "BTC ridge_5d +1.00% 8.00% 0.20 +14.6% traded" in lines  # 0.2 · 1 % in 5 days, 73 times a year
    assert "BTC: +14.6% a year by them; +12.0% with your views, after the cap of max_sharpe" in lines
    assert "shadow prior_1d; variance by har" in lines
    assert "zero_5d" not in text


def test_where_no_forecaster_has_weight_one_line_says_so(ledger):
    text = told(ledger, forecasters=(SILENT, NOTHING), contenders=(contender("prior_1d", "demoted"),))
    assert "forecasters: none has weight, so no target rests on what they say\n  demoted prior_1d\n" in text
    assert "forecasters" not in told(ledger)


def test_a_decision_that_heard_nothing_new_tells_the_last_words_before_it_and_only_those_of_the_last_day(ledger):
    early = record(3, forecasters=(SILENT,))
    hours_later = early.ts_recv_ns + 26 * 3_600 * 10**9
    anew = record(21, forecasters=(SAID,), ts_recv_ns=hours_later)
    kept(ledger, record(2), early, record(4), record(7), record(20, ts_recv_ns=hours_later), anew)
    told = {seq: render(from_ledger(ledger.path, seq) or {}) for seq in (2, 3, 7, 20, 21)}
    assert "none has weight" in told[7] and "last said with decision 3" in told[7]
    assert "forecasters" in told[3] and "last said" not in told[3] + told[21]
    assert "forecasters" not in told[2] + told[20]


def test_an_allocation_tells_what_moves_what_it_costs_how_good_it_is_and_what_binds(ledger):
    moves = (Move("BTC-PERPETUAL", 0, 9_500, 95_000.0, 47.5, -12.25),)
    prices = (ShadowPrice("net", "delta:BTC", 0.0005),)
    found = Allocation("certified", 3e-8, 0.0, 4, 0.02, 47.5, -12.25, prices, moves)
    lines = [" ".join(line.split()) for line in told(ledger, allocation=found).splitlines()]
    assert "allocation, over the horizon: no other book is better by more than 3e-08 USD (4 iterations)" in lines
    assert "BTC-PERPETUAL 0 to 9,500 +95,000 47.50 -12.25" in lines
    assert "in all: costs 47.50 USD, carry and risk better by -12.25, whole lots cost 0.02" in lines
    assert "net delta:BTC binds: a unit more of it would save 0.0005 USD" in lines
    held = told(ledger, allocation=Allocation("held", prices=prices))
    assert "no answer could be relied upon: the book is held as it is" in held
    assert "allocation" not in told(ledger, allocation=Allocation("certified"))


@pytest.mark.parametrize("limit", [name for name in MEANINGS if name not in ("order_size", "order_rate", "collar")])
def test_a_cut_is_explained_in_words_with_the_options_that_set_the_limit(ledger, limit):
    clips = (Clip(limit, "BTC-PERPETUAL", 9.0, 4.0, "cut"), Clip(limit, "ETH-PERPETUAL", 5.0, 0.0, "cut"))
    text = told(ledger, clips=clips)
    cuts = text.partition("cut by limits\n")[2].partition("\n\n")[0].splitlines()
    assert len(cuts) == 3 and cuts[1].strip() == f"{limit} ETH-PERPETUAL: from 5 to 0: cut"
    assert cuts[2].strip() == f"{limit}: {MEANINGS[limit].bounds} (guards.{MEANINGS[limit].options})"
    assert f"limits left nothing to do: {limit}" in text


def test_a_breached_limit_that_holds_all_back_is_named_and_explained(ledger):
    uses = (LimitUse("stress", "book", 9e4, 5e4), LimitUse("turnover", "hour", 2.0, 1.0), LimitUse("var", "book", 1, 9))
    text = told(ledger, clips=(Clip("licence", "X", 5.0, 0.0, "a limit is breached"),), uses=uses)
    assert text.endswith("nothing sent: a limit is breached (beyond: stress book)")
    assert "stress: loss if one of history's worst days came again (guards.max_stress_loss)" in text
    assert "var:" not in text and "turnover:" not in text


def test_used_fractions_are_percent(ledger):
    text = told(ledger, uses=(LimitUse("stress", "book", 0.03, 0.05), LimitUse("stress", "book", 3e4, 5e4)))
    lines = [line.split("60%")[1].strip() for line in text.splitlines() if "stress book" in line]
    assert lines == ["3 % of 5 %", "30,000 of 50,000"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"mode": 3}, "halted"),
        ({"mode": 4}, "paused by the operator"),
        ({"armed": False}, "it only observes"),
        ({"clips": (Clip("licence", "X", 1.0, 0.0, "account not reconciled yet"),)}, "account not reconciled yet"),
        ({"clips": (Clip("gross", "book", 2.0, 1.0, "above max_gross_usd"),)}, "limits left nothing to do"),
        ({"factors": ()}, "there is no target"),
        ({"factors": (FactorLine("delta:BTC", 1.0, 0.6, 9.0, 10.0, 2.0),)}, "every exposure is inside its band"),
        ({}, "delta:BTC outside the band, but orders are working"),
    ],
)
def test_a_decision_that_sent_nothing_says_why(ledger, more, why):
    assert f"nothing sent: {why}" in told(ledger, **more)


def test_what_was_not_known_is_a_question_mark(ledger):
    nan = float("nan")
    text = told(
        ledger, equity_usd=nan, factors=(FactorLine("delta:BTC", nan, nan, nan, nan, nan),),
        uses=(LimitUse("drawdown", "book", nan, 0.5),), clips=(Clip("net", "delta:BTC", nan, 0.0, "unpriced"),),
    )  # fmt: skip
    assert "equity   ? USD" in text and "no target" in text and "not known" in text and "from ? to 0" in text


def test_the_last_decision_and_any_kept_one_are_found_and_one_not_kept_has_neighbours(ledger):
    kept(ledger, record(3), record(8), record(20))
    assert seq_of(ledger.path, None) == 20
    assert seq_of(ledger.path, 8) == 8
    assert from_ledger(ledger.path, 9) is None
    assert neighbours(ledger.path, 9) == (8, 20)
    assert neighbours(ledger.path, 2) == (None, 3) and neighbours(ledger.path, 21) == (20, None)


def test_the_newest_run_is_meant_unless_another_is_named(ledger):
    kept(ledger, record(3))
    ledger.next_epoch()
    ledger.start_run("second", NOW, "{}")
    assert from_ledger(ledger.path, None) is None
    kept(ledger, record(1))
    assert seq_of(ledger.path, None) == 1
    assert seq_of(ledger.path, None, run="first") == 3
    assert from_ledger(ledger.path, None, run="none such") is None


def test_a_killed_daemons_ledger_is_read_with_the_log_it_left(ledger, tmp_path):
    kept(ledger, record(5))
    left = tmp_path / "left"
    left.mkdir()
    for suffix in ("", "-wal"):  # as after a power cut: no shared memory
        shutil.copy(ledger.path.with_name(ledger.path.name + suffix), left / f"ledger.sqlite{suffix}")
    assert seq_of(left / "ledger.sqlite", None) == 5


def test_reading_changes_nothing_and_says_what_cannot_be_read(ledger, tmp_path):
    kept(ledger, record(5))
    with pytest.raises(FileNotFoundError):
        from_ledger(tmp_path / "none.sqlite", None)
    assert not (tmp_path / "none.sqlite").exists()
    (tmp_path / "junk.sqlite").write_bytes(b"x" * 5_000)
    with pytest.raises(LedgerError, match="not a database"):
        from_ledger(tmp_path / "junk.sqlite", None)
    sqlite3.connect(tmp_path / "empty.sqlite").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(LedgerError, match="no such table"):
        from_ledger(tmp_path / "empty.sqlite", None)


def test_it_needs_the_standard_library_alone():
    heavy = "{'numpy', 'msgspec', 'pydantic', 'yaml', 'click', 'structlog'}"
    code = f"import sys, dea_daemon.shell.explain; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
