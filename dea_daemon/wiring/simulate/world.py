"""The engine against a faulty venue in virtual time: one seed is one history.

`World(seed).run(seconds)` lives through faults, `settle()` ends them. After each step `oracle.Oracle` looks at
both sides. The ledger here keeps what the real one commits, at the same moments: with each decision, before
anything is sent.
"""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import msgspec

from dea_daemon.domain.commands import Approved
from dea_daemon.domain.decisions import Decision
from dea_daemon.domain.events import (
    AnyEvent,
    CreateRefused,
    DecisionDue,
    InstrumentsListed,
    Operator,
    OperatorSpoke,
    ParametersReloaded,
    RecordFailed,
    RecordRestored,
    RunStarted,
    WatchdogChanged,
)
from dea_daemon.domain.instruments import AccountKey, Instrument, Universe
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.numbers import NS_PER_MS, NS_PER_S
from dea_daemon.domain.orders import TERMINAL, Order, OrderState
from dea_daemon.domain.parameters import Parameters
from dea_daemon.engine import begin, reload, step
from dea_daemon.simvenue import scenarios
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.wiring.paper import ACCOUNT
from dea_daemon.wiring.simulate import chain
from dea_daemon.wiring.simulate.coverage import Pair
from dea_daemon.wiring.simulate.ending import settled
from dea_daemon.wiring.simulate.faults import BY_NAME, NONE, Faults
from dea_daemon.wiring.simulate.mishaps import Mishaps
from dea_daemon.wiring.simulate.oracle import Oracle
from dea_daemon.wiring.simulate.promises import PromiseBroken, promise
from dea_daemon.wiring.simulate.venue import STRANGER, FaultyVenue

START_NS = 1_790_000_000 * NS_PER_S
REST_STEP_NS = 10 * NS_PER_S
GRID_NS = 100 * NS_PER_MS
RESTLESS: dict[str, object] = {  # where faults are aimed, much is to be met
    "execution": {"order_type": "passive", "cross_after_ms": 500, "slice_usd": 10_000, "reconcile_every_ms": 1_000},
    "state": {"relist_every_s": 2.0},
}
SURFACE = {"answer_s": 3.0, "stale_s": 12.0}  # one that is lost is missed while the history lasts
SCENARIOS = ("default", "default", "volatile", "volatile", "crash", "expiry", "funding")


@dataclass
class Ledger:
    """What survives a crash."""

    orders: dict[str, Order] = field(default_factory=dict)
    fills: dict[str, int] = field(default_factory=dict)  # trade_id -> ts_event_ns
    settled: dict[tuple[int, str], str] = field(default_factory=dict)  # account and contract -> how it is known
    mode: Mode = Mode.NORMAL
    peak_equity_usd: float = 0.0
    epoch: int = 0

    def restored(self) -> tuple[Order, ...]:
        return tuple(
            msgspec.structs.replace(o, state=OrderState.UNKNOWN, cancel_sent_ns=0, query_sent_ns=0, doubted=False)
            for o in self.orders.values()
            if o.state not in TERMINAL or o.in_flight_lots
        )

    def cursor_ms(self, now_ns: int) -> int:
        newest = max(self.fills.values(), default=now_ns)
        oldest = min([newest, *(o.created_ns for o in self.restored())])
        return (oldest - 60 * NS_PER_S) // NS_PER_MS


