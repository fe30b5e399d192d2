"""What a configuration means, once it is right."""

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import BaseModel

from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.instruments import Instrument, Kind, Payoff
from dea_daemon.domain.parameters import FixedTarget, Parameters, VolTarget
from dea_daemon.shell.references import Secret
from dea_daemon.shell.settings import DeribitSection, Settings, load, warnings
from dea_daemon.shell.yaml_errors import ConfigForbidden
from tests.shell.settings_samples import CONFIGS, ENVIRON, GUARDS, SMALL, VENUES

SIMVENUE = next(path for path in CONFIGS if path.name == "simvenue.yaml")


def deribit(settings: Settings) -> DeribitSection:
    assert settings.venues.deribit is not None
    return settings.venues.deribit


@pytest.fixture
def write(tmp_path: Path):
    def to_file(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


@pytest.fixture
def credentials(tmp_path):
    """A directory of systemd credentials as deribit-live.yaml wants them."""
    directory = tmp_path / "credentials"
    directory.mkdir()
    for name in ("deribit-client-id", "deribit-client-secret"):
        (directory / name).write_text(f"{name}-value\n")
    return {"CREDENTIALS_DIRECTORY": str(directory)}


# --- the shipped files --------------------------------------------------------------------------------------


def test_there_are_shipped_configurations():
    assert {path.stem for path in CONFIGS} >= {
        "demo", "simvenue", "deribit-testnet", "deribit-live", "backtest-capture"
    }  # fmt: skip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_configuration_loads(path, credentials):
    assert load(path, ENVIRON | credentials).guards.max_gross_usd > 0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_only_simulated_venues_are_armed_as_shipped(path, credentials):
    settings = load(path, ENVIRON | credentials)
    assert settings.armed == all(s.environment == "simulated" for s in settings.venues.sections)


def test_the_live_example_takes_its_key_from_systemd(credentials):
    live = next(path for path in CONFIGS if path.stem == "deribit-live")
    assert deribit(load(live, credentials)).client_secret.reveal() == "deribit-client-secret-value"


def uncommented(text: str) -> str:
    """`#option:` is an option; `# word` is prose."""
    return re.sub(r"^( *)#(?=[a-z0-9_]+:)", r"\1", text, flags=re.MULTILINE)


def test_the_reference_shows_every_option(write):
    settings = load(write(uncommented(SIMVENUE.read_text())), ENVIRON)
    assert {type(target) for target in settings.allocator.targets.values()} == {FixedTarget, VolTarget}

    def unset(model: BaseModel, path: str) -> list[str]:
        if isinstance(model, Secret) and not path.startswith(".venues"):
            return []  # where a key may be found is shown once
        missing = [f"{path}.{name}" for name in type(model).model_fields if name not in model.model_fields_set]
        for name in type(model).model_fields:
            value = getattr(model, name)
            for part in value.values() if isinstance(value, dict) else [value]:
                missing += unset(part, f"{path}.{name}") if isinstance(part, BaseModel) else []
        return missing

    # Those venues are market data only; a calibration is a file of its own.
    assert unset(settings, "") == [".calibration", ".venues.binanceusdm", ".venues.okx"]


def test_the_reference_shows_defaults_where_it_says_so(write):
    """An option commented out is at its default, except the examples of where to look for a key, and those whose
    comment ends "default none"."""
    shipped = load(SIMVENUE, ENVIRON)
    as_shipped = shipped.model_dump(exclude={"venues"})
    example = re.compile(r"^ *#([a-z0-9_]+):.*default none\n", re.MULTILINE)
    text = SIMVENUE.read_text()
    assert load(write(uncommented(example.sub("", text))), ENVIRON).model_dump(exclude={"venues"}) == as_shipped
    examples = example.findall(text)
    assert len(examples) > 3
    for name in examples:
        sections = (shipped.alerts, shipped.allocator, shipped.guards)
        assert any(getattr(part, name) in (None, {}) for part in sections if name in type(part).model_fields)


# --- what the options mean ----------------------------------------------------------------------------------


def test_a_run_observes_unless_it_is_armed(write):
    assert load(write(SMALL), ENVIRON).armed is False
    assert load(write("armed: true\n" + SMALL), ENVIRON).armed is True


def test_the_core_gets_its_part_and_replay_can_read_it_back(write):
    parameters = load(write("decide_every_ms: 100\n" + SMALL), ENVIRON).parameters
    assert type(parameters) is Parameters
    assert parameters.decide_every_ms == 100
    assert parameters.guards.max_turnover_usd_per_hour == 1_000_000
    assert Parameters.model_validate_json(parameters.model_dump_json()) == parameters


def test_systemds_state_directory_wins(write):
    path = write("state_dir: here\n" + SMALL)
    assert load(path, ENVIRON).state_dir == Path("here")
    assert load(path, ENVIRON | {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}).state_dir == Path("/var/lib/a")


def test_a_run_has_a_watchdog_unless_told_otherwise(write):
    assert load(write(SMALL), ENVIRON).watchdog.enabled
    slow = "decide_every_ms: 5_000\nwatchdog: {enabled: false}\n"  # then it matters not how long a tick is
    assert not load(write(slow + SMALL), ENVIRON).watchdog.enabled


def test_urls_come_from_the_environment():
    section = deribit(load(SIMVENUE, ENVIRON))
    assert (section.http_url, section.ws_url) == ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/ws/api/v2")


def test_the_gateway_gets_what_it_wants_to_know():
    access = deribit(load(SIMVENUE, ENVIRON)).access()
    assert (access.venue, access.account, access.environment) == ("deribit", "main", "simulated")
    assert (access.client_id, access.client_secret.get_secret_value()) == ("sim-7", "hush-hush")
    assert (access.orders.per_s, access.orders.burst, access.cancel_reserve) == (20, 50, 5)
    assert access.http_url == ENVIRON["DEA_SIMVENUE_HTTP_URL"]


def test_the_default_rates_are_the_gateways_own(write):
    from dea_daemon.shell.ccxt_client import VenueAccess

    mine = deribit(load(write(SMALL), ENVIRON)).access()
    assert mine == VenueAccess("deribit", "main", "testnet", mine.client_id, mine.client_secret)


def test_anchors_and_merges_work_and_own_options_win(write):
    text = VENUES.replace(
        "    client_id: {env: DERIBIT_TESTNET_CLIENT_ID}\n", "    client_id: &key {env: DERIBIT_TESTNET_CLIENT_ID}\n"
    ).replace("client_secret: {env: DERIBIT_TESTNET_CLIENT_SECRET}", "client_secret: {<<: *key}")
    targets = "allocator:\n  targets:\n    BTC: {<<: &vol {kind: volatility, weight: 2}, weight: 3}\n"
    settings = load(write(text + targets + GUARDS), ENVIRON)
    assert deribit(settings).client_secret.reveal() == "test-id"
    assert settings.allocator.targets["BTC"] == VolTarget(weight=3)


def test_an_aliased_mapping_may_be_used_twice(write):
    text = SMALL.replace("{env: DERIBIT_TESTNET_CLIENT_ID}", "&key {<<: {env: WRONG}, env: DERIBIT_TESTNET_CLIENT_ID}")
    settings = load(write(text.replace("{env: DERIBIT_TESTNET_CLIENT_SECRET}", "*key")), ENVIRON)
    assert deribit(settings).client_secret.reveal() == "test-id"


@pytest.mark.parametrize(
    ("text", "number"),
    [("5", 5), ("5_000", 5000), ("1e3", 1000), ("1.5E+3", 1500), ("1_000.5", 1000.5), (".5e4", 5000), ("+7.", 7)],
)
def test_numbers_are_read_as_people_write_them(write, text, number):
    settings = load(write(SMALL.replace("max_fees_usd_per_hour: 100", f"max_fees_usd_per_hour: {text}")), ENVIRON)
    assert settings.guards.max_fees_usd_per_hour == number


def test_a_whole_number_may_be_written_with_an_exponent(write):
    assert load(write("decide_every_ms: 1e3\n" + SMALL), ENVIRON).decide_every_ms == 1000


# --- keys ---------------------------------------------------------------------------------------------------


def with_secret(reference: str) -> str:
    return SMALL.replace("{env: DERIBIT_TESTNET_CLIENT_SECRET}", reference)


def test_a_key_is_looked_for_in_credential_then_file_then_environment(write, tmp_path):
    (tmp_path / "credentials").mkdir()
    credential, file = tmp_path / "credentials" / "c", tmp_path / "f"
    credential.write_text("from credential\n")
    file.write_text("from file\n")
    file.chmod(0o600)
    path = write(with_secret(f"{{env: SECRET, file: {file}, credential: c}}"))
    environ = ENVIRON | {"SECRET": "from env", "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}

    def found() -> str:
        return deribit(load(path, environ)).client_secret.reveal()

    assert found() == "from credential"
    credential.unlink()
    assert found() == "from file"
    file.unlink()
    assert found() == "from env"


def test_a_key_file_that_others_may_read_is_forbidden(write, tmp_path):
    file = tmp_path / "f"
    file.write_text("secret")
    file.chmod(0o640)
    with pytest.raises(ConfigForbidden, match="others may read"):
        load(write(with_secret(f"{{file: {file}}}")), ENVIRON)


def test_a_key_is_never_shown(write):
    settings = load(SIMVENUE, ENVIRON)
    shown = repr(settings) + str(settings) + settings.model_dump_json() + repr(deribit(settings).access())
    assert "DEA_SIMVENUE_CLIENT_SECRET" in shown
    assert "hush-hush" not in shown


@pytest.mark.parametrize(
    "line",
    [
        "client_secret: swordfish",
        "client_secret:\n      swordfish",
        "client_secret: 'swordfish",
        "client_secret: [swordfish]",
        "client_secrt: swordfish",
        "client_scret: swordfish",
        "api_key: swordfish",
        "nonsense: {client_secret: swordfish, x: }",
        "password: swordfish",
        "http_url: https://me:swordfish@test.deribit.com",
        "client_secret: |\n      swordfish\n    x: 1",
    ],
)
def test_no_message_shows_a_key_written_where_it_must_not_be(write, line):
    text = SMALL.replace("client_secret: {env: DERIBIT_TESTNET_CLIENT_SECRET}", line)
    with pytest.raises(ConfigError) as raised:
        load(write(text), ENVIRON)
    assert "swordfish" not in str(raised.value)


# --- instruments --------------------------------------------------------------------------------------------


def contract(name: str, kind: Kind) -> Instrument:
    one = Decimal(1)
    return Instrument("deribit", name, kind, Payoff.INVERSE, "BTC", "USD", "BTC", "BTC", one, one, one)


LISTED = [
    contract("BTC-27MAR26", Kind.FUTURE),
    contract("BTC-27MAR26-100000-C", Kind.OPTION),
    contract("BTC-PERPETUAL", Kind.PERPETUAL),
    contract("BTC_USDC-PERPETUAL", Kind.PERPETUAL),
    contract("ETH-PERPETUAL", Kind.PERPETUAL),
]


def selected(write, names: str) -> list[str]:
    section = deribit(load(write(SMALL.replace("[BTC-PERPETUAL]", names)), ENVIRON))
    return [instrument.name for instrument in section.select(LISTED)]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ("[BTC-PERPETUAL]", ["BTC-PERPETUAL"]),
        ("[BTC-*]", ["BTC-27MAR26", "BTC-PERPETUAL"]),
        ("[ETH-PERPETUAL]\n    options: [BTC-*]", ["ETH-PERPETUAL", "BTC-27MAR26-100000-C"]),
        ("['*-PERPETUAL']", ["BTC-PERPETUAL", "BTC_USDC-PERPETUAL", "ETH-PERPETUAL"]),
        ("[ETH-PERPETUAL, BTC-PERPETUAL]", ["ETH-PERPETUAL", "BTC-PERPETUAL"]),
        ("[BTC-PERPETUAL, BTC-*]", ["BTC-PERPETUAL", "BTC-27MAR26"]),
        ("[BTC-27MAR26-100000-C]", ["BTC-27MAR26-100000-C"]),
    ],
)
def test_instruments_are_chosen_by_name_or_pattern_each_once(write, names, chosen):
    assert selected(write, names) == chosen


