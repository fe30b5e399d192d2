"""What the venue does to us or announces while we trade there: real sockets, a real daemon, and the venue at hand."""

import asyncio
import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dea_daemon.shell.clock import Clock
from dea_daemon.shell.venue_server import VenueServer
from dea_daemon.simvenue import scenarios
from dea_daemon.simvenue.deribit import Deribit
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.wiring.venue import ACCOUNT, venue_key
from tests.wiring.processes import CLI, config, ledger_fills

pytestmark = pytest.mark.timeout(120)
KEY, BTC = venue_key(7), "BTC-PERPETUAL"


class Place:
    """A venue in this process, and the daemon that trades there in another."""

    def __init__(self, folder: Path) -> None:
        self.log, self.state, self.output = folder / "venue.jsonl", folder / "state", folder / "run.out"
        clock, chosen = Clock(), replace(scenarios.load("calm"), options=False)
        self.exchange = Exchange(chosen, 7, clock.now_ns())
        self.exchange.open_account(ACCOUNT, dict(chosen.deposits))
        self.venue = Deribit(self.exchange, [KEY])
        self.server = VenueServer(self.venue, log=self.log, clock=clock.now_ns)
        self.asked: Counter[str] = Counter()
        self.process: asyncio.subprocess.Process | None = None
        handle, authorise = self.venue.handle, self.venue.authorise

        def counted(session: Any, request: Any, now_ns: int) -> Any:
            self.asked[request["method"]] += 1
            return handle(session, request, now_ns)

        def looked_at(session: Any, header: str, http_method: str, raw_path: str, body: str, now_ns: int) -> Any:
            refused = authorise(session, header, http_method, raw_path, body, now_ns)
            if refused is not None:  # it goes no further
                self.asked[raw_path.partition("?")[0].partition("/api/v2/")[2]] += 1
            return refused

        self.venue.handle = counted  # type: ignore[method-assign]
        self.venue.authorise = looked_at  # type: ignore[method-assign]

    async def start(self, path: Path) -> None:
        where = {"HTTP_URL": self.server.http_url, "WS_URL": self.server.ws_url}
        named = where | {"CLIENT_ID": KEY.client_id, "CLIENT_SECRET": KEY.client_secret}
        environ = {f"DEA_SIMVENUE_{name}": value for name, value in named.items()}
        with self.output.open("wb") as file:
            self.process = await asyncio.create_subprocess_exec(
                *[*CLI, "run", "-c", str(path), "--json"],
                stdout=file,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **environ, "STATE_DIRECTORY": str(self.state)},
            )

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), 15)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()

    def heard(self, event: str) -> list[dict[str, Any]]:
        """What the daemon said."""
        lines = self.output.read_text().splitlines() if self.output.exists() else []
        told = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [one for one in told if one["event"] == event]

    def seen(self, *events: str, instrument: str = "") -> list[dict[str, Any]]:
        """What the venue saw."""
        records = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [r for r in records if r["event"] in events and instrument in ("", r["instrument"])]

    def creates(self, instrument: str = "") -> int:
        return len(self.seen("order.accepted", "order.rejected", instrument=instrument))

    def lots(self) -> dict[str, int]:
        return {position.instrument: position.lots for position in self.exchange.positions(ACCOUNT)}

    async def until(self, condition: Callable[[], object], what: str, within_s: float = 30.0) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"timed out waiting for {what}"
            await asyncio.sleep(0.05)


@pytest.fixture
def slowly(tmp_path) -> Path:
    """A configuration that takes its time to the target: there is always an order to send."""
    return config(
        tmp_path,
        instruments="[BTC-PERPETUAL, ETH-PERPETUAL]",
        slice_usd="500",
        cross_after_ms="200",
        query_every_ms="300",
        reconcile_every_ms="1_000",
        relist_every_s="1",
        timeout_ms="2_000",
        max_orders_per_minute="1_000",
    )


@contextlib.asynccontextmanager
async def trading(folder: Path, path: Path) -> AsyncIterator[Place]:
    place = Place(folder)
    async with place.server:
        try:
            await place.start(path)
            await place.until(lambda: len(place.seen("order.filled", instrument=BTC)) > 3, "fills")
            yield place
        finally:
            await place.stop()


