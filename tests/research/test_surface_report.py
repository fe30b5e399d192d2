"""The report of surfaces: its pages need nothing but each other, tell what was found, and no drawing is empty."""

import re
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from dea_daemon.domain.surfaces import Rung
from dea_daemon.pricing.surface.quotes import prepare
from dea_daemon.research import svg
from dea_daemon.research.chains import studied, told
from dea_daemon.research.surface_report import RUNGS, index, page
from tests.research.recorded_chains import DAY_NS, HALF, IV, UTC_NS, chain, flat


def study(iv=IV, gone=0, why="", **more):
    of = chain(**more)
    fitted = flat(of, iv, gone, why)
    return studied(prepare(of), np.full(len(of.strike), IV), fitted, fitted, fit_ms=12.0)


def drawings(text):
    return [
        ElementTree.fromstring(found)  # noqa: S314 our own
        for found in re.findall(r"<svg class=\"plot\".*?</svg>(?=</div>|<svg class|<div|</article>)", text)
    ]


def labelled(text, label):
    return [one for one in drawings(text) if one.get("aria-label") == label]


def classes(drawing):
    return {part.get("class"): part for part in drawing.iter() if part.get("class")}


@pytest.fixture(scope="module")
def surfaces():
    return [told(study(underlying=name, utc_ns=UTC_NS + n * DAY_NS)) for n in range(3) for name in ("BTC", "ETH")]


# --- one surface ------------------------------------------------------------------------------------------------


def test_a_page_needs_nothing_beside_it_and_is_small():
    text = page(study(days=(2, 7, 14, 30, 60, 90, 180, 360), count=60))
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//|/)", text)
    assert "@import" not in text and "url(" not in text
    assert len(text.encode()) < 400_000


def test_every_expiry_has_its_smile_and_no_drawing_is_empty():
    text = page(study())
    assert len(labelled(text, "smile")) == 3
    for label in ("term structure", "residuals", "local volatility", "g", "(w₂ − w₁) / w₂"):
        (one,) = labelled(text, label)
        drawn = [part for part in one.iter() if part.tag in ("path", "rect", "circle") and part.get("class") != "grid"]
        assert len(drawn) >= 2, label


def test_no_number_drawn_is_none():
    for text in (page(study()), page(study(why="refused")), page(study(days=(30,), count=1))):
        assert not re.search(r"\b(nan|inf)\b", text)


def test_quotes_are_drawn_by_whether_the_surface_meets_them():
    met, missed = (labelled(page(study(iv)), "smile")[0] for iv in (IV, IV + 3 * HALF))
    assert "bar" in classes(met) and "out" not in classes(met)
    assert "out" in classes(missed) and "bar" not in classes(missed)
    assert "9 of 9 inside" in ElementTree.tostring(met, "unicode") and "0 of 9 inside" in ElementTree.tostring(
        missed, "unicode"
    )


def test_a_quote_that_was_dropped_is_crossed():
    one = labelled(page(study(gone=1)), "smile")[0]
    assert "l8 8" in classes(one)["gone"].get("d", "")
    assert "8 of 9 inside, 1 dropped" in ElementTree.tostring(one, "unicode")


def test_a_bar_reaches_from_bid_to_ask():
    found = study(days=(30,))
    one = labelled(page(found), "smile")[0]
    bars = re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", classes(one)["bar"].get("d", ""))
    curve = re.findall(r"[ML]([\d.]+) ([\d.]+)", classes(one)["c0"].get("d", ""))
    level = float(curve[0][1])
    assert len(bars) == 9
    for _, low, high in bars:
        assert float(low) - level == pytest.approx(level - float(high), abs=0.6)


def test_what_was_not_published_says_why_in_words_that_cannot_be_markup():
    text = page(study(why="g < 0 in <b>30 days</b>"))
    assert "Not published: g &lt; 0 in &lt;b&gt;30 days&lt;/b&gt;" in text
    assert not labelled(text, "term structure") and len(labelled(text, "smile")) == 3


