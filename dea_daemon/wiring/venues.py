"""The venues of one run: clients, contracts, sockets and dispatchers, opened together and closed together."""

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog

from dea_daemon.domain.commands import (
    Approved,
    CancelOrder,
    Outgoing,
    QueryAccount,
    QueryInstruments,
    QueryOrder,
    Resubscribe,
)
from dea_daemon.domain.errors import ConfigError, VenueError
from dea_daemon.domain.events import AnyEvent, InstrumentsListed, PricesRecalled
from dea_daemon.domain.instruments import AccountKey, Instrument, Kind, Universe
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.feeds import binance, deribit, okx, okx_mapping
from dea_daemon.feeds.codec import Socket
from dea_daemon.shell.ccxt_client import Client, close_client, open_client, venue_urls
from dea_daemon.shell.clock import Clock
from dea_daemon.shell.gateway import Gateway
from dea_daemon.shell.listings import Listings
from dea_daemon.shell.recall import Candles, Past, binance_candles, deribit_candles, okx_candles, recall
from dea_daemon.shell.recorder import CaptureWriter
from dea_daemon.shell.settings import BinanceUsdmSection, DeribitSection, OkxSection, Settings, VenueSection
from dea_daemon.shell.snapshots import HttpFetch
from dea_daemon.shell.sockets import Tap, VenueSocket
from dea_daemon.shell.throttle import Dispatcher, Pool
from dea_daemon.shell.venue_calls import (
    AccountFacts,
    cancel_all_own,
    check_account,
    contract_fees,
    highest_epoch,
    load_instruments,
)

log = structlog.get_logger()
BINANCE_HTTP, BINANCE_WS = "https://fapi.binance.com", "wss://fstream.binance.com"
OKX_HTTP = "https://www.okx.com"
OKX_WS = {"live": "wss://ws.okx.com:8443", "testnet": "wss://wspap.okx.com:8443"}
MAX_SKEW_MS = 1_000.0


@dataclass(slots=True)
class Traded:
    """A venue we send orders to."""

    section: DeribitSection
    client: Client
    facts: AccountFacts
    queries: Pool
    dispatcher: Dispatcher | None = None


Emit = Callable[[Iterable[AnyEvent]], None]


