"""What `dea-daemon stress` is asked about: the book that is revalued at once, and the one that stands in time."""

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from dea_daemon.domain.instruments import FloatArray, Instrument
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_S, as_decimal
from dea_daemon.domain.parameters import FixedTarget, VolTarget
from dea_daemon.research import paths as drawn
from dea_daemon.research import stress
from dea_daemon.shell.portfolio import STABLE, Statement, load_portfolio
from dea_daemon.shell.settings import Settings
from dea_daemon.wiring.candles import CASH, bars_of
from dea_daemon.wiring.exposure import Valued, value
from dea_daemon.wiring.history import candles_in

HOUR_NS = 3_600 * NS_PER_S
START_NS = 1_767_225_600 * NS_PER_S  # a midnight: nothing depends on which
PRICES = {"BTC": 65_000.0, "ETH": 3_000.0}  # without a portfolio; only ticks and lots depend on it
OTHER_PRICE = 100.0
CORRELATION = 0.8  # assumed, without a history
PARTS = 10  # a held position is so many lots, of which a liquidation takes some
FUTURE_FEE, OPTION_FEE, OPTION_FEE_CAP = 5e-4, 3e-4, 0.125  # Deribit's, for what a liquidation trades


class Held(NamedTuple):
    """A position of the portfolio as the simulated venue lists it; nobody but the venue trades it. `entry_price` None:
    the profit is in the cash."""

    instrument: Instrument
    lots: int
    entry_price: float | None


class Stage(NamedTuple):
    """What stands in time at `as_of_ns`. The rows of `book` are a perpetual of each underlying in the currency numbered
    `money`, the daemon's to trade and none of it held, then `held`; cash is by currency, held options not counted."""

    book: stress.Holdings
    money: int
    held: tuple[Held, ...]
    cash: dict[str, float]
    as_of_ns: int

    @property
    def perpetuals(self) -> tuple[str, ...]:
        """The daemon's, by name."""
        return tuple(f"{name}{self.book.currencies[self.money]}" for name in self.book.underlyings)


def asked_book(
    portfolio: Path | None, settings: Settings, returns: FloatArray | None
) -> tuple[stress.Holdings, Stage, list[str]]:
    """What is revalued at once, what stands in time, and what a reader should know of both."""
    targets = tuple(settings.allocator.targets)
    if portfolio is not None:
        told = load_portfolio(portfolio)
        book = holdings(value(told), told.prices)
        stage = staged(told, book, targets)
        return book, stage, _notes_of(stage)
    notes = ["the book: perpetuals settled in USDT of the size that the targets ask for, on backtest.capital_usd"]
    left_out = [
        u for u, target in settings.allocator.targets.items() if not isinstance(target, FixedTarget | VolTarget)
    ]
    if left_out:
        notes.append(f"{', '.join(left_out)}: a target by expected return has no size without a forecast, so it is 0")
    book = targeted(settings, returns)
    nothing = book._replace(amount=np.zeros(len(book.amount)))
    return book, Stage(nothing, len(targets), (), {CASH: settings.backtest.capital_usd}, START_NS), notes


def _notes_of(stage: Stage) -> list[str]:
    """Of a portfolio in time."""
    money = stage.book.currencies[stage.money]
    held = (
        f"in time the portfolio is held as it is; beside it the daemon trades perpetuals settled in {money}, until all "
        "delta, the portfolio's and the coins' included, is what its targets ask for"
    )
    notes = [held]
    unseen = [
        name
        for c, name in enumerate(stage.book.currencies)
        if stage.book.coin[c] >= 0 and stage.cash.get(name) and not (stage.book.settle == c).any()
    ]
    if unseen:
        notes.append(f"nothing held settles in {', '.join(unseen)}: the daemon is not told of those coins, nor hedges")
    if not stage.cash.get(money, 0.0) > 0.0:
        notes.append(f"the portfolio has no {money}, and no other stablecoin: the daemon's perpetuals have no margin")
    return notes


