"""Per message: decode, sequence check, book, best price; ours against ccxt.pro on the same messages.

ccxt.pro gets each message through its own websocket client (`handle_message`: its JSON parser, its dispatch), with
the REST snapshot handed to it as its own code asks for it. Nobody awaits its futures, which spares it that cost.
Runs are interleaved in one process, medians taken, and the two books compared at the end of each.

OKX: ours verifies every checksum. ccxt.pro no longer does, so it is measured as it is, and with the check it had.
"""

import asyncio
import gc
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import ccxt.pro
from aiohttp import WSMessage, WSMsgType
from ccxt.async_support.base.ws.client import Client

from dea_daemon.domain.events import AnyEvent, BookDelta, BookSnapshot, QuoteUpdated, TradePrinted
from dea_daemon.domain.instruments import AccountKey, Instrument, Kind, Universe
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.feeds.binance import Binance
from dea_daemon.feeds.codec import Codec
from dea_daemon.feeds.deribit import Deribit
from dea_daemon.feeds.observed import contracts_in, trade_stream
from dea_daemon.feeds.okx import Okx
from dea_daemon.feeds.okx_checksum import Words, checksum
from dea_daemon.feeds.okx_mapping import instruments_from
from dea_daemon.shell import captures
from dea_daemon.shell.tape import TapeHeader, TapeWriter
from dea_daemon.state.books import Book
from dea_daemon.state.effects import Effects
from dea_daemon.state.flow import Flows
from dea_daemon.state.market import Market
from tests.house import parameters

ROUNDS = 5
MESSAGES_MAX = 30_000
_PARAMETERS = parameters()
Best = tuple[float | None, float | None]
URLS = {
    "binanceusdm": "wss://fstream.binance.com/public/ws/0",
    "deribit": "wss://www.deribit.com/ws/api/v2",
    "okx": "wss://ws.okx.com:8443/ws/v5/public",
}


class Stream(NamedTuple):
    """Messages as received; a body of HTTP kind is the one row's snapshot. `repeat` plays per run."""

    name: str
    venue: str
    frames: list[tuple[bool, bytes]]
    repeat: int
    contracts: tuple[Instrument, ...] = ()  # where the messages do not show them
    peer_verifies: bool = False


def rows() -> list[dict[str, Any]]:
    """name, ours, peer, peer_name, unit, ratio of each capture, ours without and with the tape."""
    return asyncio.run(_rows())


async def _rows() -> list[dict[str, Any]]:
    table = []
    for stream in (_binance_stream(), _deribit_stream(), _okx_streams()[0]):
        table += _signal_rows(stream)
    for stream in (_binance_stream(), _deribit_stream(), *_okx_streams()):
        ours, taped, peer = await _measure(stream)
        for name, cost in ((stream.name, ours), (f"{stream.name}, with the tape", taped)):
            table.append(
                {
                    "name": name,
                    "ours": round(cost, 2),
                    "peer": round(peer, 2),
                    "peer_name": f"ccxt.pro {ccxt.pro.__version__}",
                    "unit": "us/message",
                    "ratio": round(peer / cost, 1),
                }
            )
    return table


async def _measure(stream: Stream) -> tuple[float, float, float]:
    """Medians in us per message: ours, ours with the tape, ccxt.pro's."""
    universe, make = _ours(stream)
    costs: tuple[list[float], list[float], list[float]] = ([], [], [])
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            mine, cost = _run_ours(stream, universe, make(), lambda event: None)
            costs[0].append(cost)
            tape = TapeWriter(Path(folder) / "tape", TapeHeader.here("bench"))
            _, cost = _run_ours(stream, universe, make(), tape.event)
            tape.close()
            costs[1].append(cost)
            theirs, cost = await _run_ccxt(stream, universe)
            costs[2].append(cost)
            if mine != theirs:
                raise RuntimeError(f"{stream.name}: our book ends at {mine}, ccxt.pro's at {theirs}")
    return tuple(statistics.median(cost) for cost in costs)  # type: ignore[return-value]