class Venues:
    """All configured venues. `universe` numbers their contracts, and grows in place as some are listed; `send` routes
    a command to its venue."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._stack = AsyncExitStack()
        self._rng = random.Random()  # noqa: S311 jitter of reconnects, nothing secret
        self._traded: dict[int, Traded] = {}
        self._fetch: dict[int, HttpFetch] = {}
        self._candles: dict[int, Candles] = {}
        self._socket_of: dict[int, VenueSocket] = {}
        self._recorder: CaptureWriter | None = None
        self._background: Callable[[Any], None] = lambda coroutine: None
        self.sockets: list[VenueSocket] = []
        self.on_sent: Callable[[str, int], None] = lambda client_order_id, sent_ns: None
        self.universe = Universe((), ())

    async def __aenter__(self) -> Self:
        """Connect, compare with the configuration, list contracts. ConfigError or VenueError where that fails."""
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        if self._settings.record.enabled:
            directory = self._settings.state_dir / "captures"
            recorder = self._recorder = CaptureWriter(directory, self._settings.record.max_mb, self._clock.utc_ns)
            self._stack.push_async_callback(asyncio.to_thread, recorder.close)
        accounts: list[AccountKey] = []
        rows: list[tuple[int, Instrument]] = []
        for number, section in enumerate(self._settings.venues.sections):
            accounts.append(AccountKey(section.venue, section.account))
            try:
                listed = await self._list(number, section)
            except (ConfigError, VenueError) as error:
                where = f" at {section.http_url}" if section.http_url else ""
                raise type(error)(f"{section.venue}/{section.account}{where}: {error}") from error
            rows += [(number, instrument) for instrument in section.select(listed)]
        self.universe = Universe(tuple(accounts), tuple(rows))

    async def _list(self, number: int, section: VenueSection) -> list[Instrument]:
        """Connect to one venue; its contracts."""
        if isinstance(section, DeribitSection):
            return await self._open_deribit(number, section)
        if isinstance(section, BinanceUsdmSection):
            return await self._open_binance(number, section)
        if isinstance(section, OkxSection):
            return await self._open_okx(number, section)
        raise ConfigError("no way to connect")

    async def _open_deribit(self, number: int, section: DeribitSection) -> list[Instrument]:
        client = open_client(section.access(), lambda key: self.on_sent(key, self._clock.now_ns()))
        self._stack.push_async_callback(close_client, client)
        facts = await check_account(
            client,
            self._clock.utc_ns,
            margin_model=section.margin_model,
            max_skew_ms=MAX_SKEW_MS,
            must_trade=self._settings.armed,
        )
        if section.environment == "live" and facts.may_withdraw is not False and not section.acknowledge_withdraw_scope:
            raise ConfigError(
                "the key may withdraw, or the venue does not say: use one without, or set acknowledge_withdraw_scope"
            )
        traded = self._traded[number] = Traded(section, client, facts, Pool(section.access().queries))
        self._candles[number] = deribit_candles(client, traded.queries)
        listed = await load_instruments(client, section.wants)
        log.info(
            "venue.checked",
            venue=section.venue,
            skew_ms=round(facts.clock_skew_ms, 1),
            scopes=sorted(facts.scopes),
            fees=[*facts.fees, *contract_fees(section.select(listed))],
            fee_group=facts.fee_group or "none",
        )
        chosen = {instrument.name for instrument in section.select(listed)}
        infos = (market["info"] for market in client.markets.values())
        rows = {"result": [info for info in infos if info["instrument_name"] in chosen]}
        self._record_list(section, "/api/v2/public/get_instruments", msgspec.json.encode(rows))
        return listed

    async def _open_binance(self, number: int, section: BinanceUsdmSection) -> list[Instrument]:
        session = await self._stack.enter_async_context(aiohttp.ClientSession())
        fetch = self._fetch[number] = HttpFetch(session, section.http_url or BINANCE_HTTP)
        self._candles[number] = binance_candles(fetch)
        try:
            body = await fetch("/fapi/v1/exchangeInfo")
            listed = msgspec.json.decode(body)["symbols"]
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            raise VenueError(f"unreadable list of contracts from {section.venue}: {error}") from error
        self._record_list(section, "/fapi/v1/exchangeInfo", body)
        wanted = (info for info in listed if info.get("status") == "TRADING")
        # Market data only: orders go to Deribit.
        return [msgspec.structs.replace(binance.instrument_from(info), tradable=False) for info in wanted]

    async def _open_okx(self, number: int, section: OkxSection) -> list[Instrument]:
        session = await self._stack.enter_async_context(aiohttp.ClientSession())
        fetch = HttpFetch(session, section.http_url or OKX_HTTP)
        self._candles[number] = okx_candles(fetch)
        listed: list[Instrument] = []
        for query in okx_mapping.listing_queries(section.instruments):
            body = await fetch(f"{okx_mapping.LISTING}?{query}")
            self._record_list(section, f"{okx_mapping.LISTING}?{query}", body)
            listed += okx_mapping.instruments_from(body)
        # Market data only: orders go to Deribit.
        return [msgspec.structs.replace(i, tradable=False) for i in listed if i.tradable]

    def _record_list(self, section: VenueSection, path: str, body: bytes) -> None:
        if self._recorder is not None:
            url = f"{section.http_url or f'https://{section.venue}'}{path}"
            self._recorder.http(section.venue, url, body, self._clock.now_ns())

    @property
    def currencies(self) -> tuple[str, ...]:
        """Settled in or held, and nobody's underlying, by name: each has a row of cash among the factors."""
        settled = {i.settle_currency for i in self.universe.instruments}
        held = {currency for traded in self._traded.values() for currency in traded.facts.held}
        return tuple(sorted((settled | held).difference(self.universe.underlyings)))

    async def highest_epoch(self) -> int:
        """The highest epoch any venue has an open or recent order of."""
        highest = 0
        for number, traded in self._traded.items():
            pools = {
                i.settle_currency for r, i in enumerate(self.universe.instruments) if self.universe.account[r] == number
            }
            highest = max(highest, await highest_epoch(traded.client, sorted(pools)))
        return highest

    async def recalled(self) -> PricesRecalled | None:
        """Prices of before the run, as the settings want them; None where there are none. Never raises."""
        wanted = self._settings.recall
        if not wanted.enabled:
            return None
        pasts, names = [self._past(number) for number in self._candles], self.universe.underlyings
        now_ns = self._clock.now_ns()
        return await recall(pasts, names, days=wanted.days, within_s=wanted.within_s, now_ns=now_ns)

    def _past(self, number: int) -> Past:
        """One venue's candles: of an underlying those of a perpetual followed, else of Deribit's own."""
        rows = zip(self.universe.account.tolist(), self.universe.instruments, strict=True)
        perpetuals = [i for account, i in rows if account == number and i.kind is Kind.PERPETUAL]
        contracts = {i.underlying: i.name for i in reversed(perpetuals)}
        if (traded := self._traded.get(number)) is not None:
            names = ((u, f"{u}-PERPETUAL") for u in self.universe.underlyings)
            contracts = {u: name for u, name in names if name in traded.client.markets_by_id} | contracts
        return Past(self._settings.venues.sections[number].venue, self._candles[number], contracts)

    async def cancel_all(self) -> None:
        """The last resort, without the engine: cancel every order of ours. Says what is left, never raises."""
        for traded in self._traded.values():
            done = await cancel_all_own(traded.client)
            log.error("order.all_cancelled", cancelled=done.cancelled, left=list(done.left), why=done.why)

    # --- running ---------------------------------------------------------------------------------

    def connect(self, emit: Emit, background: Callable[[Any], None]) -> list[Callable[[], Any]]:
        """Make sockets and dispatchers that hand their events to `emit`. Returns what has to run, as coroutine
        functions; `background` starts a coroutine beside them."""
        self._background = background
        work: list[Callable[[], Any]] = []
        for number, section in enumerate(self._settings.venues.sections):
            if isinstance(section, DeribitSection):
                work.append(self._dispatch(number, emit))
                access = section.access()
                _, base = venue_urls(access)
                secret = access.client_secret.get_secret_value()
                held = self._traded[number].facts.held
                sockets = deribit.sockets(self.universe, number, access.client_id, secret, held=held)
                path = "" if urlsplit(base).path.strip("/") else "/ws/api/v2"
            elif isinstance(section, OkxSection):
                base, path = section.ws_url or OKX_WS[section.environment], ""
                sockets = okx.sockets(self.universe, number)
            else:
                base, path = section.ws_url or BINANCE_WS, ""
                sockets = binance.sockets(self.universe, number)
            for socket in sockets:
                socket.codec.leave(self._ended())
            work += [self._socket(base + path, socket, number, emit).run for socket in sockets]
        return work

    def _ended(self) -> list[int]:
        """Rows whose contract is over before the run begins."""
        expiry_ns, utc_ns = self.universe.expiry_ns, self._clock.utc_ns()
        return [row for row, ns in enumerate(expiry_ns.tolist()) if 0 < ns <= utc_ns]

    def _dispatch(self, number: int, emit: Emit) -> Callable[[], Any]:
        traded, clock = self._traded[number], self._clock
        section = traded.section
        listings = Listings(self.universe, number, section.takes, section.max_contracts, clock.utc_ns)
        access = traded.section.access()

        def throttled(retry_after_ms: int) -> None:
            log.warning("venue.throttled", retry_after_ms=retry_after_ms)
            dispatcher.pause(retry_after_ms)

        gateway = Gateway(
            traded.client,
            number,
            self.universe,
            now_ns=clock.now_ns,
            utc_ns=clock.utc_ns,
            pace=traded.queries.acquire,
            on_throttled=throttled,
            fresh=listings.fresh,
            changed=listings.changed,
        )
        dispatcher = traded.dispatcher = Dispatcher(
            gateway,
            partial(self._heard, emit, listings),
            orders=Pool(access.orders),
            cancel_reserve=access.cancel_reserve,
            now_ns=clock.now_ns,
            utc_ns=clock.utc_ns,
        )
        self._stack.push_async_callback(dispatcher.close, 2.0)
        return dispatcher.run

    def _heard(self, emit: Emit, listings: Listings, events: list[AnyEvent]) -> None:
        """Hand on the answers of one account. Contracts that are new are numbered here first, and then in the engine,
        before anything else can be: both number the same. Then they are subscribed to."""
        for event in events:
            if isinstance(event, InstrumentsListed):
                rows = listings.take(event)
                emit([event])
                self._join(event.account, rows, listings.ended())
            else:
                emit([event])

    def _join(self, account: int, rows: tuple[int, ...], ended: tuple[int, ...]) -> None:
        for socket in self.sockets:
            codec = socket.codec
            if codec.account == account:
                codec.leave(ended)
                if rows:
                    self._background(partial(socket.join, rows))
                if not codec.private:
                    self._socket_of |= dict.fromkeys(rows, socket)

    def _socket(self, base: str, socket: Socket, number: int, emit: Emit) -> VenueSocket:
        made = VenueSocket(
            base + socket.path,
            socket.codec,
            emit,
            now_ns=self._clock.now_ns,
            utc_ms=lambda: self._clock.utc_ns() // NS_PER_MS,
            rng=self._rng,
            fetch=self._fetch.get(number),
            tap=self._tap(socket),
        )
        self.sockets.append(made)
        for row in socket.codec.rows:
            self._socket_of.setdefault(row, made)
        return made

    def _tap(self, socket: Socket) -> Tap | None:
        """An account's own stream is never recorded."""
        if self._recorder is None or socket.codec.private:
            return None
        return self._recorder.tap(socket.codec.feed)

    def send(self, command: Outgoing) -> None:
        """Hand a command to its venue. Never waits."""
        match command:
            case Resubscribe(row=row):
                if (socket := self._socket_of.get(row)) is not None:
                    self._background(partial(socket.resubscribe, row))
            case QueryAccount(account=account) | QueryInstruments(account=account):
                self._to(account, command)
            case Approved(order=order):
                self._to(int(self.universe.account[order.row]), command)
            case CancelOrder() | QueryOrder():
                self._to(int(self.universe.account[command.row]), command)

    def _to(self, account: int, command: Outgoing) -> None:
        dispatcher = self._traded[account].dispatcher
        if dispatcher is not None:
            dispatcher.submit(command)