def staged(told: Statement, book: stress.Holdings, targets: tuple[str, ...]) -> Stage:
    """The portfolio beside perpetuals of its underlyings and the targets', in the stablecoin it has most of."""
    money = max(("USDC", *told.cash), key=lambda c: told.cash.get(c, 0.0) if c in STABLE else -np.inf)
    missing = tuple(name for name in targets if name not in book.underlyings)
    more = tuple(name for name in (money,) if name not in book.currencies)
    one, underlyings = np.ones(len(more)), (*book.underlyings, *missing)
    book = book._replace(
        underlyings=underlyings,
        spot=np.append(book.spot, [PRICES.get(name, OTHER_PRICE) for name in missing]),
        currencies=(*book.currencies, *more),
        coin=np.append(book.coin, -one.astype(np.int64)),
        equity=np.append(book.equity, 0.0 * one),
        price=np.append(book.price, one),
        backing=np.append(book.backing, one),
    )
    at = book.currencies.index(money)
    held = tuple(_held(h.instrument, h.lots, h.told.entry_price) for h in told.held)
    return Stage(_with_perpetuals(book, at), at, held, told.cash, told.utc_ns)


def _held(instrument: Instrument, sign: int, entry_price: float | None) -> Held:
    """In lots of a tenth."""
    option, coin = instrument.strike > 0.0, instrument.quote_currency == instrument.underlying
    listed = msgspec.structs.replace(
        instrument,
        venue="binanceusdm",
        lot_size=instrument.lot_size / PARTS,
        tick_size=as_decimal("0.00001" if coin else "0.01"),
        taker_fee=OPTION_FEE if option else FUTURE_FEE,
        fee_cap=OPTION_FEE_CAP if option else 0.0,
        tradable=False,
    )
    return Held(listed, sign * PARTS, entry_price)


def _with_perpetuals(book: stress.Holdings, money: int) -> stress.Holdings:
    """A linear perpetual of each underlying before what is held, none of it held."""
    u = len(book.underlyings)
    zero, no, each = np.zeros(u), np.zeros(u, dtype=np.bool_), np.arange(u, dtype=np.int64)
    return book._replace(
        names=(*(f"{name}{book.currencies[money]}" for name in book.underlyings), *book.names),
        underlying=np.append(each, book.underlying),
        settle=np.append(0 * each + money, book.settle),
        amount=np.append(zero, book.amount),
        inverse=np.append(no, book.inverse),
        option=np.append(no, book.option),
        coin_quoted=np.append(no, book.coin_quoted),
        call=np.append(no, book.call),
        perpetual=np.append(~no, book.perpetual),
        strike=np.append(zero, book.strike),
        forward=np.append(book.spot / book.price[money], book.forward),
        iv=np.append(zero * np.nan, book.iv),
        tau_years=np.append(zero, book.tau_years),
    )


def holdings(valued: Valued, prices: dict[str, float]) -> stress.Holdings:
    """A valued portfolio as the stress wants it. Coins that nothing is held on are underlyings, too."""
    universe = valued.universe
    named = (*universe.underlyings, *valued.factors.currencies)
    underlyings = tuple(name for name in named if name not in STABLE)
    price = np.array([prices[name] for name in named])
    first = valued.factors.first("cash")
    base = valued.exposure_base_usd
    worth = np.concatenate((base[: len(universe.underlyings)], base[first:]))
    n, instruments = len(universe), universe.instruments
    years = np.where(universe.expiry_ns > 0, universe.expiry_ns - valued.utc_ns, 0) / NS_PER_DAY / DAYS_PER_YEAR
    return stress.Holdings(
        underlyings=underlyings,
        names=tuple(i.name for i in instruments),
        currencies=named,
        underlying=np.array([underlyings.index(i.underlying) for i in instruments], dtype=np.int64),
        settle=np.array([named.index(i.settle_currency) for i in instruments], dtype=np.int64),
        amount=valued.position_lots * universe.lot_value,
        inverse=universe.inverse,
        option=universe.option,
        coin_quoted=universe.coin_quoted,
        call=universe.call,
        perpetual=universe.expiry_ns == 0,
        strike=universe.strike,
        forward=np.where(universe.option, valued.forward_price, valued.mark_price) if n else np.zeros(0),
        iv=valued.iv,
        tau_years=years,
        spot=np.array([prices[name] for name in underlyings]),
        coin=np.array([underlyings.index(c) if c in underlyings else -1 for c in named], dtype=np.int64),
        equity=worth / price,
        price=price,
        backing=np.ones(len(named)),
    )


