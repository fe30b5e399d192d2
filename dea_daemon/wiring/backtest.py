"""`dea-daemon backtest --capture`: a recorded stream through the live engine, orders against an in-process venue.

The recorded book and trades are the simulated venue's: our orders queue behind the recorded amounts, advance by
recorded trades alone, and take what is there. The market does not react to us.
"""

import itertools
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.events import (
    AnyEvent,
    BookDelta,
    BookSnapshot,
    MarkUpdated,
    RunStarted,
    TradePrinted,
)
from dea_daemon.domain.instruments import AccountKey, Instrument, Kind, Side, Universe
from dea_daemon.domain.numbers import NS_PER_MS, NS_PER_S
from dea_daemon.feeds.binance import Binance
from dea_daemon.feeds.codec import Codec
from dea_daemon.feeds.deribit import Deribit
from dea_daemon.feeds.listed import contracts_listed, okx_names
from dea_daemon.feeds.observed import contracts_in, trade_stream
from dea_daemon.feeds.okx import Okx
from dea_daemon.shell import captures
from dea_daemon.shell.progress import progress
from dea_daemon.shell.settings import Settings, load
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.wiring.demo import config_file
from dea_daemon.wiring.in_process import InProcess
from dea_daemon.wiring.paper import ACCOUNT, PaperVenue
from dea_daemon.wiring.summary import summary

CONFIG = "backtest-capture.yaml"
PEEK = 5_000  # messages read ahead to learn which contracts a recording holds
DEPOSIT_USD, DEPOSIT_COINS = 100_000.0, 1.0  # in each margin pool: stables, and coins
LATENCY_NS = 5 * NS_PER_MS  # each way
MAKER_FEE, TAKER_FEE = 0.0002, 0.0005  # a recording holds no fees: the venue's lowest tier
MARK_EVERY_NS = NS_PER_S
BOOK_LEVELS = 5_000


def run_capture(paths: list[Path], venue: str, settings: Settings | None, json_lines: bool, tape: Path | None) -> int:
    """Exit code 0; 65 is raised where nothing in the files can be read."""
    from dea_daemon.shell.output import emit

    settings = settings or load(config_file(CONFIG))
    finished = backtest_capture(paths, venue, settings, tape, show=not json_lines)
    if json_lines:
        emit(finished)
    else:
        from dea_daemon.wiring.tables import show

        show(finished)
    return 0


def backtest_capture(
    paths: list[Path], venue: str, settings: Settings, tape: Path | None = None, show: bool = False
) -> dict[str, Any]:
    """Run a recording to its end. Returns `run.finished` with `events`, `events_per_s` and `gaps`."""
    frames = list(itertools.islice(captures.merged(paths), PEEK))
    head = [frame.payload for frame in frames if frame.kind is not captures.Kind.SENT]
    listed = contracts_listed((frame.payload for frame in frames if frame.kind is captures.Kind.HTTP), venue)
    contracts = [_with_fees(contract) for contract in _contracts(head, listed, venue)]
    if not contracts:
        raise DataError(f"{', '.join(map(str, paths))}: no {venue} book in the first {PEEK:,} messages")
    universe = Universe((AccountKey(venue, "paper"),), tuple((0, contract) for contract in contracts))
    codec = _codec(head, universe, venue)
    taken = CaptureRun(universe, settings, tape)
    started_s = time.perf_counter()
    with progress("events", show) as advance:
        for batch in captures.events(paths, codec):
            taken.take(batch)
            advance(len(batch))
    run = taken.run
    run.close()
    seconds = time.perf_counter() - started_s
    finished = summary(run.state, run.stats, universe, drained=True)
    return finished | {
        "events_per_s": round(run.stats.events / seconds),
        "seconds": round(seconds, 3),
        "crossed_books": taken.crossed,
        "marks": "recorded" if taken.marks_recorded else "mid price: the recording has none",
    }


def _contracts(head: list[bytes], listed: dict[str, Instrument], venue: str) -> list[Instrument]:
    """Those whose books are recorded: as the venue lists them, else as their messages show them."""
    if venue != "okx":
        return [listed.get(contract.name, contract) for contract in contracts_in(head, venue)]
    names = okx_names(head)
    if unlisted := [name for name in names if name not in listed]:
        where = "give the recorded answer of /api/v5/public/instruments, too"
        raise DataError(f"no list tells the size of {', '.join(unlisted)}: {where}")
    return [msgspec.structs.replace(listed[name], tradable=listed[name].kind is not Kind.SPOT) for name in names]


def _codec(head: list[bytes], universe: Universe, venue: str) -> Codec:
    """The dialect the recording is in."""
    if venue == "okx":
        return Okx(universe, 0)
    if venue == "deribit":
        return Deribit(universe, 0, interval="raw" if any(b'.raw"' in body for body in head) else "100ms")
    return Binance(universe, 0, trades=trade_stream(head))


