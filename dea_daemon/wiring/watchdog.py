"""The daemon's side of its watchdog (`shell/watchdog.py`): it starts one, sends beats, and notices if it is gone.

As a program, `python -m dea_daemon.wiring.watchdog`, it is what the watchdog runs to cancel: `cancel-all` with the
venues of the run, whatever has become of the configuration's file since.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Self

from dea_daemon.shell.output import emit
from dea_daemon.shell.redaction import clean
from dea_daemon.shell.settings import Settings
from dea_daemon.shell.watchdog import BEAT, GOODBYE, NEWCOMER, TRY_S, Brief
from dea_daemon.wiring.cancel_all import PERHAPS_LEFT, Rescue, holder, run_cancel_all

WATCHDOG = [sys.executable, "-m", "dea_daemon.shell.watchdog"]
CANCEL = [sys.executable, "-m", "dea_daemon.wiring.watchdog"]
BEAT_S = 0.5
ANSWER_BEATS = 20  # sent without an answer: it hangs
START_S = 10.0
RESTART_S = 2.0
END_S = 3.0

Changed = Callable[[bool, str], None]


def brief_for(settings: Settings, run_id: str) -> Brief:
    """What a watchdog of this run must know. Keys go by reference: it has our environment to look them up."""
    return Brief(
        pid=os.getpid(),
        run_id=run_id,
        after_s=settings.watchdog.after_s,
        command=CANCEL,
        state_dir=str(settings.state_dir),
        venues=settings.venues.model_dump(mode="json", exclude_none=True),
    )


class Watchdog:
    """A context with a watchdog in it. `progress` counts decisions: a beat goes out only if there are more.

    `changed(alive, why)` is called when the watchdog is lost, and when there is one again. A context left after
    `release`, or because the start was called off, ends it; any other end, an error's too, is one for it to deal with.
    """

    def __init__(self, brief: Brief, progress: Callable[[], int], changed: Changed) -> None:
        self._brief, self._progress, self._changed = brief.line(), progress, changed
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._decisions, self._unanswered, self._released = -1, 0, False

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch(await self._start()))
        return self

    def release(self) -> None:
        """Nothing of ours is left at the venues: it need not do anything."""
        self._released = True

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._child is None or self._channel is None:
            return
        if not (self._released or (kind is not None and issubclass(kind, asyncio.CancelledError))):
            self._channel.detach()  # the kernel closes it when we have ended: until then we cancel ourselves
            return
        with contextlib.suppress(OSError):
            self._channel.send(GOODBYE)
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._child.wait, END_S)
        self._drop()

    async def _watch(self, why: str) -> None:
        """For ever: beats, and another watchdog where there is none. `why` there is none now, or ""."""
        while True:
            while not why:
                await asyncio.sleep(BEAT_S)
                why = self._beat()
            self._drop()
            self._changed(False, why)
            while why:
                await asyncio.sleep(RESTART_S)
                why = await self._start()
            self._changed(True, "started anew")

    async def _start(self) -> str:
        """A new watchdog that has answered to its brief; why there is none, or ""."""
        try:
            channel = self._spawn()
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(START_S):
                await loop.sock_sendall(channel, self._brief)
                if not await loop.sock_recv(channel, 1):
                    raise OSError("it ended at once")
        except (OSError, TimeoutError) as error:
            self._drop()
            return f"cannot be started: {str(error) or 'no answer'}"
        except BaseException:
            self._drop()
            raise
        self._unanswered = 0
        return ""

    def _spawn(self) -> socket.socket:
        """A new interpreter: it shares no lock, no socket and no terminal's signals with us."""
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(  # noqa: S603 our own module
                WATCHDOG, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, start_new_session=True
            )
        self._channel.setblocking(False)
        return self._channel

    def _beat(self) -> str:
        """Hear its answers, and send a beat if decisions went on. Why it cannot be relied upon, or ""."""
        if self._child is None or self._channel is None:
            return "there is none"
        if (code := self._child.poll()) is not None:
            return f"it ended with {code}"
        try:
            with contextlib.suppress(BlockingIOError):
                if not self._channel.recv(65_536):
                    return "it has hung up"
                self._unanswered = 0
            if (decisions := self._progress()) > self._decisions:
                self._channel.send(BEAT)
                self._decisions = decisions
                self._unanswered += 1
        except OSError as error:
            return f"the channel failed: {error}"
        return f"no answer to {self._unanswered} beats" if self._unanswered > ANSWER_BEATS else ""

    def _drop(self) -> None:
        """End it before its channel: one that wakes from a stop must not take us for dead."""
        if self._child is not None:
            if self._child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._child.pid, signal.SIGKILL)  # with what it may have started
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(1.0)
        if self._channel is not None:
            self._channel.close()
        self._child = self._channel = None


# --- what the watchdog runs ---------------------------------------------------------------------------------


def main() -> int:
    """Cancel what the brief on stdin names, a JSON line for each venue on stdout.

    Exit code as of `cancel-all`; NEWCOMER where another daemon holds the state directory: it knows what became of each
    order or asks, which is better than to cancel under its hands.
    """
    brief = Brief(**json.load(sys.stdin))
    try:
        rescue = _rescue(brief)
        if holder(rescue.state_dir) not in (None, brief.pid):
            return NEWCOMER
        return run_cancel_all(rescue, TRY_S, json_lines=True)
    except Exception as error:  # noqa: BLE001 whatever it is, it is told, and tried again
        emit({"cancelled": 0, "left": [], "why": clean(f"{type(error).__name__}: {error}")})
        return PERHAPS_LEFT


def _rescue(brief: Brief) -> Rescue:
    text: dict[str, Any] = {"venues": brief.venues, "state_dir": brief.state_dir}
    return Rescue.model_validate_json(json.dumps(text), strict=True, context={"environ": os.environ})


if __name__ == "__main__":
    sys.exit(main())