def test_an_arbitrage_is_told():
    assert "<b>none</b>" in page(study())
    assert "<b>found</b>" in page(study({7: 0.6, 30: 0.6, 90: 0.2}))


def test_a_page_leads_to_its_neighbours_and_to_all():
    text = page(study(), "a.html", "b.html")
    assert re.findall(r'href="([^"]+html)"', text) == ["../index.html", "a.html", "b.html"]
    assert 'href=""' not in page(study())


def test_an_expiry_nobody_quotes_is_shown_as_such():
    found = study(days=(30, 90))
    bare = [q.keep(np.zeros(0, dtype=np.int64)) if n else q for n, q in enumerate(found.quotes)]
    none = msgspec.structs.replace(found, quotes=tuple(bare), dropped=(found.dropped[0], np.zeros(0, dtype=bool)))
    text = page(none)
    assert "nobody quotes it" in text and len(labelled(text, "smile")) == 2


def test_every_rung_has_its_words():
    assert set(RUNGS) == set(Rung)


# --- all of them ------------------------------------------------------------------------------------------------


def test_the_index_leads_to_every_surface_and_has_every_row_of_the_summary(surfaces):
    text = index(surfaces)
    pages = set(re.findall(r'href="surfaces/([^"]+)"', text))
    assert pages == {each.line["page"] for each in surfaces}
    assert "BTC: this surface" in text and "ETH: the venue&#x27;s mark" in text.replace("venue's", "venue&#x27;s")
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//|/)", text) and not re.search(r"\b(nan|inf)\b", text)


def test_every_point_over_time_leads_to_its_surface(surfaces):
    (one,) = labelled(index(surfaces), "% a year")
    assert len([part for part in one.iter() if part.tag == "a"]) == len(surfaces)


def test_violations_are_red_and_a_sound_surface_is_not(surfaces):
    assert 'class="num bad"' not in index(surfaces)
    assert 'class="num bad"' in index([told(study({7: 0.6, 30: 0.6, 90: 0.2}))])


def test_command_and_notes_are_on_the_index_escaped(surfaces):
    text = index(surfaces, command="dea-daemon surface --chain <x>", notes=["Interrupted: 1 of <2>"])
    assert "--chain &lt;x&gt;" in text and "Interrupted: 1 of &lt;2&gt;" in text


def test_what_is_not_known_of_any_surface_is_no_line():
    refused = told(study(why="refused"))
    assert "none known" in index([refused]) and "–" in index([refused])


# --- charts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.37, 0.22), (58.2, 61.4), (0.0, 1e-5), (-3.0, 3.0)])
def test_ticks_are_few_round_and_inside(low, high):
    found = svg.ticks(low, high)
    assert 2 <= len(found) <= 7 and low <= min(found) and max(found) <= high
    assert np.diff(found) == pytest.approx(np.full(len(found) - 1, found[1] - found[0]))


@pytest.mark.parametrize("hours", [3, 30, 24 * 9, 24 * 121, 24 * 900])
def test_dates_are_few_and_inside(hours):
    found = svg.dates(UTC_NS, UTC_NS + hours * 3.6e12)
    assert 2 <= len(found) <= 7
    assert all(UTC_NS <= at <= UTC_NS + hours * 3.6e12 for at, _ in found)


def test_a_midnight_among_hours_is_told_by_its_day():
    names = [text for _, text in svg.dates(UTC_NS, UTC_NS + 30 * 3.6e12)]
    assert names == ["12:00", "18:00", "6 Feb", "06:00", "12:00"]


def test_a_line_breaks_where_there_is_no_number():
    plot = svg.Plot(0.0, 3.0, 0.0, 1.0)
    drawn = svg.curve(plot, np.arange(4.0), np.array([0.1, np.nan, 0.3, 0.4]))
    assert drawn.count("M") == 2 and drawn.count("L") == 1
