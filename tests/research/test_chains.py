"""How recorded chains are judged: what counts as inside, what is left out, and arbitrage found by code of its own."""

import msgspec
import numpy as np
import pytest

from dea_daemon.domain.surfaces import Rung, Smile
from dea_daemon.pricing import black
from dea_daemon.pricing.surface.lattice import lattice
from dea_daemon.pricing.surface.quotes import prepare
from dea_daemon.pricing.surface.surface import Surface
from dea_daemon.research.chains import (
    Judged,
    cells,
    curves,
    curves_of,
    dropped,
    judge,
    left_out,
    line,
    local_volatility,
    page_name,
    pooled,
    stamp,
    studied,
    summary,
    svi_of,
    told,
    volatilities,
    without,
)
from tests.research.recorded_chains import DAY_NS, HALF, IV, UTC_NS, chain, flat

VOGT = (-0.0410, 0.1331, 0.3060, 0.3586, 0.4153)  # raw SVI a, b, ρ, m, σ: Gatheral & Jacquier 2014, example 3.1


def svi(k, a, b, rho, m, sigma):
    """w, dw/dk and d²w/dk²."""
    root = np.sqrt((k - m) ** 2 + sigma**2)
    return a + b * (rho * (k - m) + root), b * (rho + (k - m) / root), b * sigma**2 / root**3


def published(*variances, days=(7, 30, 90)):
    """Any total variances at the nodes as a published surface."""
    ends = [UTC_NS + day * DAY_NS for day in days[: len(variances)]]
    smiles = [Smile(e, 1.0, tuple(v.tolist()), Rung.FITTED, -1.0, 1.0) for e, v in zip(ends, variances, strict=True)]
    return msgspec.structs.replace(flat(chain()), smiles=tuple(smiles))


def study(iv=IV, gone=0, **more):
    of = chain(**more)
    return studied(prepare(of), np.full(len(of.strike), IV), flat(of, iv, gone), flat(of, iv), fit_ms=12.0)


# --- inside -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("off", "share"), [(0.0, 1.0), (0.95 * HALF, 1.0), (1.05 * HALF, 0.0), (-1.05 * HALF, 0.0)])
def test_a_quote_is_inside_between_its_bid_and_its_ask(off, share):
    assert study(IV + off).own.share == share


def test_the_error_is_the_root_mean_square_distance_from_the_mids_in_points():
    assert study(IV + 0.013).own.rmse_vol_pts == pytest.approx(1.3, rel=1e-6)


def test_one_expiry_that_misses_costs_its_own_quotes():
    found = study({7: IV, 30: IV + 3 * HALF, 90: IV}, count=8).own
    assert (found.quotes, found.inside) == (24, 16)


def test_what_the_fit_dropped_counts_as_outside_wherever_the_surface_is():
    found = study(gone=2)
    assert [int(gone.sum()) for gone in found.dropped] == [2, 2, 2]
    assert found.own.inside == found.own.quotes - 6


def test_the_quotes_dropped_are_those_furthest_off_in_errors():
    of = chain(days=(30,))
    quotes = prepare(of)
    iv = [quotes[0].iv + np.array([0, 0, 0.3, 0, 0, 0, -0.2, 0, 0.01])]
    (gone,) = dropped(flat(of, dropped=2), quotes, iv)
    assert np.flatnonzero(gone).tolist() == [2, 6]


def test_a_surface_that_was_not_published_is_inside_nothing_and_not_sound():
    of = chain()
    nothing = flat(of, why="butterfly in 30 days")
    found = studied(prepare(of), np.full(27, IV), nothing, nothing)
    assert found.own.share == 0.0 and found.left_out.share == 0.0 and not found.sound
    assert line(found)["why"] == "butterfly in 30 days" and np.isnan(line(found)["min_g"])


def test_not_a_number_is_outside():
    quotes = prepare(chain(days=(30,)))
    found = judge([np.where(np.arange(9) < 3, IV, np.nan)], quotes)
    assert (found.quotes, found.inside, found.known) == (9, 3, 3) and found.rmse_vol_pts < 1e-3


def test_the_mark_is_held_only_to_quotes_it_was_told_for():
    of = chain(days=(30,))
    mark = np.array([IV, np.nan, IV + 2 * HALF, IV, IV, IV, IV, IV, np.nan])
    found = studied(prepare(of), mark, flat(of), flat(of)).mark
    assert (found.quotes, found.inside) == (7, 6)


def test_volatilities_are_the_surfaces_own_at_each_quotes_own_forward():
    of = chain(days=(30,))
    wing = lattice().k ** 2 * 0.1 + 0.02
    (drawn,) = volatilities(published(wing, days=(30,)), prepare(of))
    k = np.log(np.array(of.strike) / np.array(of.forward))
    assert drawn == pytest.approx(np.sqrt((0.1 * k**2 + 0.02) * 365 / 30), abs=2e-5)


