# ruff: noqa: E501 one row a mistake reads better than four
"""What the user is told when a configuration is wrong: the place, the line, and what was meant."""

import contextlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dea_daemon.domain.errors import ConfigError
from dea_daemon.shell.settings import load
from dea_daemon.shell.yaml_errors import ConfigForbidden, ConfigMissing, read
from tests.shell.settings_samples import CONFIGS, ENVIRON, GUARDS, SMALL, VENUES


def refusal(path: Path) -> str:
    """The message, with the file called by its name alone."""
    with pytest.raises(ConfigError) as raised:
        load(path, ENVIRON)
    return str(raised.value).replace(str(path), path.name)


@pytest.fixture
def refused(tmp_path):
    def message(text: str | bytes) -> str:
        path = tmp_path / "c.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return refusal(path)

    return message


def deribit(line: str) -> str:
    """SMALL with a line more in venues.deribit: line 3."""
    return SMALL.replace("  deribit:\n", f"  deribit:\n    {line}\n")


def guards(line: str) -> str:
    """A line more in guards: line 8."""
    return SMALL.replace("guards:\n", f"guards:\n  {line}\n")


def targets(line: str) -> str:
    """One target: line 3."""
    return f"allocator:\n  targets:\n    {line}\n" + SMALL


FIXED = "BTC: {{kind: fixed, delta_usd: {}, band_usd: {}}}".format

