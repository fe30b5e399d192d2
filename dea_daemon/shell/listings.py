"""Which of a venue's contracts join while a run lasts.

The engine numbers contracts as it hears of them, so each answer is taken into our universe and handed on at once,
whole and once: both number the same.
"""

from collections.abc import Callable, Iterable
from typing import Any

import structlog

from dea_daemon.domain.events import InstrumentsListed
from dea_daemon.domain.instruments import Instrument, Universe
from dea_daemon.feeds.deribit_mapping import instrument_from

log = structlog.get_logger()
_GRID = ("tick_size", "tick_size_steps", "contract_size", "min_trade_amount")


class Listings:
    """The contracts of one Deribit account: those we have, and those that are new.

    `takes(contract)` says whether the configuration asks for it; no more than `max_contracts` are followed at once.
    """

    def __init__(
        self,
        universe: Universe,
        account: int,
        takes: Callable[[Instrument], bool],
        max_contracts: int,
        utc_ns: Callable[[], int],
    ) -> None:
        self._universe, self._account = universe, account
        self._takes, self._max, self._utc_ns = takes, max_contracts, utc_ns
        self._left_out = 0
        self._alike: dict[str, Any] = {}  # what it said of a grid that is ours still

    def fresh(self, infos: Iterable[dict[str, Any]]) -> tuple[Instrument, ...]:
        """Of the venue's list, those that should join: wanted, without a row, live, on an underlying and in money
        that have their factors; the nearest expiry first. VenueError where one cannot be read."""
        row, account = self._universe.row, self._account
        names = ((info["instrument_name"], info) for info in infos)
        read = (instrument_from(info) for name, info in names if row(account, name) is None)
        money = {i.settle_currency for i in self._universe.instruments}.union(self._universe.underlyings)
        joining = (
            i for i in read if i is not None and i.settle_currency in money and self._joins(i) and self._takes(i)
        )
        found = sorted(joining, key=lambda i: (i.expiry_ns, i.name))
        room = max(0, self._max - len(self.rows()))
        self._tell(len(found) - room)
        return tuple(found[:room])

    def changed(self, infos: Iterable[dict[str, Any]]) -> tuple[Instrument, ...]:
        """Of the venue's list, those with a live row that are now traded in other lots or ticks than it says. Told each
        time: a row's word does not change. VenueError where one cannot be read."""
        mine = {self._universe.instruments[row].name: self._universe.instruments[row] for row in self.rows()}
        found: list[Instrument] = []
        for info in infos:
            name, said = info["instrument_name"], [info.get(word) for word in _GRID]
            if name not in mine or self._alike.get(name) == said:
                continue
            contract = instrument_from(info)
            if contract is not None and _grid(contract) != _grid(mine[name]):
                found.append(contract)
            else:
                self._alike[name] = said
        return tuple(found)

    def rows(self) -> tuple[int, ...]:
        """The account's contracts that have not ended."""
        return tuple(r for r in self._all() if not self._ended(self._universe.instruments[r]))

    def ended(self) -> tuple[int, ...]:
        """And those that have."""
        return tuple(r for r in self._all() if self._ended(self._universe.instruments[r]))

    def take(self, listed: InstrumentsListed) -> tuple[int, ...]:
        """Number what joins; its rows."""
        before = len(self._universe)
        self._universe.extend(tuple((listed.account, instrument) for instrument in listed.instruments))
        return tuple(range(before, len(self._universe)))

    def _all(self) -> Iterable[int]:
        return (row for row, account in enumerate(self._universe.account.tolist()) if account == self._account)

    def _ended(self, instrument: Instrument) -> bool:
        return 0 < instrument.expiry_ns <= self._utc_ns()

    def _joins(self, instrument: Instrument) -> bool:
        # One that is not traded yet joins when it is: a row's word does not change.
        known = instrument.underlying in self._universe.underlyings
        return known and instrument.tradable and not self._ended(instrument)

    def _tell(self, left_out: int) -> None:
        """Once for each further contract that finds no room."""
        if left_out > self._left_out:
            log.error("contracts.left_out", contracts=left_out, max_contracts=self._max, why="max_contracts reached")
        self._left_out = max(0, left_out)


def _grid(instrument: Instrument) -> tuple[object, ...]:
    """What an order's amount and price must be multiples of, and the least amount."""
    return instrument.lot_size, instrument.min_lots, instrument.tick_size, instrument.tick_steps