# --- ours -------------------------------------------------------------------------------------------


def _ours(stream: Stream) -> tuple[Universe, Callable[[], Codec]]:
    sample = [body for _, body in stream.frames[:3_000]]
    contracts = tuple((0, contract) for contract in stream.contracts or contracts_in(sample, stream.venue))
    universe = Universe((AccountKey(stream.venue, "main"),), contracts)
    if stream.venue == "deribit":
        return universe, lambda: Deribit(universe, 0, interval="raw")
    if stream.venue == "okx":
        return universe, lambda: Okx(universe, 0)
    return universe, lambda: Binance(universe, 0, trades=trade_stream(sample))


def _run_ours(
    stream: Stream, universe: Universe, codec: Codec, record: Callable[[AnyEvent], None]
) -> tuple[list[Best], float]:
    books = [Book() for _ in universe.instruments]
    first = books[0]
    gc.collect()
    began_ns = time.perf_counter_ns()
    for _ in range(stream.repeat):
        for book in books:
            book.close()
        for is_http, body in stream.frames:
            out: list[AnyEvent] = []
            if is_http:
                codec.snapshot(body, 0, began_ns, out)
            else:
                codec.decode(body, began_ns, out)
            for event in out:
                record(event)
                kind = type(event)
                if kind is BookDelta or kind is BookSnapshot:
                    books[event.row].apply(event)  # type: ignore[union-attr, arg-type]
            first.best()
    cost_us = (time.perf_counter_ns() - began_ns) / 1e3 / stream.repeat / len(stream.frames)
    tops = [book.best() for book in books]
    return [(bid if bid == bid else None, ask if ask == ask else None) for bid, _, ask, _ in tops], cost_us


# --- what the signals add ---------------------------------------------------------------------------


class NoFlow(Flows):
    """A state that minds no microstructure: what folding cost without it."""

    def book(self, book: Book, event: BookDelta | BookSnapshot, was_usable: bool) -> None: ...
    def quote(self, event: QuoteUpdated) -> None: ...
    def trade(self, event: TradePrinted) -> None: ...


