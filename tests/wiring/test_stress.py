"""Living through paths: the engine at a venue with bad days."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dea_daemon.research.episodes import EPISODES
from dea_daemon.research.stress_report import Driven
from dea_daemon.shell.settings import Settings, load
from dea_daemon.wiring.demo import config_file
from dea_daemon.wiring.stress_book import Stage, asked_book, targeted
from dea_daemon.wiring.stress_time import StressRun, live_through
from dea_daemon.wiring.stress_trials import (
    MINUTE_NS,
    Trial,
    bars_along,
    calm,
    episode_trial,
    path_trials,
    quiet,
)

OCTOBER = next(episode for episode in EPISODES if episode.name == "2025-10-10")


def config_text(btc_usd: float = 800_000, eth_usd: float = -700_000) -> str:
    """The backtest's configuration with fixed targets: one long, one short."""
    text = config_file("backtest-voltarget.yaml").read_text()
    for coin, usd in (("BTC", btc_usd), ("ETH", eth_usd)):
        was = f"    {coin}: {{kind: volatility, weight: 1, band: cube_root, min_band_usd: 100}}"
        assert was in text
        text = text.replace(was, f"    {coin}: {{kind: fixed, delta_usd: {usd}, band_usd: 20_000}}")
    return text


@pytest.fixture
def settings(tmp_path):
    def made(btc_usd: float = 800_000, eth_usd: float = -700_000, every_ms: int = 3_600_000) -> Settings:
        path = tmp_path / "config.yaml"
        path.write_text(config_text(btc_usd, eth_usd).replace("3_600_000", f"{every_ms}"))
        return load(path)

    return made


def stage_of(settings: Settings, portfolio: Path | None = None) -> Stage:
    return asked_book(portfolio, settings, None)[1]


def minutes(
    settings: Settings,
    shares: list[float],
    outage: range = range(0),
    adl: int | None = None,
    funding: tuple[int, float] | None = None,
    portfolio: Path | None = None,
) -> Trial:
    """A path of all coins alike by minutes, thirty of them calm before it; funding at the end of one of its minutes."""
    stage = stage_of(settings, portfolio)
    path = np.array([1.0] * 30 + shares)
    each = np.stack([path] * len(stage.book.underlyings), axis=1)
    bars, course = bars_along(each, MINUTE_NS, MINUTE_NS, stage, 30, partial(quiet, stage))
    conditions = calm(len(course.years))
    for minute in outage:
        conditions.outage[30 + minute] = True
    if adl is not None:
        conditions.adl[30 + adl] = True
    if funding is not None:
        course.funding[30 + funding[0]] = funding[1]
    return Trial("made", "made", "episode", bars, conditions, 30, course)


def lived(settings: Settings, shares: list[float], seed: int = 7, **conditions) -> Driven:
    trial = minutes(settings, shares, **conditions)
    return live_through(trial, stage_of(settings, conditions.get("portfolio")), settings, seed)


@pytest.mark.timeout(60)
def test_the_book_is_built_before_the_path_begins_and_then_makes_what_prices_make(settings):
    found = lived(settings(800_000, 1.0), [1.0] * 5 + [0.99] * 5)
    assert found.still_loss_usd == pytest.approx(8_000.0, rel=0.03)
    assert found.loss_usd == pytest.approx(found.still_loss_usd, rel=0.05)
    assert found.liquidations == 0 and found.unheard_bars == 0


@pytest.mark.timeout(60)
def test_a_flat_book_loses_nothing(settings):
    found = lived(settings(0, 0), np.linspace(1.0, 0.5, 20).tolist())
    assert found.loss_usd == found.still_loss_usd == 0.0 and found.orders == 0
    assert found.turnover_usd == found.fees_usd == found.funding_usd == 0.0


@pytest.mark.timeout(60)
def test_in_an_outage_nothing_is_heard_and_margin_is_judged_all_the_same(settings):
    fall = np.linspace(1.0, 0.55, 12).tolist()
    held = settings(3_000_000, 1.0, 60_000)
    deaf = lived(held, [*fall, *fall[-1:] * 4], outage=range(12))
    heard = lived(held, [*fall, *fall[-1:] * 4])
    assert deaf.unheard_bars == 12 and heard.unheard_bars == 0
    assert deaf.liquidations > 0  # 45 % of thrice the equity is more than all of it
    assert heard.orders >= deaf.orders


@pytest.mark.timeout(60)
def test_the_venue_closes_the_shorts_and_the_daemon_sells_again(settings):
    found = lived(settings(every_ms=60_000), [1.0] * 20, adl=5)
    assert found.deleveraged_usd == pytest.approx(700_000.0, rel=0.05) and found.deleveraged == 1
    assert found.orders >= 1 and found.liquidations == 0
    assert found.turnover_usd == pytest.approx(1_400_000.0, rel=0.05)  # what was taken, and what was sold again
    assert lived(settings(every_ms=60_000), [1.0] * 20).deleveraged_usd == 0.0


