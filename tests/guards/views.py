"""Views made by hand, for guards: four contracts (and four options, if asked for), any positions, any orders."""

import numpy as np

from dea_daemon.domain.decisions import NO_FACTORS, IvSource, Micro, View
from dea_daemon.domain.factors import FactorIndex
from dea_daemon.domain.instruments import AccountKey, Instrument, Kind, Payoff, Universe
from dea_daemon.domain.modes import Mode
from dea_daemon.guards.limits import Book, caps
from dea_daemon.pricing import black
from dea_daemon.pricing.exposure import Marks, exposure_per_lot, notional_per_lot
from tests.house import INSTRUMENTS, START_NS, S, instrument

ACCOUNTS = (AccountKey("deribit", "main"),)
UNIVERSE = Universe(ACCOUNTS, tuple((0, i) for i in INSTRUMENTS))
FACTORS = FactorIndex(UNIVERSE.underlyings)
MARK = np.array([80_000.0, 80_000.0, 80_000.0, 3_000.0])
SPOT = np.array([80_000.0, 3_000.0])  # [U]

COIN_CALL, COIN_PUT, USDC_CALL, USDC_PUT = range(4, 8)
EXPIRY_NS = START_NS + 10 * 86_400 * S
YEARS, VOL = 10 / 365, 0.6


def _option(coin: bool, strike: float, call: bool) -> Instrument:
    pair, money = ("BTC", "BTC") if coin else ("BTC_USDC", "USDC")
    return instrument(
        f"{pair}-2OCT26-{strike:.0f}-{'C' if call else 'P'}", "BTC", Payoff.LINEAR, "0.1" if coin else "0.01",
        "0.0001" if coin else "5", kind=Kind.OPTION, quote_currency=money, settle_currency=money, margin_pool=money,
        expiry_ns=EXPIRY_NS, strike=strike, is_call=call, taker_fee=0.0003, maker_fee=0.0003, fee_cap=0.125,
    )  # fmt: skip


# A put deep in the money loses more than its delta with each dollar: it is paid in the coin that falls.
_CONTRACTS = ((True, 75_000.0, True), (True, 110_000.0, False), (False, 80_000.0, True), (False, 85_000.0, False))
CHAIN = tuple(_option(*contract) for contract in _CONTRACTS)
WITH_OPTIONS = Universe(ACCOUNTS, tuple((0, i) for i in INSTRUMENTS + CHAIN))


def greeks_of(universe: Universe, forward: np.ndarray, vol: float = VOL) -> black.Greeks:
    """Of options, at `forward` [N]; 0 for the others."""
    g = black.greeks(forward, np.where(universe.option, universe.strike, 1.0), YEARS, vol, universe.call)
    return black.Greeks(*(np.where(universe.option, values, 0.0) for values in g))


def marks_of(universe: Universe, mark: np.ndarray, spot: np.ndarray) -> tuple[np.ndarray, Marks]:
    """(mark prices [N] with the options' own behind `mark`, everything an exposure is made from)."""
    n = len(universe)
    forward = np.where(universe.option, spot, np.append(mark, np.zeros(n - len(mark))))
    g = greeks_of(universe, forward)
    mark = np.where(universe.option, np.where(universe.coin_quoted, g.price / forward, g.price), forward)
    coin_value = np.where(universe.coin_quoted, g.price / forward, 0.0)
    in_usdc = np.array([i.settle_currency == "USDC" for i in universe.instruments])
    left = (universe.expiry_ns - START_NS) / (365 * 86_400 * S)
    none, tau = np.zeros(n), np.where(universe.option, YEARS, np.maximum(left, 0.0))
    settle = np.where(in_usdc, 1.0, spot)
    sensitivities = (g.delta, g.gamma, g.vega, g.theta, coin_value)
    return mark, Marks(mark, spot, forward, settle, none, tau, np.ones(n), *sensitivities)


