"""The operator's end of the control socket: finds a daemon, asks it, and says clearly why it does not answer.

Standard library only, as `status` must be quick. What the ledger tells of a daemon that is gone, and the mode the
next one is to start in, are here too.
"""

import http.client
import json
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dea_daemon.domain.errors import ConfigError, DeaError, LedgerError
from dea_daemon.domain.modes import Mode

if TYPE_CHECKING:
    import sqlite3

CONNECT_S = 2.0
ANSWER_S = 5.0
_ADDRESS_MAX = 107  # bytes the kernel takes


class NotRunning(ConnectionError):
    """Nobody listens: never started, stopped, or (`crashed`) gone without a word."""

    crashed = False


class Crashed(NotRunning):
    """The socket is there, but its process is gone."""

    crashed = True


class NoAnswer(TimeoutError):
    """Somebody listens, but says nothing: stopped, or hung."""


class Refused(DeaError):
    """The daemon answered that it will not; `status` is HTTP's."""

    def __init__(self, why: str, status: int) -> None:
        super().__init__(why)
        self.status = status


class Busy(OSError):
    """Not now; nothing was done."""


class Place(NamedTuple):
    """Where a daemon is: its control socket, and the directory of its ledger."""

    socket: Path
    state_dir: Path

    @property
    def ledger(self) -> Path:
        return self.state_dir / "ledger.sqlite"


# --- where ----------------------------------------------------------------------------------------------------


