"""The trading floor: where accounts' orders meet the books. It knows nothing of where prices come from.

Every way an order can end or fill passes through here, so margin, fees, reduce-only and the two records of
it (accounts and orders) stay in step. Market data is published only where `publishes` says so.
"""

from collections import deque
from copy import copy

from dea_daemon.domain.errors import check
from dea_daemon.domain.instruments import Instrument, Side
from dea_daemon.domain.numbers import NS_PER_MS, NS_PER_S
from dea_daemon.domain.orders import TimeInForce
from dea_daemon.simvenue.accounts import HOUSE, INSURANCE, MARKET, Account, Accounts, Contract
from dea_daemon.simvenue.history import MarketHistory
from dea_daemon.simvenue.margin import Margin
from dea_daemon.simvenue.orders import Orders
from dea_daemon.simvenue.scenarios import Scenario
from dea_daemon.simvenue.words import (
    BookChanged,
    Filled,
    Liquidated,
    OrderChanged,
    OrderRequest,
    PortfolioChanged,
    Refused,
    Settled,
    Traded,
    VenueEvent,
    VenueFill,
    VenueOrder,
)  # fmt: skip

EVENTS_MAX = 1_000_000  # a drain nobody calls is a bug, not a queue
_SETTLED_KEPT_NS = 48 * 3_600 * NS_PER_S
_BAND_TICKS_MIN = 5  # of an option


