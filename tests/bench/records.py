"""What keeping records costs: one intent on disk before its order leaves, one event on the tape."""

import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from dea_daemon.domain.events import AnyEvent, BookDelta, IndexUpdated, MarkUpdated, QuoteUpdated
from dea_daemon.domain.instruments import AccountKey, Side, Universe
from dea_daemon.domain.orders import Order, TimeInForce, client_order_id
from dea_daemon.shell.ledger import Batch, Ledger
from dea_daemon.shell.tape import TapeHeader, TapeWriter
from tests.house import INSTRUMENTS, START_NS

COMMITS = 2_000
EVENTS = 100_000
ROUNDS = 5


def rows(commits: int = COMMITS, events: int = EVENTS) -> list[dict[str, Any]]:
    """name, ours, peer, peer_name, unit, ratio."""
    with tempfile.TemporaryDirectory(prefix="dea-bench-") as folder:
        return [_commits(Path(folder), commits), _tape(Path(folder), events)]


def _commits(folder: Path, count: int) -> dict[str, Any]:
    """p50 of both, one after the other in time: the disk is the same and so is its mood."""
    ledger = Ledger.open(folder / "ledger.sqlite")
    bare = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        bare.execute(f"PRAGMA {pragma}").fetchone()
    bare.execute("CREATE TABLE intents (id TEXT PRIMARY KEY, what TEXT)")
    universe = Universe((AccountKey("deribit", "main"),), tuple((0, i) for i in INSTRUMENTS))
    batch = Batch()
    ours_us, peer_us = [], []
    try:
        for k in range(count):
            order = _order(k)
            batch.intents.append(order)
            ours_us.append(_us(partial(ledger.write, batch, universe, START_NS)))
            row = (order.client_order_id, "buy 10 BTC-PERPETUAL")
            peer_us.append(_us(partial(bare.execute, "INSERT INTO intents VALUES (?, ?)", row)))
    finally:
        bare.close()
        ledger.close()
    ours, peer = statistics.median(ours_us), statistics.median(peer_us)
    return _row("ledger: one intent committed, p50", ours, peer, "sqlite3 alone, one row, synchronous=FULL", "us")


def _order(k: int) -> Order:
    return Order(
        client_order_id=client_order_id(0, 1, k),
        row=0,
        side=Side.BUY,
        lots=1,
        price_ticks=130_000,
        time_in_force=TimeInForce.IOC,
        post_only=False,
        reduce_only=False,
        valid_until_ms=START_NS // 1_000_000,
        cause_seq=k,
        created_ns=START_NS + k,
    )


def _us(work: Callable[[], object]) -> float:
    began_ns = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - began_ns) / 1e3


def _tape(folder: Path, count: int) -> dict[str, Any]:
    """Per event, blocks compressed and written; medians of interleaved rounds."""
    events = [_event(k) for k in range(count)]
    encode = msgspec.msgpack.Encoder().encode
    ours_us, peer_us = [], []
    for number in range(ROUNDS):
        tape = TapeWriter(folder / f"{number}.tape", TapeHeader.here("bench"))
        ours_us.append(_us(partial(_record, tape, events)))
        peer_us.append(_us(lambda: [encode(event) for event in events]))
    ours, peer = statistics.median(ours_us) / count, statistics.median(peer_us) / count
    return _row("tape, an event", ours, peer, "msgspec's encoder alone", "us/event")


def _record(tape: TapeWriter, events: list[AnyEvent]) -> None:
    for event in events:
        tape.event(event)
    tape.close()


def _event(k: int) -> AnyEvent:
    """A stream's usual mix: book changes mostly, then quotes, marks and indices."""
    now_ns, price = START_NS + k * 100_000, 65_000.0 + k % 97 * 0.5
    match k % 8:
        case 0:
            return IndexUpdated(now_ns, now_ns, 0, "BTC", price)
        case 1:
            return MarkUpdated(now_ns, now_ns, k % 4, price, price, 1e-5)
        case 2:
            return QuoteUpdated(now_ns, now_ns, k % 4, price, 1.0 + k % 13, price + 0.5, 2.0 + k % 7)
        case _:
            levels = [(price - 0.5 * n, 10.0 * (k % (n + 3))) for n in range(3)]
            return BookDelta(now_ns, now_ns, k % 4, k + 1, k + 1, k, levels, levels[:1])


def _row(name: str, ours: float, peer: float, peer_name: str, unit: str) -> dict[str, Any]:
    figures = {"ours": round(ours, 2), "peer": round(peer, 2), "peer_name": peer_name, "ratio": round(peer / ours, 2)}
    return {"name": name, "unit": unit} | figures
