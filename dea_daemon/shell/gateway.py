"""The core's commands as ccxt calls to Deribit, and the answers as events.

No policy here: nothing is retried, nothing is decided. A call that does not answer becomes an unknown
outcome, and the core asks again. Calls are ccxt's implicit methods: ccxt signs and sends them and names their
errors. Its unified `create_order` would take amount and price through floats, round prices half up, ignore
tick steps, and be slower to the wire.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, TypeVar

from dea_daemon.domain.commands import (
    Approved,
    CancelOrder,
    CreateOrder,
    Outgoing,
    QueryAccount,
    QueryInstruments,
    QueryOrder,
)
from dea_daemon.domain.errors import InvariantViolation, OutcomeUnknown, check
from dea_daemon.domain.events import (
    AccountReported,
    AnyEvent,
    CancelRefused,
    CancelUnknown,
    CreateRefused,
    CreateUnknown,
    FillReceived,
    InstrumentsListed,
    OrderEvidence,
    OrderSeen,
    PositionReport,
    Settlement,
    VenueOrderState,
)
from dea_daemon.domain.instruments import Instrument, Universe
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.domain.orders import TimeInForce
from dea_daemon.feeds.deribit_mapping import fill_from, order_from, pool_from, position_from, settlement_from
from dea_daemon.shell.ccxt_client import Client, Outcome, ask, classify, sending

Raw = dict[str, Any]  # one JSON object of the venue
T = TypeVar("T")
TIME_IN_FORCE = {TimeInForce.GTC: "good_til_cancelled", TimeInForce.IOC: "immediate_or_cancel"}
TRADES_KEPT_MS = 24 * 3_600_000  # Deribit keeps recent trades for a day, ended orders for 30 minutes
TRADES_PAGE = 1_000
HISTORY_PAGE = 100
SETTLEMENTS_PAGE = 1_000
PAGES_MAX = 20


async def _at_once() -> None:
    return None


def _unheard(retry_after_ms: int) -> None:
    return None


def _none(infos: Iterable[Raw]) -> tuple[Instrument, ...]:
    return ()


class Gateway:
    """One account at Deribit. `universe` grows in place as contracts join."""

    def __init__(
        self,
        client: Client,
        account: int,
        universe: Universe,
        *,
        now_ns: Callable[[], int],
        utc_ns: Callable[[], int],
        pace: Callable[[], Awaitable[None]] = _at_once,
        on_throttled: Callable[[int], None] = _unheard,
        fresh: Callable[[Iterable[Raw]], tuple[Instrument, ...]] = _none,
        changed: Callable[[Iterable[Raw]], tuple[Instrument, ...]] = _none,
    ) -> None:
        """`pace` is awaited before each request of a query. `on_throttled(retry_after_ms)` hears every "too
        many requests" of the venue. `fresh` picks those of the venue's contracts that should join, `changed` those
        with a row that are now traded in other lots or ticks."""
        self.universe = universe
        self._client, self._account = client, account
        self._now_ns, self._utc_ns = now_ns, utc_ns
        self._pace, self._on_throttled = pace, on_throttled
        self._fresh, self._changed = fresh, changed

    async def perform(self, command: Outgoing) -> list[AnyEvent]:
        """Carry out one command; its answer as events. Raises only on our own bugs, and when cancelled."""
        match command:
            case Approved():
                return await self.submit(command)
            case CancelOrder():
                return await self.cancel(command)
            case QueryOrder():
                return [await self.query_order(command)]
            case QueryAccount():
                return [await self.query_account(command)]
            case QueryInstruments():
                return [await self.query_instruments(command)]
            case _:
                raise InvariantViolation(f"{type(command).__name__} is not for a gateway")

    # --- orders -----------------------------------------------------------------------------------------

    async def submit(self, approved: Approved) -> list[AnyEvent]:
        """Place an order: its fills, then the order as the venue sees it; or refused; or unknown.

        Cancelled while it waits, it raises CancelledError: the caller must take the outcome as unknown.
        """
        order = approved.order
        params = create_params(order, self._instrument(order.row))
        token = sending.set(order.client_order_id)
        try:
            return self._placed(order, await ask(self._client, f"private_get_{order.side}", params))
        except Exception as error:  # noqa: BLE001 the order may live whatever failed, our reading included
            outcome = self._outcome(error)
        finally:
            sending.reset(token)
        now_ns, order_id = self._now_ns(), order.client_order_id
        if not outcome.certain:
            return [CreateUnknown(now_ns, order_id, outcome.reason)]
        return [CreateRefused(now_ns, order_id, outcome.sent, outcome.reason, outcome.retry_after_ms)]

    def _placed(self, order: CreateOrder, reply: Raw) -> list[AnyEvent]:
        seen = self._order(reply["order"])
        if seen is None or seen.client_order_id != order.client_order_id:
            raise OutcomeUnknown("the reply is about another order")
        return [*_known(self._fill(raw) for raw in reply["trades"]), seen]

    async def cancel(self, command: CancelOrder) -> list[AnyEvent]:
        """Cancel an order: the order as the venue then sees it; or refused; or unknown."""
        try:
            return await self._cancel(command)
        except Exception as error:  # noqa: BLE001 as in submit
            outcome = self._outcome(error)
        ended = CancelRefused if outcome.certain else CancelUnknown
        return [ended(self._now_ns(), command.client_order_id, outcome.reason)]

    async def _cancel(self, command: CancelOrder) -> list[AnyEvent]:
        if command.venue_order_id:
            reply = await ask(self._client, "private_get_cancel", {"order_id": command.venue_order_id})
            return [*_known([self._order(reply)])]
        labelled = {"label": command.client_order_id, "currency": self._currency(command.row)}
        if await ask(self._client, "private_get_cancel_by_label", labelled) == 0:
            return [CancelRefused(self._now_ns(), command.client_order_id, "order_not_found")]
        # That answer is only a count: what became of the order is asked for.
        return [*self._orders(await self._question("private_get_get_order_state_by_label", labelled))]

    # --- questions --------------------------------------------------------------------------------------

    async def query_order(self, command: QueryOrder) -> OrderEvidence:
        """Everything the venue knows of one label.

        Asked one after the other, open orders before history before trades: an order that moves on between
        two questions is seen by the later one.
        """
        asked_utc_ns, asked_ns = self._utc_ns(), self._now_ns()
        label, currency = command.client_order_id, self._currency(command.row)
        labelled = {"label": label, "currency": currency}
        since_ms = command.since_ms or asked_utc_ns // NS_PER_MS - TRADES_KEPT_MS
        legs = Legs(self._outcome)
        seen: list[OrderSeen] = []
        trades: dict[str, Raw] = {}
        fills: list[FillReceived] = []
        for name in ("get_order_state_by_label", "get_open_orders_by_label"):
            with legs.leg(name):
                seen += self._orders(await self._question(f"private_get_{name}", labelled))
        with legs.leg("get_order_history"):
            seen += self._orders(await self._history(currency, label, since_ms))
        orders = _latest(order for order in seen if order.client_order_id == label)
        with legs.leg("get_user_trades"):
            await self._trades(currency, since_ms, trades)
        with legs.leg("reading trades"):
            ids = {order.venue_order_id for order in orders}
            ours = (raw for raw in trades.values() if raw.get("label") == label or raw["order_id"] in ids)
            fills += _known(self._fill(raw) for raw in ours)
        return OrderEvidence(
            self._now_ns(), label, asked_utc_ns, legs.complete, orders, tuple(fills), legs.why, asked_ns
        )

    async def query_account(self, command: QueryAccount) -> AccountReported:
        """Trades since the cursor, then open orders, positions and pools.

        In this order a fill between two questions shows in the later one, and is not missed by both.
        """
        check(command.account == self._account, "a question about another account")
        asked_ns = self._now_ns()
        legs = Legs(self._outcome)
        trades: dict[str, Raw] = {}
        orders: list[Raw] = []
        held: list[Raw] = []
        pools: list[Raw] = []
        for currency in self._currencies():
            with legs.leg(f"get_user_trades {currency}"):
                await self._trades(currency, command.trades_since_ms, trades)
        with legs.leg("get_open_orders"):
            orders = _rows(await self._question("private_get_get_open_orders", {}))
        with legs.leg("get_positions"):
            positions = _rows(await self._question("private_get_get_positions", {"currency": "any"}))
            held = [raw for raw in positions if raw["size"]]
        with legs.leg("get_account_summaries"):
            summaries = await self._question("private_get_get_account_summaries", {})
            pools = _rows(summaries["summaries"])
        settlements, unsettled = await self._settlements(command.settled_since_ms)
        outside: list[str] = []
        fills = legs.read("fill", trades.values(), self._fill, outside)
        return AccountReported(
            self._now_ns(),  # not before its fills: what is adopted holds them
            self._account,
            asked_ns,
            fills=fills,
            orders=legs.read("order", orders, self._order, outside),
            positions=legs.read("position", held, self._position, outside),
            pools=legs.read("pool", pools, pool_from, outside),
            complete=legs.complete,
            why="; ".join(filter(None, (legs.why, unsettled))),
            outside=tuple(outside),
            settlements=settlements,
        )

    async def query_instruments(self, command: QueryInstruments) -> InstrumentsListed:
        """The contracts that should join, and those of another grid than before. One request: ccxt's own
        `load_markets` would take twenty, and hold the loop while it builds its tables anew, which orders do not
        need."""
        check(command.account == self._account, "a question about another account")
        legs = Legs(self._outcome)
        found: tuple[Instrument, ...] = ()
        changed: tuple[Instrument, ...] = ()
        with legs.leg("get_instruments"):
            infos = _rows(await self._question("public_get_get_instruments", {"currency": "any"}))
            changed = self._changed(infos)
            found = self._fresh(infos)
        return InstrumentsListed(self._now_ns(), self._account, found, legs.why, changed)

    async def _settlements(self, since_ms: int) -> tuple[tuple[Settlement, ...], str]:
        """Deliveries since `since_ms` (0: none are owed) in our contracts, and why there are none: those of other
        currencies do not count where one failed. They are asked for again; the rest of the report is as good."""
        legs = Legs(self._outcome)
        found: list[Settlement] = []
        for currency in self._currencies(dated=True) if since_ms else ():
            with legs.leg(f"get_settlement_history {currency}"):
                found += _known(map(self._settlement, await self._deliveries(currency, since_ms)))
        return (tuple(found) if legs.complete else ()), legs.why

    async def _deliveries(self, currency: str, since_ms: int) -> list[Raw]:
        """Newest first at the venue, page by page back to `since_ms`."""
        found: list[Raw] = []
        asked: Raw = {"currency": currency, "type": "delivery", "count": SETTLEMENTS_PAGE}
        for _ in range(PAGES_MAX):
            page = await self._question("private_get_get_settlement_history_by_currency", asked)
            rows = _rows(page["settlements"])
            found += [raw for raw in rows if raw["timestamp"] >= since_ms]
            following = page.get("continuation") or "none"
            if following == "none" or not rows or rows[-1]["timestamp"] < since_ms:
                return found
            asked = asked | {"continuation": following}
        raise OutcomeUnknown(f"more than {PAGES_MAX} pages of settlements")

    async def _question(self, method: str, params: Raw) -> Any:
        await self._pace()
        return await ask(self._client, method, params)

    async def _trades(self, currency: str, since_ms: int, into: dict[str, Raw]) -> None:
        """Every trade in a currency since `since_ms`, by trade_id; pages read stay if a later one fails."""
        for _ in range(PAGES_MAX):
            page = await self._question(
                "private_get_get_user_trades_by_currency",
                {"currency": currency, "start_timestamp": since_ms, "sorting": "asc", "count": TRADES_PAGE},
            )
            rows = _rows(page["trades"])
            into.update((raw["trade_id"], raw) for raw in rows)
            if page["has_more"] is False:
                return
            reached_ms = rows[-1]["timestamp"]
            if reached_ms <= since_ms:
                raise OutcomeUnknown("more trades in one millisecond than a page holds")
            since_ms = reached_ms
        raise OutcomeUnknown(f"more than {PAGES_MAX} pages of trades")

    async def _history(self, currency: str, label: str, since_ms: int) -> list[Raw]:
        """Ended orders with a label that changed since `since_ms`, unfilled ones too."""
        found: list[Raw] = []
        for page in range(PAGES_MAX):
            asked = {
                "currency": currency,
                "count": HISTORY_PAGE,
                "offset": page * HISTORY_PAGE,
                "include_unfilled": True,
            }
            rows = _rows(await self._question("private_get_get_order_history_by_currency", asked))
            found += [raw for raw in rows if raw.get("label") == label]
            if len(rows) < HISTORY_PAGE or max(raw["last_update_timestamp"] for raw in rows) < since_ms:
                return found
        raise OutcomeUnknown(f"more than {PAGES_MAX} pages of order history")

    # --- reading ----------------------------------------------------------------------------------------

    def _instrument(self, row: int) -> Instrument:
        check(int(self.universe.account[row]) == self._account, f"row {row} is of another account")
        return self.universe.instruments[row]

    def _currency(self, row: int) -> str:
        """Deribit files an order under the currency its contract settles in."""
        return self._instrument(row).settle_currency

    def _currencies(self, dated: bool = False) -> list[str]:
        """Those our contracts settle in; with `dated`, contracts that expire."""
        mine = zip(self.universe.account.tolist(), self.universe.instruments, strict=True)
        return sorted({i.settle_currency for a, i in mine if a == self._account and (i.expiry_ns or not dated)})

    def _order(self, raw: Raw) -> OrderSeen | None:
        return order_from(raw, self.universe, self._account, self._now_ns())

    def _orders(self, answer: Any) -> list[OrderSeen]:
        return _known(self._order(raw) for raw in _rows(answer))

    def _fill(self, raw: Raw) -> FillReceived | None:
        return fill_from(raw, self.universe, self._account, self._now_ns())

    def _position(self, raw: Raw) -> PositionReport | None:
        return position_from(raw, self.universe, self._account)

    def _settlement(self, raw: Raw) -> Settlement | None:
        return settlement_from(raw, self.universe, self._account)

    def _outcome(self, error: Exception) -> Outcome:
        outcome = classify(error)
        if outcome.retry_after_ms:
            self._on_throttled(outcome.retry_after_ms)
        return outcome


class Legs:
    """The parts of one answer: each may fail by itself, and then the whole proves nothing."""

    def __init__(self, outcome: Callable[[Exception], Outcome]) -> None:
        self._outcome = outcome
        self._why: list[str] = []

    @property
    def complete(self) -> bool:
        return not self._why

    @property
    def why(self) -> str:
        return "; ".join(self._why)

    @contextmanager
    def leg(self, name: str) -> Iterator[None]:
        """Note a failure under `name` and go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 whatever failed, this part has no answer
            self._why.append(f"{name}: {self._outcome(error).reason}")

    def read(
        self, what: str, rows: Iterable[Raw], read: Callable[[Raw], T | None], outside: list[str]
    ) -> tuple[T, ...]:
        """Read the venue's objects; what is not in the universe is told in `outside`, but for fills: whether they
        left anything behind the positions say."""
        found: list[T] = []
        for raw in rows:
            with self.leg(f"reading {what}"):
                known = read(raw)
                if known is not None:
                    found.append(known)
                elif what != "fill":
                    amount = raw["size"] if what == "position" else raw["amount"]
                    outside.append(f"{what} {raw['instrument_name']} {raw['direction']} {amount}")
        return tuple(found)


