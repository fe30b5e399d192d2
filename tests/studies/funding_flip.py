"""`python -m tests.studies.funding_flip`: does the hedge move to the cheaper contract when funding flips?

Writes docs/funding-flip.svg and its table in docs/allocator.md. `--quick` runs three of the ten days and writes
nothing.

The real engine at the simulated venue, as in `tests.simulation.month`: ten bitcoins and short straddles, kept at a
delta of 0 within ± 10,000 USD by perpetuals and dated futures. Funding follows a schedule: the perpetuals' premium is
moved to where the venue's own formula makes it so. The same history once more with an allocator that does not see it.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from dea_daemon.domain.decisions import View
from dea_daemon.domain.events import AnyEvent, FeedOpened, FillReceived, RunStarted
from dea_daemon.domain.instruments import AccountKey, FloatArray, IntArray, Kind
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S
from dea_daemon.domain.orders import is_own
from dea_daemon.domain.parameters import Parameters
from dea_daemon.engine import begin
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.scenarios import Scenario
from dea_daemon.simvenue.words import FundingPaid, VenueEvent
from dea_daemon.wiring.paper import ACCOUNT, FEED
from tests.simulation import month
from tests.simulation.month import START_NS, TWIN, Books, Month, Result
from tests.studies.hedge_band import rows, written
from tests.studies.panels import Panel, svg, tops

DOCS = Path(__file__).resolve().parents[2] / "docs"
SEED = 7
DEPOSITS = {"BTC": 10.0, "USDC": 300_000.0}
BAND_USD = 10_000.0
BLIND_H = 1.0  # what an hour's carry comes to is worth no crossing
DEAD = 0.000_25  # of the premium: so much of it is no funding
DAYS, STEP_S, ROUNDS = 10.0, 300, 12
# From which day on a long pays how much in 8 hours. The last two flips are worth less than two crossings.
SCHEDULE = ((0.0, 5e-4), (2.5, -5e-4), (5.0, 5e-4), (7.5, -0.5e-4), (8.75, 0.5e-4))
GROUPS = ("BTC-PERPETUAL", "BTC_USDC-PERPETUAL", "dated futures")

Schedule = Sequence[tuple[float, float]]


def scenario(step_s: int, premium_sd_bp: float) -> Scenario:
    return replace(
        month.SCENARIO,
        name="funding flip",
        coins={"BTC": month.SCENARIO.coins["BTC"]},
        step_ms=step_s * 1_000,
        option_step_ms=step_s * 1_000,
        premium_sd_bp=premium_sd_bp,
        premium_ema_s=float(step_s),
        deposits=DEPOSITS,
        basis_sd=0.002,
        level_usd=400_000.0,
    )


def parameters(step_s: int, expected_hold_h: float, carry_half_life_h: float) -> Parameters:
    """Nothing but the band and the choice of contract binds."""
    told = month.parameters().model_dump()
    patient = {name: 3 * step_s * 1_000 for name in told["state"] if name.startswith("stale_")}
    told["state"] |= patient
    told["forecast"] |= {"sample_every_s": step_s, "carry_half_life_h": carry_half_life_h}
    told["allocator"]["targets"] = {"BTC": {"kind": "fixed", "delta_usd": 0.0, "band_usd": BAND_USD}}
    told["allocator"]["expected_hold_h"] = expected_hold_h
    told["execution"]["slice_usd"] = BAND_USD
    return Parameters.model_validate(told)


class FlippingExchange(Exchange):
    """A venue whose perpetuals' mean premium can be moved."""

    def set_funding(self, rate_8h: float) -> None:
        """So much is funding from the next step on, but for the premium's own noise."""
        for name, contract in self.contracts.items():
            if contract.instrument.kind is Kind.PERPETUAL:
                self._carry[name]._mean = rate_8h + np.copysign(DEAD, rate_8h)


