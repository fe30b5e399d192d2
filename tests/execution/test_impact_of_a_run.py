"""The feedback loop: what fills at the simulated venue cost beyond the half spread is found, and followed.

The venue's books have the depth of the square-root law (`backtest.impact`, Y). Y changes in the middle of a run of the
real engine, hour by hour, and returns; what is true is the venue's own: each fill's price against its own mid price,
as the mean of a day's orders and of a day's dollars.
`python -m tests.execution.test_impact_of_a_run [DAYS]` prints the estimate beside it.
"""

import sys
from dataclasses import dataclass

import numpy as np
import pytest

from dea_daemon.domain.modes import Mode
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.execution.estimates import CHANGE_A_DAY, Estimate
from dea_daemon.research.candles import Candles, History, Market
from dea_daemon.shell.settings import Settings, load
from dea_daemon.wiring.candles import CandleRun, bars_of
from dea_daemon.wiring.demo import config_file

pytestmark = pytest.mark.timeout(300)
HOUR_NS = NS_PER_DAY // 24
START_NS = 1_600_000_000_000_000_000 // NS_PER_DAY * NS_PER_DAY
CALM, DEAR = 1.0, 4.0
HALF_BP = 1.0


@dataclass
class Day:
    """The engine's belief at a day's end, bp, and what the venue's fills of the day cost beyond the half spread."""

    impact: float
    orders: int
    estimate_bp: float
    told_bp: float
    paid_bp: float
    dollar_bp: float


def market(days: int) -> History:
    """Hourly candles that wander about 20,000, and 10,000 coins traded in each: work for a fixed target every hour."""
    dice, level, path = np.random.default_rng(1), 0.0, []
    for step in dice.normal(0.0, 0.008, days * 24):
        level = 0.995 * level + step
        path.append(level)
    close = 20_000.0 * np.exp(path)
    before = np.concatenate(([20_000.0], close[:-1]))
    at_ns = START_NS + HOUR_NS * np.arange(len(close), dtype=np.int64)
    high, low = np.maximum(before, close) * 1.002, np.minimum(before, close) * 0.998
    return History(
        {Market("binance", "perp", "BTCUSDT"): Candles(HOUR_NS, at_ns, before, high, low, close, close * 0 + 1e4)}, {}
    )


def settings(**execution: float) -> Settings:
    found = load(config_file("backtest-voltarget.yaml"), {})
    target = {"BTC": {"kind": "fixed", "delta_usd": 2_000_000.0, "band_usd": 1_000.0}}
    return found.model_copy(
        update={
            "allocator": found.allocator.model_validate({"targets": target}),
            "execution": found.execution.model_copy(update={"slippage_bp": 40.0, **execution}),
            "backtest": found.backtest.model_copy(update={"half_spread_bp": HALF_BP}),
        }
    )


def lived(impacts: list[float], of: Settings) -> list[Day]:
    """A day at the venue for each of these impacts."""
    bars = bars_of(market(len(impacts)), ["BTCUSDT"], START_NS, START_NS + len(impacts) * NS_PER_DAY)
    run = CandleRun(bars, {}, of, ["BTCUSDT"], START_NS)
    found: list[Day] = []
    orders: dict[str, np.ndarray] = {}  # paid beyond the half spread and filled, USD
    for t in run.live():
        for booked in run.run.fills:
            fill, mid = booked.fill, float(bars.grid.open[t, 0])
            price = float(run.universe.instruments[0].ticks_to_price(fill.price_ticks))
            usd = fill.lots * float(run.universe.lot_value[0]) * mid
            beyond = fill.side.sign * (price / mid - 1.0) - HALF_BP * 1e-4
            orders[fill.client_order_id] = orders.get(fill.client_order_id, 0.0) + np.array([usd * beyond, usd])
        run.run.fills.clear()
        if t % 24 == 23:
            known = next(iter(run.run.state.memory.costs.estimates.by_key.values()), Estimate())
            usd, of_usd = np.array(list(orders.values())).T
            costs = float((usd / of_usd).mean() * 1e4), float(usd.sum() / of_usd.sum() * 1e4)
            found.append(Day(run.assumed.impact, known.orders, known.bp, known.told_bp, *costs))
            orders.clear()
        run.assumed = run.assumed.model_copy(update={"impact": impacts[min((t + 1) // 24, len(impacts) - 1)]})
    assert run.run.state.account.mode is Mode.NORMAL
    return found


def paid(days: list[Day]) -> float:
    return float(np.mean([day.paid_bp for day in days]))


@pytest.fixture(scope="module")
def changed() -> list[Day]:
    """Calm, then four times as dear, then calm again."""
    return lived([CALM] * 18 + [DEAR] * 12 + [CALM] * 18, settings())


def test_the_venue_is_dearer_while_its_impact_is(changed):
    assert paid(changed[18:30]) > 3.0 * paid(changed[8:18]) and paid(changed[30:]) < 1.2 * paid(changed[8:18])


def test_the_estimate_finds_the_impact_follows_its_change_and_comes_back(changed):
    calm, dear, again = changed[17], changed[29], changed[-1]
    assert calm.estimate_bp == pytest.approx(paid(changed[8:18]), rel=0.35)
    assert dear.estimate_bp > 2.0 * calm.estimate_bp
    assert dear.estimate_bp == pytest.approx(paid(changed[18:30]), rel=0.5)
    assert again.estimate_bp < calm.estimate_bp + 0.5 * (dear.estimate_bp - calm.estimate_bp)


def test_the_allocator_is_told_it_a_tenth_of_the_cap_a_day_at_most(changed):
    told = np.array([0.0, *(day.told_bp for day in changed)])
    cap = settings().parameters.execution.surcharge_most_bp
    assert (abs(np.diff(told)) <= CHANGE_A_DAY * cap * (1.0 + 1e-6)).all()
    assert changed[29].told_bp > 2.0 * changed[17].told_bp > 0.0 and changed[-1].told_bp < changed[29].told_bp


def test_and_never_beyond_the_cap_however_dear_the_venue_is():
    days = lived([2.0 * DEAR] * 14, settings(surcharge_most_bp=1.5))
    assert days[-1].estimate_bp > 1.5 and paid(days) > 6.0
    told = [day.told_bp for day in days]
    assert max(told) == pytest.approx(1.5) and told == sorted(told)


if __name__ == "__main__":
    length = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    head = ("day", "impact Y", "orders measured", "paid an order, bp", "a dollar", "estimate", "told")
    sys.stdout.write(f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n")
    days = lived([CALM] * length + [DEAR] * length + [CALM] * length, settings())
    for last in range(length // 4, 3 * length + 1, length // 4):
        day, lately = days[last - 1], days[last - length // 4 : last]
        dollar_bp = np.mean([each.dollar_bp for each in lately])
        figures = f"{paid(lately):.2f} | {dollar_bp:.2f} | {day.estimate_bp:.2f} | {day.told_bp:.2f}"
        sys.stdout.write(f"| {last} | {day.impact:g} | {day.orders} | {figures} |\n")
