"""The live view from outside: real processes on a pseudo-terminal."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dea_daemon.cli import cli
from dea_daemon.wiring.top import Asker, run_top
from tests.shell.status_samples import status
from tests.wiring.processes import CLI, Venue, config, wait_for

# Makes the terminal its own, as a login does: so that closing it hangs the process up.
_ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)


class OnTerminal:
    """A command in front of a person; all it draws is read, and kept."""

    def __init__(self, *command: str, **environ: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self._slave_name = os.ttyname(slave)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", **environ},
        )
        self._slave = slave
        self.written = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self.master, 65_536):
                self.written += data.decode("utf-8", "replace")

    def restored(self) -> bool:
        return termios.tcgetattr(self._slave) == self.before

    def hang_up(self) -> None:
        os.close(self._slave)
        os.close(self.master)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for fd in (self._slave, self.master):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def venue(tmp_path):
    made = Venue(tmp_path)
    yield made
    made.close()


@pytest.fixture
def run(tmp_path, venue):
    """`dea-daemon run` on a terminal, once its view is up."""
    command = (*CLI, "run", "-c", str(config(tmp_path)))
    made = OnTerminal(*command, **venue.environ, STATE_DIRECTORY=str(tmp_path / "state"))
    wait_for(lambda: "Ctrl-C drains" in made.written, 20, "the view")
    yield made
    made.close()


def logged(state: Path) -> list[dict]:  # type: ignore[type-arg]
    lines = (state / "dea-daemon.log").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_the_run_and_gives_the_terminal_back(run, number, tmp_path):
    if number == signal.SIGINT:
        os.write(run.master, b"\x03")  # Ctrl-C
    else:
        run.process.send_signal(number)
    assert run.process.wait(40) == 0
    wait_for(lambda: "run.ended" in run.written, 2, "the log after the view")
    view, after = run.written.split("\x1b[?1049l")
    assert "run.ended" in after
    assert "decision.made" not in view.split("\x1b[?1049h")[1]  # no log line across the picture
    assert run.restored()
    assert any(line["event"] == "decision.made" for line in logged(tmp_path / "state"))


def test_a_terminal_that_hangs_up_ends_the_view_and_not_the_run(run, tmp_path):
    run.hang_up()
    time.sleep(1.5)
    assert run.process.poll() is None
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(40) == 0
    told = [line["event"] for line in logged(tmp_path / "state")]
    assert "decision.made" in told[told.index("view.ended") :]
    assert "run.ended" in told


def test_keys_typed_at_the_view_neither_suspend_nor_show(run):
    os.write(run.master, b"\x1ascribble")
    time.sleep(0.5)
    stat = Path(f"/proc/{run.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert stat != "T"
    assert "scribble" not in run.written


def test_view_and_json_exclude_each_other():
    told = CliRunner().invoke(cli, ["demo", "--view", "--json"], standalone_mode=False)
    assert told.exit_code == 64
    assert "not both" in told.output


# --- top -------------------------------------------------------------------------------------------------------

_TOP = """
import sys, time
from dea_daemon.wiring.top import run_top
from tests.shell.status_samples import status
asked = []
def fetch():
    asked.append(1)
    if len(asked) > 2:
        time.sleep(60)  # it hangs
    return status()
sys.exit(run_top(fetch))
"""


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_top_leaves_on_a_key_even_while_the_daemon_hangs(key):
    top = OnTerminal(sys.executable, "-c", _TOP, PYTHONPATH=str(Path(__file__).resolve().parents[2]))
    try:
        wait_for(lambda: "equity 974,823" in top.written, 10, "a picture")
        wait_for(lambda: "no answer for" in top.written, 10, "the notice")
        os.write(top.master, key.encode())
        assert top.process.wait(2) == 0
        assert top.restored()
    finally:
        top.close()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConnectionRefusedError("the daemon crashed"), "gone for 0 s: the daemon crashed"),
        (TimeoutError("hung?"), ""),  # not yet: a pause is no end
    ],
)
def test_that_nobody_listens_any_more_is_told_at_once(error, says):
    answers = iter([status()])

    def fetch() -> dict[str, Any]:
        found = next(answers, None)
        if found is None:
            raise error
        return found

    asker = Asker(fetch, every_s=0.01)
    asker.start()
    wait_for(lambda: asker.error is not None, 2, "the error")
    assert asker.notice() == says
    assert asker.status is not None


def test_top_into_a_pipe_is_one_picture_as_text(capsys):
    assert run_top(status) == 0
    told = capsys.readouterr().out
    assert "equity 974,823 USD" in told
    assert "\x1b" not in told


def test_top_raises_what_the_first_question_raised():
    def fetch() -> dict:  # type: ignore[type-arg]
        raise ConnectionRefusedError("nobody listens")

    with pytest.raises(ConnectionRefusedError, match="nobody listens"):
        run_top(fetch)
