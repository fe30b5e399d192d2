"""`dea-daemon top`: the live view of a daemon that runs elsewhere, by asking it again and again."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

from dea_daemon.shell.picture import Picture
from dea_daemon.shell.screen import Screen, usable

_SILENT_S = 3.0
_FIRST_S = 5.0
_REDRAW_S = 0.25
_LEAVES = frozenset("qQ\x03\x04")  # Ctrl-C and Ctrl-D as keys, where the terminal sends no signal for them


class Asker:
    """Asks in a thread of its own, so that a daemon that hangs does not hang the picture. Keeps the last answer."""

    def __init__(self, fetch: Callable[[], dict[str, Any]], every_s: float) -> None:
        self._fetch, self._every_s = fetch, every_s
        self._thread = threading.Thread(target=self._run, daemon=True)  # one that hangs does not hold up leaving
        self.asked = threading.Event()  # the first answer or error is there
        self.status: dict[str, Any] | None = None
        self.error: Exception | None = None
        self.answered_s = time.monotonic()

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self.status, self.error = self._fetch(), None
                self.answered_s = time.monotonic()
            except Exception as error:  # noqa: BLE001 told in the picture; it may be back in a moment
                self.error = error
            self.asked.set()
            time.sleep(self._every_s)

    def notice(self) -> str:
        """Empty while answers come. That nobody listens is told at once, a silence once it lasts."""
        error, silent_s = self.error, time.monotonic() - self.answered_s
        if isinstance(error, ConnectionError):
            return f"gone for {silent_s:.0f} s: {error}"
        if silent_s < _SILENT_S:
            return ""
        return f"no answer for {silent_s:.0f} s" + (f": {error}" if error else "")


def run_top(fetch: Callable[[], dict[str, Any]], title: str = "dea-daemon", every_s: float = 0.5) -> int:
    """Show the daemon that `fetch` asks until q or Ctrl-C; 0. Without a terminal: one picture as plain text.

    Raises what the first `fetch` raises, TimeoutError where it takes more than 5 s.
    """
    asker = Asker(fetch, every_s)
    asker.start()
    if not asker.asked.wait(_FIRST_S):
        raise TimeoutError(f"no answer for {_FIRST_S:.0f} s")
    if asker.status is None:
        raise asker.error or TimeoutError("no answer")
    if not usable():
        Console(width=None if sys.stdout.isatty() else 160).print(Picture(asker.status, title, height=0))
        return 0
    return _show(asker, title)


def _show(asker: Asker, title: str) -> int:
    screen = Screen()
    try:
        while not _LEAVES & set(screen.key(_REDRAW_S)):
            screen.paint(Picture(asker.status or {}, title, hint="q leaves", notice=asker.notice()))
    except (KeyboardInterrupt, EOFError, OSError):
        pass
    finally:
        screen.close()
    return 0