# what is wrong: the file, and the first line of what is said after "c.yaml:"
WRONG = {
    # options
    "a slip": (deribit("acount: main"), "3:5: error: venues.deribit.acount: unknown option (did you mean 'account'?)"),
    "other case": (guards("Max_Drawdown: 1"), "8:3: error: guards.Max_Drawdown: unknown option (did you mean 'max_drawdown'?)"),
    "elsewhere": (guards("slice_usd: 5"), "8:3: error: guards.slice_usd: unknown option (did you mean 'execution.slice_usd'?)"),
    "a slip of elsewhere": (
        deribit("max_levrage: 3"),
        "3:5: error: venues.deribit.max_levrage: unknown option (did you mean 'allocator.max_leverage'?)",
    ),
    "at the top": (guards("armed: true"), "8:3: error: guards.armed: unknown option (did you mean 'armed'?)"),
    "nothing like it": ("tape: {xyzzy: 1}\n" + SMALL, "1:8: error: tape.xyzzy: unknown option (here: enabled, max_mb, max_age_h)"),
    "unknown venue": (SMALL.replace("deribit:", "derbit:"), "2:3: error: venues.derbit: unknown venue (did you mean 'deribit'?)"),
    "not a known venue": (SMALL.replace("deribit:", "nyse:"), "2:3: error: venues.nyse: unknown venue (here: deribit, binanceusdm, okx)"),
    "in a target": (targets("BTC: {kind: volatility, wieght: 1}"), "3:29: error: allocator.targets.BTC.wieght: unknown option (did you mean 'weight'?)"),
    "a source of no kind": (
        SMALL + "factors:\n  a: {kind: fredd, series: X}\n",
        (f"{SMALL.count(chr(10)) + 2}:13: error: factors.a.kind: must be 'coinmetrics', 'csv', 'fear_greed', 'file', "
        "'fred' or 'http_json', not 'fredd' (did you mean 'fred'?)"),
    ),
    "an option no source has": (
        SMALL + "factors:\n  a: {kind: fred, series: X, evry_s: 5}\n",
        f"{SMALL.count(chr(10)) + 2}:30: error: factors.a.evry_s: unknown option (did you mean 'every_s'?)",
    ),
    "of the other target": (
        targets("BTC: {kind: fixed, delta_usd: 1, band_usd: 1, weight: 1}"),
        "3:51: error: allocator.targets.BTC.weight: unknown option (here: kind, delta_usd, band_usd, min_band_usd)",
    ),
    "a view of what is not there": (
        SMALL + "forecast: {views: {ETH: {annual_return: 0.1}}}\n",
        "14:20: error: forecast.views.ETH: no instrument is on ETH (BTC-PERPETUAL)",
    ),
    "a factor of what is not there": (
        targets("BTC: {kind: return}\n  factors: {'veg:BTC': {band_usd: 5}}"),
        (
            "4:13: error: allocator.factors.veg:BTC: is no exposure of a targeted underlying (BTC) "
            "(did you mean 'vega:BTC'?)"
        ),
    ),
    "a factor that nothing trades": (
        targets("BTC: {kind: return}\n  factors: {'vega:BTC': {band_usd: 5}}"),
        "4:13: error: allocator.factors.vega:BTC: needs options to trade: the venue's `options` names none",
    ),
    # missing
    "missing option": (
        SMALL.replace("  max_order_usd: 5_000\n", ""),
        "7:1: error: guards.max_order_usd: missing: notional of one order",
    ),
    "missing section": (VENUES, "1:1: error: guards: missing: Hard limits, measured at the worst combination of working and unknown orders. They only ever cut."),
    "missing key": (
        re.sub(" *client_id.*\n", "", SMALL),
        "2:3: error: venues.deribit.client_id: missing: where the API key's client id is found",
    ),
    "no kind": (targets("BTC: {weight: 1}"), "3:5: error: allocator.targets.BTC.kind: missing: 'fixed', 'return' or 'volatility'"),
    "a mistyped kind": (targets("BTC: {knid: fixed}"), "3:5: error: allocator.targets.BTC.kind: missing: 'fixed', 'return' or 'volatility'"),
    "no value": ("state:\n" + SMALL, "1:1: error: state: has no value: give one, or remove the option"),
    "no value for an option": (deribit("margin_model:"), "3:5: error: venues.deribit.margin_model: has no value: give one, or remove the option"),
    "comma in a flow mapping": (
        targets(FIXED("5,000", 1)),
        "3:37: error: allocator.targets.BTC.000: is the rest of a number? Write 5000 or 5_000, not 5,000",
    ),
    "no venues": ("venues: {}\n" + GUARDS, "1:1: error: venues: names no venue: deribit, binanceusdm, okx"),
    # values
    "not a number": (guards("collar_bp: wide"), "8:14: error: guards.collar_bp: must be a number, not 'wide'"),
    "comma in a number": (guards("collar_bp: 5,000"), "8:14: error: guards.collar_bp: must be a number, not '5,000' (write 1000 or 1_000)"),
    "a quoted number": (guards("collar_bp: '5'"), "8:14: error: guards.collar_bp: must be a number, not '5'"),
    "yes is no number": (guards("collar_bp: true"), "8:14: error: guards.collar_bp: must be a number, not true"),
    "octal": (guards("collar_bp: 010"), "8:14: error: guards.collar_bp: must be a number, not '010'"),
    "sexagesimal": (guards("collar_bp: 1:30"), "8:14: error: guards.collar_bp: must be a number, not '1:30'"),
    "nan": (guards("collar_bp: .nan"), "8:14: error: guards.collar_bp: must be a finite number, not nan"),
    "bare nan": (guards("collar_bp: nan"), "8:14: error: guards.collar_bp: must be a number, not 'nan'"),
    "infinite": (guards("collar_bp: .inf"), "8:14: error: guards.collar_bp: must be a finite number, not inf"),
    "overflow": (guards("collar_bp: 1e400"), "8:14: error: guards.collar_bp: must be a finite number, not inf"),
    "nan target": (targets(FIXED(".NaN", 1)), "3:35: error: allocator.targets.BTC.delta_usd: must be a finite number, not nan"),
    "negative": (guards("collar_bp: -5"), "8:14: error: guards.collar_bp: must be above 0, not -5"),
    "too large": (guards("max_drawdown: 1.5"), "8:17: error: guards.max_drawdown: must be at most 1, not 1.5"),
    "not whole": (guards("max_orders_per_minute: 1.5"), "8:26: error: guards.max_orders_per_minute: must be a whole number, not 1.5"),
    "a list for a number": (guards("collar_bp: [1]"), "8:3: error: guards.collar_bp: must be a number, not a list"),
    "yes": ("armed: yes\n" + SMALL, "1:8: error: armed: must be true or false, not 'yes'"),
    "not a choice": (
        "execution: {order_type: pasive}\n" + SMALL,
        "1:25: error: execution.order_type: must be 'passive' or 'taker', not 'pasive' (did you mean 'passive'?)",
    ),
    "a kind unknown": (
        targets("BTC: {kind: fixd}"),
        "3:17: error: allocator.targets.BTC.kind: must be 'fixed', 'return' or 'volatility', not 'fixd' (did you mean 'fixed'?)",
    ),
    "a number for a section": (targets("BTC: 250_000"), "3:10: error: allocator.targets.BTC: must be a section of options, not 250000"),
    "a list for a section": ("tape: [1]\n" + SMALL, "1:1: error: tape: must be a section of options, not a list"),
    "one instrument without a list": (
        SMALL.replace("[BTC-PERPETUAL]", "BTC-PERPETUAL"),
        "4:18: error: venues.deribit.instruments: must be a list, such as [a, b], not 'BTC-PERPETUAL'",
    ),
    "no instruments": (SMALL.replace("[BTC-PERPETUAL]", "[]"), "4:5: error: venues.deribit.instruments: the list is empty"),
    "an instrument in lower case": (
        SMALL.replace("[BTC-PERPETUAL]", "[BTC-PERPETUAL, eth]"),
        "4:34: error: venues.deribit.instruments[1]: must be a contract's name, such as BTC-PERPETUAL; * stands for anything",
    ),
    "an account with a space": (deribit("account: my own"), "3:14: error: venues.deribit.account: must be like ^[A-Za-z0-9_-]+$, not 'my own'"),
    # references
    "variable not set": (deribit("http_url: ${NOPE}"), "3:15: error: venues.deribit.http_url: environment variable NOPE is not set"),
    "reference in a part": (
        deribit("http_url: https://${HOST}"),
        "3:15: error: venues.deribit.http_url: a reference must be the whole value: ${NAME}",
    ),
    "not a URL": (deribit("http_url: test.deribit.com"), "3:15: error: venues.deribit.http_url: must be a URL of http:// or https://"),
    "an impossible port": (deribit("http_url: https://test.deribit.com:99999"), "3:15: error: venues.deribit.http_url: not a URL"),
    "key in a URL": (deribit("http_url: https://me:x@test.deribit.com"), "3:15: error: venues.deribit.http_url: a key must not be written into a URL"),
    "inline secret": (
        SMALL.replace("client_secret: {env: DERIBIT_TESTNET_CLIENT_SECRET}", "client_secret: hush"),
        "6:5: error: venues.deribit.client_secret: a key is not written here but found: {env: NAME}, {file: PATH} or {credential: NAME}",
    ),
    "secret nowhere": (
        SMALL.replace("DERIBIT_TESTNET_CLIENT_SECRET", "NOPE"),
        "6:5: error: venues.deribit.client_secret: not found: environment variable NOPE",
    ),
    "secret everywhere but there": (
        SMALL.replace("env: DERIBIT_TESTNET_CLIENT_SECRET", "env: NOPE, file: /nope, credential: nope"),
        ("6:5: error: venues.deribit.client_secret: not found: credential nope in (CREDENTIALS_DIRECTORY is not set) "
        "nor file /nope nor environment variable NOPE"),
    ),
    "secret without a place": (
        SMALL.replace("{env: DERIBIT_TESTNET_CLIENT_SECRET}", "{}"),
        "6:5: error: venues.deribit.client_secret: says nowhere to look: give env, file or credential",
    ),
    "a key for market data": (
        "venues:\n  binanceusdm: {environment: live, instruments: [BTCUSDT], client_id: {env: X}}\n" + GUARDS,
        "2:60: error: venues.binanceusdm.client_id: unknown option (did you mean 'venues.deribit.client_id'?)",
    ),
    # contradictions
    "live, but another host": (
        SMALL.replace("testnet", "live").replace("  deribit:\n", "  deribit:\n    http_url: https://test.deribit.com\n"),
        "3:15: error: venues.deribit.http_url: test.deribit.com is not live deribit (www.deribit.com)",
    ),
    "live in the clear": (deribit("ws_url: ws://test.deribit.com"), "3:13: error: venues.deribit.ws_url: must be encrypted: https or wss"),
    "simulated on another machine": (
        SMALL.replace("testnet", "simulated").replace(
            "  deribit:\n", "  deribit:\n    http_url: https://www.deribit.com\n    ws_url: ws://127.0.0.1:5\n"
        ),
        "3:15: error: venues.deribit.http_url: www.deribit.com is not this machine: a simulated venue is on loopback",
    ),
    "simulated nowhere": (
        SMALL.replace("testnet", "simulated"),
        "2:3: error: venues.deribit.http_url: missing: where is the simulated venue?",
    ),
    "armed without orders": (
        "armed: true\nvenues:\n  binanceusdm: {environment: live, instruments: [BTCUSDT]}\n" + GUARDS,
        "1:8: error: armed: no configured venue takes orders: deribit does",
    ),
    "listed twice": (
        SMALL.replace("[BTC-PERPETUAL]", "[BTC-*, ETH-*, BTC-*]"),
        "4:33: error: venues.deribit.instruments[2]: BTC-* is listed twice",
    ),
    "target without a contract": (
        targets("ETH: {kind: volatility}"),
        "3:5: error: allocator.targets.ETH: no instrument is on ETH (BTC-PERPETUAL)",
    ),
    "target out of reach": (
        targets(FIXED("-1e6", 1000)),
        ("3:35: error: allocator.targets.BTC.delta_usd: cannot be reached: 1,000,000 and its band of 1,000 "
        "are beyond guards.max_net_usd, 50,000"),
    ),
    "order above contract": (
        SMALL.replace("max_order_usd: 5_000", "max_order_usd: 50_001"),
        "11:18: error: guards.max_order_usd: 50,001 is above guards.max_instrument_usd, 50,000",
    ),
    "volatility upside down": (
        "forecast: {vol_floor: 4}\n" + SMALL,
        "1:23: error: forecast.vol_floor: is above forecast.vol_cap, 3",
    ),
    "reserve of everything": (
        deribit("throttle: {cancel_reserve: 20}"),
        "3:32: error: venues.deribit.throttle.cancel_reserve: leaves nothing of orders.burst for creates",
    ),
    "a watchdog that cannot wait for a tick": (
        "decide_every_ms: 5_000\nwatchdog: {after_s: 15}\n" + SMALL,
        "2:21: error: watchdog.after_s: is less than 4 times decide_every_ms, 20 s",
    ),
    "a watchdog too quick": ("watchdog: {after_s: 1}\n" + SMALL, "1:21: error: watchdog.after_s: must be at least 2, not 1"),
    # YAML
    "a key twice": ("armed: true\narmed: false\n" + SMALL, "2:1: error: armed: given twice, first on line 1"),
    "a nested key twice": (guards("collar_bp: 1\n  collar_bp: 2"), "9:3: error: guards.collar_bp: given twice, first on line 8"),
    "unclosed": ("armed: [true\n" + SMALL, "2:7: error: not YAML: while parsing a flow sequence; expected ',' or ']', but got ':'"),
    "indented wrongly": ("armed: true\n venues: 1\n", "2:8: error: not YAML: mapping values are not allowed here"),
    "tab": ("tape:\n\tenabled: true\n", "2:1: error: not YAML: tabs cannot indent YAML: use spaces"),
    "a list": ("- armed\n", "1:1: error: the file must be a mapping of options, such as `armed: false`"),
    "a word": ("armed\n", "1:1: error: the file must be a mapping of options, such as `armed: false`"),
    "two documents": ("armed: true\n---\narmed: true\n", "2:1: error: not YAML: expected a single document in the stream; but found another document"),
    "a Python object": ("armed: !!python/name:os.system\n" + SMALL, "1:8: error: the tag tag:yaml.org,2002:python/name:os.system means nothing here"),
    "a key that is a list": ("[armed]: true\n", "1:1: error: a key must be plain text"),
    "unknown anchor": ("armed: *nope\n", "1:8: error: not YAML: found undefined alias 'nope'"),
    "a merge of nothing": ("tape: {<<: 1}\n" + SMALL, "1:12: error: not YAML: while constructing a mapping; expected a mapping or list of mappings for merging, but found scalar"),
    "control character": ("armed: \x1b[31m\n", "1:8: error: U+001B is not allowed here"),
    "not UTF-8": (b"armed: true\ntape: \xff\n", "2:7: error: not UTF-8 (byte 0xff)"),
    "UTF-16": ("armed: true".encode("utf-16"), "1:1: error: not UTF-8 (byte 0xff)"),
    "a million laughs": (
        "a: &a [x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 8)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)),
        "1:8: error: too many values; do aliases multiply here?",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_the_first_line_tells_place_option_and_what_was_meant(refused, case):
    text, expected = WRONG[case]
    assert refused(text).splitlines()[0] == f"c.yaml:{expected}"


WITHOUT_A_PLACE = {
    "empty": ("", "c.yaml: error: the file is empty"),
    "comments only": ("# armed: true\n", "c.yaml: error: the file is empty"),
    "too large": ("# " + "x" * 300_000, "c.yaml: error: larger than 256 KiB"),
    "too deep": ("a: " + "[" * 5_000, "c.yaml: error: nested too deeply"),
    "an alias of itself": ("armed: &a [*a]\n", "c.yaml: error: nested too deeply"),
}


@pytest.mark.parametrize("case", WITHOUT_A_PLACE)
def test_a_file_wrong_as_a_whole_is_said_in_one_line(refused, case):
    text, expected = WITHOUT_A_PLACE[case]
    assert refused(text) == expected


def test_the_line_follows_with_a_caret_under_the_place(refused):
    assert refused(guards("collar_bp: wide  # very")).splitlines()[1:] == [
        "      collar_bp: wide  # very",
        "                 ^",
    ]


def test_of_a_very_long_line_the_part_that_matters_is_shown(refused):
    lines = refused(targets(f"BTC: {{{'x' * 400}: 1, kind: fixd}}")).splitlines()
    assert "kind: fixd" in lines[1]
    assert lines[1][lines[2].index("^") :].startswith("fixd")
    assert len(lines[1]) < 200


def test_all_errors_are_told_at_once_in_the_order_of_the_file(refused):
    text = targets("BTC: {kind: fixd}") + "execution: {dust: 1}\nexecute: 1\n"
    firsts = [line for line in refused(text).splitlines() if ": error: " in line]
    assert [line.split(":")[1] for line in firsts] == ["3", "17", "18"]


def test_a_mistyped_tag_of_a_union_is_found_too(refused):
    text = refused(targets("BTC: {knid: fixed}"))
    assert "c.yaml:3:11: error: allocator.targets.BTC.knid: unknown option (did you mean 'kind'?)" in text


def test_a_bom_and_windows_line_ends_do_no_harm(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert load(path, ENVIRON).guards.max_order_usd == 5_000


# --- the file itself ----------------------------------------------------------------------------------------


def test_a_missing_file_is_not_a_wrong_one(tmp_path):
    for path in (tmp_path / "nope.yaml", tmp_path, tmp_path / "nope" / "nope.yaml"):
        with pytest.raises(ConfigMissing):
            load(path, ENVIRON)


def test_a_fifo_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigMissing, match="not a file"):
        load(tmp_path / "fifo", ENVIRON)


def test_a_configuration_anyone_may_write_is_forbidden(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(SMALL)
    path.chmod(0o646)
    with pytest.raises(ConfigForbidden, match="anyone may write"):
        load(path, ENVIRON)


# --- laws ---------------------------------------------------------------------------------------------------

# deribit-live wants credentials; without them nothing is said yet of what its options mean together.
SHIPPED = {path: read(path) for path in CONFIGS if path.stem != "deribit-live"}
KEYS = [(path, location) for path, source in SHIPPED.items() for location in source.keys]
LETTERS = st.sampled_from("abcdefghijklmnopqrstuvwxyz_")
QUIET = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def typos(draw):
    """A shipped file, one of its options, and that option mistyped."""
    path, location = draw(st.sampled_from(KEYS))
    word = str(location[-1])
    at = draw(st.integers(0, len(word) - 1))
    letter = draw(LETTERS)
    mistyped = draw(
        st.sampled_from([
            word[:at] + letter + word[at:],
            word[:at] + letter + word[at + 1 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at : at + 2][::-1] + word[at + 2 :],
        ])
    )  # fmt: skip
    siblings = {key[-1] for key in SHIPPED[path].keys if key[:-1] == location[:-1]}
    assume(mistyped and mistyped not in siblings)
    return path, location, mistyped


@QUIET
@given(typos())
def test_a_mistyped_option_is_always_found_where_it_stands(tmp_path, typo):
    shipped, location, mistyped = typo
    source = SHIPPED[shipped]
    line, column = source.keys[location]
    lines = source.text.split("\n")
    word = str(location[-1])
    assert lines[line][column:].startswith(word)
    lines[line] = lines[line][:column] + mistyped + lines[line][column + len(word) :]
    path = tmp_path / "c.yaml"
    path.write_text("\n".join(lines))
    assert f"c.yaml:{line + 1}:{column + 1}: error: " in refusal(path)


@QUIET
@given(st.data())
def test_whatever_the_file_holds_the_answer_is_settings_or_a_config_error(tmp_path, data):
    shipped = data.draw(st.sampled_from(CONFIGS)).read_bytes()
    start = data.draw(st.integers(0, len(shipped)))
    end = data.draw(st.integers(start, min(len(shipped), start + 40)))
    junk = data.draw(st.binary(max_size=12) | st.text("{}[]:,-&*!|>'\"#%@`\n\t $.0e", max_size=12).map(str.encode))
    path = tmp_path / "c.yaml"
    path.write_bytes(shipped[:start] + junk + shipped[end:])
    with contextlib.suppress(ConfigError):
        load(path, ENVIRON)