class World:
    """One history. `now_ns` is true time, the venue's, and the receipt clock; the wall clock may step off it."""

    def __init__(
        self,
        seed: int,
        *,
        storm: float = 1.0,
        scenario: str = "",
        options: bool = False,
        faults: Iterable[str] = tuple(BY_NAME),
        **sections: object,
    ) -> None:
        """`storm` multiplies the rates of the faults named; 0 is a venue without any. With `options` the account
        holds some, and their nearest expiry ends while the history lasts."""
        self.seed, self.storm = seed, storm
        self.rng = random.Random(seed)  # noqa: S311 of the scene and the parameters
        self.now_ns = START_NS
        if options:
            scene = chain.scene(scenario or self.rng.choice(chain.SCENES))
        else:
            scene = replace(scenarios.load(scenario or self.rng.choice(SCENARIOS)), options=False)
        self.exchange = Exchange(scene, seed, START_NS)
        self.exchange.open_account(ACCOUNT, dict(scene.deposits))
        self.exchange.open_account(STRANGER, dict.fromkeys(self.exchange.currencies(), 1000000000.0))
        chain.trade_book(self.exchange, random.Random(f"book {seed}"))  # noqa: S311
        self.exchange.events()  # that was before we came
        instruments = tuple(self.exchange.instruments.values())
        self.universe = Universe((AccountKey("deribit", ACCOUNT),), tuple((0, i) for i in instruments))
        self.faults = Faults(seed, faults, storm)
        self.faults.witness = self.injected
        self.faults.states = self.states_met
        self.faults.now_ns = lambda: self.now_ns
        self.met: Counter[Pair] = Counter()
        self.struck: Counter[str] = Counter()
        self.steps = 0
        self.venue = FaultyVenue(self.exchange, self.universe, self.faults)
        self.venue.open_heartbeat(self.now_ns)
        self.mishaps = Mishaps(self)
        self.sections = {"pricing": {"settlement_window_s": scene.settlement_window_s, "surface": SURFACE}} | sections
        if options:
            wide = {"max_underlying_usd": 1_800_000, "max_venue_usd": 1_900_000, "max_gross_usd": 2_000_000}
            self.sections.setdefault("guards", wide)
        self.restless = bool(self.faults.aims)
        if self.restless:
            self.sections = RESTLESS | self.sections
        self.ledger = Ledger()
        self.ledger_broken = False
        self.down_until_ns = self.blocked_until_ns = 0
        self.runs = self.crashes = 0
        self.log: list[str] = []
        self._backlog: list[AnyEvent] = []
        self._grid_ns = START_NS
        self.oracle = Oracle(self)
        self.start()

    # --- a run -----------------------------------------------------------------------------------

    def start(self) -> None:
        """A process begins, with what the ledger kept."""
        ledger = self.ledger
        ledger.epoch += 1
        self.take(self.venue.unlisted())
        self.runs += 1
        self.params = parameters(self.rng, self.sections)
        self.ledger_broken = False
        started = RunStarted(
            ts_recv_ns=self.now_ns,
            run_id=f"run{self.runs}",
            utc_ns=self.utc_ns,
            epoch=ledger.epoch,
            armed=True,
            accounts=self.universe.accounts,
            rows=tuple((0, i) for i in self.universe.instruments),
            parameters=self.params.model_dump_json(),
            restored=ledger.restored(),
            fills_seen=tuple((0, t) for t in ledger.fills),
            trade_cursor_ms=ledger.cursor_ms(self.now_ns),
            mode=ledger.mode,
            peak_equity_usd=ledger.peak_equity_usd,
            currencies=("USDC",),
            settled=tuple(ledger.settled),
        )
        self.tell(f"run {self.runs} starts with {len(started.restored)} orders, {ledger.mode.name}")
        self.state, _ = begin(started)
        self.oracle.began()
        self._tick_ns = self.now_ns
        self._last_tick_ns = 0
        self._wake: tuple[int, str] | None = None
        if self.now_ns >= self.venue.away_until_ns:  # else its streams open when it is back
            self.venue.open_public(self.now_ns)
            self.venue.open_private(self.now_ns)

    def crash(self) -> None:
        """The process dies between two instructions; another starts a while later."""
        self.crashes += 1
        self.tell("crash")
        self.venue.forget_us()
        self.blocked_until_ns = 0
        self._backlog.clear()
        self.down_until_ns = self.now_ns + int(self.faults.dice("crash").choice((0.2, 2.0, 20.0)) * NS_PER_S)

    def block(self, ns: int) -> None:
        """The process stands still: what arrives waits, and is read after."""
        self.blocked_until_ns = self.now_ns + ns

    @property
    def utc_ns(self) -> int:
        return self.now_ns + self.venue.utc_offset_ns

    @property
    def up(self) -> bool:
        return not self.down_until_ns

    @property
    def needs_restart(self) -> bool:
        """Whether this process will not trade (all) again."""
        return self.state.account.draining or bool(self.state.market.regridded.any())

    # --- time ------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Live through so much time, faults as they come."""
        until_ns = self.now_ns + int(seconds * NS_PER_S)
        while True:
            now_ns = min(self._due(until_ns))
            if now_ns > until_ns:
                self.now_ns = until_ns
                return
            self.now_ns = max(now_ns, self.now_ns)
            self._live()

    def _due(self, until_ns: int) -> list[int]:
        """When something happens next."""
        due = [self._grid_ns, self.venue.next_ns() or until_ns, *self.mishaps.due()]
        if not self.up:
            due.append(self.down_until_ns)
        elif self.blocked_until_ns:
            due.append(self.blocked_until_ns)
        else:
            due += [self._tick_ns] + ([self._wake[0]] if self._wake else [])
        return due

    def _live(self) -> None:
        """Everything due now: the market, what arrives, what was planned, then our own tick."""
        now_ns = self.now_ns
        if self._grid_ns <= now_ns:
            self._grid_ns += GRID_NS
            self.exchange.advance(now_ns)
            self.venue.drain(now_ns)
            self.venue.say_stablecoin(now_ns)
            self.oracle.look()
            self.mishaps.strike()
        for event in self.venue.run_until(now_ns):
            self.receive(event)
            self.mishaps.aim()
        self.mishaps.carry_out()
        if self.down_until_ns and self.down_until_ns <= now_ns:
            self.down_until_ns = 0
            self.start()
        if self.blocked_until_ns and self.blocked_until_ns <= now_ns:
            self.go_on()
        ready = self.up and not self.blocked_until_ns
        if ready and (self._tick_ns <= now_ns or (self._wake and self._wake[0] <= now_ns)):
            cause = self._wake[1] if self._wake else "timer"
            self._wake, self._last_tick_ns = None, now_ns
            self._tick_ns = now_ns + self.params.decide_every_ms * NS_PER_MS
            self.fold(DecisionDue(now_ns, self.utc_ns, cause))
            self.mishaps.aim()

    def go_on(self) -> None:
        """A process that stood still reads what waited."""
        self.blocked_until_ns = 0
        waited, self._backlog = self._backlog, []
        for event in waited:
            self.receive(msgspec.structs.replace(event, ts_recv_ns=self.now_ns))

    def receive(self, event: AnyEvent) -> None:
        """An event reaches the process, if there is one, and as soon as it reads."""
        if self.up and self.blocked_until_ns:
            self._backlog.append(event)
        elif self.up:
            self.fold(event)

    def fold(self, event: AnyEvent) -> None:
        """One step, as the runner takes it: step, commit, send."""
        if isinstance(event, InstrumentsListed):
            event = msgspec.structs.replace(event, instruments=self.take(event.instruments))
        if isinstance(event, ParametersReloaded):
            self.params = reload(self.state, event)
        self.steps += 1
        self.oracle.before(event)
        decision = step(self.state, event, self.params)
        self.tell_decision(event, decision)
        self.oracle.after(event, decision)
        commands = decision.commands
        if isinstance(event, DecisionDue) and not self._commit(decision):
            commands = tuple(c for c in commands if not isinstance(c, Approved))
        if self.faults.strikes("crash-unsent"):
            self.crash()
            return
        for command in commands:
            self.venue.send(command, self.now_ns)
        if any(
            isinstance(c, Approved) and self.faults.strikes("halt-unsent", c.order.client_order_id) for c in commands
        ):
            self.mishaps.halt()
        if not isinstance(event, DecisionDue) and decision.wake and self._wake is None:
            rate_ns = self.params.decide_at_most_every_ms * NS_PER_MS
            self._wake = (max(self.now_ns, self._last_tick_ns + rate_ns), decision.wake)

    def take(self, listed: tuple[Instrument, ...]) -> tuple[Instrument, ...]:
        """Number those that are new, as the shell does before the core hears of them, and subscribe to them."""
        fresh = tuple(i for i in listed if self.universe.row(0, i.name) is None)
        if fresh:
            before = len(self.universe)
            self.universe.extend(tuple((0, i) for i in fresh))
            self.venue.number()
            for row in range(before, len(self.universe)):
                self.venue.snapshot(row, self.now_ns)
        return fresh

    def _commit(self, decision: Decision) -> bool:
        """Into the ledger; where that fails, creates do not leave."""
        account = self.state.account
        if self.ledger_broken:
            for command in decision.commands:
                if isinstance(command, Approved):
                    self.fold(CreateRefused(self.now_ns, command.order.client_order_id, False, "not recorded"))
            if account.recording:
                self.fold(RecordFailed(self.now_ns, "disk full"))
            return False
        for key in sorted(account.orders.changed):  # a set of text: its order is another one in each process
            self.ledger.orders[key] = msgspec.structs.replace(account.orders.own[key])
        account.orders.changed.clear()
        for booked in account.new_fills:
            self.ledger.fills[booked.fill.trade_id] = booked.fill.ts_event_ns
        account.new_fills.clear()
        for settlement, proof in account.deliveries.new:
            ended = (settlement.account, self.universe.instruments[settlement.row].name)
            promise(ended not in self.ledger.settled, f"{ended[1]} was settled twice")
            self.ledger.settled[ended] = proof
        account.deliveries.new.clear()
        self.ledger.mode, self.ledger.peak_equity_usd = account.mode, account.peak_equity_usd
        if not account.recording:
            self.fold(RecordRestored(self.now_ns))
        return True

    # --- the end ---------------------------------------------------------------------------------

    def settle(self, seconds: float = 60.0) -> None:
        """No more faults: within so long all must be well."""
        self.tell("faults stop")
        self.faults.stop()
        self.venue.calm()
        self.venue.say_state(self.now_ns)
        self.venue.utc_offset_ns = 0
        self.ledger_broken = False
        self.mishaps.forget()
        if self.up and self.blocked_until_ns:
            self.go_on()
        if self.up and self.needs_restart:
            self.crash()
        if self.up and not self.state.account.watched:
            self.receive(WatchdogChanged(self.now_ns, True))
        self.run(25.0 if not self.up else 0.0)
        for private in (True, False):
            if not (self.venue.private_open if private else self.venue.public_open):
                (self.venue.open_private if private else self.venue.open_public)(self.now_ns)
        self.venue.cancel_by_hand(self.now_ns)
        self.run(1.0)
        self.operator(Operator.ARM)
        self.resume()
        late_s = min(10.0, seconds)
        self.run(late_s)
        if self.oracle.liquidated:  # heard of only now: what was late is told by then
            self.resume()
        self._rest(seconds - late_s)
        settled(self.oracle)

    def _rest(self, seconds: float) -> None:
        """So long; where faults were aimed, of which there are many histories, only until all is well."""
        end_ns = self.now_ns + int(seconds * NS_PER_S)
        while self.restless and self.now_ns + REST_STEP_NS <= end_ns:
            self.run(REST_STEP_NS / NS_PER_S)
            try:
                settled(self.oracle)
            except PromiseBroken:
                continue
            return
        self.run((end_ns - self.now_ns) / NS_PER_S)

    # --- by hand ---------------------------------------------------------------------------------

    def resume(self) -> None:
        """Back to normal, whatever it was."""
        if self.state.account.mode is Mode.PAUSED:  # goes back to what was before
            self.operator(Operator.NORMAL)
        self.operator(Operator.NORMAL)

    def operator(self, command: Operator) -> None:
        self.receive(OperatorSpoke(self.now_ns, command, "test"))

    # --- the witness -----------------------------------------------------------------------------

    def injected(self, name: str, label: str) -> None:
        """A fault struck: note what it met."""
        self.struck[name] += 1
        orders = self.state.account.orders
        if label:
            if (order := orders.own.get(label)) is not None:
                self.met[name, str(order.state)] += 1
            return  # somebody else's order has no state of ours
        live = [str(order.state) for order in orders.live()] if self.up else []
        for state in live or [NONE]:
            self.met[name, state] += 1

    def states_met(self, label: str) -> set[str]:
        """The states that a fault would meet now: of one order, or of the world."""
        orders = self.state.account.orders
        if label:
            return {str(orders.own[label].state)} if label in orders.own else set()
        live = {str(order.state) for order in orders.live()} if self.up else set()
        return live or {NONE}

    # --- the story -------------------------------------------------------------------------------

    def tell(self, line: str) -> None:
        self.log.append(f"{(self.now_ns - START_NS) / NS_PER_S:9.3f} {line:.600}")  # reports are long

    def tell_decision(self, event: AnyEvent, decision: Decision) -> None:
        """Only what a reader of a failure wants: orders, and what is not market data."""
        if type(event).__name__ not in QUIET:
            self.tell(f"  < {event}")
        for note in decision.notes:
            self.tell(f"  * {note.event} {note.fields}")
        for command in decision.commands:
            self.tell(f"  > {command}")


