"""From a price's receipt to an order's headers: ours beside a bare "receive, then ccxt.create_order" loop.

Both trade with the same `dea-daemon venue`, in a process of its own on loopback, in turns in this process and on
uvloop. Ours is the daemon as it runs, with all books, guards, ledger, tape and log; its bands are a dollar wide, so
that nearly every index price makes it trade. The bare loop is subscribed to the same prices and to nothing else.
Beside it, at a venue of its own, the same daemon holds the demo's straddles and follows the chains they are from.
Both clocks start where the websocket library has handed the message over, and stop where aiohttp is about to write
the request (`on_request_headers_sent`).
"""

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import ccxt.async_support as ccxt
import numpy as np
import uvloop
import yaml
from websockets.asyncio.client import ClientConnection, connect

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.shell import logs
from dea_daemon.shell.runner import Runner
from dea_daemon.shell.settings import Settings, load
from dea_daemon.wiring.demo import config_file
from dea_daemon.wiring.demo_book import trade_book
from dea_daemon.wiring.live import trade
from tests.wiring.processes import Venue

ROUNDS = 3
SECONDS = 10.0
SETTLE_S = 3.0  # the first, large orders are done by then: from here on it is one small one a price
STAGES = ("wait", "decide", "commit", "send")
SYMBOLS = {"btc_usd": "BTC/USD:BTC", "eth_usd": "ETH/USD:ETH"}  # index: what the bare loop trades on it
LIMITED_US = 500.0  # folding a price takes far less: a longer wait is the rate limit of early ticks


class Ours(NamedTuple):
    """stages [M, 4] of each order, decisions [D]; µs."""

    stages: FloatArray
    decisions: FloatArray


class Samples(NamedTuple):
    """Ours without options, and with a book of them; bare [L] µs."""

    ours: Ours
    booked: Ours
    bare: FloatArray


def rows(rounds: int = ROUNDS, seconds: float = SECONDS, settle_s: float = SETTLE_S) -> list[dict[str, Any]]:
    """p50 and p99 of event to order against the bare loop, then each stage of ours."""
    with tempfile.TemporaryDirectory(prefix="dea-bench-") as folder:
        samples = measure(Path(folder), rounds, seconds, settle_s)
    total = samples.ours.stages.sum(axis=1)
    peer_name = f"receive, then create_order, ccxt {ccxt.__version__}"
    table = []
    for percent in (50, 99):
        ours, peer = np.percentile(total, percent), np.percentile(samples.bare, percent)
        table.append(_row(f"event to order, p{percent}", ours, peer=peer, peer_name=peer_name))
    table += _stages("", samples.ours) + _stages(", with options", samples.booked)
    limited = 100.0 * float((samples.ours.stages[:, 0] > LIMITED_US).mean())
    table.append(_row("orders that waited for the rate limit", limited, unit="% of orders"))
    table.append(_row("orders measured", len(total), peer=len(samples.bare), peer_name="bare loop", unit="orders"))
    table[-1].pop("ratio")  # a count is not faster or slower
    return table


def _stages(suffix: str, ours: Ours) -> list[dict[str, Any]]:
    times = {f"event to order: {stage}": ours.stages[:, k] for k, stage in enumerate(STAGES)}
    times["decision"] = ours.decisions
    if suffix:
        times = {"event to order": ours.stages.sum(axis=1), **times}
    return [_row(f"{name}{suffix}, p{p}", np.percentile(taken, p)) for name, taken in times.items() for p in (50, 99)]


def _row(name: str, ours: float, *, peer: float | None = None, peer_name: str = "", unit: str = "us") -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "ours": round(float(ours), 1), "unit": unit}
    if peer is not None:
        row |= {"peer": round(float(peer), 1), "peer_name": peer_name, "ratio": round(float(peer / ours), 2)}
    return row


def measure(folder: Path, rounds: int, seconds: float, settle_s: float) -> Samples:
    """All in turns: the bare loop and ours at one venue, ours with options at another."""
    folders = [folder / "plain", folder / "booked"]
    for place in folders:
        place.mkdir()
    venues = [Venue(place, scenario="volatile") for place in folders]
    plain: list[Ours] = []
    booked: list[Ours] = []
    bare: list[FloatArray] = []
    try:
        with (folder / "daemon.log").open("w") as log:
            logs.configure("info", "json", log)
            for number in range(rounds):
                for place, venue, kept in zip(folders, venues, (plain, booked), strict=True):
                    with_book = kept is booked
                    settings = _settings(place, venue, number, with_book)
                    kept.append(uvloop.run(_ours(settings, seconds, settle_s, with_book and number == 0)))
                bare.append(uvloop.run(_bare(venues[0], seconds)))
    finally:
        logs.configure()  # the file is closed: what is still said goes to stderr
        for venue in venues:
            venue.close()
    return Samples(_joined(plain), _joined(booked), np.concatenate(bare))


