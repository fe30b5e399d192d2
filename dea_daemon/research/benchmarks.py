"""What doing nothing clever would have made of the same prices: cash, and equal weights held or rebalanced.

Each is a Record beside the run's, so every figure is computed by the same code. They trade at the close for a stated
cost, without lots, limits or margin: kinder to them than the venue would have been.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.research import bootstrap
from dea_daemon.research.candles import FundingRates
from dea_daemon.research.performance import annualised_vol, cut, daily_returns, figures, until_ruin
from dea_daemon.research.record import Record

COST = 0.0005  # of what is traded: the lowest tier's taker fee
_LEVERAGE_MAX = 20.0
_TRIES = 20


def funding_between(at_ns: IntArray, rates: Sequence[FundingRates | None]) -> FloatArray:
    """[T, U] what a long paid since the decision before, as a fraction of its value; the first row is 0. None pays
    nothing."""
    due = np.zeros((len(at_ns), len(rates)))
    for u, funding in enumerate(rates):
        if funding is not None:
            sums = np.append(0.0, np.cumsum(funding.rate))[np.searchsorted(funding.at_ns, at_ns, side="right")]
            due[1:, u] = np.diff(sums)
    return due


def cash(run: Record) -> Record:
    """The capital, untouched (and without interest)."""
    return _record(run, "cash", np.zeros_like(run.price), np.zeros_like(run.price), np.zeros(len(run.at_ns)))


def static(
    run: Record,
    funding: FloatArray,
    fraction: float,
    *,
    rebalance_days: float | None = 1.0,
    cost: float = COST,
    name: str = "",
) -> Record:
    """Equal weights, `fraction` × equity long in all, brought back every `rebalance_days`, or bought once (None).

    `funding` [T, U] as `funding_between` gives it. Bought once, the amount of contracts stays: funding drains the
    equity beside it, so "1x" does not stay 1x. Prices and funding that are missing raise DataError.
    """
    if not (np.isfinite(run.price).all() and (run.price > 0.0).all() and np.isfinite(funding).all()):
        raise DataError(f"{run.name}: a benchmark needs a price and funding of every underlying at every decision")
    held = _rebalanced(run, (_Leg(run.price, 1.0, -funding),), fraction, rebalance_days, cost)
    made = _record(run, name or _title(fraction, rebalance_days), *held, cost)
    return made._replace(notes=(f"trades at the close for {1e4 * cost:g} bp, without lots, limits or margin",))


class _Leg(NamedTuple):
    """One side of a book: its prices [T, U], +1 bought or −1 sold, what a dollar in it receives at each step [T, U]."""

    price: FloatArray
    side: float
    received: FloatArray


class _Held(NamedTuple):
    """What a book made, step by step: exposure and market [T, U], turnover and what it received [T]."""

    exposure: FloatArray
    market: FloatArray
    turnover: FloatArray
    received: FloatArray


def _rebalanced(run: Record, legs: Sequence[_Leg], fraction: float, rebalance_days: float | None, cost: float) -> _Held:
    """Equal weights, `fraction` × equity in each leg, brought back at every rebalancing."""
    weights = np.full(len(run.underlyings), fraction / len(run.underlyings))
    starts, t = _rebalances(run, rebalance_days), len(run.at_ns)
    made = _Held(np.zeros_like(run.price), np.zeros_like(run.price), np.zeros(t), np.zeros(t))
    equity, amounts = run.capital_usd, [np.zeros(len(weights)) for _ in legs]
    for first, last in zip(starts, [*starts[1:], t - 1], strict=True):
        rows, wanted = slice(first + 1, last + 1), weights * max(equity, 0.0)
        exposure = made.exposure[first : last + 1]
        exposure[:] = 0.0  # at a rebalancing, what is held from then on
        for k, leg in enumerate(legs):
            before, amounts[k] = amounts[k], wanted / leg.price[first]
            made.turnover[first] += np.abs(amounts[k] - before) @ leg.price[first]
            held = amounts[k] * leg.price[first : last + 1]
            made.market[rows] += leg.side * np.diff(held, axis=0)
            made.received[rows] += (held[1:] * leg.received[rows]).sum(axis=1)
            exposure[:] += leg.side * held
        equity += float(made.market[rows].sum() + made.received[rows].sum() - cost * made.turnover[first])
    return made


def static_at_vol(
    run: Record,
    funding: FloatArray,
    annual_vol: float,
    *,
    rebalance_days: float | None = 1.0,
    cost: float = COST,
) -> Record:
    """The static book whose realised daily volatility came out as `annual_vol`. Its leverage is chosen after the fact:
    nobody could have known it. The nearest tried where none meets it (bought once, it may be ruined first)."""
    fraction = 1.0
    made = static(run, funding, fraction, rebalance_days=rebalance_days, cost=cost)
    for _ in range(_TRIES):
        vol = _daily_vol(made)
        if vol == 0.0 or abs(vol / annual_vol - 1.0) < 1e-4:
            break
        # All but linear where the book is rebalanced; bought once it drifts, so the step is tamed.
        step = annual_vol / vol
        fraction = min(fraction * (step if rebalance_days is not None else step**0.7), _LEVERAGE_MAX)
        made = static(run, funding, fraction, rebalance_days=rebalance_days, cost=cost)
    told = "leverage chosen after the fact so that its realised volatility equals the run's"
    title = f"{_title(fraction, rebalance_days)}, equal volatility"
    return made._replace(name=title, target_vol=0.0, notes=(*made.notes, told))


def carry(
    run: Record,
    spot: FloatArray,
    funding: FloatArray,
    fraction: float,
    *,
    rebalance_days: float = 1.0,
    cost: float = COST,
) -> Record:
    """Spot bought and as much of its perpetual sold, equal weights, `fraction` × equity on each side: what is left is
    funding and the basis.

    `spot` [T, U]; where it is missing the last one stands in (the basis it seems to make is taken back with the next).
    """
    legs = _Leg(_filled(spot, run.price), 1.0, np.zeros_like(funding)), _Leg(run.price, -1.0, funding)
    held = _rebalanced(run, legs, fraction, rebalance_days, cost)
    made = _record(run, f"carry {fraction:.2f}x: spot against perpetual", *held, cost)
    return made._replace(notes=(f"both legs trade at the close for {1e4 * cost:g} bp, without lots, limits or margin",))


def _filled(spot: FloatArray, perpetual: FloatArray) -> FloatArray:
    """[T, U] the last price known; before the first, the perpetual's."""
    known = np.isfinite(spot)
    last = np.maximum.accumulate(np.where(known, np.arange(len(spot))[:, None], -1), axis=0)
    return np.where(last >= 0, np.take_along_axis(spot, np.maximum(last, 0), axis=0), perpetual)


