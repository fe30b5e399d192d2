"""Margin of one pool of one account: what positions and working orders must have behind them.

Deribit's shape: of a position of c coins at the mark, initial margin is c × (base + slope c), maintenance the
same with its own base. Working orders count at their worst: the larger of |position + buys| and
|position − sells|, per contract.
"""

from dea_daemon.domain.instruments import Side
from dea_daemon.simvenue.accounts import Account, Accounts, Contract
from dea_daemon.simvenue.orders import Orders
from dea_daemon.simvenue.scenarios import Scenario
from dea_daemon.simvenue.words import Refused, Summary


class Margin:
    """Reads accounts and orders; changes nothing."""

    def __init__(self, scenario: Scenario, accounts: Accounts, orders: Orders) -> None:
        self._scenario = scenario
        self._accounts = accounts
        self._orders = orders

    def initial(self, contract: Contract, lots: int) -> float:
        """Of so many lots at the mark, in the pool's currency."""
        return self._of(contract, lots, self._scenario.initial_margin)

    def maintenance(self, contract: Contract, lots: int) -> float:
        """Of so many lots at the mark, in the pool's currency."""
        return self._of(contract, lots, self._scenario.maintenance_margin)

    def _of(self, contract: Contract, lots: int, base: float) -> float:
        if lots == 0:
            return 0.0
        coin = self._scenario.coins.get(contract.instrument.underlying)
        slope = coin.im_per_coin if coin is not None else 0.0
        rate = base + slope * abs(contract.coins(lots, contract.mark))
        return abs(contract.notional(lots, contract.mark)) * rate

    def pool_maintenance(self, account: Account, pool: str) -> float:
        return sum(self.maintenance(c, h.position.lots) for c, h in self._accounts.held(account, pool))

    def pool_initial(self, account: Account, pool: str, working: dict[str, tuple[int, int]]) -> float:
        """With orders at their worst; `working` gives lots to buy and to sell by instrument."""
        names = [c.name for c, _ in self._accounts.held(account, pool)]
        names += [name for name in working if name not in account.holdings]
        total = 0.0
        for name in names:
            contract = self._accounts.contracts[name]
            if contract.pool == pool:
                held, (buys, sells) = account.lots(name), working.get(name, (0, 0))
                total += self.initial(contract, max(abs(held + buys), abs(held - sells)))
        return total

    def check_funds(
        self, account: Account, contract: Contract, side: Side, lots: int, price: float, except_id: str = ""
    ) -> None:
        """Refused not_enough_funds where an order would need more margin than the pool has. One that does not
        raise the requirement always passes. `except_id` is an order it replaces."""
        pool = contract.pool
        working = self._orders.working(account.name, except_id)
        before = self.pool_initial(account, pool, self._orders.working(account.name) if except_id else working)
        buys, sells = working.get(contract.name, (0, 0))
        working[contract.name] = (buys + lots, sells) if side is Side.BUY else (buys, sells + lots)
        after = self.pool_initial(account, pool, working)
        fee = max(contract.instrument.taker_fee, 0.0) * contract.notional(lots, price)
        equity = self._accounts.equity(account, pool)
        if after > before and not after + fee <= equity:
            raise Refused("not_enough_funds", f"{pool}: needs {after + fee:.8g}, equity {equity:.8g}")

    def is_short(self, account: Account, pool: str) -> bool:
        """Whether equity is below maintenance margin, or below nothing."""
        return self._accounts.equity(account, pool) < self.pool_maintenance(account, pool)

    def summary(self, account: Account, pool: str) -> Summary:
        """delta_total in coins for a pool in a coin; in the pool's currency where its contracts are linear."""
        accounts = self._accounts
        unrealised, funding = accounts.unrealised(account, pool), accounts.session_funding(account, pool)
        cash = account.cash.get(pool, 0.0)
        return Summary(
            currency=pool,
            cash=cash,
            equity=cash + unrealised + funding,
            unrealised_pnl=unrealised,
            session_funding=funding,
            initial_margin=self.pool_initial(account, pool, self._orders.working(account.name)),
            maintenance_margin=self.pool_maintenance(account, pool),
            delta_total=sum(c.notional(h.position.lots, c.mark) for c, h in accounts.held(account, pool)),
            fees_paid=account.fees_paid.get(pool, 0.0),
        )
