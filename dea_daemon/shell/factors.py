"""Slow factors while a run lasts: each source is asked on its schedule, what is new is kept and told to the core.

A source that is missing, hangs, lies or changes its mind costs its own factor, which fades with age, and nothing else.
Only the URLs of the configuration are contacted; no redirect is followed; no text of an error that may hold a URL, and
so a key, is repeated.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from stat import S_ISREG
from threading import Thread
from typing import Self

import aiohttp
import structlog

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.events import FactorObserved
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S
from dea_daemon.shell.factor_formats import Row, newest, read, request
from dea_daemon.shell.factor_settings import Fred, HttpJson, Source, WatchedFile
from dea_daemon.shell.factor_store import FactorStore, Policy, Vintage
from dea_daemon.shell.redaction import register_secret

log = structlog.get_logger()
REPLY_MOST = 2 << 20  # bytes of one answer
PAGES_MOST = 60
RECALLED = 1_500  # values of one factor: what the core keeps
AT_ONCE = 100  # events folded before others have their turn
RETRY_S = 30.0  # after a failure; doubled with each in a row, up to the schedule
HOUR_NS = 3_600 * NS_PER_S

Emit = Callable[[Iterable[FactorObserved]], None]
Clock = Callable[[], int]


def policy_of(source: Source) -> Policy:
    return Policy(int(source.lag_h * HOUR_NS), int(source.backfill_lag_h * HOUR_NS), source.revisions == "accept")


class Factors:
    """All sources of a configuration."""

    def __init__(
        self, sources: Mapping[str, Source], store: FactorStore, now_ns: Clock, utc_ns: Clock, retry_s: float = RETRY_S
    ) -> None:
        """`now_ns` is the receipt clock, `utc_ns` the wall clock."""
        self._sources, self._store = sources, store
        self._now_ns, self._utc_ns, self._retry_s = now_ns, utc_ns, retry_s
        for source in sources.values():
            if isinstance(source, Fred | HttpJson) and source.api_key is not None:
                register_secret(source.api_key.reveal())

    @classmethod
    def open(cls, sources: Mapping[str, Source], path: Path, now_ns: Clock, utc_ns: Clock) -> Self:
        """With the store at `path`; without sources there is none. Where it cannot be used, one in memory: never
        raises."""
        try:
            store = FactorStore(path if sources else None)
        except DataError as error:
            log.warning("factor.store_failed", why=str(error), instead="kept in memory, for this run alone")
            store = FactorStore(None)
        return cls(sources, store, now_ns, utc_ns)

    def close(self) -> None:
        self._store.close()

    def recalled(self) -> list[FactorObserved]:
        """What earlier runs have kept, oldest first, no more of each than the core keeps."""
        utc_ns, now_ns = self._utc_ns(), self._now_ns()
        told: list[FactorObserved] = []
        for name in self._sources:
            try:
                past = self._store.known(name, utc_ns, RECALLED) + self._store.unpublished(name, utc_ns)
            except DataError as error:
                log.warning("factor.failed", factor=name, why=str(error))
                continue
            told += [_event(name, vintage, now_ns) for vintage in past]
        if told:
            log.info("factor.recalled", factors=len({event.name for event in told}), values=len(told))
        return sorted(told, key=lambda event: event.event_ns)

    async def run(self, emit: Emit) -> None:
        """Ask until cancelled."""
        if not self._sources:
            return
        # Whatever a source says, and in whatever time, nothing is followed, kept or sent but what is asked here.
        async with aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, headers={"Accept-Encoding": "identity"}
        ) as session:
            asking = [self._forever(name, source, session, emit) for name, source in self._sources.items()]
            async with asyncio.TaskGroup() as group:
                for each in asking:
                    group.create_task(each)

    async def _forever(self, name: str, source: Source, session: aiohttp.ClientSession, emit: Emit) -> None:
        failures, told = 0, ""
        seen = _Seen()
        while True:
            why = await self._once(name, source, session, emit, seen)
            if why and why != told:
                log.warning("factor.failed", factor=name, why=why, in_a_row=failures + 1)
            elif failures and not why:
                log.info("factor.recovered", factor=name, failures=failures)
            failures, told = (failures + 1 if why else 0), why
            wait_s = min(self._retry_s * 2 ** min(failures - 1, 20), max(source.every_s, self._retry_s))
            await asyncio.sleep(wait_s if failures else source.every_s)

    async def _once(self, name: str, source: Source, session: aiohttp.ClientSession, emit: Emit, seen: "_Seen") -> str:
        """Ask once. Returns why that failed, or "". Whatever goes wrong is the source's failure, not the run's."""
        task = asyncio.create_task(self._ask(name, source, session, seen))
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
        error = task.exception() if not task.cancelled() else None
        if error is not None:
            return str(error) if isinstance(error, DataError) else type(error).__name__
        new = [] if task.cancelled() else task.result()
        for first in range(0, len(new), AT_ONCE):
            emit([_event(name, vintage, self._now_ns()) for vintage in new[first : first + AT_ONCE]])
            await asyncio.sleep(0)
        return ""

    async def _ask(self, name: str, source: Source, session: aiohttp.ClientSession, seen: "_Seen") -> Sequence[Vintage]:
        """All pages of one answer, read, and kept; what is new of it."""
        if isinstance(source, WatchedFile):
            return await self._watch(name, source, seen)
        newest_ns = await asyncio.to_thread(self._store.newest_ns, name)
        days = source.history_days if newest_ns is None else source.restated_days
        since_ns = (self._utc_ns() if newest_ns is None else newest_ns) - int(days * NS_PER_DAY)
        rows: list[Row] = []
        page = ""
        async with asyncio.timeout(source.timeout_s):
            for _ in range(PAGES_MOST):
                body = await _get(session, *request(source, since_ns, page))
                rows, following = await asyncio.to_thread(self._read_page, source, body, rows)
                if following in ("", page):
                    return await asyncio.to_thread(self._keep, name, source, rows, seen)
                page = following
        raise DataError(f"more than {PAGES_MOST} pages")

    def _read_page(self, source: Source, body: bytes, before: list[Row]) -> tuple[list[Row], str]:
        """The rows of all pages so far, and the token of the next."""
        told = read(source, body, self._utc_ns())
        return newest([*before, *told.rows]), told.next_page

    async def _watch(self, name: str, source: WatchedFile, seen: "_Seen") -> Sequence[Vintage]:
        """What is new in a file that changed. While one reading hangs there is no second."""
        seen.reading = seen.reading or _reading(source.path)
        try:
            async with asyncio.timeout(source.timeout_s):
                body = await asyncio.wrap_future(seen.reading)
        finally:
            seen.reading = None if seen.reading.done() else seen.reading
        if body == seen.body:
            return ()
        rows, _ = await asyncio.to_thread(self._read_page, source, body, [])
        new = await asyncio.to_thread(self._keep, name, source, rows, seen)
        seen.body = body
        return new

    def _keep(self, name: str, source: Source, rows: list[Row], seen: "_Seen") -> Sequence[Vintage]:
        """Into the store, but for what is older than the history or about a time still to come, which is said when it
        changes. Raises DataError."""
        now_ns = self._utc_ns()
        since_ns = now_ns - int(source.history_days * NS_PER_DAY)
        rows = [row for row in rows if row.event_ns >= since_ns]
        told = [row for row in rows if row.event_ns <= now_ns]
        early = frozenset(row.event_ns for row in rows if row.event_ns > now_ns)
        if early - seen.early:
            log.warning("factor.refused", factor=name, values=len(early), why="about a time still to come")
        seen.early = early
        return self._store.record(name, told, now_ns, policy_of(source))


class _Seen:
    """What a source told last of times to come; what a watched file said last, and its reading that is not over."""

    early: frozenset[int] = frozenset()
    body: bytes | None = None
    reading: Future[bytes] | None = None


def _reading(path: Path) -> Future[bytes]:
    """A file's bytes, read in a thread of its own that no exit waits for: a mount that hangs lets nobody go."""
    told: Future[bytes] = Future()
    told.set_running_or_notify_cancel()  # nobody's cancelling reaches the thread

    def run() -> None:
        try:
            told.set_result(_bytes_of(path))
        except Exception as error:  # noqa: BLE001 whoever waits raises it
            told.set_exception(error)

    Thread(target=run, name="factor file", daemon=True).start()
    return told


