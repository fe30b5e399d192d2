"""Contracts that a venue lists while a run lasts: real sockets, real ccxt, the simulated Deribit."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

from dea_daemon.domain.commands import QueryAccount, QueryInstruments
from dea_daemon.domain.events import (
    AccountReported,
    FeedOpened,
    InstrumentsListed,
    ListingChanged,
    MessageRefused,
    OptionUpdated,
)
from dea_daemon.domain.instruments import Universe
from dea_daemon.shell.clock import Clock
from dea_daemon.shell.settings import load
from dea_daemon.shell.venue_server import VenueServer
from dea_daemon.simvenue.deribit import Deribit
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.scenarios import load as scenario
from dea_daemon.wiring.venue import ACCOUNT, venue_key
from dea_daemon.wiring.venues import Venues
from tests.shell.settings_samples import GUARDS

CONFIG = """\
venues:
  deribit:
    environment: simulated
    instruments: [{patterns}]
    options: [{options}]
    max_contracts: {max_contracts}
    http_url: {http}
    ws_url: {ws}
    client_id: {{env: DEA_ID}}
    client_secret: {{env: DEA_SECRET}}
state_dir: {state}
"""


class Run:
    """Venues with what they told, and a second universe that follows as the engine's does: by events alone."""

    def __init__(self, venues: Venues) -> None:
        self.venues = venues
        self.events: list[object] = []
        self.universe = Universe(
            venues.universe.accounts,
            tuple(zip(venues.universe.account.tolist(), venues.universe.instruments, strict=True)),
        )
        self.tasks: set[asyncio.Task[object]] = set()
        for work in venues.connect(self.emit, self.background):
            self.background(work)

    def background(self, work) -> None:
        task = asyncio.ensure_future(work())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def emit(self, events) -> None:
        for event in events:
            self.events.append(event)
            if isinstance(event, InstrumentsListed) and event.instruments:
                self.universe.extend(tuple((event.account, i) for i in event.instruments))

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, condition, within_s=20.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110 the code under test has no event to wait for
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@asynccontextmanager
async def running(tmp_path, patterns="'BTC-*', BTC_USDC-PERPETUAL", options="'BTC-*'", max_contracts=2_000, ends_s=4.0):
    """A venue whose nearest contracts end after `ends_s`, and are followed by others."""
    clock, key = Clock(), venue_key(7)
    chosen = replace(scenario("options"), nearest_expiry_s=ends_s, settlement_window_s=1.0, option_expiries=2)
    exchange = Exchange(chosen, 7, clock.now_ns())
    exchange.open_account(ACCOUNT, dict(chosen.deposits))
    async with VenueServer(Deribit(exchange, [key]), clock=clock.now_ns) as server:
        text = CONFIG.format(
            http=server.http_url,
            ws=server.ws_url,
            state=tmp_path,
            patterns=patterns,
            options=options,
            max_contracts=max_contracts,
        )
        file = tmp_path / "c.yaml"
        file.write_text(text + GUARDS)
        file.chmod(0o600)
        settings = load(file, {"DEA_ID": key.client_id, "DEA_SECRET": key.client_secret})
        async with Venues(settings, clock) as venues:
            run = Run(venues)
            try:
                await run.until(lambda: len(run.of(FeedOpened)) == 2)
                yield run
            finally:
                await run.close()


async def test_a_contract_listed_while_we_run_joins_and_is_heard_without_a_restart(tmp_path):
    async with running(tmp_path) as run:
        before = len(run.universe)
        await run.until(lambda: [e for e in run.of(ListingChanged) if e.state == "created"])
        run.venues.send(QueryInstruments(0))
        run.venues.send(QueryInstruments(0))
        await run.until(lambda: run.of(InstrumentsListed))
        await run.until(lambda: {e.row for e in run.of(OptionUpdated)} & set(range(before, len(run.universe))))
        names = [instrument.name for instrument in run.universe.instruments]
        assert len(names) > before
        assert all(name.startswith("BTC-") for name in names[before:])
        assert names == [instrument.name for instrument in run.venues.universe.instruments]
        assert run.venues.universe is run.venues.sockets[0].codec._universe
        await run.until(lambda: len(run.of(InstrumentsListed)) == 2)
        assert run.of(InstrumentsListed)[1].instruments == ()  # asked again: nothing joins twice
        assert not run.of(MessageRefused)


async def test_no_more_contracts_are_followed_than_allowed(tmp_path):
    async with running(tmp_path, ends_s=600.0, patterns="BTC-PERPETUAL", options="", max_contracts=1) as run:
        run.venues._traded[0].section.__dict__["instruments"] = ("BTC-*",)  # as if others came later
        run.venues.send(QueryInstruments(0))
        await run.until(lambda: run.of(InstrumentsListed))
        assert len(run.universe) == len(run.venues.universe) == 1
        assert run.of(InstrumentsListed)[0].why == ""


async def test_a_venue_that_cannot_be_asked_for_its_contracts_says_why_and_goes_on(tmp_path):
    async with running(tmp_path, ends_s=600.0, patterns="BTC-PERPETUAL", options="") as run:
        run.venues._traded[0].client.urls["api"]["rest"] = "http://127.0.0.1:1"
        run.venues.send(QueryInstruments(0))
        await run.until(lambda: run.of(InstrumentsListed))
        assert "get_instruments" in run.of(InstrumentsListed)[0].why
        run.venues.send(QueryAccount(0, 0))
        await run.until(lambda: run.of(AccountReported))


async def test_cash_rows_are_the_currencies_that_are_nobodys_underlying(tmp_path):
    async with running(tmp_path, ends_s=600.0, patterns="BTC-PERPETUAL", options="") as run:
        assert run.venues.currencies == ("ETH", "USDC")  # held, and not traded here