class Floor:
    """Books, accounts and orders of one venue at one time."""

    def __init__(self, scenario: Scenario, start_ns: int, publishes: bool) -> None:
        self.scenario = scenario
        self.now_ns = start_ns
        self.instruments: dict[str, Instrument] = {}
        self.delisted: dict[str, Instrument] = {}
        self.contracts: dict[str, Contract] = {}
        self.history: dict[str, MarketHistory] = {}
        self.accounts = Accounts(self.contracts)
        self.orders = Orders()
        self.margin = Margin(scenario, self.accounts, self.orders)
        self.locked: set[str] = set()  # coins whose contracts are not traded now
        self.maintenance = False  # none is, and no order is cancelled either
        self._pools: dict[str, None] = {}  # in the order they came
        self._settled: deque[Settled] = deque()
        self._publishes = publishes
        self._events: list[VenueEvent] = []
        self._last_change_id = 0
        self._last_order = 0
        self._last_trade = 0

    # --- what the rest of the venue does here --------------------------------------------------------

    def open_book(self, instrument: Instrument) -> Contract:
        """Open a book for an instrument."""
        contract = Contract(instrument)
        self.instruments[instrument.name] = instrument
        self.contracts[instrument.name] = contract
        self.history[instrument.name] = MarketHistory()
        self._pools[contract.pool] = None
        return contract

    def close_book(self, contract: Contract) -> None:
        """Close a book; its orders must be cancelled and its positions settled."""
        self.delisted[contract.name] = self.instruments.pop(contract.name)
        del self.contracts[contract.name], self.history[contract.name]

    def end_contract(self, contract: Contract, price: float) -> None:
        """A dated contract ends at the average index: orders cancelled, positions turned into cash, book closed."""
        self.cancel_all(contract, "settlement")
        worth = contract.settles_at(price)
        contract.index, contract.mark = price, worth
        rate = self.scenario.delivery_fee if contract.option else 0.0
        for ended in self.accounts.settle(contract, rate):
            if ended.account not in HOUSE:
                name, pool = contract.name, contract.pool
                settled = Settled(
                    ended.account, name, self.now_ns, ended.lots, price, ended.pnl, pool, worth, ended.cash, ended.fee
                )
                self._settled.append(settled)
                self.emit(settled)
                self.publish_portfolio(self.account(ended.account), pool)
        while self._settled and self._settled[0].ts_ns < self.now_ns - _SETTLED_KEPT_NS:
            self._settled.popleft()
        self.close_book(contract)

    def contract(self, name: str) -> Contract:
        """Refused: instrument_not_found."""
        if name not in self.contracts:
            raise Refused("instrument_not_found", name)
        return self.contracts[name]

    def account(self, name: str) -> Account:
        check(name in self.accounts.by_name, f"account {name!r} was never opened")
        return self.accounts.by_name[name]

    def emit(self, event: VenueEvent) -> None:
        check(len(self._events) < EVENTS_MAX, "events() is not being drained")
        self._events.append(event)

    def events(self) -> list[VenueEvent]:
        """Everything since the last call, in order."""
        events, self._events = self._events, []
        return events

    def set_background(self, contract: Contract, side: Side, ticks: int, lots: int) -> None:
        """Set anonymous liquidity at a level; it trades with client orders it crosses."""
        for maker, at, matched in contract.book.set_level(side, ticks, lots):
            self._trade(contract, side, None, maker, at, matched)

    def background_taker(self, contract: Contract, side: Side, limit_ticks: int, lots: int) -> None:
        """An anonymous aggressor."""
        for maker, at, matched in contract.book.sweep(side, limit_ticks, lots):
            self._trade(contract, side, None, maker, at, matched)

    def recorded_taker(self, contract: Contract, side: Side, ticks: int, lots: int) -> None:
        """An aggressor out of a recording."""
        for maker, at, matched in contract.book.recorded_trade(side, ticks, lots):
            self._trade(contract, side, None, maker, at, matched)

    def publish_book(self, contract: Contract) -> None:
        """One BookChanged of everything since the last one, if anything."""
        bids, asks = contract.book.take_changes()
        if self._publishes and (bids or asks):
            self._last_change_id += 1
            previous, contract.change_id = contract.change_id, self._last_change_id
            self.emit(BookChanged(contract.name, self.now_ns, contract.change_id, previous, bids, asks))

    def publish_portfolio(self, account: Account, pool: str) -> None:
        summary = self.margin.summary(account, pool)
        self.emit(PortfolioChanged(account.name, self.now_ns, summary))

    # --- orders --------------------------------------------------------------------------------------

    def place(self, request: OrderRequest) -> tuple[VenueOrder, list[VenueFill]]:
        """Accept, match, and rest or cancel what is left. Raises Refused; then nothing happened.

        Self-trade: an order that would reach one of the account's own is refused whole, before any fill.
        A reduce-only order is cut to the position.
        """
        contract, account = self.contract(request.instrument), self.account(request.account)
        self._check_open(contract)
        self._check_deadline(request.valid_until_ms)
        if self.orders.open_count(account.name) >= self.scenario.orders_max:
            raise Refused("too_many_orders", f"{self.scenario.orders_max} open")
        lots = self._accepted_lots(contract, account, request.side, request.lots, request.reduce_only)
        limit = self._limit(contract, request.side, request.price_ticks)
        if request.post_only:
            limit = self._passive_limit(contract, request.side, limit, request.reject_post_only)
        self._check_self_trade(contract, account, request.side, limit, lots)
        self.margin.check_funds(account, contract, request.side, lots, limit)
        order = self._new_order(contract, request, lots, limit)
        self.orders.add(order)
        self._changed("accepted", order)
        fills = self._execute(contract, order)
        self._after_orders(contract, order.account)
        return copy(order), fills

    def edit(
        self,
        account: str,
        order_id: str,
        lots: int,
        price_ticks: int,
        *,
        post_only: bool = False,
        reject_post_only: bool = True,
        reduce_only: bool | None = None,
        valid_until_ms: int = 0,
    ) -> tuple[VenueOrder, list[VenueFill]]:
        """Change an order's total lots (filled ones included) and price. The same price and no more lots keep
        its place in the queue; anything else loses it, and may trade. Refused: then it stays as it was."""
        order, owner = self._live(account, order_id), self.account(account)
        contract = self.contract(order.instrument)
        self._check_open(contract)
        self._check_deadline(valid_until_ms)
        reduce_only = order.reduce_only if reduce_only is None else reduce_only
        left = lots - order.filled_lots
        if left <= 0:
            raise Refused("invalid_amount", f"{order.filled_lots} lots are filled")
        left = self._accepted_lots(contract, owner, order.side, left, reduce_only)
        limit = self._limit(contract, order.side, price_ticks)
        if post_only:
            limit = self._passive_limit(contract, order.side, limit, reject_post_only)
        self._check_self_trade(contract, owner, order.side, limit, left, order_id)
        self.margin.check_funds(owner, contract, order.side, left, limit, order_id)
        keeps_place = limit == order.price_ticks and left <= order.left_lots
        contract.book.cut(order, left if keeps_place else 0)
        order.lots, order.price_ticks = order.filled_lots + left, limit
        order.post_only, order.reduce_only = post_only, reduce_only
        order.updated_ns, order.replaced = self.now_ns, True
        self._changed("edited", order)
        fills = [] if keeps_place else self._execute(contract, order)
        self._after_orders(contract, account)
        return copy(order), fills

    def cancel(self, account: str, order_id: str) -> VenueOrder:
        """Refused: order_not_found, order_closed."""
        order = self._live(account, order_id)
        contract = self.contract(order.instrument)
        self._cancel(contract, order, "user_request")
        self._after_orders(contract, account)
        return copy(order)

    def cancel_all(self, contract: Contract, reason: str) -> None:
        """Every account's orders in one contract, by the venue."""
        touched = self.orders.all_open(contract.name)
        for order in touched:
            self._cancel(contract, order, reason)
        self.publish_book(contract)
        for name in dict.fromkeys(order.account for order in touched):
            self.publish_portfolio(self.account(name), contract.pool)

    def liquidate(self, account: Account, pool: str) -> None:
        """One step of liquidation: cancel the pool's orders, close a share of the largest position at market
        within the price band (all of it once nothing is left), with a fee to the insurance fund; cover what an
        account without positions owes."""
        for order in list(self.orders.open(account.name)):
            contract = self.contracts[order.instrument]
            if contract.pool == pool:
                self._cancel(contract, order, "liquidation")
                self.publish_book(contract)
        held = [(c, h.position.lots) for c, h in self.accounts.held(account, pool) if h.position.lots]
        if held:
            contract, position = max(held, key=lambda item: self._to_close(*item))
            share = self.scenario.liquidation_share if self.accounts.equity(account, pool) > 0 else 1.0
            self._liquidate(contract, account, position, share)
        if not any(h.position.lots for _, h in self.accounts.held(account, pool)):
            self.accounts.cover(account, pool)
        self.publish_portfolio(account, pool)

    def _to_close(self, contract: Contract, lots: int) -> tuple[bool, float, float]:
        """Which position to close first: one that can be, with the most margin, then the most value."""
        other_side = contract.book.best(Side.BUY if lots > 0 else Side.SELL)
        value = abs(contract.notional(lots, contract.mark))
        return other_side is not None, self.margin.maintenance(contract, lots), value

    # --- the parts of an order's life ----------------------------------------------------------------

    def _check_open(self, contract: Contract) -> None:
        if self.maintenance:
            raise Refused("system_maintenance", "the venue is under maintenance")
        if contract.instrument.underlying in self.locked:
            raise Refused("locked_by_admin", f"{contract.name} is not traded now")

    def _check_deadline(self, valid_until_ms: int) -> None:
        if valid_until_ms and self.now_ns > valid_until_ms * NS_PER_MS:
            raise Refused("expired_request", f"valid until {valid_until_ms} ms")

    def _accepted_lots(self, contract: Contract, account: Account, side: Side, lots: int, reduce_only: bool) -> int:
        instrument = contract.instrument
        if lots < instrument.min_lots:
            raise Refused("invalid_amount", f"{lots} lots, at least {instrument.min_lots}")
        if instrument.expiry_ns and self.now_ns >= instrument.expiry_ns:
            raise Refused("settlement_in_progress", contract.name)
        if not reduce_only:
            return lots
        held = account.lots(contract.name)
        if held * side.sign >= 0:
            raise Refused("reduce_only_reject", f"position is {held} lots")
        return min(lots, abs(held))

    def _limit(self, contract: Contract, side: Side, price_ticks: int | None) -> int:
        """The price an order may reach: its own, or the band's edge for a market order."""
        edge = self.band(contract)[side is Side.BUY] / contract.tick
        if not (edge > 0 or (contract.option and contract.mark >= 0)):
            raise Refused("price_too_far", f"{contract.name} has no mark yet")
        if price_ticks is None:
            return max(int(edge), 1)
        if not contract.instrument.on_grid(price_ticks):
            raise Refused("invalid_price", f"{price_ticks} ticks of {contract.tick} is not on the grid")
        if not price_ticks * side.sign <= edge * side.sign:
            raise Refused("price_too_far", f"{price_ticks} ticks, band ends at {edge:.0f}")
        return price_ticks

    def band(self, contract: Contract) -> tuple[float, float]:
        """The lowest price one may sell at, which may be below 0, and the highest one may buy at."""
        mark, s = contract.mark, self.scenario
        if not contract.option:
            return mark * (1.0 - s.price_band), mark * (1.0 + s.price_band)
        vega = contract.in_quote(contract.quote.vega) if contract.quote is not None else 0.0
        width = max(s.option_band * mark, s.option_band_points * vega, _BAND_TICKS_MIN * contract.tick)
        return mark - width, mark + width

    def _passive_limit(self, contract: Contract, side: Side, limit: int, rejects: bool) -> int:
        """For post-only: the limit, or one tick outside the other side's best if it would take."""
        best = contract.book.best(side.opposite)
        if best is None or side.sign * limit < side.sign * best:
            return limit
        if rejects:
            raise Refused("post_only_reject", f"best {side.opposite} is {best} ticks")
        instrument = contract.instrument
        return instrument.price_to_ticks(instrument.ticks_to_price(best - side.sign), side)

    def _check_self_trade(
        self, contract: Contract, account: Account, side: Side, limit: int, lots: int, except_id: str = ""
    ) -> None:
        if contract.book.meets_own(side, limit, lots, account.name, except_id):
            raise Refused("self_trade", "would meet an order of the same account")

    def _new_order(self, contract: Contract, request: OrderRequest, lots: int, limit: int) -> VenueOrder:
        self._last_order += 1
        return VenueOrder(
            order_id=f"{contract.pool}-{self._last_order}",
            account=request.account,
            instrument=contract.name,
            side=request.side,
            lots=lots,
            price_ticks=limit,
            time_in_force=TimeInForce.IOC if request.price_ticks is None else request.time_in_force,
            post_only=request.post_only,
            reduce_only=request.reduce_only,
            label=request.label,
            created_ns=self.now_ns,
            updated_ns=self.now_ns,
            is_market=request.price_ticks is None,
        )

    def _execute(self, contract: Contract, order: VenueOrder, liquidation: bool = False) -> list[VenueFill]:
        """Match what is left of an order, then rest or cancel the remainder."""
        fills = []
        for maker, ticks, lots in contract.book.sweep(order.side, order.price_ticks, order.left_lots):
            fill = self._trade(contract, order.side, order, maker, ticks, lots, liquidation)
            check(fill is not None, "a taker's trade has its fill")
            fills.append(fill)
        if order.state == "open" and order.left_lots:
            if order.time_in_force is TimeInForce.IOC:
                self._cancel(contract, order, "immediate_or_cancel")
            else:
                contract.book.join(order)
        return [fill for fill in fills if fill is not None]

    def _trade(
        self,
        contract: Contract,
        side: Side,
        taker: VenueOrder | None,
        maker: VenueOrder | None,
        ticks: int,
        lots: int,
        liquidation: bool = False,
    ) -> VenueFill | None:
        """Book one match for both sides and tell about it. Returns the taker's fill."""
        self._last_trade += 1
        contract.trade_seq += 1
        trade_id = f"{contract.pool}-{self._last_trade}"
        price = ticks * contract.tick
        contract.last_price = price
        traded = Traded(
            contract.name,
            self.now_ns,
            trade_id,
            contract.trade_seq,
            side,
            ticks,
            lots,
            contract.mark,
            contract.index,
            liquidation,
        )
        if self._publishes:
            amount = lots * float(contract.instrument.lot_size)
            self.history[contract.name].add_trade(traded, price, amount)
            self.emit(traded)
        if taker is None and maker is None:
            return None
        if maker is None or taker is None:
            sign = side.sign if taker is None else -side.sign
            self.accounts.trade(MARKET, contract, sign * lots, price, 0.0)
        fills = [
            self._fill(contract, order, traded, price, is_maker, liquidation)
            for order, is_maker in ((maker, True), (taker, False))
            if order is not None
        ]
        for order in (maker, taker):
            if order is not None:
                self._recut_reduce_only(contract, order)
        return fills[-1] if taker is not None else None

    def _fill(
        self, contract: Contract, order: VenueOrder, traded: Traded, price: float, is_maker: bool, liquidation: bool
    ) -> VenueFill:
        rate = contract.instrument.maker_fee if is_maker else contract.instrument.taker_fee
        fee = contract.fee(rate, traded.lots, price)
        pnl = self.accounts.trade(order.account, contract, order.side.sign * traded.lots, price, fee)
        if liquidation and not is_maker:
            extra = self.scenario.liquidation_fee * contract.notional(traded.lots, price)
            self.accounts.pay_fee(self.account(order.account), contract.pool, extra, INSURANCE)
            fee += extra
        order.filled_lots += traded.lots
        order.filled_value += price * traded.lots
        order.commission += fee
        order.updated_ns = self.now_ns
        if order.left_lots == 0:
            self.orders.close(order, "filled")
        fill = VenueFill(
            trade_id=traded.trade_id,
            trade_seq=traded.trade_seq,
            order_id=order.order_id,
            account=order.account,
            instrument=contract.name,
            side=order.side,
            lots=traded.lots,
            price_ticks=traded.price_ticks,
            fee=fee,
            is_maker=is_maker,
            label=order.label,
            ts_ns=self.now_ns,
            mark_price=contract.mark,
            index_price=contract.index,
            pnl=pnl,
            liquidation=liquidation,
        )
        self.orders.record(fill)
        self.emit(Filled(fill, self.account(order.account).lots(contract.name)))
        self._changed("filled", order)
        if is_maker:
            self.publish_portfolio(self.account(order.account), contract.pool)
        return fill

    def _recut_reduce_only(self, contract: Contract, filled: VenueOrder) -> None:
        """After a fill, no reduce-only order of the account is larger than its position."""
        held = self.account(filled.account).lots(contract.name)
        for order in self.orders.open(filled.account, contract.name):
            if not order.reduce_only or order is filled:
                continue
            allowed = max(-held * order.side.sign, 0)
            if allowed == 0:
                self._cancel(contract, order, "reduce_only")
            elif order.left_lots > allowed:
                contract.book.cut(order, allowed)
                order.lots = order.filled_lots + allowed
                self._changed("edited", order)

    def _cancel(self, contract: Contract, order: VenueOrder, reason: str) -> None:
        contract.book.leave(order)
        order.updated_ns = self.now_ns
        self.orders.close(order, "cancelled", reason)
        self._changed("cancelled", order)

    def _liquidate(self, contract: Contract, account: Account, position: int, share: float) -> None:
        side = Side.SELL if position > 0 else Side.BUY
        lots = max(int(abs(position) * share), min(abs(position), contract.instrument.min_lots))
        request = OrderRequest(account.name, contract.name, side, lots, None, reduce_only=True)
        order = self._new_order(contract, request, lots, self._limit(contract, side, None))
        order.is_liquidation = True
        self.orders.add(order)
        self._changed("accepted", order)
        self._execute(contract, order, liquidation=True)
        self.publish_book(contract)
        if order.filled_lots:
            self.emit(Liquidated(account.name, contract.name, self.now_ns, side.sign * order.filled_lots))

    def _live(self, account: str, order_id: str) -> VenueOrder:
        order = self.orders.get(account, order_id)
        if order.state != "open":
            raise Refused("order_closed", f"{order_id} is {order.state}")
        return order

    def _changed(self, what: str, order: VenueOrder) -> None:
        self.emit(OrderChanged(what, copy(order), self.account(order.account).lots(order.instrument)))

    def _after_orders(self, contract: Contract, account: str) -> None:
        self.publish_book(contract)
        self.publish_portfolio(self.account(account), contract.pool)
