"""The live engine on candles: nothing known before its close, everything paid at its time, the same run every time."""

import subprocess

import numpy as np
import pytest

from dea_daemon.domain.errors import ConfigError, DataError
from dea_daemon.domain.events import DecisionDue
from dea_daemon.research.candles import Candles, FundingRates, History, Market
from dea_daemon.research.record import Record
from dea_daemon.shell.settings import Settings, load
from dea_daemon.shell.tape import encode_decision
from dea_daemon.shell.tape_reader import read_tape
from dea_daemon.wiring import candles
from dea_daemon.wiring.demo import config_file
from dea_daemon.wiring.history import backtest_history
from dea_daemon.wiring.in_process import InProcess
from dea_daemon.wiring.replay import replay
from tests.wiring.processes import CLI

HOUR = 3_600_000_000_000
DAY = 24 * HOUR
START = 1_600_000_000_000_000_000 // DAY * DAY
WARM_DAYS, DAYS = 10, 12
SYMBOLS = ("BTCUSDT", "ETHUSDT")


@pytest.fixture(scope="module")
def settings() -> Settings:
    found = load(config_file("backtest-voltarget.yaml"), {})
    return found.model_copy(update={"backtest": found.backtest.model_copy(update={"warm_up_days": WARM_DAYS})})


def walk(seed: int, price: float, bars: int = (WARM_DAYS + DAYS) * 24, vol: float = 0.008) -> Candles:
    """Hourly candles of a random walk that is continuous over their edges."""
    dice = np.random.default_rng(seed)
    close = price * np.exp(np.cumsum(dice.normal(0.0, vol, bars)))
    open_ = np.concatenate(([price], close[:-1]))
    high, low = np.maximum(open_, close) * 1.002, np.minimum(open_, close) * 0.998
    at = START - WARM_DAYS * DAY + HOUR * np.arange(bars, dtype=np.int64)
    return Candles(HOUR, at, open_, high, low, close, np.full(bars, 1e4))


def history(*, funding: float = 0.0, **changed: Candles) -> History:
    """BTC and ETH, and funding every eight hours."""
    made = {"BTCUSDT": walk(1, 20_000.0), "ETHUSDT": walk(2, 500.0)} | changed
    at = START - WARM_DAYS * DAY + 8 * HOUR * np.arange(1, 3 * (WARM_DAYS + DAYS) + 1, dtype=np.int64)
    rates = FundingRates(at, np.full(len(at), funding))
    return History(
        {Market("binance", "perp", symbol): c for symbol, c in made.items()},
        {("binance", symbol): rates for symbol in made} if funding else {},
    )


def lived(of: History, settings: Settings, **more) -> Record:
    record, _ = backtest_history(
        of, settings, START, START + DAYS * DAY, seed=more.pop("seed", 7), tape=more.pop("tape", None), show=False
    )
    return record


def with_backtest(settings: Settings, **changes) -> Settings:
    return settings.model_copy(update={"backtest": settings.backtest.model_copy(update=changes)})


def with_fixed(settings: Settings, delta_usd: float) -> Settings:
    """BTC alone, at a fixed exposure that is hardly ever touched again."""
    target = {"BTC": {"kind": "fixed", "delta_usd": delta_usd, "band_usd": 0.5 * abs(delta_usd)}}
    allocator = settings.allocator.model_validate({"targets": target})
    return settings.model_copy(update={"allocator": allocator})


# --- what is known when -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 5 * 24 + 7])
def test_noise_after_a_moment_changes_nothing_before_it(settings, after):
    """Candles that open at or after the moment are others, in each of their figures."""
    was = history()
    cut = WARM_DAYS * 24 + after
    spoiled = {}
    for market, c in was.candles.items():
        noise = np.random.default_rng(5).uniform(0.5, 2.0, len(c.open_ns) - cut)
        columns = {}
        for name in ("open", "high", "low", "close", "volume"):
            column = getattr(c, name).copy()
            column[cut:] *= noise
            columns[name] = column
        spoiled[market.symbol] = c._replace(**columns)
    now = history(**spoiled)  # type: ignore[arg-type]
    one, other = lived(was, settings), lived(now, settings)
    same = after + 1  # decisions at closes up to the moment itself
    for column in ("target_usd", "exposure_usd", "annual_vol", "equity_usd", "turnover_usd"):
        np.testing.assert_array_equal(getattr(one, column)[:same], getattr(other, column)[:same], err_msg=column)
    assert not np.array_equal(one.target_usd[same:], other.target_usd[same:])
    early = [t for t in one.trades if t.at_ns <= START + after * HOUR]
    assert early == [t for t in other.trades if t.at_ns <= START + after * HOUR]


