"""What systemd hears: a bound datagram socket stands in for it."""

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections.abc import Iterator

import pytest

from dea_daemon.shell.notify import Notifier


class Manager:
    """The service manager's end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """The messages since the last look."""
        messages = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(self._socket.recv(4_096).decode())
        return messages

    def notifier(self, **environ: str) -> Notifier:
        return Notifier.from_environ({"NOTIFY_SOCKET": self.address, **environ})

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path) -> Iterator[Manager]:
    one = Manager(str(tmp_path / "notify") if request.param == "path" else f"@dea-{uuid.uuid4().hex}")
    yield one
    one.close()


async def fed(notifier: Notifier, progress, for_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(notifier.feed(progress), for_s)


def test_systemd_hears_ready_with_its_status_and_stopping(manager):
    notifier = manager.notifier()
    assert notifier.ready("armed, 8 contracts") and notifier.status("draining") and notifier.stopping()
    assert manager.heard() == ["READY=1\nSTATUS=armed, 8 contracts", "STATUS=draining", "STOPPING=1"]


def test_reloading_tells_the_moment_on_systemds_clock(manager):
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
    manager.notifier().reloading()
    first, second = manager.heard()[0].splitlines()
    name, _, usec = second.partition("=")
    assert (first, name) == ("RELOADING=1", "MONOTONIC_USEC")
    assert before <= int(usec) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000


def test_a_status_cannot_smuggle_in_another_message(manager):
    manager.notifier().status("halted:\nREADY=1\r\n")
    assert manager.heard() == ["STATUS=halted: READY=1"]


async def test_the_watchdog_is_fed_while_decisions_are_made(manager):
    made = iter(range(1_000))
    await fed(manager.notifier(WATCHDOG_USEC="60000"), lambda: next(made), 0.35)
    assert 8 <= len(manager.heard()) <= 19  # every 20 ms


async def test_a_daemon_that_decides_nothing_starves_the_watchdog(manager):
    await fed(manager.notifier(WATCHDOG_USEC="30000"), lambda: 41, 0.2)
    assert manager.heard() == ["WATCHDOG=1"]


async def test_feeding_goes_on_when_decisions_do(manager):
    made = [5]
    feeding = asyncio.create_task(manager.notifier(WATCHDOG_USEC="30000").feed(lambda: made[0]))
    await asyncio.sleep(0.1)
    assert manager.heard() == ["WATCHDOG=1"]
    made[0] += 1
    await asyncio.sleep(0.05)
    assert manager.heard() == ["WATCHDOG=1"]
    feeding.cancel()


async def test_progress_that_cannot_be_told_is_none(manager):
    await fed(manager.notifier(WATCHDOG_USEC="30000"), lambda: 1 // 0, 0.1)
    assert manager.heard() == []


@pytest.mark.parametrize(
    "environ",
    [{}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "30000", "WATCHDOG_PID": "1"}],
    ids=["none", "empty", "no number", "another process"],
)
async def test_nobody_is_fed_where_no_watchdog_waits_for_us(manager, environ):
    made = iter(range(1_000))
    await fed(manager.notifier(**environ), lambda: next(made), 0.1)
    assert manager.heard() == []


async def test_our_own_pid_is_ours_to_feed(manager):
    made = iter(range(1_000))
    await fed(manager.notifier(WATCHDOG_USEC="30000", WATCHDOG_PID=str(os.getpid())), lambda: next(made), 0.1)
    assert manager.heard()


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "@nobody-listens-here", "vsock:2:1", "@" + "x" * 200])
async def test_without_anyone_listening_nothing_is_sent_and_nothing_raised(address):
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000"})
    assert not any((notifier.ready("x"), notifier.reloading(), notifier.stopping(), notifier.status("x")))
    await fed(notifier, lambda: 1, 0.05)


def test_a_manager_that_does_not_read_holds_nobody_up(manager):
    notifier = manager.notifier()
    started = time.monotonic()
    sent = [notifier.status("x" * 1_000) for _ in range(2_000)]
    assert sent[0] and not sent[-1]
    assert time.monotonic() - started < 2.0


def test_a_manager_that_came_back_is_heard_again(tmp_path):
    path = tmp_path / "notify"
    first = Manager(str(path))
    notifier = first.notifier()
    first.close()
    path.unlink()
    assert not notifier.status("one")
    second = Manager(str(path))
    assert notifier.status("two")
    assert second.heard() == ["STATUS=two"]
    second.close()
