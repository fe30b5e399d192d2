"""`dea-daemon cancel-all`: our own orders away, without the engine and without the ledger.

For systemd's ExecStopPost, and for a person whose daemon hangs or is gone. It goes by the shape of our labels, so
orders placed by hand stay.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import math
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError

from dea_daemon.domain.parameters import Section
from dea_daemon.shell import logs
from dea_daemon.shell.ccxt_client import Client, ask, classify, close_client, open_client
from dea_daemon.shell.output import emit, say
from dea_daemon.shell.pydantic_errors import problems
from dea_daemon.shell.redaction import clean
from dea_daemon.shell.references import Environ
from dea_daemon.shell.settings import DeribitSection, Settings, Venues
from dea_daemon.shell.venue_calls import CancelledOwn, cancel_all_own
from dea_daemon.shell.yaml_errors import read

GONE, AWAY, PERHAPS_LEFT = 0, 69, 75
LOOKS_AWAY, PAUSE_S = 5, 0.5  # a venue that restarts is back in a moment
TRIES = 4  # requests to a silent venue that fit into the time given
GRACE_S = 3.0  # to close what is open; then the process ends, whatever still waits


@dataclasses.dataclass(frozen=True, slots=True)
class Rescued:
    """What became of one venue's orders. `cancelled` is what the venue confirmed, `left` the labels last seen open.

    `code`: GONE only where the venue itself said that none is left.
    """

    venue: str
    account: str
    cancelled: int
    left: tuple[str, ...]
    code: int
    why: str

    def line(self) -> str:
        """For people."""
        end = {GONE: "none left", AWAY: "cannot be reached, some may be left", PERHAPS_LEFT: "some may be left"}
        left = f" ({', '.join(self.left)})" if self.left else ""
        why = f": {self.why}" if self.why else ""
        return f"{self.venue}/{self.account}: {self.cancelled} cancelled, {end[self.code]}{left}{why}"


class Rescue(Section):
    """The part of a configuration this needs: a mistake elsewhere in the file must not stand in its way."""

    model_config = ConfigDict(extra="ignore")
    venues: Venues
    state_dir: Path = Field(Path("var"))


def run_cancel_all(rescue: Rescue, timeout_s: float, json_lines: bool) -> int:
    """Cancel ours on every venue that takes orders; one line each. GONE, AWAY or PERHAPS_LEFT, the worst of them.

    Ends within `timeout_s` and GRACE_S. Raises ConfigError where a URL is not of its environment.
    """
    _end_by_force(timeout_s + GRACE_S)
    sections = [s for s in rescue.venues.sections if isinstance(s, DeribitSection)]
    for section in sections:
        logs.register_secret(section.client_secret.reveal())
    done = asyncio.run(_all(sections, timeout_s))
    for one in done:
        if json_lines:
            emit({"event": "orders.cancelled", **dataclasses.asdict(one)})
        else:
            say(one.line())
    return max((one.code for one in done), default=GONE)


def _end_by_force(after_s: float) -> None:
    """The name service may hold a thread for minutes, and Python would wait for it."""
    signal.signal(signal.SIGALRM, lambda number, frame: os._exit(PERHAPS_LEFT))
    signal.alarm(math.ceil(after_s))


def load(path: Path, environ: Environ = os.environ) -> Rescue:
    """Venues and state directory of a configuration, all else unread. Raises ConfigError, as for `run`."""
    source = read(path)
    try:
        found = Rescue.model_validate_json(json.dumps(source.data), strict=True, context={"environ": environ})
    except ValidationError as error:
        raise source.refusal(problems(error, Settings)) from None
    state_dir = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return found.model_copy(update={"state_dir": Path(state_dir)}) if state_dir else found


def holder(state_dir: Path) -> int | None:
    """The pid of the daemon that has this state directory, None where none has (or the kernel does not tell)."""
    with contextlib.suppress(OSError, ValueError):
        inode = (state_dir / "ledger.sqlite.lock").stat().st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()  # 1: FLOCK ADVISORY WRITE 4711 fe:00:131 0 EOF
            if fields[1] == "FLOCK" and int(fields[5].rpartition(":")[2]) == inode:
                return int(fields[4])
    return None


# --- one venue ----------------------------------------------------------------------------------------------


async def _all(sections: Iterable[DeribitSection], timeout_s: float) -> list[Rescued]:
    return await asyncio.gather(*(_rescue(section, timeout_s) for section in sections))


async def _rescue(section: DeribitSection, timeout_s: float) -> Rescued:
    """Again and again until none is left, the venue is away, or the time is over."""
    access = section.access()
    timeout_ms = min(access.timeout_ms, int(1_000 * timeout_s / TRIES))
    client = open_client(dataclasses.replace(access, timeout_ms=max(timeout_ms, 1)))
    cancelled, done, code = 0, CancelledOwn(0, ()), PERHAPS_LEFT
    try:
        async with asyncio.timeout(timeout_s):
            for look in itertools.count(1):
                done = await cancel_all_own(client, looks=1)
                cancelled += done.cancelled
                code = await _judge(client, done)
                if code == GONE or (code == AWAY and look >= LOOKS_AWAY):
                    break
                await asyncio.sleep(PAUSE_S)
    except TimeoutError:
        late = f"no end after {timeout_s:g} s"
        done = dataclasses.replace(done, why=f"{late}: {done.why}" if done.why else late)
    finally:
        await close_client(client)
    return Rescued(section.venue, section.account, cancelled, done.left, code, clean(done.why))


async def _judge(client: Client, done: CancelledOwn) -> int:
    if not (done.left or done.why):
        return GONE
    try:
        await ask(client, "public_get_get_time", {})
    except Exception as error:  # noqa: BLE001 whatever it was, the orders are not gone
        return PERHAPS_LEFT if done.left or classify(error).sent else AWAY
    return PERHAPS_LEFT
