"""The report: everything it tells is in it, it needs nothing beside it, and it claims no more than its intervals do."""

import json
import re
import sys
from functools import cache

import numpy as np
import pytest

from dea_daemon.domain.errors import DataError
from dea_daemon.research import report_words
from dea_daemon.research.benchmarks import cash, static, static_at_vol
from dea_daemon.research.performance import worst_days
from dea_daemon.research.report import facts, page
from dea_daemon.research.report_charts import BUCKETS, charts, close_up, extremes
from dea_daemon.research.report_words import number, percent, usd
from tests.research.records import by_hand, funding_paid, simulated

COMMAND = "dea-daemon backtest --data history --seed 4"


@cache
def made(bars=24 * 400):
    """(records, facts, page) of a run and its benchmarks."""
    run, funding = simulated(bars), funding_paid(bars)
    records = (run, static_at_vol(run, funding, 0.2), static(run, funding, 1.0), cash(run))
    told = facts(records, command=COMMAND, configuration="annual_vol: 0.2 # <&>", seed=4, paths=200)
    return records, told, page(records, told)


def own(text):
    """The page without plotly's JavaScript."""
    scripts = re.findall(r"<script>.*?</script>", text, flags=re.DOTALL)
    return text.replace(max(scripts, key=len), "")


def drawn(text):
    (charts,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', text, flags=re.DOTALL)
    return json.loads(charts)


def test_the_page_needs_nothing_beside_it():
    _, _, text = made()
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//|/)", own(text))
    assert "@import" not in own(text) and "url(" not in own(text)
    assert "plotly" in text.lower() and len(text) > 1_000_000


def test_years_of_hours_stay_a_page_one_can_send():
    run = simulated(24 * 365 * 6)
    funding = funding_paid(len(run.at_ns))
    records = (run, static(run, funding, 0.3), static(run, funding, 0.3, rebalance_days=None), cash(run))
    text = page(records, facts(records, paths=50))
    assert len(text.encode()) < 8_000_000


def test_every_headline_figure_stands_on_the_page():
    _, told, text = made()
    f = told["figures"]
    for share in (f["annual_return"], f["annual_vol"], f["max_drawdown"]):
        assert percent(share) in own(text)
    assert percent(f["cost_per_year"], 2) in own(text)
    assert percent(f["windows_within_25pct"], 0) in own(text)
    assert f"{number(f['turnover_per_year'], 1)}×" in own(text)


def test_every_table_row_stands_on_the_page():
    _, told, text = made()
    for row in told["figures"]["worst_days"]:
        assert row["date"] in text and row["why"] in text
    for row in told["figures"]["attribution"]["parts"]:
        assert usd(row["usd"], 2) in text
    for row in told["beside"]:
        assert row["name"] in text
    for row in told["figures"]["limits"]:
        assert row["at"] in text


def test_command_and_configuration_are_on_the_page_so_it_can_be_made_again():
    _, told, text = made()
    assert COMMAND in text and "annual_vol: 0.2 # &lt;&amp;&gt;" in text
    assert (told["command"], told["seed"]) == (COMMAND, 4)


def test_every_drawing_has_its_place_and_every_place_its_drawing():
    _, _, text = made()
    places = set(re.findall(r'<div id="([a-z0-9-]+)" role="img"', text))
    assert places == set(drawn(text))
    assert {"equity", "exposure-0", "exposure-1", "close-0", "risk", "parts", "turnover", "cost", "limits"} <= places


def test_every_drawing_with_axes_names_its_unit():
    _, _, text = made()
    for name, chart in drawn(text).items():
        axis = chart["layout"]["xaxis" if name == "parts" else "yaxis"]
        assert re.search(r"%|USD|×|bp", axis["title"]["text"]), name


def test_facts_are_plain_json():
    _, told, _ = made()
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_the_same_records_give_the_same_page():
    records, told, text = made()
    again = facts(records, command=COMMAND, configuration="annual_vol: 0.2 # <&>", seed=4, paths=200)
    assert again == told and page(records, again) == text


def test_thinning_keeps_extremes_and_ends():
    values = np.random.default_rng(1).normal(size=100_000).cumsum()
    values[[777, 55_555]] = 1e4, -1e4
    values[10_000:20_000] = np.nan
    rows = extremes(values)
    assert len(rows) <= 2 * BUCKETS + 2
    assert {0, 777, 55_555, 99_999} <= set(rows.tolist()) and (np.diff(rows) > 0).all()


def test_short_series_are_drawn_whole():
    assert extremes(np.zeros(2 * BUCKETS)).tolist() == list(range(2 * BUCKETS))


def test_the_equity_drawn_reaches_its_highest_and_lowest_value():
    run = simulated(24 * 200)
    (line,) = [t for t in charts([run])["equity"]["traces"] if "yaxis" not in t]
    told = max(y for y in line["y"] if y is not None), min(y for y in line["y"] if y is not None)
    assert told == pytest.approx((run.equity_usd.max(), run.equity_usd.min()), rel=1e-4)


def test_a_book_that_wastes_away_does_not_flatten_the_others():
    run = by_hand(np.linspace(1_000.0, 1_100.0, 500))
    wasted = by_hand(np.geomspace(1_000.0, 1.0, 500))._replace(name="wasted")
    lines = {t["name"]: t for t in charts([run, wasted])["equity"]["traces"] if "yaxis" not in t}
    drawn_usd = [y for y in lines["wasted"]["y"] if y is not None]
    assert 200.0 <= min(drawn_usd) < 210.0
    assert None not in lines["by hand"]["y"]


def test_the_close_up_holds_the_worst_day():
    run = simulated(24 * 200)
    near = close_up(run)
    (worst,) = worst_days(run, 1)
    noon_ns = np.datetime64(worst["date"] + "T12:00", "ns").astype(np.int64)
    assert near.at_ns[0] < noon_ns < near.at_ns[-1]
    assert 24 * 28 <= len(near.at_ns) <= 24 * 30 + 1


def test_monthly_costs_add_up_to_all_of_them():
    run = simulated(24 * 100)
    steady = run._replace(equity_usd=np.full(len(run.at_ns), 1e5))
    bars = charts([steady])["cost"]["traces"]
    assert sum(bars[0]["y"]) == pytest.approx(1e4 * run.fees_usd[-1] / 1e5, rel=1e-3)
    assert [x[:7] for x in bars[0]["x"]] == ["2020-01", "2020-02", "2020-03", "2020-04"]


def test_names_cannot_break_the_page():
    run = simulated(24 * 40)._replace(name="</script><b>", notes=("<i>note</i>",), limits=("<u>", "b", "c", "d"))
    told = facts([run], paths=20)
    text = own(page([run], told))
    assert "</script><b>" not in text and "<i>note" not in text and "<u>" not in text
    assert "&lt;i&gt;note&lt;/i&gt;" in text
    assert drawn(page([run], told))["equity"]["traces"][0]["name"] == "</script><b>"


def test_notes_stand_before_the_numbers():
    run = simulated(24 * 400)._replace(notes=("Funding of ETH is missing in May: taken as none.",))
    text = page([run], facts([run], paths=20))
    assert text.index("taken as none") < text.index('id="tiles"')


def test_a_ruined_run_still_makes_a_page_that_says_so_first():
    run = simulated(24 * 100)
    worse = run.equity_usd.copy()
    worse[2_000:] = -1.0
    records = [run._replace(equity_usd=worse), cash(run)]
    text = own(page(records, facts(records, paths=20)))
    assert "The account was ruined at 2020-03-24 09:00" in text
    assert max(drawn(text)["exposure-0"]["traces"][-1]["x"]) == "2020-03-24 09:00"


def test_a_handful_of_decisions_without_targets_or_limits_makes_a_page():
    run = by_hand([100.0, 101.0, 99.0])
    text = own(page([run], facts([run])))
    assert "too short to annualise" in text and "nan" not in text.lower().replace("finance", "")


def test_a_run_that_never_traded_makes_a_page():
    run = by_hand(np.full(24 * 60, 100.0), target_vol=0.2)
    assert "Sharpe" in own(page([run], facts([run], paths=20)))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.2, 0.4, "could be chance"), (0.1, 0.4, "more than chance explains"), (-0.4, -0.1, "more than chance")],
)
def test_the_verdict_says_chance_wherever_the_interval_spans_zero(low, high, said):
    _, told, _ = made()
    beside = json.loads(json.dumps(told["beside"]))
    beside[1]["sharpe_gap"] |= {"low": low, "high": high, "estimate": (low + high) / 2}
    assert said in report_words.summary(told | {"beside": beside})[-1]


def test_limits_overstepped_are_said_at_the_top():
    run = simulated(24 * 400)
    used = run.used.copy()
    used[100, 3] = 1.01
    assert report_words.warnings(facts([run._replace(used=used)], paths=20)["figures"]) == [
        "Used above 100 % at some time: margin."
    ]


def test_without_plotly_it_says_what_to_install(monkeypatch):
    records, told, _ = made()
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(DataError, match="pip install plotly"):
        page(records, told)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (percent(-0.0266, 2, sign=True), "−2.66 %"),
        (percent(None), "–"),
        (percent(-1e-9, sign=True), "+0.0 %"),
        (usd(-1234.5, 2), "−$1,234.50"),
        (number(0.5), "0.50"),
    ],
)
def test_numbers_read_as_people_write_them(text, meant):
    assert text == meant
