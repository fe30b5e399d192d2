"""The watchdog's process: it waits for the daemon to stop, then has our orders cancelled. It never places any.

`python -m dea_daemon.shell.watchdog`, with one end of a socket pair as its stdin. First comes its brief, a line of
JSON; then a BEAT now and then while decisions are made, and a GOODBYE at a clean end. It answers each. The end of the
stream without a goodbye is a daemon that died, however it died. It holds nothing else of the daemon's, and imports
nothing but the standard library: the cancelling is a process of its own (`Brief.command`), started when it is needed.
"""

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

BEAT, GOODBYE = b".", b"!"
LOOK_S = 0.5
TRY_S = 20.0  # for the command to cancel
KILL_S = 30.0  # after which it is ended
PAUSE_S = 5.0  # between tries
GIVE_UP_S = 600.0  # a network that is away so long is a matter for people
GONE, NEWCOMER = 0, 3  # what the command may end with: no order left; another daemon has taken over
NEWCOMER_LOOKS, NEWCOMER_S = 4, 15.0
CHANNEL, STDERR = 0, 2
OUTLIVE_S = 30.0  # so long a container's restart waits for the cancelling
AWAITED = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})

Over = Callable[[float], bool]


class Brief(NamedTuple):
    """What the daemon tells its watchdog at the start. Keys are in it by reference only."""

    pid: int
    run_id: str
    after_s: float
    command: list[str]  # cancels; takes the brief on its stdin
    state_dir: str
    venues: dict[str, Any]

    def line(self) -> bytes:
        """As it goes through the channel."""
        return json.dumps(self._asdict()).encode() + b"\n"


def main() -> None:
    """Until a goodbye, or the end of the daemon and of our orders.

    Signals do not end it: a terminal's Ctrl-C, or a service manager's SIGTERM to all, reach it while the daemon
    still drains.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    line = b""
    while not line.endswith(b"\n"):
        if not (part := _hear()):
            return  # it died before it could say what to do, and before it could send an order
        line += part
    _answer()
    keep(Brief(**json.loads(line)))


def keep(brief: Brief) -> None:
    """Wait, and act where the daemon is silent or gone.

    Silence is counted in waits of our own: a machine that slept, or stopped us too, was not a silent daemon.
    """
    silent_s, fired = 0.0, False
    while True:
        if not _heard(LOOK_S):
            silent_s += LOOK_S
            if silent_s >= brief.after_s and not fired:
                fired = True
                cancel(brief, f"no decision for {brief.after_s:g} s", over=_heard)
            continue
        said = _hear()
        if GOODBYE in said:
            return
        if not said:
            cancel(brief, "the daemon has gone without a goodbye", over=_slept)
            return
        _answer()
        if fired:
            tell(brief, "warning", "daemon.resumed", why="it decides again")
        silent_s, fired = 0.0, False


def cancel(brief: Brief, why: str, over: Over) -> None:
    """Have our orders cancelled, again until none is left, a time is over, or `over` (told how long to wait)."""
    tell(brief, "error", "daemon.lost", why=why, of_pid=brief.pid)
    end, cancelled, newcomers = time.monotonic() + GIVE_UP_S, 0, 0
    while time.monotonic() < end:
        code, done = attempt(brief)
        cancelled += done["cancelled"]
        if code == GONE:
            tell(brief, "warning", "watchdog.fired", cancelled=cancelled, left=[], why=why)
            return
        newcomers = newcomers + 1 if code == NEWCOMER else 0
        if newcomers == NEWCOMER_LOOKS:
            tell(brief, "info", "watchdog.relieved", cancelled=cancelled, why="another daemon has taken over")
            return
        if code != NEWCOMER:
            tell(brief, "error", "watchdog.try_failed", code=code, **done)
        if over(NEWCOMER_S if code == NEWCOMER else PAUSE_S):
            return
    tell(brief, "error", "watchdog.gave_up", cancelled=cancelled, why=f"orders may be left after {GIVE_UP_S:g} s")


def attempt(brief: Brief) -> tuple[int, dict[str, Any]]:
    """One try: the command's exit code, and what it cancelled, left and complained of."""
    import subprocess  # late: it is memory that is held for nothing while we wait

    total: dict[str, Any] = {"cancelled": 0, "left": [], "why": ""}
    try:
        done = subprocess.run(  # noqa: S603 the command is the daemon's own
            brief.command, input=brief.line(), stdout=subprocess.PIPE, timeout=KILL_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return -1, total | {"why": str(error)}
    for line in done.stdout.splitlines():
        with contextlib.suppress(ValueError, LookupError, TypeError):
            one = json.loads(line)
            total["cancelled"] += one["cancelled"]
            total["left"] += one["left"]
            total["why"] = "; ".join(filter(None, (total["why"], one["why"])))
    return done.returncode, total


def tell(brief: Brief, level: str, event: str, **fields: Any) -> None:
    """A line of the log. A stderr that is gone, or that nobody reads, holds nothing up."""
    now = time.time()
    timestamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06d}Z"
    told = {"timestamp": timestamp, "level": level, "event": event, "run_id": brief.run_id, **fields}
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [STDERR], [], 0.0)[1]:
            os.write(STDERR, json.dumps(told).encode() + b"\n")


def outlive() -> None:
    """As process 1 of a container: fork, stay behind as its init, and return in the child, which is the daemon.

    With process 1 the kernel ends all others, so a daemon in its place would take its watchdog along. The init hands
    signals on, reaps, and ends with the daemon's exit code once the watchdog is done, in OUTLIVE_S at most.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    if (daemon := os.fork()) == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
        return
    code, end = None, float("inf")
    ended: dict[int, int] = {}
    while _reap(ended) and time.monotonic() < end:
        if code is None and daemon in ended:
            code, end = ended[daemon], time.monotonic() + OUTLIVE_S
        signalled = signal.sigtimedwait(AWAITED, LOOK_S)
        if signalled is not None and signalled.si_signo != signal.SIGCHLD and code is None:
            os.kill(daemon, signalled.si_signo)
    code = ended.get(daemon, 1) if code is None else code
    os._exit(code if code >= 0 else 128 - code)


def _reap(ended: dict[int, int]) -> bool:
    """Collect children that have ended: pid → exit code, or minus the signal. Whether others live."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return True
            ended[pid] = os.waitstatus_to_exitcode(status)
    return False


def _heard(seconds: float) -> bool:
    """Whether there is something to hear, the end included, within that time."""
    return bool(select.select([CHANNEL], [], [], seconds)[0])


def _slept(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _hear() -> bytes:
    """What was said; b"" is the end, a reset too."""
    try:
        return os.read(CHANNEL, 65_536)
    except OSError:
        return b""


def _answer() -> None:
    with contextlib.suppress(OSError):
        os.write(CHANNEL, BEAT)


if __name__ == "__main__":
    main()