def control_path(state_dir: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where a daemon with this state directory listens."""
    return (_directory("RUNTIME_DIRECTORY", environ) or state_dir) / "control.sock"


def find(config: Path | None, at: Path | None, environ: Mapping[str, str] = os.environ) -> Place | None:
    """The place meant by a configuration, a socket (it counts most), or $RUNTIME_DIRECTORY; None without any.

    Raises FileNotFoundError, PermissionError or ConfigError where the configuration cannot be read.
    """
    if config is not None:
        state_dir = _directory("STATE_DIRECTORY", environ) or state_dir_of(config)
        return Place(at or control_path(state_dir, environ), state_dir)
    runtime = _directory("RUNTIME_DIRECTORY", environ)
    path = at or (runtime and runtime / "control.sock")
    return Place(path, _directory("STATE_DIRECTORY", environ) or path.parent) if path else None


def _directory(variable: str, environ: Mapping[str, str]) -> Path | None:
    name = environ.get(variable, "").partition(":")[0]  # systemd may name several
    return Path(name) if name else None


def state_dir_of(config: Path) -> Path:
    """The file's `state_dir`, or the default, without looking at the rest: that takes ten times as long."""
    import yaml

    try:
        text = config.read_text("utf-8", "replace")
        found = yaml.load(text, getattr(yaml, "CBaseLoader", yaml.BaseLoader))  # noqa: S506 all is text, no objects
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{config}: no such file") from error
    except PermissionError as error:
        raise PermissionError(f"{config}: may not be read") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{config}: is no YAML, so where is its daemon? Give --socket PATH. {error}") from error
    state_dir = found.get("state_dir", "var") if isinstance(found, dict) else "var"
    return Path(state_dir) if isinstance(state_dir, str) and state_dir else Path("var")


@contextmanager
def short_address(path: Path) -> Iterator[str]:
    """An address for bind or connect: the path, or where that is too long a way round it."""
    if len(os.fsencode(path)) <= _ADDRESS_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


# --- asking ---------------------------------------------------------------------------------------------------


class _Connection(http.client.HTTPConnection):
    """HTTP over the socket of a place."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self.path = path
        self.peer = 0  # process id of who listens

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_S)
        with short_address(self.path) as address:
            self.sock.connect(address)
        self.peer = struct.unpack("iii", self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        self.sock.settimeout(ANSWER_S)


def get(place: Place, path: str) -> Any:
    """The answer to a question, as parsed JSON. Raises as `_ask`."""
    return _ask(place, "GET", path, None)


def post(place: Place, path: str, **asked: Any) -> Any:
    """The answer to a command. One the daemon finds once we have gone is lost, or refused unless it is a halt."""
    asked["valid_until_ns"] = time.monotonic_ns() + int((CONNECT_S + ANSWER_S) * 1e9)
    return _ask(place, "POST", path, json.dumps(asked).encode())


def _ask(place: Place, method: str, path: str, body: bytes | None) -> Any:
    """Raises NotRunning, NoAnswer, ConnectionError (it ended), PermissionError, ConfigError, Busy, Refused."""
    with closing(_Connection(place.socket)) as connection:
        try:
            connection.connect()
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (TimeoutError, BlockingIOError) as error:
            raise NoAnswer(_silent(connection.peer or _holder(place), place)) from error
        except ConnectionRefusedError as error:
            why = (
                f"the daemon at {place.socket} crashed or was killed; its orders may rest at the venue: see cancel-all"
            )
            raise Crashed(why) from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _absent(place) from error
        except PermissionError as error:
            raise PermissionError(f"{place.socket}: only its user and group may control this daemon") from error
        except (ConnectionError, http.client.HTTPException, ValueError) as error:
            raise ConnectionError(f"the daemon at {place.socket} ended before it had answered") from error
    if response.status in (200, 503):
        return answer
    raise _refusal(response.status, str(answer.get("error", "")))


def _refusal(status: int, why: str) -> Exception:
    if status == 422:
        return ConfigError(why)
    return Busy(why) if status == 409 else Refused(why, status)


def _absent(place: Place) -> OSError:
    """No socket: is there really no daemon?"""
    holder = _holder(place)
    if not holder:
        return NotRunning(f"no daemon runs here (nobody listens at {place.socket})")
    return NoAnswer(
        f"process {holder} holds {place.ledger}, but there is no {place.socket}: "
        "it is starting or stopping, or listens elsewhere (give --socket PATH)"
    )


def _silent(pid: int, place: Place) -> str:
    state = {"T": "exists, stopped", "t": "exists, traced", "D": "exists, waits for a disk"}.get(
        _state(pid), "exists, hung"
    )
    who = f"process {pid} {state}?" if pid and Path(f"/proc/{pid}").exists() else "which process is not known"
    return (
        f"the daemon at {place.socket} does not answer ({who}). A command may be lost: ask again, or end the process. "
        "Its orders may rest at the venue: see cancel-all"
    )


def _state(pid: int) -> str:
    """A process's state, a letter as in ps, or ""."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _holder(place: Place) -> int:
    """The process that holds the ledger's lock, or 0. By looking only: to try the lock could keep a daemon from it."""
    path = _lock_of(place)
    try:
        pid, inode = path.read_text().strip(), path.stat().st_ino
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return 0
    held = any("FLOCK" in lock and pid in lock.split() and f":{inode} " in lock for lock in locks)
    return int(pid) if held and pid.isdigit() else 0


# --- without a daemon -----------------------------------------------------------------------------------------

_LAST = {
    "run": "SELECT run_id, version, started_utc_ns FROM runs ORDER BY epoch DESC LIMIT 1",
    "mode": "SELECT mode, why, ts_ns FROM modes ORDER BY id DESC LIMIT 1",
    "open_orders": "SELECT count(*) AS count FROM order_states WHERE settled = 0",
    "decision": "SELECT epoch, seq, ts_ns FROM decisions ORDER BY epoch DESC, seq DESC LIMIT 1",
    "fill": "SELECT instrument, side, lots, ts_ns FROM fills ORDER BY ts_ns DESC LIMIT 1",
}


def last_words(place: Place) -> dict[str, Any] | None:
    """What the ledger tells of the last run, by the keys of _LAST (None: there was none); None without a ledger.

    Raises LedgerError where it cannot be read.
    """
    from dea_daemon.shell.explain import reading

    if not place.ledger.exists():
        return None
    with reading(place.ledger) as db:
        names = {name: [column[0] for column in db.execute(query).description] for name, query in _LAST.items()}
        rows = {name: db.execute(query).fetchone() for name, query in _LAST.items()}
    told: dict[str, Any] = {
        name: dict(zip(names[name], row, strict=True)) if row else None for name, row in rows.items()
    }
    told["open_orders"] = told["open_orders"]["count"]
    if told["mode"]:
        told["mode"]["mode"] = Mode(told["mode"]["mode"]).name.lower()
    return told


def set_mode_at_rest(place: Place, wanted: Mode, why: str) -> Mode:
    """Write the mode the next run starts in, as a running daemon would have changed it. Returns that mode.

    Raises NotRunning where nothing ever ran, LedgerError where the ledger is held or cannot be written.
    """
    import sqlite3

    from dea_daemon.shell.lock import InstanceLock

    if not place.ledger.exists():
        raise NotRunning(f"no daemon runs here, and none has: there is no {place.ledger}")
    lock = InstanceLock(_lock_of(place))
    try:
        with closing(sqlite3.connect(place.ledger, timeout=1.0)) as db, db:
            db.execute("PRAGMA synchronous = FULL")
            return _set_mode(db, wanted, why)
    except sqlite3.Error as error:
        raise LedgerError(f"{place.ledger}: {error}") from error
    finally:
        lock.release()


def _set_mode(db: "sqlite3.Connection", wanted: Mode, why: str) -> Mode:
    """A pause ends where it began, and does not lift a halt."""
    past = [Mode(row[0]) for row in db.execute("SELECT mode FROM modes ORDER BY id DESC")] or [Mode.NORMAL]
    mode = wanted
    if wanted is Mode.PAUSED and past[0] is Mode.HALTED:
        mode = Mode.HALTED
    elif wanted is Mode.NORMAL and past[0] is Mode.PAUSED:
        mode = next((one for one in past if one is not Mode.PAUSED), Mode.NORMAL)
    elif wanted is Mode.NORMAL:  # what was lost is accepted: drawdown counts from the next equity, as with --resume
        db.execute("DELETE FROM meta WHERE key IN ('peak_equity_usd', 'day_equity_usd')")
    if mode is not past[0]:
        text = why[:500].encode("utf-8", "replace").decode()
        db.execute("INSERT INTO modes (ts_ns, mode, why) VALUES (?, ?, ?)", (time.time_ns(), int(mode), text))
    return mode


def _lock_of(place: Place) -> Path:
    return place.ledger.with_name(place.ledger.name + ".lock")
