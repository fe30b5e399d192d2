"""The read-only picture of market and account that one decision is made from."""

from operator import attrgetter
from typing import get_origin, get_type_hints

import numpy as np

from dea_daemon.domain.decisions import View
from dea_daemon.domain.events import DecisionDue
from dea_daemon.domain.factors import FactorIndex
from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_MS, NS_PER_S
from dea_daemon.pricing.exposure import Marks, account_exposure, delta_per_lot, notional_per_lot
from dea_daemon.state.account import Account
from dea_daemon.state.effects import Effects
from dea_daemon.state.margin import margin
from dea_daemon.state.market import Market
from dea_daemon.state.options import Valued

ARRAYS = tuple(name for name, kind in get_type_hints(View).items() if get_origin(kind) is np.ndarray)
_arrays_of = attrgetter(*ARRAYS)


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


def _marks(market: Market, valued: Valued, spot: FloatArray, now_ns: int) -> Marks:
    """What the exposure matrix is made from, of every row."""
    universe = market.universe
    mark, forward = market.mark, valued.forward
    if universe.series_count:
        # What has ended is fixed: it weighs nothing, and its last prices must not spoil that.
        dead = (universe.expiry_ns > 0) & (valued.weight <= 0.0)
        mark, forward = np.where(dead, spot, mark), np.where(dead, spot, forward)
    price = np.array([market.price_of(currency, now_ns) for currency in universe.settle_currencies])
    return Marks(
        mark_price=mark,
        spot_price=spot,
        forward_price=forward,
        settle_price=price[universe.settle_currency],
        funding_rate_8h=market.funding_8h,
        tau_years=valued.tau_years,
        weight=valued.weight,
        delta=valued.delta,
        gamma=valued.gamma,
        vega=valued.vega,
        theta=valued.theta,
        coin_value=valued.coin_value,
    )


def _exposure(
    account: Account, market: Market, factors: FactorIndex, marks: Marks, prices: FloatArray, now_ns: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """X [K, N], e0 [K] and X·q + e0 [K]."""
    coins: dict[str, float] = {}
    for (_, currency), pool in account.pools.items():
        coins[currency] = coins.get(currency, 0.0) + pool.equity
    known = {c: market.price_of(c, now_ns) for c in factors.currencies}
    known |= dict(zip(market.universe.underlyings, prices.tolist(), strict=True))
    convention = account.params.pricing.delta_convention
    return account_exposure(market.universe, factors, marks, account.position_lots, coins, known, convention)


def build_view(
    account: Account,
    market: Market,
    factors: FactorIndex,
    due: DecisionDue,
    seq: int,
    clock_step_ns: int,
    effects: Effects,
) -> View:
    """Copy what a decision needs into arrays nobody can write to."""
    now_ns, universe = due.ts_recv_ns, market.universe
    market.touch()
    prices = market.underlying_prices(now_ns)
    spot, fresh = prices[universe.underlying], market.fresh(now_ns)
    market.surfaces.judge(universe, now_ns, due.utc_ns, market.params.pricing, effects)
    valued = market.options.value(market, now_ns, due.utc_ns, spot, fresh)
    marks = _marks(market, valued, spot, now_ns)
    matrix, base, exposure = _exposure(account, market, factors, marks, prices, now_ns)
    market.options.tell(universe, valued, account.position_lots.nonzero()[0], effects)
    day = due.utc_ns // NS_PER_DAY
    first_of_day = account.day_equity_usd if day == account.day else 0.0
    every_ns = account.params.state.relist_every_s * NS_PER_S
    buys, sells = working_lots(account, len(universe))
    equity = equity_usd(account, market, now_ns)
    budgets, per_lot = account.budgets, delta_per_lot(universe, marks)
    pool_price = [market.price_of(currency, now_ns) for _, currency in universe.pools]
    asked = valued if account.params.guards.min_liquidation_distance is not None else None
    margins = margin(universe, account.pools, pool_price, account.position_lots, per_lot, asked)
    per_lot_usd = notional_per_lot(universe, market.mark, spot)
    view = View(
        seq=seq,
        now_ns=now_ns,
        utc_ns=due.utc_ns,
        universe=universe,
        factors=factors,
        bid_price=market.bid.copy(),
        ask_price=market.ask.copy(),
        mark_price=market.mark.copy(),
        index_price=market.index.copy(),
        funding_rate_8h=market.funding_8h.copy(),
        fresh=fresh,
        underlying_price=prices,
        forward_price=valued.forward,
        iv=valued.iv,
        iv_source=valued.source,
        modelled=valued.modelled,
        greeks_off=valued.off,
        pinned=valued.pinned,
        settling=valued.weight,
        surface_doubt=market.surfaces.doubt,
        smile=market.surfaces.smile,
        micro=market.flow.tell(market, now_ns, due.utc_ns, spot, valued.forward, per_lot_usd),
        peg=market.peg(),
        shut=market.shut(),
        slow=market.slow.at(due.utc_ns, effects),
        position_lots=account.position_lots.copy(),
        working_buy_lots=buys,
        working_sell_lots=sells,
        quarantined=account.quarantined.copy(),
        notional_per_lot_usd=per_lot_usd,
        exposure_per_lot=matrix,
        # A trade pays its premium: whatever X is told in, a lot bought adds this.
        delta_per_lot=per_lot,
        exposure_base_usd=base,
        exposure_usd=exposure,
        equity_usd=equity,
        peak_equity_usd=max(account.peak_equity_usd, equity) if equity == equity else account.peak_equity_usd,
        day=day,
        day_equity_usd=first_of_day if first_of_day > 0.0 else max(equity, 0.0) if equity == equity else 0.0,
        margin_use=margins.worst,
        row_margin_use=margins.row,
        liquidation_distance=margins.distance,
        turnover_hour_usd=budgets.turnover_hour.total,
        turnover_day_usd=budgets.turnover_day.total,
        fees_hour_usd=budgets.fees_hour.total,
        fees_day_usd=budgets.fees_day.total,
        creates_last_minute=int(budgets.creates_minute.total),
        creates_last_hour=int(budgets.creates_hour.total),
        cancels_last_hour=int(budgets.cancels_hour.total),
        day_returns=market.returns.of_a_day,
        clock_step_ns=clock_step_ns,
        mode=account.mode,
        armed=account.armed,
        draining=account.draining,
        ready=account.ready,
        account_fresh=account_fresh(account, now_ns),
        recording=account.recording,
        watched=account.watched,
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
        delivered_since_ms=tuple(
            account.deliveries.since_ms(a, account.position_lots, due.utc_ns) for a in range(len(universe.accounts))
        ),
        relist=tuple(a for a in account.traded if account.listings.wants(a, now_ns, every_ns)),
    )
    for array in _arrays_of(view):
        array.setflags(write=False)
    return view
