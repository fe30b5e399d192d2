"""What befalls the world between two steps: its streams, its ledger, its clock, and people."""

import random
from typing import TYPE_CHECKING

import msgspec

from dea_daemon.domain.events import InstrumentsListed, Operator, ParametersReloaded, WatchdogChanged
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.modes import Mode
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.wiring.paper import ACCOUNT, FEED
from dea_daemon.wiring.simulate.market import PUBLIC
from dea_daemon.wiring.simulate.venue import BY_HAND, BY_VENUE, LIQUIDATION, UNHEARD

if TYPE_CHECKING:
    from dea_daemon.wiring.simulate.world import World

OPERATORS = (
    Operator.HALT, Operator.REDUCE_ONLY, Operator.NORMAL, Operator.NORMAL, Operator.FLATTEN, Operator.DRAIN,
    Operator.DISARM, Operator.ARM, Operator.PAUSE,
)  # fmt: skip
ANY_TIME = (  # whether a process is there or not
    "ledger-fails", "clock-steps", "hand-trade", "hand-order", "hand-cancel", "trade-unheard", "deleveraged",
    "balance-drop", "all-refused", "maintenance", "contract-silent", "liquidated", "venue-announced", "key-revoked",
    "depeg",
)  # fmt: skip
WHILE_UP = ("crash", "public-cut", "private-cut", "public-half-open", "private-half-open", "loop-blocked", "reload",
            "flood", "operator", "grid-changed", "watchdog-lost")  # fmt: skip
PEGS = (0.9, 0.98, 0.993, 1.007, 1.02, 1.1)
HALF_OPEN = {"public-half-open": PUBLIC, "private-half-open": FEED}


