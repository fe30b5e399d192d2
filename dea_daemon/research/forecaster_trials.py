"""Which options of the forecasters of returns foretell best: the daemon's own learners, price by price, judged by
squared error in standard deviations at each midnight, over all horizons and underlyings.

Of what a history of prices and funding can tell: `half_life_days`, which ridge alone minds, and `prior_sharpe`, which
the prior alone does. So one run through the prices tries one of each. Smile, basis and open interest are unknown here.
"""

import numpy as np

from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.domain.parameters import ForecastParameters, TreeParameters
from dea_daemon.forecast import learners
from dea_daemon.forecast.volatility import VolatilityMemory, expected_variance, sample
from dea_daemon.research.calibration import Prices

TRIED = {"ridge": "half_life_days", "prior": "prior_sharpe"}  # of `forecast.learners`, by who minds it
VALUES = {
    "half_life_days": (60.0, 120.0, 250.0, 500.0, 1_000.0),
    "prior_sharpe": (0.0, 0.25, 0.5, 0.75, 1.0),
}
JUDGED = ("zero", *TRIED)
HORIZON = int(max(learners.HORIZON_DAYS))  # days until a day's loss is known


def trials_of(incumbent: ForecastParameters) -> list[ForecastParameters]:
    """The incumbent, then one for each value. Trees, which would forecast nothing here, are left out."""
    own = incumbent.learners.model_copy(update={"trees": TreeParameters()})
    tried = (dict(zip(VALUES, values, strict=True)) for values in zip(*VALUES.values(), strict=True))
    return [
        incumbent.model_copy(update={"learners": own.model_copy(update=values)})
        for values in ({name: getattr(own, name) for name in VALUES}, *tried)
    ]


def squared_errors(prices: Prices, params: ForecastParameters) -> FloatArray:
    """[W, D] of each of JUDGED at each midnight, the mean over horizons and underlyings; NaN where an outcome is not
    known. Outcomes count as the daemon's own scores count them."""
    memory = VolatilityMemory(prices.usd.shape[1])
    own, said, vol = memory.learners, [], []
    carry = np.full_like(prices.usd, np.nan) if prices.carry is None else prices.carry
    for now_ns, usd, earned in zip(prices.at_ns.tolist(), prices.usd, carry, strict=True):
        sample(memory, now_ns, usd, params)
        if learners.due(own, now_ns, params.learners):
            learners.observe(own, now_ns, usd, expected_variance(memory, params), None, earned, params.learners)
        if now_ns % NS_PER_DAY == 0:
            rows = [(horizon, own.past.slot % (horizon.steps + 1)) for horizon in own.horizons]
            said.append([horizon.said[row].copy() for horizon, row in rows])
            vol.append([horizon.vol[row].copy() for horizon, row in rows])
    who = [learners.LEARNERS.index(name) for name in JUDGED]
    told = np.array(said)[:, :, who]  # [D, H, W, U]
    error = told - _outcomes(prices, np.array(vol))[:, :, None]
    return np.asarray((error**2).mean(axis=(1, 3)).T)


def _outcomes(prices: Prices, vol: FloatArray) -> FloatArray:
    """[D, H, U] in standard deviations of each horizon; `vol` [D, H, U] 1/√day."""
    midnight = prices.at_ns % NS_PER_DAY == 0
    at_ns, log_price = prices.at_ns[midnight], np.log(prices.usd[midnight])
    moved = np.stack([_moved(at_ns, log_price, round(days)) for days in learners.HORIZON_DAYS], axis=1)
    scale = vol * np.sqrt(np.array(learners.HORIZON_DAYS))[None, :, None]
    return np.asarray(np.clip(moved / scale, -learners.OUTCOME_MOST, learners.OUTCOME_MOST))


def _moved(at_ns: IntArray, log_price: FloatArray, days: int) -> FloatArray:
    """[D, U]; NaN where the midnight so many days later is not there."""
    found = np.full_like(log_price, np.nan)
    whole = (at_ns[days:] - at_ns[:-days] == days * NS_PER_DAY)[:, None]
    found[:-days] = np.where(whole, log_price[days:] - log_price[:-days], np.nan)
    return found
