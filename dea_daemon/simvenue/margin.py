"""Margin of one pool of one account: what positions and working orders must have behind them.

Deribit's shape. Futures: of a position of c coins at the mark, initial margin is c × (base + slope c), maintenance
the same with its own base; working orders count at their worst, the larger of |position + buys| and
|position − sells|, per contract. Options: shorts alone need margin, a share of the index and the mark to buy them
back, less what they are out of the money; buying needs the premium. Options' value backs nothing.
"""

from dea_daemon.domain.instruments import Side
from dea_daemon.simvenue.accounts import Account, Accounts, Contract
from dea_daemon.simvenue.orders import Orders
from dea_daemon.simvenue.scenarios import Scenario
from dea_daemon.simvenue.words import Refused, Summary

Working = dict[str, tuple[int, int]]  # lots to buy and to sell, by instrument


class Margin:
    """Reads accounts and orders; changes nothing."""

    def __init__(self, scenario: Scenario, accounts: Accounts, orders: Orders) -> None:
        self._scenario = scenario
        self._accounts = accounts
        self._orders = orders

    def initial(self, contract: Contract, lots: int) -> float:
        """Of so many lots (signed, for options) at the mark, in the pool's currency."""
        if contract.option:
            return self._of_short(contract, lots)[0]
        return self._of(contract, lots, self._scenario.initial_margin)

    def maintenance(self, contract: Contract, lots: int) -> float:
        """Of so many lots (signed, for options) at the mark, in the pool's currency."""
        if contract.option:
            return self._of_short(contract, lots)[1]
        return self._of(contract, lots, self._scenario.maintenance_margin)

    def _of(self, contract: Contract, lots: int, base: float) -> float:
        if lots == 0:
            return 0.0
        coin = self._scenario.coins.get(contract.instrument.underlying)
        if coin is not None:
            base += coin.im_per_coin * abs(contract.coins(lots, contract.mark))
        return abs(contract.notional(lots, contract.mark)) * base

    def _of_short(self, contract: Contract, lots: int) -> tuple[float, float]:
        """Initial and maintenance margin of options held: long ones need none."""
        if lots >= 0:
            return 0.0, 0.0
        s, index = self._scenario, contract.index
        unit = contract.in_quote(index)  # one coin of underlying in the quote currency
        mark, above = contract.mark / unit, contract.instrument.strike / index - 1.0
        call = contract.instrument.is_call
        out = max(above if call else -above, 0.0)
        maintenance = (s.option_maintenance if call else s.option_maintenance * max(1.0, mark)) + mark
        initial = max(s.option_margin - out, s.option_margin_min) + mark
        coins = -lots * contract.lot_value * unit
        return coins * (initial if call else max(initial, maintenance)), coins * maintenance

    def pool_maintenance(self, account: Account, pool: str) -> float:
        needed = 0.0
        for contract, holding in self._accounts.held(account, pool):
            if lots := holding.position.lots:
                needed += self.maintenance(contract, lots)
        return needed

    def pool_initial(
        self, account: Account, pool: str, working: Working, buys: dict[str, float] | None = None
    ) -> float:
        """With orders at their worst; `working` gives lots to buy and to sell by instrument, `buys` the sums of lots
        to buy times price ticks (default: of the orders that work)."""
        buys = self._orders.buys(account.name) if buys is None else buys
        if not working:
            return self._initial_held(account, pool)
        names = [c.name for c, _ in self._accounts.held(account, pool)]
        names += [name for name in working if name not in account.holdings]
        total = 0.0
        for name in names:
            contract = self._accounts.contracts[name]
            if contract.pool == pool:
                held, (buy, sell) = account.lots(name), working.get(name, (0, 0))
                if contract.option:
                    total += self._option_at_worst(contract, held, buy, sell, buys.get(name, 0.0))
                else:
                    total += self.initial(contract, max(abs(held + buy), abs(held - sell)))
        return total

    def _initial_held(self, account: Account, pool: str) -> float:
        """Where no order works."""
        total = 0.0
        for contract, holding in self._accounts.held(account, pool):
            if lots := holding.position.lots:
                total += self.initial(contract, min(lots, 0) if contract.option else abs(lots))
        return total

    def _option_at_worst(self, contract: Contract, held: int, buy: int, sell: int, bought: float) -> float:
        """All sells fill and no buy: the short; and the premium of buys beyond what closes a short."""
        short = self.initial(contract, min(held - sell, 0))
        opening = max(buy + min(held, 0), 0)
        premium = contract.notional(opening, bought * contract.tick / buy) if opening else 0.0
        return short + premium

    def check_funds(
        self, account: Account, contract: Contract, side: Side, lots: int, ticks: int, except_id: str = ""
    ) -> None:
        """Refused not_enough_funds where an order would need more margin than the pool has. One that does not
        raise the requirement always passes. `except_id` is an order it replaces."""
        pool, name = contract.pool, contract.name
        before = self.pool_initial(account, pool, self._orders.working(account.name))
        working, bought = self._orders.working(account.name, except_id), self._orders.buys(account.name, except_id)
        buys, sells = working.get(name, (0, 0))
        working[name] = (buys + lots, sells) if side is Side.BUY else (buys, sells + lots)
        if side is Side.BUY:
            bought[name] = bought.get(name, 0.0) + lots * ticks
        after = self.pool_initial(account, pool, working, bought)
        fee = contract.fee(max(contract.instrument.taker_fee, 0.0), lots, ticks * contract.tick)
        backing = self._accounts.backing(account, pool)
        if after > before and not after + fee <= backing:
            raise Refused("not_enough_funds", f"{pool}: needs {after + fee:.8g}, has {backing:.8g}")

    def is_short(self, account: Account, pool: str) -> bool:
        """Whether what backs it is below maintenance margin, or below nothing."""
        unrealised = funding = needed = 0.0  # in one pass: it is asked at every mark
        for contract, holding in self._accounts.held(account, pool):
            position = holding.position
            funding += holding.accrued - position.lots * (contract.funding_sum - holding.funding_sum)
            if position.lots:
                needed += self.maintenance(contract, position.lots)
                if not contract.option:
                    unrealised += contract.pnl(position.lots, position.entry_price, contract.mark)
        return account.cash.get(pool, 0.0) + unrealised + funding < needed

    def summary(self, account: Account, pool: str) -> Summary:
        """delta_total in coins for a pool in a coin, options net of their value as Deribit counts; in the pool's
        currency where its contracts are linear."""
        cash, unrealised, funding, value = self._accounts.worth(account, pool)
        delta, gamma, vega, theta = self._greeks(account, pool)
        return Summary(
            currency=pool,
            cash=cash,
            equity=cash + unrealised + funding + value,
            unrealised_pnl=unrealised,
            session_funding=funding,
            initial_margin=self.pool_initial(account, pool, self._orders.working(account.name)),
            maintenance_margin=self.pool_maintenance(account, pool),
            delta_total=sum(_delta(c, h.position.lots) for c, h in self._accounts.held(account, pool)),
            fees_paid=account.fees_paid.get(pool, 0.0),
            options_value=value,
            options_delta=delta,
            options_gamma=gamma,
            options_vega=vega,
            options_theta=theta,
        )

    def _greeks(self, account: Account, pool: str) -> tuple[float, float, float, float]:
        delta = gamma = vega = theta = 0.0
        for contract, holding in self._accounts.held(account, pool):
            if (quote := contract.quote) is not None and holding.position.lots:
                coins = holding.position.lots * contract.lot_value
                delta, gamma = delta + coins * quote.delta, gamma + coins * quote.gamma
                vega, theta = vega + coins * quote.vega, theta + coins * quote.theta
        return delta, gamma, vega, theta


def _delta(contract: Contract, lots: int) -> float:
    """Of a position, in the pool's currency."""
    if not contract.option:
        return contract.notional(lots, contract.mark)
    black = contract.quote.delta if contract.quote is not None else 0.0
    coins = lots * contract.lot_value
    return coins * (black - contract.mark) if contract.coin_quoted else coins * black * contract.index
