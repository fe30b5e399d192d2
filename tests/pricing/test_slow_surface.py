"""Every recorded chain: inside bid and ask, without arbitrage, at quotes used, left out and beside displaced ones."""

import numpy as np
import pytest

from dea_daemon.domain.surfaces import Chain
from dea_daemon.pricing.surface.fit import fit
from dea_daemon.pricing.surface.quotes import prepare
from tests.pricing.known_surfaces import only
from tests.pricing.recorded_chains import recorded, snapshots
from tests.pricing.surface_checks import arbitrages, inside, surface_of
from tests.pricing.test_surface_robustness import displaced_everywhere

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LEFT_OUT = 4  # one quote in so many


def judged(chain: Chain) -> tuple[int, int]:
    """(inside, quotes); raises AssertionError where nothing is published, or it has an arbitrage."""
    surface = surface_of(fit(chain, 0.5))
    assert arbitrages(surface) == []
    return inside(surface, prepare(chain))


@pytest.mark.parametrize(("coin", "least"), [("BTC", 0.99), ("ETH", 0.995)])
def test_every_recorded_chain_is_fitted_inside_its_spreads_and_without_arbitrage(coin, least):
    found = np.array([judged(recorded(at, coin)) for at in snapshots()])
    good, total = found.T
    assert good.sum() >= least * total.sum()
    assert (good >= 0.97 * total).all()


@pytest.mark.parametrize(("coin", "least"), [("BTC", 0.955), ("ETH", 0.97)])
def test_quotes_left_out_are_found_inside_their_spreads(coin, least):
    found = np.array([found_again(recorded(at, coin)) for at in snapshots()])
    good, total = found.sum(axis=0)
    assert good >= least * total


def found_again(chain: Chain) -> tuple[int, int]:
    """(inside, quotes) of every fourth, in order of expiry and strike, by a fit without them."""
    quotes = prepare(chain)
    out = np.concatenate([q.row for q in quotes])[::LEFT_OUT]
    surface = surface_of(fit(only(chain, ~np.isin(np.arange(len(chain.strike)), out)), 0.5))
    return inside(surface, [q.keep(np.isin(q.row, out)) for q in quotes])


def test_one_quote_in_twenty_displaced_by_eight_half_spreads_costs_the_others_nothing():
    good, total, _ = displaced_everywhere(range(len(snapshots())))
    assert good >= 0.97 * total