def test_a_name_the_venue_does_not_list_is_an_error(write):
    with pytest.raises(ConfigError, match=r"lists no BTC-PERPETUL \(did you mean 'BTC-PERPETUAL'\?\)"):
        selected(write, "[BTC-PERPETUL]")


def test_more_contracts_than_allowed_are_refused_at_the_start(write):
    section = deribit(
        load(write(SMALL.replace("[BTC-PERPETUAL]", "[BTC-*]\n    options: [BTC-*]\n    max_contracts: 2")), ENVIRON)
    )
    with pytest.raises(
        ConfigError, match=r"instruments and options: 3 contracts match, more than .*max_contracts \(2\)"
    ):
        section.select(LISTED)


def test_elsewhere_a_pattern_takes_no_options(write):
    okx = "venues:\n  okx: {environment: testnet, instruments: ['BTC-*']}\n"
    section = load(write(okx + GUARDS), ENVIRON).venues.sections[0]
    assert [i.name for i in section.select(LISTED)] == ["BTC-27MAR26", "BTC-PERPETUAL"]


# --- around it ----------------------------------------------------------------------------------------------


def test_armed_with_real_money_is_allowed_but_said(write, credentials):
    live = next(path for path in CONFIGS if path.stem == "deribit-live")
    observing = load(live, credentials)
    armed = load(write(live.read_text().replace("armed: false", "armed: true")), credentials)
    assert list(warnings(observing)) == []
    assert [w for w in warnings(armed) if "real money" in w]
    alone = armed.model_copy(update={"watchdog": armed.watchdog.model_copy(update={"enabled": False})})
    assert [w for w in warnings(alone) if "watchdog" in w] and not [w for w in warnings(armed) if "watchdog" in w]


@pytest.mark.parametrize("learners", ["weights: {prior_5d: 0.2}", "combine: hedge", "trial: {promotion: automatic}"])
def test_forecasters_whose_word_no_target_takes_are_allowed_but_said(write, learners):
    told = SMALL + f"forecast:\n  learners: {{{learners}}}\nallocator:\n  targets:\n    BTC: "
    unheard = load(write(told + "{kind: fixed, delta_usd: 0, band_usd: 10}\n"), ENVIRON)
    heard = load(write(told + "{kind: return}\n"), ENVIRON)
    assert [w for w in warnings(unheard) if "nothing they say" in w]
    assert not [w for w in warnings(heard) if "nothing they say" in w]
    assert any("without asking" in w for w in warnings(heard)) == ("automatic" in learners)


def test_the_schema_knows_every_option_and_refuses_others():
    schema = Settings.model_json_schema()
    json.dumps(schema)
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(Settings.model_fields)
    sections = [part for part in schema["$defs"].values() if part.get("type") == "object"]
    assert len(sections) > 10
    assert all(part["additionalProperties"] is False for part in sections)