class Venue(month.Venue):
    """It remembers the funding that the venue paid, in the pool's currency."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.funding: list[FundingPaid] = []

    def _publish(self, event: VenueEvent, now_ns: int) -> None:
        if isinstance(event, FundingPaid) and event.account == ACCOUNT:
            self.funding.append(event)
        super()._publish(event, now_ns)


@dataclass
class Story:
    """What a run did, by step [T]: `position` [T, 3] USD of delta in each of GROUPS, `others` the delta of coins and
    options. `earned` [T] are USD since the start of each kind."""

    day: list[float] = field(default_factory=list)
    funding_rate_8h: list[float] = field(default_factory=list)
    position: list[list[float]] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    net: list[float] = field(default_factory=list)
    band: list[float] = field(default_factory=list)
    earned: dict[str, list[float]] = field(default_factory=dict)

    def at(self, day: float) -> int:
        """The last step before `day` ended."""
        return int(np.searchsorted(self.day, day, side="right")) - 1

    def share(self, group: str) -> FloatArray:
        """[T] of the hedge that is held in one group."""
        held = np.abs(np.array(self.position))
        return np.asarray(held[:, GROUPS.index(group)] / np.maximum(held.sum(axis=1), 1.0))

    def usd(self, kinds: Sequence[str], since: float, until: float) -> float:
        """USD earned between two days; costs are negative."""
        first, last = self.at(since), self.at(until)
        return sum(self.earned[kind][last] - (self.earned[kind][first] if first >= 0 else 0.0) for kind in kinds)

    def moved_after_minutes(self, since: float, until: float, futures: bool) -> float:
        """From a flip until nine tenths of the hedge are in futures, or in perpetuals; NaN where they never are."""
        share = self.share(GROUPS[2])[self.at(since) : self.at(until)]
        there = np.flatnonzero(share > 0.9 if futures else share < 0.1)
        return float(there[0] * (self.day[-1] - self.day[0]) / (len(self.day) - 1) * 1_440) if len(there) else np.nan


CARRY, COSTS = ("funding", "basis"), ("fees", "spread")


class Flip(Month):
    """One history of a hedge under a funding schedule."""

    exchange: FlippingExchange
    venue: Venue
    view: View | None = None  # of the last decision

    def __init__(
        self,
        seed: int = SEED,
        schedule: Schedule = SCHEDULE,
        expected_hold_h: float = 24.0,
        step_s: int = STEP_S,
        premium_sd_bp: float = 0.5,
        carry_half_life_h: float = 1.0,
    ) -> None:
        self.now_ns, self.step_ns, self.schedule = START_NS, step_s * NS_PER_S, schedule
        self.exchange = FlippingExchange(scenario(step_s, premium_sd_bp), seed, START_NS)
        for account in (ACCOUNT, TWIN):
            self.exchange.open_account(account, dict(DEPOSITS))
        instruments = [i for i in self.exchange.instruments.values() if month.listed_for_us(i, START_NS)]
        self.params = parameters(step_s, expected_hold_h, carry_half_life_h)
        started = RunStarted(
            ts_recv_ns=START_NS,
            run_id="funding flip",
            utc_ns=START_NS,
            epoch=1,
            armed=True,
            accounts=(AccountKey("deribit", ACCOUNT),),
            rows=tuple((0, i) for i in instruments),
            parameters=self.params.model_dump_json(),
        )
        self.state, _ = begin(started)
        self.universe = self.state.market.universe
        self.venue = Venue(self.exchange, self.universe)
        self.books, self.result, self.story = Books(self.universe), Result(), Story()
        self.record = None
        self.sold = set()
        self.prices = self._prices()
        self.earned = dict.fromkeys((*CARRY, *COSTS, "premium"), 0.0)
        self.carried: dict[int, tuple[float, float, float]] = {}  # by row: USD held, premium, what it rolls down a day
        self.exchange.set_funding(schedule[0][1])
        self.fold(FeedOpened(self.now_ns, FEED, 0, True))

    def live(self, days: float) -> Story:
        """Live so long."""
        for _ in range(round(days * NS_PER_DAY / self.step_ns)):
            self._step()
        return self.story

    def _step(self) -> None:
        self.now_ns = self.now_ns // self.step_ns * self.step_ns + self.step_ns
        day = (self.now_ns - START_NS) / NS_PER_DAY
        self.exchange.set_funding(self.schedule[sum(since <= day for since, _ in self.schedule) - 1][1])
        self.exchange.advance(self.now_ns)
        self.prices = self._prices()
        self._earn()
        self._tell_market()
        self.venue.drain(self.now_ns)
        self._hear()
        for _ in range(ROUNDS):
            if not self._decide():
                break
        self._tell_story(day)
        self._sell_straddles()

    # --- money -----------------------------------------------------------------------------------

    def fold(self, event: AnyEvent) -> bool:
        self.view = self.state.view or self.view  # there is none while contracts join
        if isinstance(event, FillReceived) and is_own(event.client_order_id):
            self._paid(event)
        return super().fold(event)

    def _paid(self, fill: FillReceived) -> None:
        """A hedge's fee, and how far from the mark it was traded."""
        instrument = self.universe.instruments[fill.row]
        price = float(instrument.ticks_to_price(fill.price_ticks))
        usd = fill.side.sign * fill.lots * float(self.universe.lot_value[fill.row])
        usd *= 1.0 if self.universe.inverse[fill.row] else price
        self.earned["fees"] -= fill.fee * self._usd(fill.fee_currency)
        self.earned["spread"] -= usd * (price / self.books.mark[fill.row].mark_price - 1.0)

    def _earn(self) -> None:
        """Since the step before: funding as the venue paid it; of futures the way to the index, and for all of them
        by how much else their premiums over the index moved."""
        for paid in self.venue.funding:
            self.earned["funding"] += paid.amount * self._usd(self.exchange.contracts[paid.instrument].pool)
        self.venue.funding.clear()
        days = self.step_ns / NS_PER_DAY
        for row, (usd, premium, rolls) in self.carried.items():
            contract = self.exchange.contracts.get(self.universe.instruments[row].name)
            now = contract.mark / contract.index - 1.0 if contract is not None else 0.0
            self.earned["basis"] -= usd * rolls * days
            self.earned["premium"] += usd * (now - premium + rolls * days)

    def _tell_story(self, day: float) -> None:
        story, view, held = self.story, self.view, self.state.account.position_lots
        if view is None or self.record is None:
            return
        self.carried, position = {}, [0.0, 0.0, 0.0]
        for row in np.flatnonzero(held).tolist():
            instrument = self.universe.instruments[row]
            if instrument.kind is Kind.OPTION:
                continue
            contract = self.exchange.contracts[instrument.name]
            usd = float(held[row] * view.delta_per_lot[row])
            premium = contract.mark / contract.index - 1.0
            life = (instrument.expiry_ns - self.now_ns) / NS_PER_DAY if instrument.expiry_ns else np.inf
            self.carried[row] = (usd, premium, premium / life)
            position[GROUPS.index(instrument.name) if instrument.name in GROUPS else 2] += usd
        net, wanted = self.record.factors[0].actual_usd, self.record.factors[0]
        story.day.append(day)
        story.funding_rate_8h.append(self.exchange.contracts[GROUPS[0]].funding_rate)
        story.position.append(position)
        story.others.append(net - sum(position))
        story.net.append(net)
        story.band.append(wanted.band_usd)
        for kind, usd in self.earned.items():
            story.earned.setdefault(kind, []).append(usd)

    def _prices(self) -> dict[str, float]:
        return {"BTC": self.exchange.index_price("BTC")}

    def gap_usd(self) -> float:
        return sum(abs(self.books.equity(c) - self._venues(ACCOUNT, c)) * self._usd(c) for c in DEPOSITS)