def create_params(order: CreateOrder, instrument: Instrument) -> Raw:
    """Deribit's buy and sell parameters. Amount and price are exact decimals in text: no float comes near."""
    params: Raw = {
        "instrument_name": instrument.name,
        "type": "limit",
        "amount": exact(instrument.lots_to_amount(order.lots)),
        "price": exact(instrument.ticks_to_price(order.price_ticks)),
        "label": order.client_order_id,
        "time_in_force": TIME_IN_FORCE[order.time_in_force],
        "valid_until": order.valid_until_ms,
    }
    if order.post_only:
        params |= {"post_only": True, "reject_post_only": True}
    if order.reduce_only:
        params["reduce_only"] = True
    return params


def exact(number: Decimal) -> str:
    """The shortest plain decimal: 80, 0.7, 61234.5; never 8E+1."""
    return f"{number.normalize():f}"


def _rows(answer: Any) -> list[Raw]:
    """A list of objects, or no answer at all: anything else must not read as "none"."""
    if not isinstance(answer, list) or not all(isinstance(raw, dict) for raw in answer):
        raise OutcomeUnknown(f"not a list of objects: {str(answer)[:80]!r}")
    return answer


def _known(read: Iterable[T | None]) -> list[T]:
    return [item for item in read if item is not None]


def _latest(seen: Iterable[OrderSeen]) -> tuple[OrderSeen, ...]:
    """One word per order: the last one, but an end is not undone by an answer that lags."""
    orders: dict[str, OrderSeen] = {}
    for order in seen:
        known = orders.get(order.venue_order_id)
        if known is None or known.state is VenueOrderState.OPEN:
            orders[order.venue_order_id] = order
    return tuple(orders.values())
