"""The command line from outside: what it prints, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dea_daemon import __version__
from dea_daemon.cli import cli, exit_code
from dea_daemon.cli.status_text import status_lines
from dea_daemon.domain.errors import (
    ConfigError,
    InvariantViolation,
    LedgerError,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    VenueError,
)
from dea_daemon.shell.settings import Settings
from dea_daemon.shell.tape import TapeError
from dea_daemon.shell.yaml_errors import ConfigForbidden, ConfigMissing
from tests.shell.settings_samples import CONFIGS, ENVIRON, SMALL
from tests.shell.status_sample import status

COMMAND = Path(sys.executable).with_name("dea-daemon")
SIMVENUE = str(next(path for path in CONFIGS if path.stem == "simvenue"))


def call(*arguments: str, environ: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(cli, arguments, env=ENVIRON if environ is None else environ)


@pytest.fixture
def wired(monkeypatch):
    """Stand-ins for the modules in wiring: each records what it was called with, and returns or raises."""
    calls = []

    def stand_in(module: str, function: str, ends: object = 0) -> list[Any]:
        def body(*arguments, **options):
            calls.append((arguments, options))
            if isinstance(ends, BaseException):
                raise ends
            return ends

        monkeypatch.setitem(sys.modules, f"dea_daemon.wiring.{module}", SimpleNamespace(**{function: body}))
        return calls

    return stand_in


# --- check and schema ---------------------------------------------------------------------------------------


def test_check_tells_what_is_configured():
    result = call("check", "-c", SIMVENUE)
    assert result.exit_code == 0
    for told in ("armed", "deribit/main", "BTC-*", "250,000", "2,000,000", "http://127.0.0.1:8080", "passive"):
        assert told in result.stdout
    assert ENVIRON["DEA_SIMVENUE_CLIENT_SECRET"] not in result.output


def test_check_says_observe_where_nothing_would_be_sent(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(SMALL)
    result = call("check", "-c", str(path))
    assert "observe" in result.stdout
    assert "warning: no targets" in result.stderr


@pytest.mark.parametrize(
    ("content", "mode", "code"),
    [(SMALL, 0o644, 0), (SMALL + "x: 1\n", 0o644, 78), ("", 0o644, 78), (None, 0, 66), (SMALL, 0o666, 77)],
    ids=["right", "wrong", "empty", "missing", "writable by all"],
)
def test_check_ends_with_a_code_that_says_why(tmp_path, content, mode, code):
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    result = call("check", "-c", str(path))
    assert result.exit_code == code
    assert "Traceback" not in result.output
    if code:
        assert result.stdout == ""
        assert result.stderr.startswith(f"{path}:")


def test_check_as_a_process(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(SMALL.replace("  deribit:\n", "  deribit:\n    acount: main\n"))
    done = subprocess.run(
        [COMMAND, "check", "-c", path.name], cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == (
        "config.yaml:3:5: error: venues.deribit.acount: unknown option (did you mean 'account'?)\n"
        "        acount: …\n"
        "        ^\n"
    )


def test_schema_is_the_settings_json_schema():
    result = call("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == Settings.model_json_schema()


def test_version():
    assert call("version").stdout == f"dea-daemon {__version__}\n"


# --- exposure -----------------------------------------------------------------------------------------------

PORTFOLIO = next(path for path in sorted(Path(SIMVENUE).parent.glob("*.yaml")) if path.stem == "portfolio")


def test_the_exposure_of_a_portfolio_needs_no_daemon():
    shown = call("exposure", "-c", str(PORTFOLIO))
    assert shown.exit_code == 0
    for told in ("BTC-27MAR26-100000-C", "gamma", "vega per point", "basis per 1 %"):
        assert told in shown.stdout
    told = json.loads(call("exposure", "--json", "-c", str(PORTFOLIO)).stdout)
    assert {"delta:BTC", "gamma:ETH", "vega:BTC:90d", "cash:USDC"} <= {line["factor"] for line in told["factors"]}


def test_status_tells_of_options_only_where_there_are_any():
    with_options = [" ".join(line.split()) for line in status_lines(status())]
    assert "BTC 1,250 -310 -42 12.25" in with_options
    assert "options 370, 4 modelled, 1 with Greeks the venue contradicts" in with_options
    none = status(greeks={}, options=[], option_counts={"listed": 0, "modelled": 0, "greeks_off": 0})
    assert not [line for line in status_lines(none) if "option" in line or "gamma" in line]


def test_a_wrong_portfolio_is_a_wrong_configuration(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("portfolio:\n  prices: {BTC: 0}\n")
    path.chmod(0o600)
    result = call("exposure", "-c", str(path))
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.startswith(f"{path}:2:17: error: portfolio.prices.BTC: must be above 0")


def test_the_exposure_of_a_daemon_that_does_not_run_is_not_available(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(f"state_dir: {tmp_path}\n" + SMALL)
    result = call("exposure", "-c", str(path))
    assert result.exit_code == 69
    assert "no daemon runs here" in result.stderr


# --- handing over -------------------------------------------------------------------------------------------


def test_demo_hands_over_its_options(wired):
    calls = wired("demo", "run_demo")
    options = [
        "--seconds",
        "5",
        "--seed",
        "3",
        "--scenario",
        "crash",
        "--tape",
        "t",
        "--json",
        "--log",
        "v",
        "--state-dir",
        "s",
    ]
    assert call("demo", *options).exit_code == 0
    assert calls == [
        (
            (),
            {
                "seconds": 5.0,
                "seed": 3,
                "scenario": "crash",
                "tape": Path("t"),
                "json_lines": True,
                "venue_log": Path("v"),
                "state_dir": Path("s"),
                "http_port": None,
                "view": False,
            },
        )
    ]


def test_demo_as_it_is_lives_through_an_expiry_on_seed_7(wired):
    calls = wired("demo", "run_demo")
    call("demo")
    given = {"seconds": 45.0, "seed": 7, "scenario": "options", "json_lines": False, "tape": None}
    assert calls[0][1] | given == calls[0][1]


@pytest.mark.parametrize(("options", "armed"), [([], True), (["--observe"], False)])
def test_run_is_armed_only_by_its_configuration_and_observe_disarms(wired, options, armed):
    calls = wired("live", "run_live")
    assert call("run", "-c", SIMVENUE, *options).exit_code == 0
    (settings, json_lines, resume, config, view), _ = calls[0]
    assert (settings.armed, json_lines, resume, view) == (armed, False, False, False)
    assert config == Path(SIMVENUE)


def test_run_does_not_start_with_a_wrong_configuration(wired, tmp_path):
    calls = wired("live", "run_live")
    path = tmp_path / "c.yaml"
    path.write_text("armed: maybe\n" + SMALL)
    assert call("run", "-c", str(path)).exit_code == 78
    assert calls == []


def test_backtest_takes_several_captures(wired, tmp_path):
    calls = wired("backtest", "run_capture")
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file in files:
        file.touch()
    a, b, c = map(str, files)
    assert call("backtest", "--capture", a, b, "--venue", "binanceusdm", "--json", "--capture", c).exit_code == 0
    (captures, venue, settings, json_lines, tape), _ = calls[0]
    assert sorted(captures) == files
    assert (venue, settings, json_lines, tape) == ("binanceusdm", None, True, None)


def test_a_missing_capture_or_tape_is_no_input(wired):
    calls = wired("backtest", "run_capture") + wired("replay", "run_replay")
    assert call("backtest", "--capture", "/nope", "--venue", "binanceusdm").exit_code == 66
    assert call("replay", "/nope").exit_code == 66
    assert calls == []


def test_a_commands_result_is_the_exit_code(wired, tmp_path):
    wired("replay", "run_replay", ends=65)
    assert call("replay", str(tmp_path)).exit_code == 65


# --- how it ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [[], ["chek"], ["run"], ["demo", "--seconds", "soon"], ["demo", "--seconds", "0"], ["check", "-c"],
     ["backtest", "--venue", "binanceusdm"], ["venue", "--port", "99999"]],
)  # fmt: skip
def test_wrong_usage_is_64(arguments):
    result = call(*arguments)
    assert result.exit_code == 64
    assert result.stdout == ""
    assert "Error: " in result.stderr or "Usage: " in result.stderr


CODES = [
    (ConfigError("x"), 78),
    (ConfigMissing("x"), 66),
    (ConfigForbidden("x"), 77),
    (TapeError("x"), 65),
    (VenueError("x"), 69),
    (Rejected("x"), 69),
    (RateLimited("x"), 75),
    (OutcomeUnknown("x"), 75),
    (LedgerError("x"), 75),
    (InvariantViolation("x"), 70),
    (FileNotFoundError("x"), 66),
    (PermissionError("x"), 77),
    (ConnectionRefusedError("x"), 69),
    (BrokenPipeError("x"), 69),
    (OSError("x"), 75),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda case: type(case).__name__)
def test_an_error_ends_with_its_code_and_one_line(wired, error, code):
    wired("demo", "run_demo", ends=error)
    result = call("demo")
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", "error: x\n")


def test_errors_of_several_tasks_are_all_told(wired):
    wired("demo", "run_demo", ends=ExceptionGroup("tasks", [VenueError("gone"), LedgerError("full")]))
    result = call("demo")
    assert (result.exit_code, result.stderr) == (69, "error: gone\nerror: full\n")


def test_a_bug_is_70_with_the_traceback_in_the_log(wired, caplog):
    wired("demo", "run_demo", ends=ExceptionGroup("tasks", [VenueError("gone"), KeyError("oops")]))
    result = call("demo")
    assert exit_code(KeyError()) is None
    assert result.exit_code == 70
    assert result.stderr.endswith("error: internal: KeyError: 'oops' (a bug in dea-daemon)\n")
    assert [record.exc_info[0] for record in caplog.records] == [KeyError]


def test_debug_shows_the_traceback(wired):
    wired("demo", "run_demo", ends=VenueError("gone"))
    assert "Traceback" in call("--debug", "demo").stderr
    assert "Traceback" not in call("demo").stderr


def test_ctrl_c_ends_quietly(wired):
    wired("demo", "run_demo", ends=KeyboardInterrupt())
    result = call("demo")
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_a_reader_that_went_away_is_no_error():
    process: Any = subprocess.Popen([COMMAND, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) == 0


EMITTER = """
import sys
from dea_daemon.shell.output import emit
emit({"event": "first"})
sys.stdin.read()
for _ in range(3):
    emit({"event": "more"})
