"""Real processes for tests: a simulated venue, and the daemon trading there."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CLI = [sys.executable, "-m", "dea_daemon.cli"]


class Venue:
    """`dea-daemon venue` as a process; `log` is its own account of every order."""

    def __init__(self, folder: Path, *, seed: int = 7, scenario: str = "default", faults: tuple[str, ...] = ()) -> None:
        self.log = folder / "venue.jsonl"
        options = [option for fault in faults for option in ("--fault", fault)]
        self.process = subprocess.Popen(
            [*CLI, "venue", "--seed", str(seed), "--scenario", scenario, "--log", str(self.log), *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self._stdout = self.process.stdout
        self.listening = json.loads(self._stdout.readline())

    @property
    def environ(self) -> dict[str, str]:
        names = ("http_url", "ws_url", "client_id", "client_secret")
        return {f"DEA_SIMVENUE_{name.upper()}": self.listening[name] for name in names}

    def records(self, event: str) -> list[dict[str, Any]]:
        """The log's whole lines of one event, at any moment."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [record for line in lines if line.endswith("}") and (record := json.loads(line))["event"] == event]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self._stdout.close()


class Daemon:
    """`dea-daemon run --json` as a process."""

    def __init__(self, config: Path, venue: Venue, state: Path, **environ: str) -> None:
        self.output = state.with_suffix(".out")
        self._file = self.output.open("ab")
        self._start = self._file.tell()  # what is before it another daemon said
        self.process = subprocess.Popen(
            [*CLI, "run", "-c", str(config), "--json"],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **venue.environ, "STATE_DIRECTORY": str(state), **environ},
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._file.close()

    def stop(self, timeout: float = 45) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout)
        self._file.close()
        return code

    def events(self) -> list[dict[str, Any]]:
        lines = self.output.read_bytes()[self._start :].decode().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def finished(self) -> dict[str, Any]:
        return next(event for event in reversed(self.events()) if event["event"] == "run.finished")


def config(folder: Path, **changes: str) -> Path:
    """config/simvenue.yaml with lines replaced: {"band_usd": "500"} changes every `band_usd: …`.
    Without a watchdog, so that what a killed daemon left behind is there for the next."""
    changes = {"watchdog": "{enabled: false}"} | changes
    lines = (ROOT / "config/simvenue.yaml").read_text().splitlines()
    for key, value in changes.items():
        hits = [i for i, line in enumerate(lines) if line.lstrip(" #").startswith(f"{key}:")]
        assert hits, f"no {key} in simvenue.yaml"
        for i in hits:
            indent = lines[i][: len(lines[i]) - len(lines[i].lstrip())]
            lines[i] = f"{indent}{key}: {value}"
    path = folder / "config.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def ledger_fills(state: Path) -> dict[str, tuple[str, int]]:
    """trade_id → (instrument, lots) of every fill in a ledger."""
    db = sqlite3.connect(state / "ledger.sqlite")
    try:
        return {t: (i, lots) for t, i, lots in db.execute("SELECT trade_id, instrument, lots FROM fills")}
    finally:
        db.close()


def wait_for(condition, timeout: float, what: str) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.05)