def _bytes_of(path: Path) -> bytes:
    """Raises DataError, OSError."""
    if not S_ISREG(path.stat().st_mode):
        raise DataError("no regular file")
    with path.open("rb") as file:
        body = file.read(REPLY_MOST + 1)
    if len(body) > REPLY_MOST:
        raise DataError(f"more than {REPLY_MOST >> 20} MB")
    return body


async def _get(session: aiohttp.ClientSession, url: str, query: Mapping[str, str]) -> bytes:
    """One answer. Raises DataError, aiohttp.ClientError, OSError."""
    async with session.get(url, params=query, allow_redirects=False) as reply:
        if reply.status != 200:
            raise DataError(f"status {reply.status}" + (", a redirect" if 300 <= reply.status < 400 else ""))
        if reply.headers.get("Content-Encoding", "identity") != "identity":
            raise DataError("compressed, which was not asked for")
        body = bytearray()
        async for part in reply.content.iter_chunked(1 << 16):
            body += part
            if len(body) > REPLY_MOST:
                raise DataError(f"more than {REPLY_MOST >> 20} MB")
        return bytes(body)


def _event(name: str, vintage: Vintage, now_ns: int) -> FactorObserved:
    return FactorObserved(now_ns, name, vintage.event_ns, vintage.publish_ns, vintage.value, vintage.revision)
