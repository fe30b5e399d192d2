"""Living through paths: the engine at a venue with bad days."""

import numpy as np
import pytest

from dea_daemon.research.episodes import EPISODES
from dea_daemon.shell.settings import Settings, load
from dea_daemon.wiring.demo import config_file
from dea_daemon.wiring.stress import (
    MINUTE_NS,
    Asked,
    Trial,
    _bars,
    calm,
    episode_trial,
    live_through,
    path_trials,
    targeted,
)

BOTH = ("BTC", "ETH")
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


def minutes(shares: list[float], outage: range = range(0), adl: int | None = None) -> Trial:
    """A path of BTC and ETH alike by minutes, thirty of them calm before it."""
    path = np.array([1.0] * 30 + shares)
    bars = _bars(np.stack((path, path), axis=1), MINUTE_NS, MINUTE_NS, np.array([65_000.0, 3_000.0]))
    conditions = calm(len(bars.grid.open_ns))
    for minute in outage:
        conditions.outage[30 + minute] = True
    if adl is not None:
        conditions.adl[30 + adl] = True
    return Trial("made", "made", "episode", bars, conditions, 30)


@pytest.mark.timeout(60)
def test_the_book_is_built_before_the_path_begins_and_then_makes_what_prices_make(settings):
    found = live_through(minutes([1.0] * 5 + [0.99] * 5), settings(800_000, 1.0), BOTH, 7)
    assert found.still_loss_usd == pytest.approx(8_000.0, rel=0.03)
    assert found.loss_usd == pytest.approx(found.still_loss_usd, rel=0.05)
    assert found.liquidations == 0 and found.unheard_bars == 0


@pytest.mark.timeout(60)
def test_a_flat_book_loses_nothing(settings):
    found = live_through(minutes(np.linspace(1.0, 0.5, 20).tolist()), settings(0, 0), BOTH, 7)
    assert found.loss_usd == found.still_loss_usd == 0.0 and found.orders == 0


@pytest.mark.timeout(60)
def test_in_an_outage_nothing_is_heard_and_margin_is_judged_all_the_same(settings):
    fall = np.linspace(1.0, 0.55, 12).tolist()
    held = settings(3_000_000, 1.0, 60_000)
    deaf = live_through(minutes([*fall, *fall[-1:] * 4], outage=range(12)), held, BOTH, 7)
    heard = live_through(minutes([*fall, *fall[-1:] * 4]), held, BOTH, 7)
    assert deaf.unheard_bars == 12 and heard.unheard_bars == 0
    assert deaf.liquidations > 0  # 45 % of thrice the equity is more than all of it
    assert heard.orders >= deaf.orders


@pytest.mark.timeout(60)
def test_the_venue_closes_the_shorts_and_the_daemon_sells_again(settings):
    found = live_through(minutes([1.0] * 20, adl=5), settings(every_ms=60_000), BOTH, 7)
    assert found.deleveraged_usd == pytest.approx(700_000.0, rel=0.05)
    assert found.orders >= 1 and found.liquidations == 0
    none = live_through(minutes([1.0] * 20), settings(every_ms=60_000), BOTH, 7)
    assert none.deleveraged_usd == 0.0


@pytest.mark.timeout(60)
def test_thin_books_make_the_same_trades_dearer(settings):
    def sold_again(depth: float) -> float:
        trial = minutes([1.0] * 20, adl=5)
        trial.conditions.depth[30:] = depth
        return live_through(trial, settings(every_ms=60_000), BOTH, 7).loss_usd

    assert sold_again(0.05) > sold_again(1.0) + 100.0


@pytest.mark.timeout(120)
def test_the_same_seed_is_the_same_episode_and_another_is_another(settings):
    def equity(seed: int) -> np.ndarray:
        hourly = settings()
        return live_through(episode_trial(OCTOBER, BOTH, hourly, seed), hourly, BOTH, seed).equity_usd

    assert np.array_equal(equity(1), equity(1)) and not np.array_equal(equity(1), equity(2))


def test_an_episodes_bars_reach_its_low_at_whatever_rhythm(settings):
    for every_ms in (60_000, 3_600_000):
        trial = episode_trial(OCTOBER, BOTH, settings(every_ms=every_ms), 7)
        low = trial.bars.grid.low[trial.warm :] / trial.bars.grid.close[trial.warm - 1]
        assert low[:, 0].min() <= 0.871 and low[:, 1].min() <= 0.791
        assert trial.conditions.outage.any() and trial.conditions.adl.sum() == 1


def test_paths_are_drawn_of_each_kind_and_of_history_only_where_there_is_one(settings):
    asked, hourly = Asked(paths=2), settings()
    assert [t.name for t in path_trials(asked, hourly, BOTH, None)] == ["heston.0", "heston.1", "bates.0", "bates.1"]
    returns = 0.01 * np.random.default_rng(1).standard_normal((900, 2))
    assert [t.name for t in path_trials(asked, hourly, BOTH, returns)][-2:] == ["bootstrap.0", "bootstrap.1"]


def test_volatility_targets_are_sized_to_the_volatility_asked_for(tmp_path):
    book = targeted(load(config_file("backtest-voltarget.yaml")), None)
    held = book.amount * book.forward
    risk = np.sqrt(held @ (0.6**2 * np.array([[1.0, 0.8], [0.8, 1.0]])) @ held)
    assert risk == pytest.approx(0.20 * 1_000_000) and held[0] == pytest.approx(held[1])
