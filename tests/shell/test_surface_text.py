"""The live volatility surfaces, told: as data beside the quotes of now, and in text."""

import json
import time
from typing import Any

import msgspec
import numpy as np
import pytest

from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.pricing.surface.surface import YEAR_NS
from dea_daemon.shell.plain import plain
from dea_daemon.shell.surface_figures import lines, surfaces
from dea_daemon.shell.surface_text import table
from tests.house import Run
from tests.shell.status_sample import doubted_surface, surface
from tests.shell.surface_samples import DAYS, HALF, KNOWN, QUALITY, SurfaceDesk, expiry_ns


def answered(**sections: Any) -> SurfaceDesk:
    """Surfaces of both underlyings were asked for, answered with the truth, and judged."""
    desk = SurfaceDesk(**sections)
    desk.settle()
    desk.decide()
    assert desk.answer() == ["BTC", "ETH"]
    desk.decide()
    return desk


@pytest.fixture(scope="module")
def desk():
    return answered()


def told_of(desk: Run) -> dict[str, Any]:
    """As it goes through the control socket."""
    found = msgspec.json.encode(surfaces(desk.state.market, desk.state.view, desk.now_ns), enc_hook=plain)
    told: dict[str, Any] = msgspec.json.decode(found)
    return told


def text(told: dict[str, Any]) -> list[str]:
    return [" ".join(line.split()) for line in table(told, "here", on_terminal=False).split("\n")]


# --- data -----------------------------------------------------------------------------------------------------------


def test_each_smile_is_the_one_that_was_fitted(desk):
    told = {line["underlying"]: line for line in told_of(desk)["surfaces"]}
    assert list(told) == ["BTC", "ETH"]
    for name, line in told.items():
        assert [round(smile["days"]) for smile in line["smiles"]] == list(DAYS)
        for smile in line["smiles"]:
            tau = (smile["expiry_ns"] - desk.now_ns) / YEAR_NS
            k = np.array(smile["k"])
            assert np.allclose(smile["iv"], KNOWN[name].iv(k, tau), atol=5e-4)
            assert np.allclose(smile["strike"], desk.prices[name] * np.exp(k), rtol=1e-5)
            assert smile["atm"] == pytest.approx(float(KNOWN[name].iv(np.zeros(1), tau)[0]), abs=1e-3)


def test_the_terms_are_those_at_25_delta(desk):
    """The strikes found anew, by bisection of Black's delta on the truth."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    smile = told_of(desk)["surfaces"][0]["smiles"][2]
    tau = (smile["expiry_ns"] - desk.now_ns) / YEAR_NS

    def iv(k: float) -> float:
        return float(KNOWN["BTC"].iv(np.array([k]), tau)[0])

    def d1(k: float) -> float:
        sd = iv(k) * float(np.sqrt(tau))
        return -k / sd + 0.5 * sd

    call = iv(brentq(lambda k: norm.cdf(d1(k)) - 0.25, 0.0, 1.0))
    put = iv(brentq(lambda k: norm.cdf(d1(k)) - 0.75, -1.0, 0.0))
    assert smile["risk_reversal"] == pytest.approx(call - put, abs=1e-3)
    assert smile["butterfly"] == pytest.approx((call + put) / 2 - iv(0.0), abs=1e-3)


def test_beside_it_stand_bid_and_ask_in_volatility_of_the_options_out_of_the_money(desk):
    for line in told_of(desk)["surfaces"]:
        for smile in line["smiles"]:
            quoted = smile["quoted"]
            strikes = sorted(
                {c.strike for c in desk.chains if c.expiry_ns == smile["expiry_ns"]} & set(quoted["strike"])
            )
            assert quoted["strike"] == strikes and len(strikes) == 13
            tau = (smile["expiry_ns"] - desk.now_ns) / YEAR_NS
            truth = KNOWN[line["underlying"]].iv(np.array(quoted["k"]), tau)
            assert np.allclose(quoted["bid_iv"], truth - HALF, atol=1e-4)
            assert np.allclose(quoted["ask_iv"], truth + HALF, atol=1e-4)


def test_a_side_nobody_quotes_is_null_and_an_option_nobody_quotes_is_not_there():
    desk = answered()
    market, universe = desk.state.market, desk.state.market.universe
    rows = np.flatnonzero(universe.option & (universe.expiry_ns == expiry_ns(40)) & ~universe.call)
    rows = rows[universe.underlying[rows] == 0][np.argsort(universe.strike[rows[universe.underlying[rows] == 0]])]
    market.bid[rows[0]] = 0.0
    market.bid[rows[1]] = market.ask[rows[1]] = np.nan
    desk.tick()
    quoted = told_of(desk)["surfaces"][0]["smiles"][2]["quoted"]
    assert quoted["bid_iv"][0] is None and quoted["ask_iv"][0] is not None
    assert len(quoted["strike"]) == 12 and universe.strike[rows[1]] not in quoted["strike"]


@pytest.mark.parametrize(("dynamics", "moved"), [("black", 1.0), ("sticky_moneyness", 1.02)])
def test_between_fits_the_curve_moves_as_options_are_valued(dynamics, moved):
    desk = answered(pricing={"smile_delta": dynamics})
    before = told_of(desk)["surfaces"][0]["smiles"][1]
    desk.prices = {name: 1.02 * price for name, price in desk.prices.items()}
    desk.decide()
    after = told_of(desk)["surfaces"][0]["smiles"][1]
    assert after["forward_now"] == pytest.approx(1.02 * before["forward_now"])
    assert after["forward"] == before["forward"] and after["iv"] == before["iv"]
    assert np.allclose(after["strike"], moved * np.array(before["strike"]))


def test_how_good_and_how_old_it_is_is_told(desk):
    line = told_of(desk)["surfaces"][0]
    assert (line["relied"], line["why"]) == (True, "")
    assert (line["quotes"], line["dropped"], line["inside"]) == (QUALITY.quotes, QUALITY.dropped, QUALITY.inside)
    later = surfaces(desk.state.market, desk.state.view, desk.now_ns + 5 * NS_PER_S)["surfaces"][0]
    assert later["age_s"] == pytest.approx(line["age_s"] + 5.0)
    assert [tenor["days"] for tenor in line["tenors"]] == [7, 30, 90]
    assert line["atm"] == line["tenors"][1]["atm"]


def test_an_expiry_that_is_over_is_no_longer_shown(desk):
    at = expiry_ns(DAYS[0])
    assert [len(line["smiles"]) for line in surfaces(desk.state.market, None, at)["surfaces"]] == [3, 3]


def test_a_status_line_has_the_keys_that_the_samples_have(desk):
    found = lines(desk.state.market, desk.now_ns)
    assert [line.keys() for line in found] == [surface("BTC").keys()] * 2 == [doubted_surface("BTC").keys()] * 2
    before = SurfaceDesk()
    before.settle()
    (line, _) = lines(before.state.market, before.now_ns)
    assert (line["relied"], line["why"], line["age_s"]) == (False, "none yet", None)


def test_a_status_has_a_line_for_each_underlying_whose_options_are_followed():
    desk = SurfaceDesk(("ETH",))
    desk.settle()
    assert [line["underlying"] for line in lines(desk.state.market, desk.now_ns)] == ["ETH"]
    assert lines(Run().settle().state.market, desk.now_ns) == []


def test_who_switched_surfaces_off_is_told_so_and_has_no_lines():
    desk = SurfaceDesk(pricing={"surface": {"enabled": False}})
    desk.settle()
    desk.decide()
    assert lines(desk.state.market, desk.now_ns) == []
    assert text(told_of(desk))[1:] == ["no surface: switched off: pricing.surface.enabled"]


def test_a_chain_of_200_options_is_told_of_in_a_few_milliseconds(desk):
    """The best of ten: the machine's other work is not ours."""
    took_s = []
    for _ in range(10):
        before_s = time.perf_counter()
        surfaces(desk.state.market, desk.state.view, desk.now_ns)
        took_s.append(time.perf_counter() - before_s)
    assert len(desk.chains) > 200 and min(took_s) < 0.010


