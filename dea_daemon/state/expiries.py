"""Contracts come and go while a run lasts: which deliveries are in our books, and when to ask for new listings."""

import numpy as np

from dea_daemon.domain.events import InstrumentsListed, RunStarted, Settlement
from dea_daemon.domain.instruments import IntArray, Universe
from dea_daemon.domain.numbers import NS_PER_MS, NS_PER_S

RELIST_PAUSE_NS = 2 * NS_PER_S  # announcements come in bursts: one question for all of them
RELIST_RETRY_NS = 30 * NS_PER_S  # after a question that failed: the whole list is dear, and venues ration it
UNPROVED_NS = 600 * NS_PER_S  # after which a settled position is believed gone without the venue's record of it
MARGIN_MS = 60_000  # deliveries are asked for from this long before the expiry


class Deliveries:
    """Each ends a position once. `new` are those the shell has not recorded yet, and how each is known."""

    def __init__(self, universe: Universe, started: RunStarted) -> None:
        self._universe = universe
        self._begun_ns = started.ts_recv_ns
        expiries = enumerate(universe.expiry_ns.tolist())
        self._ended_before = frozenset(row for row, ns in expiries if 0 < ns <= started.utc_ns)
        self.settled: set[tuple[int, str]] = set(started.settled)
        self.new: list[tuple[Settlement, str]] = []

    def known(self, account: int, row: int) -> bool:
        """Whether the contract's delivery is in our books: the venue's lists may still show what it ended."""
        return (account, self._universe.instruments[row].name) in self.settled

    def take(self, settlement: Settlement, proof: str) -> bool:
        """Enter it; False if it is there already."""
        if self.known(settlement.account, settlement.row):
            return False
        self.settled.add((settlement.account, self._universe.instruments[settlement.row].name))
        self.new.append((settlement, proof))
        return True

    def owed(self, account: int, position_lots: IntArray, utc_ns: int) -> IntArray:
        """Rows held beyond their expiry."""
        expiry_ns = self._universe.expiry_ns
        held = (position_lots != 0) & (self._universe.account == account)
        return np.flatnonzero(held & (expiry_ns > 0) & (expiry_ns <= utc_ns))

    def since_ms(self, account: int, position_lots: IntArray, utc_ns: int) -> int:
        """From when deliveries must be asked for: the earliest expiry of what is still held beyond it, or (for some
        minutes) had ended when this run began; else 0."""
        rows = self.owed(account, position_lots, utc_ns).tolist()
        if self._ended_before and utc_ns - self._begun_ns < UNPROVED_NS:
            mine = (r for r in self._ended_before if self._universe.account[r] == account)
            rows += [r for r in mine if not self.known(account, r)]
        return max(int(self._universe.expiry_ns[rows].min()) // NS_PER_MS - MARGIN_MS, 1) if rows else 0


class Listings:
    """When each account's venue should be asked for its contracts."""

    def __init__(self, accounts: int, started: RunStarted) -> None:
        self.due = [False] * accounts  # the venue spoke of new contracts, or may have while unheard
        self.asked_ns = [started.ts_recv_ns] * accounts
        self._failed = [False] * accounts

    def answered(self, event: InstrumentsListed) -> None:
        self.due[event.account] = self._failed[event.account] = bool(event.why)

    def wants(self, account: int, now_ns: int, every_ns: float) -> bool:
        """It announced some, or it is time."""
        if not self.due[account]:
            wait_ns = every_ns
        else:
            wait_ns = min(RELIST_RETRY_NS if self._failed[account] else RELIST_PAUSE_NS, every_ns)
        return now_ns - self.asked_ns[account] > wait_ns