def test_a_planted_look_ahead_is_caught(settings, monkeypatch):
    """An engine that is told the next close: the test above would see it."""
    honest = candles.CandleRun._tell

    def told_early(self, t, now_ns):
        honest(self, min(t + 1, len(self.bars.grid.open_ns) - 1), now_ns)

    monkeypatch.setattr(candles.CandleRun, "_tell", told_early)
    with pytest.raises(AssertionError):
        test_noise_after_a_moment_changes_nothing_before_it(settings, 5 * 24 + 7)


def test_a_decision_is_filled_at_the_next_open_and_never_at_its_own_close(settings):
    gap = history().candles[Market("binance", "perp", "BTCUSDT")]
    jump = gap._replace(open=gap.open * 1.001, high=gap.high * 1.002)  # every open is above the close before
    record = lived(history(BTCUSDT=jump), with_fixed(settings, 100_000.0))
    first = record.trades[0]
    assert first.price == pytest.approx(first.arrival * 1.001 * 1.0001, rel=1e-4)
    assert first.at_ns > START and record.slippage_usd[-1] > 0.0


# --- what is paid -----------------------------------------------------------------------------------------------


def test_a_held_position_makes_what_the_price_makes_and_pays_what_it_must(settings):
    record = lived(history(funding=0.0001), with_fixed(settings, 100_000.0))
    made = record.equity_usd[-1] - record.capital_usd
    parts = record.market_usd[-1].sum() + record.funding_usd[-1] - record.fees_usd[-1] - record.slippage_usd[-1]
    assert made == pytest.approx(parts, abs=1e-6)
    bought = [t for t in record.trades if t.side > 0]
    assert record.fees_usd[-1] == pytest.approx(sum(t.notional_usd for t in record.trades) * 5e-4)
    assert len(record.trades) == len(bought) == 1
    amount = bought[0].amount
    price = record.price[:, 0]
    paid = [amount * price[t] * 0.0001 for t, at in enumerate(record.at_ns) if at % (8 * HOUR) == 0 and t > 0]
    assert record.funding_usd[-1] == pytest.approx(-sum(paid), rel=1e-9)


def test_funding_is_paid_by_who_holds_before_the_decision_at_its_time(settings):
    """The first decision trades at eight in the morning, when funding is due: it pays none."""
    record = lived(history(funding=0.01), with_fixed(settings, 100_000.0))
    assert START % (8 * HOUR) == 0
    until = int(np.searchsorted(record.at_ns, START + 8 * HOUR))
    assert record.funding_usd[until - 1] == pytest.approx(0.0, abs=1e-6)
    assert -800.0 < record.funding_usd[until] < -700.0  # of 75,000 USD: it trades to the inner band


def test_the_engine_knows_the_last_rate_that_was_paid_and_no_later_one(settings, monkeypatch):
    """Of eight hours, whatever the interval: the second rate is of four."""
    of = history(funding=0.0001)
    times = of.funding["binance", "BTCUSDT"].at_ns
    at = np.sort(np.append(times, times[1] + 4 * 3_600 * 10**9))
    rates = FundingRates(at, np.linspace(1e-4, 1e-2, len(at)))
    of = of._replace(funding=dict.fromkeys(of.funding, rates))
    known, seen = [], candles.CandleRun._tell

    def spy(run, t, now_ns):
        seen(run, t, now_ns)
        known.append((now_ns, float(run.run.state.market.funding_8h[0])))

    monkeypatch.setattr(candles.CandleRun, "_tell", spy)
    lived(of, settings)
    per_8h = rates.rate * np.where(np.diff(at, prepend=0) < 8 * 3_600 * 10**9, 2.0, 1.0)
    last = [np.searchsorted(at, now_ns, side="right") - 1 for now_ns, _ in known]
    expected = [per_8h[k] if k >= 0 else np.nan for k in last]
    assert [rate for _, rate in known] == pytest.approx(expected, nan_ok=True)


