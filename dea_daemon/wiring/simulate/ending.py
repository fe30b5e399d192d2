"""What must hold a while after the faults have stopped."""

import numpy as np

from dea_daemon.domain.modes import Mode
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.domain.orders import OrderState
from dea_daemon.wiring.paper import ACCOUNT
from dea_daemon.wiring.simulate.oracle import ROUNDING, Oracle
from dea_daemon.wiring.simulate.promises import promise

DOUBT_NS = 10 * NS_PER_S  # no outcome is unknown for longer
PATIENCE_NS = 20 * NS_PER_S  # so long may an exposure be outside its band, an order be ours alone


def settled(oracle: Oracle) -> None:
    """Both sides agree, nothing is in doubt, and exposure is where it should be. Raises PromiseBroken."""
    account, universe = oracle.world.state.account, oracle.world.universe
    promise(account.ready and account.mode is Mode.NORMAL, f"ready {account.ready}, {account.mode.name}")
    in_doubt = [i.name for i, q in zip(universe.instruments, account.quarantined, strict=True) if q]
    promise(not in_doubt, f"still in quarantine: {in_doubt}")
    _same_positions(oracle)
    _known_contracts(oracle)
    _true_delta(oracle)
    _same_orders(oracle)
    _same_money(oracle)
    for factor, last_ns in oracle.inside_ns.items():
        promise(oracle.world.now_ns - last_ns < PATIENCE_NS, f"{factor} is outside its band")


def _same_positions(oracle: Oracle) -> None:
    account, theirs = oracle.world.state.account, np.zeros(len(oracle.rows), dtype=np.int64)
    for held in oracle.world.exchange.positions(ACCOUNT):
        theirs[oracle.rows[held.instrument]] = held.lots
    working = {o.row for o in account.orders.live()}
    for name, row in oracle.rows.items():
        ours = account.position_lots[row]
        promise(row in working or theirs[row] == ours, f"{name}: {ours}, venue {theirs[row]}")


def _same_orders(oracle: Oracle) -> None:
    orders, now_ns = oracle.world.state.account.orders, oracle.world.now_ns
    unknown = [o for o in orders.own.values() if o.state is OrderState.UNKNOWN and now_ns - o.created_ns > DOUBT_NS]
    promise(not unknown, f"unknown for long: {unknown}")
    open_there = {o.label for o in oracle.world.exchange.open_orders(ACCOUNT)}
    ours = {o.client_order_id: o for o in orders.live()}
    promise(open_there <= ours.keys(), f"open at the venue, not with us: {open_there - ours.keys()}")
    alone = [o for key, o in ours.items() if key not in open_there and now_ns - o.created_ns > PATIENCE_NS]
    promise(not alone, f"live with us, not at the venue: {alone}")
    promise(not orders.foreign, f"foreign orders that are gone: {orders.foreign}")


def _same_money(oracle: Oracle) -> None:
    """What we were told a second ago; after a jump of prices just now, what we are told next."""
    wrong: list[str] = []
    for _ in range(3):
        wrong = [told for currency in oracle.world.exchange.currencies() if (told := _money_off(oracle, currency))]
        if not wrong:
            return
        oracle.world.run(1.5)
    promise(not wrong, "; ".join(wrong))


def _money_off(oracle: Oracle, currency: str) -> str:
    equity = oracle.world.exchange.summary(ACCOUNT, currency).equity
    ours = oracle.world.state.account.pools[0, currency].equity
    close = abs(ours - equity) <= 0.02 * abs(equity) + 1e-9
    return "" if close else f"{currency}: equity {ours}, venue {equity}"


def _true_delta(oracle: Oracle) -> None:
    """What we believe to be exposed to was the venue's truth a moment ago."""
    universe, view = oracle.world.universe, oracle.world.state.view
    if view is None:
        return  # contracts joined this very moment, and nothing was decided since
    none = np.zeros(len(universe), dtype=np.int64)
    for k, name in enumerate(universe.underlyings if universe.option.any() else ()):
        mine = universe.option & (universe.underlying == k)
        coins = float(universe.lot_value[mine] @ np.abs(view.position_lots[mine]))
        true = oracle.truth.extremes(k, view.position_lots, none, none)[:, 0]
        room = 0.002 * abs(true[-1]) + ROUNDING * coins * oracle.world.exchange.index_price(name)
        off = np.abs(true - view.delta_usd[k]).min()
        promise(off <= room, f"{name}: delta {view.delta_usd[k]:,.0f}, in truth {true[-1]:,.0f}")


def _known_contracts(oracle: Oracle) -> None:
    """Every contract of the venue has a row, and a price that is the venue's."""
    for name, contract in oracle.world.exchange.contracts.items():
        promise(name in oracle.rows, f"{name} never joined")
        told = oracle.world.state.market.mark[oracle.rows[name]]
        near = abs(told - contract.mark) <= 0.05 * contract.mark + 20.0 * contract.tick
        promise(near, f"{name}: mark {told}, the venue's is {contract.mark}")
