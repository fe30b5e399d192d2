"""What must never happen with keys: a wallet in reach, a file others can read, a secret in anything we write."""

import ast
import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from dea_daemon.domain.errors import ConfigError
from dea_daemon.shell.ccxt_client import Budget
from dea_daemon.shell.clock import Clock
from dea_daemon.shell.venue_calls import contract_fees
from dea_daemon.shell.venue_server import VenueServer
from dea_daemon.simvenue import scenarios
from dea_daemon.simvenue.deribit import Deribit, Key
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.wiring import venues as wiring_venues
from dea_daemon.wiring.venues import Venues
from tests.house import INSTRUMENTS
from tests.shell.deribit_stub import by_method, client_of, refusal, result, stub_venue
from tests.wiring.processes import CLI, ROOT, config, wait_for

MARKER = "pl4nted-s3cret/value+x"
TRADER = "account:read_write trade:read_write wallet:read"
# --- the key's scope ----------------------------------------------------------------------------------------


async def opened(monkeypatch, scope, environment="live", acknowledge=False, **answers):
    """A venue section opened against a stub whose key has this scope; the `venue.checked` line's fields."""
    told = {}
    now_ms = Clock().utc_ns() // 1_000_000
    stubbed = {
        "get_time": result(now_ms),
        "auth": result({} if scope is None else {"scope": scope}),
        "get_account_summaries": result({"summaries": [{"currency": "BTC", "margin_model": "cross_sm"}]}),
    }
    section = SimpleNamespace(
        venue="deribit", environment=environment, margin_model=None, acknowledge_withdraw_scope=acknowledge,
        instruments=("BTC-PERPETUAL",), select=lambda listed: listed,
        access=lambda: SimpleNamespace(queries=Budget(per_s=10.0, burst=50)),
        wants=lambda name: True,
    )  # fmt: skip
    async with stub_venue(by_method(**(stubbed | answers))) as stub, client_of(stub, timeout_ms=500) as client:
        monkeypatch.setattr(wiring_venues, "open_client", lambda *_: client)
        monkeypatch.setattr(wiring_venues, "close_client", lambda _: asyncio.sleep(0))
        monkeypatch.setattr(wiring_venues, "load_instruments", _listed)
        monkeypatch.setattr(wiring_venues, "log", SimpleNamespace(info=lambda event, **fields: told.update(fields)))
        venues = Venues(SimpleNamespace(armed=False, record=SimpleNamespace(enabled=False)), Clock())  # type: ignore[arg-type]
        await venues._open_deribit(0, section)  # type: ignore[arg-type]
    return told


async def _listed(client, _):
    client.markets = {}
    return [INSTRUMENTS[0]]


@pytest.mark.parametrize("scope", ["trade:read_write wallet:read_write", None])
async def test_on_live_a_key_that_may_withdraw_or_might_is_refused(monkeypatch, scope):
    with pytest.raises(ConfigError, match="may withdraw, or the venue does not say"):
        await opened(monkeypatch, scope)


@pytest.mark.parametrize("scope", ["trade:read_write wallet:read_write", None])
async def test_the_operators_word_lets_it_in(monkeypatch, scope):
    assert await opened(monkeypatch, scope, acknowledge=True)


@pytest.mark.parametrize("scope", [TRADER, "trade:read_write wallet:none", "trade:read_write"])
async def test_a_key_that_cannot_withdraw_is_let_in(monkeypatch, scope):
    assert (await opened(monkeypatch, scope))["scopes"] == sorted(scope.split())


async def test_fees_and_scopes_are_read_at_start_and_told(monkeypatch):
    own = {"currency": "BTC", "instrument_type": "future", "fee_type": "fixed", "maker_fee": -0.0001, "taker_fee": 3e-4}
    summaries = {"summaries": [{"currency": "BTC", "fee_group": "vip_2", "fees": [own]}]}
    told = await opened(monkeypatch, TRADER, get_account_summaries=result(summaries))
    assert told["fee_group"] == "vip_2"
    assert told["fees"] == ["BTC future fixed -0.0001 0.0003", "BTC-PERPETUAL: maker 0 taker 0.0005"]
    assert (await opened(monkeypatch, TRADER))["fee_group"] == "none"
    assert contract_fees(INSTRUMENTS) == ["BTC-PERPETUAL and 3 more: maker 0 taker 0.0005"]


