"""`dea-daemon cancel-all` from outside: a real venue, with a daemon that hangs, with none, and without the venue."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dea_daemon.domain.orders import client_order_id, is_own
from tests.wiring.processes import CLI, Daemon, Venue, config, wait_for


class Desk:
    """A person's own hand at the venue."""

    def __init__(self, venue: Venue) -> None:
        self._base = venue.listening["http_url"]
        key = f"{venue.listening['client_id']}:{venue.listening['client_secret']}"
        self._headers = {"Authorization": "Basic " + b64encode(key.encode()).decode()}

    def ask(self, method: str, **params: object) -> Any:
        url = f"{self._base}/api/v2/{method}?{urllib.parse.urlencode(params)}"
        with urllib.request.urlopen(urllib.request.Request(url, headers=self._headers), timeout=5) as reply:  # noqa: S310
            return json.load(reply)["result"]

    def buy(self, label: str) -> None:
        """A resting order far below the market."""
        mark = self.ask("public/ticker", instrument_name="BTC-PERPETUAL")["mark_price"]
        terms = {"instrument_name": "BTC-PERPETUAL", "amount": 100, "price": round(mark * 0.5), "type": "limit"}
        self.ask("private/buy", **terms, label=label)

    def labels(self) -> list[str]:
        return sorted(order["label"] for order in self.ask("private/get_open_orders"))


def cancel_all(path: Path, environ: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*CLI, "cancel-all", "-c", str(path), *more],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=45,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


def own(sequence: int) -> str:
    return client_order_id(0, 7, sequence)


@contextlib.contextmanager
def opened(folder: Path, *faults: str) -> Iterator[Venue]:
    venue = Venue(folder, scenario="calm", faults=faults)
    try:
        yield venue
    finally:
        venue.close()


@pytest.fixture(scope="module")
def venue(tmp_path_factory) -> Iterator[Venue]:
    with opened(tmp_path_factory.mktemp("venue")) as one:
        yield one


@pytest.fixture
def path(tmp_path) -> Path:
    return config(tmp_path, state_dir=str(tmp_path / "state"))


def test_our_orders_go_and_those_placed_by_hand_stay(venue, path):
    desk = Desk(venue)
    foreign = ["", "by hand", "d-looks-like-ours", "dashboard-000001!"]
    for label in [own(1), own(2), own(3), *foreign]:
        desk.buy(label)
    done = cancel_all(path, venue.environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "deribit/main: 3 cancelled, none left\n", "")
    assert desk.labels() == sorted(foreign)

    again = cancel_all(path, venue.environ, "--json")  # a second time finds nothing to do
    assert again.returncode == 0
    told = json.loads(again.stdout)
    assert told == {
        "event": "orders.cancelled", "venue": "deribit", "account": "main",
        "cancelled": 0, "left": [], "code": 0, "why": "",
    }  # fmt: skip
    desk.ask("private/cancel_all")


def test_a_mistake_elsewhere_in_the_configuration_is_not_in_the_way(venue, path):
    path.write_text(path.read_text().replace("max_gross_usd:", "max_grss_usd:") + "nonsense: 1\n")
    desk = Desk(venue)
    desk.buy(own(1))
    assert cancel_all(path, venue.environ).returncode == 0
    assert desk.labels() == []


def test_a_key_the_venue_refuses_leaves_orders_and_says_so(venue, path):
    secret = "not-the-secret-of-this-venue"
    done = cancel_all(path, venue.environ | {"DEA_SIMVENUE_CLIENT_SECRET": secret}, "--timeout", "2")
    assert done.returncode == 75
    assert "some may be left: no end after 2 s: " in done.stdout
    assert "invalid" in done.stdout
    assert secret not in done.stdout + done.stderr


def test_it_works_while_the_daemon_hangs_and_says_that_it_is_there(tmp_path):
    path = config(tmp_path, cross_after_ms="60_000", valid_for_ms="5_000")
    state = tmp_path / "state"
    with opened(tmp_path) as venue:
        desk = Desk(venue)
        daemon = Daemon(path, venue, state)
        try:
            wait_for(lambda: any(is_own(label) for label in desk.labels()), 30, "an order of the daemon's")
            daemon.process.send_signal(signal.SIGSTOP)
            desk.buy("by hand")
            done = cancel_all(path, venue.environ | {"STATE_DIRECTORY": str(state)})
            assert done.returncode == 0, done.stdout
            assert desk.labels() == ["by hand"]
            assert done.stderr.startswith(f"warning: the daemon, process {daemon.process.pid}, has not ended")
        finally:
            daemon.kill()
        done = cancel_all(path, venue.environ | {"STATE_DIRECTORY": str(state)})
        assert (done.returncode, done.stderr) == (0, "")  # it is gone, its lock file is not


def test_a_venue_that_is_not_there_is_69(path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nowhere = {"HTTP_URL": f"http://127.0.0.1:{port}", "WS_URL": f"ws://127.0.0.1:{port}", "CLIENT_ID": "nobody"}
    environ = {f"DEA_SIMVENUE_{name}": value for name, value in nowhere.items()}
    done = cancel_all(path, environ | {"DEA_SIMVENUE_CLIENT_SECRET": "nothing-secret"})
    assert done.returncode == 69
    assert done.stdout.startswith("deribit/main: 0 cancelled, cannot be reached, some may be left: ")


@pytest.mark.parametrize("fault", ["private/get_open_orders=hang_before", "private/cancel=hang_before"])
def test_a_venue_that_does_not_answer_holds_nobody_up(tmp_path, path, fault):
    with opened(tmp_path, fault) as venue:
        Desk(venue).buy(own(1))
        started = time.monotonic()
        done = cancel_all(path, venue.environ, "--timeout", "2")
        assert time.monotonic() - started < 12  # importing ccxt among it
    assert done.returncode == 75
    assert "some may be left" in done.stdout


def test_more_orders_than_one_look_could_cancel(tmp_path, path):
    """Half the cancels are lost: it goes on until the venue says that none is left."""
    with opened(tmp_path, "private/cancel=rate_limited:0.6") as venue:
        desk = Desk(venue)
        for sequence in range(12):
            desk.buy(own(sequence))
        done = cancel_all(path, venue.environ, "--json")
        assert desk.labels() == []
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["cancelled"] == 12


def test_a_configuration_that_cannot_be_read_is_told_with_its_code(path, tmp_path):
    assert cancel_all(tmp_path / "none.yaml", {}).returncode == 66
    path.chmod(0o666)
    assert cancel_all(path, {}).returncode == 77
    path.chmod(0o600)
    assert cancel_all(path, {}).returncode == 78  # no key