# --- left out ---------------------------------------------------------------------------------------------------


def test_every_fourth_quote_is_left_out_across_expiries():
    quotes = prepare(chain())
    gone = left_out(quotes)
    assert [len(q.k) for q in gone] == [2, 2, 2]
    places = np.concatenate(
        [n * 9 + np.searchsorted(q.k, g.k) for n, (q, g) in enumerate(zip(quotes, gone, strict=True))]
    )
    assert places.tolist() == list(range(3, 27, 4))


def test_a_chain_without_them_has_all_others_and_still_wants_every_expiry():
    of = chain(days=(7, 30), count=5)
    gone = left_out(prepare(of))
    fewer = without(of, gone)
    missing = sorted(
        set(zip(of.expiry_ns, of.strike, strict=True)) - set(zip(fewer.expiry_ns, fewer.strike, strict=True))
    )
    assert missing == sorted((of.expiry_ns[r], of.strike[r]) for q in gone for r in q.row)
    assert fewer.expiries == of.expiries and len(fewer.strike) == len(fewer.bid) == len(fewer.age_s) == 8


# --- arbitrage --------------------------------------------------------------------------------------------------


def test_total_variance_here_is_what_the_surface_says():
    u = lattice().u
    wavy = 0.05 + 0.01 * np.sin(u) + 0.002 * u**2
    found = published(wavy, 2.0 * wavy)
    surface = Surface(found.chain_utc_ns, found.scale, found.smiles)
    mine = curves(found)
    w, slope, bend = surface.total_variance(np.ones(len(mine.k), dtype=np.int64), mine.k)
    g = (1 - mine.k * slope / (2 * w)) ** 2 - slope**2 / 4 * (1 / w + 0.25) + bend / 2
    assert mine.w[1] == pytest.approx(w, rel=1e-12) and mine.g[1] == pytest.approx(g, abs=1e-9)


def test_a_butterfly_known_from_the_literature_is_found_where_it_is():
    grid = lattice()
    found = curves(published(svi(grid.k, *VOGT)[0], days=(365,)))
    w, slope, bend = svi(found.k, *VOGT)
    g = (1 - found.k * slope / (2 * w)) ** 2 - slope**2 / 4 * (1 / w + 0.25) + bend / 2
    near = np.abs(found.k) < 1.4
    assert found.butterflies == 1 and g.min() < -0.01
    assert found.g[0][near] == pytest.approx(g[near], abs=1e-3)
    assert 0.5 < found.k[found.g[0].argmin()] < 1.2


def test_g_is_the_second_difference_of_prices():
    k = np.linspace(-0.6, 0.6, 7)

    def price(at):
        return black.price(1.0, np.exp(at), 1.0, np.sqrt(svi(at, *VOGT)[0]), np.ones(len(at), dtype=bool))

    h = 1e-3
    first = (price(k + h) - price(k - h)) / (2 * h)
    second = (price(k + h) - 2 * price(k) + price(k - h)) / h**2
    w = svi(k, *VOGT)[0]
    normal = np.exp(-0.5 * (-k / np.sqrt(w) - np.sqrt(w) / 2) ** 2) / np.sqrt(2 * np.pi * w)
    drawn = curves_of([lambda at: svi(at, *VOGT)], [1.0])
    assert np.interp(k, drawn.k, drawn.g[0]) * normal == pytest.approx((second - first) / np.exp(k), abs=1e-4)


def test_a_smile_without_butterfly_has_none():
    found = curves(flat(chain()))
    assert (found.butterflies, found.calendars) == (0, 0) and found.min_g == pytest.approx(1.0)


def test_a_calendar_is_counted_once_a_pair_however_narrow_it_is():
    k = lattice().k
    first, later = 0.02 + 0.05 * k**2, 0.03 + 0.05 * k**2
    pinched = np.where(np.abs(k - 1.0) < 0.08, first - 1e-6, later)
    assert curves(published(first, later, 2 * later)).calendars == 0
    assert curves(published(first, pinched, 2 * later)).calendars == 1


def test_variance_that_is_no_number_is_a_violation():
    drawn = curves_of([lambda k: (0.1 + 0 * k, 0 * k, 0 * k), lambda k: (np.nan * k, 0 * k, 0 * k)], [0.1, 0.2])
    assert (drawn.butterflies, drawn.calendars) == (1, 1)


def test_arbitrage_is_looked_for_at_3001_points_to_one_and_a_half():
    k = curves(flat(chain())).k
    assert len(k) == 3001 and (k[0], k[-1]) == (-1.5, 1.5)


