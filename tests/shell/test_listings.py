"""Which of a venue's contracts join while a run lasts."""

from typing import Any

import pytest

from dea_daemon.domain.errors import VenueError
from dea_daemon.domain.events import InstrumentsListed
from dea_daemon.domain.instruments import AccountKey, Instrument, Universe
from dea_daemon.shell.listings import Listings
from dea_daemon.simvenue.deribit import encodings
from dea_daemon.simvenue.deribit.contract import Contract
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


@pytest.mark.parametrize(
    "change",
    [
        {"tick_size": 1.0},
        {"tick_size_steps": [{"above_price": 100.0, "tick_size": 5.0}]},
        {"contract_size": 1.0, "min_trade_amount": 1.0},
        {"min_trade_amount": 50.0},
    ],
    ids=["tick", "steps", "lot", "least amount"],
)
def test_a_contract_of_ours_in_other_lots_or_ticks_is_told_until_a_restart(change):
    desk = Desk()
    known = row_of(PERPETUAL)
    assert desk.listings.changed([known, NEXT]) == ()
    for _ in range(2):
        (changed,) = desk.listings.changed([known | change, NEXT])
        assert changed.name == PERPETUAL.name
    assert desk.universe.instruments[0] == PERPETUAL  # a row's word does not change


def test_a_contract_that_ended_has_no_grid_to_change():
    desk = Desk()
    other = row_of(STEPPED) | {"tick_size": 7.0}
    assert len(desk.listings.changed([other])) == 1
    desk.utc_ns = STEPPED.expiry_ns
    assert desk.listings.changed([other]) == ()


def row_of(instrument: Instrument) -> dict[str, Any]:
    """One of get_instruments, as the venue lists it."""
    info: dict[str, Any] = encodings.instrument(Contract(instrument, 1, 0), listed=True)
    return info