def _joined(rounds: list[Ours]) -> Ours:
    return Ours(np.concatenate([r.stages for r in rounds]), np.concatenate([r.decisions for r in rounds]))


# --- ours -------------------------------------------------------------------------------------------


def _settings(folder: Path, venue: Venue, number: int, with_book: bool) -> Settings:
    """The shipped configuration, made restless and without any limit in the way."""
    config = yaml.safe_load(config_file("simvenue.yaml").read_text())
    targets = {"BTC": {"kind": "fixed", "delta_usd": 250_000, "band_usd": 1}}
    targets["ETH"] = {"kind": "fixed", "delta_usd": 120_000, "band_usd": 1}
    config["allocator"]["targets"] = targets
    config["execution"] |= {"order_type": "taker", "dust_usd": 0}
    config["guards"] |= {"max_turnover_usd_per_hour": 1e12, "max_fees_usd_per_hour": 1e9}
    config["guards"]["max_orders_per_minute"] = 1_000_000
    config["venues"]["deribit"]["throttle"]["orders"] = {"per_s": 95, "burst": 190}  # the venue's are 100 and 200
    if with_book:
        config["venues"]["deribit"]["options"] = ["BTC-*", "ETH-*"]
    config |= {"wake_move_bp": 0.001, "decide_at_most_every_ms": 1}
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return load(path, {**os.environ, **venue.environ, "STATE_DIRECTORY": str(folder / f"state{number}")})


async def _ours(settings: Settings, seconds: float, settle_s: float, trades_book: bool) -> Ours:
    """Measured after the run has settled; the venue keeps a book of options from one run to the next."""
    kept: list[FloatArray] = []
    if trades_book and settings.venues.deribit is not None:
        await trade_book(settings.venues.deribit)

    async def until(runner: Runner) -> None:
        await asyncio.sleep(settle_s)
        runner.stats.stages_ns.clear()
        runner.stats.decision_ns.clear()
        await asyncio.sleep(seconds)
        kept.append(np.array(runner.stats.stages_ns, dtype=np.float64).reshape(-1, len(STAGES)) / 1e3)
        kept.append(np.array(runner.stats.decision_ns, dtype=np.float64) / 1e3)

    await trade(settings, until)
    return Ours(*kept)


# --- the bare loop ----------------------------------------------------------------------------------


async def _bare(venue: Venue, seconds: float) -> FloatArray:
    """One order at each price, each awaited before the next price is looked at; [L] µs."""
    sent_ns: list[int] = []
    trace = aiohttp.TraceConfig()

    async def headers_sent(*_: object) -> None:
        sent_ns.append(time.perf_counter_ns())

    trace.on_request_headers_sent.append(headers_sent)
    at = venue.listening
    client = ccxt.deribit({"apiKey": at["client_id"], "secret": at["client_secret"], "enableRateLimit": False})
    client.urls["api"]["rest"] = at["http_url"]
    session = client.session = aiohttp.ClientSession(trace_configs=[trace])
    taken: list[float] = []
    try:
        await client.load_markets()
        async with connect(at["ws_url"], compression=None) as socket:
            await _subscribe(socket)
            deadline_s = time.monotonic() + seconds
            while time.monotonic() < deadline_s:
                message = await socket.recv(decode=False)
                received_ns = time.perf_counter_ns()
                if (index := json.loads(message).get("params", {}).get("data")) is None:
                    continue  # the answer to subscribe
                sent_ns.clear()
                await _create(client, index, "buy" if len(taken) % 2 else "sell")
                taken.append((sent_ns[0] - received_ns) / 1e3)
    finally:
        await client.close()
        await session.close()
    return np.array(taken, dtype=np.float64)


async def _create(client: Any, index: dict[str, Any], side: str) -> None:
    """Ten dollars at most 5 bp through the index: filled, or gone at once."""
    symbol, through = SYMBOLS[index["index_name"]], 1.0005 if side == "buy" else 0.9995
    price = client.price_to_precision(symbol, index["price"] * through)
    await client.create_order(symbol, "limit", side, 10, price, {"timeInForce": "IOC"})


async def _subscribe(socket: ClientConnection) -> None:
    channels = [f"deribit_price_index.{index}" for index in SYMBOLS]
    request = {"jsonrpc": "2.0", "id": 1, "method": "public/subscribe", "params": {"channels": channels}}
    await socket.send(json.dumps(request))