async def test_a_liquidation_halts_the_daemon_and_is_in_its_ledger(tmp_path, slowly):
    async with trading(tmp_path, slowly) as place:
        account = place.exchange.account(ACCOUNT)
        held = place.lots()[BTC]
        account.cash["BTC"] = 0.000_01  # its money is gone
        await place.until(lambda: place.seen("position.liquidated"), "the liquidation")
        await place.until(lambda: place.heard("mode.changed"), "the halt", 5)
        changed = place.heard("mode.changed")[0]
        assert changed["after"] == "halted" and "liquidated" in changed["why"]
        await asyncio.sleep(1.0)
        before = place.creates(BTC)
        await asyncio.sleep(2.0)
        assert abs(place.lots()[BTC]) < abs(held)
        assert place.creates(BTC) == before
        await place.stop()
        theirs = {fill.trade_id for fill in place.exchange.fills(ACCOUNT)}
        assert set(ledger_fills(place.state)) == theirs
        assert any(fill.liquidation for fill in place.exchange.fills(ACCOUNT))


async def test_nothing_is_sent_during_an_announced_maintenance_and_it_goes_on_after(tmp_path, slowly):
    async with trading(tmp_path, slowly) as place:
        place.exchange.lock()
        await place.until(lambda: place.heard("venue.closed"), "the announcement to be heard", 5)
        await asyncio.sleep(0.5)  # what had left by then is refused
        refused, lots = place.creates(), place.lots()
        await asyncio.sleep(3.0)
        assert place.creates() == refused
        assert place.lots() == lots
        place.exchange.lock(locked=False)
        await place.until(lambda: place.heard("venue.opened"), "the end to be heard", 5)
        filled = len(place.seen("order.filled"))
        await place.until(lambda: len(place.seen("order.filled")) > filled + 3, "trading to go on", 15)
        assert not place.heard("mode.changed")


async def test_who_starts_in_the_middle_of_a_maintenance_sends_nothing_before_its_end(tmp_path, slowly):
    place = Place(tmp_path)
    async with place.server:
        place.exchange.lock()
        try:
            await place.start(slowly)
            await place.until(lambda: place.heard("venue.closed"), "the state to be asked for")
            await asyncio.sleep(3.0)
            assert len(place.seen("order.rejected")) <= 2  # decided before the answer was there
            place.exchange.lock(locked=False)
            await place.until(lambda: place.seen("order.filled"), "trading to begin", 15)
        finally:
            await place.stop()


async def test_a_contract_of_another_grid_is_left_alone_until_a_restart_reads_it_anew(tmp_path, slowly):
    async with trading(tmp_path, slowly) as place:
        place.exchange.change_tick(BTC, Decimal("12.5"))
        await place.until(lambda: place.heard("instrument.regridded"), "the change to be noticed", 10)
        await asyncio.sleep(1.0)
        before = place.creates(BTC)
        await asyncio.sleep(3.0)
        assert place.creates(BTC) == before
        assert place.creates("ETH-PERPETUAL")
        assert len(place.heard("instrument.regridded")) == 1
        await place.stop()
        rejected, accepted = (len(place.seen(e, instrument=BTC)) for e in ("order.rejected", "order.accepted"))
        await place.start(slowly)
        await place.until(lambda: len(place.seen("order.accepted", instrument=BTC)) > accepted + 3, "trading again")
        assert len(place.seen("order.rejected", instrument=BTC)) == rejected
        later = [r for r in place.seen("order.accepted", instrument=BTC)[accepted:] if r["side"]]
        assert all(record["price"] % 12.5 == 0 for record in later)


async def test_a_key_that_is_revoked_stops_trading_without_spinning_and_is_missed_in_the_log(tmp_path, slowly):
    async with trading(tmp_path, slowly) as place:
        place.venue.revoke(KEY.client_id)
        await asyncio.sleep(1.0)
        lots, asked = place.lots(), Counter(place.asked)
        seconds = 15.0
        await asyncio.sleep(seconds)
        assert place.process is not None and place.process.returncode is None
        assert place.lots() == lots
        during = place.asked - asked
        assert sum(during.values()) / seconds < 40, during
        assert (during["private/buy"] + during["private/sell"]) / seconds < 2, during
        said = place.output.read_text()
        assert "invalid_credentials (13004)" in said  # of requests
        assert "13009 unauthorized" in said  # of the account's stream, which by itself would have gone silent
        assert "deribit.private" in {closed["feed"] for closed in place.heard("feed.closed")}
        place.venue.restore(KEY.client_id)
        filled = len(place.seen("order.filled"))
        await place.until(lambda: len(place.seen("order.filled")) > filled + 3, "trading to go on", 60)
        assert not place.heard("mode.changed")
        await place.until(lambda: {s.account for s in place.venue.sessions} == {ACCOUNT}, "both streams to be back", 60)