def _with_fees(contract: Instrument) -> Instrument:
    return msgspec.structs.replace(contract, maker_fee=MAKER_FEE, taker_fee=TAKER_FEE)


class CaptureRun:
    """The engine, the venue and the clock of one recording. Time is the recording's own.

    At each recorded message: whatever was due before it happens first (ticks, replies), the venue takes the
    market over, then the engine hears of it.
    """

    def __init__(self, universe: Universe, settings: Settings, tape: Path | None) -> None:
        self.universe = universe
        self.settings = settings
        self.crossed = 0
        self.marks_recorded = False
        self._tape = tape
        self._run: InProcess | None = None
        self._mark_ns = 0
        self._sizes = [(float(i.tick_size), float(i.lot_size)) for i in universe.instruments]

    @property
    def run(self) -> InProcess:
        """Raises DataError where nothing was taken yet."""
        if self._run is None:
            raise DataError("the recording holds no message that could be read")
        return self._run

    def take(self, batch: list[AnyEvent]) -> None:
        """One recorded message's events."""
        now_ns = batch[0].ts_recv_ns
        if self._run is None:
            self._run = self._started(now_ns)
        run = self._run
        run.catch_up(now_ns)
        run.paper.exchange.set_time(now_ns)
        for event in batch:
            run.fold(event)
            self._to_venue(event)
        if not self.marks_recorded and now_ns - self._mark_ns >= MARK_EVERY_NS:
            self._mark_from_mid(now_ns)
        run.paper.drain(now_ns)

    def _started(self, now_ns: int) -> InProcess:
        pools = {i.margin_pool for i in self.universe.instruments}
        exchange = Exchange.replayed(self.universe.instruments, now_ns)
        stables = self.settings.state.stable_currencies
        deposits = {pool: DEPOSIT_USD if pool in stables else DEPOSIT_COINS for pool in sorted(pools)}
        exchange.open_account(ACCOUNT, deposits)
        paper = PaperVenue(exchange, self.universe, 0, LATENCY_NS)
        rows = zip(self.universe.account.tolist(), self.universe.instruments, strict=True)
        started = RunStarted(
            ts_recv_ns=now_ns,
            run_id="backtest",
            utc_ns=now_ns,
            epoch=1,
            armed=True,
            accounts=self.universe.accounts,
            rows=tuple(rows),
            parameters=self.settings.parameters.model_dump_json(),
            currencies=tuple(sorted(pools - set(self.universe.underlyings))),
        )
        run = InProcess(started, paper, self._tape)
        paper.open(now_ns)
        return run

    # --- the recorded market as the venue's ------------------------------------------------------

    def _to_venue(self, event: AnyEvent) -> None:
        """The same message for the venue: its book is ours, once ours is synchronised."""
        exchange = self.run.paper.exchange
        match event:
            case BookDelta(row=row):
                book = self.run.state.market.books[row]
                # Only what the book took: buffered and old deltas are in the next snapshot.
                if book.usable and book.last == event.last:
                    name = self.universe.instruments[row].name
                    for side, levels in ((Side.BUY, event.bids), (Side.SELL, event.asks)):
                        for ticks, lots in self._counts(row, levels):
                            exchange.set_level(name, side, ticks, lots)
                    bid, _, ask, _ = book.best()
                    self.crossed += bid >= ask
            case BookSnapshot(row=row):
                bids, asks = self.run.state.market.books[row].top(BOOK_LEVELS)
                name = self.universe.instruments[row].name
                exchange.replace_book(name, self._counts(row, bids.tolist()), self._counts(row, asks.tolist()))
            case TradePrinted(row=row):
                ((ticks, lots),) = self._counts(row, [(event.price, event.amount)])
                exchange.public_trade(self.universe.instruments[row].name, event.side, ticks, lots)
            case MarkUpdated(row=row):
                index = event.index_price if event.index_price == event.index_price else event.mark_price
                exchange.set_mark(self.universe.instruments[row].name, event.mark_price, index)
                self.marks_recorded = True

    def _counts(self, row: int, levels: Iterable[tuple[float, float]]) -> list[tuple[int, int]]:
        """Recorded floats as ticks and lots. They lie on the grid, so rounding to the nearest is exact, and
        faster by far than the decimal door, which is for what we send."""
        tick, lot = self._sizes[row]
        return [(round(price / tick), round(amount / lot)) for price, amount in levels]

    def _mark_from_mid(self, now_ns: int) -> None:
        """A recording without marks: the mid stands in, once a second, and the result says so."""
        self._mark_ns = now_ns
        for row, book in enumerate(self.run.state.market.books):
            bid, _, ask, _ = book.best()
            # An option's own price says nothing of its underlying: without marks it is not traded.
            if book.usable and bid < ask and self.universe.instruments[row].kind is not Kind.OPTION:
                mid = 0.5 * (bid + ask)
                self.run.fold(MarkUpdated(now_ns, now_ns, row, mid, mid, 0.0))
                self.run.paper.exchange.set_mark(self.universe.instruments[row].name, mid, mid)
