"""Records made by hand or simulated, for the tests of what is computed from them."""

import numpy as np

from dea_daemon.research.record import Record, Trade

START_NS = 1_577_836_800_000_000_000  # 2020-01-01
HOUR_NS = 3_600_000_000_000
NAMES = ("BTC", "ETH")


def by_hand(equity, step_ns=HOUR_NS, capital=None, **columns):
    """A record of this equity, in one underlying at a price of 100; all else is nothing unless given."""
    equity = np.asarray(equity, dtype=float)
    t = len(equity)
    flat, none = np.zeros(t), np.full((t, 1), np.nan)
    known = dict(
        name="by hand",
        underlyings=("BTC",),
        limits=(),
        capital_usd=float(equity[0]) if capital is None else capital,
        target_vol=0.0,
        step_ns=step_ns,
        at_ns=START_NS + step_ns * np.arange(t),
        equity_usd=equity,
        peak_usd=np.maximum.accumulate(equity),
        price=np.full((t, 1), 100.0),
        exposure_usd=np.zeros((t, 1)),
        target_usd=none,
        band_usd=none,
        annual_vol=none,
        turnover_usd=flat,
        fees_usd=flat,
        funding_usd=flat,
        slippage_usd=flat,
        market_usd=np.zeros((t, 1)),
        used=np.empty((t, 0)),
    )
    return Record(**(known | columns))


def prices(bars, seed, crash=True):
    """[T, 2] hourly, two coins in one market of changing volatility; with one terrible day if `crash`."""
    draws = np.random.default_rng(seed)
    hourly = np.exp(np.cumsum(0.01 * draws.standard_normal(bars)) * 0.35) * 0.6 / np.sqrt(8760.0)
    hourly = np.clip(hourly, 0.2 / 93.6, 1.6 / 93.6)
    common = draws.standard_t(5, bars) * np.sqrt(3 / 5)
    own = draws.standard_normal((bars, 2)) * np.array([0.35, 0.55])
    moves = hourly[:, None] * (common[:, None] * np.array([0.9, 1.1]) + own) + 2e-5
    if crash:
        moves[bars // 3 : bars // 3 + 12] -= 0.02
    return np.array([9_000.0, 200.0]) * np.exp(np.cumsum(moves, axis=0))


def simulated(bars=24 * 365, seed=1, target_vol=0.2, band=0.15, capital=100_000.0, crash=True):
    """A volatility-targeted run with a no-trade band, cheap and wrong in no way that matters here."""
    price = prices(bars, seed, crash)
    draws = np.random.default_rng(seed + 1)
    moves = np.vstack([np.zeros(2), np.diff(price, axis=0) / price[:-1]])
    funding = np.where(np.arange(bars) % 8 == 0, 1e-4, 0.0)[:, None] * np.array([1.0, 1.3])
    equity, amount, variance = capital, np.zeros(2), np.full(2, 0.64 / 8760)
    names = ("equity", "exposure", "target", "vol", "turnover", "fees", "paid", "slip", "made")
    columns: dict[str, list[object]] = {name: [] for name in names}
    trades = []
    turnover = fees = paid = slip = 0.0
    made = np.zeros(2)
    for n in range(bars):
        gains = amount * price[n] * (1 - 1 / (1 + moves[n]))
        due = float(amount * price[n] @ funding[n])
        made, paid = made + gains, paid - due
        variance = 0.99 * variance + 0.01 * moves[n] ** 2
        vol = np.sqrt(variance * 8760)
        equity += gains.sum() - due
        target = target_vol * equity / vol / 2 / 0.93
        for u in np.flatnonzero(np.abs(amount * price[n] - target) > band * target):
            traded = float(target[u] - amount[u] * price[n, u])
            amount[u] = target[u] / price[n, u]
            fee, slipped = 0.0005 * abs(traded), 0.0001 * abs(traded)
            turnover, fees, slip, equity = turnover + abs(traded), fees + fee, slip + slipped, equity - fee - slipped
            side = 1 if traded > 0 else -1
            lots = abs(traded) / price[n, u]
            trades.append(Trade(n, NAMES[u], side, lots, price[n, u], abs(traded), fee, price[n, u]))
        now = (equity, amount * price[n], target, vol, turnover, fees, paid, slip, made)
        for values, value in zip(columns.values(), now, strict=True):
            values.append(value)
    c = {name: np.array(values) for name, values in columns.items()}
    gross = np.abs(c["exposure"]).sum(axis=1) / c["equity"]
    peak = np.maximum.accumulate(c["equity"])
    return Record(
        name="volatility target",
        underlyings=NAMES,
        limits=("gross leverage", "drawdown", "one underlying", "margin"),
        capital_usd=capital,
        target_vol=target_vol,
        step_ns=HOUR_NS,
        at_ns=START_NS + HOUR_NS * (1 + np.arange(bars)),
        equity_usd=c["equity"],
        peak_usd=peak,
        price=price,
        exposure_usd=c["exposure"],
        target_usd=c["target"],
        band_usd=band * c["target"],
        annual_vol=c["vol"],
        turnover_usd=c["turnover"],
        fees_usd=c["fees"],
        funding_usd=c["paid"],
        slippage_usd=c["slip"],
        market_usd=c["made"],
        used=np.column_stack(
            [gross / 1.5, (1 - c["equity"] / peak) / 0.4, gross / 2, gross * 0.2 + 0.02 * draws.random(bars)]
        ),
        trades=tuple(t._replace(at_ns=START_NS + HOUR_NS * (1 + t.at_ns)) for t in trades),
    )


def funding_paid(bars):
    """[T, 2] what `simulated` pays."""
    return np.where(np.arange(bars) % 8 == 0, 1e-4, 0.0)[:, None] * np.array([1.0, 1.3])