SECRET = r"client_secret:\n(?: +#.*\n)* +env: DEA_SIMVENUE_CLIENT_SECRET"

# --- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "code"), [(0o600, 69), (0o640, 77), (0o604, 77), (0o660, 77)])
def test_a_secret_others_can_read_ends_the_start(tmp_path, mode, code):
    secret = tmp_path / "secret"
    secret.write_text(MARKER)
    secret.chmod(mode)
    path = changed(tmp_path, (SECRET, f"client_secret:\n        file: {secret}"))
    environ = {
        **os.environ, "DEA_SIMVENUE_HTTP_URL": "http://127.0.0.1:9", "DEA_SIMVENUE_WS_URL": "ws://127.0.0.1:9",
        "DEA_SIMVENUE_CLIENT_ID": "somebody", "STATE_DIRECTORY": str(tmp_path / "state"),
    }  # fmt: skip
    done = subprocess.run([*CLI, "run", "-c", str(path)], capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == code, done.stderr
    assert MARKER not in done.stdout + done.stderr


def test_a_configuration_others_may_write_ends_the_start(tmp_path):
    path = config(tmp_path)
    path.chmod(0o666)
    done = subprocess.run([*CLI, "check", "-c", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 77


def test_a_secret_in_the_configuration_itself_is_refused_and_not_repeated(tmp_path):
    done = subprocess.run(
        [*CLI, "check", "-c", str(changed(tmp_path, (SECRET, f"client_secret: {MARKER}")))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78 and MARKER not in done.stdout + done.stderr


RECORD_ALL = (r"(?m)^record:.*\n(?:  #.*\n)*  enabled: false", "record:\n  enabled: true")

# --- a planted secret ---------------------------------------------------------------------------------------

CRASHING = """
import dea_daemon.shell.runner as runner
def crash(self, *_):
    import os
    raise RuntimeError("no idea what to do with client_secret=" + os.environ["DEA_SIMVENUE_CLIENT_SECRET"])
runner.Runner._worth_keeping = crash
from dea_daemon.cli import main
main()
"""


def everything_written(*roots: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for root in roots for file in (root.rglob("*") if root.is_dir() else [root])
            if file.is_file()}  # fmt: skip


def assert_unseen(*roots: Path) -> None:
    import gzip
    from urllib.parse import quote

    for file, data in everything_written(*roots).items():
        seen = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        for form in (MARKER, quote(MARKER, safe="")):
            assert form.encode() not in seen, file


@contextlib.asynccontextmanager
async def marked_venue():
    """A simulated venue whose key has the marker for its secret."""
    chosen, clock = scenarios.load("default"), Clock()
    exchange = Exchange(chosen, 7, clock.now_ns())
    exchange.open_account("main", dict(chosen.deposits))
    key = Key("trader", MARKER, "main", "account:read_write trade:read_write wallet:read")
    async with VenueServer(Deribit(exchange, [key]), clock=clock.now_ns) as server:
        yield {
            **os.environ, "DEA_SIMVENUE_HTTP_URL": server.http_url, "DEA_SIMVENUE_WS_URL": server.ws_url,
            "DEA_SIMVENUE_CLIENT_ID": key.client_id, "DEA_SIMVENUE_CLIENT_SECRET": key.client_secret,
        }  # fmt: skip


def changed(folder: Path, *pairs: tuple[str, str]) -> Path:
    """config/simvenue.yaml with patterns replaced, each of them there."""
    path = config(folder)
    text = path.read_text()
    for pattern, new in pairs:
        text, hits = re.subn(pattern, new, text)
        assert hits == 1, pattern
    path.write_text(text)
    return path


def run_until(command, environ, output, enough):
    """Its exit code, once `enough` was seen in its output or it ended by itself."""
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environ)
        try:
            wait_for(lambda: process.poll() is not None or enough(output.read_bytes()), 30, output.name)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            return process.wait(40)
        finally:
            process.kill()


async def test_a_planted_secret_is_in_nothing_a_trading_daemon_writes(tmp_path):
    state, output = tmp_path / "state", tmp_path / "out"
    path = changed(tmp_path, (r"(?m)^log:.*\n  level: info", "log:\n  level: debug"), RECORD_ALL)
    async with marked_venue() as environ:
        environ["STATE_DIRECTORY"] = str(state)
        command = [*CLI, "--debug", "run", "-c", str(path), "--json"]
        code = await asyncio.to_thread(
            run_until, command, environ, output, lambda data: data.count(b"decision.made") > 15
        )
    assert code == 0, output.read_text()[-2_000:]
    names = {file.name for file in everything_written(state)}
    assert "ledger.sqlite" in names and len(names) > 2
    assert_unseen(output, state)


async def test_a_crash_whose_message_holds_the_secret_does_not_tell_it(tmp_path):
    import sys

    state, output = tmp_path / "state", tmp_path / "out"
    async with marked_venue() as environ:
        environ["STATE_DIRECTORY"] = str(state)
        command = [sys.executable, "-c", CRASHING, "--debug", "run", "-c", str(config(tmp_path)), "--json"]
        code = await asyncio.to_thread(run_until, command, environ, output, lambda data: False)
    assert code == 70
    assert b"no idea what to do" in output.read_bytes() and b"Traceback" in output.read_bytes()
    assert_unseen(output, state)


@pytest.mark.parametrize("where", ["message", "data"])
async def test_a_venue_that_echoes_the_request_in_its_error_gives_nothing_away(tmp_path, where):
    echo = f"bad request: client_secret={MARKER}&signature=abcdef123456"
    refused = refusal(11050, echo) if where == "message" else refusal(11050, "no", reason=echo)
    output, state = tmp_path / "out", tmp_path / "state"
    async with stub_venue(by_method(auth=refused, get_time=result(Clock().utc_ns() // 1_000_000))) as stub:
        environ = {
            **os.environ, "DEA_SIMVENUE_HTTP_URL": stub.url, "DEA_SIMVENUE_WS_URL": "ws://127.0.0.1:9",
            "DEA_SIMVENUE_CLIENT_ID": "trader", "DEA_SIMVENUE_CLIENT_SECRET": MARKER, "STATE_DIRECTORY": str(state),
        }  # fmt: skip
        command = [*CLI, "--debug", "run", "-c", str(config(tmp_path)), "--json"]
        code = await asyncio.to_thread(run_until, command, environ, output, lambda data: False)
    assert code in (69, 78), output.read_text()
    assert_unseen(output, state)


# --- no way out for money -----------------------------------------------------------------------------------

MOVES_MONEY = ("withdraw", "submit_transfer", "transfer_to", "transferto", "transfer_from", "add_to_address_book")


def test_no_name_or_text_in_the_code_moves_money_out():
    """Every spelling: calls, attributes, method names in texts. What only asks or speaks of it is listed."""
    spoken = (
        "may_withdraw",
        "acknowledge_withdraw_scope",
        "available_withdrawal_funds",
        "interuser_transfers",
        "min_withdrawal",
        "withdrawal_",
    )
    found = []
    for path in sorted((ROOT / "dea_daemon").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            text = {ast.Name: "id", ast.Attribute: "attr", ast.Constant: "value", ast.keyword: "arg"}.get(type(node))
            value = getattr(node, text) if text else None
            if not isinstance(value, str) or " " in value or value.startswith(spoken):
                continue
            if any(word in value.lower() for word in MOVES_MONEY):
                found.append(f"{path.name}:{getattr(node, 'lineno', 0)}: {value}")
    assert found == []


def test_the_venue_is_asked_for_nothing_but_what_is_listed():
    """ccxt methods in the code, whole: whoever adds one that moves money has to write it here first."""
    asked = set()
    for path in (ROOT / "dea_daemon").rglob("*.py"):
        if "simvenue" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                text = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
                if isinstance(text, str) and text.startswith(("private_get_", "private_post_")):
                    asked.add(text.removeprefix("private_get_"))
    asked.discard("")  # the prefix by itself
    assert asked <= {
        "buy", "sell", "cancel", "cancel_by_label", "get_account_summaries", "get_open_orders",
        "get_order_history_by_currency",
        "get_order_state_by_label", "get_positions", "get_user_trades_by_currency_and_time", "get_order_state",
        "get_user_trades_by_order", "get_order_history_by_instrument", "get_open_orders_by_instrument",
        "get_user_trades_by_instrument_and_time", "get_user_trades_by_currency", "edit",
        "get_user_trades_by_instrument", "get_account_summary", "get_settlement_history_by_currency",
    }, asked  # fmt: skip
    assert {"cancel", "get_account_summaries"} <= asked
    assert json.dumps(sorted(asked)).count("transfer") == 0