# --- text -----------------------------------------------------------------------------------------------------------


def test_a_person_reads_whether_it_is_relied_upon_and_every_expiry(desk):
    told = text(told_of(desk))
    assert told[0].startswith("here, 2026-09-21 ")
    btc = told[told.index("BTC relied upon, asked for 0.1 s ago") :]
    assert btc[1].startswith("4 expiries, 1 of sparse quotes, 52 quotes (1 dropped), 98.1 % inside bid and ask")
    assert any("30 d │ 46.9 % │ -6.8 │ +2.3" in line for line in btc)
    (near,) = (line for line in btc if "24SEP26" in line and "80,000.0" in line)
    assert near.endswith("│ few quotes │")


def test_a_doubted_surface_says_why_and_what_follows():
    told = {"utc_ns": 0, "why": "", "refused": 2, "surfaces": [
        surface("BTC", relied=False, why="stale: 412 s", age_s=412.0) | dict(tenors=[], smiles=[]),
        doubted_surface("ETH") | dict(tenors=[], smiles=[]),
    ]}  # fmt: skip
    said = text(told)
    assert "BTC NOT relied upon (stale: 412 s), asked for 0:06:52 ago: no new vega risk" in said
    assert "ETH NOT relied upon (none yet): no new vega risk" in said
    assert said[-1] == "2 fits were not published in this run"


def test_who_follows_no_options_is_told_so():
    told = told_of(Run().settle())
    assert told["surfaces"] == []
    assert text(told)[1:] == ["no surface: no options are followed"]


def test_a_reason_from_elsewhere_cannot_move_the_cursor():
    why = "not published: \x1b[2J"
    told = {
        "utc_ns": 0,
        "why": "",
        "refused": 0,
        "surfaces": [doubted_surface("BTC", why) | dict(tenors=[], smiles=[])],
    }
    assert "\x1b" not in table(told, "here\x1b[2J", on_terminal=False)


# --- the command ----------------------------------------------------------------------------------------------------


class Daemon:
    """A control socket's other end."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told

    def get(self, place: object, path: str) -> dict[str, Any]:
        assert path == "/surface"
        return json.loads(json.dumps(self.told))  # type: ignore[no-any-return]


def shown(monkeypatch, capsys, told, **options: Any) -> str:
    from dea_daemon.cli import surface_live
    from dea_daemon.shell import control_client

    monkeypatch.setattr(control_client, "get", Daemon(told).get)
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/none")
    assert surface_live.run(None, None, **({"json_lines": False, "underlying": None} | options)) == 0
    return str(capsys.readouterr().out)


def test_the_command_shows_all_or_one_underlying_as_text_or_json(desk, monkeypatch, capsys):
    told = told_of(desk)
    both = shown(monkeypatch, capsys, told)
    assert "\nBTC" in both and "\nETH" in both
    one = shown(monkeypatch, capsys, told, underlying="eth")
    assert "\nBTC" not in one and "\nETH" in one
    assert json.loads(shown(monkeypatch, capsys, told, json_lines=True)) == told


def test_an_underlying_without_options_is_refused_with_those_there_are(desk, monkeypatch, capsys):
    import click

    with pytest.raises(click.UsageError, match="no options on 'SOL' are followed; there are BTC, ETH"):
        shown(monkeypatch, capsys, told_of(desk), underlying="SOL")
