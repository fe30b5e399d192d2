"""What systemd is told of a service: ready, reloading, stopping, and that it is alive. See sd_notify(3).

Without NOTIFY_SOCKET nothing is sent. A socket that is gone or full changes nothing for the daemon: systemd then
hears nothing and acts as for a daemon that hangs.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

BEATS = 3  # to the watchdog's time-out, so that one may be late


@dataclass(frozen=True, slots=True)
class Notifier:
    """Speaks to the service manager. Both fields are empty where there is none: every method then does nothing.

    `address` is a path, or an abstract name that begins with NUL; `watchdog_s` 0.0 means nobody waits for beats.
    """

    address: str = ""
    watchdog_s: float = 0.0

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """From NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. Values that make no sense count as none."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):  # vsock is for virtual machines
            return cls()
        mine = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        usec = environ.get("WATCHDOG_USEC", "")
        watchdog_s = int(usec) / 1e6 if mine and usec.isascii() and usec.isdigit() else 0.0
        return cls("\0" + address[1:] if address[0] == "@" else address, watchdog_s)

    def ready(self, status: str = "") -> bool:
        """Started, or done reloading. True if systemd was told; so for all of these."""
        return self._send("READY=1", *_status(status))

    def reloading(self) -> bool:
        """The configuration is being read again; `ready` says when that is over."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1_000}")

    def stopping(self) -> bool:
        """The drain has begun."""
        return self._send("STOPPING=1")

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self._send(*_status(text))

    async def feed(self, progress: Callable[[], int]) -> None:
        """Feed the watchdog for ever, while `progress()` (the count of decisions) goes on.

        A loop that runs without deciding is not alive: nobody then looks after the positions. `progress` raising
        counts as no progress.
        """
        last = -1
        while self.watchdog_s:
            now = _count(progress)
            if now > last:
                self._send("WATCHDOG=1")
                last = now
            await asyncio.sleep(self.watchdog_s / BEATS)

    def _send(self, *lines: str) -> bool:
        if not (self.address and lines):
            return False
        try:
            # Never waits: a full socket is a service manager that does not read.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as out:
                out.sendto("\n".join(lines).encode("utf-8", "replace"), self.address)
        except (OSError, ValueError):  # gone, full, or no address at all
            return False
        return True


def _status(text: str) -> tuple[str, ...]:
    """A line break would end it and begin another assignment."""
    words = " ".join(text.split())
    return (f"STATUS={words}",) if words else ()


def _count(progress: Callable[[], int]) -> int:
    try:
        return progress()
    except Exception:  # noqa: BLE001 the watchdog is for just that
        return -1