def targeted(settings: Settings, returns: FloatArray | None) -> stress.Holdings:
    """The perpetuals that the targets ask for, before any data but `returns`: volatility targets by the allocator's
    formula, ∝ weight / volatility and together annual_vol of capital."""
    targets, capital = settings.allocator.targets, settings.backtest.capital_usd
    names = tuple(targets)
    vol, correlation = moments(names, names, returns, settings)
    weights = np.array([t.weight if isinstance(t, VolTarget) else 0.0 for t in targets.values()])
    shape = weights / vol
    risk = float(np.sqrt(shape @ (correlation * np.outer(vol, vol)) @ shape))
    held = shape * settings.allocator.annual_vol * capital / risk if risk > 0.0 else shape
    gross = float(np.abs(held).sum())
    held = held * min(1.0, settings.allocator.max_leverage * capital / gross) if gross > 0.0 else held
    held = held + np.array([t.delta_usd if isinstance(t, FixedTarget) else 0.0 for t in targets.values()])
    price, n = np.array([PRICES.get(name, OTHER_PRICE) for name in names]), len(names)
    none, each = np.zeros(n), np.arange(n, dtype=np.int64)
    no, yes = np.zeros(n, dtype=np.bool_), np.ones(n, dtype=np.bool_)
    return stress.Holdings(
        underlyings=names,
        names=tuple(f"{name}{CASH}" for name in names),
        currencies=(*names, CASH),
        underlying=each,
        settle=np.full(n, n),
        amount=held / price,
        inverse=no,
        option=no,
        coin_quoted=no,
        call=no,
        perpetual=yes,
        strike=none,
        forward=price,
        iv=np.full(n, np.nan),
        tau_years=none,
        spot=price,
        coin=np.append(each, -1),
        equity=np.append(none, capital),
        price=np.append(price, 1.0),
        backing=np.ones(n + 1),
    )


def moments(
    underlyings: tuple[str, ...], seen: tuple[str, ...], returns: FloatArray | None, settings: Settings
) -> tuple[FloatArray, FloatArray]:
    """(annual_vol [U], correlation [U, U]): of `returns` [T, seen] where they tell it, else the prior's and 0.8."""
    u = len(underlyings)
    vol = np.full(u, settings.forecast.prior_annual_vol)
    correlation = np.full((u, u), CORRELATION) + (1.0 - CORRELATION) * np.eye(u)
    if returns is None:
        return vol, correlation
    known = [(k, seen.index(name)) for k, name in enumerate(underlyings) if name in seen]
    deviations = returns.std(axis=0) * np.sqrt(drawn.HOURS_PER_YEAR)
    measured = np.atleast_2d(np.corrcoef(returns.T))
    for k, a in known:
        vol[k] = deviations[a]
        for j, b in known:
            correlation[k, j] = measured[a, b]
    return vol, correlation


def hourly_returns(folder: Path, underlyings: tuple[str, ...]) -> FloatArray:
    """[T, U] log returns of the perpetuals' hourly closes; hours that one of them lacks are left out. DataError."""
    symbols = tuple(f"{name}{CASH}" for name in underlyings)
    history = candles_in(folder, symbols, HOUR_NS)
    closes = bars_of(history, symbols, 0, 1 << 62, HOUR_NS).grid.close
    with np.errstate(invalid="ignore"):
        returns = np.diff(np.log(closes), axis=0)
    return np.asarray(returns[np.isfinite(returns).all(axis=1)])