print("done", file=sys.stderr)
"""


def test_trading_goes_on_when_nobody_reads_the_json_lines():
    pipe = subprocess.PIPE
    process: Any = subprocess.Popen([sys.executable, "-c", EMITTER], stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdout.readline() == b'{"event":"first"}\n'
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == b"done\n"
    process.stderr.close()
    assert process.wait(20) == 0


SERVER = """
import asyncio, sys, types
async def serve_venue(*, emit, **options):
    emit({"event": "venue.listening", "options": {k: str(v) for k, v in options.items()}})
    await asyncio.sleep(60)
sys.modules["dea_daemon.wiring.venue"] = types.SimpleNamespace(serve_venue=serve_venue)
from dea_daemon.cli import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_venue_serves_until_it_is_stopped(number):
    arguments = ["venue", "--seed", "3", "--fault", "private/buy=hang_after", "--fault", "ticker=null_body"]
    pipe = subprocess.PIPE
    process: Any = subprocess.Popen([sys.executable, "-c", SERVER, *arguments], stdout=pipe, stderr=pipe)
    first = json.loads(process.stdout.readline())
    process.send_signal(number)
    assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == 0
    assert first["options"] == {
        "port": "0", "seed": "3", "scenario": "default", "log": "None",
        "faults": "('private/buy=hang_after', 'ticker=null_body')",
    }  # fmt: skip


def test_the_command_line_imports_nothing_heavy():
    heavy = {"numpy", "ccxt", "aiohttp", "pydantic", "yaml", "structlog", "asyncio", "msgspec", "rich", "uvloop"}
    code = f"import sys, dea_daemon.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout == "[]\n"