# --- table and picture ---------------------------------------------------------------------------------------


def phases(days: float) -> list[tuple[float, float, float]]:
    """(from day, to day, rate) of the schedule."""
    begun = [(since, rate) for since, rate in SCHEDULE if since < days]
    ends = (*(since for since, _ in begun[1:]), days)
    return [(since, end, rate) for (since, rate), end in zip(begun, ends, strict=True)]


def table(seeing: Story, blind: Story) -> str:
    """What each stretch of the schedule brought both runs, USD."""
    lines: list[tuple[str, ...]] = [
        ("days", "funding, 8 h", "carry", "blind", "costs", "blind", "carry less costs", "blind", "moved after")
    ]
    for since, end, rate in (*phases(seeing.day[-1]), (0.0, seeing.day[-1], np.nan)):
        money = [story.usd(kinds, since, end) for kinds in (CARRY, COSTS, CARRY + COSTS) for story in (seeing, blind)]
        whole = rate != rate
        minutes = seeing.moved_after_minutes(since, end, futures=rate < 0.0) if abs(rate) > DEAD else np.nan
        lines.append(
            (
                "all" if whole else f"{since:g} to {end:.4g}",
                "" if whole else f"{100 * rate:+.3f} %",
                *(f"{usd:+,.0f}" for usd in money),
                f"{minutes:.0f} min" if since > 0.0 and minutes == minutes else "",
            )
        )
    return rows(*lines)


