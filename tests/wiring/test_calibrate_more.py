"""The small stages of `dea-daemon calibrate`, and that costs are only ever raised by what fills say."""

import sqlite3
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dea_daemon.domain.errors import ConfigError, DataError, LedgerError
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.research.candles import FundingRates
from dea_daemon.shell import calibration_file
from dea_daemon.shell.ledger_schema import migrate
from dea_daemon.shell.measured_fills import filled
from dea_daemon.shell.settings import load
from dea_daemon.wiring import calibrate_more
from dea_daemon.wiring.calibrate import _parameters, earned, run_calibrate
from dea_daemon.wiring.calibrate_more import cost_stage, with_learners
from dea_daemon.wiring.calibrate_trials import LOG
from tests.wiring.test_calibrate import asked as made
from tests.wiring.test_calibrate import configured, folder, written  # noqa: F401 a fixture

COST = calibration_file.COST
COLUMNS = (
    "client_order_id, account, instrument, underlying, side, placed, decided_ns, sent_ns, ended_ns, lots, filled_lots"
)


def ledger(tmp_path, beyond_bp, days=40):
    """Three orders a day of 1,000 USD at a fee of 5 bp; the third of each day is not wholly known."""
    path, draws = tmp_path / "ledger.sqlite", np.random.default_rng(6)
    with closing(sqlite3.connect(path)) as db:
        migrate(db)
        for n in range(3 * days):
            spread = None if n % 3 == 2 else 0.1 * (beyond_bp - 1.5 + draws.normal(0.0, 0.5))
            db.execute(
                f"INSERT INTO shortfalls ({COLUMNS}, filled_usd, delay_usd, impact_usd, spread_usd, fee_usd) "  # noqa: S608
                "VALUES (?, 'a', 'B', 'BTC', 'buy', 'cross', 0, 0, ?, 1, 1, 1000.0, 0.05, 0.1, ?, 0.5)",
                (str(n), n // 3 * NS_PER_DAY, spread),
            )
        db.commit()
    return path


def asked(path) -> Any:
    return SimpleNamespace(ledger=path)


def test_a_ledgers_known_orders_are_read_and_the_others_left_out(tmp_path):
    found = filled(ledger(tmp_path, 3.0))
    assert len(found.ended_ns) == 80 and found.fee_usd == pytest.approx(0.5)
    assert 1e4 * found.beyond_usd.sum() / found.filled_usd.sum() == pytest.approx(3.0, abs=0.3)


def test_a_ledger_that_measured_nothing_is_told(tmp_path):
    with pytest.raises(DataError, match="no measured order"):
        filled(ledger(tmp_path, 3.0, days=0))
    with pytest.raises(FileNotFoundError):
        filled(tmp_path / "none.sqlite")


def test_fills_that_cost_more_than_a_trial_assumes_raise_what_it_assumes(tmp_path):
    path, settings = configured(tmp_path)
    told, tuned = cost_stage(asked(ledger(tmp_path, 3.0)), settings)
    assert told["adopted"] and told["with_fee_bp"]["mean"] == pytest.approx(8.0, abs=0.3)
    assert told["beyond_fee_bp"]["mean"] == pytest.approx(3.0, abs=0.3) and told["fee_bp"] == 5.0
    assert told["configured"]["backtest.half_spread_bp"] == 1.0
    written(tmp_path, _parameters(settings, tuned))
    path.write_text(path.read_text() + "calibration: c.yaml\n")
    taken = load(path)
    assert taken.forecast.learners.trial.cost_bp == pytest.approx(8.0, abs=0.3)
    assert [line.partition(":")[0] for line in taken.calibrated] == [COST]


@pytest.mark.parametrize(("beyond_bp", "days"), [(-3.0, 40), (3.0, 10), (0.0, 40)])
def test_cheaper_few_or_equal_fills_change_nothing_and_are_told(tmp_path, beyond_bp, days):
    _, settings = configured(tmp_path)
    told, tuned = cost_stage(asked(ledger(tmp_path, beyond_bp, days)), settings)
    assert tuned is settings and ("skipped" in told or not told["adopted"])
    assert _parameters(settings, tuned) == {}


def test_a_ledger_without_a_fill_is_told_and_loses_nothing_else(tmp_path):
    _, settings = configured(tmp_path)
    told, tuned = cost_stage(asked(ledger(tmp_path, 3.0, days=0)), settings)
    assert tuned is settings and "no measured order was filled" in told["skipped"]


def test_a_ledger_that_cannot_be_read_is_said_before_any_trial(folder, tmp_path):  # noqa: F811
    _, settings = configured(tmp_path)
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as db:
        db.execute("CREATE TABLE shortfalls (a)")
    with pytest.raises(LedgerError):
        run_calibrate(made(folder, tmp_path / "c.yaml", ledger=tmp_path / "other.sqlite"), settings)
    assert (tmp_path / ("c.yaml" + LOG)).read_text() == ""


def test_no_calibration_makes_trading_look_cheaper_than_configured(tmp_path):
    path, settings = configured(tmp_path)
    assert settings.forecast.learners.trial.cost_bp == 5.0
    written(tmp_path, {"forecast": {"learners": {"trial": {"cost_bp": 4.9}}}})
    path.write_text(path.read_text() + "calibration: c.yaml\n")
    with pytest.raises(ConfigError, match="may not lower it"):
        load(path)


@pytest.mark.parametrize(
    "learners",
    [
        {"weights": {"ridge_1d": 1.0}},
        {"combine": "hedge"},
        {"max_sharpe": 9.0},
        {"every_s": 300.0},
        {"trees": {"enabled": True}},
        {"trial": {"promotion": "automatic"}},
        {"trial": {"significance": 0.5}},
        {"trial": {"promoted_weight": 1.0}},
        {"trial": {"drift": False}},
    ],
)
def test_of_the_forecasters_a_calibration_sets_memory_prior_and_cost_alone(tmp_path, learners):
    file = written(tmp_path, {"forecast": {"learners": learners}})
    with pytest.raises(ConfigError, match="may not set"):
        calibration_file.parameters(file)
    allowed = {"forecast": {"learners": {"half_life_days": 90.0, "prior_sharpe": 0.0, "trial": {"cost_bp": 9.0}}}}
    assert calibration_file.parameters(written(tmp_path, allowed)) == allowed


def test_only_what_changed_is_written_and_what_an_earlier_file_changed_is_kept(tmp_path):
    path, settings = configured(tmp_path)
    assert _parameters(settings, with_learners(settings, {"half_life_days": 90.0})) == {
        "forecast": {"learners": {"half_life_days": 90.0}}
    }
    written(tmp_path, {"forecast": {"learners": {"prior_sharpe": 0.25}, "correlation_half_life_s": 7e5}})
    path.write_text(path.read_text() + "calibration: c.yaml\n")
    later = load(path)
    assert _parameters(later, later) == {
        "forecast": {"learners": {"prior_sharpe": 0.25}, "correlation_half_life_s": 7e5}
    }


def test_a_forecaster_is_tuned_only_where_it_beats_the_configuration_and_silence():
    draws = np.random.default_rng(8)
    noise = draws.standard_normal((900, 1)) * 0.3

    def of(*means):
        return np.array(means) + noise + 0.05 * draws.standard_normal((900, len(means)))

    silence = of(1.0)[:, 0]
    better, change = calibrate_more._judged([365.0, 90.0], "half_life_days", of(0.99, 0.95), silence)
    assert better["adopted"] and change == {"half_life_days": 90.0}
    assert better["r_squared_percent_by_half_life_days"]["90"] == pytest.approx(5.0, abs=1.0)
    less_bad, change = calibrate_more._judged([365.0, 90.0], "half_life_days", of(1.20, 1.10), silence)
    assert less_bad["chosen_over_incumbent"]["p"] < 0.05 and not less_bad["adopted"] and change == {}


def test_carry_is_what_was_paid_in_the_day_before_and_nothing_later():
    eight_hours = NS_PER_DAY // 3
    rates = FundingRates(eight_hours * np.arange(1, 8), np.array([1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 6e-4, 7e-4]))
    at_ns = np.array([eight_hours - 1, eight_hours, 4 * eight_hours, 4 * eight_hours + 1, 40 * eight_hours])
    assert earned(rates, at_ns) == pytest.approx([np.nan, -1e-4, -9e-4, -9e-4, np.nan], nan_ok=True)
    assert np.isnan(earned(None, at_ns)).all()


@pytest.mark.parametrize(("name", "why"), [("/dev/zero", "not a file"), ("large.yaml", "larger than")])
def test_a_calibration_without_end_is_not_read_to_its_end(tmp_path, name, why):
    (tmp_path / "large.yaml").write_bytes(b"# " + b"x" * (1 << 20))
    path, _ = configured(tmp_path)
    path.write_text(path.read_text() + f"calibration: {name}\n")
    with pytest.raises(ConfigError, match=why):
        load(path)