def test_svi_is_judged_where_five_quotes_tell_its_parameters():
    quotes = prepare(chain(days=(7, 30), count=9)) + prepare(chain(days=(90,), count=4))
    found = svi_of(quotes)
    assert (found.quotes, found.inside, found.butterflies, found.calendars) == (18, 18, 0, 0)
    assert found.rmse_vol_pts < 0.2


# --- local volatility -------------------------------------------------------------------------------------------


def test_local_volatility_of_one_volatility_is_that():
    assert local_volatility(flat(chain()), np.linspace(-3, 3, 13)) == pytest.approx(IV)


def test_local_volatility_without_a_smile_is_the_forward_one():
    found = local_volatility(flat(chain(), {7: 0.5, 30: 0.6, 90: 0.7}), np.zeros(1))[:, 0]
    forward = [0.5, np.sqrt((0.36 * 30 - 0.25 * 7) / 23), np.sqrt((0.49 * 90 - 0.36 * 30) / 60)]
    assert found == pytest.approx(forward)


def test_local_volatility_is_what_prices_say_by_dupire():
    def rate(k):  # w = rate · τ
        return 0.3 - 0.08 * k + 0.2 * k**2

    k, mid, h = np.array([-0.25, -0.1, 0.0, 0.15, 0.3]), 45 / 365, 1e-3

    def price(strike, tau):
        return black.price(1.0, strike, tau, np.sqrt(rate(np.log(strike))), strike > 0.0)

    strike = np.exp(k)
    by_time = (price(strike, mid + h) - price(strike, mid - h)) / (2 * h)
    convex = (price(strike + h, mid) - 2 * price(strike, mid) + price(strike - h, mid)) / h**2
    nodes = lattice().k
    later = rate(np.clip(nodes, -1.5, 1.5)) * 60 / 365
    found = local_volatility(published(later / 2, later, days=(30, 60)), k / np.sqrt(0.3 * 60 / 365))
    assert found[1] == pytest.approx(np.sqrt(2 * by_time / (strike**2 * convex)), rel=3e-3)


# --- told -------------------------------------------------------------------------------------------------------


def test_a_line_begins_with_what_was_agreed():
    assert list(line(study()))[:11] == [
        "timestamp",
        "underlying",
        "expiries",
        "quotes",
        "rmse_vol_pts",
        "inside_bid_ask",
        "inside_bid_ask_left_out",
        "min_g",
        "calendar_violations",
        "fallback_slices",
        "fit_ms",
    ]


def test_a_line_tells_what_was_found():
    found = line(study(IV + 0.013))
    assert (found["timestamp"], found["underlying"]) == ("2026-02-05T09:00:00Z", "BTC")
    assert (found["expiries"], found["quotes"], found["fit_ms"]) == (3, 27, 12.0)
    assert (found["inside_bid_ask"], found["inside_bid_ask_left_out"], found["mark_inside_bid_ask"]) == (1.0, 1.0, 1.0)
    assert (found["calendar_violations"], found["butterfly_violations"], found["fallback_slices"]) == (0, 0, 0)
    assert (found["atm_30d"], found["risk_reversal_30d"]) == (0.6, -0.05)
    assert found["svi_inside_bid_ask"] != found["svi_inside_bid_ask"] and found["svi_calendar_violations"] is None


def test_moments_and_names_of_pages():
    assert stamp(UTC_NS + 33_412_509_000) == "2026-02-05T09:00:33.412509Z"
    assert page_name(UTC_NS + 33_412_509_000, "ETH") == "2026-02-05T090033.412Z-ETH"


def test_pooled_shares_weigh_quotes_not_surfaces():
    whole = pooled([Judged(10, 10, 10, 0.0, 0, 1), Judged(30, 15, 30, 0.03, 2, 0), Judged()])
    assert whole.share == 25 / 40 and (whole.butterflies, whole.calendars) == (2, 1)
    assert whole.rmse_vol_pts == pytest.approx(100 * np.sqrt(0.03 / 40))


def test_a_summary_has_a_row_for_each_way_of_each_underlying():
    surfaces = [told(study()), told(study(IV + 2 * HALF)), told(study(underlying="ETH"))]
    rows = summary(surfaces)
    assert [(row.underlying, row.way) for row in rows] == [
        ("BTC", "this surface"),
        ("BTC", "the venue's mark"),
        ("ETH", "this surface"),
        ("ETH", "the venue's mark"),
    ]
    assert (rows[0].surfaces, rows[0].whole.share, rows[0].worst, rows[0].left_out.share) == (2, 0.5, 0.0, 0.5)
    assert cells(rows[0])[3:6] == ["50.00 %", "0.0 %", "50.00 %"] and cells(rows[1])[5] == "–"


def test_what_is_kept_of_a_surface_is_small():
    kept = told(study())
    assert len(msgspec.msgpack.encode(kept.line)) < 2_000