@pytest.mark.timeout(60)
def test_thin_books_make_the_same_trades_dearer(settings):
    def sold_again(depth: float) -> float:
        of = settings(every_ms=60_000)
        trial = minutes(of, [1.0] * 20, adl=5)
        trial.conditions.depth[30:] = depth
        return live_through(trial, stage_of(of), of, 7).loss_usd

    assert sold_again(0.05) > sold_again(1.0) + 100.0


# --- what it pays, and what is counted ----------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_longs_pay_a_positive_rate_once_whether_or_not_anything_is_heard(settings):
    of = settings(800_000, 0)
    for outage in (range(0), range(2, 5)):
        found = lived(of, [1.0] * 10, funding=(3, 0.01), outage=outage)
        assert found.funding_usd == pytest.approx(-8_000.0, rel=0.03)
        assert found.loss_usd == pytest.approx(found.still_loss_usd, abs=60.0)
        assert found.still_loss_usd == pytest.approx(8_000.0, rel=0.03)


@pytest.mark.timeout(60)
def test_shorts_receive_it_and_before_the_path_nobody_counts_it(settings):
    found = lived(settings(0, -700_000), [1.0] * 10, funding=(3, 0.01))
    assert found.funding_usd == pytest.approx(7_000.0, rel=0.03) == -found.loss_usd
    assert lived(settings(0, -700_000), [1.0] * 10, funding=(-5, 0.01)).funding_usd == 0.0


@pytest.mark.timeout(60)
def test_a_mode_entered_is_told_with_its_hour_and_what_a_limit_cut_is_counted(tmp_path):
    path = tmp_path / "config.yaml"
    text = config_text(800_000, 1.0).replace("3_600_000", "60_000")
    path.write_text(text.replace("  max_drawdown: 0.9", "  max_drawdown: 0.9\n  max_daily_loss: 0.02"))
    fall = [1.0] * 5 + [0.95] * 15
    found = lived(load(path), fall)
    assert [mode for _, mode in found.changes] == ["reduce_only"]
    assert found.changes[0][0] == pytest.approx(6 / 60, abs=2 / 60)  # hours: the minute of the fall, or the next
    assert found.modes["reduce_only"] == pytest.approx((20 - 60 * found.changes[0][0]) / 60, abs=2 / 60)
    assert sum(found.modes.values()) == pytest.approx(found.bars / 60)
    assert lived(load(path), [1.0] * 20).changes == ()


# --- a portfolio in time --------------------------------------------------------------------------------------------

HELD = """\
portfolio:
  as_of: 2026-01-05T08:00:00Z
  prices: {BTC: 90_000, ETH: 3_000}
  cash: {BTC: 4, ETH: 30, USDC: 400_000}
  positions:
    - {contract: BTC-27MAR26-90000-P, amount: -4, iv: 0.5}
    - {contract: BTC-27MAR26, amount: -50_000, price: 91_000}
    - {contract: BTC-PERPETUAL, amount: 30_000, price: 90_000}
    - {contract: ETH_USDC-30JAN26-3000-C, amount: -20, iv: 0.6}
    - {contract: BTC-6JAN26-88000-C, amount: 2, iv: 0.5}
    - {contract: BTC-6JAN26-99000-P, amount: -2, iv: 0.5}
"""


@pytest.fixture
def portfolio(tmp_path):
    path = tmp_path / "portfolio.yaml"
    path.write_text(HELD)
    return path


@pytest.fixture
def idle(tmp_path):
    """Targets so wide that nothing is ever traded."""
    path = tmp_path / "config.yaml"
    path.write_text(config_text(1.0, 1.0).replace("band_usd: 20_000", "band_usd: 9_000_000"))
    return load(path)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("episode", [e for e in EPISODES if e.adl is None], ids=lambda e: e.name)
def test_a_portfolio_nobody_trades_is_worth_at_the_venue_what_black_says_expiries_and_funding_and_all(
    episode, idle, portfolio
):
    stage = stage_of(idle, portfolio)
    found = live_through(episode_trial(episode, stage, idle, 7), stage, idle, 7)
    assert found.orders == found.fills == found.liquidations == 0
    fee = abs(found.equity_usd - found.still_usd).max()  # of the delivery, which the book left alone does not pay
    assert fee < 0.00016 * 2 * 2 * 90_000
    assert found.bare_usd is not None and np.array_equal(found.bare_usd, found.still_usd)
    assert found.worst_loss_usd > 10_000.0 and abs(found.funding_usd) > 1.0