INKS = ("blue", "violet", "amber")
HEIGHTS = (80.0, 240.0, 115.0)


def picture(story: Story) -> str:
    """Funding, the hedge by contract, and net delta in its band, one above the other."""
    about = "Ten simulated days: 10 BTC and short straddles at a delta of 0, hedged in three kinds of contracts."
    flips = [since for since, _ in SCHEDULE[1:]]
    panels = (_funding(story), _positions(story), _net(story))
    parts = [part for panel, drawn in panels for part in (*panel.frame(flips), *drawn)]
    last = panels[-1][0]
    title = "The hedge goes where it is cheapest to hold"
    return svg(title, about, last.top + last.height, [*parts, *last.foot()])


def _panel(story: Story, k: int, name: str, low: float, high: float, ticks: Sequence[float], form: str) -> Panel:
    return Panel(name, story.day[-1], tops(HEIGHTS)[k], HEIGHTS[k], low, high, ticks, form)


def _every(story: Story, minutes: float) -> IntArray:
    """Indices of steps so far apart."""
    return np.unique(np.searchsorted(story.day, np.arange(0.0, story.day[-1], minutes / 1_440)))


def _funding(story: Story) -> tuple[Panel, list[str]]:
    name = "Funding that a long perpetual pays, % in 8 hours"
    panel = _panel(story, 0, name, -0.07, 0.07, (-0.05, 0.0, 0.05), "{:+.2f}")
    at = _every(story, 30.0)
    return panel, [panel.line(np.array(story.day)[at], 100.0 * np.array(story.funding_rate_8h)[at], "green")]


def _positions(story: Story) -> tuple[Panel, list[str]]:
    at = _every(story, 20.0)
    day, sold = np.array(story.day)[at], np.maximum(-np.array(story.position)[at], 0.0) / 1e3
    high = float(np.ceil(sold.sum(axis=1).max() / 200.0) * 200.0)
    ticks = np.arange(0.0, high + 1.0, 200.0).tolist()
    panel = _panel(story, 1, "Sold in each, thousand USD of delta", 0.0, high, ticks, "{:.0f}")
    above = sold.cumsum(axis=1)
    layers = zip((above - sold).T, above.T, INKS, strict=True)
    return panel, [*(panel.area(day, low, top, ink) for low, top, ink in layers), *panel.legend(GROUPS, INKS)]


def _net(story: Story) -> tuple[Panel, list[str]]:
    """From the least to the most of each half hour, so that nothing hides between two points."""
    starts, band = _every(story, 30.0), story.band[-1] / 1e3
    net = np.clip(np.array(story.net) / 1e3, -1.5 * band, 1.5 * band)
    low, high = np.minimum.reduceat(net, starts), np.maximum.reduceat(net, starts)
    name = "Net delta after each decision, and its band, thousand USD"
    panel = _panel(story, 2, name, -1.5 * band, 1.5 * band, (-band, 0.0, band), "{:+.0f}")
    return panel, [panel.area(np.array(story.day)[starts], low, high, "blue"), panel.edges((-band, band), "amber")]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.studies.funding_flip", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three days, shown and not written")
    quick = parser.parse_args().quick
    console = Console()
    days = 3.0 if quick else DAYS
    seeing, blind = Flip().live(days), Flip(expected_hold_h=BLIND_H).live(days)
    told = table(seeing, blind)
    console.print(told, soft_wrap=True, markup=False, highlight=False)
    if not quick:
        page = DOCS / "allocator.md"
        page.write_text(written(page.read_text(), {"funding-flip": told}))
        (DOCS / "funding-flip.svg").write_text(picture(seeing))


if __name__ == "__main__":
    main()
