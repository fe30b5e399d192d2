"""Prices of before the run, in the core: the first decision knows them, and a tape of them is the run again."""

import numpy as np
import pytest

from dea_daemon.domain.decisions import DecisionRecord
from dea_daemon.domain.events import AccountReported, PricesRecalled
from dea_daemon.shell.tape import TapeHeader, TapeWriter
from dea_daemon.shell.tape_reader import read_tape
from dea_daemon.state.returns import EVERY_NS, Returns
from dea_daemon.wiring.replay import replay
from tests.house import BTC_PERP, START_NS, Run, parameters

HOURS = 768
NAN = float("nan")
LIMITS: dict[str, object] = {"max_var": 0.9, "max_es": 0.9, "var_annual_vol": 0.1}


def walk(annual_vol: float, seed: int = 1, ends=(80_000.0, 3_000.0)) -> np.ndarray:
    """[T, 2] hourly prices of BTC and ETH that end at `ends`."""
    moves = np.random.default_rng(seed).normal(0.0, annual_vol / np.sqrt(365 * 24), (HOURS, 2))
    path: np.ndarray = np.exp(np.cumsum(moves, axis=0))
    return np.asarray(path / path[-1] * np.array(ends))


def past(usd: np.ndarray, now_ns: int = START_NS) -> PricesRecalled:
    """Closes of whole hours, the last within the hour before now."""
    last_ns = now_ns // EVERY_NS * EVERY_NS
    at_ns = tuple(last_ns - (len(usd) - 1 - n) * EVERY_NS for n in range(len(usd)))
    return PricesRecalled(now_ns, at_ns, tuple(map(tuple, usd.tolist())))


def first_decision(usd: np.ndarray | None, **limits: object) -> tuple[Run, DecisionRecord]:
    run = Run(parameters(guards=limits))
    run.positions[BTC_PERP] = 20_000  # 200,000 USD
    if usd is not None:
        run.feed(past(usd))
    run.settle()
    record = run.decide().record
    assert record is not None
    return run, record


def vols(record: DecisionRecord) -> list[float]:
    return [line.annual_vol for line in record.factors[:2]]


@pytest.mark.parametrize("annual_vol", [0.3, 0.9, 1.6])
def test_the_first_decision_trades_on_the_volatility_of_the_past(annual_vol):
    _, record = first_decision(walk(annual_vol))
    assert vols(record) == [pytest.approx(annual_vol, rel=0.25)] * 2


def test_without_a_past_it_trades_on_what_is_assumed():
    _, record = first_decision(None)
    assert vols(record) == [pytest.approx(0.6, rel=0.01)] * 2


def test_the_first_decision_judges_a_days_loss_by_the_moves_of_the_past():
    usd = walk(1.2)
    _, blind = first_decision(None, **LIMITS)
    run, record = first_decision(usd, **LIMITS)
    moves = (usd[1:] / usd[:-1] - 1.0)[-720:] * np.sqrt(24.0)
    view = run.state.view
    assert view is not None
    assert np.allclose(view.day_returns, moves, rtol=1e-12)
    assert len(view.day_returns) == 720
    told, before = ({use.limit: use.used for use in one.uses} for one in (record, blind))
    lost = -moves @ view.delta_usd
    assert told["var"] == pytest.approx(np.quantile(lost, 0.99))
    assert told["es"] == pytest.approx(np.sort(lost)[-18:].mean())
    assert told["var"] > 3.0 * before["var"] > 0.0  # assumed are ten points


def test_an_hour_without_a_price_and_the_way_across_it_count_for_none():
    usd = walk(1.0)
    usd[100:103] = NAN
    usd[200, 1] = NAN
    returns = Returns(2)
    returns.recall(past(usd).at_ns, usd)
    moves = usd[1:] / usd[:-1] - 1.0
    kept = moves[np.isfinite(moves).all(axis=1)][-720:] * np.sqrt(24.0)
    assert np.array_equal(returns.of_a_day, kept)


def test_hours_that_are_missing_altogether_count_for_none():
    usd = walk(1.0)[:400]
    at_ns = past(usd).at_ns
    there = [n for n in range(400) if not 300 <= n < 310]
    returns = Returns(2)
    returns.recall(tuple(at_ns[n] for n in there), usd[there])
    moves = usd[1:] / usd[:-1] - 1.0
    assert np.array_equal(returns.of_a_day, np.delete(moves, range(299, 310), axis=0) * np.sqrt(24.0))


def test_no_move_leads_from_the_past_to_the_runs_own_prices():
    """A perpetual's, or of a contract of a thousand coins: the index is another price."""
    usd = walk(1.0)
    returns = Returns(2)
    returns.recall(past(usd).at_ns, usd)
    seen = returns.of_a_day
    next_ns = START_NS // EVERY_NS * EVERY_NS + EVERY_NS
    for hour, price in enumerate((1_000.0, 1_010.0)):
        assert returns.due(next_ns + hour * EVERY_NS)
        returns.observe(next_ns + hour * EVERY_NS, usd[-1] * price)
    assert np.array_equal(returns.of_a_day[:-1], seen[1:])
    assert returns.of_a_day[-1] == pytest.approx(0.01 * np.sqrt(24.0))


def test_a_past_in_which_one_underlying_is_unknown_leaves_that_one_to_what_is_assumed():
    usd = walk(1.2)
    usd[:, 1] = NAN
    run, record = first_decision(usd, **LIMITS)
    assert vols(record) == [pytest.approx(1.2, rel=0.25), pytest.approx(0.6, rel=0.01)]
    assert run.state.view is not None and len(run.state.view.day_returns) == 0


def test_a_past_of_nothing_changes_nothing():
    _, record = first_decision(np.full((HOURS, 2), NAN), **LIMITS)
    _, blind = first_decision(None, **LIMITS)
    assert vols(record) == vols(blind)


def test_a_tape_with_a_past_replays_bit_for_bit(tmp_path):
    usd = walk(0.9)
    usd[5] = usd[700, 0] = NAN
    run = Run()
    run.feed(past(usd))
    run.settle()
    for _ in range(5):
        run.decide()
    again = Run()
    file = tmp_path / "past.tape"
    tape = TapeWriter.to_file(file, TapeHeader.here("test"))
    tape.event(again.started)
    for event in run.events:
        tape.event(event)
        tape.decision(again.feed(event))
    tape.close()
    finished = replay(read_tape(file))
    assert finished["differences"] == 0 and finished["decisions"] == again.state.seq > 0
    steps = [event for event, _ in read_tape(file).steps()]
    (recalled,) = [event for event in steps if isinstance(event, PricesRecalled)]
    assert np.array_equal(np.array(recalled.usd), usd, equal_nan=True)
    assert any(isinstance(event, AccountReported) for event in steps)