def _daily_vol(record: Record) -> float:
    """Of a book that was ruined: so much that half of it is tried next."""
    solvent, ruined = until_ruin(record)
    returns = daily_returns(solvent)
    vol = annualised_vol(returns, len(returns) / solvent.years) or 0.0
    return 2.0 * max(vol, 1.0) if ruined else vol


def _title(fraction: float, rebalance_days: float | None) -> str:
    if rebalance_days is None:
        return f"static {fraction:.2f}x, bought once"
    every = "daily" if rebalance_days == 1.0 else f"every {rebalance_days:g} days"
    return f"static {fraction:.2f}x, rebalanced {every}"


def _rebalances(run: Record, rebalance_days: float | None) -> list[int]:
    """The decisions to trade at, the first among them and never the last."""
    if rebalance_days is None:
        return [0]
    period = ((run.at_ns - run.at_ns[0]) / (rebalance_days * 86_400e9) + 1e-9).astype(np.int64)
    marks = np.flatnonzero(np.append(True, period[1:] != period[:-1]))
    return [mark for mark in marks.tolist() if mark < len(run.at_ns) - 1]


def _record(
    run: Record,
    name: str,
    exposure: FloatArray,
    market: FloatArray,
    turnover: FloatArray,
    funding_usd: FloatArray | None = None,
    cost: float = 0.0,
) -> Record:
    """The series beside the run, from what each step made (market [T, U], funding and turnover [T])."""
    received = np.cumsum(np.zeros(len(turnover)) if funding_usd is None else funding_usd)
    traded, made = np.cumsum(turnover), np.cumsum(market, axis=0)
    equity = run.capital_usd + made.sum(axis=1) + received - cost * traded
    none = np.full_like(run.price, np.nan)
    return run._replace(
        name=name,
        limits=(),
        target_vol=0.0,
        equity_usd=equity,
        peak_usd=np.maximum.accumulate(equity),
        exposure_usd=exposure,
        target_usd=none,
        band_usd=none,
        turnover_usd=traded,
        fees_usd=cost * traded,
        funding_usd=received,
        slippage_usd=np.zeros(len(traded)),
        market_usd=made,
        used=np.empty((len(traded), 0)),
        trades=(),
        notes=(),
    )


# --- beside the run --------------------------------------------------------------------------------------


def compared(run: Record, beside: Sequence[Record], *, seed: int, paths: int = bootstrap.PATHS) -> list[dict[str, Any]]:
    """One row a record, the run first: its figures, its Sharpe ratio's interval, and `sharpe_gap`, the run's Sharpe
    ratio minus this one's with its interval (None for the run itself and where nothing moved or a book was ruined)."""
    end = len(until_ruin(run)[0].at_ns) - 1
    run, *beside = (cut(record, 0, end) for record in (run, *beside))
    if not run.equity_usd[-1] > 0.0:  # its last day has no return to compare
        return [_row(record, None, seed, paths) for record in (run, *beside)]
    own = daily_returns(run)
    return [_row(run, None, seed, paths), *(_row(record, own, seed, paths) for record in beside)]


def _row(record: Record, own: FloatArray | None, seed: int, paths: int) -> dict[str, Any]:
    """One record's; `own` are the run's daily returns, to hold against it."""
    told = figures(record)
    row = {key: told[key] for key in _TOLD} | {"leverage": told["leverage"]["mean"]}
    row["sharpe_interval"] = row["sharpe_gap"] = None
    returns = daily_returns(record)
    if told["ruined"] is None and told["sharpe"] is not None and len(returns) >= bootstrap.LEAST:
        per_year = len(returns) / record.years
        row["sharpe_interval"] = bootstrap.sharpe_interval(returns, per_year, seed=seed, paths=paths)._asdict()
        if own is not None:
            gap = bootstrap.sharpe_difference(own, returns, per_year, seed=seed, paths=paths)
            row["sharpe_gap"] = gap._asdict()
    return row


_TOLD = (
    "name",
    "ruined",
    "annual_return",
    "annual_vol_daily",
    "sharpe",
    "max_drawdown",
    "cost_per_year",
    "funding_per_year",
    "turnover_per_year",
    "notes",
)