def test_within_a_bar_the_price_goes_against_the_position_first_and_margin_is_judged_there(settings):
    """A low far below both open and close liquidates; without the path within bars nothing is seen of it."""
    calm = walk(1, 20_000.0, vol=0.0005)
    low = calm.low.copy()
    low[WARM_DAYS * 24 + 100] *= 0.5
    deep = history(BTCUSDT=calm._replace(low=low))
    high_leverage = with_fixed(with_backtest(settings, capital_usd=100_000.0), 300_000.0)
    hit = lived(deep, high_leverage)
    assert any("liquidated" in note for note in hit.notes)
    assert hit.equity_usd[-1] < 0.6 * hit.capital_usd
    missed = lived(deep, with_backtest(high_leverage, intrabar=False, capital_usd=100_000.0))
    assert not missed.notes


def test_impact_costs_more_the_larger_the_order(settings):
    rich = with_backtest(settings, capital_usd=1e8)
    cost = []
    for y, usd in ((0.0, 4e6), (1.0, 1e4), (1.0, 4e6)):
        record = lived(history(), with_fixed(rich.model_copy(update={"backtest": with_impact(rich, y)}), usd))
        first = [t for t in record.trades if t.at_ns < record.trades[0].at_ns + HOUR]
        paid = sum(t.side * t.amount * (t.price - t.arrival) for t in first)
        cost.append(paid / sum(t.notional_usd for t in first))
    assert cost[0] <= cost[1] + 1e-6 < cost[2]
    assert 5e-4 < cost[2] < 12e-4  # σ √(Q/V) of a hundredth of the hour's volume, less what the limit left undone


def with_impact(settings: Settings, y: float):
    return settings.backtest.model_copy(update={"impact": y})


def passive(settings: Settings, **assumed) -> Settings:
    found = with_fixed(with_backtest(settings, **assumed), 100_000.0)
    execution = found.execution.model_copy(update={"order_type": "passive", "cross_after_ms": 10**9})
    return found.model_copy(update={"execution": execution})


