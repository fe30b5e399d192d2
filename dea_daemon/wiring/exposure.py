"""`dea-daemon exposure` of a portfolio in a file: the same sums as a daemon's, without one.

What the file leaves out is filled in: an option's forward from the future of its expiry, or else the index; its
volatility from its price; a perpetual's price from the index.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dea_daemon.domain.decisions import IvSource
from dea_daemon.domain.factors import FactorIndex
from dea_daemon.domain.instruments import AccountKey, BoolArray, FloatArray, IntArray, Kind, Payoff, Universe
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_S
from dea_daemon.pricing import black
from dea_daemon.pricing.exposure import Marks, account_exposure, notional_per_lot
from dea_daemon.pricing.implied import implied_volatility
from dea_daemon.shell import exposure
from dea_daemon.shell.plain import plain
from dea_daemon.shell.portfolio import VENUE, Held, Statement, load_portfolio

_SOURCES = {"mark": "given", "quotes": "price"}  # what stands for them in a file
_AVERAGED_NS = 1_800 * NS_PER_S  # the index average that dated contracts settle at, before expiry


@dataclass(frozen=True, slots=True)
class Valued:
    """A portfolio as `shell.exposure.Book` wants it; shapes and units as in a View."""

    utc_ns: int
    universe: Universe
    factors: FactorIndex
    mark_price: FloatArray
    forward_price: FloatArray
    iv: FloatArray
    iv_source: IntArray
    modelled: BoolArray
    greeks_off: BoolArray
    position_lots: IntArray
    working_buy_lots: IntArray
    working_sell_lots: IntArray
    notional_per_lot_usd: FloatArray
    exposure_per_lot: FloatArray
    exposure_base_usd: FloatArray
    exposure_usd: FloatArray
    equity_usd: float


def portfolio_exposure(path: Path) -> dict[str, Any]:
    """What the portfolio in a file is exposed to, as `shell.exposure.exposure` tells. Raises ConfigError."""
    told = exposure.exposure(value(load_portfolio(path)))
    for position in told["positions"]:
        position["iv_source"] = _SOURCES.get(position["iv_source"], "")
    counts = told["options"]["iv_sources"]
    told["options"]["iv_sources"] = {_SOURCES[name]: count for name, count in counts.items()}
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(told, enc_hook=plain))  # NaN becomes None
    return found


def value(told: Statement) -> Valued:
    """Prices, Greeks and exposures. Raises ConfigError where no volatility gives a price."""
    universe = Universe((AccountKey(VENUE, "file"),), tuple((0, held.instrument) for held in told.held))
    currencies = sorted({*told.cash, *(held.instrument.settle_currency for held in told.held)})
    factors = FactorIndex(universe.underlyings, tuple(c for c in currencies if c not in universe.underlyings))
    lots = np.array([held.lots for held in told.held], dtype=np.int64)
    marks, iv = _marks(told, universe)
    equity = _equity(told, marks.mark_price)
    matrix, base, total = account_exposure(universe, factors, marks, lots, equity, told.prices)
    none = np.zeros(len(universe), dtype=np.int64)
    return Valued(
        utc_ns=told.utc_ns,
        universe=universe,
        factors=factors,
        mark_price=marks.mark_price,
        forward_price=np.where(universe.expiry_ns > 0, marks.forward_price, np.nan),
        iv=iv,
        iv_source=_sources(told),
        modelled=none.astype(np.bool_),
        greeks_off=none.astype(np.bool_),
        position_lots=lots,
        working_buy_lots=none,
        working_sell_lots=none,
        notional_per_lot_usd=notional_per_lot(universe, marks.mark_price, marks.spot_price),
        exposure_per_lot=matrix,
        exposure_base_usd=base,
        exposure_usd=total,
        equity_usd=sum(amount * told.prices[currency] for currency, amount in equity.items()),
    )


def _column(values: list[float | None]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _marks(told: Statement, universe: Universe) -> tuple[Marks, FloatArray]:
    """Marks and implied volatilities [N]."""
    spot = _column([told.prices[held.instrument.underlying] for held in told.held])
    given = _column([held.told.price for held in told.held])
    forward = _forwards(told, spot)
    left_ns = np.where(universe.expiry_ns > 0, universe.expiry_ns - told.utc_ns, 0)
    tau = left_ns / NS_PER_DAY / DAYS_PER_YEAR
    iv = _volatilities(told, universe, given, forward, tau)
    greeks = black.greeks(forward, universe.strike, tau, iv, universe.call)
    unit = np.where(universe.coin_quoted, forward, 1.0)  # of an option's price, USD
    mark = np.where(universe.option, greeks.price / unit, np.where(np.isnan(given), spot, given))
    marks = Marks(
        mark_price=mark,
        spot_price=spot,
        forward_price=forward,
        settle_price=_column([told.prices[held.instrument.settle_currency] for held in told.held]),
        funding_rate_8h=_column([held.told.funding_8h for held in told.held]),
        tau_years=tau,
        weight=np.where(universe.expiry_ns > 0, np.minimum(left_ns / _AVERAGED_NS, 1.0), 1.0),
        delta=greeks.delta,
        gamma=greeks.gamma,
        vega=greeks.vega,
        theta=greeks.theta,
        coin_value=greeks.price / forward,
    )
    return marks, iv


def _forwards(told: Statement, spot: FloatArray) -> FloatArray:
    """[N] USD: a future's own price; an option's as given, of the future of its expiry, or the index."""
    futures = {
        (held.instrument.underlying, held.instrument.expiry_ns): held.told.price
        for held in told.held
        if held.instrument.kind is Kind.FUTURE
    }
    found = _column(
        [
            held.told.forward or futures.get((held.instrument.underlying, held.instrument.expiry_ns))
            for held in told.held
        ]
    )
    return np.where(np.isnan(found), spot, found)


def _volatilities(
    told: Statement, universe: Universe, given: FloatArray, forward: FloatArray, tau: FloatArray
) -> FloatArray:
    """[N], as given or from the price; NaN for what is no option."""
    iv = _column([held.told.iv for held in told.held])
    priced = np.flatnonzero(universe.option & np.isnan(iv))
    if len(priced):
        unit = np.where(universe.coin_quoted, forward, 1.0)
        columns = (given * unit, forward, universe.strike, tau, universe.call)
        iv[priced] = implied_volatility(*(column[priced] for column in columns))
    for row in priced[np.isnan(iv[priced])]:
        raise told.refusal(told.held[row], "price", _impossible(told.held[row], float(forward[row])))
    return iv


def _impossible(held: Held, forward: float) -> str:
    """Why no volatility gives the price."""
    instrument, price = held.instrument, held.told.price or 0.0
    coin = instrument.quote_currency == instrument.underlying
    unit = forward if coin else 1.0
    intrinsic = max((forward - instrument.strike) * (1 if instrument.is_call else -1), 0.0) / unit
    most = (forward if instrument.is_call else instrument.strike) / unit
    at = f"with the forward at {forward:,.10g}"
    return f"{price:.10g} {instrument.quote_currency} is not between {intrinsic:.6g} and {most:.6g}, {at}"


def _sources(told: Statement) -> IntArray:
    """Where volatilities come from: as given (a mark), or from a price; `_SOURCES` tells them in the file's words."""
    sources = {(True, False): IvSource.MARK, (True, True): IvSource.QUOTES}
    keys = [(held.instrument.kind is Kind.OPTION, held.told.price is not None) for held in told.held]
    return np.array([sources.get(key, IvSource.NONE) for key in keys], dtype=np.int64)


def _equity(told: Statement, mark_price: FloatArray) -> dict[str, float]:
    """Equity by currency: cash, the options' value, and futures' profit since entry where that is told."""
    equity = dict(told.cash)
    for held, mark in zip(told.held, mark_price.tolist(), strict=True):
        amount, currency = held.told.amount, held.instrument.settle_currency
        worth, entry = 0.0, held.told.entry_price
        if held.instrument.kind is Kind.OPTION:
            worth = amount * mark
        elif entry is not None and held.instrument.payoff is Payoff.INVERSE:
            worth = amount * (1.0 / entry - 1.0 / mark)
        elif entry is not None:
            worth = amount * (mark - entry)
        equity[currency] = equity.get(currency, 0.0) + worth
    return equity