class Mishaps:
    """Draws them ten times a second, and what each leads to later."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self._plans: list[tuple[int, str]] = []
        self._rescued = random.Random(f"{world.seed} rescue")  # noqa: S311 no secrets

    def aim(self) -> None:
        """Does one of the faults that are aimed hit?"""
        for name in self.world.faults.aims_at_world:
            if name in WHILE_UP and not self._may_befall(name):
                continue
            if self.world.faults.hits(name):
                (self._befall if name in WHILE_UP else self._happen)(name)

    def strike(self) -> None:
        """Does something happen to the world?"""
        for name in ANY_TIME:
            if self.world.faults.strikes(name):
                self._happen(name)
        for name in WHILE_UP:
            if self._may_befall(name) and self.world.faults.strikes(name):
                self._befall(name)
        self._rescue()

    def _may_befall(self, name: str) -> bool:
        """One that stands still can die, and no more happens to it."""
        return self.world.up and (name == "crash" or not self.world.blocked_until_ns)

    def _rescue(self) -> None:
        """Where the daemon stopped by itself, somebody comes some seconds later, sees to it, and says go on."""
        world = self.world
        stopped = world.up and world.state.account.mode is not Mode.NORMAL
        if stopped and world.faults.any and not any(what == "normal" for _, what in self._plans):
            self._plan(int(self._rescued.uniform(2.0, 10.0) * NS_PER_S), "normal")

    def due(self) -> list[int]:
        """When what was planned is to be carried out."""
        return [at_ns for at_ns, _ in self._plans]

    def forget(self) -> None:
        self._plans.clear()

    # --- the venue's side, and people ------------------------------------------------------------

    def _happen(self, name: str) -> None:
        world, venue, faults = self.world, self.world.venue, self.world.faults
        match name:
            case "hand-trade":
                self._trade(name, BY_HAND)
            case "hand-order":
                self._trade(name, BY_HAND, rests=True)
            case "trade-unheard":
                self._trade(name, UNHEARD)
            case "hand-cancel":
                venue.cancel_by_hand(world.now_ns)
            case "deleveraged":
                self._deleverage(name, BY_VENUE)
            case "liquidated":
                self._deleverage(name, LIQUIDATION)
            case "balance-drop":
                venue.take_cash(faults.dice(name).uniform(0.05, 0.4))
            case _:
                self._lasts(name)
        world.tell(name)

    def _lasts(self, name: str) -> None:
        """What goes on for seconds."""
        world, venue, faults, now_ns = self.world, self.world.venue, self.world.faults, self.world.now_ns
        match name:
            case "ledger-fails":
                world.ledger_broken = True
                self._plan(faults.ns(name, 0.3, 5.0), "mend ledger")
            case "clock-steps":
                venue.utc_offset_ns = faults.dice(name).choice((0, 0, -10, 10)) * NS_PER_S
            case "all-refused":
                venue.refuses_until_ns = now_ns + faults.ns(name, 1.0, 10.0)
            case "maintenance":
                self._maintain(name)
            case "venue-announced":
                underlying = faults.dice(name).choice(("", "", *world.universe.underlyings))
                venue.lock(now_ns, now_ns + faults.ns(name, 1.0, 10.0), underlying)
            case "key-revoked":
                venue.revoked_until_ns = now_ns + faults.ns(name, 1.0, 10.0)
            case "depeg":
                venue.stablecoin_usd = faults.dice(name).choice(PEGS)
                self._plan(faults.ns(name, 1.0, 10.0), "peg")
            case "contract-silent":
                row = faults.dice(name).randrange(len(world.universe))
                venue.silent_until[row] = now_ns + faults.ns(name, 1.0, 15.0)

    def _trade(self, name: str, label: str, *, rests: bool = False) -> None:
        """Somebody trades in our account."""
        world, dice = self.world, self.world.faults.dice(name)
        row, side = dice.randrange(len(world.universe)), dice.choice((Side.BUY, Side.SELL))
        lots = self._lots_worth(row, dice.uniform(1_000, 30_000))
        world.tell(f"{name}: {side} {lots} of {world.universe.instruments[row].name}")
        world.venue.trade_by_hand(row, side, lots, rests=rests, now_ns=world.now_ns, label=label)

    def _deleverage(self, name: str, label: str) -> None:
        """The venue takes a part of what is held in one contract."""
        world, dice = self.world, self.world.faults.dice(name)
        if held := [p for p in world.exchange.positions(ACCOUNT) if p.lots]:
            position = dice.choice(held)
            row, side = world.universe.row(0, position.instrument), Side.SELL if position.lots > 0 else Side.BUY
            if row is not None:
                instrument = world.universe.instruments[row]
                lots = max(int(abs(position.lots) * dice.uniform(0.1, 1.0)), instrument.min_lots)
                world.venue.trade_by_hand(row, side, lots, rests=False, now_ns=world.now_ns, label=label)

    def _lots_worth(self, row: int, usd: float) -> int:
        world, instrument = self.world, self.world.universe.instruments[row]
        contract = world.exchange.contracts.get(instrument.name)
        price = 1.0 if world.universe.inverse[row] or contract is None else contract.mark
        if contract is not None and contract.option:
            price = contract.index
        return max(int(usd / (instrument.lot_value * price)), instrument.min_lots)

    def _maintain(self, name: str) -> None:
        """The venue goes away for a while, its streams first."""
        world, away_ns = self.world, self.world.faults.ns(name, 2.0, 15.0)
        world.venue.away_until_ns = world.now_ns + away_ns
        for private in (True, False):
            if world.up and (world.venue.private_open if private else world.venue.public_open):
                world.venue.close(world.now_ns, private=private)
            self._plan(away_ns, "open private" if private else "open public")

    # --- the process -----------------------------------------------------------------------------

    def _befall(self, name: str) -> None:
        world, venue, faults, now_ns = self.world, self.world.venue, self.world.faults, self.world.now_ns
        world.tell(name)
        match name:
            case "crash":
                world.crash()
            case "public-cut" | "private-cut":
                self._cut(name.removesuffix("-cut"), faults.ns(name, 0.2, 10.0))
            case "public-half-open" | "private-half-open":
                silent_ns = faults.ns(name, 3.0, 25.0)  # then our shell has noticed, and opens another
                venue.silent_until[HALF_OPEN[name]] = now_ns + 2 * silent_ns
                self._plan(silent_ns, f"give up {name.removesuffix('-half-open')}")
            case "loop-blocked":
                world.block(faults.ns(name, 0.5, 6.0))
            case "reload":
                self._reload(name)
            case "flood":
                venue.flood(now_ns)
            case "watchdog-lost":
                world.receive(WatchdogChanged(now_ns, False, "gone"))
                self._plan(faults.ns(name, 0.5, 8.0), "watchdog")
            case "grid-changed":
                self._regrid(name)
            case "operator":
                command = faults.dice(name).choice(OPERATORS)
                world.operator(command)
                if command is Operator.DRAIN:
                    self._plan(faults.ns(name, 1.0, 5.0), "restart")
                elif command is not Operator.NORMAL:
                    self._plan(faults.ns(name, 2.0, 10.0), "normal")

    def halt(self) -> None:
        """Somebody says halt, and lifts it later."""
        self.world.tell("halt-unsent")
        self.world.operator(Operator.HALT)
        self._plan(self.world.faults.ns("halt-unsent", 1.0, 6.0), "normal")

    def _cut(self, stream: str, away_ns: int) -> None:
        venue = self.world.venue
        if venue.private_open if stream == "private" else venue.public_open:
            venue.close(self.world.now_ns, private=stream == "private")
            self._plan(away_ns, f"open {stream}")

    def _regrid(self, name: str) -> None:
        """We hear of a contract's other grid; some seconds later somebody starts us anew, to whom it is as it was."""
        world, dice = self.world, self.world.faults.dice(name)
        old = dice.choice(world.universe.instruments)
        lot, tick = dice.choice(((10, 1), (1, 2), (10, 5)))
        new = msgspec.structs.replace(old, lot_size=old.lot_size * lot, tick_size=old.tick_size * tick)
        world.receive(InstrumentsListed(world.now_ns, 0, (), "", (new,)))
        self._plan(world.faults.ns(name, 2.0, 10.0), "restart")

    def _reload(self, name: str) -> None:
        """Other targets; limits stay."""
        world, dice = self.world, self.world.faults.dice(name)
        targets = {
            coin: target.model_copy(update={"delta_usd": dice.uniform(0, 380_000)})
            for coin, target in world.params.allocator.targets.items()
        }
        allocator = world.params.allocator.model_copy(update={"targets": targets})
        text = world.params.model_copy(update={"allocator": allocator}).model_dump_json()
        world.receive(ParametersReloaded(world.now_ns, text, "test"))

    # --- later -----------------------------------------------------------------------------------

    def _plan(self, in_ns: int, what: str) -> None:
        self._plans.append((self.world.now_ns + in_ns, what))

    def carry_out(self) -> None:
        """Whatever was planned for now."""
        for plan in [p for p in self._plans if p[0] <= self.world.now_ns]:
            self._plans.remove(plan)
            self._carry_out(plan[1])

    def _carry_out(self, what: str) -> None:
        world, venue, now_ns = self.world, self.world.venue, self.world.now_ns
        away = now_ns < venue.away_until_ns
        match what:
            case "open public" if world.up and not venue.public_open and not away:
                venue.open_public(now_ns)
            case "open private" if world.up and not venue.private_open and not away:
                venue.open_private(now_ns)
            case "give up public" | "give up private":
                if world.up:
                    self._cut(what.removeprefix("give up "), NS_PER_S)
            case "mend ledger":
                world.ledger_broken = False
            case "normal" if world.up:
                world.operator(Operator.ARM)
                world.resume()
            case "restart" if world.up and world.needs_restart:
                world.crash()
            case "watchdog" if world.up and not world.state.account.watched:
                world.receive(WatchdogChanged(now_ns, True))
            case "peg":
                venue.stablecoin_usd = 1.0