def _signal_rows(stream: Stream) -> list[dict[str, Any]]:
    """Folding into the market's state with the signals of state/flow.py and, as the peer, without them: a book's
    messages alone, and every event. The fastest of many short interleaved runs, by the processor's time: the two
    differ by less than what another process on the machine adds."""
    universe, make = _ours(stream)
    codec, events = make(), list[AnyEvent]()
    for i, (is_http, body) in enumerate(stream.frames[:6_000]):
        if is_http:
            codec.snapshot(body, 0, i * NS_PER_MS, events)
        else:
            codec.decode(body, i * NS_PER_MS, events)
    rows = []
    for what, kinds in (("book messages", (BookDelta, BookSnapshot)), ("all messages", (object,))):
        chosen = [event for event in events if isinstance(event, kinds)]
        costs: dict[type[Flows], list[float]] = {Flows: [], NoFlow: []}
        gc.collect()
        for _ in range(min(max(12, 30_000 // len(chosen)), 100)):
            for kind, found in costs.items():
                found.append(_run_fold(chosen, universe, kind))
        ours, without = min(costs[Flows]), min(costs[NoFlow])
        fields = {"peer_name": "without signals", "unit": "us/message", "ratio": round(without / ours, 2)}
        name = stream.name.split(", ")[1]
        rows.append({"name": f"fold, {name}, {what}", "ours": round(ours, 2), "peer": round(without, 2)} | fields)
    return rows


def _run_fold(events: list[AnyEvent], universe: Universe, kind: type[Flows]) -> float:
    """us per event."""
    market, effects = Market(universe, _PARAMETERS), Effects()
    market.flow = kind(universe, _PARAMETERS.state)
    began_ns = time.process_time_ns()
    for event in events:
        effects.clear()
        market.fold(event, effects)
    return (time.process_time_ns() - began_ns) / 1e3 / len(events)


# --- ccxt.pro ---------------------------------------------------------------------------------------


async def _run_ccxt(stream: Stream, universe: Universe) -> tuple[list[Best], float]:
    linear = stream.venue == "binanceusdm"
    venue = OkxVerifying() if stream.peer_verifies else getattr(ccxt.pro, stream.venue)()
    venue.set_markets([_market(contract) for contract in universe.instruments])
    symbols = [_symbol(contract) for contract in universe.instruments]
    url = URLS[stream.venue]
    client = Client(url, venue.handle_message, None, None, None, {"asyncio_loop": asyncio.get_running_loop()})
    if stream.venue == "okx":
        client.subscriptions |= {f"books:{symbol}": {} for symbol in symbols}
    if linear:
        _subscribe(venue, client, symbols)
    # What aiohttp hands to ccxt: text, already decoded.
    messages = [WSMessage(WSMsgType.TEXT, body.decode(), None) for _, body in stream.frames]
    gc.collect()
    began_ns = time.perf_counter_ns()
    for _ in range(stream.repeat):
        if not linear:
            venue.orderbooks = {}
        for (is_http, body), message in zip(stream.frames, messages, strict=True):
            if is_http:
                await _snapshot(venue, client, symbols[0], body)
                continue
            client.handle_message(message)
            book = venue.orderbooks.get(symbols[0])
            if book is not None:
                _best(book)
    cost_us = (time.perf_counter_ns() - began_ns) / 1e3 / stream.repeat / len(stream.frames)
    tops = [_best(venue.orderbooks[symbol]) for symbol in symbols]
    await venue.close()
    return tops, cost_us


class OkxVerifying(ccxt.pro.okx):  # type: ignore[misc]
    """With the checksum ccxt.pro verified until OKX began to send 0, in ccxt's own words and helpers."""

    def handle_order_book_message(
        self, client: Any, message: Any, orderbook: Any, messageHash: str, market: Any = None
    ) -> Any:
        super().handle_order_book_message(client, message, orderbook, messageHash, market)
        bids, asks, words = orderbook["bids"], orderbook["asks"], []
        for i in range(25):
            for side in (bids, asks):
                if i < len(side):
                    words.append(self.number_to_string(side[i][0]))
                    words.append(self.number_to_string(side[i][1]))
        if self.crc32(":".join(words), True) != self.safe_integer(message, "checksum"):
            raise RuntimeError("ccxt.pro's book does not match its checksum")
        return orderbook


def _subscribe(venue: Any, client: Any, symbols: list[str]) -> None:
    """As `handle_order_book_subscription` leaves things, less the fetch it spawns: that comes when recorded."""
    for symbol in symbols:
        venue.orderbooks[symbol] = venue.order_book({}, 1_000)
        client.subscriptions[f"orderbook::{symbol}"] = {}


async def _snapshot(venue: Any, client: Any, symbol: str, body: bytes) -> None:
    async def recorded(*_: Any) -> Any:
        answer = json.loads(body)
        book = venue.parse_order_book(answer, symbol, answer["E"])
        book["nonce"] = answer["lastUpdateId"]
        return book

    venue.fetch_rest_order_book_safe = recorded
    await venue.fetch_order_book_snapshot(client, None, {"symbol": symbol, "type": "linear", "limit": 1_000})


def _best(book: Any) -> Best:
    bids, asks = book["bids"], book["asks"]
    return (bids[0][0] if bids else None), (asks[0][0] if asks else None)


def _symbol(contract: Instrument) -> str:
    return f"{contract.underlying}/{contract.quote_currency}:{contract.settle_currency}/{contract.name}"


def _market(contract: Instrument) -> dict[str, Any]:
    option = contract.kind is Kind.OPTION
    return {
        "id": contract.name,
        "symbol": _symbol(contract),
        "base": contract.underlying,
        "quote": contract.quote_currency,
        "settle": contract.settle_currency,
        "baseId": contract.underlying,
        "quoteId": contract.quote_currency,
        "settleId": contract.settle_currency,
        "type": "option" if option else "swap",
        "spot": False,
        "margin": False,
        "swap": not option,
        "future": False,
        "option": option,
        "active": True,
        "contract": True,
        "linear": not option,
        "inverse": option,
        "contractSize": 1,
        "precision": {"price": float(contract.tick_size), "amount": float(contract.lot_size)},
        "limits": {},
        "info": {},
    }


# --- the messages -----------------------------------------------------------------------------------


def _recorded(path: str) -> list[tuple[bool, bytes]] | None:
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    file = Path(os.environ.get("DEA_SHARED_DATA", beside)) / path
    if not file.exists():
        return None
    kinds = (captures.Kind.MESSAGE, captures.Kind.HTTP)
    frames = (frame for frame in captures.frames(file) if frame.kind in kinds)
    return [(frame.kind is captures.Kind.HTTP, frame.payload) for frame in islice(frames, MESSAGES_MAX)]


def _binance_stream() -> Stream:
    recorded = _recorded("ws/usdm_btcusdt_20240808.gz")
    if recorded is None:
        return Stream("feed to best price, Binance (generated)", "binanceusdm", _generated_binance(), 1)
    return Stream("feed to best price, Binance capture", "binanceusdm", recorded, 1)


def _deribit_stream() -> Stream:
    recorded = _recorded("ws/DERIBIT.ws.1.0.gz")
    if recorded is None:
        return Stream("feed to best price, Deribit (generated)", "deribit", _generated_deribit(), 1)
    books = [frame for frame in recorded if b'"id":' not in frame[1]]  # without the answer to subscribe
    return Stream("feed to best price, Deribit capture", "deribit", books, 40)


def _okx_streams() -> list[Stream]:
    """The same messages twice: against ccxt.pro as it is, and verifying."""
    recorded, listing = _recorded("ws/OKX.ws.1.0.gz"), _recorded("ws/OKX.0.gz")
    if recorded is None or listing is None:
        name, frames, contracts = "OKX (generated)", _generated_okx(), _generated_contracts()
    else:
        listed = {c.name: c for _, body in listing for c in instruments_from(body)}
        names = dict.fromkeys(json.loads(body).get("arg", {}).get("instId") for _, body in recorded)
        name, contracts = "OKX capture", tuple(listed[name] for name in names)
        frames = [frame for frame in recorded if b'"event":' not in frame[1]]  # without the answers to subscribe
    return [
        Stream(f"feed to best price, {name}{what}", "okx", frames, 10, contracts, verifies)
        for what, verifies in ((", both verifying", True), (", ours verifying", False))
    ]


def _ladder(rng: random.Random, levels: int) -> tuple[list[list[str]], list[list[str]]]:
    """Random amounts at random steps on either side of 60,000; the touch itself is never removed."""

    def side(sign: int) -> list[list[str]]:
        steps = rng.sample(range(2, 2_000), levels)
        return [[f"{60_000 + sign * step * 0.1:.1f}", f"{rng.choice((0, 1, 2)) * 0.5:.3f}"] for step in steps]

    return [["59999.9", "1.000"], *side(-1)], [["60000.1", "1.000"], *side(1)]


def _generated_binance(messages: int = 10_000) -> list[tuple[bool, bytes]]:
    """One message in fourteen a depth update of some 70 levels, as recorded; the others quotes and trades."""
    rng, last = random.Random(7), 100
    frames = []
    bids, asks = _ladder(rng, 500)
    snapshot = {"lastUpdateId": last, "E": 1, "T": 1, "bids": bids, "asks": asks}
    frames.append((True, json.dumps(snapshot, separators=(",", ":")).encode()))
    for i in range(messages):
        head: dict[str, Any] = {"E": i + 2, "T": i + 2, "s": "BTCUSDT"}
        if i % 14 == 0:
            bids, asks = _ladder(rng, 35)
            data = {"e": "depthUpdate"} | head | {"U": last + 1, "u": last + 5, "pu": last, "b": bids, "a": asks}
            last += 5
        elif i % 4:
            quote = {"b": "59999.90", "B": "1.000", "a": "60000.10", "A": "2.000"}
            data = {"e": "bookTicker", "u": last} | quote | head
        else:
            data = {"e": "trade"} | head | {"t": i, "p": "60000.10", "q": "0.100", "X": "MARKET", "m": False}
        message = {"stream": f"btcusdt@{data['e']}", "data": data}
        frames.append((False, json.dumps(message, separators=(",", ":")).encode()))
    return frames


def _generated_deribit(messages: int = 5_000) -> list[tuple[bool, bytes]]:
    """Book changes of a few levels, a ticker after each."""
    rng, frames = random.Random(7), []
    for i in range(messages):
        bids, asks = _ladder(rng, 2 if i else 100)
        sides = {
            side: [["change" if float(a) else "delete", float(p), float(a)] for p, a in levels]
            for side, levels in (("bids", bids), ("asks", asks))
        }
        book = {"type": "change" if i else "snapshot", "timestamp": i, "instrument_name": "BTC-PERPETUAL"}
        ids = {"change_id": i + 1} | ({"prev_change_id": i} if i else {})
        quote = {"best_bid_price": 59_999.9, "best_bid_amount": 1, "best_ask_price": 60_000.1, "best_ask_amount": 1}
        marks = {"mark_price": 60_000.0, "index_price": 60_000.0, "open_interest": 5.0, "current_funding": 0.0}
        ticker = {"timestamp": i, "instrument_name": "BTC-PERPETUAL"} | marks | quote
        for channel, data in (("book", book | ids | sides), ("ticker", ticker)):
            params = {"channel": f"{channel}.BTC-PERPETUAL.raw", "data": data}
            message = {"jsonrpc": "2.0", "method": "subscription", "params": params}
            frames.append((False, json.dumps(message, separators=(",", ":")).encode()))
    return frames


def _generated_contracts() -> tuple[Instrument, ...]:
    contract = {"instId": "BTC-USD-SWAP", "instType": "SWAP", "lotSz": "1", "tickSz": "0.1", "minSz": "1"}
    money = {"uly": "BTC-USD", "settleCcy": "BTC", "ctVal": "100", "ctMult": "1", "ctType": "inverse"}
    return tuple(instruments_from(json.dumps({"code": "0", "data": [contract | money]}).encode()))


def _generated_okx(messages: int = 400) -> list[tuple[bool, bytes]]:
    """A snapshot of 400 levels a side, then updates of some ten, each with its checksum."""
    rng, frames, words = random.Random(7), [], (Words(1.0), Words(-1.0))
    for i in range(messages):
        sides = [
            [[f"{float(p):.10g}", f"{float(a) * 1_000:g}", "0", "1"] for p, a in side]
            for side in _ladder(rng, 10 if i else 400)
        ]
        for side, levels in zip(words, sides, strict=True):
            for price, amount, *_ in levels:
                side.put(float(price), float(amount), f"{price}:{amount}")
        data = {"asks": sides[1], "bids": sides[0], "ts": str(i), "checksum": checksum(*words)}
        action = "update" if i else "snapshot"
        message = {"arg": {"channel": "books", "instId": "BTC-USD-SWAP"}, "action": action, "data": [data]}
        frames.append((False, json.dumps(message, separators=(",", ":")).encode()))
    return frames


if __name__ == "__main__":
    for row in rows():
        print(json.dumps(row))
