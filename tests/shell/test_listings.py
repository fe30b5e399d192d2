"""Which of a venue's contracts join while a run lasts."""

import pytest

from dea_daemon.domain.errors import VenueError
from dea_daemon.domain.events import InstrumentsListed
from dea_daemon.domain.instruments import AccountKey, Universe
from dea_daemon.shell.listings import Listings
from tests.feeds.test_deribit_mapping import INVERSE, OPTION
from tests.shell.deribit_stub import INVERSE as PERPETUAL
from tests.shell.deribit_stub import STEPPED, UTC_NS

DAY_MS = 86_400_000
UTC_MS = UTC_NS // 1_000_000
NEXT = OPTION | {"instrument_name": "BTC-27NOV26-80000-C", "expiration_timestamp": UTC_MS + DAY_MS}


class Desk:
    def __init__(self, max_contracts: int = 100, takes=lambda contract: contract.name.startswith("BTC-")) -> None:
        self.utc_ns = UTC_NS
        self.universe = Universe((AccountKey("deribit", "main"),), ((0, PERPETUAL), (0, STEPPED)))
        self.listings = Listings(self.universe, 0, takes, max_contracts, lambda: self.utc_ns)

    def names(self, *infos) -> list[str]:
        return [i.name for i in self.listings.fresh(infos)]


def test_wanted_contracts_without_a_row_join_the_nearest_first():
    later = OPTION | {"instrument_name": "BTC-25DEC26-90000-C"}
    known = OPTION | {"instrument_name": STEPPED.name}
    unwanted = OPTION | {"instrument_name": "BTC_USDC-25DEC26-90000-C"}
    assert Desk().names(later, known, INVERSE, unwanted, NEXT) == [NEXT["instrument_name"], later["instrument_name"]]


@pytest.mark.parametrize(
    "change",
    [
        {"expiration_timestamp": UTC_MS},
        {"base_currency": "DOGE"},
        {"settlement_currency": "EURR"},
        {"is_active": False},
        {"state": "closed"},
        {"kind": "option_combo"},
    ],
)
def test_what_has_ended_or_not_begun_or_has_no_factor_does_not_join(change):
    assert Desk().names(NEXT | change) == []


def test_no_more_join_than_are_allowed_and_those_that_ended_make_room():
    desk = Desk(max_contracts=2)
    assert desk.names(NEXT) == []
    desk.utc_ns = STEPPED.expiry_ns
    late = NEXT | {"expiration_timestamp": STEPPED.expiry_ns // 1_000_000 + DAY_MS}
    assert desk.names(late, late | {"instrument_name": "BTC-28NOV26-80000-C"}) == [late["instrument_name"]]


def test_what_joins_is_numbered_behind_all_others():
    desk = Desk()
    (joining,) = desk.listings.fresh([NEXT])
    rows = desk.listings.take(InstrumentsListed(1, 0, (joining,)))
    assert rows == (2,)
    assert desk.universe.instruments[2] == joining
    assert desk.listings.take(InstrumentsListed(1, 0, (), "no answer")) == ()
    assert desk.names(NEXT) == []
    desk.utc_ns = joining.expiry_ns
    assert desk.listings.ended() == (2,)


def test_a_contract_that_cannot_be_read_is_said():
    with pytest.raises(VenueError):
        Desk().names(NEXT | {"strike": "high"})