@pytest.mark.timeout(120)
def test_the_daemon_hedges_what_is_held_to_its_target_as_prices_move(settings, portfolio):
    of = settings(0, 0)
    trial = minutes(of, np.linspace(1.0, 0.8, 60).tolist(), portfolio=portfolio)
    stage = stage_of(of, portfolio)
    run = StressRun(trial, stage, of, 7)
    delta = []
    for t in run.live():
        view = run.run.state.view
        if t >= trial.warm and view is not None:
            delta.append(np.abs(view.delta_usd).max())
    assert run.exchange.account("main").lots("BTCUSDC") < 0  # against coins, puts sold and calls bought
    assert np.max(delta) < 60_000.0  # the band is 20,000; unhedged it is
    assert float(np.abs(stage.book.equity[0] * 90_000.0)) > 200_000.0


@pytest.mark.timeout(120)
def test_fees_and_what_the_venue_closed_count_at_the_prices_of_their_time(idle, tmp_path):
    path = tmp_path / "short.yaml"
    path.write_text(
        "portfolio:\n  as_of: 2026-01-05T08:00:00Z\n  prices: {BTC: 90_000, ETH: 3_000}\n"
        "  cash: {BTC: 4, USDC: 400_000}\n"
        "  positions: [{contract: BTC-PERPETUAL, amount: -100_000, price: 90_000}]\n"
    )
    found = lived(idle, [1.0] * 10 + np.linspace(1.0, 1.3, 20).tolist(), adl=5, portfolio=path)
    assert found.deleveraged == 1 and found.deleveraged_usd == pytest.approx(100_000.0, rel=1e-3)
    assert found.fees_usd == pytest.approx(100_000.0 * 5e-4, rel=1e-3)  # not a third more, as a coin is worth later


@pytest.mark.timeout(120)
def test_what_the_venue_takes_before_the_path_begins_is_told(idle, tmp_path):
    path = tmp_path / "bare.yaml"
    path.write_text(
        "portfolio:\n  as_of: 2026-01-05T08:00:00Z\n  prices: {BTC: 90_000, ETH: 3_000}\n"
        "  cash: {ETH: 10, USDC: 400_000}\n"
        "  positions: [{contract: BTC-27MAR26-90000-P, amount: -1, iv: 0.5}]\n"
    )
    found = lived(idle, [1.0] * 5, portfolio=path)
    assert found.liquidated_before > 0 and found.liquidations == 0
    _, _, notes = asked_book(path, idle, None)
    assert any("not told of those coins" in note and "ETH" in note for note in notes)


@pytest.mark.timeout(120)
def test_the_same_seed_is_the_same_episode_and_another_is_another(settings):
    def equity(seed: int) -> np.ndarray:
        hourly = settings()
        stage = stage_of(hourly)
        return live_through(episode_trial(OCTOBER, stage, hourly, seed), stage, hourly, seed).equity_usd

    assert np.array_equal(equity(1), equity(1)) and not np.array_equal(equity(1), equity(2))


def test_an_episodes_bars_reach_its_low_at_whatever_rhythm(settings):
    for every_ms in (60_000, 3_600_000):
        of = settings(every_ms=every_ms)
        trial = episode_trial(OCTOBER, stage_of(of), of, 7)
        low = trial.bars.grid.low[trial.warm :] / trial.bars.grid.close[trial.warm - 1]
        assert low[:, 0].min() <= 0.871 and low[:, 1].min() <= 0.791
        assert trial.conditions.outage.any() and trial.conditions.adl.sum() == 1 and trial.outages == 12


def test_every_rate_of_an_episode_is_paid_once_at_whatever_rhythm(settings):
    for episode in EPISODES:
        for every_ms in (60_000, 3_600_000):
            of = settings(every_ms=every_ms)
            paid = episode_trial(episode, stage_of(of), of, 7).course.funding
            told = np.array(episode.funding)[:, 1:]
            assert paid.sum(axis=0) == pytest.approx(told.sum(axis=0)), (episode.name, every_ms)
            assert (paid != 0.0).any(axis=1).sum() == (told != 0.0).any(axis=1).sum()


def test_paths_are_drawn_of_each_kind_and_of_history_only_where_there_is_one(settings):
    hourly = settings()
    stage = stage_of(hourly)
    names = ["heston.0", "heston.1", "bates.0", "bates.1"]
    assert [t.name for t in path_trials(2, 7, hourly, stage, None)] == names
    returns = 0.01 * np.random.default_rng(1).standard_normal((900, 2))
    found = path_trials(2, 7, hourly, stage, returns)
    assert [t.name for t in found][-2:] == ["bootstrap.0", "bootstrap.1"]
    assert all((t.course.funding != 0.0).any(axis=1).sum() == 40 * 3 for t in found)  # of forty days


def test_volatility_targets_are_sized_to_the_volatility_asked_for(tmp_path):
    book = targeted(load(config_file("backtest-voltarget.yaml")), None)
    held = book.amount * book.forward
    risk = np.sqrt(held @ (0.6**2 * np.array([[1.0, 0.8], [0.8, 1.0]])) @ held)
    assert risk == pytest.approx(0.20 * 1_000_000) and held[0] == pytest.approx(held[1])
