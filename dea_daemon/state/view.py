"""The read-only picture of market and account that one decision is made from."""

import numpy as np

from dea_daemon.domain.decisions import View
from dea_daemon.domain.events import DecisionDue
from dea_daemon.domain.factors import FactorIndex
from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.pricing.exposure import collateral_delta, delta_per_lot, notional_per_lot
from dea_daemon.state.account import Account
from dea_daemon.state.market import Market


def equity_usd(account: Account, market: Market, now_ns: int) -> float:
    """Equity over all margin pools. NaN where a pool in use has no price: unknown is not zero."""
    total = 0.0
    for (_, currency), pool in account.pools.items():
        if pool.equity != 0.0:
            total += pool.equity * market.price_of(currency, now_ns)
    return total if account.pools else float("nan")


def working_lots(account: Account, n: int) -> tuple[IntArray, IntArray]:
    """Buy and sell lots [N] that may still fill, all non-negative: ours, unknown ones, and foreign."""
    buys, sells = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    for order in account.orders.live():
        lots = order.in_flight_lots
        (buys if lots > 0 else sells)[order.row] += abs(lots)
    for foreign in account.orders.foreign.values():
        (buys if foreign.side.sign > 0 else sells)[foreign.row] += foreign.lots
    return buys, sells


def account_fresh(account: Account, now_ns: int) -> bool:
    """Whether every traded account's report and private stream are recent."""
    state = account.params.state
    return all(
        now_ns - account.reported_ns[a] <= state.stale_account_ms * NS_PER_MS
        and now_ns - account.private_ns[a] <= state.stale_private_ms * NS_PER_MS
        for a in account.traded
    )


def _exposure(
    account: Account, market: Market, factors: FactorIndex, underlying_price: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """X [K, N], e0 [K] and X·q + e0 [K]. A contract that cannot be priced spoils the sum only while it is held."""
    matrix = delta_per_lot(market.universe, factors, market.mark, underlying_price)
    coins: dict[str, float] = {}
    for (_, currency), pool in account.pools.items():
        coins[currency] = coins.get(currency, 0.0) + pool.equity
    prices = dict(zip(market.universe.underlyings, underlying_price.tolist(), strict=True))
    base = collateral_delta(factors, coins, prices)
    held = np.flatnonzero(account.position_lots)
    return matrix, base, matrix[:, held] @ account.position_lots[held] + base


def build_view(
    account: Account, market: Market, factors: FactorIndex, due: DecisionDue, seq: int, clock_step_ns: int
) -> View:
    """Copy what a decision needs into arrays nobody can write to."""
    now_ns = due.ts_recv_ns
    market.touch()
    prices = market.underlying_prices(now_ns)
    matrix, base, exposure = _exposure(account, market, factors, prices)
    buys, sells = working_lots(account, len(market.universe))
    equity = equity_usd(account, market, now_ns)
    view = View(
        seq=seq,
        now_ns=now_ns,
        utc_ns=due.utc_ns,
        universe=market.universe,
        factors=factors,
        bid_price=market.bid.copy(),
        ask_price=market.ask.copy(),
        mark_price=market.mark.copy(),
        index_price=market.index.copy(),
        funding_rate_8h=market.funding_8h.copy(),
        fresh=market.fresh(now_ns),
        underlying_price=prices,
        position_lots=account.position_lots.copy(),
        working_buy_lots=buys,
        working_sell_lots=sells,
        quarantined=account.quarantined.copy(),
        notional_per_lot_usd=notional_per_lot(market.universe, market.mark),
        exposure_per_lot=matrix,
        exposure_base_usd=base,
        exposure_usd=exposure,
        equity_usd=equity,
        peak_equity_usd=max(account.peak_equity_usd, equity) if equity == equity else account.peak_equity_usd,
        turnover_hour_usd=account.turnover.total,
        fees_hour_usd=account.fees.total,
        creates_last_minute=int(account.creates.total),
        clock_step_ns=clock_step_ns,
        mode=account.mode,
        armed=account.armed,
        draining=account.draining,
        ready=account.ready,
        account_fresh=account_fresh(account, now_ns),
        recording=account.recording,
        outside=tuple(name for names in account.outside for name in names),
        orders=account.orders.live(),
        epoch=account.epoch,
        sequence=account.sequence,
        trade_cursor_ms=account.trade_cursor_ms,
        account_asked_ns=tuple(account.asked_ns),
        account_agreed=tuple(account.agreed),
        traded_accounts=tuple(account.traded),
        paused=account.paused(now_ns),
        post_only_rejects=account.post_only_rejects.copy(),
    )
    for name in View.__slots__:
        value = getattr(view, name)
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
    return view