def test_a_resting_order_fills_by_a_share_of_the_bars_volume_and_no_more(settings):
    """A price that falls through it every hour, and four coins traded in each."""
    t = (WARM_DAYS + DAYS) * 24
    falling = walk(1, 20_000.0)._replace(volume=np.full(t, 4.0))
    fall = 20_000.0 * np.exp(-0.004 * np.arange(t + 1))
    down = falling._replace(open=fall[:-1], close=fall[1:], high=fall[:-1] * 1.0001, low=fall[1:] * 0.999)
    record = lived(history(BTCUSDT=down), passive(settings, max_volume_share=0.1))
    assert record.trades
    for at in {t.at_ns // HOUR for t in record.trades}:
        assert sum(t.amount for t in record.trades if t.at_ns // HOUR == at) <= 0.4 + 0.002


def test_without_volume_there_is_no_depth_but_the_last_that_was_known(settings):
    quiet = walk(1, 20_000.0)
    volume = np.where(np.arange(len(quiet.volume)) < (WARM_DAYS - 1) * 24, 1e4, 0.0)
    record = lived(
        history(BTCUSDT=quiet._replace(volume=volume)), with_fixed(with_backtest(settings, impact=1.0), 600_000.0)
    )
    assert record.trades[0].notional_usd < 100_000.0  # not all of it at the touch


def test_funding_due_before_a_contract_has_a_price_concerns_nobody(settings):
    late = walk(2, 500.0)
    keep = np.arange(len(late.open_ns)) >= (WARM_DAYS + 2) * 24 + 3
    record = lived(
        history(funding=1e-4, ETHUSDT=Candles(HOUR, *(getattr(late, n)[keep] for n in Candles._fields[1:]))), settings
    )
    assert np.isfinite(record.equity_usd).all() and {t.symbol for t in record.trades} == set(SYMBOLS)


def test_what_a_bankruptcy_wrote_off_is_no_funding(settings):
    calm = walk(1, 20_000.0, vol=0.0005)
    fall = WARM_DAYS * 24 + 100
    columns = {}
    for name in ("open", "high", "low", "close"):
        column = getattr(calm, name).copy()
        column[fall:] *= 0.4
        columns[name] = column
    crash = calm._replace(**columns)
    record = lived(history(BTCUSDT=crash), with_fixed(with_backtest(settings, capital_usd=100_000.0), 400_000.0))
    assert record.funding_usd[-1] == 0.0


# --- the run ----------------------------------------------------------------------------------------------------


def test_the_same_seed_is_the_same_run_and_its_tape_replays_in_the_live_engine(settings, tmp_path):
    tape = tmp_path / "run.tape"
    one, again = lived(history(), settings, tape=tape), lived(history(), settings)
    np.testing.assert_array_equal(one.equity_usd, again.equity_usd)
    assert one.trades == again.trades
    replayed = replay(read_tape(tape))
    assert replayed["decisions"] > DAYS * 24 and replayed["differences"] == 0


class Mute:
    """Where commands go that a recording has answered already."""

    def send(self, command: object, now_ns: int) -> None: ...


@pytest.mark.timeout(120)
def test_a_demos_events_through_the_backtests_loop_give_the_demos_decisions(tmp_path):
    tape = tmp_path / "demo.tape"
    done = subprocess.run(
        [*CLI, "demo", "--seconds", "4", "--scenario", "default", "--json", "--tape", str(tape)],
        capture_output=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    steps = read_tape(tape).steps()
    started, _ = next(steps)
    run = InProcess(started, Mute())  # type: ignore[arg-type]
    decided = 0
    for event, recorded in steps:
        assert encode_decision(run.fold(event)) == recorded, event
        decided += isinstance(event, DecisionDue)
    assert decided > 10


def test_what_is_not_there_is_left_alone_and_said(settings):
    whole = history().candles[Market("binance", "perp", "ETHUSDT")]
    gap = slice(WARM_DAYS * 24 + 30, WARM_DAYS * 24 + 60)
    keep = np.ones(len(whole.open_ns), dtype=bool)
    keep[gap] = False
    holed = Candles(HOUR, *(getattr(whole, name)[keep] for name in Candles._fields[1:]))
    record = lived(history(ETHUSDT=holed), settings)
    assert any("30 of" in note for note in record.notes)
    there = {t.at_ns for t in record.trades if t.symbol == "ETHUSDT"}
    assert not [at for at in there if START + 30 * HOUR <= at < START + 60 * HOUR]
    assert np.isfinite(record.equity_usd).all()


def test_ticks_come_with_the_bars_however_often_the_configuration_would_decide(settings):
    often = settings.model_copy(update={"decide_every_ms": 60_000})
    of_often, _ = backtest_history(history(), often, START, START + 2 * DAY, seed=7, tape=None, show=False)
    of_bars, _ = backtest_history(history(), settings, START, START + 2 * DAY, seed=7, tape=None, show=False)
    np.testing.assert_array_equal(of_often.equity_usd, of_bars.equity_usd)


def test_funding_of_another_venue_is_not_paid(settings):
    made = history(funding=0.01)
    elsewhere = History(made.candles, {("elsewhere", symbol): rates for (_, symbol), rates in made.funding.items()})
    assert lived(elsewhere, with_fixed(settings, 100_000.0)).funding_usd[-1] == 0.0


def test_a_history_without_what_is_asked_for_says_so(settings):
    only_btc = History({Market("binance", "perp", "BTCUSDT"): walk(1, 20_000.0)}, {})
    with pytest.raises(DataError, match="ETHUSDT; there are BTCUSDT"):
        lived(only_btc, settings)
    old = walk(2, 500.0)
    gone = old._replace(open_ns=old.open_ns - 400 * DAY)
    with pytest.raises(DataError, match="no candle of ETHUSDT within"):
        lived(history(ETHUSDT=gone), settings)
    with pytest.raises(DataError, match="within the time"):
        backtest_history(history(), settings, START + 900 * DAY, START + 901 * DAY, seed=1, tape=None, show=False)
    with pytest.raises(ConfigError, match="not a symbol like"):
        candles.underlying_of("BTC-PERPETUAL")
