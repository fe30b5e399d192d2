"""A terminal taken over for a while: the alternate screen, no echo, only the lines that changed, never a wait.

What is in the way of a picture is put back by `close`, whatever happened in between. Ctrl-C still is SIGINT; Ctrl-Z is
nothing while it lasts: a trading daemon is not to be suspended by a slip.
"""

import contextlib
import os
import select
import signal
import sys
import termios
from io import StringIO
from typing import Any

from rich.console import Console, ConsoleDimensions, RenderableType

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"  # alternate screen, no cursor, empty
_LEAVE = "\x1b[0m\x1b[?25h\x1b[?1049l"
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # shown at once by terminals that can; the others ignore it
_WHOLE_EVERY = 40  # pictures: then every line again, in case something else wrote to the terminal
_CLOSE_S = 0.5  # how long a terminal that takes nothing may hold us up at the end


def usable() -> bool:
    """Whether there is a terminal in front of a person: stdout and stderr are one, and it is ours to draw on."""
    try:
        if not (sys.stdout.isatty() and sys.stderr.isatty()) or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
            return False
        return os.tcgetpgrp(sys.stdout.fileno()) == os.getpgrp()  # not in the background of a shell
    except (OSError, ValueError, AttributeError):
        return False


def terminal() -> str:
    """The path of the terminal that stdout is. OSError where it is none."""
    return os.ttyname(sys.stdout.fileno())


class Screen:
    """The terminal on stdout. Raises OSError where it cannot be had, and from `paint` where it is gone."""

    def __init__(self) -> None:
        # A description of its own: what it shares with stdin and stderr stays as it was, and blocking.
        self._fd = os.open(terminal(), os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            self._before = termios.tcgetattr(self._fd)
            # From the background our last words would stop us.
            self._ttou = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            termios.tcsetattr(self._fd, termios.TCSANOW, _quiet(self._before))
        except (OSError, termios.error):
            os.close(self._fd)
            raise
        self._console = Console(file=StringIO(), force_terminal=True, width=80, height=24)
        self._shown: list[str] = []
        self._size = os.terminal_size((0, 0))
        self._painted = 0
        self._pending = _ENTER.encode()

    def paint(self, picture: RenderableType) -> None:
        """Show it, unless the terminal has not yet taken the one before."""
        if not self._drained():
            return
        size = os.get_terminal_size(self._fd)
        width, height = size.columns or 80, size.lines or 24  # a terminal without a size: what most have
        self._console.size = ConsoleDimensions(width, height)
        with self._console.capture() as capture:
            self._console.print(picture, end="", soft_wrap=True)
        lines = capture.get().split("\n")[:height]
        whole = size != self._size or self._painted % _WHOLE_EVERY == 0
        self._pending = self._changes(lines, [] if whole else self._shown, height).encode("utf-8", "replace")
        self._shown, self._size = lines, size
        self._painted += 1
        self._drained()

    @staticmethod
    def _changes(lines: list[str], shown: list[str], height: int) -> str:
        """The escape sequences that turn what is shown into these lines."""
        parts = [
            f"\x1b[{i + 1};1H\x1b[0m{line}\x1b[K" for i, line in enumerate(lines) if i >= len(shown) or line != shown[i]
        ]
        if len(lines) < height and len(lines) != len(shown):
            parts.append(f"\x1b[{len(lines) + 1};1H\x1b[0J")
        return _BEGIN + "".join(parts) + _END if parts else ""

    def _drained(self) -> bool:
        """Write what the terminal takes now. Whether that was all. Raises OSError where it is gone."""
        while self._pending:
            try:
                done = os.write(self._fd, self._pending)
            except BlockingIOError:
                return False
            self._pending = self._pending[done:]
        return True

    def key(self, timeout_s: float) -> str:
        """What was typed within this time; empty for nothing. Raises EOFError where the terminal is gone."""
        if not select.select([self._fd], [], [], timeout_s)[0]:
            return ""
        try:
            typed = os.read(self._fd, 64)
        except BlockingIOError:
            return ""
        except OSError as error:
            raise EOFError(str(error)) from error
        if not typed:
            raise EOFError("the terminal is gone")
        return typed.decode("utf-8", "replace")

    def close(self) -> None:
        """Give the terminal back as it was, as far as it is still there."""
        with contextlib.suppress(OSError, termios.error):
            self._pending += _LEAVE.encode()
            if not self._drained() and select.select([], [self._fd], [], _CLOSE_S)[1]:
                self._drained()
        with contextlib.suppress(OSError, termios.error):
            termios.tcflush(self._fd, termios.TCIFLUSH)  # what was typed at the picture is no command for a shell
            termios.tcsetattr(self._fd, termios.TCSANOW, self._before)
        with contextlib.suppress(OSError):
            os.close(self._fd)
        signal.signal(signal.SIGTTOU, self._ttou)


def _quiet(modes: list[Any]) -> list[Any]:
    """No echo, keys one by one, no suspending; signals as before."""
    quiet = [*modes[:6], list(modes[6])]
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    quiet[6][termios.VSUSP] = b"\x00"
    return quiet