def view(
    position=(0, 0, 0, 0),
    buys=(0, 0, 0, 0),
    sells=(0, 0, 0, 0),
    base=(0.0, 0.0),
    mark=MARK,
    equity_usd=1e6,
    universe=UNIVERSE,
    **changes,
) -> View:
    """Lots of rows left out are zero; `mark` is of the four contracts that are no options."""
    n = len(universe)
    lots, bought, sold = (
        np.append(np.array(x, np.int64), np.zeros(n - len(x), np.int64)) for x in (position, buys, sells)
    )
    spot = SPOT[universe.underlying]
    mark, marks = marks_of(universe, np.asarray(mark, dtype=np.float64), spot)
    marks = marks._replace(funding_rate_8h=changes.get("funding_rate_8h", marks.funding_rate_8h))
    x = exposure_per_lot(universe, FACTORS, marks)
    base_usd = np.zeros(len(FACTORS))
    base_usd[:2] = base
    held = np.flatnonzero(lots)
    half = np.where(universe.option, universe.tick_size, 1.0)
    fields = dict(
        seq=1, now_ns=START_NS, utc_ns=START_NS, universe=universe, factors=FACTORS,
        bid_price=mark - half, ask_price=mark + half,
        mark_price=mark, index_price=np.where(universe.option, spot, mark), funding_rate_8h=np.zeros(n),
        fresh=np.ones(n, dtype=bool), underlying_price=SPOT.copy(), position_lots=lots,
        working_buy_lots=bought, working_sell_lots=sold,
        quarantined=np.zeros(n, dtype=bool), notional_per_lot_usd=notional_per_lot(universe, mark, spot),
        forward_price=marks.forward_price, iv=np.where(universe.option, VOL, np.nan),
        iv_source=np.where(universe.option, IvSource.QUOTES, IvSource.NONE),
        modelled=np.zeros(n, dtype=bool), greeks_off=np.zeros(n, dtype=bool), pinned=np.zeros(n, dtype=bool),
        surface_doubt=np.zeros(len(universe.underlyings), dtype=bool), settling=np.ones(n),
        smile=np.full((len(universe.underlyings), 3, 3), np.nan),
        micro=Micro(*np.full((len(Micro._fields), n), np.nan)),
        delta_per_lot=x[universe.underlying, np.arange(n)], delivered_since_ms=(0,), relist=(),
        exposure_per_lot=x, exposure_base_usd=base_usd, exposure_usd=x[:, held] @ lots[held] + base_usd,
        equity_usd=equity_usd, peak_equity_usd=equity_usd, margin_use=0.0, day=1, day_equity_usd=equity_usd,
        row_margin_use=np.zeros(n), liquidation_distance=np.inf, peg=np.ones(n), shut=np.zeros(n, dtype=bool),
        slow=NO_FACTORS,
        turnover_hour_usd=0.0, fees_hour_usd=0.0, turnover_day_usd=0.0, fees_day_usd=0.0,
        creates_last_hour=0, cancels_last_hour=0, day_returns=np.zeros((0, len(universe.underlyings))), watched=True,
        creates_last_minute=0, clock_step_ns=0, mode=Mode.NORMAL, armed=True, draining=False, ready=True,
        account_fresh=True, recording=True, outside=(), orders=(), epoch=1, sequence=0, trade_cursor_ms=0,
        account_asked_ns=(0,), account_agreed=(True,), traded_accounts=(0,), paused=np.zeros(n, dtype=bool),
        post_only_rejects=np.zeros(n, dtype=np.int64),
    )  # fmt: skip
    return View(**(fields | changes))


def whole(v: View, params, orders=()) -> Book:
    """Every row of a view, with `orders` in flight."""
    book = Book(v, caps(v, params), np.arange(len(v.universe)))
    for o in orders:
        book.add(o.row, o.side, o.lots)
    return book


def extremes(book: Book, limit: str) -> tuple[np.ndarray, np.ndarray]:
    """(lowest, highest) [U] of one linear limit."""
    mine = np.array([name == limit for name in book.lines.limit])
    low, high = book.extremes()
    return low[mine], high[mine]


def loss(v: View, lots, params) -> float:
    """In the worst scenario of the grid."""
    return whole(v, params).losses_of(np.asarray(lots))["scenario"]
