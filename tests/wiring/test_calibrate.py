"""`dea-daemon calibrate` as a whole, on made-up histories: what is adopted, what is not, the same whoever computes."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from dea_daemon.domain.errors import ConfigError, DataError
from dea_daemon.domain.parameters import ForecastParameters
from dea_daemon.research import calibration, overfitting
from dea_daemon.research.candles import Candles, Market
from dea_daemon.research.validation import Significance
from dea_daemon.shell import calibration_file
from dea_daemon.shell.history import write_candles
from dea_daemon.shell.settings import load
from dea_daemon.wiring import calibrate
from dea_daemon.wiring.calibrate import data_hash, prices_in, run_calibrate
from dea_daemon.wiring.calibrate_trials import LOG, Asked
from dea_daemon.wiring.calibrate_words import told as told_to_people
from dea_daemon.wiring.demo import config_file
from tests.research.test_validation_calibration import HOUR_NS, START_NS, restless

DAYS = 240
CORRELATIONS = 1 + len(calibration.CORRELATION_DAYS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    there = tmp_path_factory.mktemp("history")
    made = restless(DAYS)
    open_ns = START_NS + HOUR_NS * np.arange(len(made.at_ns))
    for n, symbol in enumerate(("BTCUSDT", "ETHUSDT")):
        close = np.round(made.usd[:, n], 2)
        opened = np.append(1_000.0, close[:-1])
        high, low = np.maximum(opened, close), np.minimum(opened, close)
        candles = Candles(HOUR_NS, open_ns, opened, high, low, close, np.full(len(close), 1e6))
        write_candles(there, Market("binance", "perp", symbol), "1h", candles)
    return there


def configured(tmp_path, **changes):
    """The shipped configuration with some of it otherwise; its path and Settings."""
    told = yaml.safe_load(config_file("backtest-voltarget.yaml").read_text())
    told["backtest"]["warm_up_days"] = 10
    told["forecast"]["learners"] = {"every_s": 21_600}
    for section, options in changes.items():
        told[section] = {**told.get(section, {}), **options} if isinstance(options, dict) else options
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(told))
    path.chmod(0o600)
    return path, load(path)


def asked(folder, out, **other):
    return Asked(**(dict(history=folder, out=out, made="2026-01-01", trials=12, bands=False, forecasters=False, command="calibrate") | other))  # fmt: skip  # noqa: E501


@pytest.mark.timeout(180)
def test_what_is_better_on_unseen_days_is_written_and_a_configuration_takes_it(folder, tmp_path):
    path, settings = configured(tmp_path, forecast={"model": "ewma", "half_life_s": 1.7e7})
    assert run_calibrate(asked(folder, tmp_path / "c.yaml"), settings) == 0
    told = yaml.safe_load((tmp_path / "c.yaml").read_text())
    risk = told["evidence"]["risk"]
    assert risk["adopted"] and risk["chosen_over_incumbent"]["p"] < 0.05
    assert told["parameters"]["forecast"] == risk["best"]
    assert told["provenance"]["trials"] == 13 + CORRELATIONS and told["provenance"]["data_sha256"]
    path.write_text(path.read_text() + "calibration: c.yaml\n")
    taken = load(path)
    assert {name: getattr(taken.forecast, name) for name in calibration.TRIED} == risk["best"]
    assert taken.forecast.sample_every_s == settings.forecast.sample_every_s
    assert any(
        line.startswith("forecast.half_life_s: ") and "instead of 17,000,000" in line for line in taken.calibrated
    )


@pytest.mark.timeout(180)
def test_where_nothing_is_significantly_better_nothing_is_written_but_the_evidence(folder, tmp_path, capsysbinary):
    path, settings = configured(tmp_path)
    run_calibrate(asked(folder, tmp_path / "c.yaml", trials=4), settings)
    told = yaml.safe_load((tmp_path / "c.yaml").read_text())
    assert told["parameters"] == {} and not told["evidence"]["risk"]["adopted"]
    assert b"nothing was significantly better: it stays" in capsysbinary.readouterr().out
    path.write_text(path.read_text() + "calibration: c.yaml\n")
    assert load(path).forecast == settings.forecast and load(path).calibrated == ()


@pytest.mark.timeout(180)
def test_two_processes_find_to_the_byte_what_one_does(folder, tmp_path, monkeypatch):
    _, settings = configured(tmp_path)
    monkeypatch.setattr(calibrate, "BATCH", 2)
    files = [tmp_path / name for name in ("one.yaml", "two.yaml")]
    for workers, out in enumerate(files, start=1):
        run_calibrate(asked(folder, out, workers=workers, trials=4, to_ns=START_NS + 140 * 24 * HOUR_NS), settings)
    assert files[0].read_bytes() == files[1].read_bytes()
    logs = [file.with_name(file.name + LOG).read_bytes() for file in files]
    assert logs[0] == logs[1] and len(logs[0].splitlines()) == 5 + CORRELATIONS


@pytest.mark.timeout(180)
def test_every_trial_is_logged_and_earlier_ones_count(folder, tmp_path):
    _, settings = configured(tmp_path)
    out = tmp_path / "c.yaml"
    for _ in range(2):
        run_calibrate(asked(folder, out, trials=2, to_ns=START_NS + 140 * 24 * HOUR_NS), settings)
    lines = [json.loads(line) for line in (tmp_path / ("c.yaml" + LOG)).read_text().splitlines()]
    assert [line["trial"] for line in lines if line["stage"] == "risk"].count(0) == 2
    assert len(lines) == 2 * (3 + CORRELATIONS)
    tried = {"risk": set(calibration.TRIED), "correlation": {"correlation_half_life_s"}}
    assert all(set(line["parameters"]) == tried[line["stage"]] and line["loss"] > 0 for line in lines)
    assert yaml.safe_load(out.read_text())["provenance"]["earlier_trials"] == 3 + CORRELATIONS


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bands_are_tried_in_whole_backtests_and_their_sharpe_is_deflated_by_every_trial(folder, tmp_path, monkeypatch):
    narrow = {"band": 1e-6, "min_band_usd": 0.01, "kind": "volatility"}
    path, settings = configured(tmp_path, allocator={"targets": {"BTC": narrow, "ETH": narrow}, "max_drawdown": 0.9})
    monkeypatch.setattr(calibrate, "BANDS", ("cube_root",))
    until = START_NS + 150 * 24 * HOUR_NS
    run_calibrate(asked(folder, tmp_path / "c.yaml", trials=2, bands=True, to_ns=until), settings)
    told = yaml.safe_load((tmp_path / "c.yaml").read_text())
    bands = told["evidence"]["bands"]
    assert bands["adopted"] and bands["trials"] == 5 + CORRELATIONS and 0.0 <= bands["deflated_sharpe"] <= 1.0
    assert bands["loss_bp_a_day"]["cube_root"] < bands["loss_bp_a_day"]["as configured"]
    path.write_text(path.read_text() + "calibration: c.yaml\n")
    taken = load(path)
    assert [target.band for target in taken.allocator.targets.values()] == ["cube_root"] * 2  # type: ignore[union-attr]
    assert "allocator.targets.BTC.band: cube_root instead of 1e-06" in taken.calibrated


def test_the_hash_of_the_data_is_of_the_prices_and_of_when_they_were(folder, tmp_path):
    _, settings = configured(tmp_path)
    prices = prices_in(asked(folder, tmp_path / "c.yaml"), settings)
    other = prices._replace(usd=prices.usd.copy())
    other.usd[100, 1] *= 1.0000001
    later = prices._replace(at_ns=prices.at_ns + 1)
    assert (
        len({data_hash(prices), data_hash(other), data_hash(later), data_hash(prices._replace(usd=prices.usd + 0))})
        == 3
    )


# --- the file ------------------------------------------------------------------------------------------------


def written(tmp_path, parameters):
    path = tmp_path / "c.yaml"
    calibration_file.write(path, {"provenance": {"version": "0"}, "parameters": parameters})
    return path


def test_a_file_changed_by_hand_is_refused(tmp_path):
    file = written(tmp_path, {"forecast": {"half_life_s": 7_200.0}})
    path, _ = configured(tmp_path)
    path.write_text(path.read_text() + "calibration: c.yaml\n")
    assert load(path).forecast.half_life_s == 7_200.0
    whole = file.read_text()
    for spoilt in (
        whole.replace("7200", "7201"),
        whole.replace("version: '0'", "version: '1'"),
        whole[: len(whole) - 3],
    ):
        assert spoilt != whole
        file.write_text(spoilt)
        with pytest.raises(ConfigError, match="calibrate again"):
            load(path)
    file.write_text(whole + "# a remark\n")  # says nothing, changes nothing
    assert load(path).forecast.half_life_s == 7_200.0


@pytest.mark.parametrize(
    "parameters",
    [
        {"guards": {"max_gross_usd": 1e12}},
        {"armed": True},
        {"allocator": {"max_leverage": 50.0}},
        {"forecast": {"half_life_s": -1.0}},
        {"forecast": {"half_live_s": 1.0}},
        {"allocator": {"targets": {"DOGE": {"band": 0.1}}}},
        {"allocator": {"targets": {"BTC": {"weight": 50.0}}}},
        {"allocator": {"targets": {"BTC": {"delta_usd": 5e6}}}},
        {"allocator": {"targets": {"BTC": {}}}},
        {"forecast": {"views": {"BTC": {"annual_return": 9.0}}}},
        {"forecast": {"learners": {"combine": "hedge", "max_sharpe": 100.0}}},
        {"forecast": {"vol_cap": 0.2}},
        {"forecast": {}},
        {"venues": {"deribit": {}}},
        {"guards": {}},
    ],
)
def test_a_calibration_sets_no_limit_and_nothing_a_configuration_could_not(tmp_path, parameters):
    written(tmp_path, parameters)
    path, _ = configured(tmp_path)
    path.write_text(path.read_text() + "calibration: c.yaml\n")
    with pytest.raises(ConfigError):
        load(path)


@pytest.mark.parametrize("parameters", [{"venues": {"deribit": {}}}, {"forecast": {"vol_cap": 2.0}}, {"forecast": {}}])
def test_what_a_configuration_could_set_a_calibration_may_not(tmp_path, parameters):
    with pytest.raises(ConfigError, match="a calibration may not set"):
        calibration_file.parameters(written(tmp_path, parameters))


def test_a_calibration_may_set_all_that_is_tried_and_nothing_else_of_the_risk_model(tmp_path):
    for name, default in ForecastParameters().model_dump(mode="json").items():
        file = written(tmp_path, {"forecast": {name: default}})
        if name in (*calibration.TRIED, "correlation_half_life_s"):
            assert calibration_file.parameters(file) == {"forecast": {name: default}}
        else:
            with pytest.raises(ConfigError, match=f"may not set forecast.{name}"):
                calibration_file.parameters(file)


@pytest.mark.timeout(180)
def test_what_an_earlier_calibration_changed_is_in_the_next_ones_file(folder, tmp_path):
    earlier = {"forecast": {"model": "harq"}, "allocator": {"targets": {"BTC": {"band": 0.2}, "ETH": {"band": 0.3}}}}
    written(tmp_path, earlier)
    path, _ = configured(tmp_path)
    path.write_text(path.read_text() + "calibration: c.yaml\n")
    settings = load(path)
    to_ns = START_NS + 140 * 24 * HOUR_NS
    run_calibrate(asked(folder, tmp_path / "c.yaml", trials=1, to_ns=to_ns), settings)
    taken = load(path)
    assert not yaml.safe_load((tmp_path / "c.yaml").read_text())["evidence"]["risk"]["adopted"]
    assert taken.forecast == settings.forecast and taken.forecast.model == "harq"
    assert [target.band for target in taken.allocator.targets.values()] == [0.2, 0.3]  # type: ignore[union-attr]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = written(tmp_path, {"forecast": {"half_life_s": 7_200.0}})
    whole = file.read_bytes()

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        written(tmp_path, {"forecast": {"half_life_s": 3_600.0}})
    assert file.read_bytes() == whole and list(tmp_path.iterdir()) == [file]


def refuse(*_):
    raise DataError("moments no returns have")


def test_a_sharpe_ratio_nobody_can_deflate_is_unknown_and_loses_nothing(monkeypatch):
    returns = np.random.default_rng(1).normal(0.001, 0.01, (2, 100))
    found = [calibrate.Traded(abs(one), one) for one in returns]
    nobody: Any = None
    told = calibration.Verdict(0, nobody, Significance(0.0, 1.0), nobody)
    trials: Any = SimpleNamespace(earlier=0, count=5)
    known = calibrate._band_evidence(found, (None, 0.1), told, 0, trials)
    monkeypatch.setattr(overfitting, "probabilistic_sharpe", refuse)
    unknown = calibrate._band_evidence(found, (None, 0.1), told, 0, trials)
    assert 0.0 <= known["deflated_sharpe"] <= 1.0 and unknown == known | {"deflated_sharpe": "unknown"}
    risk = {"unseen_days": 400, "by_underlying": {}, "adopted": False} | {
        name: known[name] for name in ("chosen_over_incumbent", "overfitting")
    }
    skipped = {"skipped": "not asked for"}
    others = {"correlation": skipped, "forecasters": {"ridge": skipped}, "costs": skipped}
    lines = told_to_people({"evidence": {"risk": risk, "bands": unknown, **others}}, Path("c.yaml"))
    assert any(line.endswith("deflated for 5 trials: unknown") for line in lines)


def test_what_is_no_calibration_is_said_to_be_none(tmp_path):
    path, _ = configured(tmp_path)
    path.write_text(path.read_text() + "calibration: c.yaml\n")
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load(path)
    (tmp_path / "c.yaml").write_text("forecast: {half_life_s: 5.0}\n")
    with pytest.raises(ConfigError, match="no calibration"):
        load(path)