QUIET = {
    "DecisionDue",
    "BookDelta",
    "BookSnapshot",
    "MarkUpdated",
    "QuoteUpdated",
    "OptionUpdated",
    "ListingChanged",
    "IndexUpdated",
    "FeedAlive",
    "PoolUpdated",
}


def parameters(rng: random.Random, sections: dict[str, object]) -> Parameters:
    """Limits that bind, and targets that change with every run."""
    options: dict[str, dict[str, object]] = {
        "guards": {
            "max_gross_usd": 500_000,
            "max_net_usd": 400_000,
            "max_instrument_usd": 150_000,
            "max_order_usd": 50_000,
            "max_turnover_usd_per_hour": 1e9,
            "max_fees_usd_per_hour": 1e6,
            "max_orders_per_minute": 1_000,
        },
        "state": {"relist_every_s": 10.0},
        "allocator": {
            "targets": {
                "BTC": {"kind": "fixed", "delta_usd": rng.uniform(150_000, 380_000), "band_usd": 10_000},
                "ETH": {"kind": "fixed", "delta_usd": rng.uniform(0, 300_000), "band_usd": 8_000},
            },
            "avoid_expiry_h": 0.0,
        },
        "execution": {
            "order_type": rng.choice(("passive", "passive", "taker")),
            "slice_usd": 30_000,
            "cross_after_ms": rng.choice((500, 2_000, 5_000)),
        },
    }
    options["guards"] |= {
        "max_underlying_usd": rng.choice((None, 250_000, 330_000)),
        "max_venue_usd": rng.choice((None, 450_000)),
    }
    for section, changed in sections.items():
        options[section] = options.get(section, {}) | changed  # type: ignore[operator]
    return Parameters.model_validate(options)
